//! Routing: what finding the way of one message costs.

use std::fmt::Debug;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tangelo::config::Dialect;
use tangelo::route::balance::default_route;
use tangelo::route::dictionary::Dictionary;
use tangelo::route::{Routes, Target};

/// Calls `run` once, holds its result against `expected`, then times it.
fn bench<T: PartialEq + Debug>(
    c: &mut Criterion,
    name: &str,
    expected: T,
    mut run: impl FnMut() -> T,
) {
    assert_eq!(run(), expected, "{name}");
    let mut group = c.benchmark_group("route");
    group.throughput(Throughput::Elements(1));
    group.bench_function(name, |b| b.iter(&mut run));
    group.finish();
}

/// Routes of 50 handlers, as a middle-sized game has.
fn handlers() -> Vec<String> {
    let methods = ["enter", "leave", "query", "update", "echo"];
    let handler = |number| methods.map(|method| format!("connector.e{number}Handler.{method}"));
    (0..10).flat_map(handler).collect()
}

fn resolve(c: &mut Criterion) {
    let handlers = handlers();
    let routes = Routes::new("connector", handlers.iter().map(String::as_str));
    for (name, route, target) in [
        (
            "resolve/local",
            "connector.e4Handler.query",
            Target::Local(22),
        ),
        ("resolve/remote", "chat.chatHandler.send", Target::Remote),
        (
            "resolve/no such handler",
            "connector.e4Handler.absent",
            Target::NoHandler,
        ),
        ("resolve/malformed", "chat.chatHandler", Target::Malformed),
    ] {
        bench(c, name, target, || {
            routes.resolve(black_box(route.as_bytes()))
        });
    }

    let dictionary = Dictionary::new(handlers.iter().map(String::as_str), ["onChat", "onLeave"]);
    bench(c, "dictionary/route of a code", Some("onChat"), || {
        dictionary.route(black_box(51))
    });
    bench(c, "dictionary/code of a route", Some(51), || {
        dictionary.code(black_box("onChat"))
    });
}

fn balance(c: &mut Criterion) {
    for (name, dialect, uid, index) in [
        (
            "default_route/pomelo, \"10001\"",
            Dialect::Pomelo,
            "10001",
            0,
        ),
        ("default_route/pinus, \"10001\"", Dialect::Pinus, "10001", 0),
        (
            "default_route/pomelo, 24 characters",
            Dialect::Pomelo,
            "5f8d0d55b54764421b7156c9",
            1,
        ),
        (
            "default_route/pinus, 24 characters",
            Dialect::Pinus,
            "5f8d0d55b54764421b7156c9",
            1,
        ),
    ] {
        bench(c, name, index, || {
            default_route(dialect, black_box(uid), black_box(5))
        });
    }
}

criterion_group! {
    name = route;
    config = Criterion::default()
        .without_plots()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = resolve, balance
}
criterion_main!(route);
