//! Requests about sessions: of peers, of handlers, and between shards.

use std::rc::Rc;

use super::Shard;
use crate::error::CloseReason;
use crate::handler::{BroadcastOptions, Failure, LocalFuture, SessionEvent, Slot};
use crate::ids::{ShardId, Sid};
use crate::limits::CHANGE_NAME_BYTES_MAX;
use crate::metrics::Counter;
use crate::net::{clock, task};
use crate::peer::pomelo::master::Statistics;
use crate::peer::pomelo::sysrpc::{SessionRequest, SidArg};
use crate::session::binding::DuplicateLogin;
use crate::session::{Identity, Settings, Uid};
use crate::shard::blacklist;
use crate::shard::clients::connection::no_session;
use crate::shard::coordinator::{COORDINATOR, Parts, Pending, Purpose};
use crate::shard::origin::ReplyTo;
use crate::shard::parcel::{
    ChangeName, OperatorReply, OperatorRequest, Parcel, SessionReply, ShardRequest,
};
use crate::shard::peers::writer::PeerWriter;
use crate::wire::json;
use crate::wire::pomelo::rpc::PeerCall;

fn text(failure: Failure) -> String {
    failure.0.into_owned()
}

/// Requests, from the one who asks to the shard that serves them and back.
impl Shard {
    /// Serves a call of a peer.
    pub(in crate::shard) fn serve_call(
        self: &Rc<Self>,
        writer: &Rc<PeerWriter>,
        call: &PeerCall<'_>,
    ) {
        if call.namespace == "user" {
            return self.serve_remote(writer, call);
        }
        let reply_to = ReplyTo::Peer(writer.clone(), call.id.into());
        let change = || {
            let name = call.change?;
            (name.len() <= CHANGE_NAME_BYTES_MAX).then(|| name.into())
        };
        let request = match SessionRequest::parse(call) {
            Ok(request) => request,
            Err(text) => {
                self.core.counters().add(Counter::BadCalls, 1);
                return self.reply(reply_to, Err(text));
            }
        };
        let dialect = self.core.config.dialect;
        let reply = match request {
            SessionRequest::Bind(sid, uid) => match self.sid_of(&sid) {
                Some(sid) => return self.bind(reply_to, sid, uid, change()),
                None => Err(no_session(&sid.text)),
            },
            SessionRequest::Unbind(sid, uid) => match self.sid_of(&sid) {
                Some(sid) => {
                    let unbind = ShardRequest::Unbind(sid, uid, change());
                    return self.ask(reply_to, sid, unbind);
                }
                None => Err(no_session(&sid.text)),
            },
            SessionRequest::Import(sid, values) => match self.sid_of(&sid) {
                Some(sid) => {
                    let import = ShardRequest::Import(sid, values, change());
                    return self.ask(reply_to, sid, import);
                }
                None => Err(no_session(&sid.text)),
            },
            SessionRequest::SessionBySid(sid) => match self.sid_of(&sid) {
                Some(sid) => return self.ask(reply_to, sid, ShardRequest::Export(sid)),
                None => Ok(None),
            },
            SessionRequest::SessionsByUid(uid) => return self.export_all(reply_to, &uid),
            SessionRequest::KickBySid(sid, reason) => {
                if let Some(sid) = self.sid_of(&sid) {
                    self.kick_anywhere(sid, CloseReason::KickedByServer, reason.text(dialect));
                }
                Ok(None)
            }
            SessionRequest::KickByUid(uid, reason) => {
                self.kick_all(&uid, CloseReason::KickedByServer, reason.text(dialect));
                Ok(None)
            }
            SessionRequest::PushMessage {
                route,
                message,
                uids,
            } => {
                let missing = self.push_to_uids(&route, message, uids);
                missing.map(Some).map_err(text)
            }
            SessionRequest::Broadcast {
                route,
                message,
                bound_only,
                filter_param,
            } => {
                let options = BroadcastOptions {
                    bound_only,
                    filter_param: json::parse(filter_param).unwrap_or_default(),
                };
                let sent = self.broadcast(&route, message, options);
                sent.map(|()| None).map_err(text)
            }
        };
        self.reply(reply_to, reply);
    }

    /// Serves a request of an operator.
    pub(super) fn serve_operator(self: &Rc<Self>, request: &OperatorRequest, reply: OperatorReply) {
        let reply_to = ReplyTo::Operator(reply);
        let known = |sid: u64| {
            let sid = Sid::from_wire(sid);
            sid.filter(|sid| sid.shard().index() < self.core.shards)
        };
        let reply = match request {
            OperatorRequest::Session(sid) => match known(*sid) {
                Some(sid) => return self.ask(reply_to, sid, ShardRequest::Export(sid)),
                None => Ok(None),
            },
            OperatorRequest::Sessions(uid) => return self.export_all(reply_to, uid),
            OperatorRequest::Kick { sid, reason } => {
                if let Some(sid) = known(*sid) {
                    self.kick_anywhere(sid, CloseReason::KickedByOperator, reason.as_deref());
                }
                Ok(None)
            }
            OperatorRequest::KickUid { uid, reason } => {
                let count = self.coordinator.sessions(uid).len();
                self.kick_all(uid, CloseReason::KickedByOperator, reason.as_deref());
                Ok(Some(count.to_string().into_bytes()))
            }
            OperatorRequest::AddToBlacklist(more) => {
                return self.change_blacklist(reply_to, blacklist::add_from_operator, more);
            }
            OperatorRequest::ReplaceBlacklist(list) => {
                return self.change_blacklist(reply_to, blacklist::replace_configured, list);
            }
        };
        self.reply(reply_to, reply);
    }

    /// Changes the blacklist, and replies when it is done.
    fn change_blacklist<F: Future<Output = Result<(), String>> + 'static>(
        self: &Rc<Self>,
        reply_to: ReplyTo,
        change: impl FnOnce(Rc<Self>, Vec<String>) -> F,
        list: &[String],
    ) {
        let (shard, changed) = (self.clone(), change(self.clone(), list.to_vec()));
        task::spawn(async move {
            let changed = changed.await;
            shard.reply(reply_to, changed.map(|()| None));
        })
        .detach();
    }

    /// Returns the session id of an argument, if it could be one of this process.
    fn sid_of(&self, sid: &SidArg) -> Option<Sid> {
        Sid::from_wire(sid.number?).filter(|sid| sid.shard().index() < self.core.shards)
    }

    /// Sends a handler's request to the coordinator; the slot gets the reply.
    pub(in crate::shard) fn ask_coordinator(
        self: &Rc<Self>,
        request: ShardRequest,
    ) -> Rc<Slot<SessionReply>> {
        let slot = Rc::new(Slot::default());
        let pending = Pending {
            reply_to: ReplyTo::Handler(slot.clone()),
            purpose: Purpose::Answer,
        };
        self.request(COORDINATOR, pending, request);
        slot
    }

    /// Sends a handler's request to the coordinator; returns the text of the reply, which is empty after an error.
    pub(in crate::shard) fn text_of(
        self: &Rc<Self>,
        request: ShardRequest,
    ) -> LocalFuture<Vec<u8>> {
        let reply = self.ask_coordinator(request);
        Box::pin(async move { reply.take().await.ok().flatten().unwrap_or_default() })
    }

    /// Sends a request to the shard of a session, whose reply is the answer.
    fn ask(self: &Rc<Self>, reply_to: ReplyTo, sid: Sid, request: ShardRequest) {
        let purpose = Purpose::Answer;
        self.request(sid.shard(), Pending { reply_to, purpose }, request);
    }

    /// Sends a request to the shard that serves it: at most one parcel there and one back.
    fn request(self: &Rc<Self>, to: ShardId, pending: Pending, request: ShardRequest) {
        let core = &self.core;
        let ticket = match self.coordinator.begin(pending) {
            Ok(ticket) => ticket,
            Err(pending) => {
                core.counters().add(Counter::RequestsFull, 1);
                let text = "too many requests about sessions wait for another shard";
                return self.complete(pending, Err(text.to_owned()));
            }
        };
        if to == core.id {
            return self.serve(to, ticket, request);
        }
        let (from, request) = (core.id, Box::new(request));
        core.send_parcel(
            to,
            Parcel::Request {
                ticket,
                from,
                request,
            },
        );
    }

    /// Serves a request of a shard.
    pub(super) fn serve(self: &Rc<Self>, from: ShardId, ticket: u64, request: ShardRequest) {
        let reply_to = ReplyTo::Shard(from, ticket);
        let reply = match request {
            ShardRequest::Bind(sid, uid) => return self.bind(reply_to, sid, uid, None),
            ShardRequest::KickUid { uid, reason } => {
                self.kick_all(&uid, CloseReason::Kicked, reason.as_deref());
                Ok(None)
            }
            ShardRequest::PushToUids { route, body, uids } => {
                let missing = self.push_to_uids(&route, &body, &uids);
                missing.map(Some).map_err(text)
            }
            ShardRequest::Statistics => Ok(Some(self.statistics().json(&self.core.config.id))),
            ShardRequest::Sessions => {
                let connections = self.clients.process_count();
                Ok(Some(self.coordinator.sessions_json(connections)))
            }
            ShardRequest::BindHere {
                sid,
                uid,
                allowed,
                change,
            } => {
                let bound = self.bind_here(sid, uid, allowed, change.as_deref());
                bound.map(|()| None).map_err(text)
            }
            ShardRequest::Unbind(sid, uid, change) => {
                let unbound = self.unbind_here(sid, &uid, change.as_deref());
                unbound.map(|_| None).map_err(text)
            }
            ShardRequest::Import(sid, values, change) => {
                let import = |settings: &mut Settings| {
                    for (key, value) in values {
                        settings.set(&key, value);
                    }
                };
                let changed = self.change_settings(sid, change.as_deref(), import);
                changed.map(|()| None).map_err(text)
            }
            ShardRequest::Export(sid) => {
                let identity = self.clients.living(sid);
                Ok(identity.map(|identity| self.core.export_session(sid, &identity)))
            }
        };
        self.reply(reply_to, reply);
    }

    /// Ends a request of this shard with its reply.
    pub(super) fn replied(self: &Rc<Self>, ticket: u64, reply: SessionReply) {
        let pending = self.coordinator.end(ticket);
        debug_assert!(pending.is_some(), "each request has one reply");
        if let Some(pending) = pending {
            self.complete(pending, reply);
        }
    }

    fn complete(self: &Rc<Self>, pending: Pending, reply: SessionReply) {
        if let Some((reply_to, reply)) = self.coordinator.complete(pending, reply) {
            self.reply(reply_to, reply);
        }
    }

    /// Gives a reply to the one who waits for it.
    fn reply(self: &Rc<Self>, reply_to: ReplyTo, reply: SessionReply) {
        let core = &self.core;
        match reply_to {
            ReplyTo::Peer(writer, id) => {
                let result = reply.as_ref().map(Option::as_deref);
                let result = result.map_err(String::as_str);
                self.peers.answer(core, &writer, &id, result);
            }
            ReplyTo::Handler(slot) => slot.put(reply),
            ReplyTo::Shard(shard, ticket) if shard == core.id => self.replied(ticket, reply),
            ReplyTo::Shard(shard, ticket) => {
                core.send_parcel(shard, Parcel::Reply { ticket, reply });
            }
            ReplyTo::Operator(OperatorReply(take)) => take(reply),
        }
    }
}

/// Sessions of this shard.
impl Shard {
    /// Binds a session of this shard and reports it.
    fn bind_here(
        self: &Rc<Self>,
        sid: Sid,
        uid: Uid,
        allowed: bool,
        change: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let (core, clients) = (&self.core, &self.clients);
        let mut is_new = false;
        let identity = clients.change_identity(core, sid, |identity| {
            is_new = identity.bind(&uid, allowed)?;
            Ok(())
        })?;
        if is_new || change.is_some() {
            self.tell_change(sid, change);
        }
        if is_new {
            core.traces.bound(sid, uid.text());
            let address = clients.address_of(sid);
            if core.id == COORDINATOR {
                self.bound(sid, &uid, &address);
            } else {
                core.send_parcel(COORDINATOR, Parcel::Bound { sid, uid, address });
            }
            self.notify_handlers(sid, identity, SessionEvent::Bind);
        }
        Ok(())
    }

    /// Unbinds a session of this shard and reports it.
    pub(in crate::shard) fn unbind_here(
        self: &Rc<Self>,
        sid: Sid,
        uid: &Uid,
        change: Option<&[u8]>,
    ) -> Result<Rc<Identity>, Failure> {
        let unbind = |identity: &mut Identity| identity.unbind(uid);
        let identity = self.clients.change_identity(&self.core, sid, unbind)?;
        self.tell_change(sid, change);
        self.report_unbound(sid);
        let event = SessionEvent::Unbind(uid.clone());
        self.notify_handlers(sid, identity.clone(), event);
        Ok(identity)
    }

    /// Changes the settings of a session of this shard.
    pub(in crate::shard) fn change_settings(
        self: &Rc<Self>,
        sid: Sid,
        change: Option<&[u8]>,
        set: impl FnOnce(&mut Settings),
    ) -> Result<(), Failure> {
        self.clients.change_identity(&self.core, sid, |identity| {
            set(&mut identity.settings);
            Ok(())
        })?;
        self.tell_change(sid, change);
        Ok(())
    }

    /// Reports that a session of this shard is bound no longer.
    pub(super) fn report_unbound(self: &Rc<Self>, sid: Sid) {
        if self.core.id == COORDINATOR {
            self.unbound(sid);
        } else {
            self.core.send_parcel(COORDINATOR, Parcel::Unbound { sid });
        }
    }
}

/// Sessions of the process, on the coordinator.
impl Shard {
    /// Binds a session of any shard, under the rule for duplicate logins.
    fn bind(self: &Rc<Self>, reply_to: ReplyTo, sid: Sid, uid: Uid, change: ChangeName) {
        let refuses = self.core.config.session.duplicate_login == DuplicateLogin::Refuse;
        let allowed = !refuses || self.coordinator.reserve(&uid, sid);
        let purpose = if refuses && allowed {
            Purpose::Reserved(sid, uid.clone())
        } else {
            Purpose::Answer
        };
        let pending = Pending { reply_to, purpose };
        let request = ShardRequest::BindHere {
            sid,
            uid,
            allowed,
            change,
        };
        self.request(sid.shard(), pending, request);
    }

    /// Notes that a session of the process was bound.
    pub(super) fn bound(self: &Rc<Self>, sid: Sid, uid: &Uid, address: &str) {
        let now_ms = clock::unix_ms() as u64;
        let others = self.coordinator.bound(sid, uid, address, now_ms);
        self.count_bound();
        let session = &self.core.config.session;
        if session.duplicate_login == DuplicateLogin::NewestWins {
            for other in others {
                let text = Some(&*session.duplicate_login_reason);
                self.kick_anywhere(other, CloseReason::DuplicateLogin, text);
            }
        }
    }

    /// Notes that a session of the process is bound no longer.
    pub(super) fn unbound(&self, sid: Sid) {
        self.coordinator.unbound(sid);
        self.count_bound();
    }

    fn count_bound(&self) {
        let bound = self.coordinator.bound_count() as u64;
        self.core.counters().set(Counter::SessionsBound, bound);
    }

    /// Exports all sessions of a uid, as one list.
    fn export_all(self: &Rc<Self>, reply_to: ReplyTo, uid: &str) {
        let sids = self.coordinator.sessions(uid);
        if sids.is_empty() {
            return self.reply(reply_to, Ok(None));
        }
        let parts = Parts::new(sids.len());
        for (index, sid) in sids.into_iter().enumerate() {
            let pending = Pending {
                reply_to: reply_to.clone(),
                purpose: Purpose::Part(parts.clone(), index),
            };
            self.request(sid.shard(), pending, ShardRequest::Export(sid));
        }
    }

    /// Kicks all sessions of a uid.
    fn kick_all(self: &Rc<Self>, uid: &str, reason: CloseReason, text: Option<&str>) {
        for sid in self.coordinator.sessions(uid) {
            self.kick_anywhere(sid, reason, text);
        }
    }

    /// Kicks a session of any shard. It is out of the index before anybody is answered.
    fn kick_anywhere(self: &Rc<Self>, sid: Sid, reason: CloseReason, text: Option<&str>) {
        self.unbound(sid);
        if sid.shard() == self.core.id {
            return self.close(sid, reason, text);
        }
        let text = text.map(Into::into);
        self.core
            .send_parcel(sid.shard(), Parcel::Kick { sid, reason, text });
    }

    /// Returns the connection statistics of the process (C11–C14).
    pub(super) fn statistics(&self) -> Statistics {
        // As the reference: connections are counted only where they are limited.
        let is_counted = self.core.latest.config().client.max_connections.is_some();
        let connections = if is_counted {
            self.clients.process_count()
        } else {
            0
        };
        self.coordinator.statistics(connections)
    }
}
