//! The servers that the delegate has chosen for a session, by the strategy `delegate:session`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::handler::{Incoming, Session};
use crate::ids::PeerIndex;
use crate::session::Identity;
use crate::shard::origin::Origin;

/// The route of a session to a server type.
///
/// Bound: one per session and type; it ends with the session.
#[derive(Debug, Clone)]
pub(in crate::shard) enum SessionRoute {
    /// The delegate is being asked. These messages wait, at most as many as may be in flight.
    Asked(WaitingMessages),
    /// The delegate has answered.
    Chosen(Choice),
}

/// Messages of one session for one server type, in order. The task that asks the delegate has them too, so they outlive
/// the session.
pub(in crate::shard) type WaitingMessages = Rc<RefCell<VecDeque<(Incoming, Origin)>>>;

/// The server that the delegate has chosen, and the state for which it has.
#[derive(Debug, Clone)]
pub(in crate::shard) struct Choice {
    /// Kept, so a change of the session makes another one.
    pub(in crate::shard) identity: Rc<Identity>,
    /// Number of the list of servers.
    pub(in crate::shard) generation: u64,
    pub(in crate::shard) peer: PeerIndex,
}

impl Choice {
    /// Returns whether the choice is right for a session and a list of servers.
    pub(in crate::shard) fn is_for(&self, session: &Session, generation: u64) -> bool {
        Rc::ptr_eq(&self.identity, session.identity()) && self.generation == generation
    }
}
