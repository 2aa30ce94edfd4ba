//! SIGHUP: keys that change while tangelo runs, those that need a restart, and mistakes.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::client::{Client, HANDSHAKE};
use crate::harness::gateway::Gateway;
use crate::harness::peers::wait_for;

/// A route without a handler, and its answer.
const ROUTE: &str = "connector.h.m";
const SERVED: &str = r#"{"code":500}"#;

/// A configuration file of a test.
pub(super) struct File(PathBuf);

impl File {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let name = format!("tangelo-reload-{name}-{}.toml", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
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

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
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

/// Returns whether the gateway answers the handshake of a new client.
fn takes_a_client(gateway: &Gateway) -> bool {
    let mut client = Client::tcp(gateway.address());
    client.send_package(HANDSHAKE, br#"{"sys":{}}"#);
    client.next_package().is_some()
}

#[test]
fn limits_lists_and_the_log_level_change_while_it_runs() {
    let file = File::new("live", "shards = 2\n");
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
    inside.request(9, ROUTE, &long);
    assert_eq!(inside.next_package(), None);
    assert_eq!(gateway.stop().0, Some(0));
}

#[test]
fn the_addresses_of_trusted_proxies_change_while_it_runs() {
    let text = |trusted: &str| {
        format!(
            "[client]\nreal_ip_header = \"X-Real-IP\"\nblacklist = [\"192[.]0[.]2[.]7\"]\ntrusted_proxies = [{trusted}]\n"
        )
    };
    let file = File::new("proxies", &text("\"10.0.0.1\""));
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
}

#[test]
fn a_mistake_in_the_file_keeps_the_old_values_and_says_why() {
    let good = "[client]\nmax_connections = 1\n";
    let file = File::new("bad", good);
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
