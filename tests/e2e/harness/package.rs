//! The npm package, packed as for a release.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::harness::client::HANG_GUARD;
use crate::harness::process::Process;

/// A project that has nothing but the package.
pub(crate) fn project() -> &'static Path {
    static PROJECT: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = packed().with_file_name("project");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("package.json"), "{}").expect("a file of our own");
        install(&folder);
        folder
    });
    &PROJECT
}

/// The folder in which `npm install` has put the package.
pub(crate) fn installed() -> PathBuf {
    project().join("node_modules/tangelo")
}

/// Installs the package in a project, with no other source than the packed file.
pub(crate) fn install(project: &Path) {
    let file = packed().to_str().expect("a path in UTF-8");
    let args = [
        "install",
        "--offline",
        "--no-save",
        "--no-package-lock",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        file,
    ];
    npm(project, &args);
}

/// Returns the file that `npm pack` makes.
fn packed() -> &'static Path {
    static PACKED: LazyLock<PathBuf> = LazyLock::new(|| {
        // A static is not dropped, so the folder stays.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.expect("a temporary folder").keep();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/npm");
        let target = folder.to_str().expect("a path in UTF-8");
        let args = ["pack", "--silent", "--pack-destination", target];
        let name = npm(Path::new(source), &args);
        folder.join(name.trim())
    });
    &PACKED
}

fn npm(folder: &Path, args: &[&str]) -> String {
    let npm = Process::start("npm", folder, "npm", args);
    let (status, printed) = npm.finish(2 * HANG_GUARD);
    assert!(status.success(), "npm {args:?}: {status}\n{printed}");
    printed
}
