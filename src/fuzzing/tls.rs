//! The TLS of a connection, before, within and after a genuine handshake.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, ConnectionTrafficSecrets};

use super::input::{Choices, Input};
use crate::limits::{READ_BUFFER_BYTES, TLS_RECORD_BYTES_MAX, TLS_SESSION_BYTES};
use crate::net::memory::{MemoryStream, connection};
use crate::net::socket::Socket;
use crate::net::tls::TlsBuffers;
use crate::net::tls::vectors::{self, client_config, server_config};

const STEPS_MAX: usize = 300;
/// New keys of a client between records with data; rustls ends a session after 32.
const NEW_KEYS_MAX: usize = 32;
/// A connection holds at most its session, and memory for a record and what may follow it of each direction.
const HELD_MAX: usize = TLS_SESSION_BYTES + 6 * TLS_RECORD_BYTES_MAX;

/// Whatever bytes come, nothing panics or loops, memory has its bound, what both sides get is the begin of what the other one
/// has sent, and after a fault they get nothing.
pub fn tls(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut play = Play::new(&mut input);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        play.step(&mut input);
        assert!(play.buffers.held() <= HELD_MAX, "{}", play.buffers.held());
    }
    play.end();
}

/// A client, and the socket of the gateway.
struct Play {
    client: ClientConnection,
    /// Seals records of any kind under the keys of the client, which then sends nothing else.
    sealer: Option<Sealer>,
    wire: MemoryStream,
    socket: Socket,
    buffers: Rc<TlsBuffers>,
    /// The session has begun, and its handshake is done.
    has_begun: bool,
    is_done: bool,
    /// The gateway has closed its direction, and drops what comes.
    is_closed: bool,
    /// All bytes on the way are those of the client.
    is_genuine: bool,
    /// New keys of the client since its last data.
    new_keys: usize,
    /// Records of the client that are not on the way yet.
    unsent: Vec<u8>,
    sent: Vec<u8>,
    read: Vec<u8>,
    /// Plain bytes that the gateway wants to write, and those that are written.
    offered: Vec<u8>,
    written: usize,
    received: Vec<u8>,
}

fn client(is_old: bool) -> ClientConnection {
    let mut config = client_config(&[if is_old { &TLS12 } else { &TLS13 }]);
    config.enable_secret_extraction = true;
    vectors::client(config)
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl Play {
    fn new(input: &mut Input<'_>) -> Self {
        let [a, b] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let (wire, other) = connection(a, b);
        let buffers = TlsBuffers::new();
        let mut play = Self {
            client: client(input.one_in(4)),
            sealer: None,
            wire,
            socket: Socket::memory(other).with_tls(&buffers),
            buffers,
            has_begun: false,
            is_done: false,
            is_closed: false,
            is_genuine: true,
            new_keys: 0,
            unsent: Vec::new(),
            sent: Vec::new(),
            read: Vec::new(),
            offered: Vec::new(),
            written: 0,
            received: Vec::new(),
        };
        if input.one_in(2) {
            while !play.is_done {
                play.send(usize::MAX);
                play.shake_hands();
                play.receive(usize::MAX);
            }
        }
        play
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(10) {
            0 => self.send(1 + input.below(2_000)),
            1 => self.receive(1 + input.below(20_000)),
            2 => self.say(&vec![input.byte(); input.below(40_000)]),
            3 => self.write(input.byte(), input.below(60_000)),
            4 => self.interfere(input.bytes()),
            5 => self.change(input),
            6 => self.seal(input),
            7 => self.rarely(input),
            _ => match self.is_done {
                true => self.read(),
                false => self.shake_hands(),
            },
        }
    }

    /// Puts records of the client on the way.
    fn send(&mut self, bytes: usize) {
        while self.sealer.is_none() && self.client.wants_write() {
            self.client.write_tls(&mut self.unsent).expect("memory");
        }
        let bytes = bytes.min(self.unsent.len());
        let sent = self.wire.write(&[IoSlice::new(&self.unsent[..bytes])]);
        self.unsent.drain(..sent.unwrap_or(bytes));
    }

    /// The client sends plain bytes.
    fn say(&mut self, bytes: &[u8]) {
        if self.sealer.is_none() && !self.client.is_handshaking() && self.unsent.len() < 1 << 20 {
            let taken = self.client.writer().write(bytes).expect("memory");
            self.sent.extend_from_slice(&bytes[..taken]);
            if taken > 0 {
                self.new_keys = 0;
            }
        }
    }

    fn shake_hands(&mut self) {
        let tls = self.socket.tls().expect("TLS");
        if tls.has_failed() || self.is_closed {
            // As the gateway does: what comes is dropped.
            let _ = self.poll_read();
            return;
        }
        match tls.poll_receive(&cx()) {
            Poll::Ready(Ok(0)) | Poll::Pending => return,
            Poll::Ready(received) => drop(received.expect("a queue can be read")),
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            tls.begin(server_config()).expect("a session");
        }
        match tls.shake_hands() {
            Ok(is_done) => self.is_done = is_done,
            Err(error) => assert!(!self.is_genuine || is_closed(&error), "{error}"),
        }
    }

    fn poll_read(&self) -> Poll<io::Result<Vec<u8>>> {
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        let read = std::task::ready!(self.socket.poll_read(&cx(), &mut buffer));
        Poll::Ready(read.map(|bytes| {
            buffer.truncate(bytes);
            buffer
        }))
    }

    fn read(&mut self) {
        if self.is_closed {
            let _ = self.poll_read();
            return;
        }
        let has_failed = self.socket.tls().expect("TLS").has_failed();
        if let Poll::Ready(Ok(bytes)) = self.poll_read() {
            assert!(!has_failed || bytes.is_empty(), "bytes after a fault");
            self.read.extend(bytes);
        }
        // A sealer sends more than the client has said.
        if self.sealer.is_none() {
            assert!(self.sent.starts_with(&self.read), "other bytes");
        }
        let has_failed = self.socket.tls().expect("TLS").has_failed();
        assert!(!self.is_genuine || !has_failed, "a fault of nobody");
    }

    /// The gateway writes what it has offered before, and more.
    fn write(&mut self, byte: u8, bytes: usize) {
        if !self.is_done {
            return;
        }
        if self.offered.len() < 1 << 20 {
            self.offered.extend(vec![byte; bytes]);
        }
        let slices = self.offered[self.written..]
            .chunks(20_000)
            .map(IoSlice::new);
        let slices: Vec<IoSlice<'_>> = slices.take(3).collect();
        if let Ok(written) = self.socket.write(&slices) {
            self.written += written;
        }
        assert!(self.written <= self.offered.len());
    }

    /// The client takes bytes of the gateway.
    fn receive(&mut self, bytes: usize) {
        let mut waiting = vec![0; bytes.min(1 << 19)];
        let Poll::Ready(Ok(taken)) = self.wire.poll_read(&cx(), &mut waiting) else {
            return;
        };
        let mut rest = &waiting[..taken];
        // Without its keys, or after bytes of somebody else, it understands nothing.
        while self.sealer.is_none() && self.is_genuine && !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("memory");
            self.client.process_new_packets().expect("right records");
            let mut part = vec![0; 1 << 16];
            while let Ok(bytes @ 1..) = self.client.reader().read(&mut part) {
                self.received.extend_from_slice(&part[..bytes]);
            }
        }
        assert!(self.offered.starts_with(&self.received), "other bytes");
    }

    /// Somebody puts bytes of his own on the way.
    fn interfere(&mut self, bytes: &[u8]) {
        self.is_genuine &= bytes.is_empty();
        let _ = self.wire.write(&[IoSlice::new(bytes)]);
    }

    /// Somebody changes a byte of the client.
    fn change(&mut self, input: &mut Input<'_>) {
        if !self.unsent.is_empty() {
            let at = input.below(self.unsent.len().min(1 << 16));
            self.unsent[at] ^= 1 << input.below(8);
            self.is_genuine = false;
        }
    }

    /// The client sends a record of any kind.
    fn seal(&mut self, input: &mut Input<'_>) {
        if self.sealer.is_none() && self.is_done && !self.client.is_handshaking() {
            self.send(usize::MAX);
            let client = std::mem::replace(&mut self.client, client(false));
            self.sealer = Sealer::new(client);
            self.is_genuine = false;
        }
        let kind = *input.pick(&[20, 21, 22, 22, 23, 24]);
        let (bytes, padding) = (input.bytes(), input.below(2_000));
        if let Some(sealer) = &mut self.sealer {
            let record = sealer.record(kind, bytes, padding);
            self.unsent.extend(record);
            self.send(usize::MAX);
        }
    }

    fn rarely(&mut self, input: &mut Input<'_>) {
        let is_ready = self.sealer.is_none() && !self.client.is_handshaking();
        match input.below(6) {
            0 => self.wire.shutdown_write(),
            1 => {
                self.socket.shutdown_write();
                self.is_closed = true;
            }
            2 if is_ready => self.client.send_close_notify(),
            3 if is_ready && self.new_keys < NEW_KEYS_MAX => {
                self.new_keys += 1;
                drop(self.client.refresh_traffic_keys());
            }
            4 if self.is_done => {
                let left = &self.offered[self.written..];
                let end = left.len().min(30_000);
                if let Poll::Ready(Ok(written)) = self.socket.poll_write(&cx(), &left[..end]) {
                    self.written += written;
                }
            }
            _ => {}
        }
    }

    /// Both sides go; nothing stays.
    fn end(mut self) {
        self.send(usize::MAX);
        for _ in 0..10 {
            match self.is_done {
                true => self.read(),
                false => self.shake_hands(),
            }
        }
        self.socket.shutdown_write();
        self.wire.shutdown();
        drop(self.socket);
        assert_eq!(self.buffers.held(), 0);
    }
}

fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// The keys of a client that has done its handshake.
struct Sealer {
    key: LessSafeKey,
    iv: [u8; 12],
    next: u64,
}

impl Sealer {
    /// `None` where the keys are those of another version or cipher.
    fn new(client: ClientConnection) -> Option<Self> {
        let is_new = client.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let (next, secrets) = client.dangerous_extract_secrets().ok()?.tx;
        match secrets {
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } if is_new => Some(Self {
                key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).ok()?),
                iv: iv.as_ref().try_into().ok()?,
                next,
            }),
            _ => None,
        }
    }

    fn record(&mut self, kind: u8, plain: &[u8], padding: usize) -> Vec<u8> {
        let mut sealed = [plain, &[kind], &vec![0; padding]].concat();
        let [high, low] = ((sealed.len() + 16) as u16).to_be_bytes();
        let head = [23, 3, 3, high, low];
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.next.to_be_bytes()) {
            *byte ^= number;
        }
        self.next += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let done = self
            .key
            .seal_in_place_append_tag(nonce, Aad::from(head), &mut sealed);
        done.expect("a short record");
        [&head[..], &sealed].concat()
    }
}
