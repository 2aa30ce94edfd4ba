//! Backends push to clients, by uid.

use serde_json::{Value, json};

use super::*;
use crate::harness::client::{DATA, encode_message, encode_package};

promises! { shared:
    a_push_reaches_the_uids_and_names_those_it_did_not,
    a_uid_that_is_listed_twice_is_pushed_to_twice,
    every_session_of_a_uid_gets_a_push_once,
    a_body_of_any_kind_is_pushed,
    pushes_to_a_client_keep_their_order,
    a_push_arrives_before_the_answer_that_waited_for_it,
    only_the_first_of_two_answers_counts,
    a_push_that_encodes_to_nothing_is_one_error_and_sends_nothing,
}

/// `[{uid, sid}, …]`: how applications name the receivers of a push.
fn receivers<'a>(setup: &Setup<'_>, uids: impl IntoIterator<Item = &'a Value>) -> Value {
    let receiver = |uid| json!({"uid": uid, "sid": setup.frontend.id()});
    uids.into_iter().map(receiver).collect()
}

fn a_push_reaches_the_uids_and_names_those_it_did_not(setup: &mut Setup<'_>) {
    let number = 20_000 + setup.run;
    let mut asking = setup.client();
    let mut named: Vec<(Value, Client)> = Vec::new();
    for n in 0..6 {
        let uid = json!(setup.uid(&format!("to{n}")));
        let client = bound(setup, uid.clone());
        named.push((uid, client));
    }
    named.push((json!(number), bound(setup, number)));
    // Missing ones before, between and behind them: a text, a number, a name from JavaScript.
    let missing = [json!("ghost"), json!(77), json!("77"), json!("valueOf ")];
    let mut uids: Vec<Value> = named.iter().map(|(uid, _)| uid.clone()).collect();
    uids.insert(0, missing[0].clone());
    uids.insert(3, missing[1].clone());
    uids.insert(4, missing[2].clone());
    uids.push(missing[3].clone());

    for n in 0..10 {
        let msg = json!({"n": n, "s": "é\"世界😀"});
        let push = json!({"route": "onNews", "msg": msg, "uids": receivers(setup, &uids)});
        let answer = ask(&mut asking, "pushUids", &push);
        assert_eq!(answer, json!({"err": null, "fails": missing}));
        for (_, client) in &mut named {
            assert_push(client, "onNews", &msg.to_string());
        }
    }
    // A push to nobody is not an error either.
    let push = json!({"route": "onNews", "msg": {}, "uids": receivers(setup, &missing)});
    let answer = ask(&mut asking, "pushUids", &push);
    assert_eq!(answer, json!({"err": null, "fails": missing}));
    let args = json!(["onNews", {}, [], {"type": "push", "userOptions": {}, "isPush": true}]);
    let (err, values) = remote(&mut asking, "channelRemote", "pushMessage", &args);
    assert_eq!((err, values), (Value::Null, json!([[]])));

    assert_nothing_more(&mut asking);
    for (_, client) in &mut named {
        assert_nothing_more(client);
    }
}

fn a_uid_that_is_listed_twice_is_pushed_to_twice(setup: &mut Setup<'_>) {
    let (twice, once) = (json!(setup.uid("twice")), json!(setup.uid("once")));
    let mut asking = setup.client();
    let mut twice_client = bound(setup, twice.clone());
    let mut once_client = bound(setup, once.clone());
    let uids = receivers(
        setup,
        &[twice.clone(), json!("ghost"), once, twice, json!("ghost")],
    );
    let push = json!({"route": "onTwice", "msg": {}, "uids": uids});
    let answer = ask(&mut asking, "pushUids", &push);
    assert_eq!(answer, json!({"err": null, "fails": ["ghost", "ghost"]}));
    assert_push(&mut twice_client, "onTwice", "{}");
    assert_push(&mut twice_client, "onTwice", "{}");
    assert_nothing_more(&mut twice_client);
    assert_push(&mut once_client, "onTwice", "{}");
    assert_nothing_more(&mut once_client);
}

fn every_session_of_a_uid_gets_a_push_once(setup: &mut Setup<'_>) {
    let uid = json!(setup.uid("many"));
    let mut asking = setup.client();
    // On every shard, if there are several.
    let mut clients = setup.clients();
    for client in &mut clients {
        bind(client, &uid);
    }
    for n in 0..20 {
        let uids = receivers(setup, [&uid]);
        let push = json!({"route": "onMany", "msg": {"n": n}, "uids": uids});
        let answer = ask(&mut asking, "pushUids", &push);
        assert_eq!(answer, json!({"err": null, "fails": []}));
    }
    for client in &mut clients {
        for n in 0..20 {
            assert_push(client, "onMany", &json!({"n": n}).to_string());
        }
        assert_nothing_more(client);
    }
}

fn a_body_of_any_kind_is_pushed(setup: &mut Setup<'_>) {
    let uid = json!(setup.uid("any"));
    let mut client = bound(setup, uid.clone());
    let uids = receivers(setup, [&uid]);
    let big = json!({"s": "y".repeat(200_000)});
    let bodies = [
        json!([1, "b", null]),
        json!("text"),
        json!(7),
        json!(true),
        big,
    ];
    for msg in bodies {
        let push = json!({"route": "a.route.with.more.parts é", "msg": msg, "uids": uids});
        let answer = ask(&mut client, "pushUids", &push);
        assert_eq!(answer, json!({"err": null, "fails": []}));
        assert_push(&mut client, "a.route.with.more.parts é", &msg.to_string());
    }
    // The frontend refuses a value that JavaScript takes for false, and tells the backend.
    for msg in [json!(null), json!(0), json!(false), json!("")] {
        let push = json!({"route": "onEmpty", "msg": msg, "uids": uids});
        let answer = ask(&mut client, "pushUids", &push);
        assert_eq!(
            answer,
            json!({"err": "Error: all uids push message fail"}),
            "{msg}"
        );
    }
    assert_nothing_more(&mut client);
}

fn pushes_to_a_client_keep_their_order(setup: &mut Setup<'_>) {
    let uid = json!(setup.uid("ordered"));
    let mut client = bound(setup, uid.clone());
    let uids = receivers(setup, [&uid]);
    for n in 0..200 {
        let push = json!({"route": "onOrder", "msg": {"n": n}, "uids": uids});
        client.notify("chat.chatHandler.pushUidsNoWait", push.to_string());
    }
    for n in 0..200 {
        assert_push(&mut client, "onOrder", &json!({"n": n}).to_string());
    }
    assert_nothing_more(&mut client);
}

fn a_push_arrives_before_the_answer_that_waited_for_it(setup: &mut Setup<'_>) {
    let mut clients: Vec<(Value, Client)> = Vec::new();
    for (n, client) in setup.clients().into_iter().enumerate() {
        let uid = json!(setup.uid(&format!("waiting{n}")));
        clients.push((uid, client));
    }
    for (uid, client) in &mut clients {
        bind(client, uid);
    }
    // A genuine Pomelo takes 40 ms for each frame of its RPC, so there the rounds overlap.
    let (rounds, batch) = match setup.frontend.kind() {
        Kind::Tangelo { .. } => (200, 1),
        Kind::Genuine => (10, 20),
    };
    for round in 0..rounds {
        for (uid, client) in &mut clients {
            for id in 1..=batch {
                let push = json!({
                    "route": "onBefore", "msg": {"n": round * batch + id},
                    "uids": receivers(setup, [&*uid]),
                });
                client.request(id, "chat.chatHandler.pushUids", push.to_string());
            }
        }
        for (_, client) in &mut clients {
            let mut pushed = 0;
            let mut answered = 0;
            while answered < batch {
                match client.next_message() {
                    Message::Push { route, body } => {
                        pushed += 1;
                        let expected = json!({"n": round * batch + pushed}).to_string();
                        assert_eq!((route.as_str(), body), ("onBefore", expected.into_bytes()));
                    }
                    Message::Response { id, body } => {
                        answered += 1;
                        assert_eq!(
                            (id, body.as_slice()),
                            (answered, br#"{"err":null,"fails":[]}"#.as_slice())
                        );
                        assert!(answered <= pushed, "the answer was there first");
                    }
                }
            }
            assert_eq!(pushed, batch);
        }
    }
}

fn only_the_first_of_two_answers_counts(setup: &mut Setup<'_>) {
    if setup.dialect() == Dialect::Pinus {
        // There a handler's answer is what its promise becomes, once.
        return;
    }
    for client in &mut setup.clients() {
        for id in 1..20 {
            client.request(id, "chat.chatHandler.twice", "{}");
        }
        for id in 1..20 {
            assert_eq!(client.wait_response(id), br#"{"n":1}"#);
        }
        assert_nothing_more(client);
        assert!((1..20).all(|id| !client.has_response(id)));
    }
}

fn a_push_that_encodes_to_nothing_is_one_error_and_sends_nothing(setup: &mut Setup<'_>) {
    const EMPTY: &str = "Error: fail to send message for encode result is empty.";
    let uid = json!(setup.uid("empty"));
    let (mut asking, mut client) = (setup.client(), bound(setup, uid.clone()));
    let push = json!({"type": "push", "userOptions": {}});
    let all = json!({"type": "broadcast", "userOptions": {}});
    for (method, args) in [
        ("pushMessage", json!(["", {"n": 1}, [uid], push])),
        ("broadcast", json!(["", {"n": 1}, all])),
        ("broadcast", json!(["onX", null, all])),
        ("broadcast", json!(["onX", 0, all])),
    ] {
        let (err, _) = remote(&mut asking, "channelRemote", method, &args);
        assert_eq!(err, EMPTY, "{method} {args}");
        if matches!(setup.frontend.kind(), Kind::Genuine) {
            // It continues all the same and sends bytes that no client can read: one push is enough.
            return;
        }
    }
    assert_nothing_more(&mut asking);
    assert_nothing_more(&mut client);
}

mod a_burst_over_a_new_link_is_answered {
    use super::*;

    /// The first client of a frontend is also the first to use its link to the backend.
    fn promise(setup: &mut Setup<'_>) {
        let cluster = Cluster::shared(setup.dialect());
        let fresh = Frontend::listening(cluster, setup.frontend.kind(), Knobs::default());
        let body = json!({"s": "z".repeat(1000)}).to_string();
        let packages = (1..=300).map(|id| {
            let message = encode_message(Some(id), "chat.chatHandler.echo".into(), body.as_bytes());
            encode_package(DATA, &message)
        });
        let mut client = fresh.client(setup.transport);
        match setup.transport {
            // In one go, so that most of it waits for the link.
            Transport::Tcp => client.send_raw(&packages.collect::<Vec<_>>().concat()),
            Transport::WebSocket => packages.for_each(|package| client.send_raw(&package)),
        }
        for id in 1..=300 {
            let answer = client.wait_response(id);
            let text = String::from_utf8_lossy(&answer[..answer.len().min(80)]);
            assert!(answer == body.as_bytes(), "{id}: {text}");
        }
    }

    #[test]
    fn tangelo_in_pomelo() {
        shared(Dialect::Pomelo, &Kind::TANGELOS, promise);
    }

    /// A Pinus backend loses the part of a frame that comes in one segment with the CONNECT of its
    /// link, and then reads the rest as something else. A genuine Pinus connector, which sends both
    /// at once, loses calls that way: there is nothing to run this against.
    #[test]
    fn tangelo_in_pinus() {
        shared(Dialect::Pinus, &Kind::TANGELOS, promise);
    }

    #[test]
    fn genuine_pomelo() {
        shared(Dialect::Pomelo, &[Kind::Genuine], promise);
    }
}

mod a_late_answer_is_dropped {
    use super::*;

    /// A genuine connector has no such knob, and waits 30 s: `forward` proves the same for Pomelo.
    const SHORT_TIMEOUT: Knobs = Knobs {
        tangelo: &["--set", "rpc.timeout=300ms"],
        genuine: &[],
    };

    fn promise(setup: &mut Setup<'_>) {
        let gateway = setup.frontend.gateway().expect("tangelo");
        let before = gateway.wait_counter("rpc_late_answers", 0);
        let mut clients = setup.clients();
        for client in &mut clients {
            client.request(1, "chat.chatHandler.slow", r#"{"ms":1500}"#);
            client.request(2, "chat.chatHandler.never", "{}");
        }
        for client in &mut clients {
            for id in [1, 2] {
                assert_eq!(client.wait_response(id), br#"{"code":500}"#);
            }
        }
        let gateway = setup.frontend.gateway().expect("tangelo");
        gateway.wait_counter("rpc_late_answers", before + clients.len() as u64);
        for client in &mut clients {
            assert_nothing_more(client);
        }
    }

    #[test]
    fn tangelo_in_pinus() {
        shared_with(SHORT_TIMEOUT, Dialect::Pinus, &Kind::TANGELOS, promise);
    }
}
