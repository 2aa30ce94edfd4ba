//! The server that `tangelo-perf` starts with `--server uwebsockets`. It ends by itself after 15 minutes.

use std::thread;
use std::time::Duration;

unsafe extern "C" {
    /// Listens on a free port of the loopback address, prints it and serves.
    safe fn serve();
}

fn main() {
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(900));
        std::process::exit(1);
    });
    serve();
}
