//! A link that a peer opened to call us.

use super::{Received, foreign};
use crate::limits::RPC_FRAME_BYTES_MAX;
use crate::wire::pomelo::mqtt::{self, Packet};

/// Event of an accepted link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptorEvent<'a> {
    /// JSON with one call or an array of them; [`crate::wire::pomelo::rpc::calls`] reads it.
    Payload(&'a [u8]),
    /// Answer with PINGRESP.
    Ping,
    /// The peer is about to close.
    Disconnect,
}

/// Takes the next whole packet off the front of `input`. As in the genuine server, a link works without a
/// CONNECT.
pub fn receive(input: &[u8]) -> Received<AcceptorEvent<'_>> {
    let decoded = mqtt::decode(input, RPC_FRAME_BYTES_MAX).map_err(|_| foreign(input))?;
    let Some((packet, bytes)) = decoded else {
        return Ok(None);
    };
    let event = match packet {
        Packet::Publish {
            topic: mqtt::RPC_TOPIC,
            payload,
        } => Some(AcceptorEvent::Payload(payload)),
        Packet::PingReq => Some(AcceptorEvent::Ping),
        Packet::Disconnect => Some(AcceptorEvent::Disconnect),
        Packet::Publish { .. } | Packet::Connect | Packet::Connack | Packet::PingResp => None,
    };
    Ok(Some((bytes, event)))
}
