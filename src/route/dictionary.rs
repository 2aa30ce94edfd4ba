//! The route dictionary: two-byte codes for routes.

use std::collections::HashMap;

use base64::Engine as _;
use md5::{Digest as _, Md5};

use crate::wire::json;

/// Routes and their codes.
///
/// Codes: the handlers' routes, each once, sorted by UTF-16 units, from 1; then the user's list in its own
/// order. A route that occurs again gets the later code; the old code stays readable.
/// Bound:  codes fit two bytes; routes past 65 535 get none.
/// Source: Pomelo 2.2.7 `dictionary` component; `tests/vectors/client/dictionary.json`
#[derive(Debug, Default)]
pub struct Dictionary {
    /// `routes[code - 1]`
    routes: Vec<Box<str>>,
    codes: HashMap<Box<str>, u16, foldhash::fast::RandomState>,
    /// Routes in the order of their first code, as in the map that clients get.
    order: Vec<Box<str>>,
}

impl Dictionary {
    /// Builds the dictionary from the handlers' routes and the user's list.
    pub fn new<'a>(
        handlers: impl IntoIterator<Item = &'a str>,
        user: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut sorted: Vec<&str> = handlers.into_iter().collect();
        sorted.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
        sorted.dedup();
        let mut dictionary = Self::default();
        for route in sorted.into_iter().chain(user).take(usize::from(u16::MAX)) {
            dictionary.routes.push(route.into());
            let code = dictionary.routes.len() as u16;
            if dictionary.codes.insert(route.into(), code).is_none() {
                dictionary.order.push(route.into());
            }
        }
        dictionary
    }

    /// Returns the route of a code.
    pub fn route(&self, code: u16) -> Option<&str> {
        Some(self.routes.get(usize::from(code).checked_sub(1)?)?)
    }

    /// Returns the code of a route.
    pub fn code(&self, route: &str) -> Option<u16> {
        self.codes.get(route).copied()
    }

    /// Returns the map from routes to codes as JSON.
    pub fn routes_json(&self) -> String {
        let mut map = serde_json::Map::new();
        for route in &self.order {
            map.insert(route.to_string(), self.codes[route].into());
        }
        text(serde_json::Value::Object(map))
    }

    /// Returns the map from codes to routes as JSON.
    pub fn codes_json(&self) -> String {
        let mut map = serde_json::Map::new();
        for (index, route) in self.routes.iter().enumerate() {
            map.insert((index + 1).to_string(), route.to_string().into());
        }
        text(serde_json::Value::Object(map))
    }

    /// Returns the base64 of the MD5 of the map from routes to codes.
    pub fn version(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(Md5::digest(self.routes_json()))
    }
}

fn text(value: serde_json::Value) -> String {
    let mut out = Vec::new();
    json::write_value(&mut out, &value);
    String::from_utf8(out).expect("write_value writes UTF-8")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn handlers_are_sorted_and_the_users_list_is_not() {
        let dictionary = Dictionary::new(["a.b.c2", "a.b.c10", "A.b.c"], ["onChat", "a.b.c2"]);
        assert_eq!(
            dictionary.routes_json(),
            r#"{"A.b.c":1,"a.b.c10":2,"a.b.c2":5,"onChat":4}"#
        );
        assert_eq!(
            (dictionary.route(3), dictionary.route(5)),
            (Some("a.b.c2"), Some("a.b.c2"))
        );
        assert_eq!((dictionary.route(0), dictionary.route(6)), (None, None));
        assert_eq!(dictionary.code("onChat"), Some(4));
    }

    #[test]
    fn the_version_of_an_empty_dictionary_is_the_references() {
        assert_eq!(Dictionary::default().version(), "mZFLkyvTelC5g8XnyQrpOw==");
    }

    proptest! {
        #[test]
        fn every_route_has_a_code_that_is_read_as_it(
            handlers in prop::collection::vec(".{0,6}", 0..9), user in prop::collection::vec("[ab]{0,2}", 0..9),
        ) {
            let dictionary = Dictionary::new(
                handlers.iter().map(String::as_str),
                user.iter().map(String::as_str),
            );
            for route in handlers.iter().chain(&user) {
                let code = dictionary.code(route).expect("a code");
                prop_assert_eq!(dictionary.route(code), Some(&**route));
            }
            for text in [dictionary.routes_json(), dictionary.codes_json()] {
                prop_assert!(json::validate(text.as_bytes()).is_ok());
            }
        }
    }
}
