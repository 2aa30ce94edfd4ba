//! A certificate with its key: its names, its dates, its chain.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::files;

/// A certificate ends soon in the last quarter of its time, and not earlier than this before its end. Renewal tools act when
/// a third is left, so a renewal has failed for days then.
const ENDS_SOON_MAX: Duration = Duration::from_secs(21 * 24 * 3600);

/// A certificate in use.
#[derive(Debug)]
pub(crate) struct Certificate {
    key: Arc<CertifiedKey>,
    /// The names that it is for, in lower case.
    names: Vec<String>,
    /// The IP addresses that it is for.
    addresses: Vec<IpAddr>,
    expiry: Expiry,
}

/// Begin and end of the validity of a certificate.
pub(crate) type Validity = (SystemTime, SystemTime);

/// The end of the validity of a certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// The file.
    pub(crate) file: String,
    pub(crate) valid: Validity,
    /// Validity of the further certificates in the file. Clients may need them or not. `None` for one that tangelo cannot read.
    pub(crate) further: Vec<Option<Validity>>,
}

impl Expiry {
    /// Returns a warning where a certificate of the file is not valid now, or ends soon.
    pub(super) fn warning(&self, now: SystemTime) -> Option<CertificateStatus> {
        let file = &self.file;
        if let Some(text) = invalid(self.valid, now) {
            return Some(CertificateStatus::Invalid(format!("{file} {text}")));
        }
        let further = |test: fn(Validity, SystemTime) -> Option<String>| {
            let mut further = self.further.iter().enumerate();
            let found = further.find_map(|(index, valid)| Some((index, test((*valid)?, now)?)));
            found.map(|(index, text)| {
                let place = place(index + 1);
                format!(
                    "the {place} certificate in {file} {text}: renew the file, or remove that one if clients do not need it"
                )
            })
        };
        let first = || {
            let text = ends_soon(self.valid, now)?;
            Some(format!("{file} {text}: look after its renewal"))
        };
        let warning = further(invalid).or_else(first);
        let warning = warning.or_else(|| further(ends_soon));
        warning.map(CertificateStatus::Warning)
    }

    /// Returns the begin of the validity, if that is later than now.
    pub(super) fn valid_from(&self, now: SystemTime) -> Option<SystemTime> {
        let (from, _) = self.valid;
        (from > now).then_some(from)
    }

    /// Returns the end of the validity in seconds since 1970.
    pub(crate) fn seconds(&self) -> u64 {
        let (_, until) = self.valid;
        let since = until.duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    }
}

/// Returns the end of a certificate as a text, if that is soon.
fn ends_soon((from, until): Validity, now: SystemTime) -> Option<String> {
    let validity = until.duration_since(from).unwrap_or_default();
    let left = until.duration_since(now).unwrap_or_default();
    let is_soon = left < ENDS_SOON_MAX.min(validity / 4);
    is_soon.then(|| format!("expires soon, on {}", date(until)))
}

/// Returns the reason why a certificate is not valid now.
fn invalid((from, until): Validity, now: SystemTime) -> Option<String> {
    if until <= now {
        return Some(format!("has expired on {}", date(until)));
    }
    (from > now).then(|| format!("is valid from {} on only", date(from)))
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (valid until {})", self.file, date(self.valid.1))
    }
}

/// Returns a word for the place of a certificate in its file.
fn place(index: usize) -> String {
    match ["first", "second", "third", "fourth"].get(index) {
        Some(word) => (*word).into(),
        None => format!("{}th", index + 1),
    }
}

/// The status of a certificate, with a text for operators.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CertificateStatus {
    /// Clients accept it.
    Valid(String),
    /// They accept it now, or most of them do.
    Warning(String),
    /// They do not accept it.
    Invalid(String),
}

impl Certificate {
    /// Reads a chain, the certificate of this server first, and its key.
    pub(super) fn read(
        chain: &Path,
        key: &Path,
        provider: &CryptoProvider,
    ) -> Result<Self, String> {
        let file = chain.display().to_string();
        let certificates = files::read_chain(chain)?;
        let private = files::read_key(key, provider)?;
        let names = names(&certificates[0]).map_err(|error| format!("{file}: {error}"))?;
        let parsed = x509_cert::Certificate::from_der(&certificates[0]);
        let parsed = parsed.map_err(|error| format!("{file}: not a certificate: {error}"))?;
        // Clients look at the further ones, and tangelo need not be able to.
        let further = certificates[1..].iter().map(|one| {
            let parsed = x509_cert::Certificate::from_der(one);
            parsed.ok().map(|parsed| validity(&parsed))
        });
        let further = further.collect();
        let key_of = CertifiedKey::new(certificates, private);
        key_of.keys_match().map_err(|_| {
            format!(
                "the key in {} does not belong to the certificate in {file}",
                key.display()
            )
        })?;
        Ok(Self {
            key: Arc::new(key_of),
            names,
            addresses: addresses(&parsed),
            expiry: Expiry {
                file,
                valid: validity(&parsed),
                further,
            },
        })
    }

    /// Returns the certificate with its key.
    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// Returns the names that it is for, in lower case; `*.` stands for one label.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the end of its validity.
    pub(super) fn expiry(&self) -> &Expiry {
        &self.expiry
    }

    /// Checks its names, its dates and its chain, as a client would that trusts one of the further certificates.
    pub(super) fn check(&self) -> CertificateStatus {
        let file = &self.expiry.file;
        let addresses = self.addresses.iter().map(IpAddr::to_string);
        let names: Vec<String> = self.names.iter().cloned().chain(addresses).collect();
        if names.is_empty() {
            return CertificateStatus::Invalid(format!(
                "{file} has no name and no address (subjectAltName), and browsers accept nothing else as a name"
            ));
        }
        let warning = match self.expiry.warning(now()) {
            Some(invalid @ CertificateStatus::Invalid(_)) => return invalid,
            warning => warning,
        };
        let stray = match self.check_chain() {
            Ok(stray) => stray,
            Err(error) => {
                return CertificateStatus::Invalid(format!("{file}: its chain is broken: {error}"));
            }
        };
        if let Some(warning) = warning {
            return warning;
        }
        if let Some(stray) = stray {
            let place = place(stray);
            return CertificateStatus::Warning(format!(
                "the {place} certificate in {file} has not signed one before it: remove it, or put it behind that one"
            ));
        }
        let (names, until) = (names.join(", "), date(self.expiry.valid.1));
        let known = format!("{file}: {names}, valid until {until}");
        CertificateStatus::Valid(match self.key.cert.len() - 1 {
            0 => format!(
                "{known}; without further certificates, so a client must know the one that signed it"
            ),
            more => format!("{known}, with {more} further certificates"),
        })
    }

    /// Checks that the first certificate leads to one of the further ones, over those between. Returns the place of the first
    /// one to which it does not lead.
    fn check_chain(&self) -> Result<Option<usize>, webpki::Error> {
        let Some((first, rest)) = self.key.cert.split_first() else {
            return Ok(None);
        };
        let paths = rest.iter().enumerate();
        let paths = paths.map(|(index, trusted)| check_path(first, &rest[..index], trusted));
        let paths: Vec<Result<(), webpki::Error>> = paths.collect();
        if let Some(Err(error)) = paths.last()
            && paths.iter().all(Result::is_err)
        {
            return Err(error.clone());
        }
        let stray = paths.iter().position(Result::is_err);
        Ok(stray.map(|index| index + 1))
    }
}

/// Checks a certificate as a client would that trusts another one.
fn check_path(
    certificate: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    trusted: &CertificateDer<'_>,
) -> Result<(), webpki::Error> {
    let anchor = anchor_from_trusted_cert(trusted)?;
    let certificate = EndEntityCert::try_from(certificate)?;
    certificate
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &[anchor],
            between,
            UnixTime::now(),
            KeyUsage::server_auth(),
            None,
            None,
        )
        .map(drop)
}

fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let parsed = EndEntityCert::try_from(certificate);
    let parsed = parsed.map_err(|error| format!("not a certificate of a server: {error}"))?;
    Ok(parsed.valid_dns_names().map(str::to_lowercase).collect())
}

fn addresses(certificate: &x509_cert::Certificate) -> Vec<IpAddr> {
    let Ok(Some((_, names))) = certificate.tbs_certificate.get::<SubjectAltName>() else {
        return Vec::new();
    };
    let addresses = names.0.iter().filter_map(|name| match name {
        GeneralName::IpAddress(bytes) => match *bytes.as_bytes() {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
            ref bytes => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        },
        _ => None,
    });
    addresses.collect()
}

/// Returns the begin and the end of the validity of a certificate.
fn validity(certificate: &x509_cert::Certificate) -> Validity {
    let validity = &certificate.tbs_certificate.validity;
    let (from, until) = (validity.not_before, validity.not_after);
    (from.to_system_time(), until.to_system_time())
}

#[allow(
    clippy::disallowed_methods,
    reason = "dates of certificates are those of the wall clock"
)]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

fn date(time: SystemTime) -> String {
    let stamp = jiff::Timestamp::try_from(time);
    stamp.map_or_else(
        |_| "a date out of range".into(),
        |stamp| stamp.strftime("%Y-%m-%d").to_string(),
    )
}

/// Certificates of `tests/vectors/tls/`.
#[cfg(test)]
pub(super) mod vectors {
    use super::super::files::vectors::path;
    use super::*;

    pub(crate) fn read(name: &str) -> Result<Certificate, String> {
        read_pair(&path(&format!("{name}.pem")), &path(&format!("{name}.key")))
    }

    pub(crate) fn read_pair(chain: &Path, key: &Path) -> Result<Certificate, String> {
        Certificate::read(chain, key, &rustls::crypto::ring::default_provider())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::NamedTempFile;

    use super::super::files::vectors::path;
    use super::vectors::{read as read_vector, read_pair};
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn checked(certificate: &Certificate) -> (&'static str, String) {
        match certificate.check() {
            CertificateStatus::Valid(text) => ("valid", text),
            CertificateStatus::Warning(text) => ("warning", text),
            CertificateStatus::Invalid(text) => ("invalid", text),
        }
    }

    #[test]
    fn files_that_do_not_fit_are_told_by_their_names() {
        for (chain, key, expected) in [
            (
                "server.pem",
                "alone.key",
                &[
                    "alone.key does not belong to the certificate in",
                    "server.pem",
                ][..],
            ),
            (
                "server.pem",
                "ca.pem",
                &["ca.pem has no private key of the PEM format"],
            ),
            (
                "server.key",
                "server.key",
                &["server.key has no certificate of the PEM format"],
            ),
            (
                "README.md",
                "server.key",
                &["README.md has no certificate of the PEM format"],
            ),
            ("none.pem", "server.key", &["cannot read", "none.pem"]),
            ("server.pem", "none.key", &["cannot read", "none.key"]),
        ] {
            let error = read_pair(&path(chain), &path(key)).unwrap_err();
            for part in expected {
                assert!(error.contains(part), "{error}");
            }
            assert!(!error.contains("-----"), "{error}");
        }
        let file = NamedTempFile::new().expect("a folder for temporary files");
        let good = fs::read_to_string(path("server.pem")).expect("a vector");
        for text in ["", &good[..good.len() / 4], &good.replace('M', "N")] {
            fs::write(&file, text).expect("a folder for temporary files");
            assert!(
                read_pair(file.path(), &path("server.key")).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn the_names_are_those_of_subject_alt_name_alone() {
        let names = |name| read_vector(name).expect("a vector").names().to_vec();
        assert_eq!(names("server"), ["game.example", "localhost"]);
        assert_eq!(names("wildcard"), ["*.play.example"]);
        let nameless = read_vector("nameless").expect("a vector");
        assert!(nameless.names().is_empty());
        let (kind, text) = checked(&nameless);
        assert_eq!(kind, "invalid");
        assert!(
            text.contains("has no name and no address (subjectAltName)"),
            "{text}"
        );
    }

    #[test]
    fn the_status_of_a_certificate_follows_its_dates() {
        let mut certificate = read_vector("server").expect("a vector");
        let (kind, text) = checked(&certificate);
        assert_eq!(kind, "valid", "{text}");
        assert!(
            text.contains(": game.example, localhost, valid until 2126-11-04, with 1 further"),
            "{text}"
        );
        for (from, until, kind, expected) in [
            (-DAY.as_secs_f64(), -1.0, "invalid", "has expired on"),
            (60.0, 1e7, "invalid", "is valid from"),
            (
                -1e7,
                DAY.as_secs_f64() * 20.5,
                "warning",
                "expires soon, on",
            ),
            (-1e7, DAY.as_secs_f64() * 21.5, "valid", "valid until"),
            (-300.0, 90.0, "warning", "expires soon, on"),
            (-200.0, 90.0, "valid", "valid until"),
        ] {
            let at = |seconds: f64| match seconds < 0.0 {
                true => now() - Duration::from_secs_f64(-seconds),
                false => now() + Duration::from_secs_f64(seconds),
            };
            certificate.expiry.valid = (at(from), at(until));
            let (found, text) = checked(&certificate);
            assert_eq!(found, kind, "{text}");
            assert!(text.contains(expected), "{text}");
        }
        certificate.expiry.valid.1 = UNIX_EPOCH + Duration::from_secs(5);
        assert_eq!(certificate.expiry().seconds(), 5);
        let text = certificate.expiry().to_string();
        assert!(
            text.ends_with("server.pem (valid until 1970-01-01)"),
            "{text}"
        );
    }

    /// Clients may not need it, so the new certificate in front of it counts.
    #[test]
    fn a_further_certificate_that_has_expired_or_ends_soon_is_a_warning_and_no_end() {
        let mut certificate = read_vector("server").expect("a vector");
        let until = certificate.expiry().seconds();
        for (end, expected) in [
            (now() - DAY, "has expired on"),
            (now() + DAY, "expires soon"),
        ] {
            // One before it cannot be read.
            certificate.expiry.further = vec![None, Some((now() - 9 * DAY, end))];
            let (kind, text) = checked(&certificate);
            assert_eq!(kind, "warning", "{text}");
            assert!(
                text.starts_with("the third certificate in ") && text.contains(expected),
                "{text}"
            );
            assert_eq!(certificate.expiry().seconds(), until);
            assert_eq!(certificate.expiry().valid_from(now()), None);
        }
    }

    #[test]
    fn a_chain_must_lead_to_a_further_certificate() {
        let (kind, text) = checked(&read_vector("alone").expect("a vector"));
        assert_eq!(kind, "valid");
        assert!(text.contains("without further certificates"), "{text}");
        // The certificate of somebody else in place of the one that signed.
        let file = NamedTempFile::new().expect("a folder for temporary files");
        let of = |name| fs::read_to_string(path(name)).expect("a vector");
        let leaf = of("server.pem").replace(&of("ca.pem"), "");
        fs::write(&file, leaf + &of("alone.pem")).expect("a folder for temporary files");
        let broken = read_pair(file.path(), &path("server.key"));
        let (kind, text) = checked(&broken.expect("key and certificate fit"));
        assert_eq!(kind, "invalid");
        assert!(text.contains("its chain is broken: "), "{text}");
    }
}
