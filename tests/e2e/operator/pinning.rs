//! Which cores the threads of shards may run on.

use std::collections::BTreeSet;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::gateway::Gateway;
use crate::harness::process::POLL_INTERVAL;

/// Keeps another run of these tests, which would reserve the same cores, away while it exists.
fn alone_on_this_machine() -> UnixDatagram {
    let name = SocketAddr::from_abstract_name("tangelo-test-pinning").expect("a short name");
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => return socket,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// The cores that a thread may run on, by its entry in `/proc`.
fn cores(entry: &str) -> BTreeSet<usize> {
    let status = fs::read_to_string(format!("{entry}/status")).expect("the process runs");
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("the kernel says it");
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let ranges = list.trim().split(',');
    ranges
        .flat_map(|range| match range.split_once('-') {
            Some((first, last)) => number(first)..=number(last),
            None => number(range)..=number(range),
        })
        .collect()
}

/// The cores of each shard.
fn cores_of_shards(gateway: &Gateway, shards: usize) -> Vec<BTreeSet<usize>> {
    let tasks = format!("/proc/{}/task", gateway.pid());
    let mut found = vec![BTreeSet::new(); shards];
    for task in fs::read_dir(tasks).expect("the process runs") {
        let path = task.expect("the process runs").path();
        let path = path.to_str().expect("a number");
        let name = fs::read_to_string(format!("{path}/comm")).unwrap_or_default();
        if let Some(shard) = name.trim().strip_prefix("shard-") {
            found[shard.parse::<usize>().expect("a number")] = cores(path);
        }
    }
    found
}

/// Stops a gateway. How its shards ran by the start line, and its warnings.
fn stopped(gateway: Gateway) -> (String, Vec<String>) {
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
    let mut start = printed
        .lines()
        .filter(|line| line.contains(" listening on "));
    let start = start.next().expect("a start line");
    let (_, pinning) = start
        .split_once('(')
        .expect("the start line says how shards run");
    let (pinning, _) = pinning
        .split_once(')')
        .expect("the start line says how shards run");
    // A busy machine may pause a shard; pinning is not the reason.
    let is_warning = |line: &&str| line.contains("WARN") && !line.contains("was paused for");
    let warnings = printed.lines().filter(is_warning);
    (pinning.to_owned(), warnings.map(str::to_owned).collect())
}

#[test]
fn a_shard_may_run_on_any_core_unless_pin_is_set() {
    let all = cores("/proc/self");
    let gateway = Gateway::start(&["--shards", "2"]);
    assert_eq!(cores_of_shards(&gateway, 2), [all.clone(), all]);
    assert_eq!(stopped(gateway), ("not pinned".to_owned(), vec![]));
}

#[test]
fn each_shard_has_a_core_that_no_other_gateway_pins_to() {
    let _alone = alone_on_this_machine();
    let all = cores("/proc/self");
    let count = all.len();
    let each: Vec<BTreeSet<usize>> = all.iter().map(|&core| [core].into()).collect();
    let start = |shards: usize| {
        let shards = shards.to_string();
        Gateway::start(&["--set", "pin=true", "--shards", &shards])
    };

    let first = start(1);
    assert_eq!(cores_of_shards(&first, 1), each[..1]);

    let second = start(count);
    let mut expected = each.clone();
    expected[0] = all.clone();
    assert_eq!(cores_of_shards(&second, count), expected);
    let (pinning, warnings) = stopped(second);
    match count {
        1 => assert_eq!(pinning, "not pinned"),
        _ => assert_eq!(pinning, format!("{} of {count} pinned", count - 1)),
    }
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let core = format!(
        "reserved their cores: shard 0 (core {});",
        all.first().expect("the thread has a core")
    );
    assert!(warnings[0].contains(&core), "{warnings:?}");

    first.kill();
    let third = start(count);
    assert_eq!(cores_of_shards(&third, count), each);
    assert_eq!(stopped(third), ("pinned".to_owned(), vec![]));
}

#[test]
fn more_shards_than_cores_are_not_pinned_and_a_warning_says_so() {
    let all = cores("/proc/self");
    let shards = all.len() + 1;
    let gateway = Gateway::start(&["--set", "pin=true", "--shards", &shards.to_string()]);
    assert_eq!(cores_of_shards(&gateway, shards), vec![all; shards]);
    let (pinning, warnings) = stopped(gateway);
    assert_eq!(pinning, "not pinned");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let text = format!("pin: no shard is pinned, because there are {shards} shards");
    assert!(warnings[0].contains(&text), "{warnings:?}");
}
