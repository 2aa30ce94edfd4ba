//! Pins each shard to a core of its own, if `pin` is set.

use std::fmt;
use std::io;

use glommio::Placement;
use socket2::{Domain, SockAddr, Socket, Type};

/// The cores that shards are pinned to.
pub(super) struct Pinning {
    /// Core of each shard; `None` for a shard that runs on any core.
    cores: Vec<Option<usize>>,
    /// Reservations of these cores, held until the gateway ends.
    locks: Vec<Socket>,
}

impl Pinning {
    /// Leaves all shards to the scheduler of the kernel.
    pub(super) fn none(shards: usize) -> Self {
        Self {
            cores: vec![None; shards],
            locks: Vec::new(),
        }
    }

    /// Reserves the n-th core of `available` for shard n. Logs one warning if some shards cannot be
    /// pinned.
    pub(super) fn reserve(available: &[usize], shards: usize) -> Self {
        let count = available.len();
        if count < shards {
            tracing::warn!(
                "pin: no shard is pinned, because there are {shards} shards and {count} available \
                 cores; start at most {count} shards, or set pin = false"
            );
            return Self::none(shards);
        }
        let mut pinning = Self::none(shards);
        let mut taken = Vec::new();
        for (shard, &core) in available.iter().enumerate().take(shards) {
            match lock(core) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    taken.push(format!("shard {shard} (core {core})"));
                    continue;
                }
                // If this process may not open Unix sockets (RestrictAddressFamilies= of systemd), it
                // cannot see reservations. The operator asked for pinning, so the core is used.
                locked => pinning.locks.extend(locked.ok()),
            }
            pinning.cores[shard] = Some(core);
        }
        if !taken.is_empty() {
            tracing::warn!(
                "pin: these shards are not pinned, because another gateway has reserved their \
                 cores: {}; give each gateway cores of its own (taskset, AllowedCPUs= of systemd, \
                 --cpuset-cpus of docker), or set pin = false",
                taken.join(", ")
            );
        }
        pinning
    }

    /// Returns the placement of the executor of a shard.
    pub(super) fn placement(&self, shard: usize) -> Placement {
        self.cores[shard].map_or(Placement::Unbound, Placement::Fixed)
    }
}

/// Writes the state of pinning for the start line.
impl fmt::Display for Pinning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pinned, shards) = (self.cores.iter().flatten().count(), self.cores.len());
        match pinned {
            0 => f.write_str("not pinned"),
            _ if pinned == shards => f.write_str("pinned"),
            _ => write!(f, "{pinned} of {shards} pinned"),
        }
    }
}

/// Reserves a core among all gateways of this network namespace; gateways in containers with their own
/// network do not see each other. The kernel frees the abstract name of the socket when the process
/// ends. If another program holds the name, a shard stays unpinned. No client can connect to the
/// socket, because it never listens.
fn lock(core: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(format!("\0tangelo-core-{core}"))?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cores that no machine has, so that no other gateway reserves them.
    fn cores() -> [usize; 2] {
        let first = 1_000_000 + 10 * std::process::id() as usize;
        [first, first + 1]
    }

    #[test]
    fn each_shard_gets_a_core_until_another_gateway_has_it() {
        let cores = cores();
        let first = Pinning::reserve(&cores[..1], 1);
        assert_eq!(first.to_string(), "pinned");
        let second = Pinning::reserve(&cores, 2);
        assert_eq!(second.cores, [None, Some(cores[1])]);
        assert_eq!(second.to_string(), "1 of 2 pinned");
        drop(first);
        drop(second);
        let third = Pinning::reserve(&cores, 2);
        assert_eq!(third.cores, cores.map(Some));
    }

    #[test]
    fn more_shards_than_cores_are_not_pinned() {
        let pinning = Pinning::reserve(&cores()[..1], 2);
        assert_eq!(pinning.cores, [None, None]);
        assert_eq!(pinning.to_string(), "not pinned");
    }
}
