//! Broadcasts and pushes: a backend calls the frontend, which delivers to each session. The load counts and
//! checks all deliveries.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Options, Work};
use crate::clients::{Body, Clients, unexpected};
use crate::measure::{Load, Tally};
use crate::rpc;
use crate::session::{self, PUSH_ROUTE, TRIGGER_ROUTE};
use crate::stream::{READ_BUFFER_BYTES, Stream};
use crate::target::{Kind, Target};
use crate::tls::Connection;
use crate::wire::{self, Framing, refused};

/// Token of the connection that has the server send.
const SOURCE: u64 = u64::MAX;

pub(crate) struct Broadcast {
    clients: Clients,
    source: Source,
    /// The number that each client expects next: nothing is lost, doubled or overtaken.
    expected: Vec<u32>,
    /// Those that are not delivered everywhere, from the oldest.
    flying: VecDeque<Flight>,
    /// Number of the oldest.
    first: u32,
    depth: usize,
    interval: Option<Duration>,
    start: Instant,
    body: Body,
    tally: Tally,
    ready: Vec<u64>,
}

struct Flight {
    intended: Instant,
    /// Deliveries to come, and the answer to the call.
    missing: usize,
}

impl Broadcast {
    pub(crate) fn open(options: &Options, target: &Target) -> io::Result<Self> {
        let framing = Framing {
            transport: options.transport,
            client: true,
        };
        let (mut call, socket) = if options.start.server == Kind::Ceiling {
            // It knows no backends: one more client stands for them.
            let socket = session::open(&target.dial, options.transport, false)?;
            (Call::Notify(framing), socket)
        } else {
            let rpc = target.rpc;
            let rpc = rpc.ok_or_else(|| {
                io::Error::other("--address needs --rpc for pushes and broadcasts")
            })?;
            let call = match options.kind {
                Work::Push => Call::Push(Vec::new()),
                _ => Call::Broadcast,
            };
            (call, rpc::connect_to_server(rpc)?.into())
        };
        let clients = Clients::open(
            &target.dial,
            framing,
            options.connections,
            options.start.heartbeat.is_some(),
            |index, client| match &mut call {
                Call::Push(uids) => {
                    uids.push(format!("user-{index}"));
                    bind(socket.tcp(), client, framing, &uids[index as usize])
                }
                _ => Ok(()),
            },
        )?;
        let source = Source {
            call,
            stream: Stream::new(socket)?,
            buffer: vec![0; READ_BUFFER_BYTES],
        };
        source.stream.watch(&clients.epoll, SOURCE)?;
        Ok(Self {
            expected: vec![1; options.connections as usize],
            clients,
            source,
            flying: VecDeque::new(),
            first: 1,
            depth: options.depth as usize,
            interval: options.rate.map(|rate| Duration::from_secs(1) / rate),
            start: Instant::now(),
            body: Body::new(options.body as usize),
            tally: Tally::new()?,
            ready: Vec::new(),
        })
    }

    /// Sends what may fly now. Comes back with the time until the next one is due.
    fn fill(&mut self) -> io::Result<Duration> {
        while self.flying.len() < self.depth {
            let now = Instant::now();
            let number = self.first + self.flying.len() as u32;
            let intended = self.interval.map_or(now, |i| self.start + i * (number - 1));
            if intended > now {
                return Ok(intended - now);
            }
            let answers = self.source.send(number, self.body.of(number))?;
            self.flying.push_back(Flight {
                intended,
                missing: self.expected.len() + answers,
            });
        }
        Ok(Duration::MAX)
    }

    /// A delivery of `number`, or the answer to its call.
    fn arrive(&mut self, number: u32) -> io::Result<()> {
        let index = number.wrapping_sub(self.first) as usize;
        let flight = self.flying.get_mut(index);
        let flight = flight.ok_or_else(|| {
            refused(format!(
                "a delivery of message {number}, which is not in flight"
            ))
        })?;
        flight.missing -= 1;
        while let Some(flight) = self.flying.front().filter(|flight| flight.missing == 0) {
            self.tally.record(0, flight.intended.elapsed());
            self.flying.pop_front();
            self.first += 1;
        }
        Ok(())
    }

    fn take_deliveries(&mut self, index: usize) -> io::Result<()> {
        let (expected, body) = (&mut self.expected[index], &mut self.body);
        let first = *expected;
        self.clients.turn(index, |kind, message, _| {
            let wanted = (PUSH_ROUTE.as_bytes(), body.of(*expected));
            if kind != wire::DATA || wire::routed(wire::PUSH, message) != Some(wanted) {
                return Err(unexpected(kind, message));
            }
            *expected += 1;
            Ok(())
        })?;
        // Each by itself: with several in flight, few end within the time that is measured.
        self.tally.done += u64::from(self.expected[index] - first);
        (first..self.expected[index]).try_for_each(|number| self.arrive(number))
    }
}

impl Load for Broadcast {
    fn step(&mut self) -> io::Result<()> {
        let timeout = self.fill()?.min(Duration::from_secs(1));
        let mut ready = std::mem::take(&mut self.ready);
        self.clients.wait(&mut ready, timeout)?;
        for &token in &ready {
            if token == SOURCE {
                for number in self.source.answered()? {
                    self.arrive(number)?;
                }
            } else {
                self.take_deliveries(token as usize)?;
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn lost_since(&self, start: Instant) -> usize {
        let flying = self.flying.iter();
        flying.filter(|flight| flight.intended < start).count()
    }
}

/// The connection that makes the server send.
struct Source {
    call: Call,
    stream: Stream,
    buffer: Vec<u8>,
}

enum Call {
    Broadcast,
    /// To these users.
    Push(Vec<String>),
    Notify(Framing),
}

impl Source {
    /// Comes back with the number of answers to expect.
    fn send(&mut self, number: u32, body: &[u8]) -> io::Result<usize> {
        let mut out = Vec::new();
        let text = std::str::from_utf8(body).expect("a body is text");
        // The options are what a genuine backend sends.
        let answers = match &self.call {
            Call::Broadcast => {
                let options = r#"{"type":"broadcast","userOptions":{},"isBroadcast":true}"#;
                let args = format!(r#"["{PUSH_ROUTE}",{text},{options}]"#);
                rpc::call(&mut out, number, "channelRemote", "broadcast", &args);
                1
            }
            Call::Push(uids) => {
                let options = r#"{"type":"push","userOptions":{},"isPush":true}"#;
                let args = format!(r#"["{PUSH_ROUTE}",{text},{uids:?},{options}]"#);
                rpc::call(&mut out, number, "channelRemote", "pushMessage", &args);
                1
            }
            Call::Notify(framing) => {
                wire::without_id(*framing, &mut out, wire::NOTIFY, TRIGGER_ROUTE, body);
                0
            }
        };
        self.stream.write(&out)?;
        if self.stream.is_blocked() {
            return Err(io::Error::other(
                "the frontend stopped reading calls of the backend",
            ));
        }
        Ok(answers)
    }

    /// The numbers whose calls were answered.
    fn answered(&mut self) -> io::Result<Vec<u32>> {
        // Pomelo sends answers in pieces, see the backend.
        self.stream.acknowledge_at_once()?;
        match self.stream.read(&mut self.buffer)? {
            None => Ok(Vec::new()),
            Some(bytes) => {
                let (numbers, rest) = rpc::answers(bytes)?;
                self.stream.keep(rest)?;
                Ok(numbers)
            }
        }
    }
}

/// Binds a session, whose id its backend tells, to a user.
fn bind(
    socket: &TcpStream,
    client: &mut Connection,
    framing: Framing,
    uid: &str,
) -> io::Result<()> {
    let answer = session::ask(client, framing, "chat.chatHandler.session", b"{}")?;
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    let mut out = Vec::new();
    let args = format!(r#"[{},"{uid}"]"#, answer["id"]);
    rpc::call(&mut out, 0, "sessionRemote", "bind", &args);
    rpc::call_and_wait(socket, &out)
}
