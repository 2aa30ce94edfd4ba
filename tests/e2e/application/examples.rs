//! The examples that have no file of their own here, and what all of them promise.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::frames::http;
use crate::harness::gateway::Gateway;

#[test]
fn each_example_begins_with_the_command_that_runs_it() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut count = 0;
    for entry in fs::read_dir(dir).expect("the folder is in the tree") {
        let path = entry.expect("a readable directory").path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let name = path.file_stem().and_then(|name| name.to_str());
        let text = fs::read_to_string(&path).expect("the file can be read");
        let comment = text.lines().take_while(|line| *line != "//!");
        let comment: String = comment.collect();
        let command = comment.split('`').nth(1).unwrap_or_default();
        let mut words = command.split(' ');
        let program = words.by_ref().take(5).collect::<Vec<_>>();
        let expected = ["cargo", "run", "--release", "--example"];
        assert_eq!(program[..4], expected, "{comment}");
        assert_eq!(program.get(4).copied(), name, "{comment}");
        // Each path in the command is part of the repository.
        while let Some(word) = words.next() {
            let mut named = match word {
                "--app-dir" | "--config" => words.next().unwrap_or_default().to_owned(),
                _ => continue,
            };
            if word == "--app-dir" {
                named += "/config/servers.json";
            }
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            assert!(root.join(&named).exists(), "there is no {named}");
        }
        count += 1;
    }
    assert!(count >= 5, "{count} examples");
}

#[test]
fn echo_answers_with_the_text_that_came() {
    let echo = Gateway::start_example("echo", &[], &["--shards", "2"]);
    for client in [Client::tcp, Client::websocket] {
        let mut client = client(echo.address()).open();
        for (route, body) in [
            ("connector.entryHandler.echo", r#"{"a":1}"#),
            ("connector.whatever.youLike", r#"{ "spaces" : "stay" }"#),
        ] {
            assert_eq!(client.request_text(route, body), body);
        }
    }
    let (code, printed) = echo.stop();
    assert_eq!(code, Some(0), "{printed}");
}

#[test]
fn pomelo_chat_starts_from_its_folder_and_waits_for_its_chat_server() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/pomelo_chat");
    // The port of servers.json may be in use here.
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("the listener is bound");
    drop(free);
    let listen = format!("rpc.listen={address}");
    let args = ["--app-dir", folder, "--id", "connector-1", "--set", &listen];
    let connector = Gateway::start_example("pomelo_chat", &[], &args);
    let mut ann = Client::websocket(connector.address()).open();
    let enter = "connector.entryHandler.enter";
    let entered = ask(&mut ann, enter, &json!({"username": "ann", "rid": "lobby"}));
    assert_eq!(entered, json!({"code": 500}));
    let (code, printed) = connector.stop();
    assert_eq!(code, Some(0), "{printed}");
}

#[test]
fn two_who_open_the_page_of_chat_talk() {
    let chat = Gateway::start_example("chat", &[], &["--shards", "2"]);
    let (head, page) = http(chat.address(), "GET /");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(page.contains("chat.chatHandler.send"), "{page}");

    let mut ann = Client::websocket(chat.address()).open();
    let mut bob = Client::websocket(chat.address()).open();
    let enter = "connector.entryHandler.enter";
    let entered = ask(&mut ann, enter, &json!({"name": "ann"}));
    assert_eq!(entered["users"], json!(["ann"]));
    let entered = ask(&mut bob, enter, &json!({"name": "bob"}));
    assert_eq!(entered["users"], json!(["ann", "bob"]));
    let sent = ask(&mut bob, "chat.chatHandler.send", &json!({"text": "hi"}));
    assert_eq!(sent, json!({"code": 200}));
    for client in [&mut ann, &mut bob] {
        let line = loop {
            let (route, body) = client.next_push();
            if route == "onChat" {
                break serde_json::from_slice::<Value>(&body).expect("JSON");
            }
        };
        assert_eq!(
            (&line["from"], &line["text"]),
            (&json!("bob"), &json!("hi"))
        );
    }
}

fn ask(client: &mut Client, route: &str, body: &Value) -> Value {
    let answer = client.request_text(route, body.to_string());
    serde_json::from_str(&answer).expect("JSON")
}
