//! A master that is not as it should be, in thirteen ways. Clients are served in each of them, and the gateway joins as soon
//! as there is a good one.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use bytes::Bytes;
use tangelo::Config;
use tangelo::config;
use tangelo::handler::Router;

use crate::harness::client::Client;
use crate::harness::free_address;
use crate::harness::inside::Inside;
use crate::harness::rpc::PlayedMaster;

const ECHO: &str = "connector.testHandler.echo";

/// Plays a master up to its fault. The connection is closed when the value is dropped.
type Play = fn(&TcpListener) -> PlayedMaster;

const JOINED: &str = r#"{"respId":$id,"error":null,"body":{}}"#;

/// The faults of a master that its gateway outlives, and whether the master closes the connection itself.
const STATES: &[(&str, bool, Play)] = &[
    ("says nothing", false, PlayedMaster::accept_silently),
    ("closes at once", true, PlayedMaster::accept_silently),
    ("speaks another protocol", false, |listener| {
        let mut master = PlayedMaster::accept_silently(listener);
        master.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        master
    }),
    ("greets and says nothing", false, PlayedMaster::greet),
    ("greets and closes", true, PlayedMaster::greet),
    ("answers the registration with garbage", false, |listener| {
        PlayedMaster::register(listener, "}{")
    }),
    ("registers and has no list", false, |listener| {
        PlayedMaster::register(listener, r#"{"code":1,"msg":"ok"}"#)
    }),
    ("refuses the list", false, |listener| {
        PlayedMaster::list(
            listener,
            r#"{"respId":$id,"error":{"message":"no"},"body":{}}"#,
        )
    }),
    ("has a list that is none", false, |listener| {
        PlayedMaster::list(listener, r#"{"respId":$id,"error":null,"body":[1]}"#)
    }),
    (
        "has joined the gateway and falls silent",
        false,
        |listener| PlayedMaster::list(listener, JOINED),
    ),
    ("has joined the gateway and leaves", true, |listener| {
        PlayedMaster::list(listener, JOINED)
    }),
];

/// A gateway with a master at this address.
fn start(master: SocketAddr) -> Inside {
    let config = Config {
        master: Some(PlayedMaster::place(master)),
        rpc: config::Rpc {
            listen: Some(free_address()),
            ..config::Rpc::default()
        },
        ..Config::default()
    };
    let router = || Router::new().route(ECHO, async |body: Bytes| body);
    Inside::start(1, config, router)
}

/// Shows that new clients get in and that older ones are answered.
#[track_caller]
fn assert_serves(inside: &Inside, clients: &mut Vec<Client>) {
    clients.push(Client::tcp(inside.address()).open());
    for client in clients {
        assert_eq!(client.request_text(ECHO, "7"), "7");
    }
}

fn joins_a_good_master(inside: Inside, listener: &TcpListener, mut clients: Vec<Client>) {
    let _master = PlayedMaster::accept(listener);
    inside.wait_gauge("registry_joined", 1);
    assert_serves(&inside, &mut clients);
    drop(clients);
    inside.stop();
}

#[test]
fn clients_are_served_in_each_state_of_a_master_and_a_good_one_is_joined() {
    thread::scope(|scope| {
        for (name, closes, play) in STATES {
            scope.spawn(move || {
                println!("--- a master that {name}");
                let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
                let inside = start(listener.local_addr().expect("it listens"));
                let mut clients = Vec::new();
                let mut master = Some(play(&listener));
                master.take_if(|_| *closes);
                assert_serves(&inside, &mut clients);
                drop(master);
                joins_a_good_master(inside, &listener, clients);
            });
        }
    });
}

#[test]
fn a_master_that_is_not_there_yet_is_joined_when_it_comes() {
    let address = free_address();
    let inside = start(address);
    let mut clients = Vec::new();
    assert_serves(&inside, &mut clients);
    let listener = TcpListener::bind(address).expect("nobody took the port");
    joins_a_good_master(inside, &listener, clients);
}

#[test]
fn a_master_that_refuses_the_registration_ends_the_gateway_with_its_text() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let inside = start(listener.local_addr().expect("it listens"));
    let refusal = r#"{"code":-1,"msg":"server auth failed"}"#;
    let _master = PlayedMaster::register(&listener, refusal);
    let error = inside.join().expect_err("it is not part of the cluster");
    assert!(error.to_string().contains("server auth failed"), "{error}");
}
