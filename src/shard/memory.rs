//! The ledger of memory: the bytes that clients and servers make this process hold, and the levels at which shards shed
//! load.
//!
//! Each shard publishes its own bytes at each tick and when they grow, as gauges (`memory_…_bytes`). The sum over all shards gives
//! the level of the process. Any shard may raise or lower it, and rings the others.
//!
//! **Counted**: parts of packages and messages that are not complete, TLS sessions, bodies of messages whose handlers or
//! filters run or that wait for the delegate, bytes on their way to clients and servers, batches for other shards, and a flat
//! size for each connection. A body that many clients get counts once. An eighth of all this is added for blocks between those
//! in use.
//! **Absent**: the memory of handlers themselves, and buffers of the kernel.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Core;
use crate::limits::{MEMORY_BETWEEN_BLOCKS, MEMORY_GIVE_BACK_BYTES, SESSION_BYTES};
use crate::metrics::{Counter, Counters};
use crate::net::bell::Doorbell;
use crate::net::clock;
use crate::time::ShardTime;

/// A level of the ledger. Each level does what those below it do, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum MemoryLevel {
    /// Nothing is shed.
    Normal,
    /// New connections are refused.
    RefuseNew,
    /// The largest connections without a finished handshake are closed.
    CloseUnready,
    /// The clients, and the links to servers, with the most waiting bytes are closed.
    CloseSlow,
    /// Messages get code 500; only heartbeats are answered.
    HeartbeatsOnly,
}

/// The levels above [`MemoryLevel::Normal`]: the share of `limits.memory` at which they begin, in percent, the counter of
/// their beginnings, and their effect.
const LEVELS: [(MemoryLevel, u64, Counter, &str); 4] = [
    (
        MemoryLevel::RefuseNew,
        75,
        Counter::MemoryRefusesNew,
        "new connections are refused",
    ),
    (
        MemoryLevel::CloseUnready,
        85,
        Counter::MemoryClosesUnready,
        "the largest connections without a finished handshake are closed",
    ),
    (
        MemoryLevel::CloseSlow,
        92,
        Counter::MemoryClosesSlow,
        "the clients and the links to servers with the most waiting bytes are closed",
    ),
    (
        MemoryLevel::HeartbeatsOnly,
        97,
        Counter::MemoryHeartbeatsOnly,
        "messages get code 500",
    ),
];
/// A level ends this many percent below its beginning.
const LEAVE_BELOW: u64 = 5;
/// Time after which a level above [`MemoryLevel::Normal`] lasts too long: then slow clients are closed at any level, until
/// new connections are taken again. Strangers who hold just so much would else keep everybody out.
const LASTS_TOO_LONG: Duration = Duration::from_secs(5);
/// The share to which connections are closed, in percent: below the end of [`MemoryLevel::CloseUnready`].
const CLOSE_DOWN_TO: u64 = 79;
/// The same where a level lasts too long: below the end of [`MemoryLevel::RefuseNew`].
const CLOSE_DOWN_FURTHER_TO: u64 = 69;

impl MemoryLevel {
    /// Returns the level that follows this one when `held` of `max` bytes are in use.
    fn next(self, held: u64, max: u64) -> Self {
        let percent = held.saturating_mul(100) / max.max(1);
        let is_reached = |(level, begin, ..): &&(Self, u64, Counter, &str)| {
            let stays = if self >= *level { LEAVE_BELOW } else { 0 };
            percent >= begin - stays
        };
        let reached = LEVELS.iter().rev().find(is_reached);
        reached.map_or(Self::Normal, |(level, ..)| *level)
    }

    fn from_u8(level: u8) -> Self {
        let known = LEVELS.iter().find(|(known, ..)| *known as u8 == level);
        known.map_or(Self::Normal, |(known, ..)| *known)
    }
}

/// The ledger's part that all shards share.
#[derive(Debug)]
pub struct ProcessMemory {
    /// `limits.memory`.
    max: AtomicUsize,
    level: AtomicU8,
    /// Bytes of the bodies that several clients get.
    shared_bodies: AtomicUsize,
    /// The bells of all shards.
    bells: Vec<Arc<Doorbell>>,
}

impl ProcessMemory {
    /// Makes an empty ledger.
    pub fn new(max: usize, bells: Vec<Arc<Doorbell>>) -> Self {
        Self {
            max: max.into(),
            level: AtomicU8::new(MemoryLevel::Normal as u8),
            shared_bodies: AtomicUsize::default(),
            bells,
        }
    }

    fn level(&self) -> MemoryLevel {
        MemoryLevel::from_u8(self.level.load(Ordering::Relaxed))
    }

    /// Moves to another level, unless another shard has just done so. Logs and counts it.
    fn change_level(&self, from: MemoryLevel, to: MemoryLevel, held: u64, counters: &Counters) {
        let changed =
            self.level
                .compare_exchange(from as u8, to as u8, Ordering::Relaxed, Ordering::Relaxed);
        if changed.is_err() {
            return;
        }
        let begun = LEVELS
            .iter()
            .filter(|(level, ..)| *level > from && *level <= to);
        for (.., counter, _) in begun {
            counters.add(*counter, 1);
        }
        let (held, max) = (mebibytes(held), mebibytes(self.max() as u64));
        let known = LEVELS.iter().find(|(level, ..)| *level == to);
        let effect = known.map_or("nothing is shed any more", |(.., effect)| effect);
        if to > from {
            tracing::warn!(
                "clients and servers hold {held} of {max} MiB of memory (limits.memory): {effect}"
            );
        } else {
            tracing::info!(
                "clients and servers hold {held} of {max} MiB of memory (limits.memory): {effect}"
            );
        }
        self.bells.iter().for_each(|bell| {
            bell.ring();
        });
    }

    fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

/// A body that several clients get.
struct SharedBody {
    bytes: Vec<u8>,
    process: Arc<ProcessMemory>,
}

impl AsRef<[u8]> for SharedBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for SharedBody {
    fn drop(&mut self) {
        let bytes = self.bytes.capacity();
        self.process
            .shared_bodies
            .fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The ledger of one shard.
#[derive(Debug)]
pub(super) struct Memory {
    process: Arc<ProcessMemory>,
    /// The level, as of the last look.
    level: Cell<MemoryLevel>,
    /// Parts of packages and messages that are not complete.
    input: Cell<usize>,
    /// Bodies of messages whose handlers or filters run.
    bodies: Cell<usize>,
    /// Connections that were closed for their memory, and whose tasks have not ended.
    leaving: Cell<usize>,
    /// Bytes of this shard, without those of the mesh, at which it looks at the level again.
    looks_at: Cell<usize>,
    /// The most bytes of this shard, with shared bodies, since it has given memory back.
    most: Cell<usize>,
    /// The time, by that of the shard, since which the level is above normal.
    short_since: Cell<Option<Instant>>,
    /// The time from which on the shard may give memory back, by the time of the shard.
    gives_back_at: Cell<Option<Instant>>,
    /// The last time that it did so because memory was short, by the clock.
    gave_back: Cell<Instant>,
}

/// A shard looks at the level at each tick, and when it holds this part of `limits.memory` more than at its last look.
const LOOKS: usize = 256;
/// Time without a new maximum after which a shard gives memory back.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(2);
/// Least time between two times that a shard gives memory back while memory is short: the call costs some 100 µs.
const GIVE_BACK_EACH: Duration = Duration::from_millis(10);

impl Memory {
    pub(super) fn new(process: Arc<ProcessMemory>) -> Self {
        Self {
            process,
            level: MemoryLevel::Normal.into(),
            input: Cell::default(),
            bodies: Cell::default(),
            leaving: Cell::default(),
            looks_at: Cell::default(),
            most: Cell::default(),
            short_since: Cell::default(),
            gives_back_at: Cell::default(),
            gave_back: clock::now().into(),
        }
    }

    /// Returns the level, as of the last look.
    #[inline]
    pub(super) fn level(&self) -> MemoryLevel {
        self.level.get()
    }

    /// Returns the level of the process.
    pub(super) fn level_now(&self) -> MemoryLevel {
        self.process.level()
    }

    /// Follows a change of `limits.memory`.
    pub(super) fn set_max(&self, max: usize) {
        self.process.max.store(max, Ordering::Relaxed);
    }

    /// Notes that the part of a package grew or shrank.
    pub(super) fn input_changed(&self, before: usize, now: usize) {
        debug_assert!(self.input.get() + now >= before, "a part is counted twice");
        self.input
            .update(|input| (input + now).saturating_sub(before));
    }

    /// Counts the body of a message whose handler or filters begin.
    pub(super) fn begin_body(&self, bytes: usize) {
        self.bodies.update(|bodies| bodies + bytes);
    }

    /// Counts it no more.
    pub(super) fn end_body(&self, bytes: usize) {
        debug_assert!(self.bodies.get() >= bytes, "a body ends twice");
        self.bodies.update(|bodies| bodies.saturating_sub(bytes));
    }

    /// Notes that a connection is closed for its memory.
    pub(super) fn begin_leaving(&self) {
        self.leaving.update(|leaving| leaving + 1);
    }

    /// Notes that its task has ended.
    pub(super) fn end_leaving(&self) {
        debug_assert!(self.leaving.get() > 0, "a connection leaves twice");
        self.leaving.update(|leaving| leaving.saturating_sub(1));
    }

    /// Returns whether the tasks of such connections still have their memory.
    pub(super) fn has_leaving(&self) -> bool {
        self.leaving.get() > 0
    }

    /// Makes a body that several clients get.
    pub(super) fn share(&self, bytes: Vec<u8>) -> Bytes {
        let process = self.process.clone();
        let held = bytes.capacity();
        process.shared_bodies.fetch_add(held, Ordering::Relaxed);
        Bytes::from_owner(SharedBody { bytes, process })
    }
}

impl Core {
    /// Publishes the bytes that this shard holds.
    pub(super) fn publish_memory(&self) {
        let (memory, counters) = (&self.memory, self.counters());
        let input = memory.input.get() + memory.bodies.get() + self.tls_bytes();
        let output = self.scheduler.borrow().pool.held();
        let mesh = self.inbox.bytes() + self.mesh.borrow().open_bytes();
        counters.set(Counter::MemoryInput, input as u64);
        counters.set(Counter::MemoryOutput, output as u64);
        counters.set(Counter::MemoryMesh, mesh as u64);
        let step = memory.process.max() / LOOKS;
        memory.looks_at.set(input + output + step);
        let held = self.held_with_bodies();
        if held > memory.most.get() {
            memory.most.set(held);
            memory.gives_back_at.set(None);
        }
    }

    /// Returns the bytes of this shard, and those of bodies that several clients get: each shard may have made them, and
    /// another one may free them.
    fn held_with_bodies(&self) -> usize {
        let bodies = self.memory.process.shared_bodies.load(Ordering::Relaxed);
        held_by(self.counters()) as usize + bodies
    }

    /// Returns whether this shard holds so much more than it has published that it should look at the level before the next
    /// tick. Cost: it is asked after each turn, so it leaves out batches of other shards.
    #[inline]
    pub(super) fn memory_has_grown(&self) -> bool {
        let memory = &self.memory;
        let own = memory.input.get() + memory.bodies.get() + self.scheduler.borrow().pool.held();
        own + self.tls_bytes() >= memory.looks_at.get()
    }

    /// Returns the memory of TLS sessions, and of records that are not whole.
    #[inline]
    fn tls_bytes(&self) -> usize {
        self.tls.as_ref().map_or(0, |(buffers, _)| buffers.held())
    }

    /// Publishes the bytes of this shard, looks at those of all shards, and returns the level that follows.
    pub(super) fn look_at_memory(&self) -> MemoryLevel {
        self.publish_memory();
        let (memory, held) = (&self.memory, self.held_by_process());
        let before = memory.process.level();
        let level = before.next(held, memory.process.max() as u64);
        if level != before {
            memory
                .process
                .change_level(before, level, held, self.counters());
        }
        memory.level.set(level);
        if level == MemoryLevel::Normal {
            memory.short_since.set(None);
        } else if memory.short_since.get().is_none() {
            memory.short_since.set(Some(self.time.get().now));
        }
        if level > MemoryLevel::Normal {
            // The buffers of closed connections: their memory should be free for others, and not only in the ledger.
            let now = clock::now();
            if now.saturating_duration_since(memory.gave_back.get()) >= GIVE_BACK_EACH {
                memory.gave_back.set(now);
                give_back();
            }
        }
        level
    }

    /// Returns whether the level has been above normal for too long.
    pub(super) fn memory_is_short_for_long(&self) -> bool {
        let since = self.memory.short_since.get();
        since.is_some_and(|since| self.time.get().now >= since + LASTS_TOO_LONG)
    }

    /// Returns the bytes that this shard should free: its share of those that are too many.
    pub(super) fn memory_to_free(&self) -> usize {
        let own = held_by(self.counters());
        let held = self.held_by_process();
        let goal = match self.memory_is_short_for_long() {
            true => CLOSE_DOWN_FURTHER_TO,
            false => CLOSE_DOWN_TO,
        };
        let goal = self.memory.process.max() as u64 / 100 * goal;
        let excess = held.saturating_sub(goal);
        (u128::from(excess) * u128::from(own) / u128::from(held.max(1))) as usize
    }

    fn held_by_process(&self) -> u64 {
        let shards: u64 = self.counters[..self.shards].iter().map(held_by).sum();
        let bodies = &self.memory.process.shared_bodies;
        let held = shards + bodies.load(Ordering::Relaxed) as u64;
        held + held / MEMORY_BETWEEN_BLOCKS
    }

    /// Gives memory that this shard no longer needs back to the kernel, some time after a burst.
    pub(super) fn give_memory_back(&self, time: ShardTime) {
        let memory = &self.memory;
        let has_memory = self.has_memory_to_give_back();
        self.scheduler.borrow_mut().pool.look_again();
        if !has_memory {
            return memory.gives_back_at.set(None);
        }
        let Some(at) = memory.gives_back_at.get() else {
            return memory.gives_back_at.set(Some(time.now + GIVE_BACK_AFTER));
        };
        if time.now >= at {
            memory.gives_back_at.set(None);
            memory.most.set(self.held_with_bodies());
            self.scheduler.borrow_mut().pool.trim();
            self.mesh.borrow_mut().trim();
            give_back();
        }
    }

    /// Returns whether the shard once held much more than it has needed since the last tick.
    fn has_memory_to_give_back(&self) -> bool {
        let needed = self
            .held_with_bodies()
            .saturating_sub(self.scheduler.borrow().pool.idle_bytes());
        self.memory.most.get() >= needed + MEMORY_GIVE_BACK_BYTES
    }

    /// Returns true while the level is not normal, there is memory to give back, or other shards may soon free some of this
    /// shard's.
    pub(super) fn memory_needs_ticks(&self) -> bool {
        let bodies = self.memory.process.shared_bodies.load(Ordering::Relaxed);
        self.memory.level() > MemoryLevel::Normal
            || self.has_memory_to_give_back()
            || bodies >= MEMORY_GIVE_BACK_BYTES
    }
}

/// Returns the bytes that a shard holds, as it has published them.
fn held_by(counters: &Counters) -> u64 {
    let published = [
        Counter::MemoryInput,
        Counter::MemoryOutput,
        Counter::MemoryMesh,
    ];
    let bytes: u64 = published.iter().map(|gauge| counters.get(*gauge)).sum();
    bytes + counters.get(Counter::Connections) * SESSION_BYTES as u64
}

/// Returns the free memory of this thread to the kernel. mimalloc does so only when the thread allocates again, and a
/// quiet shard does not. Where the program has another allocator, this has no effect.
#[allow(unsafe_code)]
fn give_back() {
    // The symbol comes with this crate.
    use mimalloc as _;
    unsafe extern "C" {
        fn mi_collect(force: bool);
    }
    // SAFETY: `void mi_collect(bool force)` of mimalloc has no preconditions. It works on the heap of the calling thread
    // and frees only what no one uses.
    unsafe { mi_collect(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_begins_at_its_share_and_ends_five_percent_below() {
        let mut level = MemoryLevel::Normal;
        let mut at = |percent: u64| {
            level = level.next(percent * 10, 1000);
            level
        };
        use MemoryLevel::*;
        for (percent, expected) in [
            (74, Normal),
            (75, RefuseNew),
            (70, RefuseNew),
            (69, Normal),
            (97, HeartbeatsOnly),
            (92, HeartbeatsOnly),
            (91, CloseSlow),
            (87, CloseSlow),
            (86, CloseUnready),
            (80, CloseUnready),
            (79, RefuseNew),
            (1000, HeartbeatsOnly),
            (0, Normal),
        ] {
            assert_eq!(at(percent), expected, "{percent} %");
        }
    }

    #[test]
    fn a_shared_body_counts_once_until_its_last_owner_is_gone() {
        let process = Arc::new(ProcessMemory::new(1 << 20, Vec::new()));
        let memory = Memory::new(process.clone());
        let count = || process.shared_bodies.load(Ordering::Relaxed);
        let body = memory.share(vec![1; 1000]);
        let (second, third) = (body.clone(), body.slice(10..));
        assert_eq!(count(), 1000);
        drop((body, second));
        assert_eq!((count(), third.len()), (1000, 990));
        drop(third);
        assert_eq!(count(), 0);
    }
}
