//! Ports of one cluster, and the connector ids that its tests share.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process;

use super::MASTER;

/// The frontends that servers.json lists; none of them runs unless a test starts it.
pub(crate) const CONNECTORS: [&str; 8] = [
    "connector-1",
    "connector-2",
    "connector-3",
    "connector-4",
    "connector-5",
    "connector-6",
    "connector-7",
    "connector-8",
];

/// The frontends of the reference application; what each is for says `tests/genuine/reference/`.
#[rustfmt::skip]
pub(crate) const REFERENCE: [&str; 12] = [
    "c-plain", "c-hb", "c-dist", "c-dict", "c-crypto", "c-buffer", "c-single", "c-maxc", "c-host",
    "c-tmo", "c-filter", "c-err",
];

/// Ports of one cluster, or of a Redis alone, free when claimed.
///
/// They lie below the range from which the kernel takes ports for outgoing connections, so a port
/// stays free while its server is down. A listener on the first port of the block is the claim:
/// no other test process gets that one, and it ends with this process whatever happens.
pub(crate) struct Ports {
    base: u16,
    _claim: TcpListener,
}

impl Ports {
    const RANGE: std::ops::Range<u16> = 12_000..32_000;
    const BLOCK: u16 = 34;
    /// Offset within the block; 0 is the claim. Behind them come two for each connector.
    const NAMES: [&str; 8] = [
        MASTER, "chat-1", "chat-2", "chat-3", "ghost-1", "entry-1", "entry-2", "redis",
    ];

    pub(crate) fn claim() -> Self {
        let blocks = (Self::RANGE.end - Self::RANGE.start) / Self::BLOCK;
        // Neighbours in process id begin far apart; 37 and the number of blocks have no common factor.
        let first = process::id().wrapping_mul(37) % u32::from(blocks);
        for step in 0..u32::from(blocks) {
            let block = (first + step) % u32::from(blocks);
            let base = Self::RANGE.start + u16::try_from(block).expect("small") * Self::BLOCK;
            let Ok(claim) = TcpListener::bind(loopback(base)) else {
                continue;
            };
            if (base + 1..base + Self::BLOCK).all(is_free) {
                return Self {
                    base,
                    _claim: claim,
                };
            }
        }
        panic!(
            "no {} free ports in a row in {:?}",
            Self::BLOCK,
            Self::RANGE
        );
    }

    /// A port for a test that starts no cluster.
    pub(crate) fn nth(&self, index: u16) -> u16 {
        assert!(index + 1 < Self::BLOCK, "the block has no port {index}");
        self.base + 1 + index
    }

    /// The RPC port of a server; for the master and Redis, the only one.
    pub(crate) fn of(&self, id: &str) -> u16 {
        let fixed = Self::NAMES.iter().position(|known| *known == id);
        let index = fixed.unwrap_or_else(|| Self::NAMES.len() + 2 * connector_index(id));
        self.base + 1 + u16::try_from(index).expect("small")
    }

    /// Where a genuine connector takes clients.
    pub(crate) fn client(&self, connector: &str) -> u16 {
        let index = Self::NAMES.len() + 2 * connector_index(connector) + 1;
        self.base + 1 + u16::try_from(index).expect("small")
    }
}

const _: () = {
    let others = 1 + Ports::NAMES.len();
    assert!(others + 2 * CONNECTORS.len() <= Ports::BLOCK as usize);
    assert!(others + 2 * REFERENCE.len() <= Ports::BLOCK as usize);
};

fn connector_index(id: &str) -> usize {
    let place = |list: &[&str]| list.iter().position(|known| *known == id);
    // A cluster has the ones or the others.
    let index = place(&CONNECTORS).or(place(&REFERENCE));
    index.unwrap_or_else(|| panic!("there is no port for {id}"))
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Whether a server may listen there, on every address, as Pomelo does.
fn is_free(port: u16) -> bool {
    let addresses = [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ];
    addresses.into_iter().all(|address| {
        // A machine without IPv6 fails with another error, and no process uses the port there.
        !TcpListener::bind(address).is_err_and(|e| e.kind() == std::io::ErrorKind::AddrInUse)
    })
}
