//! The other servers: what their options change.

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::harness::client::{HEARTBEAT, Route};

#[rustfmt::skip]
pub(super) fn heartbeat() -> Vec<Step> {
    let beat = |client| {
        send(client, "a heartbeat", encode_package(HEARTBEAT, b""), Wait::Messages(1))
    };
    vec![
        open("a"),
        beat("a"),
        send("a", "a heartbeat with a body", encode_package(HEARTBEAT, b"x"), Wait::Messages(1)),
        send("a", "another ack", [2, 0, 0, 0], Wait::Fence),
        ask("a", "echo", r#"{"a":1}"#),
        send("a", "nothing more", encode_package(DATA, &encode_message(
            None, Route::Name("connector.entryHandler.noResp"), b"{}")), Wait::End),
        connect("b"),
        send("b", "a heartbeat before the handshake", [3, 0, 0, 0], Wait::Nothing),
        handshake("b", HELLO, Wait::Messages(1)),
        send("b", "a heartbeat before the ack", [3, 0, 0, 0], Wait::Nothing),
        send("b", "an ack", [2, 0, 0, 0], Wait::Fence),
        beat("b"),
        ask_last("b", "kickSelf", r#"{"reason":"enough"}"#),
    ]
}

#[rustfmt::skip]
pub(super) fn distinct_host() -> Vec<Step> {
    vec![
        open("a"),
        ask("a", "addr", "{}"),
        ask("a", "enter", r#"{"uid":"u1"}"#),
        ask("a", "stat", "{}"),
        ask("a", "chat.chatHandler.send", "{}"),
        send("a", "a last heartbeat", [3, 0, 0, 0], Wait::End),
    ]
}

#[rustfmt::skip]
pub(super) fn dictionary() -> Vec<Step> {
    let by_code = |method: &str, body: &[u8]| {
        encode_message(Some(1), code(&route(method)).into(), body)
    };
    let asks = |method: &str, what: &str, body: &[u8], wait| {
        data("a", &format!("{method} by its code, {what}"), &by_code(method, body), wait)
    };
    let answered = || Wait::Answers(vec![1]);
    let point = b"\x22\x0b\x08\x06\x11\0\0\0\0\0\0\xf8\x3f";
    let full = [&b"\x08\x0a\x12\x03h\xc3\xa9\x18\x02\x01\xac\x02"[..], point,
        b"\x2a\x02\x08\x01\x2a\x02\x08\x04\x32\x01x\x32\0"].concat();
    let mut steps = vec![
        open("a"),
        opens_with("b", r#"{"sys":{"dictVersion":"<dictVersion>"}}"#),
        leave("b"),
        opens_with("b", r#"{"sys":{"protoVersion":"<protoVersion>"}}"#),
        leave("b"),
        opens_with("b",
            r#"{"sys":{"dictVersion":"<dictVersion>","protoVersion":"<protoVersion>"}}"#),
        leave("b"),
        opens_with("b", r#"{"sys":{"dictVersion":"x","protoVersion":0}}"#),
        leave("b"),
        opens_with("b", r#"{"sys":{},"user":{"want":{"a":[1]}}}"#),
        leave("b"),
        opens_with("b", r#"{"sys":{},"user":{"want":0}}"#),
        leave("b"),
        // Routes as codes.
        asks("echo", "JSON", br#"{"a":1}"#, answered()),
        asks("chat.chatHandler.noResp", "JSON", b"{}", answered()),
        asks("chat.chatHandler.virtual", "no handler", b"{}", answered()),
        data("a", "onAdd by its code, no route", &encode_message(
            Some(1), code("onAdd").into(), b"{}"), Wait::Fence),
        data("a", "code 0", &[1, 1, 0, 0, b'{', b'}'], Wait::Fence),
        data("a", "a code of nobody", &[1, 1, 0xff, 0xff, b'{', b'}'], Wait::Fence),
        ask("a", "echo", r#"{"by":"name"}"#),
        // Bodies with protos.
        asks("echoProto", "all fields", &full, answered()),
        asks("echoProto", "one field", b"\x08\x09", answered()),
        asks("echoProto", "no field", b"", answered()),
        asks("echoProto", "one field twice", b"\x08\x02\x08\x04", answered()),
        data("a", "echoProto by its name", &encode_message(
            Some(1), "connector.entryHandler.echoProto".into(), b"\x08\x02"), answered()),
        asks("chat.chatHandler.send", "protobuf for a backend",
            b"\x0a\x02hi\x15\0\0\xc0\x3f", answered()),
        asks("chat.chatHandler.send", "protobuf, a notify's worth of nothing", b"", answered()),
        // Pushes.
        ask("a", "connSend", r#"{"route":"onAdd","body":{"m":1}}"#),
        ask("a", "connSend", r#"{"route":"onChat","body":{"from":"a","msg":"h\u00e9","ts":300}}"#),
        ask("a", "connSend", r#"{"route":"onChat","body":{"ts":1,"msg":"x","from":"b","z":1}}"#),
        ask("a", "connSend", r#"{"route":"onChat","body":{"from":"a"}}"#),
        ask("a", "connSend", r#"{"route":"onTop","body":{"t":{"a":"x"}}}"#),
        ask("a", "connSend", r#"{"route":"onOther","body":{"t":1}}"#),
        ask("a", "bcast", r#"{"route":"onChat","body":{"from":"a","msg":"all"}}"#),
        ask("a", "pushN", r#"{"n":1}"#),
    ];
    steps.extend(refused("b", r#"{"sys":{},"user":{"fail":true}}"#));
    steps.extend(refused("b", r#"{"sys":{"type":"bad"}}"#));
    for (what, body) in [
        ("an unknown tag", &b"\x7a\x01"[..]),
        ("a cut number", b"\x08\x80"),
    ] {
        let message = by_code("echoProto", body);
        steps.extend([open("m"), data("m", &format!("echoProto, {what}"), &message, Wait::Deaf)]);
    }
    steps
}

/// `sys.rsa` and a body of a vector.
pub(super) fn signed(name: &str) -> (Value, String) {
    let file = include_str!("../../../../vectors/client/rsa.json");
    let file: Value = serde_json::from_str(file).expect("a file of vectors");
    let cases = file["cases"].as_array().expect("cases");
    let case = cases.iter().find(|case| case["name"] == name);
    let case = case.unwrap_or_else(|| panic!("no case {name}"));
    let rsa = serde_json::json!({"rsa_n": case["rsa_n"], "rsa_e": case["rsa_e"]});
    (
        rsa,
        case["body_received"].as_str().expect("a text").to_owned(),
    )
}

#[rustfmt::skip]
pub(super) fn crypto() -> Vec<Step> {
    let hello = |rsa: &str| format!(r#"{{"sys":{{"rsa":{rsa}}}}}"#);
    let (rsa, empty) = signed("empty object");
    let echo = |client, what: &str, body: &str, wait| {
        let message = encode_message(Some(1), Route::Name(&route("echo")), body.as_bytes());
        data(client, &format!("echo signed: {what}"), &message, wait)
    };
    let mut steps = vec![opens_with("a", &hello(&rsa.to_string()))];
    for name in [
        "k1024 sha256", "k1024 sha1", "k1024 sha512", "empty object", "latin", "emoji", "han",
        "han key", "range edge 4e00", "range edge 9fa5", "just outside 9fa6", "just outside 4dff",
        "upper-case hex", "hex with colons", "whitespace in received body",
        "numbers are re-printed", "integer-like keys move first", "duplicate keys",
        "escapes are normalised", "one nibble flipped", "too short", "empty",
    ] {
        steps.push(echo("a", name, &signed(name).1, Wait::Fence));
    }
    for name in ["k512 sha256", "k512 md5", "k2048 sha256", "k2048 sha512"] {
        let (rsa, body) = signed(name);
        let shake = encode_package(HANDSHAKE, hello(&rsa.to_string()).as_bytes());
        steps.extend([
            connect("k"),
            send("k", "a handshake with another key", shake, Wait::Messages(1)),
            send("k", "an ack", [2, 0, 0, 0], Wait::Nothing),
            echo("k", name, &body, Wait::Messages(1)),
            leave("k"),
        ]);
    }
    steps.extend([
        echo("a", "unsigned", r#"{"a":1}"#, Wait::Fence),
        echo("a", "no JSON", "{", Wait::Fence),
        echo("a", "a number", "5", Wait::Fence),
        echo("a", "another one's signature",
            &signed("k2048 sha256").1, Wait::Fence),
        data("a", "exportS signed", &encode_message(
            Some(1), Route::Name(&route("exportS")), empty.as_bytes()), Wait::Answers(vec![1])),
        data("a", "a notify, signed", &encode_message(
            None, Route::Name(&route("echo")), empty.as_bytes()), Wait::Fence),
        data("a", "a message for a backend, signed", &encode_message(
            Some(1), Route::Name("chat.chatHandler.noResp"), empty.as_bytes()),
            Wait::Answers(vec![1])),
    ]);
    for (what, body) in [("a signature that is not a text", r#"{"__crypto__":5}"#), ("null", "null")] {
        steps.extend([
            opens_with("m", &hello(&rsa.to_string())),
            echo("m", what, body, Wait::Deaf),
        ]);
    }
    // No key: nothing that comes counts.
    let shake = encode_package(HANDSHAKE, hello("{}").as_bytes());
    steps.extend([
        connect("n"),
        send("n", "a handshake with an empty key", shake, Wait::Messages(1)),
        send("n", "an ack", [2, 0, 0, 0], Wait::Nothing),
        echo("n", "without a key", &empty, Wait::Silence),
        leave("n"),
    ]);
    steps.extend(refused("n", r#"{"sys":{}}"#));
    steps
}

#[rustfmt::skip]
pub(super) fn timeouts() -> Vec<Step> {
    vec![
        open("a"),
        // One at a time.
        ask_all("a", &[
            ("slow", r#"{"ms":150,"tag":"a"}"#),
            ("slow", r#"{"ms":1,"tag":"b"}"#),
            ("noResp", "{}"),
        ]),
        ask_all("a", &[("errOnly", "{}"), ("nosuch", "{}"), ("echo", "{}")]),
        // Two clients do not wait for each other.
        open("b"),
        ask("b", "slow", r#"{"ms":1,"tag":"c"}"#),
        // Too late: the next one starts, and the answer gets a code.
        ask_all("a", &[("slow", r#"{"ms":600,"tag":"d"}"#), ("slow", r#"{"ms":1,"tag":"e"}"#)]),
        ask_all("a", &[
            ("slow", r#"{"ms":500,"tag":"f"}"#),
            ("chat.chatHandler.noResp", "{}"),
        ]),
        // Longer than `timeout`, which is for raw TCP.
        step("a", "rests", Act::Rest(Duration::from_millis(2400))),
        ask("a", "echo", "{}"),
        // Messages behind a kick are never handled.
        step("b", "asks for a kick behind something slow", Act::Send(vec![
            request(1, "slow", r#"{"ms":100,"tag":"g"}"#),
            request(2, "kickSelf", r#"{"reason":"now"}"#),
            request(3, "echo", "{}"),
        ], Wait::End)),
    ]
}

#[rustfmt::skip]
pub(super) fn buffer() -> Vec<Step> {
    let pushed = |method: &str, body: &str| {
        let message = encode_message(None, Route::Name(&route(method)), body.as_bytes());
        data("a", &format!("{method} {body}"), &message, Wait::Messages(1)).heard("b", 1)
    };
    vec![
        open("a"),
        ask("a", "echo", r#"{"a":1}"#),
        ask("a", "pushN", r#"{"n":3}"#),
        ask("a", "connSend", r#"{"route":"onChat","body":{"m":1}}"#),
        ask("a", "connSend", r#"{"route":"onChat","body":0}"#),
        ask("a", "twice", "{}"),
        open("b"),
        ask("a", "enter", r#"{"uid":"u1"}"#),
        ask("b", "enter", r#"{"uid":"u1"}"#),
        // Notifies: whether a response that comes later is in the same message, is chance.
        pushed("bcast", r#"{"route":"onAdd","body":{"m":1}}"#),
        // A user with two sessions gets one copy in each.
        pushed("bcast", r#"{"route":"onAdd","body":{"m":2},"opts":{"binded":true}}"#),
        pushed("chat.chatHandler.push", r#"{"uid":"u1","route":"onChat","msg":{"m":1}}"#),
        // A kick overtakes what waits, and that is lost.
        ask_last("b", "pushThenKick", "{}"),
        open("b"),
        ask_last("b", "respThenKick", "{}"),
        open("b"),
        ask_last("b", "kickSelf", r#"{"reason":"now"}"#),
    ]
}

#[rustfmt::skip]
pub(super) fn single() -> Vec<Step> {
    vec![
        open("a"),
        open("b"),
        ask("a", "enter", r#"{"uid":"u1"}"#),
        ask("b", "enter", r#"{"uid":"u1"}"#),
        ask("a", "enter", r#"{"uid":"u1"}"#),
        ask("a", "enter", r#"{"uid":"u2"}"#),
        ask("b", "chat.chatHandler.bind", r#"{"uid":"u1"}"#),
        ask("b", "enter", r#"{"uid":"u2"}"#),
        ask("a", "unbind", r#"{"uid":"u1"}"#),
        ask("a", "enter", r#"{"uid":"u2"}"#),
        ask("a", "sess", "{}"),
        leave("b"),
        settle("a", 1, 0),
        ask("a", "enter", r#"{"uid":"u2"}"#),
        ask("a", "sess", "{}"),
    ]
}

#[rustfmt::skip]
pub(super) fn max_connections() -> Vec<Step> {
    vec![
        open("a"),
        ask("a", "stat", "{}"),
        open("b"),
        ask("a", "stat", "{}"),
        connect("c"),
        send("c", "a handshake, too late", encode_package(HANDSHAKE, HELLO.as_bytes()), Wait::End),
        ask("b", "echo", r#"{"b":1}"#),
        settle("a", 2, 0),
        ask("a", "stat", r#"{"after":"the refusal"}"#),
        leave("b"),
        settle("a", 1, 0),
        connect("d"),
        send("d", "a handshake in time", encode_package(HANDSHAKE, HELLO.as_bytes()),
            Wait::Messages(1)),
        leave("d"),
    ]
}

#[rustfmt::skip]
pub(super) fn host_filter() -> Vec<Step> {
    let list = |list, served| {
        step("the file", format!("lists {list:?}"), Act::Blacklist(list, served))
    };
    let hello = || encode_package(HANDSHAKE, HELLO.as_bytes());
    vec![
        open("a"),
        ask("a", "addr", "{}"),
        list("127\\.0\\.0\\.1\n", false),
        connect("b"),
        send("b", "a handshake", hello(), Wait::End),
        // A client that is in stays in.
        ask("a", "echo", r#"{"still":"in"}"#),
        list("^127\n^10\\.\n", true),
        open("b"),
        ask("b", "echo", "{}"),
        list("^::ffff:127", false),
        connect("c"),
        send("c", "a handshake", hello(), Wait::End),
        list("", true),
        open("c"),
        ask("c", "echo", "{}"),
    ]
}

#[rustfmt::skip]
pub(super) fn filters() -> Vec<Step> {
    let mut steps = vec![open("a")];
    for (index, (method, body)) in [
        ("echo", r#""a":1"#),
        ("echo", r#""stop":"gb""#),
        ("echo", r#""stop":"b""#),
        ("echo", r#""afterErr":1"#),
        ("errOnly", r#""a":1"#),
        ("errOnly", r#""afterClear":1"#),
        ("errCode", r#""afterClear":1"#),
        ("noResp", r#""afterErr":1"#),
        ("nosuch", r#""a":1"#),
        ("chat.chatHandler.noResp", r#""a":1"#),
        ("chat.chatHandler.errResp", r#""a":1"#),
        ("chat.chatHandler.send", r#""stop":"gb""#),
        ("chat.chatHandler.noResp", r#""stop":"b""#),
        ("x.y.z", r#""a":1"#),
        ("connector.entryHandler", r#""a":1"#),
    ].into_iter().enumerate() {
        let body = format!(r#"{{{body},"log":"{index}"}}"#);
        steps.push(ask("a", method, &body));
        steps.push(ask("a", "log", &format!(r#"{{"name":"{index}"}}"#)));
    }
    steps.extend([
        notify("a", "echo", r#"{"log":"notify"}"#),
        ask("a", "log", r#"{"name":"notify"}"#),
        ask("a", "clearLog", "{}"),
        ask("a", "log", r#"{"name":"notify"}"#),
        ask_last("a", "x.y.constructor", r#"{"log":"attack"}"#),
        open("b"),
        ask("b", "log", r#"{"name":"attack"}"#),
    ]);
    steps
}

#[rustfmt::skip]
pub(super) fn error_handlers() -> Vec<Step> {
    vec![
        open("a"),
        ask("a", "echo", r#"{"a":1}"#),
        ask("a", "errOnly", "{}"),
        ask("a", "errResp", "{}"),
        ask("a", "errCode", "{}"),
        ask("a", "errCode0", "{}"),
        ask("a", "errStrResp", "{}"),
        ask("a", "errStr", "{}"),
        ask("a", "nosuch", "{}"),
        ask("a", "echo", r#"{"stop":"gb"}"#),
        ask("a", "chat.chatHandler.errResp", "{}"),
        ask("a", "chat.chatHandler.send", r#"{"stop":"gb"}"#),
        ask("a", "x.y.z", "{}"),
        ask("a", "connector.entryHandler", "{}"),
        notify("a", "errOnly", "{}"),
    ]
}
