//! One core's world: its connections, its handlers, its links, and the tasks that run them.
//!
//! ```text
//!  accept ──▶ read task per client ──▶ dispatch ──▶ handler
//!                                        │  ▲
//!                        link tasks ◀────┘  └──── inbox of the mesh
//!                                        │
//!                     end of turn: flush dirty outboxes, link queues, mesh batches
//! ```
//!
//! **Invariants**: nothing here is shared with another shard but counters and the mesh; no borrow of
//! a table lives across a call into a handler; no pending task is dropped before the shard ends.
//!
//! **Absent**: decoding and encoding.
//!
//! **Where to start reading**: [`run`], then `dispatch.rs`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::future;

use crate::client::Rules;
use crate::client::coder::{Coder, Protos};
use crate::client::handshake::HandshakeReplies;
use crate::client::heartbeat::{Timeouts, Wheel};
use crate::client::host_filter::HostFilter;
use crate::config::Config;
use crate::error::Error;
use crate::handler::clock::Alarms;
use crate::handler::{Router, Stop};
use crate::ids::{PeerIndex, ShardId, Sid};
use crate::limits::SESSIONS_PER_SHARD_MAX;
use crate::metrics::Counters;
use crate::net::drive::ReadBuffer;
use crate::net::socket::Listener;
use crate::net::{Network, clock};
use crate::peer::directory::Cluster;
use crate::peer::pending::Calls;
use crate::push::FlushSchedule;
use crate::push::select::Selector;
use crate::route::balance::{Balancer, Random, Strategy};
use crate::route::dictionary::Dictionary;
use crate::route::{Routes, Target};
use crate::session::slab::Slab;
use crate::time::ShardTime;
use crate::wire::json;

mod app;
mod clients;
mod context;
mod coordinator;
mod dispatch;
pub mod mesh;
mod peers;
mod tick;

pub use app::activity;
pub use clients::blacklist;

use app::activity::{Activity, Alive, Work};
use app::{App, Unfiltered};
use clients::{Clients, accept};
use coordinator::{COORDINATOR, Coordinator};
use mesh::{Inbox, Mesh, Outlets};
use peers::link::{self, Link};
use peers::{Peers, registry};

/// Everything a shard is made of, before it has a thread.
pub struct Seed {
    /// Its number.
    pub id: ShardId,
    /// How many there are.
    pub shards: usize,
    /// Configuration of the process.
    pub config: Arc<Config>,
    /// Its own listening socket.
    pub listener: Option<std::net::TcpListener>,
    /// Where peers connect, on the switch.
    pub rpc_listener: Option<std::net::TcpListener>,
    /// Where it receives from other shards.
    pub inbox: Inbox,
    /// Where it sends.
    pub outlets: Outlets,
    /// Counters of all shards.
    pub counters: Arc<[Counters]>,
    /// Its sign of life.
    pub activity: Arc<Activity>,
    /// Makes its handlers.
    pub make_router: Arc<dyn Fn(ShardId) -> Router + Send + Sync>,
    /// Client sockets of the process.
    pub sockets: Arc<Gauge>,
    /// Those that have spoken: what `client.max_connections` counts.
    pub connections: Arc<Gauge>,
    /// Set when the process is to end; the doorbell is rung too.
    pub stop: Arc<AtomicBool>,
    /// Set when `client.blacklist_file` is to be read again, changed or not.
    pub reread: Arc<AtomicBool>,
    /// Dropped when it takes clients, or has failed to.
    pub starting: Sender<Infallible>,
    /// Dropped when its application has ended.
    pub at_work: Arc<()>,
    /// Ends the process: the master may want that, or refuse this server.
    pub stopper: Arc<dyn Fn(Option<Error>) + Send + Sync>,
    /// Who may not connect, at the start.
    pub host_filter: Arc<HostFilter>,
    /// Protos of both directions; empty without `client.use_protobuf`.
    pub protos: Arc<Protos>,
    /// Folder of the project's handlers in JavaScript for the own type, if it has any.
    pub javascript_handlers: Option<PathBuf>,
    /// What `GET /` gets.
    pub page: Option<&'static [u8]>,
}

/// A number of things in the process, and how many there may be.
#[derive(Debug)]
pub struct Gauge {
    count: AtomicUsize,
    max: usize,
}

impl Gauge {
    /// None yet, at most `max`.
    pub fn new(max: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            max,
        }
    }

    /// One more; false when that is too many. Either way [`Gauge::leave`] must follow.
    fn enter(&self) -> bool {
        self.count.fetch_add(1, Ordering::AcqRel) < self.max
    }

    /// How many there are.
    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// One less.
    fn leave(&self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One shard: its parts, which never name each other, and what all of them use. Tables are behind cells of their
/// own, so that a handler may come back in.
pub(crate) struct Shard {
    core: Core,
    clients: Clients,
    peers: Peers,
    app: App,
    coordinator: Coordinator,
}

/// Identity, time, memory and queues of a shard, for all of its parts.
struct Core {
    id: ShardId,
    shards: usize,
    config: Arc<Config>,
    counters: Arc<[Counters]>,
    /// Ends the process, with an error or without.
    stop: Arc<dyn Fn(Option<Error>) + Send + Sync>,
    /// Time of the last tick: close enough for timeouts, and free to read.
    time: Cell<ShardTime>,
    /// The clock at that tick.
    ticked: Cell<Instant>,
    /// Delay of that tick.
    late: Cell<Duration>,
    network: Network,
    read_buffer: ReadBuffer,
    scheduler: RefCell<FlushSchedule>,
    inbox: Inbox,
    mesh: RefCell<Mesh>,
    turn: Turn,
    /// Tasks that live as long as the shard.
    kept: RefCell<Vec<glommio::Task<()>>>,
}

/// Says that something waits for the end of the turn.
#[derive(Default)]
struct Turn {
    pending: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Turn {
    /// Asks for the end of the turn; once per turn.
    fn request(&self) {
        if !self.pending.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    /// Waits until somebody asked.
    async fn requested(&self) {
        poll_fn(|cx| {
            if self.pending.replace(false) {
                return Poll::Ready(());
            }
            let mut waker = self.waker.borrow_mut();
            if waker
                .as_ref()
                .is_none_or(|known| !known.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Sessions flushed before others run: a write to a socket is about 9 µs.
const FLUSH_BUDGET: usize = 256;
/// Batches taken from the inbox before others run.
const INBOX_BUDGET: usize = 64;
/// How long a stopping shard waits for last bytes to leave.
const STOP_GRACE: Duration = Duration::from_millis(250);
/// Looks at the sockets after which a stopping shard waits for no more ends.
const END_BREATHS_MAX: usize = 1000;

/// Runs a shard until the process is told to stop. Call inside its executor.
pub async fn run(mut seed: Seed, network: Network) {
    let _alive = Alive::new(seed.activity.clone());
    let (listener, rpc_listener) = (seed.listener.take(), seed.rpc_listener.take());
    let (stop, stopper) = (seed.stop.clone(), seed.stopper.clone());
    let (starting, at_work) = (seed.starting.clone(), seed.at_work.clone());
    let reread = seed.reread.clone();
    let is_stopping = || stop.load(Ordering::Acquire);
    let shard = match Shard::new(seed, network) {
        Ok(shard) => Rc::new(shard),
        Err(error) => return stopper(Some(error)),
    };
    if let Network::Kernel(poller) = &shard.core.network {
        let poller = poller.clone();
        shard.keep(async move { poller.run().await });
    }
    shard.apply_static_cluster();
    if shard.core.id == COORDINATOR {
        registry::start(&shard, shard.listen(rpc_listener));
        if let Some(path) = shard.core.config.client.blacklist_file.clone() {
            shard.keep(blacklist::watch(shard.clone(), path, reread));
        }
    }
    let clients = match &shard.core.network {
        Network::Kernel(_) => shard.listen(listener),
        Network::Memory(place) => Some(Listener::Memory(place.clients.clone())),
    };
    shard.keep(flush_turns(shard.clone()));
    shard.keep(tick::run(shard.clone()));
    for buffer in 0..shard.clients.selector.intervals().len() {
        shard.keep(release_collected(shard.clone(), buffer));
    }
    let stopped = async {
        receive_mesh(&shard, is_stopping).await;
        None
    };
    let start = async { Some(shard.start_application().await) };
    let started = future::or(stopped, start).await;
    let stands = matches!(started, Some(Ok(())));
    let mut accepting = None;
    if stands {
        accepting =
            clients.map(|listener| glommio::spawn_local(accept::run(shard.clone(), listener)));
        shard.start_tasks();
    } else if let Some(Err(error)) = started {
        stopper(Some(error));
    }
    drop(starting);
    receive_mesh(&shard, is_stopping).await;
    // Closes the listening socket: the kernel refuses new clients, and a balancer sends them elsewhere.
    if let Some(accepting) = accepting {
        accepting.cancel().await;
    }
    if stands {
        let others_go_on = receive_mesh(&shard, || false);
        future::or(shard.stop_application(at_work), others_go_on).await;
    } else {
        drop(at_work);
    }
    shard.leave_cluster();
    shard.close_everything();
    let others_go_on = receive_mesh(&shard, || false);
    future::or(clock::sleep(STOP_GRACE), others_go_on).await;
    shard.end().await;
}

impl Shard {
    fn new(seed: Seed, network: Network) -> Result<Self, Error> {
        let config = &seed.config;
        let make_router = || (seed.make_router)(seed.id);
        let made = seed.activity.call(Work::Start, make_router);
        let router = made.unwrap_or_else(|panic| resume_unwind(panic));
        let use_protobuf = config.client.use_protobuf;
        let protos = |route: &str| match use_protobuf {
            true => seed.protos.of(route),
            false => (false, false),
        };
        let router = router.ready(config, protos).map_err(Error::Handlers)?;
        seed.activity.name(&router);
        let is_served = config.delegate.is_some()
            || router.routes().next().is_some()
            || router.fallback_index().is_some();
        if seed.id == COORDINATOR
            && !is_served
            && let Some(folder) = &seed.javascript_handlers
        {
            tracing::warn!(
                folder = %folder.display(),
                "the project's handlers for {} are JavaScript, which does not run here: their routes \
                 get code 500; set delegate to the type of backends that run them, or write them in \
                 Rust (Gateway::handlers)",
                config.server_type
            );
        }
        let routes =
            Routes::new(&config.server_type, router.routes()).delegating(config.delegate.is_some());
        let handlers = config.handler_routes.iter().map(String::as_str);
        let dictionary = Dictionary::new(
            router.routes().chain(handlers),
            config.dictionary.iter().map(String::as_str),
        );
        let handshake = HandshakeReplies::new(config, &dictionary, &seed.protos);
        let dictionary = config.client.use_dict.then_some(dictionary);
        let mut server_id_json = Vec::new();
        json::write_string(&mut server_id_json, &config.id);
        let now = clock::now();
        Ok(Self {
            clients: Clients {
                process_sockets: seed.sockets,
                process_connections: seed.connections,
                rules: Rules::new(config, seed.page),
                handshake,
                coder: Coder::new(dictionary, seed.protos, config.client.protobuf_check),
                scratch: Cell::default(),
                timeouts: Timeouts::new(&config.client),
                host_filter: RefCell::new(seed.host_filter),
                connections: RefCell::new(Slab::new(seed.id)),
                nobody: Rc::default(),
                selector: Selector::new(&config.push).expect("the start has checked it"),
                wheel: RefCell::new(Wheel::new(now)),
            },
            peers: Peers {
                cluster: RefCell::default(),
                balancers: RefCell::default(),
                server_id_json: String::from_utf8(server_id_json)
                    .expect("write_string writes UTF-8"),
                calls: RefCell::default(),
                links: RefCell::default(),
                early_frames: RefCell::default(),
                dirty_pipes: RefCell::default(),
                master: RefCell::default(),
            },
            app: App {
                activity: seed.activity,
                alarms: Alarms::default(),
                timeouts: Alarms::default(),
                unfiltered: Unfiltered {
                    local: router.filters.none_local(),
                    forwarded: router.filters.none_global(),
                },
                fallback: router
                    .fallback_index()
                    .map_or(Target::NoHandler, Target::Local),
                in_progress: Cell::default(),
                router: Rc::new(router),
                routes,
                to_tell: RefCell::default(),
                telling: Cell::default(),
                wishes: RefCell::default(),
                tasks: RefCell::default(),
                stop_request: Stop::default(),
            },
            coordinator: Coordinator::default(),
            core: Core {
                id: seed.id,
                shards: seed.shards,
                counters: seed.counters,
                stop: seed.stopper,
                time: Cell::new(ShardTime::new(now)),
                ticked: Cell::new(now),
                late: Cell::default(),
                network,
                read_buffer: ReadBuffer::default(),
                scheduler: RefCell::default(),
                inbox: seed.inbox,
                mesh: RefCell::new(Mesh::new(seed.outlets)),
                turn: Turn::default(),
                kept: RefCell::default(),
                config: seed.config,
            },
        })
    }

    /// Watches a listening socket; the process ends where that cannot be done.
    fn listen(&self, socket: Option<std::net::TcpListener>) -> Option<Listener> {
        let Network::Kernel(poller) = &self.core.network else {
            return None;
        };
        match Listener::new(socket?, poller) {
            Ok(listener) => Some(listener),
            Err(error) => {
                let text = format!("cannot watch the listening socket: {error}");
                (self.core.stop)(Some(Error::Host(text)));
                None
            }
        }
    }

    /// Runs a task until the shard ends.
    fn keep(&self, task: impl Future<Output = ()> + 'static) {
        let task = glommio::spawn_local(task);
        self.core.kept.borrow_mut().push(task);
    }

    /// Ends every task, so that sockets and rings go with the shard.
    async fn end(self: &Rc<Self>) {
        self.hang_up();
        for pipe in self.served_pipes() {
            pipe.shutdown();
        }
        // The tasks that read these sockets see their ends.
        for _ in 0..END_BREATHS_MAX {
            if self.clients.connections.borrow().is_empty() && self.served_pipes().is_empty() {
                break;
            }
            clock::yield_to_reactor().await;
        }
        for task in self.core.kept.take() {
            task.cancel().await;
        }
    }

    /// The servers of now: links and call tables for new ones, an end for those that left.
    fn apply_cluster(self: &Rc<Self>, cluster: Arc<Cluster>) {
        let rpc = &self.core.config.rpc;
        // Asked before the loop: what a loop's head borrows, it borrows to its end.
        let (links, balancers) = (
            self.peers.links.borrow().len(),
            self.peers.balancers.borrow().len(),
        );
        for index in links..cluster.peer_count() {
            self.peers.calls.borrow_mut().push(Calls::new(
                self.core.id,
                self.core.shards,
                rpc.calls_in_flight_max,
                rpc.timeout,
            ));
            let peer = PeerIndex(index as u32);
            let link = (dispatch::owner(peer, self.core.shards) == self.core.id)
                .then(|| Rc::new(Link::new(peer, cluster.peer(peer).clone())));
            if let Some(link) = &link {
                self.keep(link::run(self.clone(), link.clone()));
            }
            self.peers.links.borrow_mut().push(link);
        }
        for name in &cluster.type_names()[balancers..] {
            let balancer = self.balancer(name);
            self.peers.balancers.borrow_mut().push(balancer);
        }
        let old = self.peers.cluster.replace(cluster.clone());
        self.relist_links();
        let early = std::mem::take(&mut *self.peers.early_frames.borrow_mut());
        for (peer, epoch, frames) in early {
            self.frames_of_another(peer, epoch, &frames);
        }
        self.tell_servers(&old, &cluster);
    }

    /// Returns random numbers that differ between servers, and between two starts of one.
    fn random(&self) -> Random {
        let id = u64::from(crc32fast::hash(self.core.config.id.as_bytes()));
        Random::new((id << 32) ^ clock::unix_ms() as u64)
    }

    /// How servers of a type are chosen: `route.<type>`, else `route.default`.
    fn balancer(&self, server_type: &str) -> Balancer {
        let routes = &self.core.config.routes;
        let text = routes.get(server_type).or_else(|| routes.get("default"));
        // Checked when the configuration was read.
        let strategy = text
            .and_then(|text| Strategy::parse(text).ok())
            .unwrap_or_default();
        Balancer::new(
            strategy,
            self.core.config.dialect,
            u64::from(self.core.id.0),
        )
    }

    /// Takes what waits in the inbox now.
    fn receive_waiting_batches(self: &Rc<Self>) {
        while let Some(batch) = self.core.inbox.next() {
            self.receive_batch(&batch);
            self.core.mesh.borrow_mut().recycle(batch);
        }
    }

    fn counters(&self) -> &Counters {
        &self.core.counters[self.core.id.index()]
    }

    fn close_everything(self: &Rc<Self>) {
        let sids: Vec<Sid> = self
            .clients
            .connections
            .borrow_mut()
            .iter_mut()
            .map(|(sid, _)| sid)
            .collect();
        for sid in sids {
            self.close(sid, crate::error::Fault::Stopping, None);
        }
    }
}

/// Starts a task behind this one. `glommio::spawn_local` would poll it at once, within whatever its
/// starter has borrowed.
fn spawn_behind(task: impl Future<Output = ()> + 'static) {
    let queue = glommio::executor().current_task_queue();
    let task = glommio::spawn_local_into(task, queue);
    task.expect("the queue of a running task exists").detach();
}

/// Ends each turn: one write for each dirty session, each own link and each other shard.
async fn flush_turns(shard: Rc<Shard>) {
    let mut dirty = VecDeque::with_capacity(64);
    let mut pipes = Vec::with_capacity(16);
    loop {
        shard.core.turn.requested().await;
        loop {
            let mesh_waits = shard.core.mesh.borrow_mut().flush(shard.counters());
            if mesh_waits {
                // No room there now; the tick asks again. Answers to peers wait too: they must not
                // arrive before the pushes that went ahead of them.
                tracing::debug!(shard = shard.core.id.0, "a mesh inbox is full");
            } else {
                shard.flush_pipes(&mut pipes);
            }
            shard.core.scheduler.borrow_mut().take_dirty(&mut dirty);
            for turn in 0..FLUSH_BUDGET {
                // The newest first, so that an answer does not wait for the end of a broadcast; the
                // oldest now and then, so that nobody waits for ever.
                let next = if turn % 4 == 3 {
                    dirty.pop_front()
                } else {
                    dirty.pop_back()
                };
                let Some(sid) = next else { break };
                shard.flush(sid);
            }
            if dirty.is_empty() {
                break;
            }
            clock::yield_to_reactor().await;
        }
    }
}

/// The interval of a buffer scheduler.
async fn release_collected(shard: Rc<Shard>, buffer: usize) {
    let interval = shard.clients.selector.intervals()[buffer];
    let buffer = buffer as u8;
    loop {
        clock::sleep(interval).await;
        let collecting = shard.core.scheduler.borrow_mut().take_collecting(buffer);
        for sid in collecting {
            shard.release(sid, buffer);
        }
    }
}

/// Takes what other shards sent, until it is to stop, which the doorbell tells.
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
