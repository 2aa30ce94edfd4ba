//! The sessions that delegates know, and their states as delegates get them.

use super::{Clients, Connection};
use crate::client::{ClientAddr, ClientState};
use crate::ids::Sid;
use crate::limits::{LISTED_BYTES, LISTED_SESSIONS_MAX, LISTED_SLOTS_MAX};
use crate::shard::Core;
use crate::wire::pomelo::rpc::SessionState;

impl Clients {
    /// Returns whether a delegate knows a session.
    pub(in crate::shard) fn is_delegated(&self, sid: Sid) -> bool {
        self.connection(sid, |connection| connection.delegated) == Some(true)
    }

    /// Notes that a delegate gets a message of a session.
    pub(in crate::shard) fn note_delegated(&self, sid: Sid) {
        self.connection(sid, |connection| connection.delegated = true);
    }

    /// Writes the state of a session after a change, if a delegate is to know of it: the session is bound, or a delegate
    /// knows it or has made the change.
    pub(in crate::shard) fn write_change(
        &self,
        core: &Core,
        sid: Sid,
        change: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> bool {
        let written = self.connection(sid, |connection| {
            let is_told = connection.is_told() || change.is_some();
            if is_told {
                connection.write_state(core, sid, change, out);
            }
            is_told
        });
        written == Some(true)
    }

    /// Appends the states of sessions to a list, from a slot on: of all that delegates know or have to know. Returns the
    /// slot to continue from, if there is one.
    pub(in crate::shard) fn write_states(
        &self,
        core: &Core,
        first: usize,
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
            connection.write_state(core, sid, None, out);
            count += 1;
        }
        (end < slots).then_some(end)
    }
}

impl Connection {
    fn is_told(&self) -> bool {
        self.is_bound() || self.delegated
    }

    /// Writes the state of the session for a delegate, which knows it then.
    fn write_state(&mut self, core: &Core, sid: Sid, change: Option<&[u8]>, out: &mut Vec<u8>) {
        self.delegated = true;
        let address = self.address();
        let address = address.as_ref();
        SessionState {
            session: core.session_export(sid, &self.identity),
            address: address.map(|ClientAddr { ip, port }| [&**ip, &**port]),
            change,
        }
        .write(out);
    }
}
