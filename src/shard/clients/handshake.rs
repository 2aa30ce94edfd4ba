//! The handshake of a client: its checks and its reply.

use bytes::Bytes;

use super::Clients;
use crate::client::crypto::PublicKey;
use crate::client::handshake::{Greeting, Refusal};
use crate::ids::Sid;
use crate::limits::HANDSHAKE_KEPT_BYTES_MAX;
use crate::shard::Core;
use crate::wire::handshake::HandshakeRequest;
use crate::wire::{json, package};

impl Clients {
    /// Checks a handshake; `accepts` is the application's check of the client's type and version.
    pub(in crate::shard) fn examine<'a>(
        &self,
        body: &'a [u8],
        accepts: impl FnOnce(&HandshakeRequest<'a>) -> bool,
    ) -> Result<Greeting<'a>, Refusal> {
        self.handshake.examine(body, accepts)
    }

    /// Returns the reply to a handshake that has passed its checks.
    pub(in crate::shard) fn reply(&self, request: &HandshakeRequest<'_>) -> Bytes {
        self.handshake.reply(request)
    }

    /// Keeps the handshake of a client for handlers, unless it is too long.
    pub(in crate::shard) fn keep_handshake(&self, core: &Core, sid: Sid, body: &[u8]) {
        if body.len() <= HANDSHAKE_KEPT_BYTES_MAX {
            self.set_handshake(core, sid, json::parse(body).unwrap_or_default());
        }
    }

    /// Accepts a client: sends the reply, unless it had one already.
    pub(in crate::shard) fn welcome(
        &self,
        core: &Core,
        sid: Sid,
        reply: &[u8],
        key: Option<PublicKey>,
    ) {
        if self.accept_handshake(sid, key) {
            self.control(core, sid, package::PackageKind::Handshake, reply);
        }
    }

    /// Sends the error of a handshake; false when the connection has closed. As pomelo: an error goes out in any
    /// other state.
    pub(in crate::shard) fn refuse_handshake(
        &self,
        core: &Core,
        sid: Sid,
        body: &[u8],
        cause: &str,
    ) -> bool {
        let is_open = self.is_open(sid);
        if is_open {
            let address = self.address_for_log(sid);
            tracing::info!(session = %sid, address = &*address, cause, "a handshake is refused");
            self.control(core, sid, package::PackageKind::Handshake, body);
        }
        is_open
    }
}
