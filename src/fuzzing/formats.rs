//! Formats: bytes that are read are written again, and the other way round.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde_json::Value;

use super::input::{Choices, Input};
use crate::client::check::ClientCheck;
use crate::client::coder::Protos;
use crate::client::handshake::HandshakeReplies;
use crate::config::{Config, Dialect};
use crate::limits::{PACKAGE_BODY_BYTES_MAX, PROTOBUF_JSON_BYTES_MAX};
use crate::route::dictionary::Dictionary;
use crate::wire::handshake::{FAILED, HandshakeRequest, REFUSED};
use crate::wire::message::{self, MessageKind};
use crate::wire::package;
use crate::wire::pomelo::admin;
use crate::wire::protobuf::{Flavour, ProtoDefinition, Schema};

/// Prefixes of one input that are tried: a longer input has that many at its front.
const PREFIXES_MAX: usize = 48;

/// Checks that a decoder of the front of an input stays with its answer when more bytes come: `None` waits, and any other
/// answer is that of each longer input, too.
pub(super) fn check_prefixes<'a, T: PartialEq + Debug>(
    input: &'a [u8],
    decode: impl Fn(&'a [u8]) -> Option<T>,
) {
    let whole = decode(input);
    for end in (0..input.len()).take(PREFIXES_MAX) {
        if let Some(early) = decode(&input[..end]) {
            assert_eq!(Some(&early), whole.as_ref(), "after {end} bytes");
        }
    }
}

/// A package is written as it was read, and is not read before its last byte is there.
pub fn package(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let body_bytes_max = input.below(1 << 16);
    let mut rest = input.rest();
    loop {
        check_prefixes(rest, |input| {
            let head = package::head(input, body_bytes_max);
            let head = head.map(|head| head.map(|(kind, bytes)| (kind as u8, bytes)));
            head.transpose()
        });
        match package::decode(rest, body_bytes_max) {
            Ok(Some(package)) => {
                assert!(package.body.len() <= body_bytes_max);
                let mut again = Vec::new();
                assert!(package::write(&mut again, package.kind, package.body));
                let used;
                (used, rest) = rest.split_at(package.bytes());
                assert_eq!(again, used);
            }
            Ok(None) => {
                let head = package::head(rest, body_bytes_max);
                let announced = head.expect("the head has no error").map(|(_, bytes)| bytes);
                assert!(announced.is_none_or(|bytes| rest.len() < package::HEAD_BYTES + bytes));
                return;
            }
            Err(error) => {
                let head = package::head(rest, body_bytes_max);
                return assert_eq!(head, Err(error));
            }
        }
    }
}

/// A message is read again as the same one after it was written, and no byte of its body changes its head.
pub fn message(bytes: &[u8]) {
    let Ok(message) = message::decode(bytes) else {
        return;
    };
    assert!(bytes.ends_with(message.body));
    let head = &bytes[..bytes.len() - message.body.len()];
    let without_body = message::decode(head).expect("its head is whole");
    assert_eq!(
        without_body,
        message::Message {
            body: b"",
            ..message
        }
    );

    let mut again = Vec::new();
    message::write(&mut again, &message).expect("its route came in one byte of length");
    assert_eq!(again.len(), message::len(&message));
    assert!(again.len() <= bytes.len(), "a varint grows");
    assert_eq!(message::decode(&again), Ok(message));

    let mut whole = Vec::new();
    match message.kind {
        MessageKind::Response => message::write_response(&mut whole, message.id, message.body),
        MessageKind::Push => {
            let push = message::push_package(message.route, message.body);
            whole = push.expect("it came in a package");
        }
        _ => return,
    }
    let package = package::decode(&whole, PACKAGE_BODY_BYTES_MAX);
    let package = package.expect("a package").expect("a whole one");
    let plain = message::Message {
        gzip: false,
        ..message
    };
    assert_eq!(message::decode(package.body), Ok(plain));
}

/// A handshake is taken if its JSON has a truthy `sys`, the reply is JSON of the same code, and a signed message is one
/// without its signature.
///
/// Shape: the flags of the configuration, a handshake, a byte 0, a message
pub fn handshake(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let flags = input.byte();
    let body = input.until(0);
    let message = input.rest();
    let has = |bit: u8| flags >> bit & 1 == 1;
    let mut config = Config::default();
    if has(0) {
        config.dialect = Dialect::Pinus;
    }
    config.client.use_dict = has(1);
    config.client.use_protobuf = has(2);
    config.client.use_crypto = has(3);
    let check = match has(4) {
        true => ClientCheck::parse(&["js-websocket >=0.0.1".to_owned()]).unwrap_or_default(),
        false => ClientCheck::default(),
    };
    let schema = Schema::parse(
        Flavour::Pomelo,
        &serde_json::json!({"onMove": {"required uInt32 x": 1}}),
    );
    let protos = Protos::new(schema.ok(), None);
    let dictionary = Dictionary::new(["connector.h.echo"], ["onMove"]);
    let replies = HandshakeReplies::new(&config, check, &dictionary, &protos);

    let tree = crate::wire::json::parse(body);
    let sys = tree.as_ref().and_then(|tree| tree.get("sys"));
    let is_request = sys.is_some_and(admin::is_truthy);
    let request = HandshakeRequest::parse(body);
    assert_eq!(request.is_some(), is_request);
    if let (Some(request), Some(sys)) = (&request, sys) {
        check_text(sys.get("type"), &request.client_type());
        check_text(sys.get("version"), &request.client_version());
        let version = |name: &str| sys.get(name).and_then(Value::as_str).map(str::to_owned);
        for (name, read) in [
            ("dictVersion", request.dict_version()),
            ("protoVersion", request.proto_version()),
        ] {
            // serde refuses a lone half of a surrogate pair, and a byte that is not UTF-8.
            assert!(read.is_none() || read == version(name), "{name}");
        }
    }
    match replies.examine(body, |_| true) {
        Ok(greeting) => {
            assert!(is_request);
            let reply = replies.reply(&greeting.request);
            let reply: Value = serde_json::from_slice(&reply).expect("the reply is JSON");
            assert_eq!(reply["code"], 200);
            assert!(reply["sys"].is_object());
            let signed = greeting.key.and_then(|key| key.verify(message));
            let signed = signed.map(|text| crate::wire::json::parse(&text));
            let is_whole = |tree: &Option<Value>| {
                let tree = tree.as_ref().and_then(Value::as_object);
                tree.is_some_and(|members| !members.contains_key("__crypto__"))
            };
            assert!(signed.as_ref().is_none_or(is_whole), "{signed:?}");
        }
        Err(refusal) => {
            assert!(is_request || refusal.body == FAILED);
            assert!([FAILED, REFUSED].contains(&refusal.body));
        }
    }
}

/// Checks the text of a member that may be a string.
fn check_text(member: Option<&Value>, read: &str) {
    match member {
        None => assert_eq!(read, ""),
        Some(Value::String(text)) if !text.contains('\u{fffd}') => assert_eq!(read, text),
        _ => {}
    }
}

/// Each route of a dictionary has a code that means this route, and the order of the handlers does not matter.
pub fn dictionary(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lists = text.splitn(2, "\n\n").map(|list| list.lines());
    let handlers: Vec<&str> = lists.next().into_iter().flatten().collect();
    let user: Vec<&str> = lists.next().into_iter().flatten().collect();
    let dictionary = Dictionary::new(handlers.iter().copied(), user.iter().copied());
    let turned = Dictionary::new(handlers.iter().rev().copied(), user.iter().copied());
    assert_eq!(dictionary.version(), turned.version());
    assert_eq!(dictionary.codes_json(), turned.codes_json());

    let routes: BTreeMap<String, u16> =
        serde_json::from_str(&dictionary.routes_json()).expect("the map of routes is JSON");
    let codes: BTreeMap<u16, String> =
        serde_json::from_str(&dictionary.codes_json()).expect("the map of codes is JSON");
    assert_eq!(
        codes.keys().copied().max().unwrap_or(0) as usize,
        codes.len()
    );
    assert!(codes.len() <= handlers.len() + user.len());
    for route in handlers.iter().chain(&user) {
        let code = dictionary.code(route).expect("there are few routes");
        assert_eq!(dictionary.route(code), Some(*route));
        assert_eq!(routes.get(*route), Some(&code));
    }
    for (code, route) in &codes {
        assert_eq!(dictionary.route(*code), Some(&**route));
    }
    assert_eq!(dictionary.route(0), None);
    assert_eq!(dictionary.route(codes.len() as u16 + 1), None);
}

/// JSON is read as serde reads it, a tree is printed as text of the same tree, and its parts are those of the text.
pub fn json(bytes: &[u8]) {
    use crate::wire::json;

    let text = String::from_utf8_lossy(bytes);
    let valid = json::validate(bytes);
    assert_eq!(json::validate(text.as_bytes()).is_ok(), valid.is_ok());
    assert!(valid.is_err_and(|error| error.at <= bytes.len()) || valid.is_ok());
    let is_deep = valid.is_err_and(|error| error.reason == "nested too deep");
    let by_serde = serde_json::from_str::<serde::de::IgnoredAny>(&text);
    assert!(
        is_deep || by_serde.is_ok() == valid.is_ok(),
        "{valid:?} and {by_serde:?}"
    );

    let tree = json::parse(bytes);
    assert_eq!(tree.is_some(), valid.is_ok());
    let _ = json::unescape(bytes);
    let mut with_code = Vec::new();
    json::with_error_code(&mut with_code, bytes);
    let Some(tree) = tree else {
        return assert_eq!(json::or_empty_object(bytes), b"{}");
    };
    let printed = print(&tree);
    assert_eq!(
        json::parse(&printed).map(|again| print(&again)),
        Some(printed.clone())
    );
    let by_serde: Value = serde_json::from_slice(&printed).expect("serde reads it");
    assert_eq!(print(&by_serde), printed);
    assert_eq!(json::trim(bytes).len(), trimmed_length(bytes));

    // A number beyond the doubles is null in the tree.
    if !matches!(tree, Value::Null) {
        assert_eq!(json::is_truthy(bytes), admin::is_truthy(&tree));
    }
    let with_code = json::parse(&with_code).expect("a code leaves it JSON");
    match &tree {
        Value::Array(items) => {
            let found = json::elements(bytes).expect("it is an array");
            let found = found.map(|item| json::parse(item.expect("it is valid")));
            assert_eq!(found.collect::<Option<Vec<Value>>>().as_ref(), Some(items));
            assert_eq!(with_code, tree);
        }
        Value::Object(members) => {
            let found = json::members(bytes).expect("it is an object");
            let found = found.map(|member| {
                let (name, value) = member.expect("it is valid");
                let value = json::parse(value).expect("it is valid");
                (json::unescape(name).into_owned(), value)
            });
            let found: BTreeMap<String, Value> = found.collect();
            assert_eq!(found.len(), members.len());
            assert!(
                found
                    .iter()
                    .all(|(name, value)| members.get(name) == Some(value))
            );
            let code = members.get("code").filter(|code| admin::is_truthy(code));
            assert!(code.is_none_or(|code| with_code["code"] == *code));
            assert!(
                with_code
                    .as_object()
                    .is_some_and(|it| it.contains_key("code"))
            );
        }
        _ => assert_eq!(with_code, tree),
    }
}

pub(super) fn print(tree: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    crate::wire::json::write_value(&mut out, tree);
    out
}

fn trimmed_length(text: &[u8]) -> usize {
    let is_space = |byte: &u8| b" \t\r\n".contains(byte);
    let start = text.iter().take_while(|byte| is_space(byte)).count();
    let end = text.iter().rev().take_while(|byte| is_space(byte)).count();
    text.len().saturating_sub(start + end)
}

/// See [`protobuf`].
pub fn protobuf_pomelo(bytes: &[u8]) {
    protobuf(Flavour::Pomelo, bytes);
}

/// See [`protobuf`].
pub fn protobuf_pinus(bytes: &[u8]) {
    protobuf(Flavour::Pinus, bytes);
}

/// A schema is refused or works: any body becomes JSON within its bound, and this text is the same after it was encoded and
/// decoded; any JSON becomes a body that is read again.
///
/// Shape: a JSON text of protos, a byte 0, the body of the route `r`
fn protobuf(flavour: Flavour, bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let protos = input.until(0);
    let body = input.rest();
    let Some(protos) = crate::wire::json::parse(protos) else {
        return;
    };
    let Ok(schema) = Schema::parse(flavour, &protos) else {
        return;
    };
    serde_json::from_str::<Value>(schema.parsed_json()).expect("clients can read the protos");
    let Some(proto) = schema.proto("r") else {
        return;
    };
    if let Some(text) = decoded(proto, body) {
        check_round_trip(proto, &text);
    }
    let mut out = Vec::new();
    match proto.encode(body, &mut out) {
        Ok(true) => {
            let text = decoded(proto, &out).expect("an encoded body is read again");
            check_round_trip(proto, &text);
        }
        Ok(false) | Err(_) => assert!(out.is_empty()),
    }
}

/// Decodes a body; the text is JSON as JavaScript would print it, within its bound.
fn decoded(proto: ProtoDefinition<'_>, body: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    proto.decode(body, &mut text).ok()?;
    assert!(text.len() <= PROTOBUF_JSON_BYTES_MAX);
    let tree = crate::wire::json::parse(&text).expect("it is JSON");
    assert_eq!(print(&tree), text);
    Some(text)
}

/// Checks that a text that was decoded is the same after it was encoded and decoded again, and the bytes of it, too.
///
/// As in JavaScript, of a whole number from 10^21 on only the digits before the `e` are read, so that two keys of a map
/// may become one. A text also differs where it has no value, or an empty list, which is not written.
fn check_round_trip(proto: ProtoDefinition<'_>, text: &[u8]) {
    let has = |part: &str| memchr::memmem::find(text, part.as_bytes()).is_some();
    let mut out = Vec::new();
    if has("e+") || proto.encode(text, &mut out) != Ok(true) {
        return;
    }
    let again = decoded(proto, &out).expect("an encoded body is read again");
    if !["null", "[]", "{}"].into_iter().any(has) {
        assert_eq!(
            String::from_utf8_lossy(&again),
            String::from_utf8_lossy(text)
        );
    }
    let mut last = Vec::new();
    if proto.encode(&again, &mut last) == Ok(true) {
        assert_eq!(last, out);
    }
}
