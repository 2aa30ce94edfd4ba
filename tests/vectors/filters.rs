//! The order of filters, handler and response, seen from inside.

use serde_json::Value;
use tangelo::config::Dialect;

use super::differences::matches;
use super::server::{Server, is_probe_answer, open_clients, send_probe, server};

const ECHO: &str = "connector.entryHandler.echo";
const THROW_ERR: &str = "connector.entryHandler.throwErr";
const ERR_ONLY: &str = "connector.entryHandler.errOnly";
const NO_SUCH: &str = "connector.entryHandler.nosuch";
const FAILED: &str = r#"{"code":500}"#;

/// Route, body, response, and the steps that ran: name of a filter, `ok` or the error that it saw.
#[rustfmt::skip]
const ORDERS: &[(&str, &str, &str, &str)] = &[
    (ECHO, r#"{"a":1}"#, r#"{"a":1*}"#,
        "GB1, GB2, B1, B2, F3, handler echo, F3 ok, A2 ok, A1 ok, GA2 ok, GA1 ok"),
    (ECHO, r#"{"stop":"gb"}"#, r#"{"from":"gb","code":500}"#,
        "GB1, GA2 err gb stop, GA1 err gb stop"),
    (ECHO, r#"{"stop":"b"}"#, r#"{"from":"b","code":500}"#,
        "GB1, GB2, B1, F3 err b stop, A2 err b stop, A1 err b stop, GA2 err b stop, GA1 err b stop"),
    (ECHO, r#"{"afterErr":1}"#, r#"{"afterErr":1*,"code":500}"#,
        "GB1, GB2, B1, B2, F3, handler echo, F3 ok, A2 ok, A1 ok, \
         GA2 err from after, GA1 err from after"),
    (ERR_ONLY, "{}", FAILED,
        "GB1, GB2, B1, B2, F3, handler errOnly, F3 err boom, A2 err boom, A1 err boom, \
         GA2 err boom, GA1 err boom"),
    (ERR_ONLY, r#"{"afterClear":1}"#, "{}",
        "GB1, GB2, B1, B2, F3, handler errOnly, F3 err boom, A2 err boom, A1 err boom, \
         GA2 ok, GA1 ok"),
    (NO_SUCH, "{}", FAILED,
        "GB1, GB2, B1, B2, F3, F3 err fail to find handler for connector.entryHandler.nosuch, \
         A2 err *, A1 err *, GA2 err *, GA1 err *"),
    // A panic is an error of its step.
    (ECHO, r#"{"throw":"GB1"}"#, FAILED,
        "GB1, GA2 err the before filter panicked, GA1 err the before filter panicked"),
    (ECHO, r#"{"throw":"B1"}"#, FAILED,
        "GB1, GB2, B1, F3 err the before filter panicked, A2 err *, A1 err *, GA2 err *, GA1 err *"),
    (THROW_ERR, "{}", FAILED,
        "GB1, GB2, B1, B2, F3, handler throwErr, F3 err the handler panicked, A2 err *, A1 err *, \
         GA2 err *, GA1 err the handler panicked"),
    (THROW_ERR, r#"{"afterClear":1}"#, "{}",
        "GB1, GB2, B1, B2, F3, handler throwErr, F3 err *, A2 err *, A1 err *, GA2 ok, GA1 ok"),
    (ECHO, r#"{"throw":"A2"}"#, r#"{"throw":"A2"*,"code":500}"#,
        "GB1, GB2, B1, B2, F3, handler echo, F3 ok, A1 err the after filter panicked, GA2 err *, \
         GA1 err the after filter panicked"),
    (ECHO, r#"{"throw":"GA2"}"#, r#"{"throw":"GA2"*"}"#,
        "GB1, GB2, B1, B2, F3, handler echo, F3 ok, A2 ok, A1 ok, \
         GA1 err the after filter panicked"),
    ("chat.chatHandler.noResp", r#"{"throw":"GA2"}"#, "{}",
        "GB1, GB2, GA1 err the after filter panicked"),
    // Messages for another server pass the global filters only.
    ("chat.chatHandler.noResp", "{}", "{}", "GB1, GB2, GA2 ok, GA1 ok"),
    ("chat.chatHandler.errOnly", "{}", FAILED, "GB1, GB2, GA2 err *, GA1 err *"),
    ("x.y.z", "{}", FAILED, "GB1, GB2, GA2 err *, GA1 err *"),
];

#[test]
fn filters_run_in_the_order_of_the_reference() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        let Server { address, logs, .. } = server("c-filter", dialect);
        for (transport, mut client) in open_clients(*address) {
            for (route, body, response, order) in ORDERS {
                let log = format!("{transport} {route} {body}");
                println!("{log}");
                let got = client.request_text(*route, with(body, "log", &log));
                assert!(matches(response, &got), "{log}: {got}");
                let got = logs.whole(&log).join(", ");
                assert!(matches(order, &got), "{log}: {got}");
            }
            // A notify goes the same way and gets no response.
            let (route, body, _, order) = ORDERS[0];
            let log = format!("{transport} notify");
            client.notify(route, with(body, "log", &log));
            assert_eq!(logs.whole(&log).join(", "), order);
            send_probe(&mut client);
            let next = client.next_package().expect("an answer");
            assert!(is_probe_answer(&next), "{next:?}");
            // No filter sees a route that is none, nor one that gets its client kicked.
            let log = format!("{transport} none");
            assert_eq!(client.request_text("a.b", with("{}", "log", &log)), FAILED);
            client.request(1, "x.y.constructor", with("{}", "log", &log));
            assert_eq!(client.wait_kick(), "attack");
            assert!(logs.lines(&log).is_empty(), "{:?}", logs.lines(&log));
        }
    }
}

/// A message with one more member.
fn with(body: &str, key: &str, value: &str) -> String {
    let mut body: Value = serde_json::from_str(body).unwrap();
    body[key] = value.into();
    body.to_string()
}

#[test]
fn the_response_leaves_before_the_global_after_filters_run() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        let Server { address, logs, .. } = server("c-filter", dialect);
        let [(_, mut client), _] = open_clients(*address);
        let response = client.request_text(ERR_ONLY, r#"{"hold":"GA2","log":"held"}"#);
        assert_eq!(response, FAILED);
        let lines = logs.lines("held");
        assert_eq!(lines.last().unwrap(), "A1 err boom", "{lines:?}");
        logs.release();
        assert_eq!(logs.whole("held").last().unwrap(), "GA1 err boom");
    }
}

#[test]
fn a_panic_goes_to_the_error_handler_as_any_error() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        for (transport, mut client) in open_clients(server("c-err", dialect).address) {
            for (route, body, response) in [
                (
                    THROW_ERR,
                    "{}",
                    r#"{"code":501,"eh":"the handler panicked"}"#,
                ),
                (
                    ECHO,
                    r#"{"throw":"GB1"}"#,
                    r#"{"geh":"the before filter panicked"}"#,
                ),
            ] {
                let got = client.request_text(route, body);
                assert_eq!(got, response, "{transport} {route}");
            }
        }
    }
}

#[test]
fn a_panic_without_filters_is_an_error_of_its_own_request_only() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        for (_, mut client) in open_clients(server("c-plain", dialect).address) {
            assert_eq!(client.request_text(THROW_ERR, "{}"), FAILED);
            send_probe(&mut client);
            let next = client.next_package().expect("an answer");
            assert!(is_probe_answer(&next), "{next:?}");
        }
    }
}

#[test]
fn a_panic_after_the_response_sends_no_second_one() {
    for dialect in [Dialect::Pomelo, Dialect::Pinus] {
        for (transport, mut client) in open_clients(server("c-filter", dialect).address) {
            for filter in ["GA2", "GA1"] {
                let response = client.request_text(ECHO, with("{}", "throw", filter));
                assert_ne!(response, FAILED, "{transport} {filter}");
                send_probe(&mut client);
                let next = client.next_package().expect("an answer");
                assert!(is_probe_answer(&next), "{transport} {filter}: {next:?}");
            }
        }
    }
}
