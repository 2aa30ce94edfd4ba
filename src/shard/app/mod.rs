//! The application on one shard: its handlers, filters, tasks and events.
//!
//! **Absent**: the other parts of the shard. A method returns what happened, and `dispatch.rs` reacts.
//!
//! **Where to start reading**: [`App`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::coordinator::Told;
use crate::handler::clock::Alarms;
use crate::handler::filter::Slot;
use crate::handler::{Router, SessionEvent, Stop};
use crate::ids::Sid;
use crate::route::{Routes, Target};
use crate::session::Identity;

pub mod activity;
pub(super) mod lifecycle;

use activity::Activity;

/// The application on one shard.
pub(super) struct App {
    pub(super) activity: Arc<Activity>,
    /// Calls scheduled by the clock; a pause counts.
    pub(super) alarms: Alarms,
    /// Calls scheduled by the time of the shard; a pause does not count.
    pub(super) timeouts: Alarms,
    pub(super) unfiltered: Unfiltered,
    /// Target of a route of our own type that has no handler.
    pub(super) fallback: Target,
    /// Futures of the application that have not ended.
    pub(super) in_progress: Cell<u32>,
    pub(super) router: Rc<Router>,
    pub(super) routes: Routes,
    /// Events that the handlers have not been told of, and whether somebody is at it.
    pub(super) to_tell: RefCell<VecDeque<(Sid, Rc<Identity>, SessionEvent)>>,
    pub(super) telling: Cell<bool>,
    /// Requests of handlers to the coordinator that are not answered yet.
    pub(super) wishes: RefCell<slab::Slab<Rc<Slot<Told>>>>,
    /// Names of the application's tasks that have not ended.
    pub(super) tasks: RefCell<slab::Slab<Rc<str>>>,
    /// Tells these tasks to end.
    pub(super) stop_request: Stop,
}

/// Which messages meet no filter; asked for each of them.
pub(super) struct Unfiltered {
    pub(super) local: bool,
    pub(super) forwarded: bool,
}
