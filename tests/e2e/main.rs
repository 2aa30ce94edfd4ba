//! The promises of the binary, tried against the genuine servers it works with.
//!
//! `process` starts and stops programs; `pomelo` is a cluster made of them; `gateway` is tangelo
//! itself; `client` is the player, `frames` what no player sends, `bystander` who must not notice.
//! The other files are named after what they prove.
#![cfg(feature = "runtime")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test waits on the real clock and on other processes; the bans are for the gateway"
)]

mod bystander;
mod client;
mod clients;
mod flood;
mod forward;
mod frames;
mod gateway;
mod handlers;
mod hostile;
mod inside;
mod pomelo;
mod process;
mod random;
mod room;
