//! One request, one response: what a client sees of many outcomes.

use serde::Deserialize;
use serde_json::Value;
use tangelo::config::Dialect;

use super::client::encode_package;
use super::differences::{Differences, Failures, Tangelo, dialect_of};
use super::file::{Hex, cases};
use super::server::{is_probe_answer, open_clients, send_probe, server};

#[derive(Deserialize)]
struct Case {
    name: String,
    framework: String,
    server: String,
    id: u32,
    route: String,
    body: Value,
    response_hex: Hex,
}

#[test]
fn an_outcome_becomes_the_bytes_that_the_reference_sends() {
    let cases = cases::<Case>(include_str!("client/responses.json"));
    let (differences, mut failures) = (Differences::of("responses", None), Failures::default());
    let mut ran = 0;
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        for name in ["c-plain", "c-filter", "c-err"] {
            let here = |case: &&Case| case.server == name && dialect_of(&case.framework) == dialect;
            for case in cases.iter().filter(here) {
                ran += 1;
                let server = server(name, dialect);
                let difference = differences.find(&case.name);
                // Of two answers to one request the file has the first; the probe shows that tangelo
                // sends no other.
                let once = difference.is_none_or(|row| row.tangelo == Tangelo::AnswersOnce);
                assert!(once, "a response cannot differ by {difference:?}");
                for (transport, mut client) in open_clients(server.address) {
                    println!("{} {transport}", case.name);
                    client.request(case.id, &*case.route, case.body.to_string());
                    let response = client.next_package().expect("a response");
                    let got = Hex(encode_package(response.kind, &response.body));
                    let name = format!("{} [{transport}]", case.name);
                    failures.check(&name, &got, &case.response_hex, difference);
                    send_probe(&mut client);
                    let next = client.next_package().expect("an answer");
                    assert!(is_probe_answer(&next), "{name}: {next:?}");
                }
            }
        }
    }
    assert_eq!(ran, cases.len());
    differences.all_used();
    failures.none();
}

/// Two more lines of the reference's table of outcomes: a response that is not an object takes no code,
/// and one that is false is none.
#[test]
fn a_response_that_is_not_an_object_stays_as_it_is() {
    let server = server("c-plain", Dialect::Pomelo);
    for (transport, mut client) in open_clients(server.address) {
        let outcomes = [("errStrResp", "\"hello\""), ("falseResp", "{}")];
        for (method, response) in outcomes {
            let got = client.request_text(&*format!("connector.entryHandler.{method}"), "{}");
            assert_eq!(got, response, "{transport} {method}");
        }
    }
}
