//! Packages on their way to many sessions: a fan-out is handed to its members part by part, with other work between.
//!
//! A member that gets something else in the meantime gets its packages first ([`FanOuts::take_for`]). So each member sees
//! each package once, and in the order in which they were sent.
//!
//! Bound: [`FAN_OUT_MEMBERS_MAX`] members of all fan-outs that wait; the owner then ends the oldest ones at once.

use std::collections::VecDeque;

use foldhash::HashSet;

use super::select::Outgoing;
use crate::ids::Sid;
use crate::limits::FAN_OUT_MEMBERS_MAX;

/// The fan-outs of a shard that are not at their end, the oldest first.
#[derive(Debug, Default)]
pub struct FanOuts {
    waiting: VecDeque<FanOut>,
    /// Members of all of them, whether they have their package or not.
    members: usize,
}

#[derive(Debug)]
struct FanOut {
    package: Outgoing,
    /// Sorted.
    members: Vec<Sid>,
    /// Number of those that it has passed.
    at: usize,
    /// Members further on that have their package already.
    early: HashSet<Sid>,
}

impl FanOuts {
    /// Adds a fan-out. A member may be there twice, and gets the package twice.
    pub fn add(&mut self, package: Outgoing, mut members: Vec<Sid>) {
        debug_assert!(!members.is_empty(), "a fan-out without members");
        members.sort_unstable();
        self.members += members.len();
        self.waiting.push_back(FanOut {
            package,
            members,
            at: 0,
            early: HashSet::default(),
        });
    }

    /// Returns whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns whether too many members wait. One fan-out always fits.
    pub fn is_full(&self) -> bool {
        self.members > FAN_OUT_MEMBERS_MAX && self.waiting.len() > 1
    }

    /// Takes the next member of the oldest fan-out.
    pub fn take_next(&mut self) -> Option<(Sid, Outgoing)> {
        loop {
            let oldest = self.waiting.front_mut()?;
            let sid = oldest.members[oldest.at];
            oldest.at += 1;
            let is_waiting = !oldest.early.contains(&sid);
            let taken = is_waiting.then(|| (sid, oldest.package.clone()));
            if oldest.at == oldest.members.len() {
                self.members -= oldest.members.len();
                self.waiting.pop_front();
            }
            if taken.is_some() {
                return taken;
            }
        }
    }

    /// Takes all packages that wait for a session.
    pub fn take_for(&mut self, sid: Sid) -> Vec<Outgoing> {
        let mut packages = Vec::new();
        for FanOut {
            package,
            members,
            at,
            early,
        } in &mut self.waiting
        {
            let left = &members[*at..];
            let begin = left.partition_point(|member| *member < sid);
            let times = left[begin..]
                .iter()
                .take_while(|member| **member == sid)
                .count();
            if times > 0 && early.insert(sid) {
                packages.extend(std::iter::repeat_n(&*package, times).cloned());
            }
        }
        packages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;
    use crate::push::select::Via;

    fn sid(slot: u32) -> Sid {
        Sid::new(ShardId(0), slot, 1)
    }

    fn package(text: &'static str) -> Outgoing {
        Outgoing {
            bytes: text.into(),
            via: Via::Direct,
        }
    }

    fn texts(packages: &[Outgoing]) -> Vec<&str> {
        let texts = packages.iter().map(|package| &*package.bytes);
        texts
            .map(|text| std::str::from_utf8(text).unwrap())
            .collect()
    }

    #[test]
    fn each_member_gets_each_package_once_and_in_order() {
        let mut fan_outs = FanOuts::default();
        fan_outs.add(package("a"), [4, 2, 9].map(sid).into());
        fan_outs.add(package("b"), [2, 3, 3].map(sid).into());
        let next = |fan_outs: &mut FanOuts| {
            let (sid, package) = fan_outs.take_next()?;
            Some((sid, texts(&[package])[0].to_owned()))
        };
        assert_eq!(next(&mut fan_outs), Some((sid(2), "a".into())));
        assert_eq!(texts(&fan_outs.take_for(sid(9))), ["a"]);
        assert_eq!(texts(&fan_outs.take_for(sid(3))), ["b", "b"]);
        assert_eq!(texts(&fan_outs.take_for(sid(2))), ["b"]);
        for taken in [2, 3, 9, 7] {
            assert!(fan_outs.take_for(sid(taken)).is_empty());
        }
        assert_eq!(next(&mut fan_outs), Some((sid(4), "a".into())));
        assert_eq!((next(&mut fan_outs), fan_outs.is_empty()), (None, true));
        assert_eq!(fan_outs.members, 0);
    }

    #[test]
    fn one_fan_out_always_fits_and_a_second_one_may_be_too_many() {
        let mut fan_outs = FanOuts::default();
        fan_outs.add(package("a"), vec![sid(1); FAN_OUT_MEMBERS_MAX + 1]);
        assert!(!fan_outs.is_full());
        fan_outs.add(package("b"), vec![sid(1)]);
        assert!(fan_outs.is_full());
        while fan_outs.is_full() {
            fan_outs.take_next();
        }
        assert_eq!(texts(&fan_outs.take_for(sid(1))), ["b"]);
    }
}
