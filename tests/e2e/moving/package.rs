//! The npm package, packed as for a release.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::SOURCE;
use crate::harness::client::HANG_GUARD;
use crate::harness::process::Process;

/// Returns the file that `npm pack` makes.
pub(super) fn packed() -> &'static Path {
    static PACKED: OnceLock<PathBuf> = OnceLock::new();
    PACKED.get_or_init(|| {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("npm-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let target = folder.to_str().expect("a path in UTF-8");
        let args = ["pack", "--silent", "--pack-destination", target];
        let npm = Process::start("npm pack", Path::new(SOURCE), "npm", &args);
        let (status, printed) = npm.finish(HANG_GUARD);
        assert!(status.success(), "npm pack: {status}\n{printed}");
        folder.join(printed.trim())
    })
}
