//! tangelo is killed and starts again as the next process, also where each process has the same id: its delegate takes
//! no session of one process for a session of the other.

use std::net::TcpStream;

use serde_json::{Value, json};

use crate::application::delegate_package::run_check;
use crate::cluster::in_both_dialects;
use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::peers::{Cluster, Dialect, wait_for};

const SESSIONS: usize = 8;

fn start(cluster: &Cluster, id: &str) -> Gateway {
    Gateway::start_in_container(&[
        "--app-dir",
        cluster.app_dir(),
        "--id",
        id,
        "--dialect",
        cluster.dialect().name(),
        "--shards",
        "4",
        "--set",
        "delegate=entry",
        "--set",
        "delegate_notices=true",
    ])
}

fn ask(client: &mut Client, method: &str, body: &Value) -> Value {
    let route = format!("connector.entryHandler.{method}");
    let answer = client.request_text(route.as_str(), body.to_string());
    serde_json::from_str(&answer).expect("JSON")
}

/// Opens a client and binds its session, which gets a listener of its end. Returns `None` while the delegate does not reach
/// the frontend.
fn login(gateway: &Gateway, uid: &str, room: usize) -> Option<Client> {
    let mut client = Client::tcp(gateway.address()).open();
    let login = json!({"uid": uid, "room": room});
    (ask(&mut client, "login", &login) == json!({"code": 200})).then_some(())?;
    (ask(&mut client, "room", &json!({}))["uid"] == *uid).then_some(client)
}

fn logins(gateway: &Gateway, name: &str) -> Vec<Client> {
    wait_for("the delegate", || login(gateway, "somebody", 0));
    let uids = (0..SESSIONS).map(|number| (format!("{name}-{number}"), number));
    uids.map(|(uid, number)| login(gateway, &uid, number).expect("it is reached"))
        .collect()
}

fn rooms(client: &mut Client, uid: &str) -> Value {
    ask(client, "online", &json!({"uid": uid}))["rooms"].take()
}

fn lines(client: &mut Client, part: &str) -> Vec<Value> {
    let mut log = ask(client, "log", &json!({"part": part}));
    serde_json::from_value(log["lines"].take()).expect("a list")
}

fn a_killed_gateway(dialect: Dialect) {
    let cluster = Cluster::delegated(dialect);
    let connector = cluster.take_connector();
    let gateway = start(&cluster, connector.id());
    cluster.wait_until_known(connector.id());
    assert_eq!(cluster.wait_until_listed(connector.id())["pid"], 1);
    let mut clients = logins(&gateway, "old");
    for number in 0..SESSIONS {
        assert_eq!(
            rooms(&mut clients[0], &format!("old-{number}")),
            json!([number])
        );
    }
    let address = gateway.address();
    gateway.kill();
    wait_for("the end of the process", || {
        TcpStream::connect(address).err()
    });

    let gateway = start(&cluster, connector.id());
    let mut clients = logins(&gateway, "new");
    let mut last = clients.pop().expect("a client");
    for number in 0..SESSIONS {
        assert_eq!(rooms(&mut last, &format!("old-{number}")), json!([]));
        assert_eq!(rooms(&mut last, &format!("new-{number}")), json!([number]));
    }
    drop(clients);
    wait_for("the ends of the new sessions", || {
        (lines(&mut last, "closed new-").len() >= SESSIONS - 1).then_some(())
    });
    // The listeners of the old sessions are gone, as in a frontend that was killed.
    assert_eq!(lines(&mut last, "closed old-"), [json!(null); 0]);
    assert_eq!(lines(&mut last, "closed new-").len(), SESSIONS - 1);
}

mod a_frontend_that_was_killed_shares_no_session_with_the_next_process_of_the_same_id {
    use super::*;

    in_both_dialects!(a_killed_gateway);
}

#[test]
fn a_call_that_a_dead_process_sent_comes_too_late() {
    run_check("tests/npm/processes.js");
}
