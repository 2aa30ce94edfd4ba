//! Thousands of hostile connections, from processes of their own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// Two processes with hostile connections, which have addresses of their own.
pub(super) struct Strangers([Child; 2]);

impl Strangers {
    /// Opens `count` connections; `kind` is one of the script's.
    pub(super) fn start(address: SocketAddr, kind: &str, count: usize) -> Self {
        let mut processes = ["127.0.1.1", "127.0.1.2"].map(|from| {
            let script = "tests/e2e/reliability/strangers.py";
            let (host, port) = (address.ip().to_string(), address.port().to_string());
            let each = (count / 2).to_string();
            Command::new("python3")
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .args([script, &host, &port, kind, &each, from])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("python3 is needed")
        });
        for process in &mut processes {
            let output = process.stdout.take().expect("it is piped");
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).expect("a line");
            assert_eq!(line, "ready\n", "the strangers of {kind}");
        }
        Self(processes)
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
