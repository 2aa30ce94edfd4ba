//! The application on one shard: its handlers, filters, tasks and events.
//!
//! **Absent**: the other parts of the shard. A method returns what happened, and `shard/dispatch` reacts.
//!
//! **Where to start reading**: [`Application`].

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::panic::resume_unwind;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use futures_lite::future;
use serde_json::Value;
use slab::Slab;

use super::{Core, Seed};
use crate::config::Config;
use crate::error::{Error, Panic};
use crate::handler::{
    Answer, BroadcastOptions, Failure, RemoteCall, Request, Router, Sending, Session, SessionEvent,
    ShardContext, Stop,
};
use crate::limits::IN_PROGRESS_MAX;
use crate::metrics::Counter;
use crate::route::{Routes, Target};

pub mod activity;
mod events;
pub(super) mod lifecycle;

use activity::{Activity, Work};
use events::PendingEvents;

/// The application on one shard.
pub(super) struct Application {
    activity: Arc<Activity>,
    router: Rc<Router>,
    routes: Routes,
    unfiltered: Unfiltered,
    /// Target of a route of our own type that has no handler.
    fallback: Target,
    /// Counter of the application's pending futures: each of them holds a clone.
    futures: Rc<()>,
    /// Number of the pending futures that count against `IN_PROGRESS_MAX`.
    in_progress: Cell<u32>,
    events: RefCell<PendingEvents>,
    /// Names of the application's tasks that have not ended.
    tasks: RefCell<Slab<Rc<str>>>,
    /// Tells these tasks to end.
    stop_request: Stop,
}

/// Which messages meet no filter; asked for each of them.
struct Unfiltered {
    local: bool,
    forwarded: bool,
}

/// The way of a message through this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Straight to another server.
    Forward,
    /// Straight to the handler of an index.
    Handler(usize),
    /// Through the filters, then to its target.
    Filters,
    /// Nowhere: no handler has its route.
    NoHandler,
}

/// Reads text as UTF-8; bytes that are not UTF-8 become U+FFFD. Checks the text first, because that is faster than
/// `String::from_utf8_lossy`.
fn lossy(text: &[u8]) -> Cow<'_, str> {
    str::from_utf8(text).map_or_else(|_| String::from_utf8_lossy(text), Cow::Borrowed)
}

impl Application {
    /// Makes the application of a shard.
    pub(super) fn new(seed: &Seed) -> Result<Self, Error> {
        let config = &*seed.config;
        let make_router = || (seed.make_router)(seed.id);
        let made = seed.activity.call(Work::Start, make_router);
        let router = made.unwrap_or_else(|panic| resume_unwind(panic));
        let protos = |route: &str| match config.client.use_protobuf {
            true => seed.protos.of(route),
            false => (false, false),
        };
        let router = router
            .ready(config, &config.handler_rules, protos)
            .map_err(Error::Handlers)?;
        seed.activity.name(&router);
        let routes =
            Routes::new(&config.server_type, router.routes()).delegating(config.delegate.is_some());
        Ok(Self {
            activity: seed.activity.clone(),
            routes,
            unfiltered: Unfiltered {
                local: router.filters.none_local(),
                forwarded: router.filters.none_global(),
            },
            fallback: router
                .fallback_index()
                .map_or(Target::NoHandler, Target::Local),
            router: Rc::new(router),
            futures: Rc::default(),
            in_progress: Cell::default(),
            events: RefCell::default(),
            tasks: RefCell::default(),
            stop_request: Stop::default(),
        })
    }

    /// Warns of JavaScript handlers in the project that nobody serves.
    pub(super) fn warn_of_javascript(&self, config: &Config, folder: &Path) {
        let is_served = config.delegate.is_some()
            || self.router.routes().next().is_some()
            || self.router.fallback_index().is_some();
        if !is_served {
            tracing::warn!(
                folder = %folder.display(),
                "the project's handlers for {} are JavaScript, which does not run here: their routes \
                 get code 500; set delegate to the type of backends that run them, or write them in \
                 Rust (Gateway::handlers)",
                config.server_type
            );
        }
    }

    pub(super) fn router(&self) -> &Rc<Router> {
        &self.router
    }

    /// Finds the target of a route.
    #[inline]
    pub(super) fn resolve(&self, route: &[u8]) -> Target {
        match self.routes.resolve(route) {
            Target::NoHandler => self.fallback,
            target => target,
        }
    }

    /// Reads a route as UTF-8. The route of a local handler needs no check: it is equal to the registered text.
    #[inline]
    pub(super) fn text<'a>(&'a self, target: Target, route: &'a [u8]) -> Cow<'a, str> {
        let known = match target {
            Target::Local(index) => self.router.own_route(index),
            _ => None,
        };
        known.map_or_else(|| lossy(route), Cow::Borrowed)
    }

    /// Returns whether a route is of this server's own type.
    #[inline]
    pub(super) fn serves(&self, route: &[u8]) -> bool {
        self.routes.is_served(route)
    }

    /// Chooses the way of a message to its target; `None` when too many futures of the application are in progress.
    #[inline]
    pub(super) fn way(&self, target: Target) -> Option<Way> {
        hop!();
        match target {
            Target::Remote if self.unfiltered.forwarded => Some(Way::Forward),
            _ if self.in_progress.get() >= IN_PROGRESS_MAX => None,
            Target::Local(index) if self.goes_straight(index) => Some(Way::Handler(index)),
            Target::NoHandler if self.unfiltered.local => Some(Way::NoHandler),
            _ => Some(Way::Filters),
        }
    }

    /// Returns whether a message meets no filter on its way to a handler.
    fn goes_straight(&self, index: usize) -> bool {
        self.unfiltered.local && self.router.filters_of(index).is_empty()
    }

    /// Calls a handler; an error when it panicked.
    #[inline]
    pub(super) fn call<'a>(
        &self,
        index: usize,
        request: &Request<'a>,
    ) -> thread::Result<Answer<'a>> {
        let call = || self.router.call(index, request);
        self.activity.call(Work::Handler(index), call)
    }

    /// Calls the application; an error when it panicked.
    pub(super) fn catch<T>(&self, work: Work, call: impl FnOnce() -> T) -> thread::Result<T> {
        self.activity.call(work, call)
    }

    /// Runs a future of the application; an error when it panicked.
    pub(super) async fn run<F: Future>(&self, work: Work, future: F) -> thread::Result<F::Output> {
        let _pending = self.futures.clone();
        self.activity.run(work, future).await
    }

    /// Counts one more future of the application in progress.
    pub(super) fn begin_work(&self, core: &Core) {
        debug_assert!(
            self.in_progress.get() < IN_PROGRESS_MAX,
            "there was room for it"
        );
        self.in_progress.update(|works| works + 1);
        core.counters().add(Counter::InProgress, 1);
    }

    /// Counts one less.
    pub(super) fn end_work(&self, core: &Core) {
        debug_assert!(self.in_progress.get() > 0);
        self.in_progress.update(|works| works - 1);
        core.counters().sub(Counter::InProgress, 1);
    }

    /// Returns whether one more future of the application may begin; counts a refusal.
    #[inline]
    pub(super) fn has_room(&self, core: &Core) -> bool {
        let has_room = self.in_progress.get() < IN_PROGRESS_MAX;
        if !has_room {
            core.counters().add(Counter::InProgressFull, 1);
        }
        has_room
    }

    /// Returns true if a future of the application is pending: it may wait for a timer of glommio, which needs ticks.
    pub(super) fn has_deadline(&self) -> bool {
        Rc::strong_count(&self.futures) > 1
    }

    /// Counts a tick of the shard.
    pub(super) fn tick(&self) {
        self.activity.tick();
    }

    /// Lets the application choose the push scheduler of a package; `None` when it leaves that to the rules, an error
    /// when it panicked.
    pub(super) fn select_scheduler<'a>(
        &self,
        sending: &Sending<'a>,
    ) -> thread::Result<Option<&'a str>> {
        let Some(select) = &self.router.events.select_scheduler else {
            return Ok(None);
        };
        self.catch(Work::PushSelection, || select(sending))
    }

    /// Returns whether the application chooses the push schedulers of packages.
    pub(super) fn selects_schedulers(&self) -> bool {
        self.router.events.select_scheduler.is_some()
    }

    /// Returns whether the application chooses the sessions that get a broadcast.
    pub(super) fn filters_broadcasts(&self) -> bool {
        self.router.events.broadcast_filter.is_some()
    }

    /// Asks the broadcast filter whether a session gets a message; an error when it panicked.
    pub(super) fn filter_broadcast(
        &self,
        session: &Session,
        message: &[u8],
        options: &BroadcastOptions,
    ) -> thread::Result<bool> {
        let Some(filter) = &self.router.events.broadcast_filter else {
            return Ok(true);
        };
        let call = || filter(session, message, &options.filter_param);
        self.catch(Work::BroadcastFilter, call)
    }

    /// Returns whether the application has handlers for an event of sessions.
    pub(super) fn wants(&self, event: &SessionEvent) -> bool {
        self.router.wants(event)
    }

    /// Finds a remote; an error is the text for the caller.
    pub(super) fn find_remote(
        &self,
        core: &Core,
        service: &str,
        method: &str,
    ) -> Result<usize, String> {
        self.router
            .find_remote(service, method, core.config.dialect)
    }

    /// Runs a remote to its end, its panic or its deadline.
    pub(super) async fn run_remote(
        &self,
        core: &Core,
        context: Rc<dyn ShardContext>,
        index: usize,
        name: &str,
        args: Vec<Value>,
    ) -> Result<Vec<Value>, Failure> {
        let work = async {
            let call = RemoteCall::new(args, context.clone());
            self.router.call_remote(index, call).await
        };
        let work = async { self.run(Work::Remote(index), work).await.ok() };
        let late = async {
            core.timeout(core.config.rpc.timeout).await;
            core.counters().add(Counter::RemoteTimeouts, 1);
            tracing::warn!(remote = name, "a remote did not answer in time");
            Some(Err(Failure::new("the remote did not answer in time")))
        };
        future::or(work, late).await.unwrap_or_else(|| {
            context
                .clone()
                .panicked(Panic::of("a remote").with_name(name));
            Err(Failure::new("the remote panicked"))
        })
    }
}
