//! The least called server.

use super::known::Known;
use super::{Random, Servers};

/// The number of calls of each server in the list.
#[derive(Debug, Default)]
pub(super) struct LeastCalled {
    known: Known,
    calls: Vec<u64>,
}

impl LeastCalled {
    /// Chooses the least called server and counts the call.
    ///
    /// Bound: `servers` is not empty.
    pub(super) fn choose(&mut self, servers: &impl Servers, random: &mut Random) -> usize {
        if let Some(moved) = self.known.follow(servers) {
            self.take_over(&moved, servers.count());
        }
        let least = self.calls.iter().copied().min().unwrap_or_default();
        let tied = || (0..self.calls.len()).filter(|index| self.calls[*index] == least);
        let drawn = random.below(tied().count());
        let chosen = tied().nth(drawn).unwrap_or_default();
        self.calls[chosen] += 1;
        chosen
    }

    /// Unlike in Pomelo, a new server starts with the lowest count of those that stay. With 0 it would
    /// get every call until it has caught up.
    fn take_over(&mut self, moved: &[Option<usize>], count: usize) {
        let stay = || {
            moved
                .iter()
                .zip(&self.calls)
                .filter_map(|(now, n)| Some(((*now)?, *n)))
        };
        let least = stay().map(|(_, calls)| calls).min().unwrap_or_default();
        let mut calls = vec![least; count];
        for (index, n) in stay() {
            calls[index] = n;
        }
        self.calls = calls;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{List, balancer, choose, shares};
    use super::*;

    #[test]
    fn no_server_is_called_twice_more_than_another() {
        let list = List::weighted(&[1; 5]);
        let mut balancer = balancer("la");
        let mut calls = [0; 5];
        for _ in 0..1000 {
            calls[choose(&mut balancer, &list, "alice").unwrap()] += 1;
            assert!(calls.iter().max().unwrap() - calls.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn ties_are_drawn() {
        let list = List::weighted(&[1; 4]);
        let mut firsts = [0; 4];
        for seed in 0..4000 {
            let first = LeastCalled::default().choose(&list, &mut Random(seed));
            firsts[first] += 1;
        }
        // Five standard deviations.
        assert!(
            firsts.iter().all(|n| (863..=1137).contains(n)),
            "{firsts:?}"
        );
    }

    #[test]
    fn a_late_server_gets_its_share_and_no_more() {
        let mut list = List::new(&["a", "b"]);
        let mut balancer = balancer("la");
        assert_eq!(shares(&mut balancer, &list, 1000), [500, 500]);
        list.change(&["late", "a", "b"]);
        assert_eq!(shares(&mut balancer, &list, 300), [100; 3]);
    }

    #[test]
    fn a_server_that_comes_again_has_no_past() {
        let mut list = List::new(&["a", "b", "c"]);
        let mut balancer = balancer("la");
        assert_eq!(shares(&mut balancer, &list, 300), [100; 3]);
        list.change(&["c", "a"]);
        assert_eq!(shares(&mut balancer, &list, 200), [100; 2]);
        list.change(&["c", "a", "b"]);
        assert_eq!(shares(&mut balancer, &list, 300), [100; 3]);
    }

    #[test]
    fn counts_move_with_their_server_and_go_with_it() {
        let mut least = LeastCalled::default();
        let mut random = Random(0);
        let mut list = List::new(&["a", "b", "c"]);
        least.choose(&list, &mut random);
        least.calls = vec![9, 5, 6];
        list.change(&["c", "d", "a"]);
        for _ in 0..2 {
            least.choose(&list, &mut random);
        }
        assert_eq!(least.calls, [7, 7, 9], "from 6, 6, 9");
        list.change(&["d"]);
        least.choose(&list, &mut random);
        assert_eq!(least.calls, [8]);
    }
}
