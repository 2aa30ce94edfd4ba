//! A connection that another server opens to the gateway, played by the test.

use std::rc::Rc;

use super::World;
use crate::net::memory::MemoryStream;

/// A connection of another server to the gateway: MQTT packets, of which the gateway executes the calls.
///
/// Like a [`Client`](super::Client), each function runs the shards. Dropping it closes the connection.
pub struct CallingServer {
    world: Rc<World>,
    stream: MemoryStream,
}

impl CallingServer {
    pub(super) fn new(world: Rc<World>, stream: MemoryStream) -> Self {
        Self { world, stream }
    }

    /// Sends bytes, unless the gateway has closed.
    ///
    /// # Panics
    /// If the gateway does not read them.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.world.send(bytes, |slices| self.stream.write(slices));
    }

    /// Takes the bytes received since the last call.
    #[track_caller]
    pub fn take_bytes(&mut self) -> Vec<u8> {
        self.world.rest("receiving");
        self.stream.take()
    }

    /// Returns true if the gateway has closed the connection and the test has taken all its bytes.
    #[track_caller]
    pub fn is_closed(&self) -> bool {
        self.world.rest("receiving");
        self.stream.has_ended()
    }
}
