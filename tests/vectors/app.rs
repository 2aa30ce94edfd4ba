//! The reference application, as handlers and filters in Rust.
//!
//! With `pinus` every handler and filter answers later, as all of them do there; with `pomelo` at
//! once. So both ways through the gateway are walked.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tangelo::config::Dialect;
use tangelo::handler::filter::{After, Before, Filters, Step};
use tangelo::handler::{Answer, Failure, Incoming, Outcome, Request, Router};

use super::client::RECEIVE_TIMEOUT;
use super::handshake;

/// Methods of `connector.entryHandler`.
#[rustfmt::skip]
const METHODS: &[&str] = &[
    "arrResp", "codeResp", "echo", "errCode", "errCode0", "errOnly", "errResp", "errStr",
    "errStrResp", "falseResp", "kind", "noResp", "numResp", "opts", "route", "strResp", "throwErr",
    "twice", "undefResp", "utf8", "zeroResp",
];

/// What filters and handlers did with the messages that asked for it: `log` is the name of the log to
/// write to.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<(Mutex<Written>, Condvar)>);

#[derive(Default)]
struct Written {
    logs: BTreeMap<String, Vec<String>>,
    /// A filter may go on that was told to wait.
    released: bool,
}

impl Logs {
    fn write(&self, body: &Value, line: String) {
        if let Some(name) = body["log"].as_str() {
            let mut written = self.0.0.lock().unwrap();
            written.logs.entry(name.to_owned()).or_default().push(line);
            self.0.1.notify_all();
        }
    }

    /// What stands in a log now.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let written = self.0.0.lock().unwrap();
        written.logs.get(name).cloned().unwrap_or_default()
    }

    /// What stands in a log, once the filter that is the last one has written there.
    pub(crate) fn whole(&self, name: &str) -> Vec<String> {
        let by_last = |line: &String| line.starts_with("GA1 ");
        let written = self.0.0.lock().unwrap();
        let waited = self
            .0
            .1
            .wait_timeout_while(written, RECEIVE_TIMEOUT, |written| {
                !written
                    .logs
                    .get(name)
                    .is_some_and(|lines| lines.iter().any(by_last))
            });
        let (written, timeout) = waited.unwrap();
        drop(written);
        let lines = self.lines(name);
        assert!(!timeout.timed_out(), "{name}: no GA1 in {lines:?}");
        lines
    }

    /// Lets filters go on that wait because of `hold` in their message.
    pub(crate) fn release(&self) {
        self.0.0.lock().unwrap().released = true;
    }

    async fn released(&self) {
        while !self.0.0.lock().unwrap().released {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Handlers and filters of a server of the reference application.
pub(crate) fn router(server: &str, dialect: Dialect, logs: &Logs) -> Router {
    let mut router = Router::new();
    // Each dialect's application lacks some; where codes are given, that shows.
    let known = handshake::full_reply(dialect)["sys"]["dict"].clone();
    let is_there = |method: &&&str| {
        server != "c-dict" || !known[format!("connector.entryHandler.{method}")].is_null()
    };
    for method in METHODS.iter().filter(is_there) {
        let logs = logs.clone();
        router = router.route(
            &format!("connector.entryHandler.{method}"),
            move |request| {
                logs.write(&request.message(), format!("handler {method}"));
                let outcome = || call(method, dialect, request);
                match (*method, dialect) {
                    ("throwErr", Dialect::Pomelo) => throw(),
                    ("throwErr", Dialect::Pinus) => Answer::later(async {
                        later(()).await;
                        throw()
                    }),
                    (_, Dialect::Pomelo) => Answer::now(outcome()),
                    (_, Dialect::Pinus) => Answer::later(later(outcome())),
                }
            },
        );
    }
    if server == "c-dict" {
        router = router.handshake(move |_, message| {
            let user = &message["user"];
            let outcome = match &user["want"] {
                _ if user["fail"] == true => Outcome::error("user.fail"),
                Value::Null => Outcome::default(),
                want => Outcome::value(&json!({"hello": want})),
            };
            match dialect {
                Dialect::Pomelo => Answer::now(outcome),
                Dialect::Pinus => Answer::later(later(outcome)),
            }
        });
    }
    router.filters(|filters| match server {
        "c-filter" => c_filter(filters, dialect, logs),
        "c-err" => c_err(filters, dialect, logs),
        _ => {}
    })
}

/// A value that is there when others have had their turn, as that of a promise.
async fn later<T>(value: T) -> T {
    futures_lite::future::yield_now().await;
    value
}

/// A panic that leaves no text on the terminal.
fn throw<T>() -> T {
    std::panic::resume_unwind(Box::new("thrown"))
}

fn call(method: &str, dialect: Dialect, request: &Request<'_>) -> Outcome<'static> {
    let message = request.message();
    let boom = || Outcome::error("boom");
    let boom_with = |response: &Value| Outcome::value(response).with_error("boom");
    match (method, dialect) {
        ("echo", _) => Outcome::value(&message),
        ("kind", _) => Outcome::value(&json!({"type": type_of(&message), "val": message})),
        ("route", Dialect::Pomelo) => {
            let route = &message["__route__"];
            Outcome::value(&json!({"route": route, "hasRoute": !route.is_null()}))
        }
        ("route", Dialect::Pinus) => {
            Outcome::value(&json!({"has": message.get("__route__").is_some()}))
        }
        ("noResp", _) => Outcome::value(&Value::Null),
        ("undefResp", _) => Outcome::default(),
        ("arrResp", _) => Outcome::value(&json!([1, 2, 3])),
        ("strResp", _) => Outcome::value(&json!("hello")),
        ("numResp", _) => Outcome::value(&json!(42)),
        ("falseResp", _) => Outcome::value(&json!(false)),
        ("zeroResp", _) => Outcome::value(&json!(0)),
        ("codeResp", _) => Outcome::value(&json!({"code": 417})),
        ("opts", _) => Outcome::value(&json!({"o": 1})),
        ("utf8", _) => Outcome::value(&json!({"s": "héllo 世界 😀"})),
        // The second answer, `{"n":2}`, has no way out.
        ("twice", _) => Outcome::value(&json!({"n": 1})),
        ("errOnly", _) => boom(),
        ("errStr", _) => Outcome::error("just a string"),
        // A rejected promise has no place for a response.
        (_, Dialect::Pinus) => boom(),
        ("errResp", _) => boom_with(&json!({"msg": "bad"})),
        ("errCode", _) => boom_with(&json!({"code": 417, "msg": "bad"})),
        ("errCode0", _) => boom_with(&json!({"code": 0, "msg": "bad"})),
        ("errStrResp", _) => boom_with(&json!("hello")),
        (other, _) => panic!("no handler {other}"),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// GB1 and B1 stop a message that says so; A1 changes the error; F3 is on both sides.
fn c_filter(filters: &mut Filters, dialect: Dialect, logs: &Logs) {
    let before = |name, stop| before(name, stop, dialect, logs);
    let after = |name, change| after(name, change, dialect, logs);
    let keep: Change = |_, error| error;
    let change: Change = |body, error| {
        if body.get("afterErr").is_some() {
            return Some(Failure::new("from after"));
        }
        error.filter(|_| body.get("afterClear").is_none())
    };
    filters.global_before = vec![before("GB1", "gb"), before("GB2", "")];
    filters.global_after = vec![after("GA1", keep), after("GA2", keep)];
    filters.before = vec![before("B1", "b"), before("B2", ""), before("F3", "")];
    filters.after = vec![after("A1", change), after("A2", keep), after("F3", keep)];
}

/// Both error handlers, and something for the global one to handle.
fn c_err(filters: &mut Filters, dialect: Dialect, logs: &Logs) {
    filters.global_before = vec![before("GB1", "gb", dialect, logs)];
    filters.error_handler = Some(Box::new(move |outcome, _| {
        let (text, response) = taken(&outcome);
        let response = with_previous(json!({"code": 501, "eh": text}), response);
        step(dialect, Outcome::value(&response).with_error(text))
    }));
    filters.global_error_handler = Some(Box::new(move |outcome, _| {
        let (text, response) = taken(&outcome);
        let response = with_previous(json!({"geh": text}), response);
        step(dialect, Outcome::value(&response))
    }));
}

/// A filter that writes its name, and stops a message whose `stop` is as given.
fn before(name: &'static str, stop: &'static str, dialect: Dialect, logs: &Logs) -> Before {
    let logs = logs.clone();
    Box::new(move |incoming| {
        let body = body(incoming);
        logs.write(&body, name.to_owned());
        if body["throw"] == name {
            throw()
        }
        let stopped = !stop.is_empty() && body["stop"] == stop;
        let outcome = || Outcome::value(&json!({"from": stop})).with_error(format!("{stop} stop"));
        step(dialect, if stopped { Err(outcome()) } else { Ok(()) })
    })
}

/// Which error the next filter sees.
type Change = fn(&Value, Option<Failure>) -> Option<Failure>;

/// A filter that writes its name and the error that it sees; one whose name is the message's `hold`
/// first waits until it is released.
fn after(name: &'static str, change: Change, dialect: Dialect, logs: &Logs) -> After {
    let logs = logs.clone();
    Box::new(move |error, incoming, _| {
        let (body, logs) = (body(incoming), logs.clone());
        if body["throw"] == name {
            throw()
        }
        let line = match &error {
            Some(error) => format!("{name} err {}", error.0),
            None => format!("{name} ok"),
        };
        let error = change(&body, error);
        if body["hold"] == name {
            return Step::Later(Box::pin(async move {
                logs.released().await;
                logs.write(&body, line);
                error
            }));
        }
        logs.write(&body, line);
        step(dialect, error)
    })
}

fn step<T: 'static>(dialect: Dialect, value: T) -> Step<T> {
    match dialect {
        Dialect::Pomelo => Step::Ready(value),
        Dialect::Pinus => Step::Later(Box::pin(later(value))),
    }
}

fn body(incoming: &Rc<Incoming>) -> Value {
    serde_json::from_slice(&incoming.body).expect("a body is JSON")
}

/// Text of the error, and the response if there is one.
fn taken(outcome: &Outcome<'static>) -> (String, Option<Value>) {
    let text = outcome
        .error
        .as_ref()
        .expect("an error")
        .0
        .clone()
        .into_owned();
    let response = outcome.response.as_ref();
    let response = response.map(|text| serde_json::from_slice(text).expect("a response is JSON"));
    (text, response)
}

fn with_previous(mut response: Value, previous: Option<Value>) -> Value {
    if let Some(previous) = previous {
        response["prev"] = previous;
    }
    response
}
