//! Sessions as handlers see them.

use std::rc::Rc;

use serde::Serialize;
use serde_json::Value;

use super::{App, ClientAddr, Failure, ShardContext};
use crate::ids::Sid;
use crate::session::{Identity, Uid};

/// A session as a handler sees it: who it was when the message arrived.
///
/// It is a snapshot (C80–C84): a bind or a value that came after the message is not seen, and
/// [`set`](Self::set) changes the snapshot until it is [pushed](Self::push_setting). It may be kept: once the
/// session has closed, what changes it is an error, and what sends to it is dropped and says so.
///
/// It belongs to its shard, which the compiler sees to: it is not `Send`. To another shard goes its
/// [`id`](Self::id), which [`App::push_to`] takes anywhere; a thread has neither.
#[derive(Clone)]
pub struct Session {
    id: Sid,
    identity: Rc<Identity>,
    context: Rc<dyn ShardContext>,
}

// One is made for each message.
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
    /// A snapshot.
    pub(crate) fn new(id: Sid, identity: Rc<Identity>, context: Rc<dyn ShardContext>) -> Self {
        Self {
            id,
            identity,
            context,
        }
    }

    /// Session id.
    pub fn id(&self) -> Sid {
        self.id
    }

    /// Uid, if bound.
    pub fn uid(&self) -> Option<&Uid> {
        self.identity.uid.as_ref()
    }

    /// A session value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.identity.settings.get(key)
    }

    /// All session values as a JSON object.
    pub fn settings_json(&self) -> &str {
        self.identity.settings.json()
    }

    /// Exported form: what a backend gets.
    pub fn export(&self) -> Vec<u8> {
        self.context.export(self.id, &self.identity)
    }

    /// Binds the session to a uid, a text or a number; on success the snapshot has it too (C82).
    ///
    /// Errors: the session is bound to another uid; it has closed; another session has the uid, where
    /// `session.duplicate_login` is `refuse`. With `newest-wins` that other session is kicked, and with
    /// `allow`, the default, both have it. With several shards a bind goes through shard 0, which has the
    /// index of uids.
    pub async fn bind(&mut self, uid: impl Into<Uid>) -> Result<(), Failure> {
        self.identity = self.context.clone().bind(self.id, uid.into()).await?;
        Ok(())
    }

    /// Unbinds the session from this uid; an error when it is not bound to it, or closed.
    pub fn unbind(&mut self, uid: &Uid) -> Result<(), Failure> {
        self.identity = self.context.clone().unbind(self.id, uid)?;
        Ok(())
    }

    /// Sets a value on this snapshot only (C81).
    pub fn set(&mut self, key: &str, value: Value) {
        Rc::make_mut(&mut self.identity).settings.set(key, value);
    }

    /// Takes a value away from this snapshot and from the session itself. Unlike pomelo, whose
    /// `remove` leaves the value where it is.
    pub fn remove(&mut self, key: &str) -> Result<(), Failure> {
        self.context.clone().remove(self.id, key)?;
        Rc::make_mut(&mut self.identity).settings.remove(key);
        Ok(())
    }

    /// Writes one value of the snapshot to the session itself.
    pub fn push_setting(&self, key: &str) -> Result<(), Failure> {
        let value = self.get(key).cloned().unwrap_or_default();
        self.context.clone().import(self.id, &[(key, value)])
    }

    /// Writes all values of the snapshot to the session itself. Pomelo: `pushAll`.
    pub fn push_settings(&self) -> Result<(), Failure> {
        let values = self.identity.settings.iter();
        let values: Vec<_> = values.map(|(key, value)| (key, value.clone())).collect();
        self.context.clone().import(self.id, &values)
    }

    /// Where the client is; `None` when it is gone. Pomelo: `getClientAddrBySessionId`.
    pub fn client_address(&self) -> Option<ClientAddr> {
        self.context.client_address(self.id)
    }

    /// Pushes a message to this session: before the response, when the handler has not answered yet.
    /// False when it is gone; an error when the route is empty, or the body is falsy, cannot be JSON or
    /// is longer than a package.
    pub fn push(&self, route: &str, body: &(impl Serialize + ?Sized)) -> Result<bool, Failure> {
        self.push_raw(route, &serde_json::to_vec(body)?)
    }

    /// Pushes JSON text, which is not checked.
    pub fn push_raw(&self, route: &str, body: &[u8]) -> Result<bool, Failure> {
        self.context.clone().push(self.id, route, body)
    }

    /// Calls `f` once when the session has closed, with the session as it was then; up to 64 calls.
    /// An error when it has closed already. Pomelo: `session.on('closed', …)`.
    pub fn on_close(&self, f: impl FnOnce(&Self) + 'static) -> Result<(), Failure> {
        self.context.on_close(self.id, Box::new(f))
    }

    /// What the client said when it came; `None` where that is not kept, see
    /// [`Handshake`](super::Handshake).
    pub fn handshake(&self) -> Option<Rc<Value>> {
        self.context.handshake(self.id)
    }

    /// The server that it is a session of.
    pub fn app(&self) -> App {
        App::new(self.context.clone())
    }

    /// True until the session has closed.
    pub fn is_open(&self) -> bool {
        self.context.is_open(self.id)
    }

    /// Kicks this session; without a reason there is no kick package.
    pub fn kick(&self, reason: Option<&str>) {
        self.context.clone().kick(self.id, reason);
    }

    /// The shard.
    pub(crate) fn context(&self) -> &Rc<dyn ShardContext> {
        &self.context
    }
}

/// What has happened to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// It has a uid now. Pomelo: `bind_session`.
    Bind,
    /// It had this uid. Pomelo: `unbind_session`.
    Unbind(Uid),
    /// It is over. Pomelo: `close_session`.
    Close,
}
