//! The launcher: a process that stands for this one towards its master, such as `npm/launcher.js`.

use std::env;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::error::{Error, Result};

/// Variable with the process id of the launcher.
const LAUNCHER: &str = "TANGELO_LAUNCHER";

/// Makes the kernel send SIGTERM to this process when its launcher ends, however that happens. Without a
/// launcher it has no effect.
pub(super) fn follow() -> Result<()> {
    let Ok(launcher) = env::var(LAUNCHER) else {
        return Ok(());
    };
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| Error::Host(format!("cannot follow the launcher: {error}")))?;
    // The launcher may have ended before.
    let parent = getppid().map_or(0, Pid::as_raw_pid);
    if launcher == parent.to_string() {
        return Ok(());
    }
    Err(Error::Host(format!(
        "{LAUNCHER} = {launcher}: this process has ended or is not the parent of tangelo; a script \
         between the two must run tangelo with exec"
    )))
}
