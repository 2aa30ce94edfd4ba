//! The start, the time and the stop of a gateway in memory, and the panics that show a wrong test.

use super::*;

#[test]
fn crons_come_on_their_hour_and_tasks_go_on_until_the_stop() {
    const MINUTE: Duration = Duration::from_secs(60);
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let of_handlers = log.clone();
    let gateway = Gateway::new(on_shards(4)).handlers(move |shard| {
        let write = |what: &'static str| {
            let log = of_handlers.clone();
            move || log.lock().unwrap().push(format!("{what} {}", shard.0))
        };
        let (start, hourly, often, end, last) = (
            write("start"),
            write("hourly"),
            write("often"),
            write("end"),
            write("last"),
        );
        Router::new()
            .on_start(async move |_| {
                start();
                Ok(())
            })
            .cron_at("0 0 * * * *", "hourly", async move |_| hourly())
            .task("often", async move |app: App, stop: Stop| {
                while stop.or(app.sleep(10 * MINUTE)).await.is_some() {
                    often();
                }
                end();
            })
            .before_stop(async move |_| last())
    });
    let mut gateway = gateway.in_memory().unwrap();
    let times = |what: &str| {
        let log = log.lock().unwrap();
        [0, 1, 2, 3].map(|shard| {
            let line = format!("{what} {shard}");
            log.iter().filter(|known| **known == line).count()
        })
    };
    assert_eq!(times("start"), [1; 4]);
    gateway.advance(180 * MINUTE);
    // Once in the process, whatever the minute at the start.
    assert_eq!(times("hourly"), [3, 0, 0, 0]);
    // Each sleep is up to one tick longer.
    assert!(times("often").iter().all(|count| [17, 18].contains(count)));
    assert_eq!((times("end"), times("last")), ([0; 4], [0; 4]));
    gateway.stop().unwrap();
    assert_eq!((times("end"), times("last")), ([1; 4], [1; 4]));
}

#[test]
fn the_stop_closes_clients_and_ends_shards() {
    let closed = Arc::new(Mutex::new(Vec::new()));
    let told = closed.clone();
    let gateway = Gateway::new(on_shards(2)).handlers(move |shard| {
        let told = told.clone();
        router().on_close(move |_| told.lock().unwrap().push(shard.0))
    });
    let gateway = gateway.in_memory().unwrap();
    let mut clients = [(); 2].map(|()| gateway.connect());
    gateway.stop().unwrap();
    assert!(clients.iter_mut().all(Client::is_closed));
    let mut closed = closed.lock().unwrap().clone();
    closed.sort_unstable();
    assert_eq!(closed, [0, 1]);
}

#[test]
fn many_gateways_come_and_go_on_one_thread() {
    let kept = start(on_shards(2));
    for _ in 0..30 {
        let gateway = start(on_shards(2));
        assert_eq!(gateway.connect().request(ECHO, &1), json!(1));
    }
    assert_eq!(kept.connect().request(ECHO, &2), json!(2));
}

#[test]
fn a_bad_configuration_is_an_error() {
    let config = Config {
        client: config::Client {
            accept: vec!["nonsense >=".into()],
            ..config::Client::default()
        },
        ..Config::default()
    };
    let error = Gateway::new(config)
        .in_memory()
        .err()
        .expect("a wrong rule must be refused");
    assert!(error.to_string().contains("client.accept"), "{error}");
}

#[test]
fn handlers_that_cannot_work_are_an_error_at_the_start() {
    let router = || Router::new().route("entryHandler.x", async |_: State<Uid>| {});
    let gateway = Gateway::new(on_shards(2)).handlers(move |_| router());
    let error = gateway.in_memory().err().expect("there is no such state");
    assert!(matches!(error, Error::Handlers(_)), "{error}");
}

#[test]
#[should_panic(expected = "did not arrive: the gateway closed the connection")]
fn a_request_on_a_connection_that_has_ended_says_so() {
    let gateway = start(Config::default());
    let mut client = gateway.connect();
    client.close();
    client.request(ECHO, &1);
}

#[test]
#[should_panic(expected = "call `advance` if a timer has to pass first")]
fn a_request_that_waits_for_the_clock_says_so() {
    let mut gateway = start(Config::default());
    gateway.set_patience(SECOND);
    gateway.connect().request(SLOW, &json!({}));
}

#[test]
#[should_panic(expected = "a call: it did not arrive")]
fn a_server_that_is_not_called_says_so() {
    let mut gateway = before_chat(Dialect::Pomelo, 2);
    gateway.set_patience(SECOND);
    let mut chat = gateway.server("chat-1");
    gateway.connect().notify(SEND, &json!({}));
    let _ = chat.next_call();
    let _ = chat.next_call();
}
