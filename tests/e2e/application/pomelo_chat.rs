//! A chat cluster of Pomelo with its genuine connectors, and with two processes of the example
//! `pomelo_chat` in their place: the players do the same and get the same.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::client::Client;
use crate::harness::frontend::{Kind, Transport};
use crate::harness::gateway::{Gateway, Turn};
use crate::harness::peers::{Cluster, Connector};
use crate::harness::process::Process;

/// All that players get. The room `lobby` is on the last backend and `garden` on the first; ann and dan
/// come by the first connector, and bob by the second.
const TRANSCRIPT: &str = r#"
> ann says hi to * before she is in
ann {"code":500}
> ann enters lobby as ann
ann {"users":["ann"]}
> bob enters lobby as bob
bob {"users":["ann","bob"]}
ann onAdd {"user":"bob"}
> cid enters garden as cid
cid {"users":["cid"]}
> dan enters lobby as ann
dan {"code":500,"error":true}
> ann enters lobby as ann
ann {"code":500,"error":true}
> ann enters garden as ann
ann {"code":500,"error":true}
> ann says hi to *
ann {"room":"lobby","by":"chat-2"}
ann onChat {"from":"ann","msg":"hi","target":"*"}
bob onChat {"from":"ann","msg":"hi","target":"*"}
> bob says psst to ann
bob {"room":"lobby","by":"chat-2"}
ann onChat {"from":"bob","msg":"psst","target":"ann"}
> bob says hey to cid
bob {"code":404}
> dan enters lobby as dan
dan {"users":["ann","dan","bob"]}
ann onAdd {"user":"dan"}
bob onAdd {"user":"dan"}
> dan leaves
ann onLeave {"user":"dan"}
bob onLeave {"user":"dan"}
> dan enters lobby as dan
dan {"users":["ann","dan","bob"]}
ann onAdd {"user":"dan"}
bob onAdd {"user":"dan"}
> bob leaves
ann onLeave {"user":"bob"}
dan onLeave {"user":"bob"}
> dan says bye to *
dan {"room":"lobby","by":"chat-2"}
ann onChat {"from":"dan","msg":"bye","target":"*"}
dan onChat {"from":"dan","msg":"bye","target":"*"}
> cid says hello to *
cid {"room":"garden","by":"chat-1"}
cid onChat {"from":"cid","msg":"hello","target":"*"}
"#;

#[test]
fn on_genuine_connectors() {
    players_get_what_they_get(Kind::Genuine);
}

#[test]
fn on_the_example() {
    players_get_what_they_get(Kind::Tangelo { shards: 1 });
}

#[test]
fn on_the_example_with_four_shards() {
    players_get_what_they_get(Kind::Tangelo { shards: 4 });
}

/// As the chat does that Pomelo is known by.
#[test]
fn a_backend_may_leave_the_error_out_that_comes_before_the_users() {
    let cluster = Cluster::chat();
    let remote = Path::new(cluster.app_dir()).join("app/servers/chat/remote/chatRemote.js");
    let text = fs::read_to_string(&remote).expect("a file of our own");
    let without = text.replace("cb(null, ", "cb(");
    assert_ne!(without, text);
    fs::write(&remote, without).expect("a file of our own");
    let cluster = cluster.with_backends();

    let connector = Connected::start(&cluster, Kind::Tangelo { shards: 1 });
    let mut ann = Client::tcp(connector.address).open();
    let body = json!({"username": "ann", "rid": "lobby"}).to_string();
    assert_eq!(ann.request_text(ENTER, body), r#"{"users":["ann"]}"#);
}

fn players_get_what_they_get(kind: Kind) {
    let cluster = Cluster::chat().with_backends();
    let connectors = [(); 2].map(|()| Connected::start(&cluster, kind));
    let mut play = Play {
        transports: kind.transports(),
        opened: 0,
        text: String::from("\n"),
    };
    play.all(connectors.each_ref().map(|connector| connector.address));
    println!("{}", play.text);
    assert_eq!(play.text, TRANSCRIPT);
}

/// A connector that is part of the cluster.
struct Connected<'a> {
    address: SocketAddr,
    _program: Program,
    // Last: the id is free when its process is gone.
    _connector: Connector<'a>,
}

/// Kept, so that it runs.
#[allow(dead_code, reason = "nothing is asked of it")]
enum Program {
    Example(Gateway),
    Genuine(Process, Turn),
}

impl<'a> Connected<'a> {
    fn start(cluster: &'a Cluster, kind: Kind) -> Self {
        let connector = cluster.take_connector();
        let id = connector.id();
        let (program, address) = match kind {
            Kind::Tangelo { shards } => {
                let (dir, shards) = (cluster.app_dir(), shards.to_string());
                let args = ["--app-dir", dir, "--id", id, "--shards", &shards];
                let example = Gateway::start_example("pomelo_chat", &[], &args);
                let address = example.address();
                (Program::Example(example), address)
            }
            Kind::Genuine => {
                let turn = Turn::shared();
                let (process, address) = cluster.start_connector(id, &[]);
                (Program::Genuine(process, turn), address)
            }
        };
        cluster.wait_until_known(id);
        Self {
            address,
            _program: program,
            _connector: connector,
        }
    }
}

/// The actions of players, and the messages that they get.
struct Play {
    transports: &'static [Transport],
    opened: usize,
    text: String,
}

/// A client and the name it has in the transcript.
struct Player {
    name: &'static str,
    client: Client,
}

impl Play {
    fn all(&mut self, [first, second]: [SocketAddr; 2]) {
        let mut ann = self.player("ann", first);
        let mut bob = self.player("bob", second);
        let mut cid = self.player("cid", first);
        let mut dan = self.player("dan", first);

        self.note("> ann says hi to * before she is in".into());
        self.request(&mut ann, SEND, &json!({"content": "hi", "target": "*"}));
        self.enter(&mut ann, "ann", "lobby");
        self.enter(&mut bob, "bob", "lobby");
        self.pushes(&mut [&mut ann]);
        self.enter(&mut cid, "cid", "garden");
        // A name that is already in the room, and a player who has entered.
        self.enter(&mut dan, "ann", "lobby");
        self.enter(&mut ann, "ann", "lobby");
        self.enter(&mut ann, "ann", "garden");

        self.say(&mut ann, "hi", "*");
        self.pushes(&mut [&mut ann, &mut bob]);
        self.say(&mut bob, "psst", "ann");
        self.pushes(&mut [&mut ann]);
        self.say(&mut bob, "hey", "cid");

        self.enter(&mut dan, "dan", "lobby");
        self.pushes(&mut [&mut ann, &mut bob]);
        self.leave(dan);
        self.pushes(&mut [&mut ann, &mut bob]);
        let mut dan = self.player("dan", first);
        self.enter(&mut dan, "dan", "lobby");
        self.pushes(&mut [&mut ann, &mut bob]);
        self.leave(bob);
        self.pushes(&mut [&mut ann, &mut dan]);

        // Pushes to absent players would arrive before these.
        self.say(&mut dan, "bye", "*");
        self.pushes(&mut [&mut ann, &mut dan]);
        self.say(&mut cid, "hello", "*");
        self.pushes(&mut [&mut cid]);
    }

    /// Over one transport after the other.
    fn player(&mut self, name: &'static str, address: SocketAddr) -> Player {
        let transport = self.transports[self.opened % self.transports.len()];
        self.opened += 1;
        let client = match transport {
            Transport::Tcp => Client::tcp(address),
            Transport::WebSocket => Client::websocket(address),
        };
        Player {
            name,
            client: client.open(),
        }
    }

    fn enter(&mut self, player: &mut Player, username: &str, rid: &str) {
        self.note(format!("> {} enters {rid} as {username}", player.name));
        self.request(player, ENTER, &json!({"username": username, "rid": rid}));
    }

    fn say(&mut self, player: &mut Player, content: &str, target: &str) {
        self.note(format!("> {} says {content} to {target}", player.name));
        self.request(player, SEND, &json!({"content": content, "target": target}));
    }

    /// By closing the connection.
    fn leave(&mut self, player: Player) {
        self.note(format!("> {} leaves", player.name));
        drop(player);
    }

    fn request(&mut self, player: &mut Player, route: &str, body: &Value) {
        let response = player.client.request_text(route, body.to_string());
        self.note(format!("{} {response}", player.name));
    }

    /// The next push of each.
    fn pushes(&mut self, players: &mut [&mut Player]) {
        for player in players {
            let (route, body) = player.client.next_push();
            let body = String::from_utf8(body).expect("pushes are UTF-8");
            self.note(format!("{} {route} {body}", player.name));
        }
    }

    fn note(&mut self, line: String) {
        self.text.push_str(&line);
        self.text.push('\n');
    }
}

const ENTER: &str = "connector.entryHandler.enter";
const SEND: &str = "chat.chatHandler.send";
