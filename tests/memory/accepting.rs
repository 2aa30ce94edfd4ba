//! The rate at which a process accepts connections.

use super::*;

/// A gateway with these shards that accepts 100 connections a second, and 300 clients that come at once.
fn storm(shards: usize, accepts_per_second: Option<usize>) -> (InMemory, Vec<Client>) {
    let mut config = on_shards(shards);
    config.client.accepts_per_second = accepts_per_second;
    let gateway = start(config);
    let come = |_| gateway.open(ClientOptions::default());
    let clients = (0..300).map(come).collect();
    (gateway, clients)
}

#[test]
fn over_the_rate_clients_wait_and_all_get_in() {
    for shards in [1, 3] {
        let (mut gateway, mut clients) = storm(shards, Some(100));
        let at_once = gateway.counter("connections_accepted");
        assert!((2..=4).contains(&at_once), "{at_once}");
        for second in 1..=2 {
            gateway.advance(SECOND);
            let accepted = gateway.counter("connections_accepted");
            let expected = second * 100;
            assert!(
                (expected - 5..=expected + 5).contains(&accepted),
                "{accepted}"
            );
            assert_eq!(gateway.counter("connections"), accepted);
        }
        gateway.advance(2 * SECOND);
        assert_eq!(gateway.counter("connections_accepted"), 300);
        assert!(gateway.counter("accept_pauses") > 100);
        assert!(clients.iter_mut().all(|client| !client.is_closed()));
        assert_eq!(clients[299].shake_hands()["code"], 200);
    }
}

#[test]
fn without_a_rate_all_are_accepted_at_once() {
    let (gateway, _clients) = storm(2, None);
    assert_eq!(gateway.counter("connections_accepted"), 300);
    assert_eq!(gateway.counter("accept_pauses"), 0);
}
