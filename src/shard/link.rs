//! A link to another server: the task that dials and reads it, and the queue in front of it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::Shard;
use super::mesh::Parcel;
use crate::config::Server;
use crate::ids::{PeerIndex, ShardId};
use crate::limits::{LINK_QUEUE_BYTES_MAX, WRITE_SLICES_MAX};
use crate::metrics::Counter;
use crate::net::clock;
use crate::net::dial::{DialError, dial};
use crate::net::drive::{self, End, Receiver};
use crate::net::socket::Socket;
use crate::push::Outbox;
use crate::rpc::Epoch;
use crate::rpc::mailbox::{Backoff, Event, LinkFault, Mailbox};
use crate::wire::mqtt;

/// One link, on the shard that owns it.
pub(super) struct Link {
    peer: PeerIndex,
    server: Server,
    epoch: Cell<Epoch>,
    outbox: RefCell<Outbox>,
    /// While the link is up.
    open: RefCell<Option<(Rc<Socket>, Mailbox)>>,
    /// Why the link has to end, where that is found outside its read loop.
    fault: Cell<Option<LinkFault>>,
    /// Somebody has called: dial.
    wanted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Link {
    pub(super) fn new(index: usize, server: Server) -> Self {
        Self {
            peer: PeerIndex(index as u16),
            server,
            epoch: Cell::default(),
            outbox: RefCell::default(),
            open: RefCell::default(),
            fault: Cell::default(),
            wanted: Cell::default(),
            waker: RefCell::default(),
        }
    }

    /// Waits for the first call. Pomelo opens a mailbox by the first call too.
    async fn wanted(&self) {
        poll_fn(|cx| {
            if self.wanted.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn want(&self) {
        if !self.wanted.replace(true)
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Ends the link from outside its read loop.
    fn fail(&self, fault: LinkFault) {
        if let Some((socket, _)) = &*self.open.borrow() {
            self.fault.set(Some(fault));
            socket.shutdown();
        }
    }
}

/// Keeps a link for ever: dials when it is first wanted, and again after each end.
pub(super) async fn run(shard: Rc<Shard>, link: Rc<Link>) {
    let rpc = &shard.config.rpc;
    let mut backoff = Backoff::new(rpc.backoff_min, rpc.backoff_max);
    link.wanted().await;
    loop {
        let fault = match dial(&link.server.host, link.server.port, rpc.connect_timeout).await {
            Ok(socket) => {
                backoff.reset();
                talk(&shard, &link, Rc::new(socket)).await
            }
            Err(DialError::Timeout) => LinkFault::ConnectTimeout,
            Err(DialError::Io(error)) => {
                tracing::debug!(server = link.server.id, %error, "connecting failed");
                LinkFault::Socket
            }
        };
        shard.link_ended(&link, fault);
        glommio::timer::sleep(backoff.pause()).await;
    }
}

/// One life of a link, from its CONNECT to its end.
async fn talk(shard: &Rc<Shard>, link: &Rc<Link>, socket: Rc<Socket>) -> LinkFault {
    let mut connect = Vec::new();
    mqtt::write_connect(&mut connect, &format!("MQTT_RPC_{}", clock::unix_ms()));
    socket.quick_ack();
    if !matches!(socket.write(&[IoSlice::new(&connect)]), Ok(n) if n == connect.len()) {
        return LinkFault::Socket;
    }
    let mailbox = Mailbox::new(clock::now(), shard.config.rpc.keepalive);
    *link.open.borrow_mut() = Some((socket.clone(), mailbox));
    shard.link_opened(link);
    let receiver = LinkReceiver {
        shard,
        link,
        socket: &socket,
    };
    let end = drive::read(&socket, &shard.read_buffer, &receiver).await;
    socket.shutdown();
    match (link.fault.take(), end) {
        (Some(fault), _) => fault,
        (None, End::Failed(_)) => LinkFault::Socket,
        (None, End::Eof | End::Enough) => LinkFault::Left,
    }
}

struct LinkReceiver<'a> {
    shard: &'a Rc<Shard>,
    link: &'a Link,
    socket: &'a Socket,
}

impl Receiver for LinkReceiver<'_> {
    fn receive(&self, input: &mut [u8]) -> Option<usize> {
        self.socket.quick_ack();
        let mut at = 0;
        loop {
            let received = {
                let mut open = self.link.open.borrow_mut();
                let (_, mailbox) = open.as_mut()?;
                mailbox.receive(&input[at..])
            };
            match received {
                Ok((0, _)) => return Some(at),
                Ok((used, event)) => {
                    at += used;
                    match event {
                        Some(Event::Payload(payload)) => {
                            self.shard.payload(self.link.peer, payload);
                        }
                        Some(Event::Ping) => self.shard.send_frames(self.link, |out| {
                            out.extend_from_slice(&mqtt::PINGRESP);
                        }),
                        Some(Event::Disconnect) => return None,
                        None => {}
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
    /// Appends frames to a link's queue; they leave at the end of the turn.
    pub(super) fn send_frames(&self, link: &Link, write: impl FnOnce(&mut Vec<u8>)) {
        let mut outbox = link.outbox.borrow_mut();
        write(outbox.raw(&mut self.scheduler.borrow_mut().pool));
        if outbox.bytes() > LINK_QUEUE_BYTES_MAX {
            // A server that takes nothing for so long is hung; its calls fail with the link.
            link.fail(LinkFault::QueueFull);
        }
        drop(outbox);
        link.want();
        self.turn.request();
    }

    /// Frames that another shard wrote for a link of this one.
    pub(super) fn frames_of_another(&self, peer: PeerIndex, epoch: Epoch, frames: &[u8]) {
        let Some(link) = &self.links[peer.index()] else {
            return;
        };
        if link.epoch.get() != epoch {
            // Their calls have failed, or are about to, with the link they were written for.
            return self.counters().add(Counter::FramesStale, 1);
        }
        self.send_frames(link, |out| out.extend_from_slice(frames));
    }

    /// Writes what waits for a link: one write if the socket takes it.
    pub(super) fn flush_link(self: &Rc<Self>, link: &Rc<Link>) {
        let open = link.open.borrow();
        let Some((socket, _)) = &*open else { return };
        let mut outbox = link.outbox.borrow_mut();
        if outbox.blocked {
            return;
        }
        while outbox.has_wire_bytes() {
            hop!();
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
            let used = outbox.slices(&mut slices);
            let offered: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            let Ok(written) = socket.write(&slices[..used]) else {
                // The read loop finds out why.
                return socket.shutdown();
            };
            outbox.advance(&mut self.scheduler.borrow_mut().pool, written);
            if written < offered {
                outbox.blocked = true;
                let task = flush_blocked(self.clone(), link.clone(), socket.clone());
                super::spawn_behind(task);
                return;
            }
        }
    }

    /// Sends pings that are due; ends links that do not answer them.
    pub(super) fn ping_links(&self, now: Instant) {
        for link in self.links.iter().flatten() {
            let due = match &mut *link.open.borrow_mut() {
                Some((_, mailbox)) => mailbox.ping_due(now),
                None => continue,
            };
            match due {
                Ok(true) => self.send_frames(link, |out| out.extend_from_slice(&mqtt::PINGREQ)),
                Ok(false) => {}
                Err(fault) => link.fail(fault),
            }
        }
    }

    fn link_opened(self: &Rc<Self>, link: &Link) {
        self.counters().add(Counter::LinksUp, 1);
        let server = &link.server;
        tracing::info!(
            server = server.id,
            host = server.host,
            port = server.port,
            "link is up"
        );
        let (peer, epoch) = (link.peer, link.epoch.get());
        self.link_is_up(peer, epoch);
        self.tell_others(|| Parcel::LinkUp { peer, epoch });
    }

    fn link_ended(self: &Rc<Self>, link: &Link, fault: LinkFault) {
        self.counters().add(Counter::LinksDown, 1);
        let server = &link.server;
        tracing::warn!(server = server.id, reason = fault.text(), "link is down");
        link.open.take();
        link.fault.take();
        let next = link.epoch.get().next();
        link.epoch.set(next);
        {
            let mut outbox = link.outbox.borrow_mut();
            outbox.clear(&mut self.scheduler.borrow_mut().pool);
            outbox.blocked = false;
        }
        let peer = link.peer;
        self.link_is_down(peer, next);
        self.tell_others(|| Parcel::LinkDown { peer, next });
    }

    fn tell_others(&self, parcel: impl Fn() -> Parcel) {
        let mut mesh = self.mesh.borrow_mut();
        for shard in (0..self.shards).map(|shard| ShardId(shard as u16)) {
            if shard != self.id {
                mesh.batch(shard).parcels.push(parcel());
            }
        }
        self.turn.request();
    }
}

/// Waits until the socket of a link takes more, and writes the rest.
async fn flush_blocked(shard: Rc<Shard>, link: Rc<Link>, socket: Rc<Socket>) {
    let epoch = link.epoch.get();
    loop {
        let done = poll_fn(|cx| {
            if link.epoch.get() != epoch {
                return Poll::Ready(None);
            }
            let mut outbox = link.outbox.borrow_mut();
            let mut slices = [IoSlice::new(&[]); 3];
            if outbox.slices(&mut slices) == 0 {
                return Poll::Ready(Some(true));
            }
            match socket.poll_write(cx, &slices[0]) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(_)) => Poll::Ready(None),
                Poll::Ready(Ok(written)) => {
                    let pool = &mut shard.scheduler.borrow_mut().pool;
                    Poll::Ready(Some(outbox.advance(pool, written)))
                }
            }
        })
        .await;
        match done {
            Some(false) => {}
            Some(true) => break,
            // The link has ended, or is about to: its read loop sees the same.
            None => return,
        }
    }
    link.outbox.borrow_mut().blocked = false;
}
