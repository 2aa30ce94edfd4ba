//! TCP sockets whose readiness a shard's poller knows, and what stands for them in memory.
//!
//! The only `unsafe` of the crate: glommio's types take plain descriptor numbers.

#![allow(unsafe_code)]

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_lite::io::AsyncRead;
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, accept_with, recv, send, sendmsg,
};
use socket2::{Domain, Protocol, SockRef, Type};

use super::memory::{MemoryListener, MemoryStream};
use super::poller::{Key, Poller};

/// A connected socket that several tasks of one shard may use: one reads, another one writes.
#[derive(Debug)]
pub(crate) struct Socket(Kind);

#[derive(Debug)]
enum Kind {
    Kernel(Watched),
    Memory(Box<MemoryStream>),
}

// There may be many, and that there is a second kind costs nothing.
const _: () = assert!(size_of::<Socket>() == size_of::<Watched>());

/// A descriptor that the poller watches.
#[derive(Debug)]
pub(crate) struct Watched {
    fd: OwnedFd,
    key: Key,
    poller: Rc<Poller>,
}

impl Watched {
    fn new(fd: OwnedFd, poller: &Rc<Poller>) -> io::Result<Self> {
        let key = poller.add(fd.as_fd())?;
        Ok(Self {
            fd,
            key,
            poller: poller.clone(),
        })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.poller.remove(self.key);
    }
}

impl Socket {
    /// Takes a connected socket; small writes are not held back.
    fn kernel(watched: Watched) -> Self {
        // A socket that is gone already says so at the first read.
        let _ = SockRef::from(&watched.fd).set_tcp_nodelay(true);
        Self(Kind::Kernel(watched))
    }

    /// Takes one side of a connection in memory.
    pub(crate) fn memory(side: MemoryStream) -> Self {
        Self(Kind::Memory(Box::new(side)))
    }

    /// Connects.
    pub(crate) async fn connect(address: SocketAddr, poller: &Rc<Poller>) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            outcome => outcome?,
        }
        let watched = Watched::new(socket.into(), poller)?;
        poll_fn(|cx| watched.poll_writable(cx)).await?;
        if let Some(error) = SockRef::from(&watched.fd).take_error()? {
            return Err(error);
        }
        Ok(Self::kernel(watched))
    }

    /// Receives into `buffer` if bytes are there; nothing is held while waiting.
    pub(crate) fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &self.0 {
            Kind::Kernel(watched) => watched.poll_read(cx, buffer),
            Kind::Memory(side) => side.poll_read(cx, buffer),
        }
    }

    /// Writes what the socket takes at once; 0 when it takes nothing now.
    pub(crate) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        hop!();
        match &self.0 {
            Kind::Kernel(watched) => watched.write(slices),
            Kind::Memory(side) => side.write(slices),
        }
    }

    /// Writes `bytes` once the socket takes some.
    pub(crate) fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let watched = match &self.0 {
            Kind::Kernel(watched) => watched,
            Kind::Memory(side) => return side.poll_write(cx, bytes),
        };
        loop {
            match self.write(&[IoSlice::new(bytes)])? {
                0 if !bytes.is_empty() => watched.poller.filled(watched.key),
                written => return Poll::Ready(Ok(written)),
            }
            std::task::ready!(watched.poll_writable(cx))?;
        }
    }

    /// Sends FIN after what was written; the other direction stays open.
    pub(crate) fn shutdown_write(&self) {
        match &self.0 {
            Kind::Kernel(watched) => watched.shutdown(Shutdown::Write),
            Kind::Memory(side) => side.shutdown_write(),
        }
    }

    /// Ends both directions; a task that waits for bytes wakes up.
    pub(crate) fn shutdown(&self) {
        match &self.0 {
            Kind::Kernel(watched) => watched.shutdown(Shutdown::Both),
            Kind::Memory(side) => side.shutdown(),
        }
    }

    /// Address of the other side, while it is there.
    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Kernel(watched) => watched.socket().peer_addr().ok()?.as_socket(),
            Kind::Memory(side) => Some(side.peer_address()),
        }
    }

    /// Acknowledges at once what has arrived. The kernel forgets it, so it is said again after each
    /// read: a peer that does not set TCP_NODELAY waits 40 ms for a delayed acknowledgement.
    pub(crate) fn quick_ack(&self) {
        if let Kind::Kernel(watched) = &self.0 {
            let _ = watched.socket().set_tcp_quickack(true);
        }
    }
}

impl Watched {
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.fd)
    }

    fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Self { fd, key, poller } = self;
        while poller.may_read(*key, cx) {
            match recv(fd, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, received)) => {
                    if received < buffer.len() {
                        poller.drained(*key);
                    }
                    return Poll::Ready(Ok(received));
                }
                Err(Errno::AGAIN) => poller.emptied(*key),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Pending
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let written = match slices {
            [one] => send(&self.fd, one, flags),
            many => sendmsg(&self.fd, many, &mut SendAncillaryBuffer::default(), flags),
        };
        match written {
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            other => Ok(other?),
        }
    }

    fn shutdown(&self, how: Shutdown) {
        let _ = self.socket().shutdown(how);
    }

    fn poll_writable(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        match self.poller.may_write(self.key, self.fd.as_fd(), cx) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// Where connections arrive.
#[derive(Debug)]
pub(crate) enum Listener {
    /// A listening socket.
    Kernel(Watched),
    /// A line of connections in memory.
    Memory(Rc<MemoryListener>),
}

impl Listener {
    /// Takes a socket that listens.
    pub(crate) fn new(socket: std::net::TcpListener, poller: &Rc<Poller>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self::Kernel(Watched::new(socket.into(), poller)?))
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Kernel(watched) => poll_fn(|cx| watched.poll_accept(cx)).await,
            Self::Memory(backlog) => Ok(Socket::memory(backlog.accept().await)),
        }
    }
}

impl Watched {
    fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<Socket>> {
        let Self { fd, key, poller } = self;
        while poller.may_read(*key, cx) {
            match accept_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(fd) => return Poll::Ready(Self::new(fd, poller).map(Socket::kernel)),
                Err(Errno::AGAIN) => poller.emptied(*key),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Pending
    }
}

/// A descriptor of any kind that has become readable.
///
/// glommio has no name for this, but its stream asks the ring for it as it is made, whatever it is
/// made of. What it then reads is an error if that was no socket, and of no interest.
pub(super) struct Readable {
    /// Closed when this goes, which need not be at once.
    _stream: glommio::net::TcpStream,
}

impl Readable {
    /// Waits for it; `None` when there is no descriptor for the copy that this needs.
    pub(super) async fn of(fd: BorrowedFd<'_>) -> Option<Self> {
        let copy = fd.try_clone_to_owned().ok()?.into_raw_fd();
        // SAFETY: `into_raw_fd` gave up the descriptor, so the stream is its only owner.
        let mut stream = unsafe { glommio::net::TcpStream::from_raw_fd(copy) };
        let _ = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut [0])).await;
        Some(Self { _stream: stream })
    }
}
