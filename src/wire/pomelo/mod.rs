//! Formats between the servers of a Pomelo or Pinus cluster.

pub mod admin;
pub mod mqtt;
pub mod rpc;
