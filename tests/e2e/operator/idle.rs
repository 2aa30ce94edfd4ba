//! Shards that have nothing to do cost nothing.

use std::thread;
use std::time::Duration;

use super::holds::Thread;
use crate::harness::client::Client;
use crate::harness::gateway::Gateway;

#[test]
fn shards_without_clients_sleep_until_one_comes() {
    const SHARDS: usize = 8;
    /// A shard that ticks runs some twenty times in this time.
    const WATCHED: Duration = Duration::from_secs(1);
    let count = SHARDS.to_string();
    let gateway = Gateway::start_example("echo", &[], &["--shards", &count]);
    let threads = Thread::of_shards(gateway.pid(), SHARDS);
    // The gateway may still be busy with its start.
    thread::sleep(WATCHED / 2);
    let slices = || threads.iter().map(|thread| thread.look().slices);
    let before: Vec<u64> = slices().collect();
    thread::sleep(WATCHED);
    let ran: Vec<u64> = slices()
        .zip(before)
        .map(|(now, before)| now - before)
        .collect();
    assert!(ran.iter().all(|ran| *ran <= 2), "{ran:?}");
    for _ in 0..2 * SHARDS {
        let mut client = Client::tcp(gateway.address()).open();
        client.request(1, "connector.h.echo", "{}");
        assert_eq!(client.wait_response(1), b"{}");
    }
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
}
