//! Entries of servers, in `servers.json` or on the command line of a launched server.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;

use serde_json::Value as Json;

use super::launch::{self, Info};
use crate::config::{CONNECTIONS_MAX, Config, Server, WEIGHT_MAX};
use crate::error::{Error, Result};
use crate::limits;

/// Reads all servers of `servers.json`, in file order. As in Pomelo, only lists have entries. A text may be
/// a comment; any other member is a warning.
pub(super) fn entries(file: &Path, types: &Json, warnings: &mut Vec<String>) -> Result<Vec<Entry>> {
    let file = file.display();
    let Json::Object(types) = types else {
        return Err(Error::Config(format!(
            "{file}: expected an object with a list of servers for each type",
        )));
    };
    let mut entries: Vec<Entry> = Vec::new();
    for (kind, list) in types {
        let list = match list {
            Json::Array(list) => list,
            Json::String(_) => continue,
            _ => {
                warnings.push(format!(
                    "{file}: {kind}: ignored; expected a list of servers"
                ));
                continue;
            }
        };
        let mut clustered = 0;
        for (index, item) in list.iter().enumerate() {
            let place = format!("{file}: {kind}[{index}]");
            match read_entry(place, kind, item, &mut clustered) {
                Ok(more) => entries.extend(more),
                Err(error) => warnings.push(left_out(&error)),
            }
            // The others, and tangelo itself.
            if entries.len() > limits::SERVERS_MAX + 1 {
                let most = limits::SERVERS_MAX + 1;
                return Err(Error::Config(format!(
                    "{file}: {kind}: more than {most} servers in this file; expected at most {most}"
                )));
            }
        }
    }
    Ok(entries)
}

/// Reads the servers that one item of a list stands for. `clustered` counts those of the type that come
/// from a `clusterCount`.
fn read_entry(place: String, kind: &str, item: &Json, clustered: &mut usize) -> Result<Vec<Entry>> {
    let Json::Object(fields) = item else {
        return Err(Error::Config(format!("{place}: expected an object")));
    };
    let mut entry = Entry {
        place,
        id: String::new(),
        fields: fields.clone(),
        is_launched: false,
    };
    entry.fields.insert("serverType".into(), kind.into());
    if let Some(count) = entry.cluster_count()? {
        let first = *clustered;
        *clustered += count;
        let numbered = (0..count).map(|n| entry.numbered(kind, first + n, n));
        return Ok(numbered.collect());
    }
    entry.id = entry.text("id")?;
    Ok(vec![entry])
}

/// Returns the servers that take calls. As in Pomelo, the last of two with one id counts, and a frontend
/// without `port`, such as a gate, takes no calls.
pub(super) fn callable(others: &[Entry], warnings: &mut Vec<String>) -> Vec<Server> {
    let last: HashMap<&str, usize> = others
        .iter()
        .enumerate()
        .map(|(at, entry)| (entry.id.as_str(), at))
        .collect();
    let mut servers = Vec::new();
    for (at, entry) in others.iter().enumerate() {
        let counts = last[entry.id.as_str()];
        if counts != at {
            let what = format!(
                "{} has the same id and counts instead",
                others[counts].index()
            );
            warnings.push(left_out(&entry.wrong("id", &what)));
            continue;
        }
        if entry.is_frontend() && !entry.fields.contains_key("port") {
            continue;
        }
        let weight = entry.weight().unwrap_or_else(|error| {
            warnings.push(format!("{error}; tangelo gives this server no weight"));
            None
        });
        match entry.server() {
            Ok(server) => servers.push(Server { weight, ..server }),
            Err(error) => warnings.push(left_out(&error)),
        }
    }
    servers
}

fn left_out(error: &Error) -> String {
    format!("{error}; tangelo leaves this entry out")
}

/// A server of `servers.json`, or the launched server of a command line.
pub(super) struct Entry {
    /// File, type and index, or the command line.
    pub(super) place: String,
    pub(super) id: String,
    pub(super) fields: Info,
    /// From the command line: `fields` are parsed words, `main` and `env` among them.
    pub(super) is_launched: bool,
}

impl Entry {
    pub(super) fn launched(info: Info) -> Result<Self> {
        let mut entry = Self {
            place: "command line".into(),
            id: String::new(),
            fields: info,
            is_launched: true,
        };
        entry.id = entry.text("id")?;
        Ok(entry)
    }

    /// Sets the id, type and environment of this process.
    pub(super) fn identify(&self, config: &mut Config) -> Result<()> {
        config.id.clone_from(&self.id);
        config.server_type = self.text("serverType")?;
        if self.fields.contains_key("env") {
            config.env = self.text("env")?;
        }
        Ok(())
    }

    /// Returns the description that a genuine server of this entry has of itself and sends its master.
    pub(super) fn info(&self, env: &str, main: &Path) -> Info {
        if self.is_launched {
            return self.fields.clone();
        }
        launch::parse(main, &launch::words(env, &self.fields))
    }

    /// Returns the address for calls from other servers. As in Pomelo, there is none without `port`.
    pub(super) fn rpc_address(&self) -> Result<Option<SocketAddr>> {
        if !self.fields.contains_key("port") {
            return Ok(None);
        }
        let (host, port) = (self.host()?, self.port("port")?);
        let found = (host.as_str(), port).to_socket_addrs();
        let found: Vec<SocketAddr> = found.map(Iterator::collect).map_err(|error| {
            let what = format!(
                "cannot resolve {host:?}: {error}; expected an address or a name that this machine \
                 knows; or set rpc.listen"
            );
            self.wrong("host", &what)
        })?;
        // Older versions of Node dial a name of both kinds, such as localhost, by IPv4.
        let first = found.iter().find(|address| address.is_ipv4());
        Ok(first.or(found.first()).copied())
    }

    /// Returns type and index, without the file.
    pub(super) fn index(&self) -> &str {
        self.place.rsplit(' ').next().unwrap_or_default()
    }

    pub(super) fn wrong(&self, key: &str, what: &str) -> Error {
        let (place, id) = (&self.place, &self.id);
        let space = if id.is_empty() { "" } else { " " };
        Error::Config(format!("{place}{space}{id}: {key}: {what}"))
    }

    fn unexpected(&self, key: &str, value: &Json, accepted: &str) -> Error {
        let (place, id) = (&self.place, &self.id);
        let space = if id.is_empty() { "" } else { " " };
        Error::Config(format!(
            "{place}{space}{id}: {key} = {value}: expected {accepted}"
        ))
    }

    pub(super) fn is_frontend(&self) -> bool {
        // A Pomelo server gets a string from its command line, so files have both.
        self.fields
            .get("frontend")
            .is_some_and(|v| *v == true || v == "true")
    }

    /// Sets the knobs of this process that the entry has.
    pub(super) fn own(&self, config: &mut Config) -> Result<()> {
        config.server_type = self.text("serverType")?;
        if !self.is_frontend() {
            return Err(self.wrong(
                "frontend",
                "must be true: tangelo replaces frontend servers",
            ));
        }
        let port = self.port("clientPort")?;
        // As in Pomelo: all addresses, IPv4 too.
        config.listen = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        if let Some(value) = self.fields.get("max-connections") {
            let Some(number) = number(value) else {
                return Err(self.unexpected("max-connections", value, "a whole number"));
            };
            // As in Pomelo, 0 means no limit.
            config.client.max_connections = usize::try_from(number)
                .ok()
                .filter(|n| (1..=CONNECTIONS_MAX).contains(n));
        }
        Ok(())
    }

    /// Returns the server without its weight.
    fn server(&self) -> Result<Server> {
        Ok(Server {
            id: self.id.clone(),
            server_type: self.text("serverType")?,
            host: self.host()?,
            port: self.port("port")?,
            weight: None,
            client_host: self
                .fields
                .get("clientHost")
                .and_then(Json::as_str)
                .map(str::to_owned),
            client_port: self
                .fields
                .get("clientPort")
                .and_then(number)
                .and_then(|port| u16::try_from(port).ok()),
        })
    }

    fn weight(&self) -> Result<Option<u32>> {
        let Some(value) = self.fields.get("weight") else {
            return Ok(None);
        };
        let weight = number(value).and_then(|weight| u32::try_from(weight).ok());
        let weight = weight.filter(|weight| *weight as usize <= WEIGHT_MAX);
        weight.map(Some).ok_or_else(|| {
            let accepted = format!("a number from 0 to {WEIGHT_MAX}");
            self.unexpected("weight", value, &accepted)
        })
    }

    pub(super) fn host(&self) -> Result<String> {
        self.text("host")
    }

    pub(super) fn text(&self, key: &str) -> Result<String> {
        let accepted = match self.is_launched {
            true => format!("{key}=TEXT"),
            false => "a text in quotes".into(),
        };
        match self.fields.get(key) {
            Some(Json::String(text)) if !text.is_empty() => Ok(text.clone()),
            // A word has no quotes, so `id=7` is a number here.
            Some(Json::Number(number)) if self.is_launched => Ok(launch::text(number)),
            Some(other) => Err(self.unexpected(key, other, &accepted)),
            None => Err(self.wrong(key, &format!("missing; expected {accepted}"))),
        }
    }

    pub(super) fn port(&self, key: &str) -> Result<u16> {
        let accepted = "a number from 1 to 65535";
        let Some(value) = self.fields.get(key) else {
            return Err(self.wrong(key, &format!("missing; expected {accepted}")));
        };
        let port = number(value).and_then(|number| u16::try_from(number).ok());
        let port = port.filter(|port| *port != 0);
        port.ok_or_else(|| self.unexpected(key, value, accepted))
    }

    /// Returns the number of servers that the entry stands for, as in Pomelo (`lib/util/utils.js`,
    /// `loadCluster`).
    fn cluster_count(&self) -> Result<Option<usize>> {
        let Some(value) = self.fields.get("clusterCount") else {
            return Ok(None);
        };
        let count = number(value).and_then(|count| usize::try_from(count).ok());
        let count = count.filter(|count| (1..=limits::SERVERS_MAX).contains(count));
        count.map(Some).ok_or_else(|| {
            let accepted = format!("a number from 1 to {}", limits::SERVERS_MAX);
            self.unexpected("clusterCount", value, &accepted)
        })
    }

    /// Returns the `n`th of the servers that this entry stands for, the `serial`th of its type.
    fn numbered(&self, kind: &str, serial: usize, n: usize) -> Self {
        let mut fields = self.fields.clone();
        for value in fields.values_mut() {
            let base = value
                .as_str()
                .and_then(|text| text.strip_suffix("++")?.parse::<usize>().ok());
            if let Some(base) = base {
                *value = base.saturating_add(n).into();
            }
        }
        let id = format!("cluster-server-{kind}-{serial}");
        fields.insert("id".into(), id.as_str().into());
        Self {
            place: self.place.clone(),
            id,
            fields,
            is_launched: false,
        }
    }
}

/// Returns a number, or that of a text which JavaScript would take for one.
fn number(value: &Json) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_str()?.trim().parse().ok())
}
