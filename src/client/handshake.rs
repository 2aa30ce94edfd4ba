//! Replies to handshakes.

use bytes::Bytes;

use super::check::ClientCheck;
use super::coder::Protos;
use super::crypto::PublicKey;
use crate::config::{Config, Dialect};
use crate::route::dictionary::Dictionary;
use crate::wire::handshake::{self, HandshakeRequest};
use crate::wire::json;

/// The replies, built once at start.
#[derive(Debug)]
pub struct HandshakeReplies {
    /// By whether the client has cached the dictionary and the protos.
    replies: [[Bytes; 2]; 2],
    dict_version: Option<String>,
    proto_version: Option<String>,
    check: ClientCheck,
    use_crypto: bool,
    /// Bits of the largest RSA key.
    rsa_bits_max: usize,
}

/// A handshake that the configuration accepts.
#[derive(Debug)]
pub struct Greeting<'a> {
    /// The request of the client.
    pub request: HandshakeRequest<'a>,
    /// The key of the client's signatures. With `client.use_crypto`, a client without a usable key
    /// connects too, and its messages are dropped.
    pub key: Option<PublicKey>,
}

/// The answer to a refused handshake. The connection is closed after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Body of the reply.
    pub body: &'static [u8],
    /// Reason, for the log.
    pub cause: &'static str,
}

impl HandshakeReplies {
    /// Builds the replies from the heartbeat option and, if they are in use, the dictionary and the
    /// protos.
    pub fn new(
        config: &Config,
        check: ClientCheck,
        dictionary: &Dictionary,
        protos: &Protos,
    ) -> Self {
        let client = &config.client;
        let (use_dict, use_protobuf) = (client.use_dict, client.use_protobuf);
        let reply = |has_dict: bool, has_protos: bool| {
            let mut members = Vec::new();
            if let Some(heartbeat) = client.heartbeat {
                members.push(format!("\"heartbeat\":{}", heartbeat.as_secs()));
            }
            if use_dict && !has_dict {
                write_dictionary(&mut members, config.dialect, dictionary);
            }
            if use_dict {
                members.push("\"useDict\":true".into());
            }
            if use_protobuf && !has_protos {
                members.push(format!("\"protos\":{}", protos.json()));
            }
            if use_protobuf {
                members.push("\"useProto\":true".into());
            }
            let sys = format!("{{{}}}", members.join(","));
            Bytes::from(handshake::accepted(sys.as_bytes()))
        };
        Self {
            replies: [false, true].map(|dict| [false, true].map(|protos| reply(dict, protos))),
            dict_version: use_dict.then(|| dictionary.version()),
            // As in Pomelo, the version is empty without any protos, and clients treat it as missing.
            proto_version: Some(protos.version().to_owned())
                .filter(|version| use_protobuf && !version.is_empty()),
            check,
            use_crypto: client.use_crypto,
            rsa_bits_max: client.rsa_bits_max.unwrap_or(usize::MAX),
        }
    }

    /// Reads a handshake body. Refuses a client whose type or version the configuration or `also` rejects.
    pub fn examine<'a>(
        &self,
        body: &'a [u8],
        also: impl FnOnce(&HandshakeRequest<'a>) -> bool,
    ) -> Result<Greeting<'a>, Refusal> {
        let request = HandshakeRequest::parse(body).ok_or(Refusal {
            body: handshake::FAILED,
            cause: "its body cannot be read",
        })?;
        let is_taken = self.check.is_empty()
            || self
                .check
                .accepts(&request.client_type(), &request.client_version());
        if !is_taken || !also(&request) {
            return Err(Refusal {
                body: handshake::REFUSED,
                cause: "the type or version of the client is not accepted",
            });
        }
        let mut key = None;
        if self.use_crypto {
            let rsa = request.rsa().and_then(json::parse).unwrap_or_default();
            if rsa.is_null() {
                return Err(Refusal {
                    body: handshake::FAILED,
                    cause: "client.use_crypto is on, and the client sent no key",
                });
            }
            if PublicKey::bits(&rsa) > self.rsa_bits_max {
                return Err(Refusal {
                    body: handshake::FAILED,
                    cause: "its RSA key has more bits than client.rsa_bits_max",
                });
            }
            key = PublicKey::from_json(&rsa);
        }
        Ok(Greeting { request, key })
    }

    /// Returns the reply to an accepted client.
    pub fn reply(&self, request: &HandshakeRequest<'_>) -> Bytes {
        let dict = self.dict_version.is_some() && request.dict_version() == self.dict_version;
        let protos = self.proto_version.is_some() && request.proto_version() == self.proto_version;
        self.replies[usize::from(dict)][usize::from(protos)].clone()
    }
}

fn write_dictionary(members: &mut Vec<String>, dialect: Dialect, dictionary: &Dictionary) {
    members.push(format!("\"dict\":{}", dictionary.routes_json()));
    // Old C clients insist on all three maps.
    if dialect.sends_code_maps() {
        members.push(format!("\"routeToCode\":{}", dictionary.routes_json()));
        members.push(format!("\"codeToRoute\":{}", dictionary.codes_json()));
    }
    members.push(format!("\"dictVersion\":\"{}\"", dictionary.version()));
}
