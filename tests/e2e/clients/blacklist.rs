//! Clients whose address is on a blacklist: of the configuration, of its file, of the console.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use socket2::{Domain, Socket, Type};
use tangelo::handler::Router;
use tangelo::{Config, config};

use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::frames::handshake;
use crate::harness::frontend::{Frontend, Kind, Knobs};
use crate::harness::gateway::Gateway;
use crate::harness::inside::Inside;
use crate::harness::peers::{Cluster, Dialect, MASTER};
use crate::harness::process::POLL_INTERVAL;
use crate::harness::rpc;

/// Whether a client from this address gets an answer to its handshake; else it gets no byte.
fn is_served(gateway: SocketAddr, from: Ipv4Addr) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .bind(&SocketAddr::from((from, 0)).into())
        .expect("an address of the loopback");
    socket
        .connect(&gateway.into())
        .expect("the gateway listens");
    let mut stream = TcpStream::from(socket);
    // A refused client may be gone before it has written.
    let _ = std::io::Write::write_all(&mut stream, &handshake());
    stream.read(&mut [0]).is_ok_and(|count| count > 0)
}

fn wait_until(gateway: SocketAddr, from: Ipv4Addr, served: bool) {
    let deadline = Instant::now() + HANG_GUARD;
    while is_served(gateway, from) != served {
        assert!(Instant::now() < deadline, "{from}: served={served} in vain");
        thread::sleep(POLL_INTERVAL);
    }
}

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const NINE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

#[test]
fn a_listed_address_gets_no_byte() {
    for shards in [1, 4] {
        let client = config::Client {
            blacklist: vec![r"^127\.0\.0\.9$".into(), "^10\\.".into()],
            max_connections: Some(1),
            ..config::Client::default()
        };
        let inside = Inside::start(
            shards,
            Config {
                client,
                ..Config::default()
            },
            Router::new,
        );
        for _ in 0..10 {
            assert!(!is_served(inside.address(), NINE));
        }
        // None of them took the only place.
        Client::tcp(inside.address()).open();
        inside.wait_counter("closed_blacklisted", 10);
        inside.stop();
    }
}

/// As the expressions see it, and as the reference has it, which listens on all addresses.
#[test]
fn on_all_addresses_an_ipv4_client_has_its_address_in_ipv6() {
    for (expression, nine_is_served) in [
        (r"^::ffff:127\.0\.0\.9$", false),
        (r"127\.0\.0\.9", false),
        (r"^127", true),
    ] {
        let blacklist = format!("client.blacklist=[{}]", json!(expression));
        let gateway = Gateway::start_on("[::]:0", &["--set", &blacklist]);
        let address = SocketAddr::from((ONE, gateway.address().port()));
        assert_eq!(is_served(address, NINE), nine_is_served, "{expression}");
        assert!(is_served(address, ONE), "{expression}");
    }
}

#[test]
fn a_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("blacklist");
    let mut changed = SystemTime::now();
    let mut write = |text: &str| {
        fs::write(&path, text).expect("a temporary file");
        // Two writes within one tick of the file system's clock would look like one.
        changed += Duration::from_secs(2);
        let file = fs::File::options().write(true).open(&path);
        file.and_then(|file| file.set_modified(changed))
            .expect("our own file");
    };
    write("# nobody yet\n");
    let client = config::Client {
        blacklist_file: Some(path.clone()),
        ..config::Client::default()
    };
    let inside = Inside::start(
        4,
        Config {
            client,
            ..Config::default()
        },
        Router::new,
    );
    // Each client may meet another shard.
    let all = |from, served| (0..16).for_each(|_| wait_until(inside.address(), from, served));
    all(NINE, true);
    write("^127\\.0\\.0\\.9$\n");
    all(NINE, false);
    assert!(is_served(inside.address(), ONE));
    write("^127\\.0\\.0\\.9$\n^127\\.0\\.0\\.1$\n(\n");
    thread::sleep(Duration::from_secs(3));
    assert!(
        is_served(inside.address(), ONE),
        "a bad file changes nothing"
    );
    fs::remove_file(&path).expect("our own file");
    all(NINE, false);
    write("");
    all(NINE, true);
    inside.stop();
}

#[test]
fn behind_a_proxy_the_address_in_the_header_counts() {
    let client = config::Client {
        blacklist: vec!["^10\\.".into(), "^127\\.0\\.0\\.9$".into()],
        trusted_proxies: vec!["127.0.0.0/8".into()],
        real_ip_header: Some("X-Real-IP".into()),
        ..config::Client::default()
    };
    let config = Config {
        client,
        ..Config::default()
    };
    let inside = Inside::start(2, config, Router::new);
    let address = inside.address();
    let refused = [
        &[("x-real-ip", "10.0.0.1")][..],
        // The proxy next to the gateway has added the last one.
        &[("x-real-ip", "192.168.0.1"), ("X-REAL-IP", "10.0.0.1")],
    ];
    for headers in refused {
        let mut client = Client::websocket_with(address, headers);
        client.send_raw(&handshake());
        assert_eq!(client.next_package(), None, "{headers:?}");
    }
    let taken = [
        &[("x-real-ip", "192.168.0.1")][..],
        &[("x-real-ip", "10.0.0.1"), ("x-real-ip", "192.168.0.1")],
        &[("x-forwarded-for", "10.0.0.1")],
    ];
    for headers in taken {
        Client::websocket_with(address, headers).open();
    }
    // Without a header it is the socket's.
    assert!(!is_served(address, NINE));
    assert!(is_served(address, ONE));
    inside.wait_counter("closed_blacklisted", 3);
    inside.stop();
}

/// The genuine master hands the list to every frontend.
fn the_console_adds(dialect: Dialect) {
    const KNOBS: Knobs = Knobs {
        tangelo: &["--set", "client.blacklist_console=true"],
        genuine: &[],
    };
    let cluster = Cluster::shared(dialect);
    for kind in Kind::TANGELOS {
        let frontend = Frontend::start(cluster, kind, KNOBS);
        let address = frontend.address();
        assert!(is_served(address, NINE));
        // The others of this cluster do not listen to the console.
        let list = json!({"signal": "blacklist", "args": ["127.0.0.9"]});
        let answer = rpc::ask_master(cluster.rpc_address(MASTER), "__console__", &list);
        println!("{answer:?}");
        for _ in 0..16 {
            wait_until(address, NINE, false);
        }
        assert!(is_served(address, ONE));
    }
}

#[test]
fn the_console_adds_in_pomelo() {
    the_console_adds(Dialect::Pomelo);
}

#[test]
fn the_console_adds_in_pinus() {
    the_console_adds(Dialect::Pinus);
}
