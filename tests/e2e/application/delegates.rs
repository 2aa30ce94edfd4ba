//! Several delegates of one type: a session sticks to one of them, each of them knows all bound sessions, and one that dies
//! costs no client its connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::cluster::in_both_dialects;
use crate::harness::client::Client;
use crate::harness::frontend::{Frontend, Kind, Knobs};
use crate::harness::peers::{Cluster, DELEGATES, Dialect, wait_for};

const KNOBS: Knobs = Knobs {
    tangelo: &["--set", "delegate=entry", "--set", "delegate_notices=true"],
    genuine: &[],
};

/// A client that has logged in.
struct Player {
    client: Client,
    uid: String,
    /// Process of its delegate.
    pid: u64,
}

impl Player {
    fn login(frontend: &Frontend<'_>, uid: String) -> Self {
        let mut client = frontend.client(frontend.kind().transports()[0]);
        let login = json!({"uid": uid, "room": uid});
        assert_eq!(ask(&mut client, "login", &login), json!({"code": 200}));
        let pid = pid(&mut client).expect("its delegate is there");
        Self { client, uid, pid }
    }

    fn knows(&mut self, uid: &str) -> bool {
        let online = ask(&mut self.client, "online", &json!({"uid": uid}));
        online["rooms"] == json!([uid])
    }

    fn lines(&mut self, part: &str) -> Vec<Value> {
        let mut log = ask(&mut self.client, "log", &json!({"part": part}));
        serde_json::from_value(log["lines"].take()).expect("a list")
    }
}

fn ask(client: &mut Client, method: &str, body: &Value) -> Value {
    let route = format!("connector.entryHandler.{method}");
    let answer = client.request_text(route.as_str(), body.to_string());
    serde_json::from_str(&answer).expect("JSON")
}

/// The process that handles the messages of a client; `None` while it is away.
fn pid(client: &mut Client) -> Option<u64> {
    ask(client, "process", &json!({}))["pid"].as_u64()
}

/// A client's answers, each of which must come, until `stop`: code 500 is the only failure.
fn play_on(client: &mut Client, uid: &str, stop: &AtomicBool) -> usize {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let room = ask(client, "room", &json!({}));
        let is_good = room["uid"] == *uid && room["room"] == *uid;
        assert!(is_good || room == json!({"code": 500}), "{uid}: {room}");
        answers += usize::from(is_good);
    }
    answers
}

fn several_delegates(dialect: Dialect) {
    let cluster = Cluster::delegated(dialect);
    cluster.add_backend(DELEGATES[1]);
    let start = || Frontend::start(&cluster, Kind::Tangelo { shards: 4 }, KNOBS);
    let frontends = [start(), start()];
    let mut players: Vec<Vec<Player>> = Vec::new();
    for (number, frontend) in frontends.iter().enumerate() {
        for delegate in DELEGATES {
            wait_until_known(&cluster, frontend, delegate);
        }
        let login = |n| Player::login(frontend, format!("user-{number}-{n}"));
        players.push((0..16).map(login).collect());
    }

    // A session sticks to its delegate; each delegate has some, and knows all.
    for players in &mut players {
        for player in players.iter_mut() {
            for _ in 0..3 {
                assert_eq!(pid(&mut player.client), Some(player.pid), "{}", player.uid);
            }
        }
        wait_until_all_known(players);
    }
    let pids: BTreeSet<u64> = players.iter().flatten().map(|player| player.pid).collect();
    assert_eq!(pids.len(), 2);

    // Listeners are called in the delegate that has them, and the application hears of an end once.
    let [first, second] = &mut players[..] else {
        unreachable!("two frontends");
    };
    let gone = first.remove(0);
    let line = format!("closed {0} of {0}: undefined", gone.uid);
    drop(gone.client);
    for player in first.iter_mut().filter(|player| player.pid == gone.pid) {
        wait_for(&line, || (player.lines(&line).len() == 1).then_some(()));
    }
    let per_delegate: BTreeMap<u64, &mut Player> = first
        .iter_mut()
        .map(|player| (player.pid, player))
        .collect();
    let ends = per_delegate.into_values().map(|player| {
        wait_for("the end", || (!player.knows(&gone.uid)).then_some(()));
        player.lines(&format!("close_session {}", gone.uid)).len()
    });
    assert_eq!(ends.sum::<usize>(), 1);

    // One delegate dies under load.
    let dead = cluster.pid(DELEGATES[0]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let loads: Vec<_> = second
            .iter_mut()
            .map(|player| {
                scope.spawn(move || (play_on(&mut player.client, &player.uid, stop), player))
            })
            .collect();
        cluster.kill(DELEGATES[0]);
        for player in first.iter_mut().filter(|player| player.pid != dead) {
            assert_eq!(
                pid(&mut player.client),
                Some(player.pid),
                "not its delegate"
            );
        }
        for player in first.iter_mut().filter(|player| player.pid == dead) {
            player.pid = wait_for("another delegate", || pid(&mut player.client));
            assert_ne!(player.pid, dead);
            let room = ask(&mut player.client, "room", &json!({}));
            assert_eq!(
                (&room["uid"], &room["room"]),
                (&json!(player.uid), &json!(player.uid))
            );
        }
        cluster.restart(DELEGATES[0]);
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            let (answers, player) = load.join().expect("no client is cut");
            assert!(answers > 0, "{}", player.uid);
        }
    });

    // The new process gets new sessions, and knows the others.
    let started = cluster.pid(DELEGATES[0]);
    for (frontend, players) in frontends.iter().zip(&mut players) {
        wait_until_known(&cluster, frontend, DELEGATES[0]);
        for player in players.iter_mut() {
            let stays = player.pid == dead || pid(&mut player.client) == Some(player.pid);
            assert!(stays, "{}", player.uid);
        }
        let mut number = 0;
        let player = wait_for("a session of the new delegate", || {
            number += 1;
            let player = Player::login(frontend, format!("late-{}-{number}", frontend.id()));
            (player.pid == started).then_some(player)
        });
        players.push(player);
        wait_until_all_known(players);
    }
}

/// Waits until clients of a frontend reach a delegate, and the delegate reaches the frontend.
fn wait_until_known(cluster: &Cluster, frontend: &Frontend<'_>, delegate: &str) {
    let delegate = cluster.pid(delegate);
    wait_for("a delegate to know the frontend", || {
        let mut client = frontend.client(frontend.kind().transports()[0]);
        let login = json!({"uid": "somebody", "room": 1});
        (pid(&mut client)? == delegate).then_some(())?;
        (ask(&mut client, "login", &login) == json!({"code": 200})).then_some(())?;
        (ask(&mut client, "room", &json!({}))["uid"] == "somebody").then_some(())
    });
}

fn wait_until_all_known(players: &mut [Player]) {
    let uids: Vec<String> = players.iter().map(|player| player.uid.clone()).collect();
    for player in players {
        for uid in &uids {
            wait_for(uid, || player.knows(uid).then_some(()));
        }
    }
}

mod a_session_sticks_to_one_of_several_delegates_and_each_knows_all_bound_sessions {
    use super::*;

    in_both_dialects!(several_delegates);
}
