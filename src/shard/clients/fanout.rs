//! Messages of clients and packages for them: decoding, encoding, the choice of a push scheduler.

use std::borrow::Cow;

use super::Clients;
use crate::client::ClientState;
use crate::client::coder::PushError;
use crate::error::CloseReason;
use crate::handler::{BroadcastOptions, Failure, Sending};
use crate::ids::Sid;
use crate::limits::READ_BUFFER_BYTES;
use crate::metrics::Counter;
use crate::push::select::{Outgoing, Via};
use crate::shard::Core;
use crate::wire::message::MessageRoute;
use crate::wire::protobuf::ProtoId;

/// The body of a client's message, as JSON text.
pub(in crate::shard) enum Decoded<'a> {
    Body(Cow<'a, [u8]>),
    /// It is signed wrongly: its message is dropped.
    Unsigned,
    /// It is too long to look for its signature.
    TooLong,
}

impl Clients {
    // ---- In ----

    /// Returns the text of a message's route, and whether it came as a code; `None` for an unknown code.
    #[inline]
    pub(in crate::shard) fn route<'a>(
        &'a self,
        route: MessageRoute<'a>,
    ) -> Option<(&'a [u8], bool)> {
        self.coder.route(route)
    }

    /// Decodes the body of a client's message to JSON text, and takes the signature off. `scratch` is memory for a body
    /// that has another form on the wire.
    #[inline]
    pub(in crate::shard) fn decode<'a>(
        &self,
        core: &Core,
        sid: Sid,
        route: &str,
        body: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Decoded<'a>, CloseReason> {
        hop!();
        if self.coder.has_client_protos() {
            *scratch = self.scratch.take();
        }
        let body = self.coder.decode(route, body, scratch);
        let body = body.map_err(|_| CloseReason::MessageBody)?;
        if !body.valid {
            core.counters().add(Counter::BodiesInvalid, 1);
        }
        if !core.config.client.use_crypto {
            return Ok(Decoded::Body(Cow::Borrowed(body.text)));
        }
        self.verified(core, sid, route, body.text)
    }

    /// Takes the signature off a signed body. For this it becomes a tree of values, so `client.json_bytes_max` holds for
    /// it. Out of line, like the other rare paths, so that the common path keeps its registers.
    #[inline(never)]
    fn verified(
        &self,
        core: &Core,
        sid: Sid,
        route: &str,
        body: &[u8],
    ) -> Result<Decoded<'static>, CloseReason> {
        let client = &core.config.client;
        if body.len() > client.json_bytes_max.unwrap_or(usize::MAX) {
            core.counters().add(Counter::BodiesTooLong, 1);
            return Ok(Decoded::TooLong);
        }
        if let Some(verified) = self.verify(sid, body) {
            return Ok(Decoded::Body(Cow::Owned(verified)));
        }
        if self.add_bad_signature(sid) > client.bad_signatures_max.unwrap_or(usize::MAX) {
            return Err(CloseReason::Signature);
        }
        core.counters().add(Counter::MessagesUnsigned, 1);
        tracing::debug!(session = %sid, route, "fail to verify the data received from client.");
        Ok(Decoded::Unsigned)
    }

    /// Takes the memory of a decoded body back for the next one. A large one is freed.
    #[inline]
    pub(in crate::shard) fn recycle(&self, mut scratch: Vec<u8>) {
        if (1..=READ_BUFFER_BYTES).contains(&scratch.capacity()) {
            scratch.clear();
            self.scratch.set(scratch);
        }
    }

    // ---- Out ----

    /// Returns the proto of the responses of a route.
    #[inline]
    pub(in crate::shard) fn response_proto(&self, route: &str) -> Option<ProtoId> {
        self.coder.response_proto(route)
    }

    /// Encodes the body of a response in the form of its proto.
    #[inline(never)]
    pub(in crate::shard) fn encode_response<'a>(
        &'a self,
        core: &Core,
        sid: Sid,
        proto: ProtoId,
        route: &str,
        body: &'a [u8],
        encoded: &'a mut Vec<u8>,
    ) -> &'a [u8] {
        let (body, result) = self.coder.encode(proto, body, encoded);
        if let Err(error) = result {
            core.counters().add(Counter::BodiesUnencodable, 1);
            tracing::warn!(session = %sid, route, %error, "a response does not fit its proto");
        }
        body
    }

    /// Encodes a push or broadcast once for all who get it.
    pub(in crate::shard) fn encode_push(
        &self,
        core: &Core,
        sending: &Sending<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let route = sending.route().unwrap_or_default();
        self.coder.push(route, sending.body()).map_err(|error| {
            if let PushError::Body(error) = &error {
                core.counters().add(Counter::BodiesUnencodable, 1);
                tracing::warn!(route, %error, "a push does not fit its proto");
            }
            Failure::new(error.to_string())
        })
    }

    /// Returns the scheduler of responses.
    #[inline]
    pub(in crate::shard) fn response_scheduler(&self) -> Via {
        self.selector.response()
    }

    /// Returns the scheduler of a package: the application's choice, else that of the rules.
    pub(in crate::shard) fn scheduler(
        &self,
        core: &Core,
        sending: &Sending<'_>,
        choice: Option<&str>,
    ) -> Result<Via, Failure> {
        if let Some(id) = choice {
            return self.selector.by_id(id).ok_or_else(|| {
                core.counters().add(Counter::SchedulersUnknown, 1);
                let text = format!("invalid pushScheduler id, id: {id:?}");
                tracing::error!("{text}");
                Failure::new(text)
            });
        }
        Ok(match sending.route() {
            Some(route) => self.selector.push(route),
            None => self.selector.response(),
        })
    }

    /// Returns the working sessions that a broadcast is for.
    pub(in crate::shard) fn receivers(&self, options: &BroadcastOptions) -> Vec<Sid> {
        let mut connections = self.connections.borrow_mut();
        let receivers = connections.iter_mut().filter(|(_, connection)| {
            connection.state() == ClientState::Working
                && (!options.bound_only || connection.is_bound())
        });
        receivers.map(|(sid, _)| sid).collect()
    }

    /// Puts a package on the way to those sessions that are not of this shard. Returns for how many of all there was
    /// room.
    pub(in crate::shard) fn push_elsewhere(
        &self,
        core: &Core,
        sids: &[Sid],
        package: &Outgoing,
    ) -> usize {
        let mut mesh = core.mesh.borrow_mut();
        let mut sent = 0;
        for sid in sids {
            let shard = sid.shard();
            if shard == core.id {
                sent += 1;
            } else if shard.index() >= core.shards {
                // A number that an application made up.
                core.counters().add(Counter::PushesDropped, 1);
            } else if let Some(batch) = mesh.batch_for_work(shard) {
                batch.push(package, *sid);
                sent += 1;
            } else {
                core.counters().add(Counter::MeshFull, 1);
            }
        }
        core.turn.request();
        sent
    }
}
