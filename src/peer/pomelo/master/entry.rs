//! Entries of the master's list, and the entry of this server.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::config::Server;
use crate::limits::SERVERS_MAX;
use crate::wire::json;

/// One server as the master describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerInfo {
    /// Server id.
    pub id: String,
    /// Server type.
    pub server_type: String,
    /// Host name or address of its RPC port.
    pub host: String,
    /// Its RPC port.
    pub port: u16,
    /// It has clients of its own.
    pub frontend: bool,
    /// Its share when servers are chosen by weight.
    pub weight: Option<f64>,
    /// The whole entry.
    pub raw: Value,
}

impl ServerInfo {
    /// Reads one entry; `None` when it lacks what a call needs. Numbers written as text count.
    pub fn new(raw: Value) -> Option<Self> {
        let member = |name| raw.get(name).filter(|value| !value.is_null());
        let port = number(member("port")?)?;
        // A cast takes what is out of range to its end, and a NaN to 0.
        let port = Some(port as u16).filter(|p| f64::from(*p) == port && *p > 0)?;
        Some(Self {
            id: text(member("id")?)?,
            server_type: text(member("serverType")?)?,
            host: text(member("host")?)?,
            port,
            frontend: member("frontend").is_some_and(|value| *value == true || *value == "true"),
            weight: member("weight").and_then(number),
            raw,
        })
    }

    /// Returns the part that calls need.
    pub fn server(&self) -> Server {
        let client_port = self.raw.get("clientPort").and_then(number);
        Server {
            id: self.id.clone(),
            server_type: self.server_type.clone(),
            host: self.host.clone(),
            port: self.port,
            weight: self.weight.map(|weight| weight as u32),
            client_host: self.raw.get("clientHost").and_then(text),
            client_port: client_port.map(|port| port as u16).filter(|port| *port > 0),
        }
    }
}

/// All servers that the master knows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServerList {
    /// The others, in the master's order.
    pub servers: Vec<ServerInfo>,
    /// This server: to be looked at, never to be called.
    pub own: Option<ServerInfo>,
    /// Entries without id, type, host or port.
    pub unusable: usize,
    /// Entries past `limits::SERVERS_MAX`.
    pub over_limit: usize,
}

impl ServerList {
    /// Reads a list; of entries with the same id the last one counts, at the place of the first.
    pub(super) fn new(entries: Map<String, Value>, own_id: &str) -> Self {
        let mut list = Self::default();
        let mut places = HashMap::new();
        for (_, entry) in entries {
            let Some(server) = ServerInfo::new(entry) else {
                list.unusable += 1;
                continue;
            };
            if server.id == own_id {
                list.own = Some(server);
            } else if let Some(place) = places.get(&server.id) {
                list.servers[*place] = server;
            } else if list.servers.len() < SERVERS_MAX {
                places.insert(server.id.clone(), list.servers.len());
                list.servers.push(server);
            } else {
                list.over_limit += 1;
            }
        }
        assert!(list.servers.len() <= SERVERS_MAX);
        assert_eq!(list.servers.len(), places.len(), "an id stands twice");
        list
    }
}

/// A text that is not empty, or a number as text: an id such as `7` became one on its way.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(_) => {
            let mut text = Vec::new();
            json::write_value(&mut text, value);
            String::from_utf8(text).ok()
        }
        _ => None,
    }
}

/// A number, or a text that is one.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => decimal(text),
        value => value.as_f64(),
    }
}

/// The number that a decimal text is to JavaScript.
fn decimal(text: &str) -> Option<f64> {
    let text = text.trim();
    // Rust also takes `inf` and `nan`.
    let digits = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    if !text.bytes().all(digits) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(change: &str, value: Value) -> Option<ServerInfo> {
        let mut entry = json!({"id": "chat-1", "serverType": "chat", "host": "h", "port": 3150});
        entry[change] = value;
        ServerInfo::new(entry)
    }

    #[test]
    fn an_entry_without_the_fields_for_calls_is_refused() {
        for name in ["id", "serverType", "host", "port"] {
            for value in [json!(null), json!(""), json!({}), json!(true)] {
                assert_eq!(entry(name, value.clone()), None, "{name} {value}");
            }
        }
        for port in [
            json!(0),
            json!(65536),
            json!(-1),
            json!(1.5),
            json!("x"),
            json!("inf"),
        ] {
            assert_eq!(entry("port", port.clone()), None, "{port}");
        }
        assert_eq!(ServerInfo::new(json!("chat-1")), None);
    }

    #[test]
    fn numbers_and_texts_stand_for_each_other() {
        assert_eq!(entry("port", json!("3151")).unwrap().port, 3151);
        assert_eq!(entry("id", json!(7)).unwrap().id, "7");
        for (weight, read) in [
            (json!(2), Some(2.0)),
            (json!("1.5"), Some(1.5)),
            (json!("much"), None),
        ] {
            assert_eq!(entry("weight", weight).unwrap().weight, read);
        }
        for (frontend, read) in [
            (json!("true"), true),
            (json!(true), true),
            (json!("false"), false),
        ] {
            assert_eq!(entry("frontend", frontend).unwrap().frontend, read);
        }
    }

    #[test]
    fn a_list_is_in_the_order_of_javascript_and_without_this_server() {
        let text = br#"{"b":{"id":"b","serverType":"s","host":"h","port":1},
            "own":{"id":"own","serverType":"s","host":"h","port":2},
            "10":{"id":10,"serverType":"s","host":"h","port":3},
            "x":{"id":"x"}, "9":{"id":"9","serverType":"s","host":"h","port":4},
            "c":{"id":"b","serverType":"s","host":"h","port":5}}"#;
        let Some(Value::Object(entries)) = json::parse(text) else {
            panic!()
        };
        let list = ServerList::new(entries, "own");
        let servers: Vec<(&str, u16)> = list
            .servers
            .iter()
            .map(|server| (server.id.as_str(), server.port))
            .collect();
        assert_eq!(servers, [("9", 4), ("10", 3), ("b", 5)]);
        assert_eq!(list.own.map(|own| own.port), Some(2));
        assert_eq!((list.unusable, list.over_limit), (1, 0));
    }

    #[test]
    fn a_list_holds_no_more_servers_than_there_may_be() {
        let servers = (0..SERVERS_MAX + 2).map(|n| {
            let server = json!({"id": n, "serverType": "s", "host": "h", "port": 1});
            (n.to_string(), server)
        });
        let list = ServerList::new(servers.collect(), "own");
        assert_eq!((list.servers.len(), list.over_limit), (SERVERS_MAX, 2));
    }
}
