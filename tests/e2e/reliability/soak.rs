//! An hour of mixed load with a fault each minute: memory, descriptors and times do not grow.
//!
//! `TANGELO_SOAK_MINUTES` sets another length. A genuine Pomelo cluster answers what the gateway forwards.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::canaries::p99;
use crate::harness::client::{Client, Message};
use crate::harness::frames::{self, binary, frame_head, raise_file_limit};
use crate::harness::frontend::{Frontend, Kind, Knobs};
use crate::harness::gateway::Gateway;
use crate::harness::peers::{Cluster, Dialect};
use crate::harness::process::resident_bytes;
use crate::harness::random::Random;
use crate::reliability::report;
use crate::reliability::strangers::Strangers;

const ROUTE: &str = "chat.chatHandler.echo";

const MIB: f64 = (1 << 20) as f64;

const KNOBS: Knobs = Knobs {
    tangelo: &["--set", "limits.memory=256MiB", "--set", "rpc.timeout=5s"],
    genuine: &[],
};

const BETWEEN_SAMPLES: Duration = Duration::from_secs(10);
/// The time in which the allocator and all tables get to their size.
const WARM_UP_MINUTES: f64 = 5.0;

#[test]
#[ignore = "takes an hour: TANGELO_WRITE_REFERENCE=1 cargo test --release --test e2e soak -- --ignored --nocapture"]
fn in_an_hour_of_load_and_faults_memory_descriptors_and_times_do_not_grow() {
    raise_file_limit();
    let minutes = std::env::var("TANGELO_SOAK_MINUTES").map_or(60, |n| n.parse().expect("minutes"));
    let cluster = Cluster::start(Dialect::Pomelo);
    let mut frontend = Frontend::start(&cluster, Kind::Tangelo { shards: 2 }, KNOBS);
    let pid = frontend.pid();
    let load = Load::start(frontend.address());

    let begun = Instant::now();
    let mut samples = Vec::new();
    let mut faults = 0;
    while begun.elapsed() < Duration::from_secs(60 * minutes) {
        if begun.elapsed() > Duration::from_secs(60 * (faults + 1)) {
            let gateway = frontend.gateway().expect("the frontend is tangelo");
            fault(faults, gateway, &cluster);
            faults += 1;
        }
        thread::sleep(BETWEEN_SAMPLES);
        let sample = Sample::of(pid, begun, &load.counts);
        println!("{sample:?}");
        load.assert_runs();
        samples.push(sample);
    }
    let counts = load.finish();
    let gateway = frontend.gateway().expect("the frontend is tangelo");
    let closed = gateway.counters();
    println!("{closed:?}");
    assert!(!gateway.printed().contains("panicked"));
    report::write("soak", &page(&samples, faults, &counts));

    let slope = |value: fn(&Sample) -> f64| slope(&samples, value);
    let memory = slope(|sample| sample.resident_mib);
    assert!(memory < 4.0, "memory grows by {memory} MiB an hour");
    let descriptors = slope(|sample| sample.descriptors);
    assert!(descriptors < 20.0, "{descriptors} descriptors more an hour");
}

#[derive(Debug)]
struct Sample {
    minute: f64,
    resident_mib: f64,
    descriptors: f64,
    p99_ms: f64,
}

impl Sample {
    fn of(pid: u32, begun: Instant, counts: &Counts) -> Self {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
        Self {
            minute: begun.elapsed().as_secs_f64() / 60.0,
            resident_mib: resident_bytes(pid) as f64 / MIB,
            descriptors: descriptors.count() as f64,
            p99_ms: p99(counts.take_logins()).as_secs_f64() * 1000.0,
        }
    }
}

/// The change in an hour after the warm-up: the slope of the line through the medians of the minutes, so that the fault of a
/// minute does not count.
fn slope(samples: &[Sample], value: fn(&Sample) -> f64) -> f64 {
    let points = medians(samples, 1.0, value);
    let points: Vec<_> = points
        .into_iter()
        .filter(|(minute, _)| *minute >= WARM_UP_MINUTES)
        .collect();
    let count = points.len() as f64;
    let (x, y) = points
        .iter()
        .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let over = |weigh: fn(f64, f64) -> f64| {
        let weighed = points.iter().map(|point| weigh(point.0 - x, point.1 - y));
        weighed.sum::<f64>()
    };
    60.0 * over(|x, y| x * y) / over(|x, _| x * x).max(f64::MIN_POSITIVE)
}

/// The median of each period of this length, in minutes.
fn medians(samples: &[Sample], minutes: f64, value: fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    let period = |sample: &Sample| (sample.minute / minutes) as u64;
    samples
        .chunk_by(|one, next| period(one) == period(next))
        .map(|samples| {
            let mut values: Vec<f64> = samples.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            let minute = period(&samples[0]) as f64 * minutes;
            (minute, values[values.len() / 2])
        })
        .collect()
}

fn page(samples: &[Sample], faults: u64, counts: &Counts) -> String {
    let minutes = samples.last().map_or(0.0, |sample| sample.minute);
    let (forwards, refused, sessions, pushes) = (
        counts.forwards.load(Ordering::Relaxed),
        counts.refused.load(Ordering::Relaxed),
        counts.sessions.load(Ordering::Relaxed),
        counts.pushes.load(Ordering::Relaxed),
    );
    let mut page = format!(
        "{}; {minutes:.0} minutes with {faults} faults. In this time {sessions} clients came and left, {forwards} \
         messages were answered by a backend, {refused} got code 500 because of a fault, and {pushes} pushes arrived.\n\n\
         | minute | resident, MiB | descriptors | p99 of a login, ms |\n|---|---|---|---|\n",
        report::circumstances(),
    );
    let of = |value| medians(samples, 10.0, value);
    let memory = of(|sample| sample.resident_mib);
    let descriptors = of(|sample| sample.descriptors);
    let times = of(|sample| sample.p99_ms);
    for ((memory, descriptors), times) in memory.iter().zip(descriptors).zip(times) {
        if memory.0 + 1.0 > minutes {
            // The last sample may be a moment late.
            break;
        }
        let _ = writeln!(
            page,
            "| {:.0} to {:.0} | {:.1} | {:.0} | {:.1} |",
            memory.0,
            (memory.0 + 10.0).min(minutes),
            memory.1,
            descriptors.1,
            times.1
        );
    }
    let _ = writeln!(
        page,
        "| change in an hour | {:+.2} | {:+.1} | {:+.2} |",
        slope(samples, |sample| sample.resident_mib),
        slope(samples, |sample| sample.descriptors),
        slope(samples, |sample| sample.p99_ms),
    );
    page.push_str("\nA row has the medians of its minutes; the last row is the slope of a line after the first five minutes.\n");
    page
}

/// One fault after the other, and again from the first one.
fn fault(number: u64, gateway: &mut Gateway, cluster: &Cluster) {
    let pause = |seconds| thread::sleep(Duration::from_secs(seconds));
    println!("fault {number}");
    match number % 8 {
        0 => cluster.restart("chat-2"),
        1 => {
            cluster.pause("chat-1");
            pause(5);
            cluster.resume("chat-1");
        }
        2 => {
            cluster.stop_master();
            pause(5);
            cluster.start_master();
        }
        3 => {
            gateway.signal("STOP");
            pause(3);
            gateway.signal("CONT");
        }
        4 => {
            let address = gateway.address();
            let streams: Vec<_> = (0..1000).map(|_| frames::connect(address)).collect();
            streams.into_iter().for_each(frames::reset);
        }
        5 => gateway.signal("HUP"),
        6 => {
            let strangers = Strangers::start(gateway.address(), "half-packages", 200);
            pause(10);
            drop(strangers);
        }
        _ => flood(gateway.address(), Duration::from_secs(5)),
    }
}

/// Sends as fast as the gateway takes it, and reads the answers: code 500, because no server has this route.
fn flood(address: SocketAddr, period: Duration) {
    let mut client = Client::tcp(address).open();
    let end = Instant::now() + period;
    let mut id = 0;
    while Instant::now() < end {
        let ids = id + 1..=id + 500;
        id += 500;
        for id in ids.clone() {
            client.request(id, "nobody.has.this", "[1]");
        }
        for _ in ids {
            while !matches!(client.next_message(), Message::Response { .. }) {}
        }
    }
}

/// Counts of the clients.
#[derive(Default)]
struct Counts {
    forwards: AtomicU64,
    refused: AtomicU64,
    sessions: AtomicU64,
    pushes: AtomicU64,
    logins: Mutex<Vec<Duration>>,
}

impl Counts {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn add_login(&self, time: Duration) {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        logins.push(time);
    }

    /// Takes the times of logins since the last call.
    fn take_logins(&self) -> Vec<Duration> {
        mem::take(&mut self.logins.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the answer to a request that a backend echoes, and counts it and the pushes before it.
    fn take_echo(&self, client: &mut Client, expected: (u32, &str)) {
        loop {
            match client.next_message() {
                Message::Push { .. } => Self::add(&self.pushes),
                Message::Response { id, body } => {
                    assert_eq!(id, expected.0);
                    let body = String::from_utf8(body).expect("answers are UTF-8");
                    let is_echo = body == expected.1;
                    assert!(is_echo || body == r#"{"code":500}"#, "{body}");
                    return Self::add(if is_echo {
                        &self.forwards
                    } else {
                        &self.refused
                    });
                }
            }
        }
    }
}

struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        type Work = fn(SocketAddr, &Counts, &AtomicBool);
        let stop = Arc::<AtomicBool>::default();
        let counts = Arc::<Counts>::default();
        let works: [Work; 4] = [forward, forward, come_and_leave, be_strange];
        let threads = works.map(|work| {
            let (stop, counts) = (stop.clone(), counts.clone());
            thread::spawn(move || work(address, &counts, &stop))
        });
        Self {
            stop,
            counts,
            threads: threads.into(),
        }
    }

    fn assert_runs(&self) {
        let ended = self.threads.iter().any(JoinHandle::is_finished);
        assert!(!ended, "a part of the load has failed");
    }

    fn finish(self) -> Arc<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("the load runs to its end");
        }
        self.counts
    }
}

/// Twenty clients ask a backend, which also sends something to all clients from time to time.
fn forward(address: SocketAddr, counts: &Counts, stop: &AtomicBool) {
    let mut clients: Vec<Client> = (0..20)
        .map(|n| match n % 2 {
            0 => Client::tcp(address).open(),
            _ => Client::websocket(address).open(),
        })
        .collect();
    let mut number: u32 = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let body = format!(r#"{{"n":{number}}}"#);
        for client in &mut clients {
            client.request(number, ROUTE, &body);
        }
        for client in &mut clients {
            counts.take_echo(client, (number, &body));
        }
        if number.is_multiple_of(10) {
            let push = r#"{"route":"onTick","msg":{"text":"for everybody"}}"#;
            clients[0].notify("chat.chatHandler.bcast", push);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Clients log in, ask something, and leave in one of several ways.
fn come_and_leave(address: SocketAddr, counts: &Counts, stop: &AtomicBool) {
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let begun = Instant::now();
        let mut client = match number % 2 {
            0 => Client::tcp(address).open(),
            _ => Client::websocket(address).open(),
        };
        counts.add_login(begun.elapsed());
        let body = format!(r#"{{"n":{number}}}"#);
        client.request(1, ROUTE, &body);
        counts.take_echo(&mut client, (1, &body));
        Counts::add(&counts.sessions);
        if number.is_multiple_of(3) {
            let stream = client.stream().try_clone().expect("one more descriptor");
            drop(client);
            frames::reset(stream);
        }
        thread::sleep(Duration::from_millis(15));
    }
}

/// Two hundred connections at a time that are not of clients.
fn be_strange(address: SocketAddr, _: &Counts, stop: &AtomicBool) {
    let mut random = Random::of_seed(20_261_128);
    let mut held = VecDeque::<TcpStream>::new();
    while !stop.load(Ordering::Relaxed) {
        let stream = frames::connect(address);
        let some: Vec<u8> = (0..random.below(200))
            .map(|_| random.next() as u8)
            .collect();
        let bytes = match held.len() % 4 {
            0 => some,
            1 => [&b"\x01\x00\x40\x00"[..], &vec![b' '; 16_000]].concat(),
            2 => [frames::UPGRADE.as_bytes(), &frame_head(8_000), &some].concat(),
            _ => [frames::UPGRADE.as_bytes(), &binary(&some)].concat(),
        };
        frames::write_anyway(&stream, &bytes);
        held.push_back(stream);
        if held.len() > 200 {
            held.drain(..=random.below(3));
        }
        thread::sleep(Duration::from_millis(40));
    }
}
