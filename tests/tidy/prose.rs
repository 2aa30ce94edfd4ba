//! Sentences of comments and documents begin with their subject and use common words.

use crate::source::{Findings, Source, ends_in_word, is_word, parsed, skipped, text_files, tokens};

/// Words that begin no sentence.
const OPENINGS: &[&str] = &["What", "Who", "Whom", "Whose"];

/// Phrases that stand nowhere.
const PHRASES: &[&str] = &[
    "of now",
    "comes to",
    "to be had",
    "so many",
    "that there is",
    "goes on",
];

#[test]
fn sentences_are_plain() {
    let mut found = Findings::default();
    let mut count = 0;
    for file in text_files() {
        for paragraph in paragraphs(&file) {
            count += 1;
            for (at, fault) in faults(&paragraph.text) {
                found.add(&file, paragraph.place(at), fault);
            }
        }
    }
    assert!(count > 1000, "the search found only {count} sentences");
    found.none();
}

/// Lines that belong together, joined by blanks.
#[derive(Default)]
struct Paragraph {
    text: String,
    /// For each line its place in the text and its place in the file.
    lines: Vec<(usize, usize)>,
}

impl Paragraph {
    fn place(&self, at: usize) -> usize {
        let before = self.lines.iter().rev().find(|(start, _)| *start <= at);
        before.map_or(0, |(start, place)| place + at - start)
    }
}

fn paragraphs(file: &Source) -> Vec<Paragraph> {
    let mut out: Vec<Paragraph> = vec![Paragraph::default()];
    let mut fenced = false;
    for line in lines(file) {
        let Some((at, line)) = line else {
            out.push(Paragraph::default());
            continue;
        };
        let text = line.trim_start();
        let at = at + line.len() - text.len();
        let fence = text.starts_with("```");
        fenced ^= fence;
        let row = text.starts_with('|');
        if fenced || fence || row || text.is_empty() || text.starts_with(['-', '*', '#', '>']) {
            out.push(Paragraph::default());
        }
        if fenced || fence {
            continue;
        }
        let mut start = at;
        for cell in text.split(|character| row && character == '|') {
            if row {
                out.push(Paragraph::default());
            }
            let last = out.last_mut().expect("the list begins with one paragraph");
            if !last.text.is_empty() {
                last.text.push(' ');
            }
            last.lines.push((last.text.len(), start));
            last.text.push_str(cell.trim_end());
            start += cell.len() + 1;
        }
    }
    out.retain(|paragraph| !paragraph.text.is_empty());
    out
}

/// The lines of a document, or of the comments of a program; `None` stands for the code between them.
fn lines(file: &Source) -> Vec<Option<(usize, &str)>> {
    let text = &*file.text;
    let every = || {
        text.split_inclusive('\n').scan(0, |at, line| {
            *at += line.len();
            Some((*at - line.len(), line.trim_end()))
        })
    };
    let extension = file
        .path
        .rsplit_once('.')
        .map_or("", |(_, extension)| extension);
    match extension {
        "md" => every().map(Some).collect(),
        "sh" | "toml" => {
            let comments = every().map(|(at, line)| Some((at + 1, line.strip_prefix('#')?)));
            comments.collect()
        }
        "rs" | "js" | "c" => {
            let mut out = Vec::new();
            let (mut at, mut end) = (0, 0);
            while at < text.len() {
                let Some(next) = skipped(text, at).filter(|_| text.is_char_boundary(at)) else {
                    at += 1;
                    continue;
                };
                let comment = &text[at..next];
                if comment.starts_with("//") || comment.starts_with("/*") {
                    if !text[end..at].trim().is_empty() {
                        out.push(None);
                    }
                    for line in comment.split_inclusive('\n') {
                        let inside = line.trim_start_matches(['/', '!', '*', ' ']);
                        out.push(Some((at + line.len() - inside.len(), inside.trim_end())));
                        at += line.len();
                    }
                    end = next;
                }
                at = next;
            }
            out
        }
        _ => Vec::new(),
    }
}

/// The name of a test is the promise that it keeps: a sentence, not a question.
#[test]
fn names_of_functions_are_not_questions() {
    let mut found = Findings::default();
    for file in text_files().iter().filter(|file| !file.code.is_empty()) {
        let mut before = "";
        for (at, token) in tokens(&file.code) {
            let first = token.split('_').next().unwrap_or_default();
            if before == "fn"
                && token != first
                && OPENINGS
                    .iter()
                    .any(|word| first == word.to_ascii_lowercase())
            {
                found.add(
                    file,
                    at,
                    format!("the name `{token}` begins with “{first}”"),
                );
            }
            before = token;
        }
    }
    found.none();
}

#[test]
fn texts_are_plain() {
    let mut found = Findings::default();
    let mut count = 0;
    for file in text_files().iter().filter(|file| is_program(&file.path)) {
        for (at, text) in literals(&file.text) {
            count += 1;
            for (inside, fault) in text_faults(text) {
                found.add(file, at + inside, fault);
            }
        }
    }
    assert!(count > 1000, "the search found only {count} texts");
    found.none();
}

fn is_program(path: &str) -> bool {
    let folders = ["src/", "perf/", "examples/", "benches/"];
    path.ends_with(".rs") && folders.iter().any(|folder| path.starts_with(folder))
}

/// The text literals of a Rust file, each with its place.
fn literals(text: &str) -> Vec<(usize, &str)> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let Some(next) = skipped(text, at).filter(|_| text.is_char_boundary(at)) else {
            at += 1;
            continue;
        };
        let literal = &text[at..next];
        if literal.starts_with(['"', 'r']) {
            out.push((at, literal));
        }
        at = next;
    }
    out
}

/// The words of an error, a log line or a help text that are not plain, each with its place.
///
/// An error has one form for the values that a key may have: `KEY = VALUE: expected …`.
fn text_faults(text: &str) -> Vec<(usize, String)> {
    let lower = text.to_ascii_lowercase();
    let mut found: Vec<(usize, String)> = is_no(&lower)
        .map(|at| (at, "“is no” in place of “is not a”".to_owned()))
        .collect();
    for phrase in ["accepted:", "allowed values", "valid values"] {
        let places = lower.match_indices(phrase);
        found.extend(places.map(|(at, _)| (at, format!("“{phrase}” in place of “expected”"))));
    }
    found
}

/// The places of “is no” and “are no”, but not of “there is no” and “is no longer”.
fn is_no(lower: &str) -> impl Iterator<Item = usize> {
    let places = ["is no ", "are no "].into_iter().flat_map(move |words| {
        let places = lower.match_indices(words);
        places.map(move |(at, _)| (at, at + words.len()))
    });
    places.filter_map(move |(at, end)| {
        let stands_alone = !ends_in_word(&lower[..at]);
        let there = lower[..at].trim_end().ends_with("there");
        let behind = &lower[end..];
        let longer = ["longer", "more "]
            .iter()
            .any(|word| behind.starts_with(word));
        (stands_alone && !there && !longer).then_some(at)
    })
}

/// The words of a paragraph that are not plain, each with its place.
fn faults(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let ends = text.match_indices(['.', '!', '?']).map(|(at, _)| at + 1);
    for start in std::iter::once(0).chain(ends) {
        let rest = &text[start..];
        let sentence =
            rest.trim_start_matches(|it: char| it.is_whitespace() || "#*_\"'()>-–:".contains(it));
        let space = start == 0 || rest.trim_start_matches(['"', ')', '*']).starts_with(' ');
        let opens = |word: &&&str| {
            let behind = sentence.strip_prefix(**word);
            behind.is_some_and(|behind| !behind.starts_with(is_word))
        };
        if let Some(word) = OPENINGS.iter().find(opens).filter(|_| space) {
            let at = start + rest.len() - sentence.len();
            found.push((at, format!("a sentence begins with {word}")));
        }
    }
    let lower = text.to_ascii_lowercase();
    let whole = |at: usize, phrase: &str| {
        !ends_in_word(&lower[..at]) && !lower[at + phrase.len()..].starts_with(is_word)
    };
    for phrase in PHRASES {
        for (at, _) in lower
            .match_indices(phrase)
            .filter(|(at, _)| whole(*at, phrase))
        {
            found.push((at, format!("the words “{phrase}”")));
        }
    }
    for at in is_no(&lower) {
        found.push((at, "“is no” in place of “is not a”".to_owned()));
    }
    found
}

#[test]
fn faults_are_found_in_texts() {
    let seen = |text: &str| {
        let faults = literals(text).into_iter().flat_map(|(at, text)| {
            text_faults(text)
                .into_iter()
                .map(move |(inside, _)| at + inside)
        });
        faults.collect::<Vec<_>>()
    };
    for (text, at) in [
        (r#"f("yes is no switch")"#, &[7][..]),
        (r##"f(r#"they are no numbers"#)"##, &[10]),
        (r#"f("3; accepted: 4") // It accepted: 5"#, &[6]),
        (r#"f("there is no file; it is no longer there")"#, &[]),
    ] {
        assert_eq!(seen(text), at, "{text}");
    }
}

#[test]
fn faults_are_found_in_comments_and_documents() {
    let seen = |path: &str, text: &str| {
        let file = parsed(path, text.to_owned());
        let of = |paragraph: Paragraph| {
            let faults = faults(&paragraph.text);
            let line = |at| 1 + file.text[..paragraph.place(at)].matches('\n').count();
            let lines = faults.iter().map(|(at, _)| line(*at));
            lines.collect::<Vec<_>>()
        };
        paragraphs(&file)
            .into_iter()
            .flat_map(of)
            .collect::<Vec<_>>()
    };
    for (text, at) in [
        ("/// What a line is.\nfn f() {}", &[1][..]),
        ("fn f() {} // A line. Whose it is.", &[1]),
        ("/// A line\n/// goes\n/// on.", &[2]),
        (
            "/// It is no line, but there is no\n/// other, and it is no longer one.",
            &[1],
        ),
        ("/// Whatever it is. `What` it is. So\n/// what.", &[]),
        ("fn f() { \"What it comes to\" }", &[]),
        ("/// ```\n/// // What\n/// ```\n/// - Who", &[4]),
    ] {
        assert_eq!(seen("src/a.rs", text), at, "{text}");
    }
    assert_eq!(
        seen(
            "a.md",
            "# Who\n\nA | what\n| a | Whom |\n\n```\nWhat\n```\nSo many."
        ),
        [1, 4, 9]
    );
    assert_eq!(seen("a.sh", "# Who\nWhat\n"), [1]);
}
