//! Who misbehaved, and what is told to whom.
//!
//! [`Error`] speaks to the operator and is public. [`Fault`] says why one connection ends and
//! crosses rooms; each has a counter of its own name (`metrics.rs`).

use std::fmt;

/// Result of the public interface.
pub type Result<T> = std::result::Result<T, Error>;

/// Why tangelo refuses to start or had to stop. The text names file, key, value and what would be
/// accepted; it is meant to be shown as it is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Configuration file, project file or flag.
    Config(String),
    /// What the machine offers: memory lock limit, io_uring, file limit, ports.
    Host(String),
    /// What the application gave to [`Gateway::handlers`](crate::Gateway::handlers) or to the builder of a
    /// [pool](crate::pool).
    Handlers(String),
    /// A shard ended although nobody asked it to.
    Shard(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) | Self::Host(text) | Self::Handlers(text) | Self::Shard(text) => {
                f.write_str(text)
            }
        }
    }
}

/// The same text: what a `main` that returns an error prints is for people.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// Why one client's connection ends. Each is counted under `closed_` and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client closed, or half-closed, its side.
    Left,
    /// Reading or writing the socket failed.
    Socket,
    /// Package type not 1..=5.
    PackageType,
    /// Package body over the configured bound.
    PackageTooLong,
    /// A WebSocket message that is not exactly one package.
    PackageCount,
    /// A kick package from a client.
    PackageKick,
    /// A data package without a message, or with one cut short.
    MessageCut,
    /// Message id over 2^31 - 1.
    MessageId,
    /// A body that the proto of its route cannot read.
    MessageBody,
    /// A message for another server type, where such are not taken.
    NotForwarded,
    /// Bytes that are not WebSocket; the close code that says so.
    WebSocket(u16),
    /// An HTTP request that cannot be read; it got status 400.
    Http,
    /// An HTTP request that got the page, or status 404 where there is one.
    HttpAnswered,
    /// Handshake refused.
    Handshake,
    /// No heartbeat for the configured time.
    HeartbeatTimeout,
    /// No byte for the configured time.
    IdleTimeout,
    /// More bytes waiting for the client than its outbox holds.
    OutboxFull,
    /// Kicked.
    Kicked,
    /// More connections than `client.max_connections`.
    MaxConnections,
    /// tangelo is stopping.
    Stopping,
    /// Its address is on a blacklist.
    Blacklisted,
    /// An HTTP request whose head is too long; it got status 431.
    HttpTooLong,
    /// A WebSocket upgrade that is wrong; it got status 400.
    HttpBadUpgrade,
    /// An HTTP request without an upgrade; it got status 426.
    HttpNoUpgrade,
}

impl Fault {
    /// Number of kinds, for a table of counters.
    pub const COUNT: usize = Self::NAMES.len();

    /// Names of the counters, by [`Fault::index`].
    pub const NAMES: [&'static str; 24] = [
        "closed_left",
        "closed_socket",
        "closed_package_type",
        "closed_package_too_long",
        "closed_package_count",
        "closed_package_kick",
        "closed_message_cut",
        "closed_message_id",
        "closed_message_body",
        "closed_not_forwarded",
        "closed_websocket",
        "closed_http",
        "closed_http_answered",
        "closed_handshake",
        "closed_heartbeat_timeout",
        "closed_idle_timeout",
        "closed_outbox_full",
        "closed_kicked",
        "closed_max_connections",
        "closed_stopping",
        "closed_blacklisted",
        "closed_http_too_long",
        "closed_http_bad_upgrade",
        "closed_http_no_upgrade",
    ];

    /// Its place in [`Fault::NAMES`].
    pub fn index(self) -> usize {
        match self {
            Self::Left => 0,
            Self::Socket => 1,
            Self::PackageType => 2,
            Self::PackageTooLong => 3,
            Self::PackageCount => 4,
            Self::PackageKick => 5,
            Self::MessageCut => 6,
            Self::MessageId => 7,
            Self::MessageBody => 8,
            Self::NotForwarded => 9,
            Self::WebSocket(_) => 10,
            Self::Http => 11,
            Self::HttpAnswered => 12,
            Self::Handshake => 13,
            Self::HeartbeatTimeout => 14,
            Self::IdleTimeout => 15,
            Self::OutboxFull => 16,
            Self::Kicked => 17,
            Self::MaxConnections => 18,
            Self::Stopping => 19,
            Self::Blacklisted => 20,
            Self::HttpTooLong => 21,
            Self::HttpBadUpgrade => 22,
            Self::HttpNoUpgrade => 23,
        }
    }
}
