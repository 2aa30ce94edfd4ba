//! The promises of [`super`].

use proptest::prelude::*;
use serde_json::json;

use super::scan::skip_plain;
use super::*;
use crate::limits::JSON_DEPTH_MAX;

const VALID: &[&str] = &[
    "0",
    "-0",
    "-0.5e-7",
    "1E+3",
    "12.50",
    "1e999",
    "true",
    "false",
    "null",
    "\"\"",
    "[]",
    "{}",
    " \t\r\n[ ] \n",
    "{ \"a\" : [ 1 , { } , \"x\" ] , \"a\" : null }",
    "[[],[[]],{\"\":{\"\":[]}}]",
    r#""\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00""#,
    r#""a lone surrogate \ud800 and \uDFFF\ud800\u0041 are text to JavaScript""#,
    "\"long enough for the wide steps, \u{7f}\u{2028} stand as they are, \u{e9}\u{1f600}\"",
    "{\"route\":\"chat.chatHandler.send\",\"n\":[1,-2.5,3e2],\"ok\":true,\"no\":null}",
];

const INVALID: &[&str] = &[
    "",
    " ",
    "\u{feff}{}",
    "\u{a0}1",
    "\u{b}1",
    "01",
    "-",
    "-a",
    "+1",
    ".5",
    "1.",
    "1.e3",
    "1e",
    "1e+",
    "--1",
    "0x10",
    "1 2",
    "NaN",
    "Infinity",
    "undefined",
    "tru",
    "truee",
    "nul",
    "True",
    "'a'",
    "\"",
    "\"a",
    "\"\t\"",
    "\"0123456789\n\"",
    "\"\0\"",
    r#""\x41""#,
    r#""\u12g4""#,
    r#""\u+123""#,
    r#""\u123""#,
    r#""\"#,
    "[",
    "]",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "[,]",
    "[1 2]",
    "[1}",
    "{]",
    "{",
    "}",
    "{,}",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1",
    "{\"a\":1,",
    "{\"a\":1,}",
    "{\"a\" 1}",
    "{a:1}",
    "{1:1}",
    "{\"a\":1]",
    "{\"a\":1}}",
    "[]]",
    "{}{}",
    "[1]x",
    "// a\n1",
    "\0",
    "1\0",
];

fn printed(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

fn reprinted(text: &str) -> String {
    printed(|out| write_value(out, &parse(text.as_bytes()).unwrap()))
}

fn nested(depth: usize) -> String {
    let half = depth / 2;
    let (open, close) = ("{\"a\":[".repeat(half), "]}".repeat(half));
    if depth % 2 == 1 {
        format!("[{open}{close}]")
    } else {
        format!("{open}{close}")
    }
}

#[test]
fn accepts_what_javascript_accepts() {
    for text in VALID {
        assert_eq!(validate(text.as_bytes()), Ok(()), "{text}");
        assert!(parse(text.as_bytes()).is_some(), "{text}");
    }
}

#[test]
fn refuses_what_javascript_refuses() {
    for text in INVALID {
        let error = validate(text.as_bytes()).unwrap_err();
        assert!(error.at <= text.len(), "{text}: {error:?}");
        assert_eq!(parse(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn names_the_byte_that_does_not_fit() {
    for (text, at) in [
        ("", 0),
        ("[1,]", 3),
        ("{\"a\":1}}", 7),
        ("\"ab\ncdefgh\"", 3),
        ("[tru]", 1),
    ] {
        assert_eq!(validate(text.as_bytes()).unwrap_err().at, at, "{text}");
    }
}

#[test]
fn any_byte_outside_ascii_is_text_inside_a_string_only() {
    assert_eq!(validate(b"\"\xff\xc3\""), Ok(()));
    assert_eq!(validate(b"[\"\xed\xa0\xbd\xed\xb8\x80\"]"), Ok(()));
    assert_eq!(parse(b"\"a\xc3\""), Some(json!("a\u{fffd}")));
    assert!(validate(b"\xff").is_err());
    assert!(validate(b"[1\xc2\xa0]").is_err());
    assert!(validate(b"\xef\xbb\xbf{}").is_err());
}

#[test]
fn nesting_is_bounded() {
    for depth in [
        1,
        63,
        64,
        65,
        127,
        128,
        129,
        JSON_DEPTH_MAX - 1,
        JSON_DEPTH_MAX,
    ] {
        let text = nested(depth);
        assert_eq!(validate(text.as_bytes()), Ok(()), "{depth}");
        assert_eq!(reprinted(&text), text);
    }
    let text = nested(JSON_DEPTH_MAX + 1);
    assert_eq!(
        validate(text.as_bytes()).unwrap_err().at,
        text.find("[]").unwrap()
    );
    assert!(validate("[".repeat(1 << 20).as_bytes()).is_err());
    assert_eq!(parse("{\"a\":".repeat(1 << 20).as_bytes()), None);
}

#[test]
fn a_cut_text_is_never_valid_and_never_panics() {
    for text in VALID {
        let bytes = text.as_bytes();
        for cut in 0..=bytes.len() {
            everything(&bytes[..cut]);
            everything(&bytes[cut..]);
            // A number or an already closed value may stand alone.
            if bytes.first().is_some_and(|first| b"[{\"".contains(first)) && cut < bytes.len() {
                assert!(validate(&bytes[..cut]).is_err(), "{text} cut at {cut}");
            }
        }
    }
}

#[test]
fn a_body_that_is_not_json_becomes_an_empty_object() {
    assert_eq!(or_empty_object(b"{\"a\":1}"), b"{\"a\":1}");
    assert_eq!(or_empty_object(b" null "), b" null ");
    for body in [&b""[..], b"{", b"hello", b"\xef\xbb\xbf{}", b"\0"] {
        assert_eq!(or_empty_object(body), b"{}");
    }
}

#[test]
fn trims_json_whitespace_only() {
    assert_eq!(trim(b" \t\r\n"), b"");
    assert_eq!(trim(b" 1 2\n"), b"1 2");
    assert_eq!(trim(b"\x0b1\x0c"), b"\x0b1\x0c");
}

#[test]
fn truth_is_javascripts() {
    let falsy = "null false \"\" 0 -0 0.0 0e5 -0.00E+7 1e-400 -1e-999";
    for value in falsy.split(' ').chain(["", " 0 ", "\nnull"]) {
        assert!(!is_truthy(value.as_bytes()), "{value}");
    }
    let truthy = "true 1 -1 0.1 5e-324 1e400 \"0\" \"\\u0000\" [] {} [0]";
    for value in truthy.split(' ').chain([" 7 ", "\" \""]) {
        assert!(is_truthy(value.as_bytes()), "{value}");
    }
}

#[test]
fn elements_are_the_texts_between_the_commas() {
    let text = b" [ 1 ,\"a,]\", [2 , [3]] ,{\"b\":[4]}\n,null ] ";
    let found: Result<Vec<_>, _> = elements(text).unwrap().collect();
    let expected: [&[u8]; 5] = [b"1", b"\"a,]\"", b"[2 , [3]]", b"{\"b\":[4]}", b"null"];
    assert_eq!(found.unwrap(), expected);
    assert_eq!(elements(b"[ ]").unwrap().next(), None);
    assert!(elements(b"{}").is_err());
}

#[test]
fn members_are_raw_names_and_the_texts_after_the_colons() {
    let text = br#" { "a" : 1 ,"\u0062":{"c":[2]},"":"", "a":null } "#;
    let found: Result<Vec<_>, _> = members(text).unwrap().collect();
    let expected: [(&[u8], &[u8]); 4] = [
        (b"a", b"1"),
        (b"\\u0062", b"{\"c\":[2]}"),
        (b"", b"\"\""),
        (b"a", b"null"),
    ];
    assert_eq!(found.unwrap(), expected);
    assert_eq!(members(b"{ }").unwrap().next(), None);
    assert!(members(b"[]").is_err());
}

#[test]
fn nothing_follows_a_faulty_item() {
    for text in ["[1,", "[1,]", "[1 2]", "[1]]", "[1}", "[1", "[tru]"] {
        let mut items = elements(text.as_bytes()).unwrap();
        assert!(items.by_ref().any(|item| item.is_err()), "{text}");
        assert_eq!(items.next(), None, "{text}");
    }
    for text in [
        "{\"a\":1,}",
        "{\"a\"}",
        "{1:1}",
        "{\"a\":1}x",
        "{\"a\":1]",
        "{",
    ] {
        let mut items = members(text.as_bytes()).unwrap();
        assert!(items.by_ref().any(|item| item.is_err()), "{text}");
        assert_eq!(items.next(), None, "{text}");
    }
}

#[test]
fn strings_are_unescaped_as_javascript_does() {
    for (raw, text) in [
        (r"plain", "plain"),
        (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r"\u0041\u00e9\u20AC", "A\u{e9}\u{20ac}"),
        (r"\ud83d\ude00!", "\u{1f600}!"),
        (r"\ud83d", "\u{fffd}"),
        (r"\ude00x", "\u{fffd}x"),
        (r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}"),
        (r"\ud83d\u0041", "\u{fffd}A"),
        (r"\ud83d\n", "\u{fffd}\n"),
    ] {
        assert_eq!(unescape(raw.as_bytes()), text, "{raw}");
    }
    assert!(matches!(unescape(b"plain"), Cow::Borrowed("plain")));
    assert_eq!(unescape(b"\xffa"), "\u{fffd}a");
    assert_eq!(unescape(b"\xff\\n"), "\u{fffd}\n");
}

#[test]
fn strings_are_written_with_the_escapes_of_javascript() {
    for (text, expected) in [
        ("", r#""""#),
        ("a\"b\\c/d", r#""a\"b\\c/d""#),
        ("\u{8}\t\n\u{c}\r", r#""\b\t\n\f\r""#),
        ("\0\u{b}\u{1f}\u{7f}", "\"\\u0000\\u000b\\u001f\u{7f}\""),
        ("\u{e9}\u{2028}\u{1f600}", "\"\u{e9}\u{2028}\u{1f600}\""),
    ] {
        assert_eq!(printed(|out| write_string(out, text)), expected);
    }
}

#[test]
fn numbers_are_written_as_javascript_does() {
    for (number, expected) in [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-17.0, "-17"),
        (0.5, "0.5"),
        (-123.456, "-123.456"),
        (902413604334937.2, "902413604334937.2"),
        (-268957065370369.12, "-268957065370369.12"),
        (0.1 + 0.2, "0.30000000000000004"),
        (0.000001, "0.000001"),
        (-0.00000123, "-0.00000123"),
        (0.000009999999999999999, "0.000009999999999999999"),
        (0.00001, "0.00001"),
        (-0.0000123, "-0.0000123"),
        (0.0000001, "1e-7"),
        (-1.5e-7, "-1.5e-7"),
        (9007199254740991.0, "9007199254740991"),
        (9007199254740992.0, "9007199254740992"),
        (12345678901234567890.0, "12345678901234567000"),
        (123456789012345680000.0, "123456789012345680000"),
        (999999999999999900000.0, "999999999999999900000"),
        (1e21, "1e+21"),
        (-1.25e21, "-1.25e+21"),
        (1e300, "1e+300"),
        (5e-324, "5e-324"),
        (2.2250738585072014e-308, "2.2250738585072014e-308"),
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::NAN, "null"),
        (f64::INFINITY, "null"),
        (f64::NEG_INFINITY, "null"),
    ] {
        assert_eq!(printed(|out| write_number(out, number)), expected);
    }
}

#[test]
fn parse_and_write_keep_javascripts_order_and_numbers() {
    for (text, expected) in [
        (r#"{"b":1,"a":2,"b":3}"#, r#"{"b":3,"a":2}"#),
        (r#"{"b":1,"\u0062":2}"#, r#"{"b":2}"#),
        (
            r#"{"x":1,"10":2,"9":3,"0":4}"#,
            r#"{"0":4,"9":3,"10":2,"x":1}"#,
        ),
        (r#"[{"a":{"b":0,"1":1}}]"#, r#"[{"a":{"1":1,"b":0}}]"#),
        (
            r#"{"01":0,"-1":1,"1.5":2,"4294967295":3,"4294967294":4,"":5,"1e3":6,"+1":7}"#,
            r#"{"4294967294":4,"01":0,"-1":1,"1.5":2,"4294967295":3,"":5,"1e3":6,"+1":7}"#,
        ),
        (
            "[1.0,-0,1e2,12345678901234567890]",
            "[1,0,100,12345678901234567000]",
        ),
        ("[1e-7,1e400,-1e400,1e-400]", "[1e-7,null,null,0]"),
        (r#" { "a" : [ ] , "b" : { } } "#, r#"{"a":[],"b":{}}"#),
        (r#""\ud800\/\u000a""#, "\"\u{fffd}/\\n\""),
        ("[[[]],{},\"[\",{\"{\":1}]", "[[[]],{},\"[\",{\"{\":1}]"),
    ] {
        assert_eq!(reprinted(text), expected, "{text}");
    }
}

#[test]
fn whole_numbers_answer_as_integers() {
    let tree = parse(b"[7,-7.0,9007199254740991,9007199254740993,-0]").unwrap();
    let numbers: Vec<_> = tree.as_array().unwrap().iter().map(Value::as_i64).collect();
    let safe = Some(9007199254740991);
    assert_eq!(numbers, [Some(7), Some(-7), safe, None, None]);
    assert_eq!(tree[3].as_f64(), Some(9007199254740992.0));
    assert!(tree[4].as_f64().unwrap().is_sign_negative());
}

#[test]
fn a_tree_built_by_hand_is_written_in_javascripts_order() {
    let tree = json!({"b": u64::MAX, "2": [null, true], "1": {"z": "", "0": 1.5}});
    let text = r#"{"1":{"0":1.5,"z":""},"2":[null,true],"b":18446744073709552000}"#;
    assert_eq!(printed(|out| write_value(out, &tree)), text);
}

#[test]
fn a_failed_response_has_a_code() {
    for (value, expected) in [
        ("{}", r#"{"code":500}"#),
        (" { } ", r#"{ "code":500}"#),
        (r#"{"msg":"bad"}"#, r#"{"msg":"bad","code":500}"#),
        (r#"{"code":0,"msg":"bad"}"#, r#"{"code":500,"msg":"bad"}"#),
        (r#"{"a":1,"code" : null }"#, r#"{"a":1,"code" : 500 }"#),
        (r#"{"code":"","code2":1}"#, r#"{"code":500,"code2":1}"#),
        (r#"{"code":404,"a":1.0}"#, r#"{"code":404,"a":1.0}"#),
        (r#"{"code":{}}"#, r#"{"code":{}}"#),
        (r#"{"a":{"code":1}}"#, r#"{"a":{"code":1},"code":500}"#),
        (r#"{"\u0063ode":false}"#, r#"{"\u0063ode":500}"#),
        (r#"{"\u0063ode":7}"#, r#"{"\u0063ode":7}"#),
        (r#"{"\u0063\\ode":7}"#, r#"{"\u0063\\ode":7,"code":500}"#),
        (r#"{"code":1,"a":2,"code":0}"#, r#"{"code":500,"a":2}"#),
        (r#"{"code":0,"a":2,"\u0063ode":3}"#, r#"{"code":3,"a":2}"#),
        ("[]", "[]"),
        ("[{\"code\":0}]", "[{\"code\":0}]"),
        ("\"hello\"", "\"hello\""),
        (" 5 ", "5"),
        ("null", "null"),
        ("{\"code\":", "{\"code\":"),
        ("", ""),
    ] {
        assert_eq!(
            printed(|out| with_error_code(out, value.as_bytes())),
            expected
        );
    }
}

/// Calls every reader; only a panic can fail it.
fn everything(text: &[u8]) {
    let mut out = Vec::new();
    let _ = validate(text);
    let _ = skip_value(text, text.len() / 2);
    let _ = skip_value(text, text.len() + 1);
    let _ = is_truthy(text);
    let _ = unescape(text);
    let _ = elements(text).map(Iterator::count);
    let _ = members(text).map(Iterator::count);
    let _ = parse(text).map(|tree| write_value(&mut out, &tree));
    with_error_code(&mut out, text);
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53) + 1..1 << 53).prop_map(Value::from),
        any::<i16>().prop_map(|n| Value::from(f64::from(n) + 0.25)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec(("[a-z\"\\\\\n]{0,12}", inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Pieces that make deep and nearly valid texts likely.
fn near_json() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"\":", "\\", "\\u", "00e9", "d800", "0",
        "-", "1.5", "e", "E+3", "true", "null", "false", " ", "\n", "\t", "\u{e9}", "\0", "\u{7f}",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn agrees_with_serde(text: &str) {
    let oracle = serde_json::from_str::<serde::de::IgnoredAny>(text);
    assert_eq!(
        validate(text.as_bytes()).is_ok(),
        oracle.is_ok(),
        "{text:?}"
    );
}

proptest! {
    #[test]
    fn reads_what_serde_wrote(tree in tree()) {
        for text in [serde_json::to_vec(&tree).unwrap(), serde_json::to_vec_pretty(&tree).unwrap()] {
            prop_assert_eq!(validate(&text), Ok(()));
            prop_assert_eq!(skip_value(&text, 0), Ok(text.len()));
            prop_assert_eq!(parse(&text), Some(tree.clone()));
        }
    }

    #[test]
    fn serde_reads_what_was_written(tree in tree()) {
        let text = printed(|out| write_value(out, &tree));
        prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), tree);
    }

    #[test]
    fn items_are_the_items_of_the_tree(tree in tree()) {
        let text = serde_json::to_vec_pretty(&tree).unwrap();
        match &tree {
            Value::Array(items) => {
                let found: Vec<_> = elements(&text).unwrap().map(|item| parse(item.unwrap()).unwrap()).collect();
                prop_assert_eq!(&found, items);
            }
            Value::Object(map) => {
                let found: Map<_, _> = members(&text)
                    .unwrap()
                    .map(|member| member.unwrap())
                    .map(|(name, value)| (unescape(name).into_owned(), parse(value).unwrap()))
                    .collect();
                prop_assert_eq!(&found, map);
            }
            _ => {}
        }
    }

    #[test]
    fn validate_agrees_with_serde(near in near_json(), any in any::<String>()) {
        agrees_with_serde(&near);
        agrees_with_serde(&any);
        agrees_with_serde(&format!("\"{any}\""));
    }

    #[test]
    fn numbers_agree_with_serde(text in "-?[0-9]{0,3}[.]?[0-9]{0,3}([eE][-+]?[0-9]{0,2})?") {
        agrees_with_serde(&text);
    }

    #[test]
    fn strings_survive(text in any::<String>()) {
        let written = printed(|out| write_string(out, &text));
        prop_assert_eq!(unescape(&written.as_bytes()[1..written.len() - 1]), text.as_str());
        prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }

    #[test]
    fn numbers_survive(number in any::<f64>()) {
        let written = printed(|out| write_number(out, number));
        prop_assert_eq!(to_number(written.as_bytes()), number);
        prop_assert_eq!(validate(written.as_bytes()), Ok(()));
    }

    #[test]
    fn eight_bytes_at_a_time_are_read_as_one_by_one(
        text in prop::collection::vec(prop_oneof![0x1e..0x24_u8, 0x5b..0x5e_u8, 0x7e..0x82_u8, any::<u8>()], 0..40),
        at in 0..50_usize,
    ) {
        let stops = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
        let rest = text.get(at..).unwrap_or_default();
        let plain = rest.iter().position(stops).unwrap_or(rest.len());
        prop_assert_eq!(skip_plain(&text, at), text.len() - rest.len() + plain);
    }

    #[test]
    fn no_bytes_panic(random in any::<Vec<u8>>(), near in near_json()) {
        everything(&random);
        everything(near.as_bytes());
    }
}
