//! The chat room that is there without any configuration: a member hears of all others,
//! on any shard and over any transport.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::bystander::ECHO;
use crate::harness::client::{Client, Message};
use crate::harness::frames::{self, http};
use crate::harness::gateway::Gateway;

const ENTER: &str = "connector.entryHandler.enter";
const SEND: &str = "chat.chatHandler.send";

/// The number of clients: all of them meet one of four shards only once in 16 384 runs.
const CLIENTS: usize = 8;

fn start() -> Gateway {
    Gateway::start(&["--shards", "4"])
}

/// Over TCP and WebSocket by turns.
fn clients(address: SocketAddr) -> Vec<Client> {
    let reach = [Client::tcp, Client::websocket];
    (0..CLIENTS).map(|n| reach[n % 2](address).open()).collect()
}

fn ask(client: &mut Client, route: &str, body: &Value) -> Value {
    let answer = client.request_text(route, body.to_string());
    serde_json::from_str(&answer).expect("an answer is JSON")
}

fn enter(client: &mut Client, name: &str) -> Value {
    ask(client, ENTER, &json!({ "name": name }))
}

fn read(push: (String, Vec<u8>)) -> (String, Value) {
    let (route, body) = push;
    (
        route,
        serde_json::from_slice(&body).expect("a push is JSON"),
    )
}

fn event(route: &str, user: &str) -> (String, Value) {
    (route.into(), json!({ "user": user }))
}

/// A member of the room.
struct Member {
    client: Client,
    name: String,
    /// News from before it entered, which it may hear once: news takes a moment from one shard to another,
    /// and a client that enters in that moment hears it too.
    stale: Vec<(String, Value)>,
}

impl Member {
    fn enter(mut client: Client, name: &str, users: &[String]) -> Self {
        let answer = enter(&mut client, name);
        assert_eq!(answer, json!({ "code": 200, "name": name, "users": users }));
        let others = users.iter().filter(|user| *user != name);
        let mut stale: Vec<_> = others.map(|user| event("onAdd", user)).collect();
        stale.push(event("onLeave", name));
        Self {
            client,
            name: name.into(),
            stale,
        }
    }

    fn is_stale(&mut self, heard: &(String, Value)) -> bool {
        let at = self.stale.iter().position(|stale| stale == heard);
        at.map(|at| self.stale.remove(at)).is_some()
    }

    fn hear(&mut self, expected: &(String, Value)) {
        loop {
            let heard = read(self.client.next_push());
            if heard == *expected {
                return;
            }
            let name = self.name.clone();
            assert!(
                self.is_stale(&heard),
                "{name} waits for {expected:?} and hears {heard:?}"
            );
        }
    }

    fn next_line(&mut self) -> Value {
        loop {
            let (route, line) = read(self.client.next_push());
            if route == "onChat" {
                return line;
            }
            assert!(
                self.is_stale(&(route, line.clone())),
                "{}: {line}",
                self.name
            );
        }
    }

    /// Shows that nothing was sent before: the next message is the answer to a new request.
    fn assert_hears_nothing(&mut self) {
        self.client.request(77, ECHO, "77");
        loop {
            match self.client.next_message() {
                Message::Response { id, body } => {
                    return assert_eq!((id, &body[..]), (77, &b"77"[..]));
                }
                Message::Push { route, body } => {
                    let heard = read((route, body));
                    assert!(self.is_stale(&heard), "{} hears {heard:?}", self.name);
                }
            }
        }
    }
}

/// All enter, and each is told of those after it.
fn enter_all(clients: Vec<Client>) -> Vec<Member> {
    let mut members = Vec::new();
    let mut users = Vec::new();
    for (n, client) in clients.into_iter().enumerate() {
        let name = format!("name-{n}");
        users.push(name.clone());
        let member = Member::enter(client, &name, &users);
        hear(&mut members, &event("onAdd", &name));
        members.push(member);
    }
    members
}

fn hear(members: &mut [Member], expected: &(String, Value)) {
    members.iter_mut().for_each(|member| member.hear(expected));
}

#[test]
fn a_name_is_given_once_and_has_1_to_32_characters() {
    let mut gateway = start();
    let mut clients = clients(gateway.address());
    let (first, others) = clients
        .split_first_mut()
        .expect("the room has at least one client");
    let taken = json!({ "code": 409, "msg": "name is taken" });
    let bad = json!({ "code": 400, "msg": "a name has 1 to 32 characters" });

    for body in [
        json!({}),
        json!({ "name": "" }),
        json!({ "name": " \t\n\u{3000}" }),
        json!({ "name": "x".repeat(33) }),
        json!({ "name": "😀".repeat(33) }),
        json!({ "name": 5 }),
        json!({ "name": null }),
        json!({ "name": ["a"] }),
        json!([{ "name": "a" }]),
        json!("a"),
        json!(null),
    ] {
        assert_eq!(ask(first, ENTER, &body), bad, "{body}");
    }
    assert_eq!(enter(first, " first ")["name"], "first");
    let again = json!({ "code": 409, "msg": "you are in the room already" });
    assert_eq!(enter(first, "second"), again);
    for other in &mut *others {
        for name in ["first", "first  "] {
            assert_eq!(enter(other, name), taken);
        }
    }
    let names = [
        "😀".repeat(32),
        "<script>".into(),
        "\u{1}".repeat(32),
        "\"\\".into(),
        "First".into(),
        "__proto__".into(),
        "0".into(),
    ];
    for (other, name) in others.iter_mut().zip(&names) {
        assert_eq!(enter(other, name)["name"], json!(name));
        assert_eq!(read(first.next_push()), event("onAdd", name));
    }
    assert_eq!(gateway.counters().get("messages_failed"), None);
}

#[test]
fn only_those_inside_talk_and_hear() {
    let gateway = start();
    let mut outside = clients(gateway.address());
    let mut inside = enter_all(outside.split_off(CLIENTS / 2));
    for client in &mut outside {
        let refused = json!({ "code": 403, "msg": "enter the room first" });
        assert_eq!(ask(client, SEND, &json!({ "text": "let me in" })), refused);
    }
    let first = &mut inside[0].client;
    let bad = json!({ "code": 400, "msg": "a line has 1 to 2000 characters" });
    for body in [
        json!({}),
        json!({ "text": "" }),
        json!({ "text": "x".repeat(2001) }),
        json!({ "text": 7 }),
        json!([]),
    ] {
        assert_eq!(ask(first, SEND, &body), bad, "{body}");
    }
    let text = "é".repeat(2000);
    assert_eq!(
        ask(first, SEND, &json!({ "text": text })),
        json!({ "code": 200 })
    );
    for member in &mut inside {
        let line = member.next_line();
        assert_eq!(
            (&line["from"], &line["text"]),
            (&json!("name-0"), &json!(text))
        );
        assert!(line["at"].as_u64().is_some_and(|at| at > 0), "{line}");
    }
    inside.iter_mut().for_each(Member::assert_hears_nothing);
    for client in &mut outside {
        client.request(77, ECHO, "77");
        let body = b"77".to_vec();
        assert_eq!(client.next_message(), Message::Response { id: 77, body });
    }
}

#[test]
fn everybody_hears_every_line_once_and_in_the_order_of_its_sender() {
    const LINES: usize = 50;
    let mut gateway = start();
    let mut members = enter_all(clients(gateway.address()));
    for line in 0..LINES {
        for member in &mut members {
            let body = json!({ "text": line.to_string() }).to_string();
            member.client.notify(SEND, body);
        }
    }
    for member in &mut members {
        let mut heard = BTreeMap::<String, usize>::new();
        for _ in 0..CLIENTS * LINES {
            let line = member.next_line();
            let from = line["from"].as_str().expect("a name");
            let of_sender = heard.entry(from.into()).or_default();
            assert_eq!(line["text"], json!(of_sender.to_string()), "{line}");
            *of_sender += 1;
        }
        let all = heard.len() == CLIENTS && heard.values().all(|lines| *lines == LINES);
        assert!(all, "{heard:?}");
    }
    // All have arrived, so a line too many would have, too.
    members.iter_mut().for_each(Member::assert_hears_nothing);
    // If this fails, all met one shard and half of this test was for nothing.
    assert!(gateway.counters().contains_key("mesh_parcels"));
}

#[test]
fn a_client_that_leaves_is_announced_once_and_frees_its_name() {
    let gateway = start();
    let mut members = enter_all(clients(gateway.address()));
    for round in 0..CLIENTS {
        let Member { client, name, .. } = members.remove(0);
        match round % 3 {
            0 => {
                let stream = client.stream().try_clone().expect("one more descriptor");
                drop(client);
                frames::reset(stream);
            }
            1 => {
                frames::write_anyway(client.stream(), b"\x09 not a package, not a frame");
                drop(client);
            }
            _ => drop(client),
        }
        hear(&mut members, &event("onLeave", &name));

        let reach = [Client::websocket, Client::tcp];
        let client = reach[round % 2](gateway.address()).open();
        let others = members.iter().map(|member| member.name.clone());
        let mut users: Vec<String> = others.chain([name.clone()]).collect();
        users.sort();
        let back = Member::enter(client, &name, &users);
        hear(&mut members, &event("onAdd", &name));
        members.push(back);
    }
    members.iter_mut().for_each(Member::assert_hears_nothing);
}

#[test]
fn a_browser_gets_the_page_and_nothing_else() {
    let gateway = start();
    let address = gateway.address();
    let (head, page) = http(address, "GET /");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("\r\ncontent-type: text/html"), "{head}");
    assert!(
        head.contains(&format!("\r\ncontent-length: {}", page.len())),
        "{head}"
    );
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    for outside in [
        "http://",
        "https://",
        "src=\"//",
        "href=\"//",
        "@import",
        "url(//",
    ] {
        assert!(
            !page.contains(outside),
            "the page is not complete: {outside}"
        );
    }
    for path in ["/favicon.ico", "/index.html", "/chat.html", "//"] {
        let (head, _) = http(address, &format!("GET {path}"));
        assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
    }
    for method in ["POST", "PUT"] {
        let (head, _) = http(address, &format!("{method} /"));
        assert!(head.starts_with("HTTP/1.1 426 "), "{method}: {head}");
    }
}
