//! The live trace: the messages of a session, as an operator sees them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use tangelo::handler::{Json, Reply, Router, Session};

use super::health::with_port;
use crate::harness::admin::AdminPort;
use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::inside::Inside;

async fn login(mut session: Session, Json(login): Json<Value>) -> Reply<Json<Value>> {
    let uid = login["uid"].as_str().unwrap_or_default().to_owned();
    session.bind(uid).await?;
    Ok(Json(json!({"accessToken": "hidden", "ok": true})))
}

async fn greet(session: Session, Json(_): Json<Value>) -> Reply<()> {
    session.push("onGreet", &json!({"text": "hello"}))?;
    Ok(())
}

pub(super) fn handlers() -> Router {
    Router::new()
        .route("h.login", login)
        .route("h.greet", greet)
}

/// Returns the id of the session that is bound to `ann`.
pub(super) fn sid_of_ann(port: &AdminPort) -> String {
    let sessions = port.get("/sessions?uid=ann").body;
    let sessions: Value = serde_json::from_str(&sessions).expect("JSON");
    sessions[0]["id"].to_string()
}

/// Sessions of a shard that are traced at one time.
const TRACED_MAX: usize = 64;

/// A running trace.
struct Trace(BufReader<UnixStream>);

impl Trace {
    /// Begins a trace; returns when it follows this number of sessions.
    fn begin(port: &AdminPort, query: &str, sessions: usize) -> Self {
        let mut stream = UnixStream::connect(port.path()).expect("the port is open");
        stream
            .set_read_timeout(Some(HANG_GUARD))
            .expect("an open socket");
        let request = format!("GET /trace?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it is open");
        let mut trace = Self(BufReader::new(stream));
        let status = trace.line().expect("an answer");
        assert!(status.starts_with("HTTP/1.1 200 "), "{status}");
        while !trace.line().expect("the head has an end").is_empty() {}
        if query.starts_with("uid=") {
            let (name, data) = trace.next().expect("an event");
            assert_eq!((&*name, &data["sessions"]), ("following", &json!(sessions)));
        }
        for _ in 0..sessions.min(TRACED_MAX) {
            assert_eq!(trace.next().expect("an event").0, "begun");
        }
        trace
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let bytes = self
            .0
            .read_line(&mut line)
            .expect("the trace goes on or ends");
        (bytes > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event with its data; `None` at the end.
    fn next(&mut self) -> Option<(String, Value)> {
        let mut name = None;
        loop {
            let line = self.line()?;
            if let Some(event) = line.strip_prefix("event: ") {
                name = Some(event.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data = serde_json::from_str(data).expect("JSON");
                return Some((name.expect("an event has a name"), data));
            }
        }
    }
}

#[test]
fn a_trace_shows_the_messages_of_its_sessions_in_their_order() {
    for shards in [1, 4] {
        let (config, port) = with_port();
        let inside = Inside::start(shards, config, handlers);
        port.wait_until_open();
        let mut clients = [(); 3].map(|()| Client::tcp(inside.address()).open());
        for (client, uid) in clients.iter_mut().zip(["ann", "bob", "ann"]) {
            client.request_text("connector.h.login", json!({ "uid": uid }).to_string());
        }
        inside.wait_counter("sessions_bound", 3);
        let mut trace = Trace::begin(&port, "uid=ann&bodies=true", 2);
        let [ann, bob, also_ann] = &mut clients;
        bob.request_text("connector.h.login", r#"{"uid":"bob"}"#);
        let password = json!({"uid": "ann", "Password": "hidden"}).to_string();
        ann.request_text("connector.h.login", &password);
        let (name, asked) = trace.next().expect("an event");
        assert_eq!(name, "message");
        let sid = asked["sid"].clone();
        for (key, value) in [
            ("direction", json!("in")),
            ("kind", json!("request")),
            ("route", json!("connector.h.login")),
            ("bytes", json!(password.len())),
            ("body", json!(r#"{"uid":"ann","Password":"***"}"#)),
        ] {
            assert_eq!(asked[key], value, "{asked}");
        }
        let (_, answered) = trace.next().expect("an event");
        for (key, value) in [
            ("sid", sid.clone()),
            ("direction", json!("out")),
            ("kind", json!("response")),
            ("id", asked["id"].clone()),
            ("route", json!("connector.h.login")),
            ("body", json!(r#"{"accessToken":"***","ok":true}"#)),
        ] {
            assert_eq!(answered[key], value, "{answered}");
        }
        assert!(answered["took_us"].is_u64(), "{answered}");

        also_ann.request_text("connector.h.greet", "{}");
        let kinds = [(); 3].map(|()| {
            let (_, event) = trace.next().expect("an event");
            assert_ne!(event["sid"], sid);
            event["kind"].as_str().unwrap_or_default().to_owned()
        });
        assert_eq!(kinds, ["request", "push", "response"]);
        let [ann, bob, also_ann] = clients;
        for client in [ann, also_ann] {
            drop(client);
            let (name, data) = trace.next().expect("an event");
            assert_eq!((&*name, &data["reason"]), ("closed", &json!("left")));
        }
        drop(bob);
        inside.stop();
        assert_eq!(trace.next(), None, "a trace ends with its gateway");
    }
}

#[test]
fn a_trace_of_a_uid_follows_the_sessions_that_are_bound_later() {
    for shards in [1, 4] {
        let (config, port) = with_port();
        let inside = Inside::start(shards, config, handlers);
        port.wait_until_open();
        let mut trace = Trace::begin(&port, "uid=ann", 0);
        for uid in ["bob", "ann", "ann"] {
            let mut client = Client::tcp(inside.address()).open();
            client.request_text("connector.h.login", json!({ "uid": uid }).to_string());
            drop(client);
            if uid == "bob" {
                continue;
            }
            // The message is the answer to the login.
            for expected in ["begun", "message", "closed"] {
                let (name, data) = trace.next().expect("an event");
                assert_eq!(name, expected, "{data}");
            }
        }
        inside.stop();
        assert_eq!(trace.next(), None, "nobody else is traced");
    }
}

#[test]
fn a_trace_of_a_session_ends_with_it() {
    let (config, port) = with_port();
    let inside = Inside::start(2, config, handlers);
    port.wait_until_open();
    let mut client = Client::tcp(inside.address()).open();
    client.request_text("connector.h.login", r#"{"uid":"ann"}"#);
    inside.wait_counter("sessions_bound", 1);
    let mut trace = Trace::begin(&port, &format!("sid={}", sid_of_ann(&port)), 1);
    drop(client);
    assert_eq!(trace.next().expect("an event").0, "closed");
    assert_eq!(trace.next(), None);
    inside.stop();
}

#[test]
fn a_trace_names_the_sessions_that_it_leaves_out() {
    let (config, port) = with_port();
    let inside = Inside::start(1, config, handlers);
    port.wait_until_open();
    let mut clients = [(); TRACED_MAX + 2].map(|()| Client::tcp(inside.address()).open());
    for client in &mut clients {
        client.request_text("connector.h.login", r#"{"uid":"ann"}"#);
    }
    inside.wait_counter("sessions_bound", clients.len() as u64);
    let mut trace = Trace::begin(&port, "uid=ann", clients.len());
    for _ in 0..2 {
        let (name, data) = trace.next().expect("an event");
        assert_eq!(name, "left_out");
        assert!(data["sid"].is_u64(), "{data}");
    }
    inside.stop();
}

#[test]
fn a_trace_without_bodies_has_none_and_one_without_a_session_is_refused() {
    let (config, port) = with_port();
    let inside = Inside::start(1, config, handlers);
    port.wait_until_open();
    assert_eq!(port.get("/trace?sid=3").status, 404);
    assert_eq!(port.get("/trace").status, 400);
    let mut client = Client::tcp(inside.address()).open();
    client.request_text("connector.h.login", r#"{"uid":"ann"}"#);
    inside.wait_counter("sessions_bound", 1);
    let mut trace = Trace::begin(&port, "uid=ann", 1);
    client.request_text("connector.h.greet", r#"{"token":"hidden"}"#);
    for _ in 0..3 {
        let (_, event) = trace.next().expect("an event");
        assert_eq!(event.get("body"), None, "{event}");
    }
    drop(trace);
    client.request_text("connector.h.greet", "{}");
    inside.stop();
}

#[test]
fn a_slow_reader_of_a_trace_loses_events_and_hears_how_many() {
    const REQUESTS: u64 = 5000;
    let (mut config, port) = with_port();
    config.client.messages_per_second = None;
    let inside = Inside::start(1, config, handlers);
    port.wait_until_open();
    let mut client = Client::tcp(inside.address()).open();
    client.request_text("connector.h.login", r#"{"uid":"ann"}"#);
    inside.wait_counter("sessions_bound", 1);
    let query = format!("sid={}&bodies=true", sid_of_ann(&port));
    let mut trace = Trace::begin(&port, &query, 1);
    let body = json!({ "text": "x".repeat(1000) }).to_string();
    for _ in 0..REQUESTS {
        client.request_text("connector.h.greet", &body);
    }
    drop(client);
    let (mut shown, mut lost) = (0, 0);
    while let Some((name, data)) = trace.next() {
        match &*name {
            "message" => shown += 1,
            "dropped" => lost += data["count"].as_u64().expect("a number"),
            _ => {}
        }
    }
    assert!(lost > 0, "the queue has a bound");
    // The last ones may be lost after the last event that was shown.
    assert!(shown + lost <= 3 * REQUESTS + 1, "{shown} and {lost}");
    inside.stop();
}
