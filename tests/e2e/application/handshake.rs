//! Handshake functions of an application: their answers, and the cost of their failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tangelo::handler::{Answer, Outcome, Request, Router};
use tangelo::{Config, config};

use crate::harness::client::{Client, End, HANDSHAKE, Package};
use crate::harness::inside::{Gate, Inside};

const OK: &str = "connector.testHandler.ok";

fn ok<'a>(_: &Request<'a>) -> Answer<'a> {
    Answer::now(Outcome::json(&br#"{"ok":1}"#[..]))
}

fn reply(body: &str) -> Option<Package> {
    Some(Package {
        kind: HANDSHAKE,
        body: body.as_bytes().to_vec(),
    })
}

fn both(inside: &Inside) -> [(Client, End); 2] {
    [
        (Client::tcp(inside.address()), End::Fin),
        (
            Client::websocket(inside.address()),
            End::CloseFrame(Some(1000)),
        ),
    ]
}

fn shake(client: &mut Client, sys: Value, user: Value) {
    let body = json!({"sys": sys, "user": user}).to_string();
    client.send_package(HANDSHAKE, body.as_bytes());
}

fn assert_refused(client: &mut Client, end: End, code: u16) {
    assert_eq!(
        client.next_package(),
        reply(&format!("{{\"code\":{code}}}"))
    );
    assert_eq!(client.next_package(), None);
    assert_eq!(client.end(), Some(end));
}

#[test]
fn while_the_application_thinks_everything_else_is_ignored_and_one_reply_is_sent() {
    for shards in [1, 4] {
        let (gate, asked) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
        let (held, count) = (gate.clone(), asked.clone());
        let inside = Inside::start(shards, Config::default(), move || {
            let (held, count) = (held.clone(), count.clone());
            Router::new()
                .raw_route(OK, ok)
                .handshake(move |_, message| {
                    count.fetch_add(1, Ordering::Relaxed);
                    let held = held.clone();
                    let user = message["user"].clone();
                    Answer::later(async move {
                        held.pass().await;
                        Outcome::value(&json!({"hello": user}))
                    })
                })
        });
        let mut clients = both(&inside);
        for (client, _) in &mut clients {
            shake(client, json!({}), json!("you"));
            shake(client, json!({}), json!("you"));
            // Neither of these means anything yet.
            client.ack();
            client.request(1, OK, "{}");
        }
        gate.wait_for(4);
        // Another client has left meanwhile.
        let mut gone = Client::tcp(inside.address());
        shake(&mut gone, json!({}), json!(null));
        gate.wait_for(5);
        drop(gone);
        inside.wait_gauge("connections", 2);
        gate.open();
        for (client, _) in &mut clients {
            let welcome = reply(r#"{"code":200,"sys":{},"user":{"hello":"you"}}"#);
            assert_eq!(client.next_package(), welcome);
            client.ack();
            assert_eq!(client.request_text(OK, "{}"), r#"{"ok":1}"#);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 5);
        inside.stop();
    }
}

#[test]
fn an_application_that_refuses_or_panics_costs_its_client_only() {
    let inside = Inside::start(2, Config::default(), || {
        Router::new()
            .raw_route(OK, ok)
            .check_client(|kind, version| match kind {
                "boom" => panic!("boom"),
                _ => kind != "bad" || version == "2",
            })
            .handshake(|session, message| match message["user"].as_str() {
                Some("fail") => Answer::now(Outcome::error("no")),
                Some("fail later") => Answer::later(async { Outcome::error("no") }),
                Some("boom") => panic!("boom"),
                Some("boom later") => Answer::later(async { panic!("boom") }),
                Some("falsy") => Answer::now(Outcome::value(&json!(0))),
                _ => Answer::now(Outcome::value(&json!(session.id().get() > 0))),
            })
    });
    let [(mut bystander, _), _] = both(&inside);
    shake(&mut bystander, json!({}), json!({}));
    let welcome = reply(r#"{"code":200,"sys":{},"user":true}"#);
    assert_eq!(bystander.next_package(), welcome);
    bystander.ack();
    for user in ["fail", "fail later", "boom", "boom later"] {
        for (mut client, end) in both(&inside) {
            shake(&mut client, json!({}), json!(user));
            assert_refused(&mut client, end, 500);
        }
    }
    for (kind, code) in [("bad", 501), ("boom", 500)] {
        for (mut client, end) in both(&inside) {
            shake(
                &mut client,
                json!({"type": kind, "version": "1"}),
                json!({}),
            );
            assert_refused(&mut client, end, code);
        }
    }
    for (mut client, _) in both(&inside) {
        shake(
            &mut client,
            json!({"type": "bad", "version": "2"}),
            json!("falsy"),
        );
        assert_eq!(client.next_package(), reply(r#"{"code":200,"sys":{}}"#));
    }
    assert_eq!(bystander.request_text(OK, "{}"), r#"{"ok":1}"#);
    inside.wait_counter("handler_panics", 6);
    inside.wait_counter("closed_handshake", 12);
    inside.stop();
}

#[test]
fn a_client_that_asks_more_than_may_be_in_flight_is_refused() {
    let gate = Gate::default();
    let held = gate.clone();
    let client = config::Client {
        calls_in_flight_max: 3,
        ..config::Client::default()
    };
    let config = Config {
        client,
        ..Config::default()
    };
    let inside = Inside::start(1, config, move || {
        let held = held.clone();
        Router::new().handshake(move |_, _| {
            let held = held.clone();
            Answer::later(async move {
                held.pass().await;
                Outcome::default()
            })
        })
    });
    for (mut client, end) in both(&inside) {
        for _ in 0..4 {
            shake(&mut client, json!({}), json!({}));
        }
        assert_refused(&mut client, end, 500);
    }
    gate.open();
    inside.wait_gauge("connections", 0);
    inside.stop();
}
