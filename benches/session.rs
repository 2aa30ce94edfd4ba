//! The session table and the uid index: an arrival, a look-up and a departure among 10 000 sessions, and
//! a look-up in indexes of up to a million uids.

use std::fmt::Debug;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tangelo::ids::{ShardId, Sid};
use tangelo::session::Uid;
use tangelo::session::binding::Binding;
use tangelo::session::slab::Slab;

#[cfg(feature = "runtime")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SESSIONS: usize = 10_000;

/// As large as what a shard keeps of one connection.
type Value = [u64; 14];

/// Calls `run` once on what `setup` makes, holds its result against `expected`, then times it.
fn bench<S, T: PartialEq + Debug>(
    c: &mut Criterion,
    name: &str,
    expected: T,
    mut setup: impl FnMut() -> S,
    mut run: impl FnMut(&mut S) -> T,
) {
    assert_eq!(run(&mut setup()), expected, "{name}");
    let mut group = c.benchmark_group("session");
    group.throughput(Throughput::Elements(SESSIONS as u64));
    group.bench_function(name, |b| {
        b.iter_batched_ref(&mut setup, &mut run, BatchSize::SmallInput);
    });
    group.finish();
}

/// A slab with all sessions, and their ids in an order of their own.
fn filled() -> (Slab<Value>, Vec<Sid>) {
    let mut slab = Slab::new(ShardId(1));
    let mut sids: Vec<Sid> = (0..SESSIONS)
        .map(|_| insert(&mut slab))
        .collect::<Option<_>>()
        .expect("the slab has room");
    // Fisher-Yates with xorshift: the same order in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..sids.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        sids.swap(last, (state % (last as u64 + 1)) as usize);
    }
    (slab, sids)
}

fn insert(slab: &mut Slab<Value>) -> Option<Sid> {
    slab.insert(|sid| [sid.get(); 14])
}

fn slab(c: &mut Criterion) {
    let (mut slab, sids) = filled();
    let sum: u64 = sids.iter().map(|sid| sid.get()).sum();
    bench(
        c,
        "slab/get_mut",
        sum,
        || (),
        |()| {
            let last = |sid: &Sid| slab.get_mut(*sid).map_or(0, |value| value[13]);
            black_box(&sids).iter().map(last).sum()
        },
    );

    let (mut slab, sids) = filled();
    for sid in &sids {
        assert!(slab.remove(*sid).is_some() && insert(&mut slab).is_some());
    }
    bench(
        c,
        "slab/get_mut of ids of the past",
        0,
        || (),
        |()| {
            let found = |sid: &&Sid| slab.get_mut(**sid).is_some();
            black_box(&sids).iter().filter(found).count()
        },
    );

    bench(
        c,
        "slab/insert, growing",
        Some(SESSIONS - 1),
        || Slab::new(ShardId(1)),
        |slab| {
            (0..SESSIONS)
                .map(|_| insert(slab))
                .last()
                .flatten()
                .map(Sid::slot)
        },
    );

    let emptied = || {
        let (mut slab, sids) = filled();
        for sid in &sids {
            slab.remove(*sid);
        }
        (slab, sids[0].slot())
    };
    // The last slot freed is the first one used, so the last insert finds the first one freed.
    bench(
        c,
        "slab/insert into freed slots",
        true,
        emptied,
        |(slab, first)| {
            let last = (0..SESSIONS).map(|_| insert(slab)).last().flatten();
            last.map(Sid::slot) == Some(*first)
        },
    );

    bench(
        c,
        "slab/remove",
        (SESSIONS, None),
        filled,
        |(slab, sids)| {
            let removed = sids.iter().filter_map(|sid| slab.remove(*sid)).count();
            (removed, slab.get_mut(sids[0]).copied())
        },
    );
}

/// An index with all sessions, one uid each, and the uids in the order of the sids.
fn indexed(sids: &[Sid]) -> (Binding, Vec<Uid>) {
    let mut binding = Binding::default();
    let uids = sids.iter().map(|sid| Uid::from_text(&format!("u{sid}")));
    let uids: Vec<Uid> = uids.collect();
    for (sid, uid) in sids.iter().zip(&uids) {
        binding.bound(*sid, uid, "127.0.0.1:50000", 0);
    }
    (binding, uids)
}

fn binding(c: &mut Criterion) {
    let (_, sids) = filled();
    let (binding, uids) = indexed(&sids);
    bench(
        c,
        "binding/sessions of a uid",
        SESSIONS,
        || (),
        |()| {
            let found = black_box(&uids)
                .iter()
                .map(|uid| binding.sessions(uid.text()).len());
            found.sum()
        },
    );
    bench(
        c,
        "binding/unbound and bound again",
        SESSIONS,
        || indexed(&sids),
        |(binding, uids)| {
            for (sid, uid) in sids.iter().zip(&*uids) {
                binding.unbound(*sid);
                binding.bound(*sid, uid, "127.0.0.1:50000", 0);
            }
            binding.session_count()
        },
    );
}

/// A look-up in indexes of several sizes. It costs more only where the index is larger than the caches of the
/// processor.
fn binding_by_size(c: &mut Criterion) {
    for size in [10_000, 100_000, 1_000_000] {
        let sids = (0..size).map(|slot| Sid::new(ShardId(1), slot, 1));
        let sids: Vec<Sid> = sids.collect();
        let (binding, uids) = indexed(&sids);
        // The step and the size have no common divisor, so the uids are from all parts of the index.
        let asked: Vec<&str> = (0..SESSIONS)
            .map(|at| uids[at * 7_919 % uids.len()].text())
            .collect();
        bench(
            c,
            &format!("binding/sessions of a uid, among {size}"),
            SESSIONS,
            || (),
            |()| {
                let found = black_box(&asked)
                    .iter()
                    .map(|uid| binding.sessions(uid).len());
                found.sum()
            },
        );
    }
}

criterion_group! {
    name = session;
    config = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = slab, binding, binding_by_size
}
criterion_main!(session);
