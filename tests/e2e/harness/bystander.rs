//! A gateway under attack, and well-behaved clients beside it that must not notice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::client::{Client, HANG_GUARD};
use crate::harness::gateway::Gateway;

pub(crate) const ECHO: &str = "connector.entryHandler.echo";

/// Between two requests of one bystander.
const PACE: Duration = Duration::from_millis(3);

/// A gateway with its embedded room, and bystanders over both transports.
pub(crate) struct Attacked {
    gateway: Gateway,
    bystanders: Vec<Bystander>,
}

impl Attacked {
    /// With several shards, there are enough bystanders that nearly each shard has some.
    pub(crate) fn start(shards: usize, args: &[&str]) -> Self {
        let shards_text = shards.to_string();
        // An attack over a second is shorter than over the minutes that a rate would make of it.
        let own = [
            "--shards",
            &shards_text,
            "--set",
            "client.messages_per_second=off",
            "--set",
            "client.bytes_per_second=off",
        ];
        let args: Vec<&str> = own.iter().chain(args).copied().collect();
        Self::over(Gateway::start(&args), shards)
    }

    pub(crate) fn over(gateway: Gateway, shards: usize) -> Self {
        // Shown only when the test fails.
        println!("--- on {shards} shards");
        let address = gateway.address();
        let count = if shards == 1 { 1 } else { shards + 2 };
        let bystanders = (0..count).flat_map(|_| {
            let tcp = Bystander::start("TCP", Client::tcp(address).open());
            let websocket = Bystander::start("WebSocket", Client::websocket(address).open());
            [tcp, websocket]
        });
        Self {
            bystanders: bystanders.collect(),
            gateway,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    pub(crate) fn gateway(&mut self) -> &mut Gateway {
        &mut self.gateway
    }

    /// Runs one attack. Afterwards connections have ended for exactly these reasons, the attack has
    /// left no connection behind, and every bystander got an answer that it asked for later.
    pub(crate) fn attack(
        &mut self,
        name: &str,
        reasons: &[(&str, u64)],
        attack: impl FnOnce(SocketAddr),
    ) {
        let expected = reasons.iter().map(|(name, n)| ((*name).to_owned(), *n));
        let expected: BTreeMap<String, u64> = expected.collect();
        self.attack_until(name, |closed| *closed == expected, attack);
    }

    /// The same without the reasons: `connections` have ended.
    pub(crate) fn attack_somehow(
        &mut self,
        name: &str,
        connections: u64,
        attack: impl FnOnce(SocketAddr),
    ) {
        let over = |closed: &BTreeMap<String, u64>| closed.values().sum::<u64>() == connections;
        self.attack_until(name, over, attack);
    }

    fn attack_until(
        &mut self,
        name: &str,
        over: impl Fn(&BTreeMap<String, u64>) -> bool,
        attack: impl FnOnce(SocketAddr),
    ) {
        println!("attack: {name}");
        let before = self.gateway.counters();
        attack(self.gateway.address());
        let connections = self.bystanders.len() as u64;
        let deadline = Instant::now() + HANG_GUARD;
        loop {
            let now = self.gateway.counters();
            let closed = now.iter().filter(|(name, _)| name.starts_with("closed_"));
            let closed = closed.filter_map(|(name, n)| {
                let more = n - before.get(name).copied().unwrap_or_default();
                (more > 0).then(|| (name.clone(), more))
            });
            let closed: BTreeMap<String, u64> = closed.collect();
            if over(&closed) && now.get("connections") == Some(&connections) {
                break;
            }
            assert!(Instant::now() < deadline, "{name}: {closed:?} in {now:?}");
        }
        self.assert_unharmed();
    }

    /// Every bystander gets an answer to a request that it makes from now on.
    pub(crate) fn assert_unharmed(&self) {
        for bystander in &self.bystanders {
            bystander.assert_unharmed();
        }
    }

    /// The bystanders got every answer, new clients still get in on every transport, and the
    /// process, which ends when one of its shards does, ends only now and in order.
    pub(crate) fn finish(self) {
        for bystander in self.bystanders {
            bystander.finish();
        }
        for _ in 0..8 {
            let address = self.gateway.address();
            for client in [Client::tcp(address), Client::websocket(address)] {
                assert_eq!(client.open().request_text(ECHO, "[1]"), "[1]");
            }
        }
        let (code, printed) = self.gateway.stop();
        assert_eq!(code, Some(0), "{printed}");
        assert!(!printed.contains("panicked"), "{printed}");
    }
}

/// A client that asks for echoes until it is told to stop, and must get every one.
struct Bystander {
    name: &'static str,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answers: AtomicU64,
}

impl Bystander {
    fn start(name: &'static str, mut client: Client) -> Self {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let shared = of_thread;
            while !shared.stop.load(Ordering::Relaxed) {
                let n = shared.answers.load(Ordering::Relaxed);
                let body = format!(r#"{{"n":{n}}}"#);
                assert_eq!(client.request_text(ECHO, &body), body, "{name} bystander");
                shared.answers.store(n + 1, Ordering::Relaxed);
                thread::sleep(PACE);
            }
        });
        Self {
            name,
            shared,
            thread,
        }
    }

    fn assert_unharmed(&self) {
        let answers = || self.shared.answers.load(Ordering::Relaxed);
        // The first one may be the answer to a request of before.
        let enough = answers() + 2;
        let deadline = Instant::now() + HANG_GUARD;
        while answers() < enough {
            let dead = self.thread.is_finished() || Instant::now() >= deadline;
            assert!(!dead, "the {} bystander is harmed", self.name);
            thread::sleep(PACE);
        }
    }

    fn finish(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let name = self.name;
        let ended = self.thread.join();
        assert!(ended.is_ok(), "the {name} bystander is harmed");
    }
}
