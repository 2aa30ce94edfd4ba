//! A delegate: the name of its remote, and the choice of one for a session.

use std::num::NonZeroU8;

use crate::ids::{PeerIndex, Sid};

/// The remote that the package adds to a delegate.
pub const PACKAGE_REMOTE: &str = "tangelo";

/// The delegate that gets the messages of a session, as the session remembers it: in one byte, because each session
/// has one. Two delegates share a mark if 255 servers became known between them; then the first in the list gets the
/// sessions of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelegateMark(NonZeroU8);

impl DelegateMark {
    /// Returns the mark of a delegate.
    pub fn of(peer: PeerIndex) -> Self {
        let number = (peer.0 % 255) as u8;
        Self(NonZeroU8::MIN.saturating_add(number))
    }
}

/// Returns the delegate of a session: the one that it had, while that is in the list, else one by its id.
///
/// So a delegate that joins gets new sessions only, and one that leaves moves only its own.
pub fn delegate_of(
    mark: Option<DelegateMark>,
    sid: Sid,
    delegates: &[PeerIndex],
) -> Option<PeerIndex> {
    let before = mark.and_then(|mark| {
        let mut known = delegates.iter();
        known.find(|peer| DelegateMark::of(**peer) == mark)
    });
    before.or_else(|| by_id(sid, delegates)).copied()
}

fn by_id(sid: Sid, delegates: &[PeerIndex]) -> Option<&PeerIndex> {
    // The high bits of the product depend on all bits of the id.
    let hash = sid.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    delegates.get((hash as usize).checked_rem(delegates.len())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    const DELEGATES: [PeerIndex; 3] = [PeerIndex(2), PeerIndex(7), PeerIndex(300)];

    fn sessions() -> impl Iterator<Item = Sid> {
        let slots = 0..1000;
        slots.map(|slot| Sid::new(ShardId((slot % 4) as u16), slot, 1 + slot % 3))
    }

    fn mark_of(sid: Sid, delegates: &[PeerIndex]) -> Option<DelegateMark> {
        delegate_of(None, sid, delegates).map(DelegateMark::of)
    }

    #[test]
    fn each_delegate_gets_its_share_of_the_sessions() {
        for delegate in DELEGATES {
            let chosen =
                sessions().filter(|sid| delegate_of(None, *sid, &DELEGATES) == Some(delegate));
            let count = chosen.count();
            assert!(
                (250..420).contains(&count),
                "{delegate:?} gets {count} of 1000"
            );
        }
        assert_eq!(delegate_of(None, sessions().next().unwrap(), &[]), None);
    }

    #[test]
    fn a_delegate_that_joins_or_leaves_moves_no_session_of_another_one() {
        let two = &DELEGATES[..2];
        for sid in sessions() {
            let mark = mark_of(sid, two);
            let before = delegate_of(None, sid, two);
            assert_eq!(delegate_of(mark, sid, &DELEGATES), before);
            let rest: Vec<_> = DELEGATES
                .into_iter()
                .filter(|peer| Some(*peer) != before)
                .collect();
            let moved = delegate_of(mark, sid, &rest);
            assert!(moved.is_some() && moved != before);
            assert_eq!(
                delegate_of(mark, sid, two),
                before,
                "it comes back to its own one"
            );
        }
    }
}
