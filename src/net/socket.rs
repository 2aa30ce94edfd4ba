//! TCP sockets: what glommio's lack, in safe clothes.
//!
//! The only `unsafe` of the crate: glommio's types give and take plain descriptor numbers.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use socket2::SockRef;

/// A connected socket that several tasks of one shard may use: one reads, others write.
#[derive(Debug)]
pub struct Socket {
    stream: RefCell<TcpStream>,
    fd: RawFd,
}

impl Socket {
    /// Takes a stream; small writes are not held back.
    pub fn new(stream: TcpStream) -> Self {
        let fd = stream.as_raw_fd();
        let socket = Self {
            stream: RefCell::new(stream),
            fd,
        };
        // A socket that is gone already says so at the first read.
        let _ = SockRef::from(&socket.fd()).set_tcp_nodelay(true);
        socket
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `stream` owns the descriptor and lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Receives into `buffer` if bytes are there; nothing is held while waiting.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buffer)
    }

    /// Writes what the socket takes at once; 0 when it takes nothing now.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        hop!();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let written = match slices {
            [one] => send(self.fd(), one, flags),
            many => sendmsg(self.fd(), many, &mut SendAncillaryBuffer::default(), flags),
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            other => Ok(other?),
        }
    }

    /// Writes `bytes` once the socket takes some.
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, bytes)
    }

    /// Sends FIN after what was written; the other direction stays open.
    pub fn shutdown_write(&self) {
        let _ = SockRef::from(&self.fd()).shutdown(Shutdown::Write);
    }

    /// Ends both directions; a task that waits for bytes wakes up.
    pub fn shutdown(&self) {
        let _ = SockRef::from(&self.fd()).shutdown(Shutdown::Both);
    }

    /// Address of the other side, while it is there.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.stream.borrow().peer_addr().ok()
    }

    /// Acknowledges at once what has arrived. The kernel forgets it, so it is said again after each
    /// read: a peer that does not set TCP_NODELAY waits 40 ms for a delayed acknowledgement.
    pub fn quick_ack(&self) {
        let _ = SockRef::from(&self.fd()).set_tcp_quickack(true);
    }
}

/// Hands a listening socket to the shard's executor.
pub fn listener(socket: std::net::TcpListener) -> TcpListener {
    // SAFETY: `into_raw_fd` gives up the descriptor, so the new owner is the only one.
    unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) }
}
