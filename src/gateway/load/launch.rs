//! The command line of a server that a master starts: the master writes the entry in `servers.json` as
//! `key=value` words, and the process has no other description of itself.
//!
//! Both directions are here, so that a tangelo started by hand describes itself in the same way.

use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Number, Value as Json};

use crate::wire::json::write_number;

/// The description that a process has of itself.
pub(super) type Info = Map<String, Json>;

/// A command line as a master writes it: `game/app.js env=development id=connector-1 …`.
pub(super) struct Launch {
    /// The main script, an absolute path.
    main: Option<PathBuf>,
    words: Vec<String>,
    /// The variable NODE_ENV.
    pub(super) node_env: Option<String>,
}

impl Launch {
    /// Returns the launch that the words describe; `None` if no word is a `key=value`.
    pub(super) fn from_words(words: &[String], node_env: Option<String>) -> Option<Self> {
        if !words.iter().any(|word| is_pair(word)) {
            return None;
        }
        let (main, words) = match words {
            [main, words @ ..] if !is_pair(main) => (Some(resolve(Path::new(main))), words),
            words => (None, words),
        };
        Some(Self {
            main,
            words: words.into(),
            node_env,
        })
    }

    /// Returns the project: the folder of the main script itself, not of a link to it.
    pub(super) fn app_dir(&self) -> Option<PathBuf> {
        let main = self.main.as_deref()?;
        match main.canonicalize() {
            Ok(folder) if folder.is_dir() => Some(folder),
            Ok(file) => file.parent().map(Into::into),
            Err(_) => main.parent().map(Into::into),
        }
    }

    /// Returns the description of the server in the words.
    pub(super) fn info(&self, app_dir: &Path) -> Info {
        let main = self.main.clone().unwrap_or_else(|| usual_main(app_dir));
        parse(&main, &self.words)
    }
}

/// Returns true for `key=value`. A path may contain `=` too, but no key contains `/`.
fn is_pair(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(key, _)| !key.contains('/'))
}

/// Resolves a path as Node does for its main script: absolute, without `.` and `..`, with its links.
fn resolve(path: &Path) -> PathBuf {
    let whole = std::env::current_dir().unwrap_or_default().join(path);
    let mut resolved = PathBuf::new();
    for component in whole.components() {
        match component {
            Component::ParentDir => {
                resolved.pop();
            }
            component => resolved.push(component),
        }
    }
    resolved
}

/// Returns the main script of a project that a flag or a file names by its folder.
pub(super) fn usual_main(app_dir: &Path) -> PathBuf {
    resolve(app_dir).join("app.js")
}

/// Parses words as Pomelo does (`lib/util/appUtil.js`, `parseArgs`). In a word without `=`, all but the last
/// character is the key; a master on another machine splits values at spaces, which makes such words.
pub(super) fn parse(main: &Path, words: &[String]) -> Info {
    let mut info = Info::new();
    info.insert("main".into(), main.to_string_lossy().into());
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or_else(|| {
            let last = word.char_indices().next_back();
            (&word[..last.map_or(0, |(at, _)| at)], word)
        });
        let number = javascript_number(value).filter(|_| !value.contains('.'));
        let value = number.map_or_else(|| value.into(), json_number);
        info.insert(key.into(), value);
    }
    info
}

/// Returns the words that a master writes for an entry, as in Pomelo (`lib/master/starter.js`, `run`).
pub(super) fn words(env: &str, entry: &Map<String, Json>) -> Vec<String> {
    let own = entry.iter().map(|(key, value)| {
        let value = match value {
            Json::String(text) => text.clone(),
            value => inspect(value, 0),
        };
        format!("{key}={value}")
    });
    std::iter::once(format!("env={env}")).chain(own).collect()
}

/// Returns a number as JavaScript's `String(number)`.
pub(super) fn text(number: &Number) -> String {
    let mut text = Vec::new();
    write_number(&mut text, number.as_f64().unwrap_or(f64::NAN));
    String::from_utf8(text).unwrap_or_default()
}

/// Shows a value as Node's `util.format('%s')`, which inspects all but texts, one level deep. Unlike in Node,
/// a long value stays on one line.
fn inspect(value: &Json, depth: usize) -> String {
    match value {
        Json::Number(number) => text(number),
        Json::String(text) => quote(text),
        Json::Array(items) if items.is_empty() => "[]".into(),
        Json::Object(members) if members.is_empty() => "{}".into(),
        Json::Array(_) if depth > 0 => "[Array]".into(),
        Json::Object(_) if depth > 0 => "[Object]".into(),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| inspect(item, 1)).collect();
            format!("[ {} ]", items.join(", "))
        }
        Json::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{}: {}", member_name(name), inspect(value, 1)))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        Json::Null | Json::Bool(_) => value.to_string(),
    }
}

fn member_name(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = name.starts_with(|c: char| !c.is_ascii_digit());
    if starts && name.chars().all(is_plain) {
        return name.into();
    }
    quote(name)
}

/// Quotes a text with the first of the three kinds of quotes that it does not contain.
fn quote(text: &str) -> String {
    let mark = ['\'', '"', '`']
        .into_iter()
        .find(|mark| !text.contains(*mark));
    let mark = mark.unwrap_or('\'');
    let mut quoted = String::from(mark);
    for c in text.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\\' => quoted.push_str("\\\\"),
            c if c == mark => quoted.extend(['\\', c]),
            c => quoted.push(c),
        }
    }
    quoted.push(mark);
    quoted
}

/// Returns JavaScript's `Number(text)`; `None` for NaN.
fn javascript_number(text: &str) -> Option<f64> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if text.is_empty() {
        return Some(0.0);
    }
    if let Some((b'0', [letter, digits @ ..])) = text.as_bytes().split_first() {
        let radix = match letter {
            b'x' | b'X' => 16,
            b'o' | b'O' => 8,
            b'b' | b'B' => 2,
            _ => 10,
        };
        if radix != 10 {
            return radix_number(digits, radix);
        }
    }
    if unsigned == "Infinity" {
        let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
        return Some(sign * f64::INFINITY);
    }
    // Rust accepts more names of infinity and NaN.
    let is_digit = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
    text.parse().ok().filter(|_| text.chars().all(is_digit))
}

fn radix_number(digits: &[u8], radix: u32) -> Option<f64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0.0, |number, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        Some(number * f64::from(radix) + f64::from(digit))
    })
}

/// Returns a number as `JSON.stringify` writes it: whole numbers without a point, infinities as null.
fn json_number(number: f64) -> Json {
    const SAFE: f64 = 9_007_199_254_740_991.0;
    if number.fract() == 0.0 && number.abs() <= SAFE {
        return (number as i64).into();
    }
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::write_value;

    fn line(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| String::from(*word)).collect()
    }

    fn shown(info: Info) -> String {
        let mut text = Vec::new();
        write_value(&mut text, &Json::Object(info));
        String::from_utf8(text).unwrap()
    }

    fn parsed(words: &[&str]) -> String {
        shown(parse(Path::new("/srv/app/app.js"), &line(words)))
    }

    /// The description that a genuine connector sent its master (rpc vector `pomelo-master-startup`).
    const REGISTERED: &str = concat!(
        r#"{"main":"/srv/app/app.js","env":"development","id":"connector-1","host":"127.0.0.1","#,
        r#""port":21120,"clientHost":"127.0.0.1","clientPort":21020,"frontend":"true","#,
        r#""serverType":"connector"}"#,
    );

    #[test]
    fn the_words_of_a_genuine_master_become_what_a_genuine_server_registers() {
        let words = [
            "env=development",
            "id=connector-1",
            "host=127.0.0.1",
            "port=21120",
            "clientHost=127.0.0.1",
            "clientPort=21020",
            "frontend=true",
            "serverType=connector",
        ];
        assert_eq!(parsed(&words), REGISTERED);
    }

    #[test]
    fn an_entry_becomes_the_words_of_a_genuine_master() {
        let entry = r#"{"id":"c-1","port":"3150","frontend":true,"rate":1.5,"big":1e21,"none":null,
            "args":["launcher.js"],"serverType":"connector"}"#;
        let entry: Map<String, Json> = serde_json::from_str(entry).unwrap();
        let expected = [
            "env=production",
            "id=c-1",
            "port=3150",
            "frontend=true",
            "rate=1.5",
            "big=1e+21",
            "none=null",
            "args=[ 'launcher.js' ]",
            "serverType=connector",
        ];
        assert_eq!(words("production", &entry), expected);
    }

    /// Each line was made by node 20: `util.format('%s', JSON.parse(left))`.
    #[test]
    fn lists_and_objects_become_what_node_shows() {
        for (json, shown) in [
            (r#"[]"#, "[]"),
            (r#"{}"#, "{}"),
            (
                r#"["a","it's",1,true,null]"#,
                r#"[ 'a', "it's", 1, true, null ]"#,
            ),
            (r#"[[1],{"a":1},[],{}]"#, "[ [Array], [Object], [], {} ]"),
            (
                r#"{"a":1,"b-c":"x","_d":[2]}"#,
                "{ a: 1, 'b-c': 'x', _d: [Array] }",
            ),
            (r#"["a\\b\n"]"#, r"[ 'a\\b\n' ]"),
            (r#"["'\"`"]"#, r#"[ '\'"`' ]"#),
            (r#"["'\""]"#, r#"[ `'"` ]"#),
        ] {
            assert_eq!(inspect(&serde_json::from_str(json).unwrap(), 0), shown);
        }
    }

    #[test]
    fn a_value_is_a_number_where_javascript_says_so_and_no_dot_is_in_it() {
        for (word, member) in [
            ("a=7", r#""a":7"#),
            ("a=007", r#""a":7"#),
            ("a=-5", r#""a":-5"#),
            ("a=+5", r#""a":5"#),
            ("a= 5 ", r#""a":5"#),
            ("a=", r#""a":0"#),
            ("a=1e3", r#""a":1000"#),
            ("a=1e21", r#""a":1e+21"#),
            ("a=0x1F", r#""a":31"#),
            ("a=0b101", r#""a":5"#),
            ("a=0o17", r#""a":15"#),
            ("a=12345678901234567890", r#""a":12345678901234567000"#),
            ("a=Infinity", r#""a":null"#),
            ("a=-Infinity", r#""a":null"#),
            ("a=1.5", r#""a":"1.5""#),
            ("a=5.", r#""a":"5.""#),
            ("a=127.0.0.1", r#""a":"127.0.0.1""#),
            ("a=true", r#""a":"true""#),
            ("a=inf", r#""a":"inf""#),
            ("a=NaN", r#""a":"NaN""#),
            ("a=0x", r#""a":"0x""#),
            ("a=-0x1", r#""a":"-0x1""#),
            ("a=1_000", r#""a":"1_000""#),
            ("a=1e", r#""a":"1e""#),
            ("a=5n", r#""a":"5n""#),
            ("a=b=c", r#""a":"b=c""#),
            ("=x", r#""":"x""#),
            ("word", r#""wor":"word""#),
            ("wörter", r#""wörte":"wörter""#),
        ] {
            let expected = format!(r#"{{"main":"/srv/app/app.js",{member}}}"#);
            assert_eq!(parsed(&[word]), expected, "{word}");
        }
    }

    #[test]
    fn a_key_said_twice_keeps_its_place_and_the_later_value() {
        assert_eq!(
            parsed(&["a=1", "b=2", "a=3", "main=x"]),
            r#"{"main":"x","a":3,"b":2}"#
        );
    }

    #[test]
    fn only_key_value_words_make_a_launch() {
        for words in [&[][..], &["app.js"], &["/srv/a=b/app.js"]] {
            assert!(
                Launch::from_words(&line(words), None).is_none(),
                "{words:?}"
            );
        }
        for (words, main, count) in [
            (&["id=c-1"][..], None, 1),
            (&["/srv/app/app.js", "id=c-1"], Some("/srv/app/app.js"), 1),
            (
                &["/srv/x/../app/./app.js", "id=c-1"],
                Some("/srv/app/app.js"),
                1,
            ),
            (
                &["/srv/a=b/app.js", "id=c-1", "x"],
                Some("/srv/a=b/app.js"),
                2,
            ),
        ] {
            let launch = Launch::from_words(&line(words), None).unwrap();
            assert_eq!(launch.main.as_deref(), main.map(Path::new));
            assert_eq!(launch.words.len(), count);
        }
    }
}
