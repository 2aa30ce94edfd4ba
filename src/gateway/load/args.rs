//! The command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use super::assign::Flag;
use super::launch::Launch;
use super::{Program, Result};
use crate::admin::Follow;
use crate::error::Error;

/// A command line, as clap reads it.
#[derive(Parser)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Command {
    /// Serves clients; a line without a command does the same
    Run(Options),
    /// Tests the configuration, this machine, the ports, the master and the other servers, and says what to change
    Check(Options),
    /// Prints the effective configuration as TOML, with the source of each value
    Config(Options),
    /// Shows the messages of a player of a running tangelo as they come and go, over its operators' port
    Trace(TraceArgs),
    /// Prints a script that completes this command line in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// A wish of a command line, beside its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Run,
    Check,
    Config,
    Trace(Follow),
    Completions(Shell),
}

/// Options of `trace`. The configuration of the running tangelo has the port and the token.
#[derive(clap::Args)]
struct TraceArgs {
    #[command(flatten)]
    target: TraceTarget,
    /// Shows the bodies that are JSON, without the values of passwords, tokens and secrets
    #[arg(long)]
    bodies: bool,
    /// Prints each event as a line of JSON
    #[arg(long)]
    json: bool,
    /// Operators' port of the running tangelo [default: admin.listen of the configuration]
    #[arg(long, value_name = "ADDR:PORT|unix:PATH")]
    admin: Option<String>,
    /// File with the token of the port [default: admin.token_file of the configuration]
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,
    #[command(flatten)]
    options: Options,
}

/// The sessions to trace: those of a uid, or one.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct TraceTarget {
    /// Follows the sessions of this uid, also those that begin later, until Ctrl-C
    #[arg(long, value_name = "UID")]
    uid: Option<String>,
    /// Follows the session with this id, until it closes
    #[arg(long, value_name = "SID")]
    session: Option<u64>,
}

impl TraceArgs {
    /// Returns what to follow, and the options that say where.
    fn split(self) -> (Follow, Options) {
        let follow = Follow {
            uid: self.target.uid,
            sid: self.target.session,
            bodies: self.bodies,
            json: self.json,
        };
        let options = Options {
            admin: self.admin,
            token_file: self.token_file,
            ..self.options
        };
        (follow, options)
    }
}

/// Options of a command line.
#[derive(clap::Args, Default)]
pub(super) struct Options {
    /// Command line with which a Pomelo master starts a server: its main script and its entry in servers.json,
    /// such as game/app.js env=production id=connector-1 port=3150 ...
    #[arg(value_name = "MAIN.js KEY=VALUE")]
    words: Vec<String>,
    /// Configuration file, such as tangelo.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for clients; with port 0 the kernel chooses one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Number of threads that serve clients [default: one per available core]
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// Folder of the Pomelo project, which has config/servers.json
    #[arg(long, value_name = "DIR")]
    app_dir: Option<String>,
    /// Id of this server, as in servers.json
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Environment of the Pomelo project [default: development]
    #[arg(long, value_name = "ENV")]
    env: Option<String>,
    /// Framework of the cluster: it decides where Pomelo and Pinus differ [default: that of the project's
    /// package.json, else pomelo]
    #[arg(long, value_name = "pomelo|pinus")]
    dialect: Option<String>,
    /// Sets a key of tangelo.toml, such as client.heartbeat=3s; for one key given twice, the last value counts
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Of `trace` alone, as the next one.
    #[arg(skip)]
    admin: Option<String>,
    #[arg(skip)]
    token_file: Option<String>,
}

/// Returns clap's description of the command line of a program.
pub(super) fn command(program: &Program) -> clap::Command {
    let Program {
        name,
        version,
        about,
    } = program;
    let about = match about.as_str() {
        "" => Resettable::Reset,
        about => Resettable::Value(about.to_owned().into()),
    };
    Args::command()
        .name(name.clone())
        .version(version.clone())
        .about(about)
        .after_help(format!(
            "A Pomelo master starts a server with the words of its entry in servers.json, as in\n\
             `{name} game/app.js env=production id=connector-1 port=3150`. A line is such a start if it has a word\n\
             KEY=VALUE. The first word is a command if it has the name of one: write ./check for a script that is\n\
             called check."
        ))
}

/// Reads a command line, program name first.
pub(super) fn parse(
    program: &Program,
    args: impl IntoIterator<Item = OsString>,
) -> Result<(Wish, Options), clap::Error> {
    let matches = command(program).try_get_matches_from(args)?;
    let args = Args::from_arg_matches(&matches)?;
    let (wish, options) = match args.command {
        None => (Wish::Run, Options::default()),
        Some(Command::Run(options)) => (Wish::Run, options),
        Some(Command::Check(options)) => (Wish::Check, options),
        Some(Command::Config(options)) => (Wish::Config, options),
        Some(Command::Trace(trace)) => {
            let (follow, options) = trace.split();
            (Wish::Trace(follow), options)
        }
        Some(Command::Completions { shell }) => (Wish::Completions(shell), Options::default()),
    };
    Ok((wish, options.after(args.options)))
}

impl Options {
    /// Puts the options of a command behind those before its word.
    fn after(self, before: Self) -> Self {
        Self {
            words: [before.words, self.words].concat(),
            config: self.config.or(before.config),
            listen: self.listen.or(before.listen),
            shards: self.shards.or(before.shards),
            app_dir: self.app_dir.or(before.app_dir),
            id: self.id.or(before.id),
            env: self.env.or(before.env),
            dialect: self.dialect.or(before.dialect),
            set: [before.set, self.set].concat(),
            admin: self.admin,
            token_file: self.token_file,
        }
    }

    /// Returns the configuration file.
    pub(super) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Returns the launch of a master, if the line is one. Checks the rest that clap cannot check.
    pub(super) fn launch(&self, program: &Program) -> Result<Option<Launch>, clap::Error> {
        let launch = Launch::from_words(&self.words, std::env::var("NODE_ENV").ok());
        let refused = |kind, text: String| Err(command(program).error(kind, text));
        if launch.is_some() {
            return Ok(launch);
        }
        if let Some(word) = self.words.first() {
            return refused(
                ErrorKind::UnknownArgument,
                format!(
                    "unknown word '{word}'; expected one of the commands run, check, config, trace, completions and \
                     help, or a main script with key=value words such as id=connector-1"
                ),
            );
        }
        if self.app_dir.is_some() && self.id.is_none() {
            let text = "--app-dir needs --id <ID>, the id of this server in the project".into();
            return refused(ErrorKind::MissingRequiredArgument, text);
        }
        Ok(None)
    }

    /// Returns all flags but `--config`, weakest first.
    pub(super) fn flags(self) -> Result<Vec<Flag>> {
        let mut flags = Vec::new();
        for text in self.set {
            let Some((key, value)) = text.split_once('=') else {
                return Err(Error::Config(format!(
                    "--set {text}: expected KEY=VALUE, such as client.heartbeat=3s"
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
            ("--admin", "admin.listen", self.admin),
            ("--token-file", "admin.token_file", self.token_file),
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

    /// Leaves out each `--set` that cannot be read.
    pub(super) fn keep_readable(&mut self) {
        self.set.retain(|text| text.contains('='));
    }
}
