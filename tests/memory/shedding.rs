//! The ledger of memory: each level sheds what its name says, nobody else notices, and it ends when the load leaves.

use super::*;
use tangelo::handler::Handshake;

const MIB: usize = 1 << 20;

/// A gateway whose clients and servers may hold 16 MiB.
fn tight(shards: usize, change: impl FnOnce(&mut Config)) -> InMemory {
    let mut config = on_shards(shards);
    config.limits.memory = Some(16 * MIB);
    config.client.handshake_bytes_max = 4 * MIB;
    config.client.outbox_bytes_max = 16 * MIB;
    change(&mut config);
    start(config)
}

/// Longer than the time between two looks at the ledger.
const LOOK: Duration = Duration::from_millis(200);

/// A connection that has sent `bytes` of a handshake of 4 MiB.
fn half_a_handshake(gateway: &InMemory, bytes: usize) -> Client {
    let mut client = gateway.open(ClientOptions::default());
    client.send_bytes(&[1, 0x40, 0, 0]);
    client.send_bytes(&vec![b'x'; bytes]);
    client
}

fn held(gateway: &InMemory) -> u64 {
    let gauges = ["input", "output", "mesh"];
    let gauges = gauges.map(|gauge| gateway.counter(&format!("memory_{gauge}_bytes")));
    gauges.iter().sum()
}

#[test]
fn part_of_a_package_is_counted_until_its_client_leaves() {
    let mut gateway = tight(2, |_| {});
    let mut client = half_a_handshake(&gateway, MIB);
    gateway.advance(LOOK);
    let held_now = held(&gateway) as usize;
    assert!((MIB..MIB * 16 / 10).contains(&held_now), "{held_now} bytes");
    client.close();
    gateway.advance(5 * SECOND);
    assert_eq!(held(&gateway), 0);
}

#[test]
fn messages_that_wait_for_the_delegate_are_counted() {
    let mut config = with_chat(Dialect::Pomelo, 1);
    config.delegate = Some("chat".into());
    let strategy = "delegate:session".into();
    config.routes.insert("chat".into(), strategy);
    let mut gateway = start(config);
    let _hung = gateway.server("chat-1");
    let mut client = gateway.connect();
    let text = json!("x".repeat(50_000));
    for _ in 0..20 {
        client.ask(SEND, &text);
    }
    gateway.advance(LOOK);
    let counted = gateway.counter("memory_input_bytes");
    assert!((1_000_000..1_100_000).contains(&counted), "{counted} bytes");
    gateway.advance(31 * SECOND);
    assert_eq!(gateway.counter("memory_input_bytes"), 0);
}

#[test]
fn a_handshake_that_is_kept_for_handlers_is_counted_until_its_client_leaves() {
    let gateway = Gateway::new(on_shards(1)).handlers(|_| {
        let first = async |Handshake(message): Handshake| message["user"][0].clone();
        router().route("h.first", first)
    });
    let mut gateway = gateway.in_memory().unwrap();
    let counted = |gateway: &InMemory| gateway.counter("memory_input_bytes") as usize;
    let with_numbers = |count: usize| ClientOptions {
        handshake: Some(json!({"sys": {}, "user": vec![1; count]})),
        ..ClientOptions::default()
    };
    let mut clients: Vec<Client> = [7_900, 100]
        .map(|count| gateway.open(with_numbers(count)))
        .into();
    for client in &mut clients {
        client.shake_hands();
        assert_eq!(client.request("connector.h.first", &json!({})), json!(1));
    }
    gateway.advance(LOOK);
    let least = 8_000 * size_of::<Value>();
    let bytes = counted(&gateway);
    assert!((least..3 * least).contains(&bytes), "{bytes} bytes");
    clients[0].close();
    gateway.advance(5 * SECOND);
    let bytes = counted(&gateway);
    let least = 100 * size_of::<Value>();
    assert!((least..5 * least).contains(&bytes), "{bytes} bytes");
    clients[1].close();
    gateway.advance(5 * SECOND);
    assert_eq!(counted(&gateway), 0);
}

#[test]
fn new_connections_are_refused_at_three_quarters_and_taken_again_later() {
    let mut gateway = tight(2, |_| {});
    let mut canary = gateway.connect();
    let mut strangers = Vec::new();
    while gateway.counter("memory_refuses_new") == 0 {
        strangers.push(half_a_handshake(&gateway, 300_000));
        gateway.advance(LOOK);
        assert!(strangers.len() < 60);
    }
    // The ledger adds an eighth.
    let held_now = held(&gateway) as usize * 9 / 8;
    assert!((12 * MIB..13 * MIB).contains(&held_now), "{held_now} bytes");
    let mut refused = gateway.open(ClientOptions::default());
    assert!(refused.is_closed());
    assert_eq!(gateway.counter("closed_memory"), 1);
    assert_eq!(gateway.counter("memory_closes_unready"), 0);
    assert_eq!(canary.request(ECHO, &json!({"n": 1})), json!({"n": 1}));

    strangers.iter_mut().for_each(Client::close);
    gateway.advance(5 * SECOND);
    let mut taken = gateway.connect();
    assert_eq!(taken.request(ECHO, &json!({"n": 2})), json!({"n": 2}));
    assert_eq!(gateway.counter("closed_memory"), 1);
}

#[test]
fn the_largest_connections_without_a_handshake_go_first() {
    let mut gateway = tight(2, |_| {});
    let mut canaries: Vec<Client> = (0..20).map(|_| gateway.connect()).collect();
    let mut small: Vec<Client> = (0..10)
        .map(|_| half_a_handshake(&gateway, 100_000))
        .collect();
    let mut large: Vec<Client> = (0..5)
        .map(|_| half_a_handshake(&gateway, 3 * MIB))
        .collect();
    gateway.advance(LOOK);
    let closed = |clients: &mut [Client]| {
        let closed = clients
            .iter_mut()
            .filter_map(|client| client.is_closed().then_some(()));
        closed.count()
    };
    assert_eq!(closed(&mut small), 0);
    let closed_large = closed(&mut large);
    assert!((1..5).contains(&closed_large), "{closed_large} of 5");
    assert_eq!(closed(&mut canaries), 0);
    assert_eq!(gateway.counter("memory_closes_unready"), 1);
    assert!(held(&gateway) < 16 * MIB as u64 * 85 / 100);
}

#[test]
fn the_slowest_readers_go_and_the_others_get_each_push_once() {
    // Each of them may have 4 MiB: together they are too much.
    let mut gateway = tight(1, |config| config.client.outbox_bytes_max = 4 * MIB);
    let mut reading = gateway.connect();
    let mut deaf: Vec<Client> = (0..8).map(|_| gateway.connect()).collect();
    let text = "x".repeat(1 << 20);
    // A body of its own for each, because a shared one counts once.
    for round in 0..3 {
        for (n, client) in deaf.iter_mut().enumerate() {
            client.ask(ECHO, &json!({"round": round, "n": n, "text": text}));
        }
        gateway.advance(LOOK);
        let round = json!({ "round": round });
        assert_eq!(reading.request(ECHO, &round), round);
    }
    let closed = gateway.counter("closed_memory");
    assert!((1..8).contains(&closed), "{closed} of 8");
    assert!(gateway.counter("memory_closes_slow") > 0);
    assert_eq!(gateway.counter("closed_outbox_full"), 0);
    assert!(!reading.is_closed());
}

#[test]
fn strangers_who_hold_just_enough_do_not_keep_everybody_out_for_long() {
    let mut gateway = tight(2, |_| {});
    let mut canary = gateway.connect();
    // They are in, so the second level leaves them alone.
    let mut strangers: Vec<Client> = (0..50).map(|_| gateway.connect()).collect();
    for stranger in &mut strangers {
        stranger.send_bytes(&[4, 0x40, 0, 0]);
    }
    while gateway.counter("memory_refuses_new") == 0 {
        for stranger in &mut strangers {
            stranger.send_bytes(&[b'x'; 5_000]);
        }
        gateway.advance(MS * 100);
    }
    assert!(gateway.open(ClientOptions::default()).is_closed());
    let before = gateway.counter("closed_memory");

    gateway.advance(6 * SECOND);
    let mut taken = gateway.connect();
    assert_eq!(taken.request(ECHO, &json!({"n": 1})), json!({"n": 1}));
    let closed = gateway.counter("closed_memory") - before;
    assert!((1..25).contains(&closed), "{closed} of 50");
    assert!(!canary.is_closed());
}

#[test]
fn a_body_for_many_clients_counts_once() {
    let mut gateway = tight(1, |config| config.client.json_bytes_max = None);
    let mut speaker = gateway.connect();
    let deaf: Vec<Client> = (0..40).map(|_| gateway.connect()).collect();
    let text = "x".repeat(1 << 20);
    assert_eq!(
        speaker.request(SAY, &json!({ "text": text })),
        json!({"code": 200})
    );
    gateway.advance(LOOK);
    assert_eq!(gateway.counter("pushes"), 41);
    assert_eq!(gateway.counter("memory_refuses_new"), 0);
    drop(deaf);
}

#[test]
fn at_the_highest_level_messages_get_code_500_and_heartbeats_their_answer() {
    let mut gateway = tight(1, |config| config.client.heartbeat = Some(60 * SECOND));
    let mut patient: Vec<Client> = (0..6).map(|_| gateway.connect()).collect();
    let mut canary = gateway.connect();
    // Too small to be closed for it. The handler takes 5 s, and the body is there as long.
    let text = json!("x".repeat(3000));
    for _ in 0..1000 {
        for client in &mut patient {
            client.notify(SLOW, &text);
        }
    }
    gateway.advance(LOOK);
    let before = gateway.counter("memory_messages_refused");
    let refused = canary.request(ECHO, &json!({"n": 1}));
    assert_eq!(refused, json!({"code": 500}));
    assert_eq!(gateway.counter("memory_messages_refused"), before + 1);
    let beats = canary.heartbeats();
    canary.heartbeat();
    assert!(canary.heartbeats() > beats);
    assert!(gateway.counter("memory_heartbeats_only") > 0);

    gateway.advance(6 * SECOND);
    assert_eq!(canary.request(ECHO, &json!({"n": 2})), json!({"n": 2}));
    assert_eq!(gateway.counter("closed_memory"), 0, "nobody held much");
}
