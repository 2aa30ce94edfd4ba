//! TLS of a client: rustls, which trusts one authority.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, RootCertStore, StreamOwned};

use crate::harness::certificates::Certificates;
use crate::harness::client::{Client, HANG_GUARD, Stream, connect, connect_unix};
use crate::harness::process::Process;

type Session = StreamOwned<ClientConnection, TcpStream>;

impl Stream for Session {
    fn socket(&self) -> &TcpStream {
        self.get_ref()
    }

    fn certificate(&self) -> Option<&[u8]> {
        Some(self.conn.peer_certificates()?.first()?)
    }
}

impl Client {
    /// Connects over TLS, as raw TCP; nothing is sent inside of it yet.
    pub(crate) fn tls(address: SocketAddr, trust: &Trust) -> Self {
        Self::raw(trust.shake_hands(connect(address)))
    }

    /// The same, and upgrades to WebSocket.
    pub(crate) fn wss(address: SocketAddr, trust: &Trust) -> Self {
        Self::upgrade(trust.shake_hands(connect(address)), address, &[])
            .unwrap_or_else(|e| panic!("waited for the WebSocket upgrade: {e}"))
    }

    /// TLS over a unix socket, behind these bytes of a proxy.
    pub(crate) fn tls_unix(path: &Path, header: &[u8], trust: &Trust) -> Self {
        let mut stream = connect_unix(path);
        stream.write_all(header).expect("an open socket");
        Self::raw(trust.shake_hands(stream))
    }

    /// Raw TCP through a program, which carries its standard input and output.
    pub(crate) fn through(program: &str, args: &[&str]) -> Self {
        let (ours, its) = UnixStream::pair().expect("two sockets");
        let copy = its.try_clone().expect("an open socket");
        Process::start_between(program, args, its.into(), copy.into());
        Self::raw(TcpStream::from(OwnedFd::from(ours)))
    }
}

/// The authority that a client trusts, and the name that it asks for.
pub(crate) struct Trust {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Trust {
    /// Trusts the authority of these certificates, and asks for `localhost`.
    pub(crate) fn of(certificates: &Certificates) -> Self {
        Self::authority(certificates.first("ca.pem"))
    }

    /// The same, and shows the certificate of this name.
    pub(crate) fn with_certificate(certificates: &Certificates, name: &str) -> Self {
        let shown = certificates.first(&format!("{name}.pem"));
        let key = PrivateKeyDer::from_pem_file(certificates.path(&format!("{name}.key")));
        let builder = Self::builder(certificates.first("ca.pem"));
        let config = builder.with_client_auth_cert(vec![shown], key.expect("a key"));
        Self::to_localhost(config.expect("a key that fits"))
    }

    /// Trusts this authority, and asks for `localhost`.
    pub(crate) fn authority(certificate: CertificateDer<'static>) -> Self {
        Self::to_localhost(Self::builder(certificate).with_no_client_auth())
    }

    fn builder(authority: CertificateDer<'static>) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        let added = roots.add(authority);
        added.expect("a certificate of an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.expect("versions that fit to the ciphers");
        builder.with_root_certificates(roots)
    }

    fn to_localhost(config: ClientConfig) -> Self {
        Self {
            config: Arc::new(config),
            name: ServerName::try_from("localhost").expect("a name"),
        }
    }

    /// Does the whole handshake.
    pub(crate) fn shake_hands(&self, mut stream: TcpStream) -> Session {
        stream.set_read_timeout(Some(HANG_GUARD)).expect("not zero");
        let session = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        let mut session = session.expect("a configuration that fits");
        while session.is_handshaking() {
            let done = session.complete_io(&mut stream);
            done.unwrap_or_else(|e| panic!("the TLS handshake: {e}"));
        }
        StreamOwned::new(session, stream)
    }
}
