//! A Pomelo project's `config` folder → [`Config`]: `servers.json`, `master.json`,
//! `dictionary.json`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::keys::CONNECTIONS_MAX;
use crate::config::{Config, Server};
use crate::error::{Error, Result};
use crate::limits;

/// The `config` folder of a Pomelo project.
pub(super) struct Project {
    pub(super) dir: PathBuf,
    pub(super) env: String,
}

impl Project {
    /// Fills in what the project says about `config.id` and about everybody else.
    pub(super) fn apply(&self, config: &mut Config) -> Result<()> {
        self.servers(config)?;
        self.master()?;
        let Some((file, routes)) = self.section("dictionary.json", Json::is_array)? else {
            return Ok(());
        };
        config.dictionary = Vec::<String>::deserialize(routes).map_err(|_| {
            Error::Config(format!(
                "{}: accepted: a list of routes as texts",
                file.display()
            ))
        })?;
        Ok(())
    }

    fn servers(&self, config: &mut Config) -> Result<()> {
        let name = "servers.json";
        let by_type = |json: &Json| {
            json.as_object()
                .is_some_and(|o| o.values().all(Json::is_array))
        };
        let Some((file, types)) = self.section(name, by_type)? else {
            return Err(Error::Config(format!(
                "{}: not found, nor {}; --app-dir must name the folder that holds config/{name}",
                self.dir.join(name).display(),
                self.dir.join(&self.env).join(name).display(),
            )));
        };
        let entries = entries(&file, &types)?;
        let Some(own) = entries.iter().position(|entry| entry.id == config.id) else {
            let frontends = entries.iter().filter(|entry| entry.is_frontend());
            let ids: Vec<&str> = frontends.map(|entry| entry.id.as_str()).collect();
            return Err(Error::Config(format!(
                "{}: no server has the id {:?}; frontends in environment {:?}: {}",
                file.display(),
                config.id,
                self.env,
                ids.join(", "),
            )));
        };
        for (index, entry) in entries.iter().enumerate() {
            if index == own {
                entry.own(config)?;
            } else if !entry.is_frontend() || entry.fields.contains_key("port") {
                config.servers.push(entry.server()?);
            } // As pomelo: a frontend without `port`, such as a gate, takes no calls.
        }
        Ok(())
    }

    /// Nothing of it is used yet, but a file that a cluster could not start from is told early.
    fn master(&self) -> Result<()> {
        let is_master = |json: &Json| json.get("host").is_some() || json.get("port").is_some();
        let Some((file, master)) = self.section("master.json", is_master)? else {
            return Ok(());
        };
        let Json::Object(fields) = master else {
            return Err(Error::Config(format!(
                "{}: accepted: an object",
                file.display()
            )));
        };
        let entry = Entry {
            place: format!("{}: master", file.display()),
            id: String::new(),
            fields,
        };
        entry.host()?;
        entry.port("port")?;
        Ok(())
    }

    /// One file's part for this environment, and the file it was in.
    ///
    /// As pomelo: the plain file counts if it exists, and in it the member named like the
    /// environment if there is one; else the file in the environment's folder. Unlike pomelo: a
    /// plain file that only knows other environments does not count (`whole` tells that apart).
    fn section(&self, name: &str, whole: fn(&Json) -> bool) -> Result<Option<(PathBuf, Json)>> {
        let plain = self.dir.join(name);
        let nested = self.dir.join(&self.env).join(name);
        let plain_json = read_json(&plain)?;
        if let Some(mut json) = plain_json {
            if let Some(member) = json.get_mut(&self.env) {
                return Ok(Some((plain, member.take())));
            }
            if whole(&json) {
                return Ok(Some((plain, json)));
            }
            if !nested.exists() {
                let names = json.as_object().into_iter().flat_map(Map::keys);
                return Err(Error::Config(format!(
                    "{}: no environment {:?}; there: {}; choose one with --env",
                    plain.display(),
                    self.env,
                    names.map(String::as_str).collect::<Vec<_>>().join(", "),
                )));
            }
        }
        Ok(read_json(&nested)?.map(|json| (nested, json)))
    }
}

/// `None` if there is no such file.
fn read_json(path: &Path) -> Result<Option<Json>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::Config(format!(
                "{}: cannot be read: {error}",
                path.display()
            )));
        }
    };
    // Node skips a byte order mark, too.
    let json = serde_json::from_str(text.trim_start_matches('\u{feff}'));
    json.map(Some).map_err(|error| {
        let mut what = error.to_string();
        if let Some(at) = what.rfind(" at line ") {
            what.truncate(at);
        }
        let (line, column) = (error.line(), error.column());
        Error::Config(format!(
            "{}:{line}: {what} (column {column})",
            path.display()
        ))
    })
}

/// All servers of `servers.json`, types in file order, then as listed.
fn entries(file: &Path, types: &Json) -> Result<Vec<Entry>> {
    let wrong =
        |kind: &str, what: &str| Error::Config(format!("{}: {kind}: {what}", file.display()));
    let Json::Object(types) = types else {
        return Err(Error::Config(format!(
            "{}: accepted: an object with a list of servers for each type",
            file.display()
        )));
    };
    let mut entries: Vec<Entry> = Vec::new();
    for (kind, list) in types {
        let Json::Array(list) = list else {
            return Err(wrong(kind, "accepted: a list of servers"));
        };
        let mut clustered = 0;
        for (index, item) in list.iter().enumerate() {
            let place = format!("{}: {kind}[{index}]", file.display());
            let Json::Object(fields) = item else {
                return Err(Error::Config(format!("{place}: accepted: an object")));
            };
            let mut entry = Entry {
                place,
                id: String::new(),
                fields: fields.clone(),
            };
            entry
                .fields
                .insert("serverType".into(), kind.as_str().into());
            match entry.cluster_count()? {
                Some(count) => {
                    entries.extend((0..count).map(|n| entry.numbered(kind, clustered + n, n)));
                    clustered += count;
                }
                None => {
                    entry.id = entry.text("id")?;
                    entries.push(entry);
                }
            }
            // One more than the others: tangelo itself.
            if entries.len() > limits::SERVERS_MAX + 1 {
                let most = limits::SERVERS_MAX + 1;
                return Err(wrong(
                    kind,
                    &format!("more than {most} servers in this file; accepted: at most {most}"),
                ));
            }
        }
    }
    let mut seen = HashMap::new();
    for entry in &entries {
        if let Some(first) = seen.insert(entry.id.as_str(), entry) {
            let place = first.place.rsplit(' ').next().unwrap_or_default();
            return Err(entry.wrong("id", &format!("used twice, by {place} too")));
        }
    }
    Ok(entries)
}

/// One server of `servers.json`.
struct Entry {
    /// File, type and index.
    place: String,
    id: String,
    fields: Map<String, Json>,
}

impl Entry {
    fn wrong(&self, key: &str, what: &str) -> Error {
        let (place, id) = (&self.place, &self.id);
        let space = if id.is_empty() { "" } else { " " };
        Error::Config(format!("{place}{space}{id}: {key}: {what}"))
    }

    fn is_frontend(&self) -> bool {
        // The command line of a Pomelo server makes a string of it, so files have both.
        self.fields
            .get("frontend")
            .is_some_and(|v| *v == true || v == "true")
    }

    /// Takes over what the entry says about this process itself.
    fn own(&self, config: &mut Config) -> Result<()> {
        config.server_type = self.text("serverType")?;
        if !self.is_frontend() {
            return Err(self.wrong(
                "frontend",
                "must be true: tangelo replaces frontend servers",
            ));
        }
        let port = self.port("clientPort")?;
        // As pomelo: all addresses, IPv4 too.
        config.listen = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        if let Some(value) = self.fields.get("max-connections") {
            let Some(number) = number(value) else {
                return Err(self.wrong("max-connections", &format!("{value} is no whole number")));
            };
            // As pomelo: 0 is no limit.
            config.client.max_connections = usize::try_from(number)
                .ok()
                .filter(|n| (1..=CONNECTIONS_MAX).contains(n));
        }
        Ok(())
    }

    fn server(&self) -> Result<Server> {
        Ok(Server {
            id: self.id.clone(),
            server_type: self.text("serverType")?,
            host: self.host()?,
            port: self.port("port")?,
        })
    }

    fn host(&self) -> Result<String> {
        self.text("host")
    }

    fn text(&self, key: &str) -> Result<String> {
        match self.fields.get(key) {
            Some(Json::String(text)) if !text.is_empty() => Ok(text.clone()),
            Some(other) => Err(self.wrong(
                key,
                &format!("{other} is no text; accepted: a text in quotes"),
            )),
            None => Err(self.wrong(key, "missing; accepted: a text in quotes")),
        }
    }

    fn port(&self, key: &str) -> Result<u16> {
        let accepted = "accepted: a number from 1 to 65535";
        let Some(value) = self.fields.get(key) else {
            return Err(self.wrong(key, &format!("missing; {accepted}")));
        };
        let Some(number) = number(value) else {
            return Err(self.wrong(key, &format!("{value} is no whole number; {accepted}")));
        };
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        port.ok_or_else(|| self.wrong(key, &format!("{number} is out of range; {accepted}")))
    }

    /// As pomelo (`lib/util/utils.js`, `loadCluster`): such an entry stands for that many servers.
    fn cluster_count(&self) -> Result<Option<usize>> {
        let Some(value) = self.fields.get("clusterCount") else {
            return Ok(None);
        };
        let count = number(value).and_then(|count| usize::try_from(count).ok());
        let count = count.filter(|count| (1..=limits::SERVERS_MAX).contains(count));
        count.map(Some).ok_or_else(|| {
            let accepted = format!("accepted: a number from 1 to {}", limits::SERVERS_MAX);
            self.wrong(
                "clusterCount",
                &format!("{value} is out of range; {accepted}"),
            )
        })
    }

    /// The `n`th of the servers that this entry stands for, the `serial`th of its type.
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
        Self {
            place: self.place.clone(),
            id: format!("cluster-server-{kind}-{serial}"),
            fields,
        }
    }
}

/// A number, or a text that JavaScript would take for one.
fn number(value: &Json) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_str()?.trim().parse().ok())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Result;
    use super::*;

    /// A folder of files, removed at the end.
    pub(in super::super) struct Folder(PathBuf);

    impl Folder {
        pub(in super::super) fn new(files: &[(&str, &str)]) -> Self {
            use std::sync::atomic::{AtomicU32, Ordering};
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("tangelo-load-{}-{n}", std::process::id());
            let folder = Self(std::env::temp_dir().join(name));
            for (name, text) in files {
                let path = folder.path(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            folder
        }

        pub(in super::super) fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn load(id: &str, env: &str, files: &[(&str, &str)]) -> Result<Config, String> {
        let folder = Folder::new(files);
        let mut config = Config {
            id: id.into(),
            ..Config::default()
        };
        let project = Project {
            dir: folder.0.clone(),
            env: env.into(),
        };
        let path = format!("{}/", folder.0.display());
        project
            .apply(&mut config)
            .map_err(|e| e.to_string().replace(&path, ""))?;
        Ok(config)
    }

    const CONNECTOR: &str =
        r#"{"id":"c-1","host":"127.0.0.1","port":3150,"clientPort":3010,"frontend":true}"#;

    /// The error with this list of chat servers next to a right connector.
    #[track_caller]
    fn refused_chat(chat: &str, expected: &str) {
        let text = format!(r#"{{"connector":[{CONNECTOR}],"chat":[{chat}]}}"#);
        refused(&[("servers.json", &text)], expected);
    }

    #[track_caller]
    fn refused(files: &[(&str, &str)], expected: &str) {
        assert_eq!(load("c-1", "development", files), Err(expected.into()));
    }

    const TYPES: &str = r#"{
        "gate": [{"id":"gate-1","host":"127.0.0.1","clientPort":3014,"frontend":true}],
        "connector": [
            {"id":"c-2","host":"10.0.0.2","port":"3151","clientPort":3011,"frontend":"true"},
            {"id":"c-1","host":"10.0.0.1","port":3150,"clientPort":3010,"frontend":true,
             "max-connections": 100}
        ],
        "chat": [
            {"id":"chat-2","host":"10.0.0.3","port":6051},
            {"id":"chat-1","host":"10.0.0.4","port":6050}
        ],
        "area": [{"id":"area-1","host":"10.0.0.5","port":6060}]
    }"#;

    #[track_caller]
    fn accepted(env: &str, files: &[(&str, &str)]) -> Config {
        let config = load("c-1", env, files).unwrap();
        assert_eq!(config.server_type, "connector");
        assert_eq!(config.listen.to_string(), "[::]:3010");
        assert_eq!(config.client.max_connections, Some(100));
        let ids: Vec<&str> = config
            .servers
            .iter()
            .map(|server| server.id.as_str())
            .collect();
        assert_eq!(
            ids,
            ["c-2", "chat-2", "chat-1", "area-1"],
            "file order, without the gate"
        );
        assert_eq!(config.servers[0].port, 3151);
        assert_eq!(config.servers[0].host, "10.0.0.2");
        assert_eq!(config.servers[3].server_type, "area");
        config
    }

    #[test]
    fn servers_are_found_below_their_environment() {
        let text = format!(r#"{{"development": {{}}, "production": {TYPES}}}"#);
        accepted("production", &[("servers.json", &text)]);
    }

    #[test]
    fn servers_are_found_in_the_folder_of_their_environment() {
        accepted("production", &[("production/servers.json", TYPES)]);
        let other = r#"{"development": {"chat": []}}"#;
        accepted(
            "production",
            &[("servers.json", other), ("production/servers.json", TYPES)],
        );
    }

    #[test]
    fn the_plain_file_wins_over_the_folder() {
        let other = r#"{"chat": []}"#;
        let plain = format!(r#"{{"production": {TYPES}}}"#);
        accepted(
            "production",
            &[("servers.json", &plain), ("production/servers.json", other)],
        );
        accepted(
            "production",
            &[("servers.json", TYPES), ("production/servers.json", other)],
        );
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        accepted(
            "development",
            &[("servers.json", &format!("\u{feff}{TYPES}"))],
        );
    }

    #[test]
    fn the_dictionary_is_read_where_it_is() {
        let routes = r#"["onChat", "onAdd"]"#;
        let by_env = format!(r#"{{"development": {routes}}}"#);
        for (name, text) in [
            ("dictionary.json", routes),
            ("development/dictionary.json", routes),
            ("dictionary.json", &by_env),
        ] {
            let config = accepted("development", &[("servers.json", TYPES), (name, text)]);
            assert_eq!(config.dictionary, ["onChat", "onAdd"]);
        }
        refused(
            &[("servers.json", TYPES), ("dictionary.json", r#"["a", 1]"#)],
            "dictionary.json: accepted: a list of routes as texts",
        );
    }

    #[test]
    fn a_cluster_count_stands_for_that_many_servers() {
        let text = r#"{"connector": [
            {"clusterCount": 2, "host": "h", "port": "3150++", "clientPort": "3010++", "frontend": true},
            {"clusterCount": "1", "host": "h", "port": "3250++", "clientPort": "3020++", "frontend": true}
        ]}"#;
        let config = load(
            "cluster-server-connector-1",
            "development",
            &[("servers.json", text)],
        );
        let config = config.unwrap();
        assert_eq!(config.listen.port(), 3011);
        let others: Vec<(&str, u16)> = config
            .servers
            .iter()
            .map(|server| (server.id.as_str(), server.port))
            .collect();
        assert_eq!(
            others,
            [
                ("cluster-server-connector-0", 3150),
                ("cluster-server-connector-2", 3250)
            ]
        );
        refused_chat(
            r#"{"clusterCount":0,"host":"h","port":"6050++"}"#,
            "servers.json: chat[0]: clusterCount: 0 is out of range; accepted: a number from 1 to 4096",
        );
    }

    #[test]
    fn a_missing_project_says_what_was_looked_for() {
        refused(
            &[],
            "servers.json: not found, nor development/servers.json; --app-dir must name the folder \
             that holds config/servers.json",
        );
    }

    #[test]
    fn an_unknown_environment_names_those_there_are() {
        let text = format!(r#"{{"production": {TYPES}, "stage": {TYPES}}}"#);
        refused(
            &[("servers.json", &text)],
            "servers.json: no environment \"development\"; there: production, stage; choose one with --env",
        );
    }

    #[test]
    fn an_unknown_id_names_the_frontends_there_are() {
        assert_eq!(
            load("c-9", "development", &[("servers.json", TYPES)]).unwrap_err(),
            "servers.json: no server has the id \"c-9\"; frontends in environment \"development\": \
             gate-1, c-2, c-1",
        );
    }

    #[test]
    fn the_own_entry_must_be_a_frontend_with_a_client_port() {
        let of = |entry: &str| format!(r#"{{"connector": [{entry}]}}"#);
        let files = |text: &str, expected: &str| refused(&[("servers.json", text)], expected);
        files(
            &of(r#"{"id":"c-1","host":"h","port":1,"clientPort":3010}"#),
            "servers.json: connector[0] c-1: frontend: must be true: tangelo replaces frontend servers",
        );
        files(
            &of(r#"{"id":"c-1","host":"h","port":1,"frontend":true}"#),
            "servers.json: connector[0] c-1: clientPort: missing; accepted: a number from 1 to 65535",
        );
        files(
            &of(r#"{"id":"c-1","host":"h","port":1,"frontend":true,"clientPort":65536}"#),
            "servers.json: connector[0] c-1: clientPort: 65536 is out of range; accepted: a number \
             from 1 to 65535",
        );
        files(
            &of(r#"{"id":"c-1","frontend":true,"clientPort":1,"max-connections":"many"}"#),
            "servers.json: connector[0] c-1: max-connections: \"many\" is no whole number",
        );
    }

    #[test]
    fn a_wrong_server_names_file_type_id_and_key() {
        let port = "accepted: a number from 1 to 65535";
        refused_chat(
            r#"{"id":"a","host":"h","port":1},{"id":"b","port":1}"#,
            "servers.json: chat[1] b: host: missing; accepted: a text in quotes",
        );
        refused_chat(
            r#"{"id":"a","host":7,"port":1}"#,
            "servers.json: chat[0] a: host: 7 is no text; accepted: a text in quotes",
        );
        refused_chat(
            r#"{"id":"a","host":"h"}"#,
            &format!("servers.json: chat[0] a: port: missing; {port}"),
        );
        refused_chat(
            r#"{"id":"a","host":"h","port":0}"#,
            &format!("servers.json: chat[0] a: port: 0 is out of range; {port}"),
        );
        refused_chat(
            r#"{"id":"a","host":"h","port":"6050+"}"#,
            &format!("servers.json: chat[0] a: port: \"6050+\" is no whole number; {port}"),
        );
        refused_chat(
            r#"{"host":"h","port":1}"#,
            "servers.json: chat[0]: id: missing; accepted: a text in quotes",
        );
        refused_chat(
            r#"{"id":"c-1","host":"h","port":1}"#,
            "servers.json: chat[0] c-1: id: used twice, by connector[0] too",
        );
        refused_chat("7", "servers.json: chat[0]: accepted: an object");
    }

    #[test]
    fn a_file_of_another_shape_is_named() {
        let development = r#"{"development": {"chat": {}}}"#;
        refused(
            &[("servers.json", development)],
            "servers.json: chat: accepted: a list of servers",
        );
        refused(
            &[("servers.json", r#"{"development": 7}"#)],
            "servers.json: accepted: an object with a list of servers for each type",
        );
    }

    #[test]
    fn broken_json_names_file_and_line() {
        refused(
            &[("servers.json", "{\n  \"connector\": [\n  }\n}")],
            "servers.json:3: expected value (column 3)",
        );
    }

    #[test]
    fn more_servers_than_tangelo_takes_are_refused() {
        let chat: Vec<String> = (0..=limits::SERVERS_MAX)
            .map(|n| format!(r#"{{"id":"chat-{n}","host":"h","port":1}}"#))
            .collect();
        refused_chat(
            &chat.join(","),
            "servers.json: chat: more than 4097 servers in this file; accepted: at most 4097",
        );
    }

    #[test]
    fn a_master_that_cannot_be_reached_is_named() {
        let servers = ("servers.json", TYPES);
        let right = r#"{"development": {"id":"m","host":"127.0.0.1","port":3005}}"#;
        accepted("development", &[servers, ("master.json", right)]);
        accepted(
            "development",
            &[
                servers,
                ("development/master.json", r#"{"host":"h","port":1}"#),
            ],
        );
        refused(
            &[servers, ("master.json", r#"{"id":"m","port":3005}"#)],
            "master.json: master: host: missing; accepted: a text in quotes",
        );
        refused(
            &[
                servers,
                (
                    "master.json",
                    r#"{"development": {"host":"h","port":99999}}"#,
                ),
            ],
            "master.json: master: port: 99999 is out of range; accepted: a number from 1 to 65535",
        );
        refused(
            &[servers, ("master.json", r#"{"development": 7}"#)],
            "master.json: accepted: an object",
        );
    }
}
