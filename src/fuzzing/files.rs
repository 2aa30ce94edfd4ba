//! Files of operators: `tangelo.toml`, and those of a project.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::path::Path;
use std::{fs, io};

use tempfile::TempDir;

use super::input::{Choices, Input};
use crate::config::{Config, effective, knobs};
use crate::error::Error;
use crate::gateway::load;
use crate::limits::{CRONS_MAX, SERVERS_MAX};

/// Longest error: it quotes one value of a file.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// A `tangelo.toml` is refused with its line, or is the same after it was printed as the effective configuration.
pub fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    // Another target reads projects.
    if text.contains("app_dir") {
        return;
    }
    match load::from_text(text) {
        Ok(config) => check_effective(&config),
        Err(Error::Config(reason)) => {
            let reason = reason
                .strip_prefix("tangelo.toml:")
                .expect("it names the file");
            let (line, reason) = reason.split_once(": ").expect("it names the line");
            let line: usize = line.parse().expect("a line is a number");
            assert!(
                (1..=text.lines().count().max(1) + 1).contains(&line),
                "line {line}"
            );
            assert!(!reason.is_empty() && reason.len() <= text.len() + ERROR_BYTES_MAX);
        }
        Err(other) => panic!("not the error of a file: {other}"),
    }
}

/// Checks that the printed configuration is read as the same one.
fn check_effective(config: &Config) {
    config.validate().expect("a configuration is checked twice");
    let printed = effective::toml(config);
    let without_project = printed
        .lines()
        .filter(|line| !line.starts_with("app_dir = "));
    let without_project: Vec<&str> = without_project.collect();
    let again = match load::from_text(&without_project.join("\n")) {
        Ok(again) => again,
        Err(error) => panic!("the printed configuration is refused: {error}\n{printed}"),
    };
    for knob in knobs().filter(|knob| knob.key != "app_dir") {
        assert_eq!(knob.toml(&again), knob.toml(config), "{}", knob.key);
    }
}

/// The files that an input may have, and the words of a master.
const FILES: &[&str] = &[
    "package.json",
    "config/servers.json",
    "config/development/servers.json",
    "config/master.json",
    "config/adminServer.json",
    "config/dictionary.json",
    "config/crons.json",
    "config/dictionary.js",
    "tangelo.toml",
];

/// A project is refused with a text that names a file, or has a configuration that holds.
///
/// Shape: parts with a byte 0 between them; the first byte of a part says which of [`FILES`] it is, or, beyond them, that
///        its lines are the words of a master
pub fn project(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut files = [None; FILES.len()];
    let mut words = Vec::new();
    while !input.is_empty() {
        let mut part = Input::new(input.until(0));
        match files.get_mut(part.below(FILES.len() + 1)) {
            Some(file) => *file = Some(part.rest()),
            None => words = part.rest().split(|byte| *byte == b'\n').collect(),
        }
    }
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(Folder::new);
        folder.write(&files).expect("the folder can be written");
        read(folder.0.path(), &words);
    });
}

fn read(folder: &Path, words: &[&[u8]]) {
    let is_word = |word: &&&str| {
        let pair = word.split_once('=');
        pair.is_some_and(|(key, _)| !key.starts_with('-') && !key.contains('/'))
    };
    let words = words.iter().filter_map(|word| str::from_utf8(word).ok());
    let words: Vec<&str> = words.collect();
    let words: Vec<OsString> = words.iter().filter(is_word).map(OsString::from).collect();
    let mut line: Vec<OsString> = vec!["tangelo".into()];
    let config = folder.join("tangelo.toml");
    if config.exists() {
        line.extend(["--config".into(), config.into()]);
    }
    // A name in this file would be looked up in the network.
    line.extend(["--set".into(), "rpc.listen=127.0.0.1:3150".into()]);
    match words.is_empty() {
        true => line.extend(["--app-dir".into(), folder.into()]),
        false => line.push(folder.join("app.js").into()),
    }
    line.extend(words);
    match load::from_args(line) {
        Ok(config) => check_project(&config),
        Err(Error::Config(reason)) => assert!(!reason.is_empty()),
        Err(other) => panic!("not the error of a file: {other}"),
    }
}

fn check_project(config: &Config) {
    check_effective(config);
    assert!(config.servers.len() <= SERVERS_MAX);
    assert!(config.crons.len() <= CRONS_MAX);
    for (index, server) in config.servers.iter().enumerate() {
        assert_ne!(server.id, config.id);
        assert!(
            config.servers[..index]
                .iter()
                .all(|other| other.id != server.id)
        );
    }
    if let Some(master) = &config.master {
        assert!(!master.host.is_empty() && master.port > 0);
        let id = master.info.get("id").expect("a master needs the id");
        assert!(id.is_string() || id.is_number());
    }
}

thread_local! {
    static FOLDER: OnceCell<Folder> = const { OnceCell::new() };
}

/// The folder of the projects of a thread, one after the other.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let nested = folder.path().join("config/development");
        fs::create_dir_all(nested).expect("a folder can be made");
        Self(folder)
    }

    fn write(&self, files: &[Option<&[u8]>; FILES.len()]) -> io::Result<()> {
        for (name, content) in FILES.iter().zip(files) {
            let path = self.0.path().join(name);
            match content {
                Some(content) => fs::write(path, content)?,
                None => drop(fs::remove_file(path)),
            }
        }
        Ok(())
    }
}
