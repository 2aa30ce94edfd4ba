//! SIGSTOP stops the process for a while, as does the pause of a virtual machine or the lid of a laptop,
//! and its clients keep sending.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::client::{Client, HEARTBEAT};
use crate::harness::gateway::Gateway;

const CLIENTS: usize = 1000;
const THREADS: usize = 4;
/// Distance between two heartbeats of a client; the gateway asks for one every 3 s and waits for 6 s.
const INTERVAL: Duration = Duration::from_secs(1);

#[test]
fn cuts_no_client_after_8_seconds() {
    cuts_no_client(Duration::from_secs(8));
}

/// `cargo test --test e2e pause::cuts_no_client_after_a_minute -- --ignored`
#[test]
#[ignore = "takes more than a minute; tests/memory/a_pause.rs has the same on a virtual clock"]
fn cuts_no_client_after_a_minute() {
    cuts_no_client(Duration::from_secs(60));
}

fn cuts_no_client(pause: Duration) {
    let mut gateway = Gateway::start(&["--shards", "2", "--set", "client.heartbeat=3s"]);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| Client::tcp(gateway.address()).open())
        .collect();
    let is_over = AtomicBool::new(false);
    let beat = |clients: &mut [Client]| {
        let mut beats = 0;
        while !is_over.load(Ordering::Relaxed) {
            for client in &mut *clients {
                client.send_package(HEARTBEAT, b"");
            }
            beats += 1;
            thread::sleep(INTERVAL);
        }
        // The acknowledgement is answered by one too, and each is.
        for client in clients {
            for _ in 0..=beats {
                let package = client
                    .next_package()
                    .expect("the client is still connected");
                assert_eq!(package.kind, HEARTBEAT);
            }
        }
    };
    let gone = thread::scope(|scope| {
        for clients in clients.chunks_mut(CLIENTS / THREADS) {
            scope.spawn(|| beat(clients));
        }
        let gone = Client::tcp(gateway.address()).open();
        gateway.signal("STOP");
        thread::sleep(pause);
        gateway.signal("CONT");
        // The one that sends nothing is cut when its time is over; so would the others be.
        gateway.wait_counter("closed_heartbeat_timeout", 1);
        is_over.store(true, Ordering::Relaxed);
        gone
    });
    let counters = gateway.counters();
    let closed: Vec<_> = counters
        .iter()
        .filter(|(name, _)| name.starts_with("closed_"))
        .map(|(name, count)| (name.as_str(), *count))
        .collect();
    assert_eq!(closed, [("closed_heartbeat_timeout", 1)]);
    assert!(counters["pauses"] >= 2, "one for each shard: {counters:?}");
    drop((gone, clients));
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
    for shard in 0..2 {
        let line = format!("shard {shard} was paused for ");
        assert!(printed.contains(&line), "{printed}");
    }
    assert!(printed.contains("; deadlines start again"), "{printed}");
}
