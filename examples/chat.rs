//! The chat room of the binary, as a program of its own: `cargo run --release --example chat`, then open
//! the address that it prints in two tabs.
//!
//! Its handlers are in `src/gateway/room.rs`; they use only the public API.

use tangelo::{Config, Gateway, handler};

#[path = "../src/gateway/room.rs"]
mod room;

fn main() -> tangelo::Result<()> {
    let room = room::Room::default();
    Gateway::new(Config::from_args()?)
        .handlers(move |_shard| room.router())
        .page(room::PAGE)
        .run()
}
