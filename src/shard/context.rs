//! What sessions and `App` ask of their shard.

use std::rc::Rc;

use super::Shard;
use super::clients::connection::Connection;
use super::coordinator::{COORDINATOR, ReplyTo, Told, Wish};
use super::dispatch::Asker;
use super::mesh::Parcel;
use crate::client::{ClientAddr, ClientState};
use crate::config::{Dialect, Server};
use crate::error::Fault;
use crate::handler::filter::Slot;
use crate::handler::{
    BroadcastOptions, Failure, Incoming, Invocation, LocalFuture, OnClose, Outcome, Sending, Sent,
    ShardContext, States,
};
use crate::ids::{PeerIndex, ShardId, Sid};
use crate::metrics::Counter;
use crate::session::{Identity, Uid};

impl ShardContext for Shard {
    fn server_id(&self) -> &str {
        &self.core.config.id
    }

    fn shard(&self) -> ShardId {
        self.core.id
    }

    fn dialect(&self) -> Dialect {
        self.core.config.dialect
    }

    fn export(&self, sid: Sid, identity: &Identity) -> Vec<u8> {
        self.export_session(sid, identity)
    }

    fn bind(self: Rc<Self>, sid: Sid, uid: Uid) -> LocalFuture<Result<Rc<Identity>, Failure>> {
        let wished = self.wish(Wish::Bind(sid, uid));
        Box::pin(async move {
            wished.take().await.map_err(Failure::new)?;
            // Unchanged: the identity as it is after the bind.
            self.change_identity(sid, |_| Ok(()))
        })
    }

    fn unbind(self: Rc<Self>, sid: Sid, uid: &Uid) -> Result<Rc<Identity>, Failure> {
        self.unbind_here(sid, uid)
    }

    fn import(
        self: Rc<Self>,
        sid: Sid,
        values: &[(&str, serde_json::Value)],
    ) -> Result<(), Failure> {
        self.change_identity(sid, |identity| {
            for (key, value) in values {
                identity.settings.set(key, value.clone());
            }
            Ok(())
        })?;
        Ok(())
    }

    fn remove(self: Rc<Self>, sid: Sid, key: &str) -> Result<(), Failure> {
        self.change_identity(sid, |identity| {
            identity.settings.remove(key);
            Ok(())
        })?;
        Ok(())
    }

    fn push(self: Rc<Self>, sid: Sid, route: &str, body: &[u8]) -> Result<bool, Failure> {
        let package = self.outgoing(&Sending::Push { route, body })?;
        Ok(self.push_package(sid, &package))
    }

    fn broadcast(
        self: Rc<Self>,
        route: &str,
        body: &[u8],
        options: BroadcastOptions,
    ) -> Result<(), Failure> {
        self.broadcast_everywhere(route, body, options)
    }

    fn kick(self: Rc<Self>, sid: Sid, reason: Option<&str>) {
        self.close(sid, Fault::Kicked, reason);
    }

    fn answer(self: Rc<Self>, incoming: &Incoming, outcome: Outcome<'_>) {
        let asker = Asker {
            sid: incoming.session.id(),
            id: incoming.id,
            proto: self.clients.coder.response_proto(&incoming.route),
        };
        self.finish(asker, &incoming.route, &outcome);
    }

    fn call(self: Rc<Self>, call: &Invocation<'_>) -> Sent {
        self.invoke(call)
    }

    fn servers(&self, server_type: &str) -> Option<Vec<Server>> {
        let cluster = self.peers.cluster.borrow();
        let mut ever = cluster.type_names().iter();
        ever.find(|known| ***known == *server_type)?;
        let known = cluster.of_type(server_type.as_bytes());
        let servers = known.iter().flat_map(|known| &known.servers);
        let server = |peer: &PeerIndex| cluster.peer(*peer).server.clone();
        Some(servers.map(server).collect())
    }

    fn states(&self) -> &States {
        self.app.router.states()
    }

    fn handshake(&self, sid: Sid) -> Option<Rc<serde_json::Value>> {
        self.connection(sid, |connection| connection.handshake())
            .flatten()
    }

    fn on_close(&self, sid: Sid, f: OnClose) -> Result<(), Failure> {
        if !self.is_open(sid) {
            return Err(Failure::new("the session has closed"));
        }
        self.app.router.when_closed(sid, f)
    }

    fn push_to(self: Rc<Self>, sids: &[Sid], route: &str, body: &[u8]) -> Result<(), Failure> {
        let package = self.outgoing(&Sending::Push { route, body })?;
        self.push_anywhere(sids, &package);
        Ok(())
    }

    fn push_to_uids(
        self: Rc<Self>,
        uids: Vec<u8>,
        route: &str,
        body: &[u8],
    ) -> LocalFuture<Result<Vec<u8>, Failure>> {
        let (route, body) = (route.into(), body.into());
        let wished = self.wish(Wish::Push { route, body, uids });
        Box::pin(async move {
            let missed = wished.take().await.map_err(Failure::new)?;
            Ok(missed.unwrap_or_else(|| b"[]".to_vec()))
        })
    }

    fn count(&self, counter: Counter) {
        self.counters().add(counter, 1);
    }

    fn is_open(&self, sid: Sid) -> bool {
        let closed = |connection: &mut Connection| connection.client.state() == ClientState::Closed;
        self.connection(sid, closed) == Some(false)
    }

    fn kick_uid(self: Rc<Self>, uid: &str, reason: Option<&str>) -> LocalFuture<()> {
        let (uid, reason) = (uid.into(), reason.map(Into::into));
        let wished = self.wish(Wish::Kick { uid, reason });
        Box::pin(async move {
            let _ = wished.take().await;
        })
    }

    fn client_address(&self, sid: Sid) -> Option<ClientAddr> {
        self.connection(sid, |connection| connection.address())
            .flatten()
    }

    fn statistics(self: Rc<Self>) -> LocalFuture<Vec<u8>> {
        self.look(Wish::Statistics)
    }

    fn sessions(self: Rc<Self>) -> LocalFuture<Vec<u8>> {
        self.look(Wish::Sessions)
    }
}

impl Shard {
    /// Asks the switch for something; the slot gets the outcome.
    fn wish(self: &Rc<Self>, wish: Wish) -> Rc<Slot<Told>> {
        let slot = Rc::new(Slot::default());
        if self.core.id == COORDINATOR {
            self.grant(ReplyTo::Here(slot.clone()), wish);
        } else {
            let ticket = self.app.wishes.borrow_mut().insert(slot.clone()) as u64;
            let (from, wish) = (self.core.id, Box::new(wish));
            self.report(Parcel::Wish { ticket, from, wish });
        }
        slot
    }

    /// A wish whose outcome is a text.
    fn look(self: &Rc<Self>, wish: Wish) -> LocalFuture<Vec<u8>> {
        let wished = self.wish(wish);
        Box::pin(async move { wished.take().await.ok().flatten().unwrap_or_default() })
    }
}
