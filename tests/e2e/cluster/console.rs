//! Requests that the web console of an administrator makes through the master.

use std::fs;
use std::path::Path;

use super::*;
use crate::harness::peers::MASTER;
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
            for module in ["systemInfo", "nodeInfo"] {
                assert!(ask(module, &json!({})).is_object(), "{module}");
            }
        }
    }

    in_both_dialects!(promise);
}
