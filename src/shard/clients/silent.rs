//! Connections that have not sent a whole handshake. They may use places that nobody needs; where places run short, all of
//! them together keep a share, and the oldest one makes room.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use super::Clients;
use crate::ids::Sid;
use crate::shard::Gauge;

/// Entries of connections that are no longer silent, which a queue may have beside one for each silent connection.
const STALE_MAX: usize = 64;

/// The silent connections of a shard.
pub(super) struct Silent {
    /// Percent of the places that they keep; `None` without a limit.
    percent: Option<usize>,
    /// Those of the process.
    of_process: Arc<Gauge>,
    /// Those of this shard.
    count: Cell<usize>,
    /// Those with each kind of place, in the order in which they got it. Some are no longer silent. Boxed, so that the state of
    /// a shard stays small.
    queues: Box<[RefCell<VecDeque<Sid>>; 2]>,
}

/// The places that a connection may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum Place {
    /// A socket, as many as the file limit allows.
    Socket,
    /// A client, up to `client.max_connections`.
    Client,
}

impl Silent {
    pub(super) fn new(percent: Option<usize>, of_process: Arc<Gauge>) -> Self {
        Self {
            percent,
            of_process,
            count: Cell::default(),
            queues: Box::default(),
        }
    }

    fn queue(&self, place: Place) -> &RefCell<VecDeque<Sid>> {
        &self.queues[place as usize]
    }

    /// Counts one less.
    pub(super) fn leave(&self) {
        self.of_process.leave();
        self.count.update(|count| count - 1);
    }
}

impl Clients {
    /// Counts a new connection as silent.
    pub(super) fn begin_silence(&self, sid: Sid) {
        let counted = self.silent.percent.is_some();
        self.connection(sid, |connection| connection.set_silent(counted));
        if counted {
            self.silent.of_process.enter();
            self.silent.count.update(|count| count + 1);
            self.note_place(sid, Place::Socket);
        }
    }

    /// Notes that a connection has got a place, which it gives up for others while it is silent.
    pub(super) fn note_place(&self, sid: Sid, place: Place) {
        if !self.is_silent(sid) {
            return;
        }
        let mut queue = self.silent.queue(place).borrow_mut();
        queue.push_back(sid);
        if queue.len() > 2 * self.silent.count.get() + STALE_MAX {
            queue.retain(|sid| self.is_silent(*sid));
        }
    }

    /// Notes that a connection has sent a whole handshake.
    pub(in crate::shard) fn end_silence(&self, sid: Sid) {
        if self.connection(sid, |connection| connection.set_silent(false)) == Some(true) {
            self.silent.leave();
        }
    }

    fn is_silent(&self, sid: Sid) -> bool {
        self.connection(sid, |connection| connection.is_silent()) == Some(true)
    }

    /// Returns the silent connection that makes room, where places run short and silent ones have more than their share.
    pub(in crate::shard) fn silent_to_cut(&self, place: Place) -> Option<Sid> {
        let of = match place {
            Place::Socket => &self.process_sockets,
            Place::Client => &self.process_connections,
        };
        let share = (of.max().saturating_mul(self.silent.percent?) / 100).max(1);
        let is_short = of.count().saturating_add(share) > of.max();
        if !is_short || self.silent.of_process.count() <= share {
            return None;
        }
        let mut queue = self.silent.queue(place).borrow_mut();
        while let Some(sid) = queue.pop_front() {
            if self.is_silent(sid) {
                return Some(sid);
            }
        }
        None
    }
}
