//! The reaction to a fault. A part or a task of the shard finds a fault; the match here decides what follows.

use std::cmp::Reverse;
use std::rc::Rc;

use super::Shard;
use crate::error::{CloseReason, Fault, LinkFault, Side};
use crate::ids::{PeerIndex, Sid};
use crate::limits::MEMORY_CLOSES_MAX;
use crate::metrics::Counter;
use crate::shard::memory::MemoryLevel;
use crate::shard::peers::registry;

/// Somebody who makes this shard hold much memory.
#[derive(Clone, Copy)]
enum Holder {
    Client(Sid),
    Server(PeerIndex),
}

impl Shard {
    /// Looks at the memory of the process, and closes connections where it is short.
    pub(in crate::shard) fn look_at_memory(self: &Rc<Self>) {
        let core = &self.core;
        let (level, is_short_for_long) = (core.look_at_memory(), core.memory_is_short_for_long());
        if level < MemoryLevel::CloseUnready && !is_short_for_long {
            return;
        }
        let too_many = core.memory_to_free();
        let all = self.holders();
        let held: usize = all.iter().map(|(bytes, _)| bytes).sum();
        // Where somebody else holds the memory, such as handlers, the end of these would not let new connections in.
        let helps = is_short_for_long && held >= too_many;
        if level >= MemoryLevel::CloseSlow || helps {
            self.close_largest(all, too_many);
        } else if level >= MemoryLevel::CloseUnready {
            let unready = self.clients.holders(true).into_iter();
            let unready = unready.map(|(bytes, sid)| (bytes, Holder::Client(sid)));
            self.close_largest(unready.collect(), too_many);
        }
    }

    fn holders(&self) -> Vec<(usize, Holder)> {
        let clients = self.clients.holders(false).into_iter();
        let clients = clients.map(|(bytes, sid)| (bytes, Holder::Client(sid)));
        let servers = self.peers.holders().into_iter();
        let servers = servers.map(|(bytes, peer)| (bytes, Holder::Server(peer)));
        clients.chain(servers).collect()
    }

    /// Closes those that hold the most, as many as hold `bytes` together.
    fn close_largest(self: &Rc<Self>, mut holders: Vec<(usize, Holder)>, bytes: usize) {
        holders.sort_unstable_by_key(|(held, _)| Reverse(*held));
        let mut freed = 0;
        for (held, holder) in holders.into_iter().take(MEMORY_CLOSES_MAX) {
            if freed >= bytes {
                return;
            }
            freed += held;
            match holder {
                Holder::Client(sid) => self.close(sid, CloseReason::Memory, None),
                Holder::Server(peer) => self.react(Fault::Peer(peer, LinkFault::Memory)),
            }
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
