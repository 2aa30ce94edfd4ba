//! The clients of a shard: their connections, from the accepted socket to its end, and the packages for them.
//!
//! **Absent**: the other parts of the shard. A method returns what happened, and `shard/dispatch` reacts.
//!
//! **Where to start reading**: `connection.rs`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::{Gauge, Seed};
use crate::checked::CheckedConfig;
use crate::client::Rules;
use crate::client::addresses::Addresses;
use crate::client::coder::Coder;
use crate::client::handshake::HandshakeReplies;
use crate::client::heartbeat::{Timeouts, Wheel};
use crate::client::host_filter::HostFilter;
use crate::client::rate::ReadRate;
use crate::client::transport::Health;
use crate::error::CloseReason;
use crate::handler::Router;
use crate::net::clock;
use crate::push::select::Selector;
use crate::route::dictionary::Dictionary;
use crate::session::Identity;
use crate::session::slab::Slab;
use crate::shard::tls::HandshakeLine;

pub(super) mod accept;
pub mod blacklist;
pub(super) mod connection;
pub(super) mod fanout;
pub(super) mod handshake;
mod receiver;
pub(super) mod route;
pub(super) mod silent;
mod tls;

use connection::Connection;
use silent::Silent;

/// The clients of a shard.
pub(super) struct Clients {
    /// Client sockets of the process.
    process_sockets: Arc<Gauge>,
    /// Those of them that count against `client.max_connections`.
    process_connections: Arc<Gauge>,
    /// Those that have not sent a whole handshake.
    silent: Silent,
    rules: Rules,
    /// Boxed: no message passes it.
    handshake: Box<HandshakeReplies>,
    coder: Coder,
    /// Text of a message while it is looked at.
    scratch: Cell<Vec<u8>>,
    timeouts: Timeouts,
    rate: ReadRate,
    /// TLS handshakes that wait for their turn.
    handshakes: HandshakeLine,
    /// The addresses of clients, where a limit for them is set.
    addresses: Option<Arc<Addresses>>,
    host_filter: RefCell<Arc<HostFilter>>,
    connections: RefCell<Slab<Connection>>,
    /// Identity of a session before it is bound or has values.
    anonymous: Rc<Identity>,
    /// The reason why no further clients are taken.
    refusal: Cell<Option<CloseReason>>,
    /// Rules that choose the push scheduler of a package.
    selector: Selector,
    wheel: RefCell<Wheel>,
}

impl Clients {
    /// Makes a shard without clients, whose application is `router`.
    pub(super) fn new(seed: &Seed, router: &Router) -> Self {
        let config = &*seed.config;
        let handlers = config.handler_routes.iter().map(String::as_str);
        let dictionary = Dictionary::new(
            router.routes().chain(handlers),
            config.dictionary.iter().map(String::as_str),
        );
        let handshake =
            HandshakeReplies::new(config, config.accept.clone(), &dictionary, &seed.protos);
        let dictionary = config.client.use_dict.then_some(dictionary);
        let protos = seed.protos.clone();
        Self {
            process_sockets: seed.sockets.clone(),
            process_connections: seed.connections.clone(),
            silent: Silent::new(config.client.silent_percent, seed.silent.clone()),
            rules: Rules::new(config, seed.page, config.proxies.clone()),
            handshake: handshake.into(),
            coder: Coder::new(dictionary, protos, config.client.protobuf_check),
            scratch: Cell::default(),
            timeouts: Timeouts::new(config),
            handshakes: HandshakeLine::default(),
            rate: ReadRate::of_session(&config.client),
            addresses: seed.addresses.clone(),
            host_filter: RefCell::new(seed.host_filter.clone()),
            connections: RefCell::new(Slab::new(seed.id)),
            anonymous: Rc::default(),
            selector: config.selector.clone(),
            refusal: Cell::default(),
            wheel: RefCell::new(Wheel::new(clock::now())),
        }
    }

    /// Follows a change of the configuration.
    pub(super) fn follow(&self, config: &CheckedConfig) {
        self.rules.follow(config, config.proxies.clone());
        let max = config.client.max_connections;
        let max = max.unwrap_or(self.process_sockets.max());
        self.process_connections.set_max(max);
    }

    /// Tells health checks that this process is part of its cluster.
    pub(super) fn announce_join(&self) {
        let health = &self.rules.http.health;
        if health.get() == Health::Joining {
            health.set(Health::Serving);
        }
    }

    /// Tells health checks that this process will stop.
    pub(super) fn announce_stop(&self) {
        self.rules.http.health.set(Health::Stopping);
    }

    /// Takes no further clients: closes them with this reason.
    pub(super) fn stop(&self, reason: CloseReason) {
        self.announce_stop();
        self.refusal.set(Some(reason));
    }

    /// Returns the reason why no further clients are taken.
    pub(super) fn refusal(&self) -> Option<CloseReason> {
        self.refusal.get()
    }

    /// Returns the number of clients of the process.
    pub(super) fn process_count(&self) -> usize {
        self.process_connections.count()
    }
}
