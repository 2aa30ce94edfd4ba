//! Genuine Pomelo 2.2.7 and Pinus 1.7.4 servers. The applications are `perf/peers/`; their packages
//! are installed once, under the target directory, and each run has a copy with ports of its own.
//! The echo over µWebSockets is built under the target directory too.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Process, free_ports};

const SOURCE_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Id of the frontend under test, and of the one backend.
pub(crate) const CONNECTOR: &str = "connector-1";
pub(crate) const BACKEND: &str = "chat-1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Pomelo,
    Pinus,
}

impl Dialect {
    /// As packages and folders are called.
    fn name(self) -> &'static str {
        match self {
            Self::Pomelo => "pomelo",
            Self::Pinus => "pinus",
        }
    }
}

/// The files and ports of one cluster, and its running master.
pub(crate) struct Cluster {
    dialect: Dialect,
    app: TempDir,
    ports: Ports,
    _master: Process,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    master: u16,
    backend: u16,
    connector: u16,
    clients: u16,
}

impl Cluster {
    pub(crate) fn start(dialect: Dialect) -> io::Result<Self> {
        let [master, backend, connector, clients] = free_ports()?;
        let ports = Ports {
            master,
            backend,
            connector,
            clients,
        };
        let app = copy_app(dialect, &ports)?;
        let master = start(&app, "master-server-1", &["type=master".to_owned()])?;
        Ok(Self {
            dialect,
            app,
            ports,
            _master: master,
        })
    }

    /// Returns the folder for `tangelo --app-dir`.
    pub(crate) fn app_dir(&self) -> &Path {
        self.app.path()
    }

    pub(crate) fn master(&self) -> SocketAddr {
        loopback(self.ports.master)
    }

    /// Returns the address of the backend, genuine or synthetic.
    pub(crate) fn backend(&self) -> SocketAddr {
        loopback(self.ports.backend)
    }

    /// Returns the address at which the frontend takes calls of backends.
    pub(crate) fn connector(&self) -> SocketAddr {
        loopback(self.ports.connector)
    }

    /// Returns the address at which a genuine frontend takes clients.
    pub(crate) fn clients(&self) -> SocketAddr {
        loopback(self.ports.clients)
    }

    /// Returns the folder of remotes that a synthetic backend announces beside its address.
    pub(crate) fn remotes(&self) -> Option<PathBuf> {
        let folder = "node_modules/pinus/dist/lib/common/remote/backend/";
        (self.dialect == Dialect::Pinus).then(|| self.app.path().join(folder))
    }

    pub(crate) fn start_backend(&self) -> io::Result<Process> {
        let args = server_args(BACKEND, "chat", self.ports.backend);
        start(&self.app, BACKEND, &args)
    }

    /// `extra`: more words for the command line of its application.
    pub(crate) fn start_connector(&self, extra: &[String]) -> io::Result<Process> {
        let mut args = server_args(CONNECTOR, "connector", self.ports.connector);
        args.push("clientHost=127.0.0.1".to_owned());
        args.push(format!("clientPort={}", self.ports.clients));
        args.push("frontend=true".to_owned());
        args.extend_from_slice(extra);
        start(&self.app, CONNECTOR, &args)
    }
}

fn server_args(id: &str, server_type: &str, port: u16) -> Vec<String> {
    vec![
        format!("id={id}"),
        "host=127.0.0.1".to_owned(),
        format!("port={port}"),
        format!("serverType={server_type}"),
    ]
}

fn start(app: &TempDir, id: &str, args: &[String]) -> io::Result<Process> {
    let mut command = Command::new("node");
    command
        .args(["--no-warnings", "app.js", "env=development"])
        .args(args)
        .current_dir(app);
    let up = format!("peer {id} is up");
    let (process, ()) = Process::start(id, &mut command, START_TIMEOUT, |line| {
        (line == up).then_some(())
    })?;
    Ok(process)
}

/// Makes the copy of the application that one cluster runs.
fn copy_app(dialect: Dialect, ports: &Ports) -> io::Result<TempDir> {
    let source = Path::new(SOURCE_DIR).join(dialect.name());
    let home = home(dialect.name())?;
    fs::create_dir_all(&home)?;
    let node_modules = install(&source, &home)?;
    let app = tempfile::Builder::new().prefix("run-").tempdir_in(&home)?;
    let path = app.path();
    copy(&source.join("app.js"), &path.join("app.js"))?;
    copy(&source.join("app"), &path.join("app"))?;
    symlink(node_modules, path.join("node_modules"))?;
    fs::create_dir(path.join("config"))?;
    for (name, content) in config(dialect, ports) {
        fs::write(path.join("config").join(name), content.to_string())?;
    }
    Ok(app)
}

fn config(dialect: Dialect, ports: &Ports) -> [(&'static str, Value); 4] {
    let server = |id: &str, port: u16| json!({"id": id, "host": "127.0.0.1", "port": port});
    let mut connector = server(CONNECTOR, ports.connector);
    connector["clientHost"] = json!("127.0.0.1");
    connector["clientPort"] = json!(ports.clients);
    connector["frontend"] = json!(true);
    let servers = json!({"connector": [connector], "chat": [server(BACKEND, ports.backend)]});
    let log = match dialect {
        Dialect::Pomelo => json!({"appenders": [{"type": "console"}], "levels": {"[all]": "WARN"}}),
        Dialect::Pinus => json!({
            "appenders": {"console": {"type": "console"}},
            "categories": {"default": {"appenders": ["console"], "level": "warn"}},
        }),
    };
    let master = server("master-server-1", ports.master);
    [
        ("master.json", json!({"development": master})),
        ("servers.json", json!({"development": servers})),
        ("adminUser.json", json!([])),
        ("log4js.json", log),
    ]
}

/// Returns the folder of a peer under the target directory.
fn home(peer: &str) -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.parent().unwrap_or(Path::new("."));
    Ok(target.join("perf-peers").join(peer))
}

/// Builds the echo over µWebSockets, unless it is built already, and returns its path. The error is
/// `Unsupported` if this machine cannot build it.
pub(crate) fn build_uwebsockets() -> io::Result<PathBuf> {
    let home = home("uwebsockets")?;
    // Cargo writes into this folder, and not into the repository.
    copy(&Path::new(SOURCE_DIR).join("uwebsockets"), &home)?;
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--quiet", "--target-dir", "target"]);
    command.current_dir(&home);
    let (mut cargo, _) = Process::spawn("cargo", &mut command)?;
    if !cargo.succeeds(INSTALL_TIMEOUT)? {
        let text = "cannot build perf/peers/uwebsockets, which needs cargo, g++ and its packages; cargo printed the cause above";
        return Err(io::Error::new(ErrorKind::Unsupported, text));
    }
    Ok(home.join("target/release/tangelo-perf-peer-uwebsockets"))
}

/// Installs the packages, unless this very list of them is installed already; where to.
fn install(source: &Path, home: &Path) -> io::Result<PathBuf> {
    let wanted = fs::read_to_string(source.join("package.json"))?;
    let dir = home.join("install");
    let stamp = dir.join("installed.json");
    let node_modules = dir.join("node_modules");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(node_modules);
    }
    eprintln!("installing the packages of {}", source.display());
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("package.json"), &wanted)?;
    let mut command = Command::new("npm");
    command
        .args(["install", "--no-audit", "--no-fund", "--no-package-lock"])
        .args(["--ignore-scripts", "--loglevel", "error"])
        .current_dir(&dir);
    let (mut npm, _) = Process::spawn("npm", &mut command)?;
    if !npm.succeeds(INSTALL_TIMEOUT)? {
        let text = format!("npm cannot install the packages of {}", source.display());
        return Err(io::Error::other(text));
    }
    // The stamp comes last: an installation that broke off does not count.
    fs::write(stamp, wanted)?;
    Ok(node_modules)
}

/// Copies a file, or a directory with all in it. Leaves a file with the same text alone, so that Cargo
/// does not build it again.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        let text = fs::read(from)?;
        return match fs::read(to) {
            Ok(there) if there == text => Ok(()),
            _ => fs::write(to, text),
        };
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
