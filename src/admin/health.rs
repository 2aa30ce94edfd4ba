//! The answers to health checks: a status for machines, a text for people.

use std::sync::atomic::Ordering;

use axum::http::StatusCode;

use super::View;
use crate::metrics::{Counter, Counters};

/// Returns whether all shards have a pulse.
pub(super) fn live(view: &View) -> (StatusCode, String) {
    answer("alive", &view.stalls(), &[])
}

/// Returns whether this server should get new clients, and probes the port for clients where nothing else is wrong.
pub(super) async fn probed(view: &View) -> (StatusCode, String) {
    if state(view).0.is_empty() {
        view.prober.run().await;
    }
    ready(view)
}

/// Returns whether this server should get new clients, as the last probe has left it.
pub(super) fn ready(view: &View) -> (StatusCode, String) {
    let (mut faults, degraded) = state(view);
    if faults.is_empty() {
        faults.extend(view.prober.fault());
    }
    answer("ready", &faults, &degraded)
}

/// Returns a line for each reason against new clients, and for each thing that is wrong besides.
fn state(view: &View) -> (Vec<String>, Vec<String>) {
    let mut faults = view.stalls();
    let mut degraded = Vec::new();
    if !view.stands.load(Ordering::Acquire) {
        faults.push("the gateway is starting".into());
    }
    let stop = view.stopper.request();
    if stop.is_drain() {
        faults.push("the gateway drains".into());
    } else if stop.is_made() {
        faults.push("the gateway stops".into());
    }
    if view.config.master.is_some() && view.sum(Counter::RegistryJoined) == 0 {
        match view.sum(Counter::RegistryJoins) {
            0 => faults.push("the gateway has not joined the cluster of its master yet".into()),
            _ if view.latest.load().admin.require_registry => faults.push(LOST.into()),
            _ => degraded.push(format!("degraded: {LOST}")),
        }
    }
    (faults, degraded)
}

const LOST: &str = "the link to the master is down";

/// Returns 503 with the faults, or 200; one line for each thing that is wrong.
fn answer(word: &str, faults: &[String], degraded: &[String]) -> (StatusCode, String) {
    let (status, first) = match faults {
        [] => (StatusCode::OK, word.to_owned()),
        _ => (StatusCode::SERVICE_UNAVAILABLE, format!("not {word}")),
    };
    let lines = [&[first], faults, degraded].concat();
    (status, lines.join("\n") + "\n")
}

impl View {
    /// Returns a line for each shard that does not tick.
    fn stalls(&self) -> Vec<String> {
        let shards = self.activities.iter().enumerate();
        let stalled = shards.filter(|(_, activity)| activity.is_stalled());
        stalled
            .map(|(shard, activity)| format!("shard {shard} is stalled in {}", activity.work()))
            .collect()
    }

    /// Adds a counter up over all shards.
    fn sum(&self, counter: Counter) -> u64 {
        let value = |counters: &Counters| counters.get(counter);
        self.counters.iter().map(value).sum()
    }
}
