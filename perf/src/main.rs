//! Measures a gateway from outside, as an operator sees it: over real sockets, on loopback, bounded in count
//! and in time. `perf/README.md` describes the commands.
//!
//! ```text
//!  compare   many runs in turn, a table    idle      memory of sessions that do nothing
//!  change    two gateways in turn          load      one kind of work, one run:
//!     └─▶ load, idle                         exchange   clients ask, somebody answers
//!                                            broadcast  a backend sends, all clients receive
//!  target    the server under test and       connect    new connections
//!            what it needs: peers, backend       │
//!  measure   drives a load, counts, looks        ▼
//!            at CPU times                  clients   many sessions ─▶ session, stream, wire, rpc
//!
//!  ceiling   the least a server could do   backend   the other end of a forwarded message
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
mod ceiling;
mod clients;
mod compare;
mod cores;
mod idle;
mod load;
mod measure;
mod peers;
mod process;
mod report;
mod rows;
mod rpc;
mod session;
mod stream;
mod target;
mod tls;
mod wire;

use std::io;
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
    /// All rows of the targets, with all sides in turn; writes a table, JSON and a plot
    Compare(compare::Options),
    /// Run a backend that answers forwarded messages
    Backend(backend::Options),
    /// Run the server to compare with: a bare epoll loop without sessions and routes
    Ceiling(ceiling::Options),
}

fn main() -> ExitCode {
    process::raise_file_limit();
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tangelo-perf: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> io::Result<()> {
    // Before anything is pinned.
    let available = cores::available()?;
    if !matches!(command, Command::Backend(_) | Command::Ceiling(_)) {
        process::handle_stop()?;
    }
    match command {
        Command::Idle(options) => idle::run(&options, &available).map(drop),
        Command::Load(options) => load::run(&options, &available),
        Command::Compare(options) => compare::run(&options, &available),
        Command::Backend(options) => backend::run(&options),
        Command::Ceiling(options) => ceiling::run(&options),
    }
}
