//! Tests of the parent.

use std::fs;

use tempfile::TempDir;

use super::super::Result;
use super::*;
use crate::dialect::Dialect;
use crate::limits;

/// A folder of files, removed at the end.
pub(in super::super) struct Folder(TempDir);

impl Folder {
    pub(in super::super) fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = folder.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    pub(in super::super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn load(id: &str, env: &str, files: &[(&str, &str)]) -> Result<Config, String> {
    load_with(id, env, files, |_| {})
}

/// Loads a project on top of a configuration.
fn load_with(
    id: &str,
    env: &str,
    files: &[(&str, &str)],
    change: impl Fn(&mut Config),
) -> Result<Config, String> {
    let folder = Folder::new(files);
    let mut config = Config {
        id: id.into(),
        ..Config::default()
    };
    change(&mut config);
    let project = Project {
        dir: folder.0.path().into(),
        env: env.into(),
        env_knob: "--env",
        found: Default::default(),
    };
    let joins = files.iter().any(|(name, _)| name.ends_with("master.json"));
    let loaded = project
        .apply(&mut config, None)
        .and_then(|own| match joins {
            true => project.join(&mut config, &own, Path::new("/srv/app/app.js")),
            false => Ok(()),
        });
    let path = format!("{}/", folder.0.path().display());
    loaded.map_err(|e| e.to_string().replace(&path, ""))?;
    for warning in &mut config.warnings {
        *warning = warning.replace(&path, "");
    }
    Ok(config)
}

const CONNECTOR: &str =
    r#"{"id":"c-1","host":"127.0.0.1","port":3150,"clientPort":3010,"frontend":true}"#;

/// Loads this list of chat servers next to a right connector.
fn with_chat(chat: &str) -> Result<Config, String> {
    let text = format!(r#"{{"connector":[{CONNECTOR}],"chat":[{chat}]}}"#);
    load("c-1", "development", &[("servers.json", &text)])
}

/// Checks that the last of these chat servers is left out, and the one warning that says so.
#[track_caller]
fn left_out_chat(chat: &str, expected: &str) {
    let config = with_chat(chat).unwrap();
    let warning = format!("servers.json: {expected}; tangelo leaves this entry out");
    assert_eq!(config.warnings, [warning]);
    let ids: Vec<&str> = config.servers.iter().map(|s| s.id.as_str()).collect();
    let all = ["a"];
    assert_eq!(ids, all[..chat.matches("},{").count()]);
}

#[track_caller]
fn refused(files: &[(&str, &str)], expected: &str) {
    assert_eq!(load("c-1", "development", files), Err(expected.into()));
}

const TYPES: &str = r#"{
        "gate": [{"id":"gate-1","host":"127.0.0.1","clientPort":3014,"frontend":true}],
        "connector": [
            {"id":"c-2","host":"10.0.0.2","port":"3151","clientPort":3011,"frontend":"true"},
            {"id":"c-1","host":"10.0.0.1","port":3150,"clientPort":3010,"frontend":true,
             "max-connections": 100}
        ],
        "chat": [
            {"id":"chat-2","host":"10.0.0.3","port":6051},
            {"id":"chat-1","host":"10.0.0.4","port":6050}
        ],
        "area": [{"id":"area-1","host":"10.0.0.5","port":6060}]
    }"#;

#[track_caller]
fn accepted(env: &str, files: &[(&str, &str)]) -> Config {
    let config = load("c-1", env, files).unwrap();
    assert_eq!(config.server_type, "connector");
    assert_eq!(config.listen.to_string(), "[::]:3010");
    assert_eq!(config.client.max_connections, Some(100));
    let ids: Vec<&str> = config
        .servers
        .iter()
        .map(|server| server.id.as_str())
        .collect();
    assert_eq!(
        ids,
        ["c-2", "chat-2", "chat-1", "area-1"],
        "file order, without the gate"
    );
    assert_eq!(config.servers[0].port, 3151);
    assert_eq!(config.servers[0].host, "10.0.0.2");
    assert_eq!(config.servers[3].server_type, "area");
    config
}

#[test]
fn servers_are_found_below_their_environment() {
    let text = format!(r#"{{"development": {{}}, "production": {TYPES}}}"#);
    accepted("production", &[("servers.json", &text)]);
}

#[test]
fn servers_are_found_in_the_folder_of_their_environment() {
    accepted("production", &[("production/servers.json", TYPES)]);
}

#[test]
fn the_plain_file_wins_over_the_folder() {
    let other = r#"{"chat": []}"#;
    let plain = format!(r#"{{"production": {TYPES}}}"#);
    accepted(
        "production",
        &[("servers.json", &plain), ("production/servers.json", other)],
    );
    accepted(
        "production",
        &[("servers.json", TYPES), ("production/servers.json", other)],
    );
}

#[test]
fn as_in_pomelo_the_plain_file_hides_the_folder_even_without_the_environment() {
    let other = r#"{"development": {"chat": []}}"#;
    let files = [("servers.json", other), ("production/servers.json", TYPES)];
    assert_eq!(
        load("c-1", "production", &files).unwrap_err(),
        "servers.json: no environment \"production\"; the file has development; choose one with --env",
    );
}

#[test]
fn as_in_javascript_a_false_member_is_no_environment() {
    for member in ["null", "false", "0", r#""""#] {
        let text = TYPES.replacen('{', &format!("{{\"production\": {member},"), 1);
        accepted("production", &[("servers.json", &text)]);
    }
}

#[test]
fn a_script_in_the_place_of_a_file_is_named_with_the_way_to_json() {
    let servers = ("servers.json", TYPES);
    let refused = |file: &str, files: &[(&str, &str)], dialect: Dialect| {
        let files = [files, &[(file, "module.exports = {}")]].concat();
        let change = |config: &mut Config| {
            config.dialect = dialect;
            config.client.use_dict = true;
            config.client.use_protobuf = true;
        };
        load_with("c-1", "development", &files, change).err()
    };
    for (file, files) in [
        ("servers.js", &[][..]),
        ("development/servers.ts", &[]),
        ("dictionary.js", &[servers]),
        ("serverProtos.ts", &[servers]),
        ("development/clientProtos.js", &[servers]),
    ] {
        let text = refused(file, files, Dialect::Pinus).expect(file);
        let start = format!("{file}: tangelo reads only JSON; ");
        assert!(text.starts_with(&start), "{text}");
        let json = format!(
            " > {}.json`",
            file.trim_end_matches(".js").trim_end_matches(".ts")
        );
        assert!(text.ends_with(&json), "{text}");
        let is_needed = files.is_empty();
        assert_eq!(refused(file, files, Dialect::Pomelo).is_some(), is_needed);
    }
    assert_eq!(
        load("c-1", "development", &[servers, ("dictionary.js", "")]).err(),
        None
    );
}

#[test]
fn the_dictionary_is_a_list_of_routes_for_all_environments() {
    let read = |name: &str, text: &str| {
        let config = accepted("development", &[("servers.json", TYPES), (name, text)]);
        (config.dictionary, config.warnings)
    };
    let routes = r#"["onChat", "onAdd"]"#;
    let expected = vec!["onChat".to_owned(), "onAdd".to_owned()];
    assert_eq!(read("dictionary.json", routes), (expected, vec![]));
    let nested = read("development/dictionary.json", routes);
    assert_eq!(nested, (vec![], vec![]), "as the reference");
}

#[test]
fn a_wrong_route_prevents_the_start_only_where_clients_get_the_dictionary() {
    let with = |use_dict: bool, text: &str| {
        let files = [("servers.json", TYPES), ("dictionary.json", text)];
        load_with("c-1", "development", &files, |config| {
            config.client.use_dict = use_dict
        })
    };
    let text = r#"["a", 1]"#;
    let error = "dictionary.json: [1] = 1: expected a route in quotes";
    assert_eq!(with(true, text), Err(error.into()));
    let warning = format!("{error}; without client.use_dict tangelo does not need this file");
    let config = with(false, text).unwrap();
    assert_eq!(
        (config.dictionary, config.warnings),
        (vec![], vec![warning])
    );
    for use_dict in [true, false] {
        let error = "dictionary.json:1: the value has ended (column 6)";
        assert_eq!(with(use_dict, r#"["a"],"#), Err(error.into()));
    }
}

#[test]
fn a_dictionary_that_is_an_object_has_no_routes() {
    let read = |text: &str| {
        let files = [("servers.json", TYPES), ("dictionary.json", text)];
        let config = accepted("development", &files);
        assert_eq!(config.dictionary, [""; 0], "{text}");
        config.warnings
    };
    assert_eq!(read("{}"), [""; 0]);
    assert_eq!(read("{\r\n}\r\n"), [""; 0]);
    for text in [
        r#"{"chat.chatHandler.send": 1}"#,
        r#"{"development": ["onChat"]}"#,
        "7",
    ] {
        let warning = "dictionary.json: ignored, because it is not a list; expected a list of routes as texts";
        assert_eq!(read(text), [warning]);
    }
}

#[test]
fn protos_are_found_where_they_are() {
    for name in ["serverProtos.json", "development/serverProtos.json"] {
        let config = accepted("development", &[("servers.json", TYPES), (name, "{}")]);
        let found = config.client.server_protos.expect("a path");
        assert!(found.ends_with(name), "{}", found.display());
        assert_eq!(config.client.client_protos, None);
    }
}

#[test]
fn a_cluster_count_stands_for_that_many_servers() {
    let text = r#"{"connector": [
            {"clusterCount": 2, "host": "h", "port": "3150++", "clientPort": "3010++", "frontend": true},
            {"clusterCount": "1", "host": "h", "port": "3250++", "clientPort": "3020++", "frontend": true}
        ]}"#;
    let config = load(
        "cluster-server-connector-1",
        "development",
        &[("servers.json", text)],
    );
    let config = config.unwrap();
    assert_eq!(config.listen.port(), 3011);
    let others: Vec<(&str, u16)> = config
        .servers
        .iter()
        .map(|server| (server.id.as_str(), server.port))
        .collect();
    assert_eq!(
        others,
        [
            ("cluster-server-connector-0", 3150),
            ("cluster-server-connector-2", 3250)
        ]
    );
    left_out_chat(
        r#"{"clusterCount":0,"host":"h","port":"6050++"}"#,
        "chat[0]: clusterCount = 0: expected a number from 1 to 4096",
    );
}

#[test]
fn a_missing_project_says_what_was_looked_for() {
    refused(
        &[],
        "servers.json: not found, nor development/servers.json; --app-dir must name the folder that has config/servers.json",
    );
}

#[test]
fn an_unknown_environment_names_those_there_are() {
    let text = format!(r#"{{"production": {TYPES}, "stage": {TYPES}}}"#);
    refused(
        &[("servers.json", &text)],
        "servers.json: no environment \"development\"; the file has production, stage; choose one with --env",
    );
}

#[test]
fn an_unknown_id_names_the_frontends_there_are() {
    assert_eq!(
        load("c-9", "development", &[("servers.json", TYPES)]).unwrap_err(),
        "servers.json: no server has the id \"c-9\"; frontends in environment \"development\": \
         gate-1, c-2, c-1",
    );
}

#[test]
fn the_own_entry_must_be_a_frontend_with_a_client_port() {
    let of = |entry: &str| format!(r#"{{"connector": [{entry}]}}"#);
    let files = |text: &str, expected: &str| refused(&[("servers.json", text)], expected);
    files(
        &of(r#"{"id":"c-1","host":"h","port":1,"clientPort":3010}"#),
        "servers.json: connector[0] c-1: frontend: must be true: tangelo replaces frontend servers",
    );
    files(
        &of(r#"{"id":"c-1","host":"h","port":1,"frontend":true}"#),
        "servers.json: connector[0] c-1: clientPort: missing; expected a number from 1 to 65535",
    );
    files(
        &of(r#"{"id":"c-1","host":"h","port":1,"frontend":true,"clientPort":65536}"#),
        "servers.json: connector[0] c-1: clientPort = 65536: expected a number \
         from 1 to 65535",
    );
    files(
        &of(r#"{"id":"c-1","frontend":true,"clientPort":1,"max-connections":"many"}"#),
        "servers.json: connector[0] c-1: max-connections = \"many\": expected a whole number",
    );
}

#[test]
fn an_incomplete_entry_of_another_server_is_left_out_with_a_warning() {
    let port = "expected a number from 1 to 65535";
    left_out_chat(
        r#"{"id":"a","host":"h","port":1},{"id":"b","port":1}"#,
        "chat[1] b: host: missing; expected a text in quotes",
    );
    left_out_chat(
        r#"{"id":"a","host":7,"port":1}"#,
        "chat[0] a: host = 7: expected a text in quotes",
    );
    left_out_chat(
        r#"{"id":"a","host":"h"}"#,
        &format!("chat[0] a: port: missing; {port}"),
    );
    left_out_chat(
        r#"{"id":"a","host":"h","port":0}"#,
        &format!("chat[0] a: port = 0: {port}"),
    );
    left_out_chat(
        r#"{"id":"a","host":"h","port":"6050+"}"#,
        &format!("chat[0] a: port = \"6050+\": {port}"),
    );
    left_out_chat(
        r#"{"host":"h","port":1}"#,
        "chat[0]: id: missing; expected a text in quotes",
    );
    left_out_chat("7", "chat[0]: expected an object");
}

#[test]
fn of_two_servers_with_one_id_the_last_counts() {
    let text = format!(
        r#"{{"connector":[{CONNECTOR}],
                "event":[{{"id":"e-1","host":"h","port":1}}],
                "service":[{{"id":"e-1","host":"h","port":2}}]}}"#
    );
    let config = load("c-1", "development", &[("servers.json", &text)]).unwrap();
    let servers = config.servers.iter();
    let servers: Vec<_> = servers.map(|s| (&*s.id, &*s.server_type, s.port)).collect();
    assert_eq!(servers, [("e-1", "service", 2)]);
    let warning = "servers.json: event[0] e-1: id: service[0] has the same id and counts instead; \
                   tangelo leaves this entry out";
    assert_eq!(config.warnings, [warning]);
}

#[test]
fn the_own_id_is_used_once() {
    assert_eq!(
        with_chat(r#"{"id":"c-1","host":"h","port":1}"#).unwrap_err(),
        "servers.json: chat[0] c-1: id: connector[0] has the same id",
    );
}

#[test]
fn an_entry_that_cannot_be_read_is_named_when_the_own_one_is_missing() {
    let text = r#"{"connector": [{"host":"h","port":1,"clientPort":3010,"frontend":true}]}"#;
    refused(
        &[("servers.json", text)],
        "servers.json: no server has the id \"c-1\"; frontends in environment \"development\": \
         ; servers.json: connector[0]: id: missing; expected a text in quotes; tangelo leaves this entry out",
    );
}

#[test]
fn a_member_that_holds_no_list_has_no_servers() {
    let text = |member: &str| format!(r#"{{"connector": [{CONNECTOR}], {member}}}"#);
    let warnings = |text: &str| {
        let config = load("c-1", "development", &[("servers.json", text)]).unwrap();
        assert_eq!(config.servers, []);
        config.warnings
    };
    let comment = text(r#""//": "ports: see the wiki""#);
    assert_eq!(warnings(&comment), [""; 0]);
    let by_env = format!(r#"{{"development": {comment}}}"#);
    assert_eq!(warnings(&by_env), [""; 0]);
    assert_eq!(
        warnings(&text(r#""chat": {"id": "chat-1"}"#)),
        ["servers.json: chat: ignored; expected a list of servers"],
    );
}

#[test]
fn a_file_of_another_shape_is_named() {
    refused(
        &[("servers.json", r#"{"development": 7}"#)],
        "servers.json: expected an object with a list of servers for each type",
    );
}

#[test]
fn broken_json_names_file_and_line() {
    refused(
        &[("servers.json", "{\n  \"connector\": [\n  }\n}")],
        "servers.json:3: a value was expected (column 3)",
    );
}

#[test]
fn more_servers_than_tangelo_takes_are_refused() {
    let chat: Vec<String> = (0..=limits::SERVERS_MAX)
        .map(|n| format!(r#"{{"id":"chat-{n}","host":"h","port":1}}"#))
        .collect();
    assert_eq!(
        with_chat(&chat.join(",")).unwrap_err(),
        "servers.json: chat: more than 4097 servers in this file; expected at most 4097",
    );
}

#[test]
fn a_master_that_cannot_be_reached_is_named() {
    let servers = ("servers.json", TYPES);
    let right = r#"{"development": {"id":"m","host":"127.0.0.1","port":3005}}"#;
    accepted("development", &[servers, ("master.json", right)]);
    accepted(
        "development",
        &[
            servers,
            ("development/master.json", r#"{"host":"h","port":1}"#),
        ],
    );
    refused(
        &[servers, ("master.json", r#"{"id":"m","port":3005}"#)],
        "master.json: master: host: missing; expected a text in quotes",
    );
    refused(
        &[
            servers,
            (
                "master.json",
                r#"{"development": {"host":"h","port":99999}}"#,
            ),
        ],
        "master.json: master: port = 99999: expected a number from 1 to 65535",
    );
    refused(
        &[servers, ("master.json", r#"{"development": 7}"#)],
        "master.json: expected an object",
    );
}

const MASTER: (&str, &str) = ("master.json", r#"{"host":"127.0.0.1","port":3005}"#);

/// This entry of `c-1`, next to a master and these files.
fn joined(entry: &str, files: &[(&str, &str)]) -> Result<Config, String> {
    let servers = format!(r#"{{"connector": [{entry}]}}"#);
    let own = [("servers.json", servers.as_str()), MASTER];
    load("c-1", "development", &[&own, files].concat())
}

fn shown(value: Json) -> String {
    let mut text = Vec::new();
    crate::wire::json::write_value(&mut text, &value);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_master_is_told_what_a_genuine_server_tells_it() {
    // The rpc vector `pomelo-master-startup`, and what its cluster was started from.
    let registered = concat!(
        r#"{"info":{"main":"/srv/app/app.js","env":"development","id":"connector-1","#,
        r#""host":"127.0.0.1","port":21120,"clientHost":"127.0.0.1","clientPort":21020,"#,
        r#""frontend":"true","serverType":"connector"},"#,
        r#""token":"agarxhqb98rpajloaxn34ga8xrunpagkjwlaw3ruxnpaagl29w4rxn"}"#,
    );
    let servers = r#"{"development": {
            "connector": [
                {"id":"connector-1","host":"127.0.0.1","port":21120,
                 "clientHost":"127.0.0.1","clientPort":21020,"frontend":true},
                {"id":"connector-2","host":"127.0.0.1","port":21121,
                 "clientHost":"127.0.0.1","clientPort":21021,"frontend":true}
            ],
            "chat": [
                {"id":"chat-1","host":"127.0.0.1","port":21110},
                {"id":"chat-2","host":"127.0.0.1","port":21111}
            ]
        }}"#;
    let master = r#"{"development": {"id":"master-server-1","host":"127.0.0.1","port":21005}}"#;
    let admin = r#"[
            {"type":"chat","token":"x"},
            {"type":"connector","token":"agarxhqb98rpajloaxn34ga8xrunpagkjwlaw3ruxnpaagl29w4rxn"}
        ]"#;
    let files = [
        ("servers.json", servers),
        ("master.json", master),
        ("adminServer.json", admin),
    ];
    let config = load("connector-1", "development", &files).unwrap();
    let master = config.master.unwrap();
    assert_eq!((master.host.as_str(), master.port), ("127.0.0.1", 21005));
    assert_eq!(master.env, "development");
    let told = serde_json::json!({"info": master.info, "token": master.token});
    assert_eq!(shown(told), registered);
}

#[test]
fn every_key_of_the_own_entry_is_told_in_its_order_and_as_the_words_make_it() {
    let config = joined(
        r#"{"zone":"eu","id":"c-1","host":"127.0.0.1","port":"3150","clientPort":3010,
                "frontend":"true","args":["launcher.js"],"auto-restart":true,"rate":1.5,"cpu":2}"#,
        &[],
    );
    assert_eq!(
        shown(config.unwrap().master.unwrap().info.into()),
        concat!(
            r#"{"main":"/srv/app/app.js","env":"development","zone":"eu","id":"c-1","#,
            r#""host":"127.0.0.1","port":3150,"clientPort":3010,"frontend":"true","#,
            r#""args":"[ 'launcher.js' ]","auto-restart":"true","rate":"1.5","cpu":2,"#,
            r#""serverType":"connector"}"#,
        )
    );
}

#[test]
fn a_server_of_a_cluster_count_tells_its_number_and_ports() {
    let servers = r#"{"connector": [{"clusterCount":2,"host":"127.0.0.1","port":"3150++",
            "clientPort":"3010++","frontend":true}]}"#;
    let files = [("servers.json", servers), MASTER];
    let config = load("cluster-server-connector-1", "development", &files).unwrap();
    assert_eq!(
        shown(config.master.unwrap().info.into()),
        concat!(
            r#"{"main":"/srv/app/app.js","env":"development","clusterCount":2,"#,
            r#""host":"127.0.0.1","port":3151,"clientPort":3011,"frontend":"true","#,
            r#""serverType":"connector","id":"cluster-server-connector-1"}"#,
        )
    );
}

/// The token that the master gets from a server with these files, and the warnings.
fn token(files: &[(&str, &str)]) -> (Option<Json>, Vec<String>) {
    let config = joined(CONNECTOR, files).unwrap();
    (config.master.unwrap().token, config.warnings)
}

#[test]
fn the_token_is_that_of_the_first_entry_of_the_own_type() {
    let some = |token: &str| (Some(token.into()), vec![]);
    let own = r#"[{"type":"chat","token":"a"},{"type":"connector","token":"b"},
            {"type":"connector","token":"c"}]"#;
    let other = r#"[{"type":"chat","token":"a"}]"#;
    assert_eq!(token(&[]), some("ok"));
    assert_eq!(token(&[("adminServer.json", own)]), some("b"));
    let none = (Some(Json::Null), vec![]);
    assert_eq!(token(&[("adminServer.json", other)]), none);
    let nested = ("development/adminServer.json", own);
    assert_eq!(token(&[nested]), some("b"));
    assert_eq!(token(&[nested, ("adminServer.json", other)]), none);
}

#[test]
fn an_entry_without_token_matches_a_server_without_one() {
    for entry in [
        r#"[7, {"type":"connector"}]"#,
        r#"[{"type":"connector","tokn":"b"}]"#,
    ] {
        assert_eq!(token(&[("adminServer.json", entry)]), (None, vec![]));
    }
    // As in the reference; the master may authenticate in a way of its own.
    let by_env = r#"{"development": []}"#;
    let warning = "adminServer.json: ignored; expected a list of objects with type and token";
    assert_eq!(
        token(&[("adminServer.json", by_env)]),
        (Some(Json::Null), vec![warning.to_owned()])
    );
}

#[test]
fn tokens_in_a_script_are_refused_where_the_master_would_read_it() {
    let script = ("development/adminServer.js", "module.exports = []");
    let ok = (Some("ok".into()), vec![]);
    assert_eq!(token(&[script]), ok, "pomelo reads no scripts");

    let folder = Folder::new(&[script]);
    let project = Project {
        dir: folder.0.path().into(),
        env: "development".into(),
        env_knob: "--env",
        found: Default::default(),
    };
    let mut config = Config {
        dialect: Dialect::Pinus,
        ..Config::default()
    };
    let text = project.token(&mut config).unwrap_err().to_string();
    let start = format!(
        "{}: tangelo reads only JSON; ",
        folder.path(script.0).display()
    );
    assert!(text.starts_with(&start), "{text}");
    fs::write(folder.path("adminServer.json"), "[]").unwrap();
    assert_eq!(project.token(&mut config), Ok(Some(Json::Null)));
}

#[test]
fn calls_arrive_at_the_own_host_and_port() {
    let listen = |host: &str, port: &str| {
        let entry =
            format!(r#"{{"id":"c-1","host":"{host}"{port},"clientPort":3010,"frontend":true}}"#);
        let address = joined(&entry, &[])?.rpc.listen;
        Ok::<_, String>(address.map(|address| address.to_string()))
    };
    let port = r#","port":3150"#;
    assert_eq!(listen("127.0.0.1", port), Ok(Some("127.0.0.1:3150".into())));
    assert_eq!(listen("::1", port), Ok(Some("[::1]:3150".into())));
    assert_eq!(listen("localhost", port), Ok(Some("127.0.0.1:3150".into())));
    assert_eq!(listen("127.0.0.1", ""), Ok(None), "as pomelo");
    let error = listen("no..host", port).unwrap_err();
    let start = "servers.json: connector[0] c-1: host: cannot resolve \"no..host\": ";
    assert!(error.starts_with(start), "{error}");
    let end = "; expected an address or a name that this machine knows; or set rpc.listen";
    assert!(error.ends_with(end), "{error}");
}

#[test]
fn weights_are_read() {
    let text = format!(
        r#"{{"connector":[{CONNECTOR}],"chat":[
                {{"id":"a","host":"h","port":1,"weight":3}},
                {{"id":"b","host":"h","port":1,"weight":"2"}},
                {{"id":"c","host":"h","port":1}}]}}"#
    );
    let config = load("c-1", "development", &[("servers.json", &text)]).unwrap();
    let weights: Vec<Option<u32>> = config.servers.iter().map(|s| s.weight).collect();
    assert_eq!(weights, [Some(3), Some(2), None]);
    let config = with_chat(r#"{"id":"a","host":"h","port":1,"weight":-1}"#).unwrap();
    assert_eq!(config.servers[0].weight, None);
    assert_eq!(
        config.warnings,
        [
            "servers.json: chat[0] a: weight = -1: expected a number from 0 to \
          1000000; tangelo gives this server no weight"
        ],
    );
}

#[test]
fn a_delegate_without_a_server_is_a_warning_because_one_may_come() {
    let master = r#"{"development":{"host":"127.0.0.1","port":3005}}"#;
    let servers = format!(r#"{{"development":{{"connector":[{CONNECTOR}],"chat":[]}}}}"#);
    let files = [("master.json", master), ("servers.json", &servers)];
    let config = load_with("c-1", "development", &files, |config| {
        config.delegate = Some("entry".into());
    });
    let expected = "servers.json: no server has the type \"entry\", which delegate names; until the master \
                    tells of one, its messages get code 500";
    assert_eq!(config.unwrap().warnings, [expected]);
}
