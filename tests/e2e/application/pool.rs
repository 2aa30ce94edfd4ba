//! Handlers that wait for jobs of a pool, on one shard and on four, over both transports.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tangelo::Config;
use tangelo::handler::{Json, Reply, Router, State};
use tangelo::pool::Pool;

use crate::harness::inside::Inside;

const DOUBLE: &str = "connector.testHandler.double";
const BOOM: &str = "connector.testHandler.boom";
const ECHO: &str = "connector.testHandler.echo";

/// A job on a thread whose connection is the number 2.
async fn double(State(pool): State<Pool<u64>>, Json(number): Json<u64>) -> Reply<Value> {
    let (product, thread) = pool
        .run(move |two| {
            if number % 100 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            let thread = std::thread::current().name().map(str::to_owned);
            (*two * number, thread)
        })
        .await?;
    assert!(thread.is_some_and(|name| name.starts_with("doubling-")));
    Ok(json!({ "product": product }))
}

async fn boom(State(pool): State<Pool<u64>>) -> Reply<()> {
    pool.run(|_| panic!("boom in a job")).await?
}

async fn echo(Json(body): Json<Value>) -> Value {
    body
}

fn router(pool: &Pool<u64>) -> Router {
    Router::new()
        .route(DOUBLE, double)
        .route(BOOM, boom)
        .route(ECHO, echo)
        .with_state(pool.clone())
}

fn pool() -> Pool<u64> {
    let pool = Pool::builder("doubling", || Ok::<_, String>(2));
    pool.threads(2)
        .queue(10_000)
        .start()
        .expect("the pool starts")
}

#[test]
fn every_request_gets_the_answer_of_its_own_job() {
    const REQUESTS: u32 = 500;
    let pool = pool();
    let handlers = move || router(&pool);
    Inside::on_one_shard_and_on_four(&Config::default(), handlers, |inside| {
        let mut clients = inside.clients();
        for client in &mut clients {
            for id in 1..=REQUESTS {
                client.request(id, DOUBLE, id.to_string());
            }
        }
        for client in &mut clients {
            for id in 1..=REQUESTS {
                let answer = client.wait_response(id);
                let expected = format!(r#"{{"product":{}}}"#, 2 * id);
                assert_eq!(String::from_utf8_lossy(&answer), expected);
            }
        }
    });
}

#[test]
fn a_job_that_panics_costs_its_request_only() {
    let pool = pool();
    let handlers = move || router(&pool);
    Inside::on_one_shard_and_on_four(&Config::default(), handlers, |inside| {
        for client in &mut inside.clients() {
            assert_eq!(client.request_text(BOOM, "{}"), r#"{"code":500}"#);
            assert_eq!(client.request_text(DOUBLE, "21"), r#"{"product":42}"#);
        }
    });
}

#[test]
fn sessions_that_close_while_their_jobs_run_disturb_nobody() {
    const WAIT: &str = "connector.testHandler.wait";
    let (pool, lock) = (pool(), Arc::new(Mutex::new(())));
    let of_jobs = lock.clone();
    let handlers = move || {
        let lock = of_jobs.clone();
        router(&pool).route(WAIT, move |State(pool): State<Pool<u64>>| {
            let lock = lock.clone();
            async move { Reply::<()>::Ok(pool.run(move |_| drop(lock.lock())).await?) }
        })
    };
    Inside::on_one_shard_and_on_four(&Config::default(), handlers, |inside| {
        let mut stays = inside.clients();
        // Two jobs run and the others wait for them, until all their callers are gone.
        let held = lock.lock();
        for _ in 0..5 {
            for client in &mut inside.clients() {
                (1..=20).for_each(|id| client.request(id, WAIT, "{}"));
                client.request_text(ECHO, "{}");
            }
            for client in &mut stays {
                assert_eq!(client.request_text(ECHO, r#"{"a":1}"#), r#"{"a":1}"#);
            }
        }
        inside.wait_gauge("connections", stays.len() as u64);
        drop(held);
        for client in &mut stays {
            assert_eq!(client.request_text(DOUBLE, "21"), r#"{"product":42}"#);
        }
    });
}
