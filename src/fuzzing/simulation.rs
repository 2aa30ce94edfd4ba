//! A gateway in memory among clients and a server that do as [`Choices`] say: the simulation plays it by seeds, the fuzz
//! target `gateway` by the bytes of a fuzzer.
//!
//! Clients over TCP and WebSocket say what clients say, and what they should not; their bytes are cut anywhere, they come
//! late, and some clients do not read. A server answers late, out of order, with an error or not at all, and goes and comes
//! back. Nothing acts while the gateway still has something to do, so the same choices give the same bytes.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::input::Choices;
use super::ledger;
use super::received;
use crate::config;
use crate::error::Error;
use crate::gateway::memory::{Client, ClientOptions, InMemory, Server, ServerCall};
use crate::handler::{App, Failure, Json, Reply, Router, Session};

const CLIENTS_MAX: usize = 8;

/// Longer than a closed client may take to close its side.
const LINGER: Duration = Duration::from_secs(3);

/// Stands behind the bytes of a connection that the gateway has closed.
const CLOSED: &[u8] = b"(closed)";

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

/// Returns the servers of the configuration, of which the simulation plays the first one.
pub fn servers() -> Vec<config::Server> {
    let server = |id: &str, server_type: &str| config::Server {
        id: id.into(),
        server_type: server_type.into(),
        host: id.into(),
        port: 1,
        ..config::Server::default()
    };
    vec![server("chat-1", "chat"), server("ghost-1", "ghost")]
}

/// Returns the handlers that the clients of the simulation call.
pub fn router() -> Router {
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
    /// It has sent bytes that do not come from its messages, and may ask with any id.
    is_wild: bool,
    /// Requests with each id.
    asked: HashMap<u32, usize>,
}

/// A gateway, its clients and its server.
pub struct Simulation<C> {
    /// The decisions of all of them.
    pub choices: C,
    /// The gateway between them.
    pub gateway: InMemory,
    players: Vec<Player>,
    pub(super) server: Option<Server>,
    /// Calls that the server has not answered.
    pub(super) calls: Vec<ServerCall>,
    /// Bytes of its links, one after the other.
    received: Vec<u8>,
}

impl<C: Choices> Simulation<C> {
    /// Begins with a gateway that has the handlers of [`router`].
    pub fn new(choices: C, gateway: InMemory) -> Self {
        Self {
            choices,
            gateway,
            players: Vec::new(),
            server: None,
            calls: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Somebody does one thing.
    pub fn step(&mut self) {
        match self.choices.below(20) {
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
            is_websocket: self.choices.one_in(2),
            is_deaf: self.choices.one_in(4),
            unsent: VecDeque::new(),
            received: Vec::new(),
            is_closed: false,
            last_id: 0,
            is_wild: false,
            asked: HashMap::new(),
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
        if !self.choices.one_in(10) {
            player.package(2, b"");
        }
        self.players.push(player);
        let last = self.players.len() - 1;
        self.deliver(last);
    }

    /// A client says one thing, of which some or all leaves at once.
    fn say(&mut self) {
        let Some(at) = self.pick() else { return };
        let choices = &mut self.choices;
        let player = &mut self.players[at];
        match choices.below(40) {
            0 => {
                player.is_wild = true;
                let bytes = (0..choices.below(30)).map(|_| choices.byte());
                player.unsent.extend(bytes);
            }
            1 => player.package(choices.below(8) as u8, b"\xff{}"),
            2 => {
                player.is_wild = true;
                player.package(4, &[choices.byte(), choices.byte(), 7]);
            }
            3..=6 => player.package(3, b""),
            other => {
                let route = match other {
                    7 => LEAVE,
                    8..=27 => choices.pick(&ROUTES),
                    _ => choices.pick(&FORWARDED),
                };
                let long = match choices.below(12) {
                    0 => "x".repeat(100 << 10),
                    _ => String::new(),
                };
                let body = match choices.below(20) {
                    0 => "{\"n\":".into(),
                    _ => json!({ "n": choices.below(4), "long": long }).to_string(),
                };
                player.message(choices.one_in(4), route, &body);
            }
        }
        if choices.one_in(3) {
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
        (!here.is_empty()).then(|| *self.choices.pick(&here))
    }

    /// Everything that a client has to send.
    fn deliver(&mut self, at: usize) {
        self.offer(at, self.players[at].unsent.len());
    }

    /// The front of it, cut anywhere.
    fn send_some(&mut self, at: usize) {
        let count = self.choices.below(self.players[at].unsent.len() + 1);
        self.offer(at, count);
    }

    /// Sends up to `count` bytes, as many as the gateway takes.
    fn offer(&mut self, at: usize, count: usize) {
        let Player { client, unsent, .. } = &mut self.players[at];
        let sent = client.offer_bytes(&unsent.make_contiguous()[..count]);
        unsent.drain(..sent);
        self.settle();
    }

    fn send(&mut self) {
        if let Some(at) = self.pick() {
            self.send_some(at);
        }
    }

    fn time(&mut self) {
        let ms = *self.choices.pick(&[1, 20, 50, 300, 2_000, 7_000]);
        self.gateway.advance(Duration::from_millis(ms));
        self.settle();
    }

    fn close(&mut self) {
        if self.choices.one_in(3)
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
        let call = self.calls.swap_remove(self.choices.below(self.calls.len()));
        match self.choices.below(6) {
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
    pub(super) fn settle(&mut self) {
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

    /// All clients and the server leave.
    pub(super) fn empty(&mut self) {
        self.server = None;
        for player in self.players.iter_mut().filter(|it| !it.is_closed) {
            player.read();
            player.client.close();
            player.is_closed = true;
        }
        self.settle();
    }

    /// Lets time pass and checks that each connection and each message has an end. Returns the bytes that each connection
    /// got, in the order in which they were opened, and those of the server.
    pub fn end(mut self) -> Vec<Vec<u8>> {
        for _ in 0..3 {
            self.gateway.advance(Duration::from_secs(1));
            self.settle();
        }
        for player in &mut self.players {
            if !player.is_closed {
                player.read();
            }
            player.check_received();
        }
        let clients = self.players.iter_mut();
        let mut all: Vec<Vec<u8>> = clients.map(|it| mem::take(&mut it.received)).collect();
        all.push(mem::take(&mut self.received));
        self.check_ledger();
        all
    }

    /// Checks that each connection and each message has an end or is still there, and then that all have one.
    fn check_ledger(mut self) {
        // A client that has just been closed is still there for up to `LINGER`.
        let mut counters = ledger::CounterValues::default();
        for _ in 0..10 {
            self.gateway.advance(LINGER);
            counters = ledger::parsed(&self.gateway.counters());
            if ledger::balances(&counters).is_ok() {
                break;
            }
        }
        assert_eq!(ledger::balances(&counters), Ok(()), "{counters:?}");
        assert!(!counters.contains_key("handler_panics"), "{counters:?}");
        let reader = self.gateway.counters_reader();
        match self.gateway.stop() {
            // A drain may cut clients whose calls have no answer.
            Err(Error::Drain(_)) if reader().contains("clients_cut=") => {}
            ended => ended.expect("it ends in order"),
        }
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
            *self.asked.entry(self.last_id.into()).or_default() += 1;
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
            self.received.extend(CLOSED);
        }
    }

    /// Checks that the client got packages, and no more answers than it asked for.
    fn check_received(&self) {
        let bytes = self.received.strip_suffix(CLOSED).unwrap_or(&self.received);
        let responses = received::responses(bytes, self.is_websocket);
        for (id, responses) in responses.into_iter().filter(|_| !self.is_wild) {
            let asked = self.asked.get(&id).copied().unwrap_or_default();
            assert!(
                responses <= asked,
                "{responses} answers to {asked} requests of the id {id}"
            );
        }
    }
}
