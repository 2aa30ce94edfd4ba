//! The least that a server of this protocol could do: one thread, one epoll, one read buffer for
//! everyone, one write per read. It cuts packages and sends bodies back; it has no sessions, routes,
//! timers or handlers. The cost of a gateway above this is its own work, not that of the kernel.
//!
//! With a backend it is the least that a frontend could do: [`forward`].

use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::session::{FORWARD_ROUTE, PUSH_ROUTE, TRIGGER_ROUTE, accept_value};
use crate::stream::{Events, READ_BUFFER_BYTES, Stream};
use crate::wire::{self, Framing, Packages, Transport, refused};

mod forward;

use forward::Link;

const LISTENER: u64 = u64::MAX;
/// Token of the first link to the backend. Smaller ones are slots of clients.
const LINKS: u64 = 1 << 32;

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
    /// Backend that answers the requests of `load --kind forward`; loopback only
    #[arg(long)]
    backend: Option<SocketAddr>,
    /// Links to that backend; each client uses one of them
    #[arg(long, default_value_t = 1, requires = "backend", value_parser = clap::value_parser!(u16).range(1..=1000))]
    links: u16,
    /// Milliseconds for which pushes gather, to leave in one write per session; by default each push is one write
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=1000))]
    flush: Option<u64>,
    /// Ends by itself after this long
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

pub(crate) fn run(options: &Options) -> io::Result<()> {
    let addresses = [Some(options.listen), options.backend];
    let mut addresses = addresses.into_iter().flatten();
    if let Some(address) = addresses.find(|address| !address.ip().is_loopback()) {
        let text = format!("{address} is not a loopback address");
        return Err(io::Error::other(text));
    }
    let listener = TcpListener::bind(options.listen)?;
    println!("tangelo listening on {}", listener.local_addr()?);
    io::stdout().flush()?;
    serve(options, &listener)
}

/// Runs the loop.
fn serve(options: &Options, listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let token = EventData::new_u64(LISTENER);
    epoll::add(&epoll, listener, token, EventFlags::IN)?;
    let mut links = Vec::new();
    if let Some(backend) = options.backend {
        for number in 0..options.links {
            let link = Link::connect(backend, LINKS + u64::from(number))?;
            link.stream.watch(&epoll, link.token)?;
            links.push(link);
        }
    }
    let mut connections = Connections {
        epoll: &epoll,
        heartbeat: options.heartbeat,
        slots: Vec::new(),
        free: Vec::new(),
        freed: Vec::new(),
    };
    let mut pushes = Pushes {
        gather: options.flush.map(Duration::from_millis),
        bodies: Vec::new(),
        due: None,
    };
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let mut out = Vec::new();
    let mut events = Events::new();
    let end = Instant::now() + Duration::from_secs(options.seconds);
    while Instant::now() < end {
        for token in events.wait(&epoll, pushes.wait())? {
            match token {
                LISTENER => connections.accept(listener)?,
                LINKS.. => {
                    let link = &mut links[(token - LINKS) as usize];
                    link.take(&mut buffer, &mut connections)?;
                }
                slot => {
                    let mut turn = Turn {
                        slot: slot as usize,
                        out: &mut out,
                        pushes: &mut pushes.bodies,
                        links: &mut links,
                    };
                    connections.serve(&mut buffer, &mut turn)?;
                }
            }
        }
        pushes.send(&mut connections)?;
        for link in &mut links {
            link.send(&mut connections)?;
        }
        // Only now: a later event of this batch may still name a slot that was just emptied.
        connections.free.append(&mut connections.freed);
    }
    Ok(())
}

/// Pushes that clients have asked for.
struct Pushes {
    /// Time for which they gather; `None`: each one leaves at once.
    gather: Option<Duration>,
    bodies: Vec<Vec<u8>>,
    /// Time at which the gathered ones leave.
    due: Option<Instant>,
}

impl Pushes {
    /// Returns the longest wait for events.
    fn wait(&self) -> Duration {
        self.due.map_or(Duration::from_secs(1), |due| {
            due.saturating_duration_since(Instant::now())
        })
    }

    /// Sends the pushes that are due: each one by itself, or the gathered ones in one write per session.
    fn send(&mut self, connections: &mut Connections<'_>) -> io::Result<()> {
        if self.bodies.is_empty() {
            return Ok(());
        }
        if let Some(gather) = self.gather {
            let now = Instant::now();
            if *self.due.get_or_insert(now + gather) <= now {
                connections.broadcast(&self.bodies)?;
                self.bodies.clear();
                self.due = None;
            }
            return Ok(());
        }
        let mut bodies = self.bodies.drain(..);
        bodies.try_for_each(|body| connections.broadcast(&[body]))
    }
}

struct Connections<'e> {
    epoll: &'e OwnedFd,
    /// Heartbeat interval that the handshake tells clients.
    heartbeat: Option<u16>,
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Slots that are free after this batch of events.
    freed: Vec<usize>,
}

impl Connections<'_> {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        for _ in 0..ACCEPTS_MAX {
            let socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            let connection = Connection {
                stream: Stream::new(socket)?,
                transport: None,
                heartbeat: self.heartbeat,
                is_source: false,
                answers: Vec::new(),
            };
            connection.stream.watch(self.epoll, slot as u64)?;
            self.slots[slot] = Some(connection);
        }
        Ok(())
    }

    fn serve(&mut self, buffer: &mut [u8], turn: &mut Turn<'_>) -> io::Result<()> {
        let slot = turn.slot;
        let Some(connection) = &mut self.slots[slot] else {
            return Ok(());
        };
        let was_blocked = connection.stream.is_blocked();
        if connection.serve(buffer, turn).is_err() {
            self.slots[slot] = None;
            self.freed.push(slot);
            return Ok(());
        }
        connection.watch_again(self.epoll, slot, was_blocked)
    }

    /// Writes the bodies to every session except those that ask for broadcasts: one plain write for each.
    fn broadcast(&mut self, bodies: &[Vec<u8>]) -> io::Result<()> {
        let encoded = [Transport::Tcp, Transport::Websocket].map(|transport| {
            let framing = Framing {
                transport,
                client: false,
            };
            let mut out = Vec::new();
            for body in bodies {
                wire::without_id(framing, &mut out, wire::PUSH, PUSH_ROUTE, body);
            }
            out
        });
        for (slot, connection) in self.slots.iter_mut().enumerate() {
            let Some(connection) = connection.as_mut().filter(|it| !it.is_source) else {
                continue;
            };
            if let Some(transport) = connection.transport {
                connection.write(self.epoll, slot, &encoded[transport as usize])?;
            }
        }
        Ok(())
    }
}

struct Connection {
    stream: Stream,
    /// Decided by the first bytes.
    transport: Option<Transport>,
    /// The interval that it is told.
    heartbeat: Option<u16>,
    /// True if this client asks for broadcasts.
    is_source: bool,
    /// Answers from the backend in this batch of events.
    answers: Vec<u8>,
}

/// State for the packages of one read.
struct Turn<'a> {
    slot: usize,
    /// Answers to the packages.
    out: &'a mut Vec<u8>,
    pushes: &'a mut Vec<Vec<u8>>,
    /// Links to the backend; empty without one.
    links: &'a mut [Link],
}

impl Connection {
    /// An error closes the connection.
    fn serve(&mut self, buffer: &mut [u8], turn: &mut Turn<'_>) -> io::Result<()> {
        if self.stream.is_blocked() {
            return self.stream.flush();
        }
        let Some(bytes) = self.stream.read(buffer)? else {
            return Ok(());
        };
        turn.out.clear();
        // The first bytes: an upgrade to answer, or packages already.
        let transport = match self.transport {
            Some(transport) => transport,
            None if !bytes.starts_with(b"GET ") => Transport::Tcp,
            None if bytes.ends_with(b"\r\n\r\n") => {
                self.transport = Some(Transport::Websocket);
                upgrade(bytes, turn.out)?;
                return self.stream.write(turn.out);
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
            match kind {
                wire::DATA => match wire::routed(wire::NOTIFY, body) {
                    Some((route, body)) if route == TRIGGER_ROUTE.as_bytes() => {
                        self.is_source = true;
                        turn.pushes.push(body.to_vec());
                    }
                    _ => turn.request(framing, body)?,
                },
                _ => answer(framing, turn.out, kind, self.heartbeat),
            }
        }
        self.stream.keep(packages.rest())?;
        if turn.out.is_empty() {
            Ok(())
        } else {
            self.stream.write(turn.out)
        }
    }

    /// Writes once. A later event removes a broken connection.
    fn write(&mut self, epoll: &OwnedFd, slot: usize, bytes: &[u8]) -> io::Result<()> {
        let was_blocked = self.stream.is_blocked();
        match self.stream.write(bytes) {
            Ok(()) => self.watch_again(epoll, slot, was_blocked),
            Err(_) => Ok(()),
        }
    }

    /// Watches the socket for room instead of requests while bytes wait for it. So requests stay in the
    /// kernel until the answers to earlier ones have left.
    fn watch_again(&self, epoll: &OwnedFd, slot: usize, was_blocked: bool) -> io::Result<()> {
        if self.stream.is_blocked() == was_blocked {
            return Ok(());
        }
        self.stream.watch_again(epoll, slot as u64, EventFlags::OUT)
    }
}

impl Turn<'_> {
    /// Answers a request with its body, or hands it to the backend.
    fn request(&mut self, framing: Framing, message: &[u8]) -> io::Result<()> {
        let request = Request::parse(message)
            .ok_or_else(|| refused(format!("not a request: {}", wire::shown(message))))?;
        if self.links.is_empty() || request.route != FORWARD_ROUTE.as_bytes() {
            response(framing, self.out, request.id, request.body);
        } else {
            let link = self.slot % self.links.len();
            self.links[link].forward(self.slot, &request);
        }
        Ok(())
    }
}

/// A request message.
struct Request<'a> {
    /// The id as a varint, as it came.
    id: &'a [u8],
    route: &'a [u8],
    body: &'a [u8],
}

impl<'a> Request<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let rest = message.strip_prefix(&[wire::REQUEST])?;
        let (id, rest) = rest.split_at(wire::varint_bytes(rest)?);
        let (&route_bytes, rest) = rest.split_first()?;
        let (route, body) = rest.split_at_checked(usize::from(route_bytes))?;
        Some(Self { id, route, body })
    }
}

fn response(framing: Framing, out: &mut Vec<u8>, id: &[u8], body: &[u8]) {
    let start = framing.begin(out, wire::DATA, 1 + id.len() + body.len());
    out.push(wire::RESPONSE);
    out.extend_from_slice(id);
    out.extend_from_slice(body);
    framing.end(out, start);
}

fn answer(framing: Framing, out: &mut Vec<u8>, kind: u8, heartbeat: Option<u16>) {
    match (kind, heartbeat) {
        (wire::HANDSHAKE, None) => framing.package(out, kind, br#"{"code":200,"sys":{}}"#),
        (wire::HANDSHAKE, Some(seconds)) => {
            let reply = format!(r#"{{"code":200,"sys":{{"heartbeat":{seconds}}}}}"#);
            framing.package(out, kind, reply.as_bytes());
        }
        (wire::HEARTBEAT, _) | (wire::ACK, Some(_)) => framing.package(out, wire::HEARTBEAT, b""),
        _ => {}
    }
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
