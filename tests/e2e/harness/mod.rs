//! The tools of the tests: `process` starts and stops programs; `peers` is a cluster made of them;
//! `gateway` is tangelo itself, `frontend` is tangelo or the genuine connector; `inside` is a gateway in
//! this process; `client` is a player, `canaries` are a hundred of them beside an attack, `browser` a player's browser, `rpc` another server; `pause` is a wait of a handler;
//! `secure` is TLS of a client, `certificates` makes its files; `admin` is the operators' port; `debian` installs programs, `package` the npm package; `ledger` checks the counters of each gateway
//! after its test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

pub(crate) mod admin;
pub(crate) mod browser;
pub(crate) mod bystander;
pub(crate) mod canaries;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod debian;
pub(crate) mod frames;
pub(crate) mod frontend;
pub(crate) mod gateway;
pub(crate) mod inside;
pub(crate) mod ledger;
pub(crate) mod package;
pub(crate) mod pause;
pub(crate) mod peers;
pub(crate) mod process;
#[path = "../../differential/random.rs"]
pub(crate) mod random;
pub(crate) mod rpc;
pub(crate) mod secure;

/// An address that no outgoing connection gets by chance, nor another test or run of this one.
pub(crate) fn free_address() -> SocketAddr {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = 30_000 + (std::process::id() % 2_000) as u16;
    let next = || first + TRIED.fetch_add(1, Ordering::Relaxed);
    let mut addresses = std::iter::repeat_with(|| (Ipv4Addr::LOCALHOST, next()).into()).take(700);
    let free = addresses.find(|address| TcpListener::bind(address).is_ok());
    free.expect("a free port")
}

/// A path for a unix socket that no other gateway has. It is short, because the kernel takes some 100 bytes.
pub(crate) struct SocketPath {
    path: PathBuf,
    _folder: TempDir,
}

impl SocketPath {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self {
            path: folder.path().join("socket"),
            _folder: folder,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path as a configuration has it.
    pub(crate) fn address(&self) -> String {
        format!("unix:{}", self.path.display())
    }
}
