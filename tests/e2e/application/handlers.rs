//! Handlers, filters and close handlers that misbehave cost their own request only, on one shard
//! and on four, over both transports.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tangelo::Config;
use tangelo::config;
use tangelo::handler::filter::{Filters, Step};
use tangelo::handler::{Answer, Failure, Incoming, Outcome, Request, Router};
use tangelo::session::Uid;

use crate::harness::client::{Client, Message};
use crate::harness::frames::{self, ack, connect_narrow, handshake, request};
use crate::harness::inside::{Gate, Inside};

const BOOM: &str = "connector.testHandler.boom";
const OK: &str = "connector.testHandler.ok";
const CODE_500: &[u8] = br#"{"code":500}"#;

fn ok<'a>(_: &Request<'a>) -> Answer<'a> {
    Answer::now(Outcome::json(&br#"{"ok":1}"#[..]))
}

fn router() -> Router {
    Router::new()
        .raw_route(OK, ok)
        .raw_route(BOOM, |_| panic!("boom"))
        .raw_route("connector.testHandler.later", |_| {
            Answer::later(async { panic!("boom, the first time it is polled") })
        })
        .raw_route("connector.testHandler.muchLater", |_| {
            Answer::later(async {
                glommio::timer::sleep(std::time::Duration::from_millis(5)).await;
                panic!("boom, in another turn")
            })
        })
        .raw_route("connector.testHandler.deep", |_| {
            std::panic::panic_any(vec![1, 2, 3])
        })
}

const PANICKING: [&str; 4] = [
    BOOM,
    "connector.testHandler.later",
    "connector.testHandler.muchLater",
    "connector.testHandler.deep",
];

/// A good request between others that go wrong: each is answered, once.
fn assert_costs_itself_only(client: &mut Client, route: &str, wrong: &[u8]) {
    client.request(1, OK, "{}");
    client.request(2, route, "{}");
    client.notify(route, "{}");
    client.request(3, OK, "{}");
    client.request(4, route, "{}");
    for (id, body) in [
        (1, &br#"{"ok":1}"#[..]),
        (2, wrong),
        (3, br#"{"ok":1}"#),
        (4, wrong),
    ] {
        assert_eq!(client.wait_response(id), body, "{route} {id}");
    }
    assert_eq!(client.request_text(OK, "{}"), r#"{"ok":1}"#);
    for id in 1..5 {
        assert!(!client.has_response(id), "{route} {id}: a second response");
    }
}

#[test]
fn a_handler_that_panics_costs_its_request_only() {
    Inside::on_one_shard_and_on_four(&Config::default(), router, |inside| {
        let mut clients = inside.clients();
        for client in &mut clients {
            for route in PANICKING {
                assert_costs_itself_only(client, route, CODE_500);
            }
        }
        // Two requests and a notify on each route.
        inside.wait_counter(
            "handler_panics",
            (clients.len() * PANICKING.len() * 3) as u64,
        );
        assert_eq!(inside.counter("connections"), clients.len() as u64);
    });
}

/// Panics when it is called, or when its future is polled, for requests to [`BOOM`].
fn step<T: 'static>(later: bool, incoming: &Incoming, value: T) -> Step<T> {
    let boom = &*incoming.route == BOOM;
    match (later, boom) {
        (false, true) => panic!("boom in a filter"),
        (true, true) => Step::Later(Box::pin(async { panic!("boom in the future of a filter") })),
        (false, false) => Step::Ready(value),
        (true, false) => Step::Later(Box::pin(async { value })),
    }
}

/// Adds one filter that panics.
type Add = fn(&mut Filters, bool);

/// A response that was there before something panicked.
const OK_500: &[u8] = br#"{"ok":1,"code":500}"#;

#[test]
fn a_filter_that_panics_before_the_response_costs_its_request_only() {
    let places: [(&str, &[u8], Add); 5] = [
        ("global before", CODE_500, |filters, later| {
            let filter = move |incoming: &_| step(later, incoming, Ok(()));
            filters
                .global_before
                .push(Box::new(move |incoming| filter(incoming)));
        }),
        ("before", CODE_500, |filters, later| {
            filters
                .before
                .push(Box::new(move |incoming| step(later, incoming, Ok(()))));
        }),
        ("after", OK_500, |filters, later| {
            let filter = move |error, incoming: &_| step(later, incoming, error);
            filters
                .after
                .push(Box::new(move |error, incoming, _| filter(error, incoming)));
        }),
        ("error handler", OK_500, |filters, later| {
            filters.before.push(Box::new(|_| {
                Step::Ready(Err(Outcome::json(&br#"{"ok":1}"#[..]).with_error("always")))
            }));
            filters.error_handler = Some(Box::new(move |mut outcome, incoming| {
                outcome.error = None;
                step(later, incoming, outcome)
            }));
        }),
        ("global error handler", OK_500, |filters, later| {
            filters.global_before.push(Box::new(|_| {
                Step::Ready(Err(Outcome::json(&br#"{"ok":1}"#[..]).with_error("always")))
            }));
            filters.global_error_handler = Some(Box::new(move |mut outcome, incoming| {
                outcome.error = None;
                step(later, incoming, outcome)
            }));
        }),
    ];
    for (place, wrong, add) in places {
        for later in [false, true] {
            println!("{place}, later: {later}");
            let handlers = move || {
                let router = Router::new().raw_route(OK, ok).raw_route(BOOM, ok);
                router.filters(|filters| add(filters, later))
            };
            Inside::on_one_shard_and_on_four(&Config::default(), handlers, |inside| {
                let mut clients = inside.clients();
                for client in &mut clients {
                    assert_costs_itself_only(client, BOOM, wrong);
                }
                inside.wait_counter("handler_panics", clients.len() as u64 * 3);
            });
        }
    }
}

#[test]
fn a_filter_that_panics_after_the_response_costs_nothing() {
    for later in [false, true] {
        let handlers = move || {
            let filter = move |error, incoming: &_| step(later, incoming, error);
            let router = Router::new().raw_route(OK, ok).raw_route(BOOM, ok);
            router.filters(|filters| {
                let filter =
                    move |error: Option<Failure>, incoming: &Incoming| filter(error, incoming);
                filters
                    .global_after
                    .push(Box::new(move |error, incoming, _| filter(error, incoming)));
            })
        };
        Inside::on_one_shard_and_on_four(&Config::default(), handlers, |inside| {
            for client in &mut inside.clients() {
                for id in [1, 2] {
                    client.request(id, BOOM, "{}");
                    assert_eq!(client.wait_response(id), br#"{"ok":1}"#);
                }
                assert_eq!(client.request_text(OK, "{}"), r#"{"ok":1}"#);
                assert!(
                    !client.has_response(1) && !client.has_response(2),
                    "a second response"
                );
            }
        });
    }
}

#[test]
fn a_close_handler_that_panics_costs_nothing() {
    let closed = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&closed);
    let handlers = move || {
        let seen = Arc::clone(&seen);
        router()
            .on_close(move |_| {
                seen.fetch_add(1, Ordering::SeqCst);
                panic!("boom in a close handler")
            })
            .raw_route("connector.testHandler.kick", |request| {
                request.session.kick(Some("r"));
                Answer::now(Outcome::default())
            })
    };
    Inside::on_one_shard_and_on_four(&Config::default(), handlers, |inside| {
        closed.store(0, Ordering::SeqCst);
        let mut staying = inside.clients();
        let mut leaving = inside.clients();
        let left = leaving.len();
        for client in leaving.drain(..left / 2) {
            drop(client);
        }
        for client in &mut leaving {
            client.request(1, "connector.testHandler.kick", "{}");
            assert_eq!(client.wait_kick(), "r");
        }
        drop(leaving);
        inside.wait_gauge("connections", staying.len() as u64);
        inside.wait_counter("handler_panics", left as u64);
        assert_eq!(closed.load(Ordering::SeqCst), left);
        for client in &mut staying {
            assert_eq!(client.request_text(OK, "{}"), r#"{"ok":1}"#);
        }
    });
}

#[test]
fn a_refused_connection_is_not_a_session_that_closes() {
    let closed = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&closed);
    let handlers = move || {
        let seen = Arc::clone(&seen);
        router().on_close(move |_| {
            seen.fetch_add(1, Ordering::SeqCst);
        })
    };
    let config = Config {
        client: config::Client {
            max_connections: Some(1),
            ..config::Client::default()
        },
        ..Config::default()
    };
    Inside::on_one_shard_and_on_four(&config, handlers, |inside| {
        closed.store(0, Ordering::SeqCst);
        let inside_alone = Client::tcp(inside.address()).open();
        for reach in [Client::tcp, Client::websocket] {
            let mut refused = reach(inside.address());
            refused.ack();
            assert_eq!(refused.next_package(), None);
        }
        inside.wait_counter("closed_max_connections", 2);
        assert_eq!(closed.load(Ordering::SeqCst), 0);
        drop(inside_alone);
        inside.wait_counter("closed_left", 1);
        assert_eq!(closed.load(Ordering::SeqCst), 1);
    });
}

/// Handlers that wait at a gate, and one that never ends.
fn waiting(gate: Gate) -> Router {
    let pass = gate;
    router()
        .raw_route("connector.testHandler.wait", move |_| {
            let pass = pass.clone();
            Answer::later(async move {
                pass.pass().await;
                Outcome::json(&br#"{"late":1}"#[..])
            })
        })
        .raw_route("connector.testHandler.never", |_| {
            Answer::later(std::future::pending())
        })
}

fn with_calls_in_flight(calls_in_flight_max: usize) -> Config {
    Config {
        client: config::Client {
            calls_in_flight_max,
            ..config::Client::default()
        },
        ..Config::default()
    }
}

#[test]
fn a_session_has_a_bound_of_unanswered_requests() {
    const BOUND: u32 = 8;
    let handlers = || waiting(Gate::default());
    Inside::on_one_shard_and_on_four(&with_calls_in_flight(BOUND as usize), handlers, |inside| {
        let mut clients = inside.clients();
        for client in &mut clients {
            for id in 1..=BOUND {
                client.request(id, "connector.testHandler.never", "{}");
            }
            // The gateway begins none of these messages.
            for (id, route) in (BOUND + 1..).zip(["connector.testHandler.never", OK, BOOM]) {
                client.request(id, route, "{}");
                assert_eq!(client.wait_response(id), CODE_500);
            }
            assert!((1..=BOUND).all(|id| !client.has_response(id)));
        }
        assert_eq!(inside.counter("rpc_session_full"), clients.len() as u64 * 3);
        assert_eq!(inside.counter("handler_panics"), 0);
        // The bound is the session's, and ends with it.
        drop(clients);
        inside.wait_gauge("connections", 0);
        for client in &mut inside.clients() {
            client.request(1, "connector.testHandler.never", "{}");
            assert_eq!(client.request_text(OK, "{}"), r#"{"ok":1}"#);
            assert!(!client.has_response(1));
        }
    });
}

#[test]
fn answered_requests_make_room_for_others() {
    const BOUND: u32 = 4;
    for shards in [1, 4] {
        let gate = Gate::default();
        let of_handlers = gate.clone();
        let config = with_calls_in_flight(BOUND as usize);
        let inside = Inside::start(shards, config, move || waiting(of_handlers.clone()));
        let mut clients = inside.clients();
        for client in &mut clients {
            (1..=BOUND).for_each(|id| client.request(id, "connector.testHandler.wait", "{}"));
        }
        gate.wait_for(clients.len() * BOUND as usize);
        gate.open();
        for client in &mut clients {
            for id in 1..=BOUND {
                assert_eq!(client.wait_response(id), br#"{"late":1}"#);
            }
            // Far more than the bound, one after the other; also those that panic give it back.
            for id in 0..3 * BOUND {
                let route = ["connector.testHandler.wait", "connector.testHandler.later"];
                client.request_text(route[id as usize % 2], "{}");
            }
        }
        assert_eq!(inside.counter("rpc_session_full"), 0);
        inside.stop();
    }
}

#[test]
fn an_answer_that_outlives_its_session_reaches_nobody() {
    for shards in [1, 4] {
        let gate = Gate::default();
        let of_handlers = gate.clone();
        let inside = Inside::start(shards, Config::default(), move || {
            waiting(of_handlers.clone())
        });
        let mut leaving = inside.clients();
        let left = leaving.len();
        for client in &mut leaving {
            client.request(1, "connector.testHandler.wait", "{}");
        }
        gate.wait_for(left);
        drop(leaving);
        inside.wait_gauge("connections", 0);
        // They take the places of those who left, and wait for a response with the same id.
        let mut new = inside.clients();
        for client in &mut new {
            client.request(1, "connector.testHandler.never", "{}");
            assert_eq!(client.request_text(OK, "{}"), r#"{"ok":1}"#);
        }
        gate.open();
        inside.wait_counter("responses_dropped", left as u64);
        for client in &mut new {
            assert_eq!(client.request_text(OK, "{}"), r#"{"ok":1}"#);
            assert!(!client.has_response(1), "the answer to somebody else");
        }
        inside.stop();
    }
}

#[test]
fn handlers_that_never_answer_do_not_keep_a_gateway_from_stopping() {
    for shards in [1, 4] {
        let gate = Gate::default();
        let of_handlers = gate.clone();
        let inside = Inside::start(shards, Config::default(), move || {
            waiting(of_handlers.clone())
        });
        let mut clients = inside.clients();
        for client in &mut clients {
            client.request(1, "connector.testHandler.never", "{}");
            client.request(2, "connector.testHandler.wait", "{}");
        }
        gate.wait_for(clients.len());
        inside.stop();
        // Its futures are gone, or will never run again; waking them is harmless.
        gate.open();
        for client in &mut clients {
            assert_eq!(client.next_package(), None);
        }
    }
}

#[test]
fn a_client_with_a_burst_of_large_answers_is_not_a_slow_reader() {
    const REQUESTS: u32 = 60;
    let config = Config {
        client: config::Client {
            outbox_bytes_max: 64 << 10,
            ..config::Client::default()
        },
        ..Config::default()
    };
    let handlers = || {
        Router::new().raw_route("connector.testHandler.large", |_| {
            Answer::now(Outcome::json(
                format!("\"{}\"", "x".repeat(10_000)).into_bytes(),
            ))
        })
    };
    Inside::on_one_shard_and_on_four(&config, handlers, |inside| {
        for client in &mut inside.clients() {
            for id in 1..=REQUESTS {
                client.request(id, "connector.testHandler.large", "{}");
            }
            for id in 1..=REQUESTS {
                assert_eq!(client.wait_response(id).len(), 10_002);
            }
        }
        // Over raw TCP they can come in one read.
        let mut client = Client::tcp(inside.address()).open();
        let requests = (1..=REQUESTS).map(|id| request(id, "connector.testHandler.large", b"{}"));
        client.send_raw(&requests.collect::<Vec<_>>().concat());
        for id in 1..=REQUESTS {
            assert_eq!(client.wait_response(id).len(), 10_002);
        }
    });
}

thread_local! {
    /// How many close handlers of this shard are on the stack.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

#[test]
fn a_close_handler_is_not_called_within_another() {
    const SLEEPERS: usize = 12;
    let config = Config {
        client: config::Client {
            outbox_bytes_max: 1 << 10,
            ..config::Client::default()
        },
        ..Config::default()
    };
    let deepest = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&deepest);
    let handlers = move || {
        let seen = Arc::clone(&seen);
        Router::new()
            .raw_route("connector.testHandler.shout", |request| {
                // More than any socket takes, in one turn.
                let (app, body) = (request.session.app(), "x".repeat(100_000));
                for _ in 0..100 {
                    app.broadcast("onShout", &body)
                        .expect("the body fits into a package");
                }
                Answer::now(Outcome::default())
            })
            .on_close(move |session| {
                let depth = DEPTH.get() + 1;
                DEPTH.set(depth);
                seen.fetch_max(depth, Ordering::SeqCst);
                let sent = session.app().broadcast("onLeave", &"x".repeat(2_000));
                sent.expect("the body fits into a package");
                DEPTH.set(depth - 1);
            })
    };
    let inside = Inside::start(1, config, handlers);
    let sleepers = (0..SLEEPERS).map(|_| {
        let stream = connect_narrow(inside.address());
        frames::write_anyway(&stream, &[handshake(), ack()].concat());
        // The answer to the handshake: the ack behind it has been read, too.
        frames::read_exactly(&stream, 25);
        stream
    });
    let sleepers: Vec<_> = sleepers.collect();
    let mut shouting = Client::tcp(inside.address()).open();
    shouting.notify("connector.testHandler.shout", "{}");
    inside.wait_counter("closed_outbox_full", SLEEPERS as u64 + 1);
    assert_eq!(deepest.load(Ordering::SeqCst), 1);
    drop(sleepers);
    inside.stop();
}

#[test]
fn a_session_that_is_over_cannot_be_bound() {
    let handlers = || {
        Router::new().raw_route("connector.testHandler.kickAndBind", |request| {
            let mut session = request.session.clone();
            Answer::later(async move {
                session.kick(None);
                let bound = session.bind(Uid::from_text("u")).await;
                let text = bound.err().map(|Failure(text)| text.into_owned());
                let pushed = session.push_raw("onX", b"1");
                let log = format!("{text:?} {pushed:?}");
                session
                    .app()
                    .broadcast("onLog", &log)
                    .expect("the body fits into a package");
                Outcome::default()
            })
        })
    };
    Inside::on_one_shard_and_on_four(&Config::default(), handlers, |inside| {
        let mut listener = Client::tcp(inside.address()).open();
        listener.request(1, "x.y.z", "{}");
        listener.wait_response(1);
        for reach in [Client::tcp, Client::websocket] {
            let mut client = reach(inside.address()).open();
            client.request(1, "connector.testHandler.kickAndBind", "{}");
            assert_eq!(client.next_package(), None);
            let Message::Push { body, .. } = listener.next_message() else {
                panic!("a response");
            };
            let text = String::from_utf8_lossy(&body);
            assert!(text.contains("session does not exist, sid: "), "{text}");
            assert!(text.contains("Ok(false)"), "{text}");
        }
    });
}

#[test]
fn a_frontend_that_does_not_forward_closes_who_asks_for_it() {
    for dialect in [config::Dialect::Pomelo, config::Dialect::Pinus] {
        let mut config = Config {
            dialect,
            ..Config::default()
        };
        config.client.forward = false;
        let inside = Inside::start(1, config, router);
        let mut bystander = Client::tcp(inside.address()).open();
        let routes = ["chat.chatHandler.send", "a.b", "x.y.constructor"];
        for route in routes {
            let clients = [
                Client::tcp(inside.address()).open(),
                Client::websocket(inside.address()).open(),
            ];
            for mut client in clients {
                assert_eq!(client.request_text(OK, "{}"), r#"{"ok":1}"#);
                // As always, the gateway drops a message without a valid route.
                for none in ["chat", ".b.c", ""] {
                    client.request(1, none, "{}");
                }
                assert_eq!(client.request_text(OK, "{}"), r#"{"ok":1}"#);
                client.request(1, route, "{}");
                // Nothing is said, not even why.
                assert_eq!(client.next_package(), None, "{route}");
            }
        }
        assert_eq!(bystander.request_text(OK, "{}"), r#"{"ok":1}"#);
        inside.wait_counter("closed_not_forwarded", 2 * routes.len() as u64);
        inside.stop();
    }
}
