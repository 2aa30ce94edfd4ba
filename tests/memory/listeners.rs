//! The rules of a listener: the transports that it takes, and whether proxies send their header there.

use tangelo::config::{ClientListener, Transports};

use super::*;

const PROXY: &str = "10.0.0.5:4000";
const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 127.0.0.1 40000 3010\r\n";
const HANDSHAKE: &[u8] = b"\x01\0\0\x0a{\"sys\":{}}";
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A gateway with one listener and a health check, behind a trusted proxy.
fn gateway(listener: ClientListener, proxy_protocol: bool) -> InMemory {
    let config = Config {
        listeners: vec![listener],
        client: config::Client {
            trusted_proxies: vec!["10.0.0.5".into()],
            proxy_protocol,
            health_path: Some("/health".into()),
            ..config::Client::default()
        },
        ..Config::default()
    };
    let gateway = Gateway::new(config).handlers(|_| Router::new());
    gateway
        .in_memory()
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Sends bytes on a new connection. Returns the first answer, and whether the connection is closed.
fn send(gateway: &InMemory, from: Option<&str>, bytes: &[&[u8]]) -> (String, bool) {
    let mut client = gateway.open(ClientOptions {
        address: from.map(|from| from.parse().expect("an address")),
        ..ClientOptions::default()
    });
    for bytes in bytes {
        client.offer_bytes(bytes);
    }
    let answer = client.take_bytes();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (answer, client.is_closed())
}

fn only(tcp: bool, websocket: bool) -> ClientListener {
    ClientListener {
        transports: Transports { tcp, websocket },
        ..ClientListener::default()
    }
}

const REFUSED: &str = "HTTP/1.1 400 Bad Request\r\n";

#[test]
fn http_on_a_listener_for_raw_tcp_gets_a_short_answer_and_is_closed() {
    let gateway = gateway(only(true, false), false);
    let health = b"GET /health HTTP/1.1\r\n\r\n";
    for request in [UPGRADE, health, b"POST /", b"HEAD", b"GET"] {
        let (answer, is_closed) = send(&gateway, None, &[request]);
        assert!(answer.starts_with(REFUSED), "{answer}");
        let has_body = answer.ends_with("\r\n\r\nthis port speaks raw TCP\n");
        assert_eq!(has_body, request != b"HEAD", "{answer}");
        assert!(is_closed);
    }
    assert_eq!(gateway.counter("closed_transport"), 5);
    let (answer, is_closed) = send(&gateway, None, &[HANDSHAKE]);
    assert!(answer.contains("\"code\":200"), "{answer}");
    assert!(!is_closed);
    assert_eq!(gateway.counter("closed_transport"), 5);
}

#[test]
fn raw_bytes_on_a_listener_for_websocket_are_closed_without_an_answer() {
    let gateway = gateway(only(false, true), false);
    for bytes in [HANDSHAKE, b"G", b"\x16\x04"] {
        assert_eq!(send(&gateway, None, &[bytes]), (String::new(), true));
    }
    assert_eq!(gateway.counter("closed_transport"), 3);
    // TLS has a reason of its own, on each listener without it.
    let tls = b"\x16\x03\x01";
    assert_eq!(send(&gateway, None, &[tls]), (String::new(), true));
    assert_eq!(gateway.counter("closed_tls_on_plain"), 1);
    let (answer, is_closed) = send(&gateway, None, &[UPGRADE]);
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(!is_closed);
    let (answer, _) = send(&gateway, None, &[b"GET /health HTTP/1.1\r\n\r\n"]);
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    assert_eq!(gateway.counter("closed_transport"), 3);
}

#[test]
fn the_transport_counts_behind_the_header_of_a_proxy() {
    let web = gateway(only(false, true), true);
    let refused = send(&web, Some(PROXY), &[HEADER, HANDSHAKE]);
    assert_eq!(refused, (String::new(), true));
    assert_eq!(web.counter("closed_transport"), 1);
    let raw = gateway(only(true, false), true);
    let (answer, _) = send(&raw, Some(PROXY), &[HEADER, UPGRADE]);
    assert!(answer.starts_with(REFUSED), "{answer}");
    assert_eq!(raw.counter("closed_transport"), 1);
}

#[test]
fn a_listener_wants_the_header_of_a_proxy_if_its_own_key_or_else_that_of_all_says_so() {
    for (own, of_all, is_wanted) in [
        (None, false, false),
        (None, true, true),
        (Some(true), false, true),
        (Some(false), true, false),
    ] {
        let listener = ClientListener {
            proxy_protocol: own,
            ..ClientListener::default()
        };
        let gateway = gateway(listener, of_all);
        let (answer, _) = send(&gateway, Some(PROXY), &[HEADER, HANDSHAKE]);
        assert_eq!(
            answer.contains("\"code\":200"),
            is_wanted,
            "{own:?} {of_all}"
        );
        let (answer, _) = send(&gateway, Some(PROXY), &[HANDSHAKE]);
        assert_eq!(
            answer.contains("\"code\":200"),
            !is_wanted,
            "{own:?} {of_all}"
        );
        let reason = if is_wanted {
            "closed_proxy_header"
        } else {
            "closed_package_type"
        };
        assert_eq!(gateway.counter(reason), 1);
    }
}
