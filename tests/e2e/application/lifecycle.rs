//! Functions of an application beside its handlers: at the start, before the stop, in the background, and
//! when other servers come and go.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tangelo::handler::{App, Failure, Json, LocalFuture, Reply, Router, Server, Stop};
use tangelo::{Config, Error, config};

use crate::cluster::in_both_dialects;
use crate::cluster::remotes::Member;
use crate::harness::client::{Client, HANDSHAKE, HANG_GUARD};
use crate::harness::frames::http;
use crate::harness::free_address;
use crate::harness::inside::{Gate, Inside};
use crate::harness::peers::{Cluster, Dialect, wait_for};

/// The events of all shards, in order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn note(&self, what: impl Into<String>) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(what.into());
    }

    fn all(&self) -> Vec<String> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.clone()
    }

    /// How often this was noted.
    fn count(&self, what: &str) -> usize {
        self.all().iter().filter(|note| *note == what).count()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, times: usize) {
        wait_for(&format!("{times} times {what:?}"), || {
            (self.count(what) >= times).then_some(())
        });
    }
}

fn ids(app: &App, server_type: &str) -> Vec<String> {
    let servers = app.cluster().servers(server_type).into_iter();
    servers.map(|server| server.id).collect()
}

const PING: &str = "connector.entryHandler.ping";

fn router() -> Router {
    Router::new().route("entryHandler.ping", async || Json("pong"))
}

fn on(shards: usize) -> Config {
    Config {
        listen: free_address(),
        shards: Some(shards),
        ..Config::default()
    }
}

#[test]
fn clients_wait_until_each_shard_has_started() {
    for shards in [1, 4] {
        let (gate, notes, config) = (Gate::default(), Notes::default(), on(shards));
        let address = config.listen;
        let handlers = {
            let (gate, notes) = (gate.clone(), notes.clone());
            move || {
                let (gate, notes, second) = (gate.clone(), notes.clone(), notes.clone());
                router()
                    .on_start(async move |app| {
                        app.sleep(Duration::from_millis(1)).await;
                        gate.clone().pass().await;
                        notes.note("first");
                        Ok(())
                    })
                    .on_start(async move |app| {
                        second.note(format!("second on {}", app.shard().0));
                        Ok(())
                    })
            }
        };
        let starting = thread::spawn(move || Inside::with(config, handlers));
        gate.wait_for(shards);
        let mut client = Client::tcp(address);
        client.send_package(1, br#"{"sys":{"type":"e2e","version":"1"}}"#);
        client.silent_for(Duration::from_millis(200));
        assert!(!starting.is_finished() && notes.all().is_empty());
        gate.open();
        let inside = starting.join().expect("the gateway starts");
        assert_eq!(notes.count("first"), shards, "when the start is over");
        for shard in 0..shards {
            assert_eq!(notes.count(&format!("second on {shard}")), 1);
        }
        assert_eq!(client.next_package().map(|package| package.kind), Some(1));
        client.ack();
        assert_eq!(client.request_text(PING, "{}"), r#""pong""#);
        inside.stop();
    }
}

/// Why a gateway does not start that does this on its last shard.
fn refusal(shards: usize, start_timeout: Duration, start: Start) -> (Error, Notes) {
    let (notes, config) = (Notes::default(), on(shards));
    let config = Config {
        start_timeout,
        ..config
    };
    let address = config.listen;
    let handlers = {
        let notes = notes.clone();
        move || {
            let (stopped, ran) = (notes.clone(), notes.clone());
            router()
                .on_start(async move |app| match app.shard().index() + 1 == shards {
                    true => start(app).await,
                    false => Ok(()),
                })
                .before_stop(async move |app| stopped.note(format!("stop {}", app.shard().0)))
                .task("any", async move |app: App, _| {
                    ran.note(format!("task {}", app.shard().0));
                })
        }
    };
    let error = Inside::try_with(config, handlers).err();
    let free = TcpListener::bind(address);
    assert!(free.is_ok(), "nobody listens any more");
    (error.expect("the gateway must not start"), notes)
}

type Start = fn(App) -> LocalFuture<Reply<()>>;

#[test]
fn a_failure_at_the_start_ends_the_start() {
    const MINUTE: Duration = Duration::from_secs(60);
    for shards in [1, 4] {
        let last = shards - 1;
        let cases: [(Duration, Start, &str); 3] = [
            (
                MINUTE,
                |_| Box::pin(async { Err(Failure::new("no database")) }),
                "on_start failed: no database",
            ),
            (
                MINUTE,
                |app| {
                    Box::pin(async move {
                        app.sleep(Duration::from_millis(1)).await;
                        panic!("boom")
                    })
                },
                "on_start panicked",
            ),
            (
                Duration::from_millis(200),
                |_| Box::pin(std::future::pending()),
                "on_start was not done within start_timeout = 200ms",
            ),
        ];
        for (timeout, start, text) in cases {
            let (error, notes) = refusal(shards, timeout, start);
            assert_eq!(error, Error::Handlers(format!("{text}, on shard {last}")));
            let on_last = [format!("stop {last}"), format!("task {last}")];
            assert!(!notes.all().iter().any(|note| on_last.contains(note)));
        }
    }
}

#[test]
fn clients_are_served_until_each_shard_is_done_before_the_stop() {
    for shards in [1, 4] {
        let (gate, notes) = (Gate::default(), Notes::default());
        let handlers = {
            let (gate, notes) = (gate.clone(), notes.clone());
            move || {
                let (gate, first, second) = (gate.clone(), notes.clone(), notes.clone());
                let closed = notes.clone();
                router()
                    .before_stop(async move |app: App| {
                        // Only the last one has to wait: the others must wait for it.
                        if app.shard().index() + 1 == shards {
                            gate.clone().pass().await;
                        }
                        first.note("first");
                    })
                    .before_stop(async move |_| {
                        second.note("second");
                        panic!("boom")
                    })
                    .on_close(move |_| closed.note("closed"))
            }
        };
        let config = Config {
            stop_timeout: Duration::from_secs(60),
            ..on(shards)
        };
        let inside = Inside::with(config, handlers);
        let mut clients = inside.clients();
        let counters = inside.reader();
        inside.begin_stop();
        gate.wait_for(1);
        notes.wait_for("second", shards - 1);
        for client in &mut clients {
            assert_eq!(client.request_text(PING, "{}"), r#""pong""#);
        }
        let late = TcpStream::connect(inside.address());
        let late = late.map_err(|error| error.kind()).err();
        assert_eq!(late, Some(ErrorKind::ConnectionRefused));
        assert_eq!(notes.count("closed"), 0);
        gate.open();
        for client in &mut clients {
            while client.next_package().is_some() {}
        }
        assert_eq!(inside.join(), Ok(()));
        assert_eq!(notes.count("first"), shards);
        assert_eq!(notes.count("second"), shards);
        assert_eq!(notes.count("closed"), clients.len());
        let counters = counters();
        assert!(
            counters.contains(&format!("handler_panics={shards}")),
            "{counters}"
        );
        assert!(!counters.contains("tasks_late"), "{counters}");
    }
}

#[test]
fn a_health_check_hears_of_the_stop_and_no_client_comes_in() {
    for shards in [1, 4] {
        let gate = Gate::default();
        let handlers = {
            let gate = gate.clone();
            move || {
                let gate = gate.clone();
                router().before_stop(async move |_| gate.clone().pass().await)
            }
        };
        let mut config = Config {
            stop_timeout: HANG_GUARD,
            ..on(shards)
        };
        config.client.health_path = Some("/health".into());
        let inside = Inside::with(config, handlers);
        let (address, counters) = (inside.address(), inside.reader());
        let mut client = Client::tcp(address).open();
        assert_eq!(http(address, "GET /health").1, "ok\n");
        inside.begin_stop();
        gate.wait_for(shards);
        // Enough to meet more than one shard.
        for _ in 0..8 {
            let (head, body) = http(address, "GET /health");
            assert!(
                head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
                "{head}"
            );
            assert_eq!(body, "stopping\n");
            for mut late in [Client::tcp(address), Client::websocket(address)] {
                late.send_package(HANDSHAKE, b"{}");
                assert_eq!(late.next_package(), None);
            }
        }
        assert_eq!(client.request_text(PING, "{}"), r#""pong""#);
        gate.open();
        while client.next_package().is_some() {}
        assert_eq!(inside.join(), Ok(()));
        let counters = counters();
        for counter in ["closed_health=9", "closed_stopping=17"] {
            assert!(counters.contains(counter), "{counters}");
        }
        let free = TcpListener::bind(address);
        assert!(free.is_ok(), "nobody listens any more");
    }
}

#[test]
fn work_that_takes_too_long_before_the_stop_is_left_behind() {
    for shards in [1, 4] {
        let handlers = || {
            router()
                .before_stop(async |_| std::future::pending().await)
                .task("deaf", async |_, _| std::future::pending().await)
        };
        let config = Config {
            stop_timeout: Duration::from_millis(100),
            ..on(shards)
        };
        let inside = Inside::with(config, handlers);
        let (counters, began) = (inside.reader(), Instant::now());
        inside.stop();
        assert!(began.elapsed() < HANG_GUARD);
        let late = format!("tasks_late={}", 2 * shards);
        assert!(counters().contains(&late), "{}", counters());
    }
}

#[test]
fn a_task_runs_on_each_shard_until_the_stop() {
    for shards in [1, 4] {
        let notes = Notes::default();
        let handlers = {
            let notes = notes.clone();
            move || {
                let [waits, beats, once] = [(); 3].map(|()| notes.clone());
                router()
                    .task("waits", async move |app: App, stop: Stop| {
                        waits.note(format!("begins {}", app.shard().0));
                        stop.requested().await;
                        // It still works.
                        app.sleep(Duration::from_millis(1)).await;
                        waits.note("waited");
                    })
                    .task("beats", async move |app: App, stop: Stop| {
                        while stop.or(app.sleep(Duration::from_millis(1))).await.is_some() {
                            beats.note("beat");
                        }
                        assert!(stop.is_requested());
                        beats.note("beaten");
                    })
                    .task("once", async move |_, stop| {
                        assert!(!stop.is_requested());
                        once.note("once");
                    })
                    .task("boom", async |app: App, _| {
                        app.sleep(Duration::from_millis(1)).await;
                        panic!("boom")
                    })
                    .task("boom at once", async |_, _| panic!("boom"))
            }
        };
        let inside = Inside::with(
            Config {
                stop_timeout: Duration::from_secs(60),
                ..on(shards)
            },
            handlers,
        );
        notes.wait_for("beat", 3 * shards);
        inside.wait_counter("handler_panics", 2 * shards as u64);
        assert_eq!((notes.count("waited"), notes.count("beaten")), (0, 0));
        let mut client = Client::tcp(inside.address()).open();
        assert_eq!(client.request_text(PING, "{}"), r#""pong""#);
        let counters = inside.reader();
        inside.stop();
        for (what, times) in [("waited", shards), ("beaten", shards), ("once", shards)] {
            assert_eq!(notes.count(what), times, "{what}");
        }
        for shard in 0..shards {
            assert_eq!(notes.count(&format!("begins {shard}")), 1);
        }
        assert!(!counters().contains("tasks_late"), "{}", counters());
    }
}

#[test]
fn the_servers_of_the_configuration_are_told_before_the_start() {
    let server = |id: &str, port| Server {
        id: id.into(),
        server_type: "chat".into(),
        host: "127.0.0.1".into(),
        port,
        ..Server::default()
    };
    let notes = Notes::default();
    let handlers = {
        let notes = notes.clone();
        move || {
            let (added, started) = (notes.clone(), notes.clone());
            router()
                .on_server_added(|_, _| panic!("boom"))
                .on_server_added(|_, _| unreachable!("behind one that panics"))
                .group(
                    "",
                    Router::new().on_start(async move |app| {
                        let servers = ids(&app, "chat").join(" ");
                        started.note(format!("start with {servers}"));
                        Ok(())
                    }),
                )
                .on_server_removed(move |_, server| added.note(server.id.clone()))
        }
    };
    let config = Config {
        servers: vec![server("chat-1", 9), server("chat-2", 10)],
        ..on(2)
    };
    let inside = Inside::with(config, handlers);
    assert_eq!(notes.count("start with chat-1 chat-2"), 2);
    assert_eq!(notes.all().len(), 2);
    assert_eq!(inside.counter("handler_panics"), 4);
    inside.stop();
}

/// In a genuine cluster: backends that come and go, and the master that stops this server.
fn a_member_hears_of_others_and_of_the_master(dialect: Dialect) {
    let cluster = Cluster::start(dialect);
    for shards in [1, 4] {
        let notes = Notes::default();
        let handlers = {
            let notes = notes.clone();
            move || {
                let [added, removed, stopped] = [(); 3].map(|()| notes.clone());
                let show = |server: &Server| {
                    format!("{} {} {}", server.id, server.server_type, server.host)
                };
                router()
                    .on_server_added(move |app, server| {
                        assert!(ids(app, &server.server_type).contains(&server.id));
                        added.note(format!("added {} {}", show(server), server.port));
                    })
                    .on_server_removed(move |app, server| {
                        assert!(!ids(app, &server.server_type).contains(&server.id));
                        removed.note(format!("removed {}", show(server)));
                    })
                    .before_stop(async move |app: App| {
                        // The cluster is still there.
                        let server = ids(&app, "chat").join(" ");
                        stopped.note(format!("stop {server}"));
                    })
            }
        };
        let Member { inside, connector } = Member::with(&cluster, shards, handlers);
        let added = |id: &str| {
            let port = cluster.rpc_address(id).port();
            format!("added {id} chat 127.0.0.1 {port}")
        };
        for id in ["chat-1", "chat-2"] {
            assert_eq!(notes.count(&added(id)), shards, "{:?}", notes.all());
        }
        cluster.add_backend("chat-3");
        notes.wait_for(&added("chat-3"), shards);
        cluster.remove("chat-3");
        notes.wait_for("removed chat-3 chat 127.0.0.1", shards);
        assert_eq!(notes.count(&added("chat-3")), shards, "once on each shard");

        cluster.cli(&["stop", connector.id()]);
        assert_eq!(inside.join(), Ok(()));
        assert_eq!(notes.count("stop chat-1 chat-2"), shards);
    }
}

mod a_member_hears_of_others_and_of_the_master {
    use super::*;

    in_both_dialects!(a_member_hears_of_others_and_of_the_master);
}

const EACH_SECOND: &str = "* * * * * *";

fn cron(action: &str) -> config::Cron {
    config::Cron {
        id: "1".into(),
        time: EACH_SECOND.into(),
        action: action.into(),
    }
}

#[test]
fn a_cron_comes_once_in_the_process() {
    let notes = Notes::default();
    let handlers = {
        let notes = notes.clone();
        move || {
            let [own, file, never] = [(); 3].map(|()| notes.clone());
            router()
                .cron_at(EACH_SECOND, "own", async move |app: App| {
                    own.note(format!("own {}", app.shard().0));
                })
                .cron_at(EACH_SECOND, "boom", async |_| panic!("boom"))
                .cron("a.file", async move |app: App| {
                    app.sleep(Duration::from_millis(1)).await;
                    file.note(format!("file {}", app.shard().0));
                })
                .cron("a.never", async move |_| never.note("never"))
        }
    };
    let config = Config {
        crons: vec![cron("a.file")],
        ..on(4)
    };
    let began = Instant::now();
    let inside = Inside::with(config, handlers);
    notes.wait_for("own 0", 3);
    notes.wait_for("file 0", 3);
    let counters = inside.reader();
    inside.stop();
    let seconds = began.elapsed().as_secs() as usize + 2;
    let all = notes.all();
    for name in ["own", "file"] {
        let times = notes.count(&format!("{name} 0"));
        assert!((3..=seconds).contains(&times), "{times} in {seconds} s");
        let somewhere = all.iter().filter(|note| note.starts_with(name)).count();
        assert_eq!(somewhere, times, "{all:?}");
    }
    assert_eq!(notes.count("never"), 0);
    assert!(counters().contains("handler_panics="), "{}", counters());
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(notes.all().len(), all.len(), "no cron runs after the stop");
}

#[test]
fn a_cron_that_still_runs_does_not_come_again_and_is_awaited_before_the_stop() {
    let (gates, notes) = ([Gate::default(), Gate::default()], Notes::default());
    let handlers = {
        let (gates, notes) = (gates.clone(), notes.clone());
        move || {
            let (gates, notes) = (gates.clone(), notes.clone());
            router().cron_at(EACH_SECOND, "slow", async move |_| {
                let run = notes.count("began");
                notes.note("began");
                if let Some(gate) = gates.get(run) {
                    gate.clone().pass().await;
                }
                notes.note("ended");
            })
        }
    };
    let config = Config {
        stop_timeout: Duration::from_secs(60),
        ..on(1)
    };
    let inside = Inside::with(config, handlers);
    gates[0].wait_for(1);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(notes.all(), ["began"]);
    assert_eq!(inside.counter("crons_skipped"), 0);
    gates[0].open();
    inside.wait_counter("crons_skipped", 1);
    gates[1].wait_for(1);
    inside.begin_stop();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(notes.all(), ["began", "ended", "began"]);
    let counters = inside.reader();
    gates[1].open();
    assert_eq!(inside.join(), Ok(()));
    assert_eq!(notes.all(), ["began", "ended", "began", "ended"]);
    assert!(!counters().contains("tasks_late"), "{}", counters());
}

#[test]
fn a_cron_without_a_time_or_a_function_is_found_at_the_start() {
    let start = |crons: &[config::Cron], handlers: fn() -> Router| {
        let config = Config {
            crons: crons.to_vec(),
            ..on(2)
        };
        Inside::try_with(config, handlers).map(Inside::stop)
    };
    let refused = start(&[], || router().cron_at("* * * * *", "own", async |_| {}));
    let text = refused.expect_err("no time").to_string();
    let expected = r#"cron "own": "* * * * *" has 5 fields; expected six fields"#;
    assert!(text.starts_with(expected), "{text}");

    let refused = start(&[cron("a.b")], || router().cron("a.c", async |_| {}));
    let text = "crons.json names the action \"a.b\", but no function is registered for it; \
                add it with Router::cron";
    assert_eq!(refused, Err(Error::Handlers(text.into())));

    // As the binary, which has no functions: those of JavaScript run nowhere.
    assert_eq!(start(&[cron("a.b")], router), Ok(()));
}
