//! The grammar of JSON: one iterative scanner, and what it is made of.

use super::JsonError;
use crate::limits::JSON_DEPTH_MAX;

/// Receiver of the scanner's events. `()` ignores them at no cost.
pub(super) trait Visitor {
    fn open(&mut self, _object: bool) {}
    fn name(&mut self, _raw: &[u8]) {}
    fn scalar(&mut self, _text: &[u8]) {}
    fn close(&mut self) {}
}

impl Visitor for () {}

pub(super) const COMMA_OR_END: &str = "a comma or the end of the container was expected";

pub(super) fn visit<V: Visitor>(text: &[u8], visitor: &mut V) -> Result<(), JsonError> {
    let end = scan(text, 0, visitor)?;
    expect_end(text, end)
}

/// The grammar. Returns the index after the value.
pub(super) fn scan<V: Visitor>(
    text: &[u8],
    mut at: usize,
    visitor: &mut V,
) -> Result<usize, JsonError> {
    let mut nest = Nest::default();
    loop {
        at = skip_space(text, at);
        let byte = byte_at(text, at);
        if matches!(byte, b'{' | b'[') {
            let object = byte == b'{';
            if !nest.open(object) {
                return Err(JsonError {
                    at,
                    reason: "nested too deep",
                });
            }
            visitor.open(object);
            at = skip_space(text, at + 1);
            // An empty container closes further down, as a filled one does.
            if byte_at(text, at) != closing(object) {
                if object {
                    at = visit_name(text, at, visitor)?;
                }
                continue;
            }
        } else {
            let end = skip_scalar(text, at, byte)?;
            visitor.scalar(&text[at..end]);
            at = end;
        }
        // A value has ended. Close what ends with it, until a comma asks for another one.
        loop {
            let Some(object) = nest.innermost() else {
                return Ok(at);
            };
            at = skip_space(text, at);
            let byte = byte_at(text, at);
            if byte == b',' {
                at += 1;
                if object {
                    at = visit_name(text, at, visitor)?;
                }
                break;
            }
            if byte != closing(object) {
                return Err(unexpected(text, at, COMMA_OR_END));
            }
            at += 1;
            nest.close();
            visitor.close();
        }
    }
}

/// The open containers: one bit each, set for an object.
#[derive(Default)]
struct Nest {
    objects: [u64; JSON_DEPTH_MAX.div_ceil(64)],
    depth: usize,
}

impl Nest {
    /// `false`: the limit is reached.
    fn open(&mut self, object: bool) -> bool {
        if self.depth == JSON_DEPTH_MAX {
            return false;
        }
        let (word, bit) = (&mut self.objects[self.depth / 64], self.depth % 64);
        *word = *word & !(1 << bit) | u64::from(object) << bit;
        self.depth += 1;
        true
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn innermost(&self) -> Option<bool> {
        let top = self.depth.checked_sub(1)?;
        Some(self.objects[top / 64] >> (top % 64) & 1 == 1)
    }
}

pub(super) fn closing(object: bool) -> u8 {
    if object { b'}' } else { b']' }
}

fn visit_name<V: Visitor>(text: &[u8], at: usize, visitor: &mut V) -> Result<usize, JsonError> {
    let (name, at) = member_name(text, at)?;
    visitor.name(name);
    Ok(at)
}

/// Reads `"name":`. Returns the name between its quotes and the index after the colon.
pub(super) fn member_name(text: &[u8], at: usize) -> Result<(&[u8], usize), JsonError> {
    let quote = skip_space(text, at);
    if byte_at(text, quote) != b'"' {
        return Err(unexpected(text, quote, "a member name was expected"));
    }
    let end = skip_string(text, quote + 1)?;
    let colon = skip_space(text, end);
    if byte_at(text, colon) != b':' {
        return Err(unexpected(text, colon, "a colon was expected"));
    }
    Ok((&text[quote + 1..end - 1], colon + 1))
}

fn skip_scalar(text: &[u8], at: usize, first: u8) -> Result<usize, JsonError> {
    let word: &[u8] = match first {
        b'"' => return skip_string(text, at + 1),
        b'-' | b'0'..=b'9' => return skip_number(text, at),
        b't' => b"true",
        b'f' => b"false",
        _ => b"null",
    };
    if text.get(at..).is_some_and(|rest| rest.starts_with(word)) {
        Ok(at + word.len())
    } else {
        Err(unexpected(text, at, "a value was expected"))
    }
}

fn skip_number(text: &[u8], mut at: usize) -> Result<usize, JsonError> {
    at += usize::from(byte_at(text, at) == b'-');
    at = match byte_at(text, at) {
        // A zero stands alone: a digit after it is an error of whatever follows.
        b'0' => at + 1,
        _ => skip_digits(text, at)?,
    };
    if byte_at(text, at) == b'.' {
        at = skip_digits(text, at + 1)?;
    }
    if matches!(byte_at(text, at), b'e' | b'E') {
        at += 1;
        at += usize::from(matches!(byte_at(text, at), b'+' | b'-'));
        at = skip_digits(text, at)?;
    }
    Ok(at)
}

/// Skips one digit or more.
fn skip_digits(text: &[u8], start: usize) -> Result<usize, JsonError> {
    let mut at = start;
    while byte_at(text, at).is_ascii_digit() {
        at += 1;
    }
    if at == start {
        Err(unexpected(text, at, "a digit was expected"))
    } else {
        Ok(at)
    }
}

/// From behind the opening quote to behind the closing one.
fn skip_string(text: &[u8], mut at: usize) -> Result<usize, JsonError> {
    loop {
        at = skip_plain(text, at);
        match byte_at(text, at) {
            b'"' => return Ok(at + 1),
            b'\\' => at = skip_escape(text, at + 1)?,
            _ => return Err(unexpected(text, at, "a control character inside a string")),
        }
    }
}

fn skip_escape(text: &[u8], at: usize) -> Result<usize, JsonError> {
    match byte_at(text, at) {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 1),
        b'u' if text.get(at + 1..).and_then(code_unit).is_some() => Ok(at + 5),
        _ => Err(unexpected(text, at, "an escape that does not exist")),
    }
}

/// Index of the first byte from `at` on that cannot stand in a string as it is; the length if none.
#[inline]
pub(super) fn skip_plain(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    // Borrows run upwards only: the lowest mark is always true, and only that one is used.
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    while let Some(eight) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*eight);
        let marks = (below(word, 0x20) | equal(word, b'"') | equal(word, b'\\')) & (ONES << 7);
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while text
        .get(at)
        .is_some_and(|byte| !matches!(byte, 0..0x20 | b'"' | b'\\'))
    {
        at += 1;
    }
    at
}

pub(super) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while is_space(byte_at(text, at)) {
        at += 1;
    }
    at
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The byte there, 0 behind the end: no rule of the grammar takes a 0 for good.
#[inline]
pub(super) fn byte_at(text: &[u8], at: usize) -> u8 {
    text.get(at).copied().unwrap_or(0)
}

pub(super) fn expect_end(text: &[u8], at: usize) -> Result<(), JsonError> {
    let at = skip_space(text, at);
    if at < text.len() {
        Err(unexpected(text, at, "the value has ended"))
    } else {
        Ok(())
    }
}

#[cold]
pub(super) fn unexpected(text: &[u8], at: usize, reason: &'static str) -> JsonError {
    JsonError {
        at,
        reason: if at < text.len() {
            reason
        } else {
            "the text ends too early"
        },
    }
}

/// The value of four hex digits.
pub(super) fn code_unit(digits: &[u8]) -> Option<u16> {
    digits.get(..4)?.iter().try_fold(0, |unit, &digit| {
        Some(unit << 4 | char::from(digit).to_digit(16)? as u16)
    })
}
