//! TLS of the clients, and the two servers that end it: the gateway itself, or HAProxy in front of the gateway.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::process::{Process, sessions_max};

const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The server that ends TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tls {
    /// None: the clients speak without TLS
    Off,
    /// The gateway
    Gateway,
    /// HAProxy, in front of the gateway
    Haproxy,
}

/// An address, and the TLS in which to speak to it.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    pub(crate) address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Dial {
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// Begins TLS on a connected socket that blocks, if it is to have TLS.
    pub(crate) fn wrap(&self, tcp: TcpStream) -> io::Result<Connection> {
        let Some(config) = &self.tls else {
            return Ok(Connection::Plain(tcp));
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        let mut stream = Box::new(StreamOwned::new(session, tcp));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Connection::Tls(stream))
    }
}

/// A connection of a client.
pub(crate) enum Connection {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl From<TcpStream> for Connection {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A certificate for one run, in a folder that goes with it.
pub(crate) struct Certificate {
    folder: TempDir,
}

impl Certificate {
    /// Makes one with a key of the curve P-256.
    pub(crate) fn make() -> io::Result<Self> {
        let certificate = Self {
            folder: tempfile::tempdir()?,
        };
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(certificate.key())
            .arg("-out")
            .arg(certificate.chain())
            .output()?;
        match made.status.success() {
            true => Ok(certificate),
            false => Err(io::Error::other("openssl cannot make a certificate")),
        }
    }

    fn chain(&self) -> PathBuf {
        self.folder.path().join("chain.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// The arguments of a gateway that takes TLS.
    pub(crate) fn gateway_args(&self) -> [String; 4] {
        let listener = "listener=[{address='127.0.0.1:0', tls='required'}]";
        let files = format!(
            "tls.certificates=[{{chain='{}', key='{}'}}]",
            self.chain().display(),
            self.key().display()
        );
        ["--set".into(), listener.into(), "--set".into(), files]
    }

    /// The way of a client that trusts it.
    pub(crate) fn dial(&self, address: SocketAddr) -> io::Result<Dial> {
        let text = fs::read(self.chain())?;
        let certificate = CertificateDer::from_pem_slice(&text).map_err(io::Error::other)?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Dial {
            address,
            tls: Some(Arc::new(config)),
        })
    }

    /// Starts HAProxy with one thread, which ends TLS and passes the bytes on to `server`.
    pub(crate) fn start_haproxy(&self, server: SocketAddr) -> io::Result<(Process, SocketAddr)> {
        let both = self.folder.path().join("both.pem");
        let pem = [fs::read(self.chain())?, fs::read(self.key())?].concat();
        fs::write(&both, pem)?;
        let port = free_port()?;
        let file = self.folder.path().join("haproxy.cfg");
        fs::write(&file, haproxy_config(port, &both, server))?;
        let mut command = Command::new("/usr/sbin/haproxy");
        command.args(["-db", "-f"]).arg(&file);
        let (process, _) = Process::spawn("HAProxy", &mut command)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let deadline = std::time::Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            if std::time::Instant::now() > deadline {
                return Err(io::Error::other("HAProxy does not start"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok((process, address))
    }
}

fn free_port() -> io::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}

/// The same versions as the gateway has, and timeouts that no run reaches. Each session needs two descriptors.
fn haproxy_config(port: u16, pem: &Path, server: SocketAddr) -> String {
    let sessions = sessions_max() / 2;
    format!(
        "global\n  maxconn {sessions}\n  nbthread 1\n  ssl-default-bind-options ssl-min-ver TLSv1.2\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10m\n  timeout server 10m\n\
         listen game\n  bind 127.0.0.1:{port} ssl crt {}\n  server gateway {server}\n",
        pem.display()
    )
}
