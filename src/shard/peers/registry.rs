//! What the switch does for the cluster: keeps the link to the master, makes its list of servers
//! known to all shards, says good-bye.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::writer::Pipe;
use crate::config::{self, Config};
use crate::error::Error;
use crate::metrics::Counter;
use crate::net::clock;
use crate::net::dial::{DialError, dial};
use crate::net::drive::{self, Receiver};
use crate::net::socket::{Listener, Socket};
use crate::peer::directory::{Cluster, Directory};
use crate::peer::pomelo::mailbox::Backoff;
use crate::peer::pomelo::master::{
    Event, Figures, Login, Master, MasterConfig, ServerInfo, ServerList, Statistics,
};
use crate::shard::mesh::Parcel;
use crate::shard::{Shard, coordinator};
use crate::time::ShardTime;
use crate::wire::pomelo::mqtt;

/// How long connecting to the master may take, as in the reference.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server stays in the list that a master, back after a restart, does not name yet. Its
/// servers come back one by one; a client must not notice.
const RETURN_GRACE: Duration = Duration::from_secs(15);
/// Time between the answer to `kill` and the end, as in the reference.
const KILL_DELAY: Duration = Duration::from_secs(2);
/// Exit status after `kill`, as in the reference.
const KILL_STATUS: i32 = 255;

/// The link to the master.
pub(in crate::shard) struct MasterLink {
    machine: RefCell<Master>,
    pipe: Rc<Pipe>,
    directory: RefCell<Directory>,
    /// Servers that the master has not named since it came back, and until when they stay.
    unnamed: RefCell<HashMap<String, Instant>>,
    started: Instant,
    /// When the machine looks at the clock again.
    next_tick: Cell<Instant>,
    /// Why the connection ends, where this side ends it.
    end_reason: Cell<Option<&'static str>>,
    /// This server has said good-bye.
    left: Cell<bool>,
}

/// Starts the tasks of the switch.
pub(in crate::shard) fn start(shard: &Rc<Shard>, rpc_listener: Option<Listener>) {
    if let Some(listener) = rpc_listener {
        shard.keep(coordinator::run(shard.clone(), listener));
    }
    if let Some(master) = &shard.core.config.master {
        let link = Rc::new(MasterLink::new(shard, master));
        *shard.peers.master.borrow_mut() = Some(link.clone());
        shard.keep(run(shard.clone(), link, master.clone()));
    }
}

/// The servers of the configuration.
fn configured(config: &Config) -> Directory {
    let mut directory = Directory::default();
    for server in &config.servers {
        directory.add(server);
    }
    // Types get their places here, so that every shard has them at the same ones.
    directory.snapshot();
    directory
}

impl MasterLink {
    fn new(shard: &Shard, master: &config::Master) -> Self {
        let config = MasterConfig {
            id: shard.core.config.id.clone(),
            server_type: shard.core.config.server_type.clone(),
            pid: std::process::id(),
            info: serde_json::Value::Object(master.info.clone()),
            token: master.token.clone(),
            started_ms: clock::unix_ms() as u64,
            dialect: shard.core.config.dialect,
        };
        Self {
            machine: RefCell::new(Master::new(config)),
            pipe: Rc::default(),
            directory: RefCell::new(configured(&shard.core.config)),
            unnamed: RefCell::default(),
            started: clock::now(),
            next_tick: Cell::new(shard.core.time.get().now),
            end_reason: Cell::default(),
            left: Cell::default(),
        }
    }

    fn add(&self, server: &ServerInfo) {
        self.unnamed.borrow_mut().remove(&server.id);
        if !self.directory.borrow_mut().add(&server.server()) {
            tracing::error!(
                server = server.id,
                "too many servers; this one is not called"
            );
        }
    }

    fn remove(&self, id: &str) {
        self.unnamed.borrow_mut().remove(id);
        self.directory.borrow_mut().remove(id);
    }

    /// A whole list: in its order, with those at the end that may still come back.
    fn replace(&self, list: &ServerList, stay_until: Option<Instant>) {
        let known = self.directory.borrow().listed();
        self.directory.borrow_mut().clear();
        for server in &list.servers {
            self.add(server);
        }
        let Some(until) = stay_until else { return };
        let mut directory = self.directory.borrow_mut();
        let mut unnamed = self.unnamed.borrow_mut();
        for peer in known {
            if !directory.has(&peer.server.id) {
                directory.add(&peer.server);
                unnamed.entry(peer.server.id.clone()).or_insert(until);
            }
        }
    }

    /// Removes servers that did not come back in time; true when there were any.
    fn remove_unnamed(&self, time: ShardTime) -> bool {
        let mut unnamed = self.unnamed.borrow_mut();
        let before = unnamed.len();
        unnamed.retain(|id, until| {
            let stays = !time.is_over(*until, RETURN_GRACE);
            if !stays {
                self.directory.borrow_mut().remove(id);
            }
            stays
        });
        unnamed.len() < before
    }
}

/// Keeps the link for ever. A master that is missing harms nobody: the list stays as it was.
async fn run(shard: Rc<Shard>, link: Rc<MasterLink>, master: config::Master) {
    let cluster = &shard.core.config.cluster;
    let mut backoff = Backoff::new(cluster.reconnect_min, cluster.reconnect_max);
    let mut random = shard.random();
    let (host, port) = (&master.host, master.port);
    loop {
        let timeout = shard.timeout(CONNECT_TIMEOUT);
        let dialled = dial(host, port, timeout, &shard.core.network).await;
        let (lived, text, reason) = match dialled {
            Ok(socket) => {
                let lived = talk(&shard, &link, Rc::new(socket)).await;
                if link.left.get() {
                    return;
                }
                let reason = link.end_reason.take();
                let reason = reason.unwrap_or("the master closed the connection");
                let text = "the link to the master is down";
                (lived, text, reason.to_owned())
            }
            Err(error) => {
                let reason = match error {
                    DialError::Timeout => "connecting took too long".to_owned(),
                    DialError::Io(error) => error.to_string(),
                };
                (Duration::ZERO, "the master is not reachable", reason)
            }
        };
        let pause = backoff.pause(lived, random.fraction());
        let retry_in = Duration::from_millis(pause.as_millis() as u64);
        tracing::warn!(
            host,
            port,
            reason,
            ?retry_in,
            "{text}; the list of servers stays as it is"
        );
        clock::sleep(pause).await;
    }
}

/// Runs one connection to the master. Returns how long this server was a member through it: next to
/// nothing where two servers with one id throw each other out, so that the pauses between them grow.
async fn talk(shard: &Rc<Shard>, link: &Rc<MasterLink>, socket: Rc<Socket>) -> Duration {
    shard.open_pipe(&link.pipe, socket.clone());
    shard.send_to_peer(&link.pipe, |out| {
        let now = shard.core.time.get().now;
        link.machine.borrow_mut().connected(now, out);
    });
    let receiver = MasterReceiver {
        shard,
        link,
        accepted: Cell::new(None),
    };
    drive::read(&socket, &shard.core.read_buffer, &receiver).await;
    shard.flush_pipe(&link.pipe);
    shard.close_pipe(&link.pipe);
    let since = receiver.accepted.get();
    since.map_or(Duration::ZERO, |since| clock::now() - since)
}

struct MasterReceiver<'a> {
    shard: &'a Rc<Shard>,
    link: &'a Rc<MasterLink>,
    /// Since when this server is part of the cluster.
    accepted: Cell<Option<Instant>>,
}

impl Receiver for MasterReceiver<'_> {
    fn receive(&self, input: &mut [u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let mut out = Vec::new();
            let received = self.link.machine.borrow_mut().receive(
                self.shard.core.time.get().now,
                &input[at..],
                &mut out,
            );
            if !out.is_empty() {
                self.shard
                    .send_to_peer(&self.link.pipe, |bytes| bytes.append(&mut out));
            }
            match received {
                Ok((0, _)) => return Some(at),
                Ok((used, event)) => {
                    at += used;
                    let ends = event == Some(Event::RegisterAnew);
                    if event == Some(Event::Accepted) {
                        self.accepted.set(Some(clock::now()));
                    }
                    if let Some(event) = event {
                        self.shard.master_event(self.link, event);
                    }
                    if ends {
                        return None;
                    }
                }
                Err(fault) => {
                    self.link.end_reason.set(Some(fault.text()));
                    return None;
                }
            }
        }
    }
}

impl Shard {
    /// The servers of the configuration, until a master says who there is. Every shard comes to the
    /// same list by itself.
    pub(in crate::shard) fn apply_static_cluster(self: &Rc<Self>) {
        self.apply_cluster(configured(&self.core.config).snapshot());
    }

    /// Makes a new list known to all shards.
    fn publish(self: &Rc<Self>, link: &MasterLink) {
        let cluster: Arc<Cluster> = link.directory.borrow_mut().snapshot();
        self.tell_others(|| Parcel::Cluster(cluster.clone()));
        self.apply_cluster(cluster);
    }

    fn master_event(self: &Rc<Self>, link: &Rc<MasterLink>, event: Event) {
        match event {
            Event::Accepted => tracing::info!("part of the cluster"),
            Event::Refused(text) => {
                let text = format!("the master refused this server: {text}");
                (self.core.stop)(Some(Error::Config(text)));
            }
            Event::Subscribed(list) => {
                link.replace(&list, None);
                self.publish(link);
            }
            Event::Replaced(list) => {
                link.replace(&list, Some(self.core.time.get().now + RETURN_GRACE));
                self.publish(link);
            }
            Event::Added(server) => {
                tracing::info!(server = server.id, "a server has joined");
                link.add(&server);
                self.publish(link);
            }
            Event::AddedSelf(_) => {
                tracing::warn!("another process has registered with this server's id");
            }
            Event::Removed(id) => {
                tracing::info!(server = id, "a server has left");
                link.remove(&id);
                self.publish(link);
            }
            Event::RegisterAnew => {
                link.end_reason.set(Some(
                    "the master has lost this server, which registers anew",
                ));
            }
            Event::StartOver => tracing::info!("all servers of the cluster have started"),
            Event::AskFigures(question) => {
                let rss_bytes = clock::resident_bytes();
                let figures = Figures {
                    rss_bytes,
                    heap_total_bytes: rss_bytes,
                    heap_used_bytes: rss_bytes,
                    uptime: clock::now() - link.started,
                };
                self.send_to_peer(&link.pipe, |out| {
                    link.machine
                        .borrow()
                        .answer_figures(question, &figures, out);
                });
            }
            Event::AskStatistics(question) => {
                let statistics = self.statistics();
                self.send_to_peer(&link.pipe, |out| {
                    link.machine
                        .borrow()
                        .answer_statistics(question, &statistics, out);
                });
            }
            Event::Stop | Event::Restart => {
                tracing::info!("the master stops this server");
                (self.core.stop)(None);
            }
            Event::Kill => {
                tracing::warn!("the master kills this server");
                glommio::spawn_local(async {
                    clock::sleep(KILL_DELAY).await;
                    std::process::exit(KILL_STATUS);
                })
                .detach();
            }
            Event::Blacklist(more) => self.console_blacklist(more),
            Event::Ignored(text) => {
                self.counters().add(Counter::MasterIgnored, 1);
                tracing::debug!(text, "a message of the master is ignored");
            }
        }
    }

    /// Connection statistics of the process (C11–C14).
    pub(in crate::shard) fn statistics(&self) -> Statistics {
        // As the reference: connections are counted only where they are limited.
        let counted = self.core.config.client.max_connections.is_some();
        let binding = self.coordinator.binding.borrow();
        let logins: Vec<Login> = binding
            .logins()
            .into_iter()
            .map(|login| Login {
                time_ms: login.login_time_ms,
                uid: login.uid.json().to_owned(),
                address: login.address.to_string(),
            })
            .collect();
        Statistics {
            connections: if counted {
                self.clients.process_connections.count() as u64
            } else {
                0
            },
            logged_in: logins.len() as u64,
            logins,
        }
    }

    /// Looks at the clock for the master's sake.
    pub(in crate::shard) fn tick_master(self: &Rc<Self>, time: ShardTime) {
        let Some(link) = self.peers.master.borrow().clone() else {
            return;
        };
        if time.now < link.next_tick.get() {
            return;
        }
        link.next_tick.set(time.now + Duration::from_secs(1));
        if link.remove_unnamed(time) {
            self.publish(&link);
        }
        if !link.pipe.is_open() {
            return;
        }
        let mut out = Vec::new();
        let alive = link.machine.borrow_mut().tick(time, &mut out);
        if !out.is_empty() {
            self.send_to_peer(&link.pipe, |bytes| bytes.append(&mut out));
        }
        if let Err(fault) = alive {
            link.end_reason.set(Some(fault.text()));
            link.pipe.shutdown();
        }
    }

    /// Says good-bye to the master, then to everybody who might call.
    pub(in crate::shard) fn leave_cluster(self: &Rc<Self>) {
        if let Some(link) = &*self.peers.master.borrow() {
            let mut out = Vec::new();
            link.machine.borrow_mut().disconnect(&mut out);
            link.left.set(true);
            self.send_to_peer(&link.pipe, |bytes| bytes.append(&mut out));
            self.flush_pipe(&link.pipe);
        }
        for pipe in self.served_pipes() {
            self.send_to_peer(&pipe, |out| out.extend_from_slice(&mqtt::DISCONNECT));
        }
    }
}
