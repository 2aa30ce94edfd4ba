//! Handlers that block, never end, answer twice or outlive their session: what the table in
//! `src/handler/misbehaving.md` promises, but for panics, which are in `handlers`.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tangelo::handler::filter::Step;
use tangelo::handler::{Answer, Json, Outcome, Request, Router, Session};
use tangelo::limits::IN_PROGRESS_MAX;
use tangelo::session::Uid;
use tangelo::{Config, config};

use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::gateway::Gateway;
use crate::harness::inside::{Gate, Inside};
use crate::harness::pause::pause;
use crate::harness::process::POLL_INTERVAL;

pub(super) const WHERE: &str = "connector.testHandler.where";
const NEVER: &str = "connector.testHandler.never";
const WAIT: &str = "connector.testHandler.wait";
const CODE_500: &[u8] = br#"{"code":500}"#;

/// Says which shard it is.
pub(super) fn answer_where<'a>(_: &Request<'a>) -> Answer<'a> {
    let thread = thread::current();
    Answer::now(Outcome::value(&thread.name().into()))
}

/// The log of all gateways in this process.
struct Log(Mutex<String>);

impl Log {
    fn of_this_process() -> Arc<Self> {
        static LOG: OnceLock<Arc<Log>> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Arc::new(Self(Mutex::default()));
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::WARN)
                .with_ansi(false)
                .with_writer(log.clone())
                .finish();
            tracing::subscriber::set_global_default(subscriber)
                .expect("this process has one subscriber");
            log
        });
        log.clone()
    }

    fn lines(&self, parts: &[&str]) -> Vec<String> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |line: &&str| parts.iter().all(|part| line.contains(part));
        text.lines().filter(fits).map(str::to_owned).collect()
    }

    fn wait_for(&self, count: usize, parts: &[&str]) {
        let deadline = Instant::now() + HANG_GUARD;
        while self.lines(parts).len() < count {
            assert!(Instant::now() < deadline, "no {count} lines with {parts:?}");
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Write for &Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps a shard's thread until the test lets it go.
#[derive(Clone, Default)]
pub(super) struct Block(Arc<AtomicBool>);

impl Block {
    /// Asleep, or at work.
    pub(super) fn hold(&self, spin: bool) {
        let deadline = Instant::now() + HANG_GUARD;
        while !self.is_released() && Instant::now() < deadline {
            if !spin {
                thread::sleep(POLL_INTERVAL);
            }
        }
    }

    fn is_released(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn release(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Clients of each of two shards.
pub(super) fn on_two_shards(inside: &Inside) -> [Vec<Client>; 2] {
    let mut sides = [Vec::new(), Vec::new()];
    let deadline = Instant::now() + HANG_GUARD;
    while sides.iter().any(Vec::is_empty) {
        assert!(Instant::now() < deadline, "the kernel uses one shard only");
        for mut client in inside.clients() {
            let shard = client.request_text(WHERE, "{}");
            sides[usize::from(shard == "\"shard-1\"")].push(client);
        }
    }
    sides
}

/// A client asks for `route`, which blocks its shard: it is reported as `work` meanwhile, everybody
/// on the other shard is answered, and once it is let go all others are.
fn assert_blocks_one_shard(
    route: &str,
    work: &str,
    block: &Block,
    handlers: impl Fn() -> Router + Send + Sync + 'static,
) {
    let log = Log::of_this_process();
    let inside = Inside::start(2, Config::default(), handlers);
    let [mut blocked, mut free] = on_two_shards(&inside);
    let stalls = inside.counter("stalls");
    blocked[0].request(1, route, "{}");
    // Its shard is named, and reported again while it lasts.
    log.wait_for(2, &["ERROR", "shard 0 stalled for ", work]);
    assert!(inside.counter("stalls") > stalls);
    for client in &mut blocked[1..] {
        client.request(2, WHERE, "{}");
    }
    for _ in 0..3 {
        for client in &mut free {
            assert_eq!(client.request_text(WHERE, "{}"), "\"shard-1\"");
        }
    }
    assert_eq!(log.lines(&["runs again", work]), [""; 0]);
    block.release();
    for client in &mut blocked[1..] {
        assert_eq!(client.wait_response(2), b"\"shard-0\"");
    }
    assert_eq!(blocked[0].wait_response(1), br#"{"ok":1}"#);
    log.wait_for(1, &["WARN", "shard 0 runs again after ", work]);
    assert_eq!(blocked[0].request_text(WHERE, "{}"), "\"shard-0\"");
    inside.stop();
}

pub(super) fn ok() -> Outcome<'static> {
    Outcome::json(&br#"{"ok":1}"#[..])
}

#[test]
fn a_handler_that_blocks_is_reported_by_its_route_and_holds_up_its_shard_only() {
    for spin in [false, true] {
        let route = format!("connector.testHandler.block{spin}");
        let work = format!("handler of {route}");
        let block = Block::default();
        let (of_handlers, path) = (block.clone(), route.clone());
        let handlers = move || {
            let block = of_handlers.clone();
            Router::new()
                .raw_route(WHERE, answer_where)
                .raw_route(&path, move |_| {
                    block.hold(spin);
                    Answer::now(ok())
                })
        };
        assert_blocks_one_shard(&route, &work, &block, handlers);
    }
}

#[test]
fn a_handler_that_blocks_after_it_has_waited_is_reported_by_its_route() {
    let route = "connector.testHandler.blockLater";
    let block = Block::default();
    let of_handlers = block.clone();
    let handlers = move || {
        let block = of_handlers.clone();
        Router::new()
            .raw_route(WHERE, answer_where)
            .route(route, move || {
                let block = block.clone();
                async move {
                    pause(Duration::from_millis(5)).await;
                    block.hold(false);
                    Json(json!({ "ok": 1 }))
                }
            })
    };
    assert_blocks_one_shard(route, &format!("handler of {route}"), &block, handlers);
}

#[test]
fn a_filter_that_blocks_is_reported_by_its_route() {
    let route = "connector.testHandler.blockFilter";
    let block = Block::default();
    let of_handlers = block.clone();
    let handlers = move || {
        let block = of_handlers.clone();
        let router = Router::new()
            .raw_route(WHERE, answer_where)
            .raw_route(route, |_| Answer::now(ok()));
        router.filters(|filters| {
            filters.before.push(Box::new(move |incoming| {
                if &*incoming.route == route {
                    block.hold(false);
                }
                Step::Ready(Ok(()))
            }));
        })
    };
    let work = format!("the filters or the handler of {route}");
    assert_blocks_one_shard(route, &work, &block, handlers);
}

#[test]
fn a_handler_that_blocks_for_2_s_is_counted_and_answers() {
    let route = "connector.testHandler.sleep";
    let log = Log::of_this_process();
    let inside = Inside::start(1, Config::default(), move || {
        Router::new()
            .raw_route(WHERE, answer_where)
            .raw_route(route, |_| {
                thread::sleep(Duration::from_secs(2));
                Answer::now(ok())
            })
    });
    let mut client = Client::tcp(inside.address()).open();
    assert_eq!(client.request_text(route, "{}"), r#"{"ok":1}"#);
    let work = format!("handler of {route}");
    log.wait_for(1, &["shard 0 runs again after ", &work]);
    let reports = log.lines(&["shard 0 stalled for ", &work]);
    assert!(reports[0].contains("stalled for 500 ms in"), "{reports:?}");
    assert!(
        reports[0].contains(": its thread slept for "),
        "{reports:?}"
    );
    assert_eq!(log.lines(&["runs again after ", &work]).len(), 1);
    assert_eq!(
        inside.counter("wakeups_lost"),
        0,
        "a handler had the thread"
    );
    assert!(inside.counter("stalls") >= 1);
    assert_eq!(client.request_text(WHERE, "{}"), "\"shard-0\"");
    inside.stop();
}

#[test]
fn handlers_that_wake_themselves_without_end_hold_up_nobody() {
    let route = "connector.testHandler.yield";
    let gate = Block::default();
    let of_handlers = gate.clone();
    let inside = Inside::start(1, Config::default(), move || {
        let gate = of_handlers.clone();
        Router::new()
            .raw_route(WHERE, answer_where)
            .route(route, move || {
                let gate = gate.clone();
                async move {
                    while !gate.is_released() {
                        futures_lite::future::yield_now().await;
                    }
                    Json(json!({ "ok": 1 }))
                }
            })
    });
    let mut clients = inside.clients();
    for client in &mut clients {
        client.request(1, route, "{}");
        client.request(2, route, "{}");
    }
    for client in &mut clients {
        assert_eq!(client.request_text(WHERE, "{}"), "\"shard-0\"");
    }
    gate.release();
    for client in &mut clients {
        for id in [1, 2] {
            assert_eq!(client.wait_response(id), br#"{"ok":1}"#);
        }
    }
    inside.stop();
}

#[test]
fn a_process_that_stood_still_as_a_whole_has_no_stalled_shard() {
    let mut gateway = Gateway::start_alone(&[]);
    gateway.signal("STOP");
    thread::sleep(Duration::from_secs(3));
    gateway.signal("CONT");
    // More looks than a report needs.
    thread::sleep(Duration::from_secs(1));
    let counters = gateway.counters();
    assert_eq!(counters.get("stalls"), None, "{counters:?}");
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
    assert!(!printed.contains("stalled"), "{printed}");
}

/// Handlers that wait at a gate, in sessions that may have more of them than a shard.
fn start_waiting(gate: &Gate) -> Inside {
    let config = Config {
        client: config::Client {
            calls_in_flight_max: 1_000_000,
            messages_per_second: None,
            ..config::Client::default()
        },
        ..Config::default()
    };
    let gate = gate.clone();
    Inside::start(1, config, move || {
        let gate = gate.clone();
        Router::new()
            .raw_route(WHERE, answer_where)
            .raw_route(WAIT, move |_| {
                let gate = gate.clone();
                Answer::later(async move {
                    gate.pass().await;
                    ok()
                })
            })
            .handshake(|_, message| match message["user"]["wait"] {
                serde_json::Value::Null => Answer::now(Outcome::default()),
                _ => Answer::later(std::future::pending()),
            })
    })
}

#[test]
fn a_shard_has_a_bound_of_handlers_in_progress() {
    const BOUND: u32 = IN_PROGRESS_MAX;
    let gate = Gate::default();
    let inside = start_waiting(&gate);
    let [mut filling, mut other] = [(); 2].map(|()| Client::tcp(inside.address()).open());
    for id in 1..=BOUND {
        filling.request(id, WAIT, "{}");
    }
    inside.wait_gauge("handlers_in_progress", u64::from(BOUND));
    for client in [&mut filling, &mut other] {
        client.request(BOUND + 1, WAIT, "{}");
        assert_eq!(client.wait_response(BOUND + 1), CODE_500);
        // The gateway begins none of these messages.
        assert_eq!(client.request_text(WHERE, "{}").as_bytes(), CODE_500);
    }
    assert_eq!(inside.counter("handlers_full"), 4);
    // They run on when their session has closed, and keep their places.
    drop(filling);
    inside.wait_gauge("connections", 1);
    assert_eq!(inside.counter("handlers_in_progress"), u64::from(BOUND));
    assert_eq!(other.request_text(WAIT, "{}").as_bytes(), CODE_500);
    gate.open();
    inside.wait_gauge("handlers_in_progress", 0);
    assert_eq!(inside.counter("responses_dropped"), u64::from(BOUND));
    assert_eq!(other.request_text(WAIT, "{}"), r#"{"ok":1}"#);
    inside.stop();
}

#[test]
fn a_handshake_that_never_ends_is_in_progress_when_its_client_has_left() {
    let inside = start_waiting(&Gate::default());
    let mut client = Client::tcp(inside.address());
    client.send_package(1, br#"{"sys":{},"user":{"wait":1}}"#);
    inside.wait_gauge("handlers_in_progress", 1);
    drop(client);
    inside.wait_counter("closed_left", 1);
    assert_eq!(inside.counter("handlers_in_progress"), 1);
    inside.stop();
}

#[test]
fn a_handler_that_never_ends_costs_its_session_a_place() {
    const BOUND: usize = 4;
    let config = Config {
        client: config::Client {
            calls_in_flight_max: BOUND,
            ..config::Client::default()
        },
        ..Config::default()
    };
    let inside = Inside::start(1, config, || {
        Router::new()
            .raw_route(WHERE, answer_where)
            .raw_route(NEVER, |_| Answer::later(std::future::pending()))
    });
    let mut client = Client::tcp(inside.address()).open();
    for id in 1..=BOUND as u32 {
        client.request(id, NEVER, "{}");
    }
    assert_eq!(client.request_text(NEVER, "{}").as_bytes(), CODE_500);
    assert_eq!(inside.counter("rpc_session_full"), 1);
    assert_eq!(inside.counter("handlers_in_progress"), BOUND as u64);
    // Another session has places of its own.
    let mut other = Client::tcp(inside.address()).open();
    other.request(1, NEVER, "{}");
    assert_eq!(other.request_text(WHERE, "{}"), "\"shard-0\"");
    assert!(!other.has_response(1));
    inside.stop();
}

#[test]
fn of_two_answers_the_first_is_sent_and_the_second_counted() {
    let inside = Inside::start(1, Config::default(), || {
        let router = Router::new().raw_route(WHERE, answer_where);
        router.filters(|filters| {
            filters.before.push(Box::new(|incoming| {
                incoming.answer(ok());
                assert!(incoming.is_answered());
                Step::Ready(Ok(()))
            }));
        })
    });
    for reach in [Client::tcp, Client::websocket] {
        let repeated = inside.counter("answers_repeated");
        let mut client = reach(inside.address()).open();
        client.request(1, WHERE, "{}");
        client.request(2, WHERE, "{}");
        for id in [1, 2] {
            assert_eq!(client.wait_response(id), br#"{"ok":1}"#);
        }
        inside.wait_counter("answers_repeated", repeated + 2);
        assert!(!client.has_response(1) && !client.has_response(2));
    }
    inside.stop();
}

/// Calls every method of a session and returns the results.
fn use_session(mut session: Session, bound: Result<(), String>) -> Vec<String> {
    session.set("k", json!(1));
    let value = session.get("k").cloned();
    let pushed = session.push("onX", &1);
    let kept = session.push_setting("k");
    let all_kept = session.push_settings();
    let removed = session.remove("k");
    let unbound = session.unbind(&Uid::from_text("u"));
    session.kick(Some("late"));
    let no_session = format!("session does not exist, sid: {}", session.id());
    let failed = |result: Result<(), String>| match result {
        Err(text) if text.contains(&no_session) => "no session".to_owned(),
        other => format!("{other:?}"),
    };
    let text = |result: Result<(), tangelo::handler::Failure>| {
        failed(result.map_err(|failure| failure.0.into_owned()))
    };
    vec![
        format!("open {}", session.is_open()),
        format!("address {:?}", session.client_address()),
        format!("get {value:?}"),
        format!("push {pushed:?}"),
        format!("push_setting {}", text(kept)),
        format!("push_settings {}", text(all_kept)),
        format!("remove {}", text(removed)),
        format!("unbind {}", text(unbound)),
        format!("bind {}", failed(bound)),
    ]
}

#[test]
fn a_handler_that_outlives_its_session_runs_to_its_end_and_reaches_nobody() {
    for shards in [1, 2] {
        let (gate, seen) = (Gate::default(), Arc::<Mutex<Vec<Vec<String>>>>::default());
        let (of_handlers, all) = (gate.clone(), seen.clone());
        let inside = Inside::start(shards, Config::default(), move || {
            let (gate, seen) = (of_handlers.clone(), all.clone());
            Router::new()
                .raw_route(WHERE, answer_where)
                .raw_route(WAIT, move |request| {
                    let (gate, seen) = (gate.clone(), seen.clone());
                    let mut session = request.session.clone();
                    Answer::later(async move {
                        gate.pass().await;
                        let bound = session.bind(Uid::from_text("u")).await;
                        let bound = bound.map_err(|failure| failure.0.into_owned());
                        let done = use_session(session, bound);
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.push(done);
                        ok()
                    })
                })
        });
        let mut leaving = inside.clients();
        let left = leaving.len();
        for client in &mut leaving {
            client.request(1, WAIT, "{}");
        }
        gate.wait_for(left);
        drop(leaving);
        inside.wait_gauge("connections", 0);
        gate.open();
        inside.wait_counter("responses_dropped", left as u64);
        inside.wait_counter("pushes_dropped", left as u64);
        inside.wait_gauge("handlers_in_progress", 0);
        let expected = [
            "open false",
            "address None",
            "get Some(Number(1))",
            "push Ok(false)",
            "push_setting no session",
            "push_settings no session",
            "remove no session",
            "unbind no session",
            "bind no session",
        ];
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(*seen, vec![expected; left]);
        assert_eq!(inside.counter("closed_kicked"), 0);
        let mut after = Client::tcp(inside.address()).open();
        assert!(after.request_text(WHERE, "{}").contains("shard-"));
        inside.stop();
    }
}
