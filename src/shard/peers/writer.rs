//! Bytes on their way to another server, in any protocol: a link that this shard opened, a connection that a peer
//! opened, or the master's.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::Peers;
use crate::net::socket::Socket;
use crate::net::task::spawn_behind;
use crate::push::{Outbox, QueuePool};
use crate::shard::turn::Flush;
use crate::shard::{Core, Shard};

/// The queue of bytes for one peer. It outlives its socket: bytes that are sent without one wait for the next.
///
/// Bound: `rpc.queue_bytes_max`; past it the socket is shut down, and its reader sees the end. One frame always fits.
#[derive(Default)]
pub(in crate::shard) struct PeerWriter {
    outbox: RefCell<Outbox>,
    socket: RefCell<Option<Rc<Socket>>>,
    /// The shard's list of writers to flush has it.
    dirty: Cell<bool>,
    /// The queue has an answer to a call of this peer since the last flush.
    has_answers: Cell<bool>,
    /// The queue went over its bound.
    overflowed: Cell<bool>,
    /// Calls from this peer that remotes are still executing.
    in_progress: Cell<usize>,
    /// Memory of the frame from this peer that is not complete.
    partial: Cell<usize>,
}

impl std::fmt::Debug for PeerWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerWriter")
    }
}

impl PeerWriter {
    /// Makes a writer that is open from the start.
    pub(super) fn to(socket: Rc<Socket>) -> Self {
        Self {
            socket: RefCell::new(Some(socket)),
            ..Self::default()
        }
    }

    pub(in crate::shard) fn is_open(&self) -> bool {
        self.socket.borrow().is_some()
    }

    /// Counts one more call that a remote executes; false where `max` of them do.
    pub(in crate::shard) fn begin_remote(&self, max: usize) -> bool {
        let begins = self.in_progress.get() < max;
        self.in_progress.update(|calls| calls + usize::from(begins));
        debug_assert!(self.in_progress.get() <= max);
        begins
    }

    /// Counts one less.
    pub(in crate::shard) fn end_remote(&self) {
        debug_assert!(self.in_progress.get() > 0);
        self.in_progress.update(|calls| calls - 1);
    }

    /// Returns whether remotes execute calls of this peer.
    pub(super) fn has_calls_in_progress(&self) -> bool {
        self.in_progress.get() > 0
    }

    /// Shuts the socket down; its reader sees the end.
    pub(in crate::shard) fn shutdown(&self) {
        if let Some(socket) = &*self.socket.borrow() {
            socket.shutdown();
        }
    }

    /// Notes that the queue gets an answer, which waits for a full inbox of another shard.
    pub(super) fn note_answer(&self) {
        self.has_answers.set(true);
    }

    /// Returns the number of bytes that wait for the peer.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.outbox.borrow().bytes()
    }

    /// Returns true once the queue went over its bound.
    pub(super) fn has_overflowed(&self) -> bool {
        self.overflowed.get()
    }
}

impl Peers {
    /// Connects a writer to a socket. Its bytes leave at the end of the turn.
    pub(super) fn open(&self, core: &Core, writer: &Rc<PeerWriter>, socket: Rc<Socket>) {
        let before = writer.socket.replace(Some(socket));
        debug_assert!(before.is_none(), "a peer has one connection");
        self.mark(core, writer);
    }

    /// Notes the memory of a frame that is not complete.
    pub(super) fn frame_waits(&self, core: &Core, writer: &PeerWriter, bytes: usize) {
        core.memory
            .input_changed(writer.partial.replace(bytes), bytes);
    }

    /// Ends a writer's socket and drops its bytes.
    pub(super) fn close(&self, core: &Core, writer: &PeerWriter) {
        writer.shutdown();
        self.detach(core, writer);
    }

    /// Takes a writer from its socket, which stays open, and drops its bytes.
    pub(super) fn detach(&self, core: &Core, writer: &PeerWriter) {
        self.frame_waits(core, writer, 0);
        writer.socket.take();
        let mut outbox = writer.outbox.borrow_mut();
        outbox.clear(&mut core.scheduler.borrow_mut().pool);
        outbox.blocked = false;
        writer.has_answers.set(false);
        debug_assert_eq!(outbox.bytes(), 0, "the next connection would get them");
        writer.overflowed.set(false);
    }

    /// Appends bytes; they leave at the end of the turn, after what goes to other shards.
    #[inline]
    pub(in crate::shard) fn send(
        &self,
        core: &Core,
        writer: &Rc<PeerWriter>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut outbox = writer.outbox.borrow_mut();
        let waits = outbox.has_wire_bytes();
        write(outbox.raw(&mut core.scheduler.borrow_mut().pool));
        outbox.seal();
        if waits
            && outbox.bytes() > core.config.rpc.queue_bytes_max
            && !make_room(core, writer, &mut outbox)
        {
            // A server that takes nothing for so long is hung.
            writer.overflowed.set(true);
            writer.shutdown();
        }
        drop(outbox);
        self.mark(core, writer);
    }

    fn mark(&self, core: &Core, writer: &Rc<PeerWriter>) {
        if !writer.dirty.replace(true) {
            self.dirty_writers.borrow_mut().push(writer.clone());
        }
        core.turn.request();
    }

    /// Takes the writers that have bytes; while answers wait, those with answers stay. `spare` is memory that is used again
    /// each turn.
    pub(in crate::shard) fn take_dirty(
        &self,
        answers_wait: bool,
        pool: &mut QueuePool,
        spare: &mut Vec<Rc<PeerWriter>>,
    ) {
        debug_assert!(spare.is_empty(), "a writer would be flushed twice");
        let mut dirty = self.dirty_writers.borrow_mut();
        if answers_wait {
            spare.extend(dirty.extract_if(.., |writer| !writer.has_answers.get()));
            for writer in &*dirty {
                writer.outbox.borrow_mut().count(pool);
            }
        } else {
            std::mem::swap(spare, &mut dirty);
        }
        for writer in spare {
            writer.dirty.set(false);
            writer.has_answers.set(false);
        }
    }
}

/// Writes a queue that is over its bound before the turn ends. Returns whether it is within its bound then: the socket
/// has taken the rest.
#[cold]
fn make_room(core: &Core, writer: &PeerWriter, outbox: &mut Outbox) -> bool {
    let socket = writer.socket.borrow().clone();
    let Some(socket) = socket.filter(|_| !outbox.blocked) else {
        return false;
    };
    if writer.has_answers.get() {
        // They must not arrive before what goes to other shards.
        core.mesh.borrow_mut().flush(core.counters());
    }
    if core.flush(outbox, &socket) == Flush::Blocked {
        // At the end of the turn another write finds that, and a task waits.
        outbox.blocked = false;
    }
    outbox.bytes() <= core.config.rpc.queue_bytes_max
}

/// Flushes one writer: one write if the socket takes it.
pub(in crate::shard) fn flush(shard: &Rc<Shard>, writer: &Rc<PeerWriter>) {
    let mut outbox = writer.outbox.borrow_mut();
    let Some(socket) = writer.socket.borrow().clone() else {
        return outbox.count(&mut shard.core.scheduler.borrow_mut().pool);
    };
    if outbox.blocked || !outbox.has_wire_bytes() {
        return;
    }
    hop!();
    match shard.core.flush(&mut outbox, &socket) {
        Flush::Done => {}
        Flush::Blocked => spawn_behind(flush_blocked(shard.clone(), writer.clone(), socket)),
        // The read loop finds out why.
        Flush::Failed => socket.shutdown(),
    }
}

/// Waits until the socket of a writer takes more, and writes the rest.
async fn flush_blocked(shard: Rc<Shard>, writer: Rc<PeerWriter>, socket: Rc<Socket>) {
    loop {
        let is_done = poll_fn(|cx| {
            let is_same = |now: &Rc<Socket>| Rc::ptr_eq(now, &socket);
            if !writer.socket.borrow().as_ref().is_some_and(is_same) {
                return Poll::Ready(None);
            }
            let mut outbox = writer.outbox.borrow_mut();
            let flushed = shard.core.poll_flush(cx, &mut outbox, &socket);
            flushed.map(Result::ok)
        })
        .await;
        match is_done {
            Some(false) => {}
            Some(true) => break,
            // The socket has ended, or is about to: its read loop sees the same.
            None => return,
        }
    }
    writer.outbox.borrow_mut().blocked = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_wait_for_a_full_inbox_of_another_shard() {
        let (peers, mut pool) = (Peers::new(1), QueuePool::default());
        let [link, caller] = [(); 2].map(|()| Rc::new(PeerWriter::default()));
        caller.note_answer();
        for writer in [&link, &caller] {
            writer.dirty.set(true);
            peers.dirty_writers.borrow_mut().push(writer.clone());
        }
        let mut taken = Vec::new();
        for (answers_wait, expected) in [(true, Some(&link)), (true, None), (false, Some(&caller))]
        {
            peers.take_dirty(answers_wait, &mut pool, &mut taken);
            assert!(taken.iter().map(Rc::as_ptr).eq(expected.map(Rc::as_ptr)));
            taken.clear();
        }
        assert!(!caller.dirty.get() && !caller.has_answers.get());
    }
}
