//! The chat room that tangelo serves when nothing is configured: something to talk to, and an
//! example of handlers.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::handler::{Answer, BroadcastOptions, Outcome, Request, Router, Session};
use crate::session::Uid;

/// The page with the client.
pub const PAGE: &[u8] = include_bytes!("chat.html");

/// Those who are in the room.
const TO_BOUND: BroadcastOptions = BroadcastOptions {
    bound_only: true,
    filter_param: Value::Null,
};

/// Longest name, characters.
const NAME_CHARS_MAX: usize = 32;
/// Longest line of chat, characters.
const TEXT_CHARS_MAX: usize = 2000;

/// Names of all who are in the room, on whatever shard. The one thing that shards share here; it is
/// locked when somebody enters or leaves.
#[derive(Debug, Clone, Default)]
pub struct Room {
    #[allow(clippy::disallowed_types)]
    names: Arc<std::sync::Mutex<BTreeSet<String>>>,
}

impl Room {
    /// Handlers for one shard.
    pub fn router(&self) -> Router {
        let (enter, leave) = (self.clone(), self.clone());
        Router::new()
            .route("connector.entryHandler.enter", move |request| {
                enter.enter(request)
            })
            .route("connector.entryHandler.echo", |request| {
                Answer::now(Outcome::json(request.body))
            })
            .route("chat.chatHandler.send", send)
            .on_close(move |session| leave.leave(session))
    }

    fn with_names<T>(&self, f: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        f(&mut self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn enter<'a>(&self, request: &Request<'_>) -> Answer<'a> {
        let message = request.message();
        let name = message["name"]
            .as_str()
            .unwrap_or_default()
            .trim()
            .to_owned();
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            return refuse(400, "a name has 1 to 32 characters");
        }
        if request.session.uid().is_some() {
            return refuse(409, "you are in the room already");
        }
        if !self.with_names(|names| names.insert(name.clone())) {
            return refuse(409, "name is taken");
        }
        let (room, mut session) = (self.clone(), request.session.clone());
        Answer::later(async move {
            // Those who are in hear of it; the newcomer reads the list instead.
            let body = json!({ "user": name }).to_string();
            let frontend = session.frontend().clone();
            let told = frontend.broadcast("onAdd", body.as_bytes(), TO_BOUND);
            let bound = session.bind(Uid::from_text(&name)).await;
            if let Err(failure) = told.and(bound) {
                room.with_names(|names| names.remove(&name));
                return Outcome::error(failure.0);
            }
            let users: Vec<String> = room.with_names(|names| names.iter().cloned().collect());
            Outcome::value(&json!({ "code": 200, "name": name, "users": users }))
        })
    }

    fn leave(&self, session: &Session) {
        let Some(uid) = session.uid() else { return };
        self.with_names(|names| names.remove(uid.text()));
        let body = json!({ "user": uid.text() }).to_string();
        // The only way to fail is a body too long for a package, which a name is not.
        let _ = session
            .frontend()
            .clone()
            .broadcast("onLeave", body.as_bytes(), TO_BOUND);
    }
}

fn send<'a>(request: &Request<'a>) -> Answer<'a> {
    let Some(uid) = request.session.uid() else {
        return refuse(403, "enter the room first");
    };
    let message = request.message();
    let text = message["text"].as_str().unwrap_or_default();
    if text.is_empty() || text.chars().count() > TEXT_CHARS_MAX {
        return refuse(400, "a line has 1 to 2000 characters");
    }
    let at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64;
    let body = json!({ "from": uid.text(), "text": text, "at": at }).to_string();
    match request
        .session
        .frontend()
        .clone()
        .broadcast("onChat", body.as_bytes(), TO_BOUND)
    {
        Ok(()) => reply(&json!({ "code": 200 })),
        Err(failure) => Answer::now(Outcome::error(failure.0)),
    }
}

fn refuse<'a>(code: u16, text: &str) -> Answer<'a> {
    reply(&json!({ "code": code, "msg": text }))
}

fn reply<'a>(value: &Value) -> Answer<'a> {
    Answer::now(Outcome::value(value))
}
