//! The sessions that delegates know, and their states as delegates get them.

use super::{Clients, Connection};
use crate::client::{ClientAddr, ClientState};
use crate::ids::{PeerIndex, Sid};
use crate::limits::{LISTED_BYTES, LISTED_SESSIONS_MAX, LISTED_SLOTS_MAX};
use crate::peer::delegate::{DelegateMark, delegate_of};
use crate::shard::Core;
use crate::wire::pomelo::rpc::SessionState;

impl Clients {
    /// Returns the mark of a session's delegate; `None` if no delegate knows the session.
    pub(in crate::shard) fn delegate(&self, sid: Sid) -> Option<DelegateMark> {
        self.connection(sid, |connection| connection.delegate)?
    }

    /// Notes the delegate that gets the messages of a session.
    pub(in crate::shard) fn note_delegate(&self, sid: Sid, delegate: PeerIndex) {
        let mark = DelegateMark::of(delegate);
        self.connection(sid, |connection| connection.delegate = Some(mark));
    }

    /// Writes the state of a session after a change for one of the delegates, if they have to know of it: the session is
    /// bound, or a delegate knows it or has made the change.
    pub(in crate::shard) fn write_change(
        &self,
        core: &Core,
        sid: Sid,
        change: Option<&[u8]>,
        to: ToDelegate<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let written = self.connection(sid, |connection| {
            let is_told = connection.is_told() || change.is_some();
            if is_told {
                connection.write_state(core, sid, change, to, out);
            }
            is_told
        });
        written == Some(true)
    }

    /// Appends the states of sessions to a list, from a slot on: of all that delegates have to know. Returns the slot to
    /// continue from, if there is one.
    pub(in crate::shard) fn write_states(
        &self,
        core: &Core,
        first: usize,
        to: ToDelegate<'_>,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let mut connections = self.connections.borrow_mut();
        let (slots, start) = (connections.slot_count(), out.len());
        let end = slots.min(first + LISTED_SLOTS_MAX);
        let mut count = 0;
        for (sid, connection) in connections.range_mut(first..end) {
            if connection.state() == ClientState::Closed || !connection.is_told() {
                continue;
            }
            if count == LISTED_SESSIONS_MAX || out.len() - start > LISTED_BYTES {
                return Some(sid.slot());
            }
            if count > 0 {
                out.push(b',');
            }
            connection.write_state(core, sid, None, to, out);
            count += 1;
        }
        (end < slots).then_some(end)
    }
}

/// The delegate that a state is for, among all of them.
#[derive(Debug, Clone, Copy)]
pub(in crate::shard) struct ToDelegate<'a> {
    pub(in crate::shard) peer: PeerIndex,
    pub(in crate::shard) delegates: &'a [PeerIndex],
}

impl ToDelegate<'_> {
    /// Returns whether the delegate gets the messages of a session.
    pub(in crate::shard) fn is_own(self, mark: Option<DelegateMark>, sid: Sid) -> bool {
        delegate_of(mark, sid, self.delegates) == Some(self.peer)
    }
}

impl Connection {
    fn is_told(&self) -> bool {
        self.is_bound() || self.delegate.is_some()
    }

    /// Writes the state of the session for a delegate. Delegates know it then, and one of them is its own.
    fn write_state(
        &mut self,
        core: &Core,
        sid: Sid,
        change: Option<&[u8]>,
        to: ToDelegate<'_>,
        out: &mut Vec<u8>,
    ) {
        let own = delegate_of(self.delegate, sid, to.delegates);
        self.delegate = own.map(DelegateMark::of).or(self.delegate);
        let address = self.address();
        let address = address.as_ref();
        SessionState {
            session: core.session_export(sid, &self.identity),
            own: own == Some(to.peer),
            address: address.map(|ClientAddr { ip, port }| [&**ip, &**port]),
            change,
        }
        .write(out);
    }
}
