//! The readiness of a shard's sockets, and the one place where a shard sleeps: an epoll instance.
//!
//! The poller is a task that runs after all ready tasks of its shard. When no other task is ready, it
//! waits for an event of a socket, for the doorbell, or for the next wake-up time of a sleeping task. So a
//! message that comes alone costs three system calls: this wait, a read, and a write. glommio only
//! schedules the tasks; the gateway does not use its io_uring.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use slab::Slab;

use super::bell::Doorbell;
use super::clock::{self, Sleepers};
use super::pace::Pace;
use super::task;

/// Events of one look at the epoll instance; further ones come with the next look.
const EVENTS_MAX: usize = 512;

/// Rounds of ready tasks after which the poller looks although some are still ready.
const ROUNDS_MAX: u32 = 16;

/// Least time between two polls of glommio's own timers and files. The gateway uses none, but a handler may.
const GLOMMIO_INTERVAL: Duration = Duration::from_millis(50);

/// Wakes the tasks that wait for a socket of their shard.
///
/// Edge-triggered: a descriptor counts as ready from its event until an operation on it would block.
#[derive(Debug)]
pub struct Poller {
    epoll: Arc<OwnedFd>,
    watched: RefCell<Slab<Watched>>,
    bell: Arc<Doorbell>,
    sleepers: Rc<Sleepers>,
    /// Waker of the task in [`Poller::doze`], and whether the shard dozed in its last sleep.
    dozing: RefCell<Option<Waker>>,
    dozed: Cell<bool>,
    pace: RefCell<Pace>,
}

/// The state of one descriptor.
#[derive(Debug, Default)]
struct Watched {
    is_readable: bool,
    is_writable: bool,
    /// The other side has closed: a read never blocks, and returns the end after the last bytes.
    has_ended: bool,
    /// Write events are requested too.
    watches_writes: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Number of a watched descriptor. It is reused after [`Poller::remove`]; an old event then causes at
/// most one needless read.
pub(crate) type Key = u32;

impl Poller {
    /// Creates the poller for the shard on the calling thread. From now on it wakes the sleeping tasks of this thread,
    /// and `bell` ends its waits.
    ///
    /// `turn_min`: see [`Pace`].
    pub fn new(bell: &Arc<Doorbell>, turn_min: Duration) -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC)?);
        bell.own(&epoll)?;
        let sleepers = Rc::default();
        clock::use_sleepers(&sleepers);
        Ok(Self {
            epoll,
            watched: RefCell::default(),
            bell: bell.clone(),
            sleepers,
            dozing: RefCell::default(),
            dozed: Cell::default(),
            pace: RefCell::new(Pace::new(turn_min, clock::now())),
        })
    }

    /// Starts to watch a descriptor for reading.
    pub fn add(&self, fd: BorrowedFd<'_>) -> io::Result<Key> {
        let key = self.watched.borrow_mut().insert(Watched::default()) as Key;
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        let added = epoll::add(&self.epoll, fd, EventData::new_u64(key.into()), flags);
        if let Err(error) = added {
            self.remove(key);
            return Err(error.into());
        }
        Ok(key)
    }

    /// Removes a descriptor before it is closed.
    pub fn remove(&self, key: Key) {
        self.watched.borrow_mut().remove(key as usize);
    }

    /// Returns true if a read may find bytes; otherwise wakes the task when it may.
    pub fn may_read(&self, key: Key, cx: &Context<'_>) -> bool {
        let watched = &mut self.watched.borrow_mut()[key as usize];
        if !watched.is_readable {
            set(&mut watched.reader, cx);
        }
        watched.is_readable
    }

    /// Notes that a read found less than it asked for: nothing more until the next event, except
    /// perhaps the end.
    pub fn drained(&self, key: Key) {
        let watched = &mut self.watched.borrow_mut()[key as usize];
        watched.is_readable = watched.has_ended;
    }

    /// Notes that a read found nothing, not even the end.
    pub fn emptied(&self, key: Key) {
        self.watched.borrow_mut()[key as usize].is_readable = false;
    }

    /// Returns true if a write may find room; otherwise wakes the task when it may.
    pub fn may_write(&self, key: Key, fd: BorrowedFd<'_>, cx: &Context<'_>) -> io::Result<bool> {
        let watched = &mut self.watched.borrow_mut()[key as usize];
        if watched.is_writable {
            return Ok(true);
        }
        set(&mut watched.writer, cx);
        if !watched.watches_writes {
            watched.watches_writes = true;
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::modify(&self.epoll, fd, EventData::new_u64(key.into()), flags)?;
        }
        Ok(false)
    }

    /// Notes that a write found no room: none until the next event.
    pub fn filled(&self, key: Key) {
        self.watched.borrow_mut()[key as usize].is_writable = false;
    }

    /// Lets the shard sleep without ticks until something wakes it. The calling task then runs before all other tasks
    /// that were woken. Only one task of a shard may call this. Returns false if the shard did not sleep so: something
    /// came first, or got a deadline.
    pub async fn doze(&self) -> bool {
        let mut began = false;
        poll_fn(|cx| {
            let mut dozing = self.dozing.borrow_mut();
            if std::mem::replace(&mut began, true) && dozing.is_none() {
                return Poll::Ready(());
            }
            *dozing = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.dozed.get()
    }

    /// Wakes the tasks of the shard, and sleeps while none is ready. Never returns. `has_deadline` says whether
    /// something in the shard needs ticks. The poller asks directly before it dozes, so that no task can run in between.
    /// After each look, `looked` gets the time, and the length of the turn that ended with the look.
    pub async fn run(&self, has_deadline: impl Fn() -> bool, looked: impl Fn(Instant, Duration)) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut rounds = 0;
        let mut served = clock::now();
        let mut turn_began = served;
        loop {
            let is_alone = task::yield_to_all().await;
            rounds += 1;
            if !is_alone && rounds < ROUNDS_MAX {
                continue;
            }
            rounds = 0;
            let (began, now) = self.look(&mut events, is_alone, &has_deadline);
            looked(now, began.saturating_duration_since(turn_began));
            turn_began = now;
            if now.saturating_duration_since(served) >= GLOMMIO_INTERVAL {
                served = now;
                clock::let_glommio_poll().await;
            }
        }
    }

    /// Wakes the tasks whose events have happened. If the shard `may_sleep`, first lets events gather for a moment, or
    /// waits for an event. Returns the times of its start and its end; a look that may not sleep has only the second one.
    fn look(
        &self,
        events: &mut Vec<Event>,
        may_sleep: bool,
        has_deadline: &impl Fn() -> bool,
    ) -> (Instant, Instant) {
        let mut began = None;
        let mut pace = self.pace.borrow_mut();
        let mut timeout = Some(Timespec::default());
        let mut gathered = false;
        let mut dozes = false;
        if may_sleep {
            let next = self.sleepers.next();
            let now = clock::now();
            began = Some(now);
            let left = next.map(|next| next.saturating_duration_since(now));
            let gather = pace.gather(now).min(left.unwrap_or(Duration::MAX));
            gathered = !gather.is_zero();
            let ticks = self.dozing.borrow().is_none();
            if gathered {
                thread::sleep(gather);
            } else if (ticks || !has_deadline()) && self.bell.begin_sleep(ticks) {
                timeout = left.and_then(|left| Timespec::try_from(left).ok());
                dozes = !ticks;
            }
        }
        events.clear();
        // An interrupted look is repeated: ready descriptors stay ready.
        let _ = epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref());
        if (may_sleep || !events.is_empty())
            && let Some(dozing) = self.dozing.take()
        {
            self.dozed.set(dozes);
            dozing.wake();
        }
        self.bell.end_sleep();
        let now = clock::now();
        pace.looked(now, events.len(), gathered);
        self.sleepers.wake_due(now);
        let mut watched = self.watched.borrow_mut();
        for Event { flags, data } in events.iter().copied() {
            if let Some(watched) = watched.get_mut(data.u64() as usize) {
                watched.event(flags);
            }
        }
        (began.unwrap_or(now), now)
    }
}

impl Watched {
    fn event(&mut self, flags: EventFlags) {
        let failed = EventFlags::HUP | EventFlags::ERR;
        self.has_ended |= flags.intersects(failed | EventFlags::RDHUP);
        if self.has_ended || flags.contains(EventFlags::IN) {
            self.is_readable = true;
            if let Some(reader) = &self.reader {
                reader.wake_by_ref();
            }
        }
        // A peer that closed only its own direction may still be reading.
        if flags.intersects(failed | EventFlags::OUT) {
            self.is_writable = true;
            if let Some(writer) = &self.writer {
                writer.wake_by_ref();
            }
        }
    }
}

/// Stores the waker, which is mostly the same as before.
fn set(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(known) if known.will_wake(cx.waker()) => {}
        _ => *waker = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::bell::AnyThread;
    use std::pin::pin;

    use glommio::LocalExecutorBuilder;

    /// Runs a future on an executor whose thread sleeps in a poller.
    fn run<F: Future<Output = ()>>(test: impl FnOnce(Rc<Poller>) -> F) {
        let executor = LocalExecutorBuilder::default()
            .preempt_timer(Duration::from_secs(24 * 60 * 60))
            .make()
            .unwrap();
        task::run(&executor, async move {
            let poller = Rc::new(Poller::new(&Arc::default(), Duration::ZERO).unwrap());
            let looks = poller.clone();
            let looks = task::spawn(async move { looks.run(|| false, |_, _| {}).await });
            test(poller).await;
            looks.cancel().await;
        });
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the subject of this test")]
    fn timers_of_glommio_itself_fire() {
        run(|_| async {
            // The tick of a shard.
            let ticks = task::spawn(async {
                loop {
                    clock::sleep(GLOMMIO_INTERVAL).await;
                }
            });
            for _ in 0..5 {
                let sleeps = [5, 5, 70].map(|ms| {
                    task::spawn(async move {
                        let mut any_thread = AnyThread::default();
                        let mut timer = pin!(glommio::timer::sleep(Duration::from_millis(ms)));
                        poll_fn(|cx| any_thread.poll(cx, |cx| timer.as_mut().poll(cx))).await;
                    })
                });
                for sleep in sleeps {
                    sleep.await;
                }
            }
            ticks.cancel().await;
        });
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the thread that rings")]
    fn a_dozing_task_runs_before_the_tasks_that_were_woken_with_it() {
        run(|poller| async move {
            let order = Rc::new(RefCell::new(Vec::new()));
            let of_sleeper = order.clone();
            let sleeper = task::spawn(async move {
                clock::sleep(Duration::from_millis(5)).await;
                of_sleeper.borrow_mut().push("sleeper");
            });
            let of_receiver = order.clone();
            let mut rung = false;
            let bell = poller.bell.clone();
            let receiver = task::spawn(poll_fn(move |cx| {
                bell.listen(cx);
                if std::mem::replace(&mut rung, true) {
                    of_receiver.borrow_mut().push("receiver");
                    return Poll::Ready(());
                }
                Poll::Pending
            }));
            assert!(poller.doze().await);
            order.borrow_mut().push("doze");
            sleeper.await;
            let bell = poller.bell.clone();
            let ring = std::thread::spawn(move || {
                while !bell.dozes() {
                    std::thread::yield_now();
                }
                bell.ring()
            });
            assert!(poller.doze().await);
            order.borrow_mut().push("doze");
            receiver.await;
            assert!(ring.join().unwrap(), "the ring ended a sleep");
            assert_eq!(*order.borrow(), ["doze", "sleeper", "doze", "receiver"]);
        });
    }
}
