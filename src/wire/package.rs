//! The package layer: four bytes of head and a body.

use crate::limits::PACKAGE_BODY_BYTES_MAX;

/// Bytes of a head.
pub const HEAD_BYTES: usize = 4;

/// Package type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PackageKind {
    /// JSON both ways; the first package of a connection.
    Handshake = 1,
    /// Client to server; a body is ignored.
    Ack = 2,
    /// Both ways; empty from the server.
    Heartbeat = 3,
    /// Both ways; the body is one message.
    Data = 4,
    /// Server to client; `{"reason":"..."}`.
    Kick = 5,
}

impl PackageKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Handshake,
            2 => Self::Ack,
            3 => Self::Heartbeat,
            4 => Self::Data,
            5 => Self::Kick,
            _ => return None,
        })
    }
}

/// Package, a view into the read buffer.
///
/// Shape:  `type: u8` · `length: u24 big-endian` · `body: [u8; length]`
/// Bound:  `length ≤ body_bytes_max`, itself at most `limits::PACKAGE_BODY_BYTES_MAX`
/// Errors: `UnknownType` (type not 1..=5), `TooLong`
/// Source: pomelo-protocol 0.1.6 `Package`; `tests/vectors/client/package.json`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package<'a> {
    /// Its type.
    pub kind: PackageKind,
    /// Its body.
    pub body: &'a [u8],
}

impl Package<'_> {
    /// Bytes it takes on the wire.
    pub fn bytes(&self) -> usize {
        HEAD_BYTES + self.body.len()
    }
}

/// The reason why bytes are not a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageError {
    /// Type byte not 1..=5.
    UnknownType(u8),
    /// Announced body length over the bound.
    TooLong(usize),
}

/// Type and body length announced by a head; `None`: fewer than four bytes.
#[inline]
pub fn head(
    input: &[u8],
    body_bytes_max: usize,
) -> Result<Option<(PackageKind, usize)>, PackageError> {
    let Some(&[kind, a, b, c]) = input.first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let kind = PackageKind::from_byte(kind).ok_or(PackageError::UnknownType(kind))?;
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    if length > body_bytes_max {
        return Err(PackageError::TooLong(length));
    }
    Ok(Some((kind, length)))
}

/// The package at the front of `input`; `None`: it is not all there yet.
#[inline]
pub fn decode(input: &[u8], body_bytes_max: usize) -> Result<Option<Package<'_>>, PackageError> {
    let Some((kind, length)) = head(input, body_bytes_max)? else {
        return Ok(None);
    };
    let body = input.get(HEAD_BYTES..HEAD_BYTES + length);
    Ok(body.map(|body| Package { kind, body }))
}

/// Writes a head. The caller has checked the length against `PACKAGE_BODY_BYTES_MAX`.
pub fn write_head(out: &mut Vec<u8>, kind: PackageKind, body_bytes: usize) {
    debug_assert!(body_bytes <= PACKAGE_BODY_BYTES_MAX);
    let [_, a, b, c] = (body_bytes as u32).to_be_bytes();
    out.extend_from_slice(&[kind as u8, a, b, c]);
}

/// Writes a whole package; false, and nothing written, when the body is too long for its head.
#[must_use]
pub fn write(out: &mut Vec<u8>, kind: PackageKind, body: &[u8]) -> bool {
    if body.len() > PACKAGE_BODY_BYTES_MAX {
        return false;
    }
    write_head(out, kind, body.len());
    out.extend_from_slice(body);
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_split_point_waits_for_more() {
        let mut bytes = Vec::new();
        assert!(write(&mut bytes, PackageKind::Data, b"{\"a\":1}"));
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end], 100), Ok(None), "at {end}");
        }
        let package = decode(&bytes, 100).unwrap().unwrap();
        assert_eq!(
            (package.kind, package.body),
            (PackageKind::Data, &b"{\"a\":1}"[..])
        );
        assert_eq!(package.bytes(), bytes.len());
    }

    #[test]
    fn a_long_length_is_refused_before_its_body_is_there() {
        assert_eq!(
            decode(&[4, 0xff, 0xff, 0xff], 1 << 20),
            Err(PackageError::TooLong(0xff_ffff))
        );
    }

    #[test]
    fn a_body_over_three_length_bytes_is_not_written() {
        let mut out = Vec::new();
        assert!(!write(
            &mut out,
            PackageKind::Data,
            &vec![0; PACKAGE_BODY_BYTES_MAX + 1]
        ));
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_packages_an_error_or_too_few(
            kind in 0..8_u8, length in 0..40_u8, body in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let bytes = [&[kind, 0, 0, length][..], &body].concat();
            for bytes in [&bytes[..], &body] {
                if let Ok(Some(package)) = decode(bytes, 30) {
                    let mut again = Vec::new();
                    prop_assert!(write(&mut again, package.kind, package.body));
                    prop_assert_eq!(&again[..], &bytes[..package.bytes()]);
                }
            }
        }
    }
}
