//! Requests that the web console of an administrator makes through the master.

use std::fs;
use std::path::Path;

use super::*;
use crate::harness::peers::{MASTER, wait_for};
use crate::harness::rpc;

/// A genuine master answers its console only when the server answers in `body`, and without an `error`.
mod every_request_of_the_console_ends {
    use super::*;

    fn promise(dialect: Dialect) {
        let cluster = Cluster::idle(dialect);
        cluster.add_config("systemMonitor.json", &json!(true));
        let cluster = cluster.with_backends();
        let ask = |module: &str, body: &Value| {
            let answer = rpc::ask_master(cluster.rpc_address(MASTER), module, body);
            answer.unwrap_or_else(|error| panic!("{module} has no answer: {error}"))
        };
        for kind in [Kind::Genuine, Kind::TANGELOS[1]] {
            println!("--- {kind}");
            let frontend = Frontend::start(&cluster, kind, Knobs::default());
            let id = frontend.id();
            // The genuine frontend reads a file, and Pinus' never answers when there is none.
            let logs = Path::new(cluster.app_dir()).join("logs");
            fs::create_dir_all(&logs).expect("a folder of our own");
            fs::write(logs.join(format!("con-log-{id}.log")), "\n").expect("a file of our own");

            let script = json!({"command": "run", "serverId": id, "script": "result = 'mine'"});
            let expected = match kind {
                Kind::Genuine => "mine",
                Kind::Tangelo { .. } => "this server is tangelo, which runs no scripts",
            };
            assert_eq!(ask("scripts", &script), expected);
            let lines = json!({"logfile": "con-log", "number": 10, "serverId": id});
            assert_eq!(
                ask("monitorLog", &lines),
                json!({"serverId": id, "body": {"logfile": "con-log", "dataArray": []}})
            );
        }
    }

    in_both_dialects!(promise);
}

/// The commands that a genuine server runs, and scripts that print as much of their output as it reads.
const TOOLS: [(&str, &str); 3] = [
    (
        "iostat",
        "echo user 1.5 0 2.5 0 0 96 sda 3.5 10 20 1000 2000",
    ),
    ("pidstat", "echo pid 7 0.50 0.25 0.00 0"),
    (
        "ps",
        "for pid in /proc/[0-9]*; do echo root ${pid#/proc/} 0.7 1.1 900000 60000; done",
    ),
];

/// Each page has a row of figures for each server.
mod the_pages_of_the_system_monitor_show_the_frontend {
    use super::*;

    fn promise(dialect: Dialect) {
        let cluster = Cluster::idle(dialect);
        cluster.add_config("systemMonitor.json", &json!(true));
        for (name, script) in TOOLS {
            cluster.add_tool(name, script);
        }
        let cluster = cluster.with_backends();
        let mut genuine = None;
        for kind in [Kind::Genuine, Kind::TANGELOS[1]] {
            println!("--- {kind}");
            let frontend = Frontend::start(&cluster, kind, Knobs::default());
            let row = |module: &str| {
                wait_for("a row of the frontend", || {
                    let master = cluster.rpc_address(MASTER);
                    let rows = rpc::ask_master(master, module, &json!({})).expect("an answer");
                    let row = &rows[frontend.id()];
                    row.is_object().then(|| row.clone())
                })
            };
            let (system, node) = (row("systemInfo"), row("nodeInfo"));
            assert_eq!(system["serverId"], frontend.id());
            assert_eq!(node["serverId"], frontend.id());
            assert_eq!(node["serverType"], "connector");
            for name in [
                "m_1", "m_5", "m_15", "cpu_user", "cpu_idle", "kb_read", "tps",
            ] {
                assert!(system[name].is_number(), "{name}: {system}");
            }
            let of_machine = |name: &str| system[name].as_u64().expect("a number of bytes");
            assert!(of_machine("freemem") < of_machine("totalmem"), "{system}");
            let kib = |name: &str| node[name].as_str().map(str::parse::<u64>);
            assert!(matches!(kib("rss"), Some(Ok(1_000..))), "{node}");
            assert!(matches!(kib("vsz"), Some(Ok(1_000..))), "{node}");
            let members = [names(&system), names(&node)];
            let genuine = genuine.get_or_insert_with(|| (members.clone(), system.clone()));
            assert_eq!(members, genuine.0);
            assert_eq!(system["totalmem"], genuine.1["totalmem"]);
            assert_eq!(system["hostname"], genuine.1["hostname"]);
        }
    }

    fn names(row: &Value) -> Vec<String> {
        let members = row.as_object().expect("an object");
        members.keys().cloned().collect()
    }

    in_both_dialects!(promise);
}
