//! A gateway in memory, as the tests of its users have it: no socket is opened here.

#![cfg(feature = "runtime")]
// A test is not a shard.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tangelo::config::{self, Dialect, DuplicateLogin, Scheduler};
use tangelo::handler::{
    App, BroadcastOptions, Failure, Json, Reply, Router, Session, State, Stop, Uid,
};
use tangelo::memory::{Client, ClientOptions, InMemory};
use tangelo::{Config, Error, Gateway};

mod a_pause;
mod accepting;
mod address_limits;
mod addresses;
mod bounds;
mod callers;
mod clients;
mod deadlines;
mod drain;
mod failures;
mod fan_out;
mod life;
mod listeners;
mod rates;
mod servers;
mod shedding;
mod silent;
mod tls;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

const LOGIN: &str = "connector.entryHandler.login";
const ECHO: &str = "connector.entryHandler.echo";
const SAY: &str = "connector.entryHandler.say";
const SLOW: &str = "connector.entryHandler.slow";
const LEAVE: &str = "connector.entryHandler.leave";
const ADD: &str = "connector.entryHandler.add";
const AWAY: &str = "connector.entryHandler.away";

fn router() -> Router {
    Router::new()
        .route("entryHandler.login", login)
        .route("entryHandler.echo", async |body: Bytes| body)
        .route("entryHandler.say", say)
        .route("entryHandler.slow", slow)
        .route("entryHandler.leave", leave)
        .route("entryHandler.add", add)
        .route("entryHandler.away", away)
}

#[derive(Deserialize)]
struct Login {
    uid: String,
}

async fn login(mut session: Session, Json(login): Json<Login>) -> Reply<Value> {
    session.bind(login.uid).await?;
    Ok(json!({"code": 200}))
}

/// Tells everybody, or all who are bound.
async fn say(app: App, Json(message): Json<Value>) -> Reply<Value> {
    let options = BroadcastOptions {
        bound_only: message["bound"] == true,
        ..BroadcastOptions::default()
    };
    app.broadcast_with("onSay", &json!({"text": message["text"]}), options)?;
    Ok(json!({"code": 200}))
}

async fn slow(app: App) -> Value {
    app.sleep(5 * SECOND).await;
    json!({"slow": true})
}

async fn leave(session: Session) {
    session.kick(Some("you asked for it"));
}

/// Asks a server.
async fn add(app: App, Json(uid): Json<String>) -> Reply<Value> {
    let add = app.cluster().call("chat", "chatRemote.add", &[json!(uid)]);
    Ok(add.await?)
}

/// Waits for another thread, as if for a database.
async fn away() -> Value {
    let (done, when) = flag();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(20 * MS);
        done();
    });
    when.await;
    thread.join().expect("the thread has ended");
    json!({"from": "afar"})
}

/// A function to call from another thread, and a future that waits for that.
fn flag() -> (impl FnOnce() + Send, impl Future<Output = ()>) {
    type State = (bool, Option<std::task::Waker>);
    let state = Arc::new(Mutex::new(State::default()));
    let shared = state.clone();
    let set = move || {
        let mut state = shared.lock().unwrap();
        state.0 = true;
        state.1.take().expect("somebody waits").wake();
    };
    let is_set = std::future::poll_fn(move |cx| {
        let mut state = state.lock().unwrap();
        state.1 = Some(cx.waker().clone());
        if state.0 {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    });
    (set, is_set)
}

fn start(config: Config) -> InMemory {
    let gateway = Gateway::new(config).handlers(|_| router());
    gateway
        .in_memory()
        .unwrap_or_else(|error| panic!("{error}"))
}

fn on_shards(shards: usize) -> Config {
    Config {
        shards: Some(shards),
        ..Config::default()
    }
}

fn on_shard(shard: usize) -> ClientOptions {
    ClientOptions {
        shard: Some(shard),
        ..ClientOptions::default()
    }
}

fn said(text: &str) -> Option<(String, Value)> {
    Some(("onSay".into(), json!({"text": text})))
}

/// A gateway before one chat server.
fn before_chat(dialect: Dialect, shards: usize) -> InMemory {
    start(with_chat(dialect, shards))
}

fn with_chat(dialect: Dialect, shards: usize) -> Config {
    Config {
        dialect,
        servers: vec![config::Server {
            id: "chat-1".into(),
            server_type: "chat".into(),
            host: "chat.example".into(),
            port: 1,
            ..config::Server::default()
        }],
        ..on_shards(shards)
    }
}

const SEND: &str = "chat.chatHandler.send";

thread_local! {
    /// Log lines of this thread, on which the gateways of its test run.
    static LOG: RefCell<Vec<u8>> = RefCell::default();
}

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to collect log lines. A subscriber of one thread alone would miss lines that another
/// thread writes first.
fn collect_log() {
    static COLLECTS: Once = Once::new();
    COLLECTS.call_once(|| {
        let subscriber = tracing_subscriber::fmt().with_ansi(false);
        subscriber.with_writer(|| Log).init();
    });
    LOG.take();
}

fn log_lines(part: &str) -> Vec<String> {
    let text = String::from_utf8(LOG.with_borrow(Clone::clone)).unwrap();
    let lines = text.lines().filter(|line| line.contains(part));
    lines.map(str::to_owned).collect()
}
