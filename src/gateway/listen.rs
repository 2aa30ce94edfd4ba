//! The listening sockets: one per shard for clients, one for calls from other servers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};

use super::host::{PAUSE, TRIES};
use crate::config::Config;
use crate::error::{Error, Result};

/// Connections that wait in the kernel while their shard is busy.
const BACKLOG: i32 = 4096;
/// The same for the listener for calls, as in Node; each server opens one connection.
const RPC_BACKLOG: i32 = 512;

/// The listening sockets of one process.
#[derive(Debug)]
pub(super) struct Listeners {
    /// One per shard, all on [`Self::address`]; the kernel distributes connections over them.
    pub sockets: Vec<TcpListener>,
    /// Address for clients, with the port that the kernel chose for port 0.
    pub address: SocketAddr,
}

/// Opens one listener per shard.
pub(super) fn bind(config: &Config, shards: usize) -> Result<Listeners> {
    let failed = |error| cannot_listen(Port::Clients, config.listen, &error);
    // With SO_REUSEPORT alone, a second gateway would start and silently take half of the clients. So the
    // first socket claims the port without it, which only one process can do. Once that socket listens, it
    // lets the others join.
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

/// Opens the listener for calls from other servers. There is one, because one shard accepts.
pub(super) fn bind_rpc(address: SocketAddr) -> Result<TcpListener> {
    patiently(|| listen(address, false, RPC_BACKLOG))
        .map(TcpListener::from)
        .map_err(|error| cannot_listen(Port::Rpc, address, &error))
}

/// Tries again while the port is in use: after a process is killed, the kernel closes its io_uring and its
/// sockets with a delay.
fn patiently(listen: impl Fn() -> io::Result<Socket>) -> io::Result<Socket> {
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

/// Purpose of a port.
enum Port {
    Clients,
    Rpc,
}

fn cannot_listen(port: Port, address: SocketAddr, error: &io::Error) -> Error {
    // The other servers dial the port in servers.json, so another port needs a change there.
    let (what, other_port, other_host) = match port {
        Port::Clients => (
            "",
            "choose another --listen or clientPort",
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
    use super::super::host::tests::text;
    use super::*;
    use rustix::io::Errno;
    use std::io::Write;
    use std::sync::atomic::{AtomicU32, Ordering};

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
    fn a_listener_for_calls_opens_right_after_the_last_one_closed() {
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
