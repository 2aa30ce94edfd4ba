use proptest::prelude::*;
use serde_json::{Value, json};

use super::{DecodeError, Flavour, ProtoEncodeError, Schema};
use crate::limits::{
    PROTOBUF_DEPTH_MAX, PROTOBUF_ELEMENTS_MAX, PROTOBUF_FIELDS_MAX, PROTOBUF_JSON_BYTES_MAX,
};
use crate::wire::json as text;

fn schema(flavour: Flavour, protos: Value) -> Schema {
    Schema::parse(flavour, &protos).unwrap()
}

/// A schema with all there is; a `Node` may have others inside.
fn everything(flavour: Flavour) -> Schema {
    let mut route = json!({
        "message Point": {"required sInt32 x": 1, "optional double y": 2},
        "optional uInt32 u": 1, "optional sInt32 s": 2, "optional float f": 3,
        "optional double d": 4, "optional string t": 5, "optional Point p": 6,
        "repeated uInt32 us": 7, "repeated string ts": 8, "repeated Point ps": 9,
        "optional Node n": 10, "repeated uInt64 none": 2000,
    });
    if flavour == Flavour::Pinus {
        let pinus = json!({
            "message KV": {"required string key": 1, "required Point value": 2},
            "optional bool b": 11, "repeated bool bs": 12, "map KV m": 13, "obj KV o": 14,
        });
        route
            .as_object_mut()
            .unwrap()
            .extend(pinus.as_object().unwrap().clone());
    }
    let node = json!({"optional Node n": 1, "repeated Node ns": 2, "optional string 7": 3});
    schema(flavour, json!({"route": route, "message Node": node}))
}

fn encode(schema: &Schema, body: &str) -> Result<Option<Vec<u8>>, ProtoEncodeError> {
    let mut out = Vec::new();
    let written = schema
        .proto("route")
        .unwrap()
        .encode(body.as_bytes(), &mut out)
        .map_err(|bad| bad.error)?;
    assert_eq!(written, !out.is_empty());
    Ok(written.then_some(out))
}

fn decode(schema: &Schema, bytes: &[u8]) -> Result<String, DecodeError> {
    let mut out = Vec::new();
    schema.proto("route").unwrap().decode(bytes, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_schema_that_cannot_work_is_refused_with_its_place() {
    let refused = |protos: Value| {
        Schema::parse(Flavour::Pinus, &protos)
            .unwrap_err()
            .to_string()
    };
    for (protos, error) in [
        (json!([]), "the protos are an object of definitions"),
        (json!({"r": 1}), "message `r`: a definition is an object"),
        (
            json!({"r": {"message A": {"required uInt32 x": "one"}}}),
            "message `r.A`, field `required uInt32 x`: a tag is a whole number below 2^28",
        ),
        (
            json!({"r": {"required uInt32 x": 1 << 28}}),
            "message `r`, field `required uInt32 x`: a tag is a whole number below 2^28",
        ),
        (
            json!({"r": {"required uInt32 __tags": 1}}),
            "message `r`, field `required uInt32 __tags`: not a name for a field",
        ),
        (
            json!({"message string": {}}),
            "message `message string`: a type of this name is built in",
        ),
        (
            json!({"r": {"message KV": {"required string key": 1}, "map KV m": 1}}),
            "message `r`, field `map KV m`: its type needs the fields `key` and `value` of known types",
        ),
    ] {
        assert_eq!(refused(protos), error);
    }
    let mut deep = json!({});
    for _ in 0..PROTOBUF_DEPTH_MAX {
        deep = json!({ "message A": deep });
    }
    assert!(refused(json!({ "r": deep })).ends_with("definitions nest too deep"));
    let wide = (0..=PROTOBUF_FIELDS_MAX).map(|n| (format!("optional bool f{n}"), json!(n)));
    let wide: Value = wide.collect::<serde_json::Map<_, _>>().into();
    assert!(refused(json!({ "r": wide })).ends_with("too many fields"));
}

#[test]
fn a_definition_that_the_reference_leaves_out_or_cannot_find_is_a_doubt() {
    let protos = json!({"r": {"optional uInt32 a": 1, "optional uInt32 b": 1, "note": "x",
        "optional Gone c": 2, "map K m": 3}});
    let schema = schema(Flavour::Pomelo, protos);
    let doubts: Vec<_> = schema.doubts().iter().map(ToString::to_string).collect();
    assert_eq!(
        doubts,
        [
            "message `r`, field `optional uInt32 b`: left out: the tag is in use",
            "message `r`, field `note`: left out: not `option type name` with a tag",
            "message `r`, field `map K m`: left out: not `option type name` with a tag",
            "message `r`, field `optional Gone c`: a type that does not exist",
        ]
    );
    assert!(schema.proto("other").is_none());
}

#[test]
fn a_missing_field_goes_before_a_value_that_cannot_be_written() {
    let protos = json!({"route": {"required uInt32 a": 1, "required uInt32 b": 2}});
    let schema = schema(Flavour::Pomelo, protos);
    assert_eq!(encode(&schema, r#"{"a":-1}"#), Ok(None));
    assert_eq!(
        encode(&schema, r#"{"a":-1,"b":1}"#),
        Err(ProtoEncodeError::Negative)
    );
    assert_eq!(
        encode(&schema, r#"{"a":"x","b":1}"#),
        Err(ProtoEncodeError::NotAnInteger)
    );
    assert!(matches!(
        encode(&schema, r#"{"a":1,"b":1"#),
        Err(ProtoEncodeError::Json(_))
    ));
}

#[test]
fn elements_of_numbers_that_pomelo_does_not_have_are_counted_only() {
    let pomelo = everything(Flavour::Pomelo);
    assert_eq!(
        encode(&pomelo, r#"{"none":[1]}"#),
        Err(ProtoEncodeError::NoSuchType)
    );
    // 2000 << 3 | 2 and the count.
    let head = [0x82, 0x7d];
    let three = decode(&pomelo, &[&head[..], &[3]].concat());
    assert_eq!(three.as_deref(), Ok(r#"{"none":[null,null,null]}"#));
    let mut many = head.to_vec();
    crate::wire::varint::write(&mut many, PROTOBUF_ELEMENTS_MAX as u32 + 1);
    assert_eq!(decode(&pomelo, &many), Err(DecodeError::TooMany));
}

#[test]
fn members_stand_where_javascript_has_them() {
    let pinus = everything(Flavour::Pinus);
    let bytes = encode(&pinus, r#"{"u":1,"t":"a","us":[1,2],"n":{"n":{},"7":"x"}}"#);
    let mut bytes = bytes.unwrap().unwrap();
    let first = r#"{"u":1,"t":"a","us":[1,2],"n":{"7":"x","n":{}}}"#;
    assert_eq!(decode(&pinus, &bytes).as_deref(), Ok(first));
    bytes.extend(
        encode(&pinus, r#"{"us":[3],"s":-1,"u":2}"#)
            .unwrap()
            .unwrap(),
    );
    let both = r#"{"u":2,"t":"a","us":[1,2,3],"n":{"7":"x","n":{}},"s":-1}"#;
    assert_eq!(decode(&pinus, &bytes).as_deref(), Ok(both));
    // `n` in front of `7`.
    let node = [0x52, 5, 0x0a, 0, 0x1a, 1, b'x'];
    let sorted = r#"{"n":{"7":"x","n":{}}}"#;
    assert_eq!(decode(&pinus, &node).as_deref(), Ok(sorted));
}

#[test]
fn messages_that_nest_too_deep_are_an_error() {
    let pomelo = everything(Flavour::Pomelo);
    let nested = |depth: usize| format!("{}{}", "{\"n\":".repeat(depth), "{}") + &"}".repeat(depth);
    let deepest = nested(PROTOBUF_DEPTH_MAX - 1);
    let bytes = encode(&pomelo, &deepest).unwrap().unwrap();
    assert_eq!(decode(&pomelo, &bytes), Ok(deepest));
    assert_eq!(
        encode(&pomelo, &nested(PROTOBUF_DEPTH_MAX)),
        Err(ProtoEncodeError::TooDeep)
    );
    // Each level claims all bytes up to the end.
    let mut bytes = vec![10 << 3, 0xff, 0x7f];
    bytes.extend([1 << 3, 0xff, 0x7f].repeat(PROTOBUF_DEPTH_MAX));
    assert_eq!(decode(&pomelo, &bytes), Err(DecodeError::TooDeep));
}

#[test]
fn text_that_grows_too_long_is_an_error() {
    let long = "x".repeat(1 << 16);
    let message = json!({ format!("repeated uInt32 {long}"): 1 });
    let protos = json!({"route": {"message A": message, "repeated A list": 1}});
    let schema = schema(Flavour::Pomelo, protos);
    // A message that has an empty list and a long name for it.
    let element = [0x0a, 2, 8, 0];
    let fits = decode(&schema, &element.repeat(200)).unwrap();
    assert!(fits.len() > 200 << 16 && fits.len() <= PROTOBUF_JSON_BYTES_MAX);
    let too_many = element.repeat(300);
    assert_eq!(decode(&schema, &too_many), Err(DecodeError::TooLong));
}

/// JSON that has much to do with the schema of [`everything`].
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[0-9a-z\u{1f600}\"\\\\]{0,6}".prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "u", "s", "f", "d", "t", "p", "us", "ts", "ps", "n", "ns", "none", "b", "bs", "m", "o",
        "x", "y", "7", "unknown",
    ]);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..8).prop_map(|members| members
                .into_iter()
                .map(|(n, v)| (n.to_owned(), v))
                .collect()),
        ]
    })
}

fn flavour() -> impl Strategy<Value = Flavour> {
    prop_oneof![Just(Flavour::Pomelo), Just(Flavour::Pinus)]
}

prop_compose! {
    fn good_point()(x in any::<i32>(), y in any::<f64>()) -> Value {
        json!({"x": x, "y": y})
    }
}

prop_compose! {
    fn good_body()(
        u in any::<u32>(), s in -(1_i64 << 51)..1 << 51, f in any::<f32>(), t in ".{0,80}",
        us in prop::collection::vec(0..1_u64 << 53, 1..200),
        ts in prop::collection::vec(".{0,9}", 1..5),
        ps in prop::collection::vec(good_point(), 1..20),
        m in prop::collection::btree_map("[a-z]{1,5}", good_point(), 1..5),
    ) -> Value {
        json!({"ts": ts, "u": u, "s": s, "f": f, "t": t, "us": us, "ps": ps, "m": m.clone(), "o": m})
    }
}

/// Content of a file of protos, valid or not.
fn any_definition() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "required uInt32 x",
        "optional string y",
        "repeated sInt32 xs",
        "repeated string ys",
        "optional A a",
        "required B b",
        "repeated A as",
        "map A m",
        "obj B o",
        "optional Gone g",
        "required string key",
        "required uInt32 value",
        "optional double d",
        "optional A key",
        "message A",
        "message B",
        "message uInt32",
        "message",
        "optional bool",
        "  ",
        "__tags",
        "optional float __messages",
    ]);
    let leaf = prop_oneof![
        8 => (0_u64..9).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => Just(json!("1")),
        1 => Just(json!([])),
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        prop::collection::vec((key.clone(), inner), 0..9).prop_map(|members| {
            let named = members.into_iter().map(|(name, value)| {
                let is_message = name.starts_with("message");
                let value = if is_message == value.is_object() {
                    value
                } else {
                    json!(is_message)
                };
                (name.to_owned(), value)
            });
            named.filter(|(_, value)| !value.is_boolean()).collect()
        })
    })
}

proptest! {
    #[test]
    fn any_bytes_become_json_or_an_error(
        flavour in flavour(),
        bytes in prop::collection::vec(prop_oneof![0_u8..128, any::<u8>()], 0..200),
    ) {
        let schema = everything(flavour);
        if let Ok(body) = decode(&schema, &bytes) {
            // `JSON.stringify` would print it the same.
            let mut printed = Vec::new();
            text::write_value(&mut printed, &text::parse(body.as_bytes()).unwrap());
            prop_assert_eq!(body.as_bytes(), &printed[..]);
        }
    }

    #[test]
    fn any_json_becomes_bytes_that_are_read_again(flavour in flavour(), body in any_json()) {
        let schema = everything(flavour);
        if let Ok(Some(bytes)) = encode(&schema, &body.to_string()) {
            prop_assert!(decode(&schema, &bytes).is_ok());
        }
    }

    #[test]
    fn any_text_is_encoded_or_an_error(body in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut out = Vec::new();
        let schema = everything(Flavour::Pinus);
        let written = schema.proto("route").unwrap().encode(&body, &mut out);
        prop_assert_eq!(written == Ok(true), !out.is_empty());
    }

    #[test]
    fn a_body_that_fits_the_schema_is_read_as_it_was_written(body in good_body()) {
        let schema = everything(Flavour::Pinus);
        let mut printed = Vec::new();
        text::write_value(&mut printed, &body);
        let printed = String::from_utf8(printed).unwrap();
        let bytes = encode(&schema, &printed).unwrap().unwrap();
        prop_assert_eq!(decode(&schema, &bytes), Ok(printed));
    }
}

#[test]
fn a_value_that_cannot_be_written_names_its_field() {
    let protos = json!({
        "route": {
            "message P": {"optional uInt32 n": 1},
            "optional string s": 1,
            "repeated P path": 2,
            "repeated sInt32 nums": 3,
        },
    });
    let schema = Schema::parse(Flavour::Pomelo, &protos).unwrap();
    let said = |body: &str| {
        let proto = schema.proto("route").unwrap();
        let bad = proto.encode(body.as_bytes(), &mut Vec::new()).unwrap_err();
        bad.to_string()
    };
    assert_eq!(said(r#"{"s":1}"#), "field `s`: the value is not a string");
    assert_eq!(
        said(r#"{"path":[{"n":1},{"n":-1}]}"#),
        "field `n`: the value is negative"
    );
    assert_eq!(
        said(r#"{"s":"","nums":[1,"x"]}"#),
        "field `nums`: the value is not an integer"
    );
    assert_eq!(said("{"), "the body is not JSON");
}

proptest! {
    #[test]
    fn any_schema_is_refused_or_works(
        flavour in flavour(), route in any_definition(), a in any_definition(), b in any_definition(),
        body in any_json(), bytes in prop::collection::vec(prop_oneof![0_u8..40, any::<u8>()], 0..60),
    ) {
        let protos = json!({"route": route, "message A": a, "message B": b});
        if let Ok(schema) = Schema::parse(flavour, &protos) {
            prop_assert!(text::validate(schema.parsed_json().as_bytes()).is_ok());
            let _ = (encode(&schema, &body.to_string()), decode(&schema, &bytes));
        }
    }
}
