//! Records between a client of rustls and a stream of this module, over a socket in memory.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::task::Waker;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, ConnectionTrafficSecrets, SupportedProtocolVersion};

use super::vectors::{self, client_config, server_config};
use super::*;
use crate::net::memory::{MemoryStream, connection};
use crate::net::socket::{Socket, TlsSocket};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A client, and the socket of the gateway.
struct Pair {
    client: ClientConnection,
    wire: MemoryStream,
    socket: Socket,
    buffers: Rc<TlsBuffers>,
}

fn client(version: &'static SupportedProtocolVersion) -> ClientConnection {
    let mut config = client_config(&[version]);
    config.enable_secret_extraction = true;
    vectors::client(config)
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl Pair {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let [a, b] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let (wire, other) = connection(a, b);
        let buffers = TlsBuffers::new();
        Self {
            client: client(version),
            wire,
            socket: Socket::memory(other).with_tls(&buffers),
            buffers,
        }
    }

    /// A pair whose handshake is done, without bytes on the way.
    fn ready(version: &'static SupportedProtocolVersion) -> Self {
        let mut pair = Self::new(version);
        pair.shake_hands(usize::MAX);
        assert_eq!(pair.read(), None);
        pair
    }

    fn tls(&self) -> &TlsSocket {
        self.socket.tls().expect("TLS")
    }

    fn shake_hands(&mut self, part: usize) {
        self.tls().begin(server_config()).expect("a session");
        let mut is_done = false;
        while !is_done || self.client.is_handshaking() {
            let sent = self.records();
            for bytes in sent.chunks(part.min(sent.len()).max(1)) {
                self.send(bytes);
                is_done |= self.step().expect("a handshake without faults");
            }
            self.take_in(usize::MAX);
        }
    }

    /// Hands the bytes that wait to the handshake.
    fn step(&self) -> io::Result<bool> {
        match self.tls().poll_receive(&cx()) {
            Poll::Ready(received) => assert!(received? > 0, "the client has not left"),
            Poll::Pending => panic!("no bytes"),
        }
        self.tls().shake_hands()
    }

    /// The records that the client would send.
    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut records).expect("memory");
        }
        records
    }

    fn send(&self, bytes: &[u8]) {
        let sent = self.wire.write(&[IoSlice::new(bytes)]);
        assert_eq!(sent.expect("an open connection"), bytes.len());
    }

    /// The records of plain bytes.
    fn encrypt(&mut self, mut plain: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        while !plain.is_empty() {
            let taken = self.client.writer().write(plain).expect("memory");
            plain = &plain[taken..];
            records.extend(self.records());
        }
        records
    }

    /// Gives the client up to `bytes` of those that wait for it; returns the plain bytes of them.
    fn take_in(&mut self, bytes: usize) -> Vec<u8> {
        let mut waiting = vec![0; bytes.min(1 << 20)];
        let taken = match self.wire.poll_read(&cx(), &mut waiting) {
            Poll::Ready(taken) => taken.expect("a queue can be read"),
            Poll::Pending => 0,
        };
        let (mut rest, mut plain) = (&waiting[..taken], Vec::new());
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).expect("memory");
            self.client.process_new_packets().expect("right records");
            let mut part = vec![0; 1 << 20];
            while let Ok(bytes @ 1..) = self.client.reader().read(&mut part) {
                plain.extend_from_slice(&part[..bytes]);
            }
        }
        plain
    }

    /// Reads once, as a receiver does. `None`: nothing has come.
    fn read(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        match self.socket.poll_read(&cx(), &mut buffer) {
            Poll::Ready(read) => {
                buffer.truncate(read.expect("the socket has not failed"));
                Some(buffer)
            }
            Poll::Pending => None,
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(&[IoSlice::new(bytes)])
    }
}

/// Bytes that show what is lost, doubled or out of order.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| (at ^ at >> 8 ^ at >> 16) as u8)
        .collect()
}

#[test]
fn records_may_come_byte_by_byte_in_both_directions() {
    for version in VERSIONS {
        let mut pair = Pair::new(version);
        pair.shake_hands(1);
        let plain = pattern(17_000);
        let mut read = Vec::new();
        for byte in pair.encrypt(&plain) {
            pair.send(&[byte]);
            read.extend(pair.read().unwrap_or_default());
            assert!(pair.buffers.held() <= TLS_SESSION_BYTES + TLS_RECORD_BYTES_MAX);
        }
        assert!(read == plain);
        assert_eq!(pair.buffers.held(), TLS_SESSION_BYTES);
        assert_eq!(pair.write(&plain).expect("room"), plain.len());
        let mut answer = Vec::new();
        while answer.len() < plain.len() {
            answer.extend(pair.take_in(1));
        }
        assert!(answer == plain);
    }
}

#[test]
fn bodies_of_several_records_and_of_several_slices_arrive_whole() {
    for version in VERSIONS {
        let mut pair = Pair::ready(version);
        let plain = pattern(100_000);
        let records = pair.encrypt(&plain);
        pair.send(&records);
        let mut read = Vec::new();
        while let Some(bytes) = pair.read() {
            assert!(!bytes.is_empty());
            read.extend(bytes);
        }
        assert!(read == plain);
        // 16 KiB of each of 7 records.
        assert_eq!(pair.socket.take_records(), 7);
        let slices = [&plain[..3], &[], &plain[3..40_000], &plain[40_000..]];
        let written = pair.socket.write(&slices.map(IoSlice::new));
        assert_eq!(written.expect("room"), plain.len());
        assert!(pair.take_in(usize::MAX) == plain);
    }
}

#[test]
fn a_socket_that_is_full_in_the_middle_of_a_record_loses_and_doubles_nothing() {
    for version in VERSIONS {
        let mut pair = Pair::ready(version);
        let plain = pattern(2 << 20);
        let (mut at, mut answer, mut seed) = (0, Vec::new(), 1_usize);
        let mut promises = 0;
        while answer.len() < plain.len() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let cut = (at + (seed >> 33) % 50_000).min(plain.len());
            let end = (cut + 100_000).min(plain.len());
            let slices = [&plain[at..cut], &plain[cut..end]].map(IoSlice::new);
            let written = match seed >> 62 {
                // The task that writes when the socket takes more offers one slice.
                0 if cut > at => match pair.socket.poll_write(&cx(), &plain[at..cut]) {
                    Poll::Ready(written) => written.expect("an open connection"),
                    Poll::Pending => 0,
                },
                _ => pair.socket.write(&slices).expect("an open connection"),
            };
            at += written;
            promises += usize::from(pair.tls().state.borrow().unreported > 0);
            assert!(pair.tls().held() <= TLS_SESSION_BYTES + RECORD_ROOM);
            answer.extend(pair.take_in(1 + (seed >> 40) % 30_000));
        }
        assert!(answer == plain);
        assert_eq!(at, plain.len());
        assert!(promises > 20, "{promises}");
        assert_eq!(pair.buffers.held(), TLS_SESSION_BYTES);
    }
}

#[test]
fn a_part_of_a_record_that_the_kernel_takes_is_progress() {
    let mut pair = Pair::ready(&TLS13);
    while pair.write(&pattern(READ_BUFFER_BYTES)).expect("it is open") > 0 {}
    pair.tls().take_progress();
    assert_eq!(pair.write(b"x").expect("it is open"), 0);
    assert!(!pair.tls().take_progress(), "the socket is full");
    // By a write, and by a task that waits for room.
    pair.take_in(100);
    assert_eq!(pair.write(b"x").expect("it is open"), 0);
    assert!(pair.tls().take_progress());
    pair.take_in(100);
    assert!(pair.tls().poll_send(&cx()).is_pending());
    assert!(pair.tls().take_progress());
    assert!(!pair.tls().take_progress());
}

#[test]
fn a_half_handshake_counts_the_bytes_that_the_session_keeps() {
    for version in VERSIONS {
        let mut pair = Pair::new(version);
        pair.tls().begin(server_config()).expect("a session");
        let hello = pair.records();
        pair.send(&hello);
        assert!(!pair.step().expect("a handshake without faults"));
        let kept = pair.tls().held() - TLS_SESSION_BYTES;
        let bounds = hello.len()..hello.len() + 2 * RECORD_ROOM;
        assert!(bounds.contains(&kept), "{kept}");
        pair.take_in(usize::MAX);
        let records = pair.records();
        pair.send(&records);
        assert!(pair.step().expect("a handshake without faults"));
        assert_eq!(pair.tls().held(), TLS_SESSION_BYTES);
    }
}

#[test]
fn each_side_may_end_its_direction_before_the_other() {
    for version in VERSIONS {
        let mut pair = Pair::ready(version);
        let mut records = pair.encrypt(b"the last");
        pair.client.send_close_notify();
        records.extend(pair.records());
        pair.send(&records);
        assert_eq!(pair.read(), Some(b"the last".into()));
        assert_eq!(pair.read(), Some(vec![]));
        assert_eq!(pair.write(b"an answer").expect("room"), 9);
        assert_eq!(pair.take_in(usize::MAX), b"an answer");
        pair.socket.shutdown_write();
        pair.take_in(usize::MAX);
        let state = pair.client.process_new_packets().expect("right records");
        assert!(state.peer_has_closed() && pair.wire.has_ended());
        assert!(!pair.tls().has_failed());
    }
    let mut pair = Pair::ready(&TLS13);
    pair.wire.shutdown_write();
    assert_eq!(pair.read(), Some(vec![]), "an end without a word");
    assert_eq!(pair.take_in(usize::MAX), b"");
}

/// They could be half of a record, or bytes that nobody has decrypted.
#[test]
fn bytes_that_wait_at_the_end_of_a_socket_reach_no_receiver() {
    for version in VERSIONS {
        let mut pair = Pair::ready(version);
        let records = pair.encrypt(b"a call");
        pair.send(&records[..10]);
        assert_eq!(pair.read(), None);
        pair.send(&records[10..15]);
        pair.socket.shutdown();
        assert_eq!(pair.read(), Some(vec![]));
        assert_eq!(pair.buffers.held(), TLS_SESSION_BYTES);
    }
}

#[test]
fn the_client_may_end_its_direction_with_its_last_message_of_the_handshake() {
    let mut pair = Pair::new(&TLS13);
    pair.tls().begin(server_config()).expect("a session");
    let mut is_done = false;
    while !is_done {
        if !pair.client.is_handshaking() {
            pair.client.send_close_notify();
        }
        let records = pair.records();
        pair.send(&records);
        is_done = pair.step().expect("a handshake without faults");
        pair.take_in(usize::MAX);
    }
    assert_eq!(pair.read(), Some(vec![]));
    pair.send(b"bytes behind it");
    assert_eq!(pair.read(), Some(vec![]));
    assert!(!pair.tls().has_failed());
    assert_eq!(pair.buffers.held(), TLS_SESSION_BYTES);
}

#[test]
fn bytes_behind_close_notify_are_ignored() {
    for version in VERSIONS {
        for behind in [pattern(TLS_RECORD_BYTES_MAX + 1), vec![]] {
            let mut pair = Pair::ready(version);
            let mut records = pair.encrypt(b"the last word");
            pair.client.send_close_notify();
            records.extend(pair.records());
            // Records of the session, which some libraries send, or bytes of nobody.
            records.extend(match behind.is_empty() {
                true => pair.encrypt(&pattern(40_000)),
                false => behind,
            });
            pair.send(&records);
            assert_eq!(pair.read(), Some(b"the last word".into()));
            assert_eq!(pair.read(), Some(vec![]));
            assert!(!pair.tls().has_failed());
            assert_eq!(pair.buffers.held(), TLS_SESSION_BYTES);
            assert_eq!(pair.write(b"an answer").expect("room"), 9);
            assert_eq!(pair.take_in(usize::MAX), b"an answer");
        }
    }
}

#[test]
fn a_fault_after_the_end_of_this_side_is_nothing() {
    for version in VERSIONS {
        let mut pair = Pair::ready(version);
        pair.socket.shutdown_write();
        let mut records = pair.encrypt(b"too late");
        *records.last_mut().expect("a record") ^= 1;
        pair.send(&records);
        assert_eq!(pair.read(), Some(records), "for a receiver that drops it");
        assert!(pair.write(b"x").is_err());
        pair.socket.shutdown_write();
        pair.take_in(usize::MAX);
        let state = pair.client.process_new_packets().expect("right records");
        assert!(state.peer_has_closed() && !pair.tls().has_failed());
    }
}

#[test]
fn after_a_record_that_was_changed_on_the_way_no_byte_counts() {
    for version in VERSIONS {
        let mut pair = Pair::ready(version);
        let mut records = pair.encrypt(b"right");
        let mut changed = pair.encrypt(b"wrong");
        *changed.last_mut().expect("a record") ^= 1;
        records.extend(changed);
        records.extend(b"plain bytes of somebody in between");
        pair.send(&records);
        assert_eq!(pair.read(), Some(b"right".into()));
        assert!(pair.tls().has_failed());
        pair.send(b"more of them");
        for _ in 0..3 {
            assert_eq!(pair.read(), Some(vec![]));
        }
        assert!(pair.write(b"an answer to the right ones").is_err());
        pair.socket.shutdown_write();
        assert_eq!(pair.buffers.held(), TLS_SESSION_BYTES);
    }
}

#[test]
fn new_keys_of_the_client_change_no_byte() {
    let mut pair = Pair::ready(&TLS13);
    let mut read = Vec::new();
    for _ in 0..100 {
        let mut records = pair.encrypt(b"old keys,");
        pair.client.refresh_traffic_keys().expect("a handshake");
        records.extend(pair.records());
        records.extend(pair.encrypt(b"new ones,"));
        pair.send(&records);
        read.extend(pair.read().expect("bytes"));
        // The answer begins with new keys of this side.
        assert_eq!(pair.write(b"answer").expect("room"), 6);
        assert_eq!(pair.take_in(usize::MAX), b"answer");
    }
    assert_eq!(read, b"old keys,new ones,".repeat(100));
}

// ---- Clients that rustls does not play ----

/// Seals records as a client that has done its handshake.
struct Sealer {
    key: LessSafeKey,
    iv: [u8; 12],
    next: u64,
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
/// A request for new keys: its kind, its length, and no new keys of the other side.
const NEW_KEYS: [u8; 5] = [24, 0, 0, 1, 0];

impl Pair {
    /// Replaces the client by one that may send anything under its keys.
    fn sealer(&mut self) -> Sealer {
        let client = std::mem::replace(&mut self.client, client(&TLS13));
        let secrets = client.dangerous_extract_secrets().expect("a handshake");
        let (next, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
            panic!("the first cipher suite of rustls is another one");
        };
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("its length");
        Sealer {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().expect("its length"),
            next,
        }
    }
}

impl Sealer {
    fn record(&mut self, kind: u8, plain: &[u8], padding: usize) -> Vec<u8> {
        let mut sealed = [plain, &[kind], &vec![0; padding]].concat();
        let [high, low] = ((sealed.len() + 16) as u16).to_be_bytes();
        let head = [DATA, 3, 3, high, low];
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

#[test]
fn a_message_of_tls_may_be_incomplete_while_data_is_written() {
    let mut pair = Pair::ready(&TLS13);
    let mut sealer = pair.sealer();
    let first = sealer.record(HANDSHAKE, &NEW_KEYS[..2], 0);
    let second = sealer.record(HANDSHAKE, &NEW_KEYS[2..], 3);
    for byte in [first, second].concat() {
        pair.send(&[byte]);
        assert_eq!(pair.read(), None);
        assert_eq!(pair.write(b"x").expect("room"), 1);
    }
    assert!(!pair.tls().has_failed());
    // The keys are new: a record under the old ones is wrong.
    pair.send(&sealer.record(DATA, b"old", 0));
    assert_eq!(pair.read(), Some(vec![]));
    assert!(pair.tls().has_failed());
}

#[test]
fn an_answer_after_a_fault_in_the_same_read_ends_nothing_but_the_connection() {
    let two_messages = [&[1, 0, 0, 1, 9][..], &[1, 0, 0, 1, 9], &[1, 0]].concat();
    for fault in [
        (HANDSHAKE, &two_messages[..]),
        (HANDSHAKE, &[0xff; 300]),
        (ALERT, &[2, 40]),
        (ALERT, &[9; 9]),
        (99, b"no such kind"),
    ] {
        for is_written_first in [true, false] {
            let mut pair = Pair::ready(&TLS13);
            let mut sealer = pair.sealer();
            let begun = sealer.record(DATA, b"a request", 0);
            let faulty = sealer.record(fault.0, fault.1, 0);
            pair.send(&[begun, faulty].concat());
            assert_eq!(pair.read(), Some(b"a request".into()));
            if is_written_first {
                let _ = pair.write(b"an answer");
                let _ = pair.socket.poll_write(&cx(), b"an answer");
            }
            assert_eq!(pair.read(), Some(vec![]));
            let _ = pair.write(b"an answer");
            pair.socket.shutdown_write();
            drop(pair.socket);
            assert_eq!(pair.buffers.held(), 0);
        }
    }
}

#[test]
fn a_message_of_tls_is_no_longer_than_a_record() {
    let mut pair = Pair::ready(&TLS13);
    let mut sealer = pair.sealer();
    let head = [11, 0, 0xf0, 0];
    pair.send(&sealer.record(HANDSHAKE, &[&head[..], &[0; 15_000]].concat(), 0));
    assert_eq!(pair.read(), None);
    assert_eq!(pair.write(b"x").expect("room"), 1);
    let data = sealer.record(HANDSHAKE, &[0; 15_000], 0);
    pair.send(&data);
    assert_eq!(pair.read(), Some(vec![]));
    assert!(pair.tls().has_failed());
    assert!(pair.write(b"x").is_err());
    pair.socket.shutdown_write();
    assert_eq!(pair.buffers.held(), TLS_SESSION_BYTES);
}

#[test]
fn records_without_data_have_a_bound_between_those_with_data() {
    let mut pair = Pair::ready(&TLS13);
    let mut sealer = pair.sealer();
    let empty = sealer.record(DATA, b"", 1000);
    let most = TLS_BYTES_WITHOUT_DATA_MAX / empty.len();
    pair.send(&empty);
    pair.socket.take_records();
    for round in 0..10 {
        for _ in 1..most {
            pair.send(&sealer.record(DATA, b"", 1000));
        }
        assert_eq!(pair.read(), None);
        pair.send(&sealer.record(DATA, b"x", 1000));
        assert_eq!(pair.read(), Some(b"x".into()));
        // Each counts for the rate of the client, which only records with data would not keep.
        assert_eq!(pair.socket.take_records(), most + usize::from(round == 0));
    }
    for _ in 0..=most {
        assert!(!pair.tls().has_failed());
        pair.send(&sealer.record(DATA, b"", 1000));
        pair.read();
    }
    assert!(pair.tls().has_failed());
    pair.send(&sealer.record(DATA, b"x", 0));
    assert_eq!(pair.read(), Some(vec![]));
}

#[test]
fn a_hello_has_the_bound_of_a_record_however_it_is_split() {
    for part in [1, 100, 16 << 10] {
        let pair = Pair::new(&TLS13);
        pair.tls().begin(server_config()).expect("a session");
        let mut message = vec![1, 0, 0xea, 0x60];
        message.extend([0; 60_000]);
        let mut sent = 0;
        let error = message.chunks(part).find_map(|bytes| {
            let [high, low] = (bytes.len() as u16).to_be_bytes();
            pair.send(&[&[HANDSHAKE, 3, 1, high, low], bytes].concat());
            sent += bytes.len();
            let mut step = pair.step();
            // One that was sent whole is read in parts.
            while step.is_ok()
                && let Poll::Ready(received) = pair.tls().poll_receive(&cx())
            {
                assert!(received.expect("a queue") > 0);
                step = step.and_then(|_| pair.tls().shake_hands());
            }
            assert!(pair.buffers.held() <= TLS_SESSION_BYTES + TLS_RECORD_BYTES_MAX + 1);
            step.err()
        });
        let error = error.expect("it is refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(sent <= 2 * TLS_RECORD_BYTES_MAX, "{sent} in {part}");
        assert!(pair.tls().has_failed());
        assert_eq!(pair.buffers.held(), TLS_SESSION_BYTES);
    }
}

#[test]
fn after_a_handshake_that_failed_what_comes_is_read_and_the_alert_is_sent() {
    let mut pair = Pair::new(&TLS13);
    pair.tls().begin(server_config()).expect("a session");
    pair.send(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff");
    let error = pair.step().expect_err("no hello");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let alert = pair.wire.take();
    assert_eq!((alert[0], alert.len()), (ALERT, 7), "{alert:?}");
    pair.send(b"for nobody");
    assert_eq!(pair.read(), Some(b"for nobody".into()));
    assert_eq!(pair.read(), None);
    assert!(pair.write(b"x").is_err());
    pair.socket.shutdown_write();
    assert!(pair.wire.has_ended());
    pair.wire.shutdown();
    assert_eq!(pair.read(), Some(vec![]));
    pair.client = client(&TLS12);
}

#[test]
fn a_client_may_leave_at_each_byte_of_its_handshake() {
    for version in VERSIONS {
        let mut whole = Pair::new(version);
        whole.tls().begin(server_config()).expect("a session");
        let hello = whole.records();
        for kept in 0..hello.len() {
            let pair = Pair::new(version);
            pair.tls().begin(server_config()).expect("a session");
            pair.send(&hello[..kept]);
            if kept > 0 {
                assert!(!pair.step().expect("no fault yet"));
            }
            pair.wire.shutdown_write();
            assert!(matches!(pair.tls().poll_receive(&cx()), Poll::Ready(Ok(0))));
            pair.socket.shutdown_write();
            assert_eq!(pair.read().map(|bytes| bytes.len()), Some(kept));
            let buffers = pair.buffers.clone();
            drop(pair);
            assert_eq!(buffers.held(), 0);
        }
    }
}

#[test]
fn bytes_before_tls_are_shown_and_those_of_a_client_without_it_pass_unchanged() {
    let pair = Pair::new(&TLS13);
    pair.send(b"PROXY\r\nplain");
    assert!(matches!(
        pair.tls().poll_receive(&cx()),
        Poll::Ready(Ok(12))
    ));
    assert_eq!(
        pair.tls().take_kept(|bytes| (7, bytes.to_vec())),
        b"PROXY\r\nplain"
    );
    assert_eq!(pair.read(), Some(b"plain".into()));
    pair.send(b"and more");
    assert_eq!(pair.read(), Some(b"and more".into()));
    assert_eq!(pair.write(b"an answer").expect("room"), 9);
    assert_eq!(pair.wire.take(), b"an answer");
    assert_eq!(pair.buffers.held(), 0);
}
