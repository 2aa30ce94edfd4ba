//! What the machine must offer, checked before the first shard starts, so that an operator reads
//! one plain line instead of a panic or, worse, a limit met under load.

use rustix::process::Resource;

use super::{executor, host};
use crate::client::check::ClientCheck;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::handler::{self, filter};
use crate::push::select::Selector;

/// Raises the soft limits and checks that `config` fits this machine.
///
/// Takes part in the start of the process: it replaces the panic hook for a moment, and must run
/// once, before any shard.
pub(super) fn check(config: &Config) -> Result<()> {
    check_values(config)?;
    let shards = host::shards(config);
    let (files, memory) = (
        host::raise(Resource::Nofile),
        host::raise(Resource::Memlock),
    );
    host::files_fit(files, config, shards)?;
    if let Some(text) = host::few_clients(files, config, shards) {
        tracing::warn!("{text}");
    }
    host::memory_fits(memory, host::is_exempt(), shards)?;
    executor::probe()
}

/// The part of [`check`] that looks at `config` alone.
pub(super) fn check_values(config: &Config) -> Result<()> {
    ClientCheck::parse(&config.client.accept)
        .map_err(|text| Error::Config(format!("client.accept: {text}")))?;
    for (key, texts) in [
        ("global", &config.filter.global),
        ("local", &config.filter.local),
    ] {
        filter::check(texts).map_err(|text| Error::Config(format!("filter.{key}: {text}")))?;
    }
    Selector::new(&config.push).map_err(Error::Config)?;
    if config.delegate.as_ref() == Some(&config.server_type) {
        let text = format!(
            "delegate: {:?} is the own server type; accepted: the type of servers that have its handlers",
            config.server_type
        );
        return Err(Error::Config(text));
    }
    if let Some(remote) = &config.delegate_closed {
        let text = match handler::remote_parts(remote) {
            None => Some("is not service.method, such as \"entryRemote.closed\""),
            Some(_) if config.delegate.is_none() => Some("has no delegate; set delegate too"),
            Some(_) => None,
        };
        if let Some(text) = text {
            let text = format!("delegate_closed: {remote:?} {text}");
            return Err(Error::Config(text));
        }
    }
    let routes = config.dictionary.len() + config.handler_routes.len();
    if config.client.use_dict && routes > usize::from(u16::MAX) {
        return Err(Error::Config(format!(
            "dictionary, handler_routes: {routes} routes; accepted: up to {} that get a code",
            u16::MAX
        )));
    }
    host::shards_fit(host::shards(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// What an operator reads of a configuration that is none.
    fn wrong(config: &Config) -> String {
        match check(config) {
            Err(Error::Config(text)) => text,
            other => panic!("it is no configuration: {other:?}"),
        }
    }

    #[test]
    fn this_machine_passes_and_the_panic_hook_is_as_before() {
        check(&Config::default()).unwrap();
        let caught = thread::Builder::new().spawn(|| panic!("on purpose: the hook prints this"));
        assert!(caught.unwrap().join().is_err());
    }

    #[test]
    fn more_routes_than_codes_are_refused() {
        let config = |use_dict, routes| {
            let mut config = Config::default();
            config.client.use_dict = use_dict;
            config.dictionary = vec!["onX".into(); routes];
            config.handler_routes = vec!["a.b.c".into()];
            config
        };
        let text = wrong(&config(true, 65_535));
        let place = "dictionary, handler_routes: 65536 routes; accepted: up to 65535";
        assert!(text.starts_with(place), "{text}");
    }

    #[test]
    fn a_rule_for_clients_that_cannot_be_read_is_refused() {
        let mut config = Config::default();
        config.client.accept = vec!["js-socket 1.0".into()];
        let text = wrong(&config);
        let start = "client.accept: \"js-socket 1.0\" is not a rule for clients; accepted: ";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn a_filter_that_is_not_known_is_refused() {
        let mut config = Config::default();
        config.filter.local = vec!["cereal".into()];
        let text = wrong(&config);
        let start = "filter.local: \"cereal\" is not a filter; accepted: ";
        assert!(text.starts_with(start), "{text}");
    }
}
