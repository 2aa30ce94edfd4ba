//! Protobuf: what one compressed body costs, JSON text on one side and bytes on the other.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use tangelo::wire::protobuf::{Flavour, Schema};

/// A move in a game: numbers, a name, a path of points. Pinus: with flags and a table as well.
fn protos(flavour: Flavour) -> Value {
    let mut route = json!({
        "message Path": {"required uInt32 x": 1, "required uInt32 y": 2},
        "required string entityId": 1,
        "repeated Path path": 2,
        "required uInt32 speed": 3,
        "optional sInt32 dx": 4,
        "optional double angle": 5,
        "repeated uInt32 targets": 6,
    });
    if flavour == Flavour::Pinus {
        route["message KV"] = json!({"required string key": 1, "required uInt32 value": 2});
        route["optional bool running"] = json!(7);
        route["obj KV stock"] = json!(8);
    }
    json!({ "onMove": route })
}

fn body(flavour: Flavour, points: u32) -> String {
    let point = |n| json!({"x": 10 + n * 37, "y": 20 + n * 101});
    let mut body = json!({
        "entityId": "monster-1024",
        "path": (0..points).map(point).collect::<Vec<_>>(),
        "speed": 80,
        "dx": -12,
        "angle": 1.2566370614359172,
        "targets": [1, 300, 70_000],
    });
    if flavour == Flavour::Pinus {
        body["running"] = json!(true);
        body["stock"] = json!({"wood": 12, "iron": 300});
    }
    body.to_string()
}

fn protobuf(c: &mut Criterion) {
    for (name, flavour) in [("pomelo", Flavour::Pomelo), ("pinus", Flavour::Pinus)] {
        let schema = Schema::parse(flavour, &protos(flavour)).expect("a schema that works");
        let proto = schema.proto("onMove").expect("the route has a proto");
        for points in [2, 100] {
            let body = body(flavour, points);
            let (mut bytes, mut text) = (Vec::new(), Vec::new());
            assert_eq!(proto.encode(body.as_bytes(), &mut bytes), Ok(true));
            assert_eq!(proto.decode(&bytes, &mut text), Ok(true));
            assert_eq!(String::from_utf8_lossy(&text), body);

            let mut group = c.benchmark_group(format!("protobuf/{name}"));
            group.throughput(Throughput::Bytes(body.len() as u64));
            let mut out = Vec::new();
            group.bench_function(format!("encode/{points} points"), |b| {
                b.iter(|| {
                    out.clear();
                    proto.encode(black_box(body.as_bytes()), &mut out)
                });
            });
            group.bench_function(format!("decode/{points} points"), |b| {
                b.iter(|| {
                    out.clear();
                    proto.decode(black_box(&bytes), &mut out)
                });
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = protobuf
}
criterion_main!(benches);
