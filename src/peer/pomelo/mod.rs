//! The protocols between the servers of a Pomelo or Pinus cluster: calls over MQTT frames, and the monitor that
//! registers at the master.

use crate::error::LinkFault;

/// Length of the packet at the front of the input, and its event if it has one. `None`: the machine needs
/// more bytes.
pub type Received<E> = Result<Option<(usize, Option<E>)>, LinkFault>;

pub mod acceptor;
pub mod mailbox;
pub mod master;
pub mod sysrpc;
