//! One client connection in its shard. Its methods stand by their subject in the files of `connection/`.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::Clients;
use super::route::SessionRoute;
use crate::client::addresses::AddressUse;
use crate::client::crypto::PublicKey;
use crate::client::heartbeat::{Deadlines, Unit};
use crate::client::transport::Transport;
use crate::client::{ClientAddr, ClientMachine, ClientState};
use crate::ids::Sid;
use crate::net::socket::Socket;
use crate::peer::delegate::DelegateMark;
use crate::push::{Framing, Outbox};
use crate::session::Identity;

mod addresses;
mod closing;
mod deadlines;
mod delegated;
mod input;
mod output;
mod session;

pub(super) use addresses::refused_for_its_number;
pub(super) use closing::end;
pub(in crate::shard) use closing::{refused_for_address, refused_for_memory, refused_for_number};
pub(in crate::shard) use delegated::ToDelegate;
pub(super) use input::receive;
pub(in crate::shard) use output::{Appended, flush};
pub(in crate::shard) use session::no_session;

/// The state of one client.
#[derive(Debug)]
pub(super) struct Connection {
    client: ClientMachine,
    identity: Rc<Identity>,
    /// Calls and handlers that have not answered yet.
    in_flight: u32,
    /// Boxed because few connections have any of it.
    extras: Option<Box<ConnectionExtras>>,
    outbox: Outbox,
    socket: Rc<Socket>,
    deadlines: Deadlines,
    /// Until then the session has used a part of its rate.
    used_until: Instant,
    /// The wheel has an entry.
    in_wheel: bool,
    /// It counts against `client.max_connections`.
    counted: bool,
    /// It has not sent a whole handshake, and counts as such.
    is_silent: bool,
    /// Delegates know it, by messages or notices: the mark of the one that gets its messages.
    delegate: Option<DelegateMark>,
}

// Each session holds one.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Connection>() == 128);

/// The rare parts of a connection.
#[derive(Debug, Default)]
struct ConnectionExtras {
    /// Key that the client signs its messages with.
    key: Option<PublicKey>,
    /// Address that a proxy told.
    real_address: Option<SocketAddr>,
    /// The handshake, where handlers want it, and its memory in the ledger.
    handshake: Option<Rc<serde_json::Value>>,
    handshake_bytes: usize,
    /// Routes that the delegate has chosen, by the number of the server type.
    routes: Vec<(usize, SessionRoute)>,
    /// The package, message or HTTP head whose last bytes are missing. A client whose packages always come whole
    /// never has one.
    unit: Option<Unit>,
    /// Messages whose signature was wrong or missing.
    bad_signatures: usize,
    /// It was closed for its memory, which its task still has.
    is_leaving: bool,
    /// Begin of the time over its rate.
    over_since: Option<Instant>,
    /// The use of its address, where a limit for addresses is set.
    address_use: Option<Arc<AddressUse>>,
}

/// A connection that has just been closed.
#[must_use]
pub(in crate::shard) struct Closed {
    pub(in crate::shard) identity: Rc<Identity>,
    /// The handlers have heard of it: it counted against `client.max_connections`.
    pub(in crate::shard) counted: bool,
    /// Delegates know it: the mark of its own one.
    pub(in crate::shard) delegate: Option<DelegateMark>,
}

/// A client that is not closed.
pub(in crate::shard) struct OpenClient {
    pub(in crate::shard) sid: Sid,
    /// Messages of it are in flight.
    pub(in crate::shard) is_waiting: bool,
}

impl Connection {
    pub(super) fn new(
        client: ClientMachine,
        socket: Rc<Socket>,
        identity: Rc<Identity>,
        now: Instant,
    ) -> Self {
        Self {
            client,
            identity,
            in_flight: 0,
            extras: None,
            outbox: Outbox::default(),
            socket,
            deadlines: Deadlines::default(),
            used_until: now,
            in_wheel: false,
            counted: false,
            is_silent: false,
            delegate: None,
        }
    }

    pub(super) fn state(&self) -> ClientState {
        self.client.state()
    }

    /// Returns the memory of parts of packages and messages, and of the kept handshake.
    fn held(&self) -> usize {
        let extras = self.extras.as_ref();
        self.client.held() + extras.map_or(0, |extras| extras.handshake_bytes)
    }

    /// Returns whether it has not finished its handshake.
    fn is_unready(&self) -> bool {
        matches!(self.state(), ClientState::Inited | ClientState::WaitAck)
    }

    /// Moves on in what comes before the first byte of an open client.
    pub(super) fn expect(&mut self, transport: Transport) {
        if self.state() == ClientState::Inited {
            self.client.expect(transport);
        }
    }

    pub(super) fn is_bound(&self) -> bool {
        self.identity.uid.is_some()
    }

    /// Sets whether it counts as silent; returns whether it did.
    pub(super) fn set_silent(&mut self, is_silent: bool) -> bool {
        std::mem::replace(&mut self.is_silent, is_silent)
    }

    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }

    fn check_invariants(&self) {
        let is_closed = self.state() == ClientState::Closed;
        debug_assert!(
            !is_closed || self.deadlines.step.is_some(),
            "a closed connection waits for ever"
        );
        debug_assert!(
            !is_closed || (self.deadlines.heartbeat, self.deadlines.idle) == (None, None),
            "a closing connection waits for the client to close alone"
        );
        debug_assert!(
            !is_closed || !self.counted,
            "a closed connection counts against the limit"
        );
        debug_assert!(
            self.outbox.framing == Framing::Raw || self.client.transport() == Transport::WebSocket,
            "a client of raw TCP gets WebSocket frames"
        );
    }

    fn extras(&mut self) -> &mut ConnectionExtras {
        self.extras.get_or_insert_default()
    }

    /// Returns the address of the client: what a proxy told, else what the socket knows.
    fn socket_address(&self) -> Option<SocketAddr> {
        let extras = self.extras.as_ref();
        let real = extras.and_then(|extras| extras.real_address);
        real.or_else(|| self.socket.peer_address())
    }

    /// Returns the same as texts.
    fn address(&self) -> Option<ClientAddr> {
        self.socket_address().map(ClientAddr::from)
    }
}

impl Clients {
    /// Calls `f` with a connection that is still there.
    #[inline]
    pub(super) fn connection<T>(
        &self,
        sid: Sid,
        f: impl FnOnce(&mut Connection) -> T,
    ) -> Option<T> {
        let mut connections = self.connections.borrow_mut();
        let connection = connections.get_mut(sid)?;
        let result = f(connection);
        connection.check_invariants();
        Some(result)
    }
}
