//! A link to another server: the task that dials and reads it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::Peers;
use super::calls::owner;
use super::writer::PeerWriter;
use crate::error::{Fault, LinkFault};
use crate::ids::PeerIndex;
use crate::limits::MEMORY_CLOSE_BYTES_MIN;
use crate::metrics::Counter;
use crate::net::clock;
use crate::net::dial::{DialError, dial};
use crate::net::drive::{self, End, Receiver};
use crate::net::socket::Socket;
use crate::peer::Epoch;
use crate::peer::directory::Peer;
use crate::peer::pomelo::mailbox::{Backoff, Mailbox, MailboxEvent};
use crate::shard::origin::Origin;
use crate::shard::parcel::Parcel;
use crate::shard::{Core, Shard};
use crate::time::ShardTime;
use crate::wire::pomelo::mqtt;

/// Time between two warnings about a server that stays unreachable.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// One link, on the shard that owns it.
pub(in crate::shard) struct Link {
    index: PeerIndex,
    peer: Arc<Peer>,
    epoch: Cell<Epoch>,
    pub(super) writer: Rc<PeerWriter>,
    state: RefCell<LinkState>,
    /// When a warning last said that the server cannot be reached; `None` once it was.
    warned: Cell<Option<Instant>>,
    /// The cluster has the server.
    is_member: Cell<bool>,
    /// A call has come since the server became a member.
    dial_requested: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// State of a link.
///
/// ```text
///          first call            connected            first answer
///   Idle ─────────────▶ Dialing ───────────▶ Connected ──────────▶ Up
///    ▲                   │  ▲                    │                  │
///    │ the server        │  │ after the pause    │ end              │ end: FIN, RST, DISCONNECT, no pong,
///    │ has left          ▼  │                    ▼                  ▼ bad bytes; its calls fail at once
///    └───────────────── Paused ◀────────────────────────────────────┘
/// ```
#[derive(Default)]
enum LinkState {
    /// No call has come since the server became a member.
    #[default]
    Idle,
    Dialing,
    /// The server has not answered yet. Calls wait in the writer, or go out before the answer.
    Connected(LinkConnection),
    /// The server has answered, the first time at this moment.
    Up(LinkConnection, Instant),
    /// The connection has ended or could not be opened; the next dial follows after a pause.
    Paused,
}

/// One connection of a link.
struct LinkConnection {
    socket: Rc<Socket>,
    mailbox: Mailbox,
    /// Reason for its end, where something outside its read loop found it.
    fault: Option<LinkFault>,
}

impl LinkState {
    fn connection(&mut self) -> Option<&mut LinkConnection> {
        match self {
            Self::Connected(connection) | Self::Up(connection, _) => Some(connection),
            Self::Idle | Self::Dialing | Self::Paused => None,
        }
    }

    /// Returns the moment of the first answer on this connection.
    fn up_since(&self) -> Option<Instant> {
        match self {
            Self::Up(_, since) => Some(*since),
            _ => None,
        }
    }

    /// Comes up with the first answer of the server; false when it was up.
    fn come_up(&mut self) -> bool {
        if !matches!(self, Self::Connected(_)) {
            return false;
        }
        if let Self::Connected(connection) = std::mem::take(self) {
            *self = Self::Up(connection, clock::now());
        }
        true
    }
}

impl Link {
    pub(super) fn new(index: PeerIndex, peer: Arc<Peer>) -> Self {
        Self {
            index,
            peer,
            epoch: Cell::default(),
            writer: Rc::default(),
            state: RefCell::default(),
            warned: Cell::default(),
            is_member: Cell::new(true),
            dial_requested: Cell::default(),
            waker: RefCell::default(),
        }
    }

    /// Waits for the first call. Pomelo opens a mailbox by the first call too.
    async fn dial_requested(&self) {
        poll_fn(|cx| {
            if self.dial_requested.get() && self.is_member.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Ends the connection for a reason; its read loop sees the end of the socket. False when there is none.
    fn end_with(&self, fault: LinkFault) -> bool {
        let mut state = self.state.borrow_mut();
        let Some(connection) = state.connection() else {
            return false;
        };
        connection.fault = Some(fault);
        connection.socket.shutdown();
        true
    }

    /// Has the link dialled, unless it is open or dialled already.
    pub(super) fn request_dial(&self) {
        if !self.dial_requested.replace(true)
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

/// Runs a link for ever: dials it at the first call, and again after each end while the server is a member.
pub(in crate::shard) async fn run(shard: Rc<Shard>, link: Rc<Link>) {
    let rpc = &shard.core.config.rpc;
    let server = &link.peer.server;
    let mut backoff = Backoff::new(rpc.backoff_min, rpc.backoff_max);
    let mut random = shard.core.random();
    // A server that took a connection and never answered gets no calls before it answers a ping.
    let mut calls_wait = false;
    loop {
        link.dial_requested().await;
        debug_assert!(matches!(*link.state.borrow(), LinkState::Idle));
        *link.state.borrow_mut() = LinkState::Dialing;
        let (mut lived, mut error) = (Duration::ZERO, None);
        let fault = match dial(
            &server.host,
            server.port,
            shard.core.timeout(rpc.connect_timeout),
            &shard.core.network,
        )
        .await
        {
            Ok(_) if !link.is_member.get() => {
                *link.state.borrow_mut() = LinkState::Idle;
                continue;
            }
            Ok(socket) => {
                if !calls_wait {
                    shard.peers.take_calls(&shard.core, &link);
                }
                let fault = talk(&shard, &link, Rc::new(socket), calls_wait).await;
                let up_since = link.state.borrow().up_since();
                calls_wait = up_since.is_none();
                lived = up_since.map_or(Duration::ZERO, |since| clock::now() - since);
                fault
            }
            Err(DialError::Timeout) => LinkFault::ConnectTimeout,
            Err(DialError::Io(found)) => {
                error = Some(found);
                LinkFault::Socket
            }
        };
        let pause = backoff.pause(lived, random.fraction());
        let (core, peers) = (&shard.core, &shard.peers);
        shard.fail_calls(peers.link_ended(core, &link, fault, error.as_ref(), pause));
        *link.state.borrow_mut() = LinkState::Paused;
        clock::sleep(pause).await;
        *link.state.borrow_mut() = LinkState::Idle;
    }
}

/// One life of a link, from its CONNECT to its end.
async fn talk(
    shard: &Rc<Shard>,
    link: &Rc<Link>,
    socket: Rc<Socket>,
    calls_wait: bool,
) -> LinkFault {
    let mut connect = Vec::new();
    mqtt::write_connect(&mut connect, &format!("MQTT_RPC_{}", clock::unix_ms()));
    // A Pinus server loses the part of a frame that it reads together with the CONNECT; a whole
    // ping is safe, and its answer says that the CONNECT has been read.
    let waits_for_pong = shard.core.config.dialect.loses_bytes_after_connect();
    let pings = waits_for_pong || calls_wait;
    if pings {
        connect.extend_from_slice(&mqtt::PINGREQ);
    }
    socket.quick_ack();
    if !matches!(socket.write(&[IoSlice::new(&connect)]), Ok(n) if n == connect.len()) {
        return LinkFault::Socket;
    }
    let (rpc, now) = (&shard.core.config.rpc, shard.core.time.get().now);
    let mut mailbox = Mailbox::new(now, rpc.keepalive, rpc.answer_timeout);
    if pings {
        mailbox.note_ping(now);
    }
    debug_assert!(matches!(*link.state.borrow(), LinkState::Dialing));
    *link.state.borrow_mut() = LinkState::Connected(LinkConnection {
        socket: socket.clone(),
        mailbox,
        fault: None,
    });
    if !waits_for_pong {
        shard.peers.open(&shard.core, &link.writer, socket.clone());
    }
    let receiver = LinkReceiver {
        shard,
        link,
        socket: &socket,
    };
    let end = drive::read(&socket, &shard.core.read_buffer, receiver).await;
    let mut state = link.state.borrow_mut();
    let fault = state.connection().and_then(|connection| connection.fault);
    match (fault, end) {
        (Some(fault), _) => fault,
        (None, _) if link.writer.has_overflowed() => LinkFault::QueueFull,
        (None, End::Failed) => LinkFault::Socket,
        (None, End::Eof | End::Enough) => LinkFault::Left,
    }
}

struct LinkReceiver<'a> {
    shard: &'a Rc<Shard>,
    link: &'a Link,
    socket: &'a Rc<Socket>,
}

impl Receiver for LinkReceiver<'_> {
    fn readable(&self) {
        hop!();
        self.socket.quick_ack();
        // Batches that other shards sent before the peer wrote this answer come first: a push before the
        // response that it belongs to.
        self.shard.receive_waiting_batches();
    }

    fn waits(&self, bytes: usize) {
        let Shard { core, peers, .. } = &**self.shard;
        peers.frame_waits(core, &self.link.writer, bytes);
    }

    fn receive(&self, input: &mut [u8]) -> Result<Option<usize>, End> {
        let Self { shard, link, .. } = self;
        let (core, peers) = (&shard.core, &shard.peers);
        let received = {
            let mut state = link.state.borrow_mut();
            let connection = state.connection().ok_or(End::Enough)?;
            connection.mailbox.receive(input)
        };
        let received = received.map_err(|fault| {
            shard.react(Fault::Peer(link.index, fault));
            End::Enough
        })?;
        let Some((used, event)) = received else {
            return Ok(None);
        };
        if event.is_some_and(MailboxEvent::is_answer) {
            peers.note_answer(core, link);
        }
        match event {
            Some(MailboxEvent::Payload(payload)) => shard.payload(link.index, payload),
            Some(MailboxEvent::Ping) => peers.send(core, &link.writer, |out| {
                out.extend_from_slice(&mqtt::PINGRESP);
            }),
            Some(MailboxEvent::Pong) if !link.writer.is_open() => {
                peers.open(core, &link.writer, self.socket.clone());
            }
            Some(MailboxEvent::Disconnect) => return Err(End::Enough),
            Some(MailboxEvent::Pong) | None => {}
        }
        Ok(Some(used))
    }
}

impl Peers {
    /// Sends frames that another shard wrote for a link of this one.
    pub(in crate::shard) fn send_frames(
        &self,
        core: &Core,
        peer: PeerIndex,
        epoch: Epoch,
        frames: &[u8],
    ) {
        let links = self.links.borrow();
        let Some(link) = links.get(peer.index()) else {
            // The other shard knows of a server that this one is about to hear of.
            if !self.unknown_peers.borrow_mut().keep(peer, epoch, frames) {
                core.counters().add(Counter::UnknownPeerFrames, 1);
            }
            return;
        };
        let Some(link) = link else { return };
        if link.epoch.get() != epoch {
            // Their calls have failed, or are about to, with the link they were written for.
            return core.counters().add(Counter::FramesStale, 1);
        }
        self.send(core, &link.writer, |out| out.extend_from_slice(frames));
        link.request_dial();
    }

    /// Applies a new list of servers to the links: opens those of servers that are back, ends those of servers that
    /// left. Returns the calls that failed.
    pub(super) fn update_members(&self, core: &Core) -> Vec<Origin> {
        let mut failed = Vec::new();
        for link in self.own_links() {
            let is_member = self.members.borrow().is_listed(link.index);
            if link.is_member.replace(is_member) == is_member {
                continue;
            }
            if is_member {
                // Calls are taken again at once; they wait until the link is open.
                self.take_calls(core, &link);
                link.request_dial();
            } else {
                link.dial_requested.set(false);
                failed.append(&mut self.end_link(core, link.index, LinkFault::Removed));
            }
        }
        failed
    }

    /// Sends pings that are due. Returns the faults of peers that do not answer them, or take no bytes.
    pub(in crate::shard) fn ping_links(&self, core: &Core, time: ShardTime) -> Vec<Fault<'static>> {
        let mut faults = Vec::new();
        for link in self.own_links() {
            if link.writer.has_overflowed() {
                faults.push(Fault::Peer(link.index, LinkFault::QueueFull));
                continue;
            }
            let due = match link.state.borrow_mut().connection() {
                Some(connection) => connection.mailbox.ping_due(time),
                None => continue,
            };
            match due {
                Ok(true) => self.send(core, &link.writer, |out| {
                    out.extend_from_slice(&mqtt::PINGREQ);
                }),
                Ok(false) => {}
                Err(fault) => faults.push(Fault::Peer(link.index, fault)),
            }
        }
        faults
    }

    /// The links that this shard owns.
    /// Returns the links of this shard for which many bytes wait, with their number.
    pub(in crate::shard) fn holders(&self) -> Vec<(usize, PeerIndex)> {
        let links = self.own_links().into_iter();
        let waiting = links.map(|link| (link.writer.waiting_bytes(), link.index));
        waiting
            .filter(|(bytes, _)| *bytes >= MEMORY_CLOSE_BYTES_MIN)
            .collect()
    }

    fn own_links(&self) -> SmallVec<[Rc<Link>; 16]> {
        self.links.borrow().iter().flatten().cloned().collect()
    }

    /// Ends a link from outside its read loop, which sees the end of its socket. Returns the calls that failed at
    /// once, where there was no connection.
    pub(in crate::shard) fn end_link(
        &self,
        core: &Core,
        peer: PeerIndex,
        fault: LinkFault,
    ) -> Vec<Origin> {
        match self.link(peer) {
            Some(link) if !link.end_with(fault) => {
                self.link_ended(core, &link, fault, None, Duration::ZERO)
            }
            _ => Vec::new(),
        }
    }

    /// Returns the link to a peer, if this shard owns it.
    pub(super) fn link(&self, peer: PeerIndex) -> Option<Rc<Link>> {
        self.links.borrow().get(peer.index()).cloned().flatten()
    }

    /// Notes an answer of the server; the first one on a connection brings the link up.
    fn note_answer(&self, core: &Core, link: &Link) {
        if !link.state.borrow_mut().come_up() {
            return;
        }
        link.warned.take();
        core.counters().add(Counter::LinksUp, 1);
        let server = &link.peer.server;
        tracing::info!(
            server = server.id,
            host = server.host,
            port = server.port,
            "link is up"
        );
        self.take_calls(core, link);
    }

    /// Lets all shards send calls to the server.
    fn take_calls(&self, core: &Core, link: &Link) {
        let (peer, epoch) = (link.index, link.epoch.get());
        self.link_is_up(core, peer, epoch);
        core.broadcast_parcel(|| Parcel::LinkUp { peer, epoch });
    }

    /// Begins the next life of a link that has ended, or that could not be opened, on all shards. Returns the calls
    /// of this shard that failed. `pause` is the time until the next dial, for the log.
    fn link_ended(
        &self,
        core: &Core,
        link: &Link,
        fault: LinkFault,
        error: Option<&io::Error>,
        pause: Duration,
    ) -> Vec<Origin> {
        let was_up = {
            let mut state = link.state.borrow_mut();
            let was_up = state.up_since().is_some();
            if state.connection().is_some() {
                *state = LinkState::Paused;
            }
            was_up
        };
        match (was_up, fault) {
            (true, _) => core.counters().add(Counter::LinksDown, 1),
            (false, LinkFault::Removed) => {}
            (false, _) => core.counters().add(Counter::DialsFailed, 1),
        }
        report_end(link, was_up, fault, error, pause);
        self.close(core, &link.writer);
        debug_assert!(link.state.borrow_mut().connection().is_none());
        debug_assert_eq!(owner(link.index, core.shards), core.id);
        let next = link.epoch.get().next();
        link.epoch.set(next);
        let peer = link.index;
        core.broadcast_parcel(|| Parcel::LinkDown { peer, next });
        self.link_is_down(core, peer, next)
    }
}

/// Logs the end of a link. A server that stays unreachable is a warning once a minute.
fn report_end(
    link: &Link,
    was_up: bool,
    fault: LinkFault,
    error: Option<&io::Error>,
    pause: Duration,
) {
    let server = &link.peer.server;
    let (id, host, port) = (&server.id, &server.host, server.port);
    let mut reason = fault.text().to_owned();
    if let Some(error) = error {
        reason = format!("{reason}: {error}");
    }
    let retry_in = Duration::from_millis(pause.as_millis() as u64);
    if fault == LinkFault::Removed {
        if was_up {
            tracing::info!(server = id, host, port, reason, "link is down");
        } else {
            tracing::debug!(
                server = id,
                host,
                port,
                reason,
                "no link is needed any more"
            );
        }
        return;
    }
    let text = if was_up {
        "link is down; calls to the server fail until it is up again"
    } else {
        "the server cannot be reached; calls to it fail until it answers"
    };
    let now = clock::now();
    let warns = link
        .warned
        .get()
        .is_none_or(|at| now >= at + REPORT_INTERVAL);
    if was_up || warns {
        link.warned.set(Some(now));
        tracing::warn!(server = id, host, port, reason, ?retry_in, "{text}");
    } else {
        tracing::debug!(server = id, host, port, reason, ?retry_in, "{text}");
    }
}
