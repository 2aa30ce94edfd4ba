//! A name of a public type has one meaning in `src`.

use std::collections::BTreeMap;

use crate::source::{Findings, Source, parsed, rust_files, tokens};

/// Names that several files may use, each with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("Client", SECTION),
    ("Cluster", SECTION),
    ("Filter", SECTION),
    ("Server", SECTION),
    ("Session", SECTION),
];

const SECTION: &str = "one is named as the file of the configuration names it";

#[test]
fn a_public_type_name_stands_once() {
    let files = rust_files("src/");
    let mut places: BTreeMap<&str, Vec<(&Source, usize)>> = BTreeMap::new();
    for file in &files {
        for (at, name) in public_types(file) {
            places.entry(name).or_default().push((file, at));
        }
    }
    assert!(
        places.len() > 100,
        "the search found only {} types",
        places.len()
    );
    let mut found = Findings::default();
    for (name, places) in &places {
        let several = places.iter().any(|(file, _)| file.path != places[0].0.path);
        let reason = EXCEPTIONS.iter().find(|(excepted, _)| excepted == name);
        assert!(
            several || reason.is_none(),
            "{name} is no longer an exception"
        );
        if several && reason.is_none() {
            for (file, at) in places {
                found.add(file, *at, format!("another file has a public `{name}` too"));
            }
        }
    }
    found.none();
}

/// The types of a file that other files can name.
fn public_types(file: &Source) -> Vec<(usize, &str)> {
    let tokens: Vec<_> = tokens(&file.code).collect();
    let mut found = Vec::new();
    for (index, (_, token)) in tokens.iter().enumerate() {
        if *token != "pub" {
            continue;
        }
        let mut rest = &tokens[index + 1..];
        if let [(_, "("), ..] = rest {
            let end = rest.iter().position(|(_, token)| *token == ")");
            rest = &rest[end.map_or(rest.len(), |end| end + 1)..];
        }
        if let [
            (_, "struct" | "enum" | "trait" | "type" | "union"),
            (at, name),
            ..,
        ] = rest
        {
            found.push((*at, *name));
        }
    }
    found
}

#[test]
fn public_types_are_told_from_private_ones() {
    let text = "
        pub struct A; struct B; pub(crate) enum C {} impl D for A { type E = u8; }
        pub(super) type F = u8; pub fn g() {} // pub struct H
    ";
    let file = parsed("src/a.rs", text.to_owned());
    let names: Vec<_> = public_types(&file)
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(names, ["A", "C", "F"]);
}
