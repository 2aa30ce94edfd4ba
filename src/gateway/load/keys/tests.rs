//! Tests of the parent.

use super::*;
use toml::de::DeValue;

/// Keys of `config.rs` as its field names give them.
fn fields() -> Vec<String> {
    let mut section = "";
    let mut fields = Vec::new();
    for line in include_str!("../../../config.rs").lines() {
        section = match line {
            "pub struct Config {" => "top",
            "pub struct Client {" => "client",
            "pub struct Filter {" => "filter",
            "pub struct Session {" => "session",
            "pub struct Push {" => "push",
            "pub struct Rpc {" => "rpc",
            "pub struct Cluster {" => "cluster",
            "pub struct Log {" => "log",
            "}" => "",
            _ => section,
        };
        let field = line
            .strip_prefix("    pub ")
            .and_then(|rest| rest.split_once(':'));
        match (section, field) {
            ("", _) | (_, None) => {}
            ("top", Some((name, _))) => fields.push(name.into()),
            (section, Some((name, _))) => fields.push(format!("{section}.{name}")),
        }
    }
    fields
}

#[test]
fn every_knob_has_a_key() {
    let sections = [
        "client", "filter", "session", "push", "rpc", "cluster", "log",
    ];
    let no_keys = ["embedded", "master", "crons", "warnings"];
    let expected: Vec<String> = fields()
        .into_iter()
        .filter(|field| !no_keys.contains(&field.as_str()))
        .filter(|field| !sections.contains(&field.as_str()))
        .map(|field| match field.as_str() {
            "servers" => "server".into(),
            "routes" => DEFAULT_ROUTE.into(),
            _ => field,
        })
        .collect();
    assert!(expected.len() > 20, "{expected:?}");
    let mut keys: Vec<String> = KEYS.iter().map(|(key, _)| (*key).into()).collect();
    for field in &expected {
        assert!(keys.contains(field), "{field} cannot be set");
    }
    keys.retain(|key| !expected.contains(key));
    assert_eq!(keys, Vec::<String>::new(), "no such knob");
}

#[test]
fn every_default_is_in_range() {
    let c = Config::default();
    let defaults = [
        (
            "client.package_bytes_max",
            c.client.package_bytes_max.to_string(),
        ),
        (
            "client.outbox_bytes_max",
            c.client.outbox_bytes_max.to_string(),
        ),
        (
            "client.calls_in_flight_max",
            c.client.calls_in_flight_max.to_string(),
        ),
        (
            "push.flush_interval",
            format!("{:?}", c.push.flush_interval),
        ),
        ("rpc.timeout", format!("{:?}", c.rpc.timeout)),
        ("rpc.keepalive", format!("{:?}", c.rpc.keepalive)),
        (
            "rpc.connect_timeout",
            format!("{:?}", c.rpc.connect_timeout),
        ),
        ("rpc.answer_timeout", format!("{:?}", c.rpc.answer_timeout)),
        ("rpc.backoff_min", format!("{:?}", c.rpc.backoff_min)),
        ("rpc.backoff_max", format!("{:?}", c.rpc.backoff_max)),
        (
            "rpc.calls_in_flight_max",
            c.rpc.calls_in_flight_max.to_string(),
        ),
        ("session.duplicate_login", "allow".into()),
        (
            "session.duplicate_login_reason",
            c.session.duplicate_login_reason.clone(),
        ),
        ("rpc.allow", "any".into()),
        ("cluster.join", c.cluster.join.to_string()),
        (
            "cluster.reconnect_min",
            format!("{:?}", c.cluster.reconnect_min),
        ),
        (
            "cluster.reconnect_max",
            format!("{:?}", c.cluster.reconnect_max),
        ),
        ("log.level", c.log.level.clone()),
        ("listen", c.listen.to_string()),
    ];
    let mut copy = Config::default();
    for (key, value) in defaults {
        assert_eq!(try_set(&mut copy, key, &value), Ok(()), "{key}");
    }
    assert_eq!(copy, c);
}

fn try_set(config: &mut Config, key: &str, typed: &str) -> Result<(), String> {
    let toml = match DeValue::parse(typed) {
        Ok(value) => value.into_inner(),
        Err(_) => DeValue::String(typed.into()),
    };
    let (_, set) = KEYS.iter().find(|(name, _)| *name == key).unwrap();
    let given = Given {
        toml: &toml,
        typed: Some(typed),
    };
    set(config, given).map_err(|wrong| format!("{}{}", wrong.below, wrong.what))
}

#[track_caller]
fn refused(key: &str, typed: &str, expected: &str) {
    let mut config = Config::default();
    assert_eq!(try_set(&mut config, key, typed), Err(expected.into()));
    assert_eq!(config, Config::default(), "a refused value was stored");
}

#[test]
fn a_refused_value_names_itself_and_what_is_accepted() {
    let seconds = r#"accepted: whole seconds, 1s to 1h, such as "3s""#;
    refused(
        "client.heartbeat",
        "3",
        &format!("3 has no unit; {seconds}"),
    );
    refused(
        "client.heartbeat",
        r#""3""#,
        &format!(r#""3" has no unit; {seconds}"#),
    );
    refused(
        "client.heartbeat",
        "1.5",
        &format!("1.5 has no unit; {seconds}"),
    );
    refused(
        "client.heartbeat",
        "2h",
        &format!(r#""2h" is out of range; {seconds}"#),
    );
    refused(
        "client.heartbeat",
        "1500ms",
        &format!(r#""1500ms" is not whole seconds; {seconds}"#),
    );
    refused(
        "client.heartbeat",
        "3 parsecs",
        &format!(r#""3 parsecs" is no duration; {seconds}"#),
    );
    refused(
        "client.heartbeat",
        "true",
        &format!("true is no duration; {seconds}"),
    );
    let range = r#"accepted: 1ms to 10s, such as "3s" or "250ms""#;
    refused(
        "push.flush_interval",
        "11s",
        &format!(r#""11s" is out of range; {range}"#),
    );
    refused(
        "push.flush_interval",
        "20",
        &format!("20 has no unit; {range}"),
    );
    let size = r#"accepted: 1024 to 16777215 bytes, such as 65536, "64KiB" or "4MiB""#;
    refused(
        "client.package_bytes_max",
        "16MiB",
        &format!(r#""16MiB" is out of range; {size}"#),
    );
    refused(
        "client.package_bytes_max",
        "1023",
        &format!("1023 is out of range; {size}"),
    );
    refused(
        "client.package_bytes_max",
        "-1",
        &format!("-1 is out of range; {size}"),
    );
    refused(
        "client.package_bytes_max",
        "4MB",
        &format!(r#""4MB" is no size; {size}"#),
    );
    refused(
        "client.package_bytes_max",
        "MiB",
        &format!(r#""MiB" is no size; {size}"#),
    );
    refused(
        "client.package_bytes_max",
        "true",
        &format!("true is no size; {size}"),
    );
    let huge = "99999999999GiB";
    refused(
        "client.package_bytes_max",
        huge,
        &format!("{huge:?} is out of range; {size}"),
    );
    let shards = "accepted: a number from 1 to 256";
    refused("shards", "0", &format!("0 is out of range; {shards}"));
    refused("shards", "-1", &format!("-1 is out of range; {shards}"));
    refused("shards", "257", &format!("257 is out of range; {shards}"));
    refused(
        "shards",
        "two",
        &format!(r#""two" is no whole number; {shards}"#),
    );
    refused(
        "dialect",
        "pitaya",
        r#""pitaya" is not known; accepted: pomelo, pinus"#,
    );
    refused(
        "filter.global",
        r#"["time", "serial 3"]"#,
        concat!(
            r#""serial 3" is not a filter; accepted: "serial 3s", "serial 3s {JSON}", "time", "#,
            r#""timeout 3s 500", "toobusy 70ms", "rate 50/s 100", with durations of 1ms to 1h "#,
            "and numbers of 1 to 1000000",
        ),
    );
    refused(
        "push.scheduler",
        "1",
        "1 is not known; accepted: direct, buffer",
    );
    refused(
        "log.format",
        "xml",
        r#""xml" is not known; accepted: text, json"#,
    );
    refused(
        "client.use_dict",
        "yes",
        r#""yes" is no switch; accepted: true, false"#,
    );
    let address = "accepted: ADDR:PORT, such as 127.0.0.1:3010, or [::]:3010 for all addresses";
    refused(
        "listen",
        "3010",
        &format!("3010 is no address with a port; {address}"),
    );
    refused(
        "listen",
        "::",
        &format!(r#""::" is no address with a port; {address}"#),
    );
    refused(
        "id",
        "",
        r#""" is empty; accepted: a text of at least one character"#,
    );
    refused(
        "dictionary",
        "[1]",
        r#"this array is no list of texts; accepted: ["chat.onAdd", "chat.onLeave"]"#,
    );
}

#[test]
fn a_refused_server_names_its_place() {
    let keys = "[[server]] with keys id, type, host, port, weight, client_host, client_port";
    refused("server", "7", &format!("7 is no list; accepted: {keys}"));
    refused(
        "server",
        "[7]",
        &format!("[0]7 is no server; accepted: {keys}"),
    );
    let whole = r#"{id="a", type="chat", host="127.0.0.1", port=1}"#;
    refused(
        "server",
        &format!("[{whole}, {whole}]"),
        r#"[1].id"a" is used twice"#,
    );
    refused(
        "server",
        r#"[{id="a", type="chat", host="127.0.0.1", port=0}]"#,
        "[0].port0 is out of range; accepted: a number from 1 to 65535",
    );
    refused(
        "server",
        r#"[{id=1}]"#,
        "[0].id1 is no text; accepted: a text in quotes",
    );
    refused(
        "server",
        r#"[{id="a", tipe="chat"}]"#,
        "[0].tipeunknown key; known keys here: id, type, host, port, weight, client_host, client_port",
    );
    for key in ["id", "type", "host", "port"] {
        let fields = [r#"id="a""#, r#"type="b""#, r#"host="c""#, "port=1"];
        let rest: Vec<&str> = fields.into_iter().filter(|f| !f.starts_with(key)).collect();
        refused(
            "server",
            &format!("[{{{}}}]", rest.join(",")),
            &format!("[0].{key}missing; every server needs id, type, host and port"),
        );
    }
}

#[test]
fn a_refused_push_scheduler_or_rule_says_what_is_accepted() {
    refused(
        "push.schedulers",
        "7",
        "7 is no list; accepted: [[push.schedulers]] with keys id, scheduler, flush_interval",
    );
    let id = "accepted: a text without spaces, not \"default\", which is the scheduler of \
              push.scheduler";
    for name in ["default", "a b"] {
        refused(
            "push.schedulers",
            &format!("[{{id={name:?}}}]"),
            &format!("[0].id{name:?} cannot be an id; {id}"),
        );
    }
    refused(
        "push.schedulers",
        r#"[{id="a", scheduler="later"}]"#,
        r#"[0].scheduler"later" is not known; accepted: direct, buffer"#,
    );
    refused(
        "push.schedulers",
        r#"[{id="a", scheduler="buffer", flush_interval="11s"}]"#,
        concat!(
            r#"[0].flush_interval"11s" is out of range; accepted: 1ms to 10s, such as "3s" "#,
            r#"or "250ms""#
        ),
    );
    refused(
        "push.schedulers",
        r#"[{id="a"}]"#,
        "[0].schedulermissing; every scheduler needs id and scheduler",
    );
    refused(
        "push.schedulers",
        r#"[{id="a", scheduler="direct"}, {id="a", scheduler="buffer"}]"#,
        r#"[1].id"a" is used twice"#,
    );
    refused(
        "push.select",
        r#"["onMove* a", "on*Move a"]"#,
        concat!(
            r#""on*Move a" is not a rule for pushes; accepted: "response ID", "onMove ID", "#,
            r#""chat.* ID""#
        ),
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
    refused(
        "server",
        r#"[{id="a", type="chat", host="h", port=1, weight=1000001}]"#,
        "[0].weight1000001 is out of range; accepted: a number from 0 to 1000000",
    );
    refused(
        "server",
        r#"[{id="a", type="chat", host="h", port=1, weight=1.5}]"#,
        "[0].weight1.5 is no whole number; accepted: a number from 0 to 1000000",
    );
}

#[test]
fn a_refused_cluster_value_says_what_is_accepted() {
    refused(
        "rpc.listen",
        "0.0.0.0:0",
        r#""0.0.0.0:0" has port 0; accepted: ADDR:PORT with the port in servers.json"#,
    );
    refused(
        "rpc.listen",
        "localhost:3150",
        concat!(
            r#""localhost:3150" is no address with a port; accepted: ADDR:PORT, such as "#,
            "127.0.0.1:3010, or [::]:3010 for all addresses",
        ),
    );
    refused(
        "rpc.allow",
        "none",
        r#""none" is not known; accepted: any, cluster"#,
    );
    refused(
        "session.duplicate_login",
        "kick",
        r#""kick" is not known; accepted: allow, refuse, newest-wins"#,
    );
    refused(
        "cluster.join",
        "no",
        r#""no" is no switch; accepted: true, false"#,
    );
    refused(
        "cluster.reconnect_min",
        "5ms",
        r#""5ms" is out of range; accepted: 10ms to 1m, such as "3s" or "250ms""#,
    );
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
