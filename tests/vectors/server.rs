//! A gateway with the reference application on it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tangelo::config::{self, Config, Dialect};
use tangelo::{Gateway, Running};
use tempfile::TempDir;

use super::app::{self, Logs};
use super::backend;
use super::client::{Client, DATA, Package};
use super::handshake;

/// Dictionary and protos of the captured server: read from the reply to a client that has none.
///
/// Returns the folder with the protos, which the gateway reads at its start.
fn c_dict(config: &mut Config) -> TempDir {
    let sys = handshake::full_reply(config.dialect)["sys"].clone();
    let routes = sys["dict"].as_object().expect("a dictionary").keys();
    let user = ["onChat", "onAdd", "onLeave", "chat.chatHandler.virtual"].map(String::from);
    config.handler_routes = routes.filter(|r| !user.contains(r)).cloned().collect();
    config.dictionary = user.to_vec();
    let client = &mut config.client;
    client.heartbeat = Some(Duration::from_secs(30));
    client.accept = vec!["!bad".into()];
    client.use_dict = true;
    client.use_protobuf = true;
    let folder = tempfile::tempdir().expect("a folder for protos");
    let write = |side: &str| {
        let path = folder.path().join(side);
        let protos = unparsed(&sys["protos"][side]);
        std::fs::write(&path, protos.to_string()).expect("a file of protos");
        Some(path)
    };
    client.server_protos = write("server");
    client.client_protos = write("client");
    folder
}

/// Definitions as they stand in a file, from the form that clients get.
fn unparsed(definitions: &Value) -> Value {
    let definitions = definitions.as_object().expect("definitions").iter();
    let definition = |definition: &Value| {
        let mut lines = Map::new();
        for (name, line) in definition.as_object().expect("a definition") {
            if name == "__messages" {
                let nested = unparsed(line);
                let nested = nested.as_object().expect("definitions").iter();
                lines
                    .extend(nested.map(|(name, lines)| (format!("message {name}"), lines.clone())));
            } else if name != "__tags" {
                let word = |word: &str| line[word].as_str().expect("a word").to_owned();
                lines.insert(
                    format!("{} {} {name}", word("option"), word("type")),
                    line["tag"].clone(),
                );
            }
        }
        Value::Object(lines)
    };
    definitions
        .map(|(name, lines)| (name.clone(), definition(lines)))
        .collect()
}

/// Id of the request that tells whether a connection is open. The bytes of its answer follow.
const PROBE_ID: u32 = 77;
const PROBE_ANSWER: &[u8] = b"\x04\x4d{}";

pub(crate) struct Server {
    name: &'static str,
    dialect: Dialect,
    pub(crate) address: SocketAddr,
    pub(crate) logs: Logs,
    _running: Running,
}

/// Starts a gateway. The start changes the panic hook for a moment, which is one for the whole process.
pub(crate) fn start_gateway(gateway: Gateway) -> Running {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    gateway.start().expect("the gateway starts")
}

/// The servers that were started.
static SERVERS: Mutex<Vec<&Server>> = Mutex::new(Vec::new());

/// A server of the reference application. Each is started when it is first asked for and serves all
/// tests: what one locks of memory is not much, but limited.
pub(crate) fn server(name: &'static str, dialect: Dialect) -> &'static Server {
    let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = servers
        .iter()
        .find(|known| known.name == name && known.dialect == dialect);
    if let Some(known) = known {
        return known;
    }
    let started = Box::leak(Box::new(start(name, dialect)));
    servers.push(started);
    started
}

fn start(name: &'static str, dialect: Dialect) -> Server {
    let backend = backend::start(dialect);
    let mut config = Config {
        id: name.into(),
        dialect,
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        shards: Some(2),
        servers: vec![config::Server {
            id: "chat-1".into(),
            server_type: "chat".into(),
            host: backend.ip().to_string(),
            port: backend.port(),
            ..config::Server::default()
        }],
        ..Config::default()
    };
    let _protos = (name == "c-dict").then(|| c_dict(&mut config));
    match name {
        "c-hb" => config.client.heartbeat = Some(Duration::from_secs(1)),
        "c-crypto" => config.client.use_crypto = true,
        "c-plain" | "c-filter" | "c-err" | "c-dict" => {}
        other => panic!("no server {other}"),
    }
    let logs = Logs::default();
    let handlers = logs.clone();
    let known = handshake::full_reply(dialect)["sys"]["dict"].clone();
    let is_there = move |method: &str| {
        name != "c-dict" || !known[format!("connector.entryHandler.{method}")].is_null()
    };
    let router = move |_| app::router(name, dialect, &handlers, &is_there);
    let running = start_gateway(Gateway::new(config).handlers(router));
    Server {
        name,
        dialect,
        address: running.address(),
        logs,
        _running: running,
    }
}

/// Sends a request whose answer is known. A connection that answers it is open, and has sent
/// everything that it had to send before.
pub(crate) fn send_probe(client: &mut Client) {
    client.request(PROBE_ID, "connector.entryHandler.noResp", "{}");
}

pub(crate) fn is_probe_answer(package: &Package) -> bool {
    package.kind == DATA && package.body == PROBE_ANSWER
}

/// A working client over either transport.
pub(crate) fn open_clients(address: SocketAddr) -> [(&'static str, Client); 2] {
    [
        ("tcp", Client::tcp(address).open()),
        ("ws", Client::websocket(address).open()),
    ]
}
