//! The drain: a stop that SIGTERM asks for, in which each client gets the answers to its requests.
//!
//! The order: health checks hear of the stop, the port closes, the clients leave in even slices, the application
//! ends, and at last this server leaves the cluster. Until then the links stay up, so that answers and pushes of
//! backends still reach the clients that are there.

use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Shard;
use crate::error::CloseReason;
use crate::metrics::Counter;
use crate::net::bell::Doorbell;
use crate::net::clock;

/// Time between two slices.
const SLICE: Duration = Duration::from_millis(50);
/// Clients that a process may close in each slice, however long it has left: some thousand a second.
const SLICE_MIN: usize = 50;

/// A request of the process to its shards: none, to drain, or to stop at once.
#[derive(Default)]
pub struct StopRequest {
    made: AtomicU8,
    listener: OnceLock<StopListener>,
}

/// A function that hears of a request on the thread that makes it, and whether it asks for a drain. It must not wait.
type StopListener = Box<dyn Fn(bool) + Send + Sync>;

impl fmt::Debug for StopRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StopRequest").field(&self.made).finish()
    }
}

const DRAIN: u8 = 1;
const STOP: u8 = 2;

impl StopRequest {
    /// Asks for a drain, unless the process stops already.
    pub fn drain(&self) {
        self.make(DRAIN);
    }

    /// Asks for an end without a drain; one that runs is broken off.
    pub fn stop(&self) {
        self.make(STOP);
    }

    fn make(&self, request: u8) {
        let before = self.made.fetch_max(request, Ordering::AcqRel);
        if before < request
            && let Some(listener) = self.listener.get()
        {
            listener(request == DRAIN);
        }
    }

    /// Calls `listener` for each request that is more than the one before. There is one listener.
    pub(crate) fn listen(&self, listener: impl Fn(bool) + Send + Sync + 'static) {
        let is_first = self.listener.set(Box::new(listener)).is_ok();
        debug_assert!(is_first, "nobody would call this listener");
    }

    /// Returns whether the process drains or stops.
    pub fn is_made(&self) -> bool {
        self.made.load(Ordering::Acquire) != 0
    }

    /// Returns whether the process drains.
    pub fn is_drain(&self) -> bool {
        self.made.load(Ordering::Acquire) == DRAIN
    }
}

/// A handle to stop a gateway.
#[derive(Debug, Clone)]
pub struct Stopper {
    stop: Arc<StopRequest>,
    bells: Vec<Arc<Doorbell>>,
}

impl Stopper {
    pub(crate) fn new(bells: Vec<Arc<Doorbell>>) -> Self {
        Self {
            stop: Arc::default(),
            bells,
        }
    }

    /// Returns the request that all shards look at.
    pub(crate) fn request(&self) -> &Arc<StopRequest> {
        &self.stop
    }

    /// Stops the gateway. The application gets up to `stop_timeout` to finish
    /// ([`Router::before_stop`](crate::handler::Router::before_stop)); then the connections of clients are closed, and the shards end within
    /// a quarter of a second.
    pub fn stop(&self) {
        self.stop.stop();
        self.ring();
    }

    /// Stops the gateway in the way of SIGTERM: health checks hear of it, and each client gets the answers to its
    /// requests before its connection is closed, within `drain.delay` and `drain.timeout`. Then the application gets
    /// the rest of the time to finish. [`Running::join`](crate::Running::join) returns [`Error::Drain`](crate::Error::Drain) if it was not enough.
    pub fn drain(&self) {
        self.stop.drain();
        self.ring();
    }

    /// Makes all shards look at the requests of the process.
    pub(crate) fn ring(&self) {
        for bell in &self.bells {
            bell.ring();
        }
    }
}

/// Closes the clients: in even slices within the first half of `drain.timeout`. A client with messages in flight waits
/// for a later slice, up to three quarters of the time. Then it is cut. The last quarter belongs to the application.
pub(super) async fn close_clients(shard: &Rc<Shard>) {
    let core = &shard.core;
    let timeout = core.latest.config().drain.timeout;
    let begun = clock::now();
    let (even_until, deadline) = (begun + timeout / 2, begun + timeout * 3 / 4);
    let slice_min = SLICE_MIN.div_ceil(core.shards);
    let mut open = Vec::new();
    loop {
        shard.clients.list_open(&mut open);
        let now = clock::now();
        if open.is_empty() || now >= deadline {
            break;
        }
        let left = even_until.saturating_duration_since(now);
        let slices = (left.as_millis() / SLICE.as_millis()).max(1) as usize;
        let count = open.len().div_ceil(slices).max(slice_min);
        let idle = open.iter().filter(|client| !client.is_waiting);
        for client in idle.take(count) {
            shard.close(client.sid, CloseReason::Drain, None);
        }
        clock::sleep(SLICE).await;
    }
    for client in open {
        let cut = u64::from(client.is_waiting);
        core.counters().add(Counter::ClientsCut, cut);
        shard.close(client.sid, CloseReason::Drain, None);
    }
}
