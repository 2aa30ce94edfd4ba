//! The server, for whoever has no session at hand.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::filter::Slot;
use super::{BroadcastOptions, Cluster, Failure, ShardContext};
use crate::ids::{ShardId, Sid};

/// This server. Pomelo: `app`.
///
/// Like a [`Session`](super::Session) it belongs to its shard; every shard has one, and what it does reaches
/// the whole process where nothing else is said. Cloning it costs a reference.
#[derive(Clone)]
pub struct App(Rc<dyn ShardContext>);

impl App {
    pub(super) fn new(context: Rc<dyn ShardContext>) -> Self {
        Self(context)
    }

    /// Own server id. Pomelo: `app.getServerId()`.
    pub fn server_id(&self) -> &str {
        self.0.server_id()
    }

    /// The shard, 0-based: shard 0 is there in every process.
    pub fn shard(&self) -> ShardId {
        self.0.shard()
    }

    /// The state of this type; `None` where [`Router::with_state`](super::Router::with_state) was not
    /// given one. Pomelo: `app.get`.
    pub fn state<T: Clone + 'static>(&self) -> Option<T> {
        self.0.states().get()
    }

    /// The other servers, for calls that belong to no session. Pomelo: `app.rpc`.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.0.clone())
    }

    /// Pushes a message to every session of the process. Pomelo: `channelService.broadcast`.
    ///
    /// An error when the route is empty, or the body is falsy, cannot be JSON or is longer than a
    /// package. Cost: the body is encoded once; one message to each other shard, and for each session a
    /// reference.
    pub fn broadcast(&self, route: &str, body: &(impl Serialize + ?Sized)) -> Result<(), Failure> {
        self.broadcast_with(route, body, BroadcastOptions::default())
    }

    /// Pushes a message to the sessions that the options say.
    pub fn broadcast_with(
        &self,
        route: &str,
        body: &(impl Serialize + ?Sized),
        options: BroadcastOptions,
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(body)?;
        self.0.clone().broadcast(route, &body, options)
    }

    /// Pushes a message to sessions of whatever shards. Those that are gone are skipped and counted
    /// as `pushes_dropped`.
    pub fn push_to(
        &self,
        sids: &[Sid],
        route: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(body)?;
        self.0.clone().push_to(sids, route, &body)
    }

    /// Pushes a message to every session that is bound to one of these uids, and tells which of
    /// them have none. Goes through shard 0, where the index of uids is. Pomelo:
    /// `channelService.pushMessageByUids`.
    pub async fn push_to_uids(
        &self,
        uids: &[impl AsRef<str>],
        route: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Vec<String>, Failure> {
        let uids: Vec<&str> = uids.iter().map(AsRef::as_ref).collect();
        let (uids, body) = (serde_json::to_vec(&uids)?, serde_json::to_vec(body)?);
        let missed = self.0.clone().push_to_uids(uids, route, &body).await?;
        Ok(serde_json::from_slice(&missed)?)
    }

    /// Kicks every session of a uid; nobody is no error. With a reason the client gets a kick package.
    /// Pomelo: `sessionService.kick`.
    pub async fn kick(&self, uid: &str, reason: Option<&str>) {
        self.0.clone().kick_uid(uid, reason).await;
    }

    /// Connection statistics of the process:
    /// `{"serverId":…,"totalConnCount":…,"loginedCount":…,"loginedList":[…]}`. As pomelo: the first
    /// count is 0 without `client.max_connections`. Pomelo: `connectionService.getStatisticsInfo`.
    pub async fn statistics(&self) -> Value {
        let text = self.0.clone().statistics().await;
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Sessions of the process, and those of each uid: `{"count":3,"uids":{"ann":2}}`.
    pub async fn sessions(&self) -> Value {
        let text = self.0.clone().sessions().await;
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// The time of day; of a gateway in memory, what its clock shows.
    pub fn now(&self) -> SystemTime {
        self.0.wall_clock().timestamp().into()
    }

    /// Sleeps for this time, up to 50 ms longer, while other work of the shard runs. The clock decides:
    /// time in which the process was stopped counts too.
    pub async fn sleep(&self, time: Duration) {
        let slot = Rc::new(Slot::default());
        let rung = slot.clone();
        let _alarm = self.0.call_after(time, Box::new(move || rung.put(())));
        slot.take().await;
    }

    /// The shard.
    pub(super) fn context(&self) -> &Rc<dyn ShardContext> {
        &self.0
    }

    /// Returns by how much the last tick of the shard was late.
    #[cfg(feature = "internals")]
    pub fn lag(&self) -> Duration {
        self.0.lag()
    }
}
