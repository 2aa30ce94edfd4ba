//! The calls that a frontend serves: `sessionRemote` and `channelRemote`, typed.

use std::borrow::Cow;

use serde_json::Value;

use crate::dialect::Dialect;
use crate::session::Uid;
use crate::wire::json;
use crate::wire::pomelo::rpc::PeerCall;

/// A call that is understood. Session ids are as the peer gave them: maybe nobody's.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionRequest<'a> {
    /// `sessionRemote.bind(sid, uid)`
    Bind(SidArg, Uid),
    /// `sessionRemote.unbind(sid, uid)`
    Unbind(SidArg, Uid),
    /// `sessionRemote.push(sid, key, value)` and `pushAll(sid, values)`
    Import(SidArg, Vec<(String, Value)>),
    /// `sessionRemote.getBackendSessionBySid(sid)`
    SessionBySid(SidArg),
    /// `sessionRemote.getBackendSessionsByUid(uid)`: text of the uid
    SessionsByUid(String),
    /// `sessionRemote.kickBySid(sid, reason)`
    KickBySid(SidArg, Reason),
    /// `sessionRemote.kickByUid(uid, reason)`: text of the uid
    KickByUid(String, Reason),
    /// `channelRemote.pushMessage(route, message, uids, options)`
    PushMessage {
        /// Route of the push.
        route: Cow<'a, str>,
        /// Raw JSON text of the message.
        message: &'a [u8],
        /// Raw JSON text of the uids.
        uids: &'a [u8],
    },
    /// `channelRemote.broadcast(route, message, options)`
    Broadcast {
        /// Route of the push.
        route: Cow<'a, str>,
        /// Raw JSON text of the message.
        message: &'a [u8],
        /// Only sessions with a uid.
        bound_only: bool,
        /// For the broadcast filter: JSON text.
        filter_param: &'a [u8],
    },
}

/// A session id from a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct SidArg {
    /// The number, when it is one that could be an id.
    pub number: Option<u64>,
    /// As JavaScript prints it in an error.
    pub text: String,
}

/// Reason of a kick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Goes out in a kick package.
    Text(String),
    /// Not given at all: the dialect has a default.
    Missing,
    /// Given, but not a string: no kick package.
    Silent,
}

impl Reason {
    /// Returns the text of the kick package; `None`: there is no package.
    pub fn text(&self, dialect: Dialect) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Missing => dialect.default_kick_reason(),
            Self::Silent => None,
        }
    }
}

impl<'a> SessionRequest<'a> {
    /// Reads a call. The error is the text that the caller gets.
    pub fn parse(call: &PeerCall<'a>) -> Result<Self, String> {
        if call.namespace != "sys" {
            return Err(format!("no such namespace:{}", call.namespace));
        }
        let args: Vec<&'a [u8]> = json::elements(call.args)
            .and_then(Iterator::collect)
            .map_err(|_| "args is not an array".to_owned())?;
        let args = Args(args);
        match (&*call.service, &*call.method) {
            ("sessionRemote", method) => args.session_call(method),
            ("channelRemote", method) => args.channel_call(method),
            (service, _) => Err(format!("no such service:{service}")),
        }
        .and_then(|known| known.ok_or_else(|| format!("no such method:{}", call.method)))
    }
}

struct Args<'a>(Vec<&'a [u8]>);

impl<'a> Args<'a> {
    fn raw(&self, index: usize) -> &'a [u8] {
        self.0.get(index).copied().unwrap_or(b"null")
    }

    fn value(&self, index: usize) -> Value {
        json::parse(self.raw(index)).unwrap_or_default()
    }

    /// As pomelo, where sessions are properties: the text of an id finds what the id finds.
    fn sid(&self, index: usize) -> SidArg {
        let text = javascript_text(&self.value(index));
        let number = text.parse().ok();
        SidArg {
            number: number.filter(|number: &u64| number.to_string() == text),
            text,
        }
    }

    /// A uid to bind. Whatever is not a string or a number is bound as its text.
    fn uid(&self, index: usize) -> Uid {
        let value = self.value(index);
        Uid::from_json(&value).unwrap_or_else(|| Uid::from_text(&javascript_text(&value)))
    }

    fn uid_text(&self, index: usize) -> String {
        javascript_text(&self.value(index))
    }

    fn reason(&self, index: usize) -> Reason {
        match self.0.get(index).map(|_| self.value(index)) {
            None => Reason::Missing,
            Some(Value::String(text)) => Reason::Text(text),
            Some(_) => Reason::Silent,
        }
    }

    fn session_call(&self, method: &str) -> Result<Option<SessionRequest<'a>>, String> {
        Ok(Some(match method {
            "bind" => SessionRequest::Bind(self.sid(0), self.uid(1)),
            "unbind" => SessionRequest::Unbind(self.sid(0), self.uid(1)),
            // A key that is an object is merged, as in the genuine session.
            "push" if self.raw(1).first() == Some(&b'{') => self.import(1),
            "push" => SessionRequest::Import(self.sid(0), vec![(self.uid_text(1), self.value(2))]),
            "pushAll" => self.import(1),
            "getBackendSessionBySid" => SessionRequest::SessionBySid(self.sid(0)),
            "getBackendSessionsByUid" => SessionRequest::SessionsByUid(self.uid_text(0)),
            "kickBySid" => SessionRequest::KickBySid(self.sid(0), self.reason(1)),
            "kickByUid" => SessionRequest::KickByUid(self.uid_text(0), self.reason(1)),
            _ => return Ok(None),
        }))
    }

    fn import(&self, index: usize) -> SessionRequest<'a> {
        let values = match self.value(index) {
            Value::Object(members) => members.into_iter().collect(),
            _ => Vec::new(),
        };
        SessionRequest::Import(self.sid(0), values)
    }

    fn channel_call(&self, method: &str) -> Result<Option<SessionRequest<'a>>, String> {
        let route = match self.raw(0) {
            [b'"', inner @ .., b'"'] => json::unescape(inner),
            _ => Cow::Borrowed(""),
        };
        let message = self.raw(1);
        let options = self.raw(if method == "broadcast" { 2 } else { 3 });
        // Genuine callers never ask for a broadcast with pushMessage; a genuine frontend does it.
        let is_broadcast = member(options, b"type") == Some(b"\"broadcast\"");
        match method {
            "pushMessage" if !json::is_truthy(message) => {
                Err("can not send empty message.".to_owned())
            }
            "pushMessage" if !is_broadcast => Ok(Some(SessionRequest::PushMessage {
                route,
                message,
                uids: self.raw(2),
            })),
            "pushMessage" | "broadcast" => {
                let user_options = member(options, b"userOptions").unwrap_or(b"null");
                let bound_only = member(user_options, b"binded").is_some_and(json::is_truthy);
                let filter_param = member(user_options, b"filterParam").unwrap_or(b"null");
                Ok(Some(SessionRequest::Broadcast {
                    route,
                    message,
                    bound_only,
                    filter_param,
                }))
            }
            _ => Ok(None),
        }
    }
}

/// Value of a key of an object; the last one counts.
fn member<'a>(object: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let members = json::members(object).ok()?;
    members
        .flatten()
        .filter(|(key, _)| *key == name)
        .last()
        .map(|(_, value)| value)
}

/// `String(value)` for what is used as an id.
pub fn javascript_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "null".to_owned(),
        other => {
            let mut text = Vec::new();
            json::write_value(&mut text, other);
            String::from_utf8_lossy(&text).into_owned()
        }
    }
}

/// The uids of a push: raw JSON text of each, and the text it is looked up by. As the genuine
/// server, a string counts as the list of its characters.
pub fn uids(raw: &[u8]) -> Vec<(Cow<'_, [u8]>, String)> {
    if let [b'"', inner @ .., b'"'] = raw {
        let quoted = |text: &str| {
            let mut out = Vec::new();
            json::write_string(&mut out, text);
            out
        };
        let text = json::unescape(inner).into_owned();
        return text
            .chars()
            .map(|one| (Cow::Owned(quoted(&one.to_string())), one.to_string()))
            .collect();
    }
    let Ok(elements) = json::elements(raw) else {
        return Vec::new();
    };
    elements
        .flatten()
        .map(|element| {
            let text = match element {
                [b'"', inner @ .., b'"'] => json::unescape(inner).into_owned(),
                other => javascript_text(&json::parse(other).unwrap_or_default()),
            };
            (Cow::Borrowed(element), text)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pomelo::rpc;

    fn parse(text: &str) -> Result<SessionRequest<'_>, String> {
        SessionRequest::parse(&rpc::calls(text.as_bytes()).next().unwrap().unwrap())
    }

    fn call(service: &str, method: &str, args: &str) -> String {
        format!(
            r#"{{"id":3,"msg":{{"namespace":"sys","service":"{service}","method":"{method}","args":{args}}}}}"#
        )
    }

    #[test]
    fn an_unknown_call_gets_the_error_of_the_reference() {
        let other = r#"{"id":1,"msg":{"namespace":"nope","service":"a","method":"b","args":[]}}"#;
        assert_eq!(parse(other).unwrap_err(), "no such namespace:nope");
        let service = call("nosuch", "x", "[]");
        assert_eq!(parse(&service).unwrap_err(), "no such service:nosuch");
        for remote in ["sessionRemote", "channelRemote"] {
            let method = call(remote, "nosuch", "[]");
            assert_eq!(parse(&method).unwrap_err(), "no such method:nosuch");
        }
        for falsy in ["null", "0", "-0.0", "false", "\"\""] {
            let empty = format!("[\"r\",{falsy},[\"a\"],{{\"type\":\"broadcast\"}}]");
            let empty = call("channelRemote", "pushMessage", &empty);
            assert_eq!(parse(&empty).unwrap_err(), "can not send empty message.");
        }
        let missing = call("channelRemote", "pushMessage", "[]");
        assert_eq!(parse(&missing).unwrap_err(), "can not send empty message.");
    }

    #[test]
    fn session_calls_are_typed() {
        let sid = SidArg {
            number: Some(5),
            text: "5".into(),
        };
        let bind = call("sessionRemote", "bind", "[5,10001]");
        let uid = Uid::from_json(&serde_json::json!(10001)).unwrap();
        assert_eq!(parse(&bind), Ok(SessionRequest::Bind(sid.clone(), uid)));
        for (args, reason) in [
            ("[5]", Reason::Missing),
            ("[5,null]", Reason::Silent),
            ("[5,\"x\"]", Reason::Text("x".into())),
        ] {
            let kick = call("sessionRemote", "kickBySid", args);
            assert_eq!(
                parse(&kick),
                Ok(SessionRequest::KickBySid(sid.clone(), reason))
            );
        }
        let push = call("sessionRemote", "push", r#"[5,{"a":1,"b":null}]"#);
        let merged = call("sessionRemote", "pushAll", r#"[5,{"a":1,"b":null}]"#);
        assert_eq!(parse(&push), parse(&merged));
        for (args, number, text) in [
            (r#"["5"]"#, Some(5), "5"),
            (r#"["05"]"#, None, "05"),
            (r#"["+5"]"#, None, "+5"),
            (r#"["x"]"#, None, "x"),
            ("[-5]", None, "-5"),
            ("[5.5]", None, "5.5"),
            ("[]", None, "null"),
        ] {
            let odd = call("sessionRemote", "getBackendSessionBySid", args);
            let Ok(SessionRequest::SessionBySid(odd)) = parse(&odd) else {
                panic!("{odd}")
            };
            assert_eq!((odd.number, &*odd.text), (number, text));
        }
    }

    #[test]
    fn a_broadcast_reads_its_options() {
        for (options, bound, param) in [
            (r#"{"type":"broadcast","userOptions":{}}"#, false, "null"),
            (
                r#"{"type":"broadcast","userOptions":{"binded":true,"filterParam":{"a":[1]}}}"#,
                true,
                r#"{"a":[1]}"#,
            ),
            (
                r#"{"type":"broadcast","filterParam":1,"userOptions":{"filterParam":""}}"#,
                false,
                "\"\"",
            ),
            ("null", false, "null"),
        ] {
            let text = call(
                "channelRemote",
                "broadcast",
                &format!("[\"r\",{{\"a\":1}},{options}]"),
            );
            let Ok(SessionRequest::Broadcast {
                route,
                message,
                bound_only,
                filter_param,
            }) = parse(&text)
            else {
                panic!("{text}")
            };
            assert_eq!(
                (&*route, message, bound_only, filter_param),
                ("r", &b"{\"a\":1}"[..], bound, param.as_bytes())
            );
        }
    }

    #[test]
    fn uids_keep_their_form_and_a_string_is_its_characters() {
        let list = uids(br#"["bob",10001,"a\"b"]"#);
        let texts: Vec<&str> = list.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["bob", "10001", "a\"b"]);
        assert_eq!(&*list[1].0, b"10001");
        assert_eq!(uids(b"\"no\"").len(), 2);
        assert!(uids(b"null").is_empty());
    }
}
