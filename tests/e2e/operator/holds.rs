//! A shard whose thread is held at any moment ticks again when it is let go. A shard without any deadline does not
//! tick, but it still answers.
//!
//! A busy machine, a hypervisor or a debugger can hold a thread. These tests do it in two ways: SIGSTOP at random
//! moments, and `holds/clock.c` right after the thread has read the clock, as a shard does before and after each
//! sleep. A failing test prints its seed; `E2E_SEED=… cargo test --test e2e holds::` replays it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::random::Random;

/// Distance of two ticks of a shard.
const TICK: Duration = Duration::from_millis(50);

/// Time that the thread of an overdue tick may sleep.
const OVERDUE_MAX: Duration = Duration::from_millis(100);

/// Distance of two looks at a thread.
const LOOK: Duration = Duration::from_millis(5);

/// Rounds of one to three stops each.
const ROUNDS: usize = 100;

/// Time during which a test holds threads that have read the clock, several times in each second.
const CLOCKS: Duration = Duration::from_secs(10);

/// How much longer the run by hand is.
const BY_HAND: u32 = 25;

const ROUTE: &str = "connector.h.echo";

/// Keeps the watchdog from waking a shard, so that the shards must do without it.
const ONLY_REPORTS: &str = "TANGELO_TEST_WATCHDOG_ONLY_REPORTS=1";

/// Number of idle clients, which give each shard a deadline, so that it ticks. The number is large, so that the kernel
/// gives some to every shard.
const CROWD: usize = 64;

/// A gateway, and threads that keep it at work.
#[derive(Clone, Copy)]
struct Scene<'a> {
    shards: usize,
    load: usize,
    crowd: usize,
    environment: &'a [&'a str],
}

const fn alone(shards: usize, load: usize) -> Scene<'static> {
    Scene {
        shards,
        load,
        crowd: CROWD,
        environment: &[ONLY_REPORTS],
    }
}

/// A gateway whose shards have no deadline.
const DOZING: Scene<'_> = Scene {
    crowd: 0,
    ..alone(4, 0)
};

/// Idle and loaded, without and with the help of the watchdog.
const SCENES: [Scene<'_>; 6] = [
    alone(1, 0),
    alone(4, 0),
    alone(1, 2),
    alone(4, 2),
    Scene {
        environment: &[],
        ..alone(1, 0)
    },
    Scene {
        environment: &[],
        ..alone(4, 2)
    },
];

#[test]
fn an_idle_gateway_that_was_stopped_ticks_again() {
    SCENES[..2].iter().for_each(|scene| stop(*scene, ROUNDS));
}

#[test]
fn a_loaded_gateway_that_was_stopped_ticks_again() {
    SCENES[2..4].iter().for_each(|scene| stop(*scene, ROUNDS));
}

#[test]
fn a_gateway_with_its_watchdog_that_was_stopped_ticks_again() {
    SCENES[4..].iter().for_each(|scene| stop(*scene, ROUNDS));
}

#[test]
fn a_gateway_without_deadlines_that_was_stopped_answers() {
    stop(DOZING, ROUNDS);
}

#[test]
fn a_shard_without_deadlines_held_beside_its_sleep_answers() {
    hold_clocks(DOZING, CLOCKS);
}

#[test]
fn an_idle_shard_held_beside_its_sleep_ticks_again() {
    SCENES[..2]
        .iter()
        .for_each(|scene| hold_clocks(*scene, CLOCKS));
}

#[test]
fn a_loaded_shard_held_beside_its_sleep_ticks_again() {
    let loaded = &SCENES[2..4];
    loaded.iter().for_each(|scene| hold_clocks(*scene, CLOCKS));
}

#[test]
fn a_shard_with_its_watchdog_held_beside_its_sleep_ticks_again() {
    SCENES[4..]
        .iter()
        .for_each(|scene| hold_clocks(*scene, CLOCKS));
}

#[test]
#[ignore = "takes an hour: cargo test --test e2e holds:: -- --ignored --nocapture"]
fn many_holds() {
    for scene in SCENES.into_iter().chain([DOZING]) {
        stop(scene, ROUNDS * BY_HAND as usize);
        hold_clocks(scene, CLOCKS * BY_HAND);
    }
}

impl Scene<'_> {
    /// Runs `hold` beside the load; then everything must have been answered, and the watchdog must have
    /// found nothing to do.
    fn play(self, environment: &[&str], hold: impl FnOnce(&Played<'_>) -> String) {
        let count = self.shards.to_string();
        let settings = [
            "pin=false",
            "client.heartbeat=1h",
            "client.messages_per_second=off",
        ];
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let args: Vec<&str> = ["--shards", &count].into_iter().chain(settings).collect();
        let environment = [self.environment, environment].concat();
        let mut gateway = Gateway::start_example("echo", &environment, &args);
        let lateness = Lateness::watch();
        let traffic = Traffic::start(self.load, &gateway);
        let crowd = (0..self.crowd).map(|_| Client::tcp(gateway.address()).open());
        let played = Played {
            gateway: &gateway,
            threads: Thread::of_shards(gateway.pid(), self.shards),
            lateness,
            crowd: crowd.collect(),
        };
        let done = hold(&played);
        drop(played);
        traffic.stop();
        let counters = gateway.counters();
        let (code, printed) = gateway.stop();
        assert_eq!(code, Some(0), "{printed}");
        assert!(!counters.contains_key("wakeups_lost"), "{printed}");
        println!("{done}: {} shards, {} loads", self.shards, self.load);
    }
}

/// A gateway whose threads are held.
struct Played<'a> {
    gateway: &'a Gateway,
    threads: Vec<Thread>,
    lateness: Lateness,
    crowd: Vec<Client>,
}

impl Played<'_> {
    /// Waits until each shard has ticked after `begun`. Without a crowd, waits until a new client has its answer.
    fn assert_alive(&self, begun: Instant) {
        if self.crowd.is_empty() {
            let mut client = Client::tcp(self.gateway.address()).open();
            client.request(1, ROUTE, "{}");
            assert_eq!(client.wait_response(1), b"{}");
            return;
        }
        for thread in &self.threads {
            thread.assert_ticks(begun, &self.lateness);
        }
    }
}

/// Stops the process again and again.
fn stop(scene: Scene<'_>, rounds: usize) {
    let mut random = Random::from_seed("E2E_SEED");
    scene.play(&[], |played| {
        let pid = Pid::from_raw(played.gateway.pid() as i32).expect("a process has an id");
        let mut stops = 0;
        for _ in 0..rounds {
            pause(random.up_to(TICK));
            for _ in 0..=random.below(3) {
                kill_process(pid, Signal::STOP).expect("the gateway runs");
                pause(Duration::from_millis(5) + random.up_to(Duration::from_millis(45)));
                kill_process(pid, Signal::CONT).expect("the gateway runs");
                stops += 1;
                // From the moment in which a thread wakes up to well into its next turns.
                pause(Duration::from_micros(1 << random.below(15)));
            }
            played.assert_alive(Instant::now());
        }
        format!("{stops} stops")
    });
}

/// Holds threads of the gateway right after they have read the clock.
fn hold_clocks(scene: Scene<'_>, length: Duration) {
    let mut random = Random::from_seed("E2E_SEED");
    let one_in = if scene.load == 0 { 20 } else { 1_000 };
    let environment = [
        format!("LD_PRELOAD={}", HOLDER.display()),
        format!("HOLD_SEED={}", random.below(1 << 30)),
        format!("HOLD_ONE_IN={one_in}"),
    ];
    let environment = environment.each_ref().map(String::as_str);
    scene.play(&environment, |played| {
        let end = Instant::now() + length;
        while Instant::now() < end {
            played.assert_alive(Instant::now());
        }
        format!("{length:?} with threads held after reads of the clock")
    });
}

/// Library that holds the threads, compiled on first use.
static HOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/operator/holds/clock.c");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clock.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-shared", "-fPIC", "-o"]);
    compiler.arg(&library).arg(source).arg("-ldl");
    let compiled = compiler.status().expect("a C compiler is installed");
    assert!(compiled.success(), "cc: {compiled}");
    library
});

/// Waits exactly: a sleep of the kernel is never shorter than 50 µs.
fn pause(duration: Duration) {
    let end = Instant::now() + duration;
    if let Some(long) = duration.checked_sub(Duration::from_micros(200)) {
        thread::sleep(long);
    }
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

impl Random {
    fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as usize) as u64)
    }
}

/// The thread of a shard, as the kernel shows it.
pub(super) struct Thread {
    folder: PathBuf,
}

/// State of a thread, read from the kernel.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Look {
    sleeps: bool,
    /// How often it has been on a CPU.
    pub(super) slices: u64,
}

impl Thread {
    pub(super) fn of_shards(pid: u32, shards: usize) -> Vec<Self> {
        let all = fs::read_dir(format!("/proc/{pid}/task")).expect("the gateway runs");
        let ids = all.map(|entry| {
            let name = entry.expect("a thread").file_name();
            name.to_str().and_then(|name| name.parse().ok())
        });
        // The helpers of a shard bear its name too, but come after it. When the kernel has given the highest id, it
        // begins again with low ones.
        let mut ids: Vec<u32> = ids.map(|id| id.expect("a number")).collect();
        ids.sort_by_key(|id| (*id < pid, *id));
        let named = |name: &str| {
            let folders = ids
                .iter()
                .map(|id| PathBuf::from(format!("/proc/{pid}/task/{id}")));
            let mut folders = folders.filter(|folder| {
                fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.trim() == name)
            });
            folders
                .next()
                .expect("the process has a thread of this name")
        };
        (0..shards)
            .map(|shard| Self {
                folder: named(&format!("shard-{shard}")),
            })
            .collect()
    }

    pub(super) fn look(&self) -> Look {
        let read = |name| fs::read_to_string(self.folder.join(name)).expect("a shard runs");
        let (stat, schedstat) = (read("stat"), read("schedstat"));
        let (_, after_name) = stat.rsplit_once(')').expect("a name in brackets");
        let slices = schedstat.split_whitespace().nth(2).expect("three numbers");
        Look {
            sleeps: after_name.trim_start().starts_with('S'),
            slices: slices.parse().expect("a number"),
        }
    }

    /// Returns how often it has slept.
    pub(super) fn sleeps(&self) -> u64 {
        let status = fs::read_to_string(self.folder.join("status")).expect("a shard runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let count = line.and_then(|count| count.trim().parse().ok());
        count.expect("a number")
    }

    /// Waits until a tick has come that was not due at `begun`. It does not count time in which the thread was
    /// ready to run, or the machine was late for all.
    fn assert_ticks(&self, begun: Instant, lateness: &Lateness) {
        let (mut last, mut since) = (self.look(), Instant::now());
        loop {
            pause(LOOK);
            let look = self.look();
            if look != last || !look.sleeps {
                if look.slices != last.slices && begun.elapsed() > TICK {
                    return;
                }
                (last, since) = (look, Instant::now());
                continue;
            }
            let slept = since.elapsed().saturating_sub(lateness.since(since));
            assert!(
                slept < TICK + OVERDUE_MAX,
                "{:?} has slept for {slept:?} without a tick",
                self.folder,
            );
        }
    }
}

/// How late the machine wakes threads that do nothing but sleep, one on each CPU.
struct Lateness {
    found: Arc<Mutex<Vec<(Instant, Duration)>>>,
    stop: Arc<AtomicBool>,
}

impl Lateness {
    fn watch() -> Self {
        let this = Self {
            found: Arc::default(),
            stop: Arc::default(),
        };
        let cpus = sched_getaffinity(None).expect("the kernel says which");
        for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu)) {
            let (found, stop) = (this.found.clone(), this.stop.clone());
            thread::spawn(move || {
                let mut only = CpuSet::new();
                only.set(cpu);
                sched_setaffinity(None, &only).expect("one of the process' CPUs");
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    thread::sleep(LOOK);
                    let late = began.elapsed() - LOOK;
                    if late > LOOK {
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        found.push((Instant::now(), late));
                    }
                }
            });
        }
        this
    }

    /// Returns the summed lateness since then.
    fn since(&self, since: Instant) -> Duration {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let later = found.iter().rev().take_while(|(at, _)| *at > since);
        later.map(|(_, late)| *late).sum()
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Clients that always have requests in flight.
struct Traffic {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Traffic {
    const CLIENTS: usize = 20;
    const IN_FLIGHT: u32 = 8;

    fn start(threads: usize, gateway: &Gateway) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..threads).map(|_| {
            let (address, stop) = (gateway.address(), stop.clone());
            let clients = (0..Self::CLIENTS).map(|_| Client::tcp(address).open());
            let mut clients: Vec<Client> = clients.collect();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for client in &mut clients {
                        (1..=Self::IN_FLIGHT).for_each(|id| client.request(id, ROUTE, "{}"));
                    }
                    for client in &mut clients {
                        for id in 1..=Self::IN_FLIGHT {
                            assert_eq!(client.wait_response(id), b"{}");
                        }
                    }
                }
            })
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    /// Waits until each request is answered.
    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("all requests are answered");
        }
    }
}
