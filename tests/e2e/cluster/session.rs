//! Backends bind sessions, keep values in them, look them up and kick them.

use serde_json::{Value, json};

use super::*;
use crate::harness::client::HANG_GUARD;

promises! { shared:
    a_request_arrives_with_its_session,
    a_session_is_bound_and_unbound,
    a_uid_is_a_number_or_a_text,
    an_empty_uid_is_none,
    values_are_kept_in_the_session,
    sessions_are_looked_up,
    a_session_is_kicked,
    all_sessions_of_a_uid_are_kicked,
    a_session_that_kicks_itself_gets_no_answer,
    a_session_that_ended_is_gone,
    an_error_has_its_text,
    every_call_is_answered,
}

fn a_request_arrives_with_its_session(setup: &mut Setup<'_>) {
    for client in &mut setup.clients() {
        let answer = client.request_text("chat.chatHandler.send", r#"{"b":1,"a":"é😀"}"#);
        let sid = sid(client);
        let route = match setup.dialect() {
            Dialect::Pomelo => r#","__route__":"chat.chatHandler.send""#,
            Dialect::Pinus => "",
        };
        let expected = format!(
            concat!(
                r#"{{"got":{{"b":1,"a":"é😀"{}}},"#,
                r#""sess":{{"id":{},"frontendId":"{}","uid":null,"settings":{{}}}}}}"#
            ),
            route,
            sid,
            setup.frontend.id(),
        );
        assert_eq!(answer, expected);
        // Without a uid: the first of the list.
        assert_eq!(whoami(client)["server"], "chat-1");
    }
}

/// The word that the frameworks do not share.
fn already(setup: &Setup<'_>) -> &'static str {
    match setup.dialect() {
        Dialect::Pomelo => "already bind with",
        Dialect::Pinus => "already bound with",
    }
}

fn a_session_is_bound_and_unbound(setup: &mut Setup<'_>) {
    let (alice, bob) = (setup.uid("alice"), setup.uid("bob"));
    for client in &mut setup.clients() {
        assert_eq!(whoami(client)["uid"], Value::Null);
        bind(client, &json!(alice));
        assert_eq!(whoami(client)["uid"], alice);
        // A second bind is not an error.
        bind(client, &json!(alice));

        let other = ask(client, "bind", &json!({"uid": bob}));
        let already = format!("Error: session has {} {alice}", already(setup));
        assert_eq!(other, json!({"err": already, "uid": alice}));
        let other = ask(client, "unbind", &json!({"uid": bob}));
        let not = format!("Error: session has not bind with {alice}");
        assert_eq!(other, json!({"err": not, "uid": alice}));
        assert_eq!(whoami(client)["uid"], alice);

        let unbound = ask(client, "unbind", &json!({"uid": alice}));
        assert_eq!(unbound, json!({"err": null, "uid": null}));
        assert_eq!(whoami(client)["uid"], Value::Null);
        let again = ask(client, "unbind", &json!({"uid": alice}));
        let not = "Error: session has not bind with null";
        assert_eq!(again, json!({"err": not, "uid": null}));
        let found = ask(client, "byUid", &json!({"uid": alice}));
        assert_eq!(found, json!({"err": null, "sessions": null}));

        bind(client, &json!(bob));
        assert_eq!(whoami(client)["uid"], bob);
        let unbound = ask(client, "unbind", &json!({"uid": bob}));
        assert_eq!(unbound["err"], Value::Null);
    }
}

fn a_uid_is_a_number_or_a_text(setup: &mut Setup<'_>) {
    let number = 10_000 + setup.run;
    let text = number.to_string();
    // Bound to the one is not bound to the other …
    let mut numbered = bound(setup, number);
    assert_eq!(whoami(&mut numbered)["uid"], number);
    let answer = ask(&mut numbered, "bind", &json!({"uid": text}));
    let err = format!("Error: session has {} {number}", already(setup));
    assert_eq!(answer, json!({"err": err, "uid": number}));
    let answer = ask(&mut numbered, "unbind", &json!({"uid": text}));
    let err = format!("Error: session has not bind with {number}");
    assert_eq!(answer, json!({"err": err, "uid": number}));

    // … but whoever is looked for by the one is found by the other.
    let mut named = bound(setup, text.as_str());
    assert_eq!(whoami(&mut named)["uid"], text);
    for uid in [json!(number), json!(text)] {
        let found = ask(&mut named, "byUid", &json!({"uid": uid}));
        let uids = found["sessions"].as_array().expect("two sessions");
        let uids: Vec<&Value> = uids.iter().map(|session| &session["uid"]).collect();
        assert_eq!(
            uids,
            [&json!(number), &json!(text)],
            "in the order of binding"
        );

        let to = json!([{"uid": uid, "sid": setup.frontend.id()}]);
        let push = json!({"route": "onNumber", "msg": {"to": uid}, "uids": to});
        assert_eq!(
            ask(&mut named, "pushUids", &push),
            json!({"err": null, "fails": []})
        );
        for client in [&mut numbered, &mut named] {
            assert_push(client, "onNumber", &json!({"to": uid}).to_string());
        }
    }
    // Written as JavaScript writes numbers.
    for (uid, written) in [
        (json!(1.5), "1.5"),
        (json!(1e21), "1e+21"),
        (json!(-7), "-7"),
    ] {
        let mut client = bound(setup, uid.clone());
        assert_eq!(whoami(&mut client)["uid"], uid);
        let found = ask(&mut client, "byUid", &json!({"uid": written}));
        assert_eq!(
            found["sessions"].as_array().map(Vec::len),
            Some(1),
            "{written}"
        );
        let unbound = ask(&mut client, "unbind", &json!({"uid": uid}));
        assert_eq!(unbound, json!({"err": null, "uid": null}));
    }
    for client in [&mut numbered, &mut named] {
        assert_nothing_more(client);
    }
}

fn an_empty_uid_is_none(setup: &mut Setup<'_>) {
    for empty in [json!(0), json!("")] {
        let mut client = setup.client();
        bind(&mut client, &empty);
        assert_eq!(whoami(&mut client)["uid"], empty);
        let unbound = ask(&mut client, "unbind", &json!({"uid": empty}));
        let err = format!(
            "Error: session has not bind with {}",
            empty.as_str().unwrap_or("0")
        );
        assert_eq!(unbound["err"], err);
        bind(&mut client, &json!(setup.uid("later")));
        assert_eq!(whoami(&mut client)["uid"], setup.uid("later"));
        let unbound = ask(&mut client, "unbind", &json!({"uid": setup.uid("later")}));
        assert_eq!(unbound["err"], Value::Null);
    }
}

fn values_are_kept_in_the_session(setup: &mut Setup<'_>) {
    let done = json!({"err": null});
    let mut other = setup.client();
    for client in &mut setup.clients() {
        let settings = |client: &mut Client| whoami(client)["settings"].clone();
        // Only what is pushed is kept.
        let only = ask(client, "setOnly", &json!({"k": "local", "v": 1}));
        assert_eq!(only["settings"], json!({"local": 1}));
        assert_eq!(settings(client), json!({}));

        assert_eq!(
            ask(client, "setPush", &json!({"k": "room", "v": "hall"})),
            done
        );
        assert_eq!(settings(client), json!({"room": "hall"}));
        let nested = json!({"k": "é\"\\\u{1}", "v": {"a": [1, 2.5, null, true], "s": "世界😀"}});
        assert_eq!(ask(client, "setPush", &nested), done);
        assert_eq!(
            ask(client, "setPush", &json!({"k": "none", "v": null})),
            done
        );
        assert_eq!(ask(client, "setPush", &json!({"k": "room", "v": 7})), done);
        let all = json!({"room": 7, "é\"\\\u{1}": nested["v"], "none": null});
        assert_eq!(
            settings(client).to_string(),
            all.to_string(),
            "the settings have the order in which they were set"
        );

        // As a frontend gets it: keys that are not mentioned stay.
        let sid = sid(client);
        let args = json!([sid, {"none": 0, "new": "n"}]);
        assert_eq!(
            remote(client, "sessionRemote", "pushAll", &args).0,
            Value::Null
        );
        let mut all = all;
        all["none"] = json!(0);
        all["new"] = json!("n");
        assert_eq!(settings(client).to_string(), all.to_string());
        assert_eq!(ask(client, "pushAll", &json!({"kv": {"room": "x"}})), done);
        all["room"] = json!("x");
        assert_eq!(settings(client).to_string(), all.to_string());

        // An object in the place of the key is taken as a whole.
        let args = json!([sid, {"new": 1, "newer": 2}, "ignored"]);
        assert_eq!(
            remote(client, "sessionRemote", "push", &args).0,
            Value::Null
        );
        all["new"] = json!(1);
        all["newer"] = json!(2);
        assert_eq!(settings(client).to_string(), all.to_string());
    }
    assert_eq!(whoami(&mut other)["settings"], json!({}), "somebody else's");
}

fn sessions_are_looked_up(setup: &mut Setup<'_>) {
    let uid = setup.uid("twin");
    let frontend = setup.frontend.id();
    let mut asking = setup.client();
    let mut clients = setup.clients();
    let mut expected = Vec::new();
    for (n, client) in (0..).zip(&mut clients) {
        let sid = sid(client);
        ask(client, "setPush", &json!({"k": "n", "v": n}));
        bind(client, &json!(uid));
        let session = json!({"id": sid, "frontendId": frontend, "uid": uid, "settings": {"n": n}});
        let found = ask(&mut asking, "bySid", &json!({"sid": sid}));
        assert_eq!(found, json!({"err": null, "session": session}));
        expected.push(session);
    }
    let found = ask(&mut asking, "byUid", &json!({"uid": uid}));
    let in_order = Value::from(expected.clone());
    assert_eq!(
        found,
        json!({"err": null, "sessions": in_order}),
        "in the order of binding"
    );

    // The first one leaves the list, the others stay in it.
    let unbound = ask(&mut clients[0], "unbind", &json!({"uid": uid}));
    assert_eq!(unbound["err"], Value::Null);
    let found = ask(&mut asking, "byUid", &json!({"uid": uid}));
    assert_eq!(found["sessions"], Value::from(expected.split_off(1)));

    let found = ask(&mut asking, "bySid", &json!({"sid": 99_999}));
    assert_eq!(found, json!({"err": null, "session": null}));
    let found = ask(&mut asking, "byUid", &json!({"uid": setup.uid("nobody")}));
    assert_eq!(found, json!({"err": null, "sessions": null}));
}

/// Ways to give a reason, and the kick package that the client gets.
fn kicks(dialect: Dialect) -> [(Value, Option<&'static str>); 6] {
    // Not even a null where the reason would be.
    let without = match dialect {
        Dialect::Pomelo => Some(r#"{"reason":"kick"}"#),
        Dialect::Pinus => None,
    };
    [
        (json!({}), without),
        (json!({"reason": "bye"}), Some(r#"{"reason":"bye"}"#)),
        (
            json!({"reason": "再见 \"\n"}),
            Some(r#"{"reason":"再见 \"\n"}"#),
        ),
        (json!({"reason": ""}), Some(r#"{"reason":""}"#)),
        (json!({"reason": null}), None),
        (json!({"reason": 7}), None),
    ]
}

fn a_session_is_kicked(setup: &mut Setup<'_>) {
    let mut kicker = setup.client();
    for (mut body, kick) in kicks(setup.dialect()) {
        let uid = setup.uid("victim");
        let mut victim = bound(setup, uid.as_str());
        let sid = sid(&mut victim);
        body["sid"] = json!(sid);
        assert_eq!(
            ask(&mut kicker, "kickSid", &body),
            json!({"err": null}),
            "{body}"
        );
        // Gone by the time of the answer, whether the client knows it or not.
        let found = ask(&mut kicker, "bySid", &json!({"sid": sid}));
        assert_eq!(found["session"], Value::Null);
        let found = ask(&mut kicker, "byUid", &json!({"uid": uid}));
        assert_eq!(found["sessions"], Value::Null);
        assert_end(&mut victim, kick);
        // And once more: nobody is there, which is not an error.
        assert_eq!(ask(&mut kicker, "kickSid", &body), json!({"err": null}));
    }
}

fn all_sessions_of_a_uid_are_kicked(setup: &mut Setup<'_>) {
    let mut kicker = bound(setup, setup.uid("kicker"));
    for (mut body, kick) in kicks(setup.dialect()) {
        let uid = setup.uid("victim");
        let mut victims = setup.clients();
        for victim in &mut victims {
            bind(victim, &json!(uid));
        }
        body["uid"] = json!(uid);
        assert_eq!(
            ask(&mut kicker, "kickUid", &body),
            json!({"err": null}),
            "{body}"
        );
        let found = ask(&mut kicker, "byUid", &json!({"uid": uid}));
        assert_eq!(found["sessions"], Value::Null);
        for victim in &mut victims {
            assert_end(victim, kick);
        }
        assert_eq!(ask(&mut kicker, "kickUid", &body), json!({"err": null}));
    }
}

fn a_session_that_kicks_itself_gets_no_answer(setup: &mut Setup<'_>) {
    for mut client in setup.clients() {
        let body = json!({"sid": sid(&mut client), "reason": "self"});
        client.request(1, "chat.chatHandler.kickSid", body.to_string());
        assert_end(&mut client, Some(r#"{"reason":"self"}"#));
    }
}

fn a_session_that_ended_is_gone(setup: &mut Setup<'_>) {
    let uid = setup.uid("leaving");
    let mut asking = setup.client();
    let mut leaving = bound(setup, uid.as_str());
    let mut staying = bound(setup, uid.as_str());
    let (left, stayed) = (sid(&mut leaving), sid(&mut staying));
    drop(leaving);
    let deadline = Instant::now() + HANG_GUARD;
    while ask(&mut asking, "bySid", &json!({"sid": left}))["session"] != Value::Null {
        assert!(
            Instant::now() < deadline,
            "the gateway did not notice the end"
        );
    }
    let found = ask(&mut asking, "byUid", &json!({"uid": uid}));
    assert_eq!(found["sessions"][0]["id"], stayed);
    assert_eq!(found["sessions"].as_array().map(Vec::len), Some(1));

    // Nobody gets its id, however many come.
    for mut client in setup.clients() {
        assert_ne!(sid(&mut client), left);
        let (err, _) = remote(&mut client, "sessionRemote", "bind", &json!([left, uid]));
        assert_eq!(err, format!("Error: session does not exist, sid: {left}"));
    }
}

fn an_error_has_its_text(setup: &mut Setup<'_>) {
    let mut client = setup.client();
    // As JavaScript writes them, whatever they are.
    for (sid, written) in [
        (json!(99_999), "99999"),
        (json!(0), "0"),
        (json!(-1), "-1"),
        (json!(1.5), "1.5"),
        (json!(9_007_199_254_740_991_u64), "9007199254740991"),
        (json!("nobody"), "nobody"),
        (json!(null), "null"),
        (json!(true), "true"),
    ] {
        for (method, args) in [
            ("bind", json!([sid, "x"])),
            ("unbind", json!([sid, "x"])),
            ("push", json!([sid, "k", 1])),
            ("pushAll", json!([sid, {"k": 1}])),
        ] {
            let (err, _) = remote(&mut client, "sessionRemote", method, &args);
            let text = format!("Error: session does not exist, sid: {written}");
            assert_eq!(err, text, "{method}");
        }
        for method in ["getBackendSessionBySid", "kickBySid"] {
            let (err, values) = remote(&mut client, "sessionRemote", method, &json!([sid]));
            assert_eq!(err, Value::Null, "{method}");
            assert!(
                values
                    .as_array()
                    .is_some_and(|v| v.iter().all(Value::is_null))
            );
        }
    }
    let empty = json!(["onX", null, ["x"], {"type": "push", "userOptions": {}, "isPush": true}]);
    let (err, _) = remote(&mut client, "channelRemote", "pushMessage", &empty);
    assert_eq!(err, "Error: can not send empty message.");
}

fn every_call_is_answered(setup: &mut Setup<'_>) {
    let dialect = setup.dialect();
    let is_tangelo = setup.frontend.kind().is_tangelo();
    let mut client = setup.client();
    let mut raw = |namespace: &str, service: &str, method: &str| {
        let call = json!({
            "namespace": namespace, "service": service, "method": method, "args": [1, "x"],
        });
        ask(&mut client, "remoteRaw", &call)["err"].clone()
    };
    assert_eq!(raw("nosuch", "a", "b"), "Error: no such namespace:nosuch");
    assert_eq!(raw("", "a", "b"), "Error: no such namespace:");
    assert_eq!(raw("sys", "nosuch", "b"), "Error: no such service:nosuch");
    assert_eq!(
        raw("sys", "msgRemote", "forwardMessage"),
        "Error: no such service:msgRemote"
    );
    assert_eq!(
        raw("sys", "sessionRemote", "nosuch"),
        "Error: no such method:nosuch"
    );
    assert_eq!(
        raw("sys", "channelRemote", "bind"),
        "Error: no such method:bind"
    );
    // Only the genuine application has remotes. A Pinus frontend has their namespace all the same.
    let user = match dialect {
        Dialect::Pomelo if is_tangelo => "Error: no such namespace:user",
        Dialect::Pomelo | Dialect::Pinus => "Error: no such service:a",
    };
    assert_eq!(raw("user", "a", "b"), user);
}

mod a_uid_has_one_session_if_so_configured {
    use super::*;

    const SINGLE: Knobs = Knobs {
        tangelo: &["--set", "session.duplicate_login=refuse"],
        genuine: &["singleSession=true"],
    };

    fn promise(setup: &mut Setup<'_>) {
        let uid = setup.uid("single");
        let mut first = bound(setup, uid.as_str());
        bind(&mut first, &json!(uid));
        let text = match setup.dialect() {
            Dialect::Pomelo => "already bind with uid:",
            Dialect::Pinus => "already bound with uid:",
        };
        let err = format!("Error: singleSession is enabled, and session has {text} {uid}");
        for second in &mut setup.clients() {
            let answer = ask(second, "bind", &json!({"uid": uid}));
            assert_eq!(answer, json!({"err": err, "uid": null}));
        }
        let answer = ask(&mut first, "unbind", &json!({"uid": uid}));
        assert_eq!(answer["err"], Value::Null);
        bound(setup, uid.as_str());
    }

    #[test]
    fn tangelo() {
        for dialect in Dialect::ALL {
            shared_with(SINGLE, dialect, &Kind::TANGELOS, promise);
        }
    }

    #[test]
    fn genuine() {
        for dialect in Dialect::ALL {
            shared_with(SINGLE, dialect, &[Kind::Genuine], promise);
        }
    }
}
