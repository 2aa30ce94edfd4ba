//! Limits the messages per second of each session.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use foldhash::HashMap;

use super::{Filter, Step};
use crate::handler::{Incoming, Outcome};
use crate::ids::Sid;
use crate::metrics::Counter;

/// Refuses messages of a session that exceeds its rate: the client gets code 500, and the refusal is
/// counted.
///
/// A token bucket: each message takes one token. `per_second` tokens come back each second, up to
/// `burst`; a new session starts with `burst` tokens. A refused message takes none.
///
/// Bound: one bucket of 24 bytes per open session that has sent a message.
pub struct Rate {
    per_second: f64,
    burst: f64,
    buckets: RefCell<HashMap<Sid, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Passes `per_second` messages of each session, and up to `burst` at once. Pomelo has no such filter.
///
/// Messages that waited during a pause of the shard arrive together; the filter refuses those beyond `burst`.
pub fn rate(per_second: u32, burst: u32) -> Rate {
    Rate {
        per_second: per_second.into(),
        burst: burst.into(),
        buckets: RefCell::default(),
    }
}

impl Rate {
    fn take(&self, incoming: &Incoming) -> bool {
        let (session, now) = (&incoming.session, incoming.session.context().now());
        let mut buckets = self.buckets.borrow_mut();
        let bucket = match buckets.get_mut(&session.id()) {
            Some(bucket) => bucket,
            // The filter would not be notified of its end again.
            None if !session.is_open() => return true,
            None => buckets.entry(session.id()).or_insert(Bucket {
                tokens: self.burst,
                at: now,
            }),
        };
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        let refilled = (bucket.tokens + elapsed * self.per_second).min(self.burst);
        let takes = refilled >= 1.0;
        *bucket = Bucket {
            tokens: refilled - f64::from(u8::from(takes)),
            at: now,
        };
        takes
    }
}

impl Filter for Rate {
    type Mark = ();

    fn before(&self, incoming: &Rc<Incoming>) -> Step<Result<(), Outcome<'static>>> {
        if self.take(incoming) {
            return Step::Ready(Ok(()));
        }
        incoming.session.context().count(Counter::RateRefused);
        Step::Ready(Err(Outcome::error("too many messages")))
    }

    fn closed(&self, sid: Sid) {
        self.buckets.borrow_mut().remove(&sid);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{World, answer};
    use super::*;

    #[test]
    fn a_session_may_send_its_burst_and_then_its_rate() {
        let world = World::new(|filters| filters.global_filter(rate(10, 3)));
        (1..=4).for_each(|id| world.send(1, id));
        assert_eq!(world.handled(), [1, 2, 3]);
        assert_eq!(world.answers(), [answer(4, r#"{"code":500}"#)]);
        world.send(2, 5);
        world.pass(99);
        world.send(1, 6);
        world.pass(1);
        world.send(1, 7);
        world.send(1, 8);
        assert_eq!(
            world.handled(),
            [1, 2, 3, 5, 7],
            "another session has a limit of its own"
        );
        // A silent session does not collect more tokens than its burst.
        world.pass(3_600_000);
        (10..=14).for_each(|id| world.send(1, id));
        assert_eq!(world.handled()[5..], [10, 11, 12]);
        assert_eq!(world.counted(Counter::RateRefused), 5);
    }

    #[test]
    fn nothing_is_kept_of_a_closed_session() {
        let filter = Rc::new(rate(10, 3));
        let world = World::new(|filters| filters.filter(filter.clone()));
        world.send(1, 1);
        world.send(2, 2);
        assert_eq!(filter.buckets.borrow().len(), 2);
        world.close(1);
        assert_eq!(filter.buckets.borrow().len(), 1);
        // A message that arrives after its session has closed.
        world.send(1, 3);
        assert_eq!(world.handled(), [1, 2, 3]);
        assert_eq!(filter.buckets.borrow().len(), 1);
    }

    impl Filter for Rc<Rate> {
        type Mark = ();

        fn before(&self, incoming: &Rc<Incoming>) -> Step<Result<(), Outcome<'static>>> {
            (**self).before(incoming)
        }

        fn closed(&self, sid: Sid) {
            (**self).closed(sid);
        }
    }
}
