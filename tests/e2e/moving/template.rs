//! From a project on disk to clients that get answers through tangelo.

use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::json;

use super::project::Project;
use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::peers::{Dialect, wait_for};
use crate::harness::process::Process;

const ENTRY: &str = "connector.entryHandler.entry";
const ANSWER: &str = r#"{"code":200,"msg":"game server is ok."}"#;

/// Does what `docs/moving-from-pomelo.md` says, and prints the time.
fn a_template_moves(dialect: Dialect) {
    let project = Project::unpack(dialect);
    let scripts = project.scripts();
    let begin = Instant::now();

    project.install();
    let printed = project.tangelo(&["init", "--write"]);
    println!("{printed}");
    let mut master = project.start();
    master.wait_for_line("listening on", 0, HANG_GUARD, |line| {
        line.contains("tangelo listening on").then_some(())
    });
    let answer = wait_for("an answer of the handler", || {
        let mut client = Client::websocket(project.address());
        let handshake = client.handshake();
        assert_eq!(handshake["sys"]["heartbeat"], 3);
        let codes = json!({
            "connector.entryHandler.entry": 1,
            "connector.entryHandler.publish": 2,
            "connector.entryHandler.subscribe": 3,
        });
        assert_eq!(handshake["sys"]["dict"], codes);
        client.ack();
        // Code 500 until the delegate is there.
        let answer = client.request_text(ENTRY, r#""hello""#);
        answer.contains("game server").then_some(answer)
    });
    println!("{dialect:?}: {:.1} s", begin.elapsed().as_secs_f64());
    assert_eq!(answer, ANSWER);
    assert!(project.scripts() == scripts, "a script has changed");
}

#[test]
fn a_template_of_pomelo_moves_without_a_change_of_its_scripts() {
    a_template_moves(Dialect::Pomelo);
}

#[test]
fn a_template_of_pinus_moves_without_a_change_of_its_scripts() {
    a_template_moves(Dialect::Pinus);
}

/// Starts the master and waits until it has started all servers.
fn started(project: &Project) -> Process {
    let mut master = project.start();
    let all = "all servers startup";
    master.wait_for_line(all, 0, HANG_GUARD, |line| line.contains(all).then_some(()));
    master
}

/// Asks the handler of the template until it answers.
fn ask(address: SocketAddr) {
    let answer = wait_for("an answer of the handler", || {
        let mut client = Client::websocket(address).open();
        let answer = client.request_text(ENTRY, r#""hello""#);
        // Code 500 until the delegate is there.
        answer.contains("game server").then_some(answer)
    });
    assert_eq!(answer, ANSWER);
}

#[test]
fn one_connector_moves_beside_a_genuine_one_and_back() {
    let project = Project::plain(Dialect::Pomelo);
    let second = project.add_connector();
    project.install();
    project.tangelo(&["init", "--write", "--only", "connector-server-1"]);
    let gateways = |master: &Process| master.transcript().matches("tangelo listening on").count();

    let mut master = started(&project);
    ask(project.address());
    ask(second);
    assert_eq!(gateways(&master), 1, "{}", master.transcript());
    let line = format!("tangelo listening on [::]:{} ", project.address().port());
    assert!(
        master.transcript().contains(&line),
        "{}",
        master.transcript()
    );
    master.kill();
    for address in [project.address(), second] {
        wait_for("a closed port", || TcpStream::connect(address).err());
    }

    project.restore();
    let master = started(&project);
    ask(project.address());
    ask(second);
    assert_eq!(gateways(&master), 0, "{}", master.transcript());
}

/// A handler there binds and sets without waiting, asks `sessionService`, listens for the end of the session, and a
/// route function chooses the backend by the room.
#[test]
fn a_chat_moves_without_a_change_of_its_scripts() {
    let project = Project::plain(Dialect::Pomelo);
    project.replace_by_chat();
    let scripts = project.scripts();
    project.install();
    let printed = project.tangelo(&["init", "--write"]);
    assert!(
        printed.contains("app.route('chat') is the strategy hash:rid"),
        "{printed}"
    );
    let _master = started(&project);

    let enter = |name: &str| {
        // Code 500 until all servers know each other.
        wait_for("a place in the room", || {
            let mut client = Client::websocket(project.address()).open();
            let body = json!({"username": name, "rid": "lobby"}).to_string();
            let answer = client.request_text("connector.entryHandler.enter", body);
            answer.contains("users").then_some((client, answer))
        })
    };
    let (mut ann, answer) = enter("ann");
    assert_eq!(answer, r#"{"users":["ann"]}"#);
    let (mut bob, _) = enter("bob");
    assert_eq!(pushed(&mut ann, "onAdd"), r#"{"user":"bob"}"#);
    let mut twice = Client::websocket(project.address()).open();
    let body = json!({"username": "bob", "rid": "lobby"}).to_string();
    let answer = twice.request_text("connector.entryHandler.enter", body);
    assert_eq!(answer, r#"{"code":500,"error":true}"#);

    let said = json!({"content": "hi", "target": "*"}).to_string();
    let answer = bob.request_text("chat.chatHandler.send", said);
    assert!(
        answer.starts_with(r#"{"room":"lobby","by":"chat-"#),
        "{answer}"
    );
    let chat = r#"{"from":"bob","msg":"hi","target":"*"}"#;
    for client in [&mut ann, &mut bob] {
        assert_eq!(pushed(client, "onChat"), chat);
    }
    drop(bob);
    assert_eq!(pushed(&mut ann, "onLeave"), r#"{"user":"bob"}"#);
    assert!(project.scripts() == scripts, "a script has changed");
}

/// Waits for a push of this route. Of a backend's first push Pomelo takes the receivers when it sends it, so one who
/// enters may hear of himself.
fn pushed(client: &mut Client, route: &str) -> String {
    loop {
        let (found, body) = client.next_push();
        if found == route {
            return String::from_utf8(body).expect("bodies are UTF-8");
        }
    }
}
