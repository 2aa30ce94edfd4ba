//! The settings that `tangelo init` writes say what the project configures, and the report says the rest.

use std::ffi::OsString;
use std::fs;

use tangelo::gateway::load;

use super::project::Project;
use crate::harness::peers::Dialect;

/// Reads a project whose main script is this file of `tests/genuine/moving/`. Returns the settings for
/// development and the report, and checks that tangelo takes the settings.
fn read(project: &Project, script: &str) -> (String, String) {
    let source = format!(
        "{}/tests/genuine/moving/{script}",
        env!("CARGO_MANIFEST_DIR")
    );
    fs::copy(source, project.root.join("app.js")).expect("a file of our own");
    super::init::succeeds(&project.root, &["--write"]);
    let text = |name: &str| fs::read_to_string(project.root.join("config/tangelo").join(name));
    let names = ["connector.toml", "connector.development.toml"];
    let name = names
        .into_iter()
        .find(|name| text(name).is_ok())
        .expect("the settings");
    let mut args: Vec<OsString> = vec!["tangelo".into(), "--config".into()];
    args.push(project.root.join("config/tangelo").join(name).into());
    args.push("--app-dir".into());
    args.push(project.root.clone().into());
    args.extend(["--id", "connector-server-1"].map(OsString::from));
    let config = load::from_args(args);
    assert!(config.is_ok(), "{:?}", config.err());
    (
        text(name).expect("read before"),
        text("report.txt").expect("the report"),
    )
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
    for name in ["cert", "key", "ca"] {
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
    let (cert, key, ca) = (file("cert"), file("key"), file("ca"));
    has(
        &settings,
        &[
            "[[listener]]\ntls = \"required\"",
            &format!("[[tls.certificates]]\nchain = {cert}\nkey = {key}"),
            &format!("client_ca = {ca}\nclient_certificates = \"required\""),
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
            "connectorConfig.realIPKey: the header counts only for the proxies in client.trusted_proxies: ",
            "app.route('lanes') is the strategy delegate:session: ",
            "; its text uses only the session and the list of servers, so connectorDelegate asks the function once",
        ],
    );
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
