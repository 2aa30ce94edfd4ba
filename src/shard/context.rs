//! The shard as its application sees it: the seam that `Session` and `App` call.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Shard;
use super::origin::ResponseTarget;
use super::parcel::ShardRequest;
use crate::client::ClientAddr;
use crate::config::{Dialect, Server};
use crate::error::{CloseReason, Fault, Panic};
use crate::handler::clock::{Alarm, Clock, DelayedCall};
use crate::handler::{
    BroadcastOptions, Failure, Incoming, Invocation, LocalFuture, OnClose, Outcome, Sent,
    ShardContext, States,
};
use crate::ids::{ShardId, Sid};
use crate::metrics::Counter;
use crate::net::clock;
use crate::session::{Identity, Uid};

impl Clock for Shard {
    fn now(&self) -> Instant {
        clock::now()
    }

    fn wall_clock(&self) -> jiff::Zoned {
        clock::wall_clock()
    }

    fn lag(&self) -> Duration {
        self.core.lag()
    }

    fn call_after(&self, wait: Duration, call: DelayedCall) -> Alarm {
        let at = clock::now() + wait;
        self.core.alarms.set(at, Duration::ZERO, call)
    }

    fn call_at_timeout(&self, timeout: Duration, call: DelayedCall) -> Alarm {
        self.core.call_at_timeout(timeout, call)
    }
}

impl ShardContext for Shard {
    fn server_id(&self) -> &str {
        &self.core.config.id
    }

    fn shard(&self) -> ShardId {
        self.core.id
    }

    fn dialect(&self) -> Dialect {
        self.core.config.dialect
    }

    fn export(&self, sid: Sid, identity: &Identity) -> Vec<u8> {
        self.core.export_session(sid, identity)
    }

    fn bind(self: Rc<Self>, sid: Sid, uid: Uid) -> LocalFuture<Result<Rc<Identity>, Failure>> {
        let reply = self.ask_coordinator(ShardRequest::Bind(sid, uid));
        Box::pin(async move {
            reply.take().await.map_err(Failure::new)?;
            // Unchanged: the identity as it is after the bind.
            self.clients.change_identity(&self.core, sid, |_| Ok(()))
        })
    }

    fn unbind(self: Rc<Self>, sid: Sid, uid: &Uid) -> Result<Rc<Identity>, Failure> {
        self.unbind_here(sid, uid, None)
    }

    fn import(
        self: Rc<Self>,
        sid: Sid,
        values: &[(&str, serde_json::Value)],
    ) -> Result<(), Failure> {
        self.change_settings(sid, None, |settings| {
            for (key, value) in values {
                settings.set(key, value.clone());
            }
        })
    }

    fn remove(self: Rc<Self>, sid: Sid, key: &str) -> Result<(), Failure> {
        self.change_settings(sid, None, |settings| settings.remove(key))
    }

    fn push(self: Rc<Self>, sid: Sid, route: &str, body: &[u8]) -> Result<bool, Failure> {
        Self::push(&self, sid, route, body)
    }

    fn broadcast(
        self: Rc<Self>,
        route: &str,
        body: &[u8],
        options: BroadcastOptions,
    ) -> Result<(), Failure> {
        Self::broadcast(&self, route, body, options)
    }

    fn kick(self: Rc<Self>, sid: Sid, reason: Option<&str>) {
        self.close(sid, CloseReason::Kicked, reason);
    }

    fn answer(self: Rc<Self>, incoming: &Incoming, outcome: Outcome<'_>) {
        let target = ResponseTarget {
            sid: incoming.session.id(),
            id: incoming.id,
            proto: self.clients.response_proto(&incoming.route),
        };
        self.finish(target, &incoming.route, &outcome);
    }

    fn call(self: Rc<Self>, call: &Invocation<'_>) -> Sent {
        self.invoke(call)
    }

    fn servers(&self, server_type: &str) -> Option<Vec<Server>> {
        self.peers.servers(server_type)
    }

    fn states(&self) -> &States {
        self.app.router().states()
    }

    fn handshake(&self, sid: Sid) -> Option<Rc<serde_json::Value>> {
        self.clients.handshake(sid)
    }

    fn on_close(&self, sid: Sid, f: OnClose) -> Result<(), Failure> {
        if !self.is_open(sid) {
            return Err(Failure::new("the session has closed"));
        }
        self.app.router().when_closed(sid, f)
    }

    fn push_to(self: Rc<Self>, sids: &[Sid], route: &str, body: &[u8]) -> Result<(), Failure> {
        Self::push_to(&self, sids, route, body)
    }

    fn push_to_uids(
        self: Rc<Self>,
        uids: Vec<u8>,
        route: &str,
        body: &[u8],
    ) -> LocalFuture<Result<Vec<u8>, Failure>> {
        let (route, body) = (route.into(), body.into());
        let reply = self.ask_coordinator(ShardRequest::PushToUids { route, body, uids });
        Box::pin(async move {
            let missing = reply.take().await.map_err(Failure::new)?;
            Ok(missing.unwrap_or_else(|| b"[]".to_vec()))
        })
    }

    fn json_bytes_max(&self) -> usize {
        let max = self.core.config.client.json_bytes_max;
        max.unwrap_or(usize::MAX)
    }

    fn count(&self, counter: Counter) {
        self.core.counters().add(counter, 1);
    }

    fn panicked(self: Rc<Self>, panic: Panic<'_>) {
        self.react(Fault::Bug(panic));
    }

    fn is_open(&self, sid: Sid) -> bool {
        self.clients.is_open(sid)
    }

    fn kick_uid(self: Rc<Self>, uid: &str, reason: Option<&str>) -> LocalFuture<()> {
        let (uid, reason) = (uid.into(), reason.map(Into::into));
        let reply = self.ask_coordinator(ShardRequest::KickUid { uid, reason });
        Box::pin(async move {
            let _ = reply.take().await;
        })
    }

    fn client_address(&self, sid: Sid) -> Option<ClientAddr> {
        self.clients.address(sid)
    }

    fn statistics(self: Rc<Self>) -> LocalFuture<Vec<u8>> {
        self.text_of(ShardRequest::Statistics)
    }

    fn sessions(self: Rc<Self>) -> LocalFuture<Vec<u8>> {
        self.text_of(ShardRequest::Sessions)
    }
}
