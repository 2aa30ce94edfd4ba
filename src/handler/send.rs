//! What an application has to say about packages on their way out: which push scheduler takes
//! them, and which sessions a broadcast skips.

use serde_json::Value;

use super::Session;

/// What is about to be sent, as [`Router::select_scheduler`](super::Router::select_scheduler) sees
/// it. Bodies are JSON text, whatever they are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending<'a> {
    /// The response to a request.
    Response {
        /// Id of the request.
        id: u32,
        /// The body.
        body: &'a [u8],
    },
    /// A push to sessions or uids, whatever their number.
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
    /// Route of a push or broadcast.
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

/// To whom a broadcast goes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BroadcastOptions {
    /// Only to sessions with a uid. Pomelo: `binded`.
    pub bound_only: bool,
    /// For the broadcast filter; null where the sender gave none. Pomelo: `filterParam`.
    pub filter_param: Value,
}

/// Names a push scheduler.
pub(crate) type SelectScheduler = Box<dyn for<'a> Fn(&Sending<'a>) -> Option<&'a str>>;
/// Says whether a session gets a broadcast.
pub(crate) type BroadcastFilter = Box<dyn Fn(&Session, &[u8], &Value) -> bool>;
