//! The metrics of a process as text, which a Prometheus server reads.
//!
//! The table in `metrics.rs` has the counters and their documentation. Each of them is read when a server asks.

use std::fmt::{Error, Write as _};
use std::sync::Arc;

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, WithCurrentSystemInfo as _};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{View, health};
use crate::metrics::{
    self, BUCKETS, Counter, CounterKind, Counters, Histogram, Measure, MeasureUnit,
};

/// Content type of OpenMetrics.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of the text format before OpenMetrics.
pub(super) const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of a process.
pub(super) struct Exposition(Registry);

impl Exposition {
    pub(super) fn new(view: Arc<View>) -> Self {
        let mut registry = Registry::default();
        let own = registry.sub_registry_with_prefix("tangelo");
        own.register_collector(Box::new(Own(view.clone())));
        own.register_collector(Box::new(Shards(view)));
        registry.register_collector(Box::new(Kernel));
        Self(registry)
    }

    /// Returns the metrics in the OpenMetrics format.
    pub(super) fn open_metrics(&self) -> String {
        let mut text = String::new();
        let encoded = text::encode(&mut text, &self.0);
        debug_assert!(encoded.is_ok(), "a String takes all");
        text
    }
}

/// Returns metrics in the text format before OpenMetrics, where a counter has its suffix in its name.
pub(super) fn plain(open_metrics: &str) -> String {
    let mut plain = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            help = line;
        } else if let Some((name, kind)) = kind_of(line) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            let doc = help.splitn(4, ' ').last().unwrap_or_default();
            let _ = writeln!(plain, "# HELP {name}{suffix} {doc}");
            let _ = writeln!(plain, "# TYPE {name}{suffix} {kind}");
        } else if line != "# EOF" {
            plain.push_str(line);
            plain.push('\n');
        }
    }
    plain
}

/// Returns the name and the kind in a line that has them.
pub(super) fn kind_of(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

/// The state of the process.
#[derive(Debug)]
struct Own(Arc<View>);

impl Collector for Own {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> Result<(), Error> {
        let view = &self.0;
        let doc = "The version of tangelo and its commit, which is unknown in the build of a working copy.";
        out.encode_descriptor("build", doc, None, MetricType::Info)?
            .encode_info(&[("version", metrics::VERSION), ("commit", metrics::COMMIT)])?;
        let doc = "1 while /readyz says that this server should get new clients.";
        out.encode_descriptor("ready", doc, None, MetricType::Gauge)?
            .encode_gauge(&u32::from(health::ready(view).0.is_success()))?;
        let expiries = view.expiries.load();
        if !expiries.is_empty() {
            let doc = "End of the validity of a certificate in use, in seconds since 1970.";
            let name = "tls_certificate_expires_seconds";
            let mut family = out.encode_descriptor(name, doc, None, MetricType::Gauge)?;
            for expiry in expiries.iter() {
                family
                    .encode_family(&[("file", &*expiry.file)])?
                    .encode_gauge(&expiry.seconds())?;
            }
        }
        let process = [metrics::of_process()];
        let process = process.into_iter().chain(&view.counters[view.shards()..]);
        for row in Counter::ROWS
            .iter()
            .filter(|row| row.kind == CounterKind::OfProcess)
        {
            let count = |counters: &Counters| counters.get(row.counter);
            let sum: u64 = process.clone().map(count).sum();
            out.encode_descriptor(row.name, row.doc, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, u64>(&sum, None)?;
        }
        Ok(())
    }
}

/// The state of each shard.
#[derive(Debug)]
struct Shards(Arc<View>);

impl Collector for Shards {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> Result<(), Error> {
        let view = &self.0;
        let shards = || {
            let shards = view.counters[..view.shards()].iter().enumerate();
            shards.map(|(shard, counters)| (shard.to_string(), counters))
        };
        let doc = "1 while the shard does not tick.";
        let mut stalled = out.encode_descriptor("shard_stalled", doc, None, MetricType::Gauge)?;
        for ((shard, _), activity) in shards().zip(&view.activities) {
            let is_stalled = u32::from(activity.is_stalled());
            stalled
                .encode_family(&[("shard", &*shard)])?
                .encode_gauge(&is_stalled)?;
        }
        for row in Counter::ROWS {
            let kind = match row.kind {
                CounterKind::OfShard => MetricType::Counter,
                CounterKind::Gauge => MetricType::Gauge,
                CounterKind::OfProcess => continue,
            };
            let mut family = out.encode_descriptor(row.name, row.doc, None, kind)?;
            for (shard, counters) in shards() {
                let count = counters.get(row.counter);
                let labels = [("shard", &*shard)];
                let mut metric = family.encode_family(&labels)?;
                match row.kind {
                    CounterKind::Gauge => metric.encode_gauge(&count)?,
                    _ => metric.encode_counter::<NoLabelSet, _, u64>(&count, None)?,
                }
            }
        }
        for (measure, name, unit, doc) in Measure::ROWS {
            let mut family = out.encode_descriptor(name, doc, None, MetricType::Histogram)?;
            for (shard, counters) in shards() {
                let labels = [("shard", &*shard)];
                let metric = family.encode_family(&labels)?;
                encode_histogram(metric, counters.measure(*measure), *unit)?;
            }
        }
        let (name, doc) = metrics::CALLS;
        let mut family = out.encode_descriptor(name, doc, None, MetricType::Histogram)?;
        for (shard, counters) in shards() {
            for (server_type, times) in counters.calls() {
                let labels = [("server_type", server_type), ("shard", &*shard)];
                let metric = family.encode_family(&labels)?;
                encode_histogram(metric, times, MeasureUnit::Microseconds)?;
            }
        }
        let doc = "Connections of clients closed, by reason.";
        let mut closed =
            out.encode_descriptor("connections_closed", doc, None, MetricType::Counter)?;
        for (shard, counters) in shards() {
            for (name, count) in counters.closes() {
                let reason = name.strip_prefix("closed_").unwrap_or(name);
                let labels = [("reason", reason), ("shard", &*shard)];
                closed
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }
}

/// Encodes a histogram with the upper bounds of its buckets.
fn encode_histogram(
    mut out: MetricEncoder<'_>,
    histogram: &Histogram,
    unit: MeasureUnit,
) -> Result<(), Error> {
    let scale = match unit {
        MeasureUnit::Microseconds => 1e6,
        MeasureUnit::Bytes => 1.0,
    };
    let counts = histogram.counts();
    let buckets = counts.iter().enumerate().map(|(bucket, count)| {
        let is_last = bucket == BUCKETS - 1;
        let bound = if is_last {
            f64::INFINITY
        } else {
            (1u64 << bucket) as f64 / scale
        };
        (bound, *count)
    });
    let buckets: Vec<(f64, u64)> = buckets.collect();
    let sum = histogram.sum() as f64 / scale;
    out.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
}

/// The kernel's account of this process, by the names that all Prometheus clients use. Where one of them cannot
/// be read, all are left out.
#[derive(Debug)]
struct Kernel;

impl Collector for Kernel {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Ok(figures) = ProcessFigures::read() else {
            return Ok(());
        };
        out.encode_descriptor(
            "process_cpu_seconds",
            "CPU time of the process, in user and system mode.",
            None,
            MetricType::Counter,
        )?
        .encode_counter::<NoLabelSet, _, u64>(&figures.cpu_seconds, None)?;
        for (name, doc, value) in [
            (
                "process_resident_memory_bytes",
                "Resident memory of the process.",
                figures.resident_bytes as f64,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory of the process.",
                figures.virtual_bytes as f64,
            ),
            (
                "process_start_time_seconds",
                "Start of the process, in seconds since 1970.",
                figures.started_seconds,
            ),
            (
                "process_open_fds",
                "Open file descriptors of the process.",
                figures.open_files as f64,
            ),
            (
                "process_max_fds",
                "Largest number of open file descriptors.",
                figures.files_max,
            ),
            (
                "process_threads",
                "Threads of the process.",
                figures.threads as f64,
            ),
        ] {
            out.encode_descriptor(name, doc, None, MetricType::Gauge)?
                .encode_gauge(&value)?;
        }
        Ok(())
    }
}

struct ProcessFigures {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    started_seconds: f64,
    open_files: usize,
    files_max: f64,
    threads: i64,
}

impl ProcessFigures {
    fn read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks_per_second = procfs::ticks_per_second() as f64;
        let files_max = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => limit as f64,
            LimitValue::Unlimited => f64::INFINITY,
        };
        let boot_seconds = procfs::boot_time_secs()? as f64;
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks_per_second,
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            started_seconds: boot_seconds + stat.starttime as f64 / ticks_per_second,
            open_files: process.fd_count()?,
            files_max,
            threads: stat.num_threads,
        })
    }
}

impl View {
    fn shards(&self) -> usize {
        self.activities.len()
    }
}
