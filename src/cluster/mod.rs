//! Who exists: the other servers by type.
//!
//! **Invariants**: the list of a type keeps the order in which its servers became known, which
//! routing counts on; a server's [`PeerIndex`] never changes.
//!
//! **Absent**: links and calls (`rpc`), which shard owns a link (`shard/dispatch.rs`).

use crate::config::Server;
use crate::ids::PeerIndex;
use crate::limits::SERVERS_MAX;

/// The servers that calls can go to. Fixed at start.
#[derive(Debug, Default)]
pub struct Cluster {
    servers: Vec<Server>,
    types: Vec<ServerType>,
}

/// One server type.
#[derive(Debug)]
pub struct ServerType {
    /// Its name.
    pub name: String,
    /// Its servers, in order.
    pub servers: Vec<PeerIndex>,
}

impl Cluster {
    /// From the configured list; at most `limits::SERVERS_MAX` are taken.
    pub fn new(servers: &[Server]) -> Self {
        let mut cluster = Self::default();
        for server in servers.iter().take(SERVERS_MAX) {
            let peer = PeerIndex(cluster.servers.len() as u16);
            cluster.servers.push(server.clone());
            match cluster
                .types
                .iter_mut()
                .find(|known| known.name == server.server_type)
            {
                Some(known) => known.servers.push(peer),
                None => cluster.types.push(ServerType {
                    name: server.server_type.clone(),
                    servers: vec![peer],
                }),
            }
        }
        cluster
    }

    /// All servers, by [`PeerIndex`].
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// All types, in the order they became known.
    pub fn types(&self) -> &[ServerType] {
        &self.types
    }
}

const _: () = assert!(SERVERS_MAX <= u16::MAX as usize + 1);
