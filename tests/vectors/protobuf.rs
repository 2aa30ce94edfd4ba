//! Protobuf against what the reference's own packages made.

use serde::Deserialize;
use serde_json::{Map, Value};
use tangelo::wire::json;
use tangelo::wire::protobuf::{Flavour, ProtoDefinition, Schema, version};

use super::differences::{Differences, Failures, Tangelo};
use super::file::{Hex, cases};

#[derive(Deserialize)]
struct Case {
    name: String,
    op: String,
    /// Of the one case that has all schemas.
    schemas: Option<Value>,
    parsed_json: Option<String>,
    #[serde(default)]
    schema: String,
    msg: Option<Value>,
    hex: Option<Hex>,
    hex_with_encoder_cache: Option<Hex>,
    decoded: Option<Value>,
    /// There and `null`: the message was found incomplete.
    #[serde(default, deserialize_with = "present")]
    decoded_with_decode_check: Option<Value>,
    throws: Option<String>,
}

/// The result of coding a body.
#[derive(Debug, PartialEq)]
enum Outcome<T> {
    Is(T),
    Empty,
    Fails,
}

#[test]
fn bodies_of_pomelo_have_the_bytes_of_the_reference() {
    let text = include_str!("client/protobuf-pomelo.json");
    bodies("protobuf-pomelo", Flavour::Pomelo, text);
}

#[test]
fn bodies_of_pinus_have_the_bytes_of_the_reference() {
    let text = include_str!("client/protobuf-pinus.json");
    bodies("protobuf-pinus", Flavour::Pinus, text);
}

fn bodies(file: &str, flavour: Flavour, text: &str) {
    let (differences, mut failures) = (Differences::of(file, None), Failures::default());
    let text = text.replace("decoded_with_decodeCheckMsg", "decoded_with_decode_check");
    let cases = cases::<Case>(&text);
    let schemas = cases.iter().find_map(|case| case.schemas.as_ref());
    let schema = Schema::parse(flavour, schemas.expect("a case with schemas")).unwrap();
    for case in &cases {
        let difference = differences.find(&case.name);
        let what = difference.map(|row| row.tangelo);
        assert!(matches!(
            what,
            None | Some(Tangelo::WritesAll | Tangelo::MapIsObject)
        ));
        if let Some(parsed) = &case.parsed_json {
            failures.check(&case.name, &schema.parsed_json(), &&**parsed, difference);
            continue;
        }
        let proto = schema.proto(&case.schema).expect("a schema of the file");
        let mut bytes = case.hex.clone();
        if case.op == "encode" {
            let message = printed(case.msg.as_ref().expect("an encode case has a message"));
            let got = encode(proto, &message);
            let expected = match (&case.hex, &case.throws) {
                _ if what == Some(Tangelo::WritesAll) => {
                    let Outcome::Is(Hex(bytes)) = &got else {
                        panic!("{}: nothing is written", case.name);
                    };
                    assert_eq!(decode(proto, bytes), Outcome::Is((message, true)));
                    let all = case.hex_with_encoder_cache.as_ref();
                    Outcome::Is(all.cloned().unwrap_or(Hex(bytes.clone())))
                }
                (Some(bytes), None) => Outcome::Is(bytes.clone()),
                (None, None) => Outcome::Empty,
                (None, Some(_)) => Outcome::Fails,
                _ => panic!("{}: bytes or an error", case.name),
            };
            failures.check(&case.name, &got, &expected, difference);
        } else {
            assert_eq!(case.op, "decode");
            bytes = bytes.or_else(|| panic!("{}: no bytes", case.name));
        }
        // An encoded body has to be decoded as well.
        let Some(Hex(bytes)) = bytes else { continue };
        let got = decode(proto, &bytes);
        let expected = match (&case.decoded, &case.throws) {
            (Some(value), None) => {
                let complete = case.decoded_with_decode_check.is_none();
                Outcome::Is((printed(value), complete))
            }
            (None, Some(_)) => Outcome::Fails,
            _ => panic!("{}: a value or an error", case.name),
        };
        failures.check(
            &format!("{} (read)", case.name),
            &got,
            &expected,
            difference,
        );
    }
    differences.all_used();
    failures.none();
}

fn encode(proto: ProtoDefinition<'_>, message: &str) -> Outcome<Hex> {
    let mut out = b"before".to_vec();
    let result = proto.encode(message.as_bytes(), &mut out);
    let bytes = out
        .strip_prefix(b"before")
        .expect("the text before the value stays")
        .to_vec();
    match result {
        Ok(true) => Outcome::Is(Hex(bytes)),
        Ok(false) if bytes.is_empty() => Outcome::Empty,
        Err(_) if bytes.is_empty() => Outcome::Fails,
        _ => panic!("something is left behind: {bytes:?}"),
    }
}

/// The text, and whether all required fields are there.
fn decode(proto: ProtoDefinition<'_>, bytes: &[u8]) -> Outcome<(String, bool)> {
    let mut out = b"before".to_vec();
    let result = proto.decode(bytes, &mut out);
    let text = String::from_utf8(out).unwrap();
    let text = text
        .strip_prefix("before")
        .expect("the text before the value stays");
    match result {
        Ok(complete) => Outcome::Is((text.to_owned(), complete)),
        Err(_) if text.is_empty() => Outcome::Fails,
        Err(_) => panic!("something is left behind: {text}"),
    }
}

/// The text of a value of the file. There a `Map` is `{"__map__":[[key,value],…]}`.
fn printed(value: &Value) -> String {
    fn plain(value: &Value) -> Value {
        let Some(object) = value.as_object() else {
            return value.clone();
        };
        let members: Map<_, _> = match object.get("__map__").and_then(Value::as_array) {
            Some(pairs) => {
                let pair = |pair: &Value| (pair[0].as_str().unwrap().to_owned(), pair[1].clone());
                pairs.iter().map(pair).collect()
            }
            None => object
                .iter()
                .map(|(name, value)| (name.clone(), plain(value)))
                .collect(),
        };
        Value::Object(members)
    }
    let mut out = Vec::new();
    json::write_value(&mut out, &plain(value));
    String::from_utf8(out).unwrap()
}

fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

#[derive(Deserialize)]
struct VersionCase {
    name: String,
    client_protos: Option<Value>,
    server_protos: Option<Value>,
    hashed_text: Option<String>,
    version: String,
}

#[test]
fn versions_are_those_of_the_reference() {
    for case in cases::<VersionCase>(include_str!("client/protobuf-version.json")) {
        let parse = |protos: Option<Value>| {
            let protos = protos?;
            Some(Schema::parse(Flavour::Pomelo, &protos).expect("the schema of a case"))
        };
        let (client, server) = (parse(case.client_protos), parse(case.server_protos));
        let hashed = [&client, &server].map(|schema| schema.as_ref().map(Schema::parsed_json));
        let hashed =
            (hashed != [None; 2]).then(|| hashed.map(|text| text.unwrap_or("{}")).concat());
        assert_eq!(hashed, case.hashed_text, "{}", case.name);
        let version = version(client.as_ref(), server.as_ref());
        assert_eq!(version, case.version, "{}", case.name);
    }
}
