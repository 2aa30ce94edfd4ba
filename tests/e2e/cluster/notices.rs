//! A delegate with the package is told of each change of a session, and of all sessions after it may have missed one.
//! The test plays the delegate.

use std::net::TcpListener;

use serde_json::{Value, json};
use tangelo::config::{self, Server};
use tangelo::handler::{Json, Reply, Router, Session};
use tangelo::{Config, Gateway};

use crate::harness::client::Client;
use crate::harness::free_address;
use crate::harness::inside::Inside;
use crate::harness::rpc::{Callee, Rpc};

/// A gateway, its delegate, and another server.
struct Setup {
    inside: Inside,
    listener: TcpListener,
    delegate: Callee,
    other: Rpc,
}

impl Setup {
    fn start(shards: usize, calls_in_flight_max: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let listen = free_address();
        let config = Config {
            delegate: Some("entry".into()),
            delegate_notices: true,
            servers: vec![Server {
                id: "entry-1".into(),
                server_type: "entry".into(),
                host: address.ip().to_string(),
                port: address.port(),
                ..Server::default()
            }],
            rpc: config::Rpc {
                listen: Some(listen),
                allow: vec!["cluster".into()],
                calls_in_flight_max,
                ..config::Rpc::default()
            },
            ..Config::default()
        };
        let inside = Inside::start(shards, config, router);
        // Nobody calls the delegate, and it is dialled.
        let delegate = Callee::accept(&listener);
        let other = Rpc::connect(listen).expect("the port is open");
        Self {
            inside,
            listener,
            delegate,
            other,
        }
    }

    /// A client whose handler here has bound it, and its session id.
    fn login(&self, uid: &str) -> (Client, u64) {
        let mut client = Client::tcp(self.inside.address()).open();
        let route = "connector.entryHandler.login";
        let sid = client.request_text(route, json!({"uid": uid}).to_string());
        (client, sid.parse().expect("an id"))
    }

    /// Takes a notice and answers it: the method and the arguments.
    fn notice(&mut self) -> (String, Value) {
        let (id, text) = self.delegate.next_call();
        self.delegate.answer(id, "[null]");
        read(&text)
    }

    /// The state in the next notice.
    fn state(&mut self, method: &str) -> Value {
        let (called, mut args) = self.notice();
        assert_eq!(called, method, "{args}");
        args[0].take()
    }

    /// Takes the lists of all shards; returns the uids in them and the number of calls.
    fn lists(&mut self, shards: usize) -> (Vec<String>, usize) {
        let (mut uids, mut calls, mut complete) = (Vec::new(), 0, 0);
        let mut begun = vec![false; shards];
        while complete < shards {
            let (method, args) = self.notice();
            assert_eq!(method, "sessions", "{args}");
            let head = &args[0];
            let shard = head["shard"].as_u64().expect("a number") as usize;
            assert_eq!(head["shards"], shards);
            assert_eq!(head["first"], !begun[shard], "{head}");
            begun[shard] = true;
            for state in args[1].as_array().expect("a list") {
                assert_eq!(state["id"].as_u64().expect("an id") as usize % 256, shard);
                assert_eq!(state["remoteAddress"]["ip"], "127.0.0.1");
                uids.push(state["uid"].as_str().unwrap_or("none").to_owned());
            }
            calls += 1;
            complete += usize::from(head["last"] == true);
        }
        uids.sort();
        (uids, calls)
    }

    /// A change by another server, under a name.
    fn change(&mut self, id: u64, method: &str, args: Value, name: &str) {
        let mut call = Rpc::request(id, "sessionRemote", method, &args);
        call["msg"]["change"] = json!(name);
        let sent = self
            .other
            .send_raw(&Rpc::frame(call.to_string().as_bytes()));
        sent.expect("the gateway takes calls");
        assert_eq!(self.other.next_text(id), "[]");
    }
}

fn router() -> Router {
    Router::new().route("entryHandler.login", login)
}

async fn login(mut session: Session, Json(body): Json<Value>) -> Reply<Json<u64>> {
    session
        .bind(body["uid"].as_str().unwrap_or_default())
        .await?;
    Ok(Json(session.id().get()))
}

/// The name of the process in a call.
fn process(text: &str) -> String {
    let call: Value = serde_json::from_str(&format!("{{{text}")).expect("JSON");
    assert_eq!(call["msg"]["frontendId"], "connector-1");
    call["msg"]["process"].as_str().expect("a text").to_owned()
}

fn read(text: &str) -> (String, Value) {
    let call: Value = serde_json::from_str(&format!("{{{text}")).expect("JSON");
    let message = &call["msg"];
    let method = message["method"].as_str().expect("a text").to_owned();
    let form = json!({
        "namespace": "user", "serverType": "connector", "service": "tangelo", "method": method,
        "args": message["args"], "frontendId": "connector-1", "process": process(text),
    });
    assert_eq!(*message, form);
    (method, message["args"].clone())
}

#[test]
fn each_call_names_the_process_also_where_two_have_the_same_id() {
    let names = [1, 4].map(|shards| {
        let mut setup = Setup::start(shards, 1000);
        let mut client = Client::tcp(setup.inside.address()).open();
        client.request(1, "connector.entryHandler.other", "{}");
        let calls = (0..=shards).map(|_| {
            let (id, text) = setup.delegate.next_call();
            setup.delegate.answer(id, "[null]");
            process(&text)
        });
        let calls: Vec<String> = calls.collect();
        assert!(calls.iter().all(|name| *name == calls[0]), "{calls:?}");
        calls[0].clone()
    });
    let pid = format!("{}.", std::process::id());
    assert!(names.iter().all(|name| name.starts_with(&pid)), "{names:?}");
    assert_ne!(names[0], names[1]);
}

#[test]
fn a_delegate_gets_the_state_of_a_session_after_each_change_and_its_end() {
    for shards in [1, 4] {
        let mut setup = Setup::start(shards, 1000);
        assert_eq!(setup.lists(shards), (vec![], shards));
        let (client, sid) = setup.login("ann");
        let mut state = setup.state("changed");
        let port = state["remoteAddress"]["port"].take();
        assert!(port.as_u64() > Some(0), "{port}");
        let address = json!({"ip": "127.0.0.1", "port": null});
        let bound = json!({
            "id": sid, "frontendId": "connector-1", "uid": "ann", "settings": {}, "own": true,
            "remoteAddress": address,
        });
        assert_eq!(state, bound);

        setup.change(1, "push", json!([sid, "room", 7]), "me.1");
        let state = setup.state("changed");
        assert_eq!(state["settings"], json!({"room": 7}));
        assert_eq!(state["change"], "me.1");
        setup.change(2, "pushAll", json!([sid, {"room": 8}]), &"x".repeat(63));
        let state = setup.state("changed");
        assert_eq!(
            (&state["settings"], &state["change"]),
            (&json!({"room": 8}), &json!(null))
        );
        setup.change(3, "unbind", json!([sid, "ann"]), "me.3");
        let state = setup.state("changed");
        assert_eq!(
            (&state["uid"], &state["change"]),
            (&json!(null), &json!("me.3"))
        );
        // A bind that changes nothing is told to the one who waits for it.
        for id in [4, 5] {
            setup.change(id, "bind", json!([sid, 5]), &format!("me.{id}"));
            let state = setup.state("changed");
            assert_eq!(
                (&state["uid"], &state["change"]),
                (&json!(5), &json!(format!("me.{id}")))
            );
        }
        drop(client);
        let end = json!({"id": sid, "frontendId": "connector-1", "uid": 5, "settings": {"room": 8}, "own": true});
        assert_eq!(setup.state("closed"), end);
        assert_eq!(setup.inside.counter("delegate_untold"), 0);
    }
}

#[test]
fn a_session_that_no_delegate_knows_costs_no_notice() {
    for shards in [1, 4] {
        let mut setup = Setup::start(shards, 1000);
        setup.lists(shards);
        let (client, sid) = setup.login("ann");
        setup.state("changed");
        // Ids of the same shard differ in their slots.
        let quiet = Client::tcp(setup.inside.address()).open();
        let calls = setup.inside.counter("rpc_calls");
        for slot in 0..4 {
            for shard in 0..shards as u64 {
                let other = (1 << 28) + (slot << 8) + shard;
                if other != sid {
                    let args = json!([other, "x", 1]);
                    let _ = setup.other.call("sessionRemote", "push", &args);
                }
            }
        }
        assert_eq!(setup.inside.counter("rpc_calls"), calls);
        drop((client, quiet));
        setup.state("closed");
    }
}

#[test]
fn each_new_link_brings_all_sessions() {
    const CLIENTS: usize = 150;
    for shards in [1, 4] {
        let mut setup = Setup::start(shards, 1000);
        setup.lists(shards);
        let mut clients = Vec::new();
        let mut uids: Vec<String> = (0..CLIENTS)
            .map(|number| format!("user-{number}"))
            .collect();
        for uid in &uids {
            clients.push(setup.login(uid));
            assert_eq!(setup.state("changed")["uid"], **uid);
        }
        // Unbound, and known to the delegate by its message.
        let mut unbound = Client::tcp(setup.inside.address()).open();
        unbound.request(1, "connector.entryHandler.other", "{}");
        let (id, text) = setup.delegate.next_call();
        assert!(text.contains("forwardMessage"), "{text}");
        setup.delegate.answer(id, "[null,{}]");
        unbound.wait_response(1);
        uids.push("none".to_owned());
        uids.sort();
        setup.delegate = {
            drop(setup.delegate);
            Callee::accept(&setup.listener)
        };
        let (listed, calls) = setup.lists(shards);
        assert_eq!(listed, uids);
        assert!(
            calls > shards || shards > 1,
            "{CLIENTS} sessions in one call"
        );
        setup
            .inside
            .wait_counter("delegate_lists", 2 * shards as u64);
    }
}

/// A shard without a link and without clients sleeps without ticks.
#[test]
fn a_list_that_was_cut_off_comes_again_from_a_shard_where_nothing_else_happens() {
    let mut setup = Setup::start(2, 1000);
    while setup.delegate.next_call().1.contains("\"shard\":0") {}
    setup.delegate = {
        drop(setup.delegate);
        Callee::accept(&setup.listener)
    };
    assert_eq!(setup.lists(2), (vec![], 2));
}

#[test]
fn a_notice_that_was_not_sent_brings_the_list_again() {
    for shards in [1, 4] {
        let mut setup = Setup::start(shards, 2);
        setup.lists(shards);
        let (_client, sid) = setup.login("ann");
        setup.state("changed");
        setup.change(1, "push", json!([sid, "n", 1]), "");
        setup.change(2, "push", json!([sid, "n", 2]), "");
        let waiting = [(); 2].map(|()| setup.delegate.next_call().0);
        setup.change(3, "push", json!([sid, "n", 3]), "");
        assert!(setup.inside.counter("delegate_untold") > 0);
        for id in waiting {
            setup.delegate.answer(id, "[null]");
        }
        let (method, args) = setup.notice();
        assert_eq!(
            (&*method, &args[1][0]["settings"]),
            ("sessions", &json!({"n": 3}))
        );
        setup
            .inside
            .wait_counter("delegate_lists", shards as u64 + 1);
    }
}

#[test]
fn a_delegate_that_refuses_the_list_is_not_asked_again_on_that_link() {
    let mut setup = Setup::start(1, 1000);
    let (id, text) = setup.delegate.next_call();
    assert_eq!(read(&text).0, "sessions");
    let refusal = r#"[{"stack":"Error: no such service: tangelo"}]"#;
    setup.delegate.answer(id, refusal);
    setup.inside.wait_counter("delegate_untold", 1);
    let _client = setup.login("ann");
    assert_eq!(setup.state("changed")["uid"], "ann");
    assert_eq!(setup.inside.counter("delegate_lists"), 0);
}

#[test]
fn notices_need_a_delegate_and_replace_the_remote_for_closes() {
    let entry = || Some("entry".to_owned());
    for (delegate, closed, notices, expected) in [
        (
            None,
            None,
            true,
            "delegate_notices = true: expected delegate to be set too",
        ),
        (
            entry(),
            Some("a.closed"),
            true,
            r#"delegate_closed = "a.closed": expected delegate_notices = true in its place"#,
        ),
        (
            entry(),
            Some("tangelo.closed"),
            false,
            r#"delegate_closed = "tangelo.closed": expected delegate_notices = true in its place"#,
        ),
    ] {
        let config = Config {
            delegate,
            delegate_closed: closed.map(Into::into),
            delegate_notices: notices,
            ..Config::default()
        };
        let error = Gateway::new(config).start().err().expect("an error");
        assert_eq!(error.to_string(), expected);
    }
}
