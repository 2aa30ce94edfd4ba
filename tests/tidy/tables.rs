//! Each bound and each counter is used.

use std::collections::BTreeSet;

use crate::source::{Findings, Source, rust_files, source, tokens};

#[test]
fn every_bound_and_every_counter_is_used() {
    let files = rust_files("src/");
    let mut found = Findings::default();
    let limits = source("src/limits.rs");
    let bounds = public_constants(&limits);
    let metrics = source("src/metrics.rs");
    let counters = counters(&metrics);
    assert!(
        !bounds.is_empty() && !counters.is_empty(),
        "the search found no names"
    );
    let words: BTreeSet<&str> = tokens_elsewhere(&files, &limits).into_iter().collect();
    for (at, bound) in bounds {
        if !words.contains(bound) {
            found.add(&limits, at, format!("nothing is bounded by {bound}"));
        }
    }
    let counted: BTreeSet<&str> = tokens_elsewhere(&files, &metrics)
        .windows(3)
        .filter(|three| three[..2] == ["Counter", "::"])
        .map(|three| three[2])
        .collect();
    for (at, counter) in counters {
        if !counted.contains(counter) {
            found.add(&metrics, at, format!("nothing counts Counter::{counter}"));
        }
    }
    found.none();
}

/// The tokens of all files but one.
fn tokens_elsewhere<'a>(files: &'a [Source], but: &Source) -> Vec<&'a str> {
    let others = files.iter().filter(|file| file.path != but.path);
    others
        .flat_map(|file| tokens(&file.code).map(|(_, token)| token))
        .collect()
}

fn public_constants(file: &Source) -> Vec<(usize, &str)> {
    let tokens: Vec<_> = tokens(&file.code).collect();
    let constants = tokens.windows(3).filter_map(|three| match three {
        [(at, "pub"), (_, "const"), (_, name)] => Some((*at, *name)),
        _ => None,
    });
    constants.collect()
}

/// The names in `counters! { Name = "...", }`.
fn counters(file: &Source) -> Vec<(usize, &str)> {
    let tokens: Vec<_> = tokens(&file.code).collect();
    let start = tokens
        .windows(3)
        .position(|three| matches!(three, [(_, "counters"), (_, "!"), (_, "{")]));
    let block = start.map_or(&[][..], |start| &tokens[start + 3..]);
    let end = block.iter().position(|(_, token)| *token == "}");
    let block = &block[..end.unwrap_or(block.len())];
    let names = block.windows(2).filter_map(|pair| match pair {
        [(at, name), (_, "=")] => Some((*at, *name)),
        _ => None,
    });
    names.collect()
}
