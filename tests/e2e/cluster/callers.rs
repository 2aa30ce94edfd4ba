//! The servers that may open a connection to the RPC port.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tangelo::Config;
use tangelo::config::{self, Master, Server};
use tangelo::handler::Router;

use crate::harness::free_address;
use crate::harness::inside::Inside;
use crate::harness::rpc::{PlayedMaster, Rpc};

/// A server that comes through NAT: the list has another address of it.
const TRANSLATED: [u8; 4] = [127, 0, 0, 77];

/// A gateway that knows one other server.
fn start(allow: &[&str], host: &str) -> (Inside, SocketAddr) {
    let config = Config {
        servers: vec![Server {
            id: "chat-1".into(),
            server_type: "chat".into(),
            host: host.into(),
            port: free_address().port(),
            ..Server::default()
        }],
        ..Config::default()
    };
    start_with(config, allow)
}

fn start_with(mut config: Config, allow: &[&str]) -> (Inside, SocketAddr) {
    let listen = free_address();
    config.rpc = config::Rpc {
        listen: Some(listen),
        allow: allow.iter().map(|entry| (*entry).into()).collect(),
        ..config.rpc
    };
    (Inside::start(2, config, Router::new), listen)
}

/// Shows that a caller is served.
#[track_caller]
fn assert_served(rpc: &mut Rpc) {
    let found = rpc.call("sessionRemote", "getBackendSessionBySid", &json!([1]));
    assert_eq!(found.expect("an answer"), json!([]));
}

#[test]
fn only_callers_of_rpc_allow_are_served_and_others_get_a_disconnect() {
    let by_default: Vec<String> = config::Rpc::default().allow;
    let by_default: Vec<&str> = by_default.iter().map(String::as_str).collect();
    let here = [127, 0, 0, 1];
    let cases: [(&[&str], &str, [u8; 4], bool); 9] = [
        (&["any"], "192.0.2.1", TRANSLATED, true),
        (&by_default, "192.0.2.1", TRANSLATED, true),
        (&["cluster"], "127.0.0.77", TRANSLATED, true),
        (&["cluster"], "localhost", here, true),
        (&["cluster"], "192.0.2.1", TRANSLATED, false),
        // The address that the servers of this machine dial.
        (&["cluster"], "192.0.2.1", here, true),
        (&["cluster", "127.0.0.64/26"], "192.0.2.1", TRANSLATED, true),
        (
            &["cluster", "127.0.0.64/29"],
            "192.0.2.1",
            TRANSLATED,
            false,
        ),
        (&[], "127.0.0.77", TRANSLATED, false),
    ];
    for (allow, host, from, may) in cases {
        println!("--- {from:?}, {allow:?}, {host}");
        let (inside, listen) = start(allow, host);
        let mut rpc = Rpc::connect_from(listen, from).expect("the port is open");
        match may {
            true => assert_served(&mut rpc),
            false => assert!(rpc.wait_end(), "a DISCONNECT comes before the end"),
        }
        let counted = ["peers_accepted", "peers_refused"].map(|name| inside.counter(name));
        assert_eq!(counted, [u64::from(may), u64::from(!may)]);
        inside.stop();
    }
}

#[test]
fn a_server_that_calls_two_seconds_before_the_master_names_it_is_served() {
    let master = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = master.local_addr().expect("it listens");
    let config = Config {
        master: Some(Master {
            host: address.ip().to_string(),
            port: address.port(),
            token: Some(json!("ok")),
            info: Map::new(),
            env: "development".into(),
        }),
        ..Config::default()
    };
    let playing = thread::spawn(move || PlayedMaster::accept(&master));
    let (inside, listen) = start_with(config, &["cluster"]);
    let mut master = playing.join().expect("the gateway joins");
    inside.wait_counter("registry_joins", 1);
    let mut early = Rpc::connect_from(listen, TRANSLATED).expect("the port is open");
    thread::sleep(Duration::from_secs(2));
    let counted = ["peers_accepted", "peers_refused"].map(|name| inside.counter(name));
    assert_eq!(counted, [0, 0], "it waits");
    let server: Value = json!({
        "id": "chat-1", "serverType": "chat", "host": "127.0.0.77", "port": 3250,
    });
    master.add_server(&server);
    assert_served(&mut early);
    // One that nobody names is refused after five seconds.
    let mut stranger = Rpc::connect_from(listen, [127, 0, 0, 78]).expect("the port is open");
    assert!(stranger.wait_end(), "a DISCONNECT comes before the end");
    assert_eq!(inside.counter("peers_refused"), 1);
    assert_served(&mut early);
    inside.stop();
}
