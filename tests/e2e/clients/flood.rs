//! However much a client sends, however little it reads, and however many it is: it costs itself,
//! within bounds, and not the others.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::harness::bystander::{Attacked, ECHO};
use crate::harness::client::{
    Client, DATA, HEARTBEAT, Package, Route, encode_message, encode_package,
};
use crate::harness::frames::{
    self, FIN, PING, ack, binary, connect, connect_narrow, frame, frame_head, handshake, heartbeat,
    raise_file_limit, request,
};
use crate::harness::gateway::Gateway;

const MIB: u64 = 1 << 20;

/// The bound on what one client sends while the test waits for its end.
const FLOOD_BYTES_MAX: usize = 64 << 20;

/// The memory that all floods of a test together may cost, whatever is set; far below what they
/// send.
const GROWTH_BYTES_MAX: u64 = 96 * MIB;

fn on_one_shard_and_on_four(args: &[&str], mut test: impl FnMut(&mut Attacked)) {
    for shards in [1, 4] {
        let mut attacked = Attacked::start(shards, args);
        test(&mut attacked);
        attacked.finish();
    }
}

/// Connects over one of the transports and makes messages flow; reads only what must be read.
fn open_narrow(address: SocketAddr, websocket: bool) -> TcpStream {
    let stream = connect_narrow(address);
    if websocket {
        frames::upgrade(&stream);
    }
    for package in [handshake(), ack()] {
        let bytes = if websocket { binary(&package) } else { package };
        assert!(frames::write_anyway(&stream, &bytes), "closed at once");
    }
    stream
}

/// Sends `piece` again and again from several clients that never read, until each is cut off.
fn flood_without_reading(attacked: &mut Attacked, name: &str, websocket: bool, piece: &[u8]) {
    const CLIENTS: u64 = 4;
    let before = attacked.gateway().rss_bytes();
    attacked.attack(name, &[("closed_outbox_full", CLIENTS)], |address| {
        let clients = (0..CLIENTS).map(|_| open_narrow(address, websocket));
        let mut clients: Vec<_> = clients.collect();
        let mut sent = 0;
        while !clients.is_empty() {
            assert!(
                sent < FLOOD_BYTES_MAX,
                "{name}: {} clients are still connected",
                clients.len()
            );
            clients.retain(|stream| frames::write_anyway(stream, piece));
            sent += piece.len();
        }
    });
    let after = attacked.gateway().rss_bytes();
    assert!(
        after < before + GROWTH_BYTES_MAX,
        "{name}: {before} → {after} bytes"
    );
}

#[test]
fn a_client_that_asks_and_never_reads_is_cut_off() {
    let body = vec![b'7'; 60_000];
    on_one_shard_and_on_four(&[], |attacked| {
        let piece = request(1, ECHO, &body);
        flood_without_reading(attacked, "large requests over TCP", false, &piece);
        flood_without_reading(
            attacked,
            "large requests over WebSocket",
            true,
            &binary(&piece),
        );
        let small = request(1, ECHO, b"7").repeat(1000);
        flood_without_reading(attacked, "small requests", false, &small);
    });
}

#[test]
fn clients_that_are_closed_while_they_send_hear_of_it_within_seconds() {
    const CLIENTS: u64 = 4;
    let args = ["client.bind_timeout=1s", "client.bytes_per_second=64KiB"];
    let args = args.map(|arg| format!("--set={arg}"));
    let mut gateway = Gateway::start(&args.each_ref().map(String::as_str));
    let address = gateway.address();
    // Their readers pause, so nobody takes what they send. A write fails if it waits for longer; the kernel alone would end
    // them a minute or two after the close.
    let piece = heartbeat().repeat(10_000);
    let flood = || {
        let client = connect(address);
        let patience = Some(Duration::from_secs(25));
        client.set_write_timeout(patience).expect("not zero");
        frames::write_anyway(&client, &[handshake(), ack()].concat());
        while frames::write_anyway(&client, &piece) {}
    };
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(flood);
        }
    });
    assert_eq!(
        gateway.wait_counter("closed_bind_timeout", CLIENTS),
        CLIENTS
    );
}

#[test]
fn a_client_that_says_goodbye_before_it_has_read_costs_nobody_else() {
    const CLIENTS: u64 = 8;
    on_one_shard_and_on_four(&[], |attacked| {
        attacked.attack("half-closed", &[("closed_left", CLIENTS)], |address| {
            // More than its socket takes, less than makes it a slow reader.
            let piece = request(1, ECHO, &[b'7'; 60_000]).repeat(8);
            let clients = (0..CLIENTS).map(|_| open_narrow(address, false));
            let clients: Vec<_> = clients.collect();
            for client in &clients {
                assert!(frames::write_anyway(client, &piece), "closed at once");
            }
            for client in &clients {
                frames::half_close_and_drain(client);
            }
        });
        let counters = attacked.gateway().counters();
        assert!(counters.contains_key("flushes_blocked"), "{counters:?}");
    });
}

/// The kernel tells of room for more bytes only when a third of its buffer is free.
#[test]
fn a_client_that_reads_slowly_all_the_time_stays() {
    let set = ["client.write_timeout=5s", "client.messages_per_second=off"];
    let args = set.map(|key| format!("--set={key}"));
    let mut gateway = Gateway::start(&args.each_ref().map(String::as_str));
    let mut client = connect(gateway.address());
    let answers = request(1, ECHO, &[b'7'; 8_000]).repeat(10);
    frames::write_anyway(&client, &[handshake(), ack()].concat());
    while !gateway.counters().contains_key("flushes_blocked") {
        assert!(frames::write_anyway(&client, &answers), "closed too early");
    }
    // More wait than the time of a write leaves alone.
    for _ in 0..3 {
        assert!(frames::write_anyway(&client, &answers), "closed too early");
    }
    let mut piece = [0; 2_000];
    for _ in 0..300 {
        client.read_exact(&mut piece).expect("it is not closed");
        thread::sleep(Duration::from_millis(50));
    }
    let counters = gateway.counters();
    assert!(
        !counters.contains_key("closed_write_timeout"),
        "{counters:?}"
    );
    drop(client);
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
}

#[test]
fn a_client_that_pings_and_never_reads_is_cut_off() {
    on_one_shard_and_on_four(&[], |attacked| {
        let piece = frame(FIN | PING, &[b'p'; 125]).repeat(500);
        flood_without_reading(attacked, "pings", true, &piece);
    });
}

#[test]
fn a_client_that_sends_heartbeats_and_never_reads_is_cut_off() {
    on_one_shard_and_on_four(&["--set", "client.heartbeat=1h"], |attacked| {
        let piece = heartbeat().repeat(16_000);
        flood_without_reading(attacked, "heartbeats over TCP", false, &piece);
        let piece = binary(&heartbeat()).repeat(6_000);
        flood_without_reading(attacked, "heartbeats over WebSocket", true, &piece);
    });
}

#[test]
fn a_flood_of_requests_leaves_heartbeats_and_echoes_to_others() {
    on_one_shard_and_on_four(&["--set", "client.heartbeat=1h"], |attacked| {
        let address = attacked.address();
        let floods = [false, true].map(|websocket| {
            thread::spawn(move || {
                let stream = connect(address);
                if websocket {
                    frames::upgrade(&stream);
                }
                let frame_of = |package: Vec<u8>| match websocket {
                    true => binary(&package),
                    false => package,
                };
                let mut sent = frame_of(handshake());
                sent.extend(frame_of(ack()));
                frames::write_anyway(&stream, &sent);
                // As many at a time as have answers that fit into the outbox.
                const AT_A_TIME: usize = 2_000;
                let requests = frame_of(request(1, ECHO, b"{\"flood\":[1,2,3]}")).repeat(AT_A_TIME);
                let answer = if websocket {
                    2 + 4 + 2 + 17
                } else {
                    4 + 2 + 17
                };
                let greeting = if websocket { 2 + 40 + 2 + 4 } else { 40 + 4 };
                frames::read_exactly(&stream, greeting);
                for _ in 0..60 {
                    frames::write_anyway(&stream, &requests);
                    frames::read_exactly(&stream, AT_A_TIME * answer);
                }
            })
        });
        let mut quiet = [
            Client::tcp(address).open(),
            Client::websocket(address).open(),
        ];
        let empty = Package {
            kind: HEARTBEAT,
            body: Vec::new(),
        };
        for client in &mut quiet {
            assert_eq!(client.next_package().as_ref(), Some(&empty));
        }
        let mut rounds = 0;
        while floods.iter().any(|flood| !flood.is_finished()) {
            for client in &mut quiet {
                client.send_package(HEARTBEAT, b"");
                assert_eq!(client.next_package().as_ref(), Some(&empty));
                assert_eq!(client.request_text(ECHO, "[0]"), "[0]");
            }
            rounds += 1;
        }
        println!("{rounds} rounds beside the floods");
        for flood in floods {
            assert!(flood.join().is_ok(), "a flood that reads was not served");
        }
        assert!(rounds > 0);
    });
}

#[test]
fn connections_that_break_off_leave_nothing_behind() {
    raise_file_limit();
    on_one_shard_and_on_four(&[], |attacked| {
        attacked.attack("opened and dropped", &[("closed_probe", 1000)], |address| {
            let streams: Vec<_> = (0..1000).map(|_| connect(address)).collect();
            drop(streams);
        });
        attacked.attack_somehow("dropped in all states", 1000, |address| {
            let life = [handshake(), ack(), request(1, ECHO, b"{}")].concat();
            let streams = (0..1000).map(|n| {
                let stream = connect(address);
                match n % 4 {
                    0 => {}
                    1 => drop(frames::write_anyway(&stream, &life[..n % life.len()])),
                    2 => drop(frames::write_anyway(&stream, &life)),
                    _ => drop(frames::write_anyway(
                        &stream,
                        &frames::UPGRADE.as_bytes()[..n % 99],
                    )),
                }
                (stream, n)
            });
            let streams: Vec<_> = streams.collect();
            for (stream, n) in streams {
                if n % 3 == 0 {
                    frames::reset(stream);
                }
            }
        });
    });
}

#[test]
fn a_reset_inside_a_package_is_an_error_of_its_socket() {
    on_one_shard_and_on_four(&[], |attacked| {
        attacked.attack("resets", &[("closed_socket", 60)], |address| {
            let cut = request(1, ECHO, &[b'7'; 1000]);
            for at in 1..61 {
                let mut client = Client::tcp(address).open();
                client.request(2, ECHO, "{}");
                frames::write_anyway(client.stream(), &cut[..at * 10]);
                // It is served, so a reset is not mistaken for one before the first byte.
                assert_eq!(client.wait_response(2), b"{}");
                let stream = client.stream().try_clone().expect("one more descriptor");
                drop(client);
                frames::reset(stream);
            }
        });
    });
}

#[test]
fn announced_bytes_cost_nothing_before_they_come() {
    raise_file_limit();
    const CLIENTS: usize = 250;
    let large = ["--set", "client.handshake_bytes_max=4MiB"];
    on_one_shard_and_on_four(&large, |attacked| {
        let before = attacked.gateway().rss_bytes();
        let announcing = (0..CLIENTS).flat_map(|_| {
            let raw = connect(attacked.address());
            frames::write_anyway(&raw, b"\x01\x40\x00\x00{");
            let websocket = connect(attacked.address());
            frames::upgrade(&websocket);
            frames::write_anyway(&websocket, &frame_head(4 << 20));
            [raw, websocket]
        });
        let announcing: Vec<TcpStream> = announcing.collect();
        attacked.assert_unharmed();
        let after = attacked.gateway().rss_bytes();
        assert!(
            after < before + GROWTH_BYTES_MAX,
            "{before} → {after} bytes"
        );
        let ended = announcing.len() as u64;
        attacked.attack("announcements", &[("closed_left", ended)], |_| {
            drop(announcing)
        });
    });
}

#[test]
fn silent_connections_fill_their_table_and_harm_nobody_who_is_in() {
    for shards in [1, 4] {
        let (files, shards_text) = (220, shards.to_string());
        let args = ["--shards", &shards_text, "--set", "client.timeout=3s"];
        let gateway = Gateway::start_with_files(files, &args);
        let mut attacked = Attacked::over(gateway, shards);
        let reasons = ["closed_silent", "closed_idle_timeout"];
        let silent: Vec<TcpStream> = (0..files).map(|_| connect(attacked.address())).collect();
        for reason in reasons {
            attacked.gateway().wait_counter(reason, 1);
        }
        // Each has been told.
        for stream in silent {
            assert_eq!(frames::read_to_end(&stream), b"");
        }
        attacked.finish();
    }
}

/// Enters the room with each client; `names` says how.
fn enter_all(clients: &mut [Client], name: impl Fn(usize) -> String) {
    for (n, client) in clients.iter_mut().enumerate() {
        let body = serde_json::json!({ "name": name(n) }).to_string();
        let answer = client.request_text("connector.entryHandler.enter", body);
        assert!(answer.starts_with(r#"{"code":200"#), "{answer}");
    }
}

#[test]
fn a_burst_of_chat_does_not_cut_off_those_who_read() {
    const LINES: usize = 4_000;
    // A name that takes six bytes a character in every line.
    let name = |n| format!("{n}{}", "\u{1}".repeat(31));
    on_one_shard_and_on_four(&["--set", "client.outbox_bytes_max=64KiB"], |attacked| {
        attacked.attack_somehow("a burst", 4, |address| {
            let reach = [
                Client::tcp,
                Client::websocket,
                Client::tcp,
                Client::websocket,
            ];
            let mut clients: Vec<Client> = reach.map(|reach| reach(address).open()).into();
            enter_all(&mut clients, name);
            let mut lines = Vec::new();
            for line in 0..LINES {
                let body = format!(r#"{{"text":"{line}"}}"#);
                let route = Route::Name("chat.chatHandler.send");
                lines.extend(encode_package(
                    DATA,
                    &encode_message(None, route, body.as_bytes()),
                ));
            }
            let sender = clients.remove(0);
            frames::write_anyway(sender.stream(), &lines);
            clients.push(sender);
            for client in &mut clients {
                let mut line = 0;
                while line < LINES {
                    let (route, body) = client.next_push();
                    if route == "onChat" {
                        let text = format!(r#""text":"{line}""#);
                        assert!(String::from_utf8_lossy(&body).contains(&text), "{line}");
                        line += 1;
                    }
                }
            }
        });
        assert_eq!(
            attacked.gateway().counters().get("closed_outbox_full"),
            None
        );
    });
}

#[test]
fn a_backend_that_does_not_read_costs_its_own_calls_only() {
    const CALLS: u32 = 300;
    // The kernel accepts the connection, and no process reads it.
    let hung = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = hung.local_addr().expect("the listener is bound").port();
    let config = NamedTempFile::new().expect("a temporary file");
    let server = "[[server]]\nid = \"chat-1\"\ntype = \"chat\"\nhost = \"127.0.0.1\"\n";
    fs::write(&config, format!("{server}port = {port}\n")).expect("a temporary file");
    let file = config.path().to_str().expect("a path in UTF-8");
    for shards in ["1", "4"] {
        // All calls are made before the first one ends.
        let set = [
            "--set",
            "rpc.timeout=1s",
            "--set",
            "client.heartbeat=1h",
            "--set",
            "client.bytes_per_second=off",
        ];
        let args = ["--config", file, "--shards", shards];
        let mut gateway = Gateway::start(&[&args[..], &set].concat());
        let mut calling = Client::tcp(gateway.address()).open();
        let mut others: Vec<Client> = (0..8)
            .map(|_| Client::websocket(gateway.address()).open())
            .collect();
        // More than the kernel holds, and less than what counts as hung at once.
        let body = vec![b'7'; 60_000];
        for id in 1..=CALLS {
            calling.request(id, "chat.chatHandler.send", &body);
        }
        gateway.wait_counter("rpc_calls", CALLS.into());
        for client in &mut others {
            for _ in 0..2 {
                let empty = client.next_package().expect("a heartbeat");
                assert_eq!((empty.kind, empty.body.len()), (HEARTBEAT, 0));
                client.send_package(HEARTBEAT, b"");
            }
        }
        for id in 1..=CALLS {
            assert_eq!(calling.wait_response(id), br#"{"code":500}"#);
        }
        let (code, printed) = gateway.stop();
        assert_eq!(code, Some(0), "{printed}");
    }
}

#[test]
fn a_backend_that_makes_memory_short_loses_its_link_and_no_player() {
    let hung = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = hung.local_addr().expect("the listener is bound").port();
    let (end, ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        let (mut link, _) = hung.accept().expect("the gateway dials");
        // It answers once, and then reads nothing until the end of the test.
        link.write_all(b"\xd0\x00").expect("the gateway reads");
        let _ = ended.recv();
    });
    let config = NamedTempFile::new().expect("a temporary file");
    let server = "[[server]]\nid = \"chat-1\"\ntype = \"chat\"\nhost = \"127.0.0.1\"\n";
    fs::write(&config, format!("{server}port = {port}\n")).expect("a temporary file");
    let file = config.path().to_str().expect("a path in UTF-8");
    let set = [
        "limits.memory=16MiB",
        "rpc.timeout=10m",
        "rpc.keepalive=10m",
        "client.bytes_per_second=off",
        "client.package_timeout=10m",
    ];
    let set = set.map(|key| format!("--set={key}"));
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let mut gateway = Gateway::start(&[&["--config", file, "--shards=1"][..], &set].concat());
    let address = gateway.address();
    // Players who hold something, as everybody does in the middle of a message.
    let players: Vec<TcpStream> = (0..5).map(|_| open_narrow(address, false)).collect();
    let half = &request(1, ECHO, &[b'7'; 60_000])[..30_000];
    for player in &players {
        assert!(frames::write_anyway(player, half), "closed at once");
    }
    let mut sender = Client::tcp(address).open();
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(60_000));
    while !gateway.counters().contains_key("memory_refuses_new") {
        sender.notify("chat.chatHandler.send", &body);
    }
    gateway.wait_counter("rpc_links_down", 1);
    gateway.wait_printed("many bytes wait for the server");
    for player in &players {
        let rest = &request(1, ECHO, &[b'7'; 60_000])[30_000..];
        assert!(frames::write_anyway(player, rest), "a player was closed");
    }
    gateway.wait_printed("nothing is shed any more");
    let newcomer = Client::tcp(address).open();
    let counters = gateway.counters();
    assert!(!counters.contains_key("closed_memory"), "{counters:?}");
    drop((end, players, sender, newcomer));
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
}

#[test]
fn a_backend_that_never_answers_a_ping_loses_its_link() {
    // The kernel accepts the connection, and no process answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = silent.local_addr().expect("the listener is bound").port();
    let config = NamedTempFile::new().expect("a temporary file");
    let server = "[[server]]\nid = \"chat-1\"\ntype = \"chat\"\nhost = \"127.0.0.1\"\n";
    fs::write(&config, format!("{server}port = {port}\n")).expect("a temporary file");
    let file = config.path().to_str().expect("a path in UTF-8");
    for dialect in ["pomelo", "pinus"] {
        let set = ["--set", "rpc.keepalive=100ms", "--set", "rpc.timeout=10m"];
        let args = ["--config", file, "--dialect", dialect];
        let mut gateway = Gateway::start(&[&args[..], &set].concat());
        let mut client = Client::tcp(gateway.address()).open();
        // Long before its deadline of ten minutes.
        assert_eq!(
            client.request_text("chat.chatHandler.send", "{}"),
            r#"{"code":500}"#,
            "{dialect}"
        );
        let counters = gateway.counters();
        assert_eq!(counters.get("rpc_timeouts"), None, "{dialect}");
        assert_eq!(counters.get("rpc_link_failed"), Some(&1), "{dialect}");
    }
}
