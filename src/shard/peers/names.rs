//! Addresses of the servers that the list has by name.
//!
//! One look-up at a time asks for all names, whoever waits for it. So strangers cost one thread of the resolver, and keep no
//! server out whose address is known.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::net::{dial, task};
use crate::shard::{Core, Shard};

/// Time after a look-up in which the names are not looked up again.
const FRESH: Duration = Duration::from_secs(2);
/// Time for which an address counts after its look-up: servers do not wait for the next one, which may be slow.
const KEPT: Duration = Duration::from_secs(60);

/// The addresses of the names in a list of servers.
#[derive(Default)]
pub(super) struct NamedHosts {
    /// By name, with the time of the look-up.
    found: RefCell<BTreeMap<String, (Vec<IpAddr>, Instant)>>,
    /// Number of the list whose names were looked up last, and the end of that.
    looked_up: Cell<Option<(u64, Instant)>>,
    is_looking: Cell<bool>,
}

impl NamedHosts {
    /// Returns whether a server of the list has an address by its name.
    pub(super) fn has(&self, core: &Core, caller: IpAddr) -> bool {
        let now = core.time.get().now;
        let found = self.found.borrow();
        let mut kept = found
            .values()
            .filter(|(_, at)| now.saturating_duration_since(*at) < KEPT);
        kept.any(|(addresses, _)| addresses.contains(&caller))
    }

    /// Returns whether the names of a list were looked up a short time ago.
    pub(super) fn are_fresh(&self, core: &Core, generation: u64) -> bool {
        let now = core.time.get().now;
        self.looked_up
            .get()
            .is_some_and(|(of, at)| of == generation && now.saturating_duration_since(at) < FRESH)
    }
}

/// Begins a look-up of all names, unless there is one or was one a short time ago. An address is known as soon as it is
/// found; one of a name that is not found any more is forgotten.
pub(super) fn look_up(shard: &Rc<Shard>) {
    let (core, peers) = (&shard.core, &shard.peers);
    let members = peers.members.borrow().clone();
    let names = &peers.inbound.names;
    if names.are_fresh(core, members.generation()) || names.is_looking.replace(true) {
        return;
    }
    let shard = shard.clone();
    task::spawn(async move {
        let (time, names) = (&shard.core.time, &shard.peers.inbound.names);
        let mut hosts = members.hosts();
        hosts.retain(|host| host.parse::<IpAddr>().is_err());
        names
            .found
            .borrow_mut()
            .retain(|name, _| hosts.contains(&**name));
        for host in hosts {
            let addresses = dial::addresses(host).await.unwrap_or_default();
            let addresses = addresses.iter().map(IpAddr::to_canonical).collect();
            let found = (addresses, time.get().now);
            names.found.borrow_mut().insert(host.to_owned(), found);
        }
        let looked_up = (members.generation(), time.get().now);
        names.looked_up.set(Some(looked_up));
        names.is_looking.set(false);
    })
    .detach();
}
