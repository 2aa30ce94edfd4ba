//! Clients of a gateway in memory: logins, pushes, codes, bytes and limits.

use super::*;

#[test]
fn a_client_logs_in_asks_is_told_and_is_kicked() {
    let gateway = start(Config::default());
    let mut client = gateway.connect();
    assert_eq!(
        client.request(LOGIN, &json!({"uid": "mei"})),
        json!({"code": 200})
    );
    assert_eq!(gateway.counter("sessions_bound"), 1);
    assert_eq!(client.request(ECHO, &[1, 2]), json!([1, 2]));
    client.notify(SAY, &json!({"text": "hello"}));
    assert_eq!(client.pushed(), said("hello"));
    assert_eq!(client.pushed(), None);
    assert_eq!((client.kicked(), client.is_closed()), (None, false));
    client.notify(LEAVE, &json!({}));
    assert_eq!(client.kicked().as_deref(), Some("you asked for it"));
    assert!(client.is_closed());
    assert_eq!(gateway.counter("closed_kicked"), 1);
    assert_eq!(gateway.counter("sessions_bound"), 0);
    gateway.stop().unwrap();
}

#[test]
fn a_client_without_heartbeats_is_closed_in_time_and_not_a_moment_before() {
    let mut gateway = start(Config {
        client: config::Client {
            heartbeat: Some(3 * SECOND),
            ..config::Client::default()
        },
        ..Config::default()
    });
    let [mut silent, mut alive] = [(); 2].map(|()| gateway.connect());
    assert_eq!((silent.heartbeats(), alive.heartbeats()), (1, 1));
    gateway.advance(5 * SECOND);
    alive.heartbeat();
    assert_eq!(alive.heartbeats(), 2);
    gateway.advance(SECOND - MS);
    assert!(!silent.is_closed());
    // The wheel looks each 50 ms.
    gateway.advance(MS + 50 * MS);
    assert_eq!((silent.is_closed(), alive.is_closed()), (true, false));
    assert_eq!(gateway.counter("closed_heartbeat_timeout"), 1);
    assert_eq!(gateway.elapsed(), 6 * SECOND + 50 * MS);
}

#[test]
fn a_buffer_scheduler_holds_pushes_until_its_interval_is_over() {
    let mut gateway = start(Config {
        push: config::Push {
            scheduler: Scheduler::Buffer,
            flush_interval: 200 * MS,
            ..config::Push::default()
        },
        ..Config::default()
    });
    let mut client = gateway.connect();
    client.notify(SAY, &json!({"text": "one"}));
    gateway.advance(150 * MS);
    client.notify(SAY, &json!({"text": "two"}));
    gateway.advance(49 * MS);
    assert_eq!(client.pushed(), None);
    gateway.advance(MS);
    assert_eq!(
        [client.pushed(), client.pushed()],
        [said("one"), said("two")]
    );
}

#[test]
fn shards_tell_each_other_who_is_bound_and_what_is_said() {
    let gateway = start(Config {
        session: config::Session {
            duplicate_login: DuplicateLogin::NewestWins,
            ..config::Session::default()
        },
        ..on_shards(4)
    });
    let mut clients: Vec<Client> = (0..4)
        .map(|at| gateway.connect_with(on_shard(at)))
        .collect();
    for (at, client) in clients.iter_mut().enumerate().skip(1) {
        let uid = format!("user {at}");
        assert_eq!(
            client.request(LOGIN, &json!({"uid": uid})),
            json!({"code": 200})
        );
    }
    assert_eq!(gateway.counter("sessions_bound"), 3);
    // A client of shard 3 is known on shard 1 too.
    let mut again = gateway.connect_with(on_shard(1));
    again.request(LOGIN, &json!({"uid": "user 3"}));
    assert_eq!(clients[3].kicked().as_deref(), Some("kick"));
    assert!(clients[3].is_closed() && !clients[1].is_closed());
    assert_eq!(gateway.counter("closed_duplicate_login"), 1);
    assert_eq!(gateway.counter("sessions_bound"), 3);

    clients[0].request(SAY, &json!({"text": "to all"}));
    again.request(SAY, &json!({"text": "to those with a name", "bound": true}));
    let named = [said("to all"), said("to those with a name")];
    for client in [&mut clients[1], &mut again] {
        assert_eq!([client.pushed(), client.pushed()], named);
    }
    assert_eq!(
        [clients[0].pushed(), clients[0].pushed()],
        [said("to all"), None]
    );
    assert!(
        gateway.counter("mesh_parcels") > 0,
        "{}",
        gateway.counters()
    );
}

#[test]
fn a_handler_that_waits_by_the_clock_answers_when_it_has_moved() {
    let mut gateway = start(Config::default());
    let mut client = gateway.connect();
    let id = client.ask(SLOW, &json!({}));
    assert_eq!(
        client.request(ECHO, &1),
        json!(1),
        "the shard does not wait"
    );
    gateway.advance(5 * SECOND - MS);
    assert_eq!(client.answer(id), None);
    gateway.advance(MS);
    assert_eq!(client.answer(id), Some(json!({"slow": true})));
    assert_eq!(client.answer(id), None, "the answer was already taken");
}

#[test]
fn a_request_waits_for_what_another_thread_does() {
    let gateway = start(Config::default());
    let answer = gateway.connect().request(AWAY, &json!({}));
    assert_eq!(answer, json!({"from": "afar"}));
    assert_eq!(gateway.elapsed(), Duration::ZERO);
}

#[test]
fn the_same_test_sees_the_same_bytes() {
    let run = || {
        let mut gateway = start(Config {
            client: config::Client {
                heartbeat: Some(SECOND),
                timeout: Some(2 * SECOND),
                ..config::Client::default()
            },
            ..on_shards(3)
        });
        let mut clients: Vec<Client> = (0..20).map(|_| gateway.connect()).collect();
        let mut transcript = Vec::new();
        for round in 0..10_usize {
            for (at, client) in clients.iter_mut().enumerate() {
                match (at + round) % 7 {
                    0 => client.notify(SAY, &json!({"text": [at, round]})),
                    1 => drop(client.ask(LOGIN, &json!({"uid": format!("user {}", at % 5)}))),
                    2 => client.heartbeat(),
                    3 => drop(client.ask(SLOW, &json!({}))),
                    _ => {}
                }
            }
            gateway.advance(Duration::from_millis(333));
            transcript.extend(clients.iter_mut().map(Client::take_bytes));
        }
        (transcript, gateway.counters())
    };
    let (first, second) = (run(), run());
    assert!(
        first.1.contains("closed_"),
        "somebody was closed: {}",
        first.1
    );
    assert_eq!(first.1, second.1);
    assert!(first.0 == second.0, "the transcripts differ");
}

#[test]
fn a_thousand_clients_hear_each_other() {
    let gateway = start(on_shards(4));
    let mut clients: Vec<Client> = (0..1000).map(|_| gateway.connect()).collect();
    assert_eq!(gateway.counter("connections"), 1000);
    clients[999].notify(SAY, &json!({"text": "hello"}));
    for client in &mut clients {
        assert_eq!(client.pushed(), said("hello"));
        assert_eq!(client.pushed(), None);
    }
    drop(clients);
    let mut last = gateway.connect();
    assert_eq!(last.request(ECHO, &json!("alone")), json!("alone"));
    assert_eq!(gateway.counter("connections"), 1);
}

#[test]
fn codes_of_the_dictionary_stand_for_routes_in_both_directions() {
    let gateway = start(Config {
        client: config::Client {
            use_dict: true,
            ..config::Client::default()
        },
        dictionary: vec!["onSay".into()],
        ..Config::default()
    });
    let mut client = gateway.open(ClientOptions::default());
    let dict = &client.shake_hands()["sys"]["dict"];
    assert!(dict["onSay"].is_u64() && dict[ECHO].is_u64(), "{dict}");
    client.notify(SAY, &json!({"text": "short"}));
    assert_eq!(client.pushed(), said("short"));
    client.notify(SAY, &json!({"text": "short"}));
    let bytes = client.take_bytes();
    assert!(
        !bytes.windows(5).any(|five| five == b"onSay"),
        "{}",
        bytes.escape_ascii()
    );
}

#[test]
fn bodies_with_a_proto_are_protobuf_in_both_directions() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, protos: Value| {
        let path = folder.path().join(name);
        std::fs::write(&path, protos.to_string()).unwrap();
        Some(path)
    };
    let message = json!({"required string text": 1, "optional uInt32 size": 2});
    let config = Config {
        client: config::Client {
            use_protobuf: true,
            client_protos: file("client.json", json!({ECHO: message, SAY: message})),
            server_protos: file("server.json", json!({ECHO: message, "onSay": message})),
            ..config::Client::default()
        },
        ..Config::default()
    };
    let gateway = start(config);
    let mut client = gateway.connect();
    let body = json!({"text": "hi", "size": 300});
    assert_eq!(client.request(ECHO, &body), body);
    client.notify(SAY, &json!({"text": "hello"}));
    assert_eq!(client.pushed(), said("hello"));
    client.notify(SAY, &json!({"text": "hello"}));
    assert!(!client.take_bytes().contains(&b'{'), "no JSON on the wire");
}

#[test]
fn a_handshake_that_is_refused_is_for_the_test_to_see() {
    let gateway = start(Config {
        client: config::Client {
            accept: vec!["!old-client".into()],
            blacklist: vec!["^10[.]".into()],
            ..config::Client::default()
        },
        ..Config::default()
    });
    let sys = json!({"sys": {"type": "old-client", "version": "1"}});
    let mut refused = gateway.open(ClientOptions {
        handshake: Some(sys),
        ..ClientOptions::default()
    });
    assert_eq!(refused.shake_hands(), json!({"code": 501}));
    assert!(refused.is_closed());
    let mut listed = gateway.open(ClientOptions {
        address: Some(SocketAddr::from(([10, 0, 0, 9], 4000))),
        ..ClientOptions::default()
    });
    assert!(listed.is_closed());
    assert_eq!(gateway.counter("closed_blacklisted"), 1);
}

#[test]
fn bytes_go_in_and_out_as_they_are() {
    let gateway = start(Config::default());
    let mut client = gateway.open(ClientOptions::default());
    client.send_bytes(b"GET / HTTP/1.1\r\n\r\n");
    let answer = client.take_bytes();
    assert!(
        answer.starts_with(b"HTTP/1.1 426"),
        "{}",
        answer.escape_ascii()
    );
    assert!(client.is_closed());
    let mut client = gateway.connect();
    client.send_bytes(&[9, 0, 0, 0]);
    assert!(client.is_closed());
}

#[test]
fn a_client_that_does_not_read_is_closed_at_its_bound() {
    let gateway = start(Config {
        client: config::Client {
            outbox_bytes_max: 64 << 10,
            ..config::Client::default()
        },
        ..Config::default()
    });
    let (mut deaf, mut loud) = (gateway.connect(), gateway.connect());
    let text = "x".repeat(10 << 10);
    let mut told = 0;
    while gateway.counter("closed_outbox_full") == 0 && told < 100 {
        loud.request(SAY, &json!({"text": text}));
        told += 1;
    }
    // Pushes in flight, and those that wait.
    assert!((25..=40).contains(&told), "{told}");
    assert!(deaf.is_closed() && !loud.is_closed());
}

#[test]
fn a_late_read_has_all_bytes() {
    let gateway = start(Config::default());
    let (mut late, mut loud) = (gateway.connect(), gateway.connect());
    let text = "x".repeat(10 << 10);
    for at in 0..60 {
        loud.request(SAY, &json!({"text": format!("{at} {text}")}));
    }
    assert!(
        gateway.counter("flushes_blocked") > 0,
        "the socket took all bytes at once"
    );
    for at in 0..60 {
        assert_eq!(late.pushed(), said(&format!("{at} {text}")));
    }
    assert_eq!(late.pushed(), None);
}
