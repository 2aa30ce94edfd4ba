//! Bytes on their way to another server, whatever is spoken with it: a link that this shard opened,
//! one that a peer opened, or the master's.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::Poll;

use crate::limits::{LINK_QUEUE_BYTES_MAX, WRITE_SLICES_MAX};
use crate::net::socket::Socket;
use crate::push::Outbox;
use crate::shard::Shard;

/// One way to a peer. It outlives its socket: what is sent while there is none waits for the next.
///
/// Bound: `limits::LINK_QUEUE_BYTES_MAX`; past it the socket is shut down, its reader sees the end.
#[derive(Default)]
pub(in crate::shard) struct Pipe {
    outbox: RefCell<Outbox>,
    socket: RefCell<Option<Rc<Socket>>>,
    /// In the shard's list of pipes to flush.
    dirty: Cell<bool>,
    /// The queue went over its bound.
    overflowed: Cell<bool>,
    /// Calls of the peer that remotes of the application are at.
    pub(in crate::shard) in_progress: Cell<usize>,
}

impl Pipe {
    /// A pipe that is open from the start.
    pub(in crate::shard) fn to(socket: Rc<Socket>) -> Self {
        Self {
            socket: RefCell::new(Some(socket)),
            ..Self::default()
        }
    }

    pub(in crate::shard) fn is_open(&self) -> bool {
        self.socket.borrow().is_some()
    }

    /// Shuts the socket down; whoever reads it sees the end.
    pub(in crate::shard) fn shutdown(&self) {
        if let Some(socket) = &*self.socket.borrow() {
            socket.shutdown();
        }
    }

    /// True once the queue went over its bound.
    pub(in crate::shard) fn has_overflowed(&self) -> bool {
        self.overflowed.get()
    }
}

impl Shard {
    /// Connects a pipe to a socket. What waits leaves at the end of the turn.
    pub(in crate::shard) fn open_pipe(&self, pipe: &Rc<Pipe>, socket: Rc<Socket>) {
        *pipe.socket.borrow_mut() = Some(socket);
        self.mark_pipe(pipe);
    }

    /// Ends a pipe's socket and drops what waits.
    pub(in crate::shard) fn close_pipe(&self, pipe: &Pipe) {
        if let Some(socket) = pipe.socket.take() {
            socket.shutdown();
        }
        let mut outbox = pipe.outbox.borrow_mut();
        outbox.clear(&mut self.core.scheduler.borrow_mut().pool);
        outbox.blocked = false;
        pipe.overflowed.set(false);
    }

    /// Appends bytes; they leave at the end of the turn, after what goes to other shards.
    pub(in crate::shard) fn send_to_peer(&self, pipe: &Rc<Pipe>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut outbox = pipe.outbox.borrow_mut();
        write(outbox.raw(&mut self.core.scheduler.borrow_mut().pool));
        if outbox.bytes() > LINK_QUEUE_BYTES_MAX {
            // A server that takes nothing for so long is hung.
            pipe.overflowed.set(true);
            pipe.shutdown();
        }
        drop(outbox);
        self.mark_pipe(pipe);
    }

    fn mark_pipe(&self, pipe: &Rc<Pipe>) {
        if !pipe.dirty.replace(true) {
            self.peers.dirty_pipes.borrow_mut().push(pipe.clone());
        }
        self.core.turn.request();
    }

    /// Flushes every pipe that has something: one write each if the socket takes it. `spare` is
    /// memory that is used again each turn.
    pub(in crate::shard) fn flush_pipes(self: &Rc<Self>, spare: &mut Vec<Rc<Pipe>>) {
        std::mem::swap(spare, &mut *self.peers.dirty_pipes.borrow_mut());
        for pipe in spare.drain(..) {
            pipe.dirty.set(false);
            self.flush_pipe(&pipe);
        }
    }

    /// Flushes one pipe.
    pub(in crate::shard) fn flush_pipe(self: &Rc<Self>, pipe: &Rc<Pipe>) {
        let Some(socket) = pipe.socket.borrow().clone() else {
            return;
        };
        let mut outbox = pipe.outbox.borrow_mut();
        if outbox.blocked {
            return;
        }
        while outbox.has_wire_bytes() {
            hop!();
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
            let used = outbox.slices(&mut slices);
            let offered: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            let Ok(written) = socket.write(&slices[..used]) else {
                // The read loop finds out why.
                return socket.shutdown();
            };
            outbox.advance(&mut self.core.scheduler.borrow_mut().pool, written);
            if written < offered {
                outbox.blocked = true;
                let task = flush_blocked(self.clone(), pipe.clone(), socket.clone());
                crate::shard::spawn_behind(task);
                return;
            }
        }
    }
}

/// Waits until the socket of a pipe takes more, and writes the rest.
async fn flush_blocked(shard: Rc<Shard>, pipe: Rc<Pipe>, socket: Rc<Socket>) {
    loop {
        let done = poll_fn(|cx| {
            let same = pipe
                .socket
                .borrow()
                .as_ref()
                .is_some_and(|now| Rc::ptr_eq(now, &socket));
            if !same {
                return Poll::Ready(None);
            }
            let mut outbox = pipe.outbox.borrow_mut();
            let mut slices = [IoSlice::new(&[]); 3];
            if outbox.slices(&mut slices) == 0 {
                return Poll::Ready(Some(true));
            }
            match socket.poll_write(cx, &slices[0]) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(_)) => Poll::Ready(None),
                Poll::Ready(Ok(written)) => {
                    let pool = &mut shard.core.scheduler.borrow_mut().pool;
                    Poll::Ready(Some(outbox.advance(pool, written)))
                }
            }
        })
        .await;
        match done {
            Some(false) => {}
            Some(true) => break,
            // The socket has ended, or is about to: its read loop sees the same.
            None => return,
        }
    }
    pipe.outbox.borrow_mut().blocked = false;
}
