//! Pomelo's gate, which tells players where to connect:
//! `cargo run --release --example gate -- --config examples/gate/gate.toml`
//!
//! The connectors are the same program with `examples/gate/connector-1.toml` and with `connector-2.toml`.
//! In a Pomelo project the gate's command is `-- --app-dir path/to/game-server --id gate-1`.
//!
//! `gate.gateHandler.queryEntry` answers `{"code":200,"host":"127.0.0.1","port":3010}`, the connector with
//! the fewest connections, or `{"code":500}` when there is none. A uid in the message changes nothing: any
//! connector takes any player. `connector.entryHandler.enter` with `{"uid":"ann"}` then says where ann is.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tangelo::config::Server;
use tangelo::handler::{App, CallError, Json, RemoteCall, Reply, Router, Session, State, Stop};
use tangelo::{Config, Gateway};

fn main() -> tangelo::Result<()> {
    let config = Config::from_args()?;
    // One program for all servers, as with an app.js.
    let is_gate = config.server_type == "gate";
    Gateway::new(config)
        .handlers(move |_shard| if is_gate { gate() } else { connector() })
        .run()
}

// The connector.

fn connector() -> Router {
    Router::new()
        .route("entryHandler.enter", enter)
        .remote("loadRemote.connections", connections)
}

#[derive(Deserialize)]
struct Enter {
    uid: String,
}

async fn enter(mut session: Session, Json(player): Json<Enter>) -> Reply<Value> {
    session.bind(player.uid).await?;
    Ok(json!({ "code": 200, "server": session.app().server_id() }))
}

async fn connections(call: RemoteCall) -> Value {
    let mut sessions = call.app().sessions().await;
    sessions["count"].take()
}

// The gate.

/// How often connectors are asked.
const PERIOD: Duration = Duration::from_secs(1);

/// A connector that takes longer to answer gets no players.
const PATIENCE: Duration = Duration::from_millis(500);

fn gate() -> Router {
    Router::new()
        .route("gateHandler.queryEntry", query_entry)
        .task("loads", keep_asking)
        .with_state(Loads::default())
}

async fn keep_asking(app: App, stop: Stop) {
    let loads: Loads = app.state().expect("the router has it");
    loads.ask(&app).await;
    while stop.or(app.sleep(PERIOD)).await.is_some() {
        loads.ask(&app).await;
    }
}

async fn query_entry(app: App, State(loads): State<Loads>) -> Value {
    match loads.choose(app.cluster().servers("connector")) {
        Some(server) => json!({
            "code": 200,
            "host": server.client_host.unwrap_or(server.host),
            "port": server.client_port,
        }),
        None => json!({ "code": 500 }),
    }
}

/// The loads of connectors, by their ids. Each shard asks and counts for itself.
#[derive(Clone, Default)]
struct Loads(Rc<RefCell<HashMap<String, Load>>>);

#[derive(Default)]
struct Load {
    connections: Connections,
    /// Players that were sent there since: they are on their way, and not among the connections.
    sent: u64,
}

#[derive(Default)]
enum Connections {
    Known(u64),
    /// Not asked yet, or without the remote, as a connector in JavaScript may be.
    #[default]
    Unknown,
    /// It does not answer.
    Away,
}

impl Loads {
    /// Asks all connectors, one after the other.
    async fn ask(&self, app: &App) {
        let cluster = app.cluster();
        let servers = cluster.servers("connector");
        for Server { id, .. } in &servers {
            let call = cluster.call("connector", "loadRemote.connections", &[]);
            let connections = match call.to_server(id).timeout(PATIENCE).await {
                Ok(count) => count
                    .as_u64()
                    .map_or(Connections::Unknown, Connections::Known),
                Err(CallError::Remote(_)) => Connections::Unknown,
                Err(CallError::NotSent(_) | CallError::Lost(_)) => Connections::Away,
            };
            let load = Load {
                connections,
                sent: 0,
            };
            self.0.borrow_mut().insert(id.clone(), load);
        }
        let is_there = |id: &String| servers.iter().any(|server| server.id == *id);
        self.0.borrow_mut().retain(|id, _| is_there(id));
    }

    /// The least loaded server, which then has one player more. One of which nothing is known comes behind
    /// all others.
    fn choose(&self, servers: Vec<Server>) -> Option<Server> {
        let mut of = self.0.borrow_mut();
        let load = |server: &Server| match of.get(&server.id) {
            None => Some((true, 0)),
            Some(Load { connections, sent }) => match connections {
                Connections::Known(count) => Some((false, count + sent)),
                Connections::Unknown => Some((true, *sent)),
                Connections::Away => None,
            },
        };
        let takes_players = servers
            .into_iter()
            .filter(|server| server.client_port.is_some());
        let loads = takes_players.filter_map(|server| Some((load(&server)?, server)));
        let (_, server) = loads.min_by_key(|(load, _)| *load)?;
        of.entry(server.id.clone()).or_default().sent += 1;
        Some(server)
    }
}
