//! Files and flags → [`Config`].
//!
//! Layers, each over the one before: the defaults, the Pomelo project (`--app-dir`), `tangelo.toml`
//! (`--config`), each `--set` in order, the other flags. Values of a file and of flags are read by the table
//! of knobs (`config::knobs`). `CheckedConfig` checks the result, and the error names the place of the wrong
//! value.
//!
//! The command line of a master (`launch`) names the project by its main script and takes the place of the
//! own entry in `servers.json`. That command line alone sets id, type and environment: those of
//! `tangelo.toml` do not count, and flags for them are an error.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::check;
use crate::checked::CheckedConfig;
use crate::config::{self, Compat, Config, ConfigOrigin, LogFormat, Master, Sources, ValueError};
use crate::error::Error;

mod args;
mod assign;
mod crons;
mod entry;
mod framework;
mod launch;
mod project;

use args::{Options, Wish};
use assign::{File, Flag, Places};
use framework::Framework;
use launch::Launch;
use project::Project;

type Result<T, E = Error> = std::result::Result<T, E>;

impl Config {
    /// Reads a `tangelo.toml`; the other knobs keep their defaults. With `app_dir` in it, reads the Pomelo
    /// project there too.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        load_file(path.as_ref()).into_result()
    }

    /// Reads the command line of this process, which has the commands and flags of the binary: `--config`,
    /// `--app-dir`, `--listen`, `--shards`, `--set` and so on. `--help`, a wrong flag, and each command but `run` end the
    /// process, as in other programs. The help has the name of the program's file.
    pub fn from_args() -> Result<Self> {
        Self::from_args_of(&Program::default())
    }

    /// Reads the command line as [`Config::from_args`] does, for a program with a name and a version of its own.
    ///
    /// ```no_run
    /// let program = tangelo::Program {
    ///     name: env!("CARGO_PKG_NAME").into(),
    ///     version: env!("CARGO_PKG_VERSION").into(),
    ///     about: "The gate of our game".into(),
    /// };
    /// let config = tangelo::Config::from_args_of(&program);
    /// ```
    pub fn from_args_of(program: &Program) -> Result<Self> {
        let line = CommandLine::read(program, std::env::args_os());
        let line = line.unwrap_or_else(|usage| usage.exit());
        match line.wish {
            Wish::Run => line.load().into_result(),
            Wish::Check => {
                let Loaded { config, problems } = line.load();
                std::process::exit(check::run(&config, problems))
            }
            Wish::Config => {
                let config = line.load().into_result()?;
                print(&config::effective::toml(&config));
            }
            Wish::Trace(ref follow) => {
                let follow = follow.clone();
                let config = line.load().into_result()?;
                crate::admin::follow(&config.admin, &follow)?;
                std::process::exit(0)
            }
            Wish::Completions(shell) => {
                let mut script = Vec::new();
                let mut command = args::command(program);
                clap_complete::generate(shell, &mut command, &*program.name, &mut script);
                print(&String::from_utf8_lossy(&script));
            }
        }
    }
}

/// Reads a `tangelo.toml`, and the project that it names.
fn load_file(path: &Path) -> Loaded {
    match File::read(path) {
        Ok(file) => Layers {
            launch: None,
            file: Some(file),
            flags: Vec::new(),
            origin: ConfigOrigin::File(path.into()),
        }
        .load(),
        Err(error) => Loaded::refused(error),
    }
}

/// Reads the sources of a configuration again; `None` for one that a program has made itself.
pub(super) fn again(sources: &Sources) -> Option<Loaded> {
    match &sources.origin {
        ConfigOrigin::Program => None,
        ConfigOrigin::File(path) => Some(load_file(path)),
        ConfigOrigin::CommandLine(args) => {
            let line = CommandLine::read(&Program::default(), args.clone());
            let refused = |usage: clap::Error| Loaded::refused(Error::Config(usage.to_string()));
            Some(line.map_or_else(refused, CommandLine::load))
        }
    }
}

/// Writes a text to standard output and ends the process.
fn print(text: &str) -> ! {
    let written = io::stdout().write_all(text.as_bytes());
    std::process::exit(written.is_err().into())
}

/// The name and the version of a program, as its `--help` and `--version` show them.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One sentence about it; may be empty.
    pub about: String,
}

impl Default for Program {
    /// The file of this process, and the version of tangelo.
    fn default() -> Self {
        let file = std::env::args_os().next().map(PathBuf::from);
        let name = file.as_deref().and_then(Path::file_name);
        let name = name.map_or_else(|| "tangelo".into(), |name| name.to_string_lossy());
        Self {
            name: name.into_owned(),
            version: concat!("(tangelo ", env!("CARGO_PKG_VERSION"), ")").into(),
            about: String::new(),
        }
    }
}

/// Reads a command line that runs a gateway, program name first, and the files it names. Tests call this.
#[cfg(feature = "internals")]
pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Config> {
    let line = CommandLine::read(&Program::default(), args);
    let line = line.map_err(|usage| Error::Config(usage.to_string()))?;
    line.load().into_result()
}

/// Reads the text of a `tangelo.toml`. Fuzz targets call this.
#[cfg(feature = "internals")]
pub(crate) fn from_text(text: &str) -> Result<Config> {
    let file = File::new(Path::new("tangelo.toml"), text.into());
    let layers = Layers {
        launch: None,
        file: Some(file),
        flags: Vec::new(),
        origin: ConfigOrigin::Program,
    };
    layers.load().into_result()
}

/// A command line.
struct CommandLine {
    args: Vec<OsString>,
    wish: Wish,
    options: Options,
    launch: Option<Launch>,
}

impl CommandLine {
    fn read(
        program: &Program,
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let args: Vec<OsString> = args.into_iter().collect();
        let (wish, options) = args::parse(program, args.clone())?;
        let launch = match wish {
            Wish::Completions(_) => None,
            _ => options.launch(program)?,
        };
        Ok(Self {
            args,
            wish,
            options,
            launch,
        })
    }

    /// Reads the files that it names.
    fn load(self) -> Loaded {
        let file = self.options.file().map(File::read).transpose();
        let layers = file.and_then(|file| {
            let flags = self.options.flags()?;
            if self.launch.is_some() {
                let says_who =
                    |flag: &&Flag| ["id", "server_type", "env"].contains(&flag.key.as_str());
                if let Some(Flag { name, .. }) = flags.iter().find(says_who) {
                    let what = "not allowed together with key=value words, which set it themselves";
                    return Err(Error::Config(format!("{name}: {what}")));
                }
            }
            Ok(Layers {
                launch: self.launch,
                file,
                flags,
                origin: ConfigOrigin::CommandLine(self.args),
            })
        });
        match layers {
            Ok(layers) => layers.load(),
            Err(error) => Loaded::refused(error),
        }
    }
}

/// A configuration, as far as its files can be read.
pub(super) struct Loaded {
    pub(super) config: Config,
    /// The errors of files, keys and values, in their order.
    pub(super) problems: Vec<Error>,
}

impl Loaded {
    /// Makes the result of sources that cannot be read at all.
    fn refused(error: Error) -> Self {
        Self {
            config: Config::default(),
            problems: vec![error],
        }
    }

    /// Returns the configuration, or its first error.
    fn into_result(self) -> Result<Config> {
        self.problems
            .into_iter()
            .next()
            .map_or(Ok(self.config), Err)
    }
}

/// Reads `log.format` alone, from a command line whose configuration has an error: the error is written in
/// this format. Returns the default if the key cannot be read either.
pub fn log_format(args: impl IntoIterator<Item = OsString>) -> LogFormat {
    let mut config = Config::default();
    let Ok((_, mut options)) = args::parse(&Program::default(), args) else {
        return config.log.format;
    };
    options.keep_readable();
    let in_file = options.file().and_then(log_format_in);
    let in_file = in_file.map(|format| Flag {
        name: String::new(),
        key: LOG_FORMAT.into(),
        value: format,
    });
    let flags = options.flags().unwrap_or_default();
    for flag in in_file.into_iter().chain(flags) {
        if flag.key == LOG_FORMAT {
            flag.apply(&mut config, &mut Places::default());
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

/// Name of the words of a master among the sources of a configuration.
const COMMAND_LINE: &str = "the command line of a master";

/// Everything on top of the defaults and the project.
struct Layers {
    launch: Option<Launch>,
    file: Option<File>,
    flags: Vec<Flag>,
    origin: ConfigOrigin,
}

impl Layers {
    fn load(&self) -> Loaded {
        let mut places = Places::default();
        let mut config = self.over_defaults(Compat::Guarded, &mut places);
        if config.compat == Compat::Exact {
            places = Places::default();
            config = self.over_defaults(Compat::Exact, &mut places);
        }
        let mut problems = places.take_problems();
        problems.extend(two_forms(&config, &places));
        let project = match config.app_dir.take() {
            Some(app_dir) => self.project(config.clone(), app_dir, &places),
            None if self.launch.is_some() => Err(Error::Config(
                "the command line names no project; put its main script before the key=value words, \
                 as in game/app.js id=connector-1, or name its folder with --app-dir"
                    .into(),
            )),
            None => Ok(config.clone()),
        };
        match project {
            Ok(complete) => config = complete,
            Err(error) => problems.push(error),
        }
        config.embedded = self.file.is_none() && config.app_dir.is_none();
        if problems.is_empty()
            && let Err(error) = CheckedConfig::new(config.clone())
        {
            problems.push(places.locate(&error));
        }
        let read = std::mem::take(&mut config.sources.read);
        config.sources = self.sources(read, &config, &places);
        Loaded { config, problems }
    }

    /// Puts the file and the flags on top of the defaults. `places` takes their errors.
    fn over_defaults(&self, compat: Compat, places: &mut Places) -> Config {
        let mut config = Config::defaults(compat);
        if let Some(launch) = &self.launch {
            config.app_dir = launch.app_dir();
            config.env = launch.node_env.clone().unwrap_or(config.env);
        }
        self.apply(&mut config, places);
        config
    }

    /// Returns the sources of the configuration, with the files of the project that were found.
    fn sources(&self, project: Vec<String>, config: &Config, places: &Places) -> Sources {
        let launch = self.launch.as_ref();
        let launch = launch.map(|_| COMMAND_LINE.to_owned());
        let node_env = self.launch.as_ref().and_then(|it| it.node_env.as_ref());
        let node_env = node_env.map(|value| format!("NODE_ENV={value}"));
        let file = self.file.iter().map(|file| file.path.display().to_string());
        let flags = self.flags.iter().map(|flag| flag.name.clone());
        let read = launch.into_iter().chain(node_env).chain(project);
        let mut places = places.texts();
        if self.launch.is_some() {
            let by_words = ["id", "server_type", "env"];
            places.extend(by_words.map(|key| (key.into(), COMMAND_LINE.into())));
        }
        Sources {
            read: read.chain(file).chain(flags).collect(),
            places,
            values: config::knobs()
                .map(|knob| (knob.key, knob.toml(config)))
                .chain(without_keys(config))
                .collect(),
            origin: self.origin.clone(),
        }
    }

    /// Reads the project and the server in it that `layers` name, and puts the file and the flags on top.
    fn project(&self, layers: Config, app_dir: PathBuf, places: &Places) -> Result<Config> {
        // The values of the layers come again after those of the project.
        let mut config = Config {
            app_dir: Some(app_dir.clone()),
            ..layers
        };
        choose_dialect(&mut config, &app_dir, places)?;
        let launched = self.launch.as_ref();
        let info = launched.map(|launch| launch.info(&app_dir));
        let launched = info.map(entry::Entry::launched).transpose()?;
        if let Some(own) = &launched {
            own.identify(&mut config)?;
        }
        let project = Project {
            dir: app_dir.join("config"),
            env: config.env.clone(),
            env_knob: if launched.is_some() { "env=" } else { "--env" },
            found: Default::default(),
        };
        let own = project.apply(&mut config, launched)?;
        self.apply(&mut config, &mut Places::default());
        if self.launch.is_some() {
            own.identify(&mut config)?;
        }
        project.crons(&mut config)?;
        if config.cluster.join {
            project.join(&mut config, &own, &launch::usual_main(&app_dir))?;
        } else {
            config.rpc.listen = None;
        }
        let found = project.found.take();
        let mut found: Vec<String> = found
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        found.dedup();
        config.sources.read = found;
        Ok(config)
    }

    /// Puts the file and the flags on top of a configuration. `places` takes their errors.
    fn apply(&self, config: &mut Config, places: &mut Places) {
        if let Some(file) = &self.file {
            file.apply(config, places);
        }
        for flag in &self.flags {
            flag.apply(config, places);
        }
    }
}

/// Returns the error of sources that name the listeners in both forms.
fn two_forms(config: &Config, places: &Places) -> Option<Error> {
    let one = places.text("listen").filter(|_| !config.uses_listen())?;
    let what = format!("not allowed together with listen, which {one} sets; remove one of them");
    Some(places.locate(&ValueError::new("listener", what)))
}

/// Returns the parts of a configuration that have no key, with the file of the project that each comes from.
pub(super) fn without_keys(config: &Config) -> [(&'static str, Option<String>); 4] {
    let of_master = |part: fn(&Master) -> String| config.master.as_ref().map(part);
    [
        ("crons.json", Some(format!("{:?}", config.crons))),
        (
            "master.json",
            of_master(|master| format!("{}:{}", master.host, master.port)),
        ),
        (
            "adminServer.json",
            of_master(|master| format!("{:?}", master.token)),
        ),
        (
            "servers.json",
            of_master(|master| format!("{:?}", master.info)),
        ),
    ]
}

/// Follows the framework of the project; an error where the file or a flag names the other one.
fn choose_dialect(config: &mut Config, app_dir: &Path, places: &Places) -> Result<()> {
    let Some(framework) = Framework::of(app_dir) else {
        return Ok(());
    };
    let (package, file) = (framework.package, framework.file.display());
    if config.dialect != framework.dialect && places.has("dialect") {
        let what =
            format!("expected {package}, because {file} depends on it; or leave this key out");
        return Err(places.locate(&ValueError::new("dialect", what)));
    }
    config.dialect = framework.dialect;
    Ok(())
}

#[cfg(test)]
mod tests;
