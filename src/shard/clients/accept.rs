//! From a listening socket to connections.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Clients;
use super::connection::{
    self, Connection, refused_for_address, refused_for_its_number, refused_for_memory,
    refused_for_number,
};
use super::receiver::{ClientReceiver, reason_of};
use super::silent::Place;
use super::tls;
use crate::client::ClientMachine;
use crate::client::listener::{ListenerRules, Opener};
use crate::client::rate::AcceptRate;
use crate::config::TlsMode;
use crate::error::CloseReason;
use crate::ids::Sid;
use crate::metrics::Counter;
use crate::net::clock;
use crate::net::drive;
use crate::net::memory::MemoryListener;
use crate::net::socket::{Listener, Socket};
use crate::net::task;
use crate::net::unix_socket::SocketFile;
use crate::shard::memory::MemoryLevel;
use crate::shard::probe::Probe;
use crate::shard::{Core, Shard, SocketSeed};

/// Pause after an accept call that failed because descriptors or memory were missing.
const PAUSE: Duration = Duration::from_millis(50);
/// Greatest size of the future that serves a client. With 48 bytes of glommio it fills a block of 160 bytes, one for
/// each session.
const SERVING_BYTES: usize = 112;
/// Connections accepted before other tasks run.
const BUDGET: usize = 64;

/// A listening socket for clients, and the rules for its connections.
pub(in crate::shard) struct ClientSocket {
    /// The file goes before its socket closes.
    _file: Option<Arc<SocketFile>>,
    socket: Listener,
    rules: Arc<ListenerRules>,
}

impl ClientSocket {
    /// Watches the socket of a seed; the process ends where that cannot be done.
    pub(in crate::shard) fn watched(core: &Core, seed: SocketSeed) -> Option<Self> {
        Some(Self {
            _file: seed.file,
            socket: core.listen(seed.socket)?,
            rules: seed.rules,
        })
    }

    /// Takes connections in memory, by the rules of the first listener.
    pub(in crate::shard) fn in_memory(core: &Core, queue: &Rc<MemoryListener>) -> Self {
        let listeners = core.config.client_listeners();
        Self {
            _file: None,
            socket: Listener::Memory(queue.clone()),
            rules: Arc::new(ListenerRules::new(&listeners[0])),
        }
    }
}

/// Accepts connections for ever, at most at `rate`.
pub(in crate::shard) async fn run(
    shard: Rc<Shard>,
    listener: ClientSocket,
    probe: Arc<Probe>,
    rate: Option<Arc<AcceptRate>>,
) {
    let (core, clients) = (&shard.core, &shard.clients);
    let mut budget = BUDGET;
    loop {
        match listener.socket.accept().await {
            Ok((_, address)) if probe.is_from(address) => {}
            Ok((socket, address)) => {
                shard.cut_silent(Place::Socket);
                let socket = match &core.tls {
                    Some((buffers, _)) if listener.rules.tls != TlsMode::Off => {
                        socket.with_tls(buffers)
                    }
                    _ => socket,
                };
                if let Some((sid, socket)) = clients.admit(core, &listener.rules, socket, address) {
                    spawn(&shard, socket, sid, listener.rules.tls);
                }
                if let Some(rate) = &rate
                    && let Some(pause) = rate.accepted(clock::now())
                {
                    core.counters().add(Counter::AcceptPauses, 1);
                    clock::sleep(pause).await;
                }
            }
            // The client was gone before its turn came.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                core.counters().add(Counter::AcceptErrors, 1);
                tracing::warn!(%error, "accept failed");
                clock::sleep(PAUSE).await;
            }
        }
        budget -= 1;
        if budget == 0 {
            clock::yield_to_reactor().await;
            budget = BUDGET;
        }
    }
}

impl Clients {
    /// Gives a connection its session id, if it may stay.
    fn admit(
        &self,
        core: &Core,
        listener: &ListenerRules,
        socket: Socket,
        address: SocketAddr,
    ) -> Option<(Sid, Rc<Socket>)> {
        core.counters().add(Counter::Accepted, 1);
        if core.memory.level() >= MemoryLevel::RefuseNew {
            refused_for_memory(&address.to_string());
            core.counters().closed(CloseReason::Memory);
            return None;
        }
        let opener = Opener::of(listener, &self.rules.proxies.borrow(), address.ip());
        // Behind a proxy the address of the client is not known yet.
        if opener == Opener::Client && self.refuses_address(address) {
            refused_for_address(&address.to_string());
            core.counters().closed(CloseReason::Blacklisted);
            return None;
        }
        let Some(use_of_address) = self.enter_address(core, address) else {
            refused_for_its_number(&address.to_string());
            core.counters().closed(CloseReason::AddressConnections);
            return None;
        };
        if !self.process_sockets.enter() {
            self.leave_address(core, use_of_address);
            return self.refuse(core, address);
        }
        let socket = Rc::new(socket);
        let connection = Connection::new(
            ClientMachine::new(listener, opener),
            socket.clone(),
            self.anonymous.clone(),
            core.time.get().now,
        );
        let sid = self.connections.borrow_mut().insert(|_| connection);
        let Some(sid) = sid else {
            self.leave_address(core, use_of_address);
            return self.refuse(core, address);
        };
        self.set_address_use(sid, use_of_address);
        core.counters().add(Counter::Connections, 1);
        self.begin(core, sid);
        self.begin_silence(sid);
        Some((sid, socket))
    }

    /// Turns a client away that was counted as one more than there may be.
    fn refuse<T>(&self, core: &Core, address: SocketAddr) -> Option<T> {
        self.process_sockets.leave();
        refused_for_number(&address.to_string());
        core.counters().closed(CloseReason::MaxConnections);
        None
    }
}

fn spawn(shard: &Rc<Shard>, socket: Rc<Socket>, sid: Sid, mode: TlsMode) {
    if let Some((_, settings)) = &shard.core.tls
        && socket.tls().is_some()
    {
        let serving = tls::serve(shard.clone(), socket, sid, mode, settings.clone());
        task::spawn(serving).detach();
        return;
    }
    let serving = serve(shard.clone(), socket, sid);
    debug_assert!(size_of_val(&serving) <= SERVING_BYTES);
    task::spawn(serving).detach();
}

/// Serves one connection to its end.
#[allow(
    clippy::manual_async_fn,
    reason = "each client has this future, and an async fn would hold its arguments twice"
)]
fn serve(shard: Rc<Shard>, socket: Rc<Socket>, sid: Sid) -> impl Future<Output = ()> {
    async move {
        let receiver = ClientReceiver { shard: &shard, sid };
        let end = drive::read(&socket, &shard.core.read_buffer, receiver).await;
        connection::end(&shard, sid, reason_of(&end));
    }
}
