//! A link to another server: the task that dials and reads it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::writer::Pipe;
use crate::config::Dialect;
use crate::ids::PeerIndex;
use crate::metrics::Counter;
use crate::net::clock;
use crate::net::dial::{DialError, dial};
use crate::net::drive::{self, End, Receiver};
use crate::net::socket::Socket;
use crate::peer::Epoch;
use crate::peer::directory::Peer;
use crate::peer::pomelo::mailbox::{Backoff, Event, LinkFault, Mailbox};
use crate::shard::Shard;
use crate::shard::mesh::Parcel;
use crate::time::ShardTime;
use crate::wire::pomelo::mqtt;

/// Time between two warnings about a server that stays unreachable.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// One link, on the shard that owns it.
pub(in crate::shard) struct Link {
    index: PeerIndex,
    peer: Arc<Peer>,
    pub(in crate::shard) epoch: Cell<Epoch>,
    pub(in crate::shard) pipe: Rc<Pipe>,
    /// While there is a connection; the pipe may open later.
    socket: RefCell<Option<Rc<Socket>>>,
    /// As long.
    mailbox: RefCell<Option<Mailbox>>,
    /// Since when the link is up: when the server first answered on this connection.
    up_since: Cell<Option<Instant>>,
    /// When a warning last said that the server cannot be reached; `None` once it was.
    warned: Cell<Option<Instant>>,
    /// Why the link has to end, where that is found outside its read loop.
    fault: Cell<Option<LinkFault>>,
    /// The server is in the list.
    listed: Cell<bool>,
    /// Somebody has called since it was listed: dial.
    wanted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Link {
    pub(in crate::shard) fn new(index: PeerIndex, peer: Arc<Peer>) -> Self {
        Self {
            index,
            peer,
            epoch: Cell::default(),
            pipe: Rc::default(),
            socket: RefCell::default(),
            mailbox: RefCell::default(),
            up_since: Cell::default(),
            warned: Cell::default(),
            fault: Cell::default(),
            listed: Cell::new(true),
            wanted: Cell::default(),
            waker: RefCell::default(),
        }
    }

    /// Waits for the first call. Pomelo opens a mailbox by the first call too.
    async fn wanted(&self) {
        poll_fn(|cx| {
            if self.wanted.get() && self.listed.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    pub(in crate::shard) fn want(&self) {
        if !self.wanted.replace(true)
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
}

/// Keeps a link for ever: dials when it is first wanted, and again after each end while the server
/// is listed.
pub(in crate::shard) async fn run(shard: Rc<Shard>, link: Rc<Link>) {
    let rpc = &shard.core.config.rpc;
    let server = &link.peer.server;
    let mut backoff = Backoff::new(rpc.backoff_min, rpc.backoff_max);
    let mut random = shard.random();
    // A server that took a connection and never answered gets no calls before it answers a ping.
    let mut calls_wait = false;
    loop {
        link.wanted().await;
        let (mut lived, mut error) = (Duration::ZERO, None);
        let fault = match dial(
            &server.host,
            server.port,
            shard.timeout(rpc.connect_timeout),
            &shard.core.network,
        )
        .await
        {
            Ok(_) if !link.listed.get() => continue,
            Ok(socket) => {
                if !calls_wait {
                    shard.take_calls(&link);
                }
                let fault = talk(&shard, &link, Rc::new(socket), calls_wait).await;
                let up_since = link.up_since.get();
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
        shard.link_ended(&link, fault, error.as_ref(), pause);
        clock::sleep(pause).await;
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
    let waits_for_pong = shard.core.config.dialect == Dialect::Pinus;
    let pings = waits_for_pong || calls_wait;
    if pings {
        connect.extend_from_slice(&mqtt::PINGREQ);
    }
    socket.quick_ack();
    if !matches!(socket.write(&[IoSlice::new(&connect)]), Ok(n) if n == connect.len()) {
        return LinkFault::Socket;
    }
    *link.socket.borrow_mut() = Some(socket.clone());
    let (rpc, now) = (&shard.core.config.rpc, shard.core.time.get().now);
    let mut mailbox = Mailbox::new(now, rpc.keepalive, rpc.answer_timeout);
    if pings {
        mailbox.note_ping(now);
    }
    if !waits_for_pong {
        shard.open_pipe(&link.pipe, socket.clone());
    }
    *link.mailbox.borrow_mut() = Some(mailbox);
    let receiver = LinkReceiver {
        shard,
        link,
        socket: &socket,
    };
    let end = drive::read(&socket, &shard.core.read_buffer, &receiver).await;
    match (link.fault.take(), end) {
        (Some(fault), _) => fault,
        (None, _) if link.pipe.has_overflowed() => LinkFault::QueueFull,
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
    fn receive(&self, input: &mut [u8]) -> Option<usize> {
        self.socket.quick_ack();
        // What other shards sent before the peer wrote this answer comes first: a push before the
        // response that it belongs to.
        self.shard.receive_waiting_batches();
        let mut at = 0;
        loop {
            let received = {
                let mut mailbox = self.link.mailbox.borrow_mut();
                mailbox.as_mut()?.receive(&input[at..])
            };
            match received {
                Ok((0, _)) => return Some(at),
                Ok((used, event)) => {
                    at += used;
                    if self.link.up_since.get().is_none() && event.is_some_and(Event::is_answer) {
                        self.shard.link_opened(self.link);
                    }
                    match event {
                        Some(Event::Payload(payload)) => {
                            self.shard.payload(self.link.index, payload);
                        }
                        Some(Event::Ping) => self.shard.send_to_peer(&self.link.pipe, |out| {
                            out.extend_from_slice(&mqtt::PINGRESP);
                        }),
                        Some(Event::Pong) if !self.link.pipe.is_open() => {
                            self.shard.open_pipe(&self.link.pipe, self.socket.clone());
                        }
                        Some(Event::Disconnect) => return None,
                        Some(Event::Pong) | None => {}
                    }
                }
                Err(fault) => {
                    self.link.fault.set(Some(fault));
                    return None;
                }
            }
        }
    }
}

impl Shard {
    /// Frames that another shard wrote for a link of this one.
    pub(in crate::shard) fn frames_of_another(&self, peer: PeerIndex, epoch: Epoch, frames: &[u8]) {
        let links = self.peers.links.borrow();
        let Some(link) = links.get(peer.index()) else {
            // The other shard knows of a server that this one is about to hear of.
            self.peers
                .early_frames
                .borrow_mut()
                .push((peer, epoch, frames.to_vec()));
            return;
        };
        let Some(link) = link else { return };
        if link.epoch.get() != epoch {
            // Their calls have failed, or are about to, with the link they were written for.
            return self.counters().add(Counter::FramesStale, 1);
        }
        self.send_to_peer(&link.pipe, |out| out.extend_from_slice(frames));
        link.want();
    }

    /// The list of servers has changed: what is gone ends, what is back opens.
    pub(in crate::shard) fn relist_links(self: &Rc<Self>) {
        let links: Vec<Rc<Link>> = self
            .peers
            .links
            .borrow()
            .iter()
            .flatten()
            .cloned()
            .collect();
        for link in links {
            let listed = self.peers.cluster.borrow().is_listed(link.index);
            if link.listed.replace(listed) == listed {
                continue;
            }
            if listed {
                // Calls are taken again at once; they wait until the link is open.
                self.take_calls(&link);
                link.want();
            } else {
                link.wanted.set(false);
                self.end_link(&link, LinkFault::Removed);
            }
        }
    }

    /// Sends pings that are due; ends links that do not answer them, or take no bytes.
    pub(in crate::shard) fn ping_links(self: &Rc<Self>, time: ShardTime) {
        let links: SmallVec<[Rc<Link>; 16]> = self
            .peers
            .links
            .borrow()
            .iter()
            .flatten()
            .cloned()
            .collect();
        for link in links {
            if link.pipe.has_overflowed() {
                self.end_link(&link, LinkFault::QueueFull);
            }
            let due = match &mut *link.mailbox.borrow_mut() {
                Some(mailbox) => mailbox.ping_due(time),
                None => continue,
            };
            match due {
                Ok(true) => self.send_to_peer(&link.pipe, |out| {
                    out.extend_from_slice(&mqtt::PINGREQ);
                }),
                Ok(false) => {}
                Err(fault) => self.end_link(&link, fault),
            }
        }
    }

    /// Ends a link from outside its read loop, which sees the end of its socket.
    fn end_link(self: &Rc<Self>, link: &Link, fault: LinkFault) {
        let Some(socket) = link.socket.borrow().clone() else {
            return self.link_ended(link, fault, None, Duration::ZERO);
        };
        link.fault.set(Some(fault));
        socket.shutdown();
    }

    /// Notes that the server has answered for the first time on this connection.
    fn link_opened(self: &Rc<Self>, link: &Link) {
        link.up_since.set(Some(clock::now()));
        link.warned.take();
        self.counters().add(Counter::LinksUp, 1);
        let server = &link.peer.server;
        tracing::info!(
            server = server.id,
            host = server.host,
            port = server.port,
            "link is up"
        );
        self.take_calls(link);
    }

    /// Lets all shards send calls to the server.
    fn take_calls(self: &Rc<Self>, link: &Link) {
        let (peer, epoch) = (link.index, link.epoch.get());
        self.link_is_up(peer, epoch);
        self.tell_others(|| Parcel::LinkUp { peer, epoch });
    }

    /// Fails the calls of a link that has ended, or that could not be opened. `pause` is the time until the
    /// next try, for the log.
    fn link_ended(
        self: &Rc<Self>,
        link: &Link,
        fault: LinkFault,
        error: Option<&io::Error>,
        pause: Duration,
    ) {
        let was_up = link.up_since.take().is_some();
        match (was_up, fault) {
            (true, _) => self.counters().add(Counter::LinksDown, 1),
            (false, LinkFault::Removed) => {}
            (false, _) => self.counters().add(Counter::DialsFailed, 1),
        }
        report_end(link, was_up, fault, error, pause);
        link.mailbox.take();
        link.socket.take();
        link.fault.take();
        self.close_pipe(&link.pipe);
        let next = link.epoch.get().next();
        link.epoch.set(next);
        let peer = link.index;
        self.link_is_down(peer, next);
        self.tell_others(|| Parcel::LinkDown { peer, next });
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
