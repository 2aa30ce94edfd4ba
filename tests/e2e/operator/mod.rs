//! An operator's view: the command line, signals, the log, limits, pinned threads and held ones.

mod holds;
mod pause;
mod pinning;
mod signals;
mod start;
