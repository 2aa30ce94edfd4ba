//! Clients that misuse TLS, and a storm of handshakes: each ends as it should, and a hundred clients beside them notice
//! nothing.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ALL_VERSIONS, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    StreamOwned,
};
use tangelo::Config;
use tangelo::config::{CertificateFiles, ClientListener, TlsMode};
use tangelo::handler::{Answer, Outcome, Router};
use tangelo::tls_vectors::{self, client_config};

use crate::harness::bystander::ECHO;
use crate::harness::canaries::{Canaries, p99};
use crate::harness::client::{Client, HANG_GUARD, encode_message, encode_package};
use crate::harness::gateway::Gateway;
use crate::harness::inside::Inside;
use crate::harness::secure::Trust;

fn vector(file: &str) -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/tls"));
    folder.join(file)
}

/// A gateway with a hundred canaries: half of them over TLS.
struct Beside {
    gateway: Gateway,
    tls: SocketAddr,
    /// Those without TLS, and those with it.
    canaries: [Canaries; 2],
}

impl Beside {
    fn start(shards: &str, more: &[&str]) -> Self {
        let certificates = format!(
            "tls.certificates=[{{chain='{}', key='{}'}}]",
            vector("server.pem").display(),
            vector("server.key").display()
        );
        let listeners =
            "listener=[{address='127.0.0.1:0'}, {address='127.0.0.1:0', tls='required'}]";
        let args = [
            "--shards",
            shards,
            "--set",
            listeners,
            "--set",
            &certificates,
        ];
        let mut gateway = Gateway::start_with_listeners(&[&args[..], more].concat());
        let tls = gateway.listeners()[1].parse().expect("ADDR:PORT");
        let (plain, trust) = (gateway.address(), Trust::authority(authority()));
        let canaries = [
            Canaries::connected(50, ECHO, |n| match n % 2 {
                0 => Client::tcp(plain),
                _ => Client::websocket(plain),
            }),
            Canaries::connected(50, ECHO, |n| match n % 2 {
                0 => Client::tls(tls, &trust),
                _ => Client::wss(tls, &trust),
            }),
        ];
        Self {
            gateway,
            tls,
            canaries,
        }
    }

    /// Plays an attack. Afterwards connections have ended for these reasons, and none is left.
    fn attack(&mut self, name: &str, reasons: &[(&str, u64)], attack: impl FnOnce(SocketAddr)) {
        println!("attack: {name}");
        let before = self.gateway.counters();
        attack(self.tls);
        let deadline = Instant::now() + HANG_GUARD;
        let expected = reasons.iter().filter(|(_, count)| *count > 0);
        let expected: BTreeMap<&str, u64> = expected.copied().collect();
        loop {
            let now = self.gateway.counters();
            let more = |name: &String| now[name] - before.get(name).copied().unwrap_or_default();
            let closed = now.keys().filter(|name| name.starts_with("closed_"));
            let closed = closed.map(|name| (name.as_str(), more(name)));
            let mut closed: BTreeMap<&str, u64> = closed.filter(|(_, more)| *more > 0).collect();
            // A client that leaves before it has read the tickets resets the connection.
            if let Some(reset) = closed.remove("closed_socket") {
                *closed.entry("closed_left").or_default() += reset;
            }
            // The canaries are left.
            if closed == expected && now["connections"] == 100 {
                break;
            }
            assert!(Instant::now() < deadline, "{name}: {closed:?} in {now:?}");
            thread::sleep(Duration::from_millis(20));
        }
        self.assert_unharmed();
    }

    /// The canaries get answers from now on.
    fn assert_unharmed(&self) {
        let deadline = Instant::now() + HANG_GUARD;
        for canaries in &self.canaries {
            canaries.take_times();
            while canaries.take_times().is_empty() {
                assert!(Instant::now() < deadline, "the canaries get no answer");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn finish(self) {
        self.canaries.into_iter().for_each(Canaries::finish);
        let (code, printed) = self.gateway.stop();
        assert_eq!(code, Some(0), "{printed}");
        assert!(!printed.contains("panicked"), "{printed}");
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(HANG_GUARD)).expect("not zero");
    stream.set_nodelay(true).expect("an open socket");
    stream
}

fn authority() -> CertificateDer<'static> {
    CertificateDer::from_pem_file(vector("ca.pem")).expect("a certificate")
}

fn settings(resumes: bool) -> Arc<ClientConfig> {
    let mut config = client_config(ALL_VERSIONS);
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Arc::new(config)
}

/// Settings of a client that believes each certificate: its handshake costs it less than the gateway's half of it.
fn careless_settings(resumes: bool) -> Arc<ClientConfig> {
    let mut config = Arc::unwrap_or_clone(settings(resumes));
    let provider = config.crypto_provider().clone();
    let mut dangerous = config.dangerous();
    dangerous.set_certificate_verifier(Arc::new(Careless(provider)));
    Arc::new(config)
}

#[derive(Debug)]
struct Careless(Arc<CryptoProvider>);

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn session(settings: &Arc<ClientConfig>) -> ClientConnection {
    tls_vectors::client(settings.clone())
}

/// The first flight of a client.
fn hello() -> Vec<u8> {
    let mut records = Vec::new();
    let sent = session(&settings(false)).write_tls(&mut records);
    sent.expect("memory");
    records
}

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A client whose handshake of TLS is done.
fn secure(address: SocketAddr, settings: &Arc<ClientConfig>) -> Secure {
    let mut stream = StreamOwned::new(session(settings), connect(address));
    while stream.conn.is_handshaking() {
        stream
            .conn
            .complete_io(&mut stream.sock)
            .expect("a handshake");
    }
    stream
}

/// Sends plain bytes in records of one byte each.
fn send_in_bytes(stream: &mut Secure, plain: &[u8]) {
    for byte in plain {
        stream.conn.writer().write_all(&[*byte]).expect("memory");
    }
    stream.flush().expect("an open connection");
}

/// Reads until the other side has closed.
fn read_to_end(stream: &mut TcpStream) -> usize {
    let mut all = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut all);
    all.len()
}

fn greeting() -> Vec<u8> {
    let hello = br#"{"sys":{"type":"e2e","version":"1.0.0"}}"#;
    [encode_package(1, hello), encode_package(2, b"")].concat()
}

/// A session sends messages whose handlers take longer than a turn may, as long as it can.
#[test]
fn handshakes_end_beside_messages_that_fill_each_turn() {
    const SPIN: &str = "connector.testHandler.spin";
    let handlers = || {
        Router::new().raw_route(SPIN, |_| {
            let end = Instant::now() + Duration::from_micros(300);
            while Instant::now() < end {}
            Answer::now(Outcome::json(&b"1"[..]))
        })
    };
    let mut config = Config {
        listeners: vec![ClientListener {
            tls: TlsMode::Optional,
            ..ClientListener::default()
        }],
        ..Config::exact()
    };
    config.tls.certificates = vec![CertificateFiles {
        chain: vector("server.pem"),
        key: vector("server.key"),
    }];
    let inside = Inside::start(1, config, handlers);
    let mut busy = connect(inside.address());
    busy.write_all(&greeting()).expect("an open connection");
    let message = encode_message(Some(1), SPIN.into(), b"{}");
    let requests = encode_package(4, &message).repeat(64);
    let mut answers = busy.try_clone().expect("a socket");
    thread::scope(|scope| {
        let end = EndOfFlood(&busy);
        scope.spawn(|| while (&busy).write_all(&requests).is_ok() {});
        scope.spawn(move || read_to_end(&mut answers));
        while inside.counter("requests") < 1000 {
            thread::sleep(Duration::from_millis(20));
        }
        for _ in 0..20 {
            drop(secure(inside.address(), &settings(false)));
        }
        drop(end);
    });
    inside.stop();
}

/// Ends a flood, also where a test fails.
struct EndOfFlood<'a>(&'a TcpStream);

impl Drop for EndOfFlood<'_> {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

fn misuse(count: u64) {
    let mut beside = Beside::start("2", &["--set", "tls.handshake_timeout=2s"]);
    let hello = hello();
    beside.attack("half handshakes", &[("closed_tls_timeout", count)], |at| {
        let part = |n: u64| &hello[..1 + n as usize % (hello.len() - 1)];
        let mut streams: Vec<TcpStream> = (0..count).map(|_| connect(at)).collect();
        for (n, stream) in streams.iter_mut().enumerate() {
            stream
                .write_all(part(n as u64))
                .expect("an open connection");
        }
        for stream in &mut streams {
            assert_eq!(read_to_end(stream), 0);
        }
    });
    beside.attack("huge ClientHellos", &[("closed_tls", count)], |at| {
        let mut huge = Vec::new();
        for n in 0..4 {
            huge.extend([22, 3, 1, 0x3f, 0xff]);
            huge.extend(if n == 0 {
                &[1, 0, 0xea, 0x60][..]
            } else {
                &[0; 4]
            });
            huge.extend([0; 0x3ffb]);
        }
        let mut streams: Vec<TcpStream> = (0..count).map(|_| connect(at)).collect();
        for stream in &mut streams {
            let _ = stream.write_all(&huge);
        }
        for stream in &mut streams {
            read_to_end(stream);
        }
    });
    beside.attack("plain bytes", &[("closed_plain_on_tls", count)], |at| {
        for n in 0..count {
            let mut stream = connect(at);
            let bytes = [
                &b"GET / HTTP/1.1\r\n\r\n"[..],
                &greeting(),
                b"\x15\x03\x01\0\x02\x02\x28",
            ];
            stream
                .write_all(bytes[n as usize % 3])
                .expect("an open connection");
            assert_eq!(read_to_end(&mut stream), 0);
        }
    });
    beside.attack("records of one byte", &[("closed_left", count)], |at| {
        let settings = settings(true);
        let message = encode_message(Some(1), ECHO.into(), b"[12345]");
        let request = encode_package(4, &message);
        for _ in 0..count {
            let mut stream = secure(at, &settings);
            send_in_bytes(&mut stream, &[greeting(), request.clone()].concat());
            let mut received = Vec::new();
            while !received.ends_with(b"[12345]") {
                let mut part = [0; 4096];
                let bytes = stream.read(&mut part).expect("an answer");
                assert!(bytes > 0, "closed");
                received.extend_from_slice(&part[..bytes]);
            }
        }
    });
    // Only the last ones of five get to the protocol of the client.
    let silent = count / 5 * 4;
    let reasons = [("closed_probe", silent), ("closed_left", count - silent)];
    beside.attack("closes at each step", &reasons, |at| {
        let settings = settings(false);
        for n in 0..count {
            match n % 5 {
                0 => drop(connect(at)),
                1 => {
                    let mut stream = connect(at);
                    let bytes = &hello[..1 + n as usize % (hello.len() - 1)];
                    stream.write_all(bytes).expect("an open connection");
                }
                2 => {
                    let mut stream = connect(at);
                    stream.write_all(&hello).expect("an open connection");
                    stream.shutdown(Shutdown::Write).expect("open");
                    // The answer of the gateway, or nothing where it saw the end first.
                    read_to_end(&mut stream);
                }
                3 => drop(secure(at, &settings)),
                _ => {
                    let mut stream = secure(at, &settings);
                    send_in_bytes(&mut stream, &greeting()[..20]);
                }
            }
        }
    });
    beside.finish();
}

#[test]
fn misuse_of_tls_harms_nobody_else() {
    misuse(100);
}

#[test]
#[ignore = "a thousand of each"]
fn a_thousand_of_each_misuse_of_tls_harm_nobody_else() {
    misuse(1_000);
}

/// Asks for a renegotiation, which TLS 1.2 has, and returns what the program printed.
fn renegotiate(at: SocketAddr) -> String {
    let line = format!("exec timeout 60 openssl s_client -tls1_2 -connect {at} 2>&1");
    let mut child = Command::new("sh")
        .args(["-c", &line])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh is there");
    let mut input = child.stdin.take();
    let mut output = child.stdout.take().expect("a pipe");
    let (mut printed, mut part, mut has_asked) = (String::new(), [0; 4096], false);
    while let Ok(bytes @ 1..) = output.read(&mut part) {
        printed += &String::from_utf8_lossy(&part[..bytes]);
        // It reads commands when it has told of the handshake.
        if !has_asked && printed.contains("Verify return code") {
            has_asked = true;
            let _ = input.as_mut().expect("a pipe").write_all(b"R\n");
        }
        if printed.contains("no renegotiation") {
            // It leaves.
            input = None;
        }
    }
    child.wait().expect("our own child");
    printed
}

fn renegotiations(count: u64) {
    let mut beside = Beside::start("2", &[]);
    let before = beside.gateway.counters();
    let at = beside.tls;
    for _ in 0..count / 20 {
        let all: Vec<_> = (0..20)
            .map(|_| thread::spawn(move || renegotiate(at)))
            .collect();
        for one in all {
            let printed = one.join().expect("it ran");
            assert!(printed.contains("RENEGOTIATING"), "{printed}");
            assert!(printed.contains("no renegotiation"), "{printed}");
        }
    }
    let after = beside.gateway.counters();
    assert_eq!(after["tls_handshakes"] - before["tls_handshakes"], count);
    beside.finish();
}

#[test]
fn renegotiation_is_refused() {
    renegotiations(20);
}

#[test]
#[ignore = "a thousand processes"]
fn a_thousand_renegotiations_are_refused() {
    renegotiations(1_000);
}

/// Clients of some threads that shake hands and leave, every second one with a ticket, until `is_over`.
fn storm(
    at: SocketAddr,
    threads: usize,
    settings: fn(bool) -> Arc<ClientConfig>,
    is_over: impl Fn(u64) -> bool + Sync,
) -> u64 {
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let run = || {
        let [fresh, resuming] = [false, true].map(settings);
        // The first one gets the tickets.
        for n in 0_u64.. {
            let settings = if n % 2 == 0 { &resuming } else { &fresh };
            let mut stream = secure(at, settings);
            stream.conn.writer().write_all(&greeting()).expect("memory");
            stream.flush().expect("an open connection");
            // The tickets come before the answer.
            let read = stream.read(&mut [0; 4096]).expect("an answer");
            assert!(read > 0);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if stop.load(Ordering::Relaxed) || is_over(done) {
                stop.store(true, Ordering::Relaxed);
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(run);
        }
    });
    done.into_inner()
}

#[test]
fn a_storm_of_handshakes_cuts_nobody() {
    let mut beside = Beside::start("1", &[]);
    let before = beside.gateway.counters();
    let done = storm(beside.tls, 2, settings, |done| done >= 300);
    beside.assert_unharmed();
    let after = beside.gateway.counters();
    let more = |name: &str| after[name] - before.get(name).copied().unwrap_or_default();
    assert_eq!(more("tls_handshakes"), done);
    let resumed = more("tls_resumed");
    assert!(
        (done / 2 - 10..=done / 2 + 1).contains(&resumed),
        "{resumed} of {done}"
    );
    beside.finish();
}

/// Clients of some threads that send a ClientHello of an earlier time and leave with the answer, until `is_over`: it costs
/// them nearly nothing, and the gateway a signature.
fn replays(at: SocketAddr, threads: usize, is_over: impl Fn() -> bool + Sync) -> u64 {
    let (hello, done) = (hello(), AtomicU64::new(0));
    let run = || {
        while !is_over() {
            let mut stream = connect(at);
            stream.write_all(&hello).expect("an open connection");
            assert!(stream.read(&mut [0; 4096]).expect("an answer") > 0);
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(run);
        }
    });
    done.into_inner()
}

/// Prints the figures of docs/reliability.md.
#[test]
#[ignore = "measures for 30 s"]
fn a_storm_of_handshakes_that_fills_a_core_is_measured() {
    const TIME: Duration = Duration::from_secs(10);
    let beside = Beside::start("1", &["--set", "client.accepts_per_second=off"]);
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", beside.gateway.pid()));
        let stat = stat.expect("the process runs");
        let fields: Vec<i64> = stat
            .split(' ')
            .filter_map(|field| field.parse().ok())
            .collect();
        // utime and stime, in hundredths of a second.
        fields[11] + fields[12]
    };
    let measure = |name: &str, load: &dyn Fn(Instant) -> (u64, u64)| {
        for canaries in &beside.canaries {
            canaries.take_times();
        }
        let (begun, before) = (Instant::now(), used());
        let (handshakes, replayed) = load(begun + TIME);
        let seconds = begun.elapsed().as_secs_f64();
        let cores = (used() - before) as f64 / 100.0 / seconds;
        let a_second = |count: u64| count as f64 / seconds;
        let [plain, tls] = beside
            .canaries
            .each_ref()
            .map(|canaries| p99(canaries.take_times()));
        println!(
            "{name}: {:.0} handshakes a second, half of them resumed, and {:.0} replayed; the gateway uses {cores:.2} \
             cores; p99 of the canaries without TLS {plain:?}, with it {tls:?}",
            a_second(handshakes),
            a_second(replayed)
        );
    };
    let storm = |end: Instant| storm(beside.tls, 4, careless_settings, |_| Instant::now() > end);
    measure("nothing", &|_| {
        thread::sleep(TIME);
        (0, 0)
    });
    measure("handshakes", &|end| (storm(end), 0));
    measure("both", &|end| {
        thread::scope(|scope| {
            let replays = scope.spawn(|| replays(beside.tls, 4, || Instant::now() > end));
            (storm(end), replays.join().expect("it ran"))
        })
    });
    beside.finish();
}
