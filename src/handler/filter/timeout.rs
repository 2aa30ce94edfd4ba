//! Reports messages that take too long.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::{Filter, Step};
use crate::handler::clock::Alarm;
use crate::handler::{Incoming, Outcome};
use crate::metrics::Counter;

/// Logs and counts a message that takes too long. Its response does not change.
///
/// Bound: at most `pending_max` messages are watched at a time, late ones included until they end; more
/// are only counted.
///
/// Source: `filters/handler/timeout.js`
pub struct Timeout {
    after: Duration,
    pending_max: usize,
    pending: Rc<Cell<usize>>,
}

/// Watches messages. Pomelo: `pomelo.filters.timeout(after, pending_max)`, 3 s and 500 by default.
pub fn timeout(after: Duration, pending_max: usize) -> Timeout {
    Timeout {
        after,
        pending_max,
        pending: Rc::default(),
    }
}

impl Filter for Timeout {
    type Mark = Option<Watch>;

    fn before(&self, incoming: &Rc<Incoming>) -> Step<Result<Option<Watch>, Outcome<'static>>> {
        let context = incoming.session.context();
        let pending = self.pending.get();
        // As in Pomelo, one more than the limit is watched.
        if pending > self.pending_max {
            context.count(Counter::TimeoutsUnwatched);
            tracing::warn!(
                "timeout filter is out of range, current size is {pending}, max size is {}",
                self.pending_max
            );
            return Step::Ready(Ok(None));
        }
        self.pending.set(pending + 1);
        let late = Rc::downgrade(incoming);
        let call = move || {
            let Some(late) = late.upgrade() else { return };
            late.session.context().count(Counter::TimeoutsLate);
            tracing::error!(session = %late.session.id(), "request {:?} timeout.", late.route);
        };
        let alarm = context.call_at_timeout(self.after, Box::new(call));
        Step::Ready(Ok(Some(Watch {
            _alarm: alarm,
            pending: self.pending.clone(),
        })))
    }
}

/// A watched message. Dropping it ends the watch.
pub struct Watch {
    _alarm: Alarm,
    pending: Rc<Cell<usize>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.pending.set(self.pending.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{World, answer};
    use super::*;

    fn world(pending_max: usize) -> World {
        let filter = timeout(Duration::from_millis(200), pending_max);
        World::new(|filters| filters.filter(filter))
    }

    #[test]
    fn a_late_message_is_counted_and_answered_as_any_other() {
        let world = world(500);
        world.send(1, 1);
        world.send(1, 2);
        world.finish(1, "{}");
        world.pass(200);
        assert_eq!(world.counted(Counter::TimeoutsLate), 1);
        world.finish(2, r#"{"a":1}"#);
        assert_eq!(world.answers(), [answer(1, "{}"), answer(2, r#"{"a":1}"#)]);
        assert!(world.is_idle());
    }

    #[test]
    fn those_beyond_the_bound_are_not_watched() {
        let world = world(1);
        for id in 1..=4 {
            world.send(1, id);
        }
        assert_eq!(world.counted(Counter::TimeoutsUnwatched), 2);
        world.pass(200);
        assert_eq!(world.counted(Counter::TimeoutsLate), 2);
        // A late message keeps its place until it ends.
        world.send(1, 5);
        assert_eq!(world.counted(Counter::TimeoutsUnwatched), 3);
        world.finish(1, "{}");
        world.send(1, 6);
        assert_eq!(world.counted(Counter::TimeoutsUnwatched), 3);
        (2..=6).for_each(|id| world.finish(id, "{}"));
        assert!(world.is_idle());
        assert_eq!(world.answers().len(), 6);
    }
}
