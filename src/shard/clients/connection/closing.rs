//! The end of a connection: it is closed first, and removed when its read task has ended.

use std::rc::Rc;

use super::{Clients, Closed, OpenClient, flush};
use crate::client::ClientState;
use crate::client::heartbeat::Deadlines;
use crate::client::transport::Transport;
use crate::error::{CloseReason, Fault};
use crate::ids::Sid;
use crate::metrics::Counter;
use crate::session::Uid;
use crate::shard::{Core, Shard};
use crate::wire::{handshake, package};

/// Ends a connection whose read task has ended.
pub(in crate::shard::clients) fn end(shard: &Rc<Shard>, sid: Sid, reason: CloseReason) {
    // Answers of the last turn leave first: the client may have closed only its own side.
    flush(shard, sid);
    let reason = match shard.clients.has_spoken(sid) {
        true => reason,
        false => CloseReason::Probe,
    };
    shard.react(Fault::Client(sid, reason));
    shard.clients.remove(&shard.core, sid);
}

impl Clients {
    /// Returns whether a byte of a client has come, behind the header of a proxy.
    fn has_spoken(&self, sid: Sid) -> bool {
        let transport = self.connection(sid, |connection| connection.client.transport());
        !matches!(
            transport,
            Some(Transport::Proxied | Transport::Tls | Transport::Undecided)
        )
    }

    /// Logs the end of a connection: of a client at fault as `info`, of each other one as `debug`. A
    /// probe has no line, because balancers open many.
    pub(in crate::shard) fn log_closed(
        &self,
        sid: Sid,
        reason: CloseReason,
        kick: Option<&str>,
        uid: Option<&Uid>,
    ) {
        if reason == CloseReason::Probe {
            return;
        }
        let hint = reason.hint();
        let (reason, is_offence) = (reason.name(), reason.is_offence());
        if !is_offence && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let (session, address) = (tracing::field::display(sid), self.address_for_log(sid));
        let uid = uid.map(Uid::json);
        match is_offence {
            true => tracing::info!(session, address, uid, reason, hint, "a client is closed"),
            false => tracing::debug!(session, address, uid, reason, kick, "a client is closed"),
        }
    }

    /// Closes a connection: it reads no more bytes; the text of a kick goes out as a package. `None` when it was closed
    /// already, or is gone.
    pub(in crate::shard) fn close(
        &self,
        core: &Core,
        sid: Sid,
        reason: CloseReason,
        kick: Option<&str>,
    ) -> Option<Closed> {
        let closed = self.connection(sid, |connection| {
            let state = connection.state();
            if state == ClientState::Closed {
                return None;
            }
            match reason {
                CloseReason::Drain => connection.outbox.release_all(),
                // Packages that buffer schedulers hold are lost, the kick package is not (C73).
                _ => connection.outbox.drop_collected(),
            }
            if let Some(kick) = kick
                && state == ClientState::Working
            {
                let body = handshake::kick(kick);
                let bytes = package::HEAD_BYTES + body.len();
                let pool = &mut core.scheduler.borrow_mut().pool;
                connection.outbox.package(pool, bytes, |out| {
                    package::write_head(out, package::PackageKind::Kick, body.len());
                    out.extend_from_slice(&body);
                });
            }
            let mut goodbye = Vec::new();
            connection
                .client
                .write_goodbye(&self.rules, reason, &mut goodbye);
            let held = connection.held();
            connection.client.close();
            if reason == CloseReason::Memory {
                // Its task frees the bytes when it sees the end, which is soon; nobody else must be closed for them.
                connection.client.package_waits(0);
                core.memory.begin_leaving();
                let extras = connection.extras();
                extras.handshake_bytes = 0;
                extras.is_leaving = true;
            }
            core.memory.input_changed(held, connection.held());
            connection.deadlines = Deadlines::default();
            connection.begin_step(&self.timeouts, core.time.get().now);
            self.watch(core, sid, connection);
            let scheduler = &mut *core.scheduler.borrow_mut();
            if reason.drops_output() {
                connection.outbox.clear(&mut scheduler.pool);
                connection.socket.break_off();
            } else {
                connection
                    .outbox
                    .raw(&mut scheduler.pool)
                    .extend_from_slice(&goodbye);
                if scheduler.mark(sid, &mut connection.outbox) {
                    core.turn.request();
                }
            }
            if connection.set_silent(false) {
                self.silent.leave();
            }
            Some(Closed {
                counted: std::mem::take(&mut connection.counted),
                delegate: connection.delegate.take(),
                identity: connection.identity.clone(),
            })
        });
        let closed = closed.flatten()?;
        core.counters().closed(reason);
        if closed.counted {
            self.process_connections.leave();
        }
        Some(closed)
    }

    /// Removes a closed connection, whose read task has ended.
    fn remove(&self, core: &Core, sid: Sid) {
        let Some(mut connection) = self.connections.borrow_mut().remove(sid) else {
            return;
        };
        core.memory.input_changed(connection.held(), 0);
        let extras = connection.extras.take();
        if extras.as_ref().is_some_and(|extras| extras.is_leaving) {
            core.memory.end_leaving();
        }
        self.leave_address(core, extras.and_then(|extras| extras.address_use));
        connection
            .outbox
            .clear(&mut core.scheduler.borrow_mut().pool);
        connection.socket.shutdown();
        debug_assert_eq!(connection.state(), ClientState::Closed);
        debug_assert!(!connection.counted, "its place would be lost");
        core.counters().sub(Counter::Connections, 1);
        self.process_sockets.leave();
    }

    /// Returns the sessions that are there.
    pub(in crate::shard) fn sids(&self) -> Vec<Sid> {
        let mut connections = self.connections.borrow_mut();
        connections.iter_mut().map(|(sid, _)| sid).collect()
    }

    /// Lists the clients that are not closed. A connection becomes a client when it has sent its first bytes.
    pub(in crate::shard) fn list_open(&self, open: &mut Vec<OpenClient>) {
        open.clear();
        let mut connections = self.connections.borrow_mut();
        for (sid, connection) in connections.iter_mut() {
            if connection.counted && connection.state() != ClientState::Closed {
                let is_waiting = connection.in_flight > 0;
                open.push(OpenClient { sid, is_waiting });
            }
        }
    }

    /// Returns whether no connection is there.
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Shuts down the sockets of the clients that are still there.
    pub(in crate::shard) fn shutdown(&self) {
        for (_, connection) in self.connections.borrow_mut().iter_mut() {
            connection.socket.shutdown();
        }
    }
}

/// Logs that a client is closed because the number of connections has reached its bound.
pub(in crate::shard) fn refused_for_number(address: &str) {
    let reason = CloseReason::MaxConnections.name();
    tracing::warn!(
        address,
        reason,
        "the server has reached the max connections: a client is refused; raise \
         client.max_connections or the file limit"
    );
}

/// Logs that a client is closed because memory is short.
pub(in crate::shard) fn refused_for_memory(address: &str) {
    let reason = CloseReason::Memory.name();
    tracing::info!(address, reason, "a client is refused");
}

/// Logs that a client is closed because of a blacklist.
pub(in crate::shard) fn refused_for_address(address: &str) {
    let reason = CloseReason::Blacklisted.name();
    tracing::info!(address, reason, "a client on the blacklist is refused");
}
