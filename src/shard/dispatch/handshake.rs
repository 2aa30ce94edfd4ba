//! The handshake of a client: its checks, the application's answer, and the reply.

use std::rc::Rc;

use bytes::Bytes;

use super::log_text;
use crate::client::crypto::PublicKey;
use crate::client::handshake::Refusal;
use crate::error::{CloseReason, Fault, Panic};
use crate::handler::{Answer, Outcome, Session};
use crate::ids::Sid;
use crate::net::task;
use crate::shard::Shard;
use crate::shard::app::activity::Work;
use crate::wire::{handshake, json};

/// Reply to a handshake during which the application panicked.
const PANICKED: Refusal = Refusal {
    body: handshake::FAILED,
    cause: "a handshake handler panicked",
};

impl Shard {
    /// Answers a handshake of a client that had none yet. There is always one reply: while the
    /// application decides, the client may send more handshakes, and the application is asked about each.
    pub(super) fn shake_hands(self: &Rc<Self>, sid: Sid, body: &[u8]) {
        let (core, clients, app) = (&self.core, &self.clients, &self.app);
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
            clients.keep_handshake(sid, body);
        }
        if !router.wants_handshake() {
            return clients.welcome(core, sid, &reply, greeting.key);
        }
        let Some(identity) = clients.identity(sid) else {
            return;
        };
        let session = Session::new(sid, identity, self.clone());
        let message = json::parse(body).unwrap_or_default();
        match self.guarded(sid, || router.answer_handshake(&session, &message)) {
            None => self.refuse(sid, PANICKED.body, PANICKED.cause),
            Some(Answer::Now(outcome)) => self.decided(sid, reply, greeting.key, outcome),
            Some(Answer::Later(future)) => {
                if !app.has_room(core) || clients.begin_in_flight(core, sid) != Some(true) {
                    return self.refuse(sid, handshake::FAILED, "too much is in progress");
                }
                app.begin_work(core);
                let (shard, key) = (self.clone(), greeting.key);
                task::spawn(async move {
                    let outcome = shard.app.run(Work::Handshake, future).await;
                    let outcome = outcome.unwrap_or_else(|_| {
                        shard.handshake_panicked(sid);
                        Outcome::error(PANICKED.cause)
                    });
                    shard.app.end_work(&shard.core);
                    shard.clients.end_in_flight(sid);
                    shard.decided(sid, reply, key, outcome);
                })
                .detach();
            }
        }
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

    /// Replies as the application has decided.
    fn decided(
        self: &Rc<Self>,
        sid: Sid,
        reply: Bytes,
        key: Option<PublicKey>,
        outcome: Outcome<'_>,
    ) {
        if let Some(error) = &outcome.error {
            return self.refuse(sid, handshake::FAILED, &error.0);
        }
        let user = outcome.response.filter(|text| json::is_truthy(text));
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
