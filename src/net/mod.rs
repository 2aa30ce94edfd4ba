//! Sockets, timers and the clock: the layer above glommio.
//!
//! Code above this layer runs over sockets by the real clock, or within one thread over [`memory`] by a
//! virtual clock, and sees no difference.
//!
//! **Invariants**: only this layer reads the time ([`clock`]) and starts tasks ([`task`]); a shard sleeps only in
//! its [`poller`]; a read buffer is lent for one poll, so an idle connection holds none.
//!
//! **Absent**: the meaning of any byte.
//!
//! **Where to start reading**: [`drive::read`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

pub(crate) mod bell;
pub(crate) mod blocking;
pub(crate) mod clock;
pub(crate) mod dial;
pub(crate) mod drive;
pub(crate) mod memory;
mod pace;
pub(crate) mod poller;
pub(crate) mod socket;
pub(crate) mod task;
pub(crate) mod tls;
pub(crate) mod unix_socket;

/// The network of a shard.
#[derive(Debug)]
pub enum Network {
    /// Sockets of the kernel, watched by a poller.
    Kernel(Rc<poller::Poller>),
    /// Queues in memory.
    Memory(memory::MemoryNetwork),
}

/// The address of a client of a unix socket, which has none. No client of TCP has port 0.
pub(crate) const UNIX_CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Returns the address at which this machine reaches a listener. A wildcard stands for the loopback of IPv4, because
/// `[::]` takes IPv4 too, and a machine may have no `::1`.
pub(crate) fn reachable(mut listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        listener.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    listener
}
