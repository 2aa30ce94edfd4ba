//! Where tangelo does not do what the reference does. Every other case has to match to the byte.
//!
//! A line that no case needs, or that describes what the reference does too, is a failure.

use std::cell::Cell;
use std::collections::BTreeMap;

use tangelo::config::Dialect;

/// One deliberate difference.
#[derive(Debug)]
pub(crate) struct Difference {
    /// Vector file, without its folder and ending.
    file: &'static str,
    /// Names of the cases; `*` stands for any text.
    cases: &'static str,
    /// Where only one dialect differs.
    dialect: Option<Dialect>,
    pub(crate) tangelo: Tangelo,
    pub(crate) reason: &'static str,
}

/// The result of tangelo in place of the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tangelo {
    /// The decoder says that the sender is wrong.
    Refuses,
    /// The decoder asks for more bytes.
    Waits,
    /// The types of the encoder leave no way to say it.
    CannotSay,
    /// The encoder writes the flag and the body.
    WritesBare,
    /// One object per frame, without the keys of the tracing option.
    WritesPlain,
    /// The encoder writes a body of any length, and the decoder reads it back.
    WritesAll,
    /// A `Map` of JavaScript is an object.
    MapIsObject,
    /// The connection ends; nothing has come but the answer to the handshake.
    Closes,
    /// The connection ends with this HTTP status.
    ClosesWithHttp(&'static str),
    /// The first answer is the only one.
    AnswersOnce,
    /// A new connection is tried with a ping before it is used.
    PingsFirst,
}

const BOTH: Option<Dialect> = None;
const POMELO: Option<Dialect> = Some(Dialect::Pomelo);
const PINUS: Option<Dialect> = Some(Dialect::Pinus);

const fn row(
    file: &'static str,
    cases: &'static str,
    dialect: Option<Dialect>,
    tangelo: Tangelo,
    reason: &'static str,
) -> Difference {
    Difference {
        file,
        cases,
        dialect,
        tangelo,
        reason,
    }
}

const UNKNOWN_TYPE: &str = "the connection ends in both; there is nothing to hand on";
const SHORT: &str = "the rest may follow on raw TCP; a WebSocket message like that closes";
const ID: &str = "the reference computes ids with 32-bit shifts and hangs on a negative one";
const SCRATCH: &str = "the reference writes into a buffer of twice the JSON text";
const NO_MAPS: &str =
    "JSON has no maps: the reference forwards `{}`, and cannot encode what it gets";
const WEDGED: &str = "the reference stays open, but deaf";

#[rustfmt::skip]
static TABLE: &[Difference] = &[
    row("package", "decode unknown type 9", BOTH, Tangelo::Refuses, UNKNOWN_TYPE),
    row("package-pinus", "unknown type first", BOTH, Tangelo::Refuses, UNKNOWN_TYPE),
    row("package-pinus", "type 0", BOTH, Tangelo::Refuses, UNKNOWN_TYPE),
    row("package-pinus", "length larger than the whole input", BOTH, Tangelo::Waits, SHORT),
    row("package-pinus", "truncated header", BOTH, Tangelo::Waits, SHORT),

    row("message", "request id * (reference buffer too short*", BOTH, Tangelo::CannotSay,
        "ids have 31 bits; the reference writes corrupt bytes"),
    row("message", "type 1 code 65536", BOTH, Tangelo::CannotSay, "a code is a u16"),
    row("message", "compressed route but string", BOTH, Tangelo::CannotSay,
        "the flag follows from the kind of the route"),
    row("message", "unknown type 4", BOTH, Tangelo::WritesBare,
        "only a decoder makes such a message; the gateway writes responses and pushes"),
    row("message", "id 2^31 (negative in the reference)", BOTH, Tangelo::Refuses, ID),
    row("message", "id six bytes 2^35 (wraps*", BOTH, Tangelo::Refuses, ID),

    row("protobuf-pomelo", "short decimals overflow *", BOTH, Tangelo::WritesAll, SCRATCH),
    row("protobuf-pinus", "short decimals: *", BOTH, Tangelo::WritesAll, SCRATCH),
    row("protobuf-pinus", "*\"__map__\"*", BOTH, Tangelo::MapIsObject, NO_MAPS),
    row("protobuf-pinus", "decode *map #*", BOTH, Tangelo::MapIsObject, NO_MAPS),

    row("rpc", "*-buffered-*", BOTH, Tangelo::WritesPlain, "receivers take a call alone or in an array"),
    row("rpc", "*-traced-*", BOTH, Tangelo::WritesPlain, "nothing depends on the trace keys"),

    row("replay", "* mailbox", PINUS, Tangelo::PingsFirst,
        "a Pinus backend loses what comes in one segment with the CONNECT"),

    row("responses", "* connector.entryHandler.twice *", BOTH, Tangelo::AnswersOnce,
        "a handler in Rust returns, and can do that only once; a second answer to an id is of no use"),

    row("malformed", "empty data package *", BOTH, Tangelo::Closes, WEDGED),
    row("malformed", "message flag 03 only *", BOTH, Tangelo::Closes, WEDGED),
    row("malformed", "message flag 05 only *", BOTH, Tangelo::Closes, WEDGED),
    row("malformed", "message flag 07 only *", BOTH, Tangelo::Closes, WEDGED),
    row("malformed", "request, route length past the end *", BOTH, Tangelo::Closes, WEDGED),
    row("malformed", "message flag 00 only *", PINUS, Tangelo::Closes, WEDGED),
    row("malformed", "message flag 06 only *", PINUS, Tangelo::Closes, WEDGED),
    row("malformed", "request, id only *", PINUS, Tangelo::Closes, WEDGED),
    row("malformed", "request, unterminated id *", PINUS, Tangelo::Closes, WEDGED),
    row("malformed", "id six bytes, 2^35 *", BOTH, Tangelo::Closes, ID),
    row("malformed", "truncated package (length 10 too big) [ws]", POMELO, Tangelo::Closes,
        "the reference pads the package with what is in its memory"),
    row("malformed", "truncated package (length 10 too big) [ws]", PINUS, Tangelo::Closes, WEDGED),
    row("malformed", "partial header 0300 [ws]", BOTH, Tangelo::Closes,
        "the reference pads the head with zeros"),
    row("malformed", "http method PUT without upgrade [tcp]", BOTH,
        Tangelo::ClosesWithHttp("426 Upgrade Required"),
        "the reference never answers and waits for its HTTP server to lose patience"),
];

/// The lines for one file, and which of them were needed.
pub(crate) struct Differences(Vec<(&'static Difference, Cell<bool>)>);

impl Differences {
    /// Those of a file; with a dialect only what holds there.
    pub(crate) fn of(file: &str, dialect: Option<Dialect>) -> Self {
        let rows = TABLE.iter().filter(|row| {
            let here = row.dialect.is_none() || dialect.is_none() || row.dialect == dialect;
            row.file == file && here
        });
        Self(rows.map(|row| (row, Cell::new(false))).collect())
    }

    /// The line for a case, if it has one.
    pub(crate) fn find(&self, case: &str) -> Option<&'static Difference> {
        let mut rows = self.0.iter().filter(|(row, _)| matches(row.cases, case));
        let (row, used) = rows.next()?;
        used.set(true);
        assert!(rows.next().is_none(), "two lines for {case:?}");
        Some(row)
    }

    /// To be called after all cases.
    pub(crate) fn all_used(&self) {
        let unused: Vec<_> = self.0.iter().filter(|(_, used)| !used.get()).collect();
        assert!(unused.is_empty(), "no case needs {unused:#?}");
    }
}

/// Whether a text has the form of a pattern.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((front, mut back)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut rest) = text.strip_prefix(front) else {
        return false;
    };
    while let Some((part, next)) = back.split_once('*') {
        let Some(at) = rest.find(part) else {
            return false;
        };
        (rest, back) = (&rest[at + part.len()..], next);
    }
    rest.ends_with(back)
}

/// Dialect of a framework's name.
pub(crate) fn dialect_of(framework: &str) -> Dialect {
    match framework {
        "pomelo" => Dialect::Pomelo,
        "pinus" => Dialect::Pinus,
        other => panic!("no framework {other}"),
    }
}

/// Names of cases and how they failed. All cases run before the test ends.
#[derive(Default)]
pub(crate) struct Failures(BTreeMap<String, String>);

impl Failures {
    pub(crate) fn check<T: PartialEq + std::fmt::Debug>(
        &mut self,
        case: &str,
        got: &T,
        expected: &T,
        difference: Option<&Difference>,
    ) {
        if got == expected {
            return;
        }
        let why = difference.map_or_else(String::new, |row| format!("\n  listed: {}", row.reason));
        let text = format!("\n       got: {got:?}\n  expected: {expected:?}{why}\n");
        self.0.insert(case.to_owned(), text);
    }

    /// To be called after all cases.
    pub(crate) fn none(self) {
        let mut report = String::new();
        for (case, text) in &self.0 {
            report += &format!("\n{case}{text}");
        }
        assert!(report.is_empty(), "{} cases:{report}", self.0.len());
    }
}

#[test]
fn a_star_stands_for_any_text() {
    assert!(matches("a*c", "abc") && matches("a*c", "ac") && matches("*", ""));
    assert!(matches("*b*", "abc") && matches("* b *", "x b y") && matches("abc", "abc"));
    assert!(!matches("a*c", "ab") && !matches("abc", "abcd") && !matches("a*a", "a"));
    assert!(!matches("*b*", "acc"));
}
