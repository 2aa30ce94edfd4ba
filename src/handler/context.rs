//! The boundary between handlers and their shard.

use std::rc::Rc;

use serde_json::Value;

use super::clock::Clock;
use super::{
    BroadcastOptions, ClientAddr, Failure, Incoming, Invocation, LocalFuture, Outcome, Sent,
    Session, States,
};
use crate::config::{Dialect, Server};
use crate::ids::{ShardId, Sid};
use crate::metrics::Counter;
use crate::session::{Identity, Uid};

/// A shard as handlers see it. Applications use [`Session`](super::Session) and [`App`](super::App)
/// instead.
pub(crate) trait ShardContext: Clock {
    /// Returns the id of this server.
    fn server_id(&self) -> &str;
    /// Returns the shard.
    fn shard(&self) -> ShardId;
    /// Returns the framework whose details the shard follows.
    fn dialect(&self) -> Dialect;
    /// Returns the exported form of a session.
    fn export(&self, sid: Sid, identity: &Identity) -> Vec<u8>;
    /// Binds a session of this shard.
    fn bind(self: Rc<Self>, sid: Sid, uid: Uid) -> LocalFuture<Result<Rc<Identity>, Failure>>;
    /// Unbinds a session of this shard.
    fn unbind(self: Rc<Self>, sid: Sid, uid: &Uid) -> Result<Rc<Identity>, Failure>;
    /// Sets session values.
    fn import(
        self: Rc<Self>,
        sid: Sid,
        values: &[(&str, serde_json::Value)],
    ) -> Result<(), Failure>;
    /// Removes a session value.
    fn remove(self: Rc<Self>, sid: Sid, key: &str) -> Result<(), Failure>;
    /// Pushes to one session of this shard. Returns false if it has ended or is not working.
    fn push(self: Rc<Self>, sid: Sid, route: &str, body: &[u8]) -> Result<bool, Failure>;
    /// Pushes to every session of the process, or to those that `options` selects.
    fn broadcast(
        self: Rc<Self>,
        route: &str,
        body: &[u8],
        options: BroadcastOptions,
    ) -> Result<(), Failure>;
    /// Kicks a session of this shard. Without a reason, the client gets no kick package.
    fn kick(self: Rc<Self>, sid: Sid, reason: Option<&str>);
    /// Sends the response to an outcome.
    fn answer(self: Rc<Self>, incoming: &Incoming, outcome: Outcome<'_>);
    /// Sends a call to another server now. Its result goes into the returned slot.
    fn call(self: Rc<Self>, call: &Invocation<'_>) -> Sent;
    /// Returns the servers of a type, in the order in which routing counts them, or `None` for a type
    /// that never had a server.
    fn servers(&self, server_type: &str) -> Option<Vec<Server>>;
    /// Adds one to a counter.
    fn count(&self, counter: Counter);
    /// Returns true until the session of this shard has closed.
    fn is_open(&self, sid: Sid) -> bool;
    /// Kicks every session of a uid, on all shards; a uid without sessions is not an error. Afterwards
    /// this shard sends no more messages of these sessions. Pomelo: `sessionService.kick`.
    fn kick_uid(self: Rc<Self>, uid: &str, reason: Option<&str>) -> LocalFuture<()>;
    /// Returns the address of the client of a session of this shard, or `None` if the session has
    /// ended.
    fn client_address(&self, sid: Sid) -> Option<ClientAddr>;
    /// Returns the connection statistics of the process (C11) as JSON text:
    /// `{"serverId":…,"totalConnCount":…,"loginedCount":…,"loginedList":[…]}`. Pomelo:
    /// `connectionService.getStatisticsInfo`.
    fn statistics(self: Rc<Self>) -> LocalFuture<Vec<u8>>;
    /// Returns the number of sessions of the process and of each uid as JSON text:
    /// `{"count":3,"uids":{"ann":2}}`.
    fn sessions(self: Rc<Self>) -> LocalFuture<Vec<u8>>;
    /// Returns the states of this shard.
    fn states(&self) -> &States;
    /// Returns the handshake of the client of a session of this shard, if the shard keeps it.
    fn handshake(&self, sid: Sid) -> Option<Rc<Value>>;
    /// Calls `f` when a session of this shard closes. Returns an error if the session has closed, or if
    /// too many functions wait for it.
    fn on_close(&self, sid: Sid, f: OnClose) -> Result<(), Failure>;
    /// Pushes to sessions of any shard. Sessions that have ended or are not working are skipped and
    /// counted.
    fn push_to(self: Rc<Self>, sids: &[Sid], route: &str, body: &[u8]) -> Result<(), Failure>;
    /// Pushes to every session of `uids`, a JSON array. Returns a JSON array of the uids without a
    /// session.
    fn push_to_uids(
        self: Rc<Self>,
        uids: Vec<u8>,
        route: &str,
        body: &[u8],
    ) -> LocalFuture<Result<Vec<u8>, Failure>>;
}

/// Called once with a closed session.
pub(crate) type OnClose = Box<dyn FnOnce(&Session)>;
