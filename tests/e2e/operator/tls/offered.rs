//! The versions, ciphers, certificates and protocols that a gateway offers.

use std::collections::BTreeSet;
use std::process::Command;

use super::calls::{ANSWERED, call};
use super::{TAKEN, s_client, start};
use crate::harness::certificates::{Certificates, LOCAL};
use crate::harness::debian;
use crate::harness::free_address;
use crate::harness::gateway::Gateway;

/// Everything that OpenSSL can still do.
const ANYTHING: &str = "-cipher ALL:@SECLEVEL=0";

/// The certificate `a` with an ECDSA key for `localhost`, and `r` with an RSA key for `rsa.test`.
fn both_kinds() -> Certificates {
    let certificates = Certificates::local();
    certificates.sign_rsa("r", "DNS:rsa.test", 365);
    certificates
}

#[test]
fn nothing_weak_is_offered_to_openssl() {
    let certificates = both_kinds();
    for names in [&["a"][..], &["r"], &["a", "r"], &["r", "a"]] {
        assert_nothing_weak(&start(&certificates, names, &[]));
    }

    let gateway = start(&certificates, &["a"], &["--set", "tls.min_version='1.3'"]);
    let refused = s_client(gateway.address(), "-tls1_2");
    assert!(refused.contains("Cipher is (NONE)"), "{refused}");
    assert!(s_client(gateway.address(), "-tls1_3").contains(TAKEN));
}

fn assert_nothing_weak(gateway: &Gateway) {
    for version in ["-tls1", "-tls1_1"] {
        let refused = s_client(gateway.address(), &format!("{version} {ANYTHING}"));
        assert!(refused.contains("Cipher is (NONE)"), "{refused}");
    }
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let taken = s_client(gateway.address(), &format!("{version} {ANYTHING}"));
        for part in [
            TAKEN,
            &format!("New, {name}, Cipher is "),
            "Compression: NONE",
        ] {
            assert!(taken.contains(part), "{part:?} in {taken}");
        }
    }
    // Without forward secrecy, or without authentication of each record by AEAD, or without a certificate.
    for ciphers in [
        "AES128-SHA:AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384",
        "ECDHE-RSA-AES128-SHA:ECDHE-RSA-AES256-SHA384",
        "DHE-RSA-AES128-SHA:DHE-RSA-AES256-GCM-SHA384",
        "aNULL",
    ] {
        let refused = s_client(
            gateway.address(),
            &format!("-tls1_2 -cipher {ciphers}:@SECLEVEL=0"),
        );
        assert!(refused.contains("Cipher is (NONE)"), "{refused}");
    }
}

#[test]
fn nothing_weak_is_offered_to_sslscan() {
    debian::need("sslscan");
    let certificates = both_kinds();
    for (names, asked, kind) in [
        (&["a"][..], "localhost", "ECDSA"),
        (&["r"], "localhost", "RSA"),
        (&["a", "r"], "localhost", "ECDSA"),
        (&["a", "r"], "rsa.test", "RSA"),
    ] {
        scan(&start(&certificates, names, &[]), asked, kind);
    }
}

/// Scans a gateway that has a key of this kind for the name `asked`.
fn scan(gateway: &Gateway, asked: &str, kind: &str) {
    let mut sslscan = Command::new("sslscan");
    sslscan.args(["--no-colour", &format!("--sni-name={asked}")]);
    sslscan.arg(gateway.address().to_string());
    let output = sslscan.output().expect("the program runs");
    let printed = String::from_utf8(output.stdout).expect("text in UTF-8");
    let words: Vec<Vec<&str>> = printed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for version in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"] {
        assert!(words.contains(&vec![version, "disabled"]), "{printed}");
    }
    assert!(
        printed.contains("Session renegotiation not supported"),
        "{printed}"
    );
    let heartbleed = printed.matches("vulnerable to heartbleed").count();
    let none = printed.matches("not vulnerable to heartbleed").count();
    assert_eq!((heartbleed, none), (2, 2), "{printed}");
    let suites = [
        "AES256-GCM-SHA384",
        "CHACHA20-POLY1305",
        "AES128-GCM-SHA256",
    ];
    let suites = suites.map(|suite| format!("ECDHE-{kind}-{suite}"));
    let ciphers = words.iter().filter_map(|words| match &words[..] {
        ["Accepted" | "Preferred", version, _, "bits", cipher, ..] => Some((*version, *cipher)),
        _ => None,
    });
    let expected = [
        ("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
        ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        ("TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256"),
    ];
    let suites = suites.iter().map(|suite| ("TLSv1.2", suite.as_str()));
    let expected = expected.into_iter().chain(suites).collect();
    let ciphers: BTreeSet<_> = ciphers.collect();
    assert_eq!(ciphers, expected, "{printed}");
}

#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let certificates = Certificates::local();
    certificates.sign("b", "DNS:b.test", 365);
    certificates.sign("w", "DNS:*.game.test", 365);
    let gateway = start(&certificates, &["a", "b", "w"], &[]);
    for (name, shown) in [
        ("-noservername", "a"),
        ("-servername localhost", "a"),
        ("-servername b.test", "b"),
        ("-servername B.Test", "b"),
        ("-servername x.game.test", "w"),
        // A wildcard stands for one label.
        ("-servername y.x.game.test", "a"),
        ("-servername game.test", "a"),
        ("-servername unknown.test", "a"),
    ] {
        for version in ["-tls1_2", "-tls1_3"] {
            let taken = s_client(gateway.address(), &format!("{version} {name}"));
            assert!(
                taken.contains(&format!("subject=CN = {shown}\n")),
                "{name}: {taken}"
            );
        }
    }
}

#[test]
fn of_two_kinds_of_key_for_a_name_a_client_gets_the_first_that_it_knows() {
    let certificates = Certificates::local();
    certificates.sign_rsa("r", LOCAL, 365);
    certificates.sign("b", "DNS:b.test", 365);
    for (names, first) in [(["b", "a", "r"], "a"), (["b", "r", "a"], "r")] {
        let gateway = start(&certificates, &names, &[]);
        for (args, shown) in [
            ("-tls1_3 -servername localhost", first),
            ("-tls1_2 -servername localhost", first),
            ("-tls1_3 -servername localhost -sigalgs ECDSA+SHA256", "a"),
            ("-tls1_2 -servername localhost -sigalgs ECDSA+SHA256", "a"),
            ("-tls1_3 -servername localhost -sigalgs RSA-PSS+SHA256", "r"),
            ("-tls1_2 -servername localhost -sigalgs RSA+SHA256", "r"),
            (
                "-tls1_2 -servername localhost -cipher ECDHE-RSA-AES128-GCM-SHA256",
                "r",
            ),
            // Without a name, all of them are for the client.
            ("-tls1_3 -noservername", "b"),
            ("-tls1_3 -noservername -sigalgs RSA-PSS+SHA256", "r"),
        ] {
            let taken = s_client(gateway.address(), args);
            let is_shown = taken.contains(&format!("subject=CN = {shown}\n"));
            assert!(is_shown && taken.contains(TAKEN), "{args}: {taken}");
        }
        // The certificate of another name is none for this one.
        let refused = s_client(
            gateway.address(),
            "-tls1_3 -servername b.test -sigalgs RSA-PSS+SHA256",
        );
        assert!(!refused.contains(TAKEN), "{refused}");
    }
}

#[test]
fn a_protocol_is_chosen_only_where_the_key_asks_for_it() {
    let certificates = Certificates::local();
    let gateway = start(&certificates, &["a"], &[]);
    let taken = s_client(gateway.address(), "-alpn h2,http/1.1");
    assert!(
        taken.contains("No ALPN negotiated") && taken.contains(TAKEN),
        "{taken}"
    );
    drop(gateway);

    let gateway = start(&certificates, &["a"], &["--set", "tls.alpn=['http/1.1']"]);
    let taken = s_client(gateway.address(), "-alpn h2,http/1.1");
    assert!(
        taken.contains("ALPN protocol: http/1.1") && taken.contains(TAKEN),
        "{taken}"
    );
    let refused = s_client(gateway.address(), "-alpn h2");
    assert!(
        !refused.contains(TAKEN) && refused.contains("SSL alert number 120"),
        "{refused}"
    );
    let taken = s_client(gateway.address(), "");
    assert!(
        taken.contains("No ALPN negotiated") && taken.contains(TAKEN),
        "{taken}"
    );
}

#[test]
fn certificates_of_clients_are_asked_for_as_the_key_says() {
    let certificates = Certificates::local();
    certificates.sign("client", "", 365);
    let foreign = Certificates::local();
    let authority = format!("tls.client_ca='{}'", certificates.path("ca.pem"));
    let with = |certificates: &Certificates, name: &str| {
        let [chain, key] = ["pem", "key"].map(|kind| certificates.path(&format!("{name}.{kind}")));
        format!("-cert {chain} -key {key}")
    };
    let own = with(&certificates, "client");
    let foreign = with(&foreign, "a");
    // Whether clients without one, with one, and with one of another authority are taken.
    for (mode, expected) in [
        ("off", [true; 3]),
        ("optional", [true, true, false]),
        ("required", [false, true, false]),
    ] {
        let mode = format!("tls.client_certificates='{mode}'");
        let gateway = start(
            &certificates,
            &["a"],
            &["--set", &mode, "--set", &authority],
        );
        for version in ["-tls1_2", "-tls1_3"] {
            let taken = ["", &own, &foreign].map(|shown| {
                s_client(gateway.address(), &format!("{version} {shown}")).contains(TAKEN)
            });
            assert_eq!(taken, expected, "{mode} {version}");
        }
    }
}

#[test]
fn a_revoked_certificate_of_a_client_or_of_another_server_is_refused() {
    let certificates = Certificates::local();
    certificates.sign("own", "DNS:own", 365);
    certificates.sign("stolen", "DNS:stolen", 365);
    certificates.revoke(&[]);
    let calls = free_address();
    let files = ["ca", "crl"].map(|name| certificates.path(&format!("{name}.pem")));
    let [ca, crl] = &files;
    let mut gateway = start(
        &certificates,
        &["a"],
        &[
            "--set=tls.client_certificates=required",
            &format!("--set=tls.client_ca={ca}"),
            &format!("--set=tls.client_crl={crl}"),
            &format!("--set=rpc.tls_listen={calls}"),
            &format!("--set=rpc.tls_ca={ca}"),
            &format!("--set=rpc.tls_crl={crl}"),
        ],
    );
    let clients = gateway.address();
    let taken = |name: &str| {
        let [chain, key] = ["pem", "key"].map(|kind| certificates.path(&format!("{name}.{kind}")));
        let shown = format!("-cert {chain} -key {key}");
        let as_client = s_client(clients, &shown).contains(TAKEN);
        (as_client, call(calls, &shown).contains(ANSWERED))
    };
    assert_eq!([taken("own"), taken("stolen")], [(true, true); 2]);
    certificates.revoke(&["stolen"]);
    gateway.wait_counter("tls_reloads", 1);
    assert_eq!(taken("own"), (true, true));
    assert_eq!(taken("stolen"), (false, false));
    let line = gateway.wait_printed("a TLS handshake failed");
    assert!(line.contains("Revoked"), "{line}");
    // Files with no list, with an old one beside the new one, or without that of an authority let nobody in that was kept out.
    let list = certificates.read("crl.pem");
    certificates.sign_between("three", LOCAL, 365);
    let authorities = certificates.read("ca.pem") + &certificates.read("between.pem");
    for (failed, file, text, reason) in [
        (1, "crl.pem", "", "has no list of revoked certificates"),
        (2, "crl.pem", &*list.repeat(2), "has two lists of CN="),
        (3, "ca.pem", &authorities, "has no list of CN="),
    ] {
        certificates.write("crl.pem", &list);
        certificates.write(file, text);
        gateway.wait_counter("tls_reloads_failed", failed);
        let line = gateway.wait_printed(reason);
        assert!(line.contains("tls.client_crl: "), "{line}");
        assert_eq!(taken("stolen"), (false, false));
    }
}
