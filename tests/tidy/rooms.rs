//! Rooms of `src` import only downwards, and packages stay in their rooms.

use crate::source::{Findings, Source, inline_modules, parsed, rust_files, tokens};

/// Rooms from the ground up: each may import those before it, and none of its own line.
const LEVELS: &[&[&str]] = &[
    &["walk"],
    &["limits"],
    &["dialect"],
    &["config"],
    &["ids"],
    &["error"],
    &["metrics"],
    &["time"],
    &["log", "pool"],
    &["wire"],
    &["session", "route"],
    &["client", "push", "peer"],
    &["handler"],
    &["checked"],
    &["tls"],
    &["net"],
    &["shard"],
    &["admin"],
    &["gateway"],
    &["fuzzing"],
];

/// Rooms that may import less than what is below them.
const NARROW: &[(&str, &[&str])] = &[("wire", &["limits"]), ("net", &["limits"])];

/// Words of code that have their place, files or folders of `src`.
const FENCES: &[(&str, &[&str])] = &[
    ("glommio", &["src/net/", "src/shard/", "src/gateway/"]),
    (
        "crossbeam_channel",
        &["src/shard/mesh.rs", "src/net/", "src/log", "src/pool.rs"],
    ),
    (
        "rustls",
        &[
            "src/tls/",
            "src/net/tls",
            "src/shard/tls.rs",
            "src/fuzzing/",
        ],
    ),
    ("tokio", &["src/admin/"]),
    ("hyper", &["src/admin/"]),
    ("hyper_util", &["src/admin/"]),
    ("axum", &["src/admin/"]),
    ("prometheus_client", &["src/admin/"]),
];

#[test]
fn rooms_import_only_downwards() {
    let mut found = Findings::default();
    for file in rust_files("src/") {
        let Some(room) = file.room() else { continue };
        if level(room).is_none() {
            found.add(
                &file,
                0,
                format!("the room `{room}` has no level in tests/tidy/"),
            );
        }
        for (at, target) in imports(&file) {
            if let Some(fault) = import_fault(room, &target) {
                found.add(&file, at, fault);
            }
        }
    }
    found.none();
}

#[test]
fn packages_stay_where_they_belong() {
    let mut found = Findings::default();
    for (word, places) in FENCES {
        let mut uses = 0;
        for file in rust_files("src/") {
            let allowed = places.iter().any(|place| file.path.starts_with(place));
            for (at, _) in tokens(&file.code).filter(|(_, token)| token == word) {
                uses += 1;
                if !allowed {
                    found.add(&file, at, format!("`{word}` belongs into {places:?}"));
                }
            }
        }
        assert!(uses > 0, "nobody uses `{word}`: its fence can go");
    }
    found.none();
}

fn level(room: &str) -> Option<usize> {
    LEVELS.iter().position(|rooms| rooms.contains(&room))
}

/// Why a room may not import another one.
fn import_fault(room: &str, target: &str) -> Option<String> {
    if room == target {
        return None;
    }
    let Some(below) = level(target) else {
        return Some(format!("`crate::{target}` is not a room with a level"));
    };
    let narrow = NARROW.iter().find(|(narrow, _)| *narrow == room);
    let allowed = narrow.map_or(Some(below) < level(room), |(_, few)| few.contains(&target));
    (!allowed).then(|| format!("`{room}` may not import `{target}`"))
}

/// The first name behind the crate's root in every path of a file, with its place.
fn imports(file: &Source) -> Vec<(usize, String)> {
    let tokens: Vec<_> = tokens(&file.code).collect();
    let text = |index: usize| tokens.get(index).map_or("", |(_, token)| *token);
    let inside = file.children().strip_prefix("src").unwrap_or_default();
    let depth = inside.split('/').filter(|part| !part.is_empty()).count();
    let mut found = Vec::new();
    for (index, inline) in inline_modules(&tokens).into_iter().enumerate() {
        let starts = index == 0 || text(index - 1) != "::";
        let mut supers = 0;
        while starts && text(index + 2 * supers) == "super" && text(index + 2 * supers + 1) == "::"
        {
            supers += 1;
        }
        let names = match text(index) {
            "crate" if text(index + 1) == "::" => index + 2,
            "super" if supers > 0 && supers == depth + inline.len() => index + 2 * supers,
            _ => continue,
        };
        if text(names) != "{" {
            found.push((tokens[index].0, text(names).to_owned()));
            continue;
        }
        // A group: the names that follow its brace and the commas in it.
        let mut open = 0;
        for pair in tokens[names..].windows(2) {
            let [(at, token), (_, next)] = pair else {
                continue;
            };
            match *token {
                "{" => open += 1,
                "}" => open -= 1,
                _ => {}
            }
            if open == 0 {
                break;
            }
            if open == 1 && matches!(*token, "{" | ",") && *next != "}" {
                found.push((*at, (*next).to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_way_to_another_room_is_seen() {
    let text = "
        use crate::wire::{json, mqtt}; use crate::{limits, push::{Outbox, Pool}, net};
        pub(crate) fn f() -> crate::error::Result<()> {}
        use super::Own; pub(super) struct S;
        mod tests { use super::*; use super::super::super::client; mod deep { use super::super::x; } }
        fn g() { super::super::shard::run() }
        // crate::nothing
    ";
    let file = parsed("src/peer/mailbox.rs", text.to_owned());
    let names: Vec<_> = imports(&file).into_iter().map(|(_, name)| name).collect();
    assert_eq!(
        names,
        ["wire", "limits", "push", "net", "error", "client", "shard"]
    );
}

#[test]
fn arrows_point_downwards() {
    for (room, target, allowed) in [
        ("peer", "wire", true),
        ("peer", "peer", true),
        ("peer", "push", false),
        ("peer", "shard", false),
        ("wire", "limits", true),
        ("wire", "config", false),
        ("net", "limits", true),
        ("net", "wire", false),
        ("shard", "net", true),
        ("log", "config", true),
        ("config", "log", false),
        ("shard", "absent", false),
    ] {
        let fault = import_fault(room, target);
        assert_eq!(fault.is_none(), allowed, "{room} → {target}: {fault:?}");
    }
}
