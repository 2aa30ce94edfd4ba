//! The other servers, as one shard sees them: calls to them, links that this shard owns, connections that they open,
//! and the registry.
//!
//! **Absent**: the other parts of the shard. A method returns what happened, and `shard/dispatch` reacts.
//!
//! **Where to start reading**: `calls.rs` for a call, `link.rs` for a link.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::Core;
use super::origin::Origin;
use crate::config::{Config, Server};
use crate::error::LinkFault;
use crate::ids::PeerIndex;
use crate::peer::directory::MemberList;
use crate::peer::pending::Calls;
use crate::route::balance::Balancer;

pub(super) mod calls;
mod delegates;
pub(super) mod inbound;
pub(super) mod link;
mod names;
pub(super) mod registry;
mod unknown;
mod usage;
pub(super) mod writer;

pub use inbound::callers_max;

use inbound::Inbound;
use link::Link;
use registry::Registry;
use unknown::UnknownPeers;
use writer::PeerWriter;

/// The other servers, as one shard sees them.
#[derive(Default)]
pub(super) struct Peers {
    members: RefCell<Arc<MemberList>>,
    /// State of routing, by server type.
    balancers: RefCell<Vec<Balancer>>,
    /// Calls of this shard, by peer.
    calls: RefCell<Vec<Calls<Origin>>>,
    /// Links that this shard owns; `None` for those of other shards.
    links: RefCell<Vec<Option<Rc<Link>>>>,
    unknown_peers: RefCell<UnknownPeers>,
    dirty_writers: RefCell<Vec<Rc<PeerWriter>>>,
    inbound: Inbound,
    /// The link to the master. Only the coordinator has it, with a master in its configuration.
    registry: RefCell<Option<Rc<Registry>>>,
}

/// The effects of a new list of servers.
pub(super) struct Applied {
    /// The list before.
    pub(super) old: Arc<MemberList>,
    /// New links of this shard.
    pub(super) links: Vec<Rc<Link>>,
    /// Calls of this shard that failed.
    pub(super) failed: Vec<Origin>,
}

impl Peers {
    /// Makes the peers of a shard that knows none. Of the connections that they open, `callers_max` may be open.
    pub(super) fn new(callers_max: usize) -> Self {
        Self {
            inbound: Inbound::new(callers_max),
            ..Self::default()
        }
    }

    /// Makes the registry of a process with a master, for the coordinator.
    pub(super) fn open_registry(&self, core: &Core, joined: Sender<usize>) -> Option<Rc<Registry>> {
        let master = core.config.master.as_ref()?;
        let registry = Rc::new(Registry::new(core, master, joined));
        *self.registry.borrow_mut() = Some(registry.clone());
        Some(registry)
    }

    /// Returns true if a call, a link of this shard, or the link to the master has a deadline, or a list for a delegate
    /// begins with the next tick.
    pub(super) fn has_deadline(&self, core: &Core) -> bool {
        self.registry.borrow().is_some()
            || self.links.borrow().iter().any(Option::is_some)
            || self.calls.borrow().iter().any(|calls| !calls.is_empty())
            || !self.lists_due(core).is_empty()
    }

    /// Applies a new list of servers: adds links, ends those of removed servers.
    pub(super) fn apply(&self, core: &Core, members: &Arc<MemberList>) -> Applied {
        let mut opened = Vec::new();
        // Asked before the loop: what a loop's head borrows, it borrows to its end.
        let (links, balancers) = (self.links.borrow().len(), self.balancers.borrow().len());
        assert!(
            links <= members.peer_count(),
            "a number of a server was taken back"
        );
        self.add_calls(core, members.peer_count());
        for index in links..members.peer_count() {
            let peer = PeerIndex(index as u32);
            let link = (calls::owner(peer, core.shards) == core.id)
                .then(|| Rc::new(Link::new(peer, members.peer(peer).clone())));
            opened.extend(link.clone());
            self.links.borrow_mut().push(link);
            let (names, own) = (members.type_names(), &members.peer(peer).server.server_type);
            let server_type = names.iter().position(|name| **name == **own);
            let server_type = server_type.expect("the snapshot numbers all types");
            core.counters().name_type(server_type, own);
            self.calls.borrow_mut()[index].server_type = server_type;
        }
        for name in &members.type_names()[balancers..] {
            let balancer = balancer(core, name);
            self.balancers.borrow_mut().push(balancer);
        }
        let old = self.members.replace(members.clone());
        let mut failed = self.update_members(core);
        let (frames, overflowed) = self.unknown_peers.borrow_mut().take();
        for (peer, epoch, frames) in frames {
            self.send_frames(core, peer, epoch, &frames);
        }
        for peer in overflowed {
            failed.append(&mut self.end_link(core, peer, LinkFault::QueueFull));
            if let Some(link) = self.link(peer) {
                link.request_dial();
            }
        }
        self.check_invariants(core, members);
        Applied {
            old,
            links: opened,
            failed,
        }
    }

    fn check_invariants(&self, core: &Core, members: &MemberList) {
        let links = self.links.borrow();
        assert_eq!(links.len(), members.peer_count());
        assert!(self.calls.borrow().len() >= links.len());
        assert_eq!(self.balancers.borrow().len(), members.type_names().len());
        debug_assert!(
            links.iter().enumerate().all(|(index, link)| {
                let owner = calls::owner(PeerIndex(index as u32), core.shards);
                link.is_some() == (owner == core.id)
            }),
            "a link has one owner"
        );
    }

    /// Returns the servers of a type, in the order that routing counts them; `None` for a type that never had one.
    pub(super) fn servers(&self, server_type: &str) -> Option<Vec<Server>> {
        let members = self.members.borrow();
        let mut ever = members.type_names().iter();
        ever.find(|known| ***known == *server_type)?;
        let known = members.of_type(server_type.as_bytes());
        let servers = known.iter().flat_map(|known| &known.servers);
        let server = |peer: &PeerIndex| members.peer(*peer).server.clone();
        Some(servers.map(server).collect())
    }
}

/// Makes the list of the configured servers, which is used until a master sends one. Every shard makes the same.
pub(super) fn configured(config: &Config) -> Arc<MemberList> {
    registry::configured(config).snapshot()
}

/// Makes the balancer of a server type.
fn balancer(core: &Core, server_type: &str) -> Balancer {
    let strategy = core.config.strategy(server_type);
    Balancer::new(strategy, core.config.dialect, u64::from(core.id.0))
}
