//! Log lines: formatted where they happen, written by one thread.
//!
//! A shard must never wait for whoever reads stderr, so a line goes through a bounded queue; when
//! that is full the line is dropped and counted, and the log itself says how many are missing.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{self, FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{CON_LOG, FORWARD_LOG, Log, LogFormat};
use crate::error::{Error, Result};
use crate::limits;

/// Bytes handed to one write.
const WRITE_BYTES: usize = 64 << 10;
/// How long the end of the process waits for the last lines.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Sends what is logged to stderr until the guard goes. A program that installed a subscriber of
/// its own before keeps that one.
pub fn start(config: &Log) -> Result<Guard> {
    let filter = filter(&config.level).map_err(|e| Error::Config(format!("log.level: {e}")))?;
    let (lines, guard) = writer(io::stderr(), config.format, limits::LOG_LINES_MAX)?;
    let layer = fmt::layer().with_writer(lines);
    let layer = match config.format {
        LogFormat::Text => layer
            .with_ansi(io::stderr().is_terminal())
            .compact()
            .boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .map_event_format(Spliced)
            .boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    let _ = subscriber.try_init();
    Ok(guard)
}

/// JSON lines where a message that is a JSON object itself gives its members to the line.
struct Spliced<F>(F);

impl<S, N, F> FormatEvent<S, N> for Spliced<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let (target, level) = (event.metadata().target(), event.metadata().level());
        if ![FORWARD_LOG, CON_LOG].contains(&target) {
            return self.0.format_event(context, line, event);
        }
        let mut message = Message::default();
        event.record(&mut message);
        let members = message.0.strip_prefix('{').unwrap_or("}");
        line.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut line)?;
        writeln!(
            line,
            "\",\"level\":\"{level}\",\"target\":\"{target}\",{members}"
        )
    }
}

/// The message of an event.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

/// Checks `log.level`. The text of a failure goes behind the key.
pub(crate) fn filter(level: &str) -> std::result::Result<EnvFilter, String> {
    let accepted = "accepted: error, warn, info, debug, trace, off, or a filter such as \
                    info,tangelo::rpc=debug";
    // On its own the filter takes a misspelt level for the name of a module and shows nothing else.
    let misspelt = |part: &&str| {
        !part.contains(['=', '['])
            && (part.is_empty() || part.parse::<tracing::level_filters::LevelFilter>().is_err())
    };
    if let Some(part) = level.split(',').find(misspelt) {
        return Err(format!("{part:?} is no level; {accepted}"));
    }
    EnvFilter::builder()
        .parse(level)
        .map_err(|e| format!("{level:?}: {e}; {accepted}"))
}

/// Keeps the log alive; dropping it writes what is queued, for at most a second.
#[derive(Debug)]
pub struct Guard {
    dropped: Arc<AtomicU64>,
    /// Closing it asks the writer to end.
    stop: Option<Sender<()>>,
    /// Closed by the writer when it has ended.
    ended: Receiver<()>,
}

impl Guard {
    /// Lines lost so far because the writer could not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop = None;
        // A reader that has stalled must not keep the process from ending.
        let _ = self.ended.recv_timeout(FLUSH_MAX);
    }
}

/// Where the subscriber writes to. Written by all threads; never blocks; full: the line is dropped
/// and counted. Cost: one allocation per line.
struct Lines {
    queue: Sender<Box<[u8]>>,
    dropped: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &Lines {
    /// The subscriber hands over a whole line at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(line.into()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn writer(
    out: impl Write + Send + 'static,
    format: LogFormat,
    lines_max: usize,
) -> Result<(Lines, Guard)> {
    let (queue, lines) = bounded(lines_max);
    let (stop, stopped) = bounded(0);
    let (end, ended) = bounded(0);
    let dropped = Arc::new(AtomicU64::new(0));
    let counter = dropped.clone();
    thread::Builder::new()
        .name("tangelo-log".into())
        .spawn(move || {
            write_lines(out, format, lines, &stopped, &counter);
            drop(end);
        })
        .map_err(|e| Error::Host(format!("cannot start the log thread: {e}")))?;
    Ok((
        Lines {
            queue,
            dropped: dropped.clone(),
        },
        Guard {
            dropped,
            stop: Some(stop),
            ended,
        },
    ))
}

/// Until told to stop, and then until the queue is empty. An error of the writer itself is ignored:
/// there is nowhere left to report it.
fn write_lines(
    mut out: impl Write,
    format: LogFormat,
    lines: Receiver<Box<[u8]>>,
    stopped: &Receiver<()>,
    dropped: &AtomicU64,
) {
    let mut batch = Vec::with_capacity(WRITE_BYTES);
    let mut told = 0;
    loop {
        let ending = select! {
            recv(lines) -> line => line.map(|line| batch.extend_from_slice(&line)).is_err(),
            recv(stopped) -> _ => true,
        };
        while batch.len() < WRITE_BYTES
            && let Ok(line) = lines.try_recv()
        {
            batch.extend_from_slice(&line);
        }
        let total = dropped.load(Ordering::Relaxed);
        if total > told {
            batch.extend_from_slice(notice(format, total - told).as_bytes());
            told = total;
        }
        let _ = out.write_all(&batch);
        batch.clear();
        if ending && lines.is_empty() {
            let _ = out.flush();
            return;
        }
    }
}

/// The line that stands for lost ones, in the shape of the others.
fn notice(format: LogFormat, lines: u64) -> String {
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let target = module_path!();
    match format {
        LogFormat::Text => format!("{time}  WARN {target}: {lines} log lines dropped\n"),
        LogFormat::Json => format!(
            "{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"message\":\"{lines} log lines \
             dropped\",\"dropped\":{lines},\"target\":\"{target}\"}}\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands every write to the test and waits until the test lets it go on.
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

    fn slow(format: LogFormat) -> (Lines, Guard, Receiver<Vec<u8>>, Sender<()>) {
        let (written, writes) = bounded(100);
        let (go, go_on) = bounded(100);
        let (lines, guard) = writer(Slow { written, go_on }, format, 4).unwrap();
        (lines, guard, writes, go)
    }

    fn write(mut lines: &Lines, line: &str) {
        lines.write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn an_invalid_level_names_the_key_and_what_is_accepted() {
        for level in ["debgu", "info,tangelo=loud", "info,", ""] {
            let log = Log {
                level: level.into(),
                ..Log::default()
            };
            let Err(Error::Config(text)) = start(&log) else {
                panic!("{level:?} was accepted")
            };
            assert!(text.starts_with("log.level: "), "{text}");
            assert!(
                text.contains("accepted: error, warn, info, debug, trace"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_level_or_a_filter_is_accepted() {
        for level in [
            "error",
            "INFO",
            "off",
            "info,tangelo::rpc=debug",
            "warn,forward-log=info",
            "warn,[shard{n=1}]=trace",
        ] {
            filter(level).unwrap();
        }
    }

    #[test]
    fn a_second_start_leaves_the_first_subscriber_in_place() {
        let first = start(&Log::default()).unwrap();
        let second = start(&Log::default()).unwrap();
        tracing::info!("seen once");
        drop(second);
        drop(first);
    }

    #[test]
    fn a_full_queue_drops_counts_and_says_so() {
        let (lines, guard, writes, go) = slow(LogFormat::Text);
        write(&lines, "first\n");
        assert_eq!(writes.recv().unwrap(), b"first\n");
        for n in 0..10 {
            write(&lines, &format!("{n}\n"));
        }
        assert_eq!(guard.dropped(), 6, "four fit into the queue");
        drop(go);
        let text = String::from_utf8(writes.recv().unwrap()).unwrap();
        assert!(text.starts_with("0\n1\n2\n3\n"), "{text}");
        assert!(text.ends_with(": 6 log lines dropped\n"), "{text}");
        write(&lines, "last\n");
        assert_eq!(writes.recv().unwrap(), b"last\n", "told once");
    }

    #[test]
    fn a_notice_is_a_line_like_the_others() {
        let text = notice(LogFormat::Text, 3);
        assert!(
            text.ends_with("  WARN tangelo::log: 3 log lines dropped\n"),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&notice(LogFormat::Json, 3)).unwrap();
        assert_eq!(json["dropped"], 3);
        assert_eq!(json["level"], "WARN");
    }

    #[test]
    fn dropping_the_guard_writes_what_is_queued() {
        let (lines, guard, writes, go) = slow(LogFormat::Text);
        drop(go);
        for _ in 0..3 {
            write(&lines, "line\n");
        }
        drop(guard);
        let all: Vec<u8> = writes.iter().flatten().collect();
        assert_eq!(all, b"line\nline\nline\n");
        write(&lines, "too late\n");
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_stalled_reader_does_not_keep_the_process_from_ending() {
        let (lines, guard, _writes, _go) = slow(LogFormat::Text);
        write(&lines, "line\n");
        let before = std::time::SystemTime::now();
        drop(guard);
        // A hang guard: without a bound it would not end at all.
        assert!(before.elapsed().unwrap() < 60 * FLUSH_MAX);
    }
}
