//! TCP sockets whose readiness a shard's poller knows.
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

use super::poller::{Key, Poller};

/// A connected socket that several tasks of one shard may use: one reads, another one writes.
#[derive(Debug)]
pub struct Socket {
    watched: Watched,
}

/// A descriptor that the poller watches.
#[derive(Debug)]
struct Watched {
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
    fn new(watched: Watched) -> Self {
        // A socket that is gone already says so at the first read.
        let _ = SockRef::from(&watched.fd).set_tcp_nodelay(true);
        Self { watched }
    }

    /// Connects.
    pub async fn connect(address: SocketAddr, poller: &Rc<Poller>) -> io::Result<Self> {
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
        Ok(Self::new(watched))
    }

    /// Receives into `buffer` if bytes are there; nothing is held while waiting.
    pub fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Watched { fd, key, poller } = &self.watched;
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

    /// Writes what the socket takes at once; 0 when it takes nothing now.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        hop!();
        let fd = &self.watched.fd;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let written = match slices {
            [one] => send(fd, one, flags),
            many => sendmsg(fd, many, &mut SendAncillaryBuffer::default(), flags),
        };
        match written {
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            other => Ok(other?),
        }
    }

    /// Writes `bytes` once the socket takes some.
    pub fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.write(&[IoSlice::new(bytes)])? {
                0 if !bytes.is_empty() => self.watched.poller.filled(self.watched.key),
                written => return Poll::Ready(Ok(written)),
            }
            std::task::ready!(self.watched.poll_writable(cx))?;
        }
    }

    /// Sends FIN after what was written; the other direction stays open.
    pub fn shutdown_write(&self) {
        let _ = SockRef::from(&self.watched.fd).shutdown(Shutdown::Write);
    }

    /// Ends both directions; a task that waits for bytes wakes up.
    pub fn shutdown(&self) {
        let _ = SockRef::from(&self.watched.fd).shutdown(Shutdown::Both);
    }

    /// Address of the other side, while it is there.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        SockRef::from(&self.watched.fd)
            .peer_addr()
            .ok()?
            .as_socket()
    }

    /// Acknowledges at once what has arrived. The kernel forgets it, so it is said again after each
    /// read: a peer that does not set TCP_NODELAY waits 40 ms for a delayed acknowledgement.
    pub fn quick_ack(&self) {
        let _ = SockRef::from(&self.watched.fd).set_tcp_quickack(true);
    }
}

impl Watched {
    fn poll_writable(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        match self.poller.may_write(self.key, self.fd.as_fd(), cx) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener(Watched);

impl Listener {
    /// Takes a socket that listens.
    pub fn new(socket: std::net::TcpListener, poller: &Rc<Poller>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(Watched::new(socket.into(), poller)?))
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Socket> {
        let Watched { fd, key, poller } = &self.0;
        poll_fn(|cx| {
            while poller.may_read(*key, cx) {
                match accept_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    Ok(fd) => return Poll::Ready(Watched::new(fd, poller).map(Socket::new)),
                    Err(Errno::AGAIN) => poller.emptied(*key),
                    Err(Errno::INTR) => {}
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
            Poll::Pending
        })
        .await
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
