//! What handlers and filters know of time, told by their shard.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use jiff::Zoned;

/// The time of a shard.
pub trait Clock {
    /// Now.
    fn now(&self) -> Instant;
    /// What clocks on the wall show now, where this server is. Unlike [`now`](Self::now) it may be set.
    fn wall_clock(&self) -> Zoned;
    /// How late the shard is with what it does at fixed times: what a message waits at least.
    fn lag(&self) -> Duration;
    /// What is to be done later.
    fn alarms(&self) -> &Alarms;
}

type Call = Box<dyn FnOnce()>;
type Table = RefCell<BTreeMap<(Instant, u64), Call>>;

/// Calls put off to a later time; the shard makes them, up to 50 ms late.
///
/// Bound: who sets one holds an [`Alarm`], so there are no more than messages in flight have filters,
/// and calls of peers are in progress.
#[derive(Default)]
pub struct Alarms {
    table: Rc<Table>,
    last: Cell<u64>,
}

impl Alarms {
    /// Puts a call off. It is not made when the alarm is dropped before.
    pub fn set(&self, at: Instant, call: impl FnOnce() + 'static) -> Alarm {
        self.last.set(self.last.get() + 1);
        let key = (at, self.last.get());
        self.table.borrow_mut().insert(key, Box::new(call));
        Alarm {
            key,
            table: Rc::downgrade(&self.table),
        }
    }

    /// Takes a call whose time has come. It may set further alarms.
    pub fn due(&self, now: Instant) -> Option<Call> {
        let mut table = self.table.borrow_mut();
        let first = table.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// True when no call is put off.
    pub fn is_empty(&self) -> bool {
        self.table.borrow().is_empty()
    }
}

/// A call that is put off.
#[must_use = "dropping it calls it off"]
#[derive(Debug)]
pub struct Alarm {
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
            alarms.set(at, move || rung.borrow_mut().push(name))
        };
        let ring = |milliseconds| {
            while let Some(call) = alarms.due(start + Duration::from_millis(milliseconds)) {
                call();
            }
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
}
