//! A gateway in memory, as the tests of its users have it: no socket is opened here.

#![cfg(feature = "runtime")]
// A test is not a shard.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tangelo::config::{self, Dialect, DuplicateLogin, Scheduler};
use tangelo::handler::{
    App, BroadcastOptions, Failure, Json, Reply, Router, Session, State, Stop, Uid,
};
use tangelo::memory::{Client, ClientOptions, InMemory};
use tangelo::{Config, Error, Gateway};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

const LOGIN: &str = "connector.entryHandler.login";
const ECHO: &str = "connector.entryHandler.echo";
const SAY: &str = "connector.entryHandler.say";
const SLOW: &str = "connector.entryHandler.slow";
const LEAVE: &str = "connector.entryHandler.leave";
const ADD: &str = "connector.entryHandler.add";
const AWAY: &str = "connector.entryHandler.away";

fn router() -> Router {
    Router::new()
        .route("entryHandler.login", login)
        .route("entryHandler.echo", async |body: Bytes| body)
        .route("entryHandler.say", say)
        .route("entryHandler.slow", slow)
        .route("entryHandler.leave", leave)
        .route("entryHandler.add", add)
        .route("entryHandler.away", away)
}

#[derive(Deserialize)]
struct Login {
    uid: String,
}

async fn login(mut session: Session, Json(login): Json<Login>) -> Reply<Value> {
    session.bind(login.uid).await?;
    Ok(json!({"code": 200}))
}

/// Tells everybody, or all who are bound.
async fn say(app: App, Json(message): Json<Value>) -> Reply<Value> {
    let options = BroadcastOptions {
        bound_only: message["bound"] == true,
        ..BroadcastOptions::default()
    };
    app.broadcast_with("onSay", &json!({"text": message["text"]}), options)?;
    Ok(json!({"code": 200}))
}

async fn slow(app: App) -> Value {
    app.sleep(5 * SECOND).await;
    json!({"slow": true})
}

async fn leave(session: Session) {
    session.kick(Some("you asked for it"));
}

/// Asks a server.
async fn add(app: App, Json(uid): Json<String>) -> Reply<Value> {
    let add = app.cluster().call("chat", "chatRemote.add", &[json!(uid)]);
    Ok(add.await?)
}

/// Waits for another thread, as if for a database.
async fn away() -> Value {
    let (done, when) = flag();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(20 * MS);
        done();
    });
    when.await;
    thread.join().expect("it has ended");
    json!({"from": "afar"})
}

/// A function to call from another thread, and a future that waits for that.
fn flag() -> (impl FnOnce() + Send, impl Future<Output = ()>) {
    type State = (bool, Option<std::task::Waker>);
    let state = Arc::new(Mutex::new(State::default()));
    let shared = state.clone();
    let set = move || {
        let mut state = shared.lock().unwrap();
        state.0 = true;
        state.1.take().expect("somebody waits").wake();
    };
    let is_set = std::future::poll_fn(move |cx| {
        let mut state = state.lock().unwrap();
        state.1 = Some(cx.waker().clone());
        if state.0 {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    });
    (set, is_set)
}

fn start(config: Config) -> InMemory {
    let gateway = Gateway::new(config).handlers(|_| router());
    gateway
        .in_memory()
        .unwrap_or_else(|error| panic!("{error}"))
}

fn on_shards(shards: usize) -> Config {
    Config {
        shards: Some(shards),
        ..Config::default()
    }
}

fn on_shard(shard: usize) -> ClientOptions {
    ClientOptions {
        shard: Some(shard),
        ..ClientOptions::default()
    }
}

fn said(text: &str) -> Option<(String, Value)> {
    Some(("onSay".into(), json!({"text": text})))
}

#[test]
fn a_client_logs_in_asks_is_told_and_is_kicked() {
    let gateway = start(Config::default());
    let mut client = gateway.connect();
    assert_eq!(
        client.request(LOGIN, &json!({"uid": "mei"})),
        json!({"code": 200})
    );
    assert_eq!(gateway.counter("sessions_bound"), 1);
    assert_eq!(client.request(ECHO, &[1, 2]), json!([1, 2]));
    client.notify(SAY, &json!({"text": "hello"}));
    assert_eq!(client.pushed(), said("hello"));
    assert_eq!(client.pushed(), None);
    assert_eq!((client.kicked(), client.is_closed()), (None, false));
    client.notify(LEAVE, &json!({}));
    assert_eq!(client.kicked().as_deref(), Some("you asked for it"));
    assert!(client.is_closed());
    assert_eq!(gateway.counter("closed_kicked"), 1);
    assert_eq!(gateway.counter("sessions_bound"), 0);
    gateway.stop().unwrap();
}

#[test]
fn a_client_without_heartbeats_is_closed_in_time_and_not_a_moment_before() {
    let mut gateway = start(Config {
        client: config::Client {
            heartbeat: Some(3 * SECOND),
            ..config::Client::default()
        },
        ..Config::default()
    });
    let [mut silent, mut alive] = [(); 2].map(|()| gateway.connect());
    assert_eq!((silent.heartbeats(), alive.heartbeats()), (1, 1));
    gateway.advance(5 * SECOND);
    alive.heartbeat();
    assert_eq!(alive.heartbeats(), 2);
    gateway.advance(SECOND - MS);
    assert!(!silent.is_closed());
    // The wheel looks each 50 ms.
    gateway.advance(MS + 50 * MS);
    assert_eq!((silent.is_closed(), alive.is_closed()), (true, false));
    assert_eq!(gateway.counter("closed_heartbeat_timeout"), 1);
    assert_eq!(gateway.elapsed(), 6 * SECOND + 50 * MS);
}

#[test]
fn a_buffer_scheduler_holds_pushes_until_its_interval_is_over() {
    let mut gateway = start(Config {
        push: config::Push {
            scheduler: Scheduler::Buffer,
            flush_interval: 200 * MS,
            ..config::Push::default()
        },
        ..Config::default()
    });
    let mut client = gateway.connect();
    client.notify(SAY, &json!({"text": "one"}));
    gateway.advance(150 * MS);
    client.notify(SAY, &json!({"text": "two"}));
    gateway.advance(49 * MS);
    assert_eq!(client.pushed(), None);
    gateway.advance(MS);
    assert_eq!(
        [client.pushed(), client.pushed()],
        [said("one"), said("two")]
    );
}

#[test]
fn shards_tell_each_other_who_is_bound_and_what_is_said() {
    let gateway = start(Config {
        session: config::Session {
            duplicate_login: DuplicateLogin::NewestWins,
            ..config::Session::default()
        },
        ..on_shards(4)
    });
    let mut clients: Vec<Client> = (0..4)
        .map(|at| gateway.connect_with(on_shard(at)))
        .collect();
    for (at, client) in clients.iter_mut().enumerate().skip(1) {
        let uid = format!("user {at}");
        assert_eq!(
            client.request(LOGIN, &json!({"uid": uid})),
            json!({"code": 200})
        );
    }
    assert_eq!(gateway.counter("sessions_bound"), 3);
    // Who is on shard 3 is somebody on shard 1, too.
    let mut again = gateway.connect_with(on_shard(1));
    again.request(LOGIN, &json!({"uid": "user 3"}));
    assert_eq!(clients[3].kicked().as_deref(), Some("kick"));
    assert!(clients[3].is_closed() && !clients[1].is_closed());
    assert_eq!(gateway.counter("sessions_bound"), 3);

    clients[0].request(SAY, &json!({"text": "to all"}));
    again.request(SAY, &json!({"text": "to those with a name", "bound": true}));
    let named = [said("to all"), said("to those with a name")];
    for client in [&mut clients[1], &mut again] {
        assert_eq!([client.pushed(), client.pushed()], named);
    }
    assert_eq!(
        [clients[0].pushed(), clients[0].pushed()],
        [said("to all"), None]
    );
    assert!(
        gateway.counter("mesh_parcels") > 0,
        "{}",
        gateway.counters()
    );
}

#[test]
fn a_handler_that_waits_by_the_clock_answers_when_it_has_moved() {
    let mut gateway = start(Config::default());
    let mut client = gateway.connect();
    let id = client.ask(SLOW, &json!({}));
    assert_eq!(
        client.request(ECHO, &1),
        json!(1),
        "the shard does not wait"
    );
    gateway.advance(5 * SECOND - MS);
    assert_eq!(client.answer(id), None);
    gateway.advance(MS);
    assert_eq!(client.answer(id), Some(json!({"slow": true})));
    assert_eq!(client.answer(id), None, "it was taken");
}

#[test]
fn a_request_waits_for_what_another_thread_does() {
    let gateway = start(Config::default());
    let answer = gateway.connect().request(AWAY, &json!({}));
    assert_eq!(answer, json!({"from": "afar"}));
    assert_eq!(gateway.elapsed(), Duration::ZERO);
}

#[test]
fn the_same_test_sees_the_same_bytes() {
    let run = || {
        let mut gateway = start(Config {
            client: config::Client {
                heartbeat: Some(SECOND),
                timeout: Some(2 * SECOND),
                ..config::Client::default()
            },
            ..on_shards(3)
        });
        let mut clients: Vec<Client> = (0..20).map(|_| gateway.connect()).collect();
        let mut transcript = Vec::new();
        for round in 0..10_usize {
            for (at, client) in clients.iter_mut().enumerate() {
                match (at + round) % 7 {
                    0 => client.notify(SAY, &json!({"text": [at, round]})),
                    1 => drop(client.ask(LOGIN, &json!({"uid": format!("user {}", at % 5)}))),
                    2 => client.heartbeat(),
                    3 => drop(client.ask(SLOW, &json!({}))),
                    _ => {}
                }
            }
            gateway.advance(Duration::from_millis(333));
            transcript.extend(clients.iter_mut().map(Client::take_bytes));
        }
        (transcript, gateway.counters())
    };
    let (first, second) = (run(), run());
    assert!(
        first.1.contains("closed_"),
        "somebody was closed: {}",
        first.1
    );
    assert_eq!(first.1, second.1);
    assert!(first.0 == second.0, "the transcripts differ");
}

#[test]
fn a_thousand_clients_hear_each_other() {
    let gateway = start(on_shards(4));
    let mut clients: Vec<Client> = (0..1000).map(|_| gateway.connect()).collect();
    assert_eq!(gateway.counter("connections"), 1000);
    clients[999].notify(SAY, &json!({"text": "hello"}));
    for client in &mut clients {
        assert_eq!(client.pushed(), said("hello"));
        assert_eq!(client.pushed(), None);
    }
    drop(clients);
    let mut last = gateway.connect();
    assert_eq!(last.request(ECHO, &json!("alone")), json!("alone"));
    assert_eq!(gateway.counter("connections"), 1);
}

#[test]
fn codes_of_the_dictionary_stand_for_routes_in_both_directions() {
    let gateway = start(Config {
        client: config::Client {
            use_dict: true,
            ..config::Client::default()
        },
        dictionary: vec!["onSay".into()],
        ..Config::default()
    });
    let mut client = gateway.open(ClientOptions::default());
    let dict = &client.shake_hands()["sys"]["dict"];
    assert!(dict["onSay"].is_u64() && dict[ECHO].is_u64(), "{dict}");
    client.notify(SAY, &json!({"text": "short"}));
    assert_eq!(client.pushed(), said("short"));
    client.notify(SAY, &json!({"text": "short"}));
    let bytes = client.take_bytes();
    assert!(
        !bytes.windows(5).any(|five| five == b"onSay"),
        "{}",
        bytes.escape_ascii()
    );
}

#[test]
fn bodies_with_a_proto_are_protobuf_in_both_directions() {
    let folder = std::env::temp_dir().join(format!("tangelo-memory-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, protos: Value| {
        let path = folder.join(name);
        std::fs::write(&path, protos.to_string()).unwrap();
        Some(path)
    };
    let message = json!({"required string text": 1, "optional uInt32 size": 2});
    let config = Config {
        client: config::Client {
            use_protobuf: true,
            client_protos: file("client.json", json!({ECHO: message, SAY: message})),
            server_protos: file("server.json", json!({ECHO: message, "onSay": message})),
            ..config::Client::default()
        },
        ..Config::default()
    };
    let gateway = start(config);
    std::fs::remove_dir_all(&folder).unwrap();
    let mut client = gateway.connect();
    let body = json!({"text": "hi", "size": 300});
    assert_eq!(client.request(ECHO, &body), body);
    client.notify(SAY, &json!({"text": "hello"}));
    assert_eq!(client.pushed(), said("hello"));
    client.notify(SAY, &json!({"text": "hello"}));
    assert!(!client.take_bytes().contains(&b'{'), "no JSON on the wire");
}

#[test]
fn a_handshake_that_is_refused_is_for_the_test_to_see() {
    let gateway = start(Config {
        client: config::Client {
            accept: vec!["!old-client".into()],
            blacklist: vec!["^10[.]".into()],
            ..config::Client::default()
        },
        ..Config::default()
    });
    let sys = json!({"sys": {"type": "old-client", "version": "1"}});
    let mut refused = gateway.open(ClientOptions {
        handshake: Some(sys),
        ..ClientOptions::default()
    });
    assert_eq!(refused.shake_hands(), json!({"code": 501}));
    assert!(refused.is_closed());
    let mut listed = gateway.open(ClientOptions {
        address: Some(SocketAddr::from(([10, 0, 0, 9], 4000))),
        ..ClientOptions::default()
    });
    assert!(listed.is_closed());
    assert_eq!(gateway.counter("closed_blacklisted"), 1);
}

#[test]
fn bytes_go_in_and_out_as_they_are() {
    let gateway = start(Config::default());
    let mut client = gateway.open(ClientOptions::default());
    client.send_bytes(b"GET / HTTP/1.1\r\n\r\n");
    let answer = client.take_bytes();
    assert!(
        answer.starts_with(b"HTTP/1.1 426"),
        "{}",
        answer.escape_ascii()
    );
    assert!(client.is_closed());
    let mut client = gateway.connect();
    client.send_bytes(&[9, 0, 0, 0]);
    assert!(client.is_closed());
}

#[test]
fn a_client_that_does_not_read_is_closed_at_its_bound() {
    let gateway = start(Config {
        client: config::Client {
            outbox_bytes_max: 64 << 10,
            ..config::Client::default()
        },
        ..Config::default()
    });
    let (mut deaf, mut loud) = (gateway.connect(), gateway.connect());
    let text = "x".repeat(10 << 10);
    let mut told = 0;
    while gateway.counter("closed_outbox_full") == 0 && told < 100 {
        loud.request(SAY, &json!({"text": text}));
        told += 1;
    }
    // What is on its way, and what waits.
    assert!((25..=40).contains(&told), "{told}");
    assert!(deaf.is_closed() && !loud.is_closed());
}

#[test]
fn what_a_client_reads_late_is_all_there() {
    let gateway = start(Config::default());
    let (mut late, mut loud) = (gateway.connect(), gateway.connect());
    let text = "x".repeat(10 << 10);
    for at in 0..60 {
        loud.request(SAY, &json!({"text": format!("{at} {text}")}));
    }
    assert!(gateway.counter("flushes_blocked") > 0, "it fits at once");
    for at in 0..60 {
        assert_eq!(late.pushed(), said(&format!("{at} {text}")));
    }
    assert_eq!(late.pushed(), None);
}

/// A gateway before one chat server.
fn before_chat(dialect: Dialect, shards: usize) -> InMemory {
    start(with_chat(dialect, shards))
}

fn with_chat(dialect: Dialect, shards: usize) -> Config {
    Config {
        dialect,
        servers: vec![config::Server {
            id: "chat-1".into(),
            server_type: "chat".into(),
            host: "chat.example".into(),
            port: 1,
            ..config::Server::default()
        }],
        ..on_shards(shards)
    }
}

const SEND: &str = "chat.chatHandler.send";

#[test]
fn servers_of_the_configuration_are_not_there() {
    let gateway = before_chat(Dialect::Pomelo, 1);
    let mut client = gateway.connect();
    assert_eq!(client.request(SEND, &json!({})), json!({"code": 500}));
    assert_eq!(client.request(ECHO, &1), json!(1));
}

#[test]
fn a_server_of_the_test_gets_what_clients_send_and_answers() {
    for (dialect, shards) in [
        (Dialect::Pomelo, 1),
        (Dialect::Pinus, 1),
        (Dialect::Pomelo, 4),
    ] {
        let gateway = before_chat(dialect, shards);
        let mut chat = gateway.server("chat-1");
        let mut clients: Vec<Client> = (0..shards).map(|_| gateway.connect()).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            client.request(LOGIN, &json!({"uid": format!("user {at}")}));
            let id = client.ask(SEND, &json!({"from": at}));
            let call = chat.next_call();
            assert_eq!(call.message(), Some((SEND, &json!({"from": at}))));
            let session = call.session().expect("a message has a session");
            assert_eq!(session["uid"], json!(format!("user {at}")));
            assert_eq!(client.answer(id), None);
            chat.answer(&call, &json!({"sent": at}));
            assert_eq!(client.answer(id), Some(json!({"sent": at})));
        }
        assert!(chat.called().is_none());
    }
}

#[test]
fn a_server_of_the_test_fails_is_silent_and_dies() {
    let mut gateway = before_chat(Dialect::Pomelo, 1);
    let mut chat = gateway.server("chat-1");
    let mut client = gateway.connect();
    let failed = client.ask(SEND, &json!({}));
    let call = chat.next_call();
    chat.fail(&call, "no");
    assert_eq!(client.answer(failed), Some(json!({"code": 500})));

    let silent = client.ask(SEND, &json!({}));
    let late = chat.next_call();
    gateway.advance(Config::default().rpc.timeout - MS);
    assert_eq!(client.answer(silent), None);
    gateway.advance(51 * MS);
    assert_eq!(client.answer(silent), Some(json!({"code": 500})));
    chat.answer(&late, &json!({}));
    assert_eq!(gateway.counter("rpc_late_answers"), 1);
    assert_eq!(
        gateway.counter("rpc_links_down"),
        0,
        "the link was kept alive"
    );

    let lost = client.ask(SEND, &json!({}));
    let _ = chat.next_call();
    drop(chat);
    assert_eq!(client.answer(lost), Some(json!({"code": 500})));
    assert_eq!(client.request(SEND, &json!({})), json!({"code": 500}));

    // Another one takes its place; the gateway dials it when its pause is over.
    let mut chat = gateway.server("chat-1");
    gateway.advance(60 * SECOND);
    let id = client.ask(SEND, &json!({}));
    let call = chat.next_call();
    chat.answer(&call, &json!("back"));
    assert_eq!(client.answer(id), Some(json!("back")));
}

#[test]
fn a_server_of_the_test_gets_the_calls_of_handlers() {
    let gateway = before_chat(Dialect::Pomelo, 2);
    let mut chat = gateway.server("chat-1");
    let mut client = gateway.connect();
    let id = client.ask(ADD, &"mei");
    let call = chat.next_call();
    let names = [&call.namespace, &call.service, &call.method];
    assert_eq!(names, ["user", "chatRemote", "add"]);
    assert_eq!(
        (call.args.clone(), call.message()),
        (vec![json!("mei")], None)
    );
    chat.answer(&call, &json!(["mei", "li"]));
    assert_eq!(client.answer(id), Some(json!(["mei", "li"])));
}

/// Its calls count among the messages of its session, but it was let in before them.
#[test]
fn a_handler_that_has_begun_is_not_refused_for_its_own_call() {
    async fn add(session: Session) -> Reply<Value> {
        let call = session.cluster().call("chat", "chatRemote.add", &[]);
        Ok(call.await?)
    }
    let config = Config {
        client: config::Client {
            calls_in_flight_max: 1,
            ..config::Client::default()
        },
        ..with_chat(Dialect::Pomelo, 1)
    };
    let gateway = Gateway::new(config).handlers(|_| Router::new().route("entryHandler.add", add));
    let gateway = gateway.in_memory().unwrap();
    let mut chat = gateway.server("chat-1");
    let mut client = gateway.connect();
    let id = client.ask(ADD, &json!({}));
    let call = chat.next_call();
    // One more is refused before it begins.
    assert_eq!(client.request(ADD, &json!({})), json!({"code": 500}));
    chat.answer(&call, &json!(7));
    assert_eq!(client.answer(id), Some(json!(7)));
    // Then there is room again.
    let id = client.ask(ADD, &json!({}));
    let call = chat.next_call();
    chat.answer(&call, &json!(8));
    assert_eq!(client.answer(id), Some(json!(8)));
}

#[test]
fn crons_come_on_their_hour_and_tasks_go_on_until_the_stop() {
    const MINUTE: Duration = Duration::from_secs(60);
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let of_handlers = log.clone();
    let gateway = Gateway::new(on_shards(4)).handlers(move |shard| {
        let write = |what: &'static str| {
            let log = of_handlers.clone();
            move || log.lock().unwrap().push(format!("{what} {}", shard.0))
        };
        let (start, hourly, often, end, last) = (
            write("start"),
            write("hourly"),
            write("often"),
            write("end"),
            write("last"),
        );
        Router::new()
            .on_start(async move |_| {
                start();
                Ok(())
            })
            .cron_at("0 0 * * * *", "hourly", async move |_| hourly())
            .task("often", async move |app: App, stop: Stop| {
                while stop.or(app.sleep(10 * MINUTE)).await.is_some() {
                    often();
                }
                end();
            })
            .before_stop(async move |_| last())
    });
    let mut gateway = gateway.in_memory().unwrap();
    let times = |what: &str| {
        let log = log.lock().unwrap();
        [0, 1, 2, 3].map(|shard| {
            let line = format!("{what} {shard}");
            log.iter().filter(|known| **known == line).count()
        })
    };
    assert_eq!(times("start"), [1; 4]);
    gateway.advance(180 * MINUTE);
    // Once in the process, whatever the minute at the start.
    assert_eq!(times("hourly"), [3, 0, 0, 0]);
    // Each sleep is up to one tick longer.
    assert!(times("often").iter().all(|count| [17, 18].contains(count)));
    assert_eq!((times("end"), times("last")), ([0; 4], [0; 4]));
    gateway.stop().unwrap();
    assert_eq!((times("end"), times("last")), ([1; 4], [1; 4]));
}

#[test]
fn the_stop_closes_clients_and_ends_shards() {
    let closed = Arc::new(Mutex::new(Vec::new()));
    let told = closed.clone();
    let gateway = Gateway::new(on_shards(2)).handlers(move |shard| {
        let told = told.clone();
        router().on_close(move |_| told.lock().unwrap().push(shard.0))
    });
    let gateway = gateway.in_memory().unwrap();
    let mut clients = [(); 2].map(|()| gateway.connect());
    gateway.stop().unwrap();
    assert!(clients.iter_mut().all(Client::is_closed));
    let mut closed = closed.lock().unwrap().clone();
    closed.sort_unstable();
    assert_eq!(closed, [0, 1]);
}

#[test]
fn many_gateways_come_and_go_on_one_thread() {
    let kept = start(on_shards(2));
    for _ in 0..30 {
        let gateway = start(on_shards(2));
        assert_eq!(gateway.connect().request(ECHO, &1), json!(1));
    }
    assert_eq!(kept.connect().request(ECHO, &2), json!(2));
}

#[test]
fn a_bad_configuration_is_an_error() {
    let config = Config {
        client: config::Client {
            accept: vec!["nonsense >=".into()],
            ..config::Client::default()
        },
        ..Config::default()
    };
    let error = Gateway::new(config)
        .in_memory()
        .err()
        .expect("it is refused");
    assert!(error.to_string().contains("client.accept"), "{error}");
}

#[test]
fn handlers_that_cannot_work_are_an_error_at_the_start() {
    let router = || Router::new().route("entryHandler.x", async |_: State<Uid>| {});
    let gateway = Gateway::new(on_shards(2)).handlers(move |_| router());
    let error = gateway.in_memory().err().expect("there is no such state");
    assert!(matches!(error, Error::Handlers(_)), "{error}");
}

#[test]
#[should_panic(expected = "did not arrive: the gateway closed the connection")]
fn a_request_on_a_connection_that_has_ended_says_so() {
    let gateway = start(Config::default());
    let mut client = gateway.connect();
    client.close();
    client.request(ECHO, &1);
}

#[test]
#[should_panic(expected = "call `advance` if a timer has to pass first")]
fn a_request_that_waits_for_the_clock_says_so() {
    let mut gateway = start(Config::default());
    gateway.set_patience(SECOND);
    gateway.connect().request(SLOW, &json!({}));
}

#[test]
#[should_panic(expected = "a call: it did not arrive")]
fn a_server_that_is_not_called_says_so() {
    let mut gateway = before_chat(Dialect::Pomelo, 2);
    gateway.set_patience(SECOND);
    let mut chat = gateway.server("chat-1");
    gateway.connect().notify(SEND, &json!({}));
    let _ = chat.next_call();
    let _ = chat.next_call();
}

thread_local! {
    /// Log lines of this thread, on which the gateways of its test run.
    static LOG: RefCell<Vec<u8>> = RefCell::default();
}

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to collect log lines. A subscriber of one thread alone would miss lines that another
/// thread writes first.
fn collect_log() {
    static COLLECTS: Once = Once::new();
    COLLECTS.call_once(|| {
        let subscriber = tracing_subscriber::fmt().with_ansi(false);
        subscriber.with_writer(|| Log).init();
    });
    LOG.take();
}

fn log_lines(part: &str) -> Vec<String> {
    let text = String::from_utf8(LOG.with_borrow(Clone::clone)).unwrap();
    let lines = text.lines().filter(|line| line.contains(part));
    lines.map(str::to_owned).collect()
}

/// The process is stopped for a while, or its machine is, and what clients and servers send waits.
mod a_pause {
    use tangelo::handler::filter::{serial, timeout, toobusy};

    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(3);
    const TIMEOUT: Duration = Duration::from_secs(6);
    const PAUSES: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(60)];

    fn with_heartbeats(shards: usize) -> Config {
        Config {
            client: config::Client {
                heartbeat: Some(HEARTBEAT),
                ..config::Client::default()
            },
            ..on_shards(shards)
        }
    }

    #[test]
    fn cuts_no_client_whose_heartbeat_waits() {
        for pause in PAUSES {
            // Either what waits is read first, or the tick comes first.
            for sent_before_the_tick_is_due in [true, false] {
                collect_log();
                let mut gateway = start(with_heartbeats(2));
                let mut clients: Vec<Client> = (0..1000).map(|_| gateway.connect()).collect();
                gateway.advance(TIMEOUT - 50 * MS);
                gateway.pause();
                if sent_before_the_tick_is_due {
                    clients.iter_mut().for_each(Client::heartbeat);
                    gateway.advance(pause);
                } else {
                    gateway.advance(pause);
                    clients.iter_mut().for_each(Client::heartbeat);
                }
                gateway.resume();
                // All clients keep sending.
                for _ in 0..4 {
                    gateway.advance(HEARTBEAT);
                    clients.iter_mut().for_each(Client::heartbeat);
                }
                let cut = clients
                    .iter_mut()
                    .filter_map(|client| client.is_closed().then_some(()));
                assert_eq!(cut.count(), 0, "{pause:?}");
                assert_eq!(gateway.counter("pauses"), 2, "one for each shard");
                for shard in 0..2 {
                    let seconds = pause.as_secs();
                    let line = format!("shard {shard} was paused for {seconds}.0 s");
                    let lines = log_lines(&line);
                    assert_eq!(lines.len(), 1, "{line}: {:?}", log_lines(""));
                    assert!(lines[0].contains("WARN"), "{lines:?}");
                    assert!(lines[0].ends_with("; deadlines start again"), "{lines:?}");
                }
            }
        }
    }

    #[test]
    fn gives_a_client_that_is_gone_one_timeout_more() {
        for pause in PAUSES {
            let mut gateway = start(with_heartbeats(1));
            let [mut gone, mut alive] = [(); 2].map(|()| gateway.connect());
            gateway.advance(5 * SECOND);
            gateway.pause();
            gateway.advance(pause);
            alive.heartbeat();
            gateway.resume();
            gateway.advance(TIMEOUT - 100 * MS);
            assert!(!gone.is_closed() && !alive.is_closed(), "{pause:?}");
            alive.heartbeat();
            gateway.advance(250 * MS);
            assert!(gone.is_closed() && !alive.is_closed(), "{pause:?}");
            assert_eq!(gateway.counter("closed_heartbeat_timeout"), 1);
        }
    }

    #[test]
    fn gives_a_connection_without_a_byte_its_idle_time_again() {
        let mut config = with_heartbeats(1);
        config.client.heartbeat = None;
        config.client.timeout = Some(4 * SECOND);
        let mut gateway = start(config);
        let [mut silent, mut late] = [(); 2].map(|()| gateway.open(ClientOptions::default()));
        gateway.advance(3 * SECOND);
        gateway.pause();
        gateway.advance(8 * SECOND);
        gateway.resume();
        gateway.advance(3 * SECOND);
        assert_eq!(late.shake_hands()["code"], 200);
        assert!(!silent.is_closed());
        gateway.advance(SECOND + 150 * MS);
        assert!(silent.is_closed() && !late.is_closed());
        assert_eq!(gateway.counter("closed_idle_timeout"), 1);
    }

    /// 600 ms of each second: what speaks stays, what is gone has two timeouts of the time in between.
    #[test]
    fn that_comes_each_second_keeps_no_dead_client() {
        let mut gateway = start(with_heartbeats(1));
        let [mut gone, mut alive] = [(); 2].map(|()| gateway.connect());
        let mut seconds = 0;
        for second in 1..=60 {
            gateway.advance(400 * MS);
            gateway.pause();
            if second % 3 == 0 {
                alive.heartbeat();
            }
            gateway.advance(600 * MS);
            gateway.resume();
            if !gone.is_closed() {
                seconds = second;
            }
        }
        assert!(!alive.is_closed());
        assert!((6..15).contains(&seconds), "{seconds}");
        assert_eq!(gateway.counter("pauses"), 60);
    }

    #[test]
    fn loses_no_call_whose_answer_waits() {
        let timeout = Config::default().rpc.timeout;
        for (pause, shards) in [(PAUSES[0], 1), (PAUSES[1], 1), (PAUSES[1], 4)] {
            for answered_before_the_tick_is_due in [true, false] {
                let mut gateway = before_chat(Dialect::Pomelo, shards);
                let mut chat = gateway.server("chat-1");
                let mut client = gateway.connect();
                let answered = client.ask(SEND, &json!({}));
                let call = chat.next_call();
                let lost = client.ask(SEND, &json!({}));
                let _ = chat.next_call();
                gateway.advance(timeout - 100 * MS);
                gateway.pause();
                if answered_before_the_tick_is_due {
                    chat.answer(&call, &json!("here"));
                    gateway.advance(pause);
                } else {
                    gateway.advance(pause);
                    chat.answer(&call, &json!("here"));
                }
                gateway.resume();
                assert_eq!(client.answer(answered), Some(json!("here")), "{pause:?}");
                gateway.advance(timeout - 100 * MS);
                assert_eq!(client.answer(lost), None);
                gateway.advance(250 * MS);
                assert_eq!(client.answer(lost), Some(json!({"code": 500})));
                assert_eq!(gateway.counter("rpc_timeouts"), 1);
                assert_eq!(gateway.counter("rpc_links_down"), 0);
                let id = client.ask(SEND, &json!({}));
                let call = chat.next_call();
                chat.answer(&call, &json!("again"));
                assert_eq!(client.answer(id), Some(json!("again")));
            }
        }
    }

    /// A client asks a handler that asks a server, behind filters that watch the time.
    #[test]
    fn makes_no_message_late_whose_handler_had_no_chance_to_run() {
        let gateway = Gateway::new(with_chat(Dialect::Pomelo, 1)).handlers(|_| {
            router().filters(|filters| {
                filters.filter(timeout(3 * SECOND, 500));
                filters.filter(serial(3 * SECOND, Some(Bytes::from("{}"))));
            })
        });
        let mut gateway = gateway.in_memory().unwrap();
        let mut chat = gateway.server("chat-1");
        let mut client = gateway.connect();
        let id = client.ask(ADD, &"mei");
        let call = chat.next_call();
        gateway.advance(2900 * MS);
        gateway.pause();
        gateway.advance(8 * SECOND);
        chat.answer(&call, &json!("added"));
        gateway.resume();
        assert_eq!(client.answer(id), Some(json!("added")));

        // One that is really late has its whole time after the pause, and no more.
        let id = client.ask(ADD, &"mei");
        gateway.advance(2900 * MS);
        gateway.pause();
        gateway.advance(8 * SECOND);
        gateway.resume();
        gateway.advance(2900 * MS);
        assert_eq!(client.answer(id), None);
        assert_eq!(gateway.counter("filter_timeouts"), 0);
        gateway.advance(200 * MS);
        assert_eq!(client.answer(id), Some(json!({"code": 500})));
        assert_eq!(gateway.counter("filter_serial_timeouts"), 1);
        assert_eq!(gateway.counter("filter_timeouts"), 1);
    }

    #[test]
    fn counts_for_what_goes_by_the_clock() {
        let runs = Arc::new(Mutex::new(0));
        let cron = runs.clone();
        let gateway = Gateway::new(on_shards(1)).handlers(move |_| {
            let cron = cron.clone();
            router().cron_at("0 0 * * * *", "hourly", async move |_| {
                *cron.lock().unwrap() += 1;
            })
        });
        let mut gateway = gateway.in_memory().unwrap();
        let mut client = gateway.connect();
        let id = client.ask(SLOW, &json!({}));
        gateway.pause();
        gateway.advance(8 * SECOND);
        gateway.resume();
        assert_eq!(client.answer(id), Some(json!({"slow": true})));
        // Hours that a pause has swallowed are made up for once.
        gateway.pause();
        gateway.advance(3 * 3600 * SECOND);
        gateway.resume();
        assert_eq!(*runs.lock().unwrap(), 1);
    }

    #[test]
    fn makes_toobusy_refuse_what_has_waited() {
        let gateway = Gateway::new(on_shards(1))
            .handlers(|_| router().filters(|filters| filters.global_filter(toobusy(70 * MS))));
        let mut gateway = gateway.in_memory().unwrap();
        let mut client = gateway.connect();
        gateway.advance(SECOND);
        gateway.pause();
        gateway.advance(8 * SECOND);
        let id = client.ask(ECHO, &1);
        gateway.resume();
        assert_eq!(client.answer(id), Some(json!({"code": 500})));
        gateway.advance(100 * MS);
        assert_eq!(client.request(ECHO, &1), json!(1));
        assert_eq!(gateway.counter("filter_toobusy_refused"), 1);
    }

    #[test]
    fn gives_a_start_its_time_again() {
        let (done, when) = flag();
        let when = Arc::new(Mutex::new(Some(when)));
        let config = on_shards(1);
        let timeout = config.start_timeout;
        let gateway = Gateway::new(config).handlers(move |_| {
            let when = when.clone();
            router().on_start(async move |_| {
                let when = when.lock().unwrap().take();
                when.expect("one shard").await;
                Ok(())
            })
        });
        let mut gateway = gateway.in_memory().unwrap();
        gateway.advance(timeout - 100 * MS);
        gateway.pause();
        gateway.advance(60 * SECOND);
        gateway.resume();
        gateway.advance(timeout - 100 * MS);
        done();
        assert_eq!(gateway.connect().request(ECHO, &1), json!(1));
        gateway.stop().unwrap();
    }
}

/// Route and cause in the lines that have a cause, written since the last look.
fn take_failures() -> Vec<(String, String)> {
    let lines = log_lines(" cause=");
    LOG.take();
    let parts = lines.iter().map(|line| {
        let (before, cause) = line.split_once(" cause=").unwrap();
        let route = before
            .split_once(" route=")
            .map_or("\"\"", |(_, route)| route);
        // They are written as Rust writes texts, which is JSON here.
        let [route, cause] = [route, cause].map(|text| serde_json::from_str(text).unwrap());
        (route, cause)
    });
    parts.collect()
}

async fn panics(app: App) -> Value {
    app.sleep(MS).await;
    panic!("boom")
}

fn failing() -> Router {
    Router::new()
        .route("entryHandler.error", async || {
            Err::<(), _>(Failure::new("no such item\nforged line"))
        })
        .route("entryHandler.late", async |app: App| {
            app.sleep(SECOND).await;
            Err::<(), _>(Failure::new("x".repeat(100_000)))
        })
        .route("entryHandler.panic", panics)
        .route("entryHandler.large", async || Json("x".repeat(1 << 24)))
        .route("entryHandler.slow", slow)
        .route("entryHandler.fine", async || Json("fine"))
}

#[test]
fn each_code_500_is_a_line_with_route_and_cause() {
    collect_log();
    for shards in [1, 4] {
        let config = Config {
            client: config::Client {
                calls_in_flight_max: 1,
                ..config::Client::default()
            },
            ..with_chat(Dialect::Pomelo, shards)
        };
        let gateway = Gateway::new(config).handlers(|_| failing());
        let mut gateway = gateway.in_memory().unwrap();
        let mut chat = gateway.server("chat-1");
        let mut client = gateway.connect();
        let line = |route: &str, cause: &str| vec![(route.to_owned(), cause.to_owned())];
        let own = |name: &str| format!("connector.entryHandler.{name}");

        assert_eq!(client.request(&own("fine"), &json!({})), json!("fine"));
        assert_eq!(take_failures(), []);
        for (route, cause) in [
            (own("nothing"), "fail to find handler"),
            (own("error"), "no such item\nforged line"),
            (own("large"), "the response does not fit into a package"),
            ("a.b".into(), "meet unknown route message"),
            ("area.playerHandler.move".into(), "no server of this type"),
        ] {
            assert_eq!(client.request(&route, &json!({})), json!({"code": 500}));
            assert_eq!(take_failures(), line(&route, cause));
        }

        let id = client.ask(&own("panic"), &json!({}));
        gateway.advance(100 * MS);
        assert_eq!(client.answer(id), Some(json!({"code": 500})));
        assert_eq!(take_failures(), line(&own("panic"), "the handler panicked"));
        let id = client.ask(&own("late"), &json!({}));
        gateway.advance(2 * SECOND);
        assert_eq!(client.answer(id), Some(json!({"code": 500})));
        // A cause takes no more of a line than its bound.
        assert_eq!(take_failures(), line(&own("late"), &"x".repeat(1024)));
        let slow = client.ask(&own("slow"), &json!({}));
        client.request(&own("fine"), &json!({}));
        assert_eq!(
            take_failures(),
            line(&own("fine"), "too many messages in flight")
        );
        gateway.advance(6 * SECOND);
        assert_eq!(client.answer(slow), Some(json!({"slow": true})));

        let failed = client.ask(SEND, &json!({}));
        let call = chat.next_call();
        chat.fail(&call, "not in this room");
        assert_eq!(client.answer(failed), Some(json!({"code": 500})));
        assert_eq!(take_failures(), line(SEND, "Error: not in this room"));
        let long = format!("chat.chatHandler.{}", "m".repeat(100));
        let silent = client.ask(&long, &json!({}));
        let _ = chat.next_call();
        gateway.advance(Config::default().rpc.timeout + 100 * MS);
        assert_eq!(client.answer(silent), Some(json!({"code": 500})));
        assert_eq!(
            take_failures(),
            line(&long[..47], "the server did not answer in time")
        );
        let lost = client.ask(SEND, &json!({}));
        let _ = chat.next_call();
        drop(chat);
        assert_eq!(client.answer(lost), Some(json!({"code": 500})));
        assert_eq!(
            take_failures(),
            line(SEND, "the link to the server has ended")
        );
        client.request(SEND, &json!({}));
        assert_eq!(take_failures(), line(SEND, "the server is not reachable"));
    }
}

#[test]
fn a_route_that_only_the_fallback_takes_is_named_as_it_came() {
    collect_log();
    let router = |_| {
        Router::new().fallback(async |app: App| {
            app.sleep(MS).await;
            Err::<(), _>(Failure::new("what?"))
        })
    };
    let mut gateway = Gateway::new(Config::default())
        .handlers(router)
        .in_memory()
        .unwrap();
    let mut client = gateway.connect();
    let id = client.ask("connector.any.thing", &json!({}));
    gateway.advance(100 * MS);
    assert_eq!(client.answer(id), Some(json!({"code": 500})));
    let line = ("connector.any.thing".to_owned(), "what?".to_owned());
    assert_eq!(take_failures(), [line]);
}

#[test]
fn a_refused_handshake_is_a_line_with_its_cause() {
    collect_log();
    let router = |_| Router::new().check_client(|_, version| version == "2");
    let gateway = Gateway::new(Config::default())
        .handlers(router)
        .in_memory()
        .unwrap();
    let mut client = gateway.open(ClientOptions::default());
    assert_eq!(client.shake_hands()["code"], 501);
    let causes: Vec<String> = take_failures()
        .into_iter()
        .map(|(_, cause)| cause)
        .collect();
    assert_eq!(
        causes,
        ["the type or version of the client is not accepted"]
    );
}
