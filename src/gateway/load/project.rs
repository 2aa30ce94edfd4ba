//! A Pomelo project's `config` folder → [`Config`]: `servers.json`, `dictionary.json`, the paths of the protos
//! and, to join the cluster, `master.json` and `adminServer.json`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::entry::{Entry, callable, entries};
use crate::config::{Config, Master};
use crate::error::{Error, Result};

/// The `config` folder of a Pomelo project.
pub(super) struct Project {
    pub(super) dir: PathBuf,
    pub(super) env: String,
    /// The flag or word that sets the environment, for errors.
    pub(super) env_knob: &'static str,
}

impl Project {
    /// Fills in this server and the others. Returns the own entry: the launched one if there is one, else
    /// that of `config.id` in `servers.json`.
    pub(super) fn apply(&self, config: &mut Config, launched: Option<Entry>) -> Result<Entry> {
        let own = self.servers(config, launched)?;
        own.own(config)?;
        let protos = |name| self.paths(name).into_iter().find(|path| path.exists());
        config.client.server_protos = protos("serverProtos.json");
        config.client.client_protos = protos("clientProtos.json");
        self.dictionary(config)?;
        Ok(own)
    }

    /// Fills in the user dictionary.
    ///
    /// As in Pomelo, only the plain file counts, without members for environments, and an object, which
    /// `pomelo init` writes, has no routes.
    fn dictionary(&self, config: &mut Config) -> Result<()> {
        let [file, _] = self.paths("dictionary.json");
        match read_json(&file)? {
            None => {}
            Some(Json::Object(members)) if members.is_empty() => {}
            Some(Json::Object(_)) => config.warnings.push(format!(
                "{}: ignored, as Pomelo ignores an object here; expected a list of routes as \
                 texts",
                file.display()
            )),
            Some(routes) => {
                config.dictionary = Vec::<String>::deserialize(routes).map_err(|_| {
                    Error::Config(format!(
                        "{}: expected a list of routes as texts",
                        file.display()
                    ))
                })?;
            }
        }
        Ok(())
    }

    /// Fills in the master and the address for calls; the rest of `config` is complete.
    pub(super) fn join(&self, config: &mut Config, own: &Entry, main: &Path) -> Result<()> {
        let (host, port) = self.master()?;
        if config.rpc.listen.is_none() {
            config.rpc.listen = own.rpc_address()?;
        }
        let mut info = own.info(&config.env, main);
        if own.text("serverType")? != config.server_type {
            info.insert("serverType".into(), config.server_type.as_str().into());
        }
        let remotes = config.cluster.remoter_paths.iter();
        let remotes: Vec<Json> = remotes
            .map(
                |path| serde_json::json!({"namespace": "user", "serverType": config.server_type, "path": path}),
            )
            .collect();
        if !remotes.is_empty() {
            info.insert("remoterPaths".into(), remotes.into());
        }
        config.master = Some(Master {
            host,
            port,
            token: self.token(config)?,
            info,
            env: config.env.clone(),
        });
        Ok(())
    }

    /// Fills in the other servers and returns the own entry. Wrong entries of others become warnings.
    fn servers(&self, config: &mut Config, launched: Option<Entry>) -> Result<Entry> {
        let name = "servers.json";
        let has_lists = |json: &Json| {
            json.as_object()
                .is_some_and(|o| o.is_empty() || o.values().any(Json::is_array))
        };
        let (file, entries) = match (self.section(name, has_lists)?, &launched) {
            (Some((file, types)), _) => {
                let entries = entries(&file, &types, &mut config.warnings)?;
                (file, entries)
            }
            // A launched server knows itself, and the master knows the others.
            (None, Some(_)) if config.cluster.join => Default::default(),
            (None, _) => {
                return Err(Error::Config(format!(
                    "{}; --app-dir must name the folder that has config/{name}",
                    self.not_found(name),
                )));
            }
        };
        let (listed, others): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.id == config.id);
        let own = match (launched, &*listed) {
            (Some(launched), _) => launched,
            (None, [first, second, ..]) => {
                let first = first.index();
                return Err(second.wrong("id", &format!("{first} has the same id")));
            }
            (None, _) => listed.into_iter().next().ok_or_else(|| {
                let frontends = others.iter().filter(|entry| entry.is_frontend());
                let ids: Vec<&str> = frontends.map(|entry| entry.id.as_str()).collect();
                // The own entry may be one of those that tangelo cannot read.
                let mut unread = config.warnings.join("; ");
                if !unread.is_empty() {
                    unread.insert_str(0, "; ");
                }
                Error::Config(format!(
                    "{}: no server has the id {:?}; frontends in environment {:?}: {}{unread}",
                    file.display(),
                    config.id,
                    self.env,
                    ids.join(", "),
                ))
            })?,
        };
        config.servers = callable(&others, &mut config.warnings);
        Ok(own)
    }

    /// Returns the master's host and port.
    fn master(&self) -> Result<(String, u16)> {
        let name = "master.json";
        let is_master = |json: &Json| json.get("host").is_some() || json.get("port").is_some();
        let Some((file, master)) = self.section(name, is_master)? else {
            return Err(Error::Config(format!(
                "{}; it names the master to join; without a master, set cluster.join = false",
                self.not_found(name),
            )));
        };
        let Json::Object(fields) = master else {
            return Err(Error::Config(format!(
                "{}: expected an object",
                file.display()
            )));
        };
        let entry = Entry {
            place: format!("{}: master", file.display()),
            id: String::new(),
            fields,
            is_launched: false,
        };
        Ok((entry.host()?, entry.port("port")?))
    }

    /// Returns this server's token for the master. As in pomelo-admin (`lib/util/utils.js`,
    /// `defaultAuthServerMonitor`), the file has no members for environments.
    fn token(&self, config: &Config) -> Result<Json> {
        let [plain, nested] = self.paths("adminServer.json");
        let mut found = read_json(&plain)?.map(|json| (plain, json));
        if found.is_none() {
            found = read_json(&nested)?.map(|json| (nested, json));
        }
        let Some((file, json)) = found else {
            let script = self
                .paths("adminServer.js")
                .into_iter()
                .find(|path| path.exists());
            return match script.filter(|_| config.dialect.reads_admin_script()) {
                Some(script) => Err(Error::Config(format!(
                    "{}: tangelo reads only JSON; put the same list into adminServer.json beside it",
                    script.display(),
                ))),
                None => Ok("ok".into()),
            };
        };
        let Json::Array(entries) = json else {
            return Err(Error::Config(format!(
                "{}: expected a list of objects with type and token",
                file.display()
            )));
        };
        let is_own = |entry: &Json| entry.get("type") == Some(&config.server_type.as_str().into());
        let Some(at) = entries.iter().position(is_own) else {
            return Ok(Json::Null);
        };
        entries[at].get("token").cloned().ok_or_else(|| {
            Error::Config(format!(
                "{}: [{at}] {}: token: missing; expected a text in quotes",
                file.display(),
                config.server_type,
            ))
        })
    }

    /// Returns the two places of a file: plain, and in the folder of the environment.
    fn paths(&self, name: &str) -> [PathBuf; 2] {
        [self.dir.join(name), self.dir.join(&self.env).join(name)]
    }

    fn not_found(&self, name: &str) -> String {
        let [plain, nested] = self.paths(name);
        format!("{}: not found, nor {}", plain.display(), nested.display())
    }

    /// Returns a file's part for this environment, and the path of the file.
    ///
    /// As in Pomelo, the plain file counts if it exists, and in it the member with the name of the
    /// environment if there is one; else the file in the environment's folder counts. Unlike in Pomelo, a
    /// plain file with other environments only does not count (`whole` tells it apart).
    pub(super) fn section(
        &self,
        name: &str,
        whole: fn(&Json) -> bool,
    ) -> Result<Option<(PathBuf, Json)>> {
        let [plain, nested] = self.paths(name);
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
                    "{}: no environment {:?}; the file has {}; choose one with {}",
                    plain.display(),
                    self.env,
                    names.map(String::as_str).collect::<Vec<_>>().join(", "),
                    self.env_knob,
                )));
            }
        }
        Ok(read_json(&nested)?.map(|json| (nested, json)))
    }
}

/// Reads a JSON file; `None` without such a file.
fn read_json(path: &Path) -> Result<Option<Json>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::Config(format!(
                "{}: cannot read it: {error}",
                path.display()
            )));
        }
    };
    // Node skips a byte order mark too.
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

#[cfg(test)]
pub(super) mod tests;
