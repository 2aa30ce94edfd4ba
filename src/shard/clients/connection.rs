//! One client connection's place in its shard: bytes in, packages out, and its end.

use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;

use crate::client::crypto::PublicKey;
use crate::client::heartbeat::{Deadlines, LINGER};
use crate::client::transport::Transport;
use crate::client::{ClientAddr, ClientEvent, ClientMachine, ClientState, Connected};
use crate::error::Fault;
use crate::handler::{Sending, Session, SessionEvent};
use crate::ids::Sid;
use crate::limits::{PACKAGE_BODY_BYTES_MAX, WRITE_SLICES_MAX};
use crate::metrics::Counter;
use crate::net::socket::Socket;
use crate::push::select::Via;
use crate::push::{Framing, Outbox};
use crate::session::Identity;
use crate::shard::Shard;
use crate::shard::app::activity::Work;
use crate::shard::dispatch::Asker;
use crate::time::ShardTime;
use crate::wire::protobuf::ProtoId;
use crate::wire::websocket::{self, Opcode};
use crate::wire::{handshake, message, package};

/// Everything a shard knows of one client.
#[derive(Debug)]
pub(in crate::shard) struct Connection {
    pub(in crate::shard) client: ClientMachine,
    pub(in crate::shard) identity: Rc<Identity>,
    /// Calls and handlers that have not answered yet.
    pub(in crate::shard) in_flight: u32,
    /// Boxed as hardly anybody has any of it.
    rare: Option<Box<Rare>>,
    outbox: Outbox,
    socket: Rc<Socket>,
    deadlines: Deadlines,
    /// The wheel has an entry.
    in_wheel: bool,
    /// It counts against `client.max_connections`.
    counted: bool,
    /// The delegate got a message of it, and wants to know of its end.
    pub(in crate::shard) delegated: bool,
}

// Each session holds one.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Connection>() == 112);

/// What few connections have.
#[derive(Debug, Default)]
pub(in crate::shard) struct Rare {
    /// What the client signs its messages with.
    pub(in crate::shard) key: Option<PublicKey>,
    pub(in crate::shard) real_address: Option<ClientAddr>,
    /// What the client said when it came, where handlers want it.
    pub(in crate::shard) handshake: Option<Rc<serde_json::Value>>,
}

impl Connection {
    pub(in crate::shard) fn new(socket: Rc<Socket>, identity: Rc<Identity>) -> Self {
        Self {
            client: ClientMachine::default(),
            identity,
            in_flight: 0,
            rare: None,
            outbox: Outbox::default(),
            socket,
            deadlines: Deadlines::default(),
            in_wheel: false,
            counted: false,
            delegated: false,
        }
    }

    pub(in crate::shard) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// A signed message without its signature; `None` when it is not signed.
    pub(in crate::shard) fn verify(&self, body: &[u8]) -> Option<Vec<u8>> {
        self.rare.as_ref()?.key.as_ref()?.verify(body)
    }

    pub(in crate::shard) fn handshake(&self) -> Option<Rc<serde_json::Value>> {
        self.rare.as_ref()?.handshake.clone()
    }

    /// Where its client is: what a proxy told, else what the socket knows.
    pub(in crate::shard) fn address(&self) -> Option<ClientAddr> {
        let real = self
            .rare
            .as_ref()
            .and_then(|rare| rare.real_address.as_ref());
        if let Some(real) = real {
            return Some(real.clone());
        }
        let address = self.socket.peer_address()?;
        Some(ClientAddr {
            ip: address.ip().to_string(),
            port: address.port().to_string(),
        })
    }
}

impl Shard {
    /// A connection has its place: its idle time begins.
    pub(in crate::shard) fn opened(&self, sid: Sid) {
        let mut connections = self.clients.connections.borrow_mut();
        let Some(connection) = connections.get_mut(sid) else {
            return;
        };
        connection.deadlines.idle = Some(self.core.time.get().now + self.clients.timeouts.idle);
        self.watch(sid, connection);
    }

    /// Makes sure that the wheel looks at a connection.
    fn watch(&self, sid: Sid, connection: &mut Connection) {
        if !connection.in_wheel
            && let Some((at, _)) = connection
                .deadlines
                .due(&self.clients.timeouts, self.core.time.get())
        {
            connection.in_wheel = true;
            self.clients.wheel.borrow_mut().insert(sid, at);
        }
    }

    /// Checks the deadlines of a connection.
    pub(in crate::shard) fn look_at(self: &Rc<Self>, sid: Sid, time: ShardTime) {
        let expired = {
            let mut connections = self.clients.connections.borrow_mut();
            let Some(connection) = connections.get_mut(sid) else {
                return;
            };
            connection.in_wheel = false;
            let due = connection.deadlines.due(&self.clients.timeouts, time);
            let expired = due.filter(|(at, _)| *at <= time.now);
            if expired.is_none() {
                self.watch(sid, connection);
            } else if connection.client.state() == ClientState::Closed {
                // It had its time to read the last bytes.
                connection.socket.shutdown();
                return;
            }
            expired
        };
        if let Some((_, fault)) = expired {
            self.close(sid, fault, None);
        }
    }

    /// Bytes of a client: takes whole units off their front and acts on each.
    pub(in crate::shard) fn receive_client(self: &Rc<Self>, sid: Sid, input: &mut [u8]) -> usize {
        let mut at = 0;
        if let Some(connection) = self.clients.connections.borrow_mut().get_mut(sid)
            && connection.deadlines.idle.is_some()
        {
            connection.deadlines.idle = Some(self.core.time.get().now + self.clients.timeouts.idle);
        }
        loop {
            let received = {
                let mut connections = self.clients.connections.borrow_mut();
                let Some(connection) = connections.get_mut(sid) else {
                    return input.len();
                };
                connection
                    .client
                    .receive(&self.clients.rules, &mut input[at..])
            };
            match received {
                Ok((0, None)) => return at,
                Ok((used, event)) => {
                    at += used;
                    if let Some(event) = event {
                        self.client_event(sid, event);
                    }
                }
                Err(fault) => {
                    self.close(sid, fault, None);
                    return input.len();
                }
            }
        }
    }

    fn client_event(self: &Rc<Self>, sid: Sid, event: ClientEvent<'_>) {
        match event {
            ClientEvent::Message(message) => self.dispatch(sid, &message),
            ClientEvent::Heartbeat | ClientEvent::Acked => self.heartbeat(sid),
            ClientEvent::Handshake(body) => self.shake_hands(sid, body),
            ClientEvent::Connected(connected) => self.connected(sid, *connected),
            ClientEvent::Ping(payload) => {
                let header = websocket::header(Opcode::Pong, payload.len());
                if self.has_room(sid, header.as_slice().len() + payload.len()) {
                    self.raw(sid, |out| {
                        out.extend_from_slice(header.as_slice());
                        out.extend_from_slice(payload);
                    });
                }
            }
            ClientEvent::Assembled(whole) => {
                let event = self.connection(sid, |connection| {
                    connection.client.assembled(&self.clients.rules, &whole)
                });
                match event {
                    Some(Ok(event)) => self.client_event(sid, event),
                    Some(Err(fault)) => self.close(sid, fault, None),
                    None => {}
                }
            }
            ClientEvent::Goodbye(code) => {
                self.raw(sid, |out| websocket::write_close(out, code));
                self.close(sid, Fault::Left, None);
            }
            ClientEvent::Answered(answer, fault) => {
                self.raw(sid, |out| out.extend_from_slice(&answer));
                self.close(sid, fault, None);
            }
            ClientEvent::Ignored => self.counters().add(Counter::PackagesIgnored, 1),
            ClientEvent::Dropped => self.counters().add(Counter::MessagesDropped, 1),
        }
    }

    /// The transport is decided: from now on the connection counts (C1, C7).
    fn connected(self: &Rc<Self>, sid: Sid, connected: Connected) {
        self.connection(sid, |connection| {
            if connection.client.transport() == Transport::WebSocket {
                connection.outbox.framing = Framing::WebSocket;
                connection.deadlines.idle = None;
            }
            if connected.real_address.is_some() {
                connection.rare().real_address = connected.real_address;
            }
        });
        self.raw(sid, |out| out.extend_from_slice(&connected.answer));
        if self.core.config.client.real_ip_header.is_some() && self.refuses_client(sid) {
            refused_for_address(&self.address_for_log(sid));
            return self.close(sid, Fault::Blacklisted, None);
        }
        let fits = self.clients.process_connections.enter();
        self.connection(sid, |connection| connection.counted = fits);
        if !fits {
            self.clients.process_connections.leave();
            refused_for_number(&self.address_for_log(sid));
            self.close(sid, Fault::MaxConnections, None);
        }
    }

    fn heartbeat(self: &Rc<Self>, sid: Sid) {
        let Some(timeout) = self.clients.timeouts.heartbeat else {
            return;
        };
        if !self.has_room(sid, package::HEAD_BYTES) {
            return;
        }
        self.control(sid, package::Kind::Heartbeat, b"");
        self.connection(sid, |connection| {
            connection.deadlines.heartbeat = Some(self.core.time.get().now + timeout);
            self.watch(sid, connection);
        });
    }

    /// Ends the sockets of clients that are still there.
    pub(in crate::shard) fn hang_up(&self) {
        for (_, connection) in self.clients.connections.borrow_mut().iter_mut() {
            connection.socket.shutdown();
        }
    }

    /// Address of a client for a log line; empty once it is gone.
    pub(in crate::shard) fn address_for_log(&self, sid: Sid) -> String {
        let address = self.connection(sid, |connection| connection.address());
        address
            .flatten()
            .map_or_else(String::new, |it| it.to_string())
    }

    /// `ip:port` of a client, as Node prints it: without brackets around IPv6.
    pub(in crate::shard) fn address_of(&self, sid: Sid) -> Box<str> {
        let address = self.connection(sid, |connection| connection.address());
        let text = address
            .flatten()
            .map(|address| format!("{}:{}", address.ip, address.port));
        text.unwrap_or_default().into()
    }

    /// Calls `f` with a connection that is still there.
    pub(in crate::shard) fn connection<T>(
        &self,
        sid: Sid,
        f: impl FnOnce(&mut Connection) -> T,
    ) -> Option<T> {
        self.clients.connections.borrow_mut().get_mut(sid).map(f)
    }

    /// Writes bytes that need no framing at the end of this turn.
    fn raw(&self, sid: Sid, write: impl FnOnce(&mut Vec<u8>)) {
        self.connection(sid, |connection| {
            let mut scheduler = self.core.scheduler.borrow_mut();
            write(connection.outbox.raw(&mut scheduler.pool));
            if scheduler.mark(sid, &mut connection.outbox) {
                self.core.turn.request();
            }
        });
    }

    /// Writes a package that overtakes what buffer schedulers hold.
    pub(in crate::shard) fn control(&self, sid: Sid, kind: package::Kind, body: &[u8]) {
        debug_assert!(body.len() <= PACKAGE_BODY_BYTES_MAX);
        self.connection(sid, |connection| {
            let mut scheduler = self.core.scheduler.borrow_mut();
            let bytes = package::HEAD_BYTES + body.len();
            connection
                .outbox
                .package(&mut scheduler.pool, bytes, |out| {
                    package::write_head(out, kind, body.len());
                    out.extend_from_slice(body);
                });
            if scheduler.mark(sid, &mut connection.outbox) {
                self.core.turn.request();
            }
        });
    }

    /// Sends a response. Cost: the one copy of its body, which a proto makes two.
    pub(in crate::shard) fn respond(self: &Rc<Self>, asker: Asker, route: &str, body: &[u8]) {
        let Asker { sid, id, proto } = asker;
        let via = match self.app.router.events.select_scheduler {
            None => Ok(self.clients.selector.response()),
            Some(_) => self.select(&Sending::Response { id, body }),
        };
        let mut encoded = Vec::new();
        let body = match proto {
            None => body,
            Some(proto) => self.encode_response(sid, proto, route, body, &mut encoded),
        };
        // A body that no package can hold is an error of the handler.
        let fits = message::response_bytes(id, body.len()) <= PACKAGE_BODY_BYTES_MAX;
        let body = if fits {
            body
        } else {
            self.failed(asker, route, "the response does not fit into a package");
            handshake::FAILED
        };
        let bytes = message::response_bytes(id, body.len());
        let write = |out: &mut Vec<u8>| message::write_response(out, id, body);
        let sent = via.is_ok_and(|via| self.send(sid, via, bytes, write, None));
        let counter = if sent {
            Counter::Responses
        } else {
            Counter::ResponsesDropped
        };
        self.counters().add(counter, 1);
    }

    /// A response's body in the form of its proto.
    #[inline(never)]
    fn encode_response<'a>(
        &'a self,
        sid: Sid,
        proto: ProtoId,
        route: &str,
        body: &'a [u8],
        encoded: &'a mut Vec<u8>,
    ) -> &'a [u8] {
        let (body, result) = self.clients.coder.encode(proto, body, encoded);
        if let Err(error) = result {
            self.counters().add(Counter::BodiesUnencodable, 1);
            tracing::warn!(session = %sid, route, %error, "a response does not fit its proto");
        }
        body
    }

    /// Hands a data package of `bytes` bytes to a push scheduler; false when the session is not
    /// working. `shared` is the same package where others get it too.
    pub(in crate::shard) fn send(
        self: &Rc<Self>,
        sid: Sid,
        via: Via,
        bytes: usize,
        write: impl FnOnce(&mut Vec<u8>),
        shared: Option<&Bytes>,
    ) -> bool {
        let is_working = self.connection(sid, |connection| {
            connection.client.state() == ClientState::Working
        });
        if is_working != Some(true) || !self.has_room(sid, bytes) {
            return false;
        }
        let sent = self.connection(sid, |connection| {
            let outbox = &mut connection.outbox;
            let scheduler = &mut *self.core.scheduler.borrow_mut();
            if let Via::Buffer(buffer) = via {
                outbox.collect(&mut scheduler.pool, buffer, write);
                return scheduler.mark_collecting(sid, outbox, buffer);
            }
            match shared {
                Some(package) => outbox.shared(&mut scheduler.pool, package),
                None => outbox.package(&mut scheduler.pool, bytes, write),
            }
            if scheduler.mark(sid, outbox) {
                self.core.turn.request();
            }
        });
        sent.is_some()
    }

    /// Whether `bytes` more may wait for a client. What only waits for the end of the turn is
    /// written first; a client whose socket takes no more is closed.
    fn has_room(self: &Rc<Self>, sid: Sid, bytes: usize) -> bool {
        let is_full = |connection: &mut Connection| {
            let waiting = connection.outbox.bytes();
            waiting > 0 && waiting + bytes > self.core.config.client.outbox_bytes_max
        };
        if self.connection(sid, is_full) != Some(true) {
            return true;
        }
        self.connection(sid, |connection| connection.outbox.release_all());
        self.flush(sid);
        if self.connection(sid, is_full) != Some(true) {
            return true;
        }
        self.close(sid, Fault::OutboxFull, None);
        false
    }

    /// The interval of a buffer scheduler is over for a session.
    pub(in crate::shard) fn release(&self, sid: Sid, buffer: u8) {
        self.connection(sid, |connection| {
            connection.outbox.unmark_collecting(buffer);
            connection.outbox.release(buffer);
            if self
                .core
                .scheduler
                .borrow_mut()
                .mark(sid, &mut connection.outbox)
            {
                self.core.turn.request();
            }
        });
    }

    /// Writes what a session has: one write if the socket takes it.
    pub(in crate::shard) fn flush(self: &Rc<Self>, sid: Sid) {
        let failed = self.connection(sid, |connection| {
            connection.outbox.unmark();
            if connection.outbox.blocked {
                return false;
            }
            self.counters().add(Counter::Flushes, 1);
            while connection.outbox.has_wire_bytes() {
                hop!();
                let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
                let used = connection.outbox.slices(&mut slices);
                let offered: usize = slices[..used].iter().map(|slice| slice.len()).sum();
                let Ok(written) = connection.socket.write(&slices[..used]) else {
                    return true;
                };
                let pool = &mut self.core.scheduler.borrow_mut().pool;
                connection.outbox.advance(pool, written);
                // As pomelo: bytes in either direction are a sign of life.
                if connection.deadlines.idle.is_some() {
                    connection.deadlines.idle =
                        Some(self.core.time.get().now + self.clients.timeouts.idle);
                }
                if written < offered {
                    self.counters().add(Counter::FlushesBlocked, 1);
                    connection.outbox.blocked = true;
                    let socket = connection.socket.clone();
                    crate::shard::spawn_behind(flush_blocked(self.clone(), socket, sid));
                    return false;
                }
            }
            if connection.client.state() == ClientState::Closed {
                connection.socket.shutdown_write();
            }
            false
        });
        if failed == Some(true) {
            self.close(sid, Fault::Socket, None);
        }
    }

    /// Ends a connection: nothing is read from now on; a reason goes out as a kick package.
    pub(in crate::shard) fn close(self: &Rc<Self>, sid: Sid, fault: Fault, reason: Option<&str>) {
        let closed = self.connection(sid, |connection| {
            let state = connection.client.state();
            if state == ClientState::Closed {
                return None;
            }
            // What buffer schedulers hold is lost, the kick package is not (C73).
            connection.outbox.drop_collected();
            if let Some(reason) = reason
                && state == ClientState::Working
            {
                let body = handshake::kick(reason);
                let bytes = package::HEAD_BYTES + body.len();
                let pool = &mut self.core.scheduler.borrow_mut().pool;
                connection.outbox.package(pool, bytes, |out| {
                    package::write_head(out, package::Kind::Kick, body.len());
                    out.extend_from_slice(&body);
                });
            }
            let mut goodbye = Vec::new();
            connection
                .client
                .write_goodbye(&self.clients.rules, fault, &mut goodbye);
            connection.client.close();
            connection.deadlines = Deadlines {
                linger: Some(self.core.time.get().now + LINGER),
                ..Deadlines::default()
            };
            self.watch(sid, connection);
            let scheduler = &mut *self.core.scheduler.borrow_mut();
            if matches!(fault, Fault::OutboxFull | Fault::Socket) {
                connection.outbox.clear(&mut scheduler.pool);
                connection.socket.shutdown();
            } else {
                connection
                    .outbox
                    .raw(&mut scheduler.pool)
                    .extend_from_slice(&goodbye);
                if scheduler.mark(sid, &mut connection.outbox) {
                    self.core.turn.request();
                }
            }
            let counted = std::mem::take(&mut connection.counted);
            let delegated = std::mem::take(&mut connection.delegated);
            Some((counted, delegated, connection.identity.clone()))
        });
        let Some(Some((counted, delegated, identity))) = closed else {
            return;
        };
        self.counters().closed(fault);
        if identity.uid.is_some() {
            self.report_unbound(sid);
        }
        if counted {
            self.clients.process_connections.leave();
            self.tell_handlers(sid, identity.clone(), SessionEvent::Close);
        }
        if delegated {
            self.tell_delegate(&Session::new(sid, identity, self.clone()));
        }
    }

    /// Tells the handlers that asked. A panic there must not end the shard. What they do may lead to
    /// further events, whose turn comes after them: a recursion here would have no bound.
    pub(in crate::shard) fn tell_handlers(
        self: &Rc<Self>,
        sid: Sid,
        identity: Rc<Identity>,
        event: SessionEvent,
    ) {
        if !self.app.router.wants(&event) {
            return;
        }
        self.app
            .to_tell
            .borrow_mut()
            .push_back((sid, identity, event));
        if self.app.telling.replace(true) {
            return;
        }
        loop {
            let next = self.app.to_tell.borrow_mut().pop_front();
            let Some((sid, identity, event)) = next else {
                break;
            };
            let session = Session::new(sid, identity, self.clone());
            let tell = || self.app.router.happened(&session, &event);
            if self.app.activity.call(Work::SessionEvent, tell).is_err() {
                self.counters().add(Counter::Panics, 1);
                tracing::error!(session = %sid, ?event, "a handler of a session's events panicked");
            }
        }
        self.app.telling.set(false);
    }

    /// The read task of a connection has ended.
    pub(in crate::shard) fn gone(self: &Rc<Self>, sid: Sid, fault: Fault) {
        // Answers of the last turn leave first: the client may have closed only its own side.
        self.flush(sid);
        self.close(sid, fault, None);
        let Some(mut connection) = self.clients.connections.borrow_mut().remove(sid) else {
            return;
        };
        connection
            .outbox
            .clear(&mut self.core.scheduler.borrow_mut().pool);
        connection.socket.shutdown();
        self.counters().sub(Counter::Connections, 1);
        self.clients.process_sockets.leave();
    }
}

/// Logs that a client is closed because the number of connections has reached its bound.
pub(in crate::shard) fn refused_for_number(address: &str) {
    tracing::warn!(
        address,
        "the server has reached the max connections: a client is refused; raise \
         client.max_connections or the file limit"
    );
}

/// Logs that a client is closed because of a blacklist.
pub(in crate::shard) fn refused_for_address(address: &str) {
    tracing::info!(address, "a client on the blacklist is refused");
}

/// Waits until a socket takes more, and writes the rest.
async fn flush_blocked(shard: Rc<Shard>, socket: Rc<Socket>, sid: Sid) {
    loop {
        let step = poll_fn(|cx| {
            let mut connections = shard.clients.connections.borrow_mut();
            let Some(connection) = connections.get_mut(sid) else {
                return Poll::Ready(None);
            };
            let mut slices = [IoSlice::new(&[]); 3];
            if connection.outbox.slices(&mut slices) == 0 {
                return Poll::Ready(Some(Ok(true)));
            }
            match socket.poll_write(cx, &slices[0]) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
                Poll::Ready(Ok(written)) => {
                    let pool = &mut shard.core.scheduler.borrow_mut().pool;
                    Poll::Ready(Some(Ok(connection.outbox.advance(pool, written))))
                }
            }
        })
        .await;
        match step {
            Some(Ok(false)) => {}
            Some(Ok(true)) => break,
            Some(Err(_)) => return shard.close(sid, Fault::Socket, None),
            None => return,
        }
    }
    shard.connection(sid, |connection| {
        connection.outbox.blocked = false;
        if connection.client.state() == ClientState::Closed {
            socket.shutdown_write();
        }
    });
}
