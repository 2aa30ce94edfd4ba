//! The configuration of a shard, with the changes of SIGHUP.
//!
//! The process has one configuration, which each shard looks at once per tick. A shard keeps the limits of its hot
//! path as plain numbers of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Seed, Shard};
use crate::checked::CheckedConfig;
use crate::config::Config;

/// The latest configuration that a shard has seen.
pub(super) struct LatestConfig {
    of_process: Arc<ArcSwap<CheckedConfig>>,
    config: RefCell<Arc<CheckedConfig>>,
    limits: Cell<Limits>,
}

/// Limits that each message meets.
#[derive(Clone, Copy)]
struct Limits {
    calls_in_flight_max: usize,
    outbox_bytes_max: usize,
}

impl Limits {
    fn of(config: &Config) -> Self {
        Self {
            calls_in_flight_max: config.client.calls_in_flight_max,
            outbox_bytes_max: config.client.outbox_bytes_max,
        }
    }
}

impl LatestConfig {
    pub(super) fn new(seed: &Seed) -> Self {
        Self {
            of_process: seed.latest.clone(),
            config: RefCell::new(seed.config.clone()),
            limits: Cell::new(Limits::of(&seed.config)),
        }
    }

    /// Returns the configuration with all changes. Only the keys that are `live` may differ from those of the start.
    pub(super) fn config(&self) -> Arc<CheckedConfig> {
        self.config.borrow().clone()
    }

    /// Returns `client.calls_in_flight_max`.
    #[inline]
    pub(super) fn calls_in_flight_max(&self) -> usize {
        self.limits.get().calls_in_flight_max
    }

    /// Returns `client.outbox_bytes_max`.
    #[inline]
    pub(super) fn outbox_bytes_max(&self) -> usize {
        self.limits.get().outbox_bytes_max
    }
}

/// Follows a change of the configuration, if there is one.
pub(super) fn follow(shard: &Rc<Shard>) {
    let latest = &shard.core.latest;
    if Arc::ptr_eq(&latest.of_process.load(), &latest.config.borrow()) {
        return;
    }
    let config = latest.of_process.load_full();
    latest.config.replace(config.clone());
    latest.limits.set(Limits::of(&config));
    shard.clients.follow(&config);
    if let Some(max) = config.limits.memory {
        shard.core.memory.set_max(max);
    }
}
