//! Files that shards need beside the configuration: protos, the blacklist, the project's handlers.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checked::CheckedConfig;
use crate::client::coder::Protos;
use crate::client::host_filter::HostFilter;
use crate::config::{Config, Dialect};
use crate::error::{Error, Result};
use crate::gateway::json_file;
use crate::shard::blacklist;
use crate::wire::protobuf::{Flavour, Schema};

/// Reads the protos of both directions; they are empty without `client.use_protobuf`. Logs a warning for
/// each doubtful definition.
pub(super) fn protos(config: &Config) -> Result<Protos> {
    let client = &config.client;
    if !client.use_protobuf {
        return Ok(Protos::default());
    }
    if client.server_protos.is_none() && client.client_protos.is_none() {
        tracing::warn!(
            "client.use_protobuf is true, but neither client.server_protos nor client.client_protos is set"
        );
    }
    let schema = |key: &str, path: &Option<PathBuf>| {
        path.as_ref()
            .map(|path| schema(config.dialect, path))
            .transpose()
            .map_err(|error| Error::Config(format!("client.{key}: {error}")))
    };
    let server = schema("server_protos", &client.server_protos)?;
    let client = schema("client_protos", &client.client_protos)?;
    Ok(Protos::new(server, client))
}

fn schema(dialect: Dialect, path: &Path) -> Result<Schema> {
    let file = path.display();
    let wrong = |what: &dyn std::fmt::Display| Error::Config(format!("{file}: {what}"));
    let json = json_file::read(path)?.ok_or_else(|| wrong(&"not found"))?;
    let flavour = match dialect.extends_protobuf() {
        true => Flavour::Pinus,
        false => Flavour::Pomelo,
    };
    let schema = Schema::parse(flavour, &json).map_err(|error| wrong(&error))?;
    for doubt in schema.doubts() {
        tracing::warn!(%file, "{doubt}");
    }
    Ok(schema)
}

/// Returns the blacklist: its expressions in the configuration, and those of its file.
pub(super) fn host_filter(config: &CheckedConfig) -> Result<HostFilter> {
    let Some(path) = &config.client.blacklist_file else {
        return Ok(config.blacklist.clone());
    };
    let in_file = |error: &dyn std::fmt::Display| {
        let path = path.display();
        Error::Config(format!("client.blacklist_file: {path}: {error}"))
    };
    let read = blacklist::read(path, None).map_err(|error| in_file(&error))?;
    let text = read.map_or_else(String::new, |(_, text)| text);
    let filter = config.blacklist.with_file(&text);
    filter.map_err(|error| in_file(&error))
}

/// Returns the folder of the project's handlers in JavaScript for this server's type, if it has any: for
/// Pomelo in the project, for Pinus in `dist`, where its compiler writes them.
pub(super) fn javascript_handlers(config: &Config) -> Option<PathBuf> {
    let project = config.app_dir.as_ref()?;
    let folders = [project.clone(), project.join("dist")];
    let folders = folders.map(|root| root.join("app/servers").join(&config.server_type));
    let mut folders = folders.iter().map(|own| own.join("handler"));
    folders.find(|folder| {
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names = files.map(|file| PathBuf::from(file.file_name()));
        names.any(|name| name.extension().is_some_and(|extension| extension == "js"))
    })
}
