//! `docs/metrics.md`, written from the metrics of a gateway.

use std::fmt::Write as _;

use super::exposition::kind_of;
use super::tests::view;
use super::*;
use crate::config::reference::assert_current;
use crate::error::CloseReason;

const HEAD: &str = "\
# Metrics

Every metric that `GET /metrics` of the operators' port shows. [operations.md](operations.md#operators-port) says how to open the
port. The names are those of OpenMetrics. A line of SIGUSR1 and of the end has the same counters, added up over the shards, without
`tangelo_` and `_total`; there, each reason of `tangelo_connections_closed_total` is a counter of its own, as in `closed_left`.

This file is made from the metrics of a gateway, whose documentation stands in `src/metrics.rs`. After a change there,
`TANGELO_WRITE_REFERENCE=1 cargo test --lib the_reference_of_metrics` writes it.

| metric | kind | labels | content |
|---|---|---|---|
";

fn reference() -> String {
    let view = view("");
    // Otherwise the metric of calls has no value.
    view.counters[0].name_type(0, "chat");
    let text = Exposition::new(Arc::new(view)).open_metrics();
    let mut out = HEAD.to_owned();
    let (mut lines, mut help) = (text.lines(), "");
    while let Some(line) = lines.next() {
        if let Some(doc) = line.strip_prefix("# HELP ") {
            help = doc.split_once(' ').expect("a name and a text").1;
        }
        let Some((_, kind)) = kind_of(line) else {
            continue;
        };
        let sample = lines.clone().next().expect("a metric has a value");
        let name = sample.split(['{', ' ']).next().unwrap_or_default();
        // One histogram has several.
        let name = name.strip_suffix("_sum").unwrap_or(name);
        let labels = sample.split_once('{').map_or("", |(_, labels)| labels);
        let labels = labels
            .split("\",")
            .filter_map(|label| label.split_once('='));
        let labels: Vec<String> = labels.map(|(label, _)| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        let _ = writeln!(out, "| `{name}` | {kind} | {labels} | {help} |");
    }
    out += "\n## Reasons of a close\n\n";
    out += "| `reason` | content |\n|---|---|\n";
    for (name, doc) in CloseReason::COUNTERS.iter().zip(CloseReason::DOCS) {
        let reason = name.strip_prefix("closed_").unwrap_or(name);
        let _ = writeln!(out, "| `{reason}` | {} |", doc.trim());
    }
    out
}

#[test]
fn the_reference_of_metrics_is_up_to_date() {
    assert_current("metrics.md", &reference());
}
