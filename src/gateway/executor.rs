//! glommio's executor of one shard, and a check that io_uring works at all.

use std::fs;
use std::io;
use std::panic;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use rustix::io::Errno;
use rustix::process::Resource;

use super::host::{self, PAUSE, TRIES};
use crate::error::{Error, Result};
use crate::net::bell::Doorbell;
use crate::net::poller::Poller;

/// glommio's preemption timer, so long that it never fires.
///
/// If it fires before the first task of a turn runs, because the thread was off its core for longer than the
/// timer, glommio 0.9 parks the thread although tasks are ready to run (`run_task_queues`). Nothing wakes the
/// thread if the tick is one of those tasks. Nothing needs the timer: a loop over much work gives the core up
/// by itself (`clock::yield_to_reactor`), and so does each future of the application (`Activity::run`).
const PREEMPT_TIMER: Duration = Duration::from_secs(24 * 60 * 60);
/// Entries of each of glommio's three rings. Sockets do not use them; files and timers of handlers may, and wait in
/// glommio's own queue when a ring is full.
const RING_DEPTH: usize = 64;
const PROBE_THREAD: &str = "tangelo-probe";

/// Makes an executor with the settings of a shard, for the calling thread.
pub(super) fn executor(placement: &Placement) -> Result<LocalExecutor> {
    let make = || {
        LocalExecutorBuilder::new(placement.clone())
            .io_memory(64 << 10)
            .ring_depth(RING_DEPTH)
            .preempt_timer(PREEMPT_TIMER)
            .spin_before_park(Duration::ZERO)
            .make()
            .map_err(io::Error::from)
    };
    for _ in 1..TRIES {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => thread::sleep(PAUSE),
            result => return result.map_err(|error| refused(&error, sysctl().as_deref())),
        }
    }
    make().map_err(|error| refused(&error, sysctl().as_deref()))
}

/// Makes the executor of a gateway in memory. Tests make any number of them at any time, so the probe, which
/// replaces the panic hook, runs only once.
pub(super) fn executor_in_memory() -> Result<LocalExecutor> {
    static PROBED: OnceLock<Result<()>> = OnceLock::new();
    let probed = PROBED.get_or_init(|| {
        host::raise(Resource::Memlock);
        probe()
    });
    probed.clone()?;
    executor(&Placement::Unbound)
}

/// Makes the poller for the shard that runs on the calling thread.
pub(super) fn poller(bell: &Arc<Doorbell>, turn_min: Duration) -> Result<Poller> {
    Poller::new(bell, turn_min)
        .map_err(|error| Error::Host(format!("cannot create an epoll instance: {error}")))
}

/// Makes and runs one executor. glommio panics without io_uring, and its text lacks the errno, so the panic
/// hook reads the errno.
pub(super) fn probe() -> Result<()> {
    let (send, receive) = mpsc::sync_channel(1);
    let hook = Arc::new(panic::take_hook());
    let usual = hook.clone();
    panic::set_hook(Box::new(move |info| {
        let error = io::Error::last_os_error();
        if thread::current().name() == Some(PROBE_THREAD) {
            let _ = send.try_send(error);
        } else {
            usual(info);
        }
    }));
    let probe = thread::Builder::new().name(PROBE_THREAD.into()).spawn(|| {
        executor(&Placement::Unbound)?.run(async {});
        Ok(())
    });
    let result = probe.map(thread::JoinHandle::join);
    // Dropping the hook in place frees the last other handle to the usual one.
    drop(panic::take_hook());
    if let Ok(usual) = Arc::try_unwrap(hook) {
        panic::set_hook(usual);
    }
    match result {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => {
            let error = receive
                .try_recv()
                .unwrap_or_else(|_| io::ErrorKind::Unsupported.into());
            Err(refused(&error, sysctl().as_deref()))
        }
        Err(error) => Err(super::cannot_start(PROBE_THREAD, &error)),
    }
}

/// Returns `kernel.io_uring_disabled`, which kernels before 6.6 do not have.
fn sysctl() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    Some(text.trim().into())
}

/// Returns the error of an executor that the kernel refuses.
fn refused(error: &io::Error, disabled: Option<&str>) -> Error {
    let advice = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOMEM) => String::from(
            "the memory lock limit (ulimit -l) is used up; it counts for all processes of one \
             user: raise it or stop one of them",
        ),
        Some(Errno::MFILE | Errno::NFILE) => "raise the file limit (ulimit -n)".into(),
        _ => format!(
            "tangelo needs Linux 5.8 or newer with kernel.io_uring_disabled=0{}, and in a \
             container a seccomp profile that allows io_uring_setup, io_uring_enter and \
             io_uring_register",
            match disabled {
                None | Some("0") => String::new(),
                Some(value) => format!(" (it is {value} now)"),
            },
        ),
    };
    Error::Host(format!("io_uring does not work here: {error}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::text;
    use super::*;
    use crate::config::Config;

    #[test]
    fn this_machine_passes_and_the_panic_hook_is_as_before() {
        host::check(&Config::default(), 1).unwrap();
        probe().unwrap();
        let caught = thread::Builder::new().spawn(|| panic!("on purpose: the hook prints this"));
        assert!(caught.unwrap().join().is_err());
    }

    #[test]
    fn a_refused_io_uring_names_errno_setting_and_seccomp() {
        let error = |errno: Errno, disabled| text::<()>(Err(refused(&errno.into(), disabled)));
        assert_eq!(
            error(Errno::PERM, Some("2")),
            "io_uring does not work here: Operation not permitted (os error 1); tangelo needs Linux \
             5.8 or newer with kernel.io_uring_disabled=0 (it is 2 now), and in a container a \
             seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register",
        );
        assert!(!error(Errno::NOSYS, Some("0")).contains("now"));
        assert_eq!(
            error(Errno::NOMEM, Some("0")),
            "io_uring does not work here: Cannot allocate memory (os error 12); the memory lock \
             limit (ulimit -l) is used up; it counts for all processes of one user: raise it or \
             stop one of them",
        );
        assert_eq!(
            error(Errno::MFILE, None),
            "io_uring does not work here: Too many open files (os error 24); raise the file limit \
             (ulimit -n)",
        );
    }
}
