//! A game client over raw TCP or WebSocket, blocking, with a deadline on every wait.
//!
//! Written from the protocol and from nothing in the gateway, because it is the judge: it takes
//! only what a client may be sent, and panics on anything else.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message as Frame, WebSocket};

/// Bounds every wait for something that must happen. Only a hang reaches it, however busy the
/// machine is, so no test concludes anything from it.
pub(crate) const HANG_GUARD: Duration = Duration::from_secs(60);

pub(crate) const HANDSHAKE: u8 = 1;
pub(crate) const ACK: u8 = 2;
pub(crate) const HEARTBEAT: u8 = 3;
pub(crate) const DATA: u8 = 4;
pub(crate) const KICK: u8 = 5;

/// One package: its type byte and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
}

/// The message in a data package from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Response { id: u32, body: Vec<u8> },
    Push { route: String, body: Vec<u8> },
}

/// How the server ended the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The stream ended in order; over WebSocket: without a close frame.
    Fin,
    Reset,
    /// A WebSocket close frame, with its code if it had one.
    CloseFrame(Option<u16>),
}

/// A route on the wire: its text, or its code in the dictionary.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route<'a> {
    Name(&'a str),
    Code(u16),
}

impl<'a> From<&'a str> for Route<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl From<u16> for Route<'_> {
    fn from(code: u16) -> Self {
        Self::Code(code)
    }
}

pub(crate) struct Client {
    wire: Wire,
    /// Packages that were received and that the test has not taken yet.
    packages: VecDeque<Package>,
    end: Option<End>,
    /// Arrived while something else was waited for.
    responses: BTreeMap<u32, VecDeque<Vec<u8>>>,
    pushes: VecDeque<(String, Vec<u8>)>,
    /// Route by code, from the handshake.
    dictionary: BTreeMap<u16, String>,
    last_id: u32,
}

/// The bytes under packages or WebSocket: a socket, or a session of TLS on one.
pub(crate) trait Stream: Read + Write + Send {
    /// The socket.
    fn socket(&self) -> &TcpStream;

    /// The certificate that the server has shown.
    fn certificate(&self) -> Option<&[u8]> {
        None
    }
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

enum Wire {
    Tcp {
        stream: Box<dyn Stream>,
        /// Bytes behind the last whole package.
        partial: Vec<u8>,
    },
    WebSocket(Box<WebSocket<Box<dyn Stream>>>),
}

/// The body of a plain handshake.
const PLAIN_HANDSHAKE: &[u8] = br#"{"sys":{"type":"e2e","version":"1.0.0"},"user":{}}"#;

impl Client {
    /// Connects over raw TCP; nothing is sent yet.
    pub(crate) fn tcp(address: SocketAddr) -> Self {
        Self::raw(connect(address))
    }

    /// The same from an address of this machine.
    pub(crate) fn tcp_from(address: SocketAddr, from: IpAddr) -> Self {
        Self::raw(connect_from(address, from))
    }

    /// The same over a unix socket, behind these bytes of a proxy.
    pub(crate) fn unix(path: &Path, header: &[u8]) -> Self {
        let mut stream = connect_unix(path);
        stream.write_all(header).expect("an open socket");
        Self::raw(stream)
    }

    /// Raw TCP over a stream that is open.
    pub(crate) fn raw(stream: impl Stream + 'static) -> Self {
        Self::over(Wire::Tcp {
            stream: Box::new(stream),
            partial: Vec::new(),
        })
    }

    /// Connects over a unix socket and upgrades to WebSocket, where the server may refuse the upgrade.
    pub(crate) fn try_websocket_unix(
        path: &Path,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, String> {
        let host = SocketAddr::from(([127, 0, 0, 1], 80));
        Self::upgrade(connect_unix(path), host, headers)
    }

    /// Connects and upgrades to WebSocket; no package is sent yet.
    pub(crate) fn websocket(address: SocketAddr) -> Self {
        Self::websocket_with(address, &[])
    }

    /// The same with more headers in its upgrade.
    pub(crate) fn websocket_with(address: SocketAddr, headers: &[(&'static str, &str)]) -> Self {
        Self::try_websocket(address, headers)
            .unwrap_or_else(|e| panic!("waited for the WebSocket upgrade: {e}"))
    }

    /// The same, where the server may refuse the upgrade; why it did.
    pub(crate) fn try_websocket(
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, String> {
        Self::upgrade(connect(address), address, headers)
    }

    /// The same from an address of this machine.
    pub(crate) fn websocket_from(
        address: SocketAddr,
        from: IpAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, String> {
        Self::upgrade(connect_from(address, from), address, headers)
    }

    /// Upgrades a stream that is open to WebSocket, where the server may refuse the upgrade.
    pub(crate) fn upgrade(
        stream: impl Stream + 'static,
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, String> {
        let stream: Box<dyn Stream> = Box::new(stream);
        stream
            .socket()
            .set_read_timeout(Some(HANG_GUARD))
            .expect("not zero");
        let mut request = format!("ws://{address}/")
            .into_client_request()
            .expect("an address");
        for (name, value) in headers {
            let value = value.parse().expect("the value of a header");
            request.headers_mut().append(*name, value);
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _response)) => Ok(Self::over(Wire::WebSocket(Box::new(socket)))),
            Err(error) => Err(error.to_string()),
        }
    }

    fn over(wire: Wire) -> Self {
        Self {
            wire,
            packages: VecDeque::new(),
            end: None,
            responses: BTreeMap::new(),
            pushes: VecDeque::new(),
            dictionary: BTreeMap::new(),
            last_id: 0,
        }
    }

    /// Shakes hands and acknowledges: from here on requests are answered.
    pub(crate) fn open(mut self) -> Self {
        self.handshake();
        self.ack();
        self
    }

    /// The same, where the server may refuse the handshake.
    pub(crate) fn try_open(mut self) -> Option<Self> {
        self.send_package(HANDSHAKE, PLAIN_HANDSHAKE);
        let package = self.next_package()?;
        let is_taken = package.body.starts_with(br#"{"code":200"#);
        is_taken.then(|| {
            self.ack();
            self
        })
    }

    // Bytes and packages.

    /// Sends bytes as they are: over TCP into the stream, over WebSocket as one binary message.
    /// That the server has closed is not an error here; reading will tell.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        let sent = match &mut self.wire {
            Wire::Tcp { stream, .. } => stream.write_all(bytes),
            Wire::WebSocket(socket) => match socket.send(Frame::binary(bytes.to_vec())) {
                Err(tungstenite::Error::Io(e)) => Err(e),
                // Closed already, in one of several ways.
                _ => Ok(()),
            },
        };
        if let Err(e) = sent {
            let closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(
                closed.contains(&e.kind()),
                "sending {} bytes: {e}",
                bytes.len()
            );
        }
    }

    /// The socket under everything, for bytes that are not packages or frames.
    pub(crate) fn stream(&self) -> &TcpStream {
        match &self.wire {
            Wire::Tcp { stream, .. } => stream.socket(),
            Wire::WebSocket(socket) => socket.get_ref().socket(),
        }
    }

    /// The certificate that the server has shown, over TLS.
    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        match &self.wire {
            Wire::Tcp { stream, .. } => stream.certificate(),
            Wire::WebSocket(socket) => socket.get_ref().certificate(),
        }
    }

    pub(crate) fn send_package(&mut self, kind: u8, body: &[u8]) {
        self.send_raw(&encode_package(kind, body));
    }

    /// The next package of any kind, in order of arrival; `None` when the server has closed.
    pub(crate) fn next_package(&mut self) -> Option<Package> {
        self.package_within(HANG_GUARD)
            .unwrap_or_else(|TimedOut| self.give_up("any package"))
    }

    /// All packages of the next WebSocket message. Nothing may wait from the one before.
    pub(crate) fn next_batch(&mut self) -> Vec<Package> {
        assert!(self.packages.is_empty(), "not taken: {:?}", self.packages);
        let first = self.next_package();
        first.into_iter().chain(self.packages.drain(..)).collect()
    }

    /// The same, if one comes within `period`; empty at the end.
    pub(crate) fn batch_within(&mut self, period: Duration) -> Option<Vec<Package>> {
        assert!(self.packages.is_empty(), "not taken: {:?}", self.packages);
        let first = self.package_within(period).ok()?;
        Some(first.into_iter().chain(self.packages.drain(..)).collect())
    }

    /// Panics when a package or the end comes within `period`. A slow machine cannot make this
    /// fail, only pass; where a later answer can stand for the silence before it, prefer that.
    pub(crate) fn silent_for(&mut self, period: Duration) {
        match self.package_within(period) {
            Err(TimedOut) => {}
            Ok(Some(package)) => panic!("not silent: {package:?}"),
            Ok(None) => panic!("not silent: {:?}", self.end),
        }
    }

    /// How the server ended the connection, once [`Self::next_package`] gave `None`.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// The code of the close frame, if the server sent one that had a code.
    pub(crate) fn close_code(&self) -> Option<u16> {
        match self.end {
            Some(End::CloseFrame(code)) => code,
            _ => None,
        }
    }

    // Handshake.

    /// Sends a plain handshake and takes the answer, which must be code 200.
    pub(crate) fn handshake(&mut self) -> Value {
        self.send_package(HANDSHAKE, PLAIN_HANDSHAKE);
        let Some(package) = self.next_package() else {
            panic!("waited for the handshake: {:?}", self.end);
        };
        assert_eq!(
            package.kind, HANDSHAKE,
            "waited for the handshake: {package:?}"
        );
        let reply: Value = serde_json::from_slice(&package.body).expect("a handshake is JSON");
        assert_eq!(reply["code"], 200, "{reply}");
        if let Some(codes) = reply["sys"]["dict"].as_object() {
            let codes = codes.iter().map(|(route, code)| {
                let code = code.as_u64().and_then(|code| u16::try_from(code).ok());
                (code.expect("codes have two bytes"), route.clone())
            });
            self.dictionary = codes.collect();
        }
        reply
    }

    pub(crate) fn ack(&mut self) {
        self.send_package(ACK, b"");
    }

    // Messages.

    pub(crate) fn request<'a>(
        &mut self,
        id: u32,
        route: impl Into<Route<'a>>,
        body: impl AsRef<[u8]>,
    ) {
        self.send_package(DATA, &encode_message(Some(id), route.into(), body.as_ref()));
    }

    pub(crate) fn notify<'a>(&mut self, route: impl Into<Route<'a>>, body: impl AsRef<[u8]>) {
        self.send_package(DATA, &encode_message(None, route.into(), body.as_ref()));
    }

    /// The next response or push, whichever comes first; heartbeats are passed over. It does not look at messages
    /// that were put aside before.
    pub(crate) fn next_message(&mut self) -> Message {
        self.message(&|| "any message".to_owned())
    }

    /// The body of the response to `id`. Other messages that come before it are put aside.
    pub(crate) fn wait_response(&mut self, id: u32) -> Vec<u8> {
        loop {
            let arrived = self.responses.get_mut(&id).and_then(VecDeque::pop_front);
            if let Some(body) = arrived {
                return body;
            }
            let message = self.message(&|| format!("the response to {id}"));
            self.put_aside(message);
        }
    }

    /// The body of the response to `id`, if it comes within `period`.
    pub(crate) fn response_within(&mut self, id: u32, period: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + period;
        loop {
            let arrived = self.responses.get_mut(&id).and_then(VecDeque::pop_front);
            let left = deadline.saturating_duration_since(Instant::now());
            if arrived.is_some() || left.is_zero() {
                return arrived;
            }
            match self.package_within(left) {
                Ok(Some(Package { kind: DATA, body })) => {
                    let message = self.decode_message(&body);
                    self.put_aside(message);
                }
                Ok(Some(Package {
                    kind: HEARTBEAT, ..
                }))
                | Err(TimedOut) => {}
                other => panic!("waited for the response to {id}: {:?}", other.ok()),
            }
        }
    }

    /// Whether a response to `id` was put aside: a second one, if the first has been taken.
    pub(crate) fn has_response(&self, id: u32) -> bool {
        self.responses
            .get(&id)
            .is_some_and(|bodies| !bodies.is_empty())
    }

    /// Route and body of the next push. Responses that come before it are put aside.
    pub(crate) fn next_push(&mut self) -> (String, Vec<u8>) {
        loop {
            if let Some(push) = self.pushes.pop_front() {
                return push;
            }
            let message = self.message(&|| "a push".to_owned());
            self.put_aside(message);
        }
    }

    /// Sends a request with an id of its own and returns the response as text.
    pub(crate) fn request_text<'a>(
        &mut self,
        route: impl Into<Route<'a>>,
        body: impl AsRef<[u8]>,
    ) -> String {
        let id = self.request_fresh(route, body);
        String::from_utf8(self.wait_response(id)).expect("responses are UTF-8")
    }

    /// Sends a request with an id of its own, and returns that.
    pub(crate) fn request_fresh<'a>(
        &mut self,
        route: impl Into<Route<'a>>,
        body: impl AsRef<[u8]>,
    ) -> u32 {
        // Far from the ids that tests choose themselves.
        self.last_id = self.last_id.max(1_000_000) + 1;
        self.request(self.last_id, route, body);
        self.last_id
    }

    /// The reason of the kick that must come next, and that the server closes after it.
    pub(crate) fn wait_kick(&mut self) -> String {
        loop {
            match self.next_package() {
                Some(Package {
                    kind: HEARTBEAT, ..
                }) => {}
                Some(Package { kind: KICK, body }) => {
                    let kick: Value = serde_json::from_slice(&body).expect("a kick is JSON");
                    let last = self.next_package();
                    assert_eq!(last, None, "a package follows the kick");
                    return kick["reason"]
                        .as_str()
                        .expect("a kick has a reason")
                        .to_owned();
                }
                other => panic!("waited for a kick: {other:?}, {:?}", self.end),
            }
        }
    }

    fn message(&mut self, what: &dyn Fn() -> String) -> Message {
        loop {
            match self.package_within(HANG_GUARD) {
                Ok(Some(Package {
                    kind: HEARTBEAT, ..
                })) => {}
                Ok(Some(Package { kind: DATA, body })) => return self.decode_message(&body),
                Ok(Some(other)) => panic!("waited for {}: {other:?}", what()),
                Ok(None) => panic!("waited for {}: {:?}", what(), self.end),
                Err(TimedOut) => self.give_up(&what()),
            }
        }
    }

    fn put_aside(&mut self, message: Message) {
        match message {
            Message::Response { id, body } => self.responses.entry(id).or_default().push_back(body),
            Message::Push { route, body } => self.pushes.push_back((route, body)),
        }
    }

    fn give_up(&self, what: &str) -> ! {
        let aside: Vec<_> = self
            .responses
            .iter()
            .filter(|(_, of)| !of.is_empty())
            .collect();
        panic!(
            "waited {HANG_GUARD:?} for {what}; put aside: responses {aside:?}, pushes {:?}",
            self.pushes
        );
    }

    // Receiving.

    fn package_within(&mut self, period: Duration) -> Result<Option<Package>, TimedOut> {
        let deadline = Instant::now() + period;
        loop {
            if let Some(package) = self.packages.pop_front() {
                return Ok(Some(package));
            }
            if self.end.is_some() {
                return Ok(None);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(TimedOut);
            }
            match &mut self.wire {
                Wire::Tcp { stream, partial } => {
                    let socket = stream.socket();
                    socket.set_read_timeout(Some(left)).expect("not zero");
                    self.end = read_stream(&mut **stream, partial);
                    cut_packages(partial, &mut self.packages);
                    let whole = self.end.is_none() || partial.is_empty();
                    assert!(whole, "{:?} inside a package: {partial:02x?}", self.end);
                }
                Wire::WebSocket(socket) => {
                    socket
                        .get_ref()
                        .socket()
                        .set_read_timeout(Some(left))
                        .expect("not zero");
                    self.end = read_frame(socket, &mut self.packages);
                }
            }
        }
    }

    fn decode_message(&self, bytes: &[u8]) -> Message {
        let (flag, rest) = bytes.split_first().expect("a message has a flag");
        assert_eq!(flag & 0xf0, 0, "flags that no server sets: {bytes:02x?}");
        let compressed = flag & 1 == 1;
        match flag >> 1 {
            2 => {
                assert!(!compressed, "a response has no route: {bytes:02x?}");
                let (id, body) = decode_id(rest);
                Message::Response {
                    id,
                    body: body.to_vec(),
                }
            }
            3 if compressed => {
                let (code, body) = rest.split_first_chunk().expect("a code has two bytes");
                let code = u16::from_be_bytes(*code);
                let route = self
                    .dictionary
                    .get(&code)
                    .expect("a code of the dictionary")
                    .clone();
                Message::Push {
                    route,
                    body: body.to_vec(),
                }
            }
            3 => {
                let (length, rest) = rest.split_first().expect("a route has a length");
                let (route, body) = rest.split_at(usize::from(*length));
                let route = String::from_utf8(route.to_vec()).expect("routes are UTF-8");
                Message::Push {
                    route,
                    body: body.to_vec(),
                }
            }
            _ => panic!("a server sends responses and pushes: {bytes:02x?}"),
        }
    }
}

struct TimedOut;

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, HANG_GUARD);
    prepared(stream.unwrap_or_else(|e| panic!("{address}: {e}")))
}

/// Connects from an address of this machine.
pub(crate) fn connect_from(address: SocketAddr, from: IpAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    let bound = socket.bind(&SocketAddr::new(from, 0).into());
    let connected = bound.and_then(|()| socket.connect_timeout(&address.into(), HANG_GUARD));
    connected.unwrap_or_else(|e| panic!("{from} to {address}: {e}"));
    prepared(socket.into())
}

/// Connects to a unix socket. The calls that a client needs are the same as those of a TCP socket.
pub(crate) fn connect_unix(path: &Path) -> TcpStream {
    let stream = UnixStream::connect(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    stream
        .set_write_timeout(Some(HANG_GUARD))
        .expect("not zero");
    TcpStream::from(OwnedFd::from(stream))
}

fn prepared(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).expect("an open socket");
    // Larger than the receiving one: the server may be busy writing to us, who do not read now.
    stream
        .set_write_timeout(Some(HANG_GUARD))
        .expect("not zero");
    stream
}

/// Reads once. Nothing within the socket's time-out is neither bytes nor an end.
fn read_stream(stream: &mut dyn Stream, partial: &mut Vec<u8>) -> Option<End> {
    let mut chunk = [0; 65_536];
    match stream.read(&mut chunk) {
        Ok(0) => Some(End::Fin),
        Ok(count) => {
            partial.extend_from_slice(&chunk[..count]);
            None
        }
        Err(e) => end_of(&e),
    }
}

/// Reads one frame, or a part of one that the socket remembers.
fn read_frame(
    socket: &mut WebSocket<Box<dyn Stream>>,
    packages: &mut VecDeque<Package>,
) -> Option<End> {
    use tungstenite::Error;
    use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    match socket.read() {
        Ok(Frame::Binary(bytes)) => {
            // One message may hold several packages, but never a part of one.
            let mut bytes = bytes.to_vec();
            cut_packages(&mut bytes, packages);
            assert!(
                bytes.is_empty(),
                "a part of a package in a message: {bytes:02x?}"
            );
            None
        }
        Ok(Frame::Close(frame)) => {
            // Our own close frame is queued by now; the server need not wait for it.
            let _ = socket.flush();
            Some(End::CloseFrame(frame.map(|frame| frame.code.into())))
        }
        Ok(Frame::Ping(_) | Frame::Pong(_)) => None,
        Ok(other) => panic!("a server sends binary messages: {other:?}"),
        Err(Error::Protocol(ResetWithoutClosingHandshake) | Error::ConnectionClosed) => {
            Some(End::Fin)
        }
        Err(Error::Io(e)) => end_of(&e),
        Err(e) => panic!("not WebSocket: {e}"),
    }
}

fn end_of(e: &io::Error) -> Option<End> {
    match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => None,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Some(End::Reset),
        _ => panic!("receiving: {e}"),
    }
}

/// Moves whole packages from the front of `bytes` to `packages`.
fn cut_packages(bytes: &mut Vec<u8>, packages: &mut VecDeque<Package>) {
    let mut from = 0;
    while let Some((head, rest)) = bytes[from..].split_first_chunk::<4>() {
        let [kind, length @ ..] = *head;
        let [high, middle, low] = length.map(usize::from);
        assert!(
            (HANDSHAKE..=KICK).contains(&kind),
            "no type of package: {head:02x?}"
        );
        let Some(body) = rest.get(..high << 16 | middle << 8 | low) else {
            break;
        };
        from += head.len() + body.len();
        packages.push_back(Package {
            kind,
            body: body.to_vec(),
        });
    }
    bytes.drain(..from);
}

pub(crate) fn encode_package(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length < 1 << 24);
    let [_, length @ ..] = length.expect("a length has three bytes").to_be_bytes();
    let mut bytes = vec![kind];
    bytes.extend(length);
    bytes.extend(body);
    bytes
}

/// A request with an id, a notify without.
pub(crate) fn encode_message(id: Option<u32>, route: Route<'_>, body: &[u8]) -> Vec<u8> {
    let kind = if id.is_some() { 0 } else { 1 };
    let compressed = u8::from(matches!(route, Route::Code(_)));
    let mut bytes = vec![kind << 1 | compressed];
    if let Some(mut id) = id {
        while id > 0x7f {
            bytes.push((id & 0x7f) as u8 | 0x80);
            id >>= 7;
        }
        bytes.push(id as u8);
    }
    match route {
        Route::Code(code) => bytes.extend(code.to_be_bytes()),
        Route::Name(name) => {
            bytes.push(u8::try_from(name.len()).expect("a route has 255 bytes at most"));
            bytes.extend(name.as_bytes());
        }
    }
    bytes.extend(body);
    bytes
}

fn decode_id(bytes: &[u8]) -> (u32, &[u8]) {
    let mut id = 0;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        id |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            let id = u32::try_from(id).expect("ids have 31 bits");
            return (id, &bytes[index + 1..]);
        }
    }
    panic!("an id that does not end: {bytes:02x?}");
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Shutdown, TcpListener};
    use std::thread;

    use super::*;

    #[test]
    fn encoded_messages_have_the_bytes_of_the_protocol() {
        let cases: [(Vec<u8>, &[u8]); 4] = [
            (
                encode_message(Some(1), "a.b.c".into(), b"{}"),
                b"\x00\x01\x05a.b.c{}",
            ),
            (
                encode_message(Some(128), 7.into(), b"{}"),
                b"\x01\x80\x01\x00\x07{}",
            ),
            (encode_message(None, "a.b.c".into(), b""), b"\x02\x05a.b.c"),
            (
                encode_package(DATA, b"\x02\x01a"),
                b"\x04\x00\x00\x03\x02\x01a",
            ),
        ];
        for (encoded, expected) in cases {
            assert_eq!(encoded, expected);
        }
        assert_eq!(
            decode_id(&[0xff, 0xff, 0xff, 0xff, 0x07, 9]),
            (0x7fff_ffff, &[9][..])
        );
    }

    /// The first connection to `listener`, with a deadline on reading.
    fn accept(listener: &TcpListener) -> TcpStream {
        let (stream, _) = listener.accept().expect("a client");
        let timeout = Some(HANG_GUARD);
        stream.set_read_timeout(timeout).expect("not zero");
        stream
    }

    /// A server that writes to its only client, piece by piece, and then ends its side.
    fn server(pieces: &'static [&'static [u8]]) -> (SocketAddr, thread::JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let serve = move || {
            let mut stream = accept(&listener);
            stream.set_nodelay(true).expect("an open socket");
            for piece in pieces {
                stream.write_all(piece).expect("the client reads");
                thread::sleep(Duration::from_millis(10));
            }
            stream.shutdown(Shutdown::Write).expect("an open socket");
            // Closing with bytes unread would reset.
            stream
                .read_to_end(&mut Vec::new())
                .expect("the client closes");
        };
        (address, thread::spawn(serve))
    }

    #[test]
    fn packages_are_cut_wherever_the_stream_is_split() {
        let (address, serving) = server(&[
            b"\x01\x00",
            b"\x00\x0c{\"code\":",
            b"200}\x03\x00\x00\x00\x04\x00\x00\x06\x06\x02on{}\x04\x00\x00\x04\x04\x80\x01",
            b"5\x04\x00\x00\x03\x04\x07\x36",
        ]);
        let mut client = Client::tcp(address).open();
        assert_eq!(client.wait_response(7), b"6");
        assert!(client.has_response(128) && !client.has_response(7));
        assert_eq!(client.wait_response(128), b"5");
        assert_eq!(client.next_push(), ("on".to_owned(), b"{}".to_vec()));
        assert_eq!(client.next_package(), None);
        assert_eq!((client.end(), client.close_code()), (Some(End::Fin), None));
        drop(client);
        serving.join().expect("no panic");
    }

    #[test]
    fn a_websocket_client_tells_the_close_code() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let serving = thread::spawn(move || {
            let mut socket = tungstenite::accept(accept(&listener)).expect("an upgrade");
            let reply = encode_package(HANDSHAKE, br#"{"code":200,"sys":{"dict":{"onX":3}}}"#);
            socket.send(Frame::binary(reply)).expect("the client reads");
            let two = b"\x04\x00\x00\x04\x07\x00\x031\x05\x00\x00\x0e{\"reason\":\"r\"}";
            socket
                .send(Frame::binary(two.to_vec()))
                .expect("the client reads");
            let code = tungstenite::protocol::frame::coding::CloseCode::Normal;
            let frame = tungstenite::protocol::CloseFrame {
                code,
                reason: "".into(),
            };
            socket.close(Some(frame)).expect("the client reads");
            while socket.read().is_ok() {}
        });
        let mut client = Client::websocket(address).open();
        assert_eq!(
            client.next_message(),
            Message::Push {
                route: "onX".into(),
                body: b"1".into()
            }
        );
        assert_eq!(client.wait_kick(), "r");
        assert_eq!(client.close_code(), Some(1000));
        serving.join().expect("no panic");
    }

    #[test]
    fn a_client_notices_a_reset_and_a_silence() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let mut client = Client::tcp(listener.local_addr().expect("a bound socket"));
        let server = accept(&listener);
        client.silent_for(Duration::from_millis(20));
        // Closing with bytes unread resets.
        client.send_raw(b"unread");
        let mut byte = [0];
        server.peek(&mut byte).expect("the byte arrives");
        drop(server);
        assert_eq!(client.next_package(), None);
        assert_eq!(client.end(), Some(End::Reset));
    }
}
