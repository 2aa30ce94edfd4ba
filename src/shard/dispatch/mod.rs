//! The crossings of a shard: every method that leads from one of its parts to another.
//!
//! A part does its own work and returns what happened; the methods here decide the next step. Each
//! file has one subject: messages and connections of clients here, then `handshake.rs`, `calls.rs` for other servers,
//! `sessions.rs` for requests about sessions, `notices.rs`, `routes.rs`, `pushes.rs`, and `faults.rs` for the reaction to a fault.
//!
//! **Where to start reading**: [`Shard::dispatch`], then [`Shard::finish`].

use std::net::SocketAddr;
use std::rc::Rc;

use super::app::Way;
use super::app::activity::Work;
use super::clients::connection::{self, Appended, Closed, refused_for_address, refused_for_number};
use super::clients::fanout::Decoded;
use super::clients::silent::Place;
use super::coordinator::COORDINATOR;
use super::memory::MemoryLevel;
use super::origin::{Origin, ResponseTarget};
use super::parcel::{Batch, Parcel};
use super::trace::{TraceTarget, Traced};
use super::{Core, Shard};
use crate::client::{ClientEvent, Connected, transport};
use crate::error::{CloseReason, Fault, Panic};
use crate::handler::clock::Alarms;
use crate::handler::{
    Answer, Incoming, LocalFuture, Outcome, Request, Sending, Session, SessionEvent, ShardContext,
    Slot, reply,
};
use crate::ids::{ShardId, Sid};
use crate::limits::{LOG_TEXT_BYTES_MAX, PACKAGE_BODY_BYTES_MAX, TRACE_COPY_BYTES_MAX};
use crate::metrics::{Counter, Measure};
use crate::net::task;
use crate::push::select::Via;
use crate::route::Target;
use crate::time::ShardTime;
use crate::wire::message::{self, Message};
use crate::wire::websocket::{self, Opcode};
use crate::wire::{handshake as bodies, package};

mod calls;
mod faults;
mod handshake;
mod notices;
mod pushes;
mod routes;
mod sessions;

/// Returns the part of a text that fits into a log line.
fn log_text(text: &str) -> &str {
    &text[..text.floor_char_boundary(LOG_TEXT_BYTES_MAX)]
}

/// Shows the traces of a session a message.
#[cold]
fn trace_message(core: &Core, sid: Sid, message: &Message<'_>, route: Option<&str>, body: &[u8]) {
    core.traces.message(sid, |wants_body| Traced::Message {
        kind: message.kind,
        id: message.id,
        route: route.map(Into::into),
        bytes: body.len(),
        body: (wants_body && body.len() <= TRACE_COPY_BYTES_MAX).then(|| body.into()),
    });
}

/// From the bytes of a client to the target of its message.
impl Shard {
    /// Acts on an event of a client's connection.
    pub(super) fn client_event(self: &Rc<Self>, sid: Sid, event: ClientEvent<'_>) {
        let (core, clients) = (&self.core, &self.clients);
        match event {
            ClientEvent::Message(message) => self.dispatch(sid, &message),
            ClientEvent::Acked => {
                clients.acked(core, sid);
                self.heartbeat(sid);
            }
            ClientEvent::Heartbeat => self.heartbeat(sid),
            ClientEvent::Handshake(body) => self.shake_hands(sid, body),
            ClientEvent::Proxied(address) => self.proxied(sid, address),
            ClientEvent::Connected(connected) => self.connected(sid, *connected),
            ClientEvent::Ping(payload) => {
                let header = websocket::header(Opcode::Pong, payload.len());
                if self.make_room_or_close(sid, header.as_slice().len() + payload.len()) {
                    clients.raw(core, sid, |out| {
                        out.extend_from_slice(header.as_slice());
                        out.extend_from_slice(payload);
                    });
                }
            }
            ClientEvent::Assembled(whole) => match clients.assembled(sid, &whole) {
                Some(Ok(event)) => self.client_event(sid, event),
                Some(Err(reason)) => self.react(Fault::Client(sid, reason)),
                None => {}
            },
            ClientEvent::Goodbye(code) => {
                clients.raw(core, sid, |out| websocket::write_close(out, code));
                self.react(Fault::Client(sid, CloseReason::Left));
            }
            ClientEvent::Answered(answer, reason) => {
                clients.raw(core, sid, |out| out.extend_from_slice(&answer));
                self.react(Fault::Client(sid, reason));
            }
            ClientEvent::Ignored => core.counters().add(Counter::PackagesIgnored, 1),
            ClientEvent::Dropped => core.counters().add(Counter::MessagesUnrouted, 1),
        }
    }

    /// Answers a heartbeat, or the ack, if heartbeats are on.
    fn heartbeat(self: &Rc<Self>, sid: Sid) {
        let (core, clients) = (&self.core, &self.clients);
        if clients.has_heartbeats() && self.make_room_or_close(sid, package::HEAD_BYTES) {
            clients.heartbeat(core, sid);
        }
    }

    /// Applies the header of a proxy, and refuses a client on a blacklist.
    fn proxied(self: &Rc<Self>, sid: Sid, address: Option<SocketAddr>) {
        self.clients.proxied(&self.core, sid, address);
        if !self.refuse_address(sid) && !self.clients.count_told_address(&self.core, sid, address) {
            self.close(sid, CloseReason::AddressConnections, None);
        }
    }

    /// Closes a client whose address is on a blacklist; returns whether it is.
    fn refuse_address(self: &Rc<Self>, sid: Sid) -> bool {
        let is_refused = self.clients.refuses(sid);
        if is_refused {
            refused_for_address(&self.clients.address_for_log(sid));
            self.close(sid, CloseReason::Blacklisted, None);
        }
        is_refused
    }

    /// Counts a connection whose transport is known now, or refuses it.
    fn connected(self: &Rc<Self>, sid: Sid, connected: Connected) {
        let (core, clients) = (&self.core, &self.clients);
        let is_proxied = connected.is_proxied;
        if is_proxied && connected.real_address.is_none() {
            core.counters().add(Counter::AddressesUntold, 1);
            let proxy = clients.address_for_log(sid);
            tracing::warn!(
                proxy,
                "a trusted proxy has not told the address of its client, so its own address counts; \
                 look at client.real_ip_header"
            );
        }
        if !clients.count_told_address(core, sid, connected.real_address) {
            clients.raw(core, sid, transport::write_too_many);
            return self.close(sid, CloseReason::AddressConnections, None);
        }
        clients.connected(core, sid, connected);
        if let Some(reason) = clients.refusal() {
            return self.close(sid, reason, None);
        }
        if is_proxied && self.refuse_address(sid) {
            return;
        }
        let fits = clients.count(sid) || (self.cut_silent(Place::Client) && clients.count(sid));
        if !fits {
            refused_for_number(&clients.address_for_log(sid));
            self.close(sid, CloseReason::MaxConnections, None);
        }
    }

    /// Closes the oldest silent connection where places run short and silent ones have too many; returns whether it did.
    pub(super) fn cut_silent(self: &Rc<Self>, place: Place) -> bool {
        let cut = self.clients.silent_to_cut(place);
        if let Some(sid) = cut {
            self.close(sid, CloseReason::Silent, None);
        }
        cut.is_some()
    }

    /// Dispatches a message of a working client.
    fn dispatch(self: &Rc<Self>, sid: Sid, message: &Message<'_>) {
        let kind = match message.id {
            0 => Counter::Notifies,
            _ => Counter::Requests,
        };
        self.core.counters().add(kind, 1);
        let mut scratch = Vec::new();
        self.dispatch_decoded(sid, message, &mut scratch);
        self.clients.recycle(scratch);
    }

    /// As pomelo: judges the body before the route, so a bad body is an error for every route.
    fn dispatch_decoded(self: &Rc<Self>, sid: Sid, message: &Message<'_>, scratch: &mut Vec<u8>) {
        let (core, clients, app) = (&self.core, &self.clients, &self.app);
        let Some((route, compressed)) = clients.route(message.route) else {
            return core.counters().add(Counter::MessagesDropped, 1);
        };
        hop!();
        let destination = app.resolve(route);
        let text = &*app.text(destination, route);
        let target = ResponseTarget {
            sid,
            id: message.id,
            proto: clients.response_proto(text),
        };
        let body = match clients.decode(core, sid, text, message.body, scratch) {
            Ok(Decoded::Body(body)) => body,
            Ok(Decoded::Unsigned) => return,
            Ok(Decoded::TooLong) => {
                let cause = "its body is longer than client.json_bytes_max, and signed";
                return self.finish(target, text, &Outcome::error(cause));
            }
            Err(reason) => return self.refuse_message(sid, reason),
        };
        if core.traces.follow(sid) {
            trace_message(core, sid, message, Some(text), &body);
        }
        match destination {
            Target::NoRoute => return core.counters().add(Counter::MessagesDropped, 1),
            // As pinus: before anything else is said of the route.
            _ if !core.config.client.forward && !app.serves(route) => {
                return self.refuse_message(sid, CloseReason::NotForwarded);
            }
            Target::Malformed => {
                return self.finish(target, text, &Outcome::error("meet unknown route message"));
            }
            Target::Attack => {
                tracing::warn!(session = %sid, "attack session: a route names a constructor");
                core.counters().add(Counter::MessagesRefused, 1);
                return self.close(sid, CloseReason::Attack, Some("attack"));
            }
            Target::Local(_) | Target::NoHandler | Target::Remote => {}
        }
        let Some((identity, is_full)) = clients.sender(core, sid) else {
            return core.counters().add(Counter::MessagesDropped, 1);
        };
        if is_full {
            return self.reject_session_limit(target, text);
        }
        if core.memory.level() == MemoryLevel::HeartbeatsOnly {
            return self.reject_memory_limit(target, text);
        }
        let session = Session::new(sid, identity, self.clone());
        let request = Request {
            id: message.id,
            kind: message.kind.number(),
            compressed,
            gzip: message.gzip,
            route: text,
            body: &body,
            session: &session,
        };
        match app.way(destination) {
            Some(Way::Forward) => self.forward_client(target, &request),
            Some(Way::Handler(index)) => self.call(target, index, &request),
            Some(Way::NoHandler) => {
                self.finish(target, text, &Outcome::error("fail to find handler"));
            }
            Some(Way::Filters) => self.filtered(target, destination, &request),
            None => self.reject_shard_limit(target, text),
        }
    }

    /// Closes a client because of its message.
    #[cold]
    fn refuse_message(self: &Rc<Self>, sid: Sid, reason: CloseReason) {
        self.core.counters().add(Counter::MessagesRefused, 1);
        self.react(Fault::Client(sid, reason));
    }

    /// Answers a message whose session has too many in flight.
    #[cold]
    fn reject_session_limit(self: &Rc<Self>, target: ResponseTarget, route: &str) {
        self.core.counters().add(Counter::SessionCallsFull, 1);
        self.finish(
            target,
            route,
            &Outcome::error("too many messages in flight"),
        );
    }

    /// Answers a message while memory is too short to handle it.
    #[cold]
    fn reject_memory_limit(self: &Rc<Self>, target: ResponseTarget, route: &str) {
        self.core.counters().add(Counter::MemoryMessagesRefused, 1);
        self.finish(target, route, &Outcome::error("memory is short"));
    }

    /// Answers a message whose shard has too many in progress.
    #[cold]
    fn reject_shard_limit(self: &Rc<Self>, target: ResponseTarget, route: &str) {
        self.core.counters().add(Counter::InProgressFull, 1);
        let outcome = Outcome::error("too many messages in progress");
        self.finish(target, route, &outcome);
    }
}

/// Cause of the code 500 that a message gets whose handler or filter panicked.
const PANICKED: &str = "the handler panicked";

/// From a handler to the response.
impl Shard {
    /// Calls a handler without filters. Cost: nothing allocated here when it answers at once, and the outcome
    /// is not moved: what was just written is slow to read in other pieces.
    fn call(self: &Rc<Self>, target: ResponseTarget, index: usize, request: &Request<'_>) {
        match self.app.call(index, request) {
            Ok(Answer::Now(ref outcome)) => self.finish(target, request.route, outcome),
            Ok(Answer::Later(future)) => self.call_later(target, index, request, future),
            Err(_) => self.panicked(target, request.route),
        }
    }

    #[inline(never)]
    fn call_later(
        self: &Rc<Self>,
        target: ResponseTarget,
        index: usize,
        request: &Request<'_>,
        future: LocalFuture<Outcome<'static>>,
    ) {
        // The router knows the route of each handler, but the fallback serves any route.
        let is_fallback = self.app.router().fallback_index() == Some(index);
        let route: Option<Rc<str>> = is_fallback.then(|| request.route.into());
        let (shard, other) = (self.clone(), route.clone());
        let work = async move {
            let outcome = future.await;
            let route = other.as_deref();
            let route = route.unwrap_or_else(|| shard.app.router().route_of(index));
            shard.finish(target, route, &outcome);
        };
        let bytes = request.body.len();
        self.spawn(target, bytes, Work::Handler(index), work, move |shard| {
            let route = route.as_deref();
            let route = route.unwrap_or_else(|| shard.app.router().route_of(index));
            shard.panicked(target, route);
        });
    }

    /// Sends a message through the filters; they get a copy, because the read buffer is used again.
    #[inline(never)]
    fn filtered(
        self: &Rc<Self>,
        target: ResponseTarget,
        destination: Target,
        request: &Request<'_>,
    ) {
        let incoming = Rc::new(Incoming::new(request));
        let (shard, router) = (self.clone(), self.app.router().clone());
        let message = incoming.clone();
        let work = async move {
            let forward = async |incoming: Rc<Incoming>| {
                let slot = Rc::new(Slot::default());
                match shard.forward(&incoming.request(), Origin::Filtered(slot.clone())) {
                    Ok(()) => slot.take().await,
                    Err(failure) => Outcome::failed(failure),
                }
            };
            router.handle(message, destination, forward).await;
        };
        let kind = match destination {
            Target::Local(index) => Work::Filtered(index),
            _ => Work::Filters,
        };
        self.spawn(target, request.body.len(), kind, work, move |shard| {
            shard.report_panic(target.sid, &incoming.route);
            incoming.answer(Outcome::error(PANICKED));
        });
    }

    /// Runs the rest of a message beside others. There was room for it when it came, so it is not
    /// refused any more: its handler may have begun. `bytes` is the size of its body, which it may hold. A panic costs
    /// this message only: `lost` then answers it.
    fn spawn(
        self: &Rc<Self>,
        target: ResponseTarget,
        bytes: usize,
        kind: Work,
        work: impl Future<Output = ()> + 'static,
        lost: impl FnOnce(&Rc<Self>) + 'static,
    ) {
        self.clients.add_in_flight(target.sid);
        self.core.counters().add(Counter::MessagesInFlight, 1);
        self.app.begin_work(&self.core);
        self.core.memory.begin_body(bytes);
        let shard = self.clone();
        let begun = self.core.looked.get();
        task::spawn(async move {
            if shard.app.run(kind, work).await.is_err() {
                lost(&shard);
            }
            let core = &shard.core;
            let time = core.looked.get().saturating_duration_since(begun);
            core.counters().record_time(Measure::Handler, time);
            shard.app.end_work(&shard.core);
            core.memory.end_body(bytes);
            shard.core.counters().sub(Counter::MessagesInFlight, 1);
            shard.clients.end_in_flight(target.sid);
        })
        .detach();
    }

    #[cold]
    fn panicked(self: &Rc<Self>, target: ResponseTarget, route: &str) {
        self.report_panic(target.sid, route);
        self.finish(target, route, &Outcome::error(PANICKED));
    }

    #[cold]
    fn report_panic(self: &Rc<Self>, sid: Sid, route: &str) {
        let panic = Panic::of("a handler").with_name(route).with_session(sid);
        self.react(Fault::Bug(panic));
    }

    /// Sends the client the response for an outcome. The route is for the log.
    pub(super) fn finish(
        self: &Rc<Self>,
        target: ResponseTarget,
        route: &str,
        outcome: &Outcome<'_>,
    ) {
        if let Some(error) = &outcome.error {
            self.failed(target, route, &error.0);
        }
        match reply::compose(target.id, outcome) {
            Some(body) => self.respond(target, route, &body),
            None => self.core.counters().add(Counter::NotifiesEnded, 1),
        }
    }

    /// Counts and logs a message that is answered with code 500.
    #[cold]
    fn failed(&self, target: ResponseTarget, route: &str, cause: &str) {
        self.core.counters().add(Counter::Failed, 1);
        let ResponseTarget { sid, id, .. } = target;
        let cause = log_text(cause);
        tracing::info!(session = %sid, id, route, cause, "a message failed with code 500");
    }

    /// Sends a response. Cost: the one copy of its body, which a proto makes two.
    fn respond(self: &Rc<Self>, target: ResponseTarget, route: &str, body: &[u8]) {
        let ResponseTarget { sid, id, proto } = target;
        let (core, clients) = (&self.core, &self.clients);
        let via = if self.app.selects_schedulers() {
            self.select_scheduler(&Sending::Response { id, body })
        } else {
            Ok(clients.response_scheduler())
        };
        let mut encoded = Vec::new();
        let body = match proto {
            None => body,
            Some(proto) => clients.encode_response(core, sid, proto, route, body, &mut encoded),
        };
        let mut bytes = message::response_bytes(id, body.len());
        let mut body = body;
        // A body that no package can hold is an error of the handler.
        if bytes > PACKAGE_BODY_BYTES_MAX {
            self.failed(target, route, "the response does not fit into a package");
            body = bodies::FAILED;
            bytes = message::response_bytes(id, body.len());
        }
        let write = |out: &mut Vec<u8>| message::write_response(out, id, body);
        let sent = via.is_ok_and(|via| self.send(sid, via, bytes, write, None));
        let counter = if sent {
            Counter::Responses
        } else {
            Counter::ResponsesDropped
        };
        core.counters().add(counter, 1);
    }
}

/// Connections of clients.
impl Shard {
    /// Hands a data package of `bytes` bytes to a push scheduler, behind those of fan-outs; false when the session is not
    /// working. `shared` is the same package where others get it too.
    fn send(
        self: &Rc<Self>,
        sid: Sid,
        via: Via,
        bytes: usize,
        write: impl Fn(&mut Vec<u8>),
        shared: Option<&bytes::Bytes>,
    ) -> bool {
        self.end_fan_outs_of(sid);
        self.send_now(sid, via, bytes, write, shared)
    }

    /// Hands a data package to a push scheduler.
    fn send_now(
        self: &Rc<Self>,
        sid: Sid,
        via: Via,
        bytes: usize,
        write: impl Fn(&mut Vec<u8>),
        shared: Option<&bytes::Bytes>,
    ) -> bool {
        let (core, clients) = (&self.core, &self.clients);
        let appended = loop {
            match clients.append(core, sid, via, bytes, &write, shared) {
                // At most once more: now there is room for the package.
                Appended::Full if self.make_room_or_close(sid, bytes) => {}
                appended => break appended,
            }
        };
        let is_sent = appended == Appended::Done;
        if is_sent && core.traces.follow(sid) {
            self.trace_sent(sid, &write);
        }
        is_sent
    }

    /// Shows the traces of a session a package for it.
    #[cold]
    fn trace_sent(&self, sid: Sid, write: impl Fn(&mut Vec<u8>)) {
        let mut package = Vec::new();
        write(&mut package);
        let message = package.get(package::HEAD_BYTES..).map(message::decode);
        if let Some(Ok(message)) = message {
            let route = self.clients.route(message.route);
            let route = route.map(|(route, _)| String::from_utf8_lossy(route).into_owned());
            trace_message(&self.core, sid, &message, route.as_deref(), message.body);
        }
    }

    /// Makes room for `bytes` more in the outbox of a client. Bytes that only wait for the end of the turn are
    /// written first; a client whose socket takes no more is closed.
    fn make_room_or_close(self: &Rc<Self>, sid: Sid, bytes: usize) -> bool {
        let (core, clients) = (&self.core, &self.clients);
        if clients.has_room(core, sid, bytes) {
            return true;
        }
        clients.release_all(sid);
        connection::flush(self, sid);
        if clients.has_room(core, sid, bytes) {
            return true;
        }
        self.react(Fault::Client(sid, CloseReason::OutboxFull));
        false
    }

    /// Closes a connection whose deadline has passed.
    pub(super) fn check_timeouts(self: &Rc<Self>, sid: Sid, time: ShardTime) {
        if let Some(reason) = self.clients.check_timeouts(&self.core, sid, time) {
            self.react(Fault::Client(sid, reason));
        }
    }

    /// Makes the application's calls whose time has come.
    pub(super) fn ring_alarms(self: &Rc<Self>, alarms: &Alarms, time: ShardTime) {
        alarms.ring(time, |call| {
            if self.app.catch(Work::Alarm, call).is_err() {
                self.react(Fault::Bug(Panic::of("a delayed call")));
            }
        });
    }

    /// Closes a connection; tells the coordinator, the handlers and the delegate. The text of a kick goes out
    /// as a package.
    pub(super) fn close(self: &Rc<Self>, sid: Sid, reason: CloseReason, kick: Option<&str>) {
        if !reason.drops_output() {
            self.end_fan_outs_of(sid);
        }
        let Some(closed) = self.clients.close(&self.core, sid, reason, kick) else {
            return;
        };
        let Closed {
            identity,
            counted,
            delegate,
        } = closed;
        if self.core.traces.follow(sid) {
            self.core.traces.end(sid, reason.name());
        }
        self.clients
            .log_closed(sid, reason, kick, identity.uid.as_ref());
        if identity.uid.is_some() {
            self.report_unbound(sid);
        }
        if counted {
            self.notify_handlers(sid, identity.clone(), SessionEvent::Close);
        }
        if let Some(mark) = delegate {
            self.tell_end(sid, identity, mark);
        }
    }

    /// Closes the connections of all clients.
    pub(super) fn close_everything(self: &Rc<Self>) {
        for sid in self.clients.sids() {
            self.close(sid, CloseReason::Stopping, None);
        }
    }

    /// Calls the handlers that want an event of a session.
    fn notify_handlers(
        self: &Rc<Self>,
        sid: Sid,
        identity: Rc<crate::session::Identity>,
        event: SessionEvent,
    ) {
        if self.app.wants(&event) {
            let (core, context) = (&self.core, self.context());
            self.app
                .notify_handlers(core, &context, sid, identity, event);
        }
    }

    /// The shard as its application sees it.
    pub(super) fn context(self: &Rc<Self>) -> Rc<dyn ShardContext> {
        self.clone()
    }
}

/// Other shards.
impl Shard {
    /// Acts on the parcels that another shard sent in one turn.
    pub(super) fn receive_batch(self: &Rc<Self>, batch: &Batch) {
        let (core, peers) = (&self.core, &self.peers);
        for parcel in &batch.parcels {
            debug_assert!(
                is_for(parcel, core.id),
                "another shard is meant: {parcel:?}"
            );
            match parcel {
                Parcel::Frames { peer, epoch, bytes } => {
                    peers.send_frames(core, *peer, *epoch, &batch.bytes[bytes.clone()]);
                }
                Parcel::Answer { peer, id, bytes } => {
                    self.answered(*peer, *id, &batch.bytes[bytes.clone()]);
                }
                Parcel::LinkUp { peer, epoch } => peers.link_is_up(core, *peer, *epoch),
                Parcel::LinkDown { peer, next } => {
                    self.fail_calls(peers.link_is_down(core, *peer, *next));
                }
                Parcel::Members(members) => self.follow_registry(members.clone()),
                Parcel::HostFilter(filter) => self.clients.set_host_filter(filter.clone()),
                Parcel::Broadcast { package, options } => self.push_to_all(package, options),
                Parcel::Push { package, sids } => {
                    self.push_to_members(batch.sids[sids.clone()].into(), package);
                }
                Parcel::Kick { sid, reason, text } => self.close(*sid, *reason, text.as_deref()),
                Parcel::Bound { sid, uid, address } => self.bound(*sid, uid, address),
                Parcel::Unbound { sid } => self.unbound(*sid),
                Parcel::Request {
                    ticket,
                    from,
                    request,
                } => self.serve(*from, *ticket, (**request).clone()),
                Parcel::Reply { ticket, reply } => self.replied(*ticket, reply.clone()),
                Parcel::Trace(trace) => {
                    let (target, sink) = &**trace;
                    match target {
                        TraceTarget::Session(sid) if self.clients.is_open(*sid) => {
                            core.traces.begin(*sid, sink.clone());
                        }
                        TraceTarget::Session(_) => {}
                        TraceTarget::Uid(uid) => core.traces.begin_uid(uid, sink.clone()),
                    }
                }
                Parcel::Operator(asked) => self.serve_operator(&asked.0, asked.1.clone()),
            }
        }
    }
}

/// Returns false for a parcel that only another shard can act on.
fn is_for(parcel: &Parcel, shard: ShardId) -> bool {
    match parcel {
        Parcel::Members(_) => shard != COORDINATOR,
        Parcel::Bound { sid, .. } | Parcel::Unbound { sid } => {
            shard == COORDINATOR && sid.shard() != shard
        }
        Parcel::Kick { sid, .. } => sid.shard() == shard,
        Parcel::Request { from, .. } => *from != shard,
        Parcel::Operator(_) => shard == COORDINATOR,
        Parcel::Trace(trace) => match &trace.0 {
            TraceTarget::Session(sid) => sid.shard() == shard,
            TraceTarget::Uid(_) => true,
        },
        _ => true,
    }
}
