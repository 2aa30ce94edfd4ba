//! Conversion of a JSON value to a number, as JavaScript does it.

use crate::wire::json;

/// `parseInt(value)` of a JSON value; NaN where its text does not begin with digits.
pub(super) fn parse_int(value: &[u8]) -> f64 {
    match value {
        // The usual case: digits that fit a double.
        [b'0'..=b'9', ..] if value.len() <= 15 && value.iter().all(u8::is_ascii_digit) => value
            .iter()
            .fold(0, |number, digit| number * 10 + i64::from(digit - b'0'))
            as f64,
        [b'"', raw @ .., b'"'] => leading_integer(&json::unescape(raw)),
        [b'-' | b'0'..=b'9', ..] => integer_of(number(value)),
        // An array is printed as its elements with commas between them: the first one decides.
        [b'[', ..] => match first_element(value) {
            Some((first, _)) => parse_int(first),
            None => f64::NAN,
        },
        _ => f64::NAN,
    }
}

/// `parseInt(number)`. As pomelo: it reads the printed number, so 1e21 is 1, and 1e-7 as well.
pub(super) fn integer_of(number: f64) -> f64 {
    if number.abs() < 1e21 && (number == 0.0 || number.abs() >= 1e-6) {
        return number.trunc();
    }
    let mut printed = Vec::new();
    json::write_number(&mut printed, number);
    leading_integer(&String::from_utf8_lossy(&printed))
}

/// `Number(value)` of a JSON value.
pub(super) fn to_number(value: &[u8]) -> f64 {
    match value {
        b"null" | b"false" => 0.0,
        b"true" => 1.0,
        [b'-' | b'0'..=b'9', ..] => number(value),
        [b'"', raw @ .., b'"'] => string_number(&json::unescape(raw)),
        [b'[', ..] => match first_element(value) {
            None => 0.0,
            // Printed alone, these are words.
            Some((b"true" | b"false", _)) => f64::NAN,
            Some((only, true)) => to_number(only),
            Some(_) => f64::NAN,
        },
        _ => f64::NAN,
    }
}

/// The first element of an array, and whether it is the only one. Recursion over these is as deep
/// as JSON may be.
fn first_element(array: &[u8]) -> Option<(&[u8], bool)> {
    let mut elements = json::elements(array).ok()?;
    let first = elements.next()?.ok()?;
    Some((first, elements.next().is_none()))
}

fn number(text: &[u8]) -> f64 {
    let text = str::from_utf8(text).unwrap_or_default();
    text.parse().unwrap_or(f64::NAN)
}

fn leading_integer(text: &str) -> f64 {
    let text = text.trim_start_matches(is_space);
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let hex = text.strip_prefix("0x").or(text.strip_prefix("0X"));
    sign * match hex {
        Some(digits) => radix(leading(digits, |c| c.is_ascii_hexdigit()), 16),
        None => number(leading(text, |c| c.is_ascii_digit()).as_bytes()),
    }
}

fn string_number(text: &str) -> f64 {
    let text = text.trim_matches(is_space);
    let whole = |digits: &str, base| match leading(digits, |c| c.is_digit(base)) {
        all if all.len() == digits.len() => radix(all, base),
        _ => f64::NAN,
    };
    match text.as_bytes() {
        [] => 0.0,
        [b'0', b'x' | b'X', ..] => whole(&text[2..], 16),
        [b'0', b'o' | b'O', ..] => whole(&text[2..], 8),
        [b'0', b'b' | b'B', ..] => whole(&text[2..], 2),
        _ if matches!(text, "Infinity" | "+Infinity") => f64::INFINITY,
        _ if text == "-Infinity" => f64::NEG_INFINITY,
        // The standard library knows `inf` and `nan`, JavaScript does not.
        bytes
            if bytes
                .iter()
                .any(|b| b.is_ascii_alphabetic() && !b"eE".contains(b)) =>
        {
            f64::NAN
        }
        bytes => number(bytes),
    }
}

fn leading(text: &str, accept: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c| !accept(c)).unwrap_or(text.len());
    &text[..end]
}

/// Digits of a base that is a power of two.
fn radix(digits: &str, base: u32) -> f64 {
    if digits.is_empty() {
        return f64::NAN;
    }
    let digits = digits.trim_start_matches('0');
    // 120 bits are more than decide how a double is rounded.
    let (head, tail) = digits.split_at(digits.len().min(120 / base.ilog2() as usize));
    let head = u128::from_str_radix(head, base).unwrap_or(0);
    let scale = i32::try_from(tail.len()).unwrap_or(i32::MAX);
    head as f64 * f64::from(base).powi(scale)
}

/// White space of JavaScript.
fn is_space(c: char) -> bool {
    c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}')
}
