//! The steps of `gnomon test`.

use std::process::Command;

use clap::ValueEnum;

use super::{Verdict, run_program};
use crate::bench;
use crate::build;
use crate::workspace;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// cargo fmt --check
    Fmt,
    /// clippy over the whole workspace, warnings denied
    Clippy,
    /// clippy over the bare-metal parts, warnings denied
    ClippyBare,
    /// rustdoc, warnings denied
    Doc,
    /// Unit tests
    Unit,
    /// Random guests on the shadow MMU and its model, 20 seconds of libFuzzer
    Fuzz,
    /// The kernel and its machine code
    Kernel,
    /// The guests
    Guests,
    /// Instruction counts of a few operations against bench/baseline.json
    Bench,
    /// End-to-end tests on QEMU and Bochs
    E2e,
}

impl Step {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What it does.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Fmt => "formatting",
            Self::Clippy => "lints of the workspace",
            Self::ClippyBare => "lints of the bare-metal code",
            Self::Doc => "documentation",
            Self::Unit => "unit tests",
            Self::Fuzz => "fuzzing of the shadow MMU",
            Self::Kernel => "kernel build and check of its machine code",
            Self::Guests => "guests",
            Self::Bench => "instruction counts against the baseline",
            Self::E2e => "end-to-end tests on QEMU and Bochs",
        }
    }
}

/// Runs a step. `filter` selects end-to-end tests.
pub(super) fn run(step: Step, filter: Option<&str>) -> anyhow::Result<Verdict> {
    match step {
        Step::Fmt => run_program(&mut cargo("fmt --all --check")),
        Step::Clippy => run_program(&mut cargo("clippy --locked --quiet --workspace --all-targets -- -D warnings")),
        Step::ClippyBare => clippy_bare(),
        Step::Doc => {
            let mut command = cargo("doc --locked --quiet --workspace --no-deps --document-private-items");
            run_program(command.env("RUSTDOCFLAGS", "-D warnings"))
        }
        Step::Unit => run_program(&mut cargo("test --locked --quiet --workspace --exclude gnomon-e2e")),
        Step::Fuzz => super::fuzz::step(),
        Step::Kernel => Ok(built(build::kernel().map(drop))),
        Step::Guests => Ok(built(build::guests().map(drop))),
        Step::Bench => Ok(guarded(bench::guard())),
        Step::E2e => {
            let mut command = cargo("test --locked --quiet -p gnomon-e2e --test e2e -- --include-ignored");
            run_program(command.args(filter))
        }
    }
}

fn cargo(arguments: &str) -> Command {
    let mut command = workspace::cargo();
    command.args(arguments.split(' '));
    command
}

/// The kernel binary and the guests are behind features. They are linted without the kernel's code generation flags, which
/// warn about themselves, but with its profile: a binary without std must abort on panic.
fn clippy_bare() -> anyhow::Result<Verdict> {
    let kernel =
        "clippy --locked --quiet -p gnomon-kernel -p gnomon-boot -p gnomon-hw --features bare --profile kernel";
    let guests =
        "clippy --locked --quiet --config .cargo/guests.toml -p gnomon-guests --bins --features guest --profile guest";
    for arguments in [kernel, guests] {
        let mut command = cargo(arguments);
        let target = workspace::host_target().join("bare");
        let verdict = run_program(command.arg("--target-dir").arg(target).args(["--", "-D", "warnings"]))?;
        if let Verdict::Failed(why) = verdict {
            return Ok(Verdict::Failed(why));
        }
    }
    Ok(Verdict::Passed)
}

/// Nothing guarded may have become dearer.
fn guarded(result: anyhow::Result<Vec<String>>) -> Verdict {
    match result {
        Ok(grown) if grown.is_empty() => Verdict::Passed,
        Ok(grown) => {
            grown.iter().for_each(|line| crate::progress::error(line));
            Verdict::Failed("a cost grew: mend it, or say why and run gnomon bench guard --accept".into())
        }
        Err(error) => built(Err(error)),
    }
}

fn built(result: anyhow::Result<()>) -> Verdict {
    match result {
        Ok(()) => Verdict::Passed,
        Err(error) => {
            crate::progress::error(&format!("{error:#}"));
            Verdict::Failed("see above".into())
        }
    }
}
