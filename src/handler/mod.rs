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
//! #     assert_eq!(enter(&mut clients[0], "player 0"), 4, "who is in counts once");
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
//! A JSON request costs two allocations, for its future and the text of the response, plus those of the
//! argument's `T`: three with one `String` in it. A handler that waits costs two more, for a task of
//! its own. A [raw route](Router::raw_route) costs none, and neither does a message for another server.
//! `tests/allocations.rs` counts them.
//!
#![doc = include_str!("misbehaving.md")]
//!
//! **Invariants**: routes are indices after start; a panic of a handler or filter fails only its own
//! request; only `reply` decides what a client sees of an outcome.
//!
//! **Absent**: sockets, slab internals. Handlers reach their shard through `ShardContext`.
//!
//! **Where to start reading**: [`Router`], then [`filter`] for the order of filters.

use std::any::Any;
use std::cell::{Cell, RefCell};

use crate::metrics::Counter;
use crate::wire::json;

mod app;
mod call;
pub(crate) mod clock;
mod context;
pub mod cron;
mod events;
mod extract;
pub mod filter;
mod function;
mod lifecycle;
mod log_line;
mod outcome;
mod remote;
#[cfg(feature = "internals")]
pub mod reply;
#[cfg(not(feature = "internals"))]
pub(crate) mod reply;
mod router;
mod rules;
mod send;
mod session;
mod slot;
mod stop;

pub use app::App;
pub use call::{Call, CallError, CallResult, CallToAll, Cluster};
pub(crate) use call::{Invocation, Sent, remote_parts};
pub(crate) use context::{OnClose, ShardContext};
pub use extract::{FromMessage, Handshake, IntoReply, Json, Needs, Proto, Route, State, States};
pub use function::Handler;
pub use outcome::{Answer, Failure, LocalFuture, Outcome, Reply};
pub use remote::{IntoResults, RemoteCall, Results};
pub use router::Router;
#[doc(hidden)]
pub use rules::HandlerRules;
pub use send::{BroadcastOptions, Sending};
pub use session::{Session, SessionEvent};
pub(crate) use slot::Slot;
pub use stop::Stop;

pub use bytes::Bytes;

pub use crate::client::ClientAddr;
pub use crate::config::Server;
pub use crate::ids::{ShardId, Sid};
pub use crate::session::Uid;

/// One client message, borrowed from the read buffer.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Message id; 0 for a notify.
    pub id: u32,
    /// Message type, as on the wire.
    pub kind: u8,
    /// True if the client sent the route as a dictionary code.
    pub compressed: bool,
    /// The gzip flag.
    pub gzip: bool,
    /// The whole route.
    pub route: &'a str,
    /// Valid JSON text; `{}` if the text of the client did not parse.
    pub body: &'a [u8],
    /// The session as it was when the message arrived.
    pub session: &'a Session,
}

impl Request<'_> {
    /// Returns the body as the message of a Pomelo handler: a falsy body is `{}`, and with Pomelo, but
    /// not Pinus, an object has `__route__`.
    pub fn message(&self) -> serde_json::Value {
        let body = if json::is_truthy(self.body) {
            self.body
        } else {
            b"{}"
        };
        let mut message = json::parse(body).unwrap_or_default();
        if self.session.context().dialect().adds_route_to_message()
            && let serde_json::Value::Object(members) = &mut message
        {
            members.insert("__route__".into(), self.route.into());
        }
        message
    }
}

/// A client message that outlives the read buffer, for filters and asynchronous work.
#[derive(Debug)]
pub struct Incoming {
    /// Message id; 0 for a notify.
    pub id: u32,
    /// Message type, as on the wire.
    pub kind: u8,
    /// True if the client sent the route as a dictionary code.
    pub compressed: bool,
    /// The gzip flag.
    pub gzip: bool,
    /// The whole route.
    pub route: Box<str>,
    /// Valid JSON text.
    pub body: Bytes,
    /// The session as it was when the message arrived.
    pub session: Session,
    answered: Cell<bool>,
    /// Values that filters keep for this message, by the address of the filter.
    marks: RefCell<Vec<(usize, Box<dyn Any>)>>,
}

impl Incoming {
    /// Copies a request out of the read buffer.
    pub(crate) fn new(request: &Request<'_>) -> Self {
        Self {
            id: request.id,
            kind: request.kind,
            compressed: request.compressed,
            gzip: request.gzip,
            route: request.route.into(),
            body: Bytes::copy_from_slice(request.body),
            session: request.session.clone(),
            answered: Cell::default(),
            marks: RefCell::default(),
        }
    }

    fn put_mark(&self, key: usize, mark: impl Any) {
        self.marks.borrow_mut().push((key, Box::new(mark)));
    }

    fn take_mark<T: Any>(&self, key: usize) -> Option<T> {
        let mut marks = self.marks.borrow_mut();
        let at = marks.iter().position(|(of, _)| *of == key)?;
        let (_, mark) = marks.swap_remove(at);
        mark.downcast().ok().map(|mark| *mark)
    }

    /// Answers the message now. Only the first answer is sent; a notify gets none.
    pub fn answer(&self, outcome: Outcome<'_>) {
        let context = self.session.context().clone();
        if self.answered.replace(true) {
            context.count(Counter::ResponsesDropped);
        } else {
            context.answer(self, outcome);
        }
    }

    /// Returns true once the message has been answered.
    pub fn is_answered(&self) -> bool {
        self.answered.get()
    }

    /// Returns the message as a request.
    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            id: self.id,
            kind: self.kind,
            compressed: self.compressed,
            gzip: self.gzip,
            route: &self.route,
            body: &self.body,
            session: &self.session,
        }
    }
}
