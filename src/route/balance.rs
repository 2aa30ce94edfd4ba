//! Balancing: the choice of one server of a type, by the default route of both dialects or by another
//! strategy.
//!
//! **Invariants**: the chosen server is always in the list given with the call, so a server that left
//! is never chosen; the memory of a strategy is bounded by that list; a choice allocates nothing while
//! the list stays the same.
//!
//! **Absent**: the members of the list; the reaction to a call without a server.
//!
//! **Where to start reading**: [`Balancer::choose`].

use std::borrow::Cow;

use crate::dialect::Dialect;

mod known;
mod least;
mod ring;
mod weighted;

/// A strategy to choose the server of a call; one per server type.
///
/// In Pomelo, `routerType` applies to all types and switches custom routes off. Here each type has its
/// own strategy, and the usual custom routes are strategies too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Chooses by the uid, see [`default_route`]. Text: `default`.
    #[default]
    Default,
    /// Round robin. Text: `rr`.
    RoundRobin,
    /// Weighted round robin; a server without a weight is never chosen.
    /// Text: `wrr`.
    WeightedRoundRobin,
    /// The server called least often, among equals a random one. Text: `la`.
    ///
    /// As in Pomelo, `la` means "least active", but an answer does not lower the count. Unlike in
    /// Pomelo, a new server starts with the lowest count, so it does not get every call.
    LeastActive,
    /// Consistent hashing by the uid: a server that joins or leaves moves only its own share of the
    /// uids. Text: `ch`.
    ///
    /// Pomelo hashes the whole call unless `hashFieldIndex` is set, so a uid has no fixed server.
    ConsistentHash,
    /// A random server, all with the same probability. Text: `random`.
    Random,
    /// The server with this id. Text: `fixed:chat-1`.
    Fixed(String),
    /// The server whose id is the value of this setting of the session. Text: `setting:room`.
    SettingServer(String),
    /// `Default` with the value of this setting of the session in place of the uid.
    /// Text: `hash:room`.
    SettingHash(String),
    /// No server here: the delegate gets the message and sends it on, by the project's `app.route`
    /// function. Calls of handlers and remotes go as with `Default`. Text: `delegate`.
    Delegate,
    /// The server that the delegate names for the session, by the project's `app.route` function. It is asked again
    /// when the uid, a setting or the list of servers has changed. Calls go as with `Default`. Text:
    /// `delegate:session`.
    DelegateSession,
}

impl Strategy {
    /// Parses the text of the configuration. The error names the accepted texts.
    pub fn parse(text: &str) -> Result<Self, String> {
        let strategy = match text.split_once(':') {
            None => match text {
                "default" => Self::Default,
                "rr" => Self::RoundRobin,
                "wrr" => Self::WeightedRoundRobin,
                "la" => Self::LeastActive,
                "ch" => Self::ConsistentHash,
                "random" => Self::Random,
                "delegate" => Self::Delegate,
                _ => return Err(refusal(text)),
            },
            Some((_, "")) => return Err(refusal(text)),
            Some(("delegate", "session")) => Self::DelegateSession,
            Some(("fixed", id)) => Self::Fixed(id.into()),
            Some(("setting", key)) => Self::SettingServer(key.into()),
            Some(("hash", key)) => Self::SettingHash(key.into()),
            Some(_) => return Err(refusal(text)),
        };
        Ok(strategy)
    }
}

fn refusal(text: &str) -> String {
    format!(
        "{text:?} is not a strategy; expected default, rr, wrr, la, ch, random, fixed:SERVER_ID, \
         setting:SETTINGS_KEY, hash:SETTINGS_KEY, delegate"
    )
}

/// The list of servers of one type.
///
/// Bound: at most `limits::SERVERS_MAX`. Ids are unique, in the order in which they became known.
pub trait Servers {
    /// Returns the number of servers. An `index` is below it.
    fn count(&self) -> usize;
    /// Returns the id of a server.
    fn id(&self, index: usize) -> &str;
    /// Returns the weight of a server, or 0 if it has none.
    fn weight(&self, index: usize) -> u32;
    /// Returns a number that changes whenever ids or their order may have changed. A needless change
    /// costs a comparison of the ids; a missing one leaves a strategy with an old list.
    fn generation(&self) -> u64;
}

/// A strategy with its memory, for one server type on one shard.
///
/// Shards do not share it: `rr`, `wrr` and `la` count on each shard alone.
#[derive(Debug)]
pub struct Balancer {
    dialect: Dialect,
    random: Random,
    state: State,
}

#[derive(Debug)]
enum State {
    Default,
    RoundRobin { turn: u64 },
    WeightedRoundRobin(weighted::Weighted),
    LeastActive(least::LeastCalled),
    ConsistentHash(ring::Ring),
    Random,
    Fixed(String),
    SettingServer(String),
    SettingHash(String),
}

impl Balancer {
    /// Creates a balancer without memory. A different seed on each shard, such as its number, lets `rr`
    /// start at a different server and `random` and `la` draw different numbers. With seed 0, `rr`
    /// starts at the first server, as in Pomelo.
    pub fn new(strategy: Strategy, dialect: Dialect, seed: u64) -> Self {
        let state = match strategy {
            Strategy::Default | Strategy::Delegate | Strategy::DelegateSession => State::Default,
            Strategy::RoundRobin => State::RoundRobin { turn: seed },
            Strategy::WeightedRoundRobin => State::WeightedRoundRobin(Default::default()),
            Strategy::LeastActive => State::LeastActive(Default::default()),
            Strategy::ConsistentHash => State::ConsistentHash(Default::default()),
            Strategy::Random => State::Random,
            Strategy::Fixed(id) => State::Fixed(id),
            Strategy::SettingServer(key) => State::SettingServer(key),
            Strategy::SettingHash(key) => State::SettingHash(key),
        };
        Self {
            dialect,
            random: Random(seed),
            state,
        }
    }

    /// Returns the index in `servers` for one call. Returns `None` if the list is empty, no server has
    /// a weight, the named server is not in the list, or the session lacks the setting.
    ///
    /// `uid` is the text of the uid, `""` if unbound. `setting` returns JavaScript's `String(value)` of
    /// a session setting, or `None`.
    ///
    /// Cost: constant for `default`, `rr`, `random` and `hash`; logarithmic in the number of servers
    /// for `ch`; linear for the others. No allocation, unless the list changed and the strategy is `la`
    /// or `ch`.
    pub fn choose<'a>(
        &mut self,
        servers: &impl Servers,
        uid: &str,
        setting: impl FnOnce(&str) -> Option<Cow<'a, str>>,
    ) -> Option<usize> {
        hop!();
        let count = servers.count();
        if count == 0 {
            return None;
        }
        match &mut self.state {
            State::Default => Some(default_route(self.dialect, uid, count)),
            State::RoundRobin { turn } => {
                let index = *turn % count as u64;
                *turn = turn.wrapping_add(1);
                Some(index as usize)
            }
            State::WeightedRoundRobin(weighted) => weighted.choose(servers),
            State::LeastActive(least) => Some(least.choose(servers, &mut self.random)),
            State::ConsistentHash(ring) => Some(ring.choose(servers, uid)),
            State::Random => Some(self.random.below(count)),
            State::Fixed(id) => find(servers, id),
            State::SettingServer(key) => find(servers, &setting(key)?),
            State::SettingHash(key) => Some(default_route(self.dialect, &setting(key)?, count)),
        }
    }
}

impl Balancer {
    /// Returns the next server of the list behind the chosen one that is `usable`, with a strategy that shares load. With the
    /// other strategies a session has its server.
    pub fn another(
        &self,
        servers: &impl Servers,
        chosen: usize,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let weighs = match self.state {
            State::RoundRobin { .. } | State::LeastActive(_) | State::Random => false,
            State::WeightedRoundRobin(_) => true,
            _ => return None,
        };
        let count = servers.count();
        let mut others = (1..count).map(|step| (chosen + step) % count);
        others.find(|index| usable(*index) && (!weighs || servers.weight(*index) > 0))
    }
}

fn find(servers: &impl Servers, id: &str) -> Option<usize> {
    (0..servers.count()).find(|index| servers.id(*index) == id)
}

/// Returns the index in a list of `count` servers for a session with this uid text (`""` if unbound).
///
/// Pomelo: |crc32| of the low byte of each UTF-16 unit, as a signed number. Pinus: crc32 of the UTF-8
/// bytes, unsigned. An unbound session always gets the first server.
///
/// Bound: `count > 0`.
pub fn default_route(dialect: Dialect, text: &str, count: usize) -> usize {
    debug_assert!(count > 0);
    if text.is_empty() || count == 1 {
        return 0;
    }
    let mut hasher = crc32fast::Hasher::new();
    if dialect.hashes_utf16() && !text.is_ascii() {
        for unit in text.encode_utf16() {
            hasher.update(&[unit as u8]);
        }
    } else {
        hasher.update(text.as_bytes());
    }
    let hash = match hasher.finalize() {
        hash if dialect.hash_is_signed() => (hash as i32).unsigned_abs(),
        hash => hash,
    };
    hash as usize % count
}

/// A generator that is good enough to spread load, but not to keep a secret: splitmix64.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Creates a generator. The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number from 0 up to, but not including, 1.
    pub fn fraction(&mut self) -> f64 {
        self.below(1 << 24) as f64 / f64::from(1 << 24)
    }

    /// Returns a number below `bound`, all with the same probability (to one in 2⁶⁴ / `bound`).
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        ((u128::from(bits) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list for tests: ids, the same weight for all unless given, a generation.
    #[derive(Debug, Clone)]
    pub(super) struct List {
        pub(super) ids: Vec<String>,
        pub(super) weights: Vec<u32>,
        pub(super) generation: u64,
    }

    impl List {
        pub(super) fn new(ids: &[&str]) -> Self {
            Self {
                ids: ids.iter().map(|id| id.to_string()).collect(),
                weights: vec![1; ids.len()],
                generation: 0,
            }
        }

        pub(super) fn weighted(weights: &[u32]) -> Self {
            Self {
                ids: (1..=weights.len()).map(|n| format!("chat-{n}")).collect(),
                weights: weights.to_vec(),
                generation: 0,
            }
        }

        /// Changes the list to these ids.
        pub(super) fn change(&mut self, ids: &[&str]) {
            let generation = self.generation + 1;
            *self = Self::new(ids);
            self.generation = generation;
        }
    }

    impl Servers for List {
        fn count(&self) -> usize {
            self.ids.len()
        }

        fn id(&self, index: usize) -> &str {
            &self.ids[index]
        }

        fn weight(&self, index: usize) -> u32 {
            self.weights[index]
        }

        fn generation(&self) -> u64 {
            self.generation
        }
    }

    pub(super) fn balancer(text: &str) -> Balancer {
        Balancer::new(Strategy::parse(text).unwrap(), Dialect::Pomelo, 0)
    }

    /// Returns the choice for a session without settings.
    pub(super) fn choose(balancer: &mut Balancer, list: &List, uid: &str) -> Option<usize> {
        balancer.choose(list, uid, |_| None)
    }

    /// Returns how often each server is chosen in `calls` calls.
    pub(super) fn shares(balancer: &mut Balancer, list: &List, calls: usize) -> Vec<usize> {
        let mut shares = vec![0; list.count()];
        for _ in 0..calls {
            shares[choose(balancer, list, "").unwrap()] += 1;
        }
        shares
    }

    const EVERY_STRATEGY: [&str; 9] = [
        "default",
        "rr",
        "wrr",
        "la",
        "ch",
        "random",
        "fixed:chat-1",
        "setting:room",
        "hash:room",
    ];

    #[test]
    fn another_server_is_the_next_usable_one_where_load_is_shared() {
        let list = List::weighted(&[1, 0, 1, 1]);
        let another =
            |text: &str, usable: fn(usize) -> bool| balancer(text).another(&list, 3, usable);
        for text in ["rr", "la", "random"] {
            assert_eq!(another(text, |index| index != 3), Some(0), "{text}");
            assert_eq!(another(text, |index| index == 1), Some(1), "{text}");
            assert_eq!(another(text, |_| false), None, "{text}");
        }
        assert_eq!(another("wrr", |index| index == 1 || index == 2), Some(2));
        for text in ["default", "ch", "fixed:chat-4", "setting:room", "hash:room"] {
            assert_eq!(another(text, |_| true), None, "{text}");
        }
    }

    #[test]
    fn both_dialects_choose_what_the_reference_chooses() {
        for (uid, pomelo, pinus) in [
            ("", [0, 0, 0], [0, 0, 0]),
            ("1", [1, 2, 3], [1, 2, 3]),
            ("10001", [1, 1, 0], [1, 1, 0]),
            ("alice", [1, 2, 0], [1, 2, 0]),
            ("bob", [0, 2, 2], [0, 2, 4]),
            ("a", [1, 1, 4], [1, 0, 2]),
            ("123456789", [0, 2, 4], [0, 2, 2]),
            ("é", [1, 2, 0], [0, 2, 1]),
            ("张三", [1, 1, 3], [0, 1, 1]),
            ("😀", [1, 1, 2], [0, 1, 1]),
        ] {
            for (dialect, expected) in [(Dialect::Pomelo, pomelo), (Dialect::Pinus, pinus)] {
                let choose = |count| default_route(dialect, uid, count);
                assert_eq!([2, 3, 5].map(choose), expected, "{dialect:?} {uid}");
                for (count, index) in [2, 3, 5].into_iter().zip(expected) {
                    let list = List::weighted(&vec![1; count]);
                    let mut by_uid = Balancer::new(Strategy::Default, dialect, 7);
                    assert_eq!(by_uid.choose(&list, uid, |_| None), Some(index));
                    let by_setting = Strategy::SettingHash("room".into());
                    let mut by_setting = Balancer::new(by_setting, dialect, 7);
                    let chosen = by_setting
                        .choose(&list, "else", |key| (key == "room").then_some(uid.into()));
                    assert_eq!(chosen, Some(index), "{dialect:?} {uid} as a setting");
                }
            }
        }
    }

    #[test]
    fn a_text_names_a_strategy_or_is_refused_with_the_list_of_them() {
        for (text, strategy) in [
            ("default", Strategy::Default),
            ("rr", Strategy::RoundRobin),
            ("wrr", Strategy::WeightedRoundRobin),
            ("la", Strategy::LeastActive),
            ("ch", Strategy::ConsistentHash),
            ("random", Strategy::Random),
            ("fixed:chat-1", Strategy::Fixed("chat-1".into())),
            ("setting:a:b", Strategy::SettingServer("a:b".into())),
            ("hash:room", Strategy::SettingHash("room".into())),
            ("delegate", Strategy::Delegate),
            ("delegate:session", Strategy::DelegateSession),
        ] {
            assert_eq!(Strategy::parse(text), Ok(strategy));
        }
        for text in [
            "",
            "RR",
            "rr ",
            "rr:",
            "fixed",
            "fixed:",
            "setting:",
            "hash:",
            ":x",
            "x:y",
            "delegate:x",
        ] {
            assert_eq!(
                Strategy::parse(text),
                Err(format!(
                    "\"{text}\" is not a strategy; expected default, rr, wrr, la, ch, random, \
                     fixed:SERVER_ID, setting:SETTINGS_KEY, hash:SETTINGS_KEY, delegate"
                ))
            );
        }
        assert_eq!(Strategy::default(), Strategy::Default);
    }

    #[test]
    fn of_no_servers_none_is_chosen() {
        for text in EVERY_STRATEGY {
            let mut balancer = balancer(text);
            let setting = |_: &str| Some("chat-1".into());
            let mut list = List::new(&[]);
            assert_eq!(balancer.choose(&list, "alice", setting), None, "{text}");
            list.change(&["chat-1"]);
            assert_eq!(balancer.choose(&list, "alice", setting), Some(0), "{text}");
            list.change(&[]);
            assert_eq!(balancer.choose(&list, "alice", setting), None, "{text}");
        }
    }

    #[test]
    fn a_list_that_keeps_changing_only_yields_servers_that_are_in_it() {
        for text in EVERY_STRATEGY {
            let mut balancer = balancer(text);
            let mut random = Random(1);
            let mut list = List::new(&[]);
            for round in 0..300 {
                let mut ids = ["chat-1", "chat-2", "chat-3", "chat-4", "chat-5"].to_vec();
                for place in 0..5 {
                    ids.swap(place, random.below(5));
                }
                ids.truncate(random.below(6));
                list.change(&ids);
                list.weights.fill_with(|| random.below(4) as u32);
                for call in 0..7 {
                    let uid = format!("{round}.{call}");
                    let id = format!("chat-{call}");
                    let chosen = balancer.choose(&list, &uid, |_| Some(id.as_str().into()));
                    assert!(chosen.is_none_or(|index| index < list.count()), "{text}");
                    let always = ["default", "rr", "la", "ch", "random", "hash:room"];
                    if always.contains(&text) {
                        assert_eq!(chosen.is_some(), list.count() > 0, "{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn round_robin_starts_at_its_seed_and_continues_when_the_list_changes() {
        let mut list = List::weighted(&[1, 1, 1]);
        for seed in [0, 1, 2, u64::MAX] {
            let mut balancer = Balancer::new(Strategy::RoundRobin, Dialect::Pinus, seed);
            let start = (seed % 3) as usize;
            assert_eq!(choose(&mut balancer, &list, "alice"), Some(start));
        }
        let mut balancer = balancer("rr");
        let turns = |balancer: &mut Balancer, list: &List, calls: usize| -> Vec<usize> {
            (0..calls)
                .filter_map(|_| choose(balancer, list, "alice"))
                .collect()
        };
        assert_eq!(turns(&mut balancer, &list, 5), [0, 1, 2, 0, 1]);
        list.change(&["chat-1", "chat-3"]);
        assert_eq!(turns(&mut balancer, &list, 3), [1, 0, 1]);
        assert_eq!(
            shares(&mut balancer, &List::weighted(&[1; 7]), 7000),
            [1000; 7]
        );
    }

    #[test]
    fn random_gives_each_server_its_share() {
        for seed in 0..4 {
            let mut balancer = Balancer::new(Strategy::Random, Dialect::Pomelo, seed);
            for share in shares(&mut balancer, &List::weighted(&[1; 5]), 50_000) {
                // Five standard deviations.
                assert!(
                    (9553..=10_447).contains(&share),
                    "{share} of 50000 with seed {seed}"
                );
            }
        }
    }

    #[test]
    fn shards_with_neighbouring_seeds_draw_differently() {
        let list = List::weighted(&[1; 5]);
        let draw = |seed| -> Vec<_> {
            let mut balancer = Balancer::new(Strategy::Random, Dialect::Pomelo, seed);
            (0..1000)
                .map(|_| choose(&mut balancer, &list, ""))
                .collect()
        };
        let (one, other) = (draw(0), draw(1));
        let same = one
            .iter()
            .zip(&other)
            .filter(|(one, other)| one == other)
            .count();
        assert!((130..=270).contains(&same), "{same} of 1000");
        assert_eq!(one, draw(0));
    }

    #[test]
    fn a_fixed_server_is_chosen_wherever_it_stands_and_no_other_in_its_place() {
        let mut balancer = balancer("fixed:chat-2");
        let mut list = List::new(&["chat-1", "chat-2"]);
        assert_eq!(choose(&mut balancer, &list, "alice"), Some(1));
        list.change(&["chat-2", "chat-1"]);
        assert_eq!(choose(&mut balancer, &list, "alice"), Some(0));
        list.change(&["chat-1", "chat-22"]);
        assert_eq!(choose(&mut balancer, &list, "alice"), None);
    }

    #[test]
    fn a_setting_names_the_server_or_nobody_is_chosen() {
        let list = List::new(&["chat-1", "chat-2"]);
        let mut balancer = balancer("setting:room");
        for (value, chosen) in [
            (Some("chat-2"), Some(1)),
            (Some("chat-3"), None),
            (Some(""), None),
            (None, None),
        ] {
            let setting = |key: &str| value.filter(|_| key == "room").map(Cow::Borrowed);
            assert_eq!(
                balancer.choose(&list, "alice", setting),
                chosen,
                "{value:?}"
            );
        }
    }

    #[test]
    fn a_setting_that_is_absent_is_not_hashed() {
        let list = List::new(&["chat-1", "chat-2"]);
        assert_eq!(choose(&mut balancer("hash:room"), &list, "alice"), None);
    }
}
