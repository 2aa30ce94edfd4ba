//! Both sides of TLS with the certificates of `tests/vectors/tls/`, for tests and fuzz targets.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion,
};

const CHAIN: &[u8] = include_bytes!("../../../tests/vectors/tls/server.pem");
const KEY: &[u8] = include_bytes!("../../../tests/vectors/tls/server.key");
const CA: &[u8] = include_bytes!("../../../tests/vectors/tls/ca.pem");

/// Returns the settings of a server that is `game.example`.
pub fn server_config() -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(CHAIN).map(|one| one.expect("a certificate"));
    let key = PrivateKeyDer::from_pem_slice(KEY).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(chain.collect(), key);
    Arc::new(config.expect("the key of the certificate"))
}

/// Returns the settings of a client that trusts it.
pub fn client_config(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(CA).expect("a certificate");
    roots.add(ca).expect("a certificate that signs");
    let config = ClientConfig::builder_with_protocol_versions(versions);
    config.with_root_certificates(roots).with_no_client_auth()
}

/// Returns a session of this client with `game.example`.
pub fn client(config: impl Into<Arc<ClientConfig>>) -> ClientConnection {
    let name = "game.example".try_into().expect("a name");
    ClientConnection::new(config.into(), name).expect("a client")
}
