//! `gnomon bench profile`: which functions of the hypervisor the instructions of an operation are.
//!
//! The guest runs it in one round and then in many; the difference, divided, is one operation. What prepares a round is in it.

use std::io::Write as _;

use clap::Args;

use super::column::{Backend, Column, Mmu, Policy};
use super::measure::{Boot, Job, NO_FIGURES};
use super::results::{Clock, State};
use super::{BUILT_IN, built_in};
use crate::cli::MachineKind;
use crate::machine::RunFolder;
use crate::profile::{self, Counts, Profile};
use crate::status::{Failed, Status};
use crate::{build, progress};

/// Limit of a run in seconds.
const TIMEOUT: f64 = 900.0;
/// Functions with fewer instructions for each operation are not shown.
const LEAST: f64 = 0.5;

/// Arguments of `gnomon bench profile`.
#[derive(Debug, Args)]
pub(crate) struct ProfileArgs {
    /// The operation, as the tables call it
    operation: String,
    /// How shadow tables are kept
    #[arg(long, value_enum, default_value_t = Policy::Prefetch)]
    policy: Policy,
    /// Rounds of the operation
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=999))]
    rounds: u32,
}

/// A run of the guest.
struct Measured {
    counts: Counts,
    /// Operations in a round.
    count: u32,
    /// Instructions of one, as the guest has counted them.
    cost: f64,
}

/// Prints the profile.
///
/// # Errors
/// If something cannot be built or started, or there is no such operation.
pub(super) fn run(args: &ProfileArgs) -> anyhow::Result<Status> {
    let kernel = build::kernel()?;
    let wanted = Profile::of(&kernel)?;
    let measure = |rounds| {
        let job = args.job(rounds)?;
        progress::step(&format!("{}, rounds: {rounds}", args.operation), || measure(&job, args, &kernel, &wanted))
    };
    let (few, many) = (measure(1)?, measure(args.rounds.saturating_add(1))?);
    let operations = f64::from(args.rounds) * f64::from(many.count);
    let lines = profile::lines(&many.counts, &few.counts, &profile::symbols(&kernel)?, operations, LEAST);
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} on QEMU, {}: {:.1} instructions for one, as the guest counts them; and by function, with what prepares a round:\n",
        args.operation,
        args.column().label(),
        many.cost
    )?;
    write!(out, "{}", profile::table(&lines, 1))?;
    Ok(Status::Ok)
}

fn measure(job: &Job, args: &ProfileArgs, kernel: &std::path::Path, wanted: &Profile) -> anyhow::Result<Measured> {
    let folder = RunFolder::new()?;
    let recorder = match job.boot_in(&folder, kernel, Some(wanted))? {
        Boot::Done(recorder) => recorder,
        Boot::Not(State::Failed { why }) if why == NO_FIGURES => {
            return Err(Failed::usage(format!("{BUILT_IN} has no operation `{}`", args.operation)));
        }
        Boot::Not(State::Failed { why } | State::NotOffered { why }) => return Err(Failed::tool(why)),
        Boot::Not(State::Measured) => return Err(Failed::tool("nothing was measured")),
    };
    match recorder.results(Clock::Count).as_slice() {
        [one] => Ok(Measured { counts: Counts::read(&folder)?, count: one.count, cost: one.cost }),
        several => {
            let names: Vec<&str> = several.iter().map(|operation| operation.name.as_str()).collect();
            Err(Failed::usage(format!("`{}` is how several begin: {}", args.operation, names.join(", "))))
        }
    }
}

impl ProfileArgs {
    fn column(&self) -> Column {
        Column {
            machine: MachineKind::Qemu,
            backend: Backend::Depriv,
            mmu: Some(Mmu::Shadow),
            policy: Some(self.policy),
        }
    }

    fn job(&self, rounds: u32) -> anyhow::Result<Job> {
        Ok(Job {
            subject: built_in(&format!("rounds={rounds} only={}", self.operation))?,
            column: self.column(),
            clock: Clock::Count,
            repeats: 1,
            timeout: TIMEOUT,
        })
    }
}
