//! `gnomon bench compare A B`: what changed between two results.

use std::io::{self, Write as _};
use std::path::Path;

use super::results::{Clock, Operation, Results, Run};
use super::table::{Table, figure};
use crate::status::Status;

/// An operation whose cost differs.
struct Change {
    run: String,
    operation: String,
    before: f64,
    after: f64,
    /// Counts are exact, so that any change is real. Of times, the middle halves of the rounds must lie apart.
    beyond_noise: bool,
}

impl Change {
    fn percent(&self) -> f64 {
        (self.after - self.before) / self.before * 100.0
    }
}

/// Compares two results and prints the changes, the greatest first.
///
/// # Errors
/// If a file is missing or no results.
pub(super) fn run(before: &Path, after: &Path, least: f64) -> anyhow::Result<Status> {
    let (before, after) = (Results::load(before)?, Results::load(after)?);
    let (mut all, mut same, mut alone) = (Vec::new(), 0, 0);
    let mut counts = Counts::default();
    for run in &before.runs {
        let Some(other) = after.runs.iter().find(|other| is_same(run, other)) else {
            alone += 1;
            continue;
        };
        for (one, two) in run.operations.iter().filter_map(|one| Some((one, other.operation(&one.name)?))) {
            if run.clock == Clock::Count {
                counts.compare(one, two);
            }
            match change(run, one, two).filter(|change| change.percent().abs() >= least) {
                Some(change) => all.push(change),
                None => same += 1,
            }
        }
    }
    all.sort_by(|a, b| b.percent().abs().total_cmp(&a.percent().abs()));
    let mut out = io::stdout().lock();
    writeln!(out, "before: commit {}, {}", before.source.commit, before.command)?;
    writeln!(out, "after:  commit {}, {}\n", after.source.commit, after.command)?;
    if all.is_empty() {
        writeln!(out, "no cost changed by {least} % or more ({same} compared)")?;
    } else {
        writeln!(out, "{}", table(&all).plain())?;
        let real = all.iter().filter(|change| change.beyond_noise).count();
        writeln!(out, "{} changed by {least} % or more, {real} of them beyond noise; {same} did not", all.len())?;
    }
    writeln!(out, "{}", counts.sentence())?;
    if alone > 0 {
        writeln!(out, "{alone} runs are in the first only")?;
    }
    Ok(Status::Ok)
}

/// Counts of instructions, exits and what the shadow MMU did, however little they differ.
#[derive(Debug, Default)]
struct Counts {
    all: usize,
    different: usize,
}

impl Counts {
    fn compare(&mut self, one: &Operation, two: &Operation) {
        self.all += 1;
        if (one.cost, &one.exits, &one.mmu) != (two.cost, &two.exits, &two.mmu) {
            self.different += 1;
        }
    }

    fn sentence(&self) -> String {
        let Self { all, different } = self;
        format!("counts of instructions, exits and the shadow MMU: {different} of {all} operations differ")
    }
}

fn is_same(one: &Run, two: &Run) -> bool {
    (&one.guest, one.column, one.clock) == (&two.guest, two.column, two.clock)
}

fn change(run: &Run, one: &Operation, two: &Operation) -> Option<Change> {
    let beyond_noise = match (run.clock, one.spread, two.spread) {
        (Clock::Wall, Some(one), Some(two)) => one.1 < two.0 || two.1 < one.0,
        _ => true,
    };
    let clock = if run.clock == Clock::Wall { ", timed" } else { "" };
    (one.cost != two.cost && one.cost > 0.0).then(|| Change {
        run: format!("{} {}{clock}", run.guest, run.column.describe()),
        operation: one.name.clone(),
        before: one.cost,
        after: two.cost,
        beyond_noise,
    })
}

fn table(changes: &[Change]) -> Table {
    let mut table = Table::new(&["run", "operation", "before", "after", "change", "beyond noise"]);
    for change in changes {
        table.push(vec![
            change.run.clone(),
            change.operation.clone(),
            figure(change.before),
            figure(change.after),
            format!("{:+.1} %", change.percent()),
            if change.beyond_noise { "yes" } else { "no" }.into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::column::{Backend, Column};
    use super::super::results::State;
    use super::*;
    use crate::cli::MachineKind;

    fn operation(cost: f64, spread: Option<(f64, f64)>) -> Operation {
        Operation { name: "x".into(), count: 1, rounds: 1, cost, spread, exits: None, mmu: None }
    }

    fn run(clock: Clock) -> Run {
        Run {
            guest: "bench".into(),
            column: Column { machine: MachineKind::Qemu, backend: Backend::Bare, mmu: None, policy: None },
            clock,
            command: String::new(),
            state: State::Measured,
            repeats: 1,
            identical: None,
            operations: Vec::new(),
        }
    }

    #[test]
    fn counts_that_differ_are_counted_however_little_they_do() {
        let mut counts = Counts::default();
        let one = operation(100_000.0, None);
        counts.compare(&one, &one);
        counts.compare(&one, &operation(100_000.5, None));
        counts.compare(&one, &Operation { exits: Some([("cli".to_owned(), 1.0)].into()), ..one.clone() });
        assert!(counts.sentence().ends_with("2 of 3 operations differ"));
    }

    #[test]
    fn counts_change_for_real_and_times_when_they_lie_apart() {
        let counts = |a, b| change(&run(Clock::Count), &operation(a, None), &operation(b, None));
        assert!(counts(100.0, 100.0).is_none());
        assert!(counts(100.0, 101.0).is_some_and(|change| change.beyond_noise));
        let times = |a, b| change(&run(Clock::Wall), &operation(10.0, Some(a)), &operation(12.0, Some(b)));
        assert!(times((9.0, 11.5), (11.0, 13.0)).is_some_and(|change| !change.beyond_noise));
        assert!(times((9.0, 10.5), (11.0, 13.0)).is_some_and(|change| change.beyond_noise));
    }
}
