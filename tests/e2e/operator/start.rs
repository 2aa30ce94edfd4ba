//! The start of the binary as an operator sees it: its start line, its warnings, and the errors that name
//! a mistake.

use std::fs;
use std::net::TcpListener;

use tempfile::NamedTempFile;

use crate::harness::bystander::ECHO;
use crate::harness::certificates::Certificates;
use crate::harness::client::Client;
use crate::harness::free_address;
use crate::harness::gateway::Gateway;

/// Stops a gateway that has `files` descriptors and two shards. The end of its start line, behind the id,
/// and its warnings but those of a machine that is busy with other tests.
fn started(files: u32, args: &[&str]) -> (String, Vec<String>) {
    let args = [&["--shards", "2"], args].concat();
    let (code, printed) = Gateway::start_with_files(files, &args).stop();
    assert_eq!(code, Some(0), "{printed}");
    let line = |line: &str| Some(line.split_once(" id connector-1 ")?.1.to_owned());
    let of_machine = ["was paused for", "runs again after", "lost a wake-up"];
    let is_of_machine = |line: &str| of_machine.iter().any(|part| line.contains(part));
    let warnings = printed.lines().filter(|line| line.contains("WARN"));
    let warnings = warnings.filter(|line| !is_of_machine(line));
    let warnings = warnings.map(str::to_owned).collect();
    (printed.lines().find_map(line).expect(&printed), warnings)
}

#[test]
fn the_start_line_says_how_many_clients_fit() {
    let (line, warnings) = started(2000, &[]);
    assert_eq!(line, "shards 2 (not pinned) clients up to 1920");
    assert_eq!(warnings, [""; 0]);
    let (line, warnings) = started(2000, &["--set", "client.max_connections=10"]);
    assert_eq!(line, "shards 2 (not pinned) clients up to 10");
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn the_lines_after_it_name_the_version_the_configuration_the_limits_and_the_cluster() {
    let config = NamedTempFile::new().expect("a temporary file");
    let path_text = config.path().to_str().expect("a path in UTF-8");
    fs::write(&config, "[client]\nheartbeat = \"3s\"\n").expect("a temporary file");
    let gateway = Gateway::start(&["--config", path_text, "--set", "rpc.timeout=7s"]);
    let (code, printed) = gateway.stop();
    assert_eq!(code, Some(0), "{printed}");
    let version = env!("CARGO_PKG_VERSION");
    let lines: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("out| "))
        .collect();
    let [address, program, limits, cluster, ..] = lines[..] else {
        panic!("{printed}")
    };
    assert!(
        address.starts_with("tangelo listening on 127.0.0.1:"),
        "{printed}"
    );
    let expected = format!(
        "version {version}, commit unknown; configuration: {path_text}, --set rpc.timeout=7s, --listen 127.0.0.1:0"
    );
    assert_eq!(program, &expected);
    for part in [
        r#"client.heartbeat = "3s""#,
        r#"client.package_bytes_max = "4MiB""#,
        r#"rpc.timeout = "7s""#,
    ] {
        assert!(
            limits.starts_with("limits: ") && limits.contains(part),
            "{printed}"
        );
    }
    assert_eq!(
        cluster,
        "cluster: no master, 0 servers of the configuration"
    );
}

#[test]
fn the_lines_of_a_start_say_where_tls_is_and_which_certificates_it_uses() {
    let certificates = Certificates::local();
    let files = certificates.set(&["a"]);
    for (listeners, expected) in [
        (
            "listener=[{address='127.0.0.1:0', tls='required'}]",
            "listeners: 127.0.0.1:PORT (tls required)",
        ),
        (
            "listener=[{address='127.0.0.1:0', tls='optional', transports=['websocket']},\
             {address='127.0.0.1:0', transports=['tcp']}, {address='127.0.0.1:0'}]",
            "listeners: 127.0.0.1:PORT (websocket; tls optional), 127.0.0.1:PORT (tcp), 127.0.0.1:PORT",
        ),
    ] {
        let gateway = Gateway::start_with_listeners(&["--set", listeners, "--set", &files]);
        let (code, printed) = gateway.stop();
        assert_eq!(code, Some(0), "{printed}");
        let lines = printed
            .lines()
            .filter_map(|line| line.strip_prefix("out| "));
        let lines: Vec<&str> = lines.collect();
        let parts = lines[1].split("127.0.0.1:");
        let parts: Vec<&str> = parts
            .map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()))
            .collect();
        assert_eq!(parts.join("127.0.0.1:PORT"), expected, "{printed}");
        let certificate = format!("certificates: {} (valid until ", certificates.path("a.pem"));
        assert!(lines[2].starts_with(&certificate), "{printed}");
    }
}

#[test]
fn a_file_limit_for_few_clients_is_a_warning() {
    let (line, warnings) = started(100, &[]);
    assert_eq!(line, "shards 2 (not pinned) clients up to 20");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let text = "file limit: 100 lets only 20 clients connect; raise the limit (ulimit -Hn";
    assert!(warnings[0].contains(text), "{warnings:?}");
}

#[test]
fn a_gateway_that_has_ended_leaves_no_file_behind() {
    let folder = tempfile::tempdir().expect("an empty folder");
    let path = folder.path().to_str().expect("a path in UTF-8");
    let start = || Gateway::start_with_temporary_folder(path, &free_address().to_string());
    assert_eq!(start().stop().0, Some(0));
    start().kill();
    // Fails when there is a file in it.
    fs::remove_dir(&folder).expect("nothing is left");
}

#[test]
fn a_port_that_is_taken_is_named_and_nobody_is_disturbed() {
    // By any program; by a tangelo on a port the kernel chose, or on one of its own.
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let any = Gateway::start(&[]);
    let own = Gateway::start_on(&free_address().to_string(), &[]);
    let taken = [
        other.local_addr().expect("the socket is bound"),
        any.address(),
        own.address(),
    ];
    for address in taken {
        let (code, printed) = Gateway::refused(&["--listen", &address.to_string()]);
        assert_eq!(code, Some(2), "{printed}");
        let lines: Vec<&str> = printed.lines().skip(1).collect();
        assert_eq!(lines.len(), 1, "{printed}");
        let expected = format!("err| tangelo: cannot listen on {address}: ");
        assert!(lines[0].starts_with(&expected), "{printed}");
        assert!(lines[0].contains("already listens there"), "{printed}");
    }
    for gateway in [&any, &own] {
        assert_eq!(
            Client::tcp(gateway.address())
                .open()
                .request_text(ECHO, "1"),
            "1"
        );
    }
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_file_line_and_key() {
    let config = NamedTempFile::new().expect("a temporary file");
    let path_text = config.path().to_str().expect("a path in UTF-8");
    for (file, line, key) in [
        (
            "[client]\n# none\nhartbeat = \"3s\"\n",
            3,
            "client.hartbeat",
        ),
        ("id = \"a\"\n\ncleint = 1\n", 3, "cleint"),
        ("[client]\nheartbeat = \"soon\"\n", 2, "client.heartbeat"),
        (
            "[client]\nmax_connections = 0\n",
            2,
            "client.max_connections",
        ),
        (
            "listen = \"127.0.0.1:3010\"\n[admin]\nlisten = \"0.0.0.0:3010\"\n",
            3,
            "admin.listen = \"0.0.0.0:3010\": listen = \"127.0.0.1:3010\" takes this address already",
        ),
        ("id = 1 = 2\n", 1, ""),
    ] {
        fs::write(&config, file).expect("a temporary file");
        let (code, printed) = Gateway::refused(&["--config", path_text]);
        assert_eq!(code, Some(2), "{printed}");
        assert_eq!(printed.lines().count(), 2, "{printed}");
        let expected = format!("err| tangelo: {path_text}:{line}: {key}");
        assert!(
            printed.contains(&expected),
            "{expected:?} is not in {printed}"
        );
    }
    fs::remove_file(&config).expect("our own file");
    let (code, printed) = Gateway::refused(&["--config", path_text]);
    assert_eq!(
        (code, printed.contains(path_text)),
        (Some(2), true),
        "{printed}"
    );
    for (value, part) in [
        ("client.hartbeat=3s", "client.hartbeat"),
        ("client.heartbeat=soon", "client.heartbeat"),
        ("client.heartbeat", "KEY=VALUE"),
        ("shards=0", "shards"),
    ] {
        let (code, printed) = Gateway::refused(&["--set", value]);
        assert_eq!(code, Some(2), "{printed}");
        assert_eq!(printed.lines().count(), 2, "{printed}");
        assert!(
            printed.contains("err| tangelo: ") && printed.contains(part),
            "{printed}"
        );
    }
}

#[test]
fn a_project_with_odd_files_starts_and_each_oddity_is_a_warning() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("config");
    fs::create_dir_all(&config).expect("a temporary folder");
    for (name, text) in [
        (
            "servers.json",
            r#"{"development": {"//": "see the wiki",
                "connector": [{"id":"c-1","host":"127.0.0.1","port":1,"clientPort":2,"frontend":true}],
                "http": [{"id":"http-1","host":"127.0.0.1","httpPort":8080}]}}"#,
        ),
        ("dictionary.json", r#"{"onChat": 1}"#),
        ("crons.json", "[]"),
    ] {
        fs::write(config.join(name), text).expect("a temporary file");
    }
    let app_dir = folder.path().to_str().expect("a path in UTF-8");
    for use_dict in ["client.use_dict=true", "client.use_dict=false"] {
        for dialect in ["pomelo", "pinus"] {
            let gateway = Gateway::start(&[
                "--app-dir",
                app_dir,
                "--id",
                "c-1",
                "--dialect",
                dialect,
                "--set",
                "cluster.join=false",
                "--set",
                use_dict,
            ]);
            let (_, printed) = gateway.stop();
            for (file, count) in [
                ("servers.json: http[0] http-1: port", 1),
                ("dictionary.json: ", 1),
                // An empty list is as good as an empty object.
                ("crons.json: ", 0),
            ] {
                let lines = printed.lines();
                let warnings = lines.filter(|line| line.contains("WARN") && line.contains(file));
                assert_eq!(warnings.count(), count, "{file}: {printed}");
            }
        }
    }
}

#[test]
fn a_project_that_cannot_start_is_refused_with_one_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let app_dir = folder.path().to_str().expect("a path in UTF-8");
    let own = r#"{"id":"c-1","host":"127.0.0.1","port":1,"clientPort":2,"frontend":true}"#;
    let servers = ("config/servers.json", format!(r#"{{"connector":[{own}]}}"#));
    let pinus = (
        "package.json",
        r#"{"dependencies":{"pinus":"1.7.4"}}"#.into(),
    );
    let script = |name| (name, "module.exports = {};".to_owned());
    for (files, arg, part) in [
        (
            vec![script("config/servers.ts")],
            "--dialect=pinus",
            format!("{app_dir}/config/servers.ts: tangelo reads only JSON; "),
        ),
        (
            vec![servers.clone(), script("config/master.js")],
            "--dialect=pinus",
            format!("{app_dir}/config/master.js: tangelo reads only JSON; "),
        ),
        (
            vec![servers, pinus],
            "--dialect=pomelo",
            format!(
                "--dialect pomelo: expected pinus, because {app_dir}/package.json depends on it"
            ),
        ),
    ] {
        fs::create_dir_all(folder.path().join("config")).expect("a temporary folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a temporary file");
        }
        let (code, printed) = Gateway::refused(&["--app-dir", app_dir, "--id", "c-1", arg]);
        assert_eq!((code, printed.lines().count()), (Some(2), 2), "{printed}");
        assert!(
            printed.contains(&format!("err| tangelo: {part}")),
            "{printed}"
        );
        fs::remove_dir_all(&folder).expect("our own folder");
    }
}
