//! Tickets of sessions under keys of a file, which several gateways share: a client continues its session on any of them.
//!
//! A ticket is the name of its key, a random nonce, and the state of the session under AES-256-GCM.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

use super::files;

/// Bytes of the name of a key, and of the key itself.
const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
/// Keys that are kept: the one of new tickets, and those of older ones.
const KEYS_MAX: usize = 3;
/// Time that clients may keep a ticket. The gateway checks no age: it takes a ticket while its key is one of the first three
/// of the file.
const LIFETIME_SECONDS: u32 = 12 * 3600;

/// The keys of a file, the newest first.
pub(super) struct TicketKeys(Vec<TicketKey>);

struct TicketKey {
    name: [u8; NAME_BYTES],
    key: LessSafeKey,
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys({} keys)", self.0.len())
    }
}

impl TicketKeys {
    /// Reads a file with a key on each line, in Base64, the newest first. Lines behind the third are not used.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let file = path.display();
        let (metadata, bytes) = files::read(path)?;
        let mode = metadata.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(format!(
                "{file} may be read by others (mode {:03o}), and whoever has these keys can read the sessions of \
                 clients: chmod 600 {file}",
                mode & 0o777
            ));
        }
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim).enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty()).take(KEYS_MAX);
        let keys = lines.map(|(number, line)| {
            TicketKey::parse(line).ok_or_else(|| {
                format!(
                    "{file}:{}: expected 48 bytes in Base64, such as `openssl rand -base64 48` prints",
                    number + 1
                )
            })
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        match keys.is_empty() {
            true => Err(format!("{file} has no key")),
            false => Ok(Self(keys)),
        }
    }
}

impl TicketKey {
    fn parse(line: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(line).ok()?;
        let (name, key) = bytes.split_first_chunk::<NAME_BYTES>()?;
        let key = key
            .first_chunk::<KEY_BYTES>()
            .filter(|_| key.len() == KEY_BYTES)?;
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some(Self {
            name: *name,
            key: LessSafeKey::new(key),
        })
    }
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let TicketKey { name, key } = self.0.first()?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(name),
            &mut sealed,
        )
        .ok()?;
        Some([&name[..], &nonce[..], &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let TicketKey { key, .. } = self.0.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key
            .open_in_place(nonce, Aad::from(name), &mut sealed)
            .ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use tempfile::NamedTempFile;

    use super::*;

    /// A file of its own, which goes with this value.
    struct KeyFile(NamedTempFile);

    impl KeyFile {
        fn new(text: &str, mode: u32) -> Self {
            let file = NamedTempFile::new().expect("a folder for temporary files");
            fs::write(&file, text).expect("our file");
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(&file, mode).expect("our file");
            Self(file)
        }

        fn read(&self) -> Result<TicketKeys, String> {
            TicketKeys::read(self.0.path())
        }
    }

    fn line(of: u8) -> String {
        BASE64_STANDARD.encode([of; NAME_BYTES + KEY_BYTES])
    }

    fn keys(of: &[u8]) -> TicketKeys {
        let lines: Vec<String> = of.iter().map(|of| line(*of)).collect();
        let file = KeyFile::new(&lines.join("\n"), 0o600);
        file.read().expect("right keys")
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o601, 0o777] {
            let error = KeyFile::new(&line(1), mode).read().unwrap_err();
            let expected = format!("may be read by others (mode {mode:03o})");
            assert!(error.contains(&expected), "{error}");
        }
        assert!(KeyFile::new(&line(1), 0o400).read().is_ok());
    }

    #[test]
    fn the_mode_that_is_checked_is_that_of_the_file_that_is_read() {
        let private = KeyFile::new(&line(1), 0o600);
        let public = KeyFile::new(&line(2), 0o644);
        let place = KeyFile::new("", 0o600);
        let next = KeyFile::new("", 0o600);
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for file in [&public, &private].into_iter().cycle() {
                    if is_done.load(Ordering::Relaxed) {
                        break;
                    }
                    let _ = fs::remove_file(&next.0);
                    symlink(&file.0, &next.0).expect("our folder");
                    fs::rename(&next.0, &place.0).expect("our folder");
                }
            });
            let read: Vec<_> = (0..20_000).map(|_| place.read()).collect();
            is_done.store(true, Ordering::Relaxed);
            for keys in read.into_iter().flatten() {
                assert_eq!(keys.0[0].name, [1; NAME_BYTES]);
            }
        });
    }

    #[test]
    fn a_pipe_is_refused_at_once() {
        let file = KeyFile::new("", 0o600);
        fs::remove_file(&file.0).expect("our file");
        let made = Command::new("mkfifo")
            .arg("-m600")
            .arg(file.0.path())
            .status();
        assert!(made.expect("mkfifo runs").success());
        let error = file.read().unwrap_err();
        assert!(error.contains(" is not a regular file, and "), "{error}");
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number_and_none_of_its_bytes() {
        for wrong in [
            BASE64_STANDARD.encode([7; 47]),
            BASE64_STANDARD.encode([7; 49]),
            "no Base64!".into(),
        ] {
            let text = format!("{}\n\n  {wrong}\n", line(1));
            let error = KeyFile::new(&text, 0o600).read().unwrap_err();
            assert!(error.contains(":3: expected 48 bytes in Base64"), "{error}");
            assert!(!error.contains(&wrong), "{error}");
        }
        let error = KeyFile::new("\n \n", 0o600).read().unwrap_err();
        assert!(error.ends_with(" has no key"), "{error}");
        let error = TicketKeys::read(Path::new("/nowhere/keys")).unwrap_err();
        assert!(error.starts_with("cannot read /nowhere/keys: "), "{error}");
    }

    #[test]
    fn tickets_are_of_the_newest_key_and_three_keys_take_them() {
        let plain = b"the state of a session";
        let ticket = keys(&[3]).encrypt(plain).expect("a ticket");
        assert!(ticket.starts_with(&[3; NAME_BYTES]));
        for (newer, is_taken) in [
            (&[3][..], true),
            (&[2, 3], true),
            (&[1, 2, 3], true),
            (&[0, 1, 2, 3], false),
            (&[1, 2], false),
        ] {
            let found = keys(newer).decrypt(&ticket);
            assert_eq!(found, is_taken.then(|| plain.to_vec()), "{newer:?}");
        }
        let both = keys(&[2, 3]);
        assert!(
            both.encrypt(plain)
                .expect("a ticket")
                .starts_with(&[2; NAME_BYTES])
        );
        assert_eq!(format!("{both:?}"), "TicketKeys(2 keys)");
        assert!(both.enabled());
    }

    #[test]
    fn a_ticket_that_was_changed_or_cut_is_not_taken() {
        let keys = keys(&[1, 2]);
        let ticket = keys.encrypt(b"the state of a session").expect("a ticket");
        let again = keys.encrypt(b"the state of a session").expect("a ticket");
        assert_ne!(ticket, again, "a nonce is used once");
        assert!(keys.decrypt(&ticket).is_some());
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(keys.decrypt(&changed), None, "byte {at}");
            assert_eq!(keys.decrypt(&ticket[..at]), None, "cut at {at}");
        }
        // The name of another key that is there.
        let mut foreign = ticket.clone();
        foreign[..NAME_BYTES].fill(2);
        assert_eq!(keys.decrypt(&foreign), None);
    }
}
