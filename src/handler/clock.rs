//! The time of a shard, for handlers and filters.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use jiff::Zoned;

use crate::time::ShardTime;

/// The clock of a shard.
pub(crate) trait Clock {
    /// Returns the present time.
    fn now(&self) -> Instant;
    /// Returns the local time of day. Unlike [`now`](Self::now), somebody may set this clock.
    fn wall_clock(&self) -> Zoned;
    /// Returns the lag of the shard: the delay of its timers, and so the shortest time that a message
    /// waits.
    fn lag(&self) -> Duration;
    /// Calls `call` after `wait` by the clock; a pause of the shard counts.
    fn call_after(&self, wait: Duration, call: DelayedCall) -> Alarm;
    /// Calls `call` after `timeout` by the [`ShardTime`]; a pause of the shard does not count.
    fn call_at_timeout(&self, timeout: Duration, call: DelayedCall) -> Alarm;
}

/// A delayed call.
pub(crate) type DelayedCall = Box<dyn FnOnce()>;

type Key = (Instant, u64);
type Table = RefCell<BTreeMap<Key, (Duration, DelayedCall)>>;

/// The delayed calls of a shard, which makes them up to 50 ms late.
///
/// Bound: each caller holds an [`Alarm`], so there are no more entries than filters of messages in
/// flight and calls of peers in progress.
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

    /// Passes each due call to `make`. A call may schedule and cancel others. A call that `ring` itself
    /// schedules waits at least until the next `ring`.
    ///
    /// Cost: one check for each call whose time has passed, also if a pause has delayed it.
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

    /// Returns true if no call is pending.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.borrow().is_empty()
    }
}

/// A delayed call that is still pending. Dropping it cancels the call.
#[must_use = "dropping it cancels the call"]
#[derive(Debug)]
pub(crate) struct Alarm {
    key: (Instant, u64),
    table: Weak<Table>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            let call = table.borrow_mut().remove(&self.key);
            // Dropped after the borrow, because the values it holds may cancel another alarm.
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
