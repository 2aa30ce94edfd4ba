//! The probe of the port for clients: connections from this process, which the shards accept and close.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::TcpSocket;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::net::reachable;
use crate::shard::probe::Probe;

/// Time for which a result counts.
const FRESH: Duration = Duration::from_secs(2);
/// Longest wait for the shards.
const PATIENCE: Duration = Duration::from_secs(1);

/// The probe and its last result.
///
/// The kernel chooses the shard of a connection, so a round has as many connections as there are shards, one after the
/// other. One that no shard accepts stays: the next round waits for it, and the port stays red meanwhile.
#[derive(Debug)]
pub(crate) struct Prober {
    /// `None` without a listener that has an address: its unix sockets are not probed.
    address: Option<SocketAddr>,
    shards: usize,
    probe: Arc<Probe>,
    round: Mutex<Round>,
    fault: ArcSwapOption<String>,
}

#[derive(Debug, Default)]
struct Round {
    looked: Option<Instant>,
    running: Option<JoinHandle<io::Result<()>>>,
}

impl Prober {
    /// Makes the probe of the port for clients at `address`, that of the first listener that has one.
    pub(crate) fn new(address: Option<SocketAddr>, shards: usize, probe: Arc<Probe>) -> Self {
        Self {
            address: address.map(reachable),
            shards,
            probe,
            round: Mutex::default(),
            fault: ArcSwapOption::empty(),
        }
    }

    /// Probes the port, unless the last result still counts. Waits for at most [`PATIENCE`].
    pub(super) async fn run(&self) {
        let Some(address) = self.address else { return };
        let mut round = self.round.lock().await;
        if round.looked.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        let running = round
            .running
            .get_or_insert_with(|| tokio::spawn(connect(address, self.shards, self.probe.clone())));
        let fault = match timeout(PATIENCE, &mut *running).await {
            Err(_) => Some("a connection waits for a shard to take it".to_owned()),
            Ok(ended) => {
                round.running = None;
                let result = ended.unwrap_or_else(|error| Err(error.into()));
                result.err().map(|error| error.to_string())
            }
        };
        let fault = fault.map(|fault| format!("the port for clients {address}: {fault}"));
        self.fault.store(fault.map(Arc::new));
        round.looked = Some(Instant::now());
    }

    /// Returns the fault that the last round has found.
    pub(super) fn fault(&self) -> Option<String> {
        self.fault.load().as_deref().cloned()
    }
}

/// Opens one connection after the other, and waits until a shard closes it.
async fn connect(address: SocketAddr, count: usize, probe: Arc<Probe>) -> io::Result<()> {
    let open = async || {
        let socket = match address.is_ipv4() {
            true => TcpSocket::new_v4(),
            false => TcpSocket::new_v6(),
        }?;
        socket.bind(SocketAddr::new(address.ip(), 0))?;
        probe.announce(Some(socket.local_addr()?));
        // A shard writes nothing, so the socket becomes readable by its end.
        socket.connect(address).await?.readable().await
    };
    let mut result = Ok(());
    for _ in 0..count {
        result = open().await;
        if result.is_err() {
            break;
        }
    }
    probe.announce(None);
    result
}
