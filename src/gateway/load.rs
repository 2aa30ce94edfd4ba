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
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use toml::de::DeTable;

use crate::checked::CheckedConfig;
use crate::config::{Config, LogFormat, ValueError};
use crate::error::Error;

mod args;
mod assign;
mod crons;
mod entry;
mod framework;
mod launch;
mod project;

use args::Args;
use assign::{File, Flag, Places};
use framework::Framework;
use launch::Launch;
use project::Project;

type Result<T, E = Error> = std::result::Result<T, E>;

impl Config {
    /// Reads a `tangelo.toml`; the other knobs keep their defaults. With `app_dir` in it, reads the Pomelo
    /// project there too.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Layers {
            launch: None,
            file: Some(File::read(path.as_ref())?),
            flags: Vec::new(),
        }
        .config()
    }

    /// Reads the command line of this process, which has the flags of the binary: `--config`, `--app-dir`,
    /// `--listen`, `--shards`, `--set` and so on. `--help` and a wrong flag end the process, as in other
    /// programs.
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
            let what = "not allowed together with key=value words, which set it themselves";
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

/// Reads `log.format` alone, from a command line whose configuration has an error: the error is written in
/// this format. Returns the default if the key cannot be read either.
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
            let _ = flag.apply(&mut config, &mut Places::default());
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

/// A command line without a usable configuration.
#[derive(Debug)]
pub enum ArgsError {
    /// A request for help or for the version, or a wrong flag. `exit()` prints the text and ends the process
    /// with the right code.
    Usage(clap::Error),
    /// A wrong value or file.
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

/// Everything on top of the defaults and the project.
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
        let mut places = Places::default();
        self.apply(&mut config, &mut places)?;
        match config.app_dir.take() {
            Some(app_dir) => config = self.project(config, app_dir, &places)?,
            None if self.launch.is_some() => {
                return Err(Error::Config(
                    "the command line names no project; put its main script before the key=value words, \
                     as in game/app.js id=connector-1, or name its folder with --app-dir"
                        .into(),
                ));
            }
            None => {}
        }
        config.embedded = self.file.is_none() && config.app_dir.is_none();
        CheckedConfig::new(config.clone()).map_err(|error| places.locate(&error))?;
        Ok(config)
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
        };
        let own = project.apply(&mut config, launched)?;
        self.apply(&mut config, &mut Places::default())?;
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

    fn apply(&self, config: &mut Config, places: &mut Places) -> Result<()> {
        if let Some(file) = &self.file {
            file.apply(config, places)?;
        }
        let mut flags = self.flags.iter();
        flags.try_for_each(|flag| flag.apply(config, places))
    }
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
