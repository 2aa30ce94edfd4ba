//! The seam between handlers and the shard.

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

/// What handlers reach their shard through. Applications have [`Session`](super::Session) and [`App`](super::App) for it.
pub(crate) trait ShardContext: Clock {
    /// Own server id.
    fn server_id(&self) -> &str;
    /// The shard.
    fn shard(&self) -> ShardId;
    /// Whose details are followed.
    fn dialect(&self) -> Dialect;
    /// Exported form of a session.
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
    /// Takes a session value away.
    fn remove(self: Rc<Self>, sid: Sid, key: &str) -> Result<(), Failure>;
    /// Pushes to one session of this shard; false when it is gone or not working.
    fn push(self: Rc<Self>, sid: Sid, route: &str, body: &[u8]) -> Result<bool, Failure>;
    /// Pushes to every session of the process, or to those that the options say.
    fn broadcast(
        self: Rc<Self>,
        route: &str,
        body: &[u8],
        options: BroadcastOptions,
    ) -> Result<(), Failure>;
    /// Kicks a session of this shard; without a reason there is no kick package.
    fn kick(self: Rc<Self>, sid: Sid, reason: Option<&str>);
    /// Sends what the client gets for an outcome.
    fn answer(self: Rc<Self>, incoming: &Incoming, outcome: Outcome<'_>);
    /// Sends a call to another server, now; what it comes to is put into the slot.
    fn call(self: Rc<Self>, call: &Invocation<'_>) -> Sent;
    /// The servers of a type, in the order that routing counts them; `None` for a type that
    /// never had one.
    fn servers(&self, server_type: &str) -> Option<Vec<Server>>;
    /// Counts one more.
    fn count(&self, counter: Counter);
    /// True until a session of this shard has closed.
    fn is_open(&self, sid: Sid) -> bool;
    /// Kicks every session of a uid, on whatever shard; nobody is no error. Done when no message of
    /// theirs gets out any more on this shard. Pomelo: `sessionService.kick`.
    fn kick_uid(self: Rc<Self>, uid: &str, reason: Option<&str>) -> LocalFuture<()>;
    /// Where the client of a session of this shard is; `None` when it is gone.
    fn client_address(&self, sid: Sid) -> Option<ClientAddr>;
    /// Connection statistics of the process (C11) as JSON text:
    /// `{"serverId":…,"totalConnCount":…,"loginedCount":…,"loginedList":[…]}`. Pomelo:
    /// `connectionService.getStatisticsInfo`.
    fn statistics(self: Rc<Self>) -> LocalFuture<Vec<u8>>;
    /// Sessions of the process, and those of each uid, as JSON text: `{"count":3,"uids":{"ann":2}}`.
    fn sessions(self: Rc<Self>) -> LocalFuture<Vec<u8>>;
    /// The states of this shard.
    fn states(&self) -> &States;
    /// What the client of a session of this shard said when it came, where that is kept.
    fn handshake(&self, sid: Sid) -> Option<Rc<Value>>;
    /// Calls `f` when a session of this shard has closed; an error when it has already, or with too
    /// many calls.
    fn on_close(&self, sid: Sid, f: OnClose) -> Result<(), Failure>;
    /// Pushes to sessions of any shard; those that are gone or not working are skipped and counted.
    fn push_to(self: Rc<Self>, sids: &[Sid], route: &str, body: &[u8]) -> Result<(), Failure>;
    /// Pushes to every session of uids, which are a JSON array; the text of an array of those that
    /// have none.
    fn push_to_uids(
        self: Rc<Self>,
        uids: Vec<u8>,
        route: &str,
        body: &[u8],
    ) -> LocalFuture<Result<Vec<u8>, Failure>>;
}

/// Called once with a session that has closed.
pub(crate) type OnClose = Box<dyn FnOnce(&Session)>;
