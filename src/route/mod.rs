//! Where a message goes: a handler here, a server elsewhere, or nowhere.
//!
//! **Invariants**: the whole table is built at start; a request costs one hash of its route, or
//! none when it came as a dictionary code.
//!
//! **Absent**: who the servers of a type are (`cluster` knows; [`balance`] chooses), handlers themselves.
//!
//! **Where to start reading**: [`Routes::resolve`].

use std::collections::HashMap;

use foldhash::fast::RandomState;
use memchr::memchr;

pub mod balance;
pub mod dictionary;

/// What becomes of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Empty, without a dot, or starting with one: dropped without an answer.
    NoRoute,
    /// Not three parts: code 500, no filters run.
    Malformed,
    /// Third part is `constructor`: the session is kicked.
    Attack,
    /// The handler of this index.
    Local(usize),
    /// A type that is handled here, but no such handler: code 500.
    NoHandler,
    /// Another server's: the type is the first part, or the delegate where that is the own one.
    Remote,
}

/// First part of a route.
pub fn server_type(route: &[u8]) -> &[u8] {
    &route[..memchr(b'.', route).unwrap_or(route.len())]
}

/// All routes of one shard.
#[derive(Debug, Default)]
pub struct Routes {
    handlers: HashMap<Box<[u8]>, usize, RandomState>,
    /// The first one is the own type.
    local_types: Vec<Box<[u8]>>,
    /// Others take what of the own type has no handler here.
    delegates: bool,
}

impl Routes {
    /// The server's own type; routes of the handlers, in index order. A type with a handler here is
    /// served here.
    pub fn new<'a>(own_type: &str, handlers: impl IntoIterator<Item = &'a str>) -> Self {
        let mut routes = Self::default();
        routes.local_types.push(own_type.as_bytes().into());
        for (index, route) in handlers.into_iter().enumerate() {
            let server_type = route.split('.').next().unwrap_or_default();
            if !routes.is_local(server_type.as_bytes()) {
                routes.local_types.push(server_type.as_bytes().into());
            }
            routes.handlers.insert(route.as_bytes().into(), index);
        }
        routes
    }

    /// What of the own type has no handler here goes to other servers.
    #[must_use]
    pub fn delegating(mut self, delegates: bool) -> Self {
        self.delegates = delegates;
        self
    }

    /// Whether the first part of a route is a type that is served here.
    pub fn is_served(&self, route: &[u8]) -> bool {
        self.is_local(server_type(route))
    }

    fn is_local(&self, server_type: &[u8]) -> bool {
        self.local_types.iter().any(|own| **own == *server_type)
    }

    /// Where a route goes. Case-sensitive, not trimmed; parts may be empty. Bytes that are not
    /// UTF-8 match nothing.
    pub fn resolve(&self, route: &[u8]) -> Target {
        hop!();
        if let Some(index) = self.handlers.get(route) {
            return Target::Local(*index);
        }
        let Some(first @ 1..) = memchr(b'.', route) else {
            return Target::NoRoute;
        };
        let (server_type, rest) = (&route[..first], &route[first + 1..]);
        let Some(second) = memchr(b'.', rest) else {
            return Target::Malformed;
        };
        let method = &rest[second + 1..];
        if memchr(b'.', method).is_some() {
            return Target::Malformed;
        }
        if method == b"constructor" {
            return Target::Attack;
        }
        if self.delegates && *self.local_types[0] == *server_type {
            return Target::Remote;
        }
        if self.is_local(server_type) {
            return Target::NoHandler;
        }
        Target::Remote
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_go_where_the_reference_sends_them() {
        let routes = Routes::new(
            "connector",
            ["connector.entryHandler.enter", "room.roomHandler.join"],
        );
        for (route, target) in [
            ("connector.entryHandler.enter", Target::Local(0)),
            ("room.roomHandler.join", Target::Local(1)),
            ("room.roomHandler.leave", Target::NoHandler),
            ("connector.entryHandler.", Target::NoHandler),
            ("connector..x", Target::NoHandler),
            ("connector.constructor.x", Target::NoHandler),
            ("Connector.entryHandler.enter", Target::Remote),
            ("connector.entryHandler.enter ", Target::NoHandler),
            ("x.y.z", Target::Remote),
            ("x.y.constructor", Target::Attack),
            ("connector.x.constructor", Target::Attack),
            ("connector.", Target::Malformed),
            ("a.b", Target::Malformed),
            ("a.b.c.d", Target::Malformed),
            ("", Target::NoRoute),
            ("abc", Target::NoRoute),
            (".", Target::NoRoute),
            (".b.c", Target::NoRoute),
        ] {
            assert_eq!(routes.resolve(route.as_bytes()), target, "{route}");
        }
        assert_eq!(routes.resolve(b"a\xff.b."), Target::Remote);
    }

    #[test]
    fn what_has_no_handler_here_goes_to_the_delegate() {
        let routes = Routes::new("connector", ["connector.a.b", "room.a.b"]).delegating(true);
        for (route, target) in [
            ("connector.a.b", Target::Local(0)),
            ("connector.a.c", Target::Remote),
            ("connector.a.constructor", Target::Attack),
            ("connector.a", Target::Malformed),
            // Another type that is served here is none of the delegate's business.
            ("room.a.c", Target::NoHandler),
        ] {
            assert_eq!(routes.resolve(route.as_bytes()), target, "{route}");
        }
    }
}
