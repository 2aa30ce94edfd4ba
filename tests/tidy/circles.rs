//! Files do not use each other in a circle.
//!
//! A file may use the items of the modules it is in, and a module those of the modules in it. Between
//! other files, uses have one direction.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Findings, parsed, rust_files};
use crate::uses::Program;

#[test]
fn files_do_not_use_each_other_in_a_circle() {
    let mut found = Findings::default();
    for folder in ["src/", "perf/src/"] {
        let program = Program::new(rust_files(folder), folder);
        let uses = program.uses();
        for (index, file) in program.modules.iter().enumerate() {
            for (target, at) in &uses[index] {
                if let Some(back) = way(&uses, *target, index) {
                    let names = back.iter().map(|index| &*program.modules[*index].file.path);
                    let names: Vec<_> = names.collect();
                    found.add(&file.file, *at, format!("a circle: {}", names.join(" → ")));
                }
            }
        }
    }
    found.none();
}

/// The shortest way from one file to another along the uses between files.
fn way(uses: &[BTreeMap<usize, usize>], from: usize, to: usize) -> Option<Vec<usize>> {
    let mut ways = vec![vec![from]];
    let mut seen = BTreeSet::from([from]);
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let last = *way.last()?;
            if last == to {
                return Some(way);
            }
            for next in uses[last].keys().filter(|next| seen.insert(**next)) {
                longer.push([&*way, &[*next]].concat());
            }
        }
        ways = longer;
    }
    None
}

#[test]
fn a_circle_is_seen_through_imports_of_other_files() {
    let file = |path: &str, text: &str| parsed(path, text.to_owned());
    let circles = |a: &str, b: &str, room: &str| {
        let files = vec![
            file("src/lib.rs", "mod room;"),
            file("src/room/mod.rs", room),
            file("src/room/a.rs", a),
            file("src/room/b.rs", b),
            file("src/room/b/inner.rs", "pub struct Inner;"),
        ];
        let uses = Program::new(files, "src/").uses();
        (0..uses.len())
            .filter(|from| {
                uses[*from]
                    .keys()
                    .any(|to| way(&uses, *to, *from).is_some())
            })
            .count()
    };
    let room =
        "mod a; mod b; pub use a::{self, A as First}; use b::*; pub struct Own; fn f() { a::g() }";
    for (a, b, in_circles) in [
        (
            "pub struct A; use super::b::B;",
            "pub struct B; use super::a::A;",
            2,
        ),
        (
            "pub struct A; use super::B;",
            "pub struct B; use crate::room::{Own, First};",
            2,
        ),
        (
            "pub struct A; use super::B;",
            "pub struct B; fn f() { super::a::g() }",
            2,
        ),
        (
            "pub struct A; use super::B;",
            "pub struct B; use super::Own; use inner::Inner;",
            0,
        ),
        (
            "pub struct A; use super::Own;",
            "pub struct B; mod tests { use super::super::First; }",
            0,
        ),
        (
            "pub struct A; // super::B",
            "pub struct B; use super::First;",
            0,
        ),
    ] {
        assert_eq!(circles(a, b, room), in_circles, "{a} {b}");
    }
}
