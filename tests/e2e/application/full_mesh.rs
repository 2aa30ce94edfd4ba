//! A full queue from one shard to another, which a handler blocks: new work for that shard, pushes and messages to a server,
//! is refused and counted, nobody else waits, and everything that was taken arrives once and in order.

use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use tangelo::handler::{Answer, App, Json, Reply, Router, Session, Sid, State};
use tangelo::limits::{MESH_BATCHES_MAX, MESH_PARCELS_MAX};
use tangelo::{Config, config};

use super::misbehaving::{Block, WHERE, answer_where, ok, on_two_shards};
use crate::harness::client::{Client, HANG_GUARD, Message};
use crate::harness::free_address;
use crate::harness::inside::Inside;
use crate::harness::rpc::{self, Rpc};

const JOIN: &str = "connector.testHandler.join";
const TELL: &str = "connector.testHandler.tell";
const BLOCK: &str = "connector.testHandler.block";

/// Ids of the messages to a server that the queue takes.
const FORWARDED: RangeInclusive<u32> = 1..=100;

/// The session that gets all pushes.
#[derive(Clone, Default)]
struct Member(Arc<OnceLock<Sid>>);

async fn join(session: Session, State(member): State<Member>) -> Value {
    member.0.set(session.id()).expect("one session joins");
    json!("joined")
}

async fn tell(app: App, State(member): State<Member>, Json(number): Json<u64>) -> Reply<Value> {
    let member = *member.0.get().expect("a session has joined");
    app.push_to(&[member], "onTell", &number)?;
    Ok(json!(number))
}

const FORWARD: &str = "chat.chatHandler.echo";

/// A gateway whose first shard has the link to the one server and takes the calls of servers.
fn start(block: &Block, listen: Option<SocketAddr>) -> Inside {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = server.local_addr().expect("it is bound").port();
    rpc::echo(server);
    let config = Config {
        servers: vec![config::Server {
            id: "chat-1".into(),
            server_type: "chat".into(),
            host: "127.0.0.1".into(),
            port,
            ..config::Server::default()
        }],
        rpc: config::Rpc {
            timeout: 10 * HANG_GUARD,
            listen,
            ..config::Rpc::default()
        },
        client: config::Client {
            messages_per_second: None,
            outbox_bytes_max: 64 << 20,
            ..config::Client::default()
        },
        ..Config::default()
    };
    let (block, member) = (block.clone(), Member::default());
    Inside::start(2, config, move || {
        let block = block.clone();
        Router::new()
            .route(JOIN, join)
            .route(TELL, tell)
            .raw_route(WHERE, answer_where)
            .raw_route(BLOCK, move |_| {
                block.hold(false);
                Answer::now(ok())
            })
            .with_state(member.clone())
    })
}

/// Three clients of each shard.
fn clients(inside: &Inside) -> [[Client; 3]; 2] {
    let mut sides = on_two_shards(inside);
    while sides.iter().any(|side| side.len() < 3) {
        let more = on_two_shards(inside);
        sides
            .iter_mut()
            .zip(more)
            .for_each(|(side, more)| side.extend(more));
    }
    sides.map(|mut side| {
        side.truncate(3);
        side.try_into().ok().expect("three of each")
    })
}

/// Fills the queue to a blocked shard with pushes of `1`, `2` and so on, one batch for each turn, and returns their number.
fn fill_queue(inside: &Inside, teller: &mut Client) -> u64 {
    let mut told = 0;
    while inside.counter("mesh_waits") == 0 {
        for _ in 0..100 {
            told += 1;
            assert_eq!(
                teller.request_text(TELL, told.to_string()),
                told.to_string()
            );
        }
        assert!(
            told <= 2 * MESH_BATCHES_MAX as u64,
            "the queue does not fill"
        );
    }
    told
}

#[test]
fn a_full_queue_to_a_blocked_shard_refuses_new_work_and_loses_none_that_it_took() {
    let block = Block::default();
    let inside = start(&block, None);
    let [blocked, free] = clients(&inside);
    let [mut member, mut blocker, _] = blocked;
    let [mut teller, mut bystander, mut forwarder] = free;
    assert_eq!(member.request_text(JOIN, "{}"), "\"joined\"");
    for client in [&mut blocker, &mut teller] {
        assert_eq!(client.request_text(FORWARD, "6"), "6");
    }
    let stalls = inside.counter("stalls");
    blocker.request(1, BLOCK, "{}");
    inside.wait_counter("stalls", stalls + 1);
    for id in FORWARDED {
        forwarder.request(id, FORWARD, id.to_string());
    }

    let mut told = fill_queue(&inside, &mut teller);
    // Many pushes fill the batch that stays open.
    let most = (MESH_BATCHES_MAX + MESH_PARCELS_MAX) as u64;
    while inside.counter("mesh_full") == 0 {
        for _ in 0..1000 {
            told += 1;
            teller.notify(TELL, told.to_string());
        }
        assert!(told <= 2 * most, "the batch does not fill");
    }
    for _ in 0..10 {
        // The teller and others of its shard are answered while the other shard takes nothing.
        told += 1;
        assert_eq!(
            teller.request_text(TELL, told.to_string()),
            told.to_string()
        );
        assert_ne!(bystander.request_text(WHERE, "{}"), "");
        assert_eq!(bystander.request_text(FORWARD, "7"), r#"{"code":500}"#);
    }
    let refused = inside.counter("mesh_full");
    // Each is counted, of both kinds.
    let taken = told + 10 - refused;
    assert!(
        refused >= 20 && taken <= most,
        "{taken} taken, {refused} refused"
    );

    block.release();
    assert_eq!(blocker.wait_response(1), br#"{"ok":1}"#);
    for _ in FORWARDED {
        let Message::Response { id, body } = forwarder.next_message() else {
            panic!("nobody pushes to it");
        };
        assert_eq!(body, id.to_string().into_bytes());
    }
    assert_eq!(bystander.request_text(FORWARD, "8"), "8");
    let mut last = 0;
    for _ in 0..taken {
        let (route, number) = member.next_push();
        let number: u64 = serde_json::from_slice(&number).expect("a number");
        assert!(
            route == "onTell" && number > last,
            "{number} came behind {last}"
        );
        last = number;
    }
    assert_eq!(teller.request_text(TELL, "999999999"), "999999999");
    assert_eq!(member.next_push(), ("onTell".into(), b"999999999".to_vec()));
    assert_eq!(inside.counter("mesh_full"), refused);
    inside.stop();
}

#[test]
fn a_full_queue_to_a_blocked_shard_stops_nothing_between_another_shard_and_servers() {
    let (block, listen) = (Block::default(), free_address());
    let inside = start(&block, Some(listen));
    let [free, blocked] = clients(&inside);
    let [mut member, mut blocker, _] = blocked;
    let [mut teller, _, mut forwarder] = free;
    assert_eq!(member.request_text(JOIN, "{}"), "\"joined\"");
    assert_eq!(forwarder.request_text(FORWARD, "6"), "6");
    let mut server = Rpc::connect(listen).expect("the gateway listens for other servers");
    let mut idle = Rpc::connect(listen).expect("the gateway listens for other servers");
    blocker.request(1, BLOCK, "{}");
    let told = fill_queue(&inside, &mut teller);
    for number in 1..=10 {
        let text = number.to_string();
        assert_eq!(forwarder.request_text(FORWARD, text.clone()), text);
        assert!(idle.is_open(), "it has a pong");
        let found = server.call("sessionRemote", "getBackendSessionBySid", &json!([1]));
        assert!(found.expect("an answer").is_array());
    }
    block.release();
    assert_eq!(blocker.wait_response(1), br#"{"ok":1}"#);
    for number in 1..=told {
        let push = ("onTell".into(), number.to_string().into_bytes());
        assert_eq!(member.next_push(), push);
    }
    inside.stop();
}
