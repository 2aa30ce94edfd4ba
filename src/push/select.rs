//! The configured push schedulers, and the rules that choose one for each package.
//!
//! Ids and rules are parsed once, at start: a package carries a [`Via`], not an id.

use std::time::Duration;

use bytes::Bytes;

use crate::config::{self, Scheduler as Kind};
use crate::limits::{PUSH_RULES_MAX, PUSH_SCHEDULERS_MAX, ROUTE_BYTES_MAX};

/// Id of the scheduler that `push.scheduler` and `push.flush_interval` set up. It takes all packages
/// that no rule names.
pub const DEFAULT: &str = "default";
/// Word for all responses in a rule, in place of the route of a push.
const RESPONSE: &str = "response";

/// The scheduler of a package. All direct schedulers are equal, so they are one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Via {
    /// Written at the end of the turn.
    #[default]
    Direct,
    /// Written with the next interval of the buffer scheduler with this index.
    Buffer(u8),
}

/// A package that was encoded once for all who get it, and its scheduler.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The package.
    pub bytes: Bytes,
    /// Its scheduler.
    pub via: Via,
}

/// The schedulers, and the rules of `push.select`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Ids and schedulers, the default one first.
    schedulers: Vec<(Box<str>, Via)>,
    /// Intervals of the buffer schedulers, by index.
    intervals: Vec<Duration>,
    response: Via,
    pushes: Vec<(Pattern, Via)>,
}

impl Selector {
    /// Parses the configuration. An error is the key, and a text that quotes the value and names the
    /// accepted ones.
    pub fn new(config: &config::Push) -> Result<Self, (&'static str, String)> {
        let count = config.schedulers.len() + 1;
        if count > PUSH_SCHEDULERS_MAX {
            let most = PUSH_SCHEDULERS_MAX - 1;
            let text = format!(
                "{} schedulers; expected up to {most} besides {DEFAULT:?}",
                count - 1,
            );
            return Err(("push.schedulers", text));
        }
        let mut selector = Self {
            schedulers: Vec::with_capacity(count),
            intervals: Vec::new(),
            response: Via::Direct,
            pushes: Vec::new(),
        };
        selector.add(DEFAULT, config.scheduler, config.flush_interval);
        for scheduler in &config.schedulers {
            check_id(&scheduler.id).map_err(|text| ("push.schedulers", text))?;
            if selector.by_id(&scheduler.id).is_some() {
                let text = format!("{:?} is used twice", scheduler.id);
                return Err(("push.schedulers", text));
            }
            selector.add(&scheduler.id, scheduler.scheduler, scheduler.flush_interval);
        }
        selector
            .read_rules(&config.select)
            .map_err(|text| ("push.select", text))?;
        selector.check_invariants();
        Ok(selector)
    }

    fn check_invariants(&self) {
        assert!((1..=PUSH_SCHEDULERS_MAX).contains(&self.schedulers.len()));
        assert!(self.pushes.len() <= PUSH_RULES_MAX);
        let known = |via: &Via| match via {
            Via::Direct => true,
            Via::Buffer(buffer) => usize::from(*buffer) < self.intervals.len(),
        };
        let schedulers = self.schedulers.iter().map(|(_, via)| via);
        let rules = self.pushes.iter().map(|(_, via)| via);
        let mut all = schedulers.chain(rules).chain([&self.response]);
        assert!(all.all(known), "a buffer scheduler has no interval");
    }

    fn add(&mut self, id: &str, kind: Kind, flush_interval: Duration) {
        let via = match kind {
            Kind::Direct => Via::Direct,
            Kind::Buffer => {
                self.intervals.push(flush_interval);
                Via::Buffer(self.intervals.len() as u8 - 1)
            }
        };
        self.schedulers.push((id.into(), via));
    }

    fn read_rules(&mut self, rules: &[String]) -> Result<(), String> {
        let mut response = None;
        for rule in parse(rules)? {
            let via = self.by_id(rule.id).ok_or_else(|| {
                let known: Vec<_> = self.schedulers.iter().map(|(id, _)| &**id).collect();
                let known = known.join(", ");
                format!(
                    "{:?} names an unknown push scheduler; expected {known}",
                    rule.text
                )
            })?;
            match rule.pattern {
                None => response = response.or(Some(via)),
                Some(pattern) => self.pushes.push((pattern, via)),
            }
        }
        self.response = response.unwrap_or(self.default());
        Ok(())
    }

    fn default(&self) -> Via {
        self.schedulers[0].1
    }

    /// Returns the scheduler with an id, also for `default`.
    pub fn by_id(&self, id: &str) -> Option<Via> {
        let mut schedulers = self.schedulers.iter();
        let found = schedulers.find(|(known, _)| **known == *id);
        found.map(|(_, via)| *via)
    }

    /// Returns the scheduler that the rules choose for responses.
    pub fn response(&self) -> Via {
        self.response
    }

    /// Returns the scheduler that the rules choose for a push. Cost: one comparison per rule.
    pub fn push(&self, route: &str) -> Via {
        let mut rules = self.pushes.iter();
        let found = rules.find(|(pattern, _)| pattern.matches(route));
        found.map_or(self.default(), |(_, via)| *via)
    }

    /// Returns the interval of each buffer scheduler, by index.
    pub fn intervals(&self) -> &[Duration] {
        &self.intervals
    }
}

/// Checks the form of the id of a scheduler.
fn check_id(id: &str) -> Result<(), String> {
    if id != DEFAULT && !id.is_empty() && !id.contains(char::is_whitespace) {
        return Ok(());
    }
    Err(format!(
        "{id:?} cannot be an id; expected a text without spaces, not {DEFAULT:?}, which is the \
         scheduler of push.scheduler"
    ))
}

/// A rule: `response ID`, or the route of a push or its start with `*`, and an id.
struct Rule<'a> {
    text: &'a str,
    /// `None` for responses.
    pattern: Option<Pattern>,
    id: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Route(Box<str>),
    StartsWith(Box<str>),
}

impl Pattern {
    fn matches(&self, route: &str) -> bool {
        match self {
            Self::Route(own) => **own == *route,
            Self::StartsWith(start) => route.starts_with(&**start),
        }
    }
}

fn parse(rules: &[String]) -> Result<Vec<Rule<'_>>, String> {
    if rules.len() > PUSH_RULES_MAX {
        return Err(format!(
            "{} rules; expected up to {PUSH_RULES_MAX}",
            rules.len()
        ));
    }
    rules
        .iter()
        .map(|text| {
            Rule::parse(text).ok_or_else(|| {
                format!(
                    "{text:?} is not a rule for pushes; expected \"response ID\", \"onMove ID\", \
                     \"chat.* ID\""
                )
            })
        })
        .collect()
}

impl<'a> Rule<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        // A route may contain spaces, an id may not.
        let (what, id) = text.trim().rsplit_once(char::is_whitespace)?;
        let what = what.trim_end();
        let (route, pattern) = match what.strip_suffix('*') {
            Some(start) => (start, Pattern::StartsWith(start.into())),
            None => (what, Pattern::Route(what.into())),
        };
        let fits = route.len() <= ROUTE_BYTES_MAX && !route.contains('*');
        fits.then_some(Self {
            text,
            pattern: (what != RESPONSE).then_some(pattern),
            id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NamedScheduler;

    const MS: Duration = Duration::from_millis(1);

    fn named(id: &str, scheduler: Kind, ms: u32) -> NamedScheduler {
        NamedScheduler {
            id: id.into(),
            scheduler,
            flush_interval: ms * MS,
        }
    }

    fn read(schedulers: &[NamedScheduler], select: &[&str]) -> Result<Selector, String> {
        let selector = Selector::new(&config::Push {
            schedulers: schedulers.into(),
            select: select.iter().map(|rule| (*rule).into()).collect(),
            ..config::Push::default()
        });
        selector.map_err(|(key, text)| format!("{key}: {text}"))
    }

    #[test]
    fn the_first_rule_that_matches_chooses() {
        let schedulers = [
            named("slow", Kind::Buffer, 200),
            named("now", Kind::Direct, 20),
            named("fast", Kind::Buffer, 5),
        ];
        let rules = [
            "onMoveBack now",
            "onMove* slow",
            "a route  fast",
            "chat.*  fast ",
            " response slow",
            "response fast",
            "* default",
            "onNever slow",
        ];
        let selector = read(&schedulers, &rules).unwrap();
        let (slow, fast) = (Via::Buffer(0), Via::Buffer(1));
        assert_eq!(selector.intervals(), [200 * MS, 5 * MS]);
        assert_eq!(selector.response(), slow);
        for (route, via) in [
            ("onMoveBack", Via::Direct),
            ("onMove", slow),
            ("onMoveBackwards", slow),
            ("chat.", fast),
            ("chat", Via::Direct),
            ("a route", fast),
            ("onNever", Via::Direct),
            ("response", Via::Direct),
        ] {
            assert_eq!(selector.push(route), via, "{route}");
        }
        assert_eq!(selector.by_id("now"), Some(Via::Direct));
        assert_eq!(selector.by_id("fast"), Some(fast));
        assert_eq!(selector.by_id("nobody"), None);
    }

    #[test]
    fn without_rules_everything_goes_to_the_default_one() {
        let selector = Selector::new(&config::Push {
            scheduler: Kind::Buffer,
            ..config::Push::default()
        });
        let selector = selector.unwrap();
        let vias = [
            Some(selector.response()),
            Some(selector.push("onX")),
            selector.by_id(DEFAULT),
        ];
        assert_eq!(vias, [Some(Via::Buffer(0)); 3]);
        assert_eq!(selector.intervals(), [20 * MS]);
    }

    #[test]
    fn wrong_rules_and_ids_are_refused_with_the_expected_forms() {
        let one = [named("slow", Kind::Buffer, 1)];
        let form = "expected \"response ID\", \"onMove ID\", \"chat.* ID\"";
        for rule in ["slow", "", " ", "*a slow", "a*b slow", "a** slow"] {
            let text = format!("push.select: {rule:?} is not a rule for pushes; {form}");
            assert_eq!(read(&one, &[rule]), Err(text));
        }
        let unknown = "push.select: \"response fast\" names an unknown push scheduler; expected default, slow";
        assert_eq!(
            read(&one, &["* slow", "response fast"]),
            Err(unknown.into())
        );
        for id in ["", "a b", "default"] {
            let text = read(&[named(id, Kind::Direct, 1)], &[]).unwrap_err();
            assert!(text.contains("cannot be an id; expected "), "{text}");
        }
        let twice = [one[0].clone(), one[0].clone()];
        let text = "push.schedulers: \"slow\" is used twice";
        assert_eq!(read(&twice, &[]), Err(text.into()));
    }

    #[test]
    fn schedulers_and_rules_beyond_their_bounds_are_refused() {
        let schedulers = |count: usize| {
            let ids = (0..count).map(|n| named(&n.to_string(), Kind::Buffer, 1));
            ids.collect::<Vec<_>>()
        };
        let most = PUSH_SCHEDULERS_MAX - 1;
        assert!(read(&schedulers(most), &[]).is_ok());
        let text = read(&schedulers(most + 1), &[]).unwrap_err();
        assert_eq!(
            text,
            "push.schedulers: 8 schedulers; expected up to 7 besides \"default\""
        );
        assert!(read(&[], &["* default"; PUSH_RULES_MAX]).is_ok());
        assert!(read(&[], &["* default"; PUSH_RULES_MAX + 1]).is_err());
    }
}
