//! Transports of a connection: raw TCP or WebSocket, distinguished by the first bytes.

use std::cell::Cell;

use crate::dialect::Dialect;
use crate::error::CloseReason;
use crate::wire::websocket::{self, HttpError, Opcode, WebSocketError};

/// The transport of a connection's packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// A trusted proxy has to send the header of the PROXY protocol.
    Proxied,
    /// The TLS handshake comes first.
    Tls,
    /// No byte of the client has arrived.
    #[default]
    Undecided,
    /// Raw TCP: a byte stream of packages.
    Raw,
    /// An incomplete HTTP request.
    Http,
    /// WebSocket: one package per message.
    WebSocket,
}

/// Decides by the first chunk, once. As in Pomelo, a method that is split over chunks is raw TCP.
pub fn detect(first_chunk: &[u8]) -> Transport {
    let http = [&b"GET"[..], b"POST", b"PUT", b"HEAD"];
    if http.iter().any(|method| first_chunk.starts_with(method)) {
        Transport::Http
    } else {
        Transport::Raw
    }
}

/// Returns whether the first chunk begins a TLS handshake: a record of type 22 and of a version 3.x.
pub fn is_tls(first_chunk: &[u8]) -> bool {
    first_chunk.starts_with(&[22, 3])
}

/// The result of reading an HTTP request.
#[derive(Debug, PartialEq, Eq)]
pub enum Http {
    /// Incomplete.
    Wait,
    /// A WebSocket upgrade: bytes used, and the answer.
    Upgraded(usize, Vec<u8>),
    /// Any other request: the answer, and the reason why the connection ends.
    Answered(Vec<u8>, CloseReason),
}

/// The state of the process, for health checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// It has not joined the cluster of its master yet.
    Joining,
    /// It wants clients.
    #[default]
    Serving,
    /// It drains or stops.
    Stopping,
}

/// The rules for HTTP requests.
#[derive(Debug, Default)]
pub struct HttpRules {
    /// The answer to `GET /`.
    pub page: Option<&'static [u8]>,
    /// The path of the health check.
    pub health_path: Option<String>,
    /// The answer to a health check.
    pub health: Cell<Health>,
    /// The key of an upgrade may be any text.
    pub takes_any_key: bool,
}

/// Reads an HTTP request.
pub fn http(input: &[u8], rules: &HttpRules) -> Http {
    let text = |status, body: &[u8], reason| {
        let answer = response(input, status, "text/plain", body);
        Http::Answered(answer, reason)
    };
    let request = match websocket::parse_request(input, rules.takes_any_key) {
        Ok(Some(request)) => request,
        Ok(None) => return Http::Wait,
        Err(error) => {
            let (body, reason): (&[u8], _) = match error {
                HttpError::Malformed => (b"the request cannot be read\n", CloseReason::Http),
                HttpError::TooLong => (
                    b"the head of the request is too long\n",
                    CloseReason::HttpTooLong,
                ),
                HttpError::BadUpgrade => (
                    b"this is not a WebSocket upgrade of version 13 or 8\n",
                    CloseReason::HttpBadUpgrade,
                ),
            };
            return text(error.status(), body, reason);
        }
    };
    if let Some(upgrade) = &request.upgrade {
        let mut out = Vec::new();
        websocket::write_switching_protocols(&mut out, upgrade);
        return Http::Upgraded(request.end, out);
    }
    let gets = matches!(request.method, "GET" | "HEAD");
    let path = request.path.split('?').next();
    if gets && path.is_some() && path == rules.health_path.as_deref() {
        let (status, body): (_, &[u8]) = match rules.health.get() {
            Health::Joining => ("503 Service Unavailable", b"joining\n"),
            Health::Serving => ("200 OK", b"ok\n"),
            Health::Stopping => ("503 Service Unavailable", b"stopping\n"),
        };
        return text(status, body, CloseReason::Health);
    }
    match rules.page {
        Some(page) if gets && request.path == "/" => {
            let answer = response(input, "200 OK", "text/html; charset=utf-8", page);
            Http::Answered(answer, CloseReason::HttpAnswered)
        }
        Some(_) if gets => text("404 Not Found", b"not here\n", CloseReason::HttpAnswered),
        _ => {
            let body = b"this port speaks WebSocket\n";
            text("426 Upgrade Required", body, CloseReason::HttpNoUpgrade)
        }
    }
}

/// Returns the answer to a request on a listener that takes raw TCP alone.
pub fn refuse_http(input: &[u8]) -> Vec<u8> {
    let body = b"this port speaks raw TCP\n";
    response(input, "400 Bad Request", "text/plain", body)
}

/// Writes the answer to an upgrade of a client whose address has too many connections.
pub fn write_too_many(out: &mut Vec<u8>) {
    let body = b"this address has too many connections\n";
    websocket::write_response(out, "429 Too Many Requests", "text/plain", body);
}

/// Returns the response to a request; without the body when the method is HEAD.
fn response(request: &[u8], status: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    websocket::write_response(&mut out, status, content_type, body);
    if request.starts_with(b"HEAD") {
        out.truncate(out.len() - body.len());
    }
    out
}

/// The meaning of a WebSocket frame.
#[derive(Debug, PartialEq, Eq)]
pub enum TransportEvent<'a> {
    /// Incomplete.
    Wait,
    /// A complete message in the input.
    Message(&'a [u8]),
    /// The last fragment: a complete, assembled message.
    Assembled(Vec<u8>),
    /// Nothing to do.
    Nothing,
    /// A ping; the answer is a pong with these bytes.
    Ping(&'a [u8]),
    /// A close frame; the code to answer with.
    Close(Option<u16>),
}

/// The bounds of a client's frames.
#[derive(Debug, Clone, Copy)]
pub struct FrameBounds {
    /// Largest message.
    pub bytes_max: usize,
    /// Fragments of one message.
    pub fragments_max: usize,
    /// The framework whose details to follow.
    pub dialect: Dialect,
}

/// Takes one frame off the front of `input` and unmasks it in place. As pomelo: a client need not mask its frames. Unlike
/// in pomelo, one that `masks` must mask all of them: anything else is not a frame.
#[inline]
pub fn frame<'a>(
    input: &'a mut [u8],
    fragments: &mut Option<Box<Fragments>>,
    masks: &mut bool,
    bounds: &FrameBounds,
) -> Result<(usize, TransportEvent<'a>), CloseReason> {
    let FrameBounds {
        bytes_max,
        fragments_max,
        dialect,
    } = *bounds;
    let reason = |error: WebSocketError| CloseReason::WebSocket(error.close_code());
    let frame = match websocket::decode(input, bytes_max) {
        Ok(Some(frame)) => {
            *masks = true;
            frame
        }
        Ok(None) => return Ok((0, TransportEvent::Wait)),
        Err(WebSocketError::Unmasked) if !*masks && dialect.takes_unmasked_frames() => {
            match websocket::decode_unmasked(input, bytes_max).map_err(reason)? {
                Some(frame) => frame,
                None => return Ok((0, TransportEvent::Wait)),
            }
        }
        Err(error) => return Err(reason(error)),
    };
    hop!();
    let payload = &input[frame.payload];
    let meaning = match (frame.opcode, frame.fin) {
        (Opcode::Ping, _) => TransportEvent::Ping(payload),
        (Opcode::Pong, _) => TransportEvent::Nothing,
        (Opcode::Close, _) => {
            TransportEvent::Close(websocket::close_code(payload).map_err(reason)?)
        }
        (Opcode::Text | Opcode::Binary, _) if fragments.is_some() => {
            return Err(CloseReason::WebSocket(1002));
        }
        (opcode @ (Opcode::Text | Opcode::Binary), true) => {
            check_text(opcode, payload)?;
            TransportEvent::Message(payload)
        }
        (opcode @ (Opcode::Text | Opcode::Binary), false) => {
            debug_assert!(payload.len() <= bytes_max);
            *fragments = Some(Box::new(Fragments {
                opcode,
                bytes: payload.to_vec(),
                count: 1,
                is_new: true,
            }));
            TransportEvent::Nothing
        }
        (Opcode::Continuation, fin) => {
            let Some(started) = fragments else {
                return Err(CloseReason::WebSocket(1002));
            };
            if started.bytes.len() + payload.len() > bytes_max {
                return Err(CloseReason::WebSocket(1009));
            }
            started.count += 1;
            if started.count > fragments_max {
                return Err(CloseReason::WebSocket(1008));
            }
            debug_assert_ne!(started.opcode, Opcode::Continuation);
            started.bytes.extend_from_slice(payload);
            match if fin { fragments.take() } else { None } {
                Some(whole) => {
                    check_text(whole.opcode, &whole.bytes)?;
                    TransportEvent::Assembled(whole.bytes)
                }
                None => TransportEvent::Nothing,
            }
        }
    };
    Ok((frame.end, meaning))
}

/// A message without its last fragment.
#[derive(Debug)]
pub struct Fragments {
    opcode: Opcode,
    bytes: Vec<u8>,
    count: usize,
    /// Nobody has asked whether it is new.
    is_new: bool,
}

impl Fragments {
    /// Returns the number of bytes that are there.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Returns true the first time.
    pub fn is_new(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// Returns the memory of the fragments.
    pub fn held(&self) -> usize {
        self.bytes.capacity()
    }
}

fn check_text(opcode: Opcode, payload: &[u8]) -> Result<(), CloseReason> {
    if opcode == Opcode::Text && simdutf8::basic::from_utf8(payload).is_err() {
        return Err(CloseReason::WebSocket(1007));
    }
    Ok(())
}
