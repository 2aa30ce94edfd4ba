//! The bodies of handshake packages.

use super::json;

/// The parts of a client's handshake that the server acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeRequest<'a> {
    /// Raw text of `sys`. A handshake without a truthy `sys` is not a request.
    pub sys: &'a [u8],
}

impl<'a> HandshakeRequest<'a> {
    /// Reads a handshake body. `None`: not JSON, or no truthy `sys`; the answer is code 500.
    pub fn parse(body: &'a [u8]) -> Option<Self> {
        json::validate(body).ok()?;
        let sys = last_member(body, "sys")?;
        json::is_truthy(sys).then_some(Self { sys })
    }

    /// Kind of client, such as `js-websocket`; empty when it does not say.
    pub fn client_type(&self) -> String {
        self.text("type")
    }

    /// Its version; empty when it does not say.
    pub fn client_version(&self) -> String {
        self.text("version")
    }

    /// A member of `sys`: a string without its quotes, anything else as it is written.
    fn text(&self, name: &str) -> String {
        let raw = last_member(self.sys, name).unwrap_or_default();
        serde_json::from_slice(raw).unwrap_or_else(|_| String::from_utf8_lossy(raw).into_owned())
    }

    /// Dictionary version that the client has kept.
    pub fn dict_version(&self) -> Option<String> {
        serde_json::from_slice(last_member(self.sys, "dictVersion")?).ok()
    }

    /// Version of the protos that the client has kept.
    pub fn proto_version(&self) -> Option<String> {
        serde_json::from_slice(last_member(self.sys, "protoVersion")?).ok()
    }

    /// Raw text of what it signs its messages with.
    pub fn rsa(&self) -> Option<&'a [u8]> {
        last_member(self.sys, "rsa")
    }
}

/// Value of a key of an object; the last one counts, as in JavaScript.
fn last_member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let members = json::members(object).ok()?;
    members
        .flatten()
        .filter(|(key, _)| json::unescape(key) == name)
        .last()
        .map(|(_, value)| value)
}

/// Reply of a server that takes the client. `sys` is a JSON object text.
pub fn accepted(sys: &[u8]) -> Vec<u8> {
    let mut out = b"{\"code\":200,\"sys\":".to_vec();
    out.extend_from_slice(sys);
    out.push(b'}');
    out
}

/// The same with what the application has to say to this client, a JSON text.
pub fn accepted_with_user(accepted: &[u8], user: &[u8]) -> Vec<u8> {
    let mut out = accepted[..accepted.len() - 1].to_vec();
    out.extend_from_slice(b",\"user\":");
    out.extend_from_slice(user);
    out.push(b'}');
    out
}

/// Body for a request that is not one, or that the application refused: code 500.
pub const FAILED: &[u8] = b"{\"code\":500}";

/// Body for a client of a kind or version that is not taken: code 501.
pub const REFUSED: &[u8] = b"{\"code\":501}";

/// Body of a kick package.
pub fn kick(reason: &str) -> Vec<u8> {
    let mut out = b"{\"reason\":".to_vec();
    json::write_string(&mut out, reason);
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_truthy_sys_makes_a_request() {
        for body in [
            &b""[..],
            b"null",
            b"5",
            b"[]",
            b"{}",
            b"{not json",
            b"{\"sys\":0}",
            b"{\"sys\":\"\"}",
        ] {
            assert_eq!(
                HandshakeRequest::parse(body),
                None,
                "{}",
                body.escape_ascii()
            );
        }
        for body in [
            &b"{\"sys\":{}}"[..],
            b"{\"sys\":[]}",
            b"{\"sys\":\"x\"}",
            b"{\"sys\":true}",
        ] {
            assert!(
                HandshakeRequest::parse(body).is_some(),
                "{}",
                body.escape_ascii()
            );
        }
        let last = HandshakeRequest::parse(b"{\"sys\":1,\"sys\":{\"dictVersion\":\"v\"}}").unwrap();
        assert_eq!(last.dict_version().as_deref(), Some("v"));
    }

    /// Pieces of what clients send, in any order.
    fn almost_a_request() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\\",
            "\\u00",
            "null",
            "0",
            "1e400",
            "\"sys\":",
            "\"type\":",
            "\"version\":",
            "\"dictVersion\":",
            "\"protoVersion\":",
            "\"rsa\":",
            "{\"sys\":{",
            "\"x\"",
            "\u{e9}",
            " ",
        ]);
        prop::collection::vec(pieces, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_body_panics(
            text in almost_a_request(), bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let whole = format!("{{\"sys\":{{\"type\":{text}}}}}");
            for body in [text.as_bytes(), whole.as_bytes(), &bytes] {
                if let Some(request) = HandshakeRequest::parse(body) {
                    prop_assert!(json::is_truthy(request.sys));
                    let _ = (request.client_type(), request.client_version(), request.rsa());
                    let _ = (request.dict_version(), request.proto_version());
                }
            }
        }
    }
}
