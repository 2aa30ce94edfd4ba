//! tangelo replaces the frontend server of a Pomelo or Pinus game cluster.
//!
//! ```text
//!              ┌───────────────────────── one process ─────────────────────────┐
//!   clients    │  shard 0            shard 1            …     one per core     │   peers
//!  ──TCP/WS──▶ │  accept ─ client ─ dispatch ─ handler                         │
//!              │              ▲        │  ╲                                    │  MQTT-framed
//!  ◀─────────  │            push       │   mesh ═══ (bounded, lock-free) ═══   │ ──RPC──▶ chat-1
//!              │                       └── link of a peer that it owns ──────▶ │ ◀──────  chat-2
//!              └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! The modules from the ground up. Each may use those before it in this list:
//!
//! * `dialect`, [`config`], [`limits`], `ids`, `error`, `metrics`: differences, knobs, bounds, names.
//! * [`pool`]: threads for blocking work. Feature `runtime`.
//! * [`wire`]: formats; bytes in, values out.
//! * `session`, `route`: identity of a client; target of a message.
//! * `client`, `push`, `peer`: protocol machines and tables, without sockets or clock.
//! * `handler`: handlers and filters of this server's own routes.
//! * `checked`: the check of a configuration. Feature `runtime`.
//! * `net`, `shard`, `admin`, `gateway`: sockets, one core, the operators' port, the process. Feature `runtime`.
//!
//! Without the feature `runtime`, the modules up to `handler` except `pool` build on any platform.
//!
//! Read next: `ARCHITECTURE.md`, then `client/mod.rs` for the states of a connection.

// Not in Cargo.toml: there it would hit test crates too.
#![deny(unsafe_code)]
#![warn(clippy::unwrap_used)]
#![deny(missing_docs)]
// With `internals` the inner rooms are reachable, and the lint finds each `pub` that nothing outside
// needs. Without it all of theirs would be wrong.
#![cfg_attr(feature = "internals", warn(unreachable_pub))]
// The shards use the inner rooms; without `runtime` there are none.
#![cfg_attr(not(feature = "runtime"), allow(dead_code, unused_imports))]

#[macro_use]
mod walk;

#[cfg(feature = "runtime")]
mod admin;
#[cfg(feature = "runtime")]
mod checked;
pub mod config;
mod dialect;
pub mod handler;
pub mod limits;
pub mod wire;

#[cfg(feature = "runtime")]
pub mod pool;

mod error;
#[cfg(feature = "runtime")]
mod log;
#[cfg(feature = "runtime")]
mod net;
mod time;
#[cfg(feature = "runtime")]
mod tls;

// Inner rooms. The feature `internals` opens them to tests and benches.
#[cfg(feature = "internals")]
pub mod client;
#[cfg(not(feature = "internals"))]
mod client;
#[cfg(all(feature = "internals", feature = "runtime"))]
pub mod fuzzing;
#[cfg(all(feature = "internals", feature = "runtime"))]
pub mod gateway;
#[cfg(all(not(feature = "internals"), feature = "runtime"))]
mod gateway;
#[cfg(feature = "internals")]
pub mod ids;
#[cfg(not(feature = "internals"))]
mod ids;
#[cfg(feature = "internals")]
pub mod metrics;
#[cfg(not(feature = "internals"))]
mod metrics;
#[cfg(feature = "internals")]
pub mod peer;
#[cfg(not(feature = "internals"))]
mod peer;
#[cfg(feature = "internals")]
pub mod push;
#[cfg(not(feature = "internals"))]
mod push;
#[cfg(feature = "internals")]
pub mod route;
#[cfg(not(feature = "internals"))]
mod route;
#[cfg(feature = "internals")]
pub mod session;
#[cfg(not(feature = "internals"))]
mod session;
#[cfg(all(feature = "internals", feature = "runtime"))]
pub mod shard;
#[cfg(all(not(feature = "internals"), feature = "runtime"))]
mod shard;

pub use config::Config;
#[cfg(feature = "internals")]
pub use error::CloseReason;
pub use error::{Error, Result};
#[cfg(feature = "runtime")]
#[doc(hidden)]
pub use gateway::main;
#[cfg(feature = "runtime")]
pub use gateway::{Gateway, Program, Running, Stopper, memory};
#[cfg(all(feature = "internals", feature = "runtime"))]
pub use net::tls::{Carrier, TlsBuffers, TlsStream, vectors as tls_vectors};
