//! Handshakes and heartbeats.

use serde::Deserialize;
use serde_json::Value;
use tangelo::config::Dialect;

use super::client::{Client, End, HANDSHAKE, HEARTBEAT, Package, encode_package};
use super::differences::{dialect_of, matches};
use super::file::{Hex, cases};
use super::server::{is_probe_answer, send_probe, server};

#[derive(Deserialize)]
struct Case {
    name: String,
    framework: String,
    server: String,
    request_hex: Hex,
    response_hex: Hex,
    closed: bool,
}

/// The reply to a client that has kept nothing.
pub(crate) fn full_reply(dialect: Dialect) -> Value {
    let cases = cases::<Case>(include_str!("client/handshake.json"));
    let case = cases.iter().find(|case| {
        matches("* c-dict: no versions", &case.name) && dialect_of(&case.framework) == dialect
    });
    let package = &case.expect("the file has this case").response_hex.0;
    serde_json::from_slice(&package[4..]).expect("a reply is JSON")
}

#[test]
fn a_handshake_gets_the_bytes_of_the_reference() {
    let cases = cases::<Case>(include_str!("client/handshake.json"));
    for case in &cases {
        let dialect = dialect_of(&case.framework);
        let server = server(name_of(&case.server), dialect);
        println!("{}", case.name);
        shake_hands(Client::tcp(server.address), End::Fin, case);
        let end = End::CloseFrame((dialect == Dialect::Pomelo).then_some(1000));
        shake_hands(Client::websocket(server.address), end, case);
    }
}

fn name_of(server: &str) -> &'static str {
    let names = ["c-plain", "c-hb", "c-dict", "c-crypto"];
    names
        .into_iter()
        .find(|name| *name == server)
        .expect("a known server")
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
    if ["c-hb", "c-dict"].contains(&&*case.server) {
        assert_eq!(client.next_package(), Some(heartbeat()), "{}", case.name);
    }
    // Without a signature there is no answer.
    if case.server != "c-crypto" {
        send_probe(&mut client);
        let next = client.next_package().expect("an answer");
        assert!(is_probe_answer(&next), "{}: {next:?}", case.name);
    }
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
