//! `compare`: every row of the targets, all sides of a row in turn: A B C A B C. With `--old`, the
//! gateway alone, by two binaries: `compare/change.rs`.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use clap::Parser as _;

use crate::process::check_stop;
use crate::report::{
    CheckResult, Machine, Numbers, Results, Round, RowResult, SideResult, Spread, Verdict,
};
use crate::rows::{Check, Metric, ROWS, Row, Side};
use crate::{Arguments, Command, idle, load};

mod change;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Number of runs of each side; by default 3, and 5 with --old
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: Option<u16>,
    /// Length of each measurement, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Length of the warm-up before it, in seconds
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=60))]
    warm_up: u64,
    /// Rows to run, separated by commas; by default all; --list names them
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    rows: Vec<String>,
    /// Print the rows and their commands, and run nothing
    #[arg(long)]
    list: bool,
    /// The gateway's binary; by default the one beside this program
    #[arg(long)]
    pub(crate) tangelo: Option<PathBuf>,
    /// Earlier binary of the gateway to compare with; the command fails when a row has become slower
    #[arg(long, value_name = "PATH")]
    old: Option<PathBuf>,
    /// Folder for the results; by default `perf/results`, and none with --old
    #[arg(long)]
    pub(crate) results: Option<PathBuf>,
}

/// Where the results of a run without `--old` go.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results");

pub(crate) fn run(options: &Options, available: &[usize]) -> io::Result<()> {
    let rows = options.selected()?;
    if options.list {
        for row in rows {
            println!("{}: {}", row.name, row.work);
            for side in &row.sides {
                println!("  {:14} tangelo-perf {}", side.name, side.command);
            }
        }
        return Ok(());
    }
    if let Some(old) = &options.old {
        if options.rounds() < change::ROUNDS_MIN {
            let text = format!("--old needs --rounds {} or more", change::ROUNDS_MIN);
            return Err(io::Error::other(text));
        }
        return change::run(options, old, &rows, available);
    }
    let folder = options.results.as_deref().unwrap_or(Path::new(RESULTS));
    let mut results = Results {
        machine: Machine::this(options.command(), available.len()),
        rows: Vec::new(),
    };
    let mut failures = 0;
    for row in rows {
        let row = options.measure(row, available)?;
        failures += row.failures();
        results.rows.push(row);
        // After each row: what is measured is not lost with what comes.
        results.write(folder)?;
    }
    print!("\n{}", results.checks_table());
    println!("results are in {}", folder.display());
    if failures > 0 {
        return Err(io::Error::other(format!(
            "{failures} runs failed; see the lines above"
        )));
    }
    Ok(())
}

impl Options {
    fn selected(&self) -> io::Result<Vec<&'static Row>> {
        let wrong = |name: &&String| ROWS.iter().all(|row| row.name != name.as_str());
        if let Some(name) = self.rows.iter().find(wrong) {
            let names: Vec<&str> = ROWS.iter().map(|row| row.name.as_str()).collect();
            let text = format!(
                "--rows: the row `{name}` does not exist; the rows are {}",
                names.join(", ")
            );
            return Err(io::Error::other(text));
        }
        let is_wanted = |row: &&Row| self.rows.is_empty() || self.rows.contains(&row.name);
        Ok(ROWS.iter().filter(is_wanted).collect())
    }

    pub(crate) fn rounds(&self) -> u16 {
        let usual = if self.old.is_some() {
            change::ROUNDS_MIN
        } else {
            3
        };
        self.rounds.unwrap_or(usual)
    }

    /// Returns the command line that runs this comparison again.
    pub(crate) fn command(&self) -> String {
        let mut command = format!(
            "tangelo-perf compare --rounds {} --seconds {} --warm-up {}",
            self.rounds(),
            self.seconds,
            self.warm_up
        );
        if self.old.is_some() {
            command.push_str(" --old OLD");
        }
        if !self.rows.is_empty() {
            command.push_str(&format!(" --rows {}", self.rows.join(",")));
        }
        command
    }

    fn measure(&self, row: &'static Row, available: &[usize]) -> io::Result<RowResult> {
        println!("\n{}: {}", row.name, row.work);
        let mut sides: Vec<SideResult> = row.sides.iter().map(SideResult::new).collect();
        for round in 1..=self.rounds() {
            for (side, result) in row.sides.iter().zip(&mut sides) {
                println!("{} {round}/{}: {}", row.name, self.rounds(), side.command);
                // One that fails does not end all of them.
                let round = match self.run_side(side, self.tangelo.as_deref(), available) {
                    Ok(numbers) => Round::Measured(numbers),
                    Err(error) if error.kind() == ErrorKind::Unsupported => {
                        println!("  not built: {error}");
                        let not_built = error.to_string();
                        Round::NotBuilt { not_built }
                    }
                    Err(error) => {
                        check_stop()?;
                        println!("  failed: {error}");
                        let failed = error.to_string();
                        Round::Failed { failed }
                    }
                };
                result.rounds.push(round);
            }
        }
        Ok(RowResult {
            name: &row.name,
            work: &row.work,
            point: row.point,
            checks: row.checks.iter().map(|c| judge(c, &sides)).collect(),
            sides,
        })
    }

    /// Runs the command of a side once, with this binary of the gateway.
    pub(crate) fn run_side(
        &self,
        side: &Side,
        tangelo: Option<&Path>,
        available: &[usize],
    ) -> io::Result<Numbers> {
        let mut words = vec!["tangelo-perf".to_owned()];
        words.extend(side.command.split_whitespace().map(str::to_owned));
        if let Some(path) = tangelo {
            words.push(format!("--tangelo={}", path.display()));
        }
        if words[1] == "load" {
            words.push(format!("--seconds={}", self.seconds));
            words.push(format!("--warm-up={}", self.warm_up));
        }
        let arguments = Arguments::try_parse_from(words);
        match arguments.map_err(io::Error::other)?.command {
            Command::Load(options) => {
                let measured = load::run_once(&options, available)?;
                measured.print();
                Ok(Numbers::from([
                    (Metric::CpuUs, measured.cpu_us()),
                    (Metric::Rate, measured.rate()),
                    (Metric::P50Ms, measured.latency_ms(0.5)),
                    (Metric::P99Ms, measured.latency_ms(0.99)),
                    (Metric::P999Ms, measured.latency_ms(0.999)),
                    (Metric::ServerPercent, measured.percent(measured.server)),
                    (Metric::LoadPercent, measured.percent(measured.own)),
                    (Metric::OthersPercent, measured.percent(measured.others)),
                ]))
            }
            Command::Idle(options) => {
                let idle = idle::run(&options, available)?;
                Ok(Numbers::from([
                    (Metric::SessionBytes, idle.bytes_per_session()),
                    (Metric::BaseMib, idle.base_mib()),
                    (Metric::ServerPercent, idle.percent()),
                ]))
            }
            _ => Err(io::Error::other(
                "a row runs a command other than load and idle",
            )),
        }
    }
}

/// The result of each round, and whether the middle one keeps the target.
fn judge(check: &Check, sides: &[SideResult]) -> CheckResult {
    let side = |name: &str| sides.iter().find(|side| side.name == name);
    let values = |name: &str| -> Vec<Option<f64>> {
        let rounds = side(name).into_iter().flat_map(|side| &side.rounds);
        rounds
            .map(|round| round.numbers()?.get(&check.metric).copied())
            .collect()
    };
    let other = check.target.against().unwrap_or(check.of);
    let both = values(check.of).into_iter().zip(values(other));
    let results = both.filter_map(|(ours, theirs)| {
        let result = check.target.result(check.metric, ours?, theirs?);
        Some(result)
    });
    let spread = Spread::of(results.collect());
    let verdict = match spread {
        Some(spread) if check.target.is_met_by(spread.median) => Verdict::Met,
        Some(_) => Verdict::Missed,
        None if side(other).is_some_and(SideResult::is_not_built) => Verdict::NotBuilt,
        None => Verdict::NotMeasured,
    };
    CheckResult {
        of: check.of,
        metric: check.metric,
        target: check.target,
        spread,
        verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Target;

    fn side(name: &'static str, metric: Metric, values: &[f64]) -> SideResult {
        SideResult {
            name,
            command: String::new(),
            rounds: values
                .iter()
                .map(|&value| Round::Measured(Numbers::from([(metric, value)])))
                .collect(),
        }
    }

    fn judged(metric: Metric, target: Target, ours: &[f64], theirs: &[f64]) -> CheckResult {
        let of = "a";
        let check = Check { of, metric, target };
        judge(
            &check,
            &[side("a", metric, ours), side("b", metric, theirs)],
        )
    }

    #[test]
    fn a_target_is_kept_by_the_middle_round() {
        let cpu = |target| judged(Metric::CpuUs, target, &[1.0, 2.0, 1.0], &[2.0, 2.0, 1.5]);
        let within = cpu(Target::Within(0.6, "b"));
        let spread = within.spread.unwrap();
        assert_eq!((spread.min, spread.max), (0.5, 1.0));
        assert_eq!(within.verdict, Verdict::Missed);
        assert_eq!(cpu(Target::Within(0.7, "b")).verdict, Verdict::Met);
        assert_eq!(cpu(Target::Better(1.5, "b")).verdict, Verdict::Met);
        assert_eq!(cpu(Target::Better(1.6, "b")).verdict, Verdict::Missed);
        assert_eq!(cpu(Target::AtMost(1.0)).verdict, Verdict::Met);
        assert_eq!(cpu(Target::Adds(-0.5, "b")).verdict, Verdict::Met);
        assert_eq!(cpu(Target::Adds(-0.6, "b")).verdict, Verdict::Missed);
        let rate = judged(Metric::Rate, Target::Better(4.0, "b"), &[8.0], &[2.0]);
        assert_eq!(rate.verdict, Verdict::Met);
        assert_eq!(
            judged(Metric::Rate, Target::AtMost(4.0), &[], &[]).verdict,
            Verdict::NotMeasured
        );
    }

    #[test]
    fn a_target_against_a_peer_that_is_not_built_says_so() {
        let of = "a";
        let (metric, target) = (Metric::CpuUs, Target::Within(1.0, "b"));
        let not_built = "no compiler".to_owned();
        let mut other = side("b", metric, &[]);
        other.rounds.push(Round::NotBuilt { not_built });
        let check = Check { of, metric, target };
        let result = judge(&check, &[side("a", metric, &[1.0]), other]);
        assert_eq!(result.verdict, Verdict::NotBuilt);
        assert!(result.spread.is_none());
    }

    #[test]
    fn every_row_is_a_command() {
        for side in ROWS.iter().flat_map(|row| &row.sides) {
            let words = format!("tangelo-perf {}", side.command);
            let arguments = Arguments::try_parse_from(words.split(' '));
            let command = arguments.unwrap_or_else(|e| panic!("{words}: {e}")).command;
            assert!(matches!(command, Command::Load(_) | Command::Idle(_)));
        }
    }
}
