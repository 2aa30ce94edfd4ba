//! A value of a file or a flag: from what was written to what a knob holds.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Result;
use super::keys::WEIGHT_MAX;
use crate::wire::websocket::is_token_byte;

/// What is wrong with a value, and where inside it.
pub(super) struct Wrong {
    /// Offset in the file, when it is not the key's own.
    pub(super) at: Option<usize>,
    /// Continues the key, as in `[1].port`.
    pub(super) below: String,
    pub(super) what: String,
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Self {
            at: None,
            below: String::new(),
            what,
        }
    }
}

/// A value as it was written.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) toml: &'a DeValue<'a>,
    /// The text behind a flag, which is a string wherever a string is wanted: `--id 7`.
    pub(super) typed: Option<&'a str>,
}

impl fmt::Display for Given<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.toml {
            DeValue::String(text) => write!(f, "{text:?}"),
            DeValue::Integer(number) => number.fmt(f),
            DeValue::Float(number) => number.fmt(f),
            DeValue::Boolean(on) => on.fmt(f),
            other => write!(f, "this {}", other.type_str()),
        }
    }
}

/// Each of these checks the value and, if it is right, stores it in `into`.
impl Given<'_> {
    pub(super) fn wrong(self, what: &str, accepted: impl fmt::Display) -> Wrong {
        format!("{self} {what}; accepted: {accepted}").into()
    }

    pub(super) fn text(self, into: &mut String) -> Result<(), Wrong> {
        match self.toml.as_str().or(self.typed) {
            Some("") => Err(self.wrong("is empty", "a text of at least one character")),
            Some(text) => {
                *into = text.into();
                Ok(())
            }
            None => Err(self.wrong("is no text", "a text in quotes")),
        }
    }

    pub(super) fn header(self, into: &mut Option<String>) -> Result<(), Wrong> {
        let mut name = String::new();
        self.text(&mut name)?;
        if !name.bytes().all(is_token_byte) {
            return Err(self.wrong(
                "is no header",
                r#"the name of a header, such as "X-Real-IP""#,
            ));
        }
        *into = Some(name);
        Ok(())
    }

    pub(super) fn path(self, into: &mut Option<PathBuf>) -> Result<(), Wrong> {
        let mut path = String::new();
        self.text(&mut path)?;
        *into = Some(path.into());
        Ok(())
    }

    pub(super) fn texts(self, into: &mut Vec<String>) -> Result<(), Wrong> {
        let texts = self.toml.as_array().and_then(|array| {
            let texts = array
                .iter()
                .map(|item| item.get_ref().as_str().map(String::from));
            texts.collect()
        });
        let accepted = r#"["chat.onAdd", "chat.onLeave"]"#;
        *into = texts.ok_or_else(|| self.wrong("is no list of texts", accepted))?;
        Ok(())
    }

    pub(super) fn switch(self, into: &mut bool) -> Result<(), Wrong> {
        let on = self.toml.as_bool();
        *into = on.ok_or_else(|| self.wrong("is no switch", "true, false"))?;
        Ok(())
    }

    /// One of the words of an enum.
    pub(super) fn word<T: for<'de> Deserialize<'de>>(
        self,
        into: &mut T,
        words: &str,
    ) -> Result<(), Wrong> {
        let word = self.toml.as_str().unwrap_or("");
        let word = StrDeserializer::<serde::de::value::Error>::new(word);
        *into = T::deserialize(word).map_err(|_| self.wrong("is not known", words))?;
        Ok(())
    }

    pub(super) fn address(self, into: &mut SocketAddr) -> Result<(), Wrong> {
        let address = self.toml.as_str().and_then(|text| text.parse().ok());
        *into = address.ok_or_else(|| {
            let accepted = "ADDR:PORT, such as 127.0.0.1:3010, or [::]:3010 for all addresses";
            self.wrong("is no address with a port", accepted)
        })?;
        Ok(())
    }

    /// `None` for what no `usize` can hold.
    pub(super) fn integer(self) -> Option<usize> {
        let DeValue::Integer(number) = self.toml else {
            return None;
        };
        usize::from_str_radix(number.as_str(), number.radix()).ok()
    }

    pub(super) fn count<T: From<usize>>(
        self,
        into: &mut T,
        range: RangeInclusive<usize>,
    ) -> Result<(), Wrong> {
        let accepted = format!("a number from {} to {}", range.start(), range.end());
        if !self.toml.is_integer() {
            return Err(self.wrong("is no whole number", accepted));
        }
        let number = self.integer().filter(|number| range.contains(number));
        *into = number
            .ok_or_else(|| self.wrong("is out of range", accepted))?
            .into();
        Ok(())
    }

    pub(super) fn port(self, into: &mut u16) -> Result<(), Wrong> {
        let mut number = 0_usize;
        self.count(&mut number, 1..=usize::from(u16::MAX))?;
        *into = number as u16;
        Ok(())
    }

    pub(super) fn weight(self, into: &mut Option<u32>) -> Result<(), Wrong> {
        let mut number = 0_usize;
        self.count(&mut number, 0..=WEIGHT_MAX as usize)?;
        *into = Some(number as u32);
        Ok(())
    }

    pub(super) fn bytes(self, into: &mut usize, range: RangeInclusive<usize>) -> Result<(), Wrong> {
        let (low, high) = (range.start(), range.end());
        let accepted = format!(r#"{low} to {high} bytes, such as 65536, "64KiB" or "4MiB""#);
        let bytes = match self.toml {
            DeValue::String(text) => parse_bytes(text),
            DeValue::Integer(_) => Some(self.integer().unwrap_or(usize::MAX)),
            _ => None,
        };
        match bytes {
            Some(bytes) if range.contains(&bytes) => {
                *into = bytes;
                Ok(())
            }
            Some(_) => Err(self.wrong("is out of range", accepted)),
            None => Err(self.wrong("is no size", accepted)),
        }
    }

    pub(super) fn duration<T: From<Duration>>(
        self,
        into: &mut T,
        range: RangeInclusive<Duration>,
    ) -> Result<(), Wrong> {
        let accepted = format!(r#"{}, such as "3s" or "250ms""#, show(&range));
        *into = self.parse_duration(&range, &accepted)?.into();
        Ok(())
    }

    pub(super) fn seconds(
        self,
        into: &mut Option<Duration>,
        range: RangeInclusive<Duration>,
    ) -> Result<(), Wrong> {
        let accepted = format!(r#"whole seconds, {}, such as "3s""#, show(&range));
        let duration = self.parse_duration(&range, &accepted)?;
        if duration.subsec_nanos() != 0 {
            return Err(self.wrong("is not whole seconds", accepted));
        }
        *into = Some(duration);
        Ok(())
    }

    pub(super) fn parse_duration(
        self,
        range: &RangeInclusive<Duration>,
        accepted: &str,
    ) -> Result<Duration, Wrong> {
        let text = match self.toml {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(_) | DeValue::Float(_) => {
                return Err(self.wrong("has no unit", accepted));
            }
            _ => "",
        };
        match humantime::parse_duration(text) {
            Ok(duration) if range.contains(&duration) => Ok(duration),
            Ok(_) => Err(self.wrong("is out of range", accepted)),
            Err(humantime::DurationError::UnknownUnit { unit, .. }) if unit.is_empty() => {
                Err(self.wrong("has no unit", accepted))
            }
            Err(_) => Err(self.wrong("is no duration", accepted)),
        }
    }
}

fn show(range: &RangeInclusive<Duration>) -> String {
    let [low, high] = [range.start(), range.end()].map(|end| humantime::format_duration(*end));
    format!("{low} to {high}")
}

fn parse_bytes(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    // What overflows is a size, only not one that any range accepts.
    let number: usize = number.parse().ok()?;
    Some(number.saturating_mul(factor))
}

/// Entries of a table in the order they were written.
pub(super) fn in_order<'a, 'i>(
    table: &'a DeTable<'i>,
) -> Vec<(&'a Spanned<Cow<'i, str>>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}
