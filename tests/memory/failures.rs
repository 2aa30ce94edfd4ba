//! Log lines about code 500 and refused handshakes.

use super::*;

/// Route and cause in the lines that have a cause, written since the last look.
fn take_failures() -> Vec<(String, String)> {
    let lines = log_lines(" cause=");
    LOG.take();
    let parts = lines.iter().map(|line| {
        let (before, cause) = line.split_once(" cause=").unwrap();
        let route = before
            .split_once(" route=")
            .map_or("\"\"", |(_, route)| route);
        // They are written as Rust writes texts, which is JSON here.
        let [route, cause] = [route, cause].map(|text| serde_json::from_str(text).unwrap());
        (route, cause)
    });
    parts.collect()
}

async fn panics(app: App) -> Value {
    app.sleep(MS).await;
    panic!("boom")
}

fn failing() -> Router {
    Router::new()
        .route("entryHandler.error", async || {
            Err::<(), _>(Failure::new("no such item\nforged line"))
        })
        .route("entryHandler.late", async |app: App| {
            app.sleep(SECOND).await;
            Err::<(), _>(Failure::new("x".repeat(100_000)))
        })
        .route("entryHandler.panic", panics)
        .route("entryHandler.large", async || Json("x".repeat(1 << 24)))
        .route("entryHandler.slow", slow)
        .route("entryHandler.fine", async || Json("fine"))
}

#[test]
fn each_code_500_is_a_line_with_route_and_cause() {
    collect_log();
    for shards in [1, 4] {
        let config = Config {
            client: config::Client {
                calls_in_flight_max: 1,
                ..config::Client::default()
            },
            ..with_chat(Dialect::Pomelo, shards)
        };
        let gateway = Gateway::new(config).handlers(|_| failing());
        let mut gateway = gateway.in_memory().unwrap();
        let mut chat = gateway.server("chat-1");
        let mut client = gateway.connect();
        let line = |route: &str, cause: &str| vec![(route.to_owned(), cause.to_owned())];
        let own = |name: &str| format!("connector.entryHandler.{name}");

        assert_eq!(client.request(&own("fine"), &json!({})), json!("fine"));
        assert_eq!(take_failures(), []);
        for (route, cause) in [
            (own("nothing"), "fail to find handler"),
            (own("error"), "no such item\nforged line"),
            (own("large"), "the response does not fit into a package"),
            ("a.b".into(), "meet unknown route message"),
            ("area.playerHandler.move".into(), "no server of this type"),
        ] {
            assert_eq!(client.request(&route, &json!({})), json!({"code": 500}));
            assert_eq!(take_failures(), line(&route, cause));
        }

        let id = client.ask(&own("panic"), &json!({}));
        gateway.advance(100 * MS);
        assert_eq!(client.answer(id), Some(json!({"code": 500})));
        assert_eq!(take_failures(), line(&own("panic"), "the handler panicked"));
        let id = client.ask(&own("late"), &json!({}));
        gateway.advance(2 * SECOND);
        assert_eq!(client.answer(id), Some(json!({"code": 500})));
        // A cause takes no more of a line than its bound.
        assert_eq!(take_failures(), line(&own("late"), &"x".repeat(1024)));
        let slow = client.ask(&own("slow"), &json!({}));
        client.request(&own("fine"), &json!({}));
        assert_eq!(
            take_failures(),
            line(&own("fine"), "too many messages in flight")
        );
        gateway.advance(6 * SECOND);
        assert_eq!(client.answer(slow), Some(json!({"slow": true})));

        let failed = client.ask(SEND, &json!({}));
        let call = chat.next_call();
        chat.fail(&call, "not in this room");
        assert_eq!(client.answer(failed), Some(json!({"code": 500})));
        assert_eq!(take_failures(), line(SEND, "Error: not in this room"));
        let long = format!("chat.chatHandler.{}", "m".repeat(100));
        let silent = client.ask(&long, &json!({}));
        let _ = chat.next_call();
        gateway.advance(Config::default().rpc.timeout + 100 * MS);
        assert_eq!(client.answer(silent), Some(json!({"code": 500})));
        assert_eq!(
            take_failures(),
            line(&long[..47], "the server did not answer in time")
        );
        let lost = client.ask(SEND, &json!({}));
        let _ = chat.next_call();
        drop(chat);
        assert_eq!(client.answer(lost), Some(json!({"code": 500})));
        assert_eq!(
            take_failures(),
            line(SEND, "the link to the server has ended")
        );
        client.request(SEND, &json!({}));
        assert_eq!(take_failures(), line(SEND, "the server is not reachable"));
    }
}

#[test]
fn a_route_that_only_the_fallback_takes_is_named_as_it_came() {
    collect_log();
    let router = |_| {
        Router::new().fallback(async |app: App| {
            app.sleep(MS).await;
            Err::<(), _>(Failure::new("what?"))
        })
    };
    let mut gateway = Gateway::new(Config::default())
        .handlers(router)
        .in_memory()
        .unwrap();
    let mut client = gateway.connect();
    let id = client.ask("connector.any.thing", &json!({}));
    gateway.advance(100 * MS);
    assert_eq!(client.answer(id), Some(json!({"code": 500})));
    let line = ("connector.any.thing".to_owned(), "what?".to_owned());
    assert_eq!(take_failures(), [line]);
}

#[test]
fn a_refused_handshake_is_a_line_with_its_cause() {
    collect_log();
    let router = |_| Router::new().check_client(|_, version| version == "2");
    let gateway = Gateway::new(Config::default())
        .handlers(router)
        .in_memory()
        .unwrap();
    let mut client = gateway.open(ClientOptions::default());
    assert_eq!(client.shake_hands()["code"], 501);
    let causes: Vec<String> = take_failures()
        .into_iter()
        .map(|(_, cause)| cause)
        .collect();
    assert_eq!(
        causes,
        ["the type or version of the client is not accepted"]
    );
}

#[test]
fn a_panic_is_counted_and_its_line_names_route_and_session() {
    collect_log();
    let mut gateway = Gateway::new(Config::default())
        .handlers(|_| failing())
        .in_memory()
        .unwrap();
    let mut client = gateway.connect();
    LOG.take();
    client.ask("connector.entryHandler.panic", &json!({}));
    gateway.advance(100 * MS);
    let lines = log_lines("a handler panicked");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("name=\"connector.entryHandler.panic\""),
        "{lines:?}"
    );
    assert!(lines[0].contains(" session="), "{lines:?}");
    assert_eq!(gateway.counter("handler_panics"), 1);
    assert_eq!(
        client.request("connector.entryHandler.fine", &json!({})),
        json!("fine")
    );
}
