//! Many client sessions, driven by one thread: one epoll, one read buffer, one read and one write
//! per ready session.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::{self, EventFlags};

use crate::measure::show_progress;
use crate::process::check_stop;
use crate::session;
use crate::stream::{Events, READ_BUFFER_BYTES, Stream};
use crate::tls::{Connection, Dial};
use crate::wire::{self, Framing, Packages};

pub(crate) struct Clients {
    pub(crate) epoll: OwnedFd,
    pub(crate) framing: Framing,
    streams: Vec<Stream>,
    events: Events,
    buffer: Vec<u8>,
    out: Vec<u8>,
}

impl Clients {
    /// Opens `count` sessions, one after the other: no listen queue overflows. Each is handed to
    /// `prepare` while its socket still blocks.
    pub(crate) fn open(
        dial: &Dial,
        framing: Framing,
        count: u32,
        heartbeats: bool,
        mut prepare: impl FnMut(u32, &mut Connection) -> io::Result<()>,
    ) -> io::Result<Self> {
        let mut clients = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            framing,
            streams: Vec::new(),
            events: Events::new(),
            buffer: vec![0; READ_BUFFER_BYTES],
            out: Vec::new(),
        };
        for index in 0..count {
            let opened = session::open(dial, framing.transport, heartbeats)
                .and_then(|mut socket| prepare(index, &mut socket).map(|()| socket));
            let socket = opened.map_err(|error| {
                let text = format!("after {index} of {count} sessions: {error}");
                io::Error::new(error.kind(), text)
            })?;
            let stream = Stream::new(socket)?;
            stream.watch(&clients.epoll, u64::from(index))?;
            clients.streams.push(stream);
            if index % 100 == 0 {
                check_stop()?;
                show_progress(&format!("{index} sessions"));
            }
        }
        show_progress("");
        Ok(clients)
    }

    /// Puts the tokens of what is ready into `ready`; the token of a session is its index.
    pub(crate) fn wait(&mut self, ready: &mut Vec<u64>, timeout: Duration) -> io::Result<()> {
        ready.clear();
        ready.extend(self.events.wait(&self.epoll, timeout)?);
        Ok(())
    }

    /// One ready session: hands each package that came to `take`, with room for what to send.
    pub(crate) fn turn(
        &mut self,
        index: usize,
        mut take: impl FnMut(u8, &[u8], &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let stream = &mut self.streams[index];
        let was_blocked = stream.is_blocked();
        if was_blocked {
            stream.flush()?;
        }
        if let Some(bytes) = stream.read(&mut self.buffer)? {
            self.out.clear();
            let mut packages = Packages::new(self.framing.transport, bytes);
            while let Some((kind, body)) = packages.next()? {
                take(kind, body, &mut self.out)?;
            }
            stream.keep(packages.rest())?;
            if !self.out.is_empty() {
                stream.write(&self.out)?;
            }
        }
        self.watch_again(index, was_blocked)
    }

    /// Sends what `fill` appends, if anything, in one write.
    pub(crate) fn send(&mut self, index: usize, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.out.clear();
        fill(&mut self.out);
        if self.out.is_empty() {
            return Ok(());
        }
        let was_blocked = self.streams[index].is_blocked();
        self.streams[index].write(&self.out)?;
        self.watch_again(index, was_blocked)
    }

    fn watch_again(&self, index: usize, was_blocked: bool) -> io::Result<()> {
        let stream = &self.streams[index];
        if stream.is_blocked() == was_blocked {
            return Ok(());
        }
        // It keeps reading, because a server may wait until we read. The depth bounds the unsent bytes.
        stream.watch_again(&self.epoll, index as u64, EventFlags::IN | EventFlags::OUT)
    }
}

/// The JSON body of each message: the same length for all, different for each number.
pub(crate) struct Body {
    text: Vec<u8>,
}

impl Body {
    const HEAD: &str = r#"{"n":"#;
    const DIGITS: usize = 10;
    /// The shortest body: its frame without text.
    pub(crate) const BYTES_MIN: i64 = 32;

    pub(crate) fn new(bytes: usize) -> Self {
        let digits = "0".repeat(Self::DIGITS);
        let frame = format!(r#"{}{digits},"text":""}}"#, Self::HEAD).len();
        let text = "x".repeat(bytes - frame);
        let text = format!(r#"{}{digits},"text":"{text}"}}"#, Self::HEAD);
        debug_assert_eq!(text.len(), bytes);
        Self {
            text: text.into_bytes(),
        }
    }

    pub(crate) fn of(&mut self, number: u32) -> &[u8] {
        // A leading one keeps all numbers equally long.
        let mut number = 1_000_000_000 + u64::from(number);
        for digit in self.text[Self::HEAD.len()..][..Self::DIGITS]
            .iter_mut()
            .rev()
        {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        &self.text
    }
}

/// Fails with what came instead of what was expected.
pub(crate) fn unexpected(kind: u8, body: &[u8]) -> io::Error {
    wire::refused(format!("a package of type {kind}: {}", wire::shown(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_length_and_its_number() {
        for bytes in [32, 64, 1000] {
            let mut body = Body::new(bytes);
            assert_eq!(body.of(7).len(), bytes);
            assert!(body.of(7).starts_with(br#"{"n":1000000007,"text":"x"#));
            assert!(body.of(i32::MAX as u32).starts_with(br#"{"n":3147483647,"#));
        }
    }
}
