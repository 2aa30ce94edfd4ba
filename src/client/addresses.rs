//! The addresses of clients: the connections and the rate of each address, where a limit is set.
//!
//! The table is one for the process. A connection locks a part of it when it begins and when it ends. A read adds to the
//! use of its address by one atomic operation, so a rate is exact however many shards have clients of the address.
//! An IPv6 address counts by its first 64 bits, which one customer of a provider has.
//!
//! **Bound**: an entry for each address with a connection, and [`ADDRESSES_KEPT_MAX`] for addresses without one whose rate
//! is still used: a client that connects again has no new burst.
//!
//! **Where to start reading**: [`Addresses::enter`].

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
#[allow(
    clippy::disallowed_types,
    reason = "locked only when a connection begins and ends, and only where a limit is set"
)]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use foldhash::quality::RandomState;

use super::rate::{RateVerdict, ReadRate, SharedUse};
use crate::config;
use crate::error::CloseReason;
use crate::limits::ADDRESSES_KEPT_MAX;

/// Parts of the table, each with a lock of its own.
const PARTS: usize = 64;
/// Kept addresses that are looked at for each connection that begins or ends.
const LOOKS: usize = 2;

/// The addresses of all clients of a process.
#[derive(Debug)]
pub struct Addresses {
    connections_max: usize,
    rate: Option<ReadRate>,
    /// The times of addresses count from here.
    begin: Instant,
    hasher: RandomState,
    #[allow(clippy::disallowed_types, reason = "as above")]
    parts: Box<[Mutex<Part>]>,
}

/// An address with clients.
#[derive(Debug)]
pub struct AddressUse {
    network: IpAddr,
    used: SharedUse,
    /// Begin of the time over the rate, in nanoseconds; 0 for none.
    over_since: AtomicU64,
}

#[derive(Debug, Default)]
struct Part {
    known: HashMap<IpAddr, Entry>,
    /// Addresses that had no connection left, but had used their rate.
    kept: VecDeque<IpAddr>,
}

#[derive(Debug)]
struct Entry {
    connections: usize,
    /// It is among the kept ones.
    is_kept: bool,
    address: Arc<AddressUse>,
}

impl Addresses {
    /// Reads the limits from the client options; `None` without one.
    pub fn new(client: &config::Client, now: Instant) -> Option<Self> {
        let rate = ReadRate::of_address(client);
        if rate.is_none() && client.address_connections_max.is_none() {
            return None;
        }
        Some(Self {
            connections_max: client.address_connections_max.unwrap_or(usize::MAX),
            rate,
            begin: now,
            hasher: RandomState::default(),
            parts: (0..PARTS).map(|_| Default::default()).collect(),
        })
    }

    /// Counts one more connection of an address; `None` where it has too many.
    pub fn enter(&self, address: IpAddr, now: Instant) -> Option<Arc<AddressUse>> {
        let network = network_of(address);
        let now = self.since_begin(now);
        let mut part = self.part(network);
        part.forget_restored(now);
        let entry = part.known.entry(network).or_insert_with(|| Entry {
            connections: 0,
            is_kept: false,
            address: Arc::new(AddressUse {
                network,
                used: SharedUse::default(),
                over_since: AtomicU64::default(),
            }),
        });
        if entry.connections >= self.connections_max {
            return None;
        }
        entry.connections += 1;
        Some(entry.address.clone())
    }

    /// Counts one less. Returns false if the address has used its rate and is forgotten all the same, because too many
    /// are kept.
    pub fn leave(&self, address: &AddressUse, now: Instant) -> bool {
        let now = self.since_begin(now);
        let mut part = self.part(address.network);
        part.forget_restored(now);
        let is_full = part.kept.len() >= ADDRESSES_KEPT_MAX / PARTS;
        let Some(entry) = part.known.get_mut(&address.network) else {
            debug_assert!(false, "an address with a connection is forgotten");
            return true;
        };
        entry.connections -= 1;
        if entry.connections > 0 || entry.is_kept {
            return true;
        }
        let is_used = address.used.is_used(now);
        if is_used && !is_full {
            entry.is_kept = true;
            part.kept.push_back(address.network);
        } else {
            part.known.remove(&address.network);
        }
        !(is_used && is_full)
    }

    /// Charges a read to its address. Of an address that is over its rate for too long, one connection is closed: the one
    /// that sent last. Then its time begins again.
    pub fn charge(
        &self,
        address: &AddressUse,
        now: Instant,
        messages: usize,
        bytes: usize,
    ) -> RateVerdict {
        let Some(rate) = &self.rate else {
            return RateVerdict::Within;
        };
        let now = self.since_begin(now);
        let cost = rate.cost(messages, bytes);
        let used = rate.used(address.used.add(now, cost), cost);
        if used.is_calm {
            address.over_since.store(0, Ordering::Relaxed);
        }
        if !used.is_over {
            return RateVerdict::Within;
        }
        let now_nanos = (now.as_nanos() as u64).max(1);
        let begin_again = |since| {
            let (over_since, order) = (&address.over_since, Ordering::Relaxed);
            over_since.compare_exchange(since, now_nanos, order, order)
        };
        let since = begin_again(0).err().unwrap_or(now_nanos);
        let over_for = Duration::from_nanos(now_nanos.saturating_sub(since));
        if rate.is_excess(over_for) && begin_again(since).is_ok() {
            return RateVerdict::Excess(CloseReason::AddressRate);
        }
        RateVerdict::Pause(rate.pause(used))
    }

    fn since_begin(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begin)
    }

    fn part(&self, network: IpAddr) -> MutexGuard<'_, Part> {
        let part = self.hasher.hash_one(network) as usize % PARTS;
        let part = self.parts[part].lock();
        part.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// Forgets kept addresses that have their whole rate again.
    fn forget_restored(&mut self, now: Duration) {
        for _ in 0..LOOKS {
            let Some(network) = self.kept.pop_front() else {
                return;
            };
            let Some(entry) = self.known.get_mut(&network) else {
                debug_assert!(false, "a kept address is forgotten");
                continue;
            };
            if entry.connections > 0 {
                entry.is_kept = false;
            } else if entry.address.used.is_used(now) {
                self.kept.push_back(network);
            } else {
                self.known.remove(&network);
            }
        }
    }
}

/// Returns the address that counts for an address: an IPv4 address itself, or the first 64 bits of an IPv6 address.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    // The room's functions take the time; its tests may start from the real one.
    #[allow(clippy::disallowed_methods)]
    fn table(client: config::Client) -> (Addresses, Instant) {
        let now = Instant::now();
        let addresses = Addresses::new(&client, now).expect("a limit is set");
        (addresses, now)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn known(addresses: &Addresses) -> usize {
        let parts = addresses.parts.iter();
        parts.map(|part| part.lock().unwrap().known.len()).sum()
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let (_, now) = table(config::Client {
            address_connections_max: Some(1),
            ..config::Client::default()
        });
        assert!(Addresses::new(&config::Client::default(), now).is_none());
    }

    #[test]
    fn one_connection_too_many_of_an_address_is_refused_until_another_one_ends() {
        let (addresses, now) = table(config::Client {
            address_connections_max: Some(2),
            ..config::Client::default()
        });
        for (first, other_form, another) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:0:0:2", "2001:db8:0:1::1"),
        ] {
            let enter = |text| addresses.enter(ip(text), now);
            let places = [first, other_form].map(|text| enter(text).unwrap());
            assert!(enter(first).is_none() && enter(other_form).is_none());
            let of_another = enter(another).unwrap();
            assert!(addresses.leave(&places[0], now));
            let again = enter(other_form).unwrap();
            for place in [&places[1], &again, &of_another] {
                assert!(addresses.leave(place, now));
            }
        }
        assert_eq!(known(&addresses), 0);
    }

    #[test]
    fn the_connections_of_an_address_share_a_rate_that_outlives_them() {
        let (addresses, begin) = table(config::Client {
            address_messages_per_second: Some(100),
            rate_burst: 2 * SECOND,
            ..config::Client::default()
        });
        let first = addresses.enter(ip("192.0.2.1"), begin).unwrap();
        let charge = |address: &AddressUse, now| addresses.charge(address, now, 150, 9999);
        assert_eq!(charge(&first, begin), RateVerdict::Within);
        // 3 s are used of 2 s; the next read is when an eighth of these 2 s is there again.
        let over = RateVerdict::Pause(1250 * SECOND / 1000);
        assert_eq!(charge(&first, begin), over);
        assert!(addresses.leave(&first, begin));
        let second = addresses.enter(ip("192.0.2.1"), begin + SECOND).unwrap();
        assert!(matches!(
            charge(&second, begin + SECOND),
            RateVerdict::Pause(_)
        ));
        let other = addresses.enter(ip("192.0.2.2"), begin).unwrap();
        assert_eq!(charge(&other, begin), RateVerdict::Within);
        for place in [second, other] {
            assert!(addresses.leave(&place, begin + SECOND));
        }
        // Later connections make the table forget them, when they come into the same part of it.
        for network in 0..=255 {
            for host in 0..=255 {
                let address = IpAddr::from([198, 51, network, host]);
                let place = addresses.enter(address, begin + 60 * SECOND).unwrap();
                assert!(addresses.leave(&place, begin + 60 * SECOND));
            }
            if known(&addresses) == 0 {
                return;
            }
        }
        panic!("{} addresses are known", known(&addresses));
    }

    #[test]
    fn an_address_over_its_rate_loses_a_connection_each_ten_seconds() {
        let (addresses, begin) = table(config::Client {
            address_messages_per_second: Some(100),
            ..config::Client::default()
        });
        let address = addresses.enter(ip("192.0.2.1"), begin).unwrap();
        let mut closed = Vec::new();
        for tenth in 0..350 {
            let now = begin + tenth * SECOND / 10;
            // Twice the rate, then a calm time.
            let messages = if (250..300).contains(&tenth) { 0 } else { 20 };
            if addresses.charge(&address, now, messages, 0)
                == RateVerdict::Excess(CloseReason::AddressRate)
            {
                closed.push(tenth / 10);
            }
        }
        // The burst lasts for 2 s. The time over the rate outlasts the calm time: its debt is 25 s.
        assert_eq!(closed, [11, 21, 31]);
    }

    #[test]
    fn too_many_kept_addresses_are_forgotten_and_that_is_said() {
        let (addresses, now) = table(config::Client {
            address_messages_per_second: Some(1),
            ..config::Client::default()
        });
        let mut forgotten = 0;
        let more = 10_000;
        for host in 0..(ADDRESSES_KEPT_MAX + more) as u32 {
            let place = addresses.enter(host.to_be_bytes().into(), now).unwrap();
            addresses.charge(&place, now, 1, 0);
            forgotten += usize::from(!addresses.leave(&place, now));
        }
        assert!((more..2 * more).contains(&forgotten), "{forgotten}");
        assert!(known(&addresses) <= ADDRESSES_KEPT_MAX);
    }
}
