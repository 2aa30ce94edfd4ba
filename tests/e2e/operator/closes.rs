//! The log says why a client's connection was closed, in the words of the counters.

use crate::harness::client::Client;
use crate::harness::gateway::Gateway;

const DEBUG: [&str; 2] = ["--set", "log.level=debug"];

#[test]
fn at_debug_each_closed_client_has_a_line_with_its_reason() {
    let mut gateway = Gateway::start(&DEBUG);
    let client = Client::tcp(gateway.address()).open();
    let address = client.stream().local_addr().expect("a socket");
    drop(client);
    let line = gateway.wait_printed("a client is closed");
    for part in [
        "reason=\"left\"",
        &format!("address=\"{address}\""),
        "session=",
    ] {
        assert!(line.contains(part), "{line}");
    }
    let _open = Client::tcp(gateway.address()).open();
    let (_, printed) = gateway.stop();
    assert!(printed.contains("reason=\"drain\""), "{printed}");
}

#[test]
fn a_client_that_breaks_the_protocol_has_a_line_without_debug() {
    let mut gateway = Gateway::start(&[]);
    drop(Client::tcp(gateway.address()).open());
    let mut client = Client::tcp(gateway.address()).open();
    client.send_package(9, b"");
    assert_eq!(client.next_package(), None);
    let line = gateway.wait_printed("a client broke the protocol");
    assert!(line.contains("INFO"), "{line}");
    assert!(line.contains("reason=\"package_type\""), "{line}");
    let (_, printed) = gateway.stop();
    assert!(!printed.contains("a client is closed"), "{printed}");
}
