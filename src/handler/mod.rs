//! Handlers and filters of this server's own routes.
//!
//! A handler is a function of a [`Request`]. It answers at once, from borrowed bytes and without an
//! allocation, or later, with a future that keeps what it needs.
//!
//! **Invariants**: routes are indices after start; a handler or filter that panics costs its own
//! request only; what a client sees of an outcome is decided in [`reply`] and nowhere else.
//!
//! **Absent**: sockets, slab internals; the shard is reached through [`Frontend`].
//!
//! **Where to start reading**: [`Router`], then [`filter`] for the order of things;
//! [`Session::cluster`] and [`Router::remote`] for other servers.

use std::any::Any;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;

use crate::config::{Config, Dialect};
use crate::ids::Sid;
use crate::metrics::Counter;
use crate::session::{Identity, Uid};
use crate::wire::json;

mod call;
pub mod clock;
pub mod filter;
mod log_line;
mod remote;
pub mod reply;
mod send;

pub use call::{Call, CallError, CallResult, CallToAll, Cluster, Invocation, Sent};
pub use remote::{IntoResults, RemoteCall, Results};
pub use send::{BroadcastOptions, Sending};

pub use crate::client::ClientAddress;

use clock::Clock;

/// One client message, borrowed from the read buffer.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Message id; 0 for a notify.
    pub id: u32,
    /// Message type as on the wire.
    pub kind: u8,
    /// The route came as a dictionary code.
    pub compressed: bool,
    /// The gzip flag.
    pub gzip: bool,
    /// The whole route.
    pub route: &'a str,
    /// Valid JSON text; `{}` when the client's did not parse.
    pub body: &'a [u8],
    /// The session as it was when the message arrived.
    pub session: &'a Session,
}

impl Request<'_> {
    /// The body as a handler's message: a falsy one is `{}`, and as pomelo (not pinus) an object has
    /// `__route__`.
    pub fn message(&self) -> serde_json::Value {
        let body = if json::is_truthy(self.body) {
            self.body
        } else {
            b"{}"
        };
        let mut message = json::parse(body).unwrap_or_default();
        if self.session.frontend.dialect() == Dialect::Pomelo
            && let serde_json::Value::Object(members) = &mut message
        {
            members.insert("__route__".into(), self.route.into());
        }
        message
    }
}

/// A client message that outlives the read buffer: what filters and asynchronous work get.
#[derive(Debug)]
pub struct Incoming {
    /// Message id; 0 for a notify.
    pub id: u32,
    /// Message type as on the wire.
    pub kind: u8,
    /// The route came as a dictionary code.
    pub compressed: bool,
    /// The gzip flag.
    pub gzip: bool,
    /// The whole route.
    pub route: Box<str>,
    /// Valid JSON text.
    pub body: Bytes,
    /// The session as it was when the message arrived.
    pub session: Session,
    answered: Cell<bool>,
    /// What filters keep of it, by their addresses.
    marks: RefCell<Vec<(usize, Box<dyn Any>)>>,
}

impl Incoming {
    /// Copies a request out of the read buffer.
    pub fn new(request: &Request<'_>) -> Self {
        Self {
            id: request.id,
            kind: request.kind,
            compressed: request.compressed,
            gzip: request.gzip,
            route: request.route.into(),
            body: Bytes::copy_from_slice(request.body),
            session: request.session.clone(),
            answered: Cell::default(),
            marks: RefCell::default(),
        }
    }

    fn put_mark(&self, key: usize, mark: impl Any) {
        self.marks.borrow_mut().push((key, Box::new(mark)));
    }

    fn take_mark<T: Any>(&self, key: usize) -> Option<T> {
        let mut marks = self.marks.borrow_mut();
        let at = marks.iter().position(|(of, _)| *of == key)?;
        let (_, mark) = marks.swap_remove(at);
        mark.downcast().ok().map(|mark| *mark)
    }

    /// Answers the message, now; only the first answer is sent. A notify gets none either way.
    pub fn answer(&self, outcome: Outcome<'_>) {
        let frontend = self.session.frontend().clone();
        if self.answered.replace(true) {
            frontend.count(Counter::ResponsesDropped);
        } else {
            frontend.answer(self, outcome);
        }
    }

    /// True once somebody has answered.
    pub fn is_answered(&self) -> bool {
        self.answered.get()
    }

    /// As a request again.
    pub fn request(&self) -> Request<'_> {
        Request {
            id: self.id,
            kind: self.kind,
            compressed: self.compressed,
            gzip: self.gzip,
            route: &self.route,
            body: &self.body,
            session: &self.session,
        }
    }
}

/// An error of a handler or filter. Its text reaches error handlers and logs, never the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub Cow<'static, str>);

impl Failure {
    /// From a text.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }
}

/// What a handler came to: an error, a response, both, or neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// Adds `"code":500` to the response unless it has a code.
    pub error: Option<Failure>,
    /// JSON text; `None` is JavaScript's `undefined`.
    pub response: Option<Cow<'a, [u8]>>,
}

impl<'a> Outcome<'a> {
    /// A response of JSON text.
    pub fn json(text: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            error: None,
            response: Some(text.into()),
        }
    }

    /// A response of a JSON value.
    pub fn value(value: &serde_json::Value) -> Self {
        let mut text = Vec::new();
        json::write_value(&mut text, value);
        Self::json(text)
    }

    /// An error without a response.
    pub fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::failed(Failure::new(text))
    }

    /// A failure without a response.
    pub fn failed(failure: Failure) -> Self {
        Self {
            error: Some(failure),
            response: None,
        }
    }

    /// With an error.
    #[must_use]
    pub fn with_error(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.error = Some(Failure::new(text));
        self
    }

    /// With its own copy of the response.
    pub fn into_owned(self) -> Outcome<'static> {
        Outcome {
            error: self.error,
            response: self.response.map(|text| Cow::Owned(text.into_owned())),
        }
    }
}

/// A future that stays on its shard.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// What a handler returns.
pub enum Answer<'a> {
    /// The outcome; it may borrow from the request.
    Now(Outcome<'a>),
    /// The outcome comes later.
    Later(LocalFuture<Outcome<'static>>),
}

impl<'a> Answer<'a> {
    /// Answers later. Cost: one allocation, the boxed future.
    pub fn later(future: impl Future<Output = Outcome<'static>> + 'static) -> Self {
        Self::Later(Box::pin(future))
    }

    /// Answers now.
    pub fn now(outcome: Outcome<'a>) -> Self {
        Self::Now(outcome)
    }
}

/// A handler of one route.
pub trait Handler {
    /// Handles one message.
    fn call<'a>(&self, request: &Request<'a>) -> Answer<'a>;
}

impl<F> Handler for F
where
    F: for<'a> Fn(&Request<'a>) -> Answer<'a>,
{
    fn call<'a>(&self, request: &Request<'a>) -> Answer<'a> {
        self(request)
    }
}

/// What a handler can do to its frontend; implemented by the shard.
pub trait Frontend: Clock {
    /// Own server id.
    fn server_id(&self) -> &str;
    /// Whose details are followed.
    fn dialect(&self) -> Dialect;
    /// Exported form of a session.
    fn export(&self, sid: Sid, identity: &Identity) -> Vec<u8>;
    /// Binds a session of this shard.
    fn bind(self: Rc<Self>, sid: Sid, uid: Uid) -> LocalFuture<Result<Rc<Identity>, Failure>>;
    /// Unbinds a session of this shard.
    fn unbind(self: Rc<Self>, sid: Sid, uid: &Uid) -> Result<Rc<Identity>, Failure>;
    /// Sets session values.
    fn import(
        self: Rc<Self>,
        sid: Sid,
        values: &[(&str, serde_json::Value)],
    ) -> Result<(), Failure>;
    /// Takes a session value away.
    fn remove(self: Rc<Self>, sid: Sid, key: &str) -> Result<(), Failure>;
    /// Pushes to one session of this shard; false when it is gone or not working.
    fn push(self: Rc<Self>, sid: Sid, route: &str, body: &[u8]) -> Result<bool, Failure>;
    /// Pushes to every session of the process, or to those that the options say.
    fn broadcast(
        self: Rc<Self>,
        route: &str,
        body: &[u8],
        options: BroadcastOptions,
    ) -> Result<(), Failure>;
    /// Kicks a session of this shard; without a reason there is no kick package.
    fn kick(self: Rc<Self>, sid: Sid, reason: Option<&str>);
    /// Sends what the client gets for an outcome.
    fn answer(self: Rc<Self>, incoming: &Incoming, outcome: Outcome<'_>);
    /// Sends a call to another server, now; what it comes to is put into the slot.
    fn call(self: Rc<Self>, call: &Invocation<'_>) -> Sent;
    /// Ids of the servers of a type, in the order that routing counts them; `None` for a type that
    /// never had one.
    fn servers(&self, server_type: &str) -> Option<Vec<String>>;
    /// Counts one more.
    fn count(&self, counter: Counter);
    /// True until a session of this shard has closed.
    fn is_open(&self, sid: Sid) -> bool;
    /// Kicks every session of a uid, on whatever shard; nobody is no error. Done when no message of
    /// theirs gets out any more on this shard. Pomelo: `sessionService.kick`.
    fn kick_uid(self: Rc<Self>, uid: &str, reason: Option<&str>) -> LocalFuture<()>;
    /// Where the client of a session of this shard is; `None` when it is gone.
    fn client_address(&self, sid: Sid) -> Option<ClientAddress>;
    /// Connection statistics of the process (C11) as JSON text:
    /// `{"serverId":…,"totalConnCount":…,"loginedCount":…,"loginedList":[…]}`. Pomelo:
    /// `connectionService.getStatisticsInfo`.
    fn statistics(self: Rc<Self>) -> LocalFuture<Vec<u8>>;
    /// Sessions of the process, and those of each uid, as JSON text: `{"count":3,"uids":{"ann":2}}`.
    fn sessions(self: Rc<Self>) -> LocalFuture<Vec<u8>>;
}

/// A session as a handler sees it: who it was when the message arrived. Valid on its own shard.
#[derive(Clone)]
pub struct Session {
    id: Sid,
    identity: Rc<Identity>,
    frontend: Rc<dyn Frontend>,
}

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
    pub fn new(id: Sid, identity: Rc<Identity>, frontend: Rc<dyn Frontend>) -> Self {
        Self {
            id,
            identity,
            frontend,
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
    pub fn get(&self, key: &str) -> Option<&serde_json::Value> {
        self.identity.settings.get(key)
    }

    /// All session values as a JSON object.
    pub fn settings_json(&self) -> &str {
        self.identity.settings.json()
    }

    /// Exported form: what a backend gets.
    pub fn export(&self) -> Vec<u8> {
        self.frontend.export(self.id, &self.identity)
    }

    /// Binds the session to a uid; on success the snapshot has it too (C82).
    pub async fn bind(&mut self, uid: Uid) -> Result<(), Failure> {
        self.identity = self.frontend.clone().bind(self.id, uid).await?;
        Ok(())
    }

    /// Unbinds the session.
    pub fn unbind(&mut self, uid: &Uid) -> Result<(), Failure> {
        self.identity = self.frontend.clone().unbind(self.id, uid)?;
        Ok(())
    }

    /// Sets a value on this snapshot only (C81).
    pub fn set(&mut self, key: &str, value: serde_json::Value) {
        Rc::make_mut(&mut self.identity).settings.set(key, value);
    }

    /// Takes a value away from this snapshot and from the session itself. Unlike pomelo, whose
    /// `remove` leaves the value where it is.
    pub fn remove(&mut self, key: &str) -> Result<(), Failure> {
        self.frontend.clone().remove(self.id, key)?;
        Rc::make_mut(&mut self.identity).settings.remove(key);
        Ok(())
    }

    /// Writes one value of the snapshot to the session itself.
    pub fn push_setting(&self, key: &str) -> Result<(), Failure> {
        let value = self.get(key).cloned().unwrap_or_default();
        self.frontend.clone().import(self.id, &[(key, value)])
    }

    /// Writes all values of the snapshot to the session itself. Pomelo: `pushAll`.
    pub fn push_settings(&self) -> Result<(), Failure> {
        let values = self.identity.settings.iter();
        let values: Vec<_> = values.map(|(key, value)| (key, value.clone())).collect();
        self.frontend.clone().import(self.id, &values)
    }

    /// Where the client is; `None` when it is gone. Pomelo: `getClientAddressBySessionId`.
    pub fn client_address(&self) -> Option<ClientAddress> {
        self.frontend.client_address(self.id)
    }

    /// Pushes a message to this session; false when it is gone.
    pub fn push(&self, route: &str, body: &[u8]) -> Result<bool, Failure> {
        self.frontend.clone().push(self.id, route, body)
    }

    /// True until the session has closed.
    pub fn is_open(&self) -> bool {
        self.frontend.is_open(self.id)
    }

    /// Kicks this session; without a reason there is no kick package.
    pub fn kick(&self, reason: Option<&str>) {
        self.frontend.clone().kick(self.id, reason);
    }

    /// The rest of what the frontend can do.
    pub fn frontend(&self) -> &Rc<dyn Frontend> {
        &self.frontend
    }
}

/// Called with a session that something has happened to.
type OnSession = Box<dyn Fn(&Session)>;
/// Called with a session and the uid that it had.
type OnUnbind = Box<dyn Fn(&Session, &Uid)>;

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
/// Has a say on a client's type and version.
type CheckClient = Box<dyn Fn(&str, &str) -> bool>;
/// Has something to say to a client that comes in.
type OnHandshake = Box<dyn Fn(&Session, &serde_json::Value) -> Answer<'static>>;

/// Routes, handlers and filters of one shard.
#[derive(Default)]
pub struct Router {
    routes: Vec<(Box<str>, Box<dyn Handler>)>,
    /// Filters and error handlers.
    pub(crate) filters: filter::Filters,
    remotes: Vec<remote::Named>,
    on_bind: Vec<OnSession>,
    on_unbind: Vec<OnUnbind>,
    on_close: Vec<OnSession>,
    check_client: Option<CheckClient>,
    on_handshake: Option<OnHandshake>,
    pub(crate) select_scheduler: Option<send::SelectScheduler>,
    pub(crate) broadcast_filter: Option<send::BroadcastFilter>,
}

impl Router {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler for `serverType.handler.method`. The same route again replaces the handler.
    ///
    /// # Panics
    /// When the route is not three non-empty parts, or its method is `constructor`: a mistake in
    /// the program, found at start.
    #[must_use]
    pub fn route<H>(mut self, route: &str, handler: H) -> Self
    where
        H: for<'a> Fn(&Request<'a>) -> Answer<'a> + 'static,
    {
        let parts: Vec<&str> = route.split('.').collect();
        assert!(
            parts.len() == 3 && parts.iter().all(|part| !part.is_empty()),
            "route {route:?} is not serverType.handler.method"
        );
        assert!(
            parts[2] != "constructor",
            "route {route:?} names a constructor"
        );
        self.routes.retain(|(known, _)| **known != *route);
        self.routes.push((route.into(), Box::new(handler)));
        self
    }

    /// Adds filters and error handlers.
    #[must_use]
    pub fn filters(mut self, add: impl FnOnce(&mut filter::Filters)) -> Self {
        add(&mut self.filters);
        self
    }

    /// With the filters and the forward log of the configuration around its own.
    pub fn configured(mut self, config: &Config) -> Self {
        let own = std::mem::replace(&mut self.filters, filter::Filters::configured(config));
        self.filters.append(own);
        self
    }

    /// Calls `f` for each session that was bound, by a handler here or by a backend, on the shard of
    /// the session; not where it already had that uid. Pomelo: the event `bind_session`.
    #[must_use]
    pub fn on_bind(mut self, f: impl Fn(&Session) + 'static) -> Self {
        self.on_bind.push(Box::new(f));
        self
    }

    /// Calls `f` for each session that was unbound, with the uid that it had; the session has none
    /// any more. A session that closes is not unbound before. Pomelo: the event `unbind_session`.
    #[must_use]
    pub fn on_unbind(mut self, f: impl Fn(&Session, &Uid) + 'static) -> Self {
        self.on_unbind.push(Box::new(f));
        self
    }

    /// Calls `f` once for each session that has closed; its uid is still set.
    #[must_use]
    pub fn on_close(mut self, f: impl Fn(&Session) + 'static) -> Self {
        self.on_close.push(Box::new(f));
        self
    }

    /// Refuses clients with code 501 for whose `sys.type` and `sys.version` `f` says false; both are
    /// empty when the client does not tell. Comes after the rules of `client.accept`. Pomelo:
    /// `checkClient`.
    #[must_use]
    pub fn check_client(mut self, f: impl Fn(&str, &str) -> bool + 'static) -> Self {
        self.check_client = Some(Box::new(f));
        self
    }

    /// Asks `f` about each handshake, with the whole of what the client said. A truthy response goes
    /// out as `user`; an error, or a panic, refuses the client with code 500. While the answer takes
    /// its time the client is not in: what it sends is ignored but for further handshakes, of which
    /// each is asked about, up to `client.calls_in_flight_max`. Pomelo: `handshake`.
    #[must_use]
    pub fn handshake<H>(mut self, f: H) -> Self
    where
        H: Fn(&Session, &serde_json::Value) -> Answer<'static> + 'static,
    {
        self.on_handshake = Some(Box::new(f));
        self
    }

    /// Whether a client of this type and version is taken.
    pub fn accepts_client(&self, client: impl FnOnce() -> (String, String)) -> bool {
        self.check_client.as_ref().is_none_or(|check| {
            let (kind, version) = client();
            check(&kind, &version)
        })
    }

    /// True when somebody has something to say to clients that come in.
    pub fn wants_handshake(&self) -> bool {
        self.on_handshake.is_some()
    }

    /// What the client gets to hear.
    pub fn answer_handshake(
        &self,
        session: &Session,
        message: &serde_json::Value,
    ) -> Answer<'static> {
        match &self.on_handshake {
            Some(f) => f(session, message),
            None => Answer::now(Outcome::default()),
        }
    }

    /// Sets who chooses the push scheduler of each package: `select` gives the id of one, `default`
    /// or another that the configuration has (`push.schedulers`), or `None` to leave it to the rules
    /// in `push.select`. It is asked once for a push or broadcast, whoever gets it, on the shard
    /// that encodes it, and once for each response. Pomelo: `pushSchedulerConfig.selector`.
    ///
    /// Where it names a scheduler that there is not, or panics, the package is lost, as in the
    /// reference; that is counted and logged, and unlike there a push or broadcast is an error for
    /// whoever made it.
    #[must_use]
    pub fn select_scheduler(
        mut self,
        select: impl for<'a> Fn(&Sending<'a>) -> Option<&'a str> + 'static,
    ) -> Self {
        self.select_scheduler = Some(Box::new(select));
        self
    }

    /// Sets who says, for each session, whether it gets a broadcast: `filter` sees the session, the
    /// encoded message (flag, route and body, without the package's head) and the broadcast's
    /// [`filter_param`](BroadcastOptions::filter_param). On every shard it is asked for that shard's
    /// working sessions, whether a handler or a backend broadcasts. Pomelo:
    /// `channelConfig.broadcastFilter`.
    ///
    /// A session for which it panics is skipped; that is counted and logged.
    #[must_use]
    pub fn broadcast_filter(
        mut self,
        filter: impl Fn(&Session, &[u8], &serde_json::Value) -> bool + 'static,
    ) -> Self {
        self.broadcast_filter = Some(Box::new(filter));
        self
    }

    /// All routes, in index order.
    pub fn routes(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().map(|(route, _)| &**route)
    }

    /// The route of an index.
    pub fn route_of(&self, index: usize) -> &str {
        &self.routes[index].0
    }

    /// Calls the handler of an index.
    pub(crate) fn call<'a>(&self, index: usize, request: &Request<'a>) -> Answer<'a> {
        self.routes[index].1.call(request)
    }

    /// Tells everybody who asked, filters first.
    pub fn happened(&self, session: &Session, event: &SessionEvent) {
        match event {
            SessionEvent::Bind => self.on_bind.iter().for_each(|f| f(session)),
            SessionEvent::Unbind(uid) => self.on_unbind.iter().for_each(|f| f(session, uid)),
            SessionEvent::Close => {
                self.filters.session_closed(session.id());
                self.on_close.iter().for_each(|f| f(session));
            }
        }
    }

    /// True when somebody asked.
    pub fn wants(&self, event: &SessionEvent) -> bool {
        match event {
            SessionEvent::Bind => !self.on_bind.is_empty(),
            SessionEvent::Unbind(_) => !self.on_unbind.is_empty(),
            SessionEvent::Close => !self.on_close.is_empty() || self.filters.wants_close(),
        }
    }
}
