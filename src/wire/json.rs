//! JSON as JavaScript reads and prints it.
//!
//! Bodies pass through the gateway as text. This file checks that text, cuts pieces out of it and
//! adds to it; a tree is built only where a value is really looked into ([`parse`]). All readers
//! share one scanner: it is iterative and allocates nothing.
//!
//! JavaScript decodes UTF-8 with replacement before it parses. So a byte from 0x80 on stands for
//! some character: allowed inside a string, an error outside (the byte order mark included).

mod scan;
mod write;

use std::borrow::Cow;
use std::mem;
use std::ops::Range;

use serde_json::{Map, Number, Value};

use self::scan::{
    COMMA_OR_END, Visitor, code_unit, expect_end, is_space, member_name, scan, skip_space, token,
    unexpected, visit,
};
pub(super) use self::write::index_rank;
use self::write::{has_index_names, is_safe_integer};
pub use self::write::{with_error_code, write_number, write_string, write_value};

/// A text that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Index of the first byte that is not allowed there.
    pub at: usize,
    /// The reason.
    pub reason: &'static str,
}

/// Checks that the text is exactly one JSON value, with or without whitespace around it.
///
/// Shape:  what `JSON.parse` takes
/// Bound:  nesting ≤ `limits::JSON_DEPTH_MAX`
/// Errors: the first byte that does not fit
/// Source: ECMA-404; client protocol, message body
pub fn validate(text: &[u8]) -> Result<(), JsonError> {
    visit(text, &mut ())
}

/// The text without JSON whitespace at both ends.
#[must_use]
pub fn trim(text: &[u8]) -> &[u8] {
    let start = skip_space(text, 0);
    let rest = &text[start..];
    let tail = rest
        .iter()
        .rev()
        .take_while(|&&byte| is_space(byte))
        .count();
    &rest[..rest.len() - tail]
}

/// Index right after the value that starts at `at`, or behind whitespace there.
///
/// Errors: as [`validate`], but bytes after the value are not looked at.
pub fn skip_value(text: &[u8], at: usize) -> Result<usize, JsonError> {
    scan(text, at, &mut ())
}

/// The body of a client message as it is used from here on: itself when it is JSON, else `{}`.
///
/// As pomelo: the empty body is not JSON either (`connectors/common/coder.js`, `decode`).
#[must_use]
pub fn or_empty_object(body: &[u8]) -> &[u8] {
    if validate(body).is_ok() { body } else { b"{}" }
}

/// Returns whether JavaScript takes one JSON value for true in a condition. The text has to be valid; of
/// others only the empty one is sure to be false.
#[must_use]
pub fn is_truthy(value: &[u8]) -> bool {
    match trim(value) {
        [b'{' | b'[', ..] => true,
        b"" | b"null" | b"false" | b"\"\"" => false,
        number @ [b'-' | b'0'..=b'9', ..] => to_number(number) != 0.0,
        _ => true,
    }
}

/// The text between the quotes of a JSON string, decoded. A lone surrogate becomes U+FFFD.
#[must_use]
pub fn unescape(raw: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(raw);
    if memchr::memchr(b'\\', raw).is_none() {
        return text;
    }
    let mut decoded = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        decoded.push_str(plain);
        let (character, after) = read_escape(escape);
        decoded.push(character);
        rest = after;
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

/// The elements of an array text, each as its own trimmed text. Made by [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a>(Items<'a>);

/// Opens an array text.
///
/// Errors: here when the text is not an array, else at the faulty element, which is the last.
pub fn elements(array: &[u8]) -> Result<Elements<'_>, JsonError> {
    Items::open(array, b'[', b']').map(Elements)
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<&'a [u8], JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_with(Items::value)
    }
}

/// The members of an object text in written order: the name between its quotes, not decoded (see
/// [`unescape`]), and the trimmed text of the value. Made by [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a>(Items<'a>);

impl Members<'_> {
    /// Index right after the value that came last.
    fn at(&self) -> usize {
        self.0.at
    }
}

/// Opens an object text.
///
/// Errors: here when the text is not an object, else at the faulty member, which is the last.
pub fn members(object: &[u8]) -> Result<Members<'_>, JsonError> {
    Items::open(object, b'{', b'}').map(Members)
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0
            .next_with(|items| Ok((items.name()?, items.value()?)))
    }
}

/// The tree that `JSON.parse` makes of a text; `None` where it throws.
///
/// Names that are array indices come first, ascending; of equal names the last value stands at the
/// place of the first. Numbers are doubles: one that is a whole number within ±(2^53 - 1) answers
/// to `as_i64`, one beyond the doubles becomes `null`, which is how it would be printed. A lone
/// surrogate becomes U+FFFD.
///
/// Bound:  as [`validate`]
/// Cost:   the tree's allocations
#[must_use]
pub fn parse(text: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(text);
    let mut builder = Builder::default();
    visit(text.as_bytes(), &mut builder).ok()?;
    builder.whole
}

/// Returns the memory of a tree of values, without that of its root.
///
/// Bound: it calls itself for each level, of which [`parse`] takes up to `limits::JSON_DEPTH_MAX`
pub fn tree_bytes(value: &Value) -> usize {
    /// An entry of a map, and its place in the table of its index.
    const ENTRY: usize = size_of::<(usize, String, Value)>() + 2 * size_of::<usize>();
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.capacity(),
        Value::Array(items) => {
            let inside: usize = items.iter().map(tree_bytes).sum();
            items.capacity() * size_of::<Value>() + inside
        }
        Value::Object(members) => {
            let bytes = |(name, value): (&String, &Value)| name.capacity() + tree_bytes(value);
            let inside: usize = members.iter().map(bytes).sum();
            members.len() * ENTRY + inside
        }
    }
}

/// Walks over the items of one array or object.
#[derive(Clone, Debug)]
struct Items<'a> {
    text: &'a [u8],
    at: usize,
    closing: u8,
    started: bool,
    done: bool,
}

impl<'a> Items<'a> {
    fn open(text: &'a [u8], opening: u8, closing: u8) -> Result<Self, JsonError> {
        let (at, byte) = token(text, 0);
        if byte != opening {
            return Err(unexpected(text, at, "not this kind of container"));
        }
        Ok(Self {
            text,
            at: at + 1,
            closing,
            started: false,
            done: false,
        })
    }

    fn next_with<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, JsonError>,
    ) -> Option<Result<T, JsonError>> {
        if self.done {
            return None;
        }
        let item = match self.advance() {
            Ok(true) => read(self),
            Ok(false) => {
                self.done = true;
                return None;
            }
            Err(error) => Err(error),
        };
        self.done = item.is_err();
        Some(item)
    }

    /// Moves to the next item; `false` after the last one.
    fn advance(&mut self) -> Result<bool, JsonError> {
        let byte;
        (self.at, byte) = token(self.text, self.at);
        if byte == self.closing {
            return expect_end(self.text, self.at + 1).map(|()| false);
        }
        if mem::replace(&mut self.started, true) {
            if byte != b',' {
                return Err(unexpected(self.text, self.at, COMMA_OR_END));
            }
            self.at += 1;
        }
        Ok(true)
    }

    fn name(&mut self) -> Result<&'a [u8], JsonError> {
        let (name, at) = member_name(self.text, self.at)?;
        self.at = at;
        Ok(&self.text[name])
    }

    fn value(&mut self) -> Result<&'a [u8], JsonError> {
        let start = skip_space(self.text, self.at);
        self.at = skip_value(self.text, start)?;
        Ok(&self.text[start..self.at])
    }
}

/// Decodes one escape; `text` starts behind its backslash. Returns the text after it as well.
fn read_escape(text: &str) -> (char, &str) {
    let Some(letter) = text.chars().next() else {
        return (char::REPLACEMENT_CHARACTER, text);
    };
    let rest = &text[letter.len_utf8()..];
    let character = match letter {
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return read_code_units(rest),
        itself => itself,
    };
    (character, rest)
}

/// Decodes the digits of `\u` and, if they are half of a pair, the `\u` after them.
fn read_code_units(text: &str) -> (char, &str) {
    let (Some(unit), Some(rest)) = (code_unit(text.as_bytes()), text.get(4..)) else {
        return (char::REPLACEMENT_CHARACTER, text);
    };
    let low = rest
        .strip_prefix("\\u")
        .and_then(|digits| code_unit(digits.as_bytes()));
    let units = [unit, low.unwrap_or_default()];
    match char::decode_utf16(units).next() {
        Some(Ok(character)) if character.len_utf16() == 2 => (character, &rest[6..]),
        Some(Ok(character)) => (character, rest),
        _ => (char::REPLACEMENT_CHARACTER, rest),
    }
}

/// The double that a number text stands for; NaN for any other text.
fn to_number(text: &[u8]) -> f64 {
    str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(f64::NAN)
}

/// Builds the tree of [`parse`].
#[derive(Default)]
struct Builder {
    /// The open containers, each with the name that its next value will get.
    open: Vec<(Value, String)>,
    whole: Option<Value>,
}

impl Builder {
    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            Some((Value::Array(items), _)) => items.push(value),
            Some((Value::Object(map), name)) => {
                map.insert(mem::take(name), value);
            }
            _ => self.whole = Some(value),
        }
    }
}

impl Visitor for Builder {
    fn open(&mut self, object: bool) {
        let empty = if object {
            Value::Object(Map::new())
        } else {
            Value::Array(Vec::new())
        };
        self.open.push((empty, String::new()));
    }

    fn name(&mut self, text: &[u8], raw: Range<usize>) {
        if let Some((_, name)) = self.open.last_mut() {
            *name = unescape(&text[raw]).into_owned();
        }
    }

    fn scalar(&mut self, text: &[u8], value: Range<usize>) {
        self.put(match &text[value] {
            b"null" => Value::Null,
            b"true" => Value::Bool(true),
            b"false" => Value::Bool(false),
            [b'"', raw @ .., b'"'] => Value::String(unescape(raw).into_owned()),
            number => number_value(to_number(number)),
        });
    }

    fn close(&mut self) {
        if let Some((mut value, _)) = self.open.pop() {
            if let Value::Object(map) = &mut value
                && has_index_names(map)
            {
                let mut members: Vec<_> = mem::take(map).into_iter().collect();
                members.sort_by_key(|(name, _)| index_rank(name));
                *map = members.into_iter().collect();
            }
            self.put(value);
        }
    }
}

fn number_value(number: f64) -> Value {
    // The sign of a negative zero lives in the double only.
    if is_safe_integer(number) && !(number == 0.0 && number.is_sign_negative()) {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests;
