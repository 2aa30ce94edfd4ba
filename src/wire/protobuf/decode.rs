//! Bytes → JSON text as `JSON.stringify` prints it, without a tree.
//!
//! Text is written as the bytes come. JavaScript has a member where it came first, with the value
//! that came last; where a field comes again after others, the body is read a second time, each
//! value as a piece, and each message put together at its end.

use std::ops::Range;

use super::schema::{
    Field, FieldKind, FieldSet, Flavour, ProtoDefinition, ProtoMessage, Schema, Shape,
};
use crate::limits::{PROTOBUF_DEPTH_MAX, PROTOBUF_ELEMENTS_MAX, PROTOBUF_JSON_BYTES_MAX};
use crate::wire::json;

/// The reason why bytes are not a body of this schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A value goes past the end.
    Truncated,
    /// As pomelo: a tag that the message does not have.
    UnknownTag,
    /// Unlike pomelo: messages nest deeper than `limits::PROTOBUF_DEPTH_MAX`.
    TooDeep,
    /// Unlike pomelo: more than `limits::PROTOBUF_ELEMENTS_MAX` fields and elements.
    TooMany,
    /// Unlike pomelo: more than `limits::PROTOBUF_JSON_BYTES_MAX` of text.
    TooLong,
}

/// The reason why the walk ends.
enum Stop {
    Error(DecodeError),
    /// A field comes again after others.
    Reorder,
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Self {
        Self::Error(error)
    }
}

impl ProtoDefinition<'_> {
    /// Appends the JSON text of a body; nothing with an error.
    ///
    /// `false`: a required field is missing. The reference lets that pass; Pinus makes `null` of
    /// such a body where `decodeCheckMsg` is on.
    ///
    /// Cost:   no allocation but for what `out` lacks, unless the body has a `map`, an `obj`, or
    ///         fields out of order
    /// Source: pomelo-protobuf `lib/decoder.js`
    pub fn decode(self, body: &[u8], out: &mut Vec<u8>) -> Result<bool, DecodeError> {
        let start = out.len();
        let mut result = self.decode_walk(body, out, false);
        if let Err(Stop::Reorder) = result {
            out.truncate(start);
            result = self.decode_walk(body, out, true);
        }
        result.map_err(|stop| {
            out.truncate(start);
            match stop {
                Stop::Error(error) => error,
                // Pieces have no order.
                Stop::Reorder => DecodeError::TooMany,
            }
        })
    }

    fn decode_walk(self, body: &[u8], out: &mut Vec<u8>, in_pieces: bool) -> Result<bool, Stop> {
        let mut decoder = Decoder {
            schema: self.schema,
            body,
            at: 0,
            out_max: out.len().saturating_add(PROTOBUF_JSON_BYTES_MAX),
            out,
            in_pieces,
            elements: 0,
            depth: 0,
        };
        decoder.message(self.message, body.len())
    }
}

struct Decoder<'a> {
    schema: &'a Schema,
    body: &'a [u8],
    /// As pomelo: a length may lead past the end; only a value that is read there is an error.
    at: usize,
    out: &'a mut Vec<u8>,
    out_max: usize,
    in_pieces: bool,
    elements: usize,
    depth: usize,
}

/// A value that waits for its message to be complete.
struct Piece {
    field: u16,
    /// Index in the order of the bytes.
    number: usize,
    /// Name of the value in the object of a `map` or `obj`; empty elsewhere.
    key: Range<usize>,
    /// Of a repeated field, elements with commas between them.
    value: Range<usize>,
    complete: bool,
}

impl<'a> Decoder<'a> {
    /// Returns whether all required fields are there. As pomelo: a value inside may go on behind
    /// `end`, and what follows is read from there.
    fn message(&mut self, index: u16, end: usize) -> Result<bool, Stop> {
        if self.depth == PROTOBUF_DEPTH_MAX {
            return Err(DecodeError::TooDeep.into());
        }
        self.depth += 1;
        let message = &self.schema.messages[usize::from(index)];
        let complete = if self.in_pieces {
            self.pieces(message, end)
        } else if message.has_index_names {
            Err(Stop::Reorder)
        } else {
            self.stream(message, end)
        };
        self.depth -= 1;
        complete
    }

    fn stream(&mut self, message: &'a ProtoMessage, end: usize) -> Result<bool, Stop> {
        let mut seen = FieldSet::default();
        let mut complete = true;
        let mut open_list = None;
        self.out.push(b'{');
        while self.at < end {
            let Some(index) = self.field(message)? else {
                continue;
            };
            let field = &message.fields[usize::from(index)];
            if open_list != Some(index) {
                if open_list.take().is_some() {
                    self.out.push(b']');
                }
                // JavaScript's `undefined`: neither printed nor there.
                if (field.kind, field.shape) == (FieldKind::Unknown, Shape::Single) {
                    continue;
                }
                if !seen.insert(index) {
                    return Err(Stop::Reorder);
                }
                self.name(field)?;
            }
            complete &= match field.shape {
                Shape::Single => self.value(field.kind)?,
                Shape::Each | Shape::Counted => {
                    if open_list.is_none() {
                        self.out.push(b'[');
                        open_list = Some(index);
                    }
                    self.elements(field)?
                }
                Shape::Entries { key, value, .. } => {
                    let start = self.out.len();
                    let mut entries = Vec::new();
                    self.entries(index, key, value, &mut entries)?;
                    let object = self.object(&mut entries);
                    self.replace(start, &object)?;
                    true
                }
            };
        }
        if open_list.is_some() {
            self.out.push(b']');
        }
        self.out.push(b'}');
        Ok(complete && seen.contains_all(&message.required))
    }

    fn pieces(&mut self, message: &'a ProtoMessage, end: usize) -> Result<bool, Stop> {
        let start = self.out.len();
        let mut seen = FieldSet::default();
        let mut pieces = Vec::new();
        while self.at < end {
            let Some(index) = self.field(message)? else {
                continue;
            };
            let field = &message.fields[usize::from(index)];
            if (field.kind, field.shape) == (FieldKind::Unknown, Shape::Single) {
                continue;
            }
            seen.insert(index);
            if let Shape::Entries { key, value, .. } = field.shape {
                self.entries(index, key, value, &mut pieces)?;
                continue;
            }
            if field.shape != Shape::Single {
                // So that no comma comes in front of the first element.
                self.out.push(b'[');
            }
            let at = self.out.len();
            let complete = match field.shape {
                Shape::Single => self.value(field.kind)?,
                _ => self.elements(field)?,
            };
            pieces.push(Piece {
                field: index,
                number: pieces.len(),
                key: at..at,
                value: at..self.out.len(),
                complete,
            });
        }
        let (text, complete) = self.assemble(message, &mut pieces);
        self.replace(start, &text)?;
        Ok(complete && seen.contains_all(&message.required))
    }

    /// A message of its pieces.
    fn assemble(&self, message: &ProtoMessage, pieces: &mut [Piece]) -> (Vec<u8>, bool) {
        let mut first = vec![usize::MAX; message.fields.len()];
        for piece in &*pieces {
            let first = &mut first[usize::from(piece.field)];
            *first = piece.number.min(*first);
        }
        pieces.sort_unstable_by_key(|piece| {
            let field = usize::from(piece.field);
            (message.fields[field].rank, first[field], piece.number)
        });
        let mut text = vec![b'{'];
        let mut complete = true;
        for same in pieces.chunk_by_mut(|a, b| a.field == b.field) {
            let field = &message.fields[usize::from(same[0].field)];
            separate(&mut text, b'{');
            text.extend_from_slice(&field.json_name);
            match field.shape {
                Shape::Single => {
                    let last = &same[same.len() - 1];
                    text.extend_from_slice(&self.out[last.value.clone()]);
                    complete &= last.complete;
                }
                Shape::Each | Shape::Counted => {
                    text.push(b'[');
                    for piece in same.iter().filter(|piece| !piece.value.is_empty()) {
                        separate(&mut text, b'[');
                        text.extend_from_slice(&self.out[piece.value.clone()]);
                        complete &= piece.complete;
                    }
                    text.push(b']');
                }
                Shape::Entries { .. } => text.extend_from_slice(&self.object(same)),
            }
        }
        text.push(b'}');
        (text, complete)
    }

    /// An object of its entries: of equal keys the last value at the place of the first, keys that
    /// are array indices in front.
    fn object(&self, entries: &mut [Piece]) -> Vec<u8> {
        let key = |entry: &Piece| &self.out[entry.key.clone()];
        entries.sort_unstable_by(|a, b| key(a).cmp(key(b)).then(a.number.cmp(&b.number)));
        let mut members: Vec<(u32, usize, &Piece)> = entries
            .chunk_by(|a, b| key(a) == key(b))
            .filter(|same| !same[0].key.is_empty() && key(&same[0]) != b"\"__proto__\"")
            .map(|same| {
                let name = key(&same[0]);
                let name = str::from_utf8(&name[1..name.len() - 1]).unwrap_or_default();
                let last = &same[same.len() - 1];
                (json::index_rank(name), same[0].number, last)
            })
            .collect();
        members.sort_unstable_by_key(|(rank, first, _)| (*rank, *first));
        let mut text = vec![b'{'];
        for (_, _, entry) in members {
            separate(&mut text, b'{');
            text.extend_from_slice(key(entry));
            text.push(b':');
            text.extend_from_slice(&self.out[entry.value.clone()]);
        }
        text.push(b'}');
        text
    }

    /// Reads a head. `None`: there is no such field.
    fn field(&mut self, message: &ProtoMessage) -> Result<Option<u16>, DecodeError> {
        self.count()?;
        let head = self.varint()?;
        let field = message.by_tag(to_int32(head) >> 3);
        if field.is_none() && self.schema.flavour == Flavour::Pomelo {
            return Err(DecodeError::UnknownTag);
        }
        Ok(field)
    }

    /// Elements of one occurrence, with commas between them and after what is there.
    fn elements(&mut self, field: &Field) -> Result<bool, Stop> {
        let mut left = if field.shape == Shape::Counted {
            self.varint()?
        } else {
            1.0
        };
        let mut complete = true;
        // NaN counts nothing, infinity as long as there is something to read.
        while left > 0.0 {
            self.count()?;
            separate(self.out, b'[');
            complete &= self.value(field.kind)?;
            left -= 1.0;
        }
        Ok(complete)
    }

    /// Reads keys and values. An object without any still is one: it has a piece without a key.
    fn entries(
        &mut self,
        field: u16,
        key: FieldKind,
        value: FieldKind,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), Stop> {
        let mut left = self.varint()?;
        let mut piece = |key, value| {
            let number = pieces.len();
            pieces.push(Piece {
                field,
                number,
                key,
                value,
                complete: true,
            });
        };
        piece(0..0, 0..0);
        while left > 0.0 {
            self.count()?;
            let start = self.out.len();
            self.key(key)?;
            let middle = self.out.len();
            self.value(value)?;
            piece(start..middle, middle..self.out.len());
            left -= 1.0;
        }
        Ok(())
    }

    /// A value as the name of a member.
    fn key(&mut self, kind: FieldKind) -> Result<(), Stop> {
        if kind == FieldKind::String {
            self.value(kind)?;
            return Ok(());
        }
        let start = self.out.len();
        self.out.push(b'"');
        match kind {
            FieldKind::Message(_) => {
                let middle = self.out.len();
                self.value(kind)?;
                self.out.truncate(middle);
                self.out.extend_from_slice(b"[object Object]");
            }
            FieldKind::Unsigned | FieldKind::Signed | FieldKind::Float | FieldKind::Double => {
                let number = self.number(kind)?;
                match number {
                    _ if number.is_nan() => self.out.extend_from_slice(b"NaN"),
                    f64::INFINITY => self.out.extend_from_slice(b"Infinity"),
                    f64::NEG_INFINITY => self.out.extend_from_slice(b"-Infinity"),
                    _ => json::write_number(self.out, number),
                }
            }
            _ => {
                self.value(kind)?;
            }
        }
        self.out.push(b'"');
        debug_assert!(self.out.len() > start + 1);
        Ok(())
    }

    /// Returns whether all required fields are there, in a message.
    fn value(&mut self, kind: FieldKind) -> Result<bool, Stop> {
        match kind {
            FieldKind::Unsigned | FieldKind::Signed | FieldKind::Float | FieldKind::Double => {
                let number = self.number(kind)?;
                json::write_number(self.out, number);
            }
            FieldKind::String => self.string()?,
            FieldKind::Bool => {
                let number = self.varint()?;
                let word: &[u8] = if number == 0.0 || number.is_nan() {
                    b"false"
                } else {
                    b"true"
                };
                self.out.extend_from_slice(word);
            }
            FieldKind::Message(index) => {
                let length = self.varint()?;
                // Past all ends where it is too big for an index; NaN is before them all.
                let end = (self.at as f64 + length) as usize;
                return self.message(index, end);
            }
            // `undefined`, which is printed as `null` inside an array.
            FieldKind::Unknown => self.out.extend_from_slice(b"null"),
        }
        self.check_length()?;
        Ok(true)
    }

    fn number(&mut self, kind: FieldKind) -> Result<f64, DecodeError> {
        Ok(match kind {
            FieldKind::Float => f32::from_le_bytes(self.bytes()?).into(),
            FieldKind::Double => f64::from_le_bytes(self.bytes()?),
            FieldKind::Signed => {
                let number = self.varint()?;
                let half = (number % 2.0 + number) / 2.0;
                if number % 2.0 == 1.0 { -half } else { half }
            }
            _ => self.varint()?,
        })
    }

    /// As pomelo: cut at the end of the body, whatever its length says.
    fn string(&mut self) -> Result<(), DecodeError> {
        let length = self.varint()?;
        let start = self.at.min(self.body.len());
        let text = match self.at as f64 + length {
            end if end.is_nan() => {
                self.at = usize::MAX;
                &[][..]
            }
            end => {
                self.at = end as usize;
                &self.body[start..self.at.min(self.body.len())]
            }
        };
        json::write_string(self.out, &String::from_utf8_lossy(text));
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.body.get(self.at..).and_then(<[u8]>::first_chunk);
        self.at = self.at.saturating_add(N);
        bytes.copied().ok_or(DecodeError::Truncated)
    }

    /// As pomelo: a sum of doubles, so what is past 2^53 is rounded at each step, and has no end.
    fn varint(&mut self) -> Result<f64, DecodeError> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let mut number = 0.0;
        let mut scale = 1.0;
        for (index, &byte) in rest.iter().enumerate() {
            number += f64::from(byte & 0x7f) * scale;
            if byte < 0x80 {
                self.at += index + 1;
                return Ok(number);
            }
            scale *= 128.0;
        }
        Err(DecodeError::Truncated)
    }

    fn count(&mut self) -> Result<(), DecodeError> {
        self.elements += 1;
        if self.elements > PROTOBUF_ELEMENTS_MAX {
            return Err(DecodeError::TooMany);
        }
        Ok(())
    }

    fn name(&mut self, field: &Field) -> Result<(), DecodeError> {
        separate(self.out, b'{');
        self.out.extend_from_slice(&field.json_name);
        self.check_length()
    }

    /// Puts what was made of pieces into their place.
    fn replace(&mut self, start: usize, text: &[u8]) -> Result<(), DecodeError> {
        self.out.truncate(start);
        self.out.extend_from_slice(text);
        self.check_length()
    }

    fn check_length(&self) -> Result<(), DecodeError> {
        if self.out.len() > self.out_max {
            return Err(DecodeError::TooLong);
        }
        Ok(())
    }
}

/// A comma, unless the container has just been opened: no value ends in an opening bracket.
fn separate(out: &mut Vec<u8>, opening: u8) {
    if out.last() != Some(&opening) {
        out.push(b',');
    }
}

/// JavaScript's `ToInt32`.
fn to_int32(number: f64) -> i32 {
    const WRAP: f64 = (1_u64 << 32) as f64;
    if !number.is_finite() {
        return 0;
    }
    number.rem_euclid(WRAP) as u32 as i32
}
