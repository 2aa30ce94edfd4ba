//! Handlers and filters of this server's own routes: the tutorial.
//!
//! A handler is a plain async function. Its arguments name the parts of the message that it needs, and
//! its return value is the response:
//!
//! ```
//! # mod tutorial {
//! use std::collections::{HashMap, HashSet};
//! use std::sync::{Arc, Mutex};
//!
//! use serde::{Deserialize, Serialize};
//! use tangelo::handler::{Json, Reply, Router, Session, Sid, State};
//! use tangelo::{Config, Gateway};
//!
//! fn main() -> tangelo::Result<()> {
//!     let rooms = Rooms::default();
//!     Gateway::new(Config::default())
//!         .handlers(move |_shard| router(rooms.clone()))
//!         .run()
//! }
//!
//! # pub
//! fn router(rooms: Rooms) -> Router {
//!     let on_close = rooms.clone();
//!     Router::new()
//!         .route("entryHandler.enter", enter)
//!         .on_close(move |session| on_close.leave(session.id()))
//!         .with_state(rooms)
//! }
//!
//! /// The sessions in each room, whichever shard they are on.
//! #[derive(Clone, Default)]
//! # pub
//! struct Rooms(Arc<Mutex<HashMap<String, HashSet<Sid>>>>);
//!
//! impl Rooms {
//!     /// Adds a session. Returns how many sessions the room has then.
//!     fn enter(&self, room: &str, sid: Sid) -> usize {
//!         let mut rooms = self.0.lock().unwrap();
//!         let sessions = rooms.entry(room.to_owned()).or_default();
//!         sessions.insert(sid);
//!         sessions.len()
//!     }
//!
//!     /// Removes a session from all rooms, and rooms that are empty then.
//!     fn leave(&self, sid: Sid) {
//!         self.0.lock().unwrap().retain(|_, sessions| {
//!             sessions.remove(&sid);
//!             !sessions.is_empty()
//!         });
//!     }
//! }
//!
//! #[derive(Deserialize)]
//! struct Enter {
//!     name: String,
//!     room: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Entered {
//!     code: u16,
//!     here: usize,
//! }
//!
//! async fn enter(
//!     mut session: Session,
//!     State(rooms): State<Rooms>,
//!     Json(Enter { name, room }): Json<Enter>,
//! ) -> Reply<Json<Entered>> {
//!     session.bind(name).await?;
//!     let here = rooms.enter(&room, session.id());
//!     Ok(Json(Entered { code: 200, here }))
//! }
//! # }
//! #
//! # fn main() -> tangelo::Result<()> {
//! #     use tangelo::{Config, Gateway};
//! #     let rooms = tutorial::Rooms::default();
//! #     let config = Config { shards: Some(2), ..Config::default() };
//! #     let gateway = Gateway::new(config).handlers(move |_shard| tutorial::router(rooms.clone())).in_memory()?;
//! #     let enter = |client: &mut tangelo::memory::Client, name: &str| {
//! #         let body = serde_json::json!({ "name": name, "room": "lobby" });
//! #         client.request("connector.entryHandler.enter", &body)["here"].clone()
//! #     };
//! #     let mut clients: Vec<_> = (1..=4).map(|_| gateway.connect()).collect();
//! #     for (index, client) in clients.iter_mut().enumerate() {
//! #         assert_eq!(enter(client, &format!("player {index}")), index + 1);
//! #     }
//! #     assert_eq!(enter(&mut clients[0], "player 0"), 4, "a client that has entered counts once");
//! #     clients.pop();
//! #     clients.pop();
//! #     assert_eq!(enter(&mut gateway.connect(), "another"), 3);
//! #     gateway.stop()
//! # }
//! ```
//!
//! [`Router`] has the rest: groups, filters, events of sessions, remotes for other servers, tasks.
//! [`FromMessage`] lists the possible arguments of a handler, [`IntoReply`] its possible results.
//! [`Session`] and [`App`] act on clients and on the server. `?` takes any error; the client then gets
//! `{"code":500}`.
//!
//! # One core, one world
//!
//! The function given to [`Gateway::handlers`](crate::Gateway::handlers) runs once on every shard,
//! which is one thread on one core. Handlers, filters, their futures and a state in an `Rc<RefCell<…>>`
//! stay on that shard. They need not be `Send` and need no locks, and a session never leaves its shard.
//! A shard sees only its own state of this kind. State of all players, such as the rooms above, is an
//! `Arc` that the function clones for each shard. A handler must not hold its lock over an `.await`.
//!
//! Between two `.await`s a handler has its core alone, and every other task on that core waits. So a
//! handler must not block. [`App::sleep`] waits without blocking, and a [pool](crate::pool) has threads
//! for blocking work such as databases.
//!
//! # Tests
//!
//! [`Gateway::in_memory`](crate::Gateway::in_memory) runs all shards inside a test, without sockets and
//! with a clock that only the test moves; [`memory`](crate::memory) has an example.
//!
//! # Cost
//!
//! A JSON request costs one allocation, for the text of the response, plus those of the
//! argument's `T`: two with one `String` in it. A handler that waits costs four more, for its future, a task of
//! its own and its waker. A [raw route](Router::raw_route) costs none, and neither does a message for another server.
//! `tests/allocations.rs` counts them.
//!
#![doc = include_str!("misbehaving.md")]
//!
//! **Invariants**: routes are indices after start; a panic of a handler or filter fails only its own
//! request; only `reply` decides what a client sees of an outcome.
//!
//! **Absent**: sockets, slab internals. Handlers reach their shard through `ShardContext`.
//!
//! **Where to start reading**: [`Router`], which stands on all other files of this room and has a file
//! for each subject, then [`filter`] for the order of filters.

use std::rc::Rc;

use serde_json::Value;

use crate::config::Dialect;
use crate::error::Panic;
use crate::metrics::Counter;
use crate::session::Identity;

mod app;
mod call;
pub(crate) mod clock;
pub mod cron;
mod extract;
pub mod filter;
mod function;
mod log_line;
mod message;
mod outcome;
#[cfg(feature = "internals")]
pub mod reply;
#[cfg(not(feature = "internals"))]
pub(crate) mod reply;
mod router;
mod send;
mod session;
mod slot;
mod stop;

pub use app::App;
pub use call::{Call, CallError, CallResult, CallToAll, Cluster};
pub(crate) use call::{Invocation, Sent, remote_parts};
pub use extract::{
    FromMessage, Handshake, IntoReply, Json, JsonUpTo, Needs, Proto, Route, State, States,
};
pub use function::Handler;
pub use message::{Incoming, Request};
pub use outcome::{Answer, Failure, LocalFuture, Outcome, Reply};
#[doc(hidden)]
pub use router::HandlerRules;
pub use router::{IntoResults, RemoteCall, Results, Router};
pub use send::{BroadcastOptions, Sending};
pub use session::{Session, SessionEvent};
pub(crate) use slot::Slot;
pub use stop::Stop;

pub use bytes::Bytes;

pub use crate::client::ClientAddr;
pub use crate::config::Server;
pub use crate::ids::{ShardId, Sid};
pub use crate::session::Uid;

/// The boundary between handlers and their shard. Applications use [`Session`] and [`App`] instead.
pub(crate) trait ShardContext: clock::Clock {
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
    fn import(self: Rc<Self>, sid: Sid, values: &[(&str, Value)]) -> Result<(), Failure>;
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
    /// Returns the largest body that becomes a tree of values.
    fn json_bytes_max(&self) -> usize;
    /// Adds one to a counter.
    fn count(&self, counter: Counter);
    /// Counts and logs a panic of the application.
    fn panicked(self: Rc<Self>, panic: Panic<'_>);
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
