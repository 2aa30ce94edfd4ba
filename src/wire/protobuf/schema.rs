//! Protos as they stand in a file, and as they are used.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::{error, fmt};

use base64::Engine as _;
use md5::{Digest as _, Md5};
use serde_json::{Map, Value, json};

use crate::limits::{
    PROTOBUF_DEPTH_MAX, PROTOBUF_FIELDS_MAX, PROTOBUF_MESSAGES_MAX, PROTOBUF_TAG_MAX,
};
use crate::wire::json;

const BUILT_IN: &str = "a type of this name is built in";

/// Framework that defines the dialect of protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// pomelo-protobuf: a tag that the schema does not have is an error.
    Pomelo,
    /// pinus-protobuf: adds `bool`, `uInt64`, `sInt64`, `map` and `obj`; skips unknown heads.
    Pinus,
}

/// All protos of one direction.
///
/// Source: pomelo-protobuf `lib/parser.js`
#[derive(Debug)]
pub struct Schema {
    pub(super) flavour: Flavour,
    pub(super) messages: Vec<ProtoMessage>,
    /// Top-level names, shared types under `message Name`.
    names: HashMap<Box<str>, u16, foldhash::fast::RandomState>,
    parsed_json: String,
    doubts: Vec<Doubt>,
}

/// The proto of one route.
#[derive(Debug, Clone, Copy)]
pub struct ProtoDefinition<'a> {
    pub(super) schema: &'a Schema,
    pub(super) message: u16,
}

/// Which proto of a schema; to keep where a borrow cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtoId(NonZero<u16>);

/// The reason why protos cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaError {
    /// Names of the definition and those around it, outermost first, with dots between them.
    pub message: String,
    /// The line of the definition; empty where it is about the definition as a whole.
    pub field: String,
    /// The reason.
    pub reason: &'static str,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            message,
            field,
            reason,
        } = self;
        match (message.is_empty(), field.is_empty()) {
            (true, _) => write!(f, "{reason}"),
            (_, true) => write!(f, "message `{message}`: {reason}"),
            _ => write!(f, "message `{message}`, field `{field}`: {reason}"),
        }
    }
}

impl error::Error for SchemaError {}

/// A line that the reference takes, but that can hardly do what its writer wanted. Printed as a
/// [`SchemaError`] is.
pub type Doubt = SchemaError;

/// One definition.
#[derive(Debug)]
pub(super) struct ProtoMessage {
    pub(super) fields: Vec<Field>,
    /// Tag → index of a field, sorted by tag.
    tags: Vec<(u32, u16)>,
    /// Indices of fields, sorted by name.
    by_name: Vec<u16>,
    pub(super) required: FieldSet,
    /// JavaScript moves names that are array indices to the front of an object.
    pub(super) has_index_names: bool,
}

#[derive(Debug)]
pub(super) struct Field {
    name: Box<str>,
    /// `"name":`
    pub(super) json_name: Box<[u8]>,
    /// Place among names that are array indices, `u32::MAX` for any other name.
    pub(super) rank: u32,
    /// Tag and wire type.
    pub(super) head: u32,
    pub(super) kind: FieldKind,
    pub(super) shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Single,
    /// Elements with a head each.
    Each,
    /// One head, a count, and bare elements.
    Counted,
    /// One head, a count, and bare keys and values.
    Entries {
        key: FieldKind,
        value: FieldKind,
        /// An empty `map` is written, an empty `obj` is not.
        map: bool,
    },
}

impl Field {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// Type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldKind {
    Unsigned,
    Signed,
    Float,
    Double,
    String,
    Bool,
    Message(u16),
    /// As pomelo: of such a field there is the head and nothing more.
    Unknown,
}

/// Some of a message's fields.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FieldSet([u64; PROTOBUF_FIELDS_MAX / 64]);

impl FieldSet {
    /// `false`: it was in the set.
    pub(super) fn insert(&mut self, field: u16) -> bool {
        let (word, bit) = (&mut self.0[usize::from(field / 64)], 1 << (field % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    pub(super) fn contains_all(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(has, of)| of & !has == 0)
    }
}

impl Schema {
    /// Checks protos and resolves all that they name.
    ///
    /// Errors: the first definition or line that cannot work
    pub fn parse(flavour: Flavour, json: &Value) -> Result<Self, SchemaError> {
        let Some(definitions) = json.as_object() else {
            return Err(fault("", "", "the protos are an object of definitions"));
        };
        let mut parser = Parser {
            flavour,
            drafts: Vec::new(),
            doubts: Vec::new(),
        };
        let mut names = HashMap::default();
        let mut parsed = Map::new();
        for (name, definition) in definitions {
            if name.strip_prefix("message ").is_some_and(is_built_in) {
                return Err(fault(name, "", BUILT_IN));
            }
            let (index, text) = parser.definition(name, definition, 1)?;
            names.insert(name.as_str().into(), index);
            parsed.insert(name.clone(), text);
        }
        let messages = (0..parser.drafts.len())
            .map(|index| parser.resolve(index, &names))
            .collect::<Result<_, _>>()?;
        let mut parsed_json = Vec::new();
        json::write_value(&mut parsed_json, &Value::Object(parsed));
        Ok(Self {
            flavour,
            messages,
            names,
            parsed_json: String::from_utf8(parsed_json).expect("write_value writes UTF-8"),
            doubts: parser.doubts,
        })
    }

    /// The proto of a route, if it has one.
    pub fn proto(&self, route: &str) -> Option<ProtoDefinition<'_>> {
        Some(ProtoDefinition {
            schema: self,
            message: *self.names.get(route)?,
        })
    }

    /// The same as a number.
    pub fn proto_id(&self, route: &str) -> Option<ProtoId> {
        NonZero::new(self.names.get(route)? + 1).map(ProtoId)
    }

    /// The proto of a number that [`Schema::proto_id`] of this schema gave.
    pub fn proto_of(&self, id: ProtoId) -> ProtoDefinition<'_> {
        ProtoDefinition {
            schema: self,
            message: id.0.get() - 1,
        }
    }

    /// The parsed form that clients get in the handshake.
    pub fn parsed_json(&self) -> &str {
        &self.parsed_json
    }

    /// The definitions that a developer should look at.
    pub fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }
}

/// Version that clients compare with the one of the protos they have kept.
///
/// Shape:  base64 of the MD5 of both parsed forms, the client's first; empty without any file
pub fn version(client: Option<&Schema>, server: Option<&Schema>) -> String {
    if client.is_none() && server.is_none() {
        return String::new();
    }
    let mut hash = Md5::new();
    for schema in [client, server] {
        hash.update(schema.map_or("{}", Schema::parsed_json));
    }
    base64::engine::general_purpose::STANDARD.encode(hash.finalize())
}

impl ProtoMessage {
    /// The field of a tag.
    pub(super) fn by_tag(&self, tag: i32) -> Option<u16> {
        let tag = u32::try_from(tag).ok()?;
        // Most schemas number their fields 1, 2, 3 …
        let guess = self.tags.get((tag as usize).wrapping_sub(1));
        if let Some(&(_, field)) = guess.filter(|(of, _)| *of == tag) {
            return Some(field);
        }
        let at = self.tags.binary_search_by_key(&tag, |(of, _)| *of).ok()?;
        Some(self.tags[at].1)
    }

    /// The field of a name. Objects mostly have their members in the order of the schema, so the
    /// `guess` is mostly right.
    pub(super) fn by_name(&self, name: &[u8], guess: u16) -> Option<u16> {
        let name_of = |field: u16| {
            self.fields
                .get(usize::from(field))
                .map(|f| f.name.as_bytes())
        };
        if name_of(guess) == Some(name) {
            return Some(guess);
        }
        let at = self
            .by_name
            .binary_search_by(|&field| name_of(field).cmp(&Some(name)))
            .ok()?;
        Some(self.by_name[at])
    }
}

/// A definition whose types are not resolved yet.
struct Draft {
    path: String,
    /// Types that its own fields can name; those of definitions around it they cannot.
    nested: BTreeMap<String, u16>,
    fields: Vec<DraftField>,
    tags: Vec<(u32, u16)>,
}

struct DraftField {
    name: String,
    line: String,
    option: String,
    type_name: String,
    tag: u32,
}

struct Parser {
    flavour: Flavour,
    drafts: Vec<Draft>,
    doubts: Vec<Doubt>,
}

impl Parser {
    /// Returns its index and its parsed form. Recursion: as deep as definitions nest.
    fn definition(
        &mut self,
        path: &str,
        definition: &Value,
        depth: usize,
    ) -> Result<(u16, Value), SchemaError> {
        let Some(lines) = definition.as_object() else {
            return Err(fault(path, "", "a definition is an object"));
        };
        if depth > PROTOBUF_DEPTH_MAX {
            return Err(fault(path, "", "definitions nest too deep"));
        }
        let mut draft = Draft {
            path: path.to_owned(),
            nested: BTreeMap::new(),
            fields: Vec::new(),
            tags: Vec::new(),
        };
        let (mut parsed, mut messages, mut tags) = (Map::new(), Map::new(), Map::new());
        for (line, value) in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["message", name] if is_built_in(name) => return Err(fault(path, line, BUILT_IN)),
                ["message", name] => {
                    let path = format!("{path}.{name}");
                    let (index, text) = self.definition(&path, value, depth + 1)?;
                    draft.nested.insert(name.to_owned(), index);
                    messages.insert(name.to_owned(), text);
                }
                [option, type_name, name] if self.is_option(option) => {
                    let tag = tag(value).map_err(|reason| fault(path, line, reason))?;
                    if draft.tags.iter().any(|(used, _)| *used == tag) {
                        self.doubt(path, line, "left out: the tag is in use");
                        continue;
                    }
                    if matches!(name, "" | "__messages" | "__tags" | "__proto__") {
                        return Err(fault(path, line, "not a name for a field"));
                    }
                    let text = json!({"option": option, "type": type_name, "tag": tag});
                    parsed.insert(name.to_owned(), text);
                    tags.insert(tag.to_string(), name.into());
                    let index = draft.add(DraftField {
                        name: name.to_owned(),
                        line: line.clone(),
                        option: option.to_owned(),
                        type_name: type_name.to_owned(),
                        tag,
                    });
                    draft.tags.push((tag, index));
                }
                _ => self.doubt(path, line, "left out: not `option type name` with a tag"),
            }
            if draft.fields.len() > PROTOBUF_FIELDS_MAX {
                return Err(fault(path, line, "too many fields"));
            }
        }
        parsed.insert("__messages".to_owned(), Value::Object(messages));
        parsed.insert("__tags".to_owned(), Value::Object(tags));
        if self.drafts.len() == PROTOBUF_MESSAGES_MAX {
            return Err(fault(path, "", "too many definitions"));
        }
        draft.tags.sort_unstable();
        self.drafts.push(draft);
        Ok((self.drafts.len() as u16 - 1, Value::Object(parsed)))
    }

    fn is_option(&self, word: &str) -> bool {
        match word {
            "required" | "optional" | "repeated" => true,
            "map" | "obj" => self.flavour == Flavour::Pinus,
            _ => false,
        }
    }

    fn doubt(&mut self, message: &str, field: &str, reason: &'static str) {
        self.doubts.push(fault(message, field, reason));
    }

    fn resolve(
        &mut self,
        index: usize,
        names: &HashMap<Box<str>, u16, foldhash::fast::RandomState>,
    ) -> Result<ProtoMessage, SchemaError> {
        let mut doubts = Vec::new();
        let draft = &self.drafts[index];
        let type_index = |name: &str| match draft.nested.get(name) {
            Some(&index) => Some(index),
            None => names.get(&*format!("message {name}")).copied(),
        };
        let kind_of = |name: &str| match (name, self.flavour) {
            ("uInt32", _) | ("uInt64", Flavour::Pinus) => FieldKind::Unsigned,
            ("sInt32" | "int32", _) | ("sInt64", Flavour::Pinus) => FieldKind::Signed,
            ("float", _) => FieldKind::Float,
            ("double", _) => FieldKind::Double,
            ("string", _) => FieldKind::String,
            ("bool", Flavour::Pinus) => FieldKind::Bool,
            _ => type_index(name).map_or(FieldKind::Unknown, FieldKind::Message),
        };
        // As pinus: types of key and value are looked up where the map is, not where they stand.
        let entry = |type_name: &str| {
            let entry = &self.drafts[usize::from(type_index(type_name)?)];
            let kind = |name| {
                let field = entry.fields.iter().find(|field| field.name == name)?;
                Some(kind_of(&field.type_name)).filter(|kind| *kind != FieldKind::Unknown)
            };
            Some((kind("key")?, kind("value")?))
        };
        let mut message = ProtoMessage {
            fields: Vec::with_capacity(draft.fields.len()),
            tags: draft.tags.clone(),
            by_name: (0..draft.fields.len() as u16).collect(),
            required: FieldSet::default(),
            has_index_names: false,
        };
        for (index, field) in draft.fields.iter().enumerate() {
            let mut kind = kind_of(&field.type_name);
            let shape = match (&*field.option, &*field.type_name) {
                (option @ ("map" | "obj"), type_name) => {
                    let Some((key, value)) = entry(type_name) else {
                        let reason = "its type needs the fields `key` and `value` of known types";
                        return Err(fault(&draft.path, &field.line, reason));
                    };
                    let map = option == "map";
                    Shape::Entries { key, value, map }
                }
                // As pomelo: it counts them, but can neither write nor read one.
                ("repeated", "uInt64" | "sInt64") if kind == FieldKind::Unknown => Shape::Counted,
                ("repeated", _) => match kind {
                    FieldKind::String | FieldKind::Message(_) | FieldKind::Unknown => Shape::Each,
                    _ => Shape::Counted,
                },
                _ => Shape::Single,
            };
            if matches!(shape, Shape::Entries { .. }) {
                kind = FieldKind::Unknown;
            } else if kind == FieldKind::Unknown {
                doubts.push(fault(
                    &draft.path,
                    &field.line,
                    "a type that does not exist",
                ));
            }
            if field.option == "required" {
                message.required.insert(index as u16);
            }
            let mut json_name = Vec::new();
            json::write_string(&mut json_name, &field.name);
            json_name.push(b':');
            let rank = json::index_rank(&field.name);
            message.has_index_names |= rank != u32::MAX;
            message.fields.push(Field {
                name: field.name.as_str().into(),
                json_name: json_name.into(),
                rank,
                head: field.tag << 3 | wire_type(kind),
                kind,
                shape,
            });
        }
        let fields = &message.fields;
        message
            .by_name
            .sort_unstable_by_key(|&field| &fields[usize::from(field)].name);
        self.doubts.append(&mut doubts);
        Ok(message)
    }
}

impl Draft {
    /// As pomelo: a name that occurs again takes the place of the earlier one, whose tag then
    /// leads to it too. Returns its index.
    fn add(&mut self, field: DraftField) -> u16 {
        let same = self.fields.iter().position(|old| old.name == field.name);
        let index = same.unwrap_or(self.fields.len());
        match same {
            Some(index) => self.fields[index] = field,
            None => self.fields.push(field),
        }
        index as u16
    }
}

fn fault(message: &str, field: &str, reason: &'static str) -> SchemaError {
    SchemaError {
        message: message.to_owned(),
        field: field.to_owned(),
        reason,
    }
}

fn tag(value: &Value) -> Result<u32, &'static str> {
    const REASON: &str = "a tag is a whole number below 2^28";
    let number = value.as_f64().ok_or(REASON)?;
    let good = number.fract() == 0.0 && (0.0..=f64::from(PROTOBUF_TAG_MAX)).contains(&number);
    good.then_some(number as u32).ok_or(REASON)
}

/// Names that one of the flavours knows as numbers or as `string`. `bool` is left to Pomelo.
fn is_built_in(name: &str) -> bool {
    let numbers = ["uInt32", "sInt32", "int32", "uInt64", "sInt64"];
    numbers.contains(&name) || matches!(name, "float" | "double" | "string")
}

fn wire_type(kind: FieldKind) -> u32 {
    match kind {
        FieldKind::Unsigned | FieldKind::Signed | FieldKind::Bool => 0,
        FieldKind::Double => 1,
        FieldKind::String | FieldKind::Message(_) | FieldKind::Unknown => 2,
        FieldKind::Float => 5,
    }
}
