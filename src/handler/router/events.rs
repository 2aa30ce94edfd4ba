//! Events of sessions, and functions of the application that decide about clients.

use std::cell::RefCell;
use std::collections::HashMap;

use serde_json::Value;

use super::Router;
use crate::handler::{Answer, Failure, OnClose, Outcome, Sending, Session, SessionEvent};
use crate::ids::Sid;
use crate::limits::CLOSE_CALLS_MAX;
use crate::session::Uid;

/// Called with the session of an event.
type OnSession = Box<dyn Fn(&Session)>;
/// Called with an unbound session and its former uid.
type OnUnbind = Box<dyn Fn(&Session, &Uid)>;
/// Accepts or refuses a client by its type and version.
type CheckClient = Box<dyn Fn(&str, &str) -> bool>;
/// Answers a handshake.
type OnHandshake = Box<dyn Fn(&Session, &Value) -> Answer<'static>>;
/// Returns the id of a push scheduler.
pub(crate) type SelectScheduler = Box<dyn for<'a> Fn(&Sending<'a>) -> Option<&'a str>>;
/// Returns true if a session gets a broadcast.
pub(crate) type BroadcastFilter = Box<dyn Fn(&Session, &[u8], &Value) -> bool>;

/// Functions to call about sessions.
#[derive(Default)]
pub(crate) struct Events {
    on_bind: Vec<OnSession>,
    on_unbind: Vec<OnUnbind>,
    on_close: Vec<OnSession>,
    /// Functions of single sessions, removed when the session closes.
    closing: RefCell<HashMap<Sid, Vec<OnClose>>>,
    check_client: Option<CheckClient>,
    on_handshake: Option<OnHandshake>,
    pub(crate) select_scheduler: Option<SelectScheduler>,
    pub(crate) broadcast_filter: Option<BroadcastFilter>,
}

impl Events {
    /// Appends the functions of `more`. For single hooks the later router wins.
    pub(super) fn append(&mut self, mut more: Self) {
        self.on_bind.append(&mut more.on_bind);
        self.on_unbind.append(&mut more.on_unbind);
        self.on_close.append(&mut more.on_close);
        self.check_client = more.check_client.or(self.check_client.take());
        self.on_handshake = more.on_handshake.or(self.on_handshake.take());
        self.select_scheduler = more.select_scheduler.or(self.select_scheduler.take());
        self.broadcast_filter = more.broadcast_filter.or(self.broadcast_filter.take());
    }
}

impl Router {
    /// Calls `f` for each session that a handler or a backend has bound, on the shard of the session.
    /// It is not called if the session already had that uid. Pomelo: the event `bind_session`.
    #[must_use]
    pub fn on_bind(mut self, f: impl Fn(&Session) + 'static) -> Self {
        self.events.on_bind.push(Box::new(f));
        self
    }

    /// Calls `f` for each session that was unbound, with its former uid. A session that closes is not
    /// unbound before. Pomelo: the event `unbind_session`.
    #[must_use]
    pub fn on_unbind(mut self, f: impl Fn(&Session, &Uid) + 'static) -> Self {
        self.events.on_unbind.push(Box::new(f));
        self
    }

    /// Calls `f` once for each closed session, which still has its uid.
    #[must_use]
    pub fn on_close(mut self, f: impl Fn(&Session) + 'static) -> Self {
        self.events.on_close.push(Box::new(f));
        self
    }

    /// Refuses a client with code 501 if `f` returns false for its `sys.type` and `sys.version`. Both
    /// are empty if the client does not send them. The rules of `client.accept` apply first. Pomelo:
    /// `checkClient`.
    #[must_use]
    pub fn check_client(mut self, f: impl Fn(&str, &str) -> bool + 'static) -> Self {
        self.events.check_client = Some(Box::new(f));
        self
    }

    /// Calls `f` with the whole body of each handshake. A truthy response becomes the `user` member of
    /// the reply; an error or a panic refuses the client with code 500. While `f` waits, the client has
    /// no working session: everything it sends is ignored except further handshakes. Each of those
    /// calls `f` too, up to `client.calls_in_flight_max`. Pomelo: `handshake`.
    #[must_use]
    pub fn handshake<H>(mut self, f: H) -> Self
    where
        H: Fn(&Session, &Value) -> Answer<'static> + 'static,
    {
        self.events.on_handshake = Some(Box::new(f));
        self
    }

    /// Sets the function that chooses the push scheduler of each package. `select` returns the id of
    /// one, `default` or an id of `push.schedulers`, or `None` for the rules of `push.select`. The
    /// shard that encodes a package calls it once for each push or broadcast, regardless of the number
    /// of receivers, and once for each response. Pomelo: `pushSchedulerConfig.selector`.
    ///
    /// If `select` names an unknown scheduler or panics, the package is dropped, counted and logged, as
    /// in the reference. Unlike there, the push or broadcast returns an error.
    #[must_use]
    pub fn select_scheduler(
        mut self,
        select: impl for<'a> Fn(&Sending<'a>) -> Option<&'a str> + 'static,
    ) -> Self {
        self.events.select_scheduler = Some(Box::new(select));
        self
    }

    /// Sets the function that decides for each session whether it receives a broadcast. `filter` gets
    /// the session, the encoded message (flag, route and body, without the head of the package) and the
    /// [`filter_param`](crate::handler::BroadcastOptions::filter_param) of the broadcast. Each shard calls it
    /// for its own working sessions, for broadcasts of handlers and of backends. Pomelo:
    /// `channelConfig.broadcastFilter`.
    ///
    /// If it panics, the session is skipped; this is counted and logged.
    #[must_use]
    pub fn broadcast_filter(
        mut self,
        filter: impl Fn(&Session, &[u8], &Value) -> bool + 'static,
    ) -> Self {
        self.events.broadcast_filter = Some(Box::new(filter));
        self
    }
}

/// The part of the router that the shard uses.
impl Router {
    /// Returns true if a client of this type and version may connect.
    pub(crate) fn accepts_client(&self, client: impl FnOnce() -> (String, String)) -> bool {
        self.events.check_client.as_ref().is_none_or(|check| {
            let (kind, version) = client();
            check(&kind, &version)
        })
    }

    /// Returns true if a handshake function is set.
    pub(crate) fn wants_handshake(&self) -> bool {
        self.events.on_handshake.is_some()
    }

    /// Returns the answer to a handshake.
    pub(crate) fn answer_handshake(&self, session: &Session, message: &Value) -> Answer<'static> {
        match &self.events.on_handshake {
            Some(f) => f(session, message),
            None => Answer::now(Outcome::default()),
        }
    }

    /// Registers `f` to be called once when the session closes.
    pub(crate) fn when_closed(&self, sid: Sid, f: OnClose) -> Result<(), Failure> {
        let mut closing = self.events.closing.borrow_mut();
        let calls = closing.entry(sid).or_default();
        if calls.len() == CLOSE_CALLS_MAX {
            return Err(Failure::new(
                "too many functions wait for the session to close",
            ));
        }
        calls.push(f);
        Ok(())
    }

    /// Calls the functions registered for an event, filters first.
    pub(crate) fn happened(&self, session: &Session, event: &SessionEvent) {
        match event {
            SessionEvent::Bind => self.events.on_bind.iter().for_each(|f| f(session)),
            SessionEvent::Unbind(uid) => self.events.on_unbind.iter().for_each(|f| f(session, uid)),
            SessionEvent::Close => {
                self.filters.session_closed(session.id());
                let calls = self.events.closing.borrow_mut().remove(&session.id());
                calls.into_iter().flatten().for_each(|f| f(session));
                self.events.on_close.iter().for_each(|f| f(session));
            }
        }
    }

    /// Returns true if a function is registered for the event.
    pub(crate) fn wants(&self, event: &SessionEvent) -> bool {
        match event {
            SessionEvent::Bind => !self.events.on_bind.is_empty(),
            SessionEvent::Unbind(_) => !self.events.on_unbind.is_empty(),
            SessionEvent::Close => {
                !self.events.on_close.is_empty()
                    || self.filters.wants_close()
                    || !self.events.closing.borrow().is_empty()
            }
        }
    }
}
