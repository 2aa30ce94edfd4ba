//! A connector's own handlers, filters and remotes run in a backend that loads the delegate of the npm package, without an edit: clients
//! and backends see what they see of a genuine connector.
//!
//! Each test plays the same on the genuine connector and on tangelo, and compares all that was seen.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::in_both_dialects;
use crate::harness::client::{Client, HANG_GUARD, Message};
use crate::harness::free_address;
use crate::harness::frontend::{Frontend, Kind, Knobs};
use crate::harness::gateway::Gateway;
use crate::harness::peers::{Cluster, DELEGATE, Dialect, wait_for};
use crate::harness::process::Process;

const KNOBS: Knobs = Knobs {
    tangelo: &[
        "--set",
        "delegate=entry",
        "--set",
        "delegate_notices=true",
        "--set",
        "client.messages_per_second=off",
    ],
    genuine: &[],
};

/// The clusters of this file's tests, which change nothing in them but their own connector.
fn cluster(dialect: Dialect) -> &'static Cluster {
    static SHARED: [OnceLock<Cluster>; 2] = [const { OnceLock::new() }; 2];
    SHARED[dialect as usize].get_or_init(|| Cluster::delegated(dialect))
}

/// One play on one frontend.
pub(super) struct Play<'a> {
    pub(super) frontend: &'a Frontend<'a>,
    /// A uid of this play alone.
    pub(super) uid: String,
    seen: Vec<String>,
}

impl Play<'_> {
    pub(super) fn client(&self) -> Client {
        self.frontend.client(self.frontend.kind().transports()[0])
    }

    /// Notes something that must be the same on each frontend.
    pub(super) fn note(&mut self, what: &str, text: &str) {
        let text = format!("{what}: {text}").replace(&self.uid, "UID");
        let text = text.replace(self.frontend.id(), "ID");
        // A genuine connector listens on all addresses.
        let text = text.replace("::ffff:", "");
        self.seen.push(text);
    }

    /// Asks a handler of the connector.
    pub(super) fn ask(&mut self, client: &mut Client, method: &str, body: Value) {
        let route = format!("connector.entryHandler.{method}");
        let answer = client.request_text(route.as_str(), body.to_string());
        self.note(method, &answer);
    }

    /// Asks a handler of the connector until it answers with this text, and notes that.
    fn ask_until(&mut self, client: &mut Client, method: &str, body: &Value, expected: &str) {
        let route = format!("connector.entryHandler.{method}");
        let answer = wait_for(expected, || {
            let answer = client.request_text(route.as_str(), body.to_string());
            answer.contains(expected).then_some(answer)
        });
        self.note(method, &answer);
    }

    /// Asks the backend, which asks the connector.
    pub(super) fn ask_backend(&mut self, client: &mut Client, method: &str, body: Value) {
        let route = format!("chat.chatHandler.{method}");
        let answer = client.request_text(route.as_str(), body.to_string());
        self.note(&body.to_string(), &answer);
    }

    /// Logs in, and notes all that comes up to the answer.
    pub(super) fn login(&mut self, client: &mut Client, room: Value) {
        let body = json!({"uid": self.uid, "room": room}).to_string();
        client.request(1, "connector.entryHandler.login", body);
        loop {
            let text = |body| String::from_utf8(body).expect("bodies are UTF-8");
            match client.next_message() {
                Message::Push { route, body } => self.note(&route, &text(body)),
                Message::Response { body, .. } => return self.note("login", &text(body)),
            }
        }
    }

    /// Waits until the log of the connector's code has this many lines with the uid, and notes them.
    fn log(&mut self, lines: usize) {
        self.log_of(&self.uid.clone(), lines);
    }

    /// The same for lines with another part.
    fn log_of(&mut self, part: &str, lines: usize) {
        let mut client = self.client();
        let body = json!({"part": part}).to_string();
        let log = wait_for("lines of the log", || {
            let log = client.request_text("connector.entryHandler.log", body.as_str());
            let read: Value = serde_json::from_str(&log).expect("JSON");
            (read["lines"].as_array().expect("a list").len() >= lines).then_some(log)
        });
        self.note("log", &log);
    }
}

/// Waits until the delegate can reach a frontend.
pub(super) fn wait_until_reached(frontend: &Frontend<'_>) {
    wait_for("the delegate to know the frontend", || {
        let client = frontend.connect(frontend.kind().transports()[0]);
        let mut client = client.try_open()?;
        let body = json!({"uid": "somebody", "room": 1}).to_string();
        client.request_text("connector.entryHandler.login", body);
        let room = client.request_text("connector.entryHandler.room", "{}");
        room.contains("somebody").then_some(())
    });
}

/// Plays on the genuine connector and on tangelo; both must show the same.
fn play_on_each(dialect: Dialect, play: fn(&mut Play<'_>)) {
    play_with(KNOBS, dialect, play);
}

pub(super) fn play_with(knobs: Knobs, dialect: Dialect, play: fn(&mut Play<'_>)) {
    play_in(cluster(dialect), knobs, play);
}

/// The same in a cluster that the test may have for itself, so that no other test changes the list of servers.
pub(super) fn play_in(cluster: &Cluster, knobs: Knobs, play: fn(&mut Play<'_>)) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut genuine = None;
    for kind in [Kind::Genuine].into_iter().chain(Kind::TANGELOS) {
        let frontend = Frontend::start(cluster, kind, knobs);
        wait_until_reached(&frontend);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut on = Play {
            frontend: &frontend,
            uid: format!("user-{number}-"),
            seen: Vec::new(),
        };
        play(&mut on);
        let genuine = genuine.get_or_insert_with(|| on.seen.clone());
        assert_eq!(on.seen, *genuine, "{kind}");
    }
}

fn handlers_and_filters(on: &mut Play<'_>) {
    let mut client = on.client();
    on.ask(&mut client, "view", json!({"a": [1.5, "é"]}));
    on.ask(&mut client, "view", json!({"refuse": true}));
    on.ask(&mut client, "address", json!({}));
    on.ask(&mut client, "nobody", json!({}));
    on.ask(&mut client, "fail", json!({}));
    on.login(&mut client, json!([1, "x"]));
    on.ask(&mut client, "room", json!({}));
    on.ask(&mut client, "rebind", json!({}));
    on.ask(&mut client, "change", json!({"room": {"x": 2}}));
    on.ask(&mut client, "room", json!({}));
    on.ask(&mut client, "online", json!({"uid": on.uid}));
    on.ask(&mut client, "logout", json!({}));
    on.ask(&mut client, "online", json!({"uid": on.uid}));
    on.login(&mut client, json!(7));
    on.ask(&mut client, "logout", json!({}));
    on.log(5);
    client.request(9, "connector.entryHandler.constructor", "{}");
    assert_eq!(client.wait_kick(), "attack");
}

fn ends_of_sessions(on: &mut Play<'_>) {
    let mut other = on.client();
    let ends = [
        ("kick", json!({"uid": on.uid, "reason": "bye"})),
        ("kick", json!({"uid": on.uid})),
        ("kickOne", json!({"uid": on.uid})),
    ];
    for (number, (method, body)) in (1..).zip(ends) {
        let mut client = on.client();
        on.login(&mut client, json!(number));
        on.ask(&mut other, method, body);
        let last = std::iter::from_fn(|| client.next_package()).last();
        on.note("the end", &format!("{last:?}"));
        on.ask(&mut other, "online", json!({"uid": on.uid}));
        on.log(3 * number);
    }
}

/// A backend binds, changes and unbinds a session that never sends a message to the connector.
fn changes_of_others(on: &mut Play<'_>) {
    let [mut client, mut other] = [(); 2].map(|()| on.client());
    let uid = json!({"uid": on.uid});
    for room in [3, 4] {
        let login = json!({"uid": on.uid, "room": room});
        on.ask_backend(&mut client, "login", login);
        let found = format!(r#""rooms":[{room}]"#);
        on.ask_until(&mut other, "online", &uid, &found);
        on.ask_backend(&mut client, "logout", json!({}));
        on.ask_until(&mut other, "online", &uid, r#""rooms":[]"#);
    }
    on.ask_backend(&mut client, "login", json!({"uid": on.uid, "room": 5}));
    on.ask_until(&mut other, "online", &uid, r#""rooms":[5]"#);
    on.ask(&mut client, "address", json!({}));
    on.ask(&mut client, "change", json!({"room": 6}));
    on.ask_until(&mut other, "online", &uid, r#""rooms":[6]"#);
    drop(client);
    on.log(4);
    on.ask(&mut other, "online", uid);
}

mod a_delegate_knows_sessions_that_never_sent_it_a_message {
    use super::*;

    fn promise(dialect: Dialect) {
        play_on_each(dialect, changes_of_others);
    }

    in_both_dialects!(promise);
}

fn remotes(on: &mut Play<'_>) {
    let mut client = on.client();
    let mut calls = vec![
        ("where", json!([])),
        ("fail", json!(["no"])),
        ("boom", json!([])),
    ];
    if on.frontend.dialect() == Dialect::Pomelo {
        calls.push(("several", json!([])));
    }
    for (method, args) in calls {
        on.ask_backend(&mut client, "call", json!({"method": method, "args": args}));
    }
    for service in ["nobody", "entryRemote"] {
        on.ask_backend(&mut client, "unknown", json!({"service": service}));
    }
    let mut kicked = on.client();
    on.login(&mut kicked, json!(1));
    let kick = json!({"method": "kick", "args": [on.uid]});
    on.ask_backend(&mut client, "call", kick.clone());
    let kick_text = kicked.wait_kick();
    on.note("kick", &kick_text);
    on.ask_backend(&mut client, "call", kick);
    on.log(3);
}

fn crons_and_lifecycle(on: &mut Play<'_>) {
    on.log_of("lifecycle", 2);
    on.log_of(&format!("tick of {}", on.frontend.id()), 1);
}

/// The servers of a type get what the project's function says, in the order in which the client sent it.
fn routes(on: &mut Play<'_>) {
    let mut client = on.client();
    for to in [0, 1, 2, 3, 0] {
        on.ask_backend(&mut client, "where", json!({"to": to}));
    }
    on.login(&mut client, json!(5));
    on.ask_backend(&mut client, "where", json!({"to": 1}));
    on.ask_backend(&mut client, "where", json!({"to": 1, "fail": true}));
    on.ask_backend(&mut client, "nobody", json!({}));
    for id in 100..150 {
        client.request(
            id,
            "chat.chatHandler.where",
            json!({"to": 1, "id": id}).to_string(),
        );
    }
    for id in 100..150 {
        let Message::Response { id: answered, .. } = client.next_message() else {
            panic!("a push");
        };
        assert_eq!(answered, id);
    }
    on.log(1);
}

mod the_delegate_sends_messages_on_by_the_route_function_of_the_project {
    use super::*;

    const ROUTED: Knobs = Knobs {
        tangelo: &[
            "--set",
            "delegate=entry",
            "--set",
            "delegate_notices=true",
            "--set",
            "route.chat=delegate",
        ],
        genuine: &[],
    };

    fn promise(dialect: Dialect) {
        play_with(ROUTED, dialect, routes);
    }

    in_both_dialects!(promise);
}

/// Two connectors are two servers, also where one delegate runs their code.
fn two_connectors(dialect: Dialect) {
    let mut genuine = None;
    for (run, kind) in (0..).zip([Kind::Genuine].into_iter().chain(Kind::TANGELOS)) {
        let start = || Frontend::start(cluster(dialect), kind, KNOBS);
        let frontends = [start(), start()];
        frontends.iter().for_each(wait_until_reached);
        let mut plays = frontends.each_ref().map(|frontend| Play {
            frontend,
            uid: format!("both-{run}-"),
            seen: Vec::new(),
        });
        let mut clients = plays.each_ref().map(Play::client);
        for (number, on) in plays.iter_mut().enumerate() {
            on.ask(&mut clients[number], "view", json!({}));
            on.login(&mut clients[number], json!(number));
        }
        let uid = json!({"uid": plays[0].uid, "reason": "bye"});
        for (number, on) in plays.iter_mut().enumerate() {
            on.ask(&mut clients[number], "online", uid.clone());
        }
        let mut other = plays[0].client();
        plays[0].ask(&mut other, "kick", uid.clone());
        assert_eq!(clients[0].wait_kick(), "bye");
        plays[1].ask(&mut clients[1], "online", uid);
        plays[1].ask(&mut clients[1], "room", json!({}));
        let seen = plays.map(|on| on.seen);
        let genuine = genuine.get_or_insert_with(|| seen.clone());
        assert_eq!(seen, *genuine, "{kind}");
    }
}

mod each_connector_of_a_delegate_has_its_own_application_and_sessions {
    use super::*;

    in_both_dialects!(two_connectors);
}

/// The sessions live in tangelo: a new delegate serves them on, and tells listeners that were added since.
fn a_restart(dialect: Dialect) {
    let cluster = Cluster::delegated(dialect);
    let frontend = Frontend::start(&cluster, Kind::Tangelo { shards: 4 }, KNOBS);
    wait_until_reached(&frontend);
    let login = |client: &mut Client, number: usize| {
        let body = json!({"uid": format!("user-{number}"), "room": number}).to_string();
        client.request_text("connector.entryHandler.login", body)
    };
    let mut clients: Vec<Client> = (0..8)
        .map(|_| frontend.client(frontend.kind().transports()[0]))
        .collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(login(client, number), r#"{"code":200}"#);
    }
    cluster.kill(DELEGATE);
    for client in &mut clients {
        let room = client.request_text("connector.entryHandler.room", "{}");
        assert_eq!(room, r#"{"code":500}"#);
    }
    cluster.restart(DELEGATE);
    // It knows the sessions before any of them sends it a message.
    let mut other = frontend.client(frontend.kind().transports()[0]);
    for number in 0..clients.len() {
        let uid = json!({"uid": format!("user-{number}")}).to_string();
        let found = format!(r#""rooms":[{number}]"#);
        wait_for("the list of sessions", || {
            let online = other.request_text("connector.entryHandler.online", uid.as_str());
            online.contains(&found).then_some(())
        });
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let expected = json!({"uid": format!("user-{number}"), "room": number});
        wait_for("the new delegate", || {
            let room = client.request_text("connector.entryHandler.room", "{}");
            let mut room: Value = serde_json::from_str(&room).expect("JSON");
            room.as_object_mut().expect("an object").remove("all");
            (room == expected).then_some(())
        });
        assert_eq!(login(client, number), r#"{"code":200}"#);
    }
    let mut last = clients.pop().expect("a client");
    drop(clients);
    let closed = wait_for("the closes", || {
        let log = last.request_text("connector.entryHandler.log", r#"{"part":"closed user-"}"#);
        let log: Value = serde_json::from_str(&log).expect("JSON");
        let lines = log["lines"].as_array().expect("a list");
        let mut lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        lines.sort();
        (lines.len() >= 7).then_some(lines)
    });
    let expected = (0..7).map(|n| format!("\"closed user-{n} of {n}: undefined\""));
    assert_eq!(closed, expected.collect::<Vec<_>>());
}

mod a_delegate_that_was_restarted_serves_the_sessions_on {
    use super::*;

    in_both_dialects!(a_restart);
}

mod the_handlers_and_filters_of_a_connector_run_as_there {
    use super::*;

    fn promise(dialect: Dialect) {
        play_on_each(dialect, handlers_and_filters);
    }

    in_both_dialects!(promise);
}

mod the_connector_s_code_sees_and_causes_ends_of_sessions {
    use super::*;

    fn promise(dialect: Dialect) {
        play_on_each(dialect, ends_of_sessions);
    }

    in_both_dialects!(promise);
}

mod crons_and_the_lifecycle_of_a_connector_run_as_there {
    use super::*;

    fn promise(dialect: Dialect) {
        play_on_each(dialect, crons_and_lifecycle);
    }

    in_both_dialects!(promise);
}

mod the_remotes_of_a_connector_answer_as_there {
    use super::*;

    fn promise(dialect: Dialect) {
        play_on_each(dialect, remotes);
    }

    in_both_dialects!(promise);
}

/// Runs a script that checks a part of the package without a framework.
pub(super) fn run_check(script: &str) {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let node = Process::start("node", tree, "node", &[script]);
    let (status, printed) = node.finish(HANG_GUARD);
    assert!(status.success(), "{printed}");
}

#[test]
fn an_answer_waits_for_the_calls_before_it_and_not_for_ever() {
    run_check("tests/npm/outstanding.js");
}

#[test]
fn a_session_whose_end_was_not_told_is_found() {
    run_check("tests/npm/sessions.js");
}

/// Time that each part of a stream waits on its way to the frontend.
const DELAY: Duration = Duration::from_millis(20);

const LOGINS: usize = 1000;
const CLIENTS: usize = 50;

/// Carries connections on, and delays the bytes to `to`.
fn slow_down(listener: TcpListener, to: SocketAddr) {
    for stream in listener.incoming() {
        let stream = stream.expect("a connection");
        let onward = TcpStream::connect(to).expect("the frontend listens");
        for stream in [&stream, &onward] {
            stream.set_nodelay(true).expect("an open connection");
        }
        let copy = |stream: &TcpStream| stream.try_clone().expect("an open connection");
        let (back, back_to) = (copy(&onward), copy(&stream));
        thread::spawn(move || carry(stream, onward, DELAY));
        thread::spawn(move || carry(back, back_to, Duration::ZERO));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let mut part = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut part) {
        thread::sleep(delay);
        if to.write_all(&part[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// A login binds and sets values without waiting, and its calls travel slower than its answer could: the next message
/// of each client finds all of it.
fn no_login_is_lost(dialect: Dialect) {
    // Its own: the port of the connector stays taken.
    let cluster = Cluster::delegated(dialect);
    let connector = cluster.take_connector();
    let listener = TcpListener::bind(cluster.rpc_address(connector.id())).expect("it is free");
    let rpc = free_address();
    thread::spawn(move || slow_down(listener, rpc));
    let listen = format!("rpc.listen={rpc}");
    let own = [
        "--app-dir",
        cluster.app_dir(),
        "--id",
        connector.id(),
        "--dialect",
        dialect.name(),
        "--set",
        &listen,
        "--shards",
        "2",
    ];
    let args: Vec<&str> = own.iter().chain(KNOBS.tangelo).copied().collect();
    let gateway = Gateway::start(&args);
    let address = gateway.address();
    cluster.wait_until_known(connector.id());
    let login = |uid: String, pause: Duration| {
        let mut client = Client::tcp(address).open();
        let body = json!({"uid": uid, "room": uid}).to_string();
        client.request_text("connector.entryHandler.login", body);
        thread::sleep(pause);
        let room = client.request_text("connector.entryHandler.room", "{}");
        let expected = json!({"uid": uid, "room": uid, "all": {"room": uid}});
        serde_json::from_str::<Value>(&room).expect("JSON") == expected
    };
    wait_for("the delegate to know the frontend", || {
        login("first".to_owned(), 10 * DELAY).then_some(())
    });
    let kept: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let login = move |n: &usize| login(format!("{number}-{n}"), Duration::ZERO);
                scope.spawn(move || (0..LOGINS / CLIENTS).filter(login).count())
            })
            .collect();
        let counts = threads
            .into_iter()
            .map(|thread| thread.join().expect("logins"));
        counts.sum()
    });
    assert_eq!(kept, LOGINS);
}

mod no_message_after_a_login_that_waits_for_nothing_is_lost {
    use super::*;

    in_both_dialects!(no_login_is_lost);
}

/// CPU time of a process so far, in ticks of the kernel.
fn cpu_ticks(pid: u64) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("the name ends");
    let fields = fields.split(' ').skip(11).take(2);
    fields
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum()
}

#[test]
#[ignore = "a measurement: it prints the CPU of a delegate and of a plain backend for one message"]
fn the_cost_of_a_message_in_a_delegate() {
    const ROUNDS: usize = 7;
    const MESSAGES: u32 = 40_000;
    const IN_FLIGHT: u32 = 16;
    let cluster = cluster(Dialect::Pomelo);
    let frontend = Frontend::start(cluster, Kind::TANGELOS[0], KNOBS);
    wait_until_reached(&frontend);
    let mut client = frontend.client(frontend.kind().transports()[0]);
    client.request_text(
        "connector.entryHandler.login",
        json!({"uid": "measured", "room": {"lane": 0}}).to_string(),
    );
    let kinds = [
        (&[DELEGATE][..], "connector.entryHandler.room"),
        (&["chat-1", "chat-2"], "chat.chatHandler.where"),
    ];
    let ticks = |ids: &[&str]| -> u64 { ids.iter().map(|id| cpu_ticks(cluster.pid(id))).sum() };
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let [delegate, plain] = kinds.map(|(servers, route)| {
                let before = ticks(servers);
                for first in (1..=MESSAGES).step_by(IN_FLIGHT as usize) {
                    let ids = first..first + IN_FLIGHT;
                    ids.clone().for_each(|id| client.request(id, route, "{}"));
                    ids.for_each(|id| drop(client.wait_response(id)));
                }
                (ticks(servers) - before) as f64
            });
            println!("{delegate} and {plain} ticks for {MESSAGES} messages");
            delegate / plain
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("delegate/plain: {ratios:.2?}");
}
