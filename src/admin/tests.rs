//! Tests of the parent.

use std::time::{Duration, UNIX_EPOCH};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::header::HOST;
use axum::http::{HeaderValue, StatusCode};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::serve::AdminClient;
use super::*;

use crate::config::{Config, Master};
use crate::metrics::Measure;
use crate::shard::mesh;
use crate::tls::Expiry;

/// Makes the view of a gateway with one shard. `key` is `""`, `master` or `require_registry`.
pub(super) fn view(key: &str) -> View {
    let mut config = Config::default();
    if !key.is_empty() {
        config.master = Some(Master {
            host: "127.0.0.1".into(),
            port: 3005,
            token: None,
            info: serde_json::Map::new(),
            env: "development".into(),
        });
        config.admin.require_registry = key == "require_registry";
    }
    let config = Arc::new(CheckedConfig::new(config).unwrap());
    View {
        latest: Arc::new(ArcSwap::new(config.clone())),
        config,
        counters: Arc::new([Counters::default(), Counters::default()]),
        activities: vec![Arc::default()],
        stopper: Stopper::new(Vec::new()),
        operator: Operator(mesh::queues(1).0),
        expiries: Arc::new(ArcSwap::from_pointee(vec![Expiry {
            file: "/etc/tangelo/fullchain.pem".into(),
            valid: (UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1_893_456_000)),
            further: Vec::new(),
        }])),
        output: None,
        prober: Prober::new("127.0.0.1:0".parse().ok(), 1, Arc::default()),
        traces: Arc::default(),
        stands: AtomicBool::new(true),
    }
}

fn ready(view: &View) -> (u16, String) {
    let (status, text) = health::ready(view);
    (status.as_u16(), text)
}

#[test]
fn a_gateway_is_ready_from_its_start_to_its_stop() {
    let view = view("");
    view.stands.store(false, Ordering::Release);
    let starting = "not ready\nthe gateway is starting\n";
    assert_eq!(ready(&view), (503, starting.into()));
    view.stands.store(true, Ordering::Release);
    assert_eq!(ready(&view), (200, "ready\n".into()));
    view.stopper.drain();
    assert_eq!(
        ready(&view),
        (503, "not ready\nthe gateway drains\n".into())
    );
    view.stopper.stop();
    assert_eq!(ready(&view), (503, "not ready\nthe gateway stops\n".into()));
    assert_eq!(health::live(&view).0, StatusCode::OK);
}

#[test]
fn a_stalled_shard_is_neither_alive_nor_ready() {
    let view = view("");
    view.activities[0].set_stalled(true);
    let stalled = "shard 0 is stalled in the gateway itself\n";
    assert_eq!(ready(&view), (503, format!("not ready\n{stalled}")));
    let (status, text) = health::live(&view);
    assert_eq!(
        (status.as_u16(), text),
        (503, format!("not alive\n{stalled}"))
    );
    view.activities[0].set_stalled(false);
    assert_eq!(ready(&view).0, 200);
    assert_eq!(health::live(&view), (StatusCode::OK, "alive\n".into()));
}

#[test]
fn a_gateway_that_has_joined_once_is_ready_without_its_master_unless_it_requires_the_registry() {
    for (key, lost) in [
        (
            "master",
            (200, "ready\ndegraded: the link to the master is down\n"),
        ),
        (
            "require_registry",
            (503, "not ready\nthe link to the master is down\n"),
        ),
    ] {
        let view = view(key);
        let never = "not ready\nthe gateway has not joined the cluster of its master yet\n";
        assert_eq!(ready(&view), (503, never.into()));
        view.counters[0].add(Counter::RegistryJoins, 1);
        view.counters[0].set(Counter::RegistryJoined, 1);
        assert_eq!(ready(&view), (200, "ready\n".into()));
        view.counters[0].set(Counter::RegistryJoined, 0);
        assert_eq!(ready(&view), (lost.0, lost.1.into()));
    }
}

#[test]
fn each_counter_is_a_metric_of_its_kind() {
    let view = view("");
    view.counters[0].add(Counter::Requests, 7);
    view.counters[0].set(Counter::Connections, 3);
    view.counters[1].add(Counter::Stalls, 2);
    view.counters[0].closed(crate::error::CloseReason::Kicked);
    view.counters[0].record(Measure::Flush, 100);
    view.counters[0].name_type(0, "chat");
    view.counters[0].record_call(0, Duration::from_micros(3));
    let text = Exposition::new(Arc::new(view)).open_metrics();
    for line in [
        "tangelo_requests_total{shard=\"0\"} 7",
        "tangelo_connections{shard=\"0\"} 3",
        "tangelo_stalls_total 2",
        "tangelo_connections_closed_total{reason=\"kicked\",shard=\"0\"} 1",
        concat!(
            "tangelo_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\",commit=\"unknown\"} 1"
        ),
        "tangelo_ready 1",
        "tangelo_flush_bytes_sum{shard=\"0\"} 100.0",
        "tangelo_flush_bytes_bucket{le=\"64.0\",shard=\"0\"} 0",
        "tangelo_flush_bytes_bucket{le=\"128.0\",shard=\"0\"} 1",
        "tangelo_rpc_seconds_bucket{le=\"0.000004\",server_type=\"chat\",shard=\"0\"} 1",
        "tangelo_rpc_seconds_count{server_type=\"chat\",shard=\"0\"} 1",
        "# TYPE tangelo_requests counter",
        "# EOF",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    let plain = exposition::plain(&text);
    for line in [
        "# TYPE tangelo_requests_total counter",
        "# HELP tangelo_requests_total Requests received from clients.",
        "tangelo_requests_total{shard=\"0\"} 7",
        "# TYPE tangelo_build_info gauge",
    ] {
        assert!(plain.lines().any(|other| other == line), "{line}\n{plain}");
    }
    assert!(!plain.contains("# EOF"));
}

#[test]
fn a_request_that_no_shard_takes_has_failed_and_is_not_denied() {
    let counts =
        || [Counter::AdminFailed, Counter::AdminDenied].map(|it| metrics::of_process().get(it));
    let before = counts();
    // Nobody reads the inbox of the shard.
    let router = TowerToHyperService::new(router(&Arc::new(view(""))));
    let mut request = axum::http::Request::new(Body::empty());
    *request.uri_mut() = "/sessions?uid=ann".parse().unwrap();
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("localhost"));
    request.extensions_mut().insert(AdminClient::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let response = runtime.unwrap().block_on(router.call(request)).unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(counts(), [before[0] + 1, before[1]]);
}
