//! A project moves to tangelo with the npm package in `npm/`: the launcher, and `tangelo init`.

/// The sources of the package.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/npm");

mod init;
mod launcher;
mod package;
mod project;
mod settings;
mod template;
