//! Programs of Debian that tests and benches need.

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Finds a program, or installs the package of the same name.
pub(crate) fn need(program: &str) {
    // apt-get refuses to run twice at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);

    let asked = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    match asked {
        Ok(status) => return assert!(status.success(), "{program} --version: {status}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{program}: {error}"),
    }
    let apt_get = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command.status().is_ok_and(|status| status.success())
    };
    let install = || apt_get(&["install", "-y", "--no-install-recommends", program]);
    assert!(
        install() || (apt_get(&["update"]) && install()),
        "{program} is needed and could not be installed; on Debian: apt-get install {program}"
    );
}
