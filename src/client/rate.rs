//! Rates: the messages and the bytes that a session or an address may send in a second, and the connections that a
//! process accepts.
//!
//! Each read costs the time that its messages or its bytes may take, whichever is longer. So one time says how much of
//! the rate is used: nothing, while that time has passed.
//!
//! **Absent**: the pause of the reader, which the shard owns.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config;
use crate::error::CloseReason;

/// Part of the burst that a reader has again after a pause.
const REGAINED: u32 = 8;
/// Connections that a process accepts before a pause, by the time that they take at their rate.
const ACCEPTED_AT_ONCE: Duration = Duration::from_millis(20);

/// The rate of reads of each session, or of all sessions of an address together.
#[derive(Debug, Clone, Copy)]
pub struct ReadRate {
    /// 0 without a limit.
    nanos_per_message: u64,
    /// 0 without a limit.
    nanos_per_byte: u64,
    burst: Duration,
    /// Time over the rate after which a client is closed.
    patience: Option<Duration>,
}

/// The effect of a read on its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateVerdict {
    /// It stays within its rate.
    Within,
    /// Its reader has to pause.
    Pause(Duration),
    /// It was over its rate for too long; the reason to close it.
    Excess(CloseReason),
}

/// Returns the time that each of `per_second` takes.
fn nanos_each(per_second: Option<usize>) -> u64 {
    per_second.map_or(0, |count| 1_000_000_000_u64.div_ceil(count as u64))
}

impl ReadRate {
    /// Reads the rate of a session from the client options.
    pub fn of_session(client: &config::Client) -> Self {
        Self {
            nanos_per_message: nanos_each(client.messages_per_second),
            nanos_per_byte: nanos_each(client.bytes_per_second),
            burst: client.rate_burst,
            patience: client.rate_timeout,
        }
    }

    /// Reads the rate of an address from the client options; `None` without one.
    pub fn of_address(client: &config::Client) -> Option<Self> {
        let messages = client.address_messages_per_second;
        let bytes = client.address_bytes_per_second;
        messages.or(bytes)?;
        Some(Self {
            nanos_per_message: nanos_each(messages),
            nanos_per_byte: nanos_each(bytes),
            ..Self::of_session(client)
        })
    }

    /// Returns the time that a read costs.
    #[inline]
    pub fn cost(&self, messages: usize, bytes: usize) -> Duration {
        let nanos =
            (messages as u64 * self.nanos_per_message).max(bytes as u64 * self.nanos_per_byte);
        Duration::from_nanos(nanos)
    }

    /// Returns what is used after a read, of which `before` was used before.
    #[inline]
    pub fn used(&self, before: Duration, cost: Duration) -> Used {
        let time = before + cost;
        Used {
            is_calm: before <= self.burst / 2,
            is_over: time > self.burst,
            time,
        }
    }

    /// Charges a read to its session. `used_until` is when the session has its whole burst again.
    #[inline]
    pub fn charge(
        &self,
        used_until: &mut Instant,
        now: Instant,
        messages: usize,
        bytes: usize,
    ) -> Used {
        let before = used_until.saturating_duration_since(now);
        let used = self.used(before, self.cost(messages, bytes));
        *used_until = now + used.time;
        used
    }

    /// Returns whether somebody who is over the rate for this time, without a calm moment, was so for too long.
    pub fn is_excess(&self, over_for: Duration) -> bool {
        self.patience.is_some_and(|patience| over_for >= patience)
    }

    /// Returns the pause of a reader that is over the rate.
    pub fn pause(&self, used: Used) -> Duration {
        debug_assert!(used.is_over);
        used.time - (self.burst - self.burst / REGAINED)
    }
}

/// The part of its burst that a session or an address has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    time: Duration,
    /// It had more than half of its burst left before this read.
    pub is_calm: bool,
    /// It has used more than its burst.
    pub is_over: bool,
}

/// The time until which a rate is used, to which several shards add. Times count from a begin that they share.
///
/// Cost: one atomic operation for each addition; none is lost.
#[derive(Debug, Default)]
pub struct SharedUse(AtomicU64);

impl SharedUse {
    /// Adds a cost; returns what was used before.
    pub fn add(&self, now: Duration, cost: Duration) -> Duration {
        let (now, cost) = (nanos(now), nanos(cost));
        let add = |until: u64| Some(until.max(now).saturating_add(cost));
        let until = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        let (Ok(until) | Err(until)) = until;
        Duration::from_nanos(until.saturating_sub(now))
    }

    /// Returns whether anything is used.
    pub fn is_used(&self, now: Duration) -> bool {
        self.0.load(Ordering::Relaxed) > nanos(now)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The rate at which the shards of a process together accept connections.
#[derive(Debug)]
pub struct AcceptRate {
    each: Duration,
    /// Times count from here.
    begin: Instant,
    used: SharedUse,
}

impl AcceptRate {
    /// Reads the rate from the client options; `None` without one.
    pub fn new(client: &config::Client, now: Instant) -> Option<Self> {
        client.accepts_per_second?;
        Some(Self {
            each: Duration::from_nanos(nanos_each(client.accepts_per_second)),
            begin: now,
            used: SharedUse::default(),
        })
    }

    /// Counts an accepted connection; returns the pause before the next one, if it needs one.
    pub fn accepted(&self, now: Instant) -> Option<Duration> {
        let now = now.saturating_duration_since(self.begin);
        let used = self.used.add(now, self.each) + self.each;
        (used >= ACCEPTED_AT_ONCE).then_some(used)
    }
}
