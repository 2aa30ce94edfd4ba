//! Fuzz targets: any bytes go into a parser, a machine or a whole gateway, and each target checks more than that nothing
//! panics.
//!
//! `tests/fuzz/` makes a program of each target, and `tests/corpus.rs` replays the inputs of all of them that once mattered.

mod clients;
mod files;
mod formats;
mod gateway;
mod input;
pub mod ledger;
mod peers;
mod received;
pub mod simulation;
mod tls;

pub use clients::{client, http, proxy, websocket};
pub use files::{config, project};
pub use formats::{dictionary, handshake, json, message, package, protobuf_pinus, protobuf_pomelo};
pub use gateway::gateway;
pub use input::Choices;
pub use peers::{admin, master, mqtt, rpc};
pub use tls::tls;

/// A fuzz target: its name and its function.
pub type FuzzTarget = (&'static str, fn(&[u8]));

/// All targets. `tests/fuzz/` has a program and a corpus of each name.
pub const TARGETS: &[FuzzTarget] = &[
    ("admin", admin),
    ("client", client),
    ("config", config),
    ("dictionary", dictionary),
    ("gateway", gateway),
    ("handshake", handshake),
    ("http", http),
    ("json", json),
    ("master", master),
    ("message", message),
    ("mqtt", mqtt),
    ("package", package),
    ("project", project),
    ("protobuf_pinus", protobuf_pinus),
    ("protobuf_pomelo", protobuf_pomelo),
    ("proxy", proxy),
    ("rpc", rpc),
    ("tls", tls),
    ("websocket", websocket),
];
