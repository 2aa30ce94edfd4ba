//! Printing as `JSON.stringify` does.

use std::io::Write;
use std::ops::Range;
use std::{slice, vec};

use serde_json::{Map, Value, map};

use super::scan::{closing, skip_plain};
use super::{JsonError, is_truthy, members, parse, trim, unescape};

/// Appends a string as `JSON.stringify` prints it: quoted, with as few escapes as JSON allows.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut at = 0;
    out.push(b'"');
    loop {
        let end = skip_plain(bytes, at);
        out.extend_from_slice(&bytes[at..end]);
        let Some(&special) = bytes.get(end) else {
            break;
        };
        match short_escape(special) {
            Some(letter) => out.extend_from_slice(&[b'\\', letter]),
            None => {
                let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit & 15)];
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(special >> 4), hex(special)]);
            }
        }
        at = end + 1;
    }
    out.push(b'"');
}

/// Appends a number as `JSON.stringify` prints it: shortest digits, an exponent below 1e-6 and from
/// 1e21 on, `null` for NaN and the infinities.
pub fn write_number(out: &mut Vec<u8>, number: f64) {
    let magnitude = number.abs();
    if !number.is_finite() {
        out.extend_from_slice(b"null");
    } else if is_safe_integer(number) {
        let mut digits = itoa::Buffer::new();
        out.extend_from_slice(digits.format(number as i64).as_bytes());
    } else if number.fract() == 0.0 && magnitude < 1e21 {
        // Writing to a `Vec` cannot fail, here and below.
        let _ = write!(out, "{number}");
    } else {
        // The standard library rounds a tie up, JavaScript and `serde_json` to the even digit.
        let start = out.len() + usize::from(number < 0.0);
        let _ = serde_json::to_writer(&mut *out, &number);
        if (1e-6..1e-5).contains(&magnitude) {
            // They differ in this one decade: `1.5e-6` is `0.0000015` to JavaScript.
            let text = out.split_off(start);
            let digits = text.split(|&byte| byte == b'e').next().unwrap_or_default();
            out.extend_from_slice(b"0.00000");
            out.extend(digits.iter().filter(|byte| byte.is_ascii_digit()));
        }
    }
}

/// Appends a tree as `JSON.stringify` prints it, names that are array indices first.
pub fn write_value(out: &mut Vec<u8>, value: &Value) {
    let mut open = Vec::new();
    write_start(out, value, &mut open);
    while let Some(innermost) = open.last_mut() {
        let Some((name, value)) = innermost.next() else {
            out.push(innermost.closing());
            open.pop();
            continue;
        };
        // No value ends in an opening bracket: one right before means that this item is the first.
        if !matches!(out.last(), Some(b'[' | b'{')) {
            out.push(b',');
        }
        if let Some(name) = name {
            write_string(out, name);
            out.push(b':');
        }
        write_start(out, value, &mut open);
    }
}

/// Appends a JSON value; an object without a truthy `code` gets `"code":500`, in the place of the
/// falsy one or at the end.
///
/// As pomelo: a failed handler's response (`components/connector.js`, `handleMessage`).
/// Cost:   one scan and one copy; a tree if `code` is there more than once.
pub fn with_error_code(out: &mut Vec<u8>, value: &[u8]) {
    const CODE: &[u8] = b"\"code\":500";
    let value = trim(value);
    let Ok(found) = CodeMember::find(value) else {
        return out.extend_from_slice(value);
    };
    let code = found.last.clone().unwrap_or_default();
    let good = is_truthy(&value[code.clone()]);
    match found.count {
        0 => {
            // A found object ends in its bracket.
            out.extend_from_slice(&value[..value.len() - 1]);
            out.extend_from_slice(if found.alone { b"" } else { b"," });
            out.extend_from_slice(CODE);
            out.push(b'}');
        }
        1 if good => out.extend_from_slice(value),
        1 => {
            out.extend_from_slice(&value[..code.start]);
            out.extend_from_slice(b"500");
            out.extend_from_slice(&value[code.end..]);
        }
        _ => {
            let mut tree = parse(value).unwrap_or_default();
            if let Some(map) = tree.as_object_mut().filter(|_| !good) {
                map.insert("code".to_owned(), 500.into());
            }
            write_value(out, &tree);
        }
    }
}

/// Where an object text has its `code`.
#[derive(Default)]
struct CodeMember {
    count: usize,
    /// The value of the last one, the one that JavaScript keeps.
    last: Option<Range<usize>>,
    /// The object has no member at all.
    alone: bool,
}

impl CodeMember {
    fn find(object: &[u8]) -> Result<Self, JsonError> {
        let mut found = Self {
            alone: true,
            ..Self::default()
        };
        let mut members = members(object)?;
        while let Some(member) = members.next() {
            let (name, value) = member?;
            found.alone = false;
            if name == b"code" || (name.contains(&b'\\') && unescape(name) == "code") {
                let end = members.at();
                found.count += 1;
                found.last = Some(end - value.len()..end);
            }
        }
        Ok(found)
    }
}

/// The letter of a two-character escape, for the bytes that [`skip_plain`] stops at.
fn short_escape(byte: u8) -> Option<u8> {
    Some(match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => return None,
    })
}

/// Returns whether the number is whole and every whole number up to it is a double.
pub(super) fn is_safe_integer(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() < (1_u64 << f64::MANTISSA_DIGITS) as f64
}

pub(super) fn has_index_names(map: &Map<String, Value>) -> bool {
    map.keys().any(|name| index_rank(name) != u32::MAX)
}

/// Sort key of a member name: an array index by its value, every other name after them all.
pub(in crate::wire) fn index_rank(name: &str) -> u32 {
    match name.as_bytes() {
        b"0" => 0,
        [b'1'..=b'9', ..] => name.parse().unwrap_or(u32::MAX),
        _ => u32::MAX,
    }
}

/// A container that is being written.
enum Open<'a> {
    Array(slice::Iter<'a, Value>),
    Object(map::Iter<'a>),
    Sorted(vec::IntoIter<(&'a String, &'a Value)>),
}

impl<'a> Open<'a> {
    fn next(&mut self) -> Option<(Option<&'a String>, &'a Value)> {
        let (name, value) = match self {
            Self::Array(items) => return Some((None, items.next()?)),
            Self::Object(members) => members.next()?,
            Self::Sorted(members) => members.next()?,
        };
        Some((Some(name), value))
    }

    fn closing(&self) -> u8 {
        closing(!matches!(self, Self::Array(_)))
    }
}

/// Writes a scalar, or opens a container.
fn write_start<'a>(out: &mut Vec<u8>, value: &'a Value, open: &mut Vec<Open<'a>>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(out, number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push(b'[');
            open.push(Open::Array(items.iter()));
        }
        Value::Object(map) => {
            out.push(b'{');
            open.push(if has_index_names(map) {
                let mut members: Vec<_> = map.iter().collect();
                members.sort_by_key(|(name, _)| index_rank(name));
                Open::Sorted(members.into_iter())
            } else {
                Open::Object(map.iter())
            });
        }
    }
}
