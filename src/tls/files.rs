//! The files of `[tls]`, and certificates and private keys of the PEM format in them.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use x509_cert::der::Decode;
use x509_cert::der::asn1::AnyRef;

/// Reads all certificates of a file; at least one.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let (file, (_, bytes)) = (path.display(), read(path)?);
    let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    let certificates =
        certificates.map_err(|error| format!("{file} cannot be read as PEM: {error}"))?;
    if certificates.is_empty() {
        return Err(match is_der(&bytes) {
            true => format!(
                "{file} has the DER format, and tangelo reads PEM: `openssl x509 -inform der -in {file} -out NEW_FILE` \
                 converts it (for a .p12 or .pfx: `openssl pkcs12 -nokeys -in {file} -out NEW_FILE`)"
            ),
            false => format!("{file} has no certificate of the PEM format"),
        });
    }
    Ok(certificates)
}

/// Reads all lists of revoked certificates of a file; at least one.
pub(super) fn read_crls(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let (file, (_, bytes)) = (path.display(), read(path)?);
    let lists = CertificateRevocationListDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match lists {
        Ok(lists) if lists.is_empty() => Err(format!(
            "{file} has no list of revoked certificates (X509 CRL) of the PEM format"
        )),
        Ok(lists) => Ok(lists),
        Err(error) => Err(format!("{file} cannot be read as PEM: {error}")),
    }
}

/// Reads the first private key of a file.
pub(super) fn read_key(
    path: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<dyn SigningKey>, String> {
    let (file, (_, bytes)) = (path.display(), read(path)?);
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        if is_encrypted(&bytes) {
            return format!(
                "the private key in {file} is encrypted, and tangelo asks for no password: `openssl pkey -in {file} \
                 -out NEW_FILE` writes it without one"
            );
        }
        if is_der(&bytes) {
            return format!(
                "{file} has the DER format, and tangelo reads PEM: `openssl pkey -inform der -in {file} -out NEW_FILE` \
                 converts it (for a .p12 or .pfx: `openssl pkcs12 -nocerts -nodes -in {file} -out NEW_FILE`)"
            );
        }
        format!("{file} has no private key of the PEM format: {error}")
    })?;
    provider.key_provider.load_private_key(key).map_err(|_| {
        format!(
            "tangelo cannot use the private key in {file}: expected one of ECDSA P-256 or P-384, of Ed25519, or of RSA \
             with 2048 to 4096 bits; a new key needs a new certificate too"
        )
    })
}

/// Reads a regular file. It never waits, as it would for a pipe that nobody writes to.
///
/// The metadata are those of the file that is read: another one may take its place at any time.
pub(super) fn read(path: &Path) -> Result<(Metadata, Vec<u8>), String> {
    let name = path.display();
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(format!(
            "{name} is not a regular file, and tangelo reads it more than once: put its content into one"
        ));
    }
    let read = || {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok((metadata, bytes))
    };
    read().map_err(|error: io::Error| format!("cannot read {name}: {error}"))
}

/// Returns whether a private key needs a password, in the form of PKCS#8 or in that of old versions of OpenSSL.
fn is_encrypted(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let marks = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];
    marks.iter().any(|mark| text.contains(mark))
}

/// Returns whether a file has one value in DER, the binary form of certificates, keys and PKCS#12.
fn is_der(bytes: &[u8]) -> bool {
    AnyRef::from_der(bytes).is_ok()
}

/// Files of `tests/vectors/tls/`.
#[cfg(test)]
pub(super) mod vectors {
    use std::path::PathBuf;

    use super::*;

    pub(crate) fn path(file: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/tls");
        folder.join(file)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustls::crypto::ring;
    use tempfile::NamedTempFile;

    use super::vectors::path;
    use super::*;

    #[track_caller]
    fn refused(path: &Path, of: fn(&Path) -> Result<(), String>, parts: &[&str]) {
        let text = of(path).expect_err("a file that cannot be used");
        for part in parts.iter().chain([&&*path.display().to_string()]) {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(!text.contains("-----"), "{text}");
    }

    fn chain(path: &Path) -> Result<(), String> {
        read_chain(path).map(drop)
    }

    fn key(path: &Path) -> Result<(), String> {
        read_key(path, &ring::default_provider()).map(drop)
    }

    #[test]
    fn an_encrypted_key_names_the_command_that_decrypts_it() {
        for name in ["encrypted.key", "encrypted-old.key"] {
            let command = format!(
                "is encrypted, and tangelo asks for no password: `openssl pkey -in {}",
                path(name).display()
            );
            refused(&path(name), key, &[&command]);
        }
    }

    #[test]
    fn a_key_that_tls_cannot_use_names_those_that_it_can() {
        let expected = "expected one of ECDSA P-256 or P-384, of Ed25519, or of RSA";
        refused(
            &path("p521.key"),
            key,
            &["tangelo cannot use the private key in ", expected],
        );
    }

    #[test]
    fn a_file_in_der_names_the_command_that_makes_pem_of_it() {
        let file = NamedTempFile::new().expect("a folder for temporary files");
        let certificate = read_chain(&path("server.pem")).expect("a vector").remove(0);
        fs::write(&file, &certificate).expect("a folder for temporary files");
        refused(
            file.path(),
            chain,
            &["has the DER format", "`openssl x509 -inform der -in "],
        );
        let private = PrivateKeyDer::from_pem_file(path("server.key")).expect("a vector");
        fs::write(&file, private.secret_der()).expect("a folder for temporary files");
        refused(
            file.path(),
            key,
            &["has the DER format", "`openssl pkey -inform der -in "],
        );
        // Half of it has no format.
        let half = &private.secret_der()[..20];
        fs::write(&file, half).expect("a folder for temporary files");
        refused(file.path(), key, &["has no private key of the PEM format"]);
    }

    #[test]
    fn a_pipe_or_a_folder_is_refused_at_once() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let pipe = folder.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        for path in [&*pipe, folder.path()] {
            for of in [chain, key] {
                refused(path, of, &["is not a regular file"]);
            }
        }
    }
}
