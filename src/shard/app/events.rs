//! Events of sessions that wait for the handlers of the application.

use std::collections::VecDeque;
use std::rc::Rc;

use super::Application;
use super::activity::Work;
use crate::error::Panic;
use crate::handler::{Session, SessionEvent, ShardContext};
use crate::ids::Sid;
use crate::limits::EVENTS_PENDING_MAX;
use crate::metrics::Counter;
use crate::session::Identity;
use crate::shard::Core;

/// An event, its session, and the identity of the session at that time.
type Event = (Sid, Rc<Identity>, SessionEvent);

/// PendingEvents that wait because the handlers of an earlier one have not returned.
///
/// Bound: [`EVENTS_PENDING_MAX`].
#[derive(Debug, Default)]
pub(super) struct PendingEvents {
    pending: VecDeque<Event>,
    /// Somebody takes events off the queue until it is empty.
    draining: bool,
}

impl PendingEvents {
    /// Appends an event. Over the bound it drops the oldest one, and returns false.
    fn push(&mut self, event: Event) -> bool {
        let fits = self.pending.len() < EVENTS_PENDING_MAX;
        if !fits {
            self.pending.pop_front();
        }
        self.pending.push_back(event);
        debug_assert!(self.pending.len() <= EVENTS_PENDING_MAX);
        fits
    }

    /// Takes the oldest event. Without one the draining ends.
    fn next(&mut self) -> Option<Event> {
        debug_assert!(self.draining, "only the one who drains takes events");
        let next = self.pending.pop_front();
        self.draining = next.is_some();
        next
    }
}

impl Application {
    /// Calls the handlers that want an event of a session. A panic there must not end the shard. The handlers may
    /// cause further events, which wait until they return: a recursion here would have no bound.
    pub(in crate::shard) fn notify_handlers(
        &self,
        core: &Core,
        context: &Rc<dyn ShardContext>,
        sid: Sid,
        identity: Rc<Identity>,
        event: SessionEvent,
    ) {
        {
            let mut events = self.events.borrow_mut();
            if !events.push((sid, identity, event)) {
                core.counters().add(Counter::EventsDropped, 1);
            }
            if std::mem::replace(&mut events.draining, true) {
                return;
            }
        }
        loop {
            let next = self.events.borrow_mut().next();
            let Some((sid, identity, event)) = next else {
                return;
            };
            let session = Session::new(sid, identity, context.clone());
            let notify = || self.router.happened(&session, &event);
            if self.activity.call(Work::SessionEvent, notify).is_err() {
                context.clone().panicked(
                    Panic::of("a handler of a session's events")
                        .with_name(&format!("{event:?}"))
                        .with_session(sid),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    #[test]
    fn an_event_over_the_bound_takes_the_place_of_the_oldest_one() {
        let mut events = PendingEvents::default();
        let event = |slot: usize| {
            let sid = Sid::new(ShardId(0), slot as u32, 1);
            (sid, Rc::default(), SessionEvent::Close)
        };
        for slot in 0..EVENTS_PENDING_MAX {
            assert!(events.push(event(slot)));
        }
        assert!(!events.push(event(0)));
        assert_eq!(events.pending.len(), EVENTS_PENDING_MAX);
        assert_eq!(events.pending.front().map(|(sid, ..)| sid.slot()), Some(1));
    }
}
