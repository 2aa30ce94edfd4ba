//! Nothing is left behind: dead files, unfinished code, and names of the machine that wrote them.

use std::collections::BTreeSet;

use crate::source::{
    Findings, Source, ends_in_word, folder, is_crate_root, is_word, joined, literal, modules,
    rust_files, text_files, tokens, tree,
};

// Put together here, so that this file does not break the rules it checks.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];
const LEFT_BEHIND: &[&str] = &["todo", "unimplemented", "dbg"];
const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln"];
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk"),
    concat!("/ro", "ot"),
    concat!("/ho", "me"),
    TEMPORARY,
];
const TEMPORARY: &str = concat!("/t", "mp");
const REGISTRIES: &[&str] = &[
    concat!("crates.io", "-index"),
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("registry.", "npmjs"),
    concat!("registry.", "yarnpkg"),
];

#[test]
fn no_file_is_dead() {
    let files = rust_files("");
    let paths: BTreeSet<&str> = files.iter().map(|file| &*file.path).collect();
    let mut found = Findings::default();
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let roots = files.iter().filter(|file| is_crate_root(&file.path));
    let mut open: Vec<&Source> = roots.collect();
    while let Some(file) = open.pop() {
        reached.insert(file.path.clone());
        for (at, candidates) in modules(file) {
            match candidates.iter().find(|path| paths.contains(path.as_str())) {
                Some(path) => open.extend(files.iter().find(|file| file.path == *path)),
                None => found.add(file, at, format!("no file for the module: {candidates:?}")),
            }
        }
        reached.extend(included(file));
    }
    for path in tree() {
        let rust = path.ends_with(".rs");
        if (rust || path.starts_with("src/")) && !reached.contains(&path) {
            found
                .0
                .push(format!("{path}:1: no `mod` line or include names it"));
        }
    }
    found.none();
}

#[test]
fn nothing_unfinished_is_left_behind() {
    let mut found = Findings::default();
    for file in text_files() {
        for word in UNFINISHED {
            for at in whole_words(&file.text, word) {
                found.add(&file, at, format!("the word {word}"));
            }
        }
    }
    for file in rust_files("") {
        let quiet = file.path.starts_with("src/") && file.path != "src/main.rs";
        let tokens: Vec<_> = tokens(&file.code).collect();
        for pair in tokens.windows(2) {
            let [(at, name), (_, "!")] = pair else {
                continue;
            };
            if LEFT_BEHIND.contains(name) || (quiet && PRINTING.contains(name)) {
                found.add(&file, *at, format!("the macro `{name}!`"));
            }
        }
    }
    found.none();
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let mut found = Findings::default();
    for file in text_files() {
        for path in MACHINE_PATHS {
            // A test may know a temporary path; the product asks the system for one.
            if *path == TEMPORARY && file.path.starts_with("tests/") {
                continue;
            }
            for at in whole_words(&file.text, path) {
                if starts_a_path(&file.text[..at]) {
                    found.add(&file, at, format!("the path {path}"));
                }
            }
        }
        for host in REGISTRIES
            .iter()
            .filter(|_| !file.path.ends_with("Cargo.lock"))
        {
            for (at, _) in file.text.match_indices(host) {
                found.add(&file, at, format!("the registry {host}"));
            }
        }
    }
    found.none();
}

#[test]
fn temporary_files_have_names_of_the_crate_tempfile() {
    let mut found = Findings::default();
    for file in rust_files("") {
        for (at, name) in tokens(&file.code) {
            if name == "temp_dir" {
                let fault = "a fixed name in `temp_dir` is one for all tests of a process: use the crate tempfile";
                found.add(&file, at, fault.to_owned());
            }
        }
    }
    found.none();
}

/// The files that a file includes.
fn included(file: &Source) -> Vec<String> {
    let tokens: Vec<_> = tokens(&file.code).collect();
    let names = tokens.windows(3).filter_map(|three| {
        let [(_, "include_str" | "include_bytes"), (_, "!"), (open, "(")] = three else {
            return None;
        };
        literal(&file.text[open + 1..])
    });
    names.map(|name| joined(folder(&file.path), name)).collect()
}

/// Where a word stands that is not a part of a longer one.
fn whole_words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let whole = move |at: &usize| {
        let (before, after) = (&text[..*at], &text[at + word.len()..]);
        let goes_before = word.starts_with(is_word) && ends_in_word(before);
        !goes_before && !after.starts_with(is_word)
    };
    text.match_indices(word).map(|(at, _)| at).filter(whole)
}

/// Whether a slash after this text begins an absolute path.
fn starts_a_path(before: &str) -> bool {
    let goes_on = |last: char| is_word(last) || ".-/~*)}>$".contains(last);
    !before.ends_with(goes_on) || before.ends_with("file://")
}

#[test]
fn paths_of_a_machine_are_told_from_parts_of_others() {
    let [path, ..] = MACHINE_PATHS else { panic!() };
    for (text, machine) in [
        (format!("see {path}/x"), true),
        (format!("\"{path}\""), true),
        (format!("file://{path}/x"), true),
        (format!("https://host{path}/x"), false),
        (format!("a{path}/x"), false),
        (format!("..{path}"), false),
        (format!("{path}er"), false),
    ] {
        let found = whole_words(&text, path).any(|at| starts_a_path(&text[..at]));
        assert_eq!(found, machine, "{text}");
    }
}
