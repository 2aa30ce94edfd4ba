//! Who misbehaved, and what is told to whom.
//!
//! [`Error`] speaks to the operator and is public. [`Fault`] says why one connection ends and
//! crosses rooms; each has a counter of its own name (`metrics.rs`).

use std::fmt;

/// Result of the public interface.
pub type Result<T> = std::result::Result<T, Error>;

/// Why tangelo refuses to start or had to stop. The text names file, key, value and what would be
/// accepted; it is meant to be shown as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Configuration file, project file or flag.
    Config(String),
    /// What the machine offers: memory lock limit, io_uring, file limit, ports.
    Host(String),
    /// A shard ended although nobody asked it to.
    Shard(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) | Self::Host(text) | Self::Shard(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}
