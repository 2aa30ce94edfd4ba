//! A child process, which ends with the value that holds it, and what the kernel says about a
//! process: CPU time and memory.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Descriptors that a server or the load needs for other things than sessions.
const FILES_RESERVED: u64 = 200;

/// Where the servers of a cluster listen. Below the range from which the kernel takes ports for
/// outgoing connections, so that none of those gets in between.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Lines of output that a failed start shows.
const LINES_SHOWN: usize = 20;

/// A child. Dropping it stops it, by its pid.
pub(crate) struct Process {
    name: String,
    child: Child,
    pid: Pid,
}

impl Process {
    /// Starts it; its lines of output come through the channel.
    pub(crate) fn spawn(
        name: impl Into<String>,
        command: &mut Command,
    ) -> io::Result<(Self, Receiver<String>)> {
        let name = name.into();
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            let path = command.get_program().display();
            io::Error::new(error.kind(), format!("{path}: {error}"))
        })?;
        let output = child.stdout.take().expect("standard output is piped");
        let pid = to_pid(child.id())?;
        let (sender, lines) = mpsc::channel();
        // Reads on to the end: a server must never block on a pipe that nobody empties.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok((Self { name, child, pid }, lines))
    }

    /// Starts it and waits for the line in which `ready` finds what it looks for.
    pub(crate) fn start<T>(
        name: impl Into<String>,
        command: &mut Command,
        timeout: Duration,
        ready: impl Fn(&str) -> Option<T>,
    ) -> io::Result<(Self, T)> {
        let (process, lines) = Self::spawn(name, command)?;
        let deadline = Instant::now() + timeout;
        let mut other = Vec::new();
        loop {
            check_stop()?;
            let line = match lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => Some(line),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => continue,
                Err(_) => None,
            };
            let Some(line) = line else {
                let shown = other[other.len().saturating_sub(LINES_SHOWN)..].join("\n");
                let text = format!("{} does not start\n{shown}", process.name);
                return Err(io::Error::other(text));
            };
            match ready(&line) {
                Some(found) => return Ok((process, found)),
                None => other.push(line),
            }
        }
    }

    /// Waits for its end. `false`: it failed, or `timeout` passed.
    pub(crate) fn succeeds(&mut self, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.success());
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            check_stop()?;
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    fn stop(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(()); // its pid may belong to someone else by now
        }
        kill_process(self.pid, Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                eprintln!(
                    "tangelo-perf: {} ignored SIGTERM for {STOP_TIMEOUT:?}, killing it",
                    self.name
                );
                self.child.kill()?;
                self.child.wait()?;
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("tangelo-perf: cannot stop {}: {error}", self.name);
        }
    }
}

/// Bytes of a process in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) anonymous: u64,
}

pub(crate) fn memory_of(pid: Pid) -> io::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()))?;
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kib = line.split_whitespace().next()?.parse::<u64>().ok()?;
        Some(kib << 10)
    };
    let both = bytes("VmRSS:").zip(bytes("RssAnon:"));
    let (resident, anonymous) = both.ok_or_else(|| io::Error::other("no VmRSS in its status"))?;
    Ok(Memory {
        resident,
        anonymous,
    })
}

/// CPU time of all running threads of a process, user and kernel. Its resolution is that of the scheduler's tick for
/// threads that run now, and a nanosecond for those that wait. A thread that ends takes its time with it; the threads
/// of servers live on.
pub(crate) fn cpu_of(pid: Pid) -> io::Result<Duration> {
    cpu_of_entry(&pid.as_raw_nonzero().to_string())
}

/// CPU time of this process.
pub(crate) fn own_cpu() -> io::Result<Duration> {
    cpu_of_entry("self")
}

/// CPU time of the whole machine, with what a hypervisor took away: shows a disturbed run.
pub(crate) fn machine_cpu() -> io::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    let ticks = first
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse::<u64>().ok());
    // user, nice, system, (idle, iowait,) irq, softirq, steal
    let busy = ticks
        .take(8)
        .enumerate()
        .filter(|(field, _)| !matches!(field, 3 | 4));
    Ok(from_ticks(busy.map(|(_, ticks)| ticks).sum()))
}

fn cpu_of_entry(entry: &str) -> io::Result<Duration> {
    let mut nanoseconds: u64 = 0;
    for thread in fs::read_dir(format!("/proc/{entry}/task"))? {
        // A thread may end while this reads.
        let Ok(stat) = fs::read_to_string(thread?.path().join("schedstat")) else {
            continue;
        };
        let first = stat
            .split(' ')
            .next()
            .and_then(|field| field.parse::<u64>().ok());
        nanoseconds += first.ok_or_else(|| io::Error::other("cannot read its CPU time"))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on the first SIGINT or SIGTERM is an error in [`check_stop`], so that children are
/// stopped before this process ends; a second one ends it at once.
pub(crate) fn handle_stop() -> io::Result<()> {
    let stop = STOP.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

/// Called in everything that takes time.
pub(crate) fn check_stop() -> io::Result<()> {
    match STOP.get() {
        Some(stop) if stop.load(Ordering::Relaxed) => Err(io::Error::other("stopped by a signal")),
        _ => Ok(()),
    }
}

/// Lifts the soft limit of open files to the hard one; a child inherits it.
pub(crate) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("tangelo-perf: the file limit stays as it is: {error}");
    }
}

/// Sessions that both this process and a child can hold.
pub(crate) fn sessions_max() -> u32 {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    u32::try_from(files.saturating_sub(FILES_RESERVED)).unwrap_or(u32::MAX)
}

/// Ports that nobody listens on now. Two runs at once begin to look at different places.
pub(crate) fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let count = PORTS.end - PORTS.start;
    let first = (std::process::id().wrapping_mul(37) % u32::from(count)) as u16;
    let mut found = Vec::new();
    for step in 0..count {
        let port = PORTS.start + (first + step) % count;
        // On every address, as Pomelo listens.
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            found.push(port);
        }
        if let Ok(ports) = found.as_slice().try_into() {
            return Ok(ports);
        }
    }
    Err(io::Error::other(format!("no {N} free ports in {PORTS:?}")))
}

pub(crate) fn to_pid(pid: u32) -> io::Result<Pid> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("not a process id"))
}
