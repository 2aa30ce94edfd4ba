//! The live trace of sessions: an operator sees their messages as they come and go.
//!
//! A shard without a traced session pays one look at a flag for each message.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::ids::Sid;
use crate::limits::TRACES_PER_SHARD_MAX;
use crate::net::clock;
use crate::wire::message::MessageKind;

/// The one who follows a trace. The shard calls it, so it must not block.
pub trait TraceSink: fmt::Debug + Send + Sync {
    /// Takes an event. It drops and counts those that it has no room for.
    fn take(&self, event: TraceEvent);

    /// Returns false when nobody follows the trace any more.
    fn is_open(&self) -> bool;

    /// Returns whether events have the bodies of their messages.
    fn wants_bodies(&self) -> bool;
}

/// An event of a traced session.
#[derive(Debug)]
pub struct TraceEvent {
    /// The session.
    pub sid: Sid,
    /// The time by the clock of this process.
    pub at: Instant,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// The event.
    pub what: Traced,
}

/// The sessions of a trace.
#[derive(Debug)]
pub enum TraceTarget {
    /// A session of the shard, until it closes.
    Session(Sid),
    /// Each session that is bound to this uid from now on.
    Uid(Box<str>),
}

/// A kind of event.
#[derive(Debug)]
pub enum Traced {
    /// The trace of the session begins.
    Begun,
    /// The session is left out, because its shard traces as many as it may.
    LeftOut,
    /// A message of the client, or one for it.
    Message {
        /// Its kind, which says the direction.
        kind: MessageKind,
        /// 0 for a notify and a push.
        id: u32,
        /// `None` for a response, whose id is that of its request.
        route: Option<Box<str>>,
        /// Size of the body.
        bytes: usize,
        /// The body, if the sink wants it.
        body: Option<Box<[u8]>>,
    },
    /// The session has closed, for this reason.
    Closed(&'static str),
}

/// The traces of a shard. Bound: [`TRACES_PER_SHARD_MAX`] sessions, and as many uids; a further one is left out.
#[derive(Default)]
pub(super) struct Traces {
    is_on: Cell<bool>,
    /// Boxed, because nearly all shards have none.
    sinks: Box<Sinks>,
}

type Sink = Arc<dyn TraceSink>;

/// The sinks of sessions, and those of uids.
#[derive(Default)]
struct Sinks {
    sessions: RefCell<Vec<(Sid, Sink)>>,
    uids: RefCell<Vec<(Box<str>, Sink)>>,
}

impl Traces {
    /// Returns whether a session is traced. Cost: a flag, where no session of this shard is.
    #[inline]
    pub(super) fn follow(&self, sid: Sid) -> bool {
        self.is_on.get()
            && self
                .sinks
                .sessions
                .borrow()
                .iter()
                .any(|(traced, _)| *traced == sid)
    }

    /// Begins the trace of a session, unless its sink follows the session already.
    pub(super) fn begin(&self, sid: Sid, sink: Sink) {
        self.keep(|_, sink| sink.is_open());
        let mut sinks = self.sinks.sessions.borrow_mut();
        let is_same = |(traced, other): &(Sid, Sink)| *traced == sid && Arc::ptr_eq(other, &sink);
        if sinks.iter().any(is_same) {
            return;
        }
        if sinks.len() == TRACES_PER_SHARD_MAX {
            return sink.take(event(sid, Traced::LeftOut));
        }
        sink.take(event(sid, Traced::Begun));
        sinks.push((sid, sink));
        self.is_on.set(true);
    }

    /// Begins the trace of each session that is bound to a uid later.
    pub(super) fn begin_uid(&self, uid: &str, sink: Sink) {
        let mut uids = self.sinks.uids.borrow_mut();
        uids.retain(|(_, sink)| sink.is_open());
        if uids.len() < TRACES_PER_SHARD_MAX {
            uids.push((uid.into(), sink));
        }
    }

    /// Begins the traces of a session that was bound.
    pub(super) fn bound(&self, sid: Sid, uid: &str) {
        for (traced, sink) in &*self.sinks.uids.borrow() {
            if **traced == *uid && sink.is_open() {
                self.begin(sid, sink.clone());
            }
        }
    }

    /// Tells the sinks of a session of a message. `message` makes it, with the body or without.
    pub(super) fn message(&self, sid: Sid, message: impl Fn(bool) -> Traced) {
        self.keep(|traced, sink| {
            let is_open = sink.is_open();
            if traced == sid && is_open {
                sink.take(event(sid, message(sink.wants_bodies())));
            }
            is_open
        });
    }

    /// Ends the traces of a session that has closed.
    pub(super) fn end(&self, sid: Sid, reason: &'static str) {
        self.keep(|traced, sink| {
            if traced == sid {
                sink.take(event(sid, Traced::Closed(reason)));
            }
            traced != sid
        });
    }

    fn keep(&self, stays: impl Fn(Sid, &dyn TraceSink) -> bool) {
        let mut sinks = self.sinks.sessions.borrow_mut();
        sinks.retain(|(sid, sink)| stays(*sid, &**sink));
        self.is_on.set(!sinks.is_empty());
    }
}

fn event(sid: Sid, what: Traced) -> TraceEvent {
    TraceEvent {
        sid,
        at: clock::now(),
        unix_ms: clock::unix_ms() as u64,
        what,
    }
}
