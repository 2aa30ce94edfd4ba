//! Seeded traffic over a gateway in memory, and a hash of every byte that it sends.
//!
//! Clients over TCP and WebSocket say what clients say, and what they should not; their bytes are cut
//! anywhere, they come late, and some clients do not read. A server answers late, out of order, with an
//! error or not at all, and goes and comes back. Nothing acts while the gateway still has something to do, so
//! a seed gives the same bytes each time.
//!
//! `tests/simulation/hashes.txt` has the hashes of [`SEEDS`] seeds, on one shard and on four. A change that
//! should change no byte leaves that file as it is.
//!
//! * `SIMULATION_SEEDS=1000 cargo test --test simulation`: all seeds instead of the first
//! * `SIMULATION_SEED=17 cargo test --test simulation -- --nocapture`: one seed, and what each connection got
//! * `SIMULATION_REWRITE=1 cargo test --test simulation`: writes the file anew; the commit says which bytes
//!   have changed and why

#![cfg(feature = "runtime")]

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tangelo::config::{self, Dialect, DuplicateLogin, Scheduler};
use tangelo::handler::{App, Failure, Json, Reply, Router, Session};
use tangelo::memory::{Client, ClientOptions, InMemory, Server, ServerCall};
use tangelo::{Config, Gateway};

#[path = "simulation/ledger.rs"]
mod ledger;
#[path = "differential/random.rs"]
mod random;

use random::Random;

/// Seeds that the file has.
const SEEDS: u64 = 1_000;

/// Seeds that run without a wish.
const SEEDS_OF_CI: u64 = 100;

/// Steps of one seed.
const STEPS: usize = 400;

const CLIENTS_MAX: usize = 8;

/// Longer than a closed client may take to close its side.
const LINGER: Duration = Duration::from_secs(3);

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/simulation/hashes.txt");

const LEAVE: &str = "connector.h.leave";

const ROUTES: [&str; 9] = [
    "connector.h.echo",
    "connector.h.bind",
    "connector.h.set",
    "connector.h.push",
    "connector.h.tell",
    "connector.h.sleep",
    "connector.h.fail",
    "connector.h.call",
    "connector.h.nobody",
];

const FORWARDED: [&str; 3] = ["chat.chatHandler.send", "chat.h.x", "ghost.h.x"];

#[test]
fn each_seed_gives_the_bytes_that_it_gave_before() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    if let Some(seed) = number("SIMULATION_SEED") {
        for shards in [1, 4] {
            println!(
                "seed {seed} on {shards} shards: {:016x}",
                play(seed, shards, true)
            );
        }
        return;
    }
    if std::env::var("SIMULATION_REWRITE").is_ok() {
        let lines = (0..SEEDS).map(line);
        std::fs::write(FILE, lines.collect::<String>()).expect("the file can be written");
        return;
    }
    let seeds = number("SIMULATION_SEEDS").unwrap_or(SEEDS_OF_CI);
    let known = std::fs::read_to_string(FILE).expect("the file of hashes");
    assert_eq!(known.lines().count(), SEEDS as usize);
    for (seed, known) in (0..seeds).zip(known.split_inclusive('\n')) {
        assert_eq!(line(seed), known, "SIMULATION_SEED={seed} shows what it is");
    }
}

/// A seed's line in the file.
fn line(seed: u64) -> String {
    let [one, four] = [1, 4].map(|shards| play(seed, shards, false));
    format!("{seed} {one:016x} {four:016x}\n")
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(start, step)
}

/// Runs one seed; the hash of the hashes of all connections, in the order in which they were opened.
fn play(seed: u64, shards: usize, shows: bool) -> u64 {
    let mut random = Random::of_seed(seed);
    let config = config(&mut random, shards);
    let gateway = Gateway::new(config).handlers(|_| router()).in_memory();
    let mut world = World {
        random,
        gateway: gateway.unwrap_or_else(|error| panic!("{error}")),
        players: Vec::new(),
        server: None,
        calls: Vec::new(),
        received: Vec::new(),
    };
    for _ in 0..STEPS {
        world.step();
    }
    world.end(shows)
}

/// One of the configurations that matter to the bytes. The guards are off, because the reference has none, and the
/// hashes are those of its bytes.
fn config(random: &mut Random, shards: usize) -> Config {
    let server = |id: &str, server_type: &str| config::Server {
        id: id.into(),
        server_type: server_type.into(),
        host: id.into(),
        port: 1,
        ..config::Server::default()
    };
    let exact = Config::exact();
    Config {
        shards: Some(shards),
        dialect: *random.pick(&[Dialect::Pomelo, Dialect::Pinus]),
        servers: vec![server("chat-1", "chat"), server("ghost-1", "ghost")],
        client: config::Client {
            heartbeat: *random.pick(&[None, Some(Duration::from_secs(3))]),
            use_dict: random.one_in(2),
            // One package of an echo that is long fits, two do not.
            outbox_bytes_max: *random.pick(&[128 << 10, 4 << 20]),
            calls_in_flight_max: *random.pick(&[4, 1_000]),
            max_connections: *random.pick(&[None, Some(5)]),
            ..exact.client
        },
        session: config::Session {
            duplicate_login: *random.pick(&[
                DuplicateLogin::Allow,
                DuplicateLogin::Refuse,
                DuplicateLogin::NewestWins,
            ]),
            ..exact.session
        },
        push: config::Push {
            scheduler: *random.pick(&[Scheduler::Direct, Scheduler::Buffer]),
            ..exact.push
        },
        rpc: config::Rpc {
            timeout: Duration::from_secs(2),
            keepalive: Duration::from_secs(1),
            calls_in_flight_max: *random.pick(&[3, 1_000]),
            ..exact.rpc
        },
        ..exact
    }
}

fn router() -> Router {
    Router::new()
        .route("h.echo", async |body: Bytes| body)
        .route("h.bind", bind)
        .route("h.set", set)
        .route("h.push", push)
        .route("h.tell", tell)
        .route("h.sleep", sleep)
        .route("h.fail", async || -> Reply<()> {
            Err(Failure::new("it fails"))
        })
        .route("h.leave", async |session: Session| {
            session.kick(Some("leave"))
        })
        .route("h.call", call)
}

async fn bind(mut session: Session, Json(body): Json<Value>) -> Reply<Value> {
    let uid = format!("user-{}", body["n"]);
    session.bind(uid).await?;
    Ok(serde_json::from_slice(&session.export()).unwrap_or_default())
}

async fn set(mut session: Session, Json(body): Json<Value>) -> Reply<Value> {
    session.set("n", body["n"].clone());
    session.push_setting("n")?;
    Ok(json!({ "code": 200 }))
}

async fn push(session: Session, Json(body): Json<Value>) -> Reply<Value> {
    let sent = session.push("onPush", &body)?;
    Ok(json!({ "sent": sent }))
}

/// Pushes to all sessions, or to those of two users, on any shard.
async fn tell(app: App, Json(body): Json<Value>) -> Reply<Value> {
    if body["n"] == 0 {
        app.broadcast("onTell", &body)?;
    } else {
        app.push_to_uids(&["user-1", "user-2"], "onTell", &body)
            .await?;
    }
    Ok(json!({ "code": 200 }))
}

async fn sleep(app: App, Json(body): Json<Value>) -> Value {
    app.sleep(Duration::from_millis(300 * body["n"].as_u64().unwrap_or(1)))
        .await;
    body
}

async fn call(app: App, Json(body): Json<Value>) -> Reply<Value> {
    let call = app.cluster().call("chat", "chatRemote.add", &[body]);
    Ok(call.await?)
}

/// A client, with the bytes that it still has to send and those that it received.
struct Player {
    client: Client,
    is_websocket: bool,
    /// It reads only at the end.
    is_deaf: bool,
    unsent: VecDeque<u8>,
    received: Vec<u8>,
    is_closed: bool,
    last_id: u8,
}

struct World {
    random: Random,
    gateway: InMemory,
    players: Vec<Player>,
    server: Option<Server>,
    /// Calls that the server has not answered.
    calls: Vec<ServerCall>,
    /// Bytes of its links, one after the other.
    received: Vec<u8>,
}

impl World {
    fn step(&mut self) {
        match self.random.below(20) {
            0 | 1 => self.open(),
            2..=10 => self.say(),
            11 => self.time(),
            12 => self.close(),
            13 => self.server(),
            14 | 15 => self.answer(),
            16 => self.read(),
            _ => self.send(),
        }
    }

    fn open(&mut self) {
        let here = self.players.iter().filter(|player| !player.is_closed);
        if here.count() >= CLIENTS_MAX {
            return;
        }
        let mut player = Player {
            client: self.gateway.open(ClientOptions::default()),
            is_websocket: self.random.one_in(2),
            is_deaf: self.random.one_in(4),
            unsent: VecDeque::new(),
            received: Vec::new(),
            is_closed: false,
            last_id: 0,
        };
        if player.is_websocket {
            let head = "GET / HTTP/1.1\r\nHost: game\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
            player.unsent.extend(head.bytes());
        }
        player.package(
            1,
            br#"{"sys":{"type":"simulation","version":"1"},"user":{}}"#,
        );
        if !self.random.one_in(10) {
            player.package(2, b"");
        }
        self.players.push(player);
        let last = self.players.len() - 1;
        self.deliver(last);
    }

    /// A client says one thing, of which some or all leaves at once.
    fn say(&mut self) {
        let Some(at) = self.pick() else { return };
        let random = &mut self.random;
        let player = &mut self.players[at];
        match random.below(40) {
            0 => player
                .unsent
                .extend((0..random.below(30)).map(|_| random.next() as u8)),
            1 => player.package(random.below(8) as u8, b"\xff{}"),
            2 => player.package(4, &[random.next() as u8, random.next() as u8, 7]),
            3..=6 => player.package(3, b""),
            other => {
                let route = match other {
                    7 => LEAVE,
                    8..=27 => random.pick(&ROUTES),
                    _ => random.pick(&FORWARDED),
                };
                let long = match random.below(12) {
                    0 => "x".repeat(100 << 10),
                    _ => String::new(),
                };
                let body = match random.below(20) {
                    0 => "{\"n\":".into(),
                    _ => json!({ "n": random.below(4), "long": long }).to_string(),
                };
                player.message(random.one_in(4), route, &body);
            }
        }
        if random.one_in(3) {
            self.send_some(at);
        } else {
            self.deliver(at);
        }
    }

    /// Any client that is still there.
    fn pick(&mut self) -> Option<usize> {
        let here = self.players.iter().enumerate();
        let here = here.filter(|(_, player)| !player.is_closed);
        let here: Vec<usize> = here.map(|(at, _)| at).collect();
        (!here.is_empty()).then(|| *self.random.pick(&here))
    }

    /// Everything that a client has to send.
    fn deliver(&mut self, at: usize) {
        let player = &mut self.players[at];
        let bytes: Vec<u8> = player.unsent.drain(..).collect();
        player.client.send_bytes(&bytes);
        self.settle();
    }

    /// The front of it, cut anywhere.
    fn send_some(&mut self, at: usize) {
        let player = &mut self.players[at];
        let count = self.random.below(player.unsent.len() + 1);
        let bytes: Vec<u8> = player.unsent.drain(..count).collect();
        player.client.send_bytes(&bytes);
        self.settle();
    }

    fn send(&mut self) {
        if let Some(at) = self.pick() {
            self.send_some(at);
        }
    }

    fn time(&mut self) {
        let ms = *self.random.pick(&[1, 20, 50, 300, 2_000, 7_000]);
        self.gateway.advance(Duration::from_millis(ms));
        self.settle();
    }

    fn close(&mut self) {
        if self.random.one_in(3)
            && let Some(at) = self.pick()
        {
            let player = &mut self.players[at];
            player.read();
            player.client.close();
            player.is_closed = true;
            self.settle();
        }
    }

    /// The server comes, or goes with all its links.
    fn server(&mut self) {
        if self.server.take().is_none() {
            self.server = Some(self.gateway.server("chat-1"));
        } else {
            self.calls.clear();
        }
        self.settle();
    }

    /// One of the calls gets an answer, an error, or none ever.
    fn answer(&mut self) {
        let (Some(server), false) = (&mut self.server, self.calls.is_empty()) else {
            return;
        };
        let call = self.calls.swap_remove(self.random.below(self.calls.len()));
        match self.random.below(6) {
            0 => server.fail(&call, "it does not want to"),
            1 => {}
            _ => server.answer(&call, &json!({ "args": call.args.first() })),
        }
        self.settle();
    }

    /// A deaf client reads.
    fn read(&mut self) {
        if let Some(at) = self.pick() {
            self.players[at].read();
            self.settle();
        }
    }

    /// Takes what has come of it all.
    fn settle(&mut self) {
        if let Some(server) = &mut self.server {
            while let Some(call) = server.called() {
                self.calls.push(call);
            }
            self.received.extend(server.take_bytes());
        }
        for player in &mut self.players {
            if !player.is_deaf && !player.is_closed {
                player.read();
            }
        }
    }

    fn end(mut self, shows: bool) -> u64 {
        for _ in 0..3 {
            self.gateway.advance(Duration::from_secs(1));
            self.settle();
        }
        let mut all = Vec::new();
        for player in &mut self.players {
            if !player.is_closed {
                player.read();
            }
            all.push(&player.received);
        }
        all.push(&self.received);
        if shows {
            for (at, bytes) in all.iter().enumerate() {
                println!("--- connection {at}\n{}", bytes.escape_ascii());
            }
        }
        let hashes = all.iter().flat_map(|bytes| hash(bytes).to_be_bytes());
        let hash = hash(&hashes.collect::<Vec<u8>>());
        self.check_ledger();
        hash
    }

    /// Checks that each connection and each message has an end or is still there, and then that all have one.
    fn check_ledger(mut self) {
        // A client that has just been closed is still there for up to `LINGER`.
        let mut counters = ledger::Counters::default();
        for _ in 0..10 {
            self.gateway.advance(LINGER);
            counters = ledger::parsed(&self.gateway.counters());
            if ledger::balances(&counters).is_ok() {
                break;
            }
        }
        assert_eq!(ledger::balances(&counters), Ok(()), "{counters:?}");
        let reader = self.gateway.counters_reader();
        self.gateway.stop().expect("it ends in order");
        ledger::check_last(&ledger::parsed(&reader()));
    }
}

impl Player {
    fn package(&mut self, kind: u8, body: &[u8]) {
        let mut package = vec![kind];
        package.extend(&(body.len() as u32).to_be_bytes()[1..]);
        package.extend(body);
        if self.is_websocket {
            self.frame(&package);
        } else {
            self.unsent.extend(package);
        }
    }

    /// One binary WebSocket message, masked.
    fn frame(&mut self, payload: &[u8]) {
        const MASK: [u8; 4] = [1, 2, 3, 4];
        self.unsent.push_back(0x82);
        match payload.len() {
            short @ ..126 => self.unsent.push_back(0x80 | short as u8),
            middle @ ..65_536 => {
                self.unsent.push_back(0x80 | 126);
                self.unsent.extend((middle as u16).to_be_bytes());
            }
            long => {
                self.unsent.push_back(0x80 | 127);
                self.unsent.extend((long as u64).to_be_bytes());
            }
        }
        self.unsent.extend(MASK);
        let masked = payload.iter().zip(MASK.iter().cycle());
        self.unsent.extend(masked.map(|(byte, mask)| byte ^ mask));
    }

    /// A request or a notify.
    fn message(&mut self, is_notify: bool, route: &str, body: &str) {
        let mut message = vec![if is_notify { 2 } else { 0 }];
        if !is_notify {
            self.last_id = self.last_id % 100 + 1;
            message.push(self.last_id);
        }
        message.push(route.len() as u8);
        message.extend(route.bytes());
        message.extend(body.bytes());
        self.package(4, &message);
    }

    fn read(&mut self) {
        // Reading makes room for more bytes.
        loop {
            let bytes = self.client.take_bytes();
            if bytes.is_empty() {
                break;
            }
            self.received.extend(bytes);
        }
        if self.client.is_closed() {
            self.is_closed = true;
            self.received.extend(b"(closed)");
        }
    }
}
