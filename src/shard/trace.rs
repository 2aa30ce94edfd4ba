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

/// A kind of event.
#[derive(Debug)]
pub enum Traced {
    /// The trace of the session begins.
    Begun,
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

/// The traces of a shard. Bound: [`TRACES_PER_SHARD_MAX`]; a further one ends at once.
#[derive(Default)]
pub(super) struct Traces {
    is_on: Cell<bool>,
    /// Boxed, because nearly all shards have none.
    sinks: Box<RefCell<Sinks>>,
}

type Sinks = Vec<(Sid, Arc<dyn TraceSink>)>;

impl Traces {
    /// Returns whether a session is traced. Cost: a flag, where no session of this shard is.
    #[inline]
    pub(super) fn follow(&self, sid: Sid) -> bool {
        self.is_on.get() && self.sinks.borrow().iter().any(|(traced, _)| *traced == sid)
    }

    pub(super) fn begin(&self, sid: Sid, sink: Arc<dyn TraceSink>) {
        self.keep(|_, sink| sink.is_open());
        if self.sinks.borrow().len() < TRACES_PER_SHARD_MAX {
            sink.take(event(sid, Traced::Begun));
            self.sinks.borrow_mut().push((sid, sink));
            self.is_on.set(true);
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
        let mut sinks = self.sinks.borrow_mut();
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
