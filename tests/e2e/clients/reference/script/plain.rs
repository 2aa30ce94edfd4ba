//! `c-plain`, which has no options: every handler, and whatever a client may do wrong.

use super::*;
use crate::harness::client::{HEARTBEAT, Route};

pub(super) fn steps() -> Vec<Step> {
    let parts = [
        responses(),
        routes(),
        messages(),
        sessions(),
        odd_uids(),
        pushes(),
        kicks(),
        backend(),
        handshakes(),
        malformed(),
    ];
    parts.into_iter().flatten().collect()
}

#[rustfmt::skip]
fn responses() -> Vec<Step> {
    vec![
        open("a"),
        ask("a", "echo", r#"{"a":1}"#),
        ask("a", "echo", r#"{"b":{"c":[1,2.50,"x"]},"1":true}"#),
        ask("a", "echo", r#"{"__route__":"mine","a":1}"#),
        ask("a", "echo", "{"),
        ask("a", "echo", ""),
        ask("a", "echo", r#"{"s":"h\u00e9llo 世界 😀"}"#),
        ask("a", "echoProto", r#"{"a":1}"#),
        ask("a", "kind", "null"),
        ask("a", "kind", "0"),
        ask("a", "kind", "false"),
        ask("a", "kind", r#""""#),
        ask("a", "kind", "5"),
        ask("a", "kind", r#""x""#),
        ask("a", "kind", "true"),
        ask("a", "kind", r#"{"n":12345678901234567890,"m":-0.0,"e":1e21}"#),
        ask("a", "route", "{}"),
        ask("a", "route", "7"),
        ask("a", "args", r#"[1,"b"]"#),
        ask("a", "noResp", "{}"),
        ask("a", "undefResp", "{}"),
        ask("a", "arrResp", "{}"),
        ask("a", "strResp", "{}"),
        ask("a", "numResp", "{}"),
        ask("a", "zeroResp", "{}"),
        ask("a", "falseResp", "{}"),
        ask("a", "utf8", "{}"),
        ask("a", "opts", "{}"),
        ask("a", "errOnly", "{}"),
        ask("a", "errResp", "{}"),
        ask("a", "errCode", "{}"),
        ask("a", "errCode0", "{}"),
        ask("a", "errStr", "{}"),
        ask("a", "errStrResp", "{}"),
        ask("a", "twice", "{}"),
        try_ask("a", "connector.entryHandler.never", "{}"),
        ask_all("a", &[
            ("slow", r#"{"ms":240,"tag":"a"}"#),
            ("slow", r#"{"ms":120,"tag":"b"}"#),
            ("slow", r#"{"ms":1,"tag":"c"}"#),
        ]),
        notify("a", "echo", r#"{"a":1}"#),
        notify("a", "noResp", "{}"),
        notify("a", "errOnly", "{}"),
        notify("a", "nosuch", "{}"),
        open("deaf"),
        step("deaf", "asks throwErr", Act::Send(vec![request(1, "throwErr", "{}")], Wait::Deaf)),
    ]
}

#[rustfmt::skip]
fn routes() -> Vec<Step> {
    let mut steps: Vec<Step> = [
        // None: no answer.
        "", "a", ".b.c", ".", "..",
        // Not three parts.
        "connector.", "connector.entryHandler", "a.b.c.d",
        // Three parts, and nothing there.
        "connector..x", "connector.entryHandler.", "connector.entryHandler.nosuch",
        "connector.nosuch.echo", "Connector.entryHandler.echo", " connector.entryHandler.echo",
        "connector.entryHandler.echo ", "x.y.z",
        // Members of every JavaScript object.
        "connector.entryHandler.toString", "connector.toString.call",
    ].iter().map(|route| try_ask("a", route, "{}")).collect();
    steps.extend(opens_and_asks_last("k", "connector.entryHandler.constructor", "{}"));
    steps.extend(opens_and_asks_last("k", "x.y.constructor", "{}"));
    steps.push(open("k"));
    let attack = encode_message(None, "chat.chatHandler.constructor".into(), b"{}");
    steps.push(data("k", "a notify to a constructor", &attack, Wait::End));
    steps
}

/// Packages and messages that a working connection takes, or passes over.
#[rustfmt::skip]
fn messages() -> Vec<Step> {
    let echo = b"connector.entryHandler.echo";
    let with = |flag: &[u8], body: &[u8]| [flag, &[27], echo, body].concat();
    vec![
        send("a", "another ack", [2, 0, 0, 0], Wait::Fence),
        handshake("a", HELLO, Wait::Fence),
        send("a", "a heartbeat", encode_package(HEARTBEAT, b""), Wait::Fence),
        data("a", "a push", &with(&[6], b"{}"), Wait::Fence),
        data("a", "a response", &[4, 1, b'{', b'}'], Wait::Fence),
        data("a", "a message of type 7", &[14, 1], Wait::Fence),
        data("a", "the gzip flag", &with(&[0x10, 1], b"{}"), Wait::Answers(vec![1])),
        data("a", "unused flags", &with(&[0xe0, 1], b"{}"), Wait::Answers(vec![1])),
        data("a", "a request with id 0", &with(&[0, 0], b"{}"), Wait::Fence),
        data("a", "the largest id", &with(&[0, 0xff, 0xff, 0xff, 0xff, 7], b"{}"),
            Wait::Messages(1)),
        data("a", "a long id of a small number", &with(&[0, 0x81, 0], b"{}"), Wait::Messages(1)),
        ask("a", "kind", &format!(r#"{{"long":"{}"}}"#, "0123456789".repeat(7000))),
        try_ask("a", &"r".repeat(255), "{}"),
        try_ask("a", &format!("connector.{}.x", "é".repeat(120)), "{}"),
        data("a", "an id of two bytes", &with(&[0, 0x80, 2], b"{}"), Wait::Messages(1)),
        data("a", "a code without a dictionary", &[1, 1, 0, 1, b'{', b'}'], Wait::Fence),
        data("a", "a body that is not UTF-8", &with(&[0, 1], b"{\"s\":\"\xff\xc3\"}"),
            Wait::Answers(vec![1])),
        data("a", "a byte order mark", &with(&[0, 1], b"\xef\xbb\xbf{\"a\":1}"),
            Wait::Answers(vec![1])),
        data("a", "one key twice", &with(&[0, 1], br#"{"a":1,"b":2,"a":3}"#),
            Wait::Answers(vec![1])),
    ]
}

#[rustfmt::skip]
fn sessions() -> Vec<Step> {
    vec![
        ask("a", "exportS", "{}"),
        ask("a", "setnp", r#"{"k":"x","v":1}"#),
        ask("a", "exportS", "{}"),
        ask("a", "setp", r#"{"k":"room","v":{"n":[1,2]}}"#),
        ask("a", "getp", r#"{"k":"room"}"#),
        ask("a", "getp", r#"{"k":"x"}"#),
        ask("a", "pushall", r#"{"kv":{"y":"two","room":3,"5":null}}"#),
        ask("a", "exportS", "{}"),
        ask("a", "enter", r#"{"uid":"u1"}"#),
        ask("a", "enter", r#"{"uid":"u1"}"#),
        ask("a", "enter", r#"{"uid":"u2"}"#),
        ask("a", "exportS", "{}"),
        ask("a", "unbind", r#"{"uid":"u2"}"#),
        ask("a", "unbind", r#"{"uid":"u1"}"#),
        ask("a", "unbind", r#"{"uid":"u1"}"#),
        ask("a", "enter", r#"{"uid":7}"#),
        ask("a", "exportS", "{}"),
        ask("a", "unbind", r#"{"uid":"7"}"#),
        ask("a", "unbind", r#"{"uid":7}"#),
        ask("a", "addr", "{}"),
        settle("a", 1, 0),
        ask("a", "stat", "{}"),
        ask("a", "sess", "{}"),
        // Two sessions of one user.
        open("b"),
        ask("a", "enter", r#"{"uid":"u1"}"#),
        ask("b", "enter", r#"{"uid":"u1"}"#),
        ask("a", "sess", "{}"),
        ask("a", "stat", "{}"),
        // The login goes with the first of them.
        leave("b"),
        settle("a", 1, 1),
        ask("a", "sess", "{}"),
        ask("a", "stat", "{}"),
        ask("a", "unbind", r#"{"uid":"u1"}"#),
    ]
}

/// Uids that are not texts, and a missing one.
#[rustfmt::skip]
fn odd_uids() -> Vec<Step> {
    let chat = |method: &str, body: &str| ask("b", &format!("chat.chatHandler.{method}"), body);
    vec![
        open("b"),
        ask("b", "enter", r#"{"uid":9.50}"#),
        ask("b", "exportS", "{}"),
        ask("b", "stat", "{}"),
        chat("push", r#"{"uid":9.5,"route":"onChat","msg":{"m":1}}"#),
        chat("push", r#"{"uid":"9.5","route":"onChat","msg":{"m":2}}"#),
        chat("bind", r#"{"uid":"9.5"}"#),
        ask("b", "unbind", r#"{"uid":9.5}"#),
        chat("setPush", "{}"),
        chat("setPush", r#"{"room":"\u2028é\"\\"}"#),
        ask("b", "exportS", "{}"),
        ask("b", "enter", r#"{"uid":"zoë"}"#),
        ask("b", "sess", "{}"),
        ask("a", "kickUid", r#"{"uid":"zoë","reason":"\u0001é😀"}"#).heard("b", TO_THE_END),
        open("b"),
        ask("b", "enter", r#"{"uid":11}"#),
        ask("a", "kickUid", r#"{"uid":"11","reason":"by its text"}"#).heard("b", TO_THE_END),
        open("b"),
        ask("b", "enter", r#"{"uid":""}"#),
        ask("b", "exportS", "{}"),
        ask("b", "unbind", r#"{"uid":""}"#),
        ask("b", "enter", r#"{"uid":0}"#),
        ask("b", "exportS", "{}"),
        ask("b", "enter", r#"{"uid":"u9"}"#),
        ask("b", "stat", r#"{"after":"odd uids"}"#),
        leave("b"),
        settle("a", 1, 0),
    ]
}

#[rustfmt::skip]
fn pushes() -> Vec<Step> {
    let chat = r#"{"route":"onChat","body":{"m":"hi"}}"#;
    let bound = r#"{"route":"onAdd","body":{"m":1},"opts":{"binded":true}}"#;
    vec![
        ask("a", "connSend", chat),
        ask("a", "connSend", r#"{"route":"x","body":[1]}"#),
        ask("a", "connSend", r#"{"body":{"m":1}}"#),
        ask("a", "connSend", r#"{"route":"onChat","body":0}"#),
        ask("a", "pushN", r#"{"n":3}"#),
        ask("a", "pushN", r#"{"n":0}"#),
        open("b"),
        open("c"),
        ask("b", "enter", r#"{"uid":"u1"}"#),
        ask("c", "enter", r#"{"uid":"u3"}"#),
        ask("a", "bcast", chat).heard("b", 1).heard("c", 1),
        ask("a", "bcast", bound).heard("b", 1).heard("c", 1),
        ask("a", "enter", r#"{"uid":"u1"}"#),
        ask("c", "bcast", bound).heard("a", 1).heard("b", 1),
        ask("a", "unbind", r#"{"uid":"u1"}"#),
        ask("c", "bcast", r#"{"route":"onAdd","body":{"m":2},"opts":{"binded":true}}"#)
            .heard("b", 1),
        leave("c"),
        leave("b"),
        settle("a", 1, 0),
    ]
}

#[rustfmt::skip]
fn kicks() -> Vec<Step> {
    let mut steps = Vec::new();
    for (method, body) in [
        ("kickSelf", r#"{"reason":"go"}"#),
        ("kickSelf", r#"{"reason":""}"#),
        ("kickSelf", r#"{"reason":5}"#),
        ("kickSelf", "{}"),
        ("kickCb", "{}"),
        ("kickNoReason", "{}"),
        ("respThenKick", "{}"),
        ("pushThenKick", "{}"),
    ] {
        steps.extend(opens_and_asks_last("k", method, body));
    }
    steps.extend([
        ask("a", "kickUid", r#"{"uid":"nobody","reason":"x"}"#),
        // All sessions of a user.
        open("b"),
        open("c"),
        ask("b", "enter", r#"{"uid":"twin"}"#),
        ask("c", "enter", r#"{"uid":"twin"}"#),
        ask("a", "kickUid", r#"{"uid":"twin","reason":"out"}"#)
            .heard("b", TO_THE_END)
            .heard("c", TO_THE_END),
        open("b"),
        ask("b", "enter", r#"{"uid":8}"#),
        ask("a", "kickUid", r#"{"uid":8}"#).heard("b", TO_THE_END),
        // Oneself.
        open("b"),
        ask("b", "enter", r#"{"uid":"own"}"#),
        ask_last("b", "kickUid", r#"{"uid":"own","reason":"self"}"#),
        settle("a", 1, 0),
        ask("a", "sess", r#"{"after":"kicks"}"#),
    ]);
    steps
}

#[rustfmt::skip]
fn backend() -> Vec<Step> {
    let on = |method: &str| format!("chat.chatHandler.{method}");
    let ask = |client, method: &str, body: &str| ask(client, &on(method), body);
    let push = |uid: &str| format!(r#"{{"uid":"{uid}","route":"onChat","msg":{{"m":"hi"}}}}"#);
    vec![
        open("b"),
        ask("b", "send", r#"{"x":1.50,"s":"h\u00e9llo"}"#),
        ask("b", "send", "5"),
        ask("b", "noResp", "{}"),
        ask("b", "errOnly", "{}"),
        ask("b", "errResp", "{}"),
        ask("b", "nosuch", "{}"),
        self::ask("b", "chat.nosuch.send", "{}"),
        ask("b", "setPush", r#"{"room":"red"}"#),
        self::ask("b", "exportS", "{}"),
        ask("b", "bind", r#"{"uid":"u5"}"#),
        ask("b", "bind", r#"{"uid":"u6"}"#),
        ask("b", "send", "{}"),
        self::ask("b", "exportS", "{}"),
        ask("b", "push", &push("u5")),
        ask("b", "push", &push("nobody")),
        ask("a", "push", &push("u5")).heard("b", 1),
        data("b", "a notify that pushes", &encode_message(
            None, Route::Name(&on("push")), push("u5").as_bytes()), Wait::Messages(1)),
        notify("b", &on("send"), "{}"),
        ask("a", "kick", r#"{"uid":"nobody","reason":"x"}"#),
        ask("a", "kick", r#"{"uid":"u5","reason":"chat says so"}"#)
            .heard("b", TO_THE_END),
        open("b"),
        ask_last("b", &on("kickSid"), r#"{"reason":"by id"}"#),
        settle("a", 1, 0),
    ]
}

#[rustfmt::skip]
fn handshakes() -> Vec<Step> {
    let mut steps = Vec::new();
    for body in [
        "", "{", "null", "5", "[]", "{}", r#"{"sys":0}"#, r#"{"sys":false}"#, r#"{"sys":""}"#,
        r#"{"user":{}}"#,
    ] {
        steps.extend(refused("h", body));
    }
    for body in [
        HELLO, r#"{"sys":"x"}"#, r#"{"sys":true}"#, r#"{"sys":[]}"#, r#"{"sys":{}}"#,
        r#"{"sys":{"dictVersion":"x","protoVersion":"y","rsa":{}},"user":{"fail":1}}"#,
    ] {
        steps.extend([opens_with("h", body), leave("h")]);
    }
    steps.extend([
        // Before the handshake nothing else counts; before the ack no message does.
        connect("h"),
        send("h", "an early ack", [2, 0, 0, 0], Wait::Nothing),
        send("h", "an early heartbeat", [3, 0, 0, 0], Wait::Nothing),
        send("h", "an early request", request(1, "echo", "{}"), Wait::Nothing),
        handshake("h", HELLO, Wait::Messages(1)),
        handshake("h", HELLO, Wait::Nothing),
        send("h", "a request before the ack", request(1, "echo", "{}"), Wait::Nothing),
        send("h", "an ack with a body", [2, 0, 0, 1, 7], Wait::Fence),
        ask("h", "echo", r#"{"late":1}"#),
        leave("h"),
    ]);
    steps
}

/// Bytes that end a connection. A script has no bytes that hang the whole reference, or that it fills up
/// from its memory: `tests/vectors/malformed.rs` has those.
#[rustfmt::skip]
fn malformed() -> Vec<Step> {
    let echo = request(1, "echo", "{}");
    let mut steps = Vec::new();
    for (what, bytes) in [
        ("an unknown type", vec![9, 0, 0, 0]),
        ("a kick", vec![5, 0, 0, 0]),
        ("two packages", [echo.clone(), echo.clone()].concat()),
        ("a byte behind a package", [&echo[..], &[0]].concat()),
        ("an empty message", vec![]),
    ] {
        steps.extend([open("m"), send("m", what, bytes, Wait::End)]);
    }
    for (what, bytes) in [
        ("an empty data package", vec![4, 0, 0, 0]),
        ("a flag without its code", vec![4, 0, 0, 1, 3]),
        ("a route past the end", vec![4, 0, 0, 4, 0, 1, 50, b'a']),
    ] {
        steps.extend([open("m"), send("m", what, bytes, Wait::Deaf)]);
    }
    steps.extend([settle("a", 1, 0), ask("a", "echo", r#"{"still":"here"}"#)]);
    steps
}
