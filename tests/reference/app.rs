//! The reference application, as handlers and filters in Rust; `tests/genuine/reference/` is the same
//! in JavaScript.
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
use tangelo::handler::{
    Answer, BroadcastOptions, Failure, Incoming, Outcome, Request, Router, Session,
};
use tangelo::session::Uid;

use super::client::HANG_GUARD;
use super::pause::pause;

/// Methods of `connector.entryHandler`.
#[rustfmt::skip]
const METHODS: &[&str] = &[
    "arrResp", "codeResp", "echo", "echoProto", "errCode", "errCode0", "errOnly", "errResp", "errStr",
    "errStrResp", "falseResp", "kind", "noResp", "numResp", "opts", "route", "strResp", "throwErr",
    "twice", "undefResp", "utf8", "zeroResp",
];

/// Those that need more than the message.
#[rustfmt::skip]
const ON_SESSION: &[&str] = &[
    "addr", "args", "bcast", "clearLog", "connSend", "enter", "exportS", "getp", "kickCb",
    "kickNoReason", "kickSelf", "kickUid", "log", "never", "pushN", "pushThenKick", "pushall",
    "respThenKick", "sess", "setnp", "setp", "slow", "stat", "unbind",
];

/// The logs of filters and handlers about messages that ask for one: `log` is the name of the log.
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

    /// Returns the lines of a log.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let written = self.0.0.lock().unwrap();
        written.logs.get(name).cloned().unwrap_or_default()
    }

    fn clear(&self) {
        self.0.0.lock().unwrap().logs.clear();
    }

    /// Returns the lines of a log, once the last filter has written there.
    pub(crate) fn whole(&self, name: &str) -> Vec<String> {
        let by_last = |line: &String| line.starts_with("GA1 ");
        let written = self.0.0.lock().unwrap();
        let waited = self.0.1.wait_timeout_while(written, HANG_GUARD, |written| {
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
            pause(Duration::from_millis(1)).await;
        }
    }
}

/// Handlers and filters of a server of the reference application. Each dialect's application lacks
/// some methods; where codes are given, that shows.
pub(crate) fn router(
    server: &str,
    dialect: Dialect,
    logs: &Logs,
    is_there: impl Fn(&str) -> bool,
) -> Router {
    let mut router = Router::new();
    for method in METHODS.iter().filter(|method| is_there(method)) {
        let logs = logs.clone();
        router = router.raw_route(
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
    for method in ON_SESSION.iter().filter(|method| is_there(method)) {
        let logs = logs.clone();
        let route = format!("connector.entryHandler.{method}");
        router = router.raw_route(&route, move |request| {
            let message = request.message();
            logs.write(&message, format!("handler {method}"));
            let (session, logs) = (request.session.clone(), logs.clone());
            on_session(method, message, session, logs)
        });
    }
    if server == "c-dict" {
        router = router.handshake(move |_, message| {
            let user = &message["user"];
            let outcome = match &user["want"] {
                _ if user["fail"] == true => Outcome::error("user.fail"),
                Value::Null => Outcome::default(),
                none if *none == 0 => Outcome::default(),
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
        ("echoProto", _) => {
            let mut message = message;
            message
                .as_object_mut()
                .map(|of| of.shift_remove("__route__"));
            Outcome::value(&message)
        }
        ("kind", _) => Outcome::value(&json!({"type": type_of(&message), "val": message})),
        ("route", Dialect::Pomelo) => {
            let route = message.get("__route__");
            let has_route = json!({"hasRoute": route.is_some()});
            let with = |route| json!({"route": route, "hasRoute": true});
            Outcome::value(&route.map_or(has_route, with))
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

fn on_session<'a>(method: &str, m: Value, mut session: Session, logs: Logs) -> Answer<'a> {
    let value = |value: Value| Answer::now(Outcome::value(&value));
    let done =
        |result: Result<(), Failure>| Answer::now(Outcome::value(&json!({"err": text(result)})));
    let key = || m["k"].as_str().expect("a key").to_owned();
    let json = |bytes: Vec<u8>| Answer::now(Outcome::json(bytes));
    match method {
        "addr" => {
            let address = session.client_address().expect("the session is connected");
            let port: u16 = address.port.parse().expect("a number");
            value(json!({"ip": address.ip, "port": port}))
        }
        // In JavaScript an array is as many arguments, and two more come behind it.
        "args" => value(json!({"a": m[0], "b": m[1], "sid": session.id().get(), "n": 4})),
        "enter" | "unbind" => bind(method == "enter", &m["uid"], session),
        "setnp" => {
            session.set(&key(), m["v"].clone());
            json(session.export())
        }
        "setp" => {
            session.set(&key(), m["v"].clone());
            done(session.push_setting(&key()))
        }
        "getp" => {
            let undefined = json!("<undefined>");
            value(json!({"v": session.get(&key()).unwrap_or(&undefined)}))
        }
        "pushall" => {
            for (key, value) in m["kv"].as_object().expect("an object") {
                session.set(key, value.clone());
            }
            done(session.push_settings())
        }
        "exportS" => json(session.export()),
        "stat" => Answer::later(async move { Outcome::value(&session.app().statistics().await) }),
        "sess" => Answer::later(async move { Outcome::value(&session.app().sessions().await) }),
        "log" => value(json!({"lines": logs.lines(m["name"].as_str().expect("a name"))})),
        "clearLog" => {
            logs.clear();
            value(Value::Null)
        }
        "never" => Answer::later(std::future::pending()),
        "slow" => Answer::later(async move {
            let ms = m["ms"].as_u64().expect("a time");
            pause(Duration::from_millis(ms)).await;
            Outcome::value(&json!({"slow": ms, "tag": m["tag"]}))
        }),
        _ => to_clients(method, m, session),
    }
}

/// Pushes and kicks.
fn to_clients<'a>(method: &str, m: Value, session: Session) -> Answer<'a> {
    let value = |value: Value| Answer::now(Outcome::value(&value));
    let done = |result: Result<(), Failure>| value(json!({"err": text(result)}));
    let push = |n: u64| {
        for i in 0..n {
            let body = json!({"i": i}).to_string();
            session
                .push_raw("onN", body.as_bytes())
                .expect("the body fits into a package");
        }
    };
    let (route, body) = (
        m["route"].as_str().unwrap_or_default(),
        m["body"].to_string(),
    );
    let reason = m["reason"].as_str();
    match method {
        "connSend" => done(session.push_raw(route, body.as_bytes()).map(|_| ())),
        "pushN" => {
            push(m["n"].as_u64().expect("a number"));
            value(json!({"n": m["n"]}))
        }
        "bcast" => {
            let options = BroadcastOptions {
                bound_only: m["opts"]["binded"] == true,
                ..BroadcastOptions::default()
            };
            done(session.app().broadcast_with(route, &m["body"], options))
        }
        "pushThenKick" => {
            push(3);
            session.kick(Some("pk"));
            Answer::now(Outcome::default())
        }
        "kickSelf" => {
            session.kick(reason);
            value(json!({"late": true}))
        }
        // The reason of Pomelo where a callback has none.
        "kickCb" => {
            session.kick(Some("kick"));
            done(Ok(()))
        }
        "kickNoReason" => {
            session.kick(None);
            value(json!({"late": true}))
        }
        "respThenKick" => {
            let kick = async move {
                later(()).await;
                session.kick(Some("bye"))
            };
            glommio::spawn_local(kick).detach();
            value(json!({"ok": 1}))
        }
        "kickUid" => Answer::later(async move {
            let uid = Uid::from_json(&m["uid"]).expect("a uid");
            session.app().kick(uid.text(), m["reason"].as_str()).await;
            Outcome::value(&json!({"err": null}))
        }),
        other => panic!("no handler {other}"),
    }
}

fn bind<'a>(enter: bool, uid: &Value, mut session: Session) -> Answer<'a> {
    let uid = Uid::from_json(uid).expect("a uid");
    Answer::later(async move {
        let done = match enter {
            true => session.bind(uid).await,
            false => session.unbind(&uid),
        };
        let uid = session.uid().map_or("null", Uid::json);
        let uid: Value = serde_json::from_str(uid).expect("a uid is JSON");
        Outcome::value(&json!({"err": text(done), "uid": uid}))
    })
}

fn text(done: Result<(), Failure>) -> Option<String> {
    done.err().map(|failure| failure.0.into_owned())
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
