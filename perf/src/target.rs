//! The server under test with everything it needs around it, or one that runs already.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::cores::Cores;
use crate::peers::{self, BACKEND, CONNECTOR, Cluster, Dialect};
use crate::process::{self, Memory, Process, cpu_of, memory_of, to_pid};
use crate::tls::{Certificate, Dial, Tls};

const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval of the buffer scheduler, as Pomelo and the gateway have it by default.
const FLUSH_MS: &str = "20";
const LISTENING: &str = "tangelo listening on ";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The gateway
    Tangelo,
    /// The bare loop of the command `ceiling`
    Ceiling,
    /// The echo over µWebSockets in `peers/uwebsockets`, which is built on demand
    Uwebsockets,
    /// The frontend of Pomelo 2.2.7
    Pomelo,
    /// The frontend of Pinus 1.7.4
    Pinus,
}

/// The backend that answers forwarded messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Backend {
    /// The fast one of the command `backend`
    Synthetic,
    /// A Pomelo backend; for the Pinus frontend, a Pinus backend
    Genuine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scheduler {
    Direct,
    Buffer,
}

/// How to start a server.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Start {
    /// Server to start
    #[arg(long, alias = "peer", value_enum, default_value_t = Kind::Tangelo)]
    pub(crate) server: Kind,
    /// The gateway's binary; by default the one beside this program
    #[arg(long)]
    pub(crate) tangelo: Option<PathBuf>,
    /// Shards of the gateway
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: u16,
    /// Cores of the server; by default the number of shards
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    cores: Option<u16>,
    /// Further argument for the gateway, or word for the application of Pomelo or Pinus; may be repeated
    #[arg(long = "server-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) server_args: Vec<String>,
    /// Backend that answers forwarded messages
    #[arg(long, value_enum, default_value_t = Backend::Synthetic)]
    pub(crate) backend: Backend,
    /// Number of backends; more than one are one synthetic process with a link for each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) backends: u16,
    /// Push scheduler of the server
    #[arg(long, value_enum, default_value_t = Scheduler::Direct)]
    pub(crate) scheduler: Scheduler,
    /// Server that ends the TLS of the clients
    #[arg(long, value_enum, default_value_t = Tls::Off)]
    pub(crate) tls: Tls,
    /// Heartbeat interval that the server asks for, in seconds; by default none
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) heartbeat: Option<u16>,
}

/// The servers that a kind of work needs beside the frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Around {
    Nothing,
    /// A master, and a frontend that backends can call.
    Master,
    /// The same with a backend.
    Backend,
}

impl Start {
    pub(crate) fn cores(&self) -> u16 {
        self.cores.unwrap_or(self.shards)
    }

    /// The same, for another server.
    pub(crate) fn with_server(&self, server: Kind) -> Self {
        Self {
            server,
            ..self.clone()
        }
    }

    /// Starts everything: the server on its cores, the rest where the load is.
    pub(crate) fn run(&self, around: Around, cores: &Cores) -> io::Result<Target> {
        cores.pin_to_load()?;
        let dialect = match self.server {
            Kind::Tangelo if around == Around::Nothing => None,
            Kind::Tangelo | Kind::Pomelo => Some(Dialect::Pomelo),
            Kind::Pinus => Some(Dialect::Pinus),
            Kind::Ceiling | Kind::Uwebsockets => None,
        };
        let cluster = dialect.map(Cluster::start).transpose()?;
        let (backend, backend_address) = match around {
            Around::Backend => {
                let (process, address) = self.run_backend(cluster.as_ref())?;
                (Some(process), Some(address))
            }
            _ => (None, None),
        };
        let certificate = match self.tls {
            Tls::Off => None,
            Tls::Gateway | Tls::Haproxy => Some(Certificate::make()?),
        };
        cores.pin_to_server()?;
        let started = self.run_server(cluster.as_ref(), backend_address, certificate.as_ref());
        let started = started.and_then(|(server, address)| match &certificate {
            Some(certificate) if self.tls == Tls::Haproxy => {
                let (proxy, front) = certificate.start_haproxy(address)?;
                Ok((vec![proxy, server], certificate.dial(front)?))
            }
            Some(certificate) => Ok((vec![server], certificate.dial(address)?)),
            None => Ok((vec![server], Dial::plain(address))),
        });
        cores.pin_to_load()?;
        let (servers, dial) = started?;
        Ok(Target {
            name: self.to_string(),
            dial,
            pids: servers.iter().map(Process::pid).collect(),
            rpc: cluster.as_ref().map(Cluster::connector),
            _processes: servers.into_iter().chain(backend).collect(),
            _certificate: certificate,
            _cluster: cluster,
        })
    }

    /// Starts the backend; with a cluster, as a member of it.
    fn run_backend(&self, cluster: Option<&Cluster>) -> io::Result<(Process, SocketAddr)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("backend");
        if let Some(cluster) = cluster {
            if self.backend == Backend::Genuine {
                return Ok((cluster.start_backend()?, cluster.backend()));
            }
            command.args(["--listen", &cluster.backend().to_string()]);
            command.args(["--master", &cluster.master().to_string()]);
            command.args(["--count", &self.backends.to_string()]);
            if let Some(folder) = cluster.remotes() {
                command.arg("--remotes").arg(folder);
            }
        }
        Process::start(BACKEND, &mut command, START_TIMEOUT, listening)
    }

    fn run_server(
        &self,
        cluster: Option<&Cluster>,
        backend: Option<SocketAddr>,
        certificate: Option<&Certificate>,
    ) -> io::Result<(Process, SocketAddr)> {
        if let (Kind::Pomelo | Kind::Pinus, Some(cluster)) = (self.server, cluster) {
            let mut extra = Vec::new();
            if self.scheduler == Scheduler::Buffer {
                extra.push("scheduler=buffer".to_owned());
            }
            extra.extend(self.heartbeat.map(|seconds| format!("heartbeat={seconds}")));
            extra.extend_from_slice(&self.server_args);
            return Ok((cluster.start_connector(&extra)?, cluster.clients()));
        }
        if self.server == Kind::Uwebsockets {
            let mut command = Command::new(peers::build_uwebsockets()?);
            return Process::start(self.to_string(), &mut command, START_TIMEOUT, listening);
        }
        let beside = std::env::current_exe()?;
        let mut command = if self.server == Kind::Ceiling {
            let mut command = Command::new(beside);
            command.arg("ceiling");
            if let Some(seconds) = self.heartbeat {
                command.args(["--heartbeat", &seconds.to_string()]);
            }
            if let Some(address) = backend {
                command.args(["--backend", &address.to_string()]);
                command.args(["--links", &self.backends.to_string()]);
            }
            if self.scheduler == Scheduler::Buffer {
                command.args(["--flush", FLUSH_MS]);
            }
            command
        } else {
            let path = self.tangelo.clone();
            let mut command =
                Command::new(path.unwrap_or_else(|| beside.with_file_name("tangelo")));
            command.args(["--shards", &self.shards.to_string()]);
            // The cores of the process are chosen here; some versions of the gateway pin by default.
            command.args(["--set", "pin=false"]);
            // A session of a load asks more often than a player.
            for setting in [
                "client.messages_per_second=off",
                "client.bytes_per_second=off",
            ] {
                if knows(command.get_program(), setting) {
                    command.args(["--set", setting]);
                }
            }
            if let Some(cluster) = cluster {
                command.arg("--app-dir").arg(cluster.app_dir());
                command.args(["--id", CONNECTOR]);
            }
            if self.scheduler == Scheduler::Buffer {
                command.args(["--set", "push.scheduler=buffer"]);
            }
            if let Some(seconds) = self.heartbeat {
                command.args(["--set", &format!("client.heartbeat={seconds}s")]);
            }
            command.args(&self.server_args);
            command
        };
        match certificate {
            Some(certificate) if self.tls == Tls::Gateway => {
                command.args(certificate.gateway_args());
            }
            _ => {
                command.args(["--listen", "127.0.0.1:0"]);
            }
        }
        Process::start(self.to_string(), &mut command, START_TIMEOUT, listening)
    }
}

fn listening(line: &str) -> Option<SocketAddr> {
    let rest = line.strip_prefix(LISTENING)?;
    rest.split_whitespace().next()?.parse().ok()
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.server {
            Kind::Tangelo => write!(f, "tangelo --shards {}", self.shards),
            Kind::Ceiling => f.write_str("ceiling"),
            Kind::Uwebsockets => f.write_str("µWebSockets"),
            Kind::Pomelo => f.write_str("Pomelo"),
            Kind::Pinus => f.write_str("Pinus"),
        }?;
        if self.scheduler == Scheduler::Buffer {
            f.write_str(", buffer scheduler")?;
        }
        match self.tls {
            Tls::Off => Ok(()),
            Tls::Gateway => f.write_str(", TLS"),
            Tls::Haproxy => f.write_str(", TLS by HAProxy"),
        }
    }
}

/// A running server. One that was started here is stopped when this is dropped, before the others
/// around it.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) dial: Dial,
    /// Where it takes calls of backends.
    pub(crate) rpc: Option<SocketAddr>,
    /// The server, and what stands in front of it.
    pids: Vec<Pid>,
    _processes: Vec<Process>,
    _certificate: Option<Certificate>,
    _cluster: Option<Cluster>,
}

impl Target {
    pub(crate) fn running(
        address: SocketAddr,
        pid: u32,
        rpc: Option<SocketAddr>,
    ) -> io::Result<Self> {
        let mut addresses = [Some(address), rpc].into_iter().flatten();
        if let Some(address) = addresses.find(|address| !address.ip().is_loopback()) {
            let text = format!("{address} is not a loopback address");
            return Err(io::Error::other(text));
        }
        let target = Self {
            name: format!("pid {pid}"),
            dial: Dial::plain(address),
            rpc,
            pids: vec![to_pid(pid)?],
            _processes: Vec::new(),
            _certificate: None,
            _cluster: None,
        };
        target.cpu()?;
        Ok(target)
    }

    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        self.pids.iter().map(|pid| cpu_of(*pid)).sum()
    }

    pub(crate) fn memory(&self) -> io::Result<Memory> {
        let mut sum = Memory {
            resident: 0,
            anonymous: 0,
        };
        for pid in &self.pids {
            let memory = memory_of(*pid)?;
            sum.resident += memory.resident;
            sum.anonymous += memory.anonymous;
        }
        Ok(sum)
    }

    /// Returns when it has used less than 1 % of a core for 300 ms, or after 10 s.
    pub(crate) fn wait_until_quiet(&self) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let before = self.cpu()?;
            thread::sleep(Duration::from_millis(300));
            if self.cpu()? - before < Duration::from_millis(3) || Instant::now() > deadline {
                return Ok(());
            }
        }
    }
}

/// Refuses more sessions than both sides can hold.
pub(crate) fn check_sessions(sessions: u32) -> io::Result<()> {
    let max = process::sessions_max();
    if sessions > max {
        let text = format!("the file limit allows {max} sessions instead of {sessions}");
        return Err(io::Error::other(text));
    }
    Ok(())
}

/// Returns whether a version of the gateway takes a setting.
fn knows(program: &OsStr, setting: &str) -> bool {
    let check = Command::new(program)
        .args(["config", "--set", setting])
        .output();
    check.is_ok_and(|output| output.status.success())
}
