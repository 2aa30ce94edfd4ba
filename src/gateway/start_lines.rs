//! The start lines on standard output: the address for clients, this program, its configuration and its cluster.

use serde_json::{Map, Value};

use super::Running;
use super::listen::OpenListener;
use crate::config::{self, Config};
use crate::log::Output;
use crate::metrics::{COMMIT, VERSION};
use crate::tls::TlsSettings;

/// Limits in the start lines, beside the largest number of clients.
const LIMITS: [&str; 10] = [
    "client.heartbeat",
    "client.timeout",
    "client.package_bytes_max",
    "client.outbox_bytes_max",
    "client.calls_in_flight_max",
    "rpc.timeout",
    "rpc.calls_in_flight_max",
    "limits.memory",
    "drain.timeout",
    "stop_timeout",
];

/// The parts of the start lines that the configuration has.
pub(super) struct StartLines {
    id: String,
    /// Files and flags.
    configuration: Vec<String>,
    limits: Vec<(&'static str, String)>,
    /// Host and port of the master.
    master: Option<String>,
    /// Number of other servers in the configuration.
    servers: usize,
}

impl StartLines {
    pub(super) fn new(config: &Config) -> Self {
        let limits = config::knobs().filter(|knob| LIMITS.contains(&knob.key));
        let master = config.master.as_ref();
        Self {
            id: config.id.clone(),
            configuration: config.sources.read.clone(),
            limits: limits.map(|knob| (knob.key, knob.show(config))).collect(),
            master: master.map(|master| format!("{}:{}", master.host, master.port)),
            servers: config.servers.len(),
        }
    }

    /// Returns true if the start waits for a master.
    pub(super) fn has_master(&self) -> bool {
        self.master.is_some()
    }

    /// Writes the line of a start that waits for its master.
    pub(super) fn say_waiting(&self, running: &Running, output: &Output) {
        let address = &running.listeners[0].address;
        let master = self.master.as_deref().unwrap_or_default();
        let line = format!(
            "tangelo takes clients on {address}, but is not part of the cluster: it waits for the master {master}"
        );
        let members = [
            ("address", address.to_string().into()),
            ("master", master.into()),
        ];
        output.say(&line, members);
    }

    /// Writes the start lines. `servers` is the number of other servers that the master knows.
    pub(super) fn say(&self, running: &Running, servers: usize, output: &Output) {
        self.say_address(running, output);
        say_listeners(&running.listeners, output);
        if let Some(tls) = &running.tls {
            say_certificates(tls, output);
        }
        let configuration = match &*self.configuration {
            [] => "the defaults".into(),
            sources => sources.join(", "),
        };
        let line = format!("version {VERSION}, commit {COMMIT}; configuration: {configuration}");
        let members = [
            ("version", VERSION.into()),
            ("commit", COMMIT.into()),
            ("configuration", self.configuration.clone().into()),
        ];
        output.say(&line, members);
        let limits = self.limits.iter();
        let limits: Vec<String> = limits
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        let members = self.limits.iter();
        let members: Map<String, Value> = members
            .map(|(key, value)| ((*key).into(), value.trim_matches('"').into()))
            .collect();
        let line = format!("limits: {}", limits.join(", "));
        output.say(&line, [("limits", members.into())]);
        self.say_cluster(servers, output);
    }

    /// Writes the first line: the address of the first listener for clients, the number of shards, the pinning, the
    /// largest number of clients. Other programs parse the text up to the number of shards.
    fn say_address(&self, running: &Running, output: &Output) {
        let address = &running.listeners[0].address;
        let (id, shards) = (&self.id, running.shards);
        let (pinning, clients_max) = (&running.pinning, running.clients_max);
        let line = format!(
            "tangelo listening on {address} id {id} shards {shards} ({pinning}) clients up to {clients_max}"
        );
        let members = [
            ("address", address.to_string().into()),
            ("id", id.as_str().into()),
            ("shards", shards.into()),
            ("pinning", pinning.to_string().into()),
            ("clients_max", clients_max.into()),
        ];
        output.say(&line, members);
    }

    fn say_cluster(&self, servers: usize, output: &Output) {
        let (line, servers) = match &self.master {
            Some(master) => (
                format!("cluster: the master {master}, and {servers} other servers"),
                servers,
            ),
            None => (
                format!(
                    "cluster: no master, {} servers of the configuration",
                    self.servers
                ),
                self.servers,
            ),
        };
        let master = self.master.as_deref().map_or(Value::Null, Value::from);
        output.say(&line, [("master", master), ("servers", servers.into())]);
    }
}

/// Writes the addresses and the rules of the listeners, where the first line does not say all of that.
fn say_listeners(listeners: &[OpenListener], output: &Output) {
    let texts: Vec<String> = listeners.iter().map(ToString::to_string).collect();
    if texts == [listeners[0].address.to_string()] {
        return;
    }
    let line = format!("listeners: {}", texts.join(", "));
    output.say(&line, [("listeners", texts.into())]);
}

/// Writes the certificates in use.
fn say_certificates(tls: &TlsSettings, output: &Output) {
    let certificates = tls.expiries().load();
    let texts: Vec<String> = certificates.iter().map(ToString::to_string).collect();
    let line = format!("certificates: {}", texts.join(", "));
    output.say(&line, [("certificates", texts.into())]);
}
