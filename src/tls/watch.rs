//! The thread that reads the files of `[tls]` again when they change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::{CertificateStatus, ReloadError, TlsSettings, certificate};
use crate::checked::CheckedConfig;
use crate::config::Config;
use crate::metrics::{Counter, count_for_process};

/// Distance between two looks at the files. A change counts when the next look sees the same files, because a renewal
/// writes several of them. So new connections get a new certificate within a second.
const LOOK: Duration = Duration::from_millis(250);

/// Pause before files that could not be used are read again, though they have not changed: the reason may have been another
/// one, such as too many open files.
const RETRY: Duration = Duration::from_secs(60);

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
    let mut watcher = Watcher::new(settings, latest);
    thread::Builder::new()
        .name("certificates".into())
        .spawn(move || {
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                watcher.look(certificate::now());
            }
        })?;
    Ok(Watching(sender))
}

/// The state of the thread.
struct Watcher {
    settings: Arc<TlsSettings>,
    latest: Arc<ArcSwap<CheckedConfig>>,
    /// The configuration and the files that were read last.
    read: Seen,
    /// Those of the last look.
    last: Seen,
    /// The error of the last time.
    error: Option<String>,
    /// The time to read them again: some time after an error, or the begin of a certificate that has come before it is valid.
    again_at: Option<SystemTime>,
    looks_until_reminder: u64,
}

impl Watcher {
    fn new(settings: Arc<TlsSettings>, latest: Arc<ArcSwap<CheckedConfig>>) -> Self {
        let seen = Seen::of(&settings, &latest.load());
        Self {
            settings,
            latest,
            read: seen.clone(),
            last: seen,
            error: None,
            again_at: None,
            looks_until_reminder: 0,
        }
    }

    /// Looks at the files, and reads them where they have changed.
    fn look(&mut self, now: SystemTime) {
        if self.looks_until_reminder == 0 {
            self.settings.log_warnings(now);
            self.looks_until_reminder = LOOKS_UNTIL_REMINDER;
        }
        self.looks_until_reminder -= 1;
        let config = self.latest.load_full();
        let seen = Seen::of(&self.settings, &config);
        let is_settled = std::mem::replace(&mut self.last, seen.clone()) == seen;
        let is_due = self.again_at.is_some_and(|time| time <= now);
        let has_changed = seen != self.read;
        if !is_settled || !(has_changed || is_due) {
            return;
        }
        self.read = seen;
        self.again_at = None;
        let last_error = self.error.take().filter(|_| !has_changed);
        match self.settings.reload(&config, now) {
            Ok(()) => {
                count_for_process(Counter::TlsReloads);
                let expiries = self.settings.expiries().load();
                let list: Vec<String> = expiries.iter().map(ToString::to_string).collect();
                tracing::info!(
                    "TLS is read again, and new connections use {}",
                    list.join(", ")
                );
                self.looks_until_reminder = 0;
            }
            Err(ReloadError { text, valid_from }) => {
                let retry = now + RETRY;
                self.again_at = Some(valid_from.map_or(retry, |from| from.min(retry)));
                if last_error.as_ref() != Some(&text) {
                    count_for_process(Counter::TlsReloadsFailed);
                    let again = match valid_from {
                        Some(_) => "it is read again then",
                        None => "the files are read again each minute",
                    };
                    tracing::error!(
                        "TLS cannot be read again, and the old certificates and keys stay in use: {text}; {again}"
                    );
                }
                self.error = Some(text);
            }
        }
    }
}

impl TlsSettings {
    /// Logs the certificates in use that are not valid, or expire soon.
    fn log_warnings(&self, now: SystemTime) {
        let expiries = self.expiries.load();
        for warning in expiries.iter().filter_map(|one| one.warning(now)) {
            match warning {
                CertificateStatus::Invalid(text) => tracing::error!("{text}: clients refuse it"),
                CertificateStatus::Warning(text) | CertificateStatus::Valid(text) => {
                    tracing::warn!("{text}");
                }
            }
        }
    }
}

/// The state of all files, and the number of requests to read them: a change of one of them changes this value.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    /// SIGHUP is one, even where no key has changed.
    asked: u64,
    files: Vec<(PathBuf, Option<Stamp>)>,
}

/// Device, inode, size and time of the last change.
type Stamp = (u64, u64, u64, i64, i64);

impl Seen {
    fn of(settings: &TlsSettings, config: &Config) -> Self {
        let files = config.tls_files();
        let stamped = |path: PathBuf| {
            let stamp = stamp(&path);
            (path, stamp)
        };
        Self {
            asked: settings.asked.load(Ordering::Acquire),
            files: files.into_iter().map(stamped).collect(),
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

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::certificate::vectors::read;
    use super::super::files::vectors::path;
    use super::*;
    use crate::config::{CertificateFiles, ClientListener, TlsMode};
    use crate::metrics::of_process;

    #[test]
    fn files_that_could_not_be_used_are_read_again_each_minute_and_a_certificate_when_it_is_valid()
    {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let in_folder = |name| folder.path().join(name);
        // Puts a certificate of the vectors in the place of the last one.
        let install = |name| {
            for kind in ["pem", "key"] {
                fs::copy(path(&format!("{name}.{kind}")), in_folder("new")).expect("a vector");
                fs::rename(in_folder("new"), in_folder(kind)).expect("our folder");
            }
        };
        install("server");
        let mut config = Config {
            listeners: vec![ClientListener {
                tls: TlsMode::Required,
                ..ClientListener::default()
            }],
            ..Config::default()
        };
        config.tls.certificates = vec![CertificateFiles {
            chain: in_folder("pem"),
            key: in_folder("key"),
        }];
        let config = CheckedConfig::new(config).expect("a right configuration");
        let settings = TlsSettings::load(&config).expect("right files");
        let settings = settings.expect("a listener takes TLS");
        let latest = Arc::new(ArcSwap::from_pointee(config));
        let mut watcher = Watcher::new(settings.clone(), latest);
        let in_use = || settings.expiries().load_full();
        let failed = || of_process().get(Counter::TlsReloadsFailed);
        let (first, before) = (in_use(), failed());

        install("alone");
        let mut time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        watcher.look(time);
        assert_eq!(watcher.again_at, None, "the files must stay as they are");
        watcher.look(time);
        for _ in 0..3 {
            let again_at = time + RETRY;
            assert_eq!(watcher.again_at, Some(again_at));
            watcher.look(again_at - LOOK);
            assert_eq!(watcher.again_at, Some(again_at));
            watcher.look(again_at);
            time = again_at;
        }
        assert_eq!(failed() - before, 1, "it is told once");
        settings.read_again();
        watcher.look(time);
        watcher.look(time);
        assert_eq!(failed() - before, 2, "somebody has asked");
        let alone = read("alone").expect("a vector");
        let valid_from = alone
            .expiry()
            .valid_from(time)
            .expect("it is not valid yet");
        watcher.look(valid_from - LOOK);
        assert_eq!(
            (in_use(), watcher.again_at),
            (first.clone(), Some(valid_from))
        );
        watcher.look(valid_from);
        assert_eq!(watcher.again_at, None);
        assert_ne!(in_use(), first);
    }
}
