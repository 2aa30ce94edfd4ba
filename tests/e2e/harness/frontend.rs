//! A frontend of a cluster: tangelo, or the genuine connector whose place it takes.
//!
//! Tests that take a [`Frontend`] run against both. The genuine one is the reference: what it does
//! not pass is a wrong test.

use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::gateway::{Gateway, Turn};
use crate::harness::peers::{Cluster, Connector, Dialect};
use crate::harness::process::{POLL_INTERVAL, Process};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    WebSocket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tangelo { shards: usize },
    Genuine,
}

impl Kind {
    pub(crate) const TANGELOS: [Self; 2] =
        [Self::Tangelo { shards: 1 }, Self::Tangelo { shards: 4 }];

    pub(crate) fn is_tangelo(self) -> bool {
        matches!(self, Self::Tangelo { .. })
    }

    /// A genuine connector takes no raw TCP: its hybrid listener does not work on Node 20.
    pub(crate) fn transports(self) -> &'static [Transport] {
        match self {
            Self::Tangelo { .. } => &[Transport::Tcp, Transport::WebSocket],
            Self::Genuine => &[Transport::WebSocket],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tangelo { shards } => write!(f, "tangelo on {shards} shards"),
            Self::Genuine => f.write_str("the genuine connector"),
        }
    }
}

/// One more setting, as each kind takes it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Knobs {
    pub(crate) tangelo: &'static [&'static str],
    pub(crate) genuine: &'static [&'static str],
}

/// A running frontend, known to every backend. Dropping it kills it and gives its id back.
pub(crate) struct Frontend<'a> {
    kind: Kind,
    program: Program,
    address: SocketAddr,
    // Last: the id is free when its process is gone.
    connector: Connector<'a>,
    cluster: &'a Cluster,
}

enum Program {
    Tangelo(Gateway),
    Genuine { process: Process, _turn: Turn },
}

impl<'a> Frontend<'a> {
    /// Starts it and waits until every backend knows it.
    pub(crate) fn start(cluster: &'a Cluster, kind: Kind, knobs: Knobs) -> Self {
        let mut frontend = Self::listening(cluster, kind, knobs);
        frontend.wait_until_joined();
        frontend
    }

    /// Starts it and waits until it says that it listens for clients.
    pub(crate) fn listening(cluster: &'a Cluster, kind: Kind, knobs: Knobs) -> Self {
        let connector = cluster.take_connector();
        let id = connector.id();
        let (program, address) = match kind {
            Kind::Tangelo { shards } => {
                let shards = shards.to_string();
                let dialect = cluster.dialect().name();
                let own = [
                    "--app-dir",
                    cluster.app_dir(),
                    "--id",
                    id,
                    "--dialect",
                    dialect,
                    "--shards",
                    &shards,
                ];
                let args: Vec<&str> = own.iter().chain(knobs.tangelo).copied().collect();
                let gateway = Gateway::start(&args);
                let address = gateway.address();
                (Program::Tangelo(gateway), address)
            }
            Kind::Genuine => {
                let _turn = Turn::shared();
                let (process, address) = cluster.start_connector(id, knobs.genuine);
                (Program::Genuine { process, _turn }, address)
            }
        };
        Self {
            kind,
            program,
            address,
            connector,
            cluster,
        }
    }

    fn wait_until_joined(&mut self) {
        let deadline = Instant::now() + HANG_GUARD;
        while !self.cluster.is_known(self.id()) {
            let ended = match &mut self.program {
                Program::Tangelo(gateway) => gateway.has_exited(),
                Program::Genuine { process, .. } => process.has_exited().is_some(),
            };
            let (kind, id) = (self.kind, self.id());
            assert!(!ended, "{kind} ends before it is a member, as {id}");
            let late = Instant::now() >= deadline;
            assert!(
                !late,
                "within {HANG_GUARD:?} no backend knows {kind} as {id}"
            );
            thread::sleep(2 * POLL_INTERVAL);
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.cluster.dialect()
    }

    pub(crate) fn id(&self) -> &'static str {
        self.connector.id()
    }

    pub(crate) fn pid(&self) -> u32 {
        match &self.program {
            Program::Tangelo(gateway) => gateway.pid(),
            Program::Genuine { process, .. } => process.pid(),
        }
    }

    /// Where it serves clients.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves the backends.
    pub(crate) fn rpc_address(&self) -> SocketAddr {
        self.cluster.rpc_address(self.id())
    }

    /// A client that has not yet shaken hands.
    pub(crate) fn connect(&self, transport: Transport) -> Client {
        match transport {
            Transport::Tcp => Client::tcp(self.address),
            Transport::WebSocket => Client::websocket(self.address),
        }
    }

    /// A client that has shaken hands.
    pub(crate) fn client(&self, transport: Transport) -> Client {
        self.connect(transport).open()
    }

    /// The gateway, if it is one.
    pub(crate) fn gateway(&mut self) -> Option<&mut Gateway> {
        match &mut self.program {
            Program::Tangelo(gateway) => Some(gateway),
            Program::Genuine { .. } => None,
        }
    }

    /// SIGTERM, and no waiting.
    pub(crate) fn terminate(&mut self) {
        match &mut self.program {
            Program::Tangelo(gateway) => gateway.terminate(),
            Program::Genuine { process, .. } => process.signal("TERM"),
        }
    }

    /// Its exit code once it has ended by itself (`None` when a signal ended it).
    pub(crate) fn wait_exit(&mut self) -> Option<i32> {
        match &mut self.program {
            Program::Tangelo(gateway) => gateway.wait_exit(),
            Program::Genuine { process, .. } => {
                let ended = process.wait_exit(HANG_GUARD);
                ended.expect("a genuine connector stops").code()
            }
        }
    }
}

impl Drop for Frontend<'_> {
    fn drop(&mut self) {
        if let Program::Genuine { process, .. } = &self.program
            && thread::panicking()
        {
            eprint!("{}", process.transcript());
        }
    }
}
