//! No client byte ends a shard: each kind of broken input ends its own connection, under the name
//! of what was wrong with it, and nobody else notices.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::bystander::{Attacked, ECHO};
use crate::harness::client::{Client, DATA, End, HANG_GUARD, KICK, encode_package};
use crate::harness::frames::{
    self, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, UPGRADE, binary, connect, frame,
    frame_head,
};

/// Connections per attack: enough to meet more than one shard.
const CONNECTIONS: u64 = 3;

/// Small, so that attacks on it are small too.
const LIMIT: &str = "client.package_bytes_max=64KiB";
const LIMIT_BYTES: usize = 64 << 10;

fn on_one_shard_and_on_four(args: &[&str], mut test: impl FnMut(&mut Attacked)) {
    for shards in [1, 4] {
        let mut attacked = Attacked::start(shards, args);
        test(&mut attacked);
        attacked.finish();
    }
}

/// The state of a client before it sends the hostile bytes.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Raw TCP, not a byte sent.
    Fresh,
    /// Raw TCP, messages flow.
    Tcp,
    /// WebSocket, no package sent.
    Upgraded,
    /// WebSocket, messages flow.
    WebSocket,
}

impl Stage {
    fn reach(self, address: SocketAddr) -> Client {
        match self {
            Self::Fresh => Client::tcp(address),
            Self::Tcp => Client::tcp(address).open(),
            Self::Upgraded => Client::websocket(address),
            Self::WebSocket => Client::websocket(address).open(),
        }
    }
}

/// Sends `bytes` from some connections at once and sees each of them end as it should.
fn attack(attacked: &mut Attacked, stage: Stage, bytes: &[u8], reason: &str, end: End) {
    let shown = &bytes[..bytes.len().min(40)];
    let name = format!("{stage:?} {}", shown.escape_ascii());
    attacked.attack(&name, &[(reason, CONNECTIONS)], |address| {
        let clients = (0..CONNECTIONS).map(|_| stage.reach(address));
        let mut clients: Vec<Client> = clients.collect();
        for client in &mut clients {
            frames::write_anyway(client.stream(), bytes);
        }
        for client in &mut clients {
            while client.next_package().is_some() {}
            assert_eq!(client.end(), Some(end), "{name}");
        }
    });
}

/// A message of each kind that is refused, and why.
fn broken_messages() -> Vec<(Vec<u8>, &'static str)> {
    let cut = [
        &b""[..],
        b"\x03",
        b"\x03\x00",
        b"\x04",
        b"\x05",
        b"\x07",
        b"\x02\x05ab",
        b"\x00\x01\xffab",
        b"\x01\x01\x00",
    ];
    let ids = [
        &b"\x00\x80\x80\x80\x80\x08\x00"[..],
        b"\x00\xff\xff\xff\xff\x0f\x00",
        b"\x00\xff\xff\xff\xff\x7f\x00",
        b"\x00\x80\x80\x80\x80\x80\x01\x00",
        b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x04\x80\x80\x80\x80\x08",
    ];
    let cut = cut.map(|message| (message.to_vec(), "closed_message_cut"));
    let ids = ids.map(|message| (message.to_vec(), "closed_message_id"));
    cut.into_iter().chain(ids).collect()
}

#[test]
fn bytes_that_are_not_a_package_end_only_their_raw_connection() {
    on_one_shard_and_on_four(&["--set", LIMIT], |attacked| {
        for stage in [Stage::Fresh, Stage::Tcp] {
            for (bytes, reason) in [
                (&b"\x00\x00\x00\x00"[..], "closed_package_type"),
                (b"\x06\x00\x00\x00", "closed_package_type"),
                (b"\xff\xff\xff\xff", "closed_package_type"),
                (b"DELETE / HTTP/1.1\r\n\r\n", "closed_package_type"),
                (b"get / HTTP/1.1\r\n\r\n", "closed_package_type"),
                (b"\x05\x00\x00\x00", "closed_package_kick"),
                (b"\x05\x00\x00\x0e{\"reason\":\"r\"}", "closed_package_kick"),
                (b"\x04\xff\xff\xff", "closed_package_too_long"),
                (b"\x01\x01\x00\x01", "closed_package_too_long"),
                (
                    b"\x03\x00\x00\x00\x09\x00\x00\x00\x03\x00\x00\x00",
                    "closed_package_type",
                ),
            ] {
                attack(attacked, stage, bytes, reason, End::Fin);
            }
        }
        for (stage, reason) in [
            (Stage::Fresh, "closed_tls_on_plain"),
            (Stage::Tcp, "closed_package_type"),
        ] {
            let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
            attack(attacked, stage, tls, reason, End::Fin);
        }
        for (message, reason) in broken_messages() {
            let package = encode_package(DATA, &message);
            attack(attacked, Stage::Tcp, &package, reason, End::Fin);
        }
        for request in [
            "",
            "null",
            "5",
            "[]",
            "{}",
            "{\"sys\":0}",
            "\u{feff}{\"sys\":{}}",
            "{",
        ] {
            let package = encode_package(1, request.as_bytes());
            attack(
                attacked,
                Stage::Fresh,
                &package,
                "closed_handshake",
                End::Fin,
            );
        }
    });
}

#[test]
fn bytes_that_are_not_a_package_end_only_their_websocket() {
    on_one_shard_and_on_four(&["--set", LIMIT], |attacked| {
        let normal = End::CloseFrame(Some(1000));
        for stage in [Stage::Upgraded, Stage::WebSocket] {
            for (message, reason) in [
                (&b""[..], "closed_package_count"),
                (b"\x03", "closed_package_count"),
                (b"\x03\x00\x00", "closed_package_count"),
                (b"\x03\x00\x00\x01", "closed_package_count"),
                (b"\x03\x00\x00\x00\x00", "closed_package_count"),
                (b"\x03\x00\x00\x00\x03\x00\x00\x00", "closed_package_count"),
                (b"\x00\x00\x00\x00", "closed_package_type"),
                (b"\x06\x00\x00\x00", "closed_package_type"),
                (b"\x05\x00\x00\x00", "closed_package_kick"),
                (b"\x04\x01\x00\x01", "closed_package_too_long"),
            ] {
                attack(attacked, stage, &binary(message), reason, normal);
                let mut halves = frame(TEXT, &message[..message.len() / 2]);
                halves.extend(frame(FIN | CONTINUATION, &message[message.len() / 2..]));
                attack(attacked, stage, &halves, reason, normal);
            }
        }
        for (message, reason) in broken_messages() {
            let package = encode_package(DATA, &message);
            attack(
                attacked,
                Stage::WebSocket,
                &binary(&package),
                reason,
                normal,
            );
        }
        let refused = encode_package(1, b"{}");
        attack(
            attacked,
            Stage::Upgraded,
            &binary(&refused),
            "closed_handshake",
            normal,
        );
    });
}

#[test]
fn a_frame_against_rfc_6455_is_answered_with_the_code_of_the_rfc() {
    let heartbeat = frames::heartbeat();
    let mut attacks: Vec<(Vec<u8>, u16)> = Vec::new();
    // Without a mask, after frames with one.
    attacks.push((b"\x82\x04\x03\x00\x00\x00".to_vec(), 1002));
    attacks.push((b"\x89\x00".to_vec(), 1002));
    for reserved in [0x10, 0x20, 0x40, 0x70] {
        attacks.push((frame(FIN | BINARY | reserved, &heartbeat), 1002));
        attacks.push((frame(FIN | PING | reserved, b""), 1002));
    }
    for opcode in (3..8).chain(11..16) {
        attacks.push((frame(FIN | opcode, &heartbeat), 1002));
        attacks.push((frame(opcode, b""), 1002));
    }
    for length in [1 << 63, u64::MAX, 1 << 32, (LIMIT_BYTES + 4 + 1) as u64] {
        attacks.push((frame_head(length), 1009));
    }
    for control in [CLOSE, PING, PONG] {
        attacks.push((frame(control, b""), 1002));
        attacks.push((frame(FIN | control, &[b'a'; 126]), 1002));
        attacks.push((frame(FIN | control, &[b'a'; 70_000]), 1002));
    }
    // A continuation of nothing; a start inside a message.
    attacks.push((frame(FIN | CONTINUATION, b""), 1002));
    attacks.push((frame(CONTINUATION, &heartbeat), 1002));
    for opcode in [TEXT, BINARY] {
        for fin in [0, FIN] {
            let within = [frame(BINARY, b"\x03"), frame(fin | opcode, &heartbeat)].concat();
            attacks.push((within, 1002));
        }
    }
    let part = vec![0; LIMIT_BYTES];
    let too_much = [frame(BINARY, &part), frame(CONTINUATION, b"12345")].concat();
    attacks.push((too_much, 1009));
    // Text that is not UTF-8, in one piece and in two; half a character is not UTF-8 either.
    for text in [
        &b"\x03\x00\x00\x01\xff"[..],
        b"\x03\x00\x00\x02\xc3\x28",
        b"\x03\x00\x00\x01\xc3",
    ] {
        attacks.push((frame(FIN | TEXT, text), 1007));
        let halves = [
            frame(TEXT, &text[..4]),
            frame(FIN | CONTINUATION, &text[4..]),
        ]
        .concat();
        attacks.push((halves, 1007));
    }
    attacks.push((frame(FIN | CLOSE, b"\x03"), 1002));
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
        attacks.push((frame(FIN | CLOSE, &code.to_be_bytes()), 1002));
    }
    attacks.push((frame(FIN | CLOSE, b"\x03\xe8\xff"), 1007));

    on_one_shard_and_on_four(&["--set", LIMIT], |attacked| {
        for (bytes, code) in &attacks {
            let end = End::CloseFrame(Some(*code));
            attack(attacked, Stage::WebSocket, bytes, "closed_websocket", end);
        }
        // The server ignores all bytes behind its close.
        let more = [frame(FIN | 3, b""), binary(&heartbeat), vec![0xff; 1000]].concat();
        let end = End::CloseFrame(Some(1002));
        attack(attacked, Stage::Upgraded, &more, "closed_websocket", end);
    });
}

#[test]
fn a_close_frame_is_answered_with_its_own_code() {
    on_one_shard_and_on_four(&[], |attacked| {
        for code in [1000, 1001, 1003, 1007, 1011, 1013, 3000, 4999] {
            let mut payload = u16::to_be_bytes(code).to_vec();
            payload.extend("grüße".as_bytes());
            let bytes = frame(FIN | CLOSE, &payload);
            let end = End::CloseFrame(Some(code));
            attack(attacked, Stage::WebSocket, &bytes, "closed_left", end);
        }
        let bytes = frame(FIN | CLOSE, b"");
        attack(
            attacked,
            Stage::Upgraded,
            &bytes,
            "closed_left",
            End::CloseFrame(Some(1000)),
        );
    });
}

/// An HTTP request, what the answer starts with, and the reason.
fn http_attacks() -> Vec<(String, &'static str, &'static str)> {
    let mut attacks = Vec::new();
    let answered = "closed_http_answered";
    for broken in [
        UPGRADE.replace("13", "12"),
        UPGRADE.replace("Version: 13\r\nSec-WebSocket-", ""),
        UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", ""),
        UPGRADE.replace("Host: a", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        UPGRADE.replace("GET", "POST"),
        UPGRADE.replace("GET", "HEAD"),
    ] {
        attacks.push((broken, "HTTP/1.1 400 ", "closed_http_bad_upgrade"));
    }
    for (method, answer, reason) in [
        ("POST", "HTTP/1.1 426 ", "closed_http_no_upgrade"),
        ("PUT", "HTTP/1.1 426 ", "closed_http_no_upgrade"),
        ("HEAD", "HTTP/1.1 200 ", answered),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        attacks.push((request, answer, reason));
    }
    for path in [
        "/nowhere",
        "/index.html",
        "//",
        "/../../etc/passwd",
        "*",
        "http://a/",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        attacks.push((request, "HTTP/1.1 404 ", answered));
    }
    let padding = "a".repeat(17 << 10);
    let headers = "Aa: b\r\n".repeat(6000);
    for long in [
        format!("GET / HTTP/1.1\r\nA: {padding}"),
        format!("GET / HTTP/1.1\r\nA: {padding}\r\n\r\n"),
        format!("GET /{padding} HTTP/1.1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{headers}\r\n"),
        UPGRADE.replace("Host: a", &format!("Host: {padding}")),
    ] {
        attacks.push((long, "HTTP/1.1 431 ", "closed_http_too_long"));
    }
    for broken in [
        "GET / HTTP/9.9\r\n\r\n".into(),
        "GET / SPDY/1\r\n\r\n".into(),
        "GET\r\n\r\n".into(),
        "GETAWAY\0/ HTTP/1.1\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nA\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n".into(),
        "GET / HTTP/1.1\r\n: b\r\n\r\n".into(),
    ] {
        attacks.push((broken, "HTTP/1.1 400 ", "closed_http"));
    }
    attacks
}

#[test]
fn http_without_an_upgrade_is_answered_and_closed() {
    http_is_answered(&[], http_attacks());
}

#[test]
fn as_pinus_an_upgrade_with_another_key_is_answered_with_400() {
    let keys = ["", "????"].map(|start| {
        let broken = UPGRADE.replace("dGhl", start);
        (broken, "HTTP/1.1 400 ", "closed_http_bad_upgrade")
    });
    http_is_answered(&["--dialect", "pinus"], keys.into());
}

/// Sends HTTP requests and sees each of them answered.
fn http_is_answered(args: &[&str], attacks: Vec<(String, &str, &str)>) {
    on_one_shard_and_on_four(args, |attacked| {
        for &(ref request, answer, reason) in &attacks {
            let name = &request[..request.len().min(60)];
            attacked.attack(name, &[(reason, CONNECTIONS)], |address| {
                for _ in 0..CONNECTIONS {
                    let stream = connect(address);
                    frames::write_anyway(&stream, request.as_bytes());
                    let text = frames::read_to_end(&stream);
                    let text = String::from_utf8_lossy(&text);
                    assert!(text.starts_with(answer), "{request:?}: {text:?}");
                    if request.starts_with("HEAD ") {
                        assert!(text.ends_with("\r\n\r\n"), "{request:?}: {text:?}");
                    }
                }
            });
        }
    });
}

#[test]
fn a_client_that_has_not_shaken_hands_may_send_little() {
    const HANDSHAKE_BYTES: usize = 16 << 10;
    let head = |bytes: usize| [&[1], &u32::to_be_bytes(bytes as u32)[1..]].concat();
    on_one_shard_and_on_four(&[], |attacked| {
        let padding = " ".repeat(HANDSHAKE_BYTES - r#"{"sys":{"type":"a","version":"1"}}"#.len());
        let handshake = format!(r#"{{"sys":{{"type":"a","version":"1"}}{padding}}}"#);
        attacked.attack("at the limit", &[("closed_left", 2)], |address| {
            for mut client in [Client::tcp(address), Client::websocket(address)] {
                client.send_package(1, handshake.as_bytes());
                let reply = client.next_package().expect("a handshake reply");
                assert_eq!(reply.kind, 1);
            }
        });
        let larger = head(HANDSHAKE_BYTES + 1);
        let reason = "closed_package_too_long";
        attack(attacked, Stage::Fresh, &larger, reason, End::Fin);
        let larger = frame_head(HANDSHAKE_BYTES as u64 + 5);
        let end = End::CloseFrame(Some(1009));
        attack(attacked, Stage::Upgraded, &larger, "closed_websocket", end);
    });
}

#[test]
fn a_body_of_the_limit_is_taken_and_one_byte_more_is_not() {
    // Flag, id of one byte, length of the route, route.
    let head_bytes = 3 + ECHO.len();
    let body = |message_bytes: usize| {
        let body = format!("\"{}\"", "a".repeat(message_bytes - head_bytes - 2));
        assert_eq!(
            frames::request(1, ECHO, body.as_bytes()).len(),
            4 + message_bytes
        );
        body
    };
    // Set, the default, and the largest there is.
    for (limit, limit_bytes) in [
        (LIMIT, LIMIT_BYTES),
        ("client.use_dict=false", 4 << 20),
        ("client.package_bytes_max=16777215", (1 << 24) - 1),
    ] {
        on_one_shard_and_on_four(&["--set", limit], |attacked| {
            // One byte less comes back: the response has no route.
            let largest = body(limit_bytes);
            attacked.attack("at the limit", &[("closed_left", 2)], |address| {
                for mut client in [
                    Client::tcp(address).open(),
                    Client::websocket(address).open(),
                ] {
                    client.request(1, ECHO, &largest);
                    assert!(client.wait_response(1) == largest.as_bytes(), "not an echo");
                }
            });
            if limit_bytes == (1 << 24) - 1 {
                // No head can say more; a frame can.
                let bytes = frame_head(limit_bytes as u64 + 5);
                let end = End::CloseFrame(Some(1009));
                attack(attacked, Stage::WebSocket, &bytes, "closed_websocket", end);
                return;
            }
            let larger = frames::request(1, ECHO, body(limit_bytes + 1).as_bytes());
            attack(
                attacked,
                Stage::Tcp,
                &larger,
                "closed_package_too_long",
                End::Fin,
            );
            let end = End::CloseFrame(Some(1009));
            attack(
                attacked,
                Stage::WebSocket,
                &binary(&larger),
                "closed_websocket",
                end,
            );
            let longest = b"\x04\xff\xff\xff";
            attack(
                attacked,
                Stage::Fresh,
                longest,
                "closed_package_too_long",
                End::Fin,
            );
        });
    }
}

#[test]
fn ids_up_to_31_bits_are_answered_however_they_are_written() {
    on_one_shard_and_on_four(&[], |attacked| {
        for reach in [Client::tcp, Client::websocket] {
            let mut client = reach(attacked.address()).open();
            for id in [1, 127, 128, 16_384, 1 << 21, 1 << 28, (1 << 31) - 1] {
                client.request(id, ECHO, "7");
                assert_eq!(client.wait_response(id), b"7");
            }
            // Longer than it need be.
            let message = [&b"\x00\x81\x80\x80\x80\x00\x1b"[..], ECHO.as_bytes(), b"8"].concat();
            client.send_package(DATA, &message);
            assert_eq!(client.wait_response(1), b"8");
            client.send_package(KICK, b"");
            assert_eq!(client.next_package(), None);
        }
    });
}

#[test]
fn a_fragmented_message_with_pings_in_between_is_a_message() {
    on_one_shard_and_on_four(&[], |attacked| {
        let answer = |id: u8| [&b"\x04\x00\x00\x04\x04"[..], &[id], b"[]"].concat();
        let stream = connect(attacked.address());
        frames::upgrade(&stream);
        for (package, opcode) in [(frames::handshake(), TEXT), (frames::ack(), BINARY)] {
            frames::write_anyway(&stream, &frame(FIN | opcode, &package));
        }
        let (first, reply) = frames::read_frame(&stream);
        assert_eq!((first, reply[0]), (FIN | BINARY, 1));

        // From two halves to single bytes, with empty fragments.
        for id in 1..40 {
            let package = frames::request(id.into(), ECHO, b"[]");
            let size = package.len().div_ceil(usize::from(id) + 1);
            let mut bytes = frame(if id % 2 == 0 { TEXT } else { BINARY }, b"");
            let mut pings = 0;
            for fragment in package.chunks(size) {
                bytes.extend(frame(CONTINUATION, fragment));
                bytes.extend(frame(FIN | PING, &vec![pings; usize::from(pings)]));
                bytes.extend(frame(FIN | PONG, b"nobody asked"));
                pings += 1;
            }
            bytes.extend(frame(FIN | CONTINUATION, b""));
            frames::write_anyway(&stream, &bytes);
            for ping in 0..pings {
                let pong = (FIN | PONG, vec![ping; usize::from(ping)]);
                assert_eq!(frames::read_frame(&stream), pong, "message {id}");
            }
            let answer = (FIN | BINARY, answer(id));
            assert_eq!(frames::read_frame(&stream), answer, "message {id}");
        }
    });
}

#[test]
fn an_upgrade_and_everything_after_it_may_come_in_one_piece() {
    on_one_shard_and_on_four(&[], |attacked| {
        let mut bytes = UPGRADE.as_bytes().to_vec();
        for package in [
            frames::handshake(),
            frames::ack(),
            frames::request(9, ECHO, b"{}"),
        ] {
            bytes.extend(binary(&package));
        }
        let stream = connect(attacked.address());
        frames::write_anyway(&stream, &bytes);
        assert!(frames::read_http_head(&stream).starts_with("HTTP/1.1 101 "));
        assert_eq!(frames::read_frame(&stream).1[0], 1);
        assert_eq!(frames::read_frame(&stream).1, b"\x04\x00\x00\x04\x04\x09{}");
    });
}

#[test]
fn json_that_cannot_be_read_is_an_empty_object() {
    let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let digits = "7".repeat(100_000);
    let same = [
        deep(512),
        digits.clone(),
        format!("[-0.{digits}e-{digits}]"),
        format!("\"{}\"", "\\ud800".repeat(10_000)),
    ];
    let empty: Vec<Vec<u8>> = vec![
        deep(513).into(),
        deep(10_000).into(),
        "[".repeat(10_000).into(),
        objects.into(),
        digits.replace('7', "0").into(),
        b"".to_vec(),
        b"\xff".to_vec(),
        b"{\"a\":\xff}".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"\"\\x\"".to_vec(),
        b"{} {}".to_vec(),
        vec![0; 100],
    ];
    on_one_shard_and_on_four(&[], |attacked| {
        for reach in [Client::tcp, Client::websocket] {
            let mut client = reach(attacked.address()).open();
            for body in &same {
                assert!(client.request_text(ECHO, body) == *body, "{}", &body[..20]);
            }
            let before = attacked.gateway().counters();
            for body in &empty {
                let shown = &body[..body.len().min(20)];
                assert_eq!(
                    client.request_text(ECHO, body),
                    "{}",
                    "{}",
                    shown.escape_ascii()
                );
            }
            let counted = before.get("bodies_invalid").copied().unwrap_or_default();
            let least = counted + empty.len() as u64;
            assert_eq!(
                attacked.gateway().wait_counter("bodies_invalid", least),
                least
            );
            // As JavaScript decodes it: one replacement for each maximal piece that is not UTF-8.
            let answer =
                client.request_text(ECHO, b"[\"\xff\xe2\x82\xf0\x9f\x98\x80\xed\xa0\x80\"]");
            assert_eq!(answer, "[\"\u{fffd}\u{fffd}😀\u{fffd}\u{fffd}\u{fffd}\"]");
        }
    });
}

#[test]
fn a_route_that_leads_nowhere_costs_an_error_at_most() {
    let longest = format!("connector.entryHandler.{}", "x".repeat(255 - 23));
    on_one_shard_and_on_four(&[], |attacked| {
        for reach in [Client::tcp, Client::websocket] {
            let mut client = reach(attacked.address()).open();
            for route in [
                "a.b",
                "a.b.c.d",
                "x.y.z",
                "connector..",
                "connector.entryHandler.",
                "connector.entryHandler.toString",
                "connector.__proto__.echo",
                "connector.entryHandler.echo ",
                "Connector.entryHandler.echo",
                "connector.entryHandler.\u{0}",
                longest.as_str(),
            ] {
                assert_eq!(
                    client.request_text(route, "{}"),
                    r#"{"code":500}"#,
                    "{route:?}"
                );
            }
            // Not a route at all: nothing comes back.
            for route in ["", "a", ".", "..", ".b.c"] {
                client.request(5, route, "{}");
            }
            for message in [
                &b"\x00\x05\x05\xff.\xfe.\xfd{}"[..],
                b"\x01\x05\x00\x01{}",
                b"\x04\x01{}",
                b"\x08anything",
                b"\x0e",
                b"\x00",
                b"\x00\x81",
            ] {
                client.send_package(DATA, message);
            }
            // A request with id 0, a notify and a push are not answered, whatever they lead to.
            for message in [&b"\x00\x00"[..], b"\x02", b"\x06"] {
                let message = [message, &[27], ECHO.as_bytes(), b"1"].concat();
                client.send_package(DATA, &message);
            }
            client.request(6, ECHO, "6");
            let body = client.wait_response(6);
            assert_eq!(body, b"6");
            // The route that is not UTF-8 but has three parts.
            assert!(client.has_response(5));
            assert_eq!(client.wait_response(5), br#"{"code":500}"#);
            assert!(!client.has_response(5));
        }
    });
}

#[test]
fn a_route_to_a_constructor_is_an_attack() {
    on_one_shard_and_on_four(&[], |attacked| {
        for route in ["connector.entryHandler.constructor", "x.y.constructor"] {
            attacked.attack(route, &[("closed_attack", 4)], |address| {
                for reach in [Client::tcp, Client::websocket] {
                    let mut client = reach(address).open();
                    client.request(1, route, "{}");
                    assert_eq!(client.wait_kick(), "attack");
                    let mut client = reach(address).open();
                    client.notify(route, "{}");
                    assert_eq!(client.wait_kick(), "attack");
                }
            });
        }
    });
}

#[test]
fn a_code_that_is_in_no_dictionary_is_dropped() {
    on_one_shard_and_on_four(&["--set", "client.use_dict=true"], |attacked| {
        for reach in [Client::tcp, Client::websocket] {
            let mut client = reach(attacked.address());
            let reply = client.handshake();
            client.ack();
            let echo = reply["sys"]["dict"][ECHO].as_u64().expect("a code");
            let echo = u16::try_from(echo).expect("two bytes");
            for code in [0, 99, u16::MAX] {
                client.request(5, code, "{}");
            }
            client.request(6, echo, "6");
            assert_eq!(client.wait_response(6), b"6");
            assert_eq!(client.request_text(ECHO, "7"), "7");
            assert!(!client.has_response(5));
        }
    });
}

#[test]
fn as_pinus_a_close_frame_has_no_code_and_a_cut_message_ends_its_connection() {
    on_one_shard_and_on_four(&["--dialect", "pinus"], |attacked| {
        for cut in [&b"\x00"[..], b"\x00\x81", b"\x02", b"\x06"] {
            let package = encode_package(DATA, cut);
            let end = End::CloseFrame(None);
            attack(
                attacked,
                Stage::Tcp,
                &package,
                "closed_message_cut",
                End::Fin,
            );
            attack(
                attacked,
                Stage::WebSocket,
                &binary(&package),
                "closed_message_cut",
                end,
            );
        }
        // A frame that breaks the RFC gets the code of the RFC.
        let reserved = frame(FIN | 3, b"");
        let end = End::CloseFrame(Some(1002));
        attack(
            attacked,
            Stage::WebSocket,
            &reserved,
            "closed_websocket",
            end,
        );
    });
}

#[test]
fn a_client_that_keeps_sending_after_its_end_is_cut_off() {
    on_one_shard_and_on_four(&[], |attacked| {
        let more = vec![7; 100_000];
        attacked.attack("more", &[("closed_package_type", 2)], |address| {
            let deadline = Instant::now() + HANG_GUARD;
            for stage in [Stage::Tcp, Stage::WebSocket] {
                let client = stage.reach(address);
                let end = b"\x09\x00\x00\x00";
                let end = match stage {
                    Stage::Tcp => end.to_vec(),
                    _ => binary(end),
                };
                frames::write_anyway(client.stream(), &end);
                while frames::write_anyway(client.stream(), &more) {
                    assert!(Instant::now() < deadline, "{stage:?} is read for ever");
                    thread::sleep(Duration::from_millis(10));
                }
            }
        });
    });
}
