//! What happens to sessions, and who has a say in it.

use std::cell::RefCell;
use std::collections::HashMap;

use serde_json::Value;

use super::context::OnClose;
use super::send::{BroadcastFilter, SelectScheduler};
use super::{Answer, Failure, Outcome, Router, Sending, Session, SessionEvent};
use crate::ids::Sid;
use crate::limits::CLOSE_CALLS_MAX;
use crate::session::Uid;

/// Called with a session that something has happened to.
type OnSession = Box<dyn Fn(&Session)>;
/// Called with a session and the uid that it had.
type OnUnbind = Box<dyn Fn(&Session, &Uid)>;
/// Has a say on a client's type and version.
type CheckClient = Box<dyn Fn(&str, &str) -> bool>;
/// Has something to say to a client that comes in.
type OnHandshake = Box<dyn Fn(&Session, &Value) -> Answer<'static>>;

/// Whom to call about sessions.
#[derive(Default)]
pub(crate) struct Events {
    on_bind: Vec<OnSession>,
    on_unbind: Vec<OnUnbind>,
    on_close: Vec<OnSession>,
    /// Of sessions that asked for it; taken away when they close.
    closing: RefCell<HashMap<Sid, Vec<OnClose>>>,
    check_client: Option<CheckClient>,
    on_handshake: Option<OnHandshake>,
    pub(crate) select_scheduler: Option<SelectScheduler>,
    pub(crate) broadcast_filter: Option<BroadcastFilter>,
}

impl Events {
    /// Adds those of another behind these; of what there can be but one, the other's counts.
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
    /// Calls `f` for each session that was bound, by a handler here or by a backend, on the shard of
    /// the session; not where it already had that uid. Pomelo: the event `bind_session`.
    #[must_use]
    pub fn on_bind(mut self, f: impl Fn(&Session) + 'static) -> Self {
        self.events.on_bind.push(Box::new(f));
        self
    }

    /// Calls `f` for each session that was unbound, with the uid that it had; the session has none
    /// any more. A session that closes is not unbound before. Pomelo: the event `unbind_session`.
    #[must_use]
    pub fn on_unbind(mut self, f: impl Fn(&Session, &Uid) + 'static) -> Self {
        self.events.on_unbind.push(Box::new(f));
        self
    }

    /// Calls `f` once for each session that has closed; its uid is still set.
    #[must_use]
    pub fn on_close(mut self, f: impl Fn(&Session) + 'static) -> Self {
        self.events.on_close.push(Box::new(f));
        self
    }

    /// Refuses clients with code 501 for whose `sys.type` and `sys.version` `f` says false; both are
    /// empty when the client does not tell. Comes after the rules of `client.accept`. Pomelo:
    /// `checkClient`.
    #[must_use]
    pub fn check_client(mut self, f: impl Fn(&str, &str) -> bool + 'static) -> Self {
        self.events.check_client = Some(Box::new(f));
        self
    }

    /// Asks `f` about each handshake, with the whole of what the client said. A truthy response goes
    /// out as `user`; an error, or a panic, refuses the client with code 500. While the answer takes
    /// its time the client is not in: what it sends is ignored but for further handshakes, of which
    /// each is asked about, up to `client.calls_in_flight_max`. Pomelo: `handshake`.
    #[must_use]
    pub fn handshake<H>(mut self, f: H) -> Self
    where
        H: Fn(&Session, &Value) -> Answer<'static> + 'static,
    {
        self.events.on_handshake = Some(Box::new(f));
        self
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
        self.events.select_scheduler = Some(Box::new(select));
        self
    }

    /// Sets who says, for each session, whether it gets a broadcast: `filter` sees the session, the
    /// encoded message (flag, route and body, without the package's head) and the broadcast's
    /// [`filter_param`](super::BroadcastOptions::filter_param). On every shard it is asked for that shard's
    /// working sessions, whether a handler or a backend broadcasts. Pomelo:
    /// `channelConfig.broadcastFilter`.
    ///
    /// A session for which it panics is skipped; that is counted and logged.
    #[must_use]
    pub fn broadcast_filter(
        mut self,
        filter: impl Fn(&Session, &[u8], &Value) -> bool + 'static,
    ) -> Self {
        self.events.broadcast_filter = Some(Box::new(filter));
        self
    }
}

/// What the shard wants of it.
impl Router {
    /// Whether a client of this type and version is taken.
    pub(crate) fn accepts_client(&self, client: impl FnOnce() -> (String, String)) -> bool {
        self.events.check_client.as_ref().is_none_or(|check| {
            let (kind, version) = client();
            check(&kind, &version)
        })
    }

    /// True when somebody has something to say to clients that come in.
    pub(crate) fn wants_handshake(&self) -> bool {
        self.events.on_handshake.is_some()
    }

    /// What the client gets to hear.
    pub(crate) fn answer_handshake(&self, session: &Session, message: &Value) -> Answer<'static> {
        match &self.events.on_handshake {
            Some(f) => f(session, message),
            None => Answer::now(Outcome::default()),
        }
    }

    /// Calls `f` once when a session closes.
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

    /// Tells everybody who asked, filters first.
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

    /// True when somebody asked.
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
