//! The link to one peer: incoming answers, timeout of the first answer, keep-alive, pauses between dials.

use std::time::{Duration, Instant};

use super::{Received, foreign};
use crate::error::LinkFault;
use crate::limits::RPC_FRAME_BYTES_MAX;
use crate::time::ShardTime;
use crate::wire::pomelo::mqtt::{self, Packet};

/// Event of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailboxEvent<'a> {
    /// JSON with one answer or an array of them; [`crate::wire::pomelo::rpc::answers`] reads it.
    Payload(&'a [u8]),
    /// The peer asks whether we live.
    Ping,
    /// The peer lives.
    Pong,
    /// The peer is about to close.
    Disconnect,
}

impl MailboxEvent<'_> {
    /// True when the peer speaks the protocol and stays.
    pub fn is_answer(self) -> bool {
        self != MailboxEvent::Disconnect
    }
}

/// Protocol state of one open link.
#[derive(Debug)]
pub struct Mailbox {
    keepalive: Duration,
    next_ping: Instant,
    /// When the ping went out that has no answer yet.
    pinged: Option<Instant>,
    answer_timeout: Duration,
    /// The peer must have answered once by then; `None` once it has.
    first_answer_by: Option<Instant>,
    /// When a ping has to ask for the first answer; `None` once an answer has come or a ping has gone out.
    probe_at: Option<Instant>,
}

impl Mailbox {
    /// A connection that was opened at `now`. The peer must answer within the answer timeout. Genuine
    /// servers do not answer a CONNECT: a ping asks for the first answer when no other came within a fifth
    /// of that time.
    pub fn new(now: Instant, keepalive: Duration, answer_timeout: Duration) -> Self {
        Self {
            keepalive,
            next_ping: now + keepalive,
            pinged: None,
            answer_timeout,
            first_answer_by: Some(now + answer_timeout),
            probe_at: Some(now + answer_timeout / 5),
        }
    }

    /// A ping went out beside the schedule. The next one may be due already, when the tick is late.
    pub fn note_ping(&mut self, now: Instant) {
        self.pinged = Some(now);
        self.next_ping = self.next_ping.max(now);
        self.probe_at = None;
        self.check_invariants();
    }

    /// Takes the next whole packet off the front of `input`.
    pub fn receive<'a>(&mut self, input: &'a [u8]) -> Received<MailboxEvent<'a>> {
        let decoded = mqtt::decode(input, RPC_FRAME_BYTES_MAX).map_err(|_| foreign(input))?;
        let Some((packet, bytes)) = decoded else {
            return Ok(None);
        };
        hop!();
        let event = match packet {
            Packet::Publish {
                topic: mqtt::RPC_TOPIC,
                payload,
            } => Some(MailboxEvent::Payload(payload)),
            Packet::PingResp => {
                self.pinged = None;
                Some(MailboxEvent::Pong)
            }
            Packet::PingReq => Some(MailboxEvent::Ping),
            Packet::Disconnect => Some(MailboxEvent::Disconnect),
            Packet::Publish {
                topic: mqtt::MQTT2_TOPIC,
                ..
            } => return Err(LinkFault::Mqtt2),
            Packet::Publish { .. } | Packet::Connect | Packet::Connack => None,
        };
        if event.is_some_and(MailboxEvent::is_answer) {
            self.first_answer_by = None;
            self.probe_at = None;
        }
        self.check_invariants();
        Ok(Some((bytes, event)))
    }

    /// Looks at the clock: true when a PINGREQ has to go out now. A second one is not sent while
    /// one is unanswered.
    ///
    /// Errors: `NoPong` when a ping has had no answer for two intervals, `NoAnswer` when the peer has not
    /// answered within the answer timeout.
    pub fn ping_due(&mut self, time: ShardTime) -> Result<bool, LinkFault> {
        let is_late = |by| time.is_over(by, self.answer_timeout);
        if self.first_answer_by.is_some_and(is_late) {
            return Err(LinkFault::NoAnswer);
        }
        if self.probe_at.is_some_and(|at| time.now >= at) {
            self.note_ping(time.now);
            return Ok(true);
        }
        let timeout = 2 * self.keepalive;
        let is_late = |pinged| time.is_over(pinged + timeout, timeout);
        if self.pinged.is_some_and(is_late) {
            return Err(LinkFault::NoPong);
        }
        if time.now < self.next_ping {
            return Ok(false);
        }
        self.next_ping = time.now + self.keepalive;
        if self.pinged.is_some() {
            return Ok(false);
        }
        self.pinged = Some(time.now);
        self.check_invariants();
        Ok(true)
    }

    fn check_invariants(&self) {
        debug_assert!(
            self.probe_at <= self.first_answer_by,
            "a probe asks for the first answer before the answer is late"
        );
        debug_assert!(
            self.pinged <= Some(self.next_ping),
            "the next ping is due before the last one went out"
        );
    }
}

/// A link that was up for this long resets the pauses: the next dial follows soon. While links end
/// earlier, the pauses grow.
pub const STABLE: Duration = Duration::from_secs(5);

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
        assert!(min <= max, "the configuration was not checked");
        Self {
            min,
            max,
            next: min,
        }
    }

    /// Returns the pause before the next dial. `lived` is how long the link was up, zero if the peer never
    /// answered. `random`, from 0 up to 1, shortens the pause by up to a quarter, so that servers which lost
    /// a peer together do not dial it together.
    pub fn pause(&mut self, lived: Duration, random: f64) -> Duration {
        assert!((0.0..1.0).contains(&random));
        if lived >= STABLE {
            self.next = self.min;
        }
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        assert!((self.min..=self.max).contains(&self.next));
        pause.mul_f64(1.0 - random / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn now() -> Instant {
        Instant::now()
    }

    const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

    #[test]
    fn a_ping_goes_out_each_interval_and_silence_ends_the_link() {
        let start = now();
        let at = |seconds| ShardTime::new(start + Duration::from_secs(seconds));
        let mut mailbox = Mailbox::new(start, Duration::from_secs(10), ANSWER_TIMEOUT);
        assert_eq!(
            mailbox.receive(&mqtt::PINGRESP),
            Ok(Some((2, Some(MailboxEvent::Pong))))
        );
        assert_eq!(mailbox.ping_due(at(9)), Ok(false));
        assert_eq!(mailbox.ping_due(at(10)), Ok(true));
        assert_eq!(
            mailbox.receive(&mqtt::PINGRESP),
            Ok(Some((2, Some(MailboxEvent::Pong))))
        );
        assert_eq!(mailbox.ping_due(at(20)), Ok(true));
        assert_eq!(
            mailbox.ping_due(at(30)),
            Ok(false),
            "a ping is still unanswered"
        );
        assert_eq!(mailbox.ping_due(at(39)), Ok(false));
        assert_eq!(mailbox.ping_due(at(40)), Err(LinkFault::NoPong));
    }

    #[test]
    fn a_pong_may_take_its_whole_time_again_after_a_pause() {
        let second = Duration::from_secs(1);
        let mut time = ShardTime::new(now());
        let mut mailbox = Mailbox::new(time.now, 10 * second, ANSWER_TIMEOUT);
        mailbox.receive(&mqtt::PINGRESP).unwrap();
        time.now += 10 * second;
        assert_eq!(mailbox.ping_due(time), Ok(true));
        time.now += 19 * second;
        assert!(time.advance(60 * second).is_some());
        for _ in 0..20 {
            assert_eq!(mailbox.ping_due(time), Ok(false));
            time.now += second;
        }
        assert_eq!(mailbox.ping_due(time), Err(LinkFault::NoPong));
    }

    #[test]
    fn a_peer_that_never_answers_ends_its_link_after_the_answer_timeout() {
        let start = now();
        let mut publish = Vec::new();
        mqtt::write_publish(&mut publish, |out| out.extend_from_slice(b"{}"));
        for (bytes, answered) in [
            (&mqtt::PINGRESP[..], true),
            (&mqtt::PINGREQ, true),
            (&publish, true),
            (&mqtt::DISCONNECT, false),
            (b"", false),
        ] {
            let mut mailbox = Mailbox::new(start, Duration::from_secs(60), ANSWER_TIMEOUT);
            mailbox.receive(bytes).unwrap();
            let second = Duration::from_secs(1);
            let mut pings = |at| mailbox.ping_due(ShardTime::new(start + at));
            assert_eq!(pings(second - Duration::from_millis(1)), Ok(false));
            assert_eq!(pings(second), Ok(!answered), "{bytes:?}");
            assert_eq!(pings(ANSWER_TIMEOUT - Duration::from_millis(1)), Ok(false));
            let expected = if answered {
                Ok(false)
            } else {
                Err(LinkFault::NoAnswer)
            };
            assert_eq!(pings(ANSWER_TIMEOUT), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_first_answer_may_take_its_whole_time_again_after_a_pause() {
        let mut time = ShardTime::new(now());
        let mut mailbox = Mailbox::new(time.now, Duration::from_secs(60), ANSWER_TIMEOUT);
        mailbox.note_ping(time.now);
        assert!(time.advance(10 * ANSWER_TIMEOUT).is_some());
        assert_eq!(mailbox.ping_due(time), Ok(false));
        time.now += ANSWER_TIMEOUT - Duration::from_millis(1);
        assert_eq!(mailbox.ping_due(time), Ok(false));
        time.now += Duration::from_millis(1);
        assert_eq!(mailbox.ping_due(time), Err(LinkFault::NoAnswer));
    }

    #[test]
    fn a_ping_for_the_first_answer_takes_the_place_of_one_that_a_late_tick_finds_due() {
        let second = Duration::from_secs(1);
        let start = now();
        let at = |time| ShardTime::new(start + time);
        let mut mailbox = Mailbox::new(start, second / 2, ANSWER_TIMEOUT);
        // Both are due since a second.
        assert_eq!(mailbox.ping_due(at(2 * second)), Ok(true));
        assert_eq!(mailbox.ping_due(at(2 * second)), Ok(false));
        mailbox.receive(&mqtt::PINGRESP).unwrap();
        assert_eq!(mailbox.ping_due(at(2 * second + second / 4)), Ok(false));
        assert_eq!(mailbox.ping_due(at(2 * second + second / 2)), Ok(true));
    }

    #[test]
    fn packets_are_taken_whole_and_foreign_bytes_end_the_link() {
        let mut mailbox = Mailbox::new(now(), Duration::from_secs(10), ANSWER_TIMEOUT);
        let mut bytes = Vec::new();
        mqtt::write_publish(&mut bytes, |out| out.extend_from_slice(b"{}"));
        bytes.extend_from_slice(&mqtt::DISCONNECT);
        for end in 0..bytes.len() - 2 {
            assert_eq!(mailbox.receive(&bytes[..end]), Ok(None));
        }
        let used = bytes.len() - 2;
        assert_eq!(
            mailbox.receive(&bytes),
            Ok(Some((used, Some(MailboxEvent::Payload(b"{}")))))
        );
        assert_eq!(
            mailbox.receive(&bytes[used..]),
            Ok(Some((2, Some(MailboxEvent::Disconnect))))
        );
        assert_eq!(mailbox.receive(b"<html>"), Err(LinkFault::Bytes));
    }

    #[test]
    fn a_peer_that_shows_another_rpc_is_named() {
        // The beginning of ZMTP 3, the answer of a `ws` server to MQTT, and the greeting of mqtt2.
        let mut mqtt2 = Vec::new();
        mqtt::write_publish_on(&mut mqtt2, b"h", |out| out.extend_from_slice(b"{}"));
        for (bytes, fault) in [
            (&b"\xff\0\0\0\0\0\0\0\x01\x7f\x03"[..], LinkFault::ZeroMq),
            (b"HTTP/1.1 400 Bad Request\r\n", LinkFault::Http),
            (&mqtt2, LinkFault::Mqtt2),
        ] {
            let mut mailbox = Mailbox::new(now(), Duration::from_secs(10), ANSWER_TIMEOUT);
            assert_eq!(mailbox.receive(bytes), Err(fault));
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_until_a_connection_has_lasted() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(350));
        let mut pause = |lived| backoff.pause(lived, 0.0);
        assert_eq!(
            [(); 4].map(|()| pause(Duration::ZERO)),
            [ms(100), ms(200), ms(350), ms(350)]
        );
        assert_eq!(
            pause(STABLE - ms(1)),
            ms(350),
            "a short connection does not reset the pause"
        );
        assert_eq!(pause(STABLE), ms(100));
        assert_eq!(pause(Duration::ZERO), ms(200));
    }

    #[test]
    fn a_pause_is_up_to_a_quarter_shorter_by_chance() {
        let ms = Duration::from_millis;
        let first = |random| Backoff::new(ms(100), ms(200)).pause(Duration::ZERO, random);
        assert_eq!(first(0.0), ms(100));
        assert_eq!(first(0.5), Duration::from_micros(87_500));
        assert!(first(0.999) > ms(75));
    }
}
