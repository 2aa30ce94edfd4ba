//! The circuit breaker of a peer: calls to a peer that answers none of them fail at once.
//!
//! ```text
//!            `timeouts_max` timeouts without an answer
//!   Closed ─────────────────────────────────────────▶ Open ───┐ after each pause:
//!     ▲                                                │ ▲    │ one call, the probe
//!     └────────────────── an answer ───────────────────┘ └────┘
//! ```
//!
//! **Absent**: the calls; their owner tells of their ends.

use std::time::{Duration, Instant};

/// The circuit breaker of one peer, for the calls of one shard.
#[derive(Debug, Clone, Copy)]
pub struct Breaker {
    /// Timeouts without an answer that open it; never without a number.
    timeouts_max: Option<usize>,
    pause: Duration,
    /// Timeouts since the last answer.
    timeouts: usize,
    /// The time from which the next probe may begin, while it is open.
    probe_at: Option<Instant>,
}

impl Breaker {
    /// Makes a closed breaker.
    pub fn new(timeouts_max: Option<usize>, pause: Duration) -> Self {
        Self {
            timeouts_max,
            pause,
            timeouts: 0,
            probe_at: None,
        }
    }

    /// Returns whether it is open.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.probe_at.is_some()
    }

    /// Returns whether a call may begin: always while it is closed, and as a probe while it is open.
    #[inline]
    pub fn lets(&self, now: Instant) -> bool {
        self.probe_at.is_none_or(|at| now >= at)
    }

    /// Notes a call that begins. The next probe waits for a pause, and not for the end of this one: some handlers never
    /// answer.
    #[inline]
    pub fn begin(&mut self, now: Instant) {
        debug_assert!(self.lets(now), "a call begins that had to fail");
        if let Some(at) = &mut self.probe_at {
            *at = now + self.pause;
        }
    }

    /// Notes an answer, which closes it.
    #[inline]
    pub fn answer(&mut self) {
        (self.timeouts, self.probe_at) = (0, None);
    }

    /// Notes calls that ended without an answer.
    pub fn time_out(&mut self, calls: usize, now: Instant) {
        self.timeouts = self.timeouts.saturating_add(calls);
        let is_enough = self.timeouts_max.is_some_and(|max| self.timeouts >= max);
        if is_enough && self.probe_at.is_none() {
            self.probe_at = Some(now + self.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    // The pure rooms have no clock; a test of one may start from the real one.
    #[allow(clippy::disallowed_methods)]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn timeouts_in_a_row_open_it_and_an_answer_between_them_does_not_let_them() {
        let (mut breaker, now) = (Breaker::new(Some(3), SECOND), now());
        breaker.time_out(2, now);
        breaker.answer();
        breaker.time_out(2, now);
        assert!(!breaker.is_open() && breaker.lets(now));
        breaker.time_out(1, now);
        assert!(breaker.is_open() && !breaker.lets(now));
    }

    #[test]
    fn one_probe_goes_after_each_pause_until_one_has_an_answer() {
        let (mut breaker, start) = (Breaker::new(Some(1), SECOND), now());
        let at = |seconds| start + seconds * SECOND;
        breaker.time_out(1, at(0));
        // Calls from before change nothing.
        breaker.time_out(9, at(1) - SECOND / 2);
        assert!(!breaker.lets(at(1) - SECOND / 2) && breaker.lets(at(1)));
        breaker.begin(at(1));
        assert!(!breaker.lets(at(2) - SECOND / 2) && breaker.lets(at(2)));
        breaker.begin(at(2));
        breaker.time_out(1, at(2));
        assert!(!breaker.lets(at(3) - SECOND / 2) && breaker.lets(at(3)));
        breaker.begin(at(3));
        breaker.answer();
        assert!(!breaker.is_open() && breaker.lets(at(3)));
    }

    #[test]
    fn without_a_number_it_never_opens() {
        let (mut breaker, now) = (Breaker::new(None, SECOND), now());
        breaker.time_out(usize::MAX, now);
        breaker.time_out(usize::MAX, now);
        assert!(!breaker.is_open());
    }
}
