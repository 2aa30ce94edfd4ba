//! The chat room of the binary, as a program of its own: `cargo run --release --example chat`, then open
//! the address that it prints in two tabs.
//!
//! Over `https://` and `wss://`, with a certificate made in one command that a browser must be told to trust:
//!
//! ```sh
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost \
//!     -addext "subjectAltName=DNS:localhost,IP:127.0.0.1" -keyout privkey.pem -out fullchain.pem
//! cargo run --release --example chat -- --set "listener=[{address='127.0.0.1:3443', tls='required'}]" \
//!     --set "tls.certificates=[{chain='fullchain.pem', key='privkey.pem'}]"
//! ```
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
