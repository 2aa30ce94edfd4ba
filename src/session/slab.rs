//! Slots with generations: the id of an ended session never finds a later one.

use std::ops::Range;

use crate::ids::{ShardId, Sid};
use crate::limits::{GENERATIONS_MAX, SESSIONS_PER_SHARD_MAX};

/// The sessions of one shard.
///
/// Bound: `limits::SESSIONS_PER_SHARD_MAX` sessions; [`Slab::insert`] refuses more.
/// Cost:  a look-up is one index and one comparison; no hash.
#[derive(Debug)]
pub struct Slab<T> {
    shard: ShardId,
    slots: Vec<Slot<T>>,
    /// Free slots. The last freed slot is used first, while it is still in the cache.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    /// Generation of the present value, or of the next one.
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    /// Creates an empty slab for the sessions of `shard`.
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Puts a value into a free slot; `make` gets its id. Returns `None` if the slab is full.
    pub fn insert(&mut self, make: impl FnOnce(Sid) -> T) -> Option<Sid> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < SESSIONS_PER_SHARD_MAX => {
                self.slots.push(Slot {
                    generation: 1,
                    value: None,
                });
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let entry = &mut self.slots[slot as usize];
        debug_assert!(entry.value.is_none());
        let sid = Sid::new(self.shard, slot, entry.generation);
        entry.value = Some(make(sid));
        self.check_invariants();
        Some(sid)
    }

    /// Returns the value of an id, if it has not been removed.
    pub fn get_mut(&mut self, sid: Sid) -> Option<&mut T> {
        debug_assert_eq!(sid.shard(), self.shard);
        let slot = self.slots.get_mut(sid.slot())?;
        if slot.generation == sid.generation() {
            slot.value.as_mut()
        } else {
            None
        }
    }

    /// Removes a value. Its id is not used again.
    pub fn remove(&mut self, sid: Sid) -> Option<T> {
        debug_assert_eq!(sid.shard(), self.shard);
        let slot = self.slots.get_mut(sid.slot())?;
        if slot.generation != sid.generation() {
            return None;
        }
        let value = slot.value.take()?;
        // A slot without further generations is retired, so that no id is given twice.
        if slot.generation < GENERATIONS_MAX {
            slot.generation += 1;
            self.free.push(sid.slot() as u32);
        }
        self.check_invariants();
        Some(value)
    }

    /// Returns all values, in slot order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Sid, &mut T)> {
        self.range_mut(0..self.slots.len())
    }

    /// Returns the values in some of the slots, in slot order.
    pub fn range_mut(&mut self, range: Range<usize>) -> impl Iterator<Item = (Sid, &mut T)> {
        let shard = self.shard;
        let slots = self.slots.iter_mut().enumerate();
        let slots = slots.skip(range.start).take(range.len());
        slots.filter_map(move |(index, slot)| {
            let sid = Sid::new(shard, index as u32, slot.generation);
            slot.value.as_mut().map(|value| (sid, value))
        })
    }

    /// Returns the number of slots, with the free ones.
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| slot.value.is_some())
            .count()
    }

    /// Returns true if there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn check_invariants(&self) {
        debug_assert!(
            self.slots.len() <= SESSIONS_PER_SHARD_MAX,
            "more slots than may be"
        );
        debug_assert!(
            self.free.len() <= self.slots.len(),
            "a slot is in the free list twice"
        );
        debug_assert!(
            self.free
                .last()
                .is_none_or(|slot| self.slots[*slot as usize].value.is_none()),
            "a free slot has a value"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_never_finds_the_new_value() {
        let mut slab = Slab::new(ShardId(3));
        let first = slab.insert(|_| "a").unwrap();
        assert_eq!(slab.remove(first), Some("a"));
        let second = slab.insert(|_| "b").unwrap();
        assert_eq!(first.slot(), second.slot());
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut "b"));
        assert_eq!((slab.remove(first), slab.get_mut(first)), (None, None));
        assert_eq!((second.shard(), slab.len()), (ShardId(3), 1));
    }

    #[test]
    fn a_slot_out_of_generations_is_retired() {
        let mut slab = Slab::new(ShardId(0));
        slab.insert(|_| ()).unwrap();
        slab.slots[0].generation = GENERATIONS_MAX;
        let last = Sid::new(ShardId(0), 0, GENERATIONS_MAX);
        assert_eq!(slab.remove(last), Some(()));
        assert_eq!(slab.insert(|_| ()).unwrap().slot(), 1);
        assert_eq!(slab.get_mut(last), None);
    }

    #[test]
    fn the_largest_slab_refuses_one_more() {
        let mut slab = Slab::new(ShardId(0));
        for _ in 0..SESSIONS_PER_SHARD_MAX {
            slab.insert(|_| ()).unwrap();
        }
        assert_eq!(slab.insert(|_| ()), None);
    }
}
