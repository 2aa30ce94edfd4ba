//! Calls that wait for their answer: the caller's half of a link.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::Epoch;
use super::breaker::Breaker;
use crate::ids::ShardId;
use crate::time::ShardTime;

/// The calls of one shard to one peer. `O` says whom an answer is for.
///
/// Bound: `calls_max` at one time; [`Calls::begin`] then refuses.
/// Cost:  one hash of an integer per call and per answer, no allocation once warm.
#[derive(Debug)]
pub struct Calls<O> {
    calls: HashMap<u64, Call<O>, RandomState>,
    calls_max: usize,
    timeout: Duration,
    next_id: u64,
    /// Distance between two ids: the number of shards.
    stride: u64,
    epoch: Epoch,
    up: bool,
    breaker: Breaker,
    /// Index of the peer's server type, for its histogram.
    pub server_type: usize,
    /// Knowledge of the sessions of this shard, if the peer is a delegate.
    pub knowledge: Knowledge,
    /// No call is due before this.
    earliest: Option<Instant>,
}

#[derive(Debug)]
struct Call<O> {
    begun: Instant,
    deadline: Instant,
    timeout: Duration,
    origin: O,
}

/// Knowledge of a delegate about the sessions of one shard.
///
/// ```text
///             begin              end
///  Incomplete ─────▶ Listing ─────────▶ Complete
///      ▲ ▲              │ miss             │ miss
///      │ └──────────────│──────────────────┘
///      │   end          ▼
///      └─────────── ListingAgain
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Knowledge {
    /// It has missed a notice, or is new.
    #[default]
    Incomplete,
    /// It is getting the list of all sessions.
    Listing,
    /// The same, and it has missed a notice since the list began.
    ListingAgain,
    /// It has got the list and all notices since.
    Complete,
}

impl Knowledge {
    /// Returns true if the list of all sessions has to begin.
    pub fn is_due(self) -> bool {
        self == Self::Incomplete
    }

    /// Begins the list of all sessions.
    pub fn begin(&mut self) {
        debug_assert!(self.is_due(), "one list at a time");
        *self = Self::Listing;
    }

    /// Notes a notice that was not sent.
    pub fn miss(&mut self) {
        *self = match self {
            Self::Incomplete | Self::Complete => Self::Incomplete,
            Self::Listing | Self::ListingAgain => Self::ListingAgain,
        };
    }

    /// Ends the list.
    pub fn end(&mut self) {
        *self = match self {
            Self::Listing => Self::Complete,
            _ => Self::Incomplete,
        };
    }
}

/// The reason why a call was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many calls wait as may.
    Full,
    /// The link is down.
    Down,
    /// The peer has answered none of the last calls.
    Open,
}

impl<O> Calls<O> {
    /// No calls yet. Ids are `shard`, `shard + shards`, …: with one shard 0, 1, 2 as in the
    /// reference.
    pub fn new(
        shard: ShardId,
        shards: usize,
        calls_max: usize,
        timeout: Duration,
        breaker: Breaker,
    ) -> Self {
        assert!(
            shard.index() < shards,
            "its ids would be those of another shard"
        );
        Self {
            calls: HashMap::default(),
            calls_max,
            timeout,
            next_id: u64::from(shard.0),
            stride: shards as u64,
            epoch: Epoch::default(),
            up: true,
            breaker,
            server_type: 0,
            knowledge: Knowledge::default(),
            earliest: None,
        }
    }

    /// Which shard made a call.
    pub fn shard_of(id: u64, shards: usize) -> ShardId {
        ShardId((id % shards as u64) as u16)
    }

    /// Life of the link that calls go to now.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Begins a call; its frame must follow with the id returned. `timeout` is in place of the common one.
    ///
    /// `begun` is by the clock and comes back with the answer, `now` is by the time of the shard.
    #[inline]
    pub fn begin(
        &mut self,
        timeout: Option<Duration>,
        begun: Instant,
        now: Instant,
        origin: O,
    ) -> Result<u64, Refused> {
        hop!();
        let timeout = timeout.unwrap_or(self.timeout);
        if !self.up {
            return Err(Refused::Down);
        }
        if !self.breaker.lets(now) {
            return Err(Refused::Open);
        }
        if self.calls.len() >= self.calls_max {
            return Err(Refused::Full);
        }
        self.breaker.begin(now);
        let id = self.next_id;
        self.next_id += self.stride;
        let deadline = now + timeout;
        self.earliest = Some(
            self.earliest
                .map_or(deadline, |earliest| earliest.min(deadline)),
        );
        let call = Call {
            begun,
            deadline,
            timeout,
            origin,
        };
        let before = self.calls.insert(id, call);
        debug_assert!(before.is_none(), "an id is used again");
        self.check_invariants();
        Ok(id)
    }

    /// Ends a call with its answer; returns also when it was begun. `None`: it is over already, or never was.
    pub fn finish(&mut self, id: u64) -> Option<(O, Instant)> {
        hop!();
        let call = self.calls.remove(&id);
        if call.is_some() {
            self.breaker.answer();
        }
        self.check_invariants();
        call.map(|call| (call.origin, call.begun))
    }

    /// Returns true if calls are taken.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Returns true while the peer answers no calls: they fail at once.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.breaker.is_open()
    }

    /// Returns whether the peer answers calls, or is due for a probe.
    #[inline]
    pub fn lets(&self, now: Instant) -> bool {
        self.breaker.lets(now)
    }

    /// Returns true if no call waits.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Takes the calls whose deadline has passed.
    ///
    /// Cost: nothing before the earliest deadline; then one pass over the table.
    pub fn expire(&mut self, time: ShardTime) -> Vec<O> {
        if self.earliest.is_none_or(|earliest| time.now < earliest) {
            return Vec::new();
        }
        let due = |call: &Call<O>| time.due(call.deadline, call.timeout);
        // A call with a shorter time of its own says little about the peer.
        let (mut silent, common) = (0, self.timeout);
        let late = self.calls.extract_if(|_, call| {
            let is_late = due(call) <= time.now;
            silent += usize::from(is_late && call.timeout >= common);
            is_late
        });
        let origins = in_order(late);
        self.breaker.time_out(silent, time.now);
        self.earliest = self.calls.values().map(due).min();
        self.check_invariants();
        origins
    }

    /// The link of `epoch` has ended: takes every call; new ones are refused until it is up again.
    pub fn link_down(&mut self, next: Epoch) -> Vec<O> {
        debug_assert_eq!(next, self.epoch.next(), "the end of a link was missed");
        self.up = false;
        self.breaker.answer();
        self.knowledge.miss();
        self.epoch = next;
        self.earliest = None;
        let origins = in_order(self.calls.drain());
        self.check_invariants();
        origins
    }

    /// The link is open.
    pub fn link_up(&mut self, epoch: Epoch) {
        // A link that was never down says up too; an older life says nothing.
        if self.epoch == epoch {
            self.up = true;
        }
        self.check_invariants();
    }

    fn check_invariants(&self) {
        debug_assert!(
            self.calls.len() <= self.calls_max,
            "more calls than may wait"
        );
        debug_assert!(
            self.up || self.calls.is_empty(),
            "a call waits for a link that is down"
        );
        debug_assert!(
            self.earliest.is_some() || self.calls.is_empty(),
            "a call waits without a deadline"
        );
        debug_assert!(self.stride > 0, "a process has a shard");
    }
}

/// Origins in the order their calls were made.
fn in_order<O>(calls: impl Iterator<Item = (u64, Call<O>)>) -> Vec<O> {
    let mut calls: Vec<_> = calls.collect();
    calls.sort_unstable_by_key(|(id, _)| *id);
    calls.into_iter().map(|(_, call)| call.origin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(shard: u16, shards: usize) -> Calls<u32> {
        let breaker = Breaker::new(Some(2), Duration::from_secs(1));
        Calls::new(ShardId(shard), shards, 3, Duration::from_secs(30), breaker)
    }

    // The pure rooms have no clock; a test of one may start from the real one.
    #[allow(clippy::disallowed_methods)]
    fn now() -> Instant {
        Instant::now()
    }

    fn begin(calls: &mut Calls<u32>, now: Instant, origin: u32) -> Result<u64, Refused> {
        calls.begin(None, now, now, origin)
    }

    #[test]
    fn an_answer_ends_its_call_once() {
        let mut calls = calls(0, 1);
        let start = now();
        assert_eq!(begin(&mut calls, start, 7), Ok(0));
        assert_eq!(begin(&mut calls, start, 8), Ok(1));
        assert_eq!(
            (calls.finish(1), calls.finish(1), calls.finish(9)),
            (Some((8, start)), None, None)
        );
        assert_eq!(calls.calls.len(), 1);
    }

    #[test]
    fn ids_say_which_shard_called() {
        let mut calls = calls(2, 4);
        let ids = [(); 3].map(|()| begin(&mut calls, now(), 0).unwrap());
        assert_eq!(ids, [2, 6, 10]);
        assert!(
            ids.iter()
                .all(|id| Calls::<u32>::shard_of(*id, 4) == ShardId(2))
        );
        assert_eq!(begin(&mut calls, now(), 0), Err(Refused::Full));
    }

    #[test]
    fn a_call_never_outlives_its_deadline() {
        let mut calls = calls(0, 1);
        let start = now();
        begin(&mut calls, start, 1).unwrap();
        begin(&mut calls, start + Duration::from_secs(10), 2).unwrap();
        let at = |seconds| ShardTime::new(start + Duration::from_secs(seconds));
        assert!(calls.expire(at(29)).is_empty());
        assert_eq!(calls.expire(at(30)), [1]);
        assert!(calls.expire(at(39)).is_empty());
        assert_eq!(calls.expire(at(40)), [2]);
        assert!(calls.calls.is_empty());
    }

    #[test]
    fn after_a_pause_each_call_has_its_own_timeout_again() {
        let mut calls = calls(0, 1);
        let mut time = ShardTime::new(now());
        let second = Duration::from_secs(1);
        begin(&mut calls, time.now, 1).unwrap();
        calls.begin(Some(second), time.now, time.now, 2).unwrap();
        assert!(time.advance(60 * second).is_some());
        let resumed = time.now;
        let mut expire_at = |since| {
            time.now = resumed + since;
            calls.expire(time)
        };
        assert!(expire_at(Duration::ZERO).is_empty());
        assert!(expire_at(second - Duration::from_millis(1)).is_empty());
        assert_eq!(expire_at(second), [2]);
        assert!(expire_at(29 * second).is_empty());
        assert_eq!(expire_at(30 * second), [1]);
    }

    #[test]
    fn timeouts_in_a_row_have_further_calls_refused_until_an_answer_or_the_end_of_the_link() {
        let mut calls = calls(0, 1);
        let start = now();
        let second = Duration::from_secs(1);
        calls.begin(Some(second), start, start, 0).unwrap();
        begin(&mut calls, start, 1).unwrap();
        begin(&mut calls, start, 2).unwrap();
        assert_eq!(calls.expire(ShardTime::new(start + second)), [0]);
        assert_eq!(calls.expire(ShardTime::new(start + 30 * second)), [1, 2]);
        assert!(calls.is_open());
        let at = |seconds| start + seconds * second;
        assert_eq!(begin(&mut calls, at(30), 3), Err(Refused::Open));
        let probe = begin(&mut calls, at(31), 4).unwrap();
        assert_eq!(
            begin(&mut calls, at(31), 5),
            Err(Refused::Open),
            "one probe"
        );
        assert_eq!(calls.finish(probe), Some((4, at(31))));
        assert!(!calls.is_open());
        begin(&mut calls, at(32), 6).unwrap();
        begin(&mut calls, at(32), 7).unwrap();
        calls.expire(ShardTime::new(at(62)));
        assert!(calls.is_open());
        let next = calls.epoch().next();
        calls.link_down(next);
        calls.link_up(next);
        assert!(
            begin(&mut calls, at(62), 8).is_ok(),
            "a new link, a new chance"
        );
    }

    #[test]
    fn a_delegate_gets_the_list_again_after_each_notice_that_it_missed() {
        let mut knowledge = Knowledge::default();
        assert!(knowledge.is_due());
        knowledge.begin();
        assert!(!knowledge.is_due());
        knowledge.miss();
        assert!(!knowledge.is_due(), "one list at a time");
        knowledge.end();
        assert!(knowledge.is_due());
        knowledge.begin();
        knowledge.end();
        assert!(!knowledge.is_due());
        knowledge.miss();
        assert!(knowledge.is_due());
    }

    #[test]
    fn the_end_of_a_link_fails_its_calls_and_refuses_new_ones() {
        let mut calls = calls(0, 1);
        begin(&mut calls, now(), 1).unwrap();
        let next = calls.epoch().next();
        calls.knowledge.begin();
        calls.knowledge.end();
        assert_eq!(calls.link_down(next), [1]);
        assert_eq!(calls.knowledge, Knowledge::Incomplete);
        assert_eq!(begin(&mut calls, now(), 2), Err(Refused::Down));
        calls.link_up(next);
        assert_eq!(begin(&mut calls, now(), 3), Ok(1), "ids are not used again");
    }
}
