//! The activity of a shard, for the watchdog of the process: its ticks, and the part of the application that
//! runs on its thread.
//!
//! The shard writes it and `gateway/watchdog.rs` reads it, both with relaxed ordering: a reader may be a moment
//! behind, and no other data depends on the values.
//!
//! Cost: one load and two stores of a word for each call into the application; no reading of the clock.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::thread;

use crate::handler::Router;
use crate::net::bell::AnyThread;
use crate::net::clock;

/// The work that runs on a shard's thread: a part of the application, or the gateway itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// No part of the application.
    Gateway,
    /// The function that makes the handlers.
    Start,
    /// A handler of handshakes.
    Handshake,
    /// A handler of binds, unbinds and closes.
    SessionEvent,
    /// A delayed call.
    Alarm,
    /// The function that selects push schedulers.
    PushSelection,
    /// The broadcast filter.
    BroadcastFilter,
    /// The filters of a message without a handler here.
    Filters,
    /// The filters or the handler of a message, by the index of its route.
    Filtered(usize),
    /// A handler, by the index of its route.
    Handler(usize),
    /// A remote, by its index.
    Remote(usize),
    /// The `on_start` functions.
    OnStart,
    /// The `before_stop` functions.
    BeforeStop,
    /// A handler of servers that join and leave.
    ServerEvent,
    /// A task or a cron, by its index.
    Task(usize),
}

/// Bits of a word for the kind of work; the index is above them.
const KIND_BITS: u32 = 8;

impl Work {
    const fn word(self) -> u32 {
        let (kind, index) = match self {
            Self::Gateway => (0, 0),
            Self::Start => (1, 0),
            Self::Handshake => (2, 0),
            Self::SessionEvent => (3, 0),
            Self::Alarm => (4, 0),
            Self::PushSelection => (5, 0),
            Self::BroadcastFilter => (6, 0),
            Self::Filters => (7, 0),
            Self::Filtered(index) => (8, index),
            Self::Handler(index) => (9, index),
            Self::Remote(index) => (10, index),
            Self::OnStart => (11, 0),
            Self::BeforeStop => (12, 0),
            Self::ServerEvent => (13, 0),
            Self::Task(index) => (14, index),
        };
        debug_assert!(index < 1 << (u32::BITS - KIND_BITS));
        kind | (index as u32) << KIND_BITS
    }

    fn of_word(word: u32) -> Self {
        let index = (word >> KIND_BITS) as usize;
        match word & ((1 << KIND_BITS) - 1) {
            1 => Self::Start,
            2 => Self::Handshake,
            3 => Self::SessionEvent,
            4 => Self::Alarm,
            5 => Self::PushSelection,
            6 => Self::BroadcastFilter,
            7 => Self::Filters,
            8 => Self::Filtered(index),
            9 => Self::Handler(index),
            10 => Self::Remote(index),
            11 => Self::OnStart,
            12 => Self::BeforeStop,
            13 => Self::ServerEvent,
            14 => Self::Task(index),
            _ => Self::Gateway,
        }
    }
}

/// Polls of one future of the application before it waits for the next look of the poller. While a task is
/// ready, the poller looks only now and then. So without this bound, a future that wakes itself at each poll
/// would delay all others of its shard.
const POLLS_MAX: u32 = 64;

/// The activity of one shard.
#[derive(Debug, Default)]
pub struct Activity {
    /// Id of the thread; 0 before the shard started and after it ended.
    thread: AtomicI32,
    ticks: AtomicU64,
    work: AtomicU32,
    names: OnceLock<Names>,
    /// Written by the watchdog.
    is_stalled: AtomicBool,
}

/// A guard: while it lives, the watchdog expects ticks.
pub struct Alive(Arc<Activity>);

impl Alive {
    /// Starts with the calling thread, which must be the thread of the shard.
    pub fn new(activity: Arc<Activity>) -> Self {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        activity.thread.store(thread, Relaxed);
        Self(activity)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.thread.store(0, Relaxed);
    }
}

/// The names behind the indices of [`Work`].
#[derive(Debug)]
struct Names {
    routes: Vec<String>,
    remotes: Vec<String>,
    tasks: Vec<String>,
}

impl Activity {
    /// Stores the names behind the indices of a router.
    pub(in crate::shard) fn name(&self, router: &Router) {
        let _ = self.names.set(Names {
            routes: router.routes().map(str::to_owned).collect(),
            remotes: router.remotes().map(str::to_owned).collect(),
            tasks: router.life().task_names().map(str::to_owned).collect(),
        });
    }

    /// Counts a tick of the shard.
    pub fn tick(&self) {
        self.ticks.store(self.ticks.load(Relaxed) + 1, Relaxed);
    }

    /// Calls the application; an error when it panicked. During a nested call the activity names the inner work.
    #[inline]
    pub fn call<T>(&self, work: Work, call: impl FnOnce() -> T) -> thread::Result<T> {
        let before = self.work.load(Relaxed);
        self.work.store(work.word(), Relaxed);
        let result = catch_unwind(AssertUnwindSafe(call));
        self.work.store(before, Relaxed);
        result
    }

    /// Runs a future of the application; an error when it panicked. It yields to the reactor after each
    /// [`POLLS_MAX`] polls.
    pub(in crate::shard) async fn run<F: Future>(
        &self,
        work: Work,
        future: F,
    ) -> thread::Result<F::Output> {
        let mut future = pin!(future);
        let mut any_thread = AnyThread::default();
        loop {
            let mut polls = 0;
            let ended = poll_fn(|cx| {
                if polls == POLLS_MAX {
                    return Poll::Ready(None);
                }
                polls += 1;
                let poll = any_thread.poll(cx, |cx| self.call(work, || future.as_mut().poll(cx)));
                match poll {
                    Ok(poll) => poll.map(|output| Some(Ok(output))),
                    Err(panic) => Poll::Ready(Some(Err(panic))),
                }
            });
            match ended.await {
                Some(result) => return result,
                None => clock::yield_to_reactor().await,
            }
        }
    }

    /// Returns the number of ticks; `None` before the shard started and after it ended.
    pub fn ticks(&self) -> Option<u64> {
        self.thread().map(|_| self.ticks.load(Relaxed))
    }

    /// Returns the id of the shard's thread; `None` before the shard started and after it ended.
    pub fn thread(&self) -> Option<i32> {
        Some(self.thread.load(Relaxed)).filter(|thread| *thread != 0)
    }

    /// Stores whether the shard has stopped ticking, as the watchdog sees it.
    pub fn set_stalled(&self, is_stalled: bool) {
        self.is_stalled.store(is_stalled, Relaxed);
    }

    /// Returns whether the watchdog has seen that the shard does not tick.
    pub fn is_stalled(&self) -> bool {
        self.is_stalled.load(Relaxed)
    }

    /// Returns whether the application runs on the thread.
    pub fn runs_application(&self) -> bool {
        Work::of_word(self.work.load(Relaxed)) != Work::Gateway
    }

    /// Returns the name of the work for a log line.
    pub fn work(&self) -> String {
        let names = self.names.get();
        let route = |index| {
            let route = names.and_then(|names| names.routes.get(index));
            // The one that has none.
            route.map_or("(fallback)", String::as_str)
        };
        match Work::of_word(self.work.load(Relaxed)) {
            Work::Gateway => "the gateway itself".to_owned(),
            Work::Start => "the function that makes the handlers".to_owned(),
            Work::Handshake => "a handler of handshakes".to_owned(),
            Work::SessionEvent => "a handler of session events".to_owned(),
            Work::Alarm => "a delayed call".to_owned(),
            Work::PushSelection => "the function that selects push schedulers".to_owned(),
            Work::BroadcastFilter => "the broadcast filter".to_owned(),
            Work::Filters => "the filters of a message without a handler here".to_owned(),
            Work::Filtered(index) => format!("the filters or the handler of {}", route(index)),
            Work::Handler(index) => format!("the handler of {}", route(index)),
            Work::Remote(index) => {
                let remote = names.and_then(|names| names.remotes.get(index));
                format!(
                    "the remote {}",
                    remote.map_or("without a name", String::as_str)
                )
            }
            Work::OnStart => "on_start".to_owned(),
            Work::BeforeStop => "before_stop".to_owned(),
            Work::ServerEvent => "a handler of server events".to_owned(),
            Work::Task(index) => {
                let task = names.and_then(|names| names.tasks.get(index));
                format!("the task {}", task.map_or("without a name", String::as_str))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::{Answer, Outcome};

    #[test]
    fn every_kind_of_work_is_read_as_it_was_written() {
        let mut texts = std::collections::BTreeSet::new();
        let works = [
            Work::Gateway,
            Work::Start,
            Work::Handshake,
            Work::SessionEvent,
            Work::Alarm,
            Work::PushSelection,
            Work::BroadcastFilter,
            Work::Filters,
            Work::Filtered(1),
            Work::Handler((1 << 24) - 1),
            Work::Remote(0),
            Work::OnStart,
            Work::BeforeStop,
            Work::ServerEvent,
            Work::Task(2),
        ];
        for work in works {
            assert_eq!(Work::of_word(work.word()), work);
            let activity = Activity::default();
            let text = activity.call(work, || activity.work()).unwrap();
            assert!(texts.insert(text), "{work:?} has a text of its own");
        }
    }

    #[test]
    fn the_innermost_call_is_named_and_after_it_its_caller() {
        let router = Router::new()
            .raw_route("connector.h.a", |_| Answer::now(Outcome::default()))
            .remote("infoRemote.who", async |_| {});
        let activity = Activity::default();
        assert_eq!(activity.work(), "the gateway itself");
        activity.name(&router);
        let result = activity.call(Work::Handler(0), || {
            assert_eq!(activity.work(), "the handler of connector.h.a");
            let remote = activity.call(Work::Remote(0), || {
                assert_eq!(activity.work(), "the remote infoRemote.who");
                panic!("boom")
            });
            assert!(remote.is_err());
            assert_eq!(activity.work(), "the handler of connector.h.a");
        });
        result.unwrap();
        assert_eq!(activity.work(), "the gateway itself");
    }
}
