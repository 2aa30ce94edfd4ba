//! Answers every request with its body: `cargo run --release --example echo`
//!
//! It takes the command line of the binary, for example `-- --listen 127.0.0.1:3010 --shards 4`.

use tangelo::handler::{Bytes, Router};
use tangelo::{Config, Gateway};

fn main() -> tangelo::Result<()> {
    Gateway::new(Config::from_args()?)
        .handlers(|_shard| Router::new().fallback(echo))
        .run()
}

/// The text as it came: no type is asked for, so none is built.
async fn echo(body: Bytes) -> Bytes {
    body
}
