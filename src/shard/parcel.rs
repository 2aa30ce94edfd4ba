//! The messages between shards, and the batch of one turn.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::trace::{TraceSink, TraceTarget};
use crate::client::host_filter::HostFilter;
use crate::error::CloseReason;
use crate::handler::BroadcastOptions;
use crate::ids::{PeerIndex, ShardId, Sid};
use crate::limits::{LINK_QUEUE_BYTES_MAX, MESH_PARCELS_MAX, SHARED_BODY_BYTES_MIN};
use crate::peer::Epoch;
use crate::peer::directory::MemberList;
use crate::push::select::Outgoing;
use crate::session::Uid;

/// One thing for another shard. Ranges are into the batch's bytes.
#[derive(Debug)]
pub enum Parcel {
    /// RPC frames for a link that the receiver owns.
    Frames {
        /// The server at the other end of the link.
        peer: PeerIndex,
        /// Life of the link that they were written for.
        epoch: Epoch,
        /// Place in the batch's bytes.
        bytes: Range<usize>,
    },
    /// An answer to a call of the receiver.
    Answer {
        /// The server that answers.
        peer: PeerIndex,
        /// Call id.
        id: u64,
        /// Place of its `resp` text in the batch's bytes.
        bytes: Range<usize>,
    },
    /// A link is open.
    LinkUp {
        /// The server at the other end.
        peer: PeerIndex,
        /// Its life.
        epoch: Epoch,
    },
    /// A link has ended.
    LinkDown {
        /// The server at the other end.
        peer: PeerIndex,
        /// The life that comes next.
        next: Epoch,
    },
    /// The list of servers has changed.
    Members(Arc<MemberList>),
    /// The blacklist has changed.
    HostFilter(Arc<HostFilter>),
    /// A package for some sessions.
    Push {
        /// The package, encoded once for all of them.
        package: Outgoing,
        /// Place of their ids in the batch's list.
        sids: Range<usize>,
    },
    /// A package for all working sessions, or some of them.
    Broadcast {
        /// The package, encoded once for all of them.
        package: Outgoing,
        /// The sessions that get it.
        options: Arc<BroadcastOptions>,
    },
    /// Kicks a session.
    Kick {
        /// The session.
        sid: Sid,
        /// By whom.
        reason: CloseReason,
        /// Text of the kick package; without one there is no package.
        text: Option<Box<str>>,
    },
    /// A session was bound.
    Bound {
        /// The session.
        sid: Sid,
        /// Its uid.
        uid: Uid,
        /// `ip:port` of its client.
        address: Box<str>,
    },
    /// A bound session was unbound or has closed.
    Unbound {
        /// The session.
        sid: Sid,
    },
    /// A request that the receiver serves.
    Request {
        /// Number of the request at its sender; the reply carries it.
        ticket: u64,
        /// The sender.
        from: ShardId,
        /// The request.
        request: Box<ShardRequest>,
    },
    /// The reply to a request of the receiver.
    Reply {
        /// Number of the request.
        ticket: u64,
        /// The result.
        reply: SessionReply,
    },
    /// A request of an operator.
    Operator(Box<(OperatorRequest, OperatorReply)>),
    /// Begins a trace.
    Trace(Box<(TraceTarget, Arc<dyn TraceSink>)>),
}

// One is moved for each message to another shard.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Parcel>() == 64);

/// A request of one shard to another about sessions.
#[derive(Debug, Clone)]
pub enum ShardRequest {
    // Served by the coordinator.
    /// Binds a session of any shard.
    Bind(Sid, Uid),
    /// Kicks all sessions of a uid.
    KickUid {
        /// Text of the uid.
        uid: Box<str>,
        /// Text of the kick package; without one there is no package.
        reason: Option<Box<str>>,
    },
    /// Pushes to all sessions of some uids.
    PushToUids {
        /// Route of the push.
        route: Box<str>,
        /// Its body.
        body: Box<[u8]>,
        /// The uids, a JSON array.
        uids: Vec<u8>,
    },
    /// Returns the connection statistics of the process.
    Statistics,
    /// Returns the number of sessions of the process and of each uid.
    Sessions,
    // Served by the shard of the session.
    /// Binds a session of the receiver; with `allowed` false, because another session has the uid, it fails
    /// unless the session has this uid already.
    BindHere {
        /// The session.
        sid: Sid,
        /// Its uid.
        uid: Uid,
        /// False when the uid is taken.
        allowed: bool,
        /// Its name, if a delegate asks.
        change: ChangeName,
    },
    /// Unbinds a session of the receiver.
    Unbind(Sid, Uid, ChangeName),
    /// Sets values of a session of the receiver.
    Import(Sid, Vec<(String, serde_json::Value)>, ChangeName),
    /// Returns the exported form of a session of the receiver.
    Export(Sid),
}

/// Raw JSON text of the name that a delegate gave to a change of a session.
pub type ChangeName = Option<Box<[u8]>>;

/// The result of a [`ShardRequest`]: JSON text, nothing, or the text of an error.
pub type SessionReply = Result<Option<Vec<u8>>, String>;

/// A request of an operator. The coordinator serves it.
#[derive(Debug)]
pub enum OperatorRequest {
    /// Returns the exported form of a session.
    Session(u64),
    /// Returns the exported form of all sessions of a uid.
    Sessions(Box<str>),
    /// Kicks a session.
    Kick {
        /// The session.
        sid: u64,
        /// Text of the kick package; without one there is no package.
        reason: Option<Box<str>>,
    },
    /// Kicks all sessions of a uid, and returns their number.
    KickUid {
        /// Text of the uid.
        uid: Box<str>,
        /// Text of the kick package; without one there is no package.
        reason: Option<Box<str>>,
    },
    /// Adds expressions to the blacklist: all of them, or none.
    AddToBlacklist(Vec<String>),
    /// Replaces the expressions of `client.blacklist`, each of which has passed its check.
    ReplaceBlacklist(Vec<String>),
}

/// Takes the answer to a request, on the thread of the shard. It must not block.
#[derive(Clone)]
pub struct OperatorReply(pub Arc<dyn Fn(SessionReply) + Send + Sync>);

impl fmt::Debug for OperatorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorReply")
    }
}

/// The parcels of one shard for another one in one turn.
#[derive(Debug, Default)]
pub struct Batch {
    /// In order.
    pub parcels: Vec<Parcel>,
    /// The bytes that ranges of the parcels point into.
    pub bytes: Vec<u8>,
    /// Receivers of pushes.
    pub sids: Vec<Sid>,
    /// Bytes of small packages; large ones count as bodies that several clients get.
    packages: usize,
}

impl Batch {
    /// Returns whether the batch refuses new work.
    pub fn is_full(&self) -> bool {
        self.parcels.len() + self.sids.len() >= MESH_PARCELS_MAX
            || self.bytes.len() >= LINK_QUEUE_BYTES_MAX
    }

    /// Returns the memory of what it carries, without texts and bodies that a parcel owns.
    pub fn held(&self) -> usize {
        let (parcels, sids) = (self.parcels.len(), self.sids.len());
        self.bytes.capacity()
            + self.packages
            + parcels * size_of::<Parcel>()
            + sids * size_of::<Sid>()
    }

    /// Returns the memory that it keeps when it is empty.
    pub fn capacity(&self) -> usize {
        let (parcels, sids) = (self.parcels.capacity(), self.sids.capacity());
        self.bytes.capacity() + parcels * size_of::<Parcel>() + sids * size_of::<Sid>()
    }

    /// Returns whether the batch has no parcels.
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.parcels.clear();
        self.bytes.clear();
        self.sids.clear();
        self.packages = 0;
    }

    /// Checks the last parcel, which alone has changed.
    fn check_invariants(&self) {
        debug_assert!(
            match self.parcels.last() {
                Some(Parcel::Frames { bytes, .. } | Parcel::Answer { bytes, .. }) =>
                    bytes.start <= bytes.end && bytes.end == self.bytes.len(),
                Some(Parcel::Push { sids, .. }) =>
                    sids.start < sids.end && sids.end == self.sids.len(),
                _ => true,
            },
            "a parcel ends before the contents of its batch"
        );
    }

    /// Appends frames for a link; frames for the same life of the same link become one parcel.
    pub fn frames(&mut self, peer: PeerIndex, epoch: Epoch, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let end = self.bytes.len();
        if let Some(Parcel::Frames {
            peer: last,
            epoch: life,
            bytes,
        }) = self.parcels.last_mut()
            && (*last, *life, bytes.end) == (peer, epoch, start)
        {
            bytes.end = end;
            return self.check_invariants();
        }
        self.parcels.push(Parcel::Frames {
            peer,
            epoch,
            bytes: start..end,
        });
        self.check_invariants();
    }

    /// Appends one receiver of a package; the receivers of one package are one parcel.
    pub fn push(&mut self, package: &Outgoing, sid: Sid) {
        let at = self.sids.len();
        self.sids.push(sid);
        if let Some(Parcel::Push {
            package: last,
            sids,
        }) = self.parcels.last_mut()
            && sids.end == at
            && last.bytes.as_ptr() == package.bytes.as_ptr()
        {
            sids.end += 1;
            return self.check_invariants();
        }
        self.count(package);
        self.parcels.push(Parcel::Push {
            package: package.clone(),
            sids: at..at + 1,
        });
        self.check_invariants();
    }

    /// Appends a package for all sessions of the receiver that the options name.
    pub fn broadcast(&mut self, package: &Outgoing, options: &Arc<BroadcastOptions>) {
        self.count(package);
        self.parcels.push(Parcel::Broadcast {
            package: package.clone(),
            options: options.clone(),
        });
    }

    fn count(&mut self, package: &Outgoing) {
        if package.bytes.len() < SHARED_BODY_BYTES_MIN {
            self.packages += package.bytes.len();
        }
    }

    /// Appends an answer.
    pub fn answer(&mut self, peer: PeerIndex, id: u64, resp: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(resp);
        self.parcels.push(Parcel::Answer {
            peer,
            id,
            bytes: start..self.bytes.len(),
        });
        self.check_invariants();
    }
}
