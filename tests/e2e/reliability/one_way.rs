//! A network that carries bytes in one direction only, between the gateway and a backend.
//!
//! The test runs itself again in a network namespace, where a rule of the kernel drops what comes from one port, or goes to it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Instant;

use tempfile::NamedTempFile;

use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::debian;
use crate::harness::gateway::Gateway;
use crate::harness::rpc;
use crate::reliability::stage::{Scale, attack_beside};

const INSIDE: &str = "reliability::one_way::in_a_network_of_its_own";
const BACKEND: &str = "10.7.7.7";
const ROUTE: &str = "chat.chatHandler.send";

#[test]
fn a_cut_in_one_direction_costs_calls_their_time_and_ends_with_it() {
    if Command::new("ip").arg("-V").output().is_err() {
        debian::install(&["iproute2"]);
    }
    let this = std::env::current_exe().expect("a running program has a path");
    let status = Command::new("unshare")
        .args(["--map-root-user", "--net"])
        .arg(this)
        .args(["--exact", INSIDE, "--ignored", "--nocapture"])
        .status();
    assert!(status.expect("util-linux is here").success());
}

#[test]
#[ignore = "a program that another test starts"]
fn in_a_network_of_its_own() {
    ip("link set lo up");
    ip(&format!("addr add {BACKEND}/32 dev lo"));
    // The rules of the test come before that for local addresses.
    ip("rule add pref 100 lookup local");
    ip("rule del pref 0");
    let cut = play(BACKEND);
    let steady = play("127.0.0.1");
    let config = NamedTempFile::new().expect("a temporary file");
    let entry = |name, address: SocketAddr| {
        let (host, port) = (address.ip(), address.port());
        format!(
            "[[server]]\nid = \"{name}-1\"\ntype = \"{name}\"\nhost = \"{host}\"\nport = {port}\n"
        )
    };
    let servers = [entry("chat", cut), entry("steady", steady)].concat();
    fs::write(&config, servers).expect("a temporary file");
    let file = config.path().to_str().expect("a path in UTF-8");
    for direction in ["sport", "dport"] {
        let set = ["rpc.timeout=1s", "rpc.keepalive=500ms"].map(|key| ["--set", key]);
        let args = [&["--config", file, "--shards", "2"][..], set.as_flattened()].concat();
        let mut gateway = Gateway::start(&args);
        let mut client = Client::tcp(gateway.address()).open();
        wait_for_answer(&mut client);
        attack_beside("steady.steadyHandler.echo", Scale::Ci, &mut gateway, |_| {
            let port = cut.port();
            let cut = format!("pref 50 from {BACKEND} ipproto tcp {direction} {port} blackhole");
            ip(&format!("rule add {cut}"));
            assert_eq!(client.request_text(ROUTE, "{}"), r#"{"code":500}"#);
            ip(&format!("rule del {cut}"));
            wait_for_answer(&mut client);
            (
                format!("nothing passes by {direction}"),
                "calls are answered again".to_owned(),
            )
        });
    }
}

/// Plays a backend on a port of its own.
fn play(host: &str) -> SocketAddr {
    let listener = TcpListener::bind((host, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    rpc::echo(listener);
    address
}

fn wait_for_answer(client: &mut Client) {
    let deadline = Instant::now() + HANG_GUARD;
    while client.request_text(ROUTE, "7") != "7" {
        assert!(Instant::now() < deadline, "no answer");
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(
        status.expect("iproute2 is here").success(),
        "ip {arguments}"
    );
}
