//! JSON files of a project, read as Node's `require` reads them.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::wire::json;

/// Reads a JSON file; `None` without such a file.
///
/// As in Node: one byte order mark is skipped, bytes that are not UTF-8 become U+FFFD, and so does half of a surrogate
/// pair.
pub(super) fn read(path: &Path) -> Result<Option<Value>> {
    let file = path.display();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Config(format!("{file}: cannot read it: {error}"))),
    };
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    json::validate(text).map_err(|error| {
        let before = &text[..error.at.min(text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column = 1 + before
            .iter()
            .rev()
            .take_while(|byte| **byte != b'\n')
            .count();
        let reason = error.reason;
        Error::Config(format!("{file}:{line}: {reason} (column {column})"))
    })?;
    Ok(json::parse(text))
}

#[cfg(test)]
mod tests {
    use tempfile::NamedTempFile;

    use super::*;

    fn file(bytes: &[u8]) -> std::result::Result<Option<Value>, String> {
        let file = NamedTempFile::new().unwrap();
        fs::write(&file, bytes).unwrap();
        let path = file.path().to_string_lossy();
        read(file.path()).map_err(|error| error.to_string().replace(&*path, "file"))
    }

    #[track_caller]
    fn reads(bytes: &[u8], expected: &str) {
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(file(bytes), Ok(Some(expected)), "{}", bytes.escape_ascii());
    }

    /// Each line was checked with node 20: `JSON.stringify(require(file))`.
    #[test]
    fn a_file_is_read_as_node_reads_it() {
        reads(b"\xef\xbb\xbf{\"a\": 1}\r\n", r#"{"a":1}"#);
        reads(b"[\"\xff\", \"\xe4\xb8\"]", "[\"\u{fffd}\", \"\u{fffd}\"]");
        reads(
            br#"["\ud800", "\udc00a", "\ud83c\udf4a"]"#,
            "[\"\u{fffd}\", \"\u{fffd}a\", \"\u{1f34a}\"]",
        );
        reads(br#"{"a": 1, "b": 2, "a": 3}"#, r#"{"a":3,"b":2}"#);
        let deep = [vec![b'['; 300], vec![b']'; 300]].concat();
        assert!(file(&deep).is_ok_and(|json| json.is_some()));
    }

    #[test]
    fn a_file_that_node_does_not_read_is_refused_with_its_line() {
        for (bytes, expected) in [
            (&b""[..], "file:1: the text ends too early (column 1)"),
            (
                b"{\n \"a\": 1,\n}",
                "file:3: a member name was expected (column 1)",
            ),
            (b"[1]\n// end", "file:2: the value has ended (column 1)"),
            (
                b"\xef\xbb\xbf\xef\xbb\xbf{}",
                "file:1: a value was expected (column 1)",
            ),
        ] {
            assert_eq!(file(bytes), Err(expected.into()));
        }
        assert_eq!(read(Path::new("/nowhere/at-all.json")), Ok(None));
    }
}
