//! Connecting to another server.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use glommio::net::TcpStream;

use super::socket::Socket;

/// Why there is no connection.
#[derive(Debug)]
pub enum DialError {
    /// It took too long.
    Timeout,
    /// Name resolution or connecting failed.
    Io(io::Error),
}

/// Connects; the first address that the name has.
pub async fn dial(host: &str, port: u16, timeout: Duration) -> Result<Socket, DialError> {
    let address = resolve(host, port).await.map_err(DialError::Io)?;
    match TcpStream::connect_timeout(address, timeout).await {
        Ok(stream) => Ok(Socket::new(stream)),
        Err(glommio::GlommioError::TimedOut(_)) => Err(DialError::Timeout),
        Err(error) => match io::Error::from(error) {
            error if error.kind() == io::ErrorKind::TimedOut => Err(DialError::Timeout),
            error => Err(DialError::Io(error)),
        },
    }
}

async fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let addresses = addresses(host).await?;
    let first = addresses.first().copied();
    let first = first.ok_or_else(|| io::Error::other("the name has no address"))?;
    Ok(SocketAddr::new(first, port))
}

/// All addresses of a name, or the one that it is.
pub async fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    // Asking the resolver blocks; not on a shard.
    let name = host.to_owned();
    let ask = move || {
        (name, 0)
            .to_socket_addrs()
            .map(|found| found.map(|a| a.ip()).collect())
    };
    glommio::executor().spawn_blocking(ask).await
}
