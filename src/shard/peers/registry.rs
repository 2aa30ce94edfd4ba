//! The registry of the cluster: the link to the master, and the list of servers that it keeps. Only the coordinator
//! has one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::future;

use super::Peers;
use super::usage;
use super::writer::{self, PeerWriter};
use crate::config::{self, Config};
use crate::error::{Error, Fault, LinkFault};
use crate::metrics::Counter;
use crate::net::clock;
use crate::net::dial::{DialError, dial};
use crate::net::drive::{self, End, Receiver};
use crate::net::socket::Socket;
use crate::net::task;
use crate::peer::directory::{Directory, MemberList};
use crate::peer::pomelo::mailbox::Backoff;
use crate::peer::pomelo::master::{
    Figures, MasterConfig, MasterEvent, Monitor, ServerInfo, ServerList, Statistics,
    StatisticsQuestion,
};
use crate::shard::{Core, Shard};
use crate::time::ShardTime;

/// How long connecting to the master may take, as in the reference.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server stays in the list that a master, back after a restart, does not name yet. Its
/// servers come back one by one; a client must not notice.
const RETURN_GRACE: Duration = Duration::from_secs(15);
/// Time between the answer to `kill` and the end, as in the reference.
const KILL_DELAY: Duration = Duration::from_secs(2);
/// Exit status after `kill`, as in the reference.
const KILL_STATUS: i32 = 255;

/// The link to the master, and the list of servers.
pub(in crate::shard) struct Registry {
    master: RefCell<Monitor>,
    writer: Rc<PeerWriter>,
    directory: RefCell<Directory>,
    /// Servers that the master has not named since it came back, and until when they stay.
    unnamed: RefCell<HashMap<String, Instant>>,
    started: Instant,
    /// The time of the next look at the clock.
    next_tick: Cell<Instant>,
    /// Reason for the end of the connection, where this side ends it.
    end_reason: Cell<Option<LinkFault>>,
    /// This server has left the cluster.
    left: Cell<bool>,
    /// The pause before the next dial.
    pause: Pause,
    /// Gets the number of the other servers, once: when this server is first part of the cluster.
    joined: Cell<Option<Sender<usize>>>,
}

/// An order of the registry that other parts of the shard carry out.
pub(in crate::shard) enum Order {
    /// Use a new list of servers.
    UseMembers(Arc<MemberList>),
    /// Answer the master's question with the connection statistics of the process.
    AnswerStatistics(StatisticsQuestion),
    /// Add expressions to the blacklist.
    AddToBlacklist(Vec<String>),
    /// React to a fault.
    React(Fault<'static>),
}

/// Makes the directory of the configured servers.
pub(super) fn configured(config: &Config) -> Directory {
    let mut directory = Directory::default();
    for server in &config.servers {
        directory.add(server);
    }
    // The snapshot numbers the types, so that they have the same numbers on every shard.
    directory.snapshot();
    directory
}

impl Registry {
    pub(super) fn new(core: &Core, master: &config::Master, joined: Sender<usize>) -> Self {
        let config = MasterConfig {
            id: core.config.id.clone(),
            server_type: core.config.server_type.clone(),
            pid: std::process::id(),
            info: serde_json::Value::Object(master.info.clone()),
            token: master.token.clone(),
            started_ms: clock::unix_ms() as u64,
            dialect: core.config.dialect,
        };
        Self {
            master: RefCell::new(Monitor::new(config)),
            writer: Rc::default(),
            directory: RefCell::new(configured(&core.config)),
            unnamed: RefCell::default(),
            started: clock::now(),
            next_tick: Cell::new(core.time.get().now),
            end_reason: Cell::default(),
            left: Cell::default(),
            pause: Pause::default(),
            joined: Cell::new(Some(joined)),
        }
    }

    /// Dials a lost master soon: a server that is back has a master that is back.
    pub(super) fn hurry(&self) {
        self.pause.end_early();
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

    /// Makes the list of servers that all shards use from now on.
    fn members(&self) -> Order {
        Order::UseMembers(self.directory.borrow_mut().snapshot())
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

/// Runs the link to the master for ever. A missing master harms nobody: the list of servers stays as it was.
pub(in crate::shard) async fn run(shard: Rc<Shard>, registry: Rc<Registry>) {
    let core = &shard.core;
    let Some(master) = &core.config.master else {
        return;
    };
    let cluster = &core.config.cluster;
    let mut backoff = Backoff::new(cluster.reconnect_min, cluster.reconnect_max);
    let mut random = core.random();
    let (host, port) = (&master.host, master.port);
    loop {
        let timeout = core.timeout(CONNECT_TIMEOUT);
        let dialled = dial(host, port, timeout, &core.network).await;
        let (lived, text, reason) = match dialled {
            Ok(socket) => {
                let lived = talk(&shard, &registry, Rc::new(socket)).await;
                if registry.left.get() {
                    return;
                }
                let reason = registry.end_reason.take().unwrap_or(LinkFault::Left);
                let text = "the link to the master is down";
                (lived, text, reason.text().to_owned())
            }
            Err(error) => {
                let reason = match error {
                    DialError::Timeout => LinkFault::ConnectTimeout.text().to_owned(),
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
        registry.pause.run(pause, cluster.reconnect_min).await;
    }
}

/// Runs one connection to the master. Returns how long this server was a member through it: next to
/// nothing where two servers with one id throw each other out, so that the pauses between them grow.
async fn talk(shard: &Rc<Shard>, registry: &Rc<Registry>, socket: Rc<Socket>) -> Duration {
    let (core, peers) = (&shard.core, &shard.peers);
    peers.open(core, &registry.writer, socket.clone());
    peers.send(core, &registry.writer, |out| {
        let now = core.time.get().now;
        registry.master.borrow_mut().connected(now, out);
    });
    let accepted = Cell::new(None);
    let receiver = MasterReceiver {
        shard,
        registry,
        accepted: &accepted,
    };
    drive::read(&socket, &core.read_buffer, receiver).await;
    core.counters().set(Counter::RegistryJoined, 0);
    writer::flush(shard, &registry.writer);
    peers.close(core, &registry.writer);
    let since: Option<Instant> = accepted.get();
    since.map_or(Duration::ZERO, |since| clock::now() - since)
}

struct MasterReceiver<'a> {
    shard: &'a Rc<Shard>,
    registry: &'a Rc<Registry>,
    /// Since when this server is part of the cluster.
    accepted: &'a Cell<Option<Instant>>,
}

impl Receiver for MasterReceiver<'_> {
    fn waits(&self, bytes: usize) {
        let Shard { core, peers, .. } = &**self.shard;
        peers.frame_waits(core, &self.registry.writer, bytes);
    }

    fn receive(&self, input: &mut [u8]) -> Result<Option<usize>, End> {
        let Self {
            shard, registry, ..
        } = self;
        let (core, peers) = (&shard.core, &shard.peers);
        let mut out = Vec::new();
        let now = core.time.get().now;
        let received = registry.master.borrow_mut().receive(now, input, &mut out);
        if !out.is_empty() {
            peers.send(core, &registry.writer, |bytes| bytes.append(&mut out));
        }
        let received = received.map_err(|fault| {
            shard.react(Fault::Master(fault));
            End::Enough
        })?;
        let Some((used, event)) = received else {
            return Ok(None);
        };
        let ends = event == Some(MasterEvent::RegisterAnew);
        let is_first = core.counters().get(Counter::RegistryJoins) == 0;
        if event == Some(MasterEvent::Accepted) {
            self.accepted.set(Some(clock::now()));
        }
        // At first no server is known before the list is there; later the list from before still counts.
        let has_joined = match event {
            Some(MasterEvent::Accepted) => !is_first,
            Some(MasterEvent::Subscribed(_)) => is_first,
            _ => false,
        };
        if has_joined {
            core.counters().add(Counter::RegistryJoins, 1);
            core.counters().set(Counter::RegistryJoined, 1);
        }
        let order = event.and_then(|event| peers.master_event(core, registry, event));
        if let Some(order) = order {
            shard.carry_out(order);
        }
        if ends {
            return Err(End::Enough);
        }
        Ok(Some(used))
    }
}

impl Peers {
    /// Acts on an event of the master; returns the order for other parts, if there is one.
    fn master_event(&self, core: &Core, registry: &Registry, event: MasterEvent) -> Option<Order> {
        match event {
            MasterEvent::Accepted => tracing::info!("part of the cluster"),
            MasterEvent::Subscribed(list) => {
                registry.replace(&list, None);
                if let Some(joined) = registry.joined.take() {
                    let others = list.servers.iter().filter(|it| it.id != core.config.id);
                    let _ = joined.send(others.count());
                }
                return Some(registry.members());
            }
            MasterEvent::Replaced(list) => {
                registry.replace(&list, Some(core.time.get().now + RETURN_GRACE));
                return Some(registry.members());
            }
            MasterEvent::Added(server) => {
                tracing::info!(server = server.id, "a server has joined");
                registry.add(&server);
                return Some(registry.members());
            }
            MasterEvent::AddedSelf(_) => {
                tracing::warn!("another process has registered with this server's id");
            }
            MasterEvent::Removed(id) => {
                tracing::info!(server = id, "a server has left");
                registry.remove(&id);
                return Some(registry.members());
            }
            MasterEvent::Refused(text) => {
                let advice = match text.contains("auth failed") {
                    true => {
                        "; the adminServer.json that the master reads must have its type and token"
                    }
                    false => "",
                };
                let text = format!("the master refused this server: {text}{advice}");
                return Some(Order::React(Fault::Operator(Error::Config(text))));
            }
            MasterEvent::RegisterAnew => {
                return Some(Order::React(Fault::Master(LinkFault::Forgotten)));
            }
            MasterEvent::StartOver => tracing::info!("all servers of the cluster have started"),
            MasterEvent::AskFigures(question) => {
                let rss_bytes = usage::resident_bytes();
                let figures = Figures {
                    rss_bytes,
                    heap_total_bytes: rss_bytes,
                    heap_used_bytes: rss_bytes,
                    uptime: clock::now() - registry.started,
                };
                self.send(core, &registry.writer, |out| {
                    let master = registry.master.borrow();
                    master.answer_figures(question, &figures, out);
                });
            }
            MasterEvent::AskStatistics(question) => return Some(Order::AnswerStatistics(question)),
            MasterEvent::AskUsage(question) => match usage::usage() {
                Ok(usage) => self.send(core, &registry.writer, |out| {
                    let master = registry.master.borrow();
                    master.answer_usage(&question, &usage, out);
                }),
                Err(error) => {
                    core.counters().add(Counter::MasterIgnored, 1);
                    tracing::debug!(%error, "the kernel does not tell the use of this machine");
                }
            },
            MasterEvent::Stop | MasterEvent::Restart => {
                tracing::info!("the master stops this server");
                (core.stop)(None);
            }
            MasterEvent::Kill => {
                tracing::warn!("the master kills this server");
                task::spawn(async {
                    clock::sleep(KILL_DELAY).await;
                    std::process::exit(KILL_STATUS);
                })
                .detach();
            }
            MasterEvent::Blacklist(more) => return Some(Order::AddToBlacklist(more)),
            MasterEvent::Ignored(text) => {
                core.counters().add(Counter::MasterIgnored, 1);
                tracing::debug!(text, "a message of the master is ignored");
            }
        }
        None
    }

    /// Answers the master's question with the connection statistics of the process.
    pub(in crate::shard) fn answer_statistics(
        &self,
        core: &Core,
        question: StatisticsQuestion,
        statistics: &Statistics,
    ) {
        let Some(registry) = &*self.registry.borrow() else {
            return;
        };
        self.send(core, &registry.writer, |out| {
            let master = registry.master.borrow();
            master.answer_statistics(question, statistics, out);
        });
    }
}

/// A pause that may end early.
#[derive(Default)]
struct Pause {
    ends_early: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Pause {
    /// Waits for `whole`, or only for its first part, `least`, if [`Pause::end_early`] is called meanwhile.
    async fn run(&self, whole: Duration, least: Duration) {
        self.ends_early.set(false);
        clock::sleep(whole.min(least)).await;
        let early = poll_fn(|cx| {
            if self.ends_early.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        });
        future::or(early, clock::sleep(whole.saturating_sub(least))).await;
    }

    fn end_early(&self) {
        self.ends_early.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Lets the registry act on its deadlines.
pub(in crate::shard) fn tick(shard: &Rc<Shard>, time: ShardTime) {
    let (core, peers) = (&shard.core, &shard.peers);
    let Some(registry) = peers.registry.borrow().clone() else {
        return;
    };
    if time.now < registry.next_tick.get() {
        return;
    }
    registry.next_tick.set(time.now + Duration::from_secs(1));
    let members = registry.remove_unnamed(time).then(|| registry.members());
    if registry.writer.is_open() {
        let mut out = Vec::new();
        let alive = registry.master.borrow_mut().tick(time, &mut out);
        if !out.is_empty() {
            peers.send(core, &registry.writer, |bytes| bytes.append(&mut out));
        }
        if let Err(fault) = alive {
            shard.react(Fault::Master(fault));
        }
    }
    if let Some(members) = members {
        shard.carry_out(members);
    }
}

/// Ends the connection to the master, after the bytes that wait for it. [`run`] dials again.
pub(in crate::shard) fn end(shard: &Rc<Shard>, fault: LinkFault) {
    let Some(registry) = shard.peers.registry.borrow().clone() else {
        return;
    };
    registry.end_reason.set(Some(fault));
    writer::flush(shard, &registry.writer);
    registry.writer.shutdown();
}

/// Tells the master that this server leaves.
pub(in crate::shard) fn leave(shard: &Rc<Shard>) {
    let Some(registry) = shard.peers.registry.borrow().clone() else {
        return;
    };
    let mut out = Vec::new();
    registry.master.borrow_mut().disconnect(&mut out);
    registry.left.set(true);
    let write = |bytes: &mut Vec<u8>| bytes.append(&mut out);
    shard.peers.send(&shard.core, &registry.writer, write);
    writer::flush(shard, &registry.writer);
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::net::clock::VirtualClock;

    /// Runs a pause of a minute, which must not be shorter than a second, and calls `end_early` after `at`. Returns
    /// its length.
    fn ends_after(at: Option<Duration>) -> Duration {
        let clock = Rc::new(VirtualClock::default());
        clock.during(|| {
            let pause = Pause::default();
            pause.end_early();
            let mut running = Box::pin(pause.run(Duration::from_secs(60), Duration::from_secs(1)));
            let mut at = at.map(|at| clock.now() + at);
            while block_on(poll_once(&mut running)).is_none() {
                let next = clock.next().expect("the pause sleeps");
                clock.move_to(at.map_or(next, |at| at.min(next)));
                if at.take_if(|at| *at <= clock.now()).is_some() {
                    pause.end_early();
                }
            }
            clock.elapsed()
        })
    }

    #[test]
    fn a_link_that_comes_up_shortens_the_pause_before_the_master_is_dialled() {
        let ms = Duration::from_millis;
        assert_eq!(ends_after(None), ms(60_000));
        assert_eq!(
            ends_after(Some(ms(300))),
            ms(1000),
            "not before the shortest pause"
        );
        assert_eq!(ends_after(Some(ms(30_000))), ms(30_000));
    }
}
