//! The address of a client: of its socket, or of what a proxy tells.

use tangelo::handler::ClientAddr;
use tangelo::wire::message::{self, Message, MessageKind, MessageRoute};
use tangelo::wire::package::{self, PackageKind};

use super::*;

const WHO: &str = "connector.entryHandler.who";

/// The socket of a proxy, and that of a client without one.
const PROXY: &str = "10.0.0.5:4000";
const STRANGER: &str = "192.0.2.7:4000";

/// A gateway that tells each client its address. It trusts the network of the proxy, unless `client` says otherwise.
fn gateway(client: config::Client) -> InMemory {
    let trusted = vec!["10.0.0.0/8".into()];
    let config = Config {
        client: config::Client {
            trusted_proxies: if client.trusted_proxies.is_empty() {
                trusted
            } else {
                client.trusted_proxies
            },
            ..client
        },
        ..Config::default()
    };
    let who = async |address: ClientAddr| Json(address.to_string());
    Gateway::new(config)
        .handlers(move |_| Router::new().route("entryHandler.who", who))
        .in_memory()
        .unwrap_or_else(|error| panic!("{error}"))
}

fn with_header(name: &str) -> config::Client {
    config::Client {
        real_ip_header: Some(name.into()),
        ..config::Client::default()
    }
}

fn open(gateway: &InMemory, from: &str) -> Client {
    gateway.open(ClientOptions {
        address: Some(from.parse().expect("an address")),
        ..ClientOptions::default()
    })
}

/// The bytes of a WebSocket client from its upgrade to its question for its address.
fn websocket(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        .to_vec();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    bytes.extend(b"\r\n");
    let question = Message {
        id: 1,
        kind: MessageKind::Request,
        route: MessageRoute::Text(WHO.as_bytes()),
        gzip: false,
        body: b"{}",
    };
    let mut body = Vec::new();
    message::write(&mut body, &question).expect("a short route");
    for (kind, body) in [
        (PackageKind::Handshake, &b"{\"sys\":{}}"[..]),
        (PackageKind::Ack, b""),
        (PackageKind::Data, &body),
    ] {
        let mut package = Vec::new();
        assert!(package::write(&mut package, kind, body));
        // As Pomelo, the gateway takes a frame without a mask.
        bytes.extend([0x82, u8::try_from(package.len()).expect("a short frame")]);
        bytes.extend(package);
    }
    bytes
}

/// The address that a WebSocket client from this socket is told; `None` where it is closed.
fn told(gateway: &InMemory, from: &str, headers: &[(&str, &str)]) -> Option<String> {
    let mut client = open(gateway, from);
    client.send_bytes(&websocket(headers));
    let answer = client.take_bytes();
    let answer = String::from_utf8_lossy(&answer);
    // The response is the last thing that arrives, and its body is a JSON string.
    let told = answer.rsplit('"').nth(1).map(String::from);
    told.filter(|_| !client.is_closed())
}

#[test]
fn a_header_counts_only_from_a_trusted_proxy() {
    let gateway = gateway(with_header("X-Real-IP"));
    let headers = [("X-Real-IP", "203.0.113.9")];
    assert_eq!(
        told(&gateway, PROXY, &headers).as_deref(),
        Some("203.0.113.9:0")
    );
    assert_eq!(
        told(&gateway, STRANGER, &headers).as_deref(),
        Some(STRANGER)
    );
    assert_eq!(told(&gateway, PROXY, &[]).as_deref(), Some(PROXY));
    let other = [("X-Forwarded-For", "203.0.113.9")];
    assert_eq!(told(&gateway, PROXY, &other).as_deref(), Some(PROXY));
}

#[test]
fn without_trust_a_header_of_a_client_counts_for_nothing() {
    let client = config::Client {
        real_ip_header: Some("X-Real-IP".into()),
        blacklist: vec!["^192\\.0\\.2\\.".into()],
        ..config::Client::default()
    };
    let config = Config {
        client,
        ..Config::default()
    };
    let gateway = start(config);
    // A banned player sends a header of his own.
    assert_eq!(
        told(&gateway, STRANGER, &[("X-Real-IP", "203.0.113.9")]),
        None
    );
    assert_eq!(gateway.counter("closed_blacklisted"), 1);
}

#[test]
fn behind_a_proxy_the_blacklist_waits_for_the_address() {
    let gateway = gateway(config::Client {
        blacklist: vec!["^203\\.0\\.113\\.".into(), "^10\\.0\\.0\\.6$".into()],
        ..with_header("X-Forwarded-For")
    });
    let banned = "203.0.113.9";
    let forged = format!("198.51.100.1, {banned}");
    let over_two = format!("{banned}, 10.1.1.1");
    for text in [banned, &forged, &over_two] {
        assert_eq!(
            told(&gateway, PROXY, &[("X-Forwarded-For", text)]),
            None,
            "{text}"
        );
    }
    // His own line, then that of the proxy.
    let lines = [
        ("X-Forwarded-For", "198.51.100.1"),
        ("X-Forwarded-For", banned),
    ];
    assert_eq!(told(&gateway, PROXY, &lines), None);
    assert_eq!(gateway.counter("closed_blacklisted"), 4);
    let other = format!("{banned}, 198.51.100.1");
    let told_other = told(&gateway, PROXY, &[("X-Forwarded-For", &other)]);
    assert_eq!(told_other.as_deref(), Some("198.51.100.1:0"));
    // A listed proxy may bring others, but not itself.
    let told_other = told(&gateway, "10.0.0.6:1", &[("X-Forwarded-For", &other)]);
    assert_eq!(told_other.as_deref(), Some("198.51.100.1:0"));
    let mut own = open(&gateway, "10.0.0.6:1");
    own.send_bytes(b"\x01");
    assert!(own.is_closed());
    // No proxy: the list counts before the first byte.
    assert!(open(&gateway, "203.0.113.9:1").is_closed());
    assert_eq!(gateway.counter("closed_blacklisted"), 6);
}
