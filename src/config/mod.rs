//! Every knob, as a row of a table.
//!
//! A row makes the field, its default, its key in `tangelo.toml` and in `--set`, the check of its value
//! and its paragraph in `docs/configuration.md`; the macro `knobs!` says how to add one. Files and flags
//! are read in `gateway/load.rs`. `Config::validate` checks all knobs and the rules in them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "runtime")]
pub(crate) mod effective;
#[cfg(feature = "runtime")]
mod kinds;
mod knob;
#[cfg(feature = "runtime")]
mod list;
pub(crate) mod network;
#[cfg(all(test, feature = "runtime"))]
pub(crate) mod reference;
#[cfg(all(test, feature = "runtime"))]
mod tests;
mod types;
#[cfg(feature = "runtime")]
mod value;

pub use crate::dialect::Dialect;
#[cfg(feature = "runtime")]
pub(crate) use types::ConfigOrigin;
pub use types::{
    ClientCertificates, Compat, Cron, DuplicateLogin, ListenAddress, LogFormat, Master, Scheduler,
    Sources, TlsMode, TlsVersion, Transports,
};

#[cfg(feature = "runtime")]
use kinds::*;
#[cfg(feature = "runtime")]
pub(crate) use kinds::{CONNECTIONS_MAX, WEIGHT_MAX};
#[cfg(feature = "runtime")]
pub(crate) use knob::Knob;
#[cfg(feature = "runtime")]
use knob::is_live;
use knob::{exact, key, knobs};
#[cfg(feature = "runtime")]
use list::ListOf;
#[cfg(feature = "runtime")]
pub(crate) use value::{RawValue, ValueError, in_order};

use crate::limits;

knobs! {
    /// The whole configuration of one tangelo process.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Config, keys "" of |config: Config| *config, {
        /// Server id, unique in the cluster. Backends call this id.
        id: String = "connector-1".into(), Text, Pomelo "id";
        /// Server type. This server handles the routes that begin with it.
        server_type: String = "connector".into(), Text, Pomelo "serverType";
        /// Server type whose servers get the messages of our own type that have no handler here. The route of
        /// such a message does not change. Without this key the message gets code 500. A backend of this type
        /// runs the connector's own handlers, `app/servers/connector/handler`, as they are;
        /// `docs/delegate.md` describes it. Calls of other servers for remotes that are not here go there
        /// too, to the server that routing chooses for a session without uid. The caller gets the answer as
        /// it came, or an error after `rpc.timeout`. The key must differ from `server_type`.
        delegate: Option<String> = None, Text;
        /// Remote of the delegate, `service.method`. tangelo calls it once for each closed session that had
        /// sent a message to the delegate. Its argument is the session as backends see it
        /// (`{"id":…,"frontendId":…,"uid":…,"settings":{…}}`), and routing chooses the server. tangelo does
        /// not wait for an answer, and counts a call that it cannot send (`delegate_untold`). The remote
        /// takes the place of `session.on('closed')`, which a `BackendSession` does not have. With this key
        /// the first message of a session to the delegate also has the client's address.
        delegate_closed: Option<String> = None, Text;
        /// Remote of the delegate, `service.method`, which answers handshakes in place of Pomelo's `checkClient`
        /// and `handshake`. tangelo calls it for each handshake that its own checks accept. The arguments are the
        /// session, with the client's address, and the handshake. The answer has members of the reply:
        /// `{"code":200,"user":…}` accepts the client, code 501 or 500 refuses it. Without an answer within
        /// `rpc.timeout` the client gets code 500. A handshake function in Rust is called in place of this remote.
        delegate_handshake: Option<String> = None, Text;
        /// Remote of the delegate, `service.method`, whose answer is a list of expressions for
        /// `client.blacklist`, in place of Pomelo's `blacklistFun`. tangelo calls it once a second with
        /// `{"frontendId":…}`. While there is no answer, the last list counts (`blacklists_missed`).
        delegate_blacklist: Option<String> = None, Text;
        /// Tells the delegates of all bound sessions. The delegates must have the package `tangelo/delegate`;
        /// docs/delegate.md describes it. Each delegate gets a session's state after each bind, unbind and
        /// change of its settings, and its end. A delegate with a new connection, or one that missed a notice
        /// (`delegate_untold`), gets the list of all sessions (`delegate_lists`). The key takes the place of
        /// `delegate_closed`, and needs `delegate`. Of several delegates each knows all sessions, and a session
        /// keeps the one that gets its messages; `route` has no effect on that.
        delegate_notices: bool = false, Switch;
        /// Environment, such as `production`. It selects the part of the project's files that tangelo reads.
        env: String = "development".into(), Text, Pomelo "env";
        /// Framework whose details tangelo follows where Pomelo and Pinus differ. In a project the default is
        /// the one that its `package.json` depends on, and the other one is an error.
        dialect: Dialect = Dialect::Pomelo, DIALECT;
        /// Guards against clients and servers that do harm: deadlines, rates and limits that the reference does not have.
        /// `exact` turns off those of them that no key sets. The bound of memory, the bounds of docs/bounds.md and the
        /// lists of addresses count in both cases. docs/limits.md lists the guards and the reason for each number.
        compat: Compat = Compat::Guarded => Compat::Exact, COMPAT;
        /// Address for clients, TCP and WebSocket on one port. With port 0 the kernel chooses one. In a
        /// project the default is the `clientPort` of the own server, on all addresses. With `[[listener]]` sections
        /// it is the address of the section without `address`. Where each section has one, a file or a flag must not set
        /// this key.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 3010)), Address, Pomelo "clientPort";
        /// The listeners for clients, in place of `listen`: several ports and unix sockets, each with rules of its own.
        /// Two listeners with one address are an error. The `clientPort` of a project is the port of the one without `address`.
        listeners as "listener": Vec<ClientListener> = Vec::new(), ListOf::<ClientListener>::at_most(limits::LISTENERS_MAX);
        /// Shards. Each is one thread with its own sockets, sessions and handlers. Without it there is one
        /// per available core. More shards than cores cost CPU per message.
        shards: Option<usize> = None, Count(1..=limits::SHARDS_MAX);
        /// Pins shard n to the n-th available core, for a machine whose cores belong to this gateway
        /// alone. The kernel never moves a pinned shard, which keeps the caches of its core; but the shard
        /// waits when another process keeps its core busy, even if other cores are free.
        /// `perf/pinning.sh` measures both. With more shards than cores tangelo pins no shard and logs a
        /// warning. When another gateway has reserved a core, tangelo does not pin the shard for that
        /// core, and a warning names the core. Gateways in different network namespaces, such as
        /// containers, do not see each other's reservations.
        pin: bool = false, Switch;
        /// Least time between two looks of a loaded shard at its sockets. Between the looks messages
        /// gather, and the shard handles them together with fewer system calls. At 10,000 messages a
        /// second, the default needs less than half of the CPU that "0s" needs. A message waits at most
        /// this long. A forwarded message may wait twice: as a request and as an answer. The first message
        /// after a pause does not wait. With "0s" no message waits.
        turn_min: Duration = Duration::from_micros(500), TimeRange(Duration::ZERO..=10 * MILLISECOND);
        /// Longest time for the start of the application. After it the start fails.
        start_timeout: Duration = Duration::from_secs(60), TimeRange(100 * MILLISECOND..=HOUR);
        /// Longest time for the end of the application: its background tasks, and its functions before the
        /// stop. After it tangelo closes the clients. A supervisor must wait longer before it kills the
        /// process.
        stop_timeout: Duration = Duration::from_secs(3), TimeRange(Duration::ZERO..=10 * MINUTE), Pomelo "TIME_WAIT_STOP" => live;
        /// Folder of the Pomelo project. In `tangelo.toml` it is relative to that file, in a flag to the
        /// working directory; a main script on the command line names its own folder. File and flags win
        /// over the project.
        app_dir: Option<PathBuf> = None, FilePath;
        /// The user dictionary: routes that get a code after those of the handlers. In a project the
        /// default is `config/dictionary.json`.
        dictionary: Vec<String> = Vec::new(), Texts(r#"["onChat", "onLeave"]"#), Pomelo "config/dictionary.json";
        /// Routes of handlers in other servers that get a code too, sorted together with those of the
        /// handlers here. Other routes travel as text. Pomelo finds them in the project's JavaScript.
        handler_routes: Vec<String> = Vec::new(), Texts(r#"["chat.chatHandler.send", "area.playerHandler.move"]"#);
        /// The other servers, in the order that routing uses. tangelo uses this list only without a master,
        /// because a master sends its own. In a project the default is `config/servers.json`.
        servers as "server": Vec<Server> = Vec::new(), ListOf::<Server>::at_most(limits::SERVERS_MAX), Pomelo "config/servers.json";
        /// Strategies: how tangelo chooses the server of a forwarded message. The keys of `[route]` are
        /// server types, or `default` for all that are not named. A strategy is `default` (by the uid, as
        /// Pomelo does), `rr`, `wrr`, `la`, `ch`, `random`, `fixed:SERVER_ID`, `setting:SETTINGS_KEY` or
        /// `hash:SETTINGS_KEY`; docs/compatibility.md describes them. With `delegate` the delegate gets the
        /// message and sends it on, by the project's `app.route` function. With `delegate:session` the delegate
        /// only names the server for a session, and tangelo keeps the answer until the uid, a setting or the
        /// list of servers changes: right for a function that uses nothing else.
        routes as "route": BTreeMap<String, String> = BTreeMap::new(), Strategies, Pomelo "app.route, routerType";
    }
    {
        /// Limits and rules for game clients.
        client: Client = Client::default() => Client::exact_defaults();
        /// Built-in filters.
        filter: Filter = Filter::default();
        /// Users and their sessions.
        session: Session = Session::default();
        /// Push schedulers.
        push: Push = Push::default();
        /// Calls to and from other servers.
        rpc: Rpc = Rpc::default() => Rpc::exact_defaults();
        /// Membership in a cluster.
        cluster: Cluster = Cluster::default();
        /// The drain, which SIGTERM begins.
        drain: Drain = Drain::default();
        /// Logging.
        log: Log = Log::default();
        /// The operators' port.
        admin: Admin = Admin::default();
        /// Limits of the process.
        limits: Limits = Limits::default();
        /// TLS.
        tls: Tls = Tls::default() => Tls::exact_defaults();
        /// The master to join; it names the other servers. `None` without a project and with
        /// `cluster.join = false`. Pomelo: `master.json`.
        master: Option<Master> = None;
        /// Crons of this server, at most `limits::CRONS_MAX`. Pomelo: the entries of its type in
        /// `config/crons.json`, which say when a function of `app/servers/<type>/cron` runs.
        crons: Vec<Cron> = Vec::new();
        /// True without a configuration file and without a project: tangelo then serves the built-in chat
        /// room.
        embedded: bool = false;
        /// Mistakes in the project's files that do not prevent a start. The gateway logs each of them as
        /// a warning when it starts.
        warnings: Vec<String> = Vec::new();
        /// The files and flags that this configuration comes from.
        sources: Sources = Sources::default();
    }
}

knobs! {
    /// Limits and rules for game clients.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Client, keys "client." of |config: Config| config.client, {
        /// Interval of the heartbeats that the handshake tells clients. Without it there are no heartbeats.
        heartbeat: Option<Duration> = None, WholeSeconds(SECOND..=HOUR), Pomelo "heartbeat";
        /// Time after which tangelo closes a client that sent no heartbeat, and a raw TCP connection that
        /// sent no bytes. Without it: twice the heartbeat, and 90 s. A value not longer than the heartbeat
        /// closes every client.
        timeout: Option<Duration> = None, TimeRange(100 * MILLISECOND..=24 * HOUR), Pomelo "timeout";
        /// Applies `client.timeout` to WebSocket clients too where there are no heartbeats: one that sends no bytes for
        /// that long is closed, as over raw TCP. The reference has no such limit. With neither `client.timeout` nor
        /// `client.heartbeat` a silent WebSocket stays open.
        idle_websocket: bool = true => false, Switch;
        /// Time from the accept to the first byte. A player's device sends its first bytes at once; ten seconds leave
        /// room for lost packets on a mobile network. With TLS the first byte behind its handshake has this time too.
        /// The reference waits as `timeout` says.
        first_byte_timeout: Option<Duration> = Some(Duration::from_secs(10)) => None, OrOff(TimeRange(STEP_TIMES));
        /// Time from the first byte to the end of the HTTP head of a WebSocket upgrade, which fits into one packet or
        /// two. Bytes do not prolong it.
        upgrade_timeout: Option<Duration> = Some(Duration::from_secs(10)) => None, OrOff(TimeRange(STEP_TIMES));
        /// Time from the first byte, or from the upgrade, to the whole handshake. A client sends it at once. Neither
        /// bytes nor pings prolong it. The time stops while a handler or the delegate decides about the handshake.
        handshake_timeout: Option<Duration> = Some(Duration::from_secs(10)) => None, OrOff(TimeRange(STEP_TIMES));
        /// Time from the last byte of the handshake's reply, which the kernel took, to the acknowledgement. A large
        /// dictionary may still be on its way to a slow client, therefore more than for the steps before.
        ack_timeout: Option<Duration> = Some(Duration::from_secs(30)) => None, OrOff(TimeRange(STEP_TIMES));
        /// Time from the first to the last byte of a package or WebSocket message, and a second more for each 16 KiB
        /// that it announces: a client with 128 kbit/s keeps it. Bytes do not prolong it.
        package_timeout: Option<Duration> = Some(Duration::from_secs(30)) => None, OrOff(TimeRange(STEP_TIMES));
        /// Time in which the socket of a client takes no byte while more than 64 KiB wait for it, or anything before
        /// it is working. A device that sleeps for a moment keeps it, and few bytes may wait for longer.
        write_timeout: Option<Duration> = Some(Duration::from_secs(30)) => None, OrOff(TimeRange(STEP_TIMES));
        /// Time from the acknowledgement to the bind of a uid. It is off because some games let guests play without a
        /// uid. Set it where each player logs in.
        bind_timeout: Option<Duration> = None, OrOff(TimeRange(STEP_TIMES));
        /// Sends route codes and accepts them.
        use_dict: bool = false, Switch, Pomelo "useDict";
        /// Bodies travel as protobuf where their route has a proto.
        use_protobuf: bool = false, Switch, Pomelo "useProtobuf";
        /// Protos of messages to clients: a JSON file, which tangelo reads at its start. In a project the
        /// default is its `serverProtos.json`.
        server_protos: Option<PathBuf> = None, FilePath;
        /// Protos of messages from clients. In a project the default is its `clientProtos.json`.
        client_protos: Option<PathBuf> = None, FilePath;
        /// Takes a protobuf body that lacks a required field as null. Without it tangelo takes the body as
        /// it is.
        protobuf_check: bool = false, Switch, Pinus "decodeCheckMsg";
        /// Accepts signed messages only.
        use_crypto: bool = false, Switch, Pomelo "useCrypto";
        /// Largest RSA key that a client may sign with. A larger one refuses the handshake with code 500. A check with 2,048
        /// bits takes a quarter of the CPU of one with 4,096, and Pomelo's clients use 512 to 2,048. Without this limit, and
        /// for more than 4,096 bits, the client gets in, but each message is dropped.
        rsa_bits_max: Option<usize> = Some(2048) => None, OrOff(Count(limits::RSA_KEY_BITS_MIN..=limits::RSA_KEY_BITS_MAX));
        /// Messages of one session whose signature is missing or wrong; with one more tangelo closes it. A client signs
        /// all messages with one key, so a wrong signature is a program of somebody else; some are left to a client that
        /// changes its key.
        bad_signatures_max: Option<usize> = Some(16) => None, OrOff(Count(0..=1_000_000));
        /// Largest body, as JSON text, that the arguments `Json<T>` and `Proto<T>` of a handler in Rust take; a larger one gets
        /// code 500 (`bodies_too_long`), and the client stays. A tree of values needs up to 70 times the memory of its
        /// text, and a player's message has less than 1 KiB. `JsonUpTo<BYTES, T>` is the argument of a route with
        /// another limit. With `client.use_crypto` the limit holds for the body of each message, with its signature,
        /// because the check of a signature needs a tree.
        json_bytes_max: Option<usize> = Some(64 << 10) => None, OrOff(Bytes(KIB..=limits::PACKAGE_BODY_BYTES_MAX));
        /// Connections that this process accepts at one time; tangelo closes any further one at once.
        /// Without it: as many as the file limit allows. A number above the file limit prevents the start.
        max_connections: Option<usize> = None, Count(1..=CONNECTIONS_MAX), Pomelo "max-connections" => live;
        /// Connections that this process accepts in a second. Over it tangelo pauses to accept (`accept_pauses`), and closes
        /// nobody: the kernel keeps up to 4096 connections of each shard waiting, or `net.core.somaxconn` of them. It is off
        /// because after a restart all players come at once, and should all get in. HAProxy's name for it is `maxconnrate`.
        accepts_per_second: Option<usize> = None, OrOff(Count(1..=1_000_000));
        /// Percent of the places that connections without a whole handshake keep where places run short. Then the oldest of
        /// them is closed for each one that comes (`closed_silent`). A tenth is room for the handshakes of a storm: a
        /// client needs its place for one round trip until it has sent its own.
        silent_percent: Option<usize> = Some(10) => None, OrOff(Count(1..=100));
        /// Accepted kinds and versions of clients, such as `js-websocket >=0.3.1 <2`, `* >=1.2` or
        /// `!old-client`. Others get code 501. Without it tangelo accepts all.
        accept: Vec<String> = Vec::new(), Texts(r#"["js-websocket >=0.3.1 <2", "!old-client"]"#), Pomelo "checkClient";
        /// Regular expressions. tangelo closes a connection as soon as it has accepted it, if one of them
        /// matches a part of the client's address. An IPv4 client of a listener on `[::]` has the address
        /// `::ffff:a.b.c.d`. At most 10 000, with those of `client.blacklist_file` and of the master's
        /// console.
        blacklist: Vec<String> = Vec::new(), Texts(r"['192\.0\.2\.', '203\.0\.113\.7$']"), Pomelo "blacklistFun" => live;
        /// A regular file with more of these expressions, one a line. tangelo reads it again within seconds
        /// after a change. It reports a file that it cannot use, and keeps the lines from before.
        blacklist_file: Option<PathBuf> = None, FilePath;
        /// Also applies the expressions that the master's console sends.
        blacklist_console: bool = false, Switch, Pomelo "useHostFilter";
        /// Forwards messages for other server types. When false, tangelo closes a client that sends one.
        forward: bool = true, Switch, Pinus "forwardMsg";
        /// Addresses of the proxies in front of this gateway, or their networks, at most 1024. Only they may tell
        /// the address of a client, by `client.proxy_protocol` or `client.real_ip_header`. Keep the list small: whoever
        /// can connect from one of these addresses can claim any address.
        trusted_proxies: Vec<String> = Vec::new(), Texts(r#"["10.0.0.5", "192.168.0.0/16", "fd00::/8"]"#) => live;
        /// The proxies of `client.trusted_proxies` begin each connection with a header of the PROXY protocol, version 1 or 2,
        /// which has the address of the client; it works for raw TCP too. tangelo closes a connection of such a
        /// proxy that does not begin with the header (`closed_proxy_header`), or does not have all of it within 5 s
        /// (`closed_proxy_timeout`). Headers of HTTP then count for nothing. From any other address such a header is an
        /// invalid package.
        proxy_protocol: bool = false, Switch => live;
        /// Header of a WebSocket upgrade that has the client's address, such as `X-Forwarded-For`, `X-Real-IP` or
        /// `Forwarded`. It counts only if the connection comes from a proxy of `client.trusted_proxies`; without
        /// that key tangelo ignores it. Each proxy must set or extend this header; no other header counts. In a
        /// list of addresses tangelo walks from the last one to the first, over the trusted proxies, and takes the first
        /// address that is none of them. A text that is not an address ends the walk at the last address read. The
        /// result counts for the blacklists, in statistics and the log, for handlers and the delegate.
        real_ip_header: Option<String> = None, HeaderName, Pinus "realIPKey" => live;
        /// Header that has the client's port, where that of `client.real_ip_header` has none. Each proxy must set
        /// this header too. Without a port in either header, the port is 0.
        real_port_header: Option<String> = None, HeaderName, Pinus "realPortKey" => live;
        /// Path of a health check, for load balancers. An HTTP GET or HEAD of it on the port for clients gets status
        /// 200, and 503 until tangelo has joined the cluster of its master and while it drains or stops: until its
        /// application has ended, the port stays open for this check and takes no clients. A check is not a client: `client.max_connections` and the statistics do not count it.
        /// Without this key such a request is an error as any other, and a stop closes the port first.
        health_path: Option<String> = None, UrlPath;
        /// Largest package body from a client. A larger one closes its connection.
        package_bytes_max: usize = 4 << 20, Bytes(KIB..=limits::PACKAGE_BODY_BYTES_MAX) => live;
        /// Largest package body, and with WebSocket the largest message, before a client has acknowledged its handshake. A
        /// larger one closes its connection. A handshake has a version, a key and a token; everybody may send one,
        /// and each byte of it waits in memory. `client.package_bytes_max` counts too.
        handshake_bytes_max: usize = 16 << 10 => limits::PACKAGE_BODY_BYTES_MAX, Bytes(KIB..=limits::PACKAGE_BODY_BYTES_MAX) => live;
        /// Largest number of bytes that wait for one client that reads too slowly. One package always
        /// fits. Above it tangelo closes the client.
        outbox_bytes_max: usize = 1 << 20, Bytes(KIB..=GIB) => live;
        /// Messages and other packages that one session may send in a second, pings and fragments of WebSocket too. Over
        /// it tangelo pauses to read the session's socket; no message is lost. A game that sends input 60 times a second
        /// sends 60 messages, four kinds of them 240, and four times that leaves room for bursts of a network.
        messages_per_second: Option<usize> = Some(1000) => None, OrOff(Count(1..=1_000_000));
        /// Bytes that one session may send in a second: one of the largest packages. Over it the same happens.
        bytes_per_second: Option<usize> = Some(4 << 20) => None, OrOff(Bytes(KIB..=GIB));
        /// Time for which a session may send at once what its rates allow: 2,000 messages at 1,000 a second. A client
        /// that was without network for two seconds then catches up.
        rate_burst: Duration = Duration::from_secs(2), TimeRange(STEP_TIMES);
        /// Time over its rates after which tangelo closes a session, with the WebSocket code 1008. A burst does not last
        /// that long.
        rate_timeout: Option<Duration> = Some(Duration::from_secs(10)) => None, OrOff(TimeRange(STEP_TIMES));
        /// Connections that one address may have at one time, on all shards together. A further one is closed
        /// (`closed_address_connections`), or gets status 429 where a proxy tells the address in an upgrade. The address is
        /// that of the client behind `client.trusted_proxies`; these proxies themselves do not count. An IPv6 address
        /// counts by its first 64 bits, which one customer of a provider has. It is off because all players of a carrier's
        /// NAT or of an internet cafe have one address.
        address_connections_max: Option<usize> = None, OrOff(Count(1..=CONNECTIONS_MAX));
        /// Messages and other packages that the sessions of one address together may send in a second, with the burst of
        /// `client.rate_burst`. Over it tangelo pauses to read their sockets, one after the other (`address_rate_pauses`), and
        /// closes one of them after each `client.rate_timeout` of it (`closed_address_rate`). Off for the same reason.
        address_messages_per_second: Option<usize> = None, OrOff(Count(1..=1_000_000));
        /// Bytes that the sessions of one address together may send in a second. Over it the same happens.
        address_bytes_per_second: Option<usize> = None, OrOff(Bytes(KIB..=GIB));
        /// Fragments of one WebSocket message; with one more it closes the client. The largest message in pieces of
        /// 4 KiB has as many.
        fragments_max: Option<usize> = Some(1024) => None, OrOff(Count(1..=1 << 24));
        /// Forwarded requests of one session that may wait for an answer. A further one gets code 500 at
        /// once.
        calls_in_flight_max: usize = 1024, Count(1..=1_000_000) => live;
    }
}

knobs! {
    /// Built-in filters, which run around the filters of handlers in Rust, in this order. A filter is
    /// `serial 3s`, `time`, `timeout 3s 500`, `toobusy 70ms` or `rate 50/s 100`. The values may be left out
    /// where they are these (for `rate` the burst, which then is as large as the rate). tangelo copies a
    /// message that passes a filter and makes a task for it, up to `client.calls_in_flight_max`.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Filter, keys "filter." of |config: Config| config.filter, {
        /// Filters of all messages, forwarded ones too.
        global: Vec<String> = Vec::new(), Texts(r#"["serial 3s", "toobusy 70ms"]"#), Pomelo "app.globalFilter";
        /// Filters of messages for our own server type.
        local: Vec<String> = Vec::new(), Texts(r#"["time", "timeout 3s 500"]"#), Pomelo "app.filter";
    }
}

knobs! {
    /// Users and their sessions.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Session, keys "session." of |config: Config| config.session, {
        /// Effect of binding a uid that another session has: `allow` keeps both sessions, `refuse` fails the
        /// second bind (as Pomelo does with this option), `newest-wins` kicks the first session.
        duplicate_login: DuplicateLogin = DuplicateLogin::Allow, DUPLICATE_LOGIN, Pomelo "sessionConfig.singleSession";
        /// Reason that a session gets when `newest-wins` kicks it. Pomelo's is `kick` for any kick without a
        /// reason.
        duplicate_login_reason: String = "kick".into(), Text;
    }
}

/// Interval of a buffer scheduler without one of its own. Pomelo: `lib/pushSchedulers/buffer.js`,
/// `DEFAULT_FLUSH_INTERVAL`.
pub const FLUSH_INTERVAL: Duration = Duration::from_millis(20);

knobs! {
    /// Push schedulers: they decide when queued packages leave.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Push, keys "push." of |config: Config| config.push, {
        /// Kind of the scheduler with the id `default`: `direct` writes at the end of the turn, `buffer`
        /// collects packages and writes them every `push.flush_interval`.
        scheduler: Scheduler = Scheduler::Direct, SCHEDULER, Pomelo "pushSchedulerConfig.scheduler";
        /// Interval of the buffer scheduler.
        flush_interval: Duration = FLUSH_INTERVAL, TimeRange(FLUSH_INTERVALS), Pomelo "flushInterval";
        /// More schedulers beside the one with the id `default`. As in Pomelo, the packages of one
        /// scheduler stay in order, those of two need not.
        schedulers: Vec<NamedScheduler> = Vec::new(), ListOf::<NamedScheduler>::at_most(limits::PUSH_SCHEDULERS_MAX - 1), Pomelo "pushSchedulerConfig.scheduler";
        /// Rules that choose a scheduler by its id; the first that matches counts. A rule is `response ID`
        /// for all responses, or the route of pushes and broadcasts, such as `onMove ID`, or the beginning of
        /// routes, such as `chat.* ID`. Packages that no rule matches go to `default`. At most 256 rules.
        /// Handlers in Rust may choose before these rules, by `Router::select_scheduler`.
        select: Vec<String> = Vec::new(), Texts(r#"["response default", "onMove slow"]"#), Pomelo "pushSchedulerConfig.selector";
    }
}

knobs! {
    /// One more push scheduler.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct NamedScheduler, keys "" of |scheduler: NamedScheduler| *scheduler, {
        /// Its id, a text without spaces, which rules name.
        id: String = String::new(), Text;
        /// Its kind.
        scheduler: Scheduler = Scheduler::Direct, SCHEDULER;
        /// Interval of a buffer scheduler.
        flush_interval: Duration = FLUSH_INTERVAL, TimeRange(FLUSH_INTERVALS);
    }
}

knobs! {
    /// Calls to and from other servers.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Rpc, keys "rpc." of |config: Config| config.rpc, {
        /// Time after which a call without an answer fails with code 500.
        timeout: Duration = Duration::from_secs(30), TimeRange(100 * MILLISECOND..=10 * MINUTE), Pomelo "proxyConfig.timeout";
        /// Interval of PINGREQ on each link. tangelo drops a link whose ping stays unanswered for twice as
        /// long.
        keepalive: Duration = Duration::from_secs(10), TimeRange(100 * MILLISECOND..=10 * MINUTE), Pomelo "proxyConfig.keepalive";
        /// Longest time for connecting to a server.
        connect_timeout: Duration = Duration::from_secs(2), TimeRange(10 * MILLISECOND..=MINUTE);
        /// Longest time for a server's first answer on a new connection. After it the calls of the server
        /// fail, and tangelo dials it again. If it is too short, the first calls to a server that is still
        /// starting fail.
        answer_timeout: Duration = Duration::from_secs(5), TimeRange(100 * MILLISECOND..=10 * MINUTE);
        /// First pause before tangelo dials a lost link again. The pause doubles up to `rpc.backoff_max` until
        /// a link has lasted for 5 s. Each pause is up to a quarter shorter by chance. It must not be longer
        /// than `rpc.backoff_max`.
        backoff_min: Duration = Duration::from_millis(100), TimeRange(MILLISECOND..=MINUTE);
        /// Longest pause between two dials.
        backoff_max: Duration = Duration::from_secs(2), TimeRange(MILLISECOND..=10 * MINUTE);
        /// Calls of one shard to one server that may wait for an answer. A further one gets code 500 at
        /// once.
        calls_in_flight_max: usize = 10_000, Count(1..=1_000_000), Pomelo "pendingSize";
        /// Calls of one shard to one server that time out in a row, without an answer between them, after which further
        /// calls fail at once with code 500: their clients need not wait for `rpc.timeout` each. Calls with a shorter
        /// timeout of their own do not count. Strategies that share load (`rr`, `wrr`, `la`, `random`) choose another
        /// server of the type. One answer ends this. A working server answers some of its calls, so few timeouts in a row
        /// are enough; a type with handlers that never answer needs more.
        breaker_timeouts: Option<usize> = Some(5) => None, OrOff(Count(1..=1_000_000));
        /// Pause before one call probes whether such a server answers again, and between two probes. A probe costs one
        /// client its waiting time.
        breaker_pause: Duration = Duration::from_secs(1), TimeRange(10 * MILLISECOND..=10 * MINUTE);
        /// Address for calls from other servers. In a project the default is the `host` and `port` of this
        /// server in `servers.json`, and other servers always dial that address. Set this key if this machine
        /// does not have that address, or to listen on all addresses (`[::]:3150`). Without an address
        /// tangelo opens no listener for calls: for a server without `port`, without a project, and always
        /// with `cluster.join = false`. Pomelo listens on all addresses.
        listen: Option<SocketAddr> = None, KnownAddress("the port of this server in servers.json, such as [::]:3150");
        /// Second address for calls, with TLS, for servers behind other networks; it presents the one of
        /// `tls.certificates` for the name that the caller asks for, or else the first, and takes only callers with a
        /// certificate of `rpc.tls_ca`, whatever `rpc.allow` says. Genuine backends do not speak TLS: put a tunnel such as
        /// stunnel beside them.
        tls_listen: Option<SocketAddr> = None, KnownAddress("a port that no other key has, such as [::]:3151");
        /// File with the certificates that sign those of callers on `rpc.tls_listen`.
        tls_ca: Option<PathBuf> = None, FilePath;
        /// File of the PEM format with lists of revoked certificates (CRL) for those of callers on `rpc.tls_listen`, as
        /// `tls.client_crl` has them for clients.
        tls_crl: Option<PathBuf> = None, FilePath;
        /// Servers that may call, a list or a text with commas: `cluster` for the hosts in the list of servers, addresses,
        /// networks, or `any`. Calls carry no credentials, and a caller can send to all clients and kick them. So the
        /// default takes only servers of the cluster and programs of this machine; with `any` the address in
        /// `rpc.listen` must not be reachable from outside. Add the address of a server that comes through NAT. With
        /// `cluster` and a master, a caller that is not in the list yet waits for up to 5 s, because a server may call
        /// before the master has named it. tangelo reads nothing of such a caller. A refused address is one warning, with
        /// the line to add. At most 1024 entries.
        allow: Vec<String> = ["cluster", "127.0.0.0/8", "::1"].map(String::from).into() => vec!["any".into()], CallerList => live;
        /// Connections of other servers at one time; a further one is closed. Their descriptors are reserved, so that
        /// neither clients nor strangers take the place of a server. A quarter of them, at most 64, may be of callers that
        /// `rpc.allow` does not know yet. Without it: two for each server of the configuration, because a new connection
        /// may come before the end of the old one is noticed, and 256 for servers that join later, but at most an eighth
        /// of the file limit. A cluster of more than 350 servers needs more.
        max_connections: Option<usize> = None, Count(4..=CALLS_CONNECTIONS_MAX);
        /// Bytes that wait for one server that takes none, on a link or on its own connection; one frame always fits. Above
        /// it tangelo drops the connection, and the calls fail with code 500. A server that collects garbage for 2 s, at
        /// 20,000 messages a second of 1 KiB, has 40 MB waiting.
        queue_bytes_max: usize = limits::LINK_QUEUE_BYTES_MAX, Bytes(MIB..=GIB);
        /// Time from the accept of a connection of another server to its first whole packet. A server sends it at once; a
        /// program that only holds the connection does not.
        first_frame_timeout: Option<Duration> = Some(Duration::from_secs(10)) => None, OrOff(TimeRange(100 * MILLISECOND..=HOUR));
        /// Time in which another server sends no byte on its connection, after which tangelo closes it; never less than
        /// six times `rpc.keepalive`. A server pings in its own `keepalive`, every 10 s by default, so it is gone. The
        /// time stands still while tangelo executes a call of it.
        idle_timeout: Option<Duration> = Some(Duration::from_secs(60)) => None, OrOff(TimeRange(100 * MILLISECOND..=24 * HOUR));
    }
}

knobs! {
    /// Membership in a cluster.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Cluster, keys "cluster." of |config: Config| config.cluster, {
        /// Registers with the project's master and follows its list of servers. When false, tangelo uses the
        /// servers of `servers.json`, and backends cannot reach the sessions here. Without a project this key
        /// has no effect.
        join: bool = true, Switch;
        /// First pause before tangelo dials a lost master again. The pause doubles up to
        /// `cluster.reconnect_max`, and must not be longer than that.
        reconnect_min: Duration = Duration::from_secs(1), TimeRange(10 * MILLISECOND..=MINUTE);
        /// Longest pause between two dials. After a restart of the master, this server is missing from its
        /// list until the next dial. When a link to another server comes up, the pause ends early: not before
        /// `cluster.reconnect_min` has passed.
        reconnect_max: Duration = Duration::from_secs(60), TimeRange(10 * MILLISECOND..=10 * MINUTE);
        /// Folders with the names of this server's remotes as JavaScript. Every other server of a Pinus
        /// cluster loads them for its stubs, `app.rpc.<own type>`, and throws when it does not find them.
        /// Without them the others have no stubs and call with `app.rpcInvoke`. In a Pinus project with a
        /// delegate the default is `app/servers/<own type>/remote`, if that folder exists. Pomelo's servers
        /// look in their own project and ignore it.
        remoter_paths: Vec<String> = Vec::new(), Texts(r#"["/srv/game/app/servers/connector/remote"]"#), Pinus "remoterPaths";
    }
}

knobs! {
    /// The drain, which SIGTERM begins: the end of this process, in which each client gets the answers to its requests.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Drain, keys "drain." of |config: Config| config.drain, {
        /// Time in which the health check says 503 and new clients are still taken: as long as a load balancer needs
        /// to notice.
        delay: Duration = Duration::ZERO, TimeRange(Duration::ZERO..=HOUR) => live;
        /// Longest time from the close of the port to the end. Clients leave in even slices within half of it, but no
        /// slower than 1,000 a second. One that waits for an answer leaves when it has it. After three quarters of
        /// the time tangelo cuts those that still wait; the exit status then is 3. The application has the rest of the
        /// time, at least a quarter, for its background tasks and its functions before the stop. A supervisor must
        /// wait longer before it kills the process.
        timeout: Duration = Duration::from_secs(8), TimeRange(Duration::ZERO..=HOUR) => live;
        /// Close code of WebSocket clients. 1001 says that the server goes away, 1012 that it restarts. Choose 1012 if
        /// your clients come back at once only after this code.
        close_code: u16 = 1001, CloseCode => live;
    }
}

knobs! {
    /// Logging.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Log, keys "log." of |config: Config| config.log, {
        /// A level (`error`, `warn`, `info`, `debug`, `trace`) or a filter such as
        /// `info,tangelo::peer=debug`.
        level: String = "info".into(), Text => live;
        /// Form of the lines of the log and of standard output.
        format: LogFormat = LogFormat::Text, LOG_FORMAT;
        /// Writes a line of the log target `forward-log` for each message that a handler of this server has
        /// finished: `{"route":…,"args":…,"time":"MMddhhmm","timeUsed":…}`, with the handler's message, the
        /// local time of the start, and milliseconds.
        forward: bool = false, Switch, Pomelo "serverConfig.enableForwardLog";
    }
}

knobs! {
    /// The operators' port: health and metrics over HTTP, on a thread of its own.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Admin, keys "admin." of |config: Config| config.admin, {
        /// Address of the port; without it there is none. `GET /livez`, `/readyz` and `/metrics` need no token, so only
        /// monitors and balancers should reach it. While another program has the port, tangelo serves
        /// its clients all the same, and tries again.
        listen: Option<ListenAddress> = None, Endpoint("127.0.0.1:9464");
        /// File with the token for requests that change something or show what players own. Without it only a unix
        /// socket takes such requests. tangelo reads the file for each request. Its mode must be 0600, because each
        /// user of this machine reaches the port.
        token_file: Option<PathBuf> = None, FilePath;
        /// Makes `/readyz` say 503 while the link to the master is down. Without it, `/readyz` stays green after the
        /// first join, because the clients that are there are served, and its text names the lost link.
        require_registry: bool = false, Switch => live;
    }
}

knobs! {
    /// Limits of the process.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Limits, keys "limits." of |config: Config| config.limits, {
        /// Largest memory that clients and servers may make this process hold: parts of packages, messages whose handlers or
        /// filters run, messages and handshakes that wait for the delegate, handshakes that are kept for handlers, bytes that
        /// wait for a slow reader, batches between shards, and 640 bytes for each connection.
        /// At 75 % tangelo refuses new connections, at 85 % it also closes the largest ones without a finished
        /// handshake, at 92 % the clients and the links to servers with the most waiting bytes, and at 97 % messages get
        /// code 500. Each of these steps ends 5 % lower. The log names each step, and docs/operations.md says how to read it. The memory of
        /// handlers in Rust and the buffers of the kernel are not part of it. Without this key it is half of the
        /// machine's memory, or of the memory that its cgroup may use, if that is less.
        memory: Option<usize> = None, Bytes(16 << 20..=usize::MAX >> 1) => live;
    }
}

knobs! {
    /// TLS of the listeners with `tls`, and of `rpc.tls_listen`. New connections follow a change of these files within a
    /// second, and of these keys, but `tls.handshake_timeout`, after SIGHUP; a file that cannot be used changes nothing.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Tls, keys "tls." of |config: Config| config.tls, {
        /// The certificates with their keys. A client that asks for a name (SNI) gets the first one for that name, and any other
        /// client the first of the list. One whose kind of key (ECDSA, RSA, Ed25519) a client does not know is passed over.
        certificates: Vec<CertificateFiles> = Vec::new(), ListOf::<CertificateFiles>::at_most(limits::CERTIFICATES_MAX) => live;
        /// Oldest version: `1.2` or `1.3`. All ciphers have forward secrecy and authentication.
        min_version: TlsVersion = TlsVersion::Tls12, TLS_VERSION => live;
        /// Time from the first byte of a TLS handshake to its end, which takes two round trips; on `rpc.tls_listen` from the
        /// accept. It stops while the gateway has to do the next step, as when many clients come at once. Node has
        /// 120 s, from the accept.
        handshake_timeout: Option<Duration> = Some(Duration::from_secs(10)) => Some(Duration::from_secs(120)), OrOff(TimeRange(STEP_TIMES));
        /// File with keys for session tickets, which several gateways may share: then a client continues its session on any
        /// of them. Each line has one key, in Base64, as `openssl rand -base64 48` prints it. The first key makes new
        /// tickets, and the first three are taken: put a new key in front each day, and remove the fourth. Others must
        /// not be able to read the file (mode 0600). Without it, each process makes a new key each 6 hours.
        ticket_keys: Option<PathBuf> = None, FilePath => live;
        /// Certificates of clients: `off`, `optional`, or `required`. They must be signed by one of `tls.client_ca`.
        client_certificates: ClientCertificates = ClientCertificates::Off, CLIENT_CERTIFICATES => live;
        /// File with the certificates that sign those of clients.
        client_ca: Option<PathBuf> = None, FilePath => live;
        /// File of the PEM format with lists of revoked certificates (CRL), one of each authority that signs certificates of
        /// clients. A client whose certificate is in its list, or has no list, is refused. Without this file no certificate
        /// is revoked.
        client_crl: Option<PathBuf> = None, FilePath => live;
        /// Protocols of ALPN for clients, the first one that a client knows counts; a client that knows none of them is
        /// refused. Without this key the extension is ignored. Browsers name `http/1.1` for a WebSocket.
        alpn: Vec<String> = Vec::new(), Texts(r#"["http/1.1"]"#) => live;
    }
}

/// Log target of `log.forward`; `log.level = "warn,forward-log=info"` shows little else.
pub const FORWARD_LOG: &str = "forward-log";
/// Log target of the requests of operators.
pub const AUDIT_LOG: &str = "audit";
/// Log target of the filter `time`.
pub const CON_LOG: &str = "con-log";

knobs! {
    /// Another server of the cluster. Its `Default` has no id, type, host or port.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Server, keys "" of |server: Server| *server, {
        /// Server id, unique in the cluster.
        id: String = String::new(), Text;
        /// Server type: the first part of the routes that it handles.
        server_type as "type": String = String::new(), Text;
        /// Host name or address of its RPC port.
        host: String = String::new(), Text;
        /// Its RPC port.
        port: u16 = 0, Count(PORTS);
        /// Its share of the messages that the strategy `wrr` sends to its type; without one it gets none.
        weight: Option<u32> = None, Count(0..=WEIGHT_MAX);
        /// Its host for clients, if that is not `host`.
        client_host: Option<String> = None, Text, Pomelo "clientHost";
        /// Its port for clients, of a frontend.
        client_port: Option<u16> = None, Count(PORTS), Pomelo "clientPort";
    }
}

knobs! {
    /// A certificate and its key.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct CertificateFiles, keys "" of |files: CertificateFiles| *files, {
        /// File of the PEM format with the certificate, and behind it those that lead to one that clients know.
        chain: PathBuf = PathBuf::new(), FilePath;
        /// File of the PEM format with its private key.
        key: PathBuf = PathBuf::new(), FilePath;
    }
}

knobs! {
    /// A listener for clients.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ClientListener, keys "" of |listener: ClientListener| *listener, {
        /// Address of the listener: TCP, where the kernel chooses port 0, or a unix socket for a proxy of this machine.
        /// tangelo makes the file of the socket for its own user and group (mode 0660), removes it at the end, and
        /// replaces one that a killed process has left behind. Whoever can open the file counts as a proxy of
        /// `client.trusted_proxies`. A client whose address such a proxy does not tell has the address `127.0.0.1`
        /// with port 0, which counts neither for blacklists nor for limits of addresses.
        /// Without this key it is that of `listen`: in a project, the `clientPort` of the own server on all addresses.
        address: Option<ListenAddress> = None, Endpoint("0.0.0.0:3010");
        /// Transports that the listener takes. A connection that begins with another one is closed
        /// (`closed_transport`), HTTP with status 400. `"websocket"` stands for HTTP too: the page and
        /// `client.health_path`.
        transports: Transports = Transports::ALL, TransportList;
        /// TLS: `off`, `required`, or `optional` for both on one port.
        tls: TlsMode = TlsMode::Off, TLS_MODE;
        /// Trusted proxies begin each connection with the header of the PROXY protocol, as `client.proxy_protocol` says
        /// it for all listeners. Without this key that one counts.
        proxy_protocol: Option<bool> = None, Switch;
    }
}

/// The knobs of all sections.
#[cfg(feature = "runtime")]
const SECTIONS: [&[Knob<Config>]; 12] = [
    Config::KNOBS,
    Client::KNOBS,
    Filter::KNOBS,
    Session::KNOBS,
    Push::KNOBS,
    Rpc::KNOBS,
    Cluster::KNOBS,
    Drain::KNOBS,
    Log::KNOBS,
    Admin::KNOBS,
    Limits::KNOBS,
    Tls::KNOBS,
];

impl Config {
    /// Returns the defaults of `compat = "exact"`. A program that wants them begins with this value, and not with
    /// [`Config::default`].
    pub fn exact() -> Self {
        Self::exact_defaults()
    }

    /// Returns whether a listener takes TLS.
    #[cfg(feature = "runtime")]
    pub(crate) fn uses_tls(&self) -> bool {
        let listeners = self.listeners.iter();
        let mut modes = listeners.map(|listener| listener.tls);
        modes.any(|mode| mode != TlsMode::Off) || self.rpc.tls_listen.is_some()
    }

    /// Returns the files that TLS needs.
    #[cfg(feature = "runtime")]
    pub(crate) fn tls_files(&self) -> Vec<PathBuf> {
        let certificates = self.tls.certificates.iter();
        let certificates = certificates.flat_map(|files| [files.chain.clone(), files.key.clone()]);
        let (tls, rpc) = (&self.tls, &self.rpc);
        let authorities = [&tls.client_ca, &tls.client_crl, &rpc.tls_ca, &rpc.tls_crl];
        let others = authorities.into_iter().chain([&tls.ticket_keys]);
        certificates.chain(others.flatten().cloned()).collect()
    }

    /// Returns the listeners for clients: those of `[[listener]]`, or else the one of `listen`.
    pub(crate) fn client_listeners(&self) -> Vec<ClientListener> {
        match self.listeners.is_empty() {
            false => self.listeners.clone(),
            true => vec![ClientListener::default()],
        }
    }

    /// Returns the address of a listener: its own, or that of `listen`.
    #[cfg(feature = "runtime")]
    pub(crate) fn address_of(&self, listener: &ClientListener) -> ListenAddress {
        let address = listener.address.clone();
        address.unwrap_or(ListenAddress::Tcp(self.listen))
    }

    /// Returns whether a listener has the address of `listen`.
    #[cfg(feature = "runtime")]
    pub(crate) fn uses_listen(&self) -> bool {
        let listeners = self.client_listeners();
        listeners.iter().any(|listener| listener.address.is_none())
    }

    /// Returns the defaults of a value of `compat`.
    #[cfg(feature = "runtime")]
    pub(crate) fn defaults(compat: Compat) -> Self {
        match compat {
            Compat::Guarded => Self::default(),
            Compat::Exact => Self::exact(),
        }
    }
}

/// Every knob with a key, in the order of this file.
#[cfg(feature = "runtime")]
pub(crate) fn knobs() -> impl Iterator<Item = &'static Knob<Config>> {
    SECTIONS.into_iter().flatten()
}

/// Reads the strategy of one server type into [`Config::routes`].
#[cfg(feature = "runtime")]
pub(crate) fn read_strategy(
    config: &mut Config,
    server_type: &str,
    raw: RawValue<'_>,
) -> Result<(), ValueError> {
    let mut strategy = String::new();
    let read = Text.read(raw, &mut strategy);
    read.map_err(|error| error.under(&format!("route.{server_type}")))?;
    config.routes.insert(server_type.into(), strategy);
    Ok(())
}
