//! Packages and messages of the client protocol as plain bytes, both sides, over raw TCP and
//! WebSocket. Only what the measurements send and expect: anything else is an error.

use std::fmt;
use std::io;
use std::ops::Range;

pub(crate) const HANDSHAKE: u8 = 1;
pub(crate) const ACK: u8 = 2;
pub(crate) const HEARTBEAT: u8 = 3;
pub(crate) const DATA: u8 = 4;

/// Message flags, each with a plain route where there is one.
pub(crate) const REQUEST: u8 = 0x00;
pub(crate) const NOTIFY: u8 = 0x02;
pub(crate) const RESPONSE: u8 = 0x04;
pub(crate) const PUSH: u8 = 0x06;

/// The masking key of every frame we send as a client. A fixed one costs the server what a random
/// one costs it.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    Tcp,
    Websocket,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "raw TCP",
            Self::Websocket => "WebSocket",
        })
    }
}

/// How packages are wrapped on the way out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Framing {
    pub(crate) transport: Transport,
    /// A WebSocket client masks what it sends.
    pub(crate) client: bool,
}

impl Framing {
    /// Appends the head of a package of `body_bytes`. The caller appends exactly that many bytes
    /// and then calls [`Self::end`] with what this returned.
    pub(crate) fn begin(self, out: &mut Vec<u8>, kind: u8, body_bytes: usize) -> usize {
        if self.transport == Transport::Websocket {
            let mask_bit = if self.client { 0x80 } else { 0 };
            out.push(0x82);
            match body_bytes + 4 {
                bytes @ ..126 => out.push(mask_bit | bytes as u8),
                bytes @ ..=0xffff => {
                    out.push(mask_bit | 126);
                    out.extend_from_slice(&(bytes as u16).to_be_bytes());
                }
                bytes => {
                    out.push(mask_bit | 127);
                    out.extend_from_slice(&(bytes as u64).to_be_bytes());
                }
            }
            if self.client {
                out.extend_from_slice(&MASK);
            }
        }
        let start = out.len();
        let length = (body_bytes as u32).to_be_bytes();
        out.extend_from_slice(&[kind, length[1], length[2], length[3]]);
        start
    }

    pub(crate) fn end(self, out: &mut [u8], start: usize) {
        if self.transport == Transport::Websocket && self.client {
            unmask(&mut out[start..], MASK);
        }
    }

    pub(crate) fn package(self, out: &mut Vec<u8>, kind: u8, body: &[u8]) {
        let start = self.begin(out, kind, body.len());
        out.extend_from_slice(body);
        self.end(out, start);
    }
}

/// Takes whole packages off the front of the bytes of one read.
pub(crate) struct Packages<'a> {
    bytes: &'a mut [u8],
    transport: Transport,
    at: usize,
    /// End of the WebSocket payload that `at` is in; `at` itself between frames.
    frame_end: usize,
}

impl<'a> Packages<'a> {
    pub(crate) fn new(transport: Transport, bytes: &'a mut [u8]) -> Self {
        Self {
            bytes,
            transport,
            at: 0,
            frame_end: 0,
        }
    }

    /// The next package's type and body; `None` when the rest is not whole yet.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u8, &[u8])>> {
        let end = match self.transport {
            Transport::Tcp => self.bytes.len(),
            Transport::Websocket => {
                while self.at == self.frame_end {
                    if !self.open_frame()? {
                        return Ok(None);
                    }
                }
                self.frame_end
            }
        };
        let Some(head) = self.bytes[self.at..end].first_chunk::<4>() else {
            return self.short("a package head");
        };
        let [kind, length @ ..] = *head;
        if !matches!(kind, HANDSHAKE..=DATA) {
            return Err(refused(format!("package type {kind}")));
        }
        let body_start = self.at + 4;
        let body_end =
            body_start + u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
        if body_end > end {
            return self.short("a package body");
        }
        self.at = body_end;
        Ok(Some((kind, &self.bytes[body_start..body_end])))
    }

    /// Returns the bytes that [`Self::next`] left: the start of a package or frame.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn short(&self, what: &str) -> io::Result<Option<(u8, &[u8])>> {
        match self.transport {
            Transport::Tcp => Ok(None),
            Transport::Websocket => Err(refused(format!("{what} is cut by the end of its frame"))),
        }
    }

    /// Steps into the next data frame if all of it is here.
    fn open_frame(&mut self) -> io::Result<bool> {
        let Some(frame) = Frame::parse(&self.bytes[self.at..]) else {
            return Ok(false);
        };
        let payload = self.at + frame.payload.start..self.at + frame.payload.end;
        if let Some(mask) = frame.mask {
            unmask(&mut self.bytes[payload.clone()], mask);
        }
        match frame.first {
            0x82 => self.at = payload.start,
            0x88 => return Err(refused("the other side sent a close frame")),
            0x89 | 0x8a => self.at = payload.end,
            first => return Err(refused(format!("WebSocket frame {first:#04x}"))),
        }
        self.frame_end = payload.end;
        Ok(true)
    }
}

struct Frame {
    first: u8,
    mask: Option<[u8; 4]>,
    payload: Range<usize>,
}

impl Frame {
    /// `None`: not all of it is here.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [first, second] = *bytes.first_chunk::<2>()?;
        let (payload_bytes, mut at) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*bytes[2..].first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*bytes[2..].first_chunk()?), 10),
            bytes => (u64::from(bytes), 2),
        };
        let mut mask = None;
        if second & 0x80 != 0 {
            mask = Some(*bytes.get(at..)?.first_chunk()?);
            at += 4;
        }
        let end = at.checked_add(usize::try_from(payload_bytes).ok()?)?;
        (end <= bytes.len()).then_some(Self {
            first,
            mask,
            payload: at..end,
        })
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    // Eight bytes at a time, so that the comparison server is not slow for a reason of our own.
    let key = u64::from(u32::from_ne_bytes(mask));
    let wide = key << 32 | key;
    let (chunks, tail) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Length of the varint at the front of `bytes`; `None` if it does not end within five.
pub(crate) fn varint_bytes(bytes: &[u8]) -> Option<usize> {
    bytes
        .iter()
        .take(5)
        .position(|byte| byte & 0x80 == 0)
        .map(|last| last + 1)
}

pub(crate) fn varint(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 7 | u32::from(byte & 0x7f))
}

/// `value` as a varint: the bytes, and how many of them count.
pub(crate) fn to_varint(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut count = 0;
    loop {
        bytes[count] = (value & 0x7f) as u8;
        value >>= 7;
        count += 1;
        if value == 0 {
            return (bytes, count);
        }
        bytes[count - 1] |= 0x80;
    }
}

/// A request to `route` as one data package.
pub(crate) fn request(framing: Framing, out: &mut Vec<u8>, id: u32, route: &str, body: &[u8]) {
    let (id, id_bytes) = to_varint(id);
    let start = framing.begin(out, DATA, 1 + id_bytes + 1 + route.len() + body.len());
    out.push(REQUEST);
    out.extend_from_slice(&id[..id_bytes]);
    out.push(route.len() as u8);
    out.extend_from_slice(route.as_bytes());
    out.extend_from_slice(body);
    framing.end(out, start);
}

/// A notify or push of `route` as one data package.
pub(crate) fn without_id(framing: Framing, out: &mut Vec<u8>, flag: u8, route: &str, body: &[u8]) {
    let start = framing.begin(out, DATA, 2 + route.len() + body.len());
    out.extend_from_slice(&[flag, route.len() as u8]);
    out.extend_from_slice(route.as_bytes());
    out.extend_from_slice(body);
    framing.end(out, start);
}

/// Route and body of a notify or push message; `None` if it is another message.
pub(crate) fn routed(flag: u8, message: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&route_bytes, rest) = message.strip_prefix(&[flag])?.split_first()?;
    rest.split_at_checked(usize::from(route_bytes))
}

/// Id and body of a response message.
pub(crate) fn response(message: &[u8]) -> io::Result<(u32, &[u8])> {
    let parts = || {
        let rest = message.strip_prefix(&[RESPONSE])?;
        let (id, body) = rest.split_at(varint_bytes(rest)?);
        Some((varint(id), body))
    };
    parts().ok_or_else(|| refused(format!("not a response: {}", shown(message))))
}

/// Bytes of the other side, for an error message.
pub(crate) fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(120)].escape_ascii().to_string()
}

pub(crate) fn refused(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Framing; 4] = [
        Framing {
            transport: Transport::Tcp,
            client: true,
        },
        Framing {
            transport: Transport::Tcp,
            client: false,
        },
        Framing {
            transport: Transport::Websocket,
            client: true,
        },
        Framing {
            transport: Transport::Websocket,
            client: false,
        },
    ];

    fn decoded(transport: Transport, bytes: &mut [u8]) -> (Vec<(u8, Vec<u8>)>, usize) {
        let mut packages = Packages::new(transport, bytes);
        let mut found = Vec::new();
        while let Some((kind, body)) = packages.next().unwrap() {
            found.push((kind, body.to_vec()));
        }
        (found, packages.rest().len())
    }

    #[test]
    fn packages_come_out_as_they_went_in_and_a_cut_waits() {
        for framing in ALL {
            for body_bytes in [0, 1, 121, 122, 200, 65_531, 65_532, 70_000] {
                let body: Vec<u8> = (0..body_bytes).map(|n| n as u8).collect();
                let mut out = Vec::new();
                framing.package(&mut out, HEARTBEAT, b"");
                let first = out.len();
                framing.package(&mut out, DATA, &body);
                for end in [first, first + 1, first.midpoint(out.len()), out.len() - 1] {
                    let (found, rest) = decoded(framing.transport, &mut out.clone()[..end]);
                    assert_eq!(
                        (found.len(), rest),
                        (1, end - first),
                        "{framing:?} {body_bytes} {end}"
                    );
                }
                let (found, rest) = decoded(framing.transport, &mut out);
                assert_eq!(found, [(HEARTBEAT, vec![]), (DATA, body)]);
                assert_eq!(rest, 0);
            }
        }
    }

    #[test]
    fn two_packages_may_share_a_frame() {
        let mut bytes = *b"\x82\x09\x03\0\0\0\x04\0\0\x01x";
        let (found, rest) = decoded(Transport::Websocket, &mut bytes);
        assert_eq!(
            (found, rest),
            (vec![(HEARTBEAT, vec![]), (DATA, b"x".to_vec())], 0)
        );
    }

    #[test]
    fn an_empty_frame_is_skipped_and_a_cut_package_refused() {
        assert_eq!(
            decoded(
                Transport::Websocket,
                &mut b"\x89\x00\x82\x04\x03\0\0\0".to_vec()
            )
            .0
            .len(),
            1
        );
        assert!(
            Packages::new(Transport::Websocket, &mut b"\x82\x03\x03\0\0".to_vec())
                .next()
                .is_err()
        );
        assert!(
            Packages::new(Transport::Tcp, &mut b"\x09\0\0\0".to_vec())
                .next()
                .is_err()
        );
    }

    #[test]
    fn ids_of_every_width_survive() {
        for id in [
            1,
            127,
            128,
            16_383,
            16_384,
            2_097_151,
            2_097_152,
            268_435_456,
            i32::MAX as u32,
        ] {
            let (bytes, count) = to_varint(id);
            assert_eq!(varint_bytes(&bytes[..count]), Some(count));
            assert_eq!(varint(&bytes[..count]), id);
        }
        assert_eq!(varint_bytes(&[0x80; 6]), None);
    }
}
