//! Handlers as plain async functions: their arguments, their results, and their router.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tangelo::config::{Dialect, Server};
use tangelo::handler::{
    App, ClientAddr, Failure, FromMessage, Handshake, Incoming, Json, Outcome, Proto, Reply,
    Request, Route, Router, Session, Sid, State,
};
use tangelo::{Config, Error, Gateway};

use crate::application::protobuf::{config, protos_file};
use crate::harness::client::Client;
use crate::harness::inside::Inside;

const ADD: &str = "connector.mathHandler.add";
const CODE_500: &str = r#"{"code":500}"#;

#[derive(Deserialize)]
struct Add {
    a: i64,
    #[serde(default)]
    b: i64,
}

#[derive(Serialize)]
struct Sum {
    sum: i64,
}

async fn add(Json(Add { a, b }): Json<Add>) -> Json<Sum> {
    Json(Sum { sum: a + b })
}

/// Lets others run once: such a handler has a task of its own.
async fn wait() {
    futures_lite::future::yield_now().await;
}

fn ask(inside: &Inside, route: &str, body: &str) -> String {
    let mut client = Client::tcp(inside.address()).open();
    client.request_text(route, body)
}

#[test]
fn a_body_is_what_its_handler_takes_or_an_error_that_is_counted() {
    let handlers = || {
        Router::new()
            .route("mathHandler.add", add)
            .route(
                "mathHandler.try",
                async |request: Reply<Json<Add>>| match request {
                    Ok(Json(Add { a, b })) => json!(a + b),
                    Err(_) => json!("numbers, please"),
                },
            )
            .route("mathHandler.text", async |body: Bytes| body)
    };
    Inside::on_one_shard_and_on_four(&Config::default(), handlers, |inside| {
        for (method, body, response) in [
            ("add", r#"{"a":1,"b":2}"#, r#"{"sum":3}"#),
            ("add", r#"{"a":1}"#, r#"{"sum":1}"#),
            ("add", r#"{"a":"1"}"#, CODE_500),
            ("add", r#"{"b":2}"#, CODE_500),
            ("add", "[1,2]", r#"{"sum":3}"#),
            // As in the reference, a body that is not JSON is `{}`.
            ("add", "{", CODE_500),
            ("add", "null", CODE_500),
            ("try", r#"{"a":4,"b":5}"#, "9"),
            ("try", "{}", r#""numbers, please""#),
            ("text", r#"{"é": [1 , 2]}"#, r#"{"é": [1 , 2]}"#),
        ] {
            let route = format!("connector.mathHandler.{method}");
            assert_eq!(ask(inside, &route, body), response, "{method} {body}");
        }
        assert_eq!(inside.counter("bodies_unfit"), 5);
        assert_eq!(inside.counter("messages_failed"), 4);
    });
}

/// A type of the application's own.
struct Method(String);

impl FromMessage for Method {
    fn from_message(request: &Request<'_>) -> Reply<Self> {
        let method = request.route.rsplit('.').next();
        Ok(Self(method.ok_or(Failure::new("no method"))?.to_owned()))
    }
}

#[test]
fn a_handler_takes_up_to_eight_arguments_of_any_kind() {
    #[allow(clippy::too_many_arguments, reason = "as many as there may be")]
    async fn all(
        session: Session,
        State(name): State<&'static str>,
        Route(route): Route,
        address: ClientAddr,
        Handshake(handshake): Handshake,
        app: App,
        Method(method): Method,
        Json(body): Json<Value>,
    ) -> Value {
        wait().await;
        json!({
            "session": session.id().get() > 0 && session.is_open(),
            "state": name,
            "route": route,
            "ip": address.ip,
            "type": handshake["sys"]["type"],
            "server": app.server_id(),
            "method": method,
            "body": body,
        })
    }
    let handlers = || {
        Router::new()
            .route("h.all", all)
            .with_state("replaced")
            .with_state("one of each type")
    };
    Inside::on_one_shard_and_on_four(&Config::default(), handlers, |inside| {
        for client in &mut inside.clients() {
            let got: Value = serde_json::from_str(&client.request_text("connector.h.all", "7"))
                .expect("a response is JSON");
            let expected = json!({
                "session": true, "state": "one of each type", "route": "connector.h.all",
                "ip": "127.0.0.1", "type": "e2e", "server": "connector-1", "method": "all", "body": 7,
            });
            assert_eq!(got, expected);
        }
    });
}

#[derive(Debug)]
struct NoSuchRoom;

/// An error of the application's own that is a response.
impl From<NoSuchRoom> for Outcome<'static> {
    fn from(_: NoSuchRoom) -> Self {
        Outcome::value(&json!({ "code": 404 }))
    }
}

#[test]
fn replies_and_errors_are_what_the_reference_makes_of_them() {
    let handlers = || {
        let fail = |later: bool| async move {
            if later {
                wait().await;
            }
            let number: u32 = "x".parse()?;
            Reply::Ok(Json(number))
        };
        Router::new()
            .route("h.unit", async || {})
            .route("h.falsy", async || Json(0))
            .route("h.text", async || Json("hi"))
            .route("h.value", async || json!({ "n": 1.0 }))
            .route("h.ok", async || {
                Ok::<_, Failure>(Bytes::from_static(b"[1]"))
            })
            .route("h.fail", move || fail(false))
            .route("h.failLater", move || fail(true))
            .route("h.std", async || "x".parse::<u32>().map(Json))
            .route("h.own", async || Err::<(), _>(NoSuchRoom))
            .route("h.both", async || {
                let outcome = Outcome::value(&json!({ "why": "full" }));
                Err::<(), _>(outcome.with_error("no room"))
            })
            .route("h.coded", async || {
                let outcome = Outcome::value(&json!({ "code": 503 }));
                Err::<(), _>(outcome.with_error("no room"))
            })
            .route("h.noJson", async || {
                Json(std::collections::BTreeMap::from([((1, 2), 3)]))
            })
            .route("h.pushes", async |session: Session| {
                session.push("onFirst", &json!({ "n": 1 }))?;
                wait().await;
                session.push("onSecond", "two")?;
                Reply::Ok(Json("last"))
            })
            .fallback(async |Route(route): Route| Json(route))
    };
    Inside::on_one_shard_and_on_four(&Config::default(), handlers, |inside| {
        let mut client = Client::websocket(inside.address()).open();
        for (method, response) in [
            ("unit", "{}"),
            ("falsy", "{}"),
            ("text", r#""hi""#),
            ("value", r#"{"n":1}"#),
            ("ok", "[1]"),
            ("fail", CODE_500),
            ("failLater", CODE_500),
            ("std", CODE_500),
            ("own", r#"{"code":404}"#),
            ("both", r#"{"why":"full","code":500}"#),
            ("coded", r#"{"code":503}"#),
            ("noJson", CODE_500),
            ("nobody", r#""connector.h.nobody""#),
        ] {
            let response_of = client.request_text(&*format!("connector.h.{method}"), "{}");
            assert_eq!(response_of, response, "{method}");
        }
        assert_eq!(client.request_text("connector.h.pushes", "{}"), r#""last""#);
        assert_eq!(client.next_push(), ("onFirst".into(), br#"{"n":1}"#.into()));
        assert_eq!(client.next_push(), ("onSecond".into(), br#""two""#.into()));
        // A notify is not answered, whatever its handler returns.
        client.notify("connector.h.text", "{}");
        client.notify("connector.h.fail", "{}");
        assert_eq!(client.request_text("connector.h.ok", "{}"), "[1]");
    });
}

#[test]
fn a_state_is_one_for_each_core_or_one_for_the_process() {
    #[derive(Clone, Default)]
    struct Process(Arc<AtomicU32>);
    type Core = Rc<Cell<u32>>;
    async fn count(
        session: Session,
        State(core): State<Core>,
        State(process): State<Process>,
    ) -> Value {
        core.set(core.get() + 1);
        let process = process.0.fetch_add(1, Ordering::Relaxed) + 1;
        json!([session.id().shard().0, core.get(), process])
    }
    let process = Process::default();
    let inside = Inside::start(4, Config::default(), move || {
        Router::new()
            .route("h.count", count)
            .with_state(Core::default())
            .with_state(process.clone())
    });
    let mut by_shard = [0; 4];
    for (n, client) in (1..).zip(&mut inside.clients()) {
        let got = client.request_text("connector.h.count", "{}");
        let [shard, core, process]: [u32; 3] = serde_json::from_str(&got).expect("three numbers");
        by_shard[shard as usize] += 1;
        assert_eq!((core, process), (by_shard[shard as usize], n));
    }
}

#[test]
fn groups_have_filters_of_their_own_inside_the_others() {
    type Steps = Rc<RefCell<Vec<String>>>;
    fn done(
        name: &'static str,
    ) -> impl AsyncFn(Outcome<'static>, Rc<Incoming>) -> Option<Failure> + 'static {
        async move |outcome, incoming| {
            let steps: Steps = incoming.session.app().state().expect("the state is set");
            steps.borrow_mut().push(name.to_owned());
            outcome.error
        }
    }
    async fn boom() -> Reply<()> {
        Err(Failure::new("boom"))
    }
    let handlers = || {
        let inner = Router::new()
            .route("boom", boom)
            .before(async |State(steps): State<Steps>| steps.borrow_mut().push("inner".into()))
            .after(done("inner after"));
        let chat = Router::new()
            .route("boom", boom)
            .route("ok", async || Json("ok"))
            .before(async |State(steps): State<Steps>| {
                wait().await;
                steps.borrow_mut().push("chat".into());
            })
            .after(done("chat after"))
            .on_error(async |outcome: Outcome<'static>, _| {
                let text = outcome.error.expect("only errors come here").0;
                Outcome::value(&json!({ "caught": text }))
            })
            .group("", Router::new().route("deep", boom).group("", inner));
        Router::new()
            .group("chatHandler", chat)
            .route("h.boom", boom)
            .route("h.steps", async |State(steps): State<Steps>| {
                Json(std::mem::take(&mut *steps.borrow_mut()))
            })
            .before(async |State(steps): State<Steps>, Route(route): Route| {
                if !route.ends_with("steps") {
                    steps.borrow_mut().push("outer".into());
                }
            })
            .with_state(Steps::default())
    };
    let inside = Inside::start(1, Config::default(), handlers);
    let mut client = Client::tcp(inside.address()).open();
    for (route, response, steps) in [
        ("h.boom", CODE_500, json!(["outer"])),
        (
            "chatHandler.ok",
            r#""ok""#,
            json!(["outer", "chat", "chat after"]),
        ),
        (
            "chatHandler.deep",
            r#"{"caught":"boom"}"#,
            json!(["outer", "chat", "chat after"]),
        ),
        (
            "chatHandler.boom",
            r#"{"caught":"boom"}"#,
            json!(["outer", "chat", "inner", "inner after", "chat after"]),
        ),
    ] {
        assert_eq!(
            client.request_text(&*format!("connector.{route}"), "{}"),
            response
        );
        let seen = client.request_text("connector.h.steps", "{}");
        assert_eq!(seen, steps.to_string(), "{route}");
    }
}

#[test]
fn a_before_filter_lets_go_on_or_answers() {
    let handlers = || {
        Router::new()
            .route("h.ok", async || Json("handled"))
            .before(
                async |Json(body): Json<Value>| -> Result<(), Outcome<'static>> {
                    match body["filter"].as_str() {
                        Some("answer") => Err(Outcome::value(&json!("filtered"))),
                        Some("fail") => Err(Outcome::error("no")),
                        _ => Ok(()),
                    }
                },
            )
            .global_before(async |Route(route): Route| {
                wait().await;
                if route.ends_with("closed") {
                    return Err(Failure::new("closed"));
                }
                Ok(())
            })
            .on_global_error(async |_, incoming: Rc<Incoming>| Json(incoming.route.clone()))
            .global_after(async |outcome: Outcome<'static>, incoming: Rc<Incoming>| {
                let response = outcome.response.as_deref().map(String::from_utf8_lossy);
                let _ = incoming.session.push("onAfter", &[response]);
                None
            })
    };
    let inside = Inside::start(2, Config::default(), handlers);
    let mut client = Client::tcp(inside.address()).open();
    for (route, body, response) in [
        ("connector.h.ok", "{}", r#""handled""#),
        ("connector.h.ok", r#"{"filter":"answer"}"#, r#""filtered""#),
        ("connector.h.ok", r#"{"filter":"fail"}"#, CODE_500),
        ("connector.h.closed", "{}", r#""connector.h.closed""#),
    ] {
        assert_eq!(client.request_text(route, body), response);
        let (route, _) = client.next_push();
        assert_eq!(route, "onAfter");
    }
}

#[test]
fn a_part_that_a_route_needs_is_missed_at_the_start() {
    struct Missing;
    fn refused(config: Config, handlers: fn() -> Router) -> String {
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            shards: Some(2),
            ..config
        };
        let gateway = Gateway::new(config).handlers(move |_| handlers());
        match gateway.start().and_then(tangelo::Running::join) {
            Err(Error::Handlers(text)) => text,
            other => panic!("{other:?}"),
        }
    }
    async fn takes(_: State<Rc<Missing>>) {}
    let delegating = Config {
        delegate: Some("entry".into()),
        servers: vec![Server {
            id: "entry-1".into(),
            server_type: "entry".into(),
            host: "127.0.0.1".into(),
            port: 1,
            ..Server::default()
        }],
        ..Config::default()
    };
    for (config, handlers, text) in [
        (
            Config::default(),
            (|| Router::new().route("h.m", takes)) as fn() -> Router,
            "connector.h.m takes State<alloc::rc::Rc<",
        ),
        (
            Config::default(),
            || Router::new().route("h.m", async || {}).before(takes),
            "a filter takes State<alloc::rc::Rc<",
        ),
        (
            Config::default(),
            || Router::new().route("m", async || {}),
            r#"route "m" is not of the form handler.method or serverType.handler.method"#,
        ),
        (
            Config::default(),
            || Router::new().route("a.b.c.d", async || {}),
            r#"route "a.b.c.d" is not of the form"#,
        ),
        (
            Config::default(),
            || Router::new().route("h.constructor", async || {}),
            r#"route "connector.h.constructor" is not allowed"#,
        ),
        (
            Config::default(),
            || Router::new().route("h.m", async |_: Proto<Value>| {}),
            "connector.h.m takes a Proto, but clientProtos.json has no entry for it",
        ),
        (
            Config::default(),
            || Router::new().route("h.m", async || Proto(1)),
            "connector.h.m returns a Proto, but serverProtos.json has no entry for it",
        ),
        (
            delegating,
            || Router::new().fallback(async || {}),
            r#"Router::fallback and delegate = "entry" are both set, but only one of them can take "#,
        ),
        (
            Config::default(),
            || Router::new().remote("who", async |_| {}),
            r#"remote "who" is not of the form service.method"#,
        ),
    ] {
        let refusal = refused(config, handlers);
        assert!(refusal.starts_with(text), "{refusal}");
    }
}

#[test]
fn a_session_is_told_of_its_own_end() {
    let handlers = || {
        Router::new()
            .route("h.watch", async |session: Session, Json(n): Json<u32>| {
                let mut refused = 0;
                for _ in 0..n {
                    let told = session.on_close(|session| {
                        let uid = session.uid().map(|uid| uid.text().to_owned());
                        let _ = session.app().broadcast("onGone", &uid);
                    });
                    refused += u32::from(told.is_err());
                }
                Json(refused)
            })
            .route("h.bind", async |mut session: Session| {
                session.bind("ann").await
            })
            .route("h.dead", async |session: Session| {
                session.kick(None);
                Json(session.on_close(|_| panic!("never called")).is_err())
            })
    };
    Inside::on_one_shard_and_on_four(&Config::default(), handlers, |inside| {
        let mut other = Client::tcp(inside.address()).open();
        let mut client = Client::tcp(inside.address()).open();
        assert_eq!(client.request_text("connector.h.watch", "2"), "{}");
        assert_eq!(client.request_text("connector.h.bind", "{}"), "{}");
        drop(client);
        for _ in 0..2 {
            assert_eq!(other.next_push(), ("onGone".into(), br#""ann""#.into()));
        }
        // There is a bound.
        let mut client = Client::tcp(inside.address()).open();
        assert_eq!(client.request_text("connector.h.watch", "70"), "6");
        let mut client = Client::tcp(inside.address()).open();
        client.notify("connector.h.dead", "{}");
        inside.wait_gauge("connections", 2);
        assert_eq!(inside.counter("handler_panics"), 0);
    });
}

#[test]
fn pushes_reach_sessions_and_uids_of_every_shard() {
    async fn tell(app: App, Json((sids, uids)): Json<(Vec<u64>, Vec<String>)>) -> Reply<Value> {
        let sids: Vec<Sid> = sids.into_iter().filter_map(Sid::from_wire).collect();
        app.push_to(&sids, "onSids", &json!({ "to": sids.len() }))?;
        let missed = app.push_to_uids(&uids, "onUids", &json!([])).await?;
        Ok(json!(missed))
    }
    async fn enter(mut session: Session, Json(uid): Json<String>) -> Reply<Value> {
        session.bind(uid).await?;
        Ok(json!(session.id().get()))
    }
    async fn kick(app: App, Json(uid): Json<String>) {
        app.kick(&uid, Some("enough")).await;
    }
    let handlers = || {
        Router::new()
            .route("h.tell", tell)
            .route("h.enter", enter)
            .route("h.kick", kick)
            .route("h.look", async |app: App| {
                Json((
                    app.sessions().await,
                    app.statistics().await["loginedCount"].clone(),
                ))
            })
    };
    Inside::on_one_shard_and_on_four(&Config::default(), handlers, |inside| {
        let mut clients = inside.clients();
        let count = clients.len();
        let mut sids = Vec::new();
        for (n, client) in clients.iter_mut().enumerate() {
            let sid = client.request_text("connector.h.enter", format!("\"u{n}\""));
            sids.push(sid.parse::<u64>().expect("a session id"));
        }
        let everybody: Vec<String> = (0..=count).map(|n| format!("u{n}")).collect();
        let body = json!([sids[1..], everybody]).to_string();
        let missed = clients[0].request_text("connector.h.tell", body);
        assert_eq!(missed, json!([format!("u{count}")]).to_string());
        let to_sids = json!({ "to": count - 1 }).to_string();
        for (n, client) in clients.iter_mut().enumerate() {
            // The coordinator finds the shards of uids, so a push to uids takes another way than a
            // push to sids: either may be the first on another shard.
            let mut expected = vec![("onUids".to_owned(), b"[]".to_vec())];
            if n > 0 {
                expected.push(("onSids".to_owned(), to_sids.clone().into_bytes()));
            }
            let mut pushes: Vec<_> = expected.iter().map(|_| client.next_push()).collect();
            pushes.sort();
            expected.sort();
            assert_eq!(pushes, expected);
        }
        let look = clients[0].request_text("connector.h.look", "{}");
        let look: Value = serde_json::from_str(&look).expect("JSON");
        assert_eq!(
            (&look[0]["count"], &look[1]),
            (&json!(count), &json!(count))
        );
        clients[0].notify("connector.h.kick", r#""u1""#);
        assert_eq!(clients[1].wait_kick(), "enough");
    });
}

#[test]
fn a_handshake_is_kept_where_a_handler_takes_it() {
    let handlers = || {
        Router::new().route("h.hello", async |handshake: Option<Handshake>| {
            handshake.map_or(json!("not kept"), |Handshake(kept)| kept["user"].clone())
        })
    };
    let mut config = Config::default();
    config.client.handshake_bytes_max = 1 << 20;
    Inside::on_one_shard_and_on_four(&config, handlers, |inside| {
        for (bytes, expected) in [(10, 12), (20 << 10, 10)] {
            let mut client = Client::tcp(inside.address());
            let user = "x".repeat(bytes);
            let hello = json!({ "sys": {}, "user": user }).to_string();
            client.send_package(1, hello.as_bytes());
            client.next_package().expect("a handshake is answered");
            client.ack();
            let got = client.request_text("connector.h.hello", "{}");
            assert_eq!(got.len(), expected, "{got}");
        }
    });
}

#[test]
fn a_typed_route_over_protobuf_has_its_protos() {
    let takes = json!({ ADD: { "required uInt32 a": 1, "optional uInt32 b": 2 } });
    let returns = json!({ ADD: { "required uInt32 sum": 1 } });
    let takes = protos_file(takes.to_string());
    let returns = protos_file(returns.to_string());
    let config = config(Dialect::Pomelo, &returns, &takes);
    let handlers = || {
        Router::new().route("mathHandler.add", async |Proto(add): Proto<Add>| {
            Proto(Sum { sum: add.a + add.b })
        })
    };
    let inside = Inside::start(1, config, handlers);
    let mut client = Client::tcp(inside.address()).open();
    // Tags 1 and 2, varints.
    client.request(7, ADD, [8, 40, 16, 2]);
    assert_eq!(client.wait_response(7), [8, 42]);
}
