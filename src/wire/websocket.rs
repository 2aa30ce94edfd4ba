//! The server's side of WebSocket: the HTTP upgrade, and frames read in place.
//!
//! A client's frame is unmasked where it lies in the read buffer; a server's frame is a short
//! header in front of a payload that exists already. Nothing is copied. No extension is ever
//! negotiated, so the reserved bits are always zero.
//!
//! One frame is looked at on its own: the caller joins fragments and refuses a continuation
//! without a start.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::limits::{
    HTTP_HEAD_BYTES_MAX, HTTP_HEAD_TEXT_BYTES, HTTP_HEADERS_MAX, WEBSOCKET_CONTROL_BYTES_MAX,
};

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
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
/// Shape:  `fin: u1` · `reserved: u3 = 0` · `opcode: u4` · `masked: u1 = 1` · `length: u7`, or 126
///         and `u16`, or 127 and `u64`, big-endian · `mask: [u8; 4]` · `payload: [u8; length]`
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

/// Why a client's frame is refused. The connection cannot go on after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WebSocketError {
    /// A reserved bit is set, or the opcode does not exist.
    Reserved,
    /// A client has to mask every frame.
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
pub fn decode(input: &mut [u8], payload_bytes_max: usize) -> Result<Option<Frame>, WebSocketError> {
    let Some(&[first, second]) = input.first_chunk() else {
        return Ok(None);
    };
    let opcode = Opcode::from_bits(first & !(FIN | RESERVED)).ok_or(WebSocketError::Reserved)?;
    let fin = first & FIN != 0;
    if first & RESERVED != 0 {
        return Err(WebSocketError::Reserved);
    }
    if second & MASKED == 0 {
        return Err(WebSocketError::Unmasked);
    }
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
    if let Some(&mask) = head.last_chunk() {
        unmask(payload, mask);
    }
    Ok(Some(Frame {
        fin,
        opcode,
        payload: start..end,
        end,
    }))
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
    /// The bytes to write in front of the payload.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.used)]
    }
}

/// Returns the header of an unfragmented server frame with `payload_bytes` bytes of payload.
#[must_use]
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

/// Head of an HTTP request.
///
/// Shape:  request line · header lines · an empty line
/// Bound:  `limits::HTTP_HEAD_TEXT_BYTES`, `limits::HTTP_HEAD_BYTES_MAX`
/// Errors: see [`HttpError`]
/// Source: RFC 9112
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpgradeRequest<'a> {
    /// As sent, upper case as a rule.
    pub method: &'a str,
    /// As sent, with the query.
    pub path: &'a str,
    /// Where in the input the head ends.
    pub end: usize,
    /// The wish to go on as WebSocket, if it is one that can be granted.
    pub upgrade: Option<Upgrade<'a>>,
}

/// The fields of a WebSocket upgrade.
///
/// Shape:  `GET`, `Connection: upgrade`, `Upgrade: websocket`, `Sec-WebSocket-Version: 13`,
///         `Sec-WebSocket-Key`, perhaps `Sec-WebSocket-Protocol`
/// Source: RFC 6455 4.2.1
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upgrade<'a> {
    /// 16 random bytes in base64.
    pub key: &'a str,
    /// First of the sub-protocols on offer; `None` as well if it is not a token.
    pub protocol: Option<&'a str>,
}

/// Why an HTTP request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpError {
    /// Not HTTP/1.
    Malformed,
    /// The head has too many bytes.
    TooLong,
    /// A WebSocket upgrade by another method than GET, of another version than 13, or without
    /// exactly one well-formed key.
    BadUpgrade,
}

impl HttpError {
    /// The status to answer with.
    #[must_use]
    pub const fn status(self) -> &'static str {
        match self {
            Self::Malformed | Self::BadUpgrade => "400 Bad Request",
            Self::TooLong => "431 Request Header Fields Too Large",
        }
    }
}

/// Reads the request head at the front of the input; `Ok(None)`: wait for more bytes.
///
/// A request for something else than a WebSocket has no `upgrade`. It is not an error.
/// As pomelo: HTTP/1.0 may upgrade too, for the sake of old proxies (Node's `http`).
pub fn parse_request(input: &[u8]) -> Result<Option<UpgradeRequest<'_>>, HttpError> {
    with_head(input, |head, end| {
        let (Some(method), Some(path)) = (head.method, head.path) else {
            return Err(HttpError::Malformed);
        };
        let upgrade = if !asks_for_websocket(head.headers) {
            None
        } else if method == "GET" {
            Some(parse_upgrade(looked_at(head)).ok_or(HttpError::BadUpgrade)?)
        } else {
            return Err(HttpError::BadUpgrade);
        };
        Ok(UpgradeRequest {
            method,
            path,
            end,
            upgrade,
        })
    })
}

/// Text of a header of a request that [`parse_request`] has read, as node has it: what stands in
/// several headers of this name is one list.
pub fn http_header(input: &[u8], name: &str) -> Option<String> {
    let texts = with_head(input, |head, _| {
        let values = values(looked_at(head), name);
        let texts = values.map(|value| String::from_utf8_lossy(value).into_owned());
        Ok(texts.collect::<Vec<String>>())
    });
    let texts = texts.ok()??;
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// Headers that fit without an allocation.
const USUAL_HEADERS: usize = 64;

/// Parses the head at the front of the input and gives it to `read`, with its length; `Ok(None)`: wait
/// for more bytes.
fn with_head<'a, T>(
    input: &'a [u8],
    read: impl FnOnce(&httparse::Request<'_, 'a>, usize) -> Result<T, HttpError>,
) -> Result<Option<T>, HttpError> {
    let input = &input[..input.len().min(HTTP_HEAD_BYTES_MAX)];
    let mut usual = [httparse::EMPTY_HEADER; USUAL_HEADERS];
    let mut all = Vec::new();
    let mut head = httparse::Request::new(&mut usual);
    let mut parsed = head.parse(input);
    if parsed == Err(httparse::Error::TooManyHeaders) {
        all.resize(lines(input), httparse::EMPTY_HEADER);
        head = httparse::Request::new(&mut all);
        parsed = head.parse(input);
    }
    match parsed {
        Ok(httparse::Status::Complete(end)) => {
            if text_bytes(&head) >= HTTP_HEAD_TEXT_BYTES {
                return Err(HttpError::TooLong);
            }
            read(&head, end).map(Some)
        }
        Ok(httparse::Status::Partial) if is_too_long(input) => Err(HttpError::TooLong),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(HttpError::Malformed),
    }
}

/// Returns whether an incomplete head already has too many bytes. Around name and value, a header usually
/// has four bytes; around the path, the request line of `OPTIONS` has 17.
fn is_too_long(part: &[u8]) -> bool {
    let around = 17 + 4 * lines(part);
    part.len() == HTTP_HEAD_BYTES_MAX || part.len() >= HTTP_HEAD_TEXT_BYTES + around
}

fn lines(input: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', input).count()
}

/// Counts the bytes of path, header names and header values, which node limits.
fn text_bytes(head: &httparse::Request<'_, '_>) -> usize {
    let headers = head.headers.iter();
    let headers = headers.map(|header| header.name.len() + header.value.len());
    head.path.map_or(0, str::len) + headers.sum::<usize>()
}

/// As node, which sees an upgrade wherever it is asked for: of all other headers only the first
/// `limits::HTTP_HEADERS_MAX` count.
fn looked_at<'h, 'a>(head: &'h httparse::Request<'_, 'a>) -> &'h [httparse::Header<'a>] {
    let headers = &*head.headers;
    headers.get(..HTTP_HEADERS_MAX).unwrap_or(headers)
}

fn asks_for_websocket(headers: &[httparse::Header<'_>]) -> bool {
    let lists = |name, token: &str| {
        values(headers, name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|entry| entry.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    };
    lists("connection", "upgrade") && lists("upgrade", "websocket")
}

fn parse_upgrade<'a>(headers: &[httparse::Header<'a>]) -> Option<Upgrade<'a>> {
    let version = only(values(headers, "sec-websocket-version"))?;
    let key = only(values(headers, "sec-websocket-key")).filter(|key| is_key(key))?;
    let protocol = values(headers, "sec-websocket-protocol")
        .next()
        .and_then(|list| list.split(|&byte| byte == b',').next())
        .map(<[u8]>::trim_ascii)
        // It is echoed into a header of ours.
        .filter(|entry| !entry.is_empty() && entry.iter().all(|&byte| is_token_byte(byte)))
        .and_then(|entry| str::from_utf8(entry).ok());
    let key = str::from_utf8(key).ok()?;
    (version == b"13").then_some(Upgrade { key, protocol })
}

fn values<'a>(headers: &[httparse::Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value.trim_ascii())
}

/// The item of an iterator that has one and no more.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let item = items.next()?;
    items.next().is_none().then_some(item)
}

/// Whether it is the base64 of 16 bytes, by its shape.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.strip_suffix(b"==")
        .is_some_and(|digits| digits.len() == 22 && digits.iter().all(is_digit))
}

/// `tchar` of RFC 9110 5.6.2.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Appends the answer that turns the connection into a WebSocket: status 101, the accept key and
/// the sub-protocol, if one is on offer. No extension is accepted.
pub fn write_switching_protocols(out: &mut Vec<u8>, upgrade: &Upgrade<'_>) {
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = Sha1::new()
        .chain_update(upgrade.key)
        .chain_update(GUID)
        .finalize();
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    );
    write_header(out, "Sec-WebSocket-Accept", &STANDARD.encode(digest));
    if let Some(protocol) = upgrade.protocol {
        write_header(out, "Sec-WebSocket-Protocol", protocol);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a whole HTTP response after which the connection ends.
///
/// `status` is code and phrase, as in `426 Upgrade Required`; it and `content_type` are trusted.
pub fn write_response(out: &mut Vec<u8>, status: &str, content_type: &str, body: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_bytes());
    out.extend_from_slice(b"\r\n");
    write_header(out, "Content-Type", content_type);
    write_header(
        out,
        "Content-Length",
        itoa::Buffer::new().format(body.len()),
    );
    write_header(out, "Connection", "close");
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

fn write_header(out: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{self, Read, Write};

    use proptest::prelude::*;
    use tungstenite::handshake::derive_accept_key;
    use tungstenite::protocol::frame::{CloseFrame, Frame as OracleFrame, coding};
    use tungstenite::protocol::{Message, Role, WebSocket};

    use super::*;

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
                && let Ok(Some(request)) = parse_request(&self.sent)
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
        parse_request(text.as_bytes()).map(|request| request.unwrap().upgrade)
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
                parse_request(&UPGRADE.as_bytes()[..cut]),
                Ok(None),
                "cut at {cut}"
            );
        }
        let input = [UPGRADE.as_bytes(), b"\x82\x80"].concat();
        let request = parse_request(&input).unwrap().unwrap();
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
            ("Version: 13", "Version: 8"),
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
        assert!(parse_request(longest.as_bytes()).unwrap().is_some());
        let too_long = padded(HTTP_HEAD_TEXT_BYTES);
        assert_eq!(parse_request(too_long.as_bytes()), Err(HttpError::TooLong));
        let long_path = format!(
            "GET /{} HTTP/1.1\r\n\r\n",
            "a".repeat(HTTP_HEAD_TEXT_BYTES - 1)
        );
        assert_eq!(parse_request(long_path.as_bytes()), Err(HttpError::TooLong));
    }

    #[test]
    fn a_request_head_that_never_ends_is_refused_when_it_is_too_long() {
        let endless = |line: &str| {
            let mut input = b"GET / HTTP/1.1\r\n".to_vec();
            input.extend(line.bytes().cycle().take(2 * HTTP_HEAD_BYTES_MAX));
            let refused = |length: &usize| parse_request(&input[..*length]).is_err();
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
                parse_request(text.as_bytes()),
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
            let _ = parse_request(&random);
            let _ = parse_request(&[b"GET / HTTP/1.1\r\n", &random[..]].concat());
            let _ = parse_request(&[&UPGRADE.as_bytes()[..UPGRADE.len() - 2], &random[..]].concat());
            let _ = close_code(&random);
            let bytes = random.len();
            if let Ok(Some(frame)) = decode(&mut random, payload_bytes_max) {
                prop_assert!(frame.payload.end == frame.end && frame.end <= bytes);
            }
        }
    }
}
