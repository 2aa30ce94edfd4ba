//! Upgrades, frames and closes that the port accepts.

use super::*;
use crate::harness::frames::{
    self, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, UPGRADE, frame,
};

promises! { shared:
    an_upgrade_may_have_any_path_and_offer_sub_protocols,
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
