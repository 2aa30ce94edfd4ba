//! This server, as handlers see it without a session.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::Value;

use super::{BroadcastOptions, Failure, ShardContext, Slot};
use crate::ids::{ShardId, Sid};

/// The server that runs the handlers. Pomelo: `app`.
///
/// Each shard has its own `App`, which stays on that shard. Unless a function says otherwise, it acts
/// on the whole process. A clone copies one reference.
#[derive(Clone)]
pub struct App(Rc<dyn ShardContext>);

impl App {
    pub(super) fn new(context: Rc<dyn ShardContext>) -> Self {
        Self(context)
    }

    /// Returns the id of this server. Pomelo: `app.getServerId()`.
    pub fn server_id(&self) -> &str {
        self.0.server_id()
    }

    /// Returns the shard of this `App`. Every process has a shard 0.
    pub fn shard(&self) -> ShardId {
        self.0.shard()
    }

    /// Returns the state of this type, or `None` if [`Router::with_state`](super::Router::with_state)
    /// did not set one. Pomelo: `app.get`.
    pub fn state<T: Clone + 'static>(&self) -> Option<T> {
        self.0.states().get()
    }

    /// Pushes a message to every session of the process. Pomelo: `channelService.broadcast`.
    ///
    /// Returns an error if the route is empty, or if the body is falsy, cannot be written as JSON, or
    /// does not fit into a package. Cost: the body is encoded once; one message to each other shard,
    /// and one reference per session.
    pub fn broadcast(&self, route: &str, body: &(impl Serialize + ?Sized)) -> Result<(), Failure> {
        self.broadcast_with(route, body, BroadcastOptions::default())
    }

    /// Pushes a message to the sessions that `options` selects.
    pub fn broadcast_with(
        &self,
        route: &str,
        body: &(impl Serialize + ?Sized),
        options: BroadcastOptions,
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(body)?;
        self.0.clone().broadcast(route, &body, options)
    }

    /// Pushes a message to sessions of any shard. Sessions that have ended are skipped and counted as
    /// `pushes_dropped`.
    pub fn push_to(
        &self,
        sids: &[Sid],
        route: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(body)?;
        self.0.clone().push_to(sids, route, &body)
    }

    /// Pushes a message to every session that is bound to one of `uids`, and returns the uids without a
    /// session. Shard 0, which has the index of uids, finds the sessions. Pomelo:
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

    /// Kicks every session of a uid; a uid without sessions is not an error. With a reason, the client
    /// gets a kick package. Pomelo: `sessionService.kick`.
    pub async fn kick(&self, uid: &str, reason: Option<&str>) {
        self.0.clone().kick_uid(uid, reason).await;
    }

    /// Returns the connection statistics of the process:
    /// `{"serverId":…,"totalConnCount":…,"loginedCount":…,"loginedList":[…]}`. As in Pomelo, the first
    /// count is 0 without `client.max_connections`. Pomelo: `connectionService.getStatisticsInfo`.
    pub async fn statistics(&self) -> Value {
        let text = self.0.clone().statistics().await;
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Returns the number of sessions of the process and of each uid: `{"count":3,"uids":{"ann":2}}`.
    pub async fn sessions(&self) -> Value {
        let text = self.0.clone().sessions().await;
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Returns the time of day. A gateway in memory returns the time of its virtual clock.
    pub fn now(&self) -> SystemTime {
        self.0.wall_clock().timestamp().into()
    }

    /// Sleeps for `time`, or up to 50 ms longer, while the shard does other work. Time in which the
    /// process was stopped counts too.
    pub async fn sleep(&self, time: Duration) {
        let slot = Rc::new(Slot::default());
        let rung = slot.clone();
        let _alarm = self.0.call_after(time, Box::new(move || rung.put(())));
        slot.take().await;
    }

    /// Returns the shard.
    pub(super) fn context(&self) -> &Rc<dyn ShardContext> {
        &self.0
    }

    /// Returns by how much the last tick of the shard was late.
    #[cfg(feature = "internals")]
    pub fn lag(&self) -> Duration {
        self.0.lag()
    }
}
