//! The drain: a stop in which each client gets the answers to its requests.

use super::*;

const CLIENTS: usize = 5_000;
const WAITING: usize = 500;

/// Seconds in which the test looks at the drain.
const SECONDS: usize = 8;

#[test]
fn a_drain_answers_each_request_and_closes_evenly() {
    let mut gateway = before_chat(Dialect::Pomelo, 2);
    let mut chat = gateway.server("chat-1");
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| gateway.connect()).collect();
    let (waiting, idle) = clients.split_at_mut(WAITING);
    let asked = waiting.iter_mut().enumerate();
    let asked = asked.map(|(at, client)| client.ask(SEND, &json!({"from": at})));
    let asked: Vec<u32> = asked.collect();
    let calls: Vec<_> = (0..WAITING).map(|_| chat.next_call()).collect();

    gateway.begin_drain();
    let mut closed = Vec::new();
    for second in 0..SECONDS {
        gateway.advance(SECOND);
        closed.push(gateway.counter("closed_drain") as usize);
        if second == 4 {
            assert!(idle.iter_mut().all(Client::is_closed), "{closed:?}");
            assert!(!waiting.iter_mut().any(Client::is_closed), "{closed:?}");
            for call in &calls {
                let (_, body) = call.message().expect("a message");
                chat.answer(call, body);
            }
        }
    }
    for (at, (client, id)) in waiting.iter_mut().zip(asked).enumerate() {
        assert_eq!(client.answer(id), Some(json!({"from": at})));
        assert!(client.is_closed());
    }
    assert_eq!(closed[SECONDS - 1], CLIENTS, "{closed:?}");
    let of_each = closed.windows(2).map(|pair| pair[1] - pair[0]);
    let of_each: Vec<usize> = [closed[0]].into_iter().chain(of_each).collect();
    let busy = of_each.iter().filter(|count| **count > 0).count();
    let most = of_each.iter().max().expect("eight seconds");
    assert!(*most <= 2 * CLIENTS / busy, "{of_each:?}");
    assert_eq!(gateway.stop(), Ok(()));
}

#[test]
fn a_client_that_waits_longer_than_the_drain_is_cut_and_counted() {
    let mut gateway = before_chat(Dialect::Pomelo, 2);
    let mut chat = gateway.server("chat-1");
    let (mut idle, mut waiting) = (gateway.connect(), gateway.connect());
    let id = waiting.ask(SEND, &json!({}));
    let _call = chat.next_call();
    gateway.begin_drain();
    gateway.advance(Config::default().drain.timeout * 3 / 4 - 100 * MS);
    assert!(idle.is_closed());
    assert!(!waiting.is_closed());
    gateway.advance(200 * MS);
    assert!(waiting.is_closed());
    assert_eq!(waiting.answer(id), None);
    assert_eq!(gateway.counter("clients_cut"), 1);
    let text = "three quarters of drain.timeout had passed, and 1 clients that waited for answers were cut";
    assert_eq!(gateway.stop(), Err(Error::Drain(text.into())));
}

#[test]
fn in_the_delay_clients_are_served_and_taken() {
    let config = Config {
        drain: config::Drain {
            delay: 5 * SECOND,
            ..config::Drain::default()
        },
        ..on_shards(2)
    };
    let mut gateway = start(config);
    let mut first = gateway.connect();
    gateway.begin_drain();
    gateway.advance(4 * SECOND);
    let mut second = gateway.connect();
    for client in [&mut first, &mut second] {
        assert_eq!(client.request(ECHO, &1), json!(1));
    }
    gateway.advance(2 * SECOND);
    assert!(first.is_closed() && second.is_closed());
    assert_eq!(gateway.counter("closed_drain"), 2);
}

#[test]
fn a_stop_breaks_a_drain_off() {
    let mut gateway = before_chat(Dialect::Pomelo, 2);
    let mut chat = gateway.server("chat-1");
    let mut waiting = gateway.connect();
    waiting.ask(SEND, &json!({}));
    let _call = chat.next_call();
    gateway.begin_drain();
    gateway.advance(SECOND);
    assert!(!waiting.is_closed());
    assert_eq!(gateway.stop(), Ok(()));
    assert!(waiting.is_closed());
}

#[test]
fn a_drain_sends_what_a_buffer_scheduler_has_collected() {
    let config = Config {
        push: config::Push {
            scheduler: Scheduler::Buffer,
            flush_interval: SECOND,
            ..config::Push::default()
        },
        ..with_chat(Dialect::Pomelo, 2)
    };
    let mut gateway = start(config);
    let mut chat = gateway.server("chat-1");
    let mut client = gateway.connect();
    let id = client.ask(SEND, &json!({}));
    let call = chat.next_call();
    gateway.begin_drain();
    chat.answer(&call, &json!({"late": true}));
    gateway.advance(200 * MS);
    assert!(client.is_closed());
    assert_eq!(client.answer(id), Some(json!({"late": true})));
}

#[test]
fn a_drain_that_cuts_leaves_the_application_a_quarter_of_its_time() {
    let ended = Arc::new(Mutex::new(0));
    let count = ended.clone();
    let gateway = Gateway::new(with_chat(Dialect::Pomelo, 2)).handlers(move |_| {
        let count = count.clone();
        router().before_stop(async move |app: App| {
            app.sleep(SECOND).await;
            *count.lock().unwrap() += 1;
        })
    });
    let mut gateway = gateway.in_memory().unwrap();
    let mut chat = gateway.server("chat-1");
    let mut waiting = gateway.connect();
    waiting.ask(SEND, &json!({}));
    let _call = chat.next_call();
    gateway.begin_drain();
    gateway.advance(Config::default().drain.timeout);
    assert_eq!(*ended.lock().unwrap(), 2);
    assert!(gateway.stop().is_err());
}
