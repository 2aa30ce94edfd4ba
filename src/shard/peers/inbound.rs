//! Connections that peers open, and the calls that come over them.
//!
//! ```text
//!           too many: DISCONNECT, FIN        `rpc.allow`                      first packet
//!   accept ──────────┬──────────────▶ held ───────────▶ silent, nothing called ──────────▶ served
//!                    │                 │ 5 s                  │ `rpc.first_frame_timeout`      │ `rpc.idle_timeout`
//!                    ▼                 ▼                      ▼                                ▼
//!                  DISCONNECT, which a genuine caller notices, then FIN, which it does not;
//!                  what it still sends is read and dropped for up to 5 s
//! ```
//!
//! On `rpc.tls_listen` a caller is held during its TLS handshake, for `tls.handshake_timeout`, and its certificate stands
//! for `rpc.allow`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use futures_lite::future;
use serde_json::Value;
use slab::Slab;

use super::Peers;
use super::names::{self, NamedHosts};
use super::writer::{self, PeerWriter};
use crate::config::{Config, Dialect};
use crate::handler::Failure;
use crate::limits::{
    CALLER_HELD_TIME, CALLER_LATE_BYTES_MAX, CALLER_LATE_TIME, CALLERS_HELD_MAX,
    CALLERS_REFUSED_MAX, READ_TURN_MAX, RPC_FRAME_BYTES_MAX,
};
use crate::metrics::Counter;
use crate::net::clock;
use crate::net::drive::{self, End, Pause, Receiver, SLICE_UNITS};
use crate::net::socket::{Listener, Socket, TlsSocket};
use crate::net::task;
use crate::peer::directory::MemberList;
use crate::peer::pomelo::acceptor::{self, AcceptorEvent};
use crate::shard::tls::{self, HandshakeFault, HandshakeLine};
use crate::shard::{Core, Shard};
use crate::wire::json;
use crate::wire::pomelo::{mqtt, rpc};

/// Time between two tries to accept a connection, after one failed.
const PAUSE: Duration = Duration::from_millis(50);
/// Connections accepted before other tasks run.
const ACCEPT_BUDGET: usize = 64;
/// Time between two looks of a held caller at the list of servers.
const LOOK: Duration = Duration::from_millis(100);
/// Connections for servers that the configuration does not name.
const CALLERS_UNNAMED: usize = 256;
/// Of all connections that peers may open, the part for callers that are not known yet.
const HELD_PART: usize = 4;
/// Pings that a peer has left out when it counts as gone.
const PINGS_MISSED: u32 = 6;

/// Returns the largest number of connections that peers may open, if the file limit is high enough.
pub fn callers_max(config: &Config) -> usize {
    let by_default = 2 * config.servers.len() + CALLERS_UNNAMED;
    config.rpc.max_connections.unwrap_or(by_default)
}

/// The connections that peers opened. Only the coordinator has some.
#[derive(Default)]
pub(super) struct Inbound {
    /// Writers of the callers that are served.
    served: RefCell<Slab<Rc<PeerWriter>>>,
    /// Number of connections, and of those whose caller is not known yet.
    open: Cell<usize>,
    held: Cell<usize>,
    /// Callers on `rpc.tls_listen` without a certificate so far, and refused ones that have not ended their side. At most
    /// [`Inbound::held_max`], by the order in which they came.
    strangers: RefCell<BTreeMap<u64, Rc<Socket>>>,
    next_stranger: Cell<u64>,
    /// Servers do not wait behind a storm of clients.
    handshakes: HandshakeLine,
    /// Largest number of connections.
    max: usize,
    /// Addresses of the servers that the list has by name. Boxed: few callers ask for them.
    pub(super) names: Box<NamedHosts>,
    /// Addresses that were refused, at most [`CALLERS_REFUSED_MAX`].
    refused: RefCell<HashSet<IpAddr, RandomState>>,
}

impl Inbound {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            ..Self::default()
        }
    }

    /// Takes one of the places for callers that are not known yet.
    fn hold(&self) -> Option<Place<'_>> {
        Place::take(&self.held, self.held_max())
    }

    /// Gives a caller on `rpc.tls_listen` a place until its certificate is known. Where none is free, the oldest such caller
    /// loses its own: strangers that wait keep no server out.
    fn admit_stranger(&self, socket: &Rc<Socket>) -> Stranger<'_> {
        let mut strangers = self.strangers.borrow_mut();
        if strangers.len() >= self.held_max()
            && let Some((_, oldest)) = strangers.pop_first()
        {
            oldest.shutdown();
        }
        let number = self.next_stranger.get();
        self.next_stranger.set(number + 1);
        strangers.insert(number, socket.clone());
        Stranger {
            inbound: self,
            number,
        }
    }

    fn held_max(&self) -> usize {
        (self.max / HELD_PART).min(CALLERS_HELD_MAX)
    }
}

/// Accepts the connections of peers, for ever.
pub(in crate::shard) async fn run(shard: Rc<Shard>, listener: Listener, has_tls: bool) {
    let mut budget = ACCEPT_BUDGET;
    loop {
        match listener.accept().await {
            Ok((socket, caller)) => {
                let socket = match &shard.core.tls {
                    Some((buffers, _)) if has_tls => socket.with_tls(buffers),
                    _ => socket,
                };
                task::spawn(serve(shard.clone(), socket, caller)).detach();
            }
            Err(error) => {
                shard.core.counters().add(Counter::AcceptErrors, 1);
                tracing::warn!(%error, "accepting a peer failed");
                clock::sleep(PAUSE).await;
            }
        }
        budget -= 1;
        if budget == 0 {
            clock::yield_to_reactor().await;
            budget = ACCEPT_BUDGET;
        }
    }
}

/// Serves one peer to the end of its connection.
async fn serve(shard: Rc<Shard>, socket: Socket, caller: SocketAddr) {
    let (core, peers) = (&shard.core, &shard.peers);
    let caller = caller.ip().to_canonical();
    let Some(_place) = Place::take(&peers.inbound.open, peers.inbound.max) else {
        core.counters().add(Counter::PeersTooMany, 1);
        let max = peers.inbound.max;
        tracing::warn!(%caller, "other servers have {max} connections already, and this one is closed; raise rpc.max_connections");
        return refuse(core, &socket).await;
    };
    let socket = Rc::new(socket);
    if let Some(tls) = socket.tls() {
        let stranger = peers.inbound.admit_stranger(&socket);
        let done = shake_hands(core, tls, &stranger).await;
        if stranger.has_given_way() {
            core.counters().add(Counter::PeersTooMany, 1);
            let max = peers.inbound.held_max();
            tracing::warn!(%caller, "{max} callers on rpc.tls_listen came later and are not known yet, and this one is closed");
            return;
        }
        if let Err(error) = done {
            core.counters().add(Counter::PeersRefused, 1);
            tracing::warn!(%caller, error, "a TLS handshake on rpc.tls_listen failed, and its connection is closed");
            return see_off(core, &socket).await;
        }
    } else if !may_call(&shard, caller).await {
        core.counters().add(Counter::PeersRefused, 1);
        peers.report_refused(core, caller);
        return refuse(core, &socket).await;
    }
    core.counters().add(Counter::PeersAccepted, 1);
    socket.quick_ack();
    let writer = Rc::new(PeerWriter::to(socket.clone()));
    let key = peers.inbound.served.borrow_mut().insert(writer.clone());
    let sign_of_life = SignOfLife {
        has_spoken: Cell::new(false),
        heard: Cell::new(core.time.get().now),
    };
    let receiver = PeerReceiver {
        shard: &shard,
        writer: &writer,
        socket: &socket,
        sign_of_life: &sign_of_life,
    };
    let reading = async { Ok(drive::read(&socket, &core.read_buffer, receiver).await) };
    let silence = async { Err(sign_of_life.silence(core, &writer).await) };
    let end = future::or(reading, silence).await;
    if let Err((counter, reason)) = end {
        core.counters().add(counter, 1);
        tracing::info!(%caller, reason, "the connection of another server is closed");
    }
    let mut may_send = matches!(end, Ok(End::Enough) | Err(_));
    if writer.has_overflowed() {
        may_send = false;
        core.counters().add(Counter::PeersStuck, 1);
        let reason = "it takes no bytes, and more than rpc.queue_bytes_max wait for it";
        tracing::warn!(%caller, reason, "the connection of another server is closed");
        // Such a caller takes no DISCONNECT either, but it notices a reset.
        socket.reset_at_end();
    }
    // A genuine caller does not notice a FIN; it does notice DISCONNECT.
    peers.send(core, &writer, |out| {
        out.extend_from_slice(&mqtt::DISCONNECT)
    });
    writer::flush(&shard, &writer);
    peers.inbound.served.borrow_mut().remove(key);
    if may_send {
        peers.detach(core, &writer);
        see_off(core, &socket).await;
    } else {
        peers.close(core, &writer);
    }
}

/// Waits until a caller that was sent DISCONNECT, or an alert of TLS, has ended its side. A busy caller may write calls
/// before it reads that. Nobody can answer them any more, and when it reads DISCONNECT, it fails them itself. But if the
/// connection were closed, the kernel would answer them with RST: the caller would fail to write, never read DISCONNECT,
/// and wait until its calls are late.
async fn see_off(core: &Core, socket: &Socket) {
    socket.shutdown_write();
    let discard = Discard::at_most(CALLER_LATE_BYTES_MAX);
    let ended = async {
        drive::read(socket, &core.read_buffer, &discard).await;
    };
    future::or(ended, core.timeout(CALLER_LATE_TIME)).await;
    core.counters()
        .add(Counter::PeersLateBytes, discard.taken.get() as u64);
}

/// Does the TLS handshake of a peer, in its time.
async fn shake_hands(core: &Core, tls: &TlsSocket, stranger: &Stranger<'_>) -> Result<(), String> {
    let settings = core
        .tls
        .as_ref()
        .and_then(|(_, settings)| settings.for_server());
    let settings = settings.ok_or("rpc.tls_listen is not set")?;
    let (line, is_wanted) = (&stranger.inbound.handshakes, || !stranger.has_given_way());
    let done = tls::shake_hands(core, line, tls, settings, is_wanted).await;
    done.map_err(|fault| match fault {
        HandshakeFault::Left => "the caller has closed the connection".into(),
        HandshakeFault::Socket => "the connection failed".into(),
        HandshakeFault::Late => "it took longer than tls.handshake_timeout".into(),
        HandshakeFault::Unwanted => "later callers have its place".into(),
        HandshakeFault::Tls(error) => error.to_string(),
    })
}

/// The last sign of life of a peer.
struct SignOfLife {
    /// It has sent a whole packet.
    has_spoken: Cell<bool>,
    /// The time of its last byte.
    heard: Cell<Instant>,
}

impl SignOfLife {
    /// Waits until the peer has been silent for too long. Returns the counter and the reason.
    async fn silence(&self, core: &Core, writer: &PeerWriter) -> (Counter, &'static str) {
        let rpc = &core.config.rpc;
        if let Some(timeout) = rpc.first_frame_timeout {
            core.timeout(timeout).await;
            if !self.has_spoken.get() {
                return (
                    Counter::PeersSilent,
                    "no packet came within rpc.first_frame_timeout",
                );
            }
        }
        let Some(timeout) = rpc.idle_timeout else {
            return future::pending().await;
        };
        let timeout = timeout.max(PINGS_MISSED * rpc.keepalive);
        loop {
            let now = core.time.get().now;
            if writer.has_calls_in_progress() {
                self.heard.set(now);
            }
            let idle = now.saturating_duration_since(self.heard.get());
            if idle >= timeout {
                return (
                    Counter::PeersIdle,
                    "no byte came within rpc.idle_timeout, nor a ping",
                );
            }
            core.timeout(timeout - idle).await;
        }
    }
}

/// Tells a caller that its connection closes. A genuine caller does not notice a FIN; it does notice DISCONNECT.
async fn refuse(core: &Core, socket: &Socket) {
    // The kernel answers unread bytes with RST, which may overtake the DISCONNECT.
    let discard = Discard::at_most(usize::MAX);
    let _ = future::poll_once(drive::read(socket, &core.read_buffer, &discard)).await;
    if socket.tls().is_some() {
        // TLS has not begun, so it notices the FIN.
        return;
    }
    // A connection that has just begun takes two bytes.
    let _ = socket.write(&[IoSlice::new(&mqtt::DISCONNECT)]);
}

/// The receiver of a caller that nobody serves.
struct Discard {
    taken: Cell<usize>,
    max: usize,
}

impl Discard {
    fn at_most(max: usize) -> Self {
        Self {
            taken: Cell::new(0),
            max,
        }
    }
}

impl Receiver for &Discard {
    fn receive(&self, input: &mut [u8]) -> Result<Option<usize>, End> {
        self.taken.update(|taken| taken + input.len());
        match self.taken.get() > self.max {
            true => Err(End::Enough),
            false => Ok(Some(input.len())),
        }
    }
}

/// Tells the peers that this server leaves.
pub(in crate::shard) fn leave(shard: &Rc<Shard>) {
    let (core, peers) = (&shard.core, &shard.peers);
    for writer in peers.inbound() {
        peers.send(core, &writer, |out| {
            out.extend_from_slice(&mqtt::DISCONNECT)
        });
    }
}

struct PeerReceiver<'a> {
    shard: &'a Rc<Shard>,
    writer: &'a Rc<PeerWriter>,
    socket: &'a Socket,
    sign_of_life: &'a SignOfLife,
}

impl Receiver for PeerReceiver<'_> {
    fn readable(&self) {
        self.socket.quick_ack();
        self.sign_of_life.heard.set(self.shard.core.time.get().now);
    }

    /// Lets others run when the calls of one read take too long.
    fn finished(&self, units: usize, _bytes: usize, _rest: &[u8]) -> Option<Pause> {
        let turn = clock::now().saturating_duration_since(self.shard.core.looked.get());
        let is_late = units >= SLICE_UNITS && turn > READ_TURN_MAX;
        is_late.then(|| -> Pause { Box::pin(clock::yield_to_reactor()) })
    }

    fn waits(&self, bytes: usize) {
        let Shard { core, peers, .. } = &**self.shard;
        peers.frame_waits(core, self.writer, bytes);
    }

    fn receive(&self, input: &mut [u8]) -> Result<Option<usize>, End> {
        let (core, peers) = (&self.shard.core, &self.shard.peers);
        let received = acceptor::receive(input).map_err(|fault| {
            core.counters().add(Counter::BadCalls, 1);
            let caller = self.socket.peer_address().map(tracing::field::display);
            let reason = fault.text();
            tracing::warn!(
                caller,
                reason,
                "a call is not understood; its connection is closed"
            );
            End::Enough
        })?;
        let Some((used, event)) = received else {
            return Ok(None);
        };
        self.sign_of_life.has_spoken.set(true);
        match event {
            Some(AcceptorEvent::Payload(payload)) => {
                serve_payload(self.shard, self.writer, payload);
                if self.writer.has_overflowed() {
                    return Err(End::Enough);
                }
            }
            Some(AcceptorEvent::Ping) => peers.send(core, self.writer, |out| {
                out.extend_from_slice(&mqtt::PINGRESP);
            }),
            Some(AcceptorEvent::Disconnect) => return Err(End::Enough),
            None => {}
        }
        Ok(Some(used))
    }
}

/// Serves the calls of one payload, until more answers wait than may.
fn serve_payload(shard: &Rc<Shard>, writer: &Rc<PeerWriter>, payload: &[u8]) {
    let (core, peers) = (&shard.core, &shard.peers);
    for call in rpc::calls(payload) {
        if writer.has_overflowed() {
            return;
        }
        core.counters().add(Counter::PeerCalls, 1);
        match call {
            Ok(call) => shard.serve_call(writer, &call),
            Err(_) => {
                core.counters().add(Counter::BadCalls, 1);
                peers.send(core, writer, |out| {
                    mqtt::write_publish(out, |out| {
                        out.extend_from_slice(b"{\"resp\":");
                        rpc::write_error(out, "the payload is not JSON");
                        out.push(b'}');
                    });
                });
                return;
            }
        }
    }
}

/// Returns whether a caller may call. One that is not known yet waits for the list of servers; nothing is read of it.
async fn may_call(shard: &Rc<Shard>, caller: IpAddr) -> bool {
    let (core, peers) = (&shard.core, &shard.peers);
    let config = core.latest.config();
    if config.callers.allow(caller) {
        return true;
    }
    if !config.callers.allow_cluster() {
        return false;
    }
    // The servers of this machine dial the address that is announced.
    if config
        .rpc
        .listen
        .is_some_and(|own| own.ip().to_canonical() == caller)
    {
        return true;
    }
    if is_host(&peers.members.borrow(), caller) {
        return true;
    }
    names::look_up(shard);
    if peers.inbound.names.has(core, caller) {
        return true;
    }
    let Some(_held) = peers.inbound.hold() else {
        return false;
    };
    let late = async {
        core.timeout(CALLER_HELD_TIME).await;
        false
    };
    future::or(becomes_member(shard, caller), late).await
}

/// Waits until the list of servers has an address, or a name of it; false where nobody changes the list, and its names
/// have been looked up.
async fn becomes_member(shard: &Rc<Shard>, caller: IpAddr) -> bool {
    let (core, peers) = (&shard.core, &shard.peers);
    let mut seen = None;
    loop {
        let members = peers.members.borrow().clone();
        let is_new = seen.replace(members.generation()) != Some(members.generation());
        names::look_up(shard);
        if is_new && is_host(&members, caller) || peers.inbound.names.has(core, caller) {
            return true;
        }
        let names = &peers.inbound.names;
        if core.config.master.is_none() && names.are_fresh(core, members.generation()) {
            return false;
        }
        clock::sleep(LOOK).await;
    }
}

impl Peers {
    /// Returns the writers of the connections that peers opened.
    pub(in crate::shard) fn inbound(&self) -> Vec<Rc<PeerWriter>> {
        let served = self.inbound.served.borrow();
        served.iter().map(|(_, writer)| writer.clone()).collect()
    }

    /// Logs a refused caller, each address once.
    fn report_refused(&self, core: &Core, caller: IpAddr) {
        let mut refused = self.inbound.refused.borrow_mut();
        if refused.len() >= CALLERS_REFUSED_MAX {
            refused.clear();
        }
        if !refused.insert(caller) {
            return;
        }
        let mut allow = core.latest.config().rpc.allow.clone();
        allow.push(caller.to_string());
        tracing::warn!(
            %caller,
            "refused to take calls from an address that is not a server of the cluster; if it is one of yours, have this \
             line in [rpc] of tangelo.toml: allow = {allow:?}"
        );
    }

    /// Answers a call of a peer with JSON values that commas separate, without any, or with an error; a call whose
    /// connection has ended gets nothing.
    pub(in crate::shard) fn answer(
        &self,
        core: &Core,
        writer: &Rc<PeerWriter>,
        id: &[u8],
        result: Result<Option<&[u8]>, &str>,
    ) {
        self.send_answer(core, writer, id, |out| match result {
            Ok(values) => write_results(out, values, core.config.dialect),
            Err(text) => rpc::write_error(out, text),
        });
    }

    /// Answers a call of a peer with the `resp` of the delegate's answer, or with an error; a call whose connection has
    /// ended gets nothing.
    pub(in crate::shard) fn answer_delegated(
        &self,
        core: &Core,
        writer: &Rc<PeerWriter>,
        id: &[u8],
        resp: Result<&[u8], &str>,
    ) {
        self.send_answer(core, writer, id, |out| match resp {
            Ok(resp) => out.extend_from_slice(resp),
            Err(text) => rpc::write_error(out, text),
        });
    }

    /// Answers a call of a peer, unless its connection has ended. The answer arrives after what the call sent to other
    /// shards.
    fn send_answer(
        &self,
        core: &Core,
        writer: &Rc<PeerWriter>,
        id: &[u8],
        write_resp: impl FnOnce(&mut Vec<u8>),
    ) {
        if !writer.is_open() {
            return;
        }
        writer.note_answer();
        self.send(core, writer, |out| rpc::write_answer(out, id, write_resp));
    }

    /// Answers a call of a peer with the results of a remote; one whose connection has ended gets nothing.
    pub(in crate::shard) fn answer_remote(
        &self,
        core: &Core,
        writer: &Rc<PeerWriter>,
        id: &[u8],
        results: Result<Vec<Value>, Failure>,
    ) {
        if !writer.is_open() {
            return;
        }
        let values = results.map(|results| joined(&results));
        let bytes = |values: &Option<Vec<u8>>| values.as_ref().map_or(0, Vec::len);
        match &values {
            Ok(values) if bytes(values) > RESULTS_BYTES_MAX => {
                self.answer(core, writer, id, Err("the results are too large"));
            }
            Ok(values) => self.answer(core, writer, id, Ok(values.as_deref())),
            Err(failure) => self.answer(core, writer, id, Err(&failure.0)),
        }
    }
}

/// Longest results of a remote: with the brackets and the place of the error around them they fit into a frame.
const RESULTS_BYTES_MAX: usize = RPC_FRAME_BYTES_MAX - b"[null,]".len();

/// Writes values as JSON, with commas between them; `None` when there are none.
fn joined(values: &[Value]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::write_value(&mut out, value);
    }
    (!values.is_empty()).then_some(out)
}

/// Writes the `resp` array of results, as a genuine server of the dialect writes it.
fn write_results(out: &mut Vec<u8>, values: Option<&[u8]>, dialect: Dialect) {
    let Some(values) = values else {
        return out.extend_from_slice(dialect.empty_results());
    };
    out.extend_from_slice(b"[null,");
    out.extend_from_slice(values);
    out.push(b']');
}

/// Returns whether a server of the list has an address as its host.
fn is_host(members: &MemberList, caller: IpAddr) -> bool {
    let addresses = members.hosts().into_iter().map(str::parse);
    addresses
        .flatten()
        .any(|host: IpAddr| host.to_canonical() == caller)
}

/// The place of a caller whose certificate is not known yet, until it is dropped.
struct Stranger<'a> {
    inbound: &'a Inbound,
    number: u64,
}

impl Stranger<'_> {
    /// Returns whether a later caller has its place.
    fn has_given_way(&self) -> bool {
        let strangers = self.inbound.strangers.borrow();
        !strangers.contains_key(&self.number)
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        self.inbound.strangers.borrow_mut().remove(&self.number);
    }
}

/// One of a number of places.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    /// Takes a place; `None` where `max` are taken.
    fn take(taken: &'a Cell<usize>, max: usize) -> Option<Self> {
        let is_full = taken.get() >= max;
        (!is_full).then(|| {
            taken.update(|taken| taken + 1);
            Self(taken)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        debug_assert!(self.0.get() > 0, "a place is given back twice");
        self.0.update(|taken| taken - 1);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_are_written_as_genuine_servers_write_them() {
        for (results, pomelo, pinus) in [
            (vec![], "[]", "[null,null]"),
            (
                vec![json!({"a": 1})],
                r#"[null,{"a":1}]"#,
                r#"[null,{"a":1}]"#,
            ),
            (
                vec![json!(null), json!(2)],
                "[null,null,2]",
                "[null,null,2]",
            ),
        ] {
            for (dialect, expected) in [(Dialect::Pomelo, pomelo), (Dialect::Pinus, pinus)] {
                let mut out = Vec::new();
                write_results(&mut out, joined(&results).as_deref(), dialect);
                assert_eq!(out, expected.as_bytes());
            }
        }
    }
}
