//! Calls to other servers and their calls here, and news of the cluster.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::Shard;
use crate::checked::Remote;
use crate::handler::{
    CallError, CallResult, Failure, Invocation, Outcome, Request, Sent, Session, Slot,
};
use crate::ids::{PeerIndex, Sid};
use crate::metrics::Counter;
use crate::net::task;
use crate::peer::delegate::{DelegateMark, delegate_of};
use crate::peer::directory::MemberList;
use crate::peer::pending::Calls;
use crate::route;
use crate::route::balance::Strategy;
use crate::shard::clients::blacklist;
use crate::shard::origin::{Caller, Origin, ResponseTarget, ShortRoute};
use crate::shard::parcel::Parcel;
use crate::shard::peers::calls::results;
use crate::shard::peers::link;
use crate::shard::peers::registry::Order;
use crate::shard::peers::writer::PeerWriter;
use crate::wire::json;
use crate::wire::pomelo::rpc;

/// Forwarded messages and their answers.
impl Shard {
    /// Forwards a message that meets no filter.
    pub(super) fn forward_client(self: &Rc<Self>, target: ResponseTarget, request: &Request<'_>) {
        if self.clients.begin_in_flight(&self.core, target.sid) != Some(true) {
            let outcome = Outcome::error("too many calls in flight");
            return self.finish(target, request.route, &outcome);
        }
        let counters = self.core.counters();
        counters.add(Counter::MessagesInFlight, 1);
        let origin = Origin::Client(target, ShortRoute::new(request.route));
        if let Err(failure) = self.forward(request, origin) {
            counters.sub(Counter::MessagesInFlight, 1);
            self.clients.end_in_flight(target.sid);
            self.finish(target, request.route, &Outcome::failed(failure));
        }
    }

    /// Forwards a message to a server of the type that its route names, or to the delegate: messages of the own type,
    /// and those that the delegate sends on. A message for a type with the strategy `delegate:session` may wait.
    #[inline]
    pub(super) fn forward(
        self: &Rc<Self>,
        request: &Request<'_>,
        origin: Origin,
    ) -> Result<(), Failure> {
        hop!();
        let config = &self.core.config;
        let theirs = route::server_type(request.route.as_bytes());
        let is_own = theirs == config.server_type.as_bytes();
        let sid = request.session.id();
        let delegation = config.delegation(theirs).filter(|_| !is_own);
        if delegation == Some(&Strategy::DelegateSession) {
            return self.forward_by_session(request, origin);
        }
        let delegate = config.delegate.as_deref();
        let delegate = delegate.filter(|_| is_own || delegation.is_some());
        // Only a delegate that is told of sessions pays for this.
        let is_told = config.delegate_notices || config.delegate_closed.is_some();
        let mark = delegate
            .filter(|_| is_told)
            .map(|_| self.clients.delegate(sid));
        let is_first = mark == Some(None);
        let to = mark.and_then(|mark| self.choose_delegate(sid, mark));
        let server_type = delegate.map_or(theirs, str::as_bytes);
        let address = is_first.then(|| self.clients.address(sid)).flatten();
        let core = &self.core;
        let forwarded =
            self.peers
                .forward(core, server_type, to, request, address.as_ref(), origin);
        match forwarded {
            Ok(()) if is_first => self.clients.note_delegate(sid, to.unwrap_or(PeerIndex(0))),
            Ok(()) => {}
            Err(text) if delegate.is_some() => return Err(self.undelegated(text)),
            Err(text) => return Err(Failure::new(text)),
        }
        Ok(())
    }

    /// Chooses the delegate that gets the messages of a session; `None` without notices, where routing chooses. A delegate
    /// that gets the session from another one learns its state first.
    fn choose_delegate(&self, sid: Sid, mark: Option<DelegateMark>) -> Option<PeerIndex> {
        if !self.core.config.delegate_notices {
            return None;
        }
        let to = delegate_of(mark, sid, &self.peers.delegates(&self.core))?;
        if mark.is_some_and(|before| before != DelegateMark::of(to)) {
            self.tell_change(sid, None);
        }
        Some(to)
    }

    /// Counts and logs a message that cannot be sent to the delegate.
    #[cold]
    fn undelegated(&self, cause: &str) -> Failure {
        self.core.counters().add(Counter::MessagesUndelegated, 1);
        let delegate = self.core.config.delegate.as_deref().unwrap_or_default();
        tracing::warn!(delegate, cause, "a message cannot be sent to the delegate");
        Failure::new(format!("the delegate, {delegate:?}: {cause}"))
    }

    /// Acts on a payload from a peer whose link this shard owns.
    pub(in crate::shard) fn payload(self: &Rc<Self>, peer: PeerIndex, payload: &[u8]) {
        let core = &self.core;
        for answer in rpc::answers(payload) {
            let Ok(rpc::PeerReply { id: Some(id), resp }) = answer else {
                core.counters().add(Counter::BadAnswers, 1);
                continue;
            };
            let caller = Calls::<Origin>::shard_of(id, core.shards);
            if caller == core.id {
                self.answered(peer, id, resp);
            } else {
                core.mesh.borrow_mut().batch(caller).answer(peer, id, resp);
                core.turn.request();
            }
        }
    }

    /// Ends a call of this shard with its answer.
    pub(super) fn answered(self: &Rc<Self>, peer: PeerIndex, id: u64, resp: &[u8]) {
        hop!();
        let counters = self.core.counters();
        let Some(origin) = self.peers.end_call(&self.core, peer, id) else {
            return counters.add(Counter::LateAnswers, 1);
        };
        counters.add(Counter::Answers, 1);
        match &origin {
            Origin::Call(caller) => return self.called(caller, results(resp)),
            Origin::Peer(writer, call) => {
                let resp = rpc::checked_resp(resp).inspect_err(|_| {
                    counters.add(Counter::BadAnswers, 1);
                });
                let resp = resp.map_err(|_| "the answer cannot be read");
                return self.delegated(writer, call, resp);
            }
            Origin::Client(..) | Origin::Filtered(_) | Origin::Notice => {}
        }
        let outcome = match (rpc::PeerReply { id: Some(id), resp }).result() {
            Ok(result) => Outcome {
                error: result
                    .error
                    .filter(|error| json::is_truthy(error))
                    .map(|error| CallError::Remote(json::parse(error).unwrap_or_default()).into()),
                response: result.value.map(Cow::Borrowed),
            },
            Err(_) => {
                counters.add(Counter::BadAnswers, 1);
                Outcome::error("the answer cannot be read")
            }
        };
        self.deliver(origin, outcome);
    }

    /// Gives the outcome of a call to the one who waits for it.
    pub(super) fn deliver(self: &Rc<Self>, origin: Origin, outcome: Outcome<'_>) {
        match origin {
            Origin::Client(target, route) => {
                self.core.counters().sub(Counter::MessagesInFlight, 1);
                self.clients.end_in_flight(target.sid);
                self.finish(target, route.text(), &outcome);
            }
            Origin::Filtered(slot) => slot.put(outcome.into_owned()),
            Origin::Notice => self.noticed(&outcome),
            // These two have no answer: `answered` gives it to `called` or `delegated`.
            Origin::Call(caller) => {
                let failure = outcome.error.unwrap_or_else(|| Failure::new("no answer"));
                self.called(&caller, Err(CallError::Lost(failure.0)));
            }
            Origin::Peer(writer, call) => {
                let failure = outcome.error.unwrap_or_else(|| Failure::new("no answer"));
                self.delegated(&writer, &call, Err(&failure.0));
            }
        }
    }

    /// Delivers the failure of calls whose deadline has passed.
    pub(in crate::shard) fn expire_calls(self: &Rc<Self>, expired: Vec<Origin>) {
        for origin in expired {
            self.deliver(origin, Outcome::error("the server did not answer in time"));
        }
    }

    /// Delivers the failure of calls whose link has ended.
    pub(in crate::shard) fn fail_calls(self: &Rc<Self>, failed: Vec<Origin>) {
        for origin in failed {
            self.deliver(origin, Outcome::error("the link to the server has ended"));
        }
    }
}

/// Calls of handlers.
impl Shard {
    /// Sends a handler's call.
    pub(in crate::shard) fn invoke(&self, call: &Invocation<'_>) -> Sent {
        let (core, clients, peers) = (&self.core, &self.clients, &self.peers);
        let peer = peers.server_of(core, call)?;
        // A session that has closed has no messages in flight to count with.
        let counted = |session: &Session| {
            let sid = session.id();
            (sid, clients.begin_in_flight(core, sid))
        };
        let sid = match call.session.map(counted) {
            Some((_, Some(false))) => {
                return Err(CallError::NotSent("too many calls in flight".into()));
            }
            Some((sid, Some(true))) => Some(sid),
            Some((_, None)) | None => None,
        };
        let slot: Rc<Slot<CallResult>> = Rc::default();
        let caller = Caller {
            slot: slot.clone(),
            sid,
        };
        let sent = peers.invoke(core, peer, call, caller);
        if let (Err(_), Some(sid)) = (&sent, sid) {
            clients.end_in_flight(sid);
        }
        sent.map(|()| slot)
    }

    /// Gives a handler the result of its call.
    fn called(&self, caller: &Caller, result: CallResult) {
        if let Some(sid) = caller.sid {
            self.clients.end_in_flight(sid);
        }
        caller.slot.put(result);
    }

    /// Calls a remote of the delegate and waits for its results.
    pub(in crate::shard) async fn ask_delegate(
        &self,
        remote: &Remote,
        session: Option<&Session>,
        args: &[u8],
    ) -> CallResult {
        self.call_delegate(remote, session, args)?.take().await
    }

    /// Calls a remote of the delegate, whose server routing chooses for a session, or for one without uid. Unlike a
    /// handler's call it does not count among those of the session, which may have no room.
    pub(super) fn call_delegate(
        &self,
        remote: &Remote,
        session: Option<&Session>,
        args: &[u8],
    ) -> Sent {
        let server_type = self.core.config.delegate.as_deref().unwrap_or_default();
        let not_sent = |text: &str| {
            CallError::NotSent(format!("the delegate, {server_type:?}: {text}").into())
        };
        let server = self.peers.choose_id(&self.core, server_type, session);
        let server = server.map_err(not_sent)?;
        let sent = self.invoke(&Invocation {
            server_type,
            server: Some(&server),
            service: &remote.service,
            method: &remote.method,
            args,
            timeout: None,
            session: None,
        });
        sent.map_err(|error| match error {
            CallError::NotSent(text) => not_sent(&text),
            other => other,
        })
    }
}

/// Calls of peers for remotes of the application.
impl Shard {
    /// Serves a call of a remote: the application's own one, or one of the delegate.
    pub(super) fn serve_remote(self: &Rc<Self>, writer: &Rc<PeerWriter>, call: &rpc::PeerCall<'_>) {
        let (core, app) = (&self.core, &self.app);
        let found = app.find_remote(core, &call.service, &call.method);
        let served = match (found, core.config.delegate.as_deref()) {
            (Ok(index), _) => self.run_remote(writer, call, index),
            (Err(_), Some(delegate)) => self.delegate_remote(writer, call, delegate),
            (Err(text), None) => Err((Counter::BadCalls, text.into())),
        };
        if let Err((counter, text)) = served {
            core.counters().add(counter, 1);
            self.peers.answer(core, writer, call.id, Err(&text));
        }
    }

    /// Runs a remote and answers its caller.
    fn run_remote(
        self: &Rc<Self>,
        writer: &Rc<PeerWriter>,
        call: &rpc::PeerCall<'_>,
        index: usize,
    ) -> Result<(), Refusal> {
        let Some(Value::Array(args)) = json::parse(call.args) else {
            return Err((Counter::BadCalls, "args is not an array".into()));
        };
        self.begin_remote(writer)?;
        let (shard, writer, id) = (self.clone(), writer.clone(), Box::<[u8]>::from(call.id));
        let name = format!("{}.{}", call.service, call.method);
        task::spawn(async move {
            let Self { core, app, .. } = &*shard;
            let context = shard.context();
            let results = app.run_remote(core, context, index, &name, args).await;
            writer.end_remote();
            shard.peers.answer_remote(core, &writer, &id, results);
        })
        .detach();
        Ok(())
    }

    /// Passes a call on to the delegate.
    fn delegate_remote(
        &self,
        writer: &Rc<PeerWriter>,
        call: &rpc::PeerCall<'_>,
        server_type: &str,
    ) -> Result<(), Refusal> {
        self.begin_remote(writer)?;
        let origin = Origin::Peer(writer.clone(), call.id.into());
        let passed = self.peers.pass_on(&self.core, server_type, call, origin);
        passed.map_err(|text| {
            writer.end_remote();
            (Counter::RemotesUndelegated, text.into())
        })?;
        self.core.counters().add(Counter::RemotesDelegated, 1);
        Ok(())
    }

    /// Counts one more call of a peer in progress.
    fn begin_remote(&self, writer: &PeerWriter) -> Result<(), Refusal> {
        let begins = writer.begin_remote(self.core.config.rpc.calls_in_flight_max);
        let refusal = (
            Counter::PeerCallsRefused,
            "too many calls in progress".into(),
        );
        begins.then_some(()).ok_or(refusal)
    }

    /// Gives a peer the answer of the delegate, or the failure of its call.
    fn delegated(&self, writer: &Rc<PeerWriter>, call: &[u8], resp: Result<&[u8], &str>) {
        if resp.is_err() {
            self.core.counters().add(Counter::RemotesUndelegated, 1);
        }
        writer.end_remote();
        self.peers.answer_delegated(&self.core, writer, call, resp);
    }
}

/// The counter and the text of a refused call.
type Refusal = (Counter, Cow<'static, str>);

/// The cluster.
impl Shard {
    /// Applies a new list of servers.
    pub(in crate::shard) fn apply_members(self: &Rc<Self>, members: Arc<MemberList>) {
        let applied = self.peers.apply(&self.core, &members);
        for link in applied.links {
            self.core.keep(link::run(self.clone(), link));
        }
        self.fail_calls(applied.failed);
        let context = self.context();
        self.app.notify_servers(&context, &applied.old, &members);
    }

    /// Follows the list of the registry, which this server has joined.
    pub(in crate::shard) fn follow_registry(self: &Rc<Self>, members: Arc<MemberList>) {
        self.clients.announce_join();
        self.apply_members(members);
    }

    /// Carries out an order of the registry.
    pub(in crate::shard) fn carry_out(self: &Rc<Self>, order: Order) {
        match order {
            Order::UseMembers(members) => {
                self.core
                    .broadcast_parcel(|| Parcel::Members(members.clone()));
                self.follow_registry(members);
            }
            Order::AnswerStatistics(question) => {
                let statistics = self.statistics();
                self.peers
                    .answer_statistics(&self.core, question, &statistics);
            }
            Order::AddToBlacklist(more) => blacklist::add_from_console(self, more),
            Order::React(fault) => self.react(fault),
        }
    }
}
