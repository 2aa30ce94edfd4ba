//! The binary under test, as an operator runs it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::client::HANG_GUARD;
use crate::harness::ledger::{self, Counters, Descriptors};
use crate::harness::peers::{Cluster, Dialect};
use crate::harness::process::{POLL_INTERVAL, Process, resident_bytes};

const TANGELO: &[&str] = &[env!("CARGO_BIN_EXE_tangelo")];
const ANY_PORT: Option<&str> = Some("127.0.0.1:0");

/// A running gateway. Dropping it checks its counters and descriptors, and kills it.
pub(crate) struct Gateway {
    process: Process,
    address: SocketAddr,
    /// Its descriptors when it had started; `None` for one that was killed.
    at_start: Option<Descriptors>,
    /// Its memory at that time.
    rss_at_start: u64,
    /// Its log has a line for each close.
    logs_closes: bool,
    _turn: Turn,
}

impl Gateway {
    /// Starts the gateway on a free port of the loopback and waits until it listens. Its log has a line for each close,
    /// unless the test sets `log` itself, or a file that could.
    pub(crate) fn start(args: &[&str]) -> Self {
        let is_set = |arg: &&str| arg.starts_with("log.") || *arg == "--config";
        let logs_closes = !args.iter().any(is_set);
        let level = ["--set", ledger::CLOSES_LOGGED];
        let level = if logs_closes { &level[..] } else { &[] };
        let args = [level, args].concat();
        let mut gateway = Self::start_in(Turn::take(false), TANGELO, ANY_PORT, &args);
        gateway.logs_closes = logs_closes;
        gateway
    }

    /// The same, on an address of the test's own.
    pub(crate) fn start_on(listen: &str, args: &[&str]) -> Self {
        Self::start_in(Turn::take(false), TANGELO, Some(listen), args)
    }

    /// The same with sections `[[listener]]` alone; the first one has a TCP address.
    pub(crate) fn start_with_listeners(args: &[&str]) -> Self {
        Self::start_in(Turn::take(false), TANGELO, None, args)
    }

    /// The addresses of its listeners, where it has several or one with rules of its own.
    pub(crate) fn listeners(&mut self) -> Vec<String> {
        let line = self.wait_printed("listeners: ");
        let (_, addresses) = line.split_once("listeners: ").expect("they follow");
        let without_rules = |text: &str| text.split(" (").next().map(String::from);
        addresses.split(", ").filter_map(without_rules).collect()
    }

    /// Starts the same with this limit of open files.
    pub(crate) fn start_with_files(files: u32, args: &[&str]) -> Self {
        let limit = format!("--nofile={files}");
        let program = ["prlimit", &limit, "--", TANGELO[0]];
        Self::start_in(Turn::take(false), &program, ANY_PORT, args)
    }

    /// The same, with the signals that a shell may have it ignore, and without a core file when one of
    /// them ends it.
    pub(crate) fn start_with_default_signals(args: &[&str]) -> Self {
        let program = [
            "env",
            "--default-signal",
            "prlimit",
            "--core=0",
            "--",
            TANGELO[0],
        ];
        Self::start_in(Turn::take(false), &program, ANY_PORT, args)
    }

    /// The same, in a time zone as `TZ` names it.
    pub(crate) fn start_in_zone(zone: &str, args: &[&str]) -> Self {
        let program = ["env", &format!("TZ={zone}"), TANGELO[0]];
        Self::start_in(Turn::take(false), &program, ANY_PORT, args)
    }

    /// The same, on an address of the test's own, with another temporary folder.
    pub(crate) fn start_with_temporary_folder(folder: &str, listen: &str) -> Self {
        let program = ["env", &format!("TMPDIR={folder}"), TANGELO[0]];
        Self::start_in(Turn::take(false), &program, Some(listen), &[])
    }

    /// The same, as process 1 of a container. It can be killed, and takes no other signals.
    pub(crate) fn start_in_container(args: &[&str]) -> Self {
        let program = [
            "unshare",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
            TANGELO[0],
        ];
        let mut gateway = Self::start_in(Turn::take(false), &program, ANY_PORT, args);
        gateway.forget();
        gateway
    }

    /// Starts an example, which takes the same arguments, with each `NAME=VALUE` in its environment.
    pub(crate) fn start_example(name: &str, environment: &[&str], args: &[&str]) -> Self {
        let program = example(name);
        let program = [&["env"], environment, &[&program]].concat();
        Self::start_in(Turn::take(false), &program, ANY_PORT, args)
    }

    /// The same with sections `[[listener]]` alone; the first one has a TCP address.
    pub(crate) fn start_example_with_listeners(name: &str, args: &[&str]) -> Self {
        Self::start_in(Turn::take(false), &[&example(name)], None, args)
    }

    /// The same, while no other gateway of this test binary runs: for tests that measure time.
    pub(crate) fn start_alone(args: &[&str]) -> Self {
        Self::start_in(Turn::take(true), TANGELO, ANY_PORT, args)
    }

    /// Starts a gateway that is to refuse. Its exit code and all it printed.
    pub(crate) fn refused(args: &[&str]) -> (Option<i32>, String) {
        let _turn = Turn::take(false);
        let mut process = Process::start("tangelo", Path::new("/"), TANGELO[0], args);
        let Some(status) = process.wait_exit(HANG_GUARD) else {
            panic!("it does not refuse\n{}", process.transcript());
        };
        process.wait_output_end();
        (status.code(), process.transcript())
    }

    fn start_in(turn: Turn, program: &[&str], listen: Option<&str>, args: &[&str]) -> Self {
        let [program, wrapped @ ..] = program else {
            panic!("no program");
        };
        let listen = listen.map(|listen| ["--listen", listen]);
        let listen = listen.iter().flatten();
        let args = wrapped.iter().chain(listen).chain(args).copied();
        let args: Vec<&str> = args.collect();
        let mut process = Process::start("tangelo", Path::new("/"), program, &args);
        let what =
            "line with `listening on ADDRESS:PORT`, or `takes clients on` it without a master";
        let address: SocketAddr = process.wait_for_line(what, 0, HANG_GUARD, |line| {
            let starts = ["listening on ", "takes clients on "];
            let (_, after) = starts.iter().find_map(|start| line.split_once(start))?;
            after.split([' ', ',', '"']).next()?.parse().ok()
        });
        let mut gateway = Self {
            process,
            address,
            at_start: None,
            rss_at_start: 0,
            logs_closes: false,
            _turn: turn,
        };
        if args.iter().any(|arg| arg.starts_with("admin.listen=")) {
            // It is open, or a warning says that it is not.
            gateway.wait_printed("the operators' port");
        }
        gateway.at_start = Descriptors::of(gateway.pid(), address.port());
        gateway.rss_at_start = gateway.rss_bytes();
        gateway
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns all counters, summed over the shards.
    pub(crate) fn counters(&mut self) -> Counters {
        let from = self.process.lines_printed();
        self.process.signal("USR1");
        let what = "line with the counters";
        self.process
            .wait_for_line(what, from, HANG_GUARD, counters_in)
    }

    /// Waits until a counter is at least `least`, and returns it. An unknown name counts as 0.
    pub(crate) fn wait_counter(&mut self, name: &str, least: u64) -> u64 {
        let deadline = Instant::now() + HANG_GUARD;
        loop {
            let counters = self.counters();
            let value = counters.get(name).copied().unwrap_or_default();
            if value >= least {
                return value;
            }
            let late = Instant::now() >= deadline;
            assert!(!late, "waited for {name} ≥ {least}: {counters:?}");
            thread::sleep(10 * POLL_INTERVAL);
        }
    }

    /// Waits for a printed line with this part, and returns it.
    pub(crate) fn wait_printed(&mut self, part: &str) -> String {
        let deadline = Instant::now() + HANG_GUARD;
        loop {
            let printed = self.printed();
            if let Some(line) = printed.lines().find(|line| line.contains(part)) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "waited for {part:?}");
            thread::sleep(10 * POLL_INTERVAL);
        }
    }

    /// All it has printed so far.
    pub(crate) fn printed(&self) -> String {
        self.process.transcript()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn has_exited(&mut self) -> bool {
        self.process.has_exited().is_some()
    }

    /// Its exit code once it has ended by itself (`None` when a signal ended it).
    pub(crate) fn wait_exit(&mut self) -> Option<i32> {
        let Some(status) = self.process.wait_exit(HANG_GUARD) else {
            panic!("tangelo does not stop within {HANG_GUARD:?}");
        };
        self.process.wait_output_end();
        status.code()
    }

    /// SIGTERM, and no waiting.
    pub(crate) fn terminate(&mut self) {
        self.signal("TERM");
    }

    /// A signal by its short name, as of `kill`.
    pub(crate) fn signal(&mut self, name: &str) {
        self.process.signal(name);
    }

    /// SIGTERM. Its exit code (`None` when a signal ended it) and all it printed.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        self.terminate();
        (self.wait_exit(), self.process.transcript())
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.forget();
        self.process.kill();
    }

    /// Does not check it when it is dropped: it cannot answer, or the test has made it lose something.
    pub(crate) fn forget(&mut self) {
        self.at_start = None;
    }

    /// Waits until it has given back what it no longer needs.
    fn settle_memory(&self) {
        // A shard that had much to do keeps some buffers.
        const REST: u64 = 16 << 20;
        let deadline = Instant::now() + HANG_GUARD;
        while self.rss_bytes() > self.rss_at_start + REST {
            let (now, at_start) = (self.rss_bytes(), self.rss_at_start);
            assert!(Instant::now() < deadline, "{at_start} → {now} bytes");
            thread::sleep(4 * POLL_INTERVAL);
        }
    }

    /// Checks that everything it took has an end or is still there.
    fn check_ledger(&mut self, at_start: Descriptors) {
        if self.has_exited() {
            self.process.wait_output_end();
            let printed = self.printed();
            let lines = printed
                .lines()
                .filter_map(|line| line.strip_prefix("out| "));
            if let Some(counters) = lines.filter_map(counters_in).next_back() {
                ledger::check_last(&counters);
                if self.logs_closes {
                    assert_eq!(ledger::closes_of(&printed, &counters), Ok(()));
                }
            }
            return;
        }
        ledger::settle(|| self.counters());
        if self.logs_closes {
            let deadline = Instant::now() + HANG_GUARD;
            // The lines are written a moment later than the numbers.
            loop {
                let counters = self.counters();
                let Err(open) = ledger::closes_of(&self.printed(), &counters) else {
                    break;
                };
                assert!(Instant::now() < deadline, "{open}: {counters:?}");
                thread::sleep(4 * POLL_INTERVAL);
            }
        }
        let panics = self.counters();
        let panics = panics.keys().find(|name| name.contains("panic"));
        assert_eq!(panics, None);
        self.settle_memory();
        let (pid, port) = (self.pid(), self.address.port());
        ledger::settle_descriptors(pid, port, at_start, || {
            let connections = self.counters().get("connections").copied();
            usize::try_from(connections.unwrap_or_default()).expect("a number of connections")
        });
    }

    /// The memory it has in use, as the kernel counts it.
    pub(crate) fn rss_bytes(&self) -> u64 {
        resident_bytes(self.pid())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            eprint!("{}", self.process.transcript());
        } else if let Some(at_start) = self.at_start {
            self.check_ledger(at_start);
        }
    }
}

/// The program of an example. A test alone does not have cargo build it, so that is done here.
fn example(name: &str) -> String {
    let this = std::env::current_exe().expect("a running program has a path");
    let profile = this
        .ancestors()
        .nth(2)
        .expect("the program is in <profile>/deps");
    let target = profile
        .parent()
        .expect("a profile is in the target directory");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--example", name, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.status().expect("cargo runs");
    assert!(built.success(), "cargo build --example {name}: {built}");
    let program = profile.join("examples").join(name);
    program.to_str().expect("a path in UTF-8").to_owned()
}

/// Returns the counters in a line of standard output, in either format of the log.
fn counters_in(line: &str) -> Option<Counters> {
    if line.starts_with('{') {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        return serde_json::from_value(line.get("counters")?.clone()).ok();
    }
    line.strip_prefix("counters ").map(ledger::parsed)
}

/// The right to run a gateway, or a genuine connector: many at a time, or one alone.
pub(crate) struct Turn {
    alone: bool,
}

struct Running {
    shared: u32,
    alone: bool,
}

static RUNNING: Mutex<Running> = Mutex::new(Running {
    shared: 0,
    alone: false,
});
static FINISHED: Condvar = Condvar::new();

impl Turn {
    pub(crate) fn shared() -> Self {
        Self::take(false)
    }

    /// One alone waits until nobody runs, without holding up others: a test with a second gateway
    /// to start would otherwise wait for one that waits for it.
    fn take(alone: bool) -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |running: &mut Running| running.alone || (alone && running.shared > 0);
        let mut running = FINISHED
            .wait_while(running, busy)
            .unwrap_or_else(PoisonError::into_inner);
        if alone {
            running.alone = true;
        } else {
            running.shared += 1;
        }
        Self { alone }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if self.alone {
            running.alone = false;
        } else {
            running.shared -= 1;
        }
        FINISHED.notify_all();
    }
}

#[test]
fn a_gateway_stops_on_sigterm_with_status_0() {
    let cluster = Cluster::shared(Dialect::Pomelo);
    let connector = cluster.take_connector();
    let args = ["--app-dir", cluster.app_dir(), "--id", connector.id()];
    let mut gateway = Gateway::start(&args);
    assert!(gateway.rss_bytes() > 0);
    gateway.counters();
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");

    let gateway = Gateway::start(&args);
    let address = gateway.address();
    gateway.kill();
    // The kernel ends an io_uring, and the sockets in it, a moment after its process.
    let deadline = Instant::now() + HANG_GUARD;
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "somebody still listens");
        thread::sleep(Duration::from_millis(20));
    }
}
