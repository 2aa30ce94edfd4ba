//! The subset of MQTT 3.1.1 that Pomelo's servers use as a pipe between each other.

use crate::wire::varint::{self, VarintError};

/// Topic of every RPC publish.
pub const RPC_TOPIC: &[u8] = b"rpc";
/// Topic of the greeting of mqtt2, another RPC of these packages.
pub const MQTT2_TOPIC: &[u8] = b"h";
/// Keep-alive question of the caller.
pub const PINGREQ: [u8; 2] = [0xc0, 0];
/// Its answer.
pub const PINGRESP: [u8; 2] = [0xd0, 0];
/// Says good-bye before a FIN, which genuine callers do not notice.
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

const LENGTH_BYTES_MAX: usize = 4;

/// One packet, a view into the read buffer.
///
/// Shape:  `type: u4, flags: u4` · `remaining length: varint, ≤ 4 bytes` · the rest
/// Bound:  the whole packet ≤ `bytes_max`
/// Errors: see [`MqttError`]
/// Source: sys-rpc transcripts in `tests/vectors/rpc/`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// First packet of a caller.
    Connect,
    /// Never sent on an RPC port; ignored.
    Connack,
    /// A payload on a topic, QoS 0.
    Publish {
        /// `rpc` between servers.
        topic: &'a [u8],
        /// JSON to the end of the packet.
        payload: &'a [u8],
    },
    /// Keep-alive question.
    PingReq,
    /// Keep-alive answer.
    PingResp,
    /// The sender is about to close.
    Disconnect,
}

/// The reason why bytes are not a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MqttError {
    /// A type that these servers never send, or a QoS above 0.
    Unexpected(u8),
    /// Announced length over the bound.
    TooLong,
    /// A publish cut inside its topic.
    Truncated,
}

/// Bytes of the packet at the front; `None`: its length is not all there yet.
pub fn packet_bytes(input: &[u8], bytes_max: usize) -> Result<Option<usize>, MqttError> {
    let Some((&first, rest)) = input.split_first() else {
        return Ok(None);
    };
    // Foreign bytes are known by the first of them, before a length is waited for.
    let qos_0_publish = first >> 4 == 3 && first & 0b0110 == 0;
    if !qos_0_publish && !matches!(first >> 4, 1 | 2 | 12..=14) {
        return Err(MqttError::Unexpected(first));
    }
    match varint::decode(rest, LENGTH_BYTES_MAX) {
        Ok((length, head)) if 1 + head + length as usize <= bytes_max => {
            Ok(Some(1 + head + length as usize))
        }
        Err(VarintError::Truncated) => Ok(None),
        Ok(_) | Err(VarintError::TooLong) => Err(MqttError::TooLong),
    }
}

/// The packet at the front of `input` and its bytes; `None`: it is not all there yet.
pub fn decode(input: &[u8], bytes_max: usize) -> Result<Option<(Packet<'_>, usize)>, MqttError> {
    let Some(bytes) = packet_bytes(input, bytes_max)? else {
        return Ok(None);
    };
    let Some(whole) = input.get(..bytes) else {
        return Ok(None);
    };
    let head = 1 + whole[1..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let body = &whole[head..];
    let packet = match whole[0] >> 4 {
        1 => Packet::Connect,
        2 => Packet::Connack,
        3 => {
            let (length, rest) = body.split_first_chunk().ok_or(MqttError::Truncated)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (topic, payload) = rest.split_at_checked(length).ok_or(MqttError::Truncated)?;
            Packet::Publish { topic, payload }
        }
        12 => Packet::PingReq,
        13 => Packet::PingResp,
        14 => Packet::Disconnect,
        _ => return Err(MqttError::Unexpected(whole[0])),
    };
    Ok(Some((packet, bytes)))
}

/// Writes the CONNECT of a caller: clean session, keep-alive 0.
pub fn write_connect(out: &mut Vec<u8>, client_id: &str) {
    let id = &client_id.as_bytes()[..client_id.len().min(usize::from(u16::MAX))];
    out.push(0x10);
    varint::write(out, 12 + id.len() as u32);
    out.extend_from_slice(b"\x00\x04MQTT\x04\x02\x00\x00");
    out.extend_from_slice(&(id.len() as u16).to_be_bytes());
    out.extend_from_slice(id);
}

/// Length bytes that a PUBLISH is written with at first: two fit nearly every one, another size moves
/// the payload by a byte or two.
const LENGTH_BYTES_GUESS: usize = 2;

/// Writes a PUBLISH on topic `rpc` whose payload `write` appends: one frame, in place.
pub fn write_publish(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0x30, 0, 0, 0, RPC_TOPIC.len() as u8]);
    out.extend_from_slice(RPC_TOPIC);
    write(out);
    write_length(out, start);
}

/// As [`write_publish`], on any topic.
pub fn write_publish_on(out: &mut Vec<u8>, topic: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
    debug_assert!(topic.len() <= usize::from(u16::MAX));
    let start = out.len();
    out.extend_from_slice(&[0x30, 0, 0]);
    out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic);
    write(out);
    write_length(out, start);
}

/// Sets the length of the packet from `start` to the end.
#[inline]
fn write_length(out: &mut Vec<u8>, start: usize) {
    const GUESS: usize = LENGTH_BYTES_GUESS;
    let length = out.len() - start - 1 - GUESS;
    let mut head = [0; LENGTH_BYTES_MAX];
    let mut used = 0;
    let mut value = length;
    loop {
        head[used] = (value & 0x7f) as u8 | if value >= 0x80 { 0x80 } else { 0 };
        value >>= 7;
        used += 1;
        if value == 0 || used == LENGTH_BYTES_MAX {
            break;
        }
    }
    if used == GUESS {
        out[start + 1..start + 1 + GUESS].copy_from_slice(&head[..GUESS]);
    } else {
        out.splice(start + 1..start + 1 + GUESS, head[..used].iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_size_is_framed_and_every_split_waits() {
        for size in [
            0, 1, 122, 123, 127, 128, 200, 16_378, 16_379, 16_384, 200_000, 2_097_152,
        ] {
            let mut out = vec![7];
            write_publish(&mut out, |out| out.resize(out.len() + size, b'x'));
            let (packet, bytes) = decode(&out[1..], 1 << 24).unwrap().unwrap();
            assert_eq!(bytes, out.len() - 1);
            let Packet::Publish { topic, payload } = packet else {
                panic!("{packet:?}")
            };
            assert_eq!((topic, payload.len()), (RPC_TOPIC, size));
            for end in (0..out.len() - 1).step_by(1 + size / 50) {
                assert_eq!(
                    decode(&out[1..][..end], 1 << 24),
                    Ok(None),
                    "{size} at {end}"
                );
            }
        }
    }

    #[test]
    fn packets_that_these_servers_never_send_are_an_error() {
        assert_eq!(decode(&[0x82, 0], 100), Err(MqttError::Unexpected(0x82)));
        assert_eq!(decode(&[0x32, 0], 100), Err(MqttError::Unexpected(0x32)));
        assert_eq!(decode(&[0x30, 1, 0], 100), Err(MqttError::Truncated));
        assert_eq!(
            decode(&[0x30, 0xff, 0xff, 0xff, 0x7f], 100),
            Err(MqttError::TooLong)
        );
        assert_eq!(
            decode(&[0x30, 0xff, 0xff, 0xff, 0xff, 1], 1 << 30),
            Err(MqttError::TooLong)
        );
    }
}
