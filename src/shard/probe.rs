//! The probe of the port for clients. The operators' port connects to it, and the shard that accepts the connection
//! closes it: before blacklists, limits and proxies, and without a counter.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

/// The address of the connection that probes at the moment. It is one of this machine and its port belongs to this
/// process, so no client has it.
#[derive(Debug, Default)]
pub struct Probe(ArcSwapOption<SocketAddr>);

impl Probe {
    /// Announces a connection before it opens, or the end of a probe.
    pub(crate) fn announce(&self, address: Option<SocketAddr>) {
        self.0.store(address.map(Arc::new));
    }

    /// Returns whether an accepted connection is the one that was announced. A socket of IPv6 sees IPv4 addresses in
    /// its own form.
    pub(super) fn is_from(&self, address: SocketAddr) -> bool {
        let announced = self.0.load();
        announced.as_ref().is_some_and(|probe| {
            probe.port() == address.port() && probe.ip() == address.ip().to_canonical()
        })
    }
}
