//! The drain, which SIGTERM begins, of the binary and of a gateway on sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use tangelo::handler::Router;
use tangelo::{Config, config};

use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::gateway::Gateway;
use crate::harness::inside::{Gate, Inside};

const HELD: &str = "connector.h.held";
const CLIENTS: usize = 200;

#[test]
fn the_port_closes_first_and_a_client_leaves_when_it_has_its_answers() {
    let config = Config {
        drain: config::Drain {
            timeout: Duration::from_secs(600),
            ..config::Drain::default()
        },
        ..Config::default()
    };
    for shards in [1, 4] {
        let gate = Gate::default();
        let held = gate.clone();
        let handlers = move || {
            let held = held.clone();
            Router::new().route("h.held", move || held.clone().pass())
        };
        let inside = Inside::start(shards, config.clone(), handlers);
        let mut clients: Vec<Client> = (0..CLIENTS)
            .map(|at| match at % 2 {
                0 => Client::tcp(inside.address()).open(),
                _ => Client::websocket(inside.address()).open(),
            })
            .collect();
        let (waiting, idle) = clients.split_at_mut(CLIENTS / 10);
        for client in waiting.iter_mut() {
            client.request(1, HELD, "{}");
        }
        gate.wait_for(waiting.len());
        inside.begin_drain();
        for client in idle.iter_mut() {
            assert_eq!(client.next_package(), None);
        }
        let late = TcpStream::connect(inside.address()).map_err(|error| error.kind());
        assert_eq!(late.err(), Some(ErrorKind::ConnectionRefused));
        // RFC 6455: the server goes down.
        assert_eq!(idle[1].close_code(), Some(1001));
        gate.open();
        for client in waiting.iter_mut() {
            client.wait_response(1);
            assert_eq!(client.next_package(), None);
        }
        assert_eq!(inside.join(), Ok(()));
    }
}

#[test]
fn a_health_check_hears_of_the_drain_while_clients_still_come_in() {
    let config = Config {
        drain: config::Drain {
            delay: Duration::from_secs(600),
            ..config::Drain::default()
        },
        client: config::Client {
            health_path: Some("/health".into()),
            ..config::Client::default()
        },
        ..Config::default()
    };
    let inside = Inside::start(2, config, || {
        Router::new().route("h.ping", async || json!("pong"))
    });
    let status = || {
        let mut check = TcpStream::connect(inside.address()).expect("the port is open");
        let asked = check.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
        asked.expect("the port is open");
        let mut answer = String::new();
        check.read_to_string(&mut answer).expect("an answer");
        answer.split(' ').nth(1).map(str::to_owned)
    };
    assert_eq!(status().as_deref(), Some("200"));
    inside.begin_drain();
    let deadline = std::time::Instant::now() + HANG_GUARD;
    while status().as_deref() != Some("503") {
        assert!(
            std::time::Instant::now() < deadline,
            "the check stays green"
        );
    }
    let mut client = Client::tcp(inside.address()).open();
    assert_eq!(client.request_text("connector.h.ping", "{}"), r#""pong""#);
    inside.begin_stop();
    assert_eq!(inside.join(), Ok(()));
}

#[test]
fn sigterm_drains_the_binary_and_the_log_says_so() {
    let mut gateway = Gateway::start(&["--shards", "2"]);
    let mut client = Client::websocket(gateway.address()).open();
    gateway.signal("TERM");
    gateway.wait_printed("SIGTERM begins the drain clients=1");
    assert_eq!(client.next_package(), None);
    assert_eq!(client.close_code(), Some(1001));
    assert_eq!(gateway.wait_exit(), Some(0));
}

#[test]
fn the_close_code_of_a_drain_is_that_of_its_key() {
    let mut gateway = Gateway::start(&["--set", "drain.close_code=1012"]);
    let mut client = Client::websocket(gateway.address()).open();
    gateway.signal("TERM");
    assert_eq!(client.next_package(), None);
    assert_eq!(client.close_code(), Some(1012));
    assert_eq!(gateway.wait_exit(), Some(0));
    let (code, printed) = Gateway::refused(&["--set", "drain.close_code=1000"]);
    assert_eq!(code, Some(2));
    assert!(printed.contains("expected 1001 or 1012"), "{printed}");
}

#[test]
fn sigint_closes_all_clients_at_once() {
    let mut gateway = Gateway::start(&["--set", "drain.timeout=1h"]);
    let mut client = Client::websocket(gateway.address()).open();
    gateway.signal("INT");
    assert_eq!(client.next_package(), None);
    assert_eq!(client.close_code(), Some(1000));
    assert_eq!(gateway.wait_exit(), Some(0));
}
