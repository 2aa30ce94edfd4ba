//! Frames: a client's is read and unmasked in place, a server's is a header in front of a payload.
//!
//! Each frame is read by itself: the caller joins fragments and refuses a continuation without a start.

use std::ops::Range;

use crate::limits::WEBSOCKET_CONTROL_BYTES_MAX;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
pub(super) const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// Lengths that say how wide the real length is.
const LENGTH_U16: u8 = 126;
const LENGTH_U64: u8 = 127;

/// Type of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation = 0x0,
    /// Text, or its first fragment. Whether it is UTF-8 is not checked here.
    Text = 0x1,
    /// Bytes, or their first fragment.
    Binary = 0x2,
    /// The last frame in its direction.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xa,
}

impl Opcode {
    /// Close, ping and pong: short, never fragmented, and allowed between fragments.
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }
}

/// Client frame, whole and at the front of the input, its payload unmasked.
///
/// Shape:  `fin: u1` · `reserved: u3 = 0` · `opcode: u4` · `masked: u1` · `length: u7`, or 126
///         and `u16`, or 127 and `u64`, big-endian · `mask: [u8; 4]` if masked · `payload: [u8; length]`
/// Bound:  `length` ≤ the caller's limit, control frames ≤ `limits::WEBSOCKET_CONTROL_BYTES_MAX`
/// Errors: see [`WebSocketError`]
/// Source: RFC 6455 5.2
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Last or only fragment of its message.
    pub fin: bool,
    /// Type of the frame.
    pub opcode: Opcode,
    /// Where in the input the payload lies.
    pub payload: Range<usize>,
    /// Where in the input the next frame starts.
    pub end: usize,
}

/// The reason why a client's frame is refused. The connection cannot go on after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WebSocketError {
    /// A reserved bit is set, or the opcode does not exist.
    Reserved,
    /// A frame without a mask.
    Unmasked,
    /// Control frame with more than 125 bytes of payload.
    ControlTooLong,
    /// Control frame in fragments.
    ControlFragmented,
    /// Payload above the caller's limit.
    TooLong,
    /// Close payload of one byte, or a code that must not be sent.
    BadClose,
    /// Close reason that is not UTF-8.
    NotUtf8,
}

impl WebSocketError {
    /// The code of the close frame that answers it, RFC 6455 7.4.1.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::NotUtf8 => 1007,
            Self::TooLong => 1009,
            _ => 1002,
        }
    }
}

/// Reads the frame at the front of the input; `Ok(None)`: wait for more bytes.
///
/// The payload is unmasked once the whole frame is there and not before. So call again with the
/// same bytes and more after `None`, but never again with bytes that gave a frame. An error is
/// found as soon as the bytes that prove it are there.
///
/// As pomelo: a length written wider than it needs to be is taken (`ws/lib/Receiver.js`).
#[inline]
pub fn decode(input: &mut [u8], payload_bytes_max: usize) -> Result<Option<Frame>, WebSocketError> {
    read::<true>(input, payload_bytes_max)
}

/// As [`decode`], for a frame without a mask, which [`decode`] refuses.
#[cold]
pub fn decode_unmasked(
    input: &mut [u8],
    payload_bytes_max: usize,
) -> Result<Option<Frame>, WebSocketError> {
    read::<false>(input, payload_bytes_max)
}

#[inline]
fn read<const HAS_MASK: bool>(
    input: &mut [u8],
    payload_bytes_max: usize,
) -> Result<Option<Frame>, WebSocketError> {
    let Some(&[first, second]) = input.first_chunk() else {
        return Ok(None);
    };
    let opcode = Opcode::from_bits(first & !(FIN | RESERVED)).ok_or(WebSocketError::Reserved)?;
    let fin = first & FIN != 0;
    if first & RESERVED != 0 {
        return Err(WebSocketError::Reserved);
    }
    if HAS_MASK && second & MASKED == 0 {
        return Err(WebSocketError::Unmasked);
    }
    debug_assert_eq!(second & MASKED != 0, HAS_MASK);
    if opcode.is_control() {
        if !fin {
            return Err(WebSocketError::ControlFragmented);
        }
        if usize::from(second & LENGTH) > WEBSOCKET_CONTROL_BYTES_MAX {
            return Err(WebSocketError::ControlTooLong);
        }
    }
    let Some((start, payload_bytes)) = lengths(input) else {
        return Ok(None);
    };
    let limit = if opcode.is_control() {
        WEBSOCKET_CONTROL_BYTES_MAX
    } else {
        payload_bytes_max
    };
    let end = usize::try_from(payload_bytes)
        .ok()
        .filter(|&payload_bytes| payload_bytes <= limit)
        .and_then(|payload_bytes| payload_bytes.checked_add(start))
        .ok_or(WebSocketError::TooLong)?;

    let Some((head, payload)) = input
        .get_mut(..end)
        .and_then(|frame| frame.split_at_mut_checked(start))
    else {
        return Ok(None);
    };
    if HAS_MASK && let Some(&mask) = head.last_chunk() {
        unmask(payload, mask);
    }
    Ok(Some(Frame {
        fin,
        opcode,
        payload: start..end,
        end,
    }))
}

/// Returns the length of the payload that the start of a frame announces, as far as it is there.
pub fn payload_bytes(input: &[u8]) -> Option<usize> {
    let (_, bytes) = lengths(input)?;
    usize::try_from(bytes).ok()
}

/// Length of the header and of the payload.
fn lengths(input: &[u8]) -> Option<(usize, u64)> {
    let (&[_, second], rest) = input.split_first_chunk()?;
    let (length_bytes, payload_bytes) = match second & LENGTH {
        LENGTH_U16 => (2, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        LENGTH_U64 => (8, u64::from_be_bytes(*rest.first_chunk()?)),
        short => (0, u64::from(short)),
    };
    let mask_bytes = if second & MASKED == 0 { 0 } else { 4 };
    Some((2 + length_bytes + mask_bytes, payload_bytes))
}

fn unmask(payload: &mut [u8], [a, b, c, d]: [u8; 4]) {
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= mask;
    }
}

/// Longest header of a server frame, bytes.
pub const HEADER_BYTES_MAX: usize = 10;

/// Header of a server frame. Made by [`header`].
///
/// Shape:  as [`Frame`], with `fin` set, `masked` clear and no mask: 2, 4 or 10 bytes
/// Source: RFC 6455 5.2
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    used: u8,
}

impl Header {
    /// Appends the header. The three possible lengths are constants here, so the compiler copies the bytes without a
    /// call.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        match self.used {
            2 => out.extend_from_slice(&self.bytes[..2]),
            4 => out.extend_from_slice(&self.bytes[..4]),
            _ => out.extend_from_slice(&self.bytes),
        }
    }

    /// The bytes to write in front of the payload.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.used)]
    }
}

/// Returns the header of an unfragmented server frame with `payload_bytes` bytes of payload.
#[must_use]
#[inline]
pub fn header(opcode: Opcode, payload_bytes: usize) -> Header {
    let mut bytes = [0; HEADER_BYTES_MAX];
    bytes[0] = FIN | opcode as u8;
    let used = match payload_bytes {
        0..126 => {
            bytes[1] = payload_bytes as u8;
            2
        }
        126..0x1_0000 => {
            bytes[1] = LENGTH_U16;
            bytes[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = LENGTH_U64;
            bytes[2..].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            10
        }
    };
    Header { bytes, used }
}

/// Appends a close frame without a reason.
///
/// As pomelo: code 1000; as pinus: no code, which its clients report as 1005.
pub fn write_close(out: &mut Vec<u8>, code: Option<u16>) {
    let code = code.map(u16::to_be_bytes);
    let payload = code.as_slice().as_flattened();
    out.extend_from_slice(header(Opcode::Close, payload.len()).as_slice());
    out.extend_from_slice(payload);
}

/// Payload of a client's close frame: the code, if it has one.
///
/// Shape:  nothing, or `code: u16 big-endian` · `reason: UTF-8`
/// Errors: `BadClose` (one byte; a code that is reserved or unassigned), `NotUtf8` (reason)
/// Source: RFC 6455 5.5.1 and 7.4; 1012..=1014 are registered with IANA
pub fn close_code(payload: &[u8]) -> Result<Option<u16>, WebSocketError> {
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() {
            Ok(None)
        } else {
            Err(WebSocketError::BadClose)
        };
    };
    let code = u16::from_be_bytes(code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(WebSocketError::BadClose);
    }
    match simdutf8::basic::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(WebSocketError::NotUtf8),
    }
}
