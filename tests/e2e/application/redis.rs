//! A store that blocks, behind a pool: what it does for handlers, and that it does nothing to anybody
//! else. The store is a genuine Redis.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ::redis::{Client as Store, Commands as _, Connection};
use bytes::Bytes;
use serde_json::{Value, json};
use tangelo::Config;
use tangelo::handler::{App, Reply, Router, State};
use tangelo::pool::Pool;
use tempfile::TempDir;

use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::debian;
use crate::harness::gateway::Gateway;
use crate::harness::inside::Inside;
use crate::harness::peers::Ports;
use crate::harness::process::{POLL_INTERVAL, Process};

const ENTER: &str = "connector.entryHandler.enter";
const ECHO: &str = "connector.entryHandler.echo";
const CODE_500: &str = r#"{"code":500}"#;

/// A Redis of the test's own, which keeps nothing on the disk. Dropping it kills it.
struct Redis {
    /// `None` while it is away.
    process: Option<Process>,
    ports: Ports,
    folder: TempDir,
}

impl Redis {
    fn start() -> Self {
        debian::need("redis-server");
        let ports = Ports::claim();
        let mut redis = Self {
            process: None,
            ports,
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        redis.start_again();
        redis
    }

    /// On the same port, with nothing in it.
    fn start_again(&mut self) {
        let port = self.ports.of("redis").to_string();
        let args = [
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        let mut process = Process::start("redis", self.folder.path(), "redis-server", &args);
        process.wait_for_line("line that it is ready", 0, HANG_GUARD, |line| {
            line.contains("Ready to accept connections").then_some(())
        });
        self.process = Some(process);
    }

    fn kill(&mut self) {
        self.process = None;
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("Redis runs")
    }

    /// It answers no more, but its connections stay, and the kernel makes new ones.
    fn stop(&mut self) {
        self.process().signal("STOP");
        let deadline = Instant::now() + HANG_GUARD;
        while self.process().state() != Some('T') {
            assert!(Instant::now() < deadline, "Redis still runs");
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn go_on(&mut self) {
        self.process().signal("CONT");
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.ports.of("redis"))
    }

    fn connect(&self) -> Connection {
        let store = Store::open(self.url()).expect("a URL of Redis");
        store.get_connection().expect("Redis is ready")
    }

    /// Does the work of the server that has checked a password.
    fn put_token(&self, token: &str, uid: u64) {
        let mut store = self.connect();
        let () = store
            .set(format!("token:{token}"), uid)
            .expect("Redis stores the value");
    }

    /// The example that logs in here, on one shard.
    fn login_server(&self) -> Gateway {
        let url = format!("REDIS_URL={}", self.url());
        Gateway::start_example("redis_login", &[&url], &["--shards", "1"])
    }
}

fn log_in(client: &mut Client, token: &str) -> Value {
    let body = json!({ "token": token }).to_string();
    let response = client.request_text(ENTER, body);
    serde_json::from_str(&response).expect("JSON")
}

fn assert_echoes(client: &mut Client) {
    assert_eq!(client.request_text(ECHO, r#"{"a":1}"#), r#"{"a":1}"#);
}

/// Logs in with fresh tokens until it works: how long a connection takes to be made anew is nobody's
/// promise.
fn wait_for_login(redis: &Redis, client: &mut Client) {
    let deadline = Instant::now() + HANG_GUARD;
    loop {
        redis.put_token("again", 9);
        let answer = log_in(client, "again");
        if answer["code"] == 200 {
            return;
        }
        assert_eq!(answer, json!({ "code": 500 }));
        assert!(Instant::now() < deadline, "logins do not work again");
        thread::sleep(10 * POLL_INTERVAL);
    }
}

#[test]
fn a_token_logs_one_player_in_once() {
    let redis = Redis::start();
    let mut store = redis.connect();
    let user = [("name", "ann"), ("level", "12")];
    let () = store
        .hset_multiple("user:7", &user)
        .expect("Redis stores the value");
    redis.put_token("sesame", 7);
    let mut gateway = redis.login_server();
    let mut client = Client::tcp(gateway.address()).open();
    let profile = json!({ "name": "ann", "level": "12" });
    assert_eq!(
        log_in(&mut client, "sesame"),
        json!({ "code": 200, "uid": "7", "logins": 1, "profile": profile })
    );
    gateway.wait_counter("sessions_bound", 1);
    let mut other = Client::websocket(gateway.address()).open();
    for token in ["sesame", "never there"] {
        let answer = log_in(&mut other, token);
        assert_eq!(answer["code"], 401, "{token}: {answer}");
    }
    assert_eq!(other.request_text(ENTER, "{}"), CODE_500, "no token at all");
    redis.put_token("sesame", 7);
    let answer = log_in(&mut other, "sesame");
    assert_eq!(
        (&answer["code"], &answer["logins"]),
        (&json!(200), &json!(2))
    );
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
}

#[test]
fn a_redis_that_dies_costs_logins_only_until_it_is_back() {
    let mut redis = Redis::start();
    let mut gateway = redis.login_server();
    let mut client = Client::tcp(gateway.address()).open();
    wait_for_login(&redis, &mut client);
    redis.kill();
    for _ in 0..20 {
        assert_eq!(log_in(&mut client, "again"), json!({ "code": 500 }));
        assert_echoes(&mut client);
    }
    gateway.wait_counter("pool_no_connection", 1);
    redis.start_again();
    let mut other = Client::tcp(gateway.address()).open();
    wait_for_login(&redis, &mut other);
}

#[test]
fn a_redis_that_hangs_stalls_no_shard_and_fills_no_more_than_its_queue() {
    /// The bounds of the example's pool: jobs of its threads, and jobs that wait.
    const THREADS: u32 = 4;
    const QUEUE: u32 = 64;
    const LOGINS: u32 = 100;
    let mut redis = Redis::start();
    let mut gateway = redis.login_server();
    let mut player = Client::tcp(gateway.address()).open();
    wait_for_login(&redis, &mut player);
    redis.stop();
    let mut crowd = Client::tcp(gateway.address()).open();
    for id in 1..=LOGINS {
        crowd.request(id, ENTER, r#"{"token":"x"}"#);
    }
    // The one shard keeps serving, and so does the session whose logins wait.
    for _ in 0..500 {
        assert_echoes(&mut player);
        assert_echoes(&mut crowd);
    }
    let full = gateway.wait_counter("pool_full", u64::from(LOGINS - QUEUE - THREADS));
    assert!(full <= u64::from(LOGINS - QUEUE), "{full} were refused");
    let mut codes = BTreeMap::<u64, u64>::new();
    for id in 1..=LOGINS {
        let answer: Value = serde_json::from_slice(&crowd.wait_response(id)).expect("JSON");
        *codes
            .entry(answer["code"].as_u64().expect("a code"))
            .or_default() += 1;
    }
    let failed = u64::from(LOGINS) - full;
    assert_eq!(codes, BTreeMap::from([(500, failed), (503, full)]));
    redis.go_on();
    wait_for_login(&redis, &mut player);
}

/// Requests for which [`wait`] is done.
static WAITED: AtomicUsize = AtomicUsize::new(0);

/// Waits in Redis for a second: nobody ever puts anything there.
async fn wait(State(redis): State<Pool<Connection>>) -> Reply<()> {
    let job = |redis: &mut Connection| redis.blpop::<_, Option<String>>("nothing", 1.0);
    assert_eq!(redis.run(job).await??, None);
    WAITED.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

async fn echo(body: Bytes) -> Bytes {
    body
}

/// By how many microseconds the shard is late.
async fn lag(app: App) -> Value {
    // Of a falsy response nothing is left.
    json!(1 + app.lag().as_micros() as u64)
}

/// Times of echoes and ticks of the one shard, in microseconds.
struct Figures {
    echoes: usize,
    median: u128,
    longest: u128,
    lag_max: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} echoes, median {} µs, longest {} µs; shard late by {} µs at most",
            self.echoes, self.median, self.longest, self.lag_max
        )
    }
}

fn measure(client: &mut Client, until: impl Fn(usize) -> bool) -> Figures {
    let mut took = Vec::new();
    let mut lag_max = 0;
    while !until(took.len()) {
        let from = Instant::now();
        assert_echoes(client);
        took.push(from.elapsed().as_micros());
        let lag: u64 = client
            .request_text("connector.entryHandler.lag", "{}")
            .parse()
            .expect("a number");
        lag_max = lag_max.max(lag);
    }
    took.sort_unstable();
    Figures {
        echoes: took.len(),
        median: took[took.len() / 2],
        longest: took[took.len() - 1],
        lag_max,
    }
}

#[test]
fn commands_that_take_a_second_each_are_not_felt_by_the_shard() {
    const JOBS: u32 = 12;
    let redis = Redis::start();
    let store = Store::open(redis.url()).expect("a URL of Redis");
    let pool = Pool::builder("redis", move || store.get_connection());
    let pool = pool.threads(4).start().expect("threads can be started");
    let inside = Inside::start(1, Config::default(), move || {
        Router::new()
            .route("entryHandler.wait", wait)
            .route("entryHandler.echo", echo)
            .route("entryHandler.lag", lag)
            .with_state(pool.clone())
    });
    let mut client = Client::tcp(inside.address()).open();
    let idle = measure(&mut client, |echoes| echoes == 2000);
    let mut waiting = Client::tcp(inside.address()).open();
    let from = Instant::now();
    for id in 1..=JOBS {
        waiting.request(id, "connector.entryHandler.wait", "{}");
    }
    let busy = measure(&mut client, |_| {
        WAITED.load(Ordering::SeqCst) == JOBS as usize
    });
    let took = from.elapsed();
    for id in 1..=JOBS {
        assert_eq!(waiting.wait_response(id), b"{}");
    }
    println!("idle: {idle}");
    println!("{JOBS} jobs of a second on 4 threads, {took:.1?}: {busy}");
    // A shard that waited in them would answer an echo or two between two jobs.
    assert!(
        took >= Duration::from_secs(2),
        "the jobs do not take a second"
    );
    assert!(busy.echoes > 4 * JOBS as usize, "{busy}");
}
