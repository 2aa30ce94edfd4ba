//! SIGHUP: keys that change while tangelo runs, those that need a restart, and mistakes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use serde_json::Value;
use tempfile::{NamedTempFile, TempPath};

use crate::harness::client::{Client, HANDSHAKE};
use crate::harness::gateway::Gateway;
use crate::harness::peers::wait_for;

/// A route without a handler, and its answer.
const ROUTE: &str = "connector.h.m";
const SERVED: &str = r#"{"code":500}"#;

/// Flag of `open(2)`.
const O_NONBLOCK: i32 = 0o4000;

/// A configuration file of a test.
pub(super) struct File(TempPath);

impl File {
    pub(super) fn new(text: &str) -> Self {
        let file = NamedTempFile::new().expect("a temporary file");
        let file = Self(file.into_temp_path());
        file.write(text);
        file
    }

    pub(super) fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("a temporary file");
    }

    pub(super) fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

/// Sends SIGHUP and returns the text of its line.
fn reload(gateway: &mut Gateway) -> String {
    let said = |gateway: &Gateway| -> Vec<String> {
        let printed = gateway.printed();
        let lines = printed
            .lines()
            .filter_map(|line| line.split_once(" SIGHUP: "));
        lines.map(|(_, text)| text.to_owned()).collect()
    };
    let before = said(gateway).len();
    gateway.signal("HUP");
    wait_for("the line of SIGHUP", || said(gateway).get(before).cloned())
}

#[test]
fn a_change_of_compat_changes_nothing_before_a_restart() {
    let file = File::new("");
    let mut gateway = Gateway::start(&["--config", file.path()]);
    file.write("compat = \"exact\"\nlog.level = \"debug\"\n");
    for _ in 0..2 {
        let line = reload(&mut gateway);
        let expected = "the configuration stays as it was: compat has changed, ";
        assert!(line.starts_with(expected), "{line}");
    }
    file.write("log.level = \"debug\"\n");
    assert_eq!(reload(&mut gateway), "changed log.level = \"debug\"");
}

/// Returns whether the gateway answers the handshake of a new client.
fn takes_a_client(gateway: &Gateway) -> bool {
    let mut client = Client::tcp(gateway.address());
    client.send_package(HANDSHAKE, br#"{"sys":{}}"#);
    client.next_package().is_some()
}

#[test]
fn limits_lists_and_the_log_level_change_while_it_runs() {
    let file = File::new("shards = 2\n");
    let mut gateway = Gateway::start(&["--config", file.path()]);
    let mut inside = Client::tcp(gateway.address()).open();
    assert_eq!(inside.request_text(ROUTE, "1"), SERVED);
    assert_eq!(reload(&mut gateway), "nothing has changed");

    // The limit of clients holds for the next one, and goes again.
    file.write("shards = 3\n[client]\nmax_connections = 1\n");
    let restart = "a restart is needed for shards";
    let expected = format!("changed client.max_connections = 1; {restart}");
    assert_eq!(reload(&mut gateway), expected);
    wait_for("a refused client", || {
        (!takes_a_client(&gateway)).then_some(())
    });
    assert_eq!(inside.request_text(ROUTE, "2"), SERVED);
    // It says so each time, until the restart.
    assert_eq!(
        reload(&mut gateway),
        format!("nothing has changed; {restart}")
    );
    file.write("shards = 2\n");
    assert_eq!(
        reload(&mut gateway),
        "changed client.max_connections = none"
    );
    wait_for("a client that is taken", || {
        takes_a_client(&gateway).then_some(())
    });

    // The log level.
    file.write("shards = 2\n[log]\nlevel = \"debug\"\n");
    assert_eq!(reload(&mut gateway), "changed log.level = \"debug\"");
    drop(Client::tcp(gateway.address()).open());
    gateway.wait_printed(" DEBUG ");

    // The blacklist.
    file.write("shards = 2\n[client]\nblacklist = [\"127\\\\.0\"]\n[log]\nlevel = \"debug\"\n");
    assert_eq!(
        reload(&mut gateway),
        "changed client.blacklist = [\"127\\\\.0\"]"
    );
    wait_for("a blacklisted client", || {
        (!takes_a_client(&gateway)).then_some(())
    });
    assert!(gateway.counters()["closed_blacklisted"] > 0);

    // A limit of packages holds for the clients that are there.
    file.write("shards = 2\n[client]\npackage_bytes_max = \"1KiB\"\n[log]\nlevel = \"debug\"\n");
    reload(&mut gateway);
    wait_for("a client that is taken", || {
        takes_a_client(&gateway).then_some(())
    });
    let long = Value::from("x".repeat(2000)).to_string();
    wait_for("a package that is too long", || {
        inside.request(9, ROUTE, &long);
        inside.next_package().is_none().then_some(())
    });
    assert_eq!(gateway.stop().0, Some(0));
}

#[test]
fn the_rules_for_trusted_proxies_change_while_it_runs() {
    let with_header = |header: &str, trusted: &str| {
        format!(
            "[client]\nreal_ip_header = \"{header}\"\nblacklist = [\"192[.]0[.]2[.]7\"]\ntrusted_proxies = [{trusted}]\n"
        )
    };
    let text = |trusted: &str| with_header("X-Real-IP", trusted);
    let file = File::new(&text("\"10.0.0.1\""));
    let mut gateway = Gateway::start(&["--config", file.path()]);
    let address = gateway.address();
    let banned = || {
        let client = Client::try_websocket(address, &[("X-Real-IP", "192.0.2.7")]);
        client.is_ok_and(|client| client.try_open().is_some())
    };
    assert!(banned(), "without trust the header does not count");
    file.write(&text("\"127.0.0.1\""));
    let expected = "changed client.trusted_proxies = [\"127.0.0.1\"]";
    assert_eq!(reload(&mut gateway), expected);
    wait_for("a header that counts", || (!banned()).then_some(()));
    file.write(&with_header("X-Other", "\"127.0.0.1\""));
    let expected = "changed client.real_ip_header = \"X-Other\"";
    assert_eq!(reload(&mut gateway), expected);
    wait_for("another header that counts", || banned().then_some(()));
    file.write("[client]\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\n");
    let said = reload(&mut gateway);
    assert!(said.contains("client.proxy_protocol = true"), "{said}");
    wait_for("a proxy that must send its header", || {
        (!takes_a_client(&gateway)).then_some(())
    });
    assert!(gateway.counters()["closed_proxy_header"] > 0);
}

#[test]
fn a_mistake_in_the_file_keeps_the_old_values_and_says_why() {
    let good = "[client]\nmax_connections = 1\n";
    let file = File::new(good);
    let mut gateway = Gateway::start(&["--config", file.path()]);
    let _inside = Client::tcp(gateway.address()).open();
    let path = file.path().to_owned();
    for (text, problem) in [
        (
            "[client]\nmax_connections = 2\nhartbeat = 1\n",
            "3: client.hartbeat: unknown key",
        ),
        ("[client]\nmax_connections = 2 3\n", "2: "),
        (
            "[log]\nlevel = \"loud\"\n",
            "2: log.level: \"loud\" is not a level",
        ),
    ] {
        file.write(text);
        let said = reload(&mut gateway);
        let expected = format!("the configuration stays as it was: {path}:{problem}");
        assert!(said.starts_with(&expected), "{said}");
    }
    file.write("[client]\nmax_connections = 1000000\n");
    let said = reload(&mut gateway);
    assert!(said.contains("stays as it was: file limit: "), "{said}");
    fs::remove_file(&path).expect("our own file");
    let said = reload(&mut gateway);
    assert!(said.contains(&format!("{path}: cannot read it")), "{said}");
    assert!(!takes_a_client(&gateway), "the old limit holds");
    file.write(good);
    assert_eq!(reload(&mut gateway), "nothing has changed");
}

#[test]
fn a_reload_is_over_when_its_blacklist_is_in_force_or_refused() {
    let list = NamedTempFile::new().expect("a temporary file");
    // With one more expression the blacklists are full. Many take a while.
    let lines: String = (1..10_000).map(|n| format!("^x{n}$\n")).collect();
    fs::write(&list, lines).expect("a temporary file");
    let text = |rest: &str| {
        format!(
            "shards = 1\n[client]\nblacklist_file = {:?}\n{rest}\n",
            list.path()
        )
    };
    let file = File::new(&text(""));
    let mut gateway = Gateway::start(&["--config", file.path()]);
    file.write(&text("blacklist = ['^127\\.']"));
    assert_eq!(
        reload(&mut gateway),
        "changed client.blacklist = [\"^127\\\\.\"]"
    );
    assert!(!takes_a_client(&gateway), "the reload is over");
    file.write(&text("max_connections = 9\nblacklist = ['^x', '^y']"));
    let bound = "client.blacklist: 10001 expressions; expected up to 10000";
    assert_eq!(
        reload(&mut gateway),
        format!("the configuration stays as it was: {bound}")
    );
    assert!(!takes_a_client(&gateway), "the old list stays");
    file.write(&text("max_connections = 9"));
    assert_eq!(
        reload(&mut gateway),
        "changed client.max_connections = 9, client.blacklist = none"
    );
    assert!(takes_a_client(&gateway));
}

#[test]
fn a_file_that_holds_its_reader_up_holds_up_no_other_signal() {
    let file = File::new("");
    let mut gateway = Gateway::start(&["--config", file.path()]);
    fs::remove_file(file.path()).expect("our own file");
    let made = Command::new("mkfifo").arg(file.path()).status();
    assert!(made.is_ok_and(|status| status.success()));
    // Without a reader of the pipe this is an error.
    let written = || {
        let mut options = fs::OpenOptions::new();
        options.write(true).custom_flags(O_NONBLOCK);
        options.open(file.path()).ok()
    };
    gateway.signal("HUP");
    let mut first = wait_for("the first reload", written);
    wait_for("one reload that waits, and one too many", || {
        gateway.signal("HUP");
        gateway
            .printed()
            .contains("one more waits for it")
            .then_some(())
    });
    first
        .write_all(b"[client]\nmax_connections = 9\n")
        .expect("a pipe");
    drop(first);
    gateway.wait_printed(" SIGHUP: changed client.max_connections = 9");
    let second = wait_for("the second reload", written);
    // The second one has not ended.
    gateway.terminate();
    gateway.wait_printed("SIGTERM begins the drain");
    assert_eq!(gateway.wait_exit(), Some(0));
    drop(second);
}

#[test]
fn a_file_of_the_project_that_needs_a_restart_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("config");
    fs::create_dir(&config).expect("a temporary folder");
    let write = |name: &str, text: &str| {
        fs::write(config.join(name), text).expect("a temporary file");
    };
    let own = r#"{"id": "c-1", "host": "127.0.0.1", "clientPort": 1, "frontend": true}"#;
    write("servers.json", &format!(r#"{{"connector": [{own}]}}"#));
    let app_dir = folder.path().to_str().expect("a path in UTF-8");
    let project = ["--app-dir", app_dir, "--id=c-1"];
    let alone = "--set=cluster.join=false";
    let mut gateway = Gateway::start(&[&project[..], &[alone]].concat());
    assert_eq!(reload(&mut gateway), "nothing has changed");
    let cron = r#"{"id": 1, "time": "0 30 10 * * *", "action": "a.b"}"#;
    write("crons.json", &format!(r#"{{"connector": [{cron}]}}"#));
    assert_eq!(
        reload(&mut gateway),
        "nothing has changed; a restart is needed for crons.json"
    );
}
