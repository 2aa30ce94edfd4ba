//! The connection of a client: heartbeats, time limits, the bound on connections, the order of packages, and
//! an orderly end.

use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tangelo::Config;
use tangelo::config::{self, Scheduler};
use tangelo::handler::{Answer, Outcome, Request, Router};

use crate::harness::bystander::ECHO;
use crate::harness::client::{Client, DATA, End, HANDSHAKE, HANG_GUARD, HEARTBEAT, KICK, Package};
use crate::harness::frames::{self, binary, request};
use crate::harness::gateway::Gateway;
use crate::harness::inside::Inside;

const REACH: [fn(std::net::SocketAddr) -> Client; 2] = [Client::tcp, Client::websocket];

fn heartbeat() -> Option<Package> {
    Some(Package {
        kind: HEARTBEAT,
        body: Vec::new(),
    })
}

// Heartbeats and time limits.

#[test]
fn heartbeats_answer_heartbeats_and_come_on_no_other_occasion() {
    let gateway = Gateway::start(&["--set", "client.heartbeat=30s"]);
    for reach in REACH {
        let mut client = reach(gateway.address());
        // Before the ack they are ignored.
        client.send_package(HEARTBEAT, b"");
        assert_eq!(
            client.handshake(),
            json!({ "code": 200, "sys": { "heartbeat": 30 } })
        );
        client.send_package(HEARTBEAT, b"");
        client.ack();
        assert_eq!(client.next_package(), heartbeat());
        // A second ack is ignored, a body too.
        client.ack();
        for body in [&b""[..], b"", b"ignored"] {
            client.send_package(HEARTBEAT, body);
            assert_eq!(client.next_package(), heartbeat());
        }
        client.request(1, ECHO, "1");
        let answer = client.next_package().expect("an answer");
        assert_eq!((answer.kind, &answer.body[..]), (DATA, &b"\x04\x011"[..]));
    }
}

#[test]
fn without_heartbeats_a_client_gets_none() {
    let gateway = Gateway::start(&[]);
    for reach in REACH {
        let mut client = reach(gateway.address());
        assert_eq!(client.handshake(), json!({ "code": 200, "sys": {} }));
        client.ack();
        client.send_package(HEARTBEAT, b"");
        client.request(1, ECHO, "1");
        assert_eq!(client.next_package().expect("an answer").kind, DATA);
    }
}

#[test]
fn requests_do_not_stand_for_heartbeats() {
    let mut gateway = Gateway::start_alone(&["--set", "client.heartbeat=1s"]);
    for (reach, end) in REACH.iter().zip([End::Fin, End::CloseFrame(Some(1000))]) {
        // The gateway may have been held up while it read its clock, but not every time.
        let longest = (0..5).map(|_| {
            let mut client = reach(gateway.address());
            assert_eq!(client.handshake()["sys"]["heartbeat"], 1);
            let from = Instant::now();
            client.ack();
            assert_eq!(client.next_package(), heartbeat());
            while let Some(package) = {
                client.request(1, ECHO, "1");
                client.next_package()
            } {
                assert_eq!(package.kind, DATA, "no kick, no heartbeat");
                assert!(from.elapsed() < HANG_GUARD, "the connection is still open");
                thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(client.end(), Some(end));
            from.elapsed()
        });
        let enough = longest
            .into_iter()
            .any(|lived| lived >= Duration::from_millis(1900));
        assert!(enough, "a client has two heartbeats of time");
    }
    assert!(gateway.wait_counter("closed_heartbeat_timeout", 2) >= 2);
}

#[test]
fn a_client_that_sends_heartbeats_stays() {
    let mut gateway =
        Gateway::start(&["--set", "client.heartbeat=1s", "--set", "client.timeout=3s"]);
    let mut clients = REACH.map(|reach| reach(gateway.address()).open());
    let mut silent = REACH.map(|reach| reach(gateway.address()).open());
    // Its time has not begun.
    let mut without_ack = Client::websocket(gateway.address());
    without_ack.handshake();
    // Neither the clock nor the number of heartbeats: long enough to end those who are silent.
    let deadline = Instant::now() + HANG_GUARD;
    while gateway.counters().get("closed_heartbeat_timeout").copied() < Some(2) {
        for client in &mut clients {
            client.send_package(HEARTBEAT, b"");
            assert_eq!(client.next_package(), heartbeat());
        }
        thread::sleep(Duration::from_millis(100));
        assert!(
            Instant::now() < deadline,
            "a silent client is still connected"
        );
    }
    for client in &mut clients {
        // The one that came after the ack.
        assert_eq!(client.next_package(), heartbeat());
        assert_eq!(client.request_text(ECHO, "1"), "1");
    }
    for client in &mut silent {
        assert_eq!(client.next_package(), heartbeat());
        assert_eq!(client.next_package(), None);
    }
    without_ack.ack();
    assert_eq!(without_ack.next_package(), heartbeat());
}

#[test]
fn a_raw_connection_that_is_silent_ends_and_a_websocket_does_not() {
    let mut gateway = Gateway::start(&[
        "--set",
        "client.timeout=2s",
        "--set",
        "client.idle_websocket=false",
    ]);
    let address = gateway.address();
    let mut websockets = [
        Client::websocket(address),
        Client::websocket(address).open(),
    ];
    let silent = Client::tcp(address);
    let mut with_half_a_head = Client::tcp(address);
    with_half_a_head.send_raw(b"\x01\x00");
    let mut without_ack = Client::tcp(address);
    without_ack.handshake();
    let open = Client::tcp(address).open();
    let mut raw = [silent, with_half_a_head, without_ack, open];
    for client in &mut raw {
        assert_eq!(client.next_package(), None, "no kick");
        assert_eq!(client.end(), Some(End::Fin));
    }
    assert_eq!(gateway.wait_counter("closed_idle_timeout", 4), 4);
    // The head of an upgrade does not make it a WebSocket yet.
    let slow = frames::connect(address);
    frames::write_anyway(&slow, b"GET / HTTP/1.1\r\n");
    assert_eq!(frames::read_to_end(&slow), b"");
    websockets[0].handshake();
    websockets[0].ack();
    for client in &mut websockets {
        assert_eq!(client.request_text(ECHO, "1"), "1");
    }
}

#[test]
fn every_byte_of_a_raw_connection_is_a_sign_of_life() {
    let mut gateway = Gateway::start(&["--set", "client.timeout=3s"]);
    let address = gateway.address();
    // One client sends parts of packages, another one only receives the pushes of a third.
    let mut dripping = Client::tcp(address).open();
    let mut hearing = Client::tcp(address).open();
    let mut talking = Client::websocket(address).open();
    for (client, name) in [(&mut hearing, "a"), (&mut talking, "b")] {
        let body = json!({ "name": name }).to_string();
        client.request_text("connector.entryHandler.enter", body);
    }
    let _silent = Client::tcp(address).open();
    let echo = request(1, ECHO, b"1");
    let mut drops = echo.iter().cycle();
    let from = Instant::now();
    let silent_ends_and_more = |gateway: &mut Gateway| {
        let ended = gateway.counters().get("closed_idle_timeout").copied();
        ended >= Some(1) && from.elapsed() > Duration::from_millis(4500)
    };
    while !silent_ends_and_more(&mut gateway) {
        frames::write_anyway(
            dripping.stream(),
            &[*drops.next().expect("an endless iterator")],
        );
        talking.request_text("chat.chatHandler.send", r#"{"text":"still there?"}"#);
        thread::sleep(Duration::from_millis(100));
        assert!(
            from.elapsed() < HANG_GUARD,
            "the silent client is still connected"
        );
    }
    assert_eq!(gateway.counters().get("closed_idle_timeout"), Some(&1));
    assert_eq!(hearing.request_text(ECHO, "1"), "1");
    // It continues where it was, to the end of a request.
    for byte in drops {
        frames::write_anyway(dripping.stream(), &[*byte]);
        if *byte == b'1' {
            break;
        }
    }
    assert_eq!(dripping.wait_response(1), b"1");
}

// Places.

#[test]
fn one_connection_too_many_is_refused_and_a_place_is_given_back() {
    for shards in ["1", "4"] {
        let mut gateway =
            Gateway::start(&["--shards", shards, "--set", "client.max_connections=2"]);
        let address = gateway.address();
        let mut refused = 0;
        for end in [End::Fin, End::CloseFrame(Some(1000))] {
            // Silent ones take no place, nor does a browser.
            let silent: Vec<_> = (0..5).map(|_| frames::connect(address)).collect();
            let mut inside = REACH.map(|reach| reach(address).open());
            for client in &mut inside {
                assert_eq!(client.request_text(ECHO, "1"), "1");
            }
            for (reach, refusal) in REACH.iter().zip([End::Fin, End::CloseFrame(Some(1000))]) {
                let mut client = reach(address);
                client.send_package(HANDSHAKE, br#"{"sys":{}}"#);
                assert_eq!(client.next_package(), None, "refused without a package");
                assert_eq!(client.end(), Some(refusal));
                refused += 1;
            }
            let page = frames::connect(address);
            frames::write_anyway(&page, b"GET / HTTP/1.1\r\n\r\n");
            assert!(frames::read_to_end(&page).starts_with(b"HTTP/1.1 200"));
            assert_eq!(
                gateway.wait_counter("closed_max_connections", refused),
                refused
            );
            for client in &mut inside {
                assert_eq!(client.request_text(ECHO, "2"), "2");
            }
            // One leaves by itself or is thrown out; there is a place again, and only one.
            let [mut leaving, mut staying] = inside;
            let left = match end {
                End::Fin => "closed_left",
                _ => "closed_package_kick",
            };
            let before = gateway.counters().get(left).copied().unwrap_or_default();
            if end == End::Fin {
                drop(leaving);
            } else {
                leaving.send_package(KICK, b"");
                assert_eq!(leaving.next_package(), None);
            }
            gateway.wait_counter(left, before + 1);
            let mut next = Client::websocket(address).open();
            assert_eq!(next.request_text(ECHO, "3"), "3");
            let mut one_more = Client::tcp(address);
            one_more.send_package(HANDSHAKE, br#"{"sys":{}}"#);
            assert_eq!(one_more.next_package(), None);
            refused += 1;
            assert_eq!(staying.request_text(ECHO, "4"), "4");
            drop((silent, staying, next));
            wait_until_empty(&mut gateway);
        }
    }
}

fn wait_until_empty(gateway: &mut Gateway) {
    let deadline = Instant::now() + HANG_GUARD;
    while let Some(left) = gateway.counters().get("connections") {
        assert!(Instant::now() < deadline, "{left} connections are left");
    }
}

// The order of packages.

const BUFFER: [&str; 4] = [
    "--set",
    "push.scheduler=buffer",
    "--set",
    "push.flush_interval=100ms",
];

#[test]
fn the_buffer_scheduler_sends_everything_of_an_interval_as_one_message() {
    let gateway = Gateway::start(&BUFFER);
    let mut client = Client::websocket(gateway.address()).open();
    client.request_text("connector.entryHandler.enter", r#"{"name":"a"}"#);
    let send = |id| request(id, "chat.chatHandler.send", br#"{"text":"x"}"#);
    let asked = [
        send(1),
        request(2, ECHO, b"2"),
        send(3),
        request(4, ECHO, b"4"),
    ];
    // In one write, so that they are read together.
    let asked: Vec<u8> = asked.iter().flat_map(|package| binary(package)).collect();
    frames::write_anyway(client.stream(), &asked);
    let batch = client.next_batch();
    let shown: Vec<String> = batch.iter().map(|package| text(&package.body)).collect();
    assert_eq!(batch.len(), 6, "{shown:?}");
    assert!(batch.iter().all(|package| package.kind == DATA));
    for (n, part) in [
        (0, "onChat"),
        (1, "\u{4}\u{1}{\"code\":200}"),
        (2, "\u{4}\u{2}2"),
        (3, "onChat"),
        (4, "\u{4}\u{3}{\"code\":200}"),
        (5, "\u{4}\u{4}4"),
    ] {
        assert!(shown[n].contains(part), "{n}: {shown:?}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_direct_scheduler_sends_one_package_per_message() {
    let gateway = Gateway::start(&[]);
    let mut client = Client::websocket(gateway.address()).open();
    let asked = (1..=3).flat_map(|id| binary(&request(id, ECHO, b"9")));
    frames::write_anyway(client.stream(), &asked.collect::<Vec<_>>());
    for id in 1..=3 {
        let batch = client.next_batch();
        assert_eq!(batch.len(), 1, "{batch:?}");
        assert_eq!(batch[0].body, [4, id, b'9']);
    }
}

#[test]
fn the_buffer_scheduler_keeps_the_order_over_raw_tcp_and_across_intervals() {
    let gateway = Gateway::start(&BUFFER);
    for reach in REACH {
        let mut client = reach(gateway.address()).open();
        for id in 1..=300 {
            client.request(id, ECHO, id.to_string());
            if id % 100 == 0 {
                thread::sleep(Duration::from_millis(60));
            }
        }
        for id in 1..=300 {
            let package = client.next_package().expect("an answer");
            assert!(
                package.body.ends_with(id.to_string().as_bytes()),
                "{id}: {package:?}"
            );
        }
    }
}

/// Pushes 0, 1, 2.
fn push_three(request: &Request<'_>) {
    for n in ["0", "1", "2"] {
        let pushed = request.session.push_raw("onN", format!("[{n}]").as_bytes());
        assert_eq!(pushed, Ok(true));
    }
}

fn kicking() -> Router {
    Router::new()
        .raw_route("connector.testHandler.pushThenKick", |request| {
            push_three(request);
            request.session.kick(Some("pk"));
            Answer::now(Outcome::json(&br#"{"too":"late"}"#[..]))
        })
        .raw_route("connector.testHandler.kickSilently", |request| {
            request.session.kick(None);
            Answer::now(Outcome::default())
        })
        .raw_route("connector.testHandler.respondThenKick", |_| {
            Answer::now(Outcome::json(&br#"{"ok":1}"#[..]))
        })
        .filters(|filters| {
            filters.global_after.push(Box::new(|error, incoming, _| {
                if incoming.route.ends_with(".respondThenKick") {
                    incoming.session.kick(Some("bye"));
                }
                tangelo::handler::filter::Step::Ready(error)
            }));
        })
}

fn with_scheduler(scheduler: Scheduler) -> Config {
    Config {
        push: config::Push {
            scheduler,
            flush_interval: Duration::from_millis(100),
            ..config::Push::default()
        },
        ..Config::default()
    }
}

#[test]
fn a_kick_follows_what_was_pushed_directly_and_overtakes_what_was_buffered() {
    for (scheduler, pushes) in [(Scheduler::Direct, 3), (Scheduler::Buffer, 0)] {
        let inside = Inside::start(1, with_scheduler(scheduler), kicking);
        for (reach, end) in REACH.iter().zip([End::Fin, End::CloseFrame(Some(1000))]) {
            let mut client = reach(inside.address()).open();
            client.request(1, "connector.testHandler.pushThenKick", "{}");
            for n in 0..pushes {
                assert_eq!(
                    client.next_push(),
                    ("onN".into(), format!("[{n}]").into_bytes())
                );
            }
            assert_eq!(client.wait_kick(), "pk");
            assert_eq!(client.end(), Some(end));
        }
        inside.wait_counter("closed_kicked", 2);
        inside.stop();
    }
}

#[test]
fn a_response_before_a_kick_arrives_before_it() {
    let inside = Inside::start(1, with_scheduler(Scheduler::Direct), kicking);
    for reach in REACH {
        let mut client = reach(inside.address()).open();
        client.request(1, "connector.testHandler.respondThenKick", "{}");
        assert_eq!(client.wait_response(1), br#"{"ok":1}"#);
        assert_eq!(client.wait_kick(), "bye");
        // Without a reason there is no package, and the request that asked for the kick gets no answer.
        let mut client = reach(inside.address()).open();
        client.request(1, "connector.testHandler.kickSilently", "{}");
        assert_eq!(client.next_package(), None);
    }
    inside.stop();
}

#[test]
fn a_client_that_closes_its_side_still_gets_its_answers() {
    let gateway = Gateway::start(&[]);
    for reach in REACH {
        for count in [1, 100] {
            let mut client = reach(gateway.address()).open();
            for id in 1..=count {
                client.request(id, ECHO, id.to_string());
            }
            client
                .stream()
                .shutdown(Shutdown::Write)
                .expect("the connection is open");
            for id in 1..=count {
                assert_eq!(client.wait_response(id), id.to_string().as_bytes());
            }
            assert_eq!(client.next_package(), None);
            assert_eq!(client.end(), Some(End::Fin));
        }
    }
}

// The end.

/// A signal, the counter of the clients that it closes, and the close code that they get.
const STOP: (&str, &str, u16) = ("INT", "closed_stopping=", 1000);
const DRAIN: (&str, &str, u16) = ("TERM", "closed_drain=", 1001);

#[test]
fn a_gateway_that_is_told_to_stop_closes_every_client_in_order() {
    for (shards, set, (signal, counter, code)) in [
        ("1", &[][..], STOP),
        ("4", &BUFFER, STOP),
        ("1", &BUFFER, DRAIN),
        ("4", &[], DRAIN),
    ] {
        let args: Vec<&str> = ["--shards", shards].iter().chain(set).copied().collect();
        let mut gateway = Gateway::start(&args);
        let address = gateway.address();
        let mut clients: Vec<(Client, End)> = Vec::new();
        for _ in 0..4 {
            for (reach, end) in REACH.iter().zip([End::Fin, End::CloseFrame(Some(code))]) {
                clients.push((reach(address), end));
                let mut client = reach(address).open();
                client.request_text(ECHO, "1");
                clients.push((client, end));
            }
        }
        // A client that does not read its answers.
        let sleeping = frames::connect_narrow(address);
        let asked = request(1, ECHO, &[b'7'; 450_000]).repeat(2);
        let life = [frames::handshake(), frames::ack(), asked].concat();
        frames::write_anyway(&sleeping, &life);
        gateway.signal(signal);
        assert_eq!(gateway.wait_exit(), Some(0), "{}", gateway.printed());
        gateway.wait_printed(counter);
        for (client, end) in &mut clients {
            assert_eq!(client.next_package(), None);
            assert_eq!(client.end(), Some(*end));
        }
    }
}
