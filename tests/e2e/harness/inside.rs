//! A gateway inside this process, with handlers that the test wrote.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Instant;

use tangelo::handler::Router;
use tangelo::{Config, Gateway, Running};

use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::ledger::{self, Counters};
use crate::harness::process::POLL_INTERVAL;

/// A running gateway. Dropping it stops it and waits for its end.
pub(crate) struct Inside {
    /// `None` once it has been stopped.
    running: Option<Running>,
}

impl Inside {
    /// Starts on a free port of the loopback; `config` has everything else.
    pub(crate) fn start(
        shards: usize,
        config: Config,
        handlers: impl Fn() -> Router + Send + Sync + 'static,
    ) -> Self {
        println!("--- on {shards} shards");
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            shards: Some(shards),
            ..config
        };
        Self::with(config, handlers)
    }

    /// Starts with this configuration as it is, but for one thing: other tests run on the same
    /// cores.
    pub(crate) fn with(
        config: Config,
        handlers: impl Fn() -> Router + Send + Sync + 'static,
    ) -> Self {
        Self::try_with(config, handlers).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Tries to.
    pub(crate) fn try_with(
        config: Config,
        handlers: impl Fn() -> Router + Send + Sync + 'static,
    ) -> tangelo::Result<Self> {
        // The start changes the panic hook for a moment, which is one for the whole process.
        static STARTING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let gateway = Gateway::new(config).handlers(move |_| handlers());
        let running = Some(gateway.start()?);
        Ok(Self { running })
    }

    /// Runs a test on a gateway of each kind.
    pub(crate) fn on_one_shard_and_on_four(
        config: &Config,
        handlers: impl Fn() -> Router + Clone + Send + Sync + 'static,
        mut test: impl FnMut(&Self),
    ) {
        for shards in [1, 4] {
            let inside = Self::start(shards, config.clone(), handlers.clone());
            test(&inside);
            inside.stop();
        }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the gateway was not stopped")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running().address()
    }

    pub(crate) fn counters(&self) -> Counters {
        ledger::parsed(&self.running().counters())
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters().get(name).copied().unwrap_or_default()
    }

    /// Waits until a counter is at least `least`.
    pub(crate) fn wait_counter(&self, name: &str, least: u64) {
        self.wait_until(name, &format!("at least {least}"), |value| value >= least);
    }

    /// Waits until a number that may also fall is `value`.
    pub(crate) fn wait_gauge(&self, name: &str, value: u64) {
        self.wait_until(name, &value.to_string(), |found| found == value);
    }

    fn wait_until(&self, name: &str, expected: &str, is_reached: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + HANG_GUARD;
        while !is_reached(self.counter(name)) {
            let late = Instant::now() >= deadline;
            assert!(
                !late,
                "waited for {name}, {expected}: {:?}",
                self.counters()
            );
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Two clients over each transport for each shard, on hopefully all of them. Each shard has
    /// taken their acknowledgements, so a broadcast of one client reaches all others.
    pub(crate) fn clients(&self) -> Vec<Client> {
        let ignored = self.counter("packages_ignored");
        let count = 2 * self.running().shards();
        let pairs = (0..count).flat_map(|_| {
            let tcp = Client::tcp(self.address()).open();
            [tcp, Client::websocket(self.address()).open()]
        });
        let mut clients: Vec<Client> = pairs.collect();
        // Nothing answers an acknowledgement, but a second one is ignored and counted.
        for client in &mut clients {
            client.ack();
        }
        let opened = u64::try_from(clients.len()).expect("a few clients");
        self.wait_counter("packages_ignored", ignored + opened);
        clients
    }

    /// Tells it to stop, and does not wait.
    pub(crate) fn begin_stop(&self) {
        self.running().stopper().stop();
    }

    /// Tells it to drain, as SIGTERM does, and does not wait.
    pub(crate) fn begin_drain(&self) {
        self.running().stopper().drain();
    }

    /// Waits for the end of a gateway that the test has already told to stop.
    pub(crate) fn join(mut self) -> tangelo::Result<()> {
        self.running.take().map_or(Ok(()), Running::join)
    }

    /// Reads counters even when it has ended.
    pub(crate) fn reader(&self) -> impl Fn() -> String + 'static {
        self.running().counters_reader()
    }

    /// Stops it; it must end in order.
    pub(crate) fn stop(mut self) {
        let ended = self.end();
        assert_eq!(ended, Some(Ok(())), "the gateway ended with an error");
    }

    fn end(&mut self) -> Option<tangelo::Result<()>> {
        let running = self.running.take()?;
        if !thread::panicking() {
            ledger::settle(|| ledger::parsed(&running.counters()));
        }
        running.stopper().stop();
        let read = running.counters_reader();
        let ended = running.join();
        if ended.is_ok() && !thread::panicking() {
            ledger::check_last(&ledger::parsed(&read()));
        }
        Some(ended)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.end();
    }
}

/// Holds futures back until the test lets them go on, from its own thread.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    open: bool,
    wakers: Vec<Waker>,
    waiting: BTreeSet<u64>,
    last: u64,
}

impl Gate {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn pass(self) {
        let mine = {
            let mut held = self.held();
            held.last += 1;
            held.last
        };
        poll_fn(|cx| {
            let mut held = self.held();
            if held.open {
                held.waiting.remove(&mine);
                return Poll::Ready(());
            }
            held.waiting.insert(mine);
            held.wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn wait_for(&self, waiting: usize) {
        let deadline = Instant::now() + HANG_GUARD;
        while self.held().waiting.len() < waiting {
            assert!(Instant::now() < deadline, "no handler waits at the gate");
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// How many are held back now.
    pub(crate) fn waiting(&self) -> usize {
        self.held().waiting.len()
    }

    pub(crate) fn open(&self) {
        let wakers = {
            let mut held = self.held();
            held.open = true;
            std::mem::take(&mut held.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}
