//! The message layer: the body of a data package.

use super::package::{self, PackageKind};
use super::varint::{self, VarintError};
use crate::limits::{
    MESSAGE_ID_BYTES_MAX, MESSAGE_ID_MAX, PACKAGE_BODY_BYTES_MAX, ROUTE_BYTES_MAX,
};

/// Message type, three bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Client to server, wants a response.
    Request,
    /// Client to server, wants none.
    Notify,
    /// Server to client, answers the request of the same id.
    Response,
    /// Server to client, on its own.
    Push,
    /// 4..=7: nothing defined; carries neither id nor route.
    Undefined(u8),
}

impl MessageKind {
    fn from_flag(flag: u8) -> Self {
        match (flag >> 1) & 7 {
            0 => Self::Request,
            1 => Self::Notify,
            2 => Self::Response,
            3 => Self::Push,
            other => Self::Undefined(other),
        }
    }

    /// The number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Notify => 1,
            Self::Response => 2,
            Self::Push => 3,
            Self::Undefined(other) => other,
        }
    }

    fn has_id(self) -> bool {
        matches!(self, Self::Request | Self::Response)
    }

    fn has_route(self) -> bool {
        matches!(self, Self::Request | Self::Notify | Self::Push)
    }
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageRoute<'a> {
    /// The type carries none.
    None,
    /// Bytes of the text as they came: not checked for UTF-8.
    Text(&'a [u8]),
    /// Dictionary code.
    Code(u16),
}

/// Message, a view into the read buffer.
///
/// Shape:  `flag: u8` · `id: varint` (request, response) · route (request, notify, push): `length:
///         u8` · bytes, or with flag bit 0 `code: u16 big-endian` · body to the end.
///         Flag: bit 0 route is a code, bits 1..=3 type, bit 4 gzip, the rest ignored.
/// Bound:  `id ≤ limits::MESSAGE_ID_MAX` in at most five bytes
/// Errors: see [`MessageError`]
/// Source: pomelo-protocol 0.1.6 `Message`; `tests/vectors/client/message.json`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// 0 for a notify, and for a request that wants no response.
    pub id: u32,
    /// Its type.
    pub kind: MessageKind,
    /// Where it goes.
    pub route: MessageRoute<'a>,
    /// Flag bit 4: recorded and passed on, never acted on.
    pub gzip: bool,
    /// The rest.
    pub body: &'a [u8],
}

/// The reason why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageError {
    /// No byte at all.
    Empty,
    /// Cut before the route begins: Pomelo drops such a message, Pinus breaks.
    NoRoute,
    /// Cut inside route or code, or a response without its id.
    Truncated,
    /// Id over the bound.
    IdTooLarge,
}

/// The message in the body of a data package.
#[inline]
pub fn decode(input: &[u8]) -> Result<Message<'_>, MessageError> {
    let (&flag, mut rest) = input.split_first().ok_or(MessageError::Empty)?;
    let kind = MessageKind::from_flag(flag);
    let mut id = 0;
    if kind.has_id() {
        match varint::decode(rest, MESSAGE_ID_BYTES_MAX) {
            Ok((value, bytes)) if value <= MESSAGE_ID_MAX => {
                id = value;
                rest = &rest[bytes..];
            }
            Err(VarintError::Truncated) if kind == MessageKind::Request => {
                return Err(MessageError::NoRoute);
            }
            Err(VarintError::Truncated) => return Err(MessageError::Truncated),
            Ok(_) | Err(VarintError::TooLong) => return Err(MessageError::IdTooLarge),
        }
    }
    let mut route = MessageRoute::None;
    if kind.has_route() {
        if flag & 1 == 1 {
            let (code, tail) = rest.split_first_chunk().ok_or(MessageError::Truncated)?;
            route = MessageRoute::Code(u16::from_be_bytes(*code));
            rest = tail;
        } else {
            let (&length, tail) = rest.split_first().ok_or(MessageError::NoRoute)?;
            let (text, tail) = tail
                .split_at_checked(usize::from(length))
                .ok_or(MessageError::Truncated)?;
            route = MessageRoute::Text(text);
            rest = tail;
        }
    }
    Ok(Message {
        id,
        kind,
        route,
        gzip: flag & 0x10 != 0,
        body: rest,
    })
}

/// The reason why a message cannot be written; the texts are the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// `route maxlength is overflow`: over 255 bytes.
    RouteTooLong,
    /// The package around it would be over 2^24 - 1 bytes.
    TooLong,
}

impl EncodeError {
    /// For a person.
    pub fn text(self) -> &'static str {
        match self {
            Self::RouteTooLong => "route maxlength is overflow",
            Self::TooLong => "message is longer than a package can be",
        }
    }
}

/// Bytes of a message on the wire.
pub fn len(message: &Message<'_>) -> usize {
    let id = if message.kind.has_id() {
        varint::len(message.id)
    } else {
        0
    };
    let route = match message.route {
        MessageRoute::Text(text) if message.kind.has_route() => 1 + text.len(),
        MessageRoute::Code(_) if message.kind.has_route() => 2,
        _ => 0,
    };
    1 + id + route + message.body.len()
}

/// Writes a message without its body: the caller appends it, or shares it.
pub fn write_head(out: &mut Vec<u8>, message: &Message<'_>) -> Result<(), EncodeError> {
    let has_route = message.kind.has_route();
    let code = has_route && matches!(message.route, MessageRoute::Code(_));
    if let MessageRoute::Text(text) = message.route
        && text.len() > ROUTE_BYTES_MAX
    {
        return Err(EncodeError::RouteTooLong);
    }
    out.push((message.kind.number() << 1) | u8::from(code) | (u8::from(message.gzip) << 4));
    if message.kind.has_id() {
        varint::write(out, message.id);
    }
    match message.route {
        MessageRoute::Code(code) if has_route => out.extend_from_slice(&code.to_be_bytes()),
        MessageRoute::Text(text) if has_route => {
            out.push(text.len() as u8);
            out.extend_from_slice(text);
        }
        _ => {}
    }
    Ok(())
}

/// Writes a message.
pub fn write(out: &mut Vec<u8>, message: &Message<'_>) -> Result<(), EncodeError> {
    write_head(out, message)?;
    out.extend_from_slice(message.body);
    Ok(())
}

/// Bytes of the data package that [`write_response`] writes.
#[inline]
pub fn response_bytes(id: u32, body_bytes: usize) -> usize {
    package::HEAD_BYTES + 1 + varint::len(id) + body_bytes
}

/// Writes a response as a whole data package: the one copy of its body. The caller has checked the
/// length against `PACKAGE_BODY_BYTES_MAX`.
#[inline]
pub fn write_response(out: &mut Vec<u8>, id: u32, body: &[u8]) {
    let bytes = response_bytes(id, body.len());
    out.reserve(bytes);
    package::write_head(out, PackageKind::Data, bytes - package::HEAD_BYTES);
    out.push(MessageKind::Response.number() << 1);
    varint::write(out, id);
    out.extend_from_slice(body);
}

/// A push as a whole data package, to be written to any number of sessions.
pub fn push_package(route: MessageRoute<'_>, body: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let message = Message {
        id: 0,
        kind: MessageKind::Push,
        route,
        gzip: false,
        body,
    };
    let length = len(&message);
    if length > PACKAGE_BODY_BYTES_MAX {
        return Err(EncodeError::TooLong);
    }
    let mut out = Vec::with_capacity(package::HEAD_BYTES + length);
    package::write_head(&mut out, PackageKind::Data, length);
    write(&mut out, &message)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_without_its_route_is_told_from_one_cut_inside_it() {
        for cut in [&b"\x00"[..], b"\x06", b"\x00\x01", b"\x00\x81"] {
            assert_eq!(decode(cut), Err(MessageError::NoRoute), "{cut:?}");
        }
        for cut in [
            &b"\x03"[..],
            b"\x05",
            b"\x04",
            b"\x07",
            b"\x00\x01\xffa",
            b"\x01\x01\x00",
        ] {
            assert_eq!(decode(cut), Err(MessageError::Truncated), "{cut:?}");
        }
        assert_eq!(decode(b""), Err(MessageError::Empty));
    }

    #[test]
    fn an_id_over_two_to_the_31_is_refused() {
        assert_eq!(
            decode(b"\x00\x80\x80\x80\x80\x08\x01a"),
            Err(MessageError::IdTooLarge)
        );
        let largest = decode(b"\x00\xff\xff\xff\xff\x07\x01a").unwrap();
        assert_eq!(largest.id, MESSAGE_ID_MAX);
    }

    #[test]
    fn the_two_writers_of_a_response_agree() {
        for id in [1, 127, 128, 16_384, MESSAGE_ID_MAX] {
            let mut whole = Vec::new();
            write_response(&mut whole, id, b"{}");
            assert_eq!(whole.len(), response_bytes(id, 2));
            let package = package::decode(&whole, 100).unwrap().unwrap();
            let message = decode(package.body).unwrap();
            assert_eq!(
                (message.id, message.kind, message.body),
                (id, MessageKind::Response, &b"{}"[..])
            );
            let mut again = Vec::new();
            write(&mut again, &message).unwrap();
            assert_eq!(again, package.body);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(
            flag in 0..0x20_u8, rest in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..300),
        ) {
            let bytes = [&[flag][..], &rest].concat();
            for bytes in [&bytes[..], &rest] {
                if let Ok(message) = decode(bytes) {
                    let mut again = Vec::new();
                    prop_assert!(write(&mut again, &message).is_ok());
                    prop_assert_eq!(again.len(), len(&message));
                    prop_assert_eq!(decode(&again), Ok(message));
                }
            }
        }
    }
}
