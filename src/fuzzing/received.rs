//! The bytes that a client got, read from the first to the last one.

use std::collections::HashMap;

use crate::limits::PACKAGE_BODY_BYTES_MAX;
use crate::wire::message::{self, MessageKind};
use crate::wire::package::{self, PackageKind};

/// Returns the number of responses with each id.
///
/// # Panics
/// If the bytes are not HTTP, frames, packages and messages of a server. The last one may be cut.
pub(super) fn responses(bytes: &[u8], is_websocket: bool) -> HashMap<u32, usize> {
    let mut responses = HashMap::new();
    let packages = match is_websocket {
        true => payloads(bytes),
        false => bytes.to_vec(),
    };
    let mut rest = &packages[..];
    while let Some(package) =
        package::decode(rest, PACKAGE_BODY_BYTES_MAX).expect("the gateway sends packages")
    {
        rest = &rest[package.bytes()..];
        if package.kind != PackageKind::Data {
            assert_ne!(package.kind, PackageKind::Ack, "only clients acknowledge");
            continue;
        }
        let message = message::decode(package.body).expect("the gateway sends messages");
        match message.kind {
            MessageKind::Response => *responses.entry(message.id).or_default() += 1,
            MessageKind::Push => {}
            kind => panic!("a {kind:?} of a server"),
        }
    }
    responses
}

/// Returns the payloads of the binary frames behind the answer to an upgrade, one after the other.
fn payloads(bytes: &[u8]) -> Vec<u8> {
    let Some(head) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return Vec::new();
    };
    assert!(bytes.starts_with(b"HTTP/1.1 "));
    let (mut rest, mut payloads) = (&bytes[head + 4..], Vec::new());
    if !bytes.starts_with(b"HTTP/1.1 101 ") {
        return payloads;
    }
    while let [first, second, behind @ ..] = rest {
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        let (length, behind) = match second {
            126 => behind.split_at_checked(2).unwrap_or((b"", b"")),
            127 => behind.split_at_checked(8).unwrap_or((b"", b"")),
            _ => (std::slice::from_ref(second), behind),
        };
        let length = length
            .iter()
            .fold(0, |sum: usize, byte| sum << 8 | usize::from(*byte));
        let Some((payload, behind)) = behind.split_at_checked(length) else {
            break;
        };
        rest = behind;
        match first {
            0x82 => payloads.extend_from_slice(payload),
            0x88..=0x8a => assert!(payload.len() <= 125),
            other => panic!("a frame that begins with {other:02x}"),
        }
    }
    payloads
}
