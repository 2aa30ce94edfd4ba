//! Clients and servers of a gateway in memory that do as they are told.

mod input;
pub mod ledger;
mod received;
pub mod simulation;

pub use input::Choices;
