//! The doorbell of a shard: the only way in which another thread wakes it.
//!
//! A shard sleeps in one place: its poller waits for events. Another thread first puts its message into a queue of
//! the shard, then it rings. While the shard is awake, a ring costs no system call ([`sleep`]).
//!
//! **Absent**: the messages in the queues.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Relaxed},
};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Wake, Waker};

use crossbeam_channel::{Receiver, Sender};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

mod sleep;

use std::sync::atomic;

use sleep::Sleep;

/// Key of the eventfd among the descriptors of the poller. No socket has this key.
const KEY: u64 = u64::MAX;

thread_local! {
    /// The bell of the shard on this thread, if the shard sleeps in a poller.
    static OWN: RefCell<Option<Arc<Doorbell>>> = const { RefCell::new(None) };
}

/// A bell that wakes a sleeping shard. Only the first ring since the shard last looked may cost a wake-up.
#[derive(Debug)]
pub struct Doorbell {
    sleep: Sleep,
    /// True while the shard sleeps without ticks, until something wakes it.
    dozes: AtomicBool,
    /// Empty while the shard starts, and always in a gateway in memory, where the waker alone wakes the shard.
    poller: OnceLock<PollerFds>,
    /// Waker of the task that receives from other shards.
    // Locked once per ring that the shard sees, never per message.
    #[allow(clippy::disallowed_types)]
    waker: std::sync::Mutex<Option<Waker>>,
    /// Tasks that other threads have woken. Bound: each task is in it at most once.
    woken: (Sender<Arc<TaskWaker>>, Receiver<Arc<TaskWaker>>),
}

/// The descriptors of the poller in which the shard sleeps.
#[derive(Debug)]
struct PollerFds {
    /// A write to it ends the sleep.
    eventfd: OwnedFd,
    epoll: Arc<OwnedFd>,
}

impl Default for Doorbell {
    fn default() -> Self {
        Self {
            sleep: Sleep::new(),
            dozes: AtomicBool::new(false),
            poller: OnceLock::new(),
            waker: Default::default(),
            woken: crossbeam_channel::unbounded(),
        }
    }
}

impl Doorbell {
    /// Rings. Returns true if this ring woke the shard.
    pub fn ring(&self) -> bool {
        if !self.sleep.ring() {
            return false;
        }
        match self.poller.get() {
            None => self.wake_receiver(),
            Some(poller) if self.sleep.must_wake() => poller.wake(),
            Some(_) => return false,
        }
        true
    }

    /// Wakes the shard in every way, even if an earlier ring should have done so. The watchdog calls this when a shard
    /// does not tick. Call it rarely: each call that the shard has not noticed yet holds a reference to the
    /// receiving task, and glommio panics at 32 767 of them.
    pub fn wake(&self) {
        self.sleep.ring();
        if let Some(poller) = self.poller.get() {
            poller.wake();
        }
        self.wake_receiver();
    }

    /// Makes later rings wake the calling task. The task calls this before it looks into its queue.
    pub fn listen(&self, cx: &Context<'_>) {
        let mut waker = self
            .waker
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if waker
            .as_ref()
            .is_none_or(|known| !known.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        if self.poller.get().is_none() {
            self.sleep.take_rings();
        }
    }

    /// Makes this the bell of the calling thread's shard, which sleeps in the poller of `epoll`.
    pub(super) fn own(self: &Arc<Self>, epoll: &Arc<OwnedFd>) -> io::Result<()> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(epoll, &eventfd, EventData::new_u64(KEY), flags)?;
        let epoll = epoll.clone();
        let _ = self.poller.set(PollerFds { eventfd, epoll });
        OWN.set(Some(self.clone()));
        Ok(())
    }

    /// Announces that the shard is about to sleep, and whether its next tick ends this sleep. Returns false if the
    /// bell has rung: then the shard must not sleep.
    pub(crate) fn begin_sleep(&self, ticks: bool) -> bool {
        self.dozes.store(!ticks, Relaxed);
        self.sleep.begin()
    }

    /// Ends a sleep, or takes its announcement back. Wakes the tasks for which the bell rang.
    pub(crate) fn end_sleep(&self) {
        self.dozes.store(false, Relaxed);
        self.sleep.end();
        if !self.sleep.take_rings() {
            return;
        }
        self.wake_receiver();
        while let Ok(task) = self.woken.1.try_recv() {
            task.is_queued.swap(false, AcqRel);
            task.wake_here();
        }
    }

    /// Returns true if the shard sleeps and does not tick until something wakes it.
    pub fn dozes(&self) -> bool {
        self.dozes.load(Relaxed)
    }

    /// Returns true if a ring or an event waits for the shard. The call takes neither away.
    pub fn has_waiting(&self) -> bool {
        let Some(poller) = self.poller.get() else {
            return self.sleep.is_rung();
        };
        let mut events = [PollFd::new(&*poller.epoll, PollFlags::IN)];
        let has_events = poll(&mut events, Some(&Timespec::default())) == Ok(1);
        has_events || self.sleep.is_rung()
    }

    fn wake_receiver(&self) {
        wake(&self.waker);
    }
}

impl PollerFds {
    /// Ends the sleep. Each write to the eventfd is an event for the poller, so nobody has to read it. Its counter has
    /// room for 2^64 - 2 writes.
    fn wake(&self) {
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }
}

/// Wakes by the waker that is set, if any.
#[allow(clippy::disallowed_types)]
fn wake(waker: &std::sync::Mutex<Option<Waker>>) {
    let waker = waker
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(waker) = &*waker {
        waker.wake_by_ref();
    }
}

/// The waker of a task that other threads may wake: a future of the application, or work on another thread.
///
/// glommio's own wakers do not end a sleep in the poller. A waker of this type does, through the doorbell.
pub(crate) struct TaskWaker {
    bell: Weak<Doorbell>,
    is_queued: AtomicBool,
    /// Waker of glommio. Only the shard's thread uses and drops it.
    #[allow(clippy::disallowed_types)]
    waker: std::sync::Mutex<Option<Waker>>,
}

impl TaskWaker {
    fn wake_here(&self) {
        wake(&self.waker);
    }

    /// Sets the waker of the task; `None` when the task no longer waits. The previous one is dropped here.
    fn set(&self, waker: Option<&Waker>) {
        let mut known = self
            .waker
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        match (&*known, waker) {
            (Some(known), Some(waker)) if known.will_wake(waker) => {}
            _ => *known = waker.cloned(),
        }
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A thread that ends may wake a task when its own thread-locals are gone.
        let is_own = OWN.try_with(|own| {
            let own = own.borrow();
            own.as_ref()
                .is_some_and(|own| self.bell.as_ptr() == Arc::as_ptr(own))
        });
        if is_own.unwrap_or(false) {
            return self.wake_here();
        }
        // The shard may have ended: then nobody waits.
        let Some(bell) = self.bell.upgrade() else {
            return;
        };
        if !self.is_queued.swap(true, AcqRel) {
            let _ = bell.woken.0.send(self.clone());
            bell.ring();
        }
    }
}

/// A waker that every thread may use, for the polls of one future. In a gateway in memory it is empty, because shards
/// there sleep in glommio.
pub(crate) struct AnyThread(Option<(Arc<TaskWaker>, Waker)>);

impl Default for AnyThread {
    fn default() -> Self {
        let bell = OWN.with_borrow(Clone::clone);
        Self(bell.map(|bell| {
            let task = Arc::new(TaskWaker {
                bell: Arc::downgrade(&bell),
                is_queued: AtomicBool::default(),
                waker: Default::default(),
            });
            let waker = Waker::from(task.clone());
            (task, waker)
        }))
    }
}

impl AnyThread {
    /// Returns false on the thread of a gateway in memory.
    pub(super) fn is_kernel(&self) -> bool {
        self.0.is_some()
    }

    /// Calls `poll` with the waker, or with that of `cx` if this is empty.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> T,
    ) -> T {
        let Some((task, waker)) = &self.0 else {
            return poll(cx);
        };
        task.set(Some(cx.waker()));
        poll(&mut Context::from_waker(waker))
    }
}

impl Drop for AnyThread {
    fn drop(&mut self) {
        if let Some((task, _)) = &self.0 {
            task.set(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn only_the_first_ring_since_the_owner_looked_wakes_it() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let bell = Doorbell::default();
        bell.listen(&Context::from_waker(&waker));
        assert_eq!([(); 3].map(|()| bell.ring()), [true, false, false]);
        bell.listen(&Context::from_waker(&waker));
        assert!(bell.ring());
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        bell.wake();
        assert_eq!(
            count.0.load(Ordering::SeqCst),
            3,
            "`wake` also wakes a shard whose doorbell was rung"
        );
    }
}
