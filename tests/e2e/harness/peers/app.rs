//! The application that a cluster runs: its packages, installed once under the target directory,
//! and a copy of it for each cluster.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::ports::Ports;
use super::{BACKENDS, DELEGATE, Dialect, MASTER};
use crate::harness::process::Process;

/// The peer applications as they lie in the tree.
const SOURCE_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/genuine");

/// One `npm install`; it takes a few seconds on an ordinary line.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);
const INSTALL_TRIES: usize = 3;

/// A copy of the application that one cluster runs; removed when dropped.
pub(crate) struct AppDir {
    folder: TempDir,
    /// Locked as long as the cluster lives, so that others know a dead one's directory.
    _alive: File,
}

impl AppDir {
    /// A copy of this application of the tree; its packages are those of the framework's own one.
    pub(super) fn create(dialect: Dialect, name: &str) -> Self {
        let source = Path::new(SOURCE_DIR).join(name);
        let (app, node_modules) = Self::empty(dialect.name());
        for name in ["app.js", "filters.js", "app", "config"] {
            if source.join(name).exists() {
                copy(&source.join(name), &app.path().join(name));
            }
        }
        symlink(node_modules, app.path().join("node_modules")).expect("a new name");
        app
    }

    /// An empty folder, and the installed packages of a peer.
    pub(crate) fn empty(peer: &str) -> (Self, PathBuf) {
        let home = home_dir(peer);
        let runs = home.join("runs");
        create_dir(&runs);

        // One at a time, over all test processes: install, clear away, create.
        let lock = open_locked(&home.join("lock"));
        let node_modules = install(&Path::new(SOURCE_DIR).join(peer), &home);
        remove_dead(&runs);
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(runs);
        let folder = folder.expect("a temporary folder");
        let alive = open_locked(&folder.path().join("alive"));
        drop(lock);
        let app = Self {
            folder,
            _alive: alive,
        };
        (app, node_modules)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn configure(&self, dialect: Dialect, connectors: &[&str], ports: &Ports) {
        let server = |id: &str| json!({"id": id, "host": "127.0.0.1", "port": ports.of(id)});
        let connector = |id: &&str| {
            let mut connector = server(id);
            connector["clientHost"] = json!("127.0.0.1");
            connector["clientPort"] = json!(ports.client(id));
            connector["frontend"] = json!(true);
            connector
        };
        let token = |of: &str| json!({"type": of, "token": format!("the token of each {of}")});
        let files = [
            ("master.json", json!({"development": server(MASTER)})),
            (
                "servers.json",
                json!({"development": {
                    "connector": connectors.iter().map(connector).collect::<Vec<_>>(),
                    "chat": BACKENDS.map(server),
                    "ghost": [server("ghost-1")],
                    "entry": [server(DELEGATE)],
                }}),
            ),
            (
                "adminServer.json",
                json!(["connector", "chat", "gate", "entry"].map(token)),
            ),
            (
                "adminUser.json",
                json!([{"id": "user-1", "username": "admin", "password": "admin", "level": 1}]),
            ),
            ("log4js.json", log_config(dialect)),
        ];
        let config = self.path().join("config");
        create_dir(&config);
        for (name, content) in files {
            fs::write(config.join(name), content.to_string()).expect("a file of our own");
        }
    }
}

impl AppDir {
    /// One more file for servers that start from now on.
    pub(super) fn add_config(&self, name: &str, content: &Value) {
        self.write_config(name, content.to_string().as_bytes());
    }

    pub(super) fn write_config(&self, name: &str, bytes: &[u8]) {
        let file = self.path().join("config").join(name);
        fs::write(file, bytes).expect("a file of our own");
    }

    pub(super) fn read_config(&self, name: &str) -> Vec<u8> {
        let file = self.path().join("config").join(name);
        fs::read(file).expect("a file of our own")
    }

    /// A directory with the same `config/`, but for this file of it.
    pub(super) fn project_with(&self, name: &str, content: &Value) -> PathBuf {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let project = self.path().join(format!("project-{count}"));
        create_dir(&project);
        copy(&self.path().join("config"), &project.join("config"));
        fs::write(project.join("config").join(name), content.to_string())
            .expect("a file of our own");
        project
    }
}

/// Warnings and errors on standard output, in the form of the log4js that each framework has.
fn log_config(dialect: Dialect) -> Value {
    match dialect {
        Dialect::Pomelo => {
            json!({"appenders": [{"type": "console"}], "levels": {"[all]": "WARN"}})
        }
        Dialect::Pinus => json!({
            "appenders": {"console": {"type": "console"}},
            "categories": {"default": {"appenders": ["console"], "level": "warn"}},
        }),
    }
}

/// Starts a script of `tests/genuine/<peer>/`, which has packages of its own, with these arguments.
pub(crate) fn run_script(peer: &str, script: &str, args: &[&str]) -> Process {
    let script = Path::new(SOURCE_DIR).join(peer).join(script);
    run_with_packages(peer, &script, args)
}

/// Runs any script with the packages of a peer.
pub(crate) fn run_with_packages(peer: &str, script: &Path, args: &[&str]) -> Process {
    let source = Path::new(SOURCE_DIR).join(peer);
    let home = home_dir(peer);
    let lock = open_locked(&home.join("lock"));
    let node_modules = install(&source, &home);
    drop(lock);
    let path = format!("NODE_PATH={}", node_modules.display());
    let script = script.display().to_string();
    let own = [path.as_str(), "node", &script];
    let args: Vec<&str> = own.iter().chain(args).copied().collect();
    Process::start(peer, &home, "env", &args)
}

/// `peers/<peer>` in the target directory of this build.
fn home_dir(peer: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let target = target.expect("tmp lies in the target directory");
    let home = target.join("peers").join(peer);
    create_dir(&home);
    home
}

/// Removes the directories of clusters whose test process is gone. Called under the lock.
fn remove_dead(runs: &Path) {
    for entry in fs::read_dir(runs).expect("created before") {
        let path = entry.expect("a readable directory").path();
        let alive = File::options().write(true).open(path.join("alive"));
        if alive.is_ok_and(|file| file.try_lock().is_err()) {
            continue;
        }
        let _ = fs::remove_dir_all(path);
    }
}

/// Installs the packages of the application, unless this very list of them is installed already.
/// Called under the lock. Returns the `node_modules` to use.
fn install(source: &Path, home: &Path) -> PathBuf {
    let wanted = fs::read_to_string(source.join("package.json"))
        .expect("the peer application is in the tree");
    let dir = home.join("install");
    let stamp = dir.join("installed.json");
    let node_modules = dir.join("node_modules");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return node_modules;
    }

    let _ = fs::remove_dir_all(&dir);
    create_dir(&dir);
    fs::write(dir.join("package.json"), &wanted).expect("a file of our own");
    let mut transcripts = String::new();
    for _ in 0..INSTALL_TRIES {
        let args = [
            "install",
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--ignore-scripts",
        ];
        let mut npm = Process::start("npm", &dir, "npm", &args);
        let status = npm.wait_exit(INSTALL_TIMEOUT);
        if status.is_some_and(|status| status.success()) {
            // The stamp comes last: an installation that broke off does not count.
            fs::write(stamp, wanted).expect("a file of our own");
            return node_modules;
        }
        npm.kill();
        transcripts.push_str(&npm.transcript());
    }
    panic!(
        "npm could not install the packages of {}\n{transcripts}",
        source.display()
    );
}

fn open_locked(path: &Path) -> File {
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).open(path);
    let file = file.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.lock()
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file
}

fn create_dir(path: &Path) {
    fs::create_dir_all(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Copies a file, or a directory with all in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        fs::copy(from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        return;
    }
    create_dir(to);
    for entry in fs::read_dir(from).expect("a readable directory") {
        let name = entry.expect("a readable directory").file_name();
        copy(&from.join(&name), &to.join(&name));
    }
}
