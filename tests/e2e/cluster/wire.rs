//! What a client may ask of the port.

use super::*;
use crate::frames::{self, BINARY, FIN, TEXT, UPGRADE};

promises! { shared:
    an_upgrade_may_have_any_path_and_offer_sub_protocols,
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
    let handshake = frames::frame(FIN | TEXT, &frames::handshake());
    frames::write_anyway(&stream, &handshake);
    let (first, reply) = frames::read_frame(&stream);
    assert_eq!((first, reply[0]), (FIN | BINARY, 1));

    // An offer to compress may be left alone. The genuine Pomelo takes it.
    let (_, head) = upgraded("Sec-WebSocket-Extensions: permessage-deflate");
    let takes = (setup.frontend.kind(), setup.dialect()) == (Kind::Genuine, Dialect::Pomelo);
    assert_eq!(head.contains("permessage-deflate"), takes, "{head}");
}
