//! Effects of signals on the binary; and a stalled reader of its output cannot delay its end.

use std::io::{PipeReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;
use std::{env, fs, thread};

use serde_json::Value;
use tangelo::handler::Router;
use tangelo::{Config, Gateway as Program};
use tempfile::NamedTempFile;

use crate::harness::bystander::ECHO;
use crate::harness::client::{Client, HANDSHAKE, HANG_GUARD};
use crate::harness::free_address;
use crate::harness::gateway::{Gateway, Turn};
use crate::harness::peers::wait_for;
use crate::harness::process::{POLL_INTERVAL, Process};

#[test]
fn signals_that_ask_for_no_end_do_not_end_a_gateway() {
    let mut gateway = Gateway::start(&["--shards", "2"]);
    let mut client = Client::tcp(gateway.address()).open();
    for signal in ["HUP", "USR1", "USR2", "PIPE", "ALRM"] {
        for _ in 0..3 {
            gateway.signal(signal);
        }
        assert_eq!(client.request_text(ECHO, "1"), "1", "after SIG{signal}");
        gateway.counters();
    }
    gateway.wait_printed("SIGUSR2 has no effect on tangelo");
    gateway.wait_printed("SIGHUP: nothing has changed");
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
}

#[test]
fn signals_that_report_a_fault_keep_their_default() {
    for signal in ["QUIT", "ABRT"] {
        let mut gateway = Gateway::start_with_default_signals(&[]);
        gateway.signal(signal);
        assert_eq!(gateway.wait_exit(), None, "SIG{signal} ends it");
    }
}

#[test]
fn a_blacklist_file_that_may_never_end_is_refused() {
    let listen = ["--listen", "127.0.0.1:0"];
    let file = ["--set", "client.blacklist_file=/dev/null"];
    let (code, printed) = Gateway::refused(&[listen, file].concat());
    assert_eq!(code, Some(2));
    let text = "client.blacklist_file: /dev/null: it is not a regular file";
    assert!(printed.contains(text), "{printed}");
}

#[test]
fn sighup_reads_the_blacklist_again_and_says_so() {
    let file = NamedTempFile::new().expect("a temporary file");
    fs::write(&file, "10.9.9.9\n").expect("a file");
    let key = format!(
        "client.blacklist_file={:?}",
        file.path().to_str().expect("UTF-8")
    );
    let mut gateway = Gateway::start(&["--set", &key]);
    let said = "the blacklist has been read";
    let count = |gateway: &Gateway| gateway.printed().matches(said).count();
    // It is read once by itself.
    wait_for(said, || (count(&gateway) == 1).then_some(()));
    for times in 2..5 {
        gateway.signal("HUP");
        wait_for(said, || (count(&gateway) == times).then_some(()));
    }
    fs::write(&file, "127.0.0.1\n").expect("a file");
    gateway.signal("HUP");
    let address = gateway.address();
    wait_for("a client that is refused", || {
        drop(TcpStream::connect(address));
        let counters = gateway.counters();
        counters.get("closed_blacklisted").copied()
    });
}

/// A gateway of which one stream is a pipe that nobody reads.
struct Unread {
    child: Child,
    address: SocketAddr,
    pipe: Option<PipeReader>,
    _turn: Turn,
}

impl Unread {
    /// `stream`: 1 for standard output, 2 for standard error.
    fn start(stream: u8) -> Self {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        // This fills the pipe: the next write of the gateway blocks.
        writer
            .write_all(&[b'\n'; 64 << 10])
            .expect("the body fits into a package");
        Self::writing_to(stream, writer.into(), Some(reader))
    }

    fn writing_to(stream: u8, output: Stdio, pipe: Option<PipeReader>) -> Self {
        let address = free_address();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_tangelo")])
            .args(["--listen", &address.to_string(), "--shards", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match stream {
            1 => command.stdout(output),
            _ => command.stderr(output),
        };
        let turn = Turn::shared();
        let child = command.spawn().expect("setpriv of util-linux runs");
        wait_for("a listener", || TcpStream::connect(address).ok());
        Self {
            child,
            address,
            pipe,
            _turn: turn,
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let kill = Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid])
            .status();
        assert!(kill.expect("sh runs").success());
    }

    fn wait_exit(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + HANG_GUARD;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return Some(status);
            }
            thread::sleep(POLL_INTERVAL);
        }
        None
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn output_that_nobody_reads_does_not_hold_up_the_end() {
    for stream in [1, 2] {
        let mut gateway = Unread::start(stream);
        for _ in 0..20 {
            gateway.signal("USR1");
            gateway.signal("HUP");
        }
        let mut client = Client::tcp(gateway.address).open();
        assert_eq!(
            client.request_text(ECHO, "1"),
            "1",
            "the gateway still answers"
        );
        gateway.signal("TERM");
        let status = gateway.wait_exit();
        let code = status.map(|status| status.code());
        assert_eq!(code, Some(Some(0)), "with stream {stream} blocked");
    }
}

#[test]
fn a_gateway_whose_readers_have_gone_serves_and_ends() {
    for stream in [1, 2] {
        let mut gateway = Unread::start(stream);
        drop(gateway.pipe.take());
        for signal in ["USR1", "HUP", "USR1"] {
            gateway.signal(signal);
            let mut client = Client::tcp(gateway.address).open();
            assert_eq!(
                client.request_text(ECHO, "1"),
                "1",
                "the gateway still answers"
            );
        }
        gateway.signal("TERM");
        // A signal may come at each moment of the end.
        let end = Instant::now() + HANG_GUARD;
        let code = loop {
            if let Some(status) = gateway.child.try_wait().expect("our own child") {
                break status.code();
            }
            assert!(Instant::now() < end, "stream {stream}: it does not end");
            gateway.signal("USR1");
        };
        assert_eq!(code, Some(0), "without a reader of stream {stream}");
    }
}

#[test]
fn a_disk_that_is_full_costs_the_log_and_nothing_else() {
    for stream in [1, 2] {
        // Each write of this device fails as that of a full disk does.
        let full = fs::File::create("/dev/full").expect("Linux has it");
        let mut gateway = Unread::writing_to(stream, full.into(), None);
        for signal in ["USR1", "HUP", "USR1"] {
            gateway.signal(signal);
            let mut client = Client::tcp(gateway.address).open();
            assert_eq!(client.request_text(ECHO, "1"), "1", "with stream {stream}");
        }
        gateway.signal("TERM");
        let code = gateway.wait_exit().map(|status| status.code());
        assert_eq!(code, Some(Some(0)), "with stream {stream}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once_and_says_how_many_clients_are_cut() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
        let (mut process, address) = SlowProgram::start();
        let _clients = [(); 3].map(|()| Client::tcp(address).open());
        process.signal(first);
        process.wait_for_line("line of before_stop", 0, HANG_GUARD, |line| {
            (line == STOPPING).then_some(())
        });
        process.signal(second);
        let status = process.wait_exit(HANG_GUARD).expect("the process ends");
        assert_eq!(status.code(), Some(1));
        process.wait_output_end();
        let printed = process.transcript();
        let said = format!(
            "SIG{second} came a second time: the process ends at once and cuts the connections of its \
             clients clients=3"
        );
        assert!(printed.contains(&said), "{printed}");
        assert!(printed.contains("counters "), "{printed}");
    }
}

const STOPPING: &str = "before_stop has begun";

/// A program of its own whose `before_stop` never ends.
struct SlowProgram;

impl SlowProgram {
    const TEST: &str = "operator::signals::a_program_that_other_tests_start";

    fn start() -> (Process, SocketAddr) {
        let address = free_address();
        let this = env::current_exe().expect("a running program has a path");
        let this = this.to_str().expect("a path in UTF-8");
        let listen = format!("TANGELO_TEST_LISTEN={address}");
        let args = [
            &listen,
            this,
            "--exact",
            Self::TEST,
            "--ignored",
            "--nocapture",
        ];
        let mut process = Process::start("slow", std::path::Path::new("/"), "env", &args);
        process.wait_for_line("a listener", 0, HANG_GUARD, |line| {
            line.contains("listening on ").then_some(())
        });
        (process, address)
    }
}

#[test]
#[ignore = "a program that other tests start"]
fn a_program_that_other_tests_start() {
    let listen = env::var("TANGELO_TEST_LISTEN").expect("the parent process sets the address");
    let config = Config {
        listen: listen.parse().expect("an address"),
        shards: Some(1),
        stop_timeout: HANG_GUARD,
        ..Config::default()
    };
    let router = |_| {
        Router::new().before_stop(async |_| {
            println!("{STOPPING}");
            std::future::pending().await
        })
    };
    let ended = Program::new(config).handlers(router).run();
    panic!("the second signal must end the process: {ended:?}");
}

// Lines.

/// Number in front of ` more in`, for a line that is a summary of lines with this text.
fn summarised(line: &str, text: &str) -> Option<u64> {
    let (before, after) = line.split_once(" more in ")?;
    let number = before.rsplit(' ').next()?.parse().ok()?;
    after.contains(text).then_some(number)
}

#[test]
fn a_thousand_refused_clients_make_a_handful_of_lines_that_add_up() {
    const REFUSED: u64 = 1000;
    let args = [
        "--set",
        "client.max_connections=1",
        "--set",
        "log.level=info",
    ];
    let mut gateway = Gateway::start(&args);
    let _inside = Client::tcp(gateway.address()).open();
    for _ in 0..REFUSED {
        let mut client = Client::tcp(gateway.address());
        client.send_package(HANDSHAKE, br#"{"sys":{}}"#);
        assert_eq!(client.next_package(), None);
    }
    gateway.wait_counter("closed_max_connections", REFUSED);
    let suppressed = gateway.counters()["log_lines_suppressed"];
    let (_, printed) = gateway.stop();
    let text = "raise client.max_connections or the file limit address=\"127.0.0.1:";
    let lines: Vec<&str> = printed.lines().filter(|line| line.contains(text)).collect();
    let summaries = lines.iter().filter_map(|line| summarised(line, text));
    let (count, total) = summaries.fold((0, 0), |(count, total), n| (count + 1, total + n));
    let single = lines.len() as u64 - count;
    assert_eq!((single + total, total), (REFUSED, suppressed), "{printed}");
    // More than one window only where the machine is slow.
    assert!(count >= 1 && single <= 10 * (count + 1), "{printed}");
}

#[test]
fn with_json_each_line_of_both_streams_is_json() {
    let max = "client.max_connections=1";
    let mut gateway = Gateway::start(&["--set", "log.format=json", "--set", max]);
    let _inside = Client::tcp(gateway.address()).open();
    for _ in 0..20 {
        let mut client = Client::tcp(gateway.address());
        client.send_package(HANDSHAKE, br#"{"sys":{}}"#);
        assert_eq!(client.next_package(), None);
    }
    for signal in ["USR1", "HUP", "USR2"] {
        gateway.signal(signal);
    }
    gateway.wait_printed("SIGUSR2");
    let address = gateway.address();
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0));
    let lines = printed.lines().skip(1).map(|line| {
        let (_, line) = line.split_once("| ").expect("the stream");
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    let lines: Vec<Value> = lines.collect();
    let find = |text: &str| {
        let text_of = |line: &&Value| line["message"].as_str().is_some_and(|it| it.contains(text));
        let found = lines.iter().find(text_of);
        found.unwrap_or_else(|| panic!("no {text:?} in {printed}"))
    };
    let start = find("listening on ");
    assert_eq!(start["address"], address.to_string());
    assert_eq!(find("open http://")["url"], format!("http://{address}/"));
    assert_eq!(find("counters ")["counters"]["connections_accepted"], 21);
    assert_eq!(find(" more in ")["suppressed"], 10);
}

#[test]
fn with_json_the_error_of_a_failed_start_is_json() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = taken.local_addr().expect("bound").to_string();
    let file = NamedTempFile::new().expect("a temporary file");
    fs::write(&file, "stray = 1\n[log]\nformat = \"json\"\n").expect("a file");
    let file_name = file.path().to_str().expect("a text");
    for args in [
        &["--listen", &listen, "--set", "log.format=json"][..],
        &["--set", "stray=1", "--set", "log.format=json"],
        &["--set", "log.format=json", "--config", "/no/such/file"],
        &["--config", file_name],
    ] {
        let (code, printed) = Gateway::refused(args);
        assert_eq!(code, Some(2));
        let (_, line) = printed.trim_end().rsplit_once("err| ").expect("a line");
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {printed}"));
        assert_eq!(
            (&line["level"], &line["target"]),
            (&"ERROR".into(), &"tangelo".into())
        );
    }
}

#[test]
fn the_url_of_an_ipv6_address_can_be_opened() {
    // A machine without an IPv6 loopback address reaches a port of all addresses too.
    for (listen, host) in [("[::1]:0", "[::1]"), ("[::]:0", "127.0.0.1")] {
        let mut gateway = Gateway::start_on(listen, &[]);
        let url = format!("open http://{host}:{}/ in", gateway.address().port());
        gateway.wait_printed(&url);
    }
}

// The project's own handlers.

/// Text of the warning about handlers that nobody runs.
const JAVASCRIPT: &str = "are JavaScript, which does not run here: their routes get code 500; \
                          set delegate";

#[test]
fn handlers_in_javascript_that_nobody_runs_are_a_warning_at_the_start() {
    let root = tempfile::tempdir().expect("a temporary folder");
    let servers = r#"{"development": {
        "connector": [{"id": "c-1", "host": "127.0.0.1", "port": 3150, "clientPort": 3010, "frontend": true}],
        "chat": [{"id": "chat-1", "host": "127.0.0.1", "port": 6050}]
    }}"#;
    for (name, folder, args, is_warned) in [
        ("pomelo", "app/servers/connector/handler", &[][..], true),
        ("pinus", "dist/app/servers/connector/handler", &[], true),
        ("other", "app/servers/chat/handler", &[], false),
        (
            "delegate",
            "app/servers/connector/handler",
            &["--set", "delegate=\"chat\""],
            false,
        ),
    ] {
        let project = root.path().join(name);
        fs::create_dir_all(project.join("config")).expect("a folder");
        fs::create_dir_all(project.join(folder)).expect("a folder");
        fs::write(project.join("config/servers.json"), servers).expect("a file");
        fs::write(project.join(folder).join("entryHandler.js"), "").expect("a file");
        let project = project.to_str().expect("UTF-8");
        let own = [
            "--app-dir",
            project,
            "--id",
            "c-1",
            "--set",
            "cluster.join=false",
        ];
        let gateway = Gateway::start(&[&own, args].concat());
        let (code, printed) = gateway.stop();
        assert_eq!(code, Some(0), "{printed}");
        assert_eq!(
            printed.matches(JAVASCRIPT).count(),
            usize::from(is_warned),
            "{name}: {printed}"
        );
        assert!(!is_warned || printed.contains(folder), "{printed}");
    }
}
