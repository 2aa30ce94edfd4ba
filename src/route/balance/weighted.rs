//! Weighted round robin: each server is chosen as often as its weight says.

use super::Servers;

/// The state of the round: it visits the servers in order, each round with a lower threshold, and
/// chooses those with at least that weight.
///
/// As in Pomelo's `pomelo-rpc` `lib/rpc-client/router.js`, `wrr`, a heavy server gets its calls in a
/// row (weights 3 and 1 give a, a, a, b).
#[derive(Debug, Default)]
pub(super) struct Weighted {
    /// Index to visit next, one more than in Pomelo.
    next: usize,
    /// Threshold of this round; above 0 once a server was chosen.
    threshold: u32,
}

impl Weighted {
    /// Returns `None` if no server has a weight; the round then does not move.
    ///
    /// Cost: each weight is read at most twice, and once more if a new round begins.
    pub(super) fn choose(&mut self, servers: &impl Servers) -> Option<usize> {
        let count = servers.count();
        let (mut next, mut threshold) = (self.next, self.threshold);
        // The rest of this round, and a full round that reaches the heaviest server at the latest.
        for _ in 0..2 * count {
            let index = next % count;
            next = index + 1;
            if index == 0 {
                let weights = (0..count).map(|index| servers.weight(index));
                let largest = weights.max().filter(|weight| *weight > 0)?;
                // Unlike in Pomelo, no rounds for weights of servers that left.
                threshold = match threshold.saturating_sub(1) {
                    0 => largest,
                    lower => lower.min(largest),
                };
            }
            if servers.weight(index) >= threshold {
                *self = Self { next, threshold };
                return Some(index);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{List, balancer, choose, shares};

    #[test]
    fn weights_three_and_one_share_three_to_one() {
        let list = List::weighted(&[3, 1]);
        let mut balancer = balancer("wrr");
        let turns: Vec<_> = (0..8)
            .filter_map(|_| choose(&mut balancer, &list, ""))
            .collect();
        assert_eq!(turns, [0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(shares(&mut balancer, &list, 4000), [3000, 1000]);
    }

    #[test]
    fn turns_are_those_of_the_reference() {
        for (weights, turns) in [
            (&[4, 3, 2][..], &[0, 0, 1, 0, 1, 2, 0, 1, 2, 0][..]),
            (&[1, 2, 2], &[1, 2, 0, 1, 2, 1, 2]),
            (&[1, 1], &[0, 1, 0]),
            (&[0, 1, 0, 2], &[3, 1, 3, 3, 1]),
            (&[5], &[0, 0, 0, 0, 0, 0, 0]),
        ] {
            let list = List::weighted(weights);
            let mut balancer = balancer("wrr");
            for turn in turns {
                assert_eq!(choose(&mut balancer, &list, ""), Some(*turn), "{weights:?}");
            }
        }
    }

    #[test]
    fn without_a_weight_no_server_is_chosen() {
        let mut balancer = balancer("wrr");
        let list = List::weighted(&[0, 0]);
        for _ in 0..3 {
            assert_eq!(choose(&mut balancer, &list, ""), None);
        }
        assert_eq!(choose(&mut balancer, &List::weighted(&[0, 7]), ""), Some(1));
        for _ in 0..3 {
            assert_eq!(choose(&mut balancer, &list, ""), None);
        }
    }

    #[test]
    fn a_great_weight_that_left_leaves_no_empty_rounds() {
        let mut balancer = balancer("wrr");
        let heavy = List::weighted(&[1, 1, 1, u32::MAX]);
        assert_eq!(choose(&mut balancer, &heavy, ""), Some(3));
        let light = List::weighted(&[2, 1]);
        assert_eq!(shares(&mut balancer, &light, 3000), [2000, 1000]);
    }
}
