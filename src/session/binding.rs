//! The uid index: the sessions of each uid in the whole process.
//!
//! One shard keeps it. Only the shard that owns a session knows whether the session is open. It reports
//! each bind, unbind and close in order, so the index holds no session that has ended.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use smallvec::SmallVec;

#[cfg(test)]
mod races;

use super::Uid;
pub use crate::config::DuplicateLogin;
use crate::ids::Sid;

/// The uid index and the login list of the process.
///
/// Bound: one entry per bound session, so at most one per connection.
/// Cost:  one hash of the uid's text per look-up.
#[derive(Debug, Default)]
pub struct Binding {
    sessions: HashMap<Box<str>, SmallVec<[Sid; 1]>, RandomState>,
    /// Uid of each session.
    uids: HashMap<Sid, Box<str>, RandomState>,
    /// Sessions that reserved a uid for their bind, with the number of their reservations. Used when a
    /// uid may have only one session.
    reserved: HashMap<Box<str>, (Sid, u32), RandomState>,
    logins: Logins,
}

/// Logged-in users, one entry per uid, in the order of their first login.
#[derive(Debug, Default)]
struct Logins {
    by_uid: HashMap<Box<str>, Login, RandomState>,
    next: u64,
}

/// One entry of the login list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Milliseconds since 1970.
    pub login_time_ms: u64,
    /// Uid, in the form in which it was bound.
    pub uid: Uid,
    /// `ip:port` of the client.
    pub address: Box<str>,
    order: u64,
}

impl Binding {
    /// Returns the sessions of a uid, in the order of their binds.
    pub fn sessions(&self, uid_text: &str) -> &[Sid] {
        self.sessions.get(uid_text).map_or(&[], SmallVec::as_slice)
    }

    /// Reserves a uid for a session. Returns false if another session has the uid or has reserved it.
    /// The caller must call [`Binding::release`] after each success.
    pub fn reserve(&mut self, uid_text: &str, sid: Sid) -> bool {
        if self.sessions(uid_text).iter().any(|other| *other != sid) {
            return false;
        }
        match self.reserved.get_mut(uid_text) {
            Some((owner, _)) if *owner != sid => return false,
            Some((_, times)) => {
                debug_assert!(*times > 0, "a reservation that was released");
                *times += 1;
            }
            None => {
                self.reserved.insert(uid_text.into(), (sid, 1));
            }
        }
        true
    }

    /// Releases a reservation after its bind has succeeded or failed.
    pub fn release(&mut self, uid_text: &str, sid: Sid) {
        match self.reserved.get_mut(uid_text) {
            Some((owner, times)) if *owner == sid && *times > 1 => *times -= 1,
            Some((owner, _)) if *owner == sid => {
                self.reserved.remove(uid_text);
            }
            _ => {}
        }
    }

    /// Adds a bound session. Returns the other sessions of the uid.
    pub fn bound(&mut self, sid: Sid, uid: &Uid, address: &str, now_ms: u64) -> SmallVec<[Sid; 1]> {
        // A session with a falsy uid can be bound again without an unbind.
        self.unbound(sid);
        self.uids.insert(sid, uid.text().into());
        let sessions = self.sessions.entry(uid.text().into()).or_default();
        let others = sessions.clone();
        sessions.push(sid);
        debug_assert!(!others.contains(&sid), "a session has its uid twice");
        self.logins.add(uid, address, now_ms);
        self.check_invariants();
        others
    }

    /// Removes an unbound or closed session. Other sessions of the uid stay. As in Pomelo, the login
    /// entry of the uid is removed in any case (C14).
    pub fn unbound(&mut self, sid: Sid) {
        let Some(uid) = self.uids.remove(&sid) else {
            return;
        };
        self.logins.by_uid.remove(&uid);
        if let Some(sessions) = self.sessions.get_mut(&uid) {
            sessions.retain(|other| *other != sid);
            if sessions.is_empty() {
                self.sessions.remove(&uid);
            }
        }
        self.check_invariants();
    }

    fn check_invariants(&self) {
        debug_assert!(
            self.sessions.len() <= self.uids.len(),
            "a uid has no session"
        );
        debug_assert!(
            self.logins.by_uid.len() <= self.sessions.len(),
            "a uid without a session is logged in"
        );
    }

    /// Returns each uid with its number of sessions, in no order.
    pub fn uids(&self) -> impl Iterator<Item = (&str, usize)> {
        let sessions = self.sessions.iter();
        sessions.map(|(uid, sids)| (&**uid, sids.len()))
    }

    /// Returns the number of bound sessions.
    pub fn session_count(&self) -> usize {
        self.uids.len()
    }

    /// Returns true if there are no bound sessions and no reservations.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.uids.is_empty() && self.reserved.is_empty()
    }

    /// Returns the login list, oldest entry first.
    pub fn logins(&self) -> Vec<&Login> {
        let mut logins: Vec<_> = self.logins.by_uid.values().collect();
        logins.sort_by_key(|login| login.order);
        logins
    }
}

impl Logins {
    fn add(&mut self, uid: &Uid, address: &str, login_time_ms: u64) {
        let order = self
            .by_uid
            .get(uid.text())
            .map_or(self.next, |known| known.order);
        self.next += 1;
        let login = Login {
            login_time_ms,
            uid: uid.clone(),
            address: address.into(),
            order,
        };
        self.by_uid.insert(uid.text().into(), login);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    fn sid(slot: u32) -> Sid {
        Sid::new(ShardId(0), slot, 1)
    }

    #[test]
    fn only_the_session_that_ends_is_removed() {
        let mut binding = Binding::default();
        let uid = Uid::from_text("ann");
        assert!(binding.bound(sid(1), &uid, "a:1", 5).is_empty());
        assert_eq!(binding.bound(sid(2), &uid, "a:2", 6).as_slice(), [sid(1)]);
        assert_eq!(binding.logins().len(), 1);
        assert_eq!(&*binding.logins()[0].address, "a:2");
        binding.unbound(sid(3));
        assert_eq!(binding.sessions("ann"), [sid(1), sid(2)]);
        binding.unbound(sid(1));
        assert_eq!(
            (binding.sessions("ann"), binding.logins().len()),
            (&[sid(2)][..], 0)
        );
        binding.unbound(sid(2));
        assert!(binding.is_empty());
    }

    #[test]
    fn a_session_that_is_bound_again_leaves_nothing_behind() {
        let mut binding = Binding::default();
        for uid in ["", "ann"] {
            binding.bound(sid(1), &Uid::from_text(uid), "", 0);
        }
        assert!(binding.sessions("").is_empty());
        assert_eq!(binding.sessions("ann"), [sid(1)]);
        binding.unbound(sid(1));
        assert!(binding.is_empty());
    }

    #[test]
    fn a_number_is_found_by_its_text() {
        let mut binding = Binding::default();
        let uid = Uid::from_json(&serde_json::json!(10001)).unwrap();
        binding.bound(sid(1), &uid, "", 0);
        assert_eq!(binding.sessions("10001"), [sid(1)]);
    }

    #[test]
    fn one_of_two_reservations_wins() {
        let mut binding = Binding::default();
        assert!(binding.reserve("ann", sid(1)) && binding.reserve("ann", sid(1)));
        assert!(!binding.reserve("ann", sid(2)));
        binding.release("ann", sid(2));
        assert!(
            !binding.reserve("ann", sid(2)),
            "only the owner of a reservation releases it"
        );
        binding.release("ann", sid(1));
        assert!(
            !binding.reserve("ann", sid(2)),
            "each reservation needs a release of its own"
        );
        binding.release("ann", sid(1));
        assert!(binding.reserve("ann", sid(2)));
        binding.bound(sid(2), &Uid::from_text("ann"), "", 0);
        binding.release("ann", sid(2));
        assert!(!binding.reserve("ann", sid(1)));
    }
}
