//! Each fuzz target takes the inputs of its corpus: those that reach its code, and those that once broke it.
//!
//! `tests/fuzz/README.md` says how to look for further ones.

#![cfg(feature = "runtime")]

use std::collections::BTreeSet;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use tangelo::fuzzing::TARGETS;

/// Largest corpus of a target, bytes: it is read by people, and replayed by each run of the tests.
const CORPUS_BYTES_MAX: usize = 64 << 10;

#[test]
fn every_input_of_every_corpus_passes() {
    let mut broken = Vec::new();
    for (target, run) in TARGETS {
        let inputs = files(&folder().join("corpus").join(target));
        assert!(!inputs.is_empty(), "{target}: the corpus is empty");
        let mut bytes = 0;
        for path in inputs {
            let input = fs::read(&path).expect("an input can be read");
            bytes += input.len();
            if panic::catch_unwind(|| run(&input)).is_err() {
                broken.push(path.display().to_string());
            }
        }
        assert!(
            bytes <= CORPUS_BYTES_MAX,
            "{target}: {bytes} bytes of inputs"
        );
    }
    assert!(broken.is_empty(), "broken by:\n{}", broken.join("\n"));
}

#[test]
fn every_target_has_a_program_and_a_corpus_and_there_are_no_others() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(targets.len(), TARGETS.len(), "a name stands twice");
    let names = |folder: &Path| -> BTreeSet<String> {
        let name = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into();
        files(folder).into_iter().map(name).collect()
    };
    assert_eq!(names(&folder().join("corpus")), targets);
    assert_eq!(names(&folder().join("fuzz_targets")), targets);
    let manifest = read("Cargo.toml");
    for target in &targets {
        let file = format!("fuzz_targets/{target}.rs");
        let call = format!("tangelo::fuzzing::{target}(bytes)");
        assert!(
            read(&file).contains(&call),
            "{file}: it does not call {call}"
        );
        let program = format!("name = \"{target}\"\npath = \"{file}\"\n");
        assert!(
            manifest.contains(&program),
            "Cargo.toml: no program {target}"
        );
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn read(file: &str) -> String {
    let text = fs::read_to_string(folder().join(file));
    text.unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Returns what a folder has, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}
