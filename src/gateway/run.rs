//! A gateway as a whole program: output, signals, and the start line.

use std::env;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::host;
use super::launcher;
use super::listen::OpenListener;
use super::load::{self, Program};
use super::notify::{News, Supervisor};
use super::reload::{Reload, Reloads};
use super::start_lines::StartLines;
use super::{Gateway, Running, Starting, Stopper, cannot_start, report};
use crate::checked::CheckedConfig;
use crate::config::{Config, LogFormat, TlsMode};
use crate::error::{Error, Result};
use crate::log::{self, Output};
use crate::metrics::{Counter, Counters};
use crate::net::reachable;
use crate::shard::activity::Activity;

/// Signals that are caught. Signals that report a fault of the program keep their default. Rust's
/// runtime ignores SIGPIPE, and this must stay so: a caught signal writes to a pipe, which is closed
/// while the process ends, and that write would raise SIGPIPE again and again.
const SIGNALS: [i32; 6] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM];

/// Time between the longest drain and the end of the process.
const STOP_REST: Duration = Duration::from_secs(5);

/// Time between two looks for a shard that hangs in a stop.
const HANG_LOOK: Duration = Duration::from_secs(1);

/// Exit status of a drain that had to cut clients.
const CUT: u8 = 3;

/// Runs the program `tangelo`: reads the command line, serves until the end, and returns the exit code.
pub fn main() -> ExitCode {
    let program = Program {
        name: "tangelo".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        about: "A gateway that replaces the frontend server of a Pomelo or Pinus game cluster. Without --config, \
                --app-dir or a main script it serves a built-in chat room, to try it out."
            .into(),
    };
    let config = match Config::from_args_of(&program) {
        Ok(config) => config,
        Err(error) => return refuse(load::log_format(env::args_os()), &error),
    };
    let format = config.log.format;
    match Gateway::new(config).run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ Error::Shard(_)) => {
            log::last_words(format, &error);
            ExitCode::FAILURE
        }
        Err(error @ Error::Drain(_)) => {
            log::last_words(format, &error);
            ExitCode::from(CUT)
        }
        Err(error) => refuse(format, &error),
    }
}

/// Writes the error as one line and returns exit code 2.
fn refuse(format: LogFormat, error: &Error) -> ExitCode {
    log::last_words(format, error);
    ExitCode::from(2)
}

impl Gateway {
    /// Starts all shards and serves until SIGTERM or SIGINT, or until a shard fails; the binary calls
    /// this. It writes the log as configured, a start line to standard output, and all counters on
    /// SIGUSR1 and at the end. SIGHUP reads the configuration and `client.blacklist_file` again, and changes the keys
    /// that can change while it runs. A second SIGTERM or SIGINT
    /// ends the process at once, with status 1. SIGTERM drains ([`Stopper::drain`]), and so does the end of a launcher.
    ///
    /// Errors: those of [`Gateway::start`] and [`Running::join`]. It replaces the panic hook and the
    /// signal handlers of the process.
    pub fn run(mut self) -> Result<()> {
        // The start lines say the number, and SIGHUP may change it.
        host::fill_in_memory(&mut self.config);
        let output = Arc::new(log::start(&self.config.log)?);
        // The panic of a handler is a log line like any other.
        std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panic")));
        let (lines, page) = (StartLines::new(&self.config), self.page);
        let config = self.config.clone();
        // Before the first shard, so that no signal is lost.
        let mut signals = Signals::new(SIGNALS)
            .map_err(|error| Error::Host(format!("cannot catch signals: {error}")))?;
        launcher::follow()?;
        let (running, starting) = self.launch(Some(output.clone()))?;
        let (supervisor, told) = Supervisor::follow(running.activities.clone())?;
        let reload = Reload::new(config, &running, output.clone(), supervisor.clone());
        let reloads = reload.start()?;
        let handle = signals.handle();
        let control = Arc::new(Control {
            output: output.clone(),
            supervisor,
            latest: running.latest.clone(),
            stopper: running.stopper(),
            counters: running.counters.clone(),
            reread: running.reread.clone(),
            activities: running.activities.clone(),
        });
        control.listen();
        let on_signal = control.clone();
        let waiter = std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || on_signal.run(&mut signals, &reloads))
            .map_err(|error| cannot_start("signals", &error))?;
        let ended = running.stands(&starting).and_then(|running| {
            let Some(servers) = joined(&running, &starting, &lines, &control) else {
                return running.join();
            };
            lines.say(&running, servers, &output);
            control.say_ready(&running);
            if page.is_some()
                && let Some(url) = running.listeners.iter().find_map(page_url)
            {
                let line = format!("open {url} in a browser");
                output.say(&line, [("url", url.into())]);
            }
            running.join()
        });
        handle.close();
        let _ = waiter.join();
        control.say_counters();
        output.end();
        drop(control);
        told.wait();
        ended
    }
}

/// Time after which a line says that the start still waits for the master.
const JOIN_USUAL: Duration = Duration::from_secs(1);

/// Waits until this server is part of its cluster, if it has a master. Returns the number of the other servers, or
/// `None` when the gateway ends first.
fn joined(
    running: &Running,
    starting: &Starting,
    lines: &StartLines,
    control: &Control,
) -> Option<usize> {
    if !lines.has_master() {
        return Some(0);
    }
    let mut is_told = false;
    loop {
        match starting.joined.recv_timeout(JOIN_USUAL) {
            Ok(servers) => return Some(servers),
            Err(RecvTimeoutError::Timeout) if !running.is_ending() => {}
            Err(_) => return None,
        }
        if !std::mem::replace(&mut is_told, true) {
            lines.say_waiting(running, &control.output);
        }
        control
            .supervisor
            .tell(News::Waiting("waits for the master".into()));
    }
}

/// Returns the URL of the page for a browser on this machine; `None` for a listener that does not have the page.
fn page_url(listener: &OpenListener) -> Option<String> {
    let address = listener.address.tcp();
    let address = address.filter(|_| listener.transports.websocket)?;
    let scheme = match listener.tls {
        TlsMode::Required => "https",
        TlsMode::Off | TlsMode::Optional => "http",
    };
    // A browser may refuse to connect to the wildcard address.
    Some(format!("{scheme}://{}/", reachable(address)))
}

/// The signal handler. **Invariant**: it never waits, so its thread is always ready for the next
/// signal.
struct Control {
    output: Arc<Output>,
    supervisor: Supervisor,
    /// The configuration since the last reload.
    latest: Arc<ArcSwap<CheckedConfig>>,
    stopper: Stopper,
    counters: Arc<[Counters]>,
    /// Set to make a shard read the blacklist file again.
    reread: Arc<AtomicBool>,
    /// Of all shards.
    activities: Vec<Arc<Activity>>,
}

impl Control {
    /// Handles signals until their handle is closed.
    fn run(&self, signals: &mut Signals, reloads: &Reloads) {
        let mut is_stopping = false;
        for signal in signals.forever() {
            match signal {
                SIGUSR1 => self.say_counters(),
                SIGHUP => {
                    // The shard that reads the file logs the result.
                    self.reread.store(true, Ordering::Release);
                    reloads.ask();
                }
                SIGINT | SIGTERM if is_stopping => self.cut(signal),
                SIGINT => {
                    is_stopping = true;
                    self.stopper.stop();
                }
                SIGTERM => {
                    is_stopping = true;
                    tracing::info!(clients = self.clients(), "SIGTERM begins the drain");
                    self.stopper.drain();
                }
                _ => tracing::info!("{} has no effect on tangelo", name(signal)),
            }
        }
    }

    /// Tells the service manager that clients are served.
    fn say_ready(&self, running: &Running) {
        let addresses: Vec<String> = running
            .addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        let (addresses, shards) = (addresses.join(", "), running.shards);
        let text = format!("serves clients on {addresses} with {shards} shards");
        self.supervisor.tell(News::Ready(text));
    }

    /// Tells the service manager of the stop, whoever asks for it: a signal, the master, an operator, the application.
    fn listen(self: &Arc<Self>) {
        let (control, stop) = (Arc::downgrade(self), self.stopper.request());
        stop.listen(move |is_drain| {
            if let Some(control) = control.upgrade() {
                control.begin_stop(is_drain);
            }
        });
        if stop.is_made() {
            self.begin_stop(stop.is_drain());
        }
    }

    /// Tells the service manager that the process will end, and within which time, and sees to it.
    fn begin_stop(self: &Arc<Self>, is_drain: bool) {
        let verb = if is_drain { "drains" } else { "stops" };
        let text = format!("{verb}, with {} clients", self.clients());
        // The last words of a process that hangs come a look or two later.
        let within = self.stop_time(is_drain) + 2 * HANG_LOOK;
        self.supervisor.tell(News::Stopping(text, within));
        let control = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("stop".into());
        let watching = thread.spawn(move || end_where_a_shard_hangs(&control, is_drain));
        if let Err(error) = watching {
            tracing::error!(%error, "cannot start the thread that ends this process where a shard hangs");
        }
    }

    /// Returns the longest time of a stop, which SIGHUP may change.
    fn stop_time(&self, is_drain: bool) -> Duration {
        let config = self.latest.load();
        let time = match is_drain {
            true => config.drain.delay + config.drain.timeout,
            false => config.stop_timeout,
        };
        time + STOP_REST
    }

    /// Returns a shard that does not run.
    fn stalled_shard(&self) -> Option<usize> {
        self.activities
            .iter()
            .position(|activity| activity.is_stalled())
    }

    fn say_counters(&self) {
        let counters = report(&self.counters);
        let pairs = counters.split(' ').filter_map(|pair| pair.split_once('='));
        let numbers = pairs.map(|(name, value)| (name.to_owned(), value.parse().unwrap_or(0)));
        let numbers: serde_json::Map<String, Value> = numbers
            .map(|(name, value): (_, u64)| (name, value.into()))
            .collect();
        let line = format!("counters {counters}");
        self.output.say(&line, [("counters", numbers.into())]);
    }

    /// Returns the number of open connections.
    fn clients(&self) -> u64 {
        let connections = |counters: &Counters| counters.get(Counter::Connections);
        self.counters.iter().map(connections).sum()
    }

    /// Ends the process at once, without waiting for clients and the application.
    fn cut(&self, signal: i32) -> ! {
        tracing::error!(
            clients = self.clients(),
            "{} came a second time: the process ends at once and cuts the connections of its clients",
            name(signal)
        );
        self.end_at_once();
    }

    fn end_at_once(&self) -> ! {
        self.say_counters();
        self.output.end();
        low_level::exit(1);
    }
}

/// Ends the process where the time of its stop is over and a shard has not run for the last part of it: that shard would
/// never stop. Returns when the process has stopped, or stops in another way, which has a time of its own.
fn end_where_a_shard_hangs(control: &Weak<Control>, is_drain: bool) {
    let (mut waited, mut hung) = (Duration::ZERO, Duration::ZERO);
    // The shards may still go by a longer time than SIGHUP has set since.
    let mut time = Duration::ZERO;
    loop {
        std::thread::sleep(HANG_LOOK);
        waited += HANG_LOOK;
        let Some(control) = control.upgrade() else {
            return;
        };
        if control.stopper.request().is_drain() != is_drain {
            return;
        }
        time = time.max(control.stop_time(is_drain));
        let stalled = control.stalled_shard();
        hung = stalled.map_or(Duration::ZERO, |_| hung + HANG_LOOK);
        if let Some(shard) = stalled
            && waited >= time
            && hung >= STOP_REST
        {
            tracing::error!(
                clients = control.clients(),
                "the time of the stop is over and shard {shard} still hangs in {}: the process ends at once and cuts the \
                 connections of its clients",
                control.activities[shard].work()
            );
            control.end_at_once();
        }
    }
}

fn name(signal: i32) -> &'static str {
    low_level::signal_name(signal).unwrap_or("a signal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ListenAddress, Transports};

    #[test]
    fn the_page_has_an_address_that_a_browser_opens() {
        for (address, tls, url) in [
            ("127.0.0.1:3010", TlsMode::Off, "http://127.0.0.1:3010/"),
            ("0.0.0.0:3010", TlsMode::Optional, "http://127.0.0.1:3010/"),
            ("192.0.2.7:80", TlsMode::Required, "https://192.0.2.7:80/"),
            ("[::1]:3010", TlsMode::Off, "http://[::1]:3010/"),
            ("[::]:3010", TlsMode::Off, "http://127.0.0.1:3010/"),
        ] {
            let mut listener = OpenListener {
                address: ListenAddress::Tcp(address.parse().unwrap()),
                transports: Transports::ALL,
                tls,
                proxy_protocol: None,
            };
            assert_eq!(page_url(&listener).as_deref(), Some(url));
            listener.transports.websocket = false;
            assert_eq!(page_url(&listener), None);
        }
    }
}
