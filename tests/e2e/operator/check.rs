//! The commands beside `run`: `check` finds what is broken and says what to change, `config` prints the effective
//! configuration, `completions` and `help` describe the command line.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::free_address;

const TANGELO: &str = env!("CARGO_BIN_EXE_tangelo");

/// Runs the binary inside another program, which may be empty. Returns its exit code and its standard output.
fn run(wrapper: &[&str], args: &[&str]) -> (Option<i32>, String) {
    let line = [wrapper, &[TANGELO], args].concat();
    let mut command = Command::new(line[0]);
    command
        .args(&line[1..])
        .env_remove("NODE_ENV")
        .current_dir("/");
    let output = command.output().expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("text in UTF-8");
    (output.status.code(), text)
}

/// A project in a folder of the test.
struct Project {
    folder: TempDir,
    master: Option<TcpListener>,
    server: Option<TcpListener>,
    address: SocketAddr,
    rpc: SocketAddr,
}

const ID: &str = "connector-1";

impl Project {
    /// Makes a project in which nothing is broken: its master and its other server take connections.
    fn new() -> Self {
        let listener = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (master, server) = (listener(), listener());
        let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
        let (master_port, chat) = (port(&master), port(&server));
        let project = Self {
            address: free_address(),
            rpc: free_address(),
            folder: tempfile::tempdir().expect("a temporary folder"),
            master: Some(master),
            server: Some(server),
        };
        fs::create_dir(project.path("config")).expect("a temporary folder");
        project.write(
            "config/master.json",
            &format!(r#"{{"host": "127.0.0.1", "port": {master_port}}}"#),
        );
        let (client, rpc) = (project.address.port(), project.rpc.port());
        let servers = format!(
            r#"{{"development": {{
                "connector": [{{"id": "{ID}", "host": "127.0.0.1", "port": {rpc}, "clientPort": {client}, "frontend": true}}],
                "chat": [{{"id": "chat-1", "host": "127.0.0.1", "port": {chat}}}]
            }}}}"#
        );
        project.write("config/servers.json", &servers);
        project.write("tangelo.toml", "app_dir = \".\"\nshards = 2\n");
        project
    }

    fn path(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("a temporary file");
    }

    /// Runs `check` with further arguments inside another program.
    fn check(&self, wrapper: &[&str], args: &[&str]) -> (Option<i32>, String) {
        let file = self.path("tangelo.toml");
        let own = ["check", "--config", &file];
        let id: &[&str] = if args.contains(&"--id") {
            &[]
        } else {
            &["--id", ID]
        };
        run(wrapper, &[&own, id, args].concat())
    }

    /// Checks that each of these texts is in a problem of its own, and that there are no other problems.
    #[track_caller]
    fn has(&self, problems: &[&str], wrapper: &[&str], args: &[&str]) {
        let (code, printed) = self.check(wrapper, args);
        let lines = printed
            .lines()
            .filter_map(|line| line.strip_prefix("problem  "));
        let lines: Vec<&str> = lines.collect();
        assert_eq!((code, lines.len()), (Some(2), problems.len()), "{printed}");
        for problem in problems {
            let parts: Vec<&str> = problem.split(" … ").collect();
            let is_it = |line: &&str| parts.iter().all(|part| line.contains(part));
            assert!(lines.iter().any(is_it), "no {problem:?} in {printed}");
        }
    }
}

#[test]
fn a_project_in_order_has_no_problem_and_check_leaves_nothing_behind() {
    let project = Project::new();
    for _ in 0..2 {
        let (code, printed) = project.check(&[], &[]);
        assert_eq!(code, Some(0), "{printed}");
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.last(), Some(&"no problem found"), "{printed}");
        for part in [
            "ok       configuration: ",
            "ok       memory lock limit: enough for 2 shards",
            "ok       io_uring: works here",
            &format!(
                "ok       port for clients: [::]:{} is free",
                project.address.port()
            ),
            &format!("ok       port for calls: {} is free", project.rpc),
            "ok       master: 127.0.0.1:",
            "ok       server chat-1: 127.0.0.1:",
        ] {
            assert!(
                lines.iter().any(|line| line.starts_with(part)),
                "no {part:?} in {printed}"
            );
        }
    }
}

#[test]
fn a_broken_file_key_or_flag_is_named_with_the_change() {
    let project = Project::new();
    let file = project.path("tangelo.toml");
    // A file that is not there.
    let (code, printed) = run(&[], &["check", "--config", "/no/such/file.toml"]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(
        printed.contains("problem  /no/such/file.toml: cannot read it: "),
        "{printed}"
    );
    // Text that is not TOML.
    project.write("tangelo.toml", "id = 1 = 2\n");
    project.has(&[&format!("{file}:1: ")], &[], &[]);
    // Several mistakes: a line for each.
    project.write(
        "tangelo.toml",
        "app_dir = \".\"\n[client]\nhartbeat = \"3s\"\ntimeout = \"soon\"\n[log]\nformat = \"xml\"\n",
    );
    project.has(
        &[
            &format!("{file}:3: client.hartbeat: unknown key; known keys here: heartbeat"),
            &format!("{file}:4: client.timeout … expected a duration from "),
            &format!("{file}:6: log.format … expected text or json"),
            "--set shards=0: expected a number from 1 to 256",
        ],
        &[],
        &["--set", "shards=0"],
    );
    project.write("tangelo.toml", "app_dir = \".\"\n");
    // A flag without a value, an unknown dialect, an unknown strategy, a delegate that is missing.
    project.has(
        &["--set client.heartbeat: expected KEY=VALUE"],
        &[],
        &["--set", "client.heartbeat"],
    );
    project.has(
        &["--set dialect=nodejs … expected pomelo or pinus"],
        &[],
        &["--set", "dialect=nodejs"],
    );
    project.has(
        &["route.chat … fastest"],
        &[],
        &["--set", "route.chat=fastest"],
    );
    project.has(
        &["delegate to be set too"],
        &[],
        &["--set", "delegate_notices=true"],
    );
}

#[test]
fn a_broken_project_is_named_with_the_change() {
    let project = Project::new();
    // An id that the list does not have.
    project.has(
        &["no server has the id \"gate-9\"; frontends in environment \"development\": connector-1"],
        &[],
        &["--id", "gate-9"],
    );
    // An environment that the list does not have.
    project.has(
        &["no environment \"live\" … choose one with --env"],
        &[],
        &["--env", "live"],
    );
    // The token of a type that the master's file does not have.
    project.write(
        "config/adminServer.json",
        r#"[{"type": "chat", "token": "t"}]"#,
    );
    project.has(
        &["adminServer.json: no entry has the type \"connector\" … add one"],
        &[],
        &[],
    );
    fs::remove_file(project.path("config/adminServer.json")).expect("our own file");
    // A master that is nowhere named.
    let master = fs::read(project.path("config/master.json")).expect("our own file");
    fs::remove_file(project.path("config/master.json")).expect("our own file");
    project.has(
        &["master.json: not found … set cluster.join = false"],
        &[],
        &[],
    );
    // A script, which only Node reads.
    project.write("config/master.js", "module.exports = {};");
    project.has(
        &["master.js: tangelo reads only JSON; write"],
        &[],
        &["--dialect", "pinus"],
    );
    fs::write(project.path("config/master.json"), master).expect("our own file");
    // The other framework.
    project.write("package.json", r#"{"dependencies": {"pomelo": "2.2.7"}}"#);
    project.has(
        &["--dialect pinus: expected pomelo, because "],
        &[],
        &["--dialect", "pinus"],
    );
    // A list that is not JSON, and a folder without a list.
    project.write("config/servers.json", "{\"development\": {,}}");
    project.has(&["servers.json:1: "], &[], &[]);
    fs::remove_file(project.path("config/servers.json")).expect("our own file");
    project.has(
        &["servers.json: not found … --app-dir must name the folder"],
        &[],
        &[],
    );
}

#[test]
fn a_broken_machine_is_named_with_the_change() {
    let project = Project::new();
    // Files.
    project.has(
        &["file limit: 500 is too low: client.max_connections = 1000 … raise the limit (ulimit -Hn … or lower it"],
        &["prlimit", "--nofile=500", "--"],
        &["--set", "client.max_connections=1000"],
    );
    // Locked memory, which does not count for a process with this capability.
    project.has(
        &["memory lock limit: 64 KiB is too low: io_uring needs 1536 KiB for 2 shards; raise the limit (ulimit -Hl"],
        &["prlimit", "--memlock=65536", "--", "setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "--"],
        &[],
    );
    // A seccomp profile.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let refuse = refuse_io_uring(folder.path());
    project.has(
        &["io_uring does not work here: Operation not permitted … a seccomp profile that allows io_uring_setup"],
        &[&refuse],
        &[],
    );
    // A port below 1024, in a network of its own, whose lower ports are not free for all.
    let (code, printed) = run(
        &[
            "unshare",
            "--net",
            "setpriv",
            "--bounding-set=-net_bind_service",
            "--inh-caps=-net_bind_service",
            "--",
        ],
        &["check", "--listen", "0.0.0.0:80", "--shards", "1"],
    );
    assert_eq!(code, Some(2), "{printed}");
    let expected = "problem  cannot listen on 0.0.0.0:80: Permission denied (os error 13); a port below 1024 needs \
                    CAP_NET_BIND_SERVICE (setcap";
    assert!(printed.contains(expected), "{printed}");
}

/// Compiles the program that refuses io_uring to another one.
fn refuse_io_uring(folder: &Path) -> String {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/operator/check/no_io_uring.c");
    let program = folder.join("no_io_uring");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-o"]).arg(&program).arg(source);
    let compiled = compiler.status().expect("a C compiler is installed");
    assert!(compiled.success(), "cc: {compiled}");
    program.to_str().expect("a path in UTF-8").to_owned()
}

#[test]
fn a_port_a_file_or_a_server_that_is_not_there_is_named_with_the_change() {
    let mut project = Project::new();
    let [address, rpc] = [project.address, project.rpc];
    // Ports that others have, and one for two purposes.
    let busy = TcpListener::bind(("0.0.0.0", address.port())).expect("a free port");
    project.has(
        &["cannot listen on [::]: … stop it or choose another --listen or clientPort"],
        &[],
        &[],
    );
    drop(busy);
    let busy = TcpListener::bind(rpc).expect("a free port");
    project.has(
        &["(rpc.listen): another process … choose another `port` for this server in servers.json"],
        &[],
        &[],
    );
    drop(busy);
    let busy = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let admin = busy.local_addr().expect("bound");
    project.has(
        &["admin.listen: cannot listen on … choose another admin.listen"],
        &[],
        &["--set", &format!("admin.listen={admin}")],
    );
    drop(busy);
    project.has(
        &["admin.token_file: /none: the file of admin.token_file cannot be read"],
        &[],
        &[
            "--set",
            "admin.listen=127.0.0.1:0",
            "--set",
            "admin.token_file=/none",
        ],
    );
    let same = rpc.to_string();
    project.has(
        &["rpc.listen = … listen = … takes this address already; choose another one"],
        &[],
        &["--listen", &same],
    );
    let clients = format!("admin.listen=127.0.0.1:{}", address.port());
    project.has(
        &["--set admin.listen=127.0.0.1: … listen = … takes this address already"],
        &[],
        &["--set", &clients],
    );
    // An address of another machine.
    project.has(
        &["cannot listen on 203.0.113.7:3010 … choose another --listen"],
        &[],
        &["--listen", "203.0.113.7:3010"],
    );
    // Files.
    let set = |key: &str, file: &str| format!("{key}={:?}", project.path(file));
    let blacklist = set("client.blacklist_file", "blacklist");
    project.has(
        &["client.blacklist_file: … blacklist: "],
        &[],
        &["--set", &blacklist],
    );
    project.write("blacklist", "10\\.0\n(\n");
    project.has(
        &["client.blacklist_file: … blacklist: "],
        &[],
        &["--set", &blacklist],
    );
    let protos = set("client.server_protos", "protos.json");
    project.has(
        &["client.server_protos: … protos.json: not found"],
        &[],
        &["--set", "client.use_protobuf=true", "--set", &protos],
    );
    // The master and the other server.
    drop(project.server.take());
    project.has(
        &["server chat-1: cannot connect to 127.0.0.1: … start it, or correct its host and port"],
        &[],
        &[],
    );
    drop(project.master.take());
    project.has(
        &[
            "server chat-1: cannot connect to 127.0.0.1: … ",
            "master: cannot connect to 127.0.0.1: … start the master, or correct its host and port in master.json",
        ],
        &[],
        &[],
    );
}

#[test]
fn config_prints_what_a_start_reads_back() {
    let project = Project::new();
    let text = "app_dir = \".\"\n[client]\nheartbeat = \"3s\"\naccept = [\"js-websocket >=0.3.1\"]\n[route]\nchat = \"rr\"\n";
    project.write("tangelo.toml", text);
    let file = project.path("tangelo.toml");
    let args = [
        "config",
        "--config",
        &file,
        "--id",
        ID,
        "--set",
        "rpc.timeout=7s",
    ];
    let (code, printed) = run(&[], &args);
    assert_eq!(code, Some(0), "{printed}");
    for line in [
        "id = \"connector-1\"  # --id connector-1".to_owned(),
        format!("heartbeat = \"3s\"  # {file}:3"),
        "timeout = \"7s\"  # --set rpc.timeout=7s".to_owned(),
        format!("listen = \"[::]:{}\"  # project", project.address.port()),
        "calls_in_flight_max = 1024  # default".to_owned(),
        "# shards has no value  # default".to_owned(),
        format!("route = {{ \"chat\" = \"rr\" }}  # {file}:6"),
    ] {
        assert!(
            printed.lines().any(|it| it == line),
            "no {line:?} in {printed}"
        );
    }
    // Without the comments both are the same: a start reads the printed file as it read the first one.
    let values = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .map(|line| line.split("  # ").next().unwrap_or_default());
        lines.map(str::to_owned).collect()
    };
    let again = project.path("again.toml");
    project.write("again.toml", &printed);
    let (code, reprinted) = run(&[], &["config", "--config", &again]);
    assert_eq!(code, Some(0), "{reprinted}");
    assert_eq!(values(&reprinted), values(&printed));
    // A wrong one is an error as at the start.
    let (code, _) = run(&[], &["config", "--set", "shards=0"]);
    assert_eq!(code, Some(2));
}

#[test]
fn help_names_the_commands_and_the_words_of_a_master_and_a_command_said_twice_is_an_error() {
    for args in [&["help"][..], &["--help"], &["run", "--help"]] {
        let (code, printed) = run(&[], args);
        assert_eq!(code, Some(0), "{printed}");
        assert!(printed.contains("--config <FILE>"), "{printed}");
    }
    let (_, printed) = run(&[], &["help"]);
    for part in [
        "  run ",
        "  check ",
        "  config ",
        "  trace ",
        "  completions ",
        "  help ",
        "KEY=VALUE",
    ] {
        assert!(printed.contains(part), "no {part:?} in {printed}");
    }
    for args in [&["run", "run"][..], &["check", "run"], &["walk"]] {
        assert_eq!(run(&[], args).0, Some(2), "{args:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (code, script) = run(&[], &["completions", shell]);
        assert_eq!(code, Some(0));
        assert!(
            script.contains("completions") && script.contains("tangelo"),
            "{shell}"
        );
    }
    let (code, version) = run(&[], &["--version"]);
    assert_eq!(
        (code, version),
        (Some(0), format!("tangelo {}\n", env!("CARGO_PKG_VERSION")))
    );
}
