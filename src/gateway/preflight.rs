//! What the machine must offer, checked before the first shard starts, so that an operator reads
//! one plain line instead of a panic or, worse, a limit met under load.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CpuSet, capabilities, sched_getaffinity};
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::check::ClientCheck;
use crate::client::coder::Protos;
use crate::client::host_filter::HostFilter;
use crate::config::{self, Config, Dialect};
use crate::error::{Error, Result};
use crate::handler::{self, filter};
use crate::limits::{SESSIONS_PER_SHARD_MAX, SHARDS_MAX};
use crate::net::poller::Poller;
use crate::push::select::Selector;
use crate::shard::blacklist;
use crate::wire::protobuf::{Flavour, Schema};

/// Memory that one executor locks, rounded up: 504 KiB on Linux 6.14 and newer, where the rings
/// count, 192 KiB before. glommio asks for this much, whatever the kernel charges.
const LOCKED_BYTES: u64 = 512 << 10;
/// Descriptors of one shard: three rings, an eventfd, the epoll instance and a copy of it, the
/// listener, and one to spare.
const SHARD_FILES: usize = 8;
/// Descriptors kept free for logs, files read at start and for refusing what comes too much.
const SPARE_FILES: usize = 64;
/// Ways to raise the file limit, as errors and warnings name them.
const RAISE_FILES: &str = "ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of docker";
/// A file limit for fewer clients than this is a warning. `ulimit -n 1024` in a start script sets the
/// hard limit too and leaves fewer, while one Node connector serves thousands.
const CLIENTS_USUAL_MIN: usize = 1000;
/// Connections that the kernel keeps for a shard that is busy.
const BACKLOG: i32 = 4096;
/// The same for calls from other servers, of which each opens one connection; as node.
const RPC_BACKLOG: i32 = 512;
/// Tries to make an executor, and the pause between them. A process that has just ended gives its
/// locked memory back late (up to 60 ms was seen), and it counts for all processes of one user.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// glommio's preemption timer, so long that it never fires.
///
/// Where it has fired before the first task of a turn runs, because the thread was off its core for longer
/// than the timer, glommio 0.9 parks the thread although tasks are ready to run (`run_task_queues`). Nothing
/// wakes it then, if the tick is one of those tasks. Nobody needs the timer: a loop over much work gives the
/// core up by itself (`clock::breathe`), and so does each future of the application (`Pulse::run`).
const PREEMPT_TIMER: Duration = Duration::from_secs(24 * 60 * 60);
const PROBE_THREAD: &str = "tangelo-probe";

/// Raises the soft limits and checks that `config` fits this machine.
///
/// Takes part in the start of the process: it replaces the panic hook for a moment, and must run
/// once, before any shard.
pub fn check(config: &Config) -> Result<()> {
    check_values(config)?;
    let shards = shards(config);
    let (files, memory) = (raise(Resource::Nofile), raise(Resource::Memlock));
    files_fit(files, config, shards)?;
    if let Some(text) = few_clients(files, config, shards) {
        tracing::warn!("{text}");
    }
    memory_fits(memory, is_exempt(), shards)?;
    probe()
}

/// The part of [`check`] that looks at `config` alone.
pub fn check_values(config: &Config) -> Result<()> {
    ClientCheck::parse(&config.client.accept)
        .map_err(|text| Error::Config(format!("client.accept: {text}")))?;
    for (key, texts) in [
        ("global", &config.filter.global),
        ("local", &config.filter.local),
    ] {
        filter::check(texts).map_err(|text| Error::Config(format!("filter.{key}: {text}")))?;
    }
    Selector::new(&config.push).map_err(Error::Config)?;
    if config.delegate.as_ref() == Some(&config.server_type) {
        let text = format!(
            "delegate: {:?} is the own server type; accepted: the type of servers that have its handlers",
            config.server_type
        );
        return Err(Error::Config(text));
    }
    if let Some(remote) = &config.delegate_closed {
        let text = match handler::remote_parts(remote) {
            None => Some("is not service.method, such as \"entryRemote.closed\""),
            Some(_) if config.delegate.is_none() => Some("has no delegate; set delegate too"),
            Some(_) => None,
        };
        if let Some(text) = text {
            let text = format!("delegate_closed: {remote:?} {text}");
            return Err(Error::Config(text));
        }
    }
    let routes = config.dictionary.len() + config.handler_routes.len();
    if config.client.use_dict && routes > usize::from(u16::MAX) {
        return Err(Error::Config(format!(
            "dictionary, handler_routes: {routes} routes; accepted: up to {} that get a code",
            u16::MAX
        )));
    }
    shards_fit(shards(config))
}

/// Shards to start: as configured, else one per available core.
pub fn shards(config: &Config) -> usize {
    config
        .shards
        .unwrap_or_else(|| cores().len().min(SHARDS_MAX))
}

/// Ids of the cores that the calling thread may run on; never empty. Ask before pinning.
pub fn cores() -> Vec<usize> {
    let cores: Vec<usize> = sched_getaffinity(None)
        .map(|set| {
            (0..CpuSet::MAX_CPU)
                .filter(|core| set.is_set(*core))
                .collect()
        })
        .unwrap_or_default();
    if cores.is_empty() { vec![0] } else { cores }
}

/// Client sockets that this process can hold, those that never say a word included. Ask after
/// [`check`], which raises the file limit.
pub fn sockets_max(config: &Config) -> usize {
    sockets_within(getrlimit(Resource::Nofile).current, config, shards(config))
}

fn sockets_within(limit: Option<u64>, config: &Config, shards: usize) -> usize {
    let room = files_max(limit).saturating_sub(reserve(config, shards));
    room.min(shards * SESSIONS_PER_SHARD_MAX)
}

/// An executor with the settings of a shard, for the calling thread.
pub fn executor(placement: &Placement) -> Result<LocalExecutor> {
    let make = || {
        LocalExecutorBuilder::new(placement.clone())
            .io_memory(64 << 10)
            .ring_depth(1024)
            .preempt_timer(PREEMPT_TIMER)
            .spin_before_park(Duration::ZERO)
            .make()
            .map_err(io::Error::from)
    };
    for _ in 1..TRIES {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => thread::sleep(PAUSE),
            result => return result.map_err(|error| refused(&error, sysctl().as_deref())),
        }
    }
    make().map_err(|error| refused(&error, sysctl().as_deref()))
}

/// The one executor of a gateway in memory. Any number of them may be made at any time: what replaces
/// the panic hook is done once for all.
pub fn executor_in_memory() -> Result<LocalExecutor> {
    static PROBED: OnceLock<Result<()>> = OnceLock::new();
    let probed = PROBED.get_or_init(|| {
        raise(Resource::Memlock);
        probe()
    });
    probed.clone()?;
    executor(&Placement::Unbound)
}

/// Protos of both directions; empty without `client.use_protobuf`. What a human should look at in
/// them is logged.
pub fn protos(config: &Config) -> Result<Protos> {
    let client = &config.client;
    if !client.use_protobuf {
        return Ok(Protos::default());
    }
    if client.server_protos.is_none() && client.client_protos.is_none() {
        tracing::warn!("client.use_protobuf is on, but there are no protos");
    }
    let schema = |key: &str, path: &Option<PathBuf>| {
        path.as_ref()
            .map(|path| schema(config.dialect, path))
            .transpose()
            .map_err(|text| Error::Config(format!("client.{key}: {text}")))
    };
    let server = schema("server_protos", &client.server_protos)?;
    let client = schema("client_protos", &client.client_protos)?;
    Ok(Protos::new(server, client))
}

fn schema(dialect: Dialect, path: &Path) -> std::result::Result<Schema, String> {
    let file = path.display();
    let text = fs::read_to_string(path).map_err(|error| format!("{file}: {error}"))?;
    // Node skips a byte order mark, too.
    let json = serde_json::from_str(text.trim_start_matches('\u{feff}'));
    let json = json.map_err(|error| format!("{file}: {error}"))?;
    let flavour = match dialect {
        Dialect::Pomelo => Flavour::Pomelo,
        Dialect::Pinus => Flavour::Pinus,
    };
    let schema = Schema::parse(flavour, &json).map_err(|error| format!("{file}: {error}"))?;
    for doubt in schema.doubts() {
        tracing::warn!(%file, "{doubt}");
    }
    Ok(schema)
}

/// Who may not connect.
pub fn host_filter(client: &config::Client) -> Result<HostFilter> {
    let wrong = |key: &str, text: String| Error::Config(format!("client.{key}: {text}"));
    let filter = HostFilter::new(&client.blacklist);
    let filter = filter.map_err(|error| wrong("blacklist", error.to_string()))?;
    let Some(path) = &client.blacklist_file else {
        return Ok(filter);
    };
    let in_file = |error: &dyn std::fmt::Display| {
        wrong("blacklist_file", format!("{}: {error}", path.display()))
    };
    let read = blacklist::read(path, None).map_err(|error| in_file(&error))?;
    let text = read.map_or_else(String::new, |(_, text)| text);
    filter.with_file(&text).map_err(|error| in_file(&error))
}

/// Returns the folder of the project's handlers in JavaScript for this server's type, if it has any: for
/// Pomelo in the project, for Pinus in `dist`, where its compiler writes them.
pub fn javascript_handlers(config: &Config) -> Option<PathBuf> {
    let project = config.app_dir.as_ref()?;
    let folders = [project.clone(), project.join("dist")];
    let folders = folders.map(|root| root.join("app/servers").join(&config.server_type));
    let mut folders = folders.iter().map(|own| own.join("handler"));
    folders.find(|folder| {
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names = files.map(|file| PathBuf::from(file.file_name()));
        names.any(|name| name.extension().is_some_and(|extension| extension == "js"))
    })
}

/// What tells a shard which of its sockets are ready.
pub fn poller() -> Result<Poller> {
    Poller::new().map_err(|error| Error::Host(format!("cannot create an epoll instance: {error}")))
}

fn shards_fit(shards: usize) -> Result<()> {
    if (1..=SHARDS_MAX).contains(&shards) {
        return Ok(());
    }
    Err(Error::Host(format!(
        "shards: {shards} is out of range; accepted: 1 to {SHARDS_MAX}"
    )))
}

/// Raises a soft limit as far as is allowed; what it is then. `None` is no limit.
fn raise(resource: Resource) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(resource);
    if current.is_some() && current != maximum {
        let _ = setrlimit(
            resource,
            Rlimit {
                current: maximum,
                maximum,
            },
        );
    }
    getrlimit(resource).current
}

fn files_max(limit: Option<u64>) -> usize {
    limit
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX)
}

/// Descriptors that are not for clients.
fn reserve(config: &Config, shards: usize) -> usize {
    // A link to each, and in a cluster one from each.
    let links = if config.rpc.listen.is_some() { 2 } else { 1 };
    SPARE_FILES + shards * SHARD_FILES + links * config.servers.len()
}

fn files_fit(limit: Option<u64>, config: &Config, shards: usize) -> Result<()> {
    let (limit, reserve) = (files_max(limit), reserve(config, shards));
    let (clients, what, or) = match config.client.max_connections {
        Some(max) => (
            max,
            format!("client.max_connections = {max}"),
            " or lower it",
        ),
        None => (1, "a single client".into(), ""),
    };
    let needed = clients.saturating_add(reserve);
    if needed <= limit {
        return Ok(());
    }
    Err(Error::Host(format!(
        "file limit: {limit} is too low: {what} and {reserve} for tangelo itself make {needed}; \
         raise the limit ({RAISE_FILES}){or}"
    )))
}

/// Returns a warning when the file limit leaves few clients and `client.max_connections` does not say
/// that the operator wants few.
fn few_clients(limit: Option<u64>, config: &Config, shards: usize) -> Option<String> {
    let clients = sockets_within(limit, config, shards);
    if config.client.max_connections.is_some() || clients >= CLIENTS_USUAL_MIN {
        return None;
    }
    Some(format!(
        "file limit: {} lets only {clients} clients connect; raise the limit ({RAISE_FILES}), or \
         set client.max_connections if this is enough",
        files_max(limit)
    ))
}

fn memory_fits(limit: Option<u64>, is_exempt: bool, shards: usize) -> Result<()> {
    // One more than shards: the kernel takes its time to give back what the probe locked.
    let executors = if is_exempt { 1 } else { shards as u64 + 1 };
    let needed = executors * LOCKED_BYTES;
    let Some(limit) = limit.filter(|limit| *limit < needed) else {
        return Ok(());
    };
    Err(Error::Host(format!(
        "memory lock limit: {} KiB is too low: io_uring needs {} KiB for {shards} shards; raise \
         the limit (ulimit -Hl, LimitMEMLOCK= of systemd, --ulimit memlock= of docker){}",
        limit >> 10,
        needed >> 10,
        if limit >= 2 * LOCKED_BYTES {
            " or start fewer --shards"
        } else {
            ""
        },
    )))
}

/// Whether the kernel does not count what this process locks. A capability inside a container's own
/// user namespace does not help.
fn is_exempt() -> bool {
    let initial = fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]));
    initial && capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}

/// Makes and runs one executor. glommio panics where io_uring is missing, and it panics about the
/// errno in words of its own, so the errno is picked up where the panic starts.
fn probe() -> Result<()> {
    let (send, receive) = mpsc::sync_channel(1);
    let hook = Arc::new(panic::take_hook());
    let usual = hook.clone();
    panic::set_hook(Box::new(move |info| {
        let error = io::Error::last_os_error();
        if thread::current().name() == Some(PROBE_THREAD) {
            let _ = send.try_send(error);
        } else {
            usual(info);
        }
    }));
    let probe = thread::Builder::new().name(PROBE_THREAD.into()).spawn(|| {
        executor(&Placement::Unbound)?.run(async {});
        Ok(())
    });
    let result = probe.map(thread::JoinHandle::join);
    // Dropping the hook in place frees the last other handle to the usual one.
    drop(panic::take_hook());
    if let Ok(usual) = Arc::try_unwrap(hook) {
        panic::set_hook(usual);
    }
    match result {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => {
            let error = receive
                .try_recv()
                .unwrap_or_else(|_| io::ErrorKind::Unsupported.into());
            Err(refused(&error, sysctl().as_deref()))
        }
        Err(error) => Err(Error::Host(format!("cannot start a thread: {error}"))),
    }
}

/// `kernel.io_uring_disabled`; kernels before 6.6 do not have it.
fn sysctl() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    Some(text.trim().into())
}

/// Says why no executor can be made.
fn refused(error: &io::Error, disabled: Option<&str>) -> Error {
    let advice = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOMEM) => String::from(
            "the memory lock limit (ulimit -l) is used up; it counts for all processes of one \
             user: raise it or stop one of them",
        ),
        Some(Errno::MFILE | Errno::NFILE) => "raise the file limit (ulimit -n)".into(),
        _ => format!(
            "tangelo needs Linux 5.8 or newer with kernel.io_uring_disabled=0{}, and in a \
             container a seccomp profile that allows io_uring_setup, io_uring_enter and \
             io_uring_register",
            match disabled {
                None | Some("0") => String::new(),
                Some(value) => format!(" (it is {value} now)"),
            },
        ),
    };
    Error::Host(format!("io_uring does not work here: {error}; {advice}"))
}

/// The listening sockets of one process.
#[derive(Debug)]
pub struct Listeners {
    /// One per shard, all on [`Self::address`]; the kernel spreads connections over them.
    pub sockets: Vec<TcpListener>,
    /// Where clients connect, with the port that the kernel chose if it was asked to.
    pub address: SocketAddr,
}

/// Opens one listener per shard.
pub fn bind(config: &Config, shards: usize) -> Result<Listeners> {
    let failed = |error| cannot_listen(Port::Clients, config.listen, &error);
    // With SO_REUSEPORT alone, a second gateway would start and silently take half of the clients.
    // So the first socket claims the port without it, which the kernel allows to one process. Once it
    // listens, it lets the other sockets of this user join.
    let first = patiently(|| listen(config.listen, false, BACKLOG)).map_err(failed)?;
    first.set_reuse_port(shards > 1).map_err(failed)?;
    let mut sockets = vec![TcpListener::from(first)];
    let address = sockets[0].local_addr().map_err(failed)?;
    for _ in 1..shards {
        let socket = listen(address, true, BACKLOG).map_err(failed)?;
        sockets.push(socket.into());
    }
    Ok(Listeners { sockets, address })
}

/// Opens the listener for calls from other servers. There is one: who accepts is one shard's task.
pub fn bind_rpc(address: SocketAddr) -> Result<TcpListener> {
    patiently(|| listen(address, false, RPC_BACKLOG))
        .map(TcpListener::from)
        .map_err(|error| cannot_listen(Port::Rpc, address, &error))
}

/// Waits for a listener that has just been killed and still shows for a moment: the kernel ends its
/// io_uring, and with it its sockets, after the process.
fn patiently(listen: impl Fn() -> io::Result<Socket>) -> io::Result<Socket> {
    for _ in 1..TRIES {
        match listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(PAUSE),
            other => return other,
        }
    }
    listen()
}

/// As node: where there is no IPv6, all addresses are all IPv4 addresses.
fn usable(address: SocketAddr) -> SocketAddr {
    let is_all = address.is_ipv6() && address.ip().is_unspecified();
    let without_port = SocketAddr::new(address.ip(), 0);
    if is_all && socket(without_port, false).is_err() {
        return SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    }
    address
}

fn listen(address: SocketAddr, shared: bool, backlog: i32) -> io::Result<Socket> {
    let socket = socket(usable(address), shared)?;
    socket.listen(backlog)?;
    Ok(socket)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // As node: `[::]` takes IPv4 clients, too.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What a port is for.
enum Port {
    Clients,
    Rpc,
}

fn cannot_listen(port: Port, address: SocketAddr, error: &io::Error) -> Error {
    // The other servers dial what servers.json says: another port here needs a change there.
    let (what, other_port, other_host) = match port {
        Port::Clients => (
            "",
            "choose another --listen",
            "choose another --listen".into(),
        ),
        Port::Rpc => (
            " (rpc.listen)",
            "choose another `port` for this server in servers.json",
            format!(
                "set rpc.listen to one that it has, such as 0.0.0.0:{}",
                address.port()
            ),
        ),
    };
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process (another tangelo?) already listens there; stop it or {other_port}"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "{error}; a port below 1024 needs CAP_NET_BIND_SERVICE (setcap \
             cap_net_bind_service=+ep on the binary, AmbientCapabilities= of systemd); give it or \
             {other_port}"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{error}; this machine does not have that address; {other_host}")
        }
        _ => error.to_string(),
    };
    Error::Host(format!("cannot listen on {address}{what}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Server;
    use std::io::Write;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn text<T: std::fmt::Debug>(result: Result<T>) -> String {
        match result {
            Err(Error::Host(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    fn config(listen: &str) -> Config {
        Config {
            listen: listen.parse().unwrap(),
            ..Config::default()
        }
    }

    /// A port that is free now, that no outgoing connection gets by chance, and no other test.
    fn free_port() -> u16 {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let own = 100 * (std::process::id() % 100);
        let next = || 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let mut ports = std::iter::repeat_with(|| next() as u16).take(10_000);
        ports
            .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .unwrap()
    }

    #[test]
    fn this_machine_passes_and_the_panic_hook_is_as_before() {
        check(&Config::default()).unwrap();
        let caught = thread::Builder::new().spawn(|| panic!("on purpose: the hook prints this"));
        assert!(caught.unwrap().join().is_err());
    }

    #[test]
    fn shards_out_of_range_are_refused() {
        for shards in [0, 257] {
            let expected = format!("shards: {shards} is out of range; accepted: 1 to 256");
            assert_eq!(text(shards_fit(shards)), expected);
        }
        assert!(shards_fit(SHARDS_MAX).is_ok());
    }

    #[test]
    fn one_shard_per_core_unless_configured() {
        let mut config = Config::default();
        assert_eq!(shards(&config), cores().len().min(SHARDS_MAX));
        config.shards = Some(3);
        assert_eq!(shards(&config), 3);
    }

    /// What an operator reads of a configuration that is none.
    fn wrong(config: &Config) -> String {
        match check(config) {
            Err(Error::Config(text)) => text,
            other => panic!("it is no configuration: {other:?}"),
        }
    }

    #[test]
    fn more_routes_than_codes_are_refused() {
        let config = |use_dict, routes| {
            let mut config = Config::default();
            config.client.use_dict = use_dict;
            config.dictionary = vec!["onX".into(); routes];
            config.handler_routes = vec!["a.b.c".into()];
            config
        };
        let text = wrong(&config(true, 65_535));
        let place = "dictionary, handler_routes: 65536 routes; accepted: up to 65535";
        assert!(text.starts_with(place), "{text}");
    }

    #[test]
    fn a_rule_for_clients_that_cannot_be_read_is_refused() {
        let mut config = Config::default();
        config.client.accept = vec!["js-socket 1.0".into()];
        let text = wrong(&config);
        let start = "client.accept: \"js-socket 1.0\" is not a rule for clients; accepted: ";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn a_filter_that_is_not_known_is_refused() {
        let mut config = Config::default();
        config.filter.local = vec!["cereal".into()];
        let text = wrong(&config);
        let start = "filter.local: \"cereal\" is not a filter; accepted: ";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn more_connections_than_files_are_refused() {
        let mut config = Config::default();
        config.client.max_connections = Some(1000);
        assert!(files_fit(Some(1080), &config, 2).is_ok());
        assert!(files_fit(None, &config, 2).is_ok());
        assert_eq!(
            text(files_fit(Some(1079), &config, 2)),
            "file limit: 1079 is too low: client.max_connections = 1000 and 80 for tangelo itself \
             make 1080; raise the limit (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of \
             docker) or lower it",
        );
        config.client.max_connections = None;
        assert!(files_fit(Some(81), &config, 2).is_ok());
        assert_eq!(
            text(files_fit(Some(80), &config, 2)),
            "file limit: 80 is too low: a single client and 80 for tangelo itself make 81; raise \
             the limit (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of docker)",
        );
    }

    #[test]
    fn a_file_limit_for_few_clients_is_a_warning_unless_they_are_wanted() {
        let mut config = Config::default();
        assert_eq!(
            few_clients(Some(100), &config, 2).unwrap(),
            "file limit: 100 lets only 20 clients connect; raise the limit (ulimit -Hn, \
             LimitNOFILE= of systemd, --ulimit nofile= of docker), or set client.max_connections \
             if this is enough",
        );
        assert!(few_clients(Some(1079), &config, 2).is_some());
        assert_eq!(few_clients(Some(1080), &config, 2), None);
        assert_eq!(few_clients(None, &config, 2), None);
        config.client.max_connections = Some(20);
        assert_eq!(few_clients(Some(100), &config, 2), None);
    }

    #[test]
    fn sockets_are_bounded_by_files_and_not_by_the_connections_wanted() {
        let mut config = Config {
            shards: Some(1),
            ..Config::default()
        };
        let files = sockets_max(&config);
        assert!(files <= SESSIONS_PER_SHARD_MAX);
        config.client.max_connections = Some(5);
        assert_eq!(sockets_max(&config), files, "some never say a word");
    }

    #[test]
    fn links_to_and_from_the_other_servers_are_reserved() {
        let server = Server {
            id: "a".into(),
            server_type: "t".into(),
            host: "h".into(),
            port: 1,
            ..Server::default()
        };
        let mut config = Config {
            servers: vec![server; 10],
            ..Config::default()
        };
        assert_eq!(reserve(&config, 2), 90);
        config.rpc.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 3150)));
        assert_eq!(reserve(&config, 2), 100);
    }

    #[test]
    fn too_little_lockable_memory_is_refused() {
        assert!(memory_fits(None, false, 256).is_ok());
        assert!(memory_fits(Some(2560 << 10), false, 4).is_ok());
        assert!(memory_fits(Some(512 << 10), true, 4).is_ok());
        assert_eq!(
            text(memory_fits(Some(2559 << 10), false, 4)),
            "memory lock limit: 2559 KiB is too low: io_uring needs 2560 KiB for 4 shards; raise \
             the limit (ulimit -Hl, LimitMEMLOCK= of systemd, --ulimit memlock= of docker) or \
             start fewer --shards",
        );
        assert_eq!(
            text(memory_fits(Some(64 << 10), true, 4)),
            "memory lock limit: 64 KiB is too low: io_uring needs 512 KiB for 4 shards; raise the \
             limit (ulimit -Hl, LimitMEMLOCK= of systemd, --ulimit memlock= of docker)",
        );
    }

    #[test]
    fn a_refused_io_uring_names_errno_setting_and_seccomp() {
        let error = |errno: Errno, disabled| text::<()>(Err(refused(&errno.into(), disabled)));
        assert_eq!(
            error(Errno::PERM, Some("2")),
            "io_uring does not work here: Operation not permitted (os error 1); tangelo needs Linux \
             5.8 or newer with kernel.io_uring_disabled=0 (it is 2 now), and in a container a \
             seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register",
        );
        assert!(!error(Errno::NOSYS, Some("0")).contains("now"));
        assert_eq!(
            error(Errno::NOMEM, Some("0")),
            "io_uring does not work here: Cannot allocate memory (os error 12); the memory lock \
             limit (ulimit -l) is used up; it counts for all processes of one user: raise it or \
             stop one of them",
        );
        assert_eq!(
            error(Errno::MFILE, None),
            "io_uring does not work here: Too many open files (os error 24); raise the file limit \
             (ulimit -n)",
        );
    }

    #[test]
    fn every_shard_gets_a_listener_on_the_same_port() {
        let listeners = bind(&config("127.0.0.1:0"), 3).unwrap();
        assert_ne!(listeners.address.port(), 0);
        assert_eq!(listeners.sockets.len(), 3);
        for socket in &listeners.sockets {
            assert_eq!(socket.local_addr().unwrap(), listeners.address);
            assert_eq!(
                socket.accept().unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
        }
    }

    #[test]
    fn all_addresses_take_ipv4_clients_too() {
        let listeners = bind(&config("[::]:0"), 1).unwrap();
        let port = listeners.address.port();
        let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.write_all(b"x").unwrap();
    }

    #[test]
    fn a_second_instance_is_refused() {
        let address = format!("127.0.0.1:{}", free_port());
        let first = bind(&config(&address), 2).unwrap();
        let expected = format!(
            "cannot listen on {address}: another process (another tangelo?) already listens there; \
             stop it or choose another --listen"
        );
        assert_eq!(text(bind(&config(&address), 2)), expected);

        // Not even one that shares its port with others.
        drop(first);
        let other = listen(address.parse().unwrap(), true, 1).unwrap();
        assert_eq!(text(bind(&config(&address), 2)), expected);
        drop(other);
        bind(&config(&address), 2).unwrap();
    }

    #[test]
    fn of_instances_that_start_at_the_same_moment_one_listens() {
        for _ in 0..3 {
            let config = config(&format!("127.0.0.1:{}", free_port()));
            let starting = std::sync::Barrier::new(4);
            let bound: Vec<_> = thread::scope(|scope| {
                let bind = || {
                    starting.wait();
                    bind(&config, 3)
                };
                let threads = [(); 4].map(|()| scope.spawn(bind));
                threads.map(|thread| thread.join().unwrap()).into()
            });
            assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1);
        }
    }

    #[test]
    fn clients_are_spread_over_the_listeners_of_all_shards() {
        let address = format!("127.0.0.1:{}", free_port());
        for address in [&address, "127.0.0.1:0"] {
            let listeners = bind(&config(address), 3).unwrap();
            let connect = |_| std::net::TcpStream::connect(listeners.address).unwrap();
            let clients: Vec<_> = (0..100).map(connect).collect();
            let mut accepted = 0;
            for socket in &listeners.sockets {
                let before = accepted;
                while socket.accept().is_ok() {
                    accepted += 1;
                }
                assert!(accepted > before, "one has no clients");
            }
            assert_eq!(accepted, clients.len());
        }
    }

    #[test]
    fn a_port_that_is_not_allowed_names_the_capability() {
        let address = "127.0.0.1:80".parse().unwrap();
        assert_eq!(
            text::<()>(Err(cannot_listen(
                Port::Clients,
                address,
                &Errno::ACCESS.into()
            ))),
            "cannot listen on 127.0.0.1:80: Permission denied (os error 13); a port below 1024 \
             needs CAP_NET_BIND_SERVICE (setcap cap_net_bind_service=+ep on the binary, \
             AmbientCapabilities= of systemd); give it or choose another --listen",
        );
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        assert_eq!(
            text(bind(&config("203.0.113.7:0"), 1)),
            "cannot listen on 203.0.113.7:0: Cannot assign requested address (os error 99); this \
             machine does not have that address; choose another --listen",
        );
    }
    #[test]
    fn the_listener_for_calls_is_one_that_does_not_share_its_port() {
        let listener = bind_rpc("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let address = listener.local_addr().unwrap();
        let expected = format!(
            "cannot listen on {address} (rpc.listen): another process (another tangelo?) already \
             listens there; stop it or choose another `port` for this server in servers.json"
        );
        assert_eq!(text(bind_rpc(address)), expected);
        let sharing = socket(address, true);
        assert_eq!(sharing.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_listener_for_calls_that_just_closed_is_no_obstacle() {
        let listener = bind_rpc("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        // Leaves a connection in TIME_WAIT behind.
        let client = std::net::TcpStream::connect(address).unwrap();
        listener.set_nonblocking(false).unwrap();
        drop(listener.accept().unwrap());
        let closing = thread::Builder::new().spawn(move || {
            thread::sleep(2 * PAUSE);
            drop(listener);
        });
        bind_rpc(address).unwrap();
        closing.unwrap().join().unwrap();
        drop(client);
    }

    #[test]
    fn a_listener_for_calls_that_cannot_be_names_rpc_listen_and_what_to_change() {
        assert_eq!(
            text(bind_rpc("203.0.113.7:3150".parse().unwrap())),
            "cannot listen on 203.0.113.7:3150 (rpc.listen): Cannot assign requested address (os \
             error 99); this machine does not have that address; set rpc.listen to one that it \
             has, such as 0.0.0.0:3150",
        );
        let address = "127.0.0.1:80".parse().unwrap();
        let refused = text::<()>(Err(cannot_listen(
            Port::Rpc,
            address,
            &Errno::ACCESS.into(),
        )));
        assert!(
            refused.ends_with("give it or choose another `port` for this server in servers.json")
        );
    }
}
