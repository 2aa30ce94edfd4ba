//! The Autobahn suite against the WebSocket code of the gateway: `just autobahn`.
//!
//! The messages of the suite are not packages, so a small server answers each with itself. It reads requests and frames by
//! `client::transport` and writes them by `wire::websocket`, as the shards do, and speaks TLS by `net::tls`. The suite is a program for Python 2.7, which
//! `PYTHON2` names or pyenv has; its packages are installed below the target directory. In CI, tungstenite is the client.
#![cfg(feature = "runtime")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test runs on the real clock; the bans are for the gateway"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::{Value, json};
use tangelo::tls_vectors::server_config;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Bytes, Message};

mod echo;
mod secure;

const CASES: [&str; 9] = [
    "1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*",
];

/// The suite plays them one after the other.
const SCHEMES: [&str; 2] = ["ws", "wss"];

#[test]
fn tungstenite_gets_each_message_back() {
    println!("the Autobahn suite has not run: just autobahn");
    let connect = |tls| TcpStream::connect(echo::start(tls)).expect("somebody listens");
    play("ws", connect(None));
    play("wss", secure::client(connect(Some(server_config()))));
}

fn play(scheme: &str, stream: impl Read + Write) {
    let Ok((mut client, _)) = tungstenite::client(format!("{scheme}://localhost/"), stream) else {
        panic!("the server refuses the upgrade");
    };
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
        let text = "ä".repeat(length / 2);
        for message in [Message::text(text), Message::binary(vec![0xff; length])] {
            client.send(message.clone()).expect("it is connected");
            assert_eq!(client.read().expect("an answer"), message);
        }
    }
    let part = |bytes: &'static [u8], opcode, is_final| {
        let bytes = Bytes::from_static(bytes);
        Message::Frame(Frame::message(bytes, OpCode::Data(opcode), is_final))
    };
    for message in [
        part(b"one, ", Data::Text, false),
        Message::Ping(Bytes::from_static(b"between")),
        part(b"two", Data::Continue, false),
        part(b"", Data::Continue, true),
    ] {
        client.send(message).expect("it is connected");
    }
    let pong = Message::Pong(Bytes::from_static(b"between"));
    assert_eq!(client.read().expect("a pong"), pong);
    assert_eq!(client.read().expect("an answer"), Message::text("one, two"));
    client.close(None).expect("it is connected");
    while client.read().is_ok() {}
}

#[test]
#[ignore = "needs Python 2.7 and takes minutes: just autobahn"]
fn no_case_of_the_suite_fails() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("autobahn");
    fs::create_dir_all(&folder).expect("a folder of our own");
    let python = python2();
    install(&python, &folder);
    let report = run(&python, &folder);
    for scheme in SCHEMES {
        judge(scheme, &report[scheme]);
    }
}

/// Prints the counts of all results over this scheme; none of them is a failure.
fn judge(scheme: &str, report: &Value) {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    let mut failed = Vec::new();
    for (case, result) in report.as_object().expect("cases by name") {
        let behaviors =
            ["behavior", "behaviorClose"].map(|key| result[key].as_str().expect("a text"));
        *counts.entry(behaviors[0].to_owned()).or_default() += 1;
        if behaviors
            .iter()
            .any(|it| ["FAILED", "UNIMPLEMENTED"].contains(it))
        {
            failed.push((case, behaviors));
        }
    }
    println!("{scheme}: {counts:?}");
    assert!(failed.is_empty(), "{scheme}: {failed:?}");
}

fn python2() -> PathBuf {
    if let Some(named) = env::var_os("PYTHON2") {
        return named.into();
    }
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let versions = fs::read_dir(home.join(".pyenv/versions"));
    let versions = versions.into_iter().flatten().flatten().map(|it| it.path());
    let mut pythons = versions.map(|version| version.join("bin/python2.7"));
    let found = pythons.find(|python| python.exists());
    found.expect("the suite needs Python 2.7: name it in PYTHON2, or pyenv install 2.7.18")
}

fn install(python: &Path, folder: &Path) {
    if folder.join("packages/autobahntestsuite").exists() {
        return;
    }
    let status = Command::new(python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "autobahntestsuite==25.10.1",
            "--target",
        ])
        .arg(folder.join("packages"))
        .status();
    assert!(status.expect("Python runs").success(), "pip install");
}

/// Runs the suite and returns its results by scheme and case.
fn run(python: &Path, folder: &Path) -> Value {
    // One of its packages is found only in a folder for packages.
    const START: &str = "import os, site; site.addsitedir(os.environ['PACKAGES']); \
                         from autobahntestsuite.wstest import run; run()";
    let servers = SCHEMES.map(|scheme| {
        let address = echo::start((scheme == "wss").then(server_config));
        json!({"agent": scheme, "url": format!("{scheme}://{address}")})
    });
    let plan = json!({
        "options": {"failByDrop": false},
        "outdir": folder.join("report"),
        "servers": servers,
        "cases": CASES,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let file = folder.join("plan.json");
    fs::write(&file, plan.to_string()).expect("a file of our own");
    let status = Command::new(python)
        .args(["-c", START])
        .args(["-m", "fuzzingclient", "-s"])
        .arg(&file)
        .env("PACKAGES", folder.join("packages"))
        .current_dir(folder)
        .status();
    assert!(status.expect("Python runs").success(), "wstest");
    let report = fs::read(folder.join("report/index.json")).expect("the suite wrote it");
    serde_json::from_slice(&report).expect("it is JSON")
}
