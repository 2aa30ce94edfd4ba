//! Messages that clients send and that have an answer: requests, notifies and heartbeats, in a closed loop
//! or at a fixed rate.

use std::io;
use std::time::{Duration, Instant};

use super::{Options, Work};
use crate::clients::{Body, Clients, unexpected};
use crate::measure::{Load, Tally};
use crate::session::{self, DELEGATE_ROUTE, ECHO_ROUTE, FORWARD_ROUTE};
use crate::tls::Dial;
use crate::wire::{self, Framing, refused};

/// Notifies with the one request behind them, whose answer shows that they have arrived: messages of
/// a session are forwarded in their order.
pub(crate) const NOTIFIES: u64 = 16;

const FLOOD_DEPTH: u32 = 1024;

pub(crate) struct Exchange {
    clients: Clients,
    sessions: Vec<Session>,
    /// How many of them are measured; the others flood.
    measured: usize,
    work: Work,
    pace: Pace,
    /// Messages whose time has come, over all measured sessions.
    issued: u64,
    body: Body,
    tally: Tally,
    ready: Vec<u64>,
}

impl Exchange {
    pub(crate) fn open(options: &Options, dial: &Dial) -> io::Result<Self> {
        let count = options.connections + options.flood;
        let heartbeats = options.start.heartbeat.is_some();
        let framing = Framing {
            transport: options.transport,
            client: true,
        };
        let first = match options.kind {
            Work::Forward | Work::Notify => Some(FORWARD_ROUTE),
            Work::Delegate => Some(DELEGATE_ROUTE),
            _ => None,
        };
        let mut body = Body::new(options.body as usize);
        let clients = Clients::open(dial, framing, count, heartbeats, |index, socket| {
            // One alone: a Pinus frontend may lose answers that come with the first one of a link.
            if let (0, Some(route)) = (index, first) {
                session::check(socket, framing, route, body.of(1))?;
            }
            Ok(())
        })?;
        let depth_of = |index| match index < options.connections {
            true => options.depth,
            false => FLOOD_DEPTH,
        };
        let mut exchange = Self {
            clients,
            sessions: (0..count).map(|i| Session::new(depth_of(i))).collect(),
            measured: options.connections as usize,
            work: options.kind,
            pace: Pace::new(options),
            issued: 0,
            body,
            tally: Tally::new()?,
            ready: Vec::new(),
        };
        let now = Instant::now();
        if options.rate.is_none() {
            (0..exchange.measured).try_for_each(|index| exchange.fill(index, now))?;
        }
        (exchange.measured..count as usize).try_for_each(|index| exchange.fill(index, now))?;
        Ok(exchange)
    }

    /// Sends what this session may send now.
    fn fill(&mut self, index: usize, now: Instant) -> io::Result<()> {
        let (work, pace) = self.role(index);
        let (session, body) = (&mut self.sessions[index], &mut self.body);
        let framing = self.clients.framing;
        self.clients.send(index, |out| {
            while let Some(id) = session.next(index, &pace, now) {
                send(work, framing, out, id, body.of(id));
            }
        })
    }

    fn role(&self, index: usize) -> (Work, Pace) {
        if index < self.measured {
            (self.work, self.pace)
        } else {
            (Work::Request, Pace::closed())
        }
    }

    /// Checks the answers that came and sends what they make room for, in one write.
    fn take(&mut self, index: usize) -> io::Result<()> {
        let (work, pace) = self.role(index);
        let is_measured = index < self.measured;
        let (session, body, tally) = (&mut self.sessions[index], &mut self.body, &mut self.tally);
        let framing = self.clients.framing;
        let now = Instant::now();
        self.clients.turn(index, |kind, message, out| {
            let id = match (kind, work) {
                (wire::HEARTBEAT, Work::Heartbeat) => session.flights[0].id,
                (wire::DATA, _) => {
                    let (id, answer) = wire::response(message)?;
                    if answer != body.of(id) {
                        return Err(unexpected(kind, message));
                    }
                    id
                }
                _ => return Err(unexpected(kind, message)),
            };
            let intended = session.land(id)?;
            if is_measured {
                let done = if work == Work::Notify { NOTIFIES } else { 1 };
                tally.record(done, now - intended);
            }
            while let Some(id) = session.next(index, &pace, now) {
                send(work, framing, out, id, body.of(id));
            }
            Ok(())
        })
    }
}

impl Load for Exchange {
    fn step(&mut self) -> io::Result<()> {
        let mut timeout = Duration::from_secs(1);
        if let Some(interval_ns) = self.pace.interval_ns {
            let now = Instant::now();
            loop {
                let due = self.pace.start + from_ns(interval_ns * self.issued as f64);
                if due > now {
                    timeout = timeout.min(due - now);
                    break;
                }
                // One whose session is full waits for an answer there, and its time runs.
                let index = self.issued % self.measured as u64;
                self.fill(index as usize, now)?;
                self.issued += 1;
            }
        }
        let mut ready = std::mem::take(&mut self.ready);
        self.clients.wait(&mut ready, timeout)?;
        let taken = ready
            .iter()
            .try_for_each(|&index| self.take(index as usize));
        self.ready = ready;
        taken
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn lost_since(&self, start: Instant) -> usize {
        let measured = self.sessions[..self.measured].iter();
        let flying = measured.flat_map(|session| &session.flights);
        flying
            .filter(|flight| flight.intended.is_some_and(|time| time < start))
            .count()
    }
}

fn send(work: Work, framing: Framing, out: &mut Vec<u8>, id: u32, body: &[u8]) {
    match work {
        Work::Heartbeat => framing.package(out, wire::HEARTBEAT, b""),
        Work::Forward => wire::request(framing, out, id, FORWARD_ROUTE, body),
        Work::Delegate => wire::request(framing, out, id, DELEGATE_ROUTE, body),
        Work::Notify => {
            for _ in 1..NOTIFIES {
                wire::without_id(framing, out, wire::NOTIFY, FORWARD_ROUTE, body);
            }
            wire::request(framing, out, id, FORWARD_ROUTE, body);
        }
        _ => wire::request(framing, out, id, ECHO_ROUTE, body),
    }
}

/// When a message is to be sent.
#[derive(Debug, Clone, Copy)]
struct Pace {
    start: Instant,
    /// Between two messages, over all sessions; `None`: an answer sends the next one.
    interval_ns: Option<f64>,
    sessions: u64,
}

impl Pace {
    fn new(options: &Options) -> Self {
        Self {
            start: Instant::now(),
            interval_ns: options.rate.map(|rate| 1e9 / f64::from(rate)),
            sessions: u64::from(options.connections),
        }
    }

    fn closed() -> Self {
        Self {
            start: Instant::now(),
            interval_ns: None,
            sessions: 0,
        }
    }

    /// The time of the session's message `number`, unless it lies ahead.
    fn intended(&self, index: usize, number: u64, now: Instant) -> Option<Instant> {
        let Some(interval_ns) = self.interval_ns else {
            return Some(now);
        };
        let position = number * self.sessions + index as u64;
        let intended = self.start + from_ns(interval_ns * position as f64);
        (intended <= now).then_some(intended)
    }
}

fn from_ns(ns: f64) -> Duration {
    Duration::from_nanos(ns as u64)
}

struct Session {
    /// Request `id` lives at `(id - 1) % depth`, so that an answer finds it whatever order the
    /// server answers in.
    flights: Vec<Flight>,
    free: Vec<u32>,
    sent: u64,
}

struct Flight {
    /// Of the last message of this place, which is over when there is no time.
    id: u32,
    intended: Option<Instant>,
}

impl Session {
    fn new(depth: u32) -> Self {
        let places = 0..depth;
        Self {
            flights: places
                .clone()
                .map(|place| Flight {
                    // The next one is `place + 1`.
                    id: (place + 1).wrapping_sub(depth),
                    intended: None,
                })
                .collect(),
            free: places.rev().collect(),
            sent: 0,
        }
    }

    /// The id of a message to send now, if there is room and its time has come.
    fn next(&mut self, index: usize, pace: &Pace, now: Instant) -> Option<u32> {
        let &place = self.free.last()?;
        let intended = pace.intended(index, self.sent, now)?;
        self.free.pop();
        self.sent += 1;
        let depth = self.flights.len() as u32;
        let flight = &mut self.flights[place as usize];
        flight.id = flight.id.wrapping_add(depth);
        flight.intended = Some(intended);
        Some(flight.id)
    }

    /// An answer came. When its message was to be sent.
    fn land(&mut self, id: u32) -> io::Result<Instant> {
        let place = id.wrapping_sub(1) % self.flights.len() as u32;
        let flight = &mut self.flights[place as usize];
        match flight.intended.take() {
            Some(intended) if flight.id == id => {
                self.free.push(place);
                Ok(intended)
            }
            _ => Err(refused(format!(
                "a response to {id}, which is not in flight"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_a_bound_of_messages_in_flight_and_knows_each() {
        let (pace, now) = (Pace::closed(), Instant::now());
        let mut session = Session::new(3);
        let next = |session: &mut Session| session.next(0, &pace, now);
        assert_eq!(
            [(); 4].map(|()| next(&mut session)),
            [Some(1), Some(2), Some(3), None]
        );
        assert!(session.land(2).is_ok());
        assert!(session.land(2).is_err());
        assert!(session.land(5).is_err());
        assert_eq!([(); 2].map(|()| next(&mut session)), [Some(5), None]);
        assert!(session.land(1).is_ok() && session.land(5).is_ok());
        assert_eq!([(); 2].map(|()| next(&mut session)), [Some(8), Some(4)]);
    }

    #[test]
    fn a_late_message_keeps_its_time() {
        let start = Instant::now();
        let pace = Pace {
            start,
            interval_ns: Some(1e6),
            sessions: 10,
        };
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(pace.intended(3, 0, at(2)), None);
        assert_eq!(pace.intended(3, 0, at(3)), Some(at(3)));
        assert_eq!(pace.intended(3, 2, at(500)), Some(at(23)));
    }
}
