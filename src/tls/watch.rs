//! The thread that reads the files of `[tls]` again when they change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{CertificateStatus, Expiry, TlsSettings};
use crate::checked::CheckedConfig;
use crate::metrics::{Counter, count_for_process};

/// Distance between two looks at the files. A change counts when the next look sees the same files, because a renewal
/// writes several of them. So new connections get a new certificate within a second.
const LOOK: Duration = Duration::from_millis(250);

/// Looks between two log lines of a certificate that ends soon, or has ended: those of a day.
const LOOKS_UNTIL_REMINDER: u64 = 24 * 3600 * 1000 / LOOK.as_millis() as u64;

/// The running thread, which ends when this is dropped.
pub(crate) struct Watching(#[allow(dead_code, reason = "dropping it ends the thread")] Sender<()>);

/// Starts the thread.
pub(crate) fn start(
    settings: Arc<TlsSettings>,
    latest: Arc<ArcSwap<CheckedConfig>>,
) -> std::io::Result<Watching> {
    let (sender, ended) = channel();
    // Before the first look: a change until then is seen.
    let seen = Seen::of(latest.load_full());
    thread::Builder::new()
        .name("certificates".into())
        .spawn(move || watch(&settings, &latest, seen, &ended))?;
    Ok(Watching(sender))
}

fn watch(
    settings: &TlsSettings,
    latest: &ArcSwap<CheckedConfig>,
    mut seen: Seen,
    ended: &Receiver<()>,
) {
    let mut last = seen.clone();
    let mut until_reminder = 0;
    while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        if until_reminder == 0 {
            settings.log_ends();
            until_reminder = LOOKS_UNTIL_REMINDER;
        }
        until_reminder -= 1;
        let config = latest.load_full();
        let now = Seen::of(config.clone());
        let is_settled = std::mem::replace(&mut last, now.clone()) == now;
        if now == seen || !is_settled {
            continue;
        }
        match settings.reload(&config) {
            Ok(()) => {
                seen = now;
                count_for_process(Counter::TlsReloads);
                let expiries = settings.expiries().load();
                let list: Vec<String> = expiries.iter().map(ToString::to_string).collect();
                tracing::info!(
                    "TLS is read again, and new connections use {}",
                    list.join(", ")
                );
                until_reminder = 0;
            }
            Err(error) => {
                // It is tried again after a further change, or SIGHUP.
                seen = now;
                count_for_process(Counter::TlsReloadsFailed);
                tracing::error!(
                    "TLS cannot be read again, and the old certificates and keys stay in use: {error}"
                );
            }
        }
    }
}

impl TlsSettings {
    /// Logs the certificates in use that have ended, or end soon.
    fn log_ends(&self) {
        for warning in self.expiries.load().iter().filter_map(Expiry::warning) {
            match warning {
                CertificateStatus::Invalid(text) => tracing::error!("{text}: clients refuse it"),
                CertificateStatus::ExpiresSoon(text) | CertificateStatus::Valid(text) => {
                    tracing::warn!("{text}");
                }
            }
        }
    }
}

/// The configuration, and the state of all files: a change of one of them changes this value.
#[derive(Clone)]
struct Seen {
    /// SIGHUP makes a new one, even where no key has changed.
    config: Arc<CheckedConfig>,
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// Device, inode, size and time of the last change.
type Stamp = (u64, u64, u64, i64, i64);

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.files == other.files
    }
}

impl Seen {
    fn of(config: Arc<CheckedConfig>) -> Self {
        let files = config.tls_files();
        let stamped = |path: PathBuf| {
            let stamp = stamp(&path);
            (path, stamp)
        };
        Self {
            files: files.into_iter().map(stamped).collect(),
            config,
        }
    }
}

/// Follows links, which renewal tools exchange.
fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some((
        file.dev(),
        file.ino(),
        file.size(),
        file.ctime(),
        file.ctime_nsec(),
    ))
}
