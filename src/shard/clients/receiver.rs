//! The bytes of a client on their way to its machine.

use std::rc::Rc;
use std::time::Duration;

use super::connection;
use crate::client::heartbeat::LINGER;
use crate::client::rate::RateVerdict;
use crate::error::{CloseReason, Fault};
use crate::ids::Sid;
use crate::limits::{MEMORY_CLOSE_BYTES_MIN, READ_TURN_MAX};
use crate::net::clock;
use crate::net::drive::{End, Pause, Receiver, SLICE_UNITS};
use crate::shard::Shard;
use crate::shard::memory::MemoryLevel;

/// Returns the reason to close a client whose bytes have ended.
pub(super) fn reason_of(end: &End) -> CloseReason {
    match end {
        End::Failed => CloseReason::Socket,
        End::Eof | End::Enough => CloseReason::Left,
    }
}

/// Pauses a reader by the time of the shard, which then stays awake. It looks whether its client is closed meanwhile.
#[cold]
fn pause(shard: &Rc<Shard>, sid: Sid, time: Duration) -> Pause {
    let shard = shard.clone();
    Box::pin(async move {
        let mut left = time;
        while !left.is_zero() && shard.clients.is_open(sid) {
            let part = left.min(LINGER);
            shard.core.timeout(part).await;
            left -= part;
        }
    })
}

/// A part of a read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// Whole packages or messages.
    pub(super) units: usize,
    /// Their number for the rate, which over TLS may be that of the records.
    pub(super) charged: usize,
    pub(super) bytes: usize,
}

/// Turns in which the tasks of connections that were closed for their memory should end.
const LEAVING_TURNS: u8 = 4;

/// Acts on the bytes of one client.
pub(super) struct ClientReceiver<'a> {
    pub(super) shard: &'a Rc<Shard>,
    pub(super) sid: Sid,
}

impl ClientReceiver<'_> {
    /// Ends a part of a read, behind which `rest` follows.
    #[inline]
    pub(super) fn finish(&self, taken: Taken, rest: &[u8]) -> Option<Pause> {
        let Self { shard, sid } = self;
        // Here too, because one turn reads from many clients, and answers them.
        if shard.core.memory_has_grown() {
            shard.look_at_memory();
        }
        match shard.clients.read(&shard.core, *sid, taken, rest) {
            // The messages of a slice may cost more time than their number says.
            RateVerdict::Within if taken.units >= SLICE_UNITS => self.yield_late(),
            RateVerdict::Within => None,
            RateVerdict::Pause(time) => Some(pause(shard, *sid, time)),
            RateVerdict::Excess(reason) => {
                shard.react(Fault::Client(*sid, reason));
                None
            }
        }
    }

    /// Lets the other connections run when a turn lasts too long.
    pub(super) fn yield_late(&self) -> Option<Pause> {
        let turn = clock::now().saturating_duration_since(self.shard.core.looked.get());
        (turn > READ_TURN_MAX).then(|| -> Pause { Box::pin(clock::yield_to_reactor()) })
    }
}

impl Receiver for ClientReceiver<'_> {
    fn finished(&self, units: usize, bytes: usize, rest: &[u8]) -> Option<Pause> {
        let taken = Taken {
            units,
            charged: units,
            bytes,
        };
        self.finish(taken, rest)
    }

    fn waits(&self, bytes: usize) {
        let Shard { core, clients, .. } = &**self.shard;
        clients.package_waits(core, self.sid, bytes);
        if bytes >= MEMORY_CLOSE_BYTES_MIN
            && core.memory.level_now() >= MemoryLevel::CloseUnready
            && clients.is_unready(self.sid)
        {
            // One that still grows goes at once: shards that wait for a CPU cannot close theirs.
            self.shard.close(self.sid, CloseReason::Memory, None);
        }
    }

    /// Those that were closed for their memory give it back before this one takes more.
    fn turns_before_more(&self) -> Result<u8, End> {
        let memory = &self.shard.core.memory;
        if memory.level() == MemoryLevel::Normal && !memory.has_leaving() {
            return Ok(0);
        }
        match self.shard.clients.is_leaving(self.sid) {
            true => Err(End::Enough),
            false if memory.has_leaving() => Ok(LEAVING_TURNS),
            false => Ok(1),
        }
    }

    fn receive(&self, input: &mut [u8]) -> Result<Option<usize>, End> {
        Ok(connection::receive(self.shard, self.sid, input))
    }
}
