//! The session of a connection: its identity and its routes, its messages in flight, its handshake, its address.

use std::net::SocketAddr;
use std::rc::Rc;

use super::{Clients, Connection};
use crate::client::crypto::PublicKey;
use crate::client::transport::Transport;
use crate::client::{ClientAddr, ClientState};
use crate::handler::Failure;
use crate::ids::Sid;
use crate::metrics::Counter;
use crate::session::{BindError, Identity};
use crate::shard::Core;
use crate::shard::clients::route::SessionRoute;
use crate::wire::json;

impl Clients {
    /// Returns the identity of a session.
    pub(in crate::shard) fn identity(&self, sid: Sid) -> Option<Rc<Identity>> {
        self.connection(sid, |connection| connection.identity.clone())
    }

    /// Returns the identity of a session that has not closed.
    pub(in crate::shard) fn living(&self, sid: Sid) -> Option<Rc<Identity>> {
        self.connection(sid, |connection| {
            (connection.state() != ClientState::Closed).then(|| connection.identity.clone())
        })
        .flatten()
    }

    /// Returns the transport of a connection that has not closed.
    pub(in crate::shard::clients) fn transport(&self, sid: Sid) -> Option<Transport> {
        let open = |connection: &mut Connection| {
            (connection.state() != ClientState::Closed).then(|| connection.client.transport())
        };
        self.connection(sid, open).flatten()
    }

    /// Returns the state of a connection.
    pub(in crate::shard::clients) fn state(&self, sid: Sid) -> Option<ClientState> {
        self.connection(sid, |connection| connection.state())
    }

    /// Returns whether a session has not closed.
    pub(in crate::shard) fn is_open(&self, sid: Sid) -> bool {
        self.state(sid)
            .is_some_and(|state| state != ClientState::Closed)
    }

    /// Changes the identity of a session; an error when it has closed.
    pub(in crate::shard) fn change_identity(
        &self,
        core: &Core,
        sid: Sid,
        change: impl FnOnce(&mut Identity) -> Result<(), BindError>,
    ) -> Result<Rc<Identity>, Failure> {
        let changed = self.connection(sid, |connection| {
            if connection.state() == ClientState::Closed {
                return None;
            }
            let changed = change(Rc::make_mut(&mut connection.identity));
            // Before that state the step is another one, which a bind is not.
            if connection.is_bound() && connection.state() == ClientState::Working {
                connection.deadlines.step = None;
            }
            Some(changed.map(|()| connection.identity.clone()))
        });
        match changed.flatten() {
            Some(changed) => changed.map_err(|error| Failure::new(error.text(core.config.dialect))),
            None => Err(Failure::new(no_session(&sid.to_string()))),
        }
    }

    /// Returns the route of a session to a server type.
    pub(in crate::shard) fn session_route(
        &self,
        sid: Sid,
        type_index: usize,
    ) -> Option<SessionRoute> {
        let find = |connection: &mut Connection| {
            let routes = &connection.extras.as_ref()?.routes;
            let found = routes.iter().find(|(index, _)| *index == type_index);
            found.map(|(_, route)| route.clone())
        };
        self.connection(sid, find).flatten()
    }

    /// Changes the route of a session to a server type, unless the session is gone.
    pub(in crate::shard) fn set_session_route(
        &self,
        sid: Sid,
        type_index: usize,
        route: Option<SessionRoute>,
    ) {
        self.connection(sid, |connection| {
            let routes = &mut connection.extras().routes;
            routes.retain(|(index, _)| *index != type_index);
            routes.extend(route.map(|route| (type_index, route)));
        });
    }

    /// Returns the identity of a session, and whether as many of its messages are in flight as may be.
    #[inline]
    pub(in crate::shard) fn sender(&self, core: &Core, sid: Sid) -> Option<(Rc<Identity>, bool)> {
        let most = core.latest.calls_in_flight_max();
        self.connection(sid, |connection| {
            let is_full = connection.in_flight as usize >= most;
            (connection.identity.clone(), is_full)
        })
    }

    /// Counts one more in flight for a session, if there is room; `None` when it is gone.
    #[inline]
    pub(in crate::shard) fn begin_in_flight(&self, core: &Core, sid: Sid) -> Option<bool> {
        let begun = self.connection(sid, |connection| {
            let room = (connection.in_flight as usize) < core.latest.calls_in_flight_max();
            connection.in_flight += u32::from(room);
            room
        });
        if begun == Some(false) {
            core.counters().add(Counter::SessionCallsFull, 1);
        }
        begun
    }

    /// Counts one more in flight for a session, which has room for it.
    pub(in crate::shard) fn add_in_flight(&self, sid: Sid) {
        self.connection(sid, |connection| connection.in_flight += 1);
    }

    /// Counts one less in flight for a session.
    #[inline]
    pub(in crate::shard) fn end_in_flight(&self, sid: Sid) {
        self.connection(sid, |connection| {
            debug_assert!(connection.in_flight > 0);
            connection.in_flight -= 1;
        });
    }

    /// Returns the kept handshake of a session.
    pub(in crate::shard) fn handshake(&self, sid: Sid) -> Option<Rc<serde_json::Value>> {
        self.connection(sid, |connection| {
            connection.extras.as_ref()?.handshake.clone()
        })
        .flatten()
    }

    /// Keeps the handshake of a session, and counts its memory.
    pub(in crate::shard::clients) fn set_handshake(
        &self,
        core: &Core,
        sid: Sid,
        message: serde_json::Value,
    ) {
        self.connection(sid, |connection| {
            let before = connection.held();
            let extras = connection.extras();
            extras.handshake_bytes = json::tree_bytes(&message);
            extras.handshake = Some(Rc::new(message));
            core.memory.input_changed(before, connection.held());
        });
    }

    /// Accepts the handshake of a client; false when it had one already.
    pub(in crate::shard::clients) fn accept_handshake(
        &self,
        sid: Sid,
        key: Option<PublicKey>,
    ) -> bool {
        let accepted = self.connection(sid, |connection| {
            let is_first = connection.state() == ClientState::Inited;
            if is_first {
                connection.client.accept();
                // It begins with the last byte of the reply that the kernel takes.
                connection.deadlines.step = None;
                if key.is_some() {
                    connection.extras().key = key;
                }
            }
            is_first
        });
        accepted == Some(true)
    }

    /// Returns the address of a client as the kernel or a proxy has it; `None` once it is gone.
    pub(in crate::shard::clients) fn socket_address(&self, sid: Sid) -> Option<SocketAddr> {
        self.connection(sid, |connection| connection.socket_address())
            .flatten()
    }

    /// Returns the address of a client; `None` once it is gone.
    pub(in crate::shard) fn address(&self, sid: Sid) -> Option<ClientAddr> {
        self.connection(sid, |connection| connection.address())
            .flatten()
    }

    /// Returns the address of a client for a log line; empty once it is gone.
    pub(in crate::shard) fn address_for_log(&self, sid: Sid) -> String {
        let address = self.address(sid);
        address.map_or_else(String::new, |address| address.to_string())
    }

    /// Returns `ip:port` of a client, as Node prints it: without brackets around IPv6.
    pub(in crate::shard) fn address_of(&self, sid: Sid) -> Box<str> {
        let address = self.address(sid);
        let text = address.map(|address| format!("{}:{}", address.ip, address.port));
        text.unwrap_or_default().into()
    }
}

/// Returns the text of an error about a session that does not exist, as in the reference.
pub(in crate::shard) fn no_session(sid: &str) -> String {
    format!("session does not exist, sid: {sid}")
}
