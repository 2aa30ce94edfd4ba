//! Passes the commit of a packaged crate to the compiler. Cargo writes it into each package, so a build needs no git.

use std::fs;

/// Cargo's file in the root of a package; a working copy has none.
const INFO: &str = ".cargo_vcs_info.json";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Ok(info) = fs::read_to_string(INFO) else {
        return;
    };
    println!("cargo::rerun-if-changed={INFO}");
    let commit = info.split_once("\"sha1\"");
    if let Some(commit) = commit.and_then(|(_, rest)| rest.split('"').nth(1)) {
        println!("cargo::rustc-env=TANGELO_COMMIT={commit}");
    }
}
