//! SIGHUP: reads the configuration again, and changes the keys that are `live` while tangelo runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Running, Stopper, host, load};
use crate::checked::CheckedConfig;
use crate::config::{self, Config, Knob, Sources};
use crate::log::{self, Output};

/// The configuration of a running gateway, and its sources.
pub(super) struct Reload {
    sources: Sources,
    /// The values of all keys when they were read: those of `live` keys by the last SIGHUP, the others at the start. A
    /// program may have changed some of them since.
    read: BTreeMap<&'static str, Option<String>>,
    config: Config,
    shards: usize,
    latest: Arc<ArcSwap<CheckedConfig>>,
    stopper: Stopper,
    output: Arc<Output>,
}

impl Reload {
    pub(super) fn new(config: Config, running: &Running, output: Arc<Output>) -> Self {
        Self {
            read: config.sources.values.clone(),
            sources: config.sources.clone(),
            config,
            shards: running.shards,
            latest: running.latest.clone(),
            stopper: running.stopper.clone(),
            output,
        }
    }

    /// Reads the sources again, and writes one line with the keys that have changed and those that need a restart. With
    /// a mistake in the sources everything stays as it was, and the line has the mistake.
    pub(super) fn run(&mut self) {
        match self.change() {
            Ok(text) => tracing::info!("SIGHUP: {text}"),
            Err(text) => tracing::warn!("SIGHUP: the configuration stays as it was: {text}"),
        }
    }

    fn change(&mut self) -> Result<String, String> {
        let Some(loaded) = load::again(&self.sources) else {
            return Ok("this program has no configuration file and no flags to read again".into());
        };
        if !loaded.problems.is_empty() {
            let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
            return Err(problems.join("; "));
        }
        let now = loaded.config;
        let has_changed = |knob: &&Knob<Config>| self.read.get(knob.key) != Some(&knob.toml(&now));
        let (live, fixed): (Vec<_>, Vec<_>) = config::knobs()
            .filter(has_changed)
            .partition(|knob| knob.is_live);
        let mut next = self.config.clone();
        for knob in &live {
            knob.copy(&mut next, &now);
            let places = &mut next.sources.places;
            match now.sources.places.get(knob.key) {
                Some(place) => places.insert(knob.key.into(), place.clone()),
                None => places.remove(knob.key),
            };
        }
        let checked = CheckedConfig::new(next.clone()).map_err(|error| error.to_string())?;
        let fits = host::Limits::raise().check_files(&next, self.shards);
        fits.map_err(|error| error.to_string())?;
        if next.log.level != self.config.log.level {
            self.output.set_level(log::filter(&next.log.level)?);
        }
        self.latest.store(Arc::new(checked));
        // A shard without a deadline sleeps until somebody rings.
        self.stopper.ring();
        self.config = next;
        let values = live.iter().map(|knob| (knob.key, knob.toml(&now)));
        self.read.extend(values);
        let changes = live
            .iter()
            .map(|knob| format!("{} = {}", knob.key, knob.show(&now)));
        let changes: Vec<String> = changes.collect();
        let mut text = match changes.is_empty() {
            true => "nothing has changed".into(),
            false => format!("changed {}", changes.join(", ")),
        };
        if !fixed.is_empty() {
            let fixed: Vec<&str> = fixed.iter().map(|knob| knob.key).collect();
            text += &format!("; a restart is needed for {}", fixed.join(", "));
        }
        Ok(text)
    }
}
