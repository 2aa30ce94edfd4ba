//! The balance of a gateway's counters: each connection and each message that it took has one end.

use std::collections::BTreeMap;

/// All counters of a gateway by name; those that are 0 are not there.
pub type CounterValues = BTreeMap<String, u64>;

/// Returns the counters of a report: `name=value name=value …`.
pub fn parsed(report: &str) -> CounterValues {
    let pairs = report.split_whitespace().map(|pair| {
        let (name, value) = pair.split_once('=').expect("NAME=VALUE");
        (name.to_owned(), value.parse().expect("a number"))
    });
    pairs.collect()
}

/// Ends of requests and notifies.
const MESSAGE_ENDS: [&str; 6] = [
    "responses",
    "responses_dropped",
    "notifies_ended",
    "messages_dropped",
    "messages_refused",
    "messages_unsigned",
];

/// Checks the counters of a gateway in which nothing moves.
pub fn balances(counters: &CounterValues) -> Result<(), String> {
    let ends = Ends::of(counters);
    let count = |name: &str| counters.get(name).copied().unwrap_or_default();
    let accounts = [
        (
            "accepted connections",
            ends.connections_left,
            count("connections"),
        ),
        ("messages", ends.messages_left, count("messages_in_flight")),
    ];
    for (what, left, there) in accounts {
        if left != i128::from(there) {
            return Err(format!("{left} {what} have no end, and {there} are there"));
        }
    }
    let is_empty = count("connections") == 0 && count("messages_in_flight") == 0;
    match count("memory_input_bytes") {
        bytes if is_empty && bytes > 0 => Err(format!("{bytes} bytes of parts belong to nobody")),
        _ => Ok(()),
    }
}

/// Checks the last counters of a gateway that has ended by itself: each client is closed, and only messages that were
/// in flight have no end.
pub fn check_last(counters: &CounterValues) {
    let ends = Ends::of(counters);
    assert_eq!(
        ends.connections_left, 0,
        "accepted connections that were not closed: {counters:?}"
    );
    let in_flight = counters
        .get("messages_in_flight")
        .copied()
        .unwrap_or_default();
    let all = 0..=i128::from(in_flight);
    assert!(
        all.contains(&ends.messages_left),
        "messages without an end: {counters:?}"
    );
}

struct Ends {
    connections_left: i128,
    messages_left: i128,
}

impl Ends {
    fn of(counters: &CounterValues) -> Self {
        let sum = |is_in: &dyn Fn(&str) -> bool| -> i128 {
            let counted = counters.iter().filter(|(name, _)| is_in(name));
            counted.map(|(_, value)| i128::from(*value)).sum()
        };
        let accepted = sum(&|name| name == "connections_accepted");
        let closed = sum(&|name| name.starts_with("closed_"));
        let messages = sum(&|name| name == "requests" || name == "notifies");
        let ended = sum(&|name| MESSAGE_ENDS.contains(&name));
        Self {
            connections_left: accepted - closed,
            messages_left: messages - ended,
        }
    }
}

#[cfg(test)]
#[test]
fn an_account_that_is_open_is_found() {
    let counters = |pairs: &[(&str, u64)]| -> CounterValues {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value));
        pairs.collect()
    };
    let closed = counters(&[
        ("connections_accepted", 3),
        ("closed_left", 1),
        ("closed_kicked", 1),
        ("connections", 1),
        ("requests", 4),
        ("responses", 2),
        ("messages_in_flight", 2),
        ("notifies", 1),
        ("notifies_ended", 1),
    ]);
    assert_eq!(balances(&closed), Ok(()));
    for (name, value) in [
        ("connections_accepted", 4),
        ("requests", 5),
        ("notifies", 2),
    ] {
        let mut open = closed.clone();
        open.insert(name.to_owned(), value);
        assert!(balances(&open).is_err(), "{name}");
    }
}
