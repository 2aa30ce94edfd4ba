//! Schemas, bodies and bytes through tangelo's protobuf.

use serde_json::{Map, Value, json};
use tangelo::wire::json;
use tangelo::wire::protobuf::{Flavour, ProtoDefinition, Schema};

use super::peer::{self, hex};
use super::random::Random;

/// Schemas for each flavour.
const SCHEMAS: usize = 500;
/// Bodies that are encoded, for each schema.
const BODIES: usize = 6;
/// Bytes that are decoded, for each schema.
const BYTES: usize = 12;

#[test]
fn pomelo_writes_and_reads_the_same() {
    compare(Flavour::Pomelo, "pomelo");
}

#[test]
fn pinus_writes_and_reads_the_same() {
    compare(Flavour::Pinus, "pinus");
}

struct Case {
    schema: Value,
    bodies: Vec<String>,
    bytes: Vec<Vec<u8>>,
    got: Value,
}

fn compare(flavour: Flavour, name: &str) {
    let mut random = Random::from_seed("DIFFERENTIAL_SEED");
    let cases: Vec<Case> = (0..SCHEMAS).map(|_| case(&mut random, flavour)).collect();
    let (mut checked, mut written, mut read) = (0, 0, 0);
    for (case, expected) in cases.iter().zip(reference(name, &cases)) {
        let schema = &case.schema;
        assert_eq!(case.got["parsed"], expected["parsed"], "{schema}");
        let pairs = |key: &str| {
            let (got, expected) = (case.got[key].as_array(), expected[key].as_array());
            let (got, expected) = (got.unwrap().clone(), expected.unwrap().clone());
            got.into_iter().zip(expected)
        };
        for (body, (got, expected)) in case.bodies.iter().zip(pairs("encoded")) {
            assert_eq!(got, expected, "\nschema: {schema}\nbody:   {body}");
            written += usize::from(got.is_string());
            checked += 1;
        }
        for (bytes, (got, expected)) in case.bytes.iter().zip(pairs("decoded")) {
            let bytes = hex(bytes);
            assert_eq!(got, expected, "\nschema: {schema}\nbytes:  {bytes}");
            read += usize::from(got.is_string());
            checked += 1;
        }
    }
    println!("{name}: {checked} cases, {written} written and {read} read without an error");
    assert!(checked >= 2_000 && written > 500 && read > 500);
}

fn case(random: &mut Random, flavour: Flavour) -> Case {
    let definitions = Definitions::random(random, flavour);
    let mut json = Map::new();
    json.insert("route".to_owned(), definitions.route.json());
    for (name, shared) in &definitions.shared {
        json.insert(format!("message {name}"), shared.json());
    }
    let schema = Value::Object(json);
    let parsed = Schema::parse(flavour, &schema).unwrap_or_else(|e| panic!("{e}: {schema}"));
    let proto = parsed.proto("route").unwrap();
    let body = |_| definitions.body(random, &definitions.route, 0);
    let bodies: Vec<String> = (0..BODIES).map(body).collect();
    let encoded: Vec<_> = bodies.iter().map(|body| encode(proto, body)).collect();
    let good: Vec<&[u8]> = encoded
        .iter()
        .filter_map(|out| Some(&**out.as_ref().ok()?))
        .collect();
    let bytes: Vec<_> = (0..BYTES).map(|_| random.bytes_like(&good)).collect();
    let hex_or = |out: &Result<Vec<u8>, bool>| match out {
        Ok(bytes) => json!(hex(bytes)),
        Err(true) => Value::Null,
        Err(false) => json!(false),
    };
    let got = json!({
        "parsed": parsed.parsed_json(),
        "encoded": encoded.iter().map(hex_or).collect::<Vec<_>>(),
        "decoded": bytes.iter().map(|bytes| decode(proto, bytes)).collect::<Vec<_>>(),
    });
    Case {
        schema,
        bodies,
        bytes,
        got,
    }
}

/// `Err(true)`: an empty body is sent; `Err(false)`: nothing.
fn encode(proto: ProtoDefinition<'_>, body: &str) -> Result<Vec<u8>, bool> {
    let mut out = Vec::new();
    match proto.encode(body.as_bytes(), &mut out) {
        Ok(true) => Ok(out),
        Ok(false) => Err(true),
        Err(_) => Err(false),
    }
}

fn decode(proto: ProtoDefinition<'_>, bytes: &[u8]) -> Value {
    let mut out = Vec::new();
    match proto.decode(bytes, &mut out) {
        Ok(_) => String::from_utf8(out).unwrap().into(),
        Err(_) => false.into(),
    }
}

/// Asks the genuine package for the result of each case.
fn reference(flavour: &str, cases: &[Case]) -> Vec<Value> {
    let lines = cases.iter().map(|case| {
        let decode: Vec<_> = case.bytes.iter().map(|bytes| hex(bytes)).collect();
        json!({"schema": case.schema, "encode": case.bodies, "decode": decode})
    });
    let lines: Vec<Value> = lines.collect();
    peer::ask("protobuf", "codec.js", &[flavour], &lines)
}

pub(super) struct Definition {
    fields: Vec<Field>,
    nested: Vec<(String, Self)>,
}

struct Field {
    option: &'static str,
    kind: String,
    name: String,
    tag: u64,
}

impl Definition {
    pub(super) fn json(&self) -> Value {
        let mut lines = Map::new();
        for (name, definition) in &self.nested {
            lines.insert(format!("message {name}"), definition.json());
        }
        for Field {
            option,
            kind,
            name,
            tag,
        } in &self.fields
        {
            lines.insert(format!("{option} {kind} {name}"), json!(tag));
        }
        Value::Object(lines)
    }

    fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().rfind(|field| field.name == name)
    }
}

pub(super) struct Definitions {
    flavour: Flavour,
    pub(super) route: Definition,
    pub(super) shared: Vec<(String, Definition)>,
    /// Some fields are named as elements of an array are.
    index_names: bool,
}

impl Definitions {
    pub(super) fn random(random: &mut Random, flavour: Flavour) -> Self {
        let shared: Vec<_> = (0..random.below(3)).map(|n| format!("S{n}")).collect();
        let index_names = random.one_in(8);
        let mut made = Self {
            flavour,
            route: made_of(Vec::new()),
            shared: Vec::new(),
            index_names,
        };
        made.route = made.definition(random, &shared, 0);
        for name in &shared {
            let definition = made.definition(random, &shared, 1);
            made.shared.push((name.clone(), definition));
        }
        made
    }

    fn definition(&self, random: &mut Random, shared: &[String], depth: usize) -> Definition {
        let mut definition = made_of(Vec::new());
        if depth < 2 {
            for name in &["A", "B"][..random.below(3)] {
                let nested = self.definition(random, shared, depth + 1);
                definition.nested.push(((*name).to_owned(), nested));
            }
        }
        let mut visible = shared.to_vec();
        visible.extend(definition.nested.iter().map(|(name, _)| name.clone()));
        for number in 0..1 + random.below(6) {
            let names = ["a", "b", "längе", "x1", "_", "q\"q", "名", "hp", "🎲"];
            let mut name = (*random.pick(&names)).to_owned();
            if self.index_names && random.one_in(2) {
                name = (*random.pick(&["0", "7", "10", "4294967295"])).to_owned();
            }
            let tag = match random.below(8) {
                0 => *random.pick(&[0, 15, 16, 2047, 2048, 100_000, (1 << 28) - 1]),
                1 => random.below(8) as u64,
                _ => number as u64 + 1,
            };
            let mut option = *random.pick(&["optional", "required", "optional", "repeated"]);
            let mut kind = self.kind(random, &visible);
            if self.flavour == Flavour::Pinus && random.one_in(5) {
                option = *random.pick(&["map", "obj"]);
                kind = format!("KV{number}");
                let key = *random.pick(&["string", "uInt32", "sInt32", "bool", "double"]);
                let value = loop {
                    let kind = self.kind(random, &visible);
                    if kind != "nosuch" {
                        break kind;
                    }
                };
                let entry = |name: &str, kind: &str, tag| Field {
                    option: "required",
                    kind: kind.to_owned(),
                    name: name.to_owned(),
                    tag,
                };
                let entry = vec![entry("key", key, 1), entry("value", &value, 2)];
                definition.nested.push((kind.clone(), made_of(entry)));
            } else if self.flavour == Flavour::Pomelo && kind.ends_with("64") {
                // The package counts to what any bytes say, without reading.
                option = "optional";
            }
            let same = |field: &Field| field.tag == tag || field.name == name;
            if !definition.fields.iter().any(same) || random.one_in(4) {
                definition.fields.push(Field {
                    option,
                    kind,
                    name,
                    tag,
                });
            }
        }
        // The first of a tag counts, so the model must not know the others.
        let mut tags = Vec::new();
        definition.fields.retain(|field| {
            let new = !tags.contains(&field.tag);
            tags.push(field.tag);
            new
        });
        definition
    }

    fn kind(&self, random: &mut Random, visible: &[String]) -> String {
        if !visible.is_empty() && random.one_in(3) {
            return random.pick(visible).clone();
        }
        if random.one_in(30) {
            return "nosuch".to_owned();
        }
        let kinds = [
            "uInt32", "sInt32", "int32", "float", "double", "string", "string", "bool", "uInt64",
            "sInt64",
        ];
        let few = self.flavour == Flavour::Pomelo && !random.one_in(8);
        (*random.pick(&kinds[..if few { 7 } else { 10 }])).to_owned()
    }

    fn find<'a>(&'a self, scope: &'a Definition, kind: &str) -> Option<&'a Definition> {
        let mut all = scope.nested.iter().chain(&self.shared);
        all.find(|(name, _)| name == kind).map(|(_, found)| found)
    }

    /// How many of some odd values to choose from: an array or a string has members to the
    /// reference, but none to tangelo.
    fn odd(&self, without_members: usize, all: usize) -> usize {
        if self.index_names {
            without_members
        } else {
            all
        }
    }

    /// JSON text of an object, now and then of something else.
    fn body(&self, random: &mut Random, definition: &Definition, depth: usize) -> String {
        if random.one_in(60) {
            let other = ["null", "0", "5", "true", "false", "\"abc\"", "[]", "[1]"];
            return (*random.pick(&other[..self.odd(5, 8)])).to_owned();
        }
        let mut members = Vec::new();
        let mut fields: Vec<&Field> = definition.fields.iter().collect();
        if random.one_in(3) {
            fields.reverse();
        }
        if random.one_in(10) && !fields.is_empty() {
            fields.push(fields[0]);
        }
        for field in fields {
            let field = definition
                .field(&field.name)
                .expect("the field is in the definition");
            let deep = depth > 4;
            let left_out = deep || (field.option == "required" && random.one_in(80));
            if left_out || (field.option != "required" && random.one_in(4)) {
                continue;
            }
            let value = self.value(random, definition, field, depth);
            members.push(format!("{}:{value}", random.quoted(&field.name)));
        }
        if random.one_in(5) {
            members.push("\"unknown\": {\"a\": [1, {}]}".to_owned());
        }
        let comma = if random.one_in(5) { " ,\n" } else { "," };
        format!("{{{}}}", members.join(comma))
    }

    fn value(
        &self,
        random: &mut Random,
        scope: &Definition,
        field: &Field,
        depth: usize,
    ) -> String {
        let single = |random: &mut Random, kind: &str| match self.find(scope, kind) {
            Some(message) => self.body(random, message, depth + 1),
            None => random.scalar(kind),
        };
        match field.option {
            "repeated" => {
                if random.one_in(15) {
                    let other = [
                        "null",
                        "5",
                        "{}",
                        "true",
                        "[]",
                        "\"\"",
                        "\"ab1\"",
                        "\"😀x\"",
                    ];
                    return (*random.pick(&other[..self.odd(5, 8)])).to_owned();
                }
                let count = match random.below(30) {
                    0 if self.find(scope, &field.kind).is_none() => 130,
                    _ => random.below(4),
                };
                let elements: Vec<_> = (0..count).map(|_| single(random, &field.kind)).collect();
                format!("[{}]", elements.join(","))
            }
            "map" | "obj" => {
                if random.one_in(15) {
                    let other = [
                        "null",
                        "5",
                        "{}",
                        "true",
                        "[]",
                        "\"\"",
                        "\"ab1\"",
                        "[1,\"2\"]",
                    ];
                    return (*random.pick(&other[..self.odd(5, 8)])).to_owned();
                }
                let entry = self
                    .find(scope, &field.kind)
                    .expect("the field is in the scope of its type");
                let (key, value) = (&entry.fields[0].kind, &entry.fields[1].kind);
                let mut members = Vec::new();
                for _ in 0..random.below(5) {
                    let name = match &**key {
                        "string" => (*random.pick(&["k", "l", "", "3", "20", "ключ"])).to_owned(),
                        "double" => (*random.pick(&["1.5", "-2", "", "x", " 7 "])).to_owned(),
                        _ => random.below(300).to_string(),
                    };
                    let name = random.quoted(&name);
                    members.push(format!("{name}:{}", single(random, value)));
                }
                format!("{{{}}}", members.join(","))
            }
            _ => single(random, &field.kind),
        }
    }
}

fn made_of(fields: Vec<Field>) -> Definition {
    let nested = Vec::new();
    Definition { fields, nested }
}

impl Random {
    /// A JSON string of a text, with more escapes than it needs now and then.
    fn quoted(&mut self, text: &str) -> String {
        if self.one_in(12) {
            let escape = |unit: u16| format!("\\u{unit:04X}");
            return format!(
                "\"{}\"",
                text.encode_utf16().map(escape).collect::<String>()
            );
        }
        let mut out = Vec::new();
        json::write_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    /// A value of a type, now and then of another one.
    fn scalar(&mut self, kind: &str) -> String {
        const ODD: &[&str] = &[
            "null",
            "true",
            "false",
            "[]",
            "{}",
            "[5]",
            "[[7],1]",
            "[1,2]",
            "\"\"",
            "\" 42 \"",
            "\"12abc\"",
            "\"0x1F\"",
            "\"-0x10\"",
            "\"abc\"",
            "\"Infinity\"",
            "\"inf\"",
            "\"nan\"",
            "\"1e3\"",
            "\".5\"",
            "\"5.\"",
            "\"+.5e1\"",
            "\"0b11\"",
            "\"0o17\"",
            "\"1_0\"",
            "1.7",
            "-1.7",
            "1e21",
            "1.5e-7",
            "-0",
            "1e300",
            "0.1",
            "12345678901234567890",
            "\"-5\"",
            "\"\\ufeff6\"",
            "\"0x1fffffffffffff3\"",
            "\"99999999999999999999999\"",
            "[\"\"]",
            "[null]",
            "[true]",
            "[\"0x10\"]",
            "\"+7\"",
            "\"- 7\"",
            "1e20",
            "\"e5\"",
            "\"\\u0085 1\"",
        ];
        if self.one_in(60) {
            return (*self.pick(ODD)).to_owned();
        }
        let bits = self.below(54);
        let number = self.next() & ((1 << bits) - 1);
        let sign = if self.one_in(2) { "-" } else { "" };
        match kind {
            "uInt32" | "uInt64" => number.to_string(),
            "sInt32" | "int32" | "sInt64" => format!("{sign}{number}"),
            "float" | "double" => match self.below(4) {
                0 => format!("{sign}{number}"),
                1 => format!("{sign}{}.5", number >> 20),
                _ => Some(f64::from_bits(self.next()))
                    .filter(|number| number.is_finite())
                    .map_or("0".to_owned(), |number| format!("{number:e}")),
            },
            "bool" => (*self.pick(&["true", "false", "1", "0"])).to_owned(),
            _ => {
                let texts = [
                    "",
                    "a",
                    "hello",
                    "世界",
                    "😀",
                    "\u{0}\u{1f}",
                    "a\"b\\c",
                    "\u{2028}",
                ];
                match self.below(12) {
                    0 => (*self.pick(&["\"\\ud83d\"", "\"\\ude00x\"", "\"\\ud83d\\ude00\\/\""]))
                        .to_owned(),
                    1 => format!("\"{}\"", "é".repeat(self.below(200))),
                    _ => {
                        let text = *self.pick(&texts);
                        self.quoted(text)
                    }
                }
            }
        }
    }

    /// Returns encoded bytes, in one piece or several, damaged or not; or any bytes.
    fn bytes_like(&mut self, good: &[&[u8]]) -> Vec<u8> {
        if good.is_empty() || self.one_in(8) {
            return (0..self.below(12)).map(|_| self.next() as u8).collect();
        }
        let mut bytes = Vec::new();
        for _ in 0..1 + self.below(3) {
            bytes.extend_from_slice(good[self.below(good.len())]);
        }
        for _ in 0..[0, 0, 1, 2][self.below(4)] {
            match (self.below(3), bytes.len()) {
                (_, 0) => {}
                (0, length) => bytes.truncate(self.below(length)),
                (1, length) => bytes[self.below(length)] ^= 1 << self.below(8),
                (_, length) => bytes.insert(self.below(length), self.next() as u8),
            }
        }
        bytes
    }
}
