//! A shard's time: the tick, and what handlers and filters ask of it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Shard;
use super::app::activity::Work;
use crate::handler::clock::{Alarm, Alarms, Clock, DelayedCall};
use crate::handler::filter::Slot;
use crate::metrics::Counter;
use crate::net::poller::Poller;
use crate::net::{Network, clock};
use crate::time::{ShardTime, TICK};

/// Looks at the clock, until the shard ends.
pub(super) async fn run(shard: Rc<Shard>) {
    let mut due = Vec::new();
    let mut events = Poller::room();
    loop {
        clock::sleep(TICK).await;
        shard.app.activity.tick();
        if let Network::Kernel(poller) = &shard.core.network {
            poller.look(&mut events);
        }
        let now = clock::now();
        let time = shard.advance_time(now);
        shard.clients.wheel.borrow_mut().turn(time.now, &mut due);
        for sid in due.drain(..) {
            shard.look_at(sid, time);
        }
        shard.ring_alarms(&shard.app.alarms, ShardTime::new(now));
        shard.ring_alarms(&shard.app.timeouts, time);
        shard.expire_calls(time);
        shard.ping_links(time);
        shard.tick_master(time);
        shard.core.turn.request();
    }
}

impl Shard {
    /// Advances the time of the shard to this tick; reports a pause that ends here.
    fn advance_time(&self, now: Instant) -> ShardTime {
        let elapsed = now.saturating_duration_since(self.core.ticked.replace(now));
        self.core.late.set(elapsed.saturating_sub(TICK));
        let mut time = self.core.time.get();
        if let Some(pause) = time.advance(elapsed) {
            self.counters().add(Counter::Pauses, 1);
            tracing::warn!(
                "shard {} was paused for {:.1} s: its process or machine was stopped, other processes \
                 used its core, or a handler blocked it; deadlines start again",
                self.core.id.0,
                pause.as_secs_f64()
            );
        }
        self.core.time.set(time);
        time
    }

    /// Makes the calls whose time has come. A panic there must not end the shard.
    fn ring_alarms(&self, alarms: &Alarms, time: ShardTime) {
        alarms.ring(time, |call| {
            if self.app.activity.call(Work::Alarm, call).is_err() {
                self.counters().add(Counter::Panics, 1);
                tracing::error!("a call that was put off panicked");
            }
        });
    }

    /// Waits until a timeout has passed; a pause does not count.
    pub(super) async fn timeout(&self, timeout: Duration) {
        let slot = Rc::new(Slot::default());
        let passed = slot.clone();
        let _alarm = self.call_at_timeout(timeout, Box::new(move || passed.put(())));
        slot.take().await;
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
        let next_tick = self.core.ticked.get() + TICK;
        let overdue = clock::now().saturating_duration_since(next_tick);
        self.core.late.get().max(overdue)
    }

    fn call_after(&self, wait: Duration, call: DelayedCall) -> Alarm {
        self.app
            .alarms
            .set(clock::now() + wait, Duration::ZERO, call)
    }

    fn call_at_timeout(&self, timeout: Duration, call: DelayedCall) -> Alarm {
        let mut time = self.core.time.get();
        // The clock is more exact than the time of the last tick.
        time.advance(clock::now().saturating_duration_since(self.core.ticked.get()));
        self.app.timeouts.set(time.now + timeout, timeout, call)
    }
}
