//! `gnomon test`: everything that CI runs.

mod fuzz;
mod steps;

pub use fuzz::{FuzzArgs, run as fuzz};
pub use steps::Step;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::cli::TestArgs;
use crate::progress;
use crate::status::{Failed, Status};

/// How a step went.
enum Verdict {
    Passed,
    Failed(String),
}

/// Runs the steps that the arguments select, all of them even if one fails, and prints a summary.
///
/// # Errors
/// If the user interrupts, or a program cannot be started.
pub fn run(args: &TestArgs) -> anyhow::Result<Status> {
    let steps: Vec<Step> = Step::value_variants().iter().copied().filter(|step| wanted(args, *step)).collect();
    let mut results = Vec::new();
    for (index, &step) in steps.iter().enumerate() {
        progress::note(&format!("[{}/{}] {}", index + 1, steps.len(), step.describe()));
        let start = Instant::now();
        let verdict = steps::run(step, args.filter.as_deref())?;
        results.push((step, verdict, start.elapsed()));
    }
    Ok(summary(&results))
}

fn wanted(args: &TestArgs, step: Step) -> bool {
    let selected = match (args.only.is_empty(), args.filter.is_none()) {
        (false, _) => args.only.contains(&step),
        (true, false) => step == Step::E2e,
        (true, true) => true,
    };
    selected && !args.skip.contains(&step)
}

fn summary(results: &[(Step, Verdict, Duration)]) -> Status {
    eprintln!();
    let mut failed = 0;
    for (step, verdict, time) in results {
        let (mark, why) = match verdict {
            Verdict::Passed => ("ok    ", String::new()),
            Verdict::Failed(why) => {
                failed += 1;
                ("FAILED", format!("  {why}"))
            }
        };
        eprintln!("{mark} {:<14} {:>7.1} s{why}", step.name(), time.as_secs_f64());
    }
    let total: Duration = results.iter().map(|(_, _, time)| *time).sum();
    let word = if failed == 0 { "ok" } else { "FAILED" };
    eprintln!(
        "\ngnomon test: {word}. {} passed; {failed} failed; {:.0} s",
        results.len() - failed,
        total.as_secs_f64()
    );
    if failed == 0 { Status::Ok } else { Status::Guest }
}

/// Runs a program to its end. A signal to us kills it and everything it has started.
fn run_program(command: &mut Command) -> anyhow::Result<Verdict> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(|error| Failed::tool(format!("cannot run {name}: {error}")))?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() { Verdict::Passed } else { Verdict::Failed(format!("{name}: {status}")) });
        }
        if crate::interrupt::pending() {
            let group = Pid::from_child(&child);
            // SIGTERM first: the end-to-end tests take their emulators along.
            let _ = kill_process_group(group, Signal::TERM);
            std::thread::sleep(Duration::from_millis(500));
            let _ = kill_process_group(group, Signal::KILL);
            let _ = child.wait();
            return Err(Failed::interrupted());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
