//! The queues between shards: bounded, lock-free, with a doorbell.
//!
//! A shard collects its parcels for another one in an open batch, and sends the batch at the end of
//! the turn. So a queue slot and a wake-up are paid for each turn, not for each message.
//!
//! **Writers and readers**: every shard may send to every inbox, only its owner receives.
//! **Ordering**: parcels from one shard to another arrive in the order they were put in.
//! **When full**, by batches or by their bytes: the batch stays open and the shard tries again each turn. An open batch takes at most
//! `limits::MESH_PARCELS_MAX` parcels and `limits::LINK_QUEUE_BYTES_MAX` bytes of new work; beyond, forwards
//! and pushes are refused and counted. Answers, replies and news of links are always taken: the bounds of calls and
//! requests in flight bound them. Answers to other servers then wait too, for a short time ([`MeshWait`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::parcel::{Batch, Parcel};
use crate::ids::ShardId;
use crate::limits::{ANSWERS_WAIT_MAX, MESH_BATCHES_MAX, MESH_INBOX_BYTES_MAX, SHARDS_MAX};
use crate::metrics::{Counter, Counters};
use crate::net::bell::Doorbell;

/// The queue that a shard receives from.
#[derive(Debug)]
pub struct Inbox {
    receiver: Receiver<Box<Batch>>,
    /// Memory of the batches that wait.
    bytes: Arc<AtomicUsize>,
    /// The bell that the senders ring.
    pub bell: Arc<Doorbell>,
}

impl Inbox {
    /// Takes the next batch.
    pub fn next(&self) -> Option<Box<Batch>> {
        let batch = self.receiver.try_recv().ok()?;
        self.bytes.fetch_sub(batch.held(), Ordering::Relaxed);
        Some(batch)
    }

    /// Returns the number of batches that wait.
    pub fn waiting(&self) -> usize {
        self.receiver.len()
    }

    /// Returns the memory of the batches that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The queues that a shard sends to, by shard.
#[derive(Debug, Clone)]
pub struct Outlets(Vec<Outlet>);

/// The sending end of an [`Inbox`].
#[derive(Debug, Clone)]
struct Outlet {
    sender: Sender<Box<Batch>>,
    bytes: Arc<AtomicUsize>,
    bell: Arc<Doorbell>,
}

impl Outlet {
    /// Sends a batch, or gives it back. The caller rings.
    fn send(&self, batch: Box<Batch>) -> Result<(), TrySendError<Box<Batch>>> {
        // Before the batch can be taken out.
        let held = batch.held();
        let waiting = self.bytes.fetch_add(held, Ordering::Relaxed);
        let sent = match waiting > 0 && waiting + held > MESH_INBOX_BYTES_MAX {
            true => Err(TrySendError::Full(batch)),
            false => self.sender.try_send(batch),
        };
        if sent.is_err() {
            self.bytes.fetch_sub(held, Ordering::Relaxed);
        }
        sent
    }
}

impl Outlets {
    /// Returns all shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.0.len() as u16).map(ShardId)
    }

    /// Sends one parcel from a thread that is not a shard. Returns false if the inbox is full, or its shard has ended.
    pub fn post(&self, to: ShardId, parcel: Parcel) -> bool {
        let outlet = &self.0[to.index()];
        let mut batch = Box::<Batch>::default();
        batch.parcels.push(parcel);
        let is_sent = outlet.send(batch).is_ok();
        if is_sent {
            outlet.bell.ring();
        }
        is_sent
    }
}

/// Makes the queues of a process with `shards` shards.
pub fn queues(shards: usize) -> (Outlets, Vec<Inbox>) {
    assert!((1..=SHARDS_MAX).contains(&shards));
    let (outlets, inboxes) = (0..shards)
        .map(|_| {
            let (sender, receiver) = crossbeam_channel::bounded(MESH_BATCHES_MAX);
            let (bytes, bell) = (Arc::<AtomicUsize>::default(), Arc::<Doorbell>::default());
            let inbox = Inbox {
                receiver,
                bytes: bytes.clone(),
                bell: bell.clone(),
            };
            let outlet = Outlet {
                sender,
                bytes,
                bell,
            };
            (outlet, inbox)
        })
        .unzip();
    (Outlets(outlets), inboxes)
}

/// Batches a shard keeps for reuse.
const SPARE_BATCHES_MAX: usize = 64;
/// Bytes a spare batch may hold on to.
const SPARE_BYTES_MAX: usize = 256 << 10;

/// The open batches of one shard.
#[derive(Debug)]
pub struct Mesh {
    outlets: Outlets,
    /// Open batch per target.
    open: Vec<Option<Box<Batch>>>,
    // Boxed as they travel.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Batch>>,
}

impl Mesh {
    /// Makes a mesh without open batches.
    pub fn new(outlets: Outlets) -> Self {
        let open = outlets.0.iter().map(|_| None).collect();
        Self {
            outlets,
            open,
            spare: Vec::new(),
        }
    }

    /// Returns the open batch for a shard, full or not, for parcels that must not be refused.
    pub fn batch(&mut self, to: ShardId) -> &mut Batch {
        let spare = &mut self.spare;
        self.open[to.index()].get_or_insert_with(|| spare.pop().unwrap_or_default())
    }

    /// Returns the open batch for a shard; `None` when it is full.
    pub fn batch_for_work(&mut self, to: ShardId) -> Option<&mut Batch> {
        Some(self.batch(to)).filter(|batch| !batch.is_full())
    }

    /// Sends all open batches; true when one waits for room.
    pub fn flush(&mut self, counters: &Counters) -> bool {
        let mut waits = false;
        for (open, outlet) in self.open.iter_mut().zip(&self.outlets.0) {
            let Some(batch) = open.take() else { continue };
            let parcels = batch.parcels.len() as u64;
            match outlet.send(batch) {
                Ok(()) => {
                    hop!();
                    counters.add(Counter::MeshBatches, 1);
                    counters.add(Counter::MeshParcels, parcels);
                    if outlet.bell.ring() {
                        counters.add(Counter::MeshWakes, 1);
                    }
                }
                Err(TrySendError::Full(batch)) => {
                    counters.add(Counter::MeshWaits, 1);
                    *open = Some(batch);
                    waits = true;
                }
                // The other shard has ended: the process is about to.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        waits
    }

    /// Returns true if a batch waits for the next flush, or for room.
    pub fn has_waiting(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// Returns the memory of the batches that wait.
    pub fn open_bytes(&self) -> usize {
        let open = self.open.iter().flatten();
        open.map(|batch| batch.held()).sum()
    }

    /// Frees the spare batches.
    pub fn trim(&mut self) {
        self.spare = Vec::new();
    }

    /// Takes a batch back for reuse.
    pub fn recycle(&mut self, mut batch: Box<Batch>) {
        if self.spare.len() < SPARE_BATCHES_MAX && batch.capacity() <= SPARE_BYTES_MAX {
            batch.clear();
            debug_assert!(batch.is_empty(), "parcels would be sent again");
            self.spare.push(batch);
        }
        debug_assert!(self.spare.len() <= SPARE_BATCHES_MAX);
    }
}

/// A wait for room in the inbox of another shard.
#[derive(Debug, Clone, Copy)]
pub struct MeshWait {
    /// Its beginning by the clock.
    pub since: Instant,
    answers_wait_until: Instant,
}

impl MeshWait {
    /// Begins a wait; `now` is the time of the shard, in which a pause does not count.
    pub fn new(since: Instant, now: Instant) -> Self {
        Self {
            since,
            answers_wait_until: now + ANSWERS_WAIT_MAX,
        }
    }

    /// Returns whether answers to other servers wait too: they must not arrive before the pushes that went ahead of them.
    /// But a shard that hangs may not keep the answers of the others for ever.
    pub fn holds_answers(&self, now: Instant) -> bool {
        now < self.answers_wait_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PeerIndex, Sid};
    use crate::limits::{MESH_PARCELS_MAX, SHARED_BODY_BYTES_MIN};
    use crate::net::clock;
    use crate::peer::Epoch;
    use crate::push::select::{Outgoing, Via};

    #[test]
    fn parcels_arrive_in_order_and_frames_of_one_link_join() {
        let (outlets, inboxes) = queues(2);
        let counters = Counters::default();
        let mut mesh = Mesh::new(outlets);
        let (peer, epoch) = (PeerIndex(0), Epoch(0));
        let batch = mesh.batch_for_work(ShardId(1)).unwrap();
        batch.frames(peer, epoch, |out| out.extend_from_slice(b"ab"));
        batch.frames(peer, epoch, |out| out.extend_from_slice(b"c"));
        batch.answer(peer, 9, b"[]");
        batch.frames(peer, epoch, |out| out.extend_from_slice(b"d"));
        assert!(!mesh.flush(&counters));
        let batch = inboxes[1].next().unwrap();
        assert_eq!((batch.parcels.len(), &batch.bytes[..]), (3, &b"abc[]d"[..]));
        assert!(inboxes[1].next().is_none() && inboxes[0].next().is_none());
    }

    #[test]
    fn a_full_inbox_keeps_the_batch_open_and_loses_nothing() {
        let (outlets, inboxes) = queues(1);
        let counters = Counters::default();
        let mut mesh = Mesh::new(outlets);
        for id in 0..=MESH_BATCHES_MAX as u64 {
            mesh.batch(ShardId(0)).answer(PeerIndex(0), id, b"[]");
            assert_eq!(mesh.flush(&counters), id == MESH_BATCHES_MAX as u64);
        }
        for _ in 0..MESH_PARCELS_MAX {
            mesh.batch(ShardId(0)).answer(PeerIndex(0), 0, b"");
        }
        assert!(
            mesh.batch_for_work(ShardId(0)).is_none(),
            "no new work into a full batch"
        );
        assert!(inboxes[0].next().is_some());
        assert!(!mesh.flush(&counters));
        let received = std::iter::from_fn(|| inboxes[0].next());
        assert_eq!(
            received.map(|batch| batch.parcels.len()).sum::<usize>(),
            MESH_BATCHES_MAX + MESH_PARCELS_MAX
        );
        assert_eq!(counters.get(Counter::MeshWaits), 1);
    }

    #[test]
    fn the_memory_of_a_batch_is_that_of_its_parcels_too() {
        let package = |bytes| Outgoing {
            bytes: vec![0; bytes].into(),
            via: Via::Direct,
        };
        let (small, large) = (package(100), package(SHARED_BODY_BYTES_MIN));
        let mut batch = Batch::default();
        let sid = |slot| Sid::new(ShardId(1), slot, 1);
        for package in [&small, &large] {
            batch.push(package, sid(0));
            batch.push(package, sid(1));
        }
        let parts = [2 * size_of::<Parcel>(), 4 * size_of::<Sid>(), 100];
        assert_eq!(batch.held(), parts.iter().sum::<usize>());
        batch.clear();
        assert_eq!(batch.held(), 0);
        assert!(batch.capacity() >= parts[0] + parts[1]);
    }

    #[test]
    fn answers_to_other_servers_wait_for_a_full_inbox_for_their_time_only() {
        let begin = clock::now();
        let wait = MeshWait::new(begin, begin);
        assert!(wait.holds_answers(begin));
        assert!(wait.holds_answers(begin + ANSWERS_WAIT_MAX * 99 / 100));
        assert!(!wait.holds_answers(begin + ANSWERS_WAIT_MAX));
    }

    #[test]
    fn an_inbox_is_full_by_its_bytes_too_but_takes_one_batch_of_any_size() {
        let (outlets, inboxes) = queues(1);
        let counters = Counters::default();
        let mut mesh = Mesh::new(outlets);
        let mut answer = |id, bytes: usize| {
            let answer = vec![b'x'; bytes];
            mesh.batch(ShardId(0)).answer(PeerIndex(0), id, &answer);
            mesh.flush(&counters)
        };
        assert!(!answer(0, 2 * MESH_INBOX_BYTES_MAX));
        assert!(answer(1, 1) && answer(2, 1), "no room behind a large one");
        let ids = |batch: Box<Batch>| -> Vec<u64> {
            let id = |parcel: &Parcel| match parcel {
                Parcel::Answer { id, .. } => *id,
                _ => panic!("an answer"),
            };
            batch.parcels.iter().map(id).collect()
        };
        assert_eq!(ids(inboxes[0].next().unwrap()), [0]);
        assert!(!answer(3, 1));
        assert_eq!(ids(inboxes[0].next().unwrap()), [1, 2, 3]);
        let tenth = MESH_INBOX_BYTES_MAX / 10 - size_of::<Parcel>();
        let taken = (0..20).take_while(|id| !answer(*id, tenth)).count();
        assert_eq!(taken, 10);
        assert_eq!(inboxes[0].bytes(), 10 * (tenth + size_of::<Parcel>()));
    }
}
