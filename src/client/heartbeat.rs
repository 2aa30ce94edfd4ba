//! Deadlines of clients, and the timer wheel that checks them.
//!
//! A shard has one wheel instead of a timer per session. A heartbeat only moves the deadline of its
//! session; the wheel notices this when it checks the session.

use std::time::{Duration, Instant};

use super::ClientState;
use super::transport::Transport;
use crate::config::Config;
use crate::error::CloseReason;
use crate::ids::Sid;
use crate::limits::PROXY_HEADER_TIMEOUT;
use crate::time::ShardTime;

/// Idle time of raw TCP when `client.timeout` is not set, as in the reference.
const IDLE_DEFAULT: Duration = Duration::from_secs(90);
/// Time of a closed connection: in it the client takes the last bytes, and closes its side.
pub const LINGER: Duration = Duration::from_secs(2);
/// Bytes of a package or message that get a second more than `client.package_timeout`.
const BYTES_PER_SECOND: usize = 16 << 10;
/// Waiting bytes of a working client for which `client.write_timeout` does not count.
const WAITING_BYTES_MIN: usize = 64 << 10;

/// A time, and the reason to close a client that needs longer.
pub type Limit = (Duration, CloseReason);

/// The times that a client has. `None`: no limit.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Time without a heartbeat; `None` if heartbeats are off.
    pub heartbeat: Option<Duration>,
    /// Time without a byte on raw TCP.
    pub idle: Duration,
    /// Time without a byte on a WebSocket.
    pub idle_websocket: Option<Duration>,
    /// Time from the accept to the first byte.
    pub first_byte: Option<Duration>,
    /// Time from the first byte to the end of an HTTP head.
    pub upgrade: Option<Duration>,
    /// Time from there to the whole handshake.
    pub handshake: Option<Duration>,
    /// Time from the reply to the acknowledgement.
    pub ack: Option<Duration>,
    /// Time from there to the bind of a uid.
    pub bind: Option<Duration>,
    /// Time for the bytes of a package or message, before what its length adds.
    pub package: Option<Duration>,
    /// Time in which the socket takes no byte.
    pub write: Option<Duration>,
}

impl Timeouts {
    /// Reads the limits from the client options. One option sets heartbeat and idle time, as in the reference.
    pub fn new(config: &Config) -> Self {
        let client = &config.client;
        Self {
            heartbeat: client
                .heartbeat
                .map(|interval| client.timeout.unwrap_or(2 * interval)),
            idle: client.timeout.unwrap_or(IDLE_DEFAULT),
            // Heartbeats find a silent WebSocket by themselves.
            idle_websocket: client
                .timeout
                .filter(|_| client.idle_websocket && client.heartbeat.is_none()),
            first_byte: client.first_byte_timeout,
            upgrade: client.upgrade_timeout,
            handshake: client.handshake_timeout,
            ack: client.ack_timeout,
            bind: client.bind_timeout,
            package: client.package_timeout,
            write: client.write_timeout,
        }
    }

    /// Returns the limit on the next step of a client. A proxy has a time of its own for its header, and the head of
    /// an HTTP request is limited as a [`Timeouts::unit`].
    pub fn step(&self, transport: Transport, state: ClientState) -> Option<Limit> {
        let (limit, reason) = match (state, transport) {
            (ClientState::Closed, _) => (Some(LINGER), CloseReason::Left),
            (ClientState::Working, _) => (self.bind, CloseReason::BindTimeout),
            (ClientState::WaitAck, _) => (self.ack, CloseReason::AckTimeout),
            (_, Transport::Proxied) => (Some(PROXY_HEADER_TIMEOUT), CloseReason::ProxyTimeout),
            (_, Transport::Undecided) => (self.first_byte, CloseReason::FirstByteTimeout),
            (_, Transport::Tls | Transport::Http) => return None,
            _ => (self.handshake, CloseReason::HandshakeTimeout),
        };
        Some((limit?, reason))
    }

    /// Returns the limit on the silence of a client. It begins behind the header of a proxy.
    pub fn idle(&self, transport: Transport) -> Option<Limit> {
        let limit = match transport {
            Transport::Proxied | Transport::Tls => return None,
            Transport::WebSocket => self.idle_websocket?,
            _ => self.idle,
        };
        Some((limit, CloseReason::IdleTimeout))
    }

    /// Returns the limit on the time between two heartbeats.
    pub fn heartbeat(&self) -> Option<Limit> {
        Some((self.heartbeat?, CloseReason::HeartbeatTimeout))
    }

    /// Returns the limit on the time for an HTTP head, or for a package or message that announces `bytes` bytes.
    pub fn unit(&self, transport: Transport, bytes: usize) -> Option<Limit> {
        match transport {
            Transport::Http => Some((self.upgrade?, CloseReason::UpgradeTimeout)),
            Transport::Raw | Transport::WebSocket => {
                let more = Duration::from_secs((bytes / BYTES_PER_SECOND) as u64);
                Some((self.package? + more, CloseReason::PackageTimeout))
            }
            Transport::Proxied | Transport::Tls | Transport::Undecided => None,
        }
    }

    /// Returns the limit on the time in which the socket of a client takes none of `bytes` waiting bytes.
    pub fn write(&self, state: ClientState, bytes: usize) -> Option<Limit> {
        let may_wait = state == ClientState::Working && bytes <= WAITING_BYTES_MIN;
        Some((self.write.filter(|_| !may_wait)?, CloseReason::WriteTimeout))
    }
}

/// The deadlines that each connection has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deadlines {
    /// That of the next step; transport and state say which one ([`Timeouts::step`]). `None` while the gateway owes
    /// the next step.
    pub step: Option<Instant>,
    /// Set by the ack and by each heartbeat.
    pub heartbeat: Option<Instant>,
    /// Set by any byte.
    pub idle: Option<Instant>,
}

/// A package, message or HTTP head of which bytes are missing.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// Time of its first byte.
    pub since: Instant,
    /// Length that it announces, as far as it is known.
    pub bytes: usize,
}

/// Returns the earliest deadline, put off by its time after a pause, and the reason to close that it stands for.
pub fn earliest(
    deadlines: impl IntoIterator<Item = (Option<Instant>, Option<Limit>)>,
    time: ShardTime,
) -> Option<(Instant, CloseReason)> {
    let due = |(deadline, limit): (Option<Instant>, Option<Limit>)| {
        let (grace, reason) = limit?;
        Some((time.due(deadline?, grace), reason))
    };
    let due = deadlines.into_iter().filter_map(due);
    due.min_by_key(|(at, _)| *at)
}

/// Time between two slots.
const SLOT: Duration = Duration::from_millis(50);
/// Slots of the wheel.
const SLOTS: usize = 32;
/// A session with a deadline further away than this is checked earlier. So a deadline that moves nearer
/// by less than this is still met.
const LOOK_AHEAD_SLOTS: usize = 20;

const _: () = assert!(LOOK_AHEAD_SLOTS < SLOTS, "an entry would be due at once");

/// A timer wheel.
///
/// Bound: one entry per session with a deadline.
/// Cost:  O(1) to insert; each session with a deadline is checked about once a second.
#[derive(Debug)]
pub struct Wheel {
    slots: Vec<Vec<Sid>>,
    /// The next slot, and the time when it is due.
    at: usize,
    due: Instant,
}

impl Wheel {
    /// Creates an empty wheel.
    pub fn new(now: Instant) -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS],
            at: 0,
            due: now + SLOT,
        }
    }

    /// Schedules a check of `sid` at `deadline`, or earlier.
    pub fn insert(&mut self, sid: Sid, deadline: Instant) {
        let away = deadline.saturating_duration_since(self.due).as_millis() / SLOT.as_millis();
        let away = (away as usize + 1).min(LOOK_AHEAD_SLOTS);
        self.slots[(self.at + away) % SLOTS].push(sid);
        self.check_invariants();
    }

    /// Returns true if no session has a deadline.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(Vec::is_empty)
    }

    /// Moves the sessions to check by `now` into `due`, at most one round of them.
    pub fn turn(&mut self, now: Instant, due: &mut Vec<Sid>) {
        for _ in 0..SLOTS {
            if now < self.due {
                return self.check_invariants();
            }
            due.append(&mut self.slots[self.at]);
            self.at = (self.at + 1) % SLOTS;
            self.due += SLOT;
        }
        // The wheel stood still for longer than a round, and all slots have been taken.
        debug_assert!(self.is_empty());
        self.due = now + SLOT;
        self.check_invariants();
    }

    fn check_invariants(&self) {
        debug_assert_eq!(self.slots.len(), SLOTS);
        debug_assert!(self.at < SLOTS);
        debug_assert!(
            (LOOK_AHEAD_SLOTS + 1..SLOTS)
                .all(|away| self.slots[(self.at + away) % SLOTS].is_empty()),
            "an entry is further away than the wheel looks ahead"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    #[test]
    fn one_option_sets_both_limits() {
        let second = Duration::from_secs(1);
        for (heartbeat, timeout, limits) in [
            (None, None, (None, IDLE_DEFAULT)),
            (Some(3 * second), None, (Some(6 * second), IDLE_DEFAULT)),
            (None, Some(second), (None, second)),
            (
                Some(3 * second),
                Some(4 * second),
                (Some(4 * second), 4 * second),
            ),
        ] {
            let mut config = Config::default();
            config.client.heartbeat = heartbeat;
            config.client.timeout = timeout;
            let timeouts = Timeouts::new(&config);
            assert_eq!((timeouts.heartbeat, timeouts.idle), limits);
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_session_is_looked_at_after_its_deadline_and_at_most_two_slots_later() {
        let start = Instant::now();
        for deadline_ms in [0, 1, 49, 50, 51, 1000, 20_000, 25_000] {
            let mut wheel = Wheel::new(start);
            let sid = Sid::new(ShardId(0), 0, 1);
            let deadline = start + Duration::from_millis(deadline_ms);
            wheel.insert(sid, deadline);
            let mut due = Vec::new();
            let mut now = start;
            loop {
                now += Duration::from_millis(10);
                wheel.turn(now, &mut due);
                assert!(now < deadline + 3 * SLOT, "{deadline_ms} ms was missed");
                if due.pop().is_some() {
                    if now >= deadline {
                        break;
                    }
                    wheel.insert(sid, deadline);
                }
            }
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_shard_that_stood_still_looks_at_everything_once() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        for slot in 0..100 {
            let deadline = start + Duration::from_secs(u64::from(slot));
            wheel.insert(Sid::new(ShardId(0), slot, 1), deadline);
        }
        let mut due = Vec::new();
        wheel.turn(start + Duration::from_secs(3600), &mut due);
        assert_eq!(due.len(), 100);
    }
}
