//! A value as a file or a flag has it, and the error of a value that a knob does not accept.

use std::borrow::Cow;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A written value.
#[derive(Clone, Copy)]
pub(crate) struct RawValue<'a> {
    pub(crate) toml: &'a DeValue<'a>,
    /// The text of a flag, for knobs that take a text: `--id 7`.
    pub(crate) flag: Option<&'a str>,
}

impl<'a> RawValue<'a> {
    /// A value of a file.
    pub(crate) fn of_file(toml: &'a DeValue<'a>) -> Self {
        Self { toml, flag: None }
    }

    /// Returns the text of a string, or of any value of a flag.
    pub(super) fn text(self) -> Option<&'a str> {
        self.toml.as_str().or(self.flag)
    }

    /// Returns a whole number, unless `usize` cannot hold it.
    pub(super) fn integer(self) -> Option<usize> {
        let DeValue::Integer(number) = self.toml else {
            return None;
        };
        usize::from_str_radix(number.as_str(), number.radix()).ok()
    }
}

impl fmt::Display for RawValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.toml {
            DeValue::String(text) => write!(f, "{text:?}"),
            DeValue::Integer(number) => number.fmt(f),
            DeValue::Float(number) => number.fmt(f),
            DeValue::Boolean(on) => on.fmt(f),
            DeValue::Array(_) => f.write_str("[...]"),
            DeValue::Table(_) => f.write_str("{...}"),
            DeValue::Datetime(time) => time.fmt(f),
        }
    }
}

/// A value that a knob does not accept. Its text names the key, the value and the accepted values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ValueError {
    /// Key of the knob, then the place inside its value: `server[1].port`.
    pub(crate) key: String,
    /// Offset of that place in the file, if it is inside the value.
    pub(crate) at: Option<usize>,
    /// The value as `tangelo.toml` has it; `None` where `reason` quotes it.
    pub(crate) value: Option<String>,
    pub(crate) reason: String,
}

impl ValueError {
    pub(crate) fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            at: None,
            value: None,
            reason: reason.into(),
        }
    }

    /// The error of a value that is not among the accepted ones.
    pub(crate) fn expected(value: impl fmt::Display, accepted: impl fmt::Display) -> Self {
        Self {
            value: Some(value.to_string()),
            ..Self::new("", format!("expected {accepted}"))
        }
    }

    /// Puts a key, or a part of one, in front.
    pub(crate) fn under(mut self, key: &str) -> Self {
        self.key.insert_str(0, key);
        self
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}: {}", self.key, self.reason),
            None => write!(f, "{}: {}", self.key, self.reason),
        }
    }
}

/// Returns the entries of a table in the order of the file.
pub(crate) fn in_order<'a, 'i>(
    table: &'a DeTable<'i>,
) -> Vec<(&'a Spanned<Cow<'i, str>>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}
