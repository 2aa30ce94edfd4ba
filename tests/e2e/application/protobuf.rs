//! Bodies that travel as protobuf, and those that cannot.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tangelo::config::Dialect;
use tangelo::handler::{Answer, Outcome, Request, Router};
use tangelo::{Config, Gateway, config};
use tempfile::{NamedTempFile, TempPath};

use crate::harness::client::{Client, Message};
use crate::harness::inside::Inside;
use crate::harness::pause::pause;

const MOVE: &str = "connector.testHandler.move";
const LATER: &str = "connector.testHandler.later";
const PLAIN: &str = "connector.testHandler.plain";

/// A file of protos.
pub(crate) fn protos_file(protos: impl AsRef<[u8]>) -> TempPath {
    let file = NamedTempFile::new().expect("a temporary file");
    fs::write(&file, protos).expect("a temporary file");
    file.into_temp_path()
}

pub(crate) fn config(dialect: Dialect, server: &Path, client: &Path) -> Config {
    let client = config::Client {
        use_dict: true,
        use_protobuf: true,
        server_protos: Some(server.into()),
        client_protos: Some(client.into()),
        ..config::Client::default()
    };
    Config {
        dialect,
        client,
        ..Config::default()
    }
}

/// Pushes the body of the request, then answers with it.
fn echo(request: &Request<'_>) -> Outcome<'static> {
    let mut message: Value = serde_json::from_slice(request.body).expect("a body is JSON");
    let pushed = request.session.push_raw("onMove", request.body);
    message["pushed"] = pushed.is_ok().into();
    Outcome::value(&message)
}

fn router() -> Router {
    Router::new()
        .raw_route(MOVE, |request| Answer::now(echo(request)))
        .raw_route(LATER, |request| {
            let outcome = echo(request);
            Answer::later(async move {
                pause(std::time::Duration::from_millis(1)).await;
                outcome
            })
        })
        .raw_route(PLAIN, |request| Answer::now(echo(request)))
}

fn protos() -> [TempPath; 2] {
    let answer = json!({"optional uInt32 x": 1, "optional sInt32 y": 2, "optional uInt32 code": 3});
    let server = json!({
        MOVE: answer,
        LATER: answer,
        "onMove": {"required uInt32 x": 1},
    });
    let wanted = json!({"required uInt32 x": 1, "optional sInt32 y": 2});
    let client = json!({MOVE: wanted, LATER: wanted});
    [server, client].map(|protos| protos_file(protos.to_string()))
}

fn push(client: &mut Client) -> (String, Vec<u8>) {
    match client.next_message() {
        Message::Push { route, body } => (route, body),
        other => panic!("waited for a push: {other:?}"),
    }
}

#[test]
fn requests_responses_and_pushes_of_a_route_with_a_proto_are_protobuf() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        let [server, client] = protos();
        let inside = Inside::start(2, config(dialect, &server, &client), router);
        for mut client in inside.clients() {
            for route in [MOVE, LATER] {
                client.request(1, route, b"\x08\xac\x02\x10\x03");
                assert_eq!(
                    push(&mut client),
                    ("onMove".into(), b"\x08\xac\x02".to_vec())
                );
                assert_eq!(client.wait_response(1), b"\x08\xac\x02\x10\x03");
                // A push without a required field has an empty body; a missing one
                // of what a client sends is taken.
                client.request(2, route, b"\x10\x04");
                assert_eq!(push(&mut client), ("onMove".into(), Vec::new()));
                assert_eq!(client.wait_response(2), b"\x10\x04");
                // The proto has no field of the response.
                client.request(3, route, b"");
                assert_eq!(push(&mut client), ("onMove".into(), Vec::new()));
                assert_eq!(client.wait_response(3), b"");
            }
            // A route without a proto is JSON, also where the push that it leads to is not; what the
            // push's proto cannot take is not pushed, and said.
            client.request(4, PLAIN, br#"{"x":7,"z":1}"#);
            assert_eq!(push(&mut client), ("onMove".into(), b"\x08\x07".to_vec()));
            assert_eq!(client.wait_response(4), br#"{"x":7,"z":1,"pushed":true}"#);
            client.request(5, PLAIN, br#"{"x":-7}"#);
            assert_eq!(client.wait_response(5), br#"{"x":-7,"pushed":false}"#);
        }
        assert_eq!(
            inside.counter("bodies_unencodable"),
            inside.clients().len() as u64
        );
        inside.stop();
    }
}

#[test]
fn a_response_that_does_not_fit_its_proto_is_an_error_to_its_client() {
    let [server, client] = protos();
    let inside = Inside::start(1, config(Dialect::Pomelo, &server, &client), || {
        Router::new()
            .raw_route(MOVE, |_| Answer::now(Outcome::json(&br#"{"x":-1}"#[..])))
            .raw_route(LATER, |_| Answer::now(Outcome::error("boom")))
    });
    for mut client in inside.clients() {
        for route in [MOVE, LATER] {
            client.request(1, route, b"\x08\x01");
            // `{"code":500}`
            assert_eq!(client.wait_response(1), b"\x18\xf4\x03", "{route}");
        }
    }
    inside.stop();
}

#[test]
fn a_body_that_its_proto_cannot_read_closes_its_client_only() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        let [server, client] = protos();
        let inside = Inside::start(1, config(dialect, &server, &client), router);
        let mut bystander = Client::tcp(inside.address()).open();
        let bad: &[&[u8]] = match dialect {
            Dialect::Pomelo => &[b"\x08", b"\x08\xff", b"\x78\x01", b"{}"],
            // Pinus skips the head of an unknown field.
            Dialect::Pinus => &[b"\x08", b"\x08\xff"],
        };
        for body in bad {
            let clients = [
                Client::tcp(inside.address()).open(),
                Client::websocket(inside.address()).open(),
            ];
            for mut client in clients {
                client.request(1, MOVE, body);
                assert_eq!(client.next_package(), None, "{}", body.escape_ascii());
            }
        }
        inside.wait_counter("closed_message_body", 2 * bad.len() as u64);
        bystander.request(1, MOVE, b"\x08\x01");
        push(&mut bystander);
        assert_eq!(bystander.wait_response(1), b"\x08\x01");
        inside.stop();
    }
}

#[test]
fn protos_that_cannot_be_used_are_refused_at_start_with_their_place() {
    let good = protos_file("{}");
    for (protos, place) in [
        (&b"{"[..], "the text ends too early"),
        (b"\xff", "a value was expected"),
        (b"[]", "the protos are an object of definitions"),
        (br#"{"onX": 1}"#, "message `onX`"),
        (
            br#"{"onX": {"message P": {"required uInt32 n": "one"}}}"#,
            "message `onX.P`, field `required uInt32 n`",
        ),
    ] {
        let bad = protos_file(protos);
        let config = config(Dialect::Pinus, &good, &bad);
        let Err(error) = Gateway::new(config).start() else {
            panic!("it started with {}", protos.escape_ascii());
        };
        let (text, file) = (error.to_string(), bad.display().to_string());
        assert!(text.starts_with("client.client_protos: "), "{text}");
        assert!(text.contains(&file) && text.contains(place), "{text}");
    }
    let missing = Path::new("/no/such/file");
    let error = Gateway::new(config(Dialect::Pomelo, missing, &good)).start();
    let text = error.err().expect("no such file").to_string();
    assert!(text.contains("/no/such/file"), "{text}");
}
