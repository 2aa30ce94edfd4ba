//! What a client gets for its handshake.

use bytes::Bytes;

use super::check::ClientCheck;
use crate::config::{Config, Dialect};
use crate::route::dictionary::Dictionary;
use crate::wire::handshake::{self, Request};

/// Replies, made once at start.
#[derive(Debug)]
pub struct Handshake {
    /// `sys` with everything.
    full: Bytes,
    /// `sys` for a client whose dictionary is up to date.
    cached: Bytes,
    dict_version: Option<String>,
    check: ClientCheck,
}

/// The body of the reply, and whether the client is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Body of the handshake package.
    pub body: Bytes,
    /// False: the connection is closed after the reply.
    pub accepted: bool,
}

impl Handshake {
    /// From the heartbeat option and, with `use_dict`, the dictionary.
    pub fn new(config: &Config, dictionary: &Dictionary) -> Self {
        let mut members = Vec::new();
        if let Some(heartbeat) = config.client.heartbeat {
            members.push(format!("\"heartbeat\":{}", heartbeat.as_secs()));
        }
        let mut cached = members.clone();
        let mut dict_version = None;
        if config.client.use_dict {
            let version = dictionary.version();
            members.push(format!("\"dict\":{}", dictionary.routes_json()));
            // As pomelo, not pinus: the map goes out three times; old C clients insist on it.
            if config.dialect == Dialect::Pomelo {
                members.push(format!("\"routeToCode\":{}", dictionary.routes_json()));
                members.push(format!("\"codeToRoute\":{}", dictionary.codes_json()));
            }
            members.push(format!("\"dictVersion\":\"{version}\""));
            members.push("\"useDict\":true".into());
            cached.push("\"useDict\":true".into());
            dict_version = Some(version);
        }
        let body = |members: Vec<String>| {
            Bytes::from(handshake::accepted(
                format!("{{{}}}", members.join(",")).as_bytes(),
            ))
        };
        Self {
            full: body(members),
            cached: body(cached),
            dict_version,
            // Checked at start.
            check: ClientCheck::parse(&config.client.accept).unwrap_or_default(),
        }
    }

    /// Answers a handshake body.
    pub fn answer(&self, body: &[u8]) -> Answer {
        let refused = |body| Answer {
            body: Bytes::from_static(body),
            accepted: false,
        };
        let Some(request) = Request::parse(body) else {
            return refused(handshake::FAILED);
        };
        if !self.check.is_empty()
            && !self
                .check
                .accepts(&request.client_type(), &request.client_version())
        {
            return refused(handshake::REFUSED);
        }
        let known = self.dict_version.is_some() && request.dict_version() == self.dict_version;
        let body = if known {
            self.cached.clone()
        } else {
            self.full.clone()
        };
        Answer {
            body,
            accepted: true,
        }
    }
}
