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

/// Names the protocol of bytes that are not MQTT, in a call or in an answer. The first of them decides, because the
/// others may come later.
#[cold]
fn foreign(input: &[u8]) -> LinkFault {
    match input {
        [0xff, ..] => LinkFault::ZeroMq,
        [b'G' | b'H', ..] => LinkFault::Http,
        _ => LinkFault::Bytes,
    }
}
