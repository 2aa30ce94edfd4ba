//! Functions of a connector's `connectorConfig`, of which tangelo asks the delegate: the answers to handshakes and the
//! blacklist.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use tangelo::config::{Rpc as RpcConfig, Server};
use tangelo::handler::{Answer, Outcome, Router};
use tangelo::{Config, Gateway};

use super::delegate_package::{Play, play_with};
use crate::cluster::in_both_dialects;
use crate::harness::client::{Client, HANDSHAKE};
use crate::harness::frontend::{Frontend, Kind, Knobs};
use crate::harness::inside::Inside;
use crate::harness::peers::{Cluster, DELEGATE, Dialect, wait_for};
use crate::harness::rpc::Callee;

const ASKED: Knobs = Knobs {
    tangelo: &[
        "--set",
        "delegate=entry",
        "--set",
        "delegate_closed=tangelo.closed",
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

/// A gateway whose delegate is this listener.
fn asking(listener: &TcpListener, rpc: RpcConfig, make: fn() -> Router) -> Inside {
    let address = listener.local_addr().expect("it is bound");
    let config = Config {
        delegate: Some("entry".into()),
        delegate_handshake: Some("entryRemote.handshake".into()),
        servers: vec![Server {
            id: "entry-1".into(),
            server_type: "entry".into(),
            host: address.ip().to_string(),
            port: address.port(),
            ..Server::default()
        }],
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
fn a_handshake_without_an_answer_of_the_delegate_gets_code_500() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let rpc = RpcConfig {
        timeout: Duration::from_millis(300),
        calls_in_flight_max: 1,
        ..RpcConfig::default()
    };
    let inside = asking(&listener, rpc, Router::new);
    let [mut late, mut further, mut unreadable, mut refused] =
        [(); 4].map(|()| Client::tcp(inside.address()));
    shake(&mut late, &json!({"type": "a"}), &json!([1]));
    let mut delegate = Callee::accept(&listener);
    let (_, call) = delegate.next_call();
    let session = r#""service":"entryRemote","method":"handshake","args":[{"id":"#;
    let address = r#","frontendId":"connector-1","uid":null,"settings":{},"remoteAddress":{"ip":"127.0.0.1","port":"#;
    let message = r#"}},{"sys":{"type":"a"},"user":[1]}]}}"#;
    assert!(
        call.contains(session) && call.contains(address) && call.ends_with(message),
        "{call}"
    );
    shake(&mut further, &json!({}), &json!({}));
    failed(&mut further);
    failed(&mut late);
    assert_eq!(inside.counter("handshakes_undelegated"), 2);
    for (client, resp) in [
        (&mut unreadable, r#"[null,"{}"]"#),
        (&mut refused, r#"[{"stack":"Error: no\n    at here"}]"#),
    ] {
        shake(client, &json!({}), &json!({}));
        let (id, _) = delegate.next_call();
        delegate.answer(id, resp);
        failed(client);
    }
    assert_eq!(inside.counter("handshakes_undelegated"), 2);
    drop((delegate, listener));
    inside.wait_counter("rpc_links_down", 1);
    let mut client = Client::tcp(inside.address());
    shake(&mut client, &json!({}), &json!({}));
    failed(&mut client);
    assert_eq!(inside.counter("handshakes_undelegated"), 3);
    inside.stop();
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
