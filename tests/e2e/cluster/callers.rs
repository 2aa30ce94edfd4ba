//! The servers that may open a connection to the RPC port.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use tangelo::Config;
use tangelo::config::{self, Server};
use tangelo::handler::Router;

use super::*;
use crate::harness::free_address;
use crate::harness::gateway::Gateway;
use crate::harness::inside::Inside;
use crate::harness::rpc::{PlayedMaster, Rpc};

/// Binds a client: its backend calls the frontend. On a busy machine the backend may miss the short pings of this test,
/// and then gets no message.
fn bind_patiently(client: &mut Client, uid: &str) {
    let deadline = Instant::now() + HANG_GUARD;
    let failed = json!({"code": 500});
    let mut ask = || ask(client, "bind", &json!({"uid": uid}));
    let mut answer = ask();
    while answer == failed && Instant::now() < deadline {
        answer = ask();
    }
    assert_eq!(answer, json!({"err": null, "uid": uid}));
}

/// tangelo before genuine backends, which ping it less often than it takes.
fn with_a_short_idle_timeout(dialect: Dialect) {
    let knobs = Knobs {
        tangelo: &["--set=rpc.idle_timeout=1s", "--set=rpc.keepalive=500ms"],
        genuine: &[],
    };
    let kinds = [Kind::Tangelo { shards: 2 }];
    shared_with(knobs, dialect, &kinds, |setup| {
        let counter = |setup: &mut Setup<'_>, least| {
            let gateway = setup.frontend.gateway().expect("it is tangelo");
            gateway.wait_counter("peers_idle", least)
        };
        // Clients without a uid have the same backend, and a bind is a call of it to the frontend.
        let (mut first, mut second) = (setup.client(), setup.client());
        let before = counter(setup, 0);
        bind_patiently(&mut first, &setup.uid("first"));
        counter(setup, before + 1);
        // When it answers this, the backend has read the DISCONNECT, which came before.
        let deadline = Instant::now() + HANG_GUARD;
        while whoami(&mut second) == json!({"code": 500}) {
            assert!(Instant::now() < deadline, "the backend answers nothing");
        }
        let called = Instant::now();
        bind_patiently(&mut second, &setup.uid("second"));
        // Without the DISCONNECT a Pomelo server waits for half a minute, and a Pinus server for ever.
        println!("the next call took {:?}", called.elapsed());
        assert!(called.elapsed() < Duration::from_secs(10));
    });
}

mod a_genuine_server_calls_again_at_once_after_its_connection_was_closed {
    use super::*;

    #[test]
    fn in_pomelo() {
        with_a_short_idle_timeout(Dialect::Pomelo);
    }

    #[test]
    fn in_pinus() {
        with_a_short_idle_timeout(Dialect::Pinus);
    }
}

#[test]
fn four_hundred_strangers_take_no_place_of_a_client() {
    let rpc = free_address();
    let listen = format!("--set=rpc.listen={rpc}");
    // Also with descriptors for few others.
    let mut gateway = Gateway::start_with_files(256, &["--shards=1", &listen]);
    let connect = |_| TcpStream::connect_timeout(&rpc, HANG_GUARD).expect("the port is open");
    let strangers: Vec<TcpStream> = (0..400).map(connect).collect();
    gateway.wait_counter("peers_too_many", 368);
    let mut clients: Vec<Client> = (0..100)
        .map(|_| Client::tcp(gateway.address()).open())
        .collect();
    for client in &mut clients {
        assert_eq!(client.request_text("connector.entryHandler.echo", "7"), "7");
    }
    drop(strangers);
    drop(clients);
    // The places are free again.
    let deadline = Instant::now() + HANG_GUARD;
    while !Rpc::connect(rpc).expect("the port is open").is_open() {
        assert!(Instant::now() < deadline, "no place was given back");
    }
}

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

/// A configuration with a master, and the master once a gateway joins it.
fn with_master() -> (Config, JoinHandle<PlayedMaster>) {
    let master = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = master.local_addr().expect("it listens");
    let config = Config {
        master: Some(PlayedMaster::place(address)),
        ..Config::default()
    };
    (config, thread::spawn(move || PlayedMaster::accept(&master)))
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
    let (config, playing) = with_master();
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

#[test]
fn strangers_that_wait_for_the_master_keep_no_server_out_that_is_listed_by_name() {
    let (mut config, playing) = with_master();
    let port = free_address().port();
    config.rpc.listen = Some(SocketAddr::from(([0, 0, 0, 0], port)));
    config.rpc.allow = vec!["cluster".into()];
    // One of them is for callers that are not known yet.
    config.rpc.max_connections = Some(4);
    let inside = Inside::start(2, config, Router::new);
    let mut master = playing.join().expect("the gateway joins");
    inside.wait_counter("registry_joins", 1);
    let server: Value = json!({
        "id": "chat-1", "serverType": "chat", "host": "localhost", "port": 3250,
    });
    master.add_server(&server);
    let listen = SocketAddr::from(([127, 0, 0, 1], port));
    // When it is served, the list and the address of the name are known.
    let deadline = Instant::now() + HANG_GUARD;
    loop {
        let mut first = Rpc::connect(listen).expect("the port is open");
        if first.is_open() {
            break assert_served(&mut first);
        }
        assert!(Instant::now() < deadline, "the server is not known");
    }
    let _held = Rpc::connect_from(listen, TRANSLATED).expect("the port is open");
    let mut refused = Rpc::connect_from(listen, [127, 0, 0, 78]).expect("the port is open");
    assert!(refused.wait_end(), "the place is taken");
    let mut genuine = Rpc::connect(listen).expect("the port is open");
    assert_served(&mut genuine);
    inside.stop();
}
