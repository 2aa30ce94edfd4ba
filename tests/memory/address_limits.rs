//! The limits of an address: its connections, and the rate of all its sessions together. They count over all shards.

use super::*;

fn gateway(client: config::Client) -> InMemory {
    start(Config {
        client,
        ..on_shards(2)
    })
}

fn at_most(connections: usize) -> config::Client {
    config::Client {
        address_connections_max: Some(connections),
        ..config::Client::default()
    }
}

/// Opens a connection from an address, on the next shard in turn.
fn open(gateway: &InMemory, ip: &str) -> Client {
    gateway.open(ClientOptions {
        address: Some(SocketAddr::new(ip.parse().expect("an address"), 4000)),
        ..ClientOptions::default()
    })
}

fn connect(gateway: &InMemory, ip: &str) -> Client {
    let mut client = open(gateway, ip);
    assert_eq!(client.shake_hands()["code"], 200);
    client
}

#[test]
fn an_address_with_as_many_connections_as_it_may_have_gets_no_further_one_on_any_shard() {
    let gateway = gateway(at_most(3));
    for (first, again, other) in [
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
    ] {
        let mut taken: Vec<Client> = (0..3).map(|_| connect(&gateway, first)).collect();
        let refused = gateway.counter("closed_address_connections");
        for _ in 0..2 {
            assert!(open(&gateway, again).is_closed());
        }
        assert_eq!(gateway.counter("closed_address_connections"), refused + 2);
        let mut of_other = connect(&gateway, other);
        assert_eq!(of_other.request(ECHO, &1), json!(1));
        taken.remove(1).close();
        let mut next = connect(&gateway, again);
        assert_eq!(next.request(ECHO, &2), json!(2));
        assert!(open(&gateway, first).is_closed());
        assert!(taken.iter_mut().all(|client| !client.is_closed()));
    }
}

#[test]
fn without_a_limit_an_address_is_not_counted() {
    let gateway = gateway(config::Client::default());
    let mut clients: Vec<Client> = (0..300).map(|_| connect(&gateway, "192.0.2.1")).collect();
    for client in &mut clients {
        assert_eq!(client.request(ECHO, &1), json!(1));
    }
    assert!(!gateway.counters().contains("address"));
}

const PROXY: &str = "10.0.0.5";

fn behind_proxies(client: config::Client) -> config::Client {
    config::Client {
        trusted_proxies: vec!["10.0.0.0/8".into()],
        ..client
    }
}

fn upgrade(forwarded_for: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{forwarded_for}\r\n\r\n"
    )
}

#[test]
fn behind_a_proxy_the_address_of_the_client_counts_and_a_further_upgrade_gets_429() {
    let gateway = gateway(behind_proxies(config::Client {
        real_ip_header: Some("X-Forwarded-For".into()),
        ..at_most(2)
    }));
    let ask = |address: &str| {
        let mut client = open(&gateway, PROXY);
        client.send_bytes(upgrade(&format!("X-Forwarded-For: {address}")).as_bytes());
        let bytes = client.take_bytes();
        let status = String::from_utf8_lossy(&bytes)
            .lines()
            .next()
            .map(String::from);
        (client, status.expect("an answer"), bytes)
    };
    let switched = "HTTP/1.1 101 Switching Protocols";
    let mut kept = Vec::new();
    for address in ["192.0.2.1", "9.9.9.9, 192.0.2.1, 10.0.0.9"] {
        let (client, status, _) = ask(address);
        assert_eq!(status, switched);
        kept.push(client);
    }
    let (mut refused, status, bytes) = ask("192.0.2.1");
    assert_eq!(status, "HTTP/1.1 429 Too Many Requests");
    assert!(bytes.ends_with(b"this address has too many connections\n"));
    assert!(refused.is_closed());
    assert_eq!(gateway.counter("closed_address_connections"), 1);
    assert_eq!(ask("192.0.2.2").1, switched);
    kept.pop();
    assert_eq!(ask("192.0.2.1").1, switched);
    // The proxies themselves do not count: neither what they leave out nor what they tell of each other.
    let of_proxies = ["", "10.0.0.7"].map(|told| [(); 5].map(|()| ask(told)));
    assert!(
        of_proxies
            .iter()
            .flatten()
            .all(|(_, status, _)| status == switched)
    );
    assert_eq!(gateway.counter("closed_address_connections"), 1);
}

#[test]
fn the_address_in_the_header_of_the_proxy_protocol_counts() {
    let gateway = gateway(behind_proxies(config::Client {
        proxy_protocol: true,
        ..at_most(1)
    }));
    let begin = |header: &[u8]| {
        let mut client = open(&gateway, PROXY);
        client.send_bytes(header);
        client
    };
    let told = b"PROXY TCP4 192.0.2.1 10.0.0.7 4000 80\r\n";
    let mut first = begin(told);
    assert!(begin(told).is_closed());
    assert_eq!(first.shake_hands()["code"], 200);
    assert!(!begin(b"PROXY TCP4 192.0.2.2 10.0.0.7 4000 80\r\n").is_closed());
    let mut checks = [(); 5].map(|()| begin(b"PROXY UNKNOWN\r\n"));
    assert!(checks.iter_mut().all(|check| !check.is_closed()));
    assert_eq!(gateway.counter("closed_address_connections"), 1);
    first.close();
    assert!(!begin(told).is_closed());
}

/// Returns how many of the requests have an answer by now, and forgets them.
fn take_answered(client: &mut Client, ids: &mut Vec<u32>) -> usize {
    let before = ids.len();
    ids.retain(|id| client.answer(*id).is_none());
    before - ids.len()
}

#[test]
fn over_its_rate_all_sessions_of_an_address_wait_lose_nothing_and_hold_up_no_other_address() {
    let mut gateway = gateway(config::Client {
        address_messages_per_second: Some(500),
        ..config::Client::default()
    });
    // Two on each shard; each of them is within the rate of a session.
    let mut busy: Vec<Client> = (0..4).map(|_| connect(&gateway, "192.0.2.1")).collect();
    let mut other = connect(&gateway, "192.0.2.2");
    let mut asked: Vec<Vec<u32>> = busy
        .iter_mut()
        .map(|client| (1..=600).map(|n| client.ask(ECHO, &n)).collect())
        .collect();
    let mut take = |busy: &mut [Client]| -> usize {
        let each = busy.iter_mut().zip(&mut asked);
        each.map(|(client, ids)| take_answered(client, ids)).sum()
    };
    assert_eq!(other.request(ECHO, &1), json!(1));
    let at_once = take(&mut busy);
    assert!((900..1100).contains(&at_once), "{at_once}");
    let mut all = at_once;
    for second in 1..=2 {
        gateway.advance(SECOND);
        let more = take(&mut busy);
        assert!((350..650).contains(&more), "{more} in second {second}");
        assert_eq!(other.request(ECHO, &1), json!(1));
        all += more;
    }
    gateway.advance(2 * SECOND);
    all += take(&mut busy);
    assert_eq!(all, 2400);
    assert!(busy.iter_mut().all(|client| !client.is_closed()));
    assert!(gateway.counter("address_rate_pauses") > 0);
    assert_eq!(gateway.counter("rate_pauses"), 0);
}

/// Sends heartbeats over all clients for a time: together `count` packages each 100 ms. Returns how many are closed.
fn flood(gateway: &mut InMemory, clients: &mut [Client], count: usize, seconds: u32) -> usize {
    for _ in 0..10 * seconds {
        let each = count / clients.len();
        for client in &mut *clients {
            client.send_bytes(&b"\x03\0\0\0".repeat(each));
        }
        gateway.advance(100 * MS);
    }
    clients
        .iter_mut()
        .filter_map(|client| client.is_closed().then_some(()))
        .count()
}

#[test]
fn of_an_address_over_its_rate_one_connection_is_closed_after_each_ten_seconds() {
    let limits = config::Client {
        address_messages_per_second: Some(500),
        ..config::Client::default()
    };
    let mut gateway = gateway(limits.clone());
    let mut clients: Vec<Client> = (0..4).map(|_| connect(&gateway, "192.0.2.1")).collect();
    let mut other = connect(&gateway, "192.0.2.2");
    assert_eq!(flood(&mut gateway, &mut clients, 100, 9), 0);
    assert_eq!(flood(&mut gateway, &mut clients, 100, 6), 1);
    assert_eq!(flood(&mut gateway, &mut clients, 100, 10), 2);
    assert_eq!(gateway.counter("closed_address_rate"), 2);
    assert_eq!(other.request(ECHO, &1), json!(1));

    for (count, client) in [
        // At its rate.
        (48, limits.clone()),
        (
            100,
            config::Client {
                rate_timeout: None,
                ..limits
            },
        ),
    ] {
        let mut gateway = self::gateway(client);
        let mut clients: Vec<Client> = (0..4).map(|_| connect(&gateway, "192.0.2.1")).collect();
        assert_eq!(flood(&mut gateway, &mut clients, count, 25), 0);
    }
}

#[test]
fn the_bytes_of_an_address_have_a_rate_too_and_a_new_connection_has_no_new_burst() {
    let mut gateway = gateway(config::Client {
        address_bytes_per_second: Some(100 << 10),
        ..config::Client::default()
    });
    let long = "x".repeat(50 << 10);
    let mut answered = 0;
    for _ in 0..20 {
        let mut client = connect(&gateway, "192.0.2.1");
        for _ in 0..3 {
            let id = client.ask(ECHO, &long);
            answered += usize::from(client.answer(id).is_some());
        }
    }
    // The burst is 200 KiB. Each connection reads once before it pauses.
    assert!((4..30).contains(&answered), "{answered}");
    let pauses = gateway.counter("address_rate_pauses");
    assert!(pauses >= 18, "{pauses}");
    gateway.advance(60 * SECOND);
    let mut client = connect(&gateway, "192.0.2.1");
    assert_eq!(client.request(ECHO, &long), json!(long));
}
