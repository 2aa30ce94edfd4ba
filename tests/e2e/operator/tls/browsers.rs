//! Two browsers chat over wss, behind nothing and behind HAProxy.

use std::net::SocketAddr;
use std::process::Command;

use super::start;
use crate::harness::browser::{Browser, Page};
use crate::harness::certificates::Certificates;
use crate::harness::gateway::Gateway;
use crate::harness::peers::Ports;
use crate::operator::proxies::Proxy;

/// Opens the page of the chat and enters.
fn enter(address: SocketAddr, name: &str) -> (Browser, Page) {
    // The authority is the test's own.
    let mut browser = Browser::start_with(&[], &["--ignore-certificate-errors"]);
    let page = browser.open(&format!("https://{address}/"));
    browser.wait_for_text(&page, "online");
    browser.fill(&page, "name", name);
    browser.run(
        &page,
        "document.querySelector('#login form').requestSubmit()",
    );
    browser.wait_for_text(&page, "Leave");
    (browser, page)
}

/// Two browsers meet in the room, and read each other.
fn chat(address: SocketAddr) {
    let (mut first, anns) = enter(address, "ann");
    let (mut second, bobs) = enter(address, "bob");
    first.wait_for_text(&anns, "bob joined");
    for (browser, page, text) in [
        (&mut first, &anns, "hello bob"),
        (&mut second, &bobs, "hello ann"),
    ] {
        browser.fill(page, "text", text);
        browser.run(page, "document.getElementById('composer').requestSubmit()");
    }
    first.wait_for_text(&anns, "hello ann");
    second.wait_for_text(&bobs, "hello bob");
    let url = first.run(&anns, "address");
    assert_eq!(url, format!("wss://{address}/"));
    second.close(bobs);
    first.wait_for_text(&anns, "bob left");
}

/// HAProxy with the header of the PROXY protocol towards the gateway.
fn haproxy(bind: &str, gateway: SocketAddr) -> Proxy {
    let ports = Ports::claim();
    let configuration = format!(
        "defaults\n timeout connect 5s\n timeout client 5m\n timeout server 5m\n\
         listen game\n mode tcp\n bind 127.0.0.1:{}{bind}\n server tangelo {gateway} send-proxy-v2\n",
        ports.nth(0)
    );
    Proxy::with(ports, &configuration, false)
}

const BEHIND_A_PROXY: [&str; 4] = [
    "--set",
    "client.trusted_proxies=['127.0.0.1']",
    "--set",
    "client.proxy_protocol=true",
];

/// Runs the two commands of its first comment in a folder; the second one as the harness runs an example.
#[test]
fn two_browsers_chat_over_wss_with_the_example_and_its_certificate() {
    const EXAMPLE: &str = include_str!("../../../../examples/chat.rs");
    const OPERATIONS: &str = include_str!("../../../../docs/operations.md");
    let commands = EXAMPLE
        .split("//! ```")
        .nth(1)
        .expect("a block of commands");
    let commands = commands.trim_start_matches("sh\n").replace("//! ", "");
    let (make, run) = commands
        .split_once("cargo run --release --example chat -- ")
        .expect("two commands");
    assert!(OPERATIONS.contains(make), "{make}");

    let folder = Certificates::new();
    let made = Command::new("sh")
        .args(["-c", make])
        .current_dir(folder.path(""))
        .output();
    let made = made.expect("sh runs");
    assert!(made.status.success(), "{made:?}");
    // The port may be in use here.
    let run = run.replace(":3443", ":0").replace("\\\n", "");
    let run = ["fullchain.pem", "privkey.pem"]
        .iter()
        .fold(run, |run, name| run.replace(name, &folder.path(name)));
    let args = run
        .split('"')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let gateway = Gateway::start_example_with_listeners("chat", &args.collect::<Vec<_>>());
    chat(gateway.address());
}

#[test]
fn two_browsers_chat_over_wss() {
    let certificates = Certificates::local();
    let mut gateway = start(&certificates, &["a"], &[]);
    chat(gateway.address());
    gateway.wait_counter("tls_handshakes", 2);
}

#[test]
fn two_browsers_chat_over_wss_behind_haproxy_that_passes_tls_on() {
    let certificates = Certificates::local();
    let mut gateway = start(&certificates, &["a"], &BEHIND_A_PROXY);
    let proxy = haproxy("", gateway.address());
    chat(proxy.address());
    gateway.wait_counter("tls_handshakes", 2);
}

#[test]
fn two_browsers_chat_over_wss_behind_haproxy_that_ends_tls() {
    let certificates = Certificates::local();
    certificates.write(
        "both.pem",
        &[certificates.read("a.pem"), certificates.read("a.key")].concat(),
    );
    let mut gateway = Gateway::start(&BEHIND_A_PROXY);
    let proxy = haproxy(
        &format!(" ssl crt {}", certificates.path("both.pem")),
        gateway.address(),
    );
    chat(proxy.address());
    assert_eq!(
        gateway
            .counters()
            .get("tls_handshakes")
            .copied()
            .unwrap_or_default(),
        0
    );
}
