//! Upgrades, frames and closes that the port accepts.

use super::*;
use crate::harness::frames::{
    self, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, UPGRADE, frame,
};

promises! { shared:
    an_upgrade_may_have_any_path_and_offer_sub_protocols,
    an_upgrade_may_be_of_version_8_and_as_pomelo_have_any_key,
    as_pomelo_frames_may_come_without_a_mask,
    a_message_may_come_in_fragments_with_pings_between_them,
    a_close_frame_is_answered_with_its_code,
}

fn an_upgrade_may_have_any_path_and_offer_sub_protocols(setup: &mut Setup<'_>) {
    let upgraded = |offers: &str| {
        let request = UPGRADE
            .replace("GET /", "GET /any/path?with=query")
            .replace("\r\n\r\n", &format!("\r\n{offers}\r\n\r\n"));
        let stream = frames::connect(setup.frontend.address());
        frames::write_anyway(&stream, request.as_bytes());
        let head = frames::read_http_head(&stream).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        (stream, head)
    };
    let (stream, head) = upgraded("Sec-WebSocket-Protocol: binary, x");
    let echoed = head.contains("\r\nsec-websocket-protocol: binary\r\n");
    assert!(echoed, "{head}");
    // A text message is as good as a binary one, which the answer is.
    let handshake = frame(FIN | TEXT, &frames::handshake());
    frames::write_anyway(&stream, &handshake);
    let (first, reply) = frames::read_frame(&stream);
    assert_eq!((first, reply[0]), (FIN | BINARY, 1));

    // An offer to compress may be left alone. The genuine Pomelo takes it.
    let (_, head) = upgraded("Sec-WebSocket-Extensions: permessage-deflate");
    let takes = (setup.frontend.kind(), setup.dialect()) == (Kind::Genuine, Dialect::Pomelo);
    assert_eq!(head.contains("permessage-deflate"), takes, "{head}");
}

fn an_upgrade_may_be_of_version_8_and_as_pomelo_have_any_key(setup: &mut Setup<'_>) {
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    let answer = |request: String| {
        let stream = frames::connect(setup.frontend.address());
        frames::write_anyway(&stream, request.as_bytes());
        frames::read_http_head(&stream)
    };
    let version = |version: &str| answer(UPGRADE.replace("Version: 13", version));
    let head = version("Version: 8\r\nSec-WebSocket-Origin: http://game");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains(frames::ACCEPT), "{head}");
    for refused in ["Version: 7", "Version: 0", "Version:"] {
        let head = version(refused);
        assert!(head.starts_with("HTTP/1.1 400 "), "{refused}: {head}");
    }
    // The keys of a device, of a C# client and of nobody, each with the answer of RFC 6455.
    for (key, accept) in [
        (
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "mq4AI5vGpy1jRFbeqFuSeE5y7W0=",
        ),
        ("dHdlbHZlIGJ5dGVz", "uPEbHzeczV/V/oDj93NqsLwo5qA="),
        ("no base64", "743N+0Si0TzTUzdUKko2J7IJAvg="),
    ] {
        let head = answer(UPGRADE.replace(KEY, key));
        let status = match setup.dialect() {
            Dialect::Pomelo => "HTTP/1.1 101 ",
            Dialect::Pinus => "HTTP/1.1 400 ",
        };
        assert!(head.starts_with(status), "{key}: {head}");
        let is_accepted = setup.dialect() == Dialect::Pomelo;
        assert!(!is_accepted || head.contains(accept), "{key}: {head}");
    }
    let head = answer(UPGRADE.replace(KEY, ""));
    assert!(head.starts_with("HTTP/1.1 400 "), "no key: {head}");
}

fn as_pomelo_frames_may_come_without_a_mask(setup: &mut Setup<'_>) {
    let stream = frames::connect(setup.frontend.address());
    frames::upgrade(&stream);
    let handshake = frames::handshake();
    let plain = [&[FIN | BINARY, handshake.len() as u8], &handshake[..]].concat();
    frames::write_anyway(&stream, &plain);
    let (first, reply) = frames::read_frame(&stream);
    match setup.dialect() {
        Dialect::Pomelo => assert_eq!((first, reply[0]), (FIN | BINARY, 1)),
        Dialect::Pinus => assert_eq!((first, reply), (FIN | CLOSE, vec![0x03, 0xea])),
    }
}

fn a_message_may_come_in_fragments_with_pings_between_them(setup: &mut Setup<'_>) {
    let stream = frames::connect(setup.frontend.address());
    frames::upgrade(&stream);
    let handshake = frames::handshake();
    let (first, rest) = handshake.split_at(3);
    for bytes in [
        frame(BINARY, first),
        frame(FIN | PING, b"here?"),
        frame(CONTINUATION, b""),
        frame(FIN | PONG, b"nobody asked"),
        frame(FIN | CONTINUATION, rest),
    ] {
        frames::write_anyway(&stream, &bytes);
    }
    assert_eq!(frames::read_frame(&stream), (FIN | PONG, b"here?".to_vec()));
    let (first, reply) = frames::read_frame(&stream);
    assert_eq!((first, reply[0]), (FIN | BINARY, 1));
}

fn a_close_frame_is_answered_with_its_code(setup: &mut Setup<'_>) {
    // A browser reports what it is answered.
    let to_none: &[u8] = match setup.dialect() {
        Dialect::Pomelo => &[0x03, 0xe8],
        Dialect::Pinus => &[],
    };
    for (code, answered) in [
        (&b""[..], to_none),
        (b"\x03\xe8", b"\x03\xe8"),
        (b"\x0f\xa1", b"\x0f\xa1"),
    ] {
        let stream = frames::connect(setup.frontend.address());
        frames::upgrade(&stream);
        frames::write_anyway(&stream, &frame(FIN | CLOSE, code));
        assert_eq!(
            frames::read_frame(&stream),
            (FIN | CLOSE, answered.to_vec()),
            "{code:?}"
        );
        assert_eq!(frames::read_to_end(&stream), b"", "{code:?}");
    }
}
