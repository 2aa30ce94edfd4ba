//! Thousands of hostile connections beside a hundred well-behaved ones: memory stays below its limit, and no answer is
//! lost or out of order.
//!
//! CI runs a tenth, and looks at memory and answers alone. By hand, with the times of the answers:
//! `cargo test --release --test e2e eighteen_thousand -- --ignored --nocapture`

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::bystander::ECHO;
use crate::harness::client::Client;
use crate::harness::frames::raise_file_limit;
use crate::harness::gateway::Gateway;

const MIB: u64 = 1 << 20;

const KINDS: [&str; 4] = ["half-handshakes", "fragments", "half-packages", "deaf"];

/// Clients that must not notice the strangers.
const CANARIES: usize = 100;

/// A hundred clients of one thread, which asks for one echo after the other.
struct Canaries {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Canaries {
    fn start(gateway: &Gateway) -> Self {
        let address = gateway.address();
        let mut clients: Vec<Client> = (0..CANARIES)
            .map(|n| match n % 2 {
                0 => Client::tcp(address).open(),
                _ => Client::websocket(address).open(),
            })
            .collect();
        let stop = Arc::<AtomicBool>::default();
        let is_over = stop.clone();
        let thread = thread::spawn(move || {
            let mut times = Vec::new();
            for n in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                for client in &mut clients {
                    let body = format!(r#"{{"n":{n}}}"#);
                    let begun = Instant::now();
                    assert_eq!(client.request_text(ECHO, &body), body);
                    times.push(begun.elapsed());
                }
                thread::sleep(Duration::from_millis(50));
            }
            times
        });
        Self { stop, thread }
    }

    /// Ends them; each got each answer. Returns the 99th percentile of the times that the answers took.
    fn finish(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let mut times = self.thread.join().expect("a canary is harmed");
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }
}

/// Processes with hostile connections.
struct Strangers(Vec<Child>);

impl Strangers {
    /// Opens `count` of them from each of two processes, which have addresses of their own.
    fn start(gateway: &Gateway, kind: &str, count: usize) -> Self {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/e2e/clients/strangers.py"
        );
        let (host, port) = (gateway.address().ip(), gateway.address().port());
        let process = |from: &str| {
            Command::new("python3")
                .arg(script)
                .args([
                    &host.to_string(),
                    &port.to_string(),
                    kind,
                    &count.to_string(),
                    from,
                ])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("python3 is needed")
        };
        let mut processes = vec![process("127.0.1.1"), process("127.0.1.2")];
        for process in &mut processes {
            let output = process.stdout.take().expect("it is piped");
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).expect("a line");
            assert_eq!(line, "ready\n", "the strangers of {kind}");
        }
        Self(processes)
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        for process in &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Plays each kind. Returns its name, the most resident memory above that of the start, and the times of the canaries
/// without and with strangers.
fn play(count: usize, memory: u64, stay: Duration) -> Vec<(&'static str, u64, [Duration; 2])> {
    raise_file_limit();
    let kinds = KINDS.map(|kind| {
        let limit = format!("limits.memory={memory}");
        let args = ["--shards", "2", "--set", &limit];
        let mut gateway = Gateway::start(&args);
        let base = gateway.rss_bytes();
        let canaries = Canaries::start(&gateway);
        thread::sleep(stay);
        let without = canaries.finish();

        let canaries = Canaries::start(&gateway);
        let strangers = Strangers::start(&gateway, kind, count / 2);
        let end = Instant::now() + stay;
        let mut most = 0;
        while Instant::now() < end {
            most = most.max(gateway.rss_bytes() - base);
            thread::sleep(Duration::from_millis(20));
        }
        let with = canaries.finish();
        let counters = gateway.counters();
        drop(strangers);
        println!(
            "{kind}: {count} connections, {} MiB more, p99 of the canaries {without:?} alone and {with:?} beside them; \
             {counters:?}",
            most / MIB
        );
        let (code, printed) = gateway.stop();
        assert_eq!(code, Some(0), "{printed}");
        (kind, most, [without, with])
    });
    kinds.into()
}

#[test]
fn a_tenth_of_them_hold_no_more_than_the_limit_and_harm_nobody() {
    for (kind, most, _) in play(1_800, 64 * MIB, Duration::from_secs(2)) {
        assert!(
            most < 64 * MIB,
            "{kind}: {most} bytes more than at the start"
        );
    }
}

#[test]
#[ignore = "takes minutes and most of a machine"]
fn eighteen_thousand_hold_no_more_than_the_limit_and_delay_nobody() {
    for (kind, most, [without, with]) in play(18_000, 512 * MIB, Duration::from_secs(20)) {
        assert!(
            most < 512 * MIB,
            "{kind}: {most} bytes more than at the start"
        );
        assert!(
            with < without + Duration::from_millis(20),
            "{kind}: {without:?} without, {with:?} with"
        );
    }
}
