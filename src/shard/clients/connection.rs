//! One client connection in its shard: bytes in, packages out, and its end.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Clients;
use super::route::SessionRoute;
use crate::client::addresses::AddressUse;
use crate::client::crypto::PublicKey;
use crate::client::heartbeat::{Deadlines, Timeouts, Unit, earliest};
use crate::client::rate::{RateVerdict, ReadRate, Used};
use crate::client::transport::Transport;
use crate::client::{ClientAddr, ClientEvent, ClientMachine, ClientState, Connected};
use crate::error::{CloseReason, Fault};
use crate::handler::Failure;
use crate::ids::Sid;
use crate::limits::{MEMORY_CLOSE_BYTES_MIN, MEMORY_CLOSES_MAX};
use crate::metrics::Counter;
use crate::net::socket::{Socket, TlsSocket};
use crate::peer::delegate::DelegateMark;
use crate::push::{Framing, Outbox};
use crate::session::{BindError, Identity, Uid};
use crate::shard::{Core, Shard};
use crate::time::ShardTime;
use crate::wire::{handshake, package};

mod addresses;
mod delegated;
mod output;

pub(super) use addresses::refused_for_its_number;
pub(in crate::shard) use delegated::ToDelegate;
pub(in crate::shard) use output::{Appended, flush};

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
    /// The handshake, where handlers want it.
    handshake: Option<Rc<serde_json::Value>>,
    /// Routes that the delegate has chosen, by the number of the server type.
    routes: Vec<(usize, SessionRoute)>,
    /// The package, message or HTTP head whose last bytes are missing. A client whose packages always come whole
    /// never has one.
    unit: Option<Unit>,
    /// Messages whose signature was wrong or missing.
    bad_signatures: usize,
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
        debug_assert!(
            !self.is_bound() || self.state() != ClientState::Inited,
            "a session is bound before its handshake"
        );
    }

    /// Returns the earliest of its deadlines, and the reason to close that it stands for.
    fn due(&self, timeouts: &Timeouts, time: ShardTime) -> Option<(Instant, CloseReason)> {
        let (transport, state) = (self.client.transport(), self.state());
        let Deadlines {
            step,
            heartbeat,
            idle,
        } = self.deadlines;
        let first = [
            (step, timeouts.step(transport, state)),
            (heartbeat, timeouts.heartbeat()),
            (idle, timeouts.idle(transport)),
        ];
        if state == ClientState::Closed {
            return earliest(first, time);
        }
        let unit = self.extras.as_ref().and_then(|extras| extras.unit);
        let bytes = unit.map_or(0, |unit| unit.bytes);
        let unit = (unit.map(|unit| unit.since), timeouts.unit(transport, bytes));
        let write = (
            self.outbox.progress(),
            timeouts.write(state, self.outbox.bytes()),
        );
        let ends = [unit, write].map(|(since, limit)| {
            let end = since.zip(limit).map(|(since, (time, _))| since + time);
            (end, limit)
        });
        earliest(first.into_iter().chain(ends), time)
    }

    /// Begins the time for the next step of the client.
    fn begin_step(&mut self, timeouts: &Timeouts, now: Instant) {
        let limit = timeouts.step(self.client.transport(), self.state());
        self.deadlines.step = limit.map(|(time, _)| now + time);
    }

    /// Begins the time of a write again while few bytes wait. The wheel looks about once a second.
    fn note_short_wait(&mut self, timeouts: &Timeouts, now: Instant) {
        if timeouts.write(self.state(), self.outbox.bytes()).is_none() {
            self.outbox.note_progress(now);
        }
    }

    /// Begins the idle time again, if there is one.
    #[inline]
    fn restart_idle(&mut self, timeouts: &Timeouts, now: Instant) {
        if self.deadlines.idle.is_some() {
            let limit = timeouts.idle(self.client.transport());
            self.deadlines.idle = limit.map(|(time, _)| now + time);
        }
    }

    /// Begins the time of a package or message whose last bytes are missing, or learns its length.
    #[cold]
    fn wait_for_rest(&mut self, timeouts: &Timeouts, now: Instant, units: usize, rest: &[u8]) {
        if timeouts.unit(self.client.transport(), 0).is_none() {
            return;
        }
        let has_begun = self.client.has_begun(units);
        let bytes = self.client.announced_bytes(rest);
        let unit = &mut self.extras().unit;
        let since = unit.filter(|_| !has_begun).map_or(now, |unit| unit.since);
        *unit = Some(Unit { since, bytes });
    }

    /// Notes that a session stays within its rate.
    #[inline]
    fn calm_down(&mut self, used: Used) -> RateVerdict {
        if used.is_calm
            && let Some(extras) = &mut self.extras
        {
            extras.over_since = None;
        }
        RateVerdict::Within
    }

    /// Pauses the reader of a session that is over its rate. Nobody is late because of the pause.
    #[cold]
    fn slow_down(&mut self, core: &Core, rate: &ReadRate, used: Used, now: Instant) -> RateVerdict {
        if self.state() == ClientState::Closed {
            return RateVerdict::Within;
        }
        let over_since = &mut self.extras().over_since;
        if used.is_calm {
            *over_since = None;
        }
        let over_since = *over_since.get_or_insert(now);
        if rate.is_excess(now.saturating_duration_since(over_since)) {
            return RateVerdict::Excess(CloseReason::Rate);
        }
        core.counters().add(Counter::RatePauses, 1);
        let pause = rate.pause(used);
        self.put_off(pause);
        RateVerdict::Pause(pause)
    }

    /// Puts the deadlines of its bytes off by a pause of its reader.
    fn put_off(&mut self, pause: Duration) {
        let Deadlines {
            heartbeat, idle, ..
        } = &mut self.deadlines;
        let unit = self.extras.as_mut().and_then(|extras| extras.unit.as_mut());
        let ends = [
            heartbeat.as_mut(),
            idle.as_mut(),
            unit.map(|unit| &mut unit.since),
        ];
        ends.into_iter().flatten().for_each(|end| *end += pause);
    }

    /// Puts the deadline of its next step off by a pause of its reader.
    fn put_off_step(&mut self, pause: Duration) {
        if let Some(step) = &mut self.deadlines.step {
            *step += pause;
        }
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

    // ---- Time ----

    /// Begins the times of a connection, whose client may send its first byte now.
    pub(super) fn begin(&self, core: &Core, sid: Sid) {
        let now = core.time.get().now;
        self.connection(sid, |connection| {
            connection.begin_step(&self.timeouts, now);
            let idle = self.timeouts.idle(connection.client.transport());
            connection.deadlines.idle = idle.map(|(time, _)| now + time);
            self.watch(core, sid, connection);
        });
    }

    /// Stops the time of the next step: the gateway or its application owes it.
    pub(in crate::shard) fn owe_step(&self, sid: Sid) {
        self.connection(sid, |connection| connection.deadlines.step = None);
    }

    /// Begins the time of a client that has acknowledged its handshake.
    pub(in crate::shard) fn acked(&self, core: &Core, sid: Sid) {
        self.connection(sid, |connection| {
            connection.begin_step(&self.timeouts, core.time.get().now);
            self.watch(core, sid, connection);
        });
    }

    /// Puts a connection with a deadline into the wheel.
    fn watch(&self, core: &Core, sid: Sid, connection: &mut Connection) {
        debug_assert_eq!(sid.shard(), core.id);
        if !connection.in_wheel
            && let Some((at, _)) = connection.due(&self.timeouts, core.time.get())
        {
            let at = match connection.client.transport() {
                // With the header of a proxy the deadline may move nearer, to the time of its client.
                Transport::Proxied => at.min(core.time.get().now + self.timeouts.idle),
                _ => at,
            };
            connection.in_wheel = true;
            self.wheel.borrow_mut().insert(sid, at);
        }
    }

    /// Returns true if a client has a deadline.
    pub(in crate::shard) fn has_deadline(&self) -> bool {
        !self.wheel.borrow().is_empty()
    }

    /// Takes the sessions whose deadlines are to be checked now.
    pub(in crate::shard) fn take_due(&self, time: ShardTime, due: &mut Vec<Sid>) {
        self.wheel.borrow_mut().turn(time.now, due);
    }

    /// Checks the deadlines of a connection; returns the reason to close of one that has passed.
    pub(in crate::shard) fn check_timeouts(
        &self,
        core: &Core,
        sid: Sid,
        time: ShardTime,
    ) -> Option<CloseReason> {
        let expired = self.connection(sid, |connection| {
            debug_assert!(connection.in_wheel, "the wheel has given it back");
            connection.in_wheel = false;
            connection.note_short_wait(&self.timeouts, time.now);
            let due = connection.due(&self.timeouts, time);
            let expired = due.filter(|(at, _)| *at <= time.now);
            if expired.is_none() {
                self.watch(core, sid, connection);
            } else if connection.state() == ClientState::Closed {
                // It had its time to read the last bytes.
                connection.socket.break_off();
                return None;
            }
            expired
        });
        expired.flatten().map(|(_, reason)| reason)
    }

    /// Sets the deadline of the next heartbeat, and sends one. Heartbeats must be on.
    pub(in crate::shard) fn heartbeat(&self, core: &Core, sid: Sid) {
        let Some(timeout) = self.timeouts.heartbeat else {
            return;
        };
        self.control(core, sid, package::PackageKind::Heartbeat, b"");
        self.connection(sid, |connection| {
            connection.deadlines.heartbeat = Some(core.time.get().now + timeout);
            self.watch(core, sid, connection);
        });
    }

    /// Returns whether heartbeats are on.
    pub(in crate::shard) fn has_heartbeats(&self) -> bool {
        self.timeouts.heartbeat.is_some()
    }

    // ---- Bytes in ----

    /// Ends a read of `units` packages or messages of `bytes` bytes, behind which `rest` follows.
    pub(super) fn read(
        &self,
        core: &Core,
        sid: Sid,
        units: usize,
        bytes: usize,
        rest: &[u8],
    ) -> RateVerdict {
        let verdict = self.connection(sid, |connection| {
            let now = core.time.get().now;
            connection.restart_idle(&self.timeouts, now);
            if connection.client.is_waiting(rest) {
                connection.wait_for_rest(&self.timeouts, now, units, rest);
                self.watch(core, sid, connection);
            } else if let Some(extras) = &mut connection.extras {
                extras.unit = None;
            }
            let used = self
                .rate
                .charge(&mut connection.used_until, now, units, bytes);
            match used.is_over {
                true => connection.slow_down(core, &self.rate, used, now),
                false => connection.calm_down(used),
            }
        });
        let verdict = verdict.unwrap_or(RateVerdict::Within);
        match &self.addresses {
            Some(addresses) => self.charge_address(core, sid, addresses, (units, bytes), verdict),
            None => verdict,
        }
    }

    /// Notes the memory of a package or frame that is not complete.
    pub(super) fn package_waits(&self, core: &Core, sid: Sid, bytes: usize) {
        self.connection(sid, |connection| {
            let before = connection.client.held();
            connection.client.package_waits(bytes);
            core.memory.input_changed(before, connection.client.held());
        });
    }

    /// Returns whether a connection has not finished its handshake.
    pub(super) fn is_unready(&self, sid: Sid) -> bool {
        self.connection(sid, |connection| connection.is_unready()) == Some(true)
    }

    /// Returns the connections with the most memory, the largest first: as many as hold `bytes` together. With `unready`
    /// only those without a finished handshake.
    pub(in crate::shard) fn largest(&self, unready: bool, bytes: usize) -> Vec<Sid> {
        let mut connections = self.connections.borrow_mut();
        let held = connections.iter_mut().filter_map(|(sid, connection)| {
            let counts = match unready {
                true => connection.is_unready(),
                false => connection.state() != ClientState::Closed,
            };
            let records = connection.socket.tls().map_or(0, TlsSocket::held);
            let held = connection.client.held() + connection.outbox.bytes() + records;
            (counts && held >= MEMORY_CLOSE_BYTES_MIN).then_some((held, sid))
        });
        let mut held: Vec<(usize, Sid)> = held.collect();
        held.sort_unstable_by_key(|(held, _)| std::cmp::Reverse(*held));
        let mut freed = 0;
        let enough = held.into_iter().take_while(|(held, _)| {
            let is_missing = freed < bytes;
            freed += held;
            is_missing
        });
        let sids = enough.map(|(_, sid)| sid);
        sids.take(MEMORY_CLOSES_MAX).collect()
    }

    /// Applies the header of a proxy: the address of the client. The client has its whole time from now on.
    pub(in crate::shard) fn proxied(&self, core: &Core, sid: Sid, address: Option<SocketAddr>) {
        self.connection(sid, |connection| {
            if address.is_some() {
                connection.extras().real_address = address;
            }
        });
        self.begin(core, sid);
    }

    /// Applies the first bytes of a connection, which decide its transport.
    pub(in crate::shard) fn connected(&self, core: &Core, sid: Sid, connected: Connected) {
        self.connection(sid, |connection| {
            if connection.client.transport() == Transport::WebSocket {
                connection.outbox.framing = Framing::WebSocket;
                let limit = self.timeouts.idle(Transport::WebSocket);
                connection.deadlines.idle = limit.map(|(time, _)| core.time.get().now + time);
            }
            connection.begin_step(&self.timeouts, core.time.get().now);
            if connected.real_address.is_some() {
                connection.extras().real_address = connected.real_address;
            }
        });
        self.raw(core, sid, |out| out.extend_from_slice(&connected.answer));
    }

    /// Counts a connection against `client.max_connections` (C1, C7); false where there are too many.
    pub(in crate::shard) fn count(&self, sid: Sid) -> bool {
        let fits = self.process_connections.enter();
        self.connection(sid, |connection| {
            debug_assert!(!connection.counted, "a connection counts once");
            connection.counted = fits;
        });
        if !fits {
            self.process_connections.leave();
        }
        fits
    }

    /// Returns whether a connection counts against `client.max_connections`.
    pub(super) fn has_client_place(&self, sid: Sid) -> bool {
        self.connection(sid, |connection| connection.counted) == Some(true)
    }

    /// Returns a signed message without its signature; `None` when the signature is wrong or missing.
    pub(super) fn verify(&self, sid: Sid, body: &[u8]) -> Option<Vec<u8>> {
        let verify = |connection: &mut Connection| {
            let key = connection.extras.as_ref()?.key.as_ref()?;
            key.verify(body)
        };
        self.connection(sid, verify).flatten()
    }

    /// Counts a message whose signature is wrong or missing; returns their number.
    pub(super) fn add_bad_signature(&self, sid: Sid) -> usize {
        let count = self.connection(sid, |connection| {
            let count = &mut connection.extras().bad_signatures;
            *count += 1;
            *count
        });
        count.unwrap_or_default()
    }

    // ---- The session ----

    /// Returns the identity of a session.
    pub(in crate::shard) fn identity(&self, sid: Sid) -> Option<Rc<Identity>> {
        self.connection(sid, |connection| connection.identity.clone())
    }

    /// Returns the identity of a session that has not closed.
    pub(in crate::shard) fn living(&self, sid: Sid) -> Option<Rc<Identity>> {
        self.connection(sid, |connection| {
            (connection.state() != ClientState::Closed).then(|| connection.identity.clone())
        })
        .flatten()
    }

    /// Returns the transport of a connection that has not closed.
    pub(super) fn transport(&self, sid: Sid) -> Option<Transport> {
        let open = |connection: &mut Connection| {
            (connection.state() != ClientState::Closed).then(|| connection.client.transport())
        };
        self.connection(sid, open).flatten()
    }

    /// Returns the state of a connection.
    pub(super) fn state(&self, sid: Sid) -> Option<ClientState> {
        self.connection(sid, |connection| connection.state())
    }

    /// Returns whether a session has not closed.
    pub(in crate::shard) fn is_open(&self, sid: Sid) -> bool {
        self.state(sid)
            .is_some_and(|state| state != ClientState::Closed)
    }

    /// Changes the identity of a session; an error when it has closed.
    pub(in crate::shard) fn change_identity(
        &self,
        core: &Core,
        sid: Sid,
        change: impl FnOnce(&mut Identity) -> Result<(), BindError>,
    ) -> Result<Rc<Identity>, Failure> {
        let changed = self.connection(sid, |connection| {
            if connection.state() == ClientState::Closed {
                return None;
            }
            let changed = change(Rc::make_mut(&mut connection.identity));
            if connection.is_bound() {
                connection.deadlines.step = None;
            }
            Some(changed.map(|()| connection.identity.clone()))
        });
        match changed.flatten() {
            Some(changed) => changed.map_err(|error| Failure::new(error.text(core.config.dialect))),
            None => Err(Failure::new(no_session(&sid.to_string()))),
        }
    }

    /// Returns the route of a session to a server type.
    pub(in crate::shard) fn session_route(
        &self,
        sid: Sid,
        type_index: usize,
    ) -> Option<SessionRoute> {
        let find = |connection: &mut Connection| {
            let routes = &connection.extras.as_ref()?.routes;
            let found = routes.iter().find(|(index, _)| *index == type_index);
            found.map(|(_, route)| route.clone())
        };
        self.connection(sid, find).flatten()
    }

    /// Changes the route of a session to a server type, unless the session is gone.
    pub(in crate::shard) fn set_session_route(
        &self,
        sid: Sid,
        type_index: usize,
        route: Option<SessionRoute>,
    ) {
        self.connection(sid, |connection| {
            let routes = &mut connection.extras().routes;
            routes.retain(|(index, _)| *index != type_index);
            routes.extend(route.map(|route| (type_index, route)));
        });
    }

    /// Returns the identity of a session, and whether as many of its messages are in flight as may be.
    #[inline]
    pub(in crate::shard) fn sender(&self, core: &Core, sid: Sid) -> Option<(Rc<Identity>, bool)> {
        let most = core.latest.calls_in_flight_max();
        self.connection(sid, |connection| {
            let is_full = connection.in_flight as usize >= most;
            (connection.identity.clone(), is_full)
        })
    }

    /// Counts one more in flight for a session, if there is room; `None` when it is gone.
    #[inline]
    pub(in crate::shard) fn begin_in_flight(&self, core: &Core, sid: Sid) -> Option<bool> {
        let begun = self.connection(sid, |connection| {
            let room = (connection.in_flight as usize) < core.latest.calls_in_flight_max();
            connection.in_flight += u32::from(room);
            room
        });
        if begun == Some(false) {
            core.counters().add(Counter::SessionCallsFull, 1);
        }
        begun
    }

    /// Counts one more in flight for a session, which has room for it.
    pub(in crate::shard) fn add_in_flight(&self, sid: Sid) {
        self.connection(sid, |connection| connection.in_flight += 1);
    }

    /// Counts one less in flight for a session.
    #[inline]
    pub(in crate::shard) fn end_in_flight(&self, sid: Sid) {
        self.connection(sid, |connection| {
            debug_assert!(connection.in_flight > 0);
            connection.in_flight -= 1;
        });
    }

    /// Returns the kept handshake of a session.
    pub(in crate::shard) fn handshake(&self, sid: Sid) -> Option<Rc<serde_json::Value>> {
        self.connection(sid, |connection| {
            connection.extras.as_ref()?.handshake.clone()
        })
        .flatten()
    }

    /// Keeps the handshake of a session.
    pub(super) fn set_handshake(&self, sid: Sid, message: serde_json::Value) {
        self.connection(sid, |connection| {
            connection.extras().handshake = Some(Rc::new(message));
        });
    }

    /// Accepts the handshake of a client; false when it had one already.
    pub(super) fn accept_handshake(&self, sid: Sid, key: Option<PublicKey>) -> bool {
        let accepted = self.connection(sid, |connection| {
            let is_first = connection.state() == ClientState::Inited;
            if is_first {
                connection.client.accept();
                // It begins with the last byte of the reply that the kernel takes.
                connection.deadlines.step = None;
                if key.is_some() {
                    connection.extras().key = key;
                }
            }
            is_first
        });
        accepted == Some(true)
    }

    /// Returns the address of a client as the kernel or a proxy has it; `None` once it is gone.
    pub(super) fn socket_address(&self, sid: Sid) -> Option<SocketAddr> {
        self.connection(sid, |connection| connection.socket_address())
            .flatten()
    }

    /// Returns the address of a client; `None` once it is gone.
    pub(in crate::shard) fn address(&self, sid: Sid) -> Option<ClientAddr> {
        self.connection(sid, |connection| connection.address())
            .flatten()
    }

    /// Returns the address of a client for a log line; empty once it is gone.
    pub(in crate::shard) fn address_for_log(&self, sid: Sid) -> String {
        let address = self.address(sid);
        address.map_or_else(String::new, |address| address.to_string())
    }

    /// Returns `ip:port` of a client, as Node prints it: without brackets around IPv6.
    pub(in crate::shard) fn address_of(&self, sid: Sid) -> Box<str> {
        let address = self.address(sid);
        let text = address.map(|address| format!("{}:{}", address.ip, address.port));
        text.unwrap_or_default().into()
    }

    // ---- The end ----

    /// Returns whether a byte of a client has come, behind the header of a proxy.
    fn has_spoken(&self, sid: Sid) -> bool {
        let transport = self.connection(sid, |connection| connection.client.transport());
        !matches!(
            transport,
            Some(Transport::Proxied | Transport::Tls | Transport::Undecided)
        )
    }

    /// Logs the end of a connection: of a client that broke the protocol as `info`, of each other one as `debug`. A
    /// probe has no line, because balancers open many.
    pub(in crate::shard) fn log_closed(
        &self,
        sid: Sid,
        reason: CloseReason,
        kick: Option<&str>,
        uid: Option<&Uid>,
    ) {
        if reason == CloseReason::Probe {
            return;
        }
        let hint = reason.hint();
        let (reason, is_offence) = (reason.name(), reason.is_offence());
        if !is_offence && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let (session, address) = (tracing::field::display(sid), self.address_for_log(sid));
        let uid = uid.map(Uid::json);
        match is_offence {
            true => tracing::info!(
                session,
                address,
                uid,
                reason,
                hint,
                "a client broke the protocol"
            ),
            false => tracing::debug!(session, address, uid, reason, kick, "a client is closed"),
        }
    }

    /// Closes a connection: it reads no more bytes; the text of a kick goes out as a package. `None` when it was closed
    /// already, or is gone.
    pub(in crate::shard) fn close(
        &self,
        core: &Core,
        sid: Sid,
        reason: CloseReason,
        kick: Option<&str>,
    ) -> Option<Closed> {
        let closed = self.connection(sid, |connection| {
            let state = connection.state();
            if state == ClientState::Closed {
                return None;
            }
            match reason {
                CloseReason::Drain => connection.outbox.release_all(),
                // Packages that buffer schedulers hold are lost, the kick package is not (C73).
                _ => connection.outbox.drop_collected(),
            }
            if let Some(kick) = kick
                && state == ClientState::Working
            {
                let body = handshake::kick(kick);
                let bytes = package::HEAD_BYTES + body.len();
                let pool = &mut core.scheduler.borrow_mut().pool;
                connection.outbox.package(pool, bytes, |out| {
                    package::write_head(out, package::PackageKind::Kick, body.len());
                    out.extend_from_slice(&body);
                });
            }
            let mut goodbye = Vec::new();
            connection
                .client
                .write_goodbye(&self.rules, reason, &mut goodbye);
            let held = connection.client.held();
            connection.client.close();
            if reason == CloseReason::Memory {
                // Its task frees the bytes when it sees the end, which is soon; nobody else must be closed for them.
                connection.client.package_waits(0);
            }
            core.memory.input_changed(held, connection.client.held());
            connection.deadlines = Deadlines::default();
            connection.begin_step(&self.timeouts, core.time.get().now);
            self.watch(core, sid, connection);
            let scheduler = &mut *core.scheduler.borrow_mut();
            if reason.drops_output() {
                connection.outbox.clear(&mut scheduler.pool);
                connection.socket.break_off();
            } else {
                connection
                    .outbox
                    .raw(&mut scheduler.pool)
                    .extend_from_slice(&goodbye);
                if scheduler.mark(sid, &mut connection.outbox) {
                    core.turn.request();
                }
            }
            if connection.set_silent(false) {
                self.silent.leave();
            }
            Some(Closed {
                counted: std::mem::take(&mut connection.counted),
                delegate: connection.delegate.take(),
                identity: connection.identity.clone(),
            })
        });
        let closed = closed.flatten()?;
        core.counters().closed(reason);
        if closed.counted {
            self.process_connections.leave();
        }
        Some(closed)
    }

    /// Removes a closed connection, whose read task has ended.
    fn remove(&self, core: &Core, sid: Sid) {
        let Some(mut connection) = self.connections.borrow_mut().remove(sid) else {
            return;
        };
        let extras = connection.extras.take();
        self.leave_address(core, extras.and_then(|extras| extras.address_use));
        core.memory.input_changed(connection.client.held(), 0);
        connection
            .outbox
            .clear(&mut core.scheduler.borrow_mut().pool);
        connection.socket.shutdown();
        debug_assert_eq!(connection.state(), ClientState::Closed);
        debug_assert!(!connection.counted, "its place would be lost");
        core.counters().sub(Counter::Connections, 1);
        self.process_sockets.leave();
    }

    /// Returns the sessions that are there.
    pub(in crate::shard) fn sids(&self) -> Vec<Sid> {
        let mut connections = self.connections.borrow_mut();
        connections.iter_mut().map(|(sid, _)| sid).collect()
    }

    /// Lists the clients that are not closed. A connection becomes a client when it has sent its first bytes.
    pub(in crate::shard) fn list_open(&self, open: &mut Vec<OpenClient>) {
        open.clear();
        let mut connections = self.connections.borrow_mut();
        for (sid, connection) in connections.iter_mut() {
            if connection.counted && connection.state() != ClientState::Closed {
                let is_waiting = connection.in_flight > 0;
                open.push(OpenClient { sid, is_waiting });
            }
        }
    }

    /// Returns whether no connection is there.
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Shuts down the sockets of the clients that are still there.
    pub(in crate::shard) fn shutdown(&self) {
        for (_, connection) in self.connections.borrow_mut().iter_mut() {
            connection.socket.shutdown();
        }
    }
}

/// Returns the text of an error about a session that does not exist, as in the reference.
pub(in crate::shard) fn no_session(sid: &str) -> String {
    format!("session does not exist, sid: {sid}")
}

/// Acts on the unit at the front of a client's bytes; returns its size, or `None` when it is not complete. A client at
/// fault is closed, and its bytes are dropped.
pub(super) fn receive(shard: &Rc<Shard>, sid: Sid, input: &mut [u8]) -> Option<usize> {
    hop!();
    let bytes = input.len();
    let received = {
        let mut connections = shard.clients.connections.borrow_mut();
        let Some(connection) = connections.get_mut(sid) else {
            return Some(bytes);
        };
        let before = connection.client.held_fragments();
        let received = connection.client.receive(&shard.clients.rules, input);
        let held = connection.client.held_fragments();
        if held != before {
            shard.core.memory.input_changed(before, held);
        }
        received
    };
    match received {
        Ok(None) => None,
        Ok(Some((used, event))) => {
            if let Some(event) = event {
                shard.client_event(sid, event);
            }
            Some(used)
        }
        Err(reason) => {
            shard.react(Fault::Client(sid, reason));
            Some(bytes)
        }
    }
}

impl Clients {
    /// Acts on a package that came in several pieces.
    pub(in crate::shard) fn assembled<'a>(
        &self,
        sid: Sid,
        whole: &'a [u8],
    ) -> Option<Result<ClientEvent<'a>, CloseReason>> {
        self.connection(sid, |connection| {
            connection.client.assembled(&self.rules, whole)
        })
    }
}

/// Ends a connection whose read task has ended.
pub(super) fn end(shard: &Rc<Shard>, sid: Sid, reason: CloseReason) {
    // Answers of the last turn leave first: the client may have closed only its own side.
    flush(shard, sid);
    let reason = match shard.clients.has_spoken(sid) {
        true => reason,
        false => CloseReason::Probe,
    };
    shard.react(Fault::Client(sid, reason));
    shard.clients.remove(&shard.core, sid);
}

/// Logs that a client is closed because the number of connections has reached its bound.
pub(in crate::shard) fn refused_for_number(address: &str) {
    let reason = CloseReason::MaxConnections.name();
    tracing::warn!(
        address,
        reason,
        "the server has reached the max connections: a client is refused; raise \
         client.max_connections or the file limit"
    );
}

/// Logs that a client is closed because memory is short.
pub(in crate::shard) fn refused_for_memory(address: &str) {
    let reason = CloseReason::Memory.name();
    tracing::info!(address, reason, "a client is refused");
}

/// Logs that a client is closed because of a blacklist.
pub(in crate::shard) fn refused_for_address(address: &str) {
    let reason = CloseReason::Blacklisted.name();
    tracing::info!(address, reason, "a client on the blacklist is refused");
}
