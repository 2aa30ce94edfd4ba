//! The protocols between the servers of a Pomelo or Pinus cluster: calls over MQTT frames, and the monitor that
//! registers at the master.

/// What a machine takes off the front of its input: the bytes of one packet, and the event that the packet is,
/// if it is one. `None`: the machine needs more bytes.
pub type Received<E, F> = Result<Option<(usize, Option<E>)>, F>;

pub mod acceptor;
pub mod mailbox;
pub mod master;
pub mod sysrpc;
