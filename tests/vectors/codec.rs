//! Package, message and dictionary against what the reference's own encoders and decoders made.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tangelo::limits::PACKAGE_BODY_BYTES_MAX;
use tangelo::route::dictionary::Dictionary;
use tangelo::wire::message::{self, Message, MessageKind, MessageRoute};
use tangelo::wire::package;

use super::differences::{Differences, Failures, Tangelo};
use super::file::{Hex, cases};

#[derive(Deserialize)]
struct PackageCase {
    name: String,
    op: String,
    #[serde(default, rename = "type")]
    kind: u8,
    body_hex: Option<Hex>,
    body_repeat: Option<Repeat>,
    hex: Option<Hex>,
    header_hex: Option<Hex>,
    #[serde(default)]
    total_len: usize,
    #[serde(default)]
    packages: Vec<RawPackage>,
}

#[derive(Deserialize)]
struct Repeat {
    repeat: Hex,
    n: usize,
}

/// A package of a decoded list. The reference has no body where it is empty.
#[derive(Debug, PartialEq, Deserialize)]
struct RawPackage {
    #[serde(rename = "type")]
    kind: u8,
    body_hex: Option<Hex>,
}

#[test]
fn packages_have_the_bytes_of_the_reference() {
    packages("package", include_str!("client/package.json"));
    packages("package-pinus", include_str!("client/package-pinus.json"));
}

fn packages(file: &str, text: &str) {
    let (differences, mut failures) = (Differences::of(file, None), Failures::default());
    for case in cases::<PackageCase>(text) {
        let difference = differences.find(&case.name);
        if case.op == "encode" {
            let (got, expected) = encode_package(&case);
            failures.check(&case.name, &got, &expected, difference);
        } else {
            let got = decode_packages(&case.hex.expect("a decode case has bytes").0);
            let expected = match difference.map(|row| row.tangelo) {
                Some(what) => Err(what),
                None => Ok(case.packages),
            };
            failures.check(&case.name, &got, &expected, difference);
        }
    }
    differences.all_used();
    failures.none();
}

fn encode_package(case: &PackageCase) -> (Hex, Hex) {
    let body = match (&case.body_hex, &case.body_repeat) {
        (Some(body), None) => body.0.clone(),
        (None, Some(Repeat { repeat, n })) => repeat.0.repeat(*n),
        _ => panic!("{}: one body", case.name),
    };
    let expected = match (&case.hex, &case.header_hex) {
        (Some(whole), None) => whole.0.clone(),
        (None, Some(head)) => [&head.0[..], &body].concat(),
        _ => panic!("{}: one expectation", case.name),
    };
    assert!(case.total_len == 0 || case.total_len == expected.len());
    // The kind of this number, by way of the decoder.
    let (kind, _) = package::head(&[case.kind, 0, 0, 0], 0).unwrap().unwrap();
    let mut got = Vec::new();
    assert!(package::write(&mut got, kind, &body), "{}", case.name);
    (Hex(got), Hex(expected))
}

fn decode_packages(mut input: &[u8]) -> Result<Vec<RawPackage>, Tangelo> {
    let mut packages = Vec::new();
    while !input.is_empty() {
        let package = package::decode(input, PACKAGE_BODY_BYTES_MAX);
        let package = package.or(Err(Tangelo::Refuses))?;
        let package = package.ok_or(Tangelo::Waits)?;
        packages.push(RawPackage {
            kind: package.kind as u8,
            body_hex: Some(Hex(package.body.to_vec())).filter(|body| !body.0.is_empty()),
        });
        input = &input[package.bytes()..];
    }
    Ok(packages)
}

#[derive(Deserialize)]
struct MessageCase {
    name: String,
    op: String,
    id: i64,
    #[serde(rename = "type")]
    kind: u8,
    compress_route: u8,
    route: Value,
    body_hex: Hex,
    gzip: bool,
    hex: Option<Hex>,
    error: Option<String>,
}

#[test]
fn messages_have_the_bytes_of_the_reference() {
    let (differences, mut failures) = (Differences::of("message", None), Failures::default());
    for case in cases::<MessageCase>(include_str!("client/message.json")) {
        let difference = differences.find(&case.name);
        let what = difference.map(|row| row.tangelo);
        let name = format!("{} {}", case.op, case.name);
        if case.op == "encode" {
            let got = match encode_message(&case) {
                Some(Ok(bytes)) => Ok(bytes),
                Some(Err(error)) => Err(Encoded::Error(error.text().to_owned())),
                None => Err(Encoded::Differs(Tangelo::CannotSay)),
            };
            let expected = match (what, &case.hex, &case.error) {
                (Some(Tangelo::WritesBare), None, Some(_)) => {
                    Ok(Hex([&[case.kind << 1][..], &case.body_hex.0].concat()))
                }
                (Some(what), ..) => Err(Encoded::Differs(what)),
                (None, Some(bytes), None) => Ok(bytes.clone()),
                (None, None, Some(error)) => Err(Encoded::Error(error.clone())),
                _ => panic!("{name}: bytes or an error"),
            };
            failures.check(&name, &got, &expected, difference);
        } else {
            let bytes = &case.hex.as_ref().expect("a decode case has bytes").0;
            let got = message::decode(bytes).map(fields).or(Err(Tangelo::Refuses));
            let expected = match what {
                Some(what) => Err(what),
                None => Ok(Fields {
                    id: case.id,
                    kind: case.kind,
                    compressed: case.compress_route == 1,
                    route: case.route,
                    gzip: case.gzip,
                    body: case.body_hex,
                }),
            };
            failures.check(&name, &got, &expected, difference);
        }
    }
    differences.all_used();
    failures.none();
}

/// Why a message was not encoded.
#[derive(Debug, PartialEq)]
enum Encoded {
    Error(String),
    Differs(Tangelo),
}

/// `None` where no value of [`Message`] says what the case wants to say.
fn encode_message(case: &MessageCase) -> Option<Result<Hex, message::EncodeError>> {
    let route = match (case.compress_route, &case.route) {
        (0, Value::Null) => MessageRoute::None,
        (0, Value::String(text)) => MessageRoute::Text(text.as_bytes()),
        (1, code) => MessageRoute::Code(u16::try_from(code.as_u64()?).ok()?),
        other => panic!("{}: {other:?}", case.name),
    };
    let message = Message {
        id: u32::try_from(case.id).ok()?,
        kind: match case.kind {
            0 => MessageKind::Request,
            1 => MessageKind::Notify,
            2 => MessageKind::Response,
            3 => MessageKind::Push,
            other => MessageKind::Undefined(other),
        },
        route,
        gzip: case.gzip,
        body: &case.body_hex.0,
    };
    let mut out = Vec::new();
    Some(message::write(&mut out, &message).map(|()| {
        assert_eq!(out.len(), message::len(&message), "{}", case.name);
        Hex(out)
    }))
}

/// A decoded message in the words of the file.
#[derive(Debug, PartialEq)]
struct Fields {
    id: i64,
    kind: u8,
    compressed: bool,
    route: Value,
    gzip: bool,
    body: Hex,
}

fn fields(message: Message<'_>) -> Fields {
    Fields {
        id: message.id.into(),
        kind: message.kind.number(),
        compressed: matches!(message.route, MessageRoute::Code(_)),
        route: match message.route {
            MessageRoute::None => Value::Null,
            MessageRoute::Text(text) => String::from_utf8_lossy(text).into(),
            MessageRoute::Code(code) => code.into(),
        },
        gzip: message.gzip,
        body: Hex(message.body.to_vec()),
    }
}

#[derive(Deserialize)]
struct DictionaryCase {
    name: String,
    /// Server type → handler → methods; `None`: a type without handlers.
    handlers: BTreeMap<String, Option<BTreeMap<String, Vec<String>>>>,
    user_dictionary: Option<Vec<String>>,
    dict_json: String,
    code_to_route: BTreeMap<u16, String>,
    version: String,
}

#[test]
fn dictionaries_have_the_codes_and_versions_of_the_reference() {
    for case in cases::<DictionaryCase>(include_str!("client/dictionary.json")) {
        let name = &case.name;
        let mut routes = Vec::new();
        for (server_type, handlers) in &case.handlers {
            for (handler, methods) in handlers.iter().flatten() {
                let route = |method| format!("{server_type}.{handler}.{method}");
                routes.extend(methods.iter().map(route));
            }
        }
        let user = case
            .user_dictionary
            .map_or(Cow::Borrowed(&[][..]), Cow::Owned);
        let dictionary = Dictionary::new(
            routes.iter().map(String::as_str),
            user.iter().map(String::as_str),
        );
        assert_eq!(dictionary.routes_json(), case.dict_json, "{name}");
        assert_eq!(dictionary.version(), case.version, "{name}");
        for (code, route) in &case.code_to_route {
            assert_eq!(dictionary.route(*code), Some(&**route), "{name}: {code}");
        }
        let after = case.code_to_route.len() as u16 + 1;
        assert_eq!((dictionary.route(0), dictionary.route(after)), (None, None));
    }
}
