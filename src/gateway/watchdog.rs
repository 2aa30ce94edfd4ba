//! Watches the shards from its own thread: it reports a stalled shard, and wakes one that has lost a
//! wake-up. A shard cannot do this itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::limits::STALL_MIN;
use crate::metrics::{Counter, Counters};
use crate::net::bell::Doorbell;
use crate::shard::activity::Activity;

mod thread;

use thread::{Thread, Usage};

/// Time between two checks. An idle process pays four wake-ups a second.
const LOOK: Duration = Duration::from_millis(250);

/// Checks without a tick after which a shard counts as stalled.
const LOOKS_MIN: u32 = (STALL_MIN.as_millis() / LOOK.as_millis()) as u32;
const _: () = assert!(LOOKS_MIN >= 2, "one look may fall between two late ticks");

/// Time in which a woken shard ticks, if it had only lost a wake-up.
const WAKES_WITHIN: Duration = Duration::from_millis(50);

/// Environment variable for tests: the watchdog reports shards, but does not wake them.
const ONLY_REPORTS: &str = "TANGELO_TEST_WATCHDOG_ONLY_REPORTS";

/// Checks all shards until they have ended. Each shard holds a sender of `shards`, and sends nothing.
pub(super) fn watch(
    activities: Vec<(Arc<Activity>, Arc<Doorbell>)>,
    counters: &Counters,
    shards: &Receiver<Infallible>,
) {
    let wakes = std::env::var_os(ONLY_REPORTS).is_none();
    let mut watches: Vec<Watch> = activities.into_iter().map(Watch::new).collect();
    while let Err(RecvTimeoutError::Timeout) = shards.recv_timeout(LOOK) {
        for (shard, watch) in watches.iter_mut().enumerate() {
            watch.look(shard, counters);
        }
        if !wakes {
            continue;
        }
        // All shards are woken before one common wait.
        let woken = watches
            .iter_mut()
            .fold(false, |any, watch| watch.wake() | any);
        if !woken {
            continue;
        }
        if !matches!(
            shards.recv_timeout(WAKES_WITHIN),
            Err(RecvTimeoutError::Timeout)
        ) {
            return;
        }
        for (shard, watch) in watches.iter_mut().enumerate() {
            if watch.has_lost_a_wakeup() {
                counters.add(Counter::WakeupsLost, 1);
                tracing::warn!(
                    "shard {shard} lost a wake-up: it slept for about {} ms although it had work, until \
                     the watchdog woke it",
                    watch.ticks.since().as_millis()
                );
            }
        }
    }
}

/// The watch over one shard.
struct Watch {
    activity: Arc<Activity>,
    bell: Arc<Doorbell>,
    ticks: Ticks,
    thread: Option<Thread>,
    /// CPU usage of its thread at the last check that saw a tick.
    usage: Option<Usage>,
    /// Part of the application that ran on its thread at the last report.
    work: String,
    /// True if, at the last check, something waited for the shard while it dozed.
    kept_waiting: bool,
    /// Number of ticks when the watchdog woke the shard from sleep.
    woken_at: Option<u64>,
}

impl Watch {
    fn new((activity, bell): (Arc<Activity>, Arc<Doorbell>)) -> Self {
        Self {
            activity,
            bell,
            ticks: Ticks::default(),
            thread: None,
            usage: None,
            work: String::new(),
            kept_waiting: false,
            woken_at: None,
        }
    }

    /// Checks whether the shard has ticked, and reports a stall.
    fn look(&mut self, shard: usize, counters: &Counters) {
        let thread = self.activity.thread();
        if self.thread.as_ref().map(Thread::id) != thread {
            self.thread = thread.map(Thread::new);
        }
        let may_doze = self.may_doze();
        let seen = self.ticks.look(self.activity.ticks(), may_doze);
        let thread = self.thread.as_ref();
        match seen {
            Seen::Fine => {}
            Seen::Stalled { begins, since } => {
                counters.add(Counter::Stalls, begins.into());
                let work = self.activity.work();
                let why = thread.map(|thread| thread.explain(self.usage, since));
                let why = why.unwrap_or_else(|| "its thread has just ended".to_owned());
                let ms = since.as_millis();
                tracing::error!("shard {shard} stalled for {ms} ms in {work}: {why}");
                self.work = work;
            }
            Seen::TicksAgain { after } => {
                let work = std::mem::take(&mut self.work);
                let ms = after.as_millis();
                tracing::warn!("shard {shard} runs again after {ms} ms in {work}");
            }
        }
        self.activity.set_stalled(self.ticks.is_stalled());
        if self.ticks.still == 0 {
            self.usage = self.thread.as_ref().and_then(Thread::usage);
        }
    }

    /// Returns true if the shard dozes and nothing keeps it waiting. An event that this check sees for the first time
    /// does not count yet, because it may have come a moment ago.
    fn may_doze(&mut self) -> bool {
        let dozes = self.bell.dozes();
        let waits = dozes && self.bell.has_waiting();
        let waited = std::mem::replace(&mut self.kept_waiting, waits);
        dozes && !(waits && waited)
    }

    /// Wakes a shard that does not tick. Returns true if the thread slept outside of the application,
    /// so the shard should have been awake. In a long stall the distance between two wake-ups doubles,
    /// because the doorbell holds only a limited number of unseen ones ([`Doorbell::wake`]).
    fn wake(&mut self) -> bool {
        self.woken_at = None;
        if !self.ticks.still.is_power_of_two() {
            return false;
        }
        let sleeps = self.thread.as_ref().is_some_and(Thread::sleeps);
        if sleeps && !self.activity.runs_application() {
            self.woken_at = self.ticks.ticks;
        }
        self.bell.wake();
        self.woken_at.is_some()
    }

    /// Returns true if the shard ticked after it was woken: it had lost a wake-up.
    fn has_lost_a_wakeup(&mut self) -> bool {
        let woken_at = self.woken_at.take();
        woken_at.is_some()
            && self
                .activity
                .ticks()
                .is_some_and(|ticks| woken_at != Some(ticks))
    }
}

/// The ticks of one shard, as seen by the watchdog.
#[derive(Default)]
struct Ticks {
    ticks: Option<u64>,
    /// Consecutive checks without a tick.
    still: u32,
    /// Value of `still` for the next report; 0 without a report so far.
    next_report: u32,
}

/// The result of a check.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// Nothing to report.
    Fine,
    /// The shard has not ticked for `since`, long enough for a report.
    Stalled { begins: bool, since: Duration },
    /// A reported stall has ended.
    TicksAgain { after: Duration },
}

impl Ticks {
    /// Counts time in checks. A late check counts as one, so the pause of a whole process does not count as a stall.
    fn look(&mut self, ticks: Option<u64>, may_doze: bool) -> Seen {
        if self.ticks != ticks || may_doze {
            let after = self.since();
            self.ticks = ticks;
            self.still = 0;
            return match std::mem::take(&mut self.next_report) {
                0 => Seen::Fine,
                _ => Seen::TicksAgain { after },
            };
        }
        if ticks.is_none() {
            return Seen::Fine;
        }
        self.still = self.still.saturating_add(1);
        if self.still < self.next_report.max(LOOKS_MIN) {
            return Seen::Fine;
        }
        let begins = self.next_report == 0;
        self.next_report = self.still.saturating_mul(2);
        Seen::Stalled {
            begins,
            since: self.since(),
        }
    }

    /// Returns whether a stall was reported that has not ended.
    fn is_stalled(&self) -> bool {
        self.next_report > 0
    }

    /// Returns the time without a tick.
    fn since(&self) -> Duration {
        LOOK * self.still
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::task::{Context, Wake, Waker};

    use crate::shard::activity::{Alive, Work};

    /// Wakes the thread of a shard.
    struct Wakes {
        thread: std::thread::Thread,
        woken: AtomicBool,
    }

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.woken.store(true, Ordering::Release);
            self.thread.unpark();
        }
    }

    impl Wakes {
        fn sleep(&self) {
            while !self.is_woken() {
                std::thread::park();
            }
        }

        fn is_woken(&self) -> bool {
            self.woken.load(Ordering::Acquire)
        }
    }

    /// Runs a watchdog and a shard that ticks, calls `wait` until its bell wakes it, and ticks again.
    /// Returns the counters.
    #[allow(clippy::disallowed_methods, reason = "the thread of a shard")]
    fn watch_a_shard(wait: impl FnOnce(&Activity, &Wakes) + Send + 'static) -> Counters {
        let (activity, bell) = (Arc::<Activity>::default(), Arc::<Doorbell>::default());
        let (alive, ended) = mpsc::channel::<Infallible>();
        let (of_shard, of_bell) = (activity.clone(), bell.clone());
        let shard = std::thread::spawn(move || {
            let _alive = (Alive::new(of_shard.clone()), alive);
            let wakes = Arc::new(Wakes {
                thread: std::thread::current(),
                woken: AtomicBool::default(),
            });
            let waker = Waker::from(wakes.clone());
            of_bell.listen(&Context::from_waker(&waker));
            // An earlier ring, which the shard has lost.
            of_bell.ring();
            wakes.woken.store(false, Ordering::Release);
            of_shard.tick();
            wait(&of_shard, &wakes);
            of_shard.tick();
            // The watchdog must see this before the shard ends.
            std::thread::sleep(4 * WAKES_WITHIN);
        });
        let counters = Counters::default();
        watch(vec![(activity, bell)], &counters, &ended);
        shard.join().unwrap();
        counters
    }

    #[test]
    fn a_shard_that_sleeps_although_it_has_work_is_woken_and_counted() {
        const SLEEPS: u64 = 5;
        let counters = watch_a_shard(|activity, wakes| {
            for _ in 0..SLEEPS {
                wakes.sleep();
                wakes.woken.store(false, Ordering::Release);
                activity.tick();
            }
            wakes.sleep();
        });
        // On a busy machine the shard may tick too late, but hardly each time.
        let counted = counters.get(Counter::WakeupsLost);
        assert!((1..=SLEEPS + 1).contains(&counted), "{counted}");
    }

    #[test]
    fn a_shard_that_is_busy_or_in_the_application_has_lost_no_wakeup() {
        let busy = |_: &Activity, wakes: &Wakes| {
            while !wakes.is_woken() {
                std::hint::spin_loop();
            }
        };
        let in_application = |activity: &Activity, wakes: &Wakes| {
            activity.call(Work::Handshake, || wakes.sleep()).unwrap();
        };
        for counters in [watch_a_shard(busy), watch_a_shard(in_application)] {
            assert_eq!(counters.get(Counter::WakeupsLost), 0);
        }
    }

    #[test]
    fn a_shard_may_doze_until_something_has_waited_from_one_check_to_the_next() {
        let bell = Arc::<Doorbell>::default();
        let mut watch = Watch::new((Arc::default(), bell.clone()));
        assert!(!watch.may_doze(), "it is awake");
        for _ in 0..2 {
            assert!(bell.begin_sleep(false));
            assert_eq!([(); 3].map(|()| watch.may_doze()), [true; 3]);
            bell.ring();
            assert_eq!([(); 3].map(|()| watch.may_doze()), [true, false, false]);
            bell.end_sleep();
            assert!(!watch.may_doze(), "it is awake");
        }
    }

    const fn stalled(looks: u32) -> Seen {
        Seen::Stalled {
            begins: looks == LOOKS_MIN,
            since: Duration::from_millis(250 * looks as u64),
        }
    }

    #[test]
    fn a_stall_is_told_at_doubling_distances_and_then_that_it_is_over() {
        let mut ticks = Ticks::default();
        assert_eq!(ticks.look(Some(7), false), Seen::Fine);
        let seen: Vec<Seen> = (0..20).map(|_| ticks.look(Some(7), false)).collect();
        for (looks, seen) in (1..).zip(seen) {
            match looks {
                2 | 4 | 8 | 16 => assert_eq!(seen, stalled(looks)),
                _ => assert_eq!(seen, Seen::Fine),
            }
        }
        let after = 20 * LOOK;
        assert_eq!(ticks.look(Some(8), false), Seen::TicksAgain { after });
        assert_eq!(ticks.look(Some(9), false), Seen::Fine);
        // The next stall is a new one.
        assert_eq!(ticks.look(Some(9), false), Seen::Fine);
        assert_eq!(ticks.look(Some(9), false), stalled(2));
    }

    #[test]
    fn one_late_tick_is_no_stall_and_a_shard_that_dozes_or_has_ended_has_none() {
        let mut ticks = Ticks::default();
        for tick in 1..50 {
            assert_eq!(ticks.look(Some(tick), false), Seen::Fine);
            assert_eq!(ticks.look(Some(tick), false), Seen::Fine);
        }
        assert!((0..50).all(|_| ticks.look(Some(50), true) == Seen::Fine));
        assert!((0..50).all(|_| ticks.look(None, false) == Seen::Fine));
    }

    #[test]
    fn a_shard_that_never_ticks_is_told_too_and_so_is_its_end() {
        let mut ticks = Ticks::default();
        assert_eq!(ticks.look(None, false), Seen::Fine);
        assert_eq!(ticks.look(Some(0), false), Seen::Fine);
        assert_eq!(ticks.look(Some(0), false), Seen::Fine);
        assert_eq!(ticks.look(Some(0), false), stalled(2));
        let after = 2 * LOOK;
        assert_eq!(ticks.look(None, false), Seen::TicksAgain { after });
    }
}
