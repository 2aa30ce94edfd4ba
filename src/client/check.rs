//! Rules for the types and versions of clients: the reference's `checkClient` as a list.
//!
//! A rule is a client type, or `*` for any, followed by bounds for the version: `js-socket >=0.3.1 <2`.
//! A rule with `!` in front refuses. A client is accepted if no refusing rule matches and, if there are
//! other rules, one of them matches.

/// The parsed rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientCheck(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    refuses: bool,
    /// `None` matches any type.
    kind: Option<String>,
    bounds: Vec<(Bound, Version)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    AtLeast,
    AtMost,
    Above,
    Below,
    Exactly,
}

/// Operators, the longer ones first, so that `>=` is not read as `>`.
const BOUNDS: [(&str, Bound); 5] = [
    (">=", Bound::AtLeast),
    ("<=", Bound::AtMost),
    (">", Bound::Above),
    ("<", Bound::Below),
    ("=", Bound::Exactly),
];

/// The numbers between the dots, without zeros at the end: 1.0 equals 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Version(Vec<u64>);

impl Version {
    /// Returns `None` unless the text consists of numbers and dots.
    fn parse(text: &str) -> Option<Self> {
        let numbers = text.split('.').map(|number| number.parse().ok());
        let mut numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        Some(Self(numbers))
    }
}

impl ClientCheck {
    /// Parses rules. The error names the wrong rule and its fault.
    pub fn parse(rules: &[String]) -> Result<Self, String> {
        rules
            .iter()
            .map(|rule| Rule::parse(rule))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Returns true if a client is accepted. A client that sends no type or version has an empty one.
    /// No name and no bound matches an empty text, or a version that does not consist of numbers.
    pub fn accepts(&self, kind: &str, version: &str) -> bool {
        let any = |refuses: bool| {
            let mut rules = self.0.iter().filter(|rule| rule.refuses == refuses);
            rules.any(|rule| rule.matches(kind, version))
        };
        let all_refuse = self.0.iter().all(|rule| rule.refuses);
        !any(true) && (all_refuse || any(false))
    }

    /// Returns true if every client is accepted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not a rule for clients; expected \"TYPE\", \"* >=1.2\", \"TYPE >=0.3.1 <2\", \
                 \"!TYPE\""
            )
        };
        let (refuses, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut words = rest.split_whitespace();
        let kind = words.next().ok_or_else(wrong)?;
        let bounds = words.map(|word| {
            let bound = BOUNDS.iter().find_map(|(sign, bound)| {
                Some((*bound, Version::parse(word.strip_prefix(sign)?)?))
            });
            bound.ok_or_else(wrong)
        });
        Ok(Self {
            refuses,
            kind: (kind != "*").then(|| kind.to_owned()),
            bounds: bounds.collect::<Result<_, _>>()?,
        })
    }

    fn matches(&self, kind: &str, version: &str) -> bool {
        if self.kind.as_ref().is_some_and(|own| own != kind) {
            return false;
        }
        if self.bounds.is_empty() {
            return true;
        }
        Version::parse(version).is_some_and(|version| {
            self.bounds.iter().all(|(bound, limit)| match bound {
                Bound::AtLeast => version >= *limit,
                Bound::AtMost => version <= *limit,
                Bound::Above => version > *limit,
                Bound::Below => version < *limit,
                Bound::Exactly => version == *limit,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(rules: &[&str]) -> Result<ClientCheck, String> {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).into()).collect();
        ClientCheck::parse(&rules)
    }

    #[test]
    fn a_client_is_taken_by_type_and_version() {
        for (rules, kind, version, taken) in [
            (&[][..], "", "", true),
            (&["js-socket"], "js-socket", "", true),
            (&["js-socket"], "js-websocket", "1", false),
            (&["js-socket"], "", "", false),
            (&["* >=1.2"], "any", "1.2.0", true),
            (&["* >=1.2"], "any", "1.10", true),
            (&["* >=1.2"], "any", "1.1.9", false),
            (&["* >=1.2"], "any", "", false),
            (&["* >=1.2"], "any", "2-beta", false),
            (&["a >=0.3.1 <2", "b"], "a", "1.9.9", true),
            (&["a >=0.3.1 <2", "b"], "a", "2", false),
            (&["a >=0.3.1 <2", "b"], "b", "2", true),
            (&["a =1.0"], "a", "1", true),
            (&["a >1 <=2"], "a", "1", false),
            (&["!bad"], "bad", "1", false),
            (&["!bad"], "good", "", true),
            (&["*", "!a <1"], "a", "0.9", false),
            (&["*", "!a <1"], "a", "1.0", true),
        ] {
            assert_eq!(
                check(rules).unwrap().accepts(kind, version),
                taken,
                "{rules:?} {kind} {version}"
            );
        }
    }

    #[test]
    fn a_rule_that_cannot_be_read_is_refused() {
        for rule in ["", "!", "a 1.0", "a >=x", "a >=1 b", "a >= 1"] {
            let error = check(&["ok", rule]).unwrap_err();
            assert!(
                error.starts_with(&format!("{rule:?} is not a rule")),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_rule_or_an_error(
            rule in "!?[a*]?( (>|<|=|>=|<=)?[0-9.x]{0,24}){0,3}", any in ".{0,20}",
            kind in "[a*]?", version in "[0-9.]{0,24}",
        ) {
            for rule in [rule, any] {
                if let Ok(check) = ClientCheck::parse(&[rule]) {
                    let _ = check.accepts(&kind, &version);
                }
            }
        }
    }
}
