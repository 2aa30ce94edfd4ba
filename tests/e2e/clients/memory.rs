//! Strangers can make the gateway hold memory up to `limits.memory`, and it gives all of it back when they leave.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::bystander::Attacked;
use crate::harness::client::HANG_GUARD;
use crate::harness::frames::{self, connect, raise_file_limit};

const MIB: u64 = 1 << 20;

/// The memory of the gateway that the ledger does not count: blocks of the allocator that are free for a moment.
const REST: u64 = 48 * MIB;

#[test]
fn strangers_hold_no_more_than_the_limit_and_it_comes_back_without_traffic() {
    raise_file_limit();
    for shards in [1, 4] {
        let settings = [
            "--set",
            "limits.memory=64MiB",
            "--set",
            "client.handshake_bytes_max=4MiB",
        ];
        let mut attacked = Attacked::start(shards, &settings);
        let base = attacked.gateway().rss_bytes();
        // 300 MiB, if nobody stopped them.
        let half = [&b"\x01\x40\x00\x00"[..], &vec![b'x'; 1 << 20]].concat();
        let mut most = base;
        let strangers: Vec<TcpStream> = (0..300)
            .map(|n| {
                let stream = connect(attacked.address());
                frames::write_anyway(&stream, &half);
                if n % 20 == 0 {
                    most = most.max(attacked.gateway().rss_bytes());
                }
                stream
            })
            .collect();
        attacked.assert_unharmed();
        let counters = attacked.gateway().counters();
        assert!(counters.contains_key("closed_memory"), "{counters:?}");
        most = most.max(attacked.gateway().rss_bytes());
        println!(
            "resident: {} MiB at the start, {} MiB at most",
            base / MIB,
            most / MIB
        );
        assert!(most < base + 64 * MIB + REST, "{base} → {most} bytes");
        drop(strangers);

        let deadline = Instant::now() + HANG_GUARD;
        loop {
            let now = attacked.gateway().rss_bytes();
            if now < base + 16 * MIB {
                println!("{} MiB after they left", now / MIB);
                break;
            }
            assert!(Instant::now() < deadline, "{base} → {now} bytes");
            thread::sleep(Duration::from_millis(100));
        }
        attacked.assert_unharmed();
        attacked.finish();
    }
}
