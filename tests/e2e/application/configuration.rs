//! A configuration that a program fills in: the gateway refuses the values that it refuses in a file.

use std::fs;
use std::time::Duration;

use tangelo::{Config, Gateway};
use tempfile::NamedTempFile;

/// A wrong value: how a program sets it, the same in a file, and the error.
type Case = (fn(&mut Config), &'static str, &'static str);

const CASES: &[Case] = &[
    (
        |config| {
            config.routes.insert("chat".into(), "rrr".into());
        },
        "route.chat = 'rrr'",
        "route.chat: \"rrr\" is not a strategy; expected default, rr, wrr, la, ch, random, fixed:SERVER_ID, \
         setting:SETTINGS_KEY, hash:SETTINGS_KEY, delegate",
    ),
    (
        |config| config.client.heartbeat = Some(Duration::from_millis(100)),
        "client.heartbeat = '100ms'",
        r#"client.heartbeat = "100ms": expected whole seconds from 1s to 1h, such as "3s""#,
    ),
    (
        |config| config.client.heartbeat = Some(Duration::from_millis(1500)),
        "client.heartbeat = '1s 500ms'",
        r#"client.heartbeat = "1s 500ms": expected whole seconds from 1s to 1h, such as "3s""#,
    ),
    (
        |config| config.client.package_bytes_max = usize::MAX,
        "client.package_bytes_max = 18446744073709551615",
        "client.package_bytes_max = 18446744073709551615: expected a size from 1KiB to 16777215 bytes, \
         such as 65536, \"64KiB\" or \"4MiB\"",
    ),
    (
        |config| config.rpc.backoff_min = Duration::from_secs(3),
        "rpc.backoff_min = '3s'",
        r#"rpc.backoff_min = "3s": expected at most rpc.backoff_max, which is 2s"#,
    ),
    (
        |config| config.cluster.reconnect_max = Duration::from_millis(500),
        "cluster.reconnect_min = '1s'\ncluster.reconnect_max = '500ms'",
        r#"cluster.reconnect_min = "1s": expected at most cluster.reconnect_max, which is 500ms"#,
    ),
    (
        |config| config.client.health_path = Some("health?".into()),
        "client.health_path = 'health?'",
        r#"client.health_path = "health?": expected a path of a URL without a query, such as "/health""#,
    ),
    (
        |config| config.client.real_ip_header = Some("X Real".into()),
        "client.real_ip_header = 'X Real'",
        r#"client.real_ip_header = "X Real": expected the name of a header, such as "X-Real-IP""#,
    ),
    (
        |config| config.client.trusted_proxies = vec!["10.0.0.0/33".into()],
        "client.trusted_proxies = ['10.0.0.0/33']",
        r#"client.trusted_proxies: "10.0.0.0/33" is not an address; expected one such as "10.0.0.5", "10.0.0.0/8", "::1" or "fd00::/8""#,
    ),
    (
        |config| config.client.blacklist = vec!["(".into()],
        "client.blacklist = ['(']",
        r#"client.blacklist: "(" cannot be used as a regular expression: unclosed group"#,
    ),
    (
        |config| config.log.level = "debgu".into(),
        "log.level = 'debgu'",
        "log.level: \"debgu\" is not a level; expected error, warn, info, debug, trace, off, or a filter \
         such as info,tangelo::peer=debug",
    ),
    (
        |config| config.delegate = Some("connector".into()),
        "delegate = 'connector'",
        "delegate = \"connector\": expected the type of other servers, which have the handlers of this type",
    ),
];

#[test]
fn a_program_is_refused_what_a_file_is_refused_for() {
    let file = NamedTempFile::new().expect("a temporary file");
    for (change, text, expected) in CASES {
        let mut config = Config::default();
        change(&mut config);
        let refused = |error: Option<tangelo::Error>| error.map(|error| error.to_string());
        let expected = Some((*expected).to_owned());
        assert_eq!(refused(config.validate().err()), expected);
        assert_eq!(
            refused(Gateway::new(config.clone()).start().err()),
            expected
        );
        assert_eq!(refused(Gateway::new(config).in_memory().err()), expected);

        fs::write(&file, text).expect("a file");
        let in_file = refused(Config::load(file.path()).err());
        let place = format!("{}:1: ", file.path().display());
        assert_eq!(
            in_file,
            expected.map(|expected| place + &expected),
            "{text}"
        );
    }
    assert_eq!(Config::default().validate(), Ok(()));
}
