//! Signed messages.

use serde::Deserialize;
use serde_json::{Value, json};
use tangelo::client::crypto::PublicKey;

use super::file::cases;

#[derive(Deserialize)]
struct Case {
    name: String,
    rsa_n: String,
    rsa_e: Value,
    body_received: String,
    verified_text: String,
    accepted: bool,
}

#[test]
fn a_signature_is_taken_or_refused_as_by_the_reference() {
    for case in cases::<Case>(include_str!("client/rsa.json")) {
        let rsa = json!({"rsa_n": case.rsa_n, "rsa_e": case.rsa_e});
        let key = PublicKey::from_json(&rsa).expect("a key");
        let verified = key.verify(case.body_received.as_bytes());
        let verified = verified.map(|text| String::from_utf8(text).expect("UTF-8"));
        let expected = case.accepted.then_some(case.verified_text);
        assert_eq!(verified, expected, "{}", case.name);
    }
}

#[cfg(feature = "runtime")]
mod over_sockets {
    use tangelo::config::Dialect;

    use super::*;
    use crate::client::Client;
    use crate::server::server;

    /// The handler of `echo` answers or it does not: the unsigned request before and the signed
    /// one behind it show which.
    #[test]
    fn only_signed_messages_are_answered() {
        let cases = cases::<Case>(include_str!("client/rsa.json"));
        let good = cases.iter().find(|case| case.accepted).expect("a good one");
        for dialect in [Dialect::Pomelo, Dialect::Pinus] {
            let address = server("c-crypto", dialect).address;
            for case in &cases {
                for mut client in [Client::tcp(address), Client::websocket(address)] {
                    println!("{dialect:?} {}", case.name);
                    let rsa = json!({"rsa_n": case.rsa_n, "rsa_e": case.rsa_e});
                    let body = json!({"sys": {"rsa": rsa}}).to_string();
                    client.send_package(1, body.as_bytes());
                    client.next_package().expect("a reply");
                    client.ack();
                    let route = "connector.entryHandler.utf8";
                    client.request(1, route, "{}");
                    client.request(2, route, "null");
                    client.request(3, route, &*case.body_received);
                    let same_key = case.rsa_n == good.rsa_n;
                    if case.accepted {
                        let response = client.next_package().expect("a response");
                        assert_eq!(&response.body[..2], [4, 3], "{}", case.name);
                    } else if same_key {
                        client.request(4, route, &*good.body_received);
                        let response = client.next_package().expect("a response");
                        assert_eq!(&response.body[..2], [4, 4], "{}", case.name);
                    }
                }
            }
        }
    }
}
