//! The blacklist: regular expressions for addresses that may not connect.
//!
//! As in the reference's `useHostFilter`, an expression is searched anywhere in the address, which is
//! `::ffff:a.b.c.d` for an IPv4 client of a listener on `[::]` (C2, C3). Unlike there, an expression
//! takes time linear in the address, and look-around and back-references are not supported.

use std::fmt;

use regex::{RegexSet, RegexSetBuilder};

use crate::limits::{BLACKLIST_BYTES_MAX, BLACKLIST_MAX};

/// The expressions of the configuration, of its file, of the delegate and of the master's console, compiled once.
///
/// Bound: `limits::BLACKLIST_MAX` expressions, `limits::BLACKLIST_BYTES_MAX` compiled.
/// Cost:  one pass over the address for all of them.
#[derive(Debug, Clone, Default)]
pub struct HostFilter {
    configured: Vec<String>,
    file: Vec<String>,
    delegate: Vec<String>,
    console: Vec<String>,
    /// All expressions.
    set: RegexSet,
}

/// An invalid expression, or too many expressions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadExpression {
    /// Line in the file, from 1, or 0 for an expression without a file.
    pub line: usize,
    /// The fault, with the expression.
    pub text: String,
}

impl fmt::Display for BadExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.text),
            line => write!(f, "line {line}: {}", self.text),
        }
    }
}

impl HostFilter {
    /// Compiles the expressions of the configuration.
    pub fn new(configured: &[String]) -> Result<Self, BadExpression> {
        configured
            .iter()
            .try_for_each(|expression| check(expression, 0))?;
        let configured = configured.to_vec();
        Self {
            configured,
            ..Self::default()
        }
        .compiled()
    }

    /// Replaces the expressions of the configuration.
    pub fn with_configured(&self, configured: &[String]) -> Result<Self, BadExpression> {
        Self {
            configured: configured.to_vec(),
            ..self.clone()
        }
        .compiled()
    }

    /// Replaces the expressions of the file. The file has one expression per line; empty lines and
    /// lines that begin with `#` are ignored.
    pub fn with_file(&self, text: &str) -> Result<Self, BadExpression> {
        let mut file = Vec::new();
        for (line, expression) in text.lines().map(str::trim).enumerate() {
            if !expression.is_empty() && !expression.starts_with('#') {
                check(expression, line + 1)?;
                file.push(expression.to_owned());
            }
        }
        Self {
            file,
            ..self.clone()
        }
        .compiled()
    }

    /// Replaces the expressions of the delegate. Returns the invalid ones, which are left out.
    pub fn with_delegate(
        &self,
        list: &[String],
    ) -> (Result<Self, BadExpression>, Vec<BadExpression>) {
        let (mut filter, mut bad) = (self.clone(), Vec::new());
        filter.delegate.clear();
        for expression in list {
            match check(expression, 0) {
                Ok(()) => filter.delegate.push(expression.clone()),
                Err(error) => bad.push(error),
            }
        }
        (filter.compiled(), bad)
    }

    /// Adds expressions of the console. Returns the invalid ones, which are left out.
    pub fn with_console(
        &self,
        more: &[String],
    ) -> (Result<Self, BadExpression>, Vec<BadExpression>) {
        let mut bad = Vec::new();
        let mut filter = self.clone();
        for expression in more {
            match check(expression, 0) {
                Ok(()) if filter.console.contains(expression) => {}
                Ok(()) => filter.console.push(expression.clone()),
                Err(error) => bad.push(error),
            }
        }
        (filter.compiled(), bad)
    }

    fn compiled(mut self) -> Result<Self, BadExpression> {
        let all = self
            .configured
            .iter()
            .chain(&self.file)
            .chain(&self.delegate)
            .chain(&self.console);
        let count = all.clone().count();
        let too_much = |text: String| BadExpression { line: 0, text };
        if count > BLACKLIST_MAX {
            let text = format!("{count} expressions; expected up to {BLACKLIST_MAX}");
            return Err(too_much(text));
        }
        let set = RegexSetBuilder::new(all)
            .size_limit(BLACKLIST_BYTES_MAX)
            .build();
        self.set = set.map_err(|error| too_much(format!("{count} expressions: {error}")))?;
        assert_eq!(self.set.len(), count, "an expression was left out");
        Ok(self)
    }

    /// Returns true if a client with this address (without its port) must be closed.
    pub fn refuses(&self, address: &str) -> bool {
        self.set.is_match(address)
    }

    /// Returns true if no address can match.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

fn check(expression: &str, line: usize) -> Result<(), BadExpression> {
    let Err(error) = regex::RegexBuilder::new(expression)
        .size_limit(BLACKLIST_BYTES_MAX)
        .build()
    else {
        return Ok(());
    };
    // The last line names the fault; the lines before show its place.
    let error = error.to_string();
    let reason = error.lines().last().unwrap_or_default();
    let reason = reason.trim_start_matches("error: ");
    let text = format!("{expression:?} cannot be used as a regular expression: {reason}");
    Err(BadExpression { line, text })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(expressions: &[&str]) -> Result<HostFilter, BadExpression> {
        let expressions: Vec<String> = expressions.iter().map(|text| (*text).into()).collect();
        HostFilter::new(&expressions)
    }

    #[test]
    fn an_expression_is_searched_anywhere() {
        for (expression, mapped, plain) in [
            (r"127\.0\.0\.1", true, true),
            ("127.0", true, true),
            ("^127", false, true),
            ("", true, true),
            (r"^::ffff:10\.", false, false),
            (r"\.1$", true, true),
            ("FFFF", false, false),
        ] {
            let filter = filter(&[expression]).unwrap();
            let found = ["::ffff:127.0.0.1", "127.0.0.1"].map(|address| filter.refuses(address));
            assert_eq!(found, [mapped, plain], "{expression}");
        }
        assert!(!HostFilter::default().refuses("127.0.0.1"));
        assert!(filter(&["10.0", "^::1$"]).unwrap().refuses("::1"));
    }

    #[test]
    fn a_bad_expression_is_refused_with_its_text() {
        for (expression, reason) in [
            ("(", "unclosed group"),
            (
                "a(?=b)",
                "look-around, including look-ahead and look-behind, is not supported",
            ),
            (r"(a)\1", "backreferences are not supported"),
            (
                "(a{1000}){1000}",
                "Compiled regex exceeds size limit of 10485760 bytes.",
            ),
        ] {
            let error = filter(&["10.0", expression]).unwrap_err();
            let text = format!("{expression:?} cannot be used as a regular expression: {reason}");
            assert_eq!(error, BadExpression { line: 0, text });
        }
        let many = vec!["1"; BLACKLIST_MAX + 1];
        assert_eq!(
            filter(&many).unwrap_err().to_string(),
            "10001 expressions; expected up to 10000"
        );
    }

    /// An engine that goes back and tries again would not end on these in the age of the universe.
    #[test]
    fn an_expression_needs_no_more_time_than_the_text_is_long() {
        for expression in [
            "(a*)*b",
            "^(a+)+$",
            "(a|aa)+$",
            "(.*a){12}b",
            "^([a-z0-9]+[.:]?)*!$",
        ] {
            let filter = filter(&[expression]).unwrap();
            for letters in [45, 10_000] {
                assert!(!filter.refuses(&format!("{}!?", "a".repeat(letters))));
            }
        }
    }

    #[test]
    fn file_and_delegate_replace_their_list_and_the_console_adds() {
        let filter = filter(&["^1$"]).unwrap();
        let filter = filter.with_file("# a list\n\n ^2$ \n^3$").unwrap();
        let error = filter.with_file("^4$\n[").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("line 2: \"[\" cannot be used"),
            "{error}"
        );
        let (added, bad) = filter.with_console(&["^4$".into(), "*".into(), "^4$".into()]);
        let filter = added.unwrap();
        assert_eq!(bad.len(), 1, "{bad:?}");
        let filter = filter.with_file("^5$").unwrap();
        let refused = ["1", "2", "3", "4", "5"].map(|address| filter.refuses(address));
        assert_eq!(refused, [true, false, false, true, true]);
        let (replaced, bad) = filter.with_delegate(&["^2$".into(), "(".into()]);
        assert_eq!(bad.len(), 1, "{bad:?}");
        let (replaced, _) = replaced.unwrap().with_delegate(&["^3$".into()]);
        let filter = replaced.unwrap();
        let refused = ["1", "2", "3", "4", "5"].map(|address| filter.refuses(address));
        assert_eq!(refused, [true, false, true, true, true]);
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_an_error(
            text in "[\\\\()\\[\\]{},*+?|^$.:0-9a-f#\n -]{0,40}", address in "[0-9a-f:.]{0,45}",
        ) {
            if let Ok(filter) = HostFilter::default().with_file(&text) {
                let _ = filter.refuses(&address);
            }
            let lines: Vec<String> = text.lines().map(String::from).collect();
            let (added, bad) = HostFilter::default().with_console(&lines);
            prop_assert!(added.is_ok() && bad.len() <= lines.len());
        }
    }
}
