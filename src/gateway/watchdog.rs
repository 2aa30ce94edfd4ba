//! Says so while a shard does not go on: nobody else can, as the shard itself is what stands still.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::limits::STALL_MIN;
use crate::metrics::{Counter, Counters};
use crate::shard::pulse::Pulse;

/// Distance between two looks. Four wake-ups a second are what an idle process pays.
const LOOK: Duration = Duration::from_millis(250);

/// Looks without a tick between them from which on a shard counts as stalled.
const LOOKS_MIN: u32 = (STALL_MIN.as_millis() / LOOK.as_millis()) as u32;
const _: () = assert!(LOOKS_MIN >= 2, "one look may fall between two late ticks");

/// Looks at all shards until they have ended: each holds a sender of `shards`, and nothing is sent.
pub(super) fn watch(pulses: &[Arc<Pulse>], counters: &Counters, shards: &Receiver<Infallible>) {
    let mut watches: Vec<Watch> = pulses.iter().map(|_| Watch::default()).collect();
    while let Err(RecvTimeoutError::Timeout) = shards.recv_timeout(LOOK) {
        for (shard, (pulse, watch)) in pulses.iter().zip(&mut watches).enumerate() {
            match watch.look(pulse.ticks()) {
                Seen::Fine => {}
                Seen::Stalled { begins, since } => {
                    counters.add(Counter::Stalls, begins.into());
                    let work = pulse.work();
                    tracing::error!("shard {shard} does not go on: {work}, for {since:?}");
                    watch.work = work;
                }
                Seen::GoesOn { after } => {
                    let work = std::mem::take(&mut watch.work);
                    tracing::warn!("shard {shard} goes on after {after:?}: {work}");
                }
            }
        }
    }
}

/// What is known of one shard.
#[derive(Default)]
struct Watch {
    ticks: Option<u64>,
    /// Looks in a row that saw no tick.
    still: u32,
    /// How many of them the next report wants; 0 when there was none.
    next_report: u32,
    /// What it was at, at the last report.
    work: String,
}

/// What a look has seen.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Fine,
    Stalled { begins: bool, since: Duration },
    GoesOn { after: Duration },
}

impl Watch {
    /// Time is counted in looks: one that comes late counts as one, so a process that stood still as
    /// a whole has no stalled shards.
    fn look(&mut self, ticks: Option<u64>) -> Seen {
        if self.ticks != ticks {
            self.ticks = ticks;
            let still = std::mem::take(&mut self.still);
            let after = LOOK * still;
            return match std::mem::take(&mut self.next_report) {
                0 => Seen::Fine,
                _ => Seen::GoesOn { after },
            };
        }
        if ticks.is_none() {
            return Seen::Fine;
        }
        self.still = self.still.saturating_add(1);
        if self.still < self.next_report.max(LOOKS_MIN) {
            return Seen::Fine;
        }
        let begins = self.next_report == 0;
        self.next_report = self.still.saturating_mul(2);
        Seen::Stalled {
            begins,
            since: LOOK * self.still,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn stalled(looks: u32) -> Seen {
        Seen::Stalled {
            begins: looks == LOOKS_MIN,
            since: Duration::from_millis(250 * looks as u64),
        }
    }

    #[test]
    fn a_stall_is_told_at_doubling_distances_and_then_that_it_is_over() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(Some(7)), Seen::Fine);
        let seen: Vec<Seen> = (0..20).map(|_| watch.look(Some(7))).collect();
        for (looks, seen) in (1..).zip(seen) {
            match looks {
                2 | 4 | 8 | 16 => assert_eq!(seen, stalled(looks)),
                _ => assert_eq!(seen, Seen::Fine),
            }
        }
        let after = 20 * LOOK;
        assert_eq!(watch.look(Some(8)), Seen::GoesOn { after });
        assert_eq!(watch.look(Some(9)), Seen::Fine);
        // The next one is one of its own.
        assert_eq!(watch.look(Some(9)), Seen::Fine);
        assert_eq!(watch.look(Some(9)), stalled(2));
    }

    #[test]
    fn one_late_tick_is_no_stall_and_a_shard_that_has_ended_has_none() {
        let mut watch = Watch::default();
        for ticks in 1..50 {
            assert_eq!(watch.look(Some(ticks)), Seen::Fine);
            assert_eq!(watch.look(Some(ticks)), Seen::Fine);
        }
        assert!((0..50).all(|_| watch.look(None) == Seen::Fine));
    }

    #[test]
    fn a_shard_that_never_ticks_is_told_too_and_so_is_its_end() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(None), Seen::Fine);
        assert_eq!(watch.look(Some(0)), Seen::Fine);
        assert_eq!(watch.look(Some(0)), Seen::Fine);
        assert_eq!(watch.look(Some(0)), stalled(2));
        let after = 2 * LOOK;
        assert_eq!(watch.look(None), Seen::GoesOn { after });
    }
}
