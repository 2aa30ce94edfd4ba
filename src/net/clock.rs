//! The only source of time: the clock of the kernel, or on the thread of a gateway in memory a virtual
//! clock, which only the test moves.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::future;
use glommio::timer::Timer;

thread_local! {
    static VIRTUAL: RefCell<Option<Rc<VirtualClock>>> = const { RefCell::new(None) };
    /// The sleeping tasks of this thread, if a poller wakes them.
    static SLEEPERS: RefCell<Option<Rc<Sleepers>>> = const { RefCell::new(None) };
}

/// Virtual clocks begin at 2000-01-01 00:00:00 UTC, so that each run shows the same times.
const VIRTUAL_BEGIN: Duration = Duration::from_secs(946_684_800);

/// Returns the virtual clock of this thread, if it has one.
fn virtual_clock() -> Option<Rc<VirtualClock>> {
    VIRTUAL.with_borrow(Clone::clone)
}

/// Returns the present time.
pub(crate) fn now() -> Instant {
    virtual_clock().map_or_else(real_now, |clock| clock.now())
}

/// Returns the time of the real clock, also on a thread with a virtual one: for limits on the duration
/// of a test.
#[allow(clippy::disallowed_methods)]
pub(crate) fn real_now() -> Instant {
    Instant::now()
}

/// Returns the milliseconds since 1970, for clients and other servers.
pub(crate) fn unix_ms() -> u128 {
    let since = match virtual_clock() {
        Some(clock) => clock.shown_first.get() + clock.elapsed(),
        None => {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.unwrap_or_default()
        }
    };
    since.as_millis()
}

/// Returns the local time of day, to the millisecond.
pub(crate) fn wall_clock() -> jiff::Zoned {
    let now = i64::try_from(unix_ms()).ok();
    let now = now.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    now.unwrap_or_default()
        .to_zoned(jiff::tz::TimeZone::system())
}

/// Lets time pass on a thread with a virtual clock, as costly work does on another one.
#[cfg(test)]
pub(crate) fn pass(duration: Duration) {
    let clock = virtual_clock().expect("a gateway in memory");
    clock.move_to(clock.now() + duration);
}

/// Sets the time that a virtual clock shows, as an administrator does. A waiting task does not notice it.
#[cfg(test)]
pub(crate) fn set_wall_clock(minutes_ahead: i64) {
    let clock = virtual_clock().expect("a gateway in memory");
    let seconds = clock.shown_first.get().as_secs();
    let seconds = seconds.strict_add_signed(60 * minutes_ahead);
    clock.shown_first.set(Duration::from_secs(seconds));
}

/// Waits for `duration`.
pub(crate) async fn sleep(duration: Duration) {
    match virtual_clock() {
        Some(clock) => clock.sleep(duration).await,
        None => real_sleep(duration).await,
    }
}

/// Waits by the real clock, also on a thread with a virtual one.
#[allow(
    clippy::disallowed_methods,
    reason = "a gateway in memory has no poller"
)]
pub(crate) async fn real_sleep(duration: Duration) {
    match SLEEPERS.with_borrow(Clone::clone) {
        Some(sleepers) => sleepers.sleep_until(real_now().checked_add(duration)).await,
        None => glommio::timer::sleep(duration).await,
    }
}

/// Lets glommio poll its own timers and files once. It polls only when no task is ready, so no other task may be
/// ready all the time.
#[allow(
    clippy::disallowed_methods,
    reason = "glommio polls only when no task is ready"
)]
pub(super) async fn let_glommio_poll() {
    let mut sleep = None;
    future::poll_fn(|cx| {
        if sleep.is_some() {
            return Poll::Ready(());
        }
        // On a slow core a time this short can end before the first poll. Then the loop tries twice the time.
        let mut time = Duration::from_micros(1);
        while sleep.is_none() {
            let mut timer = Timer::new(time);
            if Pin::new(&mut timer).poll(cx).is_pending() {
                sleep = Some(timer);
            }
            time *= 2;
        }
        Poll::Pending
    })
    .await;
}

/// Adds the later sleeps of the calling thread to `sleepers`, which its poller wakes.
pub(super) fn use_sleepers(sleepers: &Rc<Sleepers>) {
    SLEEPERS.set(Some(sleepers.clone()));
}

/// Lets other tasks run, and waits until the poller has looked at the sockets. A plain yield lets it look only now
/// and then. With a virtual clock there are no sockets.
pub(crate) async fn yield_to_reactor() {
    match virtual_clock() {
        Some(_) => future::yield_now().await,
        None => real_sleep(Duration::ZERO).await,
    }
}

/// The sleeping tasks of a thread.
///
/// Bound: one entry per sleeping task.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    /// Wakers by wake-up time and number of the sleep.
    sleeping: RefCell<BTreeMap<(Instant, u64), Waker>>,
    /// Number of the last sleep.
    last: Cell<u64>,
}

impl Sleepers {
    /// Returns the next wake-up time.
    pub(super) fn next(&self) -> Option<Instant> {
        let sleeping = self.sleeping.borrow();
        sleeping.first_key_value().map(|(key, _)| key.0)
    }

    /// Wakes the tasks that are due, in order.
    pub(super) fn wake_due(&self, now: Instant) {
        while let Some(sleeper) = self.due(now) {
            sleeper.wake();
        }
    }

    fn due(&self, now: Instant) -> Option<Waker> {
        let mut sleeping = self.sleeping.borrow_mut();
        let first = sleeping.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Waits until [`Sleepers::wake_due`] is called with `until` or a later time. `None` is a time beyond the range of
    /// the clock: then the wait never ends.
    async fn sleep_until(self: Rc<Self>, until: Option<Instant>) {
        self.last.set(self.last.get() + 1);
        let Some(until) = until else {
            return std::future::pending().await;
        };
        let key = (until, self.last.get());
        Sleep {
            key,
            began: false,
            sleepers: self,
        }
        .await;
    }
}

/// A sleep until a time of the clock.
struct Sleep {
    key: (Instant, u64),
    began: bool,
    sleepers: Rc<Sleepers>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let began = std::mem::replace(&mut self.began, true);
        let mut sleeping = self.sleepers.sleeping.borrow_mut();
        match sleeping.get_mut(&self.key) {
            // Something else in the task woke it early.
            Some(waker) => waker.clone_from(cx.waker()),
            None if began => return Poll::Ready(()),
            None => {
                sleeping.insert(self.key, cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.sleepers.sleeping.borrow_mut().remove(&self.key);
    }
}

/// A clock that only a test moves, with the tasks that wait for it.
#[derive(Debug)]
pub(crate) struct VirtualClock {
    began: Instant,
    /// Time that it showed at its begin, since 1970.
    shown_first: Cell<Duration>,
    now: Cell<Instant>,
    sleepers: Rc<Sleepers>,
}

impl Default for VirtualClock {
    fn default() -> Self {
        let began = real_now();
        Self {
            began,
            shown_first: Cell::new(VIRTUAL_BEGIN),
            now: Cell::new(began),
            sleepers: Rc::default(),
        }
    }
}

impl VirtualClock {
    /// Calls `f` with this clock as the clock of the thread.
    pub(crate) fn during<T>(self: &Rc<Self>, f: impl FnOnce() -> T) -> T {
        struct Restore(Option<Rc<VirtualClock>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                VIRTUAL.set(self.0.take());
            }
        }
        let _restore = Restore(VIRTUAL.replace(Some(self.clone())));
        f()
    }

    /// Returns the present time.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Returns the time by which the clock has moved.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now.get() - self.began
    }

    /// Returns the next wake-up time.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.sleepers.next()
    }

    /// Moves the clock, never back, and wakes the tasks that are due, in order.
    pub(crate) fn move_to(&self, at: Instant) {
        self.now.set(at.max(self.now.get()));
        self.sleepers.wake_due(self.now.get());
    }

    async fn sleep(self: Rc<Self>, duration: Duration) {
        if duration.is_zero() {
            return future::yield_now().await;
        }
        let until = self.now.get().checked_add(duration);
        self.sleepers.clone().sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, or, poll_once};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_sleeper_wakes_when_the_clock_shows_its_time_and_not_before() {
        let clock = Rc::new(VirtualClock::default());
        clock.during(|| {
            let (began, mut asleep) = (now(), Box::pin(sleep(5 * SECOND)));
            assert_eq!(block_on(poll_once(&mut asleep)), None);
            assert_eq!(clock.next(), Some(began + 5 * SECOND));
            clock.move_to(began + 5 * SECOND - Duration::from_nanos(1));
            assert_eq!(block_on(poll_once(&mut asleep)), None);
            clock.move_to(began + 5 * SECOND);
            assert_eq!(block_on(poll_once(&mut asleep)), Some(()));
            assert_eq!((now() - began, unix_ms()), (5 * SECOND, 946_684_805_000));
        });
        assert!(
            virtual_clock().is_none(),
            "the thread follows the real clock again"
        );
    }

    #[test]
    fn sleepers_of_one_moment_wake_in_the_order_they_lay_down() {
        let clock = Rc::new(VirtualClock::default());
        let mut all = [2, 1, 1].map(|seconds| Box::pin(clock.clone().sleep(seconds * SECOND)));
        for asleep in &mut all {
            assert_eq!(block_on(poll_once(asleep)), None);
        }
        let order: Vec<u64> = clock
            .sleepers
            .sleeping
            .borrow()
            .keys()
            .map(|key| key.1)
            .collect();
        assert_eq!(order, [2, 3, 1]);
    }

    #[test]
    fn a_dropped_sleep_leaves_no_timer_behind() {
        let clock = Rc::new(VirtualClock::default());
        let raced = or(clock.clone().sleep(SECOND), async {});
        block_on(raced);
        assert_eq!(clock.next(), None);
    }
}
