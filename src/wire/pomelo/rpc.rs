//! Calls between servers: the JSON inside an MQTT publish.

use std::borrow::Cow;

use super::mqtt;
use crate::wire::json::{self, JsonError};

/// A client message on its way to a backend, and the session it belongs to.
///
/// Shape:  `{"id":N,"msg":{"namespace":"sys","serverType":T,"service":"msgRemote","method":
///         "forwardMessage","args":[message, session]}}`, keys in this order. A session's last key may be
///         `"remoteAddress":{"ip":…,"port":…}`, which genuine frontends do not write.
/// Source: pomelo-rpc 1.0.7; `tests/vectors/rpc/pomelo-forward-request.jsonl`
#[derive(Debug, Clone, Copy)]
pub struct Forward<'a> {
    /// Target server type as JSON text, quotes included.
    pub server_type: &'a str,
    /// Message id of the client; 0 for a notify.
    pub message_id: u32,
    /// Message type as on the wire.
    pub kind: u8,
    /// The route was a dictionary code.
    pub compressed: bool,
    /// The whole route.
    pub route: &'a str,
    /// Valid JSON text.
    pub body: &'a [u8],
    /// The gzip flag of the message.
    pub gzip: bool,
    /// The session as the backend sees it.
    pub session: SessionExport<'a>,
    /// The client's address and port, for a delegate that does not know them yet.
    pub address: Option<[&'a str; 2]>,
    /// The sender, for a delegate.
    pub frontend: Option<Frontend<'a>>,
}

/// A frontend as a delegate learns of it, in each call: two processes with one id, one after the other, share no session.
///
/// Shape: the last members of a call, `"frontendId":…,"process":…`
#[derive(Debug, Clone, Copy)]
pub struct Frontend<'a> {
    /// Server id as JSON text, quotes included.
    pub id: &'a str,
    /// A name of its process, of digits and dots: no later process has it.
    pub process: &'a str,
}

impl Frontend<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"frontendId\":");
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(b",\"process\":\"");
        out.extend_from_slice(self.process.as_bytes());
        out.push(b'"');
    }
}

/// A session as it is exported to backends.
#[derive(Debug, Clone, Copy)]
pub struct SessionExport<'a> {
    /// Session id.
    pub id: u64,
    /// Own server id as JSON text, quotes included.
    pub frontend_id: &'a str,
    /// JSON text of the uid; `null` when unbound.
    pub uid: &'a str,
    /// JSON text of the settings object.
    pub settings: &'a str,
}

impl SessionExport<'_> {
    /// Writes `{"id":…,"frontendId":…,"uid":…,"settings":…}`.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_members(out);
        out.push(b'}');
    }

    /// Writes the same without the last brace.
    fn write_members(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        out.extend_from_slice(itoa::Buffer::new().format(self.id).as_bytes());
        out.extend_from_slice(b",\"frontendId\":");
        out.extend_from_slice(self.frontend_id.as_bytes());
        out.extend_from_slice(b",\"uid\":");
        out.extend_from_slice(self.uid.as_bytes());
        out.extend_from_slice(b",\"settings\":");
        out.extend_from_slice(self.settings.as_bytes());
    }
}

/// Writes one forwarded call as one frame.
///
/// Cost: no allocation beyond the growth of `out`; the one copy of the body.
pub fn write_forward(out: &mut Vec<u8>, call_id: u64, forward: &Forward<'_>) {
    hop!();
    // More than all fixed parts together, so that `out` grows at most once.
    out.reserve(320 + forward.body.len() + forward.route.len() + forward.session.settings.len());
    mqtt::write_publish(out, |out| {
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(b"{\"id\":");
        out.extend_from_slice(digits.format(call_id).as_bytes());
        out.extend_from_slice(b",\"msg\":{\"namespace\":\"sys\",\"serverType\":");
        out.extend_from_slice(forward.server_type.as_bytes());
        out.extend_from_slice(
            b",\"service\":\"msgRemote\",\"method\":\"forwardMessage\",\"args\":[{\"id\":",
        );
        out.extend_from_slice(digits.format(forward.message_id).as_bytes());
        out.extend_from_slice(b",\"type\":");
        out.push(b'0' + forward.kind);
        out.extend_from_slice(b",\"compressRoute\":");
        out.push(b'0' + u8::from(forward.compressed));
        out.extend_from_slice(b",\"route\":");
        json::write_string(out, forward.route);
        out.extend_from_slice(b",\"body\":");
        out.extend_from_slice(forward.body);
        out.extend_from_slice(b",\"compressGzip\":");
        out.push(b'0' + u8::from(forward.gzip));
        out.extend_from_slice(b"},");
        forward.session.write_members(out);
        if let Some(address) = forward.address {
            write_address(out, address);
        }
        out.extend_from_slice(b"}]");
        if let Some(frontend) = forward.frontend {
            frontend.write(out);
        }
        out.extend_from_slice(b"}}");
    });
}

/// Writes a client's address as a further member of its session.
fn write_address(out: &mut Vec<u8>, [ip, port]: [&str; 2]) {
    out.extend_from_slice(b",\"remoteAddress\":{\"ip\":");
    json::write_string(out, ip);
    out.extend_from_slice(b",\"port\":");
    // The port that a proxy told may be any text.
    match port.parse::<u16>() {
        Ok(port) => out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes()),
        Err(_) => json::write_string(out, port),
    }
    out.push(b'}');
}

/// The state of a session in a notice for a delegate.
///
/// Shape: a session as backends see it, and behind its members `"own":true`, `"remoteAddress":{"ip":…,"port":…}` and
///        `"change":…`
#[derive(Debug, Clone, Copy)]
pub struct SessionState<'a> {
    /// The session as backends see it.
    pub session: SessionExport<'a>,
    /// The delegate gets the session's messages.
    pub own: bool,
    /// The client's address and port.
    pub address: Option<[&'a str; 2]>,
    /// The name of the change, see [`PeerCall::change`].
    pub change: Option<&'a [u8]>,
}

impl SessionState<'_> {
    /// Writes the object.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.session.write_members(out);
        if self.own {
            out.extend_from_slice(b",\"own\":true");
        }
        if let Some(address) = self.address {
            write_address(out, address);
        }
        if let Some(change) = self.change {
            out.extend_from_slice(b",\"change\":");
            out.extend_from_slice(change);
        }
        out.push(b'}');
    }
}

/// A call of a remote that the application of another server has.
///
/// Shape:  `{"id":N,"msg":{"namespace":"user","serverType":T,"service":S,"method":M,"args":[…]}}`,
///         keys in this order; behind them those of a [`Frontend`] that calls a delegate
/// Source: pomelo-rpc 1.0.7 `rpc-client/client.js`, pinus-rpc 1.7.4 the same; they ignore other keys
#[derive(Debug, Clone, Copy)]
pub struct Invoke<'a> {
    /// Server type of the remote as JSON text, quotes included.
    pub server_type: &'a str,
    /// Name of the remote.
    pub service: &'a str,
    /// Method of the remote.
    pub method: &'a str,
    /// JSON text of the array of arguments.
    pub args: &'a [u8],
    /// The sender, for a delegate.
    pub frontend: Option<Frontend<'a>>,
}

/// Writes one call of a remote as one frame.
pub fn write_invoke(out: &mut Vec<u8>, call_id: u64, invoke: &Invoke<'_>) {
    mqtt::write_publish(out, |out| {
        out.extend_from_slice(b"{\"id\":");
        out.extend_from_slice(itoa::Buffer::new().format(call_id).as_bytes());
        out.extend_from_slice(b",\"msg\":{\"namespace\":\"user\",\"serverType\":");
        out.extend_from_slice(invoke.server_type.as_bytes());
        out.extend_from_slice(b",\"service\":");
        json::write_string(out, invoke.service);
        out.extend_from_slice(b",\"method\":");
        json::write_string(out, invoke.method);
        out.extend_from_slice(b",\"args\":");
        out.extend_from_slice(invoke.args);
        if let Some(frontend) = invoke.frontend {
            frontend.write(out);
        }
        out.extend_from_slice(b"}}");
    });
}

/// One answer, a view into the read buffer.
///
/// Shape:  `{"id":N,"resp":[error, value, options]}`, keys in any order, others ignored
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerReply<'a> {
    /// Call id; `None`: the peer could not read the call.
    pub id: Option<u64>,
    /// Raw text of the `resp` array.
    pub resp: &'a [u8],
}

impl<'a> PeerReply<'a> {
    /// The form that genuine servers write, cut without a scan of `resp`, which [`PeerReply::result`]
    /// does anyway.
    fn usual(object: &'a [u8]) -> Option<Self> {
        let rest = object.strip_prefix(b"{\"id\":")?;
        let (id, rest) = rest.split_at(memchr::memchr(b',', rest)?);
        let resp = rest.strip_prefix(b",\"resp\":")?.strip_suffix(b"}")?;
        let id = Some(integer(id)?);
        let is_array = resp.starts_with(b"[") && resp.ends_with(b"]");
        is_array.then_some(Self { id, resp })
    }

    fn parse(object: &'a [u8]) -> Result<Self, JsonError> {
        if let Some(usual) = Self::usual(object) {
            return Ok(usual);
        }
        let mut answer = Self {
            id: None,
            resp: b"[]",
        };
        for member in json::members(object)? {
            match member? {
                (b"id", value) => answer.id = integer(value),
                (b"resp", value) => answer.resp = value,
                _ => {}
            }
        }
        Ok(answer)
    }

    /// Reads the error and the value of the reply.
    pub fn result(&self) -> Result<PeerResult<'a>, JsonError> {
        let mut elements = json::elements(self.resp)?;
        let mut next = || -> Result<Option<&'a [u8]>, JsonError> {
            Ok(elements
                .next()
                .transpose()?
                .filter(|value| *value != b"null"))
        };
        Ok(PeerResult {
            error: next()?,
            value: next()?,
        })
    }
}

/// Returns the `resp` of an answer that is passed on as it is; an error if it is not an array of JSON values.
pub fn checked_resp(resp: &[u8]) -> Result<&[u8], JsonError> {
    json::elements(resp)?.try_for_each(|value| value.map(drop))?;
    Ok(resp)
}

/// Error and value of an answer as raw JSON; missing elements and `null` are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerResult<'a> {
    /// First element of `resp`.
    pub error: Option<&'a [u8]>,
    /// Second element.
    pub value: Option<&'a [u8]>,
}

/// A call of another server, a view into the read buffer.
///
/// Shape:  `{"id":N,"msg":{"namespace":…,"service":…,"method":…,"args":[…]}}`, keys in any order,
///         `serverType` and the keys of tracing are ignored
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCall<'a> {
    /// Raw text of the call id, given back as it came; `null` when there was none.
    pub id: &'a [u8],
    /// `sys` or `user`.
    pub namespace: Cow<'a, str>,
    /// Name of the remote.
    pub service: Cow<'a, str>,
    /// Method of the remote.
    pub method: Cow<'a, str>,
    /// Raw text of the `args` array.
    pub args: &'a [u8],
    /// Raw text of the name that a delegate gave to its change of a session. The notice of the change has it too.
    pub change: Option<&'a [u8]>,
}

impl<'a> PeerCall<'a> {
    fn parse(object: &'a [u8]) -> Result<Self, JsonError> {
        let mut call = Self {
            id: b"null",
            namespace: Cow::Borrowed(""),
            service: Cow::Borrowed(""),
            method: Cow::Borrowed(""),
            args: b"[]",
            change: None,
        };
        for member in json::members(object)? {
            match member? {
                (b"id", value) => call.id = value,
                (b"msg", message) => {
                    for member in json::members(message)? {
                        match member? {
                            (b"namespace", value) => call.namespace = text(value),
                            (b"service", value) => call.service = text(value),
                            (b"method", value) => call.method = text(value),
                            (b"args", value) => call.args = value,
                            (b"change", value) => call.change = Some(value),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(call)
    }
}

/// Writes the frame that answers a call; `resp` writes the array.
pub fn write_answer(out: &mut Vec<u8>, id: &[u8], resp: impl FnOnce(&mut Vec<u8>)) {
    mqtt::write_publish(out, |out| {
        out.extend_from_slice(b"{\"id\":");
        out.extend_from_slice(id);
        out.extend_from_slice(b",\"resp\":");
        resp(out);
        out.push(b'}');
    });
}

/// Writes `[{"stack":"Error: …"}]`; callers log the stack.
pub fn write_error(out: &mut Vec<u8>, message: &str) {
    out.extend_from_slice(b"[{\"stack\":");
    json::write_string(out, &format!("Error: {message}\n    at tangelo"));
    out.extend_from_slice(b"}]");
}

/// The answers in one payload: a single object or, from a peer that batches, an array of them.
pub fn answers(payload: &[u8]) -> impl Iterator<Item = Result<PeerReply<'_>, JsonError>> {
    Objects::new(payload).map(|object| object.and_then(PeerReply::parse))
}

/// The calls in one payload, as [`answers`].
pub fn calls(payload: &[u8]) -> impl Iterator<Item = Result<PeerCall<'_>, JsonError>> {
    Objects::new(payload).map(|object| object.and_then(PeerCall::parse))
}

/// The objects of a payload.
enum Objects<'a> {
    Single(Option<&'a [u8]>),
    Batch(json::Elements<'a>),
    Failed(Option<JsonError>),
}

impl<'a> Objects<'a> {
    fn new(payload: &'a [u8]) -> Self {
        let payload = json::trim(payload);
        if payload.first() != Some(&b'[') {
            return Self::Single(Some(payload));
        }
        match json::elements(payload) {
            Ok(elements) => Self::Batch(elements),
            Err(error) => Self::Failed(Some(error)),
        }
    }
}

impl<'a> Iterator for Objects<'a> {
    type Item = Result<&'a [u8], JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Single(object) => object.take().map(Ok),
            Self::Batch(elements) => elements.next(),
            Self::Failed(error) => error.take().map(Err),
        }
    }
}

/// Text of a JSON string; anything else is empty.
fn text(value: &[u8]) -> Cow<'_, str> {
    match value {
        [b'"', inner @ .., b'"'] => json::unescape(inner),
        _ => Cow::Borrowed(""),
    }
}

fn integer(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(payload: &[u8]) -> Vec<PeerReply<'_>> {
        answers(payload).collect::<Result<_, _>>().unwrap()
    }

    fn parts<'a>(answer: &PeerReply<'a>) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
        let result = answer.result().unwrap();
        (result.error, result.value)
    }

    #[test]
    fn a_forward_says_how_its_message_came() {
        for (compressed, gzip) in [(false, true), (true, false)] {
            let forward = Forward {
                server_type: "\"chat\"",
                message_id: 3,
                kind: 0,
                compressed,
                route: "chat.a.b",
                body: b"{}",
                gzip,
                session: SessionExport {
                    id: 1,
                    frontend_id: "\"c\"",
                    uid: "null",
                    settings: "{}",
                },
                address: None,
                frontend: None,
            };
            let mut out = Vec::new();
            write_forward(&mut out, 1, &forward);
            let text = String::from_utf8_lossy(&out);
            let message = format!(
                "{{\"id\":3,\"type\":0,\"compressRoute\":{},\"route\":\"chat.a.b\",\"body\":{{}},\
                 \"compressGzip\":{}}}",
                u8::from(compressed),
                u8::from(gzip),
            );
            assert!(text.contains(&message), "{text}");
        }
    }

    #[test]
    fn a_forward_to_a_delegate_has_the_address_of_the_client_and_names_the_frontend() {
        let frontend = Frontend {
            id: "\"c\"",
            process: "1.2",
        };
        for (address, written) in [
            (None, ""),
            (
                Some(["::1", "80"]),
                r#","remoteAddress":{"ip":"::1","port":80}"#,
            ),
            (
                Some(["\"", "+07"]),
                r#","remoteAddress":{"ip":"\"","port":7}"#,
            ),
            (
                Some(["", "a\"b"]),
                r#","remoteAddress":{"ip":"","port":"a\"b"}"#,
            ),
        ] {
            let forward = Forward {
                server_type: "\"chat\"",
                message_id: 3,
                kind: 0,
                compressed: false,
                route: "chat.a.b",
                body: b"{}",
                gzip: false,
                session: SessionExport {
                    id: 1,
                    frontend_id: "\"c\"",
                    uid: "null",
                    settings: "{}",
                },
                address,
                frontend: Some(frontend),
            };
            let mut out = Vec::new();
            write_forward(&mut out, 1, &forward);
            let text = String::from_utf8_lossy(&out);
            let end =
                format!(r#""settings":{{}}{written}}}],"frontendId":"c","process":"1.2"}}}}"#);
            assert!(text.ends_with(&end), "{text}");
        }
    }

    #[test]
    fn answers_are_read_single_batched_and_in_any_key_order() {
        let one = all(b"{\"id\":7,\"resp\":[null,{\"a\":[1]},null]}");
        assert_eq!(one[0].id, Some(7));
        assert_eq!(parts(&one[0]), (None, Some(&b"{\"a\":[1]}"[..])));
        let two = all(b" [{\"resp\":[],\"id\":1},{\"traceId\":\"x\",\"resp\":[\"no\"],\"id\":2}]");
        assert_eq!((two[0].id, two[1].id), (Some(1), Some(2)));
        assert_eq!(parts(&two[0]), (None, None));
        assert_eq!(parts(&two[1]), (Some(&b"\"no\""[..]), None));
        assert_eq!(all(b"{\"resp\":[{\"stack\":\"Error\"}]}")[0].id, None);
    }

    #[test]
    fn a_call_of_a_remote_has_the_keys_of_the_reference_in_their_order() {
        let frontend = Frontend {
            id: "\"c-1\"",
            process: "1.2",
        };
        let members = r#","frontendId":"c-1","process":"1.2"}}"#;
        for (frontend, end) in [(None, "}}"), (Some(frontend), members)] {
            let mut out = Vec::new();
            let invoke = Invoke {
                server_type: "\"chat\"",
                service: "chatRemote",
                method: "add\"",
                args: b"[1,{\"a\":null}]",
                frontend,
            };
            write_invoke(&mut out, 7, &invoke);
            let text = r#"{"id":7,"msg":{"namespace":"user","serverType":"chat","service":"chatRemote","method":"add\"","args":[1,{"a":null}]"#;
            let Ok(Some((mqtt::Packet::Publish { topic, payload }, used))) =
                mqtt::decode(&out, 1000)
            else {
                panic!("{}", out.escape_ascii());
            };
            assert_eq!((topic, used), (mqtt::RPC_TOPIC, out.len()));
            assert_eq!(
                payload.escape_ascii().to_string(),
                format!("{text}{end}").as_bytes().escape_ascii().to_string()
            );
            let call = calls(payload).next().unwrap().unwrap();
            let names = [&call.namespace, &call.service, &call.method];
            assert_eq!(names, ["user", "chatRemote", "add\""]);
            assert_eq!((call.id, call.args), (&b"7"[..], invoke.args));
        }
    }

    #[test]
    fn a_payload_that_is_not_json_is_an_error() {
        for payload in [&b""[..], b"{", b"[{]", b"{\"id\":1,\"resp\":[}", b"5"] {
            let failed =
                answers(payload).any(|answer| answer.and_then(|answer| answer.result()).is_err());
            assert!(failed, "{}", payload.escape_ascii());
        }
    }
}
