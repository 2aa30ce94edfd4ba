//! The agreement between a shard that goes to sleep and the threads that ring for it.
//!
//! ```text
//!   other thread                                shard
//!   put something into a queue                  say "asleep"
//!   say "rung"                                  was it rung? then do not sleep
//!   is it asleep? then write the eventfd        sleep until the eventfd or a socket is ready
//! ```
//!
//! Each side changes its own flag before it reads the other one, and reads by a change too, so the two changes of
//! one flag have an order. Whoever is second in one flag is second in both: so the shard sees the ring, or the
//! other thread sees the sleep. `tests/bell.rs` tries all interleavings.

use super::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Relaxed},
};

/// The two flags.
#[derive(Debug)]
pub(crate) struct Sleep {
    rung: AtomicBool,
    asleep: AtomicBool,
}

impl Sleep {
    /// Creates the flags of a shard that is awake.
    pub(crate) fn new() -> Self {
        Self {
            rung: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
        }
    }

    /// Rings. Returns false if an earlier ring has not been taken: the shard will see both at once.
    pub(crate) fn ring(&self) -> bool {
        !self.rung.swap(true, AcqRel)
    }

    /// Returns true if the caller, after its ring, must end the sleep of the shard.
    pub(crate) fn must_wake(&self) -> bool {
        self.asleep.swap(false, AcqRel)
    }

    /// Announces a sleep. Returns false if the bell has rung, so the shard must not sleep.
    pub(crate) fn begin(&self) -> bool {
        self.asleep.swap(true, AcqRel);
        !self.rung.fetch_or(false, AcqRel)
    }

    /// Ends a sleep, or an announced one.
    pub(crate) fn end(&self) {
        self.asleep.swap(false, AcqRel);
    }

    /// Takes the rings so far; returns false if there was none. The shard looks into all of its queues afterwards.
    pub(crate) fn take_rings(&self) -> bool {
        self.rung.swap(false, AcqRel)
    }

    /// Returns true if a ring has not been taken, for a thread that only watches.
    pub(crate) fn is_rung(&self) -> bool {
        self.rung.load(Relaxed)
    }
}
