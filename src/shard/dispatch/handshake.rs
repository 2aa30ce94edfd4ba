//! The handshake of a client: its checks, the answer of the application or the delegate, and the reply.

use std::borrow::Cow;
use std::rc::Rc;

use bytes::Bytes;

use super::log_text;
use crate::client::crypto::PublicKey;
use crate::client::handshake::Refusal;
use crate::error::{CloseReason, Fault, Panic};
use crate::handler::{Answer, CallError, Outcome, Session};
use crate::ids::Sid;
use crate::metrics::Counter;
use crate::net::task;
use crate::shard::Shard;
use crate::shard::app::activity::Work;
use crate::wire::pomelo::rpc::SessionState;
use crate::wire::{handshake, json};

/// The JSON text of `user` for an accepted client, or body and cause of a refusal.
type Decision<'a> = Result<Option<Cow<'a, [u8]>>, (&'static [u8], Cow<'static, str>)>;

/// Reply to a handshake during which the application panicked.
const PANICKED: Refusal = Refusal {
    body: handshake::FAILED,
    cause: "a handshake handler panicked",
};

impl Shard {
    /// Answers a handshake of a client that had none yet. There is always one reply: while the
    /// application or the delegate decides, the client may send more handshakes, and it is asked about each.
    pub(super) fn shake_hands(self: &Rc<Self>, sid: Sid, body: &[u8]) {
        let (core, clients, app) = (&self.core, &self.clients, &self.app);
        clients.end_silence(sid);
        let router = app.router();
        let examined = self.guarded(sid, || {
            clients.examine(body, |request| {
                router.accepts_client(|| (request.client_type(), request.client_version()))
            })
        });
        let greeting = match examined.unwrap_or(Err(PANICKED)) {
            Ok(greeting) => greeting,
            Err(refusal) => return self.refuse(sid, refusal.body, refusal.cause),
        };
        let reply = clients.reply(&greeting.request);
        if router.keeps_handshakes() {
            clients.keep_handshake(core, sid, body);
        }
        let key = greeting.key;
        let asks_delegate = !router.wants_handshake() && core.config.delegate_handshake.is_some();
        if !router.wants_handshake() && !asks_delegate {
            return clients.welcome(core, sid, &reply, key);
        }
        let Some(identity) = clients.identity(sid) else {
            return;
        };
        let session = Session::new(sid, identity, self.clone());
        if asks_delegate {
            // The body, and the arguments with it.
            let bytes = 2 * body.len();
            let asked = self.clone().ask_about_handshake(session, body.into());
            return self.decide_later(sid, reply, key, bytes, asked);
        }
        let message = json::parse(body).unwrap_or_default();
        match self.guarded(sid, || router.answer_handshake(&session, &message)) {
            None => self.refuse(sid, PANICKED.body, PANICKED.cause),
            Some(Answer::Now(outcome)) => self.decided(sid, reply, key, decision(outcome)),
            Some(Answer::Later(future)) => {
                let decided = async { decision(future.await) };
                // The memory of handlers is not counted.
                self.decide_later(sid, reply, key, 0, decided);
            }
        }
    }

    /// Replies as soon as the application or the delegate has decided. `bytes` is the memory that this holds.
    fn decide_later(
        self: &Rc<Self>,
        sid: Sid,
        reply: Bytes,
        key: Option<PublicKey>,
        bytes: usize,
        decides: impl Future<Output = Decision<'static>> + 'static,
    ) {
        let (core, clients, app) = (&self.core, &self.clients, &self.app);
        if !app.has_room(core) || clients.begin_in_flight(core, sid) != Some(true) {
            return self.refuse(sid, handshake::FAILED, "too much is in progress");
        }
        clients.owe_step(sid);
        app.begin_work(core);
        core.memory.begin_body(bytes);
        let shard = self.clone();
        task::spawn(async move {
            let decision = shard.app.run(Work::Handshake, decides).await;
            let decision = decision.unwrap_or_else(|_| {
                shard.handshake_panicked(sid);
                Err((PANICKED.body, PANICKED.cause.into()))
            });
            shard.app.end_work(&shard.core);
            shard.core.memory.end_body(bytes);
            shard.clients.end_in_flight(sid);
            shard.decided(sid, reply, key, decision);
        })
        .detach();
    }

    /// Asks the delegate about a handshake.
    async fn ask_about_handshake(
        self: Rc<Self>,
        session: Session,
        body: Box<[u8]>,
    ) -> Decision<'static> {
        let Some(remote) = &self.core.config.delegate_handshake else {
            return Ok(None);
        };
        let mut args = b"[".to_vec();
        self.write_session(&session, &mut args);
        args.push(b',');
        args.extend_from_slice(&body);
        args.push(b']');
        let results = match self.ask_delegate(remote, Some(&session), &args).await {
            Ok(results) => results,
            Err(error) => {
                if !matches!(error, CallError::Remote(_)) {
                    self.core.counters().add(Counter::HandshakesUndelegated, 1);
                    tracing::warn!(%error, "the delegate has not answered a handshake");
                }
                return Err((handshake::FAILED, error.to_string().into()));
            }
        };
        let reply = results.into_iter().next().unwrap_or_default();
        match reply["code"].as_u64() {
            Some(200) => Ok(Outcome::value(&reply["user"]).response),
            Some(501) => Err((
                handshake::REFUSED,
                "the project's checkClient refuses it".into(),
            )),
            _ => Err((
                handshake::FAILED,
                "the project's handshake refuses it".into(),
            )),
        }
    }

    /// Writes a session with the client's address.
    fn write_session(&self, session: &Session, out: &mut Vec<u8>) {
        let address = self.clients.address(session.id());
        let address = address.as_ref().map_or(["", "0"], |it| [&it.ip, &it.port]);
        SessionState {
            session: self.core.session_export(session.id(), session.identity()),
            own: false,
            address: Some(address),
            change: None,
        }
        .write(out);
    }

    /// Calls the application; `None` when it panicked.
    fn guarded<T>(self: &Rc<Self>, sid: Sid, call: impl FnOnce() -> T) -> Option<T> {
        let result = self.app.catch(Work::Handshake, call);
        if result.is_err() {
            self.handshake_panicked(sid);
        }
        result.ok()
    }

    fn handshake_panicked(self: &Rc<Self>, sid: Sid) {
        self.react(Fault::Bug(
            Panic::of("a handshake handler").with_session(sid),
        ));
    }

    /// Replies as the application or the delegate has decided.
    fn decided(
        self: &Rc<Self>,
        sid: Sid,
        reply: Bytes,
        key: Option<PublicKey>,
        decision: Decision<'_>,
    ) {
        let user = match decision {
            Ok(user) => user.filter(|text| json::is_truthy(text)),
            Err((body, cause)) => return self.refuse(sid, body, &cause),
        };
        let reply = match user {
            None => reply,
            Some(user) => handshake::accepted_with_user(&reply, &user).into(),
        };
        self.clients.welcome(&self.core, sid, &reply, key);
    }

    fn refuse(self: &Rc<Self>, sid: Sid, body: &[u8], cause: &str) {
        let cause = log_text(cause);
        if self.clients.refuse_handshake(&self.core, sid, body, cause) {
            self.react(Fault::Client(sid, CloseReason::Handshake));
        }
    }
}

/// Reads the outcome of the application's function.
fn decision(outcome: Outcome<'_>) -> Decision<'_> {
    match outcome.error {
        Some(error) => Err((handshake::FAILED, error.0)),
        None => Ok(outcome.response),
    }
}
