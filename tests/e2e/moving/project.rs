//! A project as `pomelo init` or `pinus init` makes it, with the npm package installed.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::browser::{Browser, serve};
use crate::harness::client::HANG_GUARD;
use crate::harness::gateway::Turn;
use crate::harness::package;
use crate::harness::peers::{AppDir, BACKENDS, Dialect, MASTER, Ports, copy, loopback, wait_for};
use crate::harness::process::Process;

/// The frontend of the templates has another id than those of the harness.
const FRONTEND: &str = "connector-1";
const SECOND: &str = "connector-2";

/// A project on disk; removed when dropped.
pub(super) struct Project {
    dialect: Dialect,
    /// The folder `game-server`.
    pub(super) root: PathBuf,
    ports: Ports,
    _app: AppDir,
    _turn: Turn,
}

impl Project {
    /// Unpacks the template of a framework, and builds it if it needs that.
    pub(super) fn unpack(dialect: Dialect) -> Self {
        let project = Self::plain(dialect);
        project.build();
        project
    }

    /// Unpacks a template and puts a chat in the place of its application and of its page.
    pub(super) fn chat(dialect: Dialect) -> Self {
        let project = Self::plain(dialect);
        project.replace_by_chat();
        project.build();
        project
    }

    /// Unpacks a template and puts an application in its place whose connector has all kinds of code. It is
    /// JavaScript in Pinus too.
    pub(super) fn with_code(dialect: Dialect) -> Self {
        let project = Self::plain(dialect);
        let name = format!("tests/genuine/delegate-{}", dialect.name());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        fs::remove_dir_all(project.root.join("app")).expect("the template has it");
        for name in ["app.js", "app", "config"] {
            copy(&source.join(name), &project.root.join(name));
        }
        project.add_backends();
        project
    }

    /// Builds it, if it needs that.
    pub(super) fn build(&self) {
        if self.dialect == Dialect::Pinus {
            self.run("npm", &["run", "build"]);
        }
    }

    /// Unpacks the template and gives it ports of its own.
    pub(super) fn plain(dialect: Dialect) -> Self {
        let peer = match dialect {
            Dialect::Pomelo => "pomelo",
            Dialect::Pinus => "pinus-template",
        };
        let (app, node_modules) = AppDir::empty(peer);
        let root = app.path().join("game-server");
        let framework = node_modules.join(dialect.name());
        for name in ["game-server", "web-server"] {
            copy(
                &framework.join("template").join(name),
                &app.path().join(name),
            );
        }
        // Other tests have the same files, but npm writes into this one.
        run(
            &root,
            "cp",
            &["-al", path_text(&node_modules), "node_modules"],
        );
        let _ = fs::remove_file(root.join("node_modules/.package-lock.json"));
        // As `init` of the framework makes it.
        fs::create_dir(root.join("logs")).expect("a new folder");
        let project = Self {
            dialect,
            root,
            ports: Ports::claim(),
            _app: app,
            _turn: Turn::shared(),
        };
        project.name(&framework);
        project.set_ports();
        project
    }

    /// Puts the name of the project and the framework's version where the template has signs, as `init` of
    /// the framework does.
    fn name(&self, framework: &Path) {
        let package = fs::read_to_string(framework.join("package.json")).expect("a package");
        let package: Value = serde_json::from_str(&package).expect("JSON");
        let version = package["version"].as_str().expect("a version");
        let file = self.root.join("package.json");
        let text = fs::read_to_string(&file).expect("the template has it");
        let text = text.replace('$', "game").replace('#', version);
        fs::write(&file, text).expect("a file of our own");
    }

    fn replace_by_chat(&self) {
        let genuine = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/genuine");
        let (source, main) = match self.dialect {
            Dialect::Pomelo => (genuine.join("chat"), "app.js"),
            Dialect::Pinus => (genuine.join("chat-pinus"), "app.ts"),
        };
        fs::remove_dir_all(self.root.join("app")).expect("the template has it");
        for name in [main, "app"] {
            copy(&source.join(name), &self.root.join(name));
        }
        let public = self.root.with_file_name("web-server").join("public");
        copy(&genuine.join("chat/web"), &public);
        let said = json!({"required string content": 1, "required string target": 2});
        let chat = json!({
            "required string from": 1, "required string msg": 2, "required string target": 3,
        });
        self.write("config/dictionary.json", &json!(["onChat"]));
        self.write(
            "config/clientProtos.json",
            &json!({"chat.chatHandler.send": said}),
        );
        self.write("config/serverProtos.json", &json!({"onChat": chat}));
        self.add_backends();
    }

    /// Adds the backends of the applications in `tests/genuine/`.
    fn add_backends(&self) {
        let mut servers = self.read("config/servers.json");
        let chats =
            BACKENDS.map(|id| json!({"id": id, "host": "127.0.0.1", "port": self.ports.of(id)}));
        servers["development"]["chat"] = json!(chats);
        self.write("config/servers.json", &servers);
        let token = self.read("config/adminServer.json")[0]["token"].clone();
        let tokens = ["connector", "chat"].map(|kind| json!({"type": kind, "token": token}));
        self.write("config/adminServer.json", &json!(tokens));
    }

    /// Adds a second connector to the project, and returns its address for clients.
    pub(super) fn add_connector(&self) -> SocketAddr {
        let mut servers = self.read("config/servers.json");
        let connectors = servers["development"]["connector"].as_array_mut();
        let connectors = connectors.expect("a list");
        let mut second = connectors[0].clone();
        second["id"] = json!("connector-server-2");
        second["port"] = json!(self.ports.of(SECOND));
        second["clientPort"] = json!(self.ports.client(SECOND));
        connectors.push(second);
        self.write("config/servers.json", &servers);
        loopback(self.ports.client(SECOND))
    }

    /// Puts a script in the place of a JSON file, as the build of a project in TypeScript does.
    pub(super) fn make_script(&self, name: &str) {
        let json = self.read(&format!("config/{name}.json"));
        let text = format!("module.exports = {json};");
        fs::write(self.root.join(format!("config/{name}.js")), text).expect("a file of our own");
        fs::remove_file(self.root.join(format!("config/{name}.json"))).expect("read before");
    }

    /// Copies the originals back that `init` has kept.
    pub(super) fn restore(&self) {
        for name in ["servers.json", "adminServer.json"] {
            for folder in [&self.root, &self.base()] {
                let file = folder.join("config").join(name);
                fs::copy(file.with_extension("json.orig"), file).expect("init has kept it");
            }
        }
    }

    fn set_ports(&self) {
        let master = json!({"id": MASTER, "host": "127.0.0.1", "port": self.ports.of(MASTER)});
        self.write(
            "config/master.json",
            &json!({"development": master, "production": master}),
        );
        let mut servers = self.read("config/servers.json");
        for environment in ["development", "production"] {
            let connector = &mut servers[environment]["connector"][0];
            connector["port"] = json!(self.ports.of(FRONTEND));
            connector["clientPort"] = json!(self.address().port());
        }
        self.write("config/servers.json", &servers);
    }

    pub(super) fn address(&self) -> SocketAddr {
        loopback(self.ports.client(FRONTEND))
    }

    /// Starts the master and waits until it has started all servers.
    pub(super) fn start_all(&self) -> Process {
        let mut master = self.start();
        let all = "all servers startup";
        master.wait_for_line(all, 0, HANG_GUARD, |line| line.contains(all).then_some(()));
        master
    }

    /// Ends the master, and waits until all servers have ended.
    pub(super) fn stop(&self, master: Process) {
        drop(master);
        let ports = [MASTER, FRONTEND]
            .iter()
            .chain(&BACKENDS)
            .map(|id| self.ports.of(id));
        for address in ports.map(loopback).chain([self.address()]) {
            wait_for("a closed port", || TcpStream::connect(address).err());
        }
    }

    /// The folder of the main script.
    pub(super) fn base(&self) -> PathBuf {
        let built = self.root.join("dist");
        if built.exists() {
            built
        } else {
            self.root.clone()
        }
    }

    /// Installs the npm package.
    pub(super) fn install(&self) {
        package::install(&self.root);
    }

    /// Starts a browser for the web page of the project, with these ports in place of those that the template has.
    pub(super) fn browser(&self) -> Browser {
        let page = serve(self.root.with_file_name("web-server").join("public"));
        Browser::start(&[("127.0.0.1:3001", page), ("127.0.0.1:3010", self.address())])
    }

    /// Runs `npx --no-install tangelo` with these words, which must succeed. Returns its output.
    pub(super) fn tangelo(&self, words: &[&str]) -> String {
        self.run("npx", &[&["--no-install", "tangelo"], words].concat())
    }

    /// Asks `tangelo init --check` whether there is something to change.
    pub(super) fn would_change(&self) -> bool {
        let args = ["--no-install", "tangelo", "init", "--check"];
        let check = Process::start("init --check", &self.root, "npx", &args);
        let (status, printed) = check.finish(2 * HANG_GUARD);
        match status.code() {
            Some(code @ (0 | 1)) => code == 1,
            other => panic!("{other:?}: {printed}"),
        }
    }

    /// Runs a program in the folder of the project; it must succeed. Returns its output.
    pub(super) fn run(&self, program: &str, args: &[&str]) -> String {
        run(&self.root, program, args)
    }

    /// Starts the master, which starts all servers.
    pub(super) fn start(&self) -> Process {
        let leash = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/genuine/leash.js");
        let options = format!("NODE_OPTIONS=--require={leash}");
        let binary = concat!("TANGELO_BIN=", env!("CARGO_BIN_EXE_tangelo"));
        let args = [&options, binary, "node", "app.js"];
        Process::start("master", &self.base(), "env", &args)
    }

    /// Returns the text of each script of the project, by its path.
    pub(super) fn scripts(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut scripts = BTreeMap::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a readable folder") {
                let path = entry.expect("a readable folder").path();
                let is_script = path.extension().is_some_and(|it| it == "js" || it == "ts");
                if path.is_dir() && !path.ends_with("node_modules") {
                    folders.push(path);
                } else if is_script {
                    let text = fs::read(&path).expect("a readable file");
                    scripts.insert(path, text);
                }
            }
        }
        scripts
    }

    pub(super) fn read(&self, name: &str) -> Value {
        let text = fs::read_to_string(self.root.join(name)).expect("the project has it");
        serde_json::from_str(&text).expect("JSON")
    }

    fn write(&self, name: &str, content: &Value) {
        fs::write(self.root.join(name), content.to_string()).expect("a file of our own");
    }
}

/// Runs a program, which must succeed. Returns its output.
fn run(folder: &Path, program: &str, args: &[&str]) -> String {
    let process = Process::start(program, folder, program, args);
    // The compiler for Pinus' template takes long beside other work.
    let (status, printed) = process.finish(5 * HANG_GUARD);
    assert!(status.success(), "{program} {args:?}: {status}\n{printed}");
    printed
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
