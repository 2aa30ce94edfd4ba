//! The programs and files that README.md and docs/ show work as they stand there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tangelo::gateway::load;

use crate::harness::client::HANG_GUARD;
use crate::harness::peers::run_with_packages;
use crate::harness::process::Process;

const README: &str = include_str!("../../../README.md");
const TUTORIAL: &str = include_str!("../../../docs/handlers.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// All of tangelo is built anew, for a project of its own.
const BUILD_TIMEOUT: Duration = Duration::from_secs(900);

/// Returns the code blocks of a document, each with its language.
fn blocks(document: &str) -> impl Iterator<Item = (&str, &str)> {
    let blocks = document.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.split_once('\n'))
}

/// Returns the block that begins with a comment naming this file.
fn block(document: &'static str, file: &str) -> &'static str {
    let is_of = |text: &str| {
        let comment = text.lines().next().unwrap_or_default();
        let comment = comment.trim_start_matches(['#', '/', ' ']);
        comment.split([',', ' ']).next() == Some(file)
    };
    let found = blocks(document).find(|(_, text)| is_of(text));
    found
        .unwrap_or_else(|| panic!("the document has no {file}"))
        .1
}

/// Creates the project of the tutorial, with the versions of the dependencies that are tested here.
fn project() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hello");
    fs::create_dir_all(project.join("src")).expect("a folder of our own");
    let manifest = block(TUTORIAL, "Cargo.toml");
    let here = manifest.replace("../tangelo", &root.display().to_string());
    assert_ne!(here, manifest, "the program depends on tangelo");
    let write = |name: &str, text: &str| {
        // Cargo builds a file again when it is written again.
        let file = project.join(name);
        if fs::read_to_string(&file).ok().as_deref() != Some(text) {
            fs::write(file, text).expect("a file of our own");
        }
    };
    // Not part of the workspace around it.
    write("Cargo.toml", &format!("{here}\n[workspace]\n"));
    write("src/main.rs", block(TUTORIAL, "src/main.rs"));
    write("hello.js", block(TUTORIAL, "hello.js"));
    let lock = fs::read_to_string(root.join("Cargo.lock")).expect("the lock file");
    write("Cargo.lock", &lock);
    project
}

fn cargo(project: &Path, args: &[&str]) {
    let mut cargo = Process::start("cargo", project, env!("CARGO"), args);
    let Some(status) = cargo.wait_exit(BUILD_TIMEOUT) else {
        panic!("cargo {args:?} takes too long\n{}", cargo.transcript());
    };
    cargo.wait_output_end();
    assert!(status.success(), "cargo {args:?}\n{}", cargo.transcript());
}

#[test]
fn the_way_to_a_first_handler_leads_there() {
    let project = project();
    // Its own target folder, whatever the environment says of the one of this test.
    let target = project.join("target").display().to_string();
    cargo(&project, &["test", "--target-dir", &target]);
    cargo(&project, &["build", "--target-dir", &target]);

    let program = format!("{target}/debug/hello");
    let listen = ["--listen", "127.0.0.1:0", "--shards", "1"];
    let mut hello = Process::start("hello", &project, &program, &listen);
    let port = hello.wait_for_line("the line that it listens", 0, HANG_GUARD, |line| {
        let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
        rest.split(' ').next().map(str::to_owned)
    });
    let client = run_with_packages("clients", &project.join("hello.js"), &[&port]);
    let (status, printed) = client.finish(HANG_GUARD);
    assert!(status.success(), "{status}\n{printed}");
    assert!(printed.contains("hello, ann"), "{printed}");
}

#[test]
fn the_handler_of_the_readme_is_a_part_of_the_tutorial() {
    let program = block(TUTORIAL, "src/main.rs");
    let parts: Vec<_> = blocks(README)
        .filter(|(language, _)| *language == "rust")
        .collect();
    assert_eq!(parts.len(), 2);
    for (_, part) in parts {
        assert!(program.contains(part), "{part}");
    }
}

#[test]
fn the_configuration_of_the_manual_is_accepted() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("manual.toml");
    fs::write(&file, block(OPERATIONS, "tangelo.toml")).expect("a file of our own");
    let args = ["tangelo".into(), "--config".into(), file.into_os_string()];
    let config = load::from_args(args);
    let config = config.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((config.shards, config.push.schedulers.len()), (Some(4), 2));
}
