//! How many shards? Messages and deliveries a second of a whole gateway, over loopback sockets.
//!
//! Each shard has an equal share of the connections, and one thread of the load plays the clients of this share. In
//! a round each client sends one message and then reads its answer. In a round of the fan-out one client asks for a
//! broadcast, and each client reads the push. The bench compares each byte with the expected one, in every round.
//! `docs/benchmarks.md` says how to read the result.

#![allow(
    clippy::disallowed_methods,
    reason = "the bench starts threads for the load and the backends, and it measures their time"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use tangelo::config::{self, Server};
use tangelo::handler::{App, Bytes, Failure, Json, Router};
use tangelo::wire::message::{self, MessageRoute};
use tangelo::wire::pomelo::mqtt::{self, Packet};
use tangelo::wire::pomelo::rpc;
use tangelo::{Config, Gateway, Running};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: [usize; 3] = [10, 100, 1000];
/// Number of different messages in a script. Each id has one byte.
const MESSAGES: usize = 100;
/// Numbers of descriptors that are not for connections: those of the process, and those of one shard.
const FILES_RESERVED: usize = 256;
const FILES_PER_SHARD: usize = 16;
/// Longest wait of a client for bytes. No step of this bench takes this long on any machine.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq)]
enum Work {
    /// Requests that a handler of the gateway answers.
    Echo,
    /// Requests that a backend answers.
    Forward,
    /// Broadcasts to all sessions.
    FanOut,
}

fn gateways(c: &mut Criterion) {
    exit_on_panic();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let backends: Vec<SocketAddr> = (0..cores).map(|_| backend()).collect();
    for shards in shard_counts(cores) {
        let mut stage = Stage::new(shards, &backends);
        for connections in CONNECTIONS {
            let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            // Both ends of a connection are in this process.
            let needed = 2 * connections + shards * FILES_PER_SHARD + FILES_RESERVED;
            if (needed as u64) > files {
                println!("gateway: {connections} connections left out: {files} files may be open");
                continue;
            }
            stage.connect(connections);
            for (name, work) in [
                ("echo", Work::Echo),
                ("forward", Work::Forward),
                ("fan-out", Work::FanOut),
            ] {
                let script = Script::new(work);
                stage.play(&script, 2);
                let mut group = c.benchmark_group("gateway");
                group.sampling_mode(SamplingMode::Flat);
                group.throughput(Throughput::Elements(connections as u64));
                let name = format!("{name}/connections={connections}/shards={shards}");
                group.bench_function(name, |b| {
                    b.iter_custom(|rounds| stage.play(&script, rounds as usize));
                });
                group.finish();
            }
        }
        stage.end();
    }
}

/// Makes the first wrong answer end the bench. Otherwise the other threads would wait for ever for the thread that
/// found it.
fn exit_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(1);
    }));
}

/// Returns 1, 2, 4 and so on, and the number of cores.
fn shard_counts(cores: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |shards| Some(shards * 2));
    let below = doubled.take_while(|shards| *shards < cores);
    below.chain([cores]).collect()
}

/// A gateway and its clients.
struct Stage {
    gateway: Running,
    /// The clients of each shard.
    clients: Vec<Vec<Client>>,
    rounds: usize,
}

impl Stage {
    fn new(shards: usize, backends: &[SocketAddr]) -> Self {
        let backend = |(index, address): (usize, &SocketAddr)| Server {
            id: format!("chat-{index}"),
            server_type: "chat".into(),
            host: address.ip().to_string(),
            port: address.port(),
            ..Server::default()
        };
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            shards: Some(shards),
            // A closed loop of few connections would measure this pause.
            turn_min: Duration::ZERO,
            client: config::Client {
                messages_per_second: None,
                bytes_per_second: None,
                ..config::Client::default()
            },
            servers: backends.iter().enumerate().map(backend).collect(),
            routes: [("chat".into(), "rr".into())].into(),
            ..Config::default()
        };
        let gateway = Gateway::new(config).handlers(|_shard| {
            Router::new()
                .route("connector.h.echo", echo)
                .route("connector.h.tell", tell)
                .route("connector.h.shard", shard)
        });
        Self {
            gateway: gateway.start().unwrap_or_else(|error| panic!("{error}")),
            clients: (0..shards).map(|_| Vec::new()).collect(),
            rounds: 0,
        }
    }

    /// Connects clients until there are this many, an equal share for each shard.
    fn connect(&mut self, connections: usize) {
        let shards = self.clients.len();
        let mut number = self.clients.iter().map(Vec::len).sum();
        while number < connections {
            let mut client = Client::connect(self.gateway.address(), number);
            // The kernel chooses the shard. If that shard has its share already, the client closes.
            let shard = client.shard();
            let share = connections / shards + usize::from(shard < connections % shards);
            if self.clients[shard].len() < share {
                self.clients[shard].push(client);
                number += 1;
            }
        }
    }

    /// Returns the time that the rounds took.
    fn play(&mut self, script: &Script, rounds: usize) -> Duration {
        let rounds = self.rounds..self.rounds + rounds;
        self.rounds = rounds.end;
        let barrier = Barrier::new(self.clients.len());
        let start = Instant::now();
        thread::scope(|scope| {
            for clients in &mut self.clients {
                scope.spawn(|| script.play(clients, rounds.clone(), &barrier));
            }
        });
        start.elapsed()
    }

    /// Stops the gateway, and checks that no client has received other bytes.
    fn end(self) {
        self.gateway.stopper().stop();
        assert_eq!(self.gateway.join(), Ok(()));
        for mut client in self.clients.into_iter().flatten() {
            let mut rest = Vec::new();
            let read = client.stream.read_to_end(&mut rest);
            read.unwrap_or_else(|error| panic!("waited for the end: {error}"));
            assert_eq!(rest.escape_ascii().to_string(), "");
        }
    }
}

async fn echo(body: Bytes) -> Bytes {
    body
}

async fn tell(app: App, Json(line): Json<Value>) -> Result<(), Failure> {
    app.broadcast("onTell", &line)
}

async fn shard(app: App) -> Json<[u16; 1]> {
    Json([app.shard().0])
}

/// The messages of one work and their answers, as bytes. Neighbouring clients and successive rounds have different
/// messages, so the bench finds an answer that is late, doubled or at the wrong client.
struct Script {
    work: Work,
    exchanges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Script {
    fn new(work: Work) -> Self {
        let exchange = |id: u8| {
            let body = format!("{{\"content\":\"hello, everybody\",\"n\":{id}}}");
            let ask = |route| {
                let mut response = Vec::new();
                message::write_response(&mut response, id.into(), body.as_bytes());
                (package_of(id, route, &body), response)
            };
            match work {
                Work::Echo => ask("connector.h.echo"),
                Work::Forward => ask("chat.h.echo"),
                Work::FanOut => {
                    let push =
                        message::push_package(MessageRoute::Text(b"onTell"), body.as_bytes());
                    let notify = package_of(0, "connector.h.tell", &body);
                    (notify, push.expect("a short body"))
                }
            }
        };
        let exchanges = (1..=MESSAGES as u8).map(exchange).collect();
        Self { work, exchanges }
    }

    /// Plays rounds with the clients of one shard.
    fn play(&self, clients: &mut [Client], rounds: Range<usize>, barrier: &Barrier) {
        let is_fan_out = self.work == Work::FanOut;
        for round in rounds {
            let exchange = |client: &Client| {
                let offset = if is_fan_out { 0 } else { client.number };
                &self.exchanges[(round + offset) % MESSAGES]
            };
            for client in &mut *clients {
                if !is_fan_out || client.number == 0 {
                    client.send(&exchange(client).0);
                }
            }
            // The last client first: so the thread sleeps once in a round, and not once for each answer.
            for client in clients.iter_mut().rev() {
                client.expect(&exchange(client).1);
            }
            if is_fan_out {
                // The next broadcast begins when all clients have this one, so no client falls behind.
                barrier.wait();
            }
        }
    }
}

/// Returns the package of a request, or of a notify if the id is 0. All lengths have one byte.
fn package_of(id: u8, route: &str, body: &str) -> Vec<u8> {
    let head: &[u8] = if id == 0 { &[2] } else { &[0, id] };
    let bytes = head.len() + 1 + route.len() + body.len();
    let package = [4, 0, 0, bytes as u8];
    let route = [&[route.len() as u8], route.as_bytes()].concat();
    [&package, head, &route, body.as_bytes()].concat()
}

/// A client over TCP.
struct Client {
    stream: TcpStream,
    /// Its place among all clients.
    number: usize,
}

impl Client {
    /// Connects and shakes hands.
    fn connect(address: SocketAddr, number: usize) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("not zero");
        stream.set_nodelay(true).expect("an open socket");
        let mut client = Self { stream, number };
        client.send(b"\x01\0\0\x0a{\"sys\":{}}");
        client.receive_package();
        client.send(b"\x02\0\0\0");
        client
    }

    /// Returns the shard that has this client.
    fn shard(&mut self) -> usize {
        self.send(&package_of(1, "connector.h.shard", "{}"));
        let response = self.receive_package();
        let body = response.strip_prefix(&[4, 1]).expect("a response to id 1");
        let [shard] = serde_json::from_slice(body).expect("a number");
        shard
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the gateway reads");
    }

    /// Reads the bytes that must come next.
    fn expect(&mut self, bytes: &[u8]) {
        let mut received = [0; 256];
        let received = &mut received[..bytes.len()];
        self.receive(received);
        if received != bytes {
            let [received, bytes] = [received, bytes].map(<[u8]>::escape_ascii);
            panic!("received {received} in place of {bytes}");
        }
    }

    fn receive_package(&mut self) -> Vec<u8> {
        let mut head = [0; 4];
        self.receive(&mut head);
        let mut body = vec![0; head[3].into()];
        self.receive(&mut body);
        body
    }

    fn receive(&mut self, bytes: &mut [u8]) {
        let read = self.stream.read_exact(bytes);
        read.unwrap_or_else(|error| panic!("waited for {} bytes: {error}", bytes.len()));
    }
}

/// Starts a backend, which serves one gateway after the other.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        listener
            .incoming()
            .for_each(|link| serve(link.expect("a link")))
    });
    address
}

/// Answers each forward with its body until the gateway ends. Writes all answers to one read at once.
fn serve(mut link: TcpStream) {
    link.set_nodelay(true).expect("an open socket");
    let (mut input, mut answers) = (Vec::new(), Vec::new());
    let mut chunk = vec![0; 1 << 16];
    loop {
        match link.read(&mut chunk) {
            Ok(received @ 1..) => input.extend_from_slice(&chunk[..received]),
            _ => return,
        }
        let mut at = 0;
        while let Some((packet, used)) = mqtt::decode(&input[at..], 1 << 20).expect("frames") {
            match packet {
                Packet::Publish { payload, .. } => write_answer(&mut answers, payload),
                Packet::PingReq => answers.extend_from_slice(&mqtt::PINGRESP),
                _ => {}
            }
            at += used;
        }
        input.drain(..at);
        if link.write_all(&answers).is_err() {
            return;
        }
        answers.clear();
    }
}

/// Answers a forward with its body.
fn write_answer(out: &mut Vec<u8>, call: &[u8]) {
    let call = str::from_utf8(call).expect("a forward is UTF-8");
    let between = |before, after| Some(call.split_once(before)?.1.split_once(after)?.0);
    let id = between("{\"id\":", ",").expect("an id");
    let body = between(",\"body\":", ",\"compressGzip\":").expect("a body");
    rpc::write_answer(out, id.as_bytes(), |out| {
        out.extend_from_slice(b"[null,");
        out.extend_from_slice(body.as_bytes());
        out.extend_from_slice(b",null]");
    });
}

criterion_group! {
    name = gateway;
    config = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = gateways
}
criterion_main!(gateway);
