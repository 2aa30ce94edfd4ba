//! JSON text → bytes, in one walk over the text.

use std::fmt;

use super::coerce::{integer_of, parse_int, to_number};
use super::schema::{Field, FieldKind, FieldSet, ProtoDefinition, Schema, Shape};
use crate::limits::PROTOBUF_DEPTH_MAX;
use crate::wire::json::{self, JsonError};
use crate::wire::varint;

/// The reason why a body cannot be encoded. The reference throws and nothing is sent, except where a variant
/// says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtoEncodeError {
    /// The text is not JSON.
    Json(JsonError),
    /// An integer field whose value does not begin with digits, or has no end.
    NotAnInteger,
    /// A negative value in an unsigned field.
    Negative,
    /// A string field with another value.
    NotAString,
    /// A `map` field with another value than an object.
    NotAMap,
    /// As pomelo: elements of `repeated uInt64` and `repeated sInt64` cannot be written.
    NoSuchType,
    /// Unlike pomelo: messages nest deeper than `limits::PROTOBUF_DEPTH_MAX`.
    TooDeep,
}

impl ProtoEncodeError {
    fn text(self) -> &'static str {
        match self {
            Self::Json(_) => "the body is not JSON",
            Self::NotAnInteger => "the value is not an integer",
            Self::Negative => "the value is negative",
            Self::NotAString => "the value is not a string",
            Self::NotAMap => "the value is not an object",
            Self::NoSuchType => "elements of this type cannot be written",
            Self::TooDeep => "messages nest too deep",
        }
    }
}

/// A body that cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBody<'a> {
    /// Name of the field; empty where it is not known.
    pub field: &'a str,
    /// The error.
    pub error: ProtoEncodeError,
}

impl fmt::Display for BadBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "field `{}`: ", self.field)?;
        }
        f.write_str(self.error.text())
    }
}

/// The reason why the walk ends.
enum Stop {
    Error(ProtoEncodeError),
    /// JavaScript has the members in another order than the text has them.
    Reorder,
}

impl From<JsonError> for Stop {
    fn from(error: JsonError) -> Self {
        Self::Error(ProtoEncodeError::Json(error))
    }
}

impl<'a> ProtoDefinition<'a> {
    /// Appends the bytes of a body.
    ///
    /// `false`: the reference sends an empty body, as a required field is missing, or nothing of
    /// the body is in the schema. Nothing is appended then, nor with an error.
    ///
    /// Cost:   no allocation, but for numbers of unusual size; a second walk with a list
    ///         of members per object where a name stands twice or is an array index
    /// Source: pomelo-protobuf `lib/encoder.js`
    pub fn encode(self, body: &[u8], out: &mut Vec<u8>) -> Result<bool, BadBody<'a>> {
        let start = out.len();
        let mut result = self.encode_walk(json::trim(body), out, false);
        if let Err(Stop::Reorder) = result {
            out.truncate(start);
            result = self.encode_walk(json::trim(body), out, true);
        }
        let result = match result {
            Ok(walked) => walked.map(|complete| complete && out.len() > start),
            Err(Stop::Error(error)) => Err(BadBody { field: "", error }),
            // An ordered body has each name once.
            Err(Stop::Reorder) => Ok(false),
        };
        if result != Ok(true) {
            out.truncate(start);
        }
        result
    }

    fn encode_walk(
        self,
        body: &[u8],
        out: &mut Vec<u8>,
        ordered: bool,
    ) -> Result<Result<bool, BadBody<'a>>, Stop> {
        if !body.starts_with(b"{") {
            json::validate(body)?;
            return Ok(Ok(false));
        }
        let mut encoder = Encoder {
            schema: self.schema,
            out,
            ordered,
            complete: true,
            fault: None,
            field: "",
            depth: 0,
        };
        encoder.message(self.message, body, true)?;
        Ok(match encoder.fault {
            // As pomelo: what is missing is found before anything is written.
            Some(bad) if encoder.complete => Err(bad),
            _ => Ok(encoder.complete),
        })
    }
}

struct Encoder<'a, 'out> {
    schema: &'a Schema,
    out: &'out mut Vec<u8>,
    /// The second walk, in the order of JavaScript.
    ordered: bool,
    /// No required field is missing.
    complete: bool,
    /// The first value that cannot be written.
    fault: Option<BadBody<'a>>,
    /// The field that is written.
    field: &'a str,
    depth: usize,
}

impl<'a> Encoder<'a, '_> {
    /// `checked`: required fields have to be there. As pinus: nobody looks inside a map.
    fn message(&mut self, index: u16, text: &[u8], checked: bool) -> Result<(), Stop> {
        let message = &self.schema.messages[usize::from(index)];
        if checked && !json::is_truthy(text) {
            self.complete = false;
            return Ok(());
        }
        let mut seen = FieldSet::default();
        if text.starts_with(b"{") {
            if message.has_index_names && !self.ordered {
                return Err(Stop::Reorder);
            }
            if self.depth == PROTOBUF_DEPTH_MAX {
                return Err(Stop::Error(ProtoEncodeError::TooDeep));
            }
            self.depth += 1;
            let mut guess = 0;
            each_member(text, self.ordered, |name, value| {
                let found = if name.contains(&b'\\') {
                    message.by_name(json::unescape(name).as_bytes(), guess)
                } else {
                    message.by_name(name, guess)
                };
                let Some(index) = found else { return Ok(()) };
                if !seen.insert(index) {
                    return Err(Stop::Reorder);
                }
                guess = index + 1;
                let field = &message.fields[usize::from(index)];
                self.field = field.name();
                self.field(field, value, checked)
            })?;
            self.depth -= 1;
        }
        self.complete &= !checked || seen.contains_all(&message.required);
        Ok(())
    }

    fn field(&mut self, field: &Field, value: &[u8], checked: bool) -> Result<(), Stop> {
        match field.shape {
            Shape::Single => {
                varint::write(self.out, field.head);
                self.value(field.kind, value, checked)
            }
            Shape::Each => self.each(field, value, checked),
            Shape::Counted => self.counted(field, value),
            Shape::Entries {
                key,
                value: kind,
                map,
            } => self.entries(field.head, key, kind, map, value),
        }
    }

    fn each(&mut self, field: &Field, value: &[u8], checked: bool) -> Result<(), Stop> {
        match value {
            [b'[', ..] => {
                for element in json::elements(value)? {
                    varint::write(self.out, field.head);
                    self.value(field.kind, element?, checked)?;
                }
                Ok(())
            }
            [b'"', raw @ .., b'"'] if !raw.is_empty() => {
                self.each(field, &characters(raw), checked)
            }
            _ => Ok(()),
        }
    }

    fn counted(&mut self, field: &Field, value: &[u8]) -> Result<(), Stop> {
        match value {
            [b'[', ..] => {
                let start = self.out.len();
                varint::write(self.out, field.head);
                let count_at = self.reserve();
                let mut count = 0;
                for element in json::elements(value)? {
                    if field.kind == FieldKind::Unknown {
                        self.refuse(ProtoEncodeError::NoSuchType);
                    }
                    self.value(field.kind, element?, false)?;
                    count += 1;
                }
                if count == 0 {
                    self.out.truncate(start);
                } else {
                    self.fill(count_at, count);
                }
                Ok(())
            }
            [b'"', raw @ .., b'"'] if !raw.is_empty() => self.counted(field, &characters(raw)),
            _ => Ok(()),
        }
    }

    fn entries(
        &mut self,
        head: u32,
        key: FieldKind,
        value: FieldKind,
        map: bool,
        text: &[u8],
    ) -> Result<(), Stop> {
        if !json::is_truthy(text) {
            return Ok(());
        }
        if !text.starts_with(b"{") && map {
            self.refuse(ProtoEncodeError::NotAMap);
            return Ok(());
        }
        if let [b'"', raw @ .., b'"'] = text {
            return self.entries(head, key, value, map, &characters(raw));
        }
        let start = self.out.len();
        varint::write(self.out, head);
        let count_at = self.reserve();
        let mut count = 0;
        match text.first() {
            Some(b'{') => {
                if !self.ordered && !in_order(text)? {
                    return Err(Stop::Reorder);
                }
                let mut quoted = Vec::new();
                each_member(text, self.ordered, |name, member| {
                    quoted.clear();
                    quoted.push(b'"');
                    quoted.extend_from_slice(name);
                    quoted.push(b'"');
                    count += 1;
                    self.value(key, &quoted, false)?;
                    self.value(value, member, false)
                })?;
            }
            // An array is an object with its indices as names.
            Some(b'[') => {
                for element in json::elements(text)? {
                    self.value(key, format!("\"{count}\"").as_bytes(), false)?;
                    self.value(value, element?, false)?;
                    count += 1;
                }
            }
            _ => {}
        }
        if count == 0 && !map {
            self.out.truncate(start);
        } else {
            self.fill(count_at, count);
        }
        Ok(())
    }

    fn value(&mut self, kind: FieldKind, text: &[u8], checked: bool) -> Result<(), Stop> {
        match kind {
            FieldKind::Unsigned => self.integer(parse_int(text)),
            FieldKind::Signed => {
                let number = parse_int(text);
                let zigzag = if number < 0.0 {
                    number.abs() * 2.0 - 1.0
                } else {
                    number * 2.0
                };
                self.integer(integer_of(zigzag));
            }
            FieldKind::Float => {
                let number = to_number(text) as f32;
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            FieldKind::Double => {
                let number = to_number(text);
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            FieldKind::String => match text {
                [b'"', raw @ .., b'"'] => {
                    let text = json::unescape(raw);
                    varint::write(self.out, text.len() as u32);
                    self.out.extend_from_slice(text.as_bytes());
                }
                _ => self.refuse(ProtoEncodeError::NotAString),
            },
            FieldKind::Bool => self.out.push(u8::from(json::is_truthy(text))),
            FieldKind::Message(index) => {
                let length_at = self.reserve();
                self.message(index, text, checked)?;
                self.fill(length_at, self.out.len() - length_at - 1);
            }
            FieldKind::Unknown => {}
        }
        Ok(())
    }

    fn integer(&mut self, mut number: f64) {
        const FITS: f64 = (1_u64 << 63) as f64;
        if number.is_nan() || number == f64::INFINITY {
            return self.refuse(ProtoEncodeError::NotAnInteger);
        }
        if number < 0.0 {
            return self.refuse(ProtoEncodeError::Negative);
        }
        // As pomelo: a varint has any number of bits.
        while number >= FITS {
            self.out.push((number % 128.0) as u8 | 0x80);
            number = (number / 128.0).floor();
        }
        let mut number = number as u64;
        while number >= 0x80 {
            self.out.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    fn refuse(&mut self, error: ProtoEncodeError) {
        let field = self.field;
        self.fault.get_or_insert(BadBody { field, error });
    }

    /// Keeps one byte for a length or count that is not known yet. Returns where.
    fn reserve(&mut self) -> usize {
        self.out.push(0);
        self.out.len() - 1
    }

    /// Writes it; what follows moves where one byte is not enough.
    fn fill(&mut self, at: usize, number: usize) {
        let more = varint::len(number as u32) - 1;
        let end = self.out.len();
        self.out.resize(end + more, 0);
        self.out.copy_within(at + 1..end, at + 1 + more);
        let mut rest = number;
        for byte in &mut self.out[at..at + more] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        self.out[at + more] = rest as u8;
    }
}

/// A string as the array that JavaScript takes it for: its UTF-16 units, of which halves of a pair
/// are not characters on their own.
fn characters(raw: &[u8]) -> Vec<u8> {
    let mut array = vec![b'['];
    for unit in json::unescape(raw).encode_utf16() {
        if array.len() > 1 {
            array.push(b',');
        }
        let character = char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER);
        json::write_string(&mut array, character.encode_utf8(&mut [0; 4]));
    }
    array.push(b']');
    array
}

/// Calls `f` with the raw name and the value of each member.
fn each_member<'a>(
    object: &'a [u8],
    ordered: bool,
    mut f: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let members = json::members(object)?;
    if !ordered {
        for member in members {
            let (name, value) = member?;
            f(name, value)?;
        }
        return Ok(());
    }
    let mut all = Vec::new();
    for (number, member) in members.enumerate() {
        let (raw, value) = member?;
        let name = json::unescape(raw);
        all.push((json::index_rank(&name), name, number, raw, value));
    }
    all.sort_unstable_by(|a, b| (&a.1, a.2).cmp(&(&b.1, b.2)));
    // Of equal names the last value, at the place of the first.
    let mut kept = Vec::with_capacity(all.len());
    for same in all.chunk_by(|a, b| a.1 == b.1) {
        let &(rank, _, first, raw, _) = &same[0];
        kept.push((rank, first, raw, same[same.len() - 1].4));
    }
    kept.sort_unstable_by_key(|(rank, first, ..)| (*rank, *first));
    kept.into_iter()
        .try_for_each(|(_, _, raw, value)| f(raw, value))
}

/// Returns whether JavaScript has the members of this object in the order of the text.
fn in_order(object: &[u8]) -> Result<bool, JsonError> {
    let mut names = smallvec::SmallVec::<[&[u8]; 16]>::new();
    for member in json::members(object)? {
        let (name, _) = member?;
        if name.first().is_some_and(u8::is_ascii_digit) || name.contains(&b'\\') {
            return Ok(false);
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names.windows(2).all(|pair| pair[0] != pair[1]))
}
