//! The delegates that get notices.

use smallvec::SmallVec;

use super::Peers;
use crate::ids::PeerIndex;
use crate::peer::delegate::PACKAGE_REMOTE;
use crate::peer::pending::Knowledge;
use crate::shard::Core;
use crate::shard::origin::Origin;
use crate::wire::json;
use crate::wire::pomelo::rpc;

impl Peers {
    /// Returns the delegates of the cluster.
    pub(in crate::shard) fn delegates(&self, core: &Core) -> SmallVec<[PeerIndex; 4]> {
        let members = self.members.borrow();
        let server_type = core.config.delegate.as_deref().unwrap_or_default();
        let known = members.of_type(server_type.as_bytes());
        known
            .iter()
            .flat_map(|known| &known.servers)
            .copied()
            .collect()
    }

    /// Returns the delegates that have to get the list of all sessions of this shard, and can.
    pub(in crate::shard) fn lists_due(&self, core: &Core) -> SmallVec<[PeerIndex; 4]> {
        if !core.config.delegate_notices {
            return SmallVec::new();
        }
        let mut delegates = self.delegates(core);
        let calls = self.calls.borrow();
        delegates.retain(|peer| {
            let calls = &calls[peer.index()];
            calls.is_up() && calls.knowledge.is_due()
        });
        delegates
    }

    /// Changes the note of a delegate's knowledge.
    pub(in crate::shard) fn note(&self, peer: PeerIndex, change: impl FnOnce(&mut Knowledge)) {
        change(&mut self.calls.borrow_mut()[peer.index()].knowledge);
    }

    /// Returns the id of a server.
    pub(in crate::shard) fn id_of(&self, peer: PeerIndex) -> String {
        self.members.borrow().peer(peer).server.id.clone()
    }

    /// Calls a function of the package in a delegate.
    pub(in crate::shard) fn tell(
        &self,
        core: &Core,
        peer: PeerIndex,
        method: &str,
        args: &[u8],
        origin: Origin,
    ) -> Result<(), &'static str> {
        let mut own_type = Vec::new();
        json::write_string(&mut own_type, &core.config.server_type);
        let frame = rpc::Invoke {
            server_type: str::from_utf8(&own_type).expect("write_string writes UTF-8"),
            service: PACKAGE_REMOTE,
            method,
            args,
            frontend: Some(core.frontend()),
        };
        let write = |out: &mut Vec<u8>, id| rpc::write_invoke(out, id, &frame);
        self.begin_call(core, peer, None, origin, write)
    }
}
