//! The limits of an address, for the connections of a shard: where an address becomes known, where its use is charged, and
//! where a connection gives its place back.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::client::ClientState;
use crate::client::addresses::{AddressUse, Addresses};
use crate::client::rate::RateVerdict;
use crate::error::CloseReason;
use crate::ids::Sid;
use crate::metrics::Counter;
use crate::net::UNIX_CLIENT;
use crate::shard::Core;
use crate::shard::clients::Clients;

/// The use of an address; `None` where addresses have no limit, or for that of a trusted proxy.
pub(in crate::shard::clients) type MaybeUse = Option<Arc<AddressUse>>;

impl Clients {
    /// Counts one more connection of an address; `None` where it has too many.
    pub(in crate::shard::clients) fn enter_address(
        &self,
        core: &Core,
        address: SocketAddr,
    ) -> Option<MaybeUse> {
        let Some(addresses) = &self.addresses else {
            return Some(None);
        };
        // Its clients would be one.
        if address == UNIX_CLIENT || self.rules.proxies.borrow().trusts(address.ip()) {
            return Some(None);
        }
        addresses.enter(address.ip(), core.ticked.get()).map(Some)
    }

    /// Counts one less.
    pub(in crate::shard::clients) fn leave_address(&self, core: &Core, address: MaybeUse) {
        if let Some(addresses) = &self.addresses
            && let Some(address) = address
            && !addresses.leave(&address, core.ticked.get())
        {
            core.counters().add(Counter::AddressesForgotten, 1);
        }
    }

    /// Sets the use that a connection is charged to.
    pub(in crate::shard::clients) fn set_address_use(&self, sid: Sid, address: MaybeUse) {
        if address.is_some() {
            self.connection(sid, |connection| connection.extras().address_use = address);
        }
    }

    /// Counts a connection whose address a proxy has told; false where that address has too many.
    pub(in crate::shard) fn count_told_address(
        &self,
        core: &Core,
        sid: Sid,
        address: Option<SocketAddr>,
    ) -> bool {
        let Some(address) = address else {
            return true;
        };
        let entered = self.enter_address(core, address);
        if entered.is_none() {
            refused_for_its_number(&address.to_string());
        }
        let fits = entered.is_some();
        self.set_address_use(sid, entered.flatten());
        fits
    }

    /// Charges a read of some messages and bytes to the address of its session. Returns the verdict on both. Nobody is
    /// late because of the pause.
    #[inline(never)]
    pub(super) fn charge_address(
        &self,
        core: &Core,
        sid: Sid,
        addresses: &Addresses,
        (messages, bytes): (usize, usize),
        of_session: RateVerdict,
    ) -> RateVerdict {
        let verdict = self.connection(sid, |connection| {
            let address = connection.extras.as_ref()?.address_use.as_ref()?;
            let verdict = addresses.charge(address, core.ticked.get(), messages, bytes);
            if connection.state() == ClientState::Closed {
                return None;
            }
            if let RateVerdict::Pause(pause) = verdict {
                core.counters().add(Counter::AddressPauses, 1);
                connection.put_off(pause);
                // Others of its address may be at fault.
                connection.put_off_step(pause);
            }
            Some(verdict)
        });
        match (of_session, verdict.flatten()) {
            (_, None | Some(RateVerdict::Within)) => of_session,
            (RateVerdict::Pause(session), Some(RateVerdict::Pause(address))) => {
                RateVerdict::Pause(session.max(address))
            }
            (RateVerdict::Excess(_), _) => of_session,
            (_, Some(verdict)) => verdict,
        }
    }
}

/// Logs that a client is closed because of the number of connections of its address.
pub(in crate::shard::clients) fn refused_for_its_number(address: &str) {
    let reason = CloseReason::AddressConnections.name();
    tracing::info!(
        address,
        reason,
        "a client is refused: its address has client.address_connections_max connections"
    );
}
