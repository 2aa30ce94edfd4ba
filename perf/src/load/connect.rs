//! A storm of new connections: each is opened, upgraded if asked for, shakes hands, and is closed
//! with the ack.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::Options;
use crate::measure::{Load, Tally};
use crate::session;
use crate::stream::{Events, READ_BUFFER_BYTES, Stream};
use crate::wire::{self, Framing, Packages, Transport};

/// Each leaves a pair of addresses that nobody can use for a minute; there are a little more.
const OPENED_MAX: u64 = 1_000_000;

pub(crate) struct Connect {
    address: SocketAddr,
    framing: Framing,
    heartbeats: bool,
    epoll: OwnedFd,
    connections: Vec<Option<Connection>>,
    opened: u64,
    events: Events,
    buffer: Vec<u8>,
    tally: Tally,
}

struct Connection {
    stream: Stream,
    started: Instant,
    is_upgraded: bool,
}

impl Connect {
    pub(crate) fn open(options: &Options, address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            address,
            framing: Framing {
                transport: options.transport,
                client: true,
            },
            heartbeats: options.start.heartbeat.is_some(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: (0..options.connections).map(|_| None).collect(),
            opened: 0,
            events: Events::new(),
            buffer: vec![0; READ_BUFFER_BYTES],
            tally: Tally::new()?,
        })
    }

    fn start(&mut self, index: usize) -> io::Result<()> {
        if self.opened == OPENED_MAX {
            let text =
                format!("the load opens at most {OPENED_MAX} connections; choose fewer --seconds");
            return Err(io::Error::other(text));
        }
        self.opened += 1;
        let started = Instant::now();
        let mut stream = Stream::new(session::connect(self.address)?)?;
        stream.watch(&self.epoll, index as u64)?;
        let is_upgraded = self.framing.transport == Transport::Tcp;
        if is_upgraded {
            shake_hands(&mut stream, self.framing)?;
        } else {
            stream.write(session::upgrade_request(self.address).as_bytes())?;
        }
        self.connections[index] = Some(Connection {
            stream,
            started,
            is_upgraded,
        });
        Ok(())
    }
}

impl Load for Connect {
    fn step(&mut self) -> io::Result<()> {
        for index in 0..self.connections.len() {
            if self.connections[index].is_none() {
                self.start(index)?;
            }
        }
        for token in self.events.wait(&self.epoll, Duration::from_secs(1))? {
            let slot = &mut self.connections[token as usize];
            let Some(connection) = slot else { continue };
            let is_open = connection.advance(&mut self.buffer, self.framing, self.heartbeats)?;
            if is_open {
                self.tally.record(1, connection.started.elapsed());
                *slot = None;
            }
        }
        Ok(())
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn lost_since(&self, start: Instant) -> usize {
        let open = self.connections.iter().flatten();
        open.filter(|connection| connection.started < start).count()
    }
}

impl Connection {
    /// The next step. `true`: that was the last one.
    fn advance(
        &mut self,
        buffer: &mut [u8],
        framing: Framing,
        heartbeats: bool,
    ) -> io::Result<bool> {
        let Some(bytes) = self.stream.read(buffer)? else {
            return Ok(false);
        };
        if !self.is_upgraded {
            if !bytes.ends_with(b"\r\n\r\n") {
                self.stream.keep(bytes)?;
                return Ok(false);
            }
            session::check_upgrade(bytes)?;
            self.is_upgraded = true;
            shake_hands(&mut self.stream, framing)?;
            return Ok(false);
        }
        let mut packages = Packages::new(framing.transport, bytes);
        let Some((kind, reply)) = packages.next()? else {
            self.stream.keep(packages.rest())?;
            return Ok(false);
        };
        session::check_handshake(kind, reply, heartbeats)?;
        let mut out = Vec::new();
        framing.package(&mut out, wire::ACK, b"");
        self.stream.write(&out)?;
        Ok(true)
    }
}

fn shake_hands(stream: &mut Stream, framing: Framing) -> io::Result<()> {
    let mut out = Vec::new();
    framing.package(&mut out, wire::HANDSHAKE, session::HANDSHAKE_BODY);
    stream.write(&out)
}
