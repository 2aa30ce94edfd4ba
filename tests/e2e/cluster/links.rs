//! Links to other servers: when one counts as up, how often a bad server is dialled, and what the log
//! says.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tangelo::config;
use tangelo::handler::Router;
use tempfile::{NamedTempFile, TempDir};

use crate::cluster::in_both_dialects;
use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::frames::http;
use crate::harness::free_address;
use crate::harness::gateway::Gateway;
use crate::harness::inside::Inside;
use crate::harness::peers::{Cluster, Dialect, run_script, wait_for};
use crate::harness::rpc::Callee;

const SEND: &str = "chat.chatHandler.send";
const CODE_500: &str = r#"{"code":500}"#;
const DIALECTS: [&str; 2] = ["pomelo", "pinus"];
const PINGRESP: [u8; 2] = [0xd0, 0];

/// The first pauses of `rpc.backoff_min` as it is by default, each a quarter shorter: what five dials
/// need at least.
const FOUR_PAUSES: Duration = Duration::from_millis(75 + 150 + 300 + 600);

/// A server that does the same with every connection, and a gateway's configuration that lists it.
struct BadServer {
    config: NamedTempFile,
}

impl BadServer {
    fn start(with: impl Fn(TcpStream) + Send + 'static) -> Self {
        Self::listed(serve(with))
    }

    /// A server that runs already on this port.
    fn listed(port: u16) -> Self {
        let config = NamedTempFile::new().expect("a temporary file");
        let server = "[[server]]\nid = \"chat-1\"\ntype = \"chat\"\nhost = \"127.0.0.1\"\n";
        fs::write(&config, format!("{server}port = {port}\n")).expect("a temporary file");
        Self { config }
    }

    fn gateway(&self, dialect: &str, more: &[&str]) -> Gateway {
        println!("--- {dialect}");
        let config = self.config.path().to_str().expect("a path in UTF-8");
        let args = ["--config", config, "--dialect", dialect, "--shards", "2"];
        Gateway::start(&[&args[..], more].concat())
    }
}

/// Listens, and does the same with every connection. Returns the port.
fn serve(with: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("the listener is bound").port();
    thread::spawn(move || {
        listener.incoming().flatten().for_each(with);
    });
    port
}

/// A project with the connector `c-1` and a master on this port.
struct Project(TempDir);

impl Project {
    /// `types` are more members of `servers.json`.
    fn new(master: u16, types: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("config");
        fs::create_dir(&config).expect("a temporary folder");
        let own = r#"{"id":"c-1","host":"127.0.0.1","clientPort":1,"frontend":true}"#;
        let servers = format!(r#"{{"connector":[{own}]{types}}}"#);
        let master = format!(r#"{{"host":"127.0.0.1","port":{master}}}"#);
        for (name, text) in [("servers.json", servers), ("master.json", master)] {
            fs::write(config.join(name), text).expect("a temporary file");
        }
        Self(folder)
    }

    fn gateway(&self, more: &[&str]) -> Gateway {
        let folder = self.0.path().to_str().expect("a path in UTF-8");
        Gateway::start(&[&["--app-dir", folder, "--id", "c-1"], more].concat())
    }
}

fn warnings<'a>(printed: &'a str, part: &str) -> Vec<&'a str> {
    let lines = printed.lines();
    lines
        .filter(|line| line.contains("WARN") && line.contains(part))
        .collect()
}

#[test]
fn a_server_that_accepts_and_closes_is_not_up_and_is_dialled_less_and_less_often() {
    let closes = BadServer::start(drop);
    let resets = BadServer::start(|stream| {
        let now = Some(Duration::ZERO);
        socket2::SockRef::from(&stream)
            .set_linger(now)
            .expect("an open socket");
    });
    let http = BadServer::start(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    for server in [closes, resets, http] {
        for dialect in DIALECTS {
            let mut gateway = server.gateway(dialect, &[]);
            let mut client = Client::tcp(gateway.address()).open();
            let begun = Instant::now();
            assert_eq!(client.request_text(SEND, "{}"), CODE_500);
            gateway.wait_counter("rpc_dials_failed", 5);
            assert!(begun.elapsed() >= FOUR_PAUSES, "{:?}", begun.elapsed());
            // It has been found out: nothing is sent to it.
            assert_eq!(client.request_text(SEND, "{}"), CODE_500);
            let counters = gateway.counters();
            assert_eq!(counters.get("rpc_calls"), Some(&1), "{counters:?}");
            assert_eq!(counters.get("rpc_links_up"), None, "{counters:?}");
            let (_, printed) = gateway.stop();
            assert!(!printed.contains("link is up"), "{printed}");
            assert_eq!(warnings(&printed, "chat-1").len(), 1, "{printed}");
        }
    }
}

#[test]
fn a_server_that_answers_and_closes_is_dialled_less_and_less_often() {
    let server = BadServer::start(|mut stream| {
        let _ = stream.write_all(&PINGRESP);
    });
    for dialect in DIALECTS {
        let mut gateway = server.gateway(dialect, &[]);
        let mut client = Client::tcp(gateway.address()).open();
        let begun = Instant::now();
        assert_eq!(client.request_text(SEND, "{}"), CODE_500);
        gateway.wait_counter("rpc_links_down", 5);
        assert!(begun.elapsed() >= FOUR_PAUSES, "{:?}", begun.elapsed());
    }
}

#[test]
fn a_server_that_never_answers_is_named_and_its_calls_fail() {
    let server = BadServer::start(|stream| {
        // Open for as long as the test lasts.
        std::mem::forget(stream);
    });
    for dialect in DIALECTS {
        let mut gateway = server.gateway(dialect, &["--set", "rpc.answer_timeout=300ms"]);
        let mut client = Client::tcp(gateway.address()).open();
        // Long before its deadline of half a minute.
        assert_eq!(client.request_text(SEND, "{}"), CODE_500);
        assert_eq!(client.request_text(SEND, "{}"), CODE_500);
        let counters = gateway.counters();
        assert_eq!(counters.get("rpc_timeouts"), None, "{counters:?}");
        assert_eq!(counters.get("rpc_link_failed"), Some(&2), "{counters:?}");
        assert_eq!(counters.get("rpc_calls"), Some(&1), "{counters:?}");
        assert_eq!(counters.get("rpc_links_up"), None, "{counters:?}");
        let (_, printed) = gateway.stop();
        let [warning] = warnings(&printed, "chat-1")[..] else {
            panic!("{printed}");
        };
        let reason = "the server accepted the connection and did not answer";
        assert!(warning.contains(reason), "{warning}");
        assert!(warning.contains("retry_in="), "{warning}");
    }
}

/// Sees that the call of a client fails at once, and returns the one warning about the server.
fn warning(mut gateway: Gateway) -> String {
    let mut client = Client::tcp(gateway.address()).open();
    assert_eq!(client.request_text(SEND, "{}"), CODE_500);
    gateway.wait_counter("rpc_dials_failed", 2);
    let (_, printed) = gateway.stop();
    let [warning] = warnings(&printed, "chat-1")[..] else {
        panic!("{printed}");
    };
    warning.to_owned()
}

/// The greeting of libzmq: the beginning of ZMTP 3.
const ZMTP: &[u8] = b"\xff\0\0\0\0\0\0\0\x01\x7f";

#[test]
fn a_server_with_another_rpc_is_named() {
    let zeromq = BadServer::start(|mut stream| {
        let _ = stream.write_all(ZMTP);
        std::mem::forget(stream);
    });
    for dialect in DIALECTS {
        let warning = warning(zeromq.gateway(dialect, &[]));
        assert!(warning.contains("speaks ZeroMQ"), "{warning}");
    }
    for (acceptor, part) in [("ws2", "speaks HTTP"), ("mqtt2", "speaks mqtt2")] {
        let port = free_address().port();
        let text = port.to_string();
        let mut server = run_script("pomelo", "other_rpc.js", &[acceptor, &text]);
        let line = format!("{acceptor} listens");
        server.wait_for_line(&line, 0, HANG_GUARD, |found| (found == line).then_some(()));
        let listed = BadServer::listed(port);
        for dialect in DIALECTS {
            let warning = warning(listed.gateway(dialect, &[]));
            assert!(warning.contains(part), "{acceptor}: {warning}");
            assert!(warning.contains("acceptorFactory"), "{warning}");
        }
    }
}

#[test]
fn a_caller_with_another_rpc_is_named() {
    let listen = free_address();
    let knob = format!("rpc.listen={listen}");
    let mut gateway = Gateway::start(&["--set", &knob]);
    for (bytes, part) in [
        (ZMTP, "speaks ZeroMQ"),
        (b"GET / HTTP/1.1\r\n\r\n", "speaks HTTP"),
    ] {
        let mut caller = TcpStream::connect(listen).expect("the port is open");
        caller.write_all(bytes).expect("the port takes bytes");
        let line = gateway.wait_printed(part);
        let address = caller.local_addr().expect("an open socket");
        assert!(line.contains(&format!("caller={address}")), "{line}");
    }
}

#[test]
fn a_master_that_is_not_reachable_is_named_with_its_address() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("the listener is bound").port();
    drop(free);
    let project = Project::new(port, "");
    let mut gateway = project.gateway(&["--set", "client.health_path=/health"]);
    let line = gateway.wait_printed("the master is not reachable");
    for part in [
        r#"host="127.0.0.1""#,
        &format!("port={port}"),
        "Connection refused",
        "retry_in=",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let line = gateway.wait_printed("is not part of the cluster");
    let address = gateway.address();
    let said = format!(
        "tangelo takes clients on {address}, but is not part of the cluster: it waits for the master 127.0.0.1:{port}"
    );
    assert!(line.ends_with(&said), "{line}");
    let (head, body) = http(address, "GET /health");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "joining\n");
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
    assert!(!printed.contains("listening on"), "{printed}");
}

/// The dials that the test waits for. With pauses that only grow they would take five minutes.
const DIALS: usize = 14;

#[test]
fn a_link_that_comes_up_has_the_lost_master_dialled_soon() {
    let dials = Arc::new(AtomicUsize::new(0));
    let counted = dials.clone();
    let master = serve(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        drop(stream);
    });
    // Each of its connections comes up.
    let chat = serve(|mut stream| {
        let _ = stream.write_all(&PINGRESP);
    });
    let entry = format!(r#","chat":[{{"id":"chat-1","host":"127.0.0.1","port":{chat}}}]"#);
    let project = Project::new(master, &entry);
    let gateway = project.gateway(&[
        "--set",
        "cluster.reconnect_min=50ms",
        "--set",
        "cluster.reconnect_max=10m",
        "--set",
        "rpc.backoff_max=100ms",
    ]);
    Client::tcp(gateway.address())
        .open()
        .request_text(SEND, "{}");
    wait_for("dials of the master", || {
        (dials.load(Ordering::Relaxed) >= DIALS).then_some(())
    });
}

mod a_server_that_never_ran_leaves_without_a_warning {
    use super::*;

    fn joins_and_leaves(dialect: Dialect) {
        let cluster = Cluster::shared(dialect);
        let connector = cluster.take_connector();
        let name = match dialect {
            Dialect::Pomelo => "pomelo",
            Dialect::Pinus => "pinus",
        };
        let args = [
            "--app-dir",
            cluster.app_dir(),
            "--id",
            connector.id(),
            "--dialect",
            name,
        ];
        let mut gateway = Gateway::start(&args);
        // A server that never ran is not in the master's list, so its link ends without a warning.
        gateway.wait_printed("part of the cluster");
        let line = gateway.wait_printed("| cluster: the master ");
        assert!(line.ends_with(" other servers"), "{line}");
        let mut client = Client::tcp(gateway.address()).open();
        client.request_text("chat.chatHandler.echo", "{}");
        let (_, printed) = gateway.stop();
        assert_eq!(
            warnings(&printed, "tangelo::shard::peers::"),
            [""; 0],
            "{printed}"
        );
    }

    in_both_dialects!(joins_and_leaves);
}

/// Answers each call of a gateway with the body of its message.
fn answer_all(mut server: Callee, calls: usize) {
    for _ in 0..calls {
        let (id, text) = server.next_call();
        let call: Value = serde_json::from_str(&format!("{{{text}")).expect("calls are JSON");
        let body = &call["msg"]["args"][0]["body"];
        server.answer(id, &json!([null, body]).to_string());
    }
}

#[test]
fn a_server_that_takes_no_bytes_costs_its_queue_and_no_client_of_another_server_waits() {
    const CANARIES: usize = 50;
    const ROUNDS: usize = 10;
    let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let server = |at: usize, server_type: &str| config::Server {
        id: format!("{server_type}-1"),
        server_type: server_type.into(),
        host: "127.0.0.1".into(),
        port: listeners[at].local_addr().expect("it listens").port(),
        ..config::Server::default()
    };
    let mut config = tangelo::Config {
        servers: vec![server(0, "chat"), server(1, "area")],
        ..tangelo::Config::default()
    };
    config.rpc.queue_bytes_max = 1 << 20;
    let inside = Inside::start(2, config, Router::new);
    let [stuck, area] = listeners;
    let answering =
        thread::spawn(move || answer_all(Callee::accept(&area), CANARIES * (ROUNDS + 1)));
    let mut canaries: Vec<Client> = (0..CANARIES)
        .map(|_| Client::tcp(inside.address()).open())
        .collect();
    let mut ask_all = |round: usize| {
        for canary in &mut canaries {
            let body = json!([round]).to_string();
            assert_eq!(
                canary.request_text("area.areaHandler.move", body.clone()),
                body
            );
        }
    };
    ask_all(0);
    let mut loud = Client::tcp(inside.address()).open();
    loud.request(1, SEND, "{}");
    let mut stuck = Callee::accept(&stuck);
    let (id, _) = stuck.next_call();
    stuck.answer(id, "[null,{}]");
    assert_eq!(loud.wait_response(1), b"{}");
    // From here on it reads nothing. The kernel takes some MiB.
    let large = json!({ "text": "x".repeat(128 << 10) }).to_string();
    for round in 1..=ROUNDS {
        for n in 0..20 {
            let id = (20 * round + n) as u32;
            loud.request(id, SEND, &large);
        }
        ask_all(round);
    }
    inside.wait_counter("rpc_links_down", 1);
    for id in 20..(20 * (ROUNDS as u32 + 1)) {
        assert_eq!(loud.wait_response(id), CODE_500.as_bytes(), "{id}");
    }
    answering.join().expect("all are answered");
    drop(stuck);
    inside.stop();
}
