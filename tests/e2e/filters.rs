//! The built-in filters at work, over both transports.

use std::thread;
use std::time::{Duration, Instant};

use tangelo::Config;
use tangelo::handler::filter::{Filters, rate, serial, timeout, toobusy};
use tangelo::handler::{Answer, Outcome, Router};

use crate::client::Client;
use crate::inside::{Gate, Inside};

const SLOW: &str = "connector.entryHandler.slow";
const WAIT: &str = "connector.entryHandler.wait";
const BLOCK: &str = "connector.entryHandler.block";
const OK: &str = "connector.entryHandler.ok";
const CODE_500: &[u8] = br#"{"code":500}"#;

/// How long something may take that is to happen again.
const PATIENCE: Duration = Duration::from_secs(20);

/// `slow` answers as that of the reference application, after `ms`, and if it is told to `wait`, not
/// before the gate opens; `block` lets nobody else run.
fn router(gate: &Gate, add: impl FnOnce(&mut Filters)) -> Router {
    let (gate, slow_gate) = (gate.clone(), gate.clone());
    Router::new()
        .route(OK, |_| Answer::now(Outcome::json(&br#"{"ok":1}"#[..])))
        .route(SLOW, move |request| {
            let (message, gate) = (request.message(), slow_gate.clone());
            Answer::later(async move {
                let ms = message["ms"].as_u64().expect("a number");
                glommio::timer::sleep(Duration::from_millis(ms)).await;
                if message["wait"] == true {
                    gate.pass().await;
                }
                let slow = serde_json::json!({ "slow": ms, "tag": message["tag"] });
                Outcome::value(&slow)
            })
        })
        .route(WAIT, move |_| {
            let gate = gate.clone();
            Answer::later(async move {
                gate.pass().await;
                Outcome::json(&br#"{"late":1}"#[..])
            })
        })
        .route(BLOCK, |_| {
            thread::sleep(Duration::from_millis(400));
            Answer::now(Outcome::json(&br#"{"blocked":1}"#[..]))
        })
        .filters(add)
}

/// A gateway with this filter.
fn start(shards: usize, gate: &Gate, add: fn(&mut Filters)) -> Inside {
    let gate = gate.clone();
    Inside::start(shards, Config::default(), move || router(&gate, add))
}

#[test]
fn serial_lets_the_next_message_go_on_when_one_is_late() {
    let gate = Gate::default();
    let inside = start(1, &gate, |filters| {
        filters.filter(serial(Duration::from_millis(1500), None));
    });
    let mut clients = inside.clients();
    for client in &mut clients {
        client.request(1, SLOW, r#"{"ms":600,"tag":"a","wait":true}"#);
        client.request(2, SLOW, r#"{"ms":0,"tag":"b"}"#);
    }
    for client in &mut clients {
        assert_eq!(client.wait_response(2), br#"{"slow":0,"tag":"b"}"#);
        assert!(!client.has_response(1), "the late one is the second");
    }
    gate.open();
    for client in &mut clients {
        let late = client.wait_response(1);
        assert_eq!(late, br#"{"slow":600,"tag":"a","code":500}"#);
    }
    let late = clients.len() as u64;
    assert_eq!(inside.counter("filter_serial_timeouts"), late);
    inside.stop();
}

#[test]
fn serial_handles_messages_in_the_order_they_came() {
    let gate = Gate::default();
    let inside = start(4, &gate, |filters| {
        filters.filter(serial(Duration::from_secs(600), None));
    });
    for mut client in inside.clients() {
        for id in 1..=20 {
            let ms = 20 - id;
            client.request(id, SLOW, format!("{{\"ms\":{ms},\"tag\":{id}}}"));
        }
        // Without the filter the last one would be the first.
        client.wait_response(20);
        assert!((1..20).all(|id| client.has_response(id)));
    }
    assert_eq!(inside.counter("filter_serial_timeouts"), 0);
    inside.stop();
}

#[test]
fn what_waits_in_serial_is_not_handled_once_its_session_has_closed() {
    for shards in [1, 4] {
        let gate = Gate::default();
        let inside = start(shards, &gate, |filters| {
            filters.filter(serial(Duration::from_secs(600), None));
        });
        let clients = inside.clients();
        let left = clients.len() as u64;
        for mut client in clients {
            for id in 1..=3 {
                client.request(id, WAIT, "{}");
            }
            client.request(4, "x.y.z", "{}");
            client.wait_response(4);
        }
        inside.wait_counter("connections", 0);
        inside.wait_counter("filter_serial_dropped", 2 * left);
        // One of each session; the others never got to the gate.
        gate.wait_for(left as usize);
        assert_eq!(gate.waiting(), left as usize);
        gate.open();
        inside.wait_counter("responses_dropped", 3 * left);
        inside.stop();
    }
}

#[test]
fn serial_answers_late_messages_at_once_if_told_so() {
    let gate = Gate::default();
    let inside = start(1, &gate, |filters| {
        let response = br#"{"msg":"late"}"#.as_slice();
        filters.filter(serial(Duration::from_millis(100), Some(response.into())));
    });
    let mut clients = inside.clients();
    for client in &mut clients {
        client.request(1, WAIT, "{}");
        assert_eq!(client.wait_response(1), br#"{"msg":"late","code":500}"#);
    }
    gate.open();
    inside.wait_counter("responses_dropped", clients.len() as u64);
    for client in &mut clients {
        assert_eq!(client.request_text(OK, "{}"), r#"{"ok":1}"#);
        assert!(!client.has_response(1), "a second response");
    }
    inside.stop();
}

#[test]
fn timeout_says_who_is_late_and_leaves_it_alone() {
    let gate = Gate::default();
    let inside = start(1, &gate, |filters| {
        filters.filter(timeout(Duration::from_millis(100), 500));
    });
    let mut clients = inside.clients();
    for client in &mut clients {
        client.request(1, WAIT, "{}");
    }
    inside.wait_counter("filter_timeouts", clients.len() as u64);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.wait_response(1), br#"{"late":1}"#);
    }
    inside.stop();
}

#[test]
fn rate_refuses_and_recovers() {
    let gate = Gate::default();
    // So slow that the burst is all there is, and so fast that it is soon there again.
    let inside = start(1, &gate, |filters| filters.global_filter(rate(1, 3)));
    let mut clients = inside.clients();
    for client in &mut clients {
        // In one turn, over raw TCP or not.
        (1..=13).for_each(|id| client.request(id, OK, "{}"));
        let answers: Vec<_> = (1..=13).map(|id| client.wait_response(id)).collect();
        assert!(answers[..3].iter().all(|body| body == br#"{"ok":1}"#));
        let refused = answers.iter().filter(|body| *body == CODE_500).count();
        assert!((1..=10).contains(&refused), "{answers:?}");
    }
    assert!(inside.counter("filter_rate_refused") >= clients.len() as u64);
    for client in &mut clients {
        until_answered(client);
    }
    inside.stop();
}

/// Asks until it is not refused.
fn until_answered(client: &mut Client) {
    let deadline = Instant::now() + PATIENCE;
    while client.request_text(OK, "{}") != r#"{"ok":1}"# {
        assert!(Instant::now() < deadline, "refused for ever");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn toobusy_refuses_while_the_shard_is_blocked() {
    let gate = Gate::default();
    let inside = start(1, &gate, |filters| {
        filters.global_filter(toobusy(Duration::from_millis(200)));
    });
    for reach in [Client::tcp, Client::websocket] {
        let mut client = reach(inside.address()).open();
        until_answered(&mut client);
        let before = inside.counter("filter_toobusy_refused");
        // A slow machine may be late by itself, so that even the first one is refused.
        let deadline = Instant::now() + PATIENCE;
        while inside.counter("filter_toobusy_refused") == before {
            assert!(Instant::now() < deadline, "never refused");
            client.request(1, BLOCK, "{}");
            client.request(2, OK, "{}");
            client.wait_response(1);
            client.wait_response(2);
        }
        until_answered(&mut client);
    }
    inside.stop();
}
