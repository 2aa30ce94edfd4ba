//! The agreement between a shard that goes to sleep and the threads that ring for it.
//!
//! ```text
//!   other thread                                shard
//!   put something into a queue                  say "asleep"
//!   say "rung"                                  was it rung? then do not sleep
//!   is it asleep? then write the eventfd        sleep until the eventfd or a socket is ready
//! ```
//!
//! Each side sets its own flag before it reads the flag of the other side. If the other thread reads "awake", it
//! has set "rung" before the shard asks, so the shard does not sleep. If it reads "asleep", it ends the sleep. So no
//! ring is lost. Each read is a swap or a `fetch_or`: unlike a plain load, these never return an old value.
//! `tests/bell.rs` tries the interleavings.

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

    /// Announces a sleep. Returns false if the bell has rung: then the shard must not sleep.
    pub(crate) fn begin(&self) -> bool {
        self.asleep.swap(true, AcqRel);
        !self.rung.fetch_or(false, AcqRel)
    }

    /// Ends a sleep, or takes its announcement back.
    pub(crate) fn end(&self) {
        self.asleep.swap(false, AcqRel);
    }

    /// Takes the rings so far. Returns false if there was none. Afterwards the shard looks into all of its queues.
    pub(crate) fn take_rings(&self) -> bool {
        self.rung.swap(false, AcqRel)
    }

    /// Returns true if the shard has not taken a ring yet. The watchdog asks this.
    pub(crate) fn is_rung(&self) -> bool {
        self.rung.load(Relaxed)
    }
}
