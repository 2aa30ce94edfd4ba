//! Numbers of instructions for a request, compared with the baseline in `benches/instructions.json`: for the whole
//! way of an echo over WebSocket through a gateway in memory, for the two halves of a forward's way through a shard,
//! and for five pure functions that a forward passes.
//!
//! The other benches say how long something takes, here and today. The counts of callgrind do not
//! depend on other work on the machine, so this bench can fail: it finds a function that costs more. Save a lower
//! count with `cargo bench --bench instructions -- --save`. The bench runs itself under
//! callgrind, with some rounds and with twice as many: the difference is without the start. Of the
//! gateway only the shards are counted, not the client and the server that the bench plays.
//!
//! The bench also shows the whole way by stage. The stage of an instruction is the folder of the source file that it
//! was compiled from. So code that the compiler inlines counts for the folder in which it was written.
//!
//! Counts are those of one compiler, which the baseline names, and of a processor with AVX2. With
//! another compiler they are shown and not compared.

use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::io::IoSlice;
use std::process::{Command, ExitCode};
use std::{env, fs, mem};

use serde_json::{Value, json};
use tangelo::client::proxies::Proxies;
use tangelo::client::{ClientEvent, ClientMachine, Rules};
use tangelo::handler::{Bytes, Outcome, Router, reply};
use tangelo::limits::{RPC_FRAME_BYTES_MAX, WRITE_SLICES_MAX};
use tangelo::memory::{ClientOptions, InMemory};
use tangelo::push::{Framing, Outbox, QueuePool};
use tangelo::wire::message::{self, Message, MessageRoute};
use tangelo::wire::package::{self, PackageKind};
use tangelo::wire::pomelo::mqtt::{self, Packet};
use tangelo::wire::pomelo::rpc::{self, Forward, SessionExport};
use tangelo::wire::websocket::{self, Opcode};
use tangelo::{Config, Gateway, config};

#[path = "../tests/e2e/harness/debian.rs"]
#[allow(
    clippy::disallowed_types,
    reason = "tests install one program at a time; the ban is for the gateway"
)]
mod debian;

// Not mimalloc: where it puts a buffer differs from run to run.

/// One row of the baseline.
struct Counted {
    name: &'static str,
    /// Runs the function for a number of rounds.
    run: fn(u64),
    rounds: u64,
    /// Callgrind counts only what this function calls; without a name, the whole process.
    only: Option<&'static str>,
}

impl Counted {
    const fn function(name: &'static str, run: fn(u64)) -> Self {
        Self {
            name,
            run,
            // Two starts differ by some thousands of instructions: less than one per round.
            rounds: 10_000,
            only: None,
        }
    }

    const fn shard(name: &'static str, run: fn(u64), only: &'static str) -> Self {
        Self {
            name,
            run,
            rounds: 10_000,
            only: Some(only),
        }
    }
}

/// The row that is shown by stage.
const WHOLE_WAY: &str = "echo: from the read buffer to the outbox";

/// All rows: the whole way of an echo, then those of a forward in the order in which it passes the functions.
const FUNCTIONS: &[Counted] = &[
    Counted::shard(WHOLE_WAY, echo_through_shard, "*shards_echo*"),
    Counted::function("client: a WebSocket frame to a message", receive),
    Counted::function("wire: a body is validated", validate),
    Counted::function("wire: a forward is written", forward),
    Counted::function("handler: an answer to what the client gets", answer),
    Counted::function("push: a response into an outbox and out of it", respond),
    Counted::shard(
        "shard: a client's message to a backend's frame",
        forward_through_shard,
        "*shards_forward*",
    ),
    Counted::shard(
        "shard: a backend's answer to a client's outbox",
        forward_through_shard,
        "*shards_respond*",
    ),
];

/// The stages of a way: a part of the path of the source files, and the name. The first match counts.
const STAGES: &[(&str, &str)] = &[
    ("src/net/", "net: cuts the read bytes into units"),
    ("src/client/", "client: protocol machine"),
    ("src/wire/json", "wire: JSON"),
    ("src/wire/", "wire: frames, packages, messages"),
    ("src/route/", "route: look-up of the handler"),
    ("src/session/", "session: look-up"),
    ("src/handler/", "handler: arguments, future, reply"),
    ("src/push/", "push: outbox"),
    ("src/", "shard: the steps between the others"),
    ("/malloc/", "memory: allocate and free"),
    ("", "other crates: copies, UTF-8, hashes"),
];

/// Number of turns in which the shard answers echoes.
const TURNS: u64 = 200;
/// Messages that a shard reads at once: the turn's own instructions are shared, as under load.
const BATCH: u64 = 50;
const TOLERANCE_PERCENT: f64 = 5.0;
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json");

const MESSAGE_ID: u32 = 300;
const ROUTE: &str = "chat.chatHandler.send";
/// 64 bytes.
const SHORT_BODY: &[u8; 64] =
    br#"{"rid":"room-1017","content":"a line of chat \u263a","at":14000}"#;
/// 300 bytes with every kind of value.
const BODY: &[u8] = br#"{"rid":"room-1017","from":{"uid":"10001","name":"alice","level":17,"vip":true},"to":null,"content":"a line of chat as people write it, with a \"quote\" and a smile \u263a","position":[12.5,-3,24.7],"items":[{"id":1001,"count":3},{"id":1002,"count":1}],"flags":[],"time":1400000000000,"checked":false}"#;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [flag, name, rounds] = &args[..]
        && flag == "--rounds-of"
    {
        run(name, rounds.parse().expect("a number of rounds"));
        return ExitCode::SUCCESS;
    }
    if cfg!(debug_assertions) {
        // `cargo test --benches`: each function still holds its result against what it should be.
        FUNCTIONS.iter().for_each(|function| (function.run)(1));
        return ExitCode::SUCCESS;
    }
    debian::need("valgrind");
    let counts = FUNCTIONS.iter().map(|function| {
        let stages = count(function);
        let whole = stages.values().sum();
        if function.name == WHOLE_WAY {
            show(&stages, whole);
        }
        (function.name, whole)
    });
    if args.iter().any(|arg| arg == "--save") {
        save(counts.collect());
        return ExitCode::SUCCESS;
    }
    compare(counts)
}

/// Prints each count beside its baseline. Fails at the end when one is too far from it, unless
/// another compiler made the baseline.
fn compare(counts: impl Iterator<Item = (&'static str, u64)>) -> ExitCode {
    let baseline = &baseline()[env::consts::ARCH];
    let (made_with, rustc) = (baseline["rustc"].as_str().unwrap_or("none"), rustc());
    if made_with != rustc {
        for (name, count) in counts {
            println!("{name:46} {count:6} instructions");
        }
        eprintln!("instructions: not compared: made with {made_with}, this is {rustc}");
        return ExitCode::SUCCESS;
    }
    let mut outcome = ExitCode::SUCCESS;
    for (name, count) in counts {
        let Some(before) = baseline["instructions"][name].as_u64() else {
            eprintln!("{name}: {count} instructions and no baseline");
            outcome = ExitCode::FAILURE;
            continue;
        };
        let percent = 100.0 * (count as f64 / before as f64 - 1.0);
        println!("{name:46} {count:6} instructions, baseline {before:6}, {percent:+.1} %");
        if percent.abs() > TOLERANCE_PERCENT {
            eprintln!("{name}: more than {TOLERANCE_PERCENT} % from the baseline");
            outcome = ExitCode::FAILURE;
        }
    }
    if outcome == ExitCode::FAILURE {
        eprintln!(
            "Where that is meant, update the baseline: cargo bench --bench instructions -- --save"
        );
    }
    outcome
}

/// By architecture: the compiler, and the counts by name.
fn baseline() -> Value {
    let text = fs::read_to_string(BASELINE).unwrap_or_else(|error| panic!("{BASELINE}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{BASELINE}: {error}"))
}

/// Writes the counts of this architecture; those of others stay.
fn save(counts: Vec<(&str, u64)>) {
    let mut baseline = match fs::exists(BASELINE) {
        Ok(true) => baseline(),
        _ => json!({}),
    };
    let named = counts.iter().map(|(name, count)| {
        println!("{name:46} {count:6} instructions, saved");
        ((*name).to_owned(), Value::from(*count))
    });
    let counts: serde_json::Map<_, _> = named.collect();
    baseline[env::consts::ARCH] = json!({ "rustc": rustc(), "instructions": counts });
    fs::write(BASELINE, format!("{baseline:#}\n")).expect("the baseline can be written");
}

/// The compiler's name, as `rustc -V` prints it.
fn rustc() -> String {
    let output = Command::new("rustc").arg("-V").output();
    let name = String::from_utf8(output.expect("rustc is there").stdout);
    name.expect("a name in UTF-8").trim().to_owned()
}

/// Prints the table of perf/README.md.
fn show(stages: &BTreeMap<usize, u64>, whole: u64) {
    println!("| stage | instructions | share |\n| --- | --- | --- |");
    for (stage, count) in stages.iter().filter(|(_, count)| **count > 0) {
        let (_, name) = STAGES[*stage];
        println!("| {name} | {count} | {} % |", 100 * count / whole);
    }
    println!("| {WHOLE_WAY} | {whole} | 100 % |");
}

/// Counts the instructions of one round by the indices of their stages.
fn count(function: &Counted) -> BTreeMap<usize, u64> {
    let rounds = function.rounds;
    let once = instructions(function, rounds);
    let mut stages = instructions(function, 2 * rounds);
    for (stage, count) in &mut stages {
        let start = once.get(stage).copied().unwrap_or_default();
        *count = (count.saturating_sub(start) + rounds / 2) / rounds;
    }
    stages
}

/// Counts the instructions of a process that runs a function for a number of rounds, by the indices of their stages.
fn instructions(function: &Counted, rounds: u64) -> BTreeMap<usize, u64> {
    let name = function.name;
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/callgrind.out");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={file}"))
        .args(function.only.map(|only| format!("--toggle-collect={only}")))
        .arg(env::current_exe().expect("a running program has a path"))
        .args(["--rounds-of", name, &rounds.to_string()])
        // Otherwise glibc collects small free blocks whenever somebody asks for a large one.
        .env("GLIBC_TUNABLES", "glibc.malloc.mxfast=0")
        .output()
        .expect("valgrind is there");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: valgrind:\n{text}");
    let stages = by_stage(&fs::read_to_string(file).expect("callgrind has written its file"));
    assert!(!stages.is_empty(), "{name}: nothing was counted:\n{text}");
    stages
}

/// Adds up the costs in a file of callgrind by the indices of their stages.
fn by_stage(text: &str) -> BTreeMap<usize, u64> {
    let (mut stages, mut files) = (BTreeMap::new(), HashMap::new());
    let (mut file, mut stage) = ("", 0);
    let mut is_of_callee = false;
    for line in text.lines() {
        match line.split_once('=') {
            // The file names a path only once. After that only its number stands there.
            Some((key @ ("fl" | "fi" | "fe" | "cfi" | "cfl"), name)) => {
                let (number, path) = name.split_once(' ').unwrap_or((name, ""));
                let path = path.trim_start_matches(concat!(env!("CARGO_MANIFEST_DIR"), "/"));
                let path = *files.entry(number).or_insert(path);
                if !key.starts_with('c') {
                    file = path;
                }
                // An inlined function of another crate belongs to the code around it.
                if matches!(key, "fi" | "fe") && file.starts_with("src/") {
                    stage = stage_of(file);
                }
            }
            Some(("fn", _)) => stage = stage_of(file),
            Some(("calls", _)) => is_of_callee = true,
            Some(_) => {}
            // The line has a position and a cost. The lines of totals begin with a name.
            None if line
                .starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) =>
            {
                let cost = line.split_once(' ').and_then(|(_, cost)| cost.parse().ok());
                if !mem::take(&mut is_of_callee) {
                    *stages.entry(stage).or_default() += cost.unwrap_or(0_u64);
                }
            }
            None => {}
        }
    }
    stages
}

fn stage_of(file: &str) -> usize {
    let mut parts = STAGES.iter().map(|(part, _)| part);
    let found = match file.starts_with("src/") {
        true => parts.position(|part| file.starts_with(part)),
        false => parts.position(|part| !part.starts_with("src/") && file.contains(part)),
    };
    found.expect("the last stage takes every file")
}

fn run(name: &str, rounds: u64) {
    let function = FUNCTIONS.iter().find(|function| function.name == name);
    let function = function.unwrap_or_else(|| panic!("no function {name:?}"));
    (function.run)(rounds);
}

// ---- The functions: each holds its result against what it should be, then runs `rounds` times ----

fn receive(rounds: u64) {
    let rules = Rules::new(&Config::default(), None, Proxies::default());
    let mut client = working_client(&rules);
    let request = request(MESSAGE_ID);
    let mut body = Vec::new();
    assert_eq!(message::write(&mut body, &request), Ok(()));
    let mut frame = client_frame(PackageKind::Data, &body);
    let expected = (frame.len(), Some(ClientEvent::Message(request)));
    assert_eq!(client.receive(&rules, &mut frame), Ok(Some(expected)));
    for _ in 0..rounds {
        let _ = black_box(client.receive(&rules, black_box(&mut frame)));
    }
}

fn request(id: u32) -> Message<'static> {
    Message {
        id,
        kind: message::MessageKind::Request,
        route: MessageRoute::Text(ROUTE.as_bytes()),
        gzip: false,
        body: BODY,
    }
}

const HANDSHAKE: &[u8] = br#"{"sys":{"type":"bench","version":"0.0.0"},"user":{}}"#;
const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A client that has upgraded and shaken hands.
fn working_client(rules: &Rules) -> ClientMachine {
    let mut client = ClientMachine::default();
    let mut upgrade = UPGRADE.to_vec();
    let received = client.receive(rules, &mut upgrade);
    assert!(matches!(
        received,
        Ok(Some((_, Some(ClientEvent::Connected(_)))))
    ));
    let mut handshake = client_frame(PackageKind::Handshake, b"{}");
    let received = client.receive(rules, &mut handshake);
    assert!(matches!(
        received,
        Ok(Some((_, Some(ClientEvent::Handshake(b"{}")))))
    ));
    client.accept();
    let mut ack = client_frame(PackageKind::Ack, b"");
    let received = client.receive(rules, &mut ack);
    assert!(matches!(received, Ok(Some((_, Some(ClientEvent::Acked))))));
    client
}

/// A package in a frame. Its mask is zero, so that it can be unmasked again and again.
fn client_frame(kind: PackageKind, body: &[u8]) -> Vec<u8> {
    let header = websocket::header(Opcode::Binary, package::HEAD_BYTES + body.len());
    let mut frame = header.as_slice().to_vec();
    frame[1] |= 0x80;
    frame.extend_from_slice(&[0; 4]);
    assert!(package::write(&mut frame, kind, body));
    frame
}

fn validate(rounds: u64) {
    assert_eq!(tangelo::wire::json::validate(BODY), Ok(()));
    assert!(tangelo::wire::json::validate(&BODY[1..]).is_err());
    for _ in 0..rounds {
        let _ = black_box(tangelo::wire::json::validate(black_box(BODY)));
    }
}

fn forward(rounds: u64) {
    let forward = Forward {
        server_type: "\"chat\"",
        message_id: MESSAGE_ID,
        kind: 0,
        compressed: false,
        route: ROUTE,
        body: BODY,
        gzip: false,
        session: SessionExport {
            id: 1 << 40,
            frontend_id: "\"connector-1\"",
            uid: "\"10001\"",
            settings: r#"{"rid":"room-1017","chat":"chat-server-1"}"#,
        },
        address: None,
        frontend: None,
    };
    let mut out = Vec::new();
    rpc::write_forward(&mut out, 7, &forward);
    let call: Value = serde_json::from_slice(payload(&out)).expect("a forward is JSON");
    let body: Value = serde_json::from_slice(BODY).expect("the body is JSON");
    assert_eq!(call["msg"]["args"][0]["body"], body);
    assert_eq!(call["msg"]["args"][1]["uid"], "10001");
    for _ in 0..rounds {
        out.clear();
        rpc::write_forward(black_box(&mut out), black_box(7), black_box(&forward));
    }
}

fn answer(rounds: u64) {
    let mut frame = Vec::new();
    rpc::write_answer(&mut frame, b"7", |out| {
        out.extend_from_slice(b"[null,");
        out.extend_from_slice(BODY);
        out.extend_from_slice(b",null]");
    });
    // As in `shard/dispatch/calls.rs`.
    let response = |payload| {
        let answer = rpc::answers(payload).next()?.ok()?;
        let result = answer.result().ok()?;
        let outcome = result.value.filter(|_| result.error.is_none());
        let outcome = Outcome::json(outcome?);
        let body = reply::compose(MESSAGE_ID, &outcome)?;
        Some((body.len(), body.last().copied()))
    };
    let payload = payload(&frame);
    assert_eq!(response(payload), Some((BODY.len(), BODY.last().copied())));
    for _ in 0..rounds {
        black_box(response(black_box(payload)));
    }
}

/// The payload of the RPC frame that the bytes are.
fn payload(frame: &[u8]) -> &[u8] {
    match mqtt::decode(frame, RPC_FRAME_BYTES_MAX) {
        Ok(Some((Packet::Publish { payload, .. }, bytes))) if bytes == frame.len() => payload,
        other => panic!("not one frame: {other:?}"),
    }
}

fn respond(rounds: u64) {
    let mut pool = QueuePool::default();
    let mut outbox = Outbox::default();
    outbox.framing = Framing::WebSocket;
    let mut respond = |body: &[u8]| {
        let bytes = message::response_bytes(MESSAGE_ID, body.len());
        outbox.package(&mut pool, bytes, |out| {
            message::write_response(out, MESSAGE_ID, body);
        });
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
        let used = outbox.slices(&mut slices);
        // The socket takes everything.
        let written = black_box(&slices[..used]).iter().map(|slice| slice.len());
        let written = written.sum();
        (written, outbox.advance(&mut pool, written))
    };
    let bytes = message::response_bytes(MESSAGE_ID, BODY.len());
    let header = websocket::header(Opcode::Binary, bytes).as_slice().len();
    assert_eq!(respond(BODY), (header + bytes, true));
    for _ in 0..rounds {
        black_box(respond(black_box(BODY)));
    }
}

/// The configuration of a gateway whose clock stands still: all messages are within these rates.
fn unhurried() -> Config {
    Config {
        client: config::Client {
            messages_per_second: Some(1_000_000),
            bytes_per_second: Some(1 << 30),
            ..config::Client::default()
        },
        ..Config::default()
    }
}

/// Requests of one WebSocket client to a handler. The number of turns is always the same, so the
/// difference of two runs is what one more message costs in a turn, without the turn itself.
fn echo_through_shard(rounds: u64) {
    async fn echo(body: Bytes) -> Bytes {
        body
    }
    let mut gateway = Gateway::new(unhurried())
        .handlers(|_| Router::new().route("connector.entryHandler.echo", echo))
        .in_memory()
        .expect("a gateway in memory starts");
    let mut client = gateway.open(ClientOptions::default());
    for bytes in [
        UPGRADE,
        &client_frame(PackageKind::Handshake, HANDSHAKE),
        &client_frame(PackageKind::Ack, b""),
    ] {
        client.send_bytes(bytes);
    }
    client.take_bytes();
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    for id in 1..=rounds.div_ceil(TURNS) as u32 {
        let request = Message {
            route: MessageRoute::Text(b"connector.entryHandler.echo"),
            body: SHORT_BODY,
            ..request(id)
        };
        let mut message = Vec::new();
        message::write(&mut message, &request).expect("a request can be written");
        requests.extend(client_frame(PackageKind::Data, &message));
        let bytes = message::response_bytes(id, SHORT_BODY.len());
        responses.extend_from_slice(websocket::header(Opcode::Binary, bytes).as_slice());
        message::write_response(&mut responses, id, SHORT_BODY);
    }
    for _ in 0..TURNS {
        gateway.pause();
        client.send_bytes(&requests);
        shards_echo(&mut gateway);

        assert!(client.take_bytes() == responses, "other responses");
    }
    drop(client);
    gateway.stop().expect("nothing else ended it");
}

/// Lets the shards read the messages and write the responses.
#[inline(never)]
fn shards_echo(gateway: &mut InMemory) {
    gateway.resume();
}

/// Requests of one client to one server, in batches: each read, forwarded, answered and written.
fn forward_through_shard(rounds: u64) {
    let chat = config::Server {
        id: "chat-1".into(),
        server_type: "chat".into(),
        host: "chat.example".into(),
        port: 1,
        ..config::Server::default()
    };
    let mut gateway = Gateway::new(Config {
        servers: vec![chat],
        ..unhurried()
    })
    .in_memory()
    .expect("a gateway in memory starts");
    let mut server = gateway.server("chat-1");
    let mut client = gateway.connect();
    // The heartbeat after the handshake.
    client.take_bytes();
    let body: Value = serde_json::from_slice(BODY).expect("the body is JSON");
    let text = body.to_string();
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    for id in 1..=BATCH as u32 {
        let mut message = Vec::new();
        message::write(&mut message, &request(id)).expect("a request can be written");
        assert!(package::write(&mut requests, PackageKind::Data, &message));
        message::write_response(&mut responses, id, text.as_bytes());
    }
    for _ in 0..rounds.div_ceil(BATCH) {
        gateway.pause();
        client.send_bytes(&requests);
        shards_forward(&mut gateway);
        let calls: Vec<_> = std::iter::from_fn(|| server.called()).collect();
        assert_eq!(calls.len() as u64, BATCH);
        gateway.pause();
        for call in &calls {
            server.answer(call, &body);
        }
        shards_respond(&mut gateway);
        assert!(client.take_bytes() == responses, "other responses");
        drop(server.take_bytes());
    }
    drop(client);
    gateway.stop().expect("nothing else ended it");
}

/// Lets the shards read the messages and write the frames.
#[inline(never)]
fn shards_forward(gateway: &mut InMemory) {
    gateway.resume();
}

/// Lets the shards read the answers and write the responses.
#[inline(never)]
fn shards_respond(gateway: &mut InMemory) {
    gateway.resume();
}
