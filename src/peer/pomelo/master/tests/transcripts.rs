//! Replays what genuine masters and servers said to each other.
//!
//! The machine gets what the master sent and has to send, byte for byte, what the genuine server
//! sent. Values that differ from process to process are input of the owner and so come from the
//! transcript: start time, pid, `info` and token from the first packets, and rss, heap and uptime
//! from the server's own answer. Nothing else is normalised.

use super::*;

struct Line {
    conn: u64,
    to_master: bool,
    topic: String,
    kind: String,
    bytes: Vec<u8>,
    /// The payload, decoded once more where it is encoded twice.
    json: Value,
}

/// A file's packets by connection, each with its server's id. Administration tools are left out:
/// they are not what the machine plays.
fn connections(text: &str) -> Vec<(String, Vec<Line>)> {
    let mut connections: Vec<(String, Vec<Line>)> = Vec::new();
    for line in text.lines() {
        let line = json::parse(line.as_bytes()).unwrap();
        let of = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let (from, to) = (of("from"), of("to"));
        let to_master = to == "master";
        let server = if to_master { from } else { to };
        let hex = of("hex");
        if server == "admin-client" || hex.is_empty() {
            continue;
        }
        let line = Line {
            conn: line["conn"].as_u64().unwrap(),
            to_master,
            topic: of("topic"),
            kind: of("kind"),
            bytes: (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect(),
            json: line.get("inner").unwrap_or(&line["json"]).clone(),
        };
        match connections
            .iter_mut()
            .find(|(_, lines)| lines[0].conn == line.conn)
        {
            Some((_, lines)) => lines.push(line),
            None => connections.push((server, vec![line])),
        }
    }
    connections
}

/// A machine in the state in which the transcript of its connection begins.
fn prepare(server: &str, lines: &[Line], dialect: Dialect) -> Harness {
    let has = |kind: &str| lines.iter().any(|line| line.kind == kind);
    let own = |topic: &str| {
        lines
            .iter()
            .find(|line| line.to_master && line.topic == topic)
    };
    let registered = own("register").or(own("reconnect")).map(|line| &line.json);
    let listed = lines
        .iter()
        .map(|line| &line.json["error"]["body"])
        .find(|body| body.is_object());
    let of = |name: &str| {
        let known = registered.or(listed).map(|json| json[name].clone());
        known.unwrap_or_default()
    };
    let client_id = lines.iter().find_map(|line| line.json["clientId"].as_str());
    let digits = client_id.and_then(|id| id.strip_prefix("MQTT_ADMIN_"));
    let mut monitor = Harness::new(MasterConfig {
        id: server.to_owned(),
        server_type: of("serverType").as_str().unwrap_or_default().to_owned(),
        pid: of("pid").as_u64().unwrap_or_default() as u32,
        info: of("info"),
        token: Some(of("token")),
        started_ms: digits.map_or(0, |digits| digits.parse().unwrap()),
        dialect,
    });
    if own("register").is_none() {
        monitor.join();
    }
    if has("mqtt-connack") {
        monitor.master.connected(monitor.now, &mut monitor.out);
        if !has("mqtt-connect") {
            monitor.out.clear();
        }
    }
    monitor
}

/// The figures that make a machine print this answer to `list`.
fn figures(answer: &Value) -> Figures {
    let of = |name: &str, unit: f64| {
        let number: f64 = answer["error"]["body"][name]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        (number * unit).round() as u64
    };
    Figures {
        rss_bytes: of("rss", 1_048_576.0),
        heap_total_bytes: of("heapTotal", 1_048_576.0),
        heap_used_bytes: of("heapUsed", 1_048_576.0),
        uptime: Duration::from_millis(of("uptime", 60_000.0)),
    }
}

/// Gives the machine what the master sent, `piece` bytes at a time, and compares. Returns what it
/// told its owner.
fn replay(server: &str, lines: &[Line], dialect: Dialect, piece: usize) -> Vec<MasterEvent> {
    let mut monitor = prepare(server, lines, dialect);
    let mut answers = lines
        .iter()
        .filter(|line| line.to_master && line.json["error"].is_object());
    let mut events = Vec::new();
    let mut input = Vec::new();
    let received: Vec<u8> = bytes(lines, false);
    for piece in received.chunks(piece) {
        input.extend_from_slice(piece);
        loop {
            let before = monitor.out.len();
            let received = monitor
                .master
                .receive(monitor.now, &input, &mut monitor.out);
            let Some((used, event)) = received.unwrap() else {
                assert_eq!(
                    monitor.out.len(),
                    before,
                    "a part of a packet has no effect"
                );
                break;
            };
            input.drain(..used);
            match event.clone() {
                Some(MasterEvent::AskFigures(question)) => {
                    // One file ends before the answers.
                    if let Some(answer) = answers.next() {
                        let figures = figures(&answer.json);
                        monitor
                            .master
                            .answer_figures(question, &figures, &mut monitor.out);
                    }
                }
                Some(MasterEvent::Stop) => monitor.master.disconnect(&mut monitor.out),
                _ => {}
            }
            events.extend(event);
        }
    }
    assert!(input.is_empty());
    let sent = bytes(lines, true);
    assert_eq!(
        monitor.out.escape_ascii().to_string(),
        sent.escape_ascii().to_string(),
        "{server}, {piece} bytes at a time"
    );
    events
}

fn bytes(lines: &[Line], to_master: bool) -> Vec<u8> {
    let lines = lines.iter().filter(|line| line.to_master == to_master);
    lines.flat_map(|line| line.bytes.iter().copied()).collect()
}

/// Replays a whole file. Pieces of one byte end at every place there is.
fn replay_all(text: &str, dialect: Dialect) -> Vec<(String, Vec<MasterEvent>)> {
    let replayed = connections(text).into_iter().map(|(server, lines)| {
        let events = replay(&server, &lines, dialect, usize::MAX);
        for piece in [1, 7] {
            assert_eq!(replay(&server, &lines, dialect, piece), events);
        }
        (server, events)
    });
    replayed.collect()
}

macro_rules! transcript {
    ($name:literal) => {
        include_str!(concat!(
            "../../../../../tests/vectors/rpc/",
            $name,
            ".jsonl"
        ))
    };
}

fn names(events: &[MasterEvent]) -> Vec<String> {
    let name = |event: &MasterEvent| match event {
        MasterEvent::Subscribed(list) => format!("Subscribed {}", ids(list)),
        MasterEvent::Replaced(list) => format!("Replaced {}", ids(list)),
        MasterEvent::Added(server) => format!("Added {}", server.id),
        MasterEvent::Removed(id) => format!("Removed {id}"),
        MasterEvent::AskFigures(_) => "AskFigures".to_owned(),
        other => format!("{other:?}"),
    };
    events.iter().map(name).collect()
}

fn ids(list: &ServerList) -> String {
    assert_eq!((list.unusable, list.over_limit), (0, 0));
    let ids: Vec<&str> = list
        .servers
        .iter()
        .map(|server| server.id.as_str())
        .collect();
    ids.join(" ")
}

#[track_caller]
fn expect(replayed: &[(String, Vec<MasterEvent>)], server: &str, expected: &[&str]) {
    let (_, events) = replayed.iter().find(|(name, _)| name == server).unwrap();
    assert_eq!(names(events), expected, "{server}");
}

#[test]
fn a_pomelo_cluster_starts() {
    let replayed = replay_all(transcript!("pomelo-master-startup"), Dialect::Pomelo);
    assert_eq!(replayed.len(), 5);
    for (own, other) in [
        ("connector-1", "connector-2"),
        ("connector-2", "connector-1"),
    ] {
        let list = format!("Subscribed chat-2 chat-1 {other}");
        expect(&replayed, own, &["Accepted", &list, "StartOver"]);
    }
    expect(
        &replayed,
        "chat-2",
        &[
            "Accepted",
            "Subscribed ",
            "Added chat-1",
            "Added connector-2",
            "Added connector-1",
            "StartOver",
        ],
    );
    let (_, events) = &replayed[4];
    let Some(MasterEvent::Subscribed(list)) = events.get(1) else {
        panic!()
    };
    assert_eq!(list.own.as_ref().map(|own| own.frontend), Some(true));
    assert_eq!(list.servers[0].port, 21111);
    assert!(!list.servers[0].frontend && list.servers[2].frontend);
}

#[test]
fn a_pinus_cluster_starts() {
    let replayed = replay_all(transcript!("pinus-master-startup"), Dialect::Pinus);
    assert_eq!(replayed.len(), 5);
    expect(
        &replayed,
        "connector-1",
        &[
            "Accepted",
            "Subscribed ",
            "Added connector-2",
            "Added chat-1",
            "Added chat-2",
            "StartOver",
        ],
    );
}

#[test]
fn servers_come_back_to_a_new_master() {
    let replayed = replay_all(transcript!("pomelo-master-reconnect"), Dialect::Pomelo);
    expect(
        &replayed,
        "connector-1",
        &[
            "Accepted",
            "Replaced chat-1",
            "Replaced chat-1",
            "Added chat-2",
            "Removed chat-1",
        ],
    );
    expect(
        &replayed,
        "chat-1",
        &[
            "Accepted",
            "Replaced ",
            "Replaced ",
            "Added connector-1",
            "Added chat-2",
        ],
    );
}

#[test]
fn an_operator_lists_the_servers() {
    let replayed = replay_all(transcript!("pomelo-cli-list"), Dialect::Pomelo);
    assert_eq!(replayed.len(), 5);
    expect(&replayed, "connector-2", &["AskFigures"]);
}

#[test]
fn an_operator_stops_a_backend() {
    let replayed = replay_all(transcript!("pomelo-cli-stop-one"), Dialect::Pomelo);
    expect(&replayed, "chat-2", &["Stop"]);
    expect(&replayed, "connector-1", &["Removed chat-2"]);
}

#[test]
fn an_operator_stops_a_frontend() {
    let replayed = replay_all(transcript!("pomelo-cli-stop-frontend"), Dialect::Pomelo);
    expect(&replayed, "connector-2", &["Stop"]);
    expect(&replayed, "chat-1", &["Removed connector-2"]);
}

#[test]
fn an_operator_adds_a_server() {
    let replayed = replay_all(transcript!("pomelo-cli-add"), Dialect::Pomelo);
    expect(&replayed, "connector-1", &["Added chat-2"]);
    expect(
        &replayed,
        "chat-2",
        &["Accepted", "Subscribed connector-1 chat-1"],
    );
}

#[test]
fn an_operator_bans_addresses() {
    let replayed = replay_all(transcript!("pomelo-console-misc"), Dialect::Pomelo);
    let banned = r#"Blacklist(["10.0.0.1", "10.1.2.3"])"#;
    expect(&replayed, "connector-1", &[banned, "AskFigures"]);
}
