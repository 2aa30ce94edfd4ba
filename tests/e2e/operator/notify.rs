//! A service manager hears of the start, of reloads and of the stop, and gets signs of life while all shards tick.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use tangelo::handler::{Answer, Outcome, Router};
use tangelo::{Config, Gateway};
use tempfile::TempDir;

use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::peers::wait_for;
use crate::harness::process::{POLL_INTERVAL, Process};
use crate::harness::rpc::PlayedMaster;
use crate::harness::{SocketPath, free_address};

/// The time of the manager's watchdog; signs of life come twice as often.
const WATCHDOG: Duration = Duration::from_millis(400);

/// The socket of a service manager.
struct Manager {
    socket: UnixDatagram,
    place: SocketPath,
}

impl Manager {
    fn new() -> Self {
        let place = SocketPath::new();
        let socket = UnixDatagram::bind(place.path()).expect("a socket");
        socket.set_read_timeout(Some(HANG_GUARD)).expect("not zero");
        Self { socket, place }
    }

    /// The variables by which a program finds it.
    fn environment(&self) -> [String; 2] {
        [
            format!("NOTIFY_SOCKET={}", self.place.path().display()),
            format!("WATCHDOG_USEC={}", WATCHDOG.as_micros()),
        ]
    }

    /// Returns the next notice.
    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a notice comes");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Returns the next notice with this line; those before it are dropped.
    fn wait(&self, line: &str) -> String {
        let deadline = Instant::now() + HANG_GUARD;
        loop {
            let notice = self.next();
            if notice.lines().any(|it| it == line) {
                return notice;
            }
            assert!(Instant::now() < deadline, "waited for {line}");
        }
    }

    /// Drops all notices that are there.
    fn forget(&self) {
        self.socket.set_nonblocking(true).expect("a socket");
        while self.socket.recv(&mut [0; 4096]).is_ok() {}
        self.socket.set_nonblocking(false).expect("a socket");
    }
}

/// Starts the binary with a manager.
fn start(manager: &Manager, args: &[&str]) -> Process {
    let environment = manager.environment();
    let environment = environment.each_ref().map(String::as_str);
    let line = [&environment[..], &[env!("CARGO_BIN_EXE_tangelo")], args].concat();
    Process::start("tangelo", std::path::Path::new("/"), "env", &line)
}

#[test]
fn a_manager_hears_of_the_start_of_a_reload_and_of_the_drain() {
    let manager = Manager::new();
    let address = free_address().to_string();
    let mut process = start(&manager, &["--listen", &address, "--shards", "2"]);
    let ready = manager.wait("READY=1");
    let status = format!("STATUS=serves clients on {address} with 2 shards");
    assert!(ready.lines().any(|line| line == status), "{ready}");
    for _ in 0..3 {
        manager.wait("WATCHDOG=1");
    }
    process.signal("HUP");
    let reloading = manager.wait("RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    manager.wait("READY=1");
    process.signal("TERM");
    let stopping = manager.wait("STOPPING=1");
    // The delay, the timeout of the drain, and some seconds.
    assert!(
        stopping.contains("EXTEND_TIMEOUT_USEC=15000000\n"),
        "{stopping}"
    );
    assert!(
        stopping.contains("STATUS=drains, with 0 clients\n"),
        "{stopping}"
    );
    let status = process.wait_exit(HANG_GUARD).expect("it ends");
    assert_eq!(status.code(), Some(0));
}

/// Makes the project of a server `c-1`, whose master has this port.
fn project(master: u16) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("config");
    fs::create_dir(&config).expect("a temporary folder");
    let write = |name: &str, text: String| {
        fs::write(config.join(name), text).expect("a temporary file");
    };
    let [rpc, clients] = [(); 2].map(|()| free_address().port());
    write(
        "master.json",
        format!(r#"{{"host": "127.0.0.1", "port": {master}}}"#),
    );
    write(
        "servers.json",
        format!(
            r#"{{"connector": [{{"id": "c-1", "host": "127.0.0.1", "port": {rpc}, "clientPort": {clients}, "frontend": true}}]}}"#
        ),
    );
    folder
}

#[test]
fn a_manager_hears_of_a_stop_that_the_master_asks_for() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let master = listener.local_addr().expect("it listens").port();
    let folder = project(master);
    let manager = Manager::new();
    let app_dir = folder.path().to_str().expect("a path in UTF-8");
    let mut process = start(&manager, &["--app-dir", app_dir, "--id", "c-1"]);
    let mut master = PlayedMaster::accept(&listener);
    manager.wait("READY=1");
    master.stop_gateway();
    let stopping = manager.wait("STOPPING=1");
    for line in [
        "EXTEND_TIMEOUT_USEC=10000000",
        "STATUS=stops, with 0 clients",
    ] {
        assert!(stopping.lines().any(|it| it == line), "{stopping}");
    }
    let status = process.wait_exit(HANG_GUARD).expect("it ends");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_start_without_its_master_is_not_ready_and_asks_for_time() {
    let folder = project(free_address().port());
    let manager = Manager::new();
    let app_dir = folder.path().to_str().expect("a path in UTF-8");
    let mut process = start(&manager, &["--app-dir", app_dir, "--id", "c-1"]);
    let asks = "EXTEND_TIMEOUT_USEC=30000000";
    for _ in 0..3 {
        // A wait for this line is one in which READY did not come: each notice before it is a sign of life.
        loop {
            let notice = manager.next();
            if notice.lines().any(|line| line == asks) {
                assert!(notice.contains("STATUS=waits for the master"), "{notice}");
                break;
            }
            assert_eq!(notice, "WATCHDOG=1\n");
        }
    }
    process.signal("TERM");
    manager.wait("STOPPING=1");
    let status = process.wait_exit(HANG_GUARD).expect("it ends");
    assert_eq!(status.code(), Some(0));
}

// A stall.

const TEST: &str = "operator::notify::a_program_that_stalls";

/// Starts a program whose only shard has stalled, until there is a file `until`.
fn stalled_program(manager: &Manager, until: &Path) -> Process {
    let address = free_address();
    let this = env::current_exe().expect("a running program has a path");
    let [socket, watchdog] = manager.environment();
    let line = [
        &socket,
        &watchdog,
        &format!("TANGELO_TEST_LISTEN={address}"),
        &format!("TANGELO_TEST_UNTIL={}", until.display()),
        this.to_str().expect("a path in UTF-8"),
        "--exact",
        TEST,
        "--ignored",
        "--nocapture",
    ];
    let process = Process::start("stalls", std::path::Path::new("/"), "env", &line);
    manager.wait("READY=1");
    let mut client = Client::tcp(address).open();
    client.request(1, "connector.h.stall", "{}");
    wait_for("the line of the stall", || {
        process.transcript().contains(" stalled for ").then_some(())
    });
    process
}

#[test]
fn while_a_shard_stalls_there_is_no_sign_of_life() {
    let manager = Manager::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let until = folder.path().join("until");
    let _process = stalled_program(&manager, &until);
    // One sign of life may be on its way.
    thread::sleep(WATCHDOG);
    manager.forget();
    thread::sleep(3 * WATCHDOG);
    manager.socket.set_nonblocking(true).expect("a socket");
    let mut bytes = [0; 64];
    assert!(
        manager.socket.recv(&mut bytes).is_err(),
        "a sign of life in a stall"
    );
    manager.socket.set_nonblocking(false).expect("a socket");
    fs::write(&until, "").expect("a temporary file");
    manager.wait("WATCHDOG=1");
}

#[test]
fn a_stop_ends_the_process_although_a_shard_stalls() {
    let manager = Manager::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut process = stalled_program(&manager, &folder.path().join("never"));
    process.signal("INT");
    let stopping = manager.wait("STOPPING=1");
    assert!(
        stopping.contains("EXTEND_TIMEOUT_USEC=10000000"),
        "{stopping}"
    );
    let status = process.wait_exit(HANG_GUARD);
    process.wait_output_end();
    let printed = process.transcript();
    assert_eq!(
        status.and_then(|status| status.code()),
        Some(1),
        "{printed}"
    );
    assert!(
        printed.contains("shard 0 still hangs in the handler of connector.h.stall"),
        "{printed}"
    );
}

#[test]
#[ignore = "a program that another test starts"]
fn a_program_that_stalls() {
    let variable = |name: &str| env::var(name).expect("the parent process sets it");
    let config = Config {
        listen: variable("TANGELO_TEST_LISTEN").parse().expect("an address"),
        shards: Some(1),
        ..Config::default()
    };
    let until = PathBuf::from(variable("TANGELO_TEST_UNTIL"));
    let router = move |_| {
        let until = until.clone();
        Router::new().raw_route("connector.h.stall", move |_| {
            while !until.exists() {
                thread::sleep(POLL_INTERVAL);
            }
            Answer::now(Outcome::json(&b"1"[..]))
        })
    };
    let _ = Gateway::new(config).handlers(router).run();
}
