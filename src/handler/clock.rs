//! What handlers and filters know of time, told by their shard.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use jiff::Zoned;

use crate::time::ShardTime;

/// The time of a shard.
pub(crate) trait Clock {
    /// Now.
    fn now(&self) -> Instant;
    /// What clocks on the wall show now, where this server is. Unlike [`now`](Self::now) it may be set.
    fn wall_clock(&self) -> Zoned;
    /// How late the shard is with what it does at fixed times: what a message waits at least.
    fn lag(&self) -> Duration;
    /// Makes a call when `wait` has passed by the clock; a pause of the shard counts.
    fn call_after(&self, wait: Duration, call: DelayedCall) -> Alarm;
    /// Makes a call when `timeout` has passed by the time of the shard; a pause of the shard does not count.
    fn call_at_timeout(&self, timeout: Duration, call: DelayedCall) -> Alarm;
}

/// A call that is put off.
pub(crate) type DelayedCall = Box<dyn FnOnce()>;

type Key = (Instant, u64);
type Table = RefCell<BTreeMap<Key, (Duration, DelayedCall)>>;

/// Calls put off to a later time; the shard makes them, up to 50 ms late.
///
/// Bound: who sets one holds an [`Alarm`], so there are no more than messages in flight have filters,
/// and calls of peers are in progress.
#[derive(Default)]
pub(crate) struct Alarms {
    table: Rc<Table>,
    last: Cell<u64>,
}

impl Alarms {
    /// Schedules a call at `at`; a pause of the shard before puts it off until `grace` has passed.
    /// Dropping the alarm cancels the call.
    pub(crate) fn set(&self, at: Instant, grace: Duration, call: DelayedCall) -> Alarm {
        self.last.set(self.last.get() + 1);
        let key = (at, self.last.get());
        self.table.borrow_mut().insert(key, (grace, call));
        Alarm {
            key,
            table: Rc::downgrade(&self.table),
        }
    }

    /// Makes the calls that are due, through `make`. A call may schedule and cancel others; `ring` makes a
    /// new one when it is called again, or later.
    ///
    /// Cost: one check for each call whose time has passed, also for one that a pause has put off.
    pub(crate) fn ring(&self, time: ShardTime, make: impl Fn(DelayedCall)) {
        let table = self.table.borrow();
        let passed = table.range(..=(time.now, u64::MAX));
        let due: Vec<Key> = passed
            .filter(|((at, _), (grace, _))| time.is_over(*at, *grace))
            .map(|(key, _)| *key)
            .collect();
        drop(table);
        for key in due {
            let call = self.table.borrow_mut().remove(&key);
            if let Some((_, call)) = call {
                make(call);
            }
        }
    }

    /// True when no call is put off.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.table.borrow().is_empty()
    }
}

/// A call that is put off.
#[must_use = "dropping it calls it off"]
#[derive(Debug)]
pub(crate) struct Alarm {
    key: (Instant, u64),
    table: Weak<Table>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            let call = table.borrow_mut().remove(&self.key);
            // What it holds may call off another one.
            drop(call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn calls_are_made_in_the_order_of_their_times_unless_called_off() {
        let (alarms, start) = (Alarms::default(), Instant::now());
        let rung = Rc::new(RefCell::new(Vec::new()));
        let set = |milliseconds, name| {
            let rung = rung.clone();
            let at = start + Duration::from_millis(milliseconds);
            let call = Box::new(move || rung.borrow_mut().push(name));
            alarms.set(at, Duration::ZERO, call)
        };
        let ring = |milliseconds| {
            let now = start + Duration::from_millis(milliseconds);
            alarms.ring(ShardTime::new(now), |call| call());
        };
        let _kept = [set(20, "third"), set(10, "first"), set(10, "second")];
        drop(set(5, "called off"));
        ring(9);
        assert!(rung.borrow().is_empty());
        ring(10);
        assert_eq!(*rung.borrow(), ["first", "second"]);
        ring(30);
        assert_eq!(*rung.borrow(), ["first", "second", "third"]);
        assert!(alarms.is_empty());
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_call_that_a_call_cancels_is_not_made() {
        let (alarms, start) = (Alarms::default(), Instant::now());
        let other = Rc::new(RefCell::new(None));
        let cancelled = other.clone();
        let cancel = Box::new(move || drop(cancelled.take()));
        let _first = alarms.set(start, Duration::ZERO, cancel);
        let second = alarms.set(start, Duration::ZERO, Box::new(|| panic!("cancelled")));
        *other.borrow_mut() = Some(second);
        alarms.ring(ShardTime::new(start), |call| call());
        assert!(alarms.is_empty());
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn after_a_pause_each_call_waits_for_its_own_grace() {
        const SECOND: Duration = Duration::from_secs(1);
        let (alarms, start) = (Alarms::default(), Instant::now());
        let rung = Rc::new(RefCell::new(Vec::new()));
        let _kept = [(3, 3), (1, 1), (2, 0)].map(|(at, grace)| {
            let rung = rung.clone();
            let call = Box::new(move || rung.borrow_mut().push(grace));
            alarms.set(start + at * SECOND, grace * SECOND, call)
        });
        let mut time = ShardTime::new(start + SECOND - Duration::from_millis(1));
        assert!(time.advance(8 * SECOND).is_some());
        for (passed, expected) in [(0, &[][..]), (1, &[1, 0]), (2, &[1, 0]), (3, &[1, 0, 3])] {
            let mut time = time;
            time.now += passed * SECOND;
            alarms.ring(time, |call| call());
            assert_eq!(*rung.borrow(), expected, "{passed} s");
        }
    }
}
