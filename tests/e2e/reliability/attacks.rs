//! The attacks. Each plays its load beside the canaries, checks what it promises, and says what it saw.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::bystander::ECHO;
use crate::harness::client::{Client, KICK, Message};
use crate::harness::frames::{self, ack, handshake, raise_file_limit, request};
use crate::harness::frontend::{Frontend, Kind, Knobs};
use crate::harness::peers::{Cluster, Dialect};
use crate::harness::rpc::Rpc;
use crate::reliability::stage::{Scale, Seen, attack, attack_beside};
use crate::reliability::strangers::Strangers;

/// Connections that hold what they can and never finish.
fn strangers(scale: Scale, kind: &str, more: &[&str]) -> Seen {
    let count = scale.of(1_800, 18_000);
    let mut gateway = scale.gateway(more);
    attack(scale, &mut gateway, |gateway| {
        let strangers = Strangers::start(gateway.address(), kind, count);
        thread::sleep(scale.stay());
        let mut closed = gateway.counters();
        closed.retain(|name, _| name.starts_with("closed_"));
        drop(strangers);
        (format!("{count} connections"), said(&closed))
    })
}

/// Counters for a person.
fn said(counters: &crate::harness::ledger::Counters) -> String {
    let said = counters
        .iter()
        .map(|(name, count)| format!("`{name}` {count}"));
    let said: Vec<String> = said.collect();
    match said.is_empty() {
        true => "nobody was closed".to_owned(),
        false => said.join(", "),
    }
}

pub(super) fn silent(scale: Scale) -> Seen {
    strangers(scale, "silent", &[])
}

pub(super) fn endless_heads(scale: Scale) -> Seen {
    strangers(scale, "heads", &[])
}

pub(super) fn random_bytes(scale: Scale) -> Seen {
    strangers(scale, "random", &[])
}

pub(super) fn half_handshakes(scale: Scale) -> Seen {
    strangers(scale, "half-handshakes", &[])
}

pub(super) fn fragments(scale: Scale) -> Seen {
    strangers(scale, "fragments", &[])
}

pub(super) fn half_packages(scale: Scale) -> Seen {
    strangers(scale, "half-packages", &[])
}

pub(super) fn drip(scale: Scale) -> Seen {
    strangers(scale, "drip", &[])
}

pub(super) fn deaf(scale: Scale) -> Seen {
    strangers(scale, "deaf", &[])
}

/// Silent connections up to the limit, and again as many: players still get in.
pub(super) fn silent_to_the_limit(scale: Scale) -> Seen {
    const PLAYERS: usize = 50;
    raise_file_limit();
    let places: usize = scale.of(400, 4_000);
    let limit = format!("client.max_connections={places}");
    let mut gateway = scale.gateway(&["--set", &limit]);
    attack(scale, &mut gateway, |gateway| {
        let address = gateway.address();
        let _silent: Vec<_> = (0..2 * places).map(|_| frames::connect(address)).collect();
        let mut players: Vec<Client> = (0..PLAYERS).map(|_| Client::tcp(address).open()).collect();
        for player in &mut players {
            assert_eq!(player.request_text(ECHO, "7"), "7");
        }
        (
            format!("{} connections at {places} places", 2 * places),
            format!("{PLAYERS} of {PLAYERS} players logged in meanwhile"),
        )
    })
}

/// One session sends without end, and reads its answers.
pub(super) fn flood_of_one_session(scale: Scale) -> Seen {
    let timeout = scale.of("client.rate_timeout=2s", "client.rate_timeout=10s");
    let mut gateway = scale.gateway(&["--set", timeout]);
    attack(scale, &mut gateway, |gateway| {
        let client = Client::tcp(gateway.address()).open();
        let reader = client.stream().try_clone().expect("one more descriptor");
        let reader = thread::spawn(move || frames::read_to_end(&reader).len());
        let some = request(1, ECHO, b"[1]").repeat(500);
        let begun = Instant::now();
        while frames::write_anyway(client.stream(), &some) {}
        let answered = reader.join().expect("it reads to the end") / (4 + 2 + 3);
        assert_eq!(gateway.wait_counter("closed_rate", 1), 1);
        (
            "one session that sends as fast as its socket takes it".to_owned(),
            format!(
                "{answered} messages in {:.1} s, then closed with `rate`",
                begun.elapsed().as_secs_f64()
            ),
        )
    })
}

/// More clients without a rate than two cores can serve.
pub(super) fn overload(scale: Scale) -> Seen {
    const IN_FLIGHT: u32 = 64;
    let clients = scale.of(8, 200);
    let off = ["messages_per_second", "bytes_per_second"].map(|key| format!("client.{key}=off"));
    let mut gateway = scale.gateway(&["--set", &off[0], "--set", &off[1]]);
    attack(scale, &mut gateway, |gateway| {
        let address = gateway.address();
        let answered = AtomicU64::new(0);
        let end = Instant::now() + scale.stay();
        thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| {
                    let mut client = Client::tcp(address).open();
                    while Instant::now() < end {
                        for id in 1..=IN_FLIGHT {
                            client.request(id, ECHO, "[1]");
                        }
                        for id in 1..=IN_FLIGHT {
                            let body = b"[1]".to_vec();
                            assert_eq!(client.next_message(), Message::Response { id, body });
                        }
                        answered.fetch_add(IN_FLIGHT.into(), Ordering::Relaxed);
                    }
                });
            }
        });
        (
            format!("{clients} clients with {IN_FLIGHT} messages in flight each"),
            format!(
                "{} messages a second, none lost or reordered",
                answered.into_inner() / scale.stay().as_secs()
            ),
        )
    })
}

/// A client's whole life in as few system calls as possible: it logs in, asks, takes its answer and leaves.
fn live(address: SocketAddr) {
    let stream = frames::connect(address);
    let life = [handshake(), ack(), request(1, ECHO, b"[7]")].concat();
    frames::write_anyway(&stream, &life);
    wait_for_answer(&stream);
    // A connection that ends by RST keeps no port busy.
    frames::reset(stream);
}

/// Reads up to the answer of a request with the body `[7]`.
fn wait_for_answer(stream: &std::net::TcpStream) {
    use std::io::Read as _;
    let (mut all, mut some) = (Vec::new(), [0; 512]);
    while !all.ends_with(b"[7]") {
        let count = { stream }.read(&mut some).expect("an answer");
        assert!(count > 0, "closed instead of an answer");
        all.extend_from_slice(&some[..count]);
    }
}

pub(super) fn churn(scale: Scale) -> Seen {
    const THREADS: usize = 4;
    let lives = scale.of(4_000, 1_000_000);
    let mut gateway = scale.gateway(&[]);
    attack(scale, &mut gateway, |gateway| {
        let address = gateway.address();
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..lives / THREADS).for_each(|_| live(address)));
            }
        });
        let seconds = begun.elapsed().as_secs_f64();
        (
            format!("{lives} clients, one after the other on {THREADS} threads"),
            format!("each was answered, {:.0} a second", lives as f64 / seconds),
        )
    })
}

/// All clients come at the same moment, as after a restart.
pub(super) fn storm(scale: Scale) -> Seen {
    const THREADS: usize = 8;
    raise_file_limit();
    let clients = scale.of(800, 8_000);
    let mut gateway = scale.gateway(&[]);
    attack(scale, &mut gateway, |gateway| {
        let address = gateway.address();
        let begun = Instant::now();
        let life = [handshake(), ack(), request(1, ECHO, b"[7]")].concat();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let come = |_| {
                        let stream = frames::connect(address);
                        frames::write_anyway(&stream, &life);
                        stream
                    };
                    let streams: Vec<_> = (0..clients / THREADS).map(come).collect();
                    streams.iter().for_each(wait_for_answer);
                });
            }
        });
        (
            format!("{clients} clients at the same time"),
            format!(
                "each was answered within {:.1} s",
                begun.elapsed().as_secs_f64()
            ),
        )
    })
}

/// A backend kicks a uid with very many sessions.
pub(super) fn kick_storm(scale: Scale) -> Seen {
    raise_file_limit();
    let clients: usize = scale.of(500, 10_000);
    let cluster = Cluster::shared(Dialect::Pomelo);
    let knobs = Knobs {
        tangelo: &[
            "--set",
            "limits.memory=512MiB",
            "--set",
            "client.max_connections=12000",
        ],
        genuine: &[],
    };
    let mut frontend = Frontend::start(cluster, Kind::Tangelo { shards: 2 }, knobs);
    let rpc_address = frontend.rpc_address();
    let gateway = frontend.gateway().expect("the frontend is tangelo");
    attack_beside("chat.chatHandler.echo", scale, gateway, |gateway| {
        let address = gateway.address();
        let bind = request(1, "chat.chatHandler.bind", br#"{"uid":"crowd"}"#);
        let life = [handshake(), ack(), bind].concat();
        let mut crowd: Vec<Client> = Vec::new();
        while crowd.len() < clients {
            // The backend is one thread of Node, which answers some thousands in its time.
            let mut some: Vec<Client> = (0..100).map(|_| Client::tcp(address)).collect();
            for client in &mut some {
                client.send_raw(&life);
            }
            for client in &mut some {
                client.next_package();
                assert_eq!(client.wait_response(1), br#"{"err":null,"uid":"crowd"}"#);
            }
            crowd.append(&mut some);
        }
        let begun = Instant::now();
        let mut rpc = Rpc::connect(rpc_address).expect("the gateway listens for other servers");
        let kicked = rpc.call("sessionRemote", "kickByUid", &json!(["crowd", "storm"]));
        kicked.expect("an answer");
        for client in &mut crowd {
            let kick = std::iter::from_fn(|| client.next_package()).find(|it| it.kind == KICK);
            assert_eq!(
                kick.map(|it| it.body),
                Some(br#"{"reason":"storm"}"#.into())
            );
        }
        (
            format!("one kick for {clients} sessions of a uid"),
            format!("each got it within {:.1} s", begun.elapsed().as_secs_f64()),
        )
    })
}

/// The room, with its members' clients.
fn enter(address: SocketAddr, name: &str) -> Client {
    let mut client = Client::websocket(address).open();
    let body = json!({ "name": name }).to_string();
    let answer = client.request_text("connector.entryHandler.enter", body);
    assert!(answer.starts_with(r#"{"code":200"#), "{answer}");
    client
}

/// Sends lines to the room one by one, so that each was accepted.
fn send_lines(sender: &mut Client, lines: usize, text: &str) {
    for line in 0..lines {
        let body = json!({ "text": format!("{line} {text}") }).to_string();
        sender.request(1, "chat.chatHandler.send", body);
        // It hears its own lines too.
        let messages = std::iter::repeat_with(|| sender.next_message());
        let answer = messages.into_iter().find_map(|message| match message {
            Message::Response { body, .. } => Some(body),
            Message::Push { .. } => None,
        });
        assert_eq!(answer.as_deref(), Some(&br#"{"code":200}"#[..]));
    }
}

/// Takes as many lines of the room, in order and each once.
fn take_lines(member: &mut Client, lines: usize) {
    let mut line = 0;
    while line < lines {
        let (route, body) = member.next_push();
        if route == "onChat" {
            let text = format!(r#""text":"{line} "#);
            assert!(String::from_utf8_lossy(&body).contains(&text), "{line}");
            line += 1;
        }
    }
}

/// Members who do not read cost those who do nothing.
pub(super) fn deaf_members(scale: Scale) -> Seen {
    let (deaf, lines) = scale.of((20, 1_500), (500, 4_000));
    let text = "x".repeat(1_000);
    // One sender is faster than a player.
    let mut gateway = scale.gateway(&["--set", "client.messages_per_second=off"]);
    attack(scale, &mut gateway, |gateway| {
        let address = gateway.address();
        let mut members: Vec<Client> = (0..10).map(|n| enter(address, &n.to_string())).collect();
        let _deaf: Vec<_> = (0..deaf)
            .map(|n| {
                let stream = frames::connect_narrow(address);
                let name = format!(r#"{{"name":"deaf {n}"}}"#);
                let enter = request(1, "connector.entryHandler.enter", name.as_bytes());
                frames::write_anyway(&stream, &[handshake(), ack(), enter].concat());
                stream
            })
            .collect();
        gateway.wait_counter("sessions_bound", deaf as u64 + 10);
        let mut sender = enter(address, "sender");
        thread::scope(|scope| {
            for member in &mut members {
                scope.spawn(|| take_lines(member, lines));
            }
            send_lines(&mut sender, lines, &text);
        });
        let cut = gateway.wait_counter("closed_outbox_full", deaf as u64);
        (
            format!("{deaf} members who never read, 10 who do, {lines} lines of 1 KB"),
            format!("{cut} were cut, the others got each line once and in order"),
        )
    })
}

/// Members come and go while lines are sent: who stays gets each line once and in order.
pub(super) fn members_that_churn(scale: Scale) -> Seen {
    let lines = scale.of(1_000, 20_000);
    let off = ["--set", "client.messages_per_second=off"];
    let mut gateway = scale.gateway(&off);
    attack(scale, &mut gateway, |gateway| {
        let address = gateway.address();
        let mut members: Vec<Client> = (0..20).map(|n| enter(address, &n.to_string())).collect();
        let mut sender = enter(address, "sender");
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let came = AtomicU64::new(0);
        thread::scope(|scope| {
            for thread in 0..4 {
                let (is_over, came) = (&is_over, &came);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        let number = came.fetch_add(1, Ordering::Relaxed);
                        let client = enter(address, &format!("{thread} {number}"));
                        let stream = client.stream().try_clone().expect("one more descriptor");
                        drop(client);
                        if number.is_multiple_of(2) {
                            frames::reset(stream);
                        }
                    }
                });
            }
            let readers: Vec<_> = members
                .iter_mut()
                .map(|member| scope.spawn(|| take_lines(member, lines)))
                .collect();
            send_lines(&mut sender, lines, "to those who stay");
            let read = readers.into_iter().all(|reader| reader.join().is_ok());
            is_over.store(true, Ordering::Relaxed);
            assert!(read, "a member lost a line, or got one twice");
        });
        (
            format!("{lines} lines to 20 members who stay, while others come and go"),
            format!(
                "{} came and left; each line arrived once and in order",
                came.into_inner()
            ),
        )
    })
}

/// JSON that is expensive to read, for a handler that reads it.
pub(super) fn json_bombs(scale: Scale) -> Seen {
    let bombs = [
        format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000)),
        format!("[{}1]", "1,".repeat(30_000)),
        format!("[{}1]", "1,".repeat(1_000_000)),
        format!(r#"{{"text":"{}"}}"#, r"\u0000".repeat(10_000)),
        format!(r#"{{{}"text":1}}"#, r#""__proto__":{"a":1},"#.repeat(3_000)),
        format!(r#"{{"text":1{}}}"#, "0".repeat(60_000)),
    ];
    let mut gateway = scale.gateway(&[]);
    attack(scale, &mut gateway, |gateway| {
        let mut client = Client::tcp(gateway.address()).open();
        let end = Instant::now() + scale.stay();
        let mut sent = 0;
        while Instant::now() < end {
            for bomb in &bombs {
                let answer = client.request_text("chat.chatHandler.send", bomb);
                // One of the room's own, or that it cannot be read.
                let codes = [r#"{"code":403"#, r#"{"code":500"#];
                assert!(
                    codes.iter().any(|code| answer.starts_with(code)),
                    "{answer}"
                );
                sent += 1;
            }
            // Slower than `client.bytes_per_second`.
            thread::sleep(Duration::from_millis(700));
        }
        (
            format!("{} kinds of 60 KB to 2 MB, {sent} messages", bombs.len()),
            "each was answered with an error, and the connection stayed".to_owned(),
        )
    })
}
