//! The rate of a session: the messages and the bytes that it may send in a second.
//!
//! Each read costs the time that its messages or its bytes may take, whichever is longer. So one time says how much of
//! the rate a session has used: nothing, while that time has passed.
//!
//! **Absent**: the pause of the reader, which the shard owns.

use std::time::{Duration, Instant};

use crate::config;

/// Part of the burst that a reader has again after a pause.
const REGAINED: u32 = 8;

/// The rate that each session has.
#[derive(Debug, Clone, Copy)]
pub struct SessionRate {
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
    /// It was over its rate for too long.
    Excess,
}

impl SessionRate {
    /// Reads the rate from the client options.
    pub fn new(client: &config::Client) -> Self {
        let nanos = |per_second: Option<usize>| {
            per_second.map_or(0, |count| 1_000_000_000_u64.div_ceil(count as u64))
        };
        Self {
            nanos_per_message: nanos(client.messages_per_second),
            nanos_per_byte: nanos(client.bytes_per_second),
            burst: client.rate_burst,
            patience: client.rate_timeout,
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
        let cost =
            (messages as u64 * self.nanos_per_message).max(bytes as u64 * self.nanos_per_byte);
        let used = before + Duration::from_nanos(cost);
        *used_until = now + used;
        Used {
            is_calm: before <= self.burst / 2,
            is_over: used > self.burst,
            used,
        }
    }

    /// Returns the verdict on a session that is over its rate, since `over_since` without a calm moment.
    #[cold]
    pub fn judge(&self, used: Used, over_since: Instant, now: Instant) -> RateVerdict {
        debug_assert!(used.is_over);
        let patience = self.patience.unwrap_or(Duration::MAX);
        match now.saturating_duration_since(over_since) < patience {
            true => RateVerdict::Pause(used.used - (self.burst - self.burst / REGAINED)),
            false => RateVerdict::Excess,
        }
    }
}

/// The part of its burst that a session has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    used: Duration,
    /// It had more than half of its burst left before this read.
    pub is_calm: bool,
    /// It has used more than its burst.
    pub is_over: bool,
}
