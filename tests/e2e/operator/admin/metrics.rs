//! `/metrics`, as Prometheus' own programs read it, and its cost for the shards.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::start;
use crate::harness::admin::AdminPort;
use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::process::{POLL_INTERVAL, Process};
use crate::harness::{debian, free_address};
use crate::operator::holds::Thread;

const OPEN_METRICS: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: \
    application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n";

#[test]
fn metrics_have_the_counters_of_each_shard_and_the_reasons_of_closes() {
    let (mut gateway, port) = start(&["--shards", "2"]);
    drop(Client::tcp(gateway.address()).open());
    gateway.wait_counter("closed_left", 1);
    let sum = |name: &str| {
        let text = port.get("/metrics").body;
        let lines = text.lines().filter(|line| line.starts_with(name));
        let values = lines.map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        values.sum::<Option<u64>>().expect("numbers")
    };
    assert_eq!(sum("tangelo_connections_accepted_total{shard="), 1);
    assert_eq!(
        sum("tangelo_connections_closed_total{reason=\"left\",shard="),
        1
    );
    assert_eq!(sum("tangelo_connections{shard="), 0);
    let client = Client::tcp(gateway.address()).open();
    assert_eq!(sum("tangelo_connections{shard="), 1);
    drop(client);
}

#[test]
fn promtool_finds_no_fault_in_the_metrics() {
    debian::need("prometheus");
    let (_gateway, port) = start(&["--shards", "2"]);
    let answer = port.get("/metrics");
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4"),
        "{}",
        answer.head
    );
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the package prometheus has promtool");
    let mut stdin = promtool.stdin.take().expect("piped above");
    stdin.write_all(answer.body.as_bytes()).expect("it reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_parser_of_openmetrics_reads_each_metric_with_its_documentation() {
    let (_gateway, port) = start(&["--shards", "2"]);
    let answer = port.ask(OPEN_METRICS);
    assert!(
        answer
            .head
            .contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{}",
        answer.head
    );
    let script = "\
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
for family in parse(sys.stdin.read()):
    assert family.documentation, family.name
    print(family.name, family.type, len(family.samples))
";
    let mut python = Command::new("python3")
        .args(["-c", script])
        .env("PYTHONPATH", python_packages())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("python3 is needed");
    let mut stdin = python.stdin.take().expect("piped above");
    stdin.write_all(answer.body.as_bytes()).expect("it reads");
    drop(stdin);
    let output = python.wait_with_output().expect("it runs");
    assert!(output.status.success(), "{}", output.status);
    let families = String::from_utf8(output.stdout).expect("a text");
    let families: BTreeSet<&str> = families.lines().collect();
    for family in [
        "tangelo_requests counter 2",
        "tangelo_connections gauge 2",
        "tangelo_build info 1",
        "tangelo_ready gauge 1",
        "process_cpu_seconds counter 1",
    ] {
        assert!(families.contains(family), "{family}: {families:?}");
    }
}

/// Returns a folder with the Python package `prometheus-client`.
fn python_packages() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus-client");
        if folder.join("prometheus_client").exists() {
            return folder;
        }
        let target = folder.to_str().expect("a path in UTF-8");
        let args = ["-m", "pip", "install", "--quiet", "--target", target];
        let installed = Command::new("python3")
            .args(args)
            .arg("prometheus-client")
            .status();
        assert!(
            installed.is_ok_and(|status| status.success()),
            "the Python package prometheus-client is needed, and `pip install prometheus-client` failed"
        );
        folder
    });
    &FOLDER
}

#[test]
fn a_prometheus_server_scrapes_twice_and_knows_the_numbers() {
    debian::need("prometheus");
    let (gateway, port) = start(&["--shards", "2"]);
    let _clients = [(); 3].map(|()| Client::websocket(gateway.address()).open());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("prometheus.yml");
    let target = port.address();
    let text = format!(
        "scrape_configs:\n- job_name: tangelo\n  scrape_interval: 1s\n  static_configs:\n  - targets: ['{target}']\n"
    );
    fs::write(&config, text).expect("a file of our own");
    let server = free_address();
    let args = [
        format!("--config.file={}", config.display()),
        format!(
            "--storage.tsdb.path={}",
            folder.path().join("data").display()
        ),
        format!("--web.listen-address={server}"),
    ];
    let mut prometheus = Process::start("prometheus", folder.path(), "prometheus", &args);
    let ask = |query: &str| -> Option<Value> {
        let stream = std::net::TcpStream::connect(server).ok()?;
        drop(stream);
        let line = format!("GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n");
        let answer = AdminPort::Tcp(server).ask(&line);
        let answer: Value = serde_json::from_str(&answer.body).ok()?;
        let value = answer["data"]["result"].get(0)?["value"][1].as_str()?;
        value.parse().ok()
    };
    let deadline = Instant::now() + 2 * HANG_GUARD;
    let wait_for = |prometheus: &mut Process, query: &str, least: f64| {
        while ask(query).and_then(|value| value.as_f64()) < Some(least) {
            let text = || prometheus.transcript();
            assert!(Instant::now() < deadline, "{query} < {least}\n{}", text());
            thread::sleep(20 * POLL_INTERVAL);
        }
    };
    wait_for(&mut prometheus, "count_over_time(up[1h])", 2.0);
    wait_for(&mut prometheus, "sum(tangelo_connections)", 3.0);
    assert_eq!(ask("up"), Some(1.into()), "{}", prometheus.transcript());
    assert_eq!(ask("count(tangelo_requests_total)"), Some(2.into()));
}

#[test]
fn scrapes_and_a_slow_reader_give_the_shards_no_work() {
    const SHARDS: usize = 4;
    const SCRAPES: usize = 200;
    let (gateway, port) = start(&["--shards", "4"]);
    let threads = Thread::of_shards(gateway.pid(), SHARDS);
    // The gateway may still be busy with its start.
    thread::sleep(Duration::from_millis(500));
    let slices = || -> Vec<u64> { threads.iter().map(|it| it.look().slices).collect() };
    let before = slices();
    // It asks, and reads nothing.
    let mut slow = std::net::TcpStream::connect(port.address()).expect("the port is open");
    slow.write_all(OPEN_METRICS.as_bytes()).expect("it is open");
    let (scrapes, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(port.ask(OPEN_METRICS).status, 200);
                    let done = scrapes.fetch_add(1, Ordering::Relaxed) + 1;
                    is_over.fetch_or(done >= SCRAPES, Ordering::Relaxed);
                }
            });
        }
    });
    let ran: Vec<u64> = slices().iter().zip(&before).map(|(a, b)| a - b).collect();
    // Shards without clients sleep. Each scrape that woke them would count.
    assert!(ran.iter().all(|ran| *ran <= 4), "{ran:?}");
}

#[test]
fn the_work_of_a_shard_for_its_clients_does_not_depend_on_the_scrapes() {
    const MESSAGES: usize = 100;
    const SCRAPES: usize = 10 * MESSAGES;
    const ROUTE: &str = "connector.h.m";
    let (gateway, port) = start(&["--shards", "1"]);
    let thread = &Thread::of_shards(gateway.pid(), 1)[0];
    // Without heartbeats a WebSocket has no deadline, so the shard does not tick.
    let mut client = Client::websocket(gateway.address()).open();
    client.request_text(ROUTE, "{}");
    let mut sleeps_during = |pause: &dyn Fn(usize)| {
        let before = thread.sleeps();
        for message in 0..MESSAGES {
            pause(message);
            client.request_text(ROUTE, "{}");
        }
        thread.sleeps() - before
    };
    let alone = sleeps_during(&|_| thread::sleep(Duration::from_millis(5)));
    let (scrapes, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let beside = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(port.ask(OPEN_METRICS).status, 200);
                    scrapes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| read_a_byte_a_second(&port, &is_over));
        let beside = sleeps_during(&|message| {
            let begun = Instant::now();
            while scrapes.load(Ordering::Relaxed) < message * SCRAPES / MESSAGES {
                assert!(begun.elapsed() < HANG_GUARD, "the port has no answers");
                thread::sleep(Duration::from_millis(1));
            }
        });
        is_over.store(true, Ordering::Relaxed);
        beside
    });
    // If each scrape woke the shard once, it would sleep a thousand times more.
    let most = alone + MESSAGES as u64;
    println!("{alone} sleeps alone, {beside} beside {scrapes:?} scrapes");
    assert!(beside <= most, "{beside} sleeps, {alone} without scrapes");
}

/// Asks for the metrics, and reads the answer as slowly as that.
fn read_a_byte_a_second(port: &AdminPort, is_over: &AtomicBool) {
    let mut stream = std::net::TcpStream::connect(port.address()).expect("the port is open");
    stream
        .write_all(OPEN_METRICS.as_bytes())
        .expect("it is open");
    let mut next = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            // The port closes a connection that is too slow.
            let _ = stream.read(&mut [0]);
            next += Duration::from_secs(1);
        }
        thread::sleep(POLL_INTERVAL);
    }
}
