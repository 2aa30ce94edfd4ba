//! Connections to other servers.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use super::Network;
use super::blocking;
use super::socket::Socket;

/// The reason why a connection failed.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The timeout passed.
    Timeout,
    /// Name resolution or connecting failed.
    Io(io::Error),
}

/// Looks up a name and connects to its first address, both together within `timeout`.
pub(crate) async fn dial(
    host: &str,
    port: u16,
    timeout: impl Future<Output = ()>,
    network: &Network,
) -> Result<Socket, DialError> {
    let poller = match network {
        Network::Kernel(poller) => poller,
        Network::Memory(place) => {
            let side = place.servers.connect(host, port).map_err(DialError::Io)?;
            return Ok(Socket::memory(side));
        }
    };
    let connected = async {
        let address = resolve(host, port).await.map_err(DialError::Io)?;
        Socket::connect(address, poller)
            .await
            .map_err(DialError::Io)
    };
    let late = async {
        timeout.await;
        Err(DialError::Timeout)
    };
    futures_lite::future::or(late, connected).await
}

async fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let addresses = addresses(host).await?;
    let first = addresses.first().copied();
    let first = first.ok_or_else(|| io::Error::other("the name has no address"))?;
    Ok(SocketAddr::new(first, port))
}

/// Returns all addresses of a name, or the address that it is itself.
pub(crate) async fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    // The resolver blocks, so it must not run on a shard.
    let name = host.to_owned();
    let ask = move || {
        (name, 0)
            .to_socket_addrs()
            .map(|found| found.map(|a| a.ip()).collect())
    };
    blocking::run("resolver", ask).await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::poller::Poller;
    use std::rc::Rc;
    use std::time::Duration;

    #[test]
    fn the_timeout_of_a_dial_begins_before_the_look_up_of_its_name() {
        let poller = Rc::new(Poller::new(&Default::default(), Duration::ZERO).unwrap());
        let (network, timeout) = (Network::Kernel(poller), std::future::ready(()));
        let dialled = dial("no\0name", 1, timeout, &network);
        let dialled = futures_lite::future::block_on(dialled);
        assert!(matches!(dialled, Err(DialError::Timeout)), "{dialled:?}");
    }
}
