//! Calls of this shard to other servers.

use std::time::Duration;

use serde_json::Value;

use super::Peers;
use crate::client::ClientAddr;
use crate::handler::{CallError, CallResult, Invocation, Request, Session};
use crate::ids::{PeerIndex, ShardId};
use crate::limits::{CALL_TIMEOUT_MAX, RPC_FRAME_BYTES_MAX};
use crate::metrics::Counter;
use crate::peer::Epoch;
use crate::peer::breaker::Breaker;
use crate::peer::delegate::PACKAGE_REMOTE;
use crate::peer::directory::MemberList;
use crate::peer::pending::{Calls, Refused};
use crate::peer::pomelo::sysrpc::javascript_text;
use crate::session::Uid;
use crate::shard::Core;
use crate::shard::origin::{Caller, Origin};
use crate::time::ShardTime;
use crate::wire::json;
use crate::wire::pomelo::rpc;

/// Returns the shard that owns the link to a server.
pub(super) fn owner(peer: PeerIndex, shards: usize) -> ShardId {
    ShardId((peer.index() % shards) as u16)
}

impl Peers {
    /// Makes room for the calls to the first `peers` servers.
    pub(super) fn add_calls(&self, core: &Core, peers: usize) {
        let rpc = &core.config.rpc;
        let new = || {
            let breaker = Breaker::new(rpc.breaker_timeouts, rpc.breaker_pause);
            Calls::new(
                core.id,
                core.shards,
                rpc.calls_in_flight_max,
                rpc.timeout,
                breaker,
            )
        };
        let mut calls = self.calls.borrow_mut();
        let peers = peers.max(calls.len());
        calls.resize_with(peers, new);
    }

    /// Chooses the server of a type for a session. Where a session may have any server of the type, one that answers no
    /// calls is not chosen while another one does.
    #[inline]
    fn choose(
        &self,
        core: &Core,
        members: &MemberList,
        server_type: &[u8],
        session: Option<&Session>,
    ) -> Result<PeerIndex, &'static str> {
        let server_type = members
            .of_type(server_type)
            .ok_or("no server of this type")?;
        let uid = session.and_then(Session::uid);
        let balancer = &mut self.balancers.borrow_mut()[server_type.index];
        let candidates = members.candidates(server_type);
        let chosen = balancer.choose(&candidates, uid.map_or("", Uid::text), |key| {
            session?.get(key).map(|value| javascript_text(value).into())
        });
        let chosen = chosen.ok_or("routing chose no server")?;
        let (calls, now) = (self.calls.borrow(), core.time.get().now);
        let lets = |index: usize| calls[server_type.servers[index].index()].lets(now);
        if lets(chosen) {
            return Ok(server_type.servers[chosen]);
        }
        let another = balancer.another(&candidates, chosen, lets);
        Ok(server_type.servers[another.unwrap_or(chosen)])
    }

    /// Chooses the server of a type for a session, or for one without uid; returns its id.
    pub(in crate::shard) fn choose_id(
        &self,
        core: &Core,
        server_type: &str,
        session: Option<&Session>,
    ) -> Result<String, &'static str> {
        let members = self.members.borrow();
        let peer = self.choose(core, &members, server_type.as_bytes(), session)?;
        Ok(members.peer(peer).server.id.clone())
    }

    /// Begins a call and writes its frame into the batch of the shard that owns the link.
    #[inline]
    pub(super) fn begin_call(
        &self,
        core: &Core,
        peer: PeerIndex,
        timeout: Option<Duration>,
        origin: Origin,
        write: impl FnOnce(&mut Vec<u8>, u64),
    ) -> Result<(), &'static str> {
        let owner = owner(peer, core.shards);
        debug_assert_eq!(
            self.links.borrow()[peer.index()].is_some(),
            owner == core.id
        );
        let mut mesh = core.mesh.borrow_mut();
        if owner != core.id && mesh.batch_for_work(owner).is_none() {
            core.counters().add(Counter::MeshFull, 1);
            return Err("too much waits for another shard");
        }
        let calls = &mut self.calls.borrow_mut()[peer.index()];
        let (begun, now) = (core.looked.get(), core.time.get().now);
        let id = calls
            .begin(timeout, begun, now, origin)
            .map_err(|refused| {
                let (counter, text) = match refused {
                    Refused::Full => (Counter::PeerCallsFull, "too many calls in flight"),
                    Refused::Down => (Counter::LinkCallsFailed, "the server is not reachable"),
                    Refused::Open => (Counter::BreakerCalls, "the server answers no calls"),
                };
                core.counters().add(counter, 1);
                text
            })?;
        core.counters().add(Counter::Calls, 1);
        match &self.links.borrow()[peer.index()] {
            Some(link) => {
                self.send(core, &link.writer, |out| write(out, id));
                link.request_dial();
            }
            None => {
                mesh.batch(owner)
                    .frames(peer, calls.epoch(), |out| write(out, id));
                core.turn.request();
            }
        }
        Ok(())
    }

    /// Forwards a client's message to a server of a type: chooses the server, if it is not given, begins the call, writes
    /// its frame. The address is for a delegate.
    ///
    /// Cost: no allocation; the body is copied once, and once more when another shard owns the link.
    #[inline]
    pub(in crate::shard) fn forward(
        &self,
        core: &Core,
        server_type: &[u8],
        to: Option<PeerIndex>,
        request: &Request<'_>,
        address: Option<&ClientAddr>,
        origin: Origin,
    ) -> Result<(), &'static str> {
        hop!();
        let members = self.members.borrow();
        let peer = match to {
            Some(peer) => peer,
            None => self.choose(core, &members, server_type, Some(request.session))?,
        };
        self.forward_to(core, &members, peer, request, address, origin)
    }

    /// Forwards a client's message to a server that is chosen already.
    #[inline]
    fn forward_to(
        &self,
        core: &Core,
        members: &MemberList,
        peer: PeerIndex,
        request: &Request<'_>,
        address: Option<&ClientAddr>,
        origin: Origin,
    ) -> Result<(), &'static str> {
        let session = request.session;
        let to = members.peer(peer);
        let is_delegate = core.config.delegate.as_ref() == Some(&to.server.server_type);
        let frame = rpc::Forward {
            server_type: &to.type_json,
            message_id: request.id,
            kind: request.kind,
            compressed: request.compressed,
            route: request.route,
            body: request.body,
            gzip: request.gzip,
            session: rpc::SessionExport {
                id: session.id().get(),
                frontend_id: &core.own.id_json,
                uid: session.uid().map_or("null", Uid::json),
                settings: session.settings_json(),
            },
            address: address.map(|ClientAddr { ip, port }| [&**ip, &**port]),
            frontend: is_delegate.then(|| core.frontend()),
        };
        let write = |out: &mut Vec<u8>, id| rpc::write_forward(out, id, &frame);
        self.begin_call(core, peer, None, origin, write)
    }

    /// Forwards a client's message to the server that the delegate has named for its session.
    pub(in crate::shard) fn forward_chosen(
        &self,
        core: &Core,
        peer: PeerIndex,
        request: &Request<'_>,
        origin: Origin,
    ) -> Result<(), &'static str> {
        let members = self.members.borrow();
        self.forward_to(core, &members, peer, request, None, origin)
    }

    /// Returns the number of a server type that has servers.
    pub(in crate::shard) fn type_index(&self, server_type: &[u8]) -> Result<usize, &'static str> {
        let members = self.members.borrow();
        let found = members.of_type(server_type);
        found.map(|it| it.index).ok_or("no server of this type")
    }

    /// Returns the number of the list of servers.
    pub(in crate::shard) fn generation(&self) -> u64 {
        self.members.borrow().generation()
    }

    /// Finds the server of a type and an id.
    pub(in crate::shard) fn find(
        &self,
        server_type: &str,
        id: &str,
    ) -> Result<PeerIndex, CallError> {
        member(&self.members.borrow(), server_type, id)
    }

    /// Finds the server of a handler's call.
    pub(in crate::shard) fn server_of(
        &self,
        core: &Core,
        call: &Invocation<'_>,
    ) -> Result<PeerIndex, CallError> {
        let not_sent = |text: &'static str| CallError::NotSent(text.into());
        if call.args.len() > RPC_FRAME_BYTES_MAX {
            return Err(not_sent("the arguments are too large"));
        }
        let members = self.members.borrow();
        match call.server {
            Some(id) => member(&members, call.server_type, id),
            None => self
                .choose(core, &members, call.server_type.as_bytes(), call.session)
                .map_err(not_sent),
        }
    }

    /// Sends a handler's call to a server.
    pub(in crate::shard) fn invoke(
        &self,
        core: &Core,
        peer: PeerIndex,
        call: &Invocation<'_>,
        caller: Caller,
    ) -> Result<(), CallError> {
        let members = self.members.borrow();
        let frame = rpc::Invoke {
            server_type: &members.peer(peer).type_json,
            service: call.service,
            method: call.method,
            args: call.args,
            frontend: (call.service == PACKAGE_REMOTE).then(|| core.frontend()),
        };
        let timeout = call.timeout.map(|timeout| timeout.min(CALL_TIMEOUT_MAX));
        let write = |out: &mut Vec<u8>, id| rpc::write_invoke(out, id, &frame);
        self.begin_call(core, peer, timeout, Origin::Call(Box::new(caller)), write)
            .map_err(|text| CallError::NotSent(text.into()))
    }

    /// Passes a peer's call of a remote of this server on to a server of a type.
    pub(in crate::shard) fn pass_on(
        &self,
        core: &Core,
        server_type: &str,
        call: &rpc::PeerCall<'_>,
        origin: Origin,
    ) -> Result<(), &'static str> {
        let members = self.members.borrow();
        let peer = self.choose(core, &members, server_type.as_bytes(), None)?;
        let mut own_type = Vec::new();
        json::write_string(&mut own_type, &core.config.server_type);
        let frame = rpc::Invoke {
            server_type: str::from_utf8(&own_type).expect("write_string writes UTF-8"),
            service: &call.service,
            method: &call.method,
            args: call.args,
            frontend: Some(core.frontend()),
        };
        let write = |out: &mut Vec<u8>, id| rpc::write_invoke(out, id, &frame);
        self.begin_call(core, peer, None, origin, write)
    }

    /// Ends the call that an answer is for; `None` where no such call waits.
    #[inline]
    pub(in crate::shard) fn end_call(
        &self,
        core: &Core,
        peer: PeerIndex,
        id: u64,
    ) -> Option<Origin> {
        let calls = &mut self.calls.borrow_mut()[peer.index()];
        let was_open = calls.is_open();
        let (origin, begun) = calls.finish(id)?;
        if was_open {
            self.report_breaker(core, peer, false);
        }
        let time = core.looked.get().saturating_duration_since(begun);
        core.counters().record_call(calls.server_type, time);
        Some(origin)
    }

    /// Ends the calls whose deadline has passed.
    pub(in crate::shard) fn expire_calls(&self, core: &Core, time: ShardTime) -> Vec<Origin> {
        let mut expired = Vec::new();
        for (index, calls) in self.calls.borrow_mut().iter_mut().enumerate() {
            let was_open = calls.is_open();
            expired.append(&mut calls.expire(time));
            if calls.is_open() && !was_open {
                self.report_breaker(core, PeerIndex(index as u32), true);
            }
        }
        core.counters()
            .add(Counter::CallTimeouts, expired.len() as u64);
        expired
    }

    /// Counts and logs that a server answers no calls of this shard, or answers them again.
    #[cold]
    fn report_breaker(&self, core: &Core, peer: PeerIndex, opens: bool) {
        let members = self.members.borrow();
        let (server, shard) = (&members.peer(peer).server.id, core.id.0);
        let counters = core.counters();
        if !opens {
            counters.sub(Counter::BreakersOpen, 1);
            return tracing::info!(server, shard, "the server answers calls again");
        }
        counters.add(Counter::BreakersOpen, 1);
        counters.add(Counter::BreakersOpened, 1);
        tracing::warn!(
            server,
            shard,
            "the server answers no calls; until it answers one, calls to it fail at once"
        );
    }

    /// Ends the calls of this shard to a server whose link has ended. The owner of the link may know of a new server
    /// first.
    pub(in crate::shard) fn link_is_down(
        &self,
        core: &Core,
        peer: PeerIndex,
        next: Epoch,
    ) -> Vec<Origin> {
        self.add_calls(core, peer.index() + 1);
        let calls = &mut self.calls.borrow_mut()[peer.index()];
        if calls.is_open() {
            core.counters().sub(Counter::BreakersOpen, 1);
        }
        let failed = calls.link_down(next);
        core.counters()
            .add(Counter::LinkCallsFailed, failed.len() as u64);
        failed
    }

    /// Takes calls to a server again.
    pub(in crate::shard) fn link_is_up(&self, core: &Core, peer: PeerIndex, epoch: Epoch) {
        self.add_calls(core, peer.index() + 1);
        self.calls.borrow_mut()[peer.index()].link_up(epoch);
        if let Some(registry) = &*self.registry.borrow() {
            registry.hurry();
        }
    }
}

/// Finds the server of an id and a type.
fn member(members: &MemberList, server_type: &str, id: &str) -> Result<PeerIndex, CallError> {
    let known = members.of_type(server_type.as_bytes());
    let mut servers = known.iter().flat_map(|known| &known.servers).copied();
    let found = servers.find(|peer| members.peer(*peer).server.id == id);
    found.ok_or_else(|| {
        CallError::NotSent(format!("no server {id:?} of type {server_type:?}").into())
    })
}

/// Reads the `resp` of an answer as a handler gets it.
pub(in crate::shard) fn results(resp: &[u8]) -> CallResult {
    let unreadable = || CallError::Lost("the answer cannot be read".into());
    read(resp).ok_or_else(unreadable)?
}

fn read(resp: &[u8]) -> Option<CallResult> {
    let result = rpc::PeerReply { id: None, resp }.result().ok()?;
    if let Some(error) = result.error.filter(|error| json::is_truthy(error)) {
        return Some(Err(CallError::Remote(json::parse(error)?)));
    }
    let values = json::elements(resp).ok()?.skip(1);
    let values: Option<Vec<Value>> = values.map(|value| json::parse(value.ok()?)).collect();
    values.map(Ok)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::handler::Failure;

    #[test]
    fn answers_of_genuine_servers_are_read() {
        for (resp, results) in [
            ("[]", vec![]),
            ("[null]", vec![]),
            ("[null,null]", vec![json!(null)]),
            ("[null,3]", vec![json!(3)]),
            (
                "[0,{\"a\":1},null,\"x\"]",
                vec![json!({"a": 1}), json!(null), json!("x")],
            ),
        ] {
            assert_eq!(super::results(resp.as_bytes()), Ok(results), "{resp}");
        }
        let stack = json!({"stack": "Error: boom\n    at chatRemote.js:3:7", "code": 418});
        for (resp, error, text) in [
            ("[\"no\",null,null]".to_owned(), json!("no"), "no"),
            (format!("[{stack}]"), stack, "Error: boom"),
            ("[{\"a\":1},2]".to_owned(), json!({"a": 1}), "{\"a\":1}"),
            ("[[\"ann\"]]".to_owned(), json!(["ann"]), "[\"ann\"]"),
        ] {
            let failed = super::results(resp.as_bytes()).unwrap_err();
            assert_eq!(failed.to_string(), text);
            assert_eq!(Failure::from(failed.clone()), Failure::new(text.to_owned()));
            assert_eq!(failed, CallError::Remote(error));
        }
        for resp in ["", "{}", "[", "[null,", "[null,}]"] {
            let lost = super::results(resp.as_bytes());
            assert!(matches!(lost, Err(CallError::Lost(_))), "{resp}: {lost:?}");
        }
    }
}
