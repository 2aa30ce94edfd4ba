//! Servers that a test plays.

use super::*;

#[test]
fn servers_of_the_configuration_are_not_there() {
    let gateway = before_chat(Dialect::Pomelo, 1);
    let mut client = gateway.connect();
    assert_eq!(client.request(SEND, &json!({})), json!({"code": 500}));
    assert_eq!(client.request(ECHO, &1), json!(1));
}

#[test]
fn a_server_of_the_test_gets_what_clients_send_and_answers() {
    for (dialect, shards) in [
        (Dialect::Pomelo, 1),
        (Dialect::Pinus, 1),
        (Dialect::Pomelo, 4),
    ] {
        let gateway = before_chat(dialect, shards);
        let mut chat = gateway.server("chat-1");
        let mut clients: Vec<Client> = (0..shards).map(|_| gateway.connect()).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            client.request(LOGIN, &json!({"uid": format!("user {at}")}));
            let id = client.ask(SEND, &json!({"from": at}));
            let call = chat.next_call();
            assert_eq!(call.message(), Some((SEND, &json!({"from": at}))));
            let session = call.session().expect("a message has a session");
            assert_eq!(session["uid"], json!(format!("user {at}")));
            assert_eq!(client.answer(id), None);
            chat.answer(&call, &json!({"sent": at}));
            assert_eq!(client.answer(id), Some(json!({"sent": at})));
        }
        assert!(chat.called().is_none());
    }
}

#[test]
fn a_server_of_the_test_fails_is_silent_and_dies() {
    let mut gateway = before_chat(Dialect::Pomelo, 1);
    let mut chat = gateway.server("chat-1");
    let mut client = gateway.connect();
    let failed = client.ask(SEND, &json!({}));
    let call = chat.next_call();
    chat.fail(&call, "no");
    assert_eq!(client.answer(failed), Some(json!({"code": 500})));

    let silent = client.ask(SEND, &json!({}));
    let late = chat.next_call();
    gateway.advance(Config::default().rpc.timeout - MS);
    assert_eq!(client.answer(silent), None);
    gateway.advance(51 * MS);
    assert_eq!(client.answer(silent), Some(json!({"code": 500})));
    chat.answer(&late, &json!({}));
    assert_eq!(gateway.counter("rpc_late_answers"), 1);
    assert_eq!(
        gateway.counter("rpc_links_down"),
        0,
        "the link was kept alive"
    );

    let lost = client.ask(SEND, &json!({}));
    let _ = chat.next_call();
    drop(chat);
    assert_eq!(client.answer(lost), Some(json!({"code": 500})));
    assert_eq!(client.request(SEND, &json!({})), json!({"code": 500}));

    // Another one takes its place; the gateway dials it when its pause is over.
    let mut chat = gateway.server("chat-1");
    gateway.advance(60 * SECOND);
    let id = client.ask(SEND, &json!({}));
    let call = chat.next_call();
    chat.answer(&call, &json!("back"));
    assert_eq!(client.answer(id), Some(json!("back")));
}

#[test]
fn a_server_of_the_test_gets_the_calls_of_handlers() {
    let gateway = before_chat(Dialect::Pomelo, 2);
    let mut chat = gateway.server("chat-1");
    let mut client = gateway.connect();
    let id = client.ask(ADD, &"mei");
    let call = chat.next_call();
    let names = [&call.namespace, &call.service, &call.method];
    assert_eq!(names, ["user", "chatRemote", "add"]);
    assert_eq!(
        (call.args.clone(), call.message()),
        (vec![json!("mei")], None)
    );
    chat.answer(&call, &json!(["mei", "li"]));
    assert_eq!(client.answer(id), Some(json!(["mei", "li"])));
}

/// Its calls count among the messages of its session, but it was let in before them.
#[test]
fn a_handler_that_has_begun_is_not_refused_for_its_own_call() {
    async fn add(session: Session) -> Reply<Value> {
        let call = session.cluster().call("chat", "chatRemote.add", &[]);
        Ok(call.await?)
    }
    let config = Config {
        client: config::Client {
            calls_in_flight_max: 1,
            ..config::Client::default()
        },
        ..with_chat(Dialect::Pomelo, 1)
    };
    let gateway = Gateway::new(config).handlers(|_| Router::new().route("entryHandler.add", add));
    let gateway = gateway.in_memory().unwrap();
    let mut chat = gateway.server("chat-1");
    let mut client = gateway.connect();
    let id = client.ask(ADD, &json!({}));
    let call = chat.next_call();
    // One more is refused before it begins.
    assert_eq!(client.request(ADD, &json!({})), json!({"code": 500}));
    chat.answer(&call, &json!(7));
    assert_eq!(client.answer(id), Some(json!(7)));
    // Then there is room again.
    let id = client.ask(ADD, &json!({}));
    let call = chat.next_call();
    chat.answer(&call, &json!(8));
    assert_eq!(client.answer(id), Some(json!(8)));
}

/// A gateway before two chat servers that share load.
fn before_two_chats(route: &str) -> InMemory {
    let mut config = with_chat(Dialect::Pomelo, 1);
    let first = config.servers[0].clone();
    config.servers.push(config::Server {
        id: "chat-2".into(),
        port: 2,
        ..first
    });
    config.routes.insert("chat".into(), route.into());
    config.rpc.timeout = 2 * SECOND;
    start(config)
}

const FAILED: fn() -> Value = || json!({"code": 500});

#[test]
fn calls_to_a_server_that_answers_none_fail_at_once_until_a_probe_has_an_answer() {
    collect_log();
    let mut gateway = before_two_chats("fixed:chat-1");
    let mut hung = gateway.server("chat-1");
    let mut client = gateway.connect();
    let asked: Vec<_> = (0..5).map(|n| client.ask(SEND, &json!(n))).collect();
    gateway.advance(2 * SECOND + 50 * MS);
    for id in asked {
        assert_eq!(client.answer(id), Some(FAILED()));
    }
    // Without waiting, and the server gets none of them.
    while hung.called().is_some() {}
    for _ in 0..100 {
        assert_eq!(client.request(SEND, &json!({})), FAILED());
    }
    assert!(hung.called().is_none());
    assert_eq!(gateway.counter("rpc_breakers_open"), 1);
    assert_eq!(gateway.counter("rpc_breaker_failed"), 100);
    assert_eq!(log_lines("until it answers one").len(), 1);
    // One probe after each pause, also when the one before has no answer yet; the others go on failing.
    gateway.advance(SECOND);
    let first = client.ask(SEND, &json!("probe"));
    let _unanswered = hung.next_call();
    assert_eq!(client.request(SEND, &json!({})), FAILED());
    gateway.advance(SECOND);
    let probe = client.ask(SEND, &json!("probe"));
    let call = hung.next_call();
    assert_eq!(client.request(SEND, &json!({})), FAILED());
    gateway.advance(SECOND + 50 * MS);
    assert_eq!(client.answer(first), Some(FAILED()));
    hung.answer(&call, &json!("back"));
    assert_eq!(client.answer(probe), Some(json!("back")));
    let id = client.ask(SEND, &json!({}));
    let call = hung.next_call();
    hung.answer(&call, &json!(1));
    assert_eq!(client.answer(id), Some(json!(1)));
    assert_eq!(gateway.counter("rpc_breakers_open"), 0);
    assert_eq!(gateway.counter("rpc_breakers_opened"), 1);
    assert_eq!(log_lines("answers calls again").len(), 1);
}

#[test]
fn calls_that_share_load_go_to_the_server_that_answers() {
    let mut gateway = before_two_chats("rr");
    let (mut hung, mut there) = (gateway.server("chat-1"), gateway.server("chat-2"));
    let mut client = gateway.connect();
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(client.ask(SEND, &json!(n)));
        if n % 2 == 1 {
            let call = there.next_call();
            there.answer(&call, &json!("there"));
        }
    }
    gateway.advance(2 * SECOND + 50 * MS);
    let failed = ids
        .iter()
        .filter(|id| client.answer(**id) == Some(FAILED()));
    assert_eq!(failed.count(), 5);
    while hung.called().is_some() {}
    for _ in 0..10 {
        let id = client.ask(SEND, &json!({}));
        let call = there.next_call();
        there.answer(&call, &json!("there"));
        assert_eq!(client.answer(id), Some(json!("there")));
    }
    assert!(hung.called().is_none());
    // After the pause one call probes the other server.
    gateway.advance(SECOND);
    for _ in 0..2 {
        client.ask(SEND, &json!({}));
    }
    assert!(hung.called().is_some());
    assert!(hung.called().is_none());
}

#[test]
fn with_the_breaker_off_each_call_waits_for_its_timeout() {
    let mut config = with_chat(Dialect::Pomelo, 1);
    config.rpc.timeout = 2 * SECOND;
    config.rpc.breaker_timeouts = None;
    let mut gateway = start(config);
    let mut hung = gateway.server("chat-1");
    let mut client = gateway.connect();
    for n in 0..20 {
        client.ask(SEND, &json!(n));
    }
    gateway.advance(3 * SECOND);
    let id = client.ask(SEND, &json!({}));
    assert_eq!(client.answer(id), None);
    while hung.called().is_some() {}
    gateway.advance(3 * SECOND);
    assert_eq!(client.answer(id), Some(FAILED()));
    assert_eq!(gateway.counter("rpc_breakers_opened"), 0);
}

/// Clients of a server that answers have their answers in order, whatever the other server does.
#[test]
fn a_hung_server_stops_only_its_own_callers() {
    let mut config = with_chat(Dialect::Pomelo, 2);
    config.servers.push(config::Server {
        id: "area-1".into(),
        server_type: "area".into(),
        host: "area.example".into(),
        port: 2,
        ..config::Server::default()
    });
    config.client.calls_in_flight_max = 10_000;
    let mut gateway = start(config);
    let (hung, mut area) = (gateway.server("chat-1"), gateway.server("area-1"));
    let mut loud: Vec<Client> = (0..4).map(|_| gateway.connect()).collect();
    let mut canaries: Vec<Client> = (0..50).map(|_| gateway.connect()).collect();
    let large = json!({"text": "x".repeat(16 << 10)});
    for round in 0..20 {
        for client in &mut loud {
            for _ in 0..20 {
                client.ask(SEND, &large);
            }
        }
        let ids: Vec<_> = canaries
            .iter_mut()
            .map(|canary| [0, 1].map(|n| canary.ask("area.areaHandler.move", &json!([round, n]))))
            .collect();
        for _ in 0..2 * canaries.len() {
            let call = area.next_call();
            let (_, body) = call.message().expect("a message");
            let body = body.clone();
            area.answer(&call, &body);
        }
        for (canary, ids) in canaries.iter_mut().zip(ids) {
            for (n, id) in ids.into_iter().enumerate() {
                assert_eq!(canary.answer(id), Some(json!([round, n])));
            }
        }
        gateway.advance(SECOND);
    }
    drop(hung);
    assert!(canaries.iter_mut().all(|canary| !canary.is_closed()));
}
