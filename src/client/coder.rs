//! Translates messages between clients, which may use route codes and protobuf, and handlers and
//! servers, which use text and JSON.
//!
//! Pomelo: `decode` and `encode` of the connector component.

use std::fmt;
use std::sync::Arc;

use crate::limits::{MESSAGE_ID_BYTES_MAX, PACKAGE_BODY_BYTES_MAX};
use crate::route::dictionary::Dictionary;
use crate::wire::message::{self, MessageRoute};
use crate::wire::protobuf::{self, BadBody, DecodeError, ProtoId, Schema};
use crate::wire::{handshake, json};

/// Largest body of a response: the flag and the id come before it.
const RESPONSE_BYTES_MAX: usize = PACKAGE_BODY_BYTES_MAX - 1 - MESSAGE_ID_BYTES_MAX;

/// The protos of both directions, which all shards share.
#[derive(Debug, Default)]
pub struct Protos {
    server: Option<Schema>,
    client: Option<Schema>,
    version: String,
}

impl Protos {
    /// Joins the schemas of pushes and responses (`server`) and of requests (`client`); `None` if there
    /// is no file.
    pub fn new(server: Option<Schema>, client: Option<Schema>) -> Self {
        let version = protobuf::version(client.as_ref(), server.as_ref());
        Self {
            server,
            client,
            version,
        }
    }

    /// Returns whether the route has a proto for requests, and one for responses.
    pub fn of(&self, route: &str) -> (bool, bool) {
        let has = |schema: &Option<Schema>| {
            let found = schema.as_ref().and_then(|schema| schema.proto_id(route));
            found.is_some()
        };
        (has(&self.client), has(&self.server))
    }

    /// Returns the schema of pushes and responses.
    pub fn server(&self) -> Option<&Schema> {
        self.server.as_ref()
    }

    /// Returns the schema of requests.
    pub fn client(&self) -> Option<&Schema> {
        self.client.as_ref()
    }

    /// Returns the version that clients compare with their cached one.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns `sys.protos` of the handshake.
    pub fn json(&self) -> String {
        let parsed = |schema: &Option<Schema>| match schema {
            Some(schema) => schema.parsed_json().to_owned(),
            None => "{}".to_owned(),
        };
        let (server, client) = (parsed(&self.server), parsed(&self.client));
        let version = &self.version;
        format!("{{\"server\":{server},\"client\":{client},\"version\":\"{version}\"}}")
    }
}

/// Decodes and encodes the messages of all clients of a shard.
#[derive(Debug, Default)]
pub struct Coder {
    /// `None` without `client.use_dict`.
    dictionary: Option<Dictionary>,
    protos: Arc<Protos>,
    /// `client.protobuf_check`
    check: bool,
}

/// The body of a client's message, as handlers and servers get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body<'a> {
    /// Valid JSON text, in UTF-8.
    pub text: &'a [u8],
    /// False if the client's body was not JSON and `text` is `{}` instead.
    pub valid: bool,
}

/// The reason why a push cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushError<'a> {
    /// The route is empty or the body is falsy (C66).
    Empty,
    /// The package cannot be encoded.
    Package(message::EncodeError),
    /// The body does not fit the proto of its route.
    Body(BadBody<'a>),
}

impl fmt::Display for PushError<'_> {
    /// Uses the texts of the reference, as far as it has any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("fail to send message for encode result is empty."),
            Self::Package(error) => f.write_str(error.text()),
            Self::Body(bad) => bad.fmt(f),
        }
    }
}

impl Coder {
    /// Creates a coder. `dictionary` is `None` without `client.use_dict`; `protos` are empty without
    /// files.
    pub fn new(dictionary: Option<Dictionary>, protos: Arc<Protos>, check: bool) -> Self {
        Self {
            dictionary,
            protos,
            check,
        }
    }

    /// Returns the text of a route, and whether the client sent it as a code. Returns `None` for an
    /// unknown code (C22).
    pub fn route<'a>(&'a self, route: MessageRoute<'a>) -> Option<(&'a [u8], bool)> {
        match route {
            MessageRoute::Text(text) => Some((text, false)),
            MessageRoute::Code(code) => {
                let text = self.dictionary.as_ref()?.route(code)?;
                Some((text.as_bytes(), true))
            }
            MessageRoute::None => None,
        }
    }

    /// Returns the body of a client's message as JSON text. A body with a proto is decoded. A body that
    /// does not parse becomes `{}`, and bytes that are not UTF-8 become U+FFFD (C23).
    ///
    /// Cost: no allocation if `scratch` is large enough; JSON is not copied.
    #[inline]
    pub fn decode<'a>(
        &self,
        route: &str,
        body: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Body<'a>, DecodeError> {
        let proto = self.protos.client.as_ref().and_then(|s| s.proto(route));
        if let Some(proto) = proto {
            let complete = proto.decode(body, scratch)?;
            let text: &[u8] = if complete || !self.check {
                scratch
            } else {
                b"null"
            };
            return Ok(Body { text, valid: true });
        }
        let text = json::or_empty_object(body);
        let valid = std::ptr::eq(text, body);
        if simdutf8::basic::from_utf8(text).is_ok() {
            return Ok(Body { text, valid });
        }
        scratch.extend_from_slice(String::from_utf8_lossy(text).as_bytes());
        Ok(Body {
            text: scratch,
            valid,
        })
    }

    /// Returns true if some bodies of clients are protobuf.
    pub fn has_client_protos(&self) -> bool {
        self.protos.client.is_some()
    }

    /// Returns the proto of responses for a route.
    pub fn response_proto(&self, route: &str) -> Option<ProtoId> {
        self.protos.server.as_ref()?.proto_id(route)
    }

    /// Encodes the body of a response by its proto into `out`. Values without a field in the proto are
    /// left out (C65). If the body does not fit, or no package could hold it, the caller sends code 500
    /// instead.
    pub fn encode<'a>(
        &'a self,
        proto: ProtoId,
        body: &'a [u8],
        out: &'a mut Vec<u8>,
    ) -> (&'a [u8], Result<(), BadBody<'a>>) {
        let Some(schema) = &self.protos.server else {
            return (body, Ok(()));
        };
        let proto = schema.proto_of(proto);
        let encoded = proto.encode(body, out).map(drop);
        if encoded.is_err() || out.len() > RESPONSE_BYTES_MAX {
            out.clear();
            // The proto may lack fields of this; they are left out.
            let _ = proto.encode(handshake::FAILED, out);
        }
        debug_assert!(out.len() <= RESPONSE_BYTES_MAX, "no package can hold it");
        (out, encoded)
    }

    /// Encodes the package of a push, once for all receivers.
    pub fn push(&self, route: &str, body: &[u8]) -> Result<Vec<u8>, PushError<'_>> {
        if route.is_empty() || !json::is_truthy(body) {
            return Err(PushError::Empty);
        }
        let proto = self.protos.server.as_ref().and_then(|s| s.proto(route));
        let code = self.dictionary.as_ref().and_then(|d| d.code(route));
        let route = code.map_or(MessageRoute::Text(route.as_bytes()), MessageRoute::Code);
        let package = match proto {
            None => message::push_package(route, body),
            Some(proto) => {
                let mut encoded = Vec::new();
                proto.encode(body, &mut encoded).map_err(PushError::Body)?;
                message::push_package(route, &encoded)
            }
        };
        package.map_err(PushError::Package)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::protobuf::{Flavour, ProtoEncodeError};

    fn coder(check: bool) -> Coder {
        let schema = |value| Schema::parse(Flavour::Pinus, &value).unwrap();
        let server = schema(json!({
            "onMove": {"required uInt32 x": 1},
            "a.b.c": {"optional uInt32 code": 1},
        }));
        let client = schema(json!({"a.b.c": {"required string s": 1, "optional uInt32 n": 2}}));
        let dictionary = Dictionary::new(["a.b.c"], ["onMove"]);
        let protos = Protos::new(Some(server), Some(client));
        Coder::new(Some(dictionary), Arc::new(protos), check)
    }

    fn decoded(coder: &Coder, route: &str, body: &[u8]) -> Result<(String, bool), DecodeError> {
        let mut scratch = Vec::new();
        let body = coder.decode(route, body, &mut scratch)?;
        Ok((String::from_utf8(body.text.to_vec()).unwrap(), body.valid))
    }

    #[test]
    fn a_body_is_decoded_by_the_proto_of_its_route_or_is_json() {
        let coder = coder(false);
        let ok = |text: &str, valid| Ok((text.to_owned(), valid));
        assert_eq!(
            decoded(&coder, "a.b.c", b"\x0a\x01x"),
            ok("{\"s\":\"x\"}", true)
        );
        assert_eq!(
            decoded(&coder, "a.b.d", b"{\"s\":1}"),
            ok("{\"s\":1}", true)
        );
        assert_eq!(decoded(&coder, "a.b.d", b"\x0a\x01x"), ok("{}", false));
        assert_eq!(
            decoded(&coder, "a.b.d", b"\"\xff\""),
            ok("\"\u{fffd}\"", true)
        );
        assert_eq!(
            decoded(&coder, "a.b.c", b"\x0a"),
            Err(DecodeError::Truncated)
        );
    }

    #[test]
    fn a_body_that_lacks_a_field_is_null_where_that_is_checked() {
        let only_n = b"\x10\x05";
        let text = |check| decoded(&coder(check), "a.b.c", only_n).unwrap().0;
        assert_eq!(
            (text(false), text(true)),
            ("{\"n\":5}".into(), "null".into())
        );
    }

    #[test]
    fn a_response_is_encoded_by_the_proto_of_its_request() {
        let coder = coder(false);
        let encoded = |route: &str, body: &str| {
            let mut scratch = Vec::new();
            let proto = coder.response_proto(route).expect("the route has a proto");
            let (body, result) = coder.encode(proto, body.as_bytes(), &mut scratch);
            (body.to_vec(), result.is_ok())
        };
        assert_eq!(
            encoded("a.b.c", "{\"code\":7,\"x\":1}"),
            (b"\x08\x07".to_vec(), true)
        );
        assert_eq!(encoded("a.b.c", "{\"x\":1}"), (Vec::new(), true));
        assert_eq!(coder.response_proto("a.b.d"), None);
        // The client gets an error, as far as the proto has fields for it.
        assert_eq!(
            encoded("a.b.c", "{\"code\":-1}"),
            (b"\x08\xf4\x03".to_vec(), false)
        );
        assert_eq!(encoded("onMove", "{\"x\":-1}"), (Vec::new(), false));
    }

    #[test]
    fn a_push_has_the_code_and_the_proto_of_its_route() {
        let coder = coder(false);
        let push = |route, body: &str| coder.push(route, body.as_bytes());
        assert_eq!(
            push("onMove", "{\"x\":3}").unwrap(),
            b"\x04\0\0\x05\x07\0\x02\x08\x03"
        );
        assert_eq!(push("onMove", "{}").unwrap(), b"\x04\0\0\x03\x07\0\x02");
        assert_eq!(push("onX", "{}").unwrap(), b"\x04\0\0\x07\x06\x03onX{}");
        assert_eq!(push("", "{}"), Err(PushError::Empty));
        assert_eq!(push("onX", "null"), Err(PushError::Empty));
        assert_eq!(
            push("onMove", "{\"x\":-1}"),
            Err(PushError::Body(BadBody {
                field: "x",
                error: ProtoEncodeError::Negative
            }))
        );
    }

    #[test]
    fn without_a_dictionary_no_code_means_anything() {
        assert_eq!(Coder::default().route(MessageRoute::Code(1)), None);
        assert_eq!(
            coder(false).route(MessageRoute::Code(1)),
            Some((&b"a.b.c"[..], true))
        );
        assert_eq!(coder(false).route(MessageRoute::Code(9)), None);
    }
}
