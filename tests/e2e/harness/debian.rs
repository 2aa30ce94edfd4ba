//! Programs of Debian that tests and benches need.

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Finds a program, or installs the package of the same name.
pub(crate) fn need(program: &str) {
    let asked = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    match asked {
        Ok(status) => assert!(status.success(), "{program} --version: {status}"),
        Err(error) if error.kind() == ErrorKind::NotFound => install(&[program]),
        Err(error) => panic!("{program}: {error}"),
    }
}

/// Installs packages that are not installed yet.
pub(crate) fn install(packages: &[&str]) {
    // apt-get refuses to run twice at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);

    let apt_get = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command.status().is_ok_and(|status| status.success())
    };
    let wanted = [&["install", "-y", "--no-install-recommends"], packages].concat();
    let names = packages.join(" ");
    assert!(
        apt_get(&wanted) || (apt_get(&["update"]) && apt_get(&wanted)),
        "{names}: needed, and could not be installed; on Debian: apt-get install {names}"
    );
}
