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

#[cfg(test)]
mod tests {
    use super::super::certificate::vectors::read;
    use super::*;

    #[test]
    fn a_client_gets_the_certificate_of_the_name_that_it_asks_for_or_the_first() {
        let certificates =
            ["alone", "server", "wildcard", "nameless"].map(|name| read(name).expect(name));
        let by_name = CertificatesByName::new(&certificates).expect("four certificates");
        for (name, expected) in [
            ("alone.example", 0),
            ("game.example", 1),
            ("GAME.Example", 1),
            ("localhost", 1),
            ("a.play.example", 2),
            ("A.PLAY.EXAMPLE", 2),
            ("a.b.play.example", 0),
            ("play.example", 0),
            (".play.example", 2),
            ("*.play.example", 2),
            ("a.game.example", 0),
            ("nobody.example", 0),
            ("example", 0),
            ("", 0),
        ] {
            let found = by_name.find(name);
            assert!(Arc::ptr_eq(found, certificates[expected].key()), "{name}");
        }
    }

    #[test]
    fn of_two_certificates_with_a_name_the_first_counts_and_there_must_be_one() {
        let certificates = ["server", "server"].map(|name| read(name).expect(name));
        let by_name = CertificatesByName::new(&certificates).expect("two certificates");
        let found = by_name.find("game.example");
        assert!(Arc::ptr_eq(found, certificates[0].key()));
        let error = CertificatesByName::new(&[]).unwrap_err();
        assert!(error.contains("there is no certificate"), "{error}");
    }
}
