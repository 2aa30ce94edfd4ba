//! The machine's limits: files, lockable memory, cores. A start checks them before the first shard, so
//! that an operator reads one line instead of a panic or of failures under load.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CpuSet, capabilities, sched_getaffinity};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::limits::{ADMIN_CONNECTIONS_MAX, SESSIONS_PER_SHARD_MAX, SHARDS_MAX};
use crate::shard;

/// Memory that one executor locks, rounded up: 504 KiB on Linux 6.14 and newer, where the rings
/// count, 192 KiB before. glommio asks for this much, whatever the kernel charges.
const LOCKED_BYTES: u64 = 512 << 10;
/// Descriptors of one shard beside its listeners: three rings and an eventfd of glommio, the epoll instance, the eventfd
/// of the doorbell, and one to spare.
const SHARD_FILES: usize = 7;
/// Descriptors of the operators' port: its connections, one more to refuse it, a listener, both ends of a
/// probe, and three of its runtime.
const ADMIN_FILES: usize = ADMIN_CONNECTIONS_MAX + 7;
/// Descriptors that stay free for logs, for files at the start, and for connections above the limit, which
/// tangelo accepts to close them.
const SPARE_FILES: usize = 64;
/// Ways to raise the file limit, as errors and warnings name them.
const RAISE_FILES: &str = "ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of docker";
/// A file limit for fewer clients than this is a warning. `ulimit -n 1024` in a start script sets the
/// hard limit too and leaves fewer, while one Node connector serves thousands.
const CLIENTS_USUAL_MIN: usize = 1000;
/// Attempts to make an executor or a listener, and the pause between them. A process that has just ended
/// releases its locked memory and its port late (up to 60 ms was seen).
pub(super) const TRIES: u32 = 20;
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// Raises the soft limits and checks that the machine has enough for `config`.
pub(super) fn check(config: &Config, shards: usize) -> Result<()> {
    let limits = MachineLimits::raise();
    limits.check_files(config, shards)?;
    if let Some(text) = limits.few_clients(config, shards) {
        tracing::warn!("{text}");
    }
    limits.check_memory(shards)
}

/// The limits of this process; `None` is unlimited.
pub(super) struct MachineLimits {
    files: Option<u64>,
    memory: Option<u64>,
}

impl MachineLimits {
    /// Raises the soft limits to the hard ones.
    pub(super) fn raise() -> Self {
        Self {
            files: raise(Resource::Nofile),
            memory: raise(Resource::Memlock),
        }
    }

    /// Checks that the file limit is enough.
    pub(super) fn check_files(&self, config: &Config, shards: usize) -> Result<()> {
        files_fit(self.files, config, shards)
    }

    /// Returns a warning when the file limit leaves few clients.
    pub(super) fn few_clients(&self, config: &Config, shards: usize) -> Option<String> {
        few_clients(self.files, config, shards)
    }

    /// Checks that the shards can lock enough memory.
    pub(super) fn check_memory(&self, shards: usize) -> Result<()> {
        memory_fits(self.memory, is_exempt(), shards)
    }
}

/// Returns the number of shards: as configured, else one per available core.
pub(super) fn shards(config: &Config) -> usize {
    config
        .shards
        .unwrap_or_else(|| cores().len().min(SHARDS_MAX))
}

/// Returns the ids of the cores that the calling thread may run on, at least one. A pinned thread sees
/// only its own core.
pub(super) fn cores() -> Vec<usize> {
    let cores: Vec<usize> = sched_getaffinity(None)
        .map(|set| {
            (0..CpuSet::MAX_CPU)
                .filter(|core| set.is_set(*core))
                .collect()
        })
        .unwrap_or_default();
    if cores.is_empty() { vec![0] } else { cores }
}

/// Returns the number of client sockets that this process can hold, silent ones included. [`check`] raises
/// the file limit, so it must run before.
pub(super) fn sockets_max(config: &Config) -> usize {
    sockets_within(getrlimit(Resource::Nofile).current, config, shards(config))
}

fn sockets_within(limit: Option<u64>, config: &Config, shards: usize) -> usize {
    let room = files_max(limit).saturating_sub(reserve(limit, config, shards));
    room.min(shards * SESSIONS_PER_SHARD_MAX)
}

/// Raises a soft limit to its hard limit and returns it; `None` is unlimited.
pub(super) fn raise(resource: Resource) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(resource);
    if current.is_some() && current != maximum {
        let _ = setrlimit(
            resource,
            Rlimit {
                current: maximum,
                maximum,
            },
        );
    }
    getrlimit(resource).current
}

fn files_max(limit: Option<u64>) -> usize {
    limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX)
}

/// Fills in `limits.memory` where nobody has set it.
pub(super) fn fill_in_memory(config: &mut Config) {
    if config.limits.memory.is_none() {
        config.limits.memory = Some(memory_max());
        let place = "default, half of the memory".to_owned();
        config.sources.places.insert("limits.memory".into(), place);
    }
}

/// Returns the default of `limits.memory`: half of the memory that this process may use.
pub(super) fn memory_max() -> usize {
    let machine = rustix::system::sysinfo();
    let machine = machine.totalram * u64::from(machine.mem_unit);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = cgroup_memory(&groups, Path::new("/sys/fs/cgroup"));
    let usable = group.map_or(machine, |group| group.min(machine));
    usize::try_from(usable / 2).unwrap_or(usize::MAX)
}

/// Returns the least memory limit of a process's cgroups and of those above them. `groups` is its `/proc/self/cgroup`.
fn cgroup_memory(groups: &str, mount: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        // Version 2 has one tree for all controllers, version 1 has one for each.
        let (tree, file) = match controllers {
            "" => (mount.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (mount.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // A container often sees the path of its host, and its own group at the root of the mount.
        let above = Path::new(path.trim_start_matches('/')).ancestors();
        let limits = above.filter_map(|group| {
            let text = fs::read_to_string(tree.join(group).join(file)).ok()?;
            text.trim().parse().ok()
        });
        limits.min()
    });
    limits.min()
}

/// Returns the number of connections that other servers may open. [`check`] raises the file limit, so it must run before.
pub(super) fn callers_max(config: &Config) -> usize {
    callers_within(getrlimit(Resource::Nofile).current, config)
}

fn callers_within(limit: Option<u64>, config: &Config) -> usize {
    let few = files_max(limit) / 8;
    let by_default = || shard::callers_max(config).min(few);
    config.rpc.max_connections.unwrap_or_else(by_default)
}

/// Descriptors that are not for clients.
fn reserve(limit: Option<u64>, config: &Config, shards: usize) -> usize {
    let takes_calls = config.rpc.listen.or(config.rpc.tls_listen);
    let callers = takes_calls.map_or(0, |_| callers_within(limit, config));
    // A master may name as many servers as call.
    let links = match config.master {
        Some(_) => config.servers.len().max(callers / 2),
        None => config.servers.len(),
    };
    let admin = config.admin.listen.as_ref().map_or(0, |_| ADMIN_FILES);
    let listeners = config.client_listeners().len();
    SPARE_FILES + shards * (SHARD_FILES + listeners) + admin + links + callers
}

fn files_fit(limit: Option<u64>, config: &Config, shards: usize) -> Result<()> {
    let (limit, reserve) = (files_max(limit), reserve(limit, config, shards));
    let (clients, what, or) = match config.client.max_connections {
        Some(max) => (
            max,
            format!("client.max_connections = {max}"),
            " or lower it",
        ),
        None => (1, "a single client".into(), ""),
    };
    let needed = clients.saturating_add(reserve);
    if needed <= limit {
        return Ok(());
    }
    Err(Error::Host(format!(
        "file limit: {limit} is too low: {what} and {reserve} files of tangelo itself need {needed}; \
         raise the limit ({RAISE_FILES}){or}"
    )))
}

/// Returns a warning when the file limit leaves few clients and `client.max_connections` does not say
/// that the operator wants few.
fn few_clients(limit: Option<u64>, config: &Config, shards: usize) -> Option<String> {
    let clients = sockets_within(limit, config, shards);
    if config.client.max_connections.is_some() || clients >= CLIENTS_USUAL_MIN {
        return None;
    }
    Some(format!(
        "file limit: {} lets only {clients} clients connect; raise the limit ({RAISE_FILES}), or \
         set client.max_connections if this is enough",
        files_max(limit)
    ))
}

fn memory_fits(limit: Option<u64>, is_exempt: bool, shards: usize) -> Result<()> {
    // One more than shards, because the kernel releases the memory of the probe late.
    let executors = if is_exempt { 1 } else { shards as u64 + 1 };
    let needed = executors * LOCKED_BYTES;
    let Some(limit) = limit.filter(|limit| *limit < needed) else {
        return Ok(());
    };
    Err(Error::Host(format!(
        "memory lock limit: {} KiB is too low: io_uring needs {} KiB for {shards} shards; raise \
         the limit (ulimit -Hl, LimitMEMLOCK= of systemd, --ulimit memlock= of docker){}",
        limit >> 10,
        needed >> 10,
        if limit >= 2 * LOCKED_BYTES {
            " or start fewer --shards"
        } else {
            ""
        },
    )))
}

/// Returns whether the kernel ignores the memory that this process locks. A capability inside a container's
/// own user namespace has no such effect.
fn is_exempt() -> bool {
    let initial = fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]));
    initial && capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{ClientListener, Master, Server};
    use std::net::{Ipv4Addr, SocketAddr};

    /// Returns the text of an error of the machine.
    #[track_caller]
    pub(in crate::gateway) fn text<T: std::fmt::Debug>(result: Result<T>) -> String {
        match result {
            Err(Error::Host(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_shard_per_core_unless_configured() {
        let mut config = Config::default();
        assert_eq!(shards(&config), cores().len().min(SHARDS_MAX));
        config.shards = Some(3);
        assert_eq!(shards(&config), 3);
    }

    #[test]
    fn more_connections_than_files_are_refused() {
        let mut config = Config::default();
        config.client.max_connections = Some(1000);
        assert!(files_fit(Some(1080), &config, 2).is_ok());
        assert!(files_fit(None, &config, 2).is_ok());
        assert_eq!(
            text(files_fit(Some(1079), &config, 2)),
            "file limit: 1079 is too low: client.max_connections = 1000 and 80 files of tangelo itself \
             need 1080; raise the limit (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of \
             docker) or lower it",
        );
        config.client.max_connections = None;
        assert!(files_fit(Some(81), &config, 2).is_ok());
        assert_eq!(
            text(files_fit(Some(80), &config, 2)),
            "file limit: 80 is too low: a single client and 80 files of tangelo itself need 81; raise \
             the limit (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of docker)",
        );
    }

    #[test]
    fn a_file_limit_for_few_clients_is_a_warning_unless_they_are_wanted() {
        let mut config = Config::default();
        assert_eq!(
            few_clients(Some(100), &config, 2).unwrap(),
            "file limit: 100 lets only 20 clients connect; raise the limit (ulimit -Hn, \
             LimitNOFILE= of systemd, --ulimit nofile= of docker), or set client.max_connections \
             if this is enough",
        );
        assert!(few_clients(Some(1079), &config, 2).is_some());
        assert_eq!(few_clients(Some(1080), &config, 2), None);
        assert_eq!(few_clients(None, &config, 2), None);
        config.client.max_connections = Some(20);
        assert_eq!(few_clients(Some(100), &config, 2), None);
    }

    #[test]
    fn sockets_are_bounded_by_files_and_not_by_the_connections_wanted() {
        let mut config = Config {
            shards: Some(1),
            ..Config::default()
        };
        let files = sockets_max(&config);
        assert!(files <= SESSIONS_PER_SHARD_MAX);
        config.client.max_connections = Some(5);
        assert_eq!(sockets_max(&config), files, "silent sockets count too");
    }

    #[test]
    fn links_to_and_from_the_other_servers_are_reserved() {
        let server = Server {
            id: "a".into(),
            server_type: "t".into(),
            host: "h".into(),
            port: 1,
            ..Server::default()
        };
        let mut config = Config {
            servers: vec![server; 10],
            ..Config::default()
        };
        assert_eq!(reserve(None, &config, 2), 90);
        // Callers come by either listener, and share the places of `rpc.max_connections`.
        let address = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 3150)));
        for (plain, tls) in [(None, address), (address, address), (address, None)] {
            (config.rpc.listen, config.rpc.tls_listen) = (plain, tls);
            assert_eq!(reserve(None, &config, 2), 90 + 2 * 10 + 256);
        }
        assert_eq!(
            reserve(Some(400), &config, 2),
            90 + 50,
            "an eighth of the files"
        );
        config.rpc.max_connections = Some(120);
        assert_eq!(reserve(Some(400), &config, 2), 90 + 120);
        config.master = Some(Master {
            host: "h".into(),
            port: 1,
            token: None,
            info: serde_json::Map::new(),
            env: "development".into(),
        });
        assert_eq!(
            reserve(Some(400), &config, 2),
            80 + 60 + 120,
            "and as many links"
        );
    }

    #[test]
    fn each_further_listener_needs_a_descriptor_of_each_shard() {
        let mut config = Config::default();
        let one = reserve(None, &config, 3);
        config.listeners = vec![ClientListener::default()];
        assert_eq!(reserve(None, &config, 3), one);
        config.listeners = vec![ClientListener::default(); 3];
        assert_eq!(reserve(None, &config, 3), one + 2 * 3);
    }

    #[test]
    fn the_least_limit_of_the_cgroups_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("games/pit/memory.max", "max\n");
        write("games/memory.max", "500000000\n");
        write("memory/docker/memory.limit_in_bytes", "700000000\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let limit = |groups: &str| cgroup_memory(groups, folder.path());
        let version_1 = "12:cpu,cpuacct:/docker\n4:memory:/docker\n";
        let found = [
            limit("0::/games/pit\n"),
            limit(version_1),
            limit("4:memory:/not-seen-here\n"),
            limit("0::/\n"),
            limit(""),
        ];
        let huge = Some(9_223_372_036_854_771_712);
        assert_eq!(
            found,
            [Some(500_000_000), Some(700_000_000), huge, None, None]
        );
    }

    #[test]
    fn too_little_lockable_memory_is_refused() {
        assert!(memory_fits(None, false, 256).is_ok());
        assert!(memory_fits(Some(2560 << 10), false, 4).is_ok());
        assert!(memory_fits(Some(512 << 10), true, 4).is_ok());
        assert_eq!(
            text(memory_fits(Some(2559 << 10), false, 4)),
            "memory lock limit: 2559 KiB is too low: io_uring needs 2560 KiB for 4 shards; raise \
             the limit (ulimit -Hl, LimitMEMLOCK= of systemd, --ulimit memlock= of docker) or \
             start fewer --shards",
        );
        assert_eq!(
            text(memory_fits(Some(64 << 10), true, 4)),
            "memory lock limit: 64 KiB is too low: io_uring needs 512 KiB for 4 shards; raise the \
             limit (ulimit -Hl, LimitMEMLOCK= of systemd, --ulimit memlock= of docker)",
        );
    }
}
