//! The server under test: started as a child or given by address and pid, and what the kernel says
//! about it.

use std::fmt;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};

use crate::cores::Cores;

const START_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const LISTENING: &str = "tangelo listening on ";

/// Descriptors that a server or the load needs for other things than sessions.
const FILES_RESERVED: u64 = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The gateway
    Tangelo,
    /// The bare loop of the command `ceiling`
    Ceiling,
}

/// How to start a server.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Start {
    /// Which server to start
    #[arg(long, alias = "peer", value_enum, default_value_t = Kind::Tangelo)]
    pub(crate) server: Kind,
    /// The gateway's binary; by default the one beside this program
    #[arg(long)]
    tangelo: Option<PathBuf>,
    /// Shards of the gateway
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: u16,
    /// One more argument for the gateway; may be repeated
    #[arg(long = "server-arg", value_name = "ARG", allow_hyphen_values = true)]
    server_args: Vec<String>,
}

impl Start {
    /// The same, for another server.
    pub(crate) fn with_server(&self, server: Kind) -> Self {
        Self {
            server,
            ..self.clone()
        }
    }

    pub(crate) fn run(&self, cores: &Cores) -> io::Result<Target> {
        let beside = std::env::current_exe()?;
        let mut command = match self.server {
            Kind::Tangelo => {
                let path = self
                    .tangelo
                    .clone()
                    .unwrap_or_else(|| beside.with_file_name("tangelo"));
                let mut command = Command::new(path);
                command
                    .arg("--shards")
                    .arg(self.shards.to_string())
                    .args(&self.server_args);
                command
            }
            Kind::Ceiling => {
                let mut command = Command::new(beside);
                command.arg("ceiling");
                command
            }
        };
        command
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        cores.pin_to_server()?;
        let spawned = command.spawn();
        cores.pin_to_load()?;
        let child = spawned.map_err(|error| {
            let path = command.get_program().display();
            io::Error::new(error.kind(), format!("{path}: {error}"))
        })?;
        Target::from_child(self.to_string(), child)
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.server {
            Kind::Ceiling => write!(f, "ceiling"),
            Kind::Tangelo => write!(f, "tangelo --shards {}", self.shards),
        }
    }
}

/// A running server. One that was started here is stopped when this is dropped.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pid: Pid,
    child: Option<Child>,
}

impl Target {
    pub(crate) fn running(address: SocketAddr, pid: u32) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            return Err(io::Error::other(format!(
                "{address} is not a loopback address"
            )));
        }
        let target = Self {
            name: format!("pid {pid}"),
            address,
            pid: to_pid(pid)?,
            child: None,
        };
        target.cpu()?;
        Ok(target)
    }

    fn from_child(name: String, mut child: Child) -> io::Result<Self> {
        let output = child.stdout.take().expect("standard output is piped");
        let mut target = Self {
            name,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            pid: to_pid(child.id())?,
            child: Some(child),
        };
        let (sender, receiver) = mpsc::channel();
        // Reads on to the end: a server must never block on a pipe that nobody empties.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix(LISTENING) {
                    let word = address.split_whitespace().next().unwrap_or_default();
                    let _ = sender.send(word.parse::<SocketAddr>());
                }
            }
        });
        target.address = receiver
            .recv_timeout(START_TIMEOUT)
            .map_err(|_| io::Error::other(format!("{}: no line `{LISTENING}…`", target.name)))?
            .map_err(|error| io::Error::other(format!("{}: its address: {error}", target.name)))?;
        Ok(target)
    }

    /// CPU time of all its threads, user and kernel. Its resolution is one clock tick, 10 ms.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        cpu_of(&self.pid.as_raw_nonzero().to_string())
    }

    pub(crate) fn memory(&self) -> io::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero()))?;
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
                .map(|kib| kib << 10)
        };
        let both = bytes("VmRSS:").zip(bytes("RssAnon:"));
        let (resident, anonymous) =
            both.ok_or_else(|| io::Error::other("no VmRSS in its status"))?;
        Ok(Memory {
            resident,
            anonymous,
        })
    }

    /// Returns when it has used no CPU for 300 ms, or after 10 s.
    pub(crate) fn wait_until_quiet(&self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let before = self.cpu()?;
            thread::sleep(Duration::from_millis(300));
            if self.cpu()? == before || Instant::now() > deadline {
                return Ok(());
            }
        }
    }

    fn stop(child: &mut Child, pid: Pid) -> io::Result<()> {
        if child.try_wait()?.is_some() {
            return Ok(()); // its pid may belong to someone else by now
        }
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                eprintln!(
                    "tangelo-perf: the server ignored SIGTERM for {STOP_TIMEOUT:?}, killing it"
                );
                child.kill()?;
                child.wait()?;
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child
            && let Err(error) = Self::stop(child, self.pid)
        {
            eprintln!("tangelo-perf: cannot stop the server: {error}");
        }
    }
}

/// Bytes of a process in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) anonymous: u64,
}

/// CPU time of this process.
pub(crate) fn own_cpu() -> io::Result<Duration> {
    cpu_of("self")
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

fn cpu_of(process: &str) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything; field 3 comes after the last of them.
    let ticks = stat.rsplit_once(") ").and_then(|(_, fields)| {
        let mut fields = fields
            .split(' ')
            .skip(11)
            .map(|field| field.parse::<u64>().ok());
        Some(fields.next()?? + fields.next()??)
    });
    let ticks = ticks.ok_or_else(|| io::Error::other("cannot read its CPU time"))?;
    Ok(from_ticks(ticks))
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn to_pid(pid: u32) -> io::Result<Pid> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other("not a process id"))
}
