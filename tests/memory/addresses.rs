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

/// The bytes of an upgrade.
fn upgrade(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        .to_vec();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    bytes.extend(b"\r\n");
    bytes
}

/// The packages of a client from its handshake to its question for its address.
fn question() -> [Vec<u8>; 3] {
    let question = Message {
        id: 1,
        kind: MessageKind::Request,
        route: MessageRoute::Text(WHO.as_bytes()),
        gzip: false,
        body: b"{}",
    };
    let mut body = Vec::new();
    message::write(&mut body, &question).expect("a short route");
    [
        (PackageKind::Handshake, &b"{\"sys\":{}}"[..]),
        (PackageKind::Ack, b""),
        (PackageKind::Data, &body),
    ]
    .map(|(kind, body)| {
        let mut package = Vec::new();
        assert!(package::write(&mut package, kind, body));
        package
    })
}

/// All bytes of a client over raw TCP.
fn raw() -> Vec<u8> {
    question().concat()
}

/// All bytes of a client over WebSocket. As Pomelo, the gateway takes frames without a mask.
fn websocket(headers: &[(&str, &str)]) -> Vec<u8> {
    let frame = |package: Vec<u8>| {
        let length = u8::try_from(package.len()).expect("a short frame");
        [vec![0x82, length], package].concat()
    };
    [upgrade(headers), question().map(frame).concat()].concat()
}

/// The address that a client from this socket is told when it sends these pieces; `None` where it is closed.
fn told_after<'a>(
    gateway: &InMemory,
    from: &str,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Option<String> {
    let mut client = open(gateway, from);
    for piece in pieces {
        client.send_bytes(piece);
    }
    let answer = client.take_bytes();
    let answer = String::from_utf8_lossy(&answer);
    // The response is the last thing that arrives, and its body is a JSON string.
    let told = answer.rsplit('"').nth(1).map(String::from);
    told.filter(|_| !client.is_closed())
}

/// The same for a WebSocket client.
fn told(gateway: &InMemory, from: &str, headers: &[(&str, &str)]) -> Option<String> {
    told_after(gateway, from, [&*websocket(headers)])
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
fn a_proxy_that_does_not_tell_the_address_is_counted() {
    let gateway = gateway(with_header("X-Real-IP"));
    for (header, untold) in [("X-Real-IP", 0), ("X-Real-Ipp", 1)] {
        told(&gateway, PROXY, &[(header, "192.0.2.1")]);
        assert_eq!(gateway.counter("addresses_untold"), untold);
    }
    told(&gateway, STRANGER, &[]);
    assert_eq!(gateway.counter("addresses_untold"), 1);
    gateway.stop().unwrap();
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

fn with_protocol() -> config::Client {
    config::Client {
        proxy_protocol: true,
        ..config::Client::default()
    }
}

/// A header of version 2 with these fields.
fn v2(command: u8, family: u8, fields: &[u8]) -> Vec<u8> {
    let length = u16::try_from(fields.len()).expect("a length");
    let start = b"\r\n\r\n\0\r\nQUIT\n";
    [start, &[command, family][..], &length.to_be_bytes(), fields].concat()
}

/// Headers with the address that a client is told.
fn headers() -> Vec<(Vec<u8>, &'static str)> {
    const V4: &str = "203.0.113.9:4000";
    const V6: &str = "[2001:db8::9]:4000";
    let v4 = [203, 0, 113, 9, 10, 0, 0, 7, 0x0f, 0xa0, 0, 80];
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    (v6[15], v6[31]) = (9, 1);
    v6[32..34].copy_from_slice(&[0x0f, 0xa0]);
    // A field behind the addresses.
    let field = [0x05, 0, 3, b'a', b'b', b'c'];
    vec![
        (b"PROXY TCP4 203.0.113.9 10.0.0.7 4000 80\r\n".into(), V4),
        (b"PROXY TCP6 2001:db8::9 ::1 4000 80\r\n".into(), V6),
        (b"PROXY UNKNOWN\r\n".into(), PROXY),
        (v2(0x21, 0x11, &v4), V4),
        (v2(0x21, 0x11, &[&v4[..], &field].concat()), V4),
        (v2(0x21, 0x21, &v6), V6),
        (v2(0x21, 0x21, &[&v6[..], &field].concat()), V6),
        (v2(0x20, 0x00, b""), PROXY),
    ]
}

#[test]
fn a_header_of_a_proxy_may_be_cut_anywhere_and_a_client_follows_over_any_transport() {
    let gateway = gateway(with_protocol());
    for (header, expected) in headers() {
        for client in [raw(), websocket(&[])] {
            let whole = [&header[..], &client].concat();
            let told = |pieces: &[&[u8]]| told_after(&gateway, PROXY, pieces.iter().copied());
            let expected = Some(expected.to_owned());
            assert_eq!(told(&[&whole]), expected, "{header:?}");
            assert_eq!(told(&[&header, &client]), expected, "{header:?}");
            let (most, last) = whole.split_at(header.len() - 1);
            let mut bytes: Vec<&[u8]> = most.chunks(1).collect();
            bytes.push(last);
            assert_eq!(told(&bytes), expected, "{header:?}");
        }
        let whole = [&header[..], &raw()].concat();
        let told = told_after(&gateway, PROXY, whole.chunks(1));
        assert_eq!(told.as_deref(), Some(expected), "{header:?}");
    }
}

#[test]
fn the_header_of_a_proxy_wins_over_those_of_its_client() {
    let gateway = gateway(config::Client {
        proxy_protocol: true,
        ..with_header("X-Forwarded-For")
    });
    let client = websocket(&[("X-Forwarded-For", "198.51.100.1")]);
    for (header, expected) in headers() {
        let told = told_after(&gateway, PROXY, [&*header, &client]);
        assert_eq!(told.as_deref(), Some(expected), "{header:?}");
    }
}

#[test]
fn a_proxy_without_its_header_is_closed_with_a_reason() {
    let gateway = gateway(with_protocol());
    assert_eq!(told_after(&gateway, PROXY, [&*raw()]), None);
    assert_eq!(told(&gateway, PROXY, &[]), None);
    let long = v2(0x20, 0, &[0; 5000]);
    assert_eq!(told_after(&gateway, PROXY, [&long[..16]]), None);
    assert_eq!(gateway.counter("closed_proxy_header"), 3);
    assert_eq!(gateway.counter("closed_package_type"), 0);
}

#[test]
fn a_proxy_has_five_seconds_for_its_header_and_its_client_the_usual_time() {
    let mut gateway = gateway(with_protocol());
    let [mut silent, mut slow, mut whole] = [(); 3].map(|()| open(&gateway, PROXY));
    whole.send_bytes(b"PROXY UNKNOWN\r\n");
    gateway.advance(4 * SECOND);
    slow.send_bytes(b"PROXY UNKN");
    gateway.advance(SECOND - MS);
    assert!(!silent.is_closed() && !slow.is_closed());
    gateway.advance(MS + 50 * MS);
    assert!(silent.is_closed() && slow.is_closed());
    assert_eq!(gateway.counter("closed_proxy_timeout"), 2);
    gateway.advance(4 * SECOND);
    assert!(!whole.is_closed());
    gateway.advance(SECOND);
    assert!(whole.is_closed());
    assert_eq!(gateway.counter("closed_first_byte_timeout"), 1);
}

#[test]
fn a_client_behind_a_proxy_has_its_time_also_when_that_is_shorter_than_the_proxys() {
    let mut gateway = gateway(config::Client {
        timeout: Some(200 * MS),
        ..with_protocol()
    });
    for before in [0, 150, 420, 1_970] {
        let mut silent = open(&gateway, PROXY);
        gateway.advance(before * MS);
        silent.send_bytes(b"PROXY UNKNOWN\r\n");
        gateway.advance(199 * MS);
        assert!(!silent.is_closed(), "{before}");
        // The deadlines are looked at each 50 ms.
        gateway.advance(101 * MS);
        assert!(silent.is_closed(), "{before}");
    }
    assert_eq!(gateway.counter("closed_idle_timeout"), 4);
}

#[test]
fn the_header_of_a_stranger_is_an_invalid_package() {
    let gateway = gateway(with_protocol());
    let mut count = 0;
    for (header, _) in headers() {
        assert_eq!(told_after(&gateway, STRANGER, [&*header, &raw()]), None);
        count += 1;
    }
    assert_eq!(gateway.counter("closed_package_type"), count);
    let told = told_after(&gateway, STRANGER, [&*raw()]);
    assert_eq!(told.as_deref(), Some(STRANGER));
}

#[test]
fn a_banned_client_is_closed_as_soon_as_the_header_has_named_it() {
    let gateway = gateway(config::Client {
        blacklist: vec!["^203\\.0\\.113\\.9$".into(), "^2001:db8::9$".into()],
        ..with_protocol()
    });
    let banned = headers().into_iter().filter(|(_, told)| *told != PROXY);
    let mut count = 0;
    for (header, _) in banned {
        let mut client = open(&gateway, PROXY);
        client.send_bytes(&header);
        assert!(client.is_closed(), "{header:?}");
        count += 1;
    }
    assert_eq!(gateway.counter("closed_blacklisted"), count);
    let other = b"PROXY TCP4 203.0.113.8 10.0.0.7 4000 80\r\n";
    let told = told_after(&gateway, PROXY, [&other[..], &raw()]);
    assert_eq!(told.as_deref(), Some("203.0.113.8:4000"));
}

#[test]
fn a_connection_without_a_byte_of_a_client_is_a_probe_and_no_player() {
    let gateway = gateway(config::Client {
        max_connections: Some(1),
        ..with_protocol()
    });
    let mut player = gateway.connect();
    let probe = |from: &str, bytes: &[u8]| {
        let mut client = open(&gateway, from);
        client.send_bytes(bytes);
        client.close();
    };
    probe(STRANGER, b"");
    probe(PROXY, b"");
    probe(PROXY, b"PROXY UNKN");
    for (header, _) in headers() {
        probe(PROXY, &header);
    }
    assert_eq!(
        gateway.counter("closed_probe"),
        11,
        "{}",
        gateway.counters()
    );
    assert!(!player.is_closed());
    // After one byte it is a client.
    probe(STRANGER, b"\x01");
    assert_eq!(gateway.counter("closed_max_connections"), 1);
    assert_eq!(gateway.counter("closed_probe"), 11);
}
