//! Errors for operators, and faults of connections.
//!
//! [`Error`] is public and written for the operator. [`Fault`] is the reason why one client's
//! connection ends; each has a counter of its own (`metrics.rs`).

use std::fmt;

/// The result of the public interface.
pub type Result<T> = std::result::Result<T, Error>;

/// The reason why tangelo refuses to start or had to stop. The text names file, key, value and the
/// accepted values, and can be shown unchanged.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A fault in a configuration file, a project file or a flag.
    Config(String),
    /// A limit of the machine: locked memory, io_uring, open files, ports.
    Host(String),
    /// A fault in the arguments of [`Gateway::handlers`](crate::Gateway::handlers) or of the builder of
    /// a [pool](crate::pool).
    Handlers(String),
    /// A shard ended without a request to stop.
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

/// Writes the same text, because `main` prints a returned error in this form.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

/// The reason why one client's connection ends. Each is counted under its name after `closed_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client closed or half-closed the connection.
    Left,
    /// A read or write of the socket failed.
    Socket,
    /// A package type outside of 1..=5.
    PackageType,
    /// A package body over the configured bound.
    PackageTooLong,
    /// A WebSocket message that is not exactly one package.
    PackageCount,
    /// A kick package from a client.
    PackageKick,
    /// A data package without a message, or with an incomplete one.
    MessageCut,
    /// A message id over 2^31 - 1.
    MessageId,
    /// A body that the proto of its route cannot decode.
    MessageBody,
    /// A message for another server type on a gateway that does not forward.
    NotForwarded,
    /// Bytes that break the WebSocket protocol; the close code to send.
    WebSocket(u16),
    /// An HTTP request that cannot be parsed; answered with status 400.
    Http,
    /// An HTTP request answered with the page, or with status 404.
    HttpAnswered,
    /// A refused handshake.
    Handshake,
    /// No heartbeat for the configured time.
    HeartbeatTimeout,
    /// No byte for the configured time.
    IdleTimeout,
    /// More bytes wait for the client than its outbox may hold.
    OutboxFull,
    /// The session was kicked.
    Kicked,
    /// More connections than `client.max_connections`.
    MaxConnections,
    /// tangelo is stopping.
    Stopping,
    /// The address of the client is on a blacklist.
    Blacklisted,
    /// An HTTP request with too long a head; answered with status 431.
    HttpTooLong,
    /// An invalid WebSocket upgrade; answered with status 400.
    HttpBadUpgrade,
    /// An HTTP request without an upgrade; answered with status 426.
    HttpNoUpgrade,
}

impl Fault {
    /// Number of faults, for a table of counters.
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

    /// Returns the index into [`Fault::NAMES`].
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
