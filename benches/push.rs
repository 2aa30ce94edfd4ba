//! The push scheduler: from a package to bytes that a socket would take.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::hint::black_box;
use std::io::IoSlice;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tangelo::ids::{ShardId, Sid};
use tangelo::limits::WRITE_SLICES_MAX;
use tangelo::push::{FlushSchedule, Framing, Outbox, QueuePool};
use tangelo::wire::message::{response_bytes, write_response};
use tangelo::wire::websocket::{Opcode, header};

#[cfg(feature = "runtime")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SESSIONS: usize = 1000;
const RESPONSES: usize = 16;
/// Packages a session collects in one interval of the buffer scheduler.
const COLLECTED: usize = 4;

/// Calls `run` once, holds its result against `expected`, then times it.
fn bench<T: PartialEq + Debug>(
    c: &mut Criterion,
    name: &str,
    elements: usize,
    expected: T,
    mut run: impl FnMut() -> T,
) {
    assert_eq!(run(), expected, "{name}");
    let mut group = c.benchmark_group("push");
    group.throughput(Throughput::Elements(elements as u64));
    group.bench_function(name, |b| b.iter(&mut run));
    group.finish();
}

fn outbox(framing: Framing) -> Outbox {
    let mut outbox = Outbox::default();
    outbox.framing = framing;
    outbox
}

/// Bytes in front of a package.
fn frame_bytes(framing: Framing, package_bytes: usize) -> usize {
    match framing {
        Framing::Raw => 0,
        Framing::WebSocket => header(Opcode::Binary, package_bytes).as_slice().len(),
    }
}

/// Writes all to a socket that takes everything, as `shard/clients/connection.rs` does; returns the bytes.
fn drain(outbox: &mut Outbox, pool: &mut QueuePool) -> usize {
    let mut total = 0;
    while outbox.has_wire_bytes() {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
        let used = outbox.slices(&mut slices);
        let written = black_box(&slices[..used])
            .iter()
            .map(|slice| slice.len())
            .sum();
        outbox.advance(pool, written);
        total += written;
    }
    total
}

fn responses(c: &mut Criterion) {
    let body = [b'x'; 64];
    let bytes = response_bytes(300, body.len());
    for (name, framing) in [
        ("16 responses to one session/raw", Framing::Raw),
        ("16 responses to one session/WebSocket", Framing::WebSocket),
    ] {
        let mut pool = QueuePool::default();
        let mut outbox = outbox(framing);
        let expected = RESPONSES * (frame_bytes(framing, bytes) + bytes);
        bench(c, name, RESPONSES, expected, || {
            for _ in 0..RESPONSES {
                let body = black_box(&body);
                outbox.package(&mut pool, bytes, |out| write_response(out, 300, body));
            }
            drain(&mut outbox, &mut pool)
        });
    }
}

/// The sessions of a shard, as far as pushing is concerned.
struct Sessions {
    sids: Vec<Sid>,
    outboxes: Vec<Outbox>,
    scheduler: FlushSchedule,
    dirty: VecDeque<Sid>,
}

impl Sessions {
    fn new(framing: Framing) -> Self {
        let sid = |slot| Sid::new(ShardId(0), slot as u32, 1);
        Self {
            sids: (0..SESSIONS).map(sid).collect(),
            outboxes: (0..SESSIONS).map(|_| outbox(framing)).collect(),
            scheduler: FlushSchedule::default(),
            dirty: VecDeque::new(),
        }
    }

    fn push(&mut self, package: &Bytes) {
        for (sid, outbox) in self.sids.iter().zip(&mut self.outboxes) {
            outbox.shared(&mut self.scheduler.pool, package);
            self.scheduler.mark(*sid, outbox);
        }
    }

    fn collect(&mut self, package: &Bytes) {
        for (sid, outbox) in self.sids.iter().zip(&mut self.outboxes) {
            let write = |out: &mut Vec<u8>| out.extend_from_slice(package);
            outbox.collect(&mut self.scheduler.pool, 0, write);
            self.scheduler.mark_collecting(*sid, outbox, 0);
        }
    }

    fn release(&mut self) {
        for sid in self.scheduler.take_collecting(0) {
            let outbox = &mut self.outboxes[sid.slot()];
            outbox.unmark_collecting(0);
            outbox.release(0);
            self.scheduler.mark(sid, outbox);
        }
    }

    fn flush(&mut self) -> usize {
        self.scheduler.take_dirty(&mut self.dirty);
        let mut total = 0;
        while let Some(sid) = self.dirty.pop_front() {
            let outbox = &mut self.outboxes[sid.slot()];
            outbox.unmark();
            total += drain(outbox, &mut self.scheduler.pool);
        }
        total
    }
}

fn fan_out(c: &mut Criterion) {
    for (name, framing, bytes) in [
        ("fan-out to 1000/100 bytes, raw", Framing::Raw, 100),
        (
            "fan-out to 1000/100 bytes, WebSocket",
            Framing::WebSocket,
            100,
        ),
        ("fan-out to 1000/4 KiB, raw", Framing::Raw, 4096),
        ("fan-out to 1000/4 KiB, WebSocket", Framing::WebSocket, 4096),
    ] {
        let package = Bytes::from(vec![b'x'; bytes]);
        let mut sessions = Sessions::new(framing);
        let expected = SESSIONS * (frame_bytes(framing, bytes) + bytes);
        bench(c, name, SESSIONS, expected, || {
            sessions.push(black_box(&package));
            sessions.flush()
        });
    }
}

fn buffer_scheduler(c: &mut Criterion) {
    for (name, framing) in [
        ("collect 4 each and release/raw", Framing::Raw),
        ("collect 4 each and release/WebSocket", Framing::WebSocket),
    ] {
        let package = Bytes::from(vec![b'x'; 100]);
        let mut sessions = Sessions::new(framing);
        let bytes = COLLECTED * package.len();
        let expected = SESSIONS * (frame_bytes(framing, bytes) + bytes);
        bench(c, name, SESSIONS * COLLECTED, expected, || {
            for _ in 0..COLLECTED {
                sessions.collect(black_box(&package));
            }
            sessions.release();
            sessions.flush()
        });
    }
}

criterion_group! {
    name = push;
    config = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = responses, fan_out, buffer_scheduler
}
criterion_main!(push);
