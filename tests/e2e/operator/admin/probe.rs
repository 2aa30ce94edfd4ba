//! The probe of the port for clients, which `/readyz` includes.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::start;
use crate::harness::client::Client;
use crate::harness::gateway::Gateway;

#[test]
fn the_probe_passes_by_all_limits_and_is_no_client() {
    const BLACKLIST: &str = "client.blacklist=[\"127\"]";
    const TRUSTED: &str = "client.trusted_proxies=[\"127.0.0.1\"]";
    for settings in [
        &["client.max_connections=1"][..],
        &[BLACKLIST],
        &[TRUSTED, "client.proxy_protocol=true"],
        &["client.health_path=/health"],
    ] {
        let sets = settings.iter().flat_map(|setting| ["--set", setting]);
        let level = ["--shards", "2", "--set", "log.level=debug"];
        let args: Vec<&str> = level.into_iter().chain(sets).collect();
        let (mut gateway, port) = start(&args);
        let is_full = settings[0].starts_with("client.max");
        let client = is_full.then(|| Client::tcp(gateway.address()).open());
        assert_eq!(port.wait_for("/readyz", 200), "ready\n", "{settings:?}");
        let counters = gateway.counters();
        let accepted = counters
            .get("connections_accepted")
            .copied()
            .unwrap_or_default();
        assert_eq!(accepted, u64::from(is_full), "{settings:?}: {counters:?}");
        assert!(
            !counters.keys().any(|name| name.starts_with("closed_")),
            "{counters:?}"
        );
        drop(client);
        let (code, printed) = gateway.stop();
        assert_eq!(code, Some(0), "{printed}");
        for word in ["refused", "blacklist", "probe"] {
            let mut lines = printed
                .lines()
                .filter(|line| line.contains(" DEBUG ") || line.contains(" WARN "));
            assert!(!lines.any(|line| line.contains(word)), "{printed}");
        }
    }
}

/// Leaves this number of free descriptors to a gateway, or all that it may have.
fn leave_descriptors(gateway: &Gateway, free: Option<usize>) {
    let pid = gateway.pid();
    let limit = match free {
        Some(free) => {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
            let names = open.map(|entry| entry.expect("it runs").file_name());
            let open: BTreeSet<u32> = names
                .map(|name| name.to_string_lossy().parse().expect("a number"))
                .collect();
            let mut left = (0..).filter(|fd| !open.contains(fd));
            left.nth(free).expect("endless").to_string()
        }
        None => "5000".to_owned(),
    };
    let limited = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--nofile={limit}:")])
        .status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit runs");
}

#[test]
fn a_shard_that_takes_no_connection_makes_readyz_red_until_it_does() {
    let (mut gateway, port) = start(&["--shards", "1"]);
    // One is for the connection to the operators' port, one for the end of the probe that is there. The shard gets none.
    leave_descriptors(&gateway, Some(2));
    let about = format!("not ready\nthe port for clients {}", gateway.address());
    let answer = port.get("/readyz");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.starts_with(&about), "{answer:?}");
    assert_eq!(port.get("/livez").status, 200);
    leave_descriptors(&gateway, None);
    assert_eq!(port.wait_for("/readyz", 200), "ready\n");
    assert!(gateway.counters()["accept_errors"] > 0);
}
