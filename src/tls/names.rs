//! The choice of a certificate by the name that a client asks for (SNI).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Certificate;

/// The certificates of a gateway by their names. A client that asks for no name, or for one that nobody has, gets the first.
#[derive(Debug)]
pub(super) struct CertificatesByName {
    first: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl CertificatesByName {
    /// Collects the names of certificates. Of two with the same name the first counts.
    pub(super) fn new(certificates: &[Certificate]) -> Result<Self, String> {
        let first = certificates
            .first()
            .ok_or("tls.certificates: a listener takes TLS, and there is no certificate")?;
        let mut by_name = HashMap::new();
        for certificate in certificates {
            for name in certificate.names() {
                by_name
                    .entry(name.clone())
                    .or_insert_with(|| certificate.key().clone());
            }
        }
        Ok(Self {
            first: first.key().clone(),
            by_name,
        })
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.to_lowercase();
        let exact = self.by_name.get(&name);
        let by_parent = || {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        };
        exact.or_else(by_parent).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for CertificatesByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let key = hello.server_name().map(|name| self.find(name));
        Some(key.unwrap_or(&self.first).clone())
    }
}
