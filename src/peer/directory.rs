//! The other servers of the cluster, by type.
//!
//! **Invariants**: the list of a type keeps the order in which its servers became known, which
//! routing counts on; a [`PeerIndex`] is given once, to one id at one address, so that a
//! frame for a removed server never reaches another one.
//!
//! **Absent**: links and calls; the owner of a link (`shard/peers/calls.rs`).
//!
//! **Where to start reading**: [`Directory`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::config::Server;
use crate::ids::PeerIndex;
use crate::limits::SERVERS_MAX;
use crate::route::balance::Servers;
use crate::wire::json;

/// One server, and what is written of it into every call.
#[derive(Debug, PartialEq, Eq)]
pub struct Peer {
    /// Id, type, address.
    pub server: Server,
    /// Its type as JSON text, quotes included.
    pub type_json: String,
}

impl Peer {
    fn new(server: &Server) -> Self {
        let mut json = Vec::new();
        json::write_string(&mut json, &server.server_type);
        Self {
            server: server.clone(),
            type_json: String::from_utf8(json).expect("write_string writes UTF-8"),
        }
    }
}

/// The servers that calls can go to at one moment. Shared by all shards, never changed.
#[derive(Debug, Default)]
pub struct MemberList {
    /// Everybody ever known, by [`PeerIndex`].
    peers: Vec<Arc<Peer>>,
    types: HashMap<Box<str>, ServerType, RandomState>,
    /// Every type ever known, by [`ServerType::index`].
    type_names: Vec<Box<str>>,
    /// Differs from one list to the next.
    generation: u64,
}

/// The servers of one type.
#[derive(Debug)]
pub struct ServerType {
    /// Given once to a type, so that state of routing finds its place without a hash.
    pub index: usize,
    /// In order.
    pub servers: Vec<PeerIndex>,
}

impl MemberList {
    /// Servers of a type, if there are any. Bytes that are not UTF-8 name no type.
    pub fn of_type(&self, server_type: &[u8]) -> Option<&ServerType> {
        self.types.get(std::str::from_utf8(server_type).ok()?)
    }

    /// Every type ever known, by [`ServerType::index`].
    pub fn type_names(&self) -> &[Box<str>] {
        &self.type_names
    }

    /// The servers of a type as routing sees them.
    pub fn candidates<'a>(&'a self, server_type: &'a ServerType) -> Candidates<'a> {
        Candidates {
            members: self,
            server_type,
        }
    }

    /// A server, here or gone.
    pub fn peer(&self, peer: PeerIndex) -> &Arc<Peer> {
        &self.peers[peer.index()]
    }

    /// Number of the list: differs from one list to the next.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Servers ever known.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// True while the server is listed.
    pub fn is_listed(&self, peer: PeerIndex) -> bool {
        let server_type = self.of_type(self.peer(peer).server.server_type.as_bytes());
        server_type.is_some_and(|known| known.servers.contains(&peer))
    }

    /// The servers listed now, in the order in which they became known.
    pub fn listed(&self) -> BTreeSet<PeerIndex> {
        let listed = self.types.values().flat_map(|known| &known.servers);
        listed.copied().collect()
    }

    /// Hosts of the servers listed now, as the list has them: addresses and names, each once.
    pub fn hosts(&self) -> BTreeSet<&str> {
        let listed = self.types.values().flat_map(|known| &known.servers);
        listed.map(|peer| &*self.peer(*peer).server.host).collect()
    }
}

/// The servers of a type as routing sees them.
#[derive(Debug, Clone, Copy)]
pub struct Candidates<'a> {
    members: &'a MemberList,
    server_type: &'a ServerType,
}

impl Servers for Candidates<'_> {
    fn count(&self) -> usize {
        self.server_type.servers.len()
    }

    fn id(&self, index: usize) -> &str {
        &self.members.peer(self.server_type.servers[index]).server.id
    }

    fn weight(&self, index: usize) -> u32 {
        let peer = self.members.peer(self.server_type.servers[index]);
        peer.server.weight.unwrap_or(0)
    }

    fn generation(&self) -> u64 {
        self.members.generation
    }
}

/// The list as it changes; makes a [`MemberList`] after each change. Kept by one shard.
///
/// Bound: `limits::SERVERS_MAX` at one time; more are not taken.
#[derive(Debug, Default)]
pub struct Directory {
    /// In the order they became known.
    listed: Vec<PeerIndex>,
    peers: Vec<Arc<Peer>>,
    type_names: Vec<Box<str>>,
    generation: u64,
}

impl Directory {
    /// Adds a server, or replaces the one with its id in place; false when there are too many.
    pub fn add(&mut self, server: &Server) -> bool {
        let peer = self.peer_index(server);
        let place = self
            .listed
            .iter()
            .position(|known| self.peers[known.index()].server.id == server.id);
        match place {
            Some(place) => self.listed[place] = peer,
            None if self.listed.len() >= SERVERS_MAX => return false,
            None => self.listed.push(peer),
        }
        self.check_invariants();
        true
    }

    /// Removes a server.
    pub fn remove(&mut self, id: &str) {
        let peers = &self.peers;
        self.listed
            .retain(|peer| peers[peer.index()].server.id != id);
        self.check_invariants();
    }

    /// Returns the listed servers, in order.
    pub fn listed(&self) -> Vec<Arc<Peer>> {
        let peer = |index: &PeerIndex| self.peers[index.index()].clone();
        self.listed.iter().map(peer).collect()
    }

    /// True when a server of this id is listed.
    pub fn has(&self, id: &str) -> bool {
        self.listed
            .iter()
            .any(|peer| self.peers[peer.index()].server.id == id)
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.listed.clear();
    }

    /// Returns the listed servers by type.
    pub fn snapshot(&mut self) -> Arc<MemberList> {
        let mut types: HashMap<Box<str>, ServerType, RandomState> = HashMap::default();
        for peer in &self.listed {
            let name = self.peers[peer.index()].server.server_type.as_str();
            let known = self.type_names.iter().position(|known| **known == *name);
            let index = known.unwrap_or_else(|| {
                self.type_names.push(name.into());
                self.type_names.len() - 1
            });
            let server_type = types.entry(name.into()).or_insert_with(|| ServerType {
                index,
                servers: Vec::new(),
            });
            server_type.servers.push(*peer);
        }
        let servers = types.values().map(|known| known.servers.len());
        assert_eq!(servers.sum::<usize>(), self.listed.len());
        assert!(types.len() <= self.type_names.len());
        self.check_invariants();
        self.generation += 1;
        Arc::new(MemberList {
            peers: self.peers.clone(),
            types,
            type_names: self.type_names.clone(),
            generation: self.generation,
        })
    }

    fn check_invariants(&self) {
        assert!(self.listed.len() <= SERVERS_MAX);
        debug_assert!(
            self.listed
                .iter()
                .all(|peer| peer.index() < self.peers.len()),
            "a listed server was never known"
        );
        debug_assert!(
            self.listed.iter().collect::<BTreeSet<_>>().len() == self.listed.len(),
            "a server is listed twice"
        );
    }

    fn peer_index(&mut self, server: &Server) -> PeerIndex {
        let known = self.peers.iter().position(|known| known.server == *server);
        let index = known.unwrap_or_else(|| {
            self.peers.push(Arc::new(Peer::new(server)));
            self.peers.len() - 1
        });
        PeerIndex(index as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: &str, port: u16) -> Server {
        Server {
            id: id.into(),
            server_type: "chat".into(),
            host: "127.0.0.1".into(),
            port,
            ..Server::default()
        }
    }

    fn ports(members: &MemberList) -> Vec<u16> {
        members
            .of_type(b"chat")
            .unwrap()
            .servers
            .iter()
            .map(|peer| members.peer(*peer).server.port)
            .collect()
    }

    #[test]
    fn a_server_that_comes_again_keeps_its_place_or_goes_to_the_end() {
        let mut directory = Directory::default();
        for (id, port) in [("a", 1), ("b", 2), ("c", 3)] {
            assert!(directory.add(&server(id, port)));
        }
        assert!(directory.add(&server("b", 9)));
        assert_eq!(ports(&directory.snapshot()), [1, 9, 3]);
        directory.remove("a");
        assert!(directory.add(&server("a", 1)));
        let members = directory.snapshot();
        assert_eq!(ports(&members), [9, 3, 1]);
        assert_eq!(
            members.of_type(b"chat").unwrap().servers[2],
            PeerIndex(0),
            "the same server, the same index"
        );
        assert_eq!(members.peer_count(), 4);
        assert!(members.is_listed(PeerIndex(0)) && !members.is_listed(PeerIndex(1)));
    }

    #[test]
    fn one_server_too_many_is_not_taken() {
        let mut directory = Directory::default();
        for index in 0..SERVERS_MAX {
            assert!(directory.add(&server(&index.to_string(), 1)));
        }
        assert!(!directory.add(&server("more", 1)));
        assert!(
            directory.add(&server("7", 2)),
            "a server that replaces another one does not add to the count"
        );
    }
}
