//! The example `gate`: players are sent to the connector that has the fewest.

use std::collections::BTreeMap;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::gateway::{Gateway, Turn};
use crate::harness::peers::{Cluster, Ports};
use crate::harness::process::POLL_INTERVAL;

const QUERY: &str = "gate.gateHandler.queryEntry";

/// The servers of `examples/gate/`, on ports of their own.
struct Servers {
    gate: Gateway,
    connectors: [Option<Gateway>; 2],
    _ports: Ports,
}

impl Servers {
    fn start() -> Self {
        let ports = Ports::claim();
        let ids = ["connector-1", "connector-2"];
        let connectors = ids.map(|id| {
            let config = format!("examples/gate/{id}.toml");
            let calls = format!("rpc.listen=127.0.0.1:{}", ports.of(id));
            start(&config, &["--shards", "2", "--set", &calls])
        });
        let server = |at: usize| {
            format!(
                r#"{{id="{}", type="connector", host="127.0.0.1", port={}, client_port={}}}"#,
                ids[at],
                ports.of(ids[at]),
                connectors[at].address().port(),
            )
        };
        let servers = format!("server=[{}, {}]", server(0), server(1));
        let gate = start(
            "examples/gate/gate.toml",
            &["--shards", "1", "--set", &servers],
        );
        let servers = Self {
            gate,
            connectors: connectors.map(Some),
            _ports: ports,
        };
        // It takes a moment until it has a link to each.
        wait_until(&servers.gate, "both are given", |queried| {
            queried.len() == 2
        });
        servers
    }

    fn port(&self, at: usize) -> u64 {
        let connector = self.connectors[at].as_ref().expect("the connector runs");
        connector.address().port().into()
    }
}

/// Asks four times, about every second, until `is` says that the ports are right.
#[track_caller]
fn wait_until(gate: &Gateway, what: &str, is: impl Fn(&BTreeMap<u64, usize>) -> bool) {
    wait_until_burst(gate, 4, what, is);
}

/// As [`wait_until`], with `count` queries at once.
#[track_caller]
fn wait_until_burst(
    gate: &Gateway,
    count: usize,
    what: &str,
    is: impl Fn(&BTreeMap<u64, usize>) -> bool,
) {
    let deadline = Instant::now() + HANG_GUARD;
    let mut client = Client::tcp(gate.address()).open();
    loop {
        let queried = query(&mut client, count);
        if is(&queried) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "waited until {what}: {queried:?}"
        );
        thread::sleep(220 * POLL_INTERVAL);
    }
}

fn start(config: &str, args: &[&str]) -> Gateway {
    let config = format!("{}/{config}", env!("CARGO_MANIFEST_DIR"));
    Gateway::start_example("gate", &[], &[&["--config", &config], args].concat())
}

/// Sends `count` queries at once. Returns how often the gate gave each port, with 0 for none.
fn query(client: &mut Client, count: usize) -> BTreeMap<u64, usize> {
    let body = r#"{"uid":"ann"}"#;
    let ids: Vec<_> = (0..count)
        .map(|_| client.request_fresh(QUERY, body))
        .collect();
    let mut ports = BTreeMap::new();
    for id in ids {
        let answer: Value = serde_json::from_slice(&client.wait_response(id)).expect("JSON");
        let port = answer["port"].as_u64().unwrap_or_default();
        let expected = match port {
            0 => json!({"code": 500}),
            _ => json!({"code": 200, "host": "127.0.0.1", "port": port}),
        };
        assert_eq!(answer, expected);
        *ports.entry(port).or_default() += 1;
    }
    ports
}

#[test]
fn players_go_where_the_fewest_are() {
    let servers = Servers::start();
    let [first, second] = &servers.connectors;
    let address =
        |connector: &Option<Gateway>| connector.as_ref().expect("the connector runs").address();
    let (first, second) = (address(first), address(second));
    let players = |address| {
        (0..10)
            .map(|_| Client::tcp(address).open())
            .collect::<Vec<_>>()
    };

    let mut on_first = players(first);
    let to_second = BTreeMap::from([(servers.port(1), 4)]);
    wait_until(&servers.gate, "all go to the second", |queried| {
        *queried == to_second
    });
    let enter = |client: &mut Client| {
        client.request_text("connector.entryHandler.enter", r#"{"uid":"ann"}"#)
    };
    assert_eq!(
        enter(&mut on_first[0]),
        r#"{"code":200,"server":"connector-1"}"#
    );

    let _on_second = [players(second), players(second)];
    let to_first = BTreeMap::from([(servers.port(0), 4)]);
    wait_until(&servers.gate, "all go to the first", |queried| {
        *queried == to_first
    });
}

#[test]
fn a_burst_is_spread() {
    let servers = Servers::start();
    let ports = [servers.port(0), servers.port(1)];
    // Between the first answers of the two connectors one is known and gets all of a burst.
    wait_until_burst(&servers.gate, 40, "each gets a share", |queried| {
        let count = |port| queried.get(port).is_some_and(|count| *count >= 12);
        ports.iter().all(count)
    });
}

#[test]
fn nobody_is_sent_to_a_connector_that_is_away() {
    let mut servers = Servers::start();
    let second = BTreeMap::from([(servers.port(1), 4)]);
    servers.connectors[0]
        .take()
        .expect("the connector runs")
        .kill();
    wait_until(&servers.gate, "only the second is given", |queried| {
        *queried == second
    });
    wait_until(&servers.gate, "the list stays the same", |queried| {
        *queried == second
    });
    servers.connectors[1]
        .take()
        .expect("the connector runs")
        .kill();
    let nobody = BTreeMap::from([(0, 4)]);
    wait_until(&servers.gate, "no connector is chosen", |queried| {
        *queried == nobody
    });
}

/// The gate knows the connectors from the master. One in JavaScript does not tell its connections, and
/// comes last.
#[test]
fn in_a_pomelo_cluster_too() {
    let cluster = Cluster::chat().with_backends();
    let ids = [(); 3].map(|()| cluster.take_connector());
    let [gate, genuine, connector] = ids.each_ref().map(|connector| connector.id());
    let start = |id: &str, args: &[&str]| {
        let own = ["--app-dir", cluster.app_dir(), "--id", id, "--shards", "1"];
        let example = Gateway::start_example("gate", &[], &[&own, args].concat());
        cluster.wait_until_known(id);
        example
    };
    let _turn = Turn::shared();
    let _genuine = cluster.start_connector(genuine, &[]);
    let running = start(connector, &[]);
    let gate = start(gate, &["--set", "server_type=gate"]);

    let only = |id| BTreeMap::from([(u64::from(cluster.client_address(id).port()), 4)]);
    let (first, last) = (only(connector), only(genuine));
    wait_until(&gate, "the one that tells", |queried| *queried == first);
    running.kill();
    wait_until(&gate, "the one that is left", |queried| *queried == last);
}
