//! The connector of Pomelo's chat, before the cluster's own backends:
//! `cargo run --release --example pomelo_chat -- --app-dir examples/pomelo_chat --id connector-1`
//!
//! It takes the command line of the binary. That folder lists a master and a chat server, which are not
//! part of it: until they run, a player who enters gets `{"code":500}`. The chat server may be that of
//! `tests/genuine/chat`, or of Pomelo's own chat. In a Pomelo project the command is
//! `-- --app-dir path/to/game-server --id connector-1`.
//!
//! `connector.entryHandler.enter` with `{"username":"ann","rid":"lobby"}` answers `{"users":["ann"]}`,
//! everybody who is in the room; a name that is already in the room gets `{"code":500,"error":true}`.
//!
//! `main` has the settings of the connector in `app.js`, `enter` is
//! `app/servers/connector/handler/entryHandler.js`, and everything else of the project stays as it is.

use serde::Deserialize;
use serde_json::{Value, json};
use tangelo::config::DuplicateLogin;
use tangelo::handler::{CallError, Json, Reply, Router, Session, Uid};
use tangelo::{Config, Gateway};

fn main() -> tangelo::Result<()> {
    let mut config = Config::from_args()?;
    // In app.js: app.route('chat', …) by the crc32 of the room; a `route.chat` of the user's goes before.
    let chat = config.routes.entry("chat".into());
    chat.or_insert_with(|| "hash:rid".into());
    config.session.duplicate_login = DuplicateLogin::Refuse;
    Gateway::new(config)
        .handlers(|_shard| Router::new().route("entryHandler.enter", enter))
        .run()
}

#[derive(Deserialize)]
struct Enter {
    username: String,
    rid: String,
}

async fn enter(mut session: Session, Json(Enter { username, rid }): Json<Enter>) -> Reply<Value> {
    let uid = format!("{username}*{rid}");
    if session.uid().is_some() || session.bind(&*uid).await.is_err() {
        return Ok(json!({ "code": 500, "error": true }));
    }
    session.set("rid", json!(rid));
    session.push_setting("rid")?;
    session.on_close(leave)?;
    let args = [json!(uid), server_id(&session), json!(rid), json!(true)];
    let users = match session
        .cluster()
        .call("chat", "chatRemote.add", &args)
        .await
    {
        // The chat that Pomelo is known by has `cb(users)`, where `cb(null, users)` is meant.
        Err(CallError::Remote(users @ Value::Array(_))) => users,
        users => users?,
    };
    Ok(json!({ "users": users }))
}

/// Tells the room. Nobody waits for an answer.
fn leave(session: &Session) {
    let Some(uid) = session.uid().map(Uid::text) else {
        return;
    };
    let args = [json!(uid), server_id(session), json!(session.get("rid"))];
    let call = session.cluster().call("chat", "chatRemote.kick", &args);
    if let Err(error) = call.notify() {
        eprintln!("{uid} is still in its room: {error}");
    }
}

fn server_id(session: &Session) -> Value {
    json!(session.app().server_id())
}
