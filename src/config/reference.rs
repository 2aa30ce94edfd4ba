//! `docs/configuration.md`, written from the table of knobs.

use super::list::Section;
use super::*;

/// Set it, to any value, to write the files instead of comparing them.
const WRITE: &str = "TANGELO_WRITE_REFERENCE";

/// Compares a file of `docs/` with the text that it should have, or writes it.
pub(crate) fn assert_current(name: &str, text: &str) {
    let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, text).expect("docs/ can be written");
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == text,
        "docs/{name} differs from the tables in src: set {WRITE}=1 and run this test again"
    );
}

const HEAD: &str = "\
# Configuration

Every key of `tangelo.toml`. A key can also be set on the command line, as in `--set client.heartbeat=3s`.
`Config` in Rust has a field for each key. Durations have a unit (`3s`, `250ms`); sizes are bytes, or have a unit
(`64KiB`). A wrong key or value is an error at the start, which names the place, the value and the expected
values.

The layers, each over the one before: the defaults, the Pomelo project (`--app-dir`), `tangelo.toml`
(`--config`), each `--set` in order, the other flags.

This file is made from the table in `src/config/mod.rs`. After a change there,
`TANGELO_WRITE_REFERENCE=1 cargo test --lib the_configuration_reference` writes it.
";

/// A heading, the text below it, and the knobs.
fn section<Owner>(out: &mut String, heading: &str, about: &str, knobs: &[Knob<Owner>]) {
    *out += &format!("\n## {heading}\n\n{}\n", unindented(about));
    for knob in knobs {
        let doc = unindented(&knob.doc.join("\n"));
        let (accepted, default, exact) = ((knob.accepted)(), (knob.default)(), (knob.exact)());
        *out += &format!("\n### `{}`\n\n{doc}\n\n", knob.key);
        *out += &format!("* Expected: {accepted}.\n* Default: {default}.\n");
        if exact != default && knob.key != "compat" {
            *out += &format!("* Default with `compat = \"exact\"`: {exact}.\n");
        }
        if let [framework, name] = knob.origin {
            *out += &format!("* {framework}: `{name}`.\n");
        }
        if knob.is_live {
            *out += "* SIGHUP changes it without a restart.\n";
        }
    }
}

/// Removes the space that a documentation comment has in front of each line.
fn unindented(doc: &str) -> String {
    let lines: Vec<&str> = doc.lines().map(str::trim).collect();
    lines.join("\n")
}

fn reference() -> String {
    let mut out = HEAD.to_owned();
    section(&mut out, "Top level", Config::ABOUT, Config::KNOBS);
    section(&mut out, "`[client]`", Client::ABOUT, Client::KNOBS);
    section(&mut out, "`[filter]`", Filter::ABOUT, Filter::KNOBS);
    section(&mut out, "`[session]`", Session::ABOUT, Session::KNOBS);
    section(&mut out, "`[push]`", Push::ABOUT, Push::KNOBS);
    section(&mut out, "`[rpc]`", Rpc::ABOUT, Rpc::KNOBS);
    section(&mut out, "`[cluster]`", Cluster::ABOUT, Cluster::KNOBS);
    section(&mut out, "`[drain]`", Drain::ABOUT, Drain::KNOBS);
    section(&mut out, "`[log]`", Log::ABOUT, Log::KNOBS);
    section(&mut out, "`[admin]`", Admin::ABOUT, Admin::KNOBS);
    section(&mut out, "`[limits]`", Limits::ABOUT, Limits::KNOBS);
    section(&mut out, "`[tls]`", Tls::ABOUT, Tls::KNOBS);
    list::<CertificateFiles>(&mut out, CertificateFiles::ABOUT);
    list::<ClientListener>(&mut out, ClientListener::ABOUT);
    list::<Server>(&mut out, Server::ABOUT);
    list::<NamedScheduler>(&mut out, NamedScheduler::ABOUT);
    out
}

fn list<S: Section>(out: &mut String, about: &str) {
    let heading = format!("`[[{}]]`", S::LIST);
    let needed: Vec<String> = S::NEEDED.iter().map(|key| format!("`{key}`")).collect();
    let about = match needed.is_empty() {
        true => about.to_owned(),
        false => format!("{about} Each section must have {}.", needed.join(", ")),
    };
    section(out, &heading, &about, S::KEYS);
}

#[test]
fn the_configuration_reference_is_up_to_date() {
    assert_current("configuration.md", &reference());
}
