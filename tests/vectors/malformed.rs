//! Raw bytes, right and wrong: what comes back, and whether the connection lives.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;
use tangelo::config::Dialect;

use super::client::{Client, End, HANDSHAKE, HANG_GUARD, Package, encode_package};
use super::differences::{Difference, Differences, Failures, Tangelo};
use super::file::{Hex, cases};
use super::server::{is_probe_answer, send_probe, server};

/// How long a connection is watched that must not answer. A slow machine can make this pass only.
const SILENCE: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Case {
    name: String,
    transport: String,
    steps: Vec<Hex>,
    pomelo: Seen,
    /// Where Pinus differs by more than the close code.
    pinus: Option<Seen>,
}

/// The bytes and the end that a client saw of the reference.
#[derive(Clone, Deserialize)]
struct Seen {
    received: Vec<Hex>,
    closed: bool,
    close_code: Option<u16>,
    probe: Option<String>,
}

/// How a connection ends, or that it does not.
#[derive(Clone, Debug, PartialEq)]
enum Life {
    /// It answers one more request.
    Answers,
    /// It is open and silent.
    Deaf,
    /// The server ended it.
    Closed(End),
    /// It answers one more request by ending.
    ClosedByProbe(End),
}

/// The packages and the end that a client sees, or has to see.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    received: Vec<Hex>,
    life: Life,
}

#[test]
fn pomelo_bytes_get_what_pomelo_gives() {
    all_cases(Dialect::Pomelo);
}

#[test]
fn pinus_bytes_get_what_pinus_gives() {
    all_cases(Dialect::Pinus);
}

fn all_cases(dialect: Dialect) {
    let differences = Differences::of("malformed", Some(dialect));
    let mut failures = Failures::default();
    let server = server("c-plain", dialect);
    for case in cases::<Case>(include_str!("client/malformed.json")) {
        println!("{}", case.name);
        let difference = differences.find(&case.name);
        let reference = reference(&case, dialect);
        if let Some(Tangelo::ClosesWithHttp(status)) = difference.map(|row| row.tangelo) {
            assert_eq!(
                reference.life,
                Life::Answers,
                "the reference keeps the connection open"
            );
            failures.check(
                &case.name,
                &http(server.address, &case.steps),
                &status.into(),
                difference,
            );
            continue;
        }
        let expected = difference.map_or_else(
            || reference.clone(),
            |row| differing(row, &reference, &case, dialect),
        );
        let stale = difference.is_some() && expected == reference;
        assert!(!stale, "{}: the reference does the same", case.name);
        let got = run(server.address, &case, &expected);
        failures.check(&case.name, &got, &expected, difference);
    }
    differences.all_used();
    failures.none();
}

/// Returns the outcome at the reference. A connection without a probe stayed open, so it has to answer one.
fn reference(case: &Case, dialect: Dialect) -> Outcome {
    let seen = match (dialect, &case.pinus) {
        (Dialect::Pinus, Some(pinus)) => pinus,
        _ => &case.pomelo,
    };
    let life = match (seen.closed, seen.probe.as_deref()) {
        (true, None) => {
            let end = end(&case.transport, dialect);
            let code = seen.close_code.or(case.pomelo.close_code);
            let is_pomelos = end == End::Fin || dialect == Dialect::Pinus;
            assert!(is_pomelos || end == End::CloseFrame(code), "{}", case.name);
            Life::Closed(end)
        }
        (false, None | Some("answered")) => Life::Answers,
        (false, Some("no answer")) => Life::Deaf,
        (false, Some("closed")) => Life::ClosedByProbe(end(&case.transport, dialect)),
        other => panic!("{}: {other:?}", case.name),
    };
    Outcome {
        received: seen.received.clone(),
        life,
    }
}

/// How a server ends a connection of its own accord.
fn end(transport: &str, dialect: Dialect) -> End {
    match (transport, dialect) {
        ("tcp", _) => End::Fin,
        ("ws", Dialect::Pomelo) => End::CloseFrame(Some(1000)),
        ("ws", Dialect::Pinus) => End::CloseFrame(None),
        (other, _) => panic!("no transport {other}"),
    }
}

fn differing(row: &Difference, reference: &Outcome, case: &Case, dialect: Dialect) -> Outcome {
    assert_eq!(row.tangelo, Tangelo::Closes, "{}", case.name);
    Outcome {
        received: reference.received[..1].to_vec(),
        life: Life::Closed(end(&case.transport, dialect)),
    }
}

fn run(address: SocketAddr, case: &Case, expected: &Outcome) -> Outcome {
    let mut client = match &*case.transport {
        "tcp" => Client::tcp(address),
        _ => Client::websocket(address),
    };
    let mut received = Vec::new();
    let take = |package: Package| Hex(encode_package(package.kind, &package.body));
    for step in &case.steps {
        client.send_raw(&step.0);
        // The reference was given 40 ms between two steps. Only the first answer matters: what
        // comes next must not share a chunk with what it answers.
        let shakes_hands = step.0.first() == Some(&HANDSHAKE);
        if shakes_hands && received.is_empty() && !expected.received.is_empty() {
            received.extend(client.next_package().map(take));
        }
    }
    while received.len() < expected.received.len() {
        match client.next_package() {
            Some(package) => received.push(take(package)),
            None => break,
        }
    }
    let probes = !matches!(expected.life, Life::Closed(_));
    if probes {
        send_probe(&mut client);
    }
    if expected.life == Life::Deaf {
        client.silent_for(SILENCE);
        return Outcome {
            received,
            life: Life::Deaf,
        };
    }
    let life = loop {
        match client.next_package() {
            Some(package) if probes && is_probe_answer(&package) => break Life::Answers,
            Some(package) => received.push(take(package)),
            None => {
                let end = client.end().expect("the connection has ended");
                break if probes {
                    Life::ClosedByProbe(end)
                } else {
                    Life::Closed(end)
                };
            }
        }
    };
    Outcome { received, life }
}

/// The status of the HTTP response that ends the connection.
fn http(address: SocketAddr, steps: &[Hex]) -> String {
    let mut stream = TcpStream::connect(address).expect("the gateway listens");
    stream.set_read_timeout(Some(HANG_GUARD)).expect("not zero");
    for step in steps {
        stream.write_all(&step.0).expect("the gateway reads");
    }
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .expect("the gateway closes");
    let line = response.lines().next().unwrap_or_default();
    line.strip_prefix("HTTP/1.1 ").unwrap_or(line).to_owned()
}
