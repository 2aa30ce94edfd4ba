//! Newtypes for the ids that several modules use.

use std::fmt;

use crate::limits::{GENERATIONS_MAX, SESSIONS_PER_SHARD_MAX, SHARDS_MAX};

/// Number of a shard in this process, 0-based.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    /// Returns the index into a table with one entry per shard.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Index of another server in the list of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerIndex(pub u32);

impl PeerIndex {
    /// Returns the index into a table with one entry per server.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Session id, as backends see it.
///
/// Shape:  `generation: 25 bits` · `slot: 20 bits` · `shard: 8 bits`, below 2^53, so it is a safe
/// JavaScript integer. Generations start at 1, so no id is 0.
/// Never reused: a slot whose generations are used up is retired.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid(u64);

const SHARD_BITS: u32 = SHARDS_MAX.ilog2();
const SLOT_BITS: u32 = SESSIONS_PER_SHARD_MAX.ilog2();

impl Sid {
    /// Packs the three parts; each must be within its bound.
    pub fn new(shard: ShardId, slot: u32, generation: u32) -> Self {
        debug_assert!((slot as usize) < SESSIONS_PER_SHARD_MAX);
        debug_assert!((1..=GENERATIONS_MAX).contains(&generation));
        Self(
            (u64::from(generation) << (SLOT_BITS + SHARD_BITS))
                | (u64::from(slot) << SHARD_BITS)
                | u64::from(shard.0),
        )
    }

    /// Returns the id for a number from the wire, if it is valid.
    pub fn from_wire(number: u64) -> Option<Self> {
        let sid = Self(number);
        let generation = number >> (SLOT_BITS + SHARD_BITS);
        let known = 1..=u64::from(GENERATIONS_MAX);
        known.contains(&generation).then_some(sid)
    }

    /// Returns the number for the wire.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Returns the shard that owns the session.
    pub fn shard(self) -> ShardId {
        ShardId((self.0 & ((1 << SHARD_BITS) - 1)) as u16)
    }

    /// Returns the slot in the slab of that shard.
    pub fn slot(self) -> usize {
        ((self.0 >> SHARD_BITS) & ((1 << SLOT_BITS) - 1)) as usize
    }

    /// Returns the generation of the slot.
    pub(crate) fn generation(self) -> u32 {
        (self.0 >> (SLOT_BITS + SHARD_BITS)) as u32
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sid {}", self.0)
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_id_is_a_safe_javascript_integer() {
        let sid = Sid::new(
            ShardId((SHARDS_MAX - 1) as u16),
            (SESSIONS_PER_SHARD_MAX - 1) as u32,
            GENERATIONS_MAX,
        );
        assert!(sid.get() < 1 << 53);
        assert_eq!(sid.shard().index(), SHARDS_MAX - 1);
        assert_eq!(sid.slot(), SESSIONS_PER_SHARD_MAX - 1);
        assert_eq!(sid.generation(), GENERATIONS_MAX);
    }
}
