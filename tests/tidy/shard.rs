//! The parts of a shard know nothing of each other; only the shard and its dispatch know them all.

use crate::source::{Findings, rust_files, tokens};
use crate::uses::Program;

/// Parts of `src/shard/`, files or folders.
const PARTS: &[&str] = &["clients", "peers", "app", "coordinator"];

/// The places of methods of `Shard`.
const OWNERS: &[&str] = &["src/shard/mod.rs", "src/shard/dispatch/"];

#[test]
fn parts_of_a_shard_never_name_each_other() {
    let mut found = Findings::default();
    let program = Program::new(rust_files("src/"), "src/");
    let parts: Vec<_> = program
        .modules
        .iter()
        .map(|module| part(&module.file.path))
        .collect();
    for part in PARTS {
        assert!(
            parts.contains(&Some(*part)),
            "the shard has no part `{part}`"
        );
    }
    for (index, uses) in program.uses().iter().enumerate() {
        for (target, at) in uses {
            if let (Some(own), Some(other)) = (parts[index], parts[*target])
                && own != other
            {
                let fault = format!("the part `{own}` may not name `{other}`");
                found.add(&program.modules[index].file, *at, fault);
            }
        }
    }
    found.none();
}

#[test]
fn methods_of_a_shard_stand_in_the_shard_and_its_dispatch() {
    let mut found = Findings::default();
    let mut seen = false;
    for file in rust_files("src/") {
        let tokens: Vec<_> = tokens(&file.code).collect();
        for three in tokens.windows(3) {
            let [(at, "impl"), (_, "Shard"), (_, "{")] = three else {
                continue;
            };
            seen = true;
            if !OWNERS.iter().any(|owner| file.path.starts_with(owner)) {
                found.add(&file, *at, format!("`impl Shard` belongs into {OWNERS:?}"));
            }
        }
    }
    assert!(seen, "the search found no method of `Shard`");
    found.none();
}

/// The part that a file is of.
fn part(path: &str) -> Option<&'static str> {
    let name = path.strip_prefix("src/shard/")?.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    PARTS.iter().copied().find(|part| *part == name)
}
