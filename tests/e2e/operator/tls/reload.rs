//! Renewal: files that change, and keys that SIGHUP reads again.

use std::time::Instant;

use super::{REQUIRED, TAKEN, s_client, start};
use crate::harness::certificates::{Certificates, LOCAL};
use crate::harness::client::Client;
use crate::harness::frames;
use crate::harness::gateway::Gateway;
use crate::harness::peers::wait_for;
use crate::harness::secure::Trust;
use crate::operator::reload::File;

const CONNECTIONS: usize = 1000;

/// Waits until new clients get the certificate of this name.
fn wait_for_certificate(gateway: &Gateway, trust: &Trust, certificates: &Certificates, name: &str) {
    let expected = certificates.first(&format!("{name}.pem"));
    let begin = Instant::now();
    wait_for("the new certificate", || {
        let client = Client::tls(gateway.address(), trust);
        (client.certificate() == Some(&*expected)).then_some(())
    });
    println!("--- the new certificate after {:?}", begin.elapsed());
}

fn answers(client: &mut Client) -> bool {
    client.request_text("connector.h.m", "{}") == r#"{"code":500}"#
}

#[test]
fn new_clients_get_a_renewed_certificate_and_a_thousand_old_ones_live() {
    frames::raise_file_limit();
    let certificates = Certificates::local();
    certificates.sign("old", LOCAL, 100);
    certificates.sign("new", LOCAL, 365);
    certificates.sign("ended", LOCAL, -1);
    certificates.exchange("old", "a");
    let trust = Trust::of(&certificates);
    let mut gateway = start(&certificates, &["a"], &[]);
    let mut clients: Vec<Client> = (0..CONNECTIONS)
        .map(|_| Client::tls(gateway.address(), &trust).open())
        .collect();
    assert_eq!(
        clients[0].certificate(),
        Some(&*certificates.first("old.pem"))
    );

    certificates.exchange("new", "a");
    wait_for_certificate(&gateway, &trust, &certificates, "new");
    assert!(clients.iter_mut().all(answers));

    // Files that cannot be used change nothing.
    let key = certificates.read("a.key");
    for (break_it, said) in [
        (
            &(|| certificates.write("a.pem", "broken")) as &dyn Fn(),
            "has no certificate of the PEM format",
        ),
        (
            &|| certificates.write("a.key", &certificates.read("old.key")),
            "does not belong to the certificate",
        ),
        (&|| certificates.exchange("ended", "a"), "has expired"),
    ] {
        let failed = gateway
            .counters()
            .get("tls_reloads_failed")
            .copied()
            .unwrap_or_default();
        break_it();
        gateway.wait_counter("tls_reloads_failed", failed + 1);
        let line = gateway.wait_printed(said);
        assert!(
            line.contains("ERROR") && line.contains("the old certificates and keys stay in use"),
            "{line}"
        );
        let newcomer = Client::tls(gateway.address(), &trust);
        assert_eq!(
            newcomer.certificate(),
            Some(&*certificates.first("new.pem"))
        );
        let reloads = gateway.counters()["tls_reloads"];
        certificates.write("a.key", &key);
        certificates.write("a.pem", &certificates.read("new.pem"));
        gateway.wait_counter("tls_reloads", reloads + 1);
    }
    certificates.exchange("old", "a");
    wait_for_certificate(&gateway, &trust, &certificates, "old");
    assert!(clients.iter_mut().all(answers));
}

#[test]
fn a_certificate_in_use_that_ends_soon_or_has_ended_is_in_the_log() {
    let certificates = Certificates::local();
    certificates.sign("ended", LOCAL, -1);
    certificates.sign_aged("soon", 85, 5);
    // Short certificates are renewed shortly before their end.
    certificates.sign_aged("far", 1, 5);
    let mut gateway = start(&certificates, &["ended", "soon", "far"], &[]);
    let line = gateway.wait_printed("ended.pem has expired on");
    assert!(line.contains("ERROR"), "{line}");
    let line = gateway.wait_printed("soon.pem expires soon, on ");
    assert!(line.contains("WARN"), "{line}");
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
    assert!(!printed.contains("far.pem expires"), "{printed}");
}

#[test]
fn a_certificate_that_has_ended_keeps_no_renewal_of_another_one_out() {
    let certificates = Certificates::local();
    certificates.sign("ended", "DNS:ended.example", -1);
    certificates.sign("new", LOCAL, 365);
    let trust = Trust::of(&certificates);
    let mut gateway = start(&certificates, &["a", "ended"], &[]);
    gateway.wait_printed("ended.pem has expired on");
    certificates.exchange("new", "a");
    wait_for_certificate(&gateway, &trust, &certificates, "new");
    assert_eq!(gateway.stop().0, Some(0));
}

#[test]
fn sighup_reads_files_again_that_could_not_be_used() {
    let certificates = Certificates::local();
    certificates.sign_aged("early", -10, 100);
    let mut gateway = start(&certificates, &["a"], &[]);
    certificates.exchange("early", "a");
    for failed in 1..=3 {
        gateway.wait_counter("tls_reloads_failed", failed);
        let line = gateway.wait_printed("a.pem is valid from");
        assert!(
            line.contains("ERROR") && line.contains("on only; it is read again then"),
            "{line}"
        );
        gateway.signal("HUP");
    }
    assert_eq!(gateway.stop().0, Some(0));
}

#[test]
fn sighup_reads_the_files_again_where_the_configuration_has_a_mistake() {
    let certificates = Certificates::local();
    let text = format!("{}\n{}\n", REQUIRED, certificates.set(&["a"]));
    let file = File::new(&text);
    let mut gateway = Gateway::start_with_listeners(&["--config", file.path()]);
    file.write(&format!("{text}stray = 1\n"));
    for reloads in 1..=2 {
        gateway.signal("HUP");
        gateway.wait_counter("tls_reloads", reloads);
    }
    gateway.wait_printed("SIGHUP: the configuration stays as it was: ");
    assert_eq!(gateway.stop().0, Some(0));
}

#[test]
fn a_changed_key_counts_for_new_clients_after_sighup() {
    let certificates = Certificates::local();
    let text = |more: &str| format!("{}\n{}\n{more}\n", REQUIRED, certificates.set(&["a"]));
    let file = File::new(&text(""));
    let mut gateway = Gateway::start_with_listeners(&["--config", file.path()]);
    let address = gateway.address();
    let trust = Trust::of(&certificates);
    let mut old = Client::tls(address, &trust).open();
    assert!(s_client(address, "-tls1_2").contains(TAKEN));

    file.write(&text("tls.min_version = '1.3'"));
    gateway.signal("HUP");
    gateway.wait_counter("tls_reloads", 1);
    assert!(!s_client(address, "-tls1_2").contains(TAKEN));
    assert!(s_client(address, "-tls1_3").contains(TAKEN));
    assert!(answers(&mut old));

    // A key that cannot come into force is refused, and the line of the reload has the cause.
    for (more, cause) in [
        (
            "tls.ticket_keys = '/nothing/here'",
            "tls.ticket_keys: cannot read /nothing/here",
        ),
        (
            "tls.client_certificates = 'required'\ntls.client_ca = '/nothing/there'",
            "tls.client_ca: cannot read /nothing/there",
        ),
    ] {
        file.write(&text(more));
        gateway.signal("HUP");
        let line = gateway.wait_printed(cause);
        assert!(
            line.contains("WARN") && line.contains("SIGHUP: the configuration stays as it was: "),
            "{line}"
        );
    }
    assert!(!s_client(address, "-tls1_2").contains(TAKEN));
    assert!(s_client(address, "-tls1_3").contains(TAKEN));
}
