//! Programs that the tests start: their output is kept, and none outlives the test binary.
//!
//! Every program runs under `setpriv --pdeathsig KILL`, so the kernel ends it when its starter is
//! gone, however that happened, and even if the program is stopped. The kernel means the starting
//! *thread*, therefore one thread, which lives as long as the binary, starts them all.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::client::HANG_GUARD;

/// Lines kept per program; what comes later is counted by no one and only the reader sees it.
const LINES_MAX: usize = 100_000;

/// How long the output of an ended program is waited for: a child of it may hold the other end.
const OUTPUT_GRACE: Duration = Duration::from_secs(10);

/// The pause between two checks of a state that no message announces.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A running program. Dropping it kills it.
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
}

impl Process {
    /// Starts `program` in `dir`; `name` stands for it in messages.
    pub(crate) fn start<S: AsRef<str>>(name: &str, dir: &Path, program: &str, args: &[S]) -> Self {
        let mut command = under_our_life(program, args);
        command
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(name, command);

        let output = Arc::new(Output::default());
        let stdout = child.stdout.take().expect("piped above");
        let stderr = child.stderr.take().expect("piped above");
        collect(Stream::Stdout, stdout, Arc::clone(&output));
        collect(Stream::Stderr, stderr, Arc::clone(&output));
        Self {
            name: name.to_owned(),
            child,
            output,
        }
    }

    /// Starts a program that reads from the first of these and writes to the second one. It ends when the other ends
    /// of both are closed.
    pub(crate) fn start_between(program: &str, args: &[&str], from: OwnedFd, to: OwnedFd) {
        let mut command = under_our_life(program, args);
        command.stdin(from).stdout(to);
        let mut child = spawn(program, command);
        thread::spawn(move || child.wait());
    }

    /// Its own process id: setpriv becomes the program, it does not stay as a parent.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The number of lines printed so far: where a later [`Self::wait_for_line`] may begin.
    pub(crate) fn lines_printed(&self) -> usize {
        self.output.lock().len()
    }

    /// The first line of standard output, from line `from` on, of which `find` makes a value.
    /// Panics with everything the program printed when it ends, or `timeout` passes, before that.
    pub(crate) fn wait_for_line<T>(
        &mut self,
        what: &str,
        from: usize,
        timeout: Duration,
        find: impl Fn(&str) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + timeout;
        loop {
            // Asked before looking, so that the last lines of a program that has ended count.
            let ended = self.has_exited();
            if let Some(found) = self.output.find(from, &find) {
                return found;
            }
            if let Some(status) = ended {
                // The readers may be a little behind the end of the program.
                self.output.wait_end();
                if let Some(found) = self.output.find(from, &find) {
                    return found;
                }
                panic!(
                    "{} ended ({status}) before {what}\n{}",
                    self.name,
                    self.transcript()
                );
            }
            assert!(
                Instant::now() < deadline,
                "{}: no {what} within {timeout:?}\n{}",
                self.name,
                self.transcript()
            );
            self.output.wait(Duration::from_millis(100));
        }
    }

    /// Its exit status, if it has ended.
    pub(crate) fn has_exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be asked")
    }

    /// Waits for it to end by itself; `None` when it has not within `timeout`.
    pub(crate) fn wait_exit(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            let status = self.has_exited();
            if status.is_some() || Instant::now() >= deadline {
                return status;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits for it to end by itself. Its exit status, and all of its standard output.
    pub(crate) fn finish(mut self, timeout: Duration) -> (ExitStatus, String) {
        let Some(status) = self.wait_exit(timeout) else {
            panic!(
                "{} does not end within {timeout:?}\n{}",
                self.name,
                self.transcript()
            );
        };
        self.wait_output_end();
        (status, self.output.stdout())
    }

    /// Waits until all that a program, which has ended, printed was read.
    pub(crate) fn wait_output_end(&self) {
        self.output.wait_end();
    }

    /// Sends a signal by name. The shell's own `kill` does it, so no further package is needed.
    pub(crate) fn signal(&mut self, signal: &str) {
        // After a wait the id no longer belongs to the child: another process may have it.
        if let Some(status) = self.has_exited() {
            panic!(
                "{} has ended ({status}): {signal} is too late\n{}",
                self.name,
                self.transcript()
            );
        }
        let done = Command::new("sh")
            .args([
                "-c",
                r#"kill -s "$1" "$2""#,
                "sh",
                signal,
                &self.pid().to_string(),
            ])
            .status()
            .expect("sh runs");
        assert!(done.success(), "{}: {signal} could not be sent", self.name);
    }

    /// Ends it at once, stopped or not, and waits until it is gone. Harmless when it has ended.
    pub(crate) fn kill(&mut self) {
        if self.has_exited().is_none() {
            self.child.kill().expect("our own child can be killed");
            let gone = self.wait_exit(HANG_GUARD).is_some();
            assert!(
                gone || thread::panicking(),
                "{} survives SIGKILL",
                self.name
            );
        }
    }

    /// The one-letter state the kernel gives: `T` is stopped.
    pub(crate) fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// All it printed, in the order in which it was read, with the stream before each line.
    pub(crate) fn transcript(&self) -> String {
        let lines = self.output.lock();
        let mut text = format!("--- {} printed {} lines\n", self.name, lines.len());
        for (stream, line) in lines.iter() {
            text.push_str(match stream {
                Stream::Stdout => "out| ",
                Stream::Stderr => "err| ",
            });
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

fn under_our_life<S: AsRef<str>>(program: &str, args: &[S]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", program])
        .args(args.iter().map(AsRef::as_ref));
    command
}

fn spawn(name: &str, command: Command) -> Child {
    let (reply, started) = channel();
    STARTER
        .send((command, reply))
        .expect("the starting thread lives");
    started
        .recv()
        .expect("the starting thread lives")
        .unwrap_or_else(|e| panic!("{name}: setpriv (package util-linux) does not run: {e}"))
}

/// The memory that a process has in use, as the kernel counts it.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: Option<u64> = kilobytes.and_then(|number| number.parse().ok());
    kilobytes.expect("the kernel gives VmRSS in kB") * 1024
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

type Start = (Command, Sender<std::io::Result<Child>>);

static STARTER: LazyLock<Sender<Start>> = LazyLock::new(|| {
    let (starts, queue) = channel::<Start>();
    thread::spawn(move || {
        for (mut command, reply) in queue {
            // A test that stopped waiting has no use for the child; dropping it is all there is.
            let _ = reply.send(command.spawn());
        }
    });
    starts
});

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Vec<(Stream, String)>>,
    /// How many of the two streams were read to their end. Written under the lock of `lines`.
    ended: AtomicU8,
    /// Lines were added, or a stream has ended.
    grew: Condvar,
}

impl Output {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Stream, String)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find<T>(&self, from: usize, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let lines = self.lock();
        lines
            .iter()
            .skip(from)
            .filter(|(stream, _)| *stream == Stream::Stdout)
            .find_map(|(_, line)| find(line))
    }

    /// Waits until both streams have ended, or for a short time while a child of the program holds them.
    fn wait_end(&self) {
        let unread = |_: &mut Vec<_>| self.ended.load(Ordering::Relaxed) < 2;
        let ended = self
            .grew
            .wait_timeout_while(self.lock(), OUTPUT_GRACE, unread);
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }

    fn stdout(&self) -> String {
        let lines = self.lock();
        let stdout = lines.iter().filter(|(s, _)| *s == Stream::Stdout);
        stdout.map(|(_, line)| format!("{line}\n")).collect()
    }

    fn wait(&self, timeout: Duration) {
        let lines = self.lock();
        let woken = self.grew.wait_timeout(lines, timeout);
        drop(woken.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Reads `source` to its end, line by line, on a thread of its own.
fn collect(stream: Stream, source: impl Read + Send + 'static, output: Arc<Output>) {
    thread::spawn(move || {
        for line in BufReader::new(source).split(b'\n') {
            let Ok(line) = line else { break };
            let mut lines = output.lock();
            if lines.len() < LINES_MAX {
                lines.push((stream, String::from_utf8_lossy(&line).into_owned()));
            }
            drop(lines);
            output.grew.notify_all();
        }
        let lines = output.lock();
        output.ended.fetch_add(1, Ordering::Relaxed);
        drop(lines);
        output.grew.notify_all();
    });
}

#[test]
fn a_program_is_killed_stopped_or_not() {
    let mut sleeper = Process::start("sleeper", Path::new("/"), "sleep", &["600"]);
    sleeper.signal("STOP");
    let deadline = Instant::now() + HANG_GUARD;
    while sleeper.state() != Some('T') {
        assert!(Instant::now() < deadline, "still running");
        thread::sleep(POLL_INTERVAL);
    }
    sleeper.kill();
    assert!(sleeper.has_exited().is_some());
}

#[test]
fn a_program_that_ends_too_early_shows_what_it_said() {
    let failure = std::panic::catch_unwind(|| {
        let script = ["-c", "echo one; echo two >&2; exit 3"];
        let mut shell = Process::start("shell", Path::new("/"), "sh", &script);
        shell.wait_for_line("line three", 0, HANG_GUARD, |line| {
            (line == "three").then_some(())
        });
    })
    .expect_err("there is no line three");
    let text = failure.downcast_ref::<String>().expect("a text");
    for part in [
        "shell ended",
        "exit status: 3",
        "before line three",
        "out| one",
        "err| two",
    ] {
        assert!(text.contains(part), "{part:?} is missing from {text:?}");
    }
}

#[test]
fn all_that_a_program_printed_is_there_at_its_end() {
    let script = ["-c", "seq 5000; echo no >&2; exit 3"];
    let shell = Process::start("shell", Path::new("/"), "sh", &script);
    let (status, printed) = shell.finish(HANG_GUARD);
    assert_eq!(status.code(), Some(3));
    let numbers: String = (1..=5000).map(|n| format!("{n}\n")).collect();
    assert_eq!(printed, numbers);
}
