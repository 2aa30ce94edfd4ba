//! One stream of the process, standard output or standard error: a bounded queue of lines, and the
//! thread that writes them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use super::limit::Kinds;
use super::{TARGET, line};
use crate::config::LogFormat;
use crate::error::{Error, Result};
use crate::metrics::{self, Counter};

/// Bytes handed to one write.
const WRITE_BYTES: usize = 64 << 10;
/// Longest time that the ending process waits for its last lines.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Sends lines to the thread that writes them.
///
/// Written by all threads; never blocks. Full: the line is dropped and counted. Cost: one allocation
/// per line.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    queue: Sender<Line>,
    dropped: Arc<AtomicU64>,
}

/// One entry of the queue.
#[derive(Debug)]
pub(super) enum Line {
    /// One or more lines.
    Text(Box<[u8]>),
    /// The example for the next summary of a kind.
    Sample(usize, Box<Sample>),
}

/// A line over the limit of its kind.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) text: String,
}

impl Lines {
    pub(super) fn send(&self, line: Line) {
        let is_text = matches!(line, Line::Text(_));
        if self.queue.try_send(line).is_err() && is_text {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::count_for_process(Counter::LogLinesDropped);
        }
    }

    /// Returns the number of lines dropped so far.
    #[cfg(test)]
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &Lines {
    /// The subscriber writes one complete line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(Line::Text(line.into()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Handle of the thread that writes one stream.
#[derive(Debug)]
pub(super) struct Writer {
    /// Tells the thread to write the queued lines and end.
    stop: Sender<()>,
    /// Closed by the thread when it has ended.
    ended: Receiver<()>,
}

impl Writer {
    /// Starts the thread. It summarises the lines over the limits of `kinds`.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        format: LogFormat,
        lines_max: usize,
        kinds: Option<Arc<Kinds>>,
    ) -> Result<(Lines, Self)> {
        let (queue, lines) = bounded(lines_max);
        let (stop, stopped) = bounded(1);
        let (end, ended) = bounded(0);
        let dropped = Arc::<AtomicU64>::default();
        let thread = Thread {
            out,
            format,
            lines,
            stopped,
            batch: Vec::with_capacity(WRITE_BYTES),
            is_torn: false,
            dropped: dropped.clone(),
            dropped_told: 0,
            kinds,
            samples: BTreeMap::new(),
            window_began: None,
        };
        thread::Builder::new()
            .name("tangelo-log".into())
            .spawn(move || {
                thread.run();
                drop(end);
            })
            .map_err(|e| Error::Host(format!("cannot start the log thread: {e}")))?;
        Ok((Lines { queue, dropped }, Self { stop, ended }))
    }

    /// Ends the threads of several streams at once. Waits until they have written the queued lines, but
    /// at most [`FLUSH_MAX`]: a stalled reader must not keep the process alive.
    pub(super) fn end(writers: &[&Self]) {
        for writer in writers {
            let _ = writer.stop.try_send(());
        }
        let deadline = now() + FLUSH_MAX;
        for writer in writers {
            let _ = writer.ended.recv_deadline(deadline);
        }
    }
}

/// The thread of one stream.
struct Thread<W> {
    out: W,
    format: LogFormat,
    lines: Receiver<Line>,
    stopped: Receiver<()>,
    batch: Vec<u8>,
    /// The stream has taken only the beginning of the last line.
    is_torn: bool,
    dropped: Arc<AtomicU64>,
    /// Dropped lines that were already reported.
    dropped_told: u64,
    kinds: Option<Arc<Kinds>>,
    /// Examples of this window, by kind.
    samples: BTreeMap<usize, Sample>,
    /// Time of the first line of this window.
    window_began: Option<Instant>,
}

impl<W: Write> Thread<W> {
    /// Runs until the stop, then until the queue is empty.
    fn run(mut self) {
        let mut window_end = never();
        loop {
            let mut is_over = false;
            let is_ending = select! {
                recv(self.lines) -> line => line.map(|line| self.take(line)).is_err(),
                recv(self.stopped) -> _ => true,
                recv(window_end) -> _ => {
                    is_over = true;
                    false
                }
            };
            while self.batch.len() < WRITE_BYTES
                && let Ok(line) = self.lines.try_recv()
            {
                self.take(line);
            }
            let is_last = is_ending && self.lines.is_empty();
            if is_over || is_last {
                self.summarise();
                window_end = never();
            } else if let Some(window) = self.kinds.as_ref().map(|kinds| kinds.window)
                && self.window_began.is_none()
            {
                self.window_began = Some(now());
                window_end = after(window);
            }
            self.write_batch();
            if is_last {
                let _ = self.out.flush();
                return;
            }
        }
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Text(text) => self.batch.extend_from_slice(&text),
            Line::Sample(kind, sample) => {
                self.samples.insert(kind, *sample);
            }
        }
    }

    /// Ends the window: writes one line for each kind that was over its limit.
    fn summarise(&mut self) {
        let began = self.window_began.take();
        let Some(kinds) = &self.kinds else { return };
        let lasted = began.map_or(Duration::ZERO, |began| now() - began);
        let seconds = (lasted.as_secs_f64().round() as u64).max(1);
        let over: Vec<_> = kinds.end_window().collect();
        for (kind, suppressed) in over {
            let Some(Sample {
                level,
                target,
                text,
            }) = self.samples.remove(&kind)
            else {
                // The example did not fit into the queue.
                self.dropped.fetch_add(suppressed, Ordering::Relaxed);
                continue;
            };
            let message = format!("and {suppressed} more in {seconds} s, such as: {text}");
            let members = [
                ("suppressed", suppressed.into()),
                ("seconds", seconds.into()),
                ("example", text.into()),
            ];
            let line = line(self.format, level, target, &message, members);
            self.batch.extend_from_slice(line.as_bytes());
        }
        self.samples.clear();
    }

    /// Writes the batch, and how many lines were dropped before it. The lines that the stream does not take whole, as on a
    /// full disk, are dropped lines too: there is nowhere else to report them.
    fn write_batch(&mut self) {
        if self.is_torn && !self.batch.is_empty() {
            self.batch.insert(0, b'\n');
        }
        let dropped = self.dropped.load(Ordering::Relaxed);
        let has_notice = dropped > self.dropped_told;
        if has_notice {
            let notice = self.dropped_notice(dropped - self.dropped_told);
            self.batch.extend_from_slice(notice.as_bytes());
        }
        let written = self.write_bytes();
        let (taken, left) = self.batch.split_at(written);
        if left.is_empty() {
            self.dropped_told = dropped;
        }
        let starts_line = self.is_torn && taken.is_empty();
        let ends = memchr::memchr_iter(b'\n', left).count();
        let own = usize::from(has_notice) + usize::from(starts_line);
        if let Some(lines @ 1..) = ends.checked_sub(own) {
            self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            metrics::count_for_process_by(Counter::LogLinesDropped, lines as u64);
        }
        self.is_torn = match taken.last() {
            Some(last) => *last != b'\n',
            None => self.is_torn,
        };
        self.batch.clear();
    }

    /// Writes bytes of the batch until the stream takes no more, and returns their number.
    fn write_bytes(&mut self) -> usize {
        let mut written = 0;
        while let Some(left @ [_, ..]) = self.batch.get(written..) {
            match self.out.write(left) {
                Ok(0) => break,
                Ok(taken) => written += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        written
    }

    /// Returns a line with the number of dropped lines.
    fn dropped_notice(&self, lines: u64) -> String {
        let message = format!(
            "{lines} log lines dropped, because this stream did not take them in time or at all"
        );
        let members = [("dropped", lines.into())];
        line(self.format, Level::WARN, TARGET, &message, members)
    }
}

/// Returns the real time: this thread has no virtual clock.
#[allow(clippy::disallowed_methods)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use crossbeam_channel::TryRecvError;

    use super::*;

    /// Hands every write to the test and waits until the test releases it.
    struct Slow {
        written: Sender<Vec<u8>>,
        go_on: Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.written.send(bytes.to_vec());
            let _ = self.go_on.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Lines, Writer, Receiver<Vec<u8>>, Sender<()>) {
        let (written, writes) = bounded(100);
        let (go, go_on) = bounded(100);
        let stream = Slow { written, go_on };
        let (lines, writer) = Writer::start(stream, LogFormat::Text, 4, None).unwrap();
        (lines, writer, writes, go)
    }

    fn write(mut lines: &Lines, line: &str) {
        lines.write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn a_full_queue_drops_counts_and_says_so() {
        let (lines, _writer, writes, go) = slow();
        write(&lines, "first\n");
        assert_eq!(writes.recv().unwrap(), b"first\n");
        for n in 0..10 {
            write(&lines, &format!("{n}\n"));
        }
        assert_eq!(lines.dropped(), 6, "four fit into the queue");
        drop(go);
        let text = String::from_utf8(writes.recv().unwrap()).unwrap();
        assert!(text.starts_with("0\n1\n2\n3\n"), "{text}");
        assert!(
            text.contains(": 6 log lines dropped, because this stream"),
            "{text}"
        );
        write(&lines, "last\n");
        assert_eq!(
            writes.recv().unwrap(),
            b"last\n",
            "the log reports the lost lines once"
        );
    }

    /// Has room for some bytes; reports each write with the bytes that it took.
    struct Disk {
        room: Arc<AtomicUsize>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.room.load(Ordering::SeqCst);
            let taken = &bytes[..bytes.len().min(room)];
            self.room.store(room - taken.len(), Ordering::SeqCst);
            let _ = self.written.send(taken.to_vec());
            match taken {
                [] => Err(io::ErrorKind::StorageFull.into()),
                _ => Ok(taken.len()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_do_not_fit_on_the_disk_are_reported_when_there_is_room() {
        let room = Arc::new(AtomicUsize::new(6));
        let (written, writes) = bounded(100);
        let disk = Disk {
            room: room.clone(),
            written,
        };
        let (lines, _writer) = Writer::start(disk, LogFormat::Text, 4, None).unwrap();
        let mut all = Vec::new();
        let next = |all: &mut Vec<u8>| all.extend(writes.recv().unwrap());
        write(&lines, "one\n");
        next(&mut all);
        write(&lines, "two\n");
        // The disk takes `tw` and no more.
        next(&mut all);
        next(&mut all);
        write(&lines, "three\n");
        next(&mut all);
        room.store(1_000, Ordering::SeqCst);
        write(&lines, "four\n");
        next(&mut all);
        write(&lines, "five\n");
        next(&mut all);
        let text = String::from_utf8(all).unwrap();
        let text: Vec<&str> = text.lines().collect();
        let [one, torn, four, notice, five] = text[..] else {
            panic!("{text:?}");
        };
        assert_eq!([one, torn, four, five], ["one", "tw", "four", "five"]);
        assert!(
            notice.contains(": 2 log lines dropped, because"),
            "{notice}"
        );
    }

    #[test]
    fn the_end_writes_what_is_queued() {
        let (lines, writer, writes, go) = slow();
        drop(go);
        for _ in 0..3 {
            write(&lines, "line\n");
        }
        Writer::end(&[&writer]);
        let all: Vec<u8> = writes.iter().flatten().collect();
        assert_eq!(all, b"line\nline\nline\n");
        write(&lines, "too late\n");
        assert_eq!(lines.dropped(), 1);
    }

    #[test]
    fn a_stalled_reader_does_not_keep_the_process_from_ending() {
        let (lines, writer, _writes, _go) = slow();
        write(&lines, "line\n");
        // Returns although nobody reads.
        Writer::end(&[&writer]);
        assert_eq!(
            writer.ended.try_recv(),
            Err(TryRecvError::Empty),
            "the log thread still writes"
        );
    }
}
