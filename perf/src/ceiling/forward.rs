//! The least that a frontend could do for a forwarded request: read from the client, write to the
//! backend, read from the backend, write to the client. All calls of one batch of events leave in one
//! write, and so do all answers to one client. The calls have the bytes of a genuine frontend, so the
//! backend has the same work.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;

use super::{Connections, Request, response};
use crate::rpc::{self, Packets};
use crate::stream::Stream;
use crate::wire::{Framing, refused, shown, varint};

/// A link to the backend.
pub(super) struct Link {
    pub(super) stream: Stream,
    /// Its token in the epoll instance.
    pub(super) token: u64,
    /// Calls of this batch of events.
    calls: Vec<u8>,
    /// Calls without an answer, the oldest first. The backend answers in this order.
    waiting: VecDeque<Waiting>,
    /// Number of the oldest call without an answer.
    first: u64,
    /// Clients that have answers of this batch of events.
    answered: Vec<usize>,
}

/// A request that the backend has not answered.
struct Waiting {
    slot: usize,
    /// The id of the request, a varint in the first `id_bytes` bytes.
    id: [u8; 5],
    id_bytes: usize,
}

impl Link {
    pub(super) fn connect(address: SocketAddr, token: u64) -> io::Result<Self> {
        Ok(Self {
            stream: Stream::new(rpc::connect_to_server(address)?)?,
            token,
            calls: Vec::new(),
            waiting: VecDeque::new(),
            first: 0,
            answered: Vec::new(),
        })
    }

    pub(super) fn forward(&mut self, slot: usize, request: &Request<'_>) {
        let number = self.first + self.waiting.len() as u64;
        let message_id = varint(request.id);
        // The genuine ids of sessions begin with 1.
        let session = slot as u64 + 1;
        let calls = &mut self.calls;
        rpc::forward(
            calls,
            number,
            message_id,
            request.route,
            request.body,
            session,
        );
        let mut id = [0; 5];
        id[..request.id.len()].copy_from_slice(request.id);
        let id_bytes = request.id.len();
        self.waiting.push_back(Waiting { slot, id, id_bytes });
    }

    /// Takes the answers of one read.
    pub(super) fn take(
        &mut self,
        buffer: &mut [u8],
        connections: &mut Connections<'_>,
    ) -> io::Result<()> {
        if self.stream.is_blocked() {
            self.stream.flush()?;
            self.watch_again(connections.epoll, true)?;
        }
        // A Pomelo backend waits for the acknowledgement, so every frontend must send it at once.
        self.stream.acknowledge_at_once()?;
        let Some(bytes) = self.stream.read(buffer)? else {
            return Ok(());
        };
        let mut packets = Packets::new(bytes);
        while let Some((kind, body)) = packets.next()? {
            if kind != rpc::PUBLISH {
                return Err(refused(format!("packet {kind:#04x} from the backend")));
            }
            let payload = rpc::payload(body)?;
            let wrong = || refused(format!("the backend answered {}", shown(payload)));
            let value = rpc::value(payload, self.first).ok_or_else(wrong)?;
            let call = self.waiting.pop_front().ok_or_else(wrong)?;
            self.first += 1;
            // A client that has left gets no answer.
            let Some(client) = &mut connections.slots[call.slot] else {
                continue;
            };
            let Some(transport) = client.transport else {
                continue;
            };
            if client.answers.is_empty() {
                self.answered.push(call.slot);
            }
            let framing = Framing {
                transport,
                client: false,
            };
            response(
                framing,
                &mut client.answers,
                &call.id[..call.id_bytes],
                value,
            );
        }
        self.stream.keep(packets.rest())
    }

    /// Writes the calls and the answers of this batch of events.
    pub(super) fn send(&mut self, connections: &mut Connections<'_>) -> io::Result<()> {
        if !self.calls.is_empty() {
            let was_blocked = self.stream.is_blocked();
            self.stream.write(&self.calls)?;
            self.calls.clear();
            self.watch_again(connections.epoll, was_blocked)?;
        }
        for slot in self.answered.drain(..) {
            let Some(client) = &mut connections.slots[slot] else {
                continue;
            };
            let mut answers = std::mem::take(&mut client.answers);
            client.write(connections.epoll, slot, &answers)?;
            answers.clear();
            client.answers = answers;
        }
        Ok(())
    }

    /// Watches for room too while bytes wait for the socket. Still reads, because the backend may wait until this side
    /// reads.
    fn watch_again(&self, epoll: &OwnedFd, was_blocked: bool) -> io::Result<()> {
        if self.stream.is_blocked() == was_blocked {
            return Ok(());
        }
        let flags = EventFlags::IN | EventFlags::OUT;
        self.stream.watch_again(epoll, self.token, flags)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::clients::Body;
    use crate::session::{self, ECHO_ROUTE, FORWARD_ROUTE};
    use crate::tls::{Connection, Dial};
    use crate::wire::{self, Packages, Transport};
    use crate::{backend, ceiling};

    /// The bytes of the first call in a capture of a genuine frontend.
    fn captured() -> Vec<u8> {
        let file = include_str!("../../../tests/vectors/rpc/pomelo-forward-request.jsonl");
        let lines = file.lines().map(serde_json::from_str::<serde_json::Value>);
        let mut lines = lines.map(|line| line.expect("a capture is JSON, one value a line"));
        let call =
            lines.find(|line| line["kind"] == "mqtt-publish" && line["from"] == "connector-1");
        let hex = call.expect("the frontend calls")["hex"].clone();
        let digits = hex.as_str().expect("bytes are text").as_bytes();
        let bytes = digits.chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).expect("hex is ASCII");
            u8::from_str_radix(pair, 16).expect("hex has pairs of digits")
        });
        bytes.collect()
    }

    #[test]
    fn requests_of_many_clients_get_their_own_answers() {
        let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (front, back) = (listener(), listener());
        let address = front.local_addr().unwrap();
        let options = ceiling::Options {
            listen: address,
            heartbeat: None,
            backend: Some(back.local_addr().unwrap()),
            links: 2,
            flush: None,
            seconds: 60,
        };
        // Both threads end with this process.
        thread::spawn(move || backend::listen(&back, Duration::from_secs(60)));
        thread::spawn(move || ceiling::serve(&options, &front));
        for transport in [Transport::Tcp, Transport::Websocket] {
            let framing = Framing {
                transport,
                client: true,
            };
            let mut body = Body::new(64);
            let open = |_| session::open(&Dial::plain(address), transport, false).unwrap();
            let mut clients: Vec<Connection> = (0..3).map(open).collect();
            for number in 1..=9 {
                let client = &mut clients[number as usize % 3];
                for route in [FORWARD_ROUTE, ECHO_ROUTE] {
                    session::check(client, framing, route, body.of(number)).unwrap();
                }
            }
            // All requests leave in one write. The answers come in the order of the requests.
            let mut out = Vec::new();
            for id in 1..=9 {
                wire::request(framing, &mut out, id, FORWARD_ROUTE, body.of(id));
            }
            clients[0].write_all(&out).unwrap();
            let mut bytes = Vec::new();
            let mut answers = Vec::new();
            while answers.len() < 9 {
                let mut buffer = [0; 4096];
                let count = clients[0].read(&mut buffer).unwrap();
                assert!(
                    count > 0,
                    "the ceiling closed after {} answers",
                    answers.len()
                );
                bytes.extend_from_slice(&buffer[..count]);
                let mut packages = Packages::new(transport, &mut bytes);
                while let Some((kind, message)) = packages.next().unwrap() {
                    let (id, answer) = wire::response(message).unwrap();
                    assert_eq!((kind, answer), (wire::DATA, body.of(id)));
                    answers.push(id);
                }
                bytes = packages.rest().to_vec();
            }
            assert_eq!(answers, (1..=9).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn a_call_has_the_bytes_of_a_genuine_frontend() {
        let mut out = Vec::new();
        let body = br#"{"q":1}"#;
        rpc::forward(&mut out, 0, 1, b"chat.chatHandler.whoami", body, 1);
        assert_eq!(
            out.escape_ascii().to_string(),
            captured().escape_ascii().to_string()
        );
    }
}
