//! Calls of other servers over TLS: `rpc.tls_listen`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use super::converse;
use crate::harness::certificates::Certificates;
use crate::harness::client::connect;
use crate::harness::free_address;
use crate::harness::gateway::Gateway;
use crate::harness::rpc::Rpc;
use crate::harness::secure::Trust;

/// The answer to a call that is not JSON.
pub(super) const ANSWERED: &str = "the payload is not JSON";

/// The first packet of another server, and a call that is not JSON.
fn first_call() -> Vec<u8> {
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x";
    [&connect[..], &Rpc::frame(b"?")].concat()
}

/// Connects as another server does, and sends a call that is not JSON.
pub(super) fn call(address: SocketAddr, args: &str) -> String {
    converse(address, args, &first_call(), ANSWERED)
}

/// Shows that a caller is served.
#[track_caller]
fn assert_served(caller: &mut (impl Read + Write), sent: &[u8]) {
    caller.write_all(sent).expect("an open connection");
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(ANSWERED) {
        let mut byte = [0];
        caller.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
}

/// Starts the binary with both ports for calls; those with TLS take callers with a certificate of the same authority.
fn start(certificates: &Certificates, plain: SocketAddr, tls: SocketAddr) -> Gateway {
    let ca = certificates.path("ca.pem");
    Gateway::start(&[
        &format!("--set=rpc.listen={plain}"),
        &format!("--set=rpc.tls_listen={tls}"),
        &format!("--set=rpc.tls_ca={ca}"),
        "--set",
        &certificates.set(&["a"]),
        // Two of them may be callers that are not known yet.
        "--set=rpc.max_connections=8",
        "--set=tls.handshake_timeout=off",
    ])
}

#[test]
fn only_a_server_with_a_certificate_calls_over_tls_and_no_ticket_stands_for_it() {
    let (own, foreign) = (Certificates::local(), Certificates::new());
    own.sign("caller", "DNS:backend", 365);
    foreign.sign("caller", "DNS:backend", 365);
    let address = free_address();
    let (files, ca) = (own.set(&["a"]), own.path("ca.pem"));
    let mut gateway = Gateway::start(&[
        "--set",
        &format!("rpc.tls_listen={address}"),
        "--set",
        &format!("rpc.tls_ca={ca}"),
        "--set",
        &files,
        // Protocols of clients are none of callers.
        "--set",
        "tls.alpn=['http/1.1']",
        // The certificate alone lets a caller in.
        "--set",
        "rpc.allow=192.0.2.1",
    ]);
    let certificate = |of: &Certificates| {
        let (chain, key) = (of.path("caller.pem"), of.path("caller.key"));
        format!("-cert {chain} -key {key} -cert_chain {chain}")
    };
    let session = own.path("session");
    for version in ["-tls1_2", "-tls1_3"] {
        let shown = certificate(&own);
        let asked = "-alpn mqtt";
        let answer = call(
            address,
            &format!("{version} {shown} {asked} -sess_out {session}"),
        );
        assert!(answer.contains(ANSWERED), "{answer}");
        for refused in [String::new(), certificate(&foreign)] {
            let answer = call(address, &format!("{version} {refused}"));
            assert!(!answer.contains(ANSWERED), "{version} {refused}: {answer}");
        }
        let continued = match std::fs::exists(&session) {
            Ok(true) => call(address, &format!("{version} -sess_in {session}")),
            _ => String::new(),
        };
        assert!(!continued.contains(ANSWERED), "{version}: {continued}");
        let _ = std::fs::remove_file(&session);
    }
    gateway.wait_printed("a TLS handshake on rpc.tls_listen failed");
    gateway.wait_counter("peers_refused", 4);
}

#[test]
fn strangers_that_say_nothing_over_tls_take_no_place_of_a_server() {
    let certificates = Certificates::local();
    certificates.sign("caller", "DNS:backend", 365);
    let trust = Trust::with_certificate(&certificates, "caller");
    let (plain, tls) = (free_address(), free_address());
    let mut gateway = start(&certificates, plain, tls);
    // More than may be in their handshakes at one time: each gives its place back.
    let mut served: Vec<_> = (0..4)
        .map(|_| {
            let mut caller = trust.shake_hands(connect(tls));
            assert_served(&mut caller, &first_call());
            caller
        })
        .collect();
    let mut strangers: Vec<TcpStream> = (0..2).map(|_| connect(tls)).collect();
    for closed in 1..=4 {
        strangers.push(connect(tls));
        gateway.wait_counter("peers_too_many", closed);
    }
    // The oldest ones have given way.
    for refused in &mut strangers[..4] {
        let mut bytes = Vec::new();
        refused.read_to_end(&mut bytes).expect("it is closed");
        assert_eq!(bytes, b"", "TLS has not begun");
    }
    assert_served(&mut trust.shake_hands(connect(tls)), &first_call());
    gateway.wait_counter("peers_too_many", 5);
    for caller in &mut served {
        assert_served(caller, &Rpc::frame(b"?"));
    }
    assert!(Rpc::connect(plain).expect("the port is open").is_open());
    drop(strangers);
    gateway.wait_counter("peers_refused", 1);
    assert_served(&mut trust.shake_hands(connect(tls)), &first_call());
}

#[test]
fn a_caller_without_a_certificate_reads_the_alert_and_its_calls_are_read_and_dropped() {
    let certificates = Certificates::local();
    let (plain, tls) = (free_address(), free_address());
    let mut gateway = start(&certificates, plain, tls);
    // In TLS 1.3 its own handshake is done before the gateway has seen that it shows none.
    let mut caller = Trust::of(&certificates).shake_hands(connect(tls));
    let waiting = caller.sock.peek(&mut [0]);
    assert_eq!(waiting.expect("an alert comes"), 1);
    let mut late = 0;
    for _ in 0..10 {
        let mut writer = caller.conn.writer();
        writer.write_all(&first_call()).expect("memory");
        late += caller
            .conn
            .write_tls(&mut caller.sock)
            .expect("the gateway reads");
        thread::sleep(Duration::from_millis(10));
    }
    let error = caller.read(&mut [0]).expect_err("an alert");
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    drop(caller);
    gateway.wait_counter("peers_late_bytes", late as u64);
}
