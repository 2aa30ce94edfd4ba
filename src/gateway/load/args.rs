//! The command line.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::Result;
use super::assign::Flag;
use super::launch::Launch;
use crate::error::Error;

/// A gateway that replaces the frontend server of a Pomelo or Pinus game cluster.
///
/// Without --config, --app-dir or a main script it serves a built-in chat room, to try it out.
#[derive(Parser)]
#[command(name = "tangelo", version)]
pub(super) struct Args {
    /// Command line with which a Pomelo master starts a server: its main script and its entry in servers.json,
    /// such as game/app.js env=production id=connector-1 port=3150 ... The word `run` alone has no effect
    #[arg(value_name = "MAIN.js KEY=VALUE")]
    pub(super) words: Vec<String>,
    /// Configuration file, such as tangelo.toml
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
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
    pub(super) set: Vec<String>,
}

impl Args {
    /// Returns the launch of a master, if the line is one. Checks the rest that clap cannot check.
    pub(super) fn launch(&self) -> Result<Option<Launch>, clap::Error> {
        let launch = Launch::from_words(&self.words, std::env::var("NODE_ENV").ok());
        let refused = |kind, text: String| Err(Self::command().error(kind, text));
        if launch.is_some() {
            return Ok(launch);
        }
        if let Some(word) = self.words.iter().find(|word| *word != "run") {
            let what = "expected run, or a main script with key=value words such as id=connector-1";
            return refused(
                ErrorKind::UnknownArgument,
                format!("unknown word '{word}'; {what}"),
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
