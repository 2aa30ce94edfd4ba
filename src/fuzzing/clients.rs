//! Bytes of clients and of the proxies in front of them: the machine of a connection, and the heads of HTTP and PROXY.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::formats::check_prefixes;
use super::input::{Choices, Input};
use crate::client::listener::{ListenerRules, Opener};
use crate::client::proxies::Proxies;
use crate::client::transport::{self, Health, Http, HttpRules, Transport};
use crate::client::{ClientEvent, ClientMachine, ClientState, Rules};
use crate::config::{ClientListener, Config, Dialect, Transports};
use crate::error::CloseReason;
use crate::limits::{HTTP_HEAD_BYTES_MAX, PROXY_HEADER_BYTES_MAX, WEBSOCKET_CONTROL_BYTES_MAX};
use crate::wire::handshake::{self, HandshakeRequest};
use crate::wire::package::HEAD_BYTES;
use crate::wire::proxy as proxy_header;
use crate::wire::websocket::{self, Opcode};

const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: game\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// The pages of `GET /`.
const PAGES: &[Option<&[u8]>] = &[None, Some(b"<html>")];

/// The trusted proxy, if there is one.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Longest header of a frame.
const FRAME_HEAD_BYTES_MAX: usize = 14;

/// The bytes of a connection from the first one: the machine gives the same events and answers however they are split.
pub fn client(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let rules = rules(&mut input);
    check_splits(&rules, &mut input, b"");
}

/// The same behind an upgrade. Each frame is also read without the machine, and unmasked byte by byte.
pub fn websocket(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let rules = rules(&mut input);
    let mut frames = input;
    check_splits(&rules, &mut input, UPGRADE);
    let sizes = frames.bytes();
    check_frames(frames.rest(), 1 << (sizes.len() % 20));
}

/// Rules with low bounds, so that few bytes meet them.
fn rules(input: &mut Input<'_>) -> Rules {
    let mut config = Config {
        dialect: *input.pick(&[Dialect::Pomelo, Dialect::Pinus]),
        ..Config::default()
    };
    config.client.package_bytes_max = *input.pick(&[100, 1000, 1 << 20]);
    config.client.handshake_bytes_max = *input.pick(&[40, 1 << 14]);
    config.client.fragments_max = *input.pick(&[None, Some(3)]);
    config.client.health_path = Some("/health".into());
    if input.one_in(4) {
        config.client.trusted_proxies = vec![PROXY.to_string()];
        match input.one_in(2) {
            true => config.client.proxy_protocol = true,
            false => config.client.real_ip_header = Some("X-Forwarded-For".into()),
        }
    }
    let proxies = Proxies::new(&config.client).expect("the address is right");
    let page = *input.pick(PAGES);
    Rules::new(&config, page, proxies)
}

/// The rules of a listener, which for a few numbers takes one transport alone.
fn listener(number: usize) -> ListenerRules {
    let transports = match number % 8 {
        1 => Transports {
            tcp: false,
            ..Transports::ALL
        },
        2 => Transports {
            websocket: false,
            ..Transports::ALL
        },
        _ => Transports::ALL,
    };
    ListenerRules::new(&ClientListener {
        transports,
        ..ClientListener::default()
    })
}

/// Feeds `start` and the rest of the input as a whole, and the rest also byte by byte, and as the next bytes of the input say.
fn check_splits(rules: &Rules, input: &mut Input<'_>, start: &[u8]) {
    let sizes = input.bytes();
    let bytes = [start, input.rest()].concat();
    // The first chunk alone tells HTTP from raw TCP, also behind the header of a proxy.
    let header = match rules.proxies.borrow().send_header() {
        true => proxy_header::decode(&bytes).ok().flatten(),
        false => None,
    };
    let listener = listener(sizes.len());
    let first = start.len().max(header.map_or(0, |header| header.bytes) + 4);
    let whole = Connection::feed(rules, &listener, &bytes, |_| bytes.len());
    let mut sizes = sizes.iter().map(|size| usize::from(*size) + 1);
    let by_sizes = Connection::feed(rules, &listener, &bytes, |at| match at {
        0 => first,
        _ => sizes.next().unwrap_or(bytes.len()),
    });
    assert_eq!(by_sizes, whole);
    if bytes.len() < 4096 {
        let by_bytes = Connection::feed(
            rules,
            &listener,
            &bytes,
            |at| if at == 0 { first } else { 1 },
        );
        assert_eq!(by_bytes, whole);
    }
}

/// The machine of a connection and all that came of its bytes.
#[derive(Default)]
struct Connection {
    machine: ClientMachine,
    /// The events, as text.
    events: String,
    /// The bytes to send.
    out: Vec<u8>,
}

impl Connection {
    /// Feeds all bytes, in chunks whose size `size` tells from the place of their begin. Returns events and answers.
    fn feed(
        rules: &Rules,
        listener: &ListenerRules,
        bytes: &[u8],
        mut size: impl FnMut(usize) -> usize,
    ) -> (String, String) {
        let opener = Opener::of(listener, &rules.proxies.borrow(), PROXY);
        let mut connection = Self {
            machine: ClientMachine::new(listener, opener),
            ..Self::default()
        };
        let (mut at, mut buffer) = (0, Vec::new());
        while at < bytes.len() {
            let end = bytes.len().min(at + size(at));
            buffer.extend_from_slice(&bytes[at..end]);
            at = end;
            let used = connection.receive(rules, &mut buffer);
            buffer.drain(..used);
            connection.check_memory(rules, &buffer);
        }
        (connection.events, connection.out.escape_ascii().to_string())
    }

    /// Takes all whole units off the front; returns their bytes.
    fn receive(&mut self, rules: &Rules, buffer: &mut [u8]) -> usize {
        let mut at = 0;
        loop {
            let mut machine = std::mem::take(&mut self.machine);
            let received = machine.receive(rules, &mut buffer[at..]);
            match received {
                Ok(None) => {
                    self.machine = machine;
                    return at;
                }
                Ok(Some((used, event))) => {
                    if let Some(event) = event {
                        self.event(rules, &mut machine, event);
                    }
                    at += used;
                }
                Err(reason) => self.close(rules, &mut machine, reason),
            }
            self.machine = machine;
            if self.machine.state() == ClientState::Closed {
                return buffer.len();
            }
        }
    }

    /// Does for an event what a shard does.
    fn event(&mut self, rules: &Rules, machine: &mut ClientMachine, event: ClientEvent<'_>) {
        let _ = writeln!(self.events, "{event:?}");
        match event {
            ClientEvent::Connected(connected) => self.out.extend(connected.answer),
            ClientEvent::Handshake(body) => match HandshakeRequest::parse(body) {
                Some(_) => {
                    self.out.extend(handshake::accepted(b"{}"));
                    machine.accept();
                }
                None => {
                    self.out.extend_from_slice(handshake::FAILED);
                    self.close(rules, machine, CloseReason::Handshake);
                }
            },
            ClientEvent::Assembled(message) => match machine.assembled(rules, &message) {
                Ok(event) => self.event(rules, machine, event),
                Err(reason) => self.close(rules, machine, reason),
            },
            ClientEvent::Ping(payload) => {
                websocket::header(Opcode::Pong, payload.len()).write(&mut self.out);
                self.out.extend_from_slice(payload);
            }
            ClientEvent::Goodbye(code) => {
                websocket::write_close(&mut self.out, code);
                self.close(rules, machine, CloseReason::Left);
            }
            ClientEvent::Answered(answer, reason) => {
                self.out.extend(answer);
                self.close(rules, machine, reason);
            }
            ClientEvent::Proxied(_)
            | ClientEvent::Acked
            | ClientEvent::Heartbeat
            | ClientEvent::Message(_)
            | ClientEvent::Ignored
            | ClientEvent::Dropped => {}
        }
    }

    fn close(&mut self, rules: &Rules, machine: &mut ClientMachine, reason: CloseReason) {
        let _ = writeln!(self.events, "closed: {reason:?}");
        machine.write_goodbye(rules, reason, &mut self.out);
        machine.close();
    }

    /// Checks that the bytes that wait, and the fragments of a message, are within the bounds of their state.
    fn check_memory(&self, rules: &Rules, rest: &[u8]) {
        let machine = &self.machine;
        if machine.state() == ClientState::Closed {
            return assert_eq!(machine.held(), 0);
        }
        let body = match machine.state() {
            ClientState::Working => rules.package_bytes_max.get(),
            _ => rules.handshake_bytes_max.get(),
        };
        let payload = WEBSOCKET_CONTROL_BYTES_MAX.max(body + HEAD_BYTES);
        let most = match machine.transport() {
            Transport::Proxied => PROXY_HEADER_BYTES_MAX,
            Transport::Http => HTTP_HEAD_BYTES_MAX,
            Transport::Tls | Transport::Undecided | Transport::Raw => body + HEAD_BYTES,
            Transport::WebSocket => payload + FRAME_HEAD_BYTES_MAX,
        };
        assert!(rest.len() < most, "{} bytes wait", rest.len());
        // A growing buffer may be twice as large as its bytes, but never smaller than some bytes.
        assert!(machine.held() <= 2 * (body + HEAD_BYTES) + 64);
        assert!(machine.announced_bytes(rest) <= 2 * payload);
        // The first fragment may be empty.
        let holds = !rest.is_empty() || machine.held() > 0;
        assert!(machine.is_waiting(rest) || !holds);
    }
}

/// Reads frames by their definition, slowly, and compares.
fn check_frames(bytes: &[u8], payload_bytes_max: usize) {
    let mut rest = bytes.to_vec();
    for _ in 0..64 {
        let before = rest.clone();
        let Ok(Some(frame)) = websocket::decode(&mut rest, payload_bytes_max) else {
            return;
        };
        let (first, second) = (before[0], before[1]);
        let (length_at, length) = match second & 0x7f {
            126 => (2, before[2..4].iter()),
            127 => (2, before[2..10].iter()),
            _ => (1, before[1..2].iter()),
        };
        let mask_at = length_at + length.len();
        let length = length.fold(0, |sum: u64, byte| {
            let byte = if length_at == 1 { byte & 0x7f } else { *byte };
            sum << 8 | u64::from(byte)
        });
        let mask = &before[mask_at..mask_at + 4];
        let start = mask_at + 4;
        assert_eq!(frame.payload, start..start + length as usize);
        assert_eq!(frame.end, frame.payload.end);
        assert_eq!(
            (frame.fin, frame.opcode as u8),
            (first & 0x80 != 0, first & 0x7f)
        );
        let most = if frame.opcode.is_control() {
            125
        } else {
            payload_bytes_max
        };
        assert!(frame.payload.len() <= most);
        let masks = mask.iter().cycle();
        let unmasked = before[frame.payload.clone()].iter().zip(masks);
        let unmasked: Vec<u8> = unmasked.map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(rest[frame.payload.clone()], unmasked);
        assert_eq!(rest[frame.end..], before[frame.end..]);
        rest.drain(..frame.end);
    }
}

/// A head of HTTP has one meaning as soon as it is whole; the answer to it is HTTP; and a proxy can tell an address in it.
pub fn http(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let rules = HttpRules {
        page: *input.pick(PAGES),
        health_path: Some("/health".into()),
        health: (*input.pick(&[Health::Joining, Health::Serving, Health::Stopping])).into(),
        takes_any_key: input.one_in(2),
    };
    let head = input.rest();
    check_prefixes(head, |input| {
        let request = websocket::parse_request(input, rules.takes_any_key);
        request.transpose()
    });
    match transport::http(head, &rules) {
        Http::Wait => assert!(head.len() < HTTP_HEAD_BYTES_MAX),
        Http::Upgraded(end, answer) => {
            assert!(end <= head.len().min(HTTP_HEAD_BYTES_MAX));
            check_response(&answer, 101);
        }
        Http::Answered(answer, _) => check_response(&answer, 200),
    }
    let mut config = Config::default();
    config.client.trusted_proxies = vec!["10.0.0.0/8".into()];
    for name in ["X-Forwarded-For", "Forwarded"] {
        config.client.real_ip_header = Some(name.into());
        config.client.real_port_header = Some("X-Forwarded-Port".into());
        let proxies = Proxies::new(&config.client).expect("the address is right");
        let client = proxies.client_of(head);
        let ip = client.map(|client| client.ip());
        assert_eq!(
            ip,
            ip.map(|ip| ip.to_canonical()),
            "an IPv4 address in its IPv6 form"
        );
        let has_header = websocket::http_header(head, name).is_some();
        assert!(has_header || client.is_none());
    }
}

/// Checks that an answer is HTTP, as another reader sees it.
fn check_response(answer: &[u8], status_min: u16) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(answer).expect("it is HTTP");
    assert!(parsed.is_complete());
    let code = response.code.expect("it has a status");
    assert!(
        code == status_min || status_min != 101 && code >= status_min,
        "status {code}"
    );
}

/// The header of a proxy has one meaning as soon as it is whole, and a bound.
pub fn proxy(bytes: &[u8]) {
    check_prefixes(bytes, |input| proxy_header::decode(input).transpose());
    match proxy_header::decode(bytes) {
        Ok(Some(header)) => {
            assert!(header.bytes <= bytes.len().min(PROXY_HEADER_BYTES_MAX));
            let ip = header.client.map(|client| client.ip());
            assert_eq!(ip, ip.map(|ip| ip.to_canonical()));
            let exact = proxy_header::decode(&bytes[..header.bytes]);
            assert_eq!(exact, Ok(Some(header)));
        }
        Ok(None) => assert!(bytes.len() < PROXY_HEADER_BYTES_MAX),
        Err(_) => {}
    }
}
