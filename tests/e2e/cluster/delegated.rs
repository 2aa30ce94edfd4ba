//! Calls of other servers for remotes that tangelo does not have: the delegate, which the test plays, gets them, and the
//! caller gets its answer as it is.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use tangelo::config::{self, Server};
use tangelo::handler::{RemoteCall, Router};
use tangelo::{Config, config::Rpc as RpcConfig};

use crate::harness::free_address;
use crate::harness::inside::Inside;
use crate::harness::peers::wait_for;
use crate::harness::rpc::{Callee, Rpc};

/// A gateway, its delegate and a server that calls it.
struct Setup {
    inside: Inside,
    caller: Rpc,
    listener: TcpListener,
}

impl Setup {
    fn start(shards: usize, rpc: RpcConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let listen = free_address();
        let config = Config {
            delegate: Some("entry".into()),
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
                ..rpc
            },
            ..Config::default()
        };
        let inside = Inside::start(shards, config, router);
        let caller = Rpc::connect(listen).expect("the port is open");
        Self {
            inside,
            caller,
            listener,
        }
    }

    fn call(&mut self, id: u64, method: &str) {
        let call = format!(
            r#"{{"id":{id},"msg":{{"namespace":"user","serverType":"connector","service":"entryRemote","method":"{method}","args":[1.50,{{"b":"é","a":null}}]}}}}"#
        );
        let sent = self.caller.send_raw(&Rpc::frame(call.as_bytes()));
        sent.expect("the gateway takes calls");
    }

    fn counters<const N: usize>(&self, names: [&str; N]) -> [u64; N] {
        names.map(|name| self.inside.counter(name))
    }
}

fn router() -> Router {
    Router::new().remote("entryRemote.here", async |call: RemoteCall| {
        json!(call.args().len())
    })
}

/// A call of a method as the delegate gets it, up to the name of the process.
fn passed_on(method: &str) -> String {
    format!(
        r#""msg":{{"namespace":"user","serverType":"connector","service":"entryRemote","method":"{method}","args":[1.50,{{"b":"é","a":null}}],"frontendId":"connector-1","process":""#
    )
}

fn error(text: &str) -> String {
    format!(r#"[{{"stack":"Error: {text}\n    at tangelo"}}]"#)
}

#[test]
fn the_delegate_gets_calls_for_remotes_that_are_not_here_and_its_answer_is_unchanged() {
    for shards in [1, 4] {
        let mut setup = Setup::start(shards, RpcConfig::default());
        setup.call(1, "here");
        assert_eq!(setup.caller.next_text(1), "[null,2]");
        let answers = [
            r#"[null,{"b":1,"a":[1.50,"é"]},null,"x"]"#,
            "[]",
            "[null,null]",
            r#"[{"stack":"Error: no\n    at here","code":3}]"#,
            r#"["no",1]"#,
        ];
        let mut delegate = None;
        for (id, answer) in (2..).zip(answers) {
            setup.call(id, "kick");
            let delegate = delegate.get_or_insert_with(|| Callee::accept(&setup.listener));
            let (call, text) = delegate.next_call();
            assert!(text.starts_with(&passed_on("kick")), "{text}");
            delegate.answer(call, answer);
            assert_eq!(setup.caller.next_text(id), answer);
        }
        let counted =
            setup.counters(["remotes_delegated", "remotes_undelegated", "peer_bad_calls"]);
        assert_eq!(counted, [answers.len() as u64, 0, 0]);
    }
}

#[test]
fn a_delegate_that_is_late_wrong_or_gone_costs_its_caller_an_error() {
    for shards in [1, 4] {
        let rpc = RpcConfig {
            timeout: Duration::from_millis(300),
            answer_timeout: Duration::from_secs(60),
            ..RpcConfig::default()
        };
        let mut setup = Setup::start(shards, rpc);
        setup.call(1, "slow");
        let mut delegate = Callee::accept(&setup.listener);
        let (slow, _) = delegate.next_call();
        let late = error("the server did not answer in time");
        assert_eq!(setup.caller.next_text(1), late);
        delegate.answer(slow, "[null,1]");

        setup.call(2, "twice");
        let (twice, _) = delegate.next_call();
        delegate.answer(twice, "[null,2]");
        delegate.answer(twice, "[null,3]");
        assert_eq!(setup.caller.next_text(2), "[null,2]");

        for (id, wrong) in (3..).zip(["{}", "[null,]", "7"]) {
            setup.call(id, "wrong");
            let (call, _) = delegate.next_call();
            delegate.answer(call, wrong);
            let unreadable = error("the answer cannot be read");
            assert_eq!(setup.caller.next_text(id), unreadable, "{wrong}");
        }
        setup.inside.wait_counter("rpc_late_answers", 2);

        // One call waits when the delegate goes, the next one finds nobody.
        setup.call(7, "gone");
        delegate.next_call();
        drop((delegate, std::mem::replace(&mut setup.listener, unused())));
        assert_eq!(
            setup.caller.next_text(7),
            error("the link to the server has ended")
        );
        setup.call(8, "gone");
        assert_eq!(
            setup.caller.next_text(8),
            error("the server is not reachable")
        );
        assert_eq!(setup.counters(["remotes_undelegated"]), [6]);
    }
}

fn unused() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

#[test]
fn calls_for_the_delegate_have_the_bound_of_remotes_and_an_ended_caller_gives_its_place_back() {
    let rpc = RpcConfig {
        calls_in_flight_max: 2,
        ..RpcConfig::default()
    };
    let mut setup = Setup::start(2, rpc);
    setup.call(1, "a");
    setup.call(2, "b");
    setup.call(3, "c");
    assert_eq!(
        setup.caller.next_text(3),
        error("too many calls in progress")
    );
    assert_eq!(setup.counters(["peer_calls_refused"]), [1]);
    let mut delegate = Callee::accept(&setup.listener);
    let first = delegate.next_call().0;
    delegate.answer(first, "[]");
    assert_eq!(setup.caller.next_text(1), "[]");
    setup.call(4, "d");
    let (second, third) = (delegate.next_call().0, delegate.next_call().0);

    // The caller ends before its answers come.
    let address = setup.caller.address();
    setup.caller = Rpc::connect(address).expect("the port is open");
    delegate.answer(second, "[]");
    delegate.answer(third, "[]");
    // The calls to the delegate have the same bound, and the next one comes over another connection.
    wait_for("the place of both calls", || {
        (setup.counters(["rpc_answers"]) == [3]).then_some(())
    });
    setup.call(5, "e");
    let fifth = delegate.next_call().0;
    delegate.answer(fifth, "[null,5]");
    assert_eq!(setup.caller.next_text(5), "[null,5]");
    assert_eq!(
        setup.counters(["remotes_delegated", "remotes_undelegated"]),
        [4, 0]
    );
}
