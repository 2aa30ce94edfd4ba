//! Counters: plain integers. Each shard and the watchdog have a set; a report adds them up.
//!
//! **Invariant**: only the owning thread writes its set, so an increment is a load and a store, not
//! a locked instruction; readers may be a moment behind. Counts that belong to no shard are in one
//! further set, [`of_process`], which every thread may write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use crate::error::CloseReason;
use crate::limits::SERVER_TYPES_MEASURED;

/// Version of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit of a packaged crate; `build.rs` reads it.
pub const COMMIT: &str = match option_env!("TANGELO_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The kind of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterKind {
    /// Each shard has its own number, which only grows.
    OfShard,
    /// Each shard has its own number, which rises and falls.
    Gauge,
    /// The process has one number, which only grows.
    OfProcess,
}

/// The name, the kind and the documentation of a counter.
#[derive(Debug)]
pub struct Row {
    /// The counter.
    pub counter: Counter,
    /// Its name in reports and metrics.
    pub name: &'static str,
    /// Its kind.
    pub kind: CounterKind,
    /// Its documentation, one line.
    pub doc: &'static str,
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $variant:ident = $($kind:ident)? $name:literal,)*) => {
        /// A counter or gauge. Its name and its documentation exist once, here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $($(#[doc = $doc])* $variant,)* }

        impl Counter {
            /// All counters, in the order of this file.
            pub const ROWS: &[Row] = &[$(Row {
                counter: Self::$variant,
                name: $name,
                kind: kind!($($kind)?),
                doc: concat!($($doc),*).trim_ascii(),
            },)*];
        }
    };
}

/// A counter is of its shard, unless its row says otherwise.
macro_rules! kind {
    () => {
        CounterKind::OfShard
    };
    (gauge) => {
        CounterKind::Gauge
    };
    (process) => {
        CounterKind::OfProcess
    };
}

counters! {
    /// Connections accepted.
    Accepted = "connections_accepted",
    /// Open connections.
    Connections = gauge "connections",
    /// Sessions with a uid, as the uid index knows them.
    SessionsBound = gauge "sessions_bound",
    /// Clients that a drain closed at the end of its time, although messages of theirs were in flight.
    ClientsCut = "clients_cut",
    /// Clients whose trusted proxy did not tell their address in the header of `client.real_ip_header`: that of the proxy counts.
    AddressesUntold = "addresses_untold",
    /// Accept calls that failed because the process had no descriptors or no memory left.
    AcceptErrors = "accept_errors",
    /// Pauses of a shard before it accepts further connections, because of `client.accepts_per_second`.
    AcceptPauses = "accept_pauses",
    /// TLS handshakes of clients and servers that ended well, with those that continued an earlier session.
    TlsHandshakes = "tls_handshakes",
    /// Those of them with TLS 1.2, which `tls.min_version = "1.3"` would refuse.
    Tls12Handshakes = "tls_1_2_handshakes",
    /// TLS handshakes of all versions that continued an earlier session.
    TlsResumed = "tls_resumed",
    /// TLS handshakes that failed: bytes that are not TLS, nothing in common, a certificate that is refused.
    TlsFailed = "tls_failed",
    /// Times that files of TLS were read again and came into use: they had changed, or SIGHUP asked for it.
    TlsReloads = process "tls_reloads",
    /// Times that changed files of TLS could not be used, so that the old ones stayed.
    TlsReloadsFailed = process "tls_reloads_failed",
    /// Pauses of the reader of a session that was over its rate.
    RatePauses = "rate_pauses",
    /// Pauses of the reader of a session whose address was over its rate.
    AddressPauses = "address_rate_pauses",
    /// Addresses without a connection whose used rate was forgotten because too many of them were kept.
    AddressesForgotten = "addresses_forgotten",
    /// Packages that a client sent in a state in which their type is ignored.
    PackagesIgnored = "packages_ignored",
    /// Requests received from clients.
    Requests = "requests",
    /// Notifies received from clients.
    Notifies = "notifies",
    /// Requests and notifies whose handler, filters or call of another server have not ended.
    MessagesInFlight = gauge "messages_in_flight",
    /// Notifies that ended: they get no response.
    NotifiesEnded = "notifies_ended",
    /// Requests and notifies dropped because nothing has their route, or because their session has just ended.
    MessagesDropped = "messages_dropped",
    /// Requests and notifies that closed their client: their body or their route is not allowed.
    MessagesRefused = "messages_refused",
    /// Messages dropped because they have no route: neither requests nor notifies.
    MessagesUnrouted = "messages_unrouted",
    /// JSON bodies that did not parse and were replaced by `{}`.
    BodiesInvalid = "bodies_invalid",
    /// Bodies that the type of their handler's argument cannot hold.
    BodiesUnfit = "bodies_unfit",
    /// Bodies over `client.json_bytes_max`, or over the limit of their handler's argument.
    BodiesTooLong = "bodies_too_long",
    /// Requests and notifies dropped because their signature is missing or wrong.
    MessagesUnsigned = "messages_unsigned",
    /// Responses and pushes that their proto cannot encode.
    BodiesUnencodable = "bodies_unencodable",
    /// Responses sent to clients.
    Responses = "responses",
    /// Responses dropped because their session has ended, or because the application could not choose a push scheduler.
    ResponsesDropped = "responses_dropped",
    /// Further answers to a message that has one: they are dropped.
    AnswersRepeated = "answers_repeated",
    /// Requests and notifies that failed with code 500.
    Failed = "messages_failed",
    /// Messages and handshakes whose filters or handler are running.
    InProgress = gauge "handlers_in_progress",
    /// Messages and handshakes refused because too many were in progress on their shard.
    InProgressFull = "handlers_full",
    /// Stalls: periods of half a second or longer in which a shard did not tick.
    Stalls = process "stalls",
    /// Times that a shard slept although it had work, until the watchdog woke it.
    WakeupsLost = process "wakeups_lost",
    /// Pauses: ticks of a shard that came half a second late or later, after which its deadlines start again.
    Pauses = "pauses",
    /// Handlers, filters and other functions of the application that panicked.
    Panics = "handler_panics",
    /// Events of sessions dropped because too many waited for the handlers of an earlier one.
    EventsDropped = "session_events_dropped",
    /// Requests about sessions refused because too many waited for another shard.
    RequestsFull = "session_requests_full",
    /// Background tasks and `before_stop` functions that did not end in time.
    TasksLate = "tasks_late",
    /// Runs of crons skipped because the run before had not ended.
    CronsSkipped = "crons_skipped",
    /// Messages that took longer than the timeout of their serial filter.
    SerialTimeouts = "filter_serial_timeouts",
    /// Messages dropped because their session closed while they waited in a serial filter.
    SerialDropped = "filter_serial_dropped",
    /// Messages that took longer than the limit of a timeout filter.
    TimeoutsLate = "filter_timeouts",
    /// Messages that a timeout filter did not watch because it watched `pending_max` others.
    TimeoutsUnwatched = "filter_timeouts_unwatched",
    /// Messages refused because their shard was overloaded.
    ToobusyRefused = "filter_toobusy_refused",
    /// Messages refused because their session exceeded its rate.
    RateRefused = "filter_rate_refused",
    /// Packages pushed to sessions.
    Pushes = "pushes",
    /// Pushes dropped because their session had ended or not finished its handshake, or the mesh was full.
    PushesDropped = "pushes_dropped",
    /// Pushes and broadcasts to many sessions that were not handed out part by part, because too many of them waited.
    FanOutsRushed = "fan_outs_rushed",
    /// Packages dropped because the application chose an unknown push scheduler.
    SchedulersUnknown = "push_schedulers_unknown",
    /// Deliveries of broadcasts that the broadcast filter held back.
    BroadcastsFiltered = "broadcasts_filtered",
    /// Flushes of sessions.
    Flushes = "flushes",
    /// Flushes of which the socket took only a part.
    FlushesBlocked = "flushes_blocked",
    /// Calls forwarded to another server.
    Calls = "rpc_calls",
    /// Answers matched to their call.
    Answers = "rpc_answers",
    /// Answers to calls that had ended or were never made.
    LateAnswers = "rpc_late_answers",
    /// Payloads of peers that could not be decoded.
    BadAnswers = "rpc_bad_answers",
    /// Calls that reached their deadline.
    CallTimeouts = "rpc_timeouts",
    /// Calls refused because too many were in flight for the session.
    SessionCallsFull = "rpc_session_full",
    /// Calls refused because too many were in flight for the server.
    PeerCallsFull = "rpc_peer_full",
    /// Times that a shard has stopped calling a server because it answered none of the last calls.
    BreakersOpened = "rpc_breakers_opened",
    /// Servers that a shard does not call, except for a probe now and then.
    BreakersOpen = gauge "rpc_breakers_open",
    /// Calls refused because their server answered none of the last calls.
    BreakerCalls = "rpc_breaker_failed",
    /// Calls refused or failed because the link was down.
    LinkCallsFailed = "rpc_link_failed",
    /// Frames dropped because they were written for an earlier connection of their link.
    FramesStale = "rpc_frames_stale",
    /// Frames dropped because too many bytes waited for servers that their shard did not know yet.
    UnknownPeerFrames = "rpc_frames_unknown_peer",
    /// Links established: the server has answered.
    LinksUp = "rpc_links_up",
    /// Links lost.
    LinksDown = "rpc_links_down",
    /// Attempts to open a link that failed before the server answered.
    DialsFailed = "rpc_dials_failed",
    /// Links accepted from peers.
    PeersAccepted = "peers_accepted",
    /// Links refused because `rpc.allow` does not have the address of the peer.
    PeersRefused = "peers_refused",
    /// Links from peers refused because `rpc.max_connections` were open, or too many TLS handshakes on `rpc.tls_listen`.
    PeersTooMany = "peers_too_many",
    /// Links from peers closed because no packet came within `rpc.first_frame_timeout`.
    PeersSilent = "peers_silent",
    /// Links from peers closed because no byte came within `rpc.idle_timeout`.
    PeersIdle = "peers_idle",
    /// Links from peers reset because more than `rpc.queue_bytes_max` waited for a peer that takes no bytes.
    PeersStuck = "peers_stuck",
    /// Bytes of peers that came after the DISCONNECT or the TLS alert of the gateway and were dropped.
    PeersLateBytes = "peers_late_bytes",
    /// Calls received from peers.
    PeerCalls = "peer_calls",
    /// Calls of peers that could not be decoded, or that call an unknown remote.
    BadCalls = "peer_bad_calls",
    /// Calls of peers refused because too many calls of the same peer were in progress.
    PeerCallsRefused = "peer_calls_refused",
    /// Calls of peers that a remote of the application did not answer in time.
    RemoteTimeouts = "remote_timeouts",
    /// Calls of peers passed on to the delegate, because no remote here takes them.
    RemotesDelegated = "remotes_delegated",
    /// Calls of peers for the delegate that failed: it was not reachable, did not answer in time or had too many calls.
    RemotesUndelegated = "remotes_undelegated",
    /// Messages of clients that could not be sent to the delegate.
    MessagesUndelegated = "messages_undelegated",
    /// Handshakes for the delegate that it did not answer: it was not reachable, was late or had too many calls.
    HandshakesUndelegated = "handshakes_undelegated",
    /// Questions for the delegate's blacklist without a list as the answer.
    BlacklistsMissed = "blacklists_missed",
    /// Questions to the delegate for the server of a session, with the strategy `delegate:session`.
    RoutesAsked = "routes_asked",
    /// Such questions without a server as the answer: the messages that waited failed.
    RoutesMissed = "routes_missed",
    /// Notices for delegates that were not sent, or that a delegate refused or did not answer.
    DelegateUntold = "delegate_untold",
    /// Lists of all sessions of a shard that a delegate got: on each new connection, and after a notice that it did not get.
    DelegateLists = "delegate_lists",
    /// Times that this server has become part of the cluster of its master.
    RegistryJoins = "registry_joins",
    /// 1 while this server is part of the cluster of its master.
    RegistryJoined = gauge "registry_joined",
    /// Messages of the master that tangelo does not know.
    MasterIgnored = "master_ignored",
    /// Batches sent to other shards.
    MeshBatches = "mesh_batches",
    /// Parcels in the batches sent to other shards.
    MeshParcels = "mesh_parcels",
    /// Turns in which a batch waited because the inbox of its shard was full.
    MeshWaits = "mesh_waits",
    /// Forwards and pushes refused because a mesh batch was full.
    MeshFull = "mesh_full",
    /// Wake-ups of other shards.
    MeshWakes = "mesh_wakes",
    /// Bytes of packages, messages and frames that are not complete, of messages whose handlers or filters run, of
    /// messages and handshakes that wait for the delegate, and of handshakes that are kept for handlers.
    MemoryInput = gauge "memory_input_bytes",
    /// Bytes that wait for clients and servers, with the memory that is kept for further ones.
    MemoryOutput = gauge "memory_output_bytes",
    /// Bytes on their way from other shards to this one, and those that wait for a full inbox of another shard.
    MemoryMesh = gauge "memory_mesh_bytes",
    /// Times that `limits.memory` was so full that new connections were refused.
    MemoryRefusesNew = "memory_refuses_new",
    /// Times that it was so full that connections without a finished handshake were closed.
    MemoryClosesUnready = "memory_closes_unready",
    /// Times that it was so full that slow clients were closed.
    MemoryClosesSlow = "memory_closes_slow",
    /// Times that it was so full that messages got code 500.
    MemoryHeartbeatsOnly = "memory_heartbeats_only",
    /// Messages that got code 500 for that reason.
    MemoryMessagesRefused = "memory_messages_refused",
    /// Jobs given to pools, refused ones included.
    PoolJobs = process "pool_jobs",
    /// Jobs refused because the queue of their pool was full.
    PoolFull = process "pool_full",
    /// Jobs that failed because their pool had no connection.
    PoolFailed = process "pool_no_connection",
    /// Jobs not run because their caller no longer awaited the result.
    PoolDropped = process "pool_dropped",
    /// Jobs that panicked.
    PoolPanics = process "pool_panics",
    /// News for the service manager dropped because too many waited.
    NoticesDropped = process "notices_dropped",
    /// Log lines suppressed by the limit of their kind.
    LogLinesSuppressed = process "log_lines_suppressed",
    /// Lines for standard error or standard output dropped because their queue was full, or the stream did not take them.
    LogLinesDropped = process "log_lines_dropped",
    /// Requests that the operators' port has read.
    AdminRequests = process "admin_requests",
    /// Requests that need the token and were refused: without it, from a page, not understood, or one trace too many.
    AdminDenied = process "admin_requests_denied",
    /// Requests that need the token and could not be done, because a shard did not take or answer them.
    AdminFailed = process "admin_requests_failed",
    /// Connections to the operators' port refused because too many were open.
    AdminRefused = process "admin_connections_refused",
    /// Connections to the operators' port closed because the request or its answer took too long.
    AdminLate = process "admin_connections_late",
}

/// The unit of a histogram's values, as they are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeasureUnit {
    /// Microseconds, shown as seconds.
    Microseconds,
    /// Bytes.
    Bytes,
}

macro_rules! measures {
    ($($(#[doc = $doc:literal])* $variant:ident = $unit:ident $name:literal,)*) => {
        /// A quantity with a histogram. Its name and its documentation exist once, here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Measure { $($(#[doc = $doc])* $variant,)* }

        impl Measure {
            /// Each with its name, its unit and its documentation.
            pub const ROWS: &[(Self, &'static str, MeasureUnit, &'static str)] =
                &[$((Self::$variant, $name, MeasureUnit::$unit, concat!($($doc),*).trim_ascii()),)*];
        }
    };
}

measures! {
    /// Length of a turn: the work of a shard between two looks at its sockets.
    Turn = Microseconds "turn_seconds",
    /// Time from the start to the end of a handler that answers later, and of a message that passes filters.
    Handler = Microseconds "handler_seconds",
    /// Time that a batch waited because the inbox of another shard was full.
    MeshWait = Microseconds "mesh_wait_seconds",
    /// Size of one flush: the bytes that a client or another server got at the end of a turn.
    Flush = Bytes "flush_bytes",
}

/// Name of the histograms of calls, one for each server type.
pub const CALLS: (&str, &str) = (
    "rpc_seconds",
    "Time from a call of another server to its answer, as the calling shard sees it: forwarded messages too.",
);

/// Buckets of a histogram. Bucket n is for values up to 2^n; the last one is for all larger values.
pub const BUCKETS: usize = 26;

/// A histogram. One thread writes it, and each thread may read it: readers may be a moment behind.
///
/// Its buckets are those of a Prometheus histogram, so that a scrape reads them as they are. Cost of a value: two loads and
/// two stores.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// Records a value. Only the owning thread may call it.
    #[inline]
    pub fn record(&self, value: u64) {
        let bits = u64::BITS - value.saturating_sub(1).leading_zeros();
        let count = &self.counts[(bits as usize).min(BUCKETS - 1)];
        count.store(count.load(Relaxed) + 1, Relaxed);
        self.sum.store(self.sum.load(Relaxed) + value, Relaxed);
    }

    /// Returns the number of values in each bucket.
    pub fn counts(&self) -> [u64; BUCKETS] {
        self.counts.each_ref().map(|count| count.load(Relaxed))
    }

    /// Returns the sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }
}

/// The calls to the servers of one type.
#[derive(Debug, Default)]
struct CallsOfType {
    /// The type; empty before the shard knows it.
    name: OnceLock<Box<str>>,
    times: Histogram,
}

/// The counters of one thread.
#[derive(Debug)]
pub struct Counters {
    counts: Vec<AtomicU64>,
    closed: [AtomicU64; CloseReason::COUNT],
    measures: [Histogram; Measure::ROWS.len()],
    /// By the index of the type. Types beyond the last one share its place.
    calls: [CallsOfType; SERVER_TYPES_MEASURED],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            counts: Counter::ROWS.iter().map(|_| AtomicU64::new(0)).collect(),
            closed: std::array::from_fn(|_| AtomicU64::new(0)),
            measures: Default::default(),
            calls: Default::default(),
        }
    }
}

impl Counters {
    /// Adds to a counter. Only the owning thread may call it.
    pub fn add(&self, counter: Counter, n: u64) {
        let cell = &self.counts[counter as usize];
        cell.store(cell.load(Relaxed) + n, Relaxed);
    }

    /// Lowers a gauge. Only the owning thread may call it.
    pub fn sub(&self, counter: Counter, n: u64) {
        let cell = &self.counts[counter as usize];
        cell.store(cell.load(Relaxed).saturating_sub(n), Relaxed);
    }

    /// Sets a gauge. Only the owning thread may call it.
    pub fn set(&self, counter: Counter, value: u64) {
        self.counts[counter as usize].store(value, Relaxed);
    }

    /// Counts a client's connection that closes.
    pub fn closed(&self, reason: CloseReason) {
        let cell = &self.closed[reason.index()];
        cell.store(cell.load(Relaxed) + 1, Relaxed);
    }

    /// Records a value of a histogram. Only the owning thread may call it.
    #[inline]
    pub fn record(&self, measure: Measure, value: u64) {
        self.measures[measure as usize].record(value);
    }

    /// Records a time of a histogram. Only the owning thread may call it.
    #[inline]
    pub fn record_time(&self, measure: Measure, time: Duration) {
        self.record(measure, micros(time));
    }

    /// Records the time of a call to a server of a type. Only the owning thread may call it.
    #[inline]
    pub fn record_call(&self, server_type: usize, time: Duration) {
        let calls = &self.calls[server_type.min(SERVER_TYPES_MEASURED - 1)];
        calls.times.record(micros(time));
    }

    /// Stores the name of a server type. Types that share a place have the name `others`.
    pub fn name_type(&self, server_type: usize, name: &str) {
        let is_alone = server_type < SERVER_TYPES_MEASURED - 1;
        let calls = &self.calls[server_type.min(SERVER_TYPES_MEASURED - 1)];
        let _ = calls
            .name
            .set(if is_alone { name } else { "others" }.into());
    }

    /// Returns the histogram of a quantity.
    pub fn measure(&self, measure: Measure) -> &Histogram {
        &self.measures[measure as usize]
    }

    /// Returns the histograms of calls, with the server types.
    pub fn calls(&self) -> impl Iterator<Item = (&str, &Histogram)> {
        let known = self.calls.iter();
        known.filter_map(|calls| Some((&**calls.name.get()?, &calls.times)))
    }

    /// Returns the value of a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize].load(Relaxed)
    }

    /// Returns the number of closed connections, by the name of the reason's counter.
    pub fn closes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.closed.iter().map(|count| count.load(Relaxed));
        CloseReason::COUNTERS.iter().copied().zip(counts)
    }
}

/// Returns whole microseconds. `Duration::as_micros` counts with 128 bits, which a forwarded message would pay for.
fn micros(time: Duration) -> u64 {
    time.as_secs() * 1_000_000 + u64::from(time.subsec_micros())
}

static PROCESS: LazyLock<Counters> = LazyLock::new(Counters::default);

/// Returns the counters of the process, which all its gateways share.
pub fn of_process() -> &'static Counters {
    &PROCESS
}

/// Adds one to a counter of the process, from any thread.
pub fn count_for_process(counter: Counter) {
    count_for_process_by(counter, 1);
}

/// Adds to a counter of the process, from any thread.
pub fn count_for_process_by(counter: Counter, n: u64) {
    PROCESS.counts[counter as usize].fetch_add(n, Relaxed);
}

/// Returns all counters that are not zero, added up over `shards`: `name=value name=value …`.
pub fn report<'a>(shards: impl Iterator<Item = &'a Counters>) -> String {
    let mut sums = std::collections::BTreeMap::<&str, u64>::new();
    for shard in shards {
        for row in Counter::ROWS {
            *sums.entry(row.name).or_default() += shard.get(row.counter);
        }
        for (name, count) in shard.closes() {
            *sums.entry(name).or_default() += count;
        }
    }
    let parts = sums.iter().filter(|(_, value)| **value > 0);
    parts
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_that_has_room_for_it() {
        let largest = 1 << (BUCKETS - 2);
        for (value, bucket) in [
            (0, 0),
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 2),
            (5, 3),
            (largest, BUCKETS - 2),
            (largest + 1, BUCKETS - 1),
            (1 << 40, BUCKETS - 1),
        ] {
            let histogram = Histogram::default();
            histogram.record(value);
            let mut expected = [0; BUCKETS];
            expected[bucket] = 1;
            assert_eq!((histogram.counts(), histogram.sum()), (expected, value));
        }
    }

    #[test]
    fn server_types_beyond_the_last_place_share_it() {
        let counters = Counters::default();
        for server_type in 0..2 * SERVER_TYPES_MEASURED {
            counters.name_type(server_type, &format!("type{server_type}"));
            counters.record_call(server_type, Duration::from_micros(3));
        }
        let calls: Vec<_> = counters.calls().collect();
        assert_eq!(calls.len(), SERVER_TYPES_MEASURED);
        assert_eq!((calls[0].0, calls[0].1.sum()), ("type0", 3));
        let (name, times) = calls[SERVER_TYPES_MEASURED - 1];
        let count = SERVER_TYPES_MEASURED as u64 + 1;
        assert_eq!((name, times.sum()), ("others", 3 * count));
    }

    #[test]
    fn a_report_adds_up_shards_and_leaves_zeros_out() {
        let (a, b) = (Counters::default(), Counters::default());
        a.add(Counter::Requests, 2);
        b.add(Counter::Requests, 3);
        a.closed(CloseReason::Kicked);
        b.closed(CloseReason::WebSocket(1002));
        assert_eq!(
            report([&a, &b].into_iter()),
            "closed_kicked=1 closed_websocket=1 requests=5"
        );
    }
}
