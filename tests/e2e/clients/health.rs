//! The health check of load balancers; `application::lifecycle` has its answer during a stop.

use crate::harness::client::Client;
use crate::harness::frames::{UPGRADE, connect, http, read_http_head, write_anyway};
use crate::harness::gateway::Gateway;

#[test]
fn a_health_check_gets_200_and_is_not_a_client() {
    for shards in ["1", "4"] {
        let knobs = ["client.health_path=/health", "client.max_connections=1"];
        let knobs = knobs.map(|knob| ["--set", knob]);
        let args = [&["--shards", shards], knobs.as_flattened()].concat();
        let mut gateway = Gateway::start(&args);
        let address = gateway.address();
        // The only client that may be there.
        let client = Client::websocket(address).open();
        for (line, expected) in [
            ("GET /health", "ok\n"),
            ("GET /health?from=balancer", "ok\n"),
            ("HEAD /health", ""),
        ] {
            let (head, body) = http(address, line);
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{line}: {head}");
            assert_eq!(body, expected, "{line}");
        }
        for line in ["GET /healthy", "GET //health", "GET /", "POST /health"] {
            let (_, body) = http(address, line);
            assert_ne!(body, "ok\n", "{line}");
        }
        let counters = gateway.counters();
        assert_eq!(counters.get("closed_health"), Some(&3), "{counters:?}");
        assert_eq!(counters.get("closed_max_connections"), None, "{counters:?}");
        drop(client);
        gateway.wait_counter("closed_left", 1);
        // A WebSocket may have any path.
        let stream = connect(address);
        write_anyway(&stream, UPGRADE.replace("GET /", "GET /health").as_bytes());
        let head = read_http_head(&stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }
}

#[test]
fn without_a_health_path_nothing_answers_a_check() {
    let gateway = Gateway::start(&[]);
    let (head, _) = http(gateway.address(), "GET /health");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
}
