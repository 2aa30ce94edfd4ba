//! A gateway as a whole program: log, signals, a line when it listens.

use std::io::Write as _;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::{Gateway, Running};
use crate::error::{Error, Result};
use crate::log;

impl Gateway {
    /// Starts all shards and serves until SIGTERM or SIGINT, or until a shard fails: what the binary
    /// does. Writes the log where the configuration says, one line to standard output when it
    /// listens, and all counters on SIGUSR1 and at the end.
    ///
    /// Errors: as [`Gateway::start`] and [`Running::join`]. Takes the process' panic hook and its signals.
    pub fn run(self) -> Result<()> {
        let log = log::start(&self.config.log)?;
        // A handler's panic is a line of the log like any other, not a text in between.
        std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panic")));
        let (id, page) = (self.config.id.clone(), self.page);
        // Before the first shard, so that no signal finds nobody at home.
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])
            .map_err(|error| Error::Host(format!("cannot catch signals: {error}")))?;
        let (running, starting) = self.launch()?;
        let address = running.address();
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
        let ended = running.stands(&starting).and_then(|running| {
            say(&start_line(&running, &id));
            if page.is_some() {
                say(&format!("open http://{address}/ in a browser"));
            }
            running.join()
        });
        handle.close();
        let _ = waiter.join();
        say(&format!("counters {}", counters()));
        drop(log);
        ended
    }
}

/// Says where clients connect, how many fit, and how the shards run. Programs read this line up to the
/// number of shards.
fn start_line(running: &Running, id: &str) -> String {
    let (address, shards) = (running.address, running.shards);
    let (pinning, clients_max) = (&running.pinning, running.clients_max);
    format!(
        "tangelo listening on {address} id {id} shards {shards} ({pinning}) clients up to {clients_max}"
    )
}

/// A line on standard output; a closed one is no reason to end.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
