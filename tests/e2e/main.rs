//! The promises of the binary, tried against the genuine servers it works with.
//!
//! `process` starts and stops programs; `peers` is a cluster made of them; `gateway` is tangelo
//! itself, `frontend` either that or the genuine connector in its place; `client` is the player,
//! `rpc` another server. The other files are named after what they prove.
#![cfg(feature = "runtime")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test waits on the real clock and on other processes; the bans are for the gateway"
)]

mod blacklist;
mod bystander;
mod callers;
mod client;
mod clients;
mod cluster;
mod delegate;
mod examples;
mod extractors;
mod filters;
mod flood;
mod forward;
mod frames;
mod frontend;
mod gate;
mod gateway;
mod handlers;
mod handshake;
mod holds;
mod hostile;
mod inside;
mod lifecycle;
mod links;
mod misbehaving;
mod npm_clients;
mod pause;
mod peers;
mod pinning;
mod pomelo_chat;
mod pool;
mod process;
mod protobuf;
mod races;
mod random;
mod readme;
mod redis;
mod reference;
mod remotes;
mod room;
mod rpc;
mod schedulers;
mod session;
mod signals;
mod wire;
