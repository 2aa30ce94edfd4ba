//! The results of a comparison, as JSON and as tables, with machine and command.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::rows::{Metric, Point, Side, Target};

mod curves;
mod plot;

pub(crate) type Numbers = BTreeMap<Metric, f64>;

#[derive(Serialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<RowResult>,
}

#[derive(Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    node: String,
    commit: String,
    command: String,
}

#[derive(Serialize)]
pub(crate) struct RowResult {
    pub(crate) name: &'static str,
    pub(crate) work: &'static str,
    /// Place of the row in the plot of CPU per message.
    pub(crate) point: Option<Point>,
    pub(crate) sides: Vec<SideResult>,
    pub(crate) checks: Vec<CheckResult>,
}

#[derive(Serialize)]
pub(crate) struct SideResult {
    pub(crate) name: &'static str,
    pub(crate) command: String,
    pub(crate) rounds: Vec<Round>,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Round {
    Measured(Numbers),
    Failed {
        failed: String,
    },
    /// The server cannot be built on this machine.
    NotBuilt {
        not_built: String,
    },
}

#[derive(Serialize)]
pub(crate) struct CheckResult {
    pub(crate) of: &'static str,
    pub(crate) metric: Metric,
    pub(crate) target: Target,
    /// Over the rounds; none when no round has both sides.
    pub(crate) spread: Option<Spread>,
    pub(crate) verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Met,
    Missed,
    NotMeasured,
    /// The server to compare with cannot be built on this machine.
    NotBuilt,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Results {
    /// Writes `compare.md`, `compare.json`, `compare.svg` and `compare-curves.svg`.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("compare.md"), self.markdown())?;
        let json = serde_json::to_string_pretty(self)? + "\n";
        fs::write(folder.join("compare.json"), json)?;
        fs::write(folder.join("compare.svg"), plot::draw(&self.rows)?)?;
        fs::write(folder.join("compare-curves.svg"), curves::draw(&self.rows)?)
    }

    fn markdown(&self) -> String {
        let machine = &self.machine;
        format!(
            "# The last comparison\n\n{machine}\n{}\n{}",
            self.checks_table(),
            self.sides_table()
        )
    }

    pub(crate) fn checks_table(&self) -> String {
        let mut out = String::from(
            "| work | what | against | median | min … max | target | |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for row in &self.rows {
            for check in &row.checks {
                let (median, range) = check.spread.map_or(("–".into(), "–".into()), |spread| {
                    let range = format!("{} … {}", short(spread.min), short(spread.max));
                    (check.with_unit(spread.median), range)
                });
                let sign = match check.target {
                    Target::Better(..) => "≥",
                    _ => "≤",
                };
                let _ = writeln!(
                    out,
                    "| {} | {} | {} | {median} | {range} | {sign} {} | {} |",
                    row.work,
                    check.what(),
                    check.target.against().unwrap_or("–"),
                    check.with_unit(check.target.bound()),
                    match check.verdict {
                        Verdict::Met => "met",
                        Verdict::Missed => "**missed**",
                        Verdict::NotMeasured => "not measured",
                        Verdict::NotBuilt => "not built",
                    }
                );
            }
        }
        out
    }

    /// Returns the table with the medians of each side.
    fn sides_table(&self) -> String {
        let metrics = Metric::ALL;
        let names: Vec<&str> = metrics.iter().map(|metric| metric.name()).collect();
        let mut out = format!("| work | side | {} |\n", names.join(" | "));
        out.push_str(&format!("| --- | --- |{}\n", " --- |".repeat(names.len())));
        for row in &self.rows {
            for side in &row.sides {
                let medians = metrics.map(|metric| side.median(metric));
                let shown = medians.map(|median| median.map_or("–".into(), short));
                let _ = writeln!(
                    out,
                    "| {} | {} | {} |",
                    row.work,
                    side.name,
                    shown.join(" | ")
                );
            }
        }
        out
    }
}

impl Machine {
    pub(crate) fn this(command: String, cores: usize) -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|line| line.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let changes = output("git", &["--no-optional-locks", "status", "--porcelain"]);
        let mut commit = output("git", &["rev-parse", "--short", "HEAD"]);
        if !changes.is_empty() {
            commit.push_str(" with changes");
        }
        Self {
            cpu: model.map_or("an unknown CPU", |(_, name)| name).to_owned(),
            cores,
            kernel: kernel.trim().to_owned(),
            node: output("node", &["--version"]),
            commit,
            command,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} cores of {}, Linux {}, Node {}, commit {}.\n`{}`",
            self.cores, self.cpu, self.kernel, self.node, self.commit, self.command
        )
    }
}

/// Runs a command in the folder of this package and returns its output; empty when it fails.
fn output(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    let printed = command.output().map(|output| output.stdout);
    let printed = String::from_utf8(printed.unwrap_or_default()).unwrap_or_default();
    printed.trim().to_owned()
}

impl RowResult {
    pub(crate) fn failures(&self) -> usize {
        let rounds = self.sides.iter().flat_map(|side| &side.rounds);
        rounds
            .filter(|round| matches!(round, Round::Failed { .. }))
            .count()
    }
}

impl Round {
    pub(crate) fn numbers(&self) -> Option<&Numbers> {
        match self {
            Self::Measured(numbers) => Some(numbers),
            Self::Failed { .. } | Self::NotBuilt { .. } => None,
        }
    }
}

impl SideResult {
    pub(crate) fn new(side: &Side) -> Self {
        Self {
            name: side.name,
            command: side.command.clone(),
            rounds: Vec::new(),
        }
    }

    pub(crate) fn is_not_built(&self) -> bool {
        let mut rounds = self.rounds.iter();
        rounds.any(|round| matches!(round, Round::NotBuilt { .. }))
    }

    fn median(&self, metric: Metric) -> Option<f64> {
        let rounds = self.rounds.iter().filter_map(Round::numbers);
        let values = rounds.filter_map(|numbers| numbers.get(&metric).copied());
        Some(Spread::of(values.collect())?.median)
    }
}

impl CheckResult {
    /// Returns the name of the metric, behind the name of its side where that is not the gateway.
    pub(crate) fn what(&self) -> String {
        match self.of {
            "tangelo" => self.metric.name().to_owned(),
            of => format!("{of}: {}", self.metric.name()),
        }
    }

    fn with_unit(&self, value: f64) -> String {
        match self.target {
            Target::Within(..) | Target::Better(..) => format!("{}×", short(value)),
            Target::Adds(..) if value >= 0.0 => format!("+{}", short(value)),
            Target::Adds(..) | Target::AtMost(_) => short(value),
        }
    }
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { min, median, max })
    }
}

/// Formats a number with three significant digits.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let median = |values: &[f64]| Spread::of(values.to_vec()).map(|spread| spread.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
