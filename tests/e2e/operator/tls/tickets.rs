//! Sessions that are continued by a ticket, and those that are not.

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
