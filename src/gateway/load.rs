//! Files and flags → [`Config`].
//!
//! Layers, each over the one before: the defaults, the Pomelo project (`--app-dir`), `tangelo.toml`
//! (`--config`), every `--set` in order, the other flags. All but the project go through one table,
//! `keys::KEYS`, so a key has the same checks and the same error wherever it was written.
//!
//! A command line as a master writes it (`launch`) names the project by its main script and stands
//! in for the own entry of `servers.json`. Who this server is, it alone decides: id, type and
//! environment of `tangelo.toml` do not count then, and flags for them are refused.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use toml::de::{DeTable, DeValue};

use crate::config::{Config, LogFormat};
use crate::error::Error;
use crate::limits;

mod crons;
mod keys;
mod launch;
mod project;
mod sections;

use keys::{Given, KEYS, in_order};
use launch::Launch;
use project::Project;

type Result<T, E = Error> = std::result::Result<T, E>;

impl Config {
    /// Reads a `tangelo.toml`; what it does not name keeps its default. With `app_dir` in it, the
    /// Pomelo project there is read as well.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Layers {
            launch: None,
            file: Some(File::read(path.as_ref())?),
            flags: Vec::new(),
        }
        .config()
    }

    /// Reads this process' command line, which is that of the binary: `--config`, `--app-dir`,
    /// `--listen`, `--shards`, `--set` and so on. `--help`, and a line that is not understood, end the
    /// process, as command lines do.
    pub fn from_args() -> Result<Self> {
        from_args(std::env::args_os()).map_err(|error| match error {
            ArgsError::Usage(usage) => usage.exit(),
            ArgsError::Config(error) => error,
        })
    }
}

/// Reads the command line, program name first, and the files it names.
pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Config, ArgsError> {
    let args = Args::try_parse_from(args)?;
    let launch = args.launch()?;
    let file = args.config.as_deref().map(File::read).transpose()?;
    let flags = args.flags()?;
    if launch.is_some() {
        let says_who = |flag: &&Flag| ["id", "server_type", "env"].contains(&flag.key.as_str());
        if let Some(Flag { name, .. }) = flags.iter().find(says_who) {
            let what = "not together with key=value words, which say that themselves";
            return Err(Error::Config(format!("{name}: {what}")).into());
        }
    }
    Ok(Layers {
        launch,
        file,
        flags,
    }
    .config()?)
}

/// Reads `log.format` alone, from a command line whose configuration has an error: that error is written in
/// this format. Returns the default where the key cannot be read either.
pub fn log_format(args: impl IntoIterator<Item = OsString>) -> LogFormat {
    let mut config = Config::default();
    let Ok(mut args) = Args::try_parse_from(args) else {
        return config.log.format;
    };
    args.set.retain(|text| text.contains('='));
    let in_file = args.config.as_deref().and_then(log_format_in);
    let in_file = in_file.map(|format| format!("{LOG_FORMAT}={format}"));
    args.set.splice(..0, in_file);
    for flag in args.flags().unwrap_or_default() {
        if flag.key == LOG_FORMAT {
            let _ = flag.apply(&mut config);
        }
    }
    config.log.format
}

/// The key that [`log_format`] reads.
const LOG_FORMAT: &str = "log.format";

fn log_format_in(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let table = DeTable::parse(&text).ok()?;
    let format = table.get_ref().get("log")?.get_ref().get("format")?;
    format.get_ref().as_str().map(str::to_owned)
}

/// Why a command line gives no configuration.
#[derive(Debug)]
pub enum ArgsError {
    /// Help or version was asked for, or the line is not understood. `exit()` prints it and ends
    /// the process with the right code.
    Usage(clap::Error),
    /// The line is well formed, but a value or a file is not.
    Config(Error),
}

impl From<clap::Error> for ArgsError {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<Error> for ArgsError {
    fn from(error: Error) -> Self {
        Self::Config(error)
    }
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ArgsError {}

/// A gateway that replaces the frontend server of a Pomelo or Pinus game cluster.
///
/// Without --config, --app-dir or a main script it serves a built-in chat room, to try it out.
#[derive(Parser)]
#[command(name = "tangelo", version)]
struct Args {
    /// What a Pomelo master starts a server with: the main script, then all that servers.json says
    /// of the server, as in game/app.js env=production id=connector-1 port=3150 ...; or just `run`,
    /// which changes nothing
    #[arg(value_name = "MAIN.js KEY=VALUE")]
    words: Vec<String>,
    /// Read this tangelo.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect; port 0 lets the kernel choose
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Threads that serve clients [default: one per available core]
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// Folder of the Pomelo project whose frontend this is; it holds config/servers.json
    #[arg(long, value_name = "DIR")]
    app_dir: Option<String>,
    /// Own server id, as in servers.json
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Environment of the Pomelo project [default: development]
    #[arg(long, value_name = "ENV")]
    env: Option<String>,
    /// Framework whose details to follow where they differ [default: pomelo]
    #[arg(long, value_name = "pomelo|pinus")]
    dialect: Option<String>,
    /// Set any key of tangelo.toml, as in client.heartbeat=3s; later ones win
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Args {
    /// The line as a master wrote it, if one did. Checks what clap cannot see.
    fn launch(&self) -> Result<Option<Launch>, clap::Error> {
        let launch = Launch::from_words(&self.words, std::env::var("NODE_ENV").ok());
        let refused = |kind, text: String| Err(Self::command().error(kind, text));
        if launch.is_some() {
            return Ok(launch);
        }
        if let Some(word) = self.words.iter().find(|word| *word != "run") {
            let what =
                "accepted: run, or a main script with key=value words such as id=connector-1";
            return refused(
                ErrorKind::UnknownArgument,
                format!("'{word}' means nothing alone; {what}"),
            );
        }
        if self.app_dir.is_some() && self.id.is_none() {
            let text = "--app-dir needs --id <ID>: which server of the project this is".into();
            return refused(ErrorKind::MissingRequiredArgument, text);
        }
        Ok(None)
    }

    /// Everything but the file, weakest first.
    fn flags(self) -> Result<Vec<Flag>> {
        let mut flags = Vec::new();
        for text in self.set {
            let Some((key, value)) = text.split_once('=') else {
                return Err(Error::Config(format!(
                    "--set {text}: no value; accepted: KEY=VALUE, such as client.heartbeat=3s"
                )));
            };
            let (key, value) = (key.trim().into(), value.trim().into());
            flags.push(Flag {
                name: format!("--set {text}"),
                key,
                value,
            });
        }
        let named = [
            ("--listen", "listen", self.listen),
            ("--shards", "shards", self.shards),
            ("--app-dir", "app_dir", self.app_dir),
            ("--id", "id", self.id),
            ("--env", "env", self.env),
            ("--dialect", "dialect", self.dialect),
        ];
        for (flag, key, value) in named {
            if let Some(value) = value {
                flags.push(Flag {
                    name: format!("{flag} {value}"),
                    key: key.into(),
                    value,
                });
            }
        }
        Ok(flags)
    }
}

/// What was given on top of the defaults and the project.
struct Layers {
    launch: Option<Launch>,
    file: Option<File>,
    flags: Vec<Flag>,
}

impl Layers {
    fn config(&self) -> Result<Config> {
        let mut config = Config::default();
        if let Some(launch) = &self.launch {
            config.app_dir = launch.app_dir();
            config.env = launch.node_env.clone().unwrap_or(config.env);
        }
        self.apply(&mut config)?;
        match config.app_dir.take() {
            Some(app_dir) => config = self.project(config, app_dir)?,
            None if self.launch.is_some() => {
                return Err(Error::Config(
                    "no project; put its main script before the key=value words, as in \
                     game/app.js id=connector-1, or name its folder with --app-dir"
                        .into(),
                ));
            }
            None => {}
        }
        config.embedded = self.file.is_none() && config.app_dir.is_none();
        check(&config)?;
        Ok(config)
    }

    /// The layers said which project and which of its servers; now they go on top of it.
    fn project(&self, layers: Config, app_dir: PathBuf) -> Result<Config> {
        let mut config = Config {
            id: layers.id,
            env: layers.env,
            cluster: layers.cluster,
            app_dir: Some(app_dir.clone()),
            ..Config::default()
        };
        let launched = self.launch.as_ref();
        let launched = launched.map(|launch| launch.entry(&app_dir)).transpose()?;
        if let Some(own) = &launched {
            own.identify(&mut config)?;
        }
        let project = Project {
            dir: app_dir.join("config"),
            env: config.env.clone(),
            env_knob: if launched.is_some() { "env=" } else { "--env" },
        };
        let own = project.apply(&mut config, launched)?;
        self.apply(&mut config)?;
        if self.launch.is_some() {
            own.identify(&mut config)?;
        }
        project.crons(&mut config)?;
        if config.cluster.join {
            project.join(&mut config, &own, &launch::usual_main(&app_dir))?;
        } else {
            config.rpc.listen = None;
        }
        Ok(config)
    }

    fn apply(&self, config: &mut Config) -> Result<()> {
        if let Some(file) = &self.file {
            file.apply(config)?;
        }
        self.flags.iter().try_for_each(|flag| flag.apply(config))
    }
}

/// What no single key can see.
fn check(config: &Config) -> Result<()> {
    let rpc = &config.rpc;
    if rpc.backoff_min > rpc.backoff_max {
        return Err(Error::Config(format!(
            "rpc.backoff_min: {} is longer than rpc.backoff_max, {}",
            humantime::format_duration(rpc.backoff_min),
            humantime::format_duration(rpc.backoff_max),
        )));
    }
    let cluster = &config.cluster;
    if cluster.reconnect_min > cluster.reconnect_max {
        return Err(Error::Config(format!(
            "cluster.reconnect_min: {} is longer than cluster.reconnect_max, {}",
            humantime::format_duration(cluster.reconnect_min),
            humantime::format_duration(cluster.reconnect_max),
        )));
    }
    if config.servers.len() > limits::SERVERS_MAX {
        return Err(Error::Config(format!(
            "{} other servers are more than tangelo takes; accepted: at most {}",
            config.servers.len(),
            limits::SERVERS_MAX,
        )));
    }
    if let Some(at) = config
        .servers
        .iter()
        .position(|server| server.id == config.id)
    {
        return Err(Error::Config(format!(
            "server[{at}].id: {:?} is the id of this tangelo itself; only other servers go here",
            config.id,
        )));
    }
    Ok(())
}

/// A `tangelo.toml`.
struct File {
    path: PathBuf,
    text: String,
}

impl File {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .map_err(|e| Error::Config(format!("{}: cannot be read: {e}", path.display())))?;
        Ok(Self {
            path: path.into(),
            text,
        })
    }

    fn apply(&self, config: &mut Config) -> Result<()> {
        let name = self.path.display().to_string();
        let source = Source {
            name: &name,
            text: Some(&self.text),
            key: "",
        };
        let table = DeTable::parse(&self.text).map_err(|e| {
            let line = line(&self.text, e.span().map_or(0, |span| span.start));
            Error::Config(format!(
                "{name}:{line}: {}",
                e.message().replace('\n', "; ")
            ))
        })?;
        let before = config.app_dir.take();
        walk(config, "", table.get_ref(), &source)?;
        let parent = self.path.parent().unwrap_or(Path::new(""));
        config.app_dir = config.app_dir.take().map(|dir| parent.join(dir)).or(before);
        Ok(())
    }
}

/// One `--set`, or a flag with a name of its own, which is the same thing.
struct Flag {
    /// As it was typed.
    name: String,
    key: String,
    value: String,
}

impl Flag {
    fn apply(&self, config: &mut Config) -> Result<()> {
        // A shell takes quotes away, so what is no TOML value is meant as a string.
        let toml = match DeValue::parse(&self.value) {
            Ok(value) => value.into_inner(),
            Err(_) => DeValue::String(self.value.as_str().into()),
        };
        let source = Source {
            name: &self.name,
            text: None,
            key: &self.key,
        };
        assign(
            config,
            &self.key,
            Given {
                toml: &toml,
                typed: Some(&self.value),
            },
            0,
            &source,
        )
    }
}

/// Where a value was written: what an error names.
struct Source<'a> {
    /// File or flag.
    name: &'a str,
    /// The file's text, to count lines in.
    text: Option<&'a str>,
    /// The flag's own key, which its name shows already.
    key: &'a str,
}

impl Source<'_> {
    fn error(&self, at: usize, key: &str, what: &str) -> Error {
        let name = self.name;
        Error::Config(match self.text {
            Some(text) => format!("{name}:{}: {key}: {what}", line(text, at)),
            None if key == self.key => format!("{name}: {what}"),
            None => format!("{name}: {key}: {what}"),
        })
    }
}

fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Assigns all that a section holds, in the order it was written, so that the first mistake in the
/// file is the one reported.
fn walk(
    config: &mut Config,
    section: &str,
    table: &DeTable<'_>,
    source: &Source<'_>,
) -> Result<()> {
    for (name, value) in in_order(table) {
        let name_text = name.get_ref();
        let key = if section.is_empty() {
            name_text.to_string()
        } else {
            format!("{section}.{name_text}")
        };
        let given = Given {
            toml: value.get_ref(),
            typed: None,
        };
        assign(config, &key, given, name.span().start, source)?;
    }
    Ok(())
}

fn assign(
    config: &mut Config,
    key: &str,
    given: Given<'_>,
    at: usize,
    source: &Source<'_>,
) -> Result<()> {
    if let Some((_, set)) = KEYS.iter().find(|(name, _)| *name == key) {
        return set(config, given).map_err(|wrong| {
            let key = format!("{key}{}", wrong.below);
            source.error(wrong.at.unwrap_or(at), &key, &wrong.what)
        });
    }
    if let Some(server_type) = below(ROUTE, key).filter(|name| keys::is_server_type(name)) {
        return keys::route(config, server_type, given)
            .map_err(|wrong| source.error(at, key, &wrong.what));
    }
    if !is_section(key) {
        return Err(source.error(at, key, &unknown(key)));
    }
    match given.toml {
        DeValue::Table(table) => walk(config, key, table, source),
        _ => {
            let what = format!(
                "{given} is no section; accepted: [{key}] with keys {}",
                known(key)
            );
            Err(source.error(at, key, &what))
        }
    }
}

/// The section whose keys are not in the table: server types.
const ROUTE: &str = "route";

fn is_section(key: &str) -> bool {
    KEYS.iter().any(|(name, _)| below(key, name).is_some())
}

/// The part of `name` after `section.`.
fn below<'a>(section: &str, name: &'a str) -> Option<&'a str> {
    name.strip_prefix(section)?.strip_prefix('.')
}

fn unknown(key: &str) -> String {
    let parents = key.rmatch_indices('.').map(|(at, _)| &key[..at]);
    let section = parents
        .into_iter()
        .find(|parent| is_section(parent))
        .unwrap_or("");
    format!("unknown key; known keys here: {}", known(section))
}

/// Names of keys and sections directly in `section`; `""` is the top.
fn known(section: &str) -> String {
    if section == ROUTE {
        return "default and any server type".into();
    }
    let mut names: Vec<&str> = Vec::new();
    for (key, _) in KEYS {
        let Some(rest) = (if section.is_empty() {
            Some(*key)
        } else {
            below(section, key)
        }) else {
            continue;
        };
        let name = rest.split('.').next().unwrap_or(rest);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::project::tests::Folder;
    use super::*;
    use crate::config::{Dialect, NamedScheduler, RpcAllow, Scheduler, Server};
    use crate::session::binding::DuplicateLogin;
    use std::net::SocketAddr;
    use std::time::Duration;

    const MASTER: &str = r#"{"development": {"host": "127.0.0.1", "port": 3005}}"#;

    fn args(line: &[&str]) -> Result<Config, ArgsError> {
        from_args(
            std::iter::once("tangelo")
                .chain(line.iter().copied())
                .map(OsString::from),
        )
    }

    #[track_caller]
    fn refused(line: &[&str], expected: &str) {
        match args(line) {
            Err(ArgsError::Config(Error::Config(text))) => assert_eq!(text, expected),
            other => panic!("{other:?}"),
        }
    }

    /// The error of a file with this text; its folder is left out.
    #[track_caller]
    fn refused_file(text: &str, expected: &str) {
        let folder = Folder::new(&[("tangelo.toml", text)]);
        let path = folder.path("tangelo.toml");
        let Err(Error::Config(text)) = Config::load(&path) else {
            panic!("accepted")
        };
        assert_eq!(text, format!("{}{expected}", path.display()));
    }

    #[test]
    fn nothing_given_is_the_default_and_embedded() {
        let expected = Config {
            embedded: true,
            ..Config::default()
        };
        assert_eq!(args(&[]).unwrap(), expected);
        assert_eq!(args(&["run"]).unwrap(), expected);
    }

    #[test]
    fn flags_are_valid_before_and_after_run_and_without_it() {
        for line in [
            &["--listen", "127.0.0.1:0", "--shards=2"][..],
            &["run", "--listen", "127.0.0.1:0", "--shards=2"],
            &["--listen", "127.0.0.1:0", "run", "--shards=2"],
        ] {
            let config = args(line).unwrap();
            assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 0)));
            assert_eq!(config.shards, Some(2));
            assert!(config.embedded);
        }
    }

    #[test]
    fn set_reaches_every_kind_of_key_and_later_ones_win() {
        let config = args(&[
            "--set=client.heartbeat=5s",
            "--set=client.heartbeat=3s",
            "--set=push.scheduler=buffer",
            "--set=listen=[::]:4010",
            "--set=client.use_dict=true",
            "--set=id=7",
            "--set=log.level=info,tangelo::peer=debug",
            "--set=log={format=\"json\"}",
            "--set=dictionary=[\"onChat\"]",
            "--set=server=[{id='chat-1', type='chat', host='::1', port=6050}]",
        ])
        .unwrap();
        assert_eq!(config.client.heartbeat, Some(Duration::from_secs(3)));
        assert_eq!(config.push.scheduler, Scheduler::Buffer);
        assert_eq!(config.listen.to_string(), "[::]:4010");
        assert!(config.client.use_dict);
        assert_eq!(config.id, "7");
        assert_eq!(config.log.level, "info,tangelo::peer=debug");
        assert_eq!(config.log.format, LogFormat::Json);
        assert_eq!(config.dictionary, ["onChat"]);
        assert_eq!(config.servers[0].port, 6050);
        assert!(config.embedded);
    }

    #[test]
    fn flags_win_over_set_and_set_wins_over_the_file() {
        let text = "listen = '127.0.0.1:1'\nshards = 1\npin = true\ndialect = 'pinus'\n";
        let folder = Folder::new(&[("tangelo.toml", text)]);
        let path = folder.path("tangelo.toml").display().to_string();
        let config = args(&[
            "--config",
            &path,
            "--listen=127.0.0.1:3",
            "--set=listen=127.0.0.1:2",
            "--set=shards=2",
        ])
        .unwrap();
        assert_eq!(config.listen.port(), 3);
        assert_eq!(config.shards, Some(2));
        assert!(config.pin);
        assert_eq!(config.dialect, Dialect::Pinus);
        assert!(!config.embedded);
        assert_eq!(
            args(&["--config", &path, "--dialect=pomelo"])
                .unwrap()
                .dialect,
            Dialect::Pomelo
        );
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = r#"
            id = "connector-9"
            dictionary = ["onChat", "onLeave"]
            [client]
            heartbeat = "30s"
            package_bytes_max = "64KiB"
            [push]
            scheduler = "buffer"
            flush_interval = "10ms"
            select = ["response now", "onMove* slow"]
            [[push.schedulers]]
            id = "slow"
            scheduler = "buffer"
            flush_interval = "200ms"
            [[push.schedulers]]
            id = "now"
            scheduler = "direct"
            [[server]]
            id = "chat-1"
            type = "chat"
            host = "10.0.0.2"
            port = 6050
            [[server]]
            id = "area-1"
            type = "area"
            host = "10.0.0.3"
            port = 6051
        "#;
        let folder = Folder::new(&[("tangelo.toml", text)]);
        let mut expected = Config {
            id: "connector-9".into(),
            ..Config::default()
        };
        expected.dictionary = vec!["onChat".into(), "onLeave".into()];
        expected.client.heartbeat = Some(Duration::from_secs(30));
        expected.client.package_bytes_max = 64 << 10;
        expected.push.scheduler = Scheduler::Buffer;
        expected.push.flush_interval = Duration::from_millis(10);
        expected.push.select = vec!["response now".into(), "onMove* slow".into()];
        expected.push.schedulers = [
            ("slow", Scheduler::Buffer, 200),
            ("now", Scheduler::Direct, 20),
        ]
        .map(|(id, scheduler, ms)| NamedScheduler {
            id: id.into(),
            scheduler,
            flush_interval: Duration::from_millis(ms),
        })
        .into();
        expected.servers = [("chat", "10.0.0.2", 6050), ("area", "10.0.0.3", 6051)]
            .map(|(kind, host, port)| Server {
                id: format!("{kind}-1"),
                server_type: kind.into(),
                host: host.into(),
                port,
                ..Server::default()
            })
            .into();
        assert_eq!(Config::load(folder.path("tangelo.toml")).unwrap(), expected);
    }

    #[test]
    fn an_unknown_key_names_file_line_and_key() {
        refused_file(
            "id = 'a'\n\n[client]\nuse_dict = true\nheartbeet = '3s'\n",
            ":5: client.heartbeet: unknown key; known keys here: heartbeat, timeout, use_dict, \
             use_protobuf, server_protos, client_protos, protobuf_check, use_crypto, max_connections, accept, blacklist, blacklist_file, blacklist_console, \
             forward, real_ip_header, real_port_header, package_bytes_max, outbox_bytes_max, calls_in_flight_max",
        );
        let top = "unknown key; known keys here: id, server_type, delegate, delegate_closed, env, dialect, listen, shards, pin, start_timeout, stop_timeout, \
                   app_dir, dictionary, handler_routes, server, client, filter, session, push, rpc, route, cluster, log";
        refused_file(
            "id = 'a'\n[clinet]\nheartbeat = '3s'\n",
            &format!(":2: clinet: {top}"),
        );
        refused_file("heartbeat = '3s'\n", &format!(":1: heartbeat: {top}"));
        refused_file("embedded = true\n", &format!(":1: embedded: {top}"));
        refused_file(
            "push.x.y = 1",
            ":1: push.x: unknown key; known keys here: scheduler, flush_interval, schedulers, select",
        );
    }

    #[test]
    fn the_first_mistake_of_a_file_is_the_one_named() {
        refused_file("[push]\nb = 1\na = 2\n[client]\nc = 3", {
            ":2: push.b: unknown key; known keys here: scheduler, flush_interval, schedulers, select"
        });
    }

    #[test]
    fn an_unknown_key_in_set_names_the_flag_and_the_known_keys() {
        refused(
            &["--set", "push.shceduler=direct"],
            "--set push.shceduler=direct: unknown key; known keys here: scheduler, flush_interval, \
             schedulers, select",
        );
        refused(
            &["--set", "push.scheduler.x=1"],
            "--set push.scheduler.x=1: unknown key; known keys here: scheduler, flush_interval, \
             schedulers, select",
        );
        refused(
            &["--set", "push={x=1}"],
            "--set push={x=1}: push.x: unknown key; known keys here: scheduler, flush_interval, \
             schedulers, select",
        );
        refused(
            &["--set", "=1"],
            "--set =1: unknown key; known keys here: id, server_type, delegate, delegate_closed, env, dialect, listen, shards, pin, start_timeout, stop_timeout, \
             app_dir, dictionary, handler_routes, server, client, filter, session, push, rpc, route, cluster, log",
        );
    }

    #[test]
    fn a_wrong_value_names_file_line_key_and_what_is_accepted() {
        refused_file(
            "[rpc]\n\ntimeout = 30\n",
            ":3: rpc.timeout: 30 has no unit; accepted: 100ms to 10m, such as \"3s\" or \"250ms\"",
        );
        refused_file(
            "\nclient = 3\n",
            ":2: client: 3 is no section; accepted: [client] with keys heartbeat, timeout, use_dict, \
             use_protobuf, server_protos, client_protos, protobuf_check, use_crypto, max_connections, accept, blacklist, blacklist_file, blacklist_console, \
             forward, real_ip_header, real_port_header, package_bytes_max, outbox_bytes_max, calls_in_flight_max",
        );
        refused_file(
            "id = 'a'\n[[server]]\nid = 'b'\ntype = 'chat'\nhost = 'h'\nport = 70000\n",
            ":6: server[0].port: 70000 is out of range; accepted: a number from 1 to 65535",
        );
        refused_file(
            "[[server]]\nid = 'b'\ntype = 'chat'\nhost = 'h'\nport = 1\n\n[[server]]\nid = 'c'\n",
            ":7: server[1].type: missing; every server needs id, type, host and port",
        );
        refused_file("[log]\nlevel = 'debgu'", {
            ":2: log.level: \"debgu\" is not a level; accepted: error, warn, info, debug, trace, off, or a \
             filter such as info,tangelo::peer=debug"
        });
    }

    #[test]
    fn a_wrong_value_of_a_flag_names_the_flag() {
        refused(
            &["--set", "client.heartbeat=3"],
            "--set client.heartbeat=3: 3 has no unit; accepted: whole seconds, 1s to 1h, such as \"3s\"",
        );
        refused(
            &["--set", "client.heartbeat"],
            "--set client.heartbeat: no value; accepted: KEY=VALUE, such as client.heartbeat=3s",
        );
        refused(
            &["--shards", "0"],
            "--shards 0: 0 is out of range; accepted: a number from 1 to 256",
        );
        refused(
            &["--listen", "localhost:3010"],
            "--listen localhost:3010: \"localhost:3010\" is no address with a port; accepted: \
             ADDR:PORT, such as 127.0.0.1:3010, or [::]:3010 for all addresses",
        );
        refused(
            &["--dialect", "pitaya"],
            "--dialect pitaya: \"pitaya\" is not known; accepted: pomelo, pinus",
        );
    }

    #[test]
    fn broken_toml_names_file_and_line() {
        refused_file("id = 'a'\nid = 'b'\n", ":2: duplicate key");
        refused_file(
            "id = 'a'\n\nshards =\n",
            ":3: string values must be quoted, expected literal string",
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        refused(
            &["--config", "no/such.toml"],
            "no/such.toml: cannot be read: No such file or directory (os error 2)",
        );
    }

    #[test]
    fn values_that_contradict_each_other_are_named() {
        refused(
            &["--set", "rpc.backoff_min=3s"],
            "rpc.backoff_min: 3s is longer than rpc.backoff_max, 2s",
        );
        refused(
            &[
                "--id=a",
                "--set=server=[{id='a', type='chat', host='h', port=1}]",
            ],
            "server[0].id: \"a\" is the id of this tangelo itself; only other servers go here",
        );
        let mut config = Config::default();
        let server = Server {
            id: "a".into(),
            server_type: "t".into(),
            host: "h".into(),
            port: 1,
            ..Server::default()
        };
        config.servers = vec![server; limits::SERVERS_MAX + 1];
        assert_eq!(
            check(&config).unwrap_err().to_string(),
            "4097 other servers are more than tangelo takes; accepted: at most 4096",
        );
    }

    #[test]
    fn usage_errors_keep_the_exit_codes_of_clap() {
        let code = |line: &[&str]| match args(line) {
            Err(ArgsError::Usage(error)) => error.exit_code(),
            other => panic!("{other:?}"),
        };
        assert_eq!(code(&["--help"]), 0);
        assert_eq!(code(&["--version"]), 0);
        assert_eq!(code(&["--no-such-flag"]), 2);
        assert_eq!(code(&["walk"]), 2);
        assert_eq!(
            code(&["--app-dir", "game-server"]),
            2,
            "--app-dir requires --id"
        );
    }

    #[test]
    fn a_project_is_the_lowest_layer() {
        let servers = r#"{"development": {"connector": [
            {"id": "c-1", "host": "127.0.0.1", "port": 1, "clientPort": 3010, "frontend": true,
             "max-connections": 9}]}}"#;
        let folder = Folder::new(&[
            ("game/config/servers.json", servers),
            ("game/config/master.json", MASTER),
            (
                "tangelo.toml",
                "app_dir = 'game'\nid = 'c-1'\nclient.max_connections = 7\nshards = 3",
            ),
        ]);
        let toml = folder.path("tangelo.toml").display().to_string();
        let game = folder.path("game").display().to_string();

        let config = Config::load(&toml).unwrap();
        assert_eq!(
            config.app_dir,
            Some(folder.path("game")),
            "relative to the file"
        );
        assert_eq!(
            (config.listen.port(), config.client.max_connections),
            (3010, Some(7))
        );

        let line = ["--app-dir", &game, "--id=c-1", "--listen=127.0.0.1:1"];
        let config = args(&line).unwrap();
        assert_eq!(
            (config.listen.port(), config.client.max_connections),
            (1, Some(9))
        );
        assert_eq!((config.shards, config.embedded), (None, false));

        let config = args(&[&["--config", &toml][..], &line].concat()).unwrap();
        assert_eq!(
            (config.listen.port(), config.client.max_connections),
            (1, Some(7))
        );
        assert_eq!(config.app_dir, Some(game.into()));
    }
    /// A project of one connector `c-1` and one backend.
    fn project() -> Folder {
        let servers = r#"{"development": {
            "connector": [{"id":"c-1","host":"127.0.0.1","port":3150,"clientPort":3010,
                           "frontend":true}],
            "chat": [{"id":"chat-1","host":"127.0.0.1","port":6050}]}}"#;
        Folder::new(&[
            ("config/servers.json", servers),
            ("config/master.json", MASTER),
            ("app.js", ""),
        ])
    }

    fn ids(config: &Config) -> Vec<&str> {
        config
            .servers
            .iter()
            .map(|server| server.id.as_str())
            .collect()
    }

    #[test]
    fn a_project_has_a_master_to_join_and_a_port_for_calls() {
        let folder = project();
        let dir = folder.path("").display().to_string();
        let config = args(&["--app-dir", &dir, "--id=c-1"]).unwrap();
        let master = config.master.as_ref().unwrap();
        assert_eq!((master.host.as_str(), master.port), ("127.0.0.1", 3005));
        assert_eq!(
            master.info["main"],
            folder.path("app.js").display().to_string()
        );
        assert_eq!(master.info["port"], 3150);
        assert_eq!(config.rpc.listen, Some("127.0.0.1:3150".parse().unwrap()));
        assert_eq!(ids(&config), ["chat-1"]);
    }

    #[test]
    fn whoever_does_not_join_has_the_listed_servers_and_no_port_for_calls() {
        let folder = project();
        std::fs::remove_file(folder.path("config/master.json")).unwrap();
        let dir = folder.path("").display().to_string();
        let line = ["--app-dir", &dir, "--id=c-1"];
        let config = folder.path("config").display().to_string();
        refused(
            &line,
            &format!(
                "{config}/master.json: not found, nor {config}/development/master.json; it names \
                 the master to join, which cluster.join = false does without"
            ),
        );
        let stays = ["--set=cluster.join=false", "--set=rpc.listen=[::]:1"];
        let config = args(&[&line[..], &stays].concat()).unwrap();
        assert_eq!((config.master, config.rpc.listen), (None, None));
        assert_eq!(config.servers[0].id, "chat-1");
    }

    #[test]
    fn without_a_project_calls_come_where_the_user_says() {
        assert_eq!(args(&[]).unwrap().rpc.listen, None);
        let config = args(&["--set=rpc.listen=[::]:1"]).unwrap();
        assert_eq!(config.rpc.listen, Some("[::]:1".parse().unwrap()));
        assert_eq!(config.master, None);
    }

    #[test]
    fn a_set_address_for_calls_wins_and_the_host_need_not_be_known_here() {
        let folder = project();
        let servers = r#"{"connector": [{"id":"c-1","host":"no..host","port":3150,
            "clientPort":3010,"frontend":true}]}"#;
        std::fs::write(folder.path("config/servers.json"), servers).unwrap();
        let dir = folder.path("").display().to_string();
        let line = ["--app-dir", &dir, "--id=c-1", "--set=rpc.listen=[::]:4150"];
        let config = args(&line).unwrap();
        assert_eq!(config.rpc.listen, Some("[::]:4150".parse().unwrap()));
        let info = config.master.unwrap().info;
        assert_eq!(
            (&info["host"], &info["port"]),
            (&"no..host".into(), &3150.into())
        );
    }

    #[test]
    fn a_server_type_set_over_the_project_is_the_one_told_and_proved() {
        let folder = project();
        let admin = r#"[{"type":"connector","token":"a"},{"type":"gate","token":"b"}]"#;
        std::fs::write(folder.path("config/adminServer.json"), admin).unwrap();
        let dir = folder.path("").display().to_string();
        let config = args(&["--app-dir", &dir, "--id=c-1", "--set=server_type=gate"]).unwrap();
        let master = config.master.unwrap();
        assert_eq!(master.info["serverType"], "gate");
        assert_eq!(master.token, "b");
    }

    /// A command line as the master of `project` writes it, for a server that it does not list.
    const WORDS: [&str; 8] = [
        "env=development",
        "id=c-7",
        "host=127.0.0.1",
        "port=3157",
        "clientPort=3017",
        "frontend=true",
        "args=[ 'launcher.js' ]",
        "serverType=connector",
    ];

    #[test]
    fn a_launched_server_is_what_its_words_say() {
        let folder = project();
        let main = folder.path("app.js").display().to_string();
        let line = [&[main.as_str()], &WORDS[..], &["--shards", "2"]].concat();
        let config = args(&line).unwrap();
        assert_eq!((config.id.as_str(), config.shards), ("c-7", Some(2)));
        assert_eq!(config.server_type, "connector");
        assert_eq!(config.listen.to_string(), "[::]:3017");
        assert_eq!(config.rpc.listen, Some("127.0.0.1:3157".parse().unwrap()));
        assert_eq!(ids(&config), ["c-1", "chat-1"]);
        assert_eq!(
            config.app_dir,
            Some(folder.path("").canonicalize().unwrap())
        );
        assert!(!config.embedded);
        let info = config.master.unwrap().info;
        let expected = serde_json::json!({
            "main": main,
            "env": "development",
            "id": "c-7",
            "host": "127.0.0.1",
            "port": 3157,
            "clientPort": 3017,
            "frontend": "true",
            "args": "[ 'launcher.js' ]",
            "serverType": "connector",
        });
        let order = |json: &serde_json::Value| json.to_string();
        assert_eq!(order(&info.into()), order(&expected));
    }

    #[test]
    fn a_launched_server_and_one_named_by_its_id_tell_the_same() {
        let folder = project();
        let main = folder.path("app.js").display().to_string();
        let dir = folder.path("").display().to_string();
        let named = args(&["--app-dir", &dir, "--id=c-1"]).unwrap();
        let words = "env=development id=c-1 host=127.0.0.1 port=3150 clientPort=3010 frontend=true \
                     serverType=connector";
        let line: Vec<&str> = [main.as_str()]
            .into_iter()
            .chain(words.split(' '))
            .collect();
        let launched = args(&line).unwrap();
        assert_eq!(launched.master, named.master);
        assert_eq!(launched.servers, named.servers);
        assert_eq!(launched.rpc, named.rpc);
        // By hand, the folder is as good as the script in it.
        let line = [&["run", "--app-dir", &dir], &line[1..]].concat();
        assert_eq!(args(&line).unwrap().master, named.master);
    }

    #[test]
    fn words_say_alone_who_a_launched_server_is() {
        let folder = project();
        let text = "id = 'x'\nenv = 'y'\nserver_type = 'z'\nshards = 3\n";
        let toml = folder.path("tangelo.toml");
        std::fs::write(&toml, text).unwrap();
        let main = folder.path("app.js").display().to_string();
        let line = [&[main.as_str()], &WORDS[..]].concat();
        let toml = toml.display().to_string();
        let config = args(&[&line[..], &["--config", &toml]].concat()).unwrap();
        assert_eq!(config.shards, Some(3));
        let who = [config.id, config.env, config.server_type];
        assert_eq!(who, ["c-7", "development", "connector"]);
        for (flag, shown) in [
            ("--id=c-7", "--id c-7"),
            ("--env=production", "--env production"),
            ("--set=server_type=gate", "--set server_type=gate"),
        ] {
            refused(
                &[&line[..], &[flag]].concat(),
                &format!("{shown}: not together with key=value words, which say that themselves"),
            );
        }
    }

    #[test]
    fn a_launched_server_without_env_asks_node_env_and_tells_no_env() {
        let folder = project();
        let text = "{\"production\": {\"host\": \"10.0.0.9\", \"port\": 1}}";
        std::fs::write(folder.path("config/master.json"), text).unwrap();
        std::fs::remove_file(folder.path("config/servers.json")).unwrap();
        let main = folder.path("app.js").display().to_string();
        let words: Vec<String> = std::iter::once(main.as_str())
            .chain(WORDS[1..].iter().copied())
            .map(String::from)
            .collect();
        let layers = Layers {
            launch: Launch::from_words(&words, Some("production".into())),
            file: None,
            flags: Vec::new(),
        };
        let config = layers.config().unwrap();
        assert_eq!((config.env.as_str(), ids(&config)), ("production", vec![]));
        let master = config.master.unwrap();
        assert_eq!(
            (master.host.as_str(), master.env.as_str()),
            ("10.0.0.9", "production")
        );
        assert_eq!(master.info.get("env"), None);
    }

    #[test]
    fn a_launched_server_that_misses_a_word_is_told_which() {
        let folder = project();
        let main = folder.path("app.js").display().to_string();
        let without = |key: &str| -> Vec<&str> {
            let words = WORDS.into_iter().filter(|word| !word.starts_with(key));
            std::iter::once(main.as_str()).chain(words).collect()
        };
        refused(
            &without("id="),
            "command line: id: missing; accepted: id=TEXT",
        );
        refused(
            &without("serverType="),
            "command line c-7: serverType: missing; accepted: serverType=TEXT",
        );
        refused(
            &without("frontend="),
            "command line c-7: frontend: must be true: tangelo replaces frontend servers",
        );
        refused(
            &without("clientPort="),
            "command line c-7: clientPort: missing; accepted: a number from 1 to 65535",
        );
        refused(
            &WORDS,
            "no project; put its main script before the key=value words, as in game/app.js \
             id=connector-1, or name its folder with --app-dir",
        );
        let config = folder.path("").canonicalize().unwrap().join("config");
        refused(
            &[&[main.as_str(), "env=stage"], &WORDS[1..]].concat(),
            &format!(
                "{}/servers.json: no environment \"stage\"; there: development; choose one with \
                 env=",
                config.display()
            ),
        );
    }

    #[test]
    fn an_id_that_is_a_number_is_taken_for_its_text() {
        let folder = project();
        let main = folder.path("app.js").display().to_string();
        let config = args(&[&[main.as_str(), "id=007"], &WORDS[2..]].concat()).unwrap();
        assert_eq!(config.id, "7");
        assert_eq!(config.master.unwrap().info["id"], 7);
    }

    #[test]
    fn any_server_type_has_a_strategy() {
        let text = "[route]\nchat = 'rr'\ndefault = 'la'\n'🍊' = 'random'\n";
        let folder = Folder::new(&[("tangelo.toml", text)]);
        let path = folder.path("tangelo.toml").display().to_string();
        let line = [
            "--config",
            &path,
            "--set=route.chat=wrr",
            "--set=route={area='ch'}",
        ];
        let config = args(&line).unwrap();
        let routes: Vec<(&str, &str)> = config
            .routes
            .iter()
            .map(|(kind, strategy)| (kind.as_str(), strategy.as_str()))
            .collect();
        let expected = [
            ("area", "ch"),
            ("chat", "wrr"),
            ("default", "la"),
            ("🍊", "random"),
        ];
        assert_eq!(routes, expected);
    }

    #[test]
    fn a_strategy_that_is_none_names_its_place() {
        let accepted = crate::route::balance::Strategy::parse("rrr").unwrap_err();
        refused(
            &["--set=route.chat=rrr"],
            &format!("--set route.chat=rrr: {accepted}"),
        );
        refused_file(
            "[route]\ndefault = 'rr'\nchat = 'rrr'\n",
            &format!(":3: route.chat: {accepted}"),
        );
        refused_file(
            "route.chat = 7",
            ":1: route.chat: 7 is no text; accepted: a text in quotes",
        );
        let unknown = "unknown key; known keys here: default and any server type";
        refused(
            &["--set=route.chat.send=rr"],
            &format!("--set route.chat.send=rr: {unknown}"),
        );
        refused_file(
            "[route]\n'chat.send' = 'rr'",
            &format!(":2: route.chat.send: {unknown}"),
        );
        refused_file(
            "route = 'rr'",
            ":1: route: \"rr\" is no section; accepted: [route] with keys default and any server \
             type",
        );
    }

    #[test]
    fn cluster_and_session_keys_reach_their_knobs() {
        let config = args(&[
            "--set=cluster.reconnect_min=50ms",
            "--set=cluster.reconnect_max=2s",
            "--set=cluster.join=false",
            "--set=rpc.allow=cluster",
            "--set=session.duplicate_login=newest-wins",
            "--set=session.duplicate_login_reason=elsewhere",
        ])
        .unwrap();
        assert_eq!(config.cluster.reconnect_min, Duration::from_millis(50));
        assert_eq!(config.cluster.reconnect_max, Duration::from_secs(2));
        assert!(!config.cluster.join);
        assert_eq!(config.rpc.allow, RpcAllow::Cluster);
        assert_eq!(config.session.duplicate_login, DuplicateLogin::NewestWins);
        assert_eq!(config.session.duplicate_login_reason, "elsewhere");
        refused(
            &[
                "--set=cluster.reconnect_min=1m",
                "--set=cluster.reconnect_max=2s",
            ],
            "cluster.reconnect_min: 1m is longer than cluster.reconnect_max, 2s",
        );
    }
}
