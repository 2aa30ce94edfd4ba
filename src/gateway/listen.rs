//! The listening sockets: one per shard and listener for clients, one for calls from other servers.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};

use super::host::{PAUSE, TRIES};
use crate::client::listener::ListenerRules;
use crate::config::{ClientListener, Config, ListenAddress, TlsMode, Transports};
use crate::error::{Error, Result};
use crate::net::unix_socket::{self, SocketFile};
use crate::shard::SocketSeed;

/// Connections that wait in the kernel while their shard is busy.
const BACKLOG: i32 = 4096;
/// The same for the listener for calls, as in Node; each server opens one connection.
const RPC_BACKLOG: i32 = 512;
/// Mode of a unix socket for clients: the proxy in front may be another user of this group.
const SOCKET_MODE: u32 = 0o660;

/// The listeners for clients of one process.
#[derive(Debug)]
pub(super) struct Listeners {
    /// The sockets of each shard, one for each listener.
    pub(super) sockets: Vec<Vec<SocketSeed>>,
    /// The listeners, with the ports that the kernel chose for port 0.
    pub(super) opened: Vec<OpenListener>,
}

/// Opens all listeners for clients, on each shard.
pub(super) fn bind(config: &Config, shards: usize) -> Result<Listeners> {
    let mut listeners = Listeners {
        sockets: (0..shards).map(|_| Vec::new()).collect(),
        opened: Vec::new(),
    };
    for listener in config.client_listeners() {
        let (listener, sockets) = bind_one(config, listener, shards)?;
        listeners.opened.push(listener);
        for (of_shard, socket) in listeners.sockets.iter_mut().zip(sockets) {
            of_shard.push(socket);
        }
    }
    Ok(listeners)
}

/// A listener that is open.
#[derive(Debug)]
pub(super) struct OpenListener {
    /// Its address, with the port that the kernel chose for port 0.
    pub(super) address: ListenAddress,
    pub(super) transports: Transports,
    pub(super) tls: TlsMode,
    pub(super) proxy_protocol: Option<bool>,
}

impl fmt::Display for OpenListener {
    /// Its address, and in brackets the rules that the one of `listen` does not have.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match (self.transports.tcp, self.transports.websocket) {
            (true, false) => Some("tcp"),
            (false, true) => Some("websocket"),
            _ => None,
        };
        let tls = match self.tls {
            TlsMode::Off => None,
            TlsMode::Required => Some("tls required"),
            TlsMode::Optional => Some("tls optional"),
        };
        let proxy = match self.proxy_protocol {
            None => None,
            Some(true) => Some("proxy_protocol"),
            Some(false) => Some("no proxy_protocol"),
        };
        let rules: Vec<&str> = transport.into_iter().chain(tls).chain(proxy).collect();
        match rules.is_empty() {
            true => self.address.fmt(f),
            false => write!(f, "{} ({})", self.address, rules.join("; ")),
        }
    }
}

/// Opens a listener for clients. Returns it with the port that the kernel chose for port 0, and one socket per shard.
pub(super) fn bind_one(
    config: &Config,
    listener: ClientListener,
    shards: usize,
) -> Result<(OpenListener, Vec<SocketSeed>)> {
    let rules = Arc::new(ListenerRules::new(&listener));
    let seed = |file: Option<&Arc<SocketFile>>, socket: Socket| SocketSeed {
        file: file.cloned(),
        socket: socket.into(),
        rules: rules.clone(),
    };
    let key = match config.listeners.is_empty() {
        true => AddressKey::Clients,
        false => AddressKey::Listener,
    };
    let address = config.address_of(&listener);
    let failed = |error| cannot_listen(key, &address, &error);
    let (address, sockets) = match &address {
        ListenAddress::Tcp(address) => {
            let (address, sockets) = bind_tcp(*address, shards).map_err(failed)?;
            let seeds = sockets.into_iter().map(|socket| seed(None, socket));
            (ListenAddress::Tcp(address), seeds.collect())
        }
        ListenAddress::Unix(path) => {
            let (file, sockets) = bind_unix(path, shards).map_err(failed)?;
            let seeds = sockets.into_iter().map(|socket| seed(Some(&file), socket));
            (address.clone(), seeds.collect())
        }
    };
    let open = OpenListener {
        address,
        transports: listener.transports,
        tls: listener.tls,
        proxy_protocol: listener.proxy_protocol,
    };
    Ok((open, sockets))
}

/// Opens one socket per shard, all on one address; the kernel distributes connections over them.
fn bind_tcp(address: SocketAddr, shards: usize) -> io::Result<(SocketAddr, Vec<Socket>)> {
    // With SO_REUSEPORT alone, a second gateway would start and silently take half of the clients. So the
    // first socket claims the port without it, which only one process can do. Once that socket listens, it
    // lets the others join.
    let first = retry_while_in_use(|| listen(address, false, BACKLOG))?;
    first.set_reuse_port(shards > 1)?;
    let bound = first.local_addr()?.as_socket();
    let address = bound.ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut sockets = vec![first];
    for _ in 1..shards {
        sockets.push(listen(address, true, BACKLOG)?);
    }
    Ok((address, sockets))
}

/// Opens a unix socket, which all shards share: a path has one. Each connection wakes all shards that sleep, and one of
/// them gets it.
fn bind_unix(path: &Path, shards: usize) -> io::Result<(Arc<SocketFile>, Vec<Socket>)> {
    let (file, first) = retry_while_in_use(|| unix_socket::listen(path, SOCKET_MODE, BACKLOG))?;
    let others = (1..shards).map(|_| first.try_clone());
    let mut sockets = others.collect::<io::Result<Vec<_>>>()?;
    sockets.push(first);
    Ok((Arc::new(file), sockets))
}

/// Opens a listener for calls from other servers. One shard accepts all of them.
pub(super) fn bind_rpc(address: SocketAddr, key: AddressKey) -> Result<TcpListener> {
    retry_while_in_use(|| listen(address, false, RPC_BACKLOG))
        .map(TcpListener::from)
        .map_err(|error| cannot_listen(key, &ListenAddress::Tcp(address), &error))
}

/// Tries again while the port is in use: after a process is killed, the kernel closes its io_uring and its
/// sockets with a delay.
fn retry_while_in_use<S>(listen: impl Fn() -> io::Result<S>) -> io::Result<S> {
    for _ in 1..TRIES {
        match listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(PAUSE),
            other => return other,
        }
    }
    listen()
}

/// Returns the address to bind. As in Node, without IPv6 `[::]` stands for all IPv4 addresses.
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
        // As in Node, `[::]` takes IPv4 clients too.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The key that names an address.
#[derive(Debug, Clone, Copy)]
pub(super) enum AddressKey {
    /// `listen`.
    Clients,
    /// A section `[[listener]]`.
    Listener,
    /// `rpc.listen`.
    Rpc,
    /// `rpc.tls_listen`.
    RpcTls,
}

fn cannot_listen(key: AddressKey, address: &ListenAddress, error: &io::Error) -> Error {
    let address = match address {
        ListenAddress::Tcp(address) => address,
        ListenAddress::Unix(_) => return cannot_open(address, error),
    };
    // The other servers dial the port in servers.json, so another port needs a change there.
    let (what, other_port, other_host) = match key {
        AddressKey::Clients => (
            "",
            "choose another --listen or clientPort",
            "choose another --listen".into(),
        ),
        AddressKey::Listener => (
            " (a [[listener]])",
            "choose another address",
            "choose another address".into(),
        ),
        AddressKey::RpcTls => (
            " (rpc.tls_listen)",
            "choose another rpc.tls_listen",
            "choose another rpc.tls_listen".into(),
        ),
        AddressKey::Rpc => (
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

/// Returns the error of a unix socket.
fn cannot_open(address: &ListenAddress, error: &io::Error) -> Error {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process (another tangelo?) listens there, or a file has its place; stop it, remove the file, or \
             choose another address"
                .into()
        }
        io::ErrorKind::NotFound => {
            format!("{error}; make its folder, or choose another address")
        }
        io::ErrorKind::PermissionDenied => format!(
            "{error}; the user of tangelo must be able to make files in its folder (RuntimeDirectory= of systemd)"
        ),
        _ => error.to_string(),
    };
    Error::Host(format!(
        "cannot listen on {address} (a [[listener]]): {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::text;
    use super::*;
    use rustix::io::Errno;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tempfile::TempDir;

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

    /// Several listeners.
    fn sections(addresses: &[ListenAddress]) -> Config {
        let listener = |address: &ListenAddress| ClientListener {
            address: Some(address.clone()),
            ..ClientListener::default()
        };
        Config {
            listeners: addresses.iter().map(listener).collect(),
            ..Config::default()
        }
    }

    /// The one listener of a configuration, and its sockets.
    fn opened(config: &Config, shards: usize) -> (SocketAddr, Vec<TcpListener>) {
        let Listeners { sockets, opened } = bind(config, shards).unwrap();
        let [listener] = &*opened else {
            panic!("{opened:?}");
        };
        let sockets = sockets.into_iter().flatten();
        let sockets = sockets.map(|seed| TcpListener::from(seed.socket));
        (listener.address.tcp().unwrap(), sockets.collect())
    }

    /// A socket in a folder.
    fn socket_in(folder: &TempDir, name: &str) -> (PathBuf, ListenAddress) {
        let path = folder.path().join(name);
        (path.clone(), ListenAddress::Unix(path))
    }

    #[test]
    fn every_shard_gets_a_listener_on_the_same_port() {
        let (address, sockets) = opened(&config("127.0.0.1:0"), 3);
        assert_ne!(address.port(), 0);
        assert_eq!(sockets.len(), 3);
        for socket in &sockets {
            assert_eq!(socket.local_addr().unwrap(), address);
            assert_eq!(
                socket.accept().unwrap_err().kind(),
                io::ErrorKind::WouldBlock
            );
        }
    }

    #[test]
    fn every_shard_gets_each_listener_in_the_order_of_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let (path, unix) = socket_in(&folder, "game.socket");
        let tcp = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let mut config = sections(&[tcp.clone(), unix.clone(), tcp]);
        config.listeners[2].transports.tcp = false;
        let listeners = bind(&config, 2).unwrap();
        let [first, second, third] = &*listeners.opened else {
            panic!("three listeners");
        };
        let ports = [first, third].map(|one| one.address.tcp().unwrap().port());
        assert!(ports[0] != ports[1] && !ports.contains(&0), "{ports:?}");
        assert_eq!(second.address, unix);
        let rules = |of_shard: &Vec<SocketSeed>| -> Vec<(bool, bool, bool)> {
            let rules = of_shard.iter().map(|seed| &seed.rules);
            rules
                .map(|rules| {
                    (
                        rules.is_unix,
                        rules.transports.tcp,
                        rules.transports.websocket,
                    )
                })
                .collect()
        };
        let expected = [
            (false, true, true),
            (true, true, true),
            (false, false, true),
        ];
        assert_eq!(
            listeners.sockets.iter().map(rules).collect::<Vec<_>>(),
            [expected, expected]
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        drop(listeners);
        assert!(!path.exists());
    }

    #[test]
    fn the_shards_share_a_unix_socket_and_the_last_one_removes_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, unix) = socket_in(&folder, "game.socket");
        let mut listeners = bind(&sections(&[unix]), 2).unwrap();
        let second = listeners.sockets.pop().unwrap();
        let accepted = |seeds: &[SocketSeed]| {
            let socket = seeds[0].socket.try_clone().unwrap();
            UnixListener::from(socket)
                .accept()
                .map(drop)
                .map_err(|error| error.kind())
        };
        for seeds in [&listeners.sockets[0], &second] {
            let _client = UnixStream::connect(&path).unwrap();
            assert_eq!(accepted(seeds), Ok(()));
            for empty in [&listeners.sockets[0], &second] {
                assert_eq!(accepted(empty), Err(io::ErrorKind::WouldBlock));
            }
        }
        drop(listeners);
        let _client = UnixStream::connect(&path).unwrap();
        assert_eq!(accepted(&second), Ok(()));
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_unix_socket_that_cannot_be_names_the_cause_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (path, unix) = socket_in(&folder, "game.socket");
        let config = sections(&[unix]);
        let start = format!(
            "cannot listen on unix:{} (a [[listener]]): ",
            path.display()
        );
        let in_use = format!(
            "{start}another process (another tangelo?) listens there, or a file has its place; stop it, remove the \
             file, or choose another address"
        );
        let first = bind(&config, 1).unwrap();
        assert_eq!(text(bind(&config, 2)), in_use);
        drop(first);
        fs::write(&path, "a file").unwrap();
        assert_eq!(text(bind(&config, 1)), in_use);
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
        fs::remove_file(&path).unwrap();
        // As a process that was killed leaves it.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(bind(&config, 1).unwrap());
        let (path, unix) = socket_in(&folder, "missing/game.socket");
        assert_eq!(
            text(bind(&sections(&[unix]), 1)),
            format!(
                "cannot listen on unix:{} (a [[listener]]): No such file or directory (os error 2); make its folder, \
                 or choose another address",
                path.display()
            )
        );
    }

    #[test]
    fn all_addresses_take_ipv4_clients_too() {
        let (address, _sockets) = opened(&config("[::]:0"), 1);
        let port = address.port();
        let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.write_all(b"x").unwrap();
    }

    #[test]
    fn a_section_whose_port_is_taken_says_so() {
        let (address, _sockets) = opened(&config("127.0.0.1:0"), 1);
        assert_eq!(
            text(bind(&sections(&[ListenAddress::Tcp(address)]), 1)),
            format!(
                "cannot listen on {address} (a [[listener]]): another process (another tangelo?) already listens \
                 there; stop it or choose another address"
            )
        );
    }

    #[test]
    fn a_second_instance_is_refused() {
        let address = format!("127.0.0.1:{}", free_port());
        let first = bind(&config(&address), 2).unwrap();
        let expected = format!(
            "cannot listen on {address}: another process (another tangelo?) already listens there; \
             stop it or choose another --listen or clientPort"
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
            let (address, sockets) = opened(&config(address), 3);
            let connect = |_| std::net::TcpStream::connect(address).unwrap();
            let clients: Vec<_> = (0..100).map(connect).collect();
            let mut accepted = 0;
            for socket in &sockets {
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
        let address = ListenAddress::Tcp("127.0.0.1:80".parse().unwrap());
        assert_eq!(
            text::<()>(Err(cannot_listen(
                AddressKey::Clients,
                &address,
                &Errno::ACCESS.into()
            ))),
            "cannot listen on 127.0.0.1:80: Permission denied (os error 13); a port below 1024 \
             needs CAP_NET_BIND_SERVICE (setcap cap_net_bind_service=+ep on the binary, \
             AmbientCapabilities= of systemd); give it or choose another --listen or clientPort",
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
        let listener = bind_rpc("127.0.0.1:0".parse().unwrap(), AddressKey::Rpc).unwrap();
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let address = listener.local_addr().unwrap();
        let expected = format!(
            "cannot listen on {address} (rpc.listen): another process (another tangelo?) already \
             listens there; stop it or choose another `port` for this server in servers.json"
        );
        assert_eq!(text(bind_rpc(address, AddressKey::Rpc)), expected);
        let sharing = socket(address, true);
        assert_eq!(sharing.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_listener_for_calls_opens_right_after_the_last_one_closed() {
        let listener = bind_rpc("127.0.0.1:0".parse().unwrap(), AddressKey::Rpc).unwrap();
        let address = listener.local_addr().unwrap();
        // Leaves a connection in TIME_WAIT behind.
        let client = std::net::TcpStream::connect(address).unwrap();
        listener.set_nonblocking(false).unwrap();
        drop(listener.accept().unwrap());
        let closing = thread::Builder::new().spawn(move || {
            thread::sleep(2 * PAUSE);
            drop(listener);
        });
        bind_rpc(address, AddressKey::Rpc).unwrap();
        closing.unwrap().join().unwrap();
        drop(client);
    }

    #[test]
    fn a_listener_for_calls_that_cannot_be_names_rpc_listen_and_what_to_change() {
        assert_eq!(
            text(bind_rpc(
                "203.0.113.7:3150".parse().unwrap(),
                AddressKey::Rpc
            )),
            "cannot listen on 203.0.113.7:3150 (rpc.listen): Cannot assign requested address (os \
             error 99); this machine does not have that address; set rpc.listen to one that it \
             has, such as 0.0.0.0:3150",
        );
        let address = ListenAddress::Tcp("127.0.0.1:80".parse().unwrap());
        let refused = text::<()>(Err(cannot_listen(
            AddressKey::Rpc,
            &address,
            &Errno::ACCESS.into(),
        )));
        assert!(
            refused.ends_with("give it or choose another `port` for this server in servers.json")
        );
    }
}
