//! Sessions: id, uid and settings of a client.
//!
//! **Invariants**: an id is never given twice ([`slab`]); the JSON texts here are valid, so an export
//! only joins them.
//!
//! **Absent**: sockets, the client's protocol state, other shards.
//!
//! **Where to start reading**: [`Identity`].

use crate::dialect::Dialect;
use crate::wire::json;

pub mod binding;
pub mod slab;

/// The part of a session that handlers and backends see, besides its id. A change copies it if a
/// message holds it: that message keeps the identity that it arrived with (C30, C81).
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// `None` when unbound.
    pub uid: Option<Uid>,
    /// The settings.
    pub settings: Settings,
}

impl Identity {
    /// Binds to a uid, if it is `free` for this session. Returns false if the session already has it.
    pub fn bind(&mut self, uid: &Uid, free: bool) -> Result<bool, BindError> {
        match &self.uid {
            Some(known) if known == uid => Ok(false),
            Some(known) if !known.is_falsy() => Err(BindError::Bound(known.clone())),
            _ if !free => Err(BindError::Taken(uid.clone())),
            _ => {
                self.uid = Some(uid.clone());
                Ok(true)
            }
        }
    }

    /// Unbinds from a uid.
    pub fn unbind(&mut self, uid: &Uid) -> Result<(), BindError> {
        match &self.uid {
            Some(known) if known == uid && !known.is_falsy() => {
                self.uid = None;
                Ok(())
            }
            other => Err(BindError::NotBound(other.clone())),
        }
    }
}

/// The reason why a bind or unbind failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindError {
    /// The session is bound to this uid.
    Bound(Uid),
    /// Another session is bound to this uid, which may have only one.
    Taken(Uid),
    /// The session is bound to this other uid, or to none.
    NotBound(Option<Uid>),
}

impl BindError {
    /// Returns the text of the reference.
    pub fn text(&self, dialect: Dialect) -> String {
        let word = dialect.bound_word();
        match self {
            Self::Bound(uid) => format!("session has already {word} with {}", uid.text()),
            Self::Taken(uid) => format!(
                "singleSession is enabled, and session has already {word} with uid: {}",
                uid.text()
            ),
            Self::NotBound(uid) => {
                let uid = uid.as_ref().map_or("null", Uid::text);
                format!("session has not bind with {uid}")
            }
        }
    }
}

/// A uid: a string or a number, in its original form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uid {
    json: Box<str>,
    text: Box<str>,
}

impl Uid {
    /// Returns the uid of a JSON string or number, or `None` for another value.
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

    /// Creates a uid from a text.
    pub fn from_text(text: &str) -> Self {
        let mut json = Vec::new();
        json::write_string(&mut json, text);
        let json = String::from_utf8(json).expect("write_string writes UTF-8");
        Self {
            json: json.into(),
            text: text.into(),
        }
    }

    /// Returns the uid as JSON; a number stays a number.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Returns JavaScript's `String(uid)`, which routing and look-ups use.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns true for a falsy uid, which counts as none.
    fn is_falsy(&self) -> bool {
        self.text.is_empty() || &*self.json == "0"
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Self::from_text(text)
    }
}

impl From<String> for Uid {
    fn from(text: String) -> Self {
        Self::from_text(&text)
    }
}

impl From<u32> for Uid {
    fn from(number: u32) -> Self {
        let text: Box<str> = number.to_string().into();
        Self {
            json: text.clone(),
            text,
        }
    }
}

/// The settings of a session: keys and JSON values, in the order in which they were first set.
#[derive(Debug, Clone)]
pub struct Settings {
    values: serde_json::Map<String, serde_json::Value>,
    /// The settings as JSON text, for exports.
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
        self.print();
    }

    /// Removes one value; the others keep their order.
    pub fn remove(&mut self, key: &str) {
        if self.values.shift_remove(key).is_some() {
            self.print();
        }
    }

    fn print(&mut self) {
        let mut text = Vec::new();
        json::write_value(&mut text, &serde_json::Value::Object(self.values.clone()));
        self.json = String::from_utf8(text)
            .expect("write_value writes UTF-8")
            .into();
    }

    /// Returns one value.
    pub fn get(&self, key: &str) -> Option<&serde_json::Value> {
        self.values.get(key)
    }

    /// Returns all values, in the order in which they were first set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &serde_json::Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Returns all values as a JSON object.
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
