//! TLS on a port without it and the reverse, and what `tangelo check` finds in the files.

use std::process::Command;

use super::{REQUIRED, TAKEN, s_client, start};
use crate::harness::certificates::{Certificates, LOCAL};
use crate::harness::client::Client;
use crate::harness::gateway::Gateway;

const INFO: [&str; 2] = ["--set", "log.level=info"];

#[test]
fn a_client_on_the_wrong_port_is_closed_and_its_line_says_what_to_change() {
    let mut gateway = Gateway::start(&INFO);
    assert!(!s_client(gateway.address(), "").contains(TAKEN));
    gateway.wait_counter("closed_tls_on_plain", 1);
    let line = gateway.wait_printed("reason=\"tls_on_plain\"");
    assert!(
        line.contains("set tls of a [[listener]], or have clients use ws://"),
        "{line}"
    );
    drop(gateway);

    let certificates = Certificates::local();
    let mut gateway = start(&certificates, &["a"], &INFO);
    let mut client = Client::tcp(gateway.address());
    client.send_package(1, b"{}");
    assert_eq!(client.next_package(), None);
    assert!(Client::try_websocket(gateway.address(), &[]).is_err());
    gateway.wait_counter("closed_plain_on_tls", 2);
    let line = gateway.wait_printed("reason=\"plain_on_tls\"");
    assert!(
        line.contains("set tls = \\\"optional\\\" there, or have clients use wss://"),
        "{line}"
    );
}

#[test]
fn the_line_of_a_handshake_that_fails_has_the_cause() {
    let certificates = Certificates::local();
    let ca = format!("tls.client_ca='{}'", certificates.path("ca.pem"));
    let asked = ["--set", &ca, "--set", "tls.client_certificates=required"];
    let mut gateway = start(&certificates, &["a"], &[&asked[..], &INFO].concat());
    assert!(!s_client(gateway.address(), "").contains(TAKEN));
    let line = gateway.wait_printed("a TLS handshake failed");
    assert!(
        line.contains("INFO") && line.contains("no certificates"),
        "{line}"
    );
}

/// Runs `check` with these certificates. Returns its exit code and the line about the first certificate.
fn check(certificates: &Certificates, names: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tangelo"))
        .args([
            "check",
            "--set",
            "shards=2",
            "--set",
            REQUIRED,
            "--set",
            &certificates.set(names),
        ])
        .output()
        .expect("the program runs");
    let printed = String::from_utf8(output.stdout).expect("text in UTF-8");
    let is_it = |line: &&str| line.contains("certificate") && !line.contains("configuration: ");
    let line = printed.lines().find(is_it);
    (output.status.code(), line.unwrap_or(&printed).to_owned())
}

#[test]
fn check_finds_what_is_wrong_with_a_certificate() {
    let certificates = Certificates::local();
    let foreign = Certificates::new();
    certificates.sign("ended", LOCAL, -1);
    certificates.sign_aged("soon", 85, 5);
    certificates.sign("nameless", "", 365);
    certificates.sign("exchanged", LOCAL, 365);
    certificates.write("exchanged.key", &certificates.read("a.key"));
    certificates.sign("torn", LOCAL, 365);
    let torn = certificates
        .read("torn.pem")
        .replace(&certificates.read("ca.pem"), &foreign.read("ca.pem"));
    certificates.write("torn.pem", &torn);
    certificates.sign_between("three", LOCAL, 365);
    let three = certificates.read("three.pem");
    let [between, ca] = ["between.pem", "ca.pem"].map(|name| certificates.read(name));
    let with_stranger = between.clone() + &foreign.read("ca.pem");
    for (name, chain) in [
        ("stranger", three.replace(&between, &with_stranger)),
        (
            "mixed",
            three.replace(&format!("{between}{ca}"), &format!("{ca}{between}")),
        ),
    ] {
        certificates.write(&format!("{name}.key"), &certificates.read("three.key"));
        certificates.write(&format!("{name}.pem"), &chain);
    }
    certificates.sign_between("ended_between", LOCAL, -1);
    certificates.sign("addresses", "IP:127.0.0.1,IP:::1", 365);
    certificates.pipe("pipe.pem");
    for (name, code, begin, part) in [
        ("a", 0, "ok  ", "a.pem: localhost"),
        ("ended", 2, "problem  ", "ended.pem has expired on "),
        ("soon", 0, "warning  ", "soon.pem expires soon, on "),
        (
            "nameless",
            2,
            "problem  ",
            "nameless.pem has no name and no address (subjectAltName)",
        ),
        (
            "exchanged",
            2,
            "problem  ",
            "exchanged.key does not belong to the certificate in ",
        ),
        ("torn", 2, "problem  ", "torn.pem: its chain is broken: "),
        ("missing", 2, "problem  ", "cannot read "),
        ("three", 0, "ok  ", "with 2 further certificates"),
        ("stranger", 0, "warning  ", "the third certificate in "),
        (
            "mixed",
            0,
            "warning  ",
            "mixed.pem has not signed one before it",
        ),
        (
            "ended_between",
            0,
            "warning  ",
            "ended_between.pem has expired on ",
        ),
        (
            "addresses",
            0,
            "ok  ",
            "addresses.pem: 127.0.0.1, ::1, valid until ",
        ),
        ("pipe", 2, "problem  ", "pipe.pem is not a regular file"),
    ] {
        let (found, line) = check(&certificates, &[name]);
        assert!(
            line.starts_with(begin) && line.contains(part),
            "{name}: {line}"
        );
        assert_eq!(found, Some(code), "{name}: {line}");
    }
}

#[test]
fn a_start_without_the_files_that_a_key_needs_is_refused() {
    let certificates = Certificates::local();
    let files = certificates.set(&["a"]);
    certificates.write("keys", &certificates.openssl("rand -base64 48"));
    certificates.pipe("pipe");
    let [keys, pipe] =
        ["keys", "pipe"].map(|name| format!("tls.ticket_keys='{}'", certificates.path(name)));
    for (setting, expected) in [
        ("tls.client_certificates='required'", "tls.client_ca"),
        (&*keys, "may be read by others"),
        (&*pipe, "pipe is not a regular file"),
    ] {
        let (code, printed) =
            Gateway::refused(&["--set", REQUIRED, "--set", &files, "--set", setting]);
        assert_eq!(code, Some(2), "{printed}");
        assert!(printed.contains(expected), "{printed}");
    }
}
