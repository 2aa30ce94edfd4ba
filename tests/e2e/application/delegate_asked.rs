//! Functions of a connector's `app.js` that tangelo asks the delegate for: the answers to handshakes, the blacklist, and
//! the server of a session.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use tangelo::config::{Rpc as RpcConfig, Server};
use tangelo::handler::{Answer, Outcome, Router};
use tangelo::{Config, Gateway};

use super::delegate_package::{Play, play_in, play_with, run_check, wait_until_reached};
use crate::cluster::in_both_dialects;
use crate::harness::client::{Client, HANDSHAKE, HANG_GUARD, Message};
use crate::harness::free_address;
use crate::harness::frontend::{Frontend, Kind, Knobs};
use crate::harness::inside::Inside;
use crate::harness::peers::{Cluster, DELEGATE, Dialect, wait_for};
use crate::harness::rpc::Callee;

const ASKED: Knobs = Knobs {
    tangelo: &[
        "--set",
        "delegate=entry",
        "--set",
        "delegate_notices=true",
        "--set",
        "delegate_handshake=tangelo.handshake",
        "--set",
        "delegate_blacklist=tangelo.blacklist",
    ],
    genuine: &[],
};

/// A client that has not yet shaken hands.
fn connect(frontend: &Frontend<'_>) -> Client {
    frontend.connect(frontend.kind().transports()[0])
}

fn shake(client: &mut Client, sys: &Value, user: &Value) {
    let body = json!({"sys": sys, "user": user}).to_string();
    client.send_package(HANDSHAKE, body.as_bytes());
}

/// Returns the whole reply; the server must close behind a refusal.
fn reply(client: &mut Client) -> String {
    let package = client.next_package().expect("a reply");
    assert_eq!(package.kind, HANDSHAKE);
    let text = String::from_utf8(package.body).expect("UTF-8");
    if !text.contains(r#""code":200"#) {
        assert_eq!(client.next_package(), None);
    }
    text
}

fn handshakes(on: &mut Play<'_>) {
    let sys = json!({"type": "js-websocket", "version": "0.0.1"});
    let new = json!({"type": "js-websocket", "version": "0.0.2"});
    // Nobody calls back, and nobody else notices.
    let mut waiting = connect(on.frontend);
    shake(&mut waiting, &new, &json!({"ask": "nothing"}));
    for (sys, ask) in [
        (&new, "data"),
        (&new, "zero"),
        (&new, "refuse"),
        (&new, "anything"),
        (&sys, "data"),
        (&json!({}), "data"),
        (&json!(1), "data"),
    ] {
        let mut client = connect(on.frontend);
        shake(
            &mut client,
            sys,
            &json!({"ask": ask, "name": "é \" \\u00e9"}),
        );
        let text = reply(&mut client);
        on.note(ask, &text);
    }
    // The reply goes to a client that has sent other things meanwhile.
    let mut client = connect(on.frontend);
    shake(&mut client, &new, &json!({"ask": "data", "name": 1}));
    client.ack();
    client.request(1, "connector.entryHandler.view", "{}");
    let text = reply(&mut client);
    on.note("at once", &text);
    client.ack();
    on.ask(&mut client, "room", json!({}));
    waiting.silent_for(Duration::from_millis(1));
}

mod the_delegate_answers_handshakes_by_the_functions_of_the_project {
    use super::*;

    fn promise(dialect: Dialect) {
        play_with(ASKED, dialect, handshakes);
    }

    in_both_dialects!(promise);
}

/// Whether a client gets an answer to its handshake; one that is refused gets no package.
fn is_served(on: &Play<'_>) -> bool {
    connect(on.frontend).try_open().is_some()
}

fn blacklist(on: &mut Play<'_>) {
    let mut client = on.client();
    let mut set = |state: Value| {
        let done = client.request_text("connector.listHandler.set", state.to_string());
        assert_eq!(done, r#"{"code":200}"#);
    };
    for (list, is_listed) in [
        (json!(["^10\\."]), false),
        (json!(["^10\\.", "127\\.0\\.0\\.1$"]), true),
        (json!([]), false),
    ] {
        set(json!({"list": list}));
        wait_for("the blacklist", || {
            (is_served(on) != is_listed).then_some(())
        });
    }
    on.ask(&mut client, "room", json!({}));
}

mod the_delegate_names_the_addresses_that_may_not_connect {
    use super::*;

    fn promise(dialect: Dialect) {
        play_with(ASKED, dialect, blacklist);
    }

    in_both_dialects!(promise);
}

/// Without a delegate its last list counts, and handshakes are refused.
fn a_delegate_that_is_away(dialect: Dialect) {
    let cluster = Cluster::delegated(dialect);
    let mut frontend = Frontend::start(&cluster, Kind::Tangelo { shards: 4 }, ASKED);
    let mut client = wait_for("the delegate to know the frontend", || {
        connect(&frontend).try_open()
    });
    let list = r#"{"list":["^127"]}"#;
    client.request_text("connector.listHandler.set", list);
    let is_refused = |frontend: &Frontend<'_>| {
        let mut client = connect(frontend);
        shake(&mut client, &json!({}), &json!({}));
        client.next_package().is_none()
    };
    wait_for("the blacklist", || is_refused(&frontend).then_some(()));
    cluster.kill(DELEGATE);
    let gateway = frontend.gateway().expect("it is one");
    gateway.wait_counter("blacklists_missed", 2);
    assert!(is_refused(&frontend), "the last list counts");
}

mod the_last_blacklist_of_a_delegate_that_is_away_counts {
    use super::*;

    in_both_dialects!(a_delegate_that_is_away);
}

/// A server of the list whose port a test listens on.
fn server(id: &str, listener: &TcpListener) -> Server {
    let address = listener.local_addr().expect("it is bound");
    Server {
        id: id.into(),
        server_type: id.split_once('-').expect("type-number").0.into(),
        host: address.ip().to_string(),
        port: address.port(),
        ..Server::default()
    }
}

/// A gateway whose delegate is this listener.
fn asking(listener: &TcpListener, rpc: RpcConfig, make: fn() -> Router) -> Inside {
    let config = Config {
        delegate: Some("entry".into()),
        delegate_handshake: Some("entryRemote.handshake".into()),
        servers: vec![server("entry-1", listener)],
        rpc,
        ..Config::default()
    };
    Inside::start(1, config, make)
}

fn failed(client: &mut Client) {
    let package = client.next_package().expect("a reply");
    assert_eq!(package.body, br#"{"code":500}"#);
    assert_eq!(client.next_package(), None);
}

#[test]
fn a_handshake_that_the_delegate_answers_late_gets_code_500() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let rpc = RpcConfig {
        timeout: Duration::from_millis(100),
        ..RpcConfig::default()
    };
    let inside = asking(&listener, rpc, Router::new);
    let mut client = Client::tcp(inside.address());
    shake(&mut client, &json!({}), &json!({}));
    let _delegate = Callee::accept(&listener);
    failed(&mut client);
    assert_eq!(inside.counter("handshakes_undelegated"), 1);
    inside.stop();
}

#[test]
fn a_handshake_without_an_answer_of_the_delegate_gets_code_500() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let rpc = RpcConfig {
        timeout: HANG_GUARD,
        calls_in_flight_max: 1,
        ..RpcConfig::default()
    };
    let inside = asking(&listener, rpc, Router::new);
    let [
        mut first,
        mut late,
        mut further,
        mut unreadable,
        mut refused,
    ] = [(); 5].map(|()| Client::tcp(inside.address()));
    shake(&mut first, &json!({"type": "a"}), &json!([1]));
    let mut delegate = Callee::accept(&listener);
    let (id, call) = delegate.next_call();
    let session = r#""service":"entryRemote","method":"handshake","args":[{"id":"#;
    let address = r#","frontendId":"connector-1","uid":null,"settings":{},"remoteAddress":{"ip":"127.0.0.1","port":"#;
    let message = r#"}},{"sys":{"type":"a"},"user":[1]}]}}"#;
    assert!(
        call.contains(session) && call.contains(address) && call.ends_with(message),
        "{call}"
    );
    delegate.answer(id, r#"[null,{"code":500}]"#);
    failed(&mut first);
    for (client, resp) in [
        (&mut unreadable, r#"[null,"{}"]"#),
        (&mut refused, r#"[{"stack":"Error: no\n    at here"}]"#),
    ] {
        shake(client, &json!({}), &json!({}));
        let (id, _) = delegate.next_call();
        delegate.answer(id, resp);
        failed(client);
    }
    assert_eq!(inside.counter("handshakes_undelegated"), 0);
    shake(&mut late, &json!({}), &json!({}));
    delegate.next_call();
    shake(&mut further, &json!({}), &json!({}));
    failed(&mut further);
    assert_eq!(inside.counter("handshakes_undelegated"), 1);
    drop((delegate, listener));
    failed(&mut late);
    assert_eq!(inside.counter("handshakes_undelegated"), 2);
    let mut client = Client::tcp(inside.address());
    shake(&mut client, &json!({}), &json!({}));
    failed(&mut client);
    assert_eq!(inside.counter("handshakes_undelegated"), 3);
    inside.stop();
}

#[test]
fn the_log_names_a_delegate_that_is_not_there() {
    let port = free_address().port();
    let server =
        format!(r#"server=[{{id="entry-1", type="entry", host="127.0.0.1", port={port}}}]"#);
    let keys = [
        "delegate=entry",
        "delegate_handshake=tangelo.handshake",
        "delegate_blacklist=tangelo.blacklist",
        server.as_str(),
    ];
    let args: Vec<&str> = keys.into_iter().flat_map(|key| ["--set", key]).collect();
    let mut gateway = crate::harness::gateway::Gateway::start(&args);
    // The first dial fails, and with it the handshake that waits for it.
    for _ in 0..2 {
        let mut client = Client::tcp(gateway.address());
        shake(&mut client, &json!({}), &json!({}));
        failed(&mut client);
    }
    let cause = r#"error=the delegate, "entry": the server is not reachable"#;
    gateway.wait_printed(&format!(
        "the delegate has not answered a handshake {cause}"
    ));
    gateway.wait_printed("the delegate sends no blacklist: the last one counts");
}

#[test]
fn a_handshake_function_in_rust_is_asked_in_place_of_the_delegate() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let inside = asking(&listener, RpcConfig::default(), || {
        Router::new()
            .check_client(|kind, _| kind != "bad")
            .handshake(|_, _| Answer::now(Outcome::value(&json!("rust"))))
    });
    let mut client = Client::tcp(inside.address());
    shake(&mut client, &json!({}), &json!({}));
    assert!(reply(&mut client).contains(r#""user":"rust""#));
    let mut client = Client::tcp(inside.address());
    shake(&mut client, &json!({"type": "bad"}), &json!({}));
    assert!(reply(&mut client).starts_with(r#"{"code":501}"#));
    assert_eq!(inside.counter("rpc_calls"), 0);
    inside.stop();
}

#[test]
fn the_delegate_has_the_remotes_that_are_asked() {
    for key in ["delegate_handshake", "delegate_blacklist"] {
        for (delegate, remote, expected) in [
            (None, "tangelo.it", "delegate to be set too"),
            (
                Some("chat"),
                "it",
                r#"service.method, such as "entryRemote.closed""#,
            ),
        ] {
            let mut config = Config {
                delegate: delegate.map(Into::into),
                ..Config::default()
            };
            match key {
                "delegate_handshake" => config.delegate_handshake = Some(remote.into()),
                _ => config.delegate_blacklist = Some(remote.into()),
            }
            let error = Gateway::new(config).start().err().expect("an error");
            let expected = format!("{key} = {remote:?}: expected {expected}");
            assert_eq!(error.to_string(), expected);
        }
    }
}

/// The servers of a session are those of the project's function, which tangelo asks once for each state of the session.
fn session_routes(on: &mut Play<'_>) {
    let mut client = on.client();
    on.login(&mut client, json!({"lane": 1}));
    for lane in [1, 0, 1] {
        on.ask(&mut client, "change", json!({"room": {"lane": lane}}));
        for id in 100..120 {
            client.request(id, "chat.chatHandler.where", json!({"id": id}).to_string());
        }
        for id in 100..120 {
            let Message::Response { id: answered, body } = client.next_message() else {
                panic!("a push");
            };
            assert_eq!(answered, id);
            note_server(on, &body);
        }
        let body = client.request_text("chat.chatHandler.where", "{}");
        note_server(on, body.as_bytes());
    }
    let part = json!({"part": format!("route of {}", on.uid)}).to_string();
    let log = client.request_text("connector.entryHandler.log", part);
    let log: Value = serde_json::from_str(&log).expect("JSON");
    let asked = log["lines"].as_array().expect("a list").len();
    assert_eq!(
        asked,
        if on.frontend.kind().is_tangelo() {
            3
        } else {
            63
        }
    );
    on.ask(&mut client, "logout", json!({}));
    let body = client.request_text("chat.chatHandler.where", "{}");
    note_server(on, body.as_bytes());
}

/// Notes what a backend says, without the marks of filters in the message.
fn note_server(on: &mut Play<'_>, body: &[u8]) {
    let said: Value = serde_json::from_slice(body).expect("JSON");
    let [server, uid, settings] = ["server", "uid", "settings"].map(|name| &said[name]);
    on.note(
        "where",
        &json!([server, said["m"]["id"], uid, settings]).to_string(),
    );
}

mod the_delegate_names_the_server_of_a_session_once_for_each_state_of_it {
    use super::*;

    const BY_SESSION: Knobs = Knobs {
        tangelo: &[
            "--set",
            "delegate=entry",
            "--set",
            "delegate_notices=true",
            "--set",
            "route.chat=delegate:session",
        ],
        genuine: &[],
    };

    fn promise(dialect: Dialect) {
        // A change of the list asks again, and each start of a frontend changes it.
        play_in(&Cluster::delegated(dialect), BY_SESSION, session_routes);
    }

    in_both_dialects!(promise);

    fn another_list(dialect: Dialect) {
        let cluster = Cluster::delegated(dialect);
        let kind = Kind::Tangelo { shards: 1 };
        let frontend = Frontend::start(&cluster, kind, BY_SESSION);
        wait_until_reached(&frontend);
        let mut client = connect(&frontend).open();
        let login = json!({"uid": "somebody", "room": {"lane": 1}}).to_string();
        let done = client.request_text("connector.entryHandler.login", login);
        assert_eq!(done, r#"{"code":200}"#);
        let mut serves = |id: &str| {
            let id = format!("{{\"server\":\"{id}\"");
            wait_for("the server", || {
                let answer = client.request_text("chat.chatHandler.where", "{}");
                answer.starts_with(&id).then_some(())
            });
        };
        serves("chat-2");
        cluster.remove("chat-2");
        serves("chat-1");
        cluster.add_backend("chat-2");
        serves("chat-2");
    }

    mod and_again_when_the_list_of_servers_has_changed {
        use super::*;

        in_both_dialects!(another_list);
    }
}

const WHERE: &str = "chat.chatHandler.where";

#[test]
fn messages_wait_in_order_until_the_delegate_has_named_their_server() {
    for shards in [1, 4] {
        let [asked, first, second] =
            [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let servers = [("entry-1", &asked), ("chat-1", &first), ("chat-2", &second)];
        let config = Config {
            delegate: Some("entry".into()),
            routes: [("chat".into(), "delegate:session".into())].into(),
            servers: servers.map(|(id, listener)| server(id, listener)).into(),
            ..Config::default()
        };
        let inside = Inside::start(shards, config, Router::new);
        let mut client = Client::tcp(inside.address()).open();
        (1..=3).for_each(|id| client.request(id, WHERE, "{}"));
        let mut delegate = Callee::accept(&asked);
        let (question, text) = delegate.next_call();
        let call = r#""service":"tangelo","method":"route","args":[{"id":"#;
        let session = r#","frontendId":"connector-1","uid":null,"settings":{}},"chat"],"frontendId":"connector-1","process":""#;
        assert!(text.contains(call) && text.contains(session), "{text}");
        delegate.answer(question, r#"[null,"chat-2"]"#);
        let mut chat = Callee::accept(&second);
        for id in 1..=3 {
            let (call, text) = chat.next_call();
            assert!(text.contains(&format!(r#""args":[{{"id":{id},"#)), "{text}");
            chat.answer(call, "[null,{}]");
            client.wait_response(id);
        }
        client.request(4, WHERE, "{}");
        let (call, _) = chat.next_call();
        chat.answer(call, "[null,{}]");
        client.wait_response(4);
        assert_eq!(inside.counter("routes_asked"), 1);

        // Without a server all messages that wait fail, and the next one asks again.
        let mut client = Client::tcp(inside.address()).open();
        for (missed, resp) in (1..).zip([r#"[null,"nobody"]"#, "[null,1]", "[]", r#"["no"]"#]) {
            (1..=2).for_each(|id| client.request(id, WHERE, "{}"));
            let (question, _) = delegate.next_call();
            delegate.answer(question, resp);
            for id in 1..=2 {
                assert_eq!(client.wait_response(id), br#"{"code":500}"#);
            }
            assert_eq!(inside.counter("routes_missed"), missed);
        }

        // The last words of a client arrive.
        client.notify(WHERE, r#"{"bye":1}"#);
        let (question, _) = delegate.next_call();
        drop(client);
        inside.wait_gauge("connections", 1);
        delegate.answer(question, r#"[null,"chat-2"]"#);
        let (call, text) = chat.next_call();
        assert!(text.contains(r#"{"bye":1}"#), "{text}");
        chat.answer(call, "[]");
        inside.stop();
    }
}

#[test]
fn each_type_of_frontends_has_its_own_functions() {
    run_check("tests/npm/connectorConfig.js");
}

#[test]
fn only_a_function_of_the_session_and_the_servers_is_asked_once() {
    run_check("tests/npm/sessionOnly.js");
}
