//! Limits the log lines of each kind. A kind is one place in the code that writes a line.
//!
//! Any thread counts its lines here, without a lock and without a clock. The writer of the log ends
//! the windows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::limits::LOG_BURST_MAX;

/// Counts of all kinds. Written by all threads, relaxed: a count orders nothing else.
///
/// Bound: `kinds_max`. Full: a further kind shares the count of another one.
pub(super) struct Kinds {
    kinds: Box<[Kind]>,
    /// Length of a window.
    pub(super) window: Duration,
}

#[derive(Default)]
struct Kind {
    /// Hash of the place in the code; 0 for an unused entry.
    place: AtomicU64,
    /// Lines in this window.
    lines: AtomicU64,
}

/// The decision about one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The line is written.
    Write,
    /// The first one over the limit: the example in the summary of this kind.
    Sample(usize),
    /// The line is only counted.
    Suppress,
}

impl Kinds {
    pub(super) fn new(kinds_max: usize, window: Duration) -> Self {
        Self {
            kinds: (0..kinds_max).map(|_| Kind::default()).collect(),
            window,
        }
    }

    /// Counts a line of the kind with this hash.
    ///
    /// Cost: a short search and one atomic addition.
    pub(super) fn count(&self, place: u64) -> Verdict {
        let index = self.index(place.max(1));
        match self.kinds[index].lines.fetch_add(1, Relaxed) {
            before if before < LOG_BURST_MAX => Verdict::Write,
            LOG_BURST_MAX => Verdict::Sample(index),
            _ => Verdict::Suppress,
        }
    }

    fn index(&self, place: u64) -> usize {
        let home = place as usize % self.kinds.len();
        let free_or_own = |index: &usize| {
            let taken = self.kinds[*index]
                .place
                .compare_exchange(0, place, Relaxed, Relaxed);
            taken.is_ok() || taken == Err(place)
        };
        let mut indices = (home..self.kinds.len()).chain(0..home);
        indices.find(free_or_own).unwrap_or(home)
    }

    /// Ends the window of every kind. Returns each kind over the limit with the number of lines that
    /// were not written.
    pub(super) fn end_window(&self) -> impl Iterator<Item = (usize, u64)> {
        self.kinds.iter().enumerate().filter_map(|(index, kind)| {
            let suppressed = kind.lines.swap(0, Relaxed).saturating_sub(LOG_BURST_MAX);
            (suppressed > 0).then_some((index, suppressed))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LOG_WINDOW;

    #[test]
    fn a_kind_has_its_own_burst_in_each_window() {
        let kinds = Kinds::new(4, LOG_WINDOW);
        for place in [7, 0, u64::MAX] {
            for _ in 0..LOG_BURST_MAX {
                assert_eq!(kinds.count(place), Verdict::Write);
            }
        }
        let Verdict::Sample(seven) = kinds.count(7) else {
            panic!("the line must be dropped");
        };
        for _ in 0..41 {
            assert_eq!(kinds.count(7), Verdict::Suppress);
        }
        let over: Vec<_> = kinds.end_window().collect();
        assert_eq!(over, [(seven, 42)]);
        assert_eq!(kinds.end_window().count(), 0);
        assert_eq!(kinds.count(7), Verdict::Write);
    }

    #[test]
    fn kinds_beyond_the_bound_share_a_count() {
        let kinds = Kinds::new(2, LOG_WINDOW);
        let written =
            (1..=10 * LOG_BURST_MAX).filter(|place| kinds.count(*place) == Verdict::Write);
        assert_eq!(written.count() as u64, 2 * LOG_BURST_MAX);
    }

    #[test]
    fn lines_of_many_threads_are_counted_once_each() {
        let kinds = Kinds::new(8, LOG_WINDOW);
        let written = std::thread::scope(|scope| {
            let count = || {
                (0..1000)
                    .filter(|_| kinds.count(3) == Verdict::Write)
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            let counts = threads.into_iter().map(|thread| thread.join().unwrap());
            counts.sum::<usize>() as u64
        });
        let suppressed: u64 = kinds.end_window().map(|(_, lines)| lines).sum();
        assert_eq!((written, written + suppressed), (LOG_BURST_MAX, 4000));
    }
}
