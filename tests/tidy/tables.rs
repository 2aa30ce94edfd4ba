//! Each bound, counter and knob is used where it has to be.

use std::collections::BTreeSet;

use crate::source::{Findings, Source, rust_files, source, tokens};

/// Fields of `Config` with a key of another name; `None`: not a knob.
const KEYS_BY_OTHER_NAMES: &[(&str, Option<&str>)] = &[
    ("servers", Some("server")),
    ("routes", None),
    ("master", None),
    ("embedded", None),
    ("crons", None),
    ("warnings", None),
];

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
        "nothing to look for"
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

#[test]
fn every_knob_can_be_set() {
    let config = source("src/config.rs");
    let keys = source("src/gateway/load/keys.rs");
    let knobs = knobs(&config, "Config", "");
    assert!(knobs.len() > 20, "these are all knobs: {knobs:?}");
    let mut found = Findings::default();
    for (at, knob) in knobs {
        let other = KEYS_BY_OTHER_NAMES.iter().find(|(name, _)| *name == knob);
        let key = other.map_or(Some(&*knob), |(_, key)| *key);
        if key.is_some_and(|key| !keys.text.contains(&format!("(\"{key}\","))) {
            found.add(
                &config,
                at,
                format!("the knob {knob} has no key in {}", keys.path),
            );
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

/// The fields of a struct and of the structs in it, as keys.
fn knobs(file: &Source, name: &str, prefix: &str) -> Vec<(usize, String)> {
    let tokens: Vec<_> = tokens(&file.code).collect();
    let fields = |name: &str| {
        let start = tokens.windows(3).position(
            |three| matches!(three, [(_, "struct"), (_, found), (_, "{")] if *found == name),
        );
        let body = start.map(|start| &tokens[start + 3..])?;
        let end = body.iter().position(|(_, token)| *token == "}")?;
        Some(&body[..end])
    };
    let mut found = Vec::new();
    for four in fields(name).unwrap_or_default().windows(4) {
        let [(_, "pub"), (at, field), (_, ":"), (_, kind)] = four else {
            continue;
        };
        if fields(kind).is_some() {
            found.extend(knobs(file, kind, &format!("{prefix}{field}.")));
        } else {
            found.push((*at, format!("{prefix}{field}")));
        }
    }
    found
}
