//! Frames for a server that the owner of its link does not know yet.
//!
//! Shard 0 follows the master and tells the others of a new server. It is server 2, so that shard 2 of three owns its
//! link. While the thread of shard 2 is held, its inbox fills up, and the news waits behind the inbox on shard 0. Shard 1
//! has the news and calls the server. Shard 0 is held too before shard 2 runs again: the frames arrive before the news.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
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

/// Starts a server that answers each call with `"pong"`.
fn start_chat() -> u16 {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
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

/// A handler that holds the thread of its shard until the test lets it go.
#[derive(Clone)]
struct Hold {
    is_held: Sender<()>,
    release: Arc<Mutex<Receiver<()>>>,
}

fn hold() -> (Hold, Receiver<()>, Sender<()>) {
    let (is_held, held) = mpsc::channel();
    let (releases, release) = mpsc::channel();
    let release = Arc::new(Mutex::new(release));
    (Hold { is_held, release }, held, releases)
}

impl Hold {
    fn run(&self) {
        self.is_held.send(()).expect("the test waits");
        let release = self.release.lock().expect("one handler at a time");
        let _ = release.recv_timeout(HANG_GUARD);
    }
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

fn handlers(first: Hold, last: Hold, sids: Arc<Mutex<BTreeMap<u16, Sid>>>) -> Router {
    let of_shard_2 = sids.clone();
    Router::new()
        .route("entryHandler.shard", move |session: Session, app: App| {
            let shard = app.shard().0;
            sids.lock().expect("no panic").insert(shard, session.id());
            async move { Json(json!({"shard": shard})) }
        })
        .route("entryHandler.hold", move |app: App| {
            match app.shard().0 {
                0 => first.run(),
                _ => last.run(),
            }
            async { Json("held") }
        })
        .route("entryHandler.pushToShard2", move |app: App| {
            let sid = of_shard_2.lock().expect("no panic")[&2];
            app.push_to(&[sid], "onFill", &1).expect("a push");
            async { Json("pushed") }
        })
        .route("entryHandler.servers", async |app: App| {
            Json(app.cluster().servers("chat").len())
        })
        .route("entryHandler.flood", flood)
}

fn request(client: &mut Client, name: &str) -> Value {
    let answer = client.request_text(&*format!("connector.entryHandler.{name}"), "{}");
    serde_json::from_str(&answer).expect("JSON")
}

/// Connects a client to each of three shards: the kernel chooses the shard of a connection.
fn clients(inside: &Inside) -> [Client; 3] {
    let mut found = BTreeMap::new();
    let deadline = Instant::now() + HANG_GUARD;
    while found.len() < 3 {
        assert!(Instant::now() < deadline, "a client on each shard");
        let mut client = Client::tcp(inside.address()).open();
        let shard = request(&mut client, "shard")["shard"]
            .as_u64()
            .expect("a number");
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

#[test]
fn too_many_frames_for_it_end_its_link_and_their_calls_fail() {
    let (master, announcements) = start_master();
    let (first, first_held, release_first) = hold();
    let (last, last_held, release_last) = hold();
    let sids = Arc::new(Mutex::new(BTreeMap::new()));
    let config = Config {
        // They take the numbers 0 and 1, and the master does not name them.
        servers: vec![server("gone-1", "gone", 1), server("gone-2", "gone", 1)],
        master: Some(Master {
            host: master.ip().to_string(),
            port: master.port(),
            token: "ok".into(),
            info: serde_json::Map::new(),
            env: "development".into(),
        }),
        ..Config::default()
    };
    let router = move || handlers(first.clone(), last.clone(), sids.clone());
    let inside = Inside::start(3, config, router);
    let [mut on_0, mut on_1, mut on_2] = clients(&inside);

    let held_2 = on_2.request_fresh("connector.entryHandler.hold", "{}");
    last_held.recv_timeout(HANG_GUARD).expect("shard 2 is held");
    let waits = inside.counter("mesh_waits");
    for _ in 0..=MESH_BATCHES_MAX {
        request(&mut on_1, "pushToShard2");
    }
    assert!(inside.counter("mesh_waits") > waits, "its inbox is full");

    let port = start_chat();
    let chat = json!({"id": "chat-1", "serverType": "chat", "host": "127.0.0.1", "port": port});
    let news = json!({"action": "addServer", "server": chat});
    let mut bytes = Vec::new();
    admin::write_request(&mut bytes, 2, "__monitorwatcher__", &news);
    announcements.send(bytes).expect("the master runs");
    wait_answer(&mut on_1, "connector.entryHandler.servers", &json!(1));
    let held_0 = on_0.request_fresh("connector.entryHandler.hold", "{}");
    first_held
        .recv_timeout(HANG_GUARD)
        .expect("shard 0 is held");

    let forwarded = on_1.request_fresh(SEND, "{}");
    let flooded = on_1.request_fresh("connector.entryHandler.flood", "{}");
    request(&mut on_1, "shard");
    assert_eq!(inside.counter("rpc_calls"), 4);
    assert_eq!(inside.counter("rpc_frames_unknown_peer"), 0);
    release_last.send(()).expect("shard 2 is held");
    inside.wait_counter("rpc_frames_unknown_peer", 1);
    assert_eq!(
        inside.counter("rpc_link_failed"),
        0,
        "the news is not there"
    );
    release_first.send(()).expect("shard 0 is held");

    assert_eq!(on_1.wait_response(forwarded), br#"{"code":500}"#);
    let errors = on_1.wait_response(flooded);
    let errors: Vec<String> = serde_json::from_slice(&errors).expect("JSON");
    assert_eq!(errors, ["the link to the server has ended"; 3]);
    assert_eq!(inside.counter("rpc_link_failed"), 4);

    // All three shards serve on, and the server gets calls.
    assert_eq!(on_0.wait_response(held_0), br#""held""#);
    assert_eq!(on_2.wait_response(held_2), br#""held""#);
    for client in [&mut on_0, &mut on_1, &mut on_2] {
        wait_answer(client, SEND, &json!("pong"));
    }
    assert_eq!(inside.counter("rpc_frames_unknown_peer"), 1);
    inside.stop();
}
