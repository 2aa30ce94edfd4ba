//! A remote that answers with no JSON value.

use tangelo::handler::{RemoteCall, Router};

async fn who(_: RemoteCall) -> usize {
    1
}

fn main() {
    let _ = Router::new().remote("infoRemote.who", who);
}
