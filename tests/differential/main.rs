//! Random input through tangelo's pure rooms and through the genuine packages: both must come to the
//! same.
//!
//! A failing seed is printed; `DIFFERENTIAL_SEED=… cargo test --test differential` replays it. npm
//! installs the packages once, under the target directory.

mod crons;
mod handshake;
mod peer;
mod protobuf;
mod random;
