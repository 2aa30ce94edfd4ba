//! Rules of the wire that need a handler to be seen.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use tangelo::Config;
use tangelo::handler::{Answer, Outcome, Router, Session};

use crate::harness::client::{Client, End, HANDSHAKE};
use crate::harness::inside::{Gate, Inside};
use crate::harness::pause::pause;

const REACH: [fn(std::net::SocketAddr) -> Client; 2] = [Client::tcp, Client::websocket];

const KICK: &str = "connector.testHandler.kick";
const LARGE: &str = "connector.testHandler.large";
const TWO: &str = "connector.testHandler.two";

thread_local! {
    /// Sessions of this shard whose handshake was seen.
    static SHAKING: RefCell<Vec<Session>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn a_client_without_a_handshake_is_closed_without_a_kick() {
    let inside = Inside::start(1, Config::default(), || {
        Router::new()
            .handshake(|session, _| {
                SHAKING.with_borrow_mut(|shaking| shaking.push(session.clone()));
                Answer::now(Outcome::default())
            })
            .raw_route(KICK, |request| {
                for session in SHAKING.take() {
                    if session.id() != request.session.id() {
                        session.kick(Some("nobody hears it"));
                    }
                }
                Answer::now(Outcome::default())
            })
    });
    for (reach, end) in REACH.iter().zip([End::Fin, End::CloseFrame(Some(1000))]) {
        let mut kicker = reach(inside.address()).open();
        let mut shaking = reach(inside.address());
        shaking.handshake();
        assert_eq!(kicker.request_text(KICK, "{}"), "{}");
        assert_eq!(shaking.next_package(), None);
        assert_eq!(shaking.end(), Some(end));
    }
    inside.wait_counter("closed_kicked", 2);
    inside.stop();
}

#[test]
fn an_answer_that_no_package_holds_is_an_error() {
    let inside = Inside::start(1, Config::default(), || {
        Router::new().raw_route(LARGE, |request| {
            let large = format!("\"{}\"", "x".repeat(1 << 24));
            let pushed = request.session.push_raw("onLarge", large.as_bytes());
            assert!(pushed.is_err(), "{pushed:?}");
            let is_small = request.body == b"1";
            Answer::now(Outcome::json(
                if is_small { "1".into() } else { large }.into_bytes(),
            ))
        })
    });
    for mut client in inside.clients() {
        assert_eq!(client.request_text(LARGE, "{}"), r#"{"code":500}"#);
        assert_eq!(client.request_text(LARGE, "1"), "1");
    }
    inside.stop();
}

#[test]
fn a_late_no_ends_a_client_that_is_in() {
    let gate = Gate::default();
    let held = gate.clone();
    let inside = Inside::start(1, Config::default(), move || {
        let held = held.clone();
        Router::new().handshake(move |_, message| {
            if message["user"] == "in" {
                return Answer::now(Outcome::default());
            }
            let held = held.clone();
            Answer::later(async move {
                held.pass().await;
                Outcome::error("no")
            })
        })
    });
    let mut clients = REACH.map(|reach| reach(inside.address()));
    for client in &mut clients {
        for user in ["out", "in"] {
            let body = format!("{{\"sys\":{{}},\"user\":\"{user}\"}}");
            client.send_package(HANDSHAKE, body.as_bytes());
        }
        let reply = client.next_package().expect("a reply");
        assert_eq!(reply.body, br#"{"code":200,"sys":{}}"#);
    }
    gate.wait_for(2);
    gate.open();
    for (client, end) in clients
        .iter_mut()
        .zip([End::Fin, End::CloseFrame(Some(1000))])
    {
        let reply = client.next_package().expect("another reply");
        assert_eq!(
            (reply.kind, &reply.body[..]),
            (HANDSHAKE, &br#"{"code":500}"#[..])
        );
        assert_eq!(client.next_package(), None);
        assert_eq!(client.end(), Some(end));
    }
    inside.stop();
}

/// A small package behind another one that the client has not acknowledged: with Nagle's algorithm it
/// waits for a delayed acknowledgement, 40 ms.
#[test]
fn small_packages_are_not_held_back() {
    let inside = Inside::start(1, Config::default(), || {
        Router::new().raw_route(TWO, |request| {
            let session = request.session.clone();
            Answer::later(async move {
                for n in ["1", "2"] {
                    session
                        .push_raw("onTwo", n.as_bytes())
                        .expect("the body fits into a package");
                    pause(Duration::from_millis(2)).await;
                }
                Outcome::default()
            })
        })
    });
    for reach in REACH {
        let mut client = reach(inside.address()).open();
        let pauses = (0..31).map(|_| {
            client.notify(TWO, "{}");
            client.next_push();
            let first = Instant::now();
            client.next_push();
            first.elapsed()
        });
        let shortest = pauses.min().expect("some pauses");
        assert!(shortest < Duration::from_millis(25), "{shortest:?}");
    }
    inside.stop();
}
