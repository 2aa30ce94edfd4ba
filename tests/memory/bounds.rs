//! Queues at their bound, filled by handlers.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tangelo::handler::JsonUpTo;
use tangelo::limits::{EVENTS_PENDING_MAX, REQUESTS_PENDING_MAX};

use super::*;

/// Polls a future once. It must wake nobody: a task of glommio counts its wakers in 15 bits.
fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Sends the coordinator as many requests as may wait, and one more. Then awaits all of them.
async fn ask_too_often(app: App, session: Session) -> Value {
    let kick = |_| Box::pin(app.kick("nobody", None));
    let mut kicks: Vec<_> = (0..REQUESTS_PENDING_MAX).map(kick).collect();
    for kick in &mut kicks {
        assert_eq!(poll_once(kick.as_mut()), Poll::Pending);
    }
    let mut refused = session.clone();
    let at_once = match poll_once(Box::pin(refused.bind("mei")).as_mut()) {
        Poll::Ready(Err(failure)) => failure.to_string(),
        other => panic!("one request more: {other:?}"),
    };
    for kick in kicks {
        kick.await;
    }
    json!({"refused": at_once})
}

#[test]
fn one_request_about_sessions_too_many_fails_at_once_and_the_others_are_served() {
    let gateway = Gateway::new(on_shards(2));
    let gateway = gateway.handlers(|_| router().route("entryHandler.askTooOften", ask_too_often));
    let gateway = gateway.in_memory().unwrap();
    // Shard 0 serves the requests of shard 1.
    let mut client = gateway.connect_with(on_shard(1));
    let answer = client.request("connector.entryHandler.askTooOften", &json!({}));
    let text = "too many requests about sessions wait for another shard";
    assert_eq!(answer, json!({"refused": text}));
    assert_eq!(gateway.counter("session_requests_full"), 1);

    let bound = client.request(LOGIN, &json!({"uid": "mei"}));
    assert_eq!(bound, json!({"code": 200}));
    assert_eq!(gateway.counter("sessions_bound"), 1);
    assert_eq!(gateway.counter("session_requests_full"), 1);
}

/// The events that the handlers of a test have seen.
#[derive(Default)]
struct Seen {
    is_full: Cell<bool>,
    count: Cell<usize>,
    /// Uid of the first event after the queue was full, and whether it was a bind.
    first: RefCell<Option<(String, bool)>>,
}

impl Seen {
    fn note(&self, uid: &Uid, is_bind: bool) {
        self.count.update(|count| count + 1);
        let mut first = self.first.borrow_mut();
        first.get_or_insert_with(|| (uid.text().to_owned(), is_bind));
    }
}

/// Unbinds a session and binds it to the next number, until one event more than may wait is pending.
fn cause_too_many_events(session: &Session) {
    let mut session = session.clone();
    for number in 1..=EVENTS_PENDING_MAX as u32 / 2 {
        let uid = session.uid().expect("it is bound").clone();
        session.unbind(&uid).expect("it is bound");
        let bound = poll_once(Box::pin(session.bind(number)).as_mut());
        assert_eq!(bound, Poll::Ready(Ok(())), "shard 0 asks itself");
    }
    let uid = session.uid().expect("it is bound").clone();
    session.unbind(&uid).expect("it is bound");
}

#[test]
fn an_event_of_a_session_over_the_bound_takes_the_place_of_the_oldest_one() {
    let seen = Rc::new(Seen::default());
    // The shards run on this thread, but a router is made for any thread.
    thread_local! {
        static SEEN: RefCell<Option<Rc<Seen>>> = RefCell::default();
    }
    SEEN.set(Some(seen.clone()));
    let gateway = Gateway::new(on_shards(1)).handlers(|_| {
        let binds = SEEN.with_borrow(|seen| seen.clone().expect("it is set"));
        let unbinds = binds.clone();
        router()
            .on_bind(move |session| {
                if !binds.is_full.replace(true) {
                    return cause_too_many_events(session);
                }
                binds.note(session.uid().expect("it is bound"), true);
            })
            .on_unbind(move |_, uid| unbinds.note(uid, false))
    });
    let gateway = gateway.in_memory().unwrap();
    let mut client = gateway.connect();
    client.request(LOGIN, &json!({"uid": "0"}));
    assert_eq!(gateway.counter("session_events_dropped"), 1);
    // The oldest one is the unbind of the uid 0.
    assert_eq!(*seen.first.borrow(), Some(("1".to_owned(), true)));
    assert_eq!(seen.count.get(), EVENTS_PENDING_MAX);

    let bound = client.request(LOGIN, &json!({"uid": "mei"}));
    assert_eq!(bound, json!({"code": 200}));
    assert_eq!(seen.count.get(), EVENTS_PENDING_MAX + 1);
    assert_eq!(gateway.counter("session_events_dropped"), 1);
}

#[test]
fn a_body_that_is_too_long_for_a_tree_costs_its_message_only() {
    let gateway = Gateway::new(Config::default()).handlers(|_| {
        router()
            .route("h.tree", async |Json(tree): Json<Value>| tree)
            .route(
                "h.long",
                async |JsonUpTo(tree): JsonUpTo<100_000, Value>| tree,
            )
    });
    let gateway = gateway.in_memory().unwrap();
    let mut client = gateway.connect();
    let text = |bytes: usize| json!("x".repeat(bytes - 2));
    for (route, bytes, is_taken) in [
        ("connector.h.tree", 64 << 10, true),
        ("connector.h.tree", (64 << 10) + 1, false),
        ("connector.h.long", 100_000, true),
        ("connector.h.long", 100_001, false),
        (ECHO, 200_000, true),
    ] {
        let body = text(bytes);
        let answer = client.request(route, &body);
        match is_taken {
            true => assert_eq!(answer, body),
            false => assert_eq!(answer, json!({"code": 500})),
        }
    }
    assert_eq!(gateway.counter("bodies_too_long"), 2);
    assert!(!client.is_closed());
}

fn with_key(bits: usize) -> ClientOptions {
    let modulus = format!("{:x}{}", 1 << ((bits - 1) % 4), "f".repeat((bits - 1) / 4));
    let key = json!({"rsa_n": modulus, "rsa_e": 65537});
    ClientOptions {
        handshake: Some(json!({"sys": {"type": "x", "version": "1", "rsa": key}})),
        ..ClientOptions::default()
    }
}

#[test]
fn a_key_that_costs_too_much_is_refused_and_so_is_who_signs_wrongly_too_often() {
    collect_log();
    let client = config::Client {
        use_crypto: true,
        ..config::Client::default()
    };
    let gateway = start(Config {
        client: client.clone(),
        ..Config::default()
    });
    let mut refused = gateway.open(with_key(2049));
    assert_eq!(refused.shake_hands()["code"], 500);
    assert!(refused.is_closed());
    let lines = log_lines("a handshake is refused");
    assert!(lines[0].contains("client.rsa_bits_max"), "{lines:?}");
    assert_eq!((lines.len(), gateway.counter("closed_handshake")), (1, 1));

    let mut taken = gateway.open(with_key(2048));
    assert_eq!(taken.shake_hands()["code"], 200);
    for _ in 0..16 {
        taken.ask(ECHO, &json!({}));
    }
    assert!(!taken.is_closed());
    taken.ask(ECHO, &json!({}));
    assert!(taken.is_closed());
    let counts = ["messages_unsigned", "messages_refused", "closed_signature"];
    assert_eq!(counts.map(|name| gateway.counter(name)), [16, 1, 1]);

    let exact = start(Config {
        client: config::Client {
            use_crypto: true,
            ..Config::exact().client
        },
        ..Config::default()
    });
    let mut large = exact.open(with_key(4096));
    assert_eq!(large.shake_hands()["code"], 200);
    for _ in 0..100 {
        large.ask(ECHO, &json!({}));
    }
    assert!(!large.is_closed());
    assert_eq!(exact.counter("messages_unsigned"), 100);
}

#[test]
fn a_signed_body_is_no_longer_than_one_for_a_tree_unless_the_limit_is_off() {
    let signed = |client: config::Client| {
        start(Config {
            client: config::Client {
                use_crypto: true,
                ..client
            },
            ..Config::default()
        })
    };
    let text = |bytes: usize| json!("x".repeat(bytes - 2));
    let counts = |gateway: &InMemory| {
        ["bodies_too_long", "messages_unsigned"].map(|name| gateway.counter(name))
    };
    let gateway = signed(config::Client::default());
    let mut client = gateway.open(with_key(2048));
    client.shake_hands();
    client.ask(ECHO, &text(64 << 10));
    assert_eq!(counts(&gateway), [0, 1]);
    let answer = client.request(ECHO, &text((64 << 10) + 1));
    assert_eq!(answer, json!({"code": 500}));
    // Such bodies are not looked at, so they do not count as wrong signatures.
    for _ in 0..20 {
        client.request(ECHO, &text(100_000));
    }
    assert_eq!(counts(&gateway), [21, 1]);
    assert!(!client.is_closed());

    let exact = signed(Config::exact().client);
    let mut client = exact.open(with_key(2048));
    client.shake_hands();
    client.ask(ECHO, &text(100_000));
    assert_eq!(counts(&exact), [0, 1]);
}
