//! Waits for the balance of a gateway after its test: counters ([`tangelo::fuzzing::ledger`]), the log and descriptors.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::client::HANG_GUARD;
use crate::harness::process::POLL_INTERVAL;

use tangelo::fuzzing::ledger::balances;
pub(crate) use tangelo::fuzzing::ledger::{CounterValues as Counters, check_last, parsed};

/// Waits until the counters of a running gateway balance: what came is what ended and
/// what is still there. Panics when they do not.
pub(crate) fn settle(mut read: impl FnMut() -> Counters) {
    let deadline = Instant::now() + HANG_GUARD;
    loop {
        let counters = read();
        let Err(open) = balances(&counters) else {
            return;
        };
        assert!(Instant::now() < deadline, "{open}: {counters:?}");
        thread::sleep(4 * POLL_INTERVAL);
    }
}

/// Log level of gateways whose closes [`closes_of`] compares: each close has a line.
pub(crate) const CLOSES_LOGGED: &str = "log.level=info,tangelo::shard::clients::connection=debug";

/// Parts of the lines about closes. A client that a limit refuses has a line of its own, and perhaps that of any close too.
const CLOSED: [&str; 2] = ["a client is closed", REFUSED];
const REFUSED: &str = " is refused";
/// Lines of one kind that the log has in ten seconds. It leaves further ones out.
const LINES_OF_A_KIND: u64 = 10;

/// Compares the log of a gateway with its counters: each close has a line with its reason. It does not see the closes whose
/// lines were too many, and probes have none.
pub(crate) fn closes_of(log: &str, counters: &Counters) -> Result<(), String> {
    let mut said = BTreeMap::<&str, u64>::new();
    let mut kinds = BTreeMap::<&str, u64>::new();
    for line in log.lines() {
        let Some(kind) = CLOSED.iter().find(|kind| line.contains(**kind)) else {
            continue;
        };
        let Some((_, reason)) = line.split_once(" reason=") else {
            continue;
        };
        let reason = reason.split('"').nth(1).unwrap_or_default();
        *kinds.entry(kind).or_default() += 1;
        let is_second = *kind != REFUSED && ["blacklisted", "max_connections"].contains(&reason);
        if !is_second {
            *said.entry(reason).or_default() += 1;
        }
    }
    let is_whole = kinds.values().all(|lines| *lines < LINES_OF_A_KIND);
    let reasons = counters
        .iter()
        .filter_map(|(name, count)| Some((name.strip_prefix("closed_")?, *count)));
    for (reason, count) in reasons {
        let lines = said.remove(reason).unwrap_or_default();
        if lines > count || (is_whole && lines < count && reason != "probe") {
            return Err(format!("{count} closes of {reason:?} have {lines} lines"));
        }
    }
    match said.is_empty() {
        true => Ok(()),
        false => Err(format!("closes that no counter has: {said:?}")),
    }
}

/// The open descriptors of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptors {
    /// Connections to a port.
    pub(crate) clients: usize,
    /// Connections whose other side has ended them.
    pub(crate) ended: usize,
    /// All but TCP connections: files, rings, listening sockets. Files in `/proc` are not in it: the watchdog opens
    /// one for each shard when it first needs it.
    pub(crate) others: usize,
}

impl Descriptors {
    /// Reads those of a process that lives; `port` is that for clients.
    pub(crate) fn of(pid: u32, port: u16) -> Option<Self> {
        /// States of TCP sockets in `/proc/net/tcp`.
        const CLOSE_WAIT: &str = "08";
        const LISTEN: &str = "0A";

        let process = Path::new("/proc").join(pid.to_string());
        let mut connections = HashMap::new();
        for table in ["net/tcp", "net/tcp6"] {
            for line in fs::read_to_string(process.join(table))
                .ok()?
                .lines()
                .skip(1)
            {
                let columns: Vec<&str> = line.split_whitespace().collect();
                let (local, state, inode) = (columns.get(1)?, *columns.get(3)?, columns.get(9)?);
                let local = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
                if state != LISTEN {
                    let socket = format!("socket:[{inode}]");
                    connections.insert(socket, (local == port, state == CLOSE_WAIT));
                }
            }
        }
        let mut all = Self {
            clients: 0,
            ended: 0,
            others: 0,
        };
        for descriptor in fs::read_dir(process.join("fd")).ok()? {
            // It may be closed since the folder was listed.
            let Ok(target) = fs::read_link(descriptor.ok()?.path()) else {
                continue;
            };
            if target.starts_with("/proc") {
                continue;
            }
            match connections.get(&*target.to_string_lossy()) {
                Some((is_client, has_ended)) => {
                    all.clients += usize::from(*is_client);
                    all.ended += usize::from(*has_ended);
                }
                None => all.others += 1,
            }
        }
        Some(all)
    }
}

/// Waits until a process has no descriptor that nobody needs: as many connections of clients as `clients` says, none that
/// the other side has ended, and no more of the other descriptors than at the start.
pub(crate) fn settle_descriptors(
    pid: u32,
    port: u16,
    at_start: Descriptors,
    mut clients: impl FnMut() -> usize,
) {
    let deadline = Instant::now() + HANG_GUARD;
    loop {
        let Some(now) = Descriptors::of(pid, port) else {
            return;
        };
        let clients = clients();
        // At the start a connection that was being opened may be among the others.
        if now.clients == clients && now.ended == 0 && now.others <= at_start.others {
            return;
        }
        let late = Instant::now() >= deadline;
        assert!(
            !late,
            "{now:?} with {clients} clients, and {at_start:?} at the start"
        );
        thread::sleep(Duration::from_millis(20));
    }
}
