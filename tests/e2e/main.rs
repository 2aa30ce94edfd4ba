//! The promises of the binary, tried against the genuine servers it works with.
//!
//! `harness` starts servers and plays clients and peers; the other folders hold the tests by subject, in
//! files named after what they prove.
#![cfg(feature = "runtime")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test waits on the real clock and on other processes; the bans are for the gateway"
)]

mod application;
mod clients;
mod cluster;
mod harness;
mod moving;
mod operator;
mod reliability;
