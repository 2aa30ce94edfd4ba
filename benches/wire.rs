//! Formats: what reading and writing one unit costs.

use std::fmt::Debug;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tangelo::limits::{PACKAGE_BODY_BYTES_MAX, READ_BUFFER_BYTES, RPC_FRAME_BYTES_MAX};
use tangelo::wire::message::{self, Message, MessageRoute};
use tangelo::wire::package::{self, PackageKind};
use tangelo::wire::pomelo::mqtt::{self, Packet};
use tangelo::wire::pomelo::rpc::{self, Forward, SessionExport};
use tangelo::wire::websocket::{self, Frame, Opcode};
use tangelo::wire::{json, varint};

#[cfg(feature = "runtime")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUTE: &str = "chat.chatHandler.send";
/// 64 bytes, as a small game message is.
const SMALL: &[u8] = br#"{"content":"hello, everybody","target":"*","from":"alice","n":7}"#;
/// 300 bytes with every kind of value.
const MEDIUM: &[u8] = br#"{"rid":"room-1017","from":{"uid":"10001","name":"alice","level":17,"vip":true},"to":null,"content":"a line of chat as people write it, with a \"quote\" and a smile \u263a","position":[12.5,-3,24.7],"items":[{"id":1001,"count":3},{"id":1002,"count":1}],"flags":[],"time":1400000000000,"checked":false}"#;

/// Calls `run` once, holds its result against `expected`, then times it.
fn bench<T: PartialEq + Debug>(
    c: &mut Criterion,
    name: &str,
    throughput: Throughput,
    expected: T,
    mut run: impl FnMut() -> T,
) {
    assert_eq!(run(), expected, "{name}");
    let mut group = c.benchmark_group("wire");
    group.throughput(throughput);
    group.bench_function(name, |b| b.iter(&mut run));
    group.finish();
}

const ONE: Throughput = Throughput::Elements(1);

fn packages(c: &mut Criterion) {
    let mut input = Vec::new();
    let mut expected = (0, 0);
    loop {
        // 64 bytes on average, of different lengths.
        let body = [b'x'; 72].split_at(48 + expected.0 * 7 % 25).0;
        if input.len() + package::HEAD_BYTES + body.len() > READ_BUFFER_BYTES {
            break;
        }
        assert!(package::write(&mut input, PackageKind::Data, body));
        expected = (expected.0 + 1, expected.1 + body.len());
    }
    let count = Throughput::Elements(expected.0 as u64);
    bench(c, "package/decode a full read", count, expected, || {
        let mut rest = black_box(&input[..]);
        let (mut count, mut bytes) = (0, 0);
        while let Ok(Some(package)) = package::decode(rest, PACKAGE_BODY_BYTES_MAX) {
            count += 1;
            bytes += package.body.len();
            rest = &rest[package.bytes()..];
        }
        (count, bytes)
    });
}

fn messages(c: &mut Criterion) {
    for (name, route) in [
        (
            "message/decode, route as text",
            MessageRoute::Text(ROUTE.as_bytes()),
        ),
        ("message/decode, route as code", MessageRoute::Code(7)),
    ] {
        let request = Message {
            id: 300,
            kind: message::MessageKind::Request,
            route,
            gzip: false,
            body: SMALL,
        };
        let mut bytes = Vec::new();
        assert_eq!(message::write(&mut bytes, &request), Ok(()));
        bench(c, name, ONE, Ok(request), || {
            message::decode(black_box(&bytes))
        });
    }

    let mut out = Vec::new();
    let bytes = package::HEAD_BYTES + 1 + varint::len(300) + SMALL.len();
    bench(c, "message/write a response", ONE, bytes, || {
        out.clear();
        message::write_response(&mut out, black_box(300), black_box(SMALL));
        out.len()
    });

    let bytes = package::HEAD_BYTES + 1 + 1 + ROUTE.len() + SMALL.len();
    bench(c, "message/encode a push", ONE, Ok(bytes), || {
        let route = MessageRoute::Text(black_box(ROUTE.as_bytes()));
        message::push_package(route, black_box(SMALL)).map(|package| black_box(package).len())
    });
}

/// A client's frame, and where its payload lies.
fn client_frame(payload: &[u8]) -> (Vec<u8>, Frame) {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = websocket::header(Opcode::Binary, payload.len())
        .as_slice()
        .to_vec();
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&MASK);
    let start = bytes.len();
    let masked = payload.iter().zip(MASK.iter().cycle());
    bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
    let frame = Frame {
        fin: true,
        opcode: Opcode::Binary,
        payload: start..bytes.len(),
        end: bytes.len(),
    };
    (bytes, frame)
}

fn websocket(c: &mut Criterion) {
    for (name, payload_bytes) in [
        ("websocket/decode 64 bytes", 64),
        ("websocket/decode 1 KiB", 1024),
    ] {
        let payload: Vec<u8> = (0..payload_bytes).map(|index| index as u8).collect();
        let (mut bytes, frame) = client_frame(&payload);
        let mut plain = bytes.clone();
        assert!(websocket::decode(&mut plain, payload_bytes).is_ok());
        assert_eq!(plain[frame.payload.clone()], payload);
        let throughput = Throughput::Bytes(payload_bytes as u64);
        // Every other time it is masked, not unmasked: the same work.
        bench(c, name, throughput, Ok(Some(frame)), || {
            websocket::decode(black_box(&mut bytes), payload_bytes)
        });
    }
}

fn json(c: &mut Criterion) {
    assert_eq!((SMALL.len(), MEDIUM.len()), (64, 300));
    for (name, text) in [
        ("json/validate 64 bytes", SMALL),
        ("json/validate 300 bytes", MEDIUM),
    ] {
        let throughput = Throughput::Bytes(text.len() as u64);
        bench(c, name, throughput, Ok(()), || {
            json::validate(black_box(text))
        });
    }

    let mut out = Vec::new();
    let added = SMALL.len() + b",\"code\":500".len();
    bench(c, "json/with_error_code adds it", ONE, added, || {
        out.clear();
        json::with_error_code(&mut out, black_box(SMALL));
        out.len()
    });
    let coded = br#"{"code":501,"message":"the room is full","route":"chat.h.enter"}"#;
    bench(c, "json/with_error_code keeps it", ONE, coded.len(), || {
        out.clear();
        json::with_error_code(&mut out, black_box(coded));
        out.len()
    });
}

fn calls(c: &mut Criterion) {
    let forward = Forward {
        server_type: "\"chat\"",
        message_id: 300,
        kind: 0,
        compressed: false,
        route: ROUTE,
        body: SMALL,
        gzip: false,
        session: SessionExport {
            id: 1 << 40,
            frontend_id: "\"connector-1\"",
            uid: "\"10001\"",
            settings: r#"{"rid":"room-1017","chat":"chat-server-1"}"#,
        },
        address: None,
        frontend: None,
    };
    let mut frame = Vec::new();
    rpc::write_forward(&mut frame, 7, &forward);
    let call = serde_json::from_slice::<serde_json::Value>(payload(&frame));
    let call = call.expect("a forward is JSON");
    assert_eq!(call["msg"]["args"][0]["body"]["from"], "alice");
    assert_eq!(call["msg"]["args"][1]["uid"], "10001");
    let mut out = Vec::new();
    bench(c, "rpc/write a forward", ONE, frame.len(), || {
        out.clear();
        rpc::write_forward(&mut out, black_box(7), black_box(&forward));
        out.len()
    });

    let small = SMALL.to_vec();
    let member = [&b"{\"player\":"[..], MEDIUM, b"}"].concat();
    let large = [&b"["[..], &vec![&member[..]; 33].join(&b","[..]), b"]"].concat();
    assert!((10_000..11_000).contains(&large.len()));
    for (name, value) in [
        ("rpc/read an answer of 64 bytes", small),
        ("rpc/read an answer of 10 KB", large),
    ] {
        let mut frame = Vec::new();
        mqtt::write_publish(&mut frame, |out| {
            out.extend_from_slice(b"{\"id\":300,\"resp\":[null,");
            out.extend_from_slice(&value);
            out.extend_from_slice(b",null]}");
        });
        let throughput = Throughput::Bytes(value.len() as u64);
        bench(c, name, throughput, Some((300, value.len())), || {
            let answer = rpc::answers(payload(black_box(&frame))).next()?.ok()?;
            let result = answer.result().ok()?;
            assert!(result.error.is_none());
            Some((answer.id?, result.value?.len()))
        });
    }
}

/// The payload of the RPC frame that the bytes are.
fn payload(frame: &[u8]) -> &[u8] {
    match mqtt::decode(frame, RPC_FRAME_BYTES_MAX) {
        Ok(Some((Packet::Publish { payload, .. }, bytes))) if bytes == frame.len() => payload,
        other => panic!("not one frame: {other:?}"),
    }
}

criterion_group! {
    name = wire;
    config = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = packages, messages, websocket, json, calls
}
criterion_main!(wire);
