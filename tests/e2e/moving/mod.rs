//! A project moves to tangelo with the npm package in `npm/`: the launcher, and `tangelo init`.

mod code;
mod init;
mod launcher;
mod project;
mod settings;
mod template;
