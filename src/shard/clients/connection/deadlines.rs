//! The deadlines of a connection: until when its client must do the next step, and the pauses that put them off.

use std::time::{Duration, Instant};

use super::{Clients, Connection};
use crate::client::ClientState;
use crate::client::heartbeat::{Deadlines, Timeouts, Unit, earliest};
use crate::client::rate::{RateVerdict, ReadRate, Used};
use crate::client::transport::Transport;
use crate::error::CloseReason;
use crate::ids::Sid;
use crate::metrics::Counter;
use crate::shard::Core;
use crate::time::ShardTime;
use crate::wire::package;

impl Connection {
    /// Returns the earliest of its deadlines, and the reason to close that it stands for.
    pub(super) fn due(
        &self,
        timeouts: &Timeouts,
        time: ShardTime,
    ) -> Option<(Instant, CloseReason)> {
        let (transport, state) = (self.client.transport(), self.state());
        let Deadlines {
            step,
            heartbeat,
            idle,
        } = self.deadlines;
        let first = [
            (step, timeouts.step(transport, state)),
            (heartbeat, timeouts.heartbeat()),
            (idle, timeouts.idle(transport)),
        ];
        if state == ClientState::Closed {
            return earliest(first, time);
        }
        let unit = self.extras.as_ref().and_then(|extras| extras.unit);
        let bytes = unit.map_or(0, |unit| unit.bytes);
        let unit = (unit.map(|unit| unit.since), timeouts.unit(transport, bytes));
        let write = (
            self.outbox.progress(),
            timeouts.write(state, self.outbox.bytes()),
        );
        let ends = [unit, write].map(|(since, limit)| {
            let end = since.zip(limit).map(|(since, (time, _))| since + time);
            (end, limit)
        });
        earliest(first.into_iter().chain(ends), time)
    }

    /// Returns the reason to close it, where one of its deadlines has passed.
    fn expired(&self, timeouts: &Timeouts, time: ShardTime) -> Option<CloseReason> {
        let due = self.due(timeouts, time);
        due.filter(|(at, _)| *at <= time.now)
            .map(|(_, reason)| reason)
    }

    /// Begins the time for the next step of the client. A working one that was bound before has no further step.
    pub(super) fn begin_step(&mut self, timeouts: &Timeouts, now: Instant) {
        let is_last = self.state() == ClientState::Working && self.is_bound();
        let limit = timeouts.step(self.client.transport(), self.state());
        self.deadlines.step = limit.filter(|_| !is_last).map(|(time, _)| now + time);
    }

    /// Begins the time of a write: again while few bytes wait, and for bytes that came when none waited, but the socket still
    /// counted as full. The wheel looks about once a second.
    fn note_short_wait(&mut self, timeouts: &Timeouts, now: Instant) {
        let is_short = timeouts.write(self.state(), self.outbox.bytes()).is_none();
        if is_short || self.outbox.progress().is_none() {
            self.outbox.note_progress(now);
        }
    }

    /// Begins the idle time again, if there is one.
    #[inline]
    pub(super) fn restart_idle(&mut self, timeouts: &Timeouts, now: Instant) {
        if self.deadlines.idle.is_some() {
            let limit = timeouts.idle(self.client.transport());
            self.deadlines.idle = limit.map(|(time, _)| now + time);
        }
    }

    /// Begins the time of a package or message whose last bytes are missing, or learns its length.
    #[cold]
    pub(super) fn wait_for_rest(
        &mut self,
        timeouts: &Timeouts,
        now: Instant,
        units: usize,
        rest: &[u8],
    ) {
        if timeouts.unit(self.client.transport(), 0).is_none() {
            return;
        }
        let has_begun = self.client.has_begun(units);
        let bytes = self.client.announced_bytes(rest);
        let unit = &mut self.extras().unit;
        let since = unit.filter(|_| !has_begun).map_or(now, |unit| unit.since);
        *unit = Some(Unit { since, bytes });
    }

    /// Notes that a session stays within its rate.
    #[inline]
    pub(super) fn calm_down(&mut self, used: Used) -> RateVerdict {
        if used.is_calm
            && let Some(extras) = &mut self.extras
        {
            extras.over_since = None;
        }
        RateVerdict::Within
    }

    /// Pauses the reader of a session that is over its rate. Nobody is late because of the pause.
    #[cold]
    pub(super) fn slow_down(
        &mut self,
        core: &Core,
        rate: &ReadRate,
        used: Used,
        now: Instant,
    ) -> RateVerdict {
        if self.state() == ClientState::Closed {
            return RateVerdict::Within;
        }
        let over_since = &mut self.extras().over_since;
        if used.is_calm {
            *over_since = None;
        }
        let over_since = *over_since.get_or_insert(now);
        if rate.is_excess(now.saturating_duration_since(over_since)) {
            return RateVerdict::Excess(CloseReason::Rate);
        }
        core.counters().add(Counter::RatePauses, 1);
        let pause = rate.pause(used);
        self.put_off(pause);
        RateVerdict::Pause(pause)
    }

    /// Puts the deadlines of its bytes off by a pause of its reader.
    pub(super) fn put_off(&mut self, pause: Duration) {
        let Deadlines {
            heartbeat, idle, ..
        } = &mut self.deadlines;
        let unit = self.extras.as_mut().and_then(|extras| extras.unit.as_mut());
        let ends = [
            heartbeat.as_mut(),
            idle.as_mut(),
            unit.map(|unit| &mut unit.since),
        ];
        ends.into_iter().flatten().for_each(|end| *end += pause);
    }

    /// Puts the deadline of its next step off by a pause of its reader.
    pub(super) fn put_off_step(&mut self, pause: Duration) {
        if let Some(step) = &mut self.deadlines.step {
            *step += pause;
        }
    }
}

impl Clients {
    /// Begins the times of a connection, whose client may send its first byte now.
    pub(in crate::shard::clients) fn begin(&self, core: &Core, sid: Sid) {
        let now = core.time.get().now;
        self.connection(sid, |connection| {
            connection.begin_step(&self.timeouts, now);
            let idle = self.timeouts.idle(connection.client.transport());
            connection.deadlines.idle = idle.map(|(time, _)| now + time);
            self.watch(core, sid, connection);
        });
    }

    /// Stops the time of the next step: the gateway or its application owes it.
    pub(in crate::shard) fn owe_step(&self, sid: Sid) {
        self.connection(sid, |connection| connection.deadlines.step = None);
    }

    /// Begins the time of a client that has acknowledged its handshake.
    pub(in crate::shard) fn acked(&self, core: &Core, sid: Sid) {
        self.connection(sid, |connection| {
            connection.begin_step(&self.timeouts, core.time.get().now);
            self.watch(core, sid, connection);
        });
    }

    /// Puts a connection with a deadline into the wheel, and one that takes no bytes: as soon as many of them wait, it has one.
    pub(super) fn watch(&self, core: &Core, sid: Sid, connection: &mut Connection) {
        debug_assert_eq!(sid.shard(), core.id);
        if connection.in_wheel {
            return;
        }
        let time = core.time.get();
        let due = connection.due(&self.timeouts, time).map(|(at, _)| at);
        let write = self.timeouts.write.filter(|_| connection.outbox.blocked);
        if let Some(at) = due.or_else(|| Some(time.now + write?)) {
            let at = match connection.client.transport() {
                // With the header of a proxy the deadline may move nearer, to the time of its client.
                Transport::Proxied => at.min(time.now + self.timeouts.idle),
                _ => at,
            };
            connection.in_wheel = true;
            self.wheel.borrow_mut().insert(sid, at);
        }
    }

    /// Returns true if a client has a deadline.
    pub(in crate::shard) fn has_deadline(&self) -> bool {
        !self.wheel.borrow().is_empty()
    }

    /// Takes the sessions whose deadlines are to be checked now.
    pub(in crate::shard) fn take_due(&self, time: ShardTime, due: &mut Vec<Sid>) {
        self.wheel.borrow_mut().turn(time.now, due);
    }

    /// Checks the deadlines of a connection; returns the reason to close of one that has passed.
    pub(in crate::shard) fn check_timeouts(
        &self,
        core: &Core,
        sid: Sid,
        time: ShardTime,
    ) -> Option<CloseReason> {
        let expired = self.connection(sid, |connection| {
            debug_assert!(connection.in_wheel, "the wheel has given it back");
            connection.in_wheel = false;
            connection.note_short_wait(&self.timeouts, time.now);
            let mut expired = connection.expired(&self.timeouts, time);
            // The kernel tells of room only when a third of its buffer is free, and a slow reader makes less than that.
            if expired == Some(CloseReason::WriteTimeout)
                && core.write_some(&mut connection.outbox, &connection.socket)
            {
                connection.outbox.note_progress(time.now);
                if !connection.outbox.has_wire_bytes() && connection.state() == ClientState::WaitAck
                {
                    self.wrote_all(core, sid, connection);
                }
                expired = connection.expired(&self.timeouts, time);
            }
            if expired.is_none() {
                self.watch(core, sid, connection);
            } else if connection.state() == ClientState::Closed {
                // It had its time to read the last bytes.
                connection.socket.break_off();
                return None;
            }
            expired
        });
        expired.flatten()
    }

    /// Sets the deadline of the next heartbeat, and sends one. Heartbeats must be on.
    pub(in crate::shard) fn heartbeat(&self, core: &Core, sid: Sid) {
        let Some(timeout) = self.timeouts.heartbeat else {
            return;
        };
        self.control(core, sid, package::PackageKind::Heartbeat, b"");
        self.connection(sid, |connection| {
            connection.deadlines.heartbeat = Some(core.time.get().now + timeout);
            self.watch(core, sid, connection);
        });
    }

    /// Returns whether heartbeats are on.
    pub(in crate::shard) fn has_heartbeats(&self) -> bool {
        self.timeouts.heartbeat.is_some()
    }
}
