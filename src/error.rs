//! Errors and faults: the type says whose fault it is.
//!
//! A protocol machine returns a reason, [`CloseReason`] for a client and [`LinkFault`] for another server.
//! The shard adds the place, and has a [`Fault`]. One `match` reacts to it, in `shard/dispatch/faults.rs`.
//! Only [`Error`] is public: its reader is the operator.

use std::fmt;

use crate::ids::{PeerIndex, Sid};

/// The result of the public interface.
pub type Result<T> = std::result::Result<T, Error>;

/// The reason why tangelo refuses to start or had to stop. The text names file, key, value and the
/// expected values, and can be shown unchanged.
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
    /// Clients that waited for answers were cut when a drain took too long.
    Drain(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text)
            | Self::Host(text)
            | Self::Handlers(text)
            | Self::Shard(text)
            | Self::Drain(text) => f.write_str(text),
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

/// A fault, by the side that caused it.
#[derive(Debug)]
pub(crate) enum Fault<'a> {
    /// A client left, broke the protocol, was silent for too long or takes no more bytes.
    Client(Sid, CloseReason),
    /// A peer, whose link this shard owns, broke the protocol or does not answer.
    Peer(PeerIndex, LinkFault),
    /// The master did the same.
    Master(LinkFault),
    /// The configuration or the machine does not fit.
    Operator(Error),
    /// The application's code has a bug.
    Bug(Panic<'a>),
}

/// A function of the application that panicked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panic<'a> {
    /// The function, for a log line: `a handler`.
    pub(crate) function: &'a str,
    /// Its route, or its name.
    pub(crate) name: Option<&'a str>,
    /// The session that it ran for.
    pub(crate) session: Option<Sid>,
}

impl<'a> Panic<'a> {
    /// Makes the panic of a function.
    pub(crate) fn of(function: &'a str) -> Self {
        Self {
            function,
            name: None,
            session: None,
        }
    }

    /// Adds the route or the name of the function.
    pub(crate) fn with_name(self, name: &'a str) -> Self {
        let name = Some(name);
        Self { name, ..self }
    }

    /// Adds the session that the function ran for.
    pub(crate) fn with_session(self, sid: Sid) -> Self {
        let session = Some(sid);
        Self { session, ..self }
    }
}

/// The side that ends a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client, or the network on the way to it.
    Client,
    /// The operator: a bound, a list or a stop of the process.
    Operator,
    /// The application: a handler, or a backend.
    Application,
}

macro_rules! close_reasons {
    ($($(#[doc = $doc:literal])* $reason:ident $(($data:ty))? = $counter:literal, $side:ident;)*) => {
        /// The reason why one client's connection closes. Its counter and its side exist once, here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum CloseReason { $($(#[doc = $doc])* $reason $(($data))?,)* }

        impl CloseReason {
            /// Number of reasons, for a table of counters.
            pub const COUNT: usize = Self::COUNTERS.len();

            /// Names of the counters, by [`CloseReason::index`].
            pub const COUNTERS: &[&str] = &[$($counter,)*];

            /// Documentation of the reasons, by [`CloseReason::index`].
            #[cfg(test)]
            pub(crate) const DOCS: &[&str] = &[$(concat!($($doc),*),)*];

            /// Returns the index into [`CloseReason::COUNTERS`].
            pub fn index(self) -> usize {
                enum Index { $($reason,)* }
                match self { $(Self::$reason { .. } => Index::$reason as usize,)* }
            }

            /// Returns the reason in one word, as in the name of its counter: for a log line.
            pub fn name(self) -> &'static str {
                let counter = Self::COUNTERS[self.index()];
                counter.strip_prefix("closed_").unwrap_or(counter)
            }

            /// Returns the side that ends the connection.
            pub fn side(self) -> Side {
                match self { $(Self::$reason { .. } => Side::$side,)* }
            }
        }
    };
}

close_reasons! {
    /// The client closed or half-closed the connection.
    Left = "closed_left", Client;
    /// The connection ended without a byte of a client, as a load balancer's check of the port does.
    Probe = "closed_probe", Client;
    /// A read or write of the socket failed.
    Socket = "closed_socket", Client;
    /// A package type outside of 1..=5.
    PackageType = "closed_package_type", Client;
    /// A package body over the configured bound.
    PackageTooLong = "closed_package_too_long", Client;
    /// A WebSocket message that is not exactly one package.
    PackageCount = "closed_package_count", Client;
    /// A kick package from a client.
    PackageKick = "closed_package_kick", Client;
    /// A data package without a message, or with an incomplete one.
    MessageCut = "closed_message_cut", Client;
    /// A message id over 2^31 - 1.
    MessageId = "closed_message_id", Client;
    /// A body that the proto of its route cannot decode.
    MessageBody = "closed_message_body", Client;
    /// A message for another server type on a gateway that does not forward.
    NotForwarded = "closed_not_forwarded", Client;
    /// Bytes that break the WebSocket protocol; the close code to send.
    WebSocket(u16) = "closed_websocket", Client;
    /// A transport that the listener does not take; HTTP is answered with status 400.
    Transport = "closed_transport", Client;
    /// An HTTP request that cannot be parsed; answered with status 400.
    Http = "closed_http", Client;
    /// An HTTP request answered with the page, or with status 404.
    HttpAnswered = "closed_http_answered", Client;
    /// A health check of a load balancer, answered.
    Health = "closed_health", Client;
    /// Bytes of a trusted proxy that are not a header of the PROXY protocol.
    ProxyHeader = "closed_proxy_header", Client;
    /// No header of the PROXY protocol within its time.
    ProxyTimeout = "closed_proxy_timeout", Client;
    /// TLS failed: nothing in common with the client, a certificate that is refused, a record that cannot be decrypted.
    Tls = "closed_tls", Client;
    /// TLS on a listener without it.
    TlsOnPlain = "closed_tls_on_plain", Client;
    /// Bytes without TLS on a listener that takes only TLS.
    PlainOnTls = "closed_plain_on_tls", Client;
    /// The client did not do its part of a TLS handshake within `tls.handshake_timeout`.
    TlsTimeout = "closed_tls_timeout", Client;
    /// No byte within `client.first_byte_timeout`.
    FirstByteTimeout = "closed_first_byte_timeout", Client;
    /// No whole HTTP head within `client.upgrade_timeout`.
    UpgradeTimeout = "closed_upgrade_timeout", Client;
    /// No whole handshake within `client.handshake_timeout`.
    HandshakeTimeout = "closed_handshake_timeout", Client;
    /// No acknowledgement of the handshake within `client.ack_timeout`.
    AckTimeout = "closed_ack_timeout", Client;
    /// A package or WebSocket message that was not whole within `client.package_timeout`.
    PackageTimeout = "closed_package_timeout", Client;
    /// A socket that took no byte within `client.write_timeout`.
    WriteTimeout = "closed_write_timeout", Client;
    /// No uid within `client.bind_timeout`.
    BindTimeout = "closed_bind_timeout", Client;
    /// A refused handshake.
    Handshake = "closed_handshake", Client;
    /// No heartbeat for the configured time.
    HeartbeatTimeout = "closed_heartbeat_timeout", Client;
    /// No byte for the configured time.
    IdleTimeout = "closed_idle_timeout", Client;
    /// A session with more wrong signatures than `client.bad_signatures_max`.
    Signature = "closed_signature", Client;
    /// A session that was over `client.messages_per_second` or `client.bytes_per_second` for too long.
    Rate = "closed_rate", Client;
    /// A session whose address was over `client.address_messages_per_second` or `client.address_bytes_per_second` for too
    /// long.
    AddressRate = "closed_address_rate", Client;
    /// More bytes wait for the client than its outbox may hold.
    OutboxFull = "closed_outbox_full", Client;
    /// A handler or another function of this gateway kicked the session.
    Kicked = "closed_kicked", Application;
    /// Another server kicked the session.
    KickedByServer = "closed_kicked_by_server", Application;
    /// An operator kicked the session.
    KickedByOperator = "closed_kicked_by_operator", Operator;
    /// The same uid has logged in again, and `session.duplicate_login` lets the newest session win.
    DuplicateLogin = "closed_duplicate_login", Operator;
    /// A route that names a constructor.
    Attack = "closed_attack", Client;
    /// The ledger of `limits.memory` is too full for this connection.
    Memory = "closed_memory", Operator;
    /// More connections than `client.max_connections`.
    MaxConnections = "closed_max_connections", Operator;
    /// More connections of one address than `client.address_connections_max`.
    AddressConnections = "closed_address_connections", Operator;
    /// A connection without a whole handshake, whose place another one needed.
    Silent = "closed_silent", Operator;
    /// tangelo is stopping.
    Stopping = "closed_stopping", Operator;
    /// tangelo is draining.
    Drain = "closed_drain", Operator;
    /// The address of the client is on a blacklist.
    Blacklisted = "closed_blacklisted", Operator;
    /// An HTTP request with too long a head; answered with status 431.
    HttpTooLong = "closed_http_too_long", Client;
    /// An invalid WebSocket upgrade; answered with status 400.
    HttpBadUpgrade = "closed_http_bad_upgrade", Client;
    /// An HTTP request without an upgrade; answered with status 426.
    HttpNoUpgrade = "closed_http_no_upgrade", Client;
}

impl CloseReason {
    /// Returns whether the client is at fault: it broke the protocol, sends too much, or takes no more bytes.
    pub fn is_offence(self) -> bool {
        match self {
            Self::PackageType
            | Self::PackageTooLong
            | Self::PackageCount
            | Self::PackageKick
            | Self::MessageCut
            | Self::MessageId
            | Self::MessageBody
            | Self::NotForwarded
            | Self::Attack
            | Self::WebSocket(_)
            | Self::Transport
            | Self::Http
            | Self::HttpTooLong
            | Self::HttpBadUpgrade
            | Self::ProxyHeader
            | Self::Tls
            | Self::TlsOnPlain
            | Self::PlainOnTls
            | Self::WriteTimeout
            | Self::Rate
            | Self::AddressRate
            | Self::Signature
            | Self::OutboxFull => true,
            Self::Left
            | Self::Probe
            | Self::Socket
            | Self::HttpAnswered
            | Self::HttpNoUpgrade
            | Self::Health
            | Self::ProxyTimeout
            | Self::TlsTimeout
            | Self::FirstByteTimeout
            | Self::UpgradeTimeout
            | Self::HandshakeTimeout
            | Self::AckTimeout
            | Self::PackageTimeout
            | Self::BindTimeout
            | Self::Handshake
            | Self::HeartbeatTimeout
            | Self::IdleTimeout
            | Self::Kicked
            | Self::KickedByServer
            | Self::KickedByOperator
            | Self::DuplicateLogin
            | Self::Memory
            | Self::MaxConnections
            | Self::AddressConnections
            | Self::Silent
            | Self::Stopping
            | Self::Drain
            | Self::Blacklisted => false,
        }
    }

    /// Returns what to do about it, where that is not known to every operator.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::TlsOnPlain => Some(
                "the client speaks TLS and its listener does not: set tls of a [[listener]], or have clients use ws:// \
                 in place of wss://",
            ),
            Self::PlainOnTls => Some(
                "the client does not speak TLS and its listener takes nothing else: set tls = \"optional\" there, or \
                 have clients use wss:// in place of ws://",
            ),
            _ => None,
        }
    }

    /// Returns whether the client takes no more bytes, or they are too many, so that waiting ones are dropped.
    pub fn drops_output(self) -> bool {
        matches!(
            self,
            Self::OutboxFull | Self::WriteTimeout | Self::Socket | Self::Memory | Self::Silent
        )
    }
}

/// The reason why a link to a peer or to the master ends, or could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkFault {
    /// The other server closed, or said that it will.
    Left,
    /// Connecting, reading or writing failed.
    Socket,
    /// Connecting took too long.
    ConnectTimeout,
    /// The other server has never answered.
    NoAnswer,
    /// Bytes that break the protocol.
    Bytes,
    /// The greeting of ZeroMQ: an RPC of another package.
    ZeroMq,
    /// HTTP, as the RPC over WebSocket answers.
    Http,
    /// The greeting of another RPC over MQTT.
    Mqtt2,
    /// A ping without an answer.
    NoPong,
    /// More bytes wait for the peer than its queue holds.
    QueueFull,
    /// Memory is short, and much of it waits for the peer.
    Memory,
    /// The peer is no longer in the list of servers.
    Removed,
    /// Joining at the master took too long.
    JoinTimeout,
    /// The master refused to send the list of servers.
    NoList,
    /// The master still has the connection before this one.
    StillConnected,
    /// The master has lost this server.
    Forgotten,
}

impl LinkFault {
    /// Returns the text for a log line.
    pub fn text(self) -> &'static str {
        match self {
            Self::Left => "the server closed the connection",
            Self::Socket => "the connection failed",
            Self::ConnectTimeout => "connecting took too long",
            Self::NoAnswer => "the server accepted the connection and did not answer",
            Self::Bytes => "the server sent bytes that break the protocol",
            Self::ZeroMq => {
                "the server speaks ZeroMQ, and tangelo only MQTT; remove rpcClient and rpcServer from its app.js"
            }
            Self::Http => {
                "the server speaks HTTP, as the RPC over WebSocket (ws, ws2) does, and tangelo only MQTT; remove mailboxFactory and acceptorFactory from its app.js, or correct the port"
            }
            Self::Mqtt2 => {
                "the server speaks mqtt2, which tangelo does not; remove mailboxFactory and acceptorFactory from its app.js"
            }
            Self::NoPong => "the server stopped answering pings",
            Self::QueueFull => "the server takes no more bytes",
            Self::Memory => "memory is short, and many bytes wait for the server",
            Self::Removed => "the server has left the cluster",
            Self::JoinTimeout => "the master took too long to let this server join",
            Self::NoList => "the master did not send the list of servers",
            Self::StillConnected => "the master still has this server's last connection",
            Self::Forgotten => "the master has lost this server, which registers anew",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_close_reason_has_a_counter_of_its_own() {
        let names: BTreeSet<_> = CloseReason::COUNTERS.iter().collect();
        assert_eq!(names.len(), CloseReason::COUNT);
        assert!(names.iter().all(|name| name.starts_with("closed_")));
    }
}
