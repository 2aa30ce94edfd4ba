//! A client's handshake: the checks, what the application says to it, and the reply.

use std::rc::Rc;

use crate::client::ClientState;
use crate::client::crypto::PublicKey;
use crate::client::handshake::Refusal;
use crate::error::Fault;
use crate::handler::{Answer, Outcome, Session};
use crate::ids::Sid;
use crate::limits::HANDSHAKE_KEPT_BYTES_MAX;
use crate::metrics::Counter;
use crate::shard::Shard;
use crate::shard::app::activity::Work;
use crate::shard::dispatch::log_text;
use crate::wire::{handshake, json, package};
use bytes::Bytes;

/// Answer to a handshake during which the application panicked.
const PANICKED: Refusal = Refusal {
    body: handshake::FAILED,
    cause: "a handshake handler panicked",
};

impl Shard {
    /// A handshake of a client that had none yet. Whatever it was, there is one reply: while the
    /// application makes up its mind the client may send more of them, and each is asked about.
    pub(in crate::shard) fn shake_hands(self: &Rc<Self>, sid: Sid, body: &[u8]) {
        let examined = self.guarded(sid, || {
            self.clients.handshake.examine(body, |request| {
                self.app
                    .router
                    .accepts_client(|| (request.client_type(), request.client_version()))
            })
        });
        let greeting = match examined.unwrap_or(Err(PANICKED)) {
            Ok(greeting) => greeting,
            Err(refusal) => return self.refuse(sid, refusal.body, refusal.cause),
        };
        let reply = self.clients.handshake.reply(&greeting.request);
        self.keep_handshake(sid, body);
        if !self.app.router.wants_handshake() {
            return self.welcome(sid, reply, greeting.key);
        }
        let Some(identity) = self.connection(sid, |connection| connection.identity.clone()) else {
            return;
        };
        let session = Session::new(sid, identity, self.clone());
        let message = json::parse(body).unwrap_or_default();
        match self.guarded(sid, || self.app.router.answer_handshake(&session, &message)) {
            None => self.refuse(sid, PANICKED.body, PANICKED.cause),
            Some(Answer::Now(outcome)) => self.decided(sid, reply, greeting.key, outcome),
            Some(Answer::Later(future)) => {
                if !self.begin_work(sid) {
                    return self.refuse(sid, handshake::FAILED, "too much is in progress");
                }
                let (shard, key) = (self.clone(), greeting.key);
                glommio::spawn_local(async move {
                    let outcome = shard.app.activity.run(Work::Handshake, future).await;
                    let outcome = outcome.unwrap_or_else(|_| {
                        shard.handshake_panicked(sid);
                        Outcome::error(PANICKED.cause)
                    });
                    shard.end_work(sid);
                    shard.decided(sid, reply, key, outcome);
                })
                .detach();
            }
        }
    }

    /// Keeps what a client said, where handlers want it.
    fn keep_handshake(&self, sid: Sid, body: &[u8]) {
        if !self.app.router.keeps_handshakes() || body.len() > HANDSHAKE_KEPT_BYTES_MAX {
            return;
        }
        let message = json::parse(body).unwrap_or_default();
        self.connection(sid, |connection| {
            connection.rare().handshake = Some(Rc::new(message));
        });
    }

    /// Calls the application; `None` when it panicked.
    fn guarded<T>(&self, sid: Sid, call: impl FnOnce() -> T) -> Option<T> {
        let result = self.app.activity.call(Work::Handshake, call);
        if result.is_err() {
            self.handshake_panicked(sid);
        }
        result.ok()
    }

    fn handshake_panicked(&self, sid: Sid) {
        self.counters().add(Counter::Panics, 1);
        tracing::error!(session = %sid, "a handshake handler panicked");
    }

    /// The application has made up its mind.
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
        self.welcome(sid, reply, key);
    }

    fn welcome(self: &Rc<Self>, sid: Sid, reply: Bytes, key: Option<PublicKey>) {
        let is_first = self.connection(sid, |connection| {
            let is_first = connection.client.state() == ClientState::Inited;
            if is_first {
                connection.client.accept();
                if key.is_some() {
                    connection.rare().key = key;
                }
            }
            is_first
        });
        if is_first == Some(true) {
            self.control(sid, package::Kind::Handshake, &reply);
        }
    }

    /// As pomelo: an error goes out in any state but the last.
    fn refuse(self: &Rc<Self>, sid: Sid, body: &[u8], cause: &str) {
        let is_open = self.connection(sid, |connection| {
            connection.client.state() != ClientState::Closed
        });
        if is_open == Some(true) {
            let address = self.address_for_log(sid);
            let cause = log_text(cause);
            tracing::info!(session = %sid, address = &*address, cause, "a handshake is refused");
            self.control(sid, package::Kind::Handshake, body);
            self.close(sid, Fault::Handshake, None);
        }
    }
}
