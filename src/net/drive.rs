//! The read loop of a connection, for any protocol.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use super::clock;
use super::socket::Socket;
use crate::limits::{READ_BUDGET_BYTES, READ_BUFFER_BYTES};

const _: () = assert!(READ_BUDGET_BYTES <= u32::MAX as usize);

/// The protocol that takes the bytes of a connection.
pub(crate) trait Receiver {
    /// Prepares for the units of one read.
    fn readable(&self) {}

    /// Ends one read, behind which `rest` is the start of a unit whose last bytes are missing, or [`SLICE_UNITS`] units of
    /// it. They had `bytes` bytes. A pause comes before any further unit.
    fn finished(&self, _units: usize, _bytes: usize, _rest: &[u8]) -> Option<Pause> {
        None
    }

    /// Acts on the unit at the front of `input`, which is not empty, and returns the size of the unit. `Ok(None)`:
    /// the unit is not complete; its bytes come again with more bytes after them. An error ends the loop.
    fn receive(&self, input: &mut [u8]) -> Result<Option<usize>, End>;

    /// Notes the memory of a unit that is not complete; 0 when there is none any more. Not called at the end of the loop.
    fn waits(&self, _bytes: usize) {}

    /// Returns how many times other tasks run before more bytes of a unit are read that is not complete. An error ends the
    /// loop.
    fn turns_before_more(&self) -> Result<u8, End> {
        Ok(0)
    }
}

/// A pause of a reader.
pub(crate) type Pause = Pin<Box<dyn Future<Output = ()>>>;

/// Units after which a receiver may pause within one read.
pub(crate) const SLICE_UNITS: usize = 16;

/// The read buffer of a shard, lent to one connection at a time for one poll.
#[derive(Debug)]
pub(crate) struct ReadBuffer(RefCell<Box<[u8]>>);

impl Default for ReadBuffer {
    fn default() -> Self {
        Self(RefCell::new(vec![0; READ_BUFFER_BYTES].into()))
    }
}

/// The end of a connection.
#[derive(Debug)]
pub(crate) enum End {
    /// The other side closed, or half-closed.
    Eof,
    /// The receiver ended the loop.
    Enough,
    /// Reading failed.
    Failed,
}

/// Partial units up to this size are put in front of the next bytes, in the lent buffer. To larger ones the next bytes are
/// appended.
const TAIL_LENT_MAX: usize = READ_BUFFER_BYTES / 2;

/// Hands complete units off the front of `input` to a receiver. Returns their size, and the pause before the others.
#[inline]
fn receive_units(
    receiver: &impl Receiver,
    input: &mut [u8],
) -> Result<(usize, Option<Pause>), End> {
    receiver.readable();
    let (mut at, mut units, mut slice) = (0, 0, 0);
    while at < input.len() {
        match receiver.receive(&mut input[at..])? {
            Some(bytes) => at += bytes,
            None => break,
        }
        units += 1;
        if units == SLICE_UNITS {
            let pause = receiver.finished(units, at - slice, &[]);
            if pause.is_some() {
                return Ok((at, pause));
            }
            (units, slice) = (0, at);
        }
    }
    let pause = receiver.finished(units, at - slice, &input[at..]);
    Ok((at, pause))
}

/// Reads until the connection ends.
///
/// Bound: one wake-up handles `limits::READ_BUDGET_BYTES`, then other tasks run; where the receiver wants so, also before each
/// buffer of a unit that is not complete.
/// Cost:  a waiting connection holds 64 bytes, its receiver, and the bytes of a partial unit.
pub(crate) fn read(
    socket: &Socket,
    lent: &ReadBuffer,
    receiver: impl Receiver,
) -> impl Future<Output = End> {
    let mut tail = Vec::new();
    // Small, like the boxed pause: each connection holds this memory, and few ever pause.
    let mut budget = READ_BUDGET_BYTES as u32;
    let mut has_whole_units = false;
    let mut turns = 0;
    let mut pause: Option<Pause> = None;
    poll_fn(move |cx| {
        loop {
            if let Some(yielding) = &mut pause {
                std::task::ready!(yielding.as_mut().poll(cx));
                pause = None;
            }
            if !tail.is_empty() && !has_whole_units {
                match receiver.turns_before_more() {
                    Ok(more) if turns < more => {
                        turns += 1;
                        pause = Some(Box::pin(clock::yield_to_reactor()));
                        continue;
                    }
                    Ok(_) => turns = 0,
                    Err(end) => return Poll::Ready(end),
                }
            }
            let step = if has_whole_units {
                receive_tail(&mut tail, &receiver)
            } else if tail.len() > TAIL_LENT_MAX {
                read_into_tail(cx, socket, lent, &mut tail, &receiver)
            } else {
                read_into_lent(cx, socket, lent, &mut tail, &receiver)
            };
            match step {
                Poll::Ready(Ok((received, next))) => {
                    has_whole_units = next.is_some();
                    pause = next;
                    budget = budget.saturating_sub(received as u32);
                    if budget == 0 {
                        budget = READ_BUDGET_BYTES as u32;
                        pause.get_or_insert_with(|| Box::pin(clock::yield_to_reactor()));
                    }
                }
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Pending => {
                    budget = READ_BUDGET_BYTES as u32;
                    return Poll::Pending;
                }
            }
        }
    })
}

#[inline]
fn read_into_lent(
    cx: &mut std::task::Context<'_>,
    socket: &Socket,
    lent: &ReadBuffer,
    tail: &mut Vec<u8>,
    receiver: &impl Receiver,
) -> Poll<Result<(usize, Option<Pause>), End>> {
    let mut lent = lent.0.borrow_mut();
    let received = match socket.poll_read(cx, &mut lent[tail.len()..]) {
        Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::Eof)),
        Poll::Ready(Ok(received)) => received,
        Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Failed)),
        Poll::Pending => return Poll::Pending,
    };
    hop!();
    let input = &mut lent[..tail.len() + received];
    input[..tail.len()].copy_from_slice(tail);
    let (used, pause) = receive_units(receiver, input)?;
    if used < input.len() {
        tail.clear();
        keep(tail, &input[used..]);
        receiver.waits(tail.capacity());
    } else if tail.capacity() > 0 {
        *tail = Vec::new();
        receiver.waits(0);
    }
    Poll::Ready(Ok((received, pause)))
}

/// Continues after a pause within the units of a read.
#[cold]
fn receive_tail(
    tail: &mut Vec<u8>,
    receiver: &impl Receiver,
) -> Poll<Result<(usize, Option<Pause>), End>> {
    let (used, pause) = receive_units(receiver, tail)?;
    tail.drain(..used);
    if tail.is_empty() {
        *tail = Vec::new();
    }
    receiver.waits(tail.capacity());
    Poll::Ready(Ok((0, pause)))
}

fn read_into_tail(
    cx: &mut std::task::Context<'_>,
    socket: &Socket,
    lent: &ReadBuffer,
    tail: &mut Vec<u8>,
    receiver: &impl Receiver,
) -> Poll<Result<(usize, Option<Pause>), End>> {
    let received = {
        let mut lent = lent.0.borrow_mut();
        let received = match socket.poll_read(cx, &mut lent) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(End::Eof)),
            Poll::Ready(Ok(received)) => received,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Failed)),
            Poll::Pending => return Poll::Pending,
        };
        keep(tail, &lent[..received]);
        received
    };
    let (used, pause) = receive_units(receiver, tail)?;
    if used > 0 {
        // The rest is small, as a rule, and the memory is that of the whole unit.
        *tail = tail[used..].to_vec();
    }
    receiver.waits(tail.capacity());
    Poll::Ready(Ok((received, pause)))
}

/// Appends to the bytes of a partial unit. They hold at most half as much memory again as they need, so a client that sends
/// slowly holds little more than it has sent. The sizes are the same few for all clients: the block that one has
/// outgrown serves another one.
fn keep(tail: &mut Vec<u8>, bytes: &[u8]) {
    let needed = tail.len() + bytes.len();
    if needed > tail.capacity() {
        let power = needed.next_power_of_two();
        let less = power / 4 * 3;
        let size = if needed <= less { less } else { power };
        tail.reserve_exact(size - tail.len());
    }
    tail.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::IoSlice;
    use std::net::SocketAddr;
    use std::rc::Rc;

    use futures_lite::future::{block_on, poll_once};

    use super::clock::VirtualClock;
    use super::*;
    use crate::net::memory;

    /// Gets a unit that is never complete.
    #[derive(Default)]
    struct Endless {
        seen: Cell<usize>,
        turns: Cell<Option<u8>>,
    }

    impl Receiver for &Endless {
        fn turns_before_more(&self) -> Result<u8, End> {
            self.turns.get().ok_or(End::Enough)
        }

        fn receive(&self, input: &mut [u8]) -> Result<Option<usize>, End> {
            self.seen.set(input.len());
            Ok(None)
        }
    }

    #[test]
    fn part_of_a_unit_grows_after_the_turns_that_its_receiver_wants_or_never() {
        for bytes in [10, TAIL_LENT_MAX + 1] {
            Rc::new(VirtualClock::default()).during(|| {
                let [a, b] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
                let (client, side) = memory::connection(a, b);
                let (socket, lent) = (Socket::memory(side), ReadBuffer::default());
                let unit = Endless::default();
                unit.turns.set(Some(0));
                let mut reading = Box::pin(read(&socket, &lent, &unit));
                let mut write_and_look = |count: usize| {
                    client
                        .write(&[IoSlice::new(&vec![0; count])])
                        .expect("it is open");
                    let ended = block_on(poll_once(&mut reading)).is_some();
                    (ended, unit.seen.get())
                };

                assert_eq!(write_and_look(bytes), (false, bytes));
                unit.turns.set(Some(3));
                for _ in 0..3 {
                    assert_eq!(write_and_look(1), (false, bytes));
                }
                assert_eq!(write_and_look(1), (false, bytes + 4));
                unit.turns.set(None);
                assert!(write_and_look(1).0);
                assert_eq!(unit.seen.get(), bytes + 4);
            });
        }
    }
}
