//! Every knob. Plain structs and their defaults; reading files, flags and the environment is
//! `gateway/load.rs`.
//!
//! The names are the keys of `tangelo.toml`: field `heartbeat` of [`Client`] is `client.heartbeat`
//! there and in `--set client.heartbeat=3s`. Three exceptions: `servers` is written `[[server]]`,
//! with the keys `id`, `type`, `host`, `port`, `weight`, `client_host` and `client_port`; `routes` is `[route]`, with server
//! types as keys; `master`, `crons` and `warnings` come from a project only. Durations carry their unit (`3s`, `20ms`),
//! sizes are bytes or carry theirs (`64KiB`). A value outside its range is an error when read from a file
//! or a flag; whoever fills these structs by hand keeps to the ranges.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The whole configuration of one tangelo process.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Server id, unique in the cluster; backends call back to it. Default `connector-1`.
    /// Pomelo: `id` in `servers.json`.
    pub id: String,
    /// Server type whose routes are handled here. Default `connector`. Pomelo: the key in
    /// `servers.json` above the entry.
    pub server_type: String,
    /// Server type whose servers get the messages for the own type that no handler here takes, their
    /// routes unchanged. Default none: such a message gets code 500. Pomelo looks for a handler by
    /// the type in its route, so a backend of this type runs the connector's own handlers,
    /// `app/servers/connector/handler`, as they are; README.md says what Pinus needs. It must not
    /// be the own type.
    pub delegate: Option<String>,
    /// Remote of the delegate, `service.method`, that is told of each session which has closed after the
    /// delegate got a message of it: called once with the session as backends know it
    /// (`{"id":…,"frontendId":…,"uid":…,"settings":{…}}`), at the server that routing chooses for it.
    /// Nothing is waited for; a call that cannot be sent is counted (`delegate_untold`). Default none.
    /// Stands in for Pomelo's `session.on('closed')`, which a `BackendSession` does not have.
    pub delegate_closed: Option<String>,
    /// Environment whose part of the project's files is read. Default `development`. Pomelo: `env`.
    pub env: String,
    /// Which framework's details to follow where they differ. Default `pomelo`.
    pub dialect: Dialect,
    /// Where clients connect, TCP and WebSocket on one port. Default `127.0.0.1:3010`; port 0 lets
    /// the kernel choose. Pomelo: `clientPort` (and `host` with `distinctHost`).
    pub listen: SocketAddr,
    /// Shards, each one thread with its own sockets, sessions and handlers. `None`: one per
    /// available core. Range 1..=`limits::SHARDS_MAX`. More than cores costs CPU per message.
    pub shards: Option<usize>,
    /// Pins shard n to the n-th available core, for a machine whose cores belong to this gateway alone.
    /// Default false. A pinned shard is never moved, which keeps the caches of its core; but it waits
    /// when another process keeps its core busy, even if other cores are free. `perf/pinning.sh`
    /// measures both. With more shards than cores no shard is pinned, and a warning says so. When
    /// another gateway has reserved a core, the shard for that core is not pinned, and a warning names
    /// the core. Gateways in different network namespaces, such as containers, do not see each
    /// other's reservations.
    pub pin: bool,
    /// How long what the application does at the start may take, until the start has failed. Default
    /// 60 s; range 100 ms..=1 h.
    pub start_timeout: Duration,
    /// How long the application may take to end, its background tasks and what it does before the
    /// stop; clients are closed after that. Default 3 s; range 0 s..=10 min. A supervisor that kills
    /// has to wait longer. Pomelo: `TIME_WAIT_STOP`.
    pub stop_timeout: Duration,
    /// Game clients.
    pub client: Client,
    /// Built-in filters.
    pub filter: Filter,
    /// Users and their sessions.
    pub session: Session,
    /// Push scheduler.
    pub push: Push,
    /// Calls to and from other servers.
    pub rpc: Rpc,
    /// How the server of a forwarded message is chosen: server type, or `default` for all that are
    /// not named, to a text for `route::balance::Strategy::parse`. Default none: by the uid, as
    /// Pomelo does. Pomelo: `app.route`, `routerType`.
    pub routes: BTreeMap<String, String>,
    /// Being part of a cluster.
    pub cluster: Cluster,
    /// Logging.
    pub log: Log,
    /// The master to join; tells who the other servers are. `None` without a project and with
    /// `cluster.join = false`. Pomelo: `master.json`.
    pub master: Option<Master>,
    /// The other servers, in the order that routing counts them. Counts only where there is no
    /// `master` to ask. At most `limits::SERVERS_MAX`. Pomelo: `servers.json`.
    pub servers: Vec<Server>,
    /// Crons of this server: when functions of the application run. At most `limits::CRONS_MAX`.
    /// Pomelo: its type's entries in `config/crons.json`, which say when a function of
    /// `app/servers/<type>/cron` does.
    pub crons: Vec<Cron>,
    /// The user dictionary: routes that get a code after the handlers'. Pomelo:
    /// `config/dictionary.json`.
    pub dictionary: Vec<String>,
    /// Routes of handlers in other servers that get a code too, sorted together with those of the
    /// handlers here. Default none: such routes then travel as text. Pomelo finds them in the
    /// project's JavaScript.
    pub handler_routes: Vec<String>,
    /// Pomelo project folder the rest was read from, if any. In `tangelo.toml` it is relative to
    /// that file, in a flag to the working directory; a main script on the command line names its
    /// own folder. File and flags win over the project.
    pub app_dir: Option<PathBuf>,
    /// True when neither a configuration file nor a project was named: tangelo then serves the
    /// built-in chat room.
    pub embedded: bool,
    /// Mistakes in the project's files that do not prevent a start. The gateway logs each of them as a
    /// warning when it starts.
    pub warnings: Vec<String>,
}

/// Which framework's details to follow where Pomelo and Pinus differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Pomelo 2.2.
    Pomelo,
    /// Pinus 1.7.
    Pinus,
}

/// What game clients may do and what they are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// Heartbeat interval told to clients; whole seconds, 1 s..=1 h. Default none: no heartbeats.
    /// Pomelo: `heartbeat`.
    pub heartbeat: Option<Duration>,
    /// Closes a client that sent no heartbeat for this long, and a raw TCP connection without any
    /// bytes for this long. Default none: twice the heartbeat, and 90 s. Range 100 ms..=1 day; not
    /// longer than the heartbeat cuts every client. Pomelo: `timeout`.
    pub timeout: Option<Duration>,
    /// Send route codes and accept them. Default false. Pomelo: `useDict`.
    pub use_dict: bool,
    /// Bodies travel as protobuf where their route has a proto. Default false. Pomelo: `useProtobuf`.
    pub use_protobuf: bool,
    /// Protos of what clients get: JSON, read at start. Default: `serverProtos.json` of the project.
    pub server_protos: Option<PathBuf>,
    /// Protos of what clients send. Default: `clientProtos.json` of the project.
    pub client_protos: Option<PathBuf>,
    /// Take a protobuf body that lacks a required field as null. Default false: take it as it is.
    /// Pinus: `decodeCheckMsg`.
    pub protobuf_check: bool,
    /// Take signed messages only. Default false. Pomelo: `useCrypto`.
    pub use_crypto: bool,
    /// Connections this process accepts at one time; one more is closed at once. Default none: as
    /// many as the file limit allows. At least 1; more than the file limit allows is refused at
    /// start. Pomelo: `max-connections`.
    pub max_connections: Option<usize>,
    /// Kinds and versions of clients that are taken, others get code 501: rules for
    /// `client::check::ClientCheck`, such as `js-websocket >=0.3.1 <2`, `* >=1.2` or `!old-client`.
    /// Default none: all. Pomelo: `checkClient`.
    pub accept: Vec<String>,
    /// Regular expressions; a client whose address one of them is found in is closed as it comes. An
    /// IPv4 client of a listener on `[::]` has the address `::ffff:a.b.c.d`. Default none, at most
    /// `limits::BLACKLIST_MAX` with those of `blacklist_file` and of the console. Pomelo:
    /// `blacklistFun`.
    pub blacklist: Vec<String>,
    /// More of them, one a line, in a regular file. Read again within seconds when the file changes; a
    /// file that cannot be used is then reported and the lines before stay. Default none.
    pub blacklist_file: Option<PathBuf>,
    /// Also take those that the master's console sends. Default false. Pomelo: `useHostFilter`.
    pub blacklist_console: bool,
    /// Take messages for other server types. Default true. When false a client that sends one is
    /// closed. Pinus: `forwardMsg`.
    pub forward: bool,
    /// Header of a WebSocket upgrade that has the client's address, for a gateway behind a proxy: its
    /// text counts for the blacklists and in statistics. Default none: the address of the socket.
    /// Whoever can reach the port without the proxy can claim any address. Pinus: `realIPKey`.
    pub real_ip_header: Option<String>,
    /// Header that has the client's port, where the one above has its address; 0 without it. Pinus:
    /// `realPortKey`.
    pub real_port_header: Option<String>,
    /// Largest package body from a client, bytes. Default 4 MiB, range 1 KiB..=16 MiB − 1. A
    /// larger one closes that connection.
    pub package_bytes_max: usize,
    /// Bytes waiting for one client that reads too slowly. Default 1 MiB, range 1 KiB..=1 GiB; one
    /// package always fits. Past it the client is closed.
    pub outbox_bytes_max: usize,
    /// Forwarded requests of one session that may wait for an answer. Default 1024, range
    /// 1..=1 000 000. One more is answered with code 500 at once.
    pub calls_in_flight_max: usize,
}

/// Built-in filters, around those of handlers in Rust; each is a text for `handler::filter::check`:
/// `serial 3s`, `time`, `timeout 3s 500`, `toobusy 70ms` or `rate 50/s 100`, or the name alone where
/// these values (for `rate` a burst as large as its rate) are meant. They stand in this order. A
/// message with any is copied and has a task of its own, up to `client.calls_in_flight_max`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// For all messages, forwarded ones too. Default none. Pomelo: `app.globalFilter`.
    pub global: Vec<String>,
    /// For messages of the own server type. Default none. Pomelo: `app.filter`.
    pub local: Vec<String>,
}

/// What is kept of users and their sessions.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// What happens when a uid is bound that another session has: `allow` keeps both, `refuse`
    /// fails the second bind, `newest-wins` kicks the first. Default `allow`. Pomelo:
    /// `sessionConfig.singleSession`, which refuses.
    pub duplicate_login: DuplicateLogin,
    /// What a session kicked by `newest-wins` is told. Default `kick`, as Pomelo tells any kicked
    /// session without a reason of its own.
    pub duplicate_login_reason: String,
}

/// When queued packages are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// Default `direct`. Pomelo: `pushSchedulerConfig.scheduler`.
    pub scheduler: Scheduler,
    /// Interval of the buffer scheduler. Default 20 ms, range 1 ms..=10 s. Pomelo: `flushInterval`.
    pub flush_interval: Duration,
    /// More schedulers; the one above has the id `default`. Default none, at most
    /// `limits::PUSH_SCHEDULERS_MAX` with that one. As in the reference, the packages of one
    /// scheduler stay in order, those of two need not. Pomelo: `pushSchedulerConfig.scheduler` as a
    /// list.
    pub schedulers: Vec<NamedScheduler>,
    /// What goes to which scheduler, the first rule that matches: `response ID` for all responses, or
    /// the route of pushes and broadcasts, such as `onMove ID`, or its beginning, such as
    /// `chat.* ID`. What no rule matches goes to `default`. Default none, at most
    /// `limits::PUSH_RULES_MAX`. Handlers in Rust may choose before them, by
    /// `handler::Router::select_scheduler`. Pomelo: `pushSchedulerConfig.selector`.
    pub select: Vec<String>,
}

/// One more push scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedScheduler {
    /// What rules call it: a text without spaces.
    pub id: String,
    /// Its kind.
    pub scheduler: Scheduler,
    /// As [`Push::flush_interval`].
    pub flush_interval: Duration,
}

/// The two kinds of push schedulers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduler {
    /// Written at the end of the turn that produced them, one WebSocket message per package.
    Direct,
    /// Collected per session and written every `flush_interval`, one WebSocket message for all.
    Buffer,
}

/// Calls to and from other servers.
#[derive(Debug, Clone, PartialEq)]
pub struct Rpc {
    /// A call without an answer for this long fails with code 500. Default 30 s, range
    /// 100 ms..=10 min. Pomelo: `proxyConfig.timeout`.
    pub timeout: Duration,
    /// PINGREQ interval on each link; a link whose ping stays unanswered for twice as long is
    /// dropped. Default 10 s, range 100 ms..=10 min. Pomelo: `proxyConfig.keepalive`.
    pub keepalive: Duration,
    /// How long connecting to a server may take. Default 2 s, range 10 ms..=1 min.
    pub connect_timeout: Duration,
    /// How long a server may take for its first answer on a new connection; then its calls fail, and it
    /// is dialled again. Default 5 s, range 100 ms..=10 min. Too short: the first calls fail of a server
    /// that is busy with its own start.
    pub answer_timeout: Duration,
    /// First pause before a lost link is dialled again; doubles up to `backoff_max` until a link has
    /// lasted for 5 s. Each pause is up to a quarter shorter by chance. Default 100 ms, range
    /// 1 ms..=1 min, not longer than `backoff_max`.
    pub backoff_min: Duration,
    /// Longest pause between two dials. Default 2 s, range 1 ms..=10 min.
    pub backoff_max: Duration,
    /// Calls to one server that one shard may have waiting. Default 10 000, range 1..=1 000 000.
    /// One more is answered with code 500 at once. Pomelo: `pendingSize`.
    pub calls_in_flight_max: usize,
    /// Where the other servers' calls arrive. Default: the own `host` and `port` in `servers.json`,
    /// where the others look for it whatever this says; set it where that address is not one of
    /// this machine, or to listen on all (`[::]:3150`). `None`: no such listener, as for a server
    /// without `port`, without a project unless set here, and with `cluster.join = false` even then.
    /// Unlike pomelo: one address instead of all.
    pub listen: Option<SocketAddr>,
    /// Who may call. Default `any`: calls carry no credentials, so the address in `listen` must not
    /// be reachable from outside.
    pub allow: RpcAllow,
}

/// Who may open a connection to `rpc.listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RpcAllow {
    /// Everybody, as Pomelo.
    Any,
    /// Hosts of servers that the master knows at that moment.
    Cluster,
}

/// Being part of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Register with the project's master and follow what it says about the others. Default true.
    /// When false, the servers of `servers.json` are taken as they are and nobody can call back:
    /// backends reach no session here. Without a project it changes nothing.
    pub join: bool,
    /// First pause before a lost master is dialled again; doubles up to `reconnect_max`. Default
    /// 1 s, range 10 ms..=1 min, not longer than `reconnect_max`.
    pub reconnect_min: Duration,
    /// Longest pause between two dials. Default 60 s, range 10 ms..=10 min. Longer delays coming
    /// back after a restart of the master, which forgets this server until then.
    pub reconnect_max: Duration,
    /// Folders with the names of [`Router::remote`](crate::handler::Router::remote) as JavaScript:
    /// every other server of a Pinus cluster loads them for its stubs, `app.rpc.<own type>`, and
    /// throws when it does not find them where this says. Default none: others have no stubs and
    /// call with `app.rpcInvoke`. Pinus: `remoterPaths`. Pomelo's servers look in their own project
    /// and ignore it.
    pub remoter_paths: Vec<String>,
}

/// When a function of the application runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    /// Its id, a number or a text, as JSON.
    pub id: String,
    /// Six fields, second first: see [`Schedule`](crate::handler::cron::Schedule).
    pub time: String,
    /// Name of the function, `service.method`: what [`Router::cron`](crate::handler::Router::cron) has.
    pub action: String,
}

/// The master of a cluster, and what it is told about this server.
#[derive(Debug, Clone, PartialEq)]
pub struct Master {
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What proves this server's type: the first entry of that type in `adminServer.json`, null
    /// where there is none, `"ok"` where there is no such file.
    pub token: serde_json::Value,
    /// This server as all others see it: what a genuine server parses from its command line, every
    /// key of its entry in `servers.json` included.
    pub info: serde_json::Map<String, serde_json::Value>,
    /// Environment, as in [`Config::env`].
    pub env: String,
}

/// Logging.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or a filter such as
    /// `info,tangelo::peer=debug`. Default `info`.
    pub level: String,
    /// Default `text`.
    pub format: LogFormat,
    /// A line of the log target [`FORWARD_LOG`] for each message that a handler of this server is done
    /// with: `{"route":…,"args":…,"time":"MMddhhmm","timeUsed":…}`, the handler's message, local time
    /// of the start and milliseconds. Default false. Pomelo: `serverConfig.enableForwardLog`.
    pub forward: bool,
}

/// Log target of `log.forward`; `log.level = "warn,forward-log=info"` shows little else.
pub const FORWARD_LOG: &str = "forward-log";
/// Log target of the filter `time`.
pub const CON_LOG: &str = "con-log";

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What a second login of a uid does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DuplicateLogin {
    /// Both stay.
    #[default]
    Allow,
    /// The second is refused. Pomelo: `singleSession`.
    Refuse,
    /// The first is kicked.
    NewestWins,
}

/// Another server of the cluster. Its `Default` has no name and no address: a program says those.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Server {
    /// Server id, unique in the cluster.
    pub id: String,
    /// Server type: the first part of the routes it handles.
    pub server_type: String,
    /// Host name or address of its RPC port.
    pub host: String,
    /// Its RPC port.
    pub port: u16,
    /// Its share of what the strategy `wrr` sends to its type. Default none: no share.
    pub weight: Option<u32>,
    /// Where its clients find it, if that is not `host`. Pomelo: `clientHost`. Default none.
    pub client_host: Option<String>,
    /// Its port for clients, of a frontend. Pomelo: `clientPort`. Default none.
    pub client_port: Option<u16>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            id: "connector-1".into(),
            server_type: "connector".into(),
            delegate: None,
            delegate_closed: None,
            env: "development".into(),
            dialect: Dialect::Pomelo,
            listen: SocketAddr::from(([127, 0, 0, 1], 3010)),
            shards: None,
            pin: false,
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(3),
            client: Client::default(),
            filter: Filter::default(),
            session: Session::default(),
            push: Push::default(),
            rpc: Rpc::default(),
            routes: BTreeMap::new(),
            cluster: Cluster::default(),
            log: Log::default(),
            master: None,
            servers: Vec::new(),
            crons: Vec::new(),
            dictionary: Vec::new(),
            handler_routes: Vec::new(),
            app_dir: None,
            embedded: false,
            warnings: Vec::new(),
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self {
            heartbeat: None,
            timeout: None,
            use_dict: false,
            use_protobuf: false,
            server_protos: None,
            client_protos: None,
            protobuf_check: false,
            use_crypto: false,
            max_connections: None,
            accept: Vec::new(),
            blacklist: Vec::new(),
            blacklist_file: None,
            blacklist_console: false,
            forward: true,
            real_ip_header: None,
            real_port_header: None,
            package_bytes_max: 4 << 20,
            outbox_bytes_max: 1 << 20,
            calls_in_flight_max: 1024,
        }
    }
}

impl Default for Session {
    fn default() -> Self {
        Self {
            duplicate_login: DuplicateLogin::Allow,
            duplicate_login_reason: "kick".into(),
        }
    }
}

/// Interval of a buffer scheduler that is not told another one. Pomelo:
/// `lib/pushSchedulers/buffer.js`, `DEFAULT_FLUSH_INTERVAL`.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(20);

impl Default for Push {
    fn default() -> Self {
        Self {
            scheduler: Scheduler::Direct,
            flush_interval: FLUSH_INTERVAL,
            schedulers: Vec::new(),
            select: Vec::new(),
        }
    }
}

impl Default for Rpc {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            keepalive: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(2),
            calls_in_flight_max: 10_000,
            listen: None,
            allow: RpcAllow::Any,
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            join: true,
            reconnect_min: Duration::from_secs(1),
            reconnect_max: Duration::from_secs(60),
            remoter_paths: Vec::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Text,
            forward: false,
        }
    }
}
