//! A Pomelo project's `config` folder → [`Config`]: `servers.json`, `dictionary.json`, the paths of the protos
//! and, to join the cluster, `master.json` and `adminServer.json`.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use super::entry::{Entry, callable, entries};
use crate::config::{Config, Master};
use crate::error::{Error, Result};
use crate::gateway::json_file;

/// The `config` folder of a Pomelo project.
pub(super) struct Project {
    pub(super) dir: PathBuf,
    pub(super) env: String,
    /// The flag or word that sets the environment, for errors.
    pub(super) env_knob: &'static str,
    /// The files that were there.
    pub(super) found: RefCell<Vec<PathBuf>>,
}

impl Project {
    /// Fills in this server and the others. Returns the own entry: the launched one if there is one, else
    /// that of `config.id` in `servers.json`.
    pub(super) fn apply(&self, config: &mut Config, launched: Option<Entry>) -> Result<Entry> {
        let own = self.servers(config, launched)?;
        own.own(config)?;
        self.protos(config)?;
        self.dictionary(config)?;
        Ok(own)
    }

    /// Reads a JSON file, and remembers it if it is there.
    fn read(&self, path: &Path) -> Result<Option<Json>> {
        let json = json_file::read(path)?;
        if json.is_some() {
            self.found.borrow_mut().push(path.into());
        }
        Ok(json)
    }

    /// Fills in the paths of the protos.
    fn protos(&self, config: &mut Config) -> Result<()> {
        let may_be_script = config.client.use_protobuf && config.dialect.reads_scripts();
        let client = &mut config.client;
        for (name, path) in [
            ("serverProtos.json", &mut client.server_protos),
            ("clientProtos.json", &mut client.client_protos),
        ] {
            if path.is_none() {
                *path = self.paths(name).into_iter().find(|path| path.exists());
            }
            if path.is_none() && may_be_script {
                self.refuse_script(name)?;
            }
        }
        Ok(())
    }

    /// Fills in the user dictionary. A wrong route is only a warning where no client gets the dictionary.
    ///
    /// As in Pomelo, only the plain file counts, without members for environments, and an object, which
    /// `pomelo init` writes, has no routes.
    fn dictionary(&self, config: &mut Config) -> Result<()> {
        if !config.dictionary.is_empty() {
            return Ok(());
        }
        let name = "dictionary.json";
        let [path, _] = self.paths(name);
        let file = path.display();
        let use_dict = config.client.use_dict;
        let routes = match self.read(&path)? {
            Some(Json::Array(routes)) => routes,
            Some(Json::Object(members)) if members.is_empty() => return Ok(()),
            Some(_) => {
                config.warnings.push(format!(
                    "{file}: ignored, because it is not a list; expected a list of routes as texts"
                ));
                return Ok(());
            }
            None if use_dict && config.dialect.reads_scripts() => return self.refuse_script(name),
            None => return Ok(()),
        };
        if let Some(index) = routes.iter().position(|route| !route.is_string()) {
            let wrong = &routes[index];
            let text = format!("{file}: [{index}] = {wrong}: expected a route in quotes");
            if use_dict {
                return Err(Error::Config(text));
            }
            config.warnings.push(format!(
                "{text}; without client.use_dict tangelo does not need this file"
            ));
            return Ok(());
        }
        let routes = routes.iter().filter_map(Json::as_str);
        config.dictionary = routes.map(str::to_owned).collect();
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
        let remotes: Vec<Json> = self
            .remotes(config)
            .iter()
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

    /// Returns the folders of this type's remotes, of which other servers make stubs.
    fn remotes(&self, config: &Config) -> Vec<String> {
        let configured = &config.cluster.remoter_paths;
        let has_own = config.delegate.is_some() && config.dialect.announces_remotes();
        if !configured.is_empty() || !has_own {
            return configured.clone();
        }
        let types = self.dir.join("../app/servers");
        let folder = types
            .join(&config.server_type)
            .join("remote")
            .canonicalize();
        let folder = folder.ok().and_then(|path| path.to_str().map(String::from));
        folder.into_iter().collect()
    }

    /// Fills in the other servers and returns the own entry. Wrong entries of others become warnings.
    fn servers(&self, config: &mut Config, launched: Option<Entry>) -> Result<Entry> {
        let name = "servers.json";
        // A launched server knows itself, and the master knows the others.
        let is_needed = launched.is_none() || !config.cluster.join;
        let (file, entries) = match self.listed(name, &mut config.warnings) {
            Ok(Some(listed)) => listed,
            Ok(None) if is_needed => {
                let what = format!("--app-dir must name the folder that has config/{name}");
                return Err(self.missing(name, &what));
            }
            Ok(None) => Default::default(),
            Err(error) if is_needed => return Err(error),
            Err(error) => {
                config.warnings.push(format!(
                    "{error}; tangelo ignores this file, because the master sends the list"
                ));
                Default::default()
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
        if let Some(delegate) = &config.delegate
            && file.exists()
            && !config.servers.iter().any(|it| it.server_type == *delegate)
        {
            config.warnings.push(format!(
                "{}: no server has the type {delegate:?}, which delegate names; until the master tells of one, \
                 its messages get code 500",
                file.display()
            ));
        }
        Ok(own)
    }

    /// Reads all servers of `servers.json`, if it is there.
    fn listed(
        &self,
        name: &str,
        warnings: &mut Vec<String>,
    ) -> Result<Option<(PathBuf, Vec<Entry>)>> {
        let has_lists =
            |json: &Map<String, Json>| json.is_empty() || json.values().any(Json::is_array);
        let Some((file, types)) = self.section(name, has_lists)? else {
            return Ok(None);
        };
        let entries = entries(&file, &types, warnings)?;
        Ok(Some((file, entries)))
    }

    /// Returns the master's host and port.
    fn master(&self) -> Result<(String, u16)> {
        let name = "master.json";
        let is_master =
            |json: &Map<String, Json>| json.contains_key("host") || json.contains_key("port");
        let Some((file, master)) = self.section(name, is_master)? else {
            let what = "it names the master to join; without a master, set cluster.join = false";
            return Err(self.missing(name, what));
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

    /// Returns this server's token for the master; `None` where its entry has none. As in pomelo-admin
    /// (`lib/util/utils.js`, `defaultAuthServerMonitor`), the file has no members for environments.
    fn token(&self, config: &mut Config) -> Result<Option<Json>> {
        let name = "adminServer.json";
        let [plain, nested] = self.paths(name);
        let mut found = self.read(&plain)?.map(|json| (plain, json));
        if found.is_none() {
            found = self.read(&nested)?.map(|json| (nested, json));
        }
        let Some((file, json)) = found else {
            if config.dialect.reads_scripts() {
                self.refuse_script(name)?;
            }
            return Ok(Some("ok".into()));
        };
        let entries = json.as_array().map_or(&[][..], Vec::as_slice);
        if !json.is_array() {
            config.warnings.push(format!(
                "{}: ignored; expected a list of objects with type and token",
                file.display()
            ));
        }
        let mut entries = entries.iter();
        let own_type = config.server_type.as_str();
        let own = entries.find(|entry| entry.get("type").is_some_and(|kind| kind == own_type));
        Ok(own.map_or(Some(Json::Null), |entry| entry.get("token").cloned()))
    }

    /// Returns the two places of a file: plain, and in the folder of the environment.
    fn paths(&self, name: &str) -> [PathBuf; 2] {
        [self.dir.join(name), self.dir.join(&self.env).join(name)]
    }

    /// Returns the error of a file that is needed and not there.
    fn missing(&self, name: &str, what: &str) -> Error {
        if let Err(error) = self.refuse_script(name) {
            return error;
        }
        let [plain, nested] = self.paths(name);
        let (plain, nested) = (plain.display(), nested.display());
        Error::Config(format!("{plain}: not found, nor {nested}; {what}"))
    }

    /// Refuses a script in the place of a JSON file. Pinus' servers load such a script; tangelo runs no JavaScript.
    fn refuse_script(&self, name: &str) -> Result<()> {
        let paths = self.paths(name);
        let scripts =
            ["js", "ts"].map(|extension| paths.clone().map(|path| path.with_extension(extension)));
        let Some(script) = scripts.into_iter().flatten().find(|path| path.exists()) else {
            return Ok(());
        };
        let (file, json) = (script.display(), script.with_extension("json"));
        let module = match script
            .extension()
            .is_some_and(|extension| extension == "ts")
        {
            true => format!("./dist/config/{}", name.trim_end_matches(".json")),
            false => script.with_extension("").display().to_string(),
        };
        Err(Error::Config(format!(
            "{file}: tangelo reads only JSON; write the values of this file as JSON, by `npx tangelo init --write` or by \
             `node -p \"JSON.stringify(require('{module}'))\" > {}`",
            json.display(),
        )))
    }

    /// Returns a file's part for this environment, and the path of the file.
    ///
    /// As in Pomelo, the plain file counts if it exists: its member with the name of the environment, else the whole
    /// file. Without it the file in the environment's folder counts. A plain file that has neither the member nor the
    /// form of a `whole` one is an error.
    pub(super) fn section(
        &self,
        name: &str,
        whole: fn(&Map<String, Json>) -> bool,
    ) -> Result<Option<(PathBuf, Json)>> {
        let [plain, nested] = self.paths(name);
        let Some(json) = self.read(&plain)? else {
            return Ok(self.read(&nested)?.map(|json| (nested, json)));
        };
        let Json::Object(mut members) = json else {
            return Ok(Some((plain, json)));
        };
        if let Some(member) = members
            .get_mut(&self.env)
            .filter(|member| is_truthy(member))
        {
            return Ok(Some((plain, member.take())));
        }
        if whole(&members) {
            return Ok(Some((plain, members.into())));
        }
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        Err(Error::Config(format!(
            "{}: no environment {:?}; the file has {}; choose one with {}",
            plain.display(),
            self.env,
            names.join(", "),
            self.env_knob,
        )))
    }
}

/// Returns whether JavaScript takes a value for true.
fn is_truthy(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::Bool(value) => *value,
        Json::Number(number) => number.as_f64() != Some(0.0),
        Json::String(text) => !text.is_empty(),
        Json::Array(_) | Json::Object(_) => true,
    }
}

#[cfg(test)]
pub(super) mod tests;
