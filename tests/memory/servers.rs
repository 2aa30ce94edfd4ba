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
