//! Connections that have not sent a whole handshake. They may use places that nobody needs; where places run short, all of
//! them together keep a share, and the oldest one makes room.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use super::Clients;
use crate::ids::Sid;
use crate::shard::Gauge;

/// Connections looked at for one that makes room.
const LOOKS: usize = 64;

/// The silent connections of a shard.
pub(super) struct Silent {
    /// Percent of the places that they keep; `None` without a limit.
    percent: Option<usize>,
    /// Those of the process.
    of_process: Arc<Gauge>,
    /// Those of this shard.
    count: Cell<usize>,
    /// In the order in which they came. Some are no longer silent.
    queue: RefCell<VecDeque<Sid>>,
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
            queue: RefCell::default(),
        }
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
        let Silent {
            of_process,
            count,
            queue,
            percent,
        } = &self.silent;
        let counted = percent.is_some();
        self.connection(sid, |connection| connection.set_silent(counted));
        if !counted {
            return;
        }
        of_process.enter();
        count.update(|count| count + 1);
        queue.borrow_mut().push_back(sid);
        if queue.borrow().len() > 2 * count.get() + LOOKS {
            queue.borrow_mut().retain(|sid| self.is_silent(*sid));
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
        let mut queue = self.silent.queue.borrow_mut();
        while queue.front().is_some_and(|sid| !self.is_silent(*sid)) {
            queue.pop_front();
        }
        let has_place = |sid: &Sid| {
            self.is_silent(*sid) && (place == Place::Socket || self.has_client_place(*sid))
        };
        let at = queue.iter().take(LOOKS).position(has_place)?;
        queue.remove(at)
    }
}
