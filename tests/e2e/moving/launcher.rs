//! The launcher stands for tangelo: signals and the end go through it, and no gateway outlives it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::free_address;
use crate::harness::gateway::Turn;
use crate::harness::package::installed;
use crate::harness::peers::wait_for;
use crate::harness::process::Process;

/// A project with one frontend, which needs no master, and a main script that would fail.
struct Project {
    folder: TempDir,
    address: SocketAddr,
    _turn: Turn,
}

impl Project {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("config/tangelo");
        fs::create_dir_all(&config).expect("a folder");
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("a file of our own");
        };
        write("app.js", "process.exit(77);");
        write("config/tangelo/connector.toml", settings);
        let entry = json!({"id": "connector-1", "clientPort": 1, "frontend": true});
        let servers = json!({"development": {"connector": [entry]}});
        write("config/servers.json", &servers.to_string());
        Self {
            folder,
            address: free_address(),
            _turn: Turn::shared(),
        }
    }

    /// Starts the server as a master does.
    fn start(&self, environment: &[&str]) -> Process {
        self.start_by(environment, &format!("--require={}", launcher()))
    }

    fn start_by(&self, environment: &[&str], args: &str) -> Process {
        let port = format!("clientPort={}", self.address.port());
        let node = ["node", args, "app.js", "env=development", "id=connector-1"];
        let words = [
            "serverType=connector",
            "host=127.0.0.1",
            "frontend=true",
            &port,
        ];
        let args = [environment, &node, &words].concat();
        Process::start("launcher", self.folder.path(), "env", &args)
    }

    /// Starts it and waits until the gateway listens.
    fn listening(&self) -> Process {
        wait_listening(self.start(&[BINARY]))
    }

    fn is_open(&self) -> bool {
        TcpStream::connect(self.address).is_ok()
    }

    fn wait_closed(&self) {
        wait_for("a closed port", || (!self.is_open()).then_some(()));
    }
}

fn launcher() -> String {
    installed().join("launcher.js").display().to_string()
}

/// Waits until the gateway of a launcher listens.
fn wait_listening(mut launcher: Process) -> Process {
    launcher.wait_for_line("listening on", 0, HANG_GUARD, |line| {
        line.contains("listening on").then_some(())
    });
    launcher
}

const BINARY: &str = concat!("TANGELO_BIN=", env!("CARGO_BIN_EXE_tangelo"));
const ALONE: &str = "cluster.join = false\nshards = 1\n";

#[test]
fn a_signal_reaches_the_gateway_and_its_end_is_that_of_the_launcher() {
    let project = Project::new(ALONE);
    let mut launcher = project.listening();
    drop(Client::tcp(project.address).open());

    let from = launcher.lines_printed();
    launcher.signal("USR1");
    launcher.wait_for_line("counters", from, HANG_GUARD, |line| {
        line.starts_with("counters ").then_some(())
    });
    launcher.signal("TERM");
    let status = launcher.wait_exit(HANG_GUARD).expect("the launcher ends");
    assert_eq!(status.code(), Some(0), "{}", launcher.transcript());
    project.wait_closed();
}

#[test]
fn one_interrupt_of_the_whole_group_is_one_for_the_gateway() {
    let project = Project::new(ALONE);
    let mut launcher = project.listening();
    // The gateway is in a group of its own, so a terminal reaches it only through the launcher.
    launcher.signal("INT");
    let status = launcher.wait_exit(HANG_GUARD).expect("the launcher ends");
    launcher.wait_output_end();
    let printed = launcher.transcript();
    assert_eq!(status.code(), Some(0), "{printed}");
    assert!(!printed.contains("a second time"), "{printed}");
}

#[test]
fn a_gateway_stops_when_its_launcher_is_killed() {
    let project = Project::new(ALONE);
    let mut launcher = project.listening();
    assert!(project.is_open());
    launcher.kill();
    project.wait_closed();
}

#[test]
fn the_status_of_a_start_that_fails_is_passed_on() {
    let project = Project::new("no_such_key = 1\n");
    let launcher = project.start(&[BINARY]);
    let (status, _) = launcher.finish(HANG_GUARD);
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_settings_file_that_is_not_there_is_named() {
    let project = Project::new(ALONE);
    fs::remove_dir_all(project.folder.path().join("config/tangelo")).expect("our own folder");
    let mut launcher = project.start(&[BINARY]);
    launcher.wait_for_line("the file", 0, HANG_GUARD, |line| {
        line.contains("config/tangelo/connector.toml").then_some(())
    });
}

/// In development a master takes each line on stderr for an error of the server.
#[test]
fn the_log_goes_to_the_standard_output() {
    let project = Project::new("no_such_key = 1\n");
    let mut launcher = project.start(&[BINARY]);
    launcher.wait_exit(HANG_GUARD).expect("the launcher ends");
    launcher.wait_output_end();
    let printed = launcher.transcript();
    let on = |stream: &str| {
        let mut lines = printed.lines();
        lines.any(|line| line.starts_with(stream) && line.contains("no_such_key"))
    };
    assert!(on("out|") && !on("err|"), "{printed}");
}

#[test]
fn a_gateway_that_is_killed_takes_its_launcher_with_it() {
    use std::os::unix::process::ExitStatusExt as _;

    let project = Project::new(ALONE);
    let mut launcher = project.listening();
    let child = children(launcher.pid()).pop().expect("a child");
    let kill = std::process::Command::new("kill")
        .args(["-KILL", &child])
        .status();
    assert!(kill.expect("kill runs").success());
    let status = launcher.wait_exit(HANG_GUARD).expect("the launcher ends");
    assert_eq!(status.signal(), Some(9));
}

fn children(pid: u32) -> Vec<String> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).expect("the process runs");
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_binary_is_that_of_the_variable_else_the_first_on_path_that_is_no_script() {
    let project = Project::new(ALONE);
    let launcher = project.start(&["TANGELO_BIN=/nowhere/tangelo"]);
    refuses(
        launcher,
        "TANGELO_BIN = /nowhere/tangelo: there is no program of this name",
    );
    refuses(
        project.start(&["TANGELO_BIN=/usr"]),
        "TANGELO_BIN = /usr: is a folder; name the program in it",
    );

    // npm puts the command of the package on PATH, under the same name.
    let folder = project.folder.path().join("bin");
    fs::create_dir(&folder).expect("a new folder");
    let command = installed().join("bin/tangelo.js");
    std::os::unix::fs::symlink(command, folder.join("tangelo")).expect("a new name");
    let node = std::env::var("PATH").expect("a PATH");
    let without = format!("PATH={}:{node}", folder.display());
    refuses(
        project.start(&["-u", "TANGELO_BIN", &without]),
        "found no binary",
    );

    let binary = Path::new(env!("CARGO_BIN_EXE_tangelo"))
        .parent()
        .expect("a folder");
    let path = format!("PATH={}:{}:{node}", folder.display(), binary.display());
    wait_listening(project.start(&["-u", "TANGELO_BIN", &path]));
}

fn refuses(mut launcher: Process, text: &str) {
    let status = launcher.wait_exit(HANG_GUARD).expect("the launcher ends");
    launcher.wait_output_end();
    let printed = launcher.transcript();
    assert_eq!(status.code(), Some(2), "{printed}");
    assert!(printed.contains(text), "{printed}");
}

/// A word of `pomelo add` has only one `=`.
#[test]
fn the_launcher_may_be_the_main_script_and_the_projects_script_its_first_word() {
    let project = Project::new(ALONE);
    let launcher = project.start_by(&[BINARY], &launcher());
    let mut launcher = wait_listening(launcher);
    drop(Client::tcp(project.address).open());
    launcher.signal("TERM");
    let status = launcher.wait_exit(HANG_GUARD).expect("the launcher ends");
    assert_eq!(status.code(), Some(0), "{}", launcher.transcript());
}

#[test]
fn a_gateway_whose_launcher_has_ended_does_not_start() {
    let _turn = Turn::shared();
    let args = [
        "TANGELO_LAUNCHER=1",
        env!("CARGO_BIN_EXE_tangelo"),
        "--listen",
        "127.0.0.1:0",
    ];
    let tangelo = Process::start("tangelo", Path::new("/"), "env", &args);
    refuses(tangelo, "TANGELO_LAUNCHER = 1");
}
