//! Output of the process: the log on standard error, and a few lines on standard output.
//!
//! A shard must never wait for the reader of these streams. So each line goes through a bounded queue
//! to a thread that writes it. When the queue is full, the line is dropped and counted, and a later
//! line reports the number of missing lines.
//!
//! The lines of tangelo are limited per kind (`limit.rs`), because a refused client may reconnect
//! thousands of times a second. Lines of the application, and the data lines of [`FORWARD_LOG`] and
//! [`CON_LOG`], are not limited.

use std::fmt::Write as _;
use std::hash::BuildHasher as _;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::fmt::format::{DefaultFields, Writer as Text};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{self, FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{CON_LOG, FORWARD_LOG, Log, LogFormat};
use crate::error::{Error, Result};
use crate::limits;
use crate::metrics::{self, Counter};

mod limit;
mod output;

use limit::{Kinds, Verdict};
use output::{Line, Lines, Sample, Writer};

/// Log target of this room.
const TARGET: &str = module_path!();

/// Writes the log to standard error until the output ends. If the program has installed a subscriber of
/// its own, that one stays.
pub(crate) fn start(config: &Log) -> Result<Output> {
    let filter = filter(&config.level).map_err(|e| Error::Config(format!("log.level: {e}")))?;
    let kinds = Arc::new(Kinds::new(limits::LOG_KINDS_MAX, limits::LOG_WINDOW));
    let (lines, log) = Writer::start(
        io::stderr(),
        config.format,
        limits::LOG_LINES_MAX,
        Some(kinds.clone()),
    )?;
    let (stdout_lines, stdout) =
        Writer::start(io::stdout(), config.format, limits::STDOUT_LINES_MAX, None)?;
    let (filter, level) = reload::Layer::new(filter);
    let _ = subscriber(config.format, filter, lines, kinds).try_init();
    Ok(Output {
        format: config.format,
        level,
        stdout_lines,
        log,
        stdout,
    })
}

fn subscriber(
    format: LogFormat,
    filter: reload::Layer<EnvFilter, Registry>,
    lines: Lines,
    kinds: Arc<Kinds>,
) -> impl Subscriber + Send + Sync {
    let limiter = Limiter {
        kinds,
        lines: lines.clone(),
    };
    let layer = fmt::layer().with_writer(lines);
    let layer = match format {
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
    tracing_subscriber::registry()
        .with(filter)
        .with(limiter)
        .with(layer)
}

/// Both streams of the process. Dropping it writes the queued lines, for at most a second.
#[derive(Debug)]
pub(crate) struct Output {
    format: LogFormat,
    level: reload::Handle<EnvFilter, Registry>,
    stdout_lines: Lines,
    log: Writer,
    stdout: Writer,
}

impl Output {
    /// Writes a line to standard output: the message, or with `log.format = "json"` an object with the
    /// message and `members`. It never waits for the reader.
    pub(crate) fn say(
        &self,
        message: &str,
        members: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        let line = match self.format {
            LogFormat::Text => format!("{message}\n"),
            LogFormat::Json => json_line(Level::INFO, PROGRAM, message, members),
        };
        self.stdout_lines.send(Line::Text(line.into_bytes().into()));
    }

    /// Changes the level. Returns false if the program has installed a subscriber of its own, which stays as it is.
    pub(crate) fn set_level(&self, level: EnvFilter) -> bool {
        self.level.reload(level).is_ok()
    }

    /// Returns whether the log has the level of tangelo: the program has installed no subscriber of its own.
    pub(crate) fn has_level(&self) -> bool {
        self.level.with_current(|_| ()).is_ok()
    }

    /// Writes the queued lines, for at most a second. Later lines are dropped.
    pub(crate) fn end(&self) {
        Writer::end(&[&self.log, &self.stdout]);
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.end();
    }
}

/// Writes the reason for a failed start or end to standard error. Waits for the reader at most a
/// second.
pub(crate) fn last_words(format: LogFormat, error: &Error) {
    let text = match format {
        LogFormat::Text => format!("{PROGRAM}: {error}\n"),
        LogFormat::Json => json_line(Level::ERROR, PROGRAM, &error.to_string(), []),
    };
    if let Ok((lines, writer)) = Writer::start(io::stderr(), format, 1, None) {
        lines.send(Line::Text(text.into_bytes().into()));
        Writer::end(&[&writer]);
    }
}

/// Log target of lines about the whole process.
const PROGRAM: &str = "tangelo";

/// Keeps the lines of each kind within their limit.
struct Limiter {
    kinds: Arc<Kinds>,
    lines: Lines,
}

impl<S: Subscriber> Layer<S> for Limiter {
    /// Cost of a line over the limit: one count. Only the first such line of a window is formatted.
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if !is_own(metadata.target()) {
            return true;
        }
        let hasher = foldhash::fast::FixedState::default();
        let sample_of = match self.kinds.count(hasher.hash_one(metadata.callsite())) {
            Verdict::Write => return true,
            Verdict::Sample(kind) => Some(kind),
            Verdict::Suppress => None,
        };
        metrics::count_for_process(Counter::LogLinesSuppressed);
        if let Some(kind) = sample_of {
            let sample = Sample {
                level: *metadata.level(),
                target: metadata.target(),
                text: text_of(event),
            };
            self.lines.send(Line::Sample(kind, Box::new(sample)));
        }
        false
    }
}

/// Returns true for a log target of tangelo.
fn is_own(target: &str) -> bool {
    let rest = target.strip_prefix(PROGRAM);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns message and fields of an event on one line, cut to `limits::LOG_TEXT_BYTES_MAX`.
fn text_of(event: &Event<'_>) -> String {
    let mut text = String::new();
    let _ = DefaultFields::new().format_fields(Text::new(&mut text), event);
    text.truncate(text.floor_char_boundary(limits::LOG_TEXT_BYTES_MAX));
    text.replace('\n', "\\n")
}

/// JSON lines. If the message is a JSON object, its members become members of the line.
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
        mut line: Text<'_>,
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

/// Parses `log.level`. The text of an error follows the key.
pub(crate) fn filter(level: &str) -> std::result::Result<EnvFilter, String> {
    let accepted = "expected error, warn, info, debug, trace, off, or a filter such as \
                    info,tangelo::peer=debug";
    // Without this check, the filter would take a misspelled level for a module name and show nothing
    // else.
    let misspelt = |part: &&str| {
        !part.contains(['=', '['])
            && (part.is_empty() || part.parse::<tracing::level_filters::LevelFilter>().is_err())
    };
    if let Some(part) = level.split(',').find(misspelt) {
        return Err(format!("{part:?} is not a level; {accepted}"));
    }
    EnvFilter::builder()
        .parse(level)
        .map_err(|e| format!("{level:?}: {e}; {accepted}"))
}

/// Formats a log line that does not come from a tracing event.
fn line(
    format: LogFormat,
    level: Level,
    target: &str,
    message: &str,
    members: impl IntoIterator<Item = (&'static str, Value)>,
) -> String {
    match format {
        LogFormat::Text => format!("{} {level:>5} {target}: {message}\n", timestamp()),
        LogFormat::Json => json_line(level, target, message, members),
    }
}

fn json_line(
    level: Level,
    target: &str,
    message: &str,
    members: impl IntoIterator<Item = (&'static str, Value)>,
) -> String {
    let mut line = serde_json::Map::new();
    let mut insert = |name: &str, value| line.insert(name.to_owned(), value);
    insert("timestamp", timestamp().into());
    insert("level", level.as_str().into());
    insert("message", message.into());
    for (name, value) in members {
        insert(name, value);
    }
    insert("target", target.into());
    format!("{}\n", Value::Object(line))
}

fn timestamp() -> String {
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut Text::new(&mut time));
    time
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_invalid_level_names_the_key_and_the_expected_levels() {
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
                text.contains("expected error, warn, info, debug, trace"),
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
            "info,tangelo::peer=debug",
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
    fn a_line_without_an_event_looks_like_the_others() {
        let text = line(LogFormat::Text, Level::WARN, TARGET, "3 lines", []);
        assert!(text.ends_with("Z  WARN tangelo::log: 3 lines\n"), "{text}");
        let members = [("lines", 3.into())];
        let json = line(LogFormat::Json, Level::WARN, TARGET, "3 \"lines\"", members);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["lines"], 3);
        assert_eq!(json["level"], "WARN");
        assert_eq!(json["message"], "3 \"lines\"");
        assert_eq!(json["target"], TARGET);
    }

    /// Hands every write to the test.
    struct Stream(crossbeam_channel::Sender<Vec<u8>>);

    impl io::Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Written = crossbeam_channel::Receiver<Vec<u8>>;

    /// Runs `log` with a log of this format.
    fn logged(format: LogFormat, window: Duration, log: impl FnOnce()) -> (Writer, Written) {
        let (stream, written) = crossbeam_channel::unbounded();
        let kinds = Arc::new(Kinds::new(limits::LOG_KINDS_MAX, window));
        let lines_max = limits::LOG_LINES_MAX;
        let started = Writer::start(Stream(stream), format, lines_max, Some(kinds.clone()));
        let (lines, writer) = started.unwrap();
        let (filter, _level) = reload::Layer::new(filter("info").unwrap());
        let subscriber = subscriber(format, filter, lines, kinds);
        tracing::subscriber::with_default(subscriber, log);
        (writer, written)
    }

    /// Ends the log and returns its lines.
    fn text((writer, written): (Writer, Written)) -> Vec<String> {
        Writer::end(&[&writer]);
        let text = String::from_utf8(written.iter().flatten().collect()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    const BURST: usize = limits::LOG_BURST_MAX as usize;

    #[test]
    fn lines_over_the_limit_are_one_line_with_their_number_and_an_example() {
        let lines = text(logged(LogFormat::Text, limits::LOG_WINDOW, || {
            for n in 0..BURST + 412 {
                tracing::warn!(address = format!("192.0.2.1:{n}"), "a client is refused");
            }
            tracing::info!("another kind");
        }));
        assert_eq!(lines.len(), BURST + 2, "{lines:?}");
        assert!(lines[BURST].ends_with("another kind"), "{lines:?}");
        let (number, example) = lines[BURST + 1].split_once(" s, such as: ").unwrap();
        let number_of = " WARN tangelo::log::tests: and 412 more in ";
        assert!(number.contains(number_of), "{lines:?}");
        let expected = format!("a client is refused address=\"192.0.2.1:{BURST}\"");
        assert_eq!(example, expected);
    }

    #[test]
    fn a_summary_in_json_has_its_number_as_a_number() {
        let lines = text(logged(LogFormat::Json, limits::LOG_WINDOW, || {
            for n in 0..BURST + 3 {
                tracing::warn!(n, "two\nlines");
            }
        }));
        let lines = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        assert_eq!(lines.len(), BURST + 1);
        let summary = &lines[BURST];
        assert_eq!(summary["suppressed"], 3);
        assert_eq!(summary["level"], "WARN");
        assert_eq!(summary["target"], "tangelo::log::tests");
        assert_eq!(summary["example"], format!("two\\nlines n={BURST}"));
    }

    #[test]
    fn a_summary_comes_at_the_end_of_its_window_though_no_further_line_does() {
        let window = Duration::from_millis(50);
        let (writer, written) = logged(LogFormat::Text, window, || {
            for _ in 0..1000 {
                tracing::warn!("again");
            }
        });
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains(" s, such as: again") {
            let more = written.recv_timeout(Duration::from_secs(60));
            text.extend(more.expect("the summary comes"));
        }
        drop(writer);
    }

    #[test]
    fn lines_of_the_application_and_data_are_not_limited() {
        let lines = text(logged(LogFormat::Text, limits::LOG_WINDOW, || {
            for _ in 0..3 * BURST {
                tracing::info!(target: FORWARD_LOG, "{{}}");
                tracing::info!(target: CON_LOG, "{{}}");
                tracing::info!(target: "tangelo_game", "a player has come");
            }
        }));
        assert_eq!(lines.len(), 9 * BURST);
    }

    #[test]
    fn a_line_over_the_limit_is_not_formatted() {
        struct Costly<'a>(&'a std::cell::Cell<usize>);
        impl std::fmt::Display for Costly<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.set(self.0.get() + 1);
                f.write_str("costly")
            }
        }
        let formatted = std::cell::Cell::new(0);
        let log = logged(LogFormat::Text, limits::LOG_WINDOW, || {
            for _ in 0..1000 {
                tracing::info!(costly = %Costly(&formatted), "again");
            }
        });
        drop(log);
        assert_eq!(formatted.get(), BURST + 1, "the example is formatted too");
    }
}
