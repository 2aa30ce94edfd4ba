//! The table of promises, the tests of a small part of each attack, and the run of everything that writes the page.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::reliability::attacks;
use crate::reliability::report;
use crate::reliability::stage::{MIB, Scale, Seen};

/// How much later than without the attack an answer of a canary may come, in a run by hand.
const DELAY_MAX: Duration = Duration::from_millis(20);

struct Attack {
    promise: &'static str,
    name: &'static str,
    play: fn(Scale) -> Seen,
}

/// The attacks beside canaries. For each, one test plays the part for CI.
macro_rules! attacks {
    ($($promise:literal: $name:ident,)*) => {
        const ATTACKS: &[Attack] = &[$(
            Attack { promise: $promise, name: stringify!($name), play: attacks::$name },
        )*];

        mod beside_canaries {
            use super::{attacks, Scale};

            $(
                #[test]
                fn $name() {
                    attacks::$name(Scale::Ci);
                }
            )*
        }
    };
}

attacks! {
    "Connections that send nothing": silent,
    "Silent connections twice up to the limit of connections keep no player out": silent_to_the_limit,
    "Heads of HTTP that never end": endless_heads,
    "Random bytes": random_bytes,
    "Handshakes of the largest size without their last byte": half_handshakes,
    "WebSocket fragments that never end": fragments,
    "Clients that send half of a large package": half_packages,
    "Clients that send 64 KiB in small pieces, and never the last byte": drip,
    "Clients that ask for much and read nothing": deaf,
    "Members who do not read broadcasts": deaf_members,
    "Broadcasts while members come and go": members_that_churn,
    "A flood of one session": flood_of_one_session,
    "More load than the cores can serve": overload,
    "Clients that come and leave": churn,
    "All clients come at once": storm,
    "All sessions of a uid are kicked at once": kick_storm,
    "JSON that is expensive to read": json_bombs,
}

struct Fault {
    promise: &'static str,
    /// Test binary and name, or the beginning of several names.
    tests: &'static [(&'static str, &'static str)],
}

/// Promises that tests of their own keep, in CI at the same size as here.
const FAULTS: &[Fault] = &[
    Fault {
        promise: "Every split of a session's bytes, and of an upgrade's",
        tests: &[("e2e", "clients::random::")],
    },
    Fault {
        promise: "A header that announces more bytes than come",
        tests: &[("e2e", "clients::flood::announced_bytes_cost_nothing")],
    },
    Fault {
        promise: "Shapes of upgrades and frames against the RFC",
        tests: &[("e2e", "clients::hostile::")],
    },
    Fault {
        promise: "A deadline for each state of a connection; a slow connection does not prolong it",
        tests: &[("memory", "deadlines::"), ("memory", "silent::")],
    },
    Fault {
        promise: "Rates of messages, bytes, control frames and fragments; keys and signatures that cost too much",
        tests: &[("memory", "rates::"), ("memory", "bounds::")],
    },
    Fault {
        promise: "Four levels of short memory",
        tests: &[("memory", "shedding::"), ("e2e", "clients::memory::")],
    },
    Fault {
        promise: "No descriptor is left, for clients or for servers",
        tests: &[
            ("e2e", "clients::flood::silent_connections_fill"),
            ("e2e", "cluster::callers::four_hundred_strangers"),
        ],
    },
    Fault {
        promise: "Strangers at the port for servers; servers behind NAT, or before the master names them",
        tests: &[("e2e", "cluster::callers::"), ("memory", "callers::")],
    },
    Fault {
        promise: "Forged session ids and malformed calls",
        tests: &[("e2e", "cluster::forged::")],
    },
    Fault {
        promise: "A uid that is bound and kicked from several shards at once",
        tests: &[("e2e", "cluster::races::")],
    },
    Fault {
        promise: "A backend that is killed, stopped, slow or hung",
        tests: &[
            ("e2e", "cluster::forward::calls_to_a_"),
            ("e2e", "cluster::forward::a_backend_that_"),
            ("e2e", "clients::flood::a_backend_that_"),
            ("memory", "servers::"),
        ],
    },
    Fault {
        promise: "A backend that flaps, speaks another protocol, or takes no bytes",
        tests: &[
            ("e2e", "cluster::links::"),
            ("e2e", "cluster::unknown_server::"),
        ],
    },
    Fault {
        promise: "A network that carries bytes in one direction only",
        tests: &[("e2e", "reliability::one_way::")],
    },
    Fault {
        promise: "A master that is lost, restarted, late, silent or refuses",
        tests: &[
            ("e2e", "cluster::life::the_master_is_restarted"),
            ("e2e", "cluster::life::a_gateway_"),
            ("e2e", "cluster::links::a_master_that_is_not_reachable"),
            ("lib", "peer::pomelo::master::"),
        ],
    },
    Fault {
        promise: "A master in 13 states: not there, silent, leaving, refusing or wrong at each step of a join",
        tests: &[("e2e", "cluster::master_states::")],
    },
    Fault {
        promise: "A full queue between two shards, for pushes and messages to servers",
        tests: &[("e2e", "application::full_mesh::")],
    },
    Fault {
        promise: "Regular expressions on which other engines need exponential time",
        tests: &[("lib", "client::host_filter::")],
    },
    Fault {
        promise: "A clock that is set ahead and back",
        tests: &[(
            "lib",
            "gateway::memory::tests::a_clock_that_is_set_moves_crons_alone",
        )],
    },
    Fault {
        promise: "Too little memory for rings, no io_uring, few files, ports that are taken",
        tests: &[
            ("e2e", "operator::check::a_broken_machine"),
            ("e2e", "operator::start::"),
        ],
    },
    Fault {
        promise: "Broken configurations and projects",
        tests: &[("e2e", "operator::check::"), ("lib", "gateway::load::")],
    },
    Fault {
        promise: "A pause of the whole process, in virtual time and for 8 seconds",
        tests: &[("memory", "a_pause::"), ("e2e", "operator::pause::")],
    },
    Fault {
        promise: "A log that nobody reads, and a disk that is full",
        tests: &[
            ("e2e", "operator::signals::output_that_nobody_reads"),
            (
                "e2e",
                "operator::signals::a_gateway_whose_readers_have_gone",
            ),
            ("e2e", "operator::signals::a_disk_that_is_full"),
        ],
    },
    Fault {
        promise: "A handler that panics, blocks or never ends",
        tests: &[
            ("e2e", "application::misbehaving::"),
            ("e2e", "application::handlers::a_handler_that_panics"),
        ],
    },
    Fault {
        promise: "Random actions of clients and servers in virtual time, with invariants after each",
        tests: &[("simulation", "each_seed_gives_the_bytes")],
    },
];

#[test]
#[ignore = "takes a quarter of an hour and the whole machine"]
fn all_attacks_hold() {
    let mut page = format!(
        "{}.\n\n| attack | load | result | most memory, MiB | p99 of the canaries alone and beside it, ms | test |\n\
         |---|---|---|---|---|---|\n",
        report::circumstances()
    );
    let mut missed = Vec::new();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    // Some of them, while one looks for a fault: TANGELO_ATTACKS=deaf,drip
    let chosen = std::env::var("TANGELO_ATTACKS").ok();
    let is_chosen = |name: &str| {
        let mut names = chosen.iter().flat_map(|names| names.split(','));
        chosen.is_none() || names.any(|chosen| chosen == name)
    };
    for attack in ATTACKS.iter().filter(|attack| is_chosen(attack.name)) {
        println!("--- {}", attack.name);
        let seen = (attack.play)(Scale::Full);
        let [alone, beside] = seen.p99;
        let verdict = match beside < alone + DELAY_MAX {
            true => "",
            false => " (missed)",
        };
        if !verdict.is_empty() {
            missed.push(attack.name);
        }
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} of {} | {:.1}, {:.1}{verdict} | `{}` |",
            attack.promise,
            seen.load,
            seen.figure,
            seen.memory / MIB,
            seen.memory_max / MIB,
            ms(alone),
            ms(beside),
            attack.name,
        );
    }
    assert_eq!(chosen, None, "a part of the suite\n{page}");
    report::write("attacks", &page);
    assert_eq!(missed, [""; 0], "canaries were later than {DELAY_MAX:?}");
}

#[test]
#[ignore = "runs tests that also run alone"]
fn all_faults_hold() {
    let mut page = format!(
        "{}.\n\n| fault | tests | result |\n|---|---|---|\n",
        report::circumstances()
    );
    for fault in FAULTS {
        let begun = Instant::now();
        let passed: usize = fault
            .tests
            .iter()
            .map(|(binary, name)| run(binary, name))
            .sum();
        let names = fault
            .tests
            .iter()
            .map(|(binary, name)| format!("`{binary} {name}`"));
        let names: Vec<String> = names.collect();
        let _ = writeln!(
            page,
            "| {} | {} | {passed} passed in {:.0} s |",
            fault.promise,
            names.join(", "),
            begun.elapsed().as_secs_f64()
        );
    }
    report::write("faults", &page);
}

/// Runs tests, which must be there and pass. Returns how many there were.
fn run(binary: &str, name: &str) -> usize {
    let printed = cargo_test(binary, &[name, "--test-threads=2"]);
    let passed = printed.lines().find_map(|line| {
        let (_, counts) = line.split_once("test result: ok. ")?;
        counts.split(' ').next()?.parse().ok()
    });
    let passed = passed.filter(|count| *count > 0);
    passed.unwrap_or_else(|| panic!("{binary} {name}:\n{printed}"))
}

fn cargo_test(binary: &str, args: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).arg("test");
    match binary {
        "lib" => cargo.arg("--lib"),
        binary => cargo.args(["--test", binary]),
    };
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.arg("--").args(args).stderr(Stdio::inherit()).output();
    String::from_utf8(output.expect("cargo runs").stdout).expect("its output is text")
}

#[test]
fn each_promise_has_a_test() {
    let this = std::env::current_exe().expect("a running program has a path");
    let listed = Command::new(this).arg("--list").output().expect("it runs");
    let listed = String::from_utf8(listed.stdout).expect("names are text");
    for fault in FAULTS {
        for (binary, name) in fault.tests {
            let found = match *binary {
                "e2e" => listed.lines().any(|line| line.starts_with(name)),
                binary => is_in_sources(binary, name),
            };
            assert!(found, "{binary} has no test {name}");
        }
    }
}

/// Returns whether the sources of a test binary have a module with tests, or a test, of this name.
fn is_in_sources(binary: &str, name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut path = match binary {
        "lib" => root.join("src"),
        binary => root.join("tests").join(binary),
    };
    let (modules, test) = name.rsplit_once("::").unwrap_or(("", name));
    // Those of a file are in it, or in a file of their own.
    for module in modules.split("::").filter(|module| *module != "tests") {
        path.push(module);
    }
    let files = [
        path.with_extension("rs"),
        path.join("mod.rs"),
        path.join("tests.rs"),
    ];
    let test = format!("fn {test}");
    files.iter().any(|file| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.split("#[test]")
            .skip(1)
            .any(|behind| behind.contains(&test))
    })
}
