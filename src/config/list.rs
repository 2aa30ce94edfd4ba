//! Lists of sections of which no two are the same: `[[listener]]`, `[[server]]`, `[[push.schedulers]]` and
//! `[[tls.certificates]]`.

use std::fmt;
use std::marker::PhantomData;

use toml::Spanned;
use toml::de::DeValue;

use super::kinds::Kind;
use super::knob::Knob;
use super::value::{RawValue, ValueError, in_order};
use super::{CertificateFiles, ClientListener, NamedScheduler, Server};

/// A struct that a list of sections holds.
pub(crate) trait Section: Default + 'static {
    /// Key of the list.
    const LIST: &'static str;
    const KEYS: &'static [Knob<Self>];
    /// Keys that each section must have.
    const NEEDED: &'static [&'static str];
    /// Key whose value no other section has.
    const UNIQUE: &'static str = "id";

    /// Returns whether another section has the value of that key.
    fn is_same(&self, other: &Self) -> bool;
}

impl Section for ClientListener {
    const LIST: &'static str = "listener";
    const KEYS: &'static [Knob<Self>] = Self::KNOBS;
    const NEEDED: &'static [&'static str] = &[];
    const UNIQUE: &'static str = "address";

    fn is_same(&self, other: &Self) -> bool {
        match (&self.address, &other.address) {
            (Some(own), Some(other)) => own.overlaps(other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl Section for CertificateFiles {
    const LIST: &'static str = "tls.certificates";
    const KEYS: &'static [Knob<Self>] = Self::KNOBS;
    const NEEDED: &'static [&'static str] = &["chain", "key"];
    const UNIQUE: &'static str = "chain";

    fn is_same(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

impl Section for Server {
    const LIST: &'static str = "server";
    const KEYS: &'static [Knob<Self>] = Self::KNOBS;
    const NEEDED: &'static [&'static str] = &["id", "type", "host", "port"];

    fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Section for NamedScheduler {
    const LIST: &'static str = "push.schedulers";
    const KEYS: &'static [Knob<Self>] = Self::KNOBS;
    const NEEDED: &'static [&'static str] = &["id", "scheduler"];

    fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// A list of at most `max` sections, which differ in their unique key.
pub(super) struct ListOf<S> {
    max: usize,
    of: PhantomData<S>,
}

impl<S> ListOf<S> {
    pub(super) fn at_most(max: usize) -> Self {
        Self {
            max,
            of: PhantomData,
        }
    }
}

impl<S: Section> fmt::Display for ListOf<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let max = self.max;
        let keys = known::<S>();
        write!(f, "up to {max} sections [[{}]] with keys {keys}", S::LIST)
    }
}

impl<S: Section> Kind<Vec<S>> for ListOf<S> {
    fn parse(&self, _: RawValue<'_>) -> Option<Vec<S>> {
        None
    }

    fn show(&self, value: &Vec<S>) -> String {
        match value.len() {
            0 => "none".into(),
            1 => "a section".into(),
            count => format!("{count} sections"),
        }
    }

    /// A list of inline tables, one a line.
    fn toml(&self, value: &Vec<S>) -> Option<String> {
        let table = |section: &S| {
            let entry = |knob: &Knob<S>| Some(format!("{} = {}", knob.key, knob.toml(section)?));
            let entries: Vec<String> = S::KEYS.iter().filter_map(entry).collect();
            format!("  {{ {} }},\n", entries.join(", "))
        };
        let tables: String = value.iter().map(table).collect();
        Some(match tables.is_empty() {
            true => "[]".into(),
            false => format!("[\n{tables}]"),
        })
    }

    fn admits(&self, value: &Vec<S>) -> bool {
        value.len() <= self.max
    }

    fn check(&self, value: &Vec<S>) -> Result<(), ValueError> {
        if !self.admits(value) {
            return Err(ValueError::expected(self.show(value), self));
        }
        for (index, section) in value.iter().enumerate() {
            let at = |error: ValueError| error.under(&format!("[{index}]."));
            S::KEYS
                .iter()
                .try_for_each(|knob| knob.check(section))
                .map_err(at)?;
            differs(&value[..index], section).map_err(at)?;
        }
        Ok(())
    }

    fn read(&self, raw: RawValue<'_>, into: &mut Vec<S>) -> Result<(), ValueError> {
        let Some(array) = raw.toml.as_array() else {
            return Err(ValueError::expected(raw, self));
        };
        let mut sections: Vec<S> = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let read = self.read_one(item).and_then(|section| {
                let at = Some(item.span().start);
                differs(&sections, &section).map_err(|error| ValueError {
                    at,
                    ..error.under(".")
                })?;
                Ok(section)
            });
            sections.push(read.map_err(|error| error.under(&format!("[{index}]")))?);
        }
        if !self.admits(&sections) {
            return Err(ValueError::expected(self.show(&sections), self));
        }
        *into = sections;
        Ok(())
    }
}

impl<S: Section> ListOf<S> {
    fn read_one(&self, item: &Spanned<DeValue<'_>>) -> Result<S, ValueError> {
        let start = item.span().start;
        let at = |at: usize, error: ValueError| ValueError {
            at: Some(at),
            ..error
        };
        let Some(table) = item.get_ref().as_table() else {
            let raw = RawValue::of_file(item.get_ref());
            return Err(at(start, ValueError::expected(raw, self)));
        };
        let mut section = S::default();
        for (name, value) in in_order(table) {
            let knob = S::KEYS.iter().find(|knob| knob.key == name.get_ref());
            let raw = RawValue::of_file(value.get_ref());
            let read = match knob {
                Some(knob) => knob.read(&mut section, raw),
                None => Err(ValueError::new(
                    name.get_ref().as_ref(),
                    format!("unknown key; known keys here: {}", known::<S>()),
                )),
            };
            read.map_err(|error| at(name.span().start, error.under(".")))?;
        }
        match S::NEEDED.iter().find(|key| !table.contains_key(**key)) {
            None => Ok(section),
            Some(key) => {
                let reason = format!("missing; every section needs {}", and(S::NEEDED));
                Err(at(start, ValueError::new(format!(".{key}"), reason)))
            }
        }
    }
}

fn differs<S: Section>(before: &[S], section: &S) -> Result<(), ValueError> {
    let Some(first) = before.iter().position(|other| section.is_same(other)) else {
        return Ok(());
    };
    let (list, unique) = (S::LIST, S::UNIQUE);
    let knob = S::KEYS.iter().find(|knob| knob.key == unique);
    Err(ValueError {
        value: knob.map(|knob| knob.show(section)),
        ..ValueError::new(unique, format!("{list}[{first}] has this {unique} already"))
    })
}

fn known<S: Section>() -> String {
    let keys: Vec<&str> = S::KEYS.iter().map(|knob| knob.key).collect();
    keys.join(", ")
}

/// Joins words: `a, b and c`.
fn and(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        words => words.concat(),
    }
}
