//! Where tangelo does not do what the reference does. Every other step has to match to the byte.
//!
//! A line that no step needs, because there is none of that name or because both do the same, is a
//! failure.

use std::collections::BTreeSet;

use super::player::Record;

/// One deliberate difference.
struct Difference {
    /// Name of the step: server, client, what it does.
    step: &'static str,
    /// The messages that clients of tangelo receive instead.
    received: &'static [&'static str],
    reason: &'static str,
}

const fn row(
    step: &'static str,
    received: &'static [&'static str],
    reason: &'static str,
) -> Difference {
    Difference {
        step,
        received,
        reason,
    }
}

const WEDGED: &str = "the reference stays open, but deaf";
const ONCE: &str = "a handler in Rust returns, and can do that only once";
const EMPTY: &str = "a message without a route or a body is an error, and nothing is sent";
const EMPTY_UID: &str = "the reference never forgets a session under a uid that counts as none";
const LOST_SLOT: &str = "the reference loses the place of every connection that it refuses";
const AS_IT_COMES: &str = "who is on the blacklist is closed before a byte is read";
const TEXT: &str = "a filter in Rust sees a text in the place of a JavaScript error";
const INHERITED: &str =
    "the reference calls what all JavaScript objects inherit, and never answers";

#[rustfmt::skip]
static TABLE: &[Difference] = &[
    row("c-plain a asks twice {}", &[r#"a < data \x04\x01{"n":1}"#], ONCE),
    row("c-plain deaf asks throwErr", &[r#"deaf < data \x04\x01{"code":500}"#], WEDGED),
    row(r#"c-plain a tries "connector.entryHandler.toString" {}"#,
        &[r#"a < data \x04\x01{"code":500}"#], INHERITED),
    row(r#"c-plain a tries "connector.toString.call" {}"#,
        &[r#"a < data \x04\x01{"code":500}"#], INHERITED),
    row(r#"c-plain b asks stat {"after":"odd uids"}"#,
        &[concat!(r#"b < data \x04\x01{"serverId":"c-plain","totalConnCount":0,"loginedCount":1,"#,
            r#""loginedList":[{"loginTime":<now>,"uid":"u9","address":"::ffff:127.0.0.1:<port of b>"}]}"#)],
        EMPTY_UID),
    row(r#"c-plain a asks sess {"after":"kicks"}"#,
        &[r#"a < data \x04\x01{"count":1,"uids":{}}"#], EMPTY_UID),
    row(r#"c-plain a asks connSend {"body":{"m":1}}"#,
        &[r#"a < data \x04\x01{"err":"fail to send message for encode result is empty."}"#], EMPTY),
    row(r#"c-plain a asks connSend {"route":"onChat","body":0}"#,
        &[r#"a < data \x04\x01{"err":"fail to send message for encode result is empty."}"#], EMPTY),
    row(r#"c-plain c asks bcast {"route":"onAdd","body":{"m":1},"opts":{"binded":true}}"#,
        &[
            r#"c < data \x06\x05onAdd{"m":1}"#,
            r#"c < data \x04\x01{"err":null}"#,
            r#"a < data \x06\x05onAdd{"m":1}"#,
            r#"b < data \x06\x05onAdd{"m":1}"#,
        ],
        "to bound sessions the reference sends as many copies as their user has sessions"),
    row("c-plain m sends an empty data package", &["m ended: CloseFrame(Some(1000))"], WEDGED),
    row("c-plain m sends a flag without its code", &["m ended: CloseFrame(Some(1000))"], WEDGED),
    row("c-plain m sends a route past the end", &["m ended: CloseFrame(Some(1000))"], WEDGED),

    row("c-dict m sends echoProto, an unknown tag", &["m ended: CloseFrame(Some(1000))"], WEDGED),
    row("c-dict m sends echoProto, a cut number", &["m ended: CloseFrame(Some(1000))"], WEDGED),

    row("c-crypto m sends echo signed: a signature that is not a text", &[], WEDGED),
    row("c-crypto m sends echo signed: null", &[], WEDGED),
    row("c-crypto a sends exportS signed",
        &[r#"a < data \x04\x01{"id":<session 0>,"frontendId":"c-crypto","uid":null,"settings":{}}"#],
        "the reference keeps the client's key among the values of its session"),

    row(r#"c-buffer a asks connSend {"route":"onChat","body":0}"#,
        &[r#"a < data \x04\x01{"err":"fail to send message for encode result is empty."}"#], EMPTY),
    row("c-buffer a asks twice {}", &[r#"a < data \x04\x01{"n":1}"#], ONCE),

    row(r#"c-maxc a asks stat {"after":"the refusal"}"#,
        &[r#"a < data \x04\x01{"serverId":"c-maxc","totalConnCount":2,"loginedCount":0,"loginedList":[]}"#],
        LOST_SLOT),
    row("c-maxc d sends a handshake in time", &[r#"d < handshake {"code":200,"sys":{}}"#], LOST_SLOT),

    row("c-host b connects", &["b gets no upgrade"], AS_IT_COMES),
    row("c-host b sends a handshake", &[], AS_IT_COMES),
    row("c-host c connects", &["c gets no upgrade"], AS_IT_COMES),
    row("c-host c sends a handshake", &[], AS_IT_COMES),

    row(r#"c-filter a asks log {"name":"10"}"#,
        &[r#"a < data \x04\x01{"lines":["GB1","GB2","GA2 err Error: backend boom","GA1 err Error: backend boom"]}"#],
        TEXT),
    row(r#"c-filter a asks log {"name":"13"}"#,
        &[r#"a < data \x04\x01{"lines":["GB1","GB2","GA2 err no server of this type","GA1 err no server of this type"]}"#],
        TEXT),

    row("c-err a asks errStr {}", &[r#"a < data \x04\x01{"code":501,"eh":"just a string"}"#], TEXT),
];

/// Steps that are not as they should be, and lines that were needed.
pub(super) struct Differences {
    table: &'static [Difference],
    used: BTreeSet<&'static str>,
    failures: String,
}

impl Differences {
    pub(super) fn listed() -> Self {
        Self::of(TABLE)
    }

    fn of(table: &'static [Difference]) -> Self {
        Self {
            table,
            used: BTreeSet::new(),
            failures: String::new(),
        }
    }

    pub(super) fn check(&mut self, reference: &Record, tangelo: &Record) {
        assert_eq!(reference.step, tangelo.step);
        let row = self.table.iter().find(|row| row.step == reference.step);
        let expected = match row {
            None => reference.received.clone(),
            Some(row) => {
                self.used.insert(row.step);
                row.received.iter().map(ToString::to_string).collect()
            }
        };
        if row.is_some() && expected == reference.received {
            self.failures += &format!("\n{}\n  listed, but the same\n", reference.step);
        }
        if tangelo.received != expected {
            let lines = |lines: &[String]| lines.join("\n             ");
            self.failures += &format!(
                "\n{}\n  reference: {}\n    tangelo: {}\n{}",
                reference.step,
                lines(&reference.received),
                lines(&tangelo.received),
                row.map_or_else(String::new, |row| format!("     listed: {}\n", row.reason)),
            );
        }
    }

    /// To be called after all steps.
    pub(super) fn none_left(mut self) {
        for row in self
            .table
            .iter()
            .filter(|row| !self.used.contains(row.step))
        {
            self.failures += &format!("\n{}\n  listed, but no step\n", row.step);
        }
        assert!(self.failures.is_empty(), "{}", self.failures);
    }
}

#[test]
fn a_difference_is_listed_or_a_failure() {
    static ROWS: &[Difference] = &[row("one", &["b"], "a reason"), row("two", &["a"], "none")];
    let of = |step: &str, line: &str| Record {
        step: step.to_owned(),
        received: vec![line.to_owned()],
    };
    let failures = |records: &[(Record, Record)]| {
        let mut differences = Differences::of(ROWS);
        records
            .iter()
            .for_each(|(expected, got)| differences.check(expected, got));
        differences.failures
    };
    assert_eq!(failures(&[(of("one", "a"), of("one", "b"))]), "");
    assert_eq!(failures(&[(of("three", "a"), of("three", "a"))]), "");
    let wrong = [
        // Not as listed, though as the reference; listed, but the same; not listed.
        (of("one", "a"), of("one", "a")),
        (of("two", "a"), of("two", "a")),
        (of("three", "a"), of("three", "b")),
    ];
    for records in wrong {
        let step = records.0.step.clone();
        assert!(failures(&[records]).contains(&step), "{step}");
    }
    std::panic::catch_unwind(|| Differences::of(ROWS).none_left()).expect_err("no step needs them");
}
