//! A gateway with the reference application on it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tangelo::config::{self, Config, Dialect};
use tangelo::{Gateway, Running};

use super::app::{self, Logs};
use super::backend;
use super::client::{Client, DATA, Package};

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

/// Those that were started. Held while one starts: that is for one thread at a time.
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
        pin: false,
        servers: vec![config::Server {
            id: "chat-1".into(),
            server_type: "chat".into(),
            host: backend.ip().to_string(),
            port: backend.port(),
            weight: None,
        }],
        ..Config::default()
    };
    // As c-dict of the reference application, whose refusals c-plain is asked for.
    config.client.accept = vec!["!bad".into()];
    match name {
        "c-hb" => config.client.heartbeat = Some(Duration::from_secs(1)),
        "c-plain" | "c-filter" | "c-err" => {}
        other => panic!("no server {other}"),
    }
    let logs = Logs::default();
    let handlers = logs.clone();
    let running = Gateway::new(config)
        .handlers(move |_| app::router(name, dialect, &handlers))
        .start()
        .expect("the gateway starts");
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
