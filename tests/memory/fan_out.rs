//! A broadcast to many members: others are served before it has reached all, and each member gets it once and in order.

use std::task::Poll;

use super::*;

thread_local! {
    /// Returns the counters of the gateway of this thread.
    static COUNTERS: RefCell<Option<Box<dyn Fn() -> String>>> = RefCell::default();
}

/// Returns the number of pushes so far.
fn pushes() -> u64 {
    COUNTERS.with_borrow(|read| {
        let counters = read.as_ref().expect("a gateway")();
        let found = counters
            .split(' ')
            .find_map(|pair| pair.strip_prefix("pushes="));
        found.map_or(0, |number| number.parse().expect("a number"))
    })
}

/// Answers at once with the number of pushes so far.
async fn count() -> Value {
    json!(pushes())
}

/// Looks at the number of pushes in each turn, until it does not change any more.
async fn watch() -> Value {
    let (mut seen, mut unchanged) = (vec![pushes()], 0);
    while unchanged < 100 {
        let mut yielded = false;
        std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            match std::mem::replace(&mut yielded, true) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        let now = pushes();
        unchanged = if Some(&now) == seen.last() {
            unchanged + 1
        } else {
            0
        };
        seen.push(now);
    }
    json!(seen)
}

/// Tells everybody, then its own session.
async fn tell(session: Session, app: App, Json(number): Json<u32>) -> Reply<Value> {
    app.broadcast("onAll", &json!(number))?;
    session.push("onOwn", &json!(number))?;
    Ok(json!(number))
}

/// Tells everybody, then kicks its own session.
async fn tell_and_kick(session: Session, app: App) -> Reply<Value> {
    app.broadcast("onAll", &json!("last"))?;
    session.kick(Some("over"));
    Ok(json!(0))
}

fn gateway(config: Config, members: usize) -> (InMemory, Vec<Client>) {
    let router = || {
        Router::new()
            .route("entryHandler.echo", async |body: Bytes| body)
            .route("entryHandler.count", count)
            .route("entryHandler.watch", watch)
            .route("entryHandler.tell", tell)
            .route("entryHandler.kick", tell_and_kick)
    };
    let gateway = Gateway::new(config).handlers(move |_| router()).in_memory();
    let gateway = gateway.unwrap_or_else(|error| panic!("{error}"));
    COUNTERS.set(Some(Box::new(gateway.counters_reader())));
    let clients = (0..members).map(|_| gateway.connect()).collect();
    (gateway, clients)
}

const COUNT: &str = "connector.entryHandler.count";
const WATCH: &str = "connector.entryHandler.watch";
const TELL: &str = "connector.entryHandler.tell";
const KICK: &str = "connector.entryHandler.kick";

#[test]
fn an_answer_does_not_wait_until_a_broadcast_has_reached_all_members() {
    let (mut gateway, mut clients) = gateway(Config::default(), 3000);
    gateway.pause();
    let watched = clients[7].ask(WATCH, &1);
    clients[0].ask(TELL, &1);
    let counted = clients[1].ask(COUNT, &1);
    gateway.resume();
    let counted = clients[1].answer(counted).expect("an answer");
    assert!(counted.as_u64() < Some(300), "{counted}");
    // No turn hands out more than 256 packages, and other work runs in between.
    let watched = clients[7].answer(watched).expect("an answer");
    let watched: Vec<u64> = serde_json::from_value(watched).unwrap();
    assert_eq!(watched.last(), Some(&3001));
    let most = watched.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(most <= Some(257), "{most:?}");
    for client in &mut clients {
        assert_eq!(client.pushed(), Some(("onAll".into(), json!(1))));
    }
}

#[test]
fn each_member_gets_each_broadcast_once_and_in_order_whatever_else_it_gets() {
    for shards in [1, 2] {
        let (mut gateway, mut clients) = gateway(on_shards(shards), 600);
        gateway.pause();
        let tellers: Vec<usize> = (1..600).step_by(15).collect();
        let mut asked = Vec::new();
        for client in &tellers {
            asked.push(clients[*client].ask(TELL, client));
        }
        gateway.resume();
        let mut order: Vec<Vec<u64>> = Vec::new();
        for (index, client) in clients.iter_mut().enumerate() {
            let pushed: Vec<_> = std::iter::from_fn(|| client.pushed()).collect();
            let own = pushed.iter().position(|(route, _)| route == "onOwn");
            assert_eq!(
                own.is_some(),
                tellers.contains(&index),
                "{index}: {pushed:?} {}",
                gateway.counters()
            );
            if let Some(own) = own {
                let before = pushed[..own].iter().rev().find(|(_, body)| *body == index);
                assert!(before.is_some(), "its own push has overtaken its broadcast");
            }
            let all = pushed.iter().filter(|(route, _)| route == "onAll");
            order.push(all.map(|(_, number)| number.as_u64().unwrap()).collect());
        }
        for (client, id) in tellers.iter().zip(asked) {
            assert_eq!(clients[*client].answer(id), Some(json!(client)));
        }
        let mut sorted = order[0].clone();
        sorted.sort_unstable();
        let expected: Vec<u64> = tellers.iter().map(|client| *client as u64).collect();
        assert_eq!(sorted, expected, "each once");
        // Of one shard all members see one order.
        for (index, seen) in order.iter().enumerate() {
            assert_eq!(*seen, order[index % shards], "client {index}");
        }
    }
}

#[test]
fn a_kick_comes_behind_the_broadcast_before_it() {
    let (_gateway, mut clients) = gateway(Config::default(), 600);
    let last = clients.last_mut().unwrap();
    last.ask(KICK, &1);
    assert_eq!(last.pushed(), Some(("onAll".into(), json!("last"))));
    assert_eq!(last.kicked().as_deref(), Some("over"));
    assert_eq!(clients[0].pushed(), Some(("onAll".into(), json!("last"))));
}

#[test]
fn too_many_broadcasts_at_once_are_handed_out_whole_and_none_is_lost() {
    let (mut gateway, mut clients) = gateway(Config::default(), 5000);
    gateway.pause();
    for (client, number) in clients.iter_mut().zip(1..=300) {
        client.ask(TELL, &number);
    }
    gateway.resume();
    assert!(gateway.counter("fan_outs_rushed") > 0);
    for client in clients.iter_mut().rev().take(100) {
        let pushed = std::iter::from_fn(|| client.pushed());
        assert!(
            pushed
                .map(|(_, number)| number)
                .eq((1..=300).map(Value::from))
        );
    }
    assert_eq!(gateway.counter("pushes_dropped"), 0);
}
