//! Tests of frames and of the upgrade, some of them against another implementation (the oracle).

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::{CloseFrame, Frame as OracleFrame, coding};
use tungstenite::protocol::{Message, Role, WebSocket};

use super::frame::MASKED;
use super::upgrade::{USUAL_HEADERS, is_key};
use super::*;
use crate::limits::{
    HTTP_HEAD_BYTES_MAX, HTTP_HEAD_TEXT_BYTES, HTTP_HEADERS_MAX, WEBSOCKET_CONTROL_BYTES_MAX,
};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client frame, spelled out the slow way.
fn client_frame(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    frame.extend_from_slice(length);
    frame[1] |= MASKED;
    frame.extend_from_slice(&MASK);
    frame.extend(
        payload
            .iter()
            .enumerate()
            .map(|(index, byte)| byte ^ MASK[index % 4]),
    );
    frame
}

/// One side of a connection that talks to a buffer.
#[derive(Default)]
struct Peer {
    incoming: VecDeque<u8>,
    sent: Vec<u8>,
    /// Answers an HTTP request when the client waits for it.
    accepts: bool,
}

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.accepts
            && let Ok(Some(request)) = parse_request(&self.sent, false)
        {
            let (mut answer, end) = (Vec::new(), request.end);
            write_switching_protocols(&mut answer, &request.upgrade.unwrap());
            self.incoming.extend(answer);
            self.sent.drain(..end);
            self.accepts = false;
        }
        match self.incoming.read(buffer) {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            result => result,
        }
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sent.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn client(incoming: &[u8]) -> WebSocket<Peer> {
    let peer = Peer {
        incoming: incoming.iter().copied().collect(),
        ..Peer::default()
    };
    WebSocket::from_raw_socket(peer, Role::Client, None)
}

#[test]
fn reads_the_examples_of_the_rfc() {
    let mut hello = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let frame = decode(&mut hello, 5).unwrap().unwrap();
    assert_eq!(
        frame,
        Frame {
            fin: true,
            opcode: Opcode::Text,
            payload: 6..11,
            end: 11
        }
    );
    assert_eq!(&hello[frame.payload], b"Hello");

    let mut pong = *b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    let frame = decode(&mut pong, 0).unwrap().unwrap();
    assert_eq!(
        (frame.opcode, &pong[frame.payload]),
        (Opcode::Pong, &b"Hello"[..])
    );
}

#[test]
fn writes_the_examples_of_the_rfc() {
    for (opcode, payload_bytes, expected) in [
        (Opcode::Text, 5, &b"\x81\x05"[..]),
        (Opcode::Ping, 5, b"\x89\x05"),
        (Opcode::Binary, 256, b"\x82\x7e\x01\x00"),
        (Opcode::Binary, 65536, b"\x82\x7f\0\0\0\0\0\x01\0\0"),
    ] {
        assert_eq!(header(opcode, payload_bytes).as_slice(), expected);
    }
}

#[test]
fn waits_for_the_whole_frame_and_touches_nothing_before() {
    for payload_bytes in [0, 1, 7, 8, 9, 125, 126, 300, 65535, 65536] {
        let payload: Vec<u8> = (0..payload_bytes).map(|index| index as u8).collect();
        let length = &header(Opcode::Binary, payload_bytes).as_slice()[1..].to_vec();
        let mut whole = client_frame(0x82, length, &payload);
        let end = whole.len();
        whole.extend_from_slice(b"next");
        let step = if payload_bytes > 1000 { 1009 } else { 1 };
        for cut in (0..end).step_by(step).chain([end - 1]) {
            let mut part = whole[..cut].to_vec();
            assert_eq!(
                decode(&mut part, payload_bytes),
                Ok(None),
                "{payload_bytes} cut at {cut}"
            );
            assert_eq!(part, whole[..cut]);
        }
        let frame = decode(&mut whole, payload_bytes).unwrap().unwrap();
        assert_eq!(frame.end, end);
        assert_eq!(whole[frame.payload], payload);
        assert_eq!(&whole[end..], b"next");
    }
}

#[test]
fn reads_frame_after_frame() {
    let mut input = client_frame(0x01, &[2], b"ab");
    input.extend(client_frame(0x89, &[0], b""));
    input.extend(client_frame(0x80, &[1], b"c"));
    let mut found = Vec::new();
    let mut rest = &mut input[..];
    while let Some(frame) = decode(rest, 2).unwrap() {
        let (front, after) = rest.split_at_mut(frame.end);
        found.push((frame.fin, frame.opcode, front[frame.payload].to_vec()));
        rest = after;
    }
    let expected = [
        (false, Opcode::Text, b"ab".to_vec()),
        (true, Opcode::Ping, Vec::new()),
        (true, Opcode::Continuation, b"c".to_vec()),
    ];
    assert_eq!(found, expected);
}

#[test]
fn refuses_what_a_client_must_not_send() {
    use WebSocketError::{ControlFragmented, ControlTooLong, Reserved, TooLong, Unmasked};
    for (bytes, error) in [
        (&b"\xc2\x80"[..], Reserved),
        (b"\xa2\x80", Reserved),
        (b"\x92\x80", Reserved),
        (b"\x83\x80", Reserved),
        (b"\x87\x80", Reserved),
        (b"\x8b\x80", Reserved),
        (b"\x8f\x80", Reserved),
        (b"\x82\x00", Unmasked),
        (b"\x88\x02\x03\xe8", Unmasked),
        (b"\x08\x80", ControlFragmented),
        (b"\x09\x80", ControlFragmented),
        (b"\x89\xfe", ControlTooLong),
        (b"\x8a\xff", ControlTooLong),
        (b"\x82\xfe\x03\xe9", TooLong),
        (b"\x82\xff\0\0\0\x01\0\0\0\0", TooLong),
        (b"\x82\xff\x80\0\0\0\0\0\0\0", TooLong),
        (b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", TooLong),
    ] {
        assert_eq!(
            decode(&mut bytes.to_vec(), 1000),
            Err(error),
            "{bytes:02x?}"
        );
    }
    let endless = &mut b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec();
    assert_eq!(decode(endless, usize::MAX), Err(TooLong));
}

#[test]
fn a_frame_without_a_mask_is_taken_as_it_is_where_that_is_allowed() {
    let mut input = b"\x82\x03abc\x89\x00\x82\x7e\x00\x80".to_vec();
    input.extend([7; 128]);
    let plain = input.clone();
    let mut at = 0;
    for (opcode, payload) in [
        (Opcode::Binary, &b"abc"[..]),
        (Opcode::Ping, b""),
        (Opcode::Binary, &[7; 128]),
    ] {
        let rest = &mut input[at..];
        assert_eq!(decode_unmasked(&mut rest.to_vec()[..1], 128), Ok(None));
        assert_eq!(
            decode(&mut rest.to_vec(), 128),
            Err(WebSocketError::Unmasked)
        );
        let frame = decode_unmasked(rest, 128).unwrap().unwrap();
        assert_eq!((frame.opcode, &rest[frame.payload]), (opcode, payload));
        at += frame.end;
    }
    assert_eq!((at, input), (plain.len(), plain));
}

#[test]
fn the_limit_is_the_last_length_taken_and_is_not_for_control_frames() {
    let mut frame = client_frame(0x82, &[126, 0, 200], &[7; 200]);
    assert_eq!(
        decode(&mut frame.clone(), 199),
        Err(WebSocketError::TooLong)
    );
    assert!(decode(&mut frame, 200).unwrap().is_some());
    let mut ping = client_frame(0x89, &[125], &[7; 125]);
    assert!(decode(&mut ping, 0).unwrap().is_some());
}

#[test]
fn a_wider_length_than_needed_is_taken() {
    for length in [&[126, 0, 3][..], &[127, 0, 0, 0, 0, 0, 0, 0, 3]] {
        let mut frame = client_frame(0x82, length, b"abc");
        let found = decode(&mut frame, 3).unwrap().unwrap();
        assert_eq!(&frame[found.payload], b"abc");
    }
}

#[test]
fn every_error_has_its_close_code() {
    use WebSocketError::{BadClose, NotUtf8, Reserved, TooLong, Unmasked};
    let errors = [Reserved, Unmasked, BadClose, NotUtf8, TooLong];
    assert_eq!(
        errors.map(WebSocketError::close_code),
        [1002, 1002, 1002, 1007, 1009]
    );
}

#[test]
fn close_frames_are_those_of_pomelo_and_pinus() {
    let mut out = Vec::new();
    write_close(&mut out, Some(1000));
    assert_eq!(out, b"\x88\x02\x03\xe8");
    write_close(&mut out, None);
    assert_eq!(out, b"\x88\x02\x03\xe8\x88\x00");
}

#[test]
fn reads_the_code_of_a_close() {
    let with_reason = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
    assert_eq!(close_code(b""), Ok(None));
    assert_eq!(close_code(b"\x03"), Err(WebSocketError::BadClose));
    for code in [1000, 1003, 1007, 1011, 1014, 3000, 4999] {
        assert_eq!(close_code(&with_reason(code, b"")), Ok(Some(code)));
        assert_eq!(
            close_code(&with_reason(code, "\u{e9}".as_bytes())),
            Ok(Some(code))
        );
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 2000, 2999, 5000, 65535] {
        assert_eq!(
            close_code(&with_reason(code, b"")),
            Err(WebSocketError::BadClose)
        );
    }
    assert_eq!(
        close_code(&with_reason(1000, b"\xff")),
        Err(WebSocketError::NotUtf8)
    );
}

#[test]
fn the_oracle_reads_our_close() {
    let mut out = Vec::new();
    write_close(&mut out, Some(1000));
    let frame = CloseFrame {
        code: 1000.into(),
        reason: "".into(),
    };
    assert_eq!(client(&out).read().unwrap(), Message::Close(Some(frame)));
    out.clear();
    write_close(&mut out, None);
    assert_eq!(client(&out).read().unwrap(), Message::Close(None));
}

const UPGRADE: &str = "GET /game?x=1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

fn upgrade(text: &str) -> Result<Option<Upgrade<'_>>, HttpError> {
    parse_request(text.as_bytes(), false).map(|request| request.unwrap().upgrade)
}

fn with_protocol(value: &str) -> String {
    let line = format!("\r\nSec-WebSocket-Protocol: {value}\r\n\r\n");
    UPGRADE.replace("\r\n\r\n", &line)
}

#[test]
fn accepts_the_handshake_of_the_rfc() {
    let upgrade = upgrade(UPGRADE).unwrap().unwrap();
    let mut out = Vec::new();
    write_switching_protocols(&mut out, &upgrade);
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(str::from_utf8(&out), Ok(expected));
}

#[test]
fn waits_for_the_whole_request_head() {
    for cut in 0..UPGRADE.len() {
        assert_eq!(
            parse_request(&UPGRADE.as_bytes()[..cut], false),
            Ok(None),
            "cut at {cut}"
        );
    }
    let input = [UPGRADE.as_bytes(), b"\x82\x80"].concat();
    let request = parse_request(&input, false).unwrap().unwrap();
    let head = (request.method, request.path, request.end);
    assert_eq!(head, ("GET", "/game?x=1", UPGRADE.len()));
}

#[test]
fn header_names_and_tokens_have_no_case() {
    for (from, to) in [
        ("Upgrade: websocket", "uPGRADE:WebSocket"),
        ("Connection: Upgrade", "CONNECTION: keep-alive ,upgrade"),
        (
            "Connection: Upgrade",
            "Connection: keep-alive\r\nConnection: Upgrade",
        ),
        ("Sec-WebSocket-Key:", "sec-websocket-key:  "),
        ("Sec-WebSocket-Version: 13", "SEC-WEBSOCKET-VERSION:13 "),
        ("HTTP/1.1", "HTTP/1.0"),
    ] {
        let text = UPGRADE.replace(from, to);
        let key = upgrade(&text).unwrap().map(|upgrade| upgrade.key);
        assert_eq!(key, Some("dGhlIHNhbXBsZSBub25jZQ=="), "{to}");
    }
}

#[test]
fn plain_http_has_no_upgrade() {
    for (from, to) in [
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Upgrade: websocket\r\n", ""),
        ("Connection: Upgrade", "Connection: close"),
        ("Connection: Upgrade\r\n", ""),
        ("Connection: Upgrade", "Connection: upgraded"),
    ] {
        assert_eq!(upgrade(&UPGRADE.replace(from, to)), Ok(None), "{to}");
    }
    assert_eq!(upgrade("POST / HTTP/1.1\r\n\r\n"), Ok(None));
}

#[test]
fn an_upgrade_that_cannot_be_granted_is_an_error() {
    let key_line = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let twice = format!("{key_line}{key_line}");
    for (from, to) in [
        ("GET", "POST"),
        ("Version: 13", "Version: 7"),
        ("Version: 13", "Version: 13, 8"),
        ("Sec-WebSocket-Version: 13\r\n", ""),
        (key_line, ""),
        (key_line, &twice),
        ("b25jZQ==", "25jZQ=="),
        ("ZQ==", "Z==="),
        ("ZQ==", "ZQQ="),
        ("dGhl", "dGh "),
        ("dGhl", "d-hl"),
        ("dGhl", "dGh\u{e9}"),
    ] {
        assert_eq!(
            upgrade(&UPGRADE.replace(from, to)),
            Err(HttpError::BadUpgrade),
            "{to}"
        );
    }
}

#[test]
fn version_8_is_taken_and_where_any_key_is_one_that_is_no_base64() {
    let any_key = |text: &str, any_key| {
        let request = parse_request(text.as_bytes(), any_key)?.unwrap();
        Ok::<_, HttpError>(request.upgrade.unwrap().key.to_owned())
    };
    let version_8 = UPGRADE.replace("Version: 13", "Version: 8");
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    assert_eq!(any_key(&version_8, false), Ok(key.into()));
    for other in [
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "abc",
        "a b,c",
    ] {
        let text = UPGRADE.replace(key, other);
        assert_eq!(any_key(&text, false), Err(HttpError::BadUpgrade));
        assert_eq!(any_key(&text, true), Ok(other.into()));
    }
    for other in ["", "\u{e9}"] {
        let text = UPGRADE.replace(key, other);
        assert_eq!(any_key(&text, true), Err(HttpError::BadUpgrade), "{other}");
    }
}

#[test]
fn the_first_sub_protocol_is_echoed_if_it_is_a_token() {
    for (value, expected) in [
        ("binary, x", Some("binary")),
        ("binary", Some("binary")),
        (" v1.json~a ,b", Some("v1.json~a")),
        ("a\r\nSec-WebSocket-Protocol: b", Some("a")),
        ("", None),
        (",b", None),
        ("a b", None),
        ("a;b", None),
        ("\"a\"", None),
        ("\u{e9}", None),
    ] {
        let text = with_protocol(value);
        let upgrade = upgrade(&text).unwrap().unwrap();
        assert_eq!(upgrade.protocol, expected, "{value}");
        let mut out = Vec::new();
        write_switching_protocols(&mut out, &upgrade);
        let out = String::from_utf8(out).unwrap();
        let line = expected.map(|name| format!("\r\nSec-WebSocket-Protocol: {name}\r\n\r\n"));
        assert!(
            line.map_or(!out.contains("Protocol:"), |line| out.ends_with(&line)),
            "{out}"
        );
    }
}

#[test]
fn a_request_head_is_as_long_as_node_takes_it() {
    // As Node 20 answered: path, names and values of 16,383 bytes are taken, and one more is 431.
    let padded = |bytes| format!("GET /ab HTTP/1.1\r\nX: {}\r\n\r\n", "b".repeat(bytes - 4));
    let longest = padded(HTTP_HEAD_TEXT_BYTES - 1);
    assert!(parse_request(longest.as_bytes(), false).unwrap().is_some());
    let too_long = padded(HTTP_HEAD_TEXT_BYTES);
    assert_eq!(
        parse_request(too_long.as_bytes(), false),
        Err(HttpError::TooLong)
    );
    let long_path = format!(
        "GET /{} HTTP/1.1\r\n\r\n",
        "a".repeat(HTTP_HEAD_TEXT_BYTES - 1)
    );
    assert_eq!(
        parse_request(long_path.as_bytes(), false),
        Err(HttpError::TooLong)
    );
}

#[test]
fn a_request_head_that_never_ends_is_refused_when_it_is_too_long() {
    let endless = |line: &str| {
        let mut input = b"GET / HTTP/1.1\r\n".to_vec();
        input.extend(line.bytes().cycle().take(2 * HTTP_HEAD_BYTES_MAX));
        let refused = |length: &usize| parse_request(&input[..*length], false).is_err();
        (0..input.len()).step_by(64).find(refused).unwrap()
    };
    let one_value = format!("A: {}", "b".repeat(2 * HTTP_HEAD_BYTES_MAX));
    let (least, most) = (HTTP_HEAD_TEXT_BYTES, HTTP_HEAD_TEXT_BYTES + 128);
    assert!((least..most).contains(&endless(&one_value)));
    for line in ["name: some value of a header\r\n", "a:\r\n", "a:\n"] {
        assert!(
            (least..=HTTP_HEAD_BYTES_MAX + 64).contains(&endless(line)),
            "{line:?}"
        );
    }
}

#[test]
fn of_many_headers_those_that_node_looks_at_count() {
    let (line, headers) = UPGRADE.split_once("\r\n").unwrap();
    let own = headers.lines().filter(|line| !line.is_empty()).count();
    let behind = |count: usize| format!("{line}\r\n{}{headers}", "a:\r\n".repeat(count));
    let last = HTTP_HEADERS_MAX - own;
    for count in [USUAL_HEADERS - own, USUAL_HEADERS, last] {
        assert!(upgrade(&behind(count)).unwrap().is_some(), "{count}");
    }
    for count in [last + own, 3000] {
        assert_eq!(
            upgrade(&behind(count)),
            Err(HttpError::BadUpgrade),
            "{count}"
        );
    }
    let in_front = format!(
        "{line}\r\n{}",
        headers.replacen("\r\n\r\n", &format!("\r\n{}\r\n", "a:\r\n".repeat(3000)), 1)
    );
    assert!(upgrade(&in_front).unwrap().is_some());
}

#[test]
fn bytes_that_are_not_http_are_malformed() {
    for text in [
        "GET  / HTTP/1.1\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET /\r\n\r\n",
        "\x04\0\0\0",
    ] {
        assert_eq!(
            parse_request(text.as_bytes(), false),
            Err(HttpError::Malformed),
            "{text:?}"
        );
    }
}

#[test]
fn a_response_says_its_length_and_closes() {
    let mut out = Vec::new();
    write_response(
        &mut out,
        HttpError::BadUpgrade.status(),
        "text/plain",
        b"no",
    );
    let expected = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
        Content-Length: 2\r\nConnection: close\r\n\r\nno";
    assert_eq!(str::from_utf8(&out), Ok(expected));
}

#[test]
fn the_oracle_shakes_hands_with_us() {
    let peer = Peer {
        accepts: true,
        ..Peer::default()
    };
    let (mut socket, response) = tungstenite::client("ws://localhost/", peer).unwrap();
    assert_eq!(response.status(), 101);
    socket.send(Message::text("hello")).unwrap();
    let sent = &mut socket.get_mut().sent;
    let frame = decode(sent, 5).unwrap().unwrap();
    assert_eq!(&sent[frame.payload], b"hello");
}

proptest! {
    #[test]
    fn we_read_what_the_oracle_masks(
        payload in prop::collection::vec(any::<u8>(), 0..400),
        opcode in prop::sample::select(vec![Opcode::Text, Opcode::Binary, Opcode::Ping, Opcode::Pong]),
        long in any::<bool>(),
    ) {
        let payload = if opcode.is_control() {
            payload[..payload.len().min(WEBSOCKET_CONTROL_BYTES_MAX)].to_vec()
        } else {
            payload.repeat(if long { 300 } else { 1 })
        };
        let message = match opcode {
            Opcode::Text => {
                let opcode = coding::OpCode::Data(coding::Data::Text);
                Message::Frame(OracleFrame::message(payload.clone(), opcode, true))
            }
            Opcode::Ping => Message::Ping(payload.clone().into()),
            Opcode::Pong => Message::Pong(payload.clone().into()),
            _ => Message::Binary(payload.clone().into()),
        };
        let mut client = client(b"");
        client.send(message).unwrap();
        let sent = &mut client.get_mut().sent;
        let frame = decode(sent, payload.len()).unwrap().unwrap();
        prop_assert_eq!((frame.fin, frame.opcode, frame.end), (true, opcode, sent.len()));
        prop_assert_eq!(&sent[frame.payload], payload);
    }

    #[test]
    fn the_oracle_reads_what_we_write(
        payload in prop::collection::vec(any::<u8>(), 0..400),
        long in any::<bool>(),
    ) {
        let payload = payload.repeat(if long { 300 } else { 1 });
        let mut bytes = header(Opcode::Binary, payload.len()).as_slice().to_vec();
        bytes.extend_from_slice(&payload);
        prop_assert_eq!(client(&bytes).read().unwrap(), Message::Binary(payload.into()));
    }

    #[test]
    fn the_accept_key_is_the_oracles(random in any::<[u8; 16]>()) {
        let key = STANDARD.encode(random);
        prop_assert!(is_key(key.as_bytes()));
        let mut out = Vec::new();
        write_switching_protocols(&mut out, &Upgrade { key: &key, protocol: None });
        let line = format!("\r\nSec-WebSocket-Accept: {}\r\n", derive_accept_key(key.as_bytes()));
        prop_assert!(String::from_utf8(out).unwrap().contains(&line));
    }

    #[test]
    fn no_bytes_panic(
        mut random in prop::collection::vec(any::<u8>(), 0..40),
        payload_bytes_max in prop::sample::select(vec![0, 10, 1 << 20, usize::MAX]),
    ) {
        let _ = parse_request(&random, false);
        let _ = parse_request(&[b"GET / HTTP/1.1\r\n", &random[..]].concat(), true);
        let upgrade = [&UPGRADE.as_bytes()[..UPGRADE.len() - 2], &random[..]].concat();
        let _ = parse_request(&upgrade, true);
        let _ = close_code(&random);
        let bytes = random.len();
        let found = match decode(&mut random, payload_bytes_max) {
            Err(WebSocketError::Unmasked) => decode_unmasked(&mut random, payload_bytes_max),
            found => found,
        };
        if let Ok(Some(frame)) = found {
            prop_assert!(frame.payload.end == frame.end && frame.end <= bytes);
        }
    }
}
