//! A genuine Pomelo 2.2.7 or Pinus 1.7.4 cluster: a master, the backends `chat-1` and `chat-2`, and
//! whatever a test adds.
//!
//! The applications are `tests/genuine/pomelo/` and `tests/genuine/pinus/`. Their packages are
//! installed once, under the target directory; each cluster runs a copy of the application with
//! ports of its own, so any number of test processes may run at the same time. Every server is
//! started by itself, not by the master: that makes each of them ours to kill, and a master does
//! not restart such a server.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::HANG_GUARD;
use crate::harness::package;
use crate::harness::process::{POLL_INTERVAL, Process};
use crate::harness::rpc;

mod app;
mod ports;

pub(crate) use app::{AppDir, copy, run_script, run_with_packages};
pub(crate) use ports::{CONNECTORS, Ports, REFERENCE, loopback};

/// Until a connector id that other tests use is free.
const TAKE_TIMEOUT: Duration = Duration::from_secs(600);

pub(crate) const MASTER: &str = "master-server-1";

/// Backends in the order of servers.json, in which they are also started and so registered:
/// the first one gets every session without a uid.
pub(crate) const BACKENDS: [&str; 2] = ["chat-1", "chat-2"];

/// The backends that run the connector's own JavaScript. The first one is in clusters of [`Cluster::delegated`].
pub(crate) const DELEGATES: [&str; 2] = ["entry-1", "entry-2"];
pub(crate) const DELEGATE: &str = DELEGATES[0];

/// The framework that a cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Pomelo,
    Pinus,
}

impl Dialect {
    pub(crate) const ALL: [Self; 2] = [Self::Pomelo, Self::Pinus];

    /// As packages, commands and `tangelo --dialect` call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pomelo => "pomelo",
            Self::Pinus => "pinus",
        }
    }
}

/// A running cluster. Dropping it kills every server.
pub(crate) struct Cluster {
    dialect: Dialect,
    /// Master and backends, running or not, in the order of their first start.
    servers: Mutex<Vec<Server>>,
    /// Connector ids that are free.
    free: Mutex<Vec<&'static str>>,
    returned: Condvar,
    ports: Ports,
    app: AppDir,
}

struct Server {
    id: String,
    process: Process,
    paused: bool,
}

impl Server {
    /// Whether it takes calls and answers them.
    fn is_serving(&mut self) -> bool {
        !self.paused && self.process.has_exited().is_none()
    }
}

impl Cluster {
    pub(crate) fn start(dialect: Dialect) -> Self {
        Self::idle(dialect).with_backends()
    }

    /// The chat of `tests/genuine/chat/`, whose connector the example `pomelo_chat` is. No server runs
    /// yet.
    pub(crate) fn chat() -> Self {
        Self::of(Dialect::Pomelo, "chat", &CONNECTORS)
    }

    /// The application of `tests/genuine/delegate-<dialect>/`, with a delegate: all but the connectors runs.
    pub(crate) fn delegated(dialect: Dialect) -> Self {
        let cluster = Self::of(
            dialect,
            &format!("delegate-{}", dialect.name()),
            &CONNECTORS,
        );
        let cluster = cluster.with_backends();
        cluster.add_backend(DELEGATE);
        cluster
    }

    /// Starts the master and the backends.
    pub(crate) fn with_backends(self) -> Self {
        self.start_master();
        for id in BACKENDS {
            self.add_backend(id);
        }
        self
    }

    /// The files and ports of a cluster in which no server runs yet. Backends need the master:
    /// genuine ones end when it is not there as they start.
    pub(crate) fn idle(dialect: Dialect) -> Self {
        Self::of(dialect, dialect.name(), &CONNECTORS)
    }

    /// The master and one backend of the reference application, whose frontends are [`REFERENCE`].
    pub(crate) fn reference() -> Self {
        let cluster = Self::of(Dialect::Pomelo, "reference", &REFERENCE);
        cluster.start_master();
        cluster.add_backend(BACKENDS[0]);
        cluster
    }

    fn of(dialect: Dialect, app: &str, connectors: &[&'static str]) -> Self {
        let app = AppDir::create(dialect, app);
        let ports = Ports::claim();
        app.configure(dialect, connectors, &ports);
        Self {
            dialect,
            servers: Mutex::default(),
            // From the end they are taken in order.
            free: Mutex::new(connectors.iter().rev().copied().collect()),
            returned: Condvar::new(),
            ports,
            app,
        }
    }

    /// The one cluster of this test binary for tests that change nothing in it but their own
    /// connector. Its servers end with the binary; its directory is removed by a later run.
    pub(crate) fn shared(dialect: Dialect) -> &'static Self {
        static SHARED: [OnceLock<Cluster>; 2] = [const { OnceLock::new() }; 2];
        SHARED[dialect as usize].get_or_init(|| Self::start(dialect))
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Returns the folder for `tangelo --app-dir`. Its servers.json lists [`CONNECTORS`], [`BACKENDS`] and
    /// `ghost-1`, of type `ghost`: a server that never ran, on a port that refuses.
    pub(crate) fn app_dir(&self) -> &str {
        self.app.path().to_str().expect("a path in UTF-8")
    }

    /// One more file in `config/`, for frontends that start from now on.
    pub(crate) fn add_config(&self, name: &str, content: &Value) {
        self.app.add_config(name, content);
    }

    /// A command that genuine servers find in the folder `tools/` of the application.
    pub(crate) fn add_tool(&self, name: &str, script: &str) {
        let folder = self.app.path().join("tools");
        fs::create_dir_all(&folder).expect("a folder of our own");
        let file = folder.join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("a file of our own");
        let all = Permissions::from_mode(0o755);
        fs::set_permissions(file, all).expect("a file of our own");
    }

    /// A file of `config/` with these bytes, whatever they are.
    pub(crate) fn write_config(&self, name: &str, bytes: &[u8]) {
        self.app.write_config(name, bytes);
    }

    /// The bytes of a file in `config/`.
    pub(crate) fn read_config(&self, name: &str) -> Vec<u8> {
        self.app.read_config(name)
    }

    /// Another project directory for tangelo, with this file instead of the cluster's.
    pub(crate) fn project_with(&self, name: &str, content: &Value) -> PathBuf {
        self.app.project_with(name, content)
    }

    /// Where a server takes RPC connections; for the master, its only port.
    pub(crate) fn rpc_address(&self, id: &str) -> SocketAddr {
        loopback(self.ports.of(id))
    }

    /// Where a connector takes clients.
    pub(crate) fn client_address(&self, id: &str) -> SocketAddr {
        loopback(self.ports.client(id))
    }

    // Servers.

    pub(crate) fn start_master(&self) {
        self.start_server(MASTER, &["type=master".to_owned()]);
    }

    /// SIGKILL. Everybody else keeps what he knows of the others.
    pub(crate) fn stop_master(&self) {
        self.kill(MASTER);
    }

    /// Starts a backend, be it one that servers.json does not list, and waits until the other
    /// backends know it.
    pub(crate) fn add_backend(&self, id: &str) {
        let server_type = id.split_once('-').expect("type-number").0;
        let mut args = vec![
            format!("id={id}"),
            "host=127.0.0.1".to_owned(),
            format!("port={}", self.ports.of(id)),
            format!("serverType={server_type}"),
        ];
        if DELEGATES.contains(&id) {
            args.push("delegateFor=connector".to_owned());
        }
        self.start_server(id, &args);
        self.wait_until_known(id);
    }

    /// Stops a backend in order, and waits until the other backends have forgotten it.
    pub(crate) fn remove(&self, id: &str) {
        self.cli(&["stop", id]);
        let ended = self.with(id, |server| server.process.wait_exit(HANG_GUARD));
        let status = ended.unwrap_or_else(|| panic!("{id} does not stop"));
        assert!(status.success(), "{id} ends with {status}");
        self.wait_until_forgotten(id);
    }

    /// SIGKILL: connections are reset or closed by the kernel, nothing is said before.
    pub(crate) fn kill(&self, id: &str) {
        self.with(id, |server| server.process.kill());
    }

    /// SIGKILL for every server, the master included.
    pub(crate) fn stop_hard(&self) {
        self.servers().iter_mut().for_each(|s| s.process.kill());
    }

    /// The process of a server that runs.
    pub(crate) fn pid(&self, id: &str) -> u64 {
        self.with(id, |server| u64::from(server.process.pid()))
    }

    /// SIGSTOP: its sockets stay open until their buffers are full, and the process does not answer.
    pub(crate) fn pause(&self, id: &str) {
        self.with(id, |server| {
            server.process.signal("STOP");
            server.paused = true;
            let deadline = Instant::now() + HANG_GUARD;
            while server.process.state() != Some('T') {
                assert!(Instant::now() < deadline, "{id} does not stop");
                thread::sleep(POLL_INTERVAL);
            }
        });
    }

    pub(crate) fn resume(&self, id: &str) {
        self.with(id, |server| {
            server.process.signal("CONT");
            server.paused = false;
        });
    }

    /// Starts a backend anew on its old port, killing it before if it still runs. For everybody
    /// else it is now the last of its type.
    pub(crate) fn restart(&self, id: &str) {
        self.kill(id);
        self.wait_until_forgotten(id);
        self.add_backend(id);
    }

    /// Starts a genuine connector, which the caller owns.
    pub(crate) fn start_connector(&self, id: &str, extra: &[&str]) -> (Process, SocketAddr) {
        let client_address = self.client_address(id);
        let args = [
            format!("id={id}"),
            "host=127.0.0.1".to_owned(),
            format!("port={}", self.ports.of(id)),
            "clientHost=127.0.0.1".to_owned(),
            format!("clientPort={}", client_address.port()),
            "frontend=true".to_owned(),
            "serverType=connector".to_owned(),
        ];
        let extra = extra.iter().map(|arg| (*arg).to_owned());
        let args: Vec<String> = args.into_iter().chain(extra).collect();
        (self.start_process(id, &args), client_address)
    }

    fn start_server(&self, id: &str, args: &[String]) {
        let process = self.start_process(id, args);
        let server = Server {
            id: id.to_owned(),
            process,
            paused: false,
        };
        let mut servers = self.servers();
        match servers.iter_mut().find(|known| known.id == id) {
            Some(known) => *known = server,
            None => servers.push(server),
        }
    }

    /// Starts one server and waits until the master knows it and it takes RPC connections.
    fn start_process(&self, id: &str, args: &[String]) -> Process {
        let package = || package::installed().join("delegate");
        let require = DELEGATES
            .contains(&id)
            .then(|| format!("--require={}", package().display()));
        let program = ["app.js", "env=development"].map(str::to_owned);
        let args: Vec<&String> = require.iter().chain(&program).chain(args).collect();
        let mut process = Process::start(id, self.app.path(), "node", &args);
        let up = format!("peer {id} is up");
        process.wait_for_line(&up, 0, HANG_GUARD, |line| (line == up).then_some(()));
        // It listens before it says so; a refusal here would mean that another program answered.
        let connected = TcpStream::connect_timeout(&self.rpc_address(id), HANG_GUARD);
        assert!(
            connected.is_ok(),
            "{id} refuses: {connected:?}\n{}",
            process.transcript()
        );
        process
    }

    // Connector ids.

    /// An id of [`CONNECTORS`] for the caller alone, until dropped. Waits for one to be free.
    pub(crate) fn take_connector(&self) -> Connector<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut free, waited) = self
            .returned
            .wait_timeout_while(free, TAKE_TIMEOUT, |free| free.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "every connector id is taken");
        let id = free.pop().expect("waited for");
        Connector { cluster: self, id }
    }

    // The view of the servers.

    /// Runs the command of the framework, such as `pomelo list`, against this cluster. Returns
    /// its output, without colours.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let name = self.dialect.name();
        let script = format!("node_modules/.bin/{name}");
        let port = self.ports.of(MASTER).to_string();
        let login = ["-h", "127.0.0.1", "-P", &port, "-u", "admin", "-p", "admin"];
        let args: Vec<&str> = [script.as_str()]
            .iter()
            .chain(args)
            .chain(&login)
            .copied()
            .collect();
        let command = format!("{name} {}", args[1..].join(" "));
        let tool = Process::start(&command, self.app.path(), "node", &args);
        let (status, printed) = tool.finish(HANG_GUARD);
        assert!(status.success(), "{command}: {status}\n{printed}");
        without_colours(&printed)
    }

    pub(crate) fn is_listed(&self, id: &str) -> bool {
        let list = rpc::list(self.rpc_address(MASTER));
        list.is_ok_and(|list| list.get(id).is_some())
    }

    /// Waits until the master lists a server, and returns the server's description of itself.
    pub(crate) fn wait_until_listed(&self, id: &str) -> Value {
        wait_for(&format!("{id} in the master's list"), || {
            let list = rpc::list(self.rpc_address(MASTER)).ok()?;
            list.get(id).cloned()
        })
    }

    /// Waits until the master does not list it.
    pub(crate) fn wait_until_unlisted(&self, id: &str) {
        wait_for(&format!("no {id} in the master's list"), || {
            let list = rpc::list(self.rpc_address(MASTER)).ok()?;
            list.get(id).is_none().then_some(())
        });
    }

    /// Waits until every backend that serves knows a server.
    pub(crate) fn wait_until_known(&self, id: &str) {
        wait_for(&format!("all backends to know {id}"), || {
            self.is_known(id).then_some(())
        });
    }

    /// Whether every backend that serves knows it.
    pub(crate) fn is_known(&self, id: &str) -> bool {
        let mut lists = self.backend_lists();
        lists.all(|ids| ids.is_some_and(|ids| ids.contains(&json!(id))))
    }

    /// Waits until no backend that serves knows it.
    pub(crate) fn wait_until_forgotten(&self, id: &str) {
        wait_for(&format!("all backends to forget {id}"), || {
            self.is_forgotten(id).then_some(())
        });
    }

    fn has_master(&self) -> bool {
        self.with(MASTER, |server| server.process.has_exited().is_none())
    }

    fn is_forgotten(&self, id: &str) -> bool {
        let mut lists = self.backend_lists();
        lists.all(|ids| ids.is_some_and(|ids| !ids.contains(&json!(id))))
    }

    /// The ids that each serving backend knows; `None` when it does not tell.
    fn backend_lists(&self) -> impl Iterator<Item = Option<Vec<Value>>> {
        let mut serving = Vec::new();
        for server in self.servers().iter_mut() {
            if server.id != MASTER && !DELEGATES.contains(&&*server.id) && server.is_serving() {
                serving.push(self.rpc_address(&server.id));
            }
        }
        serving.into_iter().map(|address| {
            let answer = rpc::forward(address, "servers", &json!({})).ok()?;
            answer[1]["ids"].as_array().cloned()
        })
    }

    fn servers(&self) -> MutexGuard<'_, Vec<Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, id: &str, act: impl FnOnce(&mut Server) -> T) -> T {
        let mut servers = self.servers();
        let server = servers.iter_mut().find(|server| server.id == id);
        act(server.unwrap_or_else(|| panic!("there is no server {id}")))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            for server in self.servers().iter() {
                eprint!("{}", server.process.transcript());
            }
        }
    }
}

/// A connector id that is taken.
pub(crate) struct Connector<'a> {
    cluster: &'a Cluster,
    id: &'static str,
}

impl Connector<'_> {
    pub(crate) fn id(&self) -> &'static str {
        self.id
    }
}

impl Drop for Connector<'_> {
    /// Gives the id back when no server confuses its next owner with this one.
    fn drop(&mut self) {
        if !self.cluster.has_master() {
            // The backends know the id for ever, and nobody starts a connector any more.
            return;
        }
        let deadline = Instant::now() + HANG_GUARD;
        while !self.cluster.is_forgotten(self.id) {
            if Instant::now() >= deadline {
                // Not a reason to panic, perhaps for the second time: there are other ids.
                eprintln!("{} is still known: nobody gets it any more", self.id);
                return;
            }
            thread::sleep(4 * POLL_INTERVAL);
        }
        let mut free = self
            .cluster
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.push(self.id);
        self.cluster.returned.notify_one();
    }
}

pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + HANG_GUARD;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {HANG_GUARD:?} for {what}"
        );
        thread::sleep(4 * POLL_INTERVAL);
    }
}

/// Leaves out what begins with ESC `[` and ends with a letter.
fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        let end = after.find(|c: char| c.is_ascii_alphabetic());
        rest = end.map_or("", |end| &after[end + 1..]);
    }
    plain.push_str(rest);
    plain
}

mod tests {
    use super::*;

    #[test]
    fn the_cluster_starts_and_answers_rpc() {
        for dialect in Dialect::ALL {
            let cluster = Cluster::shared(dialect);
            for id in BACKENDS {
                let answer = rpc::forward(cluster.rpc_address(id), "whoami", &json!({}));
                let answer = answer.expect("an answer");
                let who = json!({
                    "server": id, "id": 9, "frontendId": "connector-1", "uid": null, "settings": {},
                });
                assert_eq!((&answer[0], &answer[1]), (&Value::Null, &who));
            }
            let chat = cluster.rpc_address("chat-1");
            let answer = rpc::forward(chat, "big", &json!({"n": 200_000})).expect("an answer");
            assert_eq!(answer[1]["s"].as_str().map(str::len), Some(200_000));
            let ghost = TcpStream::connect(cluster.rpc_address("ghost-1"));
            assert_eq!(
                ghost.expect_err("the port must be closed").kind(),
                std::io::ErrorKind::ConnectionRefused
            );
        }
    }

    #[test]
    fn a_server_of_the_cluster_dies_pauses_and_returns() {
        for dialect in Dialect::ALL {
            let cluster = Cluster::start(dialect);
            let chat = cluster.rpc_address("chat-1");
            let call = |method: &str| rpc::forward(chat, method, &json!({"n": 1, "list": "l"}));
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
            call("exit").expect_err("the server ends within this call");
            cluster.restart("chat-1");
            call("notes").expect("an answer");

            cluster.stop_hard();
            call("notes").expect_err("a dead server answers");
        }
    }

    #[test]
    fn the_master_tells_who_is_there() {
        for dialect in Dialect::ALL {
            let cluster = Cluster::start(dialect);
            cluster.add_backend("chat-3");
            assert_eq!(cluster.wait_until_listed("chat-3")["serverType"], "chat");
            assert!(cluster.cli(&["list"]).contains("chat-3"));
            cluster.remove("chat-3");
            cluster.wait_until_unlisted("chat-3");
            assert!(!cluster.cli(&["list"]).contains("chat-3"));

            cluster.stop_master();
            cluster.start_master();
            for id in BACKENDS {
                cluster.wait_until_listed(id);
            }
        }
    }

    #[test]
    fn colours_are_left_out() {
        assert_eq!(without_colours("a\u{1b}[31mb\u{1b}[39m c"), "ab c");
        assert_eq!(without_colours("a\u{1b}["), "a");
    }
}
