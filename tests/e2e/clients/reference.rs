//! The reference application on a genuine frontend and on tangelo: one script, the same bytes.
//!
//! `tests/genuine/reference/` is the application in JavaScript and `tests/reference/app.rs` in Rust;
//! both stand before the same genuine backend. `script` says what clients do, `player` does it and
//! writes down what they receive, `differences` is the list of the differences of tangelo.
//!
//! Over WebSocket only: a genuine frontend takes no raw TCP on Node 20.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::thread;

use tangelo::config::Dialect;
use tangelo::gateway::load;

use crate::harness::client;
use crate::harness::gateway::Turn;
use crate::harness::inside::Inside;
use crate::harness::pause;
use crate::harness::peers::{Cluster, REFERENCE};

#[path = "../../reference/app.rs"]
#[allow(dead_code, reason = "written for more than is asked here")]
mod app;
mod differences;
mod player;
mod script;

use differences::Differences;
use player::{Record, Stage};
use script::Script;

/// The arguments that make each program a server of the table.
struct Knobs {
    server: &'static str,
    genuine: &'static [&'static str],
    tangelo: &'static [&'static str],
}

const fn knobs(
    server: &'static str,
    genuine: &'static [&'static str],
    tangelo: &'static [&'static str],
) -> Knobs {
    Knobs {
        server,
        genuine,
        tangelo,
    }
}

/// Most options of the genuine ones are in their `app.js`.
#[rustfmt::skip]
const KNOBS: &[Knobs] = &[
    knobs("c-plain", &[], &[]),
    knobs("c-hb", &[], &["client.heartbeat=1s"]),
    knobs("c-dist", &[], &["client.heartbeat=2s", "client.timeout=3s"]),
    knobs("c-dict", &[], &[
        "client.heartbeat=30s", "client.use_dict=true", "client.use_protobuf=true",
        "client.accept=[\"!bad\"]",
    ]),
    knobs("c-crypto", &[], &["client.use_crypto=true"]),
    knobs("c-buffer", &[], &["push.scheduler=buffer", "push.flush_interval=100ms"]),
    knobs("c-single", &[], &["session.duplicate_login=refuse"]),
    knobs("c-maxc", &["max-connections=2"], &["client.max_connections=2"]),
    knobs("c-host", &[], &[]),
    knobs("c-tmo", &[], &[
        "client.timeout=2s", "client.idle_websocket=false", "filter.local=[\"serial 300ms\",\"time\",\"timeout 200ms 2\"]",
    ]),
    knobs("c-filter", &[], &[]),
    knobs("c-err", &[], &[]),
];

fn knobs_of(server: &str) -> &'static Knobs {
    let knobs = KNOBS.iter().find(|knobs| knobs.server == server);
    knobs.unwrap_or_else(|| panic!("{server}: no knobs"))
}

/// How many steps there are at least.
const STEPS_MIN: usize = 120;

#[test]
fn clients_receive_the_bytes_of_the_reference() {
    let scripts = script::scripts();
    let steps: usize = scripts.iter().map(|script| script.steps.len()).sum();
    assert!(steps >= STEPS_MIN, "{steps} steps");
    let cluster = Cluster::reference();
    let _turn = Turn::shared();

    let expected = on_genuine(&cluster, &scripts);
    let got = on_tangelo(&cluster, &scripts);
    println!("{steps} steps on {} servers", scripts.len());
    let mut differences = Differences::listed();
    for (expected, got) in expected.iter().zip(&got) {
        differences.check(expected, got);
    }
    differences.none_left();
}

/// Every server of the table in a Node process of its own; all are started at once.
fn on_genuine(cluster: &Cluster, scripts: &[Script]) -> Vec<Record> {
    let blacklist = Path::new(cluster.app_dir()).join("blacklist");
    std::fs::write(&blacklist, "").expect("a file of our own");
    let start = |script: &Script| {
        let server = script.server;
        move || cluster.start_connector(server, knobs_of(server).genuine)
    };
    let frontends: Vec<_> = thread::scope(|scope| {
        let starting: Vec<_> = scripts.iter().map(|s| scope.spawn(start(s))).collect();
        let started = starting.into_iter().map(|thread| thread.join());
        started
            .map(|frontend| frontend.expect("the gateway starts"))
            .collect()
    });
    let mut records = Vec::new();
    for (script, (_, address)) in scripts.iter().zip(&frontends) {
        cluster.wait_until_known(script.server);
        let stage = Stage {
            address: *address,
            is_genuine: true,
            blacklist: blacklist.clone(),
        };
        records.extend(player::play(&stage, script));
    }
    for record in &records {
        println!("{}\n    {}", record.step, record.received.join("\n    "));
    }
    drop(frontends);
    for script in scripts {
        cluster.wait_until_forgotten(script.server);
    }
    records
}

/// Every server of the table inside this process, one after the other, as the same member of the
/// same cluster.
fn on_tangelo(cluster: &Cluster, scripts: &[Script]) -> Vec<Record> {
    let blacklist = Path::new(cluster.app_dir()).join("blacklist");
    std::fs::write(&blacklist, "").expect("a file of our own");
    let mut records = Vec::new();
    for script in scripts {
        let server = script.server;
        let knobs = knobs_of(server);
        let listen = match server {
            "c-dist" => cluster.client_address(server).to_string(),
            _ => format!("[::]:{}", cluster.client_address(server).port()),
        };
        let mut args = vec!["tangelo", "--app-dir", cluster.app_dir(), "--id", server];
        args.extend(["--shards", "2", "--listen", &listen]);
        args.extend(knobs.tangelo.iter().flat_map(|knob| ["--set", knob]));
        let mut config = load::from_args(args.into_iter().map(OsString::from))
            .unwrap_or_else(|error| panic!("{server}: {error}"));
        if server == "c-host" {
            config.client.blacklist_file = Some(blacklist.clone());
        }
        // Those of its own handlers it knows.
        let of_others = script::handlers().into_iter();
        config.handler_routes = of_others
            .filter(|route| route.starts_with("chat."))
            .collect();
        let logs = app::Logs::default();
        // One method is of Pinus's application alone.
        let is_there = |method: &str| method != "codeResp";
        let inside = Inside::with(config, move || {
            app::router(server, Dialect::Pomelo, &logs, is_there)
        });
        cluster.wait_until_known(server);
        let stage = Stage {
            address: cluster.client_address(server),
            is_genuine: false,
            blacklist: blacklist.clone(),
        };
        records.extend(player::play(&stage, script));
        inside.stop();
        cluster.wait_until_forgotten(server);
    }
    records
}

/// Every server is there, and every handler of both halves is asked for.
#[test]
fn the_script_leaves_nothing_out() {
    let handlers = script::handlers();
    assert!(handlers.len() >= 50, "{handlers:?}");
    let scripts = script::scripts();
    let servers: BTreeSet<_> = scripts.iter().map(|script| script.server).collect();
    assert_eq!(servers, BTreeSet::from(REFERENCE));
    let steps = scripts.iter().flat_map(|script| &script.steps);
    let words: BTreeSet<&str> = steps.flat_map(|step| step.name.split([' ', '"'])).collect();
    let missing: Vec<_> = handlers
        .iter()
        .filter(|route| {
            let method = route.strip_prefix("connector.entryHandler.");
            ![method, Some(route)]
                .into_iter()
                .flatten()
                .any(|word| words.contains(word))
        })
        .collect();
    // The last one is for the harness.
    assert_eq!(missing, ["chat.chatHandler.servers"]);
}
