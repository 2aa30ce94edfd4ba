//! The switchboard: what a message, an answer or a parcel leads to.

use std::borrow::Cow;
use std::rc::Rc;

use super::Shard;
use super::app::activity::Work;
use super::coordinator::ReplyTo;
use super::mesh::{Batch, Parcel};
use super::peers::calls::{self, Caller};
use crate::error::Fault;
use crate::handler::filter::{self, Slot};
use crate::handler::{
    Answer, CallError, Failure, Incoming, LocalFuture, Outcome, Request, Session, reply,
};
use crate::ids::{PeerIndex, ShardId, Sid};
use crate::limits::{IN_PROGRESS_MAX, LOG_TEXT_BYTES_MAX, READ_BUFFER_BYTES};
use crate::metrics::Counter;
use crate::peer::pending::Calls;
use crate::route::{self, Target};
use crate::session::{Identity, Uid};
use crate::time::ShardTime;
use crate::wire::json;
use crate::wire::message::Message;
use crate::wire::pomelo::rpc;
use crate::wire::protobuf::ProtoId;

/// Whom the answer to a call is for.
#[derive(Debug)]
pub(super) enum Origin {
    /// A client's message, and its route for the log.
    Client(Asker, ShortRoute),
    /// A message that has filters to go through.
    Task(Rc<Slot<Outcome<'static>>>),
    /// A call of a handler's own.
    Call(Box<Caller>),
}

/// Whose message it is, and what its response has to look like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub(super) sid: Sid,
    /// 0 for a notify, which has no response.
    pub(super) id: u32,
    pub(super) proto: Option<ProtoId>,
}

// Each message in flight holds one.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Asker>() == 16);

/// Route of a forwarded message, for the log line of a failure; cut after 47 bytes.
///
/// Cost: a copy of a few bytes for each forwarded message, no allocation.
#[derive(Debug)]
pub(super) struct ShortRoute {
    length: u8,
    bytes: [u8; Self::BYTES_MAX],
}

impl ShortRoute {
    const BYTES_MAX: usize = 47;

    fn new(route: &str) -> Self {
        let cut = &route.as_bytes()[..route.floor_char_boundary(Self::BYTES_MAX)];
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[..cut.len()].copy_from_slice(cut);
        Self {
            length: cut.len() as u8,
            bytes,
        }
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

/// Returns the part of a text that fits into a log line.
pub(super) fn log_text(text: &str) -> &str {
    &text[..text.floor_char_boundary(LOG_TEXT_BYTES_MAX)]
}

/// As UTF-8. Asked first whether it is: what the standard library does for what is not, takes longer.
fn lossy(text: &[u8]) -> Cow<'_, str> {
    str::from_utf8(text).map_or_else(|_| String::from_utf8_lossy(text), Cow::Borrowed)
}

/// The shard that owns the link to a server.
pub(super) fn owner(peer: PeerIndex, shards: usize) -> ShardId {
    ShardId((peer.index() % shards) as u16)
}

impl Shard {
    /// A message of a working client.
    pub(super) fn dispatch(self: &Rc<Self>, sid: Sid, message: &Message<'_>) {
        self.counters().add(Counter::Messages, 1);
        let mut scratch = Vec::new();
        self.dispatch_decoded(sid, message, &mut scratch);
        // What one large body needed must not stay for ever.
        if (1..=READ_BUFFER_BYTES).contains(&scratch.capacity()) {
            scratch.clear();
            self.clients.scratch.set(scratch);
        }
    }

    /// As pomelo: first the body, then the route.
    fn dispatch_decoded(self: &Rc<Self>, sid: Sid, message: &Message<'_>, scratch: &mut Vec<u8>) {
        let Some((route, compressed)) = self.clients.coder.route(message.route) else {
            return self.counters().add(Counter::MessagesDropped, 1);
        };
        hop!();
        let text = &*lossy(route);
        let Some(body) = self.body(sid, text, message.body, scratch) else {
            return;
        };
        let asker = Asker {
            sid,
            id: message.id,
            proto: self.clients.coder.response_proto(text),
        };
        let target = match self.app.routes.resolve(route) {
            Target::NoHandler => self.app.fallback,
            target => target,
        };
        match target {
            Target::NoRoute => return self.counters().add(Counter::MessagesDropped, 1),
            // As pinus: before anything else is said of the route.
            _ if !self.core.config.client.forward && !self.app.routes.is_served(route) => {
                return self.close(sid, Fault::NotForwarded, None);
            }
            Target::Malformed => {
                return self.finish(asker, text, &Outcome::error("meet unknown route message"));
            }
            Target::Attack => {
                tracing::warn!(session = %sid, "attack session: a route names a constructor");
                return self.close(sid, Fault::Kicked, Some("attack"));
            }
            Target::Local(_) | Target::NoHandler | Target::Remote => {}
        }
        let most = self.core.config.client.calls_in_flight_max;
        let found = self.connection(sid, |connection| {
            let is_full = connection.in_flight as usize >= most;
            (connection.identity.clone(), is_full)
        });
        let Some((identity, is_full)) = found else {
            return;
        };
        if is_full {
            return self.full(asker, text);
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
        match target {
            Target::Remote if self.app.unfiltered.forwarded => self.forward_client(asker, &request),
            _ if self.app.in_progress.get() >= IN_PROGRESS_MAX => self.no_place(asker, text),
            Target::Local(index) if self.goes_straight(index) => self.call(asker, index, &request),
            Target::NoHandler if self.app.unfiltered.local => {
                self.finish(asker, text, &Outcome::error("fail to find handler"));
            }
            _ => self.filtered(asker, target, &request),
        }
    }

    /// Whether a message meets no filter on its way to a handler.
    fn goes_straight(&self, index: usize) -> bool {
        self.app.unfiltered.local && self.app.router.filters_of(index).is_empty()
    }

    /// Nothing of a message is done where its session has too many of them.
    #[cold]
    fn full(self: &Rc<Self>, asker: Asker, route: &str) {
        self.counters().add(Counter::SessionCallsFull, 1);
        self.finish(asker, route, &Outcome::error("too many messages in flight"));
    }

    /// Nor where the shard has.
    #[cold]
    fn no_place(self: &Rc<Self>, asker: Asker, route: &str) {
        self.counters().add(Counter::InProgressFull, 1);
        self.finish(
            asker,
            route,
            &Outcome::error("too many messages in progress"),
        );
    }

    /// A client's body as JSON text; `None` when the message is dropped or its client closed.
    fn body<'a>(
        self: &Rc<Self>,
        sid: Sid,
        route: &str,
        body: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Option<Cow<'a, [u8]>> {
        if self.clients.coder.has_client_protos() {
            *scratch = self.clients.scratch.take();
        }
        let Ok(body) = self.clients.coder.decode(route, body, scratch) else {
            self.close(sid, Fault::MessageBody, None);
            return None;
        };
        if !body.valid {
            self.counters().add(Counter::BodiesInvalid, 1);
        }
        if !self.core.config.client.use_crypto {
            return Some(Cow::Borrowed(body.text));
        }
        self.verified(sid, route, body.text).map(Cow::Owned)
    }

    /// A signed body without its signature. Not inlined, as all that follows here and is not for each
    /// message: what is for each of them then needs fewer registers.
    #[inline(never)]
    fn verified(&self, sid: Sid, route: &str, body: &[u8]) -> Option<Vec<u8>> {
        let verified = self.connection(sid, |connection| connection.verify(body));
        let verified = verified.flatten();
        if verified.is_none() {
            self.counters().add(Counter::MessagesUnsigned, 1);
            tracing::debug!(session = %sid, route, "fail to verify the data received from client.");
        }
        verified
    }

    /// Straight to a handler. Cost: nothing allocated here when it answers at once, and the outcome
    /// is not moved: what was just written is slow to read in other pieces.
    fn call(self: &Rc<Self>, asker: Asker, index: usize, request: &Request<'_>) {
        let call = || self.app.router.call(index, request);
        let answer = self.app.activity.call(Work::Handler(index), call);
        match answer {
            Ok(Answer::Now(ref outcome)) => self.finish(asker, request.route, outcome),
            Ok(Answer::Later(future)) => self.call_later(asker, index, request.route, future),
            Err(_) => self.panicked(asker, request.route),
        }
    }

    #[inline(never)]
    fn call_later(
        self: &Rc<Self>,
        asker: Asker,
        index: usize,
        route: &str,
        future: LocalFuture<Outcome<'static>>,
    ) {
        // The router knows the route of each handler, but the fallback serves any route.
        let is_fallback = self.app.router.fallback_index() == Some(index);
        let route: Option<Rc<str>> = is_fallback.then(|| route.into());
        let (shard, other) = (self.clone(), route.clone());
        let work = async move {
            let outcome = future.await;
            let route = other.as_deref();
            let route = route.unwrap_or_else(|| shard.app.router.route_of(index));
            shard.finish(asker, route, &outcome);
        };
        self.spawn(asker, Work::Handler(index), work, move |shard| {
            let route = route.as_deref();
            shard.panicked(
                asker,
                route.unwrap_or_else(|| shard.app.router.route_of(index)),
            );
        });
    }

    /// Through the filters; the message is copied out of the read buffer.
    #[inline(never)]
    fn filtered(self: &Rc<Self>, asker: Asker, target: Target, request: &Request<'_>) {
        let incoming = Rc::new(Incoming::new(request));
        let (shard, router, message) = (self.clone(), self.app.router.clone(), incoming.clone());
        let work = async move {
            let forward = async |incoming: Rc<Incoming>| {
                let slot = Rc::new(Slot::default());
                match shard.forward(&incoming.request(), Origin::Task(slot.clone())) {
                    Ok(()) => slot.take().await,
                    Err(failure) => Outcome::failed(failure),
                }
            };
            filter::handle(router, message, target, forward).await;
        };
        let kind = match target {
            Target::Local(index) => Work::Filtered(index),
            _ => Work::Filters,
        };
        self.spawn(asker, kind, work, move |shard| {
            // Id 0 has no response.
            let id = if incoming.is_answered() { 0 } else { asker.id };
            shard.panicked(Asker { id, ..asker }, &incoming.route);
        });
    }

    /// Runs the rest of a message beside others. There was room for it when it came, so it is not
    /// refused any more: its handler may have begun. A panic that nobody caught costs this message only:
    /// `lost` then answers it.
    fn spawn(
        self: &Rc<Self>,
        asker: Asker,
        kind: Work,
        work: impl Future<Output = ()> + 'static,
        lost: impl FnOnce(&Rc<Self>) + 'static,
    ) {
        self.connection(asker.sid, |connection| connection.in_flight += 1);
        self.count_work();
        let shard = self.clone();
        glommio::spawn_local(async move {
            if shard.app.activity.run(kind, work).await.is_err() {
                lost(&shard);
            }
            shard.end_work(asker.sid);
        })
        .detach();
    }

    #[cold]
    fn panicked(self: &Rc<Self>, asker: Asker, route: &str) {
        self.counters().add(Counter::Panics, 1);
        tracing::error!(session = %asker.sid, route, "a handler panicked");
        self.finish(asker, route, &Outcome::error("the handler panicked"));
    }

    /// Counts one more in flight for a session, if there is room; `None` when it is gone.
    pub(super) fn begin_in_flight(&self, sid: Sid) -> Option<bool> {
        let begun = self.connection(sid, |connection| {
            let room =
                (connection.in_flight as usize) < self.core.config.client.calls_in_flight_max;
            connection.in_flight += u32::from(room);
            room
        });
        if begun == Some(false) {
            self.counters().add(Counter::SessionCallsFull, 1);
        }
        begun
    }

    pub(super) fn end_in_flight(&self, sid: Sid) {
        self.connection(sid, |connection| connection.in_flight -= 1);
    }

    /// Counts one more future of the application in progress, for its session and for the shard; false
    /// when there is no room for it, or the session is gone.
    pub(super) fn begin_work(&self, sid: Sid) -> bool {
        if self.app.in_progress.get() >= IN_PROGRESS_MAX {
            self.counters().add(Counter::InProgressFull, 1);
            return false;
        }
        let begun = self.begin_in_flight(sid) == Some(true);
        if begun {
            self.count_work();
        }
        begun
    }

    fn count_work(&self) {
        self.app.in_progress.update(|works| works + 1);
        self.counters().add(Counter::InProgress, 1);
    }

    pub(super) fn end_work(&self, sid: Sid) {
        self.app.in_progress.update(|works| works - 1);
        self.counters().sub(Counter::InProgress, 1);
        self.end_in_flight(sid);
    }

    /// Sends the client the response for an outcome. The route is for the log.
    pub(super) fn finish(self: &Rc<Self>, asker: Asker, route: &str, outcome: &Outcome<'_>) {
        if let Some(error) = &outcome.error {
            self.failed(asker, route, &error.0);
        }
        match reply::compose(asker.id, outcome) {
            Some(body) => self.respond(asker, route, &body),
            None => self.counters().add(Counter::ResponsesDropped, 1),
        }
    }

    /// Counts and logs a message that is answered with code 500.
    #[cold]
    pub(super) fn failed(&self, asker: Asker, route: &str, cause: &str) {
        self.counters().add(Counter::Failed, 1);
        let Asker { sid, id, .. } = asker;
        let cause = log_text(cause);
        tracing::info!(session = %sid, id, route, cause, "a message failed with code 500");
    }

    fn forward_client(self: &Rc<Self>, asker: Asker, request: &Request<'_>) {
        if self.begin_in_flight(asker.sid) != Some(true) {
            let outcome = Outcome::error("too many calls in flight");
            return self.finish(asker, request.route, &outcome);
        }
        let origin = Origin::Client(asker, ShortRoute::new(request.route));
        if let Err(failure) = self.forward(request, origin) {
            self.end_in_flight(asker.sid);
            self.finish(asker, request.route, &Outcome::failed(failure));
        }
    }

    /// Forwards a message to a server of a type: picks the server, begins the call, writes its frame
    /// into the batch of the shard that owns the link.
    ///
    /// Cost: no allocation; the body is copied once, and once more when another shard owns the link.
    fn forward(self: &Rc<Self>, request: &Request<'_>, origin: Origin) -> Result<(), Failure> {
        let cluster = self.peers.cluster.borrow();
        let server_type = match route::server_type(request.route.as_bytes()) {
            own if own == self.core.config.server_type.as_bytes() => {
                self.note_delegated(request.session.id());
                self.core
                    .config
                    .delegate
                    .as_deref()
                    .map_or(own, str::as_bytes)
            }
            other => other,
        };
        let session = request.session;
        let peer = self
            .choose(&cluster, server_type, Some(session))
            .map_err(Failure::new)?;
        let frame = rpc::Forward {
            server_type: &cluster.peer(peer).type_json,
            message_id: request.id,
            kind: request.kind,
            compressed: request.compressed,
            route: request.route,
            body: request.body,
            gzip: request.gzip,
            session: rpc::Session {
                id: session.id().get(),
                frontend_id: &self.peers.server_id_json,
                uid: session.uid().map_or("null", Uid::json),
                settings: session.settings_json(),
            },
        };
        let write = |out: &mut Vec<u8>, id| rpc::write_forward(out, id, &frame);
        self.begin_call(peer, None, origin, write)
            .map_err(Failure::new)
    }

    /// A payload from a peer whose link this shard owns.
    pub(super) fn payload(self: &Rc<Self>, peer: PeerIndex, payload: &[u8]) {
        for answer in rpc::answers(payload) {
            let Ok(rpc::Answer { id: Some(id), resp }) = answer else {
                self.counters().add(Counter::BadAnswers, 1);
                continue;
            };
            let caller = Calls::<Origin>::shard_of(id, self.core.shards);
            if caller == self.core.id {
                self.answered(peer, id, resp);
            } else {
                self.core
                    .mesh
                    .borrow_mut()
                    .batch(caller)
                    .answer(peer, id, resp);
                self.core.turn.request();
            }
        }
    }

    /// The answer to a call of this shard.
    fn answered(self: &Rc<Self>, peer: PeerIndex, id: u64, resp: &[u8]) {
        let Some(origin) = self.peers.calls.borrow_mut()[peer.index()].finish(id) else {
            return self.counters().add(Counter::LateAnswers, 1);
        };
        self.counters().add(Counter::Answers, 1);
        if let Origin::Call(caller) = &origin {
            return self.called(caller, calls::results(resp));
        }
        let outcome = match (rpc::Answer { id: Some(id), resp }).result() {
            Ok(result) => Outcome {
                error: result
                    .error
                    .filter(|error| json::is_truthy(error))
                    .map(|error| CallError::Remote(json::parse(error).unwrap_or_default()).into()),
                response: result.value.map(Cow::Borrowed),
            },
            Err(_) => {
                self.counters().add(Counter::BadAnswers, 1);
                Outcome::error("the answer cannot be read")
            }
        };
        self.deliver(origin, outcome);
    }

    fn deliver(self: &Rc<Self>, origin: Origin, outcome: Outcome<'_>) {
        match origin {
            Origin::Client(asker, route) => {
                self.end_in_flight(asker.sid);
                self.finish(asker, route.text(), &outcome);
            }
            Origin::Task(slot) => slot.put(outcome.into_owned()),
            // It has no answer: that would have gone to `called`.
            Origin::Call(caller) => {
                let failure = outcome.error.unwrap_or_else(|| Failure::new("no answer"));
                self.called(&caller, Err(CallError::Lost(failure.0)));
            }
        }
    }

    /// Fails the calls whose deadline has passed.
    pub(super) fn expire_calls(self: &Rc<Self>, time: ShardTime) {
        let peers = self.peers.links.borrow().len();
        for peer in 0..peers {
            let origins = self.peers.calls.borrow_mut()[peer].expire(time);
            self.counters()
                .add(Counter::CallTimeouts, origins.len() as u64);
            for origin in origins {
                self.deliver(origin, Outcome::error("the server did not answer in time"));
            }
        }
    }

    /// The link to a peer has ended: its calls of this shard fail at once.
    pub(super) fn link_is_down(self: &Rc<Self>, peer: PeerIndex, next: crate::peer::Epoch) {
        let origins = self.peers.calls.borrow_mut()[peer.index()].link_down(next);
        self.counters()
            .add(Counter::LinkCallsFailed, origins.len() as u64);
        for origin in origins {
            self.deliver(origin, Outcome::error("the link to the server has ended"));
        }
    }

    /// The link to a peer is open.
    pub(super) fn link_is_up(&self, peer: PeerIndex, epoch: crate::peer::Epoch) {
        self.peers.calls.borrow_mut()[peer.index()].link_up(epoch);
    }

    /// What another shard sent in one turn.
    pub(super) fn receive_batch(self: &Rc<Self>, batch: &Batch) {
        for parcel in &batch.parcels {
            match parcel {
                Parcel::Frames { peer, epoch, bytes } => {
                    self.frames_of_another(*peer, *epoch, &batch.bytes[bytes.clone()]);
                }
                Parcel::Answer { peer, id, bytes } => {
                    self.answered(*peer, *id, &batch.bytes[bytes.clone()]);
                }
                Parcel::LinkUp { peer, epoch } => self.link_is_up(*peer, *epoch),
                Parcel::LinkDown { peer, next } => self.link_is_down(*peer, *next),
                Parcel::Broadcast { package, options } => self.push_to_all(package, options),
                Parcel::Push { package, sids } => {
                    for sid in &batch.sids[sids.clone()] {
                        self.push_package(*sid, package);
                    }
                }
                Parcel::HostFilter(filter) => {
                    *self.clients.host_filter.borrow_mut() = filter.clone()
                }
                Parcel::Cluster(cluster) => self.apply_cluster(cluster.clone()),
                Parcel::Kick { sid, reason } => {
                    self.close(*sid, Fault::Kicked, reason.as_deref());
                }
                Parcel::Ask { ticket, sid, ask } => {
                    let told = self.tell(*sid, (**ask).clone());
                    self.report(Parcel::Told {
                        ticket: *ticket,
                        told,
                    });
                }
                Parcel::Told { ticket, told } => self.told(*ticket, told.clone()),
                Parcel::Bound { sid, uid, address } => self.bound(*sid, uid, address),
                Parcel::Unbound { sid } => self.unbound(*sid),
                Parcel::Wish { ticket, from, wish } => {
                    self.grant(ReplyTo::Shard(*from, *ticket), (**wish).clone());
                }
                Parcel::Granted { ticket, told } => {
                    if let Some(slot) = self.app.wishes.borrow_mut().try_remove(*ticket as usize) {
                        slot.put(told.clone());
                    }
                }
            }
        }
    }
}

impl Shard {
    /// What backends get to know of a session.
    pub(super) fn export_session(&self, sid: Sid, identity: &Identity) -> Vec<u8> {
        let mut out = Vec::new();
        rpc::Session {
            id: sid.get(),
            frontend_id: &self.peers.server_id_json,
            uid: identity.uid.as_ref().map_or("null", Uid::json),
            settings: identity.settings.json(),
        }
        .write(&mut out);
        out
    }

    /// Tells every other shard.
    pub(super) fn tell_others(&self, parcel: impl Fn() -> Parcel) {
        let mut mesh = self.core.mesh.borrow_mut();
        for shard in (0..self.core.shards).map(|shard| ShardId(shard as u16)) {
            if shard != self.core.id {
                mesh.batch(shard).parcels.push(parcel());
            }
        }
        self.core.turn.request();
    }
}
