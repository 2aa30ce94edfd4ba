//! Tests of the parent.

use super::*;
use toml::de::DeValue;

/// Fields of `Config` as Rust sees them: `client.heartbeat`.
fn fields() -> Vec<String> {
    let shown = format!("{:#?}", Config::default());
    let mut section = "";
    let mut fields = Vec::new();
    for line in shown.lines() {
        let depth = line.len() - line.trim_start().len();
        let field = line.trim().split_once(": ");
        match (depth, field) {
            (4, Some((name, value))) if value.ends_with('{') => section = name,
            (4, Some((name, _))) => fields.push(name.to_owned()),
            (8, Some((name, _))) => fields.push(format!("{section}.{name}")),
            _ => {}
        }
    }
    fields
}

#[test]
fn every_knob_has_a_key() {
    let no_keys = ["embedded", "master", "crons", "warnings"];
    let mut expected: Vec<String> = fields();
    expected.retain(|field| !no_keys.contains(&field.as_str()) && !field.starts_with("sources."));
    for field in &mut expected {
        match field.as_str() {
            "listeners" => *field = "listener".into(),
            "servers" => *field = "server".into(),
            "routes" => *field = "route".into(),
            _ => {}
        }
    }
    assert!(expected.len() > 50, "{expected:?}");
    let mut keys: Vec<&str> = knobs().map(|knob| knob.key).collect();
    for field in &expected {
        assert!(keys.contains(&field.as_str()), "{field} cannot be set");
    }
    keys.retain(|key| !expected.iter().any(|field| field == key));
    assert_eq!(keys, Vec::<&str>::new(), "these keys have no field");
}

#[test]
fn every_default_is_in_range() {
    let mut copy = Config::default();
    let mut read = 0;
    for knob in knobs() {
        let default = (knob.default)();
        assert_eq!(knob.check(&copy), Ok(()));
        if default != "none" {
            assert_eq!(try_set(&mut copy, knob.key, &default), Ok(()));
            read += 1;
        }
    }
    assert_eq!(copy, Config::default());
    assert!(read > 30, "{read} defaults");
}

#[test]
fn the_defaults_of_exact_are_in_range_and_lift_guards() {
    let exact = Config::exact();
    assert_eq!(exact.validate(), Ok(()));
    assert_eq!(exact.compat, Compat::Exact);
    let guarded = Config::default();
    let differs = |knob: &&Knob<Config>| Knob::show(knob, &exact) != Knob::show(knob, &guarded);
    let lifted: Vec<&str> = knobs().filter(differs).map(|knob| knob.key).collect();
    assert!(lifted.contains(&"client.handshake_bytes_max"), "{lifted:?}");
}

#[test]
fn every_list_has_an_example_of_its_own_that_is_accepted() {
    let mut examples: Vec<String> = Vec::new();
    for knob in knobs() {
        let expected = (knob.accepted)();
        let Some(example) = expected.strip_prefix("a list of texts, such as ") else {
            continue;
        };
        let mut config = Config::default();
        // The scheduler that the example of `push.select` names.
        config.push.schedulers = vec![NamedScheduler {
            id: "slow".into(),
            ..NamedScheduler::default()
        }];
        let before = config.clone();
        assert_eq!(try_set(&mut config, knob.key, example), Ok(()));
        assert_ne!(config, before, "{}", knob.key);
        assert_eq!(config.validate(), Ok(()), "{}", knob.key);
        assert!(!examples.iter().any(|other| other == example), "{example}");
        examples.push(example.into());
    }
    assert_eq!(examples.len(), 10);
}

fn try_set(config: &mut Config, key: &str, typed: &str) -> Result<(), String> {
    let toml = match DeValue::parse(typed) {
        Ok(value) => value.into_inner(),
        Err(_) => DeValue::String(typed.into()),
    };
    let knob = knobs().find(|knob| knob.key == key).expect("a key");
    let raw = RawValue {
        toml: &toml,
        flag: Some(typed),
    };
    knob.read(config, raw).map_err(|error| error.to_string())
}

/// `expected` is the text behind the key.
#[track_caller]
fn refused(key: &str, typed: &str, expected: &str) {
    let mut config = Config::default();
    let error = try_set(&mut config, key, typed);
    assert_eq!(error, Err(format!("{key}{expected}")));
    assert_eq!(config, Config::default(), "a refused value was stored");
}

#[test]
fn a_refused_value_is_named_with_the_expected_values() {
    let seconds = r#"whole seconds from 1s to 1h, such as "3s""#;
    let interval = r#"a duration from 1ms to 10s, such as "3s" or "250ms""#;
    let size = r#"a size from 1KiB to 16777215 bytes, such as 65536, "64KiB" or "4MiB""#;
    let shards = "a number from 1 to 256";
    let address = "ADDR:PORT, such as 127.0.0.1:3010, or [::]:3010 for all addresses";
    let text = "a text in quotes, not an empty one";
    for (key, typed, shown, accepted) in [
        ("client.heartbeat", "3", "3", seconds),
        ("client.heartbeat", r#""3""#, r#""3""#, seconds),
        ("client.heartbeat", "1.5", "1.5", seconds),
        ("client.heartbeat", "2h", r#""2h""#, seconds),
        ("client.heartbeat", "1500ms", r#""1500ms""#, seconds),
        ("client.heartbeat", "3 parsecs", r#""3 parsecs""#, seconds),
        ("client.heartbeat", "true", "true", seconds),
        ("push.flush_interval", "11s", r#""11s""#, interval),
        ("push.flush_interval", "20", "20", interval),
        ("client.package_bytes_max", "16MiB", r#""16MiB""#, size),
        ("client.package_bytes_max", "1023", "1023", size),
        ("client.package_bytes_max", "-1", "-1", size),
        ("client.package_bytes_max", "4MB", r#""4MB""#, size),
        ("client.package_bytes_max", "MiB", r#""MiB""#, size),
        ("client.package_bytes_max", "true", "true", size),
        (
            "client.package_bytes_max",
            "99999999999GiB",
            r#""99999999999GiB""#,
            size,
        ),
        ("shards", "0", "0", shards),
        ("shards", "-1", "-1", shards),
        ("shards", "257", "257", shards),
        ("shards", "two", r#""two""#, shards),
        ("dialect", "pitaya", r#""pitaya""#, "pomelo or pinus"),
        ("push.scheduler", "1", "1", "direct or buffer"),
        ("log.format", "xml", r#""xml""#, "text or json"),
        ("client.use_dict", "yes", r#""yes""#, "true or false"),
        ("listen", "3010", "3010", address),
        ("listen", "::", r#""::""#, address),
        ("id", "", r#""""#, text),
        (
            "dictionary",
            "[1]",
            "[...]",
            r#"a list of texts, such as ["onChat", "onLeave"]"#,
        ),
    ] {
        refused(key, typed, &format!(" = {shown}: expected {accepted}"));
    }
}

#[test]
fn a_refused_server_names_its_place() {
    let keys = "up to 4096 sections [[server]] with keys id, type, host, port, weight, client_host, \
                client_port";
    refused("server", "7", &format!(" = 7: expected {keys}"));
    refused("server", "[7]", &format!("[0] = 7: expected {keys}"));
    let whole = r#"{id="a", type="chat", host="127.0.0.1", port=1}"#;
    refused(
        "server",
        &format!("[{whole}, {whole}]"),
        r#"[1].id = "a": server[0] has this id already"#,
    );
    refused(
        "server",
        r#"[{id="a", type="chat", host="127.0.0.1", port=0}]"#,
        "[0].port = 0: expected a number from 1 to 65535",
    );
    refused(
        "server",
        r#"[{id=1}]"#,
        "[0].id = 1: expected a text in quotes, not an empty one",
    );
    refused(
        "server",
        r#"[{id="a", tipe="chat"}]"#,
        "[0].tipe: unknown key; known keys here: id, type, host, port, weight, client_host, client_port",
    );
    for key in ["id", "type", "host", "port"] {
        let fields = [r#"id="a""#, r#"type="b""#, r#"host="c""#, "port=1"];
        let rest: Vec<&str> = fields.into_iter().filter(|f| !f.starts_with(key)).collect();
        refused(
            "server",
            &format!("[{{{}}}]", rest.join(",")),
            &format!("[0].{key}: missing; every section needs id, type, host and port"),
        );
    }
}

#[test]
fn a_refused_listener_names_its_place() {
    let keys = "up to 16 sections [[listener]] with keys address, transports, tls, proxy_protocol";
    refused("listener", "7", &format!(" = 7: expected {keys}"));
    let address = "expected ADDR:PORT, such as 0.0.0.0:3010, or unix: with an absolute path of up to 107 bytes";
    let (longest, too_long) = (
        format!("/{}", "a".repeat(106)),
        format!("/{}", "a".repeat(107)),
    );
    let mut config = Config::default();
    let section = format!(r#"[{{address="unix:{longest}"}}]"#);
    assert_eq!(try_set(&mut config, "listener", &section), Ok(()));
    let transports = r#"expected a list of "tcp" and "websocket", or of one of them"#;
    for (section, expected) in [
        (
            r#"address="3010""#,
            format!(r#".address = "3010": {address}"#),
        ),
        (
            r#"address="unix:a""#,
            format!(r#".address = "unix:a": {address}"#),
        ),
        (
            &*format!(r#"address="unix:{too_long}""#),
            format!(r#".address = "unix:{too_long}": {address}"#),
        ),
        (
            r#"address="[::]:1", transports=[]"#,
            format!(".transports = [...]: {transports}"),
        ),
        (
            r#"address="[::]:1", transports=["udp"]"#,
            format!(".transports = [...]: {transports}"),
        ),
        (
            r#"address="[::]:1", transports="tcp""#,
            format!(r#".transports = "tcp": {transports}"#),
        ),
        (
            r#"address="[::]:1", tls="on""#,
            r#".tls = "on": expected off, required or optional"#.into(),
        ),
        (
            r#"address="[::]:1", proxy_protocol=1"#,
            ".proxy_protocol = 1: expected true or false".into(),
        ),
        (
            r#"address="[::]:1", port=1"#,
            ".port: unknown key; known keys here: address, transports, tls, proxy_protocol".into(),
        ),
    ] {
        refused(
            "listener",
            &format!("[{{{section}}}]"),
            &format!("[0]{expected}"),
        );
    }
    let many: Vec<String> = (1..=17)
        .map(|port| format!(r#"{{address="127.0.0.1:{port}"}}"#))
        .collect();
    refused(
        "listener",
        &format!("[{}]", many.join(",")),
        &format!(" = 17 sections: expected {keys}"),
    );
}

#[test]
fn two_listeners_have_different_addresses() {
    for (first, second) in [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("127.0.0.1:1", "0.0.0.0:1"),
        ("[::]:1", "127.0.0.1:1"),
        ("[::]:1", "0.0.0.0:1"),
        ("[::]:1", "[::1]:1"),
        ("[::ffff:127.0.0.1]:1", "127.0.0.1:1"),
        ("unix:/a", "unix:/a"),
    ] {
        for (first, second) in [(first, second), (second, first)] {
            refused(
                "listener",
                &format!(r#"[{{address="{first}"}}, {{address="{second}"}}]"#),
                &format!(r#"[1].address = "{second}": listener[0] has this address already"#),
            );
        }
    }
    for (first, second) in [
        ("127.0.0.1:1", "127.0.0.1:2"),
        ("127.0.0.1:1", "127.0.0.2:1"),
        ("0.0.0.0:1", "[::1]:1"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("unix:/a", "unix:/b"),
        ("unix:/a", "127.0.0.1:1"),
    ] {
        let mut config = Config::default();
        let two = format!(r#"[{{address="{first}"}}, {{address="{second}"}}]"#);
        assert_eq!(try_set(&mut config, "listener", &two), Ok(()));
        assert_eq!(config.validate(), Ok(()), "{two}");
    }
}

#[test]
fn the_sections_take_the_place_of_listen() {
    let mut config = Config::default();
    let [one] = &*config.client_listeners() else {
        panic!("one listener");
    };
    let own = ListenAddress::Tcp(config.listen);
    assert_eq!((&one.address, config.address_of(one)), (&None, own));
    assert_eq!((one.transports, one.tls), (Transports::ALL, TlsMode::Off));
    assert_eq!(one.proxy_protocol, None);
    let two = r#"[{address="unix:/run/game.socket", transports=["websocket"], proxy_protocol=true},
        {address="[::]:3011", transports=["tcp", "websocket"]}]"#;
    assert_eq!(try_set(&mut config, "listener", two), Ok(()));
    let [unix, tcp] = &*config.client_listeners() else {
        panic!("two listeners");
    };
    let address = config.address_of(unix);
    assert_eq!(address.to_string(), "unix:/run/game.socket");
    assert!(!unix.transports.tcp && unix.transports.websocket);
    assert_eq!(
        (unix.proxy_protocol, tcp.proxy_protocol),
        (Some(true), None)
    );
    assert_eq!(tcp.transports, Transports::ALL);
}

#[test]
fn a_refused_push_scheduler_names_its_place() {
    refused(
        "push.schedulers",
        "7",
        " = 7: expected up to 7 sections [[push.schedulers]] with keys id, scheduler, flush_interval",
    );
    refused(
        "push.schedulers",
        r#"[{id="a", scheduler="later"}]"#,
        r#"[0].scheduler = "later": expected direct or buffer"#,
    );
    refused(
        "push.schedulers",
        r#"[{id="a", scheduler="buffer", flush_interval="11s"}]"#,
        concat!(
            r#"[0].flush_interval = "11s": expected a duration from 1ms to 10s, such as "3s" "#,
            r#"or "250ms""#
        ),
    );
    refused(
        "push.schedulers",
        r#"[{id="a"}]"#,
        "[0].scheduler: missing; every section needs id and scheduler",
    );
    refused(
        "push.schedulers",
        r#"[{id="a", scheduler="direct"}, {id="a", scheduler="buffer"}]"#,
        r#"[1].id = "a": push.schedulers[0] has this id already"#,
    );
    let eight: Vec<String> = (0..8)
        .map(|n| format!(r#"{{id="{n}", scheduler="direct"}}"#))
        .collect();
    refused(
        "push.schedulers",
        &format!("[{}]", eight.join(",")),
        " = 8 sections: expected up to 7 sections [[push.schedulers]] with keys id, scheduler, \
         flush_interval",
    );
}

#[test]
fn a_weight_is_optional_and_may_be_zero() {
    let mut config = Config::default();
    let whole = r#"[{id="a", type="chat", host="h", port=1},
        {id="b", type="chat", host="h", port=1, weight=0},
        {id="c", type="chat", host="h", port=1, weight=1000000}]"#;
    assert_eq!(try_set(&mut config, "server", whole), Ok(()));
    let weights: Vec<Option<u32>> = config.servers.iter().map(|s| s.weight).collect();
    assert_eq!(weights, [None, Some(0), Some(1_000_000)]);
    for weight in ["1000001", "1.5"] {
        refused(
            "server",
            &format!(r#"[{{id="a", type="chat", host="h", port=1, weight={weight}}}]"#),
            &format!("[0].weight = {weight}: expected a number from 0 to 1000000"),
        );
    }
}

#[test]
fn a_refused_cluster_value_is_named_with_the_expected_values() {
    let address = "ADDR:PORT with the port of this server in servers.json, such as [::]:3150";
    for (key, typed, accepted) in [
        ("rpc.listen", "0.0.0.0:0", address),
        ("rpc.listen", "localhost:3150", address),
        (
            "session.duplicate_login",
            "kick",
            "allow, refuse or newest-wins",
        ),
        ("cluster.join", "no", "true or false"),
        (
            "cluster.reconnect_min",
            "5ms",
            r#"a duration from 10ms to 1m, such as "3s" or "250ms""#,
        ),
    ] {
        refused(key, typed, &format!(" = {typed:?}: expected {accepted}"));
    }
}

#[test]
fn sizes_and_durations_take_their_units() {
    let mut config = Config::default();
    for (typed, bytes) in [
        ("4096", 4096),
        ("64KiB", 65536),
        ("1 MiB", 1 << 20),
        ("0x1000", 4096),
    ] {
        assert_eq!(
            try_set(&mut config, "client.package_bytes_max", typed),
            Ok(())
        );
        assert_eq!(config.client.package_bytes_max, bytes);
    }
    for (typed, millis) in [("20ms", 20), ("1s", 1000), ("1s 500ms", 1500)] {
        assert_eq!(try_set(&mut config, "push.flush_interval", typed), Ok(()));
        assert_eq!(config.push.flush_interval, Duration::from_millis(millis));
    }
}
