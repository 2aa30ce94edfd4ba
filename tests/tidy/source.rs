//! Files of the tree, and Rust as tokens.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the tree.
pub(crate) struct Source {
    /// From the root of the tree, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Rust only: the text with blanks in place of comments and literals.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let room = inside.split('/').next()?;
        let room = room.strip_suffix(".rs").unwrap_or(room);
        (!matches!(room, "lib" | "main")).then_some(room)
    }

    /// The path of the folder where its child modules are.
    pub(crate) fn children(&self) -> &str {
        let own_folder = is_crate_root(&self.path) || self.path.ends_with("/mod.rs");
        if own_folder {
            folder(&self.path)
        } else {
            self.path.strip_suffix(".rs").unwrap_or(&self.path)
        }
    }
}

#[derive(Default)]
pub(crate) struct Findings(pub(crate) Vec<String>);

impl Findings {
    pub(crate) fn add(&mut self, file: &Source, at: usize, what: String) {
        let line = 1 + file.text[..at].matches('\n').count();
        self.0.push(format!("{}:{line}: {what}", file.path));
    }

    pub(crate) fn none(mut self) {
        self.0.sort();
        assert!(
            self.0.is_empty(),
            "{} found:\n{}",
            self.0.len(),
            self.0.join("\n")
        );
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file, sorted.
pub(crate) fn tree() -> Vec<String> {
    let ignored = fs::read_to_string(root().join(".gitignore")).expect(".gitignore can be read");
    let ignored: Vec<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    assert!(
        ignored.iter().all(|name| !name.contains(['*', '!', '/'])),
        ".gitignore has a pattern that tests/tidy does not know"
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

pub(crate) fn source(path: &str) -> Source {
    let text = fs::read_to_string(root().join(path));
    let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
    parsed(path, text)
}

pub(crate) fn parsed(path: &str, text: String) -> Source {
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
pub(crate) fn text_files() -> Vec<Source> {
    let read = |path: &String| {
        let bytes = fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Some(parsed(path, String::from_utf8(bytes).ok()?))
    };
    tree().iter().filter_map(read).collect()
}

pub(crate) fn rust_files(folder: &str) -> Vec<Source> {
    let rust = |path: &&String| path.starts_with(folder) && path.ends_with(".rs");
    let files: Vec<_> = tree()
        .iter()
        .filter(rust)
        .map(|path| source(path))
        .collect();
    assert!(files.len() > 10, "this is not a tree of tangelo");
    files
}

pub(crate) fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A name as seen from a folder.
pub(crate) fn joined(folder: &str, name: &str) -> String {
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

pub(crate) fn is_crate_root(path: &str) -> bool {
    let below = |folder: &str| path.strip_prefix(folder).filter(|rest| !rest.contains('/'));
    path.ends_with("/main.rs")
        || path.ends_with("/build.rs")
        || path.ends_with("src/lib.rs")
        || below("tests/").is_some()
        || below("benches/").is_some()
        || below("examples/").is_some()
        || below("").is_some()
        // Programs that the compiler has to refuse.
        || below("tests/compile/").is_some()
        || below("tests/fuzz/fuzz_targets/").is_some()
}

/// Words, `::` and single characters, each with its place.
pub(crate) fn tokens(code: &str) -> impl Iterator<Item = (usize, &str)> {
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

/// Rust with blanks in place of comments and literals; every other byte stays where it is.
pub(crate) fn blanked(text: &str) -> String {
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
pub(crate) fn skipped(text: &str, at: usize) -> Option<usize> {
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
pub(crate) fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

pub(crate) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

pub(crate) fn ends_in_word(text: &str) -> bool {
    text.ends_with(is_word)
}

/// For each token the names of the inline modules it is in.
pub(crate) fn inline_modules<'a>(tokens: &[(usize, &'a str)]) -> Vec<Vec<&'a str>> {
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
pub(crate) fn modules(file: &Source) -> Vec<(usize, Vec<String>)> {
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
pub(crate) fn literal(text: &str) -> Option<&str> {
    let inside = text.trim_start().strip_prefix('"')?;
    Some(&inside[..inside.find('"')?])
}

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
