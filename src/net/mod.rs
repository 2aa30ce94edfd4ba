//! Sockets, timers and the clock: the layer above glommio.
//!
//! Code above this layer runs over sockets by the real clock, or within one thread over [`memory`] by a
//! virtual clock, and sees no difference.
//!
//! **Invariants**: only this layer uses `unsafe` ([`readable`]) and reads the time ([`clock`]); a read
//! buffer is lent for one poll, so an idle connection holds none.
//!
//! **Absent**: the meaning of any byte.
//!
//! **Where to start reading**: [`drive::read`].

use std::rc::Rc;

pub(crate) mod clock;
pub(crate) mod dial;
pub(crate) mod drive;
pub(crate) mod memory;
pub(crate) mod poller;
mod readable;
pub(crate) mod socket;

/// The network of a shard.
#[derive(Debug)]
pub enum Network {
    /// Sockets of the kernel, watched by a poller.
    Kernel(Rc<poller::Poller>),
    /// Queues in memory.
    Memory(memory::MemoryNetwork),
}
