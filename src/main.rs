//! The binary: arguments → configuration → gateway.

use std::process::ExitCode;

use tangelo::config::LogFormat;
use tangelo::gateway::load::{self, ArgsError};
use tangelo::{Error, Gateway, log};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = match load::from_args(std::env::args_os()) {
        Ok(config) => config,
        Err(ArgsError::Usage(error)) => error.exit(),
        Err(ArgsError::Config(error)) => {
            return refuse(load::log_format(std::env::args_os()), &error);
        }
    };
    let format = config.log.format;
    match Gateway::new(config).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ Error::Shard(_)) => {
            log::last_words(format, &error);
            ExitCode::FAILURE
        }
        Err(error) => refuse(format, &error),
    }
}

/// One line and exit code 2.
fn refuse(format: LogFormat, error: &Error) -> ExitCode {
    log::last_words(format, error);
    ExitCode::from(2)
}
