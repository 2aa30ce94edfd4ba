//! The operators' port: health and metrics over HTTP.
//!
//! A thread of its own serves it, with a tokio runtime of one thread. Health and metrics are atomics that the shards
//! write for themselves, so these requests cost a shard nothing.
//!
//! Requests that change something, or show what players own, need a token. They go through the inbox of the mesh to the
//! coordinator, which never waits for this room.
//!
//! **Invariants**: no fault of this room ends the process or keeps a client out; each request that needs the token is a
//! line of the audit, also when it is refused.
//!
//! **Absent**: the work of a shard; glommio.
//!
//! **Where to start reading**: [`OperatorsPort::start`], then `serve.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::middleware::{from_fn_with_state, map_request};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::sync::oneshot;

use crate::checked::CheckedConfig;
use crate::config::ListenAddress;
use crate::limits::ADMIN_BODY_BYTES_MAX;
use crate::log::Output;
use crate::metrics::{self, Counter, Counters};
use crate::shard::Stopper;
use crate::shard::activity::Activity;
use crate::shard::operator::Operator;
use crate::tls::Expiries;

mod actions;
mod exposition;
mod follow;
mod guard;
mod health;
mod probe;
#[cfg(test)]
mod reference;
mod secrets;
mod serve;
#[cfg(test)]
mod tests;
mod trace;

use exposition::Exposition;
pub(crate) use follow::{Follow, follow};
pub(crate) use guard::token;
pub(crate) use probe::Prober;
pub(crate) use serve::test;

/// The state of a gateway that the operators' port shows.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) config: Arc<CheckedConfig>,
    /// The configuration since the last reload.
    pub(crate) latest: Arc<ArcSwap<CheckedConfig>>,
    /// Counters of all shards, then those of the watchdog.
    pub(crate) counters: Arc<[Counters]>,
    /// Activities of all shards.
    pub(crate) activities: Vec<Arc<Activity>>,
    pub(crate) stopper: Stopper,
    /// The way of requests to the shards.
    pub(crate) operator: Operator,
    /// The certificates in use.
    pub(crate) expiries: Expiries,
    /// The log; `None` in a program that has started the gateway without it.
    pub(crate) output: Option<Arc<Output>>,
    pub(crate) prober: Prober,
    /// Each running trace has a clone.
    pub(crate) traces: Arc<()>,
    /// True once all shards take clients.
    pub(crate) stands: AtomicBool,
}

/// The running operators' port. Dropping it closes the port.
pub(crate) struct OperatorsPort {
    view: Arc<View>,
    /// Dropped to end the thread.
    alive: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl OperatorsPort {
    /// Starts the thread of the port, if the configuration has one. A failure is a warning.
    pub(crate) fn start(view: View) -> Option<Self> {
        let address = view.config.admin.listen.clone()?;
        if let (ListenAddress::Tcp(_), Some(path)) = (&address, &view.config.admin.token_file)
            && let Err(fault) = guard::token(path)
        {
            tracing::warn!(file = %path.display(), "{fault}; requests that need the token are refused");
        }
        let view = Arc::new(view);
        let router = router(&view);
        let (alive, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || serve::run(&address, &router, ended));
        match thread {
            Ok(thread) => Some(Self {
                view,
                alive: Some(alive),
                thread: Some(thread),
            }),
            Err(error) => {
                tracing::warn!(%error, "admin.listen: cannot start the thread of the operators' port");
                None
            }
        }
    }

    /// Announces that all shards take clients.
    pub(crate) fn announce_start(&self) {
        self.view.stands.store(true, Ordering::Release);
    }
}

impl Drop for OperatorsPort {
    fn drop(&mut self) {
        self.alive = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn router(view: &Arc<View>) -> Router {
    let exposition = Arc::new(Exposition::new(view.clone()));
    let guarded = Router::new()
        .route("/config", get(actions::config))
        .route("/sessions", get(actions::sessions))
        .route("/kick", post(actions::kick))
        .route("/blacklist", post(actions::blacklist))
        .route("/log-level", post(actions::log_level))
        .route("/trace", get(trace::trace))
        .route("/drain", post(actions::drain))
        .layer(DefaultBodyLimit::max(ADMIN_BODY_BYTES_MAX))
        .route_layer(from_fn_with_state(view.clone(), guard::check));
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .merge(guarded)
        .with_state(view.clone())
        .route("/metrics", get(metrics).with_state(exposition))
        .layer(map_request(count))
}

async fn count(request: Request) -> Request {
    metrics::count_for_process(Counter::AdminRequests);
    request
}

async fn livez(State(view): State<Arc<View>>) -> impl IntoResponse {
    health::live(&view)
}

async fn readyz(State(view): State<Arc<View>>) -> impl IntoResponse {
    health::probed(&view).await
}

/// Answers in OpenMetrics where the client takes it, as a Prometheus server does, else in the older text format.
async fn metrics(
    State(exposition): State<Arc<Exposition>>,
    headers: HeaderMap,
) -> impl IntoResponse {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let text = exposition.open_metrics();
    match accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
        true => ([(CONTENT_TYPE, exposition::OPEN_METRICS)], text),
        false => (
            [(CONTENT_TYPE, exposition::PLAIN)],
            exposition::plain(&text),
        ),
    }
}
