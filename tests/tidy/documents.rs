//! Documents and comments name files, tests and keys that exist.

use crate::source::{Findings, folder, is_word, joined, source, text_files, tokens, tree};

#[test]
fn documents_name_files_that_exist() {
    let tree = tree();
    let mut found = Findings::default();
    for path in ["README.md", "ARCHITECTURE.md"] {
        if !tree.iter().any(|known| known == path) {
            found.0.push(format!("{path}:1: is not there"));
        }
    }
    for file in text_files() {
        let markdown = file.path.ends_with(".md") && file.path != "CHANGELOG.md";
        let rust = file.path.ends_with(".rs") && !file.path.starts_with("tests/tidy/");
        if !markdown && !rust {
            continue;
        }
        for (at, name) in quoted_names(&file.text, rust) {
            if is_file_name(&tree, name) && !exists(&tree, &file.path, name) {
                found.add(&file, at, format!("`{name}` does not exist"));
            }
        }
    }
    found.none();
}

#[test]
fn the_table_of_rules_names_tests_and_keys_that_exist() {
    let (table, tree) = (source("docs/compatibility.md"), tree());
    let mut found = Findings::default();
    let keys = source("docs/configuration.md");
    let has = |text: &str| keys.text.contains(&format!("\n### `{text}"));
    for (at, name) in quoted_names(&table.text, false) {
        if is_test(&tree, name) == Some(false) {
            found.add(&table, at, format!("there is no test `{name}`"));
        }
        let section = name.split_once('.').map(|(section, _)| section);
        if section.is_some_and(|it| has(&format!("{it}."))) && !has(&format!("{name}`\n")) {
            found.add(&table, at, format!("there is no key `{name}`"));
        }
    }
    let mut rules = 0;
    for (line, row) in table.text.lines().enumerate() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let ["", _, _, verdict, tests, ""] = cells[..] else {
            continue;
        };
        let kept = ["same", "better"]
            .iter()
            .any(|word| verdict.starts_with(word));
        rules += usize::from(kept);
        if kept && !tests.contains('`') {
            found
                .0
                .push(format!("{}:{}: no test", table.path, line + 1));
        }
    }
    assert!(rules > 100, "the search found only {rules} rules");
    found.none();
}

/// Returns the words between backticks within a line: outside code blocks, and in Rust only in comments.
fn quoted_names(text: &str, comments_only: bool) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut fenced = false;
    for line in text.split_inclusive('\n') {
        let prose = match (comments_only, line.find("//")) {
            (true, Some(comment)) => &line[comment..],
            (true, None) => "",
            (false, _) => line,
        };
        let start = at + line.len() - prose.len();
        at += line.len();
        let fence = prose.trim_start_matches(['/', '!', ' ']).starts_with("```");
        fenced ^= fence;
        if fenced || fence {
            continue;
        }
        let mut inside = start;
        for (index, part) in prose.split('`').enumerate() {
            if index % 2 == 1 {
                found.push((inside, part));
            }
            inside += part.len() + 1;
        }
    }
    found
}

/// Whether a quoted name means a file or folder of this tree: Rust, or one in a folder that we have.
fn is_file_name(tree: &[String], name: &str) -> bool {
    let plain = |character| is_word(character) || "./-*".contains(character);
    let Some((first, _)) = name.split_once('/') else {
        return false;
    };
    let known = |folder: &&str| {
        let folder = format!("{folder}{first}/");
        tree.iter().any(|path| path.starts_with(&folder))
    };
    // Pomelo projects have a folder of this name too.
    if name.starts_with("config/") && name.ends_with(".json") {
        return false;
    }
    let ours = name.ends_with(".rs") || ["", "src/"].iter().any(known);
    name.chars().all(plain) && !first.is_empty() && ours
}

/// Whether there is a test, or a module or list of tests, that `cargo test` knows as `e2e clients::connection::name`
/// or `lib route::tests::name`; `None` for words that name no test.
fn is_test(tree: &[String], name: &str) -> Option<bool> {
    let (root, path) = name.split_once(' ')?;
    let folder = match root {
        "lib" => "src".to_owned(),
        root => format!("tests/{root}"),
    };
    if !path.contains("::")
        || !tree
            .iter()
            .any(|file| file.starts_with(&format!("{folder}/")))
    {
        return None;
    }
    // The longest beginning that is a file; what is behind it must be in there.
    let mut modules: Vec<&str> = path.split("::").collect();
    let mut inside = Vec::new();
    while let Some(last) = modules.pop() {
        inside.push(last);
        let file = format!("{folder}/{}", modules.join("/"));
        let files = [format!("{file}.rs"), format!("{file}/mod.rs")];
        if let Some(file) = files.iter().find(|file| tree.contains(file)) {
            let file = source(file);
            let tokens: Vec<_> = tokens(&file.code).map(|(_, token)| token).collect();
            let has = |name: &&str| {
                let mut pairs = tokens.windows(2);
                pairs.any(|two| two == ["fn", name] || two == ["mod", name])
            };
            return Some(inside.iter().all(has));
        }
    }
    Some(false)
}

/// Whether a name exists as seen from the document, the root, the rooms or the vectors.
fn exists(tree: &[String], document: &str, name: &str) -> bool {
    let found = |folder: &str| {
        let path = joined(folder, name);
        match path.split_once('*') {
            Some((before, after)) => tree
                .iter()
                .any(|known| known.starts_with(before) && known.ends_with(after)),
            None => tree.iter().any(|known| {
                let rest = known.strip_prefix(&*path);
                rest.is_some_and(|rest| matches!(rest, "" | ".rs") || rest.starts_with('/'))
            }),
        }
    };
    [folder(document), "", "src", "tests/vectors"]
        .iter()
        .any(|folder| found(folder))
}

#[test]
fn names_of_files_are_told_from_other_words() {
    let tree = [
        "src/net/drive.rs",
        "tests/vectors/client/a.json",
        "perf/README.md",
    ];
    let tree = tree.map(String::from);
    for (name, known, there) in [
        ("net/drive.rs", true, true),
        ("net/drive", true, true),
        ("src/net/", true, true),
        ("src/net/*.rs", true, true),
        ("src/net/*.json", true, false),
        ("net/absent.rs", true, false),
        ("absent/absent.rs", true, false),
        ("client/a.json", false, true),
        ("and/or", false, false),
        ("/metrics", false, false),
        ("ws://host/", false, false),
    ] {
        assert_eq!(is_file_name(&tree, name), known, "{name}");
        if known || there {
            assert_eq!(exists(&tree, "ARCHITECTURE.md", name), there, "{name}");
        }
    }
    let markdown = "a `b/c` d\n```\n`e/f`\n```\n`g/h`, `i`\n";
    let names: Vec<_> = quoted_names(markdown, false)
        .iter()
        .map(|(_, name)| *name)
        .collect();
    assert_eq!(names, ["b/c", "g/h", "i"]);
}

#[test]
fn names_of_tests_are_found_where_they_are() {
    let tree = tree();
    for (name, there) in [
        (
            "e2e clients::connection::a_response_before_a_kick_arrives_before_it",
            Some(true),
        ),
        ("e2e cluster::session::a_session_is_kicked", Some(true)),
        (
            "lib route::tests::routes_go_where_the_reference_sends_them",
            Some(true),
        ),
        ("lib route::routes_go_where_nobody_sends_them", Some(false)),
        ("e2e absent::a_test", Some(false)),
        ("cargo test", None),
        ("lib wire", None),
    ] {
        assert_eq!(is_test(&tree, name), there, "{name}");
    }
}
