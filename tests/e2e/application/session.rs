//! Messages and sessions as handlers see them, and the events of sessions.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tangelo::Config;
use tangelo::config::Dialect;
use tangelo::handler::{Answer, Outcome, Request, Router, Session};
use tangelo::session::Uid;

use crate::harness::client::Client;
use crate::harness::inside::{Gate, Inside};

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
        .raw_route(&route("export"), |request| changed(request, |_| {}))
        .raw_route(&route("set"), |request| {
            changed(request, |session| session.set("k", json!(1)))
        })
        .raw_route(&route("push"), |request| {
            changed(request, |session| {
                session.set("kept", json!("é"));
                session.push_setting("kept").expect("the setting exists");
            })
        })
        .raw_route(&route("unbind"), |request| {
            changed(request, |session| {
                let uid = session.uid().expect("the session is bound").clone();
                session.unbind(&uid).expect("the session is bound");
            })
        })
        .raw_route(&route("bind"), |request| {
            let mut session = request.session.clone();
            Answer::later(async move {
                let uid = format!("of-{}", session.id());
                session
                    .bind(Uid::from_text(&uid))
                    .await
                    .expect("the setting exists");
                export(&session)
            })
        })
        .raw_route(&route("wait"), move |request| {
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
            // `set` changes the values of this message, `push` those of the session.
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
            Router::new().raw_route(echo, |request| {
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

/// Events in order: the name, then uid and values of the session.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn write(&self, event: &str, session: &Session) {
        let uid = session.uid().map_or("nobody", Uid::text);
        let line = format!("{event}: {uid} {}", session.settings_json());
        self.0.lock().unwrap().push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn listening(heard: &Heard) -> Router {
    let [bind, unbind, close] = [heard.clone(), heard.clone(), heard.clone()];
    handlers(&Gate::default())
        .on_bind(move |session| bind.write("bind", session))
        .on_unbind(move |session, uid| {
            let had = format!("unbind {}", uid.text().starts_with("of-"));
            unbind.write(&had, session);
            // A handler of an event may cause the next event.
            session.kick(Some("unbound"));
        })
        .on_close(move |session| close.write("close", session))
}

#[test]
fn handlers_hear_of_binds_unbinds_and_ends_once_each() {
    for shards in [1, 4] {
        let heard = Heard::default();
        let listener = heard.clone();
        let inside = Inside::start(shards, Config::default(), move || listening(&listener));
        let mut client = Client::tcp(inside.address()).open();
        let ask = |client: &mut Client, method: &str| client.request_text(&*route(method), "{}");
        ask(&mut client, "push");
        // The second one changes nothing.
        let bound = ask(&mut client, "bind");
        assert_eq!(ask(&mut client, "bind"), bound);
        client.request(1, &*route("unbind"), "{}");
        assert_eq!(client.wait_kick(), "unbound");
        let mut client = Client::websocket(inside.address()).open();
        ask(&mut client, "bind");
        drop(client);
        inside.wait_gauge("connections", 0);
        let bound: Value = serde_json::from_str(&bound).expect("JSON");
        let uid = bound["uid"].as_str().expect("a uid");
        let lines = heard.lines();
        let first = [
            format!("bind: {uid} {{\"kept\":\"é\"}}"),
            "unbind true: nobody {\"kept\":\"é\"}".to_owned(),
            "close: nobody {\"kept\":\"é\"}".to_owned(),
        ];
        assert_eq!(lines[..3], first);
        let [bind, close] = &lines[3..] else {
            panic!("{lines:?}")
        };
        // A session that closes still has its uid, without an unbind before.
        assert!(bind.starts_with("bind: of-"), "{lines:?}");
        assert_eq!(bind.replace("bind", "close"), *close);
        inside.stop();
    }
}

#[test]
fn a_handler_of_an_event_that_panics_costs_nothing() {
    let inside = Inside::start(2, Config::default(), || {
        handlers(&Gate::default())
            .on_bind(|_| panic!("boom"))
            .on_unbind(|_, _| panic!("boom"))
    });
    let clients = inside.clients();
    let panics = 2 * clients.len() as u64;
    for mut client in clients {
        let ask = |client: &mut Client, method: &str| client.request_text(&*route(method), "{}");
        assert!(ask(&mut client, "bind").contains("\"uid\":\"of-"));
        assert!(ask(&mut client, "unbind").contains("\"uid\":null"));
    }
    inside.wait_counter("handler_panics", panics);
    inside.stop();
}

#[test]
fn a_value_that_is_removed_is_gone_from_the_session() {
    let inside = Inside::start(1, Config::default(), || {
        handlers(&Gate::default()).raw_route(&route("remove"), |request| {
            changed(request, |session| {
                session.remove("kept").expect("the setting exists");
            })
        })
    });
    for mut client in inside.clients() {
        let ask = |client: &mut Client, method: &str| client.request_text(&*route(method), "{}");
        assert!(ask(&mut client, "push").contains("\"kept\""));
        assert!(ask(&mut client, "export").contains("\"kept\""));
        assert!(ask(&mut client, "remove").ends_with("\"settings\":{}}"));
        assert!(ask(&mut client, "export").ends_with("\"settings\":{}}"));
        // A handler may remove a value that does not exist.
        ask(&mut client, "remove");
    }
    inside.stop();
}
