//! Sockets, timers and the clock: where glommio ends.
//!
//! What is written against this room runs over sockets by the real clock, or within one thread over
//! [`memory`] by a virtual one; it cannot tell.
//!
//! **Invariants**: the only room that says `unsafe` ([`socket`]) and the only one that asks for the
//! time ([`clock`]); a read buffer is lent for the length of one poll, so an idle connection holds
//! none.
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
pub(crate) mod socket;

/// What the connections of a shard run over.
#[derive(Debug)]
pub enum Network {
    /// The kernel's sockets; the poller knows which are ready.
    Kernel(Rc<poller::Poller>),
    /// Queues of this thread.
    Memory(memory::MemoryNetwork),
}
