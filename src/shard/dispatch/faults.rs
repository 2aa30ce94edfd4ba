//! The reaction to a fault. A part or a task of the shard finds a fault; the match here decides what follows.

use std::rc::Rc;

use super::Shard;
use crate::error::{CloseReason, Fault, Side};
use crate::metrics::Counter;
use crate::shard::memory::MemoryLevel;
use crate::shard::peers::registry;

impl Shard {
    /// Looks at the memory of the process, and closes connections where it is short.
    pub(in crate::shard) fn look_at_memory(self: &Rc<Self>) {
        let core = &self.core;
        let level = core.look_at_memory();
        let closes_slow = level >= MemoryLevel::CloseSlow || core.memory_is_short_for_long();
        if level < MemoryLevel::CloseUnready && !closes_slow {
            return;
        }
        let too_many = core.memory_to_free();
        let unready = !closes_slow;
        for sid in self.clients.largest(unready, too_many) {
            self.close(sid, CloseReason::Memory, None);
        }
    }

    /// Reacts to a fault. Other clients, peers and calls do not notice, unless the operator has to act.
    #[cold]
    pub(in crate::shard) fn react(self: &Rc<Self>, fault: Fault<'_>) {
        let (core, peers) = (&self.core, &self.peers);
        match fault {
            Fault::Client(sid, reason) => {
                debug_assert_eq!(reason.side(), Side::Client);
                self.close(sid, reason, None);
            }
            Fault::Peer(peer, fault) => self.fail_calls(peers.end_link(core, peer, fault)),
            Fault::Master(fault) => registry::end(self, fault),
            Fault::Operator(error) => (core.stop)(Some(error)),
            Fault::Bug(panic) => {
                core.counters().add(Counter::Panics, 1);
                let session = panic.session.map(tracing::field::display);
                tracing::error!(session, name = panic.name, "{} panicked", panic.function);
            }
        }
    }
}
