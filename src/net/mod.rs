//! Sockets, timers and the clock: where glommio ends.
//!
//! **Invariants**: the only room that says `unsafe` ([`socket`]) and the only one that asks for the
//! time ([`clock`]); a read buffer is lent for the length of one poll, so an idle connection holds
//! none.
//!
//! **Absent**: the meaning of any byte.
//!
//! **Where to start reading**: [`drive::read`].

pub mod clock;
pub mod dial;
pub mod drive;
pub mod poller;
pub mod socket;
