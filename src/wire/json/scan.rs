//! The grammar of JSON: one iterative scanner, and what it is made of.
//!
//! The compiler must inline the parts. A result with an error is too large for registers, so each call of a part
//! would write it to memory and read it back. For a body of 300 bytes that costs 4067 instructions instead of 3113.

use std::ops::Range;

use super::JsonError;
use crate::limits::JSON_DEPTH_MAX;

/// Receiver of the scanner's events. `()` ignores them at no cost.
pub(super) trait Visitor {
    fn open(&mut self, _object: bool) {}
    fn name(&mut self, _text: &[u8], _raw: Range<usize>) {}
    fn scalar(&mut self, _text: &[u8], _value: Range<usize>) {}
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
        let byte;
        (at, byte) = token(text, at);
        if matches!(byte, b'{' | b'[') {
            let object = byte == b'{';
            if !nest.open(object) {
                return Err(JsonError {
                    at,
                    reason: "nested too deep",
                });
            }
            visitor.open(object);
            let first;
            (at, first) = token(text, at + 1);
            // An empty container closes further down, as a filled one does.
            if first != closing(object) {
                if object {
                    at = visit_name(text, at, visitor)?;
                }
                continue;
            }
        } else {
            let end = skip_scalar(text, at, byte)?;
            visitor.scalar(text, at..end);
            at = end;
        }
        // A value has ended. Close what ends with it, until a comma asks for another one.
        loop {
            let Some(object) = nest.innermost() else {
                return Ok(at);
            };
            let byte;
            (at, byte) = token(text, at);
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
    /// The bits of up to 64 containers, the innermost in the lowest bit.
    inner: u64,
    /// The bits of the containers around those, 64 at a time.
    outer: [u64; JSON_DEPTH_MAX / 64],
    depth: usize,
}

const _: () = assert!(JSON_DEPTH_MAX.is_multiple_of(64));

impl Nest {
    /// `false`: the limit is reached.
    #[inline(always)]
    fn open(&mut self, object: bool) -> bool {
        if self.depth == JSON_DEPTH_MAX {
            return false;
        }
        if self.depth.is_multiple_of(64) {
            self.outer[self.depth / 64] = self.inner;
        }
        self.inner = self.inner << 1 | u64::from(object);
        self.depth += 1;
        true
    }

    #[inline(always)]
    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.inner >>= 1;
        if self.depth.is_multiple_of(64) {
            self.inner = self.outer[self.depth / 64];
        }
    }

    #[inline(always)]
    fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.inner & 1 == 1)
    }
}

pub(super) fn closing(object: bool) -> u8 {
    if object { b'}' } else { b']' }
}

#[inline(always)]
fn visit_name<V: Visitor>(text: &[u8], at: usize, visitor: &mut V) -> Result<usize, JsonError> {
    let (name, at) = member_name(text, at)?;
    visitor.name(text, name);
    Ok(at)
}

/// Reads `"name":`. Returns the place of the name between its quotes, and the index after the colon.
#[inline(always)]
pub(super) fn member_name(text: &[u8], at: usize) -> Result<(Range<usize>, usize), JsonError> {
    let (quote, byte) = token(text, at);
    if byte != b'"' {
        return Err(unexpected(text, quote, "a member name was expected"));
    }
    let end = skip_string(text, quote + 1)?;
    let (colon, byte) = token(text, end);
    if byte != b':' {
        return Err(unexpected(text, colon, "a colon was expected"));
    }
    Ok((quote + 1..end - 1, colon + 1))
}

#[inline(always)]
fn skip_scalar(text: &[u8], at: usize, first: u8) -> Result<usize, JsonError> {
    match first {
        b'"' => skip_string(text, at + 1),
        b'-' | b'0'..=b'9' => skip_number(text, at),
        b't' => skip_word(text, at, b"true"),
        b'f' => skip_word(text, at, b"false"),
        _ => skip_word(text, at, b"null"),
    }
}

#[inline(always)]
fn skip_word<const N: usize>(text: &[u8], at: usize, word: &[u8; N]) -> Result<usize, JsonError> {
    if text.get(at..).and_then(<[u8]>::first_chunk) == Some(word) {
        Ok(at + N)
    } else {
        Err(unexpected(text, at, "a value was expected"))
    }
}

#[inline(always)]
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
#[inline(always)]
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
#[inline(always)]
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

#[inline(never)]
fn skip_escape(text: &[u8], at: usize) -> Result<usize, JsonError> {
    match byte_at(text, at) {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 1),
        b'u' if text.get(at + 1..).and_then(code_unit).is_some() => Ok(at + 5),
        _ => Err(unexpected(text, at, "an escape that does not exist")),
    }
}

/// Index of the first byte from `at` on that cannot stand in a string as it is; the length if none.
#[inline(always)]
pub(super) fn skip_plain(text: &[u8], at: usize) -> usize {
    const fn each(byte: u8) -> u64 {
        u64::MAX / 255 * byte as u64
    }
    let Some(mut rest) = text.get(at..) else {
        return text.len();
    };
    while let Some((eight, further)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*eight);
        // The XOR exchanges quote and space. After it only the quote and the control characters are below 0x21.
        let below = (word ^ each(b'"' ^ b' ')).wrapping_sub(each(b' ' + 1));
        let backslash = (word ^ each(b'\\')).wrapping_sub(each(1));
        // A borrow changes only higher bytes. So the lowest mark is always true, and the code uses only that one.
        let marks = (below | backslash) & !word & each(0x80);
        if marks != 0 {
            return text.len() - rest.len() + marks.trailing_zeros() as usize / 8;
        }
        rest = further;
    }
    let is_plain = |byte: &&u8| !matches!(byte, 0..0x20 | b'"' | b'\\');
    text.len() - rest.len() + rest.iter().take_while(is_plain).count()
}

/// Returns the index of the first byte from `at` on that is not whitespace, and this byte: 0 behind the end.
#[inline(always)]
pub(super) fn token(text: &[u8], mut at: usize) -> (usize, u8) {
    let mut byte = byte_at(text, at);
    while is_space(byte) {
        at += 1;
        byte = byte_at(text, at);
    }
    (at, byte)
}

pub(super) fn skip_space(text: &[u8], at: usize) -> usize {
    token(text, at).0
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
#[inline]
pub(super) fn code_unit(digits: &[u8]) -> Option<u16> {
    let digits: &[u8; 4] = digits.first_chunk()?;
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    // The low four bits of a letter count from 1.
    let value = |digit: u8| u16::from(digit & 15) + if digit < b'A' { 0 } else { 9 };
    is_hex.then(|| {
        digits
            .iter()
            .fold(0, |unit, &digit| unit << 4 | value(digit))
    })
}
