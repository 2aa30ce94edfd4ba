//! No ring of a shard's doorbell is lost when a shard and the threads that ring interleave.
//!
//! loom runs the flags of `src/net/bell/sleep.rs` in all interleavings with up to three forced switches of the
//! thread, and in all memory orders. A lost ring would leave the shard asleep with something in its queue. loom
//! reports this as a deadlock.

use loom::sync::atomic;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;

#[path = "../src/net/bell/sleep.rs"]
#[expect(dead_code, reason = "only the watchdog calls `is_rung`")]
mod sleep;

use sleep::Sleep;

/// A shard's queue, its flags and its eventfd.
struct Shard {
    queue: AtomicUsize,
    sleep: Sleep,
    eventfd: Notify,
}

impl Shard {
    /// Puts a message into the queue and rings, as `Doorbell::ring` does.
    fn send(&self) {
        self.queue.fetch_add(1, Ordering::Relaxed);
        if self.sleep.ring() && self.sleep.must_wake() {
            self.eventfd.notify();
        }
    }

    /// Receives `expected` messages, and sleeps while there is none, as `Poller::look` does.
    fn receive(&self, expected: usize) {
        let mut received = 0;
        while received < expected {
            if self.sleep.begin() {
                self.eventfd.wait();
            }
            self.sleep.end();
            if self.sleep.take_rings() {
                received += self.queue.swap(0, Ordering::Relaxed);
            }
        }
    }
}

/// Runs a shard beside threads that ring `rings` times each.
fn model(threads: usize, rings: usize) {
    let mut all = loom::model::Builder::new();
    // With 5 forced switches the test finds no lost ring either, and takes 7 s. Without a bound it takes minutes.
    all.preemption_bound = Some(3);
    all.check(move || {
        let shard = Arc::new(Shard {
            queue: AtomicUsize::new(0),
            sleep: Sleep::new(),
            eventfd: Notify::new(),
        });
        for _ in 0..threads {
            let shard = shard.clone();
            thread::spawn(move || (0..rings).for_each(|_| shard.send()));
        }
        shard.receive(threads * rings);
    });
}

#[test]
fn each_ring_of_one_thread_is_received() {
    model(1, 3);
}

#[test]
fn each_ring_of_two_threads_is_received() {
    model(2, 1);
}
