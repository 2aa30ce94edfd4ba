//! The protocol machine of one client connection.
//!
//! ```text
//!            handshake          ack
//!   Inited ────────────▶ WaitAck ────▶ Working
//!      │ refused            │             │
//!      └────────▶ Closed ◀──┴─────────────┘  bad bytes, kick, silence, good-bye
//! ```
//!
//! | package | Inited | WaitAck | Working |
//! |---|---|---|---|
//! | handshake | answered | ignored | ignored |
//! | ack | ignored | → Working, heartbeat | ignored |
//! | heartbeat | ignored | ignored | heartbeat |
//! | data | ignored | ignored | a message |
//! | kick, unknown | close | close | close |
//!
//! **Invariants**: no events after Closed; a [`ClientEvent`] borrows from the input of the caller,
//! which decoding changes only by unmasking it.
//!
//! **Absent**: sockets, the clock, the meaning of messages.
//!
//! **Where to start reading**: [`ClientMachine::receive`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;

use crate::config::{Config, Dialect, Transports};
use crate::error::CloseReason;
use crate::wire::message::{self, Message, MessageError, MessageRoute};
use crate::wire::package::{self, HEAD_BYTES, Package, PackageError, PackageKind};
use crate::wire::proxy;
use crate::wire::websocket;

pub mod addresses;
pub mod check;
pub mod coder;
pub mod crypto;
pub mod handshake;
pub mod heartbeat;
pub mod host_filter;
pub mod listener;
pub mod proxies;
pub mod rate;
pub mod transport;

use listener::{ListenerRules, Opener};
use proxies::Proxies;
use transport::{FrameBounds, Health, Http, HttpRules, Transport, TransportEvent};

/// The settings that all clients of a gateway share.
#[derive(Debug)]
pub struct Rules {
    /// The framework whose details to follow.
    pub dialect: Dialect,
    /// Largest package body.
    pub package_bytes_max: Cell<usize>,
    /// Largest package body before the ack of the handshake; not larger than any other one.
    pub handshake_bytes_max: Cell<usize>,
    /// Fragments of a WebSocket message.
    pub fragments_max: usize,
    /// Close code of a client that a drain closes.
    pub drain_close_code: Cell<u16>,
    /// Rules for HTTP requests. Boxed, because they are rarely looked at.
    pub http: Box<HttpRules>,
    /// The proxies in front. Boxed for the same reason.
    pub proxies: Box<RefCell<Proxies>>,
}

impl Rules {
    /// Reads the settings from the configuration.
    pub fn new(config: &Config, page: Option<&'static [u8]>, proxies: Proxies) -> Self {
        Self {
            dialect: config.dialect,
            package_bytes_max: Cell::new(config.client.package_bytes_max),
            handshake_bytes_max: Cell::new(handshake_bytes_max(config)),
            fragments_max: config.client.fragments_max.unwrap_or(usize::MAX),
            drain_close_code: Cell::new(config.drain.close_code),
            http: Box::new(HttpRules {
                page,
                health_path: config.client.health_path.clone(),
                health: Cell::new(match config.master {
                    Some(_) => Health::Joining,
                    None => Health::Serving,
                }),
                takes_any_key: config.dialect.takes_any_websocket_key(),
            }),
            proxies: Box::new(RefCell::new(proxies)),
        }
    }

    /// Follows a change of the configuration, for clients that are connected too.
    pub fn follow(&self, config: &Config, proxies: Proxies) {
        self.package_bytes_max.set(config.client.package_bytes_max);
        self.handshake_bytes_max.set(handshake_bytes_max(config));
        self.drain_close_code.set(config.drain.close_code);
        *self.proxies.borrow_mut() = proxies;
    }
}

/// Returns the largest package body of a client without a handshake.
fn handshake_bytes_max(config: &Config) -> usize {
    let client = &config.client;
    client.handshake_bytes_max.min(client.package_bytes_max)
}

/// State of a connection; see the picture of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientState {
    /// Waits for a handshake.
    #[default]
    Inited,
    /// The handshake is answered; waits for the ack.
    WaitAck,
    /// Takes messages.
    Working,
    /// Closed; further input is dropped.
    Closed,
}

/// The protocol state of one connection.
#[derive(Debug, Default)]
pub struct ClientMachine {
    state: ClientState,
    transport: Transport,
    /// A WebSocket frame came with a mask.
    masks: bool,
    origin: Origin,
    /// Memory of a package or frame that is not complete.
    waiting: u32,
    /// A fragmented WebSocket message; boxed because it is rare.
    fragments: Option<Box<transport::Fragments>>,
}

// Each session holds one.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<ClientMachine>() == 16);

/// The way in which a connection came, until its transport is known. A set in one byte.
#[derive(Debug, Clone, Copy, Default)]
struct Origin(u8);

impl Origin {
    /// A trusted proxy has opened it, and may tell the address of its client in the upgrade.
    const PROXY: u8 = 1;
    /// Its listener does not take raw TCP.
    const NOT_TCP: u8 = 2;
    /// Its listener does not take WebSocket.
    const NOT_WEBSOCKET: u8 = 4;

    fn new(opener: Opener, transports: Transports) -> Self {
        let of = |fact: bool, bit: u8| if fact { bit } else { 0 };
        Self(
            of(opener != Opener::Client, Self::PROXY)
                | of(!transports.tcp, Self::NOT_TCP)
                | of(!transports.websocket, Self::NOT_WEBSOCKET),
        )
    }

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    fn is_proxied(self) -> bool {
        self.has(Self::PROXY)
    }
}

/// An event that the owner of the machine acts on.
#[derive(Debug, PartialEq, Eq)]
pub enum ClientEvent<'a> {
    /// The header of a trusted proxy, with the address of the client, if it has one.
    Proxied(Option<SocketAddr>),
    /// The transport is known; the connection counts from now on (C1). Boxed, so that the other events
    /// stay small.
    Connected(Box<Connected>),
    /// A handshake body. The owner answers it, then calls [`ClientMachine::accept`] or
    /// [`ClientMachine::close`].
    Handshake(&'a [u8]),
    /// The ack: the connection is working. The owner runs the heartbeat step.
    Acked,
    /// A heartbeat. The owner runs the heartbeat step.
    Heartbeat,
    /// A message.
    Message(Message<'a>),
    /// A message assembled from fragments. The owner passes it to [`ClientMachine::assembled`].
    Assembled(Vec<u8>),
    /// A WebSocket ping. The owner answers with these bytes.
    Ping(&'a [u8]),
    /// A WebSocket close frame. The owner closes with this code.
    Goodbye(Option<u16>),
    /// The answer to an HTTP request without an upgrade. The owner writes it and closes.
    Answered(Vec<u8>, CloseReason),
    /// A package that the state ignores.
    Ignored,
    /// A message without a usable route.
    Dropped,
}

// Each package moves one event.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<ClientEvent<'_>>() == 48);

/// A connection with a known transport.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// The answer to a WebSocket upgrade.
    pub answer: Vec<u8>,
    /// A trusted proxy has opened the connection: only now the address of the client is known.
    pub is_proxied: bool,
    /// The address of the client that this proxy told.
    pub real_address: Option<SocketAddr>,
}

/// The address of a client, from its socket or from a proxy in front of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAddr {
    /// The address as Node prints it, with IPv4 on a dual-stack listener as `::ffff:a.b.c.d`. An address that a
    /// proxy tells is never in this form.
    pub ip: String,
    /// The port; `0` if a proxy sends only the `ip`.
    pub port: String,
}

impl From<SocketAddr> for ClientAddr {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: address.ip().to_string(),
            port: address.port().to_string(),
        }
    }
}

/// Writes the address as in a URL, with brackets around IPv6.
impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ip, port } = self;
        match ip.contains(':') {
            true => write!(f, "[{ip}]:{port}"),
            false => write!(f, "{ip}:{port}"),
        }
    }
}

/// The result of a machine that receives: the bytes of one unit, and its event, if it is one. `None`: the machine
/// needs more bytes.
type Received<'a> = Result<Option<(usize, Option<ClientEvent<'a>>)>, CloseReason>;

impl ClientMachine {
    /// Creates the machine of a connection of a listener.
    pub fn new(listener: &ListenerRules, opener: Opener) -> Self {
        Self {
            origin: Origin::new(opener, listener.transports),
            transport: match opener {
                Opener::ProxyWithHeader => Transport::Proxied,
                Opener::Proxy | Opener::Client => Transport::Undecided,
            },
            ..Self::default()
        }
    }

    /// Returns the state.
    pub fn state(&self) -> ClientState {
        self.state
    }

    /// Returns the transport.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Moves on in what comes before the first byte of the client.
    pub fn expect(&mut self, transport: Transport) {
        debug_assert!(matches!(
            self.transport,
            Transport::Undecided | Transport::Tls
        ));
        self.transport = transport;
        self.check_invariants();
    }

    /// Notes the memory of a package or frame that is not complete. The owner of the machine has it.
    pub fn package_waits(&mut self, bytes: usize) {
        self.waiting = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// Returns the memory of parts: of a package or frame, and of a message in fragments.
    #[inline]
    pub fn held(&self) -> usize {
        self.waiting as usize + self.held_fragments()
    }

    /// Returns the memory of a message in fragments.
    #[inline]
    pub fn held_fragments(&self) -> usize {
        let fragments = self.fragments.as_ref();
        fragments.map_or(0, |fragments| fragments.held())
    }

    /// Returns the largest package body that the state allows.
    #[inline]
    fn body_bytes_max(&self, rules: &Rules) -> usize {
        match self.state {
            ClientState::Working => rules.package_bytes_max.get(),
            _ => rules.handshake_bytes_max.get(),
        }
    }

    /// Takes the next complete unit off the front of `input`. The owner calls again until it needs more bytes.
    #[inline]
    pub fn receive<'a>(&mut self, rules: &Rules, input: &'a mut [u8]) -> Received<'a> {
        let bytes = input.len();
        let received = self.receive_unit(rules, input);
        if let Ok(Some((used, event))) = &received {
            debug_assert!(*used <= bytes, "a unit is longer than the input");
            debug_assert!(
                *used > 0 || matches!(event, Some(ClientEvent::Connected(_))),
                "a unit without bytes comes again and again"
            );
        }
        self.check_invariants();
        received
    }

    #[inline]
    fn receive_unit<'a>(&mut self, rules: &Rules, input: &'a mut [u8]) -> Received<'a> {
        if input.is_empty() {
            return Ok(None);
        }
        if self.state == ClientState::Closed {
            return Ok(Some((input.len(), None)));
        }
        match self.transport {
            Transport::Undecided => {
                if transport::is_tls(input) {
                    return Err(CloseReason::TlsOnPlain);
                }
                self.transport = transport::detect(input);
                match self.transport {
                    Transport::Http => self.receive_unit(rules, input),
                    _ if self.origin.has(Origin::NOT_TCP) => Err(CloseReason::Transport),
                    _ => self.receive_raw_first(),
                }
            }
            Transport::Proxied => self.receive_proxy_header(input),
            Transport::Tls => Ok(Some((input.len(), None))),
            Transport::Raw => self.receive_raw(rules, input),
            Transport::Http => Ok(self.receive_http(rules, input)),
            Transport::WebSocket => self.receive_websocket(rules, input),
        }
    }

    /// Reads the header of the PROXY protocol. The headers of HTTP behind it are those of the client.
    fn receive_proxy_header<'a>(&mut self, input: &[u8]) -> Received<'a> {
        let header = proxy::decode(input).map_err(|_| CloseReason::ProxyHeader)?;
        let Some(header) = header else {
            return Ok(None);
        };
        self.transport = Transport::Undecided;
        self.origin.0 &= !Origin::PROXY;
        Ok(Some((
            header.bytes,
            Some(ClientEvent::Proxied(header.client)),
        )))
    }

    /// Uses no bytes: the owner counts the connection first, then calls again.
    fn receive_raw_first<'a>(&mut self) -> Received<'a> {
        let connected = Connected {
            is_proxied: self.origin.is_proxied(),
            ..Connected::default()
        };
        Ok(Some((0, Some(ClientEvent::Connected(connected.into())))))
    }

    fn receive_raw<'a>(&mut self, rules: &Rules, input: &'a [u8]) -> Received<'a> {
        let package = package::decode(input, self.body_bytes_max(rules)).map_err(package_reason)?;
        let Some(package) = package else {
            return Ok(None);
        };
        Ok(Some((package.bytes(), Some(self.package(rules, package)?))))
    }

    fn receive_http<'a>(
        &mut self,
        rules: &Rules,
        input: &[u8],
    ) -> Option<(usize, Option<ClientEvent<'a>>)> {
        if self.origin.has(Origin::NOT_WEBSOCKET) {
            let answer = transport::refuse_http(input);
            let event = ClientEvent::Answered(answer, CloseReason::Transport);
            return Some((input.len(), Some(event)));
        }
        Some(match transport::http(input, &rules.http) {
            Http::Wait => return None,
            Http::Upgraded(bytes, answer) => {
                self.transport = Transport::WebSocket;
                let connected = Connected {
                    answer,
                    is_proxied: self.origin.is_proxied(),
                    real_address: match self.origin.is_proxied() {
                        true => rules.proxies.borrow().client_of(input),
                        false => None,
                    },
                };
                (bytes, Some(ClientEvent::Connected(connected.into())))
            }
            Http::Answered(answer, reason) => {
                (input.len(), Some(ClientEvent::Answered(answer, reason)))
            }
        })
    }

    #[inline]
    fn receive_websocket<'a>(&mut self, rules: &Rules, input: &'a mut [u8]) -> Received<'a> {
        let bounds = FrameBounds {
            bytes_max: self.body_bytes_max(rules) + HEAD_BYTES,
            fragments_max: rules.fragments_max,
            dialect: rules.dialect,
        };
        let (fragments, masks) = (&mut self.fragments, &mut self.masks);
        let (bytes, frame) = transport::frame(input, fragments, masks, &bounds)?;
        let event = match frame {
            TransportEvent::Wait => return Ok(None),
            TransportEvent::Message(message) => self.only_package(rules, message)?,
            TransportEvent::Assembled(message) => ClientEvent::Assembled(message),
            TransportEvent::Ping(payload) => ClientEvent::Ping(payload),
            // A browser reports the code of this close frame.
            TransportEvent::Close(code) => {
                ClientEvent::Goodbye(code.or(rules.dialect.close_code()))
            }
            TransportEvent::Nothing => return Ok(Some((bytes, None))),
        };
        Ok(Some((bytes, Some(event))))
    }

    /// Returns whether bytes are missing behind `rest`, the last bytes that the machine did not take.
    #[inline]
    pub fn is_waiting(&self, rest: &[u8]) -> bool {
        !rest.is_empty() || self.fragments.is_some()
    }

    /// Returns the length of the package or message whose last bytes are missing, as far as it is known.
    pub fn announced_bytes(&self, rest: &[u8]) -> usize {
        let announced = match self.transport {
            Transport::Raw => package::head(rest, usize::MAX)
                .ok()
                .flatten()
                .map(|(_, body_bytes)| body_bytes),
            Transport::WebSocket => websocket::payload_bytes(rest),
            _ => None,
        };
        let fragments = self.fragments.as_ref();
        announced.unwrap_or_default() + fragments.map_or(0, |message| message.bytes())
    }

    /// Returns whether a package or message has begun since the last call: after `units` whole ones, or after its
    /// first fragment.
    pub fn has_begun(&mut self, units: usize) -> bool {
        match &mut self.fragments {
            Some(message) => message.is_new(),
            None => units > 0,
        }
    }

    /// Returns the event of a message assembled from fragments.
    pub fn assembled<'a>(
        &mut self,
        rules: &Rules,
        message: &'a [u8],
    ) -> Result<ClientEvent<'a>, CloseReason> {
        debug_assert!(
            message.len() <= self.body_bytes_max(rules) + HEAD_BYTES,
            "fragments are longer than a package"
        );
        let event = self.only_package(rules, message);
        self.check_invariants();
        event
    }

    /// Decodes a WebSocket message, which must be exactly one package.
    ///
    /// Unlike in Pomelo, a message that is shorter than its head says closes the connection; Pomelo
    /// pads it.
    #[inline]
    fn only_package<'a>(
        &mut self,
        rules: &Rules,
        message: &'a [u8],
    ) -> Result<ClientEvent<'a>, CloseReason> {
        let package =
            package::decode(message, self.body_bytes_max(rules)).map_err(package_reason)?;
        match package {
            Some(package) if package.bytes() == message.len() => self.package(rules, package),
            _ => Err(CloseReason::PackageCount),
        }
    }

    #[inline]
    fn package<'a>(
        &mut self,
        rules: &Rules,
        package: Package<'a>,
    ) -> Result<ClientEvent<'a>, CloseReason> {
        Ok(match (package.kind, self.state) {
            (PackageKind::Data, ClientState::Working) => {
                return decode_message(rules, package.body);
            }
            (PackageKind::Heartbeat, ClientState::Working) => ClientEvent::Heartbeat,
            (PackageKind::Handshake, ClientState::Inited) => ClientEvent::Handshake(package.body),
            (PackageKind::Ack, ClientState::WaitAck) => {
                self.state = ClientState::Working;
                ClientEvent::Acked
            }
            (PackageKind::Kick, _) => return Err(CloseReason::PackageKick),
            _ => ClientEvent::Ignored,
        })
    }

    /// Moves on after a handshake that was answered with code 200.
    pub fn accept(&mut self) {
        debug_assert_eq!(self.state, ClientState::Inited);
        self.state = ClientState::WaitAck;
        self.check_invariants();
    }

    /// Ends the connection.
    pub fn close(&mut self) {
        self.state = ClientState::Closed;
        self.fragments = None;
        self.check_invariants();
    }

    fn check_invariants(&self) {
        debug_assert!(
            self.state != ClientState::Closed || self.fragments.is_none(),
            "a closed connection collects fragments"
        );
        debug_assert!(
            self.fragments.is_none() || self.transport == Transport::WebSocket,
            "a transport other than WebSocket has fragments"
        );
        debug_assert!(
            matches!(self.state, ClientState::Inited | ClientState::Closed)
                || matches!(self.transport, Transport::Raw | Transport::WebSocket),
            "a handshake came before the transport was known"
        );
    }

    /// Writes the last bytes before the socket is closed: none on raw TCP, a close frame on WebSocket.
    /// Pomelo sends code 1000, Pinus none; bytes that break RFC 6455 get the code of the RFC. The reference does not
    /// drain: then the code is `drain.close_code`, by which a client knows that it may come back. A refused upgrade has
    /// its answer.
    pub fn write_goodbye(&self, rules: &Rules, reason: CloseReason, out: &mut Vec<u8>) {
        let has_ended = matches!(reason, CloseReason::Left | CloseReason::AddressConnections);
        if self.transport != Transport::WebSocket || has_ended {
            return;
        }
        let code = match reason {
            CloseReason::WebSocket(code) => Some(code),
            CloseReason::Rate | CloseReason::AddressRate => Some(1008),
            CloseReason::Drain => Some(rules.drain_close_code.get()),
            _ => rules.dialect.close_code(),
        };
        websocket::write_close(out, code);
    }
}

#[inline]
fn decode_message<'a>(rules: &Rules, body: &'a [u8]) -> Result<ClientEvent<'a>, CloseReason> {
    hop!();
    match message::decode(body) {
        Ok(message) if message.route == MessageRoute::None => Ok(ClientEvent::Dropped),
        Ok(message) => Ok(ClientEvent::Message(message)),
        // Pomelo drops a message that is cut before its route. Pinus stops answering; tangelo closes.
        Err(MessageError::NoRoute) if rules.dialect.drops_cut_message() => Ok(ClientEvent::Dropped),
        Err(MessageError::IdTooLarge) => Err(CloseReason::MessageId),
        Err(MessageError::NoRoute | MessageError::Empty | MessageError::Truncated) => {
            Err(CloseReason::MessageCut)
        }
    }
}

fn package_reason(error: PackageError) -> CloseReason {
    match error {
        PackageError::UnknownType(_) => CloseReason::PackageType,
        PackageError::TooLong(_) => CloseReason::PackageTooLong,
    }
}
