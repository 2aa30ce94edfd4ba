//! A file or a flag onto a [`Config`]: each value goes to the knob of its key.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Result;
use crate::config::{self, Config, RawValue, ValueError, in_order};
use crate::error::Error;

/// A `tangelo.toml`.
pub(super) struct File {
    pub(super) path: PathBuf,
    text: String,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .map_err(|e| Error::Config(format!("{}: cannot read it: {e}", path.display())))?;
        Ok(Self::new(path, text))
    }

    pub(super) fn new(path: &Path, text: String) -> Self {
        let path = path.into();
        Self { path, text }
    }

    pub(super) fn apply(&self, config: &mut Config, places: &mut Places) {
        let name = self.path.display().to_string();
        let source = Source {
            name: &name,
            text: Some(&self.text),
            key: "",
        };
        let table = match DeTable::parse(&self.text) {
            Ok(table) => table,
            Err(error) => {
                let line = line(&self.text, error.span().map_or(0, |span| span.start));
                let text = error.message().replace('\n', "; ");
                places
                    .problems
                    .push(Error::Config(format!("{name}:{line}: {text}")));
                return;
            }
        };
        let before = config.app_dir.take();
        let mut target = Target { config, places };
        target.walk("", table.get_ref(), &source);
        let parent = self.path.parent().unwrap_or(Path::new(""));
        config.app_dir = config.app_dir.take().map(|dir| parent.join(dir)).or(before);
    }
}

/// One `--set`, or a flag with a name of its own.
pub(super) struct Flag {
    /// As it was typed.
    pub(super) name: String,
    pub(super) key: String,
    pub(super) value: String,
}

impl Flag {
    pub(super) fn apply(&self, config: &mut Config, places: &mut Places) {
        // A shell takes quotes away, so any other text is a string.
        let toml = match DeValue::parse(&self.value) {
            Ok(value) => value.into_inner(),
            Err(_) => DeValue::String(self.value.as_str().into()),
        };
        let source = Source {
            name: &self.name,
            text: None,
            key: &self.key,
        };
        let raw = RawValue {
            toml: &toml,
            flag: Some(&self.value),
        };
        Target { config, places }.assign(&self.key, raw, 0, &source);
    }
}

/// The place of the value of each key that a file or a flag has set, and the errors of those that cannot be read.
#[derive(Default)]
pub(super) struct Places {
    places: BTreeMap<String, Place>,
    problems: Vec<Error>,
}

impl Places {
    /// Takes the errors, in the order in which they were found.
    pub(super) fn take_problems(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.problems)
    }

    /// Returns the place of each key, as text.
    pub(super) fn texts(&self) -> BTreeMap<String, String> {
        let text = |(key, place): (&String, &Place)| (key.clone(), place.to_string());
        self.places.iter().map(text).collect()
    }

    /// Returns the place that has set a key, as text.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.places.get(key).map(Place::to_string)
    }

    /// Returns whether a file or a flag has set a key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Names the place of a value that the check of the whole configuration refuses.
    pub(super) fn locate(&self, error: &ValueError) -> Error {
        let list = error.key.split('[').next().unwrap_or_default();
        let place = self.places.get(&error.key);
        let place = place.or_else(|| self.places.get(list));
        place.map_or_else(
            || Error::Config(error.to_string()),
            |place| place.error(error),
        )
    }
}

struct Place {
    /// File or flag.
    name: String,
    /// Of a file.
    line: Option<usize>,
    /// The flag's own key, which its name shows already.
    key: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

impl Place {
    fn error(&self, error: &ValueError) -> Error {
        Error::Config(match self.line {
            None if error.key == self.key => format!("{self}: {}", error.reason),
            _ => format!("{self}: {error}"),
        })
    }
}

/// A file or a flag, while its values are assigned.
struct Source<'a> {
    name: &'a str,
    /// The file's text, to count lines in.
    text: Option<&'a str>,
    key: &'a str,
}

impl Source<'_> {
    fn place(&self, at: usize) -> Place {
        Place {
            name: self.name.into(),
            line: self.text.map(|text| line(text, at)),
            key: self.key.into(),
        }
    }
}

fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// The configuration that values are assigned to.
struct Target<'a> {
    config: &'a mut Config,
    places: &'a mut Places,
}

impl Target<'_> {
    /// Assigns all values of a section, in the order of the file, so that the first error is that of the first
    /// mistake.
    fn walk(&mut self, section: &str, table: &DeTable<'_>, source: &Source<'_>) {
        for (name, value) in in_order(table) {
            let key = match section {
                "" => name.get_ref().to_string(),
                section => format!("{section}.{}", name.get_ref()),
            };
            let raw = RawValue::of_file(value.get_ref());
            self.assign(&key, raw, name.span().start, source);
        }
    }

    /// Reads a value into its key. A wrong one changes nothing but the errors.
    fn assign(&mut self, key: &str, raw: RawValue<'_>, at: usize, source: &Source<'_>) {
        if let (true, DeValue::Table(table)) = (is_section(key), raw.toml) {
            return self.walk(key, table, source);
        }
        let strategy_of = below(ROUTE, key).filter(|server_type| is_server_type(server_type));
        let read = if let Some(server_type) = strategy_of {
            config::read_strategy(self.config, server_type, raw)
        } else if let Some(knob) = config::knobs().find(|knob| knob.key == key) {
            knob.read(self.config, raw)
        } else if is_section(key) {
            let accepted = format!("a section [{key}] with keys {}", known(key));
            Err(ValueError::expected(raw, accepted).under(key))
        } else {
            Err(ValueError::new(key, unknown(key)))
        };
        let places = &mut *self.places;
        if let Err(error) = read {
            let place = source.place(error.at.unwrap_or(at));
            places.problems.push(place.error(&error));
            return;
        }
        places.places.insert(key.into(), source.place(at));
    }
}

/// The section whose keys are server types.
const ROUTE: &str = "route";

/// Returns whether a key of `[route]` can be a server type.
fn is_server_type(name: &str) -> bool {
    // A route names its server type before its first dot.
    !name.is_empty() && !name.contains('.')
}

fn is_section(key: &str) -> bool {
    key == ROUTE || config::knobs().any(|knob| below(key, knob.key).is_some())
}

/// Returns the part of `name` after `section.`.
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

/// Returns the names of the keys and sections in a section; `""` is the whole file.
fn known(section: &str) -> String {
    if section == ROUTE {
        return "default and any server type".into();
    }
    let mut names: Vec<&str> = Vec::new();
    for knob in config::knobs() {
        let rest = match section {
            "" => Some(knob.key),
            section => below(section, knob.key),
        };
        let name = rest.and_then(|rest| rest.split('.').next());
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names.join(", ")
}
