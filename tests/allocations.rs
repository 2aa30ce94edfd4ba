//! Allocations of a message on a warm gateway: none, or those of a handler's types.
//!
//! glommio's reactor allocates in each turn, and how many turns some work takes depends on the
//! machine. So two things are held: no allocation at all is the gateway's own (a backtrace tells), and
//! all together, those of glommio included, are not more for a round of many messages than for a round
//! of few, but for some further turns. `cargo test --test allocations -- --nocapture` prints them.
#![cfg(feature = "runtime")]
#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test has threads of its own: a backend and a client"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use tangelo::config::Server;
use tangelo::handler::{Answer, Json, Outcome, Request, Router, Session};
use tangelo::wire::pomelo::mqtt::{self, Packet};
use tangelo::wire::pomelo::rpc;
use tangelo::{Config, Gateway, Running, config};

/// Messages of a round.
const FEW: usize = 10;
const MANY: usize = 110;
const WARM_ROUNDS: usize = 50;
const COUNTED_ROUNDS: usize = 300;
/// Most traces of which one must be free of allocations.
const TRACES_MAX: usize = 20;
const TRACED_ROUNDS: usize = 30;
/// Allocations of all kinds for one message more. One that belongs to the message would be 1; a turn
/// more in each round is about 0.06.
const PER_MESSAGE_MAX: f64 = 0.5;
/// Nothing in this test takes so long, on any machine.
const TIMEOUT: Duration = Duration::from_secs(60);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Where a shard counts. Its helper threads, the backend and the client have none.
    static TALLY: Cell<Option<&'static Tally>> = const { Cell::new(None) };
}

/// Allocations of the shards of one gateway.
#[derive(Default)]
struct Tally {
    count: AtomicU64,
    is_tracing: AtomicBool,
    traced: Mutex<Vec<Backtrace>>,
}

impl Tally {
    fn traced(&self) -> MutexGuard<'_, Vec<Backtrace>> {
        self.traced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.is_tracing.load(Ordering::Relaxed) {
            let stack = Backtrace::force_capture();
            self.traced().push(stack);
        }
    }
}

fn note() {
    // Taken away meanwhile: taking a backtrace allocates.
    if let Some(tally) = TALLY.take() {
        tally.add();
        TALLY.set(Some(tally));
    }
}

// SAFETY: all is handed on to the system's allocator as it came, and counting cannot panic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Transport {
    Tcp,
    WebSocket,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A request that the backend answers.
    Request,
    /// A notify to the backend; a request at the end tells that all have arrived.
    Notify,
    /// A request that a handler here answers, from the bytes of the request.
    Local,
    /// One whose handler takes and returns a type with one text, as JSON.
    Json,
    /// The same, by a handler that waits once.
    Waiting,
}

impl Kind {
    /// Returns the allocations of one message, as the docs of `handler` say: for JSON the text of the message and
    /// that of the response; a handler that waits also has a future and a task.
    fn allocations(self) -> u32 {
        match self {
            Self::Request | Self::Notify | Self::Local => 0,
            Self::Json => 2,
            Self::Waiting => 6,
        }
    }
}

#[test]
fn a_message_allocates_what_the_docs_say() {
    for shards in [1, 2] {
        let stage = Stage::new(shards);
        for transport in [Transport::Tcp, Transport::WebSocket] {
            let mut client = stage.client(transport);
            let simple = [Kind::Request, Kind::Notify, Kind::Local];
            for kind in simple.into_iter().chain([Kind::Json, Kind::Waiting]) {
                println!("{kind:?} over {transport:?}, {shards} shards:");
                let [few, many] = [FEW, MANY].map(|messages| {
                    let round = Round::new(transport, kind, messages);
                    stage.count(&mut client, &round)
                });
                let further = (many as f64 - few as f64) / (MANY - FEW) as f64;
                println!("  {few} for {FEW} messages, {further:.3} for each one more");
                if kind.allocations() == 0 {
                    stage.trace(&mut client, &Round::new(transport, kind, MANY));
                }
                let beyond = further - f64::from(kind.allocations());
                assert!(beyond.abs() < PER_MESSAGE_MAX, "a task or a timer each?");
            }
        }
        stage.end();
    }
}

/// A gateway and the backend behind it.
struct Stage {
    gateway: Running,
    tally: &'static Tally,
    /// How many calls the backend answers at once.
    calls: Arc<AtomicUsize>,
}

impl Stage {
    fn new(shards: usize) -> Self {
        let calls = Arc::new(AtomicUsize::new(1));
        let backend = backend(calls.clone());
        let tally: &Tally = Box::leak(Box::default());
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            shards: Some(shards),
            client: config::Client {
                // It stands still before the burst is used up.
                messages_per_second: Some(1_000_000),
                bytes_per_second: Some(1 << 30),
                ..config::Client::default()
            },
            rpc: config::Rpc {
                keepalive: 2 * TIMEOUT,
                timeout: 2 * TIMEOUT,
                ..config::Rpc::default()
            },
            // The first server's link belongs to shard 0.
            servers: vec![Server {
                id: "chat-1".into(),
                server_type: "chat".into(),
                host: backend.ip().to_string(),
                port: backend.port(),
                ..Server::default()
            }],
            ..Config::default()
        };
        let gateway = Gateway::new(config).handlers(move |_| {
            // This runs on the shard's own thread.
            TALLY.set(Some(tally));
            Router::new()
                .raw_route("connector.h.echo", echo)
                .raw_route("connector.h.shard", shard)
                .route("connector.h.json", json)
                .route("connector.h.waiting", waiting)
        });
        Self {
            gateway: gateway.start().unwrap_or_else(|error| panic!("{error}")),
            tally,
            calls,
        }
    }

    /// A client of the last shard: where there are two, the link is the other one's.
    fn client(&self, transport: Transport) -> Client {
        let last = format!("[{}]", self.gateway.shards() - 1);
        let mut clients = (0..64).map(|_| Client::connect(self.gateway.address(), transport));
        let found = clients.find_map(|mut client| {
            let answer = client.ask("connector.h.shard");
            (answer == last.as_bytes()).then_some(client)
        });
        found.expect("the kernel gives each shard one of 64 connections")
    }

    /// Allocations of a usual round, glommio's and the gateway's.
    fn count(&self, client: &mut Client, round: &Round) -> u64 {
        self.calls.store(round.calls, Ordering::Release);
        (0..WARM_ROUNDS).for_each(|_| client.play(round));
        let one = |_| {
            let before = self.tally.count.load(Ordering::Acquire);
            client.play(round);
            self.tally.count.load(Ordering::Acquire) - before
        };
        let mut counts: Vec<u64> = (0..COUNTED_ROUNDS).map(one).collect();
        counts.sort_unstable();
        counts[COUNTED_ROUNDS / 2]
    }

    /// Looks where allocations come from. On a busy machine a reader whose turn is late pauses, which allocates; an
    /// allocation of each message is there each time.
    fn trace(&self, client: &mut Client, round: &Round) {
        let mut found = (0..TRACES_MAX).map(|_| self.trace_once(client, round));
        let own = found.by_ref().find(Vec::is_empty);
        let own = own.unwrap_or_else(|| self.trace_once(client, round));
        println!(
            "  {} by the gateway for {} messages",
            own.len(),
            TRACED_ROUNDS * MANY
        );
        if let Some(stack) = own.first() {
            panic!("{} allocations, the first one:\n{stack}", own.len());
        }
    }

    /// Returns the stacks of the gateway's own allocations.
    fn trace_once(&self, client: &mut Client, round: &Round) -> Vec<String> {
        self.tally.is_tracing.store(true, Ordering::Release);
        (0..TRACED_ROUNDS).for_each(|_| client.play(round));
        client.ask("connector.h.shard");
        self.tally.is_tracing.store(false, Ordering::Release);
        let stacks = std::mem::take(&mut *self.tally.traced());
        let stacks = stacks.iter().map(Backtrace::to_string);
        let (known, stacks): (Vec<String>, Vec<String>) =
            stacks.partition(|stack| stack.lines().any(|line| line.ends_with(": shard")));
        assert!(
            !known.is_empty(),
            "the handler `shard` allocates, and its stack was found"
        );
        let stacks = stacks.into_iter();
        stacks.filter(|stack| is_of_a_message(stack)).collect()
    }

    fn end(self) {
        self.gateway.stopper().stop();
        assert_eq!(self.gateway.join(), Ok(()));
    }
}

/// Whether the gateway's own code, not glommio's, asked for this memory, and not because time passed:
/// the tick's timer wheel grows now and then.
fn is_of_a_message(stack: &str) -> bool {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let is_own = |file: &str| {
        let file = file.strip_prefix(root).or(file.strip_prefix("./"));
        file.is_some_and(|file| file.starts_with("src/"))
    };
    let mut files = stack
        .lines()
        .filter_map(|line| line.trim().strip_prefix("at "));
    let innermost = files.find(|file| is_own(file) || file.contains("/glommio"));
    let innermost = innermost.unwrap_or_else(|| panic!("a stack without files:\n{stack}"));
    is_own(innermost) && !stack.contains("tangelo::shard::tick::run")
}

fn echo<'a>(request: &Request<'a>) -> Answer<'a> {
    Answer::now(Outcome::json(request.body))
}

#[derive(Deserialize, Serialize)]
struct Line {
    content: String,
    n: usize,
}

async fn json(_: Session, Json(line): Json<Line>) -> Json<Line> {
    Json(line)
}

async fn waiting(line: Json<Line>) -> Json<Line> {
    futures_lite::future::yield_now().await;
    line
}

fn shard<'a>(request: &Request<'a>) -> Answer<'a> {
    let shard = request.session.id().shard().0;
    Answer::now(Outcome::json(format!("[{shard}]").into_bytes()))
}

/// The bytes that a client sends in one write, and those that it then gets.
struct Round {
    sent: Vec<u8>,
    received: Vec<u8>,
    /// Calls that reach the backend.
    calls: usize,
}

impl Round {
    fn new(transport: Transport, kind: Kind, messages: usize) -> Self {
        let mut round = Self {
            sent: Vec::new(),
            received: Vec::new(),
            calls: 0,
        };
        for id in 1..=messages {
            let body = format!("{{\"content\":\"hello, everybody\",\"n\":{id}}}");
            let is_request = kind != Kind::Notify || id == messages;
            let route = match kind {
                Kind::Local => "connector.h.echo",
                Kind::Json => "connector.h.json",
                Kind::Waiting => "connector.h.waiting",
                Kind::Request | Kind::Notify => "chat.h.echo",
            };
            let message = message(if is_request { id } else { 0 }, route, body.as_bytes());
            write_package(&mut round.sent, transport, true, 4, &message);
            round.calls += usize::from(matches!(kind, Kind::Request | Kind::Notify));
            if is_request {
                let response = [&[4, id as u8], body.as_bytes()].concat();
                write_package(&mut round.received, transport, false, 4, &response);
            }
        }
        round
    }
}

/// A request, or with id 0 a notify.
fn message(id: usize, route: &str, body: &[u8]) -> Vec<u8> {
    assert!(id < 128, "an id of one byte");
    let head = match id {
        0 => vec![2, route.len() as u8],
        id => vec![0, id as u8, route.len() as u8],
    };
    [&head, route.as_bytes(), body].concat()
}

/// Writes a package, over WebSocket in a frame of its own; what a client sends has a mask.
fn write_package(out: &mut Vec<u8>, transport: Transport, masked: bool, kind: u8, body: &[u8]) {
    assert!(body.len() < 120, "a length of one byte");
    if transport == Transport::WebSocket {
        let mask = u8::from(masked) << 7;
        out.extend_from_slice(&[0x82, mask | (4 + body.len() as u8)]);
        out.extend_from_slice(if masked { &[0; 4] } else { &[] });
    }
    out.extend_from_slice(&[kind, 0, 0, body.len() as u8]);
    out.extend_from_slice(body);
}

struct Client {
    stream: TcpStream,
    transport: Transport,
}

impl Client {
    /// Connects and shakes hands.
    fn connect(address: SocketAddr, transport: Transport) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("not zero");
        stream.set_nodelay(true).expect("an open socket");
        let mut client = Self { stream, transport };
        if transport == Transport::WebSocket {
            client.send(
                b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            );
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.extend(client.receive(1));
            }
            assert!(answer.starts_with(b"HTTP/1.1 101 "));
        }
        client.send_package(1, b"{\"sys\":{}}");
        client.receive_package();
        client.send_package(2, b"");
        client
    }

    /// Sends a round and takes its answers.
    fn play(&mut self, round: &Round) {
        self.send(&round.sent);
        let received = self.receive(round.received.len());
        assert_eq!(
            received.escape_ascii().to_string(),
            round.received.escape_ascii().to_string()
        );
    }

    /// The body of the response to one request.
    fn ask(&mut self, route: &str) -> Vec<u8> {
        self.send_package(4, &message(1, route, b"{}"));
        let response = self.receive_package();
        response.strip_prefix(&[4, 1]).expect("a response").to_vec()
    }

    fn send_package(&mut self, kind: u8, body: &[u8]) {
        let mut bytes = Vec::new();
        write_package(&mut bytes, self.transport, true, kind, body);
        self.send(&bytes);
    }

    fn receive_package(&mut self) -> Vec<u8> {
        if self.transport == Transport::WebSocket {
            let length = self.receive(2)[1];
            assert!(length < 126, "a length of one byte");
        }
        let length = self.receive(4)[3];
        self.receive(length.into())
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the gateway reads");
    }

    fn receive(&mut self, bytes: usize) -> Vec<u8> {
        let mut received = vec![0; bytes];
        let read = self.stream.read_exact(&mut received);
        read.unwrap_or_else(|error| panic!("waited for {bytes} bytes: {error}"));
        received
    }
}

/// Starts a backend that answers each call with its body. It waits until as many calls are there as
/// `calls` says and answers them with one write.
fn backend(calls: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the gateway dials");
        stream.set_nodelay(true).expect("an open socket");
        let mut input = Vec::new();
        let mut answers = (0, Vec::new());
        let mut chunk = vec![0; 1 << 16];
        while let Ok(received @ 1..) = stream.read(&mut chunk) {
            input.extend_from_slice(&chunk[..received]);
            let mut at = 0;
            while let Some((packet, used)) = mqtt::decode(&input[at..], 1 << 20).expect("frames") {
                if let Packet::Publish { payload, .. } = packet {
                    write_answer(&mut answers.1, payload);
                    answers.0 += 1;
                }
                at += used;
            }
            input.drain(..at);
            if answers.0 >= calls.load(Ordering::Acquire) {
                stream.write_all(&answers.1).expect("the gateway reads");
                answers = (0, Vec::new());
            }
        }
    });
    address
}

/// Answers a forward with its body.
fn write_answer(out: &mut Vec<u8>, call: &[u8]) {
    let call = str::from_utf8(call).expect("a forward is UTF-8");
    let between = |before, after| Some(call.split_once(before)?.1.split_once(after)?.0);
    let id = between("{\"id\":", ",").expect("an id");
    let body = between(",\"body\":", ",\"compressGzip\":").expect("a body");
    rpc::write_answer(out, id.as_bytes(), |out| {
        out.extend_from_slice(format!("[null,{body},null]").as_bytes());
    });
}
