//! Sessions that end while they are being bound, from both sides, over four shards.

use std::io::Write as _;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tangelo::Config;
use tangelo::config::{self, DuplicateLogin};
use tangelo::handler::{Answer, Outcome, Request, Router};
use tangelo::session::Uid;

use crate::harness::client::{Client, DATA, Route, encode_message, encode_package};
use crate::harness::frames::{ack, handshake};
use crate::harness::free_address;
use crate::harness::inside::Inside;
use crate::harness::process::POLL_INTERVAL;
use crate::harness::rpc::Rpc;

const ENTER: &str = "connector.raceHandler.enter";
/// The same, and no backend hears of it.
const BIND: &str = "connector.raceHandler.bind";
/// Clients that come and go, for each policy.
const CLIENTS: usize = 70_000;
const THREADS: usize = 4;
/// So few that a uid is wanted by several sessions at a time.
const UIDS: usize = 500;
/// Calls of the backend in one frame, at most.
const CALLS: usize = 1_000;

/// Binds the session, then answers.
fn bind<'a>(request: &Request<'a>) -> Answer<'a> {
    let (mut session, uid) = (request.session.clone(), request.message()["uid"].clone());
    let uid = Uid::from_json(&uid).expect("the test sends a text");
    Answer::later(async move {
        let bound = session.bind(uid).await;
        Outcome::value(&json!({"bound": bound.is_ok()}))
    })
}

fn router(sids: &Sender<(u64, String)>) -> Router {
    let sids = sids.clone();
    Router::new()
        .raw_route(ENTER, move |request| {
            let uid = request.message()["uid"].as_str().map(str::to_owned);
            let uid = uid.expect("the test sends a text");
            let _ = sids.send((request.session.id().get(), uid));
            bind(request)
        })
        .raw_route(BIND, bind)
}

/// A backend that binds, looks up, unbinds and kicks whoever it hears of, until nobody can come.
fn interfere(mut rpc: Rpc, sids: &Receiver<(u64, String)>, answered: &AtomicU64) {
    let mut calls = 0;
    while let Ok(first) = sids.recv() {
        let more = sids.try_iter().take(CALLS - 1);
        let requests: Vec<Value> = std::iter::once(first)
            .chain(more)
            .map(|(sid, uid)| {
                let id = calls;
                calls += 1;
                let (method, args) = match id % 8 {
                    0..5 => ("bind", json!([sid, uid])),
                    5 => ("unbind", json!([sid, uid])),
                    6 => ("kickByUid", json!([uid, "race"])),
                    _ => ("getBackendSessionsByUid", json!([uid])),
                };
                Rpc::request(id, "sessionRemote", method, &args)
            })
            .collect();
        let frame = Rpc::frame(Value::from(requests.clone()).to_string().as_bytes());
        rpc.send_raw(&frame).expect("the gateway reads");
        for _ in &requests {
            rpc.next_answer().expect("no error").expect("an answer");
        }
        answered.store(calls, Ordering::Relaxed);
    }
}

/// Comes, wants to be bound, and is gone before anybody can tell.
fn come_and_go(address: SocketAddr, number: usize) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    // One address has ports for fewer clients than there are.
    let source = Ipv4Addr::new(127, 0, 1, (1 + number % 8) as u8);
    let bound = socket.bind(&SocketAddr::from((source, 0)).into());
    bound.expect("the loopback has many addresses");
    socket
        .connect(&address.into())
        .expect("the gateway accepts");
    let body = json!({"uid": format!("u{}", number % UIDS)}).to_string();
    let enter = encode_message(Some(1), Route::Name(ENTER), body.as_bytes());
    let bytes = [handshake(), ack(), encode_package(DATA, &enter)].concat();
    (&socket)
        .write_all(&bytes)
        .expect("a fresh socket has room");
    let _ = socket.shutdown(Shutdown::Write);
}

#[test]
fn sessions_that_end_while_they_are_bound_leave_nothing_behind() {
    for duplicate_login in [DuplicateLogin::Allow, DuplicateLogin::Refuse] {
        let rpc_address = free_address();
        let (tell, sids) = channel();
        let mut config = Config::default();
        config.session.duplicate_login = duplicate_login;
        config.rpc = config::Rpc {
            listen: Some(rpc_address),
            ..config.rpc
        };
        let handlers = std::sync::Mutex::new(tell);
        let inside = Inside::start(4, config, move || router(&handlers.lock().unwrap()));
        let address = inside.address();

        let rpc = Rpc::connect(rpc_address).expect("the gateway listens for other servers");
        let answered = Arc::new(AtomicU64::new(0));
        let backend = {
            let answered = answered.clone();
            thread::spawn(move || interfere(rpc, &sids, &answered))
        };
        let players: Vec<_> = (0..THREADS)
            .map(|thread| {
                thread::spawn(move || {
                    let mine = (thread..CLIENTS).step_by(THREADS);
                    mine.for_each(|number| come_and_go(address, number));
                })
            })
            .collect();
        for player in players {
            player.join().expect("all clients came and went");
        }
        inside.wait_counter("connections_accepted", CLIENTS as u64);
        inside.wait_gauge("connections", 0);
        let counters = inside.counters();
        println!("{duplicate_login:?}: {counters:?}");
        let raced = counters["responses_dropped"];
        assert!(raced >= CLIENTS as u64 / 4, "only {raced} races");
        let of_kind = |kind: &&str| counters.get(*kind).copied();
        let messages: u64 = ["requests", "notifies"].iter().filter_map(of_kind).sum();
        while answered.load(Ordering::Relaxed) < messages {
            assert!(!backend.is_finished(), "the call was not answered");
            thread::sleep(POLL_INTERVAL);
        }
        inside.wait_gauge("sessions_bound", 0);

        // Nobody is in the index, and every uid is free.
        let mut asking = Rpc::connect(rpc_address).expect("the gateway listens for other servers");
        for uid in (0..UIDS).map(|number| format!("u{number}")) {
            let found = asking.call("sessionRemote", "getBackendSessionsByUid", &json!([uid]));
            assert_eq!(found.expect("an answer"), json!([]), "{uid}");
        }
        for number in 0..UIDS {
            let uid = format!("u{number}");
            let mut client = Client::tcp(address).open();
            let body = json!({"uid": uid}).to_string();
            assert_eq!(
                client.request_text(BIND, &body),
                r#"{"bound":true}"#,
                "{uid}"
            );
        }
        inside.wait_gauge("sessions_bound", 0);
        inside.stop();
        backend.join().expect("all calls were answered");
    }
}
