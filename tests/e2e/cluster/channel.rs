//! Channels and broadcasts, which concern every frontend: two of them, in a cluster of their own.

use serde_json::{Value, json};

use super::*;

promises! { own:
    a_channel_spans_frontends,
    a_broadcast_reaches_everybody_or_those_with_a_uid,
}

fn two_frontends(cluster: &Cluster, kind: Kind) -> [Frontend<'_>; 2] {
    [(); 2].map(|()| Frontend::start(cluster, kind, Knobs::default()))
}

/// Clients of both frontends and of every transport; enough that, with four shards, they are not all on
/// one.
fn clients_of(frontends: &[Frontend<'_>]) -> Vec<Client> {
    let mut clients = Vec::new();
    for frontend in frontends {
        for transport in frontend.kind().transports() {
            clients.extend((0..3).map(|_| frontend.client(*transport)));
        }
    }
    clients
}

fn a_channel_spans_frontends(cluster: &Cluster, kind: Kind) {
    let frontends = two_frontends(cluster, kind);
    let mut clients = clients_of(&frontends);
    let mut asking = frontends[0].client(Transport::WebSocket);
    let mut push = |n: u32| {
        let body = json!({"channel": "hall", "route": "onHall", "msg": {"n": n}});
        ask(&mut asking, "channelPush", &body)
    };
    // The channel lives in the backend that serves everybody without a uid. It knows a member by
    // uid and frontend, whether bound or not.
    let uids: Vec<String> = (0..clients.len())
        .map(|n| format!("member-{n:02}"))
        .collect();
    for (client, uid) in clients.iter_mut().zip(&uids) {
        let member = json!({"channel": "hall", "uid": uid});
        assert_eq!(ask(client, "join", &member), json!({"joined": true}));
    }
    let answer = push(0);
    assert_eq!(answer["err"], Value::Null);
    let mut fails: Vec<&str> = answer["fails"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|uid| uid.as_str().expect("a text"))
        .collect();
    // Those of one frontend are in order; which frontend answers first is open.
    fails.sort_unstable();
    assert_eq!(fails, uids);

    for (client, uid) in clients.iter_mut().zip(&uids) {
        bind(client, &json!(uid));
    }
    for n in 1..=20 {
        assert_eq!(push(n), json!({"err": null, "fails": []}));
    }
    for client in &mut clients {
        for n in 1..=20 {
            assert_push(client, "onHall", &json!({"n": n}).to_string());
        }
    }

    // The last of each frontend leave; the first ones unbind to get where the channel is.
    let (first, second) = clients.split_at_mut(uids.len() / 2);
    for (client, uid) in [
        (&mut first[0], &uids[0]),
        (&mut second[0], &uids[uids.len() / 2]),
    ] {
        let unbound = ask(client, "unbind", &json!({"uid": uid}));
        assert_eq!(unbound["err"], Value::Null);
        let member = json!({"channel": "hall", "uid": uid});
        assert_eq!(ask(client, "leave", &member), json!({"left": true}));
    }
    assert_eq!(push(21), json!({"err": null, "fails": []}));
    for half in [first, second] {
        assert_nothing_more(&mut half[0]);
        for client in &mut half[1..] {
            assert_push(client, "onHall", r#"{"n":21}"#);
            assert_nothing_more(client);
        }
    }
}

fn a_broadcast_reaches_everybody_or_those_with_a_uid(cluster: &Cluster, kind: Kind) {
    let frontends = two_frontends(cluster, kind);
    let mut unbound = clients_of(&frontends);
    let mut bound = clients_of(&frontends);
    for (n, client) in bound.iter_mut().enumerate() {
        bind(client, &json!(format!("bound-{n}")));
    }
    // Whoever has not finished the handshake gets none.
    let mut shaking = frontends[0].connect(Transport::WebSocket);
    shaking.handshake();

    let mut asking = frontends[1].client(Transport::WebSocket);
    let mut broadcast = |n: u32, opts: Value| {
        let body = json!({"route": "onAll", "msg": {"n": n}, "opts": opts});
        assert_eq!(ask(&mut asking, "bcast", &body), json!({"err": null}));
    };
    broadcast(1, Value::Null);
    broadcast(2, json!({"binded": true}));
    broadcast(
        3,
        json!({"binded": false, "filterParam": {"k": 1}, "custom": [1]}),
    );
    broadcast(4, json!({"binded": true, "filterParam": 7}));
    for client in &mut unbound {
        for n in [1, 3] {
            assert_push(client, "onAll", &json!({"n": n}).to_string());
        }
        assert_nothing_more(client);
    }
    for client in &mut bound {
        for n in 1..=4 {
            assert_push(client, "onAll", &json!({"n": n}).to_string());
        }
        assert_nothing_more(client);
    }
    shaking.ack();
    assert_nothing_more(&mut shaking);
}
