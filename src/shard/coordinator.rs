//! Calls from other servers: sessions and channels of the whole process.
//!
//! Shard 0 is the switch: it accepts the peers' links, keeps the uid index and sends each call on to
//! the shards whose sessions it is about. A session's own shard decides whether it lives, and reports
//! every bind and its end in order, so the index never holds a session that has ended.
//!
//! ```text
//!   peer ──call──▶ switch ──Ask──▶ session's shard ──Bound──▶ switch (index)
//!        ◀─answer─        ◀─Told──                             the same way, in order
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use slab::Slab;

use super::Shard;
use super::mesh::Parcel;
use super::peers::writer::Pipe;
use crate::client::ClientState;
use crate::config::{Dialect, RpcAllow};
use crate::error::Fault;
use crate::handler::filter::Slot;
use crate::handler::{BroadcastOptions, Failure, SessionEvent};
use crate::ids::{ShardId, Sid};
use crate::limits::CALLERS_LOOKED_UP_MAX;
use crate::metrics::Counter;
use crate::net::clock;
use crate::net::dial;
use crate::net::drive::{self, Receiver};
use crate::net::socket::{Listener, Socket};
use crate::peer::pomelo::acceptor::{self, Event};
use crate::peer::pomelo::sysrpc::{Reason, SidArg, SysCall};
use crate::session::binding::{Binding, DuplicateLogin};
use crate::session::{BindError, Identity, Uid};
use crate::wire::json;
use crate::wire::pomelo::mqtt;
use crate::wire::pomelo::rpc::{self, Call};

/// The shard that keeps the index and talks to the cluster.
pub(super) const COORDINATOR: ShardId = ShardId(0);

/// What the switch keeps.
#[derive(Default)]
pub(super) struct Coordinator {
    pub(super) binding: RefCell<Binding>,
    tickets: RefCell<Slab<Ticket>>,
    /// Callers for whom names are being looked up.
    looking_up: Cell<usize>,
    /// Links of peers.
    served: RefCell<Slab<Rc<Pipe>>>,
}

/// What the switch wants of a session on its own shard.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Bind it, unless its uid is taken elsewhere.
    Bind { uid: Uid, allowed: bool },
    /// Unbind it.
    Unbind(Uid),
    /// Set values.
    Import(Vec<(String, serde_json::Value)>),
    /// Its exported form.
    Export,
}

/// What a handler wants of the switch.
#[derive(Debug, Clone)]
pub enum Wish {
    /// Bind a session.
    Bind(Sid, Uid),
    /// Kick all sessions of a uid.
    Kick {
        uid: Box<str>,
        reason: Option<Box<str>>,
    },
    /// Push to all sessions of uids, a JSON array.
    Push {
        route: Box<str>,
        body: Box<[u8]>,
        uids: Vec<u8>,
    },
    /// Connection statistics of the process.
    Statistics,
    /// How many sessions the process has, and of whom.
    Sessions,
}

/// What came of it: text for the answer, or an error for it. `None`: nothing to say.
pub(super) type Told = Result<Option<Vec<u8>>, String>;

/// Whom the outcome is for.
#[derive(Debug)]
pub(super) enum ReplyTo {
    /// A call of a peer: where it came from, and its id.
    Peer(Rc<Pipe>, Box<[u8]>),
    /// A handler on the switch.
    Here(Rc<Slot<Told>>),
    /// A handler on another shard.
    Shard(ShardId, u64),
}

struct Ticket {
    reply: ReplyTo,
    purpose: Purpose,
}

enum Purpose {
    /// One session; the outcome is the answer.
    One,
    /// A bind that holds a reservation.
    Reserved(Sid, Uid),
    /// One of several exports that make a list.
    Part(Rc<Gather>, usize),
}

/// Exports that are on their way.
struct Gather {
    parts: RefCell<Vec<Option<Vec<u8>>>>,
    missing: Cell<usize>,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pipe")
    }
}

/// Accepts the links of peers, for ever.
pub(super) async fn run(shard: Rc<Shard>, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok(socket) => {
                let shard = shard.clone();
                glommio::spawn_local(async move {
                    let counter = if shard.may_call(&socket).await {
                        Counter::PeersAccepted
                    } else {
                        Counter::PeersRefused
                    };
                    shard.counters().add(counter, 1);
                    if counter == Counter::PeersAccepted {
                        serve(shard, socket).await;
                    }
                })
                .detach();
            }
            Err(error) => {
                shard.counters().add(Counter::AcceptErrors, 1);
                tracing::warn!(%error, "accepting a peer failed");
                clock::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

/// Serves one peer to the end of its link.
async fn serve(shard: Rc<Shard>, socket: Socket) {
    let socket = Rc::new(socket);
    socket.quick_ack();
    let pipe = Rc::new(Pipe::to(socket.clone()));
    let place = shard.switch().served.borrow_mut().insert(pipe.clone());
    let receiver = PeerReceiver {
        shard: &shard,
        pipe: &pipe,
        socket: &socket,
    };
    drive::read(&socket, &shard.core.read_buffer, &receiver).await;
    // A genuine caller does not notice a FIN; it does notice DISCONNECT.
    shard.send_to_peer(&pipe, |out| out.extend_from_slice(&mqtt::DISCONNECT));
    shard.flush_pipe(&pipe);
    shard.close_pipe(&pipe);
    shard.switch().served.borrow_mut().remove(place);
}

struct PeerReceiver<'a> {
    shard: &'a Rc<Shard>,
    pipe: &'a Rc<Pipe>,
    socket: &'a Socket,
}

impl Receiver for PeerReceiver<'_> {
    fn receive(&self, input: &mut [u8]) -> Option<usize> {
        self.socket.quick_ack();
        let mut at = 0;
        loop {
            match acceptor::receive(&input[at..]) {
                Ok((0, _)) => return Some(at),
                Ok((used, event)) => {
                    at += used;
                    match event {
                        Some(Event::Payload(payload)) => {
                            self.shard.serve_payload(self.pipe, payload);
                        }
                        Some(Event::Ping) => self.shard.send_to_peer(self.pipe, |out| {
                            out.extend_from_slice(&mqtt::PINGRESP);
                        }),
                        Some(Event::Disconnect) => return None,
                        None => {}
                    }
                }
                Err(_) => {
                    self.shard.counters().add(Counter::BadCalls, 1);
                    return None;
                }
            }
        }
    }
}

impl Shard {
    pub(super) fn switch(&self) -> &Coordinator {
        debug_assert_eq!(self.core.id, COORDINATOR);
        &self.coordinator
    }

    /// Links that peers opened.
    pub(super) fn served_pipes(&self) -> Vec<Rc<Pipe>> {
        let served = self.coordinator.served.borrow();
        served.iter().map(|(_, pipe)| pipe.clone()).collect()
    }

    /// With `rpc.allow = "cluster"` only listed servers may call. Names in the list are looked up for
    /// each caller whose address is not in it.
    async fn may_call(&self, socket: &Socket) -> bool {
        if self.core.config.rpc.allow == RpcAllow::Any {
            return true;
        }
        let Some(caller) = socket.peer_address() else {
            return false;
        };
        let caller = caller.ip().to_canonical();
        let cluster = self.peers.cluster.borrow().clone();
        let (addresses, names): (Vec<_>, Vec<_>) = cluster
            .hosts()
            .into_iter()
            .partition(|host| host.parse::<IpAddr>().is_ok());
        if addresses.iter().any(|host| host.parse() == Ok(caller)) {
            return true;
        }
        let looking_up = self.switch().looking_up.get();
        if looking_up >= CALLERS_LOOKED_UP_MAX {
            return false;
        }
        self.switch().looking_up.set(looking_up + 1);
        let mut is_listed = false;
        for name in names {
            let found = dial::addresses(name).await.unwrap_or_default();
            is_listed |= found.iter().any(|address| address.to_canonical() == caller);
        }
        self.switch().looking_up.update(|callers| callers - 1);
        is_listed
    }

    fn serve_payload(self: &Rc<Self>, pipe: &Rc<Pipe>, payload: &[u8]) {
        for call in rpc::calls(payload) {
            self.counters().add(Counter::PeerCalls, 1);
            match call {
                Ok(call) => self.serve_call(pipe, &call),
                Err(_) => {
                    self.counters().add(Counter::BadCalls, 1);
                    self.send_to_peer(pipe, |out| {
                        mqtt::write_publish(out, |out| {
                            out.extend_from_slice(b"{\"resp\":");
                            rpc::write_error(out, "the payload is not JSON");
                            out.push(b'}');
                        });
                    });
                    return;
                }
            }
        }
    }

    fn serve_call(self: &Rc<Self>, pipe: &Rc<Pipe>, call: &Call<'_>) {
        if call.namespace == "user" {
            return self.serve_remote(pipe, call);
        }
        let reply = ReplyTo::Peer(pipe.clone(), call.id.into());
        let call = match SysCall::parse(call) {
            Ok(call) => call,
            Err(text) => {
                self.counters().add(Counter::BadCalls, 1);
                return self.reply(reply, Err(text));
            }
        };
        match call {
            SysCall::Bind(sid, uid) => match self.sid_of(&sid) {
                Some(sid) => self.bind_at_switch(reply, sid, uid),
                None => self.reply(reply, Err(no_session(&sid.text))),
            },
            SysCall::Unbind(sid, uid) => self.ask_one(reply, &sid, Ask::Unbind(uid)),
            SysCall::Import(sid, values) => self.ask_one(reply, &sid, Ask::Import(values)),
            SysCall::SessionBySid(sid) => match self.sid_of(&sid) {
                Some(sid) => self.ask(reply, Purpose::One, sid, Ask::Export),
                None => self.reply(reply, Ok(None)),
            },
            SysCall::SessionsByUid(uid) => self.export_all(reply, &uid),
            SysCall::KickBySid(sid, reason) => {
                if let Some(sid) = self.sid_of(&sid) {
                    self.kick_anywhere(sid, self.reason_text(&reason));
                }
                self.reply(reply, Ok(None));
            }
            SysCall::KickByUid(uid, reason) => {
                self.kick_all(&uid, self.reason_text(&reason));
                self.reply(reply, Ok(None));
            }
            SysCall::PushMessage {
                route,
                message,
                uids,
            } => {
                let outcome = self.push_to_uids(&route, message, uids);
                self.reply(
                    reply,
                    outcome.map(Some).map_err(|failure| failure.0.into_owned()),
                );
            }
            SysCall::Broadcast {
                route,
                message,
                bound_only,
                filter_param,
            } => {
                let options = BroadcastOptions {
                    bound_only,
                    filter_param: json::parse(filter_param).unwrap_or_default(),
                };
                let outcome = self.broadcast_everywhere(&route, message, options);
                self.reply(
                    reply,
                    outcome
                        .map(|()| None)
                        .map_err(|failure| failure.0.into_owned()),
                );
            }
        }
    }

    /// What a kick package says; as pomelo, not pinus, one without a reason says `kick`.
    fn reason_text<'a>(&self, reason: &'a Reason) -> Option<&'a str> {
        match (reason, self.core.config.dialect) {
            (Reason::Text(text), _) => Some(text),
            (Reason::Missing, Dialect::Pomelo) => Some("kick"),
            (Reason::Missing, Dialect::Pinus) | (Reason::Silent, _) => None,
        }
    }

    /// The session id of an argument, if it could be one of this process.
    fn sid_of(&self, sid: &SidArg) -> Option<Sid> {
        Sid::from_wire(sid.number?).filter(|sid| sid.shard().index() < self.core.shards)
    }

    fn ask_one(self: &Rc<Self>, reply: ReplyTo, sid: &SidArg, ask: Ask) {
        match self.sid_of(sid) {
            Some(sid) => self.ask(reply, Purpose::One, sid, ask),
            None => self.reply(reply, Err(no_session(&sid.text))),
        }
    }

    /// Does what a handler wants.
    pub(super) fn grant(self: &Rc<Self>, reply: ReplyTo, wish: Wish) {
        match wish {
            Wish::Bind(sid, uid) => self.bind_at_switch(reply, sid, uid),
            Wish::Kick { uid, reason } => {
                self.kick_all(&uid, reason.as_deref());
                self.reply(reply, Ok(None));
            }
            Wish::Push { route, body, uids } => {
                let pushed = self.push_to_uids(&route, &body, &uids);
                self.reply(reply, pushed.map(Some).map_err(|failure| failure.0.into()));
            }
            Wish::Statistics => {
                let text = self.statistics().json(&self.core.config.id);
                self.reply(reply, Ok(Some(text)));
            }
            Wish::Sessions => {
                let text = self.sessions_json();
                self.reply(reply, Ok(Some(text)));
            }
        }
    }

    /// `{"count":<sessions>,"uids":{<uid>:<its sessions>}}`, uids in the order of their texts.
    fn sessions_json(&self) -> Vec<u8> {
        let binding = self.switch().binding.borrow();
        let uids: BTreeMap<&str, usize> = binding.uids().collect();
        let uids = uids
            .into_iter()
            .map(|(uid, count)| (uid.to_owned(), count.into()));
        let uids: serde_json::Map<_, _> = uids.collect();
        let mut text = Vec::new();
        let count = self.clients.process_connections.count();
        json::write_value(
            &mut text,
            &serde_json::json!({"count": count, "uids": uids}),
        );
        text
    }

    /// Binds a session, wherever it is, under the rule for duplicate logins.
    fn bind_at_switch(self: &Rc<Self>, reply: ReplyTo, sid: Sid, uid: Uid) {
        let refuse = self.core.config.session.duplicate_login == DuplicateLogin::Refuse;
        let allowed = !refuse || self.switch().binding.borrow_mut().reserve(uid.text(), sid);
        let purpose = if refuse && allowed {
            Purpose::Reserved(sid, uid.clone())
        } else {
            Purpose::One
        };
        self.ask(reply, purpose, sid, Ask::Bind { uid, allowed });
    }

    /// Asks the shard of a session. At most one message there and one back.
    fn ask(self: &Rc<Self>, reply: ReplyTo, purpose: Purpose, sid: Sid, ask: Ask) {
        let ticket = self
            .switch()
            .tickets
            .borrow_mut()
            .insert(Ticket { reply, purpose }) as u64;
        if sid.shard() == self.core.id {
            let told = self.tell(sid, ask);
            return self.told(ticket, told);
        }
        let mut mesh = self.core.mesh.borrow_mut();
        mesh.batch(sid.shard()).parcels.push(Parcel::Ask {
            ticket,
            sid,
            ask: Box::new(ask),
        });
        self.core.turn.request();
    }

    /// The shard of a session has answered.
    pub(super) fn told(self: &Rc<Self>, ticket: u64, told: Told) {
        let Some(ticket) = self
            .switch()
            .tickets
            .borrow_mut()
            .try_remove(ticket as usize)
        else {
            return;
        };
        match ticket.purpose {
            Purpose::One => self.reply(ticket.reply, told),
            Purpose::Reserved(sid, uid) => {
                self.switch().binding.borrow_mut().release(uid.text(), sid);
                self.reply(ticket.reply, told);
            }
            Purpose::Part(gather, index) => {
                gather.parts.borrow_mut()[index] = told.ok().flatten();
                gather.missing.set(gather.missing.get() - 1);
                if gather.missing.get() == 0 {
                    let parts = gather.parts.take();
                    self.reply(ticket.reply, Ok(list(parts.into_iter().flatten())));
                }
            }
        }
    }

    fn export_all(self: &Rc<Self>, reply: ReplyTo, uid: &str) {
        let sids = self.switch().binding.borrow().sessions(uid).to_vec();
        if sids.is_empty() {
            return self.reply(reply, Ok(None));
        }
        let gather = Rc::new(Gather {
            parts: RefCell::new(vec![None; sids.len()]),
            missing: Cell::new(sids.len()),
        });
        let ReplyTo::Peer(pipe, id) = reply else {
            return;
        };
        for (index, sid) in sids.into_iter().enumerate() {
            let reply = ReplyTo::Peer(pipe.clone(), id.clone());
            self.ask(
                reply,
                Purpose::Part(gather.clone(), index),
                sid,
                Ask::Export,
            );
        }
    }

    /// Does what the switch asks of a session of this shard.
    pub(super) fn tell(self: &Rc<Self>, sid: Sid, ask: Ask) -> Told {
        let text = |failure: Failure| failure.0.into_owned();
        match ask {
            Ask::Bind { uid, allowed } => self.bind_here(sid, uid, allowed).map_err(text)?,
            Ask::Unbind(uid) => {
                self.unbind_here(sid, &uid).map_err(text)?;
            }
            Ask::Import(values) => {
                self.change_identity(sid, |identity| {
                    for (key, value) in values {
                        identity.settings.set(&key, value);
                    }
                    Ok(())
                })
                .map_err(text)?;
            }
            Ask::Export => {
                let identity = self.living(sid);
                return Ok(identity.map(|identity| self.export_session(sid, &identity)));
            }
        }
        Ok(None)
    }

    /// Binds a session of this shard and reports it.
    fn bind_here(self: &Rc<Self>, sid: Sid, uid: Uid, allowed: bool) -> Result<(), Failure> {
        let mut news = false;
        let identity = self.change_identity(sid, |identity| {
            news = identity.bind(&uid, allowed)?;
            Ok(())
        })?;
        if news {
            let address = self.address_of(sid);
            if self.core.id == COORDINATOR {
                self.bound(sid, &uid, &address);
            } else {
                self.report(Parcel::Bound { sid, uid, address });
            }
            self.tell_handlers(sid, identity, SessionEvent::Bind);
        }
        Ok(())
    }

    /// Unbinds a session of this shard and reports it.
    pub(super) fn unbind_here(
        self: &Rc<Self>,
        sid: Sid,
        uid: &Uid,
    ) -> Result<Rc<Identity>, Failure> {
        let identity = self.change_identity(sid, |identity| identity.unbind(uid))?;
        self.report_unbound(sid);
        self.tell_handlers(sid, identity.clone(), SessionEvent::Unbind(uid.clone()));
        Ok(identity)
    }

    /// A session of this shard is bound no longer.
    pub(super) fn report_unbound(self: &Rc<Self>, sid: Sid) {
        if self.core.id == COORDINATOR {
            self.unbound(sid);
        } else {
            self.report(Parcel::Unbound { sid });
        }
    }

    /// Sends something to the switch.
    pub(super) fn report(&self, parcel: Parcel) {
        self.core
            .mesh
            .borrow_mut()
            .batch(COORDINATOR)
            .parcels
            .push(parcel);
        self.core.turn.request();
    }

    /// A session of the process was bound.
    pub(super) fn bound(self: &Rc<Self>, sid: Sid, uid: &Uid, address: &str) {
        let now_ms = clock::unix_ms() as u64;
        let mut binding = self.switch().binding.borrow_mut();
        let others = binding.bound(sid, uid, address, now_ms);
        self.counters()
            .set(Counter::SessionsBound, binding.session_count() as u64);
        drop(binding);
        if self.core.config.session.duplicate_login == DuplicateLogin::NewestWins {
            for other in others {
                let reason = &self.core.config.session.duplicate_login_reason;
                self.kick_anywhere(other, Some(reason));
            }
        }
    }

    /// A session of the process is bound no longer.
    pub(super) fn unbound(&self, sid: Sid) {
        let mut binding = self.switch().binding.borrow_mut();
        binding.unbound(sid);
        self.counters()
            .set(Counter::SessionsBound, binding.session_count() as u64);
    }

    /// Kicks all sessions of a uid.
    fn kick_all(self: &Rc<Self>, uid: &str, reason: Option<&str>) {
        let sids = self.switch().binding.borrow().sessions(uid).to_vec();
        for sid in sids {
            self.kick_anywhere(sid, reason);
        }
    }

    /// Kicks a session, wherever it is. It is out of the index before anybody is answered.
    fn kick_anywhere(self: &Rc<Self>, sid: Sid, reason: Option<&str>) {
        self.unbound(sid);
        if sid.shard() == self.core.id {
            return self.close(sid, Fault::Kicked, reason);
        }
        self.core
            .mesh
            .borrow_mut()
            .batch(sid.shard())
            .parcels
            .push(Parcel::Kick {
                sid,
                reason: reason.map(Into::into),
            });
        self.core.turn.request();
    }

    /// Answers whoever asked.
    fn reply(self: &Rc<Self>, reply: ReplyTo, told: Told) {
        match reply {
            ReplyTo::Peer(pipe, id) => self.send_to_peer(&pipe, |out| {
                rpc::write_answer(out, &id, |out| match &told {
                    Ok(Some(value)) => {
                        out.extend_from_slice(b"[null,");
                        out.extend_from_slice(value);
                        out.push(b']');
                    }
                    Ok(None) => out.extend_from_slice(match self.core.config.dialect {
                        Dialect::Pomelo => b"[]",
                        Dialect::Pinus => b"[null,null]",
                    }),
                    Err(text) => rpc::write_error(out, text),
                });
            }),
            ReplyTo::Here(slot) => slot.put(told),
            ReplyTo::Shard(shard, ticket) => {
                let mut mesh = self.core.mesh.borrow_mut();
                mesh.batch(shard)
                    .parcels
                    .push(Parcel::Granted { ticket, told });
                self.core.turn.request();
            }
        }
    }

    /// The identity of a session that has not closed.
    fn living(&self, sid: Sid) -> Option<Rc<Identity>> {
        self.connection(sid, |connection| {
            (connection.client.state() != ClientState::Closed).then(|| connection.identity.clone())
        })
        .flatten()
    }

    /// Changes who a session is; an error when it is gone.
    pub(super) fn change_identity(
        &self,
        sid: Sid,
        change: impl FnOnce(&mut Identity) -> Result<(), BindError>,
    ) -> Result<Rc<Identity>, Failure> {
        let changed = self.connection(sid, |connection| {
            if connection.client.state() == ClientState::Closed {
                return None;
            }
            let changed = change(Rc::make_mut(&mut connection.identity));
            Some(changed.map(|()| connection.identity.clone()))
        });
        match changed.flatten() {
            Some(changed) => {
                changed.map_err(|error| Failure::new(error.text(self.core.config.dialect)))
            }
            None => Err(Failure::new(no_session(&sid.to_string()))),
        }
    }
}

fn no_session(sid: &str) -> String {
    format!("session does not exist, sid: {sid}")
}

/// A JSON array of texts; `None` when there are none.
pub(super) fn list(parts: impl Iterator<Item = Vec<u8>>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for part in parts {
        out.push(if out.is_empty() { b'[' } else { b',' });
        out.extend_from_slice(&part);
    }
    if out.is_empty() {
        return None;
    }
    out.push(b']');
    debug_assert!(json::validate(&out).is_ok());
    Some(out)
}
