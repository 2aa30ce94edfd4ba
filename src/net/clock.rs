//! The only source of time: the clock of the kernel, or on the thread of a gateway in memory a virtual
//! clock, which only the test moves.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

thread_local! {
    static VIRTUAL: RefCell<Option<Rc<VirtualClock>>> = const { RefCell::new(None) };
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
        Some(clock) => VIRTUAL_BEGIN + clock.elapsed(),
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

/// Returns the resident memory of this process in bytes, or 0 if the kernel does not report it.
pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Waits for `duration`.
pub(crate) async fn sleep(duration: Duration) {
    match virtual_clock() {
        Some(clock) => clock.sleep(duration).await,
        None => real_sleep(duration).await,
    }
}

/// Waits by the real clock, also on a thread with a virtual one.
#[allow(clippy::disallowed_methods)]
pub(crate) async fn real_sleep(duration: Duration) {
    glommio::timer::sleep(duration).await;
}

/// Lets other tasks run and the reactor poll sockets, which a plain yield does not do. With a virtual
/// clock there are no sockets.
pub(crate) async fn yield_to_reactor() {
    match virtual_clock() {
        Some(_) => futures_lite::future::yield_now().await,
        None => real_sleep(Duration::from_micros(1)).await,
    }
}

/// A clock that only a test moves, with the tasks that wait for it.
///
/// Bound: one entry per sleeping task.
#[derive(Debug)]
pub(crate) struct VirtualClock {
    began: Instant,
    now: Cell<Instant>,
    /// Wakers of the sleeping tasks, by wake-up time and order of their sleeps.
    sleepers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    last: Cell<u64>,
}

impl Default for VirtualClock {
    fn default() -> Self {
        let began = real_now();
        Self {
            began,
            now: Cell::new(began),
            sleepers: RefCell::default(),
            last: Cell::default(),
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
        let sleepers = self.sleepers.borrow();
        sleepers.first_key_value().map(|(key, _)| key.0)
    }

    /// Moves the clock, never back, and wakes the tasks that are due, in order.
    pub(crate) fn move_to(&self, at: Instant) {
        self.now.set(at.max(self.now.get()));
        while let Some(sleeper) = self.due() {
            sleeper.wake();
        }
    }

    fn due(&self) -> Option<Waker> {
        let mut sleepers = self.sleepers.borrow_mut();
        let first = sleepers.first_entry()?;
        (first.key().0 <= self.now.get()).then(|| first.remove())
    }

    async fn sleep(self: Rc<Self>, duration: Duration) {
        if duration.is_zero() {
            return futures_lite::future::yield_now().await;
        }
        self.last.set(self.last.get() + 1);
        // A sleep beyond the range of the clock never ends.
        let Some(until) = self.now.get().checked_add(duration) else {
            return std::future::pending().await;
        };
        let key = (until, self.last.get());
        Sleep { key, clock: self }.await;
    }
}

/// A sleep until a time of the clock.
struct Sleep {
    key: (Instant, u64),
    clock: Rc<VirtualClock>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.clock.now() >= self.key.0 {
            return Poll::Ready(());
        }
        let mut sleepers = self.clock.sleepers.borrow_mut();
        sleepers.insert(self.key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.sleepers.borrow_mut().remove(&self.key);
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
        let order: Vec<u64> = clock.sleepers.borrow().keys().map(|key| key.1).collect();
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
