//! The process: builds a gateway, starts one shard per core, and stops it.
//!
//! **Invariants**: all checks run before the first shard starts; a shard that ends by itself ends the
//! process.
//!
//! **Absent**: work per request.
//!
//! **Where to start reading**: [`Gateway::start`].

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use glommio::Placement;
use pinning::Pinning;

use crate::admin::{OperatorsPort, Prober, View};
use crate::checked::CheckedConfig;
use crate::client::addresses::Addresses;
use crate::client::rate::AcceptRate;
use crate::config::{Config, ListenAddress};
use crate::error::{Error, Result};
use crate::handler::Router;
use crate::ids::ShardId;
use crate::log::Output;
use crate::metrics::{self, Counter, Counters};
use crate::net::bell::Doorbell;
use crate::net::{Network, clock, task};
use crate::shard::activity::Activity;
use crate::shard::memory::ProcessMemory;
use crate::shard::mesh;
use crate::shard::operator::Operator;
use crate::shard::probe::Probe;
use crate::shard::{self, Gauge, Seed};
use crate::tls::{self, TlsSettings, Watching};
use listen::{AddressKey, OpenListener};

mod assets;
mod check;
mod executor;
mod host;
mod json_file;
mod launcher;
mod listen;
pub mod load;
pub mod memory;
mod notify;
mod pinning;
mod reload;
mod room;
mod run;
mod start_lines;
mod watchdog;

pub use crate::shard::Stopper;
pub use load::Program;
pub use run::main;

/// A gateway that has not started.
pub struct Gateway {
    config: Config,
    make_router: Arc<dyn Fn(ShardId) -> Router + Send + Sync>,
    page: Option<&'static [u8]>,
}

impl Gateway {
    /// Creates a gateway with this configuration. Without further handlers it serves the built-in chat
    /// room if [`Config::embedded`] is set, and otherwise only forwards.
    pub fn new(config: Config) -> Self {
        if config.embedded {
            let room = room::Room::default();
            let make_router = Arc::new(move |_| room.router());
            return Self {
                config,
                make_router,
                page: Some(room::PAGE),
            };
        }
        Self {
            config,
            make_router: Arc::new(|_| Router::new()),
            page: None,
        }
    }

    /// Sets the handlers in place of the built-in chat room. `make` runs once on every shard, with the
    /// number of the shard, and its router stays there.
    #[must_use]
    pub fn handlers(mut self, make: impl Fn(ShardId) -> Router + Send + Sync + 'static) -> Self {
        self.make_router = Arc::new(make);
        self.page = None;
        self
    }

    /// Sets the answer to `GET /`, as `text/html`. Use a server of its own for further files.
    #[must_use]
    pub fn page(mut self, html: &'static [u8]) -> Self {
        self.page = Some(html);
        self
    }

    /// Checks the machine, opens the port and starts all shards. Waits for the functions of
    /// [`Router::on_start`], up to `start_timeout`. Returns when all shards take clients, or the error
    /// of the first one that fails.
    pub fn start(self) -> Result<Running> {
        let (running, starting) = self.launch(None)?;
        running.stands(&starting)
    }

    /// Starts all shards and does not wait until they take clients. `output` is the log, if tangelo writes it.
    fn launch(mut self, output: Option<Arc<Output>>) -> Result<(Running, Starting)> {
        let config = CheckedConfig::new(std::mem::take(&mut self.config))?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let shards = host::shards(&config);
        host::check(&config, shards)?;
        executor::probe()?;
        let listeners = listen::bind(&config, shards)?;
        let bind_rpc = |address: Option<SocketAddr>, key| {
            let bind = |address| listen::bind_rpc(address, key);
            address.map(bind).transpose()
        };
        let mut rpc_listeners = [
            bind_rpc(config.rpc.listen, AddressKey::Rpc)?,
            bind_rpc(config.rpc.tls_listen, AddressKey::RpcTls)?,
        ];
        let client = &config.client;
        if client.heartbeat.is_none() && (client.timeout.is_none() || !client.idle_websocket) {
            tracing::info!(
                "a silent WebSocket client stays connected, as in Pomelo: neither client.heartbeat nor \
                 client.timeout ends it"
            );
        }
        let (sockets_max, callers_max) = (host::sockets_max(&config), host::callers_max(&config));
        let wanted = config.client.max_connections;
        let clients_max = wanted.unwrap_or(sockets_max).min(sockets_max);
        let pinning = match config.pin {
            true => Pinning::reserve(&host::cores(), shards),
            false => Pinning::none(shards),
        };
        let (seeds, shared) = self.seeds(config, shards, sockets_max, callers_max)?;
        let operator = Operator(seeds[0].outlets.clone());
        let tls = shared.tls.as_ref();
        let watching = tls.map(|tls| tls::start(tls.clone(), shared.latest.clone()));
        let watching = watching
            .transpose()
            .map_err(|error| cannot_start("certificates", &error))?;
        let admin = OperatorsPort::start(View {
            config: seeds[0].config.clone(),
            latest: shared.latest.clone(),
            counters: shared.counters.clone(),
            activities: seeds.iter().map(|seed| seed.activity.clone()).collect(),
            stopper: shared.stopper.clone(),
            operator: operator.clone(),
            expiries: tls.map_or_else(Default::default, |tls| tls.expiries().clone()),
            output,
            prober: Prober::new(first_tcp(&listeners.opened), shards, seeds[0].probe.clone()),
            traces: Arc::default(),
            stands: AtomicBool::new(false),
        });
        let activities = seeds
            .iter()
            .map(|seed| (seed.activity.clone(), seed.inbox.bell.clone()));
        let activities: Vec<(Arc<Activity>, _)> = activities.collect();
        let pulses = activities.iter().map(|(activity, _)| activity.clone());
        let pulses = pulses.collect();
        let (alive, ended) = std::sync::mpsc::channel();
        let watchdog = start_watchdog(activities, shared.counters.clone(), ended)?;
        let mut threads = Vec::with_capacity(shards);
        for (mut seed, sockets) in seeds.into_iter().zip(listeners.sockets) {
            seed.listeners = sockets;
            seed.rpc_listeners = std::mem::take(&mut rpc_listeners);
            threads.push(start_shard(
                pinning.placement(seed.id.index()),
                seed,
                shared.stopper.clone(),
                alive.clone(),
            )?);
        }
        drop(alive);
        let running = Running {
            listeners: listeners.opened,
            shards,
            threads,
            watchdog,
            stopper: shared.stopper,
            reread: shared.reread,
            latest: shared.latest,
            activities: pulses,
            operator,
            failure: shared.failure,
            counters: shared.counters,
            admin,
            clients_max,
            pinning,
            tls: shared.tls,
            _certificates: watching,
        };
        Ok((running, shared.starting))
    }

    /// Builds the seeds of all shards, without their listeners, and the part that their owner keeps.
    fn seeds(
        self,
        config: CheckedConfig,
        shards: usize,
        sockets_max: usize,
        callers_max: usize,
    ) -> Result<(Vec<Seed>, Shared)> {
        let protos = Arc::new(assets::protos(&config)?);
        let tls = TlsSettings::load(&config).map_err(Error::Config)?;
        let javascript_handlers = assets::javascript_handlers(&config);
        let host_filter = Arc::new(assets::host_filter(&config)?);
        let connections_max = config.client.max_connections.unwrap_or(sockets_max);
        let sockets = Arc::new(Gauge::new(sockets_max));
        let connections = Arc::new(Gauge::new(connections_max));
        let silent = Arc::new(Gauge::new(sockets_max));
        let addresses = Addresses::new(&config.client, clock::now()).map(Arc::new);
        let accept_rate = AcceptRate::new(&config.client, clock::now()).map(Arc::new);
        let config = Arc::new(config);
        let latest = Arc::new(ArcSwap::new(config.clone()));
        let (outlets, inboxes) = mesh::queues(shards);
        // One for each shard, and one for the watchdog.
        let counters: Arc<[Counters]> = (0..=shards).map(|_| Counters::default()).collect();
        let failure = Arc::new(OnceLock::new());
        let (starting, started) = std::sync::mpsc::channel();
        let (joining, joined) = std::sync::mpsc::channel();
        let (at_work, probe) = (Arc::default(), Arc::<Probe>::default());
        // Containers give each process the same id.
        let process: Arc<str> = format!("{}.{}", std::process::id(), clock::unix_ms()).into();
        let reread = Arc::<AtomicBool>::default();
        let stopper = Stopper::new(inboxes.iter().map(|inbox| inbox.bell.clone()).collect());
        let memory_max = config.limits.memory.unwrap_or_else(host::memory_max);
        let bells = inboxes.iter().map(|inbox| inbox.bell.clone()).collect();
        let memory = Arc::new(ProcessMemory::new(memory_max, bells));
        let seed = |(index, inbox)| Seed {
            id: ShardId(index as u16),
            shards,
            process: process.clone(),
            config: config.clone(),
            latest: latest.clone(),
            listeners: Vec::new(),
            rpc_listeners: [None, None],
            inbox,
            outlets: outlets.clone(),
            counters: counters.clone(),
            activity: Arc::default(),
            make_router: self.make_router.clone(),
            memory: memory.clone(),
            tls: tls.clone(),
            callers_max,
            probe: probe.clone(),
            sockets: sockets.clone(),
            connections: connections.clone(),
            silent: silent.clone(),
            addresses: addresses.clone(),
            accept_rate: accept_rate.clone(),
            stop: stopper.request().clone(),
            reread: reread.clone(),
            starting: starting.clone(),
            joined: joining.clone(),
            at_work: Arc::clone(&at_work),
            stopper: {
                let (stopper, failure) = (stopper.clone(), failure.clone());
                Arc::new(move |error| {
                    if let Some(error) = error {
                        let _ = failure.set(error);
                    }
                    stopper.stop();
                })
            },
            host_filter: host_filter.clone(),
            protos: protos.clone(),
            javascript_handlers: javascript_handlers.clone(),
            page: self.page,
        };
        let seeds = inboxes.into_iter().enumerate().map(seed).collect();
        let shared = Shared {
            tls,
            latest,
            stopper,
            starting: Starting {
                shards: started,
                joined,
            },
            failure,
            reread,
            counters,
        };
        Ok((seeds, shared))
    }
}

/// The part of all shards that their owner keeps.
struct Shared {
    tls: Option<Arc<TlsSettings>>,
    latest: Arc<ArcSwap<CheckedConfig>>,
    stopper: Stopper,
    reread: Arc<AtomicBool>,
    starting: Starting,
    failure: Arc<OnceLock<Error>>,
    counters: Arc<[Counters]>,
}

/// The progress of a start.
struct Starting {
    /// Closed when no shard is starting any more.
    shards: Receiver<Infallible>,
    /// Gets the number of the other servers, when this server is part of its cluster.
    joined: Receiver<usize>,
}

/// Starts the thread of a shard. Returns when its executor runs.
fn start_shard(
    placement: Placement,
    seed: Seed,
    stopper: Stopper,
    alive: Sender<Infallible>,
) -> Result<JoinHandle<()>> {
    let (ready, started) = std::sync::mpsc::channel();
    // A gateway without one of its shards is useless: when one shard ends, all end.
    let stop_all = StopOnDrop(stopper);
    let name = format!("shard-{}", seed.id.0);
    let thread = std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            let (_stop_all, _alive) = (stop_all, alive);
            let made = executor::executor(&placement).and_then(|executor| {
                let poller = executor::poller(&seed.inbox.bell, seed.config.turn_min)?;
                Ok((executor, poller))
            });
            match made {
                Ok((executor, poller)) => {
                    let _ = ready.send(Ok(()));
                    task::run(
                        &executor,
                        shard::run(seed, Network::Kernel(Rc::new(poller))),
                    );
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })
        .map_err(|error| cannot_start(&name, &error))?;
    let died = || Error::Shard(format!("{name} ended while it started"));
    started.recv().unwrap_or_else(|_| Err(died()))?;
    Ok(thread)
}

/// Starts the watchdog thread, which ends after the last shard.
fn start_watchdog(
    activities: Vec<(Arc<Activity>, Arc<Doorbell>)>,
    counters: Arc<[Counters]>,
    shards: Receiver<Infallible>,
) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || {
            let own = &counters[activities.len()];
            watchdog::watch(activities, own, &shards);
        })
        .map_err(|error| cannot_start("watchdog", &error))
}

/// Returns the error of a thread that the system refuses.
fn cannot_start(thread: &str, error: &std::io::Error) -> Error {
    Error::Host(format!(
        "cannot start the thread {thread}: {error}; raise the limit of processes (ulimit -u, TasksMax= of \
         systemd, --pids-limit of docker) or free memory"
    ))
}

/// Returns the address of the first listener that has one of TCP.
fn first_tcp(listeners: &[OpenListener]) -> Option<SocketAddr> {
    listeners.iter().find_map(|listener| listener.address.tcp())
}

/// A running gateway.
pub struct Running {
    /// The listeners for clients, with the ports that the kernel chose for port 0.
    listeners: Vec<OpenListener>,
    shards: usize,
    threads: Vec<JoinHandle<()>>,
    watchdog: JoinHandle<()>,
    stopper: Stopper,
    /// Set to make a shard read the blacklist file again.
    reread: Arc<AtomicBool>,
    /// The configuration that the shards follow.
    latest: Arc<ArcSwap<CheckedConfig>>,
    /// Activity of each shard.
    activities: Vec<Arc<Activity>>,
    /// The way of requests to the shards.
    operator: Operator,
    /// The error of the shard that stopped the gateway.
    failure: Arc<OnceLock<Error>>,
    counters: Arc<[Counters]>,
    /// The operators' port; it closes last.
    admin: Option<OperatorsPort>,
    /// Largest number of connected clients.
    clients_max: usize,
    /// Keeps the cores of the shards reserved.
    pinning: Pinning,
    /// TLS, where a listener takes it.
    tls: Option<Arc<TlsSettings>>,
    /// The thread that follows the files of TLS.
    _certificates: Option<Watching>,
}

impl Running {
    /// Waits until all shards take clients, or one has failed and all have ended.
    fn stands(self, starting: &Starting) -> Result<Self> {
        let _ = starting.shards.recv();
        match self.failure.get() {
            None => {
                self.admin.iter().for_each(OperatorsPort::announce_start);
                Ok(self)
            }
            Some(error) => {
                let error = error.clone();
                self.join()?;
                Err(error)
            }
        }
    }

    /// Returns true if a shard has ended. Then all of them end.
    fn is_ending(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Returns the address for clients: that of the first listener with a TCP address. Where all listeners are unix
    /// sockets, it is `0.0.0.0:0`.
    pub fn address(&self) -> SocketAddr {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        first_tcp(&self.listeners).unwrap_or(nowhere)
    }

    /// Returns the addresses of all listeners for clients, in the order of the configuration.
    pub fn addresses(&self) -> Vec<ListenAddress> {
        let listeners = self.listeners.iter();
        listeners.map(|listener| listener.address.clone()).collect()
    }

    /// Returns the number of shards.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// Returns the counters, added up over shards: `name=value name=value …`, without zeros.
    pub fn counters(&self) -> String {
        report(&self.counters)
    }

    /// Returns a handle that stops the gateway from any thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Returns a function that reads the counters from any thread.
    pub fn counters_reader(&self) -> impl Fn() -> String + Send + 'static {
        let counters = self.counters.clone();
        move || report(&counters)
    }

    /// Waits until all shards have ended. Returns an error if a shard ended without a request to stop.
    pub fn join(self) -> Result<()> {
        let mut result = Ok(());
        for (index, thread) in self.threads.into_iter().enumerate() {
            if thread.join().is_err() {
                result = Err(Error::Shard(format!(
                    "shard {index} ended, because its thread panicked; the log has the text of the panic"
                )));
            }
        }
        let _ = self.watchdog.join();
        if let Some(error) = self.failure.get() {
            return Err(error.clone());
        }
        result.and_then(|()| drained(&self.counters))
    }
}

/// Returns an error if a drain had to cut clients.
fn drained(counters: &[Counters]) -> Result<()> {
    let cut = |counters: &Counters| counters.get(Counter::ClientsCut);
    match counters.iter().map(cut).sum() {
        0 => Ok(()),
        cut => Err(Error::Drain(format!(
            "three quarters of drain.timeout had passed, and {cut} clients that waited for answers were cut"
        ))),
    }
}

fn report(shards: &[Counters]) -> String {
    metrics::report(shards.iter().chain([metrics::of_process()]))
}

struct StopOnDrop(Stopper);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}
