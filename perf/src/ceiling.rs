//! The least that a server of this protocol could do: one thread, one epoll, one read buffer for
//! everyone, one write per read. It cuts packages and sends bodies back; it has no sessions, routes,
//! timers or handlers. The cost of a gateway above this is its own work, not that of the kernel.

use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::session::{PUSH_ROUTE, TRIGGER_ROUTE, accept_value};
use crate::stream::{Events, READ_BUFFER_BYTES, Stream};
use crate::wire::{self, Framing, Packages, Transport, refused};

const LISTENER: u64 = u64::MAX;

/// Connections taken per wake-up, so that a storm of new ones does not starve the others.
const ACCEPTS_MAX: usize = 64;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to listen; loopback only
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Heartbeat interval to ask for, in seconds; by default none
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=3600))]
    heartbeat: Option<u16>,
    /// Ends by itself after this long
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let listen = options.listen;
    if !listen.ip().is_loopback() {
        return Err(io::Error::other(format!(
            "{listen} is not a loopback address"
        )));
    }
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        &listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    println!("tangelo listening on {}", listener.local_addr()?);
    io::stdout().flush()?;

    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let mut out = Vec::new();
    let mut events = Events::new();
    while Instant::now() < end {
        let mut freed = Vec::new();
        let mut pushes = Vec::new();
        for token in events.wait(&epoll, Duration::from_secs(1))? {
            if token == LISTENER {
                let heartbeat = options.heartbeat;
                accept(&listener, &epoll, heartbeat, &mut connections, &mut free)?;
            } else if let Some(connection) = &mut connections[token as usize] {
                let was_blocked = connection.stream.is_blocked();
                let served = connection.serve(&mut buffer, &mut out, &mut pushes);
                if served.is_err() {
                    connections[token as usize] = None;
                    freed.push(token as usize);
                } else if connection.stream.is_blocked() != was_blocked {
                    // Requests stay in the kernel until the answers to earlier ones have left.
                    connection
                        .stream
                        .watch_again(&epoll, token, EventFlags::OUT)?;
                }
                for push in pushes.drain(..) {
                    broadcast(&epoll, &mut connections, token as usize, &push)?;
                }
            }
        }
        // Only now: a later event of this batch may still name a slot that was just emptied.
        free.append(&mut freed);
    }
    Ok(())
}

fn accept(
    listener: &TcpListener,
    epoll: &OwnedFd,
    heartbeat: Option<u16>,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    for _ in 0..ACCEPTS_MAX {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => return Err(error),
        };
        let slot = free.pop().unwrap_or_else(|| {
            connections.push(None);
            connections.len() - 1
        });
        let connection = Connection {
            stream: Stream::new(socket)?,
            transport: None,
            heartbeat,
        };
        connection.stream.watch(epoll, slot as u64)?;
        connections[slot] = Some(connection);
    }
    Ok(())
}

/// One plain write to every session but the one that asked for it.
fn broadcast(
    epoll: &OwnedFd,
    connections: &mut [Option<Connection>],
    from: usize,
    body: &[u8],
) -> io::Result<()> {
    let encoded = [Transport::Tcp, Transport::Websocket].map(|transport| {
        let framing = Framing {
            transport,
            client: false,
        };
        let mut out = Vec::new();
        wire::without_id(framing, &mut out, wire::PUSH, PUSH_ROUTE, body);
        out
    });
    for (slot, connection) in connections.iter_mut().enumerate() {
        let Some(connection) = connection.as_mut().filter(|_| slot != from) else {
            continue;
        };
        let Some(transport) = connection.transport else {
            continue;
        };
        let was_blocked = connection.stream.is_blocked();
        let written = connection.stream.write(&encoded[transport as usize]);
        // A broken one is dropped when its event comes.
        if written.is_ok() && connection.stream.is_blocked() != was_blocked {
            let flags = EventFlags::OUT;
            connection.stream.watch_again(epoll, slot as u64, flags)?;
        }
    }
    Ok(())
}

struct Connection {
    stream: Stream,
    /// Decided by the first bytes.
    transport: Option<Transport>,
    /// The interval that it is told.
    heartbeat: Option<u16>,
}

impl Connection {
    /// An error closes the connection.
    fn serve(
        &mut self,
        buffer: &mut [u8],
        out: &mut Vec<u8>,
        pushes: &mut Vec<Vec<u8>>,
    ) -> io::Result<()> {
        if self.stream.is_blocked() {
            return self.stream.flush();
        }
        let Some(bytes) = self.stream.read(buffer)? else {
            return Ok(());
        };
        out.clear();
        // The first bytes: an upgrade to answer, or packages already.
        let transport = match self.transport {
            Some(transport) => transport,
            None if !bytes.starts_with(b"GET ") => Transport::Tcp,
            None if bytes.ends_with(b"\r\n\r\n") => {
                self.transport = Some(Transport::Websocket);
                upgrade(bytes, out)?;
                return self.stream.write(out);
            }
            None => return self.stream.keep(bytes),
        };
        self.transport = Some(transport);
        let framing = Framing {
            transport,
            client: false,
        };
        let mut packages = Packages::new(transport, bytes);
        while let Some((kind, body)) = packages.next()? {
            match wire::routed(wire::NOTIFY, body) {
                Some((route, body)) if kind == wire::DATA && route == TRIGGER_ROUTE.as_bytes() => {
                    pushes.push(body.to_vec());
                }
                _ => answer(framing, out, kind, body, self.heartbeat)?,
            }
        }
        self.stream.keep(packages.rest())?;
        if out.is_empty() {
            Ok(())
        } else {
            self.stream.write(out)
        }
    }
}

fn answer(
    framing: Framing,
    out: &mut Vec<u8>,
    kind: u8,
    body: &[u8],
    heartbeat: Option<u16>,
) -> io::Result<()> {
    match (kind, heartbeat) {
        (wire::HANDSHAKE, None) => framing.package(out, kind, br#"{"code":200,"sys":{}}"#),
        (wire::HANDSHAKE, Some(seconds)) => {
            let reply = format!(r#"{{"code":200,"sys":{{"heartbeat":{seconds}}}}}"#);
            framing.package(out, kind, reply.as_bytes());
        }
        (wire::HEARTBEAT, _) | (wire::ACK, Some(_)) => framing.package(out, wire::HEARTBEAT, b""),
        (wire::DATA, _) => echo(framing, out, body).ok_or_else(|| refused("not a request"))?,
        _ => {} // an ack
    }
    Ok(())
}

/// The body of a request, sent back under the same id.
fn echo(framing: Framing, out: &mut Vec<u8>, message: &[u8]) -> Option<()> {
    let rest = message.strip_prefix(&[wire::REQUEST])?;
    let (id, rest) = rest.split_at(wire::varint_bytes(rest)?);
    let (&route_bytes, rest) = rest.split_first()?;
    let body = rest.get(usize::from(route_bytes)..)?;
    let start = framing.begin(out, wire::DATA, 1 + id.len() + body.len());
    out.push(wire::RESPONSE);
    out.extend_from_slice(id);
    out.extend_from_slice(body);
    framing.end(out, start);
    Some(())
}

fn upgrade(head: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let head = std::str::from_utf8(head).map_err(|_| refused("the upgrade is not text"))?;
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.trim())
    });
    let key = key.ok_or_else(|| refused("no Sec-WebSocket-Key"))?;
    write!(
        out,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_value(key)
    )
}
