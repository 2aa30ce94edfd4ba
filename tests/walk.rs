//! A forwarded request tells which files it passes; ARCHITECTURE.md has to say the same.
//!
//! `cargo test --test walk -- --nocapture` prints the hops.
#![cfg(feature = "runtime")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test has threads of its own: a backend, a client, a collector"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tangelo::config::Server;
use tangelo::wire::pomelo::mqtt::{self, Packet};
use tangelo::{Config, Gateway};
use tracing::field::{Field, Visit};
use tracing::span;
use tungstenite::{Message, WebSocket};

/// Collects the files of hop events.
#[derive(Clone, Default)]
struct Hops(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Hops {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "hop"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct File(String);
        impl Visit for File {
            fn record_str(&mut self, _: &Field, value: &str) {
                self.0 = value.trim_start_matches("src/").to_owned();
            }
            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        let mut file = File(String::new());
        event.record(&mut file);
        self.0.lock().unwrap().push(file.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// A backend that answers each call with the session it was told of.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut input = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(received @ 1..) = stream.read(&mut chunk) {
            input.extend_from_slice(&chunk[..received]);
            while let Some((packet, used)) = mqtt::decode(&input, 1 << 20).unwrap() {
                if let Packet::Publish { payload, .. } = packet {
                    let call: serde_json::Value = serde_json::from_slice(payload).unwrap();
                    let session = &call["msg"]["args"][1];
                    let answer = format!(r#"{{"id":{},"resp":[null,{session},null]}}"#, call["id"]);
                    let mut out = Vec::new();
                    mqtt::write_publish(&mut out, |out| out.extend_from_slice(answer.as_bytes()));
                    stream.write_all(&out).unwrap();
                }
                input.drain(..used);
            }
        }
    });
    address
}

struct Client(WebSocket<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let (socket, _) = tungstenite::client(format!("ws://{address}/"), stream).unwrap();
        let mut client = Self(socket);
        client.send(1, b"{\"sys\":{}}");
        client.receive();
        client.send(2, b"");
        client
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let mut package = vec![kind, 0, 0, body.len() as u8];
        package.extend_from_slice(body);
        self.0.send(Message::binary(package)).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        self.0.read().unwrap().into_data().to_vec()
    }

    /// Asks the backend; returns the shard that serves this client, the low byte of the session id.
    fn ask(&mut self) -> u64 {
        self.send(4, b"\x00\x01\x10chat.h.whoareyou{}");
        let answer = self.receive();
        let session: serde_json::Value = serde_json::from_slice(&answer[6..]).unwrap();
        session["id"].as_u64().unwrap() & 0xff
    }
}

#[test]
fn the_hops_of_a_forwarded_request_are_those_of_the_architecture() {
    let hops = Hops::default();
    tracing::subscriber::set_global_default(hops.clone()).unwrap();
    let backend = backend();
    let gateway = Gateway::new(Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        shards: Some(2),
        servers: vec![Server {
            id: "chat-1".into(),
            server_type: "chat".into(),
            host: backend.ip().to_string(),
            port: backend.port(),
            ..Server::default()
        }],
        ..Config::default()
    })
    .start()
    .unwrap();

    // The first server's link belongs to shard 0; a client of shard 1 takes the whole way.
    let mut clients: Vec<Client> = (0..64)
        .map(|_| Client::connect(gateway.address()))
        .collect();
    let far = clients
        .iter_mut()
        .find_map(|client| (client.ask() == 1).then_some(client));
    let client = far.expect("the kernel gives shard 1 one of 64 connections");
    hops.0.lock().unwrap().clear();
    client.ask();
    let walked = hops.0.lock().unwrap().clone();
    for (number, file) in walked.iter().enumerate() {
        println!("{:2} {file}", number + 1);
    }

    let document = include_str!("../ARCHITECTURE.md");
    let written: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | `"))
        .filter(|(number, _)| number.trim().parse::<u32>().is_ok())
        .filter_map(|(_, rest)| Some(rest.split_once('`')?.0))
        .collect();
    assert_eq!(written, walked, "the table in ARCHITECTURE.md");

    gateway.stopper().stop();
    gateway.join().unwrap();
}
