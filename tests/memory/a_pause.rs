//! The process or its machine stops for a while, and what clients and servers send waits.

use tangelo::handler::filter::{serial, timeout, toobusy};

use super::*;

const HEARTBEAT: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(6);
const PAUSES: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(60)];

fn with_heartbeats(shards: usize) -> Config {
    Config {
        client: config::Client {
            heartbeat: Some(HEARTBEAT),
            ..config::Client::default()
        },
        ..on_shards(shards)
    }
}

#[test]
fn cuts_no_client_whose_heartbeat_waits() {
    for pause in PAUSES {
        // Either what waits is read first, or the tick comes first.
        for sent_before_the_tick_is_due in [true, false] {
            collect_log();
            let mut gateway = start(with_heartbeats(2));
            let mut clients: Vec<Client> = (0..1000).map(|_| gateway.connect()).collect();
            gateway.advance(TIMEOUT - 50 * MS);
            gateway.pause();
            if sent_before_the_tick_is_due {
                clients.iter_mut().for_each(Client::heartbeat);
                gateway.advance(pause);
            } else {
                gateway.advance(pause);
                clients.iter_mut().for_each(Client::heartbeat);
            }
            gateway.resume();
            // All clients keep sending.
            for _ in 0..4 {
                gateway.advance(HEARTBEAT);
                clients.iter_mut().for_each(Client::heartbeat);
            }
            let cut = clients
                .iter_mut()
                .filter_map(|client| client.is_closed().then_some(()));
            assert_eq!(cut.count(), 0, "{pause:?}");
            assert_eq!(gateway.counter("pauses"), 2, "one for each shard");
            for shard in 0..2 {
                let seconds = pause.as_secs();
                let line = format!("shard {shard} was paused for {seconds}.0 s");
                let lines = log_lines(&line);
                assert_eq!(lines.len(), 1, "{line}: {:?}", log_lines(""));
                assert!(lines[0].contains("WARN"), "{lines:?}");
                assert!(lines[0].ends_with("; deadlines start again"), "{lines:?}");
            }
        }
    }
}

#[test]
fn gives_a_client_that_is_gone_one_timeout_more() {
    for pause in PAUSES {
        let mut gateway = start(with_heartbeats(1));
        let [mut gone, mut alive] = [(); 2].map(|()| gateway.connect());
        gateway.advance(5 * SECOND);
        gateway.pause();
        gateway.advance(pause);
        alive.heartbeat();
        gateway.resume();
        gateway.advance(TIMEOUT - 100 * MS);
        assert!(!gone.is_closed() && !alive.is_closed(), "{pause:?}");
        alive.heartbeat();
        gateway.advance(250 * MS);
        assert!(gone.is_closed() && !alive.is_closed(), "{pause:?}");
        assert_eq!(gateway.counter("closed_heartbeat_timeout"), 1);
    }
}

#[test]
fn gives_a_connection_without_a_byte_its_idle_time_again() {
    let mut config = with_heartbeats(1);
    config.client.heartbeat = None;
    config.client.timeout = Some(4 * SECOND);
    let mut gateway = start(config);
    let [mut silent, mut late] = [(); 2].map(|()| gateway.open(ClientOptions::default()));
    gateway.advance(3 * SECOND);
    gateway.pause();
    gateway.advance(8 * SECOND);
    gateway.resume();
    gateway.advance(3 * SECOND);
    assert_eq!(late.shake_hands()["code"], 200);
    assert!(!silent.is_closed());
    gateway.advance(SECOND + 150 * MS);
    assert!(silent.is_closed() && !late.is_closed());
    assert_eq!(gateway.counter("closed_idle_timeout"), 1);
}

/// 600 ms of each second: what speaks stays, what is gone has two timeouts of the time in between.
#[test]
fn that_comes_each_second_keeps_no_dead_client() {
    let mut gateway = start(with_heartbeats(1));
    let [mut gone, mut alive] = [(); 2].map(|()| gateway.connect());
    let mut seconds = 0;
    for second in 1..=60 {
        gateway.advance(400 * MS);
        gateway.pause();
        if second % 3 == 0 {
            alive.heartbeat();
        }
        gateway.advance(600 * MS);
        gateway.resume();
        if !gone.is_closed() {
            seconds = second;
        }
    }
    assert!(!alive.is_closed());
    assert!((6..15).contains(&seconds), "{seconds}");
    assert_eq!(gateway.counter("pauses"), 60);
}

#[test]
fn loses_no_call_whose_answer_waits() {
    let timeout = Config::default().rpc.timeout;
    for (pause, shards) in [(PAUSES[0], 1), (PAUSES[1], 1), (PAUSES[1], 4)] {
        for answered_before_the_tick_is_due in [true, false] {
            let mut gateway = before_chat(Dialect::Pomelo, shards);
            let mut chat = gateway.server("chat-1");
            let mut client = gateway.connect();
            let answered = client.ask(SEND, &json!({}));
            let call = chat.next_call();
            let lost = client.ask(SEND, &json!({}));
            let _ = chat.next_call();
            gateway.advance(timeout - 100 * MS);
            gateway.pause();
            if answered_before_the_tick_is_due {
                chat.answer(&call, &json!("here"));
                gateway.advance(pause);
            } else {
                gateway.advance(pause);
                chat.answer(&call, &json!("here"));
            }
            gateway.resume();
            assert_eq!(client.answer(answered), Some(json!("here")), "{pause:?}");
            gateway.advance(timeout - 100 * MS);
            assert_eq!(client.answer(lost), None);
            gateway.advance(250 * MS);
            assert_eq!(client.answer(lost), Some(json!({"code": 500})));
            assert_eq!(gateway.counter("rpc_timeouts"), 1);
            assert_eq!(gateway.counter("rpc_links_down"), 0);
            let id = client.ask(SEND, &json!({}));
            let call = chat.next_call();
            chat.answer(&call, &json!("again"));
            assert_eq!(client.answer(id), Some(json!("again")));
        }
    }
}

/// A client asks a handler that asks a server, behind filters that watch the time.
#[test]
fn makes_no_message_late_whose_handler_had_no_chance_to_run() {
    let gateway = Gateway::new(with_chat(Dialect::Pomelo, 1)).handlers(|_| {
        router().filters(|filters| {
            filters.filter(timeout(3 * SECOND, 500));
            filters.filter(serial(3 * SECOND, Some(Bytes::from("{}"))));
        })
    });
    let mut gateway = gateway.in_memory().unwrap();
    let mut chat = gateway.server("chat-1");
    let mut client = gateway.connect();
    let id = client.ask(ADD, &"mei");
    let call = chat.next_call();
    gateway.advance(2900 * MS);
    gateway.pause();
    gateway.advance(8 * SECOND);
    chat.answer(&call, &json!("added"));
    gateway.resume();
    assert_eq!(client.answer(id), Some(json!("added")));

    // One that is really late has its whole time after the pause, and no more.
    let id = client.ask(ADD, &"mei");
    gateway.advance(2900 * MS);
    gateway.pause();
    gateway.advance(8 * SECOND);
    gateway.resume();
    gateway.advance(2900 * MS);
    assert_eq!(client.answer(id), None);
    assert_eq!(gateway.counter("filter_timeouts"), 0);
    gateway.advance(200 * MS);
    assert_eq!(client.answer(id), Some(json!({"code": 500})));
    assert_eq!(gateway.counter("filter_serial_timeouts"), 1);
    assert_eq!(gateway.counter("filter_timeouts"), 1);
}

#[test]
fn counts_for_what_goes_by_the_clock() {
    let runs = Arc::new(Mutex::new(0));
    let cron = runs.clone();
    let gateway = Gateway::new(on_shards(1)).handlers(move |_| {
        let cron = cron.clone();
        router().cron_at("0 0 * * * *", "hourly", async move |_| {
            *cron.lock().unwrap() += 1;
        })
    });
    let mut gateway = gateway.in_memory().unwrap();
    let mut client = gateway.connect();
    let id = client.ask(SLOW, &json!({}));
    gateway.pause();
    gateway.advance(8 * SECOND);
    gateway.resume();
    assert_eq!(client.answer(id), Some(json!({"slow": true})));
    // Hours that a pause has swallowed are made up for once.
    gateway.pause();
    gateway.advance(3 * 3600 * SECOND);
    gateway.resume();
    assert_eq!(*runs.lock().unwrap(), 1);
}

#[test]
fn makes_toobusy_refuse_what_has_waited() {
    let gateway = Gateway::new(on_shards(1))
        .handlers(|_| router().filters(|filters| filters.global_filter(toobusy(70 * MS))));
    let mut gateway = gateway.in_memory().unwrap();
    let mut client = gateway.connect();
    gateway.advance(SECOND);
    gateway.pause();
    gateway.advance(8 * SECOND);
    let id = client.ask(ECHO, &1);
    gateway.resume();
    assert_eq!(client.answer(id), Some(json!({"code": 500})));
    gateway.advance(100 * MS);
    assert_eq!(client.request(ECHO, &1), json!(1));
    assert_eq!(gateway.counter("filter_toobusy_refused"), 1);
}

#[test]
fn gives_a_start_its_time_again() {
    let (done, when) = flag();
    let when = Arc::new(Mutex::new(Some(when)));
    let config = on_shards(1);
    let timeout = config.start_timeout;
    let gateway = Gateway::new(config).handlers(move |_| {
        let when = when.clone();
        router().on_start(async move |_| {
            let when = when.lock().unwrap().take();
            when.expect("one shard").await;
            Ok(())
        })
    });
    let mut gateway = gateway.in_memory().unwrap();
    gateway.advance(timeout - 100 * MS);
    gateway.pause();
    gateway.advance(60 * SECOND);
    gateway.resume();
    gateway.advance(timeout - 100 * MS);
    done();
    assert_eq!(gateway.connect().request(ECHO, &1), json!(1));
    gateway.stop().unwrap();
}
