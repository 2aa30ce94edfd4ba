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
use super::silent::Place;
use super::tls;
use crate::client::ClientMachine;
use crate::client::heartbeat::LINGER;
use crate::client::listener::{ListenerRules, Opener};
use crate::client::rate::{AcceptRate, RateVerdict};
use crate::config::TlsMode;
use crate::error::{CloseReason, Fault};
use crate::ids::Sid;
use crate::limits::{MEMORY_CLOSE_BYTES_MIN, READ_TURN_MAX};
use crate::metrics::Counter;
use crate::net::clock;
use crate::net::drive::{self, End, Pause, Receiver, SLICE_UNITS};
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
    if let Some((_, acceptors)) = &shard.core.tls
        && socket.tls().is_some()
    {
        let serving = tls::serve(shard.clone(), socket, sid, mode, acceptors.clone());
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

/// Returns the reason to close a client whose bytes have ended.
pub(super) fn reason_of(end: &End) -> CloseReason {
    match end {
        End::Failed => CloseReason::Socket,
        End::Eof | End::Enough => CloseReason::Left,
    }
}

/// Pauses a reader by the time of the shard, which then stays awake. It looks whether its client is closed meanwhile.
#[cold]
fn pause(shard: &Rc<Shard>, sid: Sid, time: Duration) -> Pause {
    let shard = shard.clone();
    Box::pin(async move {
        let mut left = time;
        while !left.is_zero() && shard.clients.is_open(sid) {
            let part = left.min(LINGER);
            shard.core.timeout(part).await;
            left -= part;
        }
    })
}

/// Lets the other connections run when a turn lasts too long.
fn yield_late(shard: &Shard) -> Option<Pause> {
    let turn = clock::now().saturating_duration_since(shard.core.looked.get());
    (turn > READ_TURN_MAX).then(|| -> Pause { Box::pin(clock::yield_to_reactor()) })
}

/// Acts on the bytes of one client.
pub(super) struct ClientReceiver<'a> {
    pub(super) shard: &'a Rc<Shard>,
    pub(super) sid: Sid,
}

impl Receiver for ClientReceiver<'_> {
    fn finished(&self, units: usize, bytes: usize, rest: &[u8]) -> Option<Pause> {
        let Self { shard, sid } = self;
        // Here too, because one turn reads from many clients, and answers them.
        if shard.core.memory_has_grown() {
            shard.look_at_memory();
        }
        match shard.clients.read(&shard.core, *sid, units, bytes, rest) {
            // The messages of a slice may cost more time than their number says.
            RateVerdict::Within if units >= SLICE_UNITS => yield_late(shard),
            RateVerdict::Within => None,
            RateVerdict::Pause(time) => Some(pause(shard, *sid, time)),
            RateVerdict::Excess(reason) => {
                shard.react(Fault::Client(*sid, reason));
                None
            }
        }
    }

    fn waits(&self, bytes: usize) {
        let Shard { core, clients, .. } = &**self.shard;
        clients.package_waits(core, self.sid, bytes);
        if bytes >= MEMORY_CLOSE_BYTES_MIN
            && core.memory.level_now() >= MemoryLevel::CloseUnready
            && clients.is_unready(self.sid)
        {
            // One that still grows goes at once: shards that wait for a CPU cannot close theirs.
            self.shard.close(self.sid, CloseReason::Memory, None);
        }
    }

    /// Those that were closed for their memory give it back before this one takes more.
    fn is_memory_short(&self) -> bool {
        self.shard.core.memory.level() > MemoryLevel::Normal
    }

    fn receive(&self, input: &mut [u8]) -> Result<Option<usize>, End> {
        Ok(connection::receive(self.shard, self.sid, input))
    }
}
