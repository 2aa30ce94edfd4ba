//! Routing: the target of a message is a handler here, a server elsewhere, or nothing.
//!
//! **Invariants**: the table is complete at start; a request costs one hash of its route, or none if it
//! came as a dictionary code.
//!
//! **Absent**: the servers of a type (`peer` knows them, [`balance`] chooses one); the handlers
//! themselves.
//!
//! **Where to start reading**: [`Routes::resolve`].

use std::collections::HashMap;

use foldhash::fast::RandomState;
use memchr::memchr;

pub mod balance;
pub mod dictionary;

/// The target of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Empty, without a dot, or with a dot in front: dropped without an answer.
    NoRoute,
    /// Not three parts: code 500, no filters run.
    Malformed,
    /// Third part is `constructor`: the session is kicked.
    Attack,
    /// The handler of this index.
    Local(usize),
    /// A type served here, but no such handler: code 500.
    NoHandler,
    /// Another server. The type is the first part of the route, or the delegate if that is the own
    /// type.
    Remote,
}

/// Returns the first part of a route.
pub fn server_type(route: &[u8]) -> &[u8] {
    &route[..memchr(b'.', route).unwrap_or(route.len())]
}

/// The routes of one shard.
#[derive(Debug, Default)]
pub struct Routes {
    handlers: HashMap<Box<[u8]>, usize, RandomState>,
    /// The first one is the own type.
    local_types: Vec<Box<[u8]>>,
    /// Unhandled routes of the own type go to the delegate.
    delegates: bool,
}

impl Routes {
    /// Builds the table from the own type and the routes of the handlers, in index order. This server
    /// serves each type that has a handler here.
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

    /// Sets whether unhandled routes of the own type go to the delegate.
    #[must_use]
    pub fn delegating(mut self, delegates: bool) -> Self {
        self.delegates = delegates;
        self
    }

    /// Returns true if this server serves the type of a route.
    pub fn is_served(&self, route: &[u8]) -> bool {
        self.is_local(server_type(route))
    }

    fn is_local(&self, server_type: &[u8]) -> bool {
        self.local_types.iter().any(|own| **own == *server_type)
    }

    /// Returns the target of a route. Routes are case-sensitive and not trimmed; parts may be empty.
    /// Bytes that are not UTF-8 match nothing.
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
    fn a_route_without_a_handler_here_goes_to_the_delegate() {
        let routes = Routes::new("connector", ["connector.a.b", "room.a.b"]).delegating(true);
        for (route, target) in [
            ("connector.a.b", Target::Local(0)),
            ("connector.a.c", Target::Remote),
            ("connector.a.constructor", Target::Attack),
            ("connector.a", Target::Malformed),
            // The delegate takes no routes of other types served here.
            ("room.a.c", Target::NoHandler),
        ] {
            assert_eq!(routes.resolve(route.as_bytes()), target, "{route}");
        }
    }
}
