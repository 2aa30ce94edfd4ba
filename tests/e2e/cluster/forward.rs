//! Requests and notifies travel to a genuine backend, and answers come back: what a player sees
//! of a Pomelo connector, a player of tangelo sees too, over TCP and WebSocket, on one shard and
//! on four.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::{Client, End, HANG_GUARD, Message};
use crate::harness::frontend::Transport;
use crate::harness::gateway::Gateway;
use crate::harness::peers::{BACKENDS, Cluster, Connector, Dialect};

const CODE_500: &str = r#"{"code":500}"#;

/// For the tests of deadlines. Answers meant to be late take five times as long, so that a slow
/// machine does not turn them round.
const SHORT_TIMEOUT: [&str; 2] = ["--set", "rpc.timeout=300ms"];
const LATE_MS: u32 = 1500;

/// One of the four ways to play.
struct Setup<'a> {
    gateway: &'a mut Gateway,
    frontend_id: &'a str,
    transport: Transport,
    shards: usize,
}

impl Setup<'_> {
    /// A client that has shaken hands.
    fn client(&self) -> Client {
        match self.transport {
            Transport::Tcp => Client::tcp(self.gateway.address()).open(),
            Transport::WebSocket => Client::websocket(self.gateway.address()).open(),
        }
    }

    /// Returns enough clients that, with four shards, some are not on the shard with the link to the backend.
    fn clients(&self) -> Vec<Client> {
        let count = if self.shards == 1 { 2 } else { 8 };
        (0..count).map(|_| self.client()).collect()
    }
}

impl fmt::Display for Setup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {} shards", self.transport, self.shards)
    }
}

fn in_every_setup(cluster: &Cluster, extra: &[&str], mut test: impl FnMut(&mut Setup<'_>)) {
    for shards in [1, 4] {
        let connector = cluster.take_connector();
        let args = args(
            cluster,
            &connector,
            if shards == 1 { "1" } else { "4" },
            extra,
        );
        let mut gateway = Gateway::start(&args);
        for transport in [Transport::Tcp, Transport::WebSocket] {
            let mut setup = Setup {
                gateway: &mut gateway,
                frontend_id: connector.id(),
                transport,
                shards,
            };
            // Shown only when the test fails.
            println!("--- {setup}");
            test(&mut setup);
        }
    }
}

fn args<'a>(
    cluster: &'a Cluster,
    connector: &Connector<'a>,
    shards: &'a str,
    extra: &[&'a str],
) -> Vec<&'a str> {
    let own = [
        "--app-dir",
        cluster.app_dir(),
        "--id",
        connector.id(),
        "--shards",
        shards,
        // So that a call which only its deadline ends reaches the hang guard of the test first.
        "--set",
        "rpc.timeout=10m",
    ];
    own.iter().chain(extra).copied().collect()
}

fn chat(method: &str) -> String {
    format!("chat.chatHandler.{method}")
}

/// Asks until the answer is not an error: a backend that just came back has to be found again.
fn request_until_answered(client: &mut Client, method: &str) -> String {
    let deadline = Instant::now() + HANG_GUARD;
    loop {
        let answer = client.request_text(chat(method).as_str(), "{}");
        if answer != CODE_500 {
            return answer;
        }
        assert!(Instant::now() < deadline, "{method} is not answered again");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Returns the notes of the session in `list`, as the backend saw them.
fn notes(client: &mut Client, list: &str) -> Value {
    let body = json!({"list": list}).to_string();
    let answer = client.request_text(chat("notes").as_str(), body);
    let answer: Value = serde_json::from_str(&answer).expect("an answer is JSON");
    answer["notes"].clone()
}

/// A list name that no other test run of this binary uses on the same backend.
fn fresh_list() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("list-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Shows that nothing was sent before: the next message is the answer to a request made now.
fn assert_nothing_before_next_answer(client: &mut Client) {
    client.request(77, chat("strResp").as_str(), "{}");
    let body = br#""hello""#.to_vec();
    assert_eq!(client.next_message(), Message::Response { id: 77, body });
}

#[test]
fn a_request_reaches_the_backend_and_its_answer_the_client() {
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        let mut sids = Vec::new();
        for mut client in setup.clients() {
            let answer = client.request_text("chat.chatHandler.send", r#"{"b":1,"a":"é😀"}"#);
            let parsed: Value = serde_json::from_str(&answer).expect("an answer is JSON");
            let sid = parsed["sess"]["id"]
                .as_u64()
                .expect("a session id is an integer");
            let expected = format!(
                concat!(
                    r#"{{"got":{{"b":1,"a":"é😀","__route__":"chat.chatHandler.send"}},"#,
                    r#""sess":{{"id":{},"frontendId":"{}","uid":null,"settings":{{}}}}}}"#
                ),
                sid, setup.frontend_id
            );
            assert_eq!(answer, expected);
            assert!((1..1 << 53).contains(&sid), "{sid}");
            sids.push(sid);

            // A session without a uid goes to the first server of the type.
            let who = client.request_text("chat.chatHandler.whoami", "{}");
            let who: Value = serde_json::from_str(&who).expect("an answer is JSON");
            assert_eq!(
                (&who["server"], &who["id"]),
                (&json!("chat-1"), &json!(sid))
            );

            for id in [1, 127, 128, 16_384, 0x7fff_ffff] {
                client.request(id, "chat.chatHandler.echo", r#"{"x":1}"#);
                assert_eq!(client.wait_response(id), br#"{"x":1}"#);
            }
        }
        let clients = sids.len();
        sids.sort_unstable();
        sids.dedup();
        assert_eq!(sids.len(), clients, "each session has an id of its own");
    });
}

#[test]
fn a_body_reaches_the_backend_as_javascript_reads_it() {
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        let mut client = setup.client();
        let bodies: [(&[u8], &str); 12] = [
            (b"{}", "{}"),
            (b" {\"a\" : [1 , 2.50] } ", r#"{"a":[1,2.5]}"#),
            (
                br#"{"a":{"b":[null,true,"\u0000\n\""]}}"#,
                r#"{"a":{"b":[null,true,"\u0000\n\""]}}"#,
            ),
            (
                br#"{"a":1e3,"b":0.1,"c":-0}"#,
                r#"{"a":1000,"b":0.1,"c":0}"#,
            ),
            (
                br#"{"a":12345678901234567890}"#,
                r#"{"a":12345678901234567000}"#,
            ),
            (br#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#),
            // A body that is not JSON becomes an empty object, and so does a value that JavaScript takes for false.
            (b"", "{}"),
            (b"{", "{}"),
            (b"\xef\xbb\xbf{\"a\":1}", "{}"),
            (b"{\"a\":1} x", "{}"),
            (b"null", "{}"),
            (b"0", "{}"),
        ];
        for (sent, expected) in bodies {
            let answer = client.request_text("chat.chatHandler.echo", sent);
            assert_eq!(answer, expected, "{}", String::from_utf8_lossy(sent));
        }
        // Broken UTF-8 is replaced, each maximal part by one character.
        let answer = client.request_text("chat.chatHandler.echo", b"{\"a\":\"\xe4\xb8\xff!\"}");
        assert_eq!(answer, "{\"a\":\"\u{fffd}\u{fffd}!\"}");
    });
}

#[test]
fn the_answer_of_a_handler_reaches_the_client() {
    let rows = [
        ("errOnly", CODE_500),
        ("errResp", r#"{"msg":"bad","code":500}"#),
        ("errCode", r#"{"code":417,"msg":"bad"}"#),
        ("errCode0", r#"{"code":500,"msg":"bad"}"#),
        ("errStr", CODE_500),
        ("errStrResp", r#""hello""#),
        ("throwErr", CODE_500),
        ("noResp", "{}"),
        ("zeroResp", "{}"),
        ("strResp", r#""hello""#),
        ("numResp", "42"),
        ("arrResp", "[1,2,3]"),
    ];
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        for mut client in setup.clients() {
            for (method, expected) in rows {
                let answer = client.request_text(chat(method).as_str(), "{}");
                assert_eq!(answer, expected, "{method}");
            }
        }
    });
}

#[test]
fn a_route_that_leads_nowhere_is_answered_with_500() {
    let routes = [
        // The backend has no such handler or method; a name of JavaScript's own is none either.
        "chat.chatHandler.nosuch",
        "chat.nosuch.m",
        "chat..",
        "chat.chatHandler.",
        // There is no such type of server, and never was.
        "x.y.z",
        "Chat.chatHandler.echo",
        // Not three parts.
        "chat.chatHandler",
        "chat.",
        "chat.chatHandler.echo.more",
        // Listed, but no one listens there.
        "ghost.chatHandler.echo",
    ];
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        for mut client in setup.clients() {
            for route in routes {
                assert_eq!(client.request_text(route, "{}"), CODE_500, "{route}");
            }
            // As a notify, the same is silent.
            for route in routes {
                client.notify(route, "{}");
            }
            assert_nothing_before_next_answer(&mut client);
        }
    });
}

#[test]
fn a_route_without_a_server_type_gets_no_answer() {
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        let mut client = setup.client();
        for (id, route) in (1..).zip(["nodot", "", ".", "..", ".chatHandler.echo"]) {
            client.request(id, route, "{}");
            client.notify(route, "{}");
        }
        assert_nothing_before_next_answer(&mut client);
    });
}

#[test]
fn a_call_of_a_constructor_is_an_attack() {
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        for route in [
            "chat.chatHandler.constructor",
            "x.y.constructor",
            "..constructor",
        ] {
            for notify in [false, true] {
                let mut client = setup.client();
                // An answer already on its way is still delivered, and nothing after the kick.
                assert_eq!(client.request_text("chat.chatHandler.noResp", "{}"), "{}");
                if notify {
                    client.notify(route, "{}");
                } else {
                    client.request(1, route, "{}");
                }
                if route == "..constructor" {
                    // It starts with a dot, so it is not a route.
                    assert_nothing_before_next_answer(&mut client);
                    continue;
                }
                assert_eq!(client.wait_kick(), "attack", "{route}");
                let end = match setup.transport {
                    Transport::Tcp => End::Fin,
                    Transport::WebSocket => End::CloseFrame(Some(1000)),
                };
                assert_eq!(client.end(), Some(end));
            }
        }
    });
}

#[test]
fn notifies_arrive_in_the_order_sent() {
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        let list = fresh_list();
        let mut clients = setup.clients();
        for n in 0..100 {
            for client in &mut clients {
                client.notify(
                    "chat.chatHandler.note",
                    json!({"n": n, "list": list}).to_string(),
                );
            }
        }
        for client in &mut clients {
            assert_eq!(notes(client, &list), json!((0..100).collect::<Vec<_>>()));
        }
    });
}

#[test]
fn five_hundred_pipelined_messages_of_a_session_arrive_in_order() {
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        let list = fresh_list();
        let mut client = setup.client();
        for n in 1..=500 {
            let body = json!({"n": n, "list": list}).to_string();
            if n % 2 == 0 {
                client.request(n, "chat.chatHandler.note", body);
            } else {
                client.notify("chat.chatHandler.note", body);
            }
        }
        assert_eq!(
            notes(&mut client, &list),
            json!((1..=500).collect::<Vec<_>>())
        );
        for id in (2..=500).step_by(2) {
            assert_eq!(client.wait_response(id), b"{}");
            assert!(!client.has_response(id), "{id} is answered twice");
        }
    });
}

#[test]
fn each_session_gets_its_own_answers() {
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        let body = |who: usize, id: u32| json!({"who": who, "id": id}).to_string();
        let mut clients = setup.clients();
        for id in 1..=50 {
            for (who, client) in clients.iter_mut().enumerate() {
                client.request(id, "chat.chatHandler.echo", body(who, id));
            }
        }
        for (who, client) in clients.iter_mut().enumerate() {
            for id in 1..=50 {
                assert_eq!(client.wait_response(id), body(who, id).as_bytes());
            }
        }
    });
}

#[test]
fn answers_overtake_each_other() {
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        let mut client = setup.client();
        client.request(1, "chat.chatHandler.slow", r#"{"ms":1000,"tag":"a"}"#);
        client.request(2, "chat.chatHandler.echo", "{}");
        let quick = Message::Response {
            id: 2,
            body: b"{}".to_vec(),
        };
        assert_eq!(client.next_message(), quick);
        let body = br#"{"slow":1000,"tag":"a"}"#.to_vec();
        assert_eq!(client.next_message(), Message::Response { id: 1, body });
    });
}

#[test]
fn a_backend_that_blocks_for_a_while_loses_nothing() {
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        let mut client = setup.client();
        client.request(1, "chat.chatHandler.hang", r#"{"ms":500}"#);
        for id in 2..=20 {
            client.request(id, "chat.chatHandler.echo", json!({"id": id}).to_string());
        }
        assert_eq!(client.wait_response(1), br#"{"hung":500}"#);
        for id in 2..=20 {
            assert_eq!(
                client.wait_response(id),
                json!({"id": id}).to_string().as_bytes()
            );
        }
    });
}

#[test]
fn a_client_that_left_harms_no_one() {
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        let mut staying = setup.client();
        for mut leaving in setup.clients() {
            leaving.request(1, "chat.chatHandler.slow", r#"{"ms":200}"#);
            // It is with the backend before the client goes.
            assert_eq!(leaving.request_text("chat.chatHandler.echo", "{}"), "{}");
        }
        // Answered after theirs.
        staying.request(1, "chat.chatHandler.slow", r#"{"ms":400}"#);
        let body = br#"{"slow":400}"#.to_vec();
        assert_eq!(staying.next_message(), Message::Response { id: 1, body });
        assert_nothing_before_next_answer(&mut staying);
    });
}

#[test]
fn a_body_of_200_kb_passes_each_way() {
    in_every_setup(Cluster::shared(Dialect::Pomelo), &[], |setup| {
        let text = "y".repeat(200_000);
        let big = json!({"s": "x".repeat(200_000)}).to_string();
        for mut client in setup.clients() {
            let answer = client.request_text("chat.chatHandler.big", r#"{"n":200000}"#);
            assert!(answer == big, "big");
            let body = json!({"s": text}).to_string();
            let answer = client.request_text("chat.chatHandler.size", &body);
            assert_eq!(answer, r#"{"n":200000}"#);
            // Both ways in one call, with others behind it.
            client.request(1, "chat.chatHandler.echo", &body);
            client.request(2, "chat.chatHandler.echo", "{}");
            assert!(client.wait_response(1) == body.as_bytes(), "echo");
            assert_eq!(client.wait_response(2), b"{}");
        }
    });
}

#[test]
fn a_late_answer_is_dropped_and_counted() {
    in_every_setup(Cluster::shared(Dialect::Pomelo), &SHORT_TIMEOUT, |setup| {
        let before = setup.gateway.wait_counter("rpc_late_answers", 0);
        let mut clients = setup.clients();
        for client in &mut clients {
            client.request(
                1,
                "chat.chatHandler.slow",
                json!({"ms": LATE_MS}).to_string(),
            );
            client.request(2, "chat.chatHandler.never", "{}");
        }
        for client in &mut clients {
            for id in [1, 2] {
                let body = CODE_500.as_bytes().to_vec();
                assert_eq!(client.next_message(), Message::Response { id, body });
            }
        }
        // Once the late answers have come, nothing of them shows, and the connections still work.
        setup
            .gateway
            .wait_counter("rpc_late_answers", before + clients.len() as u64);
        for client in &mut clients {
            assert_eq!(request_until_answered(client, "strResp"), r#""hello""#);
            assert!(!client.has_response(1) && !client.has_response(2));
        }
    });
}

#[test]
fn calls_to_a_killed_backend_fail_at_once_and_are_never_replayed() {
    let cluster = Cluster::start(Dialect::Pomelo);
    in_every_setup(&cluster, &[], |setup| {
        let mut clients = setup.clients();
        for client in &mut clients {
            for id in 1..=3 {
                client.request(id, "chat.chatHandler.never", "{}");
            }
            // Behind them on the same way, so they have arrived when this is answered.
            assert_eq!(request_until_answered(client, "strResp"), r#""hello""#);
        }
        cluster.kill("chat-1");
        // Long before their deadline of ten minutes: only the loss can have told.
        for client in &mut clients {
            for id in 1..=3 {
                assert_eq!(client.wait_response(id), CODE_500.as_bytes());
            }
        }

        // With no server of the type left, everything fails, and fails for good.
        cluster.kill("chat-2");
        let list = fresh_list();
        for client in &mut clients {
            let body = json!({"n": 1, "list": list}).to_string();
            client.notify("chat.chatHandler.note", &body);
            assert_eq!(
                client.request_text("chat.chatHandler.note", &body),
                CODE_500
            );
        }
        for id in BACKENDS {
            cluster.restart(id);
        }
        for client in &mut clients {
            assert_eq!(request_until_answered(client, "strResp"), r#""hello""#);
            assert_eq!(notes(client, &list), json!([]), "replayed");
        }
    });
}

#[test]
fn a_backend_that_ends_within_a_call_fails_that_call() {
    let cluster = Cluster::start(Dialect::Pomelo);
    in_every_setup(&cluster, &[], |setup| {
        let mut client = setup.client();
        assert_eq!(request_until_answered(&mut client, "strResp"), r#""hello""#);
        client.request(1, "chat.chatHandler.never", "{}");
        client.request(2, "chat.chatHandler.exit", "{}");
        for id in [1, 2] {
            assert_eq!(client.wait_response(id), CODE_500.as_bytes());
        }
        cluster.restart("chat-1");
        assert_eq!(request_until_answered(&mut client, "strResp"), r#""hello""#);
    });
}

#[test]
fn calls_to_a_backend_that_hangs_fail_at_their_deadline() {
    let cluster = Cluster::start(Dialect::Pomelo);
    in_every_setup(&cluster, &SHORT_TIMEOUT, |setup| {
        let before = setup.gateway.wait_counter("rpc_late_answers", 0);
        let mut clients = setup.clients();
        for client in &mut clients {
            assert_eq!(request_until_answered(client, "strResp"), r#""hello""#);
        }
        cluster.pause("chat-1");
        for client in &mut clients {
            client.request(1, "chat.chatHandler.echo", "{}");
            client.request(2, "chat.chatHandler.echo", "{}");
        }
        for client in &mut clients {
            for id in [1, 2] {
                assert_eq!(client.wait_response(id), CODE_500.as_bytes());
            }
        }
        cluster.resume("chat-1");
        setup
            .gateway
            .wait_counter("rpc_late_answers", before + 2 * clients.len() as u64);
        for client in &mut clients {
            assert_eq!(request_until_answered(client, "strResp"), r#""hello""#);
            assert!(!client.has_response(1) && !client.has_response(2));
        }
    });
}

/// Pomelo's own frames arrive in small parts, so a receiver that delays its acknowledgements makes a
/// forward take 44 ms. The test subtracts the delay of the machine: a forward waits for a core at most
/// three times as often as an answer of the gateway itself, on its way over four shards and back.
#[test]
fn forwards_do_not_wait_for_delayed_acknowledgements() {
    let cluster = Cluster::shared(Dialect::Pomelo);
    let connector = cluster.take_connector();
    for shards in ["1", "4"] {
        let gateway = Gateway::start_alone(&args(cluster, &connector, shards, &[]));
        for connect in [Client::tcp, Client::websocket] {
            let mut client = connect(gateway.address()).open();
            let medians = (0..3).map(|_| medians_of_200(&mut client));
            let medians: Vec<[Duration; 2]> = medians.collect();
            println!("{shards} shards: forwards, own answers: {medians:?}");
            let own_work = medians
                .iter()
                .map(|[forward, own]| forward.saturating_sub(3 * *own));
            let best = own_work.min().expect("three runs");
            assert!(best < Duration::from_millis(20), "{best:?} in {medians:?}");
        }
    }
}

/// Of forwards, and of answers that the gateway gives by itself, in turn.
fn medians_of_200(client: &mut Client) -> [Duration; 2] {
    let mut time = |route, answer| {
        let start = Instant::now();
        assert_eq!(client.request_text(route, r#"{"a":1}"#), answer);
        start.elapsed()
    };
    let times = (0..200).map(|_| {
        let forward = time("chat.chatHandler.echo", r#"{"a":1}"#);
        (forward, time("connector.no.route", CODE_500))
    });
    let (mut forwards, mut own): (Vec<_>, Vec<_>) = times.unzip();
    [&mut forwards, &mut own].map(|times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}
