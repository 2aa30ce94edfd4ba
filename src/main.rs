//! The binary: arguments → configuration → gateway.

use std::process::ExitCode;

use tangelo::gateway::load::{self, ArgsError};
use tangelo::{Error, Gateway};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = match load::from_args(std::env::args_os()) {
        Ok(config) => config,
        Err(ArgsError::Usage(error)) => error.exit(),
        Err(ArgsError::Config(error)) => return refuse(&error),
    };
    match Gateway::new(config).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ Error::Shard(_)) => {
            eprintln!("tangelo: {error}");
            ExitCode::FAILURE
        }
        Err(error) => refuse(&error),
    }
}

/// One plain line and exit code 2.
fn refuse(error: &Error) -> ExitCode {
    eprintln!("tangelo: {error}");
    ExitCode::from(2)
}
