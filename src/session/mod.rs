//! Who a client is: session id, uid, settings.
//!
//! **Invariants**: an id is never given twice ([`slab`]); JSON texts held here are valid, so that
//! an export is a splice.
//!
//! **Absent**: sockets, the client's protocol state, other shards.
//!
//! **Where to start reading**: [`Identity`].

use crate::wire::json;

pub mod binding;
pub mod slab;

/// The part of a session that handlers and backends see, beside its id. Cloned on write: a message
/// that is being handled keeps the one it arrived with (C30, C81).
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// `None` when unbound.
    pub uid: Option<Uid>,
    /// Values pushed so far.
    pub settings: Settings,
}

/// A uid: a string or a number, kept as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uid {
    json: Box<str>,
    text: Box<str>,
}

impl Uid {
    /// From a JSON string or number; anything else is no uid.
    pub fn from_json(value: &serde_json::Value) -> Option<Self> {
        let text = match value {
            serde_json::Value::String(text) => text.as_str().into(),
            serde_json::Value::Number(number) => {
                let mut text = Vec::new();
                json::write_number(&mut text, number.as_f64()?);
                String::from_utf8(text).ok()?.into()
            }
            _ => return None,
        };
        let mut json = Vec::new();
        json::write_value(&mut json, value);
        Some(Self {
            json: String::from_utf8(json).ok()?.into(),
            text,
        })
    }

    /// From a text.
    pub fn from_text(text: &str) -> Self {
        let mut json = Vec::new();
        json::write_string(&mut json, text);
        let json = String::from_utf8(json).expect("write_string writes UTF-8");
        Self {
            json: json.into(),
            text: text.into(),
        }
    }

    /// As JSON: a number stays a number.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// As JavaScript's `String(uid)`: what routing and look-ups use.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Session settings: keys and JSON values in the order they were first set.
#[derive(Debug, Clone)]
pub struct Settings {
    values: serde_json::Map<String, serde_json::Value>,
    /// The same as text, for exports.
    json: Box<str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            values: serde_json::Map::new(),
            json: "{}".into(),
        }
    }
}

impl Settings {
    /// Sets one value.
    pub fn set(&mut self, key: &str, value: serde_json::Value) {
        self.values.insert(key.to_owned(), value);
        let mut text = Vec::new();
        json::write_value(&mut text, &serde_json::Value::Object(self.values.clone()));
        self.json = String::from_utf8(text)
            .expect("write_value writes UTF-8")
            .into();
    }

    /// One value.
    pub fn get(&self, key: &str) -> Option<&serde_json::Value> {
        self.values.get(key)
    }

    /// All as a JSON object.
    pub fn json(&self) -> &str {
        &self.json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numeric_uid_stays_a_number_and_is_looked_up_by_its_text() {
        let uid = Uid::from_json(&serde_json::json!(10001)).unwrap();
        assert_eq!((uid.json(), uid.text()), ("10001", "10001"));
        let uid = Uid::from_json(&serde_json::json!("10001")).unwrap();
        assert_eq!((uid.json(), uid.text()), ("\"10001\"", "10001"));
        assert_eq!(Uid::from_json(&serde_json::Value::Null), None);
    }

    #[test]
    fn settings_keep_the_order_of_first_use() {
        let mut settings = Settings::default();
        assert_eq!(settings.json(), "{}");
        settings.set("room", "a\"b".into());
        settings.set("n", serde_json::Value::Null);
        settings.set("room", 1.into());
        assert_eq!(settings.json(), "{\"room\":1,\"n\":null}");
    }
}
