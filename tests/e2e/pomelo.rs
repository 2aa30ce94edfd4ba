//! A genuine Pomelo 2.2.7 cluster: one master and the backends `chat-1` and `chat-2`.
//!
//! The application is `tests/peers/pomelo/`. Its packages are installed once, under the target
//! directory; each cluster runs a copy of the application with ports of its own, so any number of
//! test processes may run at the same time. Every server is started by itself, not by the master:
//! that makes each of them ours to kill, and a Pomelo master does not restart such a server.

use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::process::{POLL_INTERVAL, Process};

/// The peer application as it lies in the tree.
const SOURCE_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/pomelo");

/// From the start of a server to the line that says it is up.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// One `npm install`; it takes a few seconds on an ordinary line.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);
const INSTALL_TRIES: usize = 3;

const MASTER: &str = "master-server-1";

/// Backends in the order of servers.json, in which they are also started and so registered:
/// the first one gets every session without a uid.
pub(crate) const BACKENDS: [&str; 2] = ["chat-1", "chat-2"];

/// A running cluster. Dropping it kills every server.
pub(crate) struct Cluster {
    app: AppDir,
    ports: Ports,
    master: Process,
    backends: Vec<Process>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let app = AppDir::create();
        let ports = Ports::claim();
        app.configure(&ports);
        let master = start_server(&app, &ports, MASTER);
        let backends = BACKENDS.map(|id| start_server(&app, &ports, id)).into();
        Self {
            app,
            ports,
            master,
            backends,
        }
    }

    /// The one cluster of this test binary for tests that change nothing in it. Its servers end
    /// with the binary; its directory is removed by a later run.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// What `tangelo --app-dir` takes. Its servers.json lists `connector-1`, `chat-1`, `chat-2`
    /// and `ghost-1`, of type `ghost`: a server that never ran, on a port that refuses.
    pub(crate) fn app_dir(&self) -> &str {
        self.app.path.to_str().expect("a path in UTF-8")
    }

    /// Where a server takes RPC connections.
    pub(crate) fn rpc_address(&self, id: &str) -> SocketAddr {
        loopback(self.ports.of(id))
    }

    /// SIGKILL: connections are reset or closed by the kernel, nothing is said before.
    pub(crate) fn kill(&mut self, id: &str) {
        self.server(id).kill();
    }

    /// SIGKILL for every server, the master included.
    pub(crate) fn stop_hard(&mut self) {
        self.master.kill();
        self.backends.iter_mut().for_each(Process::kill);
    }

    /// SIGSTOP: its sockets stay open and take what fits into their buffers, nobody answers.
    pub(crate) fn pause(&mut self, id: &str) {
        let server = self.server(id);
        server.signal("STOP");
        let deadline = Instant::now() + Duration::from_secs(10);
        while server.state() != Some('T') {
            assert!(Instant::now() < deadline, "{id} does not stop");
            thread::sleep(POLL_INTERVAL);
        }
    }

    pub(crate) fn resume(&mut self, id: &str) {
        self.server(id).signal("CONT");
    }

    /// Starts it anew on its old port, killing it before if it still runs.
    pub(crate) fn restart(&mut self, id: &str) {
        self.kill(id);
        let started = start_server(&self.app, &self.ports, id);
        *self.server(id) = started;
    }

    fn server(&mut self, id: &str) -> &mut Process {
        if id == MASTER {
            return &mut self.master;
        }
        let index = BACKENDS.iter().position(|known| *known == id);
        &mut self.backends[index.unwrap_or_else(|| panic!("there is no server {id}"))]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            eprint!("{}", self.master.transcript());
            for backend in &self.backends {
                eprint!("{}", backend.transcript());
            }
        }
    }
}

/// Starts one server and waits until the master knows it and it takes RPC connections.
fn start_server(app: &AppDir, ports: &Ports, id: &str) -> Process {
    let port = ports.of(id);
    let mut args = vec!["app.js".to_owned(), "env=development".to_owned()];
    if id == MASTER {
        args.push("type=master".to_owned());
    } else {
        let server_type = id.split_once('-').expect("type-number").0;
        args.push(format!("id={id}"));
        args.push("host=127.0.0.1".to_owned());
        args.push(format!("port={port}"));
        args.push(format!("serverType={server_type}"));
    }
    let mut server = Process::start(id, &app.path, "node", &args);
    let up = format!("peer {id} is up");
    server.wait_for_line(&up, 0, START_TIMEOUT, |line| (line == up).then_some(()));
    // It listens before it says so; a refusal here would mean that another program answered.
    let connected = TcpStream::connect_timeout(&loopback(port), START_TIMEOUT);
    assert!(
        connected.is_ok(),
        "{id} refuses: {connected:?}\n{}",
        server.transcript()
    );
    server
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A copy of the application that one cluster runs; removed when dropped.
struct AppDir {
    path: PathBuf,
    /// Locked as long as the cluster lives, so that others know a dead one's directory.
    _alive: File,
}

impl AppDir {
    fn create() -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let home = home_dir();
        let runs = home.join("runs");
        create_dir(&runs);

        // One at a time, over all test processes: install, clear away, create.
        let lock = open_locked(&home.join("lock"));
        let node_modules = install(&home);
        remove_dead(&runs);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = runs.join(format!("{}-{count}", process::id()));
        create_dir(&path);
        let alive = open_locked(&path.join("alive"));
        drop(lock);

        copy(&Path::new(SOURCE_DIR).join("app.js"), &path.join("app.js"));
        copy(&Path::new(SOURCE_DIR).join("app"), &path.join("app"));
        symlink(node_modules, path.join("node_modules")).expect("a new name");
        Self {
            path,
            _alive: alive,
        }
    }

    fn configure(&self, ports: &Ports) {
        let server = |id: &str| json!({"id": id, "host": "127.0.0.1", "port": ports.of(id)});
        let mut connector = server("connector-1");
        connector["clientHost"] = json!("127.0.0.1");
        connector["clientPort"] = json!(ports.of("connector-1/client"));
        connector["frontend"] = json!(true);
        let files = [
            ("master.json", json!({"development": server(MASTER)})),
            (
                "servers.json",
                json!({"development": {
                    "connector": [connector],
                    "chat": BACKENDS.map(server),
                    "ghost": [server("ghost-1")],
                }}),
            ),
            (
                "log4js.json",
                json!({"appenders": [{"type": "console"}], "levels": {"[all]": "WARN"}}),
            ),
        ];
        let config = self.path.join("config");
        create_dir(&config);
        for (name, content) in files {
            fs::write(config.join(name), content.to_string()).expect("a file of our own");
        }
    }
}

impl Drop for AppDir {
    fn drop(&mut self) {
        // What is left over, the next cluster clears away.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// `peers/pomelo` in the target directory of this build.
fn home_dir() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    let home = target
        .expect("tmp lies in the target directory")
        .join("peers/pomelo");
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
fn install(home: &Path) -> PathBuf {
    let wanted = fs::read_to_string(Path::new(SOURCE_DIR).join("package.json"))
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
    panic!("npm could not install the packages of {SOURCE_DIR}\n{transcripts}");
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
fn copy(from: &Path, to: &Path) {
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

/// Ports of one cluster, free when claimed.
///
/// They lie below the range from which the kernel takes ports for outgoing connections, so a port
/// stays free while its server is down. A listener on the first port of the block is the claim:
/// no other test process gets that one, and it ends with this process whatever happens.
struct Ports {
    base: u16,
    _claim: TcpListener,
}

impl Ports {
    const RANGE: std::ops::Range<u16> = 12_000..32_000;
    const BLOCK: u16 = 8;
    /// Offset within the block; 0 is the claim.
    const NAMES: [&str; 6] = [
        MASTER,
        "chat-1",
        "chat-2",
        "ghost-1",
        "connector-1",
        "connector-1/client",
    ];

    fn claim() -> Self {
        let blocks = (Self::RANGE.end - Self::RANGE.start) / Self::BLOCK;
        // Neighbours in process id begin far apart; 37 and the number of blocks share no factor.
        let first = process::id().wrapping_mul(37) % u32::from(blocks);
        for step in 0..u32::from(blocks) {
            let block = (first + step) % u32::from(blocks);
            let base = Self::RANGE.start + u16::try_from(block).expect("small") * Self::BLOCK;
            let Ok(claim) = TcpListener::bind(loopback(base)) else {
                continue;
            };
            if (base + 1..base + Self::BLOCK).all(is_free) {
                return Self {
                    base,
                    _claim: claim,
                };
            }
        }
        panic!(
            "no {} free ports in a row in {:?}",
            Self::BLOCK,
            Self::RANGE
        );
    }

    fn of(&self, name: &str) -> u16 {
        let index = Self::NAMES.iter().position(|known| *known == name);
        let index = index.unwrap_or_else(|| panic!("there is no port for {name}"));
        self.base + 1 + u16::try_from(index).expect("small")
    }
}

/// Whether a server may listen there, on every address, as Pomelo does.
fn is_free(port: u16) -> bool {
    let addresses = [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ];
    addresses.into_iter().all(|address| {
        // A machine without IPv6 fails otherwise, and has nobody on the port.
        !TcpListener::bind(address).is_err_and(|e| e.kind() == std::io::ErrorKind::AddrInUse)
    })
}

mod tests {
    use std::io::{Read, Write};

    use serde_json::Value;

    use super::*;

    /// Calls `chat.chatHandler.<method>` of a backend as a connector would, on a new connection.
    /// The bytes are those of MQTT 3.1.1: CONNECT, PUBLISH, then the answer as PUBLISH.
    fn call(address: SocketAddr, method: &str, body: &Value) -> std::io::Result<Value> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let message = json!({
            "id": 1, "type": 0, "compressRoute": 0,
            "route": format!("chat.chatHandler.{method}"),
            "body": body, "compressGzip": 0,
        });
        let session = json!({"id": 9, "frontendId": "connector-1", "uid": null, "settings": {}});
        let request = json!({"id": 5, "msg": {
            "namespace": "sys", "serverType": "chat", "service": "msgRemote",
            "method": "forwardMessage", "args": [message, session],
        }});
        let mut bytes = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02me".to_vec();
        let payload = format!("\x00\x03rpc{request}");
        bytes.push(0x30);
        push_length(&mut bytes, payload.len());
        bytes.extend_from_slice(payload.as_bytes());
        stream.write_all(&bytes)?;

        let mut head = [0];
        stream.read_exact(&mut head)?;
        assert_eq!(head, [0x30], "an answer is a PUBLISH");
        let mut answer = vec![0; read_length(&mut stream)?];
        stream.read_exact(&mut answer)?;
        let payload = answer
            .strip_prefix(b"\x00\x03rpc")
            .expect("the topic is rpc");
        let answer: Value = serde_json::from_slice(payload)?;
        assert_eq!(answer["id"], 5);
        Ok(answer["resp"].clone())
    }

    fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
        loop {
            let low = (length & 0x7f) as u8;
            length >>= 7;
            bytes.push(if length > 0 { low | 0x80 } else { low });
            if length == 0 {
                return;
            }
        }
    }

    fn read_length(stream: &mut TcpStream) -> std::io::Result<usize> {
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(length);
            }
        }
        panic!("a length of more than four bytes");
    }

    #[test]
    fn the_cluster_starts_and_answers_rpc() {
        let cluster = Cluster::shared();
        for id in BACKENDS {
            let answer = call(cluster.rpc_address(id), "whoami", &json!({})).expect("an answer");
            let who = json!({
                "server": id, "id": 9, "frontendId": "connector-1", "uid": null, "settings": {},
            });
            assert_eq!(answer, json!([null, who, null]));
        }
        let chat = cluster.rpc_address("chat-1");
        let answer = call(chat, "big", &json!({"n": 200_000})).expect("an answer");
        assert_eq!(answer[1]["s"].as_str().map(str::len), Some(200_000));
        let ghost = TcpStream::connect(cluster.rpc_address("ghost-1"));
        assert_eq!(
            ghost.expect_err("no one listens").kind(),
            std::io::ErrorKind::ConnectionRefused
        );
    }

    #[test]
    fn a_server_of_the_cluster_dies_pauses_and_returns() {
        let mut cluster = Cluster::start();
        let chat = cluster.rpc_address("chat-1");
        let call = |method: &str| call(chat, method, &json!({"n": 1, "list": "l"}));
        let notes = |of: &Value| of[1]["notes"].clone();

        call("note").expect("an answer");
        assert_eq!(notes(&call("notes").expect("an answer")), json!([1]));

        // Paused: the kernel still takes connections, the answer comes after the pause.
        cluster.pause("chat-1");
        let paused = thread::scope(|scope| {
            let waiting = scope.spawn(|| call("notes"));
            thread::sleep(Duration::from_millis(200));
            assert!(!waiting.is_finished(), "a stopped server answers");
            cluster.resume("chat-1");
            waiting.join().expect("no panic")
        });
        assert_eq!(notes(&paused.expect("an answer")), json!([1]));

        cluster.kill("chat-1");
        call("notes").expect_err("a dead server answers");
        call("exit").expect_err("a dead server answers");
        cluster.restart("chat-1");
        assert_eq!(notes(&call("notes").expect("an answer")), json!([]));
        call("exit").expect_err("it ends within this call");
        cluster.restart("chat-1");
        call("notes").expect("an answer");

        cluster.stop_hard();
        call("notes").expect_err("a dead server answers");
    }
}
