//! The readiness of a shard's sockets: one epoll instance, itself watched by glommio's ring.
//!
//! glommio's streams submit a request to the ring after each read, and each completion interrupts the
//! core during other work. Here a shard asks once per turn for all events since the last one. With 100
//! connections and 16 requests in flight on each, that is a fifth less CPU per message.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Waker};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use slab::Slab;

use super::readable::Readable;

/// Events of one look at the epoll instance; further ones come with the next look.
const EVENTS_MAX: usize = 512;

/// Wakes the tasks that wait for a socket of their shard.
///
/// Edge-triggered: a descriptor counts as ready from its event until an operation on it would block.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    watched: RefCell<Slab<Watched>>,
}

/// The state of one descriptor.
#[derive(Debug, Default)]
struct Watched {
    is_readable: bool,
    is_writable: bool,
    /// The other side has closed: a read never blocks, and returns the end after the last bytes.
    has_ended: bool,
    /// Write events are requested too.
    watches_writes: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Number of a watched descriptor. It is reused after [`Poller::remove`]; an old event then causes at
/// most one needless read.
pub(crate) type Key = u32;

impl Poller {
    /// Creates a poller without descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            watched: RefCell::default(),
        })
    }

    /// Starts to watch a descriptor for reading.
    pub fn add(&self, fd: BorrowedFd<'_>) -> io::Result<Key> {
        let key = self.watched.borrow_mut().insert(Watched::default()) as Key;
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        let added = epoll::add(&self.epoll, fd, EventData::new_u64(key.into()), flags);
        if let Err(error) = added {
            self.remove(key);
            return Err(error.into());
        }
        Ok(key)
    }

    /// Removes a descriptor before it is closed.
    pub fn remove(&self, key: Key) {
        self.watched.borrow_mut().remove(key as usize);
    }

    /// Returns true if a read may find bytes; otherwise wakes the task when it may.
    pub fn may_read(&self, key: Key, cx: &Context<'_>) -> bool {
        let watched = &mut self.watched.borrow_mut()[key as usize];
        if !watched.is_readable {
            set(&mut watched.reader, cx);
        }
        watched.is_readable
    }

    /// Notes that a read found less than it asked for: nothing more until the next event, except
    /// perhaps the end.
    pub fn drained(&self, key: Key) {
        let watched = &mut self.watched.borrow_mut()[key as usize];
        watched.is_readable = watched.has_ended;
    }

    /// Notes that a read found nothing, not even the end.
    pub fn emptied(&self, key: Key) {
        self.watched.borrow_mut()[key as usize].is_readable = false;
    }

    /// Returns true if a write may find room; otherwise wakes the task when it may.
    pub fn may_write(&self, key: Key, fd: BorrowedFd<'_>, cx: &Context<'_>) -> io::Result<bool> {
        let watched = &mut self.watched.borrow_mut()[key as usize];
        if watched.is_writable {
            return Ok(true);
        }
        set(&mut watched.writer, cx);
        if !watched.watches_writes {
            watched.watches_writes = true;
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::modify(&self.epoll, fd, EventData::new_u64(key.into()), flags)?;
        }
        Ok(false)
    }

    /// Notes that a write found no room: none until the next event.
    pub fn filled(&self, key: Key) {
        self.watched.borrow_mut()[key as usize].is_writable = false;
    }

    /// Allocates the event list for one look.
    pub fn room() -> Vec<Event> {
        Vec::with_capacity(EVENTS_MAX)
    }

    /// Wakes the waiting tasks, without end.
    pub async fn run(&self) {
        let mut events = Self::room();
        loop {
            let Some(ready) = Readable::of(self.epoll.as_fd()).await else {
                // The process has no descriptors left.
                super::clock::yield_to_reactor().await;
                continue;
            };
            self.look(&mut events);
            // Looks again after the readers and the turn's writes, so that bytes that arrive meanwhile
            // cause no interrupt.
            for _ in 0..2 {
                futures_lite::future::yield_now().await;
            }
            drop(ready);
        }
    }

    /// Wakes the tasks whose events have happened; `events` is scratch space.
    ///
    /// Each tick calls it too. So if the ring misses an event of the epoll instance, the shard stands
    /// still for one tick at most.
    pub fn look(&self, events: &mut Vec<Event>) {
        events.clear();
        // An interrupted look is repeated: ready descriptors stay ready.
        let now = Some(&Timespec::default());
        let _ = epoll::wait(&self.epoll, spare_capacity(events), now);
        let mut watched = self.watched.borrow_mut();
        for Event { flags, data } in events.iter().copied() {
            if let Some(watched) = watched.get_mut(data.u64() as usize) {
                watched.event(flags);
            }
        }
    }
}

impl Watched {
    fn event(&mut self, flags: EventFlags) {
        let failed = EventFlags::HUP | EventFlags::ERR;
        self.has_ended |= flags.intersects(failed | EventFlags::RDHUP);
        if self.has_ended || flags.contains(EventFlags::IN) {
            self.is_readable = true;
            if let Some(reader) = &self.reader {
                reader.wake_by_ref();
            }
        }
        // A peer that closed only its own direction may still be reading.
        if flags.intersects(failed | EventFlags::OUT) {
            self.is_writable = true;
            if let Some(writer) = &self.writer {
                writer.wake_by_ref();
            }
        }
    }
}

/// Stores the waker, which is mostly the same as before.
fn set(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(known) if known.will_wake(cx.waker()) => {}
        _ => *waker = Some(cx.waker().clone()),
    }
}
