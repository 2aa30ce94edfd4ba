//! The pace of a shard's looks at its sockets: under load, events gather for a moment between two looks.
//!
//! A shard that looks after each message pays a wake-up for each message. Network cards have the same problem, and
//! let packets gather before they interrupt. A shard does the same, for at most `turn_min` from one look to the
//! next, and only while it pays. The shard handles the first message after a pause at once. If a gathering brought
//! fewer than two events, the next looks do not wait.

use std::time::{Duration, Instant};

/// Least number of events of a gathering that pays.
const EVENTS_MIN: usize = 2;
/// Most looks without a gathering after one that did not pay. The number begins with 1, and doubles with each further
/// one that did not pay.
const SKIP_MAX: u32 = 64;

/// The decision how long a shard lets events gather before it looks.
#[derive(Debug)]
pub(super) struct Pace {
    /// Least time from one look that found events to the next look; zero: never gather.
    turn_min: Duration,
    /// Start of the present turn: the last look that found events.
    began: Instant,
    /// True if the present turn began within `turn_min` of the one before, or with a gathering that paid.
    is_loaded: bool,
    /// Number of the next looks that do not gather.
    skip: u32,
    /// Value of `skip` after the last gathering; 0 if that one paid.
    skipped: u32,
}

impl Pace {
    pub(super) fn new(turn_min: Duration, now: Instant) -> Self {
        Self {
            turn_min,
            began: now,
            is_loaded: false,
            skip: 0,
            skipped: 0,
        }
    }

    /// Returns the time to gather before the next look; zero: look at once.
    pub(super) fn gather(&mut self, now: Instant) -> Duration {
        if !self.is_loaded {
            return Duration::ZERO;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Duration::ZERO;
        }
        (self.began + self.turn_min).saturating_duration_since(now)
    }

    /// Records a look that ended at `now` and found `events`, and whether it came after a gathering.
    pub(super) fn looked(&mut self, now: Instant, events: usize, gathered: bool) {
        let pays = events >= EVENTS_MIN;
        if gathered {
            self.skipped = match pays {
                true => 0,
                false => (self.skipped * 2).clamp(1, SKIP_MAX),
            };
            self.skip = self.skipped;
        }
        if events > 0 {
            self.is_loaded = (gathered && pays) || now < self.began + self.turn_min;
            self.began = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Duration = Duration::from_micros(500);
    const GAP: Duration = Duration::from_micros(100);

    // The room's functions take the time; its tests may start from the real one.
    #[allow(clippy::disallowed_methods)]
    fn start() -> (Pace, Instant) {
        let now = Instant::now();
        (Pace::new(TURN, now), now)
    }

    /// Messages arrive one after the other, `gap` apart. Returns for each look how many events it found, and after
    /// which wait.
    fn play(
        pace: &mut Pace,
        mut now: Instant,
        gap: Duration,
        looks: usize,
    ) -> Vec<(usize, Duration)> {
        let mut seen = Vec::new();
        let mut next = now + gap;
        for _ in 0..looks {
            let waited = pace.gather(now);
            now += waited;
            let gathered = !waited.is_zero();
            if !gathered && next > now {
                now = next;
            }
            let mut events = 0;
            while next <= now {
                events += 1;
                next += gap;
            }
            pace.looked(now, events, gathered);
            seen.push((events, waited));
        }
        seen
    }

    #[test]
    fn the_first_message_after_a_pause_is_handled_at_once() {
        let (mut pace, now) = start();
        let rare = play(&mut pace, now + TURN, 2 * TURN, 5);
        assert_eq!(rare, vec![(1, Duration::ZERO); 5]);
    }

    #[test]
    fn under_load_each_look_finds_what_a_whole_turn_has_gathered() {
        let (mut pace, now) = start();
        let seen = play(&mut pace, now + TURN, GAP, 10);
        // A first message after the pause, and one that shows the load.
        assert_eq!(seen[..2], [(1, Duration::ZERO); 2]);
        assert_eq!(seen[2..], [(5, TURN); 8]);
    }

    #[test]
    fn a_turn_that_took_long_is_not_prolonged() {
        let (mut pace, now) = start();
        pace.looked(now + GAP, 8, false);
        assert_eq!(pace.gather(now + GAP + TURN / 5), TURN * 4 / 5);
        assert_eq!(pace.gather(now + GAP + TURN), Duration::ZERO);
    }

    #[test]
    fn a_gathering_of_one_event_does_not_pay_and_becomes_rare() {
        let (mut pace, mut now) = start();
        let mut gathered = 0;
        // A single client sends its next request as soon as it has its answer.
        for look in 0..1_000 {
            let waited = pace.gather(now);
            gathered += usize::from(!waited.is_zero());
            now += waited.max(GAP);
            pace.looked(now, 1, !waited.is_zero());
            assert!(
                gathered <= 7 + look / SKIP_MAX as usize,
                "{gathered} of {look}"
            );
        }
        assert!(gathered > 7, "it tries again now and then");
        // Two clients are enough.
        while pace.gather(now).is_zero() {
            now += GAP;
            pace.looked(now, 2, false);
        }
        pace.looked(now + TURN, 2, true);
        assert_eq!(pace.gather(now + TURN), TURN);
    }

    #[test]
    fn without_a_least_turn_nothing_gathers() {
        let (_, now) = start();
        let mut pace = Pace::new(Duration::ZERO, now);
        let seen = play(&mut pace, now, GAP / 100, 20);
        assert!(seen.iter().all(|(_, waited)| waited.is_zero()));
    }
}
