//! A shard: the connections, handlers and links of one core, and the tasks that run them.
//!
//! ```text
//!  accept ──▶ read task per client ──▶ dispatch ──▶ handler
//!                                        │  ▲
//!                        link tasks ◀────┘  └──── inbox of the mesh
//!                                        │
//!                     end of turn: flush dirty outboxes, link queues, mesh batches
//! ```
//!
//! | part | its subject |
//! |---|---|
//! | `clients` | connections of game clients, from the accepted socket to the end |
//! | `peers` | other servers: calls to them, links, their connections to us, the registry |
//! | `app` | the application: handlers, filters, tasks, events |
//! | `coordinator` | pending requests about sessions; on shard 0 the index of uids |
//! | [`Core`] | identity, time, memory and queues, which every part uses |
//!
//! A part has private fields and names no other part: it returns what happened. `dispatch` alone leads from one part
//! to another.
//!
//! **Invariants**: a shard shares only its counters, the level of memory, the mesh and the limits of addresses with other
//! shards; no borrow of a table lives across a call into a handler; no pending task is dropped before the shard ends.
//!
//! **Absent**: decoding and encoding.
//!
//! **Where to start reading**: [`run`], then `dispatch/mod.rs`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::task::Poll;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_lite::future;

use crate::checked::CheckedConfig;
use crate::client::addresses::Addresses;
use crate::client::coder::Protos;
use crate::client::host_filter::HostFilter;
use crate::client::listener::ListenerRules;
use crate::client::rate::AcceptRate;
use crate::error::{CloseReason, Error, Fault};
use crate::handler::Router;
use crate::handler::clock::Alarms;
use crate::ids::{ShardId, Sid};
use crate::limits::SESSIONS_PER_SHARD_MAX;
use crate::metrics::{Counters, Measure};
use crate::net::drive::ReadBuffer;
use crate::net::socket::Listener;
use crate::net::task;
use crate::net::tls::TlsBuffers;
use crate::net::unix_socket::SocketFile;
use crate::net::{Network, clock};
use crate::push::FlushSchedule;
use crate::route::balance::Random;
use crate::session::{Identity, Uid};
use crate::time::ShardTime;
use crate::tls::TlsSettings;
use crate::wire::json;
use crate::wire::pomelo::rpc;

mod app;
mod clients;
mod context;
mod coordinator;
mod dispatch;
mod drain;
mod latest;
pub mod memory;
pub mod mesh;
pub mod operator;
mod origin;
pub mod parcel;
mod peers;
pub mod probe;
mod tick;
mod tls;
pub mod trace;
mod turn;

pub use app::activity;
pub use clients::blacklist;
pub use drain::{StopRequest, Stopper};
pub use peers::callers_max;

use activity::{Activity, Alive};
use app::{Application, lifecycle};
use clients::accept::{self, ClientSocket};
use clients::{Clients, connection};
use coordinator::{COORDINATOR, Coordinator};
use latest::LatestConfig;
use memory::{Memory, ProcessMemory};
use mesh::{Inbox, Mesh, MeshWait, Outlets};
use parcel::Parcel;
use peers::{Peers, inbound, registry, writer};
use probe::Probe;
use trace::Traces;
use turn::Turn;

/// The ingredients of a shard, before it has a thread.
pub struct Seed {
    /// Its number.
    pub id: ShardId,
    /// Number of shards in the process.
    pub shards: usize,
    /// The name of the process for delegates.
    pub process: Arc<str>,
    /// Configuration of the process at its start.
    pub(crate) config: Arc<CheckedConfig>,
    /// The configuration with the changes since then.
    pub(crate) latest: Arc<ArcSwap<CheckedConfig>>,
    /// Its listening sockets for clients, one for each listener.
    pub(crate) listeners: Vec<SocketSeed>,
    /// The listening sockets for peers, without and with TLS; only the coordinator has them.
    pub rpc_listeners: [Option<std::net::TcpListener>; 2],
    /// Queue of batches from other shards.
    pub inbox: Inbox,
    /// Queues of the other shards.
    pub outlets: Outlets,
    /// Counters of all shards.
    pub counters: Arc<[Counters]>,
    /// Its activity, for the watchdog.
    pub activity: Arc<Activity>,
    /// Makes its handlers.
    pub make_router: Arc<dyn Fn(ShardId) -> Router + Send + Sync>,
    /// The settings of TLS, where a listener takes it.
    pub(crate) tls: Option<Arc<TlsSettings>>,
    /// The ledger of memory.
    pub memory: Arc<ProcessMemory>,
    /// Largest number of connections that other servers open.
    pub callers_max: usize,
    /// The probe of its listening socket.
    pub probe: Arc<Probe>,
    /// Number of client sockets in the process.
    pub sockets: Arc<Gauge>,
    /// Number of clients that have sent bytes: `client.max_connections` limits it.
    pub connections: Arc<Gauge>,
    /// Number of client sockets without a whole handshake.
    pub silent: Arc<Gauge>,
    /// The addresses of clients, where a limit for them is set.
    pub addresses: Option<Arc<Addresses>>,
    /// The rate at which all shards accept clients, where it has a limit.
    pub accept_rate: Option<Arc<AcceptRate>>,
    /// Set when the process must end; the doorbell is rung too.
    pub stop: Arc<StopRequest>,
    /// Set when the shard must read `client.blacklist_file` again, changed or not.
    pub reread: Arc<AtomicBool>,
    /// Dropped when the shard accepts clients, or has failed to.
    pub starting: Sender<Infallible>,
    /// Gets the number of the other servers, when this server is part of its cluster.
    pub joined: Sender<usize>,
    /// Dropped when its application has ended.
    pub at_work: Arc<()>,
    /// Ends the process, with an error or without.
    pub stopper: Arc<dyn Fn(Option<Error>) + Send + Sync>,
    /// The blacklist at the start.
    pub host_filter: Arc<HostFilter>,
    /// Protos of both directions; empty without `client.use_protobuf`.
    pub protos: Arc<Protos>,
    /// Folder of the project's JavaScript handlers for this server's type, if there is one.
    pub javascript_handlers: Option<PathBuf>,
    /// The answer to `GET /`, if there is one.
    pub page: Option<&'static [u8]>,
}

/// A listening socket for clients, before its shard watches it.
#[derive(Debug)]
pub(crate) struct SocketSeed {
    /// The file of a unix socket, which all shards share.
    pub(crate) file: Option<Arc<SocketFile>>,
    pub(crate) socket: OwnedFd,
    /// The rules of its listener.
    pub(crate) rules: Arc<ListenerRules>,
}

/// The number of some things in the process, and its maximum.
#[derive(Debug)]
pub struct Gauge {
    count: AtomicUsize,
    max: AtomicUsize,
}

impl Gauge {
    /// Makes a gauge at 0.
    pub fn new(max: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
        }
    }

    /// Counts one more; false when that is too many. In both cases [`Gauge::leave`] must follow.
    fn enter(&self) -> bool {
        self.count.fetch_add(1, Ordering::AcqRel) < self.max()
    }

    /// Returns the maximum.
    fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Changes the maximum. Those that are more than that stay.
    fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Returns the number.
    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts one less.
    fn leave(&self) {
        let before = self.count.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "somebody left who had not entered");
    }
}

/// One shard: its parts, which never name each other, and what all of them use. Tables are behind cells of their
/// own, so that a handler may come back in.
pub(crate) struct Shard {
    core: Core,
    clients: Clients,
    peers: Peers,
    app: Application,
    /// Boxed: no message passes it.
    coordinator: Box<Coordinator>,
}

/// This server, as other servers know it.
struct Own {
    /// Server id as JSON text, quotes included.
    id_json: String,
    /// The name of the process for delegates.
    process: Arc<str>,
}

/// Identity, time, memory and queues of a shard, for all of its parts.
struct Core {
    id: ShardId,
    shards: usize,
    /// Configuration of the process at its start.
    config: Arc<CheckedConfig>,
    latest: LatestConfig,
    own: Box<Own>,
    counters: Arc<[Counters]>,
    /// Ends the process, with an error or without.
    stop: Arc<dyn Fn(Option<Error>) + Send + Sync>,
    /// Time of the last tick: close enough for timeouts, and free to read.
    time: Cell<ShardTime>,
    /// The clock at that tick.
    ticked: Cell<Instant>,
    /// The clock at the last look at the sockets: close enough for histograms, and free to read.
    looked: Cell<Instant>,
    /// Delay of that tick.
    late: Cell<Duration>,
    /// Calls scheduled by the clock; a pause counts.
    alarms: Alarms,
    /// Calls scheduled by the time of the shard; a pause does not count.
    timeouts: Alarms,
    network: Network,
    read_buffer: ReadBuffer,
    /// Where a listener takes TLS: the buffers of this shard, and the settings of new connections.
    tls: Option<(Rc<TlsBuffers>, Arc<TlsSettings>)>,
    scheduler: RefCell<FlushSchedule>,
    inbox: Inbox,
    mesh: RefCell<Mesh>,
    turn: Turn,
    memory: Box<Memory>,
    traces: Traces,
    /// Tasks that live as long as the shard.
    kept: RefCell<Vec<glommio::Task<()>>>,
}

/// Sessions flushed before others run: a write to a socket is about 9 µs.
const FLUSH_BUDGET: usize = 256;
/// Members of fan-outs that get their package before others run, also where all flushes are for answers.
const FAN_OUT_PART_MIN: usize = FLUSH_BUDGET / 4;
/// Batches taken from the inbox before others run.
const INBOX_BUDGET: usize = 64;
/// Time that a stopping shard waits for last bytes to leave.
const STOP_GRACE: Duration = Duration::from_millis(250);
/// Looks at the sockets after which a stopping shard no longer waits for the ends of connections.
const END_BREATHS_MAX: usize = 1000;

/// Runs a shard until the process is told to stop. Call inside its executor.
pub async fn run(mut seed: Seed, network: Network) {
    let _alive = Alive::new(seed.activity.clone());
    let (sockets, rpc_listeners) = (
        std::mem::take(&mut seed.listeners),
        std::mem::take(&mut seed.rpc_listeners),
    );
    let (stop, stopper) = (seed.stop.clone(), seed.stopper.clone());
    let (starting, at_work) = (seed.starting.clone(), seed.at_work.clone());
    let (reread, joined) = (seed.reread.clone(), seed.joined.clone());
    let (probe, accept_rate) = (seed.probe.clone(), seed.accept_rate.clone());
    let is_stopping = || stop.is_made();
    let shard = match Shard::new(seed, network) {
        Ok(shard) => Rc::new(shard),
        Err(error) => return stopper(Some(error)),
    };
    let core = &shard.core;
    if let Network::Kernel(poller) = &core.network {
        let (poller, shard) = (poller.clone(), shard.clone());
        core.keep(async move {
            let looked = |now, turn| {
                shard.core.looked.set(now);
                shard.core.counters().record_time(Measure::Turn, turn);
            };
            poller.run(|| tick::has_deadline(&shard), looked).await;
        });
    }
    shard.apply_members(peers::configured(&core.config));
    if core.id == COORDINATOR {
        let rpc_listeners = match &core.network {
            Network::Kernel(_) => {
                rpc_listeners.map(|socket| socket.and_then(|socket| core.listen(socket.into())))
            }
            Network::Memory(place) => [Some(Listener::Memory(place.callers.clone())), None],
        };
        for (listener, has_tls) in rpc_listeners.into_iter().zip([false, true]) {
            if let Some(listener) = listener {
                core.keep(inbound::run(shard.clone(), listener, has_tls));
            }
        }
        if let Some(registry) = shard.peers.open_registry(core, joined) {
            core.keep(registry::run(shard.clone(), registry));
        }
        if let Some(path) = core.config.client.blacklist_file.clone() {
            core.keep(blacklist::watch(shard.clone(), path, reread));
        }
        if core.config.delegate_blacklist.is_some() {
            core.keep(blacklist::ask(shard.clone()));
        }
    }
    let sockets: Vec<ClientSocket> = match &core.network {
        Network::Kernel(_) => {
            let watched = |socket| ClientSocket::watched(core, socket);
            sockets.into_iter().filter_map(watched).collect()
        }
        Network::Memory(place) => vec![ClientSocket::in_memory(core, &place.clients)],
    };
    core.keep(flush_turns(shard.clone()));
    core.keep(tick::run(shard.clone()));
    for buffer in 0..shard.clients.flush_intervals().len() {
        core.keep(release_collected(shard.clone(), buffer));
    }
    let stopped = async {
        receive_mesh(&shard, is_stopping).await;
        None
    };
    let context = shard.context();
    let start = async { Some(shard.app.start(core, &context).await) };
    let started = future::or(stopped, start).await;
    let stands = matches!(started, Some(Ok(())));
    let mut accepting = Vec::new();
    if stands {
        let accept = |socket| {
            let (probe, rate) = (probe.clone(), accept_rate.clone());
            task::spawn(accept::run(shard.clone(), socket, probe, rate))
        };
        accepting.extend(sockets.into_iter().map(accept));
        lifecycle::start_tasks(&shard);
    } else if let Some(Err(error)) = started {
        shard.react(Fault::Operator(error));
    }
    drop(starting);
    receive_mesh(&shard, is_stopping).await;
    let is_drain = || stands && stop.is_drain();
    if is_drain() {
        shard.clients.announce_stop();
        let stopped = receive_mesh(&shard, || !is_drain());
        future::or(clock::sleep(core.latest.config().drain.delay), stopped).await;
    }
    shard.clients.stop(match is_drain() {
        true => CloseReason::Drain,
        false => CloseReason::Stopping,
    });
    // Closes the listening sockets: the kernel refuses new clients, and a balancer sends them elsewhere. A balancer
    // that checks the health hears of the stop from the open port.
    if core.config.client.health_path.is_none() {
        cancel(&mut accepting).await;
    }
    let drained_by = clock::now() + core.latest.config().drain.timeout;
    if is_drain() {
        let stopped = receive_mesh(&shard, || !is_drain());
        future::or(drain::close_clients(&shard), stopped).await;
    }
    if stands {
        let mesh = receive_mesh(&shard, || false);
        let (deadline, key) = match is_drain() {
            true => (drained_by, "drain.timeout"),
            false => (
                clock::now() + core.latest.config().stop_timeout,
                "stop_timeout",
            ),
        };
        future::or(lifecycle::stop(&shard, at_work, deadline, key), mesh).await;
    } else {
        drop(at_work);
    }
    cancel(&mut accepting).await;
    registry::leave(&shard);
    inbound::leave(&shard);
    shard.close_everything();
    let mesh = receive_mesh(&shard, || false);
    future::or(clock::sleep(STOP_GRACE), mesh).await;
    shard.end().await;
}

/// Ends tasks.
async fn cancel(tasks: &mut Vec<glommio::Task<()>>) {
    for task in tasks.drain(..) {
        task.cancel().await;
    }
}

impl Shard {
    fn new(seed: Seed, network: Network) -> Result<Self, Error> {
        let app = Application::new(&seed)?;
        if seed.id == COORDINATOR
            && let Some(folder) = &seed.javascript_handlers
        {
            app.warn_of_javascript(&seed.config, folder);
        }
        Ok(Self {
            clients: Clients::new(&seed, app.router()),
            peers: Peers::new(seed.callers_max),
            app,
            coordinator: Box::default(),
            core: Core::new(seed, network),
        })
    }

    /// Ends every task, so that sockets and rings go with the shard.
    async fn end(self: &Rc<Self>) {
        self.clients.shutdown();
        for writer in self.peers.inbound() {
            writer.shutdown();
        }
        // The tasks that read these sockets see their ends.
        for _ in 0..END_BREATHS_MAX {
            if self.clients.is_empty() && self.peers.inbound().is_empty() {
                break;
            }
            clock::yield_to_reactor().await;
        }
        cancel(&mut self.core.kept.take()).await;
        // The last tick saw parts of packages that are gone now.
        self.core.publish_memory();
    }

    /// Receives the batches that are in the inbox now.
    fn receive_waiting_batches(self: &Rc<Self>) {
        // Others may send on meanwhile, without end.
        for _ in 0..self.core.inbox.waiting() {
            let Some(batch) = self.core.inbox.next() else {
                return;
            };
            self.receive_batch(&batch);
            self.core.mesh.borrow_mut().recycle(batch);
        }
    }
}

impl Core {
    fn new(seed: Seed, network: Network) -> Self {
        assert!(seed.id.index() < seed.shards);
        assert!(seed.shards <= seed.counters.len());
        let mut id_json = Vec::new();
        json::write_string(&mut id_json, &seed.config.id);
        let latest = LatestConfig::new(&seed);
        let own = Own {
            id_json: String::from_utf8(id_json).expect("write_string writes UTF-8"),
            process: seed.process,
        };
        let now = clock::now();
        Self {
            id: seed.id,
            shards: seed.shards,
            latest,
            config: seed.config,
            own: Box::new(own),
            counters: seed.counters,
            stop: seed.stopper,
            time: Cell::new(ShardTime::new(now)),
            ticked: Cell::new(now),
            looked: Cell::new(now),
            late: Cell::default(),
            alarms: Alarms::default(),
            timeouts: Alarms::default(),
            network,
            read_buffer: ReadBuffer::default(),
            tls: seed.tls.map(|settings| (TlsBuffers::new(), settings)),
            scheduler: RefCell::default(),
            inbox: seed.inbox,
            mesh: RefCell::new(Mesh::new(seed.outlets)),
            turn: Turn::default(),
            memory: Memory::new(seed.memory).into(),
            traces: Traces::default(),
            kept: RefCell::default(),
        }
    }

    #[inline]
    fn counters(&self) -> &Counters {
        &self.counters[self.id.index()]
    }

    /// Watches a listening socket; the process ends where that cannot be done.
    fn listen(&self, socket: OwnedFd) -> Option<Listener> {
        let Network::Kernel(poller) = &self.network else {
            return None;
        };
        match Listener::new(socket, poller) {
            Ok(listener) => Some(listener),
            Err(error) => {
                let text = format!("cannot watch the listening socket: {error}");
                (self.stop)(Some(Error::Host(text)));
                None
            }
        }
    }

    /// Runs a task until the shard ends.
    fn keep(&self, task: impl Future<Output = ()> + 'static) {
        let task = task::spawn(task);
        self.kept.borrow_mut().push(task);
    }

    /// Returns random numbers that differ between servers, and between two starts of one.
    fn random(&self) -> Random {
        let id = u64::from(crc32fast::hash(self.config.id.as_bytes()));
        Random::new((id << 32) ^ clock::unix_ms() as u64)
    }

    /// Returns what delegates learn of this server.
    fn frontend(&self) -> rpc::Frontend<'_> {
        rpc::Frontend {
            id: &self.own.id_json,
            process: &self.own.process,
        }
    }

    /// The other shards of the process.
    fn other_shards(&self) -> impl Iterator<Item = ShardId> {
        let all = (0..self.shards).map(|shard| ShardId(shard as u16));
        all.filter(|shard| *shard != self.id)
    }

    /// Sends a parcel to another shard at the end of the turn.
    fn send_parcel(&self, to: ShardId, parcel: Parcel) {
        debug_assert_ne!(to, self.id);
        self.mesh.borrow_mut().batch(to).parcels.push(parcel);
        self.turn.request();
    }

    /// Sends a parcel to every other shard.
    fn broadcast_parcel(&self, parcel: impl Fn() -> Parcel) {
        let mut mesh = self.mesh.borrow_mut();
        for shard in self.other_shards() {
            mesh.batch(shard).parcels.push(parcel());
        }
        self.turn.request();
    }

    /// Notes whether a batch waits for room in another shard. Returns whether answers to other servers wait too.
    fn note_mesh_wait(&self, wait: &mut Option<MeshWait>, mesh_waits: bool) -> bool {
        if mesh_waits {
            // The tick asks again.
            tracing::debug!(shard = self.id.0, "a mesh inbox is full");
            let now = self.time.get().now;
            let wait = wait.get_or_insert_with(|| MeshWait::new(self.looked.get(), now));
            return wait.holds_answers(now);
        }
        if let Some(ended) = wait.take() {
            let waited = self.looked.get().saturating_duration_since(ended.since);
            self.counters().record_time(Measure::MeshWait, waited);
        }
        false
    }

    /// Returns the exported form of a session: what backends learn of it.
    fn export_session(&self, sid: Sid, identity: &Identity) -> Vec<u8> {
        let mut out = Vec::new();
        self.session_export(sid, identity).write(&mut out);
        out
    }

    fn session_export<'a>(&'a self, sid: Sid, identity: &'a Identity) -> rpc::SessionExport<'a> {
        rpc::SessionExport {
            id: sid.get(),
            frontend_id: &self.own.id_json,
            uid: identity.uid.as_ref().map_or("null", Uid::json),
            settings: identity.settings.json(),
        }
    }
}

/// Ends each turn.
async fn flush_turns(shard: Rc<Shard>) {
    let core = &shard.core;
    let mut dirty = VecDeque::with_capacity(64);
    let mut writers = Vec::with_capacity(16);
    let mut mesh_wait = None;
    loop {
        core.turn.requested().await;
        loop {
            let mesh_waits = core.mesh.borrow_mut().flush(core.counters());
            let answers_wait = core.note_mesh_wait(&mut mesh_wait, mesh_waits);
            shard.peers.take_dirty(
                answers_wait,
                &mut core.scheduler.borrow_mut().pool,
                &mut writers,
            );
            for writer in writers.drain(..) {
                writer::flush(&shard, &writer);
            }
            core.scheduler.borrow_mut().take_dirty(&mut dirty);
            let members = FLUSH_BUDGET.saturating_sub(dirty.len());
            shard.fan_out(members.max(FAN_OUT_PART_MIN));
            core.scheduler.borrow_mut().take_members(&mut dirty);
            for turn in 0..FLUSH_BUDGET {
                // The newest first, so that an answer waits neither for the members of a broadcast nor for what a buffer
                // scheduler has released; the oldest now and then, so that nobody waits for ever.
                let next = if turn % 4 == 3 {
                    dirty.pop_front()
                } else {
                    dirty.pop_back()
                };
                let Some(sid) = next else { break };
                connection::flush(&shard, sid);
            }
            if core.memory_has_grown() {
                shard.look_at_memory();
            }
            if dirty.is_empty() && core.scheduler.borrow().fan_outs.is_empty() {
                break;
            }
            clock::yield_to_reactor().await;
        }
    }
}

/// Returns each interval of a buffer scheduler what it has collected to the sessions.
async fn release_collected(shard: Rc<Shard>, buffer: usize) {
    let interval = shard.clients.flush_intervals()[buffer];
    let buffer = buffer as u8;
    loop {
        clock::sleep(interval).await;
        let collecting = shard.core.scheduler.borrow_mut().take_collecting(buffer);
        for sid in collecting {
            shard.clients.release(&shard.core, sid, buffer);
        }
    }
}

/// Receives batches of other shards until `is_stopping`; the doorbell wakes it for both.
async fn receive_mesh(shard: &Rc<Shard>, is_stopping: impl Fn() -> bool) {
    let mut budget = INBOX_BUDGET;
    loop {
        let batch = poll_fn(|cx| {
            shard.core.inbox.bell.listen(cx);
            if is_stopping() {
                return Poll::Ready(None);
            }
            match shard.core.inbox.next() {
                Some(batch) => Poll::Ready(Some(batch)),
                None => {
                    budget = INBOX_BUDGET;
                    Poll::Pending
                }
            }
        })
        .await;
        let Some(batch) = batch else { return };
        shard.receive_batch(&batch);
        shard.core.mesh.borrow_mut().recycle(batch);
        budget -= 1;
        if budget == 0 {
            budget = INBOX_BUDGET;
            clock::yield_to_reactor().await;
        }
    }
}

const _: () = assert!(SESSIONS_PER_SHARD_MAX < u32::MAX as usize);

// One per core; it must not grow without a reason.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Shard>() <= 2048);
