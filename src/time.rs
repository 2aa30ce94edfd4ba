//! The time by which a shard sets and judges its deadlines.
//!
//! A shard does not run while its process is stopped, its virtual machine is paused, its laptop sleeps,
//! other processes have its core, or a handler blocks its thread. Meanwhile its clients and peers send
//! heartbeats and answers, which wait in its sockets. Judged by the clock, all of them would be too late
//! when the shard runs again. So the shard judges by a time of its own:
//!
//! * A pause does not count. One tick moves this time by at most `STEP_MAX`.
//! * After a pause each deadline is put off until its whole timeout has passed again, its grace. So the
//!   shard reads what waits before it judges anybody, and a network that was down has time to deliver.
//! * A deadline gets one grace, however many pauses follow. A client that is gone is found after two
//!   timeouts at most, even on a machine that is paused each second.
//!
//! A deadline that is set after a pause and before the next tick is set by the time of the last tick.
//! As the pause does not count, that time is right.
//!
//! **Absent**: a clock. [`ShardTime`] learns from its owner how much time has passed.

use std::time::{Duration, Instant};

/// Distance between two ticks of a shard.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// Lateness of a tick that ends a pause. Busy machines and large broadcasts delay a tick less.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest step of one tick.
const STEP_MAX: Duration = TICK.saturating_add(PAUSE_MIN);

/// Time of a shard, which stands still during a pause.
#[derive(Debug, Clone, Copy)]
pub struct ShardTime {
    /// The present time. It falls behind the clock by the length of each pause.
    pub now: Instant,
    /// End of the last pause.
    resumed: Option<Instant>,
}

impl ShardTime {
    /// Creates the time of a shard that starts at `now`.
    pub fn new(now: Instant) -> Self {
        Self { now, resumed: None }
    }

    /// Moves on after `elapsed` by the clock. Returns the length of a pause that ends here.
    pub fn advance(&mut self, elapsed: Duration) -> Option<Duration> {
        self.now += elapsed.min(STEP_MAX);
        if elapsed < STEP_MAX {
            return None;
        }
        self.resumed = Some(self.now);
        Some(elapsed - TICK)
    }

    /// Returns when a deadline passes that is put off by `grace` after a pause.
    pub fn due(self, deadline: Instant, grace: Duration) -> Instant {
        let Some(resumed) = self.resumed else {
            return deadline;
        };
        // A deadline also waits when it passes within the step that ends the pause: no tick has judged it.
        (resumed + grace).clamp(deadline, deadline + grace + STEP_MAX)
    }

    /// Returns whether a deadline has passed that is put off by `grace` after a pause.
    pub fn is_over(self, deadline: Instant, grace: Duration) -> bool {
        self.now >= self.due(deadline, grace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TIMEOUT: Duration = Duration::from_secs(6);

    // The room has no clock; its tests may start from the real one.
    #[allow(clippy::disallowed_methods)]
    fn start() -> ShardTime {
        ShardTime::new(Instant::now())
    }

    /// Ticks for the time `by`.
    fn run(time: &mut ShardTime, mut by: Duration) {
        while by > Duration::ZERO {
            assert_eq!(time.advance(by.min(TICK)), None);
            by = by.saturating_sub(TICK);
        }
    }

    /// Ticks until the deadline has passed. Returns the time that took.
    fn run_until_over(time: &mut ShardTime, deadline: Instant) -> Duration {
        let from = time.now;
        while !time.is_over(deadline, TIMEOUT) {
            run(time, TICK);
        }
        time.now - from
    }

    #[test]
    fn without_a_pause_a_deadline_passes_at_its_time() {
        let mut time = start();
        let deadline = time.now + TIMEOUT;
        run(&mut time, TIMEOUT - TICK);
        assert!(!time.is_over(deadline, TIMEOUT));
        run(&mut time, TICK);
        assert!(time.is_over(deadline, TIMEOUT));
    }

    #[test]
    fn a_tick_that_is_a_little_late_does_not_end_a_pause_and_its_time_counts() {
        let mut time = start();
        let deadline = time.now + TIMEOUT;
        for _ in 0..12 {
            let before = time.now;
            assert_eq!(time.advance(SECOND / 2), None);
            assert_eq!(time.now - before, SECOND / 2);
        }
        assert!(time.is_over(deadline, TIMEOUT));
    }

    #[test]
    fn after_a_pause_of_any_length_a_deadline_gets_its_whole_timeout() {
        for pause in [PAUSE_MIN, 8 * SECOND, 60 * SECOND, 86_400 * SECOND] {
            // The deadline was set long ago, or just now, or passes with the next tick.
            for before in [Duration::ZERO, 3 * SECOND, TIMEOUT - TICK] {
                let mut time = start();
                let deadline = time.now + TIMEOUT;
                run(&mut time, before);
                assert_eq!(time.advance(TICK + pause), Some(pause));
                assert_eq!(run_until_over(&mut time, deadline), TIMEOUT);
            }
        }
    }

    #[test]
    fn a_deadline_set_before_the_tick_that_ends_a_pause_is_right() {
        let mut time = start();
        run(&mut time, SECOND);
        let read_first = time.now + TIMEOUT;
        assert!(time.advance(60 * SECOND).is_some());
        let ticked_first = time.now + TIMEOUT;
        for deadline in [read_first, ticked_first] {
            assert_eq!(run_until_over(&mut time.clone(), deadline), TIMEOUT);
        }
    }

    #[test]
    fn pauses_in_a_row_put_a_deadline_off_once() {
        let mut time = start();
        let deadline = time.now + TIMEOUT;
        let mut seconds = 0;
        while !time.is_over(deadline, TIMEOUT) {
            run(&mut time, 2 * SECOND / 5);
            assert!(time.advance(3 * SECOND / 5).is_some());
            seconds += 1;
        }
        // Twice the timeout by its own time, of which a second brings 950 ms.
        assert_eq!(seconds, 14);
        // A client that speaks now and then stays.
        for _ in 0..60 {
            let deadline = time.now + TIMEOUT;
            for _ in 0..3 {
                run(&mut time, 2 * SECOND / 5);
                assert!(time.advance(3 * SECOND / 5).is_some());
                assert!(!time.is_over(deadline, TIMEOUT));
            }
        }
    }

    #[test]
    fn the_shortest_timeout_gets_its_grace_too() {
        let mut time = start();
        let grace = SECOND / 10;
        let deadline = time.now + grace;
        run(&mut time, TICK);
        assert!(time.advance(8 * SECOND).is_some());
        assert!(time.now > deadline && !time.is_over(deadline, grace));
        assert_eq!(time.due(deadline, grace), time.now + grace);
    }
}
