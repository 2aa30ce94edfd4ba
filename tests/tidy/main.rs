//! House rules as tests. Each prints `file:line: what is wrong` for everything it finds.
//!
//! Every file of the tree is read, but for what `.gitignore` names. Rust is looked at as tokens, so a
//! word in a comment or in a text is not taken for code. Sizes and forms are for readers, not for a
//! test.

mod circles;
mod documents;
mod prose;
mod remains;
mod rooms;
mod shard;
mod source;
mod tables;
mod types;
mod uses;
