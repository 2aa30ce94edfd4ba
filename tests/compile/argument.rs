//! An argument that is not an extractor.

use tangelo::handler::{Json, Router};

async fn enter(name: String) -> Json<String> {
    Json(name)
}

fn main() {
    let _ = Router::new().route("entryHandler.enter", enter);
}
