//! Frames for servers that this shard does not know yet.

use crate::ids::PeerIndex;
use crate::limits::UNKNOWN_PEER_BYTES_MAX;
use crate::peer::Epoch;

/// Frames for the link to a server, and the life of the link that they were written for.
pub(super) type Frames = (PeerIndex, Epoch, Vec<u8>);

/// Frames from other shards for servers that this shard does not know yet. It hears of them within a turn or two.
///
/// Bound: [`UNKNOWN_PEER_BYTES_MAX`] for all servers together.
#[derive(Debug, Default)]
pub(super) struct UnknownPeers {
    frames: Vec<Frames>,
    bytes: usize,
    /// Servers whose frames did not fit.
    overflowed: Vec<PeerIndex>,
}

impl UnknownPeers {
    /// Keeps frames until the server is known. Over the bound it drops all frames of the server, because a link
    /// must not lose some frames and send later ones, and returns false.
    pub(super) fn keep(&mut self, peer: PeerIndex, epoch: Epoch, frames: &[u8]) -> bool {
        if self.overflowed.contains(&peer) {
            return false;
        }
        let fits = self.bytes + frames.len() <= UNKNOWN_PEER_BYTES_MAX;
        if fits {
            self.bytes += frames.len();
            self.frames.push((peer, epoch, frames.to_vec()));
        } else {
            self.frames.retain(|(other, ..)| *other != peer);
            self.bytes = self.frames.iter().map(|(.., kept)| kept.len()).sum();
            self.overflowed.push(peer);
        }
        self.check_invariants();
        fits
    }

    /// Takes the frames in their order, and the servers whose frames were dropped.
    pub(super) fn take(&mut self) -> (Vec<Frames>, Vec<PeerIndex>) {
        let taken = std::mem::take(self);
        (taken.frames, taken.overflowed)
    }

    fn check_invariants(&self) {
        assert!(self.bytes <= UNKNOWN_PEER_BYTES_MAX);
        debug_assert_eq!(
            self.bytes,
            self.frames
                .iter()
                .map(|(.., kept)| kept.len())
                .sum::<usize>()
        );
        debug_assert!(
            self.frames
                .iter()
                .all(|(peer, ..)| !self.overflowed.contains(peer)),
            "a link would lose some frames and send others"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_over_the_bound_cost_their_own_server_all_of_its_frames() {
        let mut unknown = UnknownPeers::default();
        let (a, b, epoch) = (PeerIndex(0), PeerIndex(1), Epoch::default());
        let half = vec![0; UNKNOWN_PEER_BYTES_MAX / 2];
        assert!(unknown.keep(a, epoch, &half));
        assert!(unknown.keep(b, epoch, b"b"));
        assert!(!unknown.keep(a, epoch, &half));
        assert!(!unknown.keep(a, epoch, b"a"), "none of them is sent later");
        assert!(
            unknown.keep(b, epoch, &half),
            "the other one has room again"
        );
        let (frames, overflowed) = unknown.take();
        let kept: Vec<_> = frames
            .iter()
            .map(|(peer, .., kept)| (*peer, kept.len()))
            .collect();
        assert_eq!(kept, [(b, 1), (b, half.len())]);
        assert_eq!(overflowed, [a]);
        assert!(unknown.keep(a, epoch, b"a"));
    }
}
