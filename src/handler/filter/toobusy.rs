//! Refuses messages while the shard is overloaded.

use std::rc::Rc;
use std::time::Duration;

use super::{Filter, Step};
use crate::handler::{Incoming, Outcome};
use crate::metrics::Counter;

/// Refuses a message while the timers of its shard are later than a limit: the client gets code 500,
/// and the refusal is counted.
///
/// Source: `filters/handler/toobusy.js`. Its library refuses at random, by an average over half
/// seconds. This filter refuses at once, and only while the shard is late.
pub struct Toobusy {
    lag_max: Duration,
}

/// Refuses messages while the shard is more than `lag_max` late. Pomelo:
/// `pomelo.filters.toobusy(maxLag)`, 70 ms by default.
pub fn toobusy(lag_max: Duration) -> Toobusy {
    Toobusy { lag_max }
}

impl Filter for Toobusy {
    type Mark = ();

    fn before(&self, incoming: &Rc<Incoming>) -> Step<Result<(), Outcome<'static>>> {
        let context = incoming.session.context();
        if context.lag() <= self.lag_max {
            return Step::Ready(Ok(()));
        }
        context.count(Counter::ToobusyRefused);
        Step::Ready(Err(Outcome::error("Server toobusy!")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{World, answer};
    use super::*;

    #[test]
    fn messages_are_refused_while_the_shard_is_late() {
        let filter = toobusy(Duration::from_millis(70));
        let world = World::new(|filters| filters.global_filter(filter));
        let lag = |milliseconds| {
            let lag = Duration::from_millis(milliseconds);
            world.context.lag.set(lag);
        };
        lag(70);
        world.send(1, 1);
        lag(71);
        world.send(1, 2);
        lag(0);
        world.send(1, 3);
        assert_eq!(world.handled(), [1, 3]);
        assert_eq!(world.answers(), [answer(2, r#"{"code":500}"#)]);
        assert_eq!(world.counted(Counter::ToobusyRefused), 1);
    }
}
