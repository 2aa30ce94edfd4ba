//! Tickets of sessions under keys of a file, which several gateways share: a client continues its session on any of them.
//!
//! A ticket is the name of its key, a random nonce, and the state of the session under AES-256-GCM.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

/// Bytes of the name of a key, and of the key itself.
const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
/// Keys that are kept: the one of new tickets, and those of older ones.
const KEYS_MAX: usize = 3;
/// Time that clients may keep a ticket. A key must be in the file for as long.
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
        let mode = fs::metadata(path)
            .map_err(|error| format!("cannot read {file}: {error}"))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(format!(
                "{file} may be read by others (mode {:03o}), and whoever has these keys can read the sessions of \
                 clients: chmod 600 {file}",
                mode & 0o777
            ));
        }
        let text =
            fs::read_to_string(path).map_err(|error| format!("cannot read {file}: {error}"))?;
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
