//! Clients that speak TLS, and those that only begin to.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use rustls::{ALL_VERSIONS, ClientConnection};
use tangelo::config::{CertificateFiles, ClientListener, TlsMode};
use tangelo::tls_vectors::{client, client_config};

use super::*;

const PROXY: &str = "10.0.0.5:4000";
const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 127.0.0.1 40000 3010\r\n";
const HELLO: &[u8] = b"\x01\0\0\x0a{\"sys\":{}}";
const ACK: &[u8] = b"\x02\0\0\0";

fn vector(file: &str) -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/tls"));
    folder.join(file)
}

fn with_tls(mode: TlsMode, change: impl FnOnce(&mut Config)) -> InMemory {
    let mut config = Config {
        listeners: vec![ClientListener {
            tls: mode,
            ..ClientListener::default()
        }],
        ..on_shards(1)
    };
    config.tls.certificates = vec![CertificateFiles {
        chain: vector("server.pem"),
        key: vector("server.key"),
    }];
    change(&mut config);
    start(config)
}

fn session() -> ClientConnection {
    client(client_config(ALL_VERSIONS))
}

/// A client over TLS.
struct Secure {
    wire: Client,
    session: ClientConnection,
    received: Vec<u8>,
}

impl Secure {
    fn over(wire: Client) -> Self {
        Self {
            wire,
            session: session(),
            received: Vec::new(),
        }
    }

    /// Shakes hands of TLS and of the protocol.
    fn open(gateway: &InMemory) -> Self {
        let mut client = Self::over(gateway.open(ClientOptions::default()));
        client.shake_hands();
        client
    }

    fn shake_hands(&mut self) {
        for _ in 0..3 {
            self.exchange();
        }
        assert!(!self.session.is_handshaking());
        self.send(HELLO);
        self.send(ACK);
        let answer = self.take();
        let has_code = answer.windows(10).any(|part| part == b"\"code\":200");
        assert!(has_code, "{}", answer.escape_ascii());
    }

    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut records).expect("memory");
        }
        records
    }

    /// Sends what the session wants to send, and takes what has come.
    fn exchange(&mut self) {
        let records = self.records();
        self.wire.offer_bytes(&records);
        let bytes = self.wire.take_bytes();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.session.read_tls(&mut rest).expect("memory");
            self.session.process_new_packets().expect("right records");
            let mut part = vec![0; 1 << 16];
            while let Ok(bytes @ 1..) = self.session.reader().read(&mut part) {
                self.received.extend_from_slice(&part[..bytes]);
            }
        }
    }

    /// Hands bytes to the session, which makes records of them.
    fn write(&mut self, plain: &[u8]) {
        let written = self.session.writer().write_all(plain);
        written.expect("memory");
    }

    fn send(&mut self, plain: &[u8]) {
        self.write(plain);
        self.exchange();
    }

    fn take(&mut self) -> Vec<u8> {
        self.exchange();
        std::mem::take(&mut self.received)
    }
}

/// A request for an echo.
fn echo(body: &str) -> Vec<u8> {
    let message = [&[0, 1, ECHO.len() as u8], ECHO.as_bytes(), body.as_bytes()].concat();
    [&[4, 0, 0, message.len() as u8], &message[..]].concat()
}

#[test]
fn a_client_without_a_whole_handshake_of_tls_has_its_time_and_no_more() {
    for mode in [TlsMode::Required, TlsMode::Optional] {
        let mut gateway = with_tls(mode, |config| {
            config.tls.handshake_timeout = Some(4 * SECOND);
        });
        let mut ready = Secure::open(&gateway);
        let mut silent = gateway.open(ClientOptions::default());
        gateway.advance(2 * SECOND);
        let hello = Secure::over(gateway.open(ClientOptions::default())).records();
        // A part of the hello, and the whole of it.
        let mut strangers: Vec<Client> = [1, 100, hello.len()]
            .iter()
            .map(|bytes| {
                let mut stranger = gateway.open(ClientOptions::default());
                stranger.send_bytes(&hello[..*bytes]);
                stranger
            })
            .collect();
        // Later bytes do not prolong it.
        for second in 1..4 {
            gateway.advance(SECOND);
            strangers[0].send_bytes(&hello[second..=second]);
        }
        gateway.advance(SECOND - 100 * MS);
        for stranger in &mut strangers {
            stranger.take_bytes();
            assert!(!stranger.is_closed());
        }
        gateway.advance(300 * MS);
        for stranger in &mut strangers {
            stranger.take_bytes();
            assert!(stranger.is_closed());
        }
        assert_eq!(gateway.counter("closed_tls_timeout"), 3);
        // The first byte has the time that it has without TLS.
        gateway.advance(3 * SECOND);
        assert!(!silent.is_closed());
        gateway.advance(SECOND);
        assert!(silent.is_closed());
        assert_eq!(gateway.counter("closed_first_byte_timeout"), 1);
        ready.send(&echo("[1]"));
        assert!(ready.take().ends_with(b"[1]"));
        assert_eq!(gateway.counter("tls_handshakes"), 1);
        drop(strangers);
        drop(ready);
        gateway.advance(5 * SECOND);
        assert_eq!(gateway.counter("memory_input_bytes"), 0);
    }
}

#[test]
fn optional_takes_both_and_required_refuses_plain_bytes() {
    let gateway = with_tls(TlsMode::Optional, |_| {});
    let mut secure = Secure::open(&gateway);
    secure.send(&echo("[1]"));
    assert!(secure.take().ends_with(b"[1]"));
    assert_eq!(gateway.connect().request(ECHO, &1), json!(1));
    let gateway = with_tls(TlsMode::Required, |_| {});
    let mut secure = Secure::open(&gateway);
    for plain in [
        HELLO,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0",
        b"\x17\x03\x03\0\x01x",
    ] {
        let mut client = gateway.open(ClientOptions::default());
        client.offer_bytes(plain);
        assert_eq!(client.take_bytes(), b"", "{}", plain.escape_ascii());
        assert!(client.is_closed());
    }
    assert_eq!(gateway.counter("closed_plain_on_tls"), 4);
    secure.send(&echo("[1]"));
    assert!(secure.take().ends_with(b"[1]"));
}

#[test]
fn the_header_of_a_proxy_comes_before_tls_however_it_is_split() {
    for part in [1, 20, HEADER.len(), 10_000] {
        let gateway = with_tls(TlsMode::Required, |config| {
            config.client.trusted_proxies = vec!["10.0.0.5".into()];
            config.client.proxy_protocol = true;
        });
        let open = || {
            gateway.open(ClientOptions {
                address: Some(PROXY.parse().expect("an address")),
                ..ClientOptions::default()
            })
        };
        let mut client = Secure::over(open());
        let bytes = [HEADER, &client.records()].concat();
        for bytes in bytes.chunks(part) {
            client.wire.send_bytes(bytes);
        }
        client.shake_hands();
        client.send(&echo("[1]"));
        assert!(client.take().ends_with(b"[1]"), "{part}");
        let mut headless = Secure::over(open());
        headless.exchange();
        assert!(headless.wire.is_closed());
        assert_eq!(gateway.counter("closed_proxy_header"), 1);
        // Nothing but the header: the first byte behind it has its own time.
        let mut silent = open();
        silent.send_bytes(HEADER);
        let mut gateway = gateway;
        gateway.advance(11 * SECOND);
        assert!(silent.is_closed());
        assert_eq!(gateway.counter("closed_first_byte_timeout"), 1);
    }
}

#[test]
fn a_client_whose_proxy_tells_a_refused_address_is_closed_before_tls() {
    let gateway = with_tls(TlsMode::Required, |config| {
        config.client.trusted_proxies = vec!["10.0.0.5".into()];
        config.client.proxy_protocol = true;
        config.client.blacklist = vec!["203\\.0\\.113\\.7".into()];
    });
    let mut client = gateway.open(ClientOptions {
        address: Some(PROXY.parse().expect("an address")),
        ..ClientOptions::default()
    });
    client.send_bytes(HEADER);
    assert!(client.is_closed());
    assert_eq!(gateway.counter("closed_blacklisted"), 1);
}

#[test]
fn each_record_counts_for_the_rate_where_it_has_only_a_part_of_a_message() {
    const REQUESTS: usize = 60;
    for part in [1, 1000] {
        let mut gateway = with_tls(TlsMode::Required, |_| {});
        let mut client = Secure::open(&gateway);
        let mut other = Secure::open(&gateway);
        let requests = echo("[12345]").repeat(REQUESTS);
        for bytes in requests.chunks(part) {
            client.write(bytes);
        }
        client.exchange();
        other.send(&echo("[1]"));
        assert!(other.take().ends_with(b"[1]"));
        assert_eq!(gateway.counter("rate_pauses") > 0, part == 1);
        gateway.advance(3 * SECOND);
        let answers = client.take();
        let answers = answers.windows(7).filter(|bytes| bytes == b"[12345]");
        assert_eq!(answers.count(), REQUESTS, "nothing is lost");
    }
}

#[test]
fn records_prolong_no_deadline() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\n";
    let [_, package @ ..] = &*echo("[1]") else {
        panic!("a package");
    };
    for (begun, rest, seconds, counter) in [
        (&head[..4], &head[4..], 10, "closed_upgrade_timeout"),
        (b"\x04", package, 30, "closed_package_timeout"),
    ] {
        let mut gateway = with_tls(TlsMode::Required, |_| {});
        let mut client = match counter {
            "closed_package_timeout" => Secure::open(&gateway),
            _ => {
                let mut client = Secure::over(gateway.open(ClientOptions::default()));
                (0..3).for_each(|_| client.exchange());
                client
            }
        };
        client.send(begun);
        for byte in &rest[..seconds] {
            assert!(!client.wire.is_closed(), "{counter}");
            client.send(&[*byte]);
            gateway.advance(SECOND);
        }
        gateway.advance(100 * MS);
        client.exchange();
        assert!(client.wire.is_closed(), "{counter}");
        assert_eq!(gateway.counter(counter), 1);
    }
}

#[test]
fn a_client_that_ends_first_gets_its_answer_and_the_end_of_the_other_side() {
    let gateway = with_tls(TlsMode::Required, |_| {});
    let mut client = Secure::open(&gateway);
    client.write(&echo("[1]"));
    client.session.send_close_notify();
    assert!(client.take().ends_with(b"[1]"));
    let state = client.session.process_new_packets();
    assert!(state.expect("right records").peer_has_closed());
    assert!(client.wire.is_closed());
    assert_eq!(gateway.counter("closed_left"), 1);
}

#[test]
fn a_message_in_a_record_of_its_own_counts_once_for_the_rate() {
    const REQUESTS: usize = 1980;
    let gateway = with_tls(TlsMode::Required, |_| {});
    let mut client = Secure::open(&gateway);
    for _ in 0..REQUESTS / 60 {
        for _ in 0..60 {
            let request = echo("[12345]");
            client.write(&request);
        }
        client.exchange();
    }
    // The burst of `client.messages_per_second` is 2000.
    assert_eq!(gateway.counter("rate_pauses"), 0);
    let answers = client.take();
    let answers = answers.windows(7).filter(|bytes| bytes == b"[12345]");
    assert_eq!(answers.count(), REQUESTS);
}

#[test]
fn a_fault_behind_a_request_in_the_same_read_is_one_of_tls() {
    let mut gateway = with_tls(TlsMode::Required, |_| {});
    let mut client = Secure::open(&gateway);
    client.write(&echo("[1]"));
    let mut records = client.records();
    client.write(&echo("[2]"));
    records.extend(client.records());
    *records.last_mut().expect("a record") ^= 1;
    client.wire.offer_bytes(&records);
    gateway.advance(SECOND);
    let closed = ["closed_tls", "closed_socket"].map(|name| gateway.counter(name));
    assert_eq!(closed, [1, 0]);
}

#[test]
fn a_client_that_leaves_before_its_first_byte_of_the_protocol_is_a_probe() {
    let mut gateway = with_tls(TlsMode::Required, |_| {});
    for bytes in 0..3 {
        let mut client = Secure::over(gateway.open(ClientOptions::default()));
        let records = client.records();
        client.wire.offer_bytes(&records[..bytes * 100]);
        drop(client);
    }
    gateway.advance(SECOND);
    assert_eq!(gateway.counter("closed_probe"), 3);
}

#[test]
fn sessions_and_records_that_are_not_whole_are_in_the_ledger_until_they_leave() {
    let mut gateway = with_tls(TlsMode::Required, |_| {});
    let mut clients: Vec<Secure> = (0..100).map(|_| Secure::open(&gateway)).collect();
    gateway.advance(SECOND);
    let held = gateway.counter("memory_input_bytes");
    assert!((300_000..400_000).contains(&held), "{held}");
    for client in &mut clients {
        client
            .session
            .writer()
            .write_all(&[4; 16_000])
            .expect("memory");
        let records = client.records();
        client.wire.send_bytes(&records[..15_000]);
    }
    gateway.advance(SECOND);
    let held = gateway.counter("memory_input_bytes");
    assert!((1_800_000..3_000_000).contains(&held), "{held}");
    drop(clients);
    gateway.advance(5 * SECOND);
    assert_eq!(gateway.counter("memory_input_bytes"), 0);
}

#[test]
fn half_handshakes_fill_no_more_than_the_memory_that_clients_may_have() {
    const LIMIT: usize = 16 << 20;
    let mut gateway = with_tls(TlsMode::Required, |config| {
        config.limits.memory = Some(LIMIT);
    });
    let mut canary = Secure::open(&gateway);
    let mut strangers = Vec::new();
    // The head of a record and most of it: the gateway waits for the rest.
    let mut bytes = b"\x16\x03\x01\x40\0\x01\0\x3f\xfc".to_vec();
    bytes.resize(16_000, 0);
    for at in 0..2_000 {
        let mut stranger = gateway.open(ClientOptions::default());
        stranger.offer_bytes(&bytes);
        strangers.push(stranger);
        if at % 10 == 0 {
            gateway.advance(10 * MS);
        }
        let held = gateway.counter("memory_input_bytes");
        assert!(held <= LIMIT as u64, "{held} after {at}");
    }
    assert!(gateway.counter("memory_refuses_new") > 0);
    assert!(gateway.counter("closed_memory") > 0);
    canary.send(&echo("[1]"));
    assert!(canary.take().ends_with(b"[1]"));
    gateway.advance(11 * SECOND);
    assert!(strangers.iter_mut().all(Client::is_closed));
    let mut late = Secure::open(&gateway);
    late.send(&echo("[1]"));
    assert!(late.take().ends_with(b"[1]"));
}

#[test]
fn a_drain_closes_those_that_shake_hands() {
    let mut gateway = with_tls(TlsMode::Required, |_| {});
    let mut ready = Secure::open(&gateway);
    let mut hello = Secure::over(gateway.open(ClientOptions::default()));
    let silent = gateway.open(ClientOptions::default());
    let records = hello.records();
    hello.wire.send_bytes(&records[..100]);
    gateway.begin_drain();
    gateway.advance(60 * SECOND);
    ready.exchange();
    assert!(ready.wire.is_closed() && hello.wire.is_closed());
    drop(silent);
    gateway.stop().expect("an orderly end");
}
