//! Connections in memory, within one thread, for a gateway without sockets.
//!
//! Shape:  two queues of bytes, one per direction, like a connection over loopback; a write to a
//!         closed direction fails with [`io::ErrorKind::BrokenPipe`], as with a socket
//! Bound:  `limits::MEMORY_SOCKET_BYTES` per queue; a write takes only the bytes that fit

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, IoSlice, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::limits::MEMORY_SOCKET_BYTES;

/// One direction of a connection.
#[derive(Debug, Default)]
struct Queue {
    bytes: VecDeque<u8>,
    /// The writer has closed the direction after these bytes.
    has_ended: bool,
    /// The reader has closed the direction.
    read_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Queue {
    fn end(&mut self) {
        self.has_ended = true;
        wake(&mut self.reader);
    }

    fn close_read(&mut self) {
        self.read_closed = true;
        self.bytes = VecDeque::new();
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// One side of a connection. Dropping it closes both directions.
#[derive(Debug)]
pub struct MemoryStream {
    incoming: Rc<RefCell<Queue>>,
    outgoing: Rc<RefCell<Queue>>,
    other: SocketAddr,
}

/// Creates a connection and returns the streams of `a` and `b`. Each has the address of the other as
/// its peer.
pub(crate) fn connection(a: SocketAddr, b: SocketAddr) -> (MemoryStream, MemoryStream) {
    let queues: [Rc<RefCell<Queue>>; 2] = Default::default();
    let stream = |incoming: usize, other| MemoryStream {
        incoming: queues[incoming].clone(),
        outgoing: queues[1 - incoming].clone(),
        other,
    };
    (stream(0, b), stream(1, a))
}

impl MemoryStream {
    /// Reads available bytes into `buffer`; 0 at the end.
    pub fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut queue = self.incoming.borrow_mut();
        if queue.bytes.is_empty() && !queue.has_ended && !queue.read_closed {
            queue.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wake(&mut queue.writer);
        Poll::Ready(queue.bytes.read(buffer))
    }

    /// Takes all received bytes.
    pub fn take(&self) -> Vec<u8> {
        let mut queue = self.incoming.borrow_mut();
        wake(&mut queue.writer);
        std::mem::take(&mut queue.bytes).into()
    }

    /// Returns true if the other side has closed and all its bytes were read.
    pub fn has_ended(&self) -> bool {
        let queue = self.incoming.borrow();
        queue.bytes.is_empty() && (queue.has_ended || queue.read_closed)
    }

    /// Writes the bytes that fit.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut queue = self.outgoing.borrow_mut();
        if queue.has_ended || queue.read_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let before = queue.bytes.len();
        for slice in slices {
            let room = MEMORY_SOCKET_BYTES - queue.bytes.len();
            queue.bytes.extend(&slice[..room.min(slice.len())]);
        }
        let written = queue.bytes.len() - before;
        if written > 0 {
            wake(&mut queue.reader);
        }
        Ok(written)
    }

    /// Writes `bytes`, or waits until some fit.
    pub fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.write(&[IoSlice::new(bytes)])?;
        if written == 0 && !bytes.is_empty() {
            self.outgoing.borrow_mut().writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(written))
    }

    /// Closes the direction to the other side after the written bytes.
    pub fn shutdown_write(&self) {
        self.outgoing.borrow_mut().end();
    }

    /// Closes both directions and wakes a task that waits for bytes.
    pub fn shutdown(&self) {
        self.shutdown_write();
        self.incoming.borrow_mut().close_read();
    }

    /// Address of the other side.
    pub fn peer_address(&self) -> SocketAddr {
        self.other
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// A shard's in-memory network: its accept queue, and the servers it can dial.
#[derive(Debug, Default)]
pub struct MemoryNetwork {
    /// Accept queue for clients.
    pub clients: Rc<MemoryListener>,
    /// Accept queue for calls from other servers, which one shard takes.
    pub callers: Rc<MemoryListener>,
    /// The servers, shared by all shards.
    pub servers: Rc<MemoryServers>,
}

/// The servers that shards can dial, by host and port.
#[derive(Debug, Default)]
pub struct MemoryServers(RefCell<HashMap<(String, u16), Rc<MemoryListener>>>);

impl MemoryServers {
    /// Opens the accept queue of a server, in place of an earlier one.
    pub fn listen(&self, host: &str, port: u16) -> Rc<MemoryListener> {
        let backlog = Rc::new(MemoryListener::default());
        let address = (host.to_owned(), port);
        self.0.borrow_mut().insert(address, backlog.clone());
        backlog
    }

    /// Removes the accept queue of a server.
    pub fn close(&self, host: &str, port: u16) {
        self.0.borrow_mut().remove(&(host.to_owned(), port));
    }

    /// Connects to a server.
    ///
    /// Errors: [`io::ErrorKind::ConnectionRefused`] if no server listens
    pub fn connect(&self, host: &str, port: u16) -> io::Result<MemoryStream> {
        let servers = self.0.borrow();
        let backlog = servers.get(&(host.to_owned(), port));
        let backlog = backlog.ok_or(io::ErrorKind::ConnectionRefused)?;
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (stream, other) = connection(address(0), address(port));
        backlog.put(other);
        Ok(stream)
    }
}

/// A queue of connections to accept.
///
/// Bound: the accepting task waits for nothing else, and a connecting test waits for an answer.
#[derive(Debug, Default)]
pub struct MemoryListener {
    streams: RefCell<VecDeque<MemoryStream>>,
    waker: RefCell<Option<Waker>>,
}

impl MemoryListener {
    /// Adds a connection.
    pub fn put(&self, stream: MemoryStream) {
        self.streams.borrow_mut().push_back(stream);
        wake(&mut self.waker.borrow_mut());
    }

    /// Waits for the next connection.
    pub async fn accept(&self) -> MemoryStream {
        poll_fn(|cx| match self.streams.borrow_mut().pop_front() {
            Some(stream) => Poll::Ready(stream),
            None => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    fn streams() -> (MemoryStream, MemoryStream) {
        let [a, b] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        connection(a, b)
    }

    fn read(stream: &MemoryStream, bytes: usize) -> Option<Vec<u8>> {
        let mut buffer = vec![0; bytes];
        let step = poll_fn(|cx| stream.poll_read(cx, &mut buffer));
        let read = block_on(poll_once(step))?.expect("a queue can be read");
        buffer.truncate(read);
        Some(buffer)
    }

    fn write(stream: &MemoryStream, bytes: &[u8]) -> io::Result<usize> {
        stream.write(&[IoSlice::new(bytes)])
    }

    #[test]
    fn bytes_arrive_in_order_and_the_end_behind_them() {
        let (a, b) = streams();
        assert_eq!((a.peer_address().port(), b.peer_address().port()), (2, 1));
        assert_eq!(read(&b, 9), None);
        let slices = [IoSlice::new(b"ab"), IoSlice::new(b"c")];
        assert_eq!(a.write(&slices).unwrap(), 3);
        a.shutdown_write();
        assert!(!b.has_ended());
        assert_eq!(read(&b, 2), Some(b"ab".into()));
        assert_eq!((read(&b, 2), b.has_ended()), (Some(b"c".into()), true));
        assert_eq!(read(&b, 2), Some(vec![]));
        assert_eq!(
            write(&b, b"still").unwrap(),
            5,
            "the other direction is open"
        );
        assert_eq!(a.take(), b"still");
        assert!(write(&a, b"x").is_err());
    }

    #[test]
    fn a_full_queue_takes_what_fits_and_the_rest_when_it_was_read() {
        let (a, b) = streams();
        let long = vec![7; MEMORY_SOCKET_BYTES + 1];
        assert_eq!(write(&a, &long).unwrap(), MEMORY_SOCKET_BYTES);
        assert_eq!(write(&a, &long).unwrap(), 0);
        let step = || block_on(poll_once(poll_fn(|cx| a.poll_write(cx, b"x"))));
        assert!(step().is_none());
        assert_eq!(read(&b, 1), Some(vec![7]));
        assert_eq!(step().unwrap().unwrap(), 1);
    }

    #[test]
    fn a_side_that_is_gone_is_the_end_for_the_other() {
        let (a, b) = streams();
        write(&b, b"never read").unwrap();
        drop(a);
        assert!(b.has_ended());
        assert_eq!(read(&b, 1), Some(vec![]));
        assert_eq!(
            write(&b, b"x").unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn connections_are_accepted_in_order() {
        let backlog = MemoryListener::default();
        let kept: Vec<MemoryStream> = (0..2)
            .map(|at: u16| {
                let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
                let (client, gateway) = connection(address(50_000 + at), address(1));
                backlog.put(gateway);
                client
            })
            .collect();
        let ports = [(); 2].map(|()| block_on(backlog.accept()).peer_address().port());
        assert_eq!((ports, kept.len()), ([50_000, 50_001], 2));
        assert!(block_on(poll_once(backlog.accept())).is_none());
    }

    #[test]
    fn a_server_is_reached_while_it_listens() {
        let servers = MemoryServers::default();
        let refused = |port| {
            let error = servers.connect("host", port).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        };
        refused(1);
        let backlog = servers.listen("host", 1);
        refused(2);
        let stream = servers.connect("host", 1).unwrap();
        write(&stream, b"hello").unwrap();
        assert_eq!(block_on(backlog.accept()).take(), b"hello");
        servers.close("host", 1);
        refused(1);
    }
}
