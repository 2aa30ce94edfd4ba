//! The only place that asks what time it is.

use std::time::{Duration, Instant};

/// Now.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970, for names that others read.
pub fn unix_ms() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_millis()
}

/// The local time of a moment that is not long ago, `MMddhhmm` with hours of 24.
pub fn local_time(at: Instant) -> String {
    let then = jiff::Zoned::now().saturating_sub(now().saturating_duration_since(at));
    then.strftime("%m%d%H%M").to_string()
}

/// Resident memory of this process, bytes; 0 when the kernel does not say.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Lets other tasks run and the reactor look at sockets. Yielding alone does not poll them.
pub async fn breathe() {
    glommio::timer::sleep(Duration::from_micros(1)).await;
}
