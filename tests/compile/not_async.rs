//! A function that is not async.

use tangelo::handler::{Json, Router};

fn enter(Json(name): Json<String>) -> Json<String> {
    Json(name)
}

fn main() {
    let _ = Router::new().route("entryHandler.enter", enter);
}
