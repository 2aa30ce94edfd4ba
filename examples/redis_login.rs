//! Logs players in against a Redis: `cargo run --release --example redis_login`
//!
//! It takes the command line of the binary, and the address of Redis from `REDIS_URL`, by default
//! `redis://127.0.0.1:6379`. Another server, which has checked a player's password, puts a token there:
//! `redis-cli SET token:sesame 7 EX 60`, and `redis-cli HSET user:7 name ann level 12` is a player. The
//! client then requests `connector.entryHandler.enter` with `{"token":"sesame"}` and gets
//! `{"code":200,"uid":"7","logins":1,"profile":{"level":"12","name":"ann"}}`, once; a token that is
//! not known gets code 401.
//!
//! While Redis is away a login gets `{"code":500}`. While Redis is slow and the queue is full, further logins
//! get code 503 at once. All other requests are served as usual.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Client, Commands, Connection, ConnectionLike, RedisResult};
use serde::Deserialize;
use serde_json::{Value, json};
use tangelo::handler::{Bytes, Json, Reply, Router, Session, State};
use tangelo::pool::{Pool, PoolError};
use tangelo::{Config, Error, Gateway};

/// For a connection, and for each answer of Redis.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Connections to Redis, one a thread: the whole process has them, each shard a handle on them.
type Redis = Pool<Connection>;

fn main() -> tangelo::Result<()> {
    let config = Config::from_args()?;
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());
    let redis = pool(&url)?;
    Gateway::new(config)
        .handlers(move |_shard| {
            Router::new()
                .route("entryHandler.enter", enter)
                .route("entryHandler.echo", echo)
                .with_state(redis.clone())
        })
        .run()
}

fn pool(url: &str) -> tangelo::Result<Redis> {
    let client = Client::open(url).map_err(|error| {
        Error::Config(format!(
            "REDIS_URL {url:?}: {error}; expected redis://host:port"
        ))
    })?;
    let connect = move || {
        let connection = client.get_connection_with_timeout(TIMEOUT)?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        connection.set_write_timeout(Some(TIMEOUT))?;
        RedisResult::Ok(connection)
    };
    Pool::builder("redis", connect)
        .threads(4)
        .queue(64)
        .is_valid(Connection::check_connection) // Asks with PING.
        .start()
}

#[derive(Deserialize)]
struct Enter {
    token: String,
}

/// A player as Redis has it.
struct Player {
    uid: String,
    logins: u64,
    profile: BTreeMap<String, String>,
}

async fn enter(
    mut session: Session,
    State(redis): State<Redis>,
    Json(request): Json<Enter>,
) -> Reply<Value> {
    let player = match redis.run(move |redis| log_in(redis, &request.token)).await {
        Err(PoolError::Full) => return refuse(503, "too many log in, try again later"),
        // Redis is away, or it did not answer: `{"code":500}`, and the text is in the log.
        player => player??,
    };
    let Some(Player {
        uid,
        logins,
        profile,
    }) = player
    else {
        return refuse(401, "this token is not known, or was used before");
    };
    session.bind(&*uid).await?;
    Ok(json!({ "code": 200, "uid": uid, "logins": logins, "profile": profile }))
}

/// Runs on a thread of the pool, where it may block.
fn log_in(redis: &mut Connection, token: &str) -> RedisResult<Option<Player>> {
    // Nobody else gets a token that was taken.
    let uid: Option<String> = redis.get_del(format!("token:{token}"))?;
    let Some(uid) = uid else { return Ok(None) };
    let profile = redis.hgetall(format!("user:{uid}"))?;
    let logins = redis.incr(format!("logins:{uid}"), 1)?;
    Ok(Some(Player {
        uid,
        logins,
        profile,
    }))
}

/// Needs no Redis, and does not notice when it hangs.
async fn echo(body: Bytes) -> Bytes {
    body
}

fn refuse(code: u16, text: &str) -> Reply<Value> {
    Ok(json!({ "code": code, "msg": text }))
}
