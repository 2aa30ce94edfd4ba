//! The other servers, as one shard sees them: calls to them, links that this shard owns, the master.
//!
//! **Absent**: the other parts of the shard. A method returns what happened, and `dispatch.rs` reacts.
//!
//! **Where to start reading**: `link.rs`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::dispatch::Origin;
use crate::ids::PeerIndex;
use crate::peer::Epoch;
use crate::peer::directory::Cluster;
use crate::peer::pending::Calls;
use crate::route::balance::Balancer;

pub(super) mod calls;
pub(super) mod link;
pub(super) mod registry;
pub(super) mod writer;

use link::Link;
use registry::MasterLink;
use writer::Pipe;

/// The other servers, as one shard sees them.
pub(super) struct Peers {
    pub(super) cluster: RefCell<Arc<Cluster>>,
    /// State of routing, by server type.
    pub(super) balancers: RefCell<Vec<Balancer>>,
    /// Own id as JSON text, quotes included.
    pub(super) server_id_json: String,
    /// Calls of this shard, by peer.
    pub(super) calls: RefCell<Vec<Calls<Origin>>>,
    /// Links that this shard owns; `None` for those of other shards.
    pub(super) links: RefCell<Vec<Option<Rc<Link>>>>,
    /// Frames for servers that this shard has not heard of yet.
    pub(super) early_frames: RefCell<Vec<(PeerIndex, Epoch, Vec<u8>)>>,
    pub(super) dirty_pipes: RefCell<Vec<Rc<Pipe>>>,
    pub(super) master: RefCell<Option<Rc<MasterLink>>>,
}
