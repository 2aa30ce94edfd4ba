//! The callers that wait for the answer to a call.

use std::rc::Rc;

use super::parcel::{OperatorReply, SessionReply};
use super::peers::writer::PeerWriter;
use crate::handler::{CallResult, Outcome, Slot};
use crate::ids::{ShardId, Sid};
use crate::wire::protobuf::ProtoId;

/// The one who waits for the answer to a call of this shard.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// A client, and the route of its message for the log.
    Client(ResponseTarget, ShortRoute),
    /// A client's message that passes filters first and last.
    Filtered(Rc<Slot<Outcome<'static>>>),
    /// A handler that called another server.
    Call(Box<Caller>),
    /// A peer whose call the delegate executes: the writer of its connection, and the id of its call.
    Peer(Rc<PeerWriter>, Box<[u8]>),
    /// Nobody: the call is a notice for a delegate.
    Notice,
}

/// The session that a response is for, and the form of the response.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponseTarget {
    pub(super) sid: Sid,
    /// 0 for a notify, which has no response.
    pub(super) id: u32,
    pub(super) proto: Option<ProtoId>,
}

// Each message in flight holds one.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<ResponseTarget>() == 16);

/// A handler that waits for the result of its call.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) slot: Rc<Slot<CallResult>>,
    /// The session whose messages in flight include this call.
    pub(super) sid: Option<Sid>,
}

/// The one who waits for the reply to a request about sessions.
#[derive(Debug, Clone)]
pub(super) enum ReplyTo {
    /// A peer: the writer of its connection, and the id of its call.
    Peer(Rc<PeerWriter>, Box<[u8]>),
    /// A handler of this shard.
    Handler(Rc<Slot<SessionReply>>),
    /// A pending request of a shard, by its ticket.
    Shard(ShardId, u64),
    /// An operator.
    Operator(OperatorReply),
}

/// Route of a forwarded message, for the log line of a failure; cut after 47 bytes.
///
/// Cost: a copy of a few bytes for each forwarded message, no allocation.
#[derive(Debug, Clone)]
pub(super) struct ShortRoute {
    length: u8,
    bytes: [u8; Self::BYTES_MAX],
}

impl ShortRoute {
    const BYTES_MAX: usize = 47;

    pub(super) fn new(route: &str) -> Self {
        let cut = &route.as_bytes()[..route.floor_char_boundary(Self::BYTES_MAX)];
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[..cut.len()].copy_from_slice(cut);
        Self {
            length: cut.len() as u8,
            bytes,
        }
    }

    pub(super) fn text(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

// Each call in flight holds one.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Origin>() == 72);
