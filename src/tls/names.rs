//! The choice of a certificate by the name that a client asks for (SNI), and by the kinds of keys that it knows.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Certificate;

/// The certificates of a gateway by their names. A client that asks for no name, or for one that nobody has, may get each of
/// them. Of those for a client it gets the first whose kind of key it knows.
#[derive(Debug)]
pub(super) struct CertificatesByName {
    /// At least one.
    all: Vec<Arc<CertifiedKey>>,
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl CertificatesByName {
    /// Collects the names of certificates.
    pub(super) fn new(certificates: &[Certificate]) -> Result<Self, String> {
        if certificates.is_empty() {
            return Err(
                "tls.certificates: a listener takes TLS, and there is no certificate".into(),
            );
        }
        let mut by_name = HashMap::<String, Vec<_>>::new();
        for certificate in certificates {
            for name in certificate.names() {
                let of_name = by_name.entry(name.clone()).or_default();
                of_name.push(certificate.key().clone());
            }
        }
        let all = certificates.iter().map(|one| one.key().clone());
        Ok(Self {
            all: all.collect(),
            by_name,
        })
    }

    /// Returns the certificate for a client that asks for this name, and knows keys that are `known`. If it knows none of them,
    /// the handshake fails with the certificate that is returned.
    fn find(
        &self,
        name: Option<&str>,
        known: impl Fn(&CertifiedKey) -> bool,
    ) -> &Arc<CertifiedKey> {
        let name = name.map(str::to_lowercase).unwrap_or_default();
        let parent = name
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"));
        let names = [Some(name), parent].into_iter().flatten();
        let of_name: Vec<_> = names
            .filter_map(|name| self.by_name.get(&name))
            .flatten()
            .collect();
        let candidates = match of_name.is_empty() {
            true => self.all.iter().collect(),
            false => of_name,
        };
        let found = candidates.iter().find(|key| known(key));
        found.unwrap_or(&candidates[0])
    }
}

impl ResolvesServerCert for CertificatesByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let known = |key: &CertifiedKey| key.key.choose_scheme(schemes).is_some();
        Some(self.find(hello.server_name(), known).clone())
    }
}

/// Returns the certificates that no client gets: earlier ones have each of their names, and the same kind of key.
pub(super) fn unused(certificates: &[Certificate]) -> Vec<&Certificate> {
    let schemes = ring::default_provider()
        .signature_verification_algorithms
        .supported_schemes();
    let kind = |one: &Certificate| {
        let signer = one.key().key.choose_scheme(&schemes);
        signer.map(|signer| signer.scheme())
    };
    let is_unused = |(index, one): &(usize, &Certificate)| {
        let earlier = certificates[..*index].iter();
        let earlier: Vec<_> = earlier.filter(|other| kind(other) == kind(one)).collect();
        let is_earlier = |name| earlier.iter().any(|other| other.names().contains(name));
        !earlier.is_empty() && one.names().iter().all(is_earlier)
    };
    let found = certificates.iter().enumerate().filter(is_unused);
    found.map(|(_, one)| one).collect()
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
            let found = by_name.find(Some(name), |_| true);
            assert!(Arc::ptr_eq(found, certificates[expected].key()), "{name}");
        }
        assert!(Arc::ptr_eq(
            by_name.find(None, |_| true),
            certificates[0].key()
        ));
    }

    #[test]
    fn of_the_certificates_for_a_client_it_gets_the_first_with_a_key_that_it_knows() {
        let names = ["alone", "server", "server", "wildcard"];
        let certificates = names.map(|name| read(name).expect(name));
        let by_name = CertificatesByName::new(&certificates).expect("four certificates");
        for (name, known, expected) in [
            (Some("game.example"), &[1, 2][..], 1),
            (Some("game.example"), &[0, 2, 3], 2),
            // It would refuse the certificate of another name.
            (Some("game.example"), &[0, 3], 1),
            (Some("game.example"), &[], 1),
            (Some("nobody.example"), &[2, 3], 2),
            (None, &[3], 3),
            (None, &[], 0),
        ] {
            let is_known = |key: &CertifiedKey| {
                let is_it = |index: &usize| std::ptr::eq(&**certificates[*index].key(), key);
                known.iter().any(is_it)
            };
            let found = by_name.find(name, is_known);
            assert!(
                Arc::ptr_eq(found, certificates[expected].key()),
                "{name:?} {known:?}"
            );
        }
        let error = CertificatesByName::new(&[]).unwrap_err();
        assert!(error.contains("there is no certificate"), "{error}");
    }

    #[test]
    fn a_certificate_is_unused_where_earlier_ones_have_its_names_and_its_kind_of_key() {
        let read = |name: &&str| read(name).expect("a vector");
        for (names, expected) in [
            (&["server", "alone", "wildcard"][..], &[][..]),
            (&["server", "alone", "server"], &[2]),
            // A client that asks for no name, or for an address, gets the first.
            (&["nameless", "server", "nameless"], &[2]),
        ] {
            let certificates: Vec<_> = names.iter().map(read).collect();
            let unused = unused(&certificates);
            let is_it = |index: &usize| std::ptr::eq(unused[0], &raw const certificates[*index]);
            assert_eq!(unused.len(), expected.len(), "{names:?}");
            assert!(expected.iter().all(is_it), "{names:?}");
        }
    }
}
