//! The deadlines of a client in each of its states, over raw TCP and over WebSocket.

use std::ops::Range;

use tangelo::handler::{Answer, Outcome};
use tangelo::wire::pomelo::mqtt;

use super::*;

const HANDSHAKE: &[u8] = b"{\"sys\":{\"type\":\"memory\",\"version\":\"0.0.0\"}}";
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Transport {
    Raw,
    WebSocket,
}

/// The last thing that a client does as it should.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Accepted,
    /// The first byte is there, of an HTTP head over WebSocket.
    Begun,
    Upgraded,
    WaitsForAck,
    Working,
}

/// The conduct of a client from then on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Conduct {
    Silent,
    /// Sends a ping a second over WebSocket, else nothing.
    Pings,
    /// Sends a byte of a package a second.
    Drips,
    /// Sends the first half of a package.
    Half,
}

/// Returns whether the connection has ended. The received bytes are not packages over WebSocket.
fn has_ended(client: &mut Client) -> bool {
    client.take_bytes();
    client.is_closed()
}

fn package(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind][..], &length, body].concat()
}

/// A frame whose mask is zero. `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let head = match u16::try_from(payload.len()).unwrap() {
        length @ 0..126 => vec![first, 0x80 | length as u8],
        length => [&[first, 0x80 | 126][..], &length.to_be_bytes()].concat(),
    };
    [&head[..], &[0; 4], payload].concat()
}

impl Transport {
    fn bytes_of(self, package: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Raw => package,
            Self::WebSocket => frame(0x82, &package),
        }
    }
}

/// Brings a new client into a state.
fn client_in(gateway: &InMemory, transport: Transport, state: Phase) -> Client {
    let mut client = gateway.open(ClientOptions::default());
    let upgrade = match transport {
        Transport::Raw => b"",
        Transport::WebSocket => UPGRADE.as_bytes(),
    };
    let first = match transport {
        Transport::Raw => b"\x01",
        Transport::WebSocket => &b"GET"[..],
    };
    let handshake = transport.bytes_of(package(1, HANDSHAKE));
    let ack = transport.bytes_of(package(2, b""));
    let sent = match state {
        Phase::Accepted => vec![],
        Phase::Begun => vec![first],
        Phase::Upgraded => vec![upgrade],
        Phase::WaitsForAck => vec![upgrade, &handshake],
        Phase::Working => vec![upgrade, &handshake, &ack],
    };
    for bytes in sent.into_iter().filter(|bytes| !bytes.is_empty()) {
        client.send_bytes(bytes);
    }
    client.take_bytes();
    client
}

impl Conduct {
    /// Lets a client behave in this way for a second.
    fn go_on(self, client: &mut Client, transport: Transport, state: Phase, second: usize) {
        let whole = match (transport, state) {
            (Transport::WebSocket, Phase::Accepted | Phase::Begun) => UPGRADE.as_bytes().to_vec(),
            _ => transport.bytes_of(package(4, &[0; 2000])),
        };
        let begun = match (transport, state) {
            (Transport::WebSocket, Phase::Begun) => 3,
            (_, Phase::Begun) => 1,
            _ => 0,
        };
        let rest = &whole[begun..];
        match self {
            Self::Half if second == 0 => client.send_bytes(&rest[..rest.len() / 2]),
            Self::Drips => client.send_bytes(&rest[second..=second]),
            Self::Pings if transport == Transport::WebSocket => {
                client.send_bytes(&frame(0x89, b"?"));
            }
            Self::Silent | Self::Half | Self::Pings => {}
        }
        client.take_bytes();
    }
}

/// Returns the seconds that a client of this conduct lives, and the counter of its end.
fn end_of(transport: Transport, state: Phase, conduct: Conduct) -> Option<(usize, &'static str)> {
    use {Conduct as C, Phase as S, Transport as T};
    Some(match (transport, state, conduct) {
        (_, S::Accepted, C::Silent | C::Pings) => (10, "closed_first_byte_timeout"),
        (T::WebSocket, S::Accepted | S::Begun, _) => (10, "closed_upgrade_timeout"),
        (_, S::Accepted | S::Begun | S::Upgraded, _) => (10, "closed_handshake_timeout"),
        // The time of a package that began with it ends at the same moment.
        (_, S::WaitsForAck, _) => (30, "closed_ack_timeout"),
        (_, S::Working, C::Drips | C::Half) => (30, "closed_package_timeout"),
        (T::Raw, S::Working, C::Silent | C::Pings) => (90, "closed_idle_timeout"),
        (T::WebSocket, S::Working, C::Silent | C::Pings) => return None,
    })
}

fn is_possible(transport: Transport, state: Phase, conduct: Conduct) -> bool {
    match (transport, state) {
        (Transport::Raw, Phase::Upgraded) => false,
        (Transport::Raw, _) => conduct != Conduct::Pings,
        // The first bytes must name the method of HTTP, else they are raw TCP.
        (_, Phase::Accepted) => !matches!(conduct, Conduct::Pings | Conduct::Drips),
        (_, Phase::Begun) => conduct != Conduct::Pings,
        _ => true,
    }
}

fn all() -> impl Iterator<Item = (Transport, Phase, Conduct)> {
    use {Conduct as C, Phase as S};
    let states = [
        S::Accepted,
        S::Begun,
        S::Upgraded,
        S::WaitsForAck,
        S::Working,
    ];
    let conducts = [C::Silent, C::Pings, C::Drips, C::Half];
    let rows = states.into_iter().flat_map(move |state| {
        let rows = conducts.into_iter();
        rows.map(move |conduct| (state, conduct))
    });
    rows.flat_map(|(state, conduct)| {
        let transports = [Transport::Raw, Transport::WebSocket].into_iter();
        transports.map(move |transport| (transport, state, conduct))
    })
    .filter(|(transport, state, conduct)| is_possible(*transport, *state, *conduct))
}

/// Lets a client go on for some seconds; it must not be closed in them.
#[track_caller]
fn lives(gateway: &mut InMemory, seconds: Range<usize>, mut go_on: impl FnMut(usize) -> bool) {
    for second in seconds {
        assert!(!go_on(second), "closed after {second} s");
        gateway.advance(SECOND);
    }
}

#[test]
fn each_state_has_its_deadline_which_bytes_do_not_move() {
    for (transport, state, conduct) in all() {
        let mut gateway = start(Config::default());
        let mut client = client_in(&gateway, transport, state);
        let end = end_of(transport, state, conduct);
        let (seconds, counter) = end.unwrap_or((600, "closed_left"));
        let what = format!("{transport:?} {state:?} {conduct:?}");
        for second in 0..seconds {
            conduct.go_on(&mut client, transport, state, second);
            assert!(!has_ended(&mut client), "{what}: closed after {second} s");
            gateway.advance(SECOND - MS);
            assert!(!has_ended(&mut client), "{what}: closed before {second} s");
            gateway.advance(MS);
        }
        // The wheel looks each 50 ms, once a second at a deadline that came nearer.
        gateway.advance(100 * MS);
        assert_eq!(has_ended(&mut client), end.is_some(), "{what}");
        assert_eq!(
            gateway.counter(counter),
            u64::from(end.is_some()),
            "{what}: {}",
            gateway.counters()
        );
    }
}

#[test]
fn without_guards_only_the_silence_of_raw_tcp_ends() {
    for (transport, state, conduct) in all() {
        let mut gateway = start(Config::exact());
        let mut client = client_in(&gateway, transport, state);
        lives(&mut gateway, 0..89, |second| {
            conduct.go_on(&mut client, transport, state, second);
            has_ended(&mut client)
        });
    }
}

fn with(client: config::Client) -> Config {
    Config {
        client,
        ..Config::default()
    }
}

#[test]
fn a_handshake_that_waits_for_the_application_has_no_deadline_and_the_ack_has_one_after_it() {
    for transport in [Transport::Raw, Transport::WebSocket] {
        let gateway = Gateway::new(Config::default()).handlers(|_| {
            router().handshake(|session, _| {
                let app = session.app();
                Answer::later(async move {
                    app.sleep(25 * SECOND).await;
                    Outcome::default()
                })
            })
        });
        let mut gateway = gateway.in_memory().unwrap();
        let mut client = client_in(&gateway, transport, Phase::WaitsForAck);
        lives(&mut gateway, 0..25 + 29, |_| has_ended(&mut client));
        gateway.advance(1100 * MS);
        assert!(has_ended(&mut client));
        assert_eq!(gateway.counter("closed_ack_timeout"), 1);
    }
}

#[test]
fn a_long_package_has_a_second_more_for_each_16_kib() {
    for transport in [Transport::Raw, Transport::WebSocket] {
        let mut gateway = start(Config::default());
        let mut client = client_in(&gateway, transport, Phase::Working);
        let head = match transport {
            Transport::Raw => b"\x04\x0a\x00\x00".to_vec(),
            Transport::WebSocket => b"\x82\xff\0\0\0\0\x00\x0a\x00\x04\0\0\0\0".to_vec(),
        };
        let (first, rest) = head.split_at(2);
        client.send_bytes(first);
        lives(&mut gateway, 0..30 + 40, |second| {
            // The head comes whole only later. Raw TCP must not be idle.
            match second {
                5 => client.send_bytes(rest),
                6.. => client.send_bytes(b"x"),
                _ => {}
            }
            has_ended(&mut client)
        });
        gateway.advance(1100 * MS);
        assert!(has_ended(&mut client));
        assert_eq!(gateway.counter("closed_package_timeout"), 1);
    }
}

#[test]
fn a_message_in_fragments_has_one_deadline_and_the_next_one_its_own() {
    let mut gateway = start(Config::default());
    let heartbeat = package(3, b"");
    let [first, second] = [frame(0x02, &heartbeat[..2]), frame(0x80, &heartbeat[2..])];
    let mut client = client_in(&gateway, Transport::WebSocket, Phase::Working);
    client.send_bytes(&first);
    // At each moment a message is incomplete, and none takes longer than 20 s.
    for _ in 0..5 {
        lives(&mut gateway, 0..20, |_| has_ended(&mut client));
        client.send_bytes(&[&second[..], &first].concat());
    }
    let parts = frame(0x00, b"");
    lives(&mut gateway, 0..30, |_| {
        client.send_bytes(&parts);
        has_ended(&mut client)
    });
    gateway.advance(1100 * MS);
    assert!(has_ended(&mut client));
    assert_eq!(gateway.counter("closed_package_timeout"), 1);
}

#[test]
fn packages_that_are_cut_by_each_read_are_not_late() {
    let mut gateway = start(Config::default());
    let mut client = client_in(&gateway, Transport::Raw, Phase::Working);
    let heartbeat = package(3, b"");
    client.send_bytes(&heartbeat[..1]);
    lives(&mut gateway, 0..120, |_| {
        client.send_bytes(&[&heartbeat[1..], &heartbeat[..1]].concat());
        has_ended(&mut client)
    });
}

/// A client that gets `bytes` bytes of answers more than its socket takes, and reads none.
fn deaf_client(gateway: &InMemory, bytes: usize) -> Client {
    const IN_TRANSIT: usize = 256 << 10;
    let mut client = client_in(gateway, Transport::WebSocket, Phase::Working);
    ask_for_text(&mut client, IN_TRANSIT + bytes);
    client
}

/// Asks for answers of `bytes` bytes.
fn ask_for_text(client: &mut Client, bytes: usize) {
    let text = "x".repeat(1000);
    let body = [
        &b"\x00\x01\x1b"[..],
        b"connector.entryHandler.echo",
        b"\"",
        text.as_bytes(),
        b"\"",
    ];
    let ask = Transport::WebSocket.bytes_of(package(4, &body.concat()));
    for _ in 0..bytes / 1012 {
        client.send_bytes(&ask);
    }
}

#[test]
fn a_client_that_takes_no_byte_is_closed_while_more_than_64_kib_wait_for_it() {
    for (bytes, reads, lives_on) in [
        (100 << 10, false, false),
        (100 << 10, true, true),
        (40 << 10, false, true),
    ] {
        let mut gateway = start(Config::default());
        let mut client = deaf_client(&gateway, bytes);
        assert!(
            gateway.counter("flushes_blocked") > 0,
            "{}",
            gateway.counters()
        );
        gateway.advance(29 * SECOND);
        assert_eq!(gateway.counter("connections"), 1);
        if reads {
            client.take_bytes();
        }
        gateway.advance(5 * SECOND);
        assert_eq!(
            gateway.counter("closed_write_timeout"),
            u64::from(!lives_on),
            "{bytes} {reads}"
        );
    }
}

#[test]
fn bytes_that_come_behind_a_few_that_wait_are_watched_too() {
    let mut gateway = start(Config::default());
    let mut client = deaf_client(&gateway, 20 << 10);
    gateway.advance(60 * SECOND);
    assert_eq!(gateway.counter("closed_write_timeout"), 0);
    ask_for_text(&mut client, 100 << 10);
    gateway.advance(29 * SECOND);
    assert_eq!(gateway.counter("closed_write_timeout"), 0);
    gateway.advance(3 * SECOND);
    assert_eq!(gateway.counter("closed_write_timeout"), 1);
}

#[test]
fn a_session_must_be_bound_in_time_where_that_is_configured() {
    let mut gateway = start(with(config::Client {
        bind_timeout: Some(20 * SECOND),
        ..config::Client::default()
    }));
    let [mut guest, mut player] = [(); 2].map(|()| gateway.connect());
    gateway.advance(19 * SECOND);
    player.request(LOGIN, &json!({"uid": "mei"}));
    assert!(!guest.is_closed());
    gateway.advance(2100 * MS);
    assert_eq!((guest.is_closed(), player.is_closed()), (true, false));
    assert_eq!(gateway.counter("closed_bind_timeout"), 1);
}

/// A server may bind a session while the client owes its ack.
#[test]
fn a_bind_before_the_ack_ends_no_deadline_of_the_ack_and_begins_none_of_a_bind() {
    let mut config = with_chat(Dialect::Pomelo, 1);
    config.rpc.allow = vec!["any".into()];
    config.client.ack_timeout = Some(5 * SECOND);
    config.client.bind_timeout = Some(5 * SECOND);
    for acks in [true, false] {
        let mut gateway = start(config.clone());
        let mut client = client_in(&gateway, Transport::Raw, Phase::WaitsForAck);
        let mut server = gateway.caller([10, 0, 0, 5].into());
        // The first connection of a shard.
        let sid = 1 << 28;
        let call = json!({"id": 1, "msg": {
            "namespace": "sys", "service": "sessionRemote", "method": "bind", "args": [sid, "mei"],
        }});
        let mut bytes = Vec::new();
        mqtt::write_connect(&mut bytes, "MQTT_RPC_1");
        mqtt::write_publish(&mut bytes, |out| {
            out.extend_from_slice(call.to_string().as_bytes())
        });
        server.send(&bytes);
        let answer = server.take_bytes();
        assert!(
            answer.ends_with(br#"{"id":1,"resp":[]}"#),
            "{}",
            answer.escape_ascii()
        );
        if acks {
            client.send_bytes(&package(2, b""));
        }
        gateway.advance(20 * SECOND);
        assert_eq!(has_ended(&mut client), !acks);
        let counters = ["closed_ack_timeout", "closed_bind_timeout"];
        let ended = counters.map(|name| gateway.counter(name));
        assert_eq!(ended, [u64::from(!acks), 0]);
    }
}

#[test]
fn a_timeout_ends_a_silent_websocket_too_unless_it_may_be_idle() {
    for (idle_websocket, lives_on) in [(true, false), (false, true)] {
        let mut gateway = start(with(config::Client {
            timeout: Some(40 * SECOND),
            idle_websocket,
            ..config::Client::default()
        }));
        let mut client = client_in(&gateway, Transport::WebSocket, Phase::Working);
        lives(&mut gateway, 0..70, |second| {
            if second == 30 {
                client.send_bytes(&frame(0x89, b"?"));
            }
            has_ended(&mut client)
        });
        gateway.advance(1100 * MS);
        assert_eq!(has_ended(&mut client), !lives_on);
        assert_eq!(gateway.counter("closed_idle_timeout"), u64::from(!lives_on));
    }
}

#[test]
fn a_pause_of_the_process_does_not_count() {
    for (phase, limit) in [(Phase::Upgraded, 10), (Phase::WaitsForAck, 30)] {
        let mut gateway = start(Config::default());
        let mut client = client_in(&gateway, Transport::WebSocket, phase);
        gateway.advance(SECOND * (limit - 1));
        gateway.pause();
        gateway.advance(60 * SECOND);
        gateway.resume();
        gateway.advance(SECOND * (limit - 1));
        assert!(!has_ended(&mut client), "{phase:?}");
        gateway.advance(2 * SECOND);
        assert!(has_ended(&mut client), "{phase:?}");
    }
}

#[test]
fn a_closed_client_is_gone_after_two_seconds_even_if_its_reader_pauses_for_long() {
    let mut gateway = start(with(config::Client {
        bind_timeout: Some(SECOND),
        bytes_per_second: Some(10 << 10),
        ..config::Client::default()
    }));
    let mut client = gateway.connect();
    client.send_bytes(&package(3, &[0; 200 << 10]));
    assert!(gateway.counter("rate_pauses") > 0);
    gateway.advance(SECOND + 100 * MS);
    assert_eq!(gateway.counter("closed_bind_timeout"), 1);
    assert_eq!(gateway.counter("connections"), 1);
    gateway.advance(2 * SECOND + 100 * MS);
    assert_eq!(gateway.counter("connections"), 0);
    assert!(client.is_closed());
}
