//! House rules as tests. Each prints `file:line: what is wrong` for everything it finds.
//!
//! Every file of the tree is read, but for what `.gitignore` names. Rust is looked at as tokens, so a
//! word in a comment or in a text is not taken for code. Sizes and forms are for readers, not for a
//! test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms from the ground up: each may import those before it, and none of its own line.
const LEVELS: &[&[&str]] = &[
    &["walk"],
    &["limits"],
    &["config"],
    &["error"],
    &["ids"],
    &["metrics"],
    &["time"],
    &["log", "pool"],
    &["wire"],
    &["session", "route"],
    &["client", "push", "peer"],
    &["handler"],
    &["net"],
    &["shard"],
    &["gateway"],
];

/// Rooms that may import less than what is below them.
const NARROW: &[(&str, &[&str])] = &[("wire", &["limits"]), ("net", &["limits"])];

/// Words of code that have their place, files or folders of `src`.
const FENCES: &[(&str, &[&str])] = &[
    ("glommio", &["src/net/", "src/shard/", "src/gateway/"]),
    (
        "crossbeam_channel",
        &["src/shard/mesh.rs", "src/log", "src/pool.rs"],
    ),
    ("unsafe", &["src/net/socket.rs"]),
];

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
fn rooms_import_only_downwards() {
    let mut found = Findings::default();
    for file in rust_files("src/") {
        let Some(room) = file.room() else { continue };
        if level(room).is_none() {
            found.add(
                &file,
                0,
                format!("the room `{room}` has no level in tests/tidy.rs"),
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
fn packages_and_unsafe_stay_where_they_belong() {
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
        for host in REGISTRIES.iter().filter(|_| file.path != "Cargo.lock") {
            for (at, _) in file.text.match_indices(host) {
                found.add(&file, at, format!("the registry {host}"));
            }
        }
    }
    found.none();
}

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
        let rust = file.path.ends_with(".rs") && file.path != "tests/tidy.rs";
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
    let keys = source("src/gateway/load/keys.rs");
    let has = |text: &str| keys.text.contains(&format!("(\"{text}"));
    for (at, name) in quoted_names(&table.text, false) {
        if is_test(&tree, name) == Some(false) {
            found.add(&table, at, format!("there is no test `{name}`"));
        }
        let section = name.split_once('.').map(|(section, _)| section);
        if section.is_some_and(|it| has(&format!("{it}."))) && !has(&format!("{name}\",")) {
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
    assert!(rules > 100, "the rules are not where they are looked for");
    found.none();
}

// ---- What the rules are made of ----

/// A text file of the tree.
struct Source {
    /// From the root of the tree, with slashes.
    path: String,
    text: String,
    /// Rust only: the text with blanks in place of comments and literals.
    code: String,
}

impl Source {
    fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let room = inside.split('/').next()?;
        let room = room.strip_suffix(".rs").unwrap_or(room);
        (!matches!(room, "lib" | "main")).then_some(room)
    }

    /// The path of the folder where its child modules are.
    fn children(&self) -> &str {
        let own_folder = is_crate_root(&self.path) || self.path.ends_with("/mod.rs");
        if own_folder {
            folder(&self.path)
        } else {
            self.path.strip_suffix(".rs").unwrap_or(&self.path)
        }
    }
}

#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, file: &Source, at: usize, what: String) {
        let line = 1 + file.text[..at].matches('\n').count();
        self.0.push(format!("{}:{line}: {what}", file.path));
    }

    fn none(mut self) {
        self.0.sort();
        assert!(
            self.0.is_empty(),
            "{} found:\n{}",
            self.0.len(),
            self.0.join("\n")
        );
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file, sorted.
fn tree() -> Vec<String> {
    let ignored = fs::read_to_string(root().join(".gitignore")).expect(".gitignore can be read");
    let ignored: Vec<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    assert!(
        ignored.iter().all(|name| !name.contains(['*', '!', '/'])),
        "teach tests/tidy.rs the patterns of .gitignore"
    );
    let mut files = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(root().join(&folder)).expect("a folder can be listed");
        for entry in entries {
            let entry = entry.expect("an entry can be read");
            let name = entry.file_name().into_string().expect("a name is UTF-8");
            if name == ".git" || ignored.contains(&&*name) {
                continue;
            }
            let path = folder.join(name);
            if entry.file_type().expect("an entry has a type").is_dir() {
                open.push(path);
            } else {
                let parts = path.iter().map(|part| part.to_string_lossy());
                files.push(parts.collect::<Vec<_>>().join("/"));
            }
        }
    }
    files.sort();
    files
}

fn source(path: &str) -> Source {
    let text = fs::read_to_string(root().join(path));
    let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
    parsed(path, text)
}

fn parsed(path: &str, text: String) -> Source {
    let code = if path.ends_with(".rs") {
        blanked(&text)
    } else {
        String::new()
    };
    Source {
        path: path.to_owned(),
        text,
        code,
    }
}

/// Every file that is text.
fn text_files() -> Vec<Source> {
    let read = |path: &String| {
        let bytes = fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Some(parsed(path, String::from_utf8(bytes).ok()?))
    };
    tree().iter().filter_map(read).collect()
}

fn rust_files(folder: &str) -> Vec<Source> {
    let rust = |path: &&String| path.starts_with(folder) && path.ends_with(".rs");
    let files: Vec<_> = tree()
        .iter()
        .filter(rust)
        .map(|path| source(path))
        .collect();
    assert!(files.len() > 10, "this is no tree of tangelo");
    files
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn is_crate_root(path: &str) -> bool {
    let below = |folder: &str| path.strip_prefix(folder).filter(|rest| !rest.contains('/'));
    path.ends_with("/main.rs")
        || path.ends_with("src/lib.rs")
        || below("tests/").is_some()
        || below("benches/").is_some()
        || below("examples/").is_some()
        || below("").is_some()
        // What the compiler is to refuse.
        || below("tests/compile/").is_some()
}

/// Rust with blanks in place of comments and literals; every other byte stays where it is.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let Some(end) = skipped(text, at) else {
            at += 1;
            continue;
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters were blanked")
}

/// The end of the comment or literal that begins here.
fn skipped(text: &str, at: usize) -> Option<usize> {
    let rest = text.as_bytes().get(at..)?;
    let until = |from: usize, end: &str| {
        let found = text[at + from..].find(end);
        found.map_or(text.len(), |found| at + from + found + end.len())
    };
    match rest {
        [b'/', b'/', ..] => Some(until(0, "\n")),
        [b'/', b'*', ..] => {
            let mut depth = 0;
            let mut end = at;
            loop {
                match text.as_bytes().get(end..end + 2) {
                    Some(b"/*") => (depth, end) = (depth + 1, end + 2),
                    Some(b"*/") => (depth, end) = (depth - 1, end + 2),
                    Some(_) => end += 1,
                    None => return Some(text.len()),
                }
                if depth == 0 {
                    return Some(end);
                }
            }
        }
        [b'r', b'"' | b'#', ..] if !ends_in_word(text[..at].trim_end_matches(['b', 'c'])) => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            let opens = rest.get(1 + hashes) == Some(&b'"');
            opens.then(|| until(2 + hashes, &format!("\"{}", "#".repeat(hashes))))
        }
        [b'"', ..] => Some(at + 1 + quoted(&rest[1..], b'"')),
        [b'\'', b'\\', ..] => Some(at + 1 + quoted(&rest[1..], b'\'')),
        [b'\'', ..] => {
            // A character, or a lifetime, which has no quote behind it.
            let length = text[at + 1..].chars().next()?.len_utf8();
            (rest.get(1 + length) == Some(&b'\'')).then_some(at + 2 + length)
        }
        _ => None,
    }
}

/// Bytes up to and with the closing quote.
fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn ends_in_word(text: &str) -> bool {
    text.ends_with(is_word)
}

/// Words, `::` and single characters, each with its place.
fn tokens(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += code[at..].len() - code[at..].trim_start().len();
        let rest = &code[at..];
        let word = rest
            .find(|character| !is_word(character))
            .unwrap_or(rest.len());
        let length = match rest.chars().next()? {
            _ if word > 0 => word,
            ':' if rest.starts_with("::") => 2,
            other => other.len_utf8(),
        };
        at += length;
        Some((at - length, &rest[..length]))
    })
}

/// The tokens of all files but one.
fn tokens_elsewhere<'a>(files: &'a [Source], but: &Source) -> Vec<&'a str> {
    let others = files.iter().filter(|file| file.path != but.path);
    others
        .flat_map(|file| tokens(&file.code).map(|(_, token)| token))
        .collect()
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
        return Some(format!("`crate::{target}` is no room with a level"));
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

/// For each token the names of the inline modules it is in.
fn inline_modules<'a>(tokens: &[(usize, &'a str)]) -> Vec<Vec<&'a str>> {
    let mut depth = 0;
    let mut open: Vec<(usize, &str)> = Vec::new();
    let inside = |(index, (_, token)): (usize, &(usize, &'a str))| {
        match *token {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                open.pop_if(|(at, _)| *at == depth);
            }
            "mod"
                if tokens
                    .get(index + 2)
                    .is_some_and(|(_, brace)| *brace == "{") =>
            {
                open.push((depth, tokens[index + 1].1));
            }
            _ => {}
        }
        open.iter().map(|(_, name)| *name).collect()
    };
    tokens.iter().enumerate().map(inside).collect()
}

/// The modules that a file declares, each with the paths that it may have.
fn modules(file: &Source) -> Vec<(usize, Vec<String>)> {
    let tokens: Vec<_> = tokens(&file.code).collect();
    let inline = inline_modules(&tokens);
    let mut found = Vec::new();
    for (index, three) in tokens.windows(3).enumerate() {
        let [(at, "mod"), (_, name), (_, ";")] = three else {
            continue;
        };
        let before = tokens[..index].rsplit(|(_, token)| matches!(*token, "{" | "}" | ";"));
        let mut attributes = before.take(1).flat_map(|attributes| attributes.windows(2));
        let path = attributes.find(|pair| matches!(pair, [(_, "path"), (_, "=")]));
        let candidates = match path {
            Some([_, (equals, _)]) => {
                let path = literal(&file.text[equals + 1..]).unwrap_or_default();
                vec![joined(folder(&file.path), path)]
            }
            _ => {
                let inside = format!("{}/{}", inline[index].join("/"), name);
                let module = joined(file.children(), &inside);
                vec![format!("{module}.rs"), format!("{module}/mod.rs")]
            }
        };
        found.push((*at, candidates));
    }
    found
}

/// The text between the quotes that come next.
fn literal(text: &str) -> Option<&str> {
    let inside = text.trim_start().strip_prefix('"')?;
    Some(&inside[..inside.find('"')?])
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

/// A name as seen from a folder.
fn joined(folder: &str, name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
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

/// What stands between backticks within a line: outside code blocks, and in Rust only in comments.
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
    let ours = name.ends_with(".rs") || ["", "src/"].iter().any(known);
    name.chars().all(plain) && !first.is_empty() && ours
}

/// Whether there is a test, or a module or list of tests, that `cargo test` knows as `e2e clients::connection::name`
/// or `lib route::tests::name`; `None` for what is no name of a test.
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

// ---- The rules' tools keep what they promise ----

#[test]
fn comments_and_literals_are_not_code() {
    let text = r####"
        a /* b /* c */ d */ e // f
        "g \" h" i b"j" r"k\" l r#"m " n"# o br##"p"# q"## r
        's' '\'' '\u{74}' u<'v> '€' w
    "####;
    let code = blanked(text);
    let words: Vec<_> = tokens(&code).map(|(_, token)| token).collect();
    assert_eq!(words.join(" "), "a e i b l o b r u < ' v > w");
    assert_eq!(
        (code.len(), code.lines().count()),
        (text.len(), text.lines().count())
    );
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
fn modules_are_found_where_rust_finds_them() {
    let text = "
        #[cfg(test)] mod a; pub(crate) mod b { mod c; }
        #[path = \"../e2e/harness/client.rs\"] #[allow(dead_code)] mod d;
    ";
    for (path, children) in [
        ("src/wire/mod.rs", "src/wire"),
        ("src/wire/json.rs", "src/wire/json"),
        ("src/lib.rs", "src"),
        ("tests/vectors/main.rs", "tests/vectors"),
    ] {
        let file = parsed(path, text.to_owned());
        let found: Vec<_> = modules(&file).into_iter().map(|(_, paths)| paths).collect();
        let usual = |name| {
            vec![
                format!("{children}/{name}.rs"),
                format!("{children}/{name}/mod.rs"),
            ]
        };
        let own = vec![joined(folder(path), "../e2e/harness/client.rs")];
        assert_eq!(found, [usual("a"), usual("b/c"), own]);
    }
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
