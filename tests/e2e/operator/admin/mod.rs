//! The operators' port: health, metrics, and the tools that read them.

mod actions;
mod follow;
mod health;
mod metrics;
mod probe;
mod trace;

use crate::harness::admin::AdminPort;
use crate::harness::gateway::Gateway;

/// Starts a gateway with an operators' port.
fn start(args: &[&str]) -> (Gateway, AdminPort) {
    let args = [&["--set", "admin.listen=127.0.0.1:0"], args].concat();
    let mut gateway = Gateway::start(&args);
    let port = AdminPort::of(&mut gateway);
    (gateway, port)
}
