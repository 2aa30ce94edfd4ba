//! Tests of the parent.

use super::*;
use crate::config::{Dialect, NamedScheduler, Scheduler, Server, TlsVersion};
use crate::gateway::load::project::tests::Folder;
use crate::limits;
use crate::session::binding::DuplicateLogin;
use std::net::SocketAddr;
use std::time::Duration;

mod project;

/// Returns a command line as a program gets it.
fn words(line: &[&str]) -> impl Iterator<Item = OsString> {
    std::iter::once(&"tangelo").chain(line).map(OsString::from)
}

fn args(line: &[&str]) -> Result<Config> {
    from_args(words(line))
}

#[track_caller]
fn refused(line: &[&str], expected: &str) {
    match args(line) {
        Err(Error::Config(text)) => assert_eq!(text, expected),
        other => panic!("{other:?}"),
    }
}

/// The error of a file with this text; its folder is left out.
#[track_caller]
fn refused_file(text: &str, expected: &str) {
    let folder = Folder::new(&[("tangelo.toml", text)]);
    let path = folder.path("tangelo.toml");
    let Err(Error::Config(text)) = Config::load(&path) else {
        panic!("accepted")
    };
    assert_eq!(text, format!("{}{expected}", path.display()));
}

#[test]
fn nothing_given_is_the_default_and_embedded() {
    let expected = Config {
        embedded: true,
        ..Config::default()
    };
    for line in [&[][..], &["run"]] {
        let config = Config {
            sources: Sources::default(),
            ..args(line).unwrap()
        };
        assert_eq!(config, expected);
    }
}

#[test]
fn flags_are_valid_before_and_after_run_and_without_it() {
    for line in [
        &["--listen", "127.0.0.1:0", "--shards=2"][..],
        &["run", "--listen", "127.0.0.1:0", "--shards=2"],
        &["--listen", "127.0.0.1:0", "run", "--shards=2"],
    ] {
        let config = args(line).unwrap();
        assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 0)));
        assert_eq!(config.shards, Some(2));
        assert!(config.embedded);
    }
}

#[test]
fn set_reaches_every_kind_of_key_and_later_ones_win() {
    let config = args(&[
        "--set=client.heartbeat=5s",
        "--set=client.heartbeat=3s",
        "--set=push.scheduler=buffer",
        "--set=listen=[::]:4010",
        "--set=client.use_dict=true",
        "--set=id=7",
        "--set=log.level=info,tangelo::peer=debug",
        "--set=log={format=\"json\"}",
        "--set=dictionary=[\"onChat\"]",
        "--set=server=[{id='chat-1', type='chat', host='::1', port=6050}]",
    ])
    .unwrap();
    assert_eq!(config.client.heartbeat, Some(Duration::from_secs(3)));
    assert_eq!(config.push.scheduler, Scheduler::Buffer);
    assert_eq!(config.listen.to_string(), "[::]:4010");
    assert!(config.client.use_dict);
    assert_eq!(config.id, "7");
    assert_eq!(config.log.level, "info,tangelo::peer=debug");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.dictionary, ["onChat"]);
    assert_eq!(config.servers[0].port, 6050);
    assert!(config.embedded);
}

#[test]
fn flags_win_over_set_and_set_wins_over_the_file() {
    let text = "listen = '127.0.0.1:1'\nshards = 1\npin = true\ndialect = 'pinus'\n";
    let folder = Folder::new(&[("tangelo.toml", text)]);
    let path = folder.path("tangelo.toml").display().to_string();
    let config = args(&[
        "--config",
        &path,
        "--listen=127.0.0.1:3",
        "--set=listen=127.0.0.1:2",
        "--set=shards=2",
    ])
    .unwrap();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.shards, Some(2));
    assert!(config.pin);
    assert_eq!(config.dialect, Dialect::Pinus);
    assert!(!config.embedded);
    assert_eq!(
        args(&["--config", &path, "--dialect=pomelo"])
            .unwrap()
            .dialect,
        Dialect::Pomelo
    );
}

#[test]
fn a_whole_file_is_read() {
    let text = r#"
            id = "connector-9"
            dictionary = ["onChat", "onLeave"]
            [client]
            heartbeat = "30s"
            package_bytes_max = "64KiB"
            [push]
            scheduler = "buffer"
            flush_interval = "10ms"
            select = ["response now", "onMove* slow"]
            [[push.schedulers]]
            id = "slow"
            scheduler = "buffer"
            flush_interval = "200ms"
            [[push.schedulers]]
            id = "now"
            scheduler = "direct"
            [[server]]
            id = "chat-1"
            type = "chat"
            host = "10.0.0.2"
            port = 6050
            [[server]]
            id = "area-1"
            type = "area"
            host = "10.0.0.3"
            port = 6051
        "#;
    let folder = Folder::new(&[("tangelo.toml", text)]);
    let mut expected = Config {
        id: "connector-9".into(),
        ..Config::default()
    };
    expected.dictionary = vec!["onChat".into(), "onLeave".into()];
    expected.client.heartbeat = Some(Duration::from_secs(30));
    expected.client.package_bytes_max = 64 << 10;
    expected.push.scheduler = Scheduler::Buffer;
    expected.push.flush_interval = Duration::from_millis(10);
    expected.push.select = vec!["response now".into(), "onMove* slow".into()];
    expected.push.schedulers = [
        ("slow", Scheduler::Buffer, 200),
        ("now", Scheduler::Direct, 20),
    ]
    .map(|(id, scheduler, ms)| NamedScheduler {
        id: id.into(),
        scheduler,
        flush_interval: Duration::from_millis(ms),
    })
    .into();
    expected.servers = [("chat", "10.0.0.2", 6050), ("area", "10.0.0.3", 6051)]
        .map(|(kind, host, port)| Server {
            id: format!("{kind}-1"),
            server_type: kind.into(),
            host: host.into(),
            port,
            ..Server::default()
        })
        .into();
    let path = folder.path("tangelo.toml");
    let mut config = Config::load(&path).unwrap();
    let sources = std::mem::take(&mut config.sources);
    assert_eq!(config, expected);
    assert_eq!(sources.read, [path.display().to_string()]);
    let place = |key: &str| {
        sources
            .place(key)
            .map(|place| place.rsplit(':').next().unwrap())
    };
    assert_eq!(place("client.heartbeat"), Some("5"));
    assert_eq!(place("client.timeout"), None);
}

#[test]
fn exact_lifts_the_guards_that_no_key_sets() {
    let exact = args(&["--set=compat=exact"]).unwrap();
    assert_eq!(exact.client, Config::exact().client);
    let line = [
        "--set=client.handshake_bytes_max=8KiB",
        "--set=compat=exact",
    ];
    assert_eq!(args(&line).unwrap().client.handshake_bytes_max, 8 << 10);
}

#[test]
fn an_unknown_key_names_file_line_and_key() {
    refused_file(
        "id = 'a'\n\n[client]\nuse_dict = true\nheartbeet = '3s'\n",
        ":5: client.heartbeet: unknown key; known keys here: heartbeat, timeout, idle_websocket, first_byte_timeout, \
         upgrade_timeout, handshake_timeout, ack_timeout, package_timeout, write_timeout, bind_timeout, use_dict, \
         use_protobuf, server_protos, client_protos, protobuf_check, use_crypto, rsa_bits_max, bad_signatures_max, json_bytes_max, max_connections, accepts_per_second, silent_percent, accept, blacklist, blacklist_file, blacklist_console, \
         forward, trusted_proxies, proxy_protocol, real_ip_header, real_port_header, health_path, package_bytes_max, handshake_bytes_max, outbox_bytes_max, messages_per_second, bytes_per_second, rate_burst, rate_timeout, address_connections_max, address_messages_per_second, address_bytes_per_second, fragments_max, calls_in_flight_max",
    );
    let top = "unknown key; known keys here: id, server_type, delegate, delegate_closed, delegate_handshake, delegate_blacklist, delegate_notices, env, dialect, compat, listen, listener, shards, pin, turn_min, start_timeout, stop_timeout, \
               app_dir, dictionary, handler_routes, server, route, client, filter, session, push, rpc, cluster, drain, log, admin, limits, tls";
    refused_file(
        "id = 'a'\n[clinet]\nheartbeat = '3s'\n",
        &format!(":2: clinet: {top}"),
    );
    refused_file("heartbeat = '3s'\n", &format!(":1: heartbeat: {top}"));
    refused_file("embedded = true\n", &format!(":1: embedded: {top}"));
    refused_file(
        "push.x.y = 1",
        ":1: push.x: unknown key; known keys here: scheduler, flush_interval, schedulers, select",
    );
}

#[test]
fn the_first_mistake_of_a_file_is_the_one_named() {
    refused_file("[push]\nb = 1\na = 2\n[client]\nc = 3", {
        ":2: push.b: unknown key; known keys here: scheduler, flush_interval, schedulers, select"
    });
}

#[test]
fn an_unknown_key_in_set_names_the_flag_and_the_known_keys() {
    refused(
        &["--set", "push.shceduler=direct"],
        "--set push.shceduler=direct: unknown key; known keys here: scheduler, flush_interval, \
         schedulers, select",
    );
    refused(
        &["--set", "push.scheduler.x=1"],
        "--set push.scheduler.x=1: unknown key; known keys here: scheduler, flush_interval, \
         schedulers, select",
    );
    refused(
        &["--set", "push={x=1}"],
        "--set push={x=1}: push.x: unknown key; known keys here: scheduler, flush_interval, \
         schedulers, select",
    );
    refused(
        &["--set", "=1"],
        "--set =1: unknown key; known keys here: id, server_type, delegate, delegate_closed, delegate_handshake, delegate_blacklist, delegate_notices, env, dialect, compat, listen, listener, shards, pin, turn_min, start_timeout, stop_timeout, \
         app_dir, dictionary, handler_routes, server, route, client, filter, session, push, rpc, cluster, drain, log, admin, limits, tls",
    );
}

#[test]
fn a_wrong_value_names_file_line_key_and_the_expected_values() {
    refused_file(
        "[rpc]\n\ntimeout = 30\n",
        ":3: rpc.timeout = 30: expected a duration from 100ms to 10m, such as \"3s\" or \"250ms\"",
    );
    refused_file(
        "\nclient = 3\n",
        ":2: client = 3: expected a section [client] with keys heartbeat, timeout, idle_websocket, first_byte_timeout, \
         upgrade_timeout, handshake_timeout, ack_timeout, package_timeout, write_timeout, bind_timeout, use_dict, \
         use_protobuf, server_protos, client_protos, protobuf_check, use_crypto, rsa_bits_max, bad_signatures_max, json_bytes_max, max_connections, accepts_per_second, silent_percent, accept, blacklist, blacklist_file, blacklist_console, \
         forward, trusted_proxies, proxy_protocol, real_ip_header, real_port_header, health_path, package_bytes_max, handshake_bytes_max, outbox_bytes_max, messages_per_second, bytes_per_second, rate_burst, rate_timeout, address_connections_max, address_messages_per_second, address_bytes_per_second, fragments_max, calls_in_flight_max",
    );
    refused_file(
        "id = 'a'\n[[server]]\nid = 'b'\ntype = 'chat'\nhost = 'h'\nport = 70000\n",
        ":6: server[0].port = 70000: expected a number from 1 to 65535",
    );
    refused_file(
        "[[server]]\nid = 'b'\ntype = 'chat'\nhost = 'h'\nport = 1\n\n[[server]]\nid = 'c'\n",
        ":7: server[1].type: missing; every section needs id, type, host and port",
    );
    refused_file("[log]\nlevel = 'debgu'", {
        ":2: log.level: \"debgu\" is not a level; expected error, warn, info, debug, trace, off, or a \
         filter such as info,tangelo::peer=debug"
    });
}

#[test]
fn a_wrong_value_of_a_flag_names_the_flag() {
    refused(
        &["--set", "client.heartbeat=3"],
        "--set client.heartbeat=3: expected whole seconds from 1s to 1h, such as \"3s\"",
    );
    refused(
        &["--set", "client.heartbeat"],
        "--set client.heartbeat: expected KEY=VALUE, such as client.heartbeat=3s",
    );
    refused(
        &["--shards", "0"],
        "--shards 0: expected a number from 1 to 256",
    );
    refused(
        &["--listen", "localhost:3010"],
        "--listen localhost:3010: expected ADDR:PORT, such as 127.0.0.1:3010, or [::]:3010 for all addresses",
    );
    refused(
        &["--dialect", "pitaya"],
        "--dialect pitaya: expected pomelo or pinus",
    );
}

#[test]
fn broken_toml_names_file_and_line() {
    refused_file("id = 'a'\nid = 'b'\n", ":2: duplicate key");
    refused_file(
        "id = 'a'\n\nshards =\n",
        ":3: string values must be quoted, expected literal string",
    );
}

#[test]
fn a_missing_file_is_named() {
    refused(
        &["--config", "no/such.toml"],
        "no/such.toml: cannot read it: No such file or directory (os error 2)",
    );
}

#[test]
fn values_that_contradict_each_other_are_named() {
    refused(
        &["--set", "rpc.backoff_min=3s"],
        "--set rpc.backoff_min=3s: expected at most rpc.backoff_max, which is 2s",
    );
    refused(
        &[
            "--id=a",
            "--set=server=[{id='a', type='chat', host='h', port=1}]",
        ],
        "--set server=[{id='a', type='chat', host='h', port=1}]: server[0].id = \"a\": expected the id of \
         another server, because this tangelo has it itself",
    );
    let mut config = Config::default();
    let server = Server {
        id: "a".into(),
        server_type: "t".into(),
        host: "h".into(),
        port: 1,
        ..Server::default()
    };
    config.servers = vec![server; limits::SERVERS_MAX + 1];
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "server = 4097 sections: expected up to 4096 sections [[server]] with keys id, type, host, \
         port, weight, client_host, client_port",
    );
}

#[test]
fn the_help_and_the_version_are_those_of_the_program() {
    let program = Program {
        name: "game-gate".into(),
        version: "7.8.9".into(),
        about: "The gate of a game.".into(),
    };
    let said = |program: &Program, flag: &str| match CommandLine::read(program, words(&[flag])) {
        Err(usage) => usage.to_string(),
        Ok(_) => panic!("{flag} is accepted"),
    };
    assert_eq!(said(&program, "--version"), "game-gate 7.8.9\n");
    let help = said(&program, "--help");
    assert!(help.starts_with("The gate of a game.\n"), "{help}");
    assert!(help.contains("`game-gate game/app.js "), "{help}");
    // Without a name of its own it is that of the file.
    let file = Program::default();
    let expected = format!("{} (tangelo {})\n", file.name, env!("CARGO_PKG_VERSION"));
    assert_eq!(said(&file, "--version"), expected);
    assert_ne!(file.name, "tangelo");
}

#[test]
fn all_wrong_keys_and_values_of_a_line_are_found() {
    let folder = Folder::new(&[(
        "tangelo.toml",
        "stray = 1\n[client]\ntimeout = 1\nheartbeat = '3s'\n",
    )]);
    let path = folder.path("tangelo.toml").display().to_string();
    let line = ["check", "--config", &path, "--set=shards=0"];
    let line = CommandLine::read(&Program::default(), words(&line)).unwrap();
    assert_eq!(line.wish, Wish::Check);
    let loaded = line.load();
    let problems: Vec<String> = loaded.problems.iter().map(Error::to_string).collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    for (problem, start) in problems.iter().zip([
        format!("{path}:1: stray: "),
        format!("{path}:3: client.timeout"),
        "--set shards=0: ".into(),
    ]) {
        assert!(problem.starts_with(&start), "{problem}");
    }
    assert_eq!(loaded.config.client.heartbeat, Some(Duration::from_secs(3)));
}

#[test]
fn the_effective_configuration_is_read_back_as_it_is() {
    use crate::config::effective;

    let set = [
        "--set=id=a \"b\" \\ c",
        "--set=dictionary=[\"onChat\", \"\\\"\"]",
        "--set=client.blacklist=['10\\.0', 'a']",
        "--set=route={ chat = 'rr', default = 'la' }",
        "--set=server=[{id='chat-1', type='chat', host='::1', port=6050}, {id='b', type='c', host='d', port=1, weight=3}]",
        "--set=push.schedulers=[{id='slow', scheduler='buffer', flush_interval='1s'}]",
        "--set=listener=[{address='unix:/a b', transports=['tcp']}, {address='[::]:1', proxy_protocol=false}]",
        "--set=client.package_bytes_max=70000",
        "--set=client.health_path=/health",
        "--set=client.blacklist_file=a b",
        "--set=turn_min=0s",
    ];
    let read_back = |config: Config| {
        let text = effective::toml(&config);
        let folder = Folder::new(&[("tangelo.toml", &text)]);
        let again = Config::load(folder.path("tangelo.toml")).unwrap();
        let plain = |config: Config| Config {
            sources: Sources::default(),
            embedded: false,
            ..config
        };
        assert_eq!(plain(again), plain(config), "{text}");
        text
    };
    let text = read_back(args(&set).unwrap());
    assert!(text.contains("# --set turn_min=0s\n"), "{text}");
    assert!(text.contains("# listen has no value"), "{text}");
    // The section without an address has that of `listen`.
    let sections = "--set=listener=[{transports=['tcp']}, {address='[::]:1'}]";
    let text = read_back(args(&["--listen=0.0.0.0:3010", sections]).unwrap());
    assert!(
        text.contains("listen = \"0.0.0.0:3010\"  # --listen"),
        "{text}"
    );
}

#[test]
fn listen_and_listeners_together_name_both_places() {
    let sections = "[[listener]]\naddress = '127.0.0.1:2'\n";
    let reason = "not allowed together with listen, which";
    let text = format!("listen = '127.0.0.1:1'\n{sections}");
    let folder = Folder::new(&[("tangelo.toml", &text)]);
    let path = folder.path("tangelo.toml").display().to_string();
    refused(
        &["--config", &path],
        &format!("{path}:2: listener: {reason} {path}:1 sets; remove one of them"),
    );
    let folder = Folder::new(&[("tangelo.toml", sections)]);
    let path = folder.path("tangelo.toml").display().to_string();
    refused(
        &["--config", &path, "--listen", "127.0.0.1:1"],
        &format!("{path}:1: listener: {reason} --listen 127.0.0.1:1 sets; remove one of them"),
    );
    refused(
        &[
            "--set=listen=127.0.0.1:1",
            "--set=listener=[{address='[::]:2'}]",
        ],
        &format!(
            "--set listener=[{{address='[::]:2'}}]: {reason} --set listen=127.0.0.1:1 sets; remove one of them"
        ),
    );
    // The effective configuration of a gateway without sections has both keys.
    let line = ["--listen=127.0.0.1:1", "--set=listener=[]"];
    assert_eq!(args(&line).unwrap().listen.port(), 1);
}

#[test]
fn tls_without_a_certificate_is_refused_with_its_place() {
    refused_file(
        "[[listener]]\naddress = '127.0.0.1:2'\ntls = 'required'\n",
        ":1: listener[0].tls: needs [[tls.certificates]]; docs/operations.md shows how",
    );
}

#[test]
fn a_word_that_toml_reads_as_a_number_needs_quotes_in_a_file() {
    refused_file(
        "[tls]\nmin_version = 1.3\n",
        ":2: tls.min_version = 1.3: expected 1.2 or 1.3, in quotes",
    );
    refused_file(
        "[tls]\nmin_version = '1.1'\n",
        ":2: tls.min_version = \"1.1\": expected 1.2 or 1.3",
    );
    // A shell takes them away.
    let config = args(&["--set=tls.min_version=1.3"]).unwrap();
    assert_eq!(config.tls.min_version, TlsVersion::Tls13);
    refused(
        &["--set=tls.min_version=1.1"],
        "--set tls.min_version=1.1: expected 1.2 or 1.3",
    );
}

#[test]
fn usage_errors_keep_the_exit_codes_of_clap() {
    let code = |line: &[&str]| match CommandLine::read(&Program::default(), words(line)) {
        Err(usage) => usage.exit_code(),
        Ok(_) => panic!("{line:?} is accepted"),
    };
    assert_eq!(code(&["run", "run"]), 2);
    assert_eq!(code(&["--help"]), 0);
    assert_eq!(code(&["--version"]), 0);
    assert_eq!(code(&["--no-such-flag"]), 2);
    assert_eq!(code(&["walk"]), 2);
    assert_eq!(
        code(&["--app-dir", "game-server"]),
        2,
        "--app-dir requires --id"
    );
}

#[test]
fn any_server_type_has_a_strategy() {
    let text = "[route]\nchat = 'rr'\ndefault = 'la'\n'🍊' = 'random'\n";
    let folder = Folder::new(&[("tangelo.toml", text)]);
    let path = folder.path("tangelo.toml").display().to_string();
    let line = [
        "--config",
        &path,
        "--set=route.chat=wrr",
        "--set=route={area='ch'}",
    ];
    let config = args(&line).unwrap();
    let routes: Vec<(&str, &str)> = config
        .routes
        .iter()
        .map(|(kind, strategy)| (kind.as_str(), strategy.as_str()))
        .collect();
    let expected = [
        ("area", "ch"),
        ("chat", "wrr"),
        ("default", "la"),
        ("🍊", "random"),
    ];
    assert_eq!(routes, expected);
}

#[test]
fn a_strategy_that_is_none_names_its_place() {
    let accepted = crate::route::balance::Strategy::parse("rrr").unwrap_err();
    refused(
        &["--set=route.chat=rrr"],
        &format!("--set route.chat=rrr: {accepted}"),
    );
    refused_file(
        "[route]\ndefault = 'rr'\nchat = 'rrr'\n",
        &format!(":3: route.chat: {accepted}"),
    );
    refused_file(
        "route.chat = 7",
        ":1: route.chat = 7: expected a text in quotes, not an empty one",
    );
    let unknown = "unknown key; known keys here: default and any server type";
    refused(
        &["--set=route.chat.send=rr"],
        &format!("--set route.chat.send=rr: {unknown}"),
    );
    refused_file(
        "[route]\n'chat.send' = 'rr'",
        &format!(":2: route.chat.send: {unknown}"),
    );
    refused_file(
        "route = 'rr'",
        ":1: route = \"rr\": expected a section [route] with keys default and any server type",
    );
}

#[test]
fn cluster_and_session_keys_reach_their_knobs() {
    let config = args(&[
        "--set=cluster.reconnect_min=50ms",
        "--set=cluster.reconnect_max=2s",
        "--set=cluster.join=false",
        "--set=rpc.allow=cluster, 10.0.0.0/8",
        "--set=session.duplicate_login=newest-wins",
        "--set=session.duplicate_login_reason=elsewhere",
    ])
    .unwrap();
    assert_eq!(config.cluster.reconnect_min, Duration::from_millis(50));
    assert_eq!(config.cluster.reconnect_max, Duration::from_secs(2));
    assert!(!config.cluster.join);
    assert_eq!(config.rpc.allow, ["cluster", "10.0.0.0/8"]);
    assert_eq!(config.session.duplicate_login, DuplicateLogin::NewestWins);
    assert_eq!(config.session.duplicate_login_reason, "elsewhere");
    refused(
        &[
            "--set=cluster.reconnect_min=1m",
            "--set=cluster.reconnect_max=2s",
        ],
        "--set cluster.reconnect_min=1m: expected at most cluster.reconnect_max, which is 2s",
    );
}
