//! One non-blocking socket, and what one read or write could not finish.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::sockopt;

use crate::tls::Connection;

/// The buffer that one thread reads all its sockets into.
pub(crate) const READ_BUFFER_BYTES: usize = 64 << 10;

/// Events taken from one epoll wait.
const EVENTS_MAX: usize = 1024;

/// Room for the events of one wait.
pub(crate) struct Events {
    events: Vec<epoll::Event>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            events: Vec::with_capacity(EVENTS_MAX),
        }
    }

    /// The tokens of all that is ready now or becomes ready within `timeout`; none when it passes.
    pub(crate) fn wait(
        &mut self,
        epoll: impl AsFd,
        timeout: Duration,
    ) -> io::Result<impl Iterator<Item = u64> + '_> {
        self.events.clear();
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match epoll::wait(epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.events.iter().map(|event| event.data.u64()))
    }
}

pub(crate) struct Stream {
    socket: Connection,
    /// The start of a package whose end has not come yet.
    partial: Vec<u8>,
    /// Not taken by the socket yet; empty most of the time.
    unsent: Vec<u8>,
}

impl Stream {
    pub(crate) fn new(socket: impl Into<Connection>) -> io::Result<Self> {
        let socket = socket.into();
        socket.tcp().set_nonblocking(true)?;
        socket.tcp().set_nodelay(true)?;
        Ok(Self {
            socket,
            partial: Vec::new(),
            unsent: Vec::new(),
        })
    }

    /// One read into `buffer`, behind what [`Self::keep`] kept. `None`: nothing came.
    pub(crate) fn read<'b>(&mut self, buffer: &'b mut [u8]) -> io::Result<Option<&'b mut [u8]>> {
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        match self.socket.read(&mut buffer[kept..]) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.partial.clear();
                Ok(Some(&mut buffer[..kept + count]))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel acknowledge the next bytes without delay. It forgets this now and then, so it
    /// has to be said before each read.
    pub(crate) fn acknowledge_at_once(&self) -> io::Result<()> {
        Ok(sockopt::set_tcp_quickack(self.socket.tcp(), true)?)
    }

    /// Keeps `rest` for the next read. A package has to fit into the read buffer.
    pub(crate) fn keep(&mut self, rest: &[u8]) -> io::Result<()> {
        if rest.len() >= READ_BUFFER_BYTES {
            return Err(crate::wire::refused(
                "a package is larger than the read buffer",
            ));
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// One write, unless an earlier one still waits.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let taken = if self.unsent.is_empty() {
            write_some(&mut self.socket, bytes)?
        } else {
            0
        };
        self.unsent.extend_from_slice(&bytes[taken..]);
        Ok(())
    }

    /// Writes again what waits.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let taken = write_some(&mut self.socket, &self.unsent)?;
        self.unsent.drain(..taken);
        Ok(())
    }

    /// True while bytes wait for the socket.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(crate) fn watch(&self, epoll: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(
            epoll,
            self.socket.tcp(),
            EventData::new_u64(token),
            EventFlags::IN,
        )?)
    }

    /// To be called when [`Self::is_blocked`] changed; `while_blocked` is what to wait for then.
    pub(crate) fn watch_again(
        &self,
        epoll: impl AsFd,
        token: u64,
        while_blocked: EventFlags,
    ) -> io::Result<()> {
        let flags = if self.is_blocked() {
            while_blocked
        } else {
            EventFlags::IN
        };
        Ok(epoll::modify(
            epoll,
            self.socket.tcp(),
            EventData::new_u64(token),
            flags,
        )?)
    }
}

fn write_some(socket: &mut Connection, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
