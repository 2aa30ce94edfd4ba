//! A shard's sign of life, for the watchdog of the process: ticks, and the part of the application that
//! has the thread.
//!
//! The shard writes it and `gateway/watchdog.rs` reads it. Relaxed: a reader may be a moment behind, and
//! nothing else depends on what it reads.
//!
//! A call into the application costs one load and two stores of a word that hardly anybody else reads,
//! and no look at the clock.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::thread;

use crate::handler::Router;
use crate::net::clock;

/// What has a shard's thread: a part of the application, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// No part of the application.
    Gateway,
    /// The function that makes the handlers.
    Start,
    /// Who has a say in handshakes.
    Handshake,
    /// Who hears of binds, unbinds and closes.
    SessionEvent,
    /// A call that was put off.
    Alarm,
    /// Who selects push schedulers.
    PushSelection,
    /// Who filters broadcasts.
    BroadcastFilter,
    /// Filters of a message that no handler here is for.
    Filters,
    /// Filters of a local message, or its handler, by the index of its route.
    Filtered(usize),
    /// A handler, by the index of its route.
    Handler(usize),
    /// A remote, by its index.
    Remote(usize),
    /// What is done at the start.
    OnStart,
    /// What is done before the stop.
    BeforeStop,
    /// Who hears of servers that come and go.
    ServerEvent,
    /// A task or a cron, by its index.
    Task(usize),
}

/// Bits of a word that say which kind of work it is; an index is above them.
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

/// Polls of one future of the application before the reactor gets its turn. glommio looks at sockets
/// and timers only when no task is ready to run, so a future that wakes itself each time it is polled
/// would stop its shard.
const POLLS_MAX: u32 = 64;

/// One shard's sign of life.
#[derive(Debug, Default)]
pub struct Activity {
    /// The thread that the shard runs on; 0 before it began and once it has ended.
    thread: AtomicI32,
    ticks: AtomicU64,
    work: AtomicU32,
    names: OnceLock<Names>,
}

/// Guard during whose life the shard has to tick.
pub struct Alive(Arc<Activity>);

impl Alive {
    /// Begins with the calling thread, which is the shard's.
    pub fn new(pulse: Arc<Activity>) -> Self {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        pulse.thread.store(thread, Relaxed);
        Self(pulse)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.thread.store(0, Relaxed);
    }
}

/// What indices stand for.
#[derive(Debug)]
struct Names {
    routes: Vec<String>,
    remotes: Vec<String>,
    tasks: Vec<String>,
}

impl Activity {
    /// Says what the indices of a router stand for.
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

    /// Calls the application; an error when it panicked. What it calls in turn is named while that
    /// lasts.
    #[inline]
    pub fn call<T>(&self, work: Work, call: impl FnOnce() -> T) -> thread::Result<T> {
        let before = self.work.load(Relaxed);
        self.work.store(work.word(), Relaxed);
        let result = catch_unwind(AssertUnwindSafe(call));
        self.work.store(before, Relaxed);
        result
    }

    /// Runs a future of the application; an error when it panicked. After each [`POLLS_MAX`] polls the
    /// reactor gets its turn.
    pub(in crate::shard) async fn run<F: Future>(
        &self,
        work: Work,
        future: F,
    ) -> thread::Result<F::Output> {
        let mut future = pin!(future);
        loop {
            let mut polls = 0;
            let ended = poll_fn(|cx| {
                if polls == POLLS_MAX {
                    return Poll::Ready(None);
                }
                polls += 1;
                match self.call(work, || future.as_mut().poll(cx)) {
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

    /// Returns how often it ticked; `None` before it began and once it has ended.
    pub fn ticks(&self) -> Option<u64> {
        self.thread().map(|_| self.ticks.load(Relaxed))
    }

    /// The id of the thread that it runs on; `None` before it began and once it has ended.
    pub fn thread(&self) -> Option<i32> {
        Some(self.thread.load(Relaxed)).filter(|thread| *thread != 0)
    }

    /// Whether the application has its thread.
    pub fn runs_application(&self) -> bool {
        Work::of_word(self.work.load(Relaxed)) != Work::Gateway
    }

    /// What it is at, as a log line says it.
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
            let pulse = Activity::default();
            let text = pulse.call(work, || pulse.work()).unwrap();
            assert!(texts.insert(text), "{work:?} has a text of its own");
        }
    }

    #[test]
    fn what_is_called_last_is_named_and_then_what_called_it() {
        let router = Router::new()
            .raw_route("connector.h.a", |_| Answer::now(Outcome::default()))
            .remote("infoRemote.who", async |_| {});
        let pulse = Activity::default();
        assert_eq!(pulse.work(), "the gateway itself");
        pulse.name(&router);
        let result = pulse.call(Work::Handler(0), || {
            assert_eq!(pulse.work(), "the handler of connector.h.a");
            let remote = pulse.call(Work::Remote(0), || {
                assert_eq!(pulse.work(), "the remote infoRemote.who");
                panic!("boom")
            });
            assert!(remote.is_err());
            assert_eq!(pulse.work(), "the handler of connector.h.a");
        });
        result.unwrap();
        assert_eq!(pulse.work(), "the gateway itself");
    }
}
