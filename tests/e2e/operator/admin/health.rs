//! `/livez` and `/readyz` from the start to the stop, and the port itself.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use tangelo::config::{Admin, ListenAddress};
use tangelo::handler::{Answer, Outcome, Router};
use tangelo::{Config, config};

use super::start;
use crate::harness::admin::AdminPort;
use crate::harness::client::Client;
use crate::harness::frames::http;
use crate::harness::frontend::{Frontend, Kind, Knobs};
use crate::harness::gateway::Gateway;
use crate::harness::inside::{Gate, Inside};
use crate::harness::peers::{Cluster, Dialect, wait_for};
use crate::harness::process::POLL_INTERVAL;

/// A configuration with an operators' port of the test's own.
pub(super) fn with_port() -> (Config, AdminPort) {
    let port = AdminPort::unix();
    let listen = Some(ListenAddress::Unix(port.path().to_owned()));
    let config = Config {
        admin: Admin {
            listen,
            ..Admin::default()
        },
        ..Config::default()
    };
    (config, port)
}

#[test]
fn a_gateway_is_ready_when_it_takes_clients_and_not_while_it_drains() {
    for shards in [1, 4] {
        let (config, port) = with_port();
        let config = Config {
            drain: config::Drain {
                delay: Duration::from_secs(600),
                ..config::Drain::default()
            },
            ..config
        };
        let gate = Gate::default();
        let held = gate.clone();
        let handlers = move || {
            let held = held.clone();
            Router::new()
                .route("h.ping", async || json!("pong"))
                .on_start(move |_| {
                    let held = held.clone();
                    async move {
                        held.pass().await;
                        Ok(())
                    }
                })
        };
        let inside = thread::spawn(move || Inside::start(shards, config, handlers));
        gate.wait_for(shards);
        port.wait_until_open();
        let answer = port.get("/readyz");
        assert_eq!(answer.status, 503);
        assert_eq!(answer.body, "not ready\nthe gateway is starting\n");
        assert_eq!(port.get("/livez").status, 200);
        gate.open();
        let inside = inside.join().expect("the gateway starts");
        assert_eq!(port.wait_for("/readyz", 200), "ready\n");
        inside.begin_drain();
        // The next answer is red, while clients still come in.
        let answer = port.get("/readyz");
        assert_eq!(answer.status, 503);
        assert_eq!(answer.body, "not ready\nthe gateway drains\n");
        assert_eq!(port.get("/livez").body, "alive\n");
        let mut client = Client::tcp(inside.address()).open();
        assert_eq!(client.request_text("connector.h.ping", "{}"), r#""pong""#);
        inside.begin_stop();
        assert_eq!(inside.join(), Ok(()));
        assert!(!port.path().exists(), "the socket file stays");
    }
}

/// Frees the blocked handlers, however the test ends.
struct FreedAtTheEnd(Arc<AtomicBool>);

impl Drop for FreedAtTheEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_stalled_shard_makes_both_checks_red_until_it_runs_again() {
    let (config, port) = with_port();
    let is_free = Arc::new(AtomicBool::new(false));
    let of_handlers = is_free.clone();
    let handlers = move || {
        let is_free = of_handlers.clone();
        Router::new().raw_route("connector.h.block", move |_| {
            while !is_free.load(Ordering::Acquire) {
                thread::sleep(POLL_INTERVAL);
            }
            Answer::now(Outcome::json(&b"1"[..]))
        })
    };
    let inside = Inside::start(2, config, handlers);
    // A test that fails must not wait for its own handler.
    let _freed = FreedAtTheEnd(is_free.clone());
    let mut client = Client::tcp(inside.address()).open();
    client.request(1, "connector.h.block", "{}");
    for path in ["/livez", "/readyz"] {
        let text = port.wait_for(path, 503);
        let shard = "is stalled in the handler of connector.h.block\n";
        // On a busy machine the other shard may be late too.
        assert!(text.contains(shard), "{text}");
    }
    is_free.store(true, Ordering::Release);
    for path in ["/livez", "/readyz"] {
        port.wait_for(path, 200);
    }
    assert_eq!(client.wait_response(1), b"1");
    inside.stop();
}

#[test]
fn a_busy_port_keeps_no_client_out_and_is_opened_when_it_is_free() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("it is bound");
    let mut gateway = Gateway::start(&["--set", &format!("admin.listen={address}")]);
    let warning = gateway.wait_printed("cannot open the operators' port");
    assert!(warning.contains("WARN"), "{warning}");
    assert!(warning.contains(&address.to_string()), "{warning}");
    drop(Client::websocket(gateway.address()).open());
    drop(other);
    let port = AdminPort::of(&mut gateway);
    assert_eq!(port.address(), address);
    assert_eq!(port.wait_for("/readyz", 200), "ready\n");
    let warnings = gateway.printed().matches("cannot open").count();
    assert_eq!(warnings, 1, "one for the whole time");
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
}

#[test]
fn a_unix_socket_is_for_its_user_alone_and_that_of_a_dead_gateway_is_replaced() {
    let port = AdminPort::unix();
    let listen = format!("admin.listen=unix:{}", port.path().display());
    let first = Gateway::start(&["--set", &listen]);
    port.wait_until_open();
    let mode = port.path().metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut second = Gateway::start(&["--set", &listen]);
    second.wait_printed("cannot open the operators' port");
    let (code, printed) = second.stop();
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(port.wait_for("/readyz", 200), "ready\n");
    // It has no time to remove its socket file.
    first.kill();
    assert!(port.path().exists());
    let mut third = Gateway::start(&["--set", &listen]);
    third.wait_printed("the operators' port listens on unix:");
    assert_eq!(port.wait_for("/readyz", 200), "ready\n");
    let (code, printed) = third.stop();
    assert_eq!(code, Some(0), "{printed}");
    assert!(!port.path().exists(), "the socket file stays");
}

#[test]
fn a_socket_that_another_process_does_not_serve_holds_up_neither_the_start_nor_the_stop() {
    let port = AdminPort::unix();
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    let address = SockAddr::unix(port.path()).expect("a path");
    socket.bind(&address).expect("a free path");
    socket.listen(0).expect("a bound socket");
    let waiting = UnixStream::connect(port.path()).expect("the backlog has one place");
    let listen = format!("admin.listen=unix:{}", port.path().display());
    let mut gateway = Gateway::start(&["--set", &listen]);
    gateway.wait_printed("cannot open the operators' port");
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        port.path().exists(),
        "the socket of another process is gone"
    );
    drop((socket, waiting));
}

#[test]
fn a_socket_of_another_kind_stays() {
    let port = AdminPort::unix();
    let _socket = UnixDatagram::bind(port.path()).expect("a free path");
    let listen = format!("admin.listen=unix:{}", port.path().display());
    let mut gateway = Gateway::start(&["--set", &listen]);
    gateway.wait_printed("cannot open the operators' port");
    assert_eq!(gateway.stop().0, Some(0));
    UnixDatagram::unbound()
        .and_then(|other| other.send_to(b"x", port.path()))
        .expect("it is still there");
}

#[test]
fn a_server_is_ready_once_it_has_joined_and_stays_so_without_its_master() {
    let cluster = Cluster::start(Dialect::Pomelo);
    let knobs = Knobs {
        tangelo: &[
            "--set",
            "admin.listen=127.0.0.1:0",
            "--set",
            "client.health_path=/health",
        ],
        ..Knobs::default()
    };
    let mut frontend = Frontend::start(&cluster, Kind::Tangelo { shards: 2 }, knobs);
    let gateway = frontend.gateway().expect("it is tangelo");
    let port = AdminPort::of(gateway);
    assert_eq!(port.wait_for("/readyz", 200), "ready\n");
    // The port for clients says the same, as soon as each shard has the list of servers.
    let address = gateway.address();
    let is_healthy = || http(address, "GET /health").1 == "ok\n";
    wait_for("a healthy port", || {
        (0..8).all(|_| is_healthy()).then_some(())
    });
    let joined = |value| format!("\ntangelo_registry_joined{{shard=\"0\"}} {value}\n");
    assert!(port.get("/metrics").body.contains(&joined(1)));
    cluster.stop_master();
    gateway.wait_printed("the list of servers stays as it is");
    let degraded = "ready\ndegraded: the link to the master is down\n";
    assert_eq!(port.wait_for("/readyz", 200), degraded);
    assert!(port.get("/metrics").body.contains(&joined(0)));
    assert!(is_healthy(), "a lost master closes no door");
}

#[test]
fn other_paths_and_methods_are_refused() {
    let (gateway, port) = start(&[]);
    assert_eq!(port.get("/").status, 404);
    assert_eq!(port.get("/readyz/").status, 404);
    let post = "POST /readyz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(port.ask(post).status, 405);
    let head = port.ask("HEAD /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.status, &*head.body), (200, ""));
    assert_eq!(port.ask("nonsense\r\n\r\n").status, 400);
    drop(gateway);
}

#[test]
fn silent_clients_of_the_port_leave_room_for_others() {
    const PLACES: usize = 32;
    let (mut gateway, port) = start(&[]);
    let silent: Vec<TcpStream> = (0..2 * PLACES)
        .map(|_| {
            let mut stream = TcpStream::connect(port.address()).expect("the port is open");
            let _ = stream.write_all(b"GET /livez HTTP/1.1\r\n");
            stream
        })
        .collect();
    gateway.wait_counter("admin_connections_refused", PLACES as u64);
    // Their time passes.
    gateway.wait_counter("admin_connections_late", PLACES as u64);
    assert_eq!(port.get("/livez").status, 200);
    for mut stream in silent {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert_eq!(bytes, b"");
    }
}
