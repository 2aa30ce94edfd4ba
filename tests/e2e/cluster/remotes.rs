//! Handlers call remotes of backends, and backends call remotes of the frontend: JavaScript's on the
//! genuine connectors, which are the reference, and Rust's in tangelo, on one shard and on four.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tangelo::config;
use tangelo::gateway::load;
use tangelo::handler::{
    Answer, CallError, CallResult, Failure, Outcome, RemoteCall, Request, Results, Router,
};
use tangelo::{Config, config::Server};

use crate::harness::client::Client;
use crate::harness::free_address;
use crate::harness::frontend::{Frontend, Kind, Knobs, Transport};
use crate::harness::inside::Inside;
use crate::harness::pause::pause;
use crate::harness::peers::{Cluster, Connector, Dialect, wait_for};
use crate::harness::process::POLL_INTERVAL;
use crate::harness::rpc::Rpc;

const CALL: &str = "connector.callHandler.call";

/// Does the work of `callHandler.js`, and more where a message says so.
fn call<'a>(request: &Request<'a>) -> Answer<'a> {
    let message = request.message();
    let cluster = request.session.cluster();
    Answer::later(async move {
        let text = |key: &str| message[key].as_str();
        let remote = format!("chatRemote.{}", text("method").expect("a method"));
        let remote = text("remote").unwrap_or(&remote);
        let args = message["args"].as_array().expect("an array");
        let mut call = cluster.call(text("type").unwrap_or("chat"), remote, args);
        if let Some(ms) = message["timeout"].as_u64() {
            call = call.timeout(Duration::from_millis(ms));
        }
        let results: CallResult = match text("to") {
            None if message["first"] == true => call.await.map(|first| vec![first]),
            None => call.results().await,
            Some("*") => call.to_all().await,
            Some(id) => call.to_server(id).results().await,
        };
        let (err, kind) = match &results {
            Ok(_) => (None, None),
            Err(error) => {
                let kind = match error {
                    CallError::NotSent(_) => "not sent",
                    CallError::Lost(_) => "lost",
                    CallError::Remote(_) => "remote",
                };
                (Some(error.to_string()), Some(kind))
            }
        };
        let mut answer = json!({"err": err, "results": results.ok()});
        if message["kind"] == true {
            answer["kind"] = json!(kind);
        }
        Outcome::value(&answer)
    })
}

/// The remotes of `infoRemote.js` without `unknown`, and further ones.
fn router() -> Router {
    Router::new()
        .raw_route(CALL, call)
        .on_close(|session| {
            let (uid, cluster) = (session.uid().map(|uid| uid.text()), session.cluster());
            if let Some(name) = uid {
                let call = cluster.call("chat", "chatRemote.note", &[json!(name), json!("bye")]);
                // Refused when this server has left its cluster before its clients go.
                let _ = call.to_server("chat-1").notify();
            }
        })
        .remote(
            "infoRemote.who",
            async |call: RemoteCall| json!({"name": call.arg(0), "by": call.app().server_id()}),
        )
        .remote("infoRemote.later", async |call: RemoteCall| {
            pause(Duration::from_millis(20)).await;
            call.arg(0).clone()
        })
        .remote("infoRemote.nothing", async |_| {})
        .remote("infoRemote.several", async |_| {
            Results(vec![json!(1), json!(null), json!({"x": 2})])
        })
        .remote("infoRemote.fail", async |call: RemoteCall| {
            let text = call.arg(0).as_str().expect("a text").to_owned();
            Err::<(), _>(Failure::new(text))
        })
        .remote("infoRemote.boom", boom)
        .remote("infoRemote.boomLater", async |_| -> () {
            pause(Duration::from_millis(1)).await;
            panic!("boom, later")
        })
        .remote("infoRemote.add", async |call: RemoteCall| {
            call.cluster()
                .call("chat", "chatRemote.add", call.args())
                .await
        })
        .remote("infoRemote.never", async |_| {
            std::future::pending::<()>().await
        })
}

fn boom(_: RemoteCall) -> std::future::Ready<()> {
    panic!("boom, at once")
}

/// tangelo in this process, a member of a genuine cluster.
pub(crate) struct Member<'a> {
    pub(crate) inside: Inside,
    // Last: the id is free when its gateway is gone.
    pub(crate) connector: Connector<'a>,
}

impl<'a> Member<'a> {
    fn start(cluster: &'a Cluster, shards: usize) -> Self {
        Self::with(cluster, shards, router)
    }

    pub(crate) fn with(
        cluster: &'a Cluster,
        shards: usize,
        router: impl Fn() -> Router + Send + Sync + 'static,
    ) -> Self {
        let connector = cluster.take_connector();
        let id = connector.id();
        let dialect = cluster.dialect().name();
        let remotes = format!("{}/app/servers/connector/remote", cluster.app_dir());
        let remotes = format!("cluster.remoter_paths=[{remotes:?}]");
        let args = [
            "tangelo",
            "--app-dir",
            cluster.app_dir(),
            "--id",
            id,
            "--dialect",
            dialect,
            "--set",
            &remotes,
        ];
        let config = load::from_args(args.map(Into::into)).expect("a configuration");
        let inside = Inside::start(shards, config, router);
        cluster.wait_until_known(id);
        Self { inside, connector }
    }
}

fn ask(client: &mut Client, route: &str, body: &Value) -> Value {
    let text = client.request_text(route, body.to_string());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Steps with each kind of frontend; the genuine one first.
fn with_each(dialect: Dialect, steps: impl Fn(&str, bool, &mut dyn FnMut() -> Client)) {
    let cluster = Cluster::shared(dialect);
    let genuine = Frontend::start(cluster, Kind::Genuine, Knobs::default());
    steps(genuine.id(), false, &mut || {
        genuine.client(Transport::WebSocket)
    });
    drop(genuine);
    for shards in [1, 4] {
        let member = Member::start(cluster, shards);
        let mut clients = member.inside.clients();
        while !clients.is_empty() {
            let mut next = || clients.pop().expect("one more");
            steps(member.connector.id(), true, &mut next);
        }
    }
}

fn handlers_call_backends(dialect: Dialect) {
    with_each(dialect, |_, is_tangelo, client| {
        let mut client = client();
        let mut call = |method: &str, args: Value, to: Value| {
            let body = json!({"method": method, "args": args, "to": to});
            ask(&mut client, CALL, &body)
        };
        let ok = |results: Value| json!({"err": null, "results": results});
        let err = |text: &str| json!({"err": text, "results": null});
        assert_eq!(call("add", json!([1, 2.5]), json!(null)), ok(json!([3.5])));
        let joined = call("add", json!(["é\"", {"x": 1}]), json!(null));
        assert_eq!(joined, ok(json!(["é\"[object Object]"])));
        assert_eq!(
            call("slow", json!([20, [1]]), json!(null)),
            ok(json!([[1]]))
        );
        // Without a uid: the first of the list.
        assert_eq!(
            call("whoami", json!([]), json!(null)),
            ok(json!(["chat-1"]))
        );
        for id in ["chat-1", "chat-2"] {
            assert_eq!(call("whoami", json!([]), json!(id)), ok(json!([id])));
        }
        let (nothing, several) = match dialect {
            Dialect::Pomelo => (json!([]), Some(json!([1, "b", null]))),
            Dialect::Pinus => (json!([null]), None),
        };
        assert_eq!(call("nothing", json!([]), json!(null)), ok(nothing));
        if let Some(several) = several {
            assert_eq!(call("several", json!([1, "b"]), json!(null)), ok(several));
        }
        assert_eq!(
            call("errOnly", json!([]), json!(null)),
            err("Error: remote boom")
        );
        assert_eq!(call("errStr", json!([]), json!(null)), err("just a string"));
        assert_eq!(
            call("throwErr", json!([]), json!(null)),
            err("Error: remote throw")
        );

        // To all: a Pomelo frontend is told only that it went well.
        let all = call("whoami", json!([]), json!("*"));
        let ids = match (dialect, is_tangelo) {
            (Dialect::Pomelo, false) => json!([]),
            _ => json!(["chat-1", "chat-2"]),
        };
        assert_eq!(all, ok(ids));
        for id in ["chat-1", "chat-2"] {
            let failed = call("errOn", json!([id]), json!("*"));
            assert_eq!(failed, err(&format!("Error: boom on {id}")));
        }

        // A call goes where the session's messages go.
        for uid in ["a", "bob", "10001"] {
            ask(&mut client, "chat.chatHandler.bind", &json!({"uid": uid}));
            let forwarded = ask(&mut client, "chat.chatHandler.whoami", &json!({}));
            assert_eq!(forwarded["uid"], uid);
            let called = ask(&mut client, CALL, &json!({"method": "whoami", "args": []}));
            assert_eq!(called, ok(json!([forwarded["server"]])), "{uid}");
            ask(&mut client, "chat.chatHandler.unbind", &json!({"uid": uid}));
        }

        if !is_tangelo {
            // It has no stubs of what is not there, and no answers from nobody.
            return;
        }
        let first = json!({"method": "nothing", "args": [], "first": true});
        assert_eq!(ask(&mut client, CALL, &first), ok(json!([null])));
        for (change, kind, text) in [
            (
                json!({"remote": "chatRemote.nosuch"}),
                "remote",
                "Error: no such method:nosuch",
            ),
            (
                json!({"remote": "nosuch.add"}),
                "remote",
                "Error: no such service:nosuch",
            ),
            (
                json!({"remote": "add"}),
                "not sent",
                "remote \"add\" is not of the form service.method",
            ),
            (
                json!({"type": "nosuch"}),
                "not sent",
                "no server of this type",
            ),
            (
                json!({"type": "nosuch", "to": "*"}),
                "not sent",
                "no server of this type",
            ),
            (
                json!({"to": "chat-9"}),
                "not sent",
                "no server \"chat-9\" of type \"chat\"",
            ),
            (
                json!({"type": "connector", "to": "chat-1"}),
                "not sent",
                "no server \"chat-1\" of type \"connector\"",
            ),
            (
                json!({"method": "never", "timeout": 100}),
                "lost",
                "the server did not answer in time",
            ),
        ] {
            let mut body = json!({"method": "add", "args": [1, 2], "kind": true});
            let members = change.as_object().expect("an object");
            body.as_object_mut()
                .expect("an object")
                .extend(members.clone());
            let expected = json!({"err": text, "results": null, "kind": kind});
            assert_eq!(ask(&mut client, CALL, &body), expected, "{change}");
        }
    });
}

fn backends_call_the_frontend(dialect: Dialect) {
    with_each(dialect, |id, is_tangelo, client| {
        let mut client = client();
        let mut user = |method: &str, args: Value| {
            let body = json!({"method": method, "args": args});
            ask(&mut client, "chat.chatHandler.remoteUser", &body)
        };
        let ok = |values: Value| json!({"err": null, "values": values});
        let err = |text: &str| json!({"err": format!("Error: {text}"), "values": []});
        let who = json!([{"name": "alice", "by": id}]);
        assert_eq!(user("who", json!(["alice"])), ok(who));
        assert_eq!(
            user("later", json!([{"x": [1, "é"]}])),
            ok(json!([{"x": [1, "é"]}]))
        );
        let nothing = match dialect {
            Dialect::Pomelo => json!([]),
            Dialect::Pinus => json!([null]),
        };
        assert_eq!(user("nothing", json!([])), ok(nothing));
        if dialect == Dialect::Pomelo {
            assert_eq!(user("several", json!([])), ok(json!([1, null, {"x": 2}])));
        }
        assert_eq!(
            user("fail", json!(["no, \"thanks\""])),
            err("no, \"thanks\"")
        );
        assert_eq!(user("add", json!([1, 2])), ok(json!([3])));
        let panicked = if is_tangelo {
            "the remote panicked"
        } else {
            "boom"
        };
        assert_eq!(user("boom", json!([])), err(panicked));
        if is_tangelo {
            assert_eq!(user("unknown", json!([])), err("no such method:unknown"));
        }
        for (service, method, text) in [
            ("nosuch", "who", "Error: no such service:nosuch"),
            ("infoRemote", "nosuch", "Error: no such method:nosuch"),
        ] {
            let raw = json!({
                "namespace": "user", "service": service, "method": method, "args": [],
            });
            let answer = ask(&mut client, "chat.chatHandler.remoteRaw", &raw);
            assert_eq!(answer["err"], text);
        }
    });
}

/// A backend dies while a call waits for it: an error at once. And what a handler calls when its
/// session has closed still arrives.
fn calls_end_with_their_server_and_not_with_their_session(dialect: Dialect) {
    for shards in [1, 4] {
        let cluster = Cluster::start(dialect);
        let member = Member::start(&cluster, shards);
        let mut clients = member.inside.clients();

        for (number, client) in clients.iter_mut().enumerate() {
            let uid = format!("gone-{number}");
            ask(client, "chat.chatHandler.bind", &json!({"uid": uid}));
        }
        let gone = clients.len() - 1;
        drop(clients.split_off(1));
        let client = &mut clients[0];
        for number in 1..=gone {
            let notes =
                json!({"method": "notes", "args": [format!("gone-{number}")], "to": "chat-1"});
            wait_for("the call of a session that has closed", || {
                let answer = ask(client, CALL, &notes);
                (answer["results"] == json!([["bye"]])).then_some(())
            });
        }

        let to_first = json!({"method": "never", "args": [], "to": "chat-1", "kind": true});
        client.request(7, CALL, to_first.to_string());
        let routed = json!({"method": "never", "args": [], "to": "*", "kind": true});
        client.request(8, CALL, routed.to_string());
        thread::sleep(10 * POLL_INTERVAL);
        assert!(!client.has_response(7) && !client.has_response(8));
        cluster.kill("chat-1");
        let lost =
            json!({"err": "the link to the server has ended", "results": null, "kind": "lost"});
        for id in [7, 8] {
            let answer: Value = serde_json::from_slice(&client.wait_response(id)).expect("JSON");
            assert_eq!(answer, lost);
        }
        cluster.wait_until_forgotten("chat-1");
        // The session's uid may lead to either: there is one left.
        let whoami = json!({"method": "whoami", "args": []});
        wait_for("calls to go to the server that is left", || {
            let answer = ask(client, CALL, &whoami);
            (answer["results"] == json!(["chat-2"])).then_some(())
        });
        let gone = json!({"method": "whoami", "args": [], "to": "chat-1", "kind": true});
        assert_eq!(ask(client, CALL, &gone)["kind"], "not sent");
        cluster.kill("chat-2");
        let all = json!({"method": "whoami", "args": [], "to": "*"});
        wait_for("a type whose servers have all left", || {
            let answer = ask(client, CALL, &all);
            (answer == json!({"err": null, "results": []})).then_some(())
        });
    }
}

macro_rules! in_both_dialects {
    ($($promise:ident: $in_pomelo:ident, $in_pinus:ident,)*) => {$(
        #[test]
        fn $in_pomelo() {
            $promise(Dialect::Pomelo);
        }

        #[test]
        fn $in_pinus() {
            $promise(Dialect::Pinus);
        }
    )*};
}

in_both_dialects! {
    handlers_call_backends: handlers_call_pomelo_backends, handlers_call_pinus_backends,
    backends_call_the_frontend: pomelo_backends_call_the_frontend, pinus_backends_call_the_frontend,
    calls_end_with_their_server_and_not_with_their_session:
        calls_end_with_their_pomelo_server, calls_end_with_their_pinus_server,
}

/// A gateway without a cluster whose peers are the test: one that calls, and chat-1 where it says.
fn alone(config: Config, chat: SocketAddr, shards: usize) -> (Inside, Rpc) {
    let listen = free_address();
    let config = Config {
        servers: vec![Server {
            id: "chat-1".into(),
            server_type: "chat".into(),
            host: chat.ip().to_string(),
            port: chat.port(),
            ..Server::default()
        }],
        rpc: config::Rpc {
            listen: Some(listen),
            allow: vec!["cluster".into()],
            ..config.rpc
        },
        ..config
    };
    let inside = Inside::start(shards, config, router);
    let rpc = Rpc::connect(listen).expect("the port is open");
    (inside, rpc)
}

fn send(rpc: &mut Rpc, id: u64, method: &str, args: &Value) {
    let call = json!({"id": id, "msg": {
        "namespace": "user", "service": "infoRemote", "method": method, "args": args,
    }});
    let sent = rpc.send_raw(&Rpc::frame(call.to_string().as_bytes()));
    sent.expect("the gateway takes calls");
}

fn next(rpc: &mut Rpc) -> Value {
    rpc.next_answer().expect("JSON").expect("an answer")
}

fn error(id: u64, text: &str) -> Value {
    json!({"id": id, "resp": [{"stack": format!("Error: {text}\n    at tangelo")}]})
}

#[test]
fn a_remote_that_never_answers_costs_its_place_until_its_deadline() {
    let mut config = Config::default();
    config.rpc.timeout = Duration::from_millis(300);
    config.rpc.calls_in_flight_max = 2;
    let (inside, mut peer) = alone(config, free_address(), 2);
    for id in 0..2 {
        send(&mut peer, id, "never", &json!([]));
    }
    send(&mut peer, 2, "who", &json!([]));
    assert_eq!(next(&mut peer), error(2, "too many calls in progress"));
    for id in 0..2 {
        assert_eq!(
            next(&mut peer),
            error(id, "the remote did not answer in time")
        );
    }
    for id in 3..13 {
        send(&mut peer, id, "who", &json!(["alice"]));
        let who = json!({"name": "alice", "by": "connector-1"});
        assert_eq!(next(&mut peer), json!({"id": id, "resp": [null, who]}));
    }
    let counted = ["remote_timeouts", "peer_calls_refused"].map(|name| inside.counter(name));
    assert_eq!(counted, [2, 1]);
}

#[test]
fn a_remote_that_panics_costs_its_call_only() {
    let (inside, mut peer) = alone(Config::default(), free_address(), 1);
    for (id, method) in (0..).zip(["boom", "boomLater", "boom"]) {
        send(&mut peer, id, method, &json!([]));
        assert_eq!(next(&mut peer), error(id, "the remote panicked"));
    }
    // Answers leave when they are ready.
    send(&mut peer, 4, "later", &json!([1]));
    send(&mut peer, 5, "nothing", &json!([]));
    assert_eq!(next(&mut peer), json!({"id": 5, "resp": []}));
    assert_eq!(next(&mut peer), json!({"id": 4, "resp": [null, 1]}));
    send(&mut peer, 6, "who", &json!({"not": "an array"}));
    assert_eq!(next(&mut peer), error(6, "args is not an array"));
    assert_eq!(inside.counter("handler_panics"), 3);
}

fn ask_kind(client: &mut Client, method: &str, args: Value) -> (String, String) {
    let body = json!({"method": method, "args": args, "kind": true, "timeout": 200});
    let answer = ask(client, CALL, &body);
    let text = |key: &str| answer[key].as_str().expect("an error").to_owned();
    (text("kind"), text("err"))
}

#[test]
fn a_call_that_failed_is_never_made_later() {
    for shards in [1, 4] {
        // Nobody listens where chat-1 should be.
        let chat = free_address();
        let (inside, _) = alone(Config::default(), chat, shards);
        let mut clients = inside.clients();
        for client in &mut clients {
            for _ in 0..3 {
                let (kind, err) = ask_kind(client, "note", json!(["early"]));
                let down = ("not sent", "the server is not reachable");
                let ended = ("lost", "the link to the server has ended");
                assert!([down, ended].contains(&(&*kind, &*err)), "{kind}: {err}");
            }
        }
        let chat = TcpListener::bind(chat).expect("still free");
        let reader = thread::spawn(move || {
            let (mut link, _) = chat.accept().expect("a link");
            let (mut seen, mut part) = (Vec::new(), [0; 4096]);
            while !seen.windows(4).any(|bytes| bytes == b"late") {
                let read = link.read(&mut part).expect("bytes");
                assert!(
                    read > 0,
                    "the connection ended before a call: {}",
                    seen.escape_ascii()
                );
                seen.extend_from_slice(&part[..read]);
            }
            String::from_utf8_lossy(&seen).into_owned()
        });
        while !reader.is_finished() {
            for client in &mut clients {
                ask_kind(client, "note", json!(["late"]));
            }
        }
        let seen = reader.join().expect("a call");
        assert!(!seen.contains("early"), "{seen}");
        let call = r#""msg":{"namespace":"user","serverType":"chat","service":"chatRemote","method":"note","args":["late"]}}"#;
        assert!(seen.contains(call), "{seen}");
    }
}

#[test]
fn calls_have_the_bounds_of_forwards() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let chat = silent.local_addr().expect("the listener is bound");
    let full = ("not sent".to_owned(), "too many calls in flight".to_owned());
    let late = (
        "lost".to_owned(),
        "the server did not answer in time".to_owned(),
    );
    let mut patient = Config::default();
    patient.rpc.answer_timeout = Duration::from_secs(600);
    let mut of_session = patient.clone();
    // A request is one in flight, and so is its call.
    of_session.client.calls_in_flight_max = 3;
    let mut of_server = patient;
    of_server.rpc.calls_in_flight_max = 1;
    for (config, counter) in [
        (of_session, "rpc_session_full"),
        (of_server, "rpc_peer_full"),
    ] {
        let (inside, _) = alone(config, chat, 1);
        let mut client = Client::tcp(inside.address()).open();
        for round in 1..=2 {
            let body = json!({"method": "add", "args": [], "timeout": 1500});
            client.request(100 + round, CALL, body.to_string());
            assert_eq!(ask_kind(&mut client, "add", json!([])), full);
            assert_eq!(inside.counter(counter), u64::from(round));
            client.wait_response(100 + round);
            assert_eq!(ask_kind(&mut client, "add", json!([])), late);
        }
        assert_eq!(inside.counter("rpc_timeouts"), 4);
    }
}
