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
//! Rooms, from the ground up; each may use those before it in this list:
//!
//! * [`config`], [`limits`], [`error`], `ids`, `metrics`: knobs, bounds, names.
//! * [`pool`]: threads for what blocks. Feature `runtime`.
//! * [`wire`]: formats; bytes in, values out.
//! * `session`, `route`: who a client is; where a message goes.
//! * `client`, `push`, `peer`: protocol machines and tables, without sockets or clock.
//! * `handler`: handlers and filters of this server's own routes.
//! * `net`, `shard`, [`gateway`]: sockets, one core's world, the process. Feature `runtime`.
//!
//! Without the feature `runtime` everything up to `handler` but `pool` builds on any platform.
//!
//! To read on: `ARCHITECTURE.md`, then `client/mod.rs` for the states of a connection.

// Not in Cargo.toml: there it would hit test crates too.
#![warn(clippy::unwrap_used)]
#![deny(missing_docs)]

#[macro_use]
mod walk;

pub mod config;
pub mod error;
pub mod handler;
pub mod limits;
pub mod wire;

#[cfg(feature = "runtime")]
pub mod gateway;
#[cfg(feature = "runtime")]
#[doc(hidden)]
pub mod log;
#[cfg(feature = "runtime")]
pub mod pool;

// Inner rooms: open to benches and tests, undocumented, free to change at any time.
#[doc(hidden)]
pub mod client;
#[doc(hidden)]
pub mod ids;
#[doc(hidden)]
pub mod metrics;
#[cfg(feature = "runtime")]
#[doc(hidden)]
pub mod net;
#[doc(hidden)]
pub mod peer;
#[doc(hidden)]
pub mod push;
#[doc(hidden)]
pub mod route;
#[doc(hidden)]
pub mod session;
#[cfg(feature = "runtime")]
#[doc(hidden)]
pub mod shard;
#[doc(hidden)]
pub mod time;

pub use config::Config;
pub use error::{Error, Result};
#[cfg(feature = "runtime")]
pub use gateway::{Gateway, Running, Stopper, memory};
