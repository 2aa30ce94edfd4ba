//! Parcels about a server that their receiver does not know yet.
//!
//! Shard 0 follows the master and tells the others of a new server. It is server 2, so that shard 2 of three owns its
//! link. While the thread of a shard is held, its inbox fills up, and the news waits on shard 0.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use tangelo::Config;
use tangelo::config::{self, Master};
use tangelo::handler::{App, Json, Router, Session, Sid};
use tangelo::limits::MESH_BATCHES_MAX;
use tangelo::wire::pomelo::{admin, mqtt, rpc};

use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::inside::Inside;
use crate::harness::process::POLL_INTERVAL;

const SEND: &str = "chat.chatHandler.send";
/// Three of them are more than the frames that may wait, and two of them are less.
const LARGE_BYTES: usize = 30 << 20;

/// Hands over the whole packets of a connection, to its end.
fn read_packets(mut stream: &TcpStream, mut take: impl FnMut(mqtt::Packet<'_>)) {
    let (mut input, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        input.extend_from_slice(&buffer[..count]);
        while let Some((packet, bytes)) = mqtt::decode(&input, 1 << 20).expect("MQTT") {
            take(packet);
            input.drain(..bytes);
        }
    }
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

fn server(id: &str, server_type: &str, port: u16) -> config::Server {
    config::Server {
        id: id.into(),
        server_type: server_type.into(),
        host: "127.0.0.1".into(),
        port,
        ..config::Server::default()
    }
}

/// Starts a master that lets one server join, lists no other one, and later sends what it is told to send.
fn start_master() -> (SocketAddr, Sender<Vec<u8>>) {
    let (listener, address) = listen();
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a server");
        let mut writer = stream.try_clone().expect("a socket");
        thread::spawn(move || {
            for bytes in receiver {
                writer.write_all(&bytes).expect("the server reads");
            }
        });
        let reader = stream.try_clone().expect("a socket");
        read_packets(&reader, |packet| {
            let mut out = Vec::new();
            match packet {
                mqtt::Packet::Connect => out.extend_from_slice(&[0x20, 2, 0, 0]),
                mqtt::Packet::Publish {
                    topic: admin::REGISTER,
                    ..
                } => mqtt::write_publish_on(&mut out, admin::REGISTER, |out| {
                    out.extend_from_slice(br#"{"code":1,"msg":"ok"}"#);
                }),
                mqtt::Packet::Publish { payload, .. } => match admin::decode(payload) {
                    Ok(admin::AdminMessage::Request { id, .. }) => {
                        admin::write_response(&mut out, &id, b"null", Some(b"{}"));
                    }
                    Ok(_) => {}
                    Err(error) => panic!("{error:?}"),
                },
                _ => {}
            }
            stream.write_all(&out).expect("the server reads");
        });
    });
    (address, sender)
}

/// Starts a server that answers each call with `"pong"`, after it has closed some connections.
fn start_chat(closed: usize) -> u16 {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming().flatten().skip(closed) {
            thread::spawn(move || {
                read_packets(&stream, |packet| {
                    let mut out = Vec::new();
                    match packet {
                        mqtt::Packet::PingReq => out.extend_from_slice(&mqtt::PINGRESP),
                        mqtt::Packet::Publish { payload, .. } => {
                            for call in rpc::calls(payload) {
                                let id = call.expect("a call").id;
                                rpc::write_answer(&mut out, id, |out| {
                                    out.extend_from_slice(br#"[null,"pong"]"#);
                                });
                            }
                        }
                        _ => {}
                    }
                    (&stream).write_all(&out).expect("the gateway reads");
                });
            });
        }
    });
    address.port()
}

/// Makes three calls that are too large together, and returns their errors.
async fn flood(app: App) -> Json<Vec<String>> {
    let large = json!("x".repeat(LARGE_BYTES));
    let call = |_| {
        let call = app
            .cluster()
            .call("chat", "chatRemote.take", std::slice::from_ref(&large));
        Box::pin(call.into_future())
    };
    let mut calls: Vec<_> = (0..3).map(call).collect();
    for call in &mut calls {
        let sent = futures_lite::future::poll_once(call.as_mut()).await;
        assert_eq!(sent, None, "the call is on its way");
    }
    let mut errors = Vec::new();
    for call in calls {
        errors.push(call.await.expect_err("its frame was dropped").to_string());
    }
    Json(errors)
}

/// The state that the handlers of the test share with it.
struct Shared {
    /// A session of each shard.
    sids: Mutex<BTreeMap<u16, Sid>>,
    /// Shards that a handler holds.
    held: Mutex<BTreeSet<u16>>,
    changed: Condvar,
}

impl Shared {
    /// Holds the thread of a shard until the test releases it.
    fn hold(&self, shard: u16) {
        self.held.lock().expect("no panic").insert(shard);
        self.changed.notify_all();
        self.wait(shard, false);
    }

    fn release(&self, shard: u16) {
        self.held.lock().expect("no panic").remove(&shard);
        self.changed.notify_all();
    }

    /// Waits until a shard is held, or is not held.
    fn wait(&self, shard: u16, is_held: bool) {
        let held = self.held.lock().expect("no panic");
        let differs = |held: &mut BTreeSet<u16>| held.contains(&shard) != is_held;
        let waited = self.changed.wait_timeout_while(held, HANG_GUARD, differs);
        let (held, _) = waited.expect("no panic");
        assert_eq!(held.contains(&shard), is_held, "shard {shard} is held");
    }
}

fn handlers(shared: &Arc<Shared>) -> Router {
    let [sids, holds, receivers] = [(); 3].map(|()| shared.clone());
    Router::new()
        .route("entryHandler.shard", move |session: Session, app: App| {
            let shard = app.shard().0;
            sids.sids
                .lock()
                .expect("no panic")
                .entry(shard)
                .or_insert(session.id());
            async move { Json(json!({"shard": shard})) }
        })
        .route("entryHandler.hold", move |app: App| {
            holds.hold(app.shard().0);
            async { Json("held") }
        })
        .route(
            "entryHandler.push",
            move |app: App, Json(shard): Json<u16>| {
                let sid = receivers.sids.lock().expect("no panic")[&shard];
                app.push_to(&[sid], "onFill", &1).expect("a push");
                async { Json("pushed") }
            },
        )
        .route("entryHandler.servers", async |app: App| {
            Json(app.cluster().servers("chat").len())
        })
        .route("entryHandler.flood", flood)
}

/// A gateway with a client on each of three shards, and its master.
struct Setup {
    inside: Inside,
    clients: [Client; 3],
    shared: Arc<Shared>,
    announcements: Sender<Vec<u8>>,
}

impl Setup {
    fn start() -> Self {
        let (master, announcements) = start_master();
        let shared = Arc::new(Shared {
            sids: Mutex::default(),
            held: Mutex::default(),
            changed: Condvar::new(),
        });
        let config = Config {
            // They take the numbers 0 and 1, and the master does not name them.
            servers: vec![server("gone-1", "gone", 1), server("gone-2", "gone", 1)],
            master: Some(Master {
                host: master.ip().to_string(),
                port: master.port(),
                token: Some("ok".into()),
                info: serde_json::Map::new(),
                env: "development".into(),
            }),
            ..Config::default()
        };
        let of_handlers = shared.clone();
        let inside = Inside::start(3, config, move || handlers(&of_handlers));
        let clients = clients(&inside);
        Self {
            inside,
            clients,
            shared,
            announcements,
        }
    }

    /// Holds the thread of a shard; returns the id of the request that does it.
    fn hold(&mut self, shard: u16) -> u32 {
        let client = &mut self.clients[usize::from(shard)];
        let id = client.request_fresh("connector.entryHandler.hold", "{}");
        self.shared.wait(shard, true);
        id
    }

    /// Fills the inbox of a shard that is held.
    fn fill(&mut self, from: usize, to: u16) {
        let waits = self.inside.counter("mesh_waits");
        for _ in 0..=MESH_BATCHES_MAX {
            let body = to.to_string();
            self.clients[from].request_text("connector.entryHandler.push", body);
        }
        assert!(self.inside.counter("mesh_waits") > waits, "it is full");
    }

    /// Lets the master name a server, and waits until a shard knows it.
    fn announce_chat(&mut self, port: u16, shard: usize) {
        let chat = json!({"id": "chat-1", "serverType": "chat", "host": "127.0.0.1", "port": port});
        let news = json!({"action": "addServer", "server": chat});
        let mut bytes = Vec::new();
        admin::write_request(&mut bytes, 2, "__monitorwatcher__", &news);
        self.announcements.send(bytes).expect("the master runs");
        let servers = "connector.entryHandler.servers";
        wait_answer(&mut self.clients[shard], servers, &json!(1));
    }

    /// Checks that all shards serve, and that their calls reach the server.
    fn check_service(&mut self) {
        for client in &mut self.clients {
            wait_answer(client, SEND, &json!("pong"));
        }
    }
}

/// Connects a client to each of three shards: the kernel chooses the shard of a connection.
fn clients(inside: &Inside) -> [Client; 3] {
    let mut found = BTreeMap::new();
    let deadline = Instant::now() + HANG_GUARD;
    while found.len() < 3 {
        assert!(Instant::now() < deadline, "a client on each shard");
        let mut client = Client::tcp(inside.address()).open();
        let answer = client.request_text("connector.entryHandler.shard", "{}");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let shard = answer["shard"].as_u64().expect("a number");
        found.entry(shard).or_insert(client);
    }
    let mut clients = found.into_values();
    std::array::from_fn(|_| clients.next().expect("one of three"))
}

/// Asks until the answer is this one.
fn wait_answer(client: &mut Client, route: &str, expected: &Value) {
    let deadline = Instant::now() + HANG_GUARD;
    loop {
        let answer = client.request_text(route, "{}");
        if serde_json::from_str::<Value>(&answer).expect("JSON") == *expected {
            return;
        }
        assert!(Instant::now() < deadline, "{route}: {answer}");
        thread::sleep(POLL_INTERVAL);
    }
}

/// Shard 1 has the news and calls the server. Shard 0 is held too before shard 2 runs again: the frames arrive before
/// the news.
#[test]
fn too_many_frames_for_it_end_its_link_and_their_calls_fail() {
    let mut setup = Setup::start();
    let held_2 = setup.hold(2);
    setup.fill(1, 2);
    setup.announce_chat(start_chat(0), 1);
    let held_0 = setup.hold(0);

    let client = &mut setup.clients[1];
    let forwarded = client.request_fresh(SEND, "{}");
    let flooded = client.request_fresh("connector.entryHandler.flood", "{}");
    client.request_text("connector.entryHandler.servers", "{}");
    let counter = |name| setup.inside.counter(name);
    assert_eq!(counter("rpc_calls"), 4);
    assert_eq!(counter("rpc_frames_unknown_peer"), 0);
    setup.shared.release(2);
    setup.inside.wait_counter("rpc_frames_unknown_peer", 1);
    assert_eq!(counter("rpc_link_failed"), 0, "the news is not there");
    setup.shared.release(0);

    assert_eq!(client.wait_response(forwarded), br#"{"code":500}"#);
    let errors = client.wait_response(flooded);
    let errors: Vec<String> = serde_json::from_slice(&errors).expect("JSON");
    assert_eq!(errors, ["the link to the server has ended"; 3]);
    assert_eq!(counter("rpc_link_failed"), 4);
    assert_eq!(setup.clients[0].wait_response(held_0), br#""held""#);
    assert_eq!(setup.clients[2].wait_response(held_2), br#""held""#);
    setup.check_service();
}

/// Shard 2 has the news and calls the server. Shard 0 is held before shard 1 runs again: shard 1 hears of the link, of
/// its end and of the next one before the news.
#[test]
fn a_shard_that_hears_of_its_link_first_calls_it_later() {
    let mut setup = Setup::start();
    let held_1 = setup.hold(1);
    setup.fill(2, 1);
    setup.announce_chat(start_chat(1), 2);
    let held_0 = setup.hold(0);

    let client = &mut setup.clients[2];
    assert_eq!(client.request_text(SEND, "{}"), r#"{"code":500}"#);
    setup.inside.wait_counter("rpc_links_up", 1);
    // The last push comes behind the news of the link.
    client.request_text("connector.entryHandler.push", "1");
    setup.shared.release(1);
    for _ in 0..MESH_BATCHES_MAX + 2 {
        assert_eq!(setup.clients[1].next_push().0, "onFill");
    }
    setup.shared.release(0);

    assert_eq!(setup.clients[0].wait_response(held_0), br#""held""#);
    assert_eq!(setup.clients[1].wait_response(held_1), br#""held""#);
    setup.check_service();
    assert_eq!(setup.inside.counter("rpc_frames_stale"), 0);
}
