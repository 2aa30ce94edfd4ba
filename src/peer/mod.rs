//! The other servers of the cluster: which there are, and the calls to and from them.
//!
//! The [`directory`] lists the servers by type. A shard keeps the calls it made in [`pending`], one table
//! per peer; the shard that owns the link runs its [`mailbox`](pomelo::mailbox). A call id says which shard
//! made it, so an answer finds its way without a table in between. `shard/peers/link.rs` draws the states of a link.
//!
//! **Invariants**: a call is answered exactly once: by its answer, its deadline, or the end of its
//! link. Each end raises the link's [`Epoch`]; frames written for an older epoch are never sent, so
//! a call that was failed is never executed later through a new link.
//!
//! **Absent**: sockets; the caller of a call (its origin is a type parameter).
//!
//! **Where to start reading**: [`pending::Calls`].

pub mod breaker;
pub mod callers;
pub mod delegate;
pub mod directory;
pub mod pending;
pub mod pomelo;

/// Number of a link's life; raised when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The next life.
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}
