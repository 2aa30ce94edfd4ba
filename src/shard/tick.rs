//! A shard's time: the tick, and the deadlines that it checks.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::peers::registry;
use super::{Core, Shard, latest};
use crate::handler::Slot;
use crate::handler::clock::{Alarm, DelayedCall};
use crate::ids::Sid;
use crate::metrics::Counter;
use crate::net::{Network, clock};
use crate::time::{ShardTime, TICK};

/// Looks at the clock, until the shard ends.
///
/// A shard without any deadline does not tick. It sleeps until something wakes it, and then ticks before it does
/// anything else.
pub(super) async fn run(shard: Rc<Shard>) {
    let mut due = Vec::new();
    loop {
        clock::sleep(TICK).await;
        tick(&shard, &mut due);
        if let Network::Kernel(poller) = &shard.core.network
            && !has_deadline(&shard)
        {
            if poller.doze().await {
                shard.core.restart_time();
            }
            tick(&shard, &mut due);
        }
    }
}

/// Acts on the deadlines that have passed. `due` is empty before and after.
fn tick(shard: &Rc<Shard>, due: &mut Vec<Sid>) {
    let (core, app, peers) = (&shard.core, &shard.app, &shard.peers);
    app.tick();
    latest::follow(shard);
    let now = clock::now();
    let time = core.advance_time(now);
    shard.clients.take_due(time, due);
    for sid in due.drain(..) {
        shard.check_timeouts(sid, time);
    }
    shard.ring_alarms(&core.alarms, ShardTime::new(now));
    shard.ring_alarms(&core.timeouts, time);
    shard.expire_calls(peers.expire_calls(core, time));
    for fault in peers.ping_links(core, time) {
        shard.react(fault);
    }
    shard.list_sessions();
    registry::tick(shard, time);
    shard.look_at_memory();
    core.give_memory_back(time);
    core.turn.request();
}

/// Returns true if something in a shard waits for a tick.
pub(super) fn has_deadline(shard: &Shard) -> bool {
    let Shard {
        core,
        clients,
        peers,
        app,
        coordinator: _,
    } = shard;
    core.has_deadline() || clients.has_deadline() || peers.has_deadline(core) || app.has_deadline()
}

impl Core {
    /// Returns true if a delayed call is pending, or a batch for another shard found no room.
    fn has_deadline(&self) -> bool {
        !self.alarms.is_empty()
            || !self.timeouts.is_empty()
            || self.mesh.borrow().has_waiting()
            || self.memory_needs_ticks()
    }

    /// Sets the time of the shard to the clock, after a sleep in which nothing had a deadline.
    fn restart_time(&self) {
        let now = clock::now();
        self.time.set(ShardTime::new(now));
        self.ticked.set(now);
    }

    /// Advances the time of the shard to this tick; reports a pause that ends here.
    fn advance_time(&self, now: Instant) -> ShardTime {
        let elapsed = now.saturating_duration_since(self.ticked.replace(now));
        self.late.set(elapsed.saturating_sub(TICK));
        let mut time = self.time.get();
        if let Some(pause) = time.advance(elapsed) {
            self.counters().add(Counter::Pauses, 1);
            tracing::warn!(
                "shard {} was paused for {:.1} s: its process or machine was stopped, other processes \
                 used its core, or a handler blocked it; deadlines start again",
                self.id.0,
                pause.as_secs_f64()
            );
        }
        self.time.set(time);
        time
    }

    /// Returns by how much the next tick is late, or the last one was.
    pub(super) fn lag(&self) -> Duration {
        let next_tick = self.ticked.get() + TICK;
        let overdue = clock::now().saturating_duration_since(next_tick);
        self.late.get().max(overdue)
    }

    /// Makes a call when `timeout` has passed; a pause does not count.
    pub(super) fn call_at_timeout(&self, timeout: Duration, call: DelayedCall) -> Alarm {
        let mut time = self.time.get();
        // The clock is more exact than the time of the last tick.
        time.advance(clock::now().saturating_duration_since(self.ticked.get()));
        self.timeouts.set(time.now + timeout, timeout, call)
    }

    /// Waits until a timeout has passed; a pause does not count.
    pub(super) async fn timeout(&self, timeout: Duration) {
        let slot = Rc::new(Slot::default());
        let passed = slot.clone();
        let _alarm = self.call_at_timeout(timeout, Box::new(move || passed.put(())));
        slot.take().await;
    }
}
