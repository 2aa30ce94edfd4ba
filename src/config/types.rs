//! Types of knobs, and the parts of a configuration that come from a project only.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Kind of a push scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// Writes at the end of the turn that produced the packages, one WebSocket message per package.
    Direct,
    /// Collects packages per session and writes them every `flush_interval`, in one WebSocket message.
    Buffer,
}

/// The guards of this gateway against clients and servers that do harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compat {
    /// Deadlines and limits protect the gateway.
    Guarded,
    /// The deadlines and limits that the reference does not have are off.
    Exact,
}

/// Effect of a second login of a uid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DuplicateLogin {
    /// Both sessions stay.
    #[default]
    Allow,
    /// The second login fails. Pomelo: `singleSession`.
    Refuse,
    /// The first session is kicked.
    NewestWins,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Address of a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address with a port; with port 0 the kernel chooses one.
    Tcp(SocketAddr),
    /// The absolute path of a unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ListenAddress {
    /// Returns the address if it is one of TCP.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Returns whether two sockets with these addresses would take each other's connections. With port 0 the kernel
    /// chooses a port that nobody has.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(own), Self::Unix(other)) => own == other,
            (Self::Tcp(own), Self::Tcp(other)) => {
                let (own_ip, other_ip) = (own.ip().to_canonical(), other.ip().to_canonical());
                // `[::]` takes IPv4 too.
                let takes = |all: IpAddr, one: IpAddr| {
                    all.is_unspecified() && (all.is_ipv6() || one.is_ipv4())
                };
                own.port() != 0
                    && own.port() == other.port()
                    && (own_ip == other_ip || takes(own_ip, other_ip) || takes(other_ip, own_ip))
            }
            _ => false,
        }
    }
}

/// The transports that a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transports {
    /// Raw TCP.
    pub tcp: bool,
    /// WebSocket, the page, and the health check.
    pub websocket: bool,
}

impl Transports {
    /// All of them.
    pub const ALL: Self = Self {
        tcp: true,
        websocket: true,
    };
}

/// TLS on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Takes clients without TLS.
    Off,
    /// Takes clients with TLS.
    Required,
    /// Takes both, and tells them apart by the first byte.
    Optional,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Certificates of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No client is asked for one.
    Off,
    /// A client may have one; a wrong one is refused.
    Optional,
    /// A client must have one.
    Required,
}

/// A time at which a function of the application runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    /// Its id, a number or a text, as JSON.
    pub id: String,
    /// Six fields, second first: see [`Schedule`](crate::handler::cron::Schedule).
    pub time: String,
    /// Name of the function, `service.method`, as in [`Router::cron`](crate::handler::Router::cron).
    pub action: String,
}

/// The origin of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// The command line of a master, files and flags, in the order in which they were read.
    pub read: Vec<String>,
    /// The place of each key that a file or a flag has set.
    pub places: BTreeMap<String, String>,
    /// The value of each key, and of each file with values that have no key, as it was read; a program may change it
    /// afterwards.
    pub(crate) values: BTreeMap<&'static str, Option<String>>,
    /// The way to read them again.
    pub(crate) origin: ConfigOrigin,
}

/// The way to read a configuration again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ConfigOrigin {
    /// None: a program has made it.
    #[default]
    Program,
    /// A command line, program name first.
    CommandLine(Vec<OsString>),
    /// A file.
    File(PathBuf),
}

impl Sources {
    /// Returns the place that has set a key, or a part of its value.
    pub(crate) fn place(&self, key: &str) -> Option<&str> {
        let parts = format!("{key}.");
        let has_set = |(place_key, _): &(&String, &String)| {
            *place_key == key || place_key.starts_with(&parts)
        };
        self.places.iter().find(has_set).map(|(_, place)| &**place)
    }
}

/// The master of a cluster, and the description of this server that it gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Master {
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Proof of this server's type: the token of the first entry of that type in `adminServer.json`, `None`
    /// where that entry has no token, null without such an entry, `"ok"` without such a file.
    pub token: Option<serde_json::Value>,
    /// This server as all others see it: the members that a genuine server parses from its command line,
    /// every key of its entry in `servers.json` included.
    pub info: serde_json::Map<String, serde_json::Value>,
    /// Environment, as in [`Config::env`](super::Config::env).
    pub env: String,
}
