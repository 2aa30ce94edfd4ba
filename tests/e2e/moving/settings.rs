//! The settings that `tangelo init` writes say what the project configures, and the report says the rest.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use tangelo::gateway::load;

use super::project::Project;
use crate::harness::certificates::{Certificates, LOCAL};
use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::peers::{Dialect, wait_for};
use crate::harness::secure::Trust;

/// Reads a project whose main script is this file of `tests/genuine/moving/`. Returns the settings for
/// development and the report, and checks that tangelo takes the settings.
fn read(project: &Project, script: &str) -> (String, String) {
    let (file, report) = init(project, script);
    let mut args: Vec<OsString> = vec!["tangelo".into()];
    args.extend(arguments(project, &file).map(OsString::from));
    let config = load::from_args(args);
    assert!(config.is_ok(), "{:?}", config.err());
    (fs::read_to_string(file).expect("the settings"), report)
}

/// Arguments of tangelo for the connector of a project.
fn arguments<'a>(project: &'a Project, settings: &'a Path) -> [&'a str; 6] {
    let [settings, root] = [settings, &project.root].map(|path| path.to_str().expect("UTF-8"));
    [
        "--config",
        settings,
        "--app-dir",
        root,
        "--id",
        "connector-server-1",
    ]
}

/// Reads a project with this main script. Returns the file of the settings for development, and the report.
fn init(project: &Project, script: &str) -> (PathBuf, String) {
    let source = format!(
        "{}/tests/genuine/moving/{script}",
        env!("CARGO_MANIFEST_DIR")
    );
    fs::copy(source, project.root.join("app.js")).expect("a file of our own");
    super::init::succeeds(&project.root, &["--write"]);
    let folder = project.root.join("config/tangelo");
    let files = ["connector.toml", "connector.development.toml"].map(|name| folder.join(name));
    let file = files.into_iter().find(|file| file.exists());
    let report = fs::read_to_string(folder.join("report.txt")).expect("the report");
    (file.expect("the settings"), report)
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing from\n{text}");
    }
}

#[test]
fn each_setting_of_pomelo_is_a_key_a_decision_or_a_question_with_its_place() {
    let project = Project::unpack(Dialect::Pomelo);
    let (settings, report) = read(&project, "pomelo.js");
    has(
        &settings,
        &[
            "dialect = \"pomelo\"",
            "delegate = \"connectorDelegate\"",
            "delegate_notices = true",
            "# app.js:17: checkClient, handshake\ndelegate_handshake = \"tangelo.handshake\"",
            "# app.js:17: blacklistFun\ndelegate_blacklist = \"tangelo.blacklist\"",
            "\"connector.entryHandler.subscribe\",",
            "room = \"hash:rid\"",
            "area = \"setting:area\"",
            "log = \"fixed:log-7\"",
            "reads = \"delegate\"",
            "counts = \"delegate\"",
            "lanes = \"delegate\"",
            "# app.js:17: heartbeat\nheartbeat = \"30s\"",
            "timeout = \"90s\"",
            "use_dict = true",
            "blacklist_console = true",
            "global = [\"timeout 2s 100\"]",
            "duplicate_login = \"refuse\"",
            "scheduler = \"direct\"",
            "[[push.schedulers]]\nid = \"slow\"\nscheduler = \"buffer\"\nflush_interval = \"100ms\"",
            "timeout = \"10s\"",
            "forward = true",
        ],
    );
    has(
        &report,
        &[
            "decided  app.js:41: app.route('room') is the strategy hash:rid: ",
            "decided  connectorConfig.setNoDelay has no key",
            "done     app.js:52: app.route('connector') chooses for calls only",
            "done     app.js:39: the filter serial runs in the delegate",
            "done     app.js:17: checkClient runs in the delegate",
            "done     app.js:17: handshake runs in the delegate",
            "done     app.js:17: blacklistFun runs in the delegate",
            "decided  app.js:17: blacklistFun is asked once a second: ",
            "ask      app.js:17: connectorConfig.ssl: ",
            "ask      app.js:29: the selector of pushSchedulerConfig",
            "ask      app.js:40: the global filter ",
            "app.route('reads') is the strategy delegate: it reads the message (args); ",
            "app.route('counts') is the strategy delegate: its answers are those of no strategy; ",
        ],
    );
}

#[test]
fn each_setting_of_pinus_is_found_when_it_starts_late() {
    let project = Project::plain(Dialect::Pinus);
    for name in ["cert", "key", "ca", "crl"] {
        let file = project.root.join(format!("config/{name}.pem"));
        let text = format!("-----BEGIN {name}-----\n-----END {name}-----\n");
        fs::write(file, text).expect("a file of the project");
    }
    let (settings, report) = read(&project, "pinus.js");
    let file = |name: &str| {
        let file = project.root.join(format!("config/{name}.pem"));
        let file = file.canonicalize().expect("it is there");
        format!("\"{}\"", file.display())
    };
    let (cert, key) = (file("cert"), file("key"));
    let (ca, crl) = (file("ca"), file("crl"));
    has(
        &settings,
        &[
            "[[listener]]\ntls = \"required\"",
            &format!("[[tls.certificates]]\nchain = {cert}\nkey = {key}"),
            "min_version = \"1.3\"",
            &format!("client_ca = {ca}\nclient_certificates = \"required\"\nclient_crl = {crl}"),
        ],
    );
    has(
        &settings,
        &[
            "dialect = \"pinus\"",
            "heartbeat = \"3s\"",
            "forward = false",
            "real_ip_header = \"X-Real-IP\"",
            "global = [\"serial 5s\"]",
            "scheduler = \"buffer\"",
            "flush_interval = \"50ms\"",
            "chat = \"setting:chat\"",
            "lanes = \"delegate:session\"",
        ],
    );
    has(
        &report,
        &[
            "ask      app.js: production: connector uses sioconnector",
            "connectorConfig.ssl.ciphers: init wrote no key for it; ",
            "connectorConfig.realIPKey: the header counts only for the proxies in client.trusted_proxies: ",
            "app.route('lanes') is the strategy delegate:session: ",
            "; its text uses only the session and the list of servers, so connectorDelegate asks the function once",
        ],
    );
}

/// `sslWatcher` of Pinus gives a changed certificate to new connections; tangelo does so by itself.
#[test]
fn a_project_with_ssl_watcher_gets_its_changed_certificate_served() {
    let certificates = Certificates::local();
    certificates.sign("b", LOCAL, 365);
    let project = Project::plain(Dialect::Pinus);
    let install = |name: &str| {
        for kind in ["key", "pem"] {
            let file = project.root.join(format!("config/a.{kind}"));
            fs::copy(certificates.path(&format!("{name}.{kind}")), file).expect("our own folders");
        }
    };
    install("a");
    let (settings, report) = init(&project, "pinus-tls.js");
    has(
        &report,
        &[
            "decided  connectorConfig.sslWatcher has no key: tangelo takes a changed certificate by itself",
        ],
    );
    let mut gateway = Gateway::start_with_listeners(&arguments(&project, &settings));
    let trust = Trust::of(&certificates);
    let shown = |name: &str| {
        let client = Client::tls(gateway.address(), &trust);
        client.certificate() == Some(&*certificates.first(&format!("{name}.pem")))
    };
    assert!(shown("a"));
    install("b");
    wait_for("the new certificate", || shown("b").then_some(()));
    gateway.wait_counter("tls_reloads", 1);
}

#[test]
fn scripts_of_the_configuration_become_json_and_the_report_has_what_they_lack() {
    let project = Project::plain(Dialect::Pinus);
    let original = project.read("config/servers.json");
    for name in ["servers", "master", "adminServer"] {
        project.make_script(name);
    }
    let (settings, report) = read(&project, "pinus-scripts.js");
    has(&settings, &["dialect = \"pinus\"", "heartbeat = \"3s\""]);
    assert_eq!(project.read("config/servers.json"), original);
    has(
        &report,
        &[
            "decided  config/master.json has what the script beside it exports",
            "ask      config/servers.js: make it export, for development: {",
            r#""connectorDelegate":[{"id":"connector-delegate-1""#,
            "ask      config/adminServer.js: make it export: [",
        ],
    );
    assert!(!report.contains("starts tangelo"), "{report}");
    let printed = super::init::succeeds(&project.root, &["--check"]);
    assert!(printed.contains("nothing to change"), "{printed}");
}
