//! The link to the master: how this server joins the cluster, learns who else is in it and is
//! administered.
//!
//! ```text
//!            connected: CONNECT        CONNACK: register
//!   Closed ─────────────────▶ Connecting ─────────▶ Registering ── code 1: subscribe ──▶ Subscribing
//!     ▲                          │                      │ else: Refused                     │ list:
//!     │ disconnect, refused      │ CONNACK: reconnect   ▼                                   │ record
//!     └──────────────────────────│──────────────────  Closed      code 1                    ▼
//!                                └────────────────▶ Reconnecting ───────────────────────▶ Joined
//! ```
//!
//! One [`Monitor`] lives as long as the process; each connection runs through the picture once. It
//! begins with [`Monitor::connected`]; after a [`LinkFault`] the owner closes it, waits and dials again.
//! A server that has joined comes back with `reconnect`, which the master does not check, and
//! registers only when it has to ([`MasterEvent::RegisterAnew`]).
//!
//! **Invariants**: `record` is sent once in the life of the process, because the master counts it. A
//! request is answered at most once, and never on a later connection than it came on. Messages
//! before registration are ignored.
//!
//! **Absent**: sockets, clock, the list of servers (`peer/directory.rs`), what `stop` does.
//!
//! **Where to start reading**: [`Monitor::receive`], then [`MasterEvent`].

mod entry;
mod figures;
mod modules;
mod usage;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

pub use self::entry::{ServerInfo, ServerList};
pub use self::figures::{Figures, LoginEntry, Statistics};
use self::modules::DONE;
pub use self::usage::{CpuShares, DiskUsage, MachineUsage, ProcessUsage};
use super::Received;
use crate::dialect::Dialect;
use crate::error::LinkFault;
use crate::limits::RPC_FRAME_BYTES_MAX;
use crate::time::ShardTime;
use crate::wire::json;
use crate::wire::pomelo::admin::{self, AdminMessage, Registration};
use crate::wire::pomelo::mqtt::{self, Packet};

/// Distance between two pings; one without an answer for twice as long ends the connection.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long joining may take from CONNECT on. Longer than a master needs that starts hundreds of
/// servers meanwhile; the reference waits for ever.
const JOIN_MAX: Duration = Duration::from_secs(30);

const MASTER_WATCHER: &str = "__masterwatcher__";
const ONLINE_USER: &str = "onlineUser";
const NODE_INFO: &str = "nodeInfo";
const SYSTEM_INFO: &str = "systemInfo";

/// Configuration of the monitor.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    /// Own server id.
    pub id: String,
    /// Own server type.
    pub server_type: String,
    /// Own process id.
    pub pid: u32,
    /// The entry of this server that the master hands to all others.
    pub info: Value,
    /// Token of the registration, if it has one.
    pub token: Option<Value>,
    /// When the process started, milliseconds since the epoch: part of the MQTT client id.
    pub started_ms: u64,
    /// Where the answers to `watchServer` are looked for.
    pub dialect: Dialect,
}

/// Event of the link to the master.
#[derive(Debug, Clone, PartialEq)]
pub enum MasterEvent {
    /// Registered, or back again. After a registration [`MasterEvent::Subscribed`] follows.
    Accepted,
    /// The registration was refused, and why. Trying again is of no use.
    Refused(String),
    /// Part of the cluster; the whole list.
    Subscribed(ServerList),
    /// The whole list anew. After a restart of the master it holds only those who are back by now.
    Replaced(ServerList),
    /// One more server, or other words about a known one.
    Added(ServerInfo),
    /// The master tells of this server itself: another process has registered with its id.
    AddedSelf(ServerInfo),
    /// A server has gone.
    Removed(String),
    /// The master has lost this server: close, wait, dial again; it then registers.
    RegisterAnew,
    /// All servers of the configuration have started.
    StartOver,
    /// Answer with [`Monitor::answer_figures`].
    AskFigures(FiguresQuestion),
    /// Answer with [`Monitor::answer_statistics`].
    AskStatistics(StatisticsQuestion),
    /// Answer with [`Monitor::answer_usage`].
    AskUsage(UsageQuestion),
    /// Stop this server.
    Stop,
    /// Exit with status 255 after 2 s, which leaves the answer time to go out.
    Kill,
    /// Stop this server; the master starts it again.
    Restart,
    /// Regular expressions for client addresses to refuse, besides those there are.
    Blacklist(Vec<String>),
    /// Nothing to do but to count and log it.
    Ignored(&'static str),
}

/// A request for this process's [`Figures`].
#[derive(Debug, Clone, PartialEq)]
pub struct FiguresQuestion {
    to: Asked,
    /// `servers` of `watchServer`, not `list` of the console.
    watch: bool,
}

/// A request for the connections' [`Statistics`].
#[derive(Debug, Clone, PartialEq)]
pub struct StatisticsQuestion {
    /// `None`: a notify of `onlineUser`, which wants a notify.
    to: Option<Asked>,
    connection: u32,
}

/// A notify that wants the [`MachineUsage`] of this machine and process.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageQuestion {
    /// The module that collects it.
    module: &'static str,
    connection: u32,
}

/// Request that an answer belongs to.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    request: Value,
    connection: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Connecting,
    Registering,
    Reconnecting,
    /// Waits for the response to this request.
    Subscribing(u64),
    Joined,
}

/// Protocol state of this server's monitor.
#[derive(Debug)]
pub struct Monitor {
    config: MasterConfig,
    state: State,
    /// Number of the connection; an answer for another one is dropped.
    connection: u32,
    /// When the connection was opened.
    since: Option<Instant>,
    next_ping: Option<Instant>,
    /// When the ping went out that has no answer yet.
    pinged: Option<Instant>,
    next_request: u64,
    /// `record` was sent.
    recorded: bool,
    /// The next connection registers, although this server had joined.
    anew: bool,
    /// Request that wants to know when this server has started.
    awaits_start: Option<Value>,
}

impl Monitor {
    /// Not connected.
    pub fn new(config: MasterConfig) -> Self {
        Self {
            config,
            state: State::Closed,
            connection: 0,
            since: None,
            next_ping: None,
            pinged: None,
            next_request: 1,
            recorded: false,
            anew: false,
            awaits_start: None,
        }
    }

    /// A connection was opened.
    pub fn connected(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.close();
        self.connection = self.connection.wrapping_add(1);
        self.since = Some(now);
        self.state = State::Connecting;
        admin::write_connect(out, self.config.started_ms);
        self.check_invariants();
    }

    /// Takes the next whole packet off the front of `input`, and appends the bytes to send to `out`.
    pub fn receive(
        &mut self,
        now: Instant,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Received<MasterEvent> {
        let received = self.packet(now, input, out);
        if received.is_err() {
            self.close();
        }
        self.check_invariants();
        received
    }

    /// Looks at the clock; to be called about once a second.
    pub fn tick(&mut self, time: ShardTime, out: &mut Vec<u8>) -> Result<(), LinkFault> {
        let alive = self.keep_alive(time, out);
        if alive.is_err() {
            self.close();
        }
        self.check_invariants();
        alive
    }

    /// Answers a question. Dropped when its connection has ended.
    pub fn answer_figures(&self, question: FiguresQuestion, figures: &Figures, out: &mut Vec<u8>) {
        let config = &self.config;
        if question.watch {
            self.answer_watch(&question.to, &figures.watch_json(config), out);
        } else if self.expects(question.to.connection) {
            let list = figures.list_json(config);
            admin::write_response(out, &question.to.request, &list, None);
        }
    }

    /// Answers a question. Dropped when its connection has ended.
    pub fn answer_statistics(
        &self,
        question: StatisticsQuestion,
        statistics: &Statistics,
        out: &mut Vec<u8>,
    ) {
        let body = statistics.json(&self.config.id);
        match question.to {
            Some(to) => self.answer_watch(&to, &figures::of_server(&self.config.id, &body), out),
            None if self.expects(question.connection) => {
                admin::write_notify(out, ONLINE_USER, |out| out.extend_from_slice(&body));
            }
            None => {}
        }
    }

    /// Answers a question. Dropped when its connection has ended.
    pub fn answer_usage(&self, question: &UsageQuestion, usage: &MachineUsage, out: &mut Vec<u8>) {
        if self.expects(question.connection) {
            let body = match question.module {
                NODE_INFO => usage.of_node(&self.config),
                _ => usage.of_system(),
            };
            let body = figures::of_server(&self.config.id, &figures::print(&body));
            admin::write_notify(out, question.module, |out| out.extend_from_slice(&body));
        }
    }

    /// Says good-bye on an open connection: the master then takes this server off the lists at
    /// once. Nothing that comes later has a meaning.
    pub fn disconnect(&mut self, out: &mut Vec<u8>) {
        if self.state != State::Closed {
            out.extend_from_slice(&mqtt::DISCONNECT);
        }
        self.close();
        self.check_invariants();
    }

    fn packet(&mut self, now: Instant, input: &[u8], out: &mut Vec<u8>) -> Received<MasterEvent> {
        let decoded = mqtt::decode(input, RPC_FRAME_BYTES_MAX).map_err(|_| LinkFault::Bytes)?;
        let Some((packet, bytes)) = decoded else {
            return Ok(None);
        };
        if self.state == State::Closed {
            return Ok(Some((bytes, None)));
        }
        let event = match packet {
            Packet::Connack if self.state == State::Connecting => {
                self.join(now, out);
                None
            }
            Packet::Publish { topic, payload } => self.publish(topic, payload, out)?,
            Packet::PingResp => {
                self.pinged = None;
                None
            }
            Packet::PingReq => {
                out.extend_from_slice(&mqtt::PINGRESP);
                None
            }
            Packet::Disconnect => return Err(LinkFault::Left),
            Packet::Connect | Packet::Connack => None,
        };
        Ok(Some((bytes, event)))
    }

    fn keep_alive(&mut self, time: ShardTime, out: &mut Vec<u8>) -> Result<(), LinkFault> {
        let is_late = |since: Option<Instant>, timeout| {
            since.is_some_and(|since| time.is_over(since + timeout, timeout))
        };
        match self.state {
            State::Closed => return Ok(()),
            State::Joined => {}
            _ if is_late(self.since, JOIN_MAX) => return Err(LinkFault::JoinTimeout),
            _ => {}
        }
        if is_late(self.pinged, 2 * KEEPALIVE) {
            return Err(LinkFault::NoPong);
        }
        if self.next_ping.is_some_and(|at| time.now >= at) {
            self.next_ping = Some(time.now + KEEPALIVE);
            if self.pinged.is_none() {
                self.pinged = Some(time.now);
                out.extend_from_slice(&mqtt::PINGREQ);
            }
        }
        Ok(())
    }

    /// An answer to a question of this connection can still be sent.
    fn expects(&self, connection: u32) -> bool {
        self.state != State::Closed && self.connection == connection
    }

    fn check_invariants(&self) {
        let is_closed = self.state == State::Closed;
        assert!(
            !is_closed || self.next_ping.is_none(),
            "a closed link pings"
        );
        assert!(
            !is_closed || self.awaits_start.is_none(),
            "a closed link has a request"
        );
        assert!(
            self.pinged.is_none() || self.next_ping.is_some(),
            "a ping went out although none are scheduled"
        );
        let is_dialled = is_closed || self.state == State::Connecting;
        assert!(is_dialled || self.next_ping.is_some(), "a link never pings");
        assert!(is_closed || self.since.is_some(), "joining takes any time");
        if let State::Subscribing(request) = self.state {
            assert!(
                request < self.next_request,
                "a request number is used again"
            );
        }
        let has_joined = matches!(self.state, State::Joined | State::Reconnecting);
        assert!(
            !has_joined || self.recorded,
            "a server joins without a record"
        );
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.next_ping = None;
        self.pinged = None;
        self.awaits_start = None;
    }

    fn join(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.next_ping = Some(now + KEEPALIVE);
        let server = Registration {
            id: &self.config.id,
            server_type: &self.config.server_type,
            pid: self.config.pid,
            info: &self.config.info,
        };
        if self.recorded && !self.anew {
            self.state = State::Reconnecting;
            admin::write_reconnect(out, &server);
        } else {
            self.state = State::Registering;
            admin::write_register(out, &server, self.config.token.as_ref());
        }
    }

    fn publish(
        &mut self,
        topic: &[u8],
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<MasterEvent>, LinkFault> {
        let awaited = match self.state {
            State::Registering => Some(admin::REGISTER),
            State::Reconnecting => Some(admin::RECONNECT_OK),
            _ => None,
        };
        if awaited == Some(topic) {
            return match admin::decode_outcome(payload) {
                Ok(outcome) => self.outcome(outcome, out).map(Some),
                Err(error) => Ok(Some(MasterEvent::Ignored(error.text()))),
            };
        }
        if topic != admin::MONITOR || !matches!(self.state, State::Subscribing(_) | State::Joined) {
            return Ok(Some(MasterEvent::Ignored(
                "a message at the wrong time or on a wrong topic",
            )));
        }
        match admin::decode(payload) {
            Ok(AdminMessage::Request { id, call }) => Ok(self.call(Some(&id), &call, out)),
            Ok(AdminMessage::Notify(call)) => Ok(self.call(None, &call, out)),
            Ok(AdminMessage::Response { id, error, body }) => self.response(&id, &error, body, out),
            // Unlike pomelo: a genuine server throws on it.
            Ok(AdminMessage::Command) => Ok(Some(MasterEvent::Ignored("a command"))),
            Err(error) => Ok(Some(MasterEvent::Ignored(error.text()))),
        }
    }

    /// The master has decided whether this server takes part.
    fn outcome(
        &mut self,
        outcome: admin::RegisterOutcome,
        out: &mut Vec<u8>,
    ) -> Result<MasterEvent, LinkFault> {
        let registering = self.state == State::Registering;
        if !outcome.accepted {
            if !registering {
                return Err(LinkFault::StillConnected);
            }
            self.close();
            return Ok(MasterEvent::Refused(outcome.message));
        }
        self.state = State::Joined;
        if registering {
            let request = self.next_request;
            self.next_request += 1;
            self.state = State::Subscribing(request);
            let body = json!({"action": "subscribe", "id": self.config.id});
            admin::write_request(out, request, MASTER_WATCHER, &body);
        }
        Ok(MasterEvent::Accepted)
    }

    /// The response to the one request this server makes.
    fn response(
        &mut self,
        id: &Value,
        error: &Value,
        body: Value,
        out: &mut Vec<u8>,
    ) -> Result<Option<MasterEvent>, LinkFault> {
        let awaited = match (self.state, id) {
            (State::Subscribing(request), Value::String(id)) => *id == request.to_string(),
            (State::Subscribing(request), id) => *id == request,
            _ => false,
        };
        if !awaited {
            return Ok(Some(MasterEvent::Ignored("a response to no request")));
        }
        let list = match body {
            Value::Object(servers) if !admin::is_truthy(error) => Some(servers),
            Value::Null if !admin::is_truthy(error) => Some(Map::new()),
            _ => None,
        };
        let list = ServerList::new(list.ok_or(LinkFault::NoList)?, &self.config.id);
        self.state = State::Joined;
        self.anew = false;
        if !self.recorded {
            self.recorded = true;
            let body = json!({"action": "record", "id": self.config.id});
            admin::write_notify(out, MASTER_WATCHER, |out| json::write_value(out, &body));
        }
        if let Some(request) = self.awaits_start.take() {
            admin::write_response(out, &request, DONE, None);
        }
        Ok(Some(MasterEvent::Subscribed(list)))
    }
}
