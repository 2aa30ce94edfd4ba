//! Several push schedulers, and who chooses among them; the broadcast filter. On one shard and on
//! four, over both transports, for handlers and for backends.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tangelo::Config;
use tangelo::config::{self, NamedScheduler, Scheduler};
use tangelo::handler::{Answer, BroadcastOptions, Failure, Outcome, Request, Router, Sending};
use tangelo::session::Uid;

use crate::harness::client::{Client, Message};
use crate::harness::free_address;
use crate::harness::inside::Inside;
use crate::harness::rpc::Rpc;

/// Sends what it is asked to: `["push" | "all" | "bound", route, body, filterParam]`, in order, and
/// answers what came of each.
const SEND: &str = "connector.testHandler.send";
const BIND: &str = "connector.testHandler.bind";

fn router() -> Router {
    Router::new()
        .raw_route(SEND, send)
        .raw_route(BIND, |request| {
            let mut session = request.session.clone();
            let uid = request.message()["uid"].as_str().map(Uid::from_text);
            Answer::later(async move {
                let bound = session.bind(uid.expect("a text")).await;
                Outcome::value(&json!({"error": bound.err().map(|Failure(text)| text)}))
            })
        })
}

fn send<'a>(request: &Request<'a>) -> Answer<'a> {
    let orders: Value = serde_json::from_slice(request.body).expect("a client's body is JSON");
    let outcomes = orders.as_array().expect("a list").iter().map(|order| {
        let route = order[1].as_str().expect("a route");
        let body = order[2].to_string();
        let outcome = if order[0] == "push" {
            request.session.push_raw(route, body.as_bytes())
        } else {
            let options = BroadcastOptions {
                bound_only: order[0] == "bound",
                filter_param: order[3].clone(),
            };
            let sent = request
                .session
                .app()
                .broadcast_with(route, &order[2], options);
            sent.map(|()| true)
        };
        outcome.map_or_else(|Failure(text)| json!(text), Value::from)
    });
    Answer::now(Outcome::value(&outcomes.collect::<Value>()))
}

fn scheduler(id: &str, scheduler: Scheduler, interval: Duration) -> NamedScheduler {
    NamedScheduler {
        id: id.into(),
        scheduler,
        flush_interval: interval,
    }
}

/// Beside the direct one: `slow`, `slower` and `late`, which a test does not wait for.
fn config(select: &[&str]) -> Config {
    let buffer = |id, ms| scheduler(id, Scheduler::Buffer, Duration::from_millis(ms));
    Config {
        push: config::Push {
            schedulers: vec![
                buffer("slow", 50),
                buffer("slower", 90),
                buffer("late", 10_000),
                scheduler("now", Scheduler::Direct, Duration::from_millis(50)),
            ],
            select: select.iter().map(|rule| (*rule).into()).collect(),
            ..config::Push::default()
        },
        ..Config::default()
    }
}

fn push(route: &str, body: &str) -> Message {
    Message::Push {
        route: route.into(),
        body: body.into(),
    }
}

fn response(id: u32, body: &str) -> Message {
    Message::Response {
        id,
        body: body.into(),
    }
}

#[test]
fn rules_say_which_scheduler_takes_what() {
    let config = config(&["onMoveBack now", "onMove* slow", "chat.* slower"]);
    Inside::on_one_shard_and_on_four(&config, router, |inside| {
        for client in &mut inside.clients() {
            let orders = json!([
                ["push", "chat.a", 1],
                ["push", "onMove", 2],
                ["push", "onMoveBack", 3],
                ["push", "onMoveOn", 4],
                ["push", "else", 5],
            ]);
            client.request(1, SEND, orders.to_string());
            // In one turn, so that no interval is over before the direct ones are on their way.
            for expected in [
                push("onMoveBack", "3"),
                push("else", "5"),
                response(1, "[true,true,true,true,true]"),
            ] {
                assert_eq!(client.next_message(), expected);
            }
            let mut rest: Vec<Message> = (0..3).map(|_| client.next_message()).collect();
            // Which interval is over first is open.
            let chat = rest
                .iter()
                .position(|message| *message == push("chat.a", "1"));
            rest.remove(chat.expect("the push arrives"));
            assert_eq!(rest, [push("onMove", "2"), push("onMoveOn", "4")]);
        }
    });
}

#[test]
fn a_buffer_scheduler_sends_its_own_as_one_websocket_message() {
    let config = config(&["response slow", "onMove slow", "onChat slower"]);
    Inside::on_one_shard_and_on_four(&config, router, |inside| {
        let mut client = Client::websocket(inside.address()).open();
        let orders = json!([
            ["push", "onMove", 1],
            ["push", "onChat", 2],
            ["push", "onMove", 3]
        ]);
        client.request(1, SEND, orders.to_string());
        let batches = [client.next_batch().len(), client.next_batch().len()];
        assert!(batches == [3, 1] || batches == [1, 3], "{batches:?}");
    });
}

#[test]
fn each_scheduler_keeps_its_order() {
    const ROUNDS: u32 = 100;
    let routes = ["direct", "slow", "slower"];
    let config = config(&["slow slow", "slower slower", "response slower"]);
    Inside::on_one_shard_and_on_four(&config, router, |inside| {
        let mut clients = inside.clients();
        for round in 1..=ROUNDS {
            let orders: Value = routes
                .iter()
                .map(|route| json!(["push", route, round]))
                .collect();
            for client in &mut clients {
                client.request(round, SEND, orders.to_string());
            }
        }
        for client in &mut clients {
            let mut seen = [0; 4];
            for _ in 0..4 * ROUNDS {
                let (at, n) = match client.next_message() {
                    Message::Response { id, .. } => (3, id),
                    Message::Push { route, body } => {
                        let at = routes.iter().position(|known| *known == route);
                        let n = String::from_utf8(body).expect("a number is UTF-8");
                        (at.expect("a known route"), n.parse().expect("a number"))
                    }
                };
                seen[at] += 1;
                assert_eq!(n, seen[at]);
            }
            assert_eq!(seen, [ROUNDS; 4]);
        }
    });
}

#[test]
fn a_broadcast_keeps_its_scheduler_on_every_shard() {
    let config = config(&["onSlow slow"]);
    Inside::on_one_shard_and_on_four(&config, router, |inside| {
        let mut clients = inside.clients();
        let orders = json!([
            ["all", "onSlow", 1],
            ["all", "onNow", 2],
            ["all", "onSlow", 3]
        ]);
        clients[0].request(1, SEND, orders.to_string());
        assert_eq!(clients[0].wait_response(1), b"[true,true,true]");
        for client in &mut clients {
            for (route, body) in [("onNow", "2"), ("onSlow", "1"), ("onSlow", "3")] {
                assert_eq!(client.next_push(), (route.into(), body.into()));
            }
        }
    });
}

#[test]
fn the_bound_of_a_slow_client_counts_what_all_schedulers_hold() {
    let mut config = config(&["a late", "b slower"]);
    config.client.outbox_bytes_max = 1 << 10;
    Inside::on_one_shard_and_on_four(&config, router, |inside| {
        for client in &mut inside.clients() {
            let text = "x".repeat(600);
            let orders = json!([
                ["push", "a", text],
                ["push", "b", text],
                ["push", "else", 1]
            ]);
            client.request(1, SEND, orders.to_string());
            // There is no room for both, so the first leaves long before its interval is over; what
            // is small fits beside the second.
            let routes = [client.next_push().0, client.next_push().0];
            assert_eq!(routes, ["a", "else"]);
            assert_eq!(client.wait_response(1), b"[true,true,true]");
            assert_eq!(client.next_push().0, "b");
        }
    });
}

#[test]
fn a_closing_session_loses_what_its_buffer_schedulers_hold() {
    let config = config(&["onSlow slow", "onSlower slower", "onLate late"]);
    let handlers = || {
        router().raw_route("connector.testHandler.kick", |request| {
            for route in ["onSlow", "onNow", "onSlower", "onLate"] {
                assert_eq!(request.session.push_raw(route, b"1"), Ok(true));
            }
            request.session.kick(Some("bye"));
            Answer::now(Outcome::default())
        })
    };
    Inside::on_one_shard_and_on_four(&config, handlers, |inside| {
        for client in &mut inside.clients() {
            client.request(1, "connector.testHandler.kick", "{}");
            assert_eq!(client.next_message(), push("onNow", "1"));
            assert_eq!(client.wait_kick(), "bye");
            assert_eq!(client.next_package(), None);
        }
    });
}

/// Chooses `late` for broadcasts, names nobody for `onLost`, panics for `onPanic` and a response
/// `"lost"`, and leaves the rest to the rules.
fn select<'a>(sending: &Sending<'a>) -> Option<&'a str> {
    match *sending {
        Sending::Broadcast { body: b"1", .. } => Some("late"),
        Sending::Response { id: 13, .. } => Some("nobody's"),
        Sending::Push {
            route: "onLost", ..
        } => Some("nobody's"),
        Sending::Push {
            route: "onPanic", ..
        } => panic!("boom, in the selection"),
        // Chosen before the rules are asked.
        Sending::Push {
            route: "onMove", ..
        } => Some("default"),
        _ => None,
    }
}

#[test]
fn the_application_chooses_before_the_rules() {
    let config = config(&["onMove late", "onSlow slow"]);
    let handlers = || router().select_scheduler(select);
    Inside::on_one_shard_and_on_four(&config, handlers, |inside| {
        let mut clients = inside.clients();
        let orders = json!([
            ["push", "onSlow", 1],
            ["all", "onLate", 1],
            ["push", "onMove", 2],
        ]);
        for client in &mut clients {
            client.request(1, SEND, orders.to_string());
            assert_eq!(client.next_message(), push("onMove", "2"));
            assert_eq!(client.next_message(), response(1, "[true,true,true]"));
            assert_eq!(client.next_message(), push("onSlow", "1"));
            // The broadcasts of all are still held.
            assert_eq!(client.request_text(SEND, "[]"), "[]");
        }
    });
}

#[test]
fn a_push_to_no_scheduler_is_lost_and_counted() {
    let handlers = || router().select_scheduler(select);
    Inside::on_one_shard_and_on_four(&config(&[]), handlers, |inside| {
        let mut clients = inside.clients();
        for client in &mut clients {
            let orders = json!([
                ["push", "onLost", 1],
                ["push", "onPanic", 1],
                ["push", "on", 1]
            ]);
            client.request(13, SEND, "[]");
            client.request(1, SEND, orders.to_string());
            assert_eq!(client.next_message(), push("on", "1"));
            let answer: Value = serde_json::from_slice(&client.wait_response(1)).expect("JSON");
            let texts = [
                "invalid pushScheduler id, id: \"nobody's\"",
                "selecting a push scheduler failed",
            ];
            assert_eq!(answer, json!([texts[0], texts[1], true]));
            assert!(!client.has_response(13));
        }
        let count = clients.len() as u64;
        for (name, each) in [
            ("push_schedulers_unknown", 2),
            ("responses_dropped", 1),
            ("handler_panics", 1),
        ] {
            inside.wait_counter(name, each * count);
        }
    });
}

#[test]
fn a_backend_cannot_harm_a_shard_whose_selection_panics() {
    let listen = free_address();
    let mut config = config(&[]);
    config.rpc.listen = Some(listen);
    let inside = Inside::start(4, config, || router().select_scheduler(select));
    let mut rpc = Rpc::connect(listen).expect("the port is open");
    for (route, text) in [
        ("onPanic", "selecting a push scheduler failed"),
        ("onLost", "invalid pushScheduler id, id: \"nobody's\""),
    ] {
        let options = json!({"type": "push", "userOptions": {}});
        let args = json!([route, {}, ["a"], options]);
        let answer = rpc.call("channelRemote", "pushMessage", &args);
        let answer = answer.expect("an answer");
        let stack = answer[0]["stack"].as_str().unwrap_or_default();
        let expected = format!("Error: {text}\n");
        assert!(stack.starts_with(&expected), "{answer}");
    }
    let mut client = Client::tcp(inside.address()).open();
    assert_eq!(client.request_text(SEND, "[]"), "[]");
    inside.stop();
}

// The broadcast filter.

/// Takes a session when its uid is in the list that the sender gave; everybody without a list.
/// Panics for the uid `panic`. It also calls back in, as an application might.
fn filtering() -> Router {
    router().broadcast_filter(|session, message, param| {
        let uid = session.uid().map_or("", Uid::text);
        if uid == "told" {
            // As the reference: flag, route and body.
            let text = String::from_utf8_lossy(message).into_owned();
            let told = json!([text, param]).to_string();
            assert_eq!(session.push_raw("onTold", told.as_bytes()), Ok(true));
        }
        assert!(uid != "panic", "boom, in the filter");
        param
            .as_array()
            .is_none_or(|uids| uids.contains(&uid.into()))
    })
}

/// Two clients for each name, over both transports.
fn named(address: SocketAddr, names: &[&'static str]) -> Vec<(&'static str, Client)> {
    let reach: [fn(SocketAddr) -> Client; 2] = [Client::tcp, Client::websocket];
    let all = reach.iter().flat_map(|reach| {
        names.iter().map(|name| {
            let mut client = reach(address).open();
            if !name.is_empty() {
                let answer = client.request_text(BIND, json!({"uid": name}).to_string());
                assert_eq!(answer, r#"{"error":null}"#);
            }
            (*name, client)
        })
    });
    all.collect()
}

#[test]
fn a_broadcast_skips_whom_the_filter_does_not_take() {
    let listen = free_address();
    let mut config = config(&[]);
    config.rpc.listen = Some(listen);
    Inside::on_one_shard_and_on_four(&config, filtering, |inside| {
        let names = ["", "a", "b", "c", "told", "panic"];
        let mut clients = named(inside.address(), &names);
        let all = clients.len() as u64;
        let handler = |orders: Value| {
            let mut client = Client::tcp(inside.address()).open();
            let answer = client.request_text(SEND, orders.to_string());
            assert_eq!(answer, "[true]");
        };
        let mut rpc = Rpc::connect(listen).expect("the port is open");
        let mut backend = |method: &str, args: Value| {
            let answer = rpc.call("channelRemote", method, &args);
            assert_eq!(answer.expect("an answer"), json!([]));
        };
        handler(json!([["all", "on", 1, ["", "a"]]]));
        handler(json!([["bound", "on", 2, ["", "a"]]]));
        let param = json!({"type": "broadcast", "userOptions": {"filterParam": ["b", "told"]}});
        backend("broadcast", json!(["on", 3, param]));
        let param = json!({"type": "broadcast", "userOptions": {"binded": true}});
        backend("broadcast", json!(["on", 4, param]));
        let bare = json!({"type": "broadcast", "filterParam": ["nobody"]});
        backend("pushMessage", json!(["on", 5, [], bare]));

        for (name, client) in &mut clients {
            let expected: &[&str] = match *name {
                "" => &["1", "5"],
                "a" => &["1", "2", "4", "5"],
                "b" => &["3", "4", "5"],
                "c" => &["4", "5"],
                "panic" => &[],
                _ => {
                    for (n, param) in [
                        ("1", json!(["", "a"])),
                        ("2", json!(["", "a"])),
                        ("3", json!(["b", "told"])),
                        ("4", Value::Null),
                        ("5", Value::Null),
                    ] {
                        let message = format!("\u{6}\u{2}on{n}");
                        let told = json!([message, param]).to_string();
                        assert_eq!(client.next_message(), push("onTold", &told));
                        if ["3", "4", "5"].contains(&n) {
                            assert_eq!(client.next_message(), push("on", n));
                        }
                    }
                    &[]
                }
            };
            for body in expected {
                assert_eq!(client.next_message(), push("on", body), "{name:?}");
            }
            // Nothing more was sent.
            client.request(7, SEND, "[]");
            assert_eq!(client.next_message(), response(7, "[]"), "{name:?}");
        }
        // The clients that asked are not bound; they saw 1, and were gone or there at the others.
        inside.wait_counter("handler_panics", 2 * 5);
        assert!(inside.counter("broadcasts_filtered") >= 2 * 5 + all);
    });
}

#[test]
fn a_uid_with_two_sessions_gets_a_broadcast_to_the_bound_once_in_each() {
    for select in [&[][..], &["* slow"]] {
        Inside::on_one_shard_and_on_four(&config(select), router, |inside| {
            let mut twins = named(inside.address(), &["twin"; 3]);
            let mut unbound = Client::tcp(inside.address()).open();
            let orders = json!([["bound", "on", 1], ["all", "onEnd", 1]]);
            assert_eq!(
                unbound.request_text(SEND, orders.to_string()),
                "[true,true]"
            );
            for (_, client) in &mut twins {
                assert_eq!(client.next_push(), ("on".into(), b"1".to_vec()));
                assert_eq!(client.next_push(), ("onEnd".into(), b"1".to_vec()));
            }
            assert_eq!(unbound.next_push(), ("onEnd".into(), b"1".to_vec()));
        });
    }
}

#[test]
fn a_push_without_route_or_body_is_one_error_and_sends_nothing() {
    const EMPTY: &str = "fail to send message for encode result is empty.";
    Inside::on_one_shard_and_on_four(&Config::default(), router, |inside| {
        for client in &mut inside.clients() {
            for (route, body) in [
                ("", json!({})),
                ("on", json!(null)),
                ("on", json!(0)),
                ("on", json!(false)),
                ("on", json!("")),
            ] {
                let order = |kind: &str| json!([kind, route, body]);
                let orders = json!([order("push"), order("all"), order("bound")]);
                client.request(1, SEND, orders.to_string());
                let expected = json!([EMPTY, EMPTY, EMPTY]).to_string();
                assert_eq!(client.next_message(), response(1, &expected));
            }
        }
        assert_eq!(inside.counter("pushes"), 0);
    });
}

#[test]
fn whoever_has_not_finished_the_handshake_gets_nothing() {
    for select in [&[][..], &["* slow"]] {
        Inside::on_one_shard_and_on_four(&config(select), filtering, |inside| {
            let mut shaking = Client::websocket(inside.address());
            shaking.handshake();
            let mut working = Client::tcp(inside.address()).open();
            let orders = json!([["all", "on", 1], ["all", "on", 2]]);
            assert_eq!(
                working.request_text(SEND, orders.to_string()),
                "[true,true]"
            );
            for body in ["1", "2"] {
                assert_eq!(working.next_push(), ("on".into(), body.into()));
            }
            // Its acknowledgement and a request in one write: nothing came before the answer.
            shaking.ack();
            shaking.request(1, SEND, "[]");
            assert_eq!(shaking.next_message(), response(1, "[]"));
            assert_eq!(inside.counter("broadcasts_filtered"), 0);
        });
    }
}
