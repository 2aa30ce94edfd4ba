//! What an operator gets from a gateway, measured from outside: over real sockets, on loopback,
//! bounded in count and in time. `perf/README.md` says what each command measures and how.
//!
//! ```text
//!  idle ─┐                      ┌─ session   opens one client session, verified
//!        ├─ target  the server ─┤
//!  echo ─┘  under test, its     └─ stream    one non-blocking socket    wire  packages as bytes
//!           CPU and memory                        │
//!                              ceiling  ──────────┘  the least a server could do
//! ```
//!
//! **Absent**: anything of the gateway's own code. The two sides of a measurement should not share
//! a mistake.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "the bans keep clocks and threads out of the gateway's rooms; measuring needs both"
)]

mod backend;
mod broadcast;
mod ceiling;
mod clients;
mod cores;
mod exchange;
mod idle;
mod load;
mod measure;
mod peers;
mod process;
mod rpc;
mod session;
mod stream;
mod target;
mod wire;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "tangelo-perf",
    about = "Load and comparison runs for the gateway"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Memory per idle session, and the CPU that idle sessions cost
    Idle(idle::Options),
    /// Rate, latency and server CPU of one kind of work
    Load(load::Options),
    /// Answer what frontends forward
    Backend(backend::Options),
    /// Serve as the comparison: a bare epoll loop that only frames
    Ceiling {
        /// Where to listen; loopback only
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Ends by itself after this long
        #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    process::raise_file_limit();
    let result = match Arguments::parse().command {
        Command::Idle(options) => idle::run(&options),
        Command::Load(options) => load::run(&options),
        Command::Backend(options) => backend::run(&options),
        Command::Ceiling { listen, seconds } => ceiling::run(listen, seconds),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tangelo-perf: {error}");
            ExitCode::FAILURE
        }
    }
}
