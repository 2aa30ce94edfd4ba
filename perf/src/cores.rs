//! Which core runs what. Server and load share no core when there are enough, so that neither is
//! measured waiting for the other.

use std::fmt;
use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Cores of the server and of the load; empty sets mean that nothing is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cores {
    server: Vec<usize>,
    load: Vec<usize>,
}

impl Cores {
    /// The first `shards` available cores for the server, the next one for the load.
    pub(crate) fn plan(available: &[usize], shards: u16) -> Self {
        let shards = usize::from(shards);
        if available.len() <= shards {
            return Self {
                server: Vec::new(),
                load: Vec::new(),
            };
        }
        let (server, rest) = available.split_at(shards);
        Self {
            server: server.to_vec(),
            load: vec![rest[0]],
        }
    }

    /// For the thread that is about to start the server: a child inherits the mask, so there is no
    /// moment in which it runs elsewhere.
    pub(crate) fn pin_to_server(&self) -> io::Result<()> {
        pin(&self.server)
    }

    pub(crate) fn pin_to_load(&self) -> io::Result<()> {
        pin(&self.load)
    }
}

/// Cores that this process may use. Asked once, before anything is pinned.
pub(crate) fn available() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .collect())
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.server.is_empty() {
            return write!(f, "not pinned");
        }
        write!(
            f,
            "server on core {:?}, load on core {:?}",
            self.server, self.load
        )
    }
}

fn pin(cores: &[usize]) -> io::Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    Ok(sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_load_share_no_core_or_nothing_is_pinned() {
        let both = Cores {
            server: vec![2],
            load: vec![3],
        };
        assert_eq!(Cores::plan(&[2, 3, 5], 1), both);
        assert_eq!(
            Cores::plan(&[2, 3, 5], 2),
            Cores {
                server: vec![2, 3],
                load: vec![5]
            }
        );
        assert_eq!(Cores::plan(&[2], 1).to_string(), "not pinned");
    }
}
