//! The whole gateway inside a test, without sockets and threads, and with a clock that only the test
//! moves.
//!
//! [`Gateway::in_memory`] starts all parts that [`Gateway::start`] does: all shards with their
//! dispatch, filters, handlers, push schedulers and timers, and the mesh between them. They run on the
//! calling thread, during the calls of these functions, until none of them has work left. So a test has
//! the same result each time. A [`Client`] speaks the same protocol as a real one.
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
//! **Absent**: ports and their checks, the master, and other servers. Forwards and calls to the servers
//! of the configuration fail as if no server listened, unless the test creates a [`Server`] for one.
//! Work on other threads takes real time; [`Client::request`] waits for it.
//!
//! **Invariants**: a call of a test takes at most a minute of real time ([`InMemory::set_patience`]).
//! Then it panics and names what it waited for.
//!
//! **Where to start reading**: [`InMemory`], then [`Client`].

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glommio::LocalExecutor;

use super::{Gateway, Shared, drained, executor};
use crate::checked::CheckedConfig;
use crate::client::coder::Protos;
use crate::config;
use crate::error::Result;
use crate::limits::SESSIONS_PER_SHARD_MAX;
use crate::metrics;
use crate::net::clock::{self, VirtualClock};
use crate::net::memory::{self, MemoryListener, MemoryNetwork, MemoryServers};
use crate::net::task;
use crate::net::{Network, UNIX_CLIENT};
use crate::shard;

mod caller;
mod client;
mod server;

pub use caller::CallingServer;
pub use client::{Client, ClientOptions};
pub use server::{Server, ServerCall};

/// Longest real time of one call of a test, unless the test sets another. Long enough for a busy
/// machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two checks for results of other threads.
const LOOK: Duration = Duration::from_millis(1);

/// Runs the shards of gateways in memory, of one after the other.
pub(crate) type MemoryExecutor = Rc<LocalExecutor>;

/// Makes an executor for gateways in memory on this thread.
pub(crate) fn memory_executor() -> Result<MemoryExecutor> {
    executor::executor_in_memory().map(Rc::new)
}

impl Gateway {
    /// Starts the gateway for a test: on this thread, without sockets, with a virtual clock.
    ///
    /// Errors: those of [`Gateway::start`] about the configuration, and a machine without io_uring
    /// Cost:   about a millisecond, and one descriptor that glommio never gives back
    pub fn in_memory(self) -> Result<InMemory> {
        self.in_memory_on(memory_executor()?)
    }

    /// The same on the executor of an earlier gateway of this thread that has ended, which costs no descriptor.
    pub(crate) fn in_memory_on(mut self, executor: MemoryExecutor) -> Result<InMemory> {
        // A number of the machine would make the test depend on it.
        let shards = *self.config.shards.get_or_insert(1);
        self.config.master = None;
        let config = CheckedConfig::new(std::mem::take(&mut self.config))?;
        let known = config.servers.clone();
        let listen = config.address_of(&config.client_listeners()[0]).tcp();
        let listen = listen.unwrap_or(UNIX_CLIENT);
        let callers_max = shard::callers_max(&config);
        let (seeds, shared) =
            self.seeds(config, shards, shards * SESSIONS_PER_SHARD_MAX, callers_max)?;
        let protos = seeds[0].protos.clone();
        let world = Rc::new(World {
            executor,
            clock: Rc::default(),
            backlogs: (0..shards).map(|_| Rc::default()).collect(),
            callers: Rc::default(),
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
                    callers: world.callers.clone(),
                    servers: world.servers.clone(),
                });
                let at_work = world.at_work.clone();
                let shard = async move {
                    shard::run(seed, network).await;
                    at_work.set(at_work.get() - 1);
                };
                task::spawn(shard).detach();
            }
        });
        world.rest("the start");
        let gateway = InMemory { world };
        gateway.world.outcome()?;
        Ok(gateway)
    }
}

/// A gateway in memory.
///
/// Each function runs the shards until they have no work left at this time of the clock. It panics if
/// that takes too long.
pub struct InMemory {
    world: Rc<World>,
}

impl InMemory {
    /// Connects a client and completes its handshake, on the next shard in turn.
    ///
    /// # Panics
    /// If the gateway refuses the handshake; use [`Client::shake_hands`] to test that.
    #[track_caller]
    pub fn connect(&self) -> Client {
        self.connect_with(ClientOptions::default())
    }

    /// Connects a client with its own handshake, address or shard.
    ///
    /// # Panics
    /// Like [`InMemory::connect`]; also if there is no such shard.
    #[track_caller]
    pub fn connect_with(&self, options: ClientOptions) -> Client {
        let mut client = self.open(options);
        let answer = client.shake_hands();
        assert_eq!(answer["code"], 200, "the handshake was refused: {answer}");
        client
    }

    /// Opens a connection without sending a byte.
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
            // The range of a kernel.
            let port = 49_152 + (number % 16_384) as u16;
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        });
        let (stream, other) = memory::connection(address, world.listen);
        world.backlogs[shard].put(other);
        world.rest("a connection");
        Client::new(world.clone(), stream, options.handshake)
    }

    /// Creates a server of the configuration, which shards can dial from now on. Dropping it ends that
    /// server.
    ///
    /// # Panics
    /// When the configuration has no server of this id.
    #[track_caller]
    pub fn server(&self, id: &str) -> Server {
        let known = self.world.known.iter().find(|known| known.id == id);
        let known = known.unwrap_or_else(|| panic!("the configuration has no server {id:?}"));
        Server::new(self.world.clone(), known)
    }

    /// Opens a connection of another server to the gateway, for calls. The server need not be in the configuration;
    /// `rpc.allow` says who may call.
    #[track_caller]
    pub fn caller(&self, address: IpAddr) -> CallingServer {
        let world = &self.world;
        let (stream, other) = memory::connection(SocketAddr::new(address, 1), world.listen);
        world.callers.put(other);
        world.rest("a connection");
        CallingServer::new(world.clone(), stream)
    }

    /// Moves the clock forward and runs everything that is due on the way, in order.
    ///
    /// Cost: some microseconds per tick of a shard (50 ms); an hour takes less than a second
    #[track_caller]
    pub fn advance(&mut self, by: Duration) {
        self.world.advance_to(self.world.clock.now() + by);
    }

    /// Pauses all shards, like SIGSTOP or the pause of a virtual machine. Until [`InMemory::resume`]
    /// they do not run: bytes of clients and servers wait, and [`InMemory::advance`] moves only the
    /// clock.
    pub fn pause(&mut self) {
        self.world.is_paused.set(true);
    }

    /// Lets the shards run again; their next tick is late.
    #[track_caller]
    pub fn resume(&mut self) {
        self.world.is_paused.set(false);
        self.world.rest("the end of a pause");
    }

    /// Sets the real time that a call may take before it panics, because work on other threads takes
    /// real time. Default one minute.
    pub fn set_patience(&mut self, patience: Duration) {
        self.world.patience.set(patience);
    }

    /// Returns the time of the clock since the start.
    pub fn elapsed(&self) -> Duration {
        self.world.clock.elapsed()
    }

    /// Returns the counters, added up over shards: `name=value name=value …`, without zeros.
    pub fn counters(&self) -> String {
        metrics::report(self.world.shared.counters.iter())
    }

    /// Returns a function that returns the counters, also after the gateway has ended.
    pub fn counters_reader(&self) -> impl Fn() -> String + 'static {
        let counters = self.world.shared.counters.clone();
        move || metrics::report(counters.iter())
    }

    /// Returns one counter, or 0 for an unknown one.
    pub fn counter(&self, name: &str) -> u64 {
        let counters = self.counters();
        let mut pairs = counters.split(' ').filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(known, _)| *known == name);
        found.map_or(0, |(_, value)| {
            value.parse().expect("a counter is a number")
        })
    }

    /// Returns one counter without a search of its name.
    #[cfg(feature = "internals")]
    pub(crate) fn count(&self, counter: metrics::Counter) -> u64 {
        let shards = self.world.shared.counters.iter();
        shards.map(|of_shard| of_shard.get(counter)).sum()
    }

    /// Begins a drain, as SIGTERM does. It lasts while the test moves the clock.
    #[track_caller]
    pub fn begin_drain(&mut self) {
        self.world.shared.stopper.drain();
        self.world.rest("the beginning of the drain");
    }

    /// Stops the gateway: closes the clients and ends the shards. Moves the clock as far as needed.
    ///
    /// Errors: the error that ended the gateway before the stop, if any
    #[track_caller]
    pub fn stop(self) -> Result<()> {
        self.world.stop();
        self.world.outcome()
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        // A failed test reports its own panic, without a second one from the stop.
        if !std::thread::panicking() {
            self.world.stop();
        }
    }
}

/// The shards of a gateway in memory, and their environment.
struct World {
    executor: MemoryExecutor,
    clock: Rc<VirtualClock>,
    /// Accept queue of each shard.
    backlogs: Vec<Rc<MemoryListener>>,
    /// Accept queue for calls from other servers.
    callers: Rc<MemoryListener>,
    /// Accept queues of servers, and the servers of the configuration.
    servers: Rc<MemoryServers>,
    known: Vec<config::Server>,
    /// Shards that have not ended.
    at_work: Rc<Cell<usize>>,
    shared: Shared,
    protos: Arc<Protos>,
    /// Address of the gateway, as clients see it.
    listen: SocketAddr,
    /// Number of connections opened so far.
    opened: Cell<usize>,
    /// True while the shards are paused.
    is_paused: Cell<bool>,
    /// Longest real time of a call.
    patience: Cell<Duration>,
}

/// The deadline of a call, in real time.
#[derive(Clone, Copy)]
struct Limit(Instant);

impl Limit {
    fn is_over(self) -> bool {
        clock::real_now() >= self.0
    }

    /// Runs all tasks until none has work left. Returns false if that takes too long.
    async fn rest(self) -> bool {
        let executor = glommio::executor();
        let mut quiet = 0;
        // Each turn runs all ready tasks, this one last. The next turn counts them; the first count
        // includes tasks before this loop.
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

    /// Returns the error that ended the gateway, or of a drain that had to cut clients.
    fn outcome(&self) -> Result<()> {
        match self.shared.failure.get() {
            Some(error) => Err(error.clone()),
            None => drained(&self.shared.counters),
        }
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.clock.during(|| self.executor.run(future))
    }

    /// Runs the shards until they have no work left.
    #[track_caller]
    fn rest(&self, what: &str) {
        if !self.is_paused.get() && !self.run(self.limit().rest()) {
            self.give_up(what, "the shards are still busy");
        }
    }

    /// Runs the shards until `look` returns a value. Results of other threads take real time.
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

    /// Writes all bytes, unless the other side has closed.
    #[track_caller]
    fn send(&self, bytes: &[u8], write: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>) {
        let sent = self.offer(bytes, write);
        assert!(
            sent.is_none_or(|sent| sent == bytes.len()),
            "the gateway does not read what the test sends"
        );
    }

    /// Writes the bytes that the other side takes. Returns their number, or `None` if it has closed.
    #[track_caller]
    fn offer(
        &self,
        bytes: &[u8],
        write: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Option<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            let written = write(&[IoSlice::new(&bytes[sent..])]).ok()?;
            if written == 0 {
                break;
            }
            sent += written;
            self.rest("sending");
        }
        Some(sent)
    }

    #[track_caller]
    fn give_up(&self, what: &str, why: &str) -> ! {
        panic!("{what}: {why}, after {:?}", self.patience.get());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::config::Config;
    use crate::handler::{App, Router};
    use crate::ids::ShardId;
    use crate::time::TICK;

    thread_local! {
        /// Time that each message of the first client costs, and the order in which messages are handled.
        static COST: Cell<Duration> = Cell::default();
        static HANDLED: RefCell<Vec<&'static str>> = RefCell::default();
    }

    async fn costly(_: Bytes) {
        clock::pass(COST.get());
        HANDLED.with_borrow_mut(|handled| handled.push("costly"));
    }

    async fn other(_: Bytes) {
        HANDLED.with_borrow_mut(|handled| handled.push("other"));
    }

    #[test]
    fn a_session_whose_messages_are_costly_lets_others_run_after_two_milliseconds() {
        for (cost_us, handled_first) in [(0, 64), (100, 32), (1000, 16)] {
            COST.set(Duration::from_micros(cost_us));
            let router = |_| {
                let router = Router::new().route("connector.a.costly", costly);
                router.route("connector.a.other", other)
            };
            let gateway = Gateway::new(Config::default()).handlers(router);
            let mut gateway = gateway.in_memory().unwrap();
            let [mut busy, mut bystander] = [(); 2].map(|()| gateway.connect());
            gateway.pause();
            for _ in 0..64 {
                busy.notify("connector.a.costly", &1);
            }
            bystander.notify("connector.a.other", &1);
            gateway.resume();
            let handled = HANDLED.take();
            let before = handled.iter().position(|one| *one == "other");
            assert_eq!((handled.len(), before), (65, Some(handled_first)));
        }
    }

    #[test]
    fn calls_that_wait_for_a_link_are_in_the_ledger_of_memory() {
        let chat = config::Server {
            id: "chat-1".into(),
            server_type: "chat".into(),
            host: "chat.example".into(),
            port: 1,
            ..config::Server::default()
        };
        let config = Config {
            dialect: config::Dialect::Pinus,
            servers: vec![chat],
            ..Config::default()
        };
        let answer_timeout = config.rpc.answer_timeout;
        let mut gateway = Gateway::new(config).in_memory().unwrap();
        // It accepts no connection, so that no pong comes.
        let _hung = gateway.world.servers.listen("chat.example", 1);
        let mut client = gateway.connect();
        let text = "x".repeat(50_000);
        for _ in 0..10 {
            client.ask("chat.chatHandler.send", &text);
        }
        gateway.advance(2 * TICK);
        let held = |gateway: &InMemory| gateway.counter("memory_output_bytes") as usize;
        let waiting = held(&gateway);
        assert!((500_000..1_200_000).contains(&waiting), "{waiting} bytes");
        gateway.advance(answer_timeout);
        assert!(held(&gateway) < 100_000, "{} bytes", held(&gateway));
    }

    #[test]
    fn a_clock_that_is_set_moves_crons_alone() {
        const SECOND: Duration = Duration::from_secs(1);
        let runs = Arc::new(AtomicU64::new(0));
        let hourly = runs.clone();
        let router = move |_: ShardId| {
            let hourly = hourly.clone();
            let router = Router::new().route("connector.a.slow", async |app: App| {
                app.sleep(5 * SECOND).await;
            });
            router.cron_at("0 0 * * * *", "hourly", async move |_| {
                hourly.fetch_add(1, Ordering::Relaxed);
            })
        };
        let mut config = Config::default();
        config.client.heartbeat = Some(3 * SECOND);
        let gateway = Gateway::new(config).handlers(router);
        let mut gateway = gateway.in_memory().unwrap();
        let mut client = gateway.connect();
        // It is midnight: half past five, then half an hour back, then hours back, then on again.
        for (minutes_ahead, crons) in [(330, 1), (-30, 1), (-240, 1), (57, 2)] {
            let asked = client.ask("connector.a.slow", &1);
            let world = gateway.world.clone();
            world.clock.during(|| clock::set_wall_clock(minutes_ahead));
            for second in 1..=62 {
                gateway.advance(SECOND);
                client.heartbeat();
                assert_eq!(client.answer(asked).is_some(), second == 5, "{second}");
            }
            assert_eq!(runs.load(Ordering::Relaxed), crons, "{minutes_ahead}");
        }
        assert!(!client.is_closed());
        assert_eq!(gateway.counter("pauses"), 0);
    }
}
