//! Gives each shard a core of its own, where `pin` asks for it.

use std::fmt;
use std::io;

use glommio::Placement;
use socket2::{Domain, SockAddr, Socket, Type};

/// The cores that shards are pinned to.
pub(super) struct Pinning {
    /// By shard; `None` where a shard runs on any core.
    cores: Vec<Option<usize>>,
    /// Reservations of these cores, until the gateway has ended.
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

    /// Chooses the n-th of `available` for shard n, and reserves it. Logs one warning when some
    /// shards cannot be pinned.
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
                // Where this process may not have Unix sockets, as with RestrictAddressFamilies= of
                // systemd, nobody can be asked; the operator has asked for pinning.
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

    /// Returns the placement of a shard's executor.
    pub(super) fn placement(&self, shard: usize) -> Placement {
        self.cores[shard].map_or(Placement::Unbound, Placement::Fixed)
    }
}

/// As in the start line.
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

/// Reserves a core among all gateways of this network namespace: gateways in containers with networks
/// of their own do not see each other. The kernel frees the abstract name of the socket with the
/// process, however that ends. Another program that holds the name costs one shard its core. Nobody
/// can connect, since the socket never listens.
fn lock(core: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(format!("\0tangelo-core-{core}"))?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cores that no machine has, so that no gateway beside this test reserves them.
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
