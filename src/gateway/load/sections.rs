//! Lists of sections with an id each: `[[server]]` and `[[push.schedulers]]`.

use toml::Spanned;
use toml::de::DeValue;

use super::Result;
use super::keys::FLUSH_INTERVALS;
use super::value::{Given, Wrong, in_order};
use crate::config::{FLUSH_INTERVAL, NamedScheduler, Scheduler, Server};
use crate::push::select;

/// What a section is made of.
struct Section<T: 'static> {
    /// The key of the list.
    list: &'static str,
    /// What an error calls one.
    name: &'static str,
    keys: &'static [(&'static str, Set<T>)],
    /// Those of the keys that each must have.
    needed: &'static [&'static str],
    id: fn(&T) -> &str,
}

/// Checks a value and puts it where it belongs.
type Set<T> = fn(&mut T, Given<'_>) -> Result<(), Wrong>;

const SERVER: Section<Server> = Section {
    list: "server",
    name: "server",
    keys: &[
        ("id", |server, given| given.text(&mut server.id)),
        ("type", |server, given| given.text(&mut server.server_type)),
        ("host", |server, given| given.text(&mut server.host)),
        ("port", |server, given| given.port(&mut server.port)),
        ("weight", |server, given| given.weight(&mut server.weight)),
        ("client_host", |server, given| {
            given.text(server.client_host.insert(String::new()))
        }),
        ("client_port", |server, given| {
            given.port(server.client_port.insert(0))
        }),
    ],
    needed: &["id", "type", "host", "port"],
    id: |server| &server.id,
};

const SCHEDULER: Section<NamedScheduler> = Section {
    list: "push.schedulers",
    name: "scheduler",
    keys: &[
        ("id", |scheduler, given| {
            given.text(&mut scheduler.id)?;
            Ok(select::check_id(&scheduler.id)?)
        }),
        ("scheduler", |scheduler, given| {
            given.word(&mut scheduler.scheduler, "direct, buffer")
        }),
        ("flush_interval", |scheduler, given| {
            given.duration(&mut scheduler.flush_interval, FLUSH_INTERVALS)
        }),
    ],
    needed: &["id", "scheduler"],
    id: |scheduler| &scheduler.id,
};

/// The `[[server]]` sections.
pub(super) fn servers(into: &mut Vec<Server>, given: Given<'_>) -> Result<(), Wrong> {
    *into = SERVER.read_all(given, Server::default)?;
    Ok(())
}

/// The `[[push.schedulers]]` sections.
pub(super) fn schedulers(into: &mut Vec<NamedScheduler>, given: Given<'_>) -> Result<(), Wrong> {
    let blank = || NamedScheduler {
        id: String::new(),
        scheduler: Scheduler::Direct,
        flush_interval: FLUSH_INTERVAL,
    };
    *into = SCHEDULER.read_all(given, blank)?;
    Ok(())
}

impl<T> Section<T> {
    fn read_all(&self, given: Given<'_>, blank: fn() -> T) -> Result<Vec<T>, Wrong> {
        let Some(array) = given.toml.as_array() else {
            return Err(given.wrong("is no list", self.form()));
        };
        let mut all: Vec<T> = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let one = self.read(index, item, blank())?;
            let id = (self.id)(&one);
            if all.iter().any(|other| (self.id)(other) == id) {
                return Err(Wrong {
                    at: Some(item.span().start),
                    below: format!("[{index}].id"),
                    what: format!("{id:?} is used twice"),
                });
            }
            all.push(one);
        }
        Ok(all)
    }

    fn read(&self, index: usize, item: &Spanned<DeValue<'_>>, mut one: T) -> Result<T, Wrong> {
        let at = |key: &str, wrong: Wrong, at: usize| Wrong {
            at: Some(at),
            below: format!("[{index}]{key}"),
            ..wrong
        };
        let given = |toml| Given { toml, typed: None };
        let start = item.span().start;
        let Some(table) = item.get_ref().as_table() else {
            let what = format!("is no {}", self.name);
            let wrong = given(item.get_ref()).wrong(&what, self.form());
            return Err(at("", wrong, start));
        };
        for (name, value) in in_order(table) {
            let known = self.keys.iter().find(|(key, _)| key == name.get_ref());
            let stored = match known {
                Some((_, set)) => set(&mut one, given(value.get_ref())),
                None => Err(format!("unknown key; known keys here: {}", self.known()).into()),
            };
            let key = format!(".{}", name.get_ref());
            stored.map_err(|wrong| at(&key, wrong, name.span().start))?;
        }
        match self.needed.iter().find(|key| !table.contains_key(**key)) {
            None => Ok(one),
            Some(key) => {
                let what = format!("missing; every {} needs {}", self.name, and(self.needed));
                Err(at(&format!(".{key}"), what.into(), start))
            }
        }
    }

    fn known(&self) -> String {
        let names: Vec<&str> = self.keys.iter().map(|(key, _)| *key).collect();
        names.join(", ")
    }

    fn form(&self) -> String {
        format!("[[{}]] with keys {}", self.list, self.known())
    }
}

/// `a, b and c`.
fn and(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        words => words.concat(),
    }
}
