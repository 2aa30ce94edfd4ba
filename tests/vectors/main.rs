//! Compares tangelo with genuine servers, byte by byte. `README.md` names the source of the bytes.
//!
//! `codec`, `protobuf` and `rpc` ask the formats alone. The rest puts the reference application (`app`), as
//! handlers in Rust, on a gateway of its own (`server`) and lets clients send what the reference got;
//! `replay` puts a gateway into the place of the frontend of a captured cluster.
//! `differences` lists the cases in which tangelo differs.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test waits on the real clock and on other threads; the bans are for the gateway"
)]

mod codec;
mod crypto;
mod differences;
mod file;
mod protobuf;
mod rpc;
mod transcript;

#[cfg(feature = "runtime")]
#[path = "../reference/app.rs"]
#[allow(dead_code, reason = "written for more than is asked here")]
mod app;
#[cfg(feature = "runtime")]
mod backend;
#[cfg(feature = "runtime")]
#[path = "../e2e/harness/client.rs"]
#[allow(dead_code, reason = "written for more than is asked here")]
mod client;
#[cfg(feature = "runtime")]
mod filters;
#[cfg(feature = "runtime")]
mod handshake;
#[cfg(feature = "runtime")]
mod malformed;
#[cfg(feature = "runtime")]
#[path = "../e2e/harness/pause.rs"]
mod pause;
#[cfg(feature = "runtime")]
mod registration;
#[cfg(feature = "runtime")]
mod replay;
#[cfg(feature = "runtime")]
mod responses;
#[cfg(feature = "runtime")]
mod server;
