//! The request for the end of a turn, and the write of one outbox.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker};

use super::Core;
use crate::limits::WRITE_SLICES_MAX;
use crate::metrics::Measure;
use crate::net::socket::{Socket, TlsSocket};
use crate::push::Outbox;

/// Says that something waits for the end of the turn.
#[derive(Default)]
pub(super) struct Turn {
    pending: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Turn {
    /// Asks for the end of the turn; once per turn.
    pub(super) fn request(&self) {
        if !self.pending.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Waits until somebody asked.
    pub(super) async fn requested(&self) {
        poll_fn(|cx| {
            if self.pending.replace(false) {
                return Poll::Ready(());
            }
            let mut waker = self.waker.borrow_mut();
            if waker
                .as_ref()
                .is_none_or(|known| !known.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// The result of writing an outbox to its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// The socket took everything.
    Done,
    /// The socket takes no more for now.
    Blocked,
    /// The socket has failed.
    Failed,
}

impl Core {
    /// Writes an outbox to its socket: one write, if the socket takes it whole.
    #[inline]
    pub(super) fn flush(&self, outbox: &mut Outbox, socket: &Socket) -> Flush {
        debug_assert!(!outbox.blocked, "a task writes this outbox");
        let mut bytes = 0;
        while outbox.has_wire_bytes() {
            hop!();
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
            let used = outbox.slices(&mut slices);
            let offered: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            debug_assert!(offered > 0, "this loop would not end");
            let Ok(written) = socket.write(&slices[..used]) else {
                return Flush::Failed;
            };
            debug_assert!(written <= offered);
            bytes += written as u64;
            outbox.advance(&mut self.scheduler.borrow_mut().pool, written);
            if written < offered {
                outbox.blocked = true;
                self.counters().record(Measure::Flush, bytes);
                return Flush::Blocked;
            }
        }
        self.counters().record(Measure::Flush, bytes);
        Flush::Done
    }

    /// Tries to write a part of a blocked outbox; true where the socket took some of it, or of a record. The task that waits for the socket
    /// sees its errors, and the end of the outbox.
    pub(super) fn write_some(&self, outbox: &mut Outbox, socket: &Socket) -> bool {
        debug_assert!(outbox.blocked, "a flush writes this outbox");
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
        let used = outbox.slices(&mut slices);
        let tls = socket.tls();
        if let Some(tls) = tls {
            tls.take_progress();
        }
        let written = socket.write(&slices[..used]).unwrap_or(0);
        outbox.advance(&mut self.scheduler.borrow_mut().pool, written);
        written > 0 || tls.is_some_and(TlsSocket::take_progress)
    }

    /// Writes a part of a blocked outbox when the socket takes more; true once nothing is left.
    pub(super) fn poll_flush(
        &self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
        socket: &Socket,
    ) -> Poll<io::Result<bool>> {
        let mut slices = [IoSlice::new(&[]); 3];
        if outbox.slices(&mut slices) == 0 {
            return Poll::Ready(Ok(true));
        }
        let written = std::task::ready!(socket.poll_write(cx, &slices[0]))?;
        let pool = &mut self.scheduler.borrow_mut().pool;
        Poll::Ready(Ok(outbox.advance(pool, written)))
    }
}
