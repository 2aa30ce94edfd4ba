//! A shard sleeps without ticks only while nothing in it has a deadline.
//!
//! The tick that finds no deadline and the event that sets one may come in one look of the shard at its
//! sockets. A handler that blocks the shard brings them together here.
#![cfg(feature = "runtime")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test has threads of its own, and the time of the clock"
)]

use std::fs;
use std::future::poll_fn;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::task::{Poll, Waker};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use tangelo::handler::{Answer, Outcome, Router};
use tangelo::{Config, Gateway, Running};

const MS: Duration = Duration::from_millis(1);
/// The test that counts the descriptors of this process writes; the others read.
static DESCRIPTORS: RwLock<()> = RwLock::new(());
/// Nothing in these tests takes so long, on any machine.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Time without a byte after which the gateway closes a client of raw TCP.
const IDLE: Duration = Duration::from_secs(1);
/// Time after which the timer wheel has forgotten a client without a deadline, and the shard dozes.
const DOZES_AFTER: Duration = Duration::from_millis(2500);
/// A tick is due in a handler that blocks for this long.
const SHORT: Duration = Duration::from_millis(100);
/// Longer than any deadline of these tests.
const LONG: Duration = Duration::from_secs(2);

struct Client {
    socket: TcpStream,
    is_websocket: bool,
}

impl Client {
    /// Connects, and sends nothing.
    fn silent(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self {
            socket,
            is_websocket: false,
        }
    }

    fn tcp(address: SocketAddr) -> Self {
        Self::silent(address).handshake()
    }

    /// A client that never has a deadline.
    fn websocket(address: SocketAddr) -> Self {
        let mut client = Self::silent(address);
        let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        client.socket.write_all(upgrade.as_bytes()).unwrap();
        client.read();
        client.is_websocket = true;
        client.handshake()
    }

    fn handshake(mut self) -> Self {
        self.package(1, br#"{"sys":{"type":"x","version":"1"},"user":{}}"#);
        self.read();
        self.package(2, b"");
        self
    }

    fn request(&mut self, route: &str) {
        let mut message = vec![0, 1, route.len() as u8];
        message.extend_from_slice(route.as_bytes());
        message.extend_from_slice(b"{}");
        self.package(4, &message);
    }

    fn package(&mut self, kind: u8, body: &[u8]) {
        let bytes = body.len() as u8;
        let mut out = Vec::new();
        if self.is_websocket {
            assert!(bytes < 122);
            out.extend_from_slice(&[0x82, 0x80 | (bytes + 4), 0, 0, 0, 0]);
        }
        out.extend_from_slice(&[kind, 0, 0, bytes]);
        out.extend_from_slice(body);
        self.socket.write_all(&out).unwrap();
    }

    /// Returns the next bytes; none at the end.
    fn read(&mut self) -> Vec<u8> {
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Ok(bytes) => buffer[..bytes].to_vec(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    fn wait_until_closed(&mut self) {
        while !self.read().is_empty() {}
    }
}

/// Adds two handlers that block their shard.
fn blocking(router: Router) -> Router {
    let block = |router: Router, route, time| {
        router.raw_route(route, move |_| {
            sleep(time);
            Answer::now(Outcome::json(&b"{}"[..]))
        })
    };
    block(
        block(router, "connector.h.short", SHORT),
        "connector.h.long",
        LONG,
    )
}

fn start(
    shards: usize,
    stop_timeout: Duration,
    router: impl Fn() -> Router + Send + Sync + 'static,
) -> Running {
    let mut config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        shards: Some(shards),
        server_type: "connector".into(),
        id: "connector-1".into(),
        stop_timeout,
        ..Config::default()
    };
    config.client.timeout = Some(IDLE);
    config.client.idle_websocket = false;
    let gateway = Gateway::new(config).handlers(move |_| router());
    gateway.start().unwrap()
}

fn stop(gateway: Running) {
    gateway.stopper().stop();
    gateway.join().unwrap();
}

#[test]
fn a_silent_client_is_closed_although_it_came_as_the_shard_dozed_off() {
    let _shared = DESCRIPTORS.read().unwrap_or_else(PoisonError::into_inner);
    let gateway = start(1, TIMEOUT, || blocking(Router::new()));
    let mut other = Client::websocket(gateway.address());
    sleep(DOZES_AFTER);
    other.request("connector.h.short");
    sleep(SHORT / 3);
    Client::silent(gateway.address()).wait_until_closed();
    stop(gateway);
}

#[test]
fn a_pause_that_begins_as_the_shard_dozes_off_cuts_nobody() {
    let _shared = DESCRIPTORS.read().unwrap_or_else(PoisonError::into_inner);
    let gateway = start(1, TIMEOUT, || blocking(Router::new()));
    let mut others = [(); 2].map(|()| Client::websocket(gateway.address()));
    sleep(DOZES_AFTER);
    others[0].request("connector.h.short");
    sleep(SHORT / 3);
    let mut client = Client::silent(gateway.address());
    sleep(SHORT / 10);
    others[1].request("connector.h.long");
    sleep(LONG / 4);
    // In time, but the shard is paused until long after.
    client.package(1, br#"{"sys":{"type":"x","version":"1"},"user":{}}"#);
    assert!(!client.read().is_empty(), "it gets its handshake");
    stop(gateway);
}

#[test]
fn a_shard_keeps_its_clients_until_the_application_has_ended_on_all_shards() {
    let _shared = DESCRIPTORS.read().unwrap_or_else(PoisonError::into_inner);
    const ENDS_AFTER: Duration = Duration::from_millis(2600);
    let make = || {
        let router = blocking(Router::new()).raw_route("connector.h.shard", |request| {
            let shard = request.session.app().shard().0;
            Answer::now(Outcome::json(format!("{{\"shard\":{shard}}}").into_bytes()))
        });
        router.before_stop(async |app| {
            if app.shard().0 == 0 {
                app.sleep(ENDS_AFTER).await;
            }
        })
    };
    let gateway = start(2, ENDS_AFTER + 400 * MS, make);
    let on_shard_1 = |connect: fn(SocketAddr) -> Client| {
        loop {
            let mut client = connect(gateway.address());
            client.request("connector.h.shard");
            if client.read().ends_with(b"\"shard\":1}") {
                return client;
            }
        }
    };
    let mut stays = on_shard_1(Client::websocket);
    let mut leaves = on_shard_1(Client::tcp);
    // Now the time of shard 1 is behind the clock.
    leaves.request("connector.h.long");
    leaves.read();
    sleep(2 * SHORT);
    let stopped = Instant::now();
    gateway.stopper().stop();
    drop(leaves);
    stays.wait_until_closed();
    assert!(stopped.elapsed() >= ENDS_AFTER, "{:?}", stopped.elapsed());
    gateway.join().unwrap();
}

#[test]
fn a_wake_up_after_the_end_of_a_shard_leaves_no_descriptor_open() {
    let _alone = DESCRIPTORS.write().unwrap_or_else(PoisonError::into_inner);
    // Some belong to glommio, which does not close them.
    let [without, with] = [false, true].map(descriptors_left);
    assert_eq!(with, without);
}

/// Starts and stops gateways with a future that another thread wakes, perhaps once more at the end. Returns how
/// many descriptors are still open.
fn descriptors_left(wakes_late: bool) -> usize {
    let files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let round = || {
        let (sender, wakers) = mpsc::channel::<Waker>();
        let sender = Arc::new(Mutex::new(sender));
        let make = move || {
            let sender = sender.clone();
            Router::new().raw_route("connector.h.wait", move |_| {
                let sender = sender.clone();
                Answer::later(async move {
                    let mut is_woken = false;
                    poll_fn(|cx| {
                        if std::mem::replace(&mut is_woken, true) {
                            return Poll::Ready(());
                        }
                        let waker = cx.waker().clone();
                        sender.lock().unwrap().send(waker).unwrap();
                        Poll::Pending
                    })
                    .await;
                    Outcome::json(&b"{}"[..])
                })
            })
        };
        let gateway = start(1, Duration::ZERO, make);
        let mut client = Client::websocket(gateway.address());
        client.request("connector.h.wait");
        let waker = wakers.recv().unwrap();
        waker.wake_by_ref();
        client.read();
        stop(gateway);
        if wakes_late {
            thread::spawn(move || waker.wake()).join().unwrap();
        }
    };
    round();
    let before = files();
    (0..5).for_each(|_| round());
    files() - before
}
