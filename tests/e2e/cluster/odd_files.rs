//! Projects whose files are odd, and with which the genuine frontend starts.

use super::*;

/// Text that Node's `require` reads as U+FFFD, and a plain member behind it.
const ODD_MEMBER: &[u8] = b"\"note\": \"\xff \\ud800\", \"id\":";

mod a_project_with_odd_files_joins_as_the_genuine_frontend_does {
    use super::*;

    fn promise(dialect: Dialect) {
        let cluster = Cluster::idle(dialect);
        for name in ["servers.json", "master.json", "adminUser.json"] {
            let text = cluster.read_config(name);
            cluster.write_config(name, &[b"\xef\xbb\xbf", &text[..]].concat());
        }
        let servers = cluster.read_config("servers.json");
        let plain = b"\"id\":";
        let at = servers.windows(plain.len()).position(|part| part == plain);
        let (before, after) = servers.split_at(at.expect("an entry has an id"));
        let odd = [before, ODD_MEMBER, &after[plain.len()..]].concat();
        cluster.write_config("servers.json", &odd);
        let entry = |of: &str| json!({"type": of});
        let tokens = json!(["connector", "chat"].map(entry));
        cluster.add_config("adminServer.json", &tokens);
        cluster.add_config("crons.json", &json!([]));
        cluster.add_config("dictionary.json", &json!({}));
        let cluster = cluster.with_backends();
        for kind in [Kind::Genuine, Kind::TANGELOS[0]] {
            println!("--- {kind}");
            let mut frontend = Frontend::start(&cluster, kind, Knobs::default());
            let mut client = frontend.client(Transport::WebSocket);
            assert_eq!(whoami(&mut client)["frontendId"], frontend.id());
            if let Some(gateway) = frontend.gateway() {
                let printed = gateway.printed();
                // The start line names the files that were read. No other line is about a file.
                let is_about_a_file =
                    |line: &str| line.contains(".json") && !line.contains("configuration: ");
                assert!(!printed.lines().any(is_about_a_file), "{printed}");
            }
        }
    }

    in_both_dialects!(promise);
}

mod a_server_that_its_command_line_describes_needs_no_list {
    use super::*;
    use crate::harness::gateway::Gateway;
    use crate::harness::peers::CONNECTORS;

    fn promise(dialect: Dialect) {
        let cluster = Cluster::idle(dialect);
        cluster.add_config("servers.json", &json!({"production": {}}));
        let cluster = cluster.with_backends();
        let [genuine, own] = [CONNECTORS[0], CONNECTORS[1]];
        let (_connector, _) = cluster.start_connector(genuine, &[]);
        let words = [
            format!("{}/app.js", cluster.app_dir()),
            "env=development".into(),
            format!("id={own}"),
            "host=127.0.0.1".into(),
            format!("port={}", cluster.rpc_address(own).port()),
            format!("clientPort={}", cluster.client_address(own).port()),
            "frontend=true".into(),
            "serverType=connector".into(),
            format!("--dialect={}", dialect.name()),
        ];
        let mut gateway = Gateway::start(&words.each_ref().map(String::as_str));
        gateway.wait_printed("servers.json: no environment \"development\"");
        gateway.wait_printed("part of the cluster");
        let mut client = Client::tcp(gateway.address()).open();
        assert_eq!(whoami(&mut client)["frontendId"], own);
    }

    in_both_dialects!(promise);
}

mod a_list_of_servers_is_found_where_the_genuine_framework_finds_it {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::harness::gateway::Gateway;
    use crate::harness::peers::run_with_packages;

    /// The ids of the connectors that the genuine framework reads.
    fn genuine(dialect: Dialect, app_dir: &str) -> Vec<String> {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/genuine/pomelo/servers.js"
        );
        let args = [dialect.name(), app_dir, "env=production"];
        let mut node = run_with_packages(dialect.name(), Path::new(script), &args);
        let servers = node.wait_for_line("servers", 0, HANG_GUARD, |line| {
            serde_json::from_str(line.strip_prefix("servers ")?).ok()
        });
        let servers: Value = servers;
        let connectors = servers["connector"].as_array();
        let ids = connectors.into_iter().flatten().map(|entry| &entry["id"]);
        ids.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn promise(dialect: Dialect) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let nested = folder.path().join("config/production");
        fs::create_dir_all(&nested).expect("a temporary folder");
        let app_dir = folder.path().to_str().expect("a path in UTF-8");
        let list = |id: &str| json!([{"id": id, "host": "127.0.0.1", "port": 1, "clientPort": 2, "frontend": true}]);
        let master = json!({"id": "m", "host": "127.0.0.1", "port": 3}).to_string();
        fs::write(folder.path().join("config/master.json"), master).expect("a temporary file");
        let text = json!({"connector": list("nested")}).to_string();
        fs::write(nested.join("servers.json"), text).expect("a temporary file");
        let plain = folder.path().join("config/servers.json");
        for (servers, expected) in [
            (None, Some("nested")),
            (Some(json!({"connector": list("plain")})), Some("plain")),
            (
                Some(json!({"production": {"connector": list("plain")}})),
                Some("plain"),
            ),
            (
                Some(json!({"production": false, "connector": list("plain")})),
                Some("plain"),
            ),
            (
                Some(json!({"development": {"connector": list("plain")}})),
                None,
            ),
            (Some(json!([])), None),
        ] {
            if let Some(servers) = &servers {
                fs::write(&plain, servers.to_string()).expect("a temporary file");
            }
            assert_eq!(
                genuine(dialect, app_dir),
                Vec::from_iter(expected),
                "{servers:?}"
            );
            for id in ["plain", "nested"] {
                let args = ["--app-dir", app_dir, "--id", id, "--env", "production"];
                let args = [&args[..], &["--set", "cluster.join=false"]].concat();
                match expected == Some(id) {
                    true => drop(Gateway::start(&args)),
                    false => assert_eq!(Gateway::refused(&args).0, Some(2), "{servers:?}"),
                }
            }
        }
    }

    in_both_dialects!(promise);
}
