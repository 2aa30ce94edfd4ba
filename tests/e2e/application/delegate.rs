//! The connector's own JavaScript handlers go on in a backend of another type, without an edit.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use serde_json::{Value, json};
use tangelo::config::Server;
use tangelo::{Config, Gateway};

use crate::harness::client::Client;
use crate::harness::free_address;
use crate::harness::frontend::{Frontend, Kind, Knobs};
use crate::harness::inside::Inside;
use crate::harness::peers::{BACKENDS, Cluster, Dialect, wait_for};
use crate::harness::rpc::{Callee, Rpc};

const ENTER: &str = "connector.entryHandler.enter";
const ROOM: &str = "connector.entryHandler.room";

/// The genuine connector runs its handlers itself, tangelo has the backends do it: a client sees no
/// other difference.
fn a_delegate_runs_the_handlers(dialect: Dialect) {
    const KNOBS: Knobs = Knobs {
        tangelo: &["--set", "delegate=chat"],
        genuine: &[],
    };
    let cluster = Cluster::shared(dialect);
    for kind in [Kind::Genuine].into_iter().chain(Kind::TANGELOS) {
        let frontend = Frontend::start(cluster, kind, KNOBS);
        for (number, transport) in kind.transports().iter().enumerate() {
            let mut client = frontend.client(*transport);
            let uid = format!("{}-{number}", frontend.id());
            let body = json!({"uid": uid, "room": [1, {"x": "é"}]}).to_string();
            let mut entered: Value =
                serde_json::from_str(&client.request_text(ENTER, body)).expect("JSON");
            let by = entered["by"].take();
            let expected = if kind.is_tangelo() {
                "chat"
            } else {
                "connector"
            };
            assert_eq!(by, expected, "{kind}");
            let route = match dialect {
                Dialect::Pomelo => json!({"by": null, "route": ENTER, "uid": uid}),
                Dialect::Pinus => json!({"by": null, "uid": uid}),
            };
            assert_eq!(entered, route, "{kind}");
            // The values are the session's.
            let room = client.request_text(ROOM, "{}");
            let expected = json!({"uid": uid, "room": [1, {"x": "é"}]}).to_string();
            assert_eq!(room, expected, "{kind}");
            let missing = client.request_text("connector.entryHandler.nobody", "{}");
            assert_eq!(missing, r#"{"code":500}"#, "{kind}");
            client.request(9, "connector.entryHandler.constructor", "{}");
            assert_eq!(client.wait_kick(), "attack", "{kind}");
        }
    }
}

#[test]
fn a_delegate_runs_the_handlers_in_pomelo() {
    a_delegate_runs_the_handlers(Dialect::Pomelo);
}

#[test]
fn a_delegate_runs_the_handlers_in_pinus() {
    a_delegate_runs_the_handlers(Dialect::Pinus);
}

/// Sessions of a frontend that its delegates were told of, by uid.
fn told(cluster: &Cluster, frontend: &str) -> Vec<Value> {
    let mut sessions = Vec::new();
    for backend in BACKENDS {
        let mut rpc = Rpc::connect(cluster.rpc_address(backend)).expect("a connection");
        let call = json!({"id": 1, "msg": {
            "namespace": "user", "service": "chatRemote", "method": "notes", "args": ["closed"],
        }});
        let frame = Rpc::frame(call.to_string().as_bytes());
        rpc.send_raw(&frame).expect("the frame is sent");
        let answer = rpc.next_answer().expect("an answer").expect("an answer");
        let notes = answer["resp"][1].as_array().expect("a list");
        sessions.extend(notes.iter().cloned());
    }
    sessions.retain(|session| session["frontendId"] == frontend);
    sessions.sort_by_key(|session| session["uid"].to_string());
    sessions
}

/// tangelo tells a backend once of the end of each client that had sent it a message, with the session.
fn a_delegate_is_told_of_closes(dialect: Dialect) {
    const KNOBS: Knobs = Knobs {
        tangelo: &[
            "--set",
            "delegate=chat",
            "--set",
            "delegate_closed=chatRemote.closed",
        ],
        genuine: &[],
    };
    let cluster = Cluster::shared(dialect);
    for kind in Kind::TANGELOS {
        let mut frontend = Frontend::start(cluster, kind, KNOBS);
        let before = told(cluster, frontend.id()).len();
        let transports = kind.transports().iter().cycle();
        let mut clients = Vec::new();
        for (number, transport) in transports.take(8).enumerate() {
            let mut client = frontend.client(*transport);
            // No namesake in the other runs, which may be under the same id.
            let uid = format!("closing-{}-{before}-{number}", frontend.id());
            let body = json!({"uid": uid, "room": number}).to_string();
            client.request_text(ENTER, body);
            clients.push((uid, client));
        }
        // The delegate is not told of a client that sent it no message.
        let mut other = frontend.client(kind.transports()[0]);
        other.request_text("chat.chatHandler.strResp", "{}");
        drop(other);
        let staying = clients.split_off(6);
        let left: Vec<String> = clients.into_iter().map(|(uid, _)| uid).collect();
        let sessions = wait_for("all closes", || {
            let sessions = told(cluster, frontend.id());
            (sessions.len() >= before + left.len()).then_some(sessions)
        });
        let told_now = |sessions: &[Value], uids: &[String]| {
            let of = |uid: &String| {
                let mut of_uid = sessions.iter().filter(|session| session["uid"] == **uid);
                let session = of_uid.next().expect("the session is told");
                assert_eq!(of_uid.next(), None, "once");
                let number = uid.rsplit('-').next().expect("a number");
                assert_eq!(session["settings"]["room"].to_string(), number);
                assert!(session["id"].is_u64(), "{session}");
            };
            uids.iter().for_each(of);
            assert_eq!(sessions.len(), before + uids.len());
        };
        told_now(&sessions, &left);
        // Those that are there when the frontend stops have closed too.
        frontend.terminate();
        frontend.wait_exit();
        let all: Vec<String> = left
            .into_iter()
            .chain(staying.into_iter().map(|(uid, _)| uid))
            .collect();
        let sessions = wait_for("the last closes", || {
            let sessions = told(cluster, frontend.id());
            (sessions.len() >= before + all.len()).then_some(sessions)
        });
        told_now(&sessions, &all);
    }
}

#[test]
fn a_delegate_is_told_of_closes_in_pomelo() {
    a_delegate_is_told_of_closes(Dialect::Pomelo);
}

#[test]
fn a_delegate_is_told_of_closes_in_pinus() {
    a_delegate_is_told_of_closes(Dialect::Pinus);
}

/// A gateway that tells a delegate at this address of closes.
fn before(delegate: SocketAddr, shards: usize) -> Inside {
    let config = Config {
        delegate: Some("entry".into()),
        delegate_closed: Some("entryRemote.closed".into()),
        servers: vec![Server {
            id: "entry-1".into(),
            server_type: "entry".into(),
            host: delegate.ip().to_string(),
            port: delegate.port(),
            ..Server::default()
        }],
        ..Config::default()
    };
    Inside::start(shards, config, Default::default)
}

const ADDRESS: &str = r#""remoteAddress":{"ip":"127.0.0.1","port":"#;

#[test]
fn a_close_that_cannot_be_told_is_counted() {
    for shards in [1, 4] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let inside = before(listener.local_addr().expect("it is bound"), shards);
        let mut client = Client::tcp(inside.address()).open();
        client.request(1, ENTER, "{}");
        let mut delegate = Callee::accept(&listener);
        let (call, _) = delegate.next_call();
        delegate.answer(call, "[null,{}]");
        client.wait_response(1);
        drop((delegate, listener));
        inside.wait_counter("rpc_links_down", 1);
        drop(client);
        inside.wait_counter("delegate_untold", 1);
    }
}

/// The first message that leaves has the client's address; a session without one is not told.
#[test]
fn a_delegate_hears_of_a_session_with_the_first_message_that_reaches_it() {
    for shards in [1, 4] {
        let address = free_address();
        let inside = before(address, shards);
        let [mut first, mut client, mut other] =
            [(); 3].map(|()| Client::tcp(inside.address()).open());
        // Its message is lost with the first dial, which makes the server unreachable.
        first.request_text(ENTER, "{}");
        for (client, count) in [(&mut client, 1), (&mut other, 2)] {
            // Its shard may hear of the lost link a moment later.
            while inside.counter("messages_undelegated") < count {
                let failed = client.request_text(ENTER, "{}");
                assert_eq!(failed, r#"{"code":500}"#);
            }
            assert_eq!(inside.counter("messages_undelegated"), count);
        }
        drop(other);
        inside.wait_gauge("connections", 2);
        let listener = TcpListener::bind(address).expect("still free");
        let asks = thread::spawn(move || {
            while client.request_text(ENTER, "{}") == r#"{"code":500}"# {}
            client
        });
        let mut delegate = Callee::accept(&listener);
        let (call, text) = delegate.next_call();
        assert!(text.contains(ADDRESS), "{text}");
        delegate.answer(call, "[null,{}]");
        let mut client = asks.join().expect("an answer");
        client.request(1, ENTER, "{}");
        let (call, text) = delegate.next_call();
        assert!(!text.contains("remoteAddress"), "{text}");
        delegate.answer(call, "[null,{}]");
        client.wait_response(1);
        assert_eq!(inside.counter("delegate_untold"), 0);
        drop(client);
        let (_, text) = delegate.next_call();
        assert!(
            text.contains(r#""service":"entryRemote","method":"closed""#),
            "{text}"
        );
    }
}

#[test]
fn the_delegate_has_the_remote_that_is_told_of_closes() {
    for (delegate, remote, expected) in [
        (
            None,
            "entryRemote.closed",
            r#""entryRemote.closed": expected delegate to be set too"#,
        ),
        (
            Some("chat"),
            "closed",
            r#""closed": expected service.method, such as "entryRemote.closed""#,
        ),
    ] {
        let config = Config {
            delegate: delegate.map(Into::into),
            delegate_closed: Some(remote.into()),
            ..Config::default()
        };
        let error = Gateway::new(config).start().err().expect("an error");
        assert_eq!(error.to_string(), format!("delegate_closed = {expected}"));
    }
}

#[test]
fn a_strategy_needs_the_delegate_that_it_names() {
    let config = Config {
        routes: [("chat".to_owned(), "delegate".to_owned())].into(),
        ..Config::default()
    };
    let error = Gateway::new(config).start().err().expect("an error");
    let expected = r#"route.chat = "delegate": expected delegate to be set too"#;
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_delegate_is_another_server_that_can_come() {
    for (delegate, expected) in [
        ("connector", "the type of other servers"),
        ("entry", "the type of a server in the list"),
    ] {
        let config = Config {
            delegate: Some(delegate.into()),
            ..Config::default()
        };
        let error = Gateway::new(config).start().err().expect("an error");
        let text = error.to_string();
        let start = format!("delegate = {delegate:?}: expected {expected}");
        assert!(text.starts_with(&start), "{text}");
    }
}
