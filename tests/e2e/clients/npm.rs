//! The genuine clients from npm play one game, dictionary and protobuf on: at the genuine connector,
//! which shows that the game is right, and at tangelo.

use serde_json::json;

use crate::harness::client::HANG_GUARD;
use crate::harness::frontend::{Frontend, Kind, Knobs};
use crate::harness::peers::{Cluster, Dialect, run_script};

/// The genuine dictionary has all handlers of all servers; tangelo is told their names.
const KNOBS: Knobs = Knobs {
    tangelo: &[
        "--set",
        "client.use_dict=true",
        "--set",
        "client.use_protobuf=true",
        "--set",
        "handler_routes=['chat.chatHandler.echo', 'chat.chatHandler.bind', \
         'chat.chatHandler.note', 'chat.chatHandler.notes', 'chat.chatHandler.whoami', \
         'chat.chatHandler.pushUids', 'chat.chatHandler.bcast', 'chat.chatHandler.kickUid', \
         'chat.chatHandler.errOnly']",
    ],
    genuine: &["useDict=true", "useProtobuf=true"],
};

fn cluster(dialect: Dialect) -> Cluster {
    let cluster = Cluster::start(dialect);
    cluster.add_config("dictionary.json", &json!(["onNews", "onAll"]));
    let echo = json!({
        "required uInt32 n": 1, "optional string text": 2, "repeated sInt32 list": 3,
    });
    cluster.add_config(
        "clientProtos.json",
        &json!({
            "chat.chatHandler.echo": echo,
            "chat.chatHandler.note": {"required uInt32 n": 1, "required string list": 2},
        }),
    );
    cluster.add_config(
        "serverProtos.json",
        &json!({
            "chat.chatHandler.echo": echo,
            "onNews": {
                "message Item": {"required uInt32 id": 1, "optional float price": 2},
                "required uInt32 n": 1,
                "optional string text": 2,
                "optional Item item": 3,
                "repeated sInt32 list": 4,
            },
        }),
    );
    cluster
}

/// The output of the game.
fn play(cluster: &Cluster, kind: Kind, client: &str) -> String {
    let frontend = Frontend::start(cluster, kind, KNOBS);
    let port = frontend.address().port().to_string();
    let game = run_script("clients", "play.js", &[client, &port]);
    let (status, printed) = game.finish(HANG_GUARD);
    assert!(status.success(), "{client}, {kind}: {status}\n{printed}");
    printed
}

/// Lines that show in each game that its parts were there, in order, with more lines between them.
const SHARED: [&str; 12] = [
    "<- push code proto",
    r#"onNews {"n":300,"text":"é 世界","item":{"id":7,"price":1.5},"list":[1,-2,3]}"#,
    r#"onPlain {"a":[1,"b",null]}"#,
    "<- response proto",
    r#"echo {"n":4000000000,"text":"up and down","list":[5,-6]}"#,
    r#"notes {"notes":[1,2]}"#,
    r#"errOnly {"code":500}"#,
    "<- push code",
    r#"onAll {"to":"all"}"#,
    r#"bcast {"err":null}"#,
    "<- kick",
    "close",
];

/// Plays at the genuine connector first, then at tangelo on one shard and on four.
fn play_everywhere(dialect: Dialect, client: &str, milestones: &[&str]) {
    let cluster = cluster(dialect);
    let reference = play(&cluster, Kind::Genuine, client);
    println!("{reference}");
    for milestones in [&SHARED[..], milestones] {
        let mut lines = reference.lines();
        for milestone in milestones {
            assert!(lines.any(|line| line == *milestone), "no {milestone:?}");
        }
    }
    for kind in Kind::TANGELOS {
        assert_eq!(play(&cluster, kind, client), reference, "{kind}");
    }
}

/// It comes back by itself after the kick, and the protos that it kept are not sent again.
const BROWSER: [&str; 12] = [
    "-> handshake",
    "<- handshake 200 dict protos",
    "in",
    "-> request code proto",
    "-> notify code proto",
    r#"onKick {"reason":"bye"}"#,
    "reconnect",
    "-> handshake knows protos",
    "<- handshake 200 dict",
    "<- push code proto",
    "-> handshake knows protos",
    "end",
];

#[test]
fn the_browser_client_plays_the_same_game_in_pomelo() {
    play_everywhere(Dialect::Pomelo, "browser", &BROWSER);
}

#[test]
fn the_browser_client_plays_the_same_game_in_pinus() {
    play_everywhere(Dialect::Pinus, "browser", &BROWSER);
}

/// It does not reconnect, has no cache, and does not compress its messages.
const NODE: [&str; 7] = [
    "-> handshake",
    "<- handshake 200 dict protos",
    "-> request proto",
    "-> notify proto",
    "onKick",
    "<- handshake 200 dict protos",
    "end",
];

#[test]
fn the_node_client_plays_the_same_game_in_pomelo() {
    play_everywhere(Dialect::Pomelo, "node", &NODE);
}

#[test]
fn the_node_client_plays_the_same_game_in_pinus() {
    play_everywhere(Dialect::Pinus, "node", &NODE);
}
