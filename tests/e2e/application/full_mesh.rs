//! A full queue from one shard to another, which a handler blocks: new work for that shard is refused and counted,
//! nobody else waits, and everything that was taken arrives once and in order.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use tangelo::handler::{Answer, App, Json, Reply, Router, Session, Sid, State};
use tangelo::limits::{MESH_BATCHES_MAX, MESH_PARCELS_MAX};
use tangelo::{Config, config};

use super::misbehaving::{Block, WHERE, answer_where, ok, on_two_shards};
use crate::harness::client::Client;
use crate::harness::inside::Inside;

const JOIN: &str = "connector.testHandler.join";
const TELL: &str = "connector.testHandler.tell";
const BLOCK: &str = "connector.testHandler.block";

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

fn start(block: &Block) -> Inside {
    let config = Config {
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

/// Two clients of each shard.
fn clients(inside: &Inside) -> [[Client; 2]; 2] {
    let mut sides = on_two_shards(inside);
    while sides.iter().any(|side| side.len() < 2) {
        let more = on_two_shards(inside);
        sides
            .iter_mut()
            .zip(more)
            .for_each(|(side, more)| side.extend(more));
    }
    sides.map(|mut side| {
        side.truncate(2);
        side.try_into().ok().expect("two of each")
    })
}

#[test]
fn a_full_queue_to_a_blocked_shard_refuses_new_work_and_loses_none_that_it_took() {
    let block = Block::default();
    let inside = start(&block);
    let [[mut member, mut blocker], [mut teller, mut bystander]] = clients(&inside);
    assert_eq!(member.request_text(JOIN, "{}"), "\"joined\"");
    let stalls = inside.counter("stalls");
    blocker.request(1, BLOCK, "{}");
    inside.wait_counter("stalls", stalls + 1);

    // One batch for each turn fills the queue, then many pushes fill the batch that stays open.
    let mut told = 0_u64;
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
    }
    let refused = inside.counter("mesh_full");
    let taken = told - refused;
    assert!(
        refused >= 10 && taken <= most,
        "{taken} taken, {refused} refused"
    );

    block.release();
    assert_eq!(blocker.wait_response(1), br#"{"ok":1}"#);
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
