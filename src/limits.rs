//! The hard bounds, which no configuration can change. [`crate::config`] has the knobs and their
//! ranges.

use std::time::Duration;

/// Longest package body: its length is three bytes on the wire.
pub const PACKAGE_BODY_BYTES_MAX: usize = (1 << 24) - 1;
/// Longest plain route: its length is one byte on the wire.
pub const ROUTE_BYTES_MAX: usize = 255;
/// Largest message id, as in the reference's usable range; a larger one closes the connection.
pub const MESSAGE_ID_MAX: u32 = i32::MAX as u32;
/// Longest varint of a message id, bytes.
pub const MESSAGE_ID_BYTES_MAX: usize = 5;
/// Deepest nesting of a JSON body; a deeper body is invalid.
pub const JSON_DEPTH_MAX: usize = 512;
/// Fields of one protobuf message; a schema with more is refused.
pub const PROTOBUF_FIELDS_MAX: usize = 1024;
/// Definitions of one protobuf schema: their index is two bytes.
pub const PROTOBUF_MESSAGES_MAX: usize = 1 << 14;
/// Largest protobuf tag: with the wire type it is a positive 32-bit integer to JavaScript.
pub const PROTOBUF_TAG_MAX: u32 = (1 << 28) - 1;
/// Deepest nesting of protobuf messages, in a schema and in a body; a deeper body is an error.
pub const PROTOBUF_DEPTH_MAX: usize = 64;
/// Fields and elements of one protobuf body, nested ones included; more of them are an error.
pub const PROTOBUF_ELEMENTS_MAX: usize = 1 << 20;
/// Largest JSON text of one protobuf body. The names are in the schema, not in the body, so the text
/// can be many times longer.
pub const PROTOBUF_JSON_BYTES_MAX: usize = 16 << 20;

const _: () = assert!(
    2 * PROTOBUF_DEPTH_MAX <= JSON_DEPTH_MAX,
    "each message may stand in an array, and all are read as JSON again"
);
const _: () = assert!(
    PROTOBUF_FIELDS_MAX.is_multiple_of(64),
    "a set of fields is a whole number of u64 words"
);
const _: () = assert!(PROTOBUF_MESSAGES_MAX <= u16::MAX as usize);

/// Smallest RSA key that a client may sign with: a smaller one has no room for a signature.
pub const RSA_KEY_BITS_MIN: usize = 360;
/// Largest RSA key; all messages of a client with a larger one are dropped.
pub const RSA_KEY_BITS_MAX: usize = 4096;

/// Path, header names and header values of an HTTP request together must be shorter than this, as in
/// Node 20.
pub const HTTP_HEAD_TEXT_BYTES: usize = 16 << 10;
/// HTTP headers read per request; further ones are ignored, as in Node 20.
pub const HTTP_HEADERS_MAX: usize = 1000;
/// Largest HTTP request head: the text above, and four bytes around each of its headers.
pub const HTTP_HEAD_BYTES_MAX: usize = 20 << 10;
/// Largest control frame payload of WebSocket, RFC 6455 5.5.
pub const WEBSOCKET_CONTROL_BYTES_MAX: usize = 125;

/// Largest handshake kept for a session, if a handler needs handshakes.
pub const HANDSHAKE_KEPT_BYTES_MAX: usize = 16 << 10;
/// Functions that wait for one session to close.
pub const CLOSE_CALLS_MAX: usize = 64;

/// Days searched for the next time of a cron. The calendar repeats after 400 years, so a time outside
/// of them does not exist.
pub const CRON_SEARCH_DAYS_MAX: usize = 146_097 + 1;
/// Crons of one server.
pub const CRONS_MAX: usize = 1024;

/// Shards of one process: the width of the shard number in a session id.
pub const SHARDS_MAX: usize = 256;
/// Sessions of one shard: the width of the slot number in a session id.
pub const SESSIONS_PER_SHARD_MAX: usize = 1 << 20;
/// Memory of a connection without waiting bytes, in the ledger of memory: its entries in the tables of a shard and the
/// future that reads it.
pub const SESSION_BYTES: usize = 640;
/// Part of the memory in use that the ledger adds for blocks between those in use, which the allocator cannot give back.
pub const MEMORY_BETWEEN_BLOCKS: u64 = 8;
/// A shard gives memory back to the kernel when it has held this much more than now.
pub const MEMORY_GIVE_BACK_BYTES: usize = 1 << 20;
/// Connections that a shard closes at one time because memory is short.
pub const MEMORY_CLOSES_MAX: usize = 256;
/// A connection that holds less than this is not closed because memory is short.
pub const MEMORY_CLOSE_BYTES_MIN: usize = 4 << 10;
/// Times one slot is used before it is retired: the width of the generation in a session id.
pub const GENERATIONS_MAX: u32 = (1 << 25) - 1;

const _: () = assert!(
    SHARDS_MAX.ilog2() + SESSIONS_PER_SHARD_MAX.ilog2() + 25 <= 53,
    "a session id must be a safe JavaScript integer"
);

/// Regular expressions of all blacklists together.
pub const BLACKLIST_MAX: usize = 10_000;
/// Memory for the compiled expressions, and largest size of their file.
pub const BLACKLIST_BYTES_MAX: usize = 10 << 20;

/// Path of a unix socket: the kernel takes 108 bytes with the zero behind them.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Addresses and networks of trusted proxies; each new connection is compared with all of them.
pub const TRUSTED_PROXIES_MAX: usize = 1024;
/// Largest header of the PROXY protocol. The addresses need 52 bytes; the rest is for the further fields of clouds
/// and of TLS.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 << 10;
/// Time in which a trusted proxy must send this header.
pub const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses without a connection whose used rate is kept. Full: a further one is forgotten, and has its whole rate when it
/// comes again.
pub const ADDRESSES_KEPT_MAX: usize = 64 << 10;

/// Read buffer that a shard lends to its connections; larger than a usual burst, so that one read
/// drains a socket.
pub const READ_BUFFER_BYTES: usize = 64 << 10;
/// Bytes in one direction of a connection in memory, about as many as the kernel buffers over loopback.
/// Full: a write takes only the bytes that fit.
pub const MEMORY_SOCKET_BYTES: usize = 256 << 10;
/// Bytes that one connection may read before other tasks run.
pub const READ_BUDGET_BYTES: usize = 4 * READ_BUFFER_BYTES;
/// Time of a turn after which a reader lets the others run, before its next messages.
pub const READ_TURN_MAX: Duration = Duration::from_millis(2);
/// Certificates of a process, each for some names.
pub const CERTIFICATES_MAX: usize = 1024;
/// Bytes that a TLS connection keeps of a record or a message of the handshake that is not whole: the largest record of
/// TLS 1.2, which is larger than that of 1.3.
pub const TLS_RECORD_BYTES_MAX: usize = (16 << 10) + 2048 + 5;
/// Bytes of TLS records without data between records with data; with more the connection ends. New keys, which a client
/// needs once in 2^24 records, are 32 bytes.
pub const TLS_BYTES_WITHOUT_DATA_MAX: usize = 4 << 10;
/// Memory of a TLS session without waiting records, in the ledger of memory.
pub const TLS_SESSION_BYTES: usize = 3 << 10;
/// Slices of one vectored write.
pub const WRITE_SLICES_MAX: usize = 16;
/// Size from which outboxes share a push body instead of copying it.
pub const SHARED_BODY_BYTES_MIN: usize = 1024;

/// Members that get a push or broadcast at once; one for more is handed out part by part, with other work between.
pub const FAN_OUT_AT_ONCE_MAX: usize = 256;
/// Members of all pushes and broadcasts of a shard that are handed out: 8 MiB. Full: the oldest ones are ended at once.
pub const FAN_OUT_MEMBERS_MAX: usize = SESSIONS_PER_SHARD_MAX;

/// Push schedulers, the default one included.
pub const PUSH_SCHEDULERS_MAX: usize = 8;
/// Rules in `push.select`; each push is compared with all of them once, for all receivers.
pub const PUSH_RULES_MAX: usize = 256;

/// Batches in one shard's mesh inbox. Full: the sender keeps its batch open and tries again each turn.
pub const MESH_BATCHES_MAX: usize = 1024;
/// Memory of the batches in one shard's mesh inbox. One batch always fits. Full: as above.
pub const MESH_INBOX_BYTES_MAX: usize = LINK_QUEUE_BYTES_MAX;
/// Longest time that answers to other servers wait for a full mesh inbox, so that the pushes before them arrive first. It
/// is longer than a pause of a shard that runs, and short for the timeouts of those servers.
pub const ANSWERS_WAIT_MAX: Duration = Duration::from_secs(1);
/// Parcels in one open mesh batch. Full: forwards and pushes into it are refused.
pub const MESH_PARCELS_MAX: usize = 64 << 10;

/// Bytes waiting for one peer, unless `rpc.queue_bytes_max` is set; past it the link is treated as hung and dropped. Also
/// the bytes of new work in one open mesh batch.
pub const LINK_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Bytes of frames that wait until a shard hears of their servers, as for a link. Full: the link of the server
/// counts as ended, and its calls fail.
pub const UNKNOWN_PEER_BYTES_MAX: usize = LINK_QUEUE_BYTES_MAX;
/// Largest MQTT packet of a peer.
pub const RPC_FRAME_BYTES_MAX: usize = 32 << 20;
/// Longest timeout of a call to another server, like that of `rpc.timeout`.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Entries of `rpc.allow`; each new connection of another server is compared with all of them.
pub const CALLER_NETWORKS_MAX: usize = 1024;
/// Callers that are not known yet and wait for the list of servers or the look-up of its names; more are refused. Of those
/// that wait for the end of their TLS handshake there are as many; for one more, the oldest is closed.
pub const CALLERS_HELD_MAX: usize = 64;
/// Longest time of this wait. A server of a cluster may call before the master has named it, seconds at most.
pub const CALLER_HELD_TIME: Duration = Duration::from_secs(5);
/// Bytes that are read and dropped of a caller that was sent DISCONNECT or an alert of TLS, before its connection is closed.
pub const CALLER_LATE_BYTES_MAX: usize = 64 << 10;
/// Longest time of this. A genuine caller ends its side as soon as it reads DISCONNECT.
pub const CALLER_LATE_TIME: Duration = Duration::from_secs(5);
/// Refused addresses that are remembered, so that each is one warning.
pub const CALLERS_REFUSED_MAX: usize = 256;
/// Other servers that the configuration may name.
pub const SERVERS_MAX: usize = 4096;

/// Listeners for clients: each costs a descriptor of each shard.
pub const LISTENERS_MAX: usize = 16;

/// Threads of one pool.
pub const POOL_THREADS_MAX: usize = 256;
/// Jobs that may wait in one pool. A task that awaits all of them has one wake-up pending per job, and
/// glommio counts wake-ups in 15 bits.
pub const POOL_JOBS_MAX: usize = 1 << 14;

/// Messages and handshakes in progress on one shard. Each session has its own bound, but its handlers
/// still run after it has closed. At about 1 KiB each they hold 64 MiB.
pub const IN_PROGRESS_MAX: u32 = 64 << 10;
/// Requests about sessions of one shard that wait for another shard; one more fails at once.
pub const REQUESTS_PENDING_MAX: usize = 64 << 10;
/// Events of sessions that wait until the handlers of an earlier one return: a whole shard of sessions may close
/// within one handler. Full: the oldest one is dropped.
pub const EVENTS_PENDING_MAX: usize = SESSIONS_PER_SHARD_MAX;
/// Sessions in one call that lists all sessions for a delegate; the next call follows the answer.
pub const LISTED_SESSIONS_MAX: usize = 64;
/// Bytes of such a list after which it takes no further session.
pub const LISTED_BYTES: usize = 64 << 10;
/// Slots that are looked at for one such list.
pub const LISTED_SLOTS_MAX: usize = 4096;
/// Longest name that a delegate gives to a change of a session; a longer one is ignored.
pub const CHANGE_NAME_BYTES_MAX: usize = 64;
/// Time without a tick after which a stalled shard is reported: ten ticks. A busy machine or a large
/// broadcast delays a tick less, and a player waits longer before giving up.
pub const STALL_MIN: Duration = Duration::from_millis(500);

/// Longest body in a log line; a longer one is replaced by its length.
pub const LOG_ARGS_BYTES_MAX: usize = 8 << 10;
/// Log lines waiting for the writer. Full: the line is dropped and counted.
pub const LOG_LINES_MAX: usize = 8192;
/// Lines of one kind per window. A kind is one place in the code. Above: the lines are counted, and a
/// summary at the end of the window shows the first of them.
pub const LOG_BURST_MAX: u64 = 10;
/// Length of that window. It begins with the first line of any kind.
pub const LOG_WINDOW: Duration = Duration::from_secs(10);
/// News that wait for the thread that writes to the service manager. Full: the news is dropped and counted.
pub const NOTICES_MAX: usize = 16;
/// Kinds of log lines with a count of their own, about eight times the number in the code.
pub const LOG_KINDS_MAX: usize = 512;
/// Longest text inside a log line: the example of a summary, the cause of a code 500. Above: it is cut.
pub const LOG_TEXT_BYTES_MAX: usize = 1024;
/// Lines waiting for the reader of standard output. Full: the line is dropped and counted.
pub const STDOUT_LINES_MAX: usize = 256;

/// Server types whose calls have a histogram of their own, and one place for all further ones.
pub const SERVER_TYPES_MEASURED: usize = 16;

/// Open connections to the operators' port.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;
/// Longest time in which a request to the operators' port may begin and its head end: silent connections soon make room.
pub const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest head of a request to the operators' port.
pub const ADMIN_HEAD_BYTES_MAX: usize = 16 << 10;
/// Largest body of a request to the operators' port.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 << 10;
/// Traces that run at one time on the operators' port: they leave room for other requests.
pub const ADMIN_TRACES_MAX: usize = 8;
/// Events of a trace that wait for its client.
pub const TRACE_EVENTS_MAX: usize = 256;
/// Largest event of a trace that the command `trace` reads.
pub const ADMIN_EVENT_BYTES_MAX: usize = 64 << 10;
/// Largest body that a shard copies for a trace.
pub const TRACE_COPY_BYTES_MAX: usize = 64 << 10;
/// Part of a body that a trace shows.
pub const TRACE_BODY_BYTES_MAX: usize = 1 << 10;
/// Traced sessions of a shard, one for each trace of it.
pub const TRACES_PER_SHARD_MAX: usize = 64;
/// Longest token of the operators' port.
pub const ADMIN_TOKEN_BYTES_MAX: u64 = 4 << 10;
/// Longest time of a connection to the operators' port, from its begin to the end of the answer.
pub const ADMIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = assert!(POOL_JOBS_MAX + POOL_THREADS_MAX < 1 << 15);
const _: () = assert!(PACKAGE_BODY_BYTES_MAX < RPC_FRAME_BYTES_MAX);
const _: () = assert!(RPC_FRAME_BYTES_MAX <= LINK_QUEUE_BYTES_MAX);
const _: () = assert!(PROTOBUF_JSON_BYTES_MAX < RPC_FRAME_BYTES_MAX);
const _: () = assert!(READ_BUFFER_BYTES > HTTP_HEAD_BYTES_MAX);
const _: () = assert!(HTTP_HEAD_BYTES_MAX > HTTP_HEAD_TEXT_BYTES + 4 * HTTP_HEADERS_MAX + 20);
