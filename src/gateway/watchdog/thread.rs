//! The kernel's account of a thread: its state, and the use of its time.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

/// Two numbers of nanoseconds and one of time slices, in decimal.
const SCHEDSTAT_BYTES: usize = 64;

/// A thread of this process.
#[derive(Debug)]
pub(super) struct Thread {
    id: i32,
    /// Kept open for the read at each check. `None` if the kernel has no such file.
    schedstat: Option<File>,
}

/// Time that a thread has spent since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Time on a CPU.
    ran: Duration,
    /// Time ready to run while other threads had the CPUs. The kernel adds a wait when it ends.
    waited_for_cpu: Duration,
}

impl Thread {
    pub(super) fn new(id: i32) -> Self {
        let schedstat = File::open(format!("/proc/self/task/{id}/schedstat")).ok();
        Self { id, schedstat }
    }

    pub(super) fn id(&self) -> i32 {
        self.id
    }

    /// Returns the usage so far, or `None` if the kernel does not report it.
    pub(super) fn usage(&self) -> Option<Usage> {
        let mut text = [0; SCHEDSTAT_BYTES];
        let bytes = self.schedstat.as_ref()?.read_at(&mut text, 0).ok()?;
        Usage::parse(std::str::from_utf8(&text[..bytes]).ok()?)
    }

    /// Returns true if the thread sleeps.
    pub(super) fn sleeps(&self) -> bool {
        self.state() == Some('S')
    }

    /// Describes how the thread spent most of the time `since`. `before` is its usage when that time began.
    pub(super) fn explain(&self, before: Option<Usage>, since: Duration) -> String {
        let (Some(before), Some(now)) = (before, self.usage()) else {
            return "the kernel does not report how its thread spent the time".to_owned();
        };
        let is_ready = self.state() == Some('R');
        let (cause, time) = now.main_cause(before, is_ready, since);
        let ms = time.as_millis();
        match cause {
            Cause::Ran => format!("its thread ran for {ms} ms"),
            Cause::WaitedForCpu => format!("its thread waited {ms} ms for a CPU"),
            Cause::Slept => format!("its thread slept for {ms} ms{}", self.sleeping_place()),
        }
    }

    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/self/task/{}/stat", self.id)).ok()?;
        state_of(&stat)
    }

    /// Returns the kernel function in which the thread sleeps, if this user may read it.
    fn sleeping_place(&self) -> String {
        let place = fs::read_to_string(format!("/proc/self/task/{}/wchan", self.id));
        match place {
            Ok(place) if !place.is_empty() && place != "0" => format!(" in {place}"),
            _ => String::new(),
        }
    }
}

/// Returns the state in a line of `/proc/<pid>/stat`. The name of the thread before it may contain any
/// character.
fn state_of(stat: &str) -> Option<char> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.trim_start().chars().next()
}

/// Activity of a thread during a stall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Ran,
    WaitedForCpu,
    Slept,
}

impl Usage {
    /// Reads a line of `/proc/<pid>/schedstat`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        let mut next = || Some(Duration::from_nanos(numbers.next()?.ok()?));
        Some(Self {
            ran: next()?,
            waited_for_cpu: next()?,
        })
    }

    /// Returns the largest part of the time `since`, and its length rounded down to 10 ms.
    fn main_cause(self, before: Self, is_ready: bool, since: Duration) -> (Cause, Duration) {
        let ran = self.ran.saturating_sub(before.ran);
        let mut waited = self.waited_for_cpu.saturating_sub(before.waited_for_cpu);
        let mut slept = since.saturating_sub(ran + waited);
        if is_ready {
            // The kernel adds a wait to its sum only at the end of the wait.
            waited += std::mem::take(&mut slept);
        }
        let parts = [
            (Cause::Ran, ran),
            (Cause::WaitedForCpu, waited),
            (Cause::Slept, slept),
        ];
        let largest = parts.into_iter().max_by_key(|(_, time)| *time);
        let (cause, time) = largest.unwrap_or((Cause::Slept, since));
        let ms = time.min(since).as_millis() as u64;
        (cause, Duration::from_millis(ms / 10 * 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn usage(ran: u64, waited_for_cpu: u64) -> Usage {
        Usage {
            ran: ms(ran),
            waited_for_cpu: ms(waited_for_cpu),
        }
    }

    #[test]
    fn the_largest_part_of_a_stall_is_its_cause() {
        let (before, since) = (usage(1000, 50), ms(2000));
        for (now, is_ready, cause) in [
            (usage(2900, 51), true, (Cause::Ran, ms(1900))),
            (usage(1001, 1950), false, (Cause::WaitedForCpu, ms(1900))),
            // The thread still waits: the sums do not include this wait.
            (usage(1020, 50), true, (Cause::WaitedForCpu, ms(1980))),
            (usage(1020, 51), false, (Cause::Slept, ms(1970))),
            // More than the time checked: the check was late.
            (usage(1000, 9050), false, (Cause::WaitedForCpu, ms(2000))),
        ] {
            assert_eq!(now.main_cause(before, is_ready, since), cause, "{now:?}");
        }
    }

    #[test]
    fn the_kernels_lines_are_read() {
        let parsed = Usage::parse("1500000000 2000000 77\n");
        assert_eq!(parsed, Some(usage(1500, 2)));
        assert_eq!(Usage::parse("7"), None);
        assert_eq!(state_of("12 (shard) 0) S 1 12"), Some('S'));
        assert_eq!(state_of(""), None);
    }

    #[test]
    fn a_thread_that_sleeps_is_seen_asleep() {
        let (send, id) = std::sync::mpsc::channel();
        let (wake, sleep) = std::sync::mpsc::channel::<()>();
        let sleeper = std::thread::scope(|scope| {
            scope.spawn(move || {
                send.send(rustix::thread::gettid().as_raw_nonzero().get())
                    .unwrap();
                let _ = sleep.recv();
            });
            let thread = Thread::new(id.recv().unwrap());
            while !thread.sleeps() {
                std::thread::yield_now();
            }
            let text = thread.explain(Some(Usage::default()), Duration::from_secs(3600));
            drop(wake);
            text
        });
        assert!(sleeper.starts_with("its thread slept for 3"), "{sleeper}");
        let this = Thread::new(rustix::thread::gettid().as_raw_nonzero().get());
        assert!(!this.sleeps());
    }
}
