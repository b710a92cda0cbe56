//! The guard against slow growth: counts of a few operations may not exceed `bench/baseline.json` by more than a little. Who
//! makes one dearer for a reason changes the file in the same commit, so that it is seen.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::column::{Backend, Column, Mmu, Policy};
use super::measure::Job;
use super::results::{Clock, State};
use super::{built_in, own_folder};
use crate::build;
use crate::cli::MachineKind;
use crate::progress;
use crate::status::{Failed, Status};

/// How much more than the baseline is tolerated, as a factor.
const TOLERANCE: f64 = 1.05;
/// A run of the guest takes seconds.
const TIMEOUT: f64 = 120.0;

/// What is guarded: each kind of exit once, and what page tables cost.
const GUARDED: [&str; 18] = [
    "cli",
    "sti_cli",
    "cr0_read",
    "out_imm",
    "int80",
    "div0_user",
    "sysenter",
    "pf_skip",
    "pgfault_user",
    "irq_latency",
    "invlpg",
    "ptemod_invlpg_touch",
    "burst64",
    "dirty",
    "map4m_touch_cr3",
    "cr3_64_touch64",
    "exec_teardown",
    "forkwait",
];

/// `bench/baseline.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Baseline {
    /// How to make it anew.
    command: String,
    /// The run that it is compared with.
    run: String,
    /// Instructions for each operation.
    instructions: BTreeMap<String, f64>,
}

fn path() -> PathBuf {
    own_folder().join("baseline.json")
}

/// What the operations cost now.
fn measure() -> anyhow::Result<Baseline> {
    let column = Column {
        machine: MachineKind::Qemu,
        backend: Backend::Depriv,
        mmu: Some(Mmu::Shadow),
        policy: Some(Policy::WriteProtect),
    };
    let subject = built_in("rounds=2")?;
    let job = Job { subject, column, clock: Clock::Count, repeats: 1, timeout: TIMEOUT };
    let run = job.run(&build::kernel()?)?;
    if let State::Failed { why } | State::NotOffered { why } = &run.state {
        return Err(Failed::with(Status::Guest, format!("{}: {why}", job.describe())));
    }
    let cost = |&name: &&str| run.cost(name).map(|cost| (name.to_owned(), cost));
    let command = "scripts/gnomon bench guard --accept".into();
    Ok(Baseline { command, run: run.command.clone(), instructions: GUARDED.iter().filter_map(cost).collect() })
}

/// What is wrong with `now`, one line each.
fn grown(baseline: &Baseline, now: &Baseline) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, before) in &baseline.instructions {
        match now.instructions.get(name) {
            Some(after) if *after > before * TOLERANCE => {
                let percent = (after / before - 1.0) * 100.0;
                lines.push(format!(
                    "{name}: {after:.0} instructions, {percent:.1} % more than the {before:.0} of the baseline"
                ));
            }
            Some(_) => {}
            None => lines.push(format!("{name}: is in the baseline and was not measured")),
        }
    }
    lines
}

/// Measures and compares.
///
/// # Errors
/// If it cannot be measured, or there is no baseline.
pub fn check() -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path()).context("bench/baseline.json")?;
    let baseline: Baseline = serde_json::from_str(&text).context("bench/baseline.json")?;
    let now = measure()?;
    let better = baseline
        .instructions
        .iter()
        .filter(|(name, before)| now.instructions.get(*name).is_some_and(|after| after * TOLERANCE < **before));
    let better = better.count();
    if better > 0 {
        progress::note(&format!(
            "{better} operations are cheaper than the baseline says: gnomon bench guard --accept keeps it so"
        ));
    }
    Ok(grown(&baseline, &now))
}

/// `gnomon bench guard`.
///
/// # Errors
/// As [`check`], and if the baseline cannot be written.
pub(super) fn run(accept: bool) -> anyhow::Result<Status> {
    if accept {
        let text = serde_json::to_string_pretty(&measure()?)? + "\n";
        super::write(&path(), &text)?;
        return Ok(Status::Ok);
    }
    let lines = check()?;
    lines.iter().for_each(|line| progress::error(line));
    Ok(if lines.is_empty() { Status::Ok } else { Status::Guest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(cost: f64) -> Baseline {
        let instructions = BTreeMap::from([("cli".to_owned(), cost)]);
        Baseline { command: String::new(), run: String::new(), instructions }
    }

    #[test]
    fn growth_is_seen_beyond_five_percent() {
        assert!(grown(&baseline(400.0), &baseline(420.0)).is_empty());
        assert_eq!(grown(&baseline(400.0), &baseline(421.0)).len(), 1);
        let nothing = Baseline { instructions: BTreeMap::new(), ..baseline(0.0) };
        assert_eq!(grown(&baseline(400.0), &nothing).len(), 1, "an operation that is gone");
    }
}
