//! tangelo
#![allow(dead_code)]

pub mod config;
pub mod error;
pub mod limits;
pub mod wire;

pub use config::Config;
pub use error::{Error, Result};
