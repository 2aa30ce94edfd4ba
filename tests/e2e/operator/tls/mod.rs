//! TLS for clients: programs and libraries that others wrote, renewal, the choice of versions and ciphers, browsers and proxies, and
//! mistakes of operators.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::harness::certificates::Certificates;
use crate::harness::frames;
use crate::harness::gateway::Gateway;

mod browsers;
mod calls;
mod clients;
mod mistakes;
mod offered;
mod reload;
mod tickets;

/// A listener on a free port that requires TLS, in the form of `--set`.
const REQUIRED: &str = "listener=[{address='127.0.0.1:0', tls='required'}]";

/// Starts the binary with these certificates.
fn start(certificates: &Certificates, names: &[&str], args: &[&str]) -> Gateway {
    let files = certificates.set(names);
    let set = [
        "--set",
        REQUIRED,
        "--set",
        &files,
        "--set",
        "log.level=debug",
    ];
    Gateway::start_with_listeners(&[&set[..], args].concat())
}

/// The answer of a gateway to a handshake.
const TAKEN: &str = r#""code":200"#;

/// Runs `openssl s_client` with these arguments, and a handshake of Pomelo as soon as TLS is there. Returns all it
/// prints until that is answered, or until the connection ends: it has then seen the tickets of its session.
fn s_client(address: SocketAddr, args: &str) -> String {
    converse(address, args, &frames::handshake(), TAKEN)
}

/// Runs it, and sends these bytes. Returns all it prints until this text, or until the connection ends.
fn converse(address: SocketAddr, args: &str, sent: &[u8], until: &str) -> String {
    let line = format!("exec timeout 60 openssl s_client -connect {address} {args} 2>&1");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &line])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = shell.spawn().expect("sh runs");
    let (mut input, mut output) = (child.stdin.take(), child.stdout.take().expect("piped"));
    // It may have ended already.
    let _ = input.as_mut().expect("piped").write_all(sent);
    let mut printed = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = output.read(&mut chunk) {
        printed.extend_from_slice(&chunk[..count]);
        if String::from_utf8_lossy(&printed).contains(until) {
            // It leaves.
            input = None;
        }
    }
    drop(input);
    child.wait().expect("our own child");
    String::from_utf8_lossy(&printed).into_owned()
}
