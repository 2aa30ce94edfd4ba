//! No client bytes end a shard, whoever chose them: chance, a bad line, or a network that cuts
//! everywhere. A failing seed is printed; `E2E_SEED=… cargo test --test e2e random` replays it.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::harness::bystander::{Attacked, ECHO};
use crate::harness::client::{Client, DATA, encode_package};
use crate::harness::frames::{
    self, ACCEPT, BINARY, CONTINUATION, FIN, PING, TEXT, UPGRADE, ack, binary, connect, frame,
    handshake, heartbeat, request,
};
use crate::harness::random::Random;

/// Connections with random bytes on each number of shards, for each transport.
const CONNECTIONS: u64 = 600;

/// Connections with flipped bits, likewise.
const FLIPPED: u64 = 300;

/// Between two pieces of a stream: long enough for the first to be read alone as a rule.
const PIECE_PAUSE: Duration = Duration::from_millis(10);

/// Connections that wait for this pause together.
const BATCH: usize = 400;

impl Random {
    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    /// Short as a rule, now and then longer than any buffer.
    fn bytes(&mut self) -> Vec<u8> {
        let longest = *self.pick(&[4, 16, 64, 300, 5_000, 140_000]);
        (0..self.below(longest)).map(|_| self.byte()).collect()
    }

    fn package(&mut self) -> Vec<u8> {
        let body = match self.below(3) {
            0 => self.bytes(),
            1 => self.message(),
            _ => self.jsonish(),
        };
        encode_package(self.below(7) as u8, &body)
    }

    /// A message with a random flag and much else that is right.
    fn message(&mut self) -> Vec<u8> {
        let mut message = vec![self.byte()];
        message.extend((0..self.below(7)).map(|_| self.byte()));
        if self.one_in(2) {
            message.push(ECHO.len() as u8);
            message.extend(ECHO.as_bytes());
        }
        message.extend(self.jsonish());
        message
    }

    /// Bytes that a JSON reader has to look at.
    fn jsonish(&mut self) -> Vec<u8> {
        const PIECES: [&[u8]; 16] = [
            b"{",
            b"}",
            b"[",
            b"]",
            b":",
            b",",
            b"\"",
            b"\\",
            b"\\u12",
            b"0",
            b"-1e9",
            b"null",
            b"\"sys\"",
            b"\xff",
            b"\xe2\x82",
            b" ",
        ];
        let count = self.below(40);
        let mut pieces = (0..count).map(|_| PIECES[self.below(16)]);
        let mut bytes = Vec::new();
        pieces.by_ref().for_each(|piece| bytes.extend(piece));
        bytes
    }

    fn frame(&mut self) -> Vec<u8> {
        let package = self.package();
        let first = match self.below(4) {
            0 => self.byte(),
            1 => [TEXT, BINARY, CONTINUATION, FIN | CONTINUATION][self.below(4)],
            _ => FIN | BINARY,
        };
        let short = &package[..package.len().min(125)];
        frame(first, if first & 8 == 8 { short } else { &package })
    }

    fn flip_some_bits(&mut self, bytes: &mut [u8]) {
        for _ in 0..1 + self.below(8) {
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.below(8);
        }
    }
}

/// Sends a stream, in pieces or not, and waits until the connection has ended.
fn send_and_end(random: &mut Random, client: &mut Client, bytes: &[u8]) {
    let (first, second) = bytes.split_at(random.below(bytes.len() + 1));
    if frames::write_anyway(client.stream(), first) {
        frames::write_anyway(client.stream(), second);
    }
    // All that still comes must be packages, which the client checks.
    let _ = client.stream().shutdown(std::net::Shutdown::Write);
    while client.next_package().is_some() {}
}

fn on_one_shard_and_on_four(mut test: impl FnMut(&mut Attacked, &mut Random)) {
    let mut random = Random::from_seed("E2E_SEED");
    for shards in [1, 4] {
        let mut attacked = Attacked::start(shards, &["--set", "client.package_bytes_max=64KiB"]);
        test(&mut attacked, &mut random);
        attacked.finish();
    }
}

#[test]
fn random_bytes_end_their_own_connection_only() {
    on_one_shard_and_on_four(|attacked, random| {
        attacked.attack_somehow("bytes over TCP", CONNECTIONS, |address| {
            for turn in 0..CONNECTIONS {
                let mut client = Client::tcp(address);
                if turn % 3 > 0 {
                    client = client.open();
                }
                let count = random.below(6);
                let bytes: Vec<u8> = match turn % 2 {
                    0 => random.bytes(),
                    _ => (0..count).flat_map(|_| random.package()).collect(),
                };
                send_and_end(random, &mut client, &bytes);
            }
        });
        attacked.attack_somehow("bytes over WebSocket", CONNECTIONS, |address| {
            for turn in 0..CONNECTIONS {
                let mut client = Client::websocket(address);
                if turn % 3 > 0 {
                    client = client.open();
                }
                let count = random.below(6);
                let bytes: Vec<u8> = match turn % 4 {
                    0 => random.bytes(),
                    1 => (0..count).flat_map(|_| binary(&random.package())).collect(),
                    _ => (0..count).flat_map(|_| random.frame()).collect(),
                };
                send_and_end(random, &mut client, &bytes);
            }
        });
    });
}

/// A client's whole life, as packages.
fn life() -> Vec<Vec<u8>> {
    let mut packages = vec![handshake(), ack(), heartbeat()];
    packages.extend((1..4).map(|id| request(id, ECHO, br#"{"a":["b",1.5e3]}"#)));
    packages.push(heartbeat());
    packages
}

#[test]
fn a_stream_with_flipped_bits_ends_its_own_connection_only() {
    on_one_shard_and_on_four(|attacked, random| {
        let packages = life();
        attacked.attack_somehow("flipped packages", FLIPPED, |address| {
            for _ in 0..FLIPPED {
                let mut bytes = packages.concat();
                random.flip_some_bits(&mut bytes);
                // A flipped first byte can be the start of a method, never all of it.
                send_and_end(random, &mut Client::tcp(address), &bytes);
            }
        });
        let frames: Vec<u8> = packages
            .iter()
            .flat_map(|package| binary(package))
            .collect();
        attacked.attack_somehow("flipped frames", FLIPPED, |address| {
            for _ in 0..FLIPPED {
                let mut bytes = frames.clone();
                random.flip_some_bits(&mut bytes);
                send_and_end(random, &mut Client::websocket(address), &bytes);
            }
        });
        attacked.attack_somehow("flipped upgrades", FLIPPED, |address| {
            for _ in 0..FLIPPED {
                let mut bytes = UPGRADE.as_bytes().to_vec();
                random.flip_some_bits(&mut bytes);
                bytes.extend(&frames);
                let stream = connect(address);
                frames::write_anyway(&stream, &bytes);
                frames::half_close_and_drain(&stream);
            }
        });
    });
}

/// One client's bytes, and all that it gets for them.
struct Life {
    sent: Vec<u8>,
    answered: Vec<u8>,
}

fn raw_life() -> Life {
    let answers = [
        &br#"{"code":200,"sys":{}}"#[..],
        b"\x04\x05{}",
        b"\x04\x06[]",
    ];
    let kinds = [1, DATA, DATA];
    let answered = kinds.iter().zip(answers);
    Life {
        sent: [
            handshake(),
            ack(),
            request(5, ECHO, b"{}"),
            request(6, ECHO, b"[]"),
        ]
        .concat(),
        answered: answered
            .flat_map(|(kind, body)| encode_package(*kind, body))
            .collect(),
    }
}

fn websocket_life() -> Life {
    let ping = frame(FIN | PING, b"p");
    let half = request(5, ECHO, b"{}");
    let (first, second) = half.split_at(10);
    let sent = [
        binary(&handshake()),
        frame(FIN | TEXT, &ack()),
        ping,
        frame(BINARY, first),
        frame(FIN | CONTINUATION, second),
    ];
    let mut answered = vec![FIN | BINARY, 25];
    answered.extend(encode_package(1, br#"{"code":200,"sys":{}}"#));
    answered.extend([0x8a, 1, b'p', FIN | BINARY, 8, 4, 0, 0, 4, 4, 5, b'{', b'}']);
    Life {
        sent: sent.concat(),
        answered,
    }
}

/// Sends a life once for each list of places to cut it at; every one must get the whole answer.
fn cut_everywhere(
    address: SocketAddr,
    life: &Life,
    cuts: &[Vec<usize>],
    connect: impl Fn(SocketAddr) -> TcpStream,
) {
    for batch in cuts.chunks(BATCH) {
        let lives = batch.iter().map(|cuts| (connect(address), cuts));
        let lives: Vec<(TcpStream, &Vec<usize>)> = lives.collect();
        let pieces = batch.iter().map(Vec::len).max().unwrap_or_default() + 1;
        for piece in 0..pieces {
            for (stream, cuts) in &lives {
                let edges: Vec<usize> = [&[0], &cuts[..], &[life.sent.len()]].concat();
                if let Some(&[start, end]) = edges.get(piece..piece + 2) {
                    assert!(
                        frames::write_anyway(stream, &life.sent[start..end]),
                        "{cuts:?}"
                    );
                }
            }
            thread::sleep(PIECE_PAUSE);
        }
        for (stream, cuts) in &lives {
            let answered = frames::read_exactly(stream, life.answered.len());
            assert_eq!(answered, life.answered, "cut at {cuts:?}");
            assert_eq!(frames::half_close_and_drain(stream), b"", "cut at {cuts:?}");
        }
    }
}

/// Every byte, and every two bytes, and all at once.
fn all_cuts(range: std::ops::Range<usize>) -> Vec<Vec<usize>> {
    let mut cuts: Vec<Vec<usize>> = range.clone().map(|at| vec![at]).collect();
    let pairs = range
        .clone()
        .flat_map(|a| (a + 1..range.end).map(move |b| vec![a, b]));
    cuts.extend(pairs);
    cuts.push(range.collect());
    cuts
}

#[test]
fn a_raw_session_may_be_cut_at_every_two_bytes() {
    on_one_shard_and_on_four(|attacked, _| {
        let life = raw_life();
        let cuts = all_cuts(1..life.sent.len());
        attacked.attack("cuts", &[("closed_left", cuts.len() as u64)], |address| {
            cut_everywhere(address, &life, &cuts, connect);
        });
    });
}

#[test]
fn a_websocket_session_may_be_cut_at_every_two_bytes() {
    on_one_shard_and_on_four(|attacked, _| {
        let life = websocket_life();
        let cuts = all_cuts(1..life.sent.len());
        attacked.attack("cuts", &[("closed_left", cuts.len() as u64)], |address| {
            cut_everywhere(address, &life, &cuts, |address| {
                let stream = connect(address);
                frames::upgrade(&stream);
                stream
            });
        });
    });
}

#[test]
fn an_upgrade_may_be_cut_behind_its_method_and_not_inside() {
    on_one_shard_and_on_four(|attacked, _| {
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        );
        let session = websocket_life();
        let life = Life {
            sent: [UPGRADE.as_bytes(), &session.sent].concat(),
            answered: [answer.as_bytes(), &session.answered].concat(),
        };
        let mut cuts: Vec<Vec<usize>> = (4..life.sent.len()).map(|at| vec![at]).collect();
        cuts.push((4..life.sent.len()).collect());
        attacked.attack("cuts", &[("closed_left", cuts.len() as u64)], |address| {
            cut_everywhere(address, &life, &cuts, connect);
        });

        let cut_inside = [1, 2].map(|at| {
            let stream = connect(attacked.address());
            frames::write_anyway(&stream, &UPGRADE.as_bytes()[..at]);
            (stream, at)
        });
        // Answers to later requests of others: the first piece has been read by now.
        attacked.assert_unharmed();
        attacked.attack("cut method", &[("closed_package_type", 2)], |_| {
            for (stream, at) in cut_inside {
                frames::write_anyway(&stream, &UPGRADE.as_bytes()[at..]);
                assert_eq!(frames::read_to_end(&stream), b"");
            }
        });
    });
}
