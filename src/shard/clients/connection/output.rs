//! The bytes of a connection on their way out: appended to its outbox, written to its socket.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::Connection;
use crate::client::ClientState;
use crate::error::{CloseReason, Fault};
use crate::ids::Sid;
use crate::limits::PACKAGE_BODY_BYTES_MAX;
use crate::metrics::Counter;
use crate::net::socket::{Socket, TlsSocket};
use crate::net::task::spawn_behind;
use crate::push::select::Via;
use crate::shard::clients::Clients;
use crate::shard::turn::Flush;
use crate::shard::{Core, Shard};
use crate::wire::package;

/// The result of handing a package to a push scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum Appended {
    Done,
    /// Too many bytes wait for the client.
    Full,
    /// The session has not done its handshake, or has closed.
    NotWorking,
}

impl Clients {
    /// Writes bytes that need no framing at the end of this turn.
    pub(in crate::shard) fn raw(&self, core: &Core, sid: Sid, write: impl FnOnce(&mut Vec<u8>)) {
        self.connection(sid, |connection| {
            let mut scheduler = core.scheduler.borrow_mut();
            write(connection.outbox.raw(&mut scheduler.pool));
            if scheduler.mark(sid, &mut connection.outbox) {
                core.turn.request();
            }
        });
    }

    /// Writes a package that overtakes what buffer schedulers hold.
    pub(in crate::shard::clients) fn control(
        &self,
        core: &Core,
        sid: Sid,
        kind: package::PackageKind,
        body: &[u8],
    ) {
        debug_assert!(body.len() <= PACKAGE_BODY_BYTES_MAX);
        self.connection(sid, |connection| {
            let mut scheduler = core.scheduler.borrow_mut();
            let bytes = package::HEAD_BYTES + body.len();
            connection
                .outbox
                .package(&mut scheduler.pool, bytes, |out| {
                    package::write_head(out, kind, body.len());
                    out.extend_from_slice(body);
                });
            if scheduler.mark(sid, &mut connection.outbox) {
                core.turn.request();
            }
        });
    }

    /// Hands a data package of `bytes` bytes to a push scheduler. `shared` is the same package where others get it
    /// too.
    #[inline]
    pub(in crate::shard) fn append(
        &self,
        core: &Core,
        sid: Sid,
        via: Via,
        bytes: usize,
        write: impl FnOnce(&mut Vec<u8>),
        shared: Option<&Bytes>,
    ) -> Appended {
        debug_assert!(shared.is_none_or(|package| package.len() == bytes));
        let appended = self.connection(sid, |connection| {
            if connection.state() != ClientState::Working {
                return Appended::NotWorking;
            }
            if !connection.has_room(core, bytes) {
                return Appended::Full;
            }
            let outbox = &mut connection.outbox;
            let scheduler = &mut *core.scheduler.borrow_mut();
            if let Via::Buffer(buffer) = via {
                debug_assert!(usize::from(buffer) < self.flush_intervals().len());
                outbox.collect(&mut scheduler.pool, buffer, write);
                scheduler.mark_collecting(sid, outbox, buffer);
                return Appended::Done;
            }
            match shared {
                Some(package) => outbox.shared(&mut scheduler.pool, package),
                None => outbox.package(&mut scheduler.pool, bytes, write),
            }
            if scheduler.mark(sid, outbox) {
                core.turn.request();
            }
            Appended::Done
        });
        appended.unwrap_or(Appended::NotWorking)
    }

    /// Returns whether `bytes` more may wait for a client.
    pub(in crate::shard) fn has_room(&self, core: &Core, sid: Sid, bytes: usize) -> bool {
        self.connection(sid, |connection| connection.has_room(core, bytes)) != Some(false)
    }

    /// Makes everything that waits for a client ready to be written.
    pub(in crate::shard) fn release_all(&self, sid: Sid) {
        self.connection(sid, |connection| connection.outbox.release_all());
    }

    /// The intervals of the buffer schedulers.
    pub(in crate::shard) fn flush_intervals(&self) -> &[Duration] {
        self.selector.intervals()
    }

    /// Makes what a buffer scheduler has collected for a session ready to be written.
    pub(in crate::shard) fn release(&self, core: &Core, sid: Sid, buffer: u8) {
        self.connection(sid, |connection| {
            connection.outbox.unmark_collecting(buffer);
            connection.outbox.release(buffer);
            if core
                .scheduler
                .borrow_mut()
                .mark(sid, &mut connection.outbox)
            {
                core.turn.request();
            }
        });
    }
}

impl Clients {
    /// Takes the next step of a connection whose socket has taken all bytes.
    #[inline]
    pub(super) fn wrote_all(&self, core: &Core, sid: Sid, connection: &mut Connection) {
        match connection.state() {
            ClientState::Closed => connection.socket.shutdown_write(),
            ClientState::WaitAck if connection.deadlines.step.is_none() => {
                connection.begin_step(&self.timeouts, core.time.get().now);
                self.watch(core, sid, connection);
            }
            _ => {}
        }
    }
}

impl Connection {
    #[inline]
    fn has_room(&self, core: &Core, bytes: usize) -> bool {
        let waiting = self.outbox.bytes();
        waiting == 0 || waiting + bytes <= core.latest.outbox_bytes_max()
    }
}

/// Writes what a session has: one write, if the socket takes it whole.
pub(in crate::shard) fn flush(shard: &Rc<Shard>, sid: Sid) {
    let (core, clients) = (&shard.core, &shard.clients);
    let failed = clients.connection(sid, |connection| {
        connection.outbox.unmark();
        if connection.outbox.blocked {
            return false;
        }
        core.counters().add(Counter::Flushes, 1);
        if connection.outbox.has_wire_bytes() {
            hop!();
            let flushed = core.flush(&mut connection.outbox, &connection.socket);
            // As pomelo: bytes in either direction are a sign of life.
            connection.restart_idle(&clients.timeouts, core.time.get().now);
            match flushed {
                Flush::Done => {}
                Flush::Blocked => {
                    core.counters().add(Counter::FlushesBlocked, 1);
                    connection.outbox.note_progress(core.time.get().now);
                    clients.watch(core, sid, connection);
                    let socket = connection.socket.clone();
                    spawn_behind(flush_blocked(shard.clone(), socket, sid));
                    return false;
                }
                Flush::Failed => return true,
            }
        }
        clients.wrote_all(core, sid, connection);
        false
    });
    if failed == Some(true) {
        shard.react(Fault::Client(sid, CloseReason::Socket));
    }
}

/// Waits until a socket takes more, and writes the rest.
async fn flush_blocked(shard: Rc<Shard>, socket: Rc<Socket>, sid: Sid) {
    let clients = &shard.clients;
    loop {
        let is_done = poll_fn(|cx| {
            let mut connections = clients.connections.borrow_mut();
            let Some(connection) = connections.get_mut(sid) else {
                return Poll::Ready(None);
            };
            let flushed = shard.core.poll_flush(cx, &mut connection.outbox, &socket);
            let took_part = || socket.tls().is_some_and(TlsSocket::take_progress);
            if flushed.is_ready() || took_part() {
                connection.outbox.note_progress(shard.core.time.get().now);
            }
            flushed.map(Some)
        })
        .await;
        match is_done {
            Some(Ok(false)) => {}
            Some(Ok(true)) => break,
            Some(Err(_)) => return shard.react(Fault::Client(sid, CloseReason::Socket)),
            None => return,
        }
    }
    clients.connection(sid, |connection| {
        debug_assert!(connection.outbox.blocked, "two tasks write one outbox");
        connection.outbox.blocked = false;
        clients.wrote_all(&shard.core, sid, connection);
    });
}
