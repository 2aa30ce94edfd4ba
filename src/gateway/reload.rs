//! SIGHUP: reads the configuration again, and changes the keys that are `live` while tangelo runs.
//!
//! A thread of its own does that, because a file may hold its reader up: a pipe, or one on a server that does not answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, channel, sync_channel};

use arc_swap::ArcSwap;

use super::notify::{News, Supervisor};
use super::{Running, Stopper, cannot_start, host, load};
use crate::checked::CheckedConfig;
use crate::config::{self, Config, Knob, Sources};
use crate::error::Result;
use crate::log::{self, Output};
use crate::shard::operator::Operator;
use crate::shard::parcel::{OperatorReply, OperatorRequest};
use crate::tls::TlsSettings;

/// The thread that reads the configuration again.
pub(super) struct Reloads(SyncSender<()>);

impl Reloads {
    /// Asks for a reload. It never waits: during a reload one more waits for its end, and further ones are that one.
    pub(super) fn ask(&self) {
        if let Err(TrySendError::Full(())) = self.0.try_send(()) {
            tracing::warn!(
                "SIGHUP: an earlier one still reads the configuration, and one more waits for it; this one is the same"
            );
        }
    }
}

/// The configuration of a running gateway, and its sources.
pub(super) struct Reload {
    sources: Sources,
    /// The values of all keys and files when they were read: those of `live` keys by the last SIGHUP, the others at the
    /// start. A program may have changed some of them since.
    read: BTreeMap<&'static str, Option<String>>,
    config: Config,
    shards: usize,
    latest: Arc<ArcSwap<CheckedConfig>>,
    stopper: Stopper,
    operator: Operator,
    tls: Option<Arc<TlsSettings>>,
    output: Arc<Output>,
    supervisor: Supervisor,
}

impl Reload {
    pub(super) fn new(
        config: Config,
        running: &Running,
        output: Arc<Output>,
        supervisor: Supervisor,
    ) -> Self {
        Self {
            read: config.sources.values.clone(),
            sources: config.sources.clone(),
            config,
            shards: running.shards,
            latest: running.latest.clone(),
            stopper: running.stopper.clone(),
            operator: running.operator.clone(),
            tls: running.tls.clone(),
            output,
            supervisor,
        }
    }

    /// Starts the thread of the reloads, which ends when nobody can ask for one any more.
    pub(super) fn start(mut self) -> Result<Reloads> {
        let (sender, asked) = sync_channel(1);
        std::thread::Builder::new()
            .name("reload".into())
            .spawn(move || {
                while asked.recv().is_ok() {
                    self.supervisor.tell(News::Reloading);
                    self.run();
                    self.supervisor.tell(News::Reloaded);
                }
            })
            .map_err(|error| cannot_start("reload", &error))?;
        Ok(Reloads(sender))
    }

    /// Reads the sources again, and writes one line with the keys that have changed and those that need a restart. With
    /// a mistake in the sources everything stays as it was, and the line has the mistake. The files of TLS are read again in
    /// any case.
    fn run(&mut self) {
        match self.change() {
            Ok(text) => tracing::info!("SIGHUP: {text}"),
            Err(text) => tracing::warn!("SIGHUP: the configuration stays as it was: {text}"),
        }
        if let Some(tls) = &self.tls {
            tls.read_again();
        }
    }

    fn change(&mut self) -> std::result::Result<String, String> {
        let Some(loaded) = load::again(&self.sources) else {
            return Ok("this program has no configuration file and no flags to read again".into());
        };
        if !loaded.problems.is_empty() {
            let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
            return Err(problems.join("; "));
        }
        let now = loaded.config;
        if now.compat != self.config.compat {
            // Keys that change at once would get other defaults, and the others not.
            return Err(
                "compat has changed, which changes the defaults of many keys; a restart is needed"
                    .into(),
            );
        }
        let has_changed = |knob: &&Knob<Config>| self.read.get(knob.key) != Some(&knob.toml(&now));
        let (live, fixed): (Vec<_>, Vec<_>) = config::knobs()
            .filter(has_changed)
            .partition(|knob| knob.is_live);
        if live.iter().any(|knob| knob.key == "log.level") && !self.output.has_level() {
            return Err("log.level: this program writes a log of its own".into());
        }
        let next = changed(&self.config, &now, &live);
        let checked = CheckedConfig::new(next.clone()).map_err(|error| error.to_string())?;
        let fits = host::MachineLimits::raise().check_files(&next, self.shards);
        fits.map_err(|error| error.to_string())?;
        for warning in &checked.warnings {
            if !self.latest.load().warnings.contains(warning) {
                tracing::warn!("{warning}");
            }
        }
        // The thread that reads the files again comes too late for the line of this reload.
        if next.tls != self.config.tls
            && let Some(tls) = &self.tls
        {
            tls.check(&next)?;
        }
        if next.client.blacklist != self.config.client.blacklist {
            self.replace_blacklist(next.client.blacklist.clone())?;
        }
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
            .map(|knob| format!("{} = {}", knob.key, knob.show(&self.config)));
        let changes: Vec<String> = changes.collect();
        let mut text = match changes.is_empty() {
            true => "nothing has changed".into(),
            false => format!("changed {}", changes.join(", ")),
        };
        let files = load::without_keys(&now).into_iter();
        let files = files.filter(|(file, value)| self.read.get(file) != Some(value));
        let fixed = fixed.iter().map(|knob| knob.key);
        let fixed: Vec<&str> = fixed.chain(files.map(|(file, _)| file)).collect();
        if !fixed.is_empty() {
            text += &format!("; a restart is needed for {}", fixed.join(", "));
        }
        Ok(text)
    }

    /// Replaces the expressions of `client.blacklist`, and waits until it is done: together with the other blacklists they
    /// may be too many.
    fn replace_blacklist(&self, list: Vec<String>) -> std::result::Result<(), String> {
        let (sender, reply) = channel();
        let take = OperatorReply(Arc::new(move |reply| drop(sender.send(reply))));
        let request = OperatorRequest::ReplaceBlacklist(list);
        let replaced = match self.operator.ask(request, take) {
            true => reply.recv().map_err(|_| "the gateway ends".to_owned()),
            false => Err("too much waits for a shard; try again".into()),
        };
        let replaced = replaced.flatten();
        replaced
            .map(drop)
            .map_err(|text| format!("client.blacklist: {text}"))
    }
}

/// Returns a configuration with the values that the `live` keys have in another one. As at the start, a default of the
/// machine takes the place of `limits.memory` where it has gone.
fn changed(config: &Config, now: &Config, live: &[&Knob<Config>]) -> Config {
    let mut next = config.clone();
    for knob in live {
        knob.copy(&mut next, now);
        let places = &mut next.sources.places;
        match now.sources.places.get(knob.key) {
            Some(place) => places.insert(knob.key.into(), place.clone()),
            None => places.remove(knob.key),
        };
    }
    host::fill_in_memory(&mut next);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_memory_that_has_gone_gives_way_to_that_of_the_machine() {
        let mut config = Config::default();
        config.limits.memory = Some(16 << 20);
        let is_memory = |knob: &&Knob<Config>| knob.key == "limits.memory";
        let live: Vec<_> = config::knobs().filter(is_memory).collect();
        assert_eq!(live.len(), 1);
        let next = changed(&config, &Config::default(), &live);
        assert_eq!(next.limits.memory, Some(host::memory_max()));
        let mut now = Config::default();
        now.limits.memory = Some(32 << 20);
        let next = changed(&next, &now, &live);
        assert_eq!(next.limits.memory, Some(32 << 20));
    }
}
