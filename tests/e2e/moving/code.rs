//! `tangelo init` alone moves the JavaScript of a connector: a project with each kind of it shows the same before and after.

use serde_json::{Value, json};

use super::project::Project;
use crate::harness::client::{Client, Message};
use crate::harness::peers::{Dialect, wait_for};

/// Plays on the servers that run. Returns all that was seen.
fn play(project: &Project) -> Vec<String> {
    let connect = || Client::websocket(project.address()).try_open();
    let request = |client: &mut Client, route: &str, body: &Value| {
        let answer = client.request_text(route, body.to_string());
        // A genuine connector listens on all addresses. The order in which the backends came decides which is the first.
        answer.replace("::ffff:", "").replace("chat-2", "chat-1")
    };
    wait_for("the code of the connector, and the backends", || {
        let mut client = connect()?;
        let body = json!({"uid": "first", "room": 1});
        request(&mut client, "connector.entryHandler.login", &body);
        let room = request(&mut client, "connector.entryHandler.room", &json!({}));
        let call = json!({"method": "where", "args": []});
        let remote = request(&mut client, "chat.chatHandler.call", &call);
        (room.contains("first") && remote.contains("connector-server-1")).then_some(())
    });

    let mut client = connect().expect("it was open before");
    client.request(
        1,
        "connector.entryHandler.login",
        r#"{"uid":"ann","room":7}"#,
    );
    let mut seen: Vec<String> = (0..2)
        .map(|_| match client.next_message() {
            Message::Push { route, body } => format!("{route} {}", String::from_utf8_lossy(&body)),
            Message::Response { body, .. } => String::from_utf8_lossy(&body).into_owned(),
        })
        .collect();
    let asks = [
        ("connector.entryHandler.view", json!({"a": 1})),
        ("connector.entryHandler.view", json!({"refuse": true})),
        ("connector.entryHandler.address", json!({})),
        ("connector.entryHandler.room", json!({})),
        ("connector.entryHandler.online", json!({"uid": "ann"})),
        ("connector.entryHandler.fail", json!({})),
        ("chat.chatHandler.where", json!({"to": 0})),
        (
            "chat.chatHandler.call",
            json!({"method": "where", "args": []}),
        ),
        (
            "chat.chatHandler.call",
            json!({"method": "boom", "args": []}),
        ),
    ];
    for (route, body) in asks {
        seen.push(request(&mut client, route, &body));
    }
    let mut other = connect().expect("it was open before");
    let kick = json!({"method": "kick", "args": ["ann"]});
    seen.push(request(&mut other, "chat.chatHandler.call", &kick));
    seen.push(client.wait_kick());
    for (part, lines) in [
        ("ann", 3),
        ("lifecycle", 2),
        ("tick of connector-server-1", 1),
    ] {
        let body = json!({"part": part});
        seen.push(wait_for("lines of the log", || {
            let log = request(&mut other, "connector.entryHandler.log", &body);
            let read: Value = serde_json::from_str(&log).expect("JSON");
            (read["lines"].as_array().expect("a list").len() >= lines).then_some(log)
        }));
    }
    seen
}

fn all_code_moves(dialect: Dialect) {
    let project = Project::with_code(dialect);
    let scripts = project.scripts();
    let master = project.start_all();
    let genuine = play(&project);
    println!("{genuine:#?}");
    project.stop(master);
    project.install();
    let init = "npx --no-install tangelo init --write";
    let printed = project.run("env", &["TANGELO_BIN=/nowhere", "sh", "-c", init]);
    println!("{printed}");
    // The component of Pomelo's connector gets its configuration itself.
    let place = match dialect {
        Dialect::Pomelo => "app.js:20",
        Dialect::Pinus => "app.js:22",
    };
    for line in [
        format!("done     {place}: handshake runs in the delegate"),
        ": this plugin runs in the delegate".into(),
        "this machine cannot start tangelo yet: TANGELO_BIN = /nowhere: there is no program".into(),
    ] {
        assert!(printed.contains(&line), "{line:?} is missing");
    }
    let _master = project.start_all();
    assert_eq!(play(&project), genuine);
    assert!(project.scripts() == scripts, "a script has changed");
}

#[test]
fn each_kind_of_code_of_a_connector_moves_in_pomelo() {
    all_code_moves(Dialect::Pomelo);
}

#[test]
fn each_kind_of_code_of_a_connector_moves_in_pinus() {
    all_code_moves(Dialect::Pinus);
}
