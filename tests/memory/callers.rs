//! Connections that other servers open: who may call, and when the gateway closes one.

use std::net::IpAddr;

use tangelo::handler::{RemoteCall, ShardId, Sid};
use tangelo::memory::CallingServer;
use tangelo::wire::pomelo::mqtt::{self, DISCONNECT, PINGREQ, PINGRESP};

use super::*;

const KNOWN: &str = "10.0.0.5";

/// A gateway that knows one server; another address of it may call too.
fn gateway(change: impl FnOnce(&mut config::Rpc)) -> InMemory {
    let mut config = with_chat(Dialect::Pomelo, 2);
    config.servers[0].host = KNOWN.into();
    config.rpc.allow = vec!["cluster".into(), "192.0.2.0/24".into()];
    change(&mut config.rpc);
    start(config)
}

fn caller(gateway: &InMemory, address: &str) -> CallingServer {
    gateway.caller(address.parse::<IpAddr>().unwrap())
}

fn publish(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    mqtt::write_publish(&mut bytes, |out| out.extend_from_slice(payload));
    bytes
}

fn call() -> Vec<u8> {
    let mut bytes = Vec::new();
    mqtt::write_connect(&mut bytes, "MQTT_RPC_1");
    mqtt::write_publish(&mut bytes, |out| {
        out.extend_from_slice(
            br#"{"id":1,"msg":{"namespace":"sys","service":"sessionRemote","method":"getBackendSessionBySid","args":[1]}}"#,
        );
    });
    bytes
}

/// Shows that a caller is served.
#[track_caller]
fn assert_served(caller: &mut CallingServer) {
    caller.send(&call());
    let bytes = caller.take_bytes();
    assert!(bytes.ends_with(br#"{"id":1,"resp":[]}"#), "{bytes:02x?}");
}

/// Shows that a caller hears of the close, which a genuine one would not notice otherwise.
#[track_caller]
fn assert_closed(caller: &mut CallingServer) {
    assert_eq!(caller.take_bytes(), DISCONNECT);
    assert!(caller.is_closed());
}

#[test]
fn a_server_behind_nat_may_call_from_a_network_of_rpc_allow() {
    let gateway = gateway(|_| {});
    for address in [KNOWN, "192.0.2.77", "::ffff:192.0.2.78"] {
        assert_served(&mut caller(&gateway, address));
    }
    assert_eq!(gateway.counter("peers_accepted"), 3);
}

#[test]
fn each_refused_address_is_one_warning_with_the_line_to_add() {
    collect_log();
    let gateway = gateway(|_| {});
    for address in ["198.51.100.1", "198.51.100.2", "198.51.100.1"] {
        assert_closed(&mut caller(&gateway, address));
    }
    assert_eq!(gateway.counter("peers_refused"), 3);
    for (address, lines) in [("198.51.100.1", 1), ("198.51.100.2", 1)] {
        let line = format!(r#"allow = ["cluster", "192.0.2.0/24", "{address}"]"#);
        assert_eq!(log_lines(&line).len(), lines, "{line}");
    }
}

#[test]
fn a_connection_without_a_packet_ends_after_its_time_and_a_slow_first_packet_does_not_prolong_it() {
    let mut gateway = gateway(|_| {});
    let mut silent = caller(&gateway, KNOWN);
    let mut slow = caller(&gateway, KNOWN);
    for byte in &call()[..9] {
        slow.send(&[*byte]);
        gateway.advance(SECOND);
    }
    assert!(!silent.is_closed());
    gateway.advance(SECOND + 50 * MS);
    assert_closed(&mut silent);
    assert_closed(&mut slow);
    assert_eq!(gateway.counter("peers_silent"), 2);
    assert_served(&mut caller(&gateway, KNOWN));
}

#[test]
fn a_connection_that_is_silent_ends_and_one_that_pings_stays() {
    let mut gateway = gateway(|_| {});
    let mut gone = caller(&gateway, KNOWN);
    let mut there = caller(&gateway, KNOWN);
    assert_served(&mut gone);
    assert_served(&mut there);
    for _ in 0..6 {
        gateway.advance(10 * SECOND);
        there.send(&PINGREQ);
        assert_eq!(there.take_bytes(), PINGRESP);
    }
    gateway.advance(100 * MS);
    assert_closed(&mut gone);
    assert_eq!(gateway.counter("peers_idle"), 1);
    assert_served(&mut there);
}

/// A gateway with four places for callers, which has just closed an idle one.
fn with_a_closed_caller() -> (InMemory, CallingServer) {
    let mut gateway = gateway(|rpc| rpc.max_connections = Some(4));
    let mut idle = caller(&gateway, KNOWN);
    assert_served(&mut idle);
    gateway.advance(60 * SECOND + 100 * MS);
    assert_closed(&mut idle);
    (gateway, idle)
}

/// Returns whether the caller's connection has one of the places.
fn has_place(gateway: &InMemory) -> bool {
    let mut others = [(); 4].map(|()| caller(gateway, KNOWN));
    others[3].take_bytes() == DISCONNECT
}

#[test]
fn a_call_that_crosses_the_disconnect_is_read_and_dropped_until_its_caller_ends() {
    let (gateway, mut busy) = with_a_closed_caller();
    busy.send(&call());
    assert_eq!(busy.take_bytes(), b"");
    assert!(has_place(&gateway));
    drop(busy);
    assert!(!has_place(&gateway));
    assert_eq!(gateway.counter("peers_late_bytes"), call().len() as u64);
    assert_eq!(gateway.counter("peer_calls"), 1);
}

#[test]
fn after_the_disconnect_a_caller_keeps_its_place_for_5_s_and_64_kib() {
    let (mut gateway, mut stays) = with_a_closed_caller();
    for _ in 0..4 {
        gateway.advance(SECOND);
        stays.send(&[0; 1024]);
        assert!(has_place(&gateway));
    }
    gateway.advance(SECOND);
    assert!(!has_place(&gateway));
    assert_eq!(gateway.counter("peers_late_bytes"), 4 << 10);

    let (gateway, mut floods) = with_a_closed_caller();
    floods.send(&[0; 64 << 10]);
    assert!(has_place(&gateway));
    floods.send(&[0]);
    assert!(!has_place(&gateway));
}

#[test]
fn six_pings_may_be_missing_however_short_the_idle_timeout_is() {
    let mut gateway = gateway(|rpc| {
        rpc.idle_timeout = Some(SECOND);
        rpc.keepalive = 20 * SECOND;
    });
    let mut peer = caller(&gateway, KNOWN);
    assert_served(&mut peer);
    gateway.advance(119 * SECOND);
    assert!(!peer.is_closed());
    gateway.advance(SECOND + 100 * MS);
    assert_closed(&mut peer);
}

#[test]
fn nobody_is_cut_for_a_pause_of_the_gateway() {
    let mut gateway = gateway(|_| {});
    let mut first = caller(&gateway, KNOWN);
    let mut served = caller(&gateway, KNOWN);
    assert_served(&mut served);
    gateway.advance(9 * SECOND);
    gateway.pause();
    gateway.advance(600 * SECOND);
    gateway.resume();
    gateway.advance(SECOND);
    assert_served(&mut first);
    assert_served(&mut served);
}

#[test]
fn both_limits_can_be_off() {
    let mut gateway = gateway(|rpc| {
        rpc.first_frame_timeout = None;
        rpc.idle_timeout = None;
    });
    let mut silent = caller(&gateway, KNOWN);
    gateway.advance(600 * SECOND);
    assert_served(&mut silent);
    gateway.advance(600 * SECOND);
    assert_served(&mut silent);
}

#[test]
fn one_connection_too_many_is_closed_and_a_place_is_given_back() {
    let gateway = gateway(|rpc| rpc.max_connections = Some(4));
    let mut peers: Vec<CallingServer> = (0..4).map(|_| caller(&gateway, KNOWN)).collect();
    assert_closed(&mut caller(&gateway, KNOWN));
    assert_eq!(gateway.counter("peers_too_many"), 1);
    peers.iter_mut().for_each(assert_served);
    peers.pop();
    assert_served(&mut caller(&gateway, KNOWN));
    // Clients have places of their own.
    let mut client = gateway.connect();
    assert_eq!(client.request(ECHO, &json!(1)), json!(1));
}

/// A gateway with a remote whose answers are 300 KiB. The queue of a caller takes a MiB, its socket 256 KiB.
fn with_large_answers() -> InMemory {
    let mut config = with_chat(Dialect::Pomelo, 1);
    config.rpc.allow = vec!["any".into()];
    config.rpc.queue_bytes_max = 1 << 20;
    async fn large(_: RemoteCall) -> Value {
        json!("x".repeat(300 << 10))
    }
    let gateway = Gateway::new(config);
    let gateway = gateway.handlers(|_| router().remote("infoRemote.large", large));
    gateway.in_memory().unwrap()
}

const ASK_LARGE: &str =
    r#"{"id":1,"msg":{"namespace":"user","service":"infoRemote","method":"large","args":[]}}"#;

#[test]
fn a_caller_that_takes_no_answers_holds_no_more_than_its_queue() {
    let gateway = with_large_answers();
    let mut stuck = caller(&gateway, KNOWN);
    let mut other = caller(&gateway, KNOWN);
    let ask = publish(ASK_LARGE.as_bytes());
    for _ in 0..4 {
        stuck.send(&ask);
    }
    assert_served(&mut other);
    assert_eq!(gateway.counter("peers_stuck"), 0);
    stuck.send(&ask);
    assert_served(&mut other);
    assert_eq!(gateway.counter("peers_stuck"), 1);
    let _ = stuck.take_bytes();
    assert!(stuck.is_closed());
}

#[test]
fn a_caller_that_reads_gets_answers_of_one_turn_that_exceed_its_queue() {
    let gateway = with_large_answers();
    let mut reads = caller(&gateway, KNOWN);
    reads.send(&publish(
        format!("[{}]", [ASK_LARGE; 4].join(",")).as_bytes(),
    ));
    let mut got = 0;
    loop {
        match reads.take_bytes().len() {
            0 => break,
            bytes => got += bytes,
        }
    }
    assert!(got > 4 * (300 << 10), "{got} bytes");
    assert_eq!(gateway.counter("peers_stuck"), 0);
    assert_served(&mut reads);
}

/// The session is of another shard, so the answer comes when its caller has gone.
#[test]
fn an_answer_to_a_caller_that_has_gone_holds_no_memory() {
    let mut gateway = gateway(|_| {});
    let mut client = gateway.connect_with(on_shard(0));
    let text = json!("x".repeat(20_000));
    let sid = Sid::new(ShardId(1), 0, 1).get();
    let ask = format!(
        r#"{{"id":1,"msg":{{"namespace":"sys","service":"sessionRemote","method":"getBackendSessionBySid","args":[{sid}]}}}}"#
    );
    let ask_and_leave = [&publish(ask.as_bytes())[..], &DISCONNECT].concat();
    let mut held = Vec::new();
    for _ in 0..10 {
        // Its queue is the next one that is used.
        assert_eq!(client.request(ECHO, &text), text);
        caller(&gateway, KNOWN).send(&ask_and_leave);
        gateway.advance(100 * MS);
        held.push(gateway.counter("memory_output_bytes"));
    }
    assert_eq!(gateway.counter("peer_calls"), 10);
    assert!(held.iter().all(|now| now == &held[0]), "{held:?}");
}

#[test]
fn a_server_that_is_listed_by_name_is_served_beside_strangers() {
    let mut config = with_chat(Dialect::Pomelo, 2);
    config.servers[0].host = "localhost".into();
    config.rpc.allow = vec!["cluster".into()];
    // A quarter of them is for callers that are not known yet.
    config.rpc.max_connections = Some(4);
    let mut gateway = start(config);
    let mut stranger = caller(&gateway, "198.51.100.1");
    for _ in 0..3 {
        assert_served(&mut caller(&gateway, "127.0.0.1"));
        gateway.advance(30 * SECOND);
    }
    // Nobody changes the list, so it does not wait.
    assert_closed(&mut stranger);
    let counts = ["peers_accepted", "peers_refused"].map(|name| gateway.counter(name));
    assert_eq!(counts, [3, 1]);
}
