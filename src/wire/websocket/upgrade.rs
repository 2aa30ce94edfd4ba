//! The HTTP request that begins a WebSocket, and the answers to it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEAD_TEXT_BYTES, HTTP_HEADERS_MAX};

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
/// Shape:  `GET`, `Connection: upgrade`, `Upgrade: websocket`, `Sec-WebSocket-Version: 13` or `8`,
///         `Sec-WebSocket-Key`, perhaps `Sec-WebSocket-Protocol`
/// Source: RFC 6455 4.2.1; version 8, a draft of it, has the same frames
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upgrade<'a> {
    /// 16 random bytes in base64, or any ASCII text.
    pub key: &'a str,
    /// First of the sub-protocols on offer; `None` as well if it is not a token.
    pub protocol: Option<&'a str>,
}

/// The reason why an HTTP request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpError {
    /// Not HTTP/1.
    Malformed,
    /// The head has too many bytes.
    TooLong,
    /// A WebSocket upgrade by another method than GET, of another version than 13 and 8, or without
    /// exactly one accepted key.
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

/// Reads the request head at the front of the input; `Ok(None)`: wait for more bytes. The key of an upgrade is the
/// base64 of 16 bytes, or with `any_key` any text.
///
/// A request for something else than a WebSocket has no `upgrade`. It is not an error.
/// As pomelo: HTTP/1.0 may upgrade too, for the sake of old proxies (Node's `http`).
pub fn parse_request(input: &[u8], any_key: bool) -> Result<Option<UpgradeRequest<'_>>, HttpError> {
    with_head(input, |head, end| {
        let (Some(method), Some(path)) = (head.method, head.path) else {
            return Err(HttpError::Malformed);
        };
        let upgrade = if !asks_for_websocket(head.headers) {
            None
        } else if method == "GET" {
            Some(parse_upgrade(looked_at(head), any_key).ok_or(HttpError::BadUpgrade)?)
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
/// several headers of this name is one list. All headers count, because a proxy may add its own behind many of a client.
pub fn http_header(input: &[u8], name: &str) -> Option<String> {
    let texts = with_head(input, |head, _| {
        let values = values(head.headers, name);
        let texts = values.map(|value| String::from_utf8_lossy(value).into_owned());
        Ok(texts.collect::<Vec<String>>())
    });
    let texts = texts.ok()??;
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// Headers that fit without an allocation.
pub(super) const USUAL_HEADERS: usize = 64;

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

fn parse_upgrade<'a>(headers: &[httparse::Header<'a>], any_key: bool) -> Option<Upgrade<'a>> {
    let version = only(values(headers, "sec-websocket-version"))?;
    let key = only(values(headers, "sec-websocket-key"))?;
    let is_accepted = is_key(key) || (any_key && !key.is_empty() && key.is_ascii());
    let protocol = values(headers, "sec-websocket-protocol")
        .next()
        .and_then(|list| list.split(|&byte| byte == b',').next())
        .map(<[u8]>::trim_ascii)
        // It is echoed into a header of ours.
        .filter(|entry| !entry.is_empty() && entry.iter().all(|&byte| is_token_byte(byte)))
        .and_then(|entry| str::from_utf8(entry).ok());
    let key = str::from_utf8(key).ok()?;
    let is_accepted = is_accepted && matches!(version, b"13" | b"8");
    is_accepted.then_some(Upgrade { key, protocol })
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

/// Returns whether it is the base64 of 16 bytes, by its shape.
pub(super) fn is_key(key: &[u8]) -> bool {
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
