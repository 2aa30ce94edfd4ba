//! `compare --old`: what a change of the gateway costs. A row runs with the old binary, the new one,
//! and the old one again. The two runs of the old binary show how much the machine alone changes
//! the numbers.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::Options;
use crate::process::check_stop;
use crate::report::{Machine, Numbers, Spread, short};
use crate::rows::{Metric, Row};

/// Fewest rounds that show the noise of the machine.
pub(crate) const ROUNDS_MIN: u16 = 5;

/// Greatest ratio of the new binary's number to the old one's that still passes.
const RATIO_MAX: f64 = 1.02;
/// Greatest ratio of two runs of the old binary in one round; above it the machine is too noisy.
const NOISE_MAX: f64 = 1.05;
/// Base memory that a new binary may add, MiB.
const BASE_MIB_MAX: f64 = 0.25;

pub(crate) fn run(
    options: &Options,
    old: &Path,
    rows: &[&'static Row],
    available: &[usize],
) -> io::Result<()> {
    fs::metadata(old)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", old.display())))?;
    let machine = Machine::this(options.command(), available.len());
    let mut changes = Vec::new();
    let mut runs_failed = 0;
    for row in rows {
        let mut measured = Change::all_of(row);
        runs_failed += measure(options, old, row, &mut measured, available)?;
        print!("\n{}", table(&measured));
        changes.append(&mut measured);
        // After each row: a later failure does not lose the rows before it.
        if let Some(folder) = &options.results {
            fs::create_dir_all(folder)?;
            let text = format!(
                "# A new binary against an old one\n\n{machine}\n{}",
                table(&changes)
            );
            fs::write(folder.join("old.md"), text)?;
        }
    }
    if rows.len() > 1 {
        print!("\n{}", table(&changes));
    }
    let count = |verdict| {
        let same = changes.iter().filter(|c| c.judge().verdict == verdict);
        same.count()
    };
    let (slower, unknown) = (count(Verdict::Fails), count(Verdict::NotMeasurable));
    println!("slower rows: {slower}, rows that are not measurable: {unknown}");
    if slower + runs_failed > 0 {
        let text =
            format!("{slower} rows are slower, {runs_failed} runs failed; see the table above");
        return Err(io::Error::other(text));
    }
    Ok(())
}

/// Runs all rounds of a row; returns how many runs failed.
fn measure(
    options: &Options,
    old: &Path,
    row: &'static Row,
    changes: &mut [Change],
    available: &[usize],
) -> io::Result<usize> {
    println!("\n{}: {}", row.name, row.work);
    let mut failed = 0;
    for round in 1..=options.rounds() {
        for side in &row.sides {
            let is_of_side = |change: &&mut Change| change.side == side.name;
            let mut of_side = changes.iter_mut().filter(is_of_side).peekable();
            if of_side.peek().is_none() {
                continue;
            }
            let run = |name, tangelo| {
                println!("{} {round} {name}: {}", row.name, side.command);
                options.run_side(side, tangelo, available)
            };
            let new = options.tangelo.as_deref();
            let runs = [
                run("old", Some(old)),
                run("new", new),
                run("old again", Some(old)),
            ];
            for error in runs.iter().filter_map(|run| run.as_ref().err()) {
                check_stop()?;
                println!("  failed: {error}");
                failed += 1;
            }
            if let [Ok(before), Ok(new), Ok(after)] = &runs {
                of_side.for_each(|change| change.add(before, new, after));
            }
        }
    }
    Ok(failed)
}

/// One measure of a row, with both binaries.
struct Change {
    row: &'static Row,
    side: &'static str,
    metric: Metric,
    rounds: Vec<Round>,
}

/// One round: the old binary, the new one, the old one again.
#[derive(Debug, Clone, Copy)]
struct Round {
    old: [f64; 2],
    new: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passes,
    Fails,
    NotMeasurable,
}

struct Judged {
    /// New to old, of each round; none without rounds.
    ratio: Option<Spread>,
    /// The greatest ratio between two runs of the old binary in one round.
    noise: f64,
    verdict: Verdict,
}

impl Change {
    /// Lists the measures in the targets of a row, each once. It leaves out the rate, which is that of the
    /// slower side: CPU says the same more exactly.
    fn all_of(row: &'static Row) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for check in row.checks.iter().filter(|c| c.metric != Metric::Rate) {
            let (side, metric) = (check.of, check.metric);
            if all.iter().all(|c| (c.side, c.metric) != (side, metric)) {
                all.push(Self {
                    row,
                    side,
                    metric,
                    rounds: Vec::new(),
                });
            }
        }
        all
    }

    fn add(&mut self, before: &Numbers, new: &Numbers, after: &Numbers) {
        let [before, new, after] = [before, new, after].map(|numbers| numbers.get(&self.metric));
        if let (Some(&before), Some(&new), Some(&after)) = (before, new, after) {
            let old = [before, after];
            self.rounds.push(Round { old, new });
        }
    }

    fn judge(&self) -> Judged {
        judge(self.metric, &self.rounds)
    }
}

/// Judges the rounds of one measure. A lower number is better in each measure.
fn judge(metric: Metric, rounds: &[Round]) -> Judged {
    let of_each = |f: fn(&Round) -> f64| Spread::of(rounds.iter().map(f).collect());
    let ratio = of_each(|round| round.new / round.old());
    let noise = of_each(Round::noise).map_or(f64::INFINITY, |noise| noise.max);
    let added = of_each(|round| round.new - round.old());
    let verdict = match (ratio, added) {
        _ if rounds.len() < usize::from(ROUNDS_MIN) => Verdict::NotMeasurable,
        (_, Some(added)) if metric == Metric::BaseMib => match added.median <= BASE_MIB_MAX {
            true => Verdict::Passes,
            false => Verdict::Fails,
        },
        (Some(ratio), _) if noise <= NOISE_MAX => {
            match ratio.median > RATIO_MAX && ratio.median > noise {
                true => Verdict::Fails,
                false => Verdict::Passes,
            }
        }
        _ => Verdict::NotMeasurable,
    };
    Judged {
        ratio,
        noise,
        verdict,
    }
}

impl Round {
    /// Returns the middle of both old runs, so that a machine that changes evenly over a round favours nobody.
    fn old(&self) -> f64 {
        f64::midpoint(self.old[0], self.old[1])
    }

    /// Returns the ratio of the greater old number to the smaller one; infinite where that is zero.
    fn noise(&self) -> f64 {
        let [a, b] = self.old;
        let (least, greatest) = (a.min(b), a.max(b));
        match least > 0.0 {
            true => greatest / least,
            false => f64::INFINITY,
        }
    }
}

fn table(changes: &[Change]) -> String {
    let mut out = String::from(
        "| work | what | old | new | new/old | min … max | greatest old/old | |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for change in changes {
        let judged = change.judge();
        let median = |f: fn(&Round) -> f64| {
            let spread = Spread::of(change.rounds.iter().map(f).collect());
            spread.map_or("–".into(), |spread| short(spread.median))
        };
        let (ratio, range) = judged.ratio.map_or(("–".into(), "–".into()), |ratio| {
            let range = format!("{:.3} … {:.3}", ratio.min, ratio.max);
            (format!("{:.3}", ratio.median), range)
        });
        let what = match change.side {
            "tangelo" => change.metric.name().to_owned(),
            side => format!("{side}: {}", change.metric.name()),
        };
        let _ = writeln!(
            out,
            "| {} | {what} | {} | {} | {ratio} | {range} | {:.3} | {} |",
            change.row.name,
            median(Round::old),
            median(|round| round.new),
            judged.noise,
            match judged.verdict {
                Verdict::Passes => "passes",
                Verdict::Fails => "**fails**",
                Verdict::NotMeasurable => "not measurable",
            }
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ROWS;

    fn rounds(rounds: &[([f64; 2], f64)]) -> Vec<Round> {
        let round = |&(old, new): &([f64; 2], f64)| Round { old, new };
        rounds.iter().map(round).collect()
    }

    fn verdict(metric: Metric, of: &[([f64; 2], f64)]) -> Verdict {
        judge(metric, &rounds(of)).verdict
    }

    #[test]
    fn a_row_fails_by_its_middle_round_when_that_is_over_two_percent() {
        let cpu = |new: [f64; 5]| verdict(Metric::CpuUs, &new.map(|new| ([1.0, 1.0], new)));
        assert_eq!(cpu([1.02; 5]), Verdict::Passes);
        assert_eq!(cpu([1.021; 5]), Verdict::Fails);
        assert_eq!(cpu([0.5; 5]), Verdict::Passes);
        assert_eq!(cpu([9.0, 9.0, 1.0, 1.0, 1.0]), Verdict::Passes);
        assert_eq!(cpu([9.0, 9.0, 9.0, 1.0, 1.0]), Verdict::Fails);
    }

    #[test]
    fn the_new_binary_may_differ_as_much_as_two_runs_of_the_old_one() {
        let mut five = [([1.0, 1.0], 1.03); 5];
        assert_eq!(verdict(Metric::CpuUs, &five), Verdict::Fails);
        for old in [[1.0, 1.04], [1.04, 1.0]] {
            five[3].0 = old;
            assert_eq!(judge(Metric::CpuUs, &rounds(&five)).noise, 1.04);
            assert_eq!(verdict(Metric::CpuUs, &five), Verdict::Passes);
        }
        let seven_percent = five.map(|(old, _)| (old, 1.07 * f64::midpoint(old[0], old[1])));
        assert_eq!(verdict(Metric::CpuUs, &seven_percent), Verdict::Fails);
    }

    #[test]
    fn a_row_whose_old_runs_differ_by_more_than_five_percent_is_not_measurable() {
        for new in [0.5, 1.0, 9.0] {
            let mut five = [([1.0, 1.0], new); 5];
            five[0].0 = [1.0, 1.06];
            assert_eq!(verdict(Metric::P99Ms, &five), Verdict::NotMeasurable);
            five[0].0 = [0.0, 0.0];
            assert_eq!(verdict(Metric::P99Ms, &five), Verdict::NotMeasurable);
        }
    }

    #[test]
    fn a_row_with_fewer_than_five_rounds_is_not_measurable() {
        let four = [([1.0, 1.0], 1.0); 4];
        assert_eq!(verdict(Metric::CpuUs, &four), Verdict::NotMeasurable);
        assert_eq!(verdict(Metric::BaseMib, &four), Verdict::NotMeasurable);
        assert_eq!(verdict(Metric::CpuUs, &[]), Verdict::NotMeasurable);
    }

    #[test]
    fn base_memory_may_grow_by_256_kib() {
        let base = |added: f64| verdict(Metric::BaseMib, &[([6.0, 6.5], 6.25 + added); 5]);
        assert_eq!(base(0.25), Verdict::Passes);
        assert_eq!(base(0.26), Verdict::Fails);
        assert_eq!(base(-3.0), Verdict::Passes);
    }

    #[test]
    fn every_row_has_a_measure_and_only_gateways_run() {
        for row in ROWS.iter() {
            let changes = Change::all_of(row);
            assert!(!changes.is_empty(), "{}", row.name);
            for change in changes {
                let mut sides = row.sides.iter().filter(|side| side.name == change.side);
                let side = sides.next().expect("a row has an old and a new run");
                assert!(!side.command.contains("--server "), "{}", side.command);
            }
        }
    }
}
