//! Handshakes and heartbeats.

use serde::Deserialize;
use tangelo::config::Dialect;

use super::client::{Client, End, HANDSHAKE, HEARTBEAT, Package, encode_package};
use super::differences::{dialect_of, matches};
use super::file::{Hex, cases};
use super::server::{is_probe_answer, send_probe, server};

/// Cases of options that tangelo does not have.
#[rustfmt::skip]
const LEFT_OUT: &[(&str, &str)] = &[
    ("* c-dict: no versions", "protobuf"),
    ("* c-dict: dictVersion matches", "protobuf"),
    ("* c-dict: protoVersion matches", "protobuf"),
    ("* c-dict: both match", "protobuf"),
    ("* c-dict: wrong versions, *", "protobuf"),
    ("* c-dict: user value returned", "handshake callback"),
    ("* c-dict: user handshake error", "handshake callback"),
    ("* c-crypto: *", "crypto"),
];

#[derive(Deserialize)]
struct Case {
    name: String,
    framework: String,
    server: String,
    request_hex: Hex,
    response_hex: Hex,
    closed: bool,
}

#[test]
fn a_handshake_gets_the_bytes_of_the_reference() {
    let mut cases = cases::<Case>(include_str!("client/handshake.json"));
    for (pattern, what) in LEFT_OUT {
        let before = cases.len();
        cases.retain(|case| !matches(pattern, &case.name));
        assert!(cases.len() < before, "no case needs {pattern:?}: {what}");
    }
    let mut ran = 0;
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        for name in ["c-plain", "c-hb"] {
            let server = server(name, dialect);
            for case in cases
                .iter()
                .filter(|case| dialect_of(&case.framework) == dialect)
            {
                // A refusal comes before any option is looked at.
                if case.server == name || (case.server == "c-dict" && name == "c-plain") {
                    ran += 1;
                    println!("{}", case.name);
                    shake_hands(Client::tcp(server.address), End::Fin, case);
                    let end = End::CloseFrame((dialect == Dialect::Pomelo).then_some(1000));
                    shake_hands(Client::websocket(server.address), end, case);
                }
            }
        }
    }
    assert_eq!(ran, cases.len());
}

fn shake_hands(mut client: Client, end: End, case: &Case) {
    client.send_raw(&case.request_hex.0);
    let response = client.next_package().expect("a response");
    let got = Hex(encode_package(response.kind, &response.body));
    assert_eq!(got, case.response_hex, "{}", case.name);
    assert_eq!(response.kind, HANDSHAKE);
    if case.closed {
        assert_eq!(client.next_package(), None, "{}", case.name);
        assert_eq!(client.end(), Some(end), "{}", case.name);
        return;
    }
    client.ack();
    if case.server == "c-hb" {
        assert_eq!(client.next_package(), Some(heartbeat()), "{}", case.name);
    }
    send_probe(&mut client);
    let next = client.next_package().expect("an answer");
    assert!(is_probe_answer(&next), "{}: {next:?}", case.name);
}

fn heartbeat() -> Package {
    Package {
        kind: HEARTBEAT,
        body: Vec::new(),
    }
}

/// One heartbeat answers the ack and one each heartbeat of the client. Requests do not count: a
/// client that sends nothing else is closed, without a kick.
#[test]
fn heartbeats_are_answered_and_their_absence_ends_the_connection() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        let server = server("c-hb", dialect);
        let end = End::CloseFrame((dialect == Dialect::Pomelo).then_some(1000));
        let mut clients = [
            (Client::tcp(server.address), End::Fin),
            (Client::websocket(server.address), end),
        ];
        for (client, _) in &mut clients {
            client.handshake();
            client.ack();
            assert_eq!(client.next_package(), Some(heartbeat()));
            client.send_package(HEARTBEAT, b"");
            client.send_package(HEARTBEAT, b"a body is ignored");
            assert_eq!(client.next_package(), Some(heartbeat()));
            assert_eq!(client.next_package(), Some(heartbeat()));
            send_probe(client);
            let next = client.next_package().expect("an answer");
            assert!(is_probe_answer(&next), "{next:?}");
        }
        for (client, end) in &mut clients {
            assert_eq!(client.next_package(), None);
            assert_eq!(client.end(), Some(*end));
        }
    }
}
