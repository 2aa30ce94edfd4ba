//! A session on another thread than its shard's.

use tangelo::handler::{Router, Session};

async fn enter(session: Session) {
    std::thread::spawn(move || session.kick(None));
}

fn main() {
    let _ = Router::new().route("entryHandler.enter", enter);
}
