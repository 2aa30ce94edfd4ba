//! The rate of a session: a pause of its reader, then its end.

use super::*;

fn with(client: config::Client) -> Config {
    Config {
        client,
        ..Config::default()
    }
}

/// Returns how many of the requests have an answer by now, and forgets them.
fn take_answered(client: &mut Client, ids: &mut Vec<u32>) -> usize {
    let before = ids.len();
    ids.retain(|id| client.answer(*id).is_none());
    before - ids.len()
}

#[test]
fn over_its_rate_a_session_waits_loses_nothing_and_holds_up_nobody() {
    let mut gateway = start(Config::default());
    let [mut busy, mut other] = [(); 2].map(|()| gateway.connect());
    let mut ids: Vec<u32> = (1..=4000).map(|n| busy.ask(ECHO, &n)).collect();
    assert_eq!(other.request(ECHO, &1), json!(1));
    let at_once = take_answered(&mut busy, &mut ids);
    assert!((1900..2050).contains(&at_once), "{at_once}");
    for second in 1..=2 {
        gateway.advance(SECOND);
        let more = take_answered(&mut busy, &mut ids);
        assert!((800..1150).contains(&more), "{more} in second {second}");
    }
    gateway.advance(SECOND);
    take_answered(&mut busy, &mut ids);
    assert_eq!((ids.len(), busy.is_closed()), (0, false));
    assert!(gateway.counter("rate_pauses") > 0);
    // It may come back to its rate and stay.
    for n in 1..=300 {
        assert_eq!(busy.request(ECHO, &n), json!(n));
        gateway.advance(100 * MS);
    }
}

/// Sends `count` packages each 100 ms. Returns the time after which the client is closed, up to 30 s.
fn flood(
    gateway: &mut InMemory,
    client: &mut Client,
    bytes: &[u8],
    count: usize,
) -> Option<Duration> {
    let begin = gateway.elapsed();
    for _ in 0..300 {
        client.send_bytes(&bytes.repeat(count));
        gateway.advance(100 * MS);
        if client.is_closed() {
            return Some(gateway.elapsed() - begin);
        }
    }
    None
}

const HEARTBEAT: &[u8] = b"\x03\0\0\0";

#[test]
fn ten_seconds_over_its_rate_end_a_session() {
    let mut gateway = start(Config::default());
    let mut client = gateway.connect();
    let end = flood(&mut gateway, &mut client, HEARTBEAT, 400).expect("it is closed");
    assert!((10 * SECOND..12 * SECOND).contains(&end), "{end:?}");
    assert_eq!(gateway.counter("closed_rate"), 1);

    for (count, client_config) in [
        // At its rate.
        (100, config::Client::default()),
        (
            200,
            config::Client {
                rate_timeout: None,
                ..config::Client::default()
            },
        ),
        (400, config::Config::exact().client),
    ] {
        let mut gateway = start(with(client_config));
        let mut client = gateway.connect();
        assert_eq!(flood(&mut gateway, &mut client, HEARTBEAT, count), None);
    }
}

#[test]
fn the_bytes_of_a_session_have_a_rate_too() {
    let mut gateway = start(with(config::Client {
        bytes_per_second: Some(10 << 10),
        ..config::Client::default()
    }));
    let mut client = gateway.connect();
    let long = [&b"\x03\x00\x04\x00"[..], &[0; 1024]].concat();
    let end = flood(&mut gateway, &mut client, &long, 2).expect("it is closed");
    assert!((11 * SECOND..14 * SECOND).contains(&end), "{end:?}");
    assert_eq!(gateway.counter("closed_rate"), 1);
}

/// Opens a working WebSocket.
fn websocket(gateway: &InMemory) -> Client {
    let mut client = gateway.open(ClientOptions::default());
    client.send_bytes(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\
          \x82\xac\0\0\0\0\x01\0\0\x28{\"sys\":{\"type\":\"x\",\"version\":\"1\"},\"u\":1}\x82\x84\0\0\0\0\x02\0\0\0",
    );
    client
}

#[test]
fn a_message_has_up_to_1024_fragments() {
    let gateway = start(Config::default());
    for (more, ends) in [(1022, false), (1023, true)] {
        let mut client = websocket(&gateway);
        let parts = b"\x00\x80\0\0\0\0".repeat(more);
        client.send_bytes(&[b"\x02\x84\0\0\0\0\x03\0\0\0", &*parts, b"\x80\x80\0\0\0\0"].concat());
        let bytes = client.take_bytes();
        assert_eq!(client.is_closed(), ends);
        assert_eq!(bytes.ends_with(b"\x88\x02\x03\xf0"), ends);
    }
    assert_eq!(gateway.counter("closed_websocket"), 1);
}

#[test]
fn a_websocket_that_pings_too_often_gets_the_code_of_a_policy() {
    let mut gateway = start(Config::default());
    let mut client = websocket(&gateway);
    let ping = b"\x89\x80\0\0\0\0";
    let mut last = Vec::new();
    for _ in 0..150 {
        client.send_bytes(&ping.repeat(400));
        gateway.advance(100 * MS);
        last.extend(client.take_bytes());
    }
    assert_eq!(gateway.counter("closed_rate"), 1, "{}", gateway.counters());
    assert!(
        last.ends_with(b"\x88\x02\x03\xf0"),
        "{}",
        last.escape_ascii()
    );
}
