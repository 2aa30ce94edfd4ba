//! What a handler has of its message and its session.

use serde_json::{Value, json};
use tangelo::Config;
use tangelo::config::Dialect;
use tangelo::handler::{Answer, Outcome, Request, Router, Session};
use tangelo::session::Uid;

use crate::client::Client;
use crate::inside::{Gate, Inside};

fn route(method: &str) -> String {
    format!("connector.testHandler.{method}")
}

fn export(session: &Session) -> Outcome<'static> {
    Outcome::json(session.export())
}

/// Answers with the session as it is after a change.
fn changed(request: &Request<'_>, change: impl FnOnce(&mut Session)) -> Answer<'static> {
    let mut session = request.session.clone();
    change(&mut session);
    Answer::now(export(&session))
}

fn handlers(gate: &Gate) -> Router {
    let gate = gate.clone();
    Router::new()
        .route(&route("export"), |request| changed(request, |_| {}))
        .route(&route("set"), |request| {
            changed(request, |session| session.set("k", json!(1)))
        })
        .route(&route("push"), |request| {
            changed(request, |session| {
                session.set("kept", json!("é"));
                session.push_setting("kept").expect("it is there");
            })
        })
        .route(&route("unbind"), |request| {
            changed(request, |session| {
                let uid = session.uid().expect("it is bound").clone();
                session.unbind(&uid).expect("it is bound");
            })
        })
        .route(&route("bind"), |request| {
            let mut session = request.session.clone();
            Answer::later(async move {
                let uid = format!("of-{}", session.id());
                session
                    .bind(Uid::from_text(&uid))
                    .await
                    .expect("it is there");
                export(&session)
            })
        })
        .route(&route("wait"), move |request| {
            let (session, gate) = (request.session.clone(), gate.clone());
            Answer::later(async move {
                gate.pass().await;
                export(&session)
            })
        })
}

#[test]
fn a_handler_has_its_session_as_it_was_and_what_it_changed() {
    for shards in [1, 4] {
        let gate = Gate::default();
        let held = gate.clone();
        let inside = Inside::start(shards, Config::default(), move || handlers(&held));
        let mut clients = inside.clients();
        let mut at_first = Vec::new();
        for client in &mut clients {
            let ask =
                |client: &mut Client, method: &str| client.request_text(&*route(method), "{}");
            let new = ask(client, "export");
            let id = serde_json::from_str::<Value>(&new).expect("JSON")["id"].to_string();
            let session = |uid: &str, settings: &str| {
                format!(
                    "{{\"id\":{id},\"frontendId\":\"connector-1\",\"uid\":{uid},\"settings\":{settings}}}"
                )
            };
            assert_eq!(new, session("null", "{}"));
            client.request(900, &*route("wait"), "{}");
            // What is set is this message's; what is pushed is the session's.
            assert_eq!(ask(client, "set"), session("null", r#"{"k":1}"#));
            assert_eq!(ask(client, "export"), new);
            let kept = r#"{"kept":"é"}"#;
            assert_eq!(ask(client, "push"), session("null", kept));
            assert_eq!(ask(client, "export"), session("null", kept));
            let uid = format!("\"of-{id}\"");
            assert_eq!(ask(client, "bind"), session(&uid, kept));
            assert_eq!(ask(client, "export"), session(&uid, kept));
            assert_eq!(ask(client, "unbind"), session("null", kept));
            ask(client, "bind");
            at_first.push(new);
        }
        gate.wait_for(clients.len());
        gate.open();
        for (client, new) in clients.iter_mut().zip(at_first) {
            assert_eq!(client.wait_response(900), new.as_bytes());
        }
        inside.stop();
    }
}

#[test]
fn a_handler_reads_what_javascript_handlers_are_given() {
    let echo = "connector.testHandler.echo";
    let only_route = format!("{{\"__route__\":\"{echo}\"}}");
    let overwritten = format!("{{\"__route__\":\"{echo}\",\"a\":1}}");
    let rows = [
        // An array is what the reference spreads over the arguments.
        (r#"[1,"b"]"#, r#"[1,"b"]"#, r#"[1,"b"]"#),
        ("5", "5", "5"),
        ("true", "true", "true"),
        ("0", &only_route, "{}"),
        ("null", &only_route, "{}"),
        ("{", &only_route, "{}"),
        (
            r#"{"__route__":"x","a":1}"#,
            &overwritten,
            r#"{"__route__":"x","a":1}"#,
        ),
    ];
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        let config = Config {
            dialect,
            ..Config::default()
        };
        let inside = Inside::start(1, config, move || {
            Router::new().route(echo, |request| {
                Answer::now(Outcome::value(&request.message()))
            })
        });
        for mut client in inside.clients() {
            for (body, pomelo, pinus) in rows {
                let expected = match dialect {
                    Dialect::Pomelo => pomelo,
                    Dialect::Pinus => pinus,
                };
                assert_eq!(client.request_text(echo, body), expected, "{body}");
            }
        }
        inside.stop();
    }
}
