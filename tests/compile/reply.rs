//! A return value that is not a reply.

use tangelo::handler::{Router, Session};

async fn enter(_: Session) -> usize {
    1
}

fn main() {
    let _ = Router::new().route("entryHandler.enter", enter);
}
