//! From a project on disk to clients that get answers through tangelo.

use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::json;

use super::project::Project;
use crate::harness::browser::{Browser, Page};
use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::peers::{Dialect, wait_for};
use crate::harness::process::Process;

const ENTRY: &str = "connector.entryHandler.entry";
const PAGE: &str = "http://127.0.0.1:3001/index.html";
const ANSWER: &str = r#"{"code":200,"msg":"game server is ok."}"#;

/// Does what `docs/moving-from-pomelo.md` says, and prints the time.
fn a_template_moves(dialect: Dialect) {
    let project = Project::unpack(dialect);
    let scripts = project.scripts();
    let begin = Instant::now();

    project.install();
    assert!(project.would_change());
    let printed = project.tangelo(&["init", "--write"]);
    println!("{printed}");
    assert!(!project.would_change());
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
    assert_eq!(answer, ANSWER);
    let mut browser = project.browser();
    let page = browser.open(PAGE);
    browser.click(&page, "test");
    assert_eq!(browser.dialog(&page), "game server is ok.");
    println!("{dialect:?}: {:.1} s", begin.elapsed().as_secs_f64());
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

fn one_connector_moves(dialect: Dialect) {
    let project = Project::plain(dialect);
    let second = project.add_connector();
    project.build();
    project.install();
    project.tangelo(&["init", "--write", "--only", "connector-server-1"]);
    let gateways = |master: &Process| master.transcript().matches("tangelo listening on").count();

    let master = project.start_all();
    ask(project.address());
    ask(second);
    assert_eq!(gateways(&master), 1, "{}", master.transcript());
    let line = format!("tangelo listening on [::]:{} ", project.address().port());
    assert!(
        master.transcript().contains(&line),
        "{}",
        master.transcript()
    );
    project.stop(master);
    wait_for("a closed port", || TcpStream::connect(second).err());

    project.restore();
    let master = project.start_all();
    ask(project.address());
    ask(second);
    assert_eq!(gateways(&master), 0, "{}", master.transcript());
}

#[test]
fn one_connector_of_pomelo_moves_beside_a_genuine_one_and_back() {
    one_connector_moves(Dialect::Pomelo);
}

#[test]
fn one_connector_of_pinus_moves_beside_a_genuine_one_and_back() {
    one_connector_moves(Dialect::Pinus);
}

/// All that a player gets: the handshake, and bytes of messages.
fn play(project: &Project) -> [String; 3] {
    let (mut client, handshake) = wait_for("a place in the room", || {
        let mut client = Client::websocket(project.address());
        let handshake = client.handshake();
        client.ack();
        let body = json!({"username": "ann", "rid": "lobby"}).to_string();
        let answer = client.request_text("connector.entryHandler.enter", body);
        // Code 500 until all servers know each other.
        (answer == r#"{"users":["ann"]}"#).then_some((client, handshake))
    });
    let code = handshake["sys"]["dict"]["chat.chatHandler.send"].as_u64();
    let code = code.expect("a code of the dictionary") as u16;
    // The members `content` and `target` in protobuf.
    let answer = client.request_text(code, b"\n\x02hi\x12\x01*");
    // The order in which the backends came decides which of them has the room.
    let answer = answer.replace("chat-2", "chat-1");
    let (_, said) = std::iter::repeat_with(|| client.next_push())
        .find(|(route, _)| route == "onChat")
        .expect("an endless iterator");
    [handshake.to_string(), answer, format!("{said:?}")]
}

/// Two browsers chat. A handler there binds and sets without waiting, asks `sessionService` and listens for the end of
/// the session, a route function chooses the backend by the room, and chat messages are protobuf
/// with codes for routes. Before that, a player gets the same bytes as from the genuine connector.
fn a_chat_moves(dialect: Dialect) {
    let project = Project::chat(dialect);
    let scripts = project.scripts();
    let master = project.start_all();
    let genuine = play(&project);
    project.stop(master);

    let begin = Instant::now();
    project.install();
    let printed = project.tangelo(&["init", "--write"]);
    assert!(
        printed.contains("app.route('chat') is the strategy hash:rid"),
        "{printed}"
    );
    let _master = project.start_all();
    assert_eq!(play(&project), genuine);

    let mut browser = project.browser();
    let ann = browser.open(PAGE);
    wait_for("a place in the room", || {
        // The room is closed until all servers know each other.
        let shown = enter(&mut browser, &ann, "ann");
        shown.contains("lobby: ann").then_some(())
    });
    let bob = browser.open(PAGE);
    let shown = enter(&mut browser, &bob, "bob");
    assert!(shown.contains("lobby: ann,bob"), "{shown}");
    browser.wait_for_text(&ann, "bob is here");
    let other = browser.open(PAGE);
    let shown = enter(&mut browser, &other, "bob");
    assert!(shown.contains("lobby: the name is taken"), "{shown}");

    browser.fill(&bob, "text", "hi");
    browser.click(&bob, "send");
    browser.wait_for_text(&bob, "sent to lobby");
    for page in [&ann, &bob] {
        browser.wait_for_text(page, "bob: hi");
        let protobuf = b"\n\x03bob\x12\x02hi\x1a\x01*";
        browser.wait_for_frame(page, |frame| {
            frame.get(4) == Some(&PUSH_BY_CODE) && frame.ends_with(protobuf)
        });
    }
    browser.close(bob);
    browser.wait_for_text(&ann, "bob has left");
    println!("{dialect:?}: {:.1} s", begin.elapsed().as_secs_f64());
    assert!(project.scripts() == scripts, "a script has changed");
}

/// The first byte of a message: a push whose route is a code of the dictionary.
const PUSH_BY_CODE: u8 = 0b111;

/// Enters the room `lobby` by the page, which then shows what came of it.
fn enter(browser: &mut Browser, page: &Page, name: &str) -> String {
    browser.fill(page, "name", name);
    browser.fill(page, "room", "lobby");
    browser.click(page, "enter");
    browser.wait_for_text(page, "lobby: ")
}

#[test]
fn a_chat_of_browsers_moves_in_pomelo_without_a_change_of_its_scripts() {
    a_chat_moves(Dialect::Pomelo);
}

#[test]
fn a_chat_of_browsers_moves_in_pinus_without_a_change_of_its_scripts() {
    a_chat_moves(Dialect::Pinus);
}
