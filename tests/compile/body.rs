//! A body that cannot be read from JSON.

use tangelo::handler::{Json, Router};

struct Enter {
    name: String,
}

async fn enter(Json(enter): Json<Enter>) -> Json<String> {
    Json(enter.name)
}

fn main() {
    let _ = Router::new().route("entryHandler.enter", enter);
}
