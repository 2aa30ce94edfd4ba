//! A project of Pomelo: its files as the lowest layer, and servers that a master launches.

use super::*;

const MASTER: &str = r#"{"development": {"host": "127.0.0.1", "port": 3005}}"#;

#[test]
fn a_project_is_the_lowest_layer() {
    let servers = r#"{"development": {"connector": [
            {"id": "c-1", "host": "127.0.0.1", "port": 2, "clientPort": 3010, "frontend": true,
             "max-connections": 9}]}}"#;
    let folder = Folder::new(&[
        ("game/config/servers.json", servers),
        ("game/config/master.json", MASTER),
        (
            "tangelo.toml",
            "app_dir = 'game'\nid = 'c-1'\nclient.max_connections = 7\nshards = 3",
        ),
    ]);
    let toml = folder.path("tangelo.toml").display().to_string();
    let game = folder.path("game").display().to_string();

    let config = Config::load(&toml).unwrap();
    assert_eq!(
        config.app_dir,
        Some(folder.path("game")),
        "relative to the file"
    );
    assert_eq!(
        (config.listen.port(), config.client.max_connections),
        (3010, Some(7))
    );

    let line = ["--app-dir", &game, "--id=c-1", "--listen=127.0.0.1:1"];
    let config = args(&line).unwrap();
    assert_eq!(
        (config.listen.port(), config.client.max_connections),
        (1, Some(9))
    );
    assert_eq!((config.shards, config.embedded), (None, false));

    let config = args(&[&["--config", &toml][..], &line].concat()).unwrap();
    assert_eq!(
        (config.listen.port(), config.client.max_connections),
        (1, Some(7))
    );
    assert_eq!(config.app_dir, Some(game.into()));
}

/// A project of one connector `c-1` and one backend.
fn project() -> Folder {
    let servers = r#"{"development": {
            "connector": [{"id":"c-1","host":"127.0.0.1","port":3150,"clientPort":3010,
                           "frontend":true}],
            "chat": [{"id":"chat-1","host":"127.0.0.1","port":6050}]}}"#;
    Folder::new(&[
        ("config/servers.json", servers),
        ("config/master.json", MASTER),
        ("app.js", ""),
    ])
}

fn ids(config: &Config) -> Vec<&str> {
    config
        .servers
        .iter()
        .map(|server| server.id.as_str())
        .collect()
}

#[test]
fn a_project_has_a_master_to_join_and_a_port_for_calls() {
    let folder = project();
    let dir = folder.path("").display().to_string();
    let config = args(&["--app-dir", &dir, "--id=c-1"]).unwrap();
    let master = config.master.as_ref().unwrap();
    assert_eq!((master.host.as_str(), master.port), ("127.0.0.1", 3005));
    assert_eq!(
        master.info["main"],
        folder.path("app.js").display().to_string()
    );
    assert_eq!(master.info["port"], 3150);
    assert_eq!(config.rpc.listen, Some("127.0.0.1:3150".parse().unwrap()));
    assert_eq!(ids(&config), ["chat-1"]);
}

#[test]
fn the_port_of_a_project_is_that_of_a_listener_without_an_address() {
    let folder = project();
    let app_dir = folder.path("").display().to_string();
    let line = ["--app-dir", &app_dir, "--id", "c-1"];
    let addresses = |config: &Config| -> Vec<String> {
        let listeners = config.client_listeners();
        listeners
            .iter()
            .map(|listener| config.address_of(listener).to_string())
            .collect()
    };
    let config = args(&line).unwrap();
    assert_eq!(
        addresses(&config),
        [format!("[::]:{}", config.listen.port())]
    );
    let sections = "--set=listener=[{address='127.0.0.1:1'}, {address='unix:/a'}]";
    let config = args(&[&line[..], &[sections]].concat()).unwrap();
    assert_eq!(addresses(&config), ["127.0.0.1:1", "unix:/a"]);
    // A section without an address has that port.
    let sections = "--set=listener=[{transports=['tcp']}, {address='unix:/a'}]";
    let config = args(&[&line[..], &[sections]].concat()).unwrap();
    let own = format!("[::]:{}", config.listen.port());
    assert_eq!(addresses(&config), [&*own, "unix:/a"]);
}

#[test]
fn whoever_does_not_join_has_the_listed_servers_and_no_port_for_calls() {
    let folder = project();
    std::fs::remove_file(folder.path("config/master.json")).unwrap();
    let dir = folder.path("").display().to_string();
    let line = ["--app-dir", &dir, "--id=c-1"];
    let config = folder.path("config").display().to_string();
    refused(
        &line,
        &format!(
            "{config}/master.json: not found, nor {config}/development/master.json; it names the master to join; without a master, set cluster.join = false"
        ),
    );
    let stays = ["--set=cluster.join=false", "--set=rpc.listen=[::]:1"];
    let config = args(&[&line[..], &stays].concat()).unwrap();
    assert_eq!((config.master, config.rpc.listen), (None, None));
    assert_eq!(config.servers[0].id, "chat-1");
}

#[test]
fn without_a_project_calls_come_where_the_user_says() {
    assert_eq!(args(&[]).unwrap().rpc.listen, None);
    let config = args(&["--set=rpc.listen=[::]:1"]).unwrap();
    assert_eq!(config.rpc.listen, Some("[::]:1".parse().unwrap()));
    assert_eq!(config.master, None);
}

#[test]
fn a_set_address_for_calls_wins_and_the_host_need_not_be_known_here() {
    let folder = project();
    let servers = r#"{"connector": [{"id":"c-1","host":"no..host","port":3150,
            "clientPort":3010,"frontend":true}]}"#;
    std::fs::write(folder.path("config/servers.json"), servers).unwrap();
    let dir = folder.path("").display().to_string();
    let line = ["--app-dir", &dir, "--id=c-1", "--set=rpc.listen=[::]:4150"];
    let config = args(&line).unwrap();
    assert_eq!(config.rpc.listen, Some("[::]:4150".parse().unwrap()));
    let info = config.master.unwrap().info;
    assert_eq!(
        (&info["host"], &info["port"]),
        (&"no..host".into(), &3150.into())
    );
}

#[test]
fn a_server_type_set_over_the_project_is_the_one_told_and_proved() {
    let folder = project();
    let admin = r#"[{"type":"connector","token":"a"},{"type":"gate","token":"b"}]"#;
    std::fs::write(folder.path("config/adminServer.json"), admin).unwrap();
    let dir = folder.path("").display().to_string();
    let config = args(&["--app-dir", &dir, "--id=c-1", "--set=server_type=gate"]).unwrap();
    let master = config.master.unwrap();
    assert_eq!(master.info["serverType"], "gate");
    assert_eq!(master.token, Some("b".into()));
}

#[test]
fn a_change_of_a_file_without_keys_is_seen_under_the_name_of_the_file() {
    let folder = project();
    let dir = folder.path("").display().to_string();
    let values = || {
        args(&["--app-dir", &dir, "--id=c-1"])
            .unwrap()
            .sources
            .values
    };
    let cron = r#"{"id": 1, "time": "0 30 10 * * *", "action": "a.b"}"#;
    let own =
        r#"{"id":"c-1","host":"127.0.0.1","port":3150,"clientPort":3010,"frontend":true,"zone":7}"#;
    let chat = r#"{"id":"chat-1","host":"127.0.0.1","port":6050}"#;
    for (name, text) in [
        ("crons.json", format!(r#"{{"connector": [{cron}]}}"#)),
        (
            "adminServer.json",
            r#"[{"type":"connector","token":"a"}]"#.into(),
        ),
        (
            "master.json",
            r#"{"host": "127.0.0.1", "port": 3006}"#.into(),
        ),
        (
            "servers.json",
            format!(r#"{{"connector": [{own}], "chat": [{chat}]}}"#),
        ),
    ] {
        let before = values();
        assert_eq!(before, values());
        std::fs::write(folder.path("config").join(name), text).unwrap();
        let changed = values()
            .into_iter()
            .filter(|(key, value)| before[key] != *value);
        let changed: Vec<&str> = changed.map(|(key, _)| key).collect();
        assert_eq!(changed, [name]);
    }
}

/// A command line as the master of `project` writes it, for a server that it does not list.
const WORDS: [&str; 8] = [
    "env=development",
    "id=c-7",
    "host=127.0.0.1",
    "port=3157",
    "clientPort=3017",
    "frontend=true",
    "args=[ 'launcher.js' ]",
    "serverType=connector",
];

#[test]
fn a_launched_server_is_what_its_words_say() {
    let folder = project();
    let main = folder.path("app.js").display().to_string();
    let line = [&[main.as_str()], &WORDS[..], &["--shards", "2"]].concat();
    let config = args(&line).unwrap();
    assert_eq!((config.id.as_str(), config.shards), ("c-7", Some(2)));
    assert_eq!(config.server_type, "connector");
    assert_eq!(config.listen.to_string(), "[::]:3017");
    assert_eq!(config.rpc.listen, Some("127.0.0.1:3157".parse().unwrap()));
    assert_eq!(ids(&config), ["c-1", "chat-1"]);
    assert_eq!(
        config.app_dir,
        Some(folder.path("").canonicalize().unwrap())
    );
    assert!(!config.embedded);
    let info = config.master.unwrap().info;
    let expected = serde_json::json!({
        "main": main,
        "env": "development",
        "id": "c-7",
        "host": "127.0.0.1",
        "port": 3157,
        "clientPort": 3017,
        "frontend": "true",
        "args": "[ 'launcher.js' ]",
        "serverType": "connector",
    });
    let order = |json: &serde_json::Value| json.to_string();
    assert_eq!(order(&info.into()), order(&expected));
}

#[test]
fn a_launched_server_and_one_named_by_its_id_tell_the_same() {
    let folder = project();
    let main = folder.path("app.js").display().to_string();
    let dir = folder.path("").display().to_string();
    let named = args(&["--app-dir", &dir, "--id=c-1"]).unwrap();
    let words = "env=development id=c-1 host=127.0.0.1 port=3150 clientPort=3010 frontend=true \
                 serverType=connector";
    let line: Vec<&str> = [main.as_str()]
        .into_iter()
        .chain(words.split(' '))
        .collect();
    let launched = args(&line).unwrap();
    assert_eq!(launched.master, named.master);
    assert_eq!(launched.servers, named.servers);
    assert_eq!(launched.rpc, named.rpc);
    // By hand, the folder is as good as the script in it.
    let line = [&["run", "--app-dir", &dir], &line[1..]].concat();
    assert_eq!(args(&line).unwrap().master, named.master);
}

#[test]
fn the_command_line_alone_identifies_a_launched_server() {
    let folder = project();
    let text = "id = 'x'\nenv = 'y'\nserver_type = 'z'\nshards = 3\n";
    let toml = folder.path("tangelo.toml");
    std::fs::write(&toml, text).unwrap();
    let main = folder.path("app.js").display().to_string();
    let line = [&[main.as_str()], &WORDS[..]].concat();
    let toml = toml.display().to_string();
    let config = args(&[&line[..], &["--config", &toml]].concat()).unwrap();
    assert_eq!(config.shards, Some(3));
    let who = [config.id, config.env, config.server_type];
    assert_eq!(who, ["c-7", "development", "connector"]);
    for (flag, shown) in [
        ("--id=c-7", "--id c-7"),
        ("--env=production", "--env production"),
        ("--set=server_type=gate", "--set server_type=gate"),
    ] {
        refused(
            &[&line[..], &[flag]].concat(),
            &format!("{shown}: not allowed together with key=value words, which set it themselves"),
        );
    }
}

#[test]
fn a_launched_server_without_env_asks_node_env_and_tells_no_env() {
    let folder = project();
    let text = "{\"production\": {\"host\": \"10.0.0.9\", \"port\": 1}}";
    std::fs::write(folder.path("config/master.json"), text).unwrap();
    std::fs::remove_file(folder.path("config/servers.json")).unwrap();
    let main = folder.path("app.js").display().to_string();
    let words: Vec<String> = std::iter::once(main.as_str())
        .chain(WORDS[1..].iter().copied())
        .map(String::from)
        .collect();
    let layers = Layers {
        launch: Launch::from_words(&words, Some("production".into())),
        file: None,
        flags: Vec::new(),
        origin: ConfigOrigin::Program,
    };
    let config = layers.load().into_result().unwrap();
    assert_eq!((config.env.as_str(), ids(&config)), ("production", vec![]));
    let master = config.master.unwrap();
    assert_eq!(
        (master.host.as_str(), master.env.as_str()),
        ("10.0.0.9", "production")
    );
    assert_eq!(master.info.get("env"), None);
}

#[test]
fn a_launched_server_that_misses_a_word_is_told_which() {
    let folder = project();
    let main = folder.path("app.js").display().to_string();
    let without = |key: &str| -> Vec<&str> {
        let words = WORDS.into_iter().filter(|word| !word.starts_with(key));
        std::iter::once(main.as_str()).chain(words).collect()
    };
    refused(
        &without("id="),
        "command line: id: missing; expected id=TEXT",
    );
    refused(
        &without("serverType="),
        "command line c-7: serverType: missing; expected serverType=TEXT",
    );
    refused(
        &without("frontend="),
        "command line c-7: frontend: must be true: tangelo replaces frontend servers",
    );
    refused(
        &without("clientPort="),
        "command line c-7: clientPort: missing; expected a number from 1 to 65535",
    );
    refused(
        &WORDS,
        "the command line names no project; put its main script before the key=value words, as in game/app.js \
         id=connector-1, or name its folder with --app-dir",
    );
}

#[test]
fn a_launched_server_starts_whatever_the_list_of_servers_is() {
    let folder = project();
    let master = r#"{"host": "127.0.0.1", "port": 3005}"#;
    std::fs::write(folder.path("config/master.json"), master).unwrap();
    let main = folder.path("app.js").display().to_string();
    let line = [&[main.as_str(), "env=stage"], &WORDS[1..]].concat();
    let path = folder
        .path("")
        .canonicalize()
        .unwrap()
        .join("config/servers.json");
    let file = path.display();
    for (text, reason) in [
        (
            r#"{"development": {"connector": []}}"#,
            format!(
                "{file}: no environment \"stage\"; the file has development; choose one with env="
            ),
        ),
        (
            "[]",
            format!("{file}: expected an object with a list of servers for each type"),
        ),
        ("{", format!("{file}:1: the text ends too early (column 2)")),
    ] {
        std::fs::write(&path, text).unwrap();
        let config = args(&line).unwrap();
        assert_eq!((config.id.as_str(), ids(&config)), ("c-7", vec![]));
        let warning =
            format!("{reason}; tangelo ignores this file, because the master sends the list");
        assert_eq!(config.warnings, [warning]);
        // Without a master the list is needed.
        let alone = [&line[..], &["--set=cluster.join=false"]].concat();
        refused(&alone, &reason);
    }
}

#[test]
fn the_project_names_the_framework_and_another_one_is_refused() {
    let folder = project();
    let package = folder.path("package.json");
    let dir = folder.path("").display().to_string();
    let line = ["--app-dir", &dir, "--id=c-1"];
    let dialect = |more: &[&str]| args(&[&line[..], more].concat()).unwrap().dialect;
    assert_eq!(dialect(&[]), Dialect::Pomelo);
    assert_eq!(dialect(&["--dialect=pinus"]), Dialect::Pinus);
    std::fs::write(&package, r#"{"dependencies": {"pinus": "^1.7.4"}}"#).unwrap();
    assert_eq!(dialect(&[]), Dialect::Pinus);
    assert_eq!(dialect(&["--dialect=pinus"]), Dialect::Pinus);
    let file = package.canonicalize().unwrap();
    let what = format!(
        "expected pinus, because {} depends on it; or leave this key out",
        file.display()
    );
    refused(
        &[&line[..], &["--dialect=pomelo"]].concat(),
        &format!("--dialect pomelo: {what}"),
    );
    let toml = folder.path("tangelo.toml").display().to_string();
    std::fs::write(&toml, "id = 'c-1'\ndialect = 'pomelo'\n").unwrap();
    refused(
        &["--app-dir", &dir, "--id=c-1", "--config", &toml],
        &format!("{toml}:2: dialect: {what}"),
    );
}

#[test]
fn an_id_that_is_a_number_is_taken_for_its_text() {
    let folder = project();
    let main = folder.path("app.js").display().to_string();
    let config = args(&[&[main.as_str(), "id=007"], &WORDS[2..]].concat()).unwrap();
    assert_eq!(config.id, "7");
    assert_eq!(config.master.unwrap().info["id"], 7);
}
