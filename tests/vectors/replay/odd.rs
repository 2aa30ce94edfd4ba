//! Calls that no genuine backend makes. Some of them a genuine frontend never answers, and the caller
//! waits for its time-out; here each one is answered, an impossible one with an error.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tangelo::config::Dialect;

use super::BACKENDS;
use super::frontend::Frontend;
use super::link::{Link, frame, payload};

const NO_SESSION: &str = "session does not exist, sid: ";
const NO_LIST: &str = "args is not an array";
const NO_MESSAGE: &str = "can not send empty message.";

/// Service, method, arguments, and how the text of the error begins; `None`: there is nothing to do.
#[rustfmt::skip]
const CALLS: &[(&str, &str, &str, Option<&str>)] = &[
    ("sessionRemote", "bind", "[]", Some(NO_SESSION)),
    ("sessionRemote", "bind", "null", Some(NO_LIST)),
    ("sessionRemote", "bind", "{}", Some(NO_LIST)),
    ("sessionRemote", "bind", r#""text""#, Some(NO_LIST)),
    ("sessionRemote", "bind", r#"[null,"x"]"#, Some(NO_SESSION)),
    ("sessionRemote", "bind", r#"[{},"x"]"#, Some(NO_SESSION)),
    ("sessionRemote", "bind", r#"[[1],"x"]"#, Some(NO_SESSION)),
    ("sessionRemote", "bind", r#"[true,"x"]"#, Some(NO_SESSION)),
    ("sessionRemote", "bind", r#"[1e300,"x"]"#, Some(NO_SESSION)),
    ("sessionRemote", "unbind", "[]", Some(NO_SESSION)),
    ("sessionRemote", "push", "[]", Some(NO_SESSION)),
    ("sessionRemote", "pushAll", "[]", Some(NO_SESSION)),
    ("sessionRemote", "pushAll", "[1,7]", Some(NO_SESSION)),
    ("sessionRemote", "kickBySid", "[]", None),
    ("sessionRemote", "kickBySid", r#"[{},{}]"#, None),
    ("sessionRemote", "kickByUid", "[]", None),
    ("sessionRemote", "getBackendSessionBySid", "[]", None),
    ("sessionRemote", "getBackendSessionsByUid", "[]", None),
    ("sessionRemote", "getBackendSessionsByUid", "[{}]", None),
    ("channelRemote", "pushMessage", "[]", Some(NO_MESSAGE)),
    ("channelRemote", "pushMessage", r#"["r",0,["x"],{}]"#, Some(NO_MESSAGE)),
    ("channelRemote", "broadcast", "7", Some(NO_LIST)),
    ("nosuch", "bind", "[]", Some("no such service:nosuch")),
    ("sessionRemote", "nosuch", "[]", Some("no such method:nosuch")),
];

#[test]
fn odd_calls_are_answered() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        let nothing = match dialect {
            Dialect::Pomelo => json!([]),
            Dialect::Pinus => json!([null, null]),
        };
        let keepalive = Duration::from_secs(10);
        let frontend = Frontend::start("connector-1", dialect, BACKENDS, keepalive);
        let mut link =
            Link::new(TcpStream::connect(frontend.rpc).expect("the gateway listens for calls"));
        for (service, method, args, error) in CALLS {
            let args: Value = serde_json::from_str(args).expect("JSON");
            let call = json!({"id": 5, "msg": {
                "namespace": "sys", "service": service, "method": method, "args": args,
            }});
            link.send(&frame(&call));
            let answer = payload(&link.next());
            assert_eq!(answer["id"], 5, "{call}");
            match error {
                None => assert_eq!(answer["resp"], nothing, "{call}"),
                Some(text) => {
                    let stack = answer["resp"][0]["stack"].as_str().unwrap_or_default();
                    let expected = format!("Error: {text}");
                    assert!(stack.starts_with(&expected), "{call}: {answer}");
                }
            }
        }
        frontend.end();
    }
}

#[test]
fn the_text_of_a_session_id_finds_the_session() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        let keepalive = Duration::from_secs(10);
        let mut frontend = Frontend::start("connector-1", dialect, BACKENDS, keepalive);
        frontend.begin(1, &json!("alice"), &json!({}));
        let sid = frontend.session(1).sid;
        let mut link =
            Link::new(TcpStream::connect(frontend.rpc).expect("the gateway listens for calls"));
        let call = json!({"id": 0, "msg": {
            "namespace": "sys", "service": "sessionRemote", "method": "getBackendSessionBySid",
            "args": [sid.to_string()],
        }});
        link.send(&frame(&call));
        let session =
            json!({"id": sid, "frontendId": "connector-1", "uid": "alice", "settings": {}});
        assert_eq!(payload(&link.next())["resp"], json!([null, session]));
        frontend.end();
    }
}
