//! One measurement: a load drives a server for some seconds; CPU, rate and latency are the result.

use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::thread::set_current_timer_slack;

use crate::process;
use crate::target::Target;

/// A server that answers nobody for this long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A kind of work that a measurement drives.
pub(crate) trait Load {
    /// Sends the messages that are due, waits a second at most, and takes the answers.
    fn step(&mut self) -> io::Result<()>;
    /// Returns the counts since the start.
    fn tally(&mut self) -> &mut Tally;
    /// Returns the number of messages from before `start` that have no answer yet.
    fn lost_since(&self, start: Instant) -> usize;
}

/// The counts of a load.
pub(crate) struct Tally {
    /// Messages, deliveries or connections, each of them checked.
    pub(crate) done: u64,
    /// Nanoseconds from the time at which something was to be sent to the read of its answer.
    pub(crate) latency: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new() -> io::Result<Self> {
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3);
        Ok(Self {
            done: 0,
            latency: latency.map_err(|error| io::Error::other(error.to_string()))?,
        })
    }

    pub(crate) fn record(&mut self, done: u64, latency: Duration) {
        self.done += done;
        self.latency.saturating_record(latency.as_nanos() as u64);
    }
}

/// Names of what is counted: one, and many.
pub(crate) type Unit = [&'static str; 2];

pub(crate) struct Measured {
    unit: Unit,
    pub(crate) done: u64,
    elapsed: Duration,
    /// CPU time of the server, of the load, and of everything else on the machine.
    pub(crate) server: Duration,
    pub(crate) own: Duration,
    pub(crate) others: Duration,
    latency: Histogram<u64>,
}

/// Drives `load` for `warm_up`, then measures it for `time`.
pub(crate) fn measure(
    target: &Target,
    load: &mut impl Load,
    unit: Unit,
    warm_up: Duration,
    time: Duration,
) -> io::Result<Measured> {
    // A message of an open loop leaves at its time, not up to 50 µs later. Only here: a child would
    // inherit it.
    set_current_timer_slack(NonZeroU64::new(1))?;
    let measured = measure_exactly(target, load, unit, warm_up, time);
    set_current_timer_slack(None)?;
    measured
}

fn measure_exactly(
    target: &Target,
    load: &mut impl Load,
    unit: Unit,
    warm_up: Duration,
    time: Duration,
) -> io::Result<Measured> {
    drive(load, warm_up)?;
    load.tally().latency.reset();
    let done = load.tally().done;
    let before = (target.cpu()?, process::own_cpu()?, process::machine_cpu()?);
    let start = Instant::now();
    drive(load, time)?;
    let elapsed = start.elapsed();
    let server = target.cpu()? - before.0;
    let own = process::own_cpu()? - before.1;
    let all = process::machine_cpu()? - before.2;
    let (done, latency) = (load.tally().done - done, load.tally().latency.clone());
    // A lost answer slows nothing down; it has to be looked for.
    let deadline = Instant::now() + SILENCE_MAX;
    while load.lost_since(start) > 0 && Instant::now() < deadline {
        load.step()?;
    }
    let lost = load.lost_since(start);
    if lost > 0 {
        let text = format!("{lost} {} got no answer within {elapsed:.1?}", unit[1]);
        return Err(io::Error::other(text));
    }
    Ok(Measured {
        unit,
        done,
        elapsed,
        server,
        own,
        others: all.saturating_sub(server + own),
        latency,
    })
}

fn drive(load: &mut impl Load, time: Duration) -> io::Result<()> {
    let start = Instant::now();
    let (mut seen, mut seen_at) = (load.tally().done, start);
    let (mut shown, mut shown_at) = (seen, start);
    loop {
        load.step()?;
        process::check_stop()?;
        let (now, done) = (Instant::now(), load.tally().done);
        if done > seen {
            (seen, seen_at) = (done, now);
        }
        if now - seen_at > SILENCE_MAX {
            return Err(io::Error::other(format!(
                "the server answered nothing for {SILENCE_MAX:?}"
            )));
        }
        if now - shown_at >= Duration::from_secs(1) {
            let rate = (done - shown) as f64 / (now - shown_at).as_secs_f64();
            show_progress(&format!(
                "{:.0} s, {rate:.0}/s",
                (now - start).as_secs_f64()
            ));
            (shown, shown_at) = (done, now);
        }
        if now - start >= time {
            show_progress("");
            return Ok(());
        }
    }
}

/// A line that the next one overwrites; for people only.
pub(crate) fn show_progress(text: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{text}");
        let _ = stderr.flush();
    }
}

impl Measured {
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }

    /// CPU time of the server for one of what was counted, in µs.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.server.as_secs_f64() * 1e6 / self.done as f64
    }

    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }

    /// Of one core.
    pub(crate) fn percent(&self, cpu: Duration) -> f64 {
        100.0 * cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    pub(crate) fn print(&self) {
        let [one, many] = self.unit;
        println!(
            "  rate     {:.0} {many}/s ({} checked)",
            self.rate(),
            self.done
        );
        println!(
            "  latency  p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {:.3} ms",
            self.latency_ms(0.5),
            self.latency_ms(0.99),
            self.latency_ms(0.999),
            self.latency_ms(1.0)
        );
        println!(
            "  server   {:.3} µs of CPU per {one}, {:.0} % of one core",
            self.cpu_us(),
            self.percent(self.server)
        );
        println!(
            "  load     {:.0} % of one core, everything else {:.0} %",
            self.percent(self.own),
            self.percent(self.others)
        );
    }
}
