//! Seeded traffic over a gateway in memory, and a hash of every byte that it sends.
//!
//! Clients over TCP and WebSocket say what clients say, and what they should not; their bytes are cut
//! anywhere, they come late, and some clients do not read. A server answers late, out of order, with an
//! error or not at all, and goes and comes back. Nothing acts while the gateway still has something to do, so
//! a seed gives the same bytes each time.
//!
//! `tests/simulation/hashes.txt` has the hashes of [`SEEDS`] seeds, on one shard and on four. A change that
//! should change no byte leaves that file as it is.
//!
//! * `SIMULATION_SEEDS=1000 cargo test --test simulation`: all seeds instead of the first
//! * `SIMULATION_SEED=17 cargo test --test simulation -- --nocapture`: one seed, and what each connection got
//! * `SIMULATION_REWRITE=1 cargo test --test simulation`: writes the file anew; the commit says which bytes
//!   have changed and why

#![cfg(feature = "runtime")]

use std::time::Duration;

use tangelo::config::{self, Dialect, DuplicateLogin, Scheduler};
use tangelo::fuzzing::Choices;
use tangelo::fuzzing::simulation::{self, Simulation};
use tangelo::{Config, Gateway};

#[path = "differential/random.rs"]
mod random;

use random::Random;

/// Seeds that the file has.
const SEEDS: u64 = 1_000;

/// Seeds that run without a wish.
const SEEDS_OF_CI: u64 = 100;

/// Steps of one seed.
const STEPS: usize = 400;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/simulation/hashes.txt");

#[test]
fn each_seed_gives_the_bytes_that_it_gave_before() {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    if let Some(seed) = number("SIMULATION_SEED") {
        for shards in [1, 4] {
            println!(
                "seed {seed} on {shards} shards: {:016x}",
                play(seed, shards, true)
            );
        }
        return;
    }
    if std::env::var("SIMULATION_REWRITE").is_ok() {
        let lines = (0..SEEDS).map(line);
        std::fs::write(FILE, lines.collect::<String>()).expect("the file can be written");
        return;
    }
    let seeds = number("SIMULATION_SEEDS").unwrap_or(SEEDS_OF_CI);
    let known = std::fs::read_to_string(FILE).expect("the file of hashes");
    assert_eq!(known.lines().count(), SEEDS as usize);
    for (seed, known) in (0..seeds).zip(known.split_inclusive('\n')) {
        assert_eq!(line(seed), known, "SIMULATION_SEED={seed} shows what it is");
    }
}

/// A seed's line in the file.
fn line(seed: u64) -> String {
    let [one, four] = [1, 4].map(|shards| play(seed, shards, false));
    format!("{seed} {one:016x} {four:016x}\n")
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(start, step)
}

/// Runs one seed; the hash of the hashes of all connections, in the order in which they were opened.
fn play(seed: u64, shards: usize, shows: bool) -> u64 {
    let mut random = Random::of_seed(seed);
    let config = config(&mut random, shards);
    let gateway = Gateway::new(config).handlers(|_| simulation::router());
    let gateway = gateway
        .in_memory()
        .unwrap_or_else(|error| panic!("{error}"));
    let mut simulation = Simulation::new(Seeded(random), gateway);
    for _ in 0..STEPS {
        simulation.step();
    }
    let all = simulation.end();
    if shows {
        for (at, bytes) in all.iter().enumerate() {
            println!("--- connection {at}\n{}", bytes.escape_ascii());
        }
    }
    let hashes = all.iter().flat_map(|bytes| hash(bytes).to_be_bytes());
    hash(&hashes.collect::<Vec<u8>>())
}

/// The decisions of a seed.
struct Seeded(Random);

impl Choices for Seeded {
    fn below(&mut self, end: usize) -> usize {
        self.0.below(end)
    }
}

/// One of the configurations that matter to the bytes. The guards are off, because the reference has none, and the
/// hashes are those of its bytes.
fn config(random: &mut Random, shards: usize) -> Config {
    let exact = Config::exact();
    Config {
        shards: Some(shards),
        dialect: *random.pick(&[Dialect::Pomelo, Dialect::Pinus]),
        servers: simulation::servers(),
        client: config::Client {
            heartbeat: *random.pick(&[None, Some(Duration::from_secs(3))]),
            use_dict: random.one_in(2),
            // One package of an echo that is long fits, two do not.
            outbox_bytes_max: *random.pick(&[128 << 10, 4 << 20]),
            calls_in_flight_max: *random.pick(&[4, 1_000]),
            max_connections: *random.pick(&[None, Some(5)]),
            ..exact.client
        },
        session: config::Session {
            duplicate_login: *random.pick(&[
                DuplicateLogin::Allow,
                DuplicateLogin::Refuse,
                DuplicateLogin::NewestWins,
            ]),
            ..exact.session
        },
        push: config::Push {
            scheduler: *random.pick(&[Scheduler::Direct, Scheduler::Buffer]),
            ..exact.push
        },
        rpc: config::Rpc {
            timeout: Duration::from_secs(2),
            keepalive: Duration::from_secs(1),
            calls_in_flight_max: *random.pick(&[3, 1_000]),
            ..exact.rpc
        },
        ..exact
    }
}
