//! Sessions, as handlers see them.

use std::rc::Rc;

use serde::Serialize;
use serde_json::Value;

use super::{App, ClientAddr, Failure, ShardContext};
use crate::ids::Sid;
use crate::session::{Identity, Uid};

/// A session, as it was when the message arrived.
///
/// It is a snapshot (C80–C84): it does not show later changes, and [`set`](Self::set) changes only the
/// snapshot until it is [pushed](Self::push_setting). A handler may keep it. Once the session has
/// closed, changes return an error, and messages to it are dropped, which the return value tells.
///
/// It stays on its shard: it is not `Send`, so the compiler checks this. Another shard can use its
/// [`id`](Self::id) with [`App::push_to`]; a thread can use neither.
#[derive(Clone)]
pub struct Session {
    id: Sid,
    identity: Rc<Identity>,
    context: Rc<dyn ShardContext>,
}

// Each message creates one.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Session>() == 32);

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("identity", &self.identity)
            .finish()
    }
}

impl Session {
    /// Creates a snapshot.
    pub(crate) fn new(id: Sid, identity: Rc<Identity>, context: Rc<dyn ShardContext>) -> Self {
        Self {
            id,
            identity,
            context,
        }
    }

    /// Returns the session id.
    pub fn id(&self) -> Sid {
        self.id
    }

    /// Returns uid and values. A change of the session makes another one, as long as this one is kept.
    pub(crate) fn identity(&self) -> &Rc<Identity> {
        &self.identity
    }

    /// Returns the uid, if the session is bound.
    pub fn uid(&self) -> Option<&Uid> {
        self.identity.uid.as_ref()
    }

    /// Returns a session value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.identity.settings.get(key)
    }

    /// Returns all session values as a JSON object.
    pub fn settings_json(&self) -> &str {
        self.identity.settings.json()
    }

    /// Returns the exported form, which backends get.
    pub fn export(&self) -> Vec<u8> {
        self.context.export(self.id, &self.identity)
    }

    /// Binds the session to a uid, a text or a number, and updates the snapshot (C82).
    ///
    /// Errors: the session is bound to another uid; it has closed; another session has the uid and
    /// `session.duplicate_login` is `refuse`. With `newest-wins` that other session is kicked, and with
    /// `allow`, the default, both keep the uid. With several shards, a bind asks shard 0, which has the
    /// index of uids.
    pub async fn bind(&mut self, uid: impl Into<Uid>) -> Result<(), Failure> {
        self.identity = self.context.clone().bind(self.id, uid.into()).await?;
        Ok(())
    }

    /// Unbinds the session from this uid. Returns an error if the session is not bound to it or has
    /// closed.
    pub fn unbind(&mut self, uid: &Uid) -> Result<(), Failure> {
        self.identity = self.context.clone().unbind(self.id, uid)?;
        Ok(())
    }

    /// Sets a value of this snapshot only (C81).
    pub fn set(&mut self, key: &str, value: Value) {
        Rc::make_mut(&mut self.identity).settings.set(key, value);
    }

    /// Removes a value from this snapshot and from the session. In Pomelo, `remove` does not remove it
    /// from the session.
    pub fn remove(&mut self, key: &str) -> Result<(), Failure> {
        self.context.clone().remove(self.id, key)?;
        Rc::make_mut(&mut self.identity).settings.remove(key);
        Ok(())
    }

    /// Writes one value of the snapshot to the session.
    pub fn push_setting(&self, key: &str) -> Result<(), Failure> {
        let value = self.get(key).cloned().unwrap_or_default();
        self.context.clone().import(self.id, &[(key, value)])
    }

    /// Writes all values of the snapshot to the session. Pomelo: `pushAll`.
    pub fn push_settings(&self) -> Result<(), Failure> {
        let values = self.identity.settings.iter();
        let values: Vec<_> = values.map(|(key, value)| (key, value.clone())).collect();
        self.context.clone().import(self.id, &values)
    }

    /// Returns the address of the client, or `None` if the session has ended. Pomelo:
    /// `getClientAddrBySessionId`.
    pub fn client_address(&self) -> Option<ClientAddr> {
        self.context.client_address(self.id)
    }

    /// Pushes a message to this session; it arrives before the response if the handler has not answered
    /// yet. Returns false if the session has ended. Returns an error if the route is empty, or if the
    /// body is falsy, cannot be written as JSON, or does not fit into a package.
    pub fn push(&self, route: &str, body: &(impl Serialize + ?Sized)) -> Result<bool, Failure> {
        self.push_raw(route, &serde_json::to_vec(body)?)
    }

    /// Pushes JSON text, which is not checked.
    pub fn push_raw(&self, route: &str, body: &[u8]) -> Result<bool, Failure> {
        self.context.clone().push(self.id, route, body)
    }

    /// Calls `f` with this session once, when it has closed. Up to 64 functions can wait. Returns an
    /// error if the session has already closed. Pomelo: `session.on('closed', …)`.
    pub fn on_close(&self, f: impl FnOnce(&Self) + 'static) -> Result<(), Failure> {
        self.context.on_close(self.id, Box::new(f))
    }

    /// Returns the handshake of the client, or `None` if the shard does not keep it; see
    /// [`Handshake`](super::Handshake).
    pub fn handshake(&self) -> Option<Rc<Value>> {
        self.context.handshake(self.id)
    }

    /// Returns the server of the session.
    pub fn app(&self) -> App {
        App::new(self.context.clone())
    }

    /// Returns true until the session has closed.
    pub fn is_open(&self) -> bool {
        self.context.is_open(self.id)
    }

    /// Kicks this session. Without a reason, the client gets no kick package.
    pub fn kick(&self, reason: Option<&str>) {
        self.context.clone().kick(self.id, reason);
    }

    /// Returns the shard.
    pub(crate) fn context(&self) -> &Rc<dyn ShardContext> {
        &self.context
    }
}

/// An event of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// The session is bound. Pomelo: `bind_session`.
    Bind,
    /// The session is no longer bound to this uid. Pomelo: `unbind_session`.
    Unbind(Uid),
    /// The session has closed. Pomelo: `close_session`.
    Close,
}
