//! Shard to shard: what a parcel costs, and what a wake-up costs.

#![allow(
    clippy::disallowed_methods,
    reason = "threads are started in gateway/; here two of them stand for two shards"
)]

use std::fmt::Debug;
use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tangelo::ids::{PeerIndex, ShardId};
use tangelo::metrics::Counters;
use tangelo::peer::Epoch;
use tangelo::shard::mesh::{Inbox, Mesh, Outlets, queues};
use tangelo::shard::parcel::{Batch, Parcel};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As long as a forward with a small body.
const FRAME: [u8; 320] = [b'x'; 320];
const HERE: ShardId = ShardId(0);
const THERE: ShardId = ShardId(1);
const PEER: PeerIndex = PeerIndex(0);

/// Calls `run` once, holds its result against `expected`, then times it.
fn bench<T: PartialEq + Debug>(
    c: &mut Criterion,
    name: &str,
    elements: usize,
    expected: T,
    mut run: impl FnMut() -> T,
) {
    assert_eq!(run(), expected, "{name}");
    let mut group = c.benchmark_group("mesh");
    group.throughput(Throughput::Elements(elements as u64));
    group.bench_function(name, |b| b.iter(&mut run));
    group.finish();
}

/// Puts frames into the open batch; how many of them it took.
fn put_frames(mesh: &mut Mesh, count: usize) -> usize {
    let put = |_| {
        let batch = mesh.batch_for_work(THERE)?;
        batch.frames(PEER, Epoch(0), |out| {
            out.extend_from_slice(black_box(&FRAME));
        });
        Some(())
    };
    (0..count).map_while(put).count()
}

/// Parcels and bytes of a batch.
fn size(batch: &Batch) -> (usize, usize) {
    (batch.parcels.len(), batch.bytes.len())
}

fn one_thread(c: &mut Criterion) {
    for (name, count) in [
        ("one thread/a batch of 1 frame", 1),
        ("one thread/a batch of 64 frames", 64),
    ] {
        let (outlets, inboxes) = queues(2);
        let (mut mesh, counters) = (Mesh::new(outlets), Counters::default());
        let expected = Some((1, count * FRAME.len()));
        bench(c, name, count, expected, || {
            put_frames(&mut mesh, count);
            mesh.flush(&counters);
            let batch = inboxes[THERE.index()].next()?;
            let size = size(&batch);
            mesh.recycle(batch);
            Some(size)
        });
    }
    let (outlets, inboxes) = queues(2);
    let (mut mesh, counters) = (Mesh::new(outlets), Counters::default());
    let expected = Some((64, 64 * FRAME.len()));
    bench(c, "one thread/a batch of 64 answers", 64, expected, || {
        for id in 0..64 {
            mesh.batch(THERE).answer(PEER, id, black_box(&FRAME));
        }
        mesh.flush(&counters);
        let batch = inboxes[THERE.index()].next()?;
        let size = size(&batch);
        mesh.recycle(batch);
        Some(size)
    });
}

fn doorbell(c: &mut Criterion) {
    let (_, inboxes) = queues(1);
    let bell = &inboxes[0].bell;
    bell.ring();
    bench(c, "doorbell/rung already", 1, false, || {
        black_box(bell).ring()
    });
    bench(c, "doorbell/look, then ring", 1, true, || {
        bell.listen(&Context::from_waker(Waker::noop()));
        black_box(bell).ring()
    });
}

/// Wakes a thread that waits as a shard does.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// One thread's side.
struct Side {
    mesh: Mesh,
    inbox: Inbox,
    counters: Counters,
    waker: Waker,
}

impl Side {
    fn new(outlets: Outlets, inbox: Inbox) -> Self {
        Self {
            mesh: Mesh::new(outlets),
            inbox,
            counters: Counters::default(),
            waker: Arc::new(Unpark(thread::current())).into(),
        }
    }

    /// The next batch; sleeps until it is there.
    fn receive(&self) -> Box<Batch> {
        loop {
            self.inbox.bell.listen(&Context::from_waker(&self.waker));
            if let Some(batch) = self.inbox.next() {
                return batch;
            }
            thread::park();
        }
    }

    fn send(&mut self) {
        while self.mesh.flush(&self.counters) {
            thread::yield_now();
        }
    }

    /// Takes batches until an empty one; each answer in them is answered with the bytes of all
    /// frames so far.
    fn serve(mut self) {
        let mut frames = 0;
        loop {
            let batch = self.receive();
            if batch.parcels.is_empty() {
                return;
            }
            for parcel in &batch.parcels {
                match parcel {
                    Parcel::Frames { bytes, .. } => frames += bytes.len() as u64,
                    Parcel::Answer { peer, .. } => {
                        let seen = std::mem::take(&mut frames);
                        self.mesh.batch(HERE).answer(*peer, seen, b"[]");
                    }
                    other => panic!("nobody sends {other:?}"),
                }
            }
            self.mesh.recycle(batch);
            self.send();
        }
    }

    /// Asks the other side and waits; the bytes of frames that it has seen.
    fn ask(&mut self) -> Option<u64> {
        self.mesh.batch(THERE).answer(PEER, 0, b"[]");
        self.send();
        let batch = self.receive();
        let seen = match batch.parcels[..] {
            [Parcel::Answer { id, .. }] => Some(id),
            _ => None,
        };
        self.mesh.recycle(batch);
        seen
    }
}

fn two_threads(c: &mut Criterion) {
    const BATCHES: usize = 256;
    const FRAMES: usize = 64;
    let (outlets, mut inboxes) = queues(2);
    let (there, here) = (inboxes.pop(), inboxes.pop());
    let (there, here) = there.zip(here).expect("two inboxes");
    let other = outlets.clone();
    // Not scoped: a failed assertion must end the bench, not wait for the other thread.
    let thread = thread::spawn(move || Side::new(other, there).serve());
    let mut side = Side::new(outlets, here);
    bench(c, "two threads/ping-pong, both sleep", 1, Some(0), || {
        side.ask()
    });
    let bytes = BATCHES * FRAMES * FRAME.len();
    let (name, frames) = ("two threads/stream of 64 frames a batch", BATCHES * FRAMES);
    bench(c, name, frames, Some(bytes as u64), || {
        for _ in 0..BATCHES {
            put_frames(&mut side.mesh, FRAMES);
            side.send();
        }
        side.ask()
    });
    side.mesh.batch(THERE);
    side.send();
    assert!(
        thread.join().is_ok(),
        "the other side ends when it is told to"
    );
}

criterion_group! {
    name = mesh;
    config = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = one_thread, doorbell, two_threads
}
criterion_main!(mesh);
