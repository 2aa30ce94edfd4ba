//! Choices of the application about outgoing packages: their push scheduler, and the sessions that a
//! broadcast skips.

use serde_json::Value;

/// An outgoing message, as [`Router::select_scheduler`](super::Router::select_scheduler) sees it. Its
/// body is JSON text, regardless of its form on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending<'a> {
    /// The response to a request.
    Response {
        /// Id of the request.
        id: u32,
        /// The body.
        body: &'a [u8],
    },
    /// A push to any number of sessions or uids.
    Push {
        /// The whole route.
        route: &'a str,
        /// The body.
        body: &'a [u8],
    },
    /// A push to all sessions, or to the bound ones.
    Broadcast {
        /// The whole route.
        route: &'a str,
        /// The body.
        body: &'a [u8],
    },
}

impl<'a> Sending<'a> {
    /// Returns the route of a push or broadcast.
    pub fn route(&self) -> Option<&'a str> {
        match *self {
            Self::Response { .. } => None,
            Self::Push { route, .. } | Self::Broadcast { route, .. } => Some(route),
        }
    }

    /// The body.
    pub fn body(&self) -> &'a [u8] {
        match *self {
            Self::Response { body, .. }
            | Self::Push { body, .. }
            | Self::Broadcast { body, .. } => body,
        }
    }
}

/// The receivers of a broadcast.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BroadcastOptions {
    /// Sends only to sessions with a uid. Pomelo: `binded`.
    pub bound_only: bool,
    /// Value for the broadcast filter, or null. Pomelo: `filterParam`.
    pub filter_param: Value,
}
