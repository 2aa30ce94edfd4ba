//! Certificates for a test, which `openssl` makes.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;

use crate::harness::debian;

/// Finds the program. It has no option `--version`.
fn need_openssl() {
    if Command::new("openssl").arg("version").output().is_err() {
        debian::install(&["openssl"]);
    }
}

/// A folder with an authority of its own, `ca.pem`. Dropping it removes the folder.
pub(crate) struct Certificates(TempDir);

/// The names that most tests connect to.
pub(crate) const LOCAL: &str = "DNS:localhost,IP:127.0.0.1";

impl Certificates {
    pub(crate) fn new() -> Self {
        need_openssl();
        let made = Self(tempfile::tempdir().expect("a temporary folder"));
        made.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=authority \
             -keyout ca.key -out ca.pem",
        );
        made
    }

    /// The same, with a certificate for this machine in `a.pem` and `a.key`.
    pub(crate) fn local() -> Self {
        let made = Self::new();
        made.sign("a", LOCAL, 365);
        made
    }

    /// Makes `NAME.pem`, the certificate and the authority's, and `NAME.key`. `names` are as in a subjectAltName, or
    /// empty. With fewer than 0 days it has expired.
    pub(crate) fn sign(&self, name: &str, names: &str, days: i32) {
        self.sign_key(
            "ec -pkeyopt ec_paramgen_curve:prime256v1",
            name,
            names,
            days,
        );
    }

    /// The same with an RSA key of 2048 bits.
    pub(crate) fn sign_rsa(&self, name: &str, names: &str, days: i32) {
        self.sign_key("rsa:2048", name, names, days);
    }

    /// Makes the same files, of a certificate that an authority between it and the first one has signed: `between.pem`,
    /// with this time to its end.
    pub(crate) fn sign_between(&self, name: &str, names: &str, days: i32) {
        let key = "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        self.write("extensions", "basicConstraints=CA:TRUE\n");
        self.openssl(&format!(
            "{key} -subj /CN=between -keyout between.key -out request"
        ));
        self.openssl(&format!(
            "x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions -days {days} -out \
             between.pem"
        ));
        self.write(
            "extensions",
            &format!("basicConstraints=CA:FALSE\nsubjectAltName={names}\n"),
        );
        self.openssl(&format!(
            "{key} -subj /CN={name} -keyout {name}.key -out request"
        ));
        self.openssl(&format!(
            "x509 -req -in request -CA between.pem -CAkey between.key -CAcreateserial -extfile extensions -days 365 \
             -out {name}.pem"
        ));
        let chain = [&format!("{name}.pem"), "between.pem", "ca.pem"].map(|file| self.read(file));
        self.write(&format!("{name}.pem"), &chain.concat());
    }

    fn sign_key(&self, kind: &str, name: &str, names: &str, days: i32) {
        let names = match names {
            "" => String::new(),
            names => format!("subjectAltName={names}\n"),
        };
        self.write("extensions", &format!("basicConstraints=CA:FALSE\n{names}"));
        self.openssl(&format!(
            "req -new -newkey {kind} -nodes -subj /CN={name} -keyout {name}.key -out request"
        ));
        self.openssl(&format!(
            "x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions -days {days} -out {name}.pem"
        ));
        let chain = [self.read(&format!("{name}.pem")), self.read("ca.pem")];
        self.write(&format!("{name}.pem"), &chain.concat());
    }

    /// Makes the same files for this machine, of a certificate with this age, and this time to its end.
    pub(crate) fn sign_aged(&self, name: &str, age_days: i32, left_days: i32) {
        let date = |days: i32| {
            let of = format!("{days} days");
            let date = Command::new("date")
                .args(["-u", "-d", &of, "+%y%m%d%H%M%SZ"])
                .output();
            let text = String::from_utf8(date.expect("date runs").stdout).expect("a date");
            text.trim().to_owned()
        };
        let [from, until] = [-age_days, left_days].map(date);
        self.write("database", "");
        self.write(
            "ca.cnf",
            "[ca]\ndefault_ca=all\n[all]\ndatabase=database\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\n\
             policy=any\n[any]\ncommonName=supplied\n",
        );
        self.sign(name, LOCAL, 1);
        self.openssl(&format!(
            "ca -batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -in request -extfile extensions \
             -startdate {from} -enddate {until} -out {name}.pem"
        ));
        let chain = [self.read(&format!("{name}.pem")), self.read("ca.pem")];
        self.write(&format!("{name}.pem"), &chain.concat());
    }

    /// Makes `crl.pem`, the authority's list of revoked certificates, with those of these names.
    pub(crate) fn revoke(&self, names: &[&str]) {
        self.write("database", "");
        self.write("crlnumber", "01\n");
        self.write(
            "ca.cnf",
            "[ca]\ndefault_ca=all\n[all]\ndatabase=database\ncrlnumber=crlnumber\ndefault_md=sha256\n\
             default_crl_days=30\ncrl_extensions=list\n[list]\nauthorityKeyIdentifier=keyid\n",
        );
        let ca = "ca -config ca.cnf -cert ca.pem -keyfile ca.key";
        for name in names {
            self.openssl(&format!("{ca} -revoke {name}.pem"));
        }
        self.openssl(&format!("{ca} -gencrl -out crl.pem"));
    }

    /// Makes a file with a new key of tickets, which only its owner may read.
    pub(crate) fn ticket_keys(&self, name: &str) {
        let key = self.openssl("rand -base64 48");
        let mut file = fs::OpenOptions::new();
        let opened = file
            .write(true)
            .create(true)
            .mode(0o600)
            .open(self.path(name));
        std::io::Write::write_all(&mut opened.expect("our own folder"), key.as_bytes())
            .expect("our own folder");
    }

    /// Runs `openssl` in the folder, and returns its standard output.
    pub(crate) fn openssl(&self, args: &str) -> String {
        let mut openssl = Command::new("openssl");
        let done = openssl.args(args.split(' ')).current_dir(&self.0).output();
        let done = done.expect("openssl runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "openssl {args}: {said}");
        String::from_utf8(done.stdout).expect("text in UTF-8")
    }

    pub(crate) fn path(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("our own folder")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("our own folder");
    }

    /// Makes a pipe that nobody writes to.
    pub(crate) fn pipe(&self, name: &str) {
        let made = Command::new("mkfifo")
            .arg("-m600")
            .arg(self.path(name))
            .status();
        assert!(made.expect("mkfifo runs").success());
    }

    /// Puts the files of one certificate in the place of another's, as a renewal does.
    pub(crate) fn exchange(&self, new: &str, old: &str) {
        for kind in ["pem", "key"] {
            let text = self.read(&format!("{new}.{kind}"));
            self.write("renewed", &text);
            let moved = fs::rename(self.path("renewed"), self.path(&format!("{old}.{kind}")));
            moved.expect("our own folder");
        }
    }

    /// The first certificate of a file, as a client gets it.
    pub(crate) fn first(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(name)).expect("a certificate")
    }

    /// A line of `tls.certificates` in the form of `--set`.
    pub(crate) fn set(&self, names: &[&str]) -> String {
        let files = names.iter().map(|name| {
            let [chain, key] = ["pem", "key"].map(|kind| self.path(&format!("{name}.{kind}")));
            format!("{{chain='{chain}', key='{key}'}}")
        });
        let files: Vec<String> = files.collect();
        format!("tls.certificates=[{}]", files.join(", "))
    }
}
