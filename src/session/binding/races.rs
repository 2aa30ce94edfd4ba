//! Tests: binds that race with closes, kicks and unbinds over four shards, in a model of queues.
//!
//! [`Slab`], [`Identity`] and [`Binding`] are the real ones. The test models the messages of
//! `shard/coordinator.rs`: an inbox per pair of shards, in order, with any delay.

use std::cell::Cell;
use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::ids::ShardId;
use crate::session::Identity;
use crate::session::slab::Slab;

const SHARDS: usize = 4;
const SESSIONS: usize = 12;
/// Few uids, so that sessions share them. The first one counts as none.
const UIDS: [&str; 4] = ["", "ann", "bob", "eve"];
const STEPS: usize = 2_000;
const CASES: u32 = 900;
/// Minimum number of sessions that end during a bind, over all cases of a policy.
const RACES: u64 = 100_000;

#[derive(Debug, Clone)]
enum Step {
    /// A bind by a backend, which asks the coordinator, or by a handler, which asks its shard.
    Bind(usize, usize, bool),
    Unbind(usize, usize),
    Kick(usize),
    /// A client disconnects; another one connects.
    Close(usize),
    ToShard(usize),
    ToCoordinator(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (session, uid, shard) = (0..SESSIONS, 0..UIDS.len(), 0..SHARDS);
    prop_oneof![
        6 => (session.clone(), uid.clone(), any::<bool>())
            .prop_map(|(session, uid, handler)| Step::Bind(session, uid, handler)),
        1 => (session.clone(), uid).prop_map(|(session, uid)| Step::Unbind(session, uid)),
        1 => session.clone().prop_map(Step::Kick),
        4 => session.prop_map(Step::Close),
        6 => shard.clone().prop_map(Step::ToShard),
        6 => shard.prop_map(Step::ToCoordinator),
    ]
}

enum ToShard {
    Bind(Sid, Uid, bool),
    Kick(Sid),
}

enum ToCoordinator {
    Bind(Sid, Uid),
    Bound(Sid, Uid),
    Unbound(Sid),
    BindEnded(Sid, Uid, bool),
}

struct World {
    policy: DuplicateLogin,
    binding: Binding,
    shards: Vec<Slab<Identity>>,
    to_shard: Vec<VecDeque<ToShard>>,
    to_coordinator: Vec<VecDeque<ToCoordinator>>,
    sessions: Vec<Sid>,
    /// Binds without a result.
    pending_binds: HashMap<Sid, u32>,
    races: u64,
}

impl World {
    fn new(policy: DuplicateLogin) -> Self {
        let mut world = Self {
            policy,
            binding: Binding::default(),
            shards: (0..SHARDS as u16)
                .map(|id| Slab::new(ShardId(id)))
                .collect(),
            to_shard: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            to_coordinator: (0..SHARDS).map(|_| VecDeque::new()).collect(),
            sessions: Vec::new(),
            pending_binds: HashMap::new(),
            races: 0,
        };
        for session in 0..SESSIONS {
            let sid = world.open(session % SHARDS);
            world.sessions.push(sid);
        }
        world
    }

    fn open(&mut self, shard: usize) -> Sid {
        let sid = self.shards[shard].insert(|_| Identity::default());
        sid.expect("the slab has room for 12 sessions")
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Bind(session, uid, handler) => {
                let (sid, uid) = (self.sessions[session], Uid::from_text(UIDS[uid]));
                *self.pending_binds.entry(sid).or_default() += 1;
                if handler {
                    self.send_to_coordinator(sid.shard(), ToCoordinator::Bind(sid, uid));
                } else {
                    self.ask(sid, uid);
                }
            }
            Step::Unbind(session, uid) => {
                let sid = self.sessions[session];
                let identity = self.shards[sid.shard().index()].get_mut(sid);
                let uid = Uid::from_text(UIDS[uid]);
                if identity.is_some_and(|identity| identity.unbind(&uid).is_ok()) {
                    self.send_to_coordinator(sid.shard(), ToCoordinator::Unbound(sid));
                }
            }
            Step::Kick(session) => self.kick(self.sessions[session]),
            Step::Close(session) => {
                let sid = self.sessions[session];
                self.close(sid);
                self.sessions[session] = self.open(sid.shard().index());
            }
            Step::ToShard(shard) => {
                if let Some(message) = self.to_shard[shard].pop_front() {
                    self.at_shard(message);
                }
            }
            Step::ToCoordinator(shard) => {
                if let Some(message) = self.to_coordinator[shard].pop_front() {
                    self.at_coordinator(message);
                }
            }
        }
    }

    fn ask(&mut self, sid: Sid, uid: Uid) {
        let allowed =
            self.policy != DuplicateLogin::Refuse || self.binding.reserve(uid.text(), sid);
        self.send_to_shard(sid.shard(), ToShard::Bind(sid, uid, allowed));
    }

    fn kick(&mut self, sid: Sid) {
        self.binding.unbound(sid);
        self.send_to_shard(sid.shard(), ToShard::Kick(sid));
    }

    /// Messages to the coordinator's own shard need no queue.
    fn send_to_shard(&mut self, shard: ShardId, message: ToShard) {
        match shard.index() {
            0 => self.at_shard(message),
            shard => self.to_shard[shard].push_back(message),
        }
    }

    fn send_to_coordinator(&mut self, shard: ShardId, message: ToCoordinator) {
        match shard.index() {
            0 => self.at_coordinator(message),
            shard => self.to_coordinator[shard].push_back(message),
        }
    }

    fn at_shard(&mut self, message: ToShard) {
        match message {
            ToShard::Bind(sid, uid, allowed) => {
                let identity = self.shards[sid.shard().index()].get_mut(sid);
                let news =
                    identity.is_some_and(|identity| identity.bind(&uid, allowed) == Ok(true));
                if news {
                    self.send_to_coordinator(sid.shard(), ToCoordinator::Bound(sid, uid.clone()));
                }
                self.send_to_coordinator(sid.shard(), ToCoordinator::BindEnded(sid, uid, allowed));
            }
            ToShard::Kick(sid) => self.close(sid),
        }
    }

    fn at_coordinator(&mut self, message: ToCoordinator) {
        match message {
            ToCoordinator::Bind(sid, uid) => self.ask(sid, uid),
            ToCoordinator::Bound(sid, uid) => {
                let others = self.binding.bound(sid, &uid, "", 0);
                if self.policy == DuplicateLogin::NewestWins {
                    others.into_iter().for_each(|other| self.kick(other));
                }
            }
            ToCoordinator::Unbound(sid) => self.binding.unbound(sid),
            ToCoordinator::BindEnded(sid, uid, allowed) => {
                *self
                    .pending_binds
                    .get_mut(&sid)
                    .expect("a bind that ends has begun") -= 1;
                if self.policy == DuplicateLogin::Refuse && allowed {
                    self.binding.release(uid.text(), sid);
                }
            }
        }
    }

    fn close(&mut self, sid: Sid) {
        let Some(identity) = self.shards[sid.shard().index()].remove(sid) else {
            return;
        };
        self.races += u64::from(self.pending_binds.get(&sid).is_some_and(|binds| *binds > 0));
        if identity.uid.is_some() {
            self.send_to_coordinator(sid.shard(), ToCoordinator::Unbound(sid));
        }
    }

    fn deliver_all(&mut self) {
        loop {
            let before: usize = self.waiting();
            for shard in 0..SHARDS {
                self.step(&Step::ToShard(shard));
                self.step(&Step::ToCoordinator(shard));
            }
            if before == 0 {
                return;
            }
        }
    }

    fn waiting(&self) -> usize {
        let to_shard = self.to_shard.iter().map(VecDeque::len).sum::<usize>();
        to_shard + self.to_coordinator.iter().map(VecDeque::len).sum::<usize>()
    }

    /// Checks that the index equals the knowledge of the shards when no message is on its way.
    fn check(&mut self) {
        assert!(self.binding.reserved.is_empty());
        let mut bound = 0;
        for shard in &mut self.shards {
            for (sid, identity) in shard.iter_mut() {
                let Some(uid) = &identity.uid else { continue };
                let sessions = self.binding.sessions(uid.text());
                assert!(
                    sessions.contains(&sid),
                    "{sid} is bound, but the index does not have it"
                );
                let alone = self.policy == DuplicateLogin::Allow || sessions.len() == 1;
                assert!(alone, "{:?}: {sessions:?}", self.policy);
                bound += 1;
            }
        }
        assert_eq!(
            self.binding.uids.len(),
            bound,
            "a session that has ended is in the index"
        );
    }
}

fn run(policy: DuplicateLogin) {
    let races = Cell::new(0);
    let steps = proptest::collection::vec(step(), STEPS);
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..Config::with_cases(CASES)
    };
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        let mut world = World::new(policy);
        for step in &steps {
            world.step(step);
        }
        world.deliver_all();
        world.check();
        for sid in world.sessions.clone() {
            world.close(sid);
        }
        world.deliver_all();
        assert!(world.binding.is_empty() && world.binding.logins().is_empty());
        races.set(races.get() + world.races);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(races.get() >= RACES, "only {} races", races.get());
}

#[test]
fn many_sessions_may_have_a_uid() {
    run(DuplicateLogin::Allow);
}

#[test]
fn the_first_session_keeps_its_uid() {
    run(DuplicateLogin::Refuse);
}

#[test]
fn the_newest_session_has_its_uid() {
    run(DuplicateLogin::NewestWins);
}
