//! Consistent hashing: a server that joins or leaves moves only its own share of the keys.

use md5::{Digest, Md5};

use super::Servers;
use super::known::Known;

/// Points of one server on the ring: Pomelo's `replicas`.
const POINTS_PER_SERVER: usize = 100;

/// The points of the ring, sorted by key. A key belongs to the greatest point that is not above it, or
/// to the last point if it is below all of them.
///
/// As in Pomelo's `pomelo-rpc` `lib/util/consistentHash.js`, with its defaults. It compares keys as
/// hexadecimal text, which has the same order as their bytes.
///
/// Bound: `limits::SERVERS_MAX` times 100 points of 20 bytes.
#[derive(Debug, Default)]
pub(super) struct Ring {
    known: Known,
    points: Vec<Point>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    key: [u8; 16],
    /// Index of the server.
    server: u32,
}

impl Ring {
    /// Bound: `servers` is not empty.
    pub(super) fn choose(&mut self, servers: &impl Servers, text: &str) -> usize {
        if let Some(moved) = self.known.follow(servers) {
            self.take_over(&moved, servers);
        }
        let key: [u8; 16] = Md5::digest(text).into();
        let above = self.points.partition_point(|point| point.key <= key);
        let owner = above.checked_sub(1).unwrap_or(self.points.len() - 1);
        self.points[owner].server as usize
    }

    /// Cost: 100 digests per new server, and a sort.
    fn take_over(&mut self, moved: &[Option<usize>], servers: &impl Servers) {
        self.points
            .retain_mut(|point| match moved[point.server as usize] {
                Some(index) => {
                    point.server = index as u32;
                    true
                }
                None => false,
            });
        let mut is_new = vec![true; servers.count()];
        for index in moved.iter().flatten() {
            is_new[*index] = false;
        }
        for index in (0..servers.count()).filter(|index| is_new[*index]) {
            let server = index as u32;
            let keys = (0..POINTS_PER_SERVER).map(|n| point_key(servers.id(index), n));
            self.points.extend(keys.map(|key| Point { key, server }));
        }
        // The remaining points are sorted already, which makes this sort fast.
        self.points.sort();
    }
}

fn point_key(id: &str, number: usize) -> [u8; 16] {
    let mut digest = Md5::new();
    digest.update(id);
    digest.update(":");
    digest.update(itoa::Buffer::new().format(number));
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{List, balancer, choose};
    use super::super::{Balancer, Servers};
    use super::*;

    const FIVE: [&str; 5] = ["chat-1", "chat-2", "chat-3", "chat-4", "chat-5"];

    /// Returns the owners of ten thousand keys.
    fn owners(balancer: &mut Balancer, list: &List) -> Vec<String> {
        let owner = |n: u32| choose(balancer, list, &n.to_string()).unwrap();
        (0..10_000)
            .map(owner)
            .map(|index| list.ids[index].clone())
            .collect()
    }

    #[test]
    fn keys_belong_to_whom_the_reference_gives_them() {
        let mut balancer = balancer("ch");
        let mut list = List::new(&["chat-1", "chat-2", "chat-3"]);
        for (uid, id) in [
            ("alice", "chat-1"),
            ("bob", "chat-2"),
            ("carol", "chat-2"),
            ("10001", "chat-2"),
            ("", "chat-3"),
        ] {
            for ids in [
                ["chat-1", "chat-2", "chat-3"],
                ["chat-3", "chat-1", "chat-2"],
            ] {
                list.change(&ids);
                let chosen = choose(&mut balancer, &list, uid).unwrap();
                assert_eq!(list.id(chosen), id, "{uid:?} of {ids:?}");
            }
        }
    }

    #[test]
    fn a_key_below_every_point_belongs_to_the_last() {
        let list = List::new(&FIVE);
        let mut ring = Ring::default();
        ring.choose(&list, "");
        let last = ring.points.last().unwrap().server as usize;
        ring.points.retain(|point| point.key[0] >= 0x80);
        let low = (0..).map(|n: u32| n.to_string());
        let mut low = low.filter(|text| Md5::digest(text)[0] < 0x80);
        assert_eq!(ring.choose(&list, &low.next().unwrap()), last);
    }

    #[test]
    fn a_key_on_a_point_belongs_to_that_point() {
        let list = List::new(&FIVE);
        let mut ring = Ring::default();
        for (index, id) in FIVE.iter().enumerate() {
            for n in 0..POINTS_PER_SERVER {
                assert_eq!(ring.choose(&list, &format!("{id}:{n}")), index);
            }
        }
    }

    #[test]
    fn when_one_of_five_leaves_only_its_keys_move() {
        let mut balancer = balancer("ch");
        let mut list = List::new(&FIVE);
        let before = owners(&mut balancer, &list);
        for id in FIVE {
            let share = before.iter().filter(|owner| *owner == id).count();
            assert!((1000..=3000).contains(&share), "{id} owns {share} of 10000");
        }
        list.change(&["chat-5", "chat-1", "chat-2", "chat-4"]);
        let after = owners(&mut balancer, &list);
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || before == "chat-3", "{before} to {after}");
            assert_ne!(after, "chat-3");
        }
        list.change(&FIVE);
        assert_eq!(
            owners(&mut balancer, &list),
            before,
            "the server gets its keys back"
        );
    }

    #[test]
    fn a_ring_that_followed_changes_is_the_one_built_anew() {
        let mut ring = Ring::default();
        let mut list = List::new(&["chat-9", "chat-2"]);
        for ids in [
            &["chat-2", "chat-4", "chat-9"][..],
            &["chat-4"],
            &FIVE,
            &FIVE[1..4],
        ] {
            list.change(ids);
            ring.choose(&list, "alice");
            let mut anew = Ring::default();
            anew.choose(&list, "alice");
            assert_eq!(ring.points, anew.points);
            assert_eq!(ring.points.len(), ids.len() * POINTS_PER_SERVER);
        }
    }
}
