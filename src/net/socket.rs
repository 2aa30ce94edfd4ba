//! TCP and unix sockets watched by a shard's poller, and streams in memory in their place; with TLS over either.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, acceptfrom_with, recv,
    send, sendmsg,
};
use socket2::{Domain, Protocol, SockRef, Type};

use super::UNIX_CLIENT;
use super::memory::{MemoryListener, MemoryStream};
use super::poller::{Key, Poller};
use super::tls::{Carrier, TlsBuffers, TlsStream};

/// A connected socket for several tasks of one shard: one reads, another writes.
#[derive(Debug)]
pub(crate) struct Socket(Kind);

#[derive(Debug)]
enum Kind {
    Kernel(Watched),
    Other(Box<Other>),
}

/// A socket with TLS, or whose client may begin it.
pub(crate) type TlsSocket = TlsStream<Socket>;

/// The kinds of sockets that a usual client does not have.
#[derive(Debug)]
enum Other {
    Memory(MemoryStream),
    Tls(TlsStream<Socket>),
}

// Each connection has one, and the other kinds must not enlarge it.
const _: () = assert!(size_of::<Socket>() == size_of::<Watched>());
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Socket>() == 16);

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
    /// Wraps a connected socket and sets TCP_NODELAY, which a unix socket does not need.
    fn kernel(watched: Watched) -> Self {
        // A closed socket reports its error at the first read.
        let _ = SockRef::from(&watched.fd).set_tcp_nodelay(true);
        Self(Kind::Kernel(watched))
    }

    /// Wraps one side of a connection in memory.
    pub(crate) fn memory(side: MemoryStream) -> Self {
        Self(Kind::Other(Box::new(Other::Memory(side))))
    }

    /// Wraps a connected socket whose client may speak TLS.
    pub(crate) fn with_tls(self, buffers: &Rc<TlsBuffers>) -> Self {
        let tls = TlsStream::new(self, buffers);
        Self(Kind::Other(Box::new(Other::Tls(tls))))
    }

    /// Returns the layer of TLS, if there is one.
    pub(crate) fn tls(&self) -> Option<&TlsSocket> {
        match &self.0 {
            Kind::Other(other) => match &**other {
                Other::Tls(tls) => Some(tls),
                Other::Memory(_) => None,
            },
            Kind::Kernel(_) => None,
        }
    }

    /// Returns the number of TLS records since the last call.
    #[inline]
    pub(crate) fn take_records(&self) -> usize {
        match &self.0 {
            Kind::Kernel(_) => 0,
            Kind::Other(_) => self.tls().map_or(0, TlsStream::take_records),
        }
    }

    /// Connects to an address.
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

    /// Reads available bytes into `buffer`. A waiting read holds no buffer.
    pub(crate) fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match &self.0 {
            Kind::Kernel(watched) => watched.poll_read(cx, buffer),
            Kind::Other(other) => match &**other {
                Other::Memory(side) => side.poll_read(cx, buffer),
                Other::Tls(tls) => tls.poll_read(cx, buffer),
            },
        }
    }

    /// Writes the bytes that the socket takes now; 0 if it takes none.
    pub(crate) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        hop!();
        match &self.0 {
            Kind::Kernel(watched) => watched.write(slices),
            Kind::Other(other) => match &**other {
                Other::Memory(side) => side.write(slices),
                Other::Tls(tls) => tls.write(slices),
            },
        }
    }

    /// Writes `bytes`, or waits until the socket takes some. With TLS it may return the number of more bytes than that:
    /// of those that an earlier write has offered.
    pub(crate) fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let watched = match &self.0 {
            Kind::Kernel(watched) => watched,
            Kind::Other(other) => {
                return match &**other {
                    Other::Memory(side) => side.poll_write(cx, bytes),
                    Other::Tls(tls) => tls.poll_write(cx, bytes),
                };
            }
        };
        loop {
            match self.write(&[IoSlice::new(bytes)])? {
                0 if !bytes.is_empty() => watched.poller.filled(watched.key),
                written => return Poll::Ready(Ok(written)),
            }
            std::task::ready!(watched.poll_writable(cx))?;
        }
    }

    /// Sends FIN after the written bytes; the other direction stays open.
    pub(crate) fn shutdown_write(&self) {
        match &self.0 {
            Kind::Kernel(watched) => watched.shutdown(Shutdown::Write),
            Kind::Other(other) => match &**other {
                Other::Memory(side) => side.shutdown_write(),
                Other::Tls(tls) => {
                    tls.end_write();
                    tls.inner().shutdown_write();
                }
            },
        }
    }

    /// Closes both directions and wakes a task that waits for bytes.
    pub(crate) fn shutdown(&self) {
        match &self.0 {
            Kind::Kernel(watched) => watched.shutdown(Shutdown::Both),
            Kind::Other(other) => match &**other {
                Other::Memory(side) => side.shutdown(),
                Other::Tls(tls) => {
                    tls.end();
                    tls.inner().shutdown();
                }
            },
        }
    }

    /// Closes both directions of a connection whose other side may still send. If bytes of it wait here, the end of this
    /// socket resets the connection: the kernel does not open a full window again, so the other side would send nothing,
    /// and hear of the end a minute or two later.
    pub(crate) fn break_off(&self) {
        if let Some(watched) = self.watched()
            && recv(&watched.fd, &mut [0], RecvFlags::DONTWAIT | RecvFlags::PEEK)
                .is_ok_and(|(_, waiting)| waiting > 0)
        {
            self.reset_at_end();
        }
        self.shutdown();
    }

    /// Has the end of this socket reset the connection: the bytes that wait in the kernel are dropped, and the other side
    /// gets an error.
    pub(crate) fn reset_at_end(&self) {
        if let Some(watched) = self.watched() {
            let _ = watched.socket().set_linger(Some(Duration::ZERO));
        }
    }

    /// Returns the address of the other side, while it is connected; [`UNIX_CLIENT`] for that of a unix socket.
    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Kernel(watched) => {
                let address = watched.socket().peer_addr().ok()?;
                let is_unix = address.is_unix();
                address.as_socket().or(is_unix.then_some(UNIX_CLIENT))
            }
            Kind::Other(other) => match &**other {
                Other::Memory(side) => Some(side.peer_address()),
                Other::Tls(tls) => tls.inner().peer_address(),
            },
        }
    }

    /// Acknowledges received bytes at once. A peer without TCP_NODELAY would otherwise wait 40 ms for a
    /// delayed acknowledgement. The kernel resets the option, so it is set after each read.
    pub(crate) fn quick_ack(&self) {
        if let Some(watched) = self.watched() {
            let _ = watched.socket().set_tcp_quickack(true);
        }
    }

    /// Returns the socket of the kernel, if there is one.
    fn watched(&self) -> Option<&Watched> {
        match &self.0 {
            Kind::Kernel(watched) => Some(watched),
            Kind::Other(other) => match &**other {
                Other::Memory(_) => None,
                Other::Tls(tls) => tls.inner().watched(),
            },
        }
    }
}

impl Carrier for Socket {
    fn poll_read(&self, cx: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read(cx, buffer)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write(&[IoSlice::new(bytes)])
    }

    fn write_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(slices)
    }

    fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write(cx, bytes)
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

/// A listener for connections.
#[derive(Debug)]
pub(crate) enum Listener {
    /// A listening socket.
    Kernel(Watched),
    /// A queue of connections in memory.
    Memory(Rc<MemoryListener>),
}

impl Listener {
    /// Wraps a listening socket of TCP, or a unix socket.
    pub(crate) fn new(socket: OwnedFd, poller: &Rc<Poller>) -> io::Result<Self> {
        SockRef::from(&socket).set_nonblocking(true)?;
        Ok(Self::Kernel(Watched::new(socket, poller)?))
    }

    /// Waits for the next connection. Its address is known even if the other side has reset it already; it is
    /// [`UNIX_CLIENT`] for a unix socket.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Self::Kernel(watched) => poll_fn(|cx| watched.poll_accept(cx)).await,
            Self::Memory(backlog) => {
                let side = backlog.accept().await;
                let address = side.peer_address();
                Ok((Socket::memory(side), address))
            }
        }
    }
}

impl Watched {
    fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<(Socket, SocketAddr)>> {
        let Self { fd, key, poller } = self;
        while poller.may_read(*key, cx) {
            match acceptfrom_with(fd, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((fd, address)) => {
                    let address = match address {
                        Some(address) if address.address_family() == AddressFamily::UNIX => {
                            Some(UNIX_CLIENT)
                        }
                        address => address.and_then(|address| address.try_into().ok()),
                    };
                    let address = address.ok_or(io::ErrorKind::ConnectionAborted)?;
                    let watched = Self::new(fd, poller)?;
                    return Poll::Ready(Ok((Socket::kernel(watched), address)));
                }
                Err(Errno::AGAIN) => poller.emptied(*key),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        Poll::Pending
    }
}
