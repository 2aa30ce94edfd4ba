//! `idle`: memory and CPU of sessions that do nothing.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::cores::Cores;
use crate::process::{Memory, check_stop, sessions_max};
use crate::session::{self, ECHO_ROUTE};
use crate::target::{Around, Start, Target};
use crate::tls::Connection;
use crate::wire::{Framing, Transport};

/// The bound on the time that opening all sessions takes.
const OPEN_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    start: Start,
    /// Sessions to open; fewer if the file limit is lower
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    sessions: u32,
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    transport: Transport,
    /// Seconds for which the CPU of the server is watched while nobody sends
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=120))]
    watch: u64,
}

pub(crate) struct Idle {
    /// Before the first session.
    base: Memory,
    full: Memory,
    sessions: u32,
    /// CPU time of the server while nobody sent, and this time itself.
    cpu: Duration,
    watched: Duration,
}

impl Idle {
    /// Returns how busy the server was while nobody sent, in percent of one core.
    pub(crate) fn percent(&self) -> f64 {
        100.0 * self.cpu.as_secs_f64() / self.watched.as_secs_f64()
    }

    pub(crate) fn base_mib(&self) -> f64 {
        self.base.resident as f64 / f64::from(1 << 20)
    }

    pub(crate) fn bytes_per_session(&self) -> f64 {
        let grown = self.full.resident.saturating_sub(self.base.resident);
        grown as f64 / f64::from(self.sessions)
    }
}

pub(crate) fn run(options: &Options, available: &[usize]) -> io::Result<Idle> {
    let sessions = options.sessions.min(sessions_max());
    if sessions < options.sessions {
        println!(
            "the file limit allows {sessions} sessions instead of {}",
            options.sessions
        );
    }
    let cores = Cores::plan(available, options.start.cores());
    let target = options.start.run(Around::Nothing, &cores)?;
    println!(
        "{} ({cores}), {sessions} sessions, {}",
        target.name, options.transport
    );

    target.wait_until_quiet()?;
    let base = target.memory()?;
    print("before the first session", base);

    let mut sockets = open_all(&target, options.transport, sessions)?;
    target.wait_until_quiet()?;
    let full = target.memory()?;
    print("with all of them open", full);
    print_per_session("per session", base, full, sessions);

    let (before, start) = (target.cpu()?, Instant::now());
    while start.elapsed() < Duration::from_secs(options.watch) {
        thread::sleep(Duration::from_millis(100));
        check_stop()?;
    }
    let (cpu, watched) = (target.cpu()? - before, start.elapsed());
    println!(
        "  idle CPU over {} s: {} ms",
        options.watch,
        cpu.as_millis()
    );

    // Last, because it changes what was measured above: sessions that have once sent something
    // may keep a buffer. It also proves that all of them were alive and past their ack.
    let framing = Framing {
        transport: options.transport,
        client: true,
    };
    for socket in &mut sockets {
        session::check(socket, framing, ECHO_ROUTE, br#"{"n":1}"#)?;
    }
    target.wait_until_quiet()?;
    let after = target.memory()?;
    print_per_session("per session, after one request each", base, after, sessions);
    Ok(Idle {
        base,
        full,
        sessions,
        cpu,
        watched,
    })
}

/// One after the other: each is verified before the next, and no listen queue overflows.
fn open_all(target: &Target, transport: Transport, sessions: u32) -> io::Result<Vec<Connection>> {
    let start = Instant::now();
    let mut sockets = Vec::new();
    for index in 0..sessions {
        let socket = session::open(&target.dial, transport, false).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("after {index} of {sessions} sessions: {error}"),
            )
        })?;
        sockets.push(socket);
        check_stop()?;
        if start.elapsed() > OPEN_MAX {
            let text = format!("the server did not open {sessions} sessions within {OPEN_MAX:?}");
            return Err(io::Error::other(text));
        }
    }
    println!("  opened in {:.1} s", start.elapsed().as_secs_f64());
    Ok(sockets)
}

fn print(when: &str, memory: Memory) {
    let kib = |bytes| bytes >> 10;
    println!(
        "  {when}: VmRSS {} KiB, RssAnon {} KiB",
        kib(memory.resident),
        kib(memory.anonymous)
    );
}

fn print_per_session(what: &str, base: Memory, now: Memory, sessions: u32) {
    let each = |base: u64, now: u64| now.saturating_sub(base) / u64::from(sessions);
    println!(
        "  {what}: {} bytes of VmRSS, {} bytes of RssAnon",
        each(base.resident, now.resident),
        each(base.anonymous, now.anonymous)
    );
}
