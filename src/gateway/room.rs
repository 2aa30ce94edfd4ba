//! The chat room that tangelo serves without a configuration, as a first test and an example of
//! handlers.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::handler::{App, BroadcastOptions, Json, Reply, Router, Session, State};

/// The page with the client.
pub(super) const PAGE: &[u8] = include_bytes!("chat.html");

/// Sends to the members of the room.
const TO_BOUND: BroadcastOptions = BroadcastOptions {
    bound_only: true,
    filter_param: Value::Null,
};

/// Longest name, characters.
const NAME_CHARS_MAX: usize = 32;
/// Longest line of chat, characters.
const TEXT_CHARS_MAX: usize = 2000;

/// Names of all members of the room, on all shards. It is the only data that the shards share here, and
/// it is locked when a member enters or leaves.
#[derive(Debug, Clone, Default)]
pub(super) struct Room {
    #[allow(clippy::disallowed_types)]
    names: Arc<std::sync::Mutex<BTreeSet<String>>>,
}

impl Room {
    /// Creates the handlers of one shard.
    pub(super) fn router(&self) -> Router {
        let room = self.clone();
        Router::new()
            .route("connector.entryHandler.enter", enter)
            .route("connector.entryHandler.echo", echo)
            .route("chat.chatHandler.send", send)
            .on_close(move |session| room.leave(session))
            .with_state(self.clone())
    }

    fn with_names<T>(&self, f: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        f(&mut self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn leave(&self, session: &Session) {
        let Some(uid) = session.uid() else { return };
        self.with_names(|names| names.remove(uid.text()));
        let left = json!({ "user": uid.text() });
        // It fails only if the body is too long for a package, and a name is short.
        let _ = session.app().broadcast_with("onLeave", &left, TO_BOUND);
    }
}

async fn echo(body: Bytes) -> Bytes {
    body
}

async fn enter(
    mut session: Session,
    State(room): State<Room>,
    Json(request): Json<Value>,
) -> Reply<Value> {
    let name = request["name"].as_str().unwrap_or_default().trim();
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        return refuse(400, "a name has 1 to 32 characters");
    }
    if session.uid().is_some() {
        return refuse(409, "you are in the room already");
    }
    if !room.with_names(|names| names.insert(name.to_owned())) {
        return refuse(409, "name is taken");
    }
    // Members get an event; the newcomer gets the list.
    let added = json!({ "user": name });
    let told = session.app().broadcast_with("onAdd", &added, TO_BOUND);
    let bound = session.bind(name).await;
    if let Err(failure) = told.and(bound) {
        room.with_names(|names| names.remove(name));
        return Err(failure);
    }
    let users: Vec<String> = room.with_names(|names| names.iter().cloned().collect());
    Ok(json!({ "code": 200, "name": name, "users": users }))
}

async fn send(session: Session, app: App, Json(line): Json<Value>) -> Reply<Value> {
    let Some(uid) = session.uid() else {
        return refuse(403, "enter the room first");
    };
    let text = line["text"].as_str().unwrap_or_default();
    if text.is_empty() || text.chars().count() > TEXT_CHARS_MAX {
        return refuse(400, "a line has 1 to 2000 characters");
    }
    let since = app.now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = since.as_millis() as u64;
    let line = json!({ "from": uid.text(), "text": text, "at": at });
    app.broadcast_with("onChat", &line, TO_BOUND)?;
    Ok(json!({ "code": 200 }))
}

fn refuse(code: u16, text: &str) -> Reply<Value> {
    Ok(json!({ "code": code, "msg": text }))
}
