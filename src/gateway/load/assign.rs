//! A file or a flag onto a [`Config`]: each value goes to the knob of its key.

use std::fs;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Result;
use super::keys::{self, KEYS};
use super::value::{Given, in_order};
use crate::config::Config;
use crate::error::Error;

/// A `tangelo.toml`.
pub(super) struct File {
    path: PathBuf,
    text: String,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .map_err(|e| Error::Config(format!("{}: cannot be read: {e}", path.display())))?;
        Ok(Self {
            path: path.into(),
            text,
        })
    }

    pub(super) fn apply(&self, config: &mut Config) -> Result<()> {
        let name = self.path.display().to_string();
        let source = Source {
            name: &name,
            text: Some(&self.text),
            key: "",
        };
        let table = DeTable::parse(&self.text).map_err(|e| {
            let line = line(&self.text, e.span().map_or(0, |span| span.start));
            Error::Config(format!(
                "{name}:{line}: {}",
                e.message().replace('\n', "; ")
            ))
        })?;
        let before = config.app_dir.take();
        walk(config, "", table.get_ref(), &source)?;
        let parent = self.path.parent().unwrap_or(Path::new(""));
        config.app_dir = config.app_dir.take().map(|dir| parent.join(dir)).or(before);
        Ok(())
    }
}

/// One `--set`, or a flag with a name of its own, which is the same thing.
pub(super) struct Flag {
    /// As it was typed.
    pub(super) name: String,
    pub(super) key: String,
    pub(super) value: String,
}

impl Flag {
    pub(super) fn apply(&self, config: &mut Config) -> Result<()> {
        // A shell takes quotes away, so what is no TOML value is meant as a string.
        let toml = match DeValue::parse(&self.value) {
            Ok(value) => value.into_inner(),
            Err(_) => DeValue::String(self.value.as_str().into()),
        };
        let source = Source {
            name: &self.name,
            text: None,
            key: &self.key,
        };
        assign(
            config,
            &self.key,
            Given {
                toml: &toml,
                typed: Some(&self.value),
            },
            0,
            &source,
        )
    }
}

/// Where a value was written: what an error names.
struct Source<'a> {
    /// File or flag.
    name: &'a str,
    /// The file's text, to count lines in.
    text: Option<&'a str>,
    /// The flag's own key, which its name shows already.
    key: &'a str,
}

impl Source<'_> {
    fn error(&self, at: usize, key: &str, what: &str) -> Error {
        let name = self.name;
        Error::Config(match self.text {
            Some(text) => format!("{name}:{}: {key}: {what}", line(text, at)),
            None if key == self.key => format!("{name}: {what}"),
            None => format!("{name}: {key}: {what}"),
        })
    }
}

fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Assigns all that a section holds, in the order it was written, so that the first mistake in the
/// file is the one reported.
fn walk(
    config: &mut Config,
    section: &str,
    table: &DeTable<'_>,
    source: &Source<'_>,
) -> Result<()> {
    for (name, value) in in_order(table) {
        let name_text = name.get_ref();
        let key = if section.is_empty() {
            name_text.to_string()
        } else {
            format!("{section}.{name_text}")
        };
        let given = Given {
            toml: value.get_ref(),
            typed: None,
        };
        assign(config, &key, given, name.span().start, source)?;
    }
    Ok(())
}

fn assign(
    config: &mut Config,
    key: &str,
    given: Given<'_>,
    at: usize,
    source: &Source<'_>,
) -> Result<()> {
    if let Some((_, set)) = KEYS.iter().find(|(name, _)| *name == key) {
        return set(config, given).map_err(|wrong| {
            let key = format!("{key}{}", wrong.below);
            source.error(wrong.at.unwrap_or(at), &key, &wrong.what)
        });
    }
    if let Some(server_type) = below(ROUTE, key).filter(|name| keys::is_server_type(name)) {
        return keys::route(config, server_type, given)
            .map_err(|wrong| source.error(at, key, &wrong.what));
    }
    if !is_section(key) {
        return Err(source.error(at, key, &unknown(key)));
    }
    match given.toml {
        DeValue::Table(table) => walk(config, key, table, source),
        _ => {
            let what = format!(
                "{given} is no section; accepted: [{key}] with keys {}",
                known(key)
            );
            Err(source.error(at, key, &what))
        }
    }
}

/// The section whose keys are not in the table: server types.
const ROUTE: &str = "route";

fn is_section(key: &str) -> bool {
    KEYS.iter().any(|(name, _)| below(key, name).is_some())
}

/// The part of `name` after `section.`.
fn below<'a>(section: &str, name: &'a str) -> Option<&'a str> {
    name.strip_prefix(section)?.strip_prefix('.')
}

fn unknown(key: &str) -> String {
    let parents = key.rmatch_indices('.').map(|(at, _)| &key[..at]);
    let section = parents
        .into_iter()
        .find(|parent| is_section(parent))
        .unwrap_or("");
    format!("unknown key; known keys here: {}", known(section))
}

/// Names of keys and sections directly in `section`; `""` is the top.
fn known(section: &str) -> String {
    if section == ROUTE {
        return "default and any server type".into();
    }
    let mut names: Vec<&str> = Vec::new();
    for (key, _) in KEYS {
        let Some(rest) = (if section.is_empty() {
            Some(*key)
        } else {
            below(section, key)
        }) else {
            continue;
        };
        let name = rest.split('.').next().unwrap_or(rest);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}
