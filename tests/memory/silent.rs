//! Connections that never send a whole handshake.

use super::*;

#[test]
fn connections_without_a_handshake_take_no_place_of_a_player() {
    for (first, percent, has_place) in [
        (&b"\x01"[..], Some(10), true),
        (b"\x01\0\0", Some(10), true),
        (b"\x01", None, false),
    ] {
        let gateway = start(Config {
            client: config::Client {
                max_connections: Some(20),
                silent_percent: percent,
                ..config::Client::default()
            },
            ..Config::default()
        });
        let mut players: Vec<Client> = (0..10).map(|_| gateway.connect()).collect();
        let mut silent: Vec<Client> = (0..30)
            .map(|_| {
                let mut client = gateway.open(ClientOptions::default());
                client.send_bytes(first);
                client
            })
            .collect();
        // The oldest ones make room, for each other too, and keep a tenth in the end.
        let mut late: Vec<Client> = Vec::new();
        for _ in 0..8 {
            let mut client = gateway.open(ClientOptions::default());
            client.send_bytes(b"\x03\0\0\0");
            assert_eq!(client.is_closed(), !has_place);
            if has_place {
                assert_eq!(client.shake_hands()["code"], 200);
                late.push(client);
            }
        }
        assert!(players.iter_mut().all(|player| !player.is_closed()));
        let left = silent
            .iter_mut()
            .filter_map(|client| (!client.is_closed()).then_some(()));
        let (left, cut) = (left.count(), gateway.counter("closed_silent"));
        match has_place {
            true => assert_eq!((left, cut), (2, 28)),
            false => assert_eq!((left, cut), (10, 0)),
        }
        if has_place {
            let mut further = gateway.open(ClientOptions::default());
            further.send_bytes(first);
            assert!(!further.is_closed(), "it has the place of the oldest one");
            assert_eq!(gateway.counter("closed_silent"), 29);
        }
        assert!(late.iter_mut().all(|player| !player.is_closed()));
    }
}

#[test]
fn connections_without_a_byte_do_not_hide_those_that_have_the_place_of_a_player() {
    let gateway = start(Config {
        client: config::Client {
            max_connections: Some(20),
            ..config::Client::default()
        },
        ..Config::default()
    });
    let mut without_byte: Vec<Client> = (0..200)
        .map(|_| gateway.open(ClientOptions::default()))
        .collect();
    let _with_place: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = gateway.open(ClientOptions::default());
            client.send_bytes(b"\x01");
            client
        })
        .collect();
    let players: Vec<Client> = (0..5).map(|_| gateway.connect()).collect();
    assert_eq!(players.len(), 5);
    assert_eq!(gateway.counter("closed_silent"), 5);
    assert!(without_byte.iter_mut().all(|client| !client.is_closed()));
}
