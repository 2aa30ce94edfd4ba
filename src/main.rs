//! The binary: arguments → configuration → gateway.

use std::io::Write as _;
use std::process::ExitCode;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use tangelo::gateway::load::{self, ArgsError};
use tangelo::{Config, Error, Gateway, log};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = match load::from_args(std::env::args_os()) {
        Ok(config) => config,
        Err(ArgsError::Usage(error)) => error.exit(),
        Err(ArgsError::Config(error)) => return refuse(&error),
    };
    match run(config) {
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

fn run(config: Config) -> tangelo::Result<()> {
    let log = log::start(&config.log)?;
    // A handler's panic is a line of the log like any other, not a text in between.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panic")));
    let (id, embedded) = (config.id.clone(), config.embedded);
    // Before the first shard, so that no signal finds nobody at home.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])
        .map_err(|error| Error::Host(format!("cannot catch signals: {error}")))?;
    let running = Gateway::new(config).start()?;
    let address = running.address();
    say(&format!(
        "tangelo listening on {address} id {id} shards {}",
        running.shards()
    ));
    if embedded {
        say(&format!("open http://{address}/ in two tabs and chat"));
    }
    let (stopper, counters) = (running.stopper(), running.counters_reader());
    let handle = signals.handle();
    let waiter = std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if signal == SIGUSR1 {
                    say(&format!("counters {}", counters()));
                } else {
                    stopper.stop();
                }
            }
        })
        .map_err(|error| Error::Host(format!("cannot start the signal thread: {error}")))?;
    let counters = running.counters_reader();
    let ended = running.join();
    handle.close();
    let _ = waiter.join();
    say(&format!("counters {}", counters()));
    drop(log);
    ended
}

/// A line on standard output; a closed one is no reason to end.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
