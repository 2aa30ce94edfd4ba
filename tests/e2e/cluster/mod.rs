//! A frontend is a member of its cluster: backends find it, bind and look up its sessions, push to
//! its clients and kick them; it follows the cluster as servers come and go.
//!
//! Every promise is kept by tangelo, on one shard and on four, over TCP and WebSocket, in a Pomelo
//! and in a Pinus cluster; and it is first of all kept by the genuine connectors.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::{Client, HANG_GUARD, HEARTBEAT, KICK, Message, Package};
use crate::harness::frontend::{Frontend, Kind, Knobs, Transport};
use crate::harness::peers::{Cluster, Dialect};

mod callers;
mod channel;
mod console;
mod delegated;
mod drain;
mod forged;
mod forward;
mod life;
mod links;
mod master_states;
mod notices;
mod odd_files;
mod push;
mod races;
pub(crate) mod remotes;
mod session;
mod unknown_server;
mod wire;

/// The same promise on each frontend: four tests in a module of the promise's name.
///
/// `shared`: the function takes a [`Setup`], whose frontend is its own in a cluster that it must
/// not change. `own`: it takes a cluster of its own and the kind of frontend to start in it.
macro_rules! promises {
    ($run:ident: $($promise:ident,)*) => {$(
        mod $promise {
            use crate::harness::frontend::Kind;
            use crate::harness::peers::Dialect;

            #[test]
            fn tangelo_in_pomelo() {
                $crate::cluster::$run(Dialect::Pomelo, &Kind::TANGELOS, super::$promise);
            }

            #[test]
            fn tangelo_in_pinus() {
                $crate::cluster::$run(Dialect::Pinus, &Kind::TANGELOS, super::$promise);
            }

            #[test]
            fn genuine_pomelo() {
                $crate::cluster::$run(Dialect::Pomelo, &[Kind::Genuine], super::$promise);
            }

            #[test]
            fn genuine_pinus() {
                $crate::cluster::$run(Dialect::Pinus, &[Kind::Genuine], super::$promise);
            }
        }
    )*};
}
use promises;

/// A function of a dialect, as one test for each.
macro_rules! in_both_dialects {
    ($promise:ident) => {
        #[test]
        fn in_pomelo() {
            $promise(Dialect::Pomelo);
        }

        #[test]
        fn in_pinus() {
            $promise(Dialect::Pinus);
        }
    };
}
pub(crate) use in_both_dialects;

/// A frontend in the shared cluster, and the transport of its clients.
struct Setup<'a> {
    frontend: &'a mut Frontend<'static>,
    transport: Transport,
    /// Differs from setup to setup; part of each uid, so that a client of the last setup, whose
    /// end the frontend may not have noticed yet, is nobody's namesake.
    run: u32,
}

impl Setup<'_> {
    fn client(&self) -> Client {
        self.frontend.client(self.transport)
    }

    fn uid(&self, name: &str) -> String {
        format!("{name}-{}", self.run)
    }

    /// Returns enough clients that, with four shards, each shard has some.
    fn clients(&self) -> Vec<Client> {
        let count = match self.frontend.kind() {
            Kind::Tangelo { shards: 1 } | Kind::Genuine => 2,
            Kind::Tangelo { .. } => 12,
        };
        (0..count).map(|_| self.client()).collect()
    }

    fn dialect(&self) -> Dialect {
        self.frontend.dialect()
    }
}

fn shared(dialect: Dialect, kinds: &[Kind], promise: fn(&mut Setup<'_>)) {
    shared_with(Knobs::default(), dialect, kinds, promise);
}

fn shared_with(knobs: Knobs, dialect: Dialect, kinds: &[Kind], promise: fn(&mut Setup<'_>)) {
    for kind in kinds {
        let mut frontend = Frontend::start(Cluster::shared(dialect), *kind, knobs);
        for (run, transport) in (1..).zip(kind.transports()) {
            // Shown only when the test fails.
            println!("--- {transport:?}, {kind}");
            promise(&mut Setup {
                frontend: &mut frontend,
                transport: *transport,
                run,
            });
        }
    }
}

fn own(dialect: Dialect, kinds: &[Kind], promise: fn(&Cluster, Kind)) {
    for kind in kinds {
        println!("--- {kind}");
        promise(&Cluster::start(dialect), *kind);
    }
}

/// Returns the answer of `chat.chatHandler.<method>`.
fn ask(client: &mut Client, method: &str, body: &Value) -> Value {
    let route = format!("chat.chatHandler.{method}");
    let answer = client.request_text(route.as_str(), body.to_string());
    serde_json::from_str(&answer).expect("an answer is JSON")
}

/// Its session as a backend sees it, and which backend that is.
fn whoami(client: &mut Client) -> Value {
    ask(client, "whoami", &json!({}))
}

fn sid(client: &mut Client) -> u64 {
    let id = whoami(client)["id"].as_u64();
    id.expect("a session id is an integer")
}

fn bind(client: &mut Client, uid: &Value) {
    let answer = ask(client, "bind", &json!({"uid": uid}));
    assert_eq!(answer, json!({"err": null, "uid": uid}));
}

/// A client that is bound to a uid.
fn bound(setup: &Setup<'_>, uid: impl Into<Value>) -> Client {
    let mut client = setup.client();
    bind(&mut client, &uid.into());
    client
}

/// A call of the frontend's own remotes by a backend: the error's first line, and the values.
fn remote(client: &mut Client, service: &str, method: &str, args: &Value) -> (Value, Value) {
    let call = json!({"namespace": "sys", "service": service, "method": method, "args": args});
    let answer = ask(client, "remoteRaw", &call);
    (answer["err"].clone(), answer["values"].clone())
}

/// Shows that nothing was sent before: the next message is the answer to a request made now.
#[track_caller]
fn assert_nothing_more(client: &mut Client) {
    client.request(77, "chat.chatHandler.strResp", "{}");
    let body = br#""hello""#.to_vec();
    assert_eq!(client.next_message(), Message::Response { id: 77, body });
}

#[track_caller]
fn assert_push(client: &mut Client, route: &str, body: &str) {
    let (pushed_route, pushed) = client.next_push();
    let pushed = String::from_utf8(pushed).expect("pushes are UTF-8");
    assert_eq!((pushed_route.as_str(), pushed.as_str()), (route, body));
}

/// Shows that the connection ends now: with this kick before it, or with none.
#[track_caller]
fn assert_end(client: &mut Client, kick: Option<&str>) {
    let mut packages = std::iter::from_fn(|| client.next_package());
    let next = packages.by_ref().find(|package| package.kind != HEARTBEAT);
    let expected = kick.map(|body| Package {
        kind: KICK,
        body: body.as_bytes().to_vec(),
    });
    assert_eq!(next, expected);
    assert_eq!(packages.next(), None, "a package follows the kick");
}

/// Asks who serves it until that is `server`.
#[track_caller]
fn wait_until_served_by(client: &mut Client, server: &str) {
    wait_until_served(client, &[server]);
}

/// Asks who serves it until that is one of `servers`. A question that reaches a server which is
/// just leaving may stay without an answer for 30 s at a genuine frontend, so none is waited for
/// long.
#[track_caller]
fn wait_until_served(client: &mut Client, servers: &[&str]) -> String {
    let deadline = Instant::now() + HANG_GUARD;
    while Instant::now() < deadline {
        let id = client.request_fresh("chat.chatHandler.whoami", "{}");
        if let Some(answer) = client.response_within(id, Duration::from_secs(1)) {
            let answer: Value = serde_json::from_slice(&answer).expect("an answer is JSON");
            let server = answer["server"].as_str().unwrap_or_default();
            if servers.contains(&server) {
                return server.to_owned();
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("not served by any of {servers:?}");
}
