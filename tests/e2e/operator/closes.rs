//! The log says why a client's connection was closed, in the words of the counters.

use std::net::TcpStream;

use tangelo::CloseReason;

use crate::harness::client::Client;
use crate::harness::frames;
use crate::harness::gateway::Gateway;

const DEBUG: [&str; 2] = ["--set", "log.level=debug"];

#[test]
fn at_debug_each_closed_client_has_a_line_with_its_reason() {
    let mut gateway = Gateway::start(&DEBUG);
    let client = Client::tcp(gateway.address()).open();
    let address = client.stream().local_addr().expect("a socket");
    drop(client);
    let line = gateway.wait_printed("a client is closed");
    for part in [
        "reason=\"left\"",
        &format!("address=\"{address}\""),
        "session=",
    ] {
        assert!(line.contains(part), "{line}");
    }
    let _open = Client::tcp(gateway.address()).open();
    let (_, printed) = gateway.stop();
    assert!(printed.contains("reason=\"drain\""), "{printed}");
}

#[test]
fn a_client_that_breaks_the_protocol_has_a_line_without_debug() {
    let mut gateway = Gateway::start(&["--set", "log.level=info"]);
    drop(Client::tcp(gateway.address()).open());
    let mut client = Client::tcp(gateway.address()).open();
    client.send_package(9, b"");
    assert_eq!(client.next_package(), None);
    let line = gateway.wait_printed("a client is closed");
    assert!(line.contains("INFO"), "{line}");
    assert!(line.contains("reason=\"package_type\""), "{line}");
    let (_, printed) = gateway.stop();
    assert!(!printed.contains("reason=\"left\""), "{printed}");
}

/// Makes a gateway close a client for one reason.
struct Provocation {
    reason: &'static str,
    settings: &'static [&'static str],
    provoke: fn(&mut Gateway),
}

/// Reasons that need a server, an application, listeners or seconds, or have no line; the tests of their subject provoke them.
const ELSEWHERE: [&str; 23] = [
    "ack_timeout",
    "address_rate",
    "bind_timeout",
    "duplicate_login",
    "first_byte_timeout",
    "heartbeat_timeout",
    "idle_timeout",
    "kicked",
    "kicked_by_operator",
    "kicked_by_server",
    "message_body",
    "outbox_full",
    "package_timeout",
    "plain_on_tls",
    "probe",
    "proxy_timeout",
    "rate",
    "signature",
    "silent",
    "tls",
    "tls_timeout",
    "transport",
    "write_timeout",
];

const PROVOCATIONS: [Provocation; 26] = [
    Provocation {
        reason: "left",
        settings: &[],
        provoke: |gateway| drop(open(gateway)),
    },
    Provocation {
        reason: "socket",
        settings: &[],
        provoke: |gateway| {
            let stream = frames::connect(gateway.address());
            assert!(frames::write_anyway(&stream, &frames::handshake()));
            frames::read_exactly(&stream, 4);
            frames::reset(stream);
        },
    },
    Provocation {
        reason: "handshake",
        settings: &["client.accept=[\"!x\"]"],
        provoke: |gateway| {
            let mut client = Client::tcp(gateway.address());
            client.send_package(1, br#"{"sys":{"type":"x","version":"1"}}"#);
            while client.next_package().is_some() {}
        },
    },
    Provocation {
        reason: "handshake_timeout",
        settings: &["client.handshake_timeout=100ms"],
        provoke: |gateway| assert_eq!(Client::websocket(gateway.address()).next_package(), None),
    },
    Provocation {
        reason: "upgrade_timeout",
        settings: &["client.upgrade_timeout=100ms"],
        provoke: |gateway| ask(gateway, "GET / HTTP/1.1\r\n"),
    },
    Provocation {
        reason: "package_type",
        settings: &[],
        provoke: |gateway| open(gateway).send_package(9, b""),
    },
    Provocation {
        reason: "tls_on_plain",
        settings: &[],
        provoke: |gateway| ask(gateway, "\x16\x03\x01\x02\x00"),
    },
    Provocation {
        reason: "package_too_long",
        settings: &["client.package_bytes_max=1024"],
        provoke: |gateway| open(gateway).send_raw(b"\x04\x01\x00\x00"),
    },
    Provocation {
        reason: "package_count",
        settings: &[],
        provoke: |gateway| {
            let mut client = Client::websocket(gateway.address()).open();
            client.send_raw(b"\x03\x00\x00\x00\x03\x00\x00\x00");
        },
    },
    Provocation {
        reason: "package_kick",
        settings: &[],
        provoke: |gateway| open(gateway).send_package(5, b""),
    },
    Provocation {
        reason: "message_cut",
        settings: &[],
        provoke: |gateway| open(gateway).send_package(4, b""),
    },
    Provocation {
        reason: "message_id",
        settings: &[],
        provoke: |gateway| open(gateway).send_package(4, b"\x00\xff\xff\xff\xff\x7f\x01a"),
    },
    Provocation {
        reason: "not_forwarded",
        settings: &["client.forward=false"],
        provoke: |gateway| open(gateway).request(1, "area.h.m", "{}"),
    },
    Provocation {
        reason: "attack",
        settings: &[],
        provoke: |gateway| open(gateway).request(1, "x.y.constructor", "{}"),
    },
    Provocation {
        reason: "websocket",
        settings: &[],
        provoke: |gateway| {
            let client = Client::websocket(gateway.address()).open();
            frames::write_anyway(client.stream(), &frames::frame(0x83, b""));
        },
    },
    Provocation {
        reason: "proxy_header",
        settings: &[
            "client.trusted_proxies=[\"127.0.0.1\"]",
            "client.proxy_protocol=true",
        ],
        provoke: |gateway| {
            let mut proxy = Client::tcp(gateway.address());
            proxy.send_package(1, b"{}");
            assert_eq!(proxy.next_package(), None);
        },
    },
    Provocation {
        reason: "http",
        settings: &[],
        provoke: |gateway| ask(gateway, "GET / HTTP/1.1\r\n:\r\n\r\n"),
    },
    Provocation {
        reason: "http_answered",
        settings: &["id=a"],
        provoke: |gateway| ask(gateway, "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"),
    },
    Provocation {
        reason: "http_too_long",
        settings: &[],
        provoke: |gateway| {
            let path = "x".repeat(32 << 10);
            ask(gateway, &format!("GET /{path} HTTP/1.1\r\n\r\n"));
        },
    },
    Provocation {
        reason: "http_bad_upgrade",
        settings: &[],
        provoke: |gateway| {
            let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
            let head = format!("GET / HTTP/1.1\r\n{upgrade}Sec-WebSocket-Version: 1\r\n\r\n");
            ask(gateway, &head);
        },
    },
    Provocation {
        reason: "http_no_upgrade",
        settings: &[],
        provoke: |gateway| ask(gateway, "POST / HTTP/1.1\r\nHost: a\r\n\r\n"),
    },
    Provocation {
        reason: "health",
        settings: &["client.health_path=/health"],
        provoke: |gateway| ask(gateway, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n"),
    },
    Provocation {
        reason: "max_connections",
        settings: &["client.max_connections=1"],
        provoke: |gateway| {
            let _first = open(gateway);
            let mut second = Client::tcp(gateway.address());
            second.send_package(1, b"{}");
            assert_eq!(second.next_package(), None);
        },
    },
    Provocation {
        reason: "address_connections",
        settings: &["client.address_connections_max=1"],
        provoke: |gateway| {
            let _first = open(gateway);
            assert_eq!(Client::tcp(gateway.address()).next_package(), None);
        },
    },
    Provocation {
        reason: "memory",
        settings: &["limits.memory=16MiB", "client.handshake_bytes_max=4MiB"],
        provoke: |gateway| {
            let half = [&b"\x01\x40\x00\x00"[..], &vec![b'x'; 3 << 20]].concat();
            let half_sent = || {
                let stream = frames::connect(gateway.address());
                frames::write_anyway(&stream, &half);
                stream
            };
            let strangers: Vec<TcpStream> = (0..5).map(|_| half_sent()).collect();
            gateway.wait_counter("closed_memory", 1);
            drop(strangers);
        },
    },
    Provocation {
        reason: "blacklisted",
        settings: &["client.blacklist=[\"127.0.0.1\"]"],
        provoke: |gateway| assert_eq!(Client::tcp(gateway.address()).next_package(), None),
    },
];

fn open(gateway: &Gateway) -> Client {
    Client::tcp(gateway.address()).open()
}

fn ask(gateway: &Gateway, head: &str) {
    let stream = frames::connect(gateway.address());
    frames::write_anyway(&stream, head.as_bytes());
    frames::read_to_end(&stream);
}

#[test]
fn each_reason_is_one_word_in_the_log_and_in_the_counters() {
    for Provocation {
        reason,
        settings,
        provoke,
    } in &PROVOCATIONS
    {
        let sets = settings.iter().flat_map(|setting| ["--set", setting]);
        let args: Vec<&str> = DEBUG.into_iter().chain(sets).collect();
        let mut gateway = Gateway::start(&args);
        provoke(&mut gateway);
        gateway.wait_counter(&format!("closed_{reason}"), 1);
        gateway.wait_printed(&format!("reason=\"{reason}\""));
    }
}

#[test]
fn no_reason_is_without_a_test() {
    let provoked = PROVOCATIONS.iter().map(|one| one.reason);
    let ends = ["drain", "stopping"];
    let mut tested: Vec<&str> = provoked.chain(ELSEWHERE).chain(ends).collect();
    tested.sort_unstable();
    let names = CloseReason::COUNTERS.iter();
    let mut all: Vec<&str> = names
        .filter_map(|name| name.strip_prefix("closed_"))
        .collect();
    all.sort_unstable();
    assert_eq!(tested, all);
}

#[test]
fn a_stop_without_a_drain_has_a_reason_of_its_own() {
    let mut gateway = Gateway::start(&DEBUG);
    let _open = open(&gateway);
    gateway.signal("INT");
    assert_eq!(gateway.wait_exit(), Some(0));
    assert!(gateway.printed().contains("reason=\"stopping\""));
}
