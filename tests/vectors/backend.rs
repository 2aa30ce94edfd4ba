//! A backend of the reference application, as far as its answers go.
//!
//! It speaks from the transcripts: one connection, one answer to each call, errors as `stack`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};
use tangelo::config::Dialect;

/// Starts a backend that lives as long as the process.
pub(crate) fn start(dialect: Dialect) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            serve(stream.expect("a connection"), dialect);
        }
    });
    address
}

fn serve(mut stream: TcpStream, dialect: Dialect) {
    stream.set_nodelay(true).expect("an open socket");
    while let Some((kind, body)) = read_packet(&mut stream) {
        // Of the rest nothing wants an answer; a CONNECT gets none on such a port.
        if kind >> 4 == 3 {
            let answer = answer(dialect, &body);
            stream.write_all(&answer).expect("the caller reads");
        }
        if kind == 0xc0 {
            stream.write_all(&[0xd0, 0]).expect("the caller reads");
        }
    }
}

/// First byte and body of the next packet; `None` at the end.
fn read_packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut byte = || -> Option<u8> {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        Some(byte[0])
    };
    let kind = byte()?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let group = byte()?;
        length |= usize::from(group & 0x7f) << shift;
        shift += 7;
        if group < 0x80 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((kind, body))
}

/// The frame that answers a call.
fn answer(dialect: Dialect, publish: &[u8]) -> Vec<u8> {
    let payload = publish
        .strip_prefix(b"\0\x03rpc")
        .expect("the topic is rpc");
    let call: Value = serde_json::from_slice(payload).expect("a call is JSON");
    let what = ["namespace", "serverType", "service", "method"].map(|key| &call["msg"][key]);
    assert_eq!(what, ["sys", "chat", "msgRemote", "forwardMessage"]);
    let [message, session] = &call["msg"]["args"].as_array().expect("arguments")[..] else {
        panic!("{call}: a message and a session");
    };
    assert!(session["frontendId"].is_string(), "{call}");
    let route = message["route"].as_str().expect("a route is a text");
    let resp = resp(dialect, route);
    let answer = json!({"id": call["id"], "resp": resp}).to_string();
    let body = format!("\0\u{3}rpc{answer}");
    let (low, high) = (body.len() as u8 & 0x7f, body.len() >> 7);
    assert!(high < 0x80, "two length bytes");
    [&[0x30, low | 0x80, high as u8], body.as_bytes()].concat()
}

fn resp(dialect: Dialect, route: &str) -> Value {
    let error = |text: &str| json!({"stack": format!("Error: {text}\n    at Handler")});
    let (error, value) = match route {
        "chat.chatHandler.errOnly" => (error("backend boom"), Value::Null),
        "chat.chatHandler.errResp" => (error("backend boom"), json!({"msg": "bad"})),
        "chat.chatHandler.noResp" => (Value::Null, Value::Null),
        _ => (
            error(&format!("fail to find handler for {route}")),
            Value::Null,
        ),
    };
    match dialect {
        Dialect::Pomelo => json!([error, value, null]),
        Dialect::Pinus if error.is_null() || !value.is_null() => json!([null, value]),
        Dialect::Pinus => json!([error]),
    }
}
