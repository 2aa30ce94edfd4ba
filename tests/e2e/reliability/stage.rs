//! A gateway with a hundred canaries, on which an attack is played.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::bystander::ECHO;
use crate::harness::canaries::{Canaries, p99};
use crate::harness::client::HANG_GUARD;
use crate::harness::gateway::Gateway;
use crate::harness::process::resident_bytes;

pub(super) const MIB: u64 = 1 << 20;

/// Memory that may stay after an attack.
const REST: u64 = 16 * MIB;

/// How much of an attack is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Ci,
    Full,
}

impl Scale {
    pub(super) fn of<T>(self, ci: T, full: T) -> T {
        match self {
            Self::Ci => ci,
            Self::Full => full,
        }
    }

    /// How long an attack stays that has no end of its own.
    pub(super) fn stay(self) -> Duration {
        self.of(Duration::from_secs(1), Duration::from_secs(20))
    }

    pub(super) fn memory(self) -> u64 {
        self.of(256 * MIB, 512 * MIB)
    }

    /// Starts a gateway on two shards, with the limit of memory.
    pub(super) fn gateway(self, more: &[&str]) -> Gateway {
        let limit = format!("limits.memory={}", self.memory());
        let args = ["--shards", "2", "--set", &limit];
        Gateway::start(&[&args[..], more].concat())
    }
}

/// The effect of an attack on the gateway and its canaries.
pub(super) struct Seen {
    pub(super) load: String,
    pub(super) figure: String,
    /// The most resident memory above that before the attack.
    pub(super) memory: u64,
    pub(super) memory_max: u64,
    /// The 99th percentile of the canaries without the attack and beside it.
    pub(super) p99: [Duration; 2],
}

/// Plays an attack, which says how much it was and what it saw. No canary is harmed, memory stays below the limit and comes back.
pub(super) fn attack(
    scale: Scale,
    gateway: &mut Gateway,
    play: impl FnOnce(&mut Gateway) -> (String, String),
) -> Seen {
    attack_beside(ECHO, scale, gateway, play)
}

/// The same, where this route echoes.
pub(super) fn attack_beside(
    echo: &'static str,
    scale: Scale,
    gateway: &mut Gateway,
    play: impl FnOnce(&mut Gateway) -> (String, String),
) -> Seen {
    let canaries = Canaries::start(gateway.address(), echo);
    thread::sleep(scale.stay() / 2);
    let alone = p99(canaries.take_times());
    let base = gateway.rss_bytes();

    let memory = Memory::watch(gateway.pid());
    let (load, figure) = play(gateway);
    let beside = p99(canaries.take_times());
    let most = memory.finish();

    // The attack has left by now.
    let deadline = Instant::now() + HANG_GUARD;
    while gateway.rss_bytes() > base + REST {
        let now = gateway.rss_bytes();
        assert!(Instant::now() < deadline, "{base} → {now} bytes");
        thread::sleep(Duration::from_millis(100));
    }
    canaries.finish();
    assert!(!gateway.printed().contains("panicked"), "a panic");
    let seen = Seen {
        load,
        figure,
        memory: most.saturating_sub(base),
        memory_max: scale.memory(),
        p99: [alone, beside],
    };
    println!(
        "{}: {}; {} MiB more, p99 of the canaries {alone:?} alone and {beside:?} beside it",
        seen.load,
        seen.figure,
        seen.memory / MIB
    );
    assert!(seen.memory < seen.memory_max, "{} bytes more", seen.memory);
    seen
}

/// Looks at the resident memory of a process all the time.
struct Memory {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Memory {
    fn watch(pid: u32) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let is_over = stop.clone();
        let thread = thread::spawn(move || {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(resident_bytes(pid));
                thread::sleep(Duration::from_millis(20));
            }
            most.max(resident_bytes(pid))
        });
        Self { stop, thread }
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the process runs")
    }
}
