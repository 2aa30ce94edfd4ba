//! TLS: certificates and their names, keys of tickets, the settings of rustls that follow from them, and their reload.
//!
//! **Invariants**: no early data (0-RTT), because an attacker can send it twice; no tickets where clients are asked for
//! certificates, because a continued session shows none; a file that cannot be used changes nothing; open sessions and
//! tickets outlive a reload.
//!
//! **Absent**: records, which [`crate::net::tls`] has.
//!
//! **Where to start reading**: [`TlsSettings::load`].

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerConfig, VerifierBuilderError,
    WebPkiClientVerifier,
};
use rustls::version::{TLS12, TLS13};

use crate::config::{ClientCertificates, Config, TlsVersion};

mod certificate;
mod files;
mod names;
mod revoked;
mod tickets;
mod watch;

use certificate::Certificate;
pub(crate) use certificate::{CertificateStatus, Expiry};
pub(crate) use watch::{Watching, start};

use names::CertificatesByName;
use tickets::TicketKeys;

/// The settings of new TLS connections. Shards read them without a lock.
#[derive(Debug)]
pub(crate) struct TlsSettings {
    /// For clients.
    clients: ArcSwap<ServerConfig>,
    /// For other servers, on `rpc.tls_listen`.
    servers: Option<ArcSwap<ServerConfig>>,
    /// The certificates in use, and when they end.
    expiries: Expiries,
    /// Sessions of these tickets are continued, unless `tls.ticket_keys` names a file.
    own_tickets: Arc<dyn ProducesTickets>,
    /// Number of times that [`TlsSettings::read_again`] was called. Written by the thread of the reloads, read by the
    /// thread that follows the files.
    asked: AtomicU64,
}

/// The certificates of a process that are in use, and when they end.
pub(crate) type Expiries = Arc<ArcSwap<Vec<Expiry>>>;

/// The reason why files that have changed are not used.
struct ReloadError {
    text: String,
    /// The time from which they can be used: the begin of a certificate.
    valid_from: Option<SystemTime>,
}

impl From<String> for ReloadError {
    fn from(text: String) -> Self {
        let valid_from = None;
        Self { text, valid_from }
    }
}

/// All that the files and keys say.
struct Loaded {
    clients: Arc<ServerConfig>,
    servers: Option<Arc<ServerConfig>>,
    certificates: Vec<Certificate>,
}

impl TlsSettings {
    /// Reads all files of `[tls]`. `None` where no listener takes TLS.
    ///
    /// Errors: a text with the key and the file that cannot be used.
    pub(crate) fn load(config: &Config) -> Result<Option<Arc<Self>>, String> {
        if !config.uses_tls() {
            return Ok(None);
        }
        let own_tickets = own_tickets()?;
        let loaded = Loaded::read(config, &own_tickets)?;
        Ok(Some(Arc::new(Self {
            expiries: Arc::new(ArcSwap::from_pointee(loaded.expiries())),
            clients: ArcSwap::new(loaded.clients),
            servers: loaded.servers.map(ArcSwap::new),
            own_tickets,
            asked: AtomicU64::new(0),
        })))
    }

    /// Has the files read again, whether they have changed or not.
    pub(crate) fn read_again(&self) {
        self.asked.fetch_add(1, Ordering::Release);
    }

    /// Reads all files again. With an error everything stays as it was. A new certificate whose dates are wrong is one.
    fn reload(&self, config: &Config, now: SystemTime) -> Result<(), ReloadError> {
        let loaded = self.read(config, now)?;
        self.expiries.store(Arc::new(loaded.expiries()));
        self.clients.store(loaded.clients);
        if let (Some(servers), Some(config)) = (&self.servers, loaded.servers) {
            servers.store(config);
        }
        Ok(())
    }

    /// Checks whether a reload with this configuration would succeed now.
    pub(crate) fn check(&self, config: &Config) -> Result<(), String> {
        let read = self.read(config, certificate::now());
        read.map(drop).map_err(|error| error.text)
    }

    fn read(&self, config: &Config, now: SystemTime) -> Result<Loaded, ReloadError> {
        let loaded = Loaded::read(config, &self.own_tickets)?;
        // One that is in use already must not keep the renewal of others out.
        let in_use = self.expiries.load();
        let new = loaded.certificates.iter().map(Certificate::expiry);
        for new in new.filter(|one| !in_use.contains(one)) {
            if let Some(CertificateStatus::Invalid(text)) = new.warning(now) {
                let valid_from = new.valid_from(now);
                return Err(ReloadError { text, valid_from });
            }
        }
        Ok(loaded)
    }

    /// Returns the settings for a new client.
    pub(crate) fn for_client(&self) -> Arc<ServerConfig> {
        self.clients.load_full()
    }

    /// Returns the settings for another server that connects.
    pub(crate) fn for_server(&self) -> Option<Arc<ServerConfig>> {
        self.servers.as_ref().map(ArcSwap::load_full)
    }

    /// Returns the certificates in use, and when they end.
    pub(crate) fn expiries(&self) -> &Expiries {
        &self.expiries
    }
}

/// Reads all files of `[tls]`, and checks the certificates as clients would, for `tangelo check`.
///
/// Errors: as [`TlsSettings::load`].
pub(crate) fn check_files(config: &Config) -> Result<Vec<CertificateStatus>, String> {
    let Loaded { certificates, .. } = Loaded::read(config, &own_tickets()?)?;
    let unused = names::unused(&certificates).into_iter().map(|one| {
        let file = &one.expiry().file;
        CertificateStatus::Warning(format!(
            "{file} is not used: clients that ask for one of its names, or for none, get an earlier certificate with the same kind of key"
        ))
    });
    let checked = certificates.iter().map(Certificate::check);
    Ok(checked.chain(unused).collect())
}

/// Makes the keys of tickets that a process has for itself.
fn own_tickets() -> Result<Arc<dyn ProducesTickets>, String> {
    ring::Ticketer::new().map_err(|error| error.to_string())
}

fn read_certificates(
    config: &Config,
    provider: &CryptoProvider,
) -> Result<Vec<Certificate>, String> {
    let listed = config.tls.certificates.iter().enumerate();
    let certificates = listed.map(|(index, files)| {
        Certificate::read(&files.chain, &files.key, provider)
            .map_err(|error| format!("tls.certificates[{index}]: {error}"))
    });
    certificates.collect()
}

impl Loaded {
    fn read(config: &Config, own_tickets: &Arc<dyn ProducesTickets>) -> Result<Self, String> {
        let tls = &config.tls;
        let provider = Arc::new(ring::default_provider());
        let certificates = read_certificates(config, &provider)?;
        let names = Arc::new(CertificatesByName::new(&certificates)?);
        let tickets: Arc<dyn ProducesTickets> = match &tls.ticket_keys {
            Some(path) => Arc::new(
                TicketKeys::read(path).map_err(|error| format!("tls.ticket_keys: {error}"))?,
            ),
            None => own_tickets.clone(),
        };
        let is_optional = tls.client_certificates == ClientCertificates::Optional;
        let client_ca = tls.client_ca.as_ref();
        let client_ca = client_ca.filter(|_| tls.client_certificates != ClientCertificates::Off);
        let client_verifier = client_ca.map(|path| {
            let ca = ("tls.client_ca", path);
            let crl = tls.client_crl.as_ref().map(|path| ("tls.client_crl", path));
            verifier(ca, crl, is_optional, &provider)
        });
        let client_verifier = client_verifier.transpose()?;
        let settings = |verifier: Option<_>| {
            let asks_for_certificates = verifier.is_some();
            let mut settings = server_config(&provider, tls.min_version, verifier, names.clone())?;
            // A continued session shows no certificate, and its ticket may come from a listener that asks for none.
            if !asks_for_certificates {
                settings.ticketer = tickets.clone();
            }
            Ok::<_, String>(settings)
        };
        let servers = match (&config.rpc.tls_listen, &config.rpc.tls_ca) {
            (Some(_), Some(path)) => {
                let ca = ("rpc.tls_ca", path);
                let crl = config.rpc.tls_crl.as_ref();
                let crl = crl.map(|path| ("rpc.tls_crl", path));
                let verifier = verifier(ca, crl, false, &provider)?;
                Some(Arc::new(settings(Some(verifier))?))
            }
            _ => None,
        };
        let mut clients = settings(client_verifier)?;
        clients.alpn_protocols = tls.alpn.iter().map(|name| name.clone().into()).collect();
        Ok(Self {
            clients: Arc::new(clients),
            servers,
            certificates,
        })
    }

    fn expiries(&self) -> Vec<Expiry> {
        let expiries = self.certificates.iter().map(Certificate::expiry);
        expiries.cloned().collect()
    }
}

/// Makes the settings of rustls. It offers no cipher without forward secrecy and authentication.
fn server_config(
    provider: &Arc<CryptoProvider>,
    min_version: TlsVersion,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    names: Arc<CertificatesByName>,
) -> Result<ServerConfig, String> {
    let versions = match min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12][..],
        TlsVersion::Tls13 => &[&TLS13][..],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?;
    let mut settings = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(names);
    // Tickets continue sessions on all shards; a store would be shared by them.
    settings.session_storage = Arc::new(NoServerSessionStorage {});
    settings.max_early_data_size = 0;
    Ok(settings)
}

/// Makes the check of certificates that clients present, by the files of authorities and of revoked certificates. Each has the
/// name of its key.
fn verifier(
    (ca_key, ca): (&str, &PathBuf),
    crl: Option<(&str, &PathBuf)>,
    is_optional: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let in_ca = |error: &dyn Display| format!("{ca_key}: {}: {error}", ca.display());
    let mut roots = RootCertStore::empty();
    let authorities = files::read_chain(ca).map_err(|error| format!("{ca_key}: {error}"))?;
    for certificate in &authorities {
        roots
            .add(certificate.clone())
            .map_err(|error| in_ca(&error))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    if is_optional {
        builder = builder.allow_unauthenticated();
    }
    if let Some((key, path)) = crl {
        let lists = files::read_crls(path).map_err(|error| format!("{key}: {error}"))?;
        revoked::check(&authorities, &lists)
            .map_err(|error| format!("{key}: {}: {error}", path.display()))?;
        builder = builder.with_crls(lists);
    }
    builder.build().map_err(|error| match crl {
        Some((key, path)) if matches!(error, VerifierBuilderError::InvalidCrl(_)) => {
            format!("{key}: {}: {error}", path.display())
        }
        _ => in_ca(&error),
    })
}
