//! TLS for clients: programs and libraries that others wrote, renewal, the choice of versions and ciphers, browsers and proxies, and
//! mistakes of operators.

use std::net::SocketAddr;

use crate::harness::certificates::Certificates;
use crate::harness::gateway::Gateway;

mod clients;

/// A listener on a free port that requires TLS, in the form of `--set`.
const REQUIRED: &str = "listener=[{address='127.0.0.1:0', tls='required'}]";

/// Starts the binary with these certificates.
fn start(certificates: &Certificates, names: &[&str], args: &[&str]) -> Gateway {
    let files = certificates.set(names);
    let tls = [
        "--set",
        REQUIRED,
        "--set",
        &files,
        "--set",
        "log.level=debug",
    ];
    Gateway::start_with_listeners(&[&tls[..], args].concat())
}
