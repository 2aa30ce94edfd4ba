//! A project moves to tangelo with the npm package in `npm/`: the launcher.

/// The sources of the package.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/npm");

mod launcher;
