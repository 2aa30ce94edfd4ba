//! TLS of the gateway over a socket that blocks, and a client for it.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustls::{ALL_VERSIONS, ClientConnection, ServerConfig, StreamOwned};
use tangelo::{Carrier, TlsBuffers, TlsStream, tls_vectors};

use super::echo::Stream;

pub(super) fn client(stream: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
    let config = tls_vectors::client_config(ALL_VERSIONS);
    StreamOwned::new(tls_vectors::client(config), stream)
}

#[derive(Debug)]
struct Blocking(TcpStream);

impl Carrier for Blocking {
    fn poll_read(&self, _: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Ready((&self.0).read(buffer))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn write_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.0).write_vectored(slices)
    }

    fn poll_write(&self, _: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write(bytes))
    }
}

/// A connection whose handshake is done.
pub(super) struct Secure(TlsStream<Blocking>);

impl Secure {
    pub(super) fn accept(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = TlsStream::new(Blocking(stream), &TlsBuffers::new());
        tls.begin(config)?;
        loop {
            if now(tls.poll_receive(&cx()))? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let is_done = tls.shake_hands()?;
            now(tls.poll_send(&cx()))?;
            if is_done {
                return Ok(Self(tls));
            }
        }
    }
}

impl Read for Secure {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        now(self.0.poll_read(&cx(), buffer))
    }
}

impl Write for Secure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(self.0.poll_write(&cx(), bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        now(self.0.poll_send(&cx()))
    }
}

impl Stream for Secure {
    fn end(&self) {
        self.0.end_write();
        self.0.inner().0.end();
    }
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn now<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the socket blocks"),
    }
}
