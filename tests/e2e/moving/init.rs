//! `tangelo init` reads a project and says and writes what tangelo needs.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::project::Project;
use crate::harness::client::HANG_GUARD;
use crate::harness::package;
use crate::harness::peers::Dialect;
use crate::harness::process::Process;

/// Runs `tangelo init`. Returns its status and all that it printed.
fn init(args: &[&str]) -> (Option<i32>, String) {
    let args = [&["--no-install", "tangelo", "init"], args].concat();
    let mut process = Process::start("init", package::project(), "npx", &args);
    let status = process.wait_exit(HANG_GUARD).expect("init ends");
    process.wait_output_end();
    (status.code(), process.transcript())
}

/// Runs it in a folder, where it must succeed. Returns all that it printed.
pub(super) fn succeeds(folder: &Path, args: &[&str]) -> String {
    let folder = folder.to_str().expect("a path in UTF-8");
    let (status, printed) = init(&[&[folder], args].concat());
    assert_eq!(status, Some(0), "{printed}");
    printed
}

fn refused(folder: &Path, text: &str) {
    let (status, printed) = init(&[folder.to_str().expect("UTF-8"), "--check"]);
    assert_eq!(status, Some(2), "{printed}");
    // One line, and the one that the transcript begins with.
    assert_eq!(printed.lines().count(), 2, "{printed}");
    assert!(printed.contains(text), "{printed}");
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("a file of our own");
    }
    folder
}

#[test]
fn a_folder_that_is_no_project_is_one_line() {
    refused(folder(&[]).path(), "is no project: there is none of app.js");
    let other = folder(&[("app.js", ""), ("package.json", "{}")]);
    refused(other.path(), "is no project");
    let (_, printed) = init(&["."]);
    let here = package::project().display();
    assert!(
        printed.contains(&format!("{here}: is no project")),
        "{printed}"
    );
    let typescript = folder(&[("app.ts", "")]);
    refused(typescript.path(), "app.ts is not built yet");
}

#[test]
fn a_project_without_its_packages_is_one_line() {
    let package = r#"{"dependencies": {"pomelo": "2.2.7"}}"#;
    let folder = folder(&[("app.js", ""), ("package.json", package)]);
    refused(folder.path(), "pomelo is not installed; run npm install");
}

#[test]
fn a_main_script_that_throws_or_never_starts_is_one_line_with_its_place() {
    let project = Project::unpack(Dialect::Pomelo);
    let script = project.root.join("app.js");
    let app = fs::read_to_string(&script).expect("the template has it");
    fs::write(
        &script,
        format!("// One.\nthrow new Error('no luck');\n{app}"),
    )
    .expect("ours");
    refused(&project.root, "app.js: throws: no luck (app.js:2)");
    fs::write(&script, app.replace("app.start();", "process.exit(3);")).expect("ours");
    refused(
        &project.root,
        "ends with status 3 before it calls app.start",
    );
    fs::write(&script, format!("// One.\n)\n{app}")).expect("ours");
    refused(&project.root, "throws: Unexpected token ')' (app.js:2)");
}

#[test]
fn a_file_that_is_not_there_or_not_json_is_one_line_with_its_place() {
    let project = Project::unpack(Dialect::Pomelo);
    let servers = project.root.join("config/servers.json");
    fs::write(&servers, "{\n  \"a\": 1\n  \"b\": 2\n}").expect("ours");
    refused(&project.root, "config/servers.json:3: Expected ','");
    fs::write(&servers, "{\n  \"a\": 1,\n").expect("ours");
    refused(&project.root, "config/servers.json:3: ");
    fs::write(&servers, "{}").expect("ours");
    refused(&project.root, "config/servers.json: has no servers");
    fs::remove_file(&servers).expect("written before");
    refused(&project.root, "config/servers.json: is not there");
    fs::write(
        servers.with_extension("js"),
        "module.exports = {\n  a: ,\n};",
    )
    .expect("ours");
    refused(&project.root, "config/servers.js:2: SyntaxError");
}

#[test]
fn a_second_run_changes_nothing_and_a_check_says_so() {
    let project = Project::unpack(Dialect::Pomelo);
    let root = &project.root;
    let before = project.read("config/servers.json");

    let name = root.to_str().expect("UTF-8");
    let (status, printed) = init(&[name, "--check", "--only", "chat-1"]);
    assert_eq!(status, Some(2), "{printed}");
    assert!(printed.contains("--only chat-1: no frontend"), "{printed}");

    let (status, printed) = init(&[name, "--check"]);
    assert_eq!(status, Some(1), "{printed}");
    assert!(
        printed.contains("would write config/tangelo/connector.toml"),
        "{printed}"
    );
    assert!(
        printed.contains("would write config/servers.json\n"),
        "{printed}"
    );
    assert!(!project.root.join("config/tangelo").exists());

    assert!(
        printed.contains("\nout| to do    development: connector-server-1 starts"),
        "{printed}"
    );
    assert!(!printed.contains("out| done "), "{printed}");

    // Without --write the project's own files stay.
    for _ in 0..2 {
        let printed = succeeds(root, &[]);
        assert!(printed.contains("init --write changes them"), "{printed}");
        assert!(!printed.contains("nothing to change"), "{printed}");
        assert!(!printed.contains("out| done "), "{printed}");
    }
    assert_eq!(project.read("config/servers.json"), before);
    assert_ne!(project.read("config/servers.json.tangelo"), before);

    succeeds(root, &["--write"]);
    assert_eq!(project.read("config/servers.json.orig"), before);
    assert!(!root.join("config/servers.json.tangelo").exists());
    for environment in ["development", "production"] {
        let servers = &project.read("config/servers.json")[environment];
        assert_eq!(
            servers["connector"][0]["args"],
            " --require=tangelo/launcher"
        );
        let delegate = &servers["connectorDelegate"][0];
        assert_eq!(delegate["args"], " --require=tangelo/delegate");
        assert_eq!(delegate["delegateFor"], "connector");
    }
    let tokens = project.read("config/adminServer.json");
    assert_eq!(tokens[1]["type"], "connectorDelegate");
    assert_eq!(tokens[1]["token"], tokens[0]["token"]);

    for words in [&["--check"], &["--write"], &[][..]] {
        let printed = succeeds(root, words);
        assert!(printed.contains("nothing to change"), "{printed}");
        assert!(!printed.contains("init --write changes them"), "{printed}");
        assert!(
            printed.contains("tangelo is not installed in the project"),
            "{printed}"
        );
    }
    project.install();
    let printed = succeeds(root, &["--check"]);
    assert!(!printed.contains("is not installed"), "{printed}");

    // A file that a person has changed stays as it is.
    let settings = root.join("config/tangelo/connector.toml");
    let mut text = fs::read_to_string(&settings).expect("init wrote it");
    text.push_str("# Mine.\n");
    fs::write(&settings, &text).expect("a file of our own");
    let printed = succeeds(root, &["--write"]);
    assert!(
        printed.contains("wrote config/tangelo/connector.toml.new"),
        "{printed}"
    );
    assert_eq!(fs::read_to_string(&settings).expect("still there"), text);
}

#[test]
fn a_narrower_only_names_the_servers_that_an_earlier_one_has_moved() {
    let project = Project::plain(Dialect::Pomelo);
    project.add_connector();
    succeeds(&project.root, &["--write"]);
    let moved = project.read("config/servers.json");
    let printed = succeeds(&project.root, &["--write", "--only", "connector-server-2"]);
    assert!(
        printed.contains("development: connector-server-1 still starts tangelo"),
        "{printed}"
    );
    assert_eq!(project.read("config/servers.json"), moved);
}
