//! The bytes of a connection on their way in.

use std::net::SocketAddr;
use std::rc::Rc;

use super::{Clients, Connection};
use crate::client::rate::RateVerdict;
use crate::client::transport::Transport;
use crate::client::{ClientEvent, ClientState, Connected};
use crate::error::{CloseReason, Fault};
use crate::ids::Sid;
use crate::limits::MEMORY_CLOSE_BYTES_MIN;
use crate::net::socket::TlsSocket;
use crate::push::Framing;
use crate::shard::clients::receiver::Taken;
use crate::shard::clients::silent::Place;
use crate::shard::{Core, Shard};

/// Acts on the unit at the front of a client's bytes; returns its size, or `None` when it is not complete. A client at
/// fault is closed, and its bytes are dropped.
pub(in crate::shard::clients) fn receive(
    shard: &Rc<Shard>,
    sid: Sid,
    input: &mut [u8],
) -> Option<usize> {
    hop!();
    let bytes = input.len();
    let received = {
        let mut connections = shard.clients.connections.borrow_mut();
        let Some(connection) = connections.get_mut(sid) else {
            return Some(bytes);
        };
        let before = connection.client.held_fragments();
        let received = connection.client.receive(&shard.clients.rules, input);
        let held = connection.client.held_fragments();
        if held != before {
            shard.core.memory.input_changed(before, held);
        }
        received
    };
    match received {
        Ok(None) => None,
        Ok(Some((used, event))) => {
            if let Some(event) = event {
                shard.client_event(sid, event);
            }
            Some(used)
        }
        Err(reason) => {
            shard.react(Fault::Client(sid, reason));
            Some(bytes)
        }
    }
}

impl Clients {
    /// Ends a part of a read, behind which `rest` follows.
    pub(in crate::shard::clients) fn read(
        &self,
        core: &Core,
        sid: Sid,
        taken: Taken,
        rest: &[u8],
    ) -> RateVerdict {
        let Taken {
            units,
            charged,
            bytes,
        } = taken;
        let verdict = self.connection(sid, |connection| {
            let now = core.time.get().now;
            connection.restart_idle(&self.timeouts, now);
            if connection.client.is_waiting(rest) {
                connection.wait_for_rest(&self.timeouts, now, units, rest);
                self.watch(core, sid, connection);
            } else if let Some(extras) = &mut connection.extras {
                extras.unit = None;
            }
            let used = self
                .rate
                .charge(&mut connection.used_until, now, charged, bytes);
            match used.is_over {
                true => connection.slow_down(core, &self.rate, used, now),
                false => connection.calm_down(used),
            }
        });
        let verdict = verdict.unwrap_or(RateVerdict::Within);
        match &self.addresses {
            Some(addresses) => self.charge_address(core, sid, addresses, (charged, bytes), verdict),
            None => verdict,
        }
    }

    /// Notes the memory of a package or frame that is not complete.
    pub(in crate::shard::clients) fn package_waits(&self, core: &Core, sid: Sid, bytes: usize) {
        self.connection(sid, |connection| {
            let before = connection.client.held();
            connection.client.package_waits(bytes);
            core.memory.input_changed(before, connection.client.held());
        });
    }

    /// Returns whether a connection has not finished its handshake.
    pub(in crate::shard::clients) fn is_unready(&self, sid: Sid) -> bool {
        self.connection(sid, |connection| connection.is_unready()) == Some(true)
    }

    /// Returns whether a connection was closed for its memory, or is gone.
    pub(in crate::shard::clients) fn is_leaving(&self, sid: Sid) -> bool {
        let is_leaving = self.connection(sid, |connection| {
            connection
                .extras
                .as_ref()
                .is_some_and(|extras| extras.is_leaving)
        });
        is_leaving != Some(false)
    }

    /// Returns the connections that hold much memory, and how much. With `unready` only those without a finished handshake.
    pub(in crate::shard) fn holders(&self, unready: bool) -> Vec<(usize, Sid)> {
        let mut connections = self.connections.borrow_mut();
        let held = connections.iter_mut().filter_map(|(sid, connection)| {
            let counts = match unready {
                true => connection.is_unready(),
                false => connection.state() != ClientState::Closed,
            };
            let records = connection.socket.tls().map_or(0, TlsSocket::held);
            let held = connection.held() + connection.outbox.bytes() + records;
            (counts && held >= MEMORY_CLOSE_BYTES_MIN).then_some((held, sid))
        });
        held.collect()
    }

    /// Applies the header of a proxy: the address of the client. The client has its whole time from now on.
    pub(in crate::shard) fn proxied(&self, core: &Core, sid: Sid, address: Option<SocketAddr>) {
        self.connection(sid, |connection| {
            if address.is_some() {
                connection.extras().real_address = address;
            }
        });
        self.begin(core, sid);
    }

    /// Applies the first bytes of a connection, which decide its transport.
    pub(in crate::shard) fn connected(&self, core: &Core, sid: Sid, connected: Connected) {
        self.connection(sid, |connection| {
            if connection.client.transport() == Transport::WebSocket {
                connection.outbox.framing = Framing::WebSocket;
                let limit = self.timeouts.idle(Transport::WebSocket);
                connection.deadlines.idle = limit.map(|(time, _)| core.time.get().now + time);
            }
            connection.begin_step(&self.timeouts, core.time.get().now);
            if connected.real_address.is_some() {
                connection.extras().real_address = connected.real_address;
            }
        });
        self.raw(core, sid, |out| out.extend_from_slice(&connected.answer));
    }

    /// Counts a connection against `client.max_connections` (C1, C7); false where there are too many.
    pub(in crate::shard) fn count(&self, sid: Sid) -> bool {
        let fits = self.process_connections.enter();
        self.connection(sid, |connection| {
            debug_assert!(!connection.counted, "a connection counts once");
            connection.counted = fits;
        });
        match fits {
            true => self.note_place(sid, Place::Client),
            false => self.process_connections.leave(),
        }
        fits
    }

    /// Returns a signed message without its signature; `None` when the signature is wrong or missing.
    pub(in crate::shard::clients) fn verify(&self, sid: Sid, body: &[u8]) -> Option<Vec<u8>> {
        let verify = |connection: &mut Connection| {
            let key = connection.extras.as_ref()?.key.as_ref()?;
            key.verify(body)
        };
        self.connection(sid, verify).flatten()
    }

    /// Counts a message whose signature is wrong or missing; returns their number.
    pub(in crate::shard::clients) fn add_bad_signature(&self, sid: Sid) -> usize {
        let count = self.connection(sid, |connection| {
            let count = &mut connection.extras().bad_signatures;
            *count += 1;
            *count
        });
        count.unwrap_or_default()
    }

    /// Acts on a package that came in several pieces.
    pub(in crate::shard) fn assembled<'a>(
        &self,
        sid: Sid,
        whole: &'a [u8],
    ) -> Option<Result<ClientEvent<'a>, CloseReason>> {
        self.connection(sid, |connection| {
            connection.client.assembled(&self.rules, whole)
        })
    }
}
