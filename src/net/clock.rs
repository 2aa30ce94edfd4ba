//! The only place that asks what time it is.

use std::time::{Duration, Instant};

/// Now.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets other tasks run and the reactor look at sockets. Yielding alone does not poll them.
pub async fn breathe() {
    glommio::timer::sleep(Duration::from_micros(1)).await;
}
