//! The clients of a shard: their connections, from the accepted socket to its end, and the packages for them.
//!
//! **Absent**: the other parts of the shard. A method returns what happened, and `dispatch.rs` reacts.
//!
//! **Where to start reading**: `connection.rs`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::Gauge;
use crate::client::Rules;
use crate::client::coder::Coder;
use crate::client::handshake::HandshakeReplies;
use crate::client::heartbeat::{Timeouts, Wheel};
use crate::client::host_filter::HostFilter;
use crate::push::select::Selector;
use crate::session::Identity;
use crate::session::slab::Slab;

pub(super) mod accept;
pub mod blacklist;
pub(super) mod connection;
pub(super) mod fanout;
mod handshake;

use connection::Connection;

/// The clients of a shard.
pub(super) struct Clients {
    /// Client sockets of the process.
    pub(super) process_sockets: Arc<Gauge>,
    /// Those of them that count against `client.max_connections`.
    pub(super) process_connections: Arc<Gauge>,
    pub(super) rules: Rules,
    pub(super) handshake: HandshakeReplies,
    pub(super) coder: Coder,
    /// Text of a message while it is looked at.
    pub(super) scratch: Cell<Vec<u8>>,
    pub(super) timeouts: Timeouts,
    pub(super) host_filter: RefCell<Arc<HostFilter>>,
    pub(super) connections: RefCell<Slab<Connection>>,
    /// Identity of a session before it is bound or has values.
    pub(super) nobody: Rc<Identity>,
    /// Rules that choose the push scheduler of a package.
    pub(super) selector: Selector,
    pub(super) wheel: RefCell<Wheel>,
}
