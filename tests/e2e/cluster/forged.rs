//! Bytes at a frontend's RPC port that come from no backend, or are not a call.

use serde_json::{Value, json};

use super::*;
use crate::harness::client::HANG_GUARD;
use crate::harness::rpc::Rpc;

promises! { shared:
    a_forged_session_id_is_nobody_s,
    a_thousand_calls_in_one_frame_are_all_answered,
    a_frame_may_come_in_pieces,
    a_caller_need_not_say_hello,
    a_malformed_call_is_answered_or_refused,
}

/// A call from outside: the error's first line and the value behind it.
fn call(rpc: &mut Rpc, method: &str, args: &Value) -> (Value, Value) {
    let resp = rpc.call("sessionRemote", method, args).expect("an answer");
    outcome(&resp)
}

/// Missing elements are null, as for every reader.
fn outcome(resp: &Value) -> (Value, Value) {
    let stack = resp[0]["stack"].as_str();
    assert!(
        resp.is_array() && (stack.is_some() || resp[0].is_null()),
        "{resp}"
    );
    let err = stack.and_then(|stack| stack.lines().next());
    (json!(err), resp[1].clone())
}

/// A counter of tangelo as it stands; a genuine connector counts nothing.
fn counter(setup: &mut Setup<'_>, name: &str) -> u64 {
    let gateway = setup.frontend.gateway();
    gateway.map_or(0, |gateway| gateway.wait_counter(name, 0))
}

/// Shows that the counter has grown by `count` or more since it stood at `before`.
fn assert_counted(setup: &mut Setup<'_>, name: &str, before: u64, count: usize) {
    if let Some(gateway) = setup.frontend.gateway() {
        gateway.wait_counter(name, before + count as u64);
    }
}

fn connect(setup: &Setup<'_>) -> Rpc {
    let rpc = Rpc::connect(setup.frontend.rpc_address());
    let mut rpc = rpc.expect("the gateway listens for other servers");
    if (setup.frontend.kind(), setup.dialect()) == (Kind::Genuine, Dialect::Pinus) {
        // It loses the part of a frame that comes in one segment with the CONNECT, and then misreads the
        // rest. A peer that first waits for the answer is safe.
        assert!(rpc.is_open());
    }
    rpc
}

fn a_forged_session_id_is_nobody_s(setup: &mut Setup<'_>) {
    let uid = setup.uid("real");
    let mut clients = setup.clients();
    let sids: Vec<u64> = clients.iter_mut().map(sid).collect();
    bind(&mut clients[0], &json!(uid));
    let mut rpc = connect(setup);
    // One bit of the id is wrong; among them are those that say which shard it is.
    for bit in 0..53 {
        let forged = sids[0] ^ (1 << bit);
        let (_, found) = call(&mut rpc, "getBackendSessionBySid", &json!([forged]));
        if found["id"] == forged {
            // By chance that is another session, ours or one whose end was not noticed yet.
            continue;
        }
        assert_eq!(found, Value::Null, "under the id {forged}");
        let text = format!("Error: session does not exist, sid: {forged}");
        for (method, args) in [
            ("bind", json!([forged, "x"])),
            ("unbind", json!([forged, uid])),
            ("push", json!([forged, "k", 1])),
            ("pushAll", json!([forged, {"k": 1}])),
        ] {
            assert_eq!(
                call(&mut rpc, method, &args),
                (json!(text), Value::Null),
                "{method}"
            );
        }
        let kicked = call(&mut rpc, "kickBySid", &json!([forged]));
        assert_eq!(kicked, (Value::Null, Value::Null));
    }
    // One that was right: its client has left, and others came.
    let gone = sid(&mut bound(setup, setup.uid("gone")));
    let deadline = Instant::now() + HANG_GUARD;
    while !call(&mut rpc, "getBackendSessionBySid", &json!([gone]))
        .1
        .is_null()
    {
        assert!(
            Instant::now() < deadline,
            "the gateway did not notice the end"
        );
    }
    let mut successors = setup.clients();
    let text = format!("Error: session does not exist, sid: {gone}");
    assert_eq!(call(&mut rpc, "bind", &json!([gone, "x"])).0, text);
    assert_eq!(
        call(&mut rpc, "kickBySid", &json!([gone, "x"])).0,
        Value::Null
    );

    for client in clients.iter_mut().chain(&mut successors) {
        assert_nothing_more(client);
        assert_eq!(whoami(client)["settings"], json!({}));
    }
    assert_eq!(whoami(&mut clients[0])["uid"], uid);
    // The real id, from the same caller, is good.
    let (err, _) = call(&mut rpc, "kickBySid", &json!([sids[0], "right"]));
    assert_eq!(err, Value::Null);
    assert_end(&mut clients[0], Some(r#"{"reason":"right"}"#));
    assert_counted(setup, "closed_kicked_by_server", 0, 1);
}

fn a_thousand_calls_in_one_frame_are_all_answered(setup: &mut Setup<'_>) {
    let mut clients = setup.clients();
    let sids: Vec<u64> = clients.iter_mut().map(sid).collect();
    let before = counter(setup, "peer_calls");
    let mut rpc = connect(setup);
    // Each fourth concerns nobody.
    let args = |id: usize| match id % 4 {
        0 => json!([99_999]),
        _ => json!([sids[id % sids.len()]]),
    };
    let calls = (0..1000).map(|id| {
        Rpc::request(
            id as u64,
            "sessionRemote",
            "getBackendSessionBySid",
            &args(id),
        )
    });
    let payload = Value::from_iter(calls).to_string();
    rpc.send_raw(&Rpc::frame(payload.as_bytes()))
        .expect("the gateway reads");
    let mut answers = vec![None; 1000];
    for _ in 0..1000 {
        let answer = rpc
            .next_answer()
            .expect("the gateway answers")
            .expect("the connection stays open");
        let id = answer["id"].as_u64().expect("a number") as usize;
        let (err, session) = outcome(&answer["resp"]);
        assert_eq!(err, Value::Null);
        let before = answers[id].replace(session["id"].clone());
        assert_eq!(before, None, "a second answer to {id}");
    }
    for (id, answer) in answers.iter().enumerate() {
        let expected = if id % 4 == 0 {
            Value::Null
        } else {
            args(id)[0].clone()
        };
        assert_eq!(answer.as_ref(), Some(&expected), "{id}");
    }
    assert!(rpc.is_open());
    for client in &mut clients {
        assert_nothing_more(client);
    }
    assert_counted(setup, "peer_calls", before, 1000);
}

fn a_frame_may_come_in_pieces(setup: &mut Setup<'_>) {
    let mut client = setup.client();
    let sid = sid(&mut client);
    let mut rpc = connect(setup);
    let mut other = connect(setup);
    let request = |id| {
        let args = json!([sid, "k", "é世界"]);
        Rpc::frame(
            Rpc::request(id, "sessionRemote", "push", &args)
                .to_string()
                .as_bytes(),
        )
    };
    // Whatever is waiting for its other half holds up nobody else.
    let first = request(1);
    for cut in (1..first.len()).step_by(5) {
        rpc.send_raw(&first[..cut]).expect("the gateway reads");
        assert_eq!(
            call(&mut other, "getBackendSessionBySid", &json!([99_999])).0,
            Value::Null
        );
        assert_nothing_more(&mut client);
        rpc.send_raw(&first[cut..]).expect("the gateway reads");
        let answer = rpc
            .next_answer()
            .expect("the gateway answers")
            .expect("the connection stays open");
        assert_eq!(
            (&answer["id"], outcome(&answer["resp"]).0),
            (&json!(1), Value::Null)
        );
    }
    for byte in &first {
        rpc.send_raw(&[*byte]).expect("the gateway reads");
    }
    // Many at once, the last one with a piece missing.
    let mut many: Vec<u8> = (2..100).flat_map(request).collect();
    let end = many.split_off(many.len() - 7);
    rpc.send_raw(&many).expect("the gateway reads");
    for id in 1..99 {
        let answer = rpc
            .next_answer()
            .expect("the gateway answers")
            .expect("the connection stays open");
        assert_eq!(answer["id"], id);
    }
    rpc.send_raw(&end).expect("the gateway reads");
    let answer = rpc
        .next_answer()
        .expect("the gateway answers")
        .expect("the connection stays open");
    assert_eq!(answer["id"], 99);
    // A peer that never completes its frame, and leaves.
    let mut leaving = connect(setup);
    leaving
        .send_raw(&first[..first.len() / 2])
        .expect("the gateway reads");
    drop(leaving);
    assert!(rpc.is_open());
    assert_eq!(whoami(&mut client)["settings"], json!({"k": "é世界"}));
}

fn a_caller_need_not_say_hello(setup: &mut Setup<'_>) {
    let mut rpc = Rpc::connect_silently(setup.frontend.rpc_address()).expect("the gateway listens");
    assert!(rpc.is_open());
    assert_eq!(
        call(&mut rpc, "getBackendSessionBySid", &json!([99_999])).0,
        Value::Null
    );
}

fn a_malformed_call_is_answered_or_refused(setup: &mut Setup<'_>) {
    let mut client = bound(setup, setup.uid("unharmed"));
    let sid = sid(&mut client);
    let sys = |method: &str, args: Value| {
        json!({"id": 3, "msg": {
            "namespace": "sys", "service": "sessionRemote", "method": method, "args": args,
        }})
        .to_string()
    };
    let payloads = [
        String::new(),
        "no JSON".into(),
        r#"{"id":3,"msg":{"namespace":"sys","service":"#.into(),
        "[".repeat(100_000),
        r#"{"id":3}"#.into(),
        r#"{"id":3,"msg":null}"#.into(),
        r#"{"id":3,"msg":7}"#.into(),
        r#"{"id":3,"msg":{}}"#.into(),
        r#"{"id":3,"msg":{"namespace":7,"service":{},"method":[]}}"#.into(),
        r#"{"id":3,"msg":{"namespace":"sys","service":"sessionRemote","method":"bind"}}"#.into(),
        sys("bind", json!({})),
        sys("bind", json!("text")),
        sys("bind", json!([])),
        sys("bind", json!([[sid], "x"])),
        sys("kickByUid", json!([])),
        sys("getBackendSessionsByUid", json!([{}])),
    ];
    let before = counter(setup, "peer_bad_calls");
    for payload in &payloads {
        let shown = &payload[..payload.len().min(100)];
        let mut rpc = connect(setup);
        rpc.send_raw(&Rpc::frame(payload.as_bytes()))
            .expect("the gateway reads");
        // Behind it, so that silence is told from an answer. Not every genuine reader survives.
        let probe = Rpc::request(4, "sessionRemote", "getBackendSessionBySid", &json!([sid]));
        let probed = rpc.send_raw(&Rpc::frame(probe.to_string().as_bytes()));
        let answer = probed.and_then(|()| rpc.next_answer());
        match (answer, setup.frontend.kind()) {
            (Ok(Some(answer)), _) if answer["id"] != 4 => {
                assert!(answer["resp"].is_array(), "{shown}: {answer}");
                println!("{shown}: {answer}");
            }
            (Ok(None) | Err(_), _) => println!("{shown}: refused"),
            (_, Kind::Genuine) => println!("{shown}: not answered"),
            (Ok(answer), Kind::Tangelo { .. }) => panic!("{shown}: not answered: {answer:?}"),
        }
        assert_nothing_more(&mut client);
    }
    assert_eq!(whoami(&mut client)["uid"], setup.uid("unharmed"));
    // The first nine are not calls. A call with wrong arguments counts only by its answer.
    assert_counted(setup, "peer_bad_calls", before, 9);
}

mod bytes_that_are_not_frames_end_only_their_connection {
    use super::*;

    /// A genuine connector reads on for ever.
    fn promise(setup: &mut Setup<'_>) {
        let before = counter(setup, "peer_bad_calls");
        let mut clients = setup.clients();
        let mut peer = connect(setup);
        let mut unharmed = |what: &str| {
            for client in &mut clients {
                assert_nothing_more(client);
            }
            assert!(peer.is_open(), "{what}: another peer's connection");
        };
        let bytes: [(&str, &[u8]); 8] = [
            ("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a client's handshake", b"\x01\x00\x00\x02{}"),
            ("zeros", &[0; 64]),
            ("ones", &[0xff; 64]),
            ("a length without end", b"\x30\xff\xff\xff\xff\xff\xff"),
            ("a topic longer than its packet", b"\x30\x04\xff\xffrp"),
            ("a packet without a topic", b"\x30\x00"),
            ("256 MB", b"\x30\xff\xff\xff\x7f\x00\x03rpc{"),
        ];
        for (what, bytes) in bytes {
            for mut rpc in [
                connect(setup),
                Rpc::connect_silently(setup.frontend.rpc_address()).expect("the gateway listens"),
            ] {
                rpc.send_raw(bytes).expect("the gateway reads");
                assert!(rpc.wait_end(), "{what}: the end comes with a DISCONNECT");
                unharmed(what);
            }
        }
        assert_counted(setup, "peer_bad_calls", before, 2 * bytes.len());
        // Nobody has to keep what a caller announces, nor what it sends all the same.
        let gateway = setup.frontend.gateway().expect("tangelo");
        let before = gateway.rss_bytes();
        let mut flood = connect(setup);
        flood
            .send_raw(b"\x30\xff\xff\xff\x7f\x00\x03rpc")
            .expect("the gateway reads");
        let chunk = vec![b'['; 1 << 20];
        let sent = (0..255)
            .take_while(|_| flood.send_raw(&chunk).is_ok())
            .count();
        assert!(sent < 64, "{sent} MB were taken");
        let gateway = setup.frontend.gateway().expect("tangelo");
        let after = gateway.rss_bytes();
        assert!(
            after < before + (64 << 20),
            "from {before} to {after} bytes of memory"
        );
        unharmed("a flood");

        // Many at once, of which none speaks.
        let silent: Vec<Rpc> = (0..100)
            .map(|_| {
                Rpc::connect_silently(setup.frontend.rpc_address()).expect("the gateway listens")
            })
            .collect();
        unharmed("a hundred silent callers");
        drop(silent);
        unharmed("after their end");
    }

    #[test]
    fn tangelo_in_pomelo() {
        shared(Dialect::Pomelo, &Kind::TANGELOS, promise);
    }

    #[test]
    fn tangelo_in_pinus() {
        shared(Dialect::Pinus, &Kind::TANGELOS, promise);
    }
}
