//! Sessions that are continued by a ticket, and those that are not.

use std::fs;

use super::{TAKEN, s_client, start};
use crate::harness::certificates::Certificates;
use crate::harness::gateway::Gateway;

const VERSIONS: [(&str, &str); 2] = [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")];

/// Keeps the session of a new connection in a file.
fn keep(gateway: &Gateway, version: &str, file: &str) {
    let taken = s_client(
        gateway.address(),
        &format!("{version} -servername localhost -sess_out {file}"),
    );
    assert!(
        taken.contains(TAKEN) && taken.contains("\nNew, "),
        "{taken}"
    );
}

/// Comes again with a session of a file. Returns whether it is continued.
fn continues(gateway: &Gateway, (version, name): (&str, &str), file: &str) -> bool {
    let taken = s_client(
        gateway.address(),
        &format!("{version} -servername localhost -sess_in {file}"),
    );
    assert!(taken.contains(TAKEN), "{taken}");
    let is_new = taken.contains(&format!("\nNew, {name}, "));
    assert!(
        is_new || taken.contains(&format!("\nReused, {name}, ")),
        "{taken}"
    );
    !is_new
}

#[test]
fn a_session_continues_on_its_own_gateway_and_not_on_another_one() {
    let certificates = Certificates::local();
    let mut gateway = start(&certificates, &["a"], &["--shards", "2"]);
    let other = start(&certificates, &["a"], &[]);
    for version in VERSIONS {
        let file = certificates.path("session");
        keep(&gateway, version.0, &file);
        for _ in 0..4 {
            assert!(continues(&gateway, version, &file));
        }
        assert!(!continues(&other, version, &file));
    }
    assert_eq!(gateway.wait_counter("tls_resumed", 8), 8);
    // One new session and four continued ones of each version.
    assert_eq!(gateway.wait_counter("tls_handshakes", 10), 10);
    assert_eq!(gateway.wait_counter("tls_1_2_handshakes", 5), 5);
}

#[test]
fn no_session_takes_early_data() {
    let certificates = Certificates::local();
    let gateway = start(&certificates, &["a"], &[]);
    let file = certificates.path("session");
    keep(&gateway, "-tls1_3", &file);
    certificates.write("early", "early");
    let early = certificates.path("early");
    let args = format!("-tls1_3 -servername localhost -sess_in {file} -early_data {early}");
    let taken = s_client(gateway.address(), &args);
    for part in [
        "\nReused, ",
        "Early data was not sent",
        "Max Early Data: 0",
        TAKEN,
    ] {
        assert!(taken.contains(part), "{part:?} in {taken}");
    }
    assert!(
        !certificates
            .openssl(&format!("sess_id -in {file} -text -noout"))
            .contains("Max Early Data: 1")
    );
}

/// Writes into a session that its ticket allows 1 MiB of early data.
fn allow_early_data(certificates: &Certificates) {
    /// `max_early_data [15] INTEGER`, as OpenSSL keeps it.
    const FIELD: [u8; 7] = [0xaf, 5, 2, 3, 0x10, 0, 0];
    certificates.openssl("sess_id -in session -outform DER -out der");
    let mut der = fs::read(certificates.path("der")).expect("openssl has made it");
    // A sequence with two bytes for its length. The tags of its fields grow, after those without a number.
    assert_eq!(der[..2], [0x30, 0x82]);
    let mut at = 4;
    while der.get(at).is_some_and(|tag| *tag < FIELD[0]) {
        at += match der[at + 1] {
            0x81 => 3 + usize::from(der[at + 2]),
            0x82 => 4 + usize::from(u16::from_be_bytes([der[at + 2], der[at + 3]])),
            short => 2 + usize::from(short),
        };
    }
    der.splice(at..at, FIELD);
    let length = (der.len() - 4) as u16;
    der[2..4].copy_from_slice(&length.to_be_bytes());
    fs::write(certificates.path("der"), der).expect("our own folder");
    certificates.openssl("sess_id -inform DER -in der -out session");
}

#[test]
fn early_data_that_nobody_was_offered_reaches_nobody() {
    let certificates = Certificates::local();
    let mut gateway = start(&certificates, &["a"], &[]);
    keep(&gateway, "-tls1_3", &certificates.path("session"));
    allow_early_data(&certificates);
    let [session, early] = ["session", "early"].map(|name| certificates.path(name));
    let args = format!("-tls1_3 -servername localhost -sess_in {session} -early_data {early}");

    // The first byte of it as a package would close the client.
    certificates.write("early", &"x".repeat(500));
    let taken = s_client(gateway.address(), &args);
    for part in ["\nReused, ", "Early data was rejected", TAKEN] {
        assert!(taken.contains(part), "{part:?} in {taken}");
    }
    assert_eq!(gateway.wait_counter("tls_resumed", 1), 1);

    // More than its bound.
    certificates.write("early", &"x".repeat(40_000));
    let refused = s_client(gateway.address(), &args);
    assert!(!refused.contains(TAKEN), "{refused}");
    assert!(refused.contains("SSL alert number 20"), "{refused}");
    gateway.wait_counter("closed_tls", 1);
    let counters = gateway.counters();
    let count = |name: &str| counters.get(name).copied().unwrap_or_default();
    assert_eq!(count("tls_failed"), 1);
    assert_eq!(count("tls_handshakes"), 2);
    assert_eq!(count("closed_package_type"), 0);
}

#[test]
fn gateways_with_the_same_keys_continue_sessions_of_each_other_until_a_key_goes() {
    let certificates = Certificates::local();
    certificates.ticket_keys("keys");
    let keys = format!("tls.ticket_keys='{}'", certificates.path("keys"));
    let mut gateways = [0, 1].map(|_| start(&certificates, &["a"], &["--set", &keys]));
    let file = |version: &str| certificates.path(&format!("session{version}"));
    for version in VERSIONS {
        keep(&gateways[0], version.0, &file(version.0));
        assert!(continues(&gateways[1], version, &file(version.0)));
    }
    let old = certificates.read("keys");
    let new = certificates.openssl("rand -base64 48");
    for (text, reloads, is_continued) in [(format!("{new}{old}"), 1, true), (new, 2, false)] {
        certificates.write("keys", &text);
        for gateway in &mut gateways {
            gateway.wait_counter("tls_reloads", reloads);
            for version in VERSIONS {
                assert_eq!(continues(gateway, version, &file(version.0)), is_continued);
            }
        }
    }
}

/// A ticket of a client without a certificate must not stand for one, wherever it comes from.
#[test]
fn no_ticket_stands_for_the_certificate_of_a_client() {
    let certificates = Certificates::local();
    certificates.sign("client", "", 365);
    certificates.ticket_keys("keys");
    let keys = format!("tls.ticket_keys='{}'", certificates.path("keys"));
    let authority = format!("tls.client_ca='{}'", certificates.path("ca.pem"));
    let open = start(&certificates, &["a"], &["--set", &keys]);
    let strict = |mode: &str| {
        let mode = format!("tls.client_certificates='{mode}'");
        start(
            &certificates,
            &["a"],
            &["--set", &keys, "--set", &authority, "--set", &mode],
        )
    };
    let (required, optional) = (strict("required"), strict("optional"));
    let [chain, key] = ["client.pem", "client.key"].map(|name| certificates.path(name));
    let file = certificates.path("session");
    for (version, name) in VERSIONS {
        keep(&open, version, &file);
        let args = format!("{version} -servername localhost -sess_in {file}");
        let refused = s_client(required.address(), &args);
        assert!(!refused.contains(TAKEN), "{refused}");
        let shown = s_client(
            required.address(),
            &format!("{args} -cert {chain} -key {key}"),
        );
        assert!(
            shown.contains(TAKEN) && shown.contains(&format!("\nNew, {name}, ")),
            "{shown}"
        );
        assert!(!continues(&optional, (version, name), &file));
    }
}
