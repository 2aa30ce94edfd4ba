//! Calls of other servers over TLS: `rpc.tls_listen`.

use std::net::SocketAddr;

use super::converse;
use crate::harness::certificates::Certificates;
use crate::harness::free_address;
use crate::harness::gateway::Gateway;
use crate::harness::rpc::Rpc;

/// The answer to a call that is not JSON.
const ANSWERED: &str = "the payload is not JSON";

/// Connects as another server does, and sends a call that is not JSON.
fn call(address: SocketAddr, args: &str) -> String {
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x";
    let sent = [&connect[..], &Rpc::frame(b"?")].concat();
    converse(address, args, &sent, ANSWERED)
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
        let answer = call(address, &format!("{version} {shown} -sess_out {session}"));
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
