//! The whole gateway inside a test: no sockets, no threads, a clock that moves when it is told to.
//!
//! [`Gateway::in_memory`] starts everything that [`Gateway::start`] does: all shards with their
//! dispatch, filters, handlers, push schedulers and timers, and the mesh between them. They run on
//! the calling thread, while one of these functions is called and until nobody has anything left to
//! do, so a test is the same each time. A [`Client`] speaks the protocol as a real one does.
//!
//! ```
//! use std::time::Duration;
//!
//! use serde_json::{Value, json};
//! use tangelo::handler::{App, Json, Router};
//! use tangelo::{Config, Gateway};
//!
//! async fn hello(app: App, Json(request): Json<Value>) -> Value {
//!     app.sleep(Duration::from_secs(5)).await;
//!     json!({ "hello": request["name"] })
//! }
//!
//! # fn main() -> tangelo::Result<()> {
//! let config = Config { shards: Some(2), ..Config::default() };
//! let mut gateway = Gateway::new(config)
//!     .handlers(|_shard| Router::new().route("entryHandler.hello", hello))
//!     .in_memory()?;
//!
//! let mut client = gateway.connect();
//! let id = client.ask("connector.entryHandler.hello", &json!({ "name": "Mei" }));
//! assert_eq!(client.answer(id), None);
//! gateway.advance(Duration::from_secs(5));
//! assert_eq!(client.answer(id), Some(json!({ "hello": "Mei" })));
//!
//! // A client that says nothing for 90 seconds is given up; here that is at once.
//! gateway.advance(Duration::from_secs(91));
//! assert!(client.is_closed());
//! gateway.stop()
//! # }
//! ```
//!
//! **What is not there**: ports and their checks, the master, and other servers: forwards and calls to
//! those of the configuration fail as they do when nobody listens, but where the test stands in for
//! one with a [`Server`]. Whatever leaves the shard for a thread of its own goes by the real clock;
//! [`Client::request`] waits for it.
//!
//! **Invariants**: a test waits at most a minute of real time for anything
//! ([`InMemory::set_patience`]), then it panics and says what for.
//!
//! **Where to start reading**: [`InMemory`], then [`Client`].

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glommio::LocalExecutor;

use super::{Gateway, Shared, executor, preflight};
use crate::client::coder::Protos;
use crate::config;
use crate::error::Result;
use crate::limits::SESSIONS_PER_SHARD_MAX;
use crate::metrics;
use crate::net::Network;
use crate::net::clock::{self, VirtualClock};
use crate::net::memory::{self, MemoryListener, MemoryNetwork, MemoryServers};
use crate::shard;

mod client;
mod server;

pub use client::{Client, ClientOptions};
pub use server::{Server, ServerCall};

/// Real time that one call of a test may take, unless it says otherwise. Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at what other threads have done.
const LOOK: Duration = Duration::from_millis(1);

impl Gateway {
    /// Starts the gateway for a test: on this thread, without sockets, with a virtual clock.
    ///
    /// Errors: as [`Gateway::start`], as far as the configuration is at fault or this machine has no
    ///         io_uring
    /// Cost:   about a millisecond, and one descriptor that glommio never gives back
    pub fn in_memory(mut self) -> Result<InMemory> {
        // Without a number the machine's would count, and a test be another one elsewhere.
        let shards = *self.config.shards.get_or_insert(1);
        preflight::check_values(&self.config)?;
        self.config.master = None;
        let (listen, known) = (self.config.listen, self.config.servers.clone());
        let (seeds, shared) = self.seeds(shards, shards * SESSIONS_PER_SHARD_MAX)?;
        let protos = seeds[0].protos.clone();
        let world = Rc::new(World {
            executor: executor::executor_in_memory()?,
            clock: Rc::default(),
            backlogs: (0..shards).map(|_| Rc::default()).collect(),
            servers: Rc::default(),
            known,
            at_work: Rc::new(Cell::new(shards)),
            shared,
            protos,
            listen,
            opened: Cell::new(0),
            is_paused: Cell::new(false),
            patience: Cell::new(PATIENCE),
        });
        world.run(async {
            for (seed, backlog) in seeds.into_iter().zip(&world.backlogs) {
                let network = Network::Memory(MemoryNetwork {
                    clients: backlog.clone(),
                    servers: world.servers.clone(),
                });
                let at_work = world.at_work.clone();
                let shard = async move {
                    shard::run(seed, network).await;
                    at_work.set(at_work.get() - 1);
                };
                glommio::spawn_local(shard).detach();
            }
        });
        world.rest("the start");
        let gateway = InMemory { world };
        gateway.world.outcome()?;
        Ok(gateway)
    }
}

/// A gateway in memory, as a test sees it.
///
/// All its functions run the shards until they have nothing left to do at this time of the clock, and
/// panic when they do not come to that.
pub struct InMemory {
    world: Rc<World>,
}

impl InMemory {
    /// A client whose handshake is done, on the next shard in turn.
    ///
    /// # Panics
    /// When the gateway refuses it; [`Client::shake_hands`] is for tests of that.
    #[track_caller]
    pub fn connect(&self) -> Client {
        self.connect_with(ClientOptions::default())
    }

    /// The same with a handshake, an address or a shard of its own.
    ///
    /// # Panics
    /// As [`InMemory::connect`]; when there is no such shard.
    #[track_caller]
    pub fn connect_with(&self, options: ClientOptions) -> Client {
        let mut client = self.open(options);
        let answer = client.shake_hands();
        assert_eq!(answer["code"], 200, "the handshake was refused: {answer}");
        client
    }

    /// A connection on which no byte has been sent.
    ///
    /// # Panics
    /// When there is no such shard.
    #[track_caller]
    pub fn open(&self, options: ClientOptions) -> Client {
        let world = &self.world;
        let number = world.opened.replace(world.opened.get() + 1);
        let shards = world.backlogs.len();
        let shard = options.shard.unwrap_or(number % shards);
        assert!(
            shard < shards,
            "no shard {shard}: the gateway has the shards 0 to {}",
            shards - 1
        );
        let address = options.address.unwrap_or_else(|| {
            // As a kernel gives them.
            let port = 49_152 + (number % 16_384) as u16;
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        });
        let (stream, other) = memory::connection(address, world.listen);
        world.backlogs[shard].put(other);
        world.rest("a connection");
        Client::new(world.clone(), stream, options.handshake)
    }

    /// Stands in for a server of the configuration, which can be reached from now on; dropping it is
    /// the end of that server.
    ///
    /// # Panics
    /// When the configuration has no server of this id.
    #[track_caller]
    pub fn server(&self, id: &str) -> Server {
        let known = self.world.known.iter().find(|known| known.id == id);
        let known = known.unwrap_or_else(|| panic!("the configuration has no server {id:?}"));
        Server::new(self.world.clone(), known)
    }

    /// Moves the clock, through everything that happens by it meanwhile, in order.
    ///
    /// Cost: some microseconds for each 50 ms, the tick of a shard; an hour takes less than a second
    #[track_caller]
    pub fn advance(&mut self, by: Duration) {
        self.world.advance_to(self.world.clock.now() + by);
    }

    /// Stops all shards where they are, as SIGSTOP or the pause of a virtual machine does. Until
    /// [`InMemory::resume`] they do not run: what clients and servers send waits, and
    /// [`InMemory::advance`] moves nothing but the clock.
    pub fn pause(&mut self) {
        self.world.is_paused.set(true);
    }

    /// Lets the shards run again; their next tick is late.
    #[track_caller]
    pub fn resume(&mut self) {
        self.world.is_paused.set(false);
        self.world.rest("the end of a pause");
    }

    /// How much real time each call may take before it panics: what other threads do for a handler
    /// takes its time. Default one minute.
    pub fn set_patience(&mut self, patience: Duration) {
        self.world.patience.set(patience);
    }

    /// Time by the clock since the start.
    pub fn elapsed(&self) -> Duration {
        self.world.clock.elapsed()
    }

    /// Counters of now, added up over shards: `name=value name=value …`; zeros are left out.
    pub fn counters(&self) -> String {
        metrics::report(self.world.shared.counters.iter())
    }

    /// One of them; 0 for one that counts nothing.
    pub fn counter(&self, name: &str) -> u64 {
        let counters = self.counters();
        let mut pairs = counters.split(' ').filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(known, _)| *known == name);
        found.map_or(0, |(_, value)| {
            value.parse().expect("a counter is a number")
        })
    }

    /// The orderly stop: clients get their close, shards end. The clock moves as far as that takes.
    ///
    /// Errors: what ended the gateway before it was told to stop, if anything did
    #[track_caller]
    pub fn stop(self) -> Result<()> {
        self.world.stop();
        self.world.outcome()
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        // A test that has failed says what it has to say, and nothing of what a stop makes of it.
        if !std::thread::panicking() {
            self.world.stop();
        }
    }
}

/// The shards of a gateway in memory, and what they run on.
struct World {
    executor: LocalExecutor,
    clock: Rc<VirtualClock>,
    /// Where each shard accepts connections.
    backlogs: Vec<Rc<MemoryListener>>,
    /// Where servers are reached, and all that the configuration has.
    servers: Rc<MemoryServers>,
    known: Vec<config::Server>,
    /// Shards that have not ended.
    at_work: Rc<Cell<usize>>,
    shared: Shared,
    protos: Arc<Protos>,
    /// Where clients believe the gateway to be.
    listen: SocketAddr,
    /// Connections so far.
    opened: Cell<usize>,
    /// The shards do not run.
    is_paused: Cell<bool>,
    /// Real time for a call of the test.
    patience: Cell<Duration>,
}

/// How long a call of a test may go on.
#[derive(Clone, Copy)]
struct Limit(Instant);

impl Limit {
    fn is_over(self) -> bool {
        clock::real_now() >= self.0
    }

    /// Runs all tasks until none has anything to do; false when that takes too long.
    async fn rest(self) -> bool {
        let executor = glommio::executor();
        let mut quiet = 0;
        // Each turn runs whoever is ready, this task last, and the next one can tell how many those
        // were. The first one counts what was before.
        while quiet < 2 && !self.is_over() {
            executor.yield_task_queue_now().await;
            let alone = executor.executor_stats().tasks_executed() <= 1;
            quiet = if alone { quiet + 1 } else { 0 };
        }
        quiet == 2
    }
}

impl World {
    fn limit(&self) -> Limit {
        Limit(clock::real_now() + self.patience.get())
    }

    /// What has ended the gateway, if something but the test has.
    fn outcome(&self) -> Result<()> {
        self.shared.failure.get().cloned().map_or(Ok(()), Err)
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.clock.during(|| self.executor.run(future))
    }

    /// Runs the shards until they have nothing to do.
    #[track_caller]
    fn rest(&self, what: &str) {
        if !self.is_paused.get() && !self.run(self.limit().rest()) {
            self.give_up(what, "the shards are still busy");
        }
    }

    /// The same, and until `look` finds something: what comes from another thread takes its time.
    #[track_caller]
    fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let limit = self.limit();
        loop {
            self.rest(what);
            if let Some(found) = look() {
                return found;
            }
            assert!(
                !self.is_paused.get(),
                "{what} cannot arrive while the shards are paused; call `resume` first"
            );
            if limit.is_over() {
                self.give_up(
                    what,
                    "it did not arrive, and the shards have nothing left to do (call `advance` if a \
                     timer has to pass first)",
                );
            }
            self.run(clock::real_sleep(LOOK));
        }
    }

    #[track_caller]
    fn advance_to(&self, end: Instant) {
        if self.is_paused.get() {
            return self.clock.move_to(end);
        }
        let arrived = self.run(async {
            let limit = self.limit();
            let mut rests = limit.rest().await;
            while rests && let Some(at) = self.clock.next().filter(|at| *at <= end) {
                self.clock.move_to(at);
                rests = limit.rest().await;
            }
            self.clock.move_to(end);
            rests
        });
        if !arrived {
            self.give_up("advancing the clock", "the shards are still busy");
        }
    }

    #[track_caller]
    fn stop(&self) {
        self.is_paused.set(false);
        self.shared.stopper.stop();
        self.rest("the stop");
        let limit = self.limit();
        while self.at_work.get() > 0 {
            if limit.is_over() {
                self.give_up("the stop", "shards have not ended");
            }
            match self.clock.next() {
                Some(at) => self.advance_to(at),
                None => self.run(clock::real_sleep(LOOK)),
            }
        }
    }

    /// Writes all of it, as far as `write` does not find the other side gone.
    #[track_caller]
    fn send(&self, bytes: &[u8], write: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>) {
        let mut left = bytes;
        while !left.is_empty()
            && let Ok(written) = write(&[IoSlice::new(left)])
        {
            assert!(written > 0, "the gateway does not read what the test sends");
            left = &left[written..];
            self.rest("sending");
        }
    }

    #[track_caller]
    fn give_up(&self, what: &str, why: &str) -> ! {
        panic!("{what}: {why}, after {:?}", self.patience.get());
    }
}
