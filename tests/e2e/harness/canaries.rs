//! A hundred well-behaved clients beside an attack or a fault. None may lose its connection, or an answer, or see two
//! answers in the wrong order.

use std::mem;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::client::{Client, Message};

const COUNT: usize = 100;

/// Between two rounds of requests.
const PACE: Duration = Duration::from_millis(50);

/// Clients of one thread. In each round, each of them sends two requests and takes two answers.
pub(crate) struct Canaries {
    stop: Arc<AtomicBool>,
    times: Arc<Mutex<Vec<Duration>>>,
    thread: JoinHandle<()>,
}

impl Canaries {
    /// Starts a hundred, over both transports. `route` answers with the body that it gets.
    pub(crate) fn start(address: SocketAddr, route: &'static str) -> Self {
        let connect = [Client::tcp, Client::websocket];
        Self::connected(COUNT, route, |n| connect[n % 2](address))
    }

    /// Starts some that this function connects.
    pub(crate) fn connected(
        count: usize,
        route: &'static str,
        connect: impl Fn(usize) -> Client,
    ) -> Self {
        let clients = (0..count).map(|n| connect(n).open()).collect();
        let stop = Arc::<AtomicBool>::default();
        let times = Arc::<Mutex<Vec<Duration>>>::default();
        let (is_over, of_thread) = (stop.clone(), times.clone());
        let thread = thread::spawn(move || ask(clients, route, &is_over, &of_thread));
        Self {
            stop,
            times,
            thread,
        }
    }

    /// Takes the times of the answers since the last call.
    pub(crate) fn take_times(&self) -> Vec<Duration> {
        assert!(!self.thread.is_finished(), "a canary is harmed");
        mem::take(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends them. Each got each answer.
    pub(crate) fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.thread.join().is_ok(), "a canary is harmed");
    }
}

fn ask(
    mut clients: Vec<Client>,
    route: &'static str,
    is_over: &AtomicBool,
    times: &Mutex<Vec<Duration>>,
) {
    let mut id = 0;
    while !is_over.load(Ordering::Relaxed) {
        for client in &mut clients {
            let ids = [id + 1, id + 2];
            let body = |id: u32| format!(r#"{{"n":{id}}}"#);
            let begun = Instant::now();
            for id in ids {
                client.request(id, route, body(id));
            }
            for id in ids {
                assert_eq!(next_response(client), (id, body(id).into_bytes()));
                let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
                times.push(begun.elapsed());
            }
        }
        // Ids of 31 bits begin again.
        id = (id + 2) % (1 << 30);
        thread::sleep(PACE);
    }
}

/// Passes over what is pushed to everybody.
fn next_response(client: &mut Client) -> (u32, Vec<u8>) {
    loop {
        if let Message::Response { id, body } = client.next_message() {
            return (id, body);
        }
    }
}

/// The 99th percentile; zero of none.
pub(crate) fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times
        .get(times.len() * 99 / 100)
        .copied()
        .unwrap_or_default()
}
