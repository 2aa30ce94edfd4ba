//! The link to one peer: frames out, answers in, keep-alive.

use std::time::{Duration, Instant};

use crate::limits::RPC_FRAME_BYTES_MAX;
use crate::wire::mqtt::{self, Packet};

/// What came over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// JSON with one answer or an array of them; [`crate::wire::rpc::answers`] reads it.
    Payload(&'a [u8]),
    /// The peer asks whether we live.
    Ping,
    /// The peer lives.
    Pong,
    /// The peer is about to close.
    Disconnect,
}

/// Why a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkFault {
    /// The peer closed, or said that it will.
    Left,
    /// Connecting, reading or writing failed.
    Socket,
    /// Connecting took too long.
    ConnectTimeout,
    /// Bytes that are not the protocol.
    Bytes,
    /// A ping stayed unanswered.
    NoPong,
    /// More bytes wait for the peer than its queue holds.
    QueueFull,
    /// The server is not in the list any more.
    Removed,
}

impl LinkFault {
    /// For a log line.
    pub fn text(self) -> &'static str {
        match self {
            Self::Left => "the server closed the connection",
            Self::Socket => "the connection failed",
            Self::ConnectTimeout => "connecting took too long",
            Self::Bytes => "the server sent bytes that are not the protocol",
            Self::NoPong => "the server stopped answering pings",
            Self::QueueFull => "the server takes no more bytes",
            Self::Removed => "the server has left the cluster",
        }
    }
}

/// Protocol state of one open link.
#[derive(Debug)]
pub struct Mailbox {
    keepalive: Duration,
    next_ping: Instant,
    /// When the ping went out that has no answer yet.
    pinged: Option<Instant>,
}

impl Mailbox {
    /// A link that was opened at `now`.
    pub fn new(now: Instant, keepalive: Duration) -> Self {
        Self {
            keepalive,
            next_ping: now + keepalive,
            pinged: None,
        }
    }

    /// A ping went out beside the schedule.
    pub fn note_ping(&mut self, now: Instant) {
        self.pinged = Some(now);
    }

    /// Takes the next whole packet off the front of `input`: bytes used, 0 for "wait for more", and
    /// what it means to the owner.
    pub fn receive<'a>(
        &mut self,
        input: &'a [u8],
    ) -> Result<(usize, Option<Event<'a>>), LinkFault> {
        let decoded = mqtt::decode(input, RPC_FRAME_BYTES_MAX).map_err(|_| LinkFault::Bytes)?;
        let Some((packet, bytes)) = decoded else {
            return Ok((0, None));
        };
        hop!();
        let event = match packet {
            Packet::Publish {
                topic: mqtt::RPC_TOPIC,
                payload,
            } => Some(Event::Payload(payload)),
            Packet::PingResp => {
                self.pinged = None;
                Some(Event::Pong)
            }
            Packet::PingReq => Some(Event::Ping),
            Packet::Disconnect => Some(Event::Disconnect),
            Packet::Publish { .. } | Packet::Connect | Packet::Connack => None,
        };
        Ok((bytes, event))
    }

    /// Looks at the clock: true when a PINGREQ has to go out now. A second one is not sent while
    /// one is unanswered; a ping without an answer for two intervals is the end.
    pub fn ping_due(&mut self, now: Instant) -> Result<bool, LinkFault> {
        if self.pinged.is_some_and(|at| now >= at + 2 * self.keepalive) {
            return Err(LinkFault::NoPong);
        }
        if now < self.next_ping {
            return Ok(false);
        }
        self.next_ping = now + self.keepalive;
        if self.pinged.is_some() {
            return Ok(false);
        }
        self.pinged = Some(now);
        Ok(true)
    }
}

/// Pauses between two dials.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `min`, doubles up to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            next: min,
        }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max).max(self.min);
        pause
    }

    /// A dial went through.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_ping_goes_out_each_interval_and_silence_ends_the_link() {
        let start = now();
        let second = Duration::from_secs(1);
        let mut mailbox = Mailbox::new(start, 10 * second);
        assert_eq!(mailbox.ping_due(start + 9 * second), Ok(false));
        assert_eq!(mailbox.ping_due(start + 10 * second), Ok(true));
        assert_eq!(mailbox.receive(&mqtt::PINGRESP), Ok((2, Some(Event::Pong))));
        assert_eq!(mailbox.ping_due(start + 20 * second), Ok(true));
        assert_eq!(
            mailbox.ping_due(start + 30 * second),
            Ok(false),
            "one is unanswered"
        );
        assert_eq!(mailbox.ping_due(start + 39 * second), Ok(false));
        assert_eq!(
            mailbox.ping_due(start + 40 * second),
            Err(LinkFault::NoPong)
        );
    }

    #[test]
    fn packets_are_taken_whole_and_foreign_bytes_end_the_link() {
        let mut mailbox = Mailbox::new(now(), Duration::from_secs(10));
        let mut bytes = Vec::new();
        mqtt::write_publish(&mut bytes, |out| out.extend_from_slice(b"{}"));
        bytes.extend_from_slice(&mqtt::DISCONNECT);
        for end in 0..bytes.len() - 2 {
            assert_eq!(mailbox.receive(&bytes[..end]), Ok((0, None)));
        }
        let used = bytes.len() - 2;
        assert_eq!(
            mailbox.receive(&bytes),
            Ok((used, Some(Event::Payload(b"{}"))))
        );
        assert_eq!(
            mailbox.receive(&bytes[used..]),
            Ok((2, Some(Event::Disconnect)))
        );
        assert_eq!(mailbox.receive(b"HTTP/1.1 200 OK"), Err(LinkFault::Bytes));
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(350));
        assert_eq!(
            [(); 4].map(|()| backoff.pause()),
            [ms(100), ms(200), ms(350), ms(350)]
        );
        backoff.reset();
        assert_eq!(backoff.pause(), ms(100));
    }
}
