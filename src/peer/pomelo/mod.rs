//! The protocols between the servers of a Pomelo or Pinus cluster: calls over MQTT frames, and the monitor that
//! registers at the master.

pub mod acceptor;
pub mod mailbox;
pub mod master;
pub mod sysrpc;
