//! Requests about sessions between shards, and the index of the shard that coordinates them.
//!
//! Shard 0 is the coordinator: it keeps the uid index and sends each request on to the shards of the sessions. A
//! session's own shard decides whether it lives, and reports every bind and its end in order, so the index never
//! holds a session that has ended.
//!
//! ```text
//!   peer ──call──▶ coordinator ──Request──▶ session's shard ──Bound──▶ coordinator (index)
//!        ◀─answer─             ◀──Reply───                               the same way, in order
//! ```

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use slab::Slab;
use smallvec::SmallVec;

use super::origin::ReplyTo;
use super::parcel::SessionReply;
use crate::ids::{ShardId, Sid};
use crate::limits::REQUESTS_PENDING_MAX;
use crate::peer::pomelo::master::{LoginEntry, Statistics};
use crate::session::Uid;
use crate::session::binding::Binding;
use crate::wire::json;

/// The shard that keeps the index and talks to the cluster.
pub(super) const COORDINATOR: ShardId = ShardId(0);

/// The pending requests of one shard, and on the coordinator the index of bound sessions.
#[derive(Default)]
pub(super) struct Coordinator {
    binding: RefCell<Binding>,
    /// By ticket. Bound: [`REQUESTS_PENDING_MAX`].
    pending: RefCell<Slab<Pending>>,
}

/// A request without a reply yet.
pub(super) struct Pending {
    pub(super) reply_to: ReplyTo,
    pub(super) purpose: Purpose,
}

/// Use of the reply to a request.
pub(super) enum Purpose {
    /// The reply goes to the one who waits, as it is.
    Answer,
    /// A bind that holds a reservation of its uid.
    Reserved(Sid, Uid),
    /// One of several exports that make a list.
    Part(Rc<Parts>, usize),
}

/// Replies that become one list.
pub(super) struct Parts {
    replies: RefCell<Vec<Option<Vec<u8>>>>,
    missing: Cell<usize>,
}

impl Parts {
    /// Waits for `count` replies.
    pub(super) fn new(count: usize) -> Rc<Self> {
        debug_assert!(count > 0, "a list needs at least one session");
        Rc::new(Self {
            replies: RefCell::new(vec![None; count]),
            missing: Cell::new(count),
        })
    }

    /// Takes one reply; returns the list once it is complete.
    fn complete(&self, index: usize, reply: SessionReply) -> Option<SessionReply> {
        debug_assert!(self.missing.get() > 0, "a list is complete once");
        debug_assert!(self.replies.borrow()[index].is_none());
        self.replies.borrow_mut()[index] = reply.ok().flatten();
        self.missing.update(|missing| missing - 1);
        let is_complete = self.missing.get() == 0;
        is_complete.then(|| Ok(list(self.replies.take().into_iter().flatten())))
    }
}

impl Coordinator {
    /// Keeps a request until its reply comes, and returns its ticket. Gives it back where too many wait.
    pub(super) fn begin(&self, request: Pending) -> Result<u64, Pending> {
        let mut pending = self.pending.borrow_mut();
        if pending.len() >= REQUESTS_PENDING_MAX {
            return Err(request);
        }
        let ticket = pending.insert(request);
        debug_assert!(ticket < REQUESTS_PENDING_MAX, "tickets are used again");
        Ok(ticket as u64)
    }

    /// Ends the request of a ticket.
    pub(super) fn end(&self, ticket: u64) -> Option<Pending> {
        self.pending.borrow_mut().try_remove(ticket as usize)
    }

    /// Applies the reply to a request; returns who gets an answer now, and the answer.
    pub(super) fn complete(
        &self,
        request: Pending,
        reply: SessionReply,
    ) -> Option<(ReplyTo, SessionReply)> {
        let reply = match request.purpose {
            Purpose::Answer => reply,
            Purpose::Reserved(sid, uid) => {
                self.binding.borrow_mut().release(uid.text(), sid);
                reply
            }
            Purpose::Part(parts, index) => parts.complete(index, reply)?,
        };
        Some((request.reply_to, reply))
    }

    /// Reserves a uid for a session, where only one may have it; false when another one has it.
    pub(super) fn reserve(&self, uid: &Uid, sid: Sid) -> bool {
        self.binding.borrow_mut().reserve(uid.text(), sid)
    }

    /// Adds a bound session to the index; returns the other sessions of its uid.
    pub(super) fn bound(
        &self,
        sid: Sid,
        uid: &Uid,
        address: &str,
        now_ms: u64,
    ) -> SmallVec<[Sid; 1]> {
        self.binding.borrow_mut().bound(sid, uid, address, now_ms)
    }

    /// Removes a session from the index.
    pub(super) fn unbound(&self, sid: Sid) {
        self.binding.borrow_mut().unbound(sid);
    }

    /// Returns the number of bound sessions.
    pub(super) fn bound_count(&self) -> usize {
        self.binding.borrow().session_count()
    }

    /// Returns the sessions of a uid, in the order they were bound.
    pub(super) fn sessions(&self, uid: &str) -> Vec<Sid> {
        self.binding.borrow().sessions(uid).to_vec()
    }

    /// Appends the sessions of a uid to `sids`, in the order they were bound.
    pub(super) fn append_sessions(&self, uid: &str, sids: &mut Vec<Sid>) {
        sids.extend_from_slice(self.binding.borrow().sessions(uid));
    }

    /// Returns the connection statistics of a process with `connections` clients (C11–C14).
    pub(super) fn statistics(&self, connections: usize) -> Statistics {
        let binding = self.binding.borrow();
        let logins = binding.logins().into_iter().map(|login| LoginEntry {
            time_ms: login.login_time_ms,
            uid: login.uid.json().to_owned(),
            address: login.address.to_string(),
        });
        let logins: Vec<LoginEntry> = logins.collect();
        Statistics {
            connections: connections as u64,
            logged_in: logins.len() as u64,
            logins,
        }
    }

    /// Returns `{"count":<clients>,"uids":{<uid>:<its sessions>}}`, uids in the order of their texts.
    pub(super) fn sessions_json(&self, connections: usize) -> Vec<u8> {
        let binding = self.binding.borrow();
        let uids: BTreeMap<&str, usize> = binding.uids().collect();
        let uids = uids
            .into_iter()
            .map(|(uid, count)| (uid.to_owned(), count.into()));
        let uids: serde_json::Map<_, _> = uids.collect();
        let sessions = serde_json::json!({"count": connections, "uids": uids});
        let mut text = Vec::new();
        json::write_value(&mut text, &sessions);
        text
    }
}

/// Joins texts to a JSON array; `None` when there are none.
pub(super) fn list(parts: impl Iterator<Item = Vec<u8>>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for part in parts {
        out.push(if out.is_empty() { b'[' } else { b',' });
        out.extend_from_slice(&part);
    }
    if out.is_empty() {
        return None;
    }
    out.push(b']');
    debug_assert!(json::validate(&out).is_ok());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::Slot;

    fn request() -> Pending {
        Pending {
            reply_to: ReplyTo::Handler(Rc::new(Slot::default())),
            purpose: Purpose::Answer,
        }
    }

    #[test]
    fn a_request_over_the_bound_is_given_back_until_another_one_ends() {
        let coordinator = Coordinator::default();
        for ticket in 0..REQUESTS_PENDING_MAX as u64 {
            assert_eq!(coordinator.begin(request()).ok(), Some(ticket));
        }
        assert!(coordinator.begin(request()).is_err());
        assert!(coordinator.end(7).is_some());
        assert!(coordinator.end(7).is_none(), "each ticket ends once");
        assert_eq!(coordinator.begin(request()).ok(), Some(7));
    }

    #[test]
    fn exports_become_one_list_in_their_order_without_the_missing_ones() {
        let parts = Parts::new(3);
        let reply = |text: &str| Ok(Some(text.as_bytes().to_vec()));
        assert_eq!(parts.complete(2, reply("3")), None);
        assert_eq!(parts.complete(1, Ok(None)), None);
        assert_eq!(parts.complete(0, reply("1")), Some(reply("[1,3]")));
    }
}
