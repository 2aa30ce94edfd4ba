//! A shard's time: the tick, and what handlers and filters ask of it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Shard;
use super::pulse::Work;
use crate::handler::clock::{Alarms, Clock};
use crate::metrics::Counter;
use crate::net::poller::Poller;
use crate::net::{Network, clock};

/// Longest distance between two looks at the clock.
const TICK: Duration = Duration::from_millis(50);

/// Looks at the clock, until the shard ends.
pub(super) async fn tick(shard: Rc<Shard>) {
    let mut due = Vec::new();
    let mut events = Poller::room();
    loop {
        clock::sleep(TICK).await;
        shard.pulse.tick();
        if let Network::Kernel(poller) = &shard.network {
            poller.look(&mut events);
        }
        let now = clock::now();
        shard.late.set(shard.overdue(now));
        shard.now.set(now);
        shard.wheel.borrow_mut().turn(now, &mut due);
        for sid in due.drain(..) {
            shard.look_at(sid, now);
        }
        shard.ring_alarms(now);
        shard.expire_calls(now);
        shard.ping_links(now);
        shard.tick_master(now);
        shard.turn.request();
    }
}

impl Shard {
    /// By how much the next tick is late.
    fn overdue(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.now.get() + TICK)
    }

    /// Makes the calls whose time has come. A panic there must not end the shard.
    fn ring_alarms(&self, now: Instant) {
        while let Some(call) = self.alarms.due(now) {
            if self.pulse.call(Work::Alarm, call).is_err() {
                self.counters().add(Counter::Panics, 1);
                tracing::error!("a call that was put off panicked");
            }
        }
    }
}

impl Clock for Shard {
    fn now(&self) -> Instant {
        clock::now()
    }

    fn wall_clock(&self) -> jiff::Zoned {
        clock::wall_clock()
    }

    fn lag(&self) -> Duration {
        self.late.get().max(self.overdue(clock::now()))
    }

    fn alarms(&self) -> &Alarms {
        &self.alarms
    }
}
