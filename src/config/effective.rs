//! The effective configuration: the value and the source of each key.

use std::fmt::Write as _;

use super::{Config, knobs};

/// A key, its value as the right side of a line of TOML, and the place that has set it.
pub(crate) struct EffectiveValue {
    pub(crate) key: &'static str,
    /// `None` for a key without a value.
    pub(crate) value: Option<String>,
    pub(crate) source: String,
}

/// Returns all keys of a configuration. Secrets are not among them: a key names the file that has one.
pub(crate) fn entries(config: &Config) -> impl Iterator<Item = EffectiveValue> {
    let defaults = Config::defaults(config.compat);
    knobs().map(move |knob| {
        // Where no listener uses `listen`, a file must not set it.
        let has_effect = knob.key != "listen" || config.uses_listen();
        let value = knob.toml(config).filter(|_| has_effect);
        let source = match config.sources.place(knob.key) {
            Some(place) => place.to_owned(),
            None if value == knob.toml(&defaults) => "default".to_owned(),
            None => "project".to_owned(),
        };
        EffectiveValue {
            key: knob.key,
            value,
            source,
        }
    })
}

/// Returns the configuration as a `tangelo.toml`, with the source of each value as a comment.
pub(crate) fn toml(config: &Config) -> String {
    let mut out = String::new();
    let mut section = "";
    for entry in entries(config) {
        let (own_section, name) = entry.key.rsplit_once('.').unwrap_or(("", entry.key));
        if own_section != section {
            section = own_section;
            let _ = writeln!(out, "\n[{section}]");
        }
        // A flag may have more than one line.
        let source = entry.source.replace('\n', " ");
        let _ = match entry.value {
            Some(value) => writeln!(out, "{name} = {value}  # {source}"),
            None => writeln!(out, "# {name} has no value  # {source}"),
        };
    }
    out
}
