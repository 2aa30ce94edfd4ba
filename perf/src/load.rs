//! `load`: clients that do one kind of work, in a closed loop or at a fixed rate, against one
//! server or against two in turn.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clients::Body;
use crate::cores::Cores;
use crate::measure::{Measured, measure};
use crate::target::{Around, Backend, Kind, Start, Target, check_sessions};
use crate::tls::Tls;
use crate::wire::Transport;

mod broadcast;
mod connect;
mod exchange;

use broadcast::Broadcast;
use connect::Connect;
use exchange::{Exchange, NOTIFIES};

/// Rounds of a comparison: A B A B.
const ROUNDS: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Work {
    /// Requests that the server answers itself
    Request,
    /// Requests that a backend answers
    Forward,
    /// Requests of the frontend's own type that a backend answers, as its delegate
    Delegate,
    /// Notifies to a backend: fifteen, and a request behind them
    Notify,
    /// New connections, each closed after its handshake
    Connect,
    /// Heartbeats, which the server answers
    Heartbeat,
    /// A backend's push to the users of all sessions
    Push,
    /// A backend's broadcast to all sessions
    Broadcast,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) start: Start,
    /// Kind of work that the clients do
    #[arg(long, value_enum, default_value_t = Work::Request)]
    pub(crate) kind: Work,
    /// Connections, each with a session of its own; with --kind connect, the number at one time
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) connections: u32,
    /// Messages in flight at most: per connection; for pushes and broadcasts, in all
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) depth: u32,
    /// Open loop: messages per second over all connections, with latency from the planned time of each
    /// message; without this option each answer sends the next message
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,
    /// Length of the measurement, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Length of the warm-up before it, in seconds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=60))]
    warm_up: u64,
    /// Bytes of the JSON body
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(Body::BYTES_MIN..=32_768))]
    pub(crate) body: u32,
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub(crate) transport: Transport,
    /// Further connections, each with 1024 requests in flight; the load does not measure them
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) flood: u32,
    /// Address of a server that runs already; needs --pid
    #[arg(long, requires = "pid")]
    address: Option<SocketAddr>,
    /// Process id of that server, for its CPU time
    #[arg(long, requires = "address")]
    pid: Option<u32>,
    /// Address at which that server takes calls of backends; for pushes and broadcasts
    #[arg(long, requires = "address")]
    rpc: Option<SocketAddr>,
    /// Second server to run in turn with the first; prints the ratio of CPU
    #[arg(long, value_enum)]
    against: Option<Kind>,
}

pub(crate) fn run(options: &Options, available: &[usize]) -> io::Result<()> {
    println!("load: {options}");
    let Some(against) = options.against else {
        return print(options, available).map(drop);
    };
    let other = Options {
        start: options.start.with_server(against),
        // A comparison always starts its other side; a given server is only the first.
        address: None,
        ..options.clone()
    };
    let (mut ours, mut theirs) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        let (a, b) = (print(options, available)?, print(&other, available)?);
        println!("  ratio of CPU: {:.2}", a / b);
        (ours, theirs) = (ours + a, theirs + b);
    }
    println!("ratio of CPU over {ROUNDS} rounds: {:.2}", ours / theirs);
    Ok(())
}

fn print(options: &Options, available: &[usize]) -> io::Result<f64> {
    let measured = run_once(options, available)?;
    measured.print();
    Ok(measured.cpu_us())
}

/// One run against one server.
pub(crate) fn run_once(options: &Options, available: &[usize]) -> io::Result<Measured> {
    if let Some(wrong) = options.contradiction() {
        return Err(io::Error::other(wrong));
    }
    check_sessions(options.connections + options.flood)?;
    let target = options.target(available)?;
    let warm_up = Duration::from_secs(options.warm_up);
    let time = Duration::from_secs(options.seconds);
    match options.kind {
        Work::Push | Work::Broadcast => {
            let mut load = Broadcast::open(options, &target)?;
            measure(
                &target,
                &mut load,
                ["delivery", "deliveries"],
                warm_up,
                time,
            )
        }
        Work::Connect => {
            let mut load = Connect::open(options, target.dial.address)?;
            measure(&target, &mut load, ["session", "sessions"], warm_up, time)
        }
        _ => {
            let mut load = Exchange::open(options, &target.dial)?;
            measure(&target, &mut load, ["message", "messages"], warm_up, time)
        }
    }
}

impl Options {
    /// Returns a message about options that exclude each other.
    fn contradiction(&self) -> Option<&'static str> {
        let pushes = matches!(self.kind, Work::Push | Work::Broadcast);
        let ceiling = self.start.server == Kind::Ceiling;
        let echo = self.kind == Work::Request && self.transport == Transport::Websocket;
        if self.start.server == Kind::Uwebsockets && !echo {
            return Some("--server uwebsockets needs --kind request and --transport websocket");
        }
        match self.kind {
            Work::Heartbeat if self.start.heartbeat.is_none() => {
                Some("--kind heartbeat needs --heartbeat")
            }
            Work::Connect if self.start.tls != Tls::Off => {
                Some("--kind connect speaks without TLS")
            }
            Work::Heartbeat if self.depth != 1 => Some("--kind heartbeat needs --depth 1"),
            // With more, a frontend answers some with an error at once.
            Work::Notify if self.connections * self.depth > 10_000 / NOTIFIES as u32 => Some(
                "--kind notify needs fewer --connections or a smaller --depth: each unit is sixteen calls",
            ),
            _ if self.flood > 0 && pushes => {
                Some("--flood does not go with --kind push or broadcast")
            }
            Work::Connect if self.rate.is_some() || self.flood > 0 => {
                Some("--kind connect goes with neither --rate nor --flood")
            }
            Work::Push | Work::Notify if ceiling => Some(
                "--kind push and --kind notify do not go with --server ceiling, which has no users and answers no notifies",
            ),
            Work::Delegate if self.start.server != Kind::Tangelo => {
                Some("--kind delegate needs --server tangelo, the only one with a delegate")
            }
            Work::Forward if ceiling && self.start.backend == Backend::Genuine => {
                Some("--server ceiling needs --backend synthetic, which answers in order")
            }
            _ if self.start.backends > 1 && self.start.backend == Backend::Genuine => {
                Some("--backends needs --backend synthetic")
            }
            Work::Push if self.start.backend == Backend::Genuine => {
                Some("--kind push needs --backend synthetic, which tells the ids of sessions")
            }
            _ => None,
        }
    }

    fn target(&self, available: &[usize]) -> io::Result<Target> {
        if let Some((address, pid)) = self.address.zip(self.pid) {
            let target = Target::running(address, pid, self.rpc)?;
            println!("{} (not pinned)", target.name);
            return Ok(target);
        }
        let cores = Cores::plan(available, self.start.cores());
        let around = match self.kind {
            Work::Request | Work::Connect | Work::Heartbeat => Around::Nothing,
            Work::Broadcast => Around::Master,
            // A backend tells which session is whose.
            Work::Forward | Work::Delegate | Work::Notify | Work::Push => Around::Backend,
        };
        let target = self.start.run(around, &cores)?;
        println!("{} ({cores})", target.name);
        Ok(target)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}, {} connections, {}, ",
            self.kind, self.connections, self.transport
        )?;
        match self.rate {
            Some(rate) => write!(f, "{rate} a second, at most {} in flight", self.depth)?,
            None => write!(f, "{} in flight", self.depth)?,
        }
        write!(
            f,
            ", {}-byte bodies, {} s after {} s of warm-up",
            self.body, self.seconds, self.warm_up
        )
    }
}
