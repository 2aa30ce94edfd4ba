//! Messages between a server and the master: the JSON inside an MQTT publish.
//!
//! On `monitor` and `client` a request, a response and a command are a JSON *string* that contains
//! the JSON text of an object; a notify is the object itself. Readers take either form for each.
//!
//! Unlike the other formats this one is read into trees and allocates: such a message comes when a
//! server starts or stops, or when an operator asks.

use serde_json::{Value, json};

use super::mqtt;
use crate::wire::json;

/// A server that joins, and the answer to it.
pub const REGISTER: &[u8] = b"register";
/// A server that comes back.
pub const RECONNECT: &[u8] = b"reconnect";
/// The answer to [`RECONNECT`].
pub const RECONNECT_OK: &[u8] = b"reconnect_ok";
/// Everything between a registered server and the master.
pub const MONITOR: &[u8] = b"monitor";

/// The reason why a payload is not one of these messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminError {
    /// Neither JSON nor a JSON string with JSON in it.
    NotJson,
    /// JSON, but not an object.
    NotObject,
}

impl AdminError {
    /// For a log line.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotJson => "a payload that is not JSON",
            Self::NotObject => "a payload that is not an object",
        }
    }
}

/// One message on [`MONITOR`].
///
/// Shape:  `{"reqId":N,"moduleId":M,"body":B}`, without `reqId` a notify ·
///         `{"respId":N,"error":E,"body":B}` · `{"command":C,"moduleId":M,"body":B}`
/// Bound:  nesting ≤ `limits::JSON_DEPTH_MAX`
/// Errors: see [`AdminError`]
/// Source: pomelo-admin 1.0.1; `tests/vectors/rpc/pomelo-master-startup.jsonl`
#[derive(Debug, Clone, PartialEq)]
pub enum AdminMessage {
    /// Wants a response.
    Request {
        /// To be echoed as it came: a repeated request has the number as a string.
        id: Value,
        /// The question.
        call: AdminCall,
    },
    /// Must not be answered.
    Notify(AdminCall),
    /// Answers a request of the receiver.
    Response {
        /// The request's id.
        id: Value,
        /// `null` when nothing went wrong; many modules put their result here.
        error: Value,
        /// The result otherwise.
        body: Value,
    },
    /// Switches a module on or off.
    Command,
}

/// The module that a message is for and what it gets.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminCall {
    /// `moduleId`; any other value than a string is printed as JavaScript prints it.
    pub module: String,
    /// `null` when there was none.
    pub body: Value,
}

/// Reads a payload of [`MONITOR`].
///
/// As pomelo: `command` counts before `respId`, that before `reqId`, and each only when it is
/// truthy (pomelo-admin `monitorAgent.js`).
pub fn decode(payload: &[u8]) -> Result<AdminMessage, AdminError> {
    let mut message = object(payload)?;
    let mut take = |name| message.get_mut(name).map(Value::take).filter(is_truthy);
    if take("command").is_some() {
        return Ok(AdminMessage::Command);
    }
    if let Some(id) = take("respId") {
        let mut take = |name| message.get_mut(name).map(Value::take).unwrap_or_default();
        return Ok(AdminMessage::Response {
            id,
            error: take("error"),
            body: take("body"),
        });
    }
    let id = take("reqId");
    let call = AdminCall {
        module: match message.get("moduleId") {
            None => "undefined".to_owned(),
            Some(Value::String(name)) => name.clone(),
            Some(other) => other.to_string(),
        },
        body: message.get_mut("body").map(Value::take).unwrap_or_default(),
    };
    Ok(match id {
        Some(id) => AdminMessage::Request { id, call },
        None => AdminMessage::Notify(call),
    })
}

/// The master's answer to [`REGISTER`] and [`RECONNECT`].
///
/// Shape:  `{"code":1,"msg":"ok"}`; any other code is a refusal
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterOutcome {
    /// The server is part of the cluster now.
    pub accepted: bool,
    /// Reason of a refusal; differs between the frameworks.
    pub message: String,
}

/// Reads a payload of [`REGISTER`] or [`RECONNECT_OK`] from the master.
pub fn decode_outcome(payload: &[u8]) -> Result<RegisterOutcome, AdminError> {
    let outcome = object(payload)?;
    Ok(RegisterOutcome {
        accepted: outcome.get("code").is_some_and(|code| *code == 1),
        message: match outcome.get("msg") {
            Some(Value::String(message)) => message.clone(),
            _ => String::new(),
        },
    })
}

/// Returns whether JavaScript takes the value for true in a condition.
#[must_use]
pub fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// The server that registers.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    /// Server id.
    pub id: &'a str,
    /// Server type.
    pub server_type: &'a str,
    /// Process id.
    pub pid: u32,
    /// Entry of this server in the lists of all others.
    pub info: &'a Value,
}

/// Writes the CONNECT of a process that was started `started_ms` after the epoch.
pub fn write_connect(out: &mut Vec<u8>, started_ms: u64) {
    mqtt::write_connect(out, &format!("MQTT_ADMIN_{started_ms}"));
}

/// Writes the [`REGISTER`] of a server. As in JavaScript, a token that is undefined has no member.
pub fn write_register(out: &mut Vec<u8>, server: &Registration<'_>, token: Option<&Value>) {
    let mut message = json!({
        "id": server.id,
        "type": "monitor",
        "serverType": server.server_type,
        "pid": server.pid,
        "info": server.info,
    });
    if let Some(token) = token {
        message["token"] = token.clone();
    }
    mqtt::write_publish_on(out, REGISTER, |out| json::write_value(out, &message));
}

/// Writes the [`RECONNECT`] of a server: as [`write_register`], in another order and without token.
pub fn write_reconnect(out: &mut Vec<u8>, server: &Registration<'_>) {
    let message = json!({
        "id": server.id,
        "type": "monitor",
        "info": server.info,
        "pid": server.pid,
        "serverType": server.server_type,
    });
    mqtt::write_publish_on(out, RECONNECT, |out| json::write_value(out, &message));
}

/// Writes a request on [`MONITOR`].
pub fn write_request(out: &mut Vec<u8>, id: u64, module: &str, body: &Value) {
    let mut text = Vec::new();
    let message = json!({"reqId": id, "moduleId": module, "body": body});
    json::write_value(&mut text, &message);
    write_in_string(out, &text);
}

/// Writes a notify on [`MONITOR`]; `body` appends its JSON text.
pub fn write_notify(out: &mut Vec<u8>, module: &str, body: impl FnOnce(&mut Vec<u8>)) {
    mqtt::write_publish_on(out, MONITOR, |out| {
        out.extend_from_slice(b"{\"moduleId\":");
        json::write_string(out, module);
        out.extend_from_slice(b",\"body\":");
        body(out);
        out.push(b'}');
    });
}

/// Writes a response on [`MONITOR`]; `error` and `body` are JSON texts, and without `body` there is
/// no such member at all.
pub fn write_response(out: &mut Vec<u8>, id: &Value, error: &[u8], body: Option<&[u8]>) {
    let mut text = b"{\"respId\":".to_vec();
    json::write_value(&mut text, id);
    text.extend_from_slice(b",\"error\":");
    text.extend_from_slice(error);
    if let Some(body) = body {
        text.extend_from_slice(b",\"body\":");
        text.extend_from_slice(body);
    }
    text.push(b'}');
    write_in_string(out, &text);
}

/// The object that a payload is or, as a string, contains.
fn object(payload: &[u8]) -> Result<Value, AdminError> {
    let mut value = json::parse(payload).ok_or(AdminError::NotJson)?;
    if let Value::String(text) = &value {
        value = json::parse(text.as_bytes()).ok_or(AdminError::NotJson)?;
    }
    if value.is_object() {
        Ok(value)
    } else {
        Err(AdminError::NotObject)
    }
}

/// Writes JSON text encoded a second time.
fn write_in_string(out: &mut Vec<u8>, text: &[u8]) {
    mqtt::write_publish_on(out, MONITOR, |out| {
        json::write_string(out, &String::from_utf8_lossy(text));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(frame: &[u8]) -> &[u8] {
        match mqtt::decode(frame, 1 << 20) {
            Ok(Some((mqtt::Packet::Publish { topic, payload }, bytes))) => {
                assert_eq!((topic, bytes), (MONITOR, frame.len()));
                payload
            }
            other => panic!("{other:?}"),
        }
    }

    fn call(module: &str, body: Value) -> AdminCall {
        AdminCall {
            module: module.into(),
            body,
        }
    }

    #[test]
    fn an_object_and_a_string_that_contains_it_are_the_same_message() {
        let plain = br#"{"reqId":7,"moduleId":"m","body":{"a":[1]}}"#;
        let mut twice = Vec::new();
        json::write_string(&mut twice, str::from_utf8(plain).unwrap());
        let expected = AdminMessage::Request {
            id: json!(7),
            call: call("m", json!({"a": [1]})),
        };
        assert_eq!(decode(plain), Ok(expected.clone()));
        assert_eq!(decode(&twice), Ok(expected));
        assert_eq!(
            decode(br#"{"moduleId":"m"}"#),
            Ok(AdminMessage::Notify(call("m", Value::Null)))
        );
    }

    #[test]
    fn the_kind_of_a_message_is_decided_as_javascript_does() {
        let kinds = [
            (r#"{"command":"enable","respId":1,"reqId":2}"#, "Command"),
            (r#"{"command":"","respId":"1","reqId":2}"#, "Response"),
            (r#"{"respId":0,"reqId":"2"}"#, "Request"),
            (r#"{"respId":null,"reqId":0,"moduleId":5}"#, "Notify"),
        ];
        for (text, kind) in kinds {
            let message = decode(text.as_bytes()).unwrap();
            assert!(
                format!("{message:?}").starts_with(kind),
                "{text}: {message:?}"
            );
        }
        assert_eq!(
            decode(b"{}"),
            Ok(AdminMessage::Notify(call("undefined", Value::Null)))
        );
    }

    #[test]
    fn a_payload_that_is_not_an_object_is_an_error() {
        for text in ["", "{", "\"{\"", "\u{feff}{}", "{}{}"] {
            assert_eq!(decode(text.as_bytes()), Err(AdminError::NotJson), "{text}");
        }
        for text in ["7", "null", "[]", "\"7\"", r#""\"{}\"""#] {
            assert_eq!(
                decode(text.as_bytes()),
                Err(AdminError::NotObject),
                "{text}"
            );
            assert_eq!(decode_outcome(text.as_bytes()), Err(AdminError::NotObject));
        }
    }

    #[test]
    fn a_written_message_is_read_back() {
        let mut out = Vec::new();
        let body = json!({"action": "say \"hello\"\n", "2": [null], "1": "\u{2028}"});
        write_request(&mut out, 3, "mod\"ule", &body);
        let expected = AdminMessage::Request {
            id: json!(3),
            call: call("mod\"ule", body),
        };
        assert_eq!(decode(payload(&out)), Ok(expected));

        out.clear();
        write_response(&mut out, &json!("3"), b"{\"a\":1}", None);
        assert_eq!(
            payload(&out),
            br#""{\"respId\":\"3\",\"error\":{\"a\":1}}""#
        );

        out.clear();
        write_notify(&mut out, "m", |out| out.extend_from_slice(b"[1]"));
        assert_eq!(payload(&out), br#"{"moduleId":"m","body":[1]}"#);
    }

    #[test]
    fn only_code_1_is_a_yes() {
        let of = |text: &str| decode_outcome(text.as_bytes()).unwrap();
        assert!(of(r#"{"code":1,"msg":"ok"}"#).accepted);
        for code in ["-1", "\"1\"", "true", "1.5", "null"] {
            let outcome = of(&format!(r#"{{"code":{code},"msg":"server auth failed"}}"#));
            assert_eq!(
                (outcome.accepted, &*outcome.message),
                (false, "server auth failed")
            );
        }
        assert!(!of("{}").accepted);
    }
}
