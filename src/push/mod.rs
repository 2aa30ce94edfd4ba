//! The push schedulers: the outgoing bytes of each session, and the time when they are written.
//!
//! A package for a session goes into its [`Outbox`]. A direct scheduler turns it into wire bytes at
//! once, which leave at the end of the turn. A buffer scheduler collects packages and turns them into
//! wire bytes once per interval. In both cases one write takes all wire bytes. [`select`] chooses the
//! scheduler of a package. A package for many sessions goes to them part by part ([`fanout`]).
//!
//! **Invariants**: an empty outbox holds no buffer; packages of one scheduler leave in order of arrival. As in the
//! reference, packages of two schedulers have no order.
//!
//! **Absent**: sockets; the receivers of a push (`shard/clients/fanout.rs`).
//!
//! **Where to start reading**: [`Outbox`].

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use bytes::{Buf as _, Bytes};

use crate::ids::Sid;
use crate::limits::{PUSH_SCHEDULERS_MAX, READ_BUFFER_BYTES, SHARED_BODY_BYTES_MIN};
use crate::wire::websocket::{self, Opcode};

pub mod fanout;
pub mod select;

use fanout::FanOuts;

/// The framing of packages on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// Raw TCP: packages without further framing.
    #[default]
    Raw,
    /// WebSocket: packages in binary messages.
    WebSocket,
}

/// The outgoing bytes of one socket.
///
/// Bound: the owner checks [`Outbox::bytes`] against its limit before it appends.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Option<Box<Queue>>,
    /// Set once the transport is known.
    pub framing: Framing,
    /// True if the session is in the dirty list.
    dirty: bool,
    /// One bit per buffer scheduler: set if the session is in its collecting list.
    collecting: u8,
    /// True after a partial write; a task waits until the socket takes more.
    pub blocked: bool,
}

// Each session holds one.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Outbox>() == 16);

#[derive(Debug, Default)]
struct Queue {
    /// Wire bytes. The first `at` of them are written.
    wire: Vec<u8>,
    at: usize,
    /// Bodies that are not copied, each with the index in `wire` that it precedes.
    shared: VecDeque<(usize, Bytes)>,
    shared_bytes: usize,
    /// The shared bodies are raw bytes that were set aside, which belong to this queue alone.
    has_sealed: bool,
    /// Packages that wait for the interval of a buffer scheduler, by its index.
    collected: Vec<Vec<u8>>,
    /// Bytes of all collected packages.
    collected_bytes: usize,
    /// Memory of `collected`.
    collected_capacity: usize,
    /// Memory of this queue, as the pool has counted it.
    held: usize,
    /// The last time when a socket that is full took bytes.
    progress: Option<Instant>,
}

const _: () = assert!(PUSH_SCHEDULERS_MAX <= u8::BITS as usize);

impl Queue {
    fn wire_bytes(&self) -> usize {
        self.wire.len() - self.at + self.shared_bytes
    }

    /// Turns the packages of one buffer scheduler into wire bytes: one WebSocket message for all.
    fn release(&mut self, framing: Framing, buffer: usize) {
        let Some(collected) = self.collected.get_mut(buffer) else {
            return;
        };
        if collected.is_empty() {
            return;
        }
        self.collected_bytes -= collected.len();
        if framing == Framing::WebSocket {
            websocket::header(Opcode::Binary, collected.len()).write(&mut self.wire);
        }
        if self.wire.is_empty() && self.shared.is_empty() {
            self.collected_capacity -= collected.capacity();
            std::mem::swap(&mut self.wire, collected);
            self.collected_capacity += collected.capacity();
        } else {
            self.wire.append(collected);
        }
    }

    #[cold]
    fn seal(&mut self) {
        debug_assert!(
            self.shared.iter().all(|(before, _)| *before == 0),
            "a body stands among raw bytes"
        );
        let mut sealed = Bytes::from(std::mem::take(&mut self.wire));
        sealed.advance(std::mem::take(&mut self.at));
        self.shared_bytes += sealed.len();
        self.shared.push_back((0, sealed));
        self.has_sealed = true;
    }

    /// Drops the collected packages and keeps their memory. Out of line for the same reason as [`free`].
    #[cold]
    fn drop_collected(&mut self) {
        self.collected.iter_mut().for_each(Vec::clear);
        self.collected_bytes = 0;
    }
}

/// The unused queues of a shard, for its outboxes.
#[derive(Debug, Default)]
pub struct QueuePool {
    /// Memory of all queues, in use and unused.
    held: usize,
    // Boxed like in an outbox, so that a queue moves as one pointer.
    #[allow(clippy::vec_box)]
    free: Vec<Box<Queue>>,
    /// Memory of the unused queues.
    unused: usize,
    /// The least of it since the last look.
    unused_least: usize,
}

/// Raw bytes that are set aside together.
const SEALED_BYTES_MIN: usize = 1 << 20;
/// Queues that the pool keeps; more are freed.
const POOL_QUEUES_MAX: usize = 1024;

impl QueuePool {
    fn take(&mut self) -> Box<Queue> {
        let queue = self.free.pop().unwrap_or_default();
        self.unused -= queue.held;
        self.unused_least = self.unused_least.min(self.unused);
        debug_assert_eq!((queue.wire_bytes(), queue.collected_bytes), (0, 0));
        queue
    }

    /// Returns the memory of all queues, in use and unused, without shared bodies.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Returns the memory of queues that nobody has needed since the last look.
    pub fn idle_bytes(&self) -> usize {
        self.unused_least
    }

    /// Begins another look.
    pub fn look_again(&mut self) {
        self.unused_least = self.unused;
    }

    /// Frees the unused queues.
    pub fn trim(&mut self) {
        self.free = Vec::new();
        self.held -= std::mem::take(&mut self.unused);
        self.unused_least = 0;
    }

    /// Counts the memory of a queue anew, if it has changed.
    #[inline]
    fn count(&mut self, queue: &mut Queue) {
        let bodies = queue.shared.capacity() * size_of::<(usize, Bytes)>();
        let mut now = queue.wire.capacity() + queue.collected_capacity + bodies;
        if queue.has_sealed {
            now += queue.shared_bytes;
        }
        if now != queue.held {
            self.held = self.held + now - std::mem::replace(&mut queue.held, now);
        }
    }

    fn give(&mut self, mut queue: Box<Queue>) {
        debug_assert!(queue.shared.is_empty(), "bodies would stay in the pool");
        queue.wire.clear();
        queue.at = 0;
        queue.progress = None;
        queue.has_sealed = false;
        if !queue.collected.is_empty() {
            queue.drop_collected();
        }
        self.count(&mut queue);
        // The memory of a burst is not kept.
        if queue.held <= READ_BUFFER_BYTES && self.free.len() < POOL_QUEUES_MAX {
            self.unused += queue.held;
            self.free.push(queue);
        } else {
            self.held -= queue.held;
            free(queue);
        }
        debug_assert!(self.free.len() <= POOL_QUEUES_MAX);
    }
}

/// Out of line: its loop over buffers would cost registers in callers that free no queue.
#[cold]
fn free(queue: Box<Queue>) {
    drop(queue);
}

impl Outbox {
    /// Returns the number of waiting bytes.
    pub fn bytes(&self) -> usize {
        self.queue
            .as_ref()
            .map_or(0, |queue| queue.wire_bytes() + queue.collected_bytes)
    }

    /// Notes that a socket that is full took bytes at `now`.
    pub fn note_progress(&mut self, now: Instant) {
        if let Some(queue) = &mut self.queue {
            queue.progress = Some(now);
        }
    }

    /// Returns when a socket that is full last took bytes.
    pub fn progress(&self) -> Option<Instant> {
        let queue = self.queue.as_ref().filter(|_| self.blocked)?;
        queue.progress
    }

    /// Returns true if there are wire bytes to write.
    pub fn has_wire_bytes(&self) -> bool {
        self.queue
            .as_ref()
            .is_some_and(|queue| queue.wire_bytes() > 0)
    }

    /// Appends bytes that need no framing: an HTTP answer, a WebSocket control frame, RPC frames.
    #[inline]
    pub fn raw(&mut self, pool: &mut QueuePool) -> &mut Vec<u8> {
        let queue = self.queue.get_or_insert_with(|| pool.take());
        queue.compact();
        if self.blocked {
            // No write counts it.
            pool.count(queue);
        }
        &mut queue.wire
    }

    /// Appends one package of `bytes` bytes, written by `write`, to be flushed this turn.
    #[inline]
    pub fn package(
        &mut self,
        pool: &mut QueuePool,
        bytes: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        hop!();
        let framing = self.framing;
        let wire = self.raw(pool);
        if framing == Framing::WebSocket {
            websocket::header(Opcode::Binary, bytes).write(wire);
        }
        let start = wire.len();
        write(wire);
        debug_assert_eq!(wire.len() - start, bytes);
        if bytes >= SHARED_BODY_BYTES_MIN
            && let Some(queue) = &mut self.queue
        {
            // One turn may answer many clients. The memory of small packages is counted when they are written.
            pool.count(queue);
        }
        self.check_invariants();
    }

    /// Appends a package of several outboxes. A large one is shared, not copied.
    pub fn shared(&mut self, pool: &mut QueuePool, package: &Bytes) {
        if package.len() < SHARED_BODY_BYTES_MIN {
            return self.package(pool, package.len(), |out| out.extend_from_slice(package));
        }
        let framing = self.framing;
        let wire = self.raw(pool);
        if framing == Framing::WebSocket {
            websocket::header(Opcode::Binary, package.len()).write(wire);
        }
        let at = wire.len();
        let queue = self.queue.get_or_insert_with(|| pool.take());
        queue.shared.push_back((at, package.clone()));
        queue.shared_bytes += package.len();
        self.check_invariants();
    }

    /// Sets many raw bytes aside. The buffer of further ones then does not grow by copies of all that wait, which took three
    /// times the memory of a slow reader.
    #[inline]
    pub fn seal(&mut self) {
        if let Some(queue) = &mut self.queue
            && queue.wire.len() >= SEALED_BYTES_MIN
        {
            queue.seal();
        }
        self.check_invariants();
    }

    /// Adds a package to those that wait for a buffer scheduler.
    pub fn collect(&mut self, pool: &mut QueuePool, buffer: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let buffer = usize::from(buffer);
        debug_assert!(buffer < PUSH_SCHEDULERS_MAX);
        let queue = self.queue.get_or_insert_with(|| pool.take());
        if queue.collected.len() <= buffer {
            queue.collected.resize_with(buffer + 1, Vec::new);
        }
        let collected = &mut queue.collected[buffer];
        let (bytes, capacity) = (collected.len(), collected.capacity());
        write(collected);
        queue.collected_bytes += collected.len() - bytes;
        queue.collected_capacity += collected.capacity() - capacity;
        pool.count(queue);
        self.check_invariants();
    }

    /// Turns the packages of one buffer scheduler into wire bytes: one WebSocket message for all.
    pub fn release(&mut self, buffer: u8) {
        if let Some(queue) = &mut self.queue {
            queue.release(self.framing, buffer.into());
        }
        self.check_invariants();
    }

    /// Turns all collected packages into wire bytes, before their intervals end.
    pub fn release_all(&mut self) {
        if let Some(queue) = &mut self.queue {
            for buffer in 0..queue.collected.len() {
                queue.release(self.framing, buffer);
            }
            debug_assert_eq!(queue.collected_bytes, 0);
        }
        self.check_invariants();
    }

    /// Drops the packages that have not been released: a closing session loses them (C73).
    pub fn drop_collected(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.drop_collected();
        }
        self.check_invariants();
    }

    /// Fills `slices` with the wire bytes from the front. Returns the number of slices used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let Some(queue) = &self.queue else { return 0 };
        let mut used = 0;
        let mut at = queue.at;
        for (before, body) in &queue.shared {
            if used + 2 >= slices.len() {
                return used;
            }
            if *before > at {
                slices[used] = IoSlice::new(&queue.wire[at..*before]);
                used += 1;
                at = *before;
            }
            slices[used] = IoSlice::new(body);
            used += 1;
        }
        if at < queue.wire.len() && used < slices.len() {
            slices[used] = IoSlice::new(&queue.wire[at..]);
            used += 1;
        }
        used
    }

    /// Removes `written` bytes from the front. Returns true if no wire bytes are left.
    pub fn advance(&mut self, pool: &mut QueuePool, mut written: usize) -> bool {
        let Some(queue) = &mut self.queue else {
            return true;
        };
        while written > 0 {
            let until = queue
                .shared
                .front()
                .map_or(queue.wire.len(), |(before, _)| *before);
            let plain = written.min(until - queue.at);
            queue.at += plain;
            written -= plain;
            let Some((_, body)) = queue.shared.front_mut() else {
                break;
            };
            let part = written.min(body.len());
            body.advance(part);
            queue.shared_bytes -= part;
            written -= part;
            if !body.is_empty() {
                break;
            }
            queue.shared.pop_front();
        }
        debug_assert_eq!(written, 0);
        if queue.wire_bytes() > 0 {
            pool.count(queue);
            self.check_invariants();
            return false;
        }
        debug_assert!(queue.shared.is_empty(), "a body without bytes waits");
        queue.wire.clear();
        queue.at = 0;
        if queue.collected_bytes == 0
            && let Some(queue) = self.queue.take()
        {
            pool.give(queue);
        }
        self.check_invariants();
        true
    }

    /// Counts the memory of bytes that no write follows at once.
    pub fn count(&mut self, pool: &mut QueuePool) {
        if let Some(queue) = &mut self.queue {
            pool.count(queue);
        }
    }

    /// Drops all bytes and returns the queue to the pool.
    pub fn clear(&mut self, pool: &mut QueuePool) {
        if let Some(mut queue) = self.queue.take() {
            queue.shared.clear();
            queue.shared_bytes = 0;
            pool.give(queue);
        }
        debug_assert_eq!(self.bytes(), 0);
    }

    fn check_invariants(&self) {
        #[cfg(debug_assertions)]
        if let Some(queue) = &self.queue {
            queue.check_invariants();
        }
    }
}

impl Queue {
    #[cfg(debug_assertions)]
    fn check_invariants(&self) {
        assert!(
            self.at <= self.wire.len(),
            "more bytes are written than there were"
        );
        let places = self.shared.iter().map(|(before, _)| *before);
        let places = std::iter::once(self.at).chain(places);
        assert!(
            places.chain([self.wire.len()]).is_sorted(),
            "a body stands outside the wire bytes, or out of order"
        );
        let shared: usize = self.shared.iter().map(|(_, body)| body.len()).sum();
        assert_eq!(shared, self.shared_bytes);
        let collected: usize = self.collected.iter().map(Vec::len).sum();
        assert_eq!(collected, self.collected_bytes);
        let capacity: usize = self.collected.iter().map(Vec::capacity).sum();
        assert_eq!(capacity, self.collected_capacity);
        assert!(self.collected.len() <= PUSH_SCHEDULERS_MAX);
    }

    /// Moves unwritten bytes to the front once the written ones are the larger part.
    fn compact(&mut self) {
        if self.at > READ_BUFFER_BYTES && self.at > self.wire.len() / 2 {
            self.wire.drain(..self.at);
            for (before, _) in &mut self.shared {
                *before -= self.at;
            }
            self.at = 0;
        }
    }
}

/// The sessions to flush at the end of the turn, or with the next interval.
#[derive(Debug, Default)]
pub struct FlushSchedule {
    /// Queues for outboxes.
    pub pool: QueuePool,
    dirty: Vec<Sid>,
    /// Packages on their way to many sessions.
    pub fan_outs: FanOuts,
    /// Sessions with collected packages, by the index of the buffer scheduler.
    collecting: Box<[Vec<Sid>; PUSH_SCHEDULERS_MAX]>,
}

impl FlushSchedule {
    /// Adds a session with wire bytes to the dirty list. Returns true for the first one of this turn.
    pub fn mark(&mut self, sid: Sid, outbox: &mut Outbox) -> bool {
        if outbox.dirty || outbox.blocked {
            return false;
        }
        outbox.dirty = true;
        self.dirty.push(sid);
        self.dirty.len() == 1
    }

    /// Adds a session to the collecting list of a buffer scheduler.
    pub fn mark_collecting(&mut self, sid: Sid, outbox: &mut Outbox, buffer: u8) {
        if outbox.collecting & 1 << buffer == 0 {
            outbox.collecting |= 1 << buffer;
            self.collecting[usize::from(buffer)].push(sid);
        }
    }

    /// Moves the sessions to flush into `into`, in the order in which they became dirty.
    pub fn take_dirty(&mut self, into: &mut VecDeque<Sid>) {
        into.extend(self.dirty.drain(..));
    }

    /// Moves the members of fan-outs to flush to the front of `into`, which the others leave first.
    pub fn take_members(&mut self, into: &mut VecDeque<Sid>) {
        self.dirty.drain(..).for_each(|sid| into.push_front(sid));
    }

    /// Takes the collecting list of a buffer scheduler.
    pub fn take_collecting(&mut self, buffer: u8) -> Vec<Sid> {
        std::mem::take(&mut self.collecting[usize::from(buffer)])
    }
}

impl Outbox {
    /// Notes that the session has left the dirty list.
    pub fn unmark(&mut self) {
        self.dirty = false;
    }

    /// Notes that the session has left the collecting list of a buffer scheduler.
    pub fn unmark_collecting(&mut self, buffer: u8) {
        self.collecting &= !(1 << buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes all bytes, `step` bytes at a time.
    fn drain(outbox: &mut Outbox, pool: &mut QueuePool, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let mut slices = [IoSlice::new(&[]); 4];
            let used = outbox.slices(&mut slices);
            let flat: Vec<u8> = slices[..used]
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect();
            if flat.is_empty() {
                return out;
            }
            let part = step.min(flat.len());
            out.extend_from_slice(&flat[..part]);
            outbox.advance(pool, part);
        }
    }

    #[test]
    fn many_raw_bytes_are_set_aside_and_leave_in_order() {
        let (mut outbox, mut pool) = (Outbox::default(), QueuePool::default());
        let mut expected = Vec::new();
        let mut written = Vec::new();
        for round in 0..40_u8 {
            outbox
                .raw(&mut pool)
                .extend(std::iter::repeat_n(round, 300_000));
            expected.extend(std::iter::repeat_n(round, 300_000));
            outbox.seal();
            let queue = outbox.queue.as_ref().unwrap();
            assert!(queue.wire.len() < SEALED_BYTES_MIN);
            let mut slices = [IoSlice::new(&[]); 3];
            let used = outbox.slices(&mut slices);
            let take = slices[..used][0].len().min(100_000);
            written.extend_from_slice(&slices[0][..take]);
            assert!(!outbox.advance(&mut pool, take));
        }
        assert_eq!(outbox.bytes(), expected.len() - written.len());
        while outbox.has_wire_bytes() {
            let mut slices = [IoSlice::new(&[]); 16];
            let used = outbox.slices(&mut slices);
            let before = written.len();
            slices[..used]
                .iter()
                .for_each(|slice| written.extend_from_slice(slice));
            let advanced = written.len() - before;
            outbox.advance(&mut pool, advanced);
        }
        assert!(written == expected, "the bytes are others, or out of order");
    }

    #[test]
    fn shared_and_copied_packages_leave_in_order_whatever_the_socket_takes() {
        let big = Bytes::from(vec![b'B'; SHARED_BODY_BYTES_MIN]);
        for step in [1, 2, 3, 7, 1000, 1_000_000] {
            let mut pool = QueuePool::default();
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for round in 0..5u8 {
                outbox.package(&mut pool, 3, |out| out.extend_from_slice(&[round; 3]));
                expected.extend_from_slice(&[round; 3]);
                outbox.shared(&mut pool, &big);
                expected.extend_from_slice(&big);
            }
            outbox.shared(&mut pool, &Bytes::from_static(b"small"));
            expected.extend_from_slice(b"small");
            assert_eq!(outbox.bytes(), expected.len());
            assert_eq!(drain(&mut outbox, &mut pool, step), expected, "step {step}");
            assert_eq!((outbox.bytes(), outbox.queue.is_none()), (0, true));
        }
    }

    #[test]
    fn websocket_has_one_message_per_package_or_one_for_all_collected() {
        let mut pool = QueuePool::default();
        let mut outbox = Outbox {
            framing: Framing::WebSocket,
            ..Outbox::default()
        };
        outbox.package(&mut pool, 2, |out| out.extend_from_slice(b"ab"));
        outbox.package(&mut pool, 1, |out| out.push(b'c'));
        assert_eq!(drain(&mut outbox, &mut pool, 100), b"\x82\x02ab\x82\x01c");
        outbox.collect(&mut pool, 0, |out| out.extend_from_slice(b"ab"));
        outbox.collect(&mut pool, 0, |out| out.push(b'c'));
        assert!(!outbox.has_wire_bytes());
        outbox.release(0);
        assert_eq!(drain(&mut outbox, &mut pool, 100), b"\x82\x03abc");
    }

    #[test]
    fn each_buffer_scheduler_releases_its_own() {
        let mut pool = QueuePool::default();
        let mut outbox = Outbox::default();
        for (buffer, byte) in [(2, b'x'), (0, b'a'), (2, b'y'), (0, b'b'), (1, b'-')] {
            outbox.collect(&mut pool, buffer, |out| out.push(byte));
        }
        outbox.package(&mut pool, 1, |out| out.push(b'!'));
        assert_eq!(outbox.bytes(), 6, "the bound counts all");
        assert_eq!(drain(&mut outbox, &mut pool, 100), b"!");
        outbox.release(2);
        outbox.release(5);
        assert_eq!(outbox.bytes(), 5);
        assert_eq!(drain(&mut outbox, &mut pool, 100), b"xy");
        assert!(outbox.queue.is_some(), "two schedulers hold something");
        outbox.release_all();
        assert_eq!(drain(&mut outbox, &mut pool, 100), b"ab-");
        assert_eq!((outbox.bytes(), outbox.queue.is_none()), (0, true));
        outbox.collect(&mut pool, 1, |out| out.push(b'z'));
        outbox.drop_collected();
        outbox.release_all();
        assert_eq!((outbox.bytes(), outbox.has_wire_bytes()), (0, false));
    }

    #[test]
    fn a_pool_knows_the_memory_of_all_queues() {
        let mut pool = QueuePool::default();
        let mut outboxes = [Outbox::default(), Outbox::default(), Outbox::default()];
        outboxes[0].package(&mut pool, 9, |out| out.extend_from_slice(&[1; 9]));
        outboxes[1].collect(&mut pool, 1, |out| out.extend_from_slice(&[2; 5000]));
        outboxes[2].package(&mut pool, 100_000, |out| {
            out.extend_from_slice(&[3; 100_000])
        });
        outboxes[1].release(1);
        for outbox in &mut outboxes {
            outbox.advance(&mut pool, 1);
        }
        let held = pool.held();
        assert!((105_000..240_000).contains(&held), "{held}");
        for outbox in &mut outboxes {
            drain(outbox, &mut pool, 7);
        }
        let held = pool.held();
        assert!(
            (5000..20_000).contains(&held),
            "the large one is freed: {held}"
        );
        pool.trim();
        assert_eq!(pool.held(), 0);
    }

    #[test]
    fn a_pool_gives_out_empty_queues() {
        let mut pool = QueuePool::default();
        let mut outbox = Outbox::default();
        outbox.collect(&mut pool, 1, |out| out.extend_from_slice(b"old"));
        outbox.clear(&mut pool);
        outbox.collect(&mut pool, 0, |out| out.extend_from_slice(b"new"));
        assert_eq!(outbox.bytes(), 3);
        outbox.release_all();
        assert_eq!(drain(&mut outbox, &mut pool, 100), b"new");
    }

    #[test]
    fn a_session_is_marked_once_an_interval_for_each_buffer_scheduler() {
        let sid = Sid::new(crate::ids::ShardId(0), 0, 1);
        let mut scheduler = FlushSchedule::default();
        let mut outbox = Outbox::default();
        for buffer in [0, 3, 0, 3, 3] {
            scheduler.mark_collecting(sid, &mut outbox, buffer);
        }
        assert_eq!(scheduler.take_collecting(3), [sid]);
        outbox.unmark_collecting(3);
        scheduler.mark_collecting(sid, &mut outbox, 0);
        scheduler.mark_collecting(sid, &mut outbox, 3);
        assert_eq!(scheduler.take_collecting(0), [sid]);
        assert_eq!(scheduler.take_collecting(3), [sid]);
        assert_eq!(scheduler.take_collecting(1), []);
    }

    #[test]
    fn a_session_is_marked_once_a_turn() {
        let sid = Sid::new(crate::ids::ShardId(0), 0, 1);
        let mut scheduler = FlushSchedule::default();
        let mut outbox = Outbox::default();
        assert!(scheduler.mark(sid, &mut outbox));
        assert!(!scheduler.mark(sid, &mut outbox));
        let mut taken = VecDeque::new();
        scheduler.take_dirty(&mut taken);
        outbox.unmark();
        assert_eq!(taken, [sid]);
        assert!(scheduler.mark(sid, &mut outbox));
    }
}
