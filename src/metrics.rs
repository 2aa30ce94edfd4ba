//! Counters: plain integers, one set per shard and one of the watchdog, added up when somebody asks.
//!
//! **Invariant**: only the owning thread writes its set, so an increment is a load and a store, not
//! a locked instruction; readers may be a moment behind. What belongs to no shard has one set more,
//! [`of_process`], which everybody may write.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::Fault;

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What is counted. Each name exists once, here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $($(#[$doc])* $variant,)* }

        impl Counter {
            const ALL: &[(Self, &'static str)] = &[$((Self::$variant, $name),)*];

            /// Name in reports.
            pub fn name(self) -> &'static str {
                Self::ALL[self as usize].1
            }
        }
    };
}

counters! {
    /// Connections accepted.
    Accepted = "connections_accepted",
    /// Connections of now.
    Connections = "connections",
    /// Bound sessions of now, as the uid index knows them.
    SessionsBound = "sessions_bound",
    /// Accept calls that failed for want of descriptors or memory.
    AcceptErrors = "accept_errors",
    /// Packages that the state of their connection ignores.
    PackagesIgnored = "packages_ignored",
    /// Messages that carry no usable route.
    MessagesDropped = "messages_dropped",
    /// Requests and notifies taken.
    Messages = "messages",
    /// JSON bodies that did not parse and became `{}`.
    BodiesInvalid = "bodies_invalid",
    /// Bodies that do not fit the type that their handler takes.
    BodiesUnfit = "bodies_unfit",
    /// Messages dropped for want of a good signature.
    MessagesUnsigned = "messages_unsigned",
    /// Responses and pushes that did not fit the proto of their route.
    BodiesUnencodable = "bodies_unencodable",
    /// Responses written.
    Responses = "responses",
    /// Responses to a notify or to a session that is gone.
    ResponsesDropped = "responses_dropped",
    /// Requests and notifies that failed with code 500 before or instead of an answer.
    Failed = "messages_failed",
    /// Messages and handshakes of now whose filters or handler have not come to their end.
    InProgress = "handlers_in_progress",
    /// Messages and handshakes refused because as many were in progress on their shard as may be.
    InProgressFull = "handlers_full",
    /// Stalls: periods of half a second or longer in which a shard did not tick.
    Stalls = "stalls",
    /// Times that a shard slept although it had work, until the watchdog woke it.
    WakeupsLost = "wakeups_lost",
    /// Pauses: ticks of a shard that were half a second late or more; its deadlines start again.
    Pauses = "pauses",
    /// Handlers, filters and other functions of the application that panicked.
    Panics = "handler_panics",
    /// Background tasks, and functions called before the stop, that were not done in time.
    TasksLate = "tasks_late",
    /// Times of crons that came while they still ran.
    CronsSkipped = "crons_skipped",
    /// Messages that took longer than their serial filter waits.
    SerialTimeouts = "filter_serial_timeouts",
    /// Messages that waited in a serial filter when their session closed.
    SerialDropped = "filter_serial_dropped",
    /// Messages that a timeout filter found late.
    TimeoutsLate = "filter_timeouts",
    /// Messages that came when a timeout filter watched as many as it can.
    TimeoutsUnwatched = "filter_timeouts_unwatched",
    /// Messages refused because the shard was late.
    ToobusyRefused = "filter_toobusy_refused",
    /// Messages refused because their session sent too many.
    RateRefused = "filter_rate_refused",
    /// Packages pushed to sessions.
    Pushes = "pushes",
    /// Pushes to sessions that are gone or not yet working, or over a full mesh.
    PushesDropped = "pushes_dropped",
    /// Packages lost because the application chose a push scheduler that there is not.
    SchedulersUnknown = "push_schedulers_unknown",
    /// Sessions that the broadcast filter kept a broadcast from.
    BroadcastsFiltered = "broadcasts_filtered",
    /// Flushes of a session.
    Flushes = "flushes",
    /// Flushes that the socket did not take whole.
    FlushesBlocked = "flushes_blocked",
    /// Calls forwarded to another server.
    Calls = "rpc_calls",
    /// Answers matched to their call.
    Answers = "rpc_answers",
    /// Answers to calls that are over, or that never were.
    LateAnswers = "rpc_late_answers",
    /// Payloads of peers that could not be read.
    BadAnswers = "rpc_bad_answers",
    /// Calls that reached their deadline.
    CallTimeouts = "rpc_timeouts",
    /// Calls refused because too many were in flight for the session.
    SessionCallsFull = "rpc_session_full",
    /// Calls refused because too many were in flight for the server.
    PeerCallsFull = "rpc_peer_full",
    /// Calls refused or failed because the link was down.
    LinkCallsFailed = "rpc_link_failed",
    /// Frames that reached a link of an older epoch and were not sent.
    FramesStale = "rpc_frames_stale",
    /// Links opened: the server has answered.
    LinksUp = "rpc_links_up",
    /// Links lost.
    LinksDown = "rpc_links_down",
    /// Tries to open a link that ended before the server answered.
    DialsFailed = "rpc_dials_failed",
    /// Links that peers opened.
    PeersAccepted = "peers_accepted",
    /// Links of peers that are not in the cluster.
    PeersRefused = "peers_refused",
    /// Calls of peers.
    PeerCalls = "peer_calls",
    /// Calls of peers that could not be read, or that nobody serves.
    BadCalls = "peer_bad_calls",
    /// Calls of peers refused because as many of the same peer were in progress as may be.
    PeerCallsRefused = "peer_calls_refused",
    /// Calls of peers that a remote of the application did not answer in time.
    RemoteTimeouts = "remote_timeouts",
    /// Sessions of whose end the delegate could not be told.
    DelegateUntold = "delegate_untold",
    /// Messages of the master that mean nothing here.
    MasterIgnored = "master_ignored",
    /// Batches sent to other shards.
    MeshBatches = "mesh_batches",
    /// Parcels in them.
    MeshParcels = "mesh_parcels",
    /// Turns in which a mesh inbox was full and a batch had to wait.
    MeshWaits = "mesh_waits",
    /// Forwards and pushes refused because a mesh batch was full.
    MeshFull = "mesh_full",
    /// Wake-ups of other shards.
    MeshWakes = "mesh_wakes",
    /// Jobs for pools, those that were refused included.
    PoolJobs = "pool_jobs",
    /// Jobs refused because as many waited as may.
    PoolFull = "pool_full",
    /// Jobs that failed because their pool had no connection.
    PoolFailed = "pool_no_connection",
    /// Jobs not run because nobody awaited their result any more.
    PoolDropped = "pool_dropped",
    /// Jobs that panicked.
    PoolPanics = "pool_panics",
    /// Log lines over the limit of their kind.
    LogLinesSuppressed = "log_lines_suppressed",
    /// Lines for standard error or standard output that were dropped because too many waited.
    LogLinesDropped = "log_lines_dropped",
}

/// One thread's counters.
#[derive(Debug)]
pub struct Counters {
    counts: Vec<AtomicU64>,
    faults: [AtomicU64; Fault::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            counts: Counter::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            faults: Default::default(),
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

    /// Counts the end of a connection.
    pub fn closed(&self, fault: Fault) {
        let cell = &self.faults[fault.index()];
        cell.store(cell.load(Relaxed) + 1, Relaxed);
    }

    /// Value of a counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize].load(Relaxed)
    }
}

static PROCESS: LazyLock<Counters> = LazyLock::new(Counters::default);

/// What is counted for the whole process, whichever gateway of it has the work done.
pub fn of_process() -> &'static Counters {
    &PROCESS
}

/// Counts one more for the whole process, from any thread.
pub fn count_for_process(counter: Counter) {
    PROCESS.counts[counter as usize].fetch_add(1, Relaxed);
}

/// All counters that are not zero, added up over shards: `name=value name=value …`.
pub fn report<'a>(shards: impl Iterator<Item = &'a Counters>) -> String {
    let mut sums = std::collections::BTreeMap::<&str, u64>::new();
    for shard in shards {
        for (counter, name) in Counter::ALL {
            *sums.entry(name).or_default() += shard.get(*counter);
        }
        for (count, name) in shard.faults.iter().zip(Fault::NAMES) {
            *sums.entry(name).or_default() += count.load(Relaxed);
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
    fn a_report_adds_up_shards_and_leaves_zeros_out() {
        let (a, b) = (Counters::default(), Counters::default());
        a.add(Counter::Messages, 2);
        b.add(Counter::Messages, 3);
        a.closed(Fault::Kicked);
        b.closed(Fault::WebSocket(1002));
        assert_eq!(
            report([&a, &b].into_iter()),
            "closed_kicked=1 closed_websocket=1 messages=5"
        );
    }
}
